//! Every connector through the whole program: planned, trained, saved, loaded, asked.

use std::{fs, path::Path};

use super::{sandhi, sine};

/// The folder with a small recipe of each.
const ZOO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/smoke/zoo");

#[test]
fn every_connector_is_trained_and_asked() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["sweep", ZOO, "--seeds", "1", "--out", "zoo", "--cache", "cache", "--quiet"];
    sandhi(dir.path(), &args).works();
    let table = sandhi(dir.path(), &["table", "zoo"]).works();
    sine(&dir.path().join("tone.wav"), 1.0);
    let recipes = fs::read_dir(ZOO).unwrap().map(|entry| entry.unwrap().path());
    let mut n = 0;
    for recipe in recipes {
        let name = recipe.file_stem().unwrap().to_str().unwrap().to_owned();
        // An oracle is called one.
        let row = if name == "ssr_forced" { "ssr_forced (oracle)" } else { &name };
        assert!(table.contains(&format!("| {row} |")), "{row} is not in: {table}");
        let metrics = dir.path().join(format!("zoo/{name}/seed-1/metrics.jsonl"));
        let last = fs::read_to_string(metrics).unwrap();
        assert!(last.lines().all(|line| !line.contains("\"finite\":false")), "{name}: {last}");
        let model = format!("zoo/{name}/seed-1/model");
        let heard = sandhi(dir.path(), &["transcribe", &model, "tone.wav"]);
        if name == "ssr_forced" {
            heard.fails_with(&["tone.wav", "segmenter = \"forced\""]);
        } else {
            heard.works();
        }
        n += 1;
    }
    assert_eq!(n, 16);
    // What a vector has no time of its own for is not drawn.
    let geometry = ["inspect", "geometry", "zoo/ssr/seed-1/model", "--n", "1", "--cache", "cache"];
    sandhi(dir.path(), &geometry).fails_with(&["do not stand for equal times"]);
    // Measured without its recipe, an oracle is still called one.
    for (name, is_oracle) in [("ssr_forced", true), ("ssr", false)] {
        let model = format!("zoo/{name}/seed-1/model");
        let args =
            ["eval", &model, "--out", name, "--tasks", "asr", "--domains", "base", "--n", "2"];
        let found = sandhi(dir.path(), &[&args[..], &["--cache", "cache", "--json"]].concat());
        assert_eq!(found.json()["_meta"]["oracle"] == true, is_oracle, "{name}");
    }
    segments(dir.path());
    reports(dir.path());
    layers(dir.path());
    forgetting(dir.path());
}

/// A run as a page: of a connector, of an oracle, of recordings, of what was never measured.
fn reports(dir: &Path) {
    let report = |run: &str, more: &[&str]| {
        sandhi(dir, &[&["report", run, "--cache", "cache", "--quiet"], more].concat())
    };
    let page = |path: &str| fs::read_to_string(dir.join(path)).unwrap();
    for (name, is_told) in [("ssr", false), ("ssr_forced", true)] {
        report(&format!("zoo/{name}/seed-1"), &[]).works();
        let page = page(&format!("zoo/{name}/seed-1/report.html"));
        for part in
            ["Loss of stage", "data-lane=\"forced (oracle)\"", "nearest", "channel (", "<h1>ssr"]
        {
            assert!(page.contains(part), "{name}: {part}");
        }
        // What hears nothing without the transcript is asked nothing.
        assert_eq!(page.contains("heard it"), !is_told, "{name}");
    }
    let line = "{\"audio_filepath\": \"tone.wav\", \"duration\": 1.0, \"text\": \"One\"}\n";
    fs::write(dir.join("tone.jsonl"), line).unwrap();
    fs::remove_file(dir.join("zoo/conv/seed-1/results.json")).unwrap();
    let tone = ["--manifest", "tone.jsonl", "--out", "tone.html"];
    let ran = report("zoo/conv/seed-1", &tone);
    assert!(ran.err.contains("was not evaluated"), "{}", ran.err);
    ran.works();
    let tone = page("tone.html");
    assert!(tone.contains("tone") && tone.contains("ONE") && !tone.contains("German"), "{tone}");
    fs::write(dir.join("mute.jsonl"), line.replace("One", "")).unwrap();
    report("zoo/ssr/seed-1", &["--manifest", "mute.jsonl"])
        .fails_with(&["mute.jsonl", "no utterance"]);
    report("zoo", &[]).fails_with(&["zoo has no model/model.json"]);
    report("zoo/ssr/seed-1", &["--manifest", "no.jsonl"]).fails_with(&["no.jsonl"]);
    assert!(!dir.join("zoo/conv/seed-1/report.html").exists());
}

