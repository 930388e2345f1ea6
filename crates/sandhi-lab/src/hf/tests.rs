use std::path::PathBuf;

use indexmap::IndexMap;
use sandhi_nn::{
    ops,
    ragged::{Offsets, Ragged},
    transformer::Dropout,
    weights::{host, to_autodiff},
};

use super::*;
use crate::{
    checkpoint::{Dtype, read_tensors, write_tensors},
    generate::{Decoding, generate},
    model::pack::Segment,
    tensor::HostTensor,
};

const FAMILIES: [&str; 7] =
    ["llama2", "llama3", "llama_linear", "mistral", "qwen2", "qwen3", "smollm3"];

fn golden(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/language_models").join(family)
}

/// What transformers made of a family, and the model.
struct Golden {
    model: LanguageModel,
    reference: IndexMap<String, HostTensor>,
    /// Whole numbers, which the reference holds as such.
    sequences: Vec<Vec<u32>>,
    greedy: Vec<Vec<u32>>,
}

impl Golden {
    fn load(family: &str) -> Self {
        let dir = golden(family);
        let bytes = std::fs::read(dir.join("reference.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut reference = IndexMap::new();
        let mut ids: IndexMap<String, Vec<u32>> = IndexMap::new();
        for (name, view) in file.tensors() {
            let data = view.data();
            if view.dtype() == safetensors::Dtype::I64 {
                let values = data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32);
                ids.insert(name, values.collect());
            } else {
                let values: Vec<f32> =
                    data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                reference.insert(name, HostTensor::new(view.shape(), values));
            }
        }
        let numbered = |what: &str| (0..2).map(|i| ids[&format!("{what}.{i}")].clone()).collect();
        Self {
            model: LanguageModel::load(&dir, &Device::flex()).unwrap(),
            sequences: numbered("input_ids"),
            greedy: numbered("greedy"),
            reference,
        }
    }

    fn packed(&self, lm: &CausalLm, which: &[usize]) -> Ragged {
        let ids: Vec<u32> = which.iter().flat_map(|&i| self.sequences[i].clone()).collect();
        let lengths: Vec<usize> = which.iter().map(|&i| self.sequences[i].len()).collect();
        Ragged { values: lm.embed(&ids), offsets: Offsets::from_lengths(&lengths) }
    }
}

/// The largest difference, absolute or relative to values above 1.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max)
}

#[test]
fn hidden_states_and_logits_are_those_of_the_authors_code() {
    for family in FAMILIES {
        let golden = Golden::load(family);
        let lm = &golden.model.lm;
        let depths: Vec<usize> = (0..golden.model.config.transformer.n_layers).collect();
        for i in 0..golden.sequences.len() {
            let hidden = lm.forward(&golden.packed(lm, &[i]), &depths, Dropout::OFF);
            let check = |name: String, found: Tensor<2>| {
                let worst = difference(&host(found), &golden.reference[&name].values);
                assert!(worst < 1e-5, "{family} {name}: {worst:e}");
            };
            for (depth, found) in hidden.depths.into_iter().enumerate() {
                check(format!("hidden.{i}.{depth}"), found);
            }
            check(format!("hidden.{i}.{}", depths.len()), hidden.last.clone());
            check(format!("logits.{i}"), lm.logits(hidden.last));
        }
        // A batch of both gives the same bits as each alone.
        let all = host(lm.forward(&golden.packed(lm, &[0, 1]), &[], Dropout::OFF).last);
        let alone: Vec<f32> = [0, 1]
            .iter()
            .flat_map(|&i| host(lm.forward(&golden.packed(lm, &[i]), &[], Dropout::OFF).last))
            .collect();
        assert_eq!(all, alone, "{family}");
    }
}

#[test]
fn greedy_decoding_goes_on_as_the_authors_code_does() {
    for family in FAMILIES {
        let golden = Golden::load(family);
        let prompts: Vec<Vec<Segment>> =
            golden.sequences.iter().map(|ids| vec![Segment::Tokens(ids.clone())]).collect();
        let decoding = Decoding { max_tokens: golden.greedy[0].len(), ..Decoding::default() };
        let found = generate(&golden.model.lm, &prompts, None, u32::MAX, &decoding);
        let found: Vec<Vec<u32>> = found.into_iter().map(|answer| answer.ids).collect();
        assert_eq!(found, golden.greedy, "{family}");
    }
}

