//! Connectors: encoder frames in, vectors of the language model's embedding space out.
//!
//! Adding a connector means adding a variant to [`ConnectorConfig`] and to [`Connector`]; the
//! compiler lists the remaining places.

pub mod slm;

use burn::prelude::*;
use serde::{Deserialize, Serialize};

pub use self::slm::{Reduction, SlmAdapter, SlmConfig};
use crate::{
    init::Init,
    length::Length,
    lora::{Linears, NamedLinears},
    ragged::Ragged,
    transformer::Dropout,
};

/// Widths that the connector shares with its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Widths {
    /// Width of an encoder frame.
    pub d_encoder: usize,
    /// Width of the language model's embeddings.
    pub d_model: usize,
}

/// The `[connector]` table of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ConnectorConfig {
    /// Time reduction and a small transformer (SLM).
    Slm(SlmConfig),
}

/// Maps encoder frames to vectors of the language model's embedding space.
#[derive(Module, Debug)]
pub enum Connector {
    /// See [`SlmAdapter`].
    Slm(SlmAdapter),
}

/// What a connector may look at. What it does not need it ignores.
#[derive(Debug, Clone)]
pub struct ConnectorInput {
    /// `[n_frames, d_encoder]`, one span an utterance.
    pub frames: Ragged,
}

/// What a connector gives.
#[derive(Debug, Clone)]
pub struct ConnectorOutput {
    /// `[n_vectors, d_model]`, one span an utterance.
    pub vectors: Ragged,
}

impl ConnectorConfig {
    /// Builds the chosen connector with random weights.
    pub fn init(&self, widths: Widths, init: &Init) -> Connector {
        match self {
            Self::Slm(config) => Connector::Slm(config.init(widths, init)),
        }
    }

    /// Vectors for `n_frames` encoder frames.
    pub fn length(&self, n_frames: usize) -> Length {
        match self {
            Self::Slm(config) => config.length(n_frames),
        }
    }

    /// Encoder frames from one vector to the next.
    pub fn stride(&self) -> usize {
        match self {
            Self::Slm(config) => config.reduction,
        }
    }

    /// What is wrong with the sizes, as sentences that name the fields.
    pub fn problems(&self) -> Vec<String> {
        match self {
            Self::Slm(config) => config.problems(),
        }
    }
}

impl Linears for Connector {
    fn linears(&mut self) -> NamedLinears<'_> {
        match self {
            Self::Slm(adapter) => adapter.linears(),
        }
    }
}

impl Connector {
    /// Whether blocks run again in the backward pass instead of keeping what they computed.
    pub fn recompute(&mut self, on: bool) {
        match self {
            Self::Slm(adapter) => adapter.recompute(on),
        }
    }

    /// Maps frames to vectors.
    pub fn forward(&self, input: &ConnectorInput, dropout: Dropout) -> ConnectorOutput {
        match self {
            Self::Slm(adapter) => {
                ConnectorOutput { vectors: adapter.forward(&input.frames, dropout) }
            }
        }
    }
}
