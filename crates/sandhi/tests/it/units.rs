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

/// A manifest of four sounds, two of which are none.
fn manifest(dir: &Path) {
    sine(&dir.join("a.wav"), 0.5);
    sine(&dir.join("d.wav"), 0.3);
    for name in ["b.wav", "c.wav"] {
        std::fs::write(dir.join(name), "no sound").unwrap();
    }
    let line = |id: &str| {
        format!("{{\"id\":\"{id}\",\"audio\":{{\"path\":\"{id}.wav\"}},\"text\":\"x\"}}\n")
    };
    std::fs::write(dir.join("m.jsonl"), ["a", "b", "c", "d"].map(line).concat()).unwrap();
}

#[test]
fn what_cannot_be_heard_is_listed_and_the_rest_is_written() {
    let dir = tempfile::tempdir().unwrap();
    manifest(dir.path());
    let run = |args: &[&str]| sandhi(dir.path(), &[&["units"], args].concat());
    let spectra = ["--log-mel", "20", "--quiet"];
    let fit =
        run(&[&["fit"], &spectra[..], &["-n", "3", "--out", "km.npy", "--manifest", "m.jsonl"]]
            .concat());
    assert!(fit.err.contains("failed: b: ") && fit.err.contains("80 frames of 2"), "{}", fit.err);
    fit.works();
    let write = |out: &str, manifest: &str, more: &[&str]| {
        let args = ["write", "--kmeans", "km.npy", "--manifest", manifest, "--out", out];
        run(&[&args[..], &spectra, more].concat())
    };
    let ids = |file: &str| -> Vec<String> {
        let text = std::fs::read_to_string(dir.path().join(file)).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter_map(|line: serde_json::Value| Some(line["id"].as_str()?.to_owned())).collect()
    };
    let told = write("a.jsonl", "m.jsonl", &[]);
    for part in ["failed: b: ", "failed: c: ", "2 utterances, 80 units at 100 Hz", "2 failed"] {
        assert!(told.err.contains(part), "{part:?} is not in {}", told.err);
    }
    told.works();
    assert_eq!(
        (ids("a.jsonl"), ids("a.jsonl.failures.jsonl")),
        (vec!["a".to_owned(), "d".to_owned()], vec!["b".to_owned(), "c".to_owned()])
    );
    // The same file, and an error in the end.
    let strict = write("strict.jsonl", "m.jsonl", &["--strict"]);
    strict.fails_with(&["failed: c: ", "2 of 4 utterances", "--strict"]);
    let bytes = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    assert_eq!(bytes("a.jsonl"), bytes("strict.jsonl"));
    // Nothing at all is an error, and leaves nothing.
    let all = std::fs::read_to_string(dir.path().join("m.jsonl")).unwrap();
    let lines: Vec<&str> = all.lines().collect();
    for (name, from) in [("one.jsonl", 1), ("both.jsonl", 2)] {
        std::fs::write(dir.path().join(name), lines[1..1 + from].join("\n")).unwrap();
    }
    write("none.jsonl", "one.jsonl", &[]).fails_with(&["error: b: "]);
    write("none.jsonl", "both.jsonl", &[]).fails_with(&["none of 2 utterances could be heard"]);
    assert!(!dir.path().join("none.jsonl").exists());
    assert!(!dir.path().join("none.jsonl.partial").exists());
    // With nothing wrong --strict changes nothing.
    std::fs::write(dir.path().join("good.jsonl"), [lines[0], lines[3]].join("\n")).unwrap();
    write("good.units", "good.jsonl", &["--strict"]).works();
    assert!(!dir.path().join("good.units.failures.jsonl").exists());
}

