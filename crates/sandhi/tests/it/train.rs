//! Training as a user meets it: real processes, stopped and killed, resumed, and the models used.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::sandhi;

fn recipe(name: &str) -> String {
    format!("{}/../../recipes/smoke/{name}.toml", env!("CARGO_MANIFEST_DIR"))
}

/// Every step's stage, number and loss.
fn losses(run: &Path) -> Vec<(String, u64, f64)> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let record = |line| serde_json::from_str::<Value>(line).ok();
    let step = |r: Value| {
        Some((r["stage"].as_str()?.to_owned(), r["step"].as_u64()?, r["loss"].as_f64()?))
    };
    text.lines().filter_map(record).filter_map(step).collect()
}

fn spawn(dir: &Path, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sandhi"))
        .current_dir(dir)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts")
}

/// Text of the smoke recipe, with so many steps.
fn args<'a>(recipe: &'a str, out: &'a str) -> Vec<&'a str> {
    vec![
        "train",
        recipe,
        "--set",
        "stage.0.steps=60",
        "--set",
        "stage.0.checkpoint_every=4",
        "--set",
        "stage.0.eval_every=0",
        "--out",
        out,
        "--quiet",
    ]
}

#[test]
fn a_run_killed_at_random_moments_has_the_same_losses() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe("language_model");
    sandhi(dir.path(), &args(&recipe, "whole")).works();
    let whole = losses(&dir.path().join("whole"));
    assert_eq!(whole.len(), 60);

    // Waits follow from a fixed sequence; what they hit depends on the machine.
    let mut wait_ms = 7_u64;
    let mut n_kills = 0;
    let begin = Instant::now();
    loop {
        let mut args = args(&recipe, "killed");
        // Nothing is there to resume until the first file is.
        if dir.path().join("killed/recipe.json").exists() {
            args.push("--resume");
        }
        let mut child = spawn(dir.path(), &args);
        wait_ms = wait_ms * 37 % 257;
        // The later, the longer, so that a slow machine gets through as well.
        let patience = Duration::from_millis(80 + wait_ms * (1 + n_kills / 4));
        thread::sleep(patience);
        match child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success(), "after {n_kills} kills: {status}");
                break;
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                n_kills += 1;
            }
        }
        assert!(begin.elapsed() < Duration::from_secs(300), "no progress in {n_kills} attempts");
    }
    assert!(n_kills >= 2, "the run was over after {n_kills} kills; make it longer");
    assert_eq!(losses(&dir.path().join("killed")), whole);
    let weights = |run: &str| {
        fs::read(dir.path().join(run).join("model/language_model.safetensors")).unwrap()
    };
    assert!(weights("killed") == weights("whole"), "other weights after {n_kills} kills");
    // Nothing half-written stays behind.
    for folder in ["killed", "killed/checkpoints", "killed/model"] {
        for entry in fs::read_dir(dir.path().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            assert!(path.extension().is_none_or(|e| e != "partial"), "{}", path.display());
        }
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe("language_model");
    let mut long = args(&recipe, "run");
    long[3] = "stage.0.steps=100000";
    let child = Command::new(env!("CARGO_BIN_EXE_sandhi"))
        .current_dir(dir.path())
        .args(&long)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while losses(&dir.path().join("run")).is_empty() {
        thread::sleep(Duration::from_millis(50));
        assert!(begin.elapsed() < Duration::from_secs(120), "no step was taken");
    }
    let interrupt = ["-INT", &child.id().to_string()].map(str::to_owned);
    assert!(Command::new("kill").args(interrupt).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("--resume") && err.contains("--out run"), "{err}");
    // It was saved after its last step, not at the last checkpoint.
    let steps = losses(&dir.path().join("run")).len();
    let name = format!("step-{steps:06}");
    assert!(dir.path().join("run/checkpoints").join(&name).exists(), "no {name}: {err}");
}

/// An encoder in Whisper's layout takes at most 30 s, and says so.
#[test]
fn an_encoder_in_whisper_s_layout_is_trained_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe("whisper_encoder");
    sandhi(dir.path(), &["train", &recipe, "--out", "run", "--quiet"]).works();
    assert!(losses(&dir.path().join("run")).iter().all(|(_, _, loss)| loss.is_finite()));
    super::sine(&dir.path().join("a.wav"), 2.0);
    sandhi(dir.path(), &["transcribe", "run/model", "a.wav"]).works();
    let short =
        ["train", &recipe, "--out", "short", "--quiet", "--set", "model.encoder.max_frames=40"];
    sandhi(dir.path(), &short).fails_with(&["the encoder takes at most"]);
}

