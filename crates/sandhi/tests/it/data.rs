use std::fs;

use super::{sandhi, sine};

#[test]
fn features_of_a_file_become_an_array() {
    let dir = tempfile::tempdir().unwrap();
    sine(&dir.path().join("a.wav"), 0.5);
    for (kind, n_mels, n_frames) in [("whisper", 80, 50), ("fbank", 40, 48)] {
        let n = n_mels.to_string();
        let args = ["features", "a.wav", "--kind", kind, "--n-mels", &n, "--out", "x.npy"];
        sandhi(dir.path(), &args).works();
        let bytes = fs::read(dir.path().join("x.npy")).unwrap();
        let header = String::from_utf8_lossy(&bytes[..128]).into_owned();
        assert!(
            header.contains("<f4") && header.contains(&format!("({n_mels}, {n_frames}")),
            "{header}"
        );
        assert!(bytes.len() > 4 * n_mels * n_frames);
    }
    let args = ["features", "a.wav", "--n-mels", "0", "--out", "x.npy"];
    sandhi(dir.path(), &args).fails_with(&["n_mels = 0"]);
}

#[test]
fn files_that_are_no_sound_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("empty.wav"), "").unwrap();
    fs::write(dir.path().join("text.wav"), "these are words, not samples, and quite a few")
        .unwrap();
    sine(&dir.path().join("cut.wav"), 0.5);
    let whole = fs::read(dir.path().join("cut.wav")).unwrap();
    fs::write(dir.path().join("cut.wav"), &whole[..whole.len() / 2]).unwrap();
    for (file, why) in [
        ("empty.wav", "empty file"),
        ("text.wav", "text that starts"),
        ("cut.wav", "truncated"),
        ("none.wav", "cannot open"),
    ] {
        sandhi(dir.path(), &["features", file, "--out", "x.npy"]).fails_with(&[file, why]);
        assert!(!dir.path().join("x.npy").exists());
    }
}

#[test]
fn a_manifest_is_imported_and_validated() {
    let dir = tempfile::tempdir().unwrap();
    sine(&dir.path().join("a.wav"), 0.5);
    fs::write(dir.path().join("b.wav"), "").unwrap();
    let lines = [
        r#"{"audio_filepath": "a.wav", "duration": 0.5, "text": "hello there"}"#,
        r#"{"audio_filepath": "b.wav", "duration": 0.5, "text": "nothing"}"#,
        r#"{"audio_filepath": "a.wav", "duration": -1, "text": "wrong"}"#,
        "not json",
    ];
    fs::write(dir.path().join("nemo.json"), lines.join("\n")).unwrap();
    let ran = sandhi(dir.path(), &["data", "import", "nemo.json", "--out", "ours.jsonl"]);
    assert!(ran.err.contains("nemo.json:3") && ran.err.contains("nemo.json:4"), "{}", ran.err);
    ran.works();
    let ours = fs::read_to_string(dir.path().join("ours.jsonl")).unwrap();
    assert_eq!(ours.lines().count(), 2, "{ours}");

    let report = sandhi(dir.path(), &["data", "validate", "ours.jsonl", "--json"]).json();
    assert_eq!((&report["n_utterances"], &report["n_valid"]), (&2.into(), &1.into()));
    assert_eq!(report["sample_rates_hz"]["16000"], 1);
    assert!(report["bad"][0]["why"].as_str().unwrap().contains("empty file"), "{report}");
    let text = sandhi(dir.path(), &["data", "validate", "ours.jsonl"]).works();
    assert!(text.contains("1 of 2 can be used") && text.contains("empty file"), "{text}");

    let args = ["data", "import", "nemo.json", "--out", "no.jsonl", "--strict"];
    sandhi(dir.path(), &args).fails_with(&["2 lines are wrong", "nothing was written"]);
    assert!(!dir.path().join("no.jsonl").exists());
    let args = ["data", "import", "nemo.json", "--out", "no.jsonl", "--format", "nimo"];
    sandhi(dir.path(), &args).fails_with(&["nimo", "slam-llm"]);
}

#[test]
fn microworld_prints_json_lines() {
    let dir = tempfile::tempdir().unwrap();
    let lines = |args: &[&str]| -> Vec<serde_json::Value> {
        let out = sandhi(dir.path(), &[&["data", "microworld"], args].concat()).works();
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let args = ["items", "--task", "translate_de", "--split", "dev", "-n", "3"];
    let items = lines(&args);
    assert_eq!(items.len(), 3);
    assert!(items.iter().all(|item| item["task"] == "translate_de" && item["split"] == "dev"));
    assert_eq!(items, lines(&args));
    assert_eq!(lines(&["stories", "--level", "one_hop", "-n", "2"]).len(), 2);
    assert_eq!(lines(&["wild", "--language", "es", "-n", "4"]).len(), 4);
    for what in ["sentences", "facts", "documents", "names"] {
        assert_eq!(lines(&[what, "-n", "5"]).len(), 5, "{what}");
    }
    let fails = |args: &[&str], parts: &[&str]| {
        sandhi(dir.path(), &[&["data", "microworld"], args].concat()).fails_with(parts);
    };
    fails(&["items", "--task", "sing"], &["sing", "transcribe"]);
    fails(&["items", "--task", "dialogue", "--language", "de"], &["dialogue", "German"]);
    fails(&["items", "--style", "unseen"], &["nothing of this kind"]);
}

#[test]
fn microworld_is_spoken_with_word_times() {
    let dir = tempfile::tempdir().unwrap();
    let args =
        ["sentences", "-n", "2", "--out", "x.jsonl", "--speak", "base", "--audio-dir", "wav"];
    sandhi(dir.path(), &[&["data", "microworld"], &args[..]].concat()).works();
    let manifest = dir.path().join("wav/manifest.jsonl");
    let import = sandhi_data::manifest::import(&manifest, None).unwrap();
    assert_eq!((import.utterances.len(), import.rejected.len()), (2, 0));
    for utterance in &import.utterances {
        assert_eq!(utterance.words.len(), utterance.text.split_whitespace().count());
        assert!(utterance.audio.path.exists());
    }
}
