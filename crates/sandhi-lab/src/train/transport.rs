//! The transport loss of a batch: speech vectors on one side, what is said on the other.
//!
//! ```text
//! depth 0   the connector's vectors        embedding rows of the transcript's tokens, then the pad's
//! depth k   the prompt's speech rows,      the rows of the same prompt with the transcript in writing,
//!           after block k                  then a pad, after block k
//! ```
//!
//! At depth 0 all vectors take part, also those that compression takes away: it is transport that draws pauses to the
//! pad. Deeper there are only those that the language model was given.

use std::collections::HashMap;

use burn::prelude::*;
use sandhi_align::transport::{Batch, Masses, Solver};
use sandhi_nn::{
    ops::{TransportProblems, cosine_costs, embedding, transport_loss},
    ragged::{Offsets, Ragged},
    transformer::CausalLm,
    weights::host,
};

use super::learner::{ConnectorNet, Said, SpokenItem, Term};
use crate::{
    model::pack::{Segment, pack},
    recipe::{PadMass, TargetMass, TransportConfig},
};

/// Names of what is summed over the utterances: the loss, then what is only watched. The cost is without a prior on the
/// order; unsolved and left out are shares of the utterances; the pad's norm is that of its embedding, 0 without a pad.
pub(super) const TERMS: [&str; 6] =
    ["transport", "transport_cost", "undecided", "unsolved", "left_out", "pad_norm"];

/// What the language model made of the prompts.
pub(crate) struct Read<'a> {
    /// Where each prompt's rows are.
    pub input: &'a Offsets,
    /// The vectors that each prompt has.
    pub given: &'a Offsets,
    /// All rows at each of [`TransportConfig::inner_depths`].
    pub hidden: Vec<Tensor<2>>,
}

/// Cosines between the embeddings of the tokens of a batch.
struct Similarity {
    /// Place of a token among the distinct ones.
    places: HashMap<u32, usize>,
    /// `[n_distinct, n_distinct]`; empty where nothing is merged.
    cosines: Vec<f32>,
}

impl Similarity {
    fn new(lm: &CausalLm, said: &[&Said], merge: Option<f64>) -> Self {
        let mut places = HashMap::new();
        let mut distinct = Vec::new();
        for &token in said.iter().flat_map(|said| &said.tokens) {
            places.entry(token).or_insert_with(|| {
                distinct.push(token);
                distinct.len() - 1
            });
        }
        let cosines = if merge.is_some_and(|merge| merge < 1.0) && !distinct.is_empty() {
            let rows = lm.embed(&distinct).detach();
            let rows = rows.clone() / rows.square().sum_dim(1).sqrt().clamp_min(f32::MIN_POSITIVE);
            host(rows.clone().matmul(rows.transpose()))
        } else {
            Vec::new()
        };
        Self { places, cosines }
    }

    /// Whether two tokens are one target: they are the same, or their embeddings have a larger cosine.
    fn agree(&self, a: u32, b: u32, merge: f64) -> bool {
        let cosine = |a: u32, b: u32| {
            let n = self.places.len();
            self.cosines.get(self.places[&a] * n + self.places[&b]).copied()
        };
        a == b || cosine(a, b).is_some_and(|cosine| f64::from(cosine) > merge)
    }
}

/// Tokens of one utterance that are one target each, and how much of the speech they should have.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Targets {
    /// Place of the token among those that are said.
    pub places: Vec<usize>,
    /// One a target; in the unit of [`Said::masses`], or how many tokens it stands for.
    masses: Vec<f64>,
}

impl Targets {
    /// Every token, or, with a threshold, the first of those that agree.
    fn of(said: &Said, similarity: &Similarity, merge: Option<f64>) -> Self {
        let mut targets = Self::default();
        for (i, &token) in said.tokens.iter().enumerate() {
            let mass = said.masses.get(i).copied().unwrap_or(1.0);
            let same = merge.and_then(|merge| {
                let agrees = |&place: &usize| similarity.agree(said.tokens[place], token, merge);
                targets.places.iter().position(agrees)
            });
            match same {
                Some(target) => targets.masses[target] += mass,
                None => {
                    targets.places.push(i);
                    targets.masses.push(mass);
                }
            }
        }
        targets
    }
}

