//! `sandhi completions`: tab completion.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::output;

/// Arguments of `sandhi completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell, e.g. `bash`: `source <(sandhi completions bash)`.
    shell: Shell,
}

/// Prints the shell's script.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "sandhi", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