/// Published checkpoints under the connector's recipe: loaded, trained on, named in the model and found again.
#[test]
fn a_connector_is_trained_on_a_loaded_pair() {
    let dir = tempfile::tempdir().unwrap();
    let at = |file: &str| dir.path().join(file);
    let run = |args: &[&str]| sandhi(dir.path(), args);
    // Without norms over heads, biases and windows it is a Llama.
    let llama = "model.language_model={ d_model = 16, n_layers = 2, n_heads = 2, n_kv_heads = 1, \
                 d_ff = 32, tie_embeddings = true }";
    run(&["train", &recipe("language_model"), "--out", "lm", "--quiet", "--set", llama]).works();
    run(&["train", &recipe("whisper_encoder"), "--out", "ears", "--quiet"]).works();
    // Each is a page; what is no connector shows no utterances.
    // Of so small an encoder Whisper's positions, which are never learned, are most.
    let pages = [("lm", "language model", "<strong>100.0"), ("ears", "CTC head", "<strong>23.3")];
    for (name, part, trained) in pages {
        run(&["report", name]).works();
        let page = fs::read_to_string(at(&format!("{name}/report.html"))).unwrap();
        for part in [part, "Loss of stage", trained] {
            assert!(page.contains(part), "{name}: {part} is not in {page}");
        }
        assert!(!page.contains("<audio"), "{name}");
        run(&["report", name, "--manifest", "x"]).fails_with(&["--manifest", "only connectors"]);
    }
    run(&["export", "lm/model", "--out", "llama"]).works();
    run(&["export", "ears/model", "--out", "whisper"]).works();
    let json =
        |file: &str| -> Value { serde_json::from_slice(&fs::read(at(file)).unwrap()).unwrap() };
    assert_eq!(json("llama/config.json")["model_type"], "llama");
    assert_eq!(json("whisper/config.json")["model_type"], "whisper");

    let path = format!("smoke={}", dir.path().display());
    let foreign = recipe("hugging_face");
    run(&["plan", &foreign, "--path", &path]).works();
    let args = ["train", &foreign, "--out", "slm", "--quiet", "--path", &path];
    let trained = run(&args);
    // Of all tasks it does those that it can.
    assert_eq!(trained.err.matches("biasing_1000.base is left out").count(), 1, "{}", trained.err);
    trained.works();
    assert_eq!(losses(&at("slm")).len(), 6);
    // From our own directories the same things are computed: the same losses, to the last bit.
    fs::create_dir(at("ours")).unwrap();
    fs::rename(at("lm"), at("ours/smoke_lm")).unwrap();
    fs::rename(at("ears"), at("ours/smoke_encoder")).unwrap();
    let ours = format!("smoke={}", at("ours").display());
    run(&["train", &recipe("slm"), "--out", "own", "--quiet", "--path", &ours]).works();
    assert_eq!(losses(&at("slm")), losses(&at("own")));

    // The encoder is what was published and is named; the last stage has trained the language model.
    let spec = json("slm/model/model.json");
    assert_eq!(spec["speech"]["origin"]["path"], at("whisper").display().to_string());
    assert!(spec["text"].get("origin").is_none(), "{spec}");
    assert!(!at("slm/model/encoder.safetensors").exists());
    assert!(at("slm/model/language_model.safetensors").exists());
    assert_eq!(json("slm/model/recipe.json")["name"], "smoke_hugging_face");
    assert_eq!(json("slm/model/plan.json")["name"], "smoke_hugging_face");
    // An encoder without a head has no cascade.
    let results = json("slm/results.json");
    assert!(results["asr"]["base"]["wer"]["value"].is_f64());
    assert!(results["asr"]["base"].get("wer_cascade").is_none());
    run(&["report", "slm"]).works();
    let page = fs::read_to_string(at("slm/report.html")).unwrap();
    // Its answers, that is; the legend names all three.
    assert!(page.contains("<dt class=\"k text\"") && !page.contains("<dt class=\"k cascade\""));
    // What needs one is refused where it is named, before anything is trained.
    let refusal = ["task biasing_1000", "no CTC head"];
    run(&["eval", "slm/model", "--out", "e", "--tasks", "biasing_1000", "--n", "2", "--quiet"])
        .fails_with(&refusal);
    let named = ["train", &foreign, "--out", "n", "--quiet", "--path", &path, "--set"];
    run(&[&named[..], &["eval.tasks=['asr', 'biasing_1000']"]].concat()).fails_with(&refusal);
    assert!(losses(&at("n")).is_empty());

    // In use; and whole, when what was published is gone.
    super::sine(&at("a.wav"), 2.0);
    let said = run(&["transcribe", "slm/model", "a.wav"]).works();
    run(&["pack", "slm/model", "--out", "whole", "--f32"]).works();
    fs::rename(at("whisper"), at("gone")).unwrap();
    run(&["transcribe", "slm/model", "a.wav"]).fails_with(&["encoder", "whisper", "config.json"]);
    assert_eq!(run(&["transcribe", "whole", "a.wav"]).works(), said);
    // Other weights under the same name are noticed.
    run(&["train", &recipe("whisper_encoder"), "--out", "b", "--quiet", "--set", "seed=2"]).works();
    run(&["export", "b/model", "--out", "whisper"]).works();
    run(&["transcribe", "slm/model", "a.wav"]).fails_with(&["other weights", "whisper"]);
}

