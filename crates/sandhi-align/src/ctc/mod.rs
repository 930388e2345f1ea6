//! Connectionist temporal classification (Graves, Fernández, Gomez, Schmidhuber 2006).
//!
//! A frame emits a symbol or the blank; a path of one emission per frame spells a target when
//! removing repeats and then blanks leaves it. The loss is the negative log of the summed
//! probability of all paths that do.
//!
//! ```text
//! target "ab"     state 0  1  2  3  4        2 n_tokens + 1 states
//!                       -  a  -  b  -        from one frame to the next: stay, one on,
//!                                            or two on when that skips a blank between
//! path  - a a - b b                          two different tokens
//! ```
//!
//! Matrices are row-major slices `[n_frames, n_symbols]`.
//!
//! ```
//! use sandhi_align::ctc;
//!
//! // Three frames over the symbols blank, a, b, with logits that favor "a", blank, "b".
//! let logits = [0.0, 4.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 4.0];
//! assert_eq!(ctc::greedy(&logits, 3, 0)?, [1, 2]);
//!
//! let (loss, gradient) = ctc::loss_and_gradient(&logits, 3, &[1, 2], 0)?;
//! assert!(loss < 0.2 && gradient.len() == logits.len());
//!
//! let log_probs = ctc::log_softmax(&logits, 3)?;
//! let spans = ctc::viterbi_align(&log_probs, 3, &[1, 2], 0)?;
//! assert_eq!((spans[0].start, spans[1].start), (0, 2));
//! # Ok::<(), ctc::Error>(())
//! ```

mod band;
mod confidence;
mod decode;
mod graph;
mod lattice;
mod loss;
mod spot;
mod units;
mod viterbi;

pub use decode::greedy;
pub use lattice::{Posteriors, posteriors, posteriors_within};
pub use loss::{batch_loss, batch_loss_and_gradient, batch_loss_in_place, loss_and_gradient};
pub use spot::spot;
pub use units::Unit;
pub use viterbi::{
    Alignment, Limits, Path, Span, align, viterbi_align, viterbi_align_batch, viterbi_path,
};

/// Why a target cannot be aligned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The matrix is not whole rows of symbols.
    #[error("{n_values} values are not rows of {n_symbols} symbols")]
    Shape {
        /// Length of the slice.
        n_values: usize,
        /// Width of one row.
        n_symbols: usize,
    },
    /// A target's symbol has no column.
    #[error("symbol {symbol} is not below the {n_symbols} columns of the matrix")]
    UnknownSymbol {
        /// The symbol.
        symbol: u32,
        /// Width of one row.
        n_symbols: usize,
    },
    /// A target contains the blank.
    #[error("position {position} of the target is the blank, symbol {blank}")]
    BlankInTarget {
        /// Where in the target.
        position: usize,
        /// The blank.
        blank: u32,
    },
    /// There are fewer frames than every spelling of the target takes.
    #[error("{n_frames} frames cannot spell a target that takes {n_needed}")]
    TooFewFrames {
        /// Frames at hand.
        n_frames: usize,
        /// Frames the shortest spelling takes.
        n_needed: usize,
    },
    /// The parts of a batch do not fit one another.
    #[error(
        "{n_sequences} sequences have {n_targets} targets and {n_weights} weights over {n_rows} of {n_frames} frames"
    )]
    Batch {
        /// Sequences by the offsets.
        n_sequences: usize,
        /// Targets given.
        n_targets: usize,
        /// Weights given.
        n_weights: usize,
        /// Rows by the offsets.
        n_rows: usize,
        /// Rows of the matrix.
        n_frames: usize,
    },
    /// The offsets of a batch do not fit.
    #[error(
        "offsets of {n_sequences} sequences over {n_rows} rows do not fit {n_targets} targets and {n_frames} frames, \
         or do not ascend from 0"
    )]
    Offsets {
        /// Sequences by the offsets.
        n_sequences: usize,
        /// Targets given.
        n_targets: usize,
        /// Rows by the offsets.
        n_rows: usize,
        /// Rows of the matrix.
        n_frames: usize,
    },
    /// The matrix holds something else than log-probabilities.
    #[error("frame {frame} has {found} for symbol {symbol}, not a log-probability")]
    NotALogProb {
        /// Row of the matrix.
        frame: usize,
        /// Column of the matrix.
        symbol: usize,
        /// NaN, or 1e30 and more.
        found: f32,
    },
    /// A unit's cost is negative or not finite.
    #[error("position {position} of the target costs {found}, not a finite number of at least 0")]
    Cost {
        /// Where in the target.
        position: usize,
        /// The cost.
        found: f32,
    },
    /// More units in a row are optional than can be.
    #[error(
        "more than {n_most} units in a row are optional, up to position {position} of the target"
    )]
    TooManyOptional {
        /// Where in the target the first one too many is.
        position: usize,
        /// How many there may be.
        n_most: usize,
    },
    /// No path of the target is possible.
    #[error("every path that spells the target has the probability 0")]
    Impossible,
    /// Spans are none of the target that posteriors are about.
    #[error(
        "{n_spans} spans up to frame {last_frame} are none of {n_tokens} tokens over {n_frames} frames"
    )]
    Spans {
        /// Spans given.
        n_spans: usize,
        /// The last end of a span.
        last_frame: usize,
        /// Tokens of the target.
        n_tokens: usize,
        /// Frames of the posteriors.
        n_frames: usize,
    },
    /// The alignment would take more memory than it may.
    #[error("the alignment takes {n_bytes} bytes, more than the limit of {max_bytes}")]
    TooLarge {
        /// Bytes at least.
        n_bytes: usize,
        /// Bytes allowed.
        max_bytes: usize,
    },
}

