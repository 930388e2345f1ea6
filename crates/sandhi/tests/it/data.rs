use std::{fs, path::Path};

use serde_json::json;

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

    // Words of an aligner, by id; those of nobody, twice the same and beyond the sound are refused.
    let ids: Vec<String> = ours
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["id"].as_str().unwrap().to_owned())
        .collect();
    let words = |records: &[(&str, f64)]| {
        let line = |(id, end): &(&str, f64)| {
            serde_json::json!({ "id": id, "words": [["hello", 0.1, end]] }).to_string()
        };
        let text = records.iter().map(line).collect::<Vec<_>>().join("\n");
        fs::write(dir.path().join("words.jsonl"), text).unwrap();
        let args = ["data", "import", "ours.jsonl", "--words", "words.jsonl", "--out", "w.jsonl"];
        sandhi(dir.path(), &args)
    };
    let ran = words(&[(&ids[0], 0.3)]);
    assert!(ran.err.contains("words of 1 utterances of 2"), "{}", ran.err);
    ran.works();
    let timed = sandhi_data::manifest::import(&dir.path().join("w.jsonl"), None).unwrap();
    let found: Vec<_> = timed.utterances.iter().map(|utterance| utterance.words.len()).collect();
    assert_eq!((found, timed.utterances[0].words[0].end_s), (vec![1, 0], 0.3));
    words(&[("c", 0.3)]).fails_with(&["words.jsonl", "\"c\"", "ids of the manifest"]);
    words(&[(&ids[0], 0.3), (&ids[0], 0.4)]).fails_with(&["words.jsonl", "twice"]);
    words(&[(&ids[0], 0.7)]).fails_with(&["\"hello\" at 0.7 s", "the 0.5 s of its sound"]);
    words(&[(&ids[0], 0.05)]).fails_with(&["words.jsonl:1", "0 <= start <= end"]);
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

/// A folder with three recordings in a manifest of ours: two words with times each, one of the split `train`.
fn corpus(dir: &Path) {
    let line = |id: &str, file: &str, split: &str| {
        let word = |label: &str, start_s: f64, end_s: f64| json!({"label": label, "start_s": start_s, "end_s": end_s, "source": "silver"});
        json!({
            "id": id, "audio": {"path": file}, "text": "la la", "speaker": "s", "split": split,
            "words": [word("la", 0.1, 0.2), word("la", 0.25, 0.5)], "extra": {"kept": 7},
        })
    };
    for (name, seconds) in [("a.wav", 0.5), ("b.wav", 0.75), ("c.wav", 1.0)] {
        sine(&dir.join(name), seconds);
    }
    let lines =
        [line("x/a", "a.wav", "test"), line("x_a", "b.wav", "test"), line("c", "c.wav", "train")];
    let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
    fs::write(dir.join("m.jsonl"), text.join("\n")).unwrap();
}

