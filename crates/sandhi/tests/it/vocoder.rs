use std::{fs, path::Path};

use sandhi_data::audio::Waveform;
use serde_json::Value;

use super::sandhi;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn units_are_said_again_from_end_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| sandhi(dir.path(), args);
    let at = |name: &str| dir.path().join(name);
    let weights = root().join("weights").display().to_string();
    let path = format!("foundation={weights}");
    let recipe =
        |name: &str| root().join(format!("recipes/smoke/{name}.toml")).display().to_string();
    let train = |name: &str, out: &str, set: &[&str]| {
        let recipe = recipe(name);
        let mut args = vec!["train", &recipe, "--out", out, "--path", &path, "--quiet"];
        set.iter().for_each(|set| args.extend(["--set", set]));
        run(&args)
    };

    // Without a recognizer spectra alone are measured.
    train("vocoder", "run", &[]).works();
    let read =
        |file: &str| -> Value { serde_json::from_slice(&fs::read(at(file)).unwrap()).unwrap() };
    let results = read("run/results.json");
    let numbers = &results["resynthesis"]["base"];
    for name in ["log_mel_l1", "log_mel_l1_sound"] {
        assert!(numbers[name]["value"].as_f64().unwrap() > 0.0, "{name}: {results}");
        assert_eq!(numbers[name]["n"], 2);
    }
    assert!(numbers.get("cer").is_none(), "{results}");
    assert!(results["_meta"]["notes"].to_string().contains("no recognizer"), "{results}");
    let steps = lines(&fs::read_to_string(at("run/metrics.jsonl")).unwrap());
    let terms = &steps.last().unwrap()["dev_terms"];
    for name in ["mel", "convergence", "magnitude"] {
        assert!(terms[name].as_f64().unwrap() > 0.0, "{name}: {terms}");
    }
    run(&["report", "run"]).works();
    train("vocoder", "none", &["eval.recognizer=\"no/where\""])
        .fails_with(&["eval.recognizer", "no/where does not exist"]);
    let deaf = format!("eval.recognizer=\"{weights}/language_model\"");
    train("vocoder", "text", &[&deaf]).fails_with(&["holds a text model, expected ctc"]);

    // With one there are error rates, beside those of the true sound; the encoder of the units is told apart from others.
    train("encoder", "reader", &[]).works();
    let eval = |out: &str, recognizer: &str| {
        let args = ["eval", "run/model", "--out", out, "--dev", "--n", "2", "--tasks", "asr"];
        let more = ["--domains", "base", "--recognizer", recognizer];
        let found = run(&[&args[..], &more].concat());
        assert!(!found.err.contains("nothing was measured"), "{}", found.err);
        found.works();
        read(&format!("{out}/results.json"))
    };
    let other = eval("other", "reader/model");
    for name in ["cer", "cer_original", "wer", "wer_original"] {
        assert_eq!(other["resynthesis"]["base"][name]["n"], 2, "{name}: {other}");
    }
    assert!(other["_meta"]["notes"].to_string().contains("read by recognizer"), "{other}");
    let same = eval("same", &format!("{weights}/encoder"));
    assert!(same["_meta"]["notes"].to_string().contains("finds its own units"), "{same}");
    let cer = |of: &Value| of["resynthesis"]["base"]["cer_original"]["value"].as_f64().unwrap();
    assert!(cer(&same) < 0.2 && cer(&other) > 0.5, "{} {}", cer(&same), cer(&other));
    let predicted =
        lines(&fs::read_to_string(at("same/predictions/resynthesis.base.jsonl")).unwrap());
    assert_eq!(predicted.len(), 2);

    // Units of the foundation encoder by the run's centers, said again, in both formats.
    let encoder = format!("{weights}/encoder");
    let speak =
        ["data", "microworld", "items", "--task", "transcribe", "--split", "dev", "-n", "3"];
    let said = ["--speak", "base", "--audio-dir", "spoken", "--out", "items.jsonl"];
    run(&[&speak[..], &said].concat()).works();
    let write = |out: &str, kmeans: &str| {
        let args = ["units", "write", "--model", &encoder, "--kmeans", kmeans, "--quiet"];
        run(&[&args[..], &["--manifest", "spoken/manifest.jsonl", "--out", out]].concat()).works()
    };
    write("a.units", "run/units.npy");
    write("a.jsonl", "run/units.npy");
    let say = |args: &[&str]| {
        run(&[&["units", "speak", "--quiet", "--vocoder", "run/model"], args].concat())
    };
    let told = lines(&say(&["--units", "a.units", "--out", "said"]).works());
    assert_eq!(told.len(), 3);
    say(&["--units", "a.jsonl", "--out", "again"]).works();
    let utterances = lines(&fs::read_to_string(at("a.jsonl")).unwrap());
    for (line, utterance) in told.iter().zip(&utterances[1..]) {
        assert_eq!(line["id"], utterance["id"]);
        let file = line["file"].as_str().unwrap();
        let wave = Waveform::read(&at(file)).unwrap();
        let n_units = utterance["units"].as_array().unwrap().len();
        assert_eq!((wave.sample_rate_hz, wave.samples.len()), (16_000, n_units * 640));
        assert_eq!(line["duration_s"], (n_units * 640) as f64 / 16_000.0);
        let again = at(&file.replace("said", "again"));
        assert_eq!(fs::read(at(file)).unwrap(), fs::read(again).unwrap());
    }
    // Units that are given one by one.
    let ids: Vec<String> =
        utterances[1]["units"].as_array().unwrap().iter().map(Value::to_string).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    say(&[&["--out", "one.wav"], &ids[..]].concat()).works();
    assert_eq!(fs::read(at("one.wav")).unwrap(), fs::read(at("said/000001.wav")).unwrap());

    // What cannot be said leaves nothing.
    let fit =
        ["units", "fit", "--model", &encoder, "-n", "20", "--seed", "9", "--out", "other.npy"];
    run(&[&fit[..], &["--manifest", "spoken/manifest.jsonl", "--quiet"]].concat()).works();
    write("b.units", "other.npy");
    say(&["--units", "b.units", "--out", "bad"])
        .fails_with(&["b.units has 20 units", "units of two quantizers mean different sounds"]);
    say(&["--out", "bad.wav", "3", "20"]).fails_with(&["unit 20 at 1", "below 20"]);
    say(&["--out", "bad.wav"]).fails_with(&["ID"]);
    say(&["--out", "bad.wav", "--units", "a.units"]).fails_with(&["3 utterances", "give a folder"]);
    let header = fs::read_to_string(at("a.jsonl")).unwrap().lines().next().unwrap().to_owned();
    fs::write(at("none.jsonl"), &header).unwrap();
    say(&["--units", "none.jsonl", "--out", "bad"]).fails_with(&["found no utterances"]);
    let empty = r#"{"id": "a", "units": [1]}
{"id": "b", "units": []}"#;
    fs::write(at("empty.jsonl"), format!("{header}\n{empty}\n")).unwrap();
    say(&["--units", "empty.jsonl", "--out", "bad"]).fails_with(&["\"b\"", "found no units"]);
    run(&["units", "speak", "--vocoder", &encoder, "--out", "bad.wav", "1"])
        .fails_with(&["holds a ctc model, expected vocoder"]);
    assert!(!at("bad").exists() && !at("bad.wav").exists() && !at("bad.wav.partial").exists());
    run(&["transcribe", "run/model", "one.wav"]).fails_with(&["a vocoder speaks"]);
}
