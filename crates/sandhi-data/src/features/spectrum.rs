//! The power spectrum of one windowed frame, with the buffers that it needs.

use std::sync::Arc;

use realfft::{FftNum, RealFftPlanner, RealToComplex, num_complex::Complex};

/// A real FFT of fixed length behind a window, in `f32` or `f64`.
pub(super) struct Spectrum<T> {
    fft: Arc<dyn RealToComplex<T>>,
    window: Vec<T>,
}

/// Buffers of one transform; all of them are allocated once.
pub(super) struct Buffers<T> {
    /// `[n_fft]`: the frame, windowed, padded with zeros behind.
    pub(super) frame: Vec<T>,
    bins: Vec<Complex<T>>,
    scratch: Vec<Complex<T>>,
    /// `[n_fft / 2 + 1]`.
    pub(super) power: Vec<f32>,
}

impl<T: FftNum + Into<f64>> Spectrum<T> {
    /// `window` has at most `n_fft` values; the rest of the frame is zeros.
    pub(super) fn new(window: Vec<T>, n_fft: usize) -> Self {
        assert!(window.len() <= n_fft, "the window fits into the transform");
        Self { fft: RealFftPlanner::new().plan_fft_forward(n_fft), window }
    }

    pub(super) fn n_bins(&self) -> usize {
        self.fft.len() / 2 + 1
    }

    pub(super) fn buffers(&self) -> Buffers<T> {
        Buffers {
            frame: self.fft.make_input_vec(),
            bins: self.fft.make_output_vec(),
            scratch: self.fft.make_scratch_vec(),
            power: vec![0.0; self.n_bins()],
        }
    }

    /// Windows `buffers.frame[..window.len()]` and fills `buffers.power`.
    pub(super) fn power(&self, buffers: &mut Buffers<T>) {
        let (frame, padding) = buffers.frame.split_at_mut(self.window.len());
        for (x, &w) in frame.iter_mut().zip(&self.window) {
            *x = *x * w;
        }
        // The transform uses its input as scratch.
        padding.fill(T::zero());
        self.fft
            .process_with_scratch(&mut buffers.frame, &mut buffers.bins, &mut buffers.scratch)
            .expect("the buffers were made for this transform");
        for (power, bin) in buffers.power.iter_mut().zip(&buffers.bins) {
            let square: f64 = (bin.re * bin.re + bin.im * bin.im).into();
            *power = square as f32;
        }
    }
}
