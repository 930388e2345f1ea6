//! Costs between two sets of embeddings, and gradients back to them.
//!
//! ```text
//! x [n, d] ─┐                              ┌─> d x [n, d]
//!           ├─ metric ─> C [n, m]   d C ───┤
//! y [m, d] ─┘                              └─> d y [m, d]
//!
//! cosine               1 - x·y / (|x| |y|)        0 where directions agree, 2 where they oppose
//! squared Euclidean    |x - y|²
//! ```
//!
//! One product of matrices a problem and direction; its operations grow with the width of the embeddings, those of the transport do not.
//! Norms are summed in double precision.

use rayon::prelude::*;

use super::{Batch, Error, Side, check_size};

/// A distance between embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// One minus the cosine of the angle.
    Cosine,
    /// The squared distance. In `f32`, distances far below the norms lose their digits.
    SquaredEuclidean,
}

/// `f32` or `f64`.
pub trait Real: Copy + Into<f64> + Send + Sync + PartialOrd + 'static + sealed::Sealed {
    /// The nearest value.
    fn of(value: f64) -> Self;
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as Self
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// Costs of all problems, packed as [`Batch`] says.
///
/// # Shapes
///
/// - `x`: `[n_rows, width]`, rows of all problems
/// - `y`: `[n_columns, width]`, columns of all problems
///
/// # Errors
///
/// When sizes do not fit, a value is not finite, or, for cosines, a row is zero.
pub fn embedding_costs<T: Real>(
    metric: Metric,
    x: &[T],
    y: &[T],
    width: usize,
    batch: &Batch,
) -> Result<Vec<T>, Error> {
    let [x, y] = sides(metric, [x, y], width, batch)?;
    let mut costs = vec![T::of(0.0); batch.totals()[2]];
    split(&mut costs, (0..batch.len()).map(|problem| batch.cells(problem).len()))
        .into_par_iter()
        .enumerate()
        .for_each(|(problem, costs)| {
            let [rows, columns] = [batch.rows(problem), batch.columns(problem)];
            let [n, m] = batch.shape(problem);
            let of_x = &x.rows[rows.start * width..rows.end * width];
            let of_y = &y.rows[columns.start * width..columns.end * width];
            multiply([n, width, m], of_x, [width, 1], of_y, [1, width], costs);
            for (row, &norm) in costs.chunks_exact_mut(m).zip(&x.norms[rows]) {
                for (cost, &other) in row.iter_mut().zip(&y.norms[columns.clone()]) {
                    let dot: f64 = (*cost).into();
                    *cost = T::of(match metric {
                        Metric::Cosine => 1.0 - dot,
                        Metric::SquaredEuclidean => {
                            (norm * norm + other * other - 2.0 * dot).max(0.0)
                        }
                    });
                }
            }
        });
    Ok(costs)
}

