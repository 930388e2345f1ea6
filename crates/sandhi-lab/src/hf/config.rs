//! `config.json` of published language models: what it says in our own terms.
//!
//! Everything that changes what a model computes is either understood or refused; a field that is not
//! known is no reason to load a model that is another one.

use std::path::Path;

use sandhi_nn::{
    ops::{Llama3Scaling, RopeScaling},
    transformer::TransformerConfig,
};
use serde_json::{Map, Value};

use super::Error;
use crate::plan::check::LARGEST_SIZE;
pub(super) use crate::plan::check::MOST_LAYERS;

/// A language model as its `config.json` describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct LanguageModelConfig {
    /// The family, e.g. `qwen2`.
    pub family: Family,
    /// The sizes and options of the transformer.
    pub transformer: TransformerConfig,
    /// Rows of the embedding table.
    pub n_tokens: usize,
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

    pub(super) fn typed<T>(
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
        let found = self.typed(name, "a whole number", read)?;
        if found.is_some() {
            self.bounded(name, LARGEST_SIZE)?;
        }
        Ok(found)
    }

    /// Sizes beyond `most` are damage, and what is computed from them would overflow.
    pub(super) fn bounded(&self, name: &str, most: usize) -> Result<(), Error> {
        match self.get(name).and_then(Value::as_u64) {
            Some(found) if found > most as u64 => {
                Err(self.error(format_args!("{name} is {found}, expected at most {most}")))
            }
            _ => Ok(()),
        }
    }

    /// A list of sizes.
    pub(super) fn sizes(&self, name: &str) -> Result<Option<Vec<usize>>, Error> {
        let read = |value: &Value| {
            let size = |value: &Value| usize::try_from(value.as_u64()?).ok();
            value.as_array()?.iter().map(size).collect::<Option<Vec<usize>>>()
        };
        let found = self.typed(name, "a list of whole numbers", read)?;
        match found.iter().flatten().find(|&&size| size > LARGEST_SIZE) {
            Some(size) => {
                Err(self.error(format_args!("{name} has {size}, expected at most {LARGEST_SIZE}")))
            }
            None => Ok(found),
        }
    }

    /// Every field, null or not.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.fields.iter()
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, Error> {
        self.typed(name, "a number", Value::as_f64)
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Error> {
        Ok(self.optional_flag(name)?.unwrap_or(false))
    }

    pub(super) fn optional_flag(&self, name: &str) -> Result<Option<bool>, Error> {
        self.typed(name, "true or false", Value::as_bool)
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
    pub(super) fn ids(&self, name: &str) -> Result<Vec<u32>, Error> {
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
        if let Some(share) = fields.number("partial_rotary_factor")?.filter(|share| *share != 1.0) {
            return Err(fields.error(format_args!("partial_rotary_factor is {share}, expected 1")));
        }
        let n_layers = fields.size("num_hidden_layers")?;
        fields.bounded("num_hidden_layers", MOST_LAYERS)?;
        let bias = fields.flag("attention_bias")?;
        if bias && family == Family::Mistral {
            return Err(fields.error("attention_bias is true, a mistral has none"));
        }
        let (rope_theta, rope_scaling) = rope(&fields, family)?;
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
            tie_embeddings: fields
                .optional_flag("tie_word_embeddings")?
                .unwrap_or(family == Family::SmolLm3),
            qk_norm: family == Family::Qwen3,
            attention_bias: family == Family::Qwen2 || bias,
            output_bias: family != Family::Qwen2 && bias,
            window: window(&fields, family, n_layers)?,
        };
        if let Some(problem) = transformer.problems().first() {
            return Err(fields.error(problem));
        }
        Ok(Self {
            family,
            transformer,
            n_tokens: fields.size("vocab_size")?,
            end: fields.ids("eos_token_id")?,
        })
    }
}

/// Base and scaling of the rotary frequencies: `rope_parameters` as written since 2025, before that
/// `rope_theta` and `rope_scaling`, which wins where there are both.
fn rope(fields: &Fields, family: Family) -> Result<(f64, Option<RopeScaling>), Error> {
    let scaling = match fields.object("rope_scaling")? {
        Some(scaling) => Some(scaling),
        None => fields.object("rope_parameters")?,
    };
    let inner = match &scaling {
        Some(scaling) => scaling.number("rope_theta")?,
        None => None,
    };
    let default = if family == Family::SmolLm3 { 2_000_000.0 } else { 10_000.0 };
    let theta = inner.or(fields.number("rope_theta")?).unwrap_or(default);
    if !(theta.is_finite() && theta > 0.0) {
        return Err(fields.error(format_args!("rope_theta is {theta}, expected a positive number")));
    }
    let Some(scaling) = scaling else { return Ok((theta, None)) };
    if let Some((name, _)) = scaling.fields.iter().find(|(_, value)| value.is_object()) {
        return Err(fields.error(format_args!(
            "rope parameters of {name} alone are not supported, expected the same for all layers"
        )));
    }
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
        "llama3" => Some(RopeScaling::Llama3(Llama3Scaling {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_positions: scaling.size("original_max_position_embeddings")?,
        })),
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
    let mut unrotated = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        match (layer.as_u64(), layer.as_bool()) {
            (Some(1), _) | (_, Some(true)) => {}
            (Some(0), _) | (_, Some(false)) => unrotated.push(i),
            _ => {
                return Err(
                    fields.error(format_args!("no_rope_layers has {layer}, expected 0 or 1"))
                );
            }
        }
    }
    Ok(unrotated)
}

/// Positions that each position sees, where all layers have a sliding window.
fn window(fields: &Fields, family: Family, n_layers: usize) -> Result<Option<usize>, Error> {
    let switched = matches!(family, Family::Qwen2 | Family::Qwen3 | Family::SmolLm3);
    if family == Family::Llama || (switched && !fields.flag("use_sliding_window")?) {
        return Ok(None);
    }
    // Absent is not null.
    let default = (!fields.fields.contains_key("sliding_window")).then_some(4_096);
    let Some(window) = fields.optional_size("sliding_window")?.or(default) else { return Ok(None) };
    let n_windows = if let Some(types) = fields.list("layer_types")? {
        if types.len() != n_layers {
            return Err(fields.error(format_args!(
                "layer_types has {} entries for {n_layers} layers",
                types.len()
            )));
        }
        types.iter().filter(|kind| kind.as_str() == Some("sliding_attention")).count()
    } else if switched {
        let first = fields.optional_size("max_window_layers")?.unwrap_or(28);
        n_layers.saturating_sub(first)
    } else {
        n_layers
    };
    match n_windows {
        0 => Ok(None),
        n if n == n_layers => Ok(Some(window)),
        n => Err(fields.error(format_args!(
            "{n} of {n_layers} layers have a window (layer_types, max_window_layers), expected all or none"
        ))),
    }
}
