//! Speech encoders of published checkpoints.
//!
//! ```text
//! config.json                                   sizes and options ─ EncoderConfig
//! preprocessor_config.json                      what it hears ───── FeatureConfig
//! model.safetensors                             weights, every tensor accounted for
//! vocab.json, tokenizer_config.json             what the outputs of a CTC head mean
//! ```

mod preprocessor;
mod symbols;
mod wav2vec2;
pub(super) mod whisper;

use std::path::Path;

use burn::prelude::*;
use indexmap::IndexMap;
use sandhi_data::{features::FeatureConfig, text::Characters};
use sandhi_nn::{
    encoder::{CtcHead, CtcHeadConfig, Encoder, EncoderConfig},
    init::Init,
    weights::{self, Mismatch, Weights},
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
    /// What it hears: `preprocessor_config.json`, or the family's default where that is absent. Whisper's log-mel has
    /// the utterance's own length.
    pub features: FeatureConfig,
    /// Its weights, in f32.
    pub encoder: Encoder,
    /// The head of a checkpoint that transcribes; none when the frames are not those of the last layer.
    pub ctc: Option<PublishedCtcHead>,
}

/// A speech encoder as its `config.json` describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeechEncoderConfig {
    /// The sizes.
    pub encoder: EncoderConfig,
    /// Width of the features that it hears.
    pub n_mels: usize,
}

/// `lm_head` of a checkpoint, its outputs in the order of our symbols: the blank, then characters. Symbols that are no
/// characters (`<s>`, `</s>`, `<unk>`) have none, so that they are never said.
#[derive(Debug, Clone)]
pub struct PublishedCtcHead {
    /// A step a frame.
    pub config: CtcHeadConfig,
    /// Its weights, in f32.
    pub head: CtcHead,
    /// What its outputs mean.
    pub symbols: Characters,
    /// The output of the checkpoint that each of ours is.
    pub columns: Vec<usize>,
    /// Outputs that the checkpoint has.
    pub n_outputs: usize,
}

const WHISPER: &str = "whisper";

/// Values of `model_type` of the encoders that can be loaded.
pub const FAMILIES: [&str; 4] =
    [WHISPER, wav2vec2::FAMILIES[0], wav2vec2::FAMILIES[1], wav2vec2::FAMILIES[2]];

impl SpeechEncoderConfig {
    /// Hands out the frames of one layer instead of the last: see [`SpeechEncoder::load_layer`].
    fn take_layer(&mut self, path: &Path, layer: Option<usize>) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::Config { path: path.to_owned(), message });
        match (&mut self.encoder, layer) {
            (_, None) => Ok(()),
            (EncoderConfig::Wav2vec2(encoder), Some(_)) => {
                encoder.layer = layer;
                encoder.problems().into_iter().next().map_or(Ok(()), wrong)
            }
            (_, Some(layer)) => wrong(format!(
                "layer {layer} was asked for, of a whisper encoder only the last frames are handed out"
            )),
        }
    }

    /// What the encoder of a directory is and hears, its weights unread.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a layer that is not there; otherwise as [`Self::read`].
    pub fn of_directory(dir: &Path, layer: Option<usize>) -> Result<(Self, FeatureConfig), Error> {
        let path = dir.join("config.json");
        let mut config = Self::read(&path, &read_json(&path)?)?;
        let features = preprocessor::features(dir, &config)?;
        config.take_layer(&path, layer)?;
        Ok((config, features))
    }

    /// As [`Self::of_directory`], of a `config.json` alone; `path` is for messages.
    pub(super) fn known(
        path: &Path,
        value: &Value,
        layer: Option<usize>,
    ) -> Result<(Self, FeatureConfig), Error> {
        let mut config = Self::read(path, value)?;
        let features = preprocessor::family(&config);
        config.take_layer(path, layer)?;
        Ok((config, features))
    }

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
        let (encoder, n_mels) = if found == WHISPER {
            (whisper::config(&fields)?, fields.size("num_mel_bins")?)
        } else {
            (wav2vec2::config(&fields, found)?, 1)
        };
        if n_mels == 0 {
            return Err(fields.error("num_mel_bins is 0, expected at least 1"));
        }
        if let Some(problem) = encoder.problems().first() {
            return Err(fields.error(problem));
        }
        Ok(Self { encoder, n_mels })
    }
}

