//! Losses that hold speech against the same words in writing.
//!
//! ```text
//! embedding      vector k ──────────────────── embedding of token k       as many vectors as tokens
//! next_token     begin, vectors 0..=k ─ language model ─ token k + 1       the same
//! distillation   prompt, vectors, answer ─ language model ─┐ KL and hidden states
//!                prompt, tokens, answer  ─ language model ─┘ at the answer's tokens
//! ```

use burn::{prelude::*, tensor::activation::log_softmax};
use sandhi_nn::{ops, ragged::Ragged, transformer::CausalLm};

use super::learner::{SpokenItem, Term};
use crate::{
    model::pack::{Segment, pack},
    recipe::{DistillationConfig, EmbeddingConfig},
};

/// Names of what is summed over the tokens that are said: the loss, then the cosine distance, which is only watched.
pub(super) const EMBEDDING: [&str; 2] = ["embedding", "embedding_cosine"];

/// Name of the share of utterances with another number of vectors than of tokens, which no token-by-token loss can use.
pub(super) const UNPAIRED: &str = "unpaired";

/// Name of the loss of the transcript's tokens, each given the vectors before it.
pub(super) const NEXT_TOKEN: &str = "next_token";

/// Names of what is summed over the answer's tokens.
pub(super) const DISTILLATION: [&str; 2] = ["distillation", "distillation_hidden"];

/// Utterances that have a vector a token.
pub(super) struct Pairs {
    /// Their places in the batch.
    utterances: Vec<usize>,
    n: usize,
}

impl Pairs {
    pub(super) fn new(items: &[SpokenItem], vectors: &Ragged) -> Self {
        let paired = |&i: &usize| {
            let n = items[i].said.tokens.len();
            n > 0 && n == vectors.offsets.range(i).len()
        };
        Self { utterances: (0..items.len()).filter(paired).collect(), n: items.len() }
    }

    /// How many utterances have none.
    pub(super) fn unpaired(&self, device: &Device) -> Term {
        let n = (self.n - self.utterances.len()) as f32;
        Term { name: UNPAIRED, weight: 0.0, sum: Tensor::from_floats([n], device) }
    }

    /// Squared error, summed over the width, and cosine distances between vectors and the embeddings of their tokens.
    pub(super) fn embedding(
        &self,
        lm: &CausalLm,
        items: &[SpokenItem],
        vectors: &Ragged,
        config: &EmbeddingConfig,
    ) -> [Term; 2] {
        let rows = self.utterances.iter().flat_map(|&i| vectors.offsets.range(i));
        let rows: Vec<u32> = rows.map(|row| row as u32).collect();
        let tokens = self.utterances.iter().flat_map(|&i| &items[i].said.tokens).copied();
        let tokens: Vec<u32> = tokens.collect();
        let [loss, cosine] = EMBEDDING;
        let device = vectors.values.device();
        if rows.is_empty() {
            // Still a function of the vectors, so that a batch without pairs has gradients of 0.
            let zero = (vectors.values.clone().sum() * 0.0).reshape([1]);
            let watched = Tensor::zeros([1], &device);
            return [
                Term { name: loss, weight: config.weight, sum: zero },
                Term { name: cosine, weight: 0.0, sum: watched },
            ];
        }
        let vectors = ops::embedding(vectors.values.clone(), &rows);
        let targets = lm.embed(&tokens).detach();
        let squared = (vectors.clone() - targets.clone()).square().sum();
        let distance = cosine_distances(vectors, targets).sum();
        let sum = squared + distance.clone() * config.cosine;
        [
            Term { name: loss, weight: config.weight, sum: sum.reshape([1]) },
            Term { name: cosine, weight: 0.0, sum: distance.detach().reshape([1]) },
        ]
    }

    /// Cross-entropy of every token but the first, given the vectors of those before it, as in a document.
    pub(super) fn next_token(
        &self,
        lm: &CausalLm,
        items: &[SpokenItem],
        vectors: &Ragged,
        weight: f64,
    ) -> Term {
        let long: Vec<usize> =
            self.utterances.iter().copied().filter(|&i| items[i].said.tokens.len() > 1).collect();
        if long.is_empty() {
            let zero = (vectors.values.clone().sum() * 0.0).reshape([1]);
            return Term { name: NEXT_TOKEN, weight, sum: zero };
        }
        let begin = |i: usize| Segment::Tokens(vec![items[i].begin]);
        let sequences: Vec<Vec<Segment>> =
            long.iter().map(|&i| vec![begin(i), Segment::Speech(i)]).collect();
        let input = pack(lm, &sequences, Some(vectors));
        // Nothing is asked of the last vector, and no token of what begins the document.
        let hidden = lm.forward(&input, &[], sandhi_nn::transformer::Dropout::OFF).last;
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (span, &i) in input.offsets.iter().zip(&long) {
            rows.extend((span.start + 1..span.end - 1).map(|row| row as u32));
            targets.extend(&items[i].said.tokens[1..]);
        }
        let logits = lm.logits(ops::embedding(hidden, &rows));
        let sum = ops::cross_entropy(logits, &targets, &vec![1.0; targets.len()]);
        Term { name: NEXT_TOKEN, weight, sum }
    }
}

