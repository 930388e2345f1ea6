//! The distance of two sounds in short-time spectra of several resolutions.
//!
//! ```text
//! found ─┐ resolutions of 10, 25 and 50 ms     ‖S - S'‖ / ‖S‖            spectral convergence
//!        ├─ magnitudes S', S ──────────────── ─┤
//! true ──┘                                     mean |log S - log S'|      log magnitude
//! ```
//!
//! Yamamoto et al. 2020 (Parallel WaveGAN, [arXiv 1910.11480](https://arxiv.org/abs/1910.11480), equations 2 to 6), at 16 instead
//! of 24 kHz with windows and hops of about as many milliseconds. What differs: norms and means are those of each utterance, so
//! that no loss depends on a batch, and magnitudes have a floor below which nothing is heard.

use burn::prelude::*;

use super::spectrum::Forward;
use crate::{ops, ragged::Offsets};

/// Points of the transform, samples of the window, samples between frames.
const RESOLUTIONS: [[usize; 3]; N_RESOLUTIONS] = [[256, 160, 40], [512, 400, 80], [1024, 800, 160]];

/// Resolutions that are compared.
pub const N_RESOLUTIONS: usize = 3;

/// The least magnitude. A sine of amplitude 0.1 has 10 in a window of 400.
const FLOOR: f64 = 1e-2;

/// Distances of sounds.
#[derive(Debug, Clone)]
pub struct SpectralLoss {
    resolutions: Vec<Forward>,
}

/// Sums over utterances and resolutions.
#[derive(Debug)]
pub struct SpectralDistance {
    /// Of the norm of the difference over that of the truth.
    pub convergence: Tensor<1>,
    /// Of the mean difference of logarithms of magnitudes.
    pub magnitude: Tensor<1>,
}

impl Default for SpectralLoss {
    fn default() -> Self {
        let of = |[n_fft, window, hop]: [usize; 3]| Forward::new(n_fft, window, hop);
        Self { resolutions: RESOLUTIONS.map(of).into() }
    }
}

impl SpectralLoss {
    /// The distance of `found` from `expected`, which learns nothing.
    ///
    /// # Shapes
    ///
    /// - `found`, `expected`: `[n_samples, 1]`
    /// - `offsets`: `n_samples` rows, no sequence empty
    pub fn forward(
        &self,
        found: &Tensor<2>,
        expected: &Tensor<2>,
        offsets: &Offsets,
    ) -> SpectralDistance {
        assert_eq!(found.dims(), expected.dims(), "as many samples of both");
        let device = found.device();
        let (mut convergence, mut magnitude) =
            (Tensor::<1>::zeros([1], &device), Tensor::<1>::zeros([1], &device));
        for resolution in &self.resolutions {
            let (of_found, frames) = resolution.magnitudes(found.clone(), offsets, FLOOR);
            let (of_expected, _) = resolution.magnitudes(expected.clone(), offsets, FLOOR);
            let difference = of_found.clone() - of_expected.clone();
            // The square root has no slope at 0.
            let off = sums(difference.clone() * difference, &frames, 1.0) + f64::EPSILON;
            let all = sums(of_expected.clone() * of_expected.clone(), &frames, 1.0);
            convergence = convergence + (off / all).sqrt().sum();
            let logarithms = (of_found.log() - of_expected.log()).abs();
            let share = 1.0 / resolution.n_bins() as f32;
            let means = sums(logarithms, &frames, share);
            let counts: Vec<f32> = frames.lengths().iter().map(|&n| 1.0 / n as f32).collect();
            let counts = TensorData::new(counts, [frames.n_sequences(), 1]);
            magnitude = magnitude + (means * Tensor::from_data(counts, &device)).sum();
        }
        SpectralDistance { convergence, magnitude }
    }
}

/// The sum of all cells of each utterance, `[n_utterances, 1]`, times `share`.
fn sums(cells: Tensor<2>, frames: &Offsets, share: f32) -> Tensor<2> {
    let n_rows = frames.n_rows();
    let device = cells.device();
    let rows: Vec<u32> = (0..n_rows as u32).collect();
    let weights = Tensor::from_data(TensorData::new(vec![share; n_rows], [n_rows, 1]), &device);
    ops::pool(cells.sum_dim(1), weights, &rows, frames)
}

