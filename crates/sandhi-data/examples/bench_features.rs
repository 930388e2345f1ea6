//! Times the feature extractors on sound from a file, for `bench/features.py`.
//!
//! ```text
//! bench_features SAMPLES.f32 N_UTTERANCES KIND N_MELS     KIND: whisper | whisper_padded | fbank
//! ```
//!
//! `SAMPLES.f32` holds `N_UTTERANCES` utterances of equal length, raw little-endian f32 at 16 kHz. For
//! every line on stdin all of them are computed once, on as many threads as `RAYON_NUM_THREADS` says, and
//! the seconds that took, the mean and the mean square of all values are written to stdout. Reading the
//! file, building the tables and taking the means are not timed.

use std::{
    io::{BufRead, Write},
    process::ExitCode,
    time::Instant,
};

use sandhi_data::features::{FbankConfig, FeatureConfig, FeatureExtractor, WhisperConfig};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_features: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, n_utterances, kind, n_mels] = arguments.as_slice() else {
        return Err("usage: bench_features SAMPLES.f32 N_UTTERANCES KIND N_MELS".into());
    };
    let n_utterances: usize = n_utterances.parse()?;
    let n_mels: usize = n_mels.parse()?;
    let config = match kind.as_str() {
        "whisper" | "whisper_padded" => {
            let pad_to_30_s = kind == "whisper_padded";
            FeatureConfig::Whisper(WhisperConfig { n_mels, pad_to_30_s })
        }
        "fbank" => FeatureConfig::Fbank(FbankConfig { n_mels, ..FbankConfig::default() }),
        other => return Err(format!("unknown kind {other}").into()),
    };
    let bytes = std::fs::read(path)?;
    let samples: Vec<f32> =
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let utterances: Vec<&[f32]> =
        samples.chunks_exact((samples.len() / n_utterances.max(1)).max(1)).collect();

    let extractor = FeatureExtractor::new(&config)?;
    let mut stdout = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        let features = extractor.compute_batch(&utterances);
        let seconds = start.elapsed().as_secs_f64();
        let (mut sum, mut squares, mut n_values) = (0.0, 0.0, 0);
        for features in &features {
            let features = features.as_ref().map_err(|e| e.to_string())?;
            for &x in &features.values {
                sum += f64::from(x);
                squares += f64::from(x) * f64::from(x);
            }
            n_values += features.values.len();
        }
        let n_values = n_values as f64;
        writeln!(stdout, "{seconds} {} {}", sum / n_values, squares / n_values)?;
        stdout.flush()?;
    }
    Ok(())
}
