//! What models expect next, position by position, and how far their expectations are apart.
//!
//! ```text
//! hidden states of readers, row by row ─ logits ─ log softmax ─┬─ -log p(token)
//!                                                              └─ Σ p (log p - log q)     in nats
//! ```
//!
//! Sums are in double precision on the host, so that a model diverges from itself by 0.

use burn::prelude::*;
use sandhi_nn::{transformer::CausalLm, weights::host};

/// Rows whose distributions are held at once.
const ROWS: usize = 64;

/// A language model, and its last hidden states of some positions, `[n_rows, d_model]`.
pub(super) type Reader<'a> = (&'a CausalLm, Tensor<2>);

/// Shows `look` the log-probabilities that every reader gives to the tokens at every row.
///
/// # Panics
///
/// When the readers have other numbers of rows.
pub(super) fn at_every_row(readers: &[Reader], mut look: impl FnMut(usize, &[Vec<f64>])) {
    let n_rows = readers.first().map_or(0, |(_, hidden)| hidden.dims()[0]);
    assert!(readers.iter().all(|(_, hidden)| hidden.dims()[0] == n_rows), "rows are the same");
    for start in (0..n_rows).step_by(ROWS) {
        let n = ROWS.min(n_rows - start);
        let logits: Vec<Vec<f32>> = readers
            .iter()
            .map(|(lm, hidden)| host(lm.logits(hidden.clone().narrow(0, start, n))))
            .collect();
        for i in 0..n {
            let rows = logits.iter().zip(readers).map(|(logits, (lm, _))| {
                log_softmax(&logits[i * lm.n_tokens()..(i + 1) * lm.n_tokens()])
            });
            look(start + i, &rows.collect::<Vec<_>>());
        }
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let log_sum = logits.iter().map(|&x| (f64::from(x) - max).exp()).sum::<f64>().ln();
    logits.iter().map(|&x| f64::from(x) - max - log_sum).collect()
}

/// `KL(p || q) = Σ p (log p - log q)` in nats, of log-probabilities.
pub(super) fn divergence(p: &[f64], q: &[f64]) -> f64 {
    let possible = p.iter().zip(q).filter(|(p, _)| **p > f64::NEG_INFINITY);
    possible.map(|(p, q)| p.exp() * (p - q)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 3/4 and 1/4 against 1/2 and 1/2 is 3/4 log 3/2 + 1/4 log 1/2; the other way round 1/2 log 2/3 + 1/2 log 2.
    #[test]
    fn divergence_of_two_coins() {
        let (p, q) = (log_softmax(&[3.0_f32.ln(), 0.0]), log_softmax(&[5.0, 5.0]));
        let expected = 0.75 * 1.5_f64.ln() + 0.25 * 0.5_f64.ln();
        assert!((divergence(&p, &q) - expected).abs() < 1e-7);
        let back = 0.5 * (2.0_f64 / 3.0).ln() + 0.5 * 2.0_f64.ln();
        assert!((divergence(&q, &p) - back).abs() < 1e-7);
        assert_eq!((divergence(&p, &p), divergence(&q, &q)), (0.0, 0.0));
    }

    #[test]
    fn what_cannot_be_takes_no_part() {
        let never = log_softmax(&[0.0, f32::NEG_INFINITY]);
        let even = log_softmax(&[1.0, 1.0]);
        assert!((divergence(&never, &even) - 2.0_f64.ln()).abs() < 1e-12);
        assert_eq!(divergence(&even, &never), f64::INFINITY);
        assert_eq!(divergence(&never, &never), 0.0);
    }
}
