mod peft;

use std::path::PathBuf;

use indexmap::IndexMap;
use sandhi_nn::{
    lora, ops,
    ragged::{Offsets, Ragged},
    transformer::Dropout,
    weights::{host, to_autodiff},
};
use serde_json::Value;

use super::*;
use crate::{
    checkpoint::{Dtype, read_tensors, write_tensors},
    generate::{Decoding, generate},
    model::{pack::Segment, to_host},
    recipe::{PublishedEncoder, PublishedLanguageModel},
    tensor::HostTensor,
};

const FAMILIES: [&str; 7] =
    ["llama2", "llama3", "llama_linear", "mistral", "qwen2", "qwen3", "smollm3"];

fn golden(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/language_models").join(family)
}

/// Tensors of a reference: values, and whole numbers.
pub(super) fn reference(dir: &Path) -> (IndexMap<String, HostTensor>, IndexMap<String, Vec<u32>>) {
    let bytes = std::fs::read(dir.join("reference.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (mut values, mut ids) = (IndexMap::new(), IndexMap::new());
    for (name, view) in file.tensors() {
        let data = view.data();
        if view.dtype() == safetensors::Dtype::I64 {
            let found = data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32);
            ids.insert(name, found.collect());
        } else {
            let found: Vec<f32> =
                data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            values.insert(name, HostTensor::new(view.shape(), found));
        }
    }
    (values, ids)
}

/// What transformers made of a language model, and the model.
struct Golden {
    model: LanguageModel,
    reference: IndexMap<String, HostTensor>,
    sequences: Vec<Vec<u32>>,
    greedy: Vec<Vec<u32>>,
}

impl Golden {
    fn load(family: &str) -> Self {
        let dir = golden(family);
        let (reference, ids) = reference(&dir);
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
pub(super) fn difference(found: &[f32], expected: &[f32]) -> f32 {
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
        let found = generate(&golden.model.lm, &prompts, None, &[], &decoding);
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
        let expected = golden.reference.iter().filter_map(|(name, tensor)| {
            Some((name.strip_prefix("gradient.")?.to_owned(), tensor.clone()))
        });
        check_gradients(family, lm, loss, expected.collect());
    }
}

/// Holds the gradients of every parameter against those expected, in the layout of files.
pub(super) fn check_gradients<M: Module>(
    family: &str,
    module: M,
    loss: Tensor<1>,
    expected: IndexMap<String, HostTensor>,
) {
    /// Puts gradients in the place of the parameters.
    struct Slopes(burn::optim::GradientsParams);
    impl weights::ParameterMap for Slopes {
        fn map<const D: usize>(
            &mut self,
            _: &str,
            param: burn::module::Param<Tensor<D>>,
        ) -> burn::module::Param<Tensor<D>> {
            let Some(slope) = self.0.remove::<D>(param.id) else { return param };
            let (id, _, mapper) = param.consume();
            burn::module::Param::from_mapped_value(id, slope, mapper)
        }
    }
    let slopes = burn::optim::GradientsParams::from_grads(loss.backward(), &module);
    let slopes = weights::weights(&weights::map_parameters(module, &mut Slopes(slopes)));
    for (name, expected) in &expected {
        let found = &slopes[name];
        assert_eq!(found.shape, expected.shape, "{family} {name}");
        let worst = difference(&found.values, &expected.values);
        assert!(worst < 1e-5, "{family} {name}: {worst:e}");
    }
    assert!(!expected.is_empty());
}

/// A copy of a golden checkpoint to be damaged.
fn copy(family: &str) -> tempfile::TempDir {
    copy_of(&golden(family))
}

pub(super) fn copy_of(source: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(source).unwrap() {
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

pub(super) fn edit(path: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
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
    std::fs::write(dir.path().join("weights.pt"), "code").unwrap();
    refused(dir.path(), &["weights.pt is not looked at"]);
    std::fs::write(dir.path().join("pytorch_model.bin"), "code").unwrap();
    refused(dir.path(), &["pytorch_model.bin", "pickle"]);
}

#[test]
fn pytorch_s_own_files_hold_the_same() {
    let pickles = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pickles");
    let weights =
        |dir: &Path| weights::weights(&LanguageModel::load(dir, &Device::flex()).unwrap().lm);
    for (family, folder) in [("llama2", "whole"), ("qwen2", "shards")] {
        let dir = copy_of(&pickles.join(folder));
        std::fs::copy(golden(family).join("config.json"), dir.path().join("config.json")).unwrap();
        assert_eq!(weights(dir.path()), weights(&golden(family)), "{family}");
    }
    // Safetensors are preferred.
    let dir = copy("llama2");
    std::fs::write(dir.path().join("pytorch_model.bin"), "not looked at").unwrap();
    LanguageModel::load(dir.path(), &Device::flex()).unwrap();
    // What the index says holds here too.
    let shards = copy_of(&pickles.join("shards"));
    std::fs::copy(golden("qwen2").join("config.json"), shards.path().join("config.json")).unwrap();
    let index = "pytorch_model.bin.index.json";
    edit(&shards.path().join(index), |value| {
        value["weight_map"]["model.norm.weight"] = "../x.bin".into();
    });
    refused(shards.path(), &[index, "../x.bin", "same directory"]);
    let evil = copy_of(&pickles.join("whole"));
    std::fs::copy(golden("llama2").join("config.json"), evil.path().join("config.json")).unwrap();
    std::fs::copy(pickles.join("hidden.bin"), evil.path().join("pytorch_model.bin")).unwrap();
    refused(evil.path(), &["pytorch_model.bin", "calls os.system", "nothing of it was run"]);
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
    let cases: [(&str, serde_json::Value, &[&str]); 19] = [
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
        ("vocab_size", (1_u64 << 32).into(), &["vocab_size is 4294967296", "at most"]),
        ("vocab_size", (1 << 30).into(), &["model.embed_tokens.weight", "[1073741824, 24]"]),
        ("num_hidden_layers", (1 << 29).into(), &["num_hidden_layers is", "at most"]),
        ("head_dim", (1 << 30).into(), &["q_proj.weight"]),
        ("partial_rotary_factor", 0.5.into(), &["partial_rotary_factor is 0.5"]),
        (
            "rope_parameters",
            serde_json::json!({"full_attention": {"rope_theta": 1.0}}),
            &["full_attention", "all layers"],
        ),
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
    let cases: [(&str, &str, serde_json::Value, &[&str]); 4] = [
        (
            "mistral",
            "layer_types",
            serde_json::json!(["full_attention", "sliding_attention"]),
            &["1 of 2 layers", "layer_types"],
        ),
        ("mistral", "attention_bias", true.into(), &["attention_bias", "mistral"]),
        ("smollm3", "no_rope_layers", serde_json::json!([1, 1, 1, 2]), &["no_rope_layers has 2"]),
        ("smollm3", "no_rope_layers", serde_json::json!([1]), &["1 entries for 4 layers"]),
    ];
    for (family, field, value, expected) in cases {
        let dir = copy(family);
        edit(&dir.path().join("config.json"), |config| config[field] = value);
        refused(dir.path(), expected);
    }
}

#[test]
fn what_a_configuration_leaves_out_is_the_family_s_own() {
    let read = |family: &str, change: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
        let path = golden(family).join("config.json");
        let mut value = read_json(&path).unwrap();
        change(value.as_object_mut().unwrap());
        LanguageModelConfig::read(&path, &value).unwrap().transformer
    };
    let without = |family: &str, fields: &[&str]| {
        read(family, &|config| fields.iter().for_each(|field| drop(config.remove(*field))))
    };
    // SmolLM3's own defaults: tied, and a base of two millions.
    let smollm3 = without("smollm3", &["tie_word_embeddings", "rope_parameters", "no_rope_layers"]);
    assert!(smollm3.tie_embeddings && smollm3.rope_theta == 2e6);
    assert_eq!(smollm3.unrotated, [3]);
    assert!(!without("llama2", &["tie_word_embeddings"]).tie_embeddings);
    assert_eq!(without("llama2", &["rope_theta"]).rope_theta, 1e4);
    // Mistral's window when nothing is said, and none when null is.
    assert_eq!(without("mistral", &["sliding_window", "layer_types"]).window, Some(4_096));
    assert_eq!(
        read("mistral", &|c| drop(c.insert("sliding_window".into(), ().into()))).window,
        None
    );
    // The base beside the new parameters, inside of them, and the old ones before the new.
    let json = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
    let rope = |fields: &[(&str, &str)]| {
        let config = read("qwen3", &|config| {
            config.remove("rope_parameters");
            for (name, value) in fields {
                config.insert((*name).into(), json(value));
            }
        });
        (config.rope_theta, config.rope_scaling)
    };
    let plain = "{\"rope_type\":\"default\"}";
    assert_eq!(rope(&[("rope_parameters", plain), ("rope_theta", "1e6")]), (1e6, None));
    let scaled = "{\"rope_type\":\"linear\",\"factor\":2,\"rope_theta\":5e5}";
    let linear = Some(ops::RopeScaling::Linear { factor: 2.0 });
    assert_eq!(rope(&[("rope_scaling", scaled), ("rope_parameters", plain)]), (5e5, linear));
    // Windows of Qwen begin at a layer.
    let window = |first: u64| {
        let change = move |config: &mut serde_json::Map<String, serde_json::Value>| {
            config.remove("layer_types");
            config.insert("use_sliding_window".into(), true.into());
            config.insert("sliding_window".into(), 7.into());
            config.insert("max_window_layers".into(), first.into());
        };
        read("qwen2", &change).window
    };
    assert_eq!((window(0), window(2), window(28)), (Some(7), None, None));
}

/// A reference file of one sequence: the golden input and logits, with `change` made to them.
fn write_reference(
    path: &Path,
    family: &str,
    change: impl FnOnce(&mut Vec<(&'static str, Vec<usize>, safetensors::Dtype, Vec<u8>)>),
) {
    let (values, ids) = reference(&golden(family));
    let (ids, logits) = (&ids["input_ids.0"], &values["logits.0"]);
    let n = ids.len();
    let mut tensors = vec![
        (
            "input_ids",
            vec![1, n],
            safetensors::Dtype::I64,
            ids.iter().flat_map(|&id| i64::from(id).to_le_bytes()).collect::<Vec<u8>>(),
        ),
        (
            "logits",
            vec![1, n, logits.shape[1]],
            safetensors::Dtype::F32,
            logits.values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        ),
    ];
    change(&mut tensors);
    let views: Vec<_> = tensors
        .iter()
        .map(|(name, shape, dtype, bytes)| {
            (*name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        })
        .collect();
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn a_loaded_model_is_verified_against_a_reference() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("reference.safetensors");
    write_reference(&path, "qwen3", |_| {});
    let found = verify(&golden("qwen3"), &path, &Device::flex()).unwrap();
    assert_eq!((found.len(), found[0].output, found[0].n_values), (1, "logits", 17 * 80));
    assert!(found[0].largest < 1e-4 && found[0].mean <= found[0].largest, "{found:?}");
    assert!(found[0].scale > 1.0);

    // Of padding nothing is compared, and what is compared shows.
    let mask = |ones: usize| -> Vec<u8> {
        (0..17).flat_map(|i| i64::from(i < ones).to_le_bytes()).collect()
    };
    write_reference(&path, "qwen3", |tensors| {
        tensors.push(("attention_mask", vec![1, 17], safetensors::Dtype::I64, mask(5)));
        let last = tensors[1].3.len() - 4;
        tensors[1].3[last..].copy_from_slice(&1e9_f32.to_le_bytes());
    });
    let found = verify(&golden("qwen3"), &path, &Device::flex()).unwrap();
    assert!(found[0].n_values == 5 * 80 && found[0].largest < 1e-4, "{found:?}");
    // Another model's numbers.
    write_reference(&path, "qwen2", |_| {});
    assert!(verify(&golden("qwen3"), &path, &Device::flex()).unwrap()[0].largest > 0.1);

    let refused = |change: &dyn Fn(&mut Vec<_>), expected: &[&str]| {
        write_reference(&path, "qwen3", |tensors| change(tensors));
        let error = verify(&golden("qwen3"), &path, &Device::flex()).unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        }
    };
    refused(&|t| drop(t.remove(0)), &["reference.safetensors", "no input_ids", "logits"]);
    refused(&|t| drop(t.remove(1)), &["neither logits nor last_hidden_state"]);
    refused(&|t| t[1].1 = vec![1, 80, 17], &["logits has shape [1, 80, 17]", "[1, 17, 80]"]);
    refused(&|t| t[0].1 = vec![17], &["input_ids has shape [17]"]);
    refused(
        &|t| t[0].3[..8].copy_from_slice(&80_i64.to_le_bytes()),
        &["input_ids has 80", "80 tokens"],
    );
    refused(
        &|t| t[1].3[..4].copy_from_slice(&f32::INFINITY.to_le_bytes()),
        &["logits has inf", "finite"],
    );
    refused(&|t| t[1].2 = safetensors::Dtype::I32, &["logits is of type I32", "F32"]);
    let left = mask(5).into_iter().rev().collect::<Vec<u8>>();
    refused(
        &|t| t.push(("attention_mask", vec![1, 17], safetensors::Dtype::I64, left.clone())),
        &["attention_mask of sequence 0", "right"],
    );
    std::fs::write(&path, "nothing").unwrap();
    let error = verify(&golden("qwen3"), &path, &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("not a safetensors file"), "{error}");
}

#[test]
fn every_family_is_described_so_that_it_is_read_back() {
    for family in FAMILIES {
        let path = golden(family).join("config.json");
        let config = LanguageModelConfig::read(&path, &read_json(&path).unwrap()).unwrap();
        let (found, value) = export::published(&config.transformer, config.n_tokens, 2).unwrap();
        let read = LanguageModelConfig::read(&path, &value).unwrap();
        assert_eq!((read.n_tokens, read.end), (config.n_tokens, vec![2]));
        // Without a window a Mistral is a Llama; nothing else is two things.
        assert_eq!(found, config.family, "{family}");
    }
    let path = golden("qwen3").join("config.json");
    let config = LanguageModelConfig::read(&path, &read_json(&path).unwrap()).unwrap().transformer;
    let strange = TransformerConfig { unrotated: vec![0], ..config };
    let error = export::published(&strange, 80, 2).unwrap_err().to_string();
    assert!(error.contains("no published family") && error.contains("unrotated"), "{error}");
}

/// What transformers wrote is what is written again: every tensor, and every field that both know.
#[test]
fn what_is_written_is_what_transformers_wrote() {
    // Read in one form and written in the other, or said in words of our own.
    const OWN: [&str; 8] = [
        "architectures",
        "torch_dtype",
        "rope_scaling",
        "rope_theta",
        "max_position_embeddings",
        "eos_token_id",
        "bos_token_id",
        "pad_token_id",
    ];
    let same_fields = |family: &str, ours: &Value, theirs: &Value| {
        for (name, value) in ours.as_object().unwrap() {
            if let Some(found) = theirs.get(name).filter(|_| !OWN.contains(&name.as_str())) {
                assert_eq!(value, found, "{name} of {family}");
            }
        }
    };
    let same_tensors = |family: &str, ours: IndexMap<String, HostTensor>, dir: &Path| {
        let theirs = Shards::open(dir).unwrap().tensors().unwrap();
        // With or without the prefix that a model with a head has.
        let full = |name: String| match name.strip_prefix("encoder.") {
            Some(_) => format!("model.{name}"),
            None => name,
        };
        let mut theirs: IndexMap<String, HostTensor> =
            theirs.into_iter().map(|(name, tensor)| (full(name), tensor)).collect();
        let buffer = |name: &str| name.ends_with(".inv_freq");
        let other = |name: &str| name.contains("decoder.") || name.starts_with("proj_out");
        theirs.retain(|name, _| !buffer(name) && !other(name));
        let names = |tensors: &IndexMap<String, HostTensor>| {
            let mut names: Vec<String> = tensors.keys().cloned().collect();
            names.sort_unstable();
            names
        };
        assert_eq!(names(&ours), names(&theirs), "{family}");
        for (name, tensor) in ours {
            assert_eq!(tensor, theirs[&name], "{name} of {family}");
        }
    };
    for family in FAMILIES {
        let dir = golden(family);
        let model = LanguageModel::load(&dir, &Device::flex()).unwrap();
        let config = &model.config;
        let (_, ours) = export::published(&config.transformer, config.n_tokens, 2).unwrap();
        same_fields(family, &ours, &read_json(&dir.join("config.json")).unwrap());
        same_tensors(family, to_host(weights::weights(&model.lm)), &dir);
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/speech_encoders/whisper");
    let published = PublishedEncoder::default();
    let at = Located { dir: dir.clone(), name: String::new() };
    let model = speech_model(&at, &published, &Device::flex()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("exported");
    export_speech_encoder(&model, &out, Dtype::F32).unwrap();
    let read = |dir: &Path| read_json(&dir.join("config.json")).unwrap();
    let (ours, mut theirs) = (read(&out), read(&dir));
    // The decoder is not ours.
    theirs.as_object_mut().unwrap().retain(|name, _| !name.contains("decoder"));
    for name in ["vocab_size", "max_target_positions"] {
        theirs.as_object_mut().unwrap().remove(name);
    }
    same_fields("whisper", &ours, &theirs);
    same_tensors("whisper", Shards::open(&out).unwrap().tensors().unwrap(), &dir);
}

#[test]
fn an_exported_model_computes_the_same() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/language_model");
    let ours =
        crate::model::AnyModel::load_text(&weights, &Device::flex(), &Hub::offline(PathBuf::new()))
            .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("exported");
    export_language_model(&ours, &out, Dtype::F32).unwrap();
    let theirs = LanguageModel::load(&out, &Device::flex()).unwrap();
    assert_eq!(theirs.config.family, Family::Qwen3);
    assert_eq!(theirs.config.end, ours.chat.ends());
    let ids: Vec<u32> = (0..40).map(|i| i * 31 % 700).collect();
    let logits = |lm: &CausalLm| {
        let input = Ragged { values: lm.embed(&ids), offsets: Offsets::from_lengths(&[25, 15]) };
        host(lm.logits(lm.forward(&input, &[], Dropout::OFF).last))
    };
    assert_eq!(logits(&ours.lm), logits(&theirs.lm));
    let at = Located { dir: out.clone(), name: String::new() };
    let again = text_model(&at, &PublishedLanguageModel::default(), None, &Device::flex()).unwrap();
    assert_eq!(again.chat.layout(), ours.chat.layout());
    let tokenizer = sandhi_data::text::Tokenizer::load(&out.join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.n_tokens(), ours.chat.tokenizer().n_tokens());
    let error = export_language_model(&ours, &out, Dtype::F32).unwrap_err().to_string();
    assert!(error.contains("exists"), "{error}");
}
