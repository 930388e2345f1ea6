//! Connectors: encoder frames in, vectors of the language model's embedding space out.
//!
//! Adding a connector means adding a variant to [`ConnectorConfig`] and to [`Connector`]; the
//! compiler lists the remaining places.

pub mod align_former;
pub mod cif;
pub mod conv;
pub mod ctc_collapse;
mod ctc_steps;
pub mod distance_ctc;
mod groups;
mod input;
pub mod projector;
pub mod q_former;
pub mod segments;
pub mod slm;
pub mod ssr;
mod stack;
pub mod stack_mlp;
pub mod stack_swiglu;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod window_q_former;

use burn::prelude::*;
use serde::{Deserialize, Serialize};

pub use self::{
    align_former::AlignFormerConfig,
    cif::{Cif, CifConfig},
    conv::{ConvAdapter, ConvConfig},
    ctc_collapse::{CtcCollapse, CtcCollapseConfig, Merge},
    ctc_steps::CtcSteps,
    distance_ctc::{DistanceCtc, DistanceCtcConfig},
    input::{ConnectorInput, Embeddings, InputError, Needs},
    projector::{LayersConfig, MlpConfig, Projector, ProjectorConfig},
    q_former::{QFormer, QFormerConfig},
    segments::{Segments, TimesError, segment_ends},
    slm::{Reduction, SlmAdapter, SlmConfig},
    ssr::{SegmentPool, SsrConfig, SsrConnector},
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
    /// A causal transformer, and its state at the end of every segment (SSR).
    Ssr(SsrConfig),
    /// Frames of one CTC symbol become one, blanks go.
    CtcCollapse(CtcCollapseConfig),
    /// Continuous integrate-and-fire.
    Cif(CifConfig),
    /// A learned query for every spike of CTC (AlignFormer).
    AlignFormer(AlignFormerConfig),
    /// Frames among the embeddings, read off by the nearest (DirectSpeech2LLM).
    DistanceCtc(DistanceCtcConfig),
}

/// Maps encoder frames to vectors of the language model's embedding space.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // there is one of them
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
    /// See [`SsrConnector`].
    Ssr(SsrConnector),
    /// See [`CtcCollapse`].
    CtcCollapse(CtcCollapse),
    /// See [`Cif`].
    Cif(Cif),
    /// See [`QFormer`].
    AlignFormer(QFormer),
    /// See [`DistanceCtc`].
    DistanceCtc(DistanceCtc),
}

/// What a connector gives.
#[derive(Debug, Clone)]
pub struct ConnectorOutput {
    /// `[n_vectors, d_model]`, one span an utterance.
    pub vectors: Ragged,
    /// The last frame that every vector is made of, counted from the utterance's first, where that is known.
    pub ends: Option<Vec<Vec<u32>>>,
    /// What the connector itself is to be trained with, one for each of [`ConnectorConfig::penalties`] where
    /// [`ConnectorInput::with_said`] was given, none otherwise.
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
}

impl ConnectorOutput {
    /// Vectors alone.
    fn vectors(vectors: Ragged) -> Self {
        Self { vectors, ends: None, penalties: Vec::new() }
    }
}

