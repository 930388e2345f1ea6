//! Recipes: an experiment as a TOML file.
//!
//! ```text
//! slm.toml ─ extends ─> base.toml ─ merged ─ --set a.b=c ─ parsed ─> Recipe ─ resolve ─> Plan
//! ```
//!
//! A recipe says what the file says and nothing is looked up; [`crate::plan`] resolves it. Every
//! unknown key, wrong type and missing field is reported, all at once.

mod aligner;
mod base;
mod distill;
mod eval;
mod optimizer;
mod read;
mod sources;
mod speech_text;
mod stage;
mod transport;
mod vocoder;

use std::collections::{BTreeMap, BTreeSet};

use sandhi_data::features::FeatureConfig;
use sandhi_nn::{
    connector::ConnectorConfig,
    encoder::{CtcHeadConfig, EncoderConfig},
    lora::LoraConfig,
    transformer::TransformerConfig,
};
use serde::{Deserialize, Serialize};

pub(crate) use self::sources::AS_SPOKEN;
pub use self::{
    aligner::{AlignerModelConfig, UnitsConfig},
    base::{BaseConfig, Published, PublishedEncoder, PublishedLanguageModel},
    distill::{DistillationConfig, EmbeddingConfig},
    eval::{ChoicesConfig, EvalConfig, Half},
    optimizer::{MatrixRule, OptimizerConfig, Schedule},
    read::{Error, Overrides, Problems, read, read_str},
    sources::{
        DocumentsSource, ManifestSource, MicroworldSource, SourceConfig, SpellingSource,
        TextSource, WildSource,
    },
    speech_text::{
        Form, NetworkConfig, SpeechTextModelConfig, SpeechUnitsConfig, StoriesSource, UnitsSource,
    },
    stage::{BatchConfig, LossConfig, Measure, StageConfig},
    transport::{GradientKind, PadMass, SolverConfig, SparsityKind, TargetMass, TransportConfig},
    vocoder::VocoderModelConfig,
};
use crate::{hf::ModelName, model::Segmenter};

/// An experiment as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the row in tables.
    pub name: String,
    /// What it shows, in a sentence.
    #[serde(default)]
    pub about: String,
    /// Every random stream of the run derives from it.
    pub seed: u64,
    /// A row that sees what it would not have in use (transcripts, lengths, boundaries) says so.
    #[serde(default)]
    pub oracle: bool,
    /// Folders that the command line gives with `--path name=DIR`; sources write `$name/…`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub paths: BTreeMap<String, String>,
    /// What is trained.
    pub model: ModelConfig,
    /// Stages in order. The model carries over; the optimizer and the data do not.
    #[serde(rename = "stage", default)]
    pub stages: Vec<StageConfig>,
    /// What is measured at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalConfig>,
}

impl Recipe {
    /// Models that the recipe names on the Hub.
    pub fn models_of_the_hub(&self) -> Vec<ModelName> {
        let units = |units: &SpeechUnitsConfig| match units {
            SpeechUnitsConfig::Encoder { encoder, .. } => encoder.of_the_hub(),
            SpeechUnitsConfig::Files { .. } => None,
        };
        let named = match &self.model {
            ModelConfig::Connector(model) => {
                [model.encoder.of_the_hub(), model.language_model.of_the_hub()]
            }
            ModelConfig::SpeechText(model) => {
                let text = model.language_model.as_ref().and_then(BaseConfig::of_the_hub);
                [units(&model.units), text]
            }
            ModelConfig::Vocoder(model) => [units(&model.units), None],
            ModelConfig::Ctc(_) | ModelConfig::Text(_) | ModelConfig::Aligner(_) => [None, None],
        };
        named.into_iter().flatten().collect()
    }

    /// The forms in which its stages learn utterances as units.
    pub(crate) fn forms(&self) -> Vec<Form> {
        let sources = self.stages.iter().flat_map(|stage| &stage.sources);
        let form = |source: &SourceConfig| match source {
            SourceConfig::Stories(source) => Some(source.form),
            SourceConfig::Units(source) => Some(source.form),
            _ => None,
        };
        sources.filter_map(form).collect()
    }

    /// Names of the tasks that its stages ask of speech.
    pub(crate) fn asked_of_speech(&self) -> BTreeSet<String> {
        self.stages.iter().flat_map(|stage| &stage.sources).flat_map(SourceConfig::asked).collect()
    }
}

/// The `[model]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // there is one of them
pub enum ModelConfig {
    /// A speech encoder with a CTC head: the speech foundation model.
    Ctc(CtcModelConfig),
    /// A language model: the text foundation model.
    Text(TextModelConfig),
    /// Encoder, connector, language model.
    Connector(ConnectorModelConfig),
    /// A text-and-unit aligner: when the characters of a known text are said.
    Aligner(AlignerModelConfig),
    /// A language model over text and units of speech.
    SpeechText(SpeechTextModelConfig),
    /// Units of speech back to sound.
    Vocoder(VocoderModelConfig),
}

/// `kind = "ctc"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CtcModelConfig {
    /// The front end.
    pub features: FeatureConfig,
    /// The encoder.
    pub encoder: EncoderConfig,
    /// The head.
    pub ctc: CtcHeadConfig,
}

/// `kind = "text"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextModelConfig {
    /// The tokenizer to train.
    pub tokenizer: TokenizerConfig,
    /// The transformer.
    pub language_model: TransformerConfig,
    /// Low-rank branches beside linear layers, for stages that train `["*lora_*"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

/// Byte-level BPE, trained on the text of the longest stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerConfig {
    /// Tokens, markers included. More tokens make fewer pieces a word.
    pub vocab_size: usize,
    /// Documents that the merges are learned from.
    #[serde(default = "default_tokenizer_documents")]
    pub n_documents: usize,
}

fn default_tokenizer_documents() -> usize {
    20_000
}

/// `kind = "connector"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectorModelConfig {
    /// The speech foundation model, frozen unless a stage trains it.
    pub encoder: BaseConfig<PublishedEncoder>,
    /// The text foundation model, frozen unless a stage trains it.
    pub language_model: BaseConfig<PublishedLanguageModel>,
    /// What joins them.
    pub connector: ConnectorConfig,
    /// The token of the language model that stands for no content, e.g. `<|pad|>`: what pauses are drawn to and known
    /// by. Stages with a transport loss or a compression that have a use for one need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token: Option<String>,
    /// What tells where tokens end, for connectors that cut speech there: `forced` (the transcript in use too: an oracle)
    /// or `ctc` (what the encoder's CTC head reads).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmenter: Option<Segmenter>,
    /// Low-rank branches beside linear layers of `encoder.…` and `language_model.…`, for stages that train
    /// `["connector", "*lora_*"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