/// How many frames the shortest spelling of `target` takes: one a symbol, and a blank between
/// equal neighbors.
pub fn n_frames_needed(target: &[u32]) -> usize {
    target.len() + target.windows(2).filter(|pair| pair[0] == pair[1]).count()
}

/// Whether `n_frames` frames can spell `target`.
pub fn is_feasible(n_frames: usize, target: &[u32]) -> bool {
    n_frames_needed(target) <= n_frames
}

/// Log-softmax of every row.
///
/// # Errors
///
/// [`Error::Shape`] when `logits` is not whole rows.
pub fn log_softmax(logits: &[f32], n_symbols: usize) -> Result<Vec<f32>, Error> {
    n_frames(logits, n_symbols)?;
    let mut log_probs = logits.to_vec();
    for row in log_probs.chunks_exact_mut(n_symbols) {
        log_softmax_row(row);
    }
    Ok(log_probs)
}

/// Log-softmax of one row, in place. The normalizer is summed in double precision.
pub fn log_softmax_row(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !max.is_finite() {
        row.fill(f32::NAN);
        return;
    }
    let sum: f64 = row.iter().map(|&logit| f64::from((logit - max).exp())).sum();
    let log_sum = sum.ln();
    for value in row {
        *value = (f64::from(*value - max) - log_sum) as f32;
    }
}

/// Rows of the matrix.
fn n_frames(matrix: &[f32], n_symbols: usize) -> Result<usize, Error> {
    if n_symbols == 0 || !matrix.len().is_multiple_of(n_symbols) {
        return Err(Error::Shape { n_values: matrix.len(), n_symbols });
    }
    Ok(matrix.len() / n_symbols)
}

/// Refuses targets with symbols that have no column or are the blank.
fn check_symbols(target: &[u32], blank: u32, n_symbols: usize) -> Result<(), Error> {
    for symbol in std::iter::once(blank).chain(target.iter().copied()) {
        if symbol as usize >= n_symbols {
            return Err(Error::UnknownSymbol { symbol, n_symbols });
        }
    }
    match target.iter().position(|&symbol| symbol == blank) {
        Some(position) => Err(Error::BlankInTarget { position, blank }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_neighbors_need_a_frame_between_them() {
        assert_eq!(n_frames_needed(&[]), 0);
        assert_eq!(n_frames_needed(&[1, 2, 3]), 3);
        assert_eq!(n_frames_needed(&[1, 1, 1]), 5);
        assert!(is_feasible(3, &[1, 1]) && !is_feasible(2, &[1, 1]));
    }

    #[test]
    fn log_softmax_of_equal_logits_is_minus_log_n() {
        let log_probs = log_softmax(&[7.0; 6], 3).unwrap();
        for value in log_probs {
            assert!((value + 3.0_f32.ln()).abs() < 1e-6);
        }
    }

    #[test]
    fn log_softmax_survives_logits_that_overflow_exp() {
        // exp(-1000) is 0 beside 1: the log-probabilities are 0 and -1000.
        assert_eq!(log_softmax(&[1000.0, 0.0], 2).unwrap(), [0.0, -1000.0]);
    }

    #[test]
    fn ragged_matrices_are_refused() {
        assert_eq!(log_softmax(&[0.0; 5], 3), Err(Error::Shape { n_values: 5, n_symbols: 3 }));
        assert_eq!(log_softmax(&[0.0; 5], 0), Err(Error::Shape { n_values: 5, n_symbols: 0 }));
    }
}
