//! Alignments held against torchaudio, PyTorch and SciPy; the fixture is made by `tools/golden/align.py`.
//!
//! ```text
//! align.json   forced ──> ctc::viterbi_path        forward_sum, prior ──> monotonic
//! ```

use serde::Deserialize;

use crate::{
    ctc::{Limits, log_softmax, viterbi_path},
    monotonic::{beta_binomial_prior, forward_sum},
};

#[derive(Deserialize)]
struct Golden {
    forced: Vec<Forced>,
    forward_sum: Vec<ForwardSum>,
    prior: Vec<Prior>,
}

#[derive(Deserialize)]
struct Forced {
    n_symbols: usize,
    target: Vec<u32>,
    logits: Vec<f32>,
    /// The symbol of every frame.
    labels: Vec<u32>,
    log_prob: f64,
}

#[derive(Deserialize)]
struct ForwardSum {
    n_tokens: usize,
    scores: Vec<f32>,
    loss: f64,
    gradient: Vec<f32>,
}

#[derive(Deserialize)]
struct Prior {
    n_frames: usize,
    n_tokens: usize,
    scaling: f64,
    log_probs: Vec<f32>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../tests/golden/align.json")).unwrap()
}

#[test]
fn paths_are_those_of_torchaudio() {
    for case in golden().forced {
        let log_probs = log_softmax(&case.logits, case.n_symbols).unwrap();
        let path =
            viterbi_path(&log_probs, case.n_symbols, &case.target, 0, Limits::default()).unwrap();
        let mut labels = vec![0; case.labels.len()];
        for (span, &symbol) in path.spans.iter().zip(&case.target) {
            labels[span.start..span.end].fill(symbol);
        }
        assert_eq!(labels, case.labels);
        assert!(
            (path.log_prob - case.log_prob).abs() < 1e-4,
            "{} {}",
            path.log_prob,
            case.log_prob
        );
    }
}

#[test]
fn the_forward_sum_with_a_blank_is_ctc_of_pytorch() {
    for case in golden().forward_sum {
        let (loss, gradient) = forward_sum(&case.scores, case.n_tokens, Some(-1.0)).unwrap();
        assert!((loss - case.loss).abs() < 1e-5, "{loss} {}", case.loss);
        for (found, expected) in gradient.iter().zip(&case.gradient) {
            assert!((found - expected).abs() < 2e-6, "{found} {expected}");
        }
    }
}

#[test]
fn priors_are_those_of_scipy() {
    for case in golden().prior {
        let found = beta_binomial_prior(case.n_frames, case.n_tokens, case.scaling).unwrap();
        assert_eq!(found.len(), case.log_probs.len());
        for (found, expected) in found.iter().zip(&case.log_probs) {
            assert!((found - expected).abs() < 3e-6 * (1.0 + expected.abs()), "{found} {expected}");
        }
    }
}
