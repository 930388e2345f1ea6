//! `sandhi align`: when the words of known texts are said.
//!
//! ```text
//! FILE --text T, or --manifest M ─ sounds and texts ─ AnyAligner ─┬─ TextGrid, CTM, Lhotse, JSON lines, subtitles
//!                                                                 └─ OUT.failures.jsonl: what has no place, and why
//! ```

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rayon::prelude::*;
use sandhi_data::{
    alignment::{
        self, Alignment, Format, ctm, jsonl, lhotse,
        subtitles::{self, CueConfig},
        textgrid::{Layout, TextGrid, Tier},
    },
    audio::Waveform,
    manifest::{self, Utterance},
    score::{Bootstrap, boundaries},
    text::Tokenizer,
};
use sandhi_lab::{
    align::{Aligned, AnyAligner, Failure, PlacedPiece, Widening},
    hf::ModelSource,
    model::AnyModel,
    transcribe::Chunking,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    data::{SHOWN, tell_rejected},
    failures::{self, Failed},
};
use crate::{
    console::peak_bytes,
    device::DeviceArg,
    model_args::ModelArgs,
    new_folder::{NewFolder, file_name},
    output,
};

/// Arguments of `sandhi align`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A sound file; its text is given by --text or --text-file.
    #[arg(required_unless_present = "manifest", conflicts_with = "manifest")]
    file: Option<PathBuf>,
    /// What is said in FILE.
    #[arg(long, conflicts_with_all = ["text_file", "manifest"])]
    text: Option<String>,
    /// A file of text: what is said in FILE.
    #[arg(long, value_name = "FILE", conflicts_with = "manifest")]
    text_file: Option<PathBuf>,
    /// Utterances with transcripts: a manifest or a data folder.
    #[arg(long, value_name = "PATH")]
    manifest: Option<PathBuf>,
    /// Only utterances of this part of the manifest, e.g. `test`.
    #[arg(long, requires = "manifest")]
    split: Option<String>,
    /// textgrid, srt and vtt: a new folder with a file an utterance, or the file of FILE; ctm, lhotse and jsonl: a file.
    /// Without it the times of FILE are printed.
    #[arg(long, value_name = "PATH", required_unless_present = "file")]
    out: Option<PathBuf>,
    /// textgrid, ctm, lhotse, jsonl, srt or vtt.
    #[arg(long, default_value = "textgrid")]
    format: Format,
    /// A language model's directory: the pieces of its tokenizer have times too, in textgrid and lhotse.
    #[arg(long, value_name = "MODEL")]
    pieces: Option<ModelSource>,
    /// An utterance whose characters have a lower probability, in the geometric mean, is a failure.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_confidence: f64,
    /// Longest sound that is encoded at once, in seconds; longer ones are cut where it is quiet. Aligner models cut
    /// nothing, and take some minutes of sound.
    #[arg(long, default_value_t = 12.0)]
    max_s: f64,
    /// How much earlier than on the path words begin, unless another word is there, in milliseconds; 40 by default, 0
    /// by an aligner model.
    #[arg(long, value_name = "MS")]
    before_ms: Option<f64>,
    /// How much later they end; 30 by default, 0 by an aligner model.
    #[arg(long, value_name = "MS")]
    after_ms: Option<f64>,
    /// Print a summary as JSON.
    #[arg(long, requires = "out")]
    json: bool,
    /// No progress bar.
    #[arg(long)]
    quiet: bool,
    /// cpu, wgpu[:i], vulkan[:i], cuda[:i] or metal[:i].
    #[arg(long, default_value = "cpu")]
    device: DeviceArg,
}

/// Utterances that are read and aligned at once.
const AT_ONCE: usize = 64;
/// Samples of 16 kHz after which no more are read at once: half an hour.
const SAMPLES_AT_ONCE: usize = 1_800 * 16_000;

