//! Answers from prompts: decoding and scoring, in ragged batches.
//!
//! ```text
//! prompts ─ read ─┬─> logits ─ pick ─┐
//!                 └── cache <─ embed ┘   until the end marker or the longest answer
//! ```
//!
//! A sequence that has ended leaves the batch. Every row is computed as it would be alone, so the
//! answers do not depend on the batch.

use burn::prelude::*;
use indexmap::IndexSet;
use sandhi_data::rng::{Stream, stream};
use sandhi_nn::{
    ragged::{Offsets, Ragged},
    transformer::{Cache, CausalLm},
    weights::host,
};
use serde::{Deserialize, Serialize};

use crate::model::pack::{Segment, length, pack};

/// How to decode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Decoding {
    /// Longest answer, in tokens, the end marker included.
    pub max_tokens: usize,
    /// 0 picks the likeliest token; larger values flatten the distribution.
    pub temperature: f64,
    /// Only the likeliest tokens that together have this probability are drawn from.
    pub top_p: f64,
    /// Seeds the draws; sequence `i` of a call draws from a stream of its own.
    pub seed: u64,
    /// Sequences decoded at once.
    pub batch: usize,
}

impl Default for Decoding {
    fn default() -> Self {
        Self { max_tokens: 64, temperature: 0.0, top_p: 1.0, seed: 0, batch: 64 }
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The end marker came.
    End,
    /// The longest answer was reached.
    Length,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its tokens, without the end marker.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub stop: Stop,
    /// Sum of the log-probabilities of its tokens, the end marker included.
    pub log_prob: f64,
}

impl Answer {
    /// Tokens of it that were read: all, but for the last where the longest answer was reached.
    pub fn n_read(&self) -> usize {
        match self.stop {
            Stop::End => self.ids.len(),
            Stop::Length => self.ids.len().saturating_sub(1),
        }
    }
}

/// Decodes an answer for every prompt, until one of `ends` or the longest answer.
pub fn generate(
    lm: &CausalLm,
    prompts: &[Vec<Segment>],
    vectors: Option<&Ragged>,
    ends: &[u32],
    decoding: &Decoding,
) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(prompts.len());
    for (i, chunk) in prompts.chunks(decoding.batch.max(1)).enumerate() {
        let first = i * decoding.batch.max(1);
        answers.extend(generate_batch(lm, chunk, vectors, ends, decoding, first));
    }
    answers
}

/// Prompts that have been read.
struct Read {
    cache: Cache,
    /// What follows the last row of each, `[n_prompts, d_model]`.
    last: Tensor<2>,
}

/// Reads prompts, each with room for `room` more tokens. What stands before the speech is read apart, and
/// once where several prompts of the call begin with it; a prompt is cut in the same place whether it
/// shares or not, so that its rows do not depend on its neighbours.
fn read(lm: &CausalLm, prompts: &[&[Segment]], vectors: Option<&Ragged>, room: usize) -> Read {
    let n_rows = |segments: &[Segment]| segments.iter().map(|s| length(s, vectors)).sum::<usize>();
    let mut heads: IndexSet<&[Segment]> = IndexSet::new();
    let mut tails: Vec<&[Segment]> = Vec::with_capacity(prompts.len());
    let mut parents = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let is_cut = prompt.len() > 1 && n_rows(&prompt[..1]) > 0 && n_rows(&prompt[1..]) > 0;
        let (head, tail) = prompt.split_at(usize::from(is_cut));
        parents.push(heads.insert_full(head).0);
        tails.push(tail);
    }
    let lengths: Vec<usize> = heads.iter().map(|head| n_rows(head)).collect();
    let input = pack(lm, &tails, vectors);
    let capacities: Vec<usize> = parents
        .iter()
        .zip(input.offsets.lengths())
        .map(|(&head, tail)| lengths[head] + tail + room)
        .collect();
    let filled: Vec<usize> = (0..heads.len()).filter(|&i| lengths[i] > 0).collect();
    let mut cache = if filled.is_empty() {
        lm.cache(&capacities)
    } else {
        let mut cache = lm.cache(&lengths);
        let heads: Vec<&[Segment]> = filled.iter().map(|&i| heads[i]).collect();
        lm.extend_to_last(&pack(lm, &heads, vectors), &filled, &mut cache);
        cache.fork(&parents, &capacities)
    };
    let all: Vec<usize> = (0..prompts.len()).collect();
    let last = lm.extend_to_last(&input, &all, &mut cache);
    Read { cache, last }
}

