//! Positions: a convolution over frames, and WavLM's bias of attention.
//!
//! ```text
//! frames      . . . . f f f f f f f . . .      kernel 128: 64 frames before, 63 after
//! positions         gelu(conv)                 groups of channels, each convolved alone
//!
//! bias        key - query, in buckets: each of the small distances has its own, larger ones share
//! ```

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    init::Init,
    layers::{Embedding, Linear},
    lora::{Linears, NamedLinears},
    ops,
    ragged::Offsets,
};

/// Convolution over frames whose result is added to them (Baevski et al., 2020, section 2). Weight norm, with which
/// it is trained, is a fixed factor afterwards and folded into the weights.
#[derive(Module, Debug)]
pub(super) struct PositionalConvolution {
    /// One a group of channels: `[kernel * d_group, d_group]`.
    groups: Vec<Linear>,
    kernel: usize,
}

impl Linears for PositionalConvolution {
    fn linears(&mut self) -> NamedLinears<'_> {
        let groups = self.groups.iter_mut().enumerate();
        groups.map(|(i, group)| (format!("groups.{i}"), group)).collect()
    }
}

impl PositionalConvolution {
    pub(super) fn new(init: &Init, d: usize, kernel: usize, n_groups: usize) -> Self {
        let d_group = d / n_groups;
        let group =
            |i| Linear::new(&init.child("groups").child(i), kernel * d_group, d_group, true);
        Self { groups: (0..n_groups).map(group).collect(), kernel }
    }

    /// # Shapes
    ///
    /// - `x`, output: `[n_rows, d]`
    pub(super) fn forward(&self, x: Tensor<2>, offsets: &Offsets) -> Tensor<2> {
        let [_, d] = x.dims();
        let d_group = d / self.groups.len();
        let mut windows = offsets.clone();
        let mut parts = Vec::with_capacity(self.groups.len());
        for (i, group) in self.groups.iter().enumerate() {
            let channels = x.clone().narrow(1, i * d_group, d_group);
            let (unfolded, out) = ops::unfold(channels, offsets, self.kernel, 1, self.kernel / 2);
            windows = out;
            parts.push(group.forward(unfolded));
        }
        let x = Tensor::cat(parts, 1);
        // An even kernel makes a frame more than there were; the last one goes.
        let x = if windows == *offsets {
            x
        } else {
            let kept = offsets.iter().zip(windows.iter()).flat_map(|(rows, windows)| {
                (windows.start..windows.start + rows.len()).map(|row| row as u32)
            });
            ops::embedding(x, &kept.collect::<Vec<u32>>())
        };
        ops::gelu(x)
    }
}

/// WavLM's relative positions (Chen et al., 2021, <https://arxiv.org/abs/2110.13900>, section III-B).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PositionBiasConfig {
    /// Buckets of distances, half of them for keys after the query. A quarter of them holds one distance each.
    pub buckets: usize,
    /// Frames from where on all distances share a bucket.
    pub max_distance: usize,
}

impl Default for PositionBiasConfig {
    fn default() -> Self {
        Self { buckets: 320, max_distance: 800 }
    }
}

impl PositionBiasConfig {
    /// The bucket of a key `distance` frames after its query, as T5 has them (Raffel et al., 2020, section 2.1). In f32
    /// throughout, as the authors' code has it: in between, rounding decides.
    pub fn bucket(&self, distance: isize) -> usize {
        let half = self.buckets / 2;
        let exact = half / 2;
        let size = distance.unsigned_abs();
        let bucket = if size < exact {
            size
        } else {
            let log = (size as f32 / exact as f32).ln();
            let share = log / (self.max_distance as f64 / exact as f64).ln() as f32;
            (half - 1).min((exact as f32 + share * (half - exact) as f32) as usize)
        };
        if distance > 0 { half + bucket } else { bucket }
    }

