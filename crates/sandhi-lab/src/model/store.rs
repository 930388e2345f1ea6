//! Models on disk: one directory, verified when it is opened.
//!
//! ```text
//! model.json               what it is: kind, settings, symbols, prompt layout
//! *.safetensors            encoder, language_model, connector
//! lora.safetensors         the low-rank branches of encoder and language model, which are stored without them
//! tokenizer.json           when it has a text side
//! recipe.json, plan.json   what it was made from
//! checkpoint.json          hash of every file and tensor
//! ```
//!
//! A published base that no stage has trained is not copied: `model.json` has its [`Origin`] instead, and the
//! hash that its weights must have when they are loaded again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::prelude::*;
use indexmap::IndexMap;
use sandhi_data::{
    features::{FeatureConfig, FeatureExtractor},
    text::{Characters, Tokenizer},
};
use sandhi_nn::{
    connector::ConnectorConfig,
    encoder::{CtcHeadConfig, Encoder, EncoderConfig},
    init::Init,
    lora::{self, Linears, LoraConfig, NamedLinears},
    transformer::TransformerConfig,
    weights::{self, Mismatch, NamedTensor, WeightType, Weights},
};
use serde::{Deserialize, Serialize};

use super::{
    Aids, AlignerModel, Compression, ConnectorModel, CtcNet, Origin, Recognizer, Segmenter,
    SpeechModel, SpeechTextModel, TextModel, VocoderModel, aligner::AlignerSpec,
    speech_text::SpeechTextSpec, vocoder::VocoderSpec,
};
use crate::{
    chat::{Chat, PromptLayout},
    checkpoint::{self, Checkpoint, CheckpointWriter, Dtype},
    hf::{self, Hub, Located, ModelSource},
    recipe::{NetworkConfig, PublishedEncoder, PublishedLanguageModel},
    tensor::HostTensor,
};

