//! Reading symbols off a matrix, and placing a known target in it.

use super::{Error, check_symbols, is_feasible, lattice::Lattice, n_frames, n_frames_needed};

/// Where a token of the target lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// First frame that emits the token.
    pub start: usize,
    /// One past the last frame that emits it.
    pub end: usize,
    /// Geometric mean of the token's probability over those frames, in `[0, 1]`.
    pub confidence: f32,
}

/// The best symbol of each frame, repeats joined and blanks dropped.
///
/// # Shapes
///
/// - `logits`: `[n_frames, n_symbols]`, normalized or not
///
/// # Errors
///
/// [`Error::Shape`] when `logits` is not whole rows.
pub fn greedy(logits: &[f32], n_symbols: usize, blank: u32) -> Result<Vec<u32>, Error> {
    n_frames(logits, n_symbols)?;
    let mut symbols = Vec::new();
    let mut last = blank;
    for row in logits.chunks_exact(n_symbols) {
        let mut best = 0;
        for (symbol, value) in row.iter().enumerate() {
            if *value > row[best] {
                best = symbol;
            }
        }
        let best = best as u32;
        if best != blank && best != last {
            symbols.push(best);
        }
        last = best;
    }
    Ok(symbols)
}

/// The frames of each token on the single most probable path that spells `target`.
///
/// # Shapes
///
/// - `log_probs`: `[n_frames, n_symbols]`, rows of log-probabilities
/// - output: one span per token, in order, without overlap
///
/// # Errors
///
/// When the matrix is not whole rows, a symbol has no column, the target holds the blank, or there
/// are too few frames for it.
pub fn viterbi_align(
    log_probs: &[f32],
    n_symbols: usize,
    target: &[u32],
    blank: u32,
) -> Result<Vec<Span>, Error> {
    let n_frames = n_frames(log_probs, n_symbols)?;
    check_symbols(target, blank, n_symbols)?;
    if !is_feasible(n_frames, target) {
        return Err(Error::TooFewFrames { n_frames, n_needed: n_frames_needed(target) });
    }
    if n_frames == 0 {
        return Ok(Vec::new());
    }
    let lattice = Lattice::new(target, blank);
    let n_states = lattice.symbols.len();
    let emit = |t: usize, s: usize| f64::from(log_probs[t * n_symbols + lattice.symbols[s]]);

    // How many states back each state's best path came from.
    let mut steps = vec![0_u8; n_frames * n_states];
    let mut past = vec![f64::NEG_INFINITY; n_states];
    let mut now = past.clone();
    for (s, value) in past.iter_mut().enumerate().take(2) {
        *value = emit(0, s);
    }
    for t in 1..n_frames {
        for s in 0..n_states {
            let (mut best, mut step) = (past[s], 0);
            if s >= 1 && past[s - 1] > best {
                (best, step) = (past[s - 1], 1);
            }
            if lattice.skips[s] && past[s - 2] > best {
                (best, step) = (past[s - 2], 2);
            }
            now[s] = best + emit(t, s);
            steps[t * n_states + s] = step;
        }
        std::mem::swap(&mut past, &mut now);
    }
    let mut state = n_states - 1;
    if n_states >= 2 && past[n_states - 2] > past[n_states - 1] {
        state = n_states - 2;
    }

    let mut spans = vec![Span { start: 0, end: 0, confidence: 0.0 }; target.len()];
    let mut sums = vec![0.0; target.len()];
    for t in (0..n_frames).rev() {
        if state % 2 == 1 {
            let span = &mut spans[state / 2];
            span.start = t;
            span.end = span.end.max(t + 1);
            sums[state / 2] += emit(t, state);
        }
        state -= usize::from(steps[t * n_states + state]);
    }
    for (span, sum) in spans.iter_mut().zip(sums) {
        span.confidence = (sum / (span.end - span.start).max(1) as f64).exp() as f32;
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ctc::log_softmax;

    /// Logits that make `path` all but certain.
    fn sure(path: &[usize], n_symbols: usize) -> Vec<f32> {
        let mut logits = vec![0.0; path.len() * n_symbols];
        for (t, &symbol) in path.iter().enumerate() {
            logits[t * n_symbols + symbol] = 20.0;
        }
        logits
    }

    #[test]
    fn repeats_join_unless_a_blank_parts_them() {
        let path = [1, 1, 0, 1, 2, 2, 0, 0, 2];
        assert_eq!(greedy(&sure(&path, 3), 3, 0).unwrap(), [1, 1, 2, 2]);
        assert_eq!(greedy(&[], 3, 0).unwrap(), [0_u32; 0]);
    }

    #[test]
    fn spans_follow_a_certain_path() {
        let log_probs = log_softmax(&sure(&[0, 1, 1, 0, 1, 2, 0], 3), 3).unwrap();
        let spans = viterbi_align(&log_probs, 3, &[1, 1, 2], 0).unwrap();
        let places: Vec<_> = spans.iter().map(|span| (span.start, span.end)).collect();
        assert_eq!(places, [(1, 3), (4, 5), (5, 6)]);
        assert!(spans.iter().all(|span| span.confidence > 0.999));
    }

    #[test]
    fn confidence_is_the_mean_probability() {
        // One frame, probabilities 1/4 and 3/4.
        let log_probs = [0.75_f32.ln(), 0.25_f32.ln()];
        let spans = viterbi_align(&log_probs, 2, &[1], 0).unwrap();
        assert!((spans[0].confidence - 0.25).abs() < 1e-6);
        assert_eq!(viterbi_align(&[], 2, &[], 0).unwrap(), []);
    }

    proptest! {
        #[test]
        fn spans_are_ordered_and_no_path_is_better(
            logits in proptest::collection::vec(-4.0_f32..4.0, 18),
            target in proptest::collection::vec(1_u32..3, 1..4),
        ) {
            let log_probs = log_softmax(&logits, 3).unwrap();
            let spans = viterbi_align(&log_probs, 3, &target, 0).unwrap();
            let mut path = [0; 6];
            let mut end = 0;
            for (span, &symbol) in spans.iter().zip(&target) {
                prop_assert!(end <= span.start && span.start < span.end && span.end <= 6);
                end = span.end;
                path[span.start..span.end].fill(symbol as usize);
            }
            let score = |path: &[usize]| -> f32 {
                path.iter().enumerate().map(|(t, &symbol)| log_probs[t * 3 + symbol]).sum()
            };
            let mut best = f32::NEG_INFINITY;
            for number in 0..3_usize.pow(6) {
                let other: Vec<usize> = (0..6).map(|t| number / 3_usize.pow(t) % 3).collect();
                let mut spelled: Vec<u32> = other.iter().map(|&symbol| symbol as u32).collect();
                spelled.dedup();
                spelled.retain(|&symbol| symbol != 0);
                if spelled == target {
                    best = best.max(score(&other));
                }
            }
            prop_assert!((score(&path) - best).abs() < 1e-4);
        }
    }
}
