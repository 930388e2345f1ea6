//! `sandhi units`: what sound files say in discrete units, one JSON line a file; `sandhi units fit`: centers for them.
//!
//! ```text
//! sounds ─ Front: an encoder's layer, or windows of spectra ─┬─ Kmeans::assign ─ units
//!                                                            └─ Kmeans::fit ──── centers.npy
//! ```

use std::path::{Path, PathBuf};

use anyhow::Context;
use burn::prelude::Device;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sandhi_data::{
    audio::Waveform,
    features::{FEATURE_SAMPLE_RATE_HZ, FeatureConfig, FeatureExtractor, WhisperConfig},
    manifest::{self, Utterance},
    rng::Stream,
};
use sandhi_lab::{
    checkpoint::write_atomically,
    hf::{ModelSource, SpeechEncoder},
    model::{AnyModel, SpeechModel},
    units::{FitConfig, FrameWindow, Front, Kmeans, Spectra},
};
use serde::Serialize;

use super::data::tell_rejected;
use crate::{device::DeviceArg, hub_args::HubArgs, model_args::PublishedArgs, output};

/// Arguments of `sandhi units`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    front: FrontArgs,
    /// Centers of clusters, `[n_clusters, width]`: .npy or .safetensors, of `sandhi units fit`; tools/kmeans.py takes
    /// them out of a scikit-learn model.
    #[arg(long, value_name = "FILE", required = true)]
    kmeans: Option<PathBuf>,
    /// WAV, FLAC, MP3 or Ogg Vorbis files; each is heard whole.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Find centers of clusters, by k-means.
    Fit(FitArgs),
}

/// What frames are made by.
#[derive(Debug, clap::Args)]
struct FrontArgs {
    /// Frames of this encoder: a directory in Hugging Face's layout, hf:owner/name@revision, or a ctc or connector model
    /// of ours.
    #[arg(long, value_name = "DIR", conflicts_with = "log_mel")]
    model: Option<ModelSource>,
    #[command(flatten)]
    hub: HubArgs,
    /// Whose frames the centers are of: 0 for what goes into the first block, 1 for what comes out of it, and so on;
    /// the last one by default. mHuBERT's are of layer 11.
    #[arg(long, value_name = "N", requires = "model")]
    layer: Option<usize>,
    /// Frames of so many bands of Whisper's log-mel spectrum, normalized by utterance, instead of an encoder's.
    #[arg(long, value_name = "BANDS")]
    log_mel: Option<usize>,
    /// Spectra on either side that a frame of --log-mel has besides its own.
    #[arg(long, value_name = "N", default_value_t = FrameWindow::default().context)]
    context: usize,
    /// Spectra of 10 ms that a frame of --log-mel stands for.
    #[arg(long, value_name = "N", default_value_t = FrameWindow::default().stride)]
    stride: usize,
    /// cpu, wgpu[:i], vulkan[:i], cuda[:i] or metal[:i].
    #[arg(long, default_value = "cpu")]
    device: DeviceArg,
}

/// Arguments of `sandhi units fit`.
#[derive(Debug, clap::Args)]
struct FitArgs {
    #[command(flatten)]
    front: FrontArgs,
    /// Clusters.
    #[arg(long, short = 'n', value_name = "N")]
    clusters: usize,
    /// The centers, a .npy file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What utterances and first centers are drawn with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Lloyd's iterations at most.
    #[arg(long, value_name = "N", default_value_t = 100)]
    iterations: usize,
    /// Utterances are heard, in an order drawn from the seed, until there are so many frames.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    max_frames: usize,
    /// Utterances to hear: a manifest or a data folder.
    #[arg(long, value_name = "PATH")]
    manifest: Option<PathBuf>,
    /// Only utterances of this part of the manifest, e.g. `train`.
    #[arg(long, requires = "manifest")]
    split: Option<String>,
    /// No progress bar.
    #[arg(long)]
    quiet: bool,
    /// Sound files to hear.
    #[arg(value_name = "FILE", required_unless_present = "manifest", conflicts_with = "manifest")]
    files: Vec<PathBuf>,
}

/// A line of the output.
#[derive(Debug, Serialize)]
struct Line {
    file: String,
    /// Units a second.
    rate_hz: f64,
    /// One a frame; repetitions stay.
    units: Vec<u32>,
}

/// Hears the files one after the other.
pub fn run(args: Args) -> anyhow::Result<()> {
    if let Some(Command::Fit(args)) = args.command {
        return fit(args);
    }
    let path = args.kmeans.context("--kmeans says which centers")?;
    let kmeans = Kmeans::read(&path)?;
    let device = args.front.device.open()?;
    let (front, name) = args.front.open(&device)?;
    anyhow::ensure!(
        kmeans.width() == front.width(),
        "{}: centers are {} wide, frames of {name} are {}",
        path.display(),
        kmeans.width(),
        front.width()
    );
    for path in &args.files {
        let file = path.display().to_string();
        let wave = Waveform::read_resampled(path, FEATURE_SAMPLE_RATE_HZ)?;
        let frames = front.frames(&wave.samples, &device).with_context(|| file.clone())?;
        let units = kmeans.assign(&frames);
        let rate_hz = front.rate_hz();
        output::print(&serde_json::to_string(&Line { file, rate_hz, units })?)?;
    }
    Ok(())
}