#[test]
fn gradients_are_those_of_the_authors_code() {
    for family in FAMILIES {
        let golden = Golden::load(family);
        let lm = to_autodiff(golden.model.lm.clone());
        let hidden = lm.forward(&golden.packed(&lm, &[0, 1]), &[], Dropout::OFF).last;
        let (mut rows, mut targets, mut start) = (Vec::new(), Vec::new(), 0);
        for ids in &golden.sequences {
            rows.extend((start..start + ids.len() - 1).map(|row| row as u32));
            targets.extend(&ids[1..]);
            start += ids.len();
        }
        let logits = lm.logits(ops::embedding(hidden, &rows));
        let n = targets.len();
        let loss = ops::cross_entropy(logits, &targets, &vec![1.0 / n as f32; n]);
        let gradients = burn::optim::GradientsParams::from_grads(loss.backward(), &lm);
        let mut n_checked = 0;
        weights::map_parameters(
            lm,
            &mut Check {
                family,
                gradients,
                reference: &golden.reference,
                n_checked: &mut n_checked,
            },
        );
        let n = golden.reference.keys().filter(|name| name.starts_with("gradient.")).count();
        assert_eq!(n_checked, n, "{family}");
    }
}

struct Check<'a> {
    family: &'a str,
    gradients: burn::optim::GradientsParams,
    reference: &'a IndexMap<String, HostTensor>,
    n_checked: &'a mut usize,
}

impl weights::ParameterMap for Check<'_> {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        param: burn::module::Param<Tensor<D>>,
    ) -> burn::module::Param<Tensor<D>> {
        let expected = &self.reference[&format!("gradient.{name}")];
        let gradient = self.gradients.remove::<D>(param.id).expect("every parameter learns");
        let dims = gradient.dims();
        let n: usize = dims.iter().product();
        // Linear weights are held transposed.
        let found = if D == 2 && expected.shape != dims.to_vec() || is_linear(name) {
            host(gradient.reshape([dims[0], n / dims[0]]).transpose())
        } else {
            host(gradient)
        };
        let worst = difference(&found, &expected.values);
        assert!(worst < 1e-5, "{} {name}: {worst:e}", self.family);
        *self.n_checked += 1;
        param
    }
}

/// Weights of linear layers, which the module holds as `[d_in, d_out]`.
fn is_linear(name: &str) -> bool {
    name.ends_with("_proj.weight") || name == "lm_head.weight"
}

