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
        let told = sandhi(root(), &["plan", &recipe]).works();
        for part in ["forward, a token", "documents of", "are assumed"] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
        assert!(!told.contains("of declared parts"), "{told}");
    }
}

/// Patches around a published text model, heard by a published encoder: no weights, no data, no network.
#[test]
fn patches_around_a_published_model_are_planned_by_name() {
    let nowhere = tempfile::tempdir().unwrap();
    let cache = nowhere.path().display().to_string();
    let offline = ["--offline", "--hub-cache", &cache];
    let recipe = "recipes/lst/lst_llama_1b.toml";
    let args = [&["plan", recipe, "--json", "--rate", "300e12"], &offline[..]].concat();
    let plan = sandhi(root(), &args).json();
    // 16 blocks of 60,821,504; a table of 128,256 pieces, two markers and 500 units; a norm and a gate.
    assert_eq!(plan["parts"][1]["name"], "global");
    assert_eq!(plan["parts"][1]["n_parameters"], 16 * 60_821_504 + 128_758 * 2048 + 2 * 2048);
    assert_eq!(plan["trainable"], false);
    assert_eq!(plan["missing"].as_array().unwrap().len(), 5, "{plan}");
    assert!(plan["stages"][0]["step_s"].as_f64().unwrap() > 0.0, "{plan}");
    let wrong = ["--set", "model.network.text.n_layers=15"];
    sandhi(root(), &[&args[..], &wrong].concat()).fails_with(&[
        "model.network.text",
        "other settings",
        "n_layers = 16",
    ]);
}

