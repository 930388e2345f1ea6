//! Connectors: encoder frames in, vectors of the language model's embedding space out.
//!
//! Adding a connector means adding a variant to [`ConnectorConfig`] and to [`Connector`]; the
//! compiler lists the remaining places.

pub mod conv;
pub mod q_former;
pub mod slm;
mod stack;
pub mod stack_mlp;
pub mod stack_swiglu;
#[cfg(test)]
mod tests;
pub mod window_q_former;

use burn::prelude::*;
use serde::{Deserialize, Serialize};

pub use self::{
    conv::{ConvAdapter, ConvConfig},
    q_former::{QFormer, QFormerConfig},
    slm::{Reduction, SlmAdapter, SlmConfig},
    stack::Remainder,
    stack_mlp::{StackMlp, StackMlpConfig},
    stack_swiglu::{SecondNorm, StackSwiglu, StackSwigluConfig},
    window_q_former::WindowQFormerConfig,
};
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
    /// Frames side by side and two linear layers (SLAM-ASR).
    StackMlp(StackMlpConfig),
    /// Frames side by side and a gated layer (Ultravox).
    StackSwiglu(StackSwigluConfig),
    /// Strided convolutions and a bottleneck (BLSP).
    Conv(ConvConfig),
    /// Learned queries that ask the whole utterance (BLIP-2).
    QFormer(QFormerConfig),
    /// Learned queries that ask a window each (SALMONN).
    WindowQFormer(WindowQFormerConfig),
}

/// Maps encoder frames to vectors of the language model's embedding space.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // handles of tensors, not tensors
pub enum Connector {
    /// See [`SlmAdapter`].
    Slm(SlmAdapter),
    /// See [`StackMlp`].
    StackMlp(StackMlp),
    /// See [`StackSwiglu`].
    StackSwiglu(StackSwiglu),
    /// See [`ConvAdapter`].
    Conv(ConvAdapter),
    /// See [`QFormer`].
    QFormer(QFormer),
    /// See [`QFormer`].
    WindowQFormer(QFormer),
}

/// What a connector may look at. What it does not need it ignores; [`ConnectorConfig::needs`] says what it needs.
#[derive(Debug, Clone)]
pub struct ConnectorInput {
    /// `[n_frames, d_encoder]`, one span an utterance.
    pub frames: Ragged,
    /// What the encoder's CTC head takes the frames for.
    pub ctc: Option<CtcSteps>,
    /// The last frame of every segment, counted from the utterance's first and strictly ascending; frames behind the
    /// last one belong to no segment.
    pub segments: Option<Vec<Vec<u32>>>,
    /// The language model's embeddings, `[n_tokens, d_model]`, and the token that stands for no content.
    pub embeddings: Option<Embeddings>,
    /// The tokens that are said, in training alone.
    pub said: Option<Vec<Vec<u32>>>,
}

/// Log-probabilities of the symbols of a CTC head; symbol 0 is the blank.
#[derive(Debug, Clone)]
pub struct CtcSteps {
    /// `[n_steps, n_symbols]`, `steps_per_frame` rows a frame, normalized.
    pub log_probs: Ragged,
    /// Steps of a frame.
    pub steps_per_frame: usize,
}

/// The table of a language model.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// `[n_tokens, d_model]`.
    pub table: Tensor<2>,
    /// The token that stands for no content.
    pub pad: u32,
}

/// What a connector cannot do without, besides the frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// [`ConnectorInput::ctc`].
    pub ctc: bool,
    /// [`ConnectorInput::segments`].
    pub segments: bool,
    /// [`ConnectorInput::embeddings`].
    pub embeddings: bool,
    /// [`ConnectorInput::said`], in training.
    pub said: bool,
}

/// What a connector gives.
#[derive(Debug, Clone)]
pub struct ConnectorOutput {
    /// `[n_vectors, d_model]`, one span an utterance.
    pub vectors: Ragged,
    /// The last frame that every vector is made of, counted from the utterance's first, where that is known.
    pub ends: Option<Vec<Vec<u32>>>,
    /// What the connector itself is to be trained with, one for each of [`ConnectorConfig::penalties`] where
    /// [`ConnectorInput::said`] is given, none otherwise.
    pub penalties: Vec<Tensor<1>>,
}

/// A loss of the connector's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalty {
    /// Its name in logs.
    pub name: &'static str,
    /// Its weight in the total.
    pub weight: f64,
    /// What it is a sum over.
    pub per: Per,
}

/// What a sum is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// Utterances.
    Utterance,
    /// Tokens that are said.
    Token,
    /// Frames of the encoder.
    Frame,
}

impl ConnectorInput {
    /// Frames alone.
    pub fn frames(frames: Ragged) -> Self {
        Self { frames, ctc: None, segments: None, embeddings: None, said: None }
    }
}

