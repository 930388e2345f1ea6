//! LoRA adapters in PEFT's layout, in and out.
//!
//! ```text
//! adapter_config.json            r, lora_alpha, use_rslora, target_modules
//! adapter_model.safetensors      base_model.model.<layer>.lora_A.weight [r, d_in]
//!                                base_model.model.<layer>.lora_B.weight [d_out, r]
//! ```
//!
//! As with whole models, everything that changes what an adapter computes is understood or refused by its name,
//! and every tensor that is missing, left over or of another shape is listed. Dropout concerns training alone:
//! it is read and not used.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use indexmap::IndexMap;
use sandhi_nn::{
    lora::{self, Linears, LoraConfig},
    transformer::CausalLm,
    weights::{self, Weights},
};
use serde_json::{Value, json};

use super::{Error, ModelSource, config::Fields, read_json};
use crate::{
    checkpoint::{CheckpointWriter, Dtype, read_tensors},
    model::{from_host, to_host},
};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// Our name of a factor under PEFT's, and back.
const FACTORS: [(&str, &str); 2] =
    [(".lora_a.weight", ".lora_A.weight"), (".lora_b.weight", ".lora_B.weight")];

fn theirs(name: &str) -> String {
    let mut name = format!("{PREFIX}{name}");
    for (ours, theirs) in FACTORS {
        if let Some(layer) = name.strip_suffix(ours) {
            name = format!("{layer}{theirs}");
        }
    }
    name
}

fn ours(name: &str) -> String {
    let mut name = name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    for (ours, theirs) in FACTORS {
        if let Some(layer) = name.strip_suffix(theirs) {
            name = format!("{layer}{ours}");
        }
    }
    name
}

