//! Centered kernel alignment: how alike two sets of vectors of the same things lie, whatever their axes.
//!
//! ```text
//! thing   0 1 2 … n-1
//! X       x0 x1 x2 …        n rows of any width        1    alike up to rotation and scale
//! Y       y0 y1 y2 …        n rows of any width        0    nothing in common
//! ```
//!
//! Linear CKA (Kornblith et al. 2019, [arXiv 1905.00414](https://arxiv.org/abs/1905.00414)) with the unbiased estimate of
//! HSIC (Song et al., JMLR 13, 2012, eq. 5; for CKA in Nguyen et al. 2021, [arXiv
//! 2010.15327](https://arxiv.org/abs/2010.15327), eq. 3). The estimate of Kornblith's eq. 1 grows with the width: with as
//! many rows as columns it is far above 0 for noise.

use burn::prelude::*;
use sandhi_nn::weights::host;

/// Rows on the host, row-major.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) width: usize,
}

/// `hsic(X, Y) / sqrt(hsic(X, X) hsic(Y, Y))`: 1 for equal, around 0, on either side, for independent ones. None of fewer
/// than four rows, and where all rows of a side are the same.
///
/// # Panics
///
/// When there are not as many rows on either side.
pub(super) fn linear_cka(x: Rows, y: Rows, device: &Device) -> Option<f64> {
    let [n, m] = [x, y].map(|rows| rows.values.len() / rows.width);
    assert_eq!(n, m, "a row on either side");
    if n < 4 {
        return None;
    }
    let (x, y) = (Centered::new(x, device)?, Centered::new(y, device)?);
    let (xx, yy) = (x.hsic(&x), y.hsic(&y));
    (xx > 0.0 && yy > 0.0).then(|| x.hsic(&y) / (xx * yy).sqrt())
}

/// Rows less their mean, of mean square 1.
struct Centered {
    rows: Tensor<2>,
    /// `k_i = |x_i|²`
    squares: Vec<f64>,
}

impl Centered {
    /// None where all rows are the same, but for rounding.
    fn new(Rows { values, width }: Rows, device: &Device) -> Option<Self> {
        let n = values.len() / width;
        let mut mean = vec![0.0; width];
        for row in values.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(mean, &x)| *mean += f64::from(x) / n as f64);
        }
        let centered = values.chunks_exact(width).flat_map(|row| {
            row.iter().zip(&mean).map(|(&x, mean)| f64::from(x) - mean).collect::<Vec<_>>()
        });
        let centered: Vec<f64> = centered.collect();
        // Sums of squares shall be in the range of 32 bits.
        let scale = (centered.iter().map(|x| x * x).sum::<f64>() / centered.len() as f64).sqrt();
        let largest = values.iter().map(|x| f64::from(x.abs())).fold(0.0, f64::max);
        // Rounding of the mean alone is a billionth of that.
        if scale <= 1e-9 * largest {
            return None;
        }
        let rows: Vec<f32> = centered.iter().map(|x| (x / scale) as f32).collect();
        let square = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum();
        let squares = rows.chunks_exact(width).map(square).collect();
        let rows = Tensor::from_data(TensorData::new(rows, [n, width]), device);
        Some(Self { rows, squares })
    }

    /// `n (n - 3)` times the unbiased HSIC of the linear kernels `K = X Xᵀ` and `L = Y Yᵀ` without their diagonals:
    ///
    /// ```text
    /// tr(K L) + (1ᵀK1)(1ᵀL1) / ((n - 1)(n - 2)) - 2 / (n - 2) 1ᵀKL1
    /// ```
    ///
    /// Centering changes nothing of it and makes the sum of row `i` of `K` equal to `-k_i`, so that without any `n x n`
    /// matrix it is `|XᵀY|² - n / (n - 2) Σ k_i l_i + Σ k_i Σ l_i / ((n - 1)(n - 2))`.
    fn hsic(&self, other: &Self) -> f64 {
        let n = self.squares.len() as f64;
        let cross = host(self.rows.clone().transpose().matmul(other.rows.clone()));
        let cross: f64 = cross.iter().map(|&x| f64::from(x).powi(2)).sum();
        let both: f64 = self.squares.iter().zip(&other.squares).map(|(k, l)| k * l).sum();
        let [k, l] = [self, other].map(|rows| rows.squares.iter().sum::<f64>());
        cross - n / (n - 2.0) * both + k * l / ((n - 1.0) * (n - 2.0))
    }
}

#[cfg(test)]
mod tests {
    use sandhi_data::rng::Stream;

    use super::*;

    fn noise(name: &str, n: usize) -> Vec<f32> {
        let mut stream = Stream::named(1, name);
        (0..n).map(|_| (stream.uniform() - 0.5) as f32).collect()
    }

