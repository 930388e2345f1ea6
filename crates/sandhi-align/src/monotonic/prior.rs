//! The beta-binomial prior: early frames are probably early tokens.
//!
//! ```text
//! tokens   0  1  2  3
//! frame 1  #  +  .            a row is a distribution over the tokens, whose mode
//!       2  +  #  +  .         goes from the first to the last; a larger scaling
//!       3  .  +  #  +         makes it narrower
//!       4     .  +  #
//! ```

use super::Error;

/// Log-probabilities of a beta-binomial distribution a frame, to be added to scores before their softmax: token `k` of
/// frame `t = 1, …, n_frames` has `BetaBinomial(k; n_tokens - 1, scaling t, scaling (n_frames - t + 1))`.
///
/// Badlani et al. 2022, "One TTS alignment to rule them all" ([arXiv 2108.10447](https://arxiv.org/abs/2108.10447),
/// equation 5). The paper has the number of trials `n_tokens` and thus one outcome more than tokens; with
/// one trial less every row sums to 1.
///
/// # Shapes
///
/// - output: `[n_frames, n_tokens]`
///
/// # Errors
///
/// When there are no tokens, or `scaling` is not a finite number above 0.
pub fn beta_binomial_prior(
    n_frames: usize,
    n_tokens: usize,
    scaling: f64,
) -> Result<Vec<f32>, Error> {
    if n_tokens == 0 {
        return Err(Error::Shape { n_values: n_frames, n_tokens });
    }
    if !(scaling > 0.0 && scaling.is_finite()) {
        let expected = "a finite number above 0";
        return Err(Error::Setting { name: "the prior's scaling", found: scaling, expected });
    }
    let n = n_tokens - 1;
    let mut prior = Vec::with_capacity(n_frames.saturating_mul(n_tokens));
    for t in 1..=n_frames {
        let (a, b) = (scaling * t as f64, scaling * (n_frames - t + 1) as f64);
        // p(0) = B(a, b + n) / B(a, b), and p(k + 1) / p(k) = (n - k) (a + k) / ((k + 1) (b + n - k - 1)).
        let mut log_prob: f64 = (0..n).map(|i| -(a / (b + i as f64)).ln_1p()).sum();
        prior.push(log_prob as f32);
        for k in 0..n {
            let (done, left) = (k as f64, (n - k) as f64);
            log_prob += (left * (a + done) / ((done + 1.0) * (b + left - 1.0))).ln();
            prior.push(log_prob as f32);
        }
    }
    Ok(prior)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_priors_are_fractions() {
        // One frame: a = b = 1, the uniform distribution.
        for log_prob in beta_binomial_prior(1, 5, 1.0).unwrap() {
            assert!((log_prob.exp() - 0.2).abs() < 1e-6);
        }
        // One trial: p(1) = a / (a + b), so 1/3 and 2/3.
        let prior = beta_binomial_prior(2, 2, 7.0).unwrap();
        for (log_prob, expected) in prior.iter().zip([2.0, 1.0, 1.0, 2.0]) {
            assert!((log_prob.exp() - expected / 3.0).abs() < 1e-6);
        }
        // Two trials, a = 1, b = 2: p(k) = 2! / (k! (2 - k)!) B(1 + k, 4 - k) / B(1, 2) = 1/2, 1/3, 1/6.
        let prior = beta_binomial_prior(2, 3, 1.0).unwrap();
        for (log_prob, expected) in prior.iter().zip([1.0 / 2.0, 1.0 / 3.0, 1.0 / 6.0]) {
            assert!((log_prob.exp() - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn rows_are_distributions_that_mirror_one_another() {
        let (n_frames, n_tokens) = (500, 80);
        let prior = beta_binomial_prior(n_frames, n_tokens, 0.5).unwrap();
        for (row, mirrored) in prior.chunks(n_tokens).zip(prior.chunks(n_tokens).rev()) {
            let sum: f64 = row.iter().map(|&log_prob| f64::from(log_prob).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{sum}");
            for (a, b) in row.iter().zip(mirrored.iter().rev()) {
                assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "{a} {b}");
            }
        }
    }

    #[test]
    fn settings_that_make_no_distribution_are_refused() {
        assert!(matches!(beta_binomial_prior(3, 0, 1.0), Err(Error::Shape { .. })));
        for scaling in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = beta_binomial_prior(3, 2, scaling).unwrap_err();
            assert!(matches!(error, Error::Setting { .. }), "{error}");
        }
        assert_eq!(beta_binomial_prior(0, 2, 1.0), Ok(vec![]));
    }
}
