//! What is learned: a module, its batches, and the losses of a batch as sums.
//!
//! A learner gives sums, never means. The trainer divides every sum by the count of what it sums
//! over *all* batches and replicas of a step, so that neither accumulation nor replicas change the
//! loss.

use burn::prelude::*;
use sandhi_nn::{
    connector::{Connector, ConnectorInput},
    encoder::Encoder,
    ops,
    transformer::{CausalLm, Dropout},
};

use crate::{
    model::{
        CtcNet, HostRagged,
        pack::{Segment, pack},
    },
    recipe::LossConfig,
};

/// One loss of a batch.
#[derive(Debug)]
pub struct Term {
    /// Its name in logs, and the key of its count.
    pub name: &'static str,
    /// Its weight in the total.
    pub weight: f64,
    /// The sum over what the count counts; one element.
    pub sum: Tensor<1>,
}

/// How much a batch holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Size {
    /// What each term sums over, by the term's name.
    pub counts: Vec<(&'static str, f64)>,
    /// Items.
    pub n_items: usize,
    /// Rows that go through the model.
    pub n_tokens: usize,
    /// Seconds of audio.
    pub audio_s: f64,
}

/// What can be trained.
pub trait Learner: Module + Send + Sync + 'static {
    /// What one forward pass takes.
    type Batch: Measured + Send + Sync + 'static;

    /// Whether layers run again in the backward pass instead of keeping what they computed.
    fn recompute(&mut self, on: bool);

    /// The losses of a batch.
    fn terms(&self, batch: &Self::Batch, loss: &LossConfig, dropout: Dropout) -> Vec<Term>;
}

/// What knows its own size.
pub trait Measured {
    /// How much it holds, given the weights of the losses.
    fn size(&self, loss: &LossConfig) -> Size;
}

fn device<M: Module>(module: &M) -> Device {
    module.devices().into_iter().next().expect("a model has parameters")
}

// --- The speech foundation model -----------------------------------------------------------------

/// Utterances with their transcripts.
#[derive(Debug, Clone)]
pub struct CtcBatch {
    /// Features of every utterance.
    pub features: HostRagged,
    /// Symbols of every transcript.
    pub targets: Vec<Vec<u32>>,
    /// False where the frames are too few for the transcript; such an utterance has no loss.
    pub feasible: Vec<bool>,
    /// The symbol that is said at every CTC step, where word times are known.
    pub steps: Vec<Option<u32>>,
    /// Seconds of audio.
    pub audio_s: f64,
}

impl CtcBatch {
    fn n_symbols(&self) -> f64 {
        let kept = self.targets.iter().zip(&self.feasible).filter(|(_, feasible)| **feasible);
        kept.map(|(target, _)| target.len().max(1)).sum::<usize>() as f64
    }
}

impl Measured for CtcBatch {
    fn size(&self, _: &LossConfig) -> Size {
        Size {
            counts: vec![
                ("ctc", self.n_symbols()),
                ("alignment", self.steps.iter().flatten().count() as f64),
            ],
            n_items: self.targets.len(),
            n_tokens: self.features.lengths.iter().sum(),
            audio_s: self.audio_s,
        }
    }
}

impl Learner for CtcNet {
    type Batch = CtcBatch;

    fn recompute(&mut self, on: bool) {
        self.encoder.recompute(on);
    }

    fn terms(&self, batch: &CtcBatch, loss: &LossConfig, dropout: Dropout) -> Vec<Term> {
        let features = batch.features.to_device(&device(self));
        let logits = self.head.forward(&self.encoder.forward(&features, dropout));
        let weights: Vec<f32> =
            batch.feasible.iter().map(|&feasible| f32::from(u8::from(feasible))).collect();
        let mut terms = Vec::with_capacity(2);
        if loss.alignment > 0.0 && batch.steps.iter().any(Option::is_some) {
            let targets: Vec<u32> = batch.steps.iter().map(|s| s.unwrap_or(0)).collect();
            let known: Vec<f32> =
                batch.steps.iter().map(|s| f32::from(u8::from(s.is_some()))).collect();
            let sum = ops::cross_entropy(logits.values.clone(), &targets, &known);
            terms.push(Term { name: "alignment", weight: loss.alignment, sum });
        }
        let sum = ops::ctc_loss(logits.values, &logits.offsets, &batch.targets, 0, &weights);
        terms.push(Term { name: "ctc", weight: loss.ctc, sum });
        terms
    }
}

// --- The text foundation model -------------------------------------------------------------------

/// A document as tokens; `prompt[i]` marks tokens that a user wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct TextItem {
    /// Tokens, the first of which is context only.
    pub ids: Vec<u32>,
    /// How many tokens from the start belong to the prompt.
    pub n_prompt: usize,
}

/// Documents.
#[derive(Debug, Clone)]
pub struct TextBatch {
    /// The documents.
    pub items: Vec<TextItem>,
}

impl TextItem {
    /// Weight of the loss of each token but the first.
    fn weights(&self, loss: &LossConfig) -> impl Iterator<Item = f32> {
        let (n_prompt, prompt) = (self.n_prompt, loss.prompt as f32);
        (1..self.ids.len()).map(move |i| if i < n_prompt { prompt } else { 1.0 })
    }
}

