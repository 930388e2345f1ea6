//! Adapters in PEFT's layout against what PEFT computes with them.

use sandhi_nn::lora::Linears;

use super::*;

fn adapter(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lora").join(name)
}

/// Adapters with the models below them.
const ADAPTERS: [(&str, &str); 2] = [("attention", "llama3"), ("all_linear", "qwen2")];

fn adapted(name: &str, family: &str, device: &Device) -> CausalLm {
    let mut lm = LanguageModel::load(&golden(family), device).unwrap().lm;
    load_adapter(&mut lm, &adapter(name)).unwrap();
    lm
}

fn logits(lm: &CausalLm, ids: &[u32]) -> Tensor<2> {
    let input = Ragged { values: lm.embed(ids), offsets: Offsets::from_lengths(&[ids.len()]) };
    lm.logits(lm.forward(&input, &[], Dropout::OFF).last)
}

#[test]
fn an_adapter_computes_what_it_does_in_peft() {
    for (name, family) in ADAPTERS {
        let mut lm = adapted(name, family, &Device::flex());
        let (reference, ids) = reference(&adapter(name));
        let ids = &ids["input_ids"];
        let worst = difference(&host(logits(&lm, ids)), &reference["logits"].values);
        assert!(worst < 1e-5, "{name}: {worst:e}");
        lora::merge(&mut lm);
        assert!(lora::describe(&lm).is_none());
        let worst = difference(&host(logits(&lm, ids)), &reference["merged"].values);
        assert!(worst < 1e-5, "{name} merged: {worst:e}");
    }
}

#[test]
fn gradients_of_branches_are_those_of_peft() {
    for (name, family) in ADAPTERS {
        let lm = adapted(name, family, &Device::flex());
        let lm = weights::set_trained(to_autodiff(lm), lora::is_lora);
        let (reference, ids) = reference(&adapter(name));
        let (input, targets) = (&ids["input_ids"], &ids["input_ids"][1..]);
        let logits = logits(&lm, &input[..targets.len()]);
        let sum = ops::cross_entropy(logits, targets, &vec![1.0; targets.len()]);
        let grads = (sum * (1.0 / targets.len() as f64)).backward();
        let mut n = 0;
        let mut lm = lm;
        for (layer, linear) in lm.linears() {
            assert!(linear.weight.val().grad(&grads).is_none(), "{layer} is frozen");
            let Some(branch) = &linear.lora else { continue };
            for (factor, value) in ["lora_A", "lora_B"].into_iter().zip(branch.factors()) {
                let expected =
                    &reference[&format!("gradient.base_model.model.{layer}.{factor}.weight")];
                let found = host(value.val().grad(&grads).unwrap().transpose());
                let worst = difference(&found, &expected.values);
                assert!(worst < 1e-5, "{name} {layer} {factor}: {worst:e}");
                n += 1;
            }
        }
        assert_eq!(n, reference.keys().filter(|key| key.starts_with("gradient.")).count());
    }
}

#[test]
fn an_adapter_survives_being_written_and_read() {
    let dir = tempfile::tempdir().unwrap();
    for (name, family) in ADAPTERS {
        let lm = adapted(name, family, &Device::flex());
        let out = dir.path().join(name);
        export_adapter(&lm, Some(&"hf:some/base@v1".parse().unwrap()), &out, Dtype::F32).unwrap();
        let names = |dir: &Path| -> Vec<(String, HostTensor)> {
            read_tensors(&dir.join("adapter_model.safetensors")).unwrap().into_iter().collect()
        };
        assert_eq!(names(&out), names(&adapter(name)));
        let config = read_json(&out.join("adapter_config.json")).unwrap();
        assert_eq!(config["base_model_name_or_path"], "some/base");
        if name == "attention" {
            assert_eq!(config["target_modules"], serde_json::json!(["q_proj", "v_proj"]));
        }
        let mut again = LanguageModel::load(&golden(family), &Device::flex()).unwrap().lm;
        load_adapter(&mut again, &out).unwrap();
        assert_eq!(lora::describe(&again), lora::describe(&lm));
        assert_eq!(weights::weights(&again), weights::weights(&lm));
        let error = export_adapter(&lm, None, &out, Dtype::F32).unwrap_err().to_string();
        assert!(error.contains("exists"), "{error}");
    }
}

/// Changes the configuration of an adapter and gives what loading it says.
fn refused(change: impl Fn(&mut serde_json::Value)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let from = adapter("attention");
    let mut config = read_json(&from.join("adapter_config.json")).unwrap();
    change(&mut config);
    std::fs::write(dir.path().join("adapter_config.json"), config.to_string()).unwrap();
    let tensors = "adapter_model.safetensors";
    std::fs::copy(from.join(tensors), dir.path().join(tensors)).unwrap();
    let mut lm = LanguageModel::load(&golden("llama3"), &Device::flex()).unwrap().lm;
    load_adapter(&mut lm, dir.path()).unwrap_err().to_string()
}

#[test]
fn what_an_adapter_asks_for_and_is_not_computed_is_refused() {
    let changes = [
        ("use_dora", serde_json::json!(true)),
        ("bias", serde_json::json!("all")),
        ("modules_to_save", serde_json::json!(["lm_head"])),
        ("rank_pattern", serde_json::json!({ "q_proj": 8 })),
        ("fan_in_fan_out", serde_json::json!(true)),
        ("layers_to_transform", serde_json::json!([1])),
        ("init_lora_weights", serde_json::json!("pissa")),
        ("peft_type", serde_json::json!("LOHA")),
        ("target_modules", serde_json::json!(".*q_proj")),
        ("target_modules", serde_json::json!(["c_attn"])),
        ("r", serde_json::json!(0)),
        ("r", serde_json::json!(-1)),
        ("lora_alpha", serde_json::json!("much")),
        ("something_new", serde_json::json!(1)),
    ];
    for (field, value) in changes {
        let error = refused(|config| config[field] = value.clone());
        // A rank of 0 is told as what a recipe calls it.
        let field = if value == 0 { "rank" } else { field };
        assert!(error.contains(field) && error.contains("adapter_config.json"), "{error}");
    }
}

#[test]
fn every_wrong_tensor_of_an_adapter_is_listed() {
    let error =
        refused(|config| config["target_modules"] = serde_json::json!(["q_proj", "k_proj"]));
    assert_eq!(error.matches("missing tensor").count(), 4, "{error}");
    assert_eq!(error.matches("left-over tensor").count(), 4, "{error}");
    assert!(error.contains("layers.0.self_attn.k_proj.lora_A.weight of shape [4, 24]"), "{error}");
    let error = refused(|config| config["r"] = serde_json::json!(1 << 30));
    assert_eq!(error.matches("the model expects").count(), 8, "{error}");
}

#[test]
fn a_second_adapter_is_refused() {
    let mut lm = adapted("attention", "llama3", &Device::flex());
    let error = load_adapter(&mut lm, &adapter("attention")).unwrap_err().to_string();
    assert!(error.contains("merge"), "{error}");
    let plain = LanguageModel::load(&golden("llama3"), &Device::flex()).unwrap().lm;
    let dir = tempfile::tempdir().unwrap();
    let error = export_adapter(&plain, None, &dir.path().join("a"), Dtype::F32).unwrap_err();
    assert!(matches!(error, Error::NoBranches));
}
