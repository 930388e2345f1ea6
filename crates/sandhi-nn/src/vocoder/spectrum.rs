//! Fourier transforms as products with fixed matrices, so that gradients flow through them.
//!
//! ```text
//! spectra of frames b-1, b, b+1 ─ unfold ─ [3 · 2 n_bins] · matrix [3 · 2 n_bins, hop] ─ hop b      overlap 3
//!                                                               / squared windows there are
//! sound ─ unfold ─ [window] · matrix [window, 2 n_bins] ─ real, imaginary ─ magnitudes
//! ```
//!
//! A row of the first matrix is what a bin of a frame adds to the hop: inverse transform, window and overlap-add at once.

use std::{f64::consts::TAU, sync::Arc};

use burn::prelude::*;

use crate::{
    ops,
    ragged::{Offsets, Ragged},
};

/// The width of a spectrum: real and imaginary parts of all bins.
pub fn spectral_width(hop: usize, overlap: usize) -> usize {
    2 * (hop * overlap / 2 + 1)
}

/// Hann's window, whose period is its length.
fn hann(n: usize) -> Vec<f64> {
    (0..n).map(|i| 0.5 - 0.5 * (TAU * i as f64 / n as f64).cos()).collect()
}

/// The sound of spectra: frames of `overlap` hops, centered on their hops.
#[derive(Debug, Clone)]
pub(super) struct Inverse {
    hop: usize,
    overlap: usize,
    /// `[overlap · 2 n_bins, hop]`.
    matrix: Arc<[f32]>,
    /// Squares of the window.
    squares: Arc<[f32]>,
}

impl Inverse {
    pub(super) fn new(hop: usize, overlap: usize) -> Self {
        let n_fft = hop * overlap;
        let n_bins = n_fft / 2 + 1;
        let window = hann(n_fft);
        let mut matrix = Vec::with_capacity(overlap * 2 * n_bins * hop);
        for tap in 0..overlap {
            // The hop's samples within the frame of this tap: the first tap is the frame before, of which the last hop counts.
            let first = (overlap - 1 - tap) * hop;
            for imaginary in [false, true] {
                for bin in 0..n_bins {
                    // All bins but the ends stand for two, a frequency and its negative.
                    let twice = if bin == 0 || 2 * bin == n_fft { 1.0 } else { 2.0 };
                    matrix.extend((first..first + hop).map(|i| {
                        // Whole turns are taken out, so that the angle is exact.
                        let (sin, cos) = (TAU * (bin * i % n_fft) as f64 / n_fft as f64).sin_cos();
                        let wave = if imaginary { -sin } else { cos };
                        (window[i] * twice * wave / n_fft as f64) as f32
                    }));
                }
            }
        }
        let squares: Vec<f32> = window.iter().map(|w| (w * w) as f32).collect();
        Self { hop, overlap, matrix: matrix.into(), squares: squares.into() }
    }

    /// # Shapes
    ///
    /// - `spectra`: `[n_frames, 2 n_bins]`
    /// - output: `[n_frames · hop, 1]`
    pub(super) fn forward(&self, spectra: Tensor<2>, offsets: &Offsets) -> Ragged {
        let [n_frames, width] = spectra.dims();
        assert_eq!(width, spectral_width(self.hop, self.overlap), "spectra of these frames");
        let device = spectra.device();
        let (windows, _) = ops::unfold(spectra, offsets, self.overlap, 1, self.overlap / 2);
        let shape = [self.overlap * width, self.hop];
        let matrix = Tensor::from_data(TensorData::new(self.matrix.to_vec(), shape), &device);
        let sums = ops::linear(windows, matrix, None);
        let shares = TensorData::new(self.shares(offsets), [n_frames, self.hop]);
        let sound = sums * Tensor::from_data(shares, &device);
        let lengths: Vec<usize> = offsets.lengths().into_iter().map(|n| n * self.hop).collect();
        Ragged {
            values: sound.reshape([n_frames * self.hop, 1]),
            offsets: Offsets::from_lengths(&lengths),
        }
    }

    /// One over the squared windows that cover each sample, `[n_frames, hop]`.
    fn shares(&self, offsets: &Offsets) -> Vec<f32> {
        let (hop, half) = (self.hop, self.overlap / 2);
        let mut shares = Vec::with_capacity(offsets.n_rows() * hop);
        for n in offsets.lengths() {
            for at in 0..n {
                let frames = at.saturating_sub(half)..(at + half + 1).min(n);
                shares.extend((0..hop).map(|i| {
                    // In frame `f` this hop is the one at `at + half - f`.
                    let covered = frames.clone().map(|f| self.squares[(at + half - f) * hop + i]);
                    1.0 / covered.sum::<f32>()
                }));
            }
        }
        shares
    }
}

