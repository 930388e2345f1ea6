//! `sandhi pack`: a copy of a model with smaller weights, and with all of them in it.

use std::path::PathBuf;

use anyhow::Context;
use burn::prelude::Device;
use sandhi_lab::{checkpoint::Dtype, hf::ModelSource};

use crate::model_args::ModelArgs;

/// Arguments of `sandhi pack`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Where the copy goes.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Keep 32-bit weights instead of 16-bit ones.
    #[arg(long)]
    f32: bool,
}

/// Writes the copy.
pub fn run(args: Args) -> anyhow::Result<()> {
    let model = args.model.open(&Device::flex())?;
    let mut documents = Vec::new();
    if let ModelSource::Directory(dir) = &args.model.source {
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
