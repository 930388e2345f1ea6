//! `sandhi units`: what sound files say in discrete units, one JSON line a file; `sandhi units fit`: centers for them;
//! `sandhi units write`: a manifest as a file of units, with its words; `sandhi units speak`: units as sound again.
//!
//! ```text
//! sounds ─ Front: an encoder's layer, or windows of spectra ─┬─ Kmeans::assign ─ units ─ words in units ─ file
//!                                                            └─ Kmeans::fit ──── centers.npy
//! units ── VocoderModel, of the same quantizer ─ WAV files
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use burn::prelude::Device;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sandhi_data::{
    audio::{WavWriter, Waveform},
    features::{FEATURE_SAMPLE_RATE_HZ, FeatureConfig, WhisperConfig},
    manifest::{self, Utterance},
    rng::Stream,
    units::{Format, UnitFile, UnitUtterance, UnitWriter, words_in_units},
};
use sandhi_lab::{
    checkpoint::write_atomically,
    hf::{ModelSource, SpeechEncoder},
    model::{AnyModel, SpeechModel, VocoderModel},
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
    /// Hear a manifest and write a file of units, with its texts and where its words lie.
    Write(WriteArgs),
    /// Say units with a vocoder, and write WAV files.
    Speak(SpeakArgs),
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

/// Arguments of `sandhi units write`.
#[derive(Debug, clap::Args)]
struct WriteArgs {
    #[command(flatten)]
    front: FrontArgs,
    /// Centers of clusters, as for `sandhi units`.
    #[arg(long, value_name = "FILE")]
    kmeans: PathBuf,
    /// Utterances to hear: a manifest or a data folder. Where it has word times, text and units can be interleaved.
    #[arg(long, value_name = "PATH")]
    manifest: PathBuf,
    /// Only utterances of this part of the manifest, e.g. `train`.
    #[arg(long)]
    split: Option<String>,
    /// The file: JSON lines where it ends in .jsonl, otherwise the format that is mapped into memory.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// No progress bar.
    #[arg(long)]
    quiet: bool,
}

/// Arguments of `sandhi units speak`.
#[derive(Debug, clap::Args)]
struct SpeakArgs {
    /// A vocoder model.
    #[arg(long, value_name = "DIR")]
    vocoder: PathBuf,
    /// A file of units, of the vocoder's quantizer; all of its utterances are said, in their order.
    #[arg(long, value_name = "FILE", conflicts_with = "ids")]
    units: Option<PathBuf>,
    /// A .wav file for one utterance; otherwise a folder, in which they are numbered.
    #[arg(long, value_name = "DIR|FILE.wav")]
    out: PathBuf,
    /// cpu, wgpu[:i], vulkan[:i], cuda[:i] or metal[:i].
    #[arg(long, default_value = "cpu")]
    device: DeviceArg,
    #[command(flatten)]
    hub: HubArgs,
    /// No progress bar.
    #[arg(long)]
    quiet: bool,
    /// Units of one utterance, repetitions included; they are taken for those of the vocoder's quantizer.
    #[arg(value_name = "ID", required_unless_present = "units")]
    ids: Vec<u32>,
}

/// A sound file that was made.
#[derive(Debug, Serialize)]
struct SpokenLine {
    /// The utterance's name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    file: String,
    duration_s: f64,
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
        Some(Command::Fit(args)) => return fit(args),
        Some(Command::Write(args)) => return write(args),
        Some(Command::Speak(args)) => return speak(args),
        None => {}
    }
    let path = args.kmeans.context("--kmeans says which centers")?;
    let (front, kmeans) = quantizer(args.front, &path)?;
    for path in &args.files {
        let file = path.display().to_string();
        let wave = Waveform::read_resampled(path, FEATURE_SAMPLE_RATE_HZ)?;
        let frames = front.frames(&wave.samples).with_context(|| file.clone())?;
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
    anyhow::ensure!(
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

/// The sound of an utterance as front ends want it.
fn sound(Utterance { audio, .. }: &Utterance) -> anyhow::Result<Waveform> {
    let wave = Waveform::read_span(&audio.path, audio.start_s, audio.duration_s)?;
    Ok(wave.resampled(FEATURE_SAMPLE_RATE_HZ)?)
}

/// Hears a manifest and writes its units.
fn write(args: WriteArgs) -> anyhow::Result<()> {
    let import = manifest::import_split(&args.manifest, args.split.as_deref())?;
    tell_rejected(&import.rejected);
    let utterances = import.utterances;
    anyhow::ensure!(!utterances.is_empty(), "there is nothing to hear");
    let (front, kmeans) = quantizer(args.front, &args.kmeans)?;
    let header = front.header(&kmeans);
    let lines = args.out.extension().is_some_and(|extension| extension == "jsonl");
    let format = if lines { Format::Jsonl } else { Format::Binary };
    let mut writer = UnitWriter::create(&args.out, format, header.clone())?;
    let hearing = bar(utterances.len(), "hearing", args.quiet)?;
    let (mut n_units, mut n_words) = (0, 0);
    for utterance in &utterances {
        let wave = sound(utterance)?;
        let frames = front.frames(&wave.samples).with_context(|| utterance.id.clone())?;
        let units = kmeans.assign(&frames);
        let words = words_in_units(&utterance.words, header.rate_hz, units.len() as u32);
        (n_units, n_words) = (n_units + units.len(), n_words + words.len());
        writer.push(&UnitUtterance {
            id: utterance.id.clone(),
            units,
            words,
            text: (!utterance.text.is_empty()).then(|| utterance.text.clone()),
            language: utterance.language.clone().filter(|language| !language.is_empty()),
        })?;
        hearing.inc(1);
    }
    writer.finish()?;
    hearing.finish_and_clear();
    let (n, hz, out) = (utterances.len(), header.rate_hz, args.out.display());
    eprintln!(
        "{n} utterances, {n_units} units at {hz} Hz, {n_words} words with their units: {out}"
    );
    if n_words == 0 {
        eprintln!(
            "no word has its times, so that nothing can be interleaved; `sandhi align` finds them"
        );
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
        other => anyhow::bail!("{}: a {} model has no encoder", dir.display(), other.kind()),
    };
    Ok(Front::Encoder(speech))
}

/// Says units; nothing is written before all of them were found to be the vocoder's.
fn speak(args: SpeakArgs) -> anyhow::Result<()> {
    let dir = args.vocoder.display();
    let model = match AnyModel::load(&args.vocoder, &args.device.open()?, &args.hub.hub()?)? {
        AnyModel::Vocoder(model) => *model,
        other => anyhow::bail!("{dir} holds a {} model, expected vocoder", other.kind()),
    };
    let file = args.units.as_deref().map(UnitFile::open).transpose()?;
    let n = match &file {
        Some(file) => check_units(file, &model, &args.vocoder)?,
        None => {
            model.check(&args.ids)?;
            1
        }
    };
    let out = &args.out;
    let is_file = out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("wav"));
    anyhow::ensure!(
        !is_file || n == 1,
        "--out {}: {n} utterances do not fit into one file, give a folder",
        out.display()
    );
    if !is_file {
        fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    }
    let speaking = bar(n, "speaking", args.quiet)?;
    for i in 0..n {
        let (id, units) = match &file {
            Some(file) => {
                let utterance = file.get(i)?;
                (Some(utterance.id), utterance.units)
            }
            None => (None, args.ids.clone()),
        };
        let path = if is_file { out.clone() } else { out.join(format!("{:06}.wav", i + 1)) };
        let mut writer = WavWriter::create(&path, FEATURE_SAMPLE_RATE_HZ)?;
        model.speak(&units, |samples| Ok::<(), anyhow::Error>(writer.push(samples)?))?;
        let duration_s = writer.finish()? as f64 / f64::from(FEATURE_SAMPLE_RATE_HZ);
        let line = SpokenLine { id, file: path.display().to_string(), duration_s };
        output::print(&serde_json::to_string(&line)?)?;
        speaking.inc(1);
    }
    speaking.finish_and_clear();
    Ok(())
}

/// Refuses a file of another quantizer, and utterances without units; gives how many there are.
fn check_units(file: &UnitFile, model: &VocoderModel, dir: &Path) -> anyhow::Result<usize> {
    let (name, found, expected) = (file.path().display(), file.header(), &model.units);
    anyhow::ensure!(
        found == expected,
        "{name} has {} units at {} Hz of quantizer {}, the vocoder {} says {} at {} Hz of {}; units of two quantizers mean \
         different sounds",
        found.n_units,
        found.rate_hz,
        found.quantizer,
        dir.display(),
        expected.n_units,
        expected.rate_hz,
        expected.quantizer
    );
    anyhow::ensure!(!file.is_empty(), "{name}: found no utterances, expected at least one");
    for i in 0..file.len() {
        let utterance = file.get(i)?;
        model.check(&utterance.units).with_context(|| format!("{name}: {:?}", utterance.id))?;
    }
    Ok(file.len())
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
    let width = front.width();
    let hearing = bar(args.max_frames, "hearing", args.quiet)?;
    let mut frames: Vec<f32> = Vec::new();
    let mut n_heard = 0;
    for utterance in &utterances {
        let file = || utterance.audio.path.display().to_string();
        frames.extend(front.frames(&sound(utterance)?.samples).with_context(file)?);
        n_heard += 1;
        hearing.set_position((frames.len() / width).min(args.max_frames) as u64);
        if frames.len() >= args.max_frames * width {
            break;
        }
    }
    hearing.finish_and_clear();
    frames.truncate(args.max_frames * width);
    let n_frames = frames.len() / width;
    let fitting = bar(args.iterations, "fitting", args.quiet)?;
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
