//! Spotting a phrase: how well a matrix can have it, anywhere.
//!
//! ```text
//! frames   a  n  n  a  _  t  o  o  k        best: every frame's likeliest symbol, cost 0
//! phrase         n  a  _  t                 cost: what its own path loses against that
//! ```
//!
//! The phrase may begin and end at any frame; outside it nothing is counted. A shortlist for
//! contextual biasing keeps the phrases that lose least.

use super::{Error, check_symbols, n_frames};

/// Log-probability that the best placement of `phrase` loses against the likeliest symbols of the same
/// frames, per symbol of the phrase; 0 at best, `-inf` when it does not fit.
///
/// # Shapes
///
/// - `log_probs`: `[n_frames, n_symbols]`, normalized
///
/// # Errors
///
/// [`Error::Shape`] when `log_probs` is not whole rows, [`Error::UnknownSymbol`] when the phrase has a symbol
/// that is none.
pub fn spot(log_probs: &[f32], n_symbols: usize, phrase: &[u32], blank: u32) -> Result<f32, Error> {
    n_frames(log_probs, n_symbols)?;
    check_symbols(phrase, blank, n_symbols)?;
    if phrase.is_empty() {
        return Ok(0.0);
    }
    // States: symbol 0, blank, symbol 1, blank, …, symbol n - 1.
    let n_states = 2 * phrase.len() - 1;
    let symbol = |state: usize| if state.is_multiple_of(2) { phrase[state / 2] } else { blank };
    let mut scores = vec![f32::NEG_INFINITY; n_states];
    let mut best = f32::NEG_INFINITY;
    for row in log_probs.chunks_exact(n_symbols) {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for state in (0..n_states).rev() {
            let mut from = scores[state];
            if state == 0 {
                from = from.max(0.0);
            } else {
                from = from.max(scores[state - 1]);
                if state >= 2 && state.is_multiple_of(2) && symbol(state) != symbol(state - 2) {
                    from = from.max(scores[state - 2]);
                }
            }
            scores[state] = from + row[symbol(state) as usize] - top;
        }
        best = best.max(scores[n_states - 1]);
    }
    Ok(best / phrase.len() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Log-probabilities in which frame `i` has symbol `likely[i]` with 0.9, the rest shared.
    fn matrix(likely: &[u32], n_symbols: usize) -> Vec<f32> {
        let rest = 0.1 / (n_symbols - 1) as f32;
        likely
            .iter()
            .flat_map(|&s| {
                (0..n_symbols as u32).map(move |i| if i == s { 0.9_f32.ln() } else { rest.ln() })
            })
            .collect()
    }

    #[test]
    fn what_is_there_costs_nothing_wherever_it_is() {
        let log_probs = matrix(&[3, 0, 1, 1, 2, 0, 3], 4);
        assert_eq!(spot(&log_probs, 4, &[1, 2], 0).unwrap(), 0.0);
        assert_eq!(spot(&log_probs, 4, &[3, 1, 2, 3], 0).unwrap(), 0.0);
    }

    #[test]
    fn a_wrong_symbol_costs_its_odds() {
        let log_probs = matrix(&[3, 1, 2], 4);
        // One frame of symbol 3 in the place of symbol 2: ln(0.0333 / 0.9), shared by two symbols.
        let expected = (0.1_f32 / 3.0 / 0.9).ln() / 2.0;
        assert!((spot(&log_probs, 4, &[1, 3], 0).unwrap() - expected).abs() < 1e-5);
    }

    #[test]
    fn a_double_letter_needs_a_blank_between() {
        let with = matrix(&[1, 0, 1], 3);
        let without = matrix(&[1, 1, 1], 3);
        assert_eq!(spot(&with, 3, &[1, 1], 0).unwrap(), 0.0);
        assert!(spot(&without, 3, &[1, 1], 0).unwrap() < -1.0);
    }

    #[test]
    fn a_phrase_longer_than_the_matrix_does_not_fit() {
        let log_probs = matrix(&[1, 2], 4);
        assert_eq!(spot(&log_probs, 4, &[1, 2, 3], 0).unwrap(), f32::NEG_INFINITY);
        assert!(spot(&log_probs, 4, &[9], 0).is_err());
    }
}