/// A copy of a golden checkpoint to be damaged.
fn copy(family: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden(family)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn refused(dir: &Path, expected: &[&str]) {
    let error = LanguageModel::load(dir, &Device::flex()).unwrap_err().to_string();
    for part in expected {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

fn edit(path: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let mut value = read_json(path).unwrap();
    edit(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

#[test]
fn damaged_shards_and_indices_are_refused() {
    let index = "model.safetensors.index.json";
    let shard = "model-00002-of-00005.safetensors";
    let of = |change: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
        let dir = copy("llama3");
        edit(&dir.path().join(index), |value| change(value["weight_map"].as_object_mut().unwrap()));
        dir
    };

    let dir = copy("llama3");
    std::fs::remove_file(dir.path().join(shard)).unwrap();
    refused(dir.path(), &[index, shard, "not there"]);

    let dir = copy("llama3");
    let bytes = std::fs::read(dir.path().join(shard)).unwrap();
    std::fs::write(dir.path().join(shard), &bytes[..bytes.len() / 2]).unwrap();
    refused(dir.path(), &[shard, "not a safetensors file"]);

    let dir = of(&|map| map["model.norm.weight"] = "../../etc/passwd".into());
    refused(dir.path(), &[index, "model.norm.weight", "../../etc/passwd", "same directory"]);
    let dir = of(&|map| map["model.norm.weight"] = "/etc/passwd".into());
    refused(dir.path(), &["/etc/passwd", "same directory"]);
    let dir = of(&|map| map["model.norm.weight"] = "model-00001-of-00005.safetensors".into());
    refused(dir.path(), &["model.norm.weight is not in", "model-00001-of-00005.safetensors"]);
    let dir = of(&|map| drop(map.remove("model.norm.weight")));
    refused(dir.path(), &["model.norm.weight is not in the index"]);
    let dir = of(&|map| map.clear());
    refused(dir.path(), &[index, "names no tensor"]);

    let dir = copy("llama3");
    std::fs::write(dir.path().join(index), "{\"weight_map\": 3}").unwrap();
    refused(dir.path(), &[index]);

    let dir = tempfile::tempdir().unwrap();
    refused(dir.path(), &["config.json"]);
    std::fs::copy(golden("llama2").join("config.json"), dir.path().join("config.json")).unwrap();
    refused(dir.path(), &["no model.safetensors"]);
    std::fs::write(dir.path().join("pytorch_model.bin"), "code").unwrap();
    refused(dir.path(), &["pytorch_model.bin", "pickle"]);
}

#[test]
fn every_tensor_that_does_not_fit_is_listed() {
    let dir = copy("llama2");
    let path = dir.path().join("model.safetensors");
    let mut tensors = read_tensors(&path).unwrap();
    tensors.shift_remove("model.norm.weight").unwrap();
    tensors.insert("model.layers.0.extra".into(), HostTensor::new([1], vec![0.0]));
    tensors["lm_head.weight"] = HostTensor::new([2, 3], vec![0.0; 6]);
    write_tensors(&path, &tensors, Dtype::F32, &IndexMap::new()).unwrap();
    refused(dir.path(), &["model.norm.weight", "model.layers.0.extra", "lm_head.weight", "[2, 3]"]);
}

#[test]
fn a_tied_model_with_another_head_is_refused_and_a_copy_is_not() {
    let dir = copy("qwen2");
    let path = dir.path().join("model.safetensors");
    let mut tensors = read_tensors(&path).unwrap();
    let table = tensors["model.embed_tokens.weight"].clone();
    tensors.insert("lm_head.weight".into(), table);
    write_tensors(&path, &tensors, Dtype::F32, &IndexMap::new()).unwrap();
    LanguageModel::load(dir.path(), &Device::flex()).unwrap();
    tensors["lm_head.weight"].values[0] += 1.0;
    write_tensors(&path, &tensors, Dtype::F32, &IndexMap::new()).unwrap();
    refused(dir.path(), &["tie_word_embeddings", "lm_head.weight"]);
}

#[test]
fn configurations_that_would_compute_something_else_are_refused() {
    let cases: [(&str, serde_json::Value, &[&str]); 13] = [
        ("model_type", "gpt2".into(), &["model_type", "gpt2", "qwen2"]),
        ("model_type", serde_json::Value::Null, &["model_type is missing"]),
        ("hidden_size", "wide".into(), &["hidden_size", "wide", "whole number"]),
        ("hidden_size", serde_json::Value::Null, &["hidden_size is missing"]),
        ("num_hidden_layers", (-1).into(), &["num_hidden_layers is -1"]),
        ("num_attention_heads", 0.into(), &["config.json"]),
        ("hidden_act", "gelu".into(), &["hidden_act", "gelu", "silu"]),
        ("mlp_bias", true.into(), &["mlp_bias"]),
        (
            "rope_scaling",
            serde_json::json!({"rope_type": "yarn", "factor": 4.0}),
            &["yarn", "linear", "llama3"],
        ),
        ("rope_scaling", serde_json::json!({"type": "linear"}), &["factor is missing"]),
        ("rope_theta", (-1.0).into(), &["rope_theta is -1"]),
        ("quantization_config", serde_json::json!({"bits": 4}), &["quantization_config"]),
        ("vocab_size", 40.into(), &["model.embed_tokens.weight", "[80, 24]", "[40, 24]"]),
    ];
    for (field, value, expected) in cases {
        let dir = copy("llama2");
        edit(&dir.path().join("config.json"), |config| config[field] = value);
        refused(dir.path(), expected);
    }
    let dir = copy("llama2");
    std::fs::write(dir.path().join("config.json"), "{\"model_type\":").unwrap();
    refused(dir.path(), &["config.json", "not JSON"]);
    let dir = copy("mistral");
    edit(&dir.path().join("config.json"), |config| {
        config["layer_types"] = serde_json::json!(["full_attention", "sliding_attention"]);
    });
    refused(dir.path(), &["layer_types"]);
}
