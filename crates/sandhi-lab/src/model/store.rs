//! Models on disk: one directory, verified when it is opened.
//!
//! ```text
//! model.json               what it is: kind, settings, symbols
//! *.safetensors            encoder, language_model, connector
//! lora.safetensors         the low-rank branches of encoder and language model, which are stored without them
//! tokenizer.json           when it has a text side
//! checkpoint.json          hash of every file and tensor
//! ```

use std::{path::Path, sync::Arc};

use burn::prelude::*;
use indexmap::IndexMap;
use sandhi_data::{
    features::{FeatureConfig, FeatureExtractor},
    text::{Characters, Tokenizer},
};
use sandhi_nn::{
    connector::ConnectorConfig,
    encoder::{CtcHeadConfig, EncoderConfig},
    init::Init,
    lora::{self, Linears, LoraConfig},
    transformer::TransformerConfig,
    weights::{self, Mismatch, NamedTensor, Weights},
};
use serde::{Deserialize, Serialize};

use super::{ConnectorModel, CtcNet, SpeechModel, TextModel};
use crate::{
    chat::Chat,
    checkpoint::{self, Checkpoint, CheckpointWriter, Dtype},
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
    /// The tokenizer cannot be read or lacks a marker.
    #[error(transparent)]
    Text(#[from] sandhi_data::text::Error),
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
    Ctc { speech: SpeechSpec },
    Text { text: TextSpec },
    Connector { speech: SpeechSpec, text: TextSpec, connector: ConnectorConfig },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpeechSpec {
    features: FeatureConfig,
    encoder: EncoderConfig,
    ctc: CtcHeadConfig,
    symbols: Characters,
    /// Branches; names as in the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lora: Option<LoraConfig>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextSpec {
    transformer: TransformerConfig,
    n_tokens: usize,
    /// Branches; names as in the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lora: Option<LoraConfig>,
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
}

/// A hash of all weights of a module: what a checkpoint of frozen parts is checked against.
pub fn fingerprint<M: Module>(module: &M) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, tensor) in weights::weights(module) {
        hasher.update(name.as_bytes());
        hasher.update(bytemuck::cast_slice(&tensor.values));
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

fn put<M: Module>(
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
    weights::load_where(module, &own, |info| lora::is_lora(&info.name)).map_err(|mismatch| {
        Error::Tensors { file: checkpoint.dir().join(LORA).display().to_string(), mismatch }
    })
}

fn get<M: Module>(checkpoint: &Checkpoint, file: &str, module: M) -> Result<M, Error> {
    weights::load(module, &from_host(checkpoint.tensors(file)?)).map_err(|mismatch| {
        Error::Tensors { file: checkpoint.dir().join(file).display().to_string(), mismatch }
    })
}

const ENCODER: &str = "encoder.safetensors";
const LANGUAGE_MODEL: &str = "language_model.safetensors";
const CONNECTOR: &str = "connector.safetensors";
const LORA: &str = "lora.safetensors";
/// Names of the parts in [`LORA`].
const SPEECH_PART: &str = "speech";
const TEXT_PART: &str = "language_model";
const TOKENIZER: &str = "tokenizer.json";
const SPEC: &str = "model.json";

impl SpeechModel {
    fn spec(&self) -> SpeechSpec {
        SpeechSpec {
            features: self.features.clone(),
            encoder: self.encoder.clone(),
            ctc: self.ctc.clone(),
            symbols: self.symbols.clone(),
            lora: lora::describe(&self.net),
        }
    }

    fn read(checkpoint: &Checkpoint, spec: SpeechSpec, device: &Device) -> Result<Self, Error> {
        let init = Init::new(0, device);
        let extractor = FeatureExtractor::new(&spec.features)?;
        let net = CtcNet {
            encoder: spec.encoder.init(extractor.n_mels(), &init.child("encoder")),
            head: spec.ctc.init(
                spec.encoder.d_encoder(),
                spec.symbols.n_symbols(),
                &init.child("head"),
            ),
        };
        let net = get(checkpoint, ENCODER, net)?;
        let net = get_lora(checkpoint, SPEECH_PART, spec.lora.as_ref(), net)?;
        Ok(Self {
            features: spec.features,
            encoder: spec.encoder,
            ctc: spec.ctc,
            symbols: spec.symbols,
            net,
            extractor: Arc::new(extractor),
        })
    }
}

impl TextModel {
    fn spec(&self) -> TextSpec {
        let lora = lora::describe(&self.lm);
        TextSpec { transformer: self.config.clone(), n_tokens: self.lm.n_tokens(), lora }
    }

    fn read(checkpoint: &Checkpoint, spec: TextSpec, device: &Device) -> Result<Self, Error> {
        let lm = spec.transformer.init(spec.n_tokens, &Init::new(0, device));
        let lm = get(checkpoint, LANGUAGE_MODEL, lm)?;
        let lm = get_lora(checkpoint, TEXT_PART, spec.lora.as_ref(), lm)?;
        let tokenizer = Tokenizer::from_bytes(&checkpoint.bytes(TOKENIZER)?)?;
        Ok(Self { config: spec.transformer, lm, chat: Chat::new(tokenizer)? })
    }
}

impl AnyModel {
    /// What kind it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ctc(_) => "ctc",
            Self::Text(_) => "text",
            Self::Connector(_) => "connector",
        }
    }

    /// What it is made of, in a line: `conformer 2.5 M, slm 0.4 M, transformer 2.6 M`.
    pub fn describe(&self) -> String {
        fn size<M: Module>(what: &str, module: &M) -> String {
            format!("{what} {:.1} M", module.num_params() as f64 / 1e6)
        }
        match self {
            Self::Ctc(model) => size("encoder and ctc head", &model.net),
            Self::Text(model) => size("language model", &model.lm),
            Self::Connector(model) => [
                size("encoder and ctc head", &model.speech.net),
                size("connector", &model.connector),
                size("language model", &model.text.lm),
            ]
            .join(", "),
        }
    }

    /// Writes the directory; it appears whole or not at all.
    ///
    /// # Errors
    ///
    /// When the directory exists and is something else, or cannot be written.
    pub fn save(&self, dir: &Path, dtype: Dtype) -> Result<(), Error> {
        let mut writer = CheckpointWriter::create(dir)?;
        let tokenizer = |writer: &mut CheckpointWriter, text: &TextModel| -> Result<(), Error> {
            writer.bytes(TOKENIZER, text.chat.tokenizer().to_json()?.as_bytes())?;
            Ok(())
        };
        match self {
            Self::Ctc(model) => {
                writer.json(SPEC, &Spec::Ctc { speech: model.spec() })?;
                put(&mut writer, ENCODER, &model.net, dtype)?;
                put_lora(&mut writer, &[(SPEECH_PART, lora::lora_weights(&model.net))])?;
            }
            Self::Text(model) => {
                writer.json(SPEC, &Spec::Text { text: model.spec() })?;
                put(&mut writer, LANGUAGE_MODEL, &model.lm, dtype)?;
                put_lora(&mut writer, &[(TEXT_PART, lora::lora_weights(&model.lm))])?;
                tokenizer(&mut writer, model)?;
            }
            Self::Connector(model) => {
                let spec = Spec::Connector {
                    speech: model.speech.spec(),
                    text: model.text.spec(),
                    connector: model.config.clone(),
                };
                writer.json(SPEC, &spec)?;
                put(&mut writer, ENCODER, &model.speech.net, dtype)?;
                put(&mut writer, LANGUAGE_MODEL, &model.text.lm, dtype)?;
                put(&mut writer, CONNECTOR, &model.connector, dtype)?;
                let parts = [
                    (SPEECH_PART, lora::lora_weights(&model.speech.net)),
                    (TEXT_PART, lora::lora_weights(&model.text.lm)),
                ];
                put_lora(&mut writer, &parts)?;
                tokenizer(&mut writer, &model.text)?;
            }
        }
        writer.finish()?;
        Ok(())
    }

    /// Reads a directory and verifies every byte of it.
    ///
    /// # Errors
    ///
    /// When a file is missing, truncated or altered, or does not fit `model.json`.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, Error> {
        let checkpoint = Checkpoint::open(dir)?;
        Ok(match checkpoint.json::<Spec>(SPEC)? {
            Spec::Ctc { speech } => {
                Self::Ctc(Box::new(SpeechModel::read(&checkpoint, speech, device)?))
            }
            Spec::Text { text } => {
                Self::Text(Box::new(TextModel::read(&checkpoint, text, device)?))
            }
            Spec::Connector { speech, text, connector } => {
                let speech = SpeechModel::read(&checkpoint, speech, device)?;
                let text = TextModel::read(&checkpoint, text, device)?;
                let widths = sandhi_nn::connector::Widths {
                    d_encoder: speech.d_encoder(),
                    d_model: text.config.d_model,
                };
                let module = connector.init(widths, &Init::new(0, device));
                let module = get(&checkpoint, CONNECTOR, module)?;
                Self::Connector(Box::new(ConnectorModel {
                    speech,
                    text,
                    config: connector,
                    connector: module,
                }))
            }
        })
    }

    /// The speech foundation model of a directory.
    ///
    /// # Errors
    ///
    /// [`Error::Kind`] when it holds another kind; otherwise as [`AnyModel::load`].
    pub fn load_speech(dir: &Path, device: &Device) -> Result<SpeechModel, Error> {
        match Self::load(dir, device)? {
            Self::Ctc(model) => Ok(*model),
            other => Err(other.wrong_kind(dir, "ctc")),
        }
    }

    /// The text foundation model of a directory.
    ///
    /// # Errors
    ///
    /// [`Error::Kind`] when it holds another kind; otherwise as [`AnyModel::load`].
    pub fn load_text(dir: &Path, device: &Device) -> Result<TextModel, Error> {
        match Self::load(dir, device)? {
            Self::Text(model) => Ok(*model),
            other => Err(other.wrong_kind(dir, "text")),
        }
    }

    fn wrong_kind(&self, dir: &Path, expected: &'static str) -> Error {
        Error::Kind { path: dir.display().to_string(), found: self.kind(), expected }
    }
}
