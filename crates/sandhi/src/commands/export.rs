//! `sandhi export`: a language model or a speech encoder in Hugging Face's layout, or LoRA branches in PEFT's.

use std::path::PathBuf;

use burn::prelude::Device;
use sandhi_lab::{
    checkpoint::Dtype,
    hf::{self, ModelSource},
    model::{AnyModel, SpeechModel},
};
use sandhi_nn::lora;

use crate::model_args::ModelArgs;

/// Arguments of `sandhi export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Where the Hugging Face directory goes.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Which part of a connector model is written.
    #[arg(long, value_enum, default_value_t = Part::LanguageModel)]
    part: Part,
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
    /// What the adapter says of the model below it: a name or a folder; where the base was published when absent.
    #[arg(long, value_name = "NAME", requires = "lora_only")]
    base: Option<ModelSource>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Part {
    Encoder,
    LanguageModel,
}

/// Writes the directory.
pub fn run(args: Args) -> anyhow::Result<()> {
    let dtype = if args.f16 { Dtype::F16 } else { Dtype::F32 };
    let mut text = match (args.model.open(&Device::flex())?, args.part) {
        (AnyModel::Text(model), _) => *model,
        (AnyModel::Connector(model), Part::LanguageModel) => model.text,
        (AnyModel::Connector(model), Part::Encoder) => return encoder(model.speech, &args, dtype),
        (AnyModel::Ctc(model), _) => return encoder(*model, &args, dtype),
        (AnyModel::Aligner(_), _) => {
            anyhow::bail!("an aligner model has no encoder and no language model to export")
        }
        (AnyModel::Vocoder(_), _) => {
            anyhow::bail!("a vocoder has no layout of Hugging Face's to be exported in")
        }
        (AnyModel::SpeechText(_), _) => {
            anyhow::bail!("a speech_text model has no layout of Hugging Face's to be exported in")
        }
    };
    if let Some(adapter) = &args.adapter {
        hf::load_adapter(&mut text.lm, adapter)?;
    }
    if args.lora_only {
        let published = text.origin.as_ref().map(|origin| origin.path.parse()).transpose()?;
        let base = args.base.or(published);
        hf::export_adapter(&text.lm, base.as_ref(), &args.out, dtype)?;
        eprintln!("the adapter is in {}", args.out.display());
        return Ok(());
    }
    if args.merge_lora {
        text.merge_lora();
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

/// Writes an encoder, its branches folded in.
fn encoder(mut speech: SpeechModel, args: &Args, dtype: Dtype) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.adapter.is_none() && !args.lora_only,
        "--adapter and --lora-only are for language models"
    );
    speech.merge_lora();
    hf::export_speech_encoder(&speech, &args.out, dtype)?;
    if speech.recognizer.is_some() {
        eprintln!("note: its CTC head has no place in that layout and is left out");
    }
    eprintln!("the encoder is in {}", args.out.display());
    Ok(())
}