/// Branches beside 16-bit weights of a published base: the base is named, the branches are kept, and what is loaded
/// again is what was trained.
#[test]
fn branches_on_a_published_base_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let at = |file: &str| dir.path().join(file);
    let run = |args: &[&str]| sandhi(dir.path(), args);
    run(&["train", &recipe("language_model"), "--out", "lm", "--quiet"]).works();
    run(&["train", &recipe("whisper_encoder"), "--out", "ears", "--quiet"]).works();
    run(&["export", "lm/model", "--out", "llama"]).works();
    run(&["export", "ears/model", "--out", "whisper"]).works();
    let path = format!("smoke={}", dir.path().display());
    let foreign = recipe("hugging_face");
    let train = |out: &str, trainable: &str| {
        let base =
            "model.language_model={ from = 'hugging_face', path = '$smoke/llama', dtype = 'bf16' }";
        let lora = "model.lora={ rank = 2, alpha = 4, targets = ['language_model.*.q_proj'] }";
        let stage = format!("stage.1.trainable={trainable}");
        let set = ["--set", base, "--set", lora, "--set", &stage];
        let args = ["train", &foreign, "--out", out, "--quiet", "--path", &path];
        run(&[&args[..], &set].concat())
    };
    train("no", "['language_model.model.layers']").fails_with(&["bf16", "stage[1].trainable"]);
    train("slm", "['connector', '*lora_*']").works();
    let json =
        |file: &str| -> Value { serde_json::from_slice(&fs::read(at(file)).unwrap()).unwrap() };
    let spec = json("slm/model/model.json");
    assert_eq!(spec["text"]["origin"]["path"], at("llama").display().to_string());
    assert_eq!(spec["text"]["dtype"], "bf16");
    assert!(at("slm/model/lora.safetensors").exists());
    assert!(!at("slm/model/language_model.safetensors").exists());

    super::sine(&at("a.wav"), 2.0);
    let said = run(&["transcribe", "slm/model", "a.wav"]).works();
    let again = ["--tasks", "continuation", "--domains", "base", "--n", "2", "--quiet"];
    run(&[&["eval", "slm/model", "--out", "again"], &again[..]].concat()).works();
    let loss = |file: &str| json(file)["continuation"]["base"]["loss_per_word"]["value"].clone();
    assert_eq!(loss("again/results.json"), loss("slm/results.json"));
    // The branches as PEFT has them, with the base's place; and a run upon them, folded in.
    run(&["export", "slm/model", "--lora-only", "--out", "adapter"]).works();
    let about = json("adapter/adapter_config.json");
    assert_eq!(about["base_model_name_or_path"], at("llama").display().to_string());
    let upon = "model.language_model={ from = 'hugging_face', path = '$smoke/llama', adapter = '$smoke/adapter' }";
    let args = ["train", &foreign, "--out", "upon", "--quiet", "--path", &path, "--set", upon];
    run(&args).works();
    assert!(json("upon/model/model.json")["text"].get("origin").is_none());
    assert!(at("upon/model/language_model.safetensors").exists());
    run(&["plan", &foreign, "--path", &path, "--set", &upon.replace("/adapter'", "/none'")])
        .fails_with(&["model.language_model.adapter", "none does not exist"]);

    run(&["pack", "slm/model", "--out", "whole", "--f32"]).works();
    fs::rename(at("llama"), at("gone")).unwrap();
    run(&["transcribe", "slm/model", "a.wav"]).fails_with(&["language model", "llama"]);
    assert_eq!(run(&["transcribe", "whole", "a.wav"]).works(), said);
}

