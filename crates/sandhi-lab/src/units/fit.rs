//! Centers of clusters from frames: k-means++ and Lloyd's iterations.
//!
//! ```text
//! frames ─ k-means++ ─ centers ─┬─> assign every frame ─ mean of each cluster ─┐
//!                               └────────────── until no frame moves ──────────┘
//! ```
//!
//! Arthur and Vassilvitskii 2007, "k-means++"; Lloyd 1982. Sums are in double precision and in the order of frames, so
//! that a seed gives the same centers on any number of threads.

use rayon::prelude::*;
use sandhi_data::rng::Stream;
use serde::{Deserialize, Serialize};

use super::{Kmeans, nearest::squared_distance};

/// How centers are found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitConfig {
    /// Clusters.
    pub n_clusters: usize,
    /// Lloyd's iterations at most; fewer where no frame moves any more.
    pub iterations: usize,
    /// What the first centers are drawn with.
    pub seed: u64,
}

/// Why there are no centers.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FitError {
    /// Nothing is asked for, or frames have no width.
    #[error("found {n_clusters} clusters of frames of width {width}, expected at least 1 of both")]
    Nothing {
        /// Clusters asked for.
        n_clusters: usize,
        /// Width of the frames.
        width: usize,
    },
    /// The values are not whole frames.
    #[error("{n_values} values are not whole frames of width {width}")]
    Shape {
        /// Values given.
        n_values: usize,
        /// Width of the frames.
        width: usize,
    },
    /// A value is NaN or infinite.
    #[error("frame {frame} has {found}, expected finite numbers")]
    NotFinite {
        /// Which.
        frame: usize,
        /// Its value.
        found: f32,
    },
    /// There are not as many different frames as clusters.
    #[error(
        "found {n_distinct} different frames among {n_frames}, expected at least one for each of {n_clusters} clusters"
    )]
    TooFew {
        /// Frames that differ.
        n_distinct: usize,
        /// Frames given.
        n_frames: usize,
        /// Clusters asked for.
        n_clusters: usize,
    },
}

/// What an iteration has reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Iteration {
    /// Counted from 1.
    pub number: usize,
    /// Mean squared distance of the frames from the centers that they were given to.
    pub mean_square: f64,
    /// Frames that changed their center.
    pub n_moved: usize,
}

impl Kmeans {
    /// Centers of these frames, `[n_frames, width]`. A cluster that loses all its frames goes to the frame that is
    /// farthest from its own center.
    ///
    /// # Errors
    ///
    /// See [`FitError`].
    pub fn fit(
        frames: &[f32],
        width: usize,
        config: &FitConfig,
        progress: &mut dyn FnMut(Iteration),
    ) -> Result<Self, FitError> {
        check(frames, width, config.n_clusters)?;
        let mut kmeans = seed(frames, width, config.n_clusters, config.seed)?;
        let mut units: Vec<u32> = vec![u32::MAX; frames.len() / width];
        for number in 1..=config.iterations {
            let found = kmeans.nearest(frames);
            let n_moved =
                found.iter().zip(&units).filter(|((unit, _), before)| unit != *before).count();
            let sum: f64 = found.iter().map(|(_, distance)| f64::from(*distance)).sum();
            progress(Iteration { number, mean_square: sum / found.len() as f64, n_moved });
            if n_moved == 0 {
                break;
            }
            units = found.iter().map(|(unit, _)| *unit).collect();
            kmeans.centers = means(frames, width, &kmeans.centers, &found);
        }
        Ok(kmeans)
    }
}

/// Whether centers can be found of these frames.
pub(super) fn check(frames: &[f32], width: usize, n_clusters: usize) -> Result<(), FitError> {
    if n_clusters == 0 || width == 0 {
        return Err(FitError::Nothing { n_clusters, width });
    }
    if !frames.len().is_multiple_of(width) {
        return Err(FitError::Shape { n_values: frames.len(), width });
    }
    match frames.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(FitError::NotFinite { frame: at / width, found: frames[at] }),
        None => Ok(()),
    }
}

/// The first centers: each is a frame, drawn by its squared distance from the centers before it.
pub(super) fn seed(
    frames: &[f32],
    width: usize,
    n_clusters: usize,
    seed: u64,
) -> Result<Kmeans, FitError> {
    let n_frames = frames.len() / width;
    let few = |n_distinct| FitError::TooFew { n_distinct, n_frames, n_clusters };
    if n_frames == 0 {
        return Err(few(0));
    }
    let mut stream = Stream::named(seed, "k-means++");
    let mut next = stream.below(n_frames);
    let mut distances = vec![f32::INFINITY; n_frames];
    let mut centers = Vec::with_capacity(n_clusters * width);
    loop {
        let center = &frames[next * width..][..width];
        centers.extend_from_slice(center);
        if centers.len() == n_clusters * width {
            return Ok(Kmeans { centers, width });
        }
        let pairs = distances.par_iter_mut().zip(frames.par_chunks_exact(width));
        pairs.for_each(|(least, frame)| *least = least.min(squared_distance(frame, center)));
        let total: f64 = distances.iter().map(|&distance| f64::from(distance)).sum();
        if total == 0.0 {
            return Err(few(centers.len() / width));
        }
        let mut left = stream.uniform() * total;
        // Rounding may leave something behind the last one: then it is the last that is not a center.
        let far = |&at: &usize| distances[at] > 0.0;
        next = (0..n_frames)
            .find(|at| {
                left -= f64::from(distances[*at]);
                left < 0.0 && far(at)
            })
            .or_else(|| (0..n_frames).rev().find(far))
            .expect("the total is above 0");
    }
}

