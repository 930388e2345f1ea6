//! Noises of several colors, and babble.
//!
//! ```text
//! white ─ spectrum × color(f) ─ pink, brown, blue, speech-shaped
//! speech-shaped × six slow random envelopes, summed ─ babble
//! ```

use serde::{Deserialize, Serialize};

use super::{fft, power, scale};
use crate::rng::Stream;

/// A color of noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseKind {
    /// The same power at every frequency.
    White,
    /// Power falls by 3 dB an octave: rain, ventilation.
    Pink,
    /// Power falls by 6 dB an octave: traffic, wind.
    Brown,
    /// Power rises by 3 dB an octave: hiss.
    Blue,
    /// Mains hum at 50 or 60 Hz with its harmonics, over a little white noise.
    Hum,
    /// The long-term spectrum of speech: flat to 500 Hz, then 9 dB an octave down.
    SpeechShaped,
    /// Six speech-shaped noises that come and go like syllables: voices without words.
    Babble,
}

/// Noise of mean power 1.
pub fn noise(
    kind: NoiseKind,
    n_samples: usize,
    sample_rate_hz: u32,
    stream: &mut Stream,
) -> Vec<f32> {
    let mut samples = match kind {
        NoiseKind::White => white(n_samples, stream),
        NoiseKind::Hum => hum(n_samples, f64::from(sample_rate_hz), stream),
        NoiseKind::Babble => babble(n_samples, sample_rate_hz, stream),
        NoiseKind::Pink | NoiseKind::Brown | NoiseKind::Blue | NoiseKind::SpeechShaped => {
            colored(kind, n_samples, sample_rate_hz, stream)
        }
    };
    let power = power(&samples);
    if power > 0.0 {
        scale(&mut samples, 1.0 / power.sqrt());
    }
    samples
}

/// Sums of four uniform numbers, which is normal enough and four times as fast.
fn white(n_samples: usize, stream: &mut Stream) -> Vec<f32> {
    (0..n_samples)
        .map(|_| {
            let bits = stream.next_u64();
            let sum: i64 = (0..4).map(|i| ((bits >> (16 * i)) & 0xffff) as i64).sum();
            // Four uniform 16-bit numbers: mean 2 * 65,535, standard deviation 65,536 / sqrt(3).
            ((sum - 131_070) as f64 * (3_f64.sqrt() / 65_536.0)) as f32
        })
        .collect()
}

fn colored(
    kind: NoiseKind,
    n_samples: usize,
    sample_rate_hz: u32,
    stream: &mut Stream,
) -> Vec<f32> {
    // Made to the length of the transform, so that it has neither padding nor edges.
    let mut samples = white(n_samples.next_power_of_two(), stream);
    fft::filter(&mut samples, 0, sample_rate_hz, |hz| {
        // Below 20 Hz nothing is heard, but much power would lie there.
        let audible = f64::from(u8::from(hz >= 20.0));
        let color = match kind {
            NoiseKind::Pink => (hz.max(20.0)).powf(-0.5),
            NoiseKind::Brown => hz.max(20.0).recip(),
            NoiseKind::Blue => hz.sqrt(),
            _ => (hz / 500.0).max(1.0).powf(-1.5),
        };
        audible * color
    });
    samples.truncate(n_samples);
    samples
}

fn hum(n_samples: usize, rate_hz: f64, stream: &mut Stream) -> Vec<f32> {
    let base_hz = if stream.chance(0.5) { 50.0 } else { 60.0 };
    let tones: Vec<(f64, f64, f64)> = (1..=8)
        .map(|k| {
            let amplitude = stream.between(0.3, 1.0) / f64::from(k);
            (base_hz * f64::from(k), amplitude, stream.uniform())
        })
        .collect();
    let mut samples = white(n_samples, stream);
    for (i, sample) in samples.iter_mut().enumerate() {
        let time_s = i as f64 / rate_hz;
        let tone = |&(hz, amplitude, phase): &(f64, f64, f64)| {
            amplitude * (std::f64::consts::TAU * (hz * time_s + phase)).sin()
        };
        *sample = (f64::from(*sample) * 0.1 + tones.iter().map(tone).sum::<f64>()) as f32;
    }
    samples
}

fn babble(n_samples: usize, sample_rate_hz: u32, stream: &mut Stream) -> Vec<f32> {
    const N_TALKERS: usize = 6;
    // A new loudness every eighth of a second: syllables come four times a second.
    let step = (sample_rate_hz as usize / 8).max(1);
    let mut sum = vec![0.0_f32; n_samples];
    for _ in 0..N_TALKERS {
        let voice = colored(NoiseKind::SpeechShaped, n_samples, sample_rate_hz, stream);
        let knots: Vec<f64> = (0..n_samples / step + 2).map(|_| stream.uniform().powi(2)).collect();
        for (i, (sum, voice)) in sum.iter_mut().zip(voice).enumerate() {
            let (knot, t) = (i / step, (i % step) as f64 / step as f64);
            let envelope = knots[knot] + (knots[knot + 1] - knots[knot]) * t;
            *sum += (envelope * f64::from(voice)) as f32;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::band_limit;

    /// Power of an octave against the octave below, in dB.
    fn slope(kind: NoiseKind, low_hz: f64) -> f64 {
        let samples = noise(kind, 1 << 16, 16_000, &mut Stream::new(5));
        let octave = |low: f64| {
            let mut band = samples.clone();
            band_limit(&mut band, 16_000, low, 2.0 * low);
            power(&band)
        };
        10.0 * (octave(2.0 * low_hz) / octave(low_hz)).log10()
    }

    #[test]
    fn colors_have_their_slopes() {
        // The power in an octave grows by 3 dB an octave for white noise, so 3 - 3, 3 - 6 and so on.
        for (kind, expected) in [
            (NoiseKind::White, 3.0),
            (NoiseKind::Pink, 0.0),
            (NoiseKind::Brown, -3.0),
            (NoiseKind::Blue, 6.0),
            (NoiseKind::SpeechShaped, -6.0),
        ] {
            let found = slope(kind, 1_000.0);
            assert!((found - expected).abs() < 0.8, "{kind:?}: {found} dB, expected {expected}");
        }
    }

    #[test]
    fn noise_has_unit_power_and_repeats_by_stream() {
        for kind in [NoiseKind::White, NoiseKind::Hum, NoiseKind::Babble] {
            let samples = noise(kind, 10_000, 16_000, &mut Stream::new(1));
            assert!((power(&samples) - 1.0).abs() < 1e-3);
            assert_eq!(samples, noise(kind, 10_000, 16_000, &mut Stream::new(1)));
            assert_ne!(samples, noise(kind, 10_000, 16_000, &mut Stream::new(2)));
        }
    }

    #[test]
    fn babble_comes_and_goes() {
        let variation = |kind| {
            let samples = noise(kind, 64_000, 16_000, &mut Stream::new(3));
            let powers: Vec<f64> = samples.chunks(1_000).map(power).collect();
            let mean = powers.iter().sum::<f64>() / powers.len() as f64;
            let variance =
                powers.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / powers.len() as f64;
            variance.sqrt() / mean
        };
        assert!(variation(NoiseKind::Babble) > 1.5 * variation(NoiseKind::SpeechShaped));
    }
}
