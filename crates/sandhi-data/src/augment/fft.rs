//! Filtering and convolution of whole signals by FFT.

use std::cell::RefCell;

use realfft::{RealFftPlanner, num_complex::Complex32};

thread_local! {
    /// Plans are kept, because making one costs more than using it.
    static PLANNER: RefCell<RealFftPlanner<f32>> = RefCell::new(RealFftPlanner::new());
}

/// Multiplies the spectrum by `weight(frequency in Hz)`, which is real, so that nothing is delayed.
/// `padding` zeros keep the end from reaching around to the start.
pub(super) fn filter(
    samples: &mut [f32],
    padding: usize,
    sample_rate_hz: u32,
    weight: impl Fn(f64) -> f64,
) {
    let n = (samples.len() + padding).next_power_of_two();
    let bin_hz = f64::from(sample_rate_hz) / n as f64;
    transform(samples, n, |spectrum| {
        for (i, value) in spectrum.iter_mut().enumerate() {
            *value *= weight(i as f64 * bin_hz) as f32;
        }
    });
}

/// Convolves with `response`; the length stays, what rings on behind it is cut.
pub(super) fn convolve(samples: &mut [f32], response: &[f32]) {
    let n = (samples.len() + response.len()).next_power_of_two();
    let response = spectrum_of(response, n);
    transform(samples, n, |spectrum| {
        for (value, factor) in spectrum.iter_mut().zip(&response) {
            *value *= factor;
        }
    });
}

fn spectrum_of(samples: &[f32], n: usize) -> Vec<Complex32> {
    let plan = PLANNER.with_borrow_mut(|planner| planner.plan_fft_forward(n));
    let mut padded = samples.to_vec();
    padded.resize(n, 0.0);
    let mut spectrum = plan.make_output_vec();
    plan.process(&mut padded, &mut spectrum).expect("the plan made the buffers");
    spectrum
}

/// Forward, change, back, cut; `n` is a power of two not below the length.
fn transform(samples: &mut [f32], n: usize, change: impl FnOnce(&mut [Complex32])) {
    if samples.is_empty() || n < 2 {
        return;
    }
    let mut spectrum = spectrum_of(samples, n);
    change(&mut spectrum);
    // The first and last bins of a real signal are real; rounding may have left a trace.
    spectrum[0].im = 0.0;
    if let Some(last) = spectrum.last_mut() {
        last.im = 0.0;
    }
    let plan = PLANNER.with_borrow_mut(|planner| planner.plan_fft_inverse(n));
    let mut padded = plan.make_output_vec();
    plan.process(&mut spectrum, &mut padded).expect("the plan made the buffers");
    for (sample, value) in samples.iter_mut().zip(padded) {
        *sample = value / n as f32;
    }
}