/// An encoder that begins with samples; published heads are of its kind.
#[test]
fn an_encoder_over_samples_is_trained_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe("wav2vec2_encoder");
    sandhi(dir.path(), &["train", &recipe, "--out", "run", "--quiet"]).works();
    assert!(losses(&dir.path().join("run")).iter().all(|(_, _, loss)| loss.is_finite()));
    super::sine(&dir.path().join("a.wav"), 2.0);
    sandhi(dir.path(), &["transcribe", "run/model", "a.wav"]).works();
    let masked = ["plan", &recipe, "--set", "stage.0.spec_augment.n_time_masks=1"];
    sandhi(dir.path(), &masked)
        .fails_with(&["stage[0].spec_augment", "the encoder hears a waveform"]);
}

/// The three smoke recipes one after the other, and the models they make in use.
#[test]
fn encoder_language_model_and_adapter_work_from_end_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let at = |file: &str| dir.path().join(file);
    for (name, out) in
        [("encoder", "smoke_encoder"), ("language_model", "smoke_lm"), ("slm", "smoke_slm")]
    {
        let (recipe, path) = (recipe(name), format!("smoke={}", dir.path().display()));
        let args = ["train", &recipe, "--out", out, "--path", &path, "--quiet"];
        sandhi(dir.path(), &args).works();
        assert!(at(out).join("model/model.json").exists());
        assert!(losses(&at(out)).iter().all(|(_, _, loss)| loss.is_finite()));
    }
    // Both stages of the encoder, then both of the adapter, every step once.
    let steps = |run: &str| {
        losses(&at(run))
            .iter()
            .map(|(stage, step, _)| format!("{stage} {step}"))
            .collect::<Vec<_>>()
    };
    let numbered = |stage: &str, n: u64| (1..=n).map(move |i| format!("{stage} {i}")).collect();
    let both = |a: Vec<String>, b: Vec<String>| [a, b].concat();
    assert_eq!(steps("smoke_encoder"), both(numbered("align", 3), numbered("ctc", 4)));
    let adapter = both(numbered("adapter", 4), numbered("language_model_too", 2));
    assert_eq!(steps("smoke_slm"), adapter);
    let metrics = fs::read_to_string(at("smoke_slm/metrics.jsonl")).unwrap();
    assert!(metrics.contains("dev_loss_mismatched"), "the listening gap is missing");

    // Every task has a number, from speech, from the transcript and through the cascade.
    let results: Value =
        serde_json::from_slice(&fs::read(at("smoke_slm/results.json")).unwrap()).unwrap();
    for (task, metric) in [
        ("asr", "wer"),
        ("st_en_de", "bleu"),
        ("continuation", "loss_per_second"),
        ("facts", "accuracy"),
    ] {
        for suffix in ["", "_text", "_cascade"] {
            let value = &results[task]["base"][format!("{metric}{suffix}")]["value"];
            assert!(value.is_f64(), "{task}.base.{metric}{suffix} is {value}");
        }
    }

    // In use: sound of 30 seconds in passages, a question, other formats, a second evaluation.
    super::sine(&at("long.wav"), 30.0);
    let line = sandhi(dir.path(), &["transcribe", "smoke_slm/model", "long.wav", "--json"]).json();
    let passages = line["passages"].as_array().unwrap();
    assert!(passages.len() >= 3, "{line}");
    assert_eq!(passages[0]["start_s"], 0.0);
    assert_eq!(passages[passages.len() - 1]["end_s"], 30.0);
    for pair in passages.windows(2) {
        assert_eq!(pair[0]["end_s"], pair[1]["start_s"]);
    }
    sandhi(dir.path(), &["transcribe", "smoke_encoder/model", "long.wav"]).works();
    let question = ["ask", "smoke_slm/model", "long.wav", "--instruction", "What is said?"];
    sandhi(dir.path(), &question).works();
    sandhi(dir.path(), &["transcribe", "smoke_lm/model", "long.wav"])
        .fails_with(&["a text model hears nothing"]);
    sandhi(dir.path(), &["pack", "smoke_slm/model", "--out", "small"]).works();
    let eval = [
        "eval",
        "small",
        "--out",
        "again",
        "--tasks",
        "asr",
        "--domains",
        "channel",
        "--n",
        "2",
        "--quiet",
    ];
    sandhi(dir.path(), &eval).works();
    assert!(at("again/predictions/asr.channel.jsonl").exists());

    // Items of other people, heard, read and what cannot be.
    let items = r#"{"id": "1", "audio": "long.wav", "context": "Anna ran", "endings": ["far.", "red."], "right": 0}"#;
    fs::write(at("items.jsonl"), items).unwrap();
    let choices = ["--choices", "items.jsonl", "--sides", "s2t,t2t,s2s", "--quiet", "--out", "c"];
    let printed = sandhi(dir.path(), &[&["eval", "small"], &choices[..]].concat()).works();
    for part in
        ["n/a  the model cannot speak", "S→T, plain, 0-shot, sum; joint", "accuracy_per_token_text"]
    {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
    assert!(at("c/predictions/items.recorded.jsonl").exists());
    let printed = sandhi(dir.path(), &[&["eval", "smoke_lm/model"], &choices[..]].concat()).works();
    assert!(printed.contains("n/a  the model cannot hear"), "{printed}");
    fs::write(at("items.jsonl"), items.replace("0}", "2}")).unwrap();
    sandhi(dir.path(), &[&["eval", "small"], &choices[..]].concat())
        .fails_with(&["items.jsonl:1: found `right` = 2, expected the index of one of 2 endings"]);
}

