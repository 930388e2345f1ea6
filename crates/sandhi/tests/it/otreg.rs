//! OTReg as a user meets it: planned, trained, swept with a shared first stage, used.

use std::{fs, path::Path};

use serde_json::Value;

use super::sandhi;

fn recipe(name: &str) -> String {
    format!("{}/../../recipes/{name}.toml", env!("CARGO_MANIFEST_DIR"))
}

fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_sweep_trains_a_shared_stage_once_and_its_models_compress() {
    let dir = tempfile::tempdir().unwrap();
    let at = |file: &str| dir.path().join(file);
    fs::create_dir(at("study")).unwrap();
    fs::copy(recipe("smoke/otreg"), at("study/all.toml")).unwrap();
    let plain = "extends = \"all.toml\"\nname = \"merged\"\n[stage.regularize]\n\
                 trainable = [\"connector\"]\ncompression = { merge = -1.0, drop = 1.0 }\n\
                 [stage.regularize.loss]\ntoken_ctc = 0.0\n";
    fs::write(at("study/merged.toml"), plain).unwrap();
    let foundation = format!("foundation={}/../../weights", env!("CARGO_MANIFEST_DIR"));
    let sweep = ["sweep", "study", "--out", "out", "--seeds", "1", "--path", &foundation];
    let only = |names: &str| sandhi(dir.path(), &[&sweep[..], &["--only", names]].concat());
    only("merged,slm").fails_with(&["--only slm", "study has all, merged"]);
    // Another process that runs a cell keeps it; what it leaves undone is done next time.
    fs::create_dir_all(at("out/merged/seed-1")).unwrap();
    let lock = fs::File::create(at("out/merged/seed-1/.lock")).unwrap();
    lock.try_lock().unwrap();
    let beside = sandhi(dir.path(), &sweep);
    assert!(beside.err.contains("1 of 2 cells are finished, another process"), "{}", beside.err);
    assert_eq!((beside.code, at("out/merged/seed-1/recipe.json").exists()), (0, false));
    drop(lock);
    let found = only("all");
    assert!(found.err.contains("1 cells are finished"), "{}", found.err);
    sandhi(dir.path(), &sweep).works();

    // One row begins with what the other has trained.
    let runs = [at("out/all/seed-1"), at("out/merged/seed-1")];
    let first: Vec<Vec<Value>> = runs
        .iter()
        .map(|run| metrics(run).into_iter().filter(|r| r["stage"] == "adapter").collect())
        .collect();
    assert_eq!(first[0], first[1], "seconds of a step, too");
    assert_eq!(fs::read_dir(at("out/.stages")).unwrap().count(), 1);

    // Every loss by its name, and what is watched.
    let of_step = |run: &Path, step: u64| {
        let is_it =
            |r: &&Value| r["stage"] == "regularize" && r["step"] == step && r["terms"].is_object();
        metrics(run).iter().find(is_it).map(|r| r["terms"].clone()).unwrap()
    };
    let terms = of_step(&runs[0], 1);
    for name in ["ce", "token_ctc", "transport", "transport_cost", "undecided", "unsolved"] {
        assert!(terms[name].as_f64().is_some_and(|value| value >= 0.0), "{name} of {terms}");
    }
    assert_eq!(terms["unsolved"], 0.0);
    assert!(of_step(&runs[1], 1)["token_ctc"].is_null());

    // The models compress as they were trained to, and keep no head.
    let model: Value =
        serde_json::from_slice(&fs::read(runs[1].join("model/model.json")).unwrap()).unwrap();
    assert_eq!(model["compression"]["thresholds"]["merge"], -1.0);
    assert!(model["compression"]["pad"].is_u64(), "{model}");
    let held = fs::read(runs[0].join("model/connector.safetensors")).unwrap();
    assert!(!String::from_utf8_lossy(&held).contains("ctc_head"));
    super::sine(&at("a.wav"), 2.0);
    sandhi(dir.path(), &["transcribe", "out/all/seed-1/model", "a.wav"]).works();
    sandhi(dir.path(), &["pack", "out/all/seed-1/model", "--out", "packed"]).works();
    sandhi(dir.path(), &["transcribe", "packed", "a.wav"]).works();
    let table = sandhi(dir.path(), &["table", "out"]).works();
    assert!(table.contains("smoke_otreg") && table.contains("merged"), "{table}");
    geometry(dir.path(), "out/merged/seed-1/model");
    transport(dir.path(), "out/all/seed-1/model");
}

