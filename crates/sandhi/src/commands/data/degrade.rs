//! `sandhi data degrade`: worse copies of recordings, and a manifest of them.
//!
//! ```text
//! MANIFEST ─ utterances ─ degrade ─> DIR.partial/00017-an406-fcaw-b.wav …, manifest.jsonl ─ renamed ─> DIR
//! ```

use std::path::{Path, PathBuf};

use anyhow::ensure;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use sandhi_data::{
    augment::NoiseKind,
    degrade::{Degradation, Degraded, Noise},
    manifest::{self, AudioRef, Utterance, write_jsonl},
};
use serde_json::json;

use super::{SHOWN, tell_rejected};
use crate::new_folder::{NewFolder, file_name};

/// Arguments of `sandhi data degrade`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A manifest or a data folder.
    manifest: PathBuf,
    /// A new folder for the WAV files and their `manifest.jsonl`.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Play that many times as fast, pitch included; word times follow.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    speed: Option<f64>,
    /// Add noise that many dB below the speech.
    #[arg(long, value_name = "DB", allow_negative_numbers = true)]
    snr: Option<f64>,
    /// Which noise: white, pink, brown, blue, hum, speech_shaped or babble.
    #[arg(long, value_name = "KIND", value_parser = noise_kind, default_value = "babble", requires = "snr")]
    noise: NoiseKind,
    /// Pass through a telephone: 300 to 3,400 Hz, 8-bit μ-law.
    #[arg(long)]
    telephone: bool,
    /// Seed of the noise.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only utterances of this part, e.g. `test`.
    #[arg(long)]
    split: Option<String>,
    /// Write nothing when any line or sound cannot be used.
    #[arg(long)]
    strict: bool,
}

fn noise_kind(name: &str) -> Result<NoiseKind, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}

/// Copies made between two movements of the bar.
const CHUNK: usize = 64;

/// Reads, degrades and writes.
pub fn run(args: Args) -> anyhow::Result<()> {
    let noise = args.snr.map(|snr_db| Noise { kind: args.noise, snr_db });
    let how = Degradation { speed: args.speed, noise, telephone: args.telephone };
    let problems = how.problems();
    ensure!(problems.is_empty(), "{}", problems.join("\n"));

    let import = manifest::import_split(&args.manifest, args.split.as_deref())?;
    tell_rejected(&import.rejected);
    let (n_rejected, n) = (import.rejected.len(), import.utterances.len());
    let of = args.manifest.display();
    ensure!(n > 0, "{of}: no line can be used ({n_rejected} are wrong)");
    let usable = !args.strict || n_rejected == 0;
    ensure!(usable, "{of}: {n_rejected} lines are wrong, nothing was written");

    let folder = NewFolder::create(&args.out)?;
    let bar = ProgressBar::new(n as u64);
    bar.set_style(ProgressStyle::with_template("degrading {bar:30} {pos}/{len}  {eta} left")?);
    let (mut copies, mut n_bad, mut n_turned_down) = (Vec::with_capacity(n), 0, 0);
    for (chunk_idx, chunk) in import.utterances.chunks(CHUNK).enumerate() {
        let made = chunk.par_iter().enumerate().map(|(i, utterance)| {
            let made = how.copy(utterance, args.seed);
            made.map(|made| {
                write(utterance, made, chunk_idx * CHUNK + i, &how, &args, folder.path())
            })
            .map_err(|error| format!("{}: {error}", utterance.id))
        });
        for made in made.collect::<Vec<_>>() {
            match made {
                Ok(written) => {
                    let (copy, turned_down) = written?;
                    n_turned_down += usize::from(turned_down);
                    copies.push(copy);
                }
                Err(why) => {
                    n_bad += 1;
                    if n_bad <= SHOWN {
                        bar.suspend(|| eprintln!("skipped: {why}"));
                    }
                }
            }
        }
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    ensure!(!copies.is_empty(), "{of}: no utterance can be used ({n_bad} sounds are wrong)");
    let usable = !args.strict || n_bad == 0;
    ensure!(usable, "{of}: {n_bad} sounds are wrong, nothing was written");
    write_jsonl(&folder.path().join(MANIFEST), &copies)?;
    folder.finish()?;
    eprintln!(
        "{} utterances in {}, {n_turned_down} of them turned down so as not to be clipped, {} left out",
        copies.len(),
        args.out.join(MANIFEST).display(),
        n_bad + n_rejected,
    );
    Ok(())
}

const MANIFEST: &str = "manifest.jsonl";

/// Writes one copy; gives its line of the manifest, and whether it was turned down.
fn write(
    utterance: &Utterance,
    made: Degraded,
    idx: usize,
    how: &Degradation,
    args: &Args,
    folder: &Path,
) -> anyhow::Result<(Utterance, bool)> {
    let path = folder.join(format!("{}.wav", file_name(idx, &utterance.id)));
    made.sound.write_wav(&path)?;
    let mut copy =
        Utterance { audio: AudioRef::whole(path), words: made.words, ..utterance.clone() };
    let mut done = json!({ "how": how, "seed": args.seed });
    // A copy of a copy keeps what was done before.
    if let Some(before) = copy.extra.remove(DEGRADED) {
        done["before"] = before;
    }
    copy.extra.insert(DEGRADED.to_owned(), done);
    Ok((copy, made.turned_down))
}

/// Where the manifest says what was done.
const DEGRADED: &str = "degraded";