/// Speech and text at every depth, paired by number or by time.
fn layers(dir: &Path) {
    let run = |name: &str, more: &[&str]| {
        let model = format!("zoo/{name}/seed-1/model");
        let args = ["inspect", "layers", &model, "--domains", "base", "--n", "2"];
        sandhi(dir, &[&args[..], &["--cache", "cache", "--quiet"], more].concat())
    };
    for name in ["slm", "ssr_forced", "ctc_collapse", "cif", "distance_ctc"] {
        let found = run(name, &["--json"]).json();
        let row = &found[0];
        let count = |name: &str| row[name].as_u64().unwrap();
        assert_eq!((count("n_utterances"), count("n_left_out")), (6, 0), "{name}: {row}");
        assert!(count("n_pairs") <= count("n_tokens"), "{name}: {row}");
        assert!(count("n_unpaired_vectors") <= count("n_vectors"), "{name}: {row}");
        let depths = row["depths"].as_array().unwrap();
        assert_eq!(depths.len(), 7, "{name}: {row}");
        for depth in depths {
            for share in ["token", "position"] {
                let value = depth[share]["value"].as_f64();
                assert!(value.is_none_or(|v| (0.0..=1.0).contains(&v)), "{name}: {depth}");
            }
        }
        if name == "ssr_forced" {
            // Cut where tokens end, there is a vector for each.
            assert_eq!((count("n_one_by_one"), count("n_unpaired_vectors")), (6, 0), "{row}");
            assert_eq!(
                (count("n_pairs"), count("n_vectors")),
                (count("n_tokens"), count("n_tokens"))
            );
        }
    }
    run("q_former", &[]).fails_with(&["stand for no time of their own"]);
    run("slm", &["--run-dir", "zoo/slm/seed-1"]).works();
    run("slm", &["--run-dir", "zoo"]).fails_with(&["--run-dir", "results.json"]);
    let table = sandhi(dir, &["table", "zoo"]).works();
    assert!(table.contains("layers_base: cka") && table.contains(" depth_6 |"), "{table}");
}

/// A model whose language model no stage has trained, and another one in its place.
fn forgetting(dir: &Path) {
    let run = |more: &[&str]| {
        let args = ["inspect", "forgetting", "zoo/slm/seed-1/model", "--n", "4", "--quiet"];
        sandhi(dir, &[&args[..], &["--cache", "cache"], more].concat())
    };
    let found = run(&["--domains", "base", "--json", "--run-dir", "zoo/slm/seed-1"]).json();
    assert!(found["before"].as_str().unwrap().contains("no stage trained"), "{found}");
    assert_eq!(found["texts"].as_array().unwrap().len(), 5);
    for row in found["texts"].as_array().unwrap() {
        assert_eq!((&row["divergence"]["value"], &row["n_documents"]), (&0.0.into(), &4.into()));
        let perplexity = row["perplexity"]["before"]["value"].as_f64().unwrap();
        assert!(perplexity > 1.0 && perplexity < 100.0, "{row}");
    }
    assert_eq!(found["almanac"]["change"]["value"], 0.0);
    let heard = &found["misalignment"][0];
    assert_eq!((&heard["domain"], &heard["forgetting"]["value"]), (&"base".into(), &0.0.into()));
    assert!(heard["misalignment"]["value"].as_f64() > Some(0.0), "{heard}");
    assert_eq!(heard["gap"], heard["misalignment"]);
    let table = sandhi(dir, &["table", "zoo"]).works();
    for part in ["forgetting: perplexity (lower", "misalignment: divergence (lower", " almanac |"] {
        assert!(table.contains(part), "{part:?} is not in {table}");
    }

    fs::write(dir.join("mine.txt"), "Anna took the red ball.\n\nBen has it.\n").unwrap();
    let lm = format!("{}/../../weights/language_model", env!("CARGO_MANIFEST_DIR"));
    let shown = run(&["--text", "mine.txt", "--before", &lm]).works();
    assert!(shown.contains(&format!("before: {lm}")) && shown.contains("\nmine "), "{shown}");
    fs::write(dir.join("empty.txt"), "\n").unwrap();
    run(&["--text", "empty.txt"]).fails_with(&["empty.txt", "found no text"]);
    let encoder = format!("{}/../../weights/encoder", env!("CARGO_MANIFEST_DIR"));
    run(&["--before", &encoder]).fails_with(&["--before", "encoder only hears"]);
    sandhi(dir, &["inspect", "forgetting", &lm]).fails_with(&["--before", "nothing tells"]);
}

