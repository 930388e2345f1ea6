//! Changes to sound and features that a recognizer should not mind.
//!
//! ```text
//! samples ─ speed ─ reverberation ─ noise ─ band limit ─ μ-law ─ gain ─ features ─ masks
//! ```
//!
//! Plain functions on slices. Times of words stay what they were, except under [`speed_perturb`], which
//! divides them by its factor. Randomness comes from a [`Stream`]: the same stream gives the same samples.

mod fft;
mod noise;
mod room;
mod spec;

use crate::{audio::Resampler, rng::Stream};

pub use self::{
    noise::{NoiseKind, noise},
    room::{reverberate, room_response},
    spec::{SpecAugmentConfig, spec_augment},
};

/// Mean of the squares; 0 for an empty slice.
pub fn power(samples: &[f32]) -> f64 {
    let sum: f64 = samples.iter().map(|&s| f64::from(s) * f64::from(s)).sum();
    sum / samples.len().max(1) as f64
}

/// Multiplies all samples by `10^(gain_db / 20)`.
pub fn gain(samples: &mut [f32], gain_db: f64) {
    scale(samples, 10_f64.powf(gain_db / 20.0));
}

/// Turns down what would be clipped, to a peak of 0.99; says whether it did.
pub fn limit(samples: &mut [f32]) -> bool {
    const PEAK: f32 = 0.99;
    let peak = samples.iter().fold(0.0_f32, |peak, s| peak.max(s.abs()));
    if peak > PEAK {
        for sample in samples {
            *sample *= PEAK / peak;
        }
    }
    peak > PEAK
}

fn scale(samples: &mut [f32], factor: f64) {
    for sample in samples {
        *sample = (f64::from(*sample) * factor) as f32;
    }
}

/// Adds noise so that the mean power of the samples as given, pauses included, lies `snr_db` above the
/// mean power of what is added. Silence stays silent.
pub fn add_noise(
    samples: &mut [f32],
    sample_rate_hz: u32,
    snr_db: f64,
    kind: NoiseKind,
    stream: &mut Stream,
) {
    let noise = noise(kind, samples.len(), sample_rate_hz, stream);
    mix(samples, &noise, snr_db);
}

/// Adds another sound, repeated or cut to the length, `snr_db` below the samples as given. Silence stays silent.
pub fn mix(samples: &mut [f32], other: &[f32], snr_db: f64) {
    if other.is_empty() {
        return;
    }
    let heard: Vec<f32> = other.iter().copied().cycle().take(samples.len()).collect();
    let (signal, noise) = (power(samples), power(&heard));
    if signal == 0.0 || noise == 0.0 {
        return;
    }
    let factor = (signal / noise / 10_f64.powf(snr_db / 10.0)).sqrt();
    for (sample, noise) in samples.iter_mut().zip(heard) {
        *sample += (factor * f64::from(noise)) as f32;
    }
}

/// Removes what lies below `low_hz` or above `high_hz`, without delay.
///
/// The transitions are raised cosines outside of the band, an eighth of the edge's frequency wide and at
/// least 50 Hz; beyond them the attenuation is 40 dB or more. An edge at 0 or above half the sample
/// rate removes nothing.
pub fn band_limit(samples: &mut [f32], sample_rate_hz: u32, low_hz: f64, high_hz: f64) {
    let weight = |below: f64, edge: f64| {
        let transition = (edge / 8.0).max(50.0);
        0.5 + 0.5 * (std::f64::consts::PI * (below / transition).clamp(0.0, 1.0)).cos()
    };
    // The filter rings for some periods of its narrowest transition.
    let padding = sample_rate_hz as usize / 8;
    fft::filter(samples, padding, sample_rate_hz, |hz| {
        let low = if low_hz > 0.0 { weight(low_hz - hz, low_hz) } else { 1.0 };
        low * weight(hz - high_hz, high_hz.max(0.0))
    });
}

/// Passes samples through 8-bit μ-law telephony (ITU-T G.711's curve, μ = 255, as a continuous formula).
///
/// The error is at most `(256^(1 / 255) - 1) · (1 / 255 + |x|)` for `|x| <= 1`; louder samples are clipped. Zero
/// lies between two codes and becomes 0.00009.
pub fn mu_law(samples: &mut [f32]) {
    const MU: f64 = 255.0;
    for sample in samples {
        let x = f64::from(*sample).clamp(-1.0, 1.0);
        let compressed = (MU * x.abs()).ln_1p() / MU.ln_1p() * x.signum();
        let code = ((compressed + 1.0) * 127.5).round().clamp(0.0, 255.0);
        let decoded = code / 127.5 - 1.0;
        *sample = ((decoded.abs() * MU.ln_1p()).exp_m1() / MU * decoded.signum()) as f32;
    }
}