/// What [`NEXT_TOKEN`] is a sum over.
pub(super) fn n_next_tokens(items: &[SpokenItem]) -> usize {
    items.iter().map(|item| item.said.tokens.len().saturating_sub(1)).sum()
}

/// What a language model made of spoken prompts.
pub(super) struct Heard {
    /// `[n_answer_tokens, n_tokens]`.
    pub(super) logits: Tensor<2>,
    /// `[n_answer_tokens, d_model]` at each of [`DistillationConfig::depths`].
    pub(super) hidden: Vec<Tensor<2>>,
}

/// The same prompts with the transcript in writing.
pub(super) fn distillation(
    lm: &CausalLm,
    items: &[SpokenItem],
    heard: &Heard,
    config: &DistillationConfig,
) -> Vec<Term> {
    // Nothing learns from what is read: no graph of it is kept.
    let learns = lm.device().is_autodiff();
    let frozen = learns.then(|| lm.valid());
    let lm = frozen.as_ref().unwrap_or(lm);
    let outside = |x: Tensor<2>| if learns { Tensor::from_inner(x) } else { x };
    let sequences: Vec<Vec<Segment>> = items
        .iter()
        .map(|item| {
            let text = Segment::Tokens(item.said.tokens.clone());
            vec![Segment::Tokens(item.before.clone()), text, Segment::Tokens(item.tail())]
        })
        .collect();
    let input = pack(lm, &sequences, None);
    let tails: Vec<usize> = items.iter().map(|item| item.answer.len()).collect();
    let off = sandhi_nn::transformer::Dropout::OFF;
    let read = lm.forward_tails_at(&input, &tails, &config.depths, off);
    let [divergence, distance] = DISTILLATION;
    let teacher = outside(lm.logits(read.last));
    let kl = divergences(teacher, heard.logits.clone(), config.temperature);
    let mut terms = vec![Term { name: divergence, weight: config.weight, sum: kl }];
    if !config.depths.is_empty() {
        let rows = tail_rows(&input, &tails);
        let n = config.depths.len() as f64;
        let distances = read.depths.into_iter().zip(&heard.hidden).map(|(read, heard)| {
            cosine_distances(heard.clone(), outside(ops::embedding(read, &rows))).sum() / n
        });
        let sum = distances.reduce(|a, b| a + b).expect("depths are not empty").reshape([1]);
        terms.push(Term { name: distance, weight: config.hidden, sum });
    }
    terms
}

/// The last rows of every sequence.
pub(super) fn tail_rows(input: &Ragged, tails: &[usize]) -> Vec<u32> {
    let spans = input.offsets.iter().zip(tails);
    spans.flat_map(|(span, &n)| span.end - n..span.end).map(|row| row as u32).collect()
}

/// `T² Σ p log(p / q)` over all rows, where `p` and `q` are softmax of teacher and student over the temperature `T`.
fn divergences(teacher: Tensor<2>, student: Tensor<2>, temperature: f64) -> Tensor<1> {
    let teacher = log_softmax(teacher / temperature, 1);
    let student = log_softmax(student / temperature, 1);
    let sum = (teacher.clone().exp() * (teacher - student)).sum() * temperature.powi(2);
    sum.reshape([1])
}

/// One minus the cosine of every pair of rows, `[n, 1]`.
fn cosine_distances(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let norm = |x: &Tensor<2>| x.clone().square().sum_dim(1).sqrt().clamp_min(1e-8);
    let norms = norm(&a) * norm(&b);
    (a * b).sum_dim(1).div(norms).neg() + 1.0
}

#[cfg(test)]
mod tests {
    use sandhi_nn::{
        init::Init,
        ragged::Offsets,
        transformer::{Dropout, TransformerConfig},
        weights::host,
    };

    use super::*;
    use crate::train::learner::Said;

    fn lm(device: &Device) -> CausalLm {
        let config: TransformerConfig = serde_json::from_value(serde_json::json!({
            "d_model": 8, "n_layers": 2, "n_heads": 2, "d_ff": 16,
        }))
        .unwrap();
        config.init(12, &Init::new(3, device))
    }

    fn item(tokens: &[u32]) -> SpokenItem {
        SpokenItem {
            before: vec![1, 2],
            after: vec![3],
            answer: vec![7, 5, 0],
            said: Said { tokens: tokens.to_vec(), ..Said::default() },
            begin: 8,
        }
    }

    fn value(term: &Term) -> f32 {
        host(term.sum.clone().reshape([1, 1]))[0]
    }