/// Fields that say nothing about what is computed, and those that are read below.
const KNOWN: [&str; 16] = [
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "inference_mode",
    "init_lora_weights",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
];

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// What an adapter's configuration says; targets are PEFT's: names of layers, or ends of them.
fn read_config(path: &Path, value: &Value) -> Result<LoraConfig, Error> {
    let fields = Fields::new(path, value)?;
    let object = value.as_object().expect("fields are those of an object");
    let known = |name: &str| KNOWN.contains(&name);
    if let Some((name, value)) = object.iter().find(|(name, v)| !known(name) && !is_off(v)) {
        return Err(fields.error(format_args!("{name} is {value}, which is not supported")));
    }
    let one_of = |name: &str, allowed: &[&str]| match fields.text(name)? {
        Some(text) if allowed.contains(&text) => Ok(()),
        found => Err(fields.error(format_args!(
            "{name} is {}, expected {allowed:?}",
            found.map_or("missing".to_owned(), |text| format!("{text:?}"))
        ))),
    };
    one_of("peft_type", &["LORA"])?;
    if object.contains_key("bias") {
        one_of("bias", &["none"])?;
    }
    // Other ways to begin change the base's weights, which are then not those of the published base.
    if object.get("init_lora_weights").is_some_and(Value::is_string) {
        one_of("init_lora_weights", &["gaussian"])?;
    }
    let targets = match object.get("target_modules") {
        Some(Value::Array(list)) => list.iter().map(|t| t.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    let targets: Option<Vec<String>> = targets;
    let config = LoraConfig {
        rank: fields.size("r")?,
        alpha: fields.number("lora_alpha")?.unwrap_or(8.0),
        targets: targets.ok_or_else(|| {
            fields.error(format_args!(
                "target_modules is {}, expected a list of names",
                object.get("target_modules").unwrap_or(&Value::Null)
            ))
        })?,
        rslora: fields.flag("use_rslora")?,
    };
    match config.problems().first() {
        Some(problem) => Err(fields.error(problem)),
        None => Ok(config),
    }
}

/// Whether PEFT's list of targets means a layer.
fn is_target(targets: &[String], layer: &str) -> bool {
    targets.iter().any(|target| {
        layer.strip_suffix(target.as_str()).is_some_and(|r| r.is_empty() || r.ends_with('.'))
    })
}

/// Gives a language model the branches of an adapter directory.
///
/// # Errors
///
/// [`Error::Config`] for what the configuration says and we do not compute, and for a model that has branches
/// already; [`Error::Tensors`] with all tensors that are missing, left over or of another shape.
pub fn load_adapter(lm: &mut CausalLm, dir: &Path) -> Result<(), Error> {
    let path = dir.join(CONFIG);
    let mut config = read_config(&path, &read_json(&path)?)?;
    let wrong = |message: String| Error::Config { path: path.clone(), message };
    if lora::describe(lm).is_some() {
        return Err(wrong("the model has LoRA branches already, merge them first".into()));
    }
    // Sizes are compared before branches of that size are made.
    let (mut layers, mut expected) = (Vec::new(), BTreeMap::new());
    for (layer, linear) in lm.linears() {
        if is_target(&config.targets, &layer) {
            let [d_in, d_out] = linear.weight.dims();
            let shapes = [vec![config.rank, d_in], vec![d_out, config.rank]];
            for ((factor, _), shape) in FACTORS.into_iter().zip(shapes) {
                expected.insert(theirs(&format!("{layer}{factor}")), shape);
            }
            layers.push(layer);
        }
    }
    if layers.is_empty() {
        let targets = config.targets.join(", ");
        return Err(wrong(format!("target_modules: the model has no linear layer like {targets}")));
    }
    let path = dir.join(TENSORS);
    let tensors = from_host(read_tensors(&path)?);
    weights::check_shapes(&expected, &tensors).map_err(|mismatch| Error::Tensors {
        path,
        message: format!("does not hold what {CONFIG} and the model say:\n{mismatch}"),
    })?;
    let tensors: Weights = tensors.into_iter().map(|(name, t)| (ours(&name), t)).collect();
    config.targets = layers;
    lora::attach(lm, "", &config, 0);
    let loaded = weights::load_where(lm.clone(), tensors, |info| lora::is_lora(&info.name));
    *lm = loaded.expect("names and shapes were compared above");
    Ok(())
}

/// Writes the branches of a language model as a directory that PEFT loads; it appears whole or not at all.
/// `base` is what PEFT is told of the model below: its name or folder.
///
/// # Errors
///
/// [`Error::NoBranches`] when there are none; otherwise when the directory exists or cannot be written.
pub fn export_adapter(
    lm: &CausalLm,
    base: Option<&ModelSource>,
    dir: &Path,
    dtype: Dtype,
) -> Result<(), Error> {
    if dir.exists() {
        return Err(Error::Exists { dir: dir.to_owned() });
    }
    let config = lora::describe(lm).ok_or(Error::NoBranches)?;
    // Whole numbers as such: that is what PEFT's field is.
    let alpha = if config.alpha.fract() == 0.0 && config.alpha < 1e9 {
        json!(config.alpha as u64)
    } else {
        json!(config.alpha)
    };
    let (path, revision) = match base {
        Some(ModelSource::Hub(name)) => {
            (Some(name.repository().to_owned()), Some(name.revision().to_owned()))
        }
        Some(ModelSource::Directory(dir)) => (Some(dir.display().to_string()), None),
        None => (None, None),
    };
    let about = json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        "base_model_name_or_path": path,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": {},
        "revision": revision,
        "target_modules": short_targets(lm, &config.targets),
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": config.rslora,
    });
    let tensors = lora::lora_weights(lm).into_iter().map(|(name, t)| (theirs(&name), t)).collect();
    let metadata = IndexMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut writer = CheckpointWriter::create(dir)?;
    writer.json(CONFIG, &about)?;
    writer.tensors(TENSORS, &to_host(tensors), dtype, &metadata)?;
    writer.finish()?;
    Ok(())
}

/// Last names, as people write them, where they mean the same layers; else every layer.
fn short_targets(lm: &CausalLm, layers: &[String]) -> Vec<String> {
    let last: BTreeSet<&str> = layers.iter().filter_map(|name| name.rsplit('.').next()).collect();
    let last: Vec<String> = last.into_iter().map(str::to_owned).collect();
    let mut lm = lm.clone();
    let meant: Vec<String> = lm
        .linears()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| is_target(&last, name))
        .collect();
    if meant == layers { last } else { layers.to_vec() }
}
