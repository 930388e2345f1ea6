//! The nearest center of every frame, by matrix products that leave few centers to be compared.
//!
//! ```text
//! frames [n, width] ─┬─ |c|² - 2 x c, a block at a time ─ centers within rounding of the least ─┐
//! centers [k, width] ┴──────────────────────────────────────────────── |x - c|² of those alone ─┴─> unit, distance
//! ```
//!
//! The product rounds as it likes, so it only says which centers could be nearest. What decides is the sum of squared
//! differences, in the order of centers: the answer has the same bits as if every center had been asked.

use burn::prelude::*;
use rayon::prelude::*;
use sandhi_nn::weights::host;

/// Frames that are multiplied at once.
const BLOCK: usize = 512;
const LANES: usize = 16;

/// The nearest center of each frame, the first of those equally near, and its squared distance.
///
/// # Shapes
///
/// - `frames`: `[n_frames, width]`
/// - `centers`: `[n_clusters, width]`
/// - output: `[n_frames]`
pub(super) fn nearest(frames: &[f32], centers: &[f32], width: usize) -> Vec<(u32, f32)> {
    let device = Device::flex();
    let tensor = |rows: &[f32]| {
        let data = TensorData::new(rows.to_vec(), [rows.len() / width, width]);
        Tensor::<2>::from_data(data, &device)
    };
    let n_clusters = centers.len() / width;
    let squares: Vec<f32> = centers.chunks_exact(width).map(square).collect();
    let largest = squares.iter().copied().fold(0.0, f32::max).sqrt();
    let blocks =
        frames.par_chunks(BLOCK * width).map_with(tensor(centers).transpose(), |turned, block| {
            let products = host(tensor(block).matmul(turned.clone()));
            let rows = products.chunks_exact(n_clusters).zip(block.chunks_exact(width));
            let found = rows.map(|(products, frame)| {
                let slack = slack(width, square(frame).sqrt() + largest);
                let most = least(products, &squares) + slack;
                if !most.is_finite() {
                    return nearest_of(frame, centers.chunks_exact(width).zip(0..));
                }
                let near = products.iter().zip(&squares).zip(0..);
                let near = near.filter(|((product, square), _)| *square - 2.0 * *product <= most);
                let near = near.map(|(_, i)| (&centers[i as usize * width..][..width], i));
                nearest_of(frame, near)
            });
            found.collect::<Vec<_>>()
        });
    blocks.flatten().collect()
}

/// The nearest of these centers.
fn nearest_of<'a>(frame: &[f32], centers: impl Iterator<Item = (&'a [f32], u32)>) -> (u32, f32) {
    let mut best = (0, f32::INFINITY);
    for (center, i) in centers {
        let distance = squared_distance(frame, center);
        if distance < best.1 {
            best = (i, distance);
        }
    }
    best
}

/// How far above the least of `|c|² - 2 x c` that of the nearest center can be, by rounding alone.
///
/// With `u` half an epsilon and `s = |x| + |c|`, a sum of `width` products is off by at most `width u` times the sum of
/// their sizes, whatever its order. So either way to a distance is off by less than `(width + 4) u s²`, their
/// difference by twice that, and a difference of two of those by four times; the rest is for the rounding of `s`.
fn slack(width: usize, s: f32) -> f32 {
    2.2 * (width + 8) as f32 * f32::EPSILON * s * s + f32::MIN_POSITIVE
}

/// In lanes, so that the compiler can keep them apart.
fn square(values: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let (values, rest) = values.as_chunks::<LANES>();
    for values in values {
        for i in 0..LANES {
            sums[i] += values[i] * values[i];
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|value| value * value).sum::<f32>()
}

/// The least of `|c|² - 2 x c`, in lanes as above.
fn least(products: &[f32], squares: &[f32]) -> f32 {
    let mut leasts = [f32::INFINITY; LANES];
    let ((products, products_rest), (squares, squares_rest)) =
        (products.as_chunks::<LANES>(), squares.as_chunks::<LANES>());
    for (product, square) in products.iter().zip(squares) {
        for i in 0..LANES {
            let found = square[i] - 2.0 * product[i];
            leasts[i] = if found < leasts[i] { found } else { leasts[i] };
        }
    }
    let rest =
        products_rest.iter().zip(squares_rest).map(|(product, square)| square - 2.0 * product);
    rest.chain(leasts).fold(f32::INFINITY, f32::min)
}

/// In lanes, as above.
pub(super) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            sums[i] += (a[i] - b[i]) * (a[i] - b[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b)).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sandhi_data::rng::Stream;

    use super::*;

    /// Every center asked.
    fn slow(frames: &[f32], centers: &[f32], width: usize) -> Vec<(u32, f32)> {
        let all = || centers.chunks_exact(width).zip(0..);
        frames.chunks_exact(width).map(|frame| nearest_of(frame, all())).collect()
    }

    fn bits(found: Vec<(u32, f32)>) -> Vec<(u32, u32)> {
        found.into_iter().map(|(unit, distance)| (unit, distance.to_bits())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Far from the origin all distances drown in the squares; a coarse grid has many ties.
        #[test]
        fn the_answer_is_that_of_asking_every_center(
            seed in 0_u64..1_000_000,
            n in 0_usize..40,
            k in 1_usize..40,
            width in 1_usize..70,
            offset in prop_oneof![Just(0.0), Just(100.0), Just(1e4), Just(1e30)],
            steps in prop_oneof![Just(0.0), Just(2.0), Just(1e-3)],
        ) {
            let mut stream = Stream::named(seed, "rows");
            let mut rows = |n: usize| -> Vec<f32> {
                let value = |_| {
                    let value = stream.normal();
                    let value = if steps > 0.0 { (value * steps).round() / steps } else { value };
                    (offset + value) as f32
                };
                (0..n * width).map(value).collect()
            };
            let (frames, mut centers) = (rows(n), rows(k));
            // A center that comes twice is found once.
            centers.extend_from_within(..width);
            prop_assert_eq!(
                bits(nearest(&frames, &centers, width)),
                bits(slow(&frames, &centers, width))
            );
        }
    }

    #[test]
    fn more_frames_than_a_block_and_numbers_that_are_none() {
        let mut stream = Stream::named(3, "rows");
        let mut frames: Vec<f32> =
            (0..(2 * BLOCK + 3) * 5).map(|_| stream.normal() as f32).collect();
        frames[7] = f32::NAN;
        frames[5 * BLOCK] = f32::INFINITY;
        frames[5 * BLOCK + 9] = 3e38;
        let centers: Vec<f32> = (0..33 * 5).map(|_| stream.normal() as f32).collect();
        let found = bits(nearest(&frames, &centers, 5));
        assert_eq!(found.len(), 2 * BLOCK + 3);
        assert_eq!(found, bits(slow(&frames, &centers, 5)));
    }
}
