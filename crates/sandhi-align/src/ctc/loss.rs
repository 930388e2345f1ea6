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
    for target in targets {
        check_symbols(target.as_ref(), blank, n_symbols)?;
    }
    let mut jobs = Vec::with_capacity(n_sequences);
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
    for row in logits.chunks_exact_mut(n_symbols) {
        log_softmax_row(row);
    }
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