impl Measured for TextBatch {
    fn size(&self, loss: &LossConfig) -> Size {
        let count = self.items.iter().flat_map(|item| item.weights(loss)).map(f64::from).sum();
        Size {
            counts: vec![("ce", count)],
            n_items: self.items.len(),
            n_tokens: self.items.iter().map(|item| item.ids.len() - 1).sum(),
            audio_s: 0.0,
        }
    }
}

impl Learner for CausalLm {
    type Batch = TextBatch;

    fn recompute(&mut self, on: bool) {
        Self::recompute(self, on);
    }

    fn terms(&self, batch: &TextBatch, loss: &LossConfig, dropout: Dropout) -> Vec<Term> {
        let sequences: Vec<Vec<Segment>> = batch
            .items
            .iter()
            .map(|item| vec![Segment::Tokens(item.ids[..item.ids.len() - 1].to_vec())])
            .collect();
        let input = pack(self, &sequences, None);
        let hidden = self.forward(&input, &[], dropout).last;
        let (mut rows, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (span, item) in input.offsets.iter().zip(&batch.items) {
            for (i, weight) in item.weights(loss).enumerate().filter(|(_, weight)| *weight > 0.0) {
                rows.push((span.start + i) as u32);
                targets.push(item.ids[i + 1]);
                weights.push(weight);
            }
        }
        let hidden = if rows.len() == input.offsets.n_rows() {
            hidden
        } else {
            ops::embedding(hidden, &rows)
        };
        let sum = ops::cross_entropy(self.logits(hidden), &targets, &weights);
        vec![Term { name: "ce", weight: loss.cross_entropy, sum }]
    }
}

// --- Encoder, connector, language model ----------------------------------------------------------

/// The three parts as one module; stages say which of them learn.
#[derive(Module, Debug)]
pub struct ConnectorNet {
    /// The speech encoder.
    pub encoder: Encoder,
    /// What joins the two.
    pub connector: Connector,
    /// The language model.
    pub language_model: CausalLm,
}

/// What is heard, before or after the encoder.
#[derive(Debug, Clone)]
pub enum Heard {
    /// Encoder frames, computed once because the encoder does not change.
    Frames(HostRagged),
    /// Features, because the encoder learns or the features are augmented.
    Features(HostRagged),
}

/// Spoken prompts with their answers.
#[derive(Debug, Clone)]
pub struct SpeechBatch {
    /// One utterance an item.
    pub heard: Heard,
    /// Tokens before the speech, after it, and of the answer.
    pub items: Vec<SpokenItem>,
    /// Seconds of audio.
    pub audio_s: f64,
}

/// A spoken prompt and its answer, as tokens around the speech.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpokenItem {
    /// Tokens before the speech.
    pub before: Vec<u32>,
    /// Tokens between the speech and the answer.
    pub after: Vec<u32>,
    /// The answer with its end marker.
    pub answer: Vec<u32>,
}

impl Measured for SpeechBatch {
    fn size(&self, _: &LossConfig) -> Size {
        let count: usize = self.items.iter().map(|item| item.answer.len()).sum();
        let text: usize = self
            .items
            .iter()
            .map(|item| item.before.len() + item.after.len() + item.answer.len())
            .sum();
        let heard = match &self.heard {
            Heard::Frames(rows) | Heard::Features(rows) => rows.lengths.iter().sum::<usize>(),
        };
        Size {
            counts: vec![("ce", count as f64)],
            n_items: self.items.len(),
            n_tokens: text + heard,
            audio_s: self.audio_s,
        }
    }
}

impl Learner for ConnectorNet {
    type Batch = SpeechBatch;

    fn recompute(&mut self, on: bool) {
        self.encoder.recompute(on);
        self.connector.recompute(on);
        self.language_model.recompute(on);
    }

    fn terms(&self, batch: &SpeechBatch, loss: &LossConfig, dropout: Dropout) -> Vec<Term> {
        let device = device(&self.connector);
        let frames = match &batch.heard {
            Heard::Frames(frames) => frames.to_device(&device),
            Heard::Features(features) => {
                self.encoder.forward(&features.to_device(&device), dropout)
            }
        };
        let output =
            self.connector.forward(&ConnectorInput { frames }, dropout.branch("connector"));
        let sequences: Vec<Vec<Segment>> = batch
            .items
            .iter()
            .enumerate()
            .map(|(i, item)| {
                // The last token of the answer is predicted and never read.
                let tail = item
                    .after
                    .iter()
                    .chain(&item.answer[..item.answer.len() - 1])
                    .copied()
                    .collect();
                vec![
                    Segment::Tokens(item.before.clone()),
                    Segment::Speech(i),
                    Segment::Tokens(tail),
                ]
            })
            .collect();
        let input = pack(&self.language_model, &sequences, Some(&output.vectors));
        let tails: Vec<usize> = batch.items.iter().map(|item| item.answer.len()).collect();
        let targets: Vec<u32> =
            batch.items.iter().flat_map(|item| item.answer.iter().copied()).collect();
        let hidden = self.language_model.forward_tails(&input, &tails, Dropout::OFF);
        let logits = self.language_model.logits(hidden);
        let sum = ops::cross_entropy(logits, &targets, &vec![1.0; targets.len()]);
        vec![Term { name: "ce", weight: loss.cross_entropy, sum }]
    }
}