fn generate_batch(
    lm: &CausalLm,
    prompts: &[Vec<Segment>],
    vectors: Option<&Ragged>,
    ends: &[u32],
    decoding: &Decoding,
    first: usize,
) -> Vec<Answer> {
    let prompts: Vec<&[Segment]> = prompts.iter().map(Vec::as_slice).collect();
    let Read { mut cache, last } = read(lm, &prompts, vectors, decoding.max_tokens);
    let logits = host(lm.logits(last));
    let longest = vec![decoding.max_tokens; prompts.len()];
    decode(&longest, logits, ends, decoding, first, |ids, active| {
        let offsets = Offsets::from_lengths(&vec![1; ids.len()]);
        let input = Ragged { values: lm.embed(ids), offsets };
        host(lm.logits(lm.extend(&input, active, &mut cache)))
    })
}

/// Picks tokens of sequences until one of `ends` or as many as each may have, `longest`. `logits` are those of what follows the
/// prompts, row after row; `next` reads one token of each of the sequences that go on and gives what follows. `first` is
/// the number of the first sequence among all of a call, whose draws it seeds.
pub(crate) fn decode(
    longest: &[usize],
    mut logits: Vec<f32>,
    ends: &[u32],
    decoding: &Decoding,
    first: usize,
    mut next: impl FnMut(&[u32], &[usize]) -> Vec<f32>,
) -> Vec<Answer> {
    let n = longest.len();
    let mut active: Vec<usize> = (0..n).collect();
    let mut streams: Vec<Stream> = (0..n)
        .map(|i| Stream::new(stream(decoding.seed, &format!("sequence {}", first + i))))
        .collect();
    let mut answers: Vec<Answer> =
        (0..n).map(|_| Answer { ids: Vec::new(), stop: Stop::Length, log_prob: 0.0 }).collect();
    for n_tokens in 1..=longest.iter().copied().max().unwrap_or(0) {
        let width = logits.len() / active.len().max(1);
        let mut still = Vec::with_capacity(active.len());
        let mut ids = Vec::with_capacity(active.len());
        for (&i, row) in active.iter().zip(logits.chunks(width.max(1))) {
            if longest[i] == 0 {
                continue;
            }
            let (id, log_prob) = pick(row, decoding, &mut streams[i]);
            answers[i].log_prob += log_prob;
            if ends.contains(&id) {
                answers[i].stop = Stop::End;
            } else {
                answers[i].ids.push(id);
                if n_tokens < longest[i] {
                    still.push(i);
                    ids.push(id);
                }
            }
        }
        active = still;
        if active.is_empty() {
            break;
        }
        logits = next(&ids, &active);
    }
    answers
}

/// The next token of one sequence and its log-probability.
fn pick(logits: &[f32], decoding: &Decoding, stream: &mut Stream) -> (u32, f64) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let log_sum = logits.iter().map(|&x| f64::from(x - max).exp()).sum::<f64>().ln();
    let log_prob = |id: usize| f64::from(logits[id] - max) - log_sum;
    if decoding.temperature <= 0.0 {
        // The first of equals, whatever the batch.
        let best =
            (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
        return (best as u32, log_prob(best));
    }
    let mut weights: Vec<(usize, f64)> = logits
        .iter()
        .map(|&x| (f64::from(x - max) / decoding.temperature).exp())
        .enumerate()
        .collect();
    let mut total: f64 = weights.iter().map(|(_, w)| w).sum();
    if decoding.top_p < 1.0 {
        weights.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut kept = 0.0;
        let n = weights
            .iter()
            .position(|(_, w)| {
                kept += w / total;
                kept >= decoding.top_p
            })
            .map_or(weights.len(), |n| n + 1);
        weights.truncate(n);
        total = weights.iter().map(|(_, w)| w).sum();
    }
    let mut left = stream.uniform() * total;
    let last = weights[weights.len() - 1].0;
    let id = weights
        .iter()
        .find(|(_, w)| {
            left -= w;
            left < 0.0
        })
        .map_or(last, |(id, _)| *id);
    (id as u32, log_prob(id))
}

/// Log-probabilities of the tokens of each option after its prompt: `options[i]` are the continuations of
/// `prompts[i]`, which is read once for all of them. Prompts are not scored.
pub fn score(
    lm: &CausalLm,
    prompts: &[Vec<Segment>],
    options: &[Vec<Vec<u32>>],
    vectors: Option<&Ragged>,
    batch: usize,
) -> Vec<Vec<Vec<f64>>> {
    assert_eq!(prompts.len(), options.len());
    let batches = prompts.chunks(batch.max(1)).zip(options.chunks(batch.max(1)));
    batches.flat_map(|(prompts, options)| score_batch(lm, prompts, options, vectors)).collect()
}

