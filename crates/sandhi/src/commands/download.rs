//! `sandhi download`: a model of the Hugging Face Hub, into the cache.

use sandhi_lab::hf::{Want, hub::ModelName};
use serde::Serialize;

use crate::{hub_args::HubArgs, output};

/// Arguments of `sandhi download`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: hf:owner/name, or hf:owner/name@revision with a branch, a tag or a commit.
    model: ModelName,
    /// Only config.json.
    #[arg(long)]
    config: bool,
    #[command(flatten)]
    hub: HubArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was downloaded.
#[derive(Serialize)]
struct Downloaded {
    /// The name with the commit that its revision stands for.
    model: String,
    dir: std::path::PathBuf,
}

/// Downloads what is not there, and prints the directory.
pub fn run(args: Args) -> anyhow::Result<()> {
    let want = if args.config { Want::Config } else { Want::Model };
    let snapshot = args.hub.fetch(&args.model, want)?;
    if args.json {
        let model = args.model.at(&snapshot.commit)?.to_string();
        output::print_json(&Downloaded { model, dir: snapshot.dir })
    } else {
        output::print(&snapshot.dir.display().to_string())
    }
}