/// Multiplications and additions of one utterance of so many samples, in one direction, and values that are kept of it.
pub fn loss_values(n_samples: f64) -> (f64, f64) {
    let (mut operations, mut kept) = (0.0, 0.0);
    for [n_fft, window, hop] in RESOLUTIONS.map(|sizes| sizes.map(|n| n as f64)) {
        let (n_frames, n_bins) = (1.0 + n_samples / hop, n_fft / 2.0 + 1.0);
        operations += 2.0 * n_frames * window * 2.0 * n_bins;
        // Both parts, their squares, the magnitude, its difference and logarithm.
        kept += n_frames * 8.0 * n_bins;
    }
    (operations, kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{random, to_vec};

    fn both(found: Tensor<2>, expected: Tensor<2>, lengths: &[usize]) -> [f32; 2] {
        let loss = SpectralLoss::default();
        let found = loss.forward(&found, &expected, &Offsets::from_lengths(lengths));
        [found.convergence, found.magnitude].map(|sum| to_vec(sum)[0])
    }

    /// Twice the sound: the difference is as large as the sound, and every logarithm is off by ln 2. Silence instead of
    /// it: all of the norm is missing.
    #[test]
    fn twice_the_sound_by_hand() {
        let sound = random([4_000, 1], 1).tensor(&Device::flex()) * 20.0;
        let [convergence, magnitude] = both(sound.clone() * 2.0, sound.clone(), &[4_000]);
        assert!((convergence - 3.0).abs() < 1e-3, "{convergence}");
        assert!((magnitude - 3.0 * 2.0_f32.ln()).abs() < 1e-2, "{magnitude}");
        let [convergence, _] = both(sound.clone() * 0.0, sound.clone(), &[4_000]);
        assert!((convergence - 3.0).abs() < 1e-2, "{convergence}");
        let [convergence, magnitude] = both(sound.clone(), sound, &[4_000]);
        assert!(convergence < 1e-4 && magnitude < 1e-6, "{convergence} {magnitude}");
    }

    #[test]
    fn the_distance_of_two_utterances_is_the_sum_of_theirs() {
        let device = Device::flex();
        let (a, b) = (random([3_000, 1], 1).tensor(&device), random([3_000, 1], 2).tensor(&device));
        let whole = both(a.clone(), b.clone(), &[1_000, 2_000]);
        let part =
            |start, n| both(a.clone().narrow(0, start, n), b.clone().narrow(0, start, n), &[n]);
        let parts = [part(0, 1_000), part(1_000, 2_000)];
        for i in 0..2 {
            assert!((whole[i] - parts[0][i] - parts[1][i]).abs() < 1e-4, "{whole:?} {parts:?}");
        }
    }

    /// A step down the slope makes the distance smaller, from silence too.
    #[test]
    fn the_slope_leads_to_the_sound() {
        let device = Device::flex().autodiff();
        let expected = random([1_200, 1], 1).tensor(&device);
        for scale in [0.0, 0.5] {
            let found = (random([1_200, 1], 2).tensor(&device) * scale).detach().require_grad();
            let loss = SpectralLoss::default();
            let distance = |found: &Tensor<2>| {
                let found = loss.forward(found, &expected, &Offsets::from_lengths(&[1_200]));
                found.convergence + found.magnitude
            };
            let before = distance(&found);
            let slope = found.grad(&before.backward()).expect("it takes part");
            let values = to_vec(slope.clone());
            assert!(values.iter().all(|x| x.is_finite()));
            if scale > 0.0 {
                let norm = values.iter().map(|x| x * x).sum::<f32>().sqrt();
                let after = distance(&(found - Tensor::from_inner(slope) * (0.05 / norm)));
                assert!(to_vec(after)[0] < to_vec(before)[0]);
            }
        }
    }
}
