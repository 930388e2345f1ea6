//! `config.json` of published language models: what it says in our own terms.
//!
//! Everything that changes what a model computes is either understood or refused; a field that is not
//! known is no reason to load a model that is another one.

use std::path::Path;

use sandhi_nn::transformer::{RopeScaling, TransformerConfig};
use serde_json::{Map, Value};

use super::Error;

/// A language model as its `config.json` describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct LanguageModelConfig {
    /// The family, e.g. `qwen2`.
    pub family: Family,
    /// The sizes and options of the transformer.
    pub transformer: TransformerConfig,
    /// Rows of the embedding table.
    pub n_tokens: usize,
    /// Longest sequence that the model was made for, in tokens.
    pub max_positions: Option<usize>,
    /// Tokens that end an answer.
    pub end: Vec<u32>,
}

/// Families of language models that share the Llama layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 2 and 3, SmolLM2.
    Llama,
    /// Mistral.
    Mistral,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3.
    Qwen3,
    /// SmolLM3: Llama with layers that have no positions.
    SmolLm3,
}

impl Family {
    /// Values of `model_type`.
    pub const ALL: [(&str, Self); 5] = [
        ("llama", Self::Llama),
        ("mistral", Self::Mistral),
        ("qwen2", Self::Qwen2),
        ("qwen3", Self::Qwen3),
        ("smollm3", Self::SmolLm3),
    ];
}

