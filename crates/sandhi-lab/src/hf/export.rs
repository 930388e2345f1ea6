//! Our language models in Hugging Face's layout, for everything that reads it.

use std::path::Path;

use indexmap::IndexMap;
use sandhi_nn::{lora, ops::RopeScaling, transformer::TransformerConfig, weights};
use serde_json::{Value, json};

use super::{Error, Family, LanguageModelConfig};
use crate::{
    chat,
    checkpoint::{CheckpointWriter, Dtype},
    model::{TextModel, to_host},
};

/// Writes a language model as a directory that `transformers` loads; it appears whole or not at all.
///
/// # Errors
///
/// [`Error::Branches`] when the model has branches that [`lora::merge`] would fold in; [`Error::NoFamily`] when no
/// published family computes what the model computes; otherwise when the directory exists and is something else, or
/// cannot be written.
pub fn export_language_model(model: &TextModel, dir: &Path, dtype: Dtype) -> Result<(), Error> {
    if dir.exists() {
        return Err(Error::Exists { dir: dir.to_owned() });
    }
    if lora::describe(&model.lm).is_some() {
        return Err(Error::Branches);
    }
    let end = model.chat.end();
    let (family, mut config) = published(&model.config, model.lm.n_tokens(), end)?;
    config["torch_dtype"] = match dtype {
        Dtype::F32 => "float32",
        Dtype::F16 => "float16",
    }
    .into();
    tracing::debug!("{} is a {family:?}", dir.display());
    let mut writer = CheckpointWriter::create(dir)?;
    writer.json("config.json", &config)?;
    writer.json("generation_config.json", &json!({ "eos_token_id": end, "do_sample": false }))?;
    let metadata = IndexMap::from([("format".to_owned(), "pt".to_owned())]);
    writer.tensors(super::shards::ONE, &to_host(weights::weights(&model.lm)), dtype, &metadata)?;
    let tokenizer = model.chat.tokenizer();
    writer.bytes("tokenizer.json", tokenizer.to_json()?.as_bytes())?;
    let about = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": chat::END,
        "additional_special_tokens": chat::MARKERS,
        "clean_up_tokenization_spaces": false,
    });
    writer.json("tokenizer_config.json", &about)?;
    writer.finish()?;
    Ok(())
}

/// The family that computes what this configuration computes, and its `config.json`: the first whose fields,
/// read back, say the same.
pub(super) fn published(
    config: &TransformerConfig,
    n_tokens: usize,
    end: u32,
) -> Result<(Family, Value), Error> {
    for (name, family) in Family::ALL {
        let value = describe(name, family, config, n_tokens, end);
        let read = LanguageModelConfig::read(Path::new("config.json"), &value);
        if read.is_ok_and(|read| plain(&read.transformer) == plain(config)) {
            return Ok((family, value));
        }
    }
    Err(Error::NoFamily { config: Box::new(config.clone()) })
}

/// With nothing left to defaults.
fn plain(config: &TransformerConfig) -> TransformerConfig {
    TransformerConfig {
        n_kv_heads: Some(config.kv_heads()),
        d_head: Some(config.head_width()),
        ..config.clone()
    }
}

/// The fields of `config.json`, in the form that old and new readers know.
fn describe(
    name: &str,
    family: Family,
    config: &TransformerConfig,
    n_tokens: usize,
    end: u32,
) -> Value {
    let class = match family {
        Family::Llama => "Llama",
        Family::Mistral => "Mistral",
        Family::Qwen2 => "Qwen2",
        Family::Qwen3 => "Qwen3",
        Family::SmolLm3 => "SmolLM3",
    };
    let rope_scaling = config.rope_scaling.map(|scaling| match scaling {
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3(scaling) => json!({
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_positions,
        }),
    });
    let mut value = json!({
        "architectures": [format!("{class}ForCausalLM")],
        "model_type": name,
        "hidden_act": "silu",
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.kv_heads(),
        "head_dim": config.head_width(),
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": rope_scaling,
        "tie_word_embeddings": config.tie_embeddings,
        "vocab_size": n_tokens,
        "attention_bias": config.output_bias,
        "mlp_bias": false,
        // Rotary positions have no end; this many are promised.
        "max_position_embeddings": 32_768,
        "eos_token_id": end,
        // Families have defaults of their own, beyond a small vocabulary.
        "bos_token_id": null,
        "pad_token_id": end,
    });
    if let Some(window) = config.window {
        value["sliding_window"] = window.into();
        value["use_sliding_window"] = true.into();
        value["max_window_layers"] = 0.into();
        value["layer_types"] = vec!["sliding_attention"; config.n_layers].into();
    } else if family == Family::Mistral {
        value["sliding_window"] = Value::Null;
    }
    if family == Family::SmolLm3 {
        let rotated = (0..config.n_layers).map(|i| u8::from(!config.unrotated.contains(&i)));
        value["no_rope_layers"] = rotated.collect();
    }
    value
}