    fn cka(x: &[f32], y: &[f32], width: usize) -> Option<f64> {
        let rows = |values| Rows { values, width };
        linear_cka(rows(x), rows(y), &Device::flex())
    }

    /// The definition, with the matrices.
    fn by_matrices(x: &[f32], y: &[f32], width: usize) -> f64 {
        let gram = |x: &[f32]| -> Vec<Vec<f64>> {
            let rows: Vec<&[f32]> = x.chunks(width).collect();
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
            };
            (0..rows.len())
                .map(|i| {
                    let of = |j: usize| if i == j { 0.0 } else { dot(rows[i], rows[j]) };
                    (0..rows.len()).map(of).collect()
                })
                .collect()
        };
        let hsic = |k: &[Vec<f64>], l: &[Vec<f64>]| -> f64 {
            let n = k.len() as f64;
            let all = |k: &[Vec<f64>]| k.iter().flatten().sum::<f64>();
            let row = |k: &[Vec<f64>], i: usize| k[i].iter().sum::<f64>();
            let trace: f64 =
                (0..k.len()).map(|i| k[i].iter().zip(&l[i]).map(|(a, b)| a * b).sum::<f64>()).sum();
            let rows: f64 = (0..k.len()).map(|i| row(k, i) * row(l, i)).sum();
            trace + all(k) * all(l) / ((n - 1.0) * (n - 2.0)) - 2.0 / (n - 2.0) * rows
        };
        let (k, l) = (gram(x), gram(y));
        hsic(&k, &l) / (hsic(&k, &k) * hsic(&l, &l)).sqrt()
    }

    #[test]
    fn the_short_way_gives_what_the_matrices_give() {
        let x = noise("x", 9 * 5);
        // Something in common, and a mean that centering has to take off.
        let y: Vec<f32> = x.iter().zip(noise("y", 9 * 5)).map(|(x, y)| 3.0 + x + 0.7 * y).collect();
        let (found, expected) = (cka(&x, &y, 5).unwrap(), by_matrices(&x, &y, 5));
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        assert!(expected > 0.2 && expected < 0.95, "{expected}");
    }

    #[test]
    fn rotation_shift_and_scale_change_nothing() {
        let (x, y) = (noise("x", 60 * 4), noise("y", 60 * 4));
        let y: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        assert!((cka(&x, &x, 4).unwrap() - 1.0).abs() < 1e-12);
        // A turn of axes 0 and 2, axes 1 and 3 swapped and one of them mirrored, 40 times as large, moved.
        let turned = |rows: &[f32]| -> Vec<f32> {
            let (sin, cos) = 0.6_f32.sin_cos();
            let turn = |r: &[f32]| {
                [cos * r[0] - sin * r[2], r[3], sin * r[0] + cos * r[2], -r[1]]
                    .map(|x| 40.0 * x + 7.0)
            };
            rows.chunks(4).flat_map(turn).collect()
        };
        assert!((cka(&x, &turned(&x), 4).unwrap() - 1.0).abs() < 1e-4);
        let (plain, other) = (cka(&x, &y, 4).unwrap(), cka(&turned(&x), &y, 4).unwrap());
        assert!((plain - other).abs() < 1e-4 && plain < 0.9, "{plain} {other}");
        // Axes that are stretched apart are not the same any more.
        let stretched: Vec<f32> =
            x.chunks(4).flat_map(|r| [9.0 * r[0], r[1], r[2], r[3]]).collect();
        assert!(cka(&x, &stretched, 4).unwrap() < 0.9);
    }

    #[test]
    fn noise_has_nothing_in_common_with_noise_however_wide() {
        for (n, width) in [(400, 4), (200, 200), (200, 400)] {
            let found = cka(&noise("x", n * width), &noise("y", n * width), width).unwrap();
            assert!(found.abs() < 0.04, "{found} of {n} rows of {width}");
        }
    }

    #[test]
    fn sides_may_be_of_other_widths_and_need_something_to_tell() {
        let x = noise("x", 30 * 2);
        let padded: Vec<f32> = x.chunks(2).flat_map(|r| [r[0], r[1], 1.0]).collect();
        let (narrow, wide) = (Rows { values: &x, width: 2 }, Rows { values: &padded, width: 3 });
        assert!((linear_cka(narrow, wide, &Device::flex()).unwrap() - 1.0).abs() < 1e-6);
        assert_eq!(cka(&x[..6], &x[..6], 2), None);
        assert_eq!(cka(&x, &[0.1; 60], 2), None);
        assert_eq!(cka(&[0.0; 60], &x, 2), None);
        assert_eq!(cka(&[], &[], 2), None);
    }
}
