//! A short-time Fourier transform that can be taken back: frames of an odd number of hops, one a hop.
//!
//! ```text
//! hops      |  0  |  1  |  2  |  3  |      overlap 3: beyond the ends there is silence
//! frame 0  [------------]
//! frame 1        [-----------------]       Hann ─ FFT ─ spectrum
//! back      Σ window · frame  /  Σ window²  over the frames that cover a sample
//! ```
//!
//! Taking it back is exact (Griffin and Lim 1984, <https://doi.org/10.1109/TASSP.1984.1164317>, equation 6): what is divided
//! by is the sum of squared windows, which is above 0 everywhere, at the ends too. It goes frame by frame, so that sound of
//! any length is made in the memory of one frame.

use std::sync::Arc;

use realfft::{ComplexToReal, RealFftPlanner, RealToComplex, num_complex::Complex};

use super::{
    Error,
    mel::{LANES, MelBank},
    spectrum::{LogMel, n_bins},
};

/// The least mel energy, before the logarithm: 60 dB and more below speech.
const FLOOR: f32 = 1e-5;

/// Frames of `overlap` hops, `hop` samples apart, centered on their hops.
pub struct Stft {
    hop: usize,
    overlap: usize,
    window: Vec<f32>,
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    log_mel: LogMel<f32>,
}

impl std::fmt::Debug for Stft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut f = f.debug_struct("Stft");
        f.field("hop", &self.hop).field("overlap", &self.overlap).finish_non_exhaustive()
    }
}

impl Stft {
    /// Makes the window, the transforms and the mel filters.
    ///
    /// # Errors
    ///
    /// [`Error::Hops`] and [`Error::Mels`] for sizes that make no sense.
    pub fn new(hop: usize, overlap: usize, n_mels: usize) -> Result<Self, Error> {
        let possible =
            hop > 0 && hop.is_multiple_of(2) && overlap >= 3 && !overlap.is_multiple_of(2);
        let Some(n_fft) = hop.checked_mul(overlap).filter(|_| possible) else {
            return Err(Error::Hops { hop, overlap });
        };
        if !(1..=n_fft / 2).contains(&n_mels) {
            return Err(Error::Mels { found: n_mels, max: n_fft / 2 });
        }
        // Periodic: the period is the window's length, not one less.
        let hann = |i: usize| 0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / n_fft as f64).cos();
        let window: Vec<f32> = (0..n_fft).map(|i| hann(i) as f32).collect();
        let mel = MelBank::slaney(n_mels, n_bins(n_fft), 8_000.0);
        let mut planner = RealFftPlanner::new();
        Ok(Self {
            hop,
            overlap,
            forward: planner.plan_fft_forward(n_fft),
            inverse: planner.plan_fft_inverse(n_fft),
            log_mel: LogMel::new(window.clone(), n_fft, mel, FLOOR),
            window,
        })
    }

    /// Samples of a frame.
    pub fn n_fft(&self) -> usize {
        self.hop * self.overlap
    }

    /// Bins of a frame.
    pub fn n_bins(&self) -> usize {
        n_bins(self.n_fft())
    }

    /// Mel filters.
    pub fn n_mels(&self) -> usize {
        self.log_mel.n_mels()
    }

    /// Natural logarithms of mel energies of 16 kHz samples; a hop that is begun has a frame.
    ///
    /// # Shapes
    ///
    /// - output: `[ceil(n_samples / hop), n_mels]`
    pub fn log_mel(&self, samples: &[f32]) -> Vec<f32> {
        let n_mels = self.n_mels();
        let mut rows = vec![0.0; samples.len().div_ceil(self.hop) * n_mels];
        let mut buffers = self.log_mel.buffers();
        for (block_idx, rows) in rows.chunks_mut(LANES * n_mels).enumerate() {
            self.log_mel.compute(&mut buffers, rows, |i, frame| {
                self.load(samples, block_idx * LANES + i, frame);
            });
        }
        rows
    }

    /// Spectra of samples; a hop that is begun has a frame.
    ///
    /// # Shapes
    ///
    /// - output: `[ceil(n_samples / hop), 2 n_bins]`, real parts before imaginary ones
    pub fn spectra(&self, samples: &[f32]) -> Vec<f32> {
        let (mut frame, mut bins) = (self.forward.make_input_vec(), self.forward.make_output_vec());
        let n_frames = samples.len().div_ceil(self.hop);
        let mut rows = Vec::with_capacity(n_frames * 2 * self.n_bins());
        for frame_idx in 0..n_frames {
            self.load(samples, frame_idx, &mut frame);
            for (x, w) in frame.iter_mut().zip(&self.window) {
                *x *= w;
            }
            self.forward.process(&mut frame, &mut bins).expect("buffers of this transform");
            rows.extend(bins.iter().map(|bin| bin.re));
            rows.extend(bins.iter().map(|bin| bin.im));
        }
        rows
    }

    /// Copies the samples of a frame; there is silence beyond the ends.
    fn load(&self, samples: &[f32], frame_idx: usize, frame: &mut [f32]) {
        let start = (frame_idx * self.hop) as isize - (self.overlap / 2 * self.hop) as isize;
        for (i, x) in frame.iter_mut().enumerate() {
            let at = usize::try_from(start + i as isize).ok();
            *x = at.and_then(|at| samples.get(at)).copied().unwrap_or(0.0);
        }
    }

    /// Begins to make sound of spectra.
    pub fn synthesis(&self) -> Synthesis<'_> {
        let zeros = vec![0.0; self.n_fft()];
        Synthesis {
            stft: self,
            frame: self.inverse.make_output_vec(),
            bins: self.inverse.make_input_vec(),
            sums: zeros.clone(),
            weights: zeros,
            n_early: self.overlap / 2,
        }
    }
}

