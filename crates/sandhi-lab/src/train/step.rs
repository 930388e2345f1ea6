//! One optimizer step's gradients, over batches and replicas.
//!
//! ```text
//! batches   b0 b1 b2 b3         two replicas, each on a thread
//! replica 0 b0    b2            forward, backward
//! replica 1    b1    b3
//! sum       g0 + g1 + g2 + g3   in this order, whatever thread was first
//! ```
//!
//! Every batch's loss is already divided by the counts of the whole step, so the sum is the gradient
//! of the step's mean.

use std::collections::BTreeMap;

use burn::{
    optim::{GradientsAccumulator, GradientsParams},
    prelude::*,
};
use sandhi_nn::{transformer::Dropout, weights::host};

use super::learner::{Learner, Measured, Size};
use crate::recipe::LossConfig;

/// The losses of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Losses {
    /// Weighted sum of the terms' means.
    pub total: f64,
    /// Mean of each term, by name.
    pub terms: BTreeMap<&'static str, f64>,
}

/// Sizes of all batches of a step together.
pub fn total_size<'a, B: Measured + 'a>(
    batches: impl IntoIterator<Item = &'a B>,
    loss: &LossConfig,
) -> Size {
    let mut total = Size::default();
    for size in batches.into_iter().map(|batch| batch.size(loss)) {
        total.n_items += size.n_items;
        total.n_tokens += size.n_tokens;
        total.audio_s += size.audio_s;
        for (name, count) in size.counts {
            match total.counts.iter_mut().find(|(n, _)| *n == name) {
                Some((_, sum)) => *sum += count,
                None => total.counts.push((name, count)),
            }
        }
    }
    total
}

fn count(size: &Size, name: &str) -> f64 {
    size.counts.iter().find(|(n, _)| *n == name).map_or(0.0, |(_, count)| *count)
}

/// Losses and gradients of a batch as parts of a step of the given size.
fn part<L: Learner>(
    model: &L,
    batch: &L::Batch,
    size: &Size,
    loss: &LossConfig,
    dropout: Dropout,
) -> (Losses, Option<GradientsParams>) {
    let mut losses = Losses::default();
    let mut total: Option<Tensor<1>> = None;
    for term in model.terms(batch, loss, dropout) {
        // A step in which nothing is counted has no such loss.
        let n = count(size, term.name);
        if n <= 0.0 {
            continue;
        }
        let scale = 1.0 / n;
        let mean = f64::from(host(term.sum.clone().inner())[0]) * scale;
        losses.terms.insert(term.name, mean);
        losses.total += term.weight * mean;
        if term.weight != 0.0 {
            let weighted = term.sum * (term.weight * scale);
            total = Some(match total {
                None => weighted,
                Some(sum) => sum + weighted,
            });
        }
    }
    let grads = total
        .filter(|_| model_learns(model))
        .map(|total| GradientsParams::from_grads(total.backward(), model));
    (losses, grads)
}

fn model_learns<L: Learner>(model: &L) -> bool {
    model.devices().iter().any(Device::is_autodiff)
}

fn add(sum: &mut Losses, part: &Losses) {
    sum.total += part.total;
    for (name, value) in &part.terms {
        *sum.terms.entry(name).or_default() += value;
    }
}

/// Losses and summed gradients of a step; `dropout(i)` is the dropout of batch `i`.
///
/// # Panics
///
/// When a replica's thread panics.
pub fn gradients<L: Learner>(
    model: &L,
    batches: &[L::Batch],
    loss: &LossConfig,
    n_replicas: usize,
    dropout: impl Fn(usize) -> Dropout + Sync,
) -> (Losses, GradientsParams) {
    let size = total_size(batches, loss);
    let mut sum = Losses::default();
    let mut accumulator = GradientsAccumulator::<L>::new();
    let mut take = |(losses, grads): (Losses, Option<GradientsParams>)| {
        add(&mut sum, &losses);
        if let Some(grads) = grads {
            accumulator.accumulate(model, grads);
        }
    };
    if n_replicas <= 1 {
        for (i, batch) in batches.iter().enumerate() {
            take(part(model, batch, &size, loss, dropout(i)));
        }
    } else {
        let device = model.devices().into_iter().next().expect("a model has parameters");
        let replicas: Vec<L> = (0..n_replicas).map(|_| model.clone().fork(&device)).collect();
        let (size, dropout) = (&size, &dropout);
        let mut parts: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = replicas
                .iter()
                .enumerate()
                .map(|(r, replica)| {
                    scope.spawn(move || {
                        (r..batches.len())
                            .step_by(n_replicas)
                            .map(|i| (i, part(replica, &batches[i], size, loss, dropout(i))))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|t| t.join().expect("a replica panicked")).collect()
        });
        parts.sort_by_key(|(i, _)| *i);
        parts.into_iter().for_each(|(_, part)| take(part));
    }
    (sum, accumulator.grads())
}

/// Losses without gradients, over batches together; the module must be on a device without autodiff.
pub fn losses<'a, L: Learner>(
    model: &L,
    batches: impl IntoIterator<Item = &'a L::Batch> + Clone,
    loss: &LossConfig,
) -> Losses {
    let size = total_size(batches.clone(), loss);
    let mut sum = Losses::default();
    for batch in batches {
        add(&mut sum, &part(model, batch, &size, loss, Dropout::OFF).0);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::HostRagged,
        train::{
            learner::{ConnectorBatch, Heard, SpeechBatch, TextBatch, TextItem},
            transport::tests::{item, net},
        },
    };

    #[test]
    fn speech_and_text_are_means_of_their_own() {
        let net = net(&Device::flex().autodiff());
        let frames: Vec<f32> = (0..12 * 8).map(|k| (k * 37 % 23) as f32 / 11.0 - 1.0).collect();
        let spoken = ConnectorBatch::Spoken(SpeechBatch {
            heard: Heard::Frames(HostRagged::gather(8, [frames.as_slice()])),
            items: vec![item(&[4, 5], &[10, 11])],
            ends: None,
            penalties: Vec::new(),
            audio_s: 1.0,
        });
        let text = |ids: &[u32], n_prompt| TextItem { ids: ids.to_vec(), n_prompt };
        let items = vec![text(&[3, 9, 14, 2], 0), text(&[5, 6, 7, 8, 1], 3)];
        let written = ConnectorBatch::Written(TextBatch { items });
        let loss = LossConfig { text: 0.5, ..LossConfig::default() };
        // Three tokens of the first document, two of the second, whose prompt does not count.
        assert_eq!(written.size(&loss).counts, [("text_ce", 5.0)]);
        let mean = |batches: &[ConnectorBatch], name| {
            gradients(&net, batches, &loss, 1, |_| Dropout::OFF).0.terms[name]
        };
        let alone = (
            mean(std::slice::from_ref(&spoken), "ce"),
            mean(std::slice::from_ref(&written), "text_ce"),
        );
        let (together, gradients) = gradients(&net, &[spoken, written], &loss, 1, |_| Dropout::OFF);
        assert_eq!((together.terms["ce"], together.terms["text_ce"]), alone);
        assert!((together.total - alone.0 - 0.5 * alone.1).abs() < 1e-9);
        assert!(!gradients.is_empty());
    }
}
