//! What a model of units and text learns: the next token of documents, whatever it is.
//!
//! ```text
//! utterance ─ blocks, drawn by epoch and utterance ─ document ─ patches ─┐
//! text ────────────────────────────────────────────── document ──────────┴─ SpeechTextNet ─ ce of all tokens
//!               dataset                                           batch       watched: text, speech, marker, text_per_word, speech_per_s
//! ```

mod batch;
mod dataset;

use burn::prelude::*;
use sandhi_nn::{
    ops,
    patch::PatchLm,
    ragged::{Offsets, Ragged},
    transformer::{CausalLm, Dropout},
};

use self::batch::{OPERATIONS, OPERATIONS_OF_PARTS, PATCHES, RATIO};
pub(crate) use self::dataset::{document_of, text_of};
pub use self::{
    batch::{Cutting, HostBoundaries, Reading, SpeechTextBatch, TargetKind, closings_of},
    dataset::{Material, Meter, SpeechTextDataset, Utterances},
};
use super::learner::{Learner, Term};
use crate::{
    plan,
    recipe::{LossConfig, NetworkConfig, StageConfig},
};

/// What predicts the next token.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // handles of tensors, not tensors
pub enum Network {
    /// A transformer over tokens.
    Plain(CausalLm),
    /// One over patches.
    Patch(PatchLm),
}

/// A network as it is trained.
#[derive(Module, Debug)]
pub struct SpeechTextNet {
    /// What predicts.
    pub network: Network,
    /// Its settings, for counting what it does.
    #[module(skip)]
    pub config: NetworkConfig,
    /// Weight of the ratio loss of learned boundaries.
    pub ratio_weight: f64,
}

/// What a pass over patches gives besides states.
#[derive(Debug)]
pub struct Patched {
    /// Patches of every document that became whole.
    pub n_patches: Vec<usize>,
    /// The ratio loss of learned boundaries.
    pub ratio: Option<Tensor<1>>,
}

impl SpeechTextNet {
    /// States of all tokens, `[n_tokens, d]`, and of what the patches were.
    pub fn hidden(
        &self,
        batch: &SpeechTextBatch,
        dropout: Dropout,
    ) -> (Tensor<2>, Option<Patched>) {
        match &self.network {
            Network::Plain(lm) => {
                let offsets = Offsets::from_lengths(&batch.lengths);
                let input = Ragged { values: lm.embed(&batch.ids), offsets };
                (lm.forward(&input, &[], dropout).last, None)
            }
            Network::Patch(lm) => {
                let output = lm.forward(&batch.documents(), dropout);
                let patched = Patched { n_patches: output.n_patches, ratio: output.ratio };
                (output.hidden, Some(patched))
            }
        }
    }

    /// Rows of the embedding table.
    pub fn n_vocabulary(&self) -> usize {
        match &self.network {
            Network::Plain(lm) => lm.n_tokens(),
            Network::Patch(lm) => lm.n_tokens(),
        }
    }

    /// Scores of the next token.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[n_rows, d]`
    /// - output: `[n_rows, n_tokens]`
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.network {
            Network::Plain(lm) => lm.logits(hidden),
            Network::Patch(lm) => lm.logits(hidden),
        }
    }
}

impl Learner for SpeechTextNet {
    type Batch = SpeechTextBatch;

    fn begin(&mut self, stage: &StageConfig) {
        let again = stage.gradient_checkpointing;
        match &mut self.network {
            Network::Plain(lm) => lm.recompute(again),
            Network::Patch(lm) => lm.recompute(again),
        }
    }

    fn terms(&self, batch: &SpeechTextBatch, loss: &LossConfig, dropout: Dropout) -> Vec<Term> {
        let mut terms = Vec::new();
        let (hidden, patched) = self.hidden(batch, dropout);
        let watched = |name, sum: f64| {
            let sum = Tensor::from_floats([sum as f32], &hidden.device());
            Term { name, weight: 0.0, sum }
        };
        let mut of_parts = vec![0.0; if patched.is_some() { 3 } else { 1 }];
        for (i, &n) in batch.lengths.iter().enumerate() {
            let n_patches = patched.as_ref().map_or(n, |patched| patched.n_patches[i]);
            let (n, n_patches) = (n as f64, n_patches as f64);
            let parts = plan::forward_operations(&self.config, self.n_vocabulary(), n, n_patches);
            for (sum, (_, operations)) in of_parts.iter_mut().zip(parts) {
                *sum += operations / 1e6;
            }
        }
        terms.push(watched(OPERATIONS, of_parts.iter().sum()));
        if let Some(Patched { n_patches, ratio }) = patched {
            let named = OPERATIONS_OF_PARTS.into_iter().zip(of_parts);
            terms.extend(named.map(|(name, operations)| watched(name, operations)));
            terms.push(watched(PATCHES, n_patches.iter().sum::<usize>() as f64));
            terms.extend(ratio.map(|sum| Term { name: RATIO, weight: self.ratio_weight, sum }));
        }
        // Each kind of token is scored once; all together are what is learned.
        let of = |kind: TargetKind| {
            let rows = (0..batch.targets.len()).filter(|&i| batch.kinds[i] == kind);
            let rows: Vec<u32> = rows.map(|i| i as u32).collect();
            (!rows.is_empty()).then(|| {
                let targets: Vec<u32> =
                    rows.iter().map(|&row| batch.targets[row as usize]).collect();
                let states = if rows.len() == batch.targets.len() {
                    hidden.clone()
                } else {
                    ops::embedding(hidden.clone(), &rows)
                };
                let logits = self.logits(states);
                ops::cross_entropy(logits, &targets, &vec![1.0; rows.len()])
            })
        };
        let mut sum: Option<Tensor<1>> = None;
        let kinds: [(TargetKind, &[&str]); 3] = [
            (TargetKind::Text, &["text", "text_per_word"]),
            (TargetKind::Speech, &["speech", "speech_per_s"]),
            (TargetKind::Marker, &["marker"]),
        ];
        for (kind, names) in kinds {
            let Some(part) = of(kind) else { continue };
            terms.extend(names.iter().map(|&name| Term { name, weight: 0.0, sum: part.clone() }));
            sum = Some(match sum {
                None => part,
                Some(sum) => sum + part,
            });
        }
        terms.extend(sum.map(|sum| Term { name: "ce", weight: loss.cross_entropy, sum }));
        terms
    }
}

#[cfg(test)]
mod tests;
