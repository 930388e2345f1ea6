//! What is left of a connector's vectors once neighbours that agree are one and pauses are gone.
//!
//! ```text
//! vectors    a  a' | b  c | -  -' | d          pairs (0, 1), (2, 3), …; the last one may be alone
//! merge      ½(a+a') b  c   ½(-+-')  d         where a pair's cosine is above `merge`
//! drop       ½(a+a') b  c            d         where the cosine with the pad is above `drop`
//! ```
//!
//! The compression of OTReg (Xu et al. 2025, [arXiv 2508.08131](https://arxiv.org/abs/2508.08131)), which needs no
//! transcript: transport has drawn speech to the embeddings of its tokens, and pauses to the pad's. Pairs do not
//! overlap and there is one pass, so that what is said twice stays twice. What goes is decided on values alone;
//! gradients flow through what stays.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    length::Length,
    ops,
    ragged::{Offsets, Ragged},
    weights::host,
};

/// The thresholds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompressionConfig {
    /// Neighbours whose cosine is above become their mean; none where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<f64>,
    /// Vectors whose cosine with the pad's embedding is above go; none where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<f64>,
}

impl CompressionConfig {
    /// How many of `n_vectors` are left: the data decide.
    pub fn length(&self, n_vectors: usize) -> Length {
        if *self == Self::default() { Length::Exact(n_vectors) } else { Length::AtMost(n_vectors) }
    }

    /// What is wrong with the thresholds.
    pub fn problems(&self) -> Vec<String> {
        let named = [("merge", self.merge), ("drop", self.drop)];
        named
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .filter(|(_, value)| !(-1.0..=1.0).contains(value))
            .map(|(name, value)| format!("{name} is {value}, expected a cosine, -1 to 1"))
            .collect()
    }

    /// Compresses the vectors of every utterance by itself; all of them may go.
    ///
    /// # Shapes
    ///
    /// - `vectors.values`: `[n_vectors, d_model]`
    /// - `pad`: `[1, d_model]`, the pad's embedding
    /// - output: `[n_left, d_model]`
    pub fn forward(&self, vectors: &Ragged, pad: Tensor<2>) -> Ragged {
        if *self == Self::default() || vectors.offsets.n_rows() == 0 {
            return vectors.clone();
        }
        let [first, second, lengths] = self.survivors(vectors, pad);
        // The mean of a row with itself is the row, to the last bit.
        let rows = |ids: &[u32]| ops::embedding(vectors.values.clone(), ids);
        let values = if first == second {
            rows(&first)
        } else {
            (rows(&first) + rows(&second)).mul_scalar(0.5)
        };
        let lengths: Vec<usize> = lengths.iter().map(|&n| n as usize).collect();
        Ragged { values, offsets: Offsets::from_lengths(&lengths) }
    }

    /// The vectors of every utterance that what [`CompressionConfig::forward`] leaves is the mean of, counted from the
    /// utterance's first: a pair, or one vector twice.
    pub fn kept(&self, vectors: &Ragged, pad: Tensor<2>) -> Vec<Vec<[usize; 2]>> {
        let [first, second, lengths] = self.survivors(vectors, pad);
        let mut pairs = first.iter().zip(&second);
        let of_span = |(span, n): (std::ops::Range<usize>, &u32)| {
            let pairs = pairs.by_ref().take(*n as usize);
            pairs.map(|(&a, &b)| [a, b].map(|row| row as usize - span.start)).collect()
        };
        vectors.offsets.iter().zip(&lengths).map(of_span).collect()
    }

    /// The two rows that each one left is the mean of, and how many are left of each utterance.
    fn survivors(&self, vectors: &Ragged, pad: Tensor<2>) -> [Vec<u32>; 3] {
        let [_, width] = vectors.values.dims();
        let values = host(vectors.values.clone().detach());
        let pad = host(pad.detach());
        let row = |i: usize| &values[i * width..(i + 1) * width];
        let mut mean = vec![0.0; width];
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let mut lengths = Vec::with_capacity(vectors.offsets.n_sequences());
        for span in vectors.offsets.iter() {
            let before = first.len();
            let mut keep = |a: usize, b: usize| {
                for ((mean, a), b) in mean.iter_mut().zip(row(a)).zip(row(b)) {
                    *mean = 0.5 * (a + b);
                }
                if self.drop.is_none_or(|drop| cosine(&mean, &pad) <= drop) {
                    first.push(a as u32);
                    second.push(b as u32);
                }
            };
            for a in span.clone().step_by(2) {
                let b = a + 1;
                let is_pair = b < span.end;
                if is_pair && self.merge.is_some_and(|merge| cosine(row(a), row(b)) > merge) {
                    keep(a, b);
                } else {
                    keep(a, a);
                    if is_pair {
                        keep(b, b);
                    }
                }
            }
            lengths.push((first.len() - before) as u32);
        }
        [first, second, lengths]
    }
}

