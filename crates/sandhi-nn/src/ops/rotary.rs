//! Rotary position embedding (arXiv 2104.09864) in the layout of Hugging Face's Llama, where
//! component `i` of a head turns together with component `i + d_head / 2`.

use std::{
    f64::consts::TAU,
    sync::{Arc, Mutex, PoisonError},
};

use burn::tensor::{Device, Tensor, TensorData};
use burn_flex::FlexTensor;
use serde::{Deserialize, Serialize};

use super::{
    blocks::{for_each_block, rows_per_block},
    bridge::{Kernel, apply1, dims2, is_fused, owned, unique_values},
    simd::{mul_add, vectorized},
};

/// How fast pairs of components turn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rope {
    /// Base of the frequencies: pair `i` of a head turns by `theta^(-2 i / d_head)` a position.
    pub theta: f64,
    /// What makes them slower, for contexts longer than those of the first training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<RopeScaling>,
}

/// Slower frequencies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RopeScaling {
    /// All by one factor (Chen et al., 2023, <https://arxiv.org/abs/2306.15595>).
    Linear {
        /// Positions count one part in this many.
        factor: f64,
    },
    /// Llama 3.1: long waves by the factor, short ones not, those between by degrees.
    Llama3(Llama3Scaling),
}

/// `kind = "llama3"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Llama3Scaling {
    /// How much slower long waves are.
    pub factor: f64,
    /// Waves that fit fewer times into the original context are long.
    pub low_freq_factor: f64,
    /// Waves that fit more often are short.
    pub high_freq_factor: f64,
    /// Positions of the first training.
    pub original_positions: usize,
}

impl Llama3Scaling {
    /// What a frequency, in radians a position, becomes.
    fn scaled(&self, frequency: f64) -> f64 {
        let n_waves = self.original_positions as f64 * frequency / TAU;
        let kept =
            (n_waves - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor);
        // All of a short wave is kept, nothing of a long one.
        let kept = kept.clamp(0.0, 1.0);
        frequency * (kept + (1.0 - kept) / self.factor)
    }
}

impl Rope {
    /// Frequencies of this base, as they are.
    pub fn new(theta: f64) -> Self {
        Self { theta, scaling: None }
    }

    /// What is wrong with the numbers.
    pub fn problems(&self) -> Vec<String> {
        let mut numbers = vec![("rope_theta", self.theta)];
        let mut problems = Vec::new();
        match self.scaling {
            None => {}
            Some(RopeScaling::Linear { factor }) => numbers.push(("rope_scaling.factor", factor)),
            Some(RopeScaling::Llama3(scaling)) => {
                numbers.extend([
                    ("rope_scaling.factor", scaling.factor),
                    ("rope_scaling.low_freq_factor", scaling.low_freq_factor),
                    ("rope_scaling.high_freq_factor", scaling.high_freq_factor),
                    ("rope_scaling.original_positions", scaling.original_positions as f64),
                ]);
                if scaling.low_freq_factor >= scaling.high_freq_factor {
                    problems.push(format!(
                        "rope_scaling.low_freq_factor is {}, expected less than high_freq_factor {}",
                        scaling.low_freq_factor, scaling.high_freq_factor
                    ));
                }
            }
        }
        let wrong = numbers.into_iter().filter(|(_, x)| !(x.is_finite() && *x > 0.0));
        problems
            .extend(wrong.map(|(name, x)| format!("{name} is {x}, expected a positive number")));
        problems
    }

    /// Radians that pair `i` of `half` turns by a position.
    fn frequency(&self, i: usize, half: usize) -> f64 {
        let frequency = self.theta.powf(-(i as f64) / half as f64);
        match self.scaling {
            None => frequency,
            Some(RopeScaling::Linear { factor }) => frequency / factor,
            Some(RopeScaling::Llama3(scaling)) => scaling.scaled(frequency),
        }
    }

    fn cos_sin(&self, position: usize, i: usize, half: usize) -> (f32, f32) {
        let (sin, cos) = (position as f64 * self.frequency(i, half)).sin_cos();
        (cos as f32, sin as f32)
    }
}

