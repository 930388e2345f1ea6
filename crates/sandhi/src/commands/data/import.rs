//! `sandhi data import`: other people's manifests as ours.

use std::path::PathBuf;

use anyhow::bail;
use sandhi_data::manifest::{self, Format};

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
    /// Write nothing when any line is wrong.
    #[arg(long)]
    strict: bool,
}

/// Reads and writes.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut import = manifest::import(&args.path, args.format)?;
    tell_rejected(&import.rejected);
    let n_rejected = import.rejected.len();
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
