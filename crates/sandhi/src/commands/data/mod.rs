//! `sandhi data`: make, read and check data.

mod degrade;
mod import;
mod interleave;
mod microworld;
mod speak;
mod validate;

use clap::Subcommand;

/// Arguments of `sandhi data`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print parts of the embedded corpus as JSON lines; speak them.
    Microworld(microworld::Args),
    /// Read a manifest or data folder of any known format and write ours.
    Import(import::Args),
    /// Copy the sound of a manifest as it would be heard in noise, at another speed or over a telephone.
    Degrade(degrade::Args),
    /// What a model over text and units reads of unit files: statistics, and utterances block by block.
    Interleave(interleave::Args),
    /// Decode all sound of a manifest and say what is in it and what is bad.
    Validate(validate::Args),
}

/// Runs the subcommand.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Microworld(args) => microworld::run(args),
        Command::Import(args) => import::run(args),
        Command::Degrade(args) => degrade::run(args),
        Command::Interleave(args) => interleave::run(args),
        Command::Validate(args) => validate::run(args),
    }
}

use sandhi_data::manifest::Rejected;

pub(super) use self::microworld::{SplitArg, domain, language};

/// How many rejected lines are told one by one.
pub(super) const SHOWN: usize = 20;

/// Tells what was left out, on stderr.
pub(super) fn tell_rejected(rejected: &[Rejected]) {
    for line in rejected.iter().take(SHOWN) {
        eprintln!("skipped: {line}");
    }
    if rejected.len() > SHOWN {
        eprintln!("skipped: {} more", rejected.len() - SHOWN);
    }
}