#[test]
fn a_degraded_copy_is_a_manifest_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path());
    let degrade = |out: &str, more: &[&str]| {
        let ran =
            sandhi(dir.path(), &[&["data", "degrade", "m.jsonl", "--out", out], more].concat());
        let told = ran.err.clone();
        ran.works();
        let manifest = dir.path().join(out).join("manifest.jsonl");
        (sandhi_data::manifest::import(&manifest, None).unwrap(), told)
    };
    let all = ["--speed", "1.25", "--snr", "5", "--telephone", "--seed", "3"];
    let (import, told) = degrade("all", &all);
    assert!(
        told.contains("3 utterances in all/manifest.jsonl") && told.contains("0 left out"),
        "{told}"
    );
    assert_eq!((import.utterances.len(), import.rejected.len()), (3, 0));
    let first = &import.utterances[0];
    assert_eq!((first.id.as_str(), first.text.as_str()), ("x/a", "la la"));
    assert_eq!((first.speaker.as_deref(), first.split.as_deref()), (Some("s"), Some("test")));
    let times: Vec<_> = first.words.iter().map(|word| (word.start_s, word.end_s)).collect();
    assert_eq!(times, [(0.1 / 1.25, 0.2 / 1.25), (0.25 / 1.25, 0.5 / 1.25)]);
    assert_eq!(first.extra["kept"], 7);
    let how = &first.extra["degraded"];
    assert_eq!((&how["how"]["speed"], &how["seed"]), (&json!(1.25), &json!(3)));
    assert_eq!(how["how"]["noise"], json!({"kind": "babble", "snr_db": 5.0}));
    let sound = |u: &sandhi_data::manifest::Utterance| {
        sandhi_data::audio::Waveform::read(&u.audio.path).unwrap()
    };
    assert_eq!((sound(first).samples.len(), sound(first).sample_rate_hz), (6_400, 16_000));
    // Ids that look alike are files of their own, and everything lies in the folder: it can be moved.
    let files = fs::read_dir(dir.path().join("all")).unwrap().count();
    assert_eq!(files, 4);
    assert!(!dir.path().join("all.partial").exists());
    let text = fs::read_to_string(dir.path().join("all/manifest.jsonl")).unwrap();
    assert!(text.contains(r#""path":"00000-x_a.wav""#), "{text}");

    // The same bytes again, whatever else is copied; other ones with another seed.
    let bytes = |u: &sandhi_data::manifest::Utterance| fs::read(&u.audio.path).unwrap();
    let (again, _) = degrade("part", &[&all[..], &["--split", "train"]].concat());
    assert_eq!(again.utterances.len(), 1);
    assert_eq!(bytes(&again.utterances[0]), bytes(&import.utterances[2]));
    let (other, _) = degrade("other", &["--speed", "1.25", "--snr", "5", "--telephone"]);
    assert_ne!(bytes(&other.utterances[2]), bytes(&import.utterances[2]));

    // A copy of a copy says both; an empty folder may be there already.
    fs::create_dir(dir.path().join("twice")).unwrap();
    let args = ["data", "degrade", "all", "--out", "twice", "--telephone"];
    sandhi(dir.path(), &args).fails_with(&["all: found a folder of 4 files"]);
    let args = ["data", "degrade", "all/manifest.jsonl", "--out", "twice", "--telephone"];
    sandhi(dir.path(), &args).works();
    let twice = dir.path().join("twice/manifest.jsonl");
    let twice = sandhi_data::manifest::import(&twice, None).unwrap();
    let how = &twice.utterances[0].extra["degraded"];
    assert_eq!((&how["how"]["telephone"], &how["before"]["seed"]), (&json!(true), &json!(3)));
}

#[test]
fn what_cannot_be_degraded_is_told() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path());
    let degrade = |manifest: &str, more: &[&str]| {
        sandhi(dir.path(), &[&["data", "degrade", manifest, "--out", "out"], more].concat())
    };
    let fails = |more: &[&str], parts: &[&str]| degrade("m.jsonl", more).fails_with(parts);
    fails(&[], &["speed, snr and telephone: found none", "at least one"]);
    fails(&["--speed", "0"], &["speed is 0, expected 0.1 to 10"]);
    fails(&["--speed", "-1.1"], &["speed is -1.1, expected 0.1 to 10"]);
    fails(
        &["--speed", "nan", "--snr", "1000"],
        &["speed is NaN", "snr is 1000, expected -40 to 100"],
    );
    fails(&["--speed", "1"], &["speed is 1, expected", "other than 1"]);
    fails(&["--speed", "1.00001"], &["speed is 1.00001, expected", "thousandth"]);
    fails(&["--speed", "fast"], &["--speed", "fast"]);
    fails(&["--snr", "inf"], &["snr is inf, expected -40 to 100 dB"]);
    fails(&["--snr", "5", "--noise", "grey"], &["--noise", "grey", "speech_shaped"]);
    fails(&["--telephone", "--noise", "pink"], &["--snr"]);
    fails(&["--telephone", "--split", "dev"], &["m.jsonl", "\"dev\"", "test, train"]);
    fails(&["--telephone", "--seed", "x"], &["--seed", "'x'"]);
    degrade("none.jsonl", &["--telephone"]).fails_with(&["none.jsonl", "no such file"]);
    degrade("a.wav", &["--telephone"]).fails_with(&["a.wav"]);
    let into = |out: &str, parts: &[&str]| {
        let args = ["data", "degrade", "m.jsonl", "--telephone", "--out", out];
        sandhi(dir.path(), &args).fails_with(parts);
    };
    into(".", &[".: expected the name of a new folder"]);
    into("a.wav", &["a.wav"]);
    fs::create_dir(dir.path().join("mine")).unwrap();
    fs::write(dir.path().join("mine/letter"), "Dear").unwrap();
    into("mine", &["mine exists and is not empty"]);
    assert_eq!(fs::read_dir(dir.path().join("mine")).unwrap().count(), 1);

    // One bad sound is left out and told; with --strict, or alone, it is an error.
    fs::write(dir.path().join("a.wav"), "").unwrap();
    fails(&["--telephone", "--strict"], &["1 sounds are wrong, nothing was written"]);
    for name in ["b.wav", "c.wav"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    fails(
        &["--telephone"],
        &["no utterance can be used (3 sounds are wrong)", "b.wav: found an empty file"],
    );
    sine(&dir.path().join("b.wav"), 0.75);
    // What an interrupted attempt has left does not matter.
    fs::create_dir(dir.path().join("out.partial")).unwrap();
    fs::write(dir.path().join("out.partial/half.wav"), "RIFF").unwrap();
    let ran = degrade("m.jsonl", &["--telephone"]);
    assert!(ran.err.contains("skipped: x/a: a.wav: found an empty file"), "{}", ran.err);
    assert!(
        ran.err.contains("1 utterances in out/manifest.jsonl") && ran.err.contains("2 left out")
    );
    ran.works();
    let names = fs::read_dir(dir.path().join("out")).unwrap().count();
    assert_eq!((names, dir.path().join("out.partial").exists()), (2, false));
}

#[test]
fn spoken_digits_are_imported() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["test/3_theo_0.wav", "train/3_theo_9.wav"] {
        let path = dir.path().join("digits").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        sine(&path, 0.25);
    }
    let args = ["data", "import", "digits", "--out", "d.jsonl", "--split", "test"];
    let ran = sandhi(dir.path(), &args);
    assert!(ran.err.contains("read as fsdd, 1 utterances"), "{}", ran.err);
    ran.works();
    let text = fs::read_to_string(dir.path().join("d.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!((&line["text"], &line["speaker"]), (&json!("three"), &json!("theo")));
}
