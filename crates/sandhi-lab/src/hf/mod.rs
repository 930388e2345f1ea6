//! Published checkpoints: directories in Hugging Face's layout, loaded whole or not at all.
//!
//! ```text
//! config.json                       what the model is
//! model.safetensors                 its tensors, or
//! model.safetensors.index.json      where they are: model-00001-of-00005.safetensors, …
//! pytorch_model.bin, ….index.json   the same as PyTorch saves them, where there are no safetensors
//! tokenizer.json, tokenizer_config.json, chat_template.jinja, generation_config.json
//! ```
//!
//! [`hub`] downloads them by name. Files are mapped, and their tensors converted to f32. Every tensor that is missing, left over or of
//! another shape is listed, and any of them is fatal, before a model of that size is made.

mod bases;
mod config;
mod export;
pub mod hub;
pub(crate) mod known;
mod peft;
mod pickle;
mod prompt;
mod sandbox;
mod shards;
mod speech;
mod verify;

use std::path::{Path, PathBuf};

use burn::prelude::*;
use sandhi_nn::{
    init::Init,
    transformer::{CausalLm, TransformerConfig},
    weights,
};

pub(crate) use self::bases::{is_speech, known_speech};
pub use self::{
    bases::{check_speech, check_text, speech_model, text_model},
    config::{Family, LanguageModelConfig},
    export::{export_language_model, export_speech_encoder},
    hub::{Hub, HubError, Located, ModelName, ModelSource, Snapshot, Want},
    peft::{export_adapter, load_adapter},
    shards::{ShardIndex, Shards},
    speech::{PublishedCtcHead, SpeechEncoder, SpeechEncoderConfig},
    verify::{OutputDifference, verify},
};
use crate::{checkpoint::files, model::from_host, plan::count};

/// What can go wrong with a published checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not JSON.
    #[error("{}: not JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A configuration says what cannot be.
    #[error("{}: {message}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Field, found, expected.
        message: String,
    },
    /// Files of tensors are damaged or do not fit together.
    #[error("{}: {message}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What was found and expected.
        message: String,
    },
    /// The tensors are those of another model.
    #[error("{} does not hold what its config.json describes:\n{mismatch}", dir.display())]
    Mismatch {
        /// The directory.
        dir: PathBuf,
        /// What is missing, left over or misshapen.
        mismatch: weights::Mismatch,
    },
    /// A recipe's prompt lacks a place.
    #[error("prompt is {prompt:?}, expected a text with {{instruction}} and, after it, {{speech}}")]
    Prompt {
        /// What the recipe says.
        prompt: String,
    },
    /// The front end that a checkpoint asks for is not possible.
    #[error(transparent)]
    Features(#[from] sandhi_data::features::Error),
    /// Nobody else has a model like this one.
    #[error("no published family computes what this configuration does: {config:?}")]
    NoFamily {
        /// The configuration.
        config: Box<TransformerConfig>,
    },
    /// Nobody else has an encoder like this one.
    #[error(
        "only encoders in Whisper's layout over Whisper's features are exported, this one is another"
    )]
    NoEncoderFamily,
    /// A published model has no branches.
    #[error("the model has LoRA branches: merge them, or write them alone")]
    Branches,
    /// There is no adapter to write.
    #[error("the language model has no LoRA branches")]
    NoBranches,
    /// What is there may be somebody's, cards and notes included.
    #[error("{} exists, expected the name of a new directory", dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// A model cannot be fetched.
    #[error(transparent)]
    Hub(Box<HubError>),
    /// A name is none of a model.
    #[error(transparent)]
    Name(#[from] hub::NameError),
    /// A file cannot be read, or a directory not be written.
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::Error),
    /// A tokenizer cannot be read or written.
    #[error(transparent)]
    Text(#[from] sandhi_data::text::Error),
}

impl From<HubError> for Error {
    fn from(error: HubError) -> Self {
        Self::Hub(Box::new(error))
    }
}

/// Reads a JSON file.
pub(crate) fn read_json(path: &Path) -> Result<serde_json::Value, Error> {
    let bytes = files::read(path)?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// A published language model.
#[derive(Debug, Clone)]
pub struct LanguageModel {
    /// What its `config.json` says.
    pub config: LanguageModelConfig,
    /// Its weights, in f32.
    pub lm: CausalLm,
}

impl LanguageModel {
    /// Loads the directory.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn load(dir: &Path, device: &Device) -> Result<Self, Error> {
        let path = dir.join("config.json");
        let config = LanguageModelConfig::read(&path, &read_json(&path)?)?;
        let shards = Shards::open(dir)?;
        let mut tensors = shards.tensors()?;
        // Buffers that old checkpoints carry: functions of the configuration.
        tensors.retain(|name, _| !name.ends_with(".rotary_emb.inv_freq"));
        if config.transformer.tie_embeddings {
            untie(dir, &mut tensors)?;
        }
        let mismatch = |mismatch| Error::Mismatch { dir: dir.to_owned(), mismatch };
        let tensors = from_host(tensors);
        // Before a model of the described size is made: a damaged size must not ask for the memory.
        let expected = count::language_model(&config.transformer, config.n_tokens).shapes();
        weights::check_shapes(&expected, &tensors).map_err(mismatch)?;
        let lm = config.transformer.init(config.n_tokens, &Init::blank(device));
        let lm = weights::load(lm, tensors).map_err(mismatch)?;
        Ok(Self { config, lm })
    }
}

/// Takes a copy of the embedding table away that a tied model may carry as its output layer; one that is no
/// copy means that the model is not tied.
fn untie(
    dir: &Path,
    tensors: &mut indexmap::IndexMap<String, crate::tensor::HostTensor>,
) -> Result<(), Error> {
    let Some(head) = tensors.shift_remove("lm_head.weight") else { return Ok(()) };
    match tensors.get("model.embed_tokens.weight") {
        Some(table) if *table == head => Ok(()),
        _ => Err(Error::Tensors {
            path: dir.to_owned(),
            message:
                "tie_word_embeddings is true, but lm_head.weight is not model.embed_tokens.weight"
                    .into(),
        }),
    }
}

#[cfg(test)]
mod tests;
