//! The parts of models on disk: a side that hears, a side that writes, and the branches beside both.
//!
//! ```text
//! SpeechModel ─ encoder.safetensors ─────────────────────────┐
//! TextModel ─── language_model.safetensors, tokenizer.json ──┼─ lora.safetensors: the branches of both
//! a published base ─ its Origin and a hash ──────────────────┘
//! ```

use std::collections::BTreeMap;

use burn::prelude::*;
use indexmap::IndexMap;
use sandhi_data::{
    features::{FeatureConfig, FeatureExtractor},
    text::{Characters, Tokenizer},
};
use sandhi_nn::{
    encoder::{CtcHeadConfig, Encoder, EncoderConfig},
    init::Init,
    lora::{self, Linears, LoraConfig, NamedLinears},
    transformer::TransformerConfig,
    weights::{self, NamedTensor, WeightType, Weights},
};
use serde::{Deserialize, Serialize};

use super::{CtcNet, Error, Origin, Recognizer, SpeechModel, TextModel};
use crate::{
    chat::{Chat, PromptLayout},
    checkpoint::{Checkpoint, CheckpointWriter, Dtype},
    hf::{self, Hub, Located},
    recipe::PublishedEncoder,
    tensor::HostTensor,
};

const ENCODER: &str = "encoder.safetensors";
const LANGUAGE_MODEL: &str = "language_model.safetensors";
const LORA: &str = "lora.safetensors";
/// Names of the parts in [`LORA`].
pub(super) const SPEECH_PART: &str = "speech";
pub(super) const TEXT_PART: &str = "language_model";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const SPEC: &str = "model.json";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpeechSpec {
    features: FeatureConfig,
    encoder: EncoderConfig,
    /// With `symbols`, where there is a CTC head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ctc: Option<CtcHeadConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    symbols: Option<Characters>,
    /// Branches; names as in the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lora: Option<LoraConfig>,
    /// Where the weights are, where they are not in the directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    /// How matrices are held.
    #[serde(default)]
    dtype: WeightType,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextSpec {
    transformer: TransformerConfig,
    n_tokens: usize,
    /// That of our own language models where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prompt: Option<PromptLayout>,
    /// Branches; names as in the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lora: Option<LoraConfig>,
    /// Where the weights are, where they are not in the directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    /// How matrices are held.
    #[serde(default)]
    dtype: WeightType,
}

/// A hash of all weights of a module: what a checkpoint of frozen parts is checked against.
pub fn fingerprint<M: Module>(module: &M) -> String {
    // One tensor after the other, whatever their order.
    let mut hashes = BTreeMap::new();
    weights::for_each(module, |name, tensor| {
        hashes.insert(name, blake3::hash(bytemuck::cast_slice(&tensor.values)));
    });
    let mut hasher = blake3::Hasher::new();
    for (name, hash) in &hashes {
        hasher.update(name.as_bytes());
        hasher.update(hash.as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Weights as the files hold them.
pub(crate) fn to_host(weights: Weights) -> IndexMap<String, HostTensor> {
    weights
        .into_iter()
        .map(|(name, t)| (name, HostTensor { shape: t.shape, values: t.values }))
        .collect()
}

/// Weights as modules take them.
pub(crate) fn from_host(tensors: IndexMap<String, HostTensor>) -> Weights {
    tensors
        .into_iter()
        .map(|(name, t)| (name, NamedTensor { shape: t.shape, values: t.values }))
        .collect()
}

pub(super) fn put<M: Module>(
    writer: &mut CheckpointWriter,
    file: &str,
    module: &M,
    dtype: Dtype,
) -> Result<(), Error> {
    let metadata = IndexMap::from([("format".to_owned(), "pt".to_owned())]);
    let plain = weights::weights_where(module, |name| !lora::is_lora(name));
    writer.tensors(file, &to_host(plain), dtype, &metadata)?;
    Ok(())
}

/// Writes the branches of all parts, each under the name of its part, if there are any.
pub(super) fn put_lora(
    writer: &mut CheckpointWriter,
    parts: &[(&str, Weights)],
) -> Result<(), Error> {
    let named: Weights = parts
        .iter()
        .flat_map(|(part, weights)| {
            weights.iter().map(move |(name, t)| (format!("{part}.{name}"), t.clone()))
        })
        .collect();
    if !named.is_empty() {
        let metadata = IndexMap::from([("format".to_owned(), "pt".to_owned())]);
        // Small, and what was trained: all digits are kept.
        writer.tensors(LORA, &to_host(named), Dtype::F32, &metadata)?;
    }
    Ok(())
}

/// Gives a module its branches back.
fn get_lora<M: Module + Linears>(
    checkpoint: &Checkpoint,
    part: &str,
    config: Option<&LoraConfig>,
    mut module: M,
) -> Result<M, Error> {
    let Some(config) = config else { return Ok(module) };
    lora::attach(&mut module, "", config, 0);
    let stored = from_host(checkpoint.tensors(LORA)?);
    let prefix = format!("{part}.");
    let own: Weights = stored
        .into_iter()
        .filter_map(|(name, t)| Some((name.strip_prefix(&prefix)?.to_owned(), t)))
        .collect();
    weights::load_where(module, own, |info| lora::is_lora(&info.name)).map_err(|mismatch| {
        Error::Tensors { file: checkpoint.dir().join(LORA).display().to_string(), mismatch }
    })
}

pub(super) fn get<M: Module>(checkpoint: &Checkpoint, file: &str, module: M) -> Result<M, Error> {
    weights::load(module, from_host(checkpoint.tensors(file)?)).map_err(|mismatch| Error::Tensors {
        file: checkpoint.dir().join(file).display().to_string(),
        mismatch,
    })
}

/// An encoder without a head, under the names that it has beside one.
#[derive(Module, Debug)]
struct EncoderNet {
    encoder: Encoder,
}

impl Linears for EncoderNet {
    fn linears(&mut self) -> NamedLinears<'_> {
        let layers = self.encoder.linears().into_iter();
        layers.map(|(name, linear)| (format!("encoder.{name}"), linear)).collect()
    }
}

impl SpeechModel {
    pub(super) fn spec(&self, whole: bool) -> SpeechSpec {
        let (ctc, symbols) = self.head();
        SpeechSpec {
            features: self.features.clone(),
            encoder: self.config.clone(),
            ctc,
            symbols,
            lora: match self.ctc_net() {
                Some(net) => lora::describe(&net),
                None => lora::describe(&self.encoder_net()),
            },
            origin: self.origin.clone().filter(|_| !whole),
            dtype: self.dtype,
        }
    }

    /// The settings of the head and its symbols, where there is one.
    fn head(&self) -> (Option<CtcHeadConfig>, Option<Characters>) {
        self.recognizer.as_ref().map(|r| (r.config.clone(), r.symbols.clone())).unzip()
    }

    fn encoder_net(&self) -> EncoderNet {
        EncoderNet { encoder: self.encoder.clone() }
    }

    /// The branches, under the names that [`put`] leaves out.
    pub(super) fn branches(&self) -> Weights {
        match self.ctc_net() {
            Some(net) => lora::lora_weights(&net),
            None => lora::lora_weights(&self.encoder_net()),
        }
    }

    pub(super) fn write(
        &self,
        writer: &mut CheckpointWriter,
        dtype: Dtype,
        whole: bool,
    ) -> Result<(), Error> {
        match self.ctc_net() {
            _ if self.origin.is_some() && !whole => Ok(()),
            Some(net) => put(writer, ENCODER, &net, dtype),
            None => put(writer, ENCODER, &self.encoder_net(), dtype),
        }
    }

    pub(super) fn read(
        checkpoint: &Checkpoint,
        spec: SpeechSpec,
        device: &Device,
        hub: &Hub,
    ) -> Result<Self, Error> {
        if let Some(origin) = spec.origin {
            let part = "encoder";
            let published = PublishedEncoder {
                path: origin.path.clone(),
                layer: match &spec.encoder {
                    EncoderConfig::Wav2vec2(config) => config.layer,
                    EncoderConfig::Conformer(_) | EncoderConfig::Whisper(_) => None,
                },
                pad_to_30_s: matches!(&spec.features, FeatureConfig::Whisper(c) if c.pad_to_30_s),
                dtype: WeightType::F32,
            };
            let model = locate(&origin, hub)
                .and_then(|at| hf::speech_model(&at, &published, device))
                .map_err(|source| Error::Base { part, source: Box::new(source) })?;
            check_origin(part, &origin, &model.published_fingerprint())?;
            let as_before = model.features == spec.features
                && model.config == spec.encoder
                && model.head() == (spec.ctc, spec.symbols);
            if !as_before {
                return Err(Error::Settings { part, path: origin.path });
            }
            let net = model.encoder_net();
            let net = get_lora(checkpoint, SPEECH_PART, spec.lora.as_ref(), net)?;
            return Self { encoder: net.encoder, ..model }.held(checkpoint, spec.dtype);
        }
        let init = Init::blank(device);
        let n_mels = FeatureExtractor::new(&spec.features)?.n_mels();
        let encoder = spec.encoder.init(n_mels, &init.child("encoder"));
        let (encoder, recognizer) = match (spec.ctc, spec.symbols) {
            (Some(config), Some(symbols)) => {
                let d_encoder = spec.encoder.d_encoder();
                let head = config.init(d_encoder, symbols.n_symbols(), &init.child("head"));
                let net = get(checkpoint, ENCODER, CtcNet { encoder, head })?;
                let net = get_lora(checkpoint, SPEECH_PART, spec.lora.as_ref(), net)?;
                let CtcNet { encoder, head } = net;
                (encoder, Some(Recognizer { config, symbols, head }))
            }
            (None, None) => {
                let net = get(checkpoint, ENCODER, EncoderNet { encoder })?;
                (get_lora(checkpoint, SPEECH_PART, spec.lora.as_ref(), net)?.encoder, None)
            }
            (ctc, _) => {
                let (there, missing) =
                    if ctc.is_some() { ("ctc", "symbols") } else { ("symbols", "ctc") };
                return Err(Error::Spec {
                    path: checkpoint.dir().join(SPEC),
                    message: format!("speech.{there} is there without speech.{missing}"),
                });
            }
        };
        Self::new(spec.features, spec.encoder, encoder, recognizer)?.held(checkpoint, spec.dtype)
    }

    fn held(mut self, checkpoint: &Checkpoint, dtype: WeightType) -> Result<Self, Error> {
        self.hold(dtype).map_err(|message| beyond(checkpoint, message))?;
        Ok(self)
    }
}

/// A value that the type of a specification cannot hold.
pub(super) fn beyond(checkpoint: &Checkpoint, message: String) -> Error {
    Error::Spec { path: checkpoint.dir().join(SPEC), message }
}

/// Where the weights of a model lie that was published.
fn locate(origin: &Origin, hub: &Hub) -> Result<Located, hf::Error> {
    Ok(hub.locate(&origin.path.parse()?)?)
}

/// Refuses weights that are not those of the origin.
fn check_origin(part: &'static str, origin: &Origin, found: &str) -> Result<(), Error> {
    let Origin { path, fingerprint: expected } = origin.clone();
    if found == expected {
        return Ok(());
    }
    Err(Error::Changed { part, path, found: found.to_owned(), expected })
}

impl TextModel {
    pub(super) fn spec(&self, whole: bool) -> Result<TextSpec, Error> {
        let tokenizer = self.chat.tokenizer();
        let layout = self.chat.layout();
        let ours = PromptLayout::markers(tokenizer).is_ok_and(|markers| markers == *layout);
        Ok(TextSpec {
            transformer: self.config.clone(),
            n_tokens: self.lm.n_tokens(),
            prompt: (!ours).then(|| layout.clone()),
            lora: lora::describe(&self.lm),
            origin: self.origin.clone().filter(|_| !whole),
            dtype: self.dtype,
        })
    }

    pub(super) fn write(
        &self,
        writer: &mut CheckpointWriter,
        dtype: Dtype,
        whole: bool,
    ) -> Result<(), Error> {
        if self.origin.is_none() || whole {
            put(writer, LANGUAGE_MODEL, &self.lm, dtype)?;
        }
        writer.bytes(TOKENIZER, self.chat.tokenizer().to_json()?.as_bytes())?;
        Ok(())
    }

    pub(super) fn read(
        checkpoint: &Checkpoint,
        spec: TextSpec,
        device: &Device,
        hub: &Hub,
    ) -> Result<Self, Error> {
        let tokenizer = Tokenizer::from_bytes(&checkpoint.bytes(TOKENIZER)?)?;
        let layout = match spec.prompt {
            Some(layout) => layout,
            None => PromptLayout::markers(&tokenizer)?,
        };
        if layout.largest_id() as usize >= spec.n_tokens {
            return Err(Error::Spec {
                path: checkpoint.dir().join(SPEC),
                message: format!(
                    "text.prompt has token {}, the model has {}",
                    layout.largest_id(),
                    spec.n_tokens
                ),
            });
        }
        let chat = Chat::new(tokenizer, layout);
        let lm = match &spec.origin {
            Some(origin) => {
                let part = "language model";
                let loaded = locate(origin, hub)
                    .and_then(|at| hf::LanguageModel::load(&at.dir, device))
                    .map_err(|source| Error::Base { part, source: Box::new(source) })?;
                check_origin(part, origin, &fingerprint(&loaded.lm))?;
                if loaded.config.transformer != spec.transformer {
                    return Err(Error::Settings { part, path: origin.path.clone() });
                }
                loaded.lm
            }
            None => {
                let lm = spec.transformer.init(spec.n_tokens, &Init::blank(device));
                get(checkpoint, LANGUAGE_MODEL, lm)?
            }
        };
        let lm = get_lora(checkpoint, TEXT_PART, spec.lora.as_ref(), lm)?;
        let dtype = WeightType::F32;
        let mut model = Self { config: spec.transformer, lm, chat, origin: spec.origin, dtype };
        model.hold(spec.dtype).map_err(|message| beyond(checkpoint, message))?;
        Ok(model)
    }
}
