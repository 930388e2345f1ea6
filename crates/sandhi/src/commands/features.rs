//! `sandhi features`: what a model hears of a file, as a NumPy array.

use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;
use sandhi_data::{
    audio::Waveform,
    features::{
        FEATURE_SAMPLE_RATE_HZ, FbankConfig, FeatureConfig, FeatureExtractor, WhisperConfig,
    },
};
use sandhi_lab::checkpoint::write_atomically;

/// Arguments of `sandhi features`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A WAV, FLAC, MP3 or Ogg Vorbis file.
    file: PathBuf,
    /// Which features.
    #[arg(long, value_enum, default_value = "whisper")]
    kind: Kind,
    /// Values per frame.
    #[arg(long, default_value_t = 80)]
    n_mels: usize,
    /// Pad with silence to 30 seconds, as Whisper's own encoder needs.
    #[arg(long)]
    pad_to_30_s: bool,
    /// Output file: `.npy`, f32, `[n_mels, n_frames]`.
    #[arg(long, value_name = "X.npy")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Whisper's log-mel spectrogram.
    Whisper,
    /// Kaldi's log filter bank.
    Fbank,
}

/// Computes and writes the features.
pub fn run(args: Args) -> anyhow::Result<()> {
    let n_mels = args.n_mels;
    let config = match args.kind {
        Kind::Whisper => {
            FeatureConfig::Whisper(WhisperConfig { n_mels, pad_to_30_s: args.pad_to_30_s })
        }
        Kind::Fbank if args.pad_to_30_s => {
            anyhow::bail!("--pad-to-30-s belongs to --kind whisper, found --kind fbank")
        }
        Kind::Fbank => FeatureConfig::Fbank(FbankConfig { n_mels, ..FbankConfig::default() }),
    };
    let extractor = FeatureExtractor::new(&config)?;
    let wave = Waveform::read_resampled(&args.file, FEATURE_SAMPLE_RATE_HZ)?;
    let features =
        extractor.compute(&wave.samples).with_context(|| args.file.display().to_string())?;
    write_atomically(&args.out, &features.to_npy()?)?;
    eprintln!(
        "{}: {:.2} s, f32 [{}, {}] written to {}",
        args.file.display(),
        wave.duration_s(),
        features.n_mels,
        features.n_frames,
        args.out.display()
    );
    Ok(())
}
