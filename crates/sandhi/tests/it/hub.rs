//! Models of the Hub from a cache; nothing here asks the network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sandhi_lab::hf::hub::EXTRAS;
use serde_json::Value;

use super::{Ran, sandhi, sine};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache that holds a golden checkpoint as `hf:tiny/model`.
fn cache() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = put(dir.path(), "model", &golden());
    (dir, snapshot)
}

/// Puts a directory into the cache `hub` as `hf:tiny/<name>`, and says of every other file that there is none.
fn put(dir: &Path, name: &str, from: &Path) -> PathBuf {
    let model = dir.join("hub").join(format!("models--tiny--{name}"));
    let [snapshot, absent] = ["snapshots", ".no_exist"].map(|part| model.join(part).join(COMMIT));
    for dir in [&snapshot, &absent, &model.join("refs")] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(model.join("refs/main"), COMMIT).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), snapshot.join(entry.file_name())).unwrap();
    }
    for name in EXTRAS.iter().filter(|name| !snapshot.join(name).exists()) {
        fs::write(absent.join(name), "").unwrap();
    }
    snapshot
}

/// Runs `sandhi` with these variables, and none of its own of the Hub.
fn with_variables(dir: &Path, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandhi"));
    for name in ["HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).current_dir(dir);
    let output = command.args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    Ran { code, out: text(output.stdout), err: text(output.stderr) }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandhi-lab/tests/golden/language_models/llama3")
}

#[test]
fn a_cached_model_is_found_without_a_network() {
    let (dir, snapshot) = cache();
    let run = |args: &[&str]| {
        let more = ["--hub-cache", "hub", "--offline"];
        sandhi(dir.path(), &[args, &more].concat())
    };
    let found = run(&["download", "hf:tiny/model"]).works();
    assert_eq!(dir.path().join(found.trim()), snapshot);
    let found = run(&["download", "hf:tiny/model", "--config", "--json"]).json();
    assert_eq!(found["model"], format!("hf:tiny/model@{COMMIT}"));
    let reference = golden().join("verify.safetensors").display().to_string();
    let verify = ["verify", "--model", "hf:tiny/model", "--reference", &reference, "--json"];
    assert_eq!(run(&verify).json()[0]["output"], "logits");
    run(&["download", "hf:tiny/other"]).fails_with(&["hf:tiny/other@main", "not in the cache hub"]);
    let wrong = run(&["download", "tiny/model"]);
    assert!(wrong.code == 2 && wrong.err.contains("expected hf:owner/name"), "{}", wrong.err);
    let absent = dir.path().join("hub/models--tiny--model/.no_exist").join(COMMIT);
    fs::remove_file(absent.join("tokenizer_config.json")).unwrap();
    let refusal = ["not complete", "may have tokenizer_config.json,", "without --offline"];
    run(&["download", "hf:tiny/model"]).fails_with(&refusal);
    fs::remove_file(snapshot.join("model-00004-of-00005.safetensors")).unwrap();
    run(&["download", "hf:tiny/model"]).fails_with(&["model-00004-of-00005.safetensors"]);
}

#[test]
fn the_environment_says_where_and_arguments_say_it_louder() {
    let (dir, _) = cache();
    let run = |variables: &[(&str, &str)], args: &[&str]| {
        let args = [&["download", "hf:tiny/model"], args].concat();
        with_variables(dir.path(), variables, &args)
    };
    let offline = ("HF_HUB_OFFLINE", "1");
    run(&[offline, ("HF_HOME", ".")], &[]).works();
    run(&[offline, ("HF_HOME", "elsewhere"), ("HF_HUB_CACHE", "hub")], &[]).works();
    run(&[offline, ("HF_HUB_CACHE", "elsewhere")], &["--hub-cache", "hub"]).works();
    run(&[offline, ("HF_HUB_CACHE", "elsewhere")], &[]).fails_with(&["the cache elsewhere"]);
    // Nobody listens on port 9 of this machine.
    let nowhere = ("HF_ENDPOINT", "http://127.0.0.1:9");
    run(&[nowhere, ("HF_HOME", ".")], &[]).fails_with(&["127.0.0.1:9", "cannot be reached"]);
    let endpoint = ["--hub-endpoint", "nowhere"];
    run(&[nowhere, ("HF_HOME", ".")], &endpoint).fails_with(&["\"nowhere\""]);
}

/// What is trained on models of the Hub names them with the commit, and finds them again in a cache alone.
#[test]
fn a_trained_model_names_its_bases_by_commit() {
    let dir = tempfile::tempdir().unwrap();
    let at = |file: &str| dir.path().join(file);
    let recipe =
        |name: &str| format!("{}/../../recipes/smoke/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let run = |args: &[&str]| sandhi(dir.path(), args);
    for (name, trained, exported) in
        [("language_model", "lm", "llama"), ("whisper_encoder", "ears", "whisper")]
    {
        run(&["train", &recipe(name), "--out", trained, "--quiet"]).works();
        run(&["export", &format!("{trained}/model"), "--out", exported]).works();
        put(dir.path(), exported, &at(exported));
        fs::remove_dir_all(at(exported)).unwrap();
    }
    // No cache but the one that is given, and no network.
    let run = |args: &[&str], more: &[&str]| {
        let variables = [("HF_HOME", "nowhere"), ("HF_HUB_OFFLINE", "1")];
        with_variables(dir.path(), &variables, &[args, more].concat())
    };
    let given = ["--hub-cache", "hub"];
    let recipe = recipe("hugging_face");
    let train = [
        "train",
        &recipe,
        "--set",
        "model.encoder={ from = 'hugging_face', path = 'hf:tiny/whisper' }",
        "--set",
        "model.language_model={ from = 'hugging_face', path = 'hf:tiny/llama@main' }",
        "--set",
        "stage.1.trainable=['connector']",
        "--quiet",
        "--out",
        "slm",
    ];
    run(&train, &[]).fails_with(&["hf:tiny/whisper@main", "not in the cache nowhere/hub"]);
    run(&train, &given).works();
    let spec: Value =
        serde_json::from_slice(&fs::read(at("slm/model/model.json")).unwrap()).unwrap();
    for (part, name) in [("speech", "whisper"), ("text", "llama")] {
        assert_eq!(spec[part]["origin"]["path"], format!("hf:tiny/{name}@{COMMIT}"));
    }
    for file in ["encoder.safetensors", "language_model.safetensors"] {
        assert!(!at("slm/model").join(file).exists(), "{file}");
    }

    sine(&at("a.wav"), 2.0);
    let transcribe = ["transcribe", "slm/model", "a.wav"];
    let said = run(&transcribe, &given).works();
    let missing = format!("hf:tiny/whisper@{COMMIT}");
    run(&transcribe, &[]).fails_with(&["encoder", &missing, "not in the cache nowhere/hub"]);
    // A branch that moves is another model; the commit is the one that was trained on.
    let other = COMMIT.replace('0', "f");
    for name in ["whisper", "llama"] {
        fs::write(at("hub").join(format!("models--tiny--{name}/refs/main")), &other).unwrap();
    }
    assert_eq!(run(&transcribe, &given).works(), said);
    run(&["pack", "slm/model", "--out", "whole", "--f32"], &given).works();
    assert_eq!(run(&["transcribe", "whole", "a.wav"], &[]).works(), said);
}
