//! The largest value of every column over spans of rows.
//!
//! ```text
//! x       x0 x1 x2 | x3 | x4 x5        spans 0..3, 3..4
//! output  max(x0, x1, x2)   x3         rows in no span, x4 and x5, are looked at by nobody
//! ```

use std::{ops::Range, sync::Arc};

use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use super::{
    blocks::{for_each_block, rows_per_block},
    bridge::{Kernel, apply1, dense, dims2, is_fused, tensor, values},
    index_tensor,
};

/// `y[i] = max over rows r of spans[i] of x[r]`, column by column. The gradient goes to the first row that is as large.
///
/// # Shapes
///
/// - `x`: `[n_rows, width]`
/// - output: `[spans.len(), width]`
///
/// # Panics
///
/// When a span is empty, leaves the rows, or shares one with another.
pub fn max_pool(x: Tensor<2>, spans: &[Range<usize>]) -> Tensor<2> {
    let [n_rows, width] = x.dims();
    for span in spans {
        assert!(
            span.start < span.end && span.end <= n_rows,
            "{span:?} is no span of {n_rows} rows"
        );
    }
    let mut sorted: Vec<&Range<usize>> = spans.iter().collect();
    sorted.sort_by_key(|span| span.start);
    assert!(sorted.windows(2).all(|pair| pair[0].end <= pair[1].start), "spans share rows");
    if spans.is_empty() || width == 0 {
        return Tensor::zeros([spans.len(), width], (&x.device(), x.dtype()));
    }
    if is_fused(&x) { apply1(x, MaxPool { spans: spans.into() }) } else { composed(x, spans) }
}

/// Spans are made equally long by their last rows, again and again.
fn composed(x: Tensor<2>, spans: &[Range<usize>]) -> Tensor<2> {
    let [_, width] = x.dims();
    let longest = spans.iter().map(Range::len).max().unwrap_or(0);
    let rows =
        spans.iter().flat_map(|span| (0..longest).map(move |i| (span.start + i).min(span.end - 1)));
    let rows = index_tensor(rows, &x.device());
    let gathered = x.select(0, rows).reshape([spans.len(), longest, width]);
    gathered.max_dim(1).reshape([spans.len(), width])
}

#[derive(Debug, Clone)]
struct MaxPool {
    spans: Arc<[Range<usize>]>,
}

/// The rows that were largest, `[n_spans, width]`, and how many rows there were.
type Largest = (Arc<[u32]>, usize);

impl MaxPool {
    fn largest(&self, x: &FlexTensor) -> Vec<u32> {
        let [_, width] = dims2(x);
        let from = values(x);
        let mut largest = vec![0_u32; self.spans.len() * width];
        let block = rows_per_block(width);
        for_each_block(&mut largest, block * width, |block_idx, largest| {
            for (i, largest) in largest.chunks_exact_mut(width).enumerate() {
                let span = self.spans[block_idx * block + i].clone();
                largest.fill(span.start as u32);
                for row in span.skip(1) {
                    for (column, largest) in largest.iter_mut().enumerate() {
                        let value = from[row * width + column];
                        if value > from[*largest as usize * width + column] {
                            *largest = row as u32;
                        }
                    }
                }
            }
        });
        largest
    }
}

impl Kernel<1> for MaxPool {
    type Saved = Largest;

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, Largest) {
        let x = dense(x);
        let [n_rows, width] = dims2(&x);
        let largest = self.largest(&x);
        let from = values(&x);
        let pick = |(i, &row): (usize, &u32)| from[row as usize * width + i % width];
        let out = largest.iter().enumerate().map(pick).collect();
        (tensor(out, [self.spans.len(), width]), (largest.into(), n_rows))
    }

    /// No two spans share a row, so that every entry gets at most one slope.
    fn backward(
        &self,
        (largest, n_rows): Largest,
        gradient: FlexTensor,
        [wanted]: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        if !wanted {
            return [None];
        }
        let gradient = dense(gradient);
        let [_, width] = dims2(&gradient);
        let mut out = vec![0.0; n_rows * width];
        for (i, (&row, &slope)) in largest.iter().zip(values(&gradient)).enumerate() {
            out[row as usize * width + i % width] = slope;
        }
        [Some(tensor(out, [n_rows, width]))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, cpu, random, to_vec};

    #[test]
    fn the_largest_of_every_column_by_hand() {
        let x = [[1.0, 5.0], [3.0, 4.0], [2.0, 6.0], [-1.0, -2.0], [9.0, 9.0]];
        let x = Tensor::<2>::from_floats(x, &cpu());
        assert_eq!(to_vec(max_pool(x.clone(), &[0..3, 3..4])), [3.0, 6.0, -1.0, -2.0]);
        // In any order; of nothing there is nothing.
        assert_eq!(to_vec(max_pool(x.clone(), &[3..5, 0..2])), [9.0, 9.0, 3.0, 5.0]);
        assert_eq!(max_pool(x, &[]).dims(), [0, 2]);
    }

    #[test]
    fn of_equal_rows_the_first_learns() {
        let x = [[1.0], [2.0], [2.0], [0.0]];
        let x = Tensor::<2>::from_floats(x, &cpu().autodiff()).require_grad();
        let slopes = max_pool(x.clone(), &[0..3, 3..4]).sum().backward();
        assert_eq!(to_vec(x.grad(&slopes).unwrap()), [0.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn fused_equals_composed() {
        let many: Vec<Range<usize>> = (0..130).map(|i| 3 * i..3 * i + 1 + i % 3).collect();
        let cases = [
            (2, 3, vec![0..1, 1..2]),
            (7, 4, vec![1..3, 3..7]),
            (400, 70, many),
            (3, 2, vec![2..3, 0..2]),
        ];
        for (n_rows, width, spans) in cases {
            Case::new()
                .input(random([n_rows, width], 1))
                .check(|t| max_pool(t.rows(0), &spans), |t| composed(t.rows(0), &spans));
        }
    }

    #[test]
    fn gradients_match_differences() {
        let case = Case::new().input(random([6, 3], 1));
        case.check_differences(|t| max_pool(t.rows(0), &[0..2, 2..3, 4..6]));
    }

    #[test]
    #[should_panic(expected = "spans share rows")]
    fn spans_that_overlap_are_refused() {
        max_pool(Tensor::zeros([4, 2], &cpu()), &[1..3, 2..4]);
    }

    #[test]
    #[should_panic(expected = "3..5 is no span of 4 rows")]
    fn a_span_beyond_the_rows_is_refused() {
        max_pool(Tensor::zeros([4, 2], &cpu()), &[0..1, 3..5]);
    }
}