/// An utterance with its times.
struct Done {
    utterance: Utterance,
    duration_s: f64,
    aligned: Aligned,
    /// What is written of it.
    text: String,
}

/// What is said of a run.
#[derive(Debug, Serialize)]
struct Summary {
    n_aligned: usize,
    n_failed: usize,
    n_words: usize,
    audio_s: f64,
    wall_s: f64,
    /// Bytes that the process held at most, where the system tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_bytes: Option<u64>,
    /// Against the times that the manifest has.
    #[serde(skip_serializing_if = "Option::is_none")]
    boundaries: Option<Value>,
}

/// Aligns and writes.
pub fn run(args: Args) -> anyhow::Result<()> {
    ensure!(
        args.max_s.is_finite() && args.max_s >= 1.0,
        "--max-s is {}, expected at least 1 second",
        args.max_s
    );
    ensure!(
        (0.0..=1.0).contains(&args.min_confidence),
        "--min-confidence is {}, expected a probability",
        args.min_confidence
    );
    for (name, ms) in [("--before-ms", args.before_ms), ("--after-ms", args.after_ms)] {
        let Some(ms) = ms else { continue };
        ensure!((0.0..=1e3).contains(&ms), "{name} is {ms}, expected 0 to 1,000 milliseconds");
    }
    let utterances = utterances(&args)?;
    let model = args.model.open(&args.device.open()?)?;
    if let AnyModel::Text(_) = &model {
        bail!("a text model hears nothing; give a connector, ctc or aligner model");
    }
    let Some(aligner) = AnyAligner::new(&model) else {
        bail!("the encoder has no CTC head, which texts are placed by");
    };
    let default = aligner.widened();
    let aligner = aligner.widening(Widening {
        before_s: args.before_ms.map_or(default.before_s, |ms| ms / 1e3),
        after_s: args.after_ms.map_or(default.after_s, |ms| ms / 1e3),
    });
    let pieces = match &args.pieces {
        Some(source) => Some(tokenizer(source, &args)?),
        None => None,
    };

    let place = Place::new(&args)?;
    let start = Instant::now();
    let hidden = args.quiet || args.manifest.is_none();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(utterances.len() as u64), target);
    bar.set_style(ProgressStyle::with_template("aligning {bar:30} {pos}/{len}  {eta} left")?);
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    let mut rest = utterances.as_slice();
    while !rest.is_empty() {
        let waves = read_some(&aligner, rest);
        let (group, others) = rest.split_at(waves.len());
        rest = others;
        for (utterance, found) in group.iter().zip(place_all(&aligner, group, waves, &args)?) {
            match found {
                Ok((duration_s, aligned)) => {
                    let pieces = match &pieces {
                        Some(tokenizer) => {
                            pieces_of(tokenizer, &aligner, &utterance.text, &aligned)?
                        }
                        None => Vec::new(),
                    };
                    let utterance = utterance.clone();
                    match text_of(args.format, &utterance, duration_s, &aligned, &pieces) {
                        Ok(text) => done.push(Done { utterance, duration_s, aligned, text }),
                        Err(why) => failed.push(Failed { id: utterance.id, why: why.to_string() }),
                    }
                }
                Err(why) => failed.push(Failed { id: utterance.id.clone(), why }),
            }
        }
        bar.inc(group.len() as u64);
    }
    bar.finish_and_clear();
    if args.manifest.is_some() || !done.is_empty() {
        tell(&done, &failed);
    }
    if done.is_empty() {
        match failed.as_slice() {
            [Failed { id, why }] => bail!("{id}: {why}"),
            all => bail!("none of {} utterances could be aligned", all.len()),
        }
    }
    place.write(&args, &done, &failed)?;
    summarize(&args, &done, &failed, start.elapsed().as_secs_f64())
}

