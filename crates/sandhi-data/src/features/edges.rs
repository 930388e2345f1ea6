//! What lies beyond the ends of a signal: two ways of mirroring.
//!
//! ```text
//! signal                   a b c d
//! reflect             d c b[a b c d]c b a        the end itself is not repeated (NumPy's and PyTorch's "reflect")
//! mirror            c b a a[b c d ...            the end is repeated (Kaldi, NumPy's "symmetric")
//! ```

/// The index inside `0..n` that `i` stands for when the end is not repeated. `n` is not 0.
pub(super) fn reflect(i: isize, n: usize) -> usize {
    let n = n as isize;
    if n == 1 {
        return 0;
    }
    let i = i.rem_euclid(2 * (n - 1));
    (if i < n { i } else { 2 * (n - 1) - i }) as usize
}

/// The index inside `0..n` that `i` stands for when the end is repeated. `n` is not 0.
pub(super) fn mirror(i: isize, n: usize) -> usize {
    let n = n as isize;
    let i = i.rem_euclid(2 * n);
    (if i < n { i } else { 2 * n - 1 - i }) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_leaves_out_the_end_and_mirroring_repeats_it() {
        let all = |f: fn(isize, usize) -> usize| (-4..8).map(|i| f(i, 4)).collect::<Vec<_>>();
        assert_eq!(all(reflect), [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]);
        assert_eq!(all(mirror), [3, 2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0]);
        assert_eq!((reflect(-7, 1), mirror(-7, 1)), (0, 0));
    }
}
