//! The loss and its gradient with respect to the logits.

use rayon::prelude::*;

use super::{
    Error, check_symbols, is_feasible, lattice::Lattice, log_softmax_row, n_frames, n_frames_needed,
};

/// `-log p(target | logits)` and its gradient with respect to the logits: softmax minus posterior.
///
/// # Shapes
///
/// - `logits`: `[n_frames, n_symbols]`, not normalized
/// - gradient: as `logits`
///
/// # Errors
///
/// When the matrix is not whole rows, a symbol has no column, the target holds the blank, or there
/// are too few frames for it.
pub fn loss_and_gradient(
    logits: &[f32],
    n_symbols: usize,
    target: &[u32],
    blank: u32,
) -> Result<(f64, Vec<f32>), Error> {
    let n_frames = n_frames(logits, n_symbols)?;
    check_symbols(target, blank, n_symbols)?;
    if !is_feasible(n_frames, target) {
        return Err(Error::TooFewFrames { n_frames, n_needed: n_frames_needed(target) });
    }
    let mut gradient = logits.to_vec();
    let loss = loss_in_place(&mut gradient, n_symbols, target, blank, 1.0);
    Ok((loss, gradient))
}

/// The weighted loss of a batch of packed sequences, `sum_b weights[b] * -log p(targets[b])`, and its
/// gradient. Sequences run in parallel and are added in order.
///
/// Sequences with too few frames for their target, or of weight 0, contribute nothing.
///
/// # Shapes
///
/// - `logits`: `[n_frames, n_symbols]`, not normalized
/// - `offsets`: first row of each sequence and, at the end, `n_frames`
/// - `targets`, `weights`: one per sequence
///
/// # Errors
///
/// When the parts do not fit, a symbol has no column or a target holds the blank.
pub fn batch_loss_and_gradient<T: AsRef<[u32]> + Sync>(
    logits: &[f32],
    n_symbols: usize,
    offsets: &[usize],
    targets: &[T],
    blank: u32,
    weights: &[f32],
) -> Result<(f64, Vec<f32>), Error> {
    let mut gradient = logits.to_vec();
    let loss = batch_loss_in_place(&mut gradient, n_symbols, offsets, targets, blank, weights)?;
    Ok((loss, gradient))
}

/// As [`batch_loss_and_gradient`], turning the logits into their gradient in place.
///
/// # Errors
///
/// As [`batch_loss_and_gradient`]; the logits are then unchanged.
pub fn batch_loss_in_place<T: AsRef<[u32]> + Sync>(
    logits: &mut [f32],
    n_symbols: usize,
    offsets: &[usize],
    targets: &[T],
    blank: u32,
    weights: &[f32],
) -> Result<f64, Error> {
    check_batch(logits, n_symbols, offsets, targets, blank, weights)?;
    let mut jobs = Vec::with_capacity(targets.len());
    let mut rest = logits;
    for (i, pair) in offsets.windows(2).enumerate() {
        let (rows, others) = rest.split_at_mut((pair[1] - pair[0]) * n_symbols);
        rest = others;
        jobs.push((rows, targets[i].as_ref(), weights[i]));
    }
    let losses: Vec<f64> = jobs
        .into_par_iter()
        .map(|(rows, target, weight)| {
            if weight == 0.0 || !is_feasible(rows.len() / n_symbols, target) {
                rows.fill(0.0);
                return 0.0;
            }
            f64::from(weight) * loss_in_place(rows, n_symbols, target, blank, weight)
        })
        .collect();
    Ok(losses.iter().sum())
}

/// The loss of [`batch_loss_and_gradient`] without the gradient.
///
/// # Errors
///
/// As [`batch_loss_and_gradient`].
pub fn batch_loss<T: AsRef<[u32]> + Sync>(
    logits: &[f32],
    n_symbols: usize,
    offsets: &[usize],
    targets: &[T],
    blank: u32,
    weights: &[f32],
) -> Result<f64, Error> {
    check_batch(logits, n_symbols, offsets, targets, blank, weights)?;
    let losses: Vec<f64> = (0..targets.len())
        .into_par_iter()
        .map(|i| {
            let rows = &logits[offsets[i] * n_symbols..offsets[i + 1] * n_symbols];
            let target = targets[i].as_ref();
            if weights[i] == 0.0 || !is_feasible(rows.len() / n_symbols, target) {
                return 0.0;
            }
            let mut rows = rows.to_vec();
            rows.chunks_exact_mut(n_symbols).for_each(log_softmax_row);
            let lattice = Lattice::new(target, blank);
            -f64::from(weights[i]) * lattice.log_likelihood(&rows, n_symbols)
        })
        .collect();
    Ok(losses.iter().sum())
}

