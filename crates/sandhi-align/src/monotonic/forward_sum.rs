//! The forward-sum loss: how probable it is that frames visit the tokens in order, whatever the path.
//!
//! ```text
//! scores ── softmax over the tokens of a frame ── sum over all monotonic paths ── -log
//!           (and a blank, if there is one)        of the product along the path
//! ```

use super::{Error, n_frames, not_a_score};
use crate::{
    ctc::{self, log_softmax_row},
    wide::Wide,
};

/// `-log sum over paths of prod over frames of p(token of the path | frame)`, where `p` is the softmax of a frame's
/// scores over the tokens, and its gradient with respect to the scores: softmax minus posterior.
///
/// Shih et al. 2021, "RAD-TTS" ([OpenReview](https://openreview.net/forum?id=0NQwnnwAORi)), and Badlani et al. 2022,
/// "One TTS alignment to rule them all" ([arXiv 2108.10447](https://arxiv.org/abs/2108.10447), equations 3 and 4).
/// They compute it by CTC with a blank of the constant score -1, so that a frame may belong to no token: `blank` is
/// that score. Without it every frame belongs to one token, and the paths are those of [`super::search`].
///
/// Takes 20 bytes for every score, 56 with a blank.
///
/// # Shapes
///
/// - `scores`, gradient: `[n_frames, n_tokens]`
///
/// # Errors
///
/// When the matrix is not whole rows, there are fewer frames than tokens or no tokens, a score is NaN or beyond 1e30,
/// the blank's is not finite, or every path meets a score of negative infinity.
pub fn forward_sum(
    scores: &[f32],
    n_tokens: usize,
    blank: Option<f32>,
) -> Result<(f64, Vec<f32>), Error> {
    let n_frames = n_frames(scores, n_tokens)?;
    if let Some(error) = not_a_score(scores, n_tokens) {
        return Err(error);
    }
    let Some(blank) = blank else { return without_blank(scores, n_frames, n_tokens) };
    if !blank.is_finite() {
        let found = f64::from(blank);
        return Err(Error::Setting {
            name: "the blank's score",
            found,
            expected: "a finite number",
        });
    }
    let rows = scores.chunks_exact(n_tokens);
    let logits: Vec<f32> =
        rows.flat_map(|row| std::iter::once(blank).chain(row.iter().copied())).collect();
    let target: Vec<u32> = (1..=n_tokens).map(|token| token as u32).collect();
    let (loss, gradient) = ctc::loss_and_gradient(&logits, n_tokens + 1, &target, 0)
        .expect("distinct tokens, each with a column and a frame");
    if loss == f64::INFINITY {
        return Err(Error::Impossible);
    }
    let rows = gradient.chunks_exact(n_tokens + 1);
    Ok((loss, rows.flat_map(|row| &row[1..]).copied().collect()))
}

fn without_blank(
    scores: &[f32],
    n_frames: usize,
    n_tokens: usize,
) -> Result<(f64, Vec<f32>), Error> {
    let mut log_probs = scores.to_vec();
    for row in log_probs.chunks_exact_mut(n_tokens) {
        if row.iter().all(|&score| score == f32::NEG_INFINITY) {
            return Err(Error::Impossible);
        }
        log_softmax_row(row);
    }
    sum_of_paths(log_probs, n_frames, n_tokens, f32::exp)
}

/// `-log sum over paths of prod over frames of exp(log_likelihood of the frame by the token of the path)`, and its
/// gradient with respect to the log-likelihoods: the posterior, negative.
///
/// What a hidden Markov model with a state a token and free transitions loses. A frame's likelihoods need not sum to
/// one over the tokens, as those of [`forward_sum`] do. Takes 20 bytes for every entry.
///
/// # Shapes
///
/// - `log_likelihoods`, gradient: `[n_frames, n_tokens]`
///
/// # Errors
///
/// As [`forward_sum`].
pub fn path_sum(log_likelihoods: &[f32], n_tokens: usize) -> Result<(f64, Vec<f32>), Error> {
    let n_frames = n_frames(log_likelihoods, n_tokens)?;
    if let Some(error) = not_a_score(log_likelihoods, n_tokens) {
        return Err(error);
    }
    // Likelihoods of a frame against its largest, so that none is above one.
    let mut relative = log_likelihoods.to_vec();
    let mut largest = 0.0;
    for row in relative.chunks_exact_mut(n_tokens) {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if most == f32::NEG_INFINITY {
            return Err(Error::Impossible);
        }
        row.iter_mut().for_each(|value| *value -= most);
        largest += f64::from(most);
    }
    let (loss, gradient) = sum_of_paths(relative, n_frames, n_tokens, |_| 0.0)?;
    Ok((loss - largest, gradient))
}

