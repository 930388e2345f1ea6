//! `sandhi table`: runs side by side.

use std::path::PathBuf;

use sandhi_lab::table::{TableConfig, find_runs, table};

use crate::output;

/// Arguments of `sandhi table`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run directories, or folders of them.
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// The recipe that all others are compared with, on the same seeds and utterances.
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    /// JSON instead of Markdown.
    #[arg(long)]
    json: bool,
}

/// Prints the table.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for dir in &args.dirs {
        runs.extend(find_runs(dir)?);
    }
    runs.sort();
    runs.dedup();
    let config = TableConfig { baseline: args.baseline, ..TableConfig::default() };
    let table = table(&runs, &config)?;
    if args.json { output::print_json(&table) } else { output::print(&table.to_markdown()) }
}