    #[test]
    fn vectors_are_pulled_to_their_tokens() {
        let device = Device::flex().autodiff();
        let lm = lm(&device);
        let items = [item(&[4, 6]), item(&[4]), item(&[9])];
        // The first utterance is off by 1 in one place, the second has too many vectors, the third is right.
        let shift =
            Tensor::<2>::from_floats([[0.0; 8], [0.0; 8]], &device).slice_fill([0..1, 0..1], 1.0);
        let rows =
            Tensor::cat(vec![lm.embed(&[4, 6]) + shift, lm.embed(&[4, 4]), lm.embed(&[9])], 0);
        let values = rows.detach().require_grad();
        let vectors = Ragged { values: values.clone(), offsets: Offsets::from_lengths(&[2, 2, 1]) };
        let pairs = Pairs::new(&items, &vectors);
        assert_eq!(
            (pairs.utterances.as_slice(), value(&pairs.unpaired(&device))),
            (&[0, 2][..], 1.0)
        );
        let [loss, cosine] = pairs.embedding(&lm, &items, &vectors, &EmbeddingConfig::default());
        let e = host(lm.embed(&[4]));
        let (dot, norm): (f32, f32) =
            (e.iter().map(|x| x * x).sum::<f32>() + e[0], e.iter().map(|x| x * x).sum());
        let shifted = norm + 2.0 * e[0] + 1.0;
        let distance = 1.0 - dot / (norm * shifted).sqrt();
        assert!((value(&cosine) - distance).abs() < 1e-5, "{} {distance}", value(&cosine));
        assert!((value(&loss) - (1.0 + 5.0 * distance)).abs() < 1e-4);
        // What is right is where it should be, and what has no pair is left alone.
        let grads = loss.sum.backward();
        let gradient = host(values.grad(&grads).unwrap());
        assert!(gradient[0] > 1.0 && gradient[16..].iter().all(|g| g.abs() < 1e-3), "{gradient:?}");
        // Nothing paired is no loss and no error.
        let alone =
            Ragged { values: lm.embed(&[4, 4]), offsets: Offsets::from_lengths(&[2, 0, 0]) };
        let items = [item(&[4]), item(&[]), item(&[1])];
        let none = Pairs::new(&items, &alone);
        let [loss, _] = none.embedding(&lm, &items, &alone, &EmbeddingConfig::default());
        assert_eq!((value(&loss), value(&none.unpaired(&device))), (0.0, 3.0));
    }

    #[test]
    fn the_next_token_follows_from_the_vectors_before() {
        let device = Device::flex();
        let lm = lm(&device);
        let items = [item(&[4, 6, 2]), item(&[9])];
        let values = lm.embed(&[4, 6, 2, 9]);
        let vectors = Ragged { values, offsets: Offsets::from_lengths(&[3, 1]) };
        let term = Pairs::new(&items, &vectors).next_token(&lm, &items, &vectors, 1.0);
        // With the embeddings themselves it is the loss of the text, as a document.
        let input = Ragged { values: lm.embed(&[8, 4, 6]), offsets: Offsets::from_lengths(&[3]) };
        let logits = lm.logits(lm.forward(&input, &[], Dropout::OFF).last.narrow(0, 1, 2));
        let expected = ops::cross_entropy(logits, &[6, 2], &[1.0, 1.0]);
        assert!((value(&term) - host(expected.reshape([1, 1]))[0]).abs() < 1e-4);
        assert_eq!(n_next_tokens(&items), 2);
    }

    #[test]
    fn a_model_that_hears_what_it_reads_has_nothing_to_learn() {
        let device = Device::flex();
        let lm = lm(&device);
        let items = [item(&[4, 6, 2]), item(&[9])];
        let config = DistillationConfig { hidden: 0.5, depths: vec![1], ..Default::default() };
        let heard = |tokens: [u32; 4]| {
            let vectors =
                Ragged { values: lm.embed(&tokens), offsets: Offsets::from_lengths(&[3, 1]) };
            let sequences: Vec<Vec<Segment>> = (0..2)
                .map(|i| {
                    vec![
                        Segment::Tokens(vec![1, 2]),
                        Segment::Speech(i),
                        Segment::Tokens(items[i].tail()),
                    ]
                })
                .collect();
            let input = pack(&lm, &sequences, Some(&vectors));
            let hidden = lm.forward_tails_at(&input, &[3, 3], &[1], Dropout::OFF);
            let rows = tail_rows(&input, &[3, 3]);
            let depths = hidden.depths.into_iter().map(|x| ops::embedding(x, &rows)).collect();
            Heard { logits: lm.logits(hidden.last), hidden: depths }
        };
        let same = distillation(&lm, &items, &heard([4, 6, 2, 9]), &config);
        assert_eq!(same.len(), 2);
        assert!(same.iter().all(|term| value(term).abs() < 1e-4));
        let other = distillation(&lm, &items, &heard([5, 8, 3, 1]), &config);
        assert!(other.iter().all(|term| value(term) > 1e-4));
    }

    /// By hand: two classes, teacher 0.75 and 0.25 at temperature 2, student even.
    #[test]
    fn divergence_with_a_temperature() {
        let device = Device::flex();
        let teacher = Tensor::<2>::from_floats([[2.0 * 3.0_f32.ln(), 0.0]], &device);
        let student = Tensor::<2>::from_floats([[1.0, 1.0]], &device);
        let found = divergences(teacher, student, 2.0);
        let expected = 4.0 * (0.75 * 1.5_f32.ln() + 0.25 * 0.5_f32.ln());
        assert!((host(found.reshape([1, 1]))[0] - expected).abs() < 1e-5);
    }
}