fn score_batch(
    lm: &CausalLm,
    prompts: &[Vec<Segment>],
    options: &[Vec<Vec<u32>>],
    vectors: Option<&Ragged>,
) -> Vec<Vec<Vec<f64>>> {
    let prompts: Vec<&[Segment]> = prompts.iter().map(Vec::as_slice).collect();
    let Read { cache, last } = read(lm, &prompts, vectors, 0);
    // What follows a prompt is the first token of each of its options, and so on; the last one is
    // followed by nothing that counts.
    let first = host(lm.logits(last));
    let first: Vec<&[f32]> = first.chunks(lm.n_tokens()).collect();
    let longer: Vec<(usize, &[u32])> = options
        .iter()
        .enumerate()
        .flat_map(|(i, options)| options.iter().map(move |ids| (i, ids.as_slice())))
        .filter(|(_, ids)| ids.len() > 1)
        .collect();
    let rest = if longer.is_empty() {
        Vec::new()
    } else {
        let read: Vec<u32> =
            longer.iter().flat_map(|(_, ids)| &ids[..ids.len() - 1]).copied().collect();
        let counts: Vec<usize> = longer.iter().map(|(_, ids)| ids.len() - 1).collect();
        let parents: Vec<usize> = longer.iter().map(|(i, _)| *i).collect();
        let capacities: Vec<usize> =
            parents.iter().zip(&counts).map(|(&i, n)| cache.length(i) + n).collect();
        let mut cache = cache.fork(&parents, &capacities);
        let input = Ragged { values: lm.embed(&read), offsets: Offsets::from_lengths(&counts) };
        let all: Vec<usize> = (0..parents.len()).collect();
        host(lm.logits(lm.extend(&input, &all, &mut cache)))
    };
    let mut rest = rest.chunks(lm.n_tokens());
    options
        .iter()
        .zip(first)
        .map(|(options, first)| {
            options
                .iter()
                .map(|ids| {
                    let rows = std::iter::once(first)
                        .chain(rest.by_ref().take(ids.len().saturating_sub(1)));
                    ids.iter().zip(rows).map(|(&id, row)| log_prob(row, id)).collect()
                })
                .collect()
        })
        .collect()
}

fn log_prob(logits: &[f32], id: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let log_sum = logits.iter().map(|&x| f64::from(x - max).exp()).sum::<f64>().ln();
    f64::from(logits[id as usize] - max) - log_sum
}

#[cfg(test)]
mod tests {
    use sandhi_nn::{
        init::Init,
        transformer::{Dropout, TransformerConfig},
    };

    use super::*;

    fn model(window: Option<usize>) -> CausalLm {
        let config: TransformerConfig = serde_json::from_value(serde_json::json!({
            "d_model": 24, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "d_ff": 40,
            "qk_norm": true, "window": window,
        }))
        .unwrap();
        config.init(50, &Init::new(3, &Device::flex()))
    }

    /// Prompts of mixed lengths, every other one with speech in it.
    fn prompts() -> (Vec<Vec<Segment>>, Ragged) {
        let lengths = [3, 9, 1, 5];
        let n: usize = lengths.iter().sum();
        let values: Vec<f32> = (0..n * 24).map(|i| ((i * 37 % 101) as f32 / 50.0) - 1.0).collect();
        let vectors = Ragged {
            values: Tensor::from_data(TensorData::new(values, [n, 24]), &Device::flex()),
            offsets: Offsets::from_lengths(&lengths),
        };
        let mut prompts = Vec::new();
        for i in 0..8_u32 {
            let mut prompt =
                vec![Segment::Tokens((0..1 + 2 * i).map(|k| (k * 7 + i) % 50).collect())];
            if i % 2 == 0 {
                prompt.push(Segment::Speech(i as usize / 2));
                prompt.push(Segment::Tokens(vec![i]));
            }
            prompts.push(prompt);
        }
        (prompts, vectors)
    }

    #[test]
    fn a_batch_of_one_equals_a_batch_of_many() {
        for window in [None, Some(4)] {
            let lm = model(window);
            let (prompts, vectors) = prompts();
            for temperature in [0.0, 0.8] {
                let decoding =
                    |batch| Decoding { max_tokens: 12, batch, temperature, ..Decoding::default() };
                let many = generate(&lm, &prompts, Some(&vectors), &[49], &decoding(8));
                let three = generate(&lm, &prompts, Some(&vectors), &[49], &decoding(3));
                let one = generate(&lm, &prompts, Some(&vectors), &[49], &decoding(1));
                assert_eq!(many, three);
                assert_eq!(many, one);
            }
        }
    }

