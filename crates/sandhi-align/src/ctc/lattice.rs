//! The forward and backward recursions over the states of a target.

use super::{Error, check_symbols, is_feasible, n_frames, n_frames_needed};

/// How probable each state is at each frame, given that the path spells the target.
#[derive(Debug, Clone, PartialEq)]
pub struct Posteriors {
    /// Natural logarithm of the target's probability.
    pub log_likelihood: f64,
    /// `[n_frames, n_states]`, rows sum to 1. State `2 i + 1` is token `i`, the even ones blanks.
    pub occupancy: Vec<f32>,
    /// `2 n_tokens + 1`.
    pub n_states: usize,
}

/// State posteriors of `target` under `log_probs`.
///
/// # Shapes
///
/// - `log_probs`: `[n_frames, n_symbols]`, rows of log-probabilities
///
/// # Errors
///
/// When the matrix is not whole rows, a symbol has no column, the target holds the blank, or there
/// are too few frames for it.
pub fn posteriors(
    log_probs: &[f32],
    n_symbols: usize,
    target: &[u32],
    blank: u32,
) -> Result<Posteriors, Error> {
    let n_frames = n_frames(log_probs, n_symbols)?;
    check_symbols(target, blank, n_symbols)?;
    if !is_feasible(n_frames, target) {
        return Err(Error::TooFewFrames { n_frames, n_needed: n_frames_needed(target) });
    }
    let lattice = Lattice::new(target, blank);
    let (log_likelihood, occupancy) = lattice.forward_backward(log_probs, n_symbols);
    Ok(Posteriors {
        log_likelihood,
        occupancy: occupancy.into_iter().map(|p| p as f32).collect(),
        n_states: lattice.symbols.len(),
    })
}

/// The states of a target: blank, token, blank, token, …, blank.
pub(super) struct Lattice {
    /// The symbol each state emits.
    pub(super) symbols: Vec<usize>,
    /// Whether a path may come from two states back.
    pub(super) skips: Vec<bool>,
}

impl Lattice {
    pub(super) fn new(target: &[u32], blank: u32) -> Self {
        let mut symbols = vec![blank as usize];
        let mut skips = vec![false];
        for (i, &symbol) in target.iter().enumerate() {
            symbols.extend([symbol as usize, blank as usize]);
            skips.extend([i > 0 && target[i - 1] != symbol, false]);
        }
        Self { symbols, skips }
    }

    /// The log-likelihood, and the occupancy `[n_frames, n_states]`.
    ///
    /// Runs on logarithms: one path's probability can be smaller than any double.
    pub(super) fn forward_backward(&self, log_probs: &[f32], n_symbols: usize) -> (f64, Vec<f64>) {
        let n_states = self.symbols.len();
        let n_frames = log_probs.len() / n_symbols;
        if n_frames == 0 {
            // Only the empty target gets here, and nothing spells nothing with certainty.
            return (0.0, Vec::new());
        }
        let emit = |t: usize, s: usize| f64::from(log_probs[t * n_symbols + self.symbols[s]]);

        let mut alpha = vec![f64::NEG_INFINITY; n_frames * n_states];
        for s in 0..n_states.min(2) {
            alpha[s] = emit(0, s);
        }
        for t in 1..n_frames {
            let (past, now) = alpha[(t - 1) * n_states..].split_at_mut(n_states);
            for s in 0..n_states {
                let one = if s >= 1 { past[s - 1] } else { f64::NEG_INFINITY };
                let two = if self.skips[s] { past[s - 2] } else { f64::NEG_INFINITY };
                now[s] = log_add(past[s], one, two) + emit(t, s);
            }
        }
        let last = &alpha[(n_frames - 1) * n_states..];
        let before = if n_states >= 2 { last[n_states - 2] } else { f64::NEG_INFINITY };
        let log_likelihood = log_add(last[n_states - 1], before, f64::NEG_INFINITY);

        // beta[s]: the log-probability of spelling the rest after being in s at frame t.
        let mut beta = vec![f64::NEG_INFINITY; n_states];
        for s in n_states.saturating_sub(2)..n_states {
            beta[s] = 0.0;
        }
        let mut occupancy = alpha;
        let mut next = vec![f64::NEG_INFINITY; n_states];
        for t in (0..n_frames).rev() {
            if t + 1 < n_frames {
                for s in 0..n_states {
                    next[s] = beta[s] + emit(t + 1, s);
                }
                for s in 0..n_states {
                    let one = if s + 1 < n_states { next[s + 1] } else { f64::NEG_INFINITY };
                    let two = if s + 2 < n_states && self.skips[s + 2] {
                        next[s + 2]
                    } else {
                        f64::NEG_INFINITY
                    };
                    beta[s] = log_add(next[s], one, two);
                }
            }
            for (value, beta) in occupancy[t * n_states..][..n_states].iter_mut().zip(&beta) {
                *value = (*value + beta - log_likelihood).exp();
            }
        }
        (log_likelihood, occupancy)
    }
}

/// `ln(e^a + e^b + e^c)`.
fn log_add(a: f64, b: f64, c: f64) -> f64 {
    let max = a.max(b).max(c);
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + ((a - max).exp() + (b - max).exp() + (c - max).exp()).ln()
}
