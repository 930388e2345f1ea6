//! Products with weights that are held in 16 bits.
//!
//! ```text
//! weight, bf16  ┌──────┬──────┬──────┐      a block of columns becomes f32, is multiplied and forgotten:
//!               │      │ ░░░░ │      │      memory traffic is half of f32's, and nothing is rounded but
//!               └──────┴──────┴──────┘      the weight
//! x ────────────────────► y
//! ```
//!
//! Blocks depend on the weight's shape alone, so that neither threads nor other rows change a result.

use std::cell::Cell;

use burn::tensor::DType;
use burn_flex::FlexTensor;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

use super::matrix::{Target, View, product};

/// Columns of a block at most.
const COLUMNS: usize = 256;

/// A matrix of 16-bit values in someone's memory: element `(i, j)` lies at
/// `start + i * row_stride + j * col_stride`.
#[derive(Clone, Copy)]
pub(crate) struct HalfView<'a> {
    values: Values<'a>,
    n_rows: usize,
    n_cols: usize,
    row_stride: usize,
    col_stride: usize,
    start: usize,
}

#[derive(Clone, Copy)]
enum Values<'a> {
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
}

impl Values<'_> {
    /// Writes `out.len()` values from `start` on.
    fn widen(self, start: usize, out: &mut [f32]) {
        let span = start..start + out.len();
        match self {
            // The upper half of an f32.
            Self::Bf16(values) => {
                for (out, value) in out.iter_mut().zip(&values[span]) {
                    *out = f32::from_bits(u32::from(value.to_bits()) << 16);
                }
            }
            Self::F16(values) => values[span].convert_to_f32_slice(out),
        }
    }
}

thread_local! {
    /// Room for a block, so that memory is not asked for and given back with every product.
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Whether a type has 16 bits.
pub(crate) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::BF16 | DType::F16)
}

impl<'a> HalfView<'a> {
    /// A two-dimensional tensor of 16-bit values, of which rows or columns lie in one piece; none for others.
    pub(crate) fn of(x: &'a FlexTensor) -> Option<Self> {
        let values = match x.dtype() {
            DType::BF16 => Values::Bf16(x.storage::<bf16>()),
            DType::F16 => Values::F16(x.storage::<f16>()),
            _ => return None,
        };
        let (shape, strides) = (x.layout().shape(), x.layout().strides());
        let stride = |i: usize| usize::try_from(strides[i]).ok();
        let (row_stride, col_stride) = (stride(0)?, stride(1)?);
        let start = x.layout().start_offset();
        let (n_rows, n_cols) = (shape[0], shape[1]);
        let whole = col_stride == 1 || row_stride == 1;
        whole.then_some(Self { values, n_rows, n_cols, row_stride, col_stride, start })
    }

    /// Rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self {
            n_rows: self.n_cols,
            n_cols: self.n_rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    fn n_blocks(&self) -> usize {
        self.n_cols.div_ceil(COLUMNS)
    }

    /// Columns of the narrowest block.
    pub(crate) fn narrowest(&self) -> usize {
        self.n_cols / self.n_blocks().max(1)
    }

