//! What is learned: a module, its batches, and the losses of a batch as sums.
//!
//! A learner gives sums, never means. The trainer divides every sum by the count of what it sums
//! over *all* batches and replicas of a step, so that neither accumulation nor replicas change the
//! loss.

use burn::prelude::*;
use sandhi_nn::{
    connector::{Connector, ConnectorOutput, Penalty, Per},
    encoder::Encoder,
    layers::Linear,
    ops,
    ragged::Ragged,
    transformer::{CausalLm, Dropout},
};

use super::{distill, transport};
use crate::{
    model::{
        Aids, Compression, CtcNet, HostRagged,
        pack::{Segment, pack},
    },
    recipe::{LossConfig, StageConfig},
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

    /// Takes from a stage what is no parameter: whether layers run again in the backward pass instead of keeping what
    /// they computed, what is compressed.
    fn begin(&mut self, stage: &StageConfig);

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

    fn begin(&mut self, stage: &StageConfig) {
        self.encoder.recompute(stage.gradient_checkpointing);
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
        Size {
            counts: vec![("ce", self.count(loss))],
            n_items: self.items.len(),
            n_tokens: self.items.iter().map(|item| item.ids.len() - 1).sum(),
            audio_s: 0.0,
        }
    }
}

impl Learner for CausalLm {
    type Batch = TextBatch;

    fn begin(&mut self, stage: &StageConfig) {
        self.recompute(stage.gradient_checkpointing);
    }

    fn terms(&self, batch: &TextBatch, loss: &LossConfig, dropout: Dropout) -> Vec<Term> {
        let sum = batch.cross_entropy(self, loss, dropout);
        vec![Term { name: "ce", weight: loss.cross_entropy, sum }]
    }
}

impl TextBatch {
    /// Weights of all tokens that are predicted.
    fn count(&self, loss: &LossConfig) -> f64 {
        self.items.iter().flat_map(|item| item.weights(loss)).map(f64::from).sum()
    }

