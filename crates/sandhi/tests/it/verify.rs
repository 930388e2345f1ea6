use std::path::{Path, PathBuf};

use super::sandhi;

/// A golden checkpoint, with `verify.safetensors` as tools/reference.py wrote it.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandhi-lab/tests/golden").join(name)
}

#[test]
fn a_published_checkpoint_is_held_against_its_reference() {
    let dir = tempfile::tempdir().unwrap();
    let run = |model: &str, reference: &str, more: &[&str]| {
        let model = golden(model).display().to_string();
        let reference = golden(reference).join("verify.safetensors").display().to_string();
        let args = ["verify", "--model", &model, "--reference", &reference];
        sandhi(dir.path(), &[&args[..], more].concat())
    };
    let (llama, whisper) = ("language_models/llama3", "speech_encoders/whisper");
    let found = run(llama, llama, &["--json"]).json();
    assert_eq!(found[0]["output"], "logits");
    assert_eq!(found[1]["output"], "last_hidden_state");
    // The second sequence is padded to twice its length.
    assert_eq!(found[0]["n_values"], (32 + 16) * 80);
    let text = run(whisper, whisper, &[]).works();
    assert!(text.contains("last_hidden_state") && text.contains("432 values"), "{text}");
    let wrong = run("language_models/qwen3", llama, &[]);
    assert!(wrong.code == 2 && wrong.err.contains("logits differs by"), "{}", wrong.err);
    run(whisper, llama, &[]).fails_with(&["verify.safetensors", "no input_features"]);
    run(llama, llama, &["--tolerance", "0"]).fails_with(&["--tolerance is 0"]);
    run("language_models/none", llama, &[]).fails_with(&["config.json"]);
}