/// Where the speech of a file goes, by the settings of the model's recipe and by others.
fn transport(dir: &Path, model: &str) {
    let run = |file: &str, more: &[&str]| {
        sandhi(dir, &[&["inspect", "transport", model, file][..], more].concat())
    };
    let said = ["--text", "the dog left early"];
    let with = |more: &[&str]| run("a.wav", &[&said[..], more].concat());
    let found = with(&["--svg", "plan.svg", "--json"]).json();
    assert_eq!(
        (&found["settings"]["masses"], &found["settings"]["pad"]),
        (&"durations".into(), &"blank".into())
    );
    // Two seconds at 12.5 vectors each.
    assert_eq!(found["n_vectors"], 25);
    assert_eq!(found["words"].as_array().map(Vec::len), Some(4));
    let plans = found["plans"].as_array().unwrap();
    assert_eq!(plans.iter().map(|plan| &plan["depth"]).collect::<Vec<_>>(), [0, 2]);
    for plan in plans {
        let columns = plan["columns"].as_array().unwrap();
        assert!(columns.len() > 4 && columns[columns.len() - 1]["is_pad"] == true, "{plan}");
        let shares: f64 = columns.iter().map(|column| column["share"].as_f64().unwrap()).sum();
        assert!((shares - 1.0).abs() < 1e-9 && plan["is_solved"] == true, "{plan}");
    }
    let drawn = fs::read_to_string(dir.join("plan.svg")).unwrap();
    assert!(drawn.contains("<svg xmlns=") && drawn.contains("after block 2"), "{drawn}");
    assert!(drawn.contains(">early</text>") && drawn.ends_with("</svg>\n"), "{drawn}");

    let table = with(&[]).works();
    for part in ["“the dog left early”", "depth 0", "depth 2", "pad -", "25 vectors", "␣left"]
    {
        assert!(table.contains(part), "{part:?} is not in {table}");
    }
    let other = ["--solver", "exact", "--depth", "1", "--masses", "uniform", "--pad-mass", "none"];
    let found = with(&[&other[..], &["--json"]].concat()).json();
    assert_eq!(found["settings"]["solver"]["kind"], "exact");
    assert_eq!(
        (&found["plans"][0]["depth"], found["plans"].as_array().unwrap().len()),
        (&1.into(), 1)
    );
    let pads = found["plans"][0]["columns"].as_array().unwrap().iter();
    assert_eq!(pads.filter(|column| column["is_pad"] == true).count(), 0);

    run("a.wav", &["--text", " "]).fails_with(&["--text is empty", "a.wav"]);
    run("b.wav", &said).fails_with(&["b.wav"]);
    with(&["--depth", "9"]).fails_with(&["a.wav", "depth 9 is not below the 6 blocks"]);
    with(&["--solver", "exact", "--epsilon", "0.1"]).fails_with(&["exact has no --epsilon"]);
    with(&["--epsilon=-1"]).fails_with(&["solver.epsilon is -1"]);
    with(&["--pad-mass", "2"]).fails_with(&["pad.share is 2"]);
    with(&["--pad", "<none>"]).fails_with(&["the pad \"<none>\"", "no such token"]);
    let text = format!("{}/../../weights/language_model", env!("CARGO_MANIFEST_DIR"));
    sandhi(dir, &[&["inspect", "transport", &text, "a.wav"], &said[..]].concat())
        .fails_with(&["a text model", "expected a connector"]);
}

/// Where the speech of a model that merges every pair lies among the embeddings.
fn geometry(dir: &Path, model: &str) {
    let run = |more: &[&str]| {
        let args =
            ["inspect", "geometry", model, "--domains", "tempo,texts", "--n", "3", "--quiet"];
        sandhi(dir, &[&args[..], more].concat())
    };
    let found = run(&["--json"]).json();
    assert_eq!(found["pad"], "-");
    let rows = found["rows"].as_array().unwrap();
    let places: Vec<String> =
        rows.iter().map(|row| format!("{} {}", row["domain"], row["language"])).collect();
    let expected: Vec<String> = [("tempo", "\"en\""), ("tempo", "\"de\""), ("tempo", "\"es\"")]
        .into_iter()
        .chain([("texts", "\"en\""), ("texts", "\"de\""), ("texts", "\"es\"")])
        .chain([("tempo", "null"), ("texts", "null")])
        .map(|(domain, language)| format!("\"{domain}\" {language}"))
        .collect();
    assert_eq!(places, expected);
    for row in rows {
        let number = |part: &str, name: &str| row[part][name].as_f64().unwrap();
        let n = if row["language"].is_null() { 9 } else { 3 };
        assert_eq!((&row["n_utterances"], &row["n_left_out"]), (&n.into(), &0.into()), "{row}");
        for (part, name) in [("content", "distance"), ("pauses", "distance")] {
            assert!((0.0..=2.0).contains(&number(part, name)), "{row}");
        }
        for name in ["right_of_table", "right_of_transcript"] {
            assert!((0.0..=1.0).contains(&number("content", name)), "{row}");
        }
        assert!(number("content", "right_of_table") <= number("content", "right_of_transcript"));
        let vectors = number("content", "n") + number("pauses", "n");
        let [before, after] = ["vectors", "given"].map(|name| row[name].as_f64().unwrap());
        assert!((vectors - before * f64::from(n)).abs() < 1e-6, "{row}");
        // Pairs became one, and a last vector may be alone.
        assert!(after >= 0.5 * before && after <= 0.5 * before + 0.5, "{row}");
    }
    let pass = &found["prompt_pass"];
    assert!(pass["rows"].as_u64() > pass["rows_given"].as_u64(), "{pass}");
    assert!(pass["compressed_s"].as_f64() > Some(0.0), "{pass}");

    let table = run(&[]).works();
    assert!(table.contains("the pad is \"-\"") && table.contains("reading 3 prompts"), "{table}");
    assert_eq!(table.lines().filter(|line| line.contains("  all  ")).count(), 2, "{table}");
    run(&["--pad", "<none>"]).fails_with(&["the pad \"<none>\"", "no such token"]);
    run(&["--domains", "moon"]).fails_with(&["unknown domain \"moon\"", "base, voices"]);
    let text = format!("{}/../../weights/language_model", env!("CARGO_MANIFEST_DIR"));
    sandhi(dir, &["inspect", "geometry", &text])
        .fails_with(&["a text model", "expected a connector"]);
    sandhi(dir, &["inspect", "geometry", "none"]).fails_with(&["none"]);
}