/// Sound that is made of spectra, frame by frame.
#[derive(Debug)]
pub struct Synthesis<'a> {
    stft: &'a Stft,
    frame: Vec<f32>,
    bins: Vec<Complex<f32>>,
    /// Windowed frames added up, from the first hop that is not finished.
    sums: Vec<f32>,
    /// Squared windows added up.
    weights: Vec<f32>,
    /// Hops before the sound begins that are still in front.
    n_early: usize,
}

impl Synthesis<'_> {
    /// Adds frames, and appends the samples that no later frame will change.
    ///
    /// # Shapes
    ///
    /// - `spectra`: `[n_frames, 2 n_bins]`, as of [`Stft::spectra`]
    ///
    /// # Panics
    ///
    /// When the spectra are no whole rows.
    pub fn push(&mut self, spectra: &[f32], out: &mut Vec<f32>) {
        let n_bins = self.stft.n_bins();
        assert!(spectra.len().is_multiple_of(2 * n_bins), "spectra are {} wide", 2 * n_bins);
        let scale = 1.0 / self.stft.n_fft() as f32;
        for row in spectra.chunks_exact(2 * n_bins) {
            let (re, im) = row.split_at(n_bins);
            for ((bin, &re), &im) in self.bins.iter_mut().zip(re).zip(im) {
                *bin = Complex { re: re * scale, im: im * scale };
            }
            // Of a real signal these are real.
            self.bins[0].im = 0.0;
            self.bins[n_bins - 1].im = 0.0;
            let made = self.stft.inverse.process(&mut self.bins, &mut self.frame);
            made.expect("buffers of this transform");
            let windowed = self.frame.iter().zip(&self.stft.window);
            let places = self.sums.iter_mut().zip(&mut self.weights);
            for ((sum, weight), (x, w)) in places.zip(windowed) {
                *sum += x * w;
                *weight += w * w;
            }
            self.shift(out);
        }
    }

    /// Appends the samples of the last hops, so that there is a hop a frame.
    pub fn finish(mut self, out: &mut Vec<f32>) {
        for _ in 0..self.stft.overlap / 2 {
            self.shift(out);
        }
    }

    /// Appends the first hop, unless it lies before the sound.
    fn shift(&mut self, out: &mut Vec<f32>) {
        let hop = self.stft.hop;
        if self.n_early > 0 {
            self.n_early -= 1;
        } else {
            let places = self.sums[..hop].iter().zip(&self.weights[..hop]);
            // No frame, no sound.
            out.extend(places.map(|(sum, &weight)| if weight > 0.0 { sum / weight } else { 0.0 }));
        }
        for values in [&mut self.sums, &mut self.weights] {
            values.copy_within(hop.., 0);
            let n = values.len();
            values[n - hop..].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn noise(n: usize) -> Vec<f32> {
        let mut stream = Stream::named(1, "noise");
        (0..n).map(|_| 0.3 * stream.normal() as f32).collect()
    }

    #[test]
    fn sound_comes_back_from_its_spectra() {
        for (hop, overlap, n_hops) in [(160, 3, 20), (64, 5, 9), (2, 3, 1), (8, 7, 2), (4, 3, 0)] {
            let stft = Stft::new(hop, overlap, 1).unwrap();
            let samples = noise(hop * n_hops);
            let spectra = stft.spectra(&samples);
            assert_eq!(spectra.len(), n_hops * 2 * stft.n_bins());
            let mut whole = Vec::new();
            let mut synthesis = stft.synthesis();
            synthesis.push(&spectra, &mut whole);
            synthesis.finish(&mut whole);
            assert_eq!(whole.len(), samples.len(), "hop {hop}, overlap {overlap}");
            for (found, expected) in whole.iter().zip(&samples) {
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
            // Frame by frame it is the same to the last bit.
            let (mut parts, mut synthesis) = (Vec::new(), stft.synthesis());
            for row in spectra.chunks(2 * stft.n_bins()) {
                synthesis.push(row, &mut parts);
            }
            synthesis.finish(&mut parts);
            assert_eq!(parts, whole);
        }
    }

    /// The transform of a window's worth of ones is the sum of the window in the first bin: half its length.
    #[test]
    fn a_constant_by_hand() {
        let stft = Stft::new(40, 3, 4).unwrap();
        let spectra = stft.spectra(&[1.0; 120]);
        // The second frame lies inside.
        let row = &spectra[2 * stft.n_bins()..][..2 * stft.n_bins()];
        assert!((row[0] - 60.0).abs() < 1e-3 && (row[1] + 30.0).abs() < 1e-3, "{row:?}");
        assert!(row[2..].iter().all(|x| x.abs() < 1e-3), "{row:?}");
    }

    #[test]
    fn silence_is_the_floor_and_sound_is_where_it_is() {
        let stft = Stft::new(160, 3, 80).unwrap();
        assert!(stft.log_mel(&[0.0; 320]).iter().all(|&x| (x - FLOOR.ln()).abs() < 1e-5));
        assert_eq!(stft.log_mel(&[0.0; 321]).len(), 3 * 80);
        let mut samples = vec![0.0; 1_600];
        // In the middle of the fifth hop.
        samples[4 * 160 + 80] = 1.0;
        let rows = stft.log_mel(&samples);
        let loudness: Vec<f32> = rows.chunks(80).map(|row| row.iter().sum()).collect();
        let loudest = (0..10).max_by(|&a, &b| loudness[a].total_cmp(&loudness[b]));
        assert_eq!(loudest, Some(4), "{loudness:?}");
        assert!((loudness[3] - loudness[5]).abs() < 1e-2 * loudness[3].abs(), "{loudness:?}");
    }

    #[test]
    fn frames_that_cannot_be_taken_back_are_refused() {
        for (hop, overlap) in [(0, 3), (160, 4), (161, 3), (160, 1), (usize::MAX - 1, 3)] {
            let error = Stft::new(hop, overlap, 1).unwrap_err();
            assert!(matches!(error, Error::Hops { .. }), "{error}");
        }
        assert!(matches!(Stft::new(4, 3, 7), Err(Error::Mels { found: 7, max: 6 })));
    }
}
