//! Speech encoders of published checkpoints.

use std::path::Path;

use burn::prelude::*;
use indexmap::IndexMap;
use sandhi_data::features::{FeatureConfig, WhisperConfig};
use sandhi_nn::{
    encoder::{Encoder, EncoderConfig, WhisperEncoderConfig},
    init::Init,
    weights::{self, Mismatch},
};
use serde_json::Value;

use super::{
    Error, Shards,
    config::{Fields, MOST_LAYERS},
    read_json,
};
use crate::{model::from_host, plan::count, tensor::HostTensor};

/// A published speech encoder.
#[derive(Debug, Clone)]
pub struct SpeechEncoder {
    /// What its `config.json` says.
    pub config: SpeechEncoderConfig,
    /// Its weights, in f32.
    pub encoder: Encoder,
}

/// A speech encoder as its `config.json` describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeechEncoderConfig {
    /// The sizes.
    pub encoder: EncoderConfig,
    /// Width of the features that it hears.
    pub n_mels: usize,
}

/// Values of `model_type` of the encoders that can be loaded.
pub const FAMILIES: [&str; 1] = ["whisper"];

impl SpeechEncoderConfig {
    /// Reads the fields of a `config.json`; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] names the field, what it is and what was expected.
    pub fn read(path: &Path, value: &Value) -> Result<Self, Error> {
        let fields = Fields::new(path, value)?;
        let found = fields.text("model_type")?.unwrap_or("missing");
        if !FAMILIES.contains(&found) {
            return Err(fields.error(format_args!(
                "model_type is {found:?}, speech encoders that can be loaded are {}",
                FAMILIES.join(", ")
            )));
        }
        fields.unquantized()?;
        if let Some(act) = fields.text("activation_function")?.filter(|act| *act != "gelu") {
            return Err(
                fields.error(format_args!("activation_function is {act:?}, expected \"gelu\""))
            );
        }
        if fields.flag("scale_embedding")? {
            return Err(fields.error("scale_embedding is true, expected false"));
        }
        let encoder = EncoderConfig::Whisper(WhisperEncoderConfig {
            d_model: fields.size("d_model")?,
            n_layers: fields.size("encoder_layers")?,
            n_heads: fields.size("encoder_attention_heads")?,
            d_ff: fields.size("encoder_ffn_dim")?,
            max_frames: fields.size("max_source_positions")?,
        });
        fields.bounded("encoder_layers", MOST_LAYERS)?;
        let n_mels = fields.size("num_mel_bins")?;
        if n_mels == 0 {
            return Err(fields.error("num_mel_bins is 0, expected at least 1"));
        }
        if let Some(problem) = encoder.problems().first() {
            return Err(fields.error(problem));
        }
        Ok(Self { encoder, n_mels })
    }

    /// The front end that the encoder hears through; utterances have their natural length.
    pub fn features(&self) -> FeatureConfig {
        FeatureConfig::Whisper(WhisperConfig { n_mels: self.n_mels, ..WhisperConfig::default() })
    }
}

impl SpeechEncoder {
    /// Loads the encoder of a directory; its decoder is read and dropped.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn load(dir: &Path, device: &Device) -> Result<Self, Error> {
        let path = dir.join("config.json");
        let config = SpeechEncoderConfig::read(&path, &read_json(&path)?)?;
        let tensors = Shards::open(dir)?.tensors()?;
        let mismatch = |mismatch| Error::Mismatch { dir: dir.to_owned(), mismatch };
        let tensors = whisper(tensors).map_err(mismatch)?;
        let tensors = from_host(tensors);
        let expected = count::encoder(&config.encoder, config.n_mels).shapes();
        weights::check_shapes(&expected, &tensors).map_err(mismatch)?;
        let encoder = config.encoder.init(config.n_mels, &Init::new(0, device));
        let encoder = weights::load(encoder, &tensors).map_err(mismatch)?;
        Ok(Self { config, encoder })
    }
}

/// The encoder's tensors of a Whisper checkpoint under our names. The decoder's are known and left out;
/// what is neither is listed.
fn whisper(
    tensors: IndexMap<String, HostTensor>,
) -> Result<IndexMap<String, HostTensor>, Mismatch> {
    let mut ours = IndexMap::new();
    let mut unknown = Vec::new();
    for (name, tensor) in tensors {
        let inner = name.strip_prefix("model.").unwrap_or(&name);
        if let Some(inner) = inner.strip_prefix("encoder.") {
            let tensor = if inner.starts_with("conv") { taps_first(tensor) } else { tensor };
            ours.insert(whisper_name(inner), tensor);
        } else if !inner.starts_with("decoder.") && !inner.starts_with("proj_out.") {
            unknown.push(format!("{name} is left over"));
        }
    }
    if unknown.is_empty() { Ok(ours) } else { Err(Mismatch(unknown)) }
}

/// Our name of a tensor of Whisper's encoder.
pub(super) fn whisper_name(theirs: &str) -> String {
    let ours = theirs
        .replace("self_attn.out_proj", "self_attn.o_proj")
        .replace("self_attn_layer_norm", "input_layernorm")
        .replace("final_layer_norm", "post_attention_layernorm")
        .replace(".fc", ".mlp.fc");
    if ours == "embed_positions.weight" { "embed_positions".into() } else { ours }
}

/// The published name of one of our tensors: [`whisper_name`] the other way round.
pub(super) fn published_whisper_name(ours: &str) -> String {
    let theirs = ours
        .replace("self_attn.o_proj", "self_attn.out_proj")
        .replace("post_attention_layernorm", "final_layer_norm")
        .replace("input_layernorm", "self_attn_layer_norm")
        .replace(".mlp.fc", ".fc");
    if theirs == "embed_positions" { "embed_positions.weight".into() } else { theirs }
}

/// [`taps_first`] the other way round, for `d_in` channels.
pub(super) fn taps_last(tensor: HostTensor, d_in: usize) -> HostTensor {
    let [d_out, width] = tensor.shape[..] else { return tensor };
    let kernel = width / d_in;
    let mut values = Vec::with_capacity(tensor.values.len());
    for out in 0..d_out {
        for channel in 0..d_in {
            values.extend(
                (0..kernel).map(|tap| tensor.values[(out * kernel + tap) * d_in + channel]),
            );
        }
    }
    HostTensor { shape: vec![d_out, d_in, kernel], values }
}

/// A convolution's weight, `[d_out, d_in, kernel]`, as that of the linear layer over unfolded frames,
/// `[d_out, kernel * d_in]`; biases stay.
pub(super) fn taps_first(tensor: HostTensor) -> HostTensor {
    let [d_out, d_in, kernel] = tensor.shape[..] else { return tensor };
    let mut values = Vec::with_capacity(tensor.values.len());
    for out in 0..d_out {
        for tap in 0..kernel {
            let place = |channel: usize| (out * d_in + channel) * kernel + tap;
            values.extend((0..d_in).map(|channel| tensor.values[place(channel)]));
        }
    }
    HostTensor { shape: vec![d_out, kernel * d_in], values }
}