    /// `a self`, row-major.
    pub(crate) fn left_multiplied(self, a: View<'_>, n_rows: usize) -> Vec<f32> {
        let (k, n) = (self.n_rows, self.n_cols);
        let mut out = vec![0.0; n_rows * n];
        let target = Target::rows(out.as_mut_ptr(), n);
        let n_blocks = self.n_blocks();
        (0..n_blocks).into_par_iter().for_each(|block| {
            let columns = n * block / n_blocks..n * (block + 1) / n_blocks;
            let width = columns.len();
            // Taken out, because this thread may begin another block while it waits for the product.
            let mut scratch = SCRATCH.take();
            scratch.resize(scratch.len().max(k * width), 0.0);
            let values = &mut scratch[..k * width];
            let b = if self.col_stride == 1 {
                for (i, row) in values.chunks_exact_mut(width).enumerate() {
                    self.values.widen(self.start + i * self.row_stride + columns.start, row);
                }
                View::rows(values, 0, k, width, width)
            } else {
                for (j, column) in columns.clone().zip(values.chunks_exact_mut(k.max(1))) {
                    self.values.widen(self.start + j * self.col_stride, column);
                }
                View::rows(values, 0, width, k, k).transposed()
            };
            // SAFETY: the output has `n_rows` rows of `n` initialized values, and every block writes its own columns.
            unsafe { product(target.at(columns.start), a, b, 1.0, false) };
            SCRATCH.set(scratch);
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use crate::ops::{
        embedding, linear,
        testing::{cpu, random, to_vec},
    };

    use super::*;

    const SHAPES: [[usize; 3]; 7] = [
        [1, 3, 2],
        [5, 64, 1],
        [33, 100, 65],
        [1, 700, 300],
        [40, 257, 600],
        [9, 300, 512],
        [0, 3, 4],
    ];

    fn close(found: Vec<f32>, expected: Vec<f32>, what: &str) {
        let size = expected.iter().fold(1.0_f32, |size, v| size.max(v.abs()));
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() <= 1e-6 * size, "{what}: {a} and {b}");
        }
    }

    #[test]
    fn products_are_those_with_the_rounded_weight() {
        for dtype in [DType::BF16, DType::F16] {
            for [n_rows, d_in, d_out] in SHAPES {
                for turned in [false, true] {
                    let device = cpu().autodiff();
                    let shape = if turned { [d_out, d_in] } else { [d_in, d_out] };
                    let held = random(shape, 2).tensor(&device).cast(dtype);
                    let rounded = held.clone().cast(DType::F32);
                    let bias = random([1, d_out], 4).tensor(&device).reshape([d_out]);
                    let weights = random([n_rows, d_out], 3).tensor(&device);
                    let run = |weight: Tensor<2>| {
                        let weight = if turned { weight.transpose() } else { weight };
                        let x = random([n_rows, d_in], 1).tensor(&device).require_grad();
                        let y = linear(x.clone(), weight.clone(), Some(bias.clone()));
                        let plain = linear(x.clone(), weight, None);
                        let gradients = ((y.clone() + plain) * weights.clone()).sum().backward();
                        (to_vec(y.inner()), to_vec(x.grad(&gradients).expect("it is a leaf")))
                    };
                    let what = format!("{dtype:?} [{n_rows}, {d_in}, {d_out}] turned {turned}");
                    let (found, expected) = (run(held), run(rounded));
                    close(found.0, expected.0, &what);
                    close(found.1, expected.1, &format!("gradient of {what}"));
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_know_its_batch() {
        for (d_in, d_out) in [(65, 8), (600, 65), (300, 257), (2432, 300)] {
            for turned in [false, true] {
                let shape = if turned { [d_out, d_in] } else { [d_in, d_out] };
                let weight = random(shape, 2).tensor(&cpu()).cast(DType::BF16);
                let weight = if turned { weight.transpose() } else { weight };
                let x = random([140, d_in], 1);
                let run = |rows: std::ops::Range<usize>| -> Vec<u32> {
                    let y = linear(x.rows(rows).tensor(&cpu()), weight.clone(), None);
                    to_vec(y).into_iter().map(f32::to_bits).collect()
                };
                let whole = run(0..140);
                for piece in [1, 2, 7, 33] {
                    for start in (0..140).step_by(piece) {
                        let end = (start + piece).min(140);
                        assert!(
                            run(start..end) == whole[start * d_out..end * d_out],
                            "{d_in} {d_out}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn rows_of_a_table_come_out_wide() {
        let table = random([5, 3], 1).tensor(&cpu()).cast(DType::BF16);
        let rows = embedding(table.clone(), &[4, 0, 4]);
        assert_eq!(rows.dtype(), DType::F32);
        let expected = to_vec(embedding(table.cast(DType::F32), &[4, 0, 4]));
        assert_eq!(to_vec(rows), expected);
    }

    #[test]
    #[should_panic(expected = "held in 16 bits is frozen")]
    fn training_what_is_held_in_16_bits_is_refused() {
        let weight = random([3, 2], 1).tensor(&cpu()).cast(DType::F16).autodiff().require_grad();
        let _ = linear(random([1, 3], 2).tensor(&cpu()), weight, None);
    }
}