/// The cosine of two vectors; 0 where one of them is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: CompressionConfig = CompressionConfig { merge: Some(0.9), drop: Some(0.8) };

    fn ragged(rows: &[[f32; 2]], lengths: &[usize], device: &Device) -> Ragged {
        let values: Vec<f32> = rows.iter().flatten().copied().collect();
        let values = Tensor::from_data(TensorData::new(values, [rows.len(), 2]), device);
        Ragged { values, offsets: Offsets::from_lengths(lengths) }
    }

    fn pad(device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(vec![0.0, 3.0_f32], [1, 2]), device)
    }

    #[test]
    fn neighbours_that_agree_become_one_and_pauses_go() {
        let device = Device::flex();
        // A pair, a pair that disagrees, a pause; another utterance with a pause and a lone vector.
        let rows =
            [[1.0, 0.0], [3.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.1, 1.0], [0.0, 2.0], [2.0, 0.1]];
        let found = BOTH.forward(&ragged(&rows, &[4, 0, 3], &device), pad(&device));
        assert_eq!(found.offsets.lengths(), [3, 0, 1]);
        assert_eq!(host(found.values), [2.0, 0.0, 1.0, 0.0, -1.0, 0.0, 2.0, 0.1]);
        let kept = BOTH.kept(&ragged(&rows, &[4, 0, 3], &device), pad(&device));
        assert_eq!(kept, [vec![[0, 1], [2, 2], [3, 3]], vec![], vec![[2, 2]]]);

        let merge = CompressionConfig { drop: None, ..BOTH };
        let found = merge.forward(&ragged(&rows, &[4, 0, 3], &device), pad(&device));
        assert_eq!(found.offsets.lengths(), [3, 0, 2]);
        let drop = CompressionConfig { merge: None, ..BOTH };
        let found = drop.forward(&ragged(&rows, &[4, 0, 3], &device), pad(&device));
        assert_eq!(found.offsets.lengths(), [4, 0, 1]);
        let none = CompressionConfig::default();
        let found = none.forward(&ragged(&rows, &[4, 0, 3], &device), pad(&device));
        assert_eq!(found.offsets.lengths(), [4, 0, 3]);
        assert_eq!(none.length(7), Length::Exact(7));
    }

    #[test]
    fn nothing_but_pauses_leaves_nothing() {
        let device = Device::flex();
        let found = BOTH.forward(&ragged(&[[0.0, 1.0]; 3], &[3], &device), pad(&device));
        assert_eq!((found.offsets.lengths(), found.values.dims()), (vec![0], [0, 2]));
    }

    #[test]
    fn gradients_flow_through_what_stays() {
        let device = Device::flex().autodiff();
        let rows = [[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [5.0, 0.0]];
        let mut given = ragged(&rows, &[4], &device);
        given.values = given.values.require_grad();
        let found = BOTH.forward(&given, pad(&device));
        let grads = found.values.sum().backward();
        let gradient = given.values.grad(&grads).unwrap();
        assert_eq!(host(gradient), [0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn thresholds_are_cosines() {
        let wrong = CompressionConfig { merge: Some(1.5), drop: Some(f64::NAN) };
        let problems = wrong.problems();
        assert_eq!(problems[0], "merge is 1.5, expected a cosine, -1 to 1");
        assert!(problems.len() == 2 && BOTH.problems().is_empty());
    }

    proptest! {
        #[test]
        fn lengths_keep_their_bound_and_utterances_to_themselves(
            lengths in prop::collection::vec(0_usize..9, 1..5),
            angles in prop::collection::vec(0_u8..8, 40),
            merge in prop::option::of(-1.0..1.0_f64),
            drop in prop::option::of(-1.0..1.0_f64),
        ) {
            let device = Device::flex();
            let config = CompressionConfig { merge, drop };
            let n: usize = lengths.iter().sum();
            let rows: Vec<[f32; 2]> = angles[..n]
                .iter()
                .map(|&k| [(f32::from(k) * 0.8).cos(), (f32::from(k) * 0.8).sin()])
                .collect();
            let whole = config.forward(&ragged(&rows, &lengths, &device), pad(&device));
            let values = host(whole.values);
            let mut start = 0;
            for (span, &length) in whole.offsets.iter().zip(&lengths) {
                prop_assert!(span.len() <= config.length(length).bound());
                if drop.is_none() {
                    prop_assert!(span.len() >= length.div_ceil(2));
                }
                let alone = ragged(&rows[start..start + length], &[length], &device);
                let alone = host(config.forward(&alone, pad(&device)).values);
                prop_assert_eq!(&values[2 * span.start..2 * span.end], alone.as_slice());
                start += length;
            }
        }
    }
}