/// What is to be aligned.
fn utterances(args: &Args) -> anyhow::Result<Vec<Utterance>> {
    if let Some(manifest) = &args.manifest {
        let import = manifest::import_split(manifest, args.split.as_deref())?;
        tell_rejected(&import.rejected);
        let n_rejected = import.rejected.len();
        let of = manifest.display();
        ensure!(
            !import.utterances.is_empty(),
            "{of}: no line can be used ({n_rejected} are wrong)"
        );
        return Ok(import.utterances);
    }
    let file = args.file.as_ref().expect("clap asks for a file where there is no manifest");
    let text = match (&args.text, &args.text_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => std::fs::read_to_string(path)
            .with_context(|| format!("{}: cannot read text", path.display()))?,
        (None, None) => bail!("--text or --text-file says what is said in {}", file.display()),
    };
    let id = file.file_stem().unwrap_or_default().to_string_lossy();
    Ok(vec![Utterance::new(id, file, text)])
}

fn tokenizer(source: &ModelSource, args: &Args) -> anyhow::Result<Tokenizer> {
    match AnyModel::open(source, &args.device.open()?, &args.model.hub.hub()?)? {
        AnyModel::Text(model) => Ok(model.chat.tokenizer().clone()),
        AnyModel::Connector(model) => Ok(model.text.chat.tokenizer().clone()),
        AnyModel::SpeechText(model) => Ok(model.vocabulary.tokenizer().clone()),
        AnyModel::Ctc(_) | AnyModel::Aligner(_) | AnyModel::Vocoder(_) => {
            bail!("--pieces: a speech model has no tokenizer; give a language model")
        }
    }
}

/// The sounds of the first utterances, or why one cannot be aligned; as many as there is room for, one at least.
fn read_some(aligner: &AnyAligner<'_>, utterances: &[Utterance]) -> Vec<Result<Waveform, String>> {
    let read = |utterance: &Utterance| {
        let audio = &utterance.audio;
        let wave = Waveform::read_span(&audio.path, audio.start_s, audio.duration_s)
            .and_then(|wave| wave.resampled(16_000))
            .map_err(|error| error.to_string())?;
        // What the front end would refuse is the utterance's failure, not the run's.
        let first = &wave.samples[..wave.samples.len().min(16_000)];
        aligner.check(first).map_err(|error| error.to_string())?;
        if let Some(i) = wave.samples.iter().position(|sample| !sample.is_finite()) {
            return Err(format!("sample {i} is {}, expected a number", wave.samples[i]));
        }
        Ok(wave)
    };
    let mut waves = Vec::new();
    let mut n_samples = 0;
    for group in utterances.chunks(rayon::current_num_threads()) {
        if waves.len() >= AT_ONCE || n_samples >= SAMPLES_AT_ONCE {
            break;
        }
        let read: Vec<Result<Waveform, String>> = group.par_iter().map(read).collect();
        n_samples += read.iter().flatten().map(|wave| wave.samples.len()).sum::<usize>();
        waves.extend(read);
    }
    waves
}

/// Seconds and times of every utterance, or why it has none.
fn place_all(
    aligner: &AnyAligner<'_>,
    group: &[Utterance],
    waves: Vec<Result<Waveform, String>>,
    args: &Args,
) -> anyhow::Result<Vec<Result<(f64, Aligned), String>>> {
    let good: Vec<(&[f32], &str)> = waves
        .iter()
        .zip(group)
        .filter_map(|(wave, utterance)| {
            Some((wave.as_ref().ok()?.samples.as_slice(), utterance.text.as_str()))
        })
        .collect();
    let chunking = Chunking { max_s: args.max_s, min_s: (0.4 * args.max_s).min(5.0) };
    let mut found = aligner.align(&good, chunking)?.into_iter();
    let least = args.min_confidence;
    let finish = |wave: Result<Waveform, String>| {
        let wave = wave?;
        let aligned = found.next().expect("an answer for every sound that could be read");
        let aligned = aligned.map_err(|failure| failure.to_string())?;
        let confidence = aligned.confidence();
        if confidence < least {
            return Err(Failure::Unsure { found: confidence, least }.to_string());
        }
        Ok((wave.duration_s(), aligned))
    };
    Ok(waves.into_iter().map(finish).collect())
}

