//! The forward and backward recursions over the states of a target.

use std::ops::Range;

use super::{Error, Limits, check_symbols, is_feasible, n_frames, n_frames_needed};
use crate::wide::Wide;

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
/// As [`posteriors_within`], with the default [`Limits`].
pub fn posteriors(
    log_probs: &[f32],
    n_symbols: usize,
    target: &[u32],
    blank: u32,
) -> Result<Posteriors, Error> {
    posteriors_within(log_probs, n_symbols, target, blank, Limits::default())
}

/// As [`posteriors`], within `limits`: 28 bytes for every frame and state.
///
/// # Errors
///
/// When the matrix is not whole rows, a symbol has no column, the target holds the blank, there are too few frames
/// for it, the memory would be more than the limit, a log-probability of the target's symbols or the blank is NaN or
/// beyond 1e30, or every path has the probability 0.
pub fn posteriors_within(
    log_probs: &[f32],
    n_symbols: usize,
    target: &[u32],
    blank: u32,
    limits: Limits,
) -> Result<Posteriors, Error> {
    let n_frames = n_frames(log_probs, n_symbols)?;
    check_symbols(target, blank, n_symbols)?;
    if !is_feasible(n_frames, target) {
        return Err(Error::TooFewFrames { n_frames, n_needed: n_frames_needed(target) });
    }
    let lattice = Lattice::new(target, blank);
    let n_states = lattice.symbols.len();
    let cell = size_of::<Wide>() + size_of::<f64>() + size_of::<f32>();
    let n_bytes = n_frames.saturating_mul(n_states).saturating_mul(cell);
    if n_bytes > limits.max_bytes {
        return Err(Error::TooLarge { n_bytes, max_bytes: limits.max_bytes });
    }
    let mut symbols = lattice.symbols.clone();
    symbols.sort_unstable();
    symbols.dedup();
    for (frame, row) in log_probs.chunks_exact(n_symbols).enumerate() {
        // Sums of probabilities have no room upwards, but for rounding.
        let is_log_prob = |&&symbol: &&usize| row[symbol] <= 1e-4;
        if let Some(&symbol) = symbols.iter().find(|symbol| !is_log_prob(symbol)) {
            return Err(Error::NotALogProb { frame, symbol, found: row[symbol] });
        }
    }
    let (log_likelihood, occupancy) = lattice.forward_backward(log_probs, n_symbols);
    if log_likelihood == f64::NEG_INFINITY {
        return Err(Error::Impossible);
    }
    let occupancy = occupancy.into_iter().map(|p| p as f32).collect();
    Ok(Posteriors { log_likelihood, occupancy, n_states })
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

    /// States that a path can be in at `frame`: reachable from the start, and the end from them.
    fn reachable(&self, frame: usize, n_frames: usize) -> Range<usize> {
        let n_states = self.symbols.len();
        n_states.saturating_sub(2 * (n_frames - frame))..n_states.min(2 * frame + 2)
    }

    /// The probability that each state emits its symbol; half the states share the blank's.
    fn emission<'a>(&'a self, row: &'a [f32]) -> impl Fn(usize) -> Wide + 'a {
        let blank = Wide::exp(row[self.symbols[0]]);
        move |s| if s.is_multiple_of(2) { blank } else { Wide::exp(row[self.symbols[s]]) }
    }

    /// The log-likelihood alone.
    pub(super) fn log_likelihood(&self, log_probs: &[f32], n_symbols: usize) -> f64 {
        let n_states = self.symbols.len();
        let n_frames = log_probs.len() / n_symbols;
        if n_frames == 0 {
            return 0.0;
        }
        let mut past = vec![Wide::ZERO; n_states];
        let mut now = past.clone();
        for (frame, row) in log_probs.chunks_exact(n_symbols).enumerate() {
            self.advance(frame, n_frames, row, &past, &mut now);
            std::mem::swap(&mut past, &mut now);
            now.fill(Wide::ZERO);
        }
        self.total(&past).ln()
    }

    /// One step of the forward recursion: `now[s] = p(s) (past[s] + past[s - 1] + past[s - 2])`.
    fn advance(&self, frame: usize, n_frames: usize, row: &[f32], past: &[Wide], now: &mut [Wide]) {
        let emit = self.emission(row);
        for s in self.reachable(frame, n_frames) {
            let emitted = emit(s);
            if frame == 0 {
                now[s] = emitted;
                continue;
            }
            let mut sum = past[s];
            if s >= 1 {
                sum = sum.plus(past[s - 1]);
            }
            if self.skips[s] {
                sum = sum.plus(past[s - 2]);
            }
            now[s] = sum.times(emitted);
        }
    }

    /// Paths end in the last blank or the last token.
    fn total(&self, last: &[Wide]) -> Wide {
        let n_states = last.len();
        let end = last[n_states - 1];
        if n_states >= 2 { end.plus(last[n_states - 2]) } else { end }
    }

    /// The log-likelihood, and the occupancy `[n_frames, n_states]`.
    pub(super) fn forward_backward(&self, log_probs: &[f32], n_symbols: usize) -> (f64, Vec<f64>) {
        let n_states = self.symbols.len();
        let n_frames = log_probs.len() / n_symbols;
        if n_frames == 0 {
            // Only the empty target gets here, and nothing spells nothing with certainty.
            return (0.0, Vec::new());
        }
        let row = |frame: usize| &log_probs[frame * n_symbols..][..n_symbols];

        let mut alpha = vec![Wide::ZERO; n_frames * n_states];
        self.advance(0, n_frames, row(0), &[], &mut alpha[..n_states]);
        for frame in 1..n_frames {
            let (past, now) = alpha[(frame - 1) * n_states..].split_at_mut(n_states);
            self.advance(frame, n_frames, row(frame), past, &mut now[..n_states]);
        }
        let total = self.total(&alpha[(n_frames - 1) * n_states..]);

        // beta[s]: the probability of spelling the rest after being in s at this frame.
        let mut beta = vec![Wide::ZERO; n_states];
        beta[n_states.saturating_sub(2)..].fill(Wide::ONE);
        let mut next = vec![Wide::ZERO; n_states];
        let mut occupancy = vec![0.0; n_frames * n_states];
        for frame in (0..n_frames).rev() {
            if frame + 1 < n_frames {
                let ahead = self.reachable(frame + 1, n_frames);
                next.fill(Wide::ZERO);
                let emit = self.emission(row(frame + 1));
                for s in ahead {
                    next[s] = beta[s].times(emit(s));
                }
                beta.fill(Wide::ZERO);
                for s in self.reachable(frame, n_frames) {
                    let mut sum = next[s];
                    if s + 1 < n_states {
                        sum = sum.plus(next[s + 1]);
                    }
                    if s + 2 < n_states && self.skips[s + 2] {
                        sum = sum.plus(next[s + 2]);
                    }
                    beta[s] = sum;
                }
            }
            let at = frame * n_states;
            for s in self.reachable(frame, n_frames) {
                occupancy[at + s] = alpha[at + s].share(beta[s], total);
            }
        }
        (total.ln(), occupancy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certain_frames_have_certain_states() {
        // Columns: blank, a. Frames: -, a, -.
        let no = f32::NEG_INFINITY;
        let log_probs = [0.0, no, no, 0.0, 0.0, no];
        let posteriors = posteriors(&log_probs, 2, &[1], 0).unwrap();
        assert_eq!(posteriors.log_likelihood, 0.0);
        assert_eq!(posteriors.occupancy, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn a_thousand_unlikely_frames_keep_their_precision() {
        // Every frame gives every symbol e^-30 (not normalized): all paths have e^-60000, and there
        // are C(2000 + 3, 6) of them for a target of three different letters.
        let log_probs = vec![-30.0_f32; 2000 * 4];
        let posteriors = posteriors(&log_probs, 4, &[1, 2, 3], 0).unwrap();
        let paths: f64 = (0..6).map(|i| f64::from(2003 - i).ln() - f64::from(i + 1).ln()).sum();
        assert!((posteriors.log_likelihood - (paths - 60_000.0)).abs() < 1e-6);
        for row in posteriors.occupancy.chunks(posteriors.n_states) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}
