//! Where the encoder and the language model of a connector come from.

use sandhi_nn::weights::WeightType;
use serde::{Deserialize, Serialize};

use super::is_default;
use crate::hf::ModelName;

/// Where a foundation model comes from; `P` says what can be said of a published one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum BaseConfig<P> {
    /// A model directory.
    Directory {
        /// Relative to the recipe's file.
        path: String,
        /// How its matrices are held; in 16 bits they take half the memory and cannot be trained. On devices other than
        /// the CPU half is true of inference: backward keeps an f32 copy of every matrix that gradients flow through.
        #[serde(default, skip_serializing_if = "is_default")]
        dtype: WeightType,
    },
    /// A published checkpoint, in Hugging Face's layout.
    HuggingFace(P),
    /// Sizes only: such a recipe can be planned, not trained.
    Declared {
        /// What it stands for.
        name: String,
        /// Parameters, heads included.
        n_parameters: u64,
        /// Width of its frames or embeddings.
        width: usize,
        /// Frames or tokens a second, for what is planned from it.
        #[serde(default)]
        rate_hz: f64,
        /// How its matrices would be held.
        #[serde(default, skip_serializing_if = "is_default")]
        dtype: WeightType,
    },
}

/// A speech encoder of `from = "hugging_face"`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedEncoder {
    /// A directory, relative to the recipe's file, or `hf:owner/name@revision`.
    pub path: String,
    /// How its matrices are held, as [`BaseConfig::Directory`] says.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dtype: WeightType,
    /// Which frames are handed out, of the wav2vec 2.0 family: those that go into block `layer`, counted from 0, as
    /// `hidden_states[layer]` of `transformers`; those of the last block where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// Utterances are padded to 30 s, as Whisper's authors do; otherwise they keep their length.
    #[serde(default)]
    pub pad_to_30_s: bool,
}

/// A language model of `from = "hugging_face"`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedLanguageModel {
    /// A directory, relative to the recipe's file, or `hf:owner/name@revision`.
    pub path: String,
    /// How its matrices are held, as [`BaseConfig::Directory`] says.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dtype: WeightType,
    /// A LoRA adapter in PEFT's layout whose branches are folded into the model: a directory, relative to the recipe's
    /// file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// What the model is asked with: a text with `{instruction}`, then `{speech}`, special tokens as they are
    /// written; the answer follows it. The chat template where nothing is said, and for a model without one
    /// `{instruction}\n{speech}\n`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The system message of the chat template; the template's own where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
}

/// What is said of every published checkpoint.
pub trait Published {
    /// Where it is.
    fn path(&self) -> &str;
    /// How its matrices are held.
    fn dtype(&self) -> WeightType;
}

impl Published for PublishedEncoder {
    fn path(&self) -> &str {
        &self.path
    }
    fn dtype(&self) -> WeightType {
        self.dtype
    }
}

impl Published for PublishedLanguageModel {
    fn path(&self) -> &str {
        &self.path
    }
    fn dtype(&self) -> WeightType {
        self.dtype
    }
}

impl<P: Published> BaseConfig<P> {
    /// How the matrices are held.
    pub fn dtype(&self) -> WeightType {
        match self {
            Self::Directory { dtype, .. } | Self::Declared { dtype, .. } => *dtype,
            Self::HuggingFace(published) => published.dtype(),
        }
    }

    /// The model that is named on the Hub. A name that is none is left to the plan.
    pub(super) fn of_the_hub(&self) -> Option<ModelName> {
        match self {
            Self::HuggingFace(published) => ModelName::parse(published.path()).ok(),
            Self::Directory { .. } | Self::Declared { .. } => None,
        }
    }
}