/// The same of every variant.
macro_rules! each {
    ($of:expr, $inner:ident => $what:expr) => {
        match $of {
            Self::Slm($inner) => $what,
            Self::StackMlp($inner) => $what,
            Self::StackSwiglu($inner) => $what,
            Self::Conv($inner) => $what,
            Self::QFormer($inner) => $what,
            Self::WindowQFormer($inner) => $what,
            Self::Ssr($inner) => $what,
            Self::CtcCollapse($inner) => $what,
            Self::Cif($inner) => $what,
            Self::AlignFormer($inner) => $what,
            Self::DistanceCtc($inner) => $what,
        }
    };
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
            Self::Ssr(config) => Connector::Ssr(config.init(widths, init)),
            Self::CtcCollapse(config) => Connector::CtcCollapse(config.init(widths, init)),
            Self::Cif(config) => Connector::Cif(config.init(widths, init)),
            Self::AlignFormer(config) => Connector::AlignFormer(config.init(widths, init)),
            Self::DistanceCtc(config) => Connector::DistanceCtc(config.init(widths, init)),
        }
    }

    /// Vectors for `n_frames` encoder frames.
    pub fn length(&self, n_frames: usize) -> Length {
        each!(self, config => config.length(n_frames))
    }

    /// What it cannot do without.
    pub fn needs(&self) -> Needs {
        match self {
            Self::Ssr(_) => ssr::NEEDS,
            Self::CtcCollapse(_) => ctc_collapse::NEEDS,
            Self::Cif(_) => cif::NEEDS,
            Self::AlignFormer(_) => align_former::NEEDS,
            Self::DistanceCtc(_) => distance_ctc::NEEDS,
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
            Self::Cif(config) => config.penalties(),
            Self::DistanceCtc(config) => config.penalties(),
            Self::Slm(_)
            | Self::StackMlp(_)
            | Self::StackSwiglu(_)
            | Self::Conv(_)
            | Self::QFormer(_)
            | Self::WindowQFormer(_)
            | Self::Ssr(_)
            | Self::AlignFormer(_)
            | Self::CtcCollapse(_) => Vec::new(),
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
            Self::WindowQFormer(config) => config.window.div_ceil(config.n_queries.max(1)),
            Self::QFormer(_)
            | Self::Ssr(_)
            | Self::CtcCollapse(_)
            | Self::Cif(_)
            | Self::AlignFormer(_)
            | Self::DistanceCtc(_) => 1,
        }
    }

    /// Whether it is made to give a vector for every token that is said.
    pub fn is_per_token(&self) -> bool {
        match self {
            Self::Ssr(_) | Self::Cif(_) => true,
            Self::DistanceCtc(config) => !config.blank_vector,
            Self::Slm(_)
            | Self::StackMlp(_)
            | Self::StackSwiglu(_)
            | Self::Conv(_)
            | Self::QFormer(_)
            | Self::WindowQFormer(_)
            | Self::CtcCollapse(_)
            | Self::AlignFormer(_) => false,
        }
    }

    /// Whether every vector stands for as much time as every other, [`ConnectorConfig::stride`] frames.
    pub fn is_uniform(&self) -> bool {
        match self {
            Self::Slm(_) | Self::StackMlp(_) | Self::StackSwiglu(_) | Self::Conv(_) => true,
            Self::WindowQFormer(config) => config.n_queries == 1,
            Self::QFormer(_)
            | Self::Ssr(_)
            | Self::CtcCollapse(_)
            | Self::Cif(_)
            | Self::AlignFormer(_)
            | Self::DistanceCtc(_) => false,
        }
    }

    /// What is wrong with the sizes, as sentences that name the fields.
    pub fn problems(&self) -> Vec<String> {
        each!(self, config => config.problems())
    }

    /// What does not fit the neighbours' widths, as sentences that name the fields.
    pub fn misfits(&self, widths: Widths) -> Vec<String> {
        match self {
            Self::Ssr(config) => config.misfits(widths),
            Self::DistanceCtc(config) => config.misfits(widths),
            Self::Slm(_)
            | Self::StackMlp(_)
            | Self::StackSwiglu(_)
            | Self::Conv(_)
            | Self::QFormer(_)
            | Self::WindowQFormer(_)
            | Self::CtcCollapse(_)
            | Self::AlignFormer(_)
            | Self::Cif(_) => Vec::new(),
        }
    }
}

impl ConnectorConfig {
    /// Whether an utterance of these tokens can be learned from.
    pub fn can_say(&self, said: &[u32], pad: Option<u32>) -> bool {
        match (self, pad) {
            (Self::DistanceCtc(config), Some(pad)) => config.can_say(said, pad),
            _ => true,
        }
    }