/// Where it is cut is, and the first utterance of an evaluation is drawn.
fn segments(dir: &Path) {
    let segments = |name: &str, more: &[&str]| {
        let model = format!("zoo/{name}/seed-1/model");
        sandhi(dir, &[&["inspect", "segments", &model, "tone.wav"], more].concat())
    };
    let found = segments("cif", &["--text", "one two", "--out", "x.svg"]).works();
    for name in ["forced (oracle)", "ctc ", "cif ", "nearest"] {
        assert!(found.contains(name), "{name} is not in: {found}");
    }
    let svg = fs::read_to_string(dir.join("x.svg")).unwrap();
    assert!(svg.contains("data-lane=\"cif\"") && svg.trim_end().ends_with("</svg>"), "{svg}");
    segments("ssr_forced", &[]).fails_with(&["tone.wav", "segmenter = \"forced\""]);
    let known = segments("ssr_forced", &["--text", "one two", "--json"]).json();
    assert_eq!(known["cuts"][2]["is_oracle"], true);
    let pictures = fs::read_dir(dir.join("zoo/ssr/seed-1/pictures")).unwrap();
    let names: Vec<String> =
        pictures.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() == 1 && names[0].starts_with("asr.base."), "{names:?}");
    let id = names[0].rsplit('.').nth(1).unwrap();
    let said = ["inspect", "segments", "zoo/slm/seed-1/model", id, "--cache", "cache", "--json"];
    let said = sandhi(dir, &said).json();
    assert_eq!(said["words"][0]["source"], "exact", "{}", said["text"]);
    let unknown = ["inspect", "segments", "zoo/slm/seed-1/model", "nobody"];
    sandhi(dir, &unknown).fails_with(&["nobody", "neither a file nor the id"]);
}

#[test]
fn what_does_not_fit_a_connector_is_planned_away() {
    let dir = tempfile::tempdir().unwrap();
    let plan = |recipe: &str, set: &[&str]| {
        let recipe = format!("{ZOO}/{recipe}.toml");
        let set: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
        sandhi(dir.path(), &[&["plan", recipe.as_str()], &set[..]].concat())
    };
    plan("ssr_forced", &["oracle=false"]).fails_with(&["model.segmenter", "oracle = true"]);
    plan("ssr", &["model.connector.d_hidden=12", "model.connector.output=false"])
        .fails_with(&["model.connector"]);
    plan("slm", &["model.segmenter='ctc'"]).fails_with(&["model.segmenter", "leave it out"]);
    plan("cif", &["model.connector.kernel=4"]).fails_with(&["kernel"]);
    plan("conv", &["model.connector.d_bottleneck=4294967296"])
        .fails_with(&["d_bottleneck is 4294967296", "65536"]);
    plan("stack_mlp", &["model.connector.reduction=0"]).fails_with(&["reduction is 0"]);
    plan("q_former", &["model.connector.heads=2"]).fails_with(&["heads"]);
    plan("stack_swiglu", &["stage.0.loss.distillation.depths=[9]"])
        .fails_with(&["distillation.depths", "9 is not below"]);
    plan("stack_swiglu", &["stage.0.loss.distillation.temperature=0.0"])
        .fails_with(&["temperature is 0"]);
    plan("slm", &["stage.0.loss.next_token=1.0"]).fails_with(&["one by one"]);
    plan("distance_ctc", &["model.connector.tokens=[99999]"]).fails_with(&["99999"]);
    plan("multitask", &["stage.0.trainable=['connector']"])
        .fails_with(&["source \"documents\" teaches nothing", "nothing of the language model"]);
    plan("multitask", &["stage.0.loss.text=0.0"]).fails_with(&["loss.text is 0"]);
    plan("multitask", &["stage.0.batch.max_length=1.0"]).fails_with(&["4 tokens"]);
    plan("ssr", &["model.connector.pool='fire'"]).fails_with(&["needs cut.by"]);
    plan("ssr_cif", &["model.segmenter='ctc'"]).fails_with(&["model.segmenter", "leave it out"]);
    plan("ssr", &["model.connector.d_ff=0"]).fails_with(&["d_ff is 0"]);
    plan("ssr", &["stage.0.loss.next_token=-1.0"]).fails_with(&["next_token is -1"]);
}