impl SpeechEncoder {
    /// Loads the encoder of a directory, and its CTC head where there is one; a decoder is read and dropped.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn load(dir: &Path, device: &Device) -> Result<Self, Error> {
        Self::load_layer(dir, None, device)
    }

    /// As [`SpeechEncoder::load`], handing out the frames of one layer of the wav2vec 2.0 family: those that go into
    /// block `layer`, counted from 0, as `hidden_states[layer]` of `transformers`; with `n_layers`, those that come out
    /// of the last block and, where there is one, the norm after it: `last_hidden_state`. Blocks that are not needed
    /// are not kept, and neither is a CTC head, but all are checked.
    ///
    /// # Errors
    ///
    /// See [`Error`]; [`Error::Config`] for a layer that is not there.
    pub fn load_layer(dir: &Path, layer: Option<usize>, device: &Device) -> Result<Self, Error> {
        let path = dir.join("config.json");
        let value = read_json(&path)?;
        let mut config = SpeechEncoderConfig::read(&path, &value)?;
        let fields = Fields::new(&path, &value)?;
        let features = preprocessor::features(dir, &config)?;
        let tensors = Shards::open(dir)?.tensors()?;
        let mismatch = |mismatch| Error::Mismatch { dir: dir.to_owned(), mismatch };
        let (tensors, head) = match &config.encoder {
            EncoderConfig::Wav2vec2(encoder) => {
                let sorted = wav2vec2::sort(tensors, encoder).map_err(mismatch)?;
                (sorted.encoder, sorted.head)
            }
            _ => (whisper::tensors(tensors).map_err(mismatch)?, IndexMap::new()),
        };
        let mut tensors = from_host(tensors);
        let expected = count::encoder(&config.encoder, config.n_mels).shapes();
        weights::check_shapes(&expected, &tensors).map_err(mismatch)?;

        config.take_layer(&path, layer)?;
        if layer.is_some() {
            let kept = count::encoder(&config.encoder, config.n_mels).shapes();
            tensors.retain(|name, _| kept.contains_key(name));
        }
        let last = match &config.encoder {
            EncoderConfig::Wav2vec2(encoder) => encoder.n_blocks() == encoder.n_layers,
            _ => true,
        };
        let ctc = if head.is_empty() {
            let said = fields.texts("architectures")?;
            if said.iter().any(|name| name.ends_with("ForCTC")) {
                return Err(mismatch(Mismatch(vec!["missing tensor lm_head.weight".into()])));
            }
            None
        } else {
            let blank = fields.optional_size("pad_token_id")?;
            let head = from_host(head);
            Some(PublishedCtcHead::new(dir, head, config.encoder.d_encoder(), blank, device)?)
        };
        let encoder = config.encoder.init(config.n_mels, &Init::blank(device));
        let encoder = weights::load(encoder, tensors).map_err(mismatch)?;
        Ok(Self { config, features, encoder, ctc: ctc.filter(|_| last) })
    }
}

impl PublishedCtcHead {
    /// Picks the outputs that have a meaning here.
    fn new(
        dir: &Path,
        mut head: Weights,
        d: usize,
        blank: Option<usize>,
        device: &Device,
    ) -> Result<Self, Error> {
        let mismatch = |mismatch| Error::Mismatch { dir: dir.to_owned(), mismatch };
        let n_outputs = head.get("lm_head.weight").and_then(|weight| weight.shape.first().copied());
        let n_outputs = n_outputs.unwrap_or(0);
        let [weight, bias] = ["lm_head.weight", "lm_head.bias"].map(str::to_owned);
        let expected =
            [(weight.clone(), vec![n_outputs, d]), (bias.clone(), vec![n_outputs])].into();
        weights::check_shapes(&expected, &head).map_err(mismatch)?;
        let symbols::Symbols { characters, columns } = symbols::read(dir, n_outputs, blank)?;
        let mut ours = Weights::new();
        for (theirs, name, width) in [(weight, "proj.weight", d), (bias, "proj.bias", 1)] {
            let mut tensor = head.remove(&theirs).expect("its shape was checked");
            let rows = columns.iter().flat_map(|&row| &tensor.values[row * width..][..width]);
            tensor.values = rows.copied().collect();
            tensor.shape[0] = columns.len();
            ours.insert(name.to_owned(), tensor);
        }
        let config = CtcHeadConfig { steps_per_frame: 1 };
        let module = config.init(d, characters.n_symbols(), &Init::blank(device));
        let module = weights::load(module, ours).map_err(mismatch)?;
        Ok(Self { config, head: module, symbols: characters, columns, n_outputs })
    }
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
fn taps_first(tensor: HostTensor) -> HostTensor {
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

#[cfg(test)]
mod tests;
