//! A moving average along every sequence whose rate each row says for itself.
//!
//! ```text
//! x      x0  x1  x2 | x3           rates  ·  ½  1 | ·
//! y      x0  ½ x1 + ½ x0   x2 | x3
//! ```
//!
//! H-Net (Hwang, Wang and Gu, 2025, <https://arxiv.org/abs/2507.07955>, equation 5) smooths what its main network gives
//! so, which makes where it cuts learnable: a rate of 1 takes the new row alone, 0 keeps the one before.

use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;

use super::bridge::{Kernel, apply2, dense, dims2, is_fused, tensor, values};
use crate::ragged::Offsets;

/// `y[i] = rates[i] * x[i] + (1 - rates[i]) * y[i - 1]`; the first row of a sequence is as it is, whatever its rate.
///
/// # Shapes
///
/// - `x`, output: `[n_rows, width]`
/// - `rates`: `[n_rows, 1]`
///
/// # Panics
///
/// When a shape does not fit.
pub fn smooth(x: Tensor<2>, rates: Tensor<2>, offsets: &Offsets) -> Tensor<2> {
    let [n_rows, _] = x.dims();
    assert_eq!(rates.dims(), [n_rows, 1], "one rate for every row");
    assert_eq!(offsets.n_rows(), n_rows, "the offsets cover the rows");
    if is_fused(&x) && is_fused(&rates) {
        apply2(x, rates, Smooth { offsets: offsets.clone() })
    } else {
        composed(x, rates, offsets)
    }
}

/// As many steps as the logarithm of the longest sequence: maps `y -> keep * y + add` of runs of rows, twice as long
/// every time. The first row of a sequence keeps nothing, so that no run reaches beyond it.
fn composed(x: Tensor<2>, rates: Tensor<2>, offsets: &Offsets) -> Tensor<2> {
    let [n_rows, width] = x.dims();
    let (device, dtype) = (x.device(), x.dtype());
    let mut inner = vec![1.0_f32; n_rows];
    for span in offsets.iter().filter(|span| !span.is_empty()) {
        inner[span.start] = 0.0;
    }
    let inner = Tensor::<2>::from_data(TensorData::new(inner, [n_rows, 1]), (&device, dtype));
    let mut keep = (rates.neg() + 1.0) * inner;
    let mut add = (keep.clone().neg() + 1.0) * x;
    let longest = offsets.lengths().into_iter().max().unwrap_or(0);
    let mut by = 1;
    while by < longest {
        let before = |rows: &Tensor<2>, width: usize| {
            let zeros = Tensor::<2>::zeros([by, width], (&device, dtype));
            Tensor::cat(vec![zeros, rows.clone().narrow(0, 0, n_rows - by)], 0)
        };
        add = add.clone() + keep.clone() * before(&add, width);
        keep = keep.clone() * before(&keep, 1);
        by *= 2;
    }
    add
}

#[derive(Debug, Clone)]
struct Smooth {
    offsets: Offsets,
}

impl Kernel<2> for Smooth {
    /// Rows, rates and what came out.
    type Saved = [FlexTensor; 3];

    fn forward(&self, inputs: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let [x, rates] = inputs.map(dense);
        let [n_rows, width] = dims2(&x);
        let (from, rate) = (values(&x), values(&rates));
        let mut out = from.to_vec();
        for span in self.offsets.iter() {
            for row in span.skip(1) {
                let (before, rest) = out.split_at_mut(row * width);
                let before = &before[(row - 1) * width..];
                for (y, y_before) in rest[..width].iter_mut().zip(before) {
                    *y = rate[row] * *y + (1.0 - rate[row]) * y_before;
                }
            }
        }
        let out = tensor(out, [n_rows, width]);
        (out.clone(), [x, rates, out])
    }

    fn backward(
        &self,
        [x, rates, out]: Self::Saved,
        gradient: FlexTensor,
        [want_x, want_rates]: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let gradient = dense(gradient);
        let [n_rows, width] = dims2(&x);
        let (from, rate, y) = (values(&x), values(&rates), values(&out));
        // Slopes of everything that a row goes into, then of the row alone.
        let mut slopes = values(&gradient).to_vec();
        let mut of_rates = vec![0.0; n_rows];
        for span in self.offsets.iter() {
            for row in span.skip(1).rev() {
                let (before, rest) = slopes.split_at_mut(row * width);
                let before = &mut before[(row - 1) * width..];
                let own = &mut rest[..width];
                for (slope, own) in before.iter_mut().zip(own.iter()) {
                    *slope += (1.0 - rate[row]) * own;
                }
                let at = row * width..(row + 1) * width;
                let apart = at.map(|i| from[i] - y[i - width]);
                of_rates[row] = own.iter().zip(apart).map(|(slope, apart)| slope * apart).sum();
                own.iter_mut().for_each(|slope| *slope *= rate[row]);
            }
        }
        [
            want_x.then(|| tensor(slopes, [n_rows, width])),
            want_rates.then(|| tensor(of_rates, [n_rows, 1])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, Matrix, cpu, random, to_vec};

    /// Rates in (0, 1).
    fn rates(n: usize, seed: u64) -> Matrix {
        let mut matrix = random([n, 1], seed);
        matrix.values.iter_mut().for_each(|value| *value = 1.0 / (1.0 + (-*value).exp()));
        matrix
    }

    #[test]
    fn averages_by_hand() {
        let x = Tensor::<2>::from_floats([[2.0], [4.0], [8.0], [1.0]], &cpu());
        let rates = Tensor::<2>::from_floats([[0.1], [0.5], [0.25], [0.0]], &cpu());
        // 2; 2 + 1; 2 + 2.25; and 1, the first of its own sequence.
        let y = smooth(x, rates, &Offsets::from_lengths(&[3, 0, 1]));
        assert_eq!(to_vec(y), [2.0, 3.0, 4.25, 1.0]);
    }

    #[test]
    fn a_rate_of_one_is_the_row_and_of_none_the_one_before() {
        let x = random([4, 3], 1);
        let offsets = Offsets::from_lengths(&[4]);
        let with = |rate: f32| {
            let rates = Matrix { values: vec![rate; 4], shape: [4, 1] };
            to_vec(smooth(x.tensor(&cpu()), rates.tensor(&cpu()), &offsets))
        };
        assert_eq!(with(1.0), x.values);
        assert_eq!(with(0.0), x.values[..3].repeat(4));
    }

    #[test]
    fn fused_equals_composed() {
        for (lengths, width) in [(vec![1], 2), (vec![5, 0, 1, 9], 3), (vec![64, 33], 20)] {
            let offsets = Offsets::from_lengths(&lengths);
            let n = offsets.n_rows();
            Case::new().input(random([n, width], 1)).input(rates(n, 2)).check(
                |t| smooth(t.rows(0), t.rows(1), &offsets),
                |t| composed(t.rows(0), t.rows(1), &offsets),
            );
        }
    }

    #[test]
    fn gradients_match_differences() {
        let offsets = Offsets::from_lengths(&[4, 2]);
        let case = Case::new().input(random([6, 3], 1)).input(rates(6, 2));
        case.check_differences(|t| smooth(t.rows(0), t.rows(1), &offsets));
    }
}
