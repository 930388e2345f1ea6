use std::{fs, path::Path};

use sandhi_data::{
    alignment::{self, Source},
    audio::Waveform,
    manifest,
};
use serde_json::{Value, json};

use super::{Ran, sandhi};

/// The encoder that the program carries.
fn encoder() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../weights/encoder").to_owned()
}

fn align(dir: &Path, args: &[&str]) -> Ran {
    let model = encoder();
    sandhi(dir, &[&["align", model.as_str()], args].concat())
}

/// Twelve spoken sentences with exact word times.
fn speak(dir: &Path) {
    let args = [
        "data",
        "microworld",
        "items",
        "--task",
        "transcribe",
        "--split",
        "dev",
        "-n",
        "12",
        "--speak",
        "base",
        "--audio-dir",
        "spoken",
        "--out",
        "items.jsonl",
    ];
    sandhi(dir, &args).works();
}

#[test]
fn every_format_has_the_same_times() {
    let dir = tempfile::tempdir().unwrap();
    speak(dir.path());
    let manifest = ["--manifest", "spoken/manifest.jsonl", "--quiet"];
    let mut all = Vec::new();
    for format in ["textgrid", "ctm", "lhotse", "jsonl"] {
        let out = format!("{format}.jsonl");
        let out = if format == "ctm" { "words.ctm" } else { &out };
        let args = [&manifest[..], &["--out", out, "--format", format, "--json"]].concat();
        let summary = align(dir.path(), &args).json();
        assert_eq!((&summary["n_aligned"], &summary["n_failed"]), (&json!(12), &json!(0)));
        let error_s = summary["boundaries"]["boundary_error_s"]["value"].as_f64().unwrap();
        assert!(error_s > 0.0 && error_s < 0.04, "{summary}");
        let mut words = alignment::read(&dir.path().join(out), &Source::Silver).unwrap();
        words.sort_by(|a, b| a.0.cmp(&b.0));
        all.push(words);
    }
    assert_eq!(all[0].len(), 12);
    for other in &all[1..] {
        for ((id, words), (other_id, others)) in all[0].iter().zip(other) {
            assert_eq!((id, words.len()), (other_id, others.len()));
            for (word, other) in words.iter().zip(others) {
                assert_eq!(word.label, other.label);
                assert!((word.start_s - other.start_s).abs() < 2e-6, "{id}: {word:?} {other:?}");
                assert!((word.end_s - other.end_s).abs() < 2e-6, "{id}: {word:?} {other:?}");
            }
        }
    }
    // Against what is in the manifest, as a file of its own.
    let exact = manifest::import(&dir.path().join("spoken/manifest.jsonl"), None).unwrap();
    let records: Vec<alignment::jsonl::Record> = exact
        .utterances
        .iter()
        .map(|u| alignment::jsonl::Record { id: u.id.clone(), words: u.words.clone() })
        .collect();
    alignment::jsonl::write(&dir.path().join("exact.jsonl"), &records).unwrap();
    let args = ["score", "boundaries", "--ref", "exact.jsonl", "--hyp", "words.ctm", "--json"];
    let score = sandhi(dir.path(), &args).json();
    assert!(score["boundary_error_s"]["value"].as_f64().unwrap() < 0.04, "{score}");
    assert_eq!(score["counts"]["n_matched"], score["counts"]["n_reference"]);
    let line = sandhi(dir.path(), &args[..6]).works();
    assert!(line.starts_with("boundaries ") && line.contains("within 50 ms"), "{line}");
    // What is narrower is another thing.
    let args = [&manifest[..], &["--out", "raw", "--before-ms", "0", "--after-ms", "0", "--json"]];
    let raw = align(dir.path(), &args.concat()).json();
    let raw = raw["boundaries"]["counts"]["late_start_s"].as_f64().unwrap();
    assert!(raw > score["counts"]["late_start_s"].as_f64().unwrap());
}

