//! The `sandhi` command line.
//!
//! ```text
//! sandhi COMMAND ─ commands/COMMAND.rs: Args, run ─> data on stdout, talk on stderr
//! exit code   0 done   2 a mistake in what was given   130 interrupted
//! ```

mod commands;
mod console;
mod device;
mod output;
mod recipe_args;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{completions, data, doctor, features, plan, score, table, train};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Train, evaluate and use speech language models.
#[derive(Debug, Parser)]
#[command(name = "sandhi", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a recipe and say what it would do.
    Plan(plan::Args),
    /// Run a recipe.
    Train(train::Args),
    /// Compare runs over seeds.
    Table(table::Args),
    /// Make, read and check data.
    Data(data::Args),
    /// Compute the features of a sound file.
    Features(features::Args),
    /// Score hypotheses against references.
    Score(score::Args),
    /// Say what is present and what is missing.
    Doctor(doctor::Args),
    /// Print the completions of a shell.
    Completions(completions::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Plan(args) => plan::run(args),
        Command::Train(args) => train::run(args),
        Command::Table(args) => table::run(args),
        Command::Data(args) => data::run(args),
        Command::Features(args) => features::run(args),
        Command::Score(args) => score::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => completions::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::exit_code(&error),
    }
}
