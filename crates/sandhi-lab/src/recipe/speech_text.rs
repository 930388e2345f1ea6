//! Models of units and text in recipes.
//!
//! ```toml
//! [model]
//! kind = "speech_text"
//! tokenizer = { vocab_size = 600 }
//! units = { from = "encoder", encoder = { from = "directory", path = "$foundation/encoder" }, centers = { from = "fit", n = 100 } }
//! network = { kind = "patch", d_local = 96, … }      # or kind = "plain", a transformer over tokens
//! # or, in the place of tokenizer, what the network begins as; then it is { kind = "patch", text = { … }, … } or "plain"
//! language_model = { from = "directory", path = "$foundation/language_model" }
//! patching = { kind = "static", size = 4 }           # left out where boundaries are learned
//! context = 1024
//! ```

use sandhi_data::{
    microworld::Level,
    patching::{Closure, PatchingConfig},
    speech::Domain,
};
use sandhi_nn::{patch::PatchLmConfig, transformer::TransformerConfig};
use serde::{Deserialize, Serialize};

use super::{
    BaseConfig, PublishedEncoder, PublishedLanguageModel, TokenizerConfig, UnitsConfig, is_default,
};

/// `kind = "speech_text"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeechTextModelConfig {
    /// Pieces of text; markers and units are added to them. Those of `language_model` where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerConfig>,
    /// The text foundation model that the network begins as: one over tokens as it is, one over patches in the place of its
    /// global transformer. The network says the sizes that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_model: Option<BaseConfig<PublishedLanguageModel>>,
    /// Special tokens of `language_model` that documents begin and end with; those that its prompts and answers begin and
    /// end with where nothing is said, which of a chat model are not those of its pretraining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edges: Option<[String; 2]>,
    /// What units are.
    pub units: SpeechUnitsConfig,
    /// Byte-pair merges of units, tokens beside them, learned from what the first stage hears: speech becomes shorter by a
    /// larger vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_merges: Option<u32>,
    /// What predicts the next token.
    pub network: NetworkConfig,
    /// Where patches end; for a network over patches that does not learn it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patching: Option<PatchingConfig>,
    /// When it is known that a patch that was cut short is whole.
    #[serde(default, skip_serializing_if = "is_default")]
    pub closure: Closure,
    /// Tokens of a document at most; longer ones are cut.
    pub context: usize,
}

/// What units are the units of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum SpeechUnitsConfig {
    /// The nearest centers of an encoder's frames.
    Encoder {
        /// The encoder, which stays as it is.
        encoder: BaseConfig<PublishedEncoder>,
        /// The centers; those that are fitted are fitted to what the first stage hears.
        centers: UnitsConfig,
    },
    /// Those of the unit files that the stages learn from. The model cannot hear sound then.
    Files {
        /// How many there are.
        n: u32,
    },
}

/// What predicts the next token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // there is one of them
pub enum NetworkConfig {
    /// A transformer over tokens.
    Plain(TransformerConfig),
    /// A transformer over patches, with an encoder before and a decoder behind it.
    Patch(PatchLmConfig),
}

impl NetworkConfig {
    /// The transformer that may begin as one of text.
    pub fn text(&self) -> Option<&TransformerConfig> {
        match self {
            Self::Plain(config) => Some(config),
            Self::Patch(config) => config.text.as_ref(),
        }
    }

    /// Whether where patches end is given with the data.
    pub fn wants_patching(&self) -> bool {
        matches!(self, Self::Patch(config) if config.router.is_none())
    }
}

/// What of an utterance is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Blocks of its words and blocks of its units, drawn anew every time it is read.
    #[default]
    Interleaved,
    /// Its units.
    Spoken,
    /// Its words.
    Written,
    /// Its units, and behind them what they say in writing: recognition.
    Transcribed,
    /// What it says in writing, and behind that its units: speaking.
    Voiced,
}

/// `source = "stories"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoriesSource {
    /// Share of the tokens; by the number of items when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// What of a story is learned.
    #[serde(default)]
    pub form: Form,
    /// How it sounds.
    #[serde(default = "base")]
    pub domain: Domain,
    /// What stories turn on; all levels where nothing is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<Level>,
    /// The first of them, so that sources of one recipe can differ.
    #[serde(default, skip_serializing_if = "is_default")]
    pub from: usize,
    /// Stories.
    pub n: usize,
}

fn base() -> Domain {
    Domain::Base
}

/// `source = "units"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitsSource {
    /// Share of the tokens; by the number of items when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// What of an utterance is learned.
    #[serde(default)]
    pub form: Form,
    /// Files of `sandhi units`, all of one quantizer.
    pub files: Vec<String>,
}