impl ConnectorOutput {
    /// Vectors alone.
    fn vectors(vectors: Ragged) -> Self {
        Self { vectors, ends: None, penalties: Vec::new() }
    }
}

impl ConnectorConfig {
    /// Builds the chosen connector with random weights.
    pub fn init(&self, widths: Widths, init: &Init) -> Connector {
        match self {
            Self::Slm(config) => Connector::Slm(config.init(widths, init)),
            Self::StackMlp(config) => Connector::StackMlp(config.init(widths, init)),
            Self::StackSwiglu(config) => Connector::StackSwiglu(config.init(widths, init)),
            Self::Conv(config) => Connector::Conv(config.init(widths, init)),
            Self::QFormer(config) => Connector::QFormer(config.init(widths, init)),
            Self::WindowQFormer(config) => Connector::WindowQFormer(config.init(widths, init)),
        }
    }

    /// Vectors for `n_frames` encoder frames.
    pub fn length(&self, n_frames: usize) -> Length {
        match self {
            Self::Slm(config) => config.length(n_frames),
            Self::StackMlp(config) => config.length(n_frames),
            Self::StackSwiglu(config) => config.length(n_frames),
            Self::Conv(config) => config.length(n_frames),
            Self::QFormer(config) => config.length(n_frames),
            Self::WindowQFormer(config) => config.length(n_frames),
        }
    }

    /// What it cannot do without.
    pub fn needs(&self) -> Needs {
        match self {
            Self::Slm(_)
            | Self::StackMlp(_)
            | Self::StackSwiglu(_)
            | Self::Conv(_)
            | Self::QFormer(_)
            | Self::WindowQFormer(_) => Needs::default(),
        }
    }

    /// Losses of its own.
    pub fn penalties(&self) -> Vec<Penalty> {
        match self {
            Self::Slm(_)
            | Self::StackMlp(_)
            | Self::StackSwiglu(_)
            | Self::Conv(_)
            | Self::QFormer(_)
            | Self::WindowQFormer(_) => Vec::new(),
        }
    }

    /// Encoder frames from one vector to the next; 1 where the data decide, and of a Q-Former, whose vectors stand
    /// for the whole utterance. With several queries a window it is the window's share of one, rounded up.
    pub fn stride(&self) -> usize {
        match self {
            Self::Slm(config) => config.reduction,
            Self::StackMlp(config) => config.reduction,
            Self::StackSwiglu(config) => config.reduction,
            Self::Conv(config) => config.stride(),
            Self::QFormer(_) => 1,
            Self::WindowQFormer(config) => config.window.div_ceil(config.n_queries),
        }
    }

    /// What is wrong with the sizes, as sentences that name the fields.
    pub fn problems(&self) -> Vec<String> {
        match self {
            Self::Slm(config) => config.problems(),
            Self::StackMlp(config) => config.problems(),
            Self::StackSwiglu(config) => config.problems(),
            Self::Conv(config) => config.problems(),
            Self::QFormer(config) => config.problems(),
            Self::WindowQFormer(config) => config.problems(),
        }
    }
}

impl Linears for Connector {
    fn linears(&mut self) -> NamedLinears<'_> {
        match self {
            Self::Slm(connector) => connector.linears(),
            Self::StackMlp(connector) => connector.linears(),
            Self::StackSwiglu(connector) => connector.linears(),
            Self::Conv(connector) => connector.linears(),
            Self::QFormer(connector) => connector.linears(),
            Self::WindowQFormer(connector) => connector.linears(),
        }
    }
}

impl Connector {
    /// Whether blocks run again in the backward pass instead of keeping what they computed. Connectors without blocks
    /// keep it in any case.
    pub fn recompute(&mut self, on: bool) {
        match self {
            Self::Slm(adapter) => adapter.recompute(on),
            Self::QFormer(former) | Self::WindowQFormer(former) => former.recompute(on),
            Self::StackMlp(_) | Self::StackSwiglu(_) | Self::Conv(_) => {}
        }
    }

    /// Maps frames to vectors.
    pub fn forward(&self, input: &ConnectorInput, dropout: Dropout) -> ConnectorOutput {
        let frames = &input.frames;
        ConnectorOutput::vectors(match self {
            Self::Slm(adapter) => adapter.forward(frames, dropout),
            Self::StackMlp(stack) => stack.forward(frames),
            Self::StackSwiglu(stack) => stack.forward(frames),
            Self::Conv(adapter) => adapter.forward(frames),
            Self::QFormer(former) | Self::WindowQFormer(former) => former.forward(frames, dropout),
        })
    }
}

/// A sentence for every size that is 0.
fn zeros(sizes: &[(&str, usize)]) -> Vec<String> {
    let zeros = sizes.iter().filter(|(_, size)| *size == 0);
    zeros.map(|(name, _)| format!("{name} is 0, expected at least 1")).collect()
}
