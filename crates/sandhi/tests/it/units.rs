use std::path::{Path, PathBuf};

use sandhi_data::{audio::Waveform, features::FeatureExtractor};
use sandhi_lab::{hf::SpeechEncoder, model::HostRagged, units::Kmeans};
use sandhi_nn::transformer::Dropout;

use super::{sandhi, sine};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../sandhi-lab/tests/golden/speech_encoders")
        .join(name)
}

#[test]
fn units_are_the_centers_nearest_to_a_layer_s_frames() {
    let dir = tempfile::tempdir().unwrap();
    let files = [("a.wav", 0.3), ("b.wav", 0.1)];
    for (name, seconds) in files {
        sine(&dir.path().join(name), seconds);
    }
    let model = golden("hubert_base");
    let kmeans = model.join("kmeans.npy");
    let run = |model: &Path, kmeans: &Path, more: &[&str]| {
        let (model, kmeans) = (model.display().to_string(), kmeans.display().to_string());
        let args = ["units", "--model", &model, "--kmeans", &kmeans];
        sandhi(dir.path(), &[&args[..], more].concat())
    };
    let encoder =
        SpeechEncoder::load_layer(&model, Some(1), &burn::prelude::Device::flex()).unwrap();
    let centers = Kmeans::read(&kmeans).unwrap();
    let extractor = FeatureExtractor::new(&encoder.features).unwrap();
    let out = run(&model, &kmeans, &["--layer", "1", "a.wav", "b.wav"]).works();
    assert_eq!(out.lines().count(), 2);
    for ((name, _), line) in files.iter().zip(out.lines()) {
        let found: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&found["file"], &found["rate_hz"]), (&(*name).into(), &800.0.into()));
        let wave = Waveform::read(&dir.path().join(name)).unwrap();
        let features = extractor.compute(&wave.samples).unwrap();
        let features = HostRagged::gather(1, [&features.values[..]]);
        let features = features.to_device(&burn::prelude::Device::flex());
        let frames = HostRagged::from_device(encoder.encoder.forward(&features, Dropout::OFF));
        let units: Vec<serde_json::Value> =
            centers.assign(&frames.values).into_iter().map(Into::into).collect();
        assert_eq!(found["units"].as_array().unwrap(), &units);
        assert!(units.len() > 70 && units.iter().any(|unit| *unit != units[0]), "{units:?}");
    }
    run(&model, &kmeans, &["--layer", "3", "a.wav"]).fails_with(&["layer is 3", "at most"]);
    run(&model, &kmeans, &["c.wav"]).fails_with(&["c.wav"]);
    run(&model, &model.join("model.safetensors"), &["a.wav"]).fails_with(&["one tensor"]);
    run(&model, &dir.path().join("a.wav"), &["a.wav"]).fails_with(&["neither a .npy"]);
    run(&dir.path().join("none"), &kmeans, &["a.wav"]).fails_with(&["config.json"]);
}
