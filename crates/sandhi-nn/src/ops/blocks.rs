//! Cutting work into blocks that depend on the shape only, so that the number of threads cannot
//! change a result.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Elements a block holds at most, unless one row is longer: enough work to be worth a thread's
/// attention, small enough for its cache.
const BLOCK: usize = 1 << 14;

/// Rows per block for rows of this width.
pub(crate) fn rows_per_block(width: usize) -> usize {
    (BLOCK / width.max(1)).max(1)
}

/// Allocates `n` values and has `fill` write every one of them.
///
/// # Safety
///
/// `fill` must initialize the whole slice.
pub(crate) unsafe fn build(n: usize, fill: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut values = Vec::with_capacity(n);
    fill(&mut values.spare_capacity_mut()[..n]);
    // SAFETY: the capacity is there, and the caller promises that `fill` initialized it.
    unsafe { values.set_len(n) };
    values
}

/// Copies a slice of the same length into memory that may not be initialized yet.
#[inline(always)]
pub(crate) fn copy_into(out: &mut [MaybeUninit<f32>], from: &[f32]) {
    assert_eq!(out.len(), from.len(), "a copy fills what it is copied to");
    for (out, &value) in out.iter_mut().zip(from) {
        out.write(value);
    }
}

/// Runs `f(block_idx, block)` on blocks of `size` elements, in parallel when there are several.
pub(crate) fn for_each_block<T: Send>(
    values: &mut [T],
    size: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    if values.len() <= size {
        if !values.is_empty() {
            f(0, values);
        }
        return;
    }
    values.par_chunks_mut(size).enumerate().for_each(|(block_idx, block)| f(block_idx, block));
}

/// Sums over blocks: `f(block_idx, partial)` adds block `block_idx` into a `partial` of zeros, and
/// the partials are added in order.
pub(crate) fn sum_over_blocks(
    n_blocks: usize,
    width: usize,
    f: impl Fn(usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut partials = vec![0.0; n_blocks.max(1) * width];
    if n_blocks > 0 && width > 0 {
        for_each_block(&mut partials, width, f);
    }
    let (total, rest) = partials.split_at_mut(width);
    for partial in rest.chunks_exact(width.max(1)) {
        for (total, value) in total.iter_mut().zip(partial) {
            *total += value;
        }
    }
    partials.truncate(width);
    partials
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_everything_once() {
        let mut values = vec![0; 1000];
        for_each_block(&mut values, 64, |block_idx, block| {
            for (i, value) in block.iter_mut().enumerate() {
                *value += block_idx * 64 + i;
            }
        });
        assert!(values.iter().enumerate().all(|(i, &value)| i == value));
    }

    #[test]
    fn partial_sums_are_added_in_order() {
        let total = sum_over_blocks(5, 3, |block_idx, partial| partial[1] += block_idx as f32);
        assert_eq!(total, [0.0, 10.0, 0.0]);
        assert_eq!(sum_over_blocks(0, 2, |_, _| ()), [0.0, 0.0]);
    }
}