/// The fields of a `config.json`, with what was read of them.
pub(super) struct Fields<'a> {
    path: &'a Path,
    fields: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(path: &'a Path, value: &'a Value) -> Result<Self, Error> {
        let fields = value.as_object().ok_or_else(|| Error::Config {
            path: path.to_owned(),
            message: "not a JSON object".into(),
        })?;
        Ok(Self { path, fields })
    }

    pub(super) fn error(&self, message: impl std::fmt::Display) -> Error {
        Error::Config { path: self.path.to_owned(), message: message.to_string() }
    }

    /// The value of a field that is there and not null.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.get(name)
            .map(|value| {
                read(value).ok_or_else(|| {
                    self.error(format_args!("{name} is {value}, expected {expected}"))
                })
            })
            .transpose()
    }

    fn needed<T>(&self, name: &str, found: Option<T>) -> Result<T, Error> {
        found.ok_or_else(|| self.error(format_args!("{name} is missing")))
    }

    pub(super) fn size(&self, name: &str) -> Result<usize, Error> {
        let found = self.optional_size(name)?;
        self.needed(name, found)
    }

    pub(super) fn optional_size(&self, name: &str) -> Result<Option<usize>, Error> {
        let read = |value: &Value| usize::try_from(value.as_u64()?).ok();
        // Sizes beyond this are damage, and would overflow what is computed from them.
        let read = |value: &'a Value| read(value).filter(|&n| n <= 1 << 32);
        self.typed(name, "a whole number", read)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, Error> {
        self.typed(name, "a number", Value::as_f64)
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Error> {
        Ok(self.typed(name, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Error> {
        self.typed(name, "a string", Value::as_str)
    }

    fn list(&self, name: &str) -> Result<Option<&'a [Value]>, Error> {
        self.typed(name, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    fn object(&self, name: &str) -> Result<Option<Fields<'a>>, Error> {
        let fields = self.typed(name, "an object", Value::as_object)?;
        Ok(fields.map(|fields| Fields { path: self.path, fields }))
    }

    pub(super) fn unquantized(&self) -> Result<(), Error> {
        if self.get("quantization_config").is_none() {
            return Ok(());
        }
        Err(self.error(
            "quantization_config: quantized weights are not supported, take the model in bf16, f16 or f32",
        ))
    }

    /// A number, or a list of them.
    fn ids(&self, name: &str) -> Result<Vec<u32>, Error> {
        let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let read = |value: &Value| match value {
            Value::Array(values) => values.iter().map(id).collect(),
            value => Some(vec![id(value)?]),
        };
        Ok(self.typed(name, "a token id or a list of them", read)?.unwrap_or_default())
    }
}

impl LanguageModelConfig {
    /// Reads the fields of a `config.json`; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] names the field, what it is and what was expected.
    pub fn read(path: &Path, value: &Value) -> Result<Self, Error> {
        let fields = Fields::new(path, value)?;
        fields.unquantized()?;
        let found = fields.text("model_type")?;
        let found = fields.needed("model_type", found)?;
        let family = Family::ALL.iter().find(|(name, _)| *name == found).map(|(_, family)| *family);
        let family = family.ok_or_else(|| {
            let known: Vec<&str> = Family::ALL.iter().map(|(name, _)| *name).collect();
            fields.error(format_args!(
                "model_type is {found:?}, language models that can be loaded are {}",
                known.join(", ")
            ))
        })?;
        if let Some(act) = fields.text("hidden_act")?.filter(|act| *act != "silu") {
            return Err(fields.error(format_args!("hidden_act is {act:?}, expected \"silu\"")));
        }
        if fields.flag("mlp_bias")? {
            return Err(fields.error("mlp_bias is true, expected false"));
        }
        let n_layers = fields.size("num_hidden_layers")?;
        let bias = fields.flag("attention_bias")?;
        let (rope_theta, rope_scaling) = rope(&fields)?;
        let transformer = TransformerConfig {
            d_model: fields.size("hidden_size")?,
            n_layers,
            n_heads: fields.size("num_attention_heads")?,
            n_kv_heads: fields.optional_size("num_key_value_heads")?,
            d_head: fields.optional_size("head_dim")?,
            d_ff: fields.size("intermediate_size")?,
            rope_theta,
            rope_scaling,
            unrotated: unrotated(&fields, family, n_layers)?,
            norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6),
            tie_embeddings: fields.flag("tie_word_embeddings")?,
            qk_norm: family == Family::Qwen3,
            attention_bias: family == Family::Qwen2 || bias,
            output_bias: family != Family::Qwen2 && bias,
            window: window(&fields, family)?,
        };
        if let Some(problem) = transformer.problems().first() {
            return Err(fields.error(problem));
        }
        Ok(Self {
            family,
            transformer,
            n_tokens: fields.size("vocab_size")?,
            max_positions: fields.optional_size("max_position_embeddings")?,
            end: fields.ids("eos_token_id")?,
        })
    }
}

/// Base and scaling of the rotary frequencies: `rope_parameters` as written since 2025, before that
/// `rope_theta` and `rope_scaling`.
fn rope(fields: &Fields) -> Result<(f64, Option<RopeScaling>), Error> {
    let new = fields.object("rope_parameters")?;
    let theta = match &new {
        Some(rope) => rope.number("rope_theta")?,
        None => fields.number("rope_theta")?,
    };
    let theta = theta.unwrap_or(10_000.0);
    if !(theta.is_finite() && theta > 0.0) {
        return Err(fields.error(format_args!("rope_theta is {theta}, expected a positive number")));
    }
    let Some(scaling) = (match new {
        Some(rope) => Some(rope),
        None => fields.object("rope_scaling")?,
    }) else {
        return Ok((theta, None));
    };
    let kind = match scaling.text("rope_type")? {
        Some(kind) => Some(kind),
        None => scaling.text("type")?,
    };
    let number = |name: &str| {
        let found = scaling.number(name)?;
        let value = scaling.needed(name, found)?;
        if value > 0.0 {
            Ok(value)
        } else {
            Err(fields.error(format_args!("{name} is {value}, expected a positive number")))
        }
    };
    let scaling = match kind.unwrap_or("default") {
        "default" => None,
        "linear" => Some(RopeScaling::Linear { factor: number("factor")? }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_positions: scaling.size("original_max_position_embeddings")?,
        }),
        other => {
            return Err(fields.error(format_args!(
                "rope_type is {other:?}, expected default, linear or llama3"
            )));
        }
    };
    Ok((theta, scaling))
}

/// Layers whose queries and keys are not rotated.
fn unrotated(fields: &Fields, family: Family, n_layers: usize) -> Result<Vec<usize>, Error> {
    if family != Family::SmolLm3 {
        return Ok(Vec::new());
    }
    // 1 where there are rotary positions, whatever the field's name says.
    let Some(layers) = fields.list("no_rope_layers")? else {
        let every = fields.optional_size("no_rope_layer_interval")?.unwrap_or(4).max(1);
        return Ok((0..n_layers).filter(|i| (i + 1).is_multiple_of(every)).collect());
    };
    if layers.len() != n_layers {
        return Err(fields.error(format_args!(
            "no_rope_layers has {} entries for {n_layers} layers",
            layers.len()
        )));
    }
    Ok((0..n_layers).filter(|&i| layers[i].as_u64() == Some(0)).collect())
}

/// Positions that each position sees, where all layers have a sliding window.
fn window(fields: &Fields, family: Family) -> Result<Option<usize>, Error> {
    let Some(window) = fields.optional_size("sliding_window")? else { return Ok(None) };
    let switched = matches!(family, Family::Qwen2 | Family::Qwen3 | Family::SmolLm3);
    if family == Family::Llama || (switched && !fields.flag("use_sliding_window")?) {
        return Ok(None);
    }
    if let Some(types) = fields.list("layer_types")? {
        let sliding = |value: &Value| value.as_str() == Some("sliding_attention");
        if !types.iter().any(sliding) {
            return Ok(None);
        }
        if !types.iter().all(sliding) {
            return Err(fields.error("layer_types: a window in some layers only is not supported"));
        }
    } else if switched && fields.optional_size("max_window_layers")?.is_none_or(|n| n > 0) {
        return Err(
            fields.error("max_window_layers: a window in some layers only is not supported")
        );
    }
    Ok(Some(window))
}