#[test]
fn what_cannot_be_is_refused_before_training() {
    let dir = tempfile::tempdir().unwrap();
    let foundation = format!("foundation={}/../../weights", env!("CARGO_MANIFEST_DIR"));
    let (recipe, text) = (recipe("smoke/otreg"), recipe("smoke/language_model"));
    let refused = |recipe: &str, set: &[&str], parts: &[&str]| {
        let mut args = vec!["plan", recipe, "--path", &foundation];
        args.extend(set.iter().flat_map(|set| ["--set", set]));
        sandhi(dir.path(), &args).fails_with(parts);
    };
    let of = |set: &str, parts: &[&str]| {
        let set = format!("stage.1.loss.transport.{set}");
        refused(&recipe, &[&set], &[&["stage[1].loss.transport"], parts].concat());
    };
    of("weight=-1", &["weight is -1, expected a number of at least 0"]);
    of("solver={ kind = \"newton\", epsilon = 0 }", &["solver.epsilon is 0, expected"]);
    of("solver={ kind = \"unbalanced\", epsilon = 0.1, tau = 0 }", &["solver.tau is 0"]);
    of("solver={ kind = \"sinkhorm\" }", &["unknown variant `sinkhorm`"]);
    of("solver={ kind = \"monotone\" }", &["merge_targets", "order decide"]);
    of("gradient=\"detached\"", &["sparsity_weight has no gradient"]);
    of("order_weight=2", &["merge_targets puts equal tokens together"]);
    of("merge_targets=2", &["merge_targets is 2, expected a cosine"]);
    of("pad={ share = 1.5 }", &["pad.share is 1.5, expected 0 to below 1"]);
    refused(
        &recipe,
        &["stage.1.trainable=[\"*\", \"!language_model\"]"],
        &["stage[1].loss.transport.pad", "no stage trains"],
    );
    of("depths=[]", &["depths is empty"]);
    of("depths=[1, 1]", &["has one twice"]);
    of("depths=[0, 6]", &["6 is not below the 6 blocks"]);
    refused(
        &recipe,
        &["model.pad_token=<pad>"],
        &["model.pad_token", "\"<pad>\" is not a token of"],
    );
    refused(&recipe, &["stage.1.compression.drop=3"], &["stage[1].compression", "drop is 3"]);
    refused(&recipe, &["stage.1.trainable=[\"connector\"]"], &["no \"ctc_head\""]);
    refused(
        &text,
        &["stage.0.compression.merge=0.5"],
        &["stage[0].compression", "connector models"],
    );
    refused(&text, &["stage.0.loss.token_ctc=1"], &["stage[0].loss.token_ctc", "connector models"]);
    let without = fs::read_to_string(&recipe).unwrap().replace("pad_token = \"-\"", "");
    fs::write(dir.path().join("without.toml"), without).unwrap();
    refused("without.toml", &[], &["model.pad_token", "stage[1] draws speech to it"]);
}

#[test]
fn recipes_on_people_s_voices_lack_nothing_but_their_data() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["an4_base", "an4_otreg"] {
        let recipe = recipe(&format!("real/otreg/{name}"));
        let ran =
            sandhi(dir.path(), &["plan", &recipe, "--path", "an4=none", "--path", "bases=no"]);
        ran.fails_with(&[
            "model.encoder.path",
            "model.language_model.path",
            "stage[1].data[0].path",
        ]);
        let problems: Vec<&str> = ran.err.lines().filter(|line| line.starts_with("  - ")).collect();
        assert!(problems.iter().all(|line| line.contains("does not exist")), "{problems:?}");
    }
}