/// Gradients with respect to both sets of embeddings, from the gradient with respect to the costs.
///
/// # Shapes
///
/// - `x`, `y`: as for [`embedding_costs`]
/// - `gradient`: packed as the costs are
/// - returns: as `x` and `y`
///
/// # Errors
///
/// As [`embedding_costs`].
pub fn pull_back<T: Real>(
    metric: Metric,
    x: &[T],
    y: &[T],
    width: usize,
    batch: &Batch,
    gradient: &[f64],
) -> Result<[Vec<T>; 2], Error> {
    let [x, y] = sides(metric, [x, y], width, batch)?;
    check_size("the costs' gradient", gradient.len(), batch.totals()[2])?;
    let zero = T::of(0.0);
    let [mut of_x, mut of_y] = [vec![zero; x.rows.len()], vec![zero; y.rows.len()]];
    let sizes = |side: Side| {
        (0..batch.len()).map(move |problem| match side {
            Side::Rows => batch.rows(problem).len() * width,
            Side::Columns => batch.columns(problem).len() * width,
        })
    };
    split(&mut of_x, sizes(Side::Rows))
        .into_par_iter()
        .zip(split(&mut of_y, sizes(Side::Columns)))
        .enumerate()
        .for_each(|(problem, (of_x, of_y))| {
            let [n, m] = batch.shape(problem);
            let [rows, columns] = [batch.rows(problem), batch.columns(problem)];
            let gradient = &gradient[batch.cells(problem)];
            let weights: Vec<T> = gradient.iter().map(|&value| T::of(value)).collect();
            let part_x = &x.rows[rows.start * width..rows.end * width];
            let part_y = &y.rows[columns.start * width..columns.end * width];
            multiply([n, m, width], &weights, [m, 1], part_y, [width, 1], of_x);
            multiply([m, n, width], &weights, [1, m], part_x, [width, 1], of_y);
            let sum_of_row = |i: usize| gradient[i * m..(i + 1) * m].iter().sum::<f64>();
            let sum_of_column = |j: usize| (0..n).map(|i| gradient[i * m + j]).sum::<f64>();
            finish(metric, of_x, part_x, &x.norms[rows], width, &sum_of_row);
            finish(metric, of_y, part_y, &y.norms[columns], width, &sum_of_column);
        });
    Ok([of_x, of_y])
}

/// From `sum_j W_ij y_j` in every row of `of` to the gradient of row `i`.
fn finish<T: Real>(
    metric: Metric,
    of: &mut [T],
    rows: &[T],
    norms: &[f64],
    width: usize,
    sum: &dyn Fn(usize) -> f64,
) {
    for (i, (of, row)) in of.chunks_exact_mut(width).zip(rows.chunks_exact(width)).enumerate() {
        match metric {
            // - (w - (w·x) x) / |x|, x of length 1.
            Metric::Cosine => {
                let along: f64 = of.iter().zip(row).map(|(&w, &x)| w.into() * x.into()).sum();
                for (of, &x) in of.iter_mut().zip(row) {
                    *of = T::of((along * x.into() - (*of).into()) / norms[i]);
                }
            }
            // 2 sum_j W_ij (x_i - y_j)
            Metric::SquaredEuclidean => {
                let weight = sum(i);
                for (of, &x) in of.iter_mut().zip(row) {
                    *of = T::of(2.0 * (weight * x.into() - (*of).into()));
                }
            }
        }
    }
}

/// Adds `weight (p_i - q_j)²` to every cost, where `p` and `q` are the middles of the rows and columns on a line from
/// 0 to 1: what lies far apart in order is dear. With `pad`, the last column of a problem lies nowhere and stays as
/// it is.
///
/// The order-preserving prior of Su and Hua 2017 ("Order-preserving Wasserstein distance for sequence matching"), as
/// one more coordinate.
///
/// # Errors
///
/// [`Error::Size`], or [`Error::Setting`] when the weight is negative or not finite.
pub fn add_order_prior<T: Real>(
    costs: &mut [T],
    batch: &Batch,
    weight: f64,
    pad: bool,
) -> Result<(), Error> {
    check_size("costs", costs.len(), batch.totals()[2])?;
    if !(weight >= 0.0 && weight.is_finite()) {
        let expected = "a finite number, not negative";
        return Err(Error::Setting { name: "the order weight", found: weight, expected });
    }
    for problem in 0..batch.len() {
        let [n, m] = batch.shape(problem);
        let ordered = m - usize::from(pad);
        for (i, row) in costs[batch.cells(problem)].chunks_exact_mut(m).enumerate() {
            for (j, cost) in row[..ordered].iter_mut().enumerate() {
                let apart = (i as f64 + 0.5) / n as f64 - (j as f64 + 0.5) / ordered as f64;
                *cost = T::of((*cost).into() + weight * apart * apart);
            }
        }
    }
    Ok(())
}

/// Embeddings, of length 1 for cosines, and the norms they had.
struct Embeddings<T> {
    rows: Vec<T>,
    norms: Vec<f64>,
}

