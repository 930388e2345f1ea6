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

use burn::prelude::*;
use sandhi_align::transport::{Batch, Masses, Solver};
use sandhi_nn::{
    compression::cosine,
    ops::{TransportProblems, cosine_costs, embedding, transport_loss},
    ragged::{Offsets, Ragged},
    transformer::Dropout,
    weights::host,
};

use super::learner::{ConnectorNet, Said, SpokenItem, Term};
use crate::{
    model::pack::{Segment, pack},
    recipe::{PadMass, TargetMass, TransportConfig},
};

/// Names of what is summed over the utterances: the loss, then what is only watched.
pub(super) const TERMS: [&str; 4] = ["transport", "transport_cost", "undecided", "unsolved"];

/// What the language model made of the prompts.
pub(super) struct Read<'a> {
    /// Where each prompt's rows are.
    pub input: &'a Offsets,
    /// The vectors that each prompt has.
    pub given: &'a Offsets,
    /// All rows at each of [`TransportConfig::inner_depths`].
    pub hidden: Vec<Tensor<2>>,
}

/// Tokens of one utterance that are one target each, and how much of the speech they should have.
#[derive(Debug, Clone, Default, PartialEq)]
struct Targets {
    /// Place of the token among those that are said.
    places: Vec<usize>,
    /// One a target; in the unit of [`Said::masses`], or how many tokens it stands for.
    masses: Vec<f64>,
}

impl Targets {
    /// Every token, or, with a threshold, the first of those whose embeddings agree.
    fn of(said: &Said, embeddings: &[f32], width: usize, merge: Option<f64>) -> Self {
        let row = |i: usize| &embeddings[i * width..(i + 1) * width];
        let mut targets = Self::default();
        for (i, &token) in said.tokens.iter().enumerate() {
            let mass = said.masses.get(i).copied().unwrap_or(1.0);
            let same = merge.and_then(|merge| {
                targets.places.iter().position(|&place| {
                    said.tokens[place] == token || cosine(row(place), row(i)) > merge
                })
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
struct Problems {
    /// Which utterances have one.
    utterances: Vec<usize>,
    targets: Vec<Targets>,
    batch: Batch,
    masses: Vec<f64>,
    pad_shares: Vec<f64>,
}

impl Problems {
    /// Utterances without vectors or tokens have nothing to transport; in order, neither have those with fewer vectors
    /// than tokens.
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
                n > 0 && m > 0 && !(ordered && n < m)
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
    fn columns(&self, config: &TransportConfig) -> Masses<'_> {
        let given_share = !self.pad_shares.is_empty();
        match config.masses {
            TargetMass::Uniform if given_share => Masses::UNIFORM.with_pad(&self.pad_shares),
            TargetMass::Uniform => Masses::UNIFORM,
            _ if given_share => Masses::given(&self.masses).with_pad(&self.pad_shares),
            _ => Masses::given(&self.masses),
        }
    }
}

/// The terms of the loss, each a sum over utterances and a mean over depths.
pub(super) fn terms(
    net: &ConnectorNet,
    items: &[SpokenItem],
    heard: &Ragged,
    read: Read<'_>,
    config: &TransportConfig,
) -> Vec<Term> {
    let lm = &net.language_model;
    let said: Vec<&Said> = items.iter().map(|item| &item.said).collect();
    let tokens: Vec<u32> = said.iter().flat_map(|said| said.tokens.iter().copied()).collect();
    let of_tokens =
        Offsets::from_lengths(&said.iter().map(|said| said.tokens.len()).collect::<Vec<_>>());
    let embedded = lm.embed(&tokens);
    let width = lm.d_model();
    let values = host(embedded.clone().detach());
    let targets: Vec<Targets> = said
        .iter()
        .zip(of_tokens.iter())
        .map(|(said, span)| {
            let rows = &values[span.start * width..span.end * width];
            Targets::of(said, rows, width, config.merge_targets)
        })
        .collect();

    let device = heard.values.device();
    let mut sum = Tensor::<1>::zeros([1], &device);
    let mut watched = [0.0; 3];
    let written = read.hidden.first().map(|_| Written::new(net, items, config));
    let mut hidden = read.hidden.into_iter();
    let pad: Vec<u32> = if config.has_pad() {
        vec![net.pad.expect("plans see to it that a pad among the targets is a token")]
    } else {
        Vec::new()
    };
    for &depth in &config.depths {
        let (x, vectors, pool, first, pad_row) = if depth == 0 {
            let pool = Tensor::cat(vec![embedded.clone(), lm.embed(&pad)], 0);
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
        let costs = cosine_costs(x, embedding(pool, &columns), &problems.batch);
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
        let values = [found.cost, found.sparsity, found.n_unsolved as f64];
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
    fn new(net: &ConnectorNet, items: &[SpokenItem], config: &TransportConfig) -> Self {
        // Speech is to come to text, not text to speech.
        let learns = net.language_model.device().is_autodiff();
        let lm = &net.language_model;
        let frozen = learns.then(|| lm.valid());
        let lm = frozen.as_ref().unwrap_or(lm);
        let pad = net.pad.filter(|_| config.has_pad());
        let sequences: Vec<[Segment; 1]> = items
            .iter()
            .map(|item| {
                let ids = item.before.iter().chain(&item.said.tokens).chain(&pad).copied();
                [Segment::Tokens(ids.collect())]
            })
            .collect();
        let input = pack(lm, &sequences, None);
        let depths: Vec<usize> = config.inner_depths().collect();
        // The last block is not looked at.
        let tails = vec![1; items.len()];
        let hidden = lm.forward_tails_at(&input, &tails, &depths, Dropout::OFF).depths;
        let hidden = hidden.into_iter().map(|x| if learns { Tensor::from_inner(x) } else { x });
        let spans: Vec<_> = input.offsets.iter().collect();
        let starts = spans.iter().zip(items).map(|(span, item)| span.start + item.before.len());
        Self {
            hidden: hidden.collect(),
            first: starts.collect(),
            pads: spans.iter().map(|span| pad.map(|_| span.end - 1)).collect(),
        }
    }
}
