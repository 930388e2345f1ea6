//! What every connector has to do, on utterances of all lengths: [`obeys`].
//!
//! ```text
//! utterances   0, 1, 5, 12, 3 frames ──┬── together ── vectors ─┐
//!                                      └── one by one ──────────┴── the same bits, within the length promised
//! ```

use std::collections::BTreeSet;

use burn::{
    module::{ModuleVisitor, Param},
    prelude::*,
};

use super::{Connector, ConnectorConfig, ConnectorInput, ConnectorOutput, Embeddings, Widths};
use crate::{
    init::Init,
    length::Length,
    lora::Linears,
    ops::testing::{Matrix, cpu, random, to_vec},
    ragged::{Offsets, Ragged},
    transformer::Dropout,
    weights::{host, parameters},
};

pub(super) const WIDTHS: Widths = Widths { d_encoder: 6, d_model: 8 };
const N_TOKENS: usize = 5;
const STEPS_PER_FRAME: usize = 2;

/// An utterance with all that a connector may look at.
#[derive(Debug, Clone)]
pub(super) struct Speech {
    frames: Matrix,
    log_probs: Matrix,
    ends: Vec<u32>,
    said: Vec<u32>,
}

impl Speech {
    pub fn new(n_frames: usize, seed: u64) -> Self {
        let mut log_probs = random([n_frames * STEPS_PER_FRAME, 3], seed + 100);
        for row in log_probs.values.chunks_mut(3) {
            row[0] += 0.7;
            let log_sum = row.iter().map(|x| (2.0 * x).exp()).sum::<f32>().ln();
            row.iter_mut().for_each(|x| *x = 2.0 * *x - log_sum);
        }
        let ends: Vec<u32> = (0..n_frames as u32).filter(|i| i % 4 != 0 && i % 5 != 0).collect();
        let said = ends.iter().map(|end| 1 + end % (N_TOKENS as u32 - 1)).collect();
        Self { frames: random([n_frames, WIDTHS.d_encoder], seed), log_probs, ends, said }
    }

    pub fn frames(&self, device: &Device) -> Ragged {
        packed(std::slice::from_ref(&self.frames), device)
    }
}

fn packed(parts: &[Matrix], device: &Device) -> Ragged {
    let lengths: Vec<usize> = parts.iter().map(|part| part.shape[0]).collect();
    let width = parts[0].shape[1];
    let values: Vec<f32> = parts.iter().flat_map(|part| part.values.clone()).collect();
    let offsets = Offsets::from_lengths(&lengths);
    let values = Tensor::from_data(TensorData::new(values, [offsets.n_rows(), width]), device);
    Ragged { values, offsets }
}

/// Utterances as a batch, with what is said in training.
pub(super) fn input(speech: &[Speech], training: bool, device: &Device) -> ConnectorInput {
    let parts = |of: fn(&Speech) -> &Matrix| {
        packed(&speech.iter().map(|one| of(one).clone()).collect::<Vec<_>>(), device)
    };
    let table = random([N_TOKENS, WIDTHS.d_model], 50).tensor(device);
    let input = ConnectorInput::frames(parts(|one| &one.frames))
        .with_ctc(parts(|one| &one.log_probs), STEPS_PER_FRAME)
        .and_then(|input| input.with_segments(speech.iter().map(|one| one.ends.clone()).collect()))
        .and_then(|input| input.with_embeddings(Embeddings { table, pad: 0 }))
        .unwrap();
    if !training {
        return input;
    }
    input.with_said(speech.iter().map(|one| one.said.clone()).collect()).unwrap()
}

/// Lengths within their bound, batches of one and of many, penalties, gradients to every parameter, and the same
/// again where blocks are computed twice.
pub(super) fn obeys(config: &ConnectorConfig) {
    obeys_but(config, &[]);
}

/// The same, but that parameters with `idle` in their names learn nothing.
pub(super) fn obeys_but(config: &ConnectorConfig, idle: &[&str]) {
    assert_eq!([config.problems(), config.misfits(WIDTHS)].concat(), [""; 0]);
    let connector = config.init(WIDTHS, &Init::new(3, &cpu()));
    let speech: Vec<Speech> =
        [0, 1, 5, 12, 3].iter().zip(1..).map(|(&n, seed)| Speech::new(n, seed)).collect();
    for training in [false, true] {
        let forward =
            |speech: &[Speech]| connector.forward(&input(speech, training, &cpu()), Dropout::OFF);
        let whole = forward(&speech);
        let alone: Vec<_> = speech.iter().map(|one| forward(std::slice::from_ref(one))).collect();
        compare(config, &speech, &whole, &alone);
        let expected = if training { config.penalties().len() } else { 0 };
        assert_eq!(whole.penalties.len(), expected, "penalties where said is given: {training}");
        for none in [&speech[..1], &[speech[0].clone(), speech[0].clone()]] {
            assert_eq!(forward(none).vectors.values.dims(), [0, WIDTHS.d_model]);
        }
    }
    let input = ConnectorInput::frames(speech[2].frames(&cpu()));
    let needs = config.needs();
    let refused = connector.try_forward(&input, Dropout::OFF).is_err();
    assert_eq!(refused, needs.ctc || needs.segments || needs.embeddings);
    has_linears(connector);
    let once = gradients(config, &speech, idle, false);
    assert!(
        once == gradients(config, &speech, idle, true),
        "blocks that run again have other gradients"
    );
}

