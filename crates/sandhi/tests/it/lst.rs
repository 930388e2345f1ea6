use std::{fs, path::Path};

use serde_json::Value;

use super::sandhi;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn foundation() -> String {
    format!("foundation={}", root().join("weights").display())
}

/// 1.528 B parameters of LST's table 7; two more sizes. Without the data none can be trained.
#[test]
fn published_sizes_are_planned() {
    for (name, expected) in [("lst_1b", 1.528e9), ("lst_420m", 0.539e9), ("lst_7b", 6.80e9)] {
        let recipe = format!("recipes/lst/{name}.toml");
        let plan = sandhi(root(), &["plan", &recipe, "--json", "--rate", "300e12"]).json();
        let n = plan["n_parameters"].as_f64().unwrap();
        assert!((n / expected - 1.0).abs() < 1e-3, "{name}: {n}");
        assert_eq!(plan["kind"], "speech_text");
        assert_eq!(plan["missing"].as_array().unwrap().len(), 2, "{plan}");
        let parts: Vec<&str> =
            plan["parts"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
        assert_eq!(parts, ["patch_encoder", "global", "patch_decoder"]);
        let work = plan["stages"][0]["work"].as_array().unwrap();
        assert!(work.iter().all(|part| part["forward"].as_f64().unwrap() > 0.0), "{plan}");
    }
}

/// What is compared learns from the same data for the same steps and is about as large; what needs an aligner in use says so.
#[test]
fn networks_are_compared_at_equal_size() {
    let path = foundation();
    for folder in ["recipes/lst/microworld", "recipes/lst/more"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let recipe = entry.unwrap().path().display().to_string();
            let plan = sandhi(root(), &["plan", &recipe, "--json", "--path", &path]).json();
            let (n, name) = (plan["n_parameters"].as_f64().unwrap(), &plan["name"]);
            assert!((0.9..1.15).contains(&(n / 1.1e6)), "{name} has {n}");
            assert_eq!(plan["trainable"], true, "{name}");
            let text = fs::read_to_string(&recipe).unwrap();
            assert_eq!(
                text.contains("kind = \"aligned\""),
                text.contains("oracle = true"),
                "{name}"
            );
        }
    }
}