/// Plays samples `factor` times as fast: the length is divided by it, every frequency multiplied.
///
/// The factor is rounded to thousandths and kept within 0.1 and 10; what is not a number changes nothing.
pub fn speed_perturb(samples: &[f32], factor: f64) -> Vec<f32> {
    // Any rate will do; at this one a thousandth is a whole number with many small divisors.
    const RATE_HZ: u32 = 16_000;
    let factor = if factor.is_nan() { 1.0 } else { factor.clamp(0.1, 10.0) };
    let from_hz = (factor * 1_000.0).round() as u32 * (RATE_HZ / 1_000);
    let mut resampler =
        Resampler::new(from_hz, RATE_HZ, "speed").expect("both rates lie between 1.6 and 160 kHz");
    let mut out = Vec::with_capacity((samples.len() as f64 / factor) as usize + 1);
    resampler.push(samples, &mut out);
    resampler.finish(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use proptest::prelude::*;

    use super::*;

    const RATE: u32 = 16_000;

    fn sine(hz: f64, n: usize) -> Vec<f32> {
        (0..n).map(|i| (0.5 * (TAU * hz * i as f64 / f64::from(RATE)).sin()) as f32).collect()
    }

    fn decibels(ratio: f64) -> f64 {
        10.0 * ratio.log10()
    }

    const KINDS: [NoiseKind; 7] = [
        NoiseKind::White,
        NoiseKind::Pink,
        NoiseKind::Brown,
        NoiseKind::Blue,
        NoiseKind::Hum,
        NoiseKind::SpeechShaped,
        NoiseKind::Babble,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_signal_to_noise_ratio_is_the_one_asked_for(
            snr_db in -10.0..40.0_f64, seed: u64, kind in 0..7_usize, n in 400..20_000_usize,
        ) {
            let clean = sine(440.0, n);
            let mut noisy = clean.clone();
            add_noise(&mut noisy, RATE, snr_db, KINDS[kind], &mut Stream::new(seed));
            let added: Vec<f32> = noisy.iter().zip(&clean).map(|(a, b)| a - b).collect();
            prop_assert!((decibels(power(&clean) / power(&added)) - snr_db).abs() < 0.1);
        }

        #[test]
        fn mu_law_stays_within_its_error(x in -1.0..1.0_f32) {
            let mut y = [x];
            mu_law(&mut y);
            let bound = (256_f64.powf(1.0 / 255.0) - 1.0) * (1.0 / 255.0 + f64::from(x.abs())) + 1e-7;
            prop_assert!(f64::from((y[0] - x).abs()) <= bound, "{x} became {}", y[0]);
        }

        #[test]
        fn any_speed_divides_the_length(factor in 0.5..2.0_f64, n in 0..5_000_usize) {
            let rounded = (factor * 1000.0).round() / 1000.0;
            let length = speed_perturb(&vec![0.1; n], factor).len() as f64;
            prop_assert!((length - n as f64 / rounded).abs() <= 1.0);
        }
    }

    #[test]
    fn mu_law_has_at_most_256_values_and_keeps_their_order() {
        let mut samples: Vec<f32> = (-5_000..=5_000).map(|i| i as f32 / 4_000.0).collect();
        mu_law(&mut samples);
        assert!(samples.is_sorted());
        samples.dedup();
        assert!(samples.len() <= 256 && samples.len() > 200);
        assert_eq!((samples[0], samples[samples.len() - 1]), (-1.0, 1.0));
    }

    #[test]
    fn the_band_stays_and_the_rest_goes() {
        for (hz, expected_db) in [
            (100.0, -40.0),
            (200.0, -40.0),
            (400.0, 0.0),
            (1_000.0, 0.0),
            (3_300.0, 0.0),
            (4_000.0, -40.0),
            (7_000.0, -40.0),
        ] {
            let mut samples = sine(hz, 16_000);
            let before = power(&samples);
            band_limit(&mut samples, RATE, 300.0, 3_400.0);
            let change = decibels(power(&samples[2_000..14_000]) / before);
            if expected_db == 0.0 {
                assert!(change.abs() < 0.1, "{hz} Hz changed by {change} dB");
            } else {
                assert!(change < expected_db, "{hz} Hz changed by {change} dB");
            }
        }
        let open = sine(7_900.0, 1_000);
        let mut kept = open.clone();
        band_limit(&mut kept, RATE, 0.0, 8_000.0);
        assert!(open.iter().zip(&kept).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn double_speed_halves_the_length_and_doubles_the_pitch() {
        let fast = speed_perturb(&sine(500.0, 16_000), 2.0);
        assert_eq!(fast.len(), 8_000);
        // Zero crossings of 1,000 Hz in the middle quarter second: two a period.
        let middle = &fast[2_000..6_000];
        let crossings = middle.windows(2).filter(|w| (w[0] < 0.0) != (w[1] < 0.0)).count();
        assert!(crossings.abs_diff(500) <= 1, "{crossings}");
        assert_eq!(speed_perturb(&fast, 1.0), fast);
        assert_eq!(speed_perturb(&[], 1.1), Vec::<f32>::new());
        assert_eq!(speed_perturb(&fast, f64::NAN).len(), fast.len());
    }

    #[test]
    fn gain_is_in_decibels() {
        let mut samples = [0.1_f32, -0.2];
        gain(&mut samples, 20.0);
        assert_eq!(samples, [1.0, -2.0]);
    }

    #[test]
    fn only_what_is_too_loud_is_turned_down() {
        let mut samples = [0.5_f32, -0.99];
        assert!(!limit(&mut samples));
        assert_eq!(samples, [0.5, -0.99]);
        let mut samples = [1.0_f32, -1.98];
        assert!(limit(&mut samples));
        assert!((samples[0] - 0.5).abs() < 1e-6 && (samples[1] + 0.99).abs() < 1e-6);
    }

    #[test]
    fn silence_and_nothing_stay_what_they_are() {
        let mut silence = vec![0.0; 100];
        add_noise(&mut silence, RATE, 0.0, NoiseKind::Babble, &mut Stream::new(1));
        band_limit(&mut silence, RATE, 300.0, 3_400.0);
        mu_law(&mut silence);
        assert!(silence.iter().all(|s| s.abs() < 1e-4));
        let mut nothing: Vec<f32> = Vec::new();
        add_noise(&mut nothing, RATE, 0.0, NoiseKind::White, &mut Stream::new(1));
        band_limit(&mut nothing, RATE, 300.0, 3_400.0);
        reverberate(&mut nothing, &[1.0, 0.5]);
        mix(&mut nothing, &[], 0.0);
        assert!(nothing.is_empty());
    }
}