fn sides<T: Real>(
    metric: Metric,
    given: [&[T]; 2],
    width: usize,
    batch: &Batch,
) -> Result<[Embeddings<T>; 2], Error> {
    if width == 0 {
        let expected = "at least 1";
        return Err(Error::Setting { name: "the embeddings' width", found: 0.0, expected });
    }
    let [n_rows, n_columns, _] = batch.totals();
    let one = |side: Side, values: &[T], n: usize| {
        let what = if side == Side::Rows { "embeddings of rows" } else { "embeddings of columns" };
        check_size(what, values.len(), n.saturating_mul(width))?;
        let mut rows = values.to_vec();
        let mut norms = Vec::with_capacity(n);
        for (row, values) in rows.chunks_exact_mut(width).enumerate() {
            let norm = values.iter().map(|&x| x.into() * x.into()).sum::<f64>().sqrt();
            if !norm.is_finite() {
                return Err(Error::Embedding { side, row });
            }
            if metric == Metric::Cosine {
                if norm < f64::from(f32::MIN_POSITIVE) {
                    return Err(Error::ZeroEmbedding { side, row });
                }
                values.iter_mut().for_each(|x| *x = T::of((*x).into() / norm));
            }
            norms.push(norm);
        }
        Ok(Embeddings { rows, norms })
    };
    Ok([one(Side::Rows, given[0], n_rows)?, one(Side::Columns, given[1], n_columns)?])
}

/// One slice a problem.
fn split<T>(mut values: &mut [T], sizes: impl Iterator<Item = usize>) -> Vec<&mut [T]> {
    let mut parts = vec![];
    for size in sizes {
        let (part, rest) = values.split_at_mut(size);
        parts.push(part);
        values = rest;
    }
    parts
}

