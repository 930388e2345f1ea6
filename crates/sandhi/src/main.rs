//! The `sandhi` command line.

mod console;

use std::path::PathBuf;

use anyhow::Context;
use burn::prelude::Device;
use clap::{Parser, Subcommand};
use sandhi_lab::{pipeline, recipe};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Train, evaluate and use speech language models.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a recipe.
    Train {
        /// The recipe.
        recipe: PathBuf,
        /// Output directory.
        #[arg(long)]
        out: PathBuf,
        /// Continue the run in --out.
        #[arg(long)]
        resume: bool,
        /// Folder for speech and frames that are kept between runs.
        #[arg(long, default_value = "cache")]
        cache: PathBuf,
        /// Change a field of the recipe.
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Train { recipe, out, resume, cache, set } => {
            let set = set
                .iter()
                .map(|s| s.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
                .collect::<Option<Vec<_>>>()
                .context("--set needs KEY=VALUE")?;
            let overrides = recipe::Overrides { set, paths: vec![] };
            let read = recipe::read(&recipe, &overrides)?;
            let place = pipeline::Place {
                dir: out,
                resume,
                base: recipe.parent().unwrap_or(std::path::Path::new("")).to_owned(),
                cache,
                device: Device::flex(),
            };
            let mut console = console::Console::new(false)?;
            pipeline::run(&read, &place, &mut console)?;
        }
    }
    Ok(())
}
