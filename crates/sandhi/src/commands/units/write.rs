//! `sandhi units write`: a manifest as a file of units, with its texts and where its words lie.
//!
//! ```text
//! utterance ─ frames ─ nearest centers ─ words in units ─┬─ OUT
//!                └─ what cannot be heard, and why ───────┴─ stderr, OUT.failures.jsonl
//! ```

use std::path::PathBuf;

use anyhow::{bail, ensure};
use sandhi_data::{
    manifest::{self, Utterance},
    units::{self, Format, UnitUtterance, UnitWriter, UnitsHeader, words_in_units},
};
use sandhi_lab::units::{Front, Kmeans};

use super::{FrontArgs, bar, heard, none_heard, quantizer};
use crate::commands::{data::tell_rejected, failures::Failures};

/// Arguments of `sandhi units write`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
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
    /// Fail in the end where an utterance could not be heard; the others are written all the same.
    #[arg(long)]
    strict: bool,
    /// No progress bar.
    #[arg(long)]
    quiet: bool,
}

/// Hears a manifest and writes its units.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let import = manifest::import_split(&args.manifest, args.split.as_deref())?;
    tell_rejected(&import.rejected);
    let utterances = import.utterances;
    ensure!(!utterances.is_empty(), "there is nothing to hear");
    let (front, kmeans) = quantizer(args.front, &args.kmeans)?;
    let header = front.header(&kmeans);
    let lines = args.out.extension().is_some_and(|extension| extension == "jsonl");
    let format = if lines { Format::Jsonl } else { Format::Binary };
    let mut writer = UnitWriter::create(&args.out, format, header.clone())?;
    let hearing = bar(utterances.len(), "hearing", args.quiet)?;
    let (mut n, mut n_units, mut n_words) = (0, 0, 0);
    let mut failures = Failures::default();
    for utterance in &utterances {
        hearing.inc(1);
        let written = match units_of(&front, &kmeans, &header, utterance) {
            Ok(found) => match writer.push(&found) {
                Ok(()) => Ok(found),
                // Nothing more can be written.
                Err(error @ units::Error::Io { .. }) => return Err(error.into()),
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error),
        };
        match written {
            Ok(found) => {
                (n, n_units, n_words) =
                    (n + 1, n_units + found.units.len(), n_words + found.words.len());
            }
            Err(why) => failures.add(&hearing, &utterance.id, &why),
        }
    }
    hearing.finish_and_clear();
    failures.tell_rest();
    if n == 0 {
        return Err(none_heard(&failures, utterances.len()));
    }
    writer.finish()?;
    failures.write(&args.out)?;
    let (n_failed, hz, out) = (failures.len(), header.rate_hz, args.out.display());
    eprintln!(
        "{n} utterances, {n_units} units at {hz} Hz, {n_words} words with their units, {n_failed} failed: {out}"
    );
    if n_words == 0 {
        eprintln!(
            "no word has its times, so that nothing can be interleaved; `sandhi align` finds them"
        );
    }
    if args.strict && n_failed > 0 {
        bail!(
            "{n_failed} of {} utterances could not be heard, which --strict does not let pass",
            utterances.len()
        );
    }
    Ok(())
}

/// The units of an utterance, and where its words lie.
fn units_of(
    front: &Front,
    kmeans: &Kmeans,
    header: &UnitsHeader,
    utterance: &Utterance,
) -> anyhow::Result<UnitUtterance> {
    let units = kmeans.assign(&heard(front, utterance)?);
    Ok(UnitUtterance {
        id: utterance.id.clone(),
        words: words_in_units(&utterance.words, header.rate_hz, units.len() as u32),
        units,
        text: (!utterance.text.is_empty()).then(|| utterance.text.clone()),
        language: utterance.language.clone().filter(|language| !language.is_empty()),
    })
}
