//! `sandhi export`: a language model in Hugging Face's layout, or its LoRA branches in PEFT's.

use std::path::PathBuf;

use burn::prelude::Device;
use sandhi_lab::{checkpoint::Dtype, hf, model::AnyModel};
use sandhi_nn::lora;

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
    /// First give the language model the branches of an adapter in PEFT's layout.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Fold the LoRA branches into the weights.
    #[arg(long)]
    merge_lora: bool,
    /// Write the LoRA branches alone, as an adapter that PEFT loads.
    #[arg(long, conflicts_with = "merge_lora")]
    lora_only: bool,
    /// What the adapter says of the model below it: a name or a folder.
    #[arg(long, value_name = "NAME", requires = "lora_only")]
    base: Option<String>,
}

/// Writes the directory.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut text = match AnyModel::load(&args.model, &Device::flex())? {
        AnyModel::Text(model) => *model,
        AnyModel::Connector(model) => model.text,
        AnyModel::Ctc(_) => anyhow::bail!(
            "{} holds a ctc model, expected a model with a language model",
            args.model.display()
        ),
    };
    if let Some(adapter) = &args.adapter {
        hf::load_adapter(&mut text.lm, adapter)?;
    }
    let dtype = if args.f16 { Dtype::F16 } else { Dtype::F32 };
    if args.lora_only {
        hf::export_adapter(&text.lm, args.base.as_deref(), &args.out, dtype)?;
        eprintln!("the adapter is in {}", args.out.display());
        return Ok(());
    }
    if args.merge_lora {
        lora::merge(&mut text.lm);
    }
    if lora::describe(&text.lm).is_some() {
        anyhow::bail!(
            "the language model has LoRA branches: --merge-lora folds them in, --lora-only writes them alone"
        );
    }
    hf::export_language_model(&text, &args.out, dtype)?;
    eprintln!("the language model is in {}", args.out.display());
    Ok(())
}
