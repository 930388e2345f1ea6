//! From windowed frames to the logarithm of their mel energies, eight frames at a time.
//!
//! ```text
//! frame 0 ─ window ─ FFT ─ |.|² ─┐
//! ...                            ├─ [n_bins, 8] ─ mel ─ [n_mels, 8] ─ max(., floor) ─ ln ─ rows of the result
//! frame 7 ─ window ─ FFT ─ |.|² ─┘
//! ```

use std::sync::Arc;

use realfft::{FftNum, RealFftPlanner, RealToComplex, num_complex::Complex};

use super::{
    log::ln_in_place,
    mel::{LANES, MelBank},
};

/// What a transform is computed in.
pub(super) trait Real: FftNum {
    /// Rounds to single precision.
    fn single(self) -> f32;
}

impl Real for f32 {
    fn single(self) -> f32 {
        self
    }
}

impl Real for f64 {
    fn single(self) -> f32 {
        self as f32
    }
}

/// A real FFT of fixed length behind a window, in `f32` or `f64`, before a mel bank.
pub(super) struct LogMel<T> {
    fft: Arc<dyn RealToComplex<T>>,
    window: Vec<T>,
    mel: MelBank,
    floor: f32,
}

/// Buffers of one thread; all of them are allocated once.
pub(super) struct Buffers<T> {
    /// `[n_fft]`: one frame, windowed, padded with zeros behind.
    frame: Vec<T>,
    bins: Vec<Complex<T>>,
    scratch: Vec<Complex<T>>,
    /// `[n_fft / 2 + 1, LANES]`.
    power: Vec<[f32; LANES]>,
    /// `[n_mels, LANES]`.
    energy: Vec<[f32; LANES]>,
}

/// Bins of a real transform of length `n_fft`.
pub(super) fn n_bins(n_fft: usize) -> usize {
    n_fft / 2 + 1
}

impl<T: Real> LogMel<T> {
    /// `window` has at most `n_fft` values; the rest of the frame is zeros. Energies below `floor` count as `floor`.
    pub(super) fn new(window: Vec<T>, n_fft: usize, mel: MelBank, floor: f32) -> Self {
        assert!(window.len() <= n_fft, "the window fits into the transform");
        Self { fft: RealFftPlanner::new().plan_fft_forward(n_fft), window, mel, floor }
    }

    pub(super) fn n_mels(&self) -> usize {
        self.mel.n_mels()
    }

    pub(super) fn buffers(&self) -> Buffers<T> {
        Buffers {
            frame: self.fft.make_input_vec(),
            bins: self.fft.make_output_vec(),
            scratch: self.fft.make_scratch_vec(),
            power: vec![[0.0; LANES]; n_bins(self.fft.len())],
            energy: vec![[0.0; LANES]; self.n_mels()],
        }
    }

    /// Computes up to [`LANES`] frames. `load(i, frame)` writes the samples of the `i`-th, `[window.len()]`.
    ///
    /// # Shapes
    ///
    /// - `rows`: `[n_frames, n_mels]`, natural logarithms
    pub(super) fn compute(
        &self,
        buffers: &mut Buffers<T>,
        rows: &mut [f32],
        load: impl Fn(usize, &mut [T]),
    ) {
        let n_mels = self.n_mels();
        let Buffers { frame, bins, scratch, power, energy } = buffers;
        for lane in 0..rows.len() / n_mels {
            let (samples, padding) = frame.split_at_mut(self.window.len());
            load(lane, samples);
            for (x, &w) in samples.iter_mut().zip(&self.window) {
                *x = *x * w;
            }
            // The transform uses its input as scratch.
            padding.fill(T::zero());
            self.fft
                .process_with_scratch(frame, bins, scratch)
                .expect("the buffers were made for this transform");
            for (power, bin) in power.iter_mut().zip(bins.iter()) {
                power[lane] = (bin.re * bin.re + bin.im * bin.im).single();
            }
        }

        // Lanes without a frame hold an earlier block; what comes of them is not read.
        self.mel.apply(power, energy);
        let energy = energy.as_flattened_mut();
        for x in energy.iter_mut() {
            *x = x.max(self.floor);
        }
        ln_in_place(energy);
        for (lane, row) in rows.chunks_exact_mut(n_mels).enumerate() {
            for (value, mel) in row.iter_mut().zip(energy.chunks_exact(LANES)) {
                *value = mel[lane];
            }
        }
    }
}