    /// What is wrong with tokens that the settings name, for a vocabulary of `n_tokens`.
    pub fn wrong_tokens(&self, n_tokens: usize, pad: Option<u32>) -> Option<String> {
        match self {
            Self::DistanceCtc(config) => config.wrong_tokens(n_tokens, pad),
            _ => None,
        }
    }
}

impl Linears for Connector {
    fn linears(&mut self) -> NamedLinears<'_> {
        each!(self, connector => connector.linears())
    }
}

impl Connector {
    /// Whether blocks run again in the backward pass instead of keeping what they computed. Connectors without blocks
    /// keep it in any case.
    pub fn recompute(&mut self, on: bool) {
        match self {
            Self::Slm(adapter) => adapter.recompute(on),
            Self::QFormer(former) | Self::WindowQFormer(former) | Self::AlignFormer(former) => {
                former.recompute(on);
            }
            Self::Ssr(connector) => connector.recompute(on),
            Self::CtcCollapse(connector) => connector.recompute(on),
            Self::Cif(connector) => connector.recompute(on),
            Self::StackMlp(_) | Self::StackSwiglu(_) | Self::Conv(_) | Self::DistanceCtc(_) => {}
        }
    }

    /// Whether the input has what the connector cannot do without.
    ///
    /// # Errors
    ///
    /// Names what is missing or does not fit.
    pub fn check(&self, input: &ConnectorInput) -> Result<(), InputError> {
        let needs = match self {
            Self::Ssr(_) => ssr::NEEDS,
            Self::CtcCollapse(_) => ctc_collapse::NEEDS,
            Self::Cif(_) => cif::NEEDS,
            Self::AlignFormer(_) => align_former::NEEDS,
            Self::DistanceCtc(connector) => {
                distance_ctc::NEEDS.check(input)?;
                return connector.check(input);
            }
            Self::Slm(_)
            | Self::StackMlp(_)
            | Self::StackSwiglu(_)
            | Self::Conv(_)
            | Self::QFormer(_)
            | Self::WindowQFormer(_) => Needs::default(),
        };
        needs.check(input)
    }

    /// Maps frames to vectors.
    ///
    /// # Panics
    ///
    /// When [`Connector::check`] refuses the input.
    pub fn forward(&self, input: &ConnectorInput, dropout: Dropout) -> ConnectorOutput {
        if let Err(error) = self.check(input) {
            panic!("{error}");
        }
        let frames = &input.frames;
        let vectors = match self {
            Self::Slm(adapter) => adapter.forward(frames, dropout),
            Self::StackMlp(stack) => stack.forward(frames),
            Self::StackSwiglu(stack) => stack.forward(frames),
            Self::Conv(adapter) => adapter.forward(frames),
            Self::QFormer(former) | Self::WindowQFormer(former) => former.forward(frames, dropout),
            Self::Ssr(connector) => {
                let segments = input.segments.as_ref().expect(CHECKED);
                let vectors = connector.forward(frames, segments, dropout);
                let ends = Some(segments.ends().to_vec());
                return ConnectorOutput { ends, ..ConnectorOutput::vectors(vectors) };
            }
            Self::CtcCollapse(connector) => {
                return connector.forward(frames, input.ctc.as_ref().expect(CHECKED), dropout);
            }
            Self::Cif(connector) => {
                return connector.forward(frames, input.said.as_deref(), dropout);
            }
            Self::AlignFormer(former) => {
                let ctc = input.ctc.as_ref().expect(CHECKED);
                return align_former::forward(former, frames, ctc, dropout);
            }
            Self::DistanceCtc(connector) => {
                let embeddings = input.embeddings.as_ref().expect(CHECKED);
                return connector.forward(frames, embeddings, input.said.as_deref());
            }
        };
        ConnectorOutput::vectors(vectors)
    }
}

const CHECKED: &str = "asked for before";

/// A sentence for every size that is 0.
fn zeros(sizes: &[(&str, usize)]) -> Vec<String> {
    let zeros = sizes.iter().filter(|(_, size)| *size == 0);
    zeros.map(|(name, _)| format!("{name} is 0, expected at least 1")).collect()
}