/// Refuses batches whose parts do not fit, and targets that no matrix could spell.
fn check_batch<T: AsRef<[u32]>>(
    logits: &[f32],
    n_symbols: usize,
    offsets: &[usize],
    targets: &[T],
    blank: u32,
    weights: &[f32],
) -> Result<(), Error> {
    let n_frames = n_frames(logits, n_symbols)?;
    let n_sequences = offsets.len().saturating_sub(1);
    let n_rows = offsets.last().copied().unwrap_or(0);
    let ascending = offsets.first() == Some(&0) && offsets.is_sorted();
    if !ascending
        || targets.len() != n_sequences
        || weights.len() != n_sequences
        || n_rows != n_frames
    {
        return Err(Error::Batch {
            n_sequences,
            n_targets: targets.len(),
            n_weights: weights.len(),
            n_rows,
            n_frames,
        });
    }
    targets.iter().try_for_each(|target| check_symbols(target.as_ref(), blank, n_symbols))
}

/// Turns a sequence's logits into `weight` times the gradient and returns the loss, unweighted.
fn loss_in_place(
    logits: &mut [f32],
    n_symbols: usize,
    target: &[u32],
    blank: u32,
    weight: f32,
) -> f64 {
    let lattice = Lattice::new(target, blank);
    let n_states = lattice.symbols.len();
    logits.chunks_exact_mut(n_symbols).for_each(log_softmax_row);
    let (log_likelihood, occupancy) = lattice.forward_backward(logits, n_symbols);
    for (row, states) in logits.chunks_exact_mut(n_symbols).zip(occupancy.chunks_exact(n_states)) {
        for value in row.iter_mut() {
            *value = weight * value.exp();
        }
        for (&symbol, &posterior) in lattice.symbols.iter().zip(states) {
            row[symbol] -= weight * posterior as f32;
        }
    }
    -log_likelihood
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ctc::log_softmax;

    /// The collapsed form of a path.
    fn collapse(path: &[usize], blank: u32) -> Vec<u32> {
        let mut symbols: Vec<u32> = path.iter().map(|&symbol| symbol as u32).collect();
        symbols.dedup();
        symbols.retain(|&symbol| symbol != blank);
        symbols
    }

    /// The loss by walking every path there is.
    fn brute_force(logits: &[f32], n_symbols: usize, target: &[u32], blank: u32) -> f64 {
        let log_probs = log_softmax(logits, n_symbols).unwrap();
        let n_frames = logits.len() / n_symbols;
        let mut total = 0.0;
        for number in 0..n_symbols.pow(n_frames as u32) {
            let path: Vec<usize> =
                (0..n_frames).map(|t| number / n_symbols.pow(t as u32) % n_symbols).collect();
            if collapse(&path, blank) == target {
                let log_p: f64 = path
                    .iter()
                    .enumerate()
                    .map(|(t, &symbol)| f64::from(log_probs[t * n_symbols + symbol]))
                    .sum();
                total += log_p.exp();
            }
        }
        -total.ln()
    }

    #[test]
    fn a_mask_of_large_numbers_is_one_of_infinities() {
        let masked = |mask: f32| [0.5, 1.0, mask, -0.5, mask, 1.5, mask, 0.0, 0.25];
        let (loss, gradient) = loss_and_gradient(&masked(-1e30), 3, &[1, 2], 0).unwrap();
        let expected = loss_and_gradient(&masked(f32::NEG_INFINITY), 3, &[1, 2], 0).unwrap();
        assert!(loss.is_finite());
        assert_eq!((loss, gradient), expected);
    }

    proptest! {
        #[test]
        fn loss_equals_the_sum_over_all_paths(
            logits in proptest::collection::vec(-4.0_f32..4.0, 15),
            target in proptest::collection::vec(0_u32..2, 0..4),
            blank in 0_u32..3,
        ) {
            // Symbols other than the blank, whichever that is.
            let target: Vec<u32> = target.into_iter().map(|s| (blank + 1 + s) % 3).collect();
            let expected = brute_force(&logits, 3, &target, blank);
            let (loss, gradient) = loss_and_gradient(&logits, 3, &target, blank).unwrap();
            prop_assert!((loss - expected).abs() < 1e-5, "{loss} is not {expected}");
            let alone = batch_loss(&logits, 3, &[0, 5], &[&target], blank, &[1.0]).unwrap();
            prop_assert!((alone - expected).abs() < 1e-5);

            for (i, &gradient) in gradient.iter().enumerate() {
                let step = 1e-2;
                let at = |offset: f32| {
                    let mut logits = logits.clone();
                    logits[i] += offset;
                    brute_force(&logits, 3, &target, blank)
                };
                let slope = (at(step) - at(-step)) / f64::from(2.0 * step);
                prop_assert!((slope - f64::from(gradient)).abs() < 1e-3, "{slope} and {gradient}");
            }
        }

        #[test]
        fn a_row_of_the_gradient_sums_to_zero(
            logits in proptest::collection::vec(-30.0_f32..30.0, 80),
            target in proptest::collection::vec(1_u32..4, 0..8),
        ) {
            // Softmax and posterior both sum to 1. 20 frames hold eight symbols and their blanks.
            let (loss, gradient) = loss_and_gradient(&logits, 4, &target, 0).unwrap();
            prop_assert!(loss >= -1e-6);
            for row in gradient.chunks(4) {
                prop_assert!(row.iter().sum::<f32>().abs() < 1e-4);
            }
        }
    }

    #[test]
    fn sequences_of_a_batch_do_not_know_one_another() {
        let logits: Vec<f32> = (0..60).map(|i| ((i * 37) % 19) as f32 / 4.0).collect();
        let targets = [vec![1_u32, 2], vec![1, 1, 1, 1], vec![], vec![2]];
        let (offsets, weights) = ([0, 9, 11, 15, 20], [1.0_f32, 1.0, 0.5, 0.0]);
        let (loss, gradient) =
            batch_loss_and_gradient(&logits, 3, &offsets, &targets, 0, &weights).unwrap();
        let (first, first_gradient) = loss_and_gradient(&logits[..27], 3, &targets[0], 0).unwrap();
        let (third, _) = loss_and_gradient(&logits[33..45], 3, &targets[2], 0).unwrap();
        assert_eq!(loss, first + 0.5 * third);
        assert_eq!(gradient[..27], first_gradient);
        // The second target does not fit its two frames, the fourth has no weight.
        assert!(gradient[27..33].iter().chain(&gradient[45..]).all(|&value| value == 0.0));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let logits = [0.0; 6];
        let needed = Error::TooFewFrames { n_frames: 2, n_needed: 3 };
        assert_eq!(loss_and_gradient(&logits, 3, &[1, 1], 0), Err(needed));
        let unknown = Error::UnknownSymbol { symbol: 3, n_symbols: 3 };
        assert_eq!(loss_and_gradient(&logits, 3, &[3], 0), Err(unknown));
        let blank = Error::BlankInTarget { position: 1, blank: 0 };
        assert_eq!(loss_and_gradient(&logits, 3, &[1, 0], 0), Err(blank));
        for (offsets, weights) in
            [(vec![0, 1], vec![1.0]), (vec![0, 2], vec![]), (vec![0, 2, 1, 2], vec![1.0; 3])]
        {
            let targets = vec![vec![1_u32]; offsets.len() - 1];
            let result = batch_loss_and_gradient(&logits, 3, &offsets, &targets, 0, &weights);
            assert!(matches!(result, Err(Error::Batch { .. })), "{offsets:?}");
        }
    }

    #[test]
    fn not_a_number_stays_one() {
        let logits = [f32::NAN, 0.0, 0.0, 0.0];
        assert!(loss_and_gradient(&logits, 2, &[1], 0).unwrap().0.is_nan());
    }
}
