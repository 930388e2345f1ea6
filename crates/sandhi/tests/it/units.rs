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

#[test]
fn fitted_centers_are_those_that_units_are_read_with() {
    let dir = tempfile::tempdir().unwrap();
    for (name, seconds) in [("a.wav", 0.5), ("b.wav", 0.4)] {
        sine(&dir.path().join(name), seconds);
    }
    let run = |args: &[&str]| sandhi(dir.path(), &[&["units"], args].concat());
    let spectra = ["--log-mel", "20", "--context", "2", "--stride", "2"];
    let fit = |more: &[&str]| run(&[&["fit"], &spectra[..], &["-n", "3"], more].concat());
    let said = fit(&["--out", "km.npy", "a.wav", "b.wav", "--quiet"]).err;
    assert!(said.contains("3 centers of 45 frames of 2 utterances, width 120"), "{said}");
    let centers = Kmeans::read(&dir.path().join("km.npy")).unwrap();
    assert_eq!((centers.n_clusters(), centers.width()), (3, 120));
    let line = run(&[&spectra[..], &["--kmeans", "km.npy", "a.wav"]].concat()).works();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["rate_hz"], 50.0);
    let units = line["units"].as_array().unwrap();
    assert!(units.len() == 25 && units.iter().any(|unit| *unit != units[0]), "{units:?}");
    // The same seed, the same file.
    fit(&["--out", "again.npy", "b.wav", "a.wav", "--quiet"]).works();
    let bytes = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    fit(&["--out", "same.npy", "a.wav", "b.wav", "--quiet"]).works();
    assert_eq!(bytes("km.npy"), bytes("same.npy"));
    // Frames of an encoder, ours or a published one's layer.
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../../weights/encoder");
    let hubert = golden("hubert_base").display().to_string();
    for (model, more) in [(ours, &[][..]), (hubert.as_str(), &["--layer", "1"][..])] {
        let args = [&["--model", model], more].concat();
        run(&[&["fit"], &args[..], &["-n", "2", "--out", "km2.npy", "a.wav"]].concat()).works();
        run(&[&args[..], &["--kmeans", "km2.npy", "b.wav"]].concat()).works();
    }
    run(&["--model", ours, "--kmeans", "km.npy", "a.wav"]).fails_with(&["120 wide", "160"]);
    run(&["fit", "-n", "2", "--out", "x.npy", "a.wav"]).fails_with(&["--model or --log-mel"]);
    fit(&["--out", "x.npy", "--max-frames", "2", "a.wav"]).fails_with(&["2 different frames", "3"]);
    run(&["fit", "--log-mel", "20", "--stride", "0", "-n", "2", "--out", "x.npy", "a.wav"])
        .fails_with(&["--stride is 0"]);
}