/// What is compared learns from the same data for the same steps and is about as large; what needs an aligner in use says so.
#[test]
fn networks_are_compared_at_equal_size() {
    let path = foundation();
    for folder in
        ["recipes/lst/microworld", "recipes/lst/more", "recipes/lst/curves", "recipes/lst/tuned"]
    {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let recipe = entry.unwrap().path().display().to_string();
            let plan = sandhi(root(), &["plan", &recipe, "--json", "--path", &path]).json();
            let (n, name) = (plan["n_parameters"].as_f64().unwrap(), &plan["name"]);
            let name = name.as_str().unwrap();
            let expected = match name.rsplit('_').next() {
                Some("05m") => 0.514e6,
                Some("2m") => 1.92e6,
                _ => 1.1e6,
            };
            assert!((0.9..1.15).contains(&(n / expected)), "{name} has {n}");
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

/// A published text model learns to hear: over tokens, and in the middle of patches. Its tokens keep their numbers.
#[test]
fn a_published_text_model_goes_on_over_units() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| sandhi(dir.path(), args);
    let at = |file: &str| dir.path().join(file);
    let recipe =
        |name: &str| root().join(format!("recipes/smoke/{name}.toml")).display().to_string();
    let sizes =
        "d_model = 16, n_layers = 2, n_heads = 2, n_kv_heads = 1, d_ff = 32, tie_embeddings = true";
    let llama = format!("model.language_model={{ {sizes} }}");
    run(&["train", &recipe("language_model"), "--out", "lm", "--quiet", "--set", &llama]).works();
    run(&["export", "lm/model", "--out", "llama"]).works();

    let (smoke, path) = (recipe("lst_from_text"), foundation());
    let from = format!(
        "model.language_model={{ from = \"hugging_face\", path = \"{}\" }}",
        at("llama").display()
    );
    let train = |out: &str, set: &[&str]| {
        let mut args =
            vec!["train", &smoke, "--out", out, "--path", &path, "--quiet", "--set", &from];
        set.iter().for_each(|set| args.extend(["--set", set]));
        run(&args)
    };
    // What the recipe says the network is must be the model: nothing is written else.
    train("none", &[]).fails_with(&["model.network.text", "expected {", "d_model = 16"]);
    assert!(!at("none").exists());
    let text = format!("model.network.text={{ {sizes} }}");
    train("patches", &[&text]).works();
    let plain = format!("model.network={{ kind = \"plain\", {sizes} }}");
    let without = train("none", &[&plain]);
    without.fails_with(&["model.patching", "has no patches"]);

    let json =
        |file: &str| -> Value { serde_json::from_slice(&fs::read(at(file)).unwrap()).unwrap() };
    let pieces = |file: &str| {
        let vocabulary = json(file)["model"]["vocab"].clone();
        vocabulary.as_object().unwrap().clone()
    };
    assert_eq!(pieces("patches/model/tokenizer.json"), pieces("llama/tokenizer.json"));
    let results = json("patches/results.json");
    for side in ["", "_text", "_s2s", "_t2s"] {
        assert_eq!(results["story_cloze"]["base"][format!("accuracy{side}")]["n"], 3, "{side}");
    }
    // Over tokens, documents between tokens that the recipe names; resumed, it is the same vocabulary.
    let over_tokens = root().join("recipes/lst/from_text/plain.toml").display().to_string();
    let plain = format!("model.network={{ kind = \"plain\", {sizes} }}");
    let mut args = vec!["train", &over_tokens, "--out", "tokens", "--path", &path, "--quiet"];
    let sets = [
        &from,
        &plain,
        "model.edges=[\"<|user|>\", \"<|assistant|>\"]",
        "model.units.centers={ from = \"fit\", n = 20, n_frames = 2000, iterations = 3 }",
        "stage.0.steps=2",
        "stage.0.optimizer.warmup=0",
        "stage.0.data=[{ source = \"stories\", n = 24 }]",
        "eval.n=2",
        "eval.tasks=[\"story_cloze\", \"swuggy\"]",
    ];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    run(&args).works();
    let edges = &json("tokens/model/model.json")["edges"];
    assert_eq!(edges, &serde_json::json!(["<|user|>", "<|assistant|>"]));
    let eval = ["eval", "tokens/model", "--out", "heard", "--tasks", "swuggy", "--n", "2"];
    run(&[&eval[..], &["--domains", "base", "--quiet"]].concat()).works();
    let found = json("heard/results.json")["swuggy"].clone();
    assert_eq!(found, json("tokens/results.json")["swuggy"]);
    // What is kept of a pair is what was chosen by ear, and by reading apart.
    let kept = fs::read_to_string(at("tokens/predictions/swuggy.base.jsonl")).unwrap();
    for line in lines(&kept) {
        for (kept, side) in [("correct", "accuracy_s2s"), ("text_correct", "accuracy_text")] {
            assert_eq!(line[kept].as_bool().unwrap(), line["counts"][side][0] == 1.0, "{line}");
        }
    }
    let tokenizer = fs::read_to_string(at("tokens/tokenizer.json")).unwrap();
    fs::write(at("tokens/tokenizer.json"), tokenizer.replace("unit_19", "unit_20")).unwrap();
    fs::remove_file(at("tokens/results.json")).unwrap();
    fs::remove_dir_all(at("tokens/model")).unwrap();
    args.push("--resume");
    run(&args).fails_with(&["tokenizer.json", "began as another model"]);

    // It stands on its own: the text model is not needed any more.
    fs::remove_dir_all(at("llama")).unwrap();
    let eval = ["eval", "patches/model", "--out", "again", "--tasks", "story_cloze", "--n", "3"];
    run(&[&eval[..], &["--domains", "base", "--quiet"]].concat()).works();
    assert_eq!(json("again/results.json")["story_cloze"], results["story_cloze"]);
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
    for name in ["ce", "text_per_word", "speech_per_s", "marker", "patches_per_token"] {
        assert!(terms[name].as_f64().unwrap() > 0.0, "{name}: {terms}");
    }
    let operations = |part: &str| terms[format!("mop_per_token{part}")].as_f64().unwrap();
    let parts = ["_encoder", "_global", "_decoder"].map(operations);
    assert!(parts.iter().all(|part| *part > 0.0), "{terms}");
    assert!((parts.iter().sum::<f64>() / operations("") - 1.0).abs() < 1e-5, "{terms}");
    run(&["report", "run"]).works();
    // What is longer than the context is not available, with its reason; what fits is measured.
    let asked = ["model.context=60", "eval.tasks=[\"story_cloze\", \"swuggy\"]", "eval.n=2"];
    let found = train("short", &asked);
    let told = ["story_cloze.base_s2s is left out", "the model's context is 60"];
    assert!(told.iter().all(|part| found.err.contains(part)), "{}", found.err);
    found.works();
    let results: Value = serde_json::from_str(&text("short/results.json")).unwrap();
    let of = |task: &str, name: &str| &results[task]["base"][name];
    assert!(of("story_cloze", "accuracy_s2s").to_string().contains("context"), "{results}");
    assert_eq!(of("swuggy", "accuracy_text")["n"], 2, "{results}");

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
    // What was asked for and could not be measured is said.
    let asked = ["--tasks", "story_cloze,tts", "--sides", "t2t", "--domains", "base", "--n", "2"];
    let found = run(&[&["eval", "files/model", "--out", "some"], &asked[..]].concat());
    assert!(found.err.contains("nothing was measured of task tts"), "{}", found.err);
    assert!(!found.err.contains("task story_cloze"), "{}", found.err);
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

    // Patches that end where the next unit is uncertain: the same ones when the run is read again.
    train(
        "uncertain",
        &["model.patching={ kind = \"entropy\", units_per_patch = 3.0 }", from, &files, &asked],
    )
    .works();
    let entropies = text("uncertain/unit_entropy.json");
    assert!(entropies.contains("\"longest\":16,\"threshold\":"), "{entropies}");
    assert_eq!(text("uncertain/model/unit_entropy.json"), entropies);
    let results: Value =
        serde_json::from_slice(&fs::read(dir.path().join("uncertain/results.json")).unwrap())
            .unwrap();
    assert!(of(&results, "loss_per_second") > 1.0, "{results}");
    let again = run(&["eval", "uncertain/model", "--units", "a.units", "--out", "same", "--json"]);
    assert_eq!(of(&again.json(), "loss_per_second"), of(&results, "loss_per_second"));
    let shorter = run(&["data", "interleave", "a.units", "--entropy", "2", "--json"]).works();
    let longer = run(&["data", "interleave", "a.units", "--entropy", "6", "--json"]).works();
    let patches = |out: &str| lines(out)[0]["patches_a_token"].as_f64().unwrap();
    assert!(patches(&shorter) > patches(&longer), "{shorter}{longer}");
    run(&["data", "interleave", "a.units", "--entropy", "0"]).fails_with(&["--entropy is 0"]);
    train(
        "both",
        &["model.patching={ kind = \"entropy\", units_per_patch = 3.0 }", "model.unit_merges=8"],
    )
    .fails_with(&["leave out unit_merges"]);

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
    // Nothing is learned from them either.
    let entropy = "model.patching={ kind = \"entropy\", units_per_patch = 3.0 }";
    train("foreign", &[&others, &centers, entropy]).fails_with(&[
        "b.units",
        "quantizer",
        "the model has",
    ]);
    assert!(!dir.path().join("foreign/unit_entropy.json").exists());
    let written = "stage.0.data=[{ source = \"stories\", form = \"written\", n = 9 }]";
    train("silent", &[written, &centers, entropy])
        .fails_with(&["model.patching", "units of the first stage"]);
    train("count", &["model.units={ from = \"files\", n = 21 }", &files])
        .fails_with(&["20 units, model.units.n is 21"]);
    train("deaf", &[from]).fails_with(&["what is spoken needs"]);
    // Damaged files, and settings that cannot be.
    let mut bytes = fs::read(dir.path().join("a.units")).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs::write(dir.path().join("half.units"), bytes).unwrap();
    run(&["data", "interleave", "half.units"]).fails_with(&["half.units", "damaged"]);
    // Without words nothing can be interleaved, without units nothing is said: the file and the line are named.
    let (header, first) = (&lines(&text("a.jsonl"))[0], "{\"id\": \"x\", \"units\": [1, 2]}");
    for (name, second, why) in [
        ("wordless", "{\"id\": \"y\", \"units\": [3]}", ["wordless.jsonl:2", "no words"]),
        ("unitless", "{\"id\": \"y\", \"units\": []}", ["unitless.jsonl:3", "no units"]),
    ] {
        let file = format!("{name}.jsonl");
        fs::write(dir.path().join(&file), format!("{header}\n{first}\n{second}\n")).unwrap();
        run(&["data", "interleave", &file]).fails_with(&why);
        let files = format!("stage.0.data=[{{ source = \"units\", files = [\"{base}/{file}\"] }}]");
        train(name, &[from, &files]).fails_with(&why);
    }
    let twice = ["data", "interleave", "a.jsonl", "a.jsonl"];
    run(&twice).fails_with(&["a.jsonl:2", "which", "has as well"]);
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
    // A patch a unit holds more than four units a patch, whether it learns or goes on.
    for name in ["train_bytes", "generate_bytes"] {
        let bytes = [0, 1].map(|row: usize| found["rows"][row][name].as_u64().unwrap());
        assert!(bytes[0] > 10_000 && bytes[1] > bytes[0], "{name}: {bytes:?}");
    }
}

/// What is learned by transcribing and by speaking, and what is measured of it: numbers of every task on its side.
#[test]
fn a_tuned_model_transcribes_and_speaks() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| sandhi(dir.path(), args);
    let path = foundation();
    let recipe = root().join("recipes/smoke/lst_tuned.toml").display().to_string();
    run(&["train", &recipe, "--out", "run", "--path", &path, "--quiet"]).works();
    let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
    let results: Value = serde_json::from_slice(&read("run/results.json")).unwrap();
    let number = |task: &str, metric: &str| {
        let found = &results[task]["base"][metric];
        assert_eq!(found["n"], 3, "{task} {metric}: {results}");
        found["value"].as_f64().unwrap()
    };
    for task in ["swuggy", "sblimp"] {
        for side in ["_s2s", "_text"] {
            for score in ["accuracy", "accuracy_per_token"] {
                assert!((0.0..=1.0).contains(&number(task, &format!("{score}{side}"))));
            }
        }
        // A pair is not read on one side and heard on the other.
        assert!(results[task]["base"].get("accuracy").is_none(), "{results}");
    }
    assert!(results["sblimp"]["base"].get("accuracy_topic_s2s").is_none(), "{results}");
    assert!(number("asr", "wer") > 0.0 && number("asr", "cer") > 0.0);
    assert!(number("asr_3", "wer") > 0.0 && number("asr_3", "shots") <= 3.0);
    assert!(number("tts", "unit_error_rate_t2s") > 0.0);
    assert!(number("tts_3", "unit_error_rate_t2s") > 0.0 && number("tts_3", "shots_t2s") <= 3.0);
    // Text is a patch a token, four units are one.
    assert_eq!(number("continuation", "steps_saved"), 0.0);
    assert_eq!(number("asr", "steps_saved"), 0.0);
    assert!(number("tts", "steps_saved_t2s") > 0.5);
    let said = lines(&String::from_utf8(read("run/predictions/tts.base.jsonl")).unwrap());
    let units = said[0]["reference"].as_str().unwrap().split(' ');
    assert!(
        units.clone().count() > 20
            && units.into_iter().all(|unit| unit.parse::<u32>().unwrap() < 20)
    );
    run(&["report", "run"]).works();

    // What is said is heard: by a vocoder of the same units and an encoder that reads; of the true units and the true sound, too.
    let units = format!(
        "model.units.centers={{ from = \"file\", path = \"{}/run/units.npy\" }}",
        dir.path().display()
    );
    let vocoder = root().join("recipes/smoke/vocoder.toml").display().to_string();
    let train = |out: &str, set: &str| {
        run(&["train", &vocoder, "--out", out, "--path", &path, "--quiet", "--set", set])
    };
    train("vocoder", &units).works();
    let encoder = root().join("weights/encoder").display().to_string();
    let aloud = |vocoder: &str, more: &[&str]| {
        let args = ["eval", "run/model", "--tasks", "tts", "--domains", "base", "--n", "2"];
        let voice = ["--out", "aloud", "--quiet", "--json", "--vocoder", vocoder];
        run(&[&args[..], &voice, more].concat())
    };
    let found = aloud("vocoder/model", &["--recognizer", &encoder]).json();
    for name in ["cer", "cer_true_units", "cer_original", "wer"] {
        let rate = &found["tts"]["base"][format!("{name}_t2s")];
        assert!(rate["value"].as_f64().is_some() && rate["n"] == 2, "{name}: {found}");
    }
    let of = |name: &str| found["tts"]["base"][name]["value"].as_f64().unwrap();
    assert!(of("cer_original_t2s") < 0.3 && of("cer_t2s") > of("cer_original_t2s"), "{found}");
    assert!(found["_meta"]["notes"].to_string().contains("made the units"), "{found}");
    aloud("vocoder/model", &[]).fails_with(&["--recognizer"]);
    aloud("run/model", &["--recognizer", &encoder]).fails_with(&["expected vocoder"]);
    train(
        "other",
        "model.units.centers={ from = \"fit\", n = 21, n_frames = 2000, iterations = 3 }",
    )
    .works();
    aloud("other/model", &["--recognizer", &encoder]).fails_with(&["21 units", "the model has 20"]);

    // The other kinds have none of it, and what is named and cannot be is said.
    let pairs = ["data", "microworld", "items", "--task", "swuggy", "--split", "dev", "-n", "4"];
    let spoken = ["--speak", "base", "--audio-dir", "pairs", "--out", "pairs.jsonl"];
    run(&[&pairs[..], &spoken].concat()).works();
    let items = lines(&String::from_utf8(read("pairs.jsonl")).unwrap());
    let heard = lines(&String::from_utf8(read("pairs/manifest.jsonl")).unwrap());
    assert_eq!((items.len(), heard.len()), (4, 8));
    for (item, both) in items.iter().zip(heard.chunks(2)) {
        assert_eq!(both[0]["speaker"], both[1]["speaker"]);
        assert_eq!(
            [&both[0]["text"], &both[1]["text"]],
            [&item["choices"][0], &item["choices"][1]]
        );
    }
    let trained = "stage.0.data=[{ source = \"microworld\", tasks = [\"swuggy\"], domain = \"base\", n = 4 }]";
    let language_model = root().join("recipes/smoke/encoder.toml").display().to_string();
    run(&["train", &language_model, "--out", "no", "--set", trained])
        .fails_with(&["task swuggy has nothing to answer"]);

    let inspect = ["inspect", "patches", "run/model", "--domains", "base", "--n", "4", "--quiet"];
    let found = run(&[&inspect[..], &["--json"]].concat()).json();
    let row = &found[0];
    assert_eq!((&row["n_utterances"], &row["is_told"]), (&4.into(), &false.into()));
    for name in ["within", "between", "silhouette"] {
        assert!((-1.0..=1.0).contains(&row[name].as_f64().unwrap()), "{name}: {found}");
    }
    assert!(row["n_of_words"].as_f64() <= row["n_patches"].as_f64(), "{found}");
    let weights = root().join("weights/encoder").display().to_string();
    run(&["inspect", "patches", &weights]).fails_with(&["expected a speech_text"]);
    // Patches of words: it is told, and cannot go on.
    let told =
        ["model.patching={ kind = \"aligned\" }", "oracle=true", "eval.tasks=[\"asr\", \"tts\"]"];
    let mut args = vec!["train", &recipe, "--out", "told", "--path", &path, "--quiet"];
    told.iter().for_each(|set| args.extend(["--set", set]));
    run(&args).works();
    let results: Value = serde_json::from_slice(&read("told/results.json")).unwrap();
    for (task, metric) in [("asr", "wer"), ("tts", "unit_error_rate_t2s")] {
        let why = &results[task]["base"][metric]["unsupported"];
        assert!(why.to_string().contains("cannot go on"), "{results}");
    }
    let told = run(&["inspect", "patches", "told/model", "--domains", "base", "--n", "4"]).works();
    assert!(told.contains("oracle"), "{told}");
}