#[test]
fn one_file_and_its_pieces() {
    let dir = tempfile::tempdir().unwrap();
    speak(dir.path());
    let utterance = manifest::import(&dir.path().join("spoken/manifest.jsonl"), None).unwrap();
    let utterance = &utterance.utterances[0];
    let file = utterance.audio.path.to_str().unwrap();
    fs::write(dir.path().join("text.txt"), &utterance.text).unwrap();
    let lm = concat!(env!("CARGO_MANIFEST_DIR"), "/../../weights/language_model");
    let args = [file, "--text-file", "text.txt", "--format", "lhotse", "--pieces", lm];
    let found: Value = align(dir.path(), &args).json();
    let tiers = &found["alignment"];
    let labels = |kind: &str| -> Vec<String> {
        let items = tiers[kind].as_array().unwrap().iter();
        items.map(|item| item[0].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(labels("word").join(" "), utterance.text);
    assert_eq!(labels("subword").concat(), utterance.text);
    let letters = sandhi_data::text::normalize(&utterance.text).replace(' ', "");
    assert_eq!(labels("character").concat(), letters);
    let starts: Vec<f64> =
        tiers["subword"].as_array().unwrap().iter().map(|item| item[1].as_f64().unwrap()).collect();
    assert!(starts.is_sorted() && starts[starts.len() - 1] > 0.3, "{starts:?}");
    // Digits are pieces without a character that the model knows.
    let text = format!("{} 42", utterance.text);
    let grid = align(dir.path(), &[file, "--text", &text, "--pieces", lm]).works();
    assert!(grid.contains("\"pieces\"") && grid.contains("\"42\""), "{grid}");
    for (format, start) in [("textgrid", "File type"), ("srt", "1\n00:00:00,"), ("vtt", "WEBVTT")] {
        let text =
            align(dir.path(), &[file, "--text-file", "text.txt", "--format", format]).works();
        assert!(text.starts_with(start), "{text}");
    }
    let out = ["--format", "vtt", "--out", "one.vtt"];
    align(dir.path(), &[&[file, "--text", &utterance.text], &out[..]].concat()).works();
    assert!(fs::read_to_string(dir.path().join("one.vtt")).unwrap().starts_with("WEBVTT"));
}

#[test]
fn what_has_no_place_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    speak(dir.path());
    let path = dir.path().join("spoken/manifest.jsonl");
    let import = manifest::import(&path, None).unwrap();
    let mut utterances = import.utterances[..5].to_vec();
    let silence = dir.path().join("silence.wav");
    Waveform::new(vec![0.0; 32_000], 16_000).write_wav(&silence).unwrap();
    let short = dir.path().join("short.wav");
    Waveform::new(vec![0.0; 10], 16_000).write_wav(&short).unwrap();
    utterances[0].text = " ".to_owned();
    utterances[1].text = "日本".to_owned();
    utterances[2].text = "word after word ".repeat(200);
    utterances[3].audio.path = silence;
    let mut last = utterances[4].clone();
    last.id = "short".to_owned();
    last.audio.path = short;
    utterances.push(last);
    manifest::write_jsonl(&dir.path().join("bad.jsonl"), &utterances).unwrap();
    let args = ["--manifest", "bad.jsonl", "--out", "out", "--json", "--quiet"];
    let summary = align(dir.path(), &args).json();
    assert_eq!((&summary["n_aligned"], &summary["n_failed"]), (&json!(1), &json!(5)));
    let failures = fs::read_to_string(dir.path().join("out.failures.jsonl")).unwrap();
    let whys: Vec<Value> =
        failures.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = ["the text is empty", "\"日本\"", "CTC steps at least", "found silence"];
    for (i, part) in expected.into_iter().enumerate() {
        assert_eq!(whys[i]["id"], json!(utterances[i].id));
        assert!(whys[i]["why"].as_str().unwrap().contains(part), "{}", whys[i]);
    }
    assert_eq!(whys[4]["id"], "short");
    // What is there can be scored; nothing else is there.
    assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 1);
    sandhi(dir.path(), &["score", "boundaries", "--ref", "out", "--hyp", "out"]).works();
    align(dir.path(), &args).fails_with(&["out exists and is not empty"]);
}

#[test]
fn what_cannot_be_aligned_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    super::sine(&dir.path().join("tone.wav"), 0.5);
    let fails = |args: &[&str], parts: &[&str]| align(dir.path(), args).fails_with(parts);
    fails(&["tone.wav"], &["--text or --text-file", "tone.wav"]);
    fails(&["tone.wav", "--text", "7 %"], &["tone", "no character that the model knows"]);
    fails(&["tone.wav", "--text", ""], &["the text is empty"]);
    fails(&["none.wav", "--text", "a"], &["none.wav"]);
    fails(&["tone.wav", "--text", "a", "--format", "elan"], &["elan", "textgrid"]);
    fails(&["tone.wav", "--text", "a", "--max-s", "0"], &["--max-s is 0"]);
    fails(&["tone.wav", "--text", "a", "--min-confidence", "2"], &["--min-confidence is 2"]);
    fails(&["tone.wav", "--text", "a", "--before-ms", "NaN"], &["--before-ms is NaN"]);
    let long =
        "a very long text that takes many more steps than half a second of sound has, and more";
    fails(&["tone.wav", "--text", long], &["CTC steps at least", "0.50 s"]);
    let lm = concat!(env!("CARGO_MANIFEST_DIR"), "/../../weights/language_model");
    sandhi(dir.path(), &["align", lm, "tone.wav", "--text", "a"]).fails_with(&["hears nothing"]);
    // Where nothing is said no text has a place, whatever a path may be found.
    super::sine(&dir.path().join("tone.wav"), 2.0);
    fails(&["tone.wav", "--text", "anna sings"], &["level that stays within", "3 dB"]);
}