/// Magnitudes of sound at one resolution.
#[derive(Debug, Clone)]
pub(super) struct Forward {
    window: usize,
    hop: usize,
    n_bins: usize,
    /// `[window, 2 n_bins]`.
    matrix: Arc<[f32]>,
}

impl Forward {
    /// A transform of `n_fft` points behind a window of so many samples.
    pub(super) fn new(n_fft: usize, window: usize, hop: usize) -> Self {
        let n_bins = n_fft / 2 + 1;
        let mut matrix = Vec::with_capacity(window * 2 * n_bins);
        for (i, weight) in hann(window).into_iter().enumerate() {
            for imaginary in [false, true] {
                matrix.extend((0..n_bins).map(|bin| {
                    let (sin, cos) = (TAU * (bin * i % n_fft) as f64 / n_fft as f64).sin_cos();
                    (weight * if imaginary { -sin } else { cos }) as f32
                }));
            }
        }
        Self { window, hop, n_bins, matrix: matrix.into() }
    }

    pub(super) fn n_bins(&self) -> usize {
        self.n_bins
    }

    /// Magnitudes, of which `floor` is the least: `sqrt(re² + im² + floor²)`.
    ///
    /// # Shapes
    ///
    /// - `sound`: `[n_samples, 1]`; beyond the ends of an utterance there is silence
    /// - output: `[n_frames, n_bins]`, `1 + n / hop` frames of `n` samples
    pub(super) fn magnitudes(
        &self,
        sound: Tensor<2>,
        offsets: &Offsets,
        floor: f64,
    ) -> (Tensor<2>, Offsets) {
        let device = sound.device();
        let (frames, offsets) = ops::unfold(sound, offsets, self.window, self.hop, self.window / 2);
        let data = TensorData::new(self.matrix.to_vec(), [self.window, 2 * self.n_bins]);
        let spectra = ops::linear(frames, Tensor::from_data(data, &device), None);
        let re = spectra.clone().narrow(1, 0, self.n_bins);
        let im = spectra.narrow(1, self.n_bins, self.n_bins);
        let power = re.clone() * re + im.clone() * im;
        ((power + floor * floor).sqrt(), offsets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{random, to_vec};

    /// A frame of two hops of two samples on either side: a cosine of the second bin comes back as itself, window by window.
    #[test]
    fn a_cosine_by_hand() {
        let device = Device::flex();
        // Six samples a frame, four bins. One hop alone: what the middle of the frame says, divided by the window.
        let inverse = Inverse::new(2, 3);
        let spectrum = vec![0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let spectra = Tensor::<2>::from_data(TensorData::new(spectrum, [1, 8]), &device);
        let sound = to_vec(inverse.forward(spectra, &Offsets::from_lengths(&[1])).values);
        // cos(2π i / 6) at i = 2 and 3, over a window that is 3/4 and 1 there: window · x / window².
        assert!((sound[0] + 0.5 / 0.75).abs() < 1e-6 && (sound[1] + 1.0).abs() < 1e-6, "{sound:?}");
    }

    /// The sum over a window of ones is half its length in the first bin.
    #[test]
    fn magnitudes_by_hand() {
        let device = Device::flex();
        let forward = Forward::new(8, 8, 4);
        let ones = Tensor::<2>::ones([16, 1], &device);
        let (found, offsets) = forward.magnitudes(ones, &Offsets::from_lengths(&[16]), 0.0);
        assert_eq!((found.dims(), offsets.lengths()), ([5, 5], vec![5]));
        let row = &to_vec(found)[2 * 5..3 * 5];
        for (found, expected) in row.iter().zip([4.0, 2.0, 0.0, 0.0, 0.0]) {
            assert!((found - expected).abs() < 1e-5, "{row:?}");
        }
    }

    /// What is made of several utterances is what is made of each.
    #[test]
    fn utterances_do_not_touch() {
        let device = Device::flex();
        let inverse = Inverse::new(4, 5);
        let width = spectral_width(4, 5);
        let spectra = random([9, width], 1).tensor(&device);
        let whole = inverse.forward(spectra.clone(), &Offsets::from_lengths(&[2, 7]));
        assert_eq!(whole.offsets.lengths(), [8, 28]);
        let first = inverse.forward(spectra.clone().narrow(0, 0, 2), &Offsets::from_lengths(&[2]));
        let second = inverse.forward(spectra.narrow(0, 2, 7), &Offsets::from_lengths(&[7]));
        let parts = [to_vec(first.values), to_vec(second.values)].concat();
        assert_eq!(to_vec(whole.values), parts);
    }
}
