//! Stages: for how long, on what, with which losses.

use sandhi_nn::compression::CompressionConfig;
use serde::{Deserialize, Serialize};

use super::{
    DistillationConfig, EmbeddingConfig, OptimizerConfig, SourceConfig, TransportConfig, is_default,
};

/// One `[[stage]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Unique in the recipe.
    pub name: String,
    /// Optimizer steps, after accumulation.
    pub steps: u64,
    /// Names and patterns of the parameters that are trained, e.g. `["connector"]`, `["*lora_*"]` or
    /// `["*", "!encoder"]`; the last entry that covers a name decides ([`sandhi_nn::pattern`]).
    pub trainable: Vec<String>,
    /// What is learned from.
    #[serde(rename = "data")]
    pub sources: Vec<SourceConfig>,
    /// How batches are made.
    pub batch: BatchConfig,
    /// How parameters move.
    pub optimizer: OptimizerConfig,
    /// Weights of the losses.
    #[serde(default)]
    pub loss: LossConfig,
    /// Connector models only: what of the connector's vectors the language model is given, in this stage and, if it is
    /// the last one, in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<CompressionConfig>,
    /// Masks over features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_augment: Option<sandhi_data::augment::SpecAugmentConfig>,
    /// Blocks keep their input alone and run again in the backward pass: much less memory, about a third more time,
    /// the same result. On the CPU; blocks of WavLM share a bias of positions and keep what they computed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gradient_checkpointing: bool,
    /// Probability that an entry of a residual branch falls out.
    #[serde(default)]
    pub dropout: f64,
    /// Steps between measurements on the dev half; 0 measures at the end only.
    #[serde(default)]
    pub eval_every: u64,
    /// Items measured then.
    #[serde(default = "default_eval_items")]
    pub eval_items: usize,
    /// Steps between checkpoints; 0 saves at the end only.
    #[serde(default)]
    pub checkpoint_every: u64,
}

fn default_eval_items() -> usize {
    64
}

fn is_one(weight: &f64) -> bool {
    *weight == 1.0
}

/// Weights of the losses of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Cross-entropy of the answer.
    pub cross_entropy: f64,
    /// Weight of a prompt token against an answer token, of what is read.
    pub prompt: f64,
    /// Cross-entropy of what is read beside speech, so that it is not forgotten; connector models only.
    pub text: f64,
    /// CTC of the transcript; CTC models only.
    pub ctc: f64,
    /// Cross-entropy of every CTC step against the character that is said there, where exact word times
    /// are known; CTC models only. It takes the network off the plateau on which it says nothing but
    /// blanks.
    pub alignment: f64,
    /// CTC of the transcript's tokens over the connector's vectors, by a linear head of its own, `ctc_head`, that is
    /// not part of the model that is saved; connector models only.
    pub token_ctc: f64,
    /// Cross-entropy of every token of the transcript but the first, given the connector's vectors up to it; connector
    /// models with one vector a token only.
    pub next_token: f64,
    /// How narrow the beta-binomial prior on the diagonal is that is added to the scores of an aligner, 0 for none; more
    /// is narrower. For a first stage.
    #[serde(skip_serializing_if = "is_default")]
    pub prior: f64,
    /// How far an aligner's soft alignment is from its best path, once it knows one.
    #[serde(skip_serializing_if = "is_default")]
    pub binarization: f64,
    /// The mean distance of a vocoder's log-mel energies from those of the true sound.
    #[serde(skip_serializing_if = "is_one")]
    pub mel: f64,
    /// The distance of a vocoder's sound from the true one in spectra of several resolutions.
    #[serde(skip_serializing_if = "is_one")]
    pub spectra: f64,
    /// Optimal transport between the connector's vectors and the transcript's embeddings; connector models only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<TransportConfig>,
    /// The distance of every vector from the embedding of its token; connector models with one vector a token only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding: Option<EmbeddingConfig>,
    /// The divergence from the same language model that reads the transcript; connector models only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distillation: Option<DistillationConfig>,
}

impl LossConfig {
    /// Whether a language model has to read prompts and answers.
    pub fn reads(&self) -> bool {
        self.cross_entropy > 0.0 || self.transport.is_some() || self.distillation.is_some()
    }

    /// Whether vectors are compared to tokens one by one.
    pub fn wants_pairs(&self) -> bool {
        self.embedding.is_some() || self.next_token > 0.0
    }

    /// Whether it matters what is said, besides what is to be answered.
    pub fn wants_said(&self) -> bool {
        let compares = self.transport.is_some() || self.distillation.is_some();
        compares || self.wants_pairs() || self.token_ctc > 0.0
    }
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            cross_entropy: 1.0,
            prompt: 0.0,
            text: 1.0,
            ctc: 1.0,
            alignment: 0.0,
            token_ctc: 0.0,
            next_token: 0.0,
            prior: 0.0,
            binarization: 0.0,
            mel: 1.0,
            spectra: 1.0,
            transport: None,
            embedding: None,
            distillation: None,
        }
    }
}

/// How batches are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// Items of a batch at most.
    pub max_items: usize,
    /// Sum of the items' lengths at most: seconds of audio, tokens of text, or what `measure` says.
    pub max_length: f64,
    /// What models over text and units measure lengths by, so that runs can be compared at an equal budget.
    #[serde(default, skip_serializing_if = "is_default")]
    pub measure: Measure,
    /// Batches whose gradients are added before a step.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Replicas of the model, each on a thread; a step's batches are dealt among them.
    #[serde(default = "one")]
    pub replicas: usize,
}

/// What a batch of documents is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Tokens: the same data for every network.
    #[default]
    Tokens,
    /// Steps of the transformer that is largest: tokens of a plain one, patches of one over patches.
    Patches,
    /// Millions of operations of matrix products, forward.
    Operations,
}

fn one() -> usize {
    1
}
