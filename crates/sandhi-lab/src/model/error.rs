//! What can go wrong with a model.

use std::path::PathBuf;

use sandhi_nn::weights::Mismatch;

use crate::{checkpoint, hf};

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