    #[test]
    fn decoding_agrees_with_scoring() {
        let lm = model(None);
        let (prompts, vectors) = prompts();
        let decoding = Decoding { max_tokens: 6, ..Decoding::default() };
        let answers = generate(&lm, &prompts, Some(&vectors), &[49], &decoding);
        let options: Vec<Vec<Vec<u32>>> = answers
            .iter()
            .map(|a| {
                let mut ids = a.ids.clone();
                ids.extend((a.stop == Stop::End).then_some(49));
                vec![ids]
            })
            .collect();
        let scores = score(&lm, &prompts, &options, Some(&vectors), 3);
        for (answer, score) in answers.iter().zip(scores) {
            let sum: f64 = score[0].iter().sum();
            assert!((answer.log_prob - sum).abs() < 1e-3, "{} and {sum}", answer.log_prob);
        }
    }

    #[test]
    fn options_are_scored_as_whole_sequences_would_be() {
        let lm = model(None);
        let (prompts, vectors) = prompts();
        // One token, several, and none.
        let options: Vec<Vec<Vec<u32>>> = (0..prompts.len() as u32)
            .map(|i| vec![vec![i], vec![3, i, 7, 9], vec![], vec![i + 1, 2]])
            .collect();
        let found = score(&lm, &prompts, &options, Some(&vectors), 3);
        for ((prompt, options), found) in prompts.iter().zip(&options).zip(&found) {
            assert_eq!(found.len(), options.len());
            for (ids, found) in options.iter().zip(found) {
                assert_eq!(found.len(), ids.len());
                let mut whole = prompt.clone();
                whole.push(Segment::Tokens(ids.clone()));
                let input = pack(&lm, &[whole], Some(&vectors));
                let n_rows = input.offsets.n_rows();
                let hidden = lm.forward(&input, &[], Dropout::OFF).last;
                let logits = host(lm.logits(hidden));
                let rows: Vec<&[f32]> = logits.chunks(lm.n_tokens()).collect();
                for (k, (&id, found)) in ids.iter().zip(found).enumerate() {
                    let expected = log_prob(rows[n_rows - ids.len() + k - 1], id);
                    assert!((expected - found).abs() < 1e-4, "{expected} and {found}");
                }
            }
        }
    }

    #[test]
    fn prompts_that_begin_alike_are_answered_as_alone() {
        let lm = model(None);
        let (_, vectors) = prompts();
        let head = Segment::Tokens(vec![4, 8, 15, 16]);
        let prompts: Vec<Vec<Segment>> = (0..3)
            .flat_map(|i| {
                let heard = vec![head.clone(), Segment::Speech(i), Segment::Tokens(vec![23])];
                let read = vec![head.clone(), Segment::Tokens(vec![i as u32, 42])];
                [heard, read]
            })
            .collect();
        let decoding = |batch| Decoding { max_tokens: 8, batch, ..Decoding::default() };
        let shared = generate(&lm, &prompts, Some(&vectors), &[49], &decoding(6));
        let alone = generate(&lm, &prompts, Some(&vectors), &[49], &decoding(1));
        assert_eq!(shared, alone);
    }

    #[test]
    fn sampling_follows_the_distribution() {
        // Two tokens with odds of three to one.
        let logits = [0.0, 3.0_f32.ln(), f32::NEG_INFINITY];
        let decoding = Decoding { temperature: 1.0, ..Decoding::default() };
        let mut stream = Stream::named(1, "test");
        let n = (0..4_000).filter(|_| pick(&logits, &decoding, &mut stream).0 == 1).count();
        // 3,000 expected, standard deviation 27.
        assert!(n.abs_diff(3_000) < 140, "{n}");
        let nucleus = Decoding { top_p: 0.5, ..decoding };
        assert!((0..100).all(|_| pick(&logits, &nucleus, &mut stream).0 == 1));
    }

    #[test]
    fn the_first_of_equals_is_taken() {
        let (id, log_prob) = pick(&[1.0, 2.0, 2.0], &Decoding::default(), &mut Stream::new(0));
        assert_eq!(id, 1);
        // e² / (e + 2 e²)
        assert!((log_prob - (1.0 / (2.0 + (-1.0_f64).exp())).ln()).abs() < 1e-6);
    }
}
