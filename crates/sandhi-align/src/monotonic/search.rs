//! Monotonic alignment search, many tokens at a time.
//!
//! ```text
//! best' = score + max(best of the token, best of the token before)        one bit: which of them
//!
//! row 0  x            a row runs the blocks of 16 tokens that a path can be in:
//!     1  x x          reachable from the first token, and the last one from them
//!     2    x x
//! ```
//!
//! Sums are single precision, relative to the best one every 64 rows, so that their rounding does not grow with the
//! length. Back-pointers take a bit a score, a thirty-second of the matrix. At equal sums a path stays in its token
//! rather than coming from the one before.

use rayon::prelude::*;

use super::{BEYOND, Error, n_frames, not_a_score};
use crate::lanes::{LANES, in_lanes};

/// Rows from one change of the origin of sums to the next.
const ROWS_PER_SHIFT: usize = 64;

/// A path through a matrix of scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// Frames of each token, in order; each at least 1.
    pub durations: Vec<usize>,
    /// Sum of the scores on the path.
    pub score: f64,
}

/// What a thread keeps for the next problem.
#[derive(Debug, Default)]
struct Space {
    best: Vec<f32>,
    back: Vec<u16>,
}

/// The path of the largest score that begins in the first token, ends in the last one, and stays or goes on by one
/// token from each frame to the next.
///
/// # Shapes
///
/// - `scores`: `[n_frames, n_tokens]`, larger is better
///
/// # Errors
///
/// When the matrix is not whole rows, there are fewer frames than tokens or no tokens, a score that a path could meet
/// is NaN or beyond 1e30, or every path meets a score of negative infinity.
pub fn search(scores: &[f32], n_tokens: usize) -> Result<Path, Error> {
    search_in(scores, n_tokens, &mut Space::default())
}

/// The best paths of packed matrices, which run in parallel. A matrix without a path has its own error.
///
/// # Shapes
///
/// - `scores`: matrix after matrix, each row-major
/// - `shapes`: frames and tokens of each matrix
///
/// # Errors
///
/// [`Error::Batch`] when the shapes do not add up to the scores; of one matrix, as [`search`].
pub fn search_batch(
    scores: &[f32],
    shapes: &[[usize; 2]],
) -> Result<Vec<Result<Path, Error>>, Error> {
    let sizes = shapes.iter().map(|[n_frames, n_tokens]| n_frames.saturating_mul(*n_tokens));
    let n_needed = sizes.clone().fold(0, usize::saturating_add);
    if n_needed != scores.len() {
        let (n_problems, n_values) = (shapes.len(), scores.len());
        return Err(Error::Batch { n_problems, n_needed, n_values });
    }
    let mut rest = scores;
    let problems: Vec<_> = sizes
        .zip(shapes)
        .map(|(size, shape)| {
            let (matrix, others) = rest.split_at(size);
            rest = others;
            (matrix, shape[1])
        })
        .collect();
    let solve = |space: &mut Space, (matrix, n_tokens)| search_in(matrix, n_tokens, space);
    Ok(problems.into_par_iter().map_init(Space::default, solve).collect())
}

fn search_in(scores: &[f32], n_tokens: usize, space: &mut Space) -> Result<Path, Error> {
    let n_frames = n_frames(scores, n_tokens)?;
    let n_blocks = n_tokens.div_ceil(LANES);
    let Space { best, back } = space;
    best.clear();
    best.resize((n_blocks + 1) * LANES, f32::NEG_INFINITY);
    // Every row writes the bits that a path through it reads.
    back.resize(n_frames * n_blocks, 0);
    if !advance(scores, n_tokens, best, back) {
        return Err(not_a_score(scores, n_tokens).expect("the recursion met one"));
    }
    if best[LANES + n_tokens - 1] == f32::NEG_INFINITY {
        return Err(Error::Impossible);
    }
    let mut path = Path { durations: vec![0; n_tokens], score: 0.0 };
    let mut token = n_tokens - 1;
    for frame in (0..n_frames).rev() {
        path.durations[token] += 1;
        path.score += f64::from(scores[frame * n_tokens + token]);
        if frame > 0 {
            let word = back[frame * n_blocks + token / LANES];
            token -= usize::from(word >> (token % LANES) & 1);
        }
    }
    Ok(path)
}

