//! Models of the Hub from a cache; nothing here asks the network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Ran, sandhi};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache that holds a golden checkpoint as `hf:tiny/model`.
fn cache() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("hub/models--tiny--model");
    let snapshot = model.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(model.join("refs")).unwrap();
    fs::write(model.join("refs/main"), COMMIT).unwrap();
    for entry in fs::read_dir(golden()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), snapshot.join(entry.file_name())).unwrap();
    }
    let absent = model.join(".no_exist").join(COMMIT);
    fs::create_dir_all(&absent).unwrap();
    for name in [
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "preprocessor_config.json",
        "processor_config.json",
        "vocab.json",
        "special_tokens_map.json",
        "added_tokens.json",
    ] {
        fs::write(absent.join(name), "").unwrap();
    }
    (dir, snapshot)
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandhi"));
        for name in ["HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"] {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied()).current_dir(dir.path());
        let output = command.args(["download", "hf:tiny/model"]).args(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        Ran { code, out: text(output.stdout), err: text(output.stderr) }
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
