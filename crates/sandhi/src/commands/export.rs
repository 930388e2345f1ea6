//! `sandhi export`: a language model in Hugging Face's layout.

use std::path::PathBuf;

use burn::prelude::Device;
use sandhi_lab::{checkpoint::Dtype, hf, model::AnyModel};

/// Arguments of `sandhi export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model directory; of a connector model, its language model is written.
    model: PathBuf,
    /// Where the Hugging Face directory goes.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// 16-bit weights.
    #[arg(long)]
    f16: bool,
}

/// Writes the directory.
pub fn run(args: Args) -> anyhow::Result<()> {
    let text = match AnyModel::load(&args.model, &Device::flex())? {
        AnyModel::Text(model) => *model,
        AnyModel::Connector(model) => model.text,
        AnyModel::Ctc(_) => anyhow::bail!(
            "{} holds a ctc model, expected a model with a language model",
            args.model.display()
        ),
    };
    hf::export_language_model(&text, &args.out, if args.f16 { Dtype::F16 } else { Dtype::F32 })?;
    eprintln!("the language model is in {}", args.out.display());
    Ok(())
}