#[test]
fn branches_learn_inside_a_frozen_model_of_16_bits() {
    let dir = tempfile::tempdir().unwrap();
    let weights = format!("{}/../../weights", env!("CARGO_MANIFEST_DIR"));
    let base = |part: &str, dtype: &str| {
        format!(
            "model.{part}={{ from = \"directory\", path = \"{weights}/{part}\", dtype = \"{dtype}\" }}"
        )
    };
    let sets = [
        base("encoder", "f16"),
        base("language_model", "bf16"),
        "model.lora={ rank = 2, alpha = 4, targets = [\"language_model.*.q_proj\"] }".to_owned(),
        "stage.0.trainable=[\"connector\", \"*lora_*\"]".to_owned(),
        "stage.1.trainable=[\"*lora_*\", \"!encoder\"]".to_owned(),
        "stage.0.gradient_checkpointing=true".to_owned(),
        "stage.0.optimizer.lr=0.01".to_owned(),
    ];
    let recipe = recipe("slm");
    let mut args = vec!["train", &recipe, "--out", "run", "--path", "smoke=.", "--quiet"];
    args.extend(sets.iter().flat_map(|set| ["--set", set.as_str()]));
    sandhi(dir.path(), &args).works();
    assert_eq!(losses(&dir.path().join("run")).len(), 6);
    assert!(dir.path().join("run/model/lora.safetensors").exists());

    let export =
        |more: &[&str]| sandhi(dir.path(), &[&["export", "run/model", "--out"][..], more].concat());
    export(&["plain"]).fails_with(&["--merge-lora", "--lora-only"]);
    export(&["adapter", "--lora-only", "--base", "a/base"]).works();
    export(&["merged", "--merge-lora"]).works();
    for file in ["adapter/adapter_config.json", "merged/config.json"] {
        assert!(dir.path().join(file).exists(), "{file}");
    }
    // What was written alone goes onto the model that it was trained beside.
    let base = format!("{weights}/language_model");
    let onto = ["export", &base, "--out", "again", "--adapter", "adapter", "--merge-lora"];
    sandhi(dir.path(), &onto).works();

    let mut args = vec!["plan", &recipe, "--path", "smoke=."];
    args.extend(sets.iter().flat_map(|set| ["--set", set.as_str()]));
    assert!(sandhi(dir.path(), &args).works().contains("lora"));
    args.extend(["--set", "stage.0.trainable=[\"language_model\"]"]);
    sandhi(dir.path(), &args).fails_with(&["held in bf16", "stage[0].trainable"]);
}
