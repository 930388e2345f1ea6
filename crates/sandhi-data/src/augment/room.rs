//! Reverberation by a room's impulse response.
//!
//! ```text
//! |                 direct sound, at time 0: words stay where they were
//! |    | ||
//! |    |||||||||||  diffuse tail, 60 dB down after the reverberation time
//! 0   5-15 ms
//! ```

use super::{fft, power, scale};
use crate::rng::Stream;

/// A synthetic impulse response: the direct sound, then noise that decays exponentially.
///
/// - `rt60_s`: the time until the tail has lost 60 dB; also the length of the response.
/// - `direct_db`: power of the direct sound over the power of the tail.
pub fn room_response(
    sample_rate_hz: u32,
    rt60_s: f64,
    direct_db: f64,
    stream: &mut Stream,
) -> Vec<f32> {
    let rate = f64::from(sample_rate_hz);
    let n = ((rt60_s.clamp(0.0, 10.0) * rate) as usize).max(1);
    let first = (stream.between(0.005, 0.015) * rate) as usize;
    // Amplitude e^(-decay t) has lost 60 dB, a factor of 1,000, at the reverberation time.
    let decay = 1_000_f64.ln() / n as f64;
    let mut response: Vec<f32> = (0..n)
        .map(|i| {
            if i < first.max(1) {
                return 0.0;
            }
            (stream.normal() * (-decay * i as f64).exp()) as f32
        })
        .collect();
    let tail: f64 = power(&response) * n as f64;
    if tail > 0.0 {
        scale(&mut response, (10_f64.powf(-direct_db / 10.0) / tail).sqrt());
    }
    response[0] = 1.0;
    response
}

/// Convolves with an impulse response and restores the power. The length stays: what rings on behind the
/// end is cut.
pub fn reverberate(samples: &mut [f32], response: &[f32]) {
    let before = power(samples);
    if response.is_empty() || before == 0.0 {
        return;
    }
    fft::convolve(samples, response);
    let after = power(samples);
    if after > 0.0 {
        scale(samples, (before / after).sqrt());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_decays_by_60_db() {
        let response = room_response(16_000, 0.5, 0.0, &mut Stream::new(1));
        assert_eq!(response.len(), 8_000);
        assert_eq!(response[0], 1.0);
        // Between 10 % and 90 % of the reverberation time lie 80 % of 60 dB.
        let at = |share: f64| power(&response[(share * 8_000.0) as usize - 400..][..800]);
        let lost = 10.0 * (at(0.1) / at(0.9)).log10();
        assert!((lost - 48.0).abs() < 2.0, "{lost} dB");
    }

    #[test]
    fn direct_sound_has_its_share() {
        let response = room_response(16_000, 0.4, 6.0, &mut Stream::new(2));
        let tail = power(&response[1..]) * (response.len() - 1) as f64;
        assert!((10.0 * (1.0 / tail).log10() - 6.0).abs() < 0.01);
    }

    #[test]
    fn convolution_equals_its_definition() {
        let mut stream = Stream::new(3);
        let samples: Vec<f32> = (0..50).map(|_| stream.normal() as f32).collect();
        let response = [1.0_f32, 0.0, -0.5, 0.25];
        let mut expected: Vec<f32> = (0..50)
            .map(|i| (0..4).filter(|&k| k <= i).map(|k| response[k] * samples[i - k]).sum())
            .collect();
        let factor = (power(&samples) / power(&expected)).sqrt();
        scale(&mut expected, factor);
        let mut found = samples.clone();
        reverberate(&mut found, &response);
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}
