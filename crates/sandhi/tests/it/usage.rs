use std::path::Path;

use super::sandhi;

#[test]
fn devices_that_are_not_there_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let recipe =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/foundation/language_model.toml");
    let train = |device| sandhi(dir.path(), &["train", recipe, "--out", "run", "--device", device]);
    train("abacus").fails_with(&["abacus", "wgpu[:i]"]);
    train("cuda:x").fails_with(&["\"x\" is not an index"]);
    if !cfg!(feature = "cuda") {
        train("cuda:0").fails_with(&["cuda:0 was not built in", "--features cuda"]);
    }
    assert!(!dir.path().join("run").exists());
}

#[test]
fn the_doctor_says_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let findings = sandhi(dir.path(), &["doctor", "--json"]).json();
    let found = |name: &str| {
        let all = findings.as_array().unwrap();
        all.iter().find(|f| f["name"] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    assert_eq!(found("version")["found"], env!("CARGO_PKG_VERSION"));
    assert!(found("devices")["found"].as_str().unwrap().starts_with("cpu"));
    assert!(found("weights")["found"].as_str().unwrap().contains("language_model"));
    assert!(found("cache")["found"].as_str().unwrap().contains("writable"));
    assert!(["memory", "espeak-ng", "cpu"].into_iter().all(|name| found(name)["ok"].is_boolean()));
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "it leaves nothing behind");
    assert!(sandhi(dir.path(), &["doctor"]).works().contains("espeak-ng"));
}

#[test]
fn files_of_choices_are_measured_whole() {
    let eval = ["eval", "model", "--out", "out", "--choices", "items.jsonl", "--n", "3"];
    sandhi(Path::new("."), &eval).fails_with(&["--choices", "cannot be used with", "--n"]);
}

#[test]
fn completions_are_for_every_command() {
    let script = sandhi(Path::new("."), &["completions", "bash"]).works();
    for command in ["train", "plan", "data", "score", "doctor"] {
        assert!(script.contains(command), "{command}");
    }
}

#[test]
fn a_table_needs_runs() {
    let dir = tempfile::tempdir().unwrap();
    sandhi(dir.path(), &["table", "."]).fails_with(&["no results.json"]);
}

#[test]
fn a_closed_pipe_is_no_error() {
    use std::{
        io::Read,
        process::{Command, Stdio},
    };
    let mut child = Command::new(env!("CARGO_BIN_EXE_sandhi"))
        .args(["data", "microworld", "documents", "-n", "2000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(said, "");
}