/// The mean of each cluster's frames.
fn means(frames: &[f32], width: usize, before: &[f32], found: &[(u32, f32)]) -> Vec<f32> {
    let n_clusters = before.len() / width;
    let mut sums = vec![0.0_f64; before.len()];
    let mut counts = vec![0_usize; n_clusters];
    for (frame, (unit, _)) in frames.chunks_exact(width).zip(found) {
        let unit = *unit as usize;
        counts[unit] += 1;
        for (sum, &value) in sums[unit * width..][..width].iter_mut().zip(frame) {
            *sum += f64::from(value);
        }
    }
    // The farthest frames first, for clusters that are empty.
    let n_empty = counts.iter().filter(|count| **count == 0).count();
    let mut far: Vec<usize> = Vec::new();
    if n_empty > 0 {
        far = (0..found.len()).collect();
        far.sort_by(|&a, &b| found[b].1.total_cmp(&found[a].1).then(a.cmp(&b)));
    }
    let mut far = far.into_iter();
    let mut centers = Vec::with_capacity(before.len());
    for (unit, sums) in sums.chunks_exact(width).enumerate() {
        match counts[unit] {
            0 => {
                let at = far.next().expect("at least as many frames as clusters");
                centers.extend_from_slice(&frames[at * width..][..width]);
            }
            n => centers.extend(sums.iter().map(|sum| (sum / n as f64) as f32)),
        }
    }
    centers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(n_clusters: usize) -> FitConfig {
        FitConfig { n_clusters, iterations: 100, seed: 1 }
    }

    /// Clouds around corners far from one another.
    fn clouds(n: usize) -> Vec<f32> {
        let mut stream = Stream::named(7, "clouds");
        let corners = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]];
        let point = |i: usize| corners[i % 4].map(|c: f64| (c + 0.3 * stream.normal()) as f32);
        (0..n).flat_map(point).collect()
    }

    #[test]
    fn clouds_are_found_whatever_the_seed() {
        let frames = clouds(400);
        for seed in 0..8 {
            let mut last = f64::INFINITY;
            let kmeans = Kmeans::fit(&frames, 2, &FitConfig { seed, ..config(4) }, &mut |i| {
                assert!(i.mean_square <= last, "the distance never grows");
                last = i.mean_square;
            })
            .unwrap();
            // Two coordinates of variance 0.09.
            assert!(last < 0.25, "seed {seed}: {last}");
            let units = kmeans.assign(&frames);
            assert!((4..400).all(|i| units[i] == units[i % 4]), "seed {seed}");
        }
    }

    #[test]
    fn centers_by_hand() {
        // Of 0, 1 and 9, 10 on a line the clusters are the pairs, with centers 0.5 and 9.5.
        let kmeans = Kmeans::fit(&[0.0, 1.0, 9.0, 10.0], 1, &config(2), &mut |_| ()).unwrap();
        let mut centers = kmeans.centers.clone();
        centers.sort_by(f32::total_cmp);
        assert_eq!(centers, [0.5, 9.5]);
        // As many clusters as frames: each is its own center.
        let kmeans = Kmeans::fit(&[3.0, 1.0, 2.0], 1, &config(3), &mut |_| ()).unwrap();
        let mut units = kmeans.assign(&[3.0, 1.0, 2.0]);
        units.sort_unstable();
        assert_eq!(units, [0, 1, 2]);
        // A cluster without frames goes to the farthest frame, 10.
        let found = [(0, 1.0), (0, 0.0), (0, 64.0)];
        assert_eq!(means(&[0.0, 1.0, 10.0], 1, &[1.0, 99.0], &found), [11.0 / 3.0, 10.0]);
    }

    #[test]
    fn a_seed_gives_the_same_centers_on_any_number_of_threads() {
        let frames = clouds(1000);
        let fit = |n_threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| Kmeans::fit(&frames, 2, &config(17), &mut |_| ()).unwrap())
        };
        assert_eq!(fit(1), fit(3));
        let other = FitConfig { seed: 2, ..config(17) };
        assert_ne!(fit(1), Kmeans::fit(&frames, 2, &other, &mut |_| ()).unwrap());
    }

    #[test]
    fn what_has_no_clusters_is_said() {
        let fit = |frames: &[f32], width, n| {
            Kmeans::fit(frames, width, &config(n), &mut |_| ()).unwrap_err().to_string()
        };
        assert!(fit(&[1.0, 1.0, 1.0], 1, 2).contains("found 1 different frames among 3"));
        assert!(fit(&[], 1, 2).contains("found 0 different frames"));
        assert!(fit(&[1.0], 1, 0).contains("0 clusters"));
        assert!(fit(&[1.0, 2.0, 3.0], 2, 1).contains("3 values"));
        assert!(fit(&[1.0, f32::NAN], 1, 1).contains("frame 1 has NaN"));
    }
}