#[test]
fn words_that_nobody_has_in_common_have_no_score() {
    let dir = tempfile::tempdir().unwrap();
    for (name, word) in [("a", "Anna"), ("b", "Ben")] {
        let text = format!("WEBVTT\n\n00:00.000 --> 00:01.000\n{word} sings\n");
        fs::write(dir.path().join(format!("{name}.vtt")), text).unwrap();
    }
    let score = |hyp: &str| {
        sandhi(dir.path(), &["score", "boundaries", "--ref", "a.vtt", "--hyp", hyp, "--json"])
    };
    assert_eq!(score("a.vtt").json()["counts"]["n_matched"], 1);
    score("b.vtt").fails_with(&["no word of a.vtt is one of b.vtt", "1 and 1 words"]);
}

/// The other side stands for a Python: one that finds other paths is told of, and nothing is timed beside it.
#[cfg(unix)]
#[test]
fn paths_are_compared_before_times() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let bench = |args: &[&str]| sandhi(dir.path(), &[&["bench", "align"], args].concat());
    bench(&["--python", "./none"]).fails_with(&["./none: cannot start"]);
    bench(&["--python", "true"]).fails_with(&["first line is not what is installed"]);
    bench(&["--rounds", "0"]).fails_with(&["--rounds is 0"]);
    let answer =
        json!({ "name": "monotonic-200x40", "peer": "other", "seconds": 1.0, "path": [200] });
    let script = format!("#!/bin/sh\necho '{{\"versions\": {{}}}}'\necho '{answer}'\n");
    let other = dir.path().join("other");
    fs::write(&other, script).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    bench(&["--python", "./other", "--rounds", "1"])
        .fails_with(&["monotonic-200x40: other finds another path"]);
}

#[test]
fn connectors_are_timed_without_another_side() {
    let dir = tempfile::tempdir().unwrap();
    let bench = |args: &[&str]| sandhi(dir.path(), &[&["bench", "connectors"], args].concat());
    let args = ["--only", "stack_mlp", "--utterances", "1", "--rate-hz", "5", "--rounds", "1"];
    let found = bench(&[&args[..], &["--json"]].concat()).json();
    let cells = found["cells"].as_array().unwrap();
    assert!(!cells.is_empty(), "{found}");
    for cell in cells {
        assert_eq!((&cell["kind"], &cell["ratio"]), (&json!("stack_mlp"), &Value::Null));
        assert!(cell["ours_s"].as_f64().unwrap() > 0.0, "{cell}");
    }
    bench(&["--only", "gru"]).fails_with(&["gru"]);
    bench(&["--utterances", "0"]).fails_with(&["--utterances is 0"]);
}

/// The other backend: an aligner model, whatever it has learned in a few steps.
#[test]
fn an_aligner_model_places_texts_as_well() {
    let dir = tempfile::tempdir().unwrap();
    speak(dir.path());
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/smoke/aligner.toml");
    sandhi(dir.path(), &["train", recipe, "--out", "run", "--quiet"]).works();
    let run = |args: &[&str]| sandhi(dir.path(), &[&["align", "run/model"], args].concat());
    let lm = concat!(env!("CARGO_MANIFEST_DIR"), "/../../weights/language_model");
    let manifest = ["--manifest", "spoken/manifest.jsonl", "--quiet", "--json"];
    for format in ["textgrid", "ctm", "lhotse", "jsonl", "srt", "vtt"] {
        let args = [&manifest[..], &["--out", format, "--format", format, "--pieces", lm]].concat();
        let summary = run(&args).json();
        assert_eq!((&summary["n_aligned"], &summary["n_failed"]), (&json!(12), &json!(0)));
        assert_eq!(
            summary["boundaries"]["counts"]["n_matched"],
            summary["boundaries"]["counts"]["n_reference"]
        );
    }
    let utterance = manifest::import(&dir.path().join("spoken/manifest.jsonl"), None).unwrap();
    let utterance = &utterance.utterances[0];
    let file = utterance.audio.path.to_str().unwrap();
    let found = run(&[file, "--text", &utterance.text, "--format", "lhotse"]).json();
    let words = found["alignment"]["word"].as_array().unwrap();
    assert_eq!(words.len(), utterance.text.split_whitespace().count());
    // Failures say why.
    run(&[file, "--text", "†"]).fails_with(&["no character"]);
    run(&[file, "--text", &"far too long ".repeat(200)]).fails_with(&["frames at least"]);
    let args = [file, "--text", &utterance.text, "--min-confidence", "1"];
    run(&args).fails_with(&["confidence"]);
    sandhi(dir.path(), &["transcribe", "run/model", file])
        .fails_with(&["hears and writes nothing"]);
}
