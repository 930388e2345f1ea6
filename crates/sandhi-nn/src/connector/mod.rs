//! Connectors: encoder frames in, vectors of the language model's embedding space out.
//!
//! Adding a connector means adding a variant to [`ConnectorConfig`] and to [`Connector`]; the
//! compiler lists the remaining places.

pub mod align_former;
pub mod cif;
pub mod conv;
pub mod ctc_collapse;
mod ctc_steps;
pub mod cut;
pub mod distance_ctc;
pub mod fire;
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
    cut::{Cut, CutConfig, SubwordCtcConfig},
    distance_ctc::{DistanceCtc, DistanceCtcConfig},
    fire::FireConfig,
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

/// What settings say of their connector, beside its sizes and lengths; the defaults are what most have in common.
trait Kind {
    /// What it cannot do without.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Losses of its own.
    fn penalties(&self) -> Vec<Penalty> {
        Vec::new()
    }

    /// What does not fit the neighbours' widths, as sentences that name the fields.
    fn misfits(&self, _: Widths) -> Vec<String> {
        Vec::new()
    }

    /// Encoder frames that every vector stands for, where there are as many for each.
    fn stride(&self) -> Option<usize> {
        None
    }

    /// Whether it is made to give a vector for every token that is said.
    fn is_per_token(&self) -> bool {
        false
    }

    /// Whether an utterance of these tokens can be learned from.
    fn can_say(&self, _said: &[u32], _pad: Option<u32>) -> bool {
        true
    }

    /// What is wrong with tokens that the settings name, for a vocabulary of `n_tokens`.
    fn wrong_tokens(&self, _n_tokens: usize, _pad: Option<u32>) -> Option<String> {
        None
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
    ///
    /// # Panics
    ///
    /// When there are [`ConnectorConfig::problems`] or [`ConnectorConfig::misfits`].
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
        each!(self, config => Kind::needs(config))
    }

    /// Losses of its own.
    pub fn penalties(&self) -> Vec<Penalty> {
        each!(self, config => Kind::penalties(config))
    }

    /// Encoder frames that every vector stands for, where there are as many for each; none where the data decide, and of
    /// a Q-Former, whose vectors stand for the whole utterance or share a window.
    pub fn stride(&self) -> Option<usize> {
        each!(self, config => Kind::stride(config))
    }

    /// Whether it is made to give a vector for every token that is said.
    pub fn is_per_token(&self) -> bool {
        each!(self, config => Kind::is_per_token(config))
    }

    /// Whether an utterance of these tokens can be learned from.
    pub fn can_say(&self, said: &[u32], pad: Option<u32>) -> bool {
        each!(self, config => Kind::can_say(config, said, pad))
    }

    /// What is wrong with the sizes, as sentences that name the fields.
    pub fn problems(&self) -> Vec<String> {
        each!(self, config => config.problems())
    }

    /// What does not fit the neighbours' widths, as sentences that name the fields.
    pub fn misfits(&self, widths: Widths) -> Vec<String> {
        each!(self, config => Kind::misfits(config, widths))
    }

    /// What is wrong with tokens that the settings name, for a vocabulary of `n_tokens`, of which `pad` is one if it is known.
    pub fn wrong_tokens(&self, n_tokens: usize, pad: Option<u32>) -> Option<String> {
        each!(self, config => Kind::wrong_tokens(config, n_tokens, pad))
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
            Self::DistanceCtc(connector) => connector.recompute(on),
            Self::StackMlp(_) | Self::StackSwiglu(_) | Self::Conv(_) => {}
        }
    }

    /// Maps frames to vectors.
    ///
    /// # Errors
    ///
    /// Names what the connector cannot do without and the input lacks, or what does not fit.
    pub fn try_forward(
        &self,
        input: &ConnectorInput,
        dropout: Dropout,
    ) -> Result<ConnectorOutput, InputError> {
        let frames = &input.frames;
        let vectors = match self {
            Self::Slm(adapter) => adapter.forward(frames, dropout),
            Self::StackMlp(stack) => stack.forward(frames),
            Self::StackSwiglu(stack) => stack.forward(frames),
            Self::Conv(adapter) => adapter.forward(frames),
            Self::QFormer(former) | Self::WindowQFormer(former) => former.forward(frames, dropout),
            Self::Ssr(connector) => return connector.forward(input, dropout),
            Self::CtcCollapse(connector) => {
                return Ok(connector.forward(frames, input.ctc()?, dropout));
            }
            Self::Cif(connector) => {
                return Ok(connector.forward(frames, input.said.as_deref(), dropout));
            }
            Self::AlignFormer(former) => {
                return Ok(align_former::forward(former, frames, input.ctc()?, dropout));
            }
            Self::DistanceCtc(connector) => {
                let embeddings = input.embeddings()?;
                connector.check(embeddings)?;
                return Ok(connector.forward(frames, embeddings, input.said.as_deref(), dropout));
            }
        };
        Ok(ConnectorOutput::vectors(vectors))
    }

    /// As [`Connector::try_forward`], for an input that is known to have all.
    ///
    /// # Panics
    ///
    /// Where that has an error.
    pub fn forward(&self, input: &ConnectorInput, dropout: Dropout) -> ConnectorOutput {
        self.try_forward(input, dropout).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A sentence for every size that is 0.
fn zeros(sizes: &[(&str, usize)]) -> Vec<String> {
    let zeros = sizes.iter().filter(|(_, size)| *size == 0);
    zeros.map(|(name, _)| format!("{name} is 0, expected at least 1")).collect()
}
