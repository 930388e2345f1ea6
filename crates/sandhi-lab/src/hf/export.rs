//! Our language models and speech encoders in Hugging Face's layout, for everything that reads it.

use std::path::Path;

use indexmap::IndexMap;
use sandhi_data::{features::FeatureConfig, text::Tokenizer};
use sandhi_nn::{
    encoder::{EncoderConfig, WhisperEncoderConfig},
    lora,
    ops::RopeScaling,
    transformer::TransformerConfig,
    weights,
};
use serde_json::{Value, json};

use super::{Error, Family, LanguageModelConfig, shards::ONE, speech};
use crate::{
    chat::{self, PromptLayout},
    checkpoint::{CheckpointWriter, Dtype},
    model::{SpeechModel, TextModel, to_host},
    tensor::HostTensor,
};

/// Writes a language model as a directory that `transformers` loads; it appears whole or not at all.
///
/// # Errors
///
/// [`Error::Branches`] when the model has branches that [`lora::merge`] would fold in; [`Error::NoFamily`] when no
/// published family computes what the model computes; otherwise when the directory exists and is something else, or
/// cannot be written.
pub fn export_language_model(model: &TextModel, dir: &Path, dtype: Dtype) -> Result<(), Error> {
    if lora::describe(&model.lm).is_some() {
        return Err(Error::Branches);
    }
    let layout = model.chat.layout();
    let end = layout.end;
    let (family, mut config) = published(&model.config, model.lm.n_tokens(), end)?;
    config["torch_dtype"] = name_of(dtype).into();
    tracing::debug!("{} is a {family:?}", dir.display());
    let mut writer = create(dir)?;
    writer.json("config.json", &config)?;
    let ends = model.chat.ends();
    writer.json("generation_config.json", &json!({ "eos_token_id": ends, "do_sample": false }))?;
    writer.tensors(ONE, &to_host(weights::weights(&model.lm)), dtype, &metadata())?;
    let tokenizer = model.chat.tokenizer();
    writer.bytes("tokenizer.json", tokenizer.to_json()?.as_bytes())?;
    // The name of the token, in the tokenizer's own spelling.
    let eos = tokenizer.piece(end);
    let mut about = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": eos,
        "clean_up_tokenization_spaces": false,
    });
    about["chat_template"] = template(tokenizer, layout)?.into();
    if PromptLayout::markers(tokenizer).is_ok_and(|markers| markers == *layout) {
        about["additional_special_tokens"] = json!(chat::MARKERS);
    }
    writer.json("tokenizer_config.json", &about)?;
    writer.finish()?;
    Ok(())
}

/// A prompt layout as a chat template: the first line of a user's message is the instruction, the rest is what was
/// said.
pub(super) fn template(tokenizer: &Tokenizer, layout: &PromptLayout) -> Result<String, Error> {
    let text = |ids: &[u32]| tokenizer.decode_with_specials(ids);
    let quoted = |text: String| serde_json::to_string(&text).expect("text is JSON");
    let space = |spaced: bool| if spaced { " " } else { "" };
    let before = quoted(text(&layout.before)? + space(layout.instruction_spaced));
    let between = quoted(text(&layout.between)? + space(layout.speech_spaced));
    let after = quoted(text(&layout.after)?);
    let (lead, end) = (quoted(layout.lead.clone()), quoted(text(&[layout.end])?));
    Ok(format!(
        "{{%- for message in messages %}}\
         {{%- if message['role'] == 'user' %}}\
         {{%- set parts = message['content'].split('\\n', 1) %}}\
         {{{{- {before} + parts[0] }}}}\
         {{%- if parts | length > 1 %}}{{{{- {between} + parts[1] }}}}{{%- endif %}}\
         {{{{- {after} }}}}\
         {{%- elif message['role'] == 'assistant' %}}{{{{- {lead} + message['content'] + {end} }}}}\
         {{%- else %}}{{{{- raise_exception('user and assistant alone can speak') }}}}{{%- endif %}}\
         {{%- endfor %}}"
    ))
}

/// Writes a speech encoder as a directory whose `WhisperModel(…).encoder` computes the same in `transformers`; it
/// appears whole or not at all. There is no decoder in it.
///
/// # Errors
///
/// [`Error::NoEncoderFamily`] when the encoder is none that has been published; otherwise as
/// [`export_language_model`].
pub fn export_speech_encoder(model: &SpeechModel, dir: &Path, dtype: Dtype) -> Result<(), Error> {
    let (EncoderConfig::Whisper(encoder), FeatureConfig::Whisper(features)) =
        (&model.config, &model.features)
    else {
        return Err(Error::NoEncoderFamily);
    };
    if lora::describe(&model.encoder).is_some() {
        return Err(Error::Branches);
    }
    let mut config = describe_whisper(encoder, features.n_mels);
    config["torch_dtype"] = name_of(dtype).into();
    let mut writer = create(dir)?;
    writer.json("config.json", &config)?;
    let tensors = to_host(weights::weights(&model.encoder));
    let tensors = tensors.into_iter().map(|(name, tensor)| theirs(&name, tensor, features.n_mels));
    writer.tensors(ONE, &tensors.collect(), dtype, &metadata())?;
    // Half a frame is a hop of 160 samples: what 30 s are for 1,500 frames.
    let n_samples = encoder.max_frames * 320;
    let front_end = json!({
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": features.n_mels,
        "sampling_rate": 16_000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": n_samples.div_ceil(16_000),
        "n_samples": n_samples,
        "nb_max_frames": encoder.max_frames * 2,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": false,
    });
    writer.json("preprocessor_config.json", &front_end)?;
    writer.finish()?;
    Ok(())
}

/// The published name and form of a tensor of our Whisper encoder.
fn theirs(name: &str, tensor: HostTensor, n_mels: usize) -> (String, HostTensor) {
    let d_in = match name {
        "conv1.weight" => Some(n_mels),
        "conv2.weight" => tensor.shape.first().copied(),
        _ => None,
    };
    let tensor = match d_in {
        Some(d_in) => speech::taps_last(tensor, d_in),
        None => tensor,
    };
    (format!("model.encoder.{}", speech::whisper::published_name(name)), tensor)
}

/// The fields of Whisper's `config.json`, with a decoder that has no layers.
fn describe_whisper(config: &WhisperEncoderConfig, n_mels: usize) -> Value {
    json!({
        "architectures": ["WhisperModel"],
        "model_type": "whisper",
        "d_model": config.d_model,
        "encoder_layers": config.n_layers,
        "encoder_attention_heads": config.n_heads,
        "encoder_ffn_dim": config.d_ff,
        "max_source_positions": config.max_frames,
        "num_mel_bins": n_mels,
        "activation_function": "gelu",
        "scale_embedding": false,
        "decoder_layers": 0,
        "decoder_attention_heads": config.n_heads,
        "decoder_ffn_dim": config.d_ff,
        "max_target_positions": 1,
        "vocab_size": 2,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "decoder_start_token_id": 0,
    })
}

fn create(dir: &Path) -> Result<CheckpointWriter, Error> {
    if dir.exists() {
        return Err(Error::Exists { dir: dir.to_owned() });
    }
    Ok(CheckpointWriter::create(dir)?)
}

fn metadata() -> IndexMap<String, String> {
    IndexMap::from([("format".to_owned(), "pt".to_owned())])
}

fn name_of(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "float32",
        Dtype::F16 => "float16",
    }
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