/// Every line of a string as JSON.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_model_over_patches_works_from_end_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| sandhi(dir.path(), args);
    let (path, smoke) = (foundation(), root().join("recipes/smoke/lst.toml").display().to_string());
    let train = |out: &str, set: &[&str]| {
        let mut args = vec!["train", &smoke, "--out", out, "--path", &path, "--quiet"];
        set.iter().for_each(|set| args.extend(["--set", set]));
        run(&args)
    };
    train("run", &[]).works();
    let results: Value =
        serde_json::from_slice(&fs::read(dir.path().join("run/results.json")).unwrap()).unwrap();
    for side in ["", "_text", "_s2s", "_t2s"] {
        let metric = &results["story_cloze"]["base"][format!("accuracy{side}")];
        assert_eq!(metric["n"], 3, "{side}: {results}");
    }
    let text = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
    let steps = lines(&text("run/metrics.jsonl"));
    let terms = &steps.last().unwrap()["dev_terms"];
    for name in ["ce", "text_per_word", "speech_per_s", "patches_per_token", "mop_per_token"] {
        assert!(terms[name].as_f64().unwrap() > 0.0, "{name}: {terms}");
    }
    run(&["report", "run"]).works();

    // A corpus of units with words, in both formats, by the run's own centers and encoder.
    let weights = root().join("weights/encoder").display().to_string();
    let speak =
        ["data", "microworld", "items", "--task", "transcribe", "--split", "dev", "-n", "12"];
    let said = ["--speak", "base", "--audio-dir", "spoken", "--out", "items.jsonl"];
    run(&[&speak[..], &said].concat()).works();
    let write = |out: &str, kmeans: &str| {
        let args = ["units", "write", "--model", &weights, "--kmeans", kmeans, "--quiet"];
        run(&[&args[..], &["--manifest", "spoken/manifest.jsonl", "--out", out]].concat())
    };
    let told = write("a.units", "run/units.npy");
    assert!(told.err.contains("words with their units"), "{}", told.err);
    told.works();
    write("a.jsonl", "run/units.npy").works();
    let found = lines(&text("a.jsonl"));
    assert_eq!((&found[0]["n_units"], &found[0]["rate_hz"]), (&20.into(), &25.0.into()));
    assert!(found[1]["words"].as_array().unwrap().len() > 2, "{}", found[1]);
    let shown = run(&["data", "interleave", "a.units", "--show", "2"]).works();
    for part in ["<|speech|>", " | ", "blocks", "patches", "cut short"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let numbers = lines(&run(&["data", "interleave", "a.jsonl", "--json"]).works());
    let same = lines(&run(&["data", "interleave", "a.units", "--json"]).works());
    assert_eq!(numbers, same);
    let aligned =
        run(&["data", "interleave", "a.units", "--aligned", "--merged", "--json"]).works();
    assert_ne!(lines(&aligned), numbers);
    // Words are never cut short.
    assert!(numbers[0]["partial_share"].is_number(), "{numbers:?}");
    assert!(lines(&aligned)[0].get("partial_share").is_none(), "{aligned}");

    // They are learned from; the model hears nothing and is asked in writing alone.
    let base = dir.path().display();
    let files = format!("stage.0.data=[{{ source = \"units\", files = [\"{base}/a.units\"] }}]");
    let from = "model.units={ from = \"files\", n = 20 }";
    train("files", &[from, &files, "eval.sides=[\"t2t\", \"s2s\"]"]).works();
    let results: Value =
        serde_json::from_slice(&fs::read(dir.path().join("files/results.json")).unwrap()).unwrap();
    let of = |name: &str| &results["story_cloze"]["base"][name];
    assert_eq!(of("accuracy_text")["n"], 3);
    assert!(of("accuracy_s2s").to_string().contains("cannot hear"), "{results}");
    // How likely utterances of a file are, in every form; the end of a recipe can ask for it, too.
    let eval = |units: &str| {
        run(&["eval", "files/model", "--units", units, "--out", "likely", "--json", "--quiet"])
    };
    let likely = eval("a.jsonl").json();
    let of = |likely: &Value, name: &str| likely["held_out"]["a"][name]["value"].as_f64().unwrap();
    for name in ["loss_per_word", "loss_per_second", "perplexity_pieces", "perplexity_units"] {
        assert!(of(&likely, name) > 1.0, "{name}: {likely}");
    }
    let both = [of(&likely, "loss_per_word"), of(&likely, "loss_per_word_interleaved")];
    assert!(both[1] > 1.0 && both[0] != both[1], "{likely}");
    // Random weights know nothing of 20 units beside the rest of the vocabulary; a few steps are no more than a hint.
    assert!((2.0..2000.0).contains(&of(&likely, "perplexity_units")), "{likely}");

    // Pairs of units as tokens of their own: fewer tokens, the same seconds, the same merges when it is run again.
    let asked = format!("eval.unit_files=[\"{base}/a.units\"]");
    train("merged", &["model.unit_merges=8", from, &files, &asked]).works();
    let merges = text("merged/unit_merges.json");
    let results: Value =
        serde_json::from_slice(&fs::read(dir.path().join("merged/results.json")).unwrap()).unwrap();
    assert!(of(&results, "loss_per_second") > 1.0, "{results}");
    let learned: Value = serde_json::from_str(&merges).unwrap();
    assert_eq!(learned["merges"].as_array().unwrap().len(), 8);
    assert_eq!(text("merged/model/unit_merges.json"), merges);
    let again = run(&["eval", "merged/model", "--units", "a.units", "--out", "again", "--json"]);
    assert_eq!(of(&again.json(), "loss_per_second"), of(&results, "loss_per_second"));

    // Units of other centers, of another number, and stories that nothing could hear.
    let fit =
        ["units", "fit", "--model", &weights, "-n", "20", "--seed", "9", "--out", "other.npy"];
    run(&[&fit[..], &["--manifest", "spoken/manifest.jsonl", "--quiet"]].concat()).works();
    write("b.units", "other.npy").works();
    eval("b.units").fails_with(&["b.units", "quantizer", "the model has"]);
    run(&["data", "interleave", "a.units", "b.units"]).fails_with(&["a.units", "b.units"]);
    let others = format!("stage.0.data=[{{ source = \"units\", files = [\"{base}/b.units\"] }}]");
    let centers =
        format!("model.units.centers={{ from = \"file\", path = \"{base}/run/units.npy\" }}");
    train("others", &[&others, &centers]).fails_with(&["b.units", "quantizer", "the model has"]);
    train("count", &["model.units={ from = \"files\", n = 21 }", &files])
        .fails_with(&["20 units, model.units.n is 21"]);
    train("deaf", &[from]).fails_with(&["what is spoken needs"]);
    // Damaged files, and settings that cannot be.
    let mut bytes = fs::read(dir.path().join("a.units")).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs::write(dir.path().join("half.units"), bytes).unwrap();
    run(&["data", "interleave", "half.units"]).fails_with(&["half.units", "damaged"]);
    fs::write(dir.path().join("none.jsonl"), "").unwrap();
    run(&["data", "interleave", "none.jsonl"]).fails_with(&["none.jsonl", "empty file"]);
    train("patching", &["model.patching={ kind = \"static\", size = 0 }"])
        .fails_with(&["model.patching", "size"]);
    train("context", &["model.context=4"]).fails_with(&["context is 4"]);
    train("weights", &["stage.0.data=[{ source = \"stories\", n = 24, weight = 1 }, { source = \"stories\", form = \"written\", n = 9 }]"])
        .fails_with(&["some sources have a weight"]);
    train("domain", &["stage.0.data=[{ source = \"stories\", n = 24, domain = \"voices\" }]"])
        .fails_with(&["expected \"base\""]);
    train("told", &["model.patching={ kind = \"aligned\" }"]).fails_with(&["oracle = true"]);
    super::sine(&dir.path().join("a.wav"), 1.0);
    run(&["transcribe", "run/model", "a.wav"]).fails_with(&["was not taught to write it down"]);

    let bench =
        ["bench", "patches", &smoke, "--path", &path, "--seconds", "1", "--step-seconds", "2"];
    let more = ["--new-units", "9", "--prompts", "2", "--rounds", "1", "--json"];
    let found = run(&[&bench[..], &more].concat()).json();
    assert_eq!(found["rows"][0]["network"], "patches");
    // Nine units behind twelve: eight are read, and two patches become whole.
    assert!(found["rows"][0]["steps_saved"].as_f64().unwrap() >= 0.7, "{found}");
    assert_eq!(found["rows"][1]["steps_saved"], 0.0);
}
