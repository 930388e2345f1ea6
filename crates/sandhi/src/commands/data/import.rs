//! `sandhi data import`: other people's manifests as ours, and when their words are said.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure};
use sandhi_data::{
    alignment::{Source, jsonl},
    manifest::{self, Format, Utterance},
};

use super::tell_rejected;

/// Arguments of `sandhi data import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A manifest or a data folder.
    path: PathBuf,
    /// Our manifest, JSON lines.
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
    /// sandhi, nemo, slam-llm, qwen, wenet, chat, lhotse, kaldi, libri-speech, sphinx, common-voice or fsdd; told from
    /// the content when absent.
    #[arg(long)]
    format: Option<Format>,
    /// Only utterances of this part, e.g. `train`.
    #[arg(long)]
    split: Option<String>,
    /// When words are said, JSON lines as `sandhi align --format jsonl` writes them: they take the place of times that
    /// the manifest has. Utterances that are not in the file keep what they have.
    #[arg(long, value_name = "FILE.jsonl")]
    words: Option<PathBuf>,
    /// Write nothing when any line is wrong.
    #[arg(long)]
    strict: bool,
}

/// Reads and writes.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut import = manifest::import(&args.path, args.format)?;
    tell_rejected(&import.rejected);
    let n_rejected = import.rejected.len();
    if let Some(path) = &args.words {
        let n = give_words(&mut import.utterances, path)?;
        eprintln!("{}: words of {n} utterances of {}", path.display(), import.utterances.len());
    }
    if let Some(split) = &args.split {
        let mut splits: Vec<String> =
            import.utterances.iter().filter_map(|u| u.split.clone()).collect();
        import.utterances.retain(|utterance| utterance.split.as_ref() == Some(split));
        if import.utterances.is_empty() {
            splits.sort();
            splits.dedup();
            bail!("{}: no utterance of split {split:?}; it has {splits:?}", args.path.display());
        }
    }
    if import.utterances.is_empty() {
        bail!("{}: no line can be used ({n_rejected} are wrong)", args.path.display());
    }
    if args.strict && n_rejected > 0 {
        bail!("{}: {n_rejected} lines are wrong, nothing was written", args.path.display());
    }
    manifest::write_jsonl(&args.out, &import.utterances)?;
    eprintln!(
        "{}: read as {}, {} utterances written to {}, {n_rejected} lines skipped, {} left out on request",
        args.path.display(),
        import.format,
        import.utterances.len(),
        args.out.display(),
        import.n_skipped
    );
    Ok(())
}

/// Gives utterances the words of a file, by their ids; how many have been given some.
fn give_words(utterances: &mut [Utterance], path: &Path) -> anyhow::Result<usize> {
    let file = path.display();
    let mut words = HashMap::new();
    for record in jsonl::read(path, &Source::Silver)? {
        let id = record.id.clone();
        ensure!(words.insert(record.id, record.words).is_none(), "{file}: {id:?} is there twice");
    }
    let known: HashSet<&str> = utterances.iter().map(|utterance| utterance.id.as_str()).collect();
    let strange = words.keys().filter(|id| !known.contains(id.as_str())).min();
    if let Some(id) = strange {
        bail!("{file}: found words of {id:?}, expected ids of the manifest");
    }
    let mut n = 0;
    for utterance in utterances {
        let Some(found) = words.remove(&utterance.id) else { continue };
        // Aligners round, and their last frame may reach beyond the end.
        const SLACK_S: f64 = 0.1;
        if let (Some(last), Some(duration_s)) = (found.last(), utterance.audio.duration_s) {
            ensure!(
                last.end_s <= duration_s + SLACK_S,
                "{file}: {:?} ends with {:?} at {} s, expected at most the {duration_s} s of its sound",
                utterance.id,
                last.label,
                last.end_s
            );
        }
        utterance.words = found;
        n += 1;
    }
    Ok(n)
}