    /// The bias of an utterance of `n` frames before it is gated: row `q` of head `h` for each key.
    ///
    /// # Shapes
    ///
    /// - `table`: `[buckets, n_heads]`
    /// - output: `[n_heads, n, n]`
    pub(super) fn bias(&self, table: &Embedding, n: usize) -> Tensor<3> {
        let [_, n_heads] = table.weight.dims();
        if n == 0 {
            let options = (&table.weight.device(), table.weight.dtype());
            return Tensor::zeros([n_heads, 0, 0], options);
        }
        let far = n as isize - 1;
        let buckets: Vec<u32> = (-far..=far).map(|distance| self.bucket(distance) as u32).collect();
        let by_distance = table.forward(&buckets);
        let pairs: Vec<u32> =
            (0..n).flat_map(|query| (0..n).map(move |key| (key + n - 1 - query) as u32)).collect();
        ops::embedding(by_distance, &pairs).transpose().reshape([n_heads, n, n])
    }

    /// What is wrong with the sizes.
    pub(super) fn problems(&self) -> Option<String> {
        let Self { buckets, max_distance } = *self;
        if buckets < 4 {
            return Some(format!("position_bias.buckets is {buckets}, expected at least 4"));
        }
        let exact = buckets / 4;
        (max_distance <= exact).then(|| {
            format!("position_bias.max_distance is {max_distance}, expected more than {exact}, a quarter of the buckets")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ops::testing::random, weights::host};

    #[test]
    fn buckets_by_hand() {
        // 16 buckets: 8 a side, 4 of single distances; 4, 5 | 6..8 | 9..13 | 14.. up to 20 by powers of 5^(1/4).
        let config = PositionBiasConfig { buckets: 16, max_distance: 20 };
        let expected = [0, 1, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 6, 7, 7];
        for (distance, expected) in expected.into_iter().enumerate() {
            assert_eq!(config.bucket(-(distance as isize)), expected, "{distance} before");
            if distance > 0 {
                assert_eq!(config.bucket(distance as isize), 8 + expected, "{distance} after");
            }
        }
        assert_eq!(config.bucket(1_000_000), 15);
    }

    #[test]
    fn the_bias_of_a_pair_is_that_of_its_distance() {
        let config = PositionBiasConfig { buckets: 8, max_distance: 5 };
        let device = Device::flex();
        let table = Embedding::new(&Init::new(3, &device), 8, 2, 1.0);
        let (bias, rows) = (host(config.bias(&table, 4)), host(table.weight.val()));
        for (head, query, key) in [(0, 0, 0), (0, 3, 1), (1, 0, 3), (1, 2, 3)] {
            let bucket = config.bucket(key as isize - query as isize);
            assert_eq!(bias[(head * 4 + query) * 4 + key], rows[bucket * 2 + head]);
        }
    }

    #[test]
    fn a_convolution_of_positions_by_hand() {
        // Kernel 2, two groups of one channel: y[t] = w0 x[t - 1] + w1 x[t], the row after the last dropped.
        let device = Device::flex();
        for (kernel, taps) in [(2, vec![3.0, 5.0]), (3, vec![3.0, 5.0, 7.0])] {
            let init = Init::new(1, &device);
            let mut conv = PositionalConvolution::new(&init, 2, kernel, 2);
            for group in &mut conv.groups {
                group.weight = init.values(taps.clone(), [kernel, 1]);
            }
            let x = random([5, 2], 1);
            let values = x.values.clone();
            let offsets = Offsets::from_lengths(&[3, 0, 2]);
            let found = conv.forward(x.tensor(&device), &offsets);
            let mut expected = Vec::new();
            for rows in offsets.iter() {
                for row in rows.clone() {
                    for channel in 0..2 {
                        let at = |shift: isize| {
                            let from = row as isize + shift;
                            let inside = from >= rows.start as isize && from < rows.end as isize;
                            if inside { values[from as usize * 2 + channel] } else { 0.0 }
                        };
                        let sum = (0..kernel as isize).map(|tap| taps[tap as usize] * at(tap - 1));
                        expected.push(sum.sum::<f32>());
                    }
                }
            }
            let expected = Tensor::<1>::from_floats(expected.as_slice(), &device).reshape([5, 2]);
            for (found, expected) in host(found).iter().zip(host(ops::gelu(expected))) {
                assert!((found - expected).abs() < 1e-5, "{found} and {expected}");
            }
        }
    }
}
