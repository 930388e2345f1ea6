//! Monotonic alignment: every frame belongs to one token, tokens come in order, and none is left out.
//!
//! ```text
//!          frames ->
//! t0   x x . . . . . .        from one frame to the next a path stays or goes on by one token
//! t1   . . x . . . . .        durations: 2, 1, 5
//! t2   . . . x x x x x
//! ```
//!
//! [`search`] finds the path with the largest sum of scores (Kim et al. 2020, "Glow-TTS",
//! [arXiv 2005.11129](https://arxiv.org/abs/2005.11129), algorithm 1). [`forward_sum`] is the loss that makes scores
//! for it, summed over all paths, [`path_sum`] the same for likelihoods, and [`beta_binomial_prior`] what can be added so
//! that paths begin near the diagonal. [`posteriors`] says how sure a place is.
//!
//! Matrices are row-major slices `[n_frames, n_tokens]`.
//!
//! ```
//! use sandhi_align::monotonic;
//!
//! let scores = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0];
//! let path = monotonic::search(&scores, 2)?;
//! assert_eq!((path.durations, path.score), (vec![2, 1], 3.0));
//! # Ok::<(), monotonic::Error>(())
//! ```

mod forward_sum;
mod prior;
mod search;

pub use forward_sum::{forward_sum, path_sum, posteriors};
pub use prior::beta_binomial_prior;
pub use search::{Path, search, search_batch};

/// Why there is no alignment.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The matrix is not whole rows of tokens.
    #[error("{n_values} scores are not rows of {n_tokens} tokens")]
    Shape {
        /// Length of the slice.
        n_values: usize,
        /// Width of one row.
        n_tokens: usize,
    },
    /// There are fewer frames than tokens.
    #[error("{n_frames} frames cannot visit {n_tokens} tokens")]
    TooFewFrames {
        /// Frames at hand.
        n_frames: usize,
        /// Tokens to visit.
        n_tokens: usize,
    },
    /// The matrix holds something else than scores.
    #[error("frame {frame} has {found} for token {token}, not a score below 1e30")]
    NotAScore {
        /// Row of the matrix.
        frame: usize,
        /// Column of the matrix.
        token: usize,
        /// NaN, or 1e30 and more.
        found: f32,
    },
    /// Every path meets a score of negative infinity.
    #[error("every path meets a score of negative infinity")]
    Impossible,
    /// A setting is not a number above 0, or that of a blank not a finite one.
    #[error("{name} is {found}, not {expected}")]
    Setting {
        /// Which.
        name: &'static str,
        /// Its value.
        found: f64,
        /// What it should be.
        expected: &'static str,
    },
    /// The matrices of a batch do not fit its shapes.
    #[error("a batch of {n_problems} shapes takes {n_needed} scores, not {n_values}")]
    Batch {
        /// Shapes given.
        n_problems: usize,
        /// Scores by the shapes.
        n_needed: usize,
        /// Scores given.
        n_values: usize,
    },
}

/// Rows of the matrix, when they can visit all tokens.
fn n_frames(scores: &[f32], n_tokens: usize) -> Result<usize, Error> {
    if n_tokens == 0 || !scores.len().is_multiple_of(n_tokens) {
        return Err(Error::Shape { n_values: scores.len(), n_tokens });
    }
    match scores.len() / n_tokens {
        n_frames if n_frames < n_tokens => Err(Error::TooFewFrames { n_frames, n_tokens }),
        n_frames => Ok(n_frames),
    }
}

/// Scores are below this, so that sums over a few rows stay in single precision.
const BEYOND: f32 = 1e30;

/// The first value that is no score: NaN or too large.
fn not_a_score(scores: &[f32], n_tokens: usize) -> Option<Error> {
    let at = scores.iter().position(|&value| value.is_nan() || value >= BEYOND)?;
    Some(Error::NotAScore { frame: at / n_tokens, token: at % n_tokens, found: scores[at] })
}