/// The problems of a batch: which rows of the speech, which tokens, how much of each.
pub(crate) struct Problems {
    /// Which utterances have one.
    utterances: Vec<usize>,
    /// Their targets; a pad comes after the last.
    pub targets: Vec<Targets>,
    /// Where each begins.
    pub batch: Batch,
    masses: Vec<f64>,
    pad_shares: Vec<f64>,
}

impl Problems {
    /// Utterances without vectors, tokens or masses have nothing to transport; in order, neither have those with fewer
    /// vectors than tokens. They are left out, which is watched.
    fn new(
        config: &TransportConfig,
        said: &[&Said],
        targets: &[Targets],
        vectors: &Offsets,
    ) -> Self {
        let pad = usize::from(config.has_pad());
        let ordered = matches!(config.solver(), Solver::Monotone(_));
        let utterances: Vec<usize> = (0..said.len())
            .filter(|&i| {
                let (n, m) = (vectors.range(i).len(), targets[i].places.len());
                let total: f64 = targets[i].masses.iter().sum();
                n > 0 && m > 0 && total > 0.0 && !(ordered && n < m)
            })
            .collect();
        let lengths = |of: &dyn Fn(usize) -> usize| {
            let lengths: Vec<usize> = utterances.iter().map(|&i| of(i)).collect();
            Offsets::from_lengths(&lengths)
        };
        let rows = lengths(&|i| vectors.range(i).len());
        let columns = lengths(&|i| targets[i].places.len() + pad);
        let batch = Batch::new(rows.as_slice(), columns.as_slice())
            .expect("every problem has vectors and targets");
        let targets: Vec<Targets> = utterances.iter().map(|&i| targets[i].clone()).collect();
        let mut masses = Vec::with_capacity(columns.n_rows());
        for targets in &targets {
            // Shares of an utterance, the pad's that of a target on average.
            let n = targets.places.len();
            let total: f64 = targets.masses.iter().sum();
            let uniform = config.masses == TargetMass::Uniform;
            let share = |mass: f64| if uniform { 1.0 / n as f64 } else { mass / total };
            let with_pad = 1.0 + pad as f64 / n as f64;
            masses.extend(targets.masses.iter().map(|&mass| share(mass) / with_pad));
            masses.extend((pad == 1).then(|| 1.0 / n as f64 / with_pad));
        }
        let pad_shares = utterances.iter().filter_map(|&i| match config.pad {
            PadMass::None | PadMass::Target => None,
            PadMass::Share(share) => Some(share),
            PadMass::Blank => Some(said[i].pad_share.expect("known where it is asked for")),
        });
        let pad_shares = pad_shares.collect();
        Self { utterances, targets, batch, masses, pad_shares }
    }

    /// Masses of the targets; the rows' are all alike.
    pub fn columns(&self, config: &TransportConfig) -> Masses<'_> {
        let given_share = !self.pad_shares.is_empty();
        match config.masses {
            TargetMass::Uniform if given_share => Masses::UNIFORM.with_pad(&self.pad_shares),
            TargetMass::Uniform => Masses::UNIFORM,
            _ if given_share => Masses::given(&self.masses).with_pad(&self.pad_shares),
            _ => Masses::given(&self.masses),
        }
    }
}

/// The problems at one depth, and what their costs are between.
pub(crate) struct Sides {
    pub problems: Problems,
    /// The speech of all problems, `[n_rows, d_model]`.
    pub x: Tensor<2>,
    /// Their targets, `[n_columns, d_model]`.
    pub y: Tensor<2>,
}