    /// The weighted sum over them.
    fn cross_entropy(&self, lm: &CausalLm, loss: &LossConfig, dropout: Dropout) -> Tensor<1> {
        let sequences: Vec<Vec<Segment>> = self
            .items
            .iter()
            .map(|item| vec![Segment::Tokens(item.ids[..item.ids.len() - 1].to_vec())])
            .collect();
        let input = pack(lm, &sequences, None);
        let hidden = lm.forward(&input, &[], dropout).last;
        let (mut rows, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (span, item) in input.offsets.iter().zip(&self.items) {
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
        ops::cross_entropy(lm.logits(hidden), &targets, &weights)
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
    /// Scores of the language model's tokens, then of the blank, at every vector; for `token_ctc` alone.
    pub ctc_head: Option<Linear>,
    /// The token that stands for no content, where a stage has a use for one.
    pub pad: Option<u32>,
    /// What of the vectors the language model is given.
    #[module(skip)]
    pub compression: Option<Compression>,
    /// What the connector is given beside the frames.
    #[module(skip)]
    pub aids: Aids,
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
    /// The last frame of every token of what is heard, for connectors that cut there.
    pub ends: Option<Vec<Vec<u32>>>,
    /// Losses of the connector's own.
    pub penalties: Vec<Penalty>,
    /// Seconds of audio.
    pub audio_s: f64,
}

/// A spoken prompt and its answer, as tokens around the speech.
#[derive(Debug, Clone, PartialEq)]
pub struct SpokenItem {
    /// Tokens before the speech.
    pub before: Vec<u32>,
    /// Tokens between the speech and the answer.
    pub after: Vec<u32>,
    /// The answer with its end marker.
    pub answer: Vec<u32>,
    /// What is said, for losses that want to know.
    pub said: Said,
    /// Begins a document.
    pub begin: u32,
}

impl SpokenItem {
    /// The tokens behind the speech that are read. The last one of the answer is predicted and never read.
    pub(super) fn tail(&self) -> Vec<u32> {
        let answer = &self.answer[..self.answer.len() - 1];
        self.after.iter().chain(answer).copied().collect()
    }
}

/// What is said in an utterance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Said {
    /// The transcript's tokens; none where no loss asks for them.
    pub tokens: Vec<u32>,
    /// How much of the speech each token should have, in any unit; empty where tokens should have alike.
    pub masses: Vec<f64>,
    /// The share of the speech that no token should have, where it is known.
    pub pad_share: Option<f64>,
}

impl Measured for SpeechBatch {
    fn size(&self, loss: &LossConfig) -> Size {
        let count: usize = self.items.iter().map(|item| item.answer.len()).sum();
        let text: usize = self
            .items
            .iter()
            .map(|item| item.before.len() + item.after.len() + item.answer.len())
            .sum();
        let heard = match &self.heard {
            Heard::Frames(rows) | Heard::Features(rows) => rows.lengths.iter().sum::<usize>(),
        };
        let n_items = self.items.len() as f64;
        let mut counts = vec![("ce", count as f64)];
        let said = self.items.iter().map(|item| item.said.tokens.len()).sum::<usize>() as f64;
        counts.extend(self.penalties.iter().map(|penalty| {
            let count = match penalty.per {
                Per::Utterance => n_items,
                Per::Token => said,
            };
            (penalty.name, count)
        }));
        if loss.embedding.is_some() {
            counts.extend(distill::EMBEDDING.map(|name| (name, said)));
        }
        if loss.next_token > 0.0 {
            counts.push((distill::NEXT_TOKEN, distill::n_next_tokens(&self.items) as f64));
        }
        if loss.wants_pairs() {
            counts.push((distill::UNPAIRED, n_items));
        }
        if loss.distillation.is_some() {
            counts.extend(distill::DISTILLATION.map(|name| (name, count as f64)));
        }
        if loss.transport.is_some() {
            counts.extend(transport::TERMS.map(|name| (name, n_items)));
        }
        if loss.token_ctc > 0.0 {
            counts.push(("token_ctc", said));
        }
        Size { counts, n_items: self.items.len(), n_tokens: text + heard, audio_s: self.audio_s }
    }
}

/// What a connector's stage learns from at a time.
#[derive(Debug, Clone)]
pub enum ConnectorBatch {
    /// What is heard.
    Spoken(SpeechBatch),
    /// What the language model reads beside it.
    Written(TextBatch),
}

/// The loss of what is read beside speech.
const WRITTEN: &str = "text_ce";

impl Measured for ConnectorBatch {
    fn size(&self, loss: &LossConfig) -> Size {
        match self {
            Self::Spoken(batch) => batch.size(loss),
            Self::Written(batch) => {
                Size { counts: vec![(WRITTEN, batch.count(loss))], ..batch.size(loss) }
            }
        }
    }
}

impl Learner for ConnectorNet {
    type Batch = ConnectorBatch;

    fn begin(&mut self, stage: &StageConfig) {
        let again = stage.gradient_checkpointing;
        self.encoder.recompute(again);
        self.connector.recompute(again);
        self.language_model.recompute(again);
        let with_pad = |thresholds| Compression { thresholds, pad: self.pad };
        self.compression = stage.compression.map(with_pad);
    }

    fn terms(&self, batch: &ConnectorBatch, loss: &LossConfig, dropout: Dropout) -> Vec<Term> {
        match batch {
            ConnectorBatch::Spoken(batch) => self.spoken(batch, loss, dropout),
            ConnectorBatch::Written(batch) => {
                let sum = batch.cross_entropy(&self.language_model, loss, Dropout::OFF);
                vec![Term { name: WRITTEN, weight: loss.text, sum }]
            }
        }
    }
}

impl ConnectorNet {
    fn spoken(&self, batch: &SpeechBatch, loss: &LossConfig, dropout: Dropout) -> Vec<Term> {
        let device = device(&self.connector);
        let frames = match &batch.heard {
            Heard::Frames(frames) => frames.to_device(&device),
            Heard::Features(features) => {
                self.encoder.forward(&features.to_device(&device), dropout)
            }
        };
        let host = || match &batch.heard {
            Heard::Frames(frames) => frames.clone(),
            Heard::Features(_) => HostRagged::from_device(Ragged {
                values: frames.values.clone().detach(),
                offsets: frames.offsets.clone(),
            }),
        };
        let said = || batch.items.iter().map(|item| item.said.tokens.clone()).collect();
        let (lm, ends) = (&self.language_model, batch.ends.clone());
        let input = self.aids.input(lm, frames.clone(), host, ends, Some(said()));
        let ConnectorOutput { vectors: heard, penalties, .. } =
            self.connector.forward(&input, dropout.branch("connector"));
        let given = match &self.compression {
            Some(compression) => compression.forward(&heard, &self.language_model),
            None => heard.clone(),
        };
        let mut terms = Vec::new();
        if loss.reads() {
            terms.extend(self.reading(batch, loss, &heard, &given));
        }
        let own = batch.penalties.iter().zip(penalties);
        terms.extend(own.map(|(penalty, sum)| Term {
            name: penalty.name,
            weight: penalty.weight,
            sum: sum.reshape([1]),
        }));
        if loss.wants_pairs() {
            let pairs = distill::Pairs::new(&batch.items, &heard);
            let lm = &self.language_model;
            if let Some(config) = &loss.embedding {
                terms.extend(pairs.embedding(lm, &batch.items, &heard, config));
            }
            if loss.next_token > 0.0 {
                terms.push(pairs.next_token(lm, &batch.items, &heard, loss.next_token));
            }
            terms.push(pairs.unpaired(&device));
        }
        if loss.token_ctc > 0.0 {
            terms.push(self.token_ctc(&batch.items, &heard, loss.token_ctc));
        }
        terms
    }

    /// The losses for which the language model reads prompts and answers.
    fn reading(
        &self,
        batch: &SpeechBatch,
        loss: &LossConfig,
        heard: &Ragged,
        given: &Ragged,
    ) -> Vec<Term> {
        let sequences: Vec<Vec<Segment>> = batch
            .items
            .iter()
            .enumerate()
            .map(|(i, item)| {
                vec![
                    Segment::Tokens(item.before.clone()),
                    Segment::Speech(i),
                    Segment::Tokens(item.tail()),
                ]
            })
            .collect();
        let input = pack(&self.language_model, &sequences, Some(given));
        let tails: Vec<usize> = batch.items.iter().map(|item| item.answer.len()).collect();
        let targets: Vec<u32> =
            batch.items.iter().flat_map(|item| item.answer.iter().copied()).collect();
        let mut depths: Vec<usize> = loss.transport.iter().flat_map(|t| t.inner_depths()).collect();
        let n_transported = depths.len();
        depths.extend(loss.distillation.iter().flat_map(|config| &config.depths));
        let hidden = self.language_model.forward_tails_at(&input, &tails, &depths, Dropout::OFF);
        let mut transported = hidden.depths;
        let distilled = transported.split_off(n_transported);
        let logits = self.language_model.logits(hidden.last);
        let sum = ops::cross_entropy(logits.clone(), &targets, &vec![1.0; targets.len()]);
        let mut terms = vec![Term { name: "ce", weight: loss.cross_entropy, sum }];
        if let Some(config) = &loss.transport {
            let read = transport::Read {
                input: &input.offsets,
                given: &given.offsets,
                hidden: transported,
            };
            terms.extend(transport::terms(self, &batch.items, heard, read, config));
        }
        if let Some(config) = &loss.distillation {
            let rows = distill::tail_rows(&input, &tails);
            let hidden = distilled.into_iter().map(|x| ops::embedding(x, &rows)).collect();
            let heard = distill::Heard { logits, hidden };
            terms.extend(distill::distillation(&self.language_model, &batch.items, &heard, config));
        }
        terms
    }

    /// CTC of the tokens that are said; utterances with too few vectors for theirs have no loss.
    fn token_ctc(&self, items: &[SpokenItem], heard: &Ragged, weight: f64) -> Term {
        let head = self.ctc_head.as_ref().expect("a stage with token_ctc has a head");
        let targets: Vec<Vec<u32>> = items.iter().map(|item| item.said.tokens.clone()).collect();
        let feasible = heard.offsets.iter().zip(&targets);
        let weights: Vec<f32> = feasible
            .map(|(span, target)| f32::from(u8::from(ops::ctc_feasible(span.len(), target))))
            .collect();
        let logits = head.forward(heard.values.clone());
        let blank = self.language_model.n_tokens() as u32;
        let sum = ops::ctc_loss(logits, &heard.offsets, &targets, blank, &weights);
        Term { name: "token_ctc", weight, sum }
    }
}