/// Turns each pair of components of each head by an angle that grows with the row's position.
///
/// # Shapes
///
/// - `x` and output: `[n_rows, n_heads * d_head]`
/// - `positions`: `[n_rows]`, counted from 0 within each sequence
///
/// # Panics
///
/// When there is not one position per row, or `x` does not divide into heads of even width.
pub fn rotary(x: Tensor<2>, positions: &[usize], n_heads: usize, rope: Rope) -> Tensor<2> {
    let [n_rows, width] = x.dims();
    assert_eq!(positions.len(), n_rows, "rotary needs one position per row");
    assert!(
        n_heads > 0 && width % (2 * n_heads) == 0,
        "rows of {width} do not divide into {n_heads} heads of even width"
    );
    if is_fused(&x) {
        let half = width / n_heads / 2;
        let n_positions = positions.iter().max().map_or(0, |last| last + 1);
        let table = Table::shared(rope, half, n_positions);
        apply1(x, Rotary { table, positions: positions.into() })
    } else {
        composed(x, positions, n_heads, rope)
    }
}

fn composed(x: Tensor<2>, positions: &[usize], n_heads: usize, rope: Rope) -> Tensor<2> {
    let [n_rows, width] = x.dims();
    if n_rows == 0 {
        return x;
    }
    let half = width / n_heads / 2;
    let (cos, sin) = tables(positions, half, rope, &x.device());
    let (cos, sin) = (cos.cast(x.dtype()), sin.cast(x.dtype()));
    let x = x.reshape([n_rows, n_heads, 2 * half]);
    let (a, b) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
    let turned_a = a.clone() * cos.clone() - b.clone() * sin.clone();
    let turned_b = b * cos + a * sin;
    Tensor::cat(vec![turned_a, turned_b], 2).reshape([n_rows, width])
}

/// Cosines and sines of all angles, each `[n_rows, 1, half]`.
fn tables(positions: &[usize], half: usize, rope: Rope, device: &Device) -> (Tensor<3>, Tensor<3>) {
    let (cos, sin) = positions
        .iter()
        .flat_map(|&position| (0..half).map(move |i| rope.cos_sin(position, i, half)))
        .unzip();
    let shape = [positions.len(), 1, half];
    let upload = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, shape), device);
    (upload(cos), upload(sin))
}

/// Cosines, then sines, of the angles of each position: `[n_positions, 2 * half]`.
#[derive(Debug)]
struct Table {
    rope: Rope,
    half: usize,
    values: Vec<f32>,
}

impl Table {
    /// The table of at least `n_positions`. Tables are functions of their arguments, so one is kept
    /// for all calls and grown by doubling.
    fn shared(rope: Rope, half: usize, n_positions: usize) -> Arc<Self> {
        static TABLES: Mutex<Vec<Arc<Table>>> = Mutex::new(Vec::new());
        let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
        let found = tables.iter().position(|table| table.rope == rope && table.half == half);
        if let Some(found) = found
            && tables[found].values.len() >= n_positions * 2 * half
        {
            return tables[found].clone();
        }
        let n_positions = n_positions.next_power_of_two().max(512);
        let mut values = Vec::with_capacity(n_positions * 2 * half);
        for position in 0..n_positions {
            values.extend((0..half).map(|i| rope.cos_sin(position, i, half).0));
            values.extend((0..half).map(|i| rope.cos_sin(position, i, half).1));
        }
        let table = Arc::new(Self { rope, half, values });
        match found {
            Some(found) => tables[found] = table.clone(),
            None => tables.push(table.clone()),
        }
        table
    }
}

#[derive(Debug, Clone)]
struct Rotary {
    table: Arc<Table>,
    positions: Arc<[usize]>,
}

impl Rotary {
    /// Turns all rows, back when `sign` is -1.
    fn turn(&self, x: FlexTensor, sign: f32) -> FlexTensor {
        let mut x = owned(x);
        let [_, width] = dims2(&x);
        let d_head = 2 * self.table.half;
        let block = rows_per_block(width);
        let rows = unique_values(&mut x).expect("owned above");
        for_each_block(rows, block * width.max(1), |block_idx, rows| {
            let positions = &self.positions[block_idx * block..];
            for (row, position) in rows.chunks_exact_mut(width).zip(positions) {
                turn_row(row, &self.table.values[position * d_head..][..d_head], sign);
            }
        });
        x
    }
}