/// How probable it is that a frame belongs to a token, given that frames visit the tokens in order: the share of the paths
/// through every entry, by their likelihoods. What is added to all entries of a frame changes nothing.
///
/// # Shapes
///
/// - `log_likelihoods`, output: `[n_frames, n_tokens]`; every row of the output sums to one
///
/// # Errors
///
/// As [`path_sum`].
pub fn posteriors(log_likelihoods: &[f32], n_tokens: usize) -> Result<Vec<f32>, Error> {
    let (_, mut gradient) = path_sum(log_likelihoods, n_tokens)?;
    gradient.iter_mut().for_each(|value| *value = -*value);
    Ok(gradient)
}

/// The loss, and in place of every log-probability `less` of it minus its posterior.
fn sum_of_paths(
    mut log_probs: Vec<f32>,
    n_frames: usize,
    n_tokens: usize,
    less: impl Fn(f32) -> f32,
) -> Result<(f64, Vec<f32>), Error> {
    // Tokens that a path can be in at a frame: reachable from the first, and the last from them.
    let reachable =
        |frame: usize| n_tokens.saturating_sub(n_frames - frame)..n_tokens.min(frame + 1);
    let mut alpha = vec![Wide::ZERO; log_probs.len()];
    alpha[0] = Wide::exp(log_probs[0]);
    for frame in 1..n_frames {
        let (past, now) = alpha[(frame - 1) * n_tokens..].split_at_mut(n_tokens);
        for token in reachable(frame) {
            let sum = if token > 0 { past[token].plus(past[token - 1]) } else { past[token] };
            now[token] = sum.times(Wide::exp(log_probs[frame * n_tokens + token]));
        }
    }
    let total = alpha[log_probs.len() - 1];
    if total == Wide::ZERO {
        return Err(Error::Impossible);
    }
    // beta[token]: the probability of the rest after being in the token at this frame.
    let mut beta = vec![Wide::ZERO; n_tokens];
    beta[n_tokens - 1] = Wide::ONE;
    for frame in (0..n_frames).rev() {
        let row = &mut log_probs[frame * n_tokens..][..n_tokens];
        let emitted: Vec<Wide> = row.iter().map(|&log_prob| Wide::exp(log_prob)).collect();
        row.iter_mut().for_each(|value| *value = less(*value));
        for token in reachable(frame) {
            row[token] -= alpha[frame * n_tokens + token].share(beta[token], total) as f32;
        }
        // To the frame before: stay, or come from the token before.
        for token in 0..n_tokens {
            let stay = beta[token].times(emitted[token]);
            beta[token] = match beta.get(token + 1) {
                Some(next) => stay.plus(next.times(emitted[token + 1])),
                None => stay,
            };
        }
    }
    Ok((-total.ln(), log_probs))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The loss by walking every path; with a blank, tokens may be followed by any number of them.
    fn by_force(scores: &[f32], n_tokens: usize, blank: Option<f32>) -> f64 {
        let n_frames = scores.len() / n_tokens;
        let n_symbols = n_tokens + usize::from(blank.is_some());
        let mut total = 0.0;
        for number in 0..n_symbols.pow(n_frames as u32) {
            let path: Vec<usize> =
                (0..n_frames).map(|t| number / n_symbols.pow(t as u32) % n_symbols).collect();
            let mut visited = path.clone();
            visited.dedup();
            visited.retain(|&symbol| symbol < n_tokens);
            if !visited.into_iter().eq(0..n_tokens) {
                continue;
            }
            total += path
                .iter()
                .zip(scores.chunks(n_tokens))
                .map(|(&symbol, row)| {
                    let all: Vec<f64> = row.iter().copied().chain(blank).map(f64::from).collect();
                    all[symbol].exp() / all.iter().map(|score| score.exp()).sum::<f64>()
                })
                .product::<f64>();
        }
        -total.ln()
    }

    #[test]
    fn equal_scores_count_paths() {
        // Four frames over two tokens: the change is before frame 1, 2 or 3, and each path has 2^-4.
        let (loss, gradient) = forward_sum(&[7.0; 8], 2, None).unwrap();
        assert!((loss - (16.0_f64 / 3.0).ln()).abs() < 1e-6);
        // The first frame is surely the first token: 1/2 - 1.
        assert!((gradient[0] + 0.5).abs() < 1e-6 && (gradient[1] - 0.5).abs() < 1e-6);
    }

    #[test]
    fn likelihoods_of_a_frame_need_not_sum_to_one() {
        // Two paths of three frames over two tokens: 2 * 3 * 7 and 2 * 5 * 7.
        let scores = [2.0, 9.0, 3.0, 5.0, 9.0, 7.0_f32].map(f32::ln);
        let (loss, gradient) = path_sum(&scores, 2).unwrap();
        assert!((loss + (42.0_f64 + 70.0).ln()).abs() < 1e-6, "{loss}");
        // 42 of 112 are the path that stays at the second frame.
        let expected = [-1.0, 0.0, -0.375, -0.625, 0.0, -1.0];
        for (found, expected) in gradient.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{gradient:?}");
        }
        // What every token of a frame has in common moves the loss alone.
        let (moved, same) = path_sum(&scores.map(|score| score + 1e4), 2).unwrap();
        assert!((moved - (loss - 3e4)).abs() < 0.1 && same[2] < -0.37, "{moved} {same:?}");
        let no = f32::NEG_INFINITY;
        assert_eq!(path_sum(&[0.0, 0.0, no, no], 2), Err(Error::Impossible));
        assert!(matches!(path_sum(&[f32::NAN], 1), Err(Error::NotAScore { .. })));
    }

    #[test]
    fn thousands_of_frames_keep_their_precision() {
        // Paths of n frames over two tokens: n - 1, each with 2^-n, whose logarithm is rounded n times.
        let (loss, gradient) = forward_sum(&[0.0; 2 * 5000], 2, None).unwrap();
        assert!((loss - (5000.0 * 2.0_f64.ln() - 4999.0_f64.ln())).abs() < 1e-4);
        assert!(gradient.chunks(2).all(|row| (row[0] + row[1]).abs() < 1e-6));
    }

    #[test]
    fn what_has_no_path_is_said() {
        let no = f32::NEG_INFINITY;
        assert_eq!(forward_sum(&[0.0, 0.0, no, no], 2, None), Err(Error::Impossible));
        assert_eq!(forward_sum(&[no, 0.0, 0.0, 0.0], 2, None), Err(Error::Impossible));
        assert_eq!(forward_sum(&[no, 0.0, 0.0, 0.0], 2, Some(-1.0)), Err(Error::Impossible));
        let error = forward_sum(&[0.0, 0.0, f32::INFINITY, 0.0], 2, None).unwrap_err();
        assert_eq!(error, Error::NotAScore { frame: 1, token: 0, found: f32::INFINITY });
        let error = forward_sum(&[0.0; 4], 2, Some(no)).unwrap_err();
        assert!(matches!(error, Error::Setting { .. }), "{error}");
        assert!(matches!(forward_sum(&[0.0; 2], 2, None), Err(Error::TooFewFrames { .. })));
    }

    proptest! {
        /// Log-probabilities are likelihoods too.
        #[test]
        fn normalized_likelihoods_have_the_loss_of_scores(
            n_tokens in 1_usize..6, n_more in 0_usize..6, values in proptest::collection::vec(-3.0_f32..3.0, 66),
        ) {
            let mut rows = values[..(n_tokens + n_more) * n_tokens].to_vec();
            let (loss, _) = forward_sum(&rows, n_tokens, None).unwrap();
            rows.chunks_exact_mut(n_tokens).for_each(log_softmax_row);
            let (found, gradient) = path_sum(&rows, n_tokens).unwrap();
            prop_assert!((loss - found).abs() < 1e-5 * (1.0 + loss), "{} {}", loss, found);
            // Every frame belongs to one token.
            let posteriors = posteriors(&rows, n_tokens).unwrap();
            for (row, gradient) in posteriors.chunks(n_tokens).zip(gradient.chunks(n_tokens)) {
                prop_assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{:?}", row);
                prop_assert!(row.iter().zip(gradient).all(|(p, g)| *p == -g));
            }
        }

        #[test]
        fn loss_is_the_sum_over_paths_and_its_gradient_the_difference(
            n_tokens in 1_usize..4, n_more in 0_usize..4, values in proptest::collection::vec(-3.0_f32..3.0, 18),
            blank in proptest::option::of(-2.0_f32..1.0),
        ) {
            let scores = &values[..(n_tokens + n_more).min(6) * n_tokens];
            let (loss, gradient) = forward_sum(scores, n_tokens, blank).unwrap();
            let expected = by_force(scores, n_tokens, blank);
            prop_assert!((loss - expected).abs() < 1e-5 * (1.0 + expected), "{} {}", loss, expected);
            for at in 0..scores.len() {
                let moved = |by: f32| {
                    let mut moved = scores.to_vec();
                    moved[at] += by;
                    (by_force(&moved, n_tokens, blank), f64::from(moved[at]))
                };
                let [(high, to), (low, from)] = [moved(1e-3), moved(-1e-3)];
                let slope = (high - low) / (to - from);
                prop_assert!((f64::from(gradient[at]) - slope).abs() < 1e-4, "{} {}", gradient[at], slope);
            }
        }
    }
}