/// What can go wrong with a model directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is not whole.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The tensors are those of another model.
    #[error("{file} does not fit model.json:\n{mismatch}")]
    Tensors {
        /// The file.
        file: String,
        /// What is missing, left over or misshapen.
        mismatch: Mismatch,
    },
    /// The front end's settings are not possible.
    #[error(transparent)]
    Features(#[from] sandhi_data::features::Error),
    /// Centers of units cannot be read.
    #[error(transparent)]
    Units(#[from] crate::units::Error),
    /// The tokenizer cannot be read or lacks a marker.
    #[error(transparent)]
    Text(#[from] sandhi_data::text::Error),
    /// A published base cannot be loaded again.
    #[error("the {part} is published weights: {source}")]
    Base {
        /// `encoder` or `language model`.
        part: &'static str,
        /// Why.
        source: Box<hf::Error>,
    },
    /// A published base is not what it was.
    #[error(
        "the {part} at {path} has other weights ({found}) than the model was trained with ({expected})"
    )]
    Changed {
        /// `encoder` or `language model`.
        part: &'static str,
        /// Where it was published.
        path: String,
        /// Hash of the weights that are there.
        found: String,
        /// Hash of the weights that the model was trained with.
        expected: String,
    },
    /// A published base is described in another way than it was.
    #[error("the {part} at {path} has other settings or symbols than the model was trained with")]
    Settings {
        /// `encoder` or `language model`.
        part: &'static str,
        /// Where it was published.
        path: String,
    },
    /// `model.json` does not say what it must.
    #[error("{path}: {message}")]
    Spec {
        /// The file.
        path: PathBuf,
        /// What was found and expected.
        message: String,
    },
    /// A published model cannot be loaded.
    #[error(transparent)]
    Published(Box<hf::Error>),
    /// A document is longer than those that the model was trained on.
    #[error("a document has {found} tokens, the model's context is {context}")]
    TooLong {
        /// Its tokens.
        found: usize,
        /// Those that the model takes.
        context: usize,
    },
    /// Patches end where words do.
    #[error(
        "the model's patches end where words do, which is not known of what it has not said yet; it cannot go on"
    )]
    GivenBoundaries,
    /// Units that a vocoder cannot say.
    #[error("found unit {unit} at {position}, the vocoder's quantizer has units below {n_units}")]
    Unit {
        /// The unit.
        unit: u32,
        /// Its place, from 0.
        position: usize,
        /// Units of the quantizer.
        n_units: u32,
    },
    /// Nothing to say.
    #[error("found no units, expected at least one")]
    NoUnits,
    /// Units that are not a whole number of hops long.
    #[error(
        "units at {rate_hz} Hz are not a whole number of hops of {hop} samples long, at 16 kHz"
    )]
    UnitRate {
        /// Units a second.
        rate_hz: f64,
        /// Samples of a hop.
        hop: usize,
    },
    /// Another kind of model was needed.
    #[error("{path} holds a {found} model, expected {expected}")]
    Kind {
        /// The directory.
        path: String,
        /// What it is.
        found: &'static str,
        /// What was needed.
        expected: &'static str,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[allow(clippy::large_enum_variant)] // there is one of them
enum Spec {
    Ctc {
        speech: SpeechSpec,
    },
    Text {
        text: TextSpec,
    },
    Connector {
        speech: SpeechSpec,
        text: TextSpec,
        connector: ConnectorConfig,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compression: Option<Compression>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        segmenter: Option<Segmenter>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pad: Option<u32>,
    },
    Aligner(AlignerSpec),
    SpeechText(SpeechTextSpec),
    Vocoder(VocoderSpec),
}

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
struct TextSpec {
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

/// A model of any kind, as a directory holds it.
#[derive(Debug, Clone)]
pub enum AnyModel {
    /// A speech foundation model.
    Ctc(Box<SpeechModel>),
    /// A text foundation model.
    Text(Box<TextModel>),
    /// A connector between the two.
    Connector(Box<ConnectorModel>),
    /// A text-and-unit aligner.
    Aligner(Box<AlignerModel>),
    /// A language model over text and units.
    SpeechText(Box<SpeechTextModel>),
    /// Units of speech back to sound.
    Vocoder(Box<VocoderModel>),
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
fn put_lora(writer: &mut CheckpointWriter, parts: &[(&str, Weights)]) -> Result<(), Error> {
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

const ENCODER: &str = "encoder.safetensors";
const LANGUAGE_MODEL: &str = "language_model.safetensors";
const CONNECTOR: &str = "connector.safetensors";
const LORA: &str = "lora.safetensors";
/// Names of the parts in [`LORA`].
const SPEECH_PART: &str = "speech";
const TEXT_PART: &str = "language_model";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const SPEC: &str = "model.json";

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
    fn branches(&self) -> Weights {
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
fn beyond(checkpoint: &Checkpoint, message: String) -> Error {
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
    fn spec(&self, whole: bool) -> Result<TextSpec, Error> {
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

    fn write(&self, writer: &mut CheckpointWriter, dtype: Dtype, whole: bool) -> Result<(), Error> {
        if self.origin.is_none() || whole {
            put(writer, LANGUAGE_MODEL, &self.lm, dtype)?;
        }
        writer.bytes(TOKENIZER, self.chat.tokenizer().to_json()?.as_bytes())?;
        Ok(())
    }

    fn read(
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

impl AnyModel {
    /// What kind it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ctc(_) => "ctc",
            Self::Text(_) => "text",
            Self::Connector(_) => "connector",
            Self::Aligner(_) => "aligner",
            Self::SpeechText(_) => "speech_text",
            Self::Vocoder(_) => "vocoder",
        }
    }

    /// What it is made of, in a line: `conformer 2.5 M, slm 0.4 M, transformer 2.6 M`.
    pub fn describe(&self) -> String {
        fn size<M: Module>(what: &str, module: &M) -> String {
            format!("{what} {:.1} M", module.num_params() as f64 / 1e6)
        }
        fn hearing(model: &SpeechModel) -> String {
            match model.ctc_net() {
                Some(net) => size("encoder and ctc head", &net),
                None => size("encoder", &model.encoder),
            }
        }
        match self {
            Self::Ctc(model) => hearing(model),
            Self::Text(model) => size("language model", &model.lm),
            Self::Connector(model) => [
                hearing(&model.speech),
                size("connector", &model.connector),
                size("language model", &model.text.lm),
            ]
            .join(", "),
            Self::Aligner(model) => match &model.units {
                Some(units) => {
                    size(&format!("aligner of {} units", units.n_clusters()), &model.net)
                }
                None => size("aligner of frames", &model.net),
            },
            Self::Vocoder(model) => {
                size(&format!("vocoder of {} units", model.units.n_units), &model.net)
            }
            Self::SpeechText(model) => {
                let over = match &model.config {
                    NetworkConfig::Plain(_) => "tokens",
                    NetworkConfig::Patch(_) => "patches",
                };
                let network = size(&format!("transformer over {over}"), &model.net);
                let heard = model.hearing.as_ref().map(|h| hearing(&h.speech));
                heard.into_iter().chain([network]).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// Writes the directory; it appears whole or not at all. Published bases that are still what was
    /// published are named and not copied.
    ///
    /// # Errors
    ///
    /// When the directory exists and is something else, or cannot be written.
    pub fn save(&self, dir: &Path, dtype: Dtype) -> Result<(), Error> {
        self.write(dir, dtype, false, &[])
    }

    /// Writes the directory with all weights in it, those of published bases too, and with documents beside them:
    /// name and JSON of each.
    ///
    /// # Errors
    ///
    /// As [`Self::save`].
    pub fn save_whole(
        &self,
        dir: &Path,
        dtype: Dtype,
        documents: &[(&str, serde_json::Value)],
    ) -> Result<(), Error> {
        self.write(dir, dtype, true, documents)
    }

    /// As [`Self::save`], with what the model was made from beside it: name and JSON of each document.
    pub(crate) fn save_with(
        &self,
        dir: &Path,
        documents: &[(&str, serde_json::Value)],
    ) -> Result<(), Error> {
        self.write(dir, Dtype::F32, false, documents)
    }

    fn write(
        &self,
        dir: &Path,
        dtype: Dtype,
        whole: bool,
        documents: &[(&str, serde_json::Value)],
    ) -> Result<(), Error> {
        let mut writer = CheckpointWriter::create(dir)?;
        for (name, document) in documents {
            writer.json(name, document)?;
        }
        match self {
            Self::Ctc(model) => {
                writer.json(SPEC, &Spec::Ctc { speech: model.spec(whole) })?;
                model.write(&mut writer, dtype, whole)?;
                put_lora(&mut writer, &[(SPEECH_PART, model.branches())])?;
            }
            Self::Text(model) => {
                writer.json(SPEC, &Spec::Text { text: model.spec(whole)? })?;
                model.write(&mut writer, dtype, whole)?;
                put_lora(&mut writer, &[(TEXT_PART, lora::lora_weights(&model.lm))])?;
            }
            Self::Connector(model) => {
                let spec = Spec::Connector {
                    speech: model.speech.spec(whole),
                    text: model.text.spec(whole)?,
                    connector: model.config.clone(),
                    compression: model.compression,
                    segmenter: model.segmenter,
                    pad: model.pad,
                };
                writer.json(SPEC, &spec)?;
                model.speech.write(&mut writer, dtype, whole)?;
                model.text.write(&mut writer, dtype, whole)?;
                put(&mut writer, CONNECTOR, &model.connector, dtype)?;
                let parts = [
                    (SPEECH_PART, model.speech.branches()),
                    (TEXT_PART, lora::lora_weights(&model.text.lm)),
                ];
                put_lora(&mut writer, &parts)?;
            }
            Self::Aligner(model) => {
                let spec = model.write(&mut writer, dtype)?;
                writer.json(SPEC, &Spec::Aligner(spec))?;
            }
            Self::SpeechText(model) => {
                let spec = model.write(&mut writer, dtype, whole)?;
                writer.json(SPEC, &Spec::SpeechText(spec))?;
            }
            Self::Vocoder(model) => {
                let spec = model.write(&mut writer, dtype, whole)?;
                writer.json(SPEC, &Spec::Vocoder(spec))?;
            }
        }
        writer.finish()?;
        Ok(())
    }

    /// A model of ours from its directory, or a published one: a speech encoder with its CTC head where it has one, or
    /// a language model.
    ///
    /// # Errors
    ///
    /// As [`AnyModel::load`]; [`Error::Published`].
    pub fn open(source: &ModelSource, device: &Device, hub: &Hub) -> Result<Self, Error> {
        match source {
            ModelSource::Directory(dir) if !dir.join("config.json").exists() => {
                Self::load(dir, device, hub)
            }
            source => Self::published(source, device, hub)
                .map_err(|error| Error::Published(Box::new(error))),
        }
    }

    fn published(source: &ModelSource, device: &Device, hub: &Hub) -> Result<Self, hf::Error> {
        let at = hub.locate(source)?;
        Ok(if hf::is_speech(&at.dir)? {
            Self::Ctc(Box::new(hf::speech_model(&at, &PublishedEncoder::default(), device)?))
        } else {
            let config = PublishedLanguageModel::default();
            Self::Text(Box::new(hf::text_model(&at, &config, None, device)?))
        })
    }

    /// Reads a directory and verifies every byte of it.
    ///
    /// # Errors
    ///
    /// When a file is missing, truncated or altered, or does not fit `model.json`; when a published base cannot be
    /// found again, or is not what it was.
    pub fn load(dir: &Path, device: &Device, hub: &Hub) -> Result<Self, Error> {
        let checkpoint = Checkpoint::open(dir)?;
        Ok(match checkpoint.json::<Spec>(SPEC)? {
            Spec::Ctc { speech } => {
                Self::Ctc(Box::new(SpeechModel::read(&checkpoint, speech, device, hub)?))
            }
            Spec::Text { text } => {
                Self::Text(Box::new(TextModel::read(&checkpoint, text, device, hub)?))
            }
            Spec::Connector { speech, text, connector, compression, segmenter, pad } => {
                let speech = SpeechModel::read(&checkpoint, speech, device, hub)?;
                let text = TextModel::read(&checkpoint, text, device, hub)?;
                let widths = sandhi_nn::connector::Widths {
                    d_encoder: speech.d_encoder(),
                    d_model: text.config.d_model,
                };
                let wrong = [connector.problems(), connector.misfits(widths)].concat();
                if let Some(problem) = wrong.into_iter().next() {
                    return Err(beyond(&checkpoint, format!("connector: {problem}")));
                }
                let module = connector.init(widths, &Init::blank(device));
                let module = get(&checkpoint, CONNECTOR, module)?;
                if let Some(compression) = &compression {
                    compression
                        .check(text.lm.n_tokens())
                        .map_err(|problem| beyond(&checkpoint, problem))?;
                }
                let aids = Aids::of(&connector, &speech, pad);
                if let Some(problem) = aids.problem() {
                    return Err(beyond(&checkpoint, problem.to_owned()));
                }
                if let Some(pad) = pad.filter(|&pad| pad as usize >= text.lm.n_tokens()) {
                    let n_tokens = text.lm.n_tokens();
                    let problem = format!("pad is token {pad}, the model has {n_tokens}");
                    return Err(beyond(&checkpoint, problem));
                }
                if aids.needs.segments && (segmenter.is_none() || speech.recognizer.is_none()) {
                    let problem = "the connector cuts speech into tokens, and there is no segmenter or no CTC head";
                    return Err(beyond(&checkpoint, problem.to_owned()));
                }
                Self::Connector(Box::new(ConnectorModel {
                    speech,
                    text,
                    config: connector,
                    connector: module,
                    compression,
                    segmenter,
                    pad,
                }))
            }
            Spec::Aligner(spec) => {
                Self::Aligner(Box::new(AlignerModel::read(&checkpoint, spec, device)?))
            }
            Spec::SpeechText(spec) => {
                Self::SpeechText(Box::new(SpeechTextModel::read(&checkpoint, spec, device, hub)?))
            }
            Spec::Vocoder(spec) => {
                Self::Vocoder(Box::new(VocoderModel::read(&checkpoint, spec, device, hub)?))
            }
        })
    }

    /// The speech foundation model of a directory.
    ///
    /// # Errors
    ///
    /// [`Error::Kind`] when it holds another kind; otherwise as [`AnyModel::load`].
    pub fn load_speech(dir: &Path, device: &Device, hub: &Hub) -> Result<SpeechModel, Error> {
        match Self::load(dir, device, hub)? {
            Self::Ctc(model) => Ok(*model),
            other => Err(other.wrong_kind(dir, "ctc")),
        }
    }

    /// Reads a vocoder.
    ///
    /// # Errors
    ///
    /// As [`Self::load`]; when it is of another kind.
    pub fn load_vocoder(dir: &Path, device: &Device, hub: &Hub) -> Result<VocoderModel, Error> {
        match Self::load(dir, device, hub)? {
            Self::Vocoder(model) => Ok(*model),
            other => Err(other.wrong_kind(dir, "vocoder")),
        }
    }

    /// The text foundation model of a directory.
    ///
    /// # Errors
    ///
    /// [`Error::Kind`] when it holds another kind; otherwise as [`AnyModel::load`].
    pub fn load_text(dir: &Path, device: &Device, hub: &Hub) -> Result<TextModel, Error> {
        match Self::load(dir, device, hub)? {
            Self::Text(model) => Ok(*model),
            other => Err(other.wrong_kind(dir, "text")),
        }
    }

    fn wrong_kind(&self, dir: &Path, expected: &'static str) -> Error {
        Error::Kind { path: dir.display().to_string(), found: self.kind(), expected }
    }
}