/// `target = a b` with `a` `[n, k]` and `b` `[k, m]`, each with the steps from row to row and column to column.
fn multiply<T: Real>(
    [n, k, m]: [usize; 3],
    a: &[T],
    a_steps: [usize; 2],
    b: &[T],
    b_steps: [usize; 2],
    target: &mut [T],
) {
    let fits = |values: &[T], [n, m]: [usize; 2], steps: [usize; 2]| {
        n == 0 || m == 0 || (n - 1) * steps[0] + (m - 1) * steps[1] < values.len()
    };
    assert!(fits(a, [n, k], a_steps) && fits(b, [k, m], b_steps), "a factor is too short");
    assert!(target.len() == n * m, "the product does not fit");
    let [a_row, a_column] = a_steps.map(|step| step as isize);
    let [b_row, b_column] = b_steps.map(|step| step as isize);
    // SAFETY: all three matrices lie within their slices, as asserted above, and the target is borrowed alone.
    unsafe {
        gemm::gemm(
            n,
            m,
            k,
            target.as_mut_ptr(),
            1,
            m as isize,
            false,
            a.as_ptr(),
            a_column,
            a_row,
            b.as_ptr(),
            b_column,
            b_row,
            T::of(0.0),
            T::of(1.0),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tests::numbers;

    const WIDTH: usize = 3;

    fn batch() -> Batch {
        Batch::new(&[0, 4, 6], &[0, 2, 7]).unwrap()
    }

    fn embeddings() -> [Vec<f64>; 2] {
        let centered = |n, seed| numbers(n, seed).iter().map(|x| 2.0 * x - 1.0).collect();
        [centered(6 * WIDTH, 1), centered(7 * WIDTH, 2)]
    }

    #[test]
    fn costs_are_their_formulas() {
        let [x, y] = embeddings();
        let batch = batch();
        for metric in [Metric::Cosine, Metric::SquaredEuclidean] {
            let costs = embedding_costs(metric, &x, &y, WIDTH, &batch).unwrap();
            let narrow = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<_>>();
            let single = embedding_costs(metric, &narrow(&x), &narrow(&y), WIDTH, &batch).unwrap();
            let mut at = 0;
            for problem in 0..batch.len() {
                for i in batch.rows(problem) {
                    for j in batch.columns(problem) {
                        let x = &x[i * WIDTH..][..WIDTH];
                        let y = &y[j * WIDTH..][..WIDTH];
                        let dot = |x: &[f64], y: &[f64]| -> f64 {
                            x.iter().zip(y).map(|(x, y)| x * y).sum()
                        };
                        let expected = match metric {
                            Metric::Cosine => 1.0 - dot(x, y) / (dot(x, x) * dot(y, y)).sqrt(),
                            Metric::SquaredEuclidean => {
                                x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum()
                            }
                        };
                        assert!((costs[at] - expected).abs() < 1e-14);
                        assert!((f64::from(single[at]) - expected).abs() < 1e-6);
                        at += 1;
                    }
                }
            }
            assert_eq!(at, costs.len());
        }
    }

    #[test]
    fn gradients_of_embeddings_are_differences() {
        let [x, y] = embeddings();
        let batch = batch();
        let upstream = numbers(batch.totals()[2], 3);
        for metric in [Metric::Cosine, Metric::SquaredEuclidean] {
            let loss = |x: &[f64], y: &[f64]| -> f64 {
                let costs = embedding_costs(metric, x, y, WIDTH, &batch).unwrap();
                costs.iter().zip(&upstream).map(|(c, g)| c * g).sum()
            };
            let [of_x, of_y] = pull_back(metric, &x, &y, WIDTH, &batch, &upstream).unwrap();
            let check = |side: &[f64], found: &[f64], loss: &dyn Fn(&[f64]) -> f64| {
                for i in 0..side.len() {
                    let at = |step: f64| {
                        let mut side = side.to_vec();
                        side[i] += step;
                        loss(&side)
                    };
                    let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                    let size = slope.abs().max(0.1);
                    assert!(
                        (slope - found[i]).abs() < 1e-6 * size,
                        "{metric:?} {i}: {slope} {}",
                        found[i]
                    );
                }
            };
            check(&x, &of_x, &|x| loss(x, &y));
            check(&y, &of_y, &|y| loss(&x, y));
        }
    }

    #[test]
    fn the_order_prior_grows_away_from_the_diagonal() {
        let batch = Batch::one([4, 3]).unwrap();
        let mut costs = vec![0.0_f64; 12];
        add_order_prior(&mut costs, &batch, 8.0, true).unwrap();
        // Rows at 1/8, 3/8, 5/8, 7/8; columns at 1/4, 3/4 and the pad.
        let eighth = [1.0 / 8.0, 25.0 / 8.0, 0.0, 1.0 / 8.0, 9.0 / 8.0, 0.0];
        for (found, expected) in costs.iter().zip(eighth) {
            assert!((found - expected).abs() < 1e-14, "{costs:?}");
        }
        // Reading both sides backwards changes nothing.
        let mut whole = vec![0.0_f64; 12];
        add_order_prior(&mut whole, &batch, 1.0, false).unwrap();
        for at in 0..12 {
            assert!((whole[at] - whole[11 - at]).abs() < 1e-15);
        }
        assert!(add_order_prior(&mut costs, &batch, f64::NAN, false).is_err());
    }

    #[test]
    fn embeddings_without_direction_are_refused() {
        let batch = Batch::one([2, 1]).unwrap();
        let message = |x: [f32; 4], metric| {
            embedding_costs(metric, &x, &[1.0, 0.0], 2, &batch).unwrap_err().to_string()
        };
        assert_eq!(
            message([1.0, 0.0, 0.0, 0.0], Metric::Cosine),
            "row 1 of the embeddings of the rows is zero, expected a direction"
        );
        assert_eq!(
            message([f32::NAN, 0.0, 0.0, 0.0], Metric::SquaredEuclidean),
            "row 0 of the embeddings of the rows has a value that is not finite"
        );
        assert!(embedding_costs(Metric::Cosine, &[1.0_f32; 3], &[1.0, 0.0], 2, &batch).is_err());
    }
}
