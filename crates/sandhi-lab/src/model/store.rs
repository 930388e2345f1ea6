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

use std::path::Path;

use burn::prelude::*;
use sandhi_nn::{connector::ConnectorConfig, init::Init, lora};
use serde::{Deserialize, Serialize};

use super::{
    Aids, AlignerModel, Compression, ConnectorModel, Error, Segmenter, SpeechModel,
    SpeechTextModel, TextModel, VocoderModel,
    aligner::AlignerSpec,
    parts::{SPEC, SPEECH_PART, SpeechSpec, TEXT_PART, TextSpec, beyond, get, put, put_lora},
    speech_text::SpeechTextSpec,
    vocoder::VocoderSpec,
};
use crate::{
    checkpoint::{Checkpoint, CheckpointWriter, Dtype},
    hf::{self, Hub, ModelSource},
    recipe::{NetworkConfig, PublishedEncoder, PublishedLanguageModel},
};

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

const CONNECTOR: &str = "connector.safetensors";

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
