//! `sandhi inspect segments`: where an utterance is cut, and what its vectors are nearest to.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use sandhi_data::audio::Waveform;
use sandhi_lab::{
    hf::ModelSource,
    inspect::{MAX_DRAWN_S, Segmented, SegmentsRequest, lanes_svg, patch_segments, segments},
    model::AnyModel,
    sources::{Sound, Workshop},
    tasks,
};

use super::super::eval::nameless;
use crate::{output, run_args::RunArgs};

/// Arguments of `sandhi inspect segments`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory of a connector model, or of a model over text and units.
    model: ModelSource,
    /// A sound file (WAV, FLAC, MP3 or OGG), or the id of an evaluation's item, as predictions name it.
    utterance: String,
    /// What is said in the file; what the model writes when not given.
    #[arg(long)]
    text: Option<String>,
    /// The domain in which an evaluation's item is spoken.
    #[arg(long, default_value = "base")]
    domain: String,
    /// Draw the picture.
    #[arg(long, value_name = "X.svg")]
    out: Option<PathBuf>,
    /// Print JSON, waveform and spectrogram included.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// Cuts, draws and prints.
pub fn run(args: Args) -> anyhow::Result<()> {
    super::check_domains(std::slice::from_ref(&args.domain))?;
    let name = &args.utterance;
    let is_empty = args.text.as_ref().is_some_and(|text| text.trim().is_empty());
    ensure!(!is_empty, "--text is empty, expected what is said in {name}");
    let (sound, text) = utterance(&args)?;
    let wave = sound.wave.resampled(16_000)?;
    ensure!(
        wave.duration_s() <= MAX_DRAWN_S,
        "{name} is {:.0} s long, expected at most {MAX_DRAWN_S:.0} s",
        wave.duration_s()
    );
    let model = AnyModel::open(&args.model, &args.run.device.open()?, &args.run.hub.hub()?)?;
    let request = SegmentsRequest {
        samples: &wave.samples,
        text: text.as_deref(),
        words: Some(&sound.words).filter(|words| !words.is_empty()).map(Vec::as_slice),
    };
    let found = match &model {
        AnyModel::Connector(model) => segments(model, &request),
        AnyModel::SpeechText(model) => patch_segments(model, &request),
        other => bail!(
            "{} is a {} model, expected a connector or speech_text: only those cut speech",
            args.model,
            other.kind()
        ),
    };
    let found = found.with_context(|| name.clone())?;
    if let Some(path) = &args.out {
        output::write(Some(path), &lanes_svg(&found))?;
    }
    if args.json { output::print_json(&found) } else { output::print(&table(&found)) }
}

/// The sound, and what is said in it where that is known.
fn utterance(args: &Args) -> anyhow::Result<(Sound, Option<String>)> {
    let name = &args.utterance;
    let path = PathBuf::from(name);
    if path.exists() {
        return Ok((Sound { wave: Waveform::read(&path)?, words: Vec::new() }, args.text.clone()));
    }
    let workshop = Workshop::new(&args.run.cache, &PathBuf::new(), &nameless("inspect"));
    let Some(found) = tasks::find(&workshop, name, &args.domain) else {
        bail!("{name} is neither a file nor the id of an evaluation's item in {}", args.domain);
    };
    ensure!(args.text.is_none(), "--text: what is said in {name} is known, leave it out");
    let text = found.spoken.text().to_owned();
    Ok((workshop.sounds(&[found.spoken])?.remove(0), Some(text)))
}

/// Where it is cut, then every vector.
fn table(found: &Segmented) -> String {
    let mut lines = vec![format!("“{}”, {:.2} s", found.text, found.duration_s), String::new()];
    for cuts in &found.cuts {
        let name = format!("{}{}", cuts.name, if cuts.is_oracle { " (oracle)" } else { "" });
        let ends: Vec<String> = cuts.ends_s.iter().map(|end_s| format!("{end_s:.2}")).collect();
        let what = match &cuts.none {
            Some(why) => format!("no segments: {why}"),
            None => format!("{} segments, which end at {} s", ends.len(), ends.join(" ")),
        };
        lines.push(format!("{name:<24}{what}"));
    }
    lines.push(String::new());
    lines.push(format!("{:<16}{:>14}{:>9}", "vector of (s)", "nearest", "cosine"));
    for vector in &found.vectors {
        let span = vector.span_s.map(|[start_s, end_s]| format!("{start_s:.2}-{end_s:.2}"));
        let (label, cosine) = match &vector.nearest {
            Some(nearest) => (nearest.label.as_str(), format!("{:.3}", nearest.cosine)),
            None => ("-", "-".to_owned()),
        };
        lines.push(format!("{:<16}{label:>14}{cosine:>9}", span.as_deref().unwrap_or("-")));
    }
    lines.join("\n")
}
