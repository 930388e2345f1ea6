//! `sandhi units`: what sound files say in discrete units, one JSON line a file.

use std::path::PathBuf;

use anyhow::Context;
use sandhi_data::{
    audio::Waveform,
    features::{FEATURE_SAMPLE_RATE_HZ, FeatureExtractor},
};
use sandhi_lab::{hf::SpeechEncoder, model::HostRagged, units::Kmeans};
use sandhi_nn::transformer::Dropout;
use serde::Serialize;

use crate::{device::DeviceArg, model_args::PublishedArgs, output};

/// Arguments of `sandhi units`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: PublishedArgs,
    /// Centers of clusters, `[n_clusters, width]`: .npy or .safetensors; tools/kmeans.py takes them out of a
    /// scikit-learn model.
    #[arg(long, value_name = "FILE")]
    kmeans: PathBuf,
    /// Whose frames the centers are of: 0 for what goes into the first block, 1 for what comes out of it, and so on;
    /// the last one by default. mHuBERT's are of layer 11.
    #[arg(long, value_name = "N")]
    layer: Option<usize>,
    /// cpu, wgpu[:i], vulkan[:i], cuda[:i] or metal[:i].
    #[arg(long, default_value = "cpu")]
    device: DeviceArg,
    /// WAV, FLAC, MP3 or Ogg Vorbis files; each is heard whole.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// A line of the output.
#[derive(Debug, Serialize)]
struct Line {
    file: String,
    /// Units a second.
    rate_hz: f64,
    /// One a frame; repetitions stay.
    units: Vec<u32>,
}

/// Hears the files one after the other.
pub fn run(args: Args) -> anyhow::Result<()> {
    let device = args.device.open()?;
    let kmeans = Kmeans::read(&args.kmeans)?;
    let model = SpeechEncoder::load_layer(&args.model.directory()?, args.layer, &device)?;
    let config = &model.config.encoder;
    anyhow::ensure!(
        kmeans.width() == config.d_encoder(),
        "{}: centers are {} wide, frames of {} are {}",
        args.kmeans.display(),
        kmeans.width(),
        args.model.source,
        config.d_encoder()
    );
    let extractor = FeatureExtractor::new(&model.features)?;
    let rate_hz = extractor.rate_hz() / config.stride() as f64;
    for path in &args.files {
        let file = path.display().to_string();
        let wave = Waveform::read_resampled(path, FEATURE_SAMPLE_RATE_HZ)?;
        let features = extractor.compute(&wave.samples).with_context(|| file.clone())?;
        let (found, most) = (features.n_frames, config.max_feature_frames().unwrap_or(usize::MAX));
        anyhow::ensure!(
            found <= most,
            "{file}: lasts {:.1} s, the encoder takes at most {:.1} s",
            wave.duration_s(),
            most as f64 / extractor.rate_hz()
        );
        let features = HostRagged::gather(features.n_mels, [&features.values[..]]);
        let frames = model.encoder.forward(&features.to_device(&device), Dropout::OFF);
        let units = kmeans.assign(&HostRagged::from_device(frames).values);
        output::print(&serde_json::to_string(&Line { file, rate_hz, units })?)?;
    }
    Ok(())
}