fn pieces_of(
    tokenizer: &Tokenizer,
    aligner: &AnyAligner<'_>,
    text: &str,
    aligned: &Aligned,
) -> anyhow::Result<Vec<Alignment>> {
    let pieces = tokenizer.pieces(text)?;
    let spans: Vec<_> = pieces.iter().map(|piece| piece.span.clone()).collect();
    let placed = aligned.pieces(text, aligner.symbols(), &spans);
    let Some(first) = aligned.words.first() else { return Ok(Vec::new()) };
    let timed = |(span, piece): (std::ops::Range<usize>, PlacedPiece)| Alignment {
        label: text[span].to_owned(),
        start_s: piece.start_s,
        end_s: piece.end_s,
        confidence: piece.confidence,
        source: first.word.source.clone(),
    };
    Ok(spans.into_iter().zip(placed).map(timed).collect())
}

/// What went wrong, on stderr.
fn tell(done: &[Done], failed: &[Failed]) {
    for Failed { id, why } in failed.iter().take(SHOWN) {
        eprintln!("failed: {id}: {why}");
    }
    if failed.len() > SHOWN {
        eprintln!("failed: {} more", failed.len() - SHOWN);
    }
    let unspelled: Vec<&str> = done.iter().flat_map(|done| done.aligned.unspelled()).collect();
    if !unspelled.is_empty() {
        let shown = unspelled.iter().take(SHOWN).copied().collect::<Vec<_>>().join(" ");
        let n = unspelled.len();
        eprintln!(
            "rough: {n} words that the model cannot spell lie between their neighbors: {shown}"
        );
    }
}

/// Where the results of a manifest go: checked before the work, filled after it.
enum Place<'a> {
    /// A file an utterance.
    Folder(NewFolder),
    /// One file.
    File(&'a Path),
    /// Standard output.
    Printed,
}

impl<'a> Place<'a> {
    fn new(args: &'a Args) -> anyhow::Result<Self> {
        Ok(match &args.out {
            None => Self::Printed,
            Some(out) if args.manifest.is_some() && args.format.is_one_file_an_utterance() => {
                Self::Folder(NewFolder::create(out)?)
            }
            Some(out) => Self::File(out),
        })
    }

    /// Writes what could be aligned, and beside it what could not.
    fn write(self, args: &Args, done: &[Done], failed: &[Failed]) -> anyhow::Result<()> {
        let texts = || done.iter().map(|done| done.text.as_str()).collect::<String>();
        match self {
            Self::Printed => output::print(&texts())?,
            Self::File(out) => output::write(Some(out), &texts())?,
            Self::Folder(folder) => {
                for (i, Done { utterance, text, .. }) in done.iter().enumerate() {
                    // An id that can be a file's name is it.
                    let id = &utterance.id;
                    let kept = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                    let plain = !id.starts_with('.') && id.chars().all(kept);
                    let name = if plain { id.clone() } else { file_name(i, id) };
                    let path = folder.path().join(format!("{name}.{}", args.format.extension()));
                    std::fs::write(&path, text)
                        .with_context(|| format!("{}: cannot write", path.display()))?;
                }
                folder.finish()?;
            }
        }
        match &args.out {
            Some(out) => failures::write(out, failed),
            None => Ok(()),
        }
    }
}