in_lanes! {
    /// Runs all rows; false when a score that it met is NaN or too large.
    ///
    /// `best` has a block of nothing before the tokens.
    fn advance<V>(scores: &[f32], n_tokens: usize, best: &mut [f32], back: &mut [u16]) -> bool {
        let n_frames = scores.len() / n_tokens;
        let n_blocks = n_tokens.div_ceil(LANES);
        let beyond = V::splat(BEYOND);
        let mut sound = u16::MAX;
        // Before the first row a path is in the place before the first token.
        best[LANES - 1] = 0.0;
        for (frame, row) in scores.chunks_exact(n_tokens).enumerate() {
            let first = n_tokens.saturating_sub(n_frames - frame) / LANES;
            let last = frame.min(n_tokens - 1) / LANES;
            let bits = &mut back[frame * n_blocks..][..n_blocks];
            // From the last block to the first, so that what lies before is still that of the row before.
            let mut stay = V::load(&best[LANES * (last + 1)..]);
            for block in (first..=last).rev() {
                let at = block * LANES;
                let given = match row.get(at..at + LANES) {
                    Some(given) => V::load(given),
                    None => {
                        let mut given = [f32::NEG_INFINITY; LANES];
                        given[..n_tokens - at].copy_from_slice(&row[at..]);
                        V::load(&given)
                    }
                };
                let below = V::load(&best[at..]);
                let before = stay.behind(below);
                bits[block] = before.above(stay);
                given.plus(before.max(stay)).store(&mut best[LANES + at..]);
                sound &= beyond.above(given);
                stay = below;
            }
            if frame == 0 {
                best[LANES - 1] = f32::NEG_INFINITY;
            }
            if (frame + 1).is_multiple_of(ROWS_PER_SHIFT) {
                let best = &mut best[LANES * (first + 1)..LANES * (last + 2)];
                let most = best.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                if most > f32::NEG_INFINITY {
                    best.iter_mut().for_each(|sum| *sum -= most);
                }
            }
        }
        sound == u16::MAX
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transport::simd::at_every_width;

    /// The recursion as it is written in the paper, in double precision.
    fn reference(scores: &[f32], n_tokens: usize) -> Path {
        let n_frames = scores.len() / n_tokens;
        let at = |frame: usize, token: usize| f64::from(scores[frame * n_tokens + token]);
        let mut best = vec![vec![f64::NEG_INFINITY; n_tokens]; n_frames];
        best[0][0] = at(0, 0);
        for frame in 1..n_frames {
            for token in 0..n_tokens {
                let before = if token > 0 { best[frame - 1][token - 1] } else { f64::NEG_INFINITY };
                best[frame][token] = at(frame, token) + best[frame - 1][token].max(before);
            }
        }
        let mut durations = vec![0; n_tokens];
        let mut token = n_tokens - 1;
        for frame in (0..n_frames).rev() {
            durations[token] += 1;
            if frame > 0 && token > 0 && best[frame - 1][token - 1] > best[frame - 1][token] {
                token -= 1;
            }
        }
        Path { durations, score: best[n_frames - 1][n_tokens - 1] }
    }

    #[test]
    fn a_path_of_as_many_frames_as_tokens_is_the_diagonal() {
        let path = search(&[-1.0, 9.0, 9.0, -2.0], 2).unwrap();
        assert_eq!(path, Path { durations: vec![1, 1], score: -3.0 });
    }

    #[test]
    fn what_has_no_path_is_said() {
        assert_eq!(search(&[0.0; 3], 2), Err(Error::Shape { n_values: 3, n_tokens: 2 }));
        assert_eq!(search(&[], 0), Err(Error::Shape { n_values: 0, n_tokens: 0 }));
        assert_eq!(search(&[0.0; 2], 2), Err(Error::TooFewFrames { n_frames: 1, n_tokens: 2 }));
        assert_eq!(
            search(&[0.0, 0.0, f32::NEG_INFINITY, f32::NEG_INFINITY], 2),
            Err(Error::Impossible)
        );
        let error = search(&[0.0, 0.0, 0.0, f32::NAN], 2).unwrap_err();
        assert!(matches!(error, Error::NotAScore { frame: 1, token: 1, .. }));
        let error = search_batch(&[0.0; 5], &[[2, 2]]).unwrap_err();
        assert_eq!(error, Error::Batch { n_problems: 1, n_needed: 4, n_values: 5 });
        let error = search_batch(&[0.0; 5], &[[usize::MAX, 2]]).unwrap_err();
        assert!(matches!(error, Error::Batch { n_needed: usize::MAX, .. }));
    }

    proptest! {
        #[test]
        fn the_path_is_that_of_the_reference(
            n_tokens in 1_usize..60, n_more in 0_usize..120, values in proptest::collection::vec(-32_i8..32, 300),
        ) {
            // Eighths, whose sums are exact, so that ties are ties.
            let n_values = (n_tokens + n_more) * n_tokens;
            let scores: Vec<f32> =
                (0..n_values).map(|i| f32::from(values[(i * 7 + i / 300) % 300]) / 8.0).collect();
            let expected = reference(&scores, n_tokens);
            at_every_width(|| assert_eq!(search(&scores, n_tokens).unwrap(), expected));
        }

        #[test]
        fn a_batch_is_its_problems(shapes in proptest::collection::vec((0_usize..40, 0_usize..20), 0..6)) {
            let shapes: Vec<[usize; 2]> = shapes.into_iter().map(|(n, m)| [n, m]).collect();
            let n_values = shapes.iter().map(|[n, m]| n * m).sum();
            let scores: Vec<f32> = (0..n_values).map(|i| (i * 31 % 97) as f32).collect();
            let found = search_batch(&scores, &shapes).unwrap();
            let mut at = 0;
            for ([n, m], found) in shapes.into_iter().zip(found) {
                prop_assert_eq!(found, search(&scores[at..at + n * m], m));
                at += n * m;
            }
        }
    }
}
