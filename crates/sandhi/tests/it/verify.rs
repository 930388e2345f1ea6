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
    let (ctc, wavlm) = ("speech_encoders/wav2vec2_ctc", "speech_encoders/wavlm_large");
    let found = run(ctc, ctc, &["--json"]).json();
    // Of ten outputs three are no characters and have none here.
    assert_eq!((&found[0]["output"], &found[0]["n_values"]), (&"logits".into(), &(24 * 7).into()));
    assert_eq!(found[1]["output"], "last_hidden_state");
    // The second utterance is padded: 375 of 500 samples, so 74, 36 and 18 rows after each convolution.
    let found = run(wavlm, wavlm, &["--json"]).json();
    assert_eq!(found[0]["n_values"], (24 + 18) * 24);
    run("speech_encoders/hubert_base", wavlm, &[]).fails_with(&["group norm", "one length"]);
    run("speech_encoders/hubert_large", ctc, &[]).fails_with(&["logits", "no CTC head"]);
    run(wavlm, whisper, &[]).fails_with(&["no input_values", "input_features"]);
    let wrong = run("language_models/qwen3", llama, &[]);
    assert!(wrong.code == 2 && wrong.err.contains("logits differs by"), "{}", wrong.err);
    run(whisper, llama, &[]).fails_with(&["verify.safetensors", "no input_features"]);
    run(llama, llama, &["--tolerance", "0"]).fails_with(&["--tolerance is 0"]);
    run("language_models/none", llama, &[]).fails_with(&["config.json"]);
}

#[test]
fn an_exported_language_model_is_a_published_one() {
    let dir = tempfile::tempdir().unwrap();
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights");
    let [encoder, language_model] =
        ["encoder", "language_model"].map(|name| weights.join(name).display().to_string());
    let export = |args: &[&str]| sandhi(dir.path(), &[&["export"], args].concat());
    export(&[&language_model, "--out", "hf", "--f16"]).works();
    let files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    for file in files {
        assert!(dir.path().join("hf").join(file).exists(), "{file}");
    }
    // It loads: the reference is of a model with fewer tokens, so nothing but its shape is wrong.
    let reference = golden("language_models/llama3/verify.safetensors").display().to_string();
    let args = ["verify", "--model", "hf", "--reference", &reference];
    sandhi(dir.path(), &args).fails_with(&["logits has shape [2, 32, 80]"]);
    export(&[&language_model, "--out", "hf"]).fails_with(&["hf exists"]);
    export(&[&encoder, "--out", "no"]).fails_with(&["encoder", "Whisper's layout"]);
    assert!(!dir.path().join("no").exists());
}
