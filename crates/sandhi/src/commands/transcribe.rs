//! `sandhi transcribe`: sound files of any length to text.

use std::path::PathBuf;

use anyhow::Context;
use sandhi_data::audio::Waveform;
use sandhi_lab::transcribe::{Chunking, transcribe};

use crate::{device::DeviceArg, model_args::ModelArgs, output};

/// Arguments of `sandhi transcribe`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Sound files: WAV, FLAC, MP3 or OGG.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// What the model is told to do with each passage.
    #[arg(long, default_value = "Write down what you hear.")]
    instruction: String,
    /// Longest passage, in seconds.
    #[arg(long, default_value_t = 12.0)]
    max_s: f64,
    /// One JSON object a file, with passages and their times.
    #[arg(long)]
    json: bool,
    /// cpu, wgpu[:i], vulkan[:i], cuda[:i] or metal[:i].
    #[arg(long, default_value = "cpu")]
    device: DeviceArg,
}

/// Transcribes every file; a bad one is said and the others go on.
pub fn run(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.max_s.is_finite() && args.max_s >= 1.0,
        "--max-s is {}, expected at least 1 second",
        args.max_s
    );
    let model = args.model.open(&args.device.open()?)?;
    let chunking = Chunking { max_s: args.max_s, min_s: (0.4 * args.max_s).min(5.0) };
    let mut n_bad = 0;
    for file in &args.files {
        // What cannot be read names its file already.
        let passages = Waveform::read(file).map_err(anyhow::Error::from).and_then(|wave| {
            transcribe(&model, &wave, &args.instruction, chunking)
                .with_context(|| file.display().to_string())
        });
        match passages {
            Err(error) if args.files.len() == 1 => return Err(error),
            Err(error) => {
                n_bad += 1;
                eprintln!("error: {}", output::message(&error));
            }
            Ok(passages) => {
                let texts: Vec<&str> = passages.iter().map(|p| p.text.as_str()).collect();
                let text = texts.join(" ");
                if args.json {
                    let line = serde_json::json!({
                        "file": file, "text": text, "passages": passages,
                    });
                    output::print(&line.to_string())?;
                } else {
                    output::print(&text)?;
                }
            }
        }
    }
    anyhow::ensure!(n_bad == 0, "{n_bad} of {} files could not be transcribed", args.files.len());
    Ok(())
}
