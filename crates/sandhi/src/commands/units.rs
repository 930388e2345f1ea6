//! `sandhi units`: what sound files say in discrete units, one JSON line a file; `sandhi units fit`: centers for them;
//! `sandhi units write`: a manifest as a file of units, with its words; `sandhi units quality`: what units tell of
//! phones; `sandhi units speak`: units as sound again.
//!
//! ```text
//! sounds ─ Front: an encoder's layer, or windows of spectra ─┬─ Kmeans::assign ─ units ─┬─ words in units ─ file
//!                                                            │                          └─ phones ─ purities, PNMI
//!                                                            └─ Kmeans::fit, MiniBatch ─ centers.npy
//! ```

mod fit;
mod quality;
mod speak;
mod write;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use burn::prelude::Device;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sandhi_data::{
    audio::Waveform,
    features::{FEATURE_SAMPLE_RATE_HZ, FeatureConfig, WhisperConfig},
    manifest::Utterance,
};
use sandhi_lab::{
    hf::{ModelSource, SpeechEncoder},
    model::{AnyModel, SpeechModel},
    units::{FrameWindow, Front, Kmeans, Spectra},
};
use serde::Serialize;

use super::failures::Failures;
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
    Fit(fit::Args),
    /// Hear a manifest and write a file of units, with its texts and where its words lie.
    Write(write::Args),
    /// Measure what units tell of phones, on speech of Microworld, whose phones have exact times.
    Quality(quality::Args),
    /// Say units with a vocoder, and write WAV files.
    Speak(speak::Args),
}

/// What frames are made by.
#[derive(Debug, Clone, clap::Args)]
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
    match args.command {
        Some(Command::Fit(args)) => return fit::run(args),
        Some(Command::Write(args)) => return write::run(args),
        Some(Command::Quality(args)) => return quality::run(args),
        Some(Command::Speak(args)) => return speak::run(args),
        None => {}
    }
    let path = args.kmeans.context("--kmeans says which centers")?;
    let (front, kmeans) = quantizer(args.front, &path)?;
    for path in &args.files {
        let file = path.display().to_string();
        let wave = Waveform::read_resampled(path, FEATURE_SAMPLE_RATE_HZ)?;
        let frames = front.frames(&wave.samples).with_context(|| file.clone())?;
        ensure!(frames.iter().all(|value| value.is_finite()), "{file}: its frames are not finite");
        let units = kmeans.assign(&frames);
        let rate_hz = front.rate_hz();
        output::print(&serde_json::to_string(&Line { file, rate_hz, units })?)?;
    }
    Ok(())
}

/// What makes frames, and centers of such frames.
fn quantizer(front: FrontArgs, centers: &Path) -> anyhow::Result<(Front, Kmeans)> {
    let kmeans = Kmeans::read(centers)?;
    let device = front.device.open()?;
    let (front, name) = front.open(&device)?;
    ensure!(
        kmeans.width() == front.width(),
        "{}: centers are {} wide, frames of {name} are {}",
        centers.display(),
        kmeans.width(),
        front.width()
    );
    Ok((front, kmeans))
}

fn bar(len: usize, what: &str, hidden: bool) -> anyhow::Result<ProgressBar> {
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(len as u64), target);
    let style = format!("{what} {{bar:30}} {{pos}}/{{len}}  {{msg}}");
    bar.set_style(ProgressStyle::with_template(&style)?);
    Ok(bar)
}

/// Frames of an utterance.
fn heard(front: &Front, Utterance { audio, .. }: &Utterance) -> anyhow::Result<Vec<f32>> {
    let wave = Waveform::read_span(&audio.path, audio.start_s, audio.duration_s)?;
    frames_of(front, &wave.resampled(FEATURE_SAMPLE_RATE_HZ)?)
}

/// Frames of 16 kHz samples, all of them finite.
fn frames_of(front: &Front, wave: &Waveform) -> anyhow::Result<Vec<f32>> {
    let frames = front.frames(&wave.samples)?;
    if let Some(at) = frames.iter().position(|value| !value.is_finite()) {
        bail!("frame {} has {}, expected finite numbers", at / front.width(), frames[at]);
    }
    Ok(frames)
}

/// What is said where nothing could be heard.
fn none_heard(failures: &Failures, n: usize) -> anyhow::Error {
    match failures.only() {
        Some(failed) => anyhow::anyhow!("{}: {}", failed.id, failed.why),
        None => anyhow::anyhow!("none of {n} utterances could be heard"),
    }
}

impl FrontArgs {
    /// What makes the frames, and what it is called.
    fn open(self, device: &Device) -> anyhow::Result<(Front, String)> {
        if let Some(n_mels) = self.log_mel {
            let window = FrameWindow { context: self.context, stride: self.stride };
            if let Some(problem) = window.problems().first() {
                bail!("--{problem}");
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
            ensure!(self.layer.is_none(), "--layer: of {name} only the last frames are handed out");
            return Ok((of_ours(dir, device, &self.hub)?, name));
        }
        let published = PublishedArgs { source, hub: self.hub };
        let model = SpeechEncoder::load_layer(&published.directory()?, self.layer, device)?;
        let config = model.config.encoder;
        let speech = SpeechModel::new(model.features, config, model.encoder, None)?;
        Ok((Front::Encoder(speech), name))
    }
}

/// The encoder of a model of ours.
fn of_ours(dir: &Path, device: &Device, hub: &HubArgs) -> anyhow::Result<Front> {
    let model = AnyModel::load(dir, device, &hub.hub()?)?;
    let speech: SpeechModel = match model {
        AnyModel::Ctc(model) => *model,
        AnyModel::Connector(model) => model.speech,
        AnyModel::Vocoder(model) => model.hearing.speech,
        AnyModel::SpeechText(model) if model.hearing.is_some() => {
            model.hearing.expect("asked the line before").speech
        }
        other => bail!("{}: a {} model has no encoder", dir.display(), other.kind()),
    };
    Ok(Front::Encoder(speech))
}