/// Every matrix of a linear layer can have a branch.
fn has_linears(mut connector: Connector) {
    let is_linear = |name: &String| name.ends_with(".weight");
    let found = parameters(&connector).into_iter().filter(|parameter| parameter.shape.len() == 2);
    let found: BTreeSet<String> = found.map(|parameter| parameter.name).filter(is_linear).collect();
    let named = connector.linears().into_iter().map(|(name, _)| format!("{name}.weight"));
    assert_eq!(named.collect::<BTreeSet<_>>(), found);
}

fn compare(
    config: &ConnectorConfig,
    speech: &[Speech],
    whole: &ConnectorOutput,
    alone: &[ConnectorOutput],
) {
    let values = host(whole.vectors.values.clone());
    assert!(values.iter().all(|value| value.is_finite()));
    for (i, (one, span)) in alone.iter().zip(whole.vectors.offsets.iter()).enumerate() {
        let n_frames = speech[i].frames.shape[0];
        match config.length(n_frames) {
            Length::Exact(n) => assert_eq!(span.len(), n),
            Length::AtMost(n) => assert!(span.len() <= n, "{} of at most {n}", span.len()),
        }
        assert_eq!(one.vectors.values.dims(), [span.len(), WIDTHS.d_model], "utterance {i}");
        let together = &values[span.start * WIDTHS.d_model..span.end * WIDTHS.d_model];
        let same = host(one.vectors.values.clone());
        assert!(
            same.iter().zip(together).all(|(a, b)| a.to_bits() == b.to_bits()),
            "utterance {i} alone is {same:?}, among others {together:?}"
        );
        if let Some(ends) = &whole.ends {
            assert_eq!(ends[i].len(), span.len(), "one end a vector");
            assert!(ends[i].iter().all(|&end| (end as usize) < n_frames));
            assert_eq!(one.ends.as_ref().unwrap()[0], ends[i]);
        }
    }
    for (i, sum) in whole.penalties.iter().enumerate() {
        let sum = to_vec(sum.clone())[0];
        let parts: f32 = alone.iter().map(|one| to_vec(one.penalties[i].clone())[0]).sum();
        assert!((sum - parts).abs() <= 1e-4 * sum.abs().max(1.0), "{sum} of parts {parts}");
    }
}

/// The gradient of every parameter, none of which is zero but for idle ones.
fn gradients(
    config: &ConnectorConfig,
    speech: &[Speech],
    idle: &[&str],
    again: bool,
) -> Vec<Vec<f32>> {
    let device = cpu().autodiff();
    let mut connector: Connector = config.init(WIDTHS, &Init::new(3, &device));
    connector.recompute(again);
    let found = connector.forward(&input(speech, true, &device), Dropout::new(0.1, 7));
    let weights = random(found.vectors.values.dims(), 9).tensor(&device);
    let loss = (found.vectors.values * weights).sum();
    let loss = found.penalties.into_iter().fold(loss, |loss, penalty| loss + penalty);
    struct Found<'a>(&'a burn::tensor::Gradients, Vec<Option<Vec<f32>>>);
    impl ModuleVisitor for Found<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.push(param.val().grad(self.0).map(to_vec));
        }
    }
    let all = loss.backward();
    let mut gradients = Found(&all, Vec::new());
    connector.visit(&mut gradients);
    let named = parameters(&connector).into_iter().zip(gradients.1);
    let learned = |(parameter, gradient): (crate::weights::ParameterInfo, Option<Vec<f32>>)| {
        let name = parameter.name;
        let gradient = gradient.unwrap_or_else(|| panic!("{name} has no gradient"));
        let learns = gradient.iter().any(|g| g.abs() > 1e-6);
        let expected = !idle.iter().any(|part| name.contains(part));
        assert_eq!(learns, expected, "whether {name} learns");
        gradient
    };
    named.map(learned).collect()
}
