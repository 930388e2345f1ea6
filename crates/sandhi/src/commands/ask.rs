//! `sandhi ask`: an instruction about a sound file.

use std::path::PathBuf;

use sandhi_data::audio::Waveform;
use sandhi_lab::{generate::Decoding, model::AnyModel, transcribe::answer};

use crate::{device::DeviceArg, hub_args::HubArgs, output};

/// Arguments of `sandhi ask`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model directory.
    model: PathBuf,
    /// A sound file: WAV, FLAC, MP3 or OGG.
    file: PathBuf,
    /// What the model is told to do with it.
    #[arg(long)]
    instruction: String,
    /// 0 takes the likeliest token; larger values vary more.
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Draw from the likeliest tokens that together have this probability.
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Seeds the draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Longest answer, in tokens.
    #[arg(long, default_value_t = 64)]
    max_tokens: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// cpu, wgpu[:i], vulkan[:i], cuda[:i] or metal[:i].
    #[arg(long, default_value = "cpu")]
    device: DeviceArg,
    #[command(flatten)]
    hub: HubArgs,
}

/// Longest sound that is answered about in one piece, in seconds.
const MAX_S: f64 = 60.0;

/// Answers the instruction.
pub fn run(args: Args) -> anyhow::Result<()> {
    let AnyModel::Connector(model) =
        AnyModel::load(&args.model, &args.device.open()?, &args.hub.hub()?)?
    else {
        anyhow::bail!(
            "{} is no connector model; only those follow instructions",
            args.model.display()
        );
    };
    let wave = Waveform::read(&args.file)?.resampled(16_000)?;
    anyhow::ensure!(
        wave.duration_s() <= MAX_S,
        "{} is {:.0} s long, expected at most {MAX_S:.0} s; `sandhi transcribe` takes any length",
        args.file.display(),
        wave.duration_s()
    );
    let decoding = Decoding {
        max_tokens: args.max_tokens.max(1),
        temperature: args.temperature,
        top_p: args.top_p,
        seed: args.seed,
        ..Decoding::default()
    };
    let answers = answer(&model, &[&wave.samples], &[&args.instruction], &decoding)?;
    if args.json {
        let value = serde_json::json!({
            "file": args.file, "instruction": args.instruction, "answer": answers[0],
        });
        output::print(&value.to_string())
    } else {
        output::print(&answers[0])
    }
}