impl FrontArgs {
    /// What makes the frames, and what it is called.
    fn open(self, device: &Device) -> anyhow::Result<(Front, String)> {
        if let Some(n_mels) = self.log_mel {
            let window = FrameWindow { context: self.context, stride: self.stride };
            if let Some(problem) = window.problems().first() {
                anyhow::bail!("--{problem}");
            }
            let config = WhisperConfig { n_mels, ..WhisperConfig::default() };
            let spectra = Spectra::new(&FeatureConfig::Whisper(config), window)?;
            return Ok((Front::Spectra(spectra), "--log-mel".to_owned()));
        }
        let source = self.model.context("--model or --log-mel says what frames are made by")?;
        let name = source.to_string();
        if let ModelSource::Directory(dir) = &source
            && dir.join("model.json").exists()
        {
            anyhow::ensure!(
                self.layer.is_none(),
                "--layer: of {name} only the last frames are handed out"
            );
            return Ok((of_ours(dir, device, &self.hub)?, name));
        }
        let published = PublishedArgs { source, hub: self.hub };
        let model = SpeechEncoder::load_layer(&published.directory()?, self.layer, device)?;
        let extractor = FeatureExtractor::new(&model.features)?;
        let (config, encoder) = (model.config.encoder, model.encoder);
        Ok((Front::Encoder { extractor, config, encoder }, name))
    }
}

/// The encoder of a model of ours.
fn of_ours(dir: &Path, device: &Device, hub: &HubArgs) -> anyhow::Result<Front> {
    let model = AnyModel::load(dir, device, &hub.hub()?)?;
    let speech: SpeechModel = match model {
        AnyModel::Ctc(model) => *model,
        AnyModel::Connector(model) => model.speech,
        other => anyhow::bail!("{}: a {} model has no encoder", dir.display(), other.kind()),
    };
    let extractor = FeatureExtractor::new(&speech.features)?;
    Ok(Front::Encoder { extractor, config: speech.config, encoder: speech.encoder })
}

/// Finds centers and writes them.
fn fit(args: FitArgs) -> anyhow::Result<()> {
    anyhow::ensure!(args.max_frames > 0, "--max-frames is 0, expected at least 1");
    anyhow::ensure!(args.iterations > 0, "--iterations is 0, expected at least 1");
    let mut utterances = match &args.manifest {
        Some(path) => {
            let import = manifest::import_split(path, args.split.as_deref())?;
            tell_rejected(&import.rejected);
            import.utterances
        }
        None => args.files.iter().map(|path| Utterance::new("", path, "")).collect(),
    };
    anyhow::ensure!(!utterances.is_empty(), "there is nothing to hear");
    Stream::named(args.seed, "utterances").shuffle(&mut utterances);
    let device = args.front.device.open()?;
    let (front, _) = args.front.open(&device)?;
    let bar = |len: usize, what: &str| -> anyhow::Result<ProgressBar> {
        let hidden = args.quiet;
        let target =
            if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(len as u64), target);
        let style = format!("{what} {{bar:30}} {{pos}}/{{len}}  {{msg}}");
        bar.set_style(ProgressStyle::with_template(&style)?);
        Ok(bar)
    };
    let width = front.width();
    let hearing = bar(args.max_frames, "hearing")?;
    let mut frames: Vec<f32> = Vec::new();
    let mut n_heard = 0;
    for Utterance { audio, .. } in &utterances {
        let file = || audio.path.display().to_string();
        let wave = Waveform::read_span(&audio.path, audio.start_s, audio.duration_s)?
            .resampled(FEATURE_SAMPLE_RATE_HZ)?;
        frames.extend(front.frames(&wave.samples, &device).with_context(file)?);
        n_heard += 1;
        hearing.set_position((frames.len() / width).min(args.max_frames) as u64);
        if frames.len() >= args.max_frames * width {
            break;
        }
    }
    hearing.finish_and_clear();
    frames.truncate(args.max_frames * width);
    let n_frames = frames.len() / width;
    let fitting = bar(args.iterations, "fitting")?;
    let config =
        FitConfig { n_clusters: args.clusters, iterations: args.iterations, seed: args.seed };
    let mut last = None;
    let kmeans = Kmeans::fit(&frames, width, &config, &mut |iteration| {
        fitting.set_position(iteration.number as u64);
        fitting.set_message(format!("mean squared distance {:.4}", iteration.mean_square));
        last = Some(iteration);
    })?;
    fitting.finish_and_clear();
    write_atomically(&args.out, &kmeans.to_npy())?;
    if let Some(last) = last {
        let (n, square, out) = (last.number, last.mean_square, args.out.display());
        eprintln!(
            "{} centers of {n_frames} frames of {n_heard} utterances, width {width}, mean squared distance {square:.4} \
             after {n} iterations: {out}",
            kmeans.n_clusters()
        );
    }
    Ok(())
}