/// Both sides at every depth, in the order of the settings.
///
/// # Panics
///
/// When a pad is to be a target and there is none.
pub(crate) fn sides(
    lm: &CausalLm,
    pad: Option<u32>,
    items: &[SpokenItem],
    heard: &Ragged,
    read: Read<'_>,
    config: &TransportConfig,
) -> Vec<Sides> {
    let said: Vec<&Said> = items.iter().map(|item| &item.said).collect();
    let tokens: Vec<u32> = said.iter().flat_map(|said| said.tokens.iter().copied()).collect();
    let of_tokens =
        Offsets::from_lengths(&said.iter().map(|said| said.tokens.len()).collect::<Vec<_>>());
    // Speech is to come to text, not text to speech.
    let embedded = lm.embed(&tokens).detach();
    let similarity = Similarity::new(lm, &said, config.merge_targets);
    let targets: Vec<Targets> =
        said.iter().map(|said| Targets::of(said, &similarity, config.merge_targets)).collect();

    let pad: Vec<u32> = if config.has_pad() {
        vec![pad.expect("a pad among the targets is a token")]
    } else {
        Vec::new()
    };
    let of_pad = lm.embed(&pad).detach();
    let written = read.hidden.first().map(|_| Written::new(lm, &pad, items, config));
    let mut hidden = read.hidden.into_iter();
    let mut sides = Vec::with_capacity(config.depths.len());
    for &depth in &config.depths {
        let (x, vectors, pool, first, pad_row) = if depth == 0 {
            let pool = Tensor::cat(vec![embedded.clone(), of_pad.clone()], 0);
            let pad_row = pad.first().map(|_| tokens.len());
            let first: Vec<usize> = of_tokens.iter().map(|span| span.start).collect();
            let pad_rows = vec![pad_row; items.len()];
            (heard.values.clone(), heard.offsets.clone(), pool, first, pad_rows)
        } else {
            let rows = hidden.next().expect("one a depth");
            let written = written.as_ref().expect("made where there are depths");
            let at = config.inner_depths().position(|inner| inner == depth);
            let pool = written.hidden[at.expect("an inner depth")].clone();
            // The speech of each prompt, behind what stands before it.
            let speech: Vec<u32> = read
                .input
                .iter()
                .zip(read.given.iter())
                .zip(items)
                .flat_map(|((span, given), item)| {
                    let start = span.start + item.before.len();
                    (start..start + given.len()).map(|row| row as u32)
                })
                .collect();
            let x = embedding(rows, &speech);
            (x, read.given.clone(), pool, written.first.clone(), written.pads.clone())
        };
        let problems = Problems::new(config, &said, &targets, &vectors);
        let rows: Vec<u32> = problems
            .utterances
            .iter()
            .flat_map(|&i| vectors.range(i))
            .map(|row| row as u32)
            .collect();
        let columns: Vec<u32> = problems
            .utterances
            .iter()
            .zip(&problems.targets)
            .flat_map(|(&i, targets)| {
                targets
                    .places
                    .iter()
                    .map(|place| first[i] + place)
                    .chain(pad_row[i])
                    .collect::<Vec<_>>()
            })
            .map(|row| row as u32)
            .collect();
        let all = rows.len() == vectors.n_rows();
        let x = if all { x } else { embedding(x, &rows) };
        let y = embedding(pool, &columns);
        sides.push(Sides { problems, x, y });
    }
    sides
}

