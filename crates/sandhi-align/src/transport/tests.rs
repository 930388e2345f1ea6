//! What holds for every solver.

use super::*;

/// Random numbers in `[0, 1)`, always the same ones.
pub(super) fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..20).for_each(|_| _ = next());
    (0..n).map(|_| next()).collect()
}
