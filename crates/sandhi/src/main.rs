//! The `sandhi` command line.
//!
//! ```text
//! sandhi COMMAND ─ commands/COMMAND.rs: Args, run ─> data on stdout, talk on stderr
//! exit code   0 done   2 a mistake in what was given   130 interrupted
//! ```

mod commands;
mod console;
mod device;
mod foundation;
mod hub_args;
mod memory;
mod model_args;
mod new_folder;
mod output;
mod provenance;
mod recipe_args;
mod run_args;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{
    align, ask, bench, completions, data, doctor, download, eval, export, features, inspect, ot,
    pack, plan, quickstart, report, score, sweep, table, train, transcribe, units, verify,
};

#[global_allocator]
static ALLOCATOR: memory::Allocator = memory::Allocator;

/// Train, evaluate and use speech language models.
#[derive(Debug, Parser)]
#[command(name = "sandhi", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train, evaluate and try a speech language model, from nothing to a report.
    Quickstart(quickstart::Args),
    /// Check a recipe and say what it would do.
    Plan(plan::Args),
    /// Run a recipe.
    Train(train::Args),
    /// Run the recipes of a folder over seeds.
    Sweep(sweep::Args),
    /// Compare runs over seeds.
    Table(table::Args),
    /// Write a run as one HTML file: losses, numbers, and utterances with what the model makes of them.
    Report(report::Args),
    /// Measure a model.
    Eval(eval::Args),
    /// Write down what sound files say.
    Transcribe(transcribe::Args),
    /// Say when the words of known texts are said.
    Align(align::Args),
    /// Write sound files as the discrete units of a published encoder: wav2vec 2.0, HuBERT, WavLM or Whisper.
    Units(units::Args),
    /// Ask a model about a sound file.
    Ask(ask::Args),
    /// Copy a model with smaller weights.
    Pack(pack::Args),
    /// Make, read and check data.
    Data(data::Args),
    /// Compute the features of a sound file.
    Features(features::Args),
    /// Look at what a connector makes of speech.
    Inspect(inspect::Args),
    /// Solve optimal transport for cost matrices in NumPy files.
    Ot(ot::Args),
    /// Write a language model or an encoder in Hugging Face's layout, or an adapter in PEFT's.
    Export(export::Args),
    /// Download a published model.
    Download(download::Args),
    /// Hold a published checkpoint against what its authors' code gives.
    Verify(verify::Args),
    /// Score hypotheses against references.
    Score(score::Args),
    /// Measure how fast this machine is.
    Bench(bench::Args),
    /// Say what is present and what is missing.
    Doctor(doctor::Args),
    /// Print the completions of a shell.
    Completions(completions::Args),
}

/// Freed pages stay with the process: clearing new ones costs a fifth of a training step.
fn keep_pages() {
    /// `mi_option_purge_delay` of mimalloc's header, which the bindings leave out.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: sets a number in the allocator's table of options.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}

fn main() -> ExitCode {
    keep_pages();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_target(false)
        .without_time()
        .init();
    let result = match Cli::parse().command {
        Command::Quickstart(args) => quickstart::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Train(args) => train::run(args),
        Command::Sweep(args) => sweep::run(args),
        Command::Table(args) => table::run(args),
        Command::Report(args) => report::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Transcribe(args) => transcribe::run(args),
        Command::Align(args) => align::run(args),
        Command::Units(args) => units::run(args),
        Command::Ask(args) => ask::run(args),
        Command::Pack(args) => pack::run(args),
        Command::Data(args) => data::run(args),
        Command::Features(args) => features::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Ot(args) => ot::run(args),
        Command::Export(args) => export::run(args),
        Command::Download(args) => download::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Score(args) => score::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => completions::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::exit_code(&error),
    }
}