/// The terms of the loss, each a sum over utterances and a mean over depths.
pub(super) fn terms(
    net: &ConnectorNet,
    items: &[SpokenItem],
    heard: &Ragged,
    read: Read<'_>,
    config: &TransportConfig,
) -> Vec<Term> {
    let device = heard.values.device();
    let mut sum = Tensor::<1>::zeros([1], &device);
    let mut watched = [0.0; 5];
    let pad: Vec<u32> = net.pad.filter(|_| config.has_pad()).into_iter().collect();
    let of_pad = host(net.language_model.embed(&pad).detach());
    let pad_norm = of_pad.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    for Sides { problems, x, y } in sides(&net.language_model, net.pad, items, heard, read, config)
    {
        let costs = cosine_costs(x, y, &problems.batch);
        let found = transport_loss(
            costs,
            &TransportProblems {
                batch: &problems.batch,
                rows: Masses::UNIFORM,
                columns: problems.columns(config),
                solver: config.solver(),
                loss: config.loss(),
                order_weight: config.order_weight,
                pad: config.has_pad(),
            },
        );
        sum = sum + found.sum;
        let n_left_out = items.len() - problems.utterances.len();
        let n_items = items.len() as f64;
        let values = [
            found.cost,
            found.sparsity,
            found.n_unsolved as f64,
            n_left_out as f64,
            pad_norm * n_items,
        ];
        watched.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    let share = 1.0 / config.depths.len() as f64;
    let constant = |value: f64| {
        Tensor::<1>::from_data(TensorData::new(vec![(value * share) as f32], [1]), &device)
    };
    let [loss, ..] = TERMS;
    let watched = TERMS[1..].iter().zip(watched).map(|(name, value)| Term {
        name,
        weight: 0.0,
        sum: constant(value),
    });
    let loss = Term { name: loss, weight: config.weight, sum: sum * share };
    std::iter::once(loss).chain(watched).collect()
}

/// The prompts with what is said in writing, up to and with a pad that nothing before it sees.
struct Written {
    /// All rows at each of the inner depths, without gradients.
    hidden: Vec<Tensor<2>>,
    /// The first row of each transcript.
    first: Vec<usize>,
    /// The row of each pad.
    pads: Vec<Option<usize>>,
}

impl Written {
    fn new(lm: &CausalLm, pad: &[u32], items: &[SpokenItem], config: &TransportConfig) -> Self {
        let learns = lm.device().is_autodiff();
        let frozen = learns.then(|| lm.valid());
        let lm = frozen.as_ref().unwrap_or(lm);
        let sequences: Vec<[Segment; 1]> = items
            .iter()
            .map(|item| {
                let ids = item.before.iter().chain(&item.said.tokens).chain(pad).copied();
                [Segment::Tokens(ids.collect())]
            })
            .collect();
        let input = pack(lm, &sequences, None);
        let depths: Vec<usize> = config.inner_depths().collect();
        let hidden = lm.forward_depths(&input, &depths);
        let hidden = hidden.into_iter().map(|x| if learns { Tensor::from_inner(x) } else { x });
        let spans: Vec<_> = input.offsets.iter().collect();
        let starts = spans.iter().zip(items).map(|(span, item)| span.start + item.before.len());
        Self {
            hidden: hidden.collect(),
            first: starts.collect(),
            pads: spans.iter().map(|span| pad.first().map(|_| span.end - 1)).collect(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use sandhi_nn::{
        connector::{ConnectorConfig, Widths},
        encoder::EncoderConfig,
        init::Init,
        transformer::{Dropout, TransformerConfig},
    };

    use super::*;
    use crate::{
        model::HostRagged,
        recipe::{LossConfig, SolverConfig},
        train::learner::{ConnectorBatch, Heard, Learner, SpeechBatch},
    };

    const PAD: u32 = 7;

    pub(in crate::train) fn net(device: &Device) -> ConnectorNet {
        let encoder: EncoderConfig = serde_json::from_str(
            r#"{"kind": "conformer", "d_model": 8, "n_layers": 1, "n_heads": 2, "d_ff": 8, "kernel": 3}"#,
        )
        .unwrap();
        let connector: ConnectorConfig = serde_json::from_str(
            r#"{"kind": "slm", "reduction": 2, "reduce": "stack", "d_hidden": 8, "n_layers": 1, "n_heads": 2, "d_ff": 8}"#,
        )
        .unwrap();
        let lm: TransformerConfig =
            serde_json::from_str(r#"{"d_model": 16, "n_layers": 3, "n_heads": 2, "d_ff": 32}"#)
                .unwrap();
        let init = Init::new(5, device);
        ConnectorNet {
            encoder: encoder.init(4, &init.child("encoder")),
            connector: connector
                .init(Widths { d_encoder: 8, d_model: 16 }, &init.child("connector")),
            language_model: lm.init(40, &init.child("lm")),
            ctc_head: None,
            pad: Some(PAD),
            compression: None,
            aids: crate::model::Aids::default(),
        }
    }

    pub(in crate::train) fn item(before: &[u32], tokens: &[u32]) -> SpokenItem {
        SpokenItem {
            before: before.to_vec(),
            after: vec![1],
            answer: vec![2, 3],
            said: Said { tokens: tokens.to_vec(), ..Said::default() },
            begin: 0,
        }
    }

    /// The terms for speech that is these tokens' own embeddings.
    fn heard_as(
        net: &ConnectorNet,
        items: &[SpokenItem],
        speech: &[Vec<u32>],
        config: &TransportConfig,
    ) -> Vec<(&'static str, f32)> {
        let lm = &net.language_model;
        let lengths: Vec<usize> = speech.iter().map(Vec::len).collect();
        let values = lm.embed(&speech.concat());
        let heard = Ragged { values, offsets: Offsets::from_lengths(&lengths) };
        let sequences: Vec<Vec<Segment>> = items
            .iter()
            .enumerate()
            .map(|(i, item)| {
                let [before, after] =
                    [&item.before, &item.after].map(|t| Segment::Tokens(t.clone()));
                vec![before, Segment::Speech(i), after]
            })
            .collect();
        let input = pack(lm, &sequences, Some(&heard));
        let depths: Vec<usize> = config.inner_depths().collect();
        let hidden = lm.forward_tails_at(&input, &vec![1; items.len()], &depths, Dropout::OFF);
        let read = Read { input: &input.offsets, given: &heard.offsets, hidden: hidden.depths };
        let terms = terms(net, items, &heard, read, config);
        terms.into_iter().map(|term| (term.name, host(term.sum)[0])).collect()
    }

    #[test]
    fn speech_that_is_text_costs_nothing_at_any_depth() {
        let net = net(&Device::flex());
        let items = [item(&[4, 5], &[10, 11, 12, 10]), item(&[9], &[20, 21])];
        let with_pad = [vec![10, 11, 12, 10, PAD], vec![20, 21, PAD]];
        let without: Vec<Vec<u32>> = items.iter().map(|item| item.said.tokens.clone()).collect();
        for depths in [vec![0], vec![2, 0, 1]] {
            for (pad, speech) in [(PadMass::Target, &with_pad[..]), (PadMass::None, &without[..])] {
                for solver in [SolverConfig::Monotone {}, SolverConfig::Exact {}] {
                    let depths = depths.clone();
                    let config = TransportConfig { solver, pad, depths, ..Default::default() };
                    let found = heard_as(&net, &items, speech, &config);
                    assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), TERMS);
                    // Float rounding in a cosine.
                    let small = found.iter().take(5).all(|(_, value)| value.abs() < 1e-5);
                    assert!(small && (found[5].1 > 0.0) == (pad == PadMass::Target), "{found:?}");
                }
            }
        }
        // Said in another order it costs something in order, and nothing to whoever does not look.
        let swapped = [vec![11, 10, 12, 10, PAD], vec![20, 21, PAD]];
        let cost = |solver| {
            let config = TransportConfig { solver, ..Default::default() };
            heard_as(&net, &items, &swapped, &config)[1].1
        };
        assert!(cost(SolverConfig::Monotone {}) > 0.1 && cost(SolverConfig::Exact {}).abs() < 1e-5);
    }

    #[test]
    fn what_has_no_speech_or_no_text_is_left_out() {
        let net = net(&Device::flex());
        let items = [item(&[4], &[10, 11]), item(&[4], &[]), item(&[4], &[10, 12, 13])];
        let speech = [vec![], vec![9, 9], vec![10, 12]];
        let cost = |solver| {
            let config = TransportConfig {
                solver,
                pad: PadMass::None,
                depths: vec![0, 1],
                ..Default::default()
            };
            let found = heard_as(&net, &items, &speech, &config);
            (found[0].1, found[4].1)
        };
        // Two vectors cannot say three tokens in order.
        assert_eq!(cost(SolverConfig::Monotone {}), (0.0, 3.0));
        let (loss, n_left_out) = cost(SolverConfig::default());
        assert!(loss > 0.1 && n_left_out == 2.0, "{loss}, {n_left_out}");
    }

    #[test]
    fn equal_tokens_are_one_target_and_masses_add_up() {
        let said = Said {
            tokens: vec![3, 4, 3, 5],
            masses: vec![1.0, 2.0, 3.0, 2.0],
            pad_share: Some(0.5),
        };
        // Tokens 4 and 5 point nearly the same way.
        let places = HashMap::from([(3, 0), (4, 1), (5, 2)]);
        let cosines = vec![1.0, 0.0, 0.1, 0.0, 1.0, 0.99, 0.1, 0.99, 1.0];
        let similarity = Similarity { places, cosines };
        let of = |merge| Targets::of(&said, &similarity, merge);
        assert_eq!(of(None).places, [0, 1, 2, 3]);
        assert_eq!(
            (of(Some(1.0)).places, of(Some(1.0)).masses),
            (vec![0, 1, 3], vec![4.0, 2.0, 2.0])
        );
        assert_eq!((of(Some(0.9)).places, of(Some(0.9)).masses), (vec![0, 1], vec![4.0, 4.0]));

        let problems = |masses, pad| {
            let config = TransportConfig { masses, pad, ..Default::default() };
            let vectors = Offsets::from_lengths(&[6]);
            let problems = Problems::new(&config, &[&said], &[of(Some(1.0))], &vectors);
            (problems.batch.shape(0), problems.masses, problems.pad_shares)
        };
        let (shape, masses, shares) = problems(TargetMass::Durations, PadMass::Target);
        // Three targets of 1/2, 1/4 and 1/4, and a pad of their mean: all together 1.
        assert_eq!((shape, shares), ([6, 4], vec![]));
        let expected = [0.375, 0.1875, 0.1875, 0.25];
        assert!(masses.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{masses:?}");
        let (_, masses, _) = problems(TargetMass::Uniform, PadMass::None);
        assert_eq!(masses, [1.0 / 3.0; 3]);
        assert_eq!(problems(TargetMass::Counts, PadMass::Blank).2, [0.5]);
        assert_eq!(problems(TargetMass::Counts, PadMass::Share(0.2)).2, [0.2]);
    }

    #[test]
    fn utterances_know_nothing_of_their_batch() {
        let mut net = net(&Device::flex());
        let thresholds = serde_json::from_str(r#"{"merge": 0.3, "drop": 0.5}"#).unwrap();
        net.compression = Some(crate::model::Compression { thresholds, pad: Some(PAD) });
        let texts: [&[u32]; 3] = [&[10, 11, 12], &[20, 21], &[10, 30, 31, 10]];
        let frames: Vec<Vec<f32>> = (0..3)
            .map(|i| {
                (0..(14 + 3 * i) * 8)
                    .map(|k| ((k * 37 + 11 * i) % 23) as f32 / 11.0 - 1.0)
                    .collect()
            })
            .collect();
        let batch = |which: &[usize]| {
            ConnectorBatch::Spoken(SpeechBatch {
                ends: None,
                penalties: Vec::new(),
                heard: Heard::Frames(HostRagged::gather(
                    8,
                    which.iter().map(|&i| frames[i].as_slice()),
                )),
                items: which
                    .iter()
                    .map(|&i| {
                        let mut item = item(&[4, 5], texts[i]);
                        item.said.pad_share = Some(0.2);
                        item
                    })
                    .collect(),
                audio_s: 1.0,
            })
        };
        let transport = TransportConfig {
            depths: vec![0, 1],
            pad: PadMass::Blank,
            sparsity_weight: 0.2,
            merge_targets: Some(0.9),
            ..TransportConfig::default()
        };
        let loss = LossConfig { transport: Some(transport), ..LossConfig::default() };
        let sums = |which: &[usize]| -> Vec<f32> {
            let terms = net.terms(&batch(which), &loss, Dropout::OFF);
            terms.into_iter().map(|term| host(term.sum)[0]).collect()
        };
        let together = sums(&[0, 1, 2]);
        let alone = [sums(&[0]), sums(&[1]), sums(&[2])];
        for (i, together) in together.iter().enumerate() {
            let sum: f32 = alone.iter().map(|terms| terms[i]).sum();
            assert!(
                (sum - together).abs() < 1e-4 * together.abs().max(1.0),
                "{i}: {sum}, {together}"
            );
        }
        assert!(together[1] > 0.1);
    }

    #[test]
    fn text_gets_no_gradient_from_within() {
        let device = Device::flex().autodiff();
        let net = net(&device);
        let items = [item(&[4, 5], &[10, 11, 12])];
        let lm = &net.language_model;
        let speech = lm.embed(&[20, 21, 22, 23]).detach().require_grad();
        let heard = Ragged { values: speech.clone(), offsets: Offsets::from_lengths(&[4]) };
        let segments = vec![vec![Segment::Tokens(items[0].before.clone()), Segment::Speech(0)]];
        let input = pack(lm, &segments, Some(&heard));
        let config = TransportConfig { depths: vec![1], ..Default::default() };
        let hidden = lm.forward_tails_at(&input, &[1], &[1], Dropout::OFF).depths;
        let read = Read { input: &input.offsets, given: &heard.offsets, hidden };
        let mut terms = terms(&net, &items, &heard, read, &config);
        let grads = terms.remove(0).sum.backward();
        let gradient = host(speech.grad(&grads).unwrap());
        assert!(gradient.iter().any(|g| g.abs() > 1e-4));
        // Tokens of the transcript are embedded for this loss alone, and are text.
        let table = lm.embedding_table().grad(&grads).map(host).unwrap_or_default();
        assert!(table.chunks(16).skip(10).take(3).flatten().all(|&g| g == 0.0));

        // Nor at the input.
        let heard = Ragged { values: speech.clone(), offsets: Offsets::from_lengths(&[4]) };
        let read = Read { input: &input.offsets, given: &heard.offsets, hidden: Vec::new() };
        let mut terms = super::terms(&net, &items, &heard, read, &TransportConfig::default());
        let grads = terms.remove(0).sum.backward();
        assert!(host(speech.grad(&grads).unwrap()).iter().any(|g| g.abs() > 1e-4));
        assert!(lm.embedding_table().grad(&grads).is_none());
    }
}
