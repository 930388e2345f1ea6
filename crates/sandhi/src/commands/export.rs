//! `sandhi export`: a language model or a speech encoder in Hugging Face's layout.

use std::path::PathBuf;

use burn::prelude::Device;
use sandhi_lab::{checkpoint::Dtype, hf, model::AnyModel};

/// Arguments of `sandhi export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model directory.
    model: PathBuf,
    /// Where the Hugging Face directory goes.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Which part of a connector model is written.
    #[arg(long, value_enum, default_value_t = Part::LanguageModel)]
    part: Part,
    /// 16-bit weights.
    #[arg(long)]
    f16: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Part {
    Encoder,
    LanguageModel,
}

/// Writes the directory.
pub fn run(args: Args) -> anyhow::Result<()> {
    let dtype = if args.f16 { Dtype::F16 } else { Dtype::F32 };
    let what = match (AnyModel::load(&args.model, &Device::flex())?, args.part) {
        (AnyModel::Text(model), _) => {
            hf::export_language_model(&model, &args.out, dtype)?;
            "language model"
        }
        (AnyModel::Connector(model), Part::LanguageModel) => {
            hf::export_language_model(&model.text, &args.out, dtype)?;
            "language model"
        }
        (AnyModel::Connector(model), Part::Encoder) => {
            hf::export_speech_encoder(&model.speech, &args.out, dtype)?;
            "encoder"
        }
        (AnyModel::Ctc(model), _) => {
            hf::export_speech_encoder(&model, &args.out, dtype)?;
            "encoder"
        }
    };
    eprintln!("the {what} is in {}", args.out.display());
    Ok(())
}