impl Kernel<1> for Rotary {
    type Saved = ();

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, ()) {
        (self.turn(x, 1.0), ())
    }

    fn backward(&self, (): (), gradient: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [Some(self.turn(gradient, -1.0))]
    }
}

vectorized! {
    fn turn_row(row: &mut [f32], table: &[f32], sign: f32) {
        let (cos, sin) = table.split_at(table.len() / 2);
        for head in row.chunks_exact_mut(table.len()) {
            let (a, b) = head.split_at_mut(cos.len());
            for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                let sin = sign * sin;
                (*a, *b) =
                    (mul_add::<FMA>(*a, *cos, -*b * sin), mul_add::<FMA>(*b, *cos, *a * sin));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, cpu, random, to_vec};

    #[test]
    fn fused_equals_composed() {
        for (n_rows, n_heads, d_head) in [(1, 1, 2), (7, 3, 8), (130, 6, 64), (0, 2, 4)] {
            let positions: Vec<usize> = (0..n_rows).map(|i| (i * 37) % 700).collect();
            Case::new().input(random([n_rows, n_heads * d_head], 1)).check(
                |t| rotary(t.rows(0), &positions, n_heads, Rope::new(1e4)),
                |t| composed(t.rows(0), &positions, n_heads, Rope::new(1e4)),
            );
        }
    }

    #[test]
    fn gradient_matches_differences() {
        Case::new()
            .input(random([3, 8], 1))
            .check_differences(|t| rotary(t.rows(0), &[0, 2, 5], 2, Rope::new(100.0)));
    }

    #[test]
    fn position_one_turns_the_first_pair_by_one_radian() {
        // With d_head 4 the pairs are (0, 2) and (1, 3), turned by 1 and theta^(-1/2) = 0.1.
        let x = Tensor::<2>::from_floats([[1.0, 1.0, 0.0, 0.0]], &cpu());
        let out = to_vec(rotary(x, &[1], 1, Rope::new(100.0)));
        let expected = [1.0_f32.cos(), 0.1_f32.cos(), 1.0_f32.sin(), 0.1_f32.sin()];
        for (value, expected) in out.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-7);
        }
    }

    #[test]
    fn scaling_slows_long_waves() {
        let linear =
            Rope { scaling: Some(RopeScaling::Linear { factor: 4.0 }), ..Rope::new(100.0) };
        assert_eq!(linear.frequency(1, 2), 0.1 / 4.0);
        // 64 positions: pair 0 turns 10.2 times, pair 1 of 4 3.2 times, pair 2 1.0, pair 3 0.3 times.
        let llama = Rope {
            scaling: Some(RopeScaling::Llama3(Llama3Scaling {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_positions: 64,
            })),
            ..Rope::new(100.0)
        };
        let plain = |i: i32| 10.0_f64.powf(-f64::from(i) / 2.0);
        let of = |i: usize| llama.frequency(i, 4) / plain(i as i32);
        assert_eq!(of(0), 1.0);
        assert!((of(3) - 1.0 / 8.0).abs() < 1e-12);
        // n waves = 64 · 10^(-1/2) / 2π = 3.2211, so (3.2211 - 1) / 3 = 0.74036 is kept.
        assert!((of(1) - (0.740_36 + 0.259_64 / 8.0)).abs() < 1e-4, "{}", of(1));
    }

    #[test]
    fn products_depend_on_the_distance_only() {
        let (q, k) = (random([1, 64], 1), random([1, 64], 2));
        let product = |at_q: usize, at_k: usize| {
            let q = to_vec(rotary(q.tensor(&cpu()), &[at_q], 1, Rope::new(1e4)));
            let k = to_vec(rotary(k.tensor(&cpu()), &[at_k], 1, Rope::new(1e4)));
            q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>()
        };
        assert!((product(3, 1) - product(2003, 2001)).abs() < 1e-3);
    }
}