#[test]
fn a_fit_by_shards_that_is_killed_goes_on_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..12 {
        sine(&dir.path().join(format!("{i}.wav")), 0.2 + 0.01 * f64::from(i));
    }
    let files: Vec<String> = (0..12).map(|i| format!("{i}.wav")).collect();
    let args = |out: &str| -> Vec<String> {
        let args = ["units", "fit", "--log-mel", "20", "-n", "3", "--quiet", "--out", out];
        let more = ["--mini-batch", "40", "--shard-utterances", "2", "--epochs", "40"];
        args.iter().chain(&more).map(|&arg| arg.to_owned()).chain(files.iter().cloned()).collect()
    };
    let run =
        |args: &[String]| sandhi(dir.path(), &args.iter().map(String::as_str).collect::<Vec<_>>());
    let whole = run(&args("whole.npy"));
    for part in ["3 centers of", "480 utterances in 240 shards", "0 failed, width 60"] {
        assert!(whole.err.contains(part), "{part:?} is not in {}", whole.err);
    }
    whole.works();
    let state = dir.path().join("km.npy.state");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_sandhi"))
        .current_dir(dir.path())
        .args(args("km.npy"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !state.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    if state.exists() {
        // Not by other settings.
        let mut other = args("km.npy");
        other.extend(["--seed".to_owned(), "2".to_owned()]);
        run(&other).fails_with(&["km.npy.state", "seed was 1, is 2", "to begin anew"]);
    }
    let rest = run(&args("km.npy"));
    assert_eq!(rest.code, 0, "{}", rest.err);
    let bytes = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    assert_eq!(bytes("km.npy"), bytes("whole.npy"));
    assert!(!state.exists(), "a state is removed in the end");
    std::fs::write(&state, "this is nothing that a fit has kept, as long as it may be").unwrap();
    run(&args("km.npy")).fails_with(&["km.npy.state: found a damaged file", "to begin anew"]);
    let mut both = args("x.npy");
    both.extend(["--iterations".to_owned(), "3".to_owned()]);
    assert!(run(&both).err.contains("cannot be used with"));
}

#[test]
fn the_quality_of_units_is_measured_against_exact_phones() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| sandhi(dir.path(), &[&["units"], args].concat());
    let speak = ["data", "microworld", "items", "--task", "transcribe", "-n", "12"];
    let said = ["--speak", "base", "--audio-dir", "spoken", "--out", "items.jsonl"];
    sandhi(dir.path(), &[&speak[..], &said].concat()).works();
    let spectra = ["--log-mel", "40", "--context", "3", "--stride", "2", "--quiet"];
    for (n, out) in [("1", "one.npy"), ("30", "km.npy")] {
        let fit = ["fit", "--manifest", "spoken/manifest.jsonl", "-n", n, "--out", out];
        run(&[&fit[..], &spectra].concat()).works();
    }
    let quality = |kmeans: &str, more: &[&str]| {
        let args = ["quality", "--kmeans", kmeans, "-n", "6"];
        run(&[&args[..], &spectra, more].concat())
    };
    let one = quality("one.npy", &["--json"]).json();
    // One unit says nothing, and stands for the commonest phone.
    let row = &one[0];
    assert_eq!((&row["domain"], &row["n_utterances"]), (&"base".into(), &6.into()));
    assert_eq!((&row["n_units"], &row["unit_purity"]), (&1.into(), &1.0.into()));
    assert!(row["pnmi"].as_f64().unwrap() < 1e-9, "{row}");
    assert!(row["phone_purity"].as_f64().unwrap() >= row["silence"].as_f64().unwrap(), "{row}");
    let many = quality("km.npy", &["--json", "--domains", "base,channel"]).json();
    let pnmi = |row: &serde_json::Value| row["pnmi"].as_f64().unwrap();
    assert!(pnmi(&many[0]) > 0.25 && pnmi(&many[0]) < 0.9, "{many}");
    assert!(pnmi(&many[0]) > pnmi(&many[1]), "noise costs something: {many}");
    assert!(many[0]["n_units"].as_u64().unwrap() > 20, "{many}");
    // Without silence there is one phone less.
    let said = quality("km.npy", &["--json", "--speech-only"]).json();
    let n = |row: &serde_json::Value, name: &str| row[name].as_u64().unwrap();
    assert_eq!(n(&said[0], "n_phones") + 1, n(&many[0], "n_phones"));
    assert!(n(&said[0], "n_frames") < n(&many[0], "n_frames"));
    let shown = quality("km.npy", &[]).works();
    assert!(
        shown.contains("PNMI") && shown.lines().nth(1).unwrap().starts_with("base "),
        "{shown}"
    );
    // Phones of another time are told worse.
    let late = quality("km.npy", &["--json", "--shift-ms", "200"]).json();
    assert!(pnmi(&late[0]) < 0.7 * pnmi(&many[0]), "{late} {many}");
    quality("km.npy", &["--shift-ms", "-2000"]).fails_with(&["--shift-ms is -2000"]);
    quality("km.npy", &["--domains", "moon"]).fails_with(&["expected one of", "wild"]);
    run(&["quality", "--log-mel", "20", "--kmeans", "km.npy"]).fails_with(&["are 60"]);
}