/// What is written of one utterance: a file, or its lines in the file of all.
fn text_of(
    format: Format,
    utterance: &Utterance,
    duration_s: f64,
    aligned: &Aligned,
    pieces: &[Alignment],
) -> Result<String, alignment::Error> {
    let words = aligned.words();
    let cues = || subtitles::cues(&words, CueConfig::default());
    Ok(match format {
        Format::Srt => subtitles::to_srt(&cues()),
        Format::Vtt => subtitles::to_vtt(&cues()),
        Format::TextGrid => {
            let tier = |name, labels: &[Alignment]| Tier::from_alignments(name, labels, duration_s);
            let mut tiers =
                vec![tier("words", &words)?, tier("characters", &aligned.characters())?];
            if !pieces.is_empty() {
                // Praat knows no interval without length.
                let pieces = pieces.iter().filter(|piece| piece.end_s > piece.start_s);
                tiers.push(tier("pieces", &pieces.cloned().collect::<Vec<_>>())?);
            }
            TextGrid::new(tiers).to_text(Layout::Long)
        }
        Format::Ctm => {
            let record = |word| ctm::Record {
                recording: utterance.id.clone(),
                channel: "1".to_owned(),
                word,
            };
            ctm::to_text(&words.into_iter().map(record).collect::<Vec<_>>())?
        }
        Format::Lhotse => lhotse::to_text(&[supervision(utterance, duration_s, aligned, pieces)]),
        Format::Jsonl => jsonl::to_text(&[jsonl::Record { id: utterance.id.clone(), words }]),
    })
}

fn supervision(
    utterance: &Utterance,
    duration_s: f64,
    aligned: &Aligned,
    pieces: &[Alignment],
) -> lhotse::Supervision {
    let Utterance { id, audio, text, language, speaker, .. } = utterance;
    let from_start = |labels: Vec<Alignment>| -> Vec<Alignment> {
        labels.into_iter().map(|label| label.shifted(audio.start_s)).collect()
    };
    let mut tiers = vec![
        ("word".to_owned(), from_start(aligned.words())),
        ("character".to_owned(), from_start(aligned.characters())),
    ];
    if !pieces.is_empty() {
        tiers.push(("subword".to_owned(), from_start(pieces.to_vec())));
    }
    let mut other = Map::new();
    other.insert("channel".into(), json!(audio.channel.unwrap_or(0)));
    other.insert("text".into(), json!(text));
    let named = [("language", language), ("speaker", speaker)];
    other.extend(named.into_iter().filter_map(|(k, v)| Some((k.to_owned(), json!(v.as_ref()?)))));
    lhotse::Supervision {
        id: id.clone(),
        recording_id: audio.path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        start_s: audio.start_s,
        duration_s,
        tiers,
        other,
    }
}

/// How much was done, and how well where that is known.
fn summarize(args: &Args, done: &[Done], failed: &[Failed], wall_s: f64) -> anyhow::Result<()> {
    let known: Vec<&Done> = done.iter().filter(|done| !done.utterance.words.is_empty()).collect();
    let audio_s: f64 = done.iter().map(|done| done.duration_s).sum();
    let mut summary = Summary {
        n_aligned: done.len(),
        n_failed: failed.len(),
        n_words: done.iter().map(|done| done.aligned.words.len()).sum(),
        audio_s,
        wall_s,
        peak_bytes: peak_bytes(),
        boundaries: None,
    };
    if args.out.is_some() {
        eprintln!(
            "{} utterances, {} words, {} failed; {audio_s:.1} s of sound in {wall_s:.1} s",
            summary.n_aligned, summary.n_words, summary.n_failed
        );
    }
    if !known.is_empty() {
        let references: Vec<&[Alignment]> =
            known.iter().map(|done| done.utterance.words.as_slice()).collect();
        let found: Vec<Vec<Alignment>> = known.iter().map(|done| done.aligned.words()).collect();
        let found = boundaries(&references, &found)?;
        let report = super::score::boundary_report(&found, &Bootstrap::default());
        let line = report.as_ref().map_or("no word is one of its words", |report| &report.line);
        eprintln!("against the manifest's own times: {line}");
        summary.boundaries = report.map(|report| report.json);
    }
    if args.json { output::print_json(&summary) } else { Ok(()) }
}
