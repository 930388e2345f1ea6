//! From a request to speech: synthesize, resample, add silences, pass through the channel.

use super::{Error, Request, SAMPLE_RATE_HZ, Speech, plan};
use crate::{alignment::Alignment, audio::Waveform, augment::limit, espeak::Espeak, rng::Stream};

/// Both sides of a cut fade over that many samples, 4 ms, so that it does not click.
const FADE: usize = 64;

/// A silence to insert: before which sample, and how many samples.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Gap {
    at: usize,
    length: usize,
}

pub(super) fn render(espeak: &Espeak, request: &Request) -> Result<Speech, Error> {
    let plan = plan::plan(request);
    let spoken = espeak.synthesize(&request.text, &plan.settings)?;
    let clean = spoken.waveform.resampled(SAMPLE_RATE_HZ)?;
    let (mut words, mut phonemes) = (spoken.words, spoken.phonemes);

    let mut gaps = vec![Gap { at: 0, length: samples_in(plan.margins_s[0]) }];
    if let Some(pauses) = plan.pauses {
        let mut stream = Stream::named(plan.seed, "pauses");
        for pair in words.windows(2) {
            let length_s = stream.between(plan::SHORTEST_PAUSE_S, pauses.longest_s);
            if stream.chance(pauses.probability) {
                let at = samples_in((pair[0].end_s + pair[1].start_s) / 2.0);
                gaps.push(Gap { at, length: samples_in(length_s) });
            }
        }
    }
    gaps.push(Gap { at: clean.samples.len(), length: samples_in(plan.margins_s[1]) });

    shift(&mut words, &gaps);
    shift(&mut phonemes, &gaps);
    let mut samples = with_gaps(&clean.samples, &gaps);
    plan.channel.apply(&mut samples, plan.seed);
    limit(&mut samples);
    for sample in &mut samples {
        *sample = dequantize(quantize(*sample));
    }
    Ok(Speech {
        waveform: Waveform { samples, sample_rate_hz: SAMPLE_RATE_HZ },
        words,
        phonemes,
        voice: plan.settings.voice,
        words_per_minute: plan.settings.words_per_minute,
    })
}

/// To the nearest step of 16 bit.
pub(super) fn quantize(sample: f32) -> i16 {
    // Conversions from float saturate.
    (sample * 32_768.0).round() as i16
}

pub(super) fn dequantize(sample: i16) -> f32 {
    f32::from(sample) / 32_768.0
}

fn samples_in(seconds: f64) -> usize {
    (seconds * f64::from(SAMPLE_RATE_HZ)).round() as usize
}

/// The samples with silences inserted; gaps are in order.
fn with_gaps(samples: &[f32], gaps: &[Gap]) -> Vec<f32> {
    let mut out = Vec::with_capacity(samples.len() + gaps.iter().map(|g| g.length).sum::<usize>());
    let mut from = 0;
    for gap in gaps {
        let at = gap.at.clamp(from, samples.len());
        let start = out.len();
        out.extend_from_slice(&samples[from..at]);
        let piece = &mut out[start..];
        // Nothing was cut where the signal itself begins and ends.
        if from > 0 {
            fade(piece.iter_mut());
        }
        if at < samples.len() {
            fade(piece.iter_mut().rev());
        }
        out.resize(out.len() + gap.length, 0.0);
        from = at;
    }
    let start = out.len();
    out.extend_from_slice(&samples[from..]);
    if from > 0 {
        fade(out[start..].iter_mut());
    }
    out
}

fn fade<'a>(samples: impl Iterator<Item = &'a mut f32>) {
    for (i, sample) in samples.take(FADE).enumerate() {
        *sample *= (i as f32 + 0.5) / FADE as f32;
    }
}

/// Moves labels behind the silences before them. No label spans one, except where words overlap a cut by
/// less than a sample.
fn shift(labels: &mut [Alignment], gaps: &[Gap]) {
    let rate = f64::from(SAMPLE_RATE_HZ);
    for label in labels {
        // A cut was rounded to a sample, so compare with the middle, which is far from it. Labels of length
        // zero at the cut move with the word after it.
        let middle = f64::midpoint(label.start_s, label.end_s);
        let length: usize = gaps
            .iter()
            .filter(|gap| gap.at as f64 / rate <= middle + 0.5 / rate)
            .map(|gap| gap.length)
            .sum();
        label.start_s += length as f64 / rate;
        label.end_s += length as f64 / rate;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alignment::Source;

    #[test]
    fn silences_push_what_follows() {
        let samples = vec![1.0; 1_600];
        let gaps = [
            Gap { at: 0, length: 160 },
            Gap { at: 800, length: 320 },
            Gap { at: 1_600, length: 16 },
        ];
        let out = with_gaps(&samples, &gaps);
        assert_eq!(out.len(), 1_600 + 160 + 320 + 16);
        assert!(out[..160].iter().chain(&out[960..1_280]).chain(&out[2_080..]).all(|&s| s == 0.0));
        assert_eq!((out[160], out[2_079]), (1.0, 1.0));
        assert!(out[959] < 0.02 && out[1_280] < 0.02 && out[900 - 10] == 1.0);

        let label = |start_s, end_s| Alignment {
            label: "a".to_owned(),
            start_s,
            end_s,
            confidence: None,
            source: Source::Exact,
        };
        // 800 samples are 0.05 s; silences of 0.01 and 0.02 s.
        let mut labels = [label(0.0, 0.05), label(0.05, 0.1)];
        shift(&mut labels, &gaps);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(close(labels[0].start_s, 0.01) && close(labels[0].end_s, 0.06));
        assert!(close(labels[1].start_s, 0.08) && close(labels[1].end_s, 0.13));
    }

    #[test]
    fn sixteen_bits_survive() {
        for value in [i16::MIN, -1, 0, 1, i16::MAX] {
            assert_eq!(quantize(dequantize(value)), value);
        }
        assert_eq!(quantize(2.0), i16::MAX);
        assert_eq!(quantize(f32::NAN), 0);
    }
}
