//! `sandhi pack`: a copy of a model with smaller weights, and with all of them in it.

use std::path::PathBuf;

use anyhow::Context;
use burn::prelude::Device;
use sandhi_lab::{checkpoint::Dtype, hf::ModelSource, model::AnyModel};

use crate::hub_args::HubArgs;

/// Arguments of `sandhi pack`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model directory, a directory in Hugging Face's layout, or hf:owner/name@revision.
    model: ModelSource,
    /// Where the copy goes.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Keep 32-bit weights instead of 16-bit ones.
    #[arg(long)]
    f32: bool,
    #[command(flatten)]
    hub: HubArgs,
}

/// Writes the copy.
pub fn run(args: Args) -> anyhow::Result<()> {
    let model = AnyModel::open(&args.model, &Device::flex(), &args.hub.hub()?)?;
    let mut documents = Vec::new();
    if let ModelSource::Directory(dir) = &args.model {
        for name in ["recipe.json", "plan.json"] {
            let path = dir.join(name);
            if path.exists() {
                let file = || path.display().to_string();
                let bytes = std::fs::read(&path).with_context(file)?;
                documents.push((name, serde_json::from_slice(&bytes).with_context(file)?));
            }
        }
    }
    let dtype = if args.f32 { Dtype::F32 } else { Dtype::F16 };
    model.save_whole(&args.out, dtype, &documents)?;
    eprintln!("{} is in {}", model.describe(), args.out.display());
    Ok(())
}
