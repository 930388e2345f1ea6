//! Sound in, sound out: formats, spans, blocks, and everything that can be wrong with a file.

use std::f64::consts::TAU;

use proptest::prelude::*;

use super::*;

/// A WAV file made by hound: `channels` copies of `sample(frame, channel)`.
fn wav(spec: hound::WavSpec, n: usize, sample: impl Fn(usize, u16) -> f64) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
    let full = f64::from(2.0_f32).powi(i32::from(spec.bits_per_sample) - 1);
    for i in 0..n {
        for channel in 0..spec.channels {
            let x = sample(i, channel);
            match spec.sample_format {
                hound::SampleFormat::Float => writer.write_sample(x as f32).unwrap(),
                hound::SampleFormat::Int => {
                    let x = (x * full).round().clamp(-full, full - 1.0);
                    writer.write_sample(x as i32).unwrap();
                }
            }
        }
    }
    writer.finalize().unwrap();
    bytes.into_inner()
}

fn spec(channels: u16, sample_rate: u32, bits_per_sample: u16) -> hound::WavSpec {
    let sample_format = hound::SampleFormat::Int;
    hound::WavSpec { channels, sample_rate, bits_per_sample, sample_format }
}

fn float(channels: u16) -> hound::WavSpec {
    hound::WavSpec { sample_format: hound::SampleFormat::Float, ..spec(channels, 16_000, 32) }
}

/// A WAV file of 64-bit floats, which hound does not write: 44 bytes of header and the data.
fn wav_f64(samples: &[f64]) -> Vec<u8> {
    let n_bytes = 8 * samples.len() as u32;
    let mut bytes = Vec::new();
    bytes.extend(b"RIFF");
    bytes.extend((36 + n_bytes).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16_u32.to_le_bytes());
    bytes.extend(3_u16.to_le_bytes());
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(16_000_u32.to_le_bytes());
    bytes.extend(128_000_u32.to_le_bytes());
    bytes.extend(8_u16.to_le_bytes());
    bytes.extend(64_u16.to_le_bytes());
    bytes.extend(b"data");
    bytes.extend(n_bytes.to_le_bytes());
    samples.iter().for_each(|x| bytes.extend(x.to_le_bytes()));
    bytes
}

fn sine(n: usize, hz: f64, rate: u32) -> Vec<f32> {
    (0..n).map(|i| (TAU * hz * i as f64 / f64::from(rate)).sin() as f32).collect()
}

/// Amplitude and phase of the part of `samples` at `hz`, by projection on a sine and a cosine.
fn tone(samples: &[f32], hz: f64, rate: u32, offset: usize) -> (f64, f64) {
    let (mut s, mut c) = (0.0, 0.0);
    for (i, &x) in samples.iter().enumerate() {
        let phase = TAU * hz * (i + offset) as f64 / f64::from(rate);
        s += f64::from(x) * phase.sin();
        c += f64::from(x) * phase.cos();
    }
    let scale = 2.0 / samples.len() as f64;
    ((s * s + c * c).sqrt() * scale, c.atan2(s))
}

fn message(bytes: Vec<u8>) -> String {
    Waveform::decode(bytes, "x.wav").unwrap_err().to_string()
}

#[test]
fn integers_of_all_widths_and_floats_decode_to_the_same_scale() {
    let value = |i: usize| (i as f64 - 50.0) / 64.0;
    for bits in [8, 16, 24, 32] {
        let wave = Waveform::decode(wav(spec(1, 8_000, bits), 100, |i, _| value(i)), "w").unwrap();
        assert_eq!((wave.sample_rate_hz, wave.samples.len()), (8_000, 100));
        for (i, &x) in wave.samples.iter().enumerate() {
            // -50/64 to 49/64 is exact in 8 bits, whose step is 1/128.
            assert_eq!(f64::from(x), value(i), "{bits} bits, sample {i}");
        }
    }
    let wave = Waveform::decode(wav(float(1), 100, |i, _| value(i)), "w").unwrap();
    assert!(wave.samples.iter().enumerate().all(|(i, &x)| f64::from(x) == value(i)));
    let wave = Waveform::decode(wav_f64(&(0..100).map(value).collect::<Vec<_>>()), "w").unwrap();
    assert!(wave.samples.iter().enumerate().all(|(i, &x)| f64::from(x) == value(i)));
}

#[test]
fn channels_become_their_mean() {
    for channels in [1_u16, 2, 3, 5, 8, 16, 18, 19, 27, 32, 64] {
        // Channel c holds (c + 1) / 128; the mean is (channels + 1) / 256.
        let bytes = wav(spec(channels, 16_000, 16), 10, |_, c| f64::from(c + 1) / 128.0);
        let wave = Waveform::decode(bytes, "w").unwrap();
        let mean = f32::from(channels + 1) / 256.0;
        assert_eq!(wave.samples.len(), 10);
        assert!(wave.samples.iter().all(|x| (x - mean).abs() < 1e-6), "{channels} channels");
    }
}

#[test]
fn many_channels_are_checked_like_few() {
    let mut bytes = wav(spec(40, 16_000, 24), 9_000, |i, c| f64::from(c) / 64.0 * (i % 2) as f64);
    let wave = Waveform::decode(bytes.clone(), "w").unwrap();
    assert_eq!(wave.samples.len(), 9_000);
    // The mean of 0 to 39 is 19.5.
    assert_eq!(wave.samples[4_999..5_001], [19.5 / 64.0, 0.0]);
    bytes.truncate(bytes.len() - 100 * 120 - 1);
    assert_eq!(message(bytes), "x.wav: truncated: found 8899 samples per channel, expected 9000");
    let bytes = wav(float(40), 5_000, |i, c| if (i, c) == (4_500, 39) { f64::NAN } else { 0.1 });
    assert_eq!(message(bytes), "x.wav: sample 4500 is NaN, expected a finite number");
}

#[test]
fn written_files_read_back_to_the_same_16_bits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tone.wav");
    let samples: Vec<f32> = (-32_768..32_768).map(|i| i as f32 / 32_768.0).collect();
    let wave = Waveform::new(samples, 22_050);
    wave.write_wav(&path).unwrap();
    assert_eq!(Waveform::read(&path).unwrap(), wave);
    assert_eq!(Waveform::decode(wave.to_wav_bytes().unwrap(), "w").unwrap(), wave);
    // Too loud is clipped, not wrapped.
    let loud = Waveform::new(vec![2.0, -2.0], 16_000).to_wav_bytes().unwrap();
    assert_eq!(Waveform::decode(loud, "w").unwrap().samples, [32_767.0 / 32_768.0, -1.0]);
}

#[test]
fn what_is_no_audio_says_what_it_is() {
    assert_eq!(
        message(Vec::new()),
        "x.wav: found an empty file, expected WAV, FLAC, MP3 or Ogg Vorbis"
    );
    assert_eq!(
        message(b"Dear diary, today I renamed a file to .wav".to_vec()),
        "x.wav: found text that starts with \"Dear diary, toda\", expected WAV, FLAC, MP3 or Ogg Vorbis"
    );
    assert_eq!(
        message("Größe und Maß, bitte".as_bytes().to_vec()),
        "x.wav: found text that starts with \"Größe und Maß\", expected WAV, FLAC, MP3 or Ogg Vorbis"
    );
    assert_eq!(
        message(wav(spec(1, 16_000, 16), 10, |_, _| 0.0)[..20].to_vec()),
        "x.wav: damaged at sample 0: the file ends inside its header"
    );
    assert_eq!(
        message(vec![0, 1, 2, 3]),
        "x.wav: found bytes that start with 00 01 02 03, expected WAV, FLAC, MP3 or Ogg Vorbis"
    );
    assert_eq!(
        message(wav(spec(1, 16_000, 16), 0, |_, _| 0.0)),
        "x.wav: found no samples, expected at least one"
    );
    let missing = Waveform::read("does/not/exist.wav".as_ref()).unwrap_err().to_string();
    assert!(missing.starts_with("does/not/exist.wav: cannot open: "), "{missing}");
    let folder = Waveform::read(".".as_ref()).unwrap_err().to_string();
    assert!(folder.starts_with(".: cannot open: "), "{folder}");
    assert_eq!(
        message(wav(spec(1, 500, 16), 10, |_, _| 0.0)),
        "x.wav: found a sample rate of 500 Hz, expected 1000 to 768000 Hz"
    );
}

#[test]
fn a_wav_that_ends_early_is_truncated() {
    let mut bytes = wav(spec(1, 16_000, 16), 1_000, |i, _| (i as f64 * 0.1).sin());
    bytes.truncate(44 + 2 * 600 + 1);
    assert_eq!(message(bytes), "x.wav: truncated: found 600 samples per channel, expected 1000");
    let mut bytes = wav(spec(2, 16_000, 16), 10_000, |i, _| (i as f64 * 0.1).sin());
    bytes.truncate(44 + 4 * 6_000);
    assert_eq!(message(bytes), "x.wav: truncated: found 6000 samples per channel, expected 10000");
    let header_only = wav(spec(1, 16_000, 16), 1_000, |_, _| 0.1)[..44].to_vec();
    assert_eq!(
        message(header_only),
        "x.wav: truncated: found 0 samples per channel, expected 1000"
    );
}

#[test]
fn a_wav_written_to_a_pipe_has_no_length_and_is_read_to_its_end() {
    for unknown in [0x7fff_f000_u32, u32::MAX] {
        let mut bytes = wav(spec(1, 16_000, 16), 1_000, |i, _| (i as f64 * 0.1).sin());
        bytes[4..8].copy_from_slice(&unknown.saturating_add(36).to_le_bytes());
        bytes[40..44].copy_from_slice(&unknown.to_le_bytes());
        assert_eq!(Waveform::decode(bytes, "w").unwrap().samples.len(), 1_000, "{unknown:x}");
    }
}

#[test]
fn samples_that_are_not_finite_are_named() {
    for (value, shown) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
        let bytes = wav(float(2), 5_000, |i, c| if (i, c) == (4_321, 1) { value } else { 0.1 });
        assert_eq!(
            message(bytes),
            format!("x.wav: sample 4321 is {shown}, expected a finite number")
        );
    }
    assert_eq!(message(wav_f64(&[0.0, 1e300])), "x.wav: sample 1 is inf, expected a finite number");
}

#[test]
fn silence_and_a_single_sample_are_sound() {
    let one = Waveform::decode(wav(spec(1, 16_000, 16), 1, |_, _| 0.5), "w").unwrap();
    assert_eq!(one.samples, [0.5]);
    assert_eq!(one.resampled(8_000).unwrap().samples.len(), 1);
    let silence = Waveform::decode(wav(spec(1, 44_100, 16), 44_100, |_, _| 0.0), "w").unwrap();
    let silence = silence.resampled(16_000).unwrap();
    assert_eq!(silence.samples, vec![0.0; 16_000]);
}

#[test]
fn a_span_equals_the_part_of_the_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("long.wav");
    let n = 50_000;
    std::fs::write(&path, wav(spec(2, 16_000, 16), n, |i, _| (i as f64 * 0.01).sin())).unwrap();
    let whole = Waveform::read(&path).unwrap();
    let check = |start_s: f64, duration_s: Option<f64>, range: std::ops::Range<usize>| {
        let span = Waveform::read_span(&path, start_s, duration_s).unwrap();
        assert_eq!(span.samples, whole.samples[range], "{start_s} {duration_s:?}");
    };
    check(0.0, None, 0..n);
    check(0.0, Some(0.1), 0..1_600);
    check(1.5, Some(0.25), 24_000..28_000);
    check(3.0, None, 48_000..n);
    // 40 ms behind the end are forgiven: 50,000 samples are 3.125 s.
    check(3.0, Some(0.165), 48_000..n);

    let error = |start_s: f64, duration_s: f64| {
        let text = Waveform::read_span(&path, start_s, duration_s).unwrap_err().to_string();
        text.rsplit_once("long.wav: ").unwrap().1.to_owned()
    };
    assert_eq!(
        error(3.0, 1.0),
        "found 3.125 s of audio, expected the span from 3.000 s to 4.000 s to lie inside"
    );
    assert_eq!(
        error(9.0, 1.0),
        "found 3.125 s of audio, expected the span from 9.000 s to 10.000 s to lie inside"
    );
    for (start_s, duration_s) in
        [(-1.0, 1.0), (0.0, 0.0), (0.0, -2.0), (f64::NAN, 1.0), (0.0, f64::NAN)]
    {
        assert!(error(start_s, duration_s).contains("expected start >= 0 and duration > 0"));
    }
}

#[test]
fn blocks_join_to_the_whole_and_stay_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("long.wav");
    let bytes =
        wav(spec(2, 44_100, 16), 100_000, |i, c| ((i + usize::from(c)) as f64 * 0.05).sin());
    std::fs::write(&path, bytes).unwrap();
    let whole = Waveform::read(&path).unwrap().resampled(16_000).unwrap();
    assert_eq!(whole.samples.len(), 36_281); // 100,000 * 160 / 441 = 36,281.18
    assert_eq!(Waveform::read_resampled(&path, 16_000).unwrap(), whole);
    for block_len in [1_000, 4_096, 100_000] {
        let blocks: Vec<Vec<f32>> =
            Blocks::open(&path, 16_000, block_len).unwrap().map(Result::unwrap).collect();
        let (last, full) = blocks.split_last().unwrap();
        assert!(full.iter().all(|b| b.len() == block_len) && last.len() <= block_len);
        assert_eq!(blocks.concat(), whole.samples);
    }
}

#[test]
fn blocks_of_a_truncated_file_end_with_the_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.wav");
    let bytes = wav(spec(1, 16_000, 16), 10_000, |_, _| 0.1);
    std::fs::write(&path, &bytes[..44 + 2 * 7_000]).unwrap();
    let mut blocks = Blocks::open(&path, 16_000, 2_000).unwrap();
    let good: Vec<_> = blocks.by_ref().map_while(Result::ok).collect();
    assert_eq!(good.concat().len(), 6_000);
    assert!(blocks.next().is_none(), "an error is the last item");
}

#[test]
fn probing_reads_the_header_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.txt");
    std::fs::write(&path, wav(spec(8, 48_000, 24), 24_000, |_, _| 0.0)).unwrap();
    let info = probe(&path).unwrap();
    let expected = AudioInfo {
        format: "wave",
        sample_rate_hz: 48_000,
        n_channels: 8,
        n_samples: Some(24_000),
        duration_s: Some(0.5),
    };
    assert_eq!(info, expected);
}

#[test]
fn resampled_lengths_are_rounded() {
    let cases = [(441, 44_100, 16_000, 160), (1, 48_000, 16_000, 1), (0, 48_000, 16_000, 0)];
    for (n, from, to, expected) in cases {
        assert_eq!(resampled_len(n, from, to), expected);
        let wave = Waveform::new(vec![0.1; n as usize], from).resampled(to).unwrap();
        assert_eq!(wave.samples.len() as u64, expected);
    }
}

#[test]
fn rates_without_a_common_divisor_work() {
    let wave = Waveform::new(sine(44_101, 440.0, 44_101), 44_101).resampled(16_000).unwrap();
    assert_eq!(wave.samples.len(), 16_000);
    let (amplitude, _) = tone(&wave.samples[4_000..12_000], 440.0, 16_000, 4_000);
    assert!((amplitude - 1.0).abs() < 0.01, "{amplitude}");
}

#[test]
fn frequencies_above_the_new_nyquist_disappear() {
    for (from, to) in [(44_100, 16_000), (48_000, 16_000), (16_000, 8_000), (22_050, 16_000)] {
        let nyquist = f64::from(to) / 2.0;
        for factor in [1.02, 1.1, 1.3] {
            let wave = Waveform::new(sine(from as usize, nyquist * factor, from), from);
            let out = wave.resampled(to).unwrap().samples;
            let inner = &out[out.len() / 4..out.len() * 3 / 4];
            let peak = inner.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
            assert!(peak < 1e-4, "{from} to {to}, {factor} of Nyquist: {peak}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Below 95 % of the lower Nyquist frequency a tone keeps its frequency, amplitude and phase.
    #[test]
    fn a_tone_stays_itself(
        from in prop::sample::select(vec![8_000_u32, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000]),
        to in prop::sample::select(vec![8_000_u32, 16_000, 17_600, 24_000, 44_100]),
        share in 0.02_f64..0.95,
    ) {
        let hz = share * f64::from(from.min(to)) / 2.0;
        let out = Waveform::new(sine(from as usize, hz, from), from).resampled(to).unwrap().samples;
        prop_assert_eq!(out.len(), to as usize);
        let (start, end) = (out.len() / 4, out.len() * 3 / 4);
        let (amplitude, phase) = tone(&out[start..end], hz, to, start);
        prop_assert!((amplitude - 1.0).abs() < 0.01, "amplitude {}", amplitude);
        prop_assert!(phase.abs() < 0.01, "phase {}", phase);
        // Nothing else is there.
        let rest = (start..end).map(|i| {
            let ideal = (TAU * hz * i as f64 / f64::from(to)).sin();
            (f64::from(out[i]) - ideal).abs()
        });
        prop_assert!(rest.fold(0.0, f64::max) < 0.01);
    }

    /// However the samples are cut, the output is the same to the bit and has the promised length.
    #[test]
    fn cuts_make_no_difference(
        n in 0_usize..20_000,
        cuts in prop::collection::vec(1_usize..5_000, 1..20),
        from in prop::sample::select(vec![8_000_u32, 16_000, 44_100, 48_000]),
    ) {
        let samples = sine(n, 700.0, from);
        let whole = Waveform::new(samples.clone(), from).resampled(16_000).unwrap().samples;
        prop_assert_eq!(whole.len() as u64, resampled_len(n as u64, from, 16_000));
        let mut resampler = Resampler::new(from, 16_000, "x").unwrap();
        let mut out = Vec::new();
        let mut rest = samples.as_slice();
        for cut in cuts.into_iter().cycle() {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            resampler.push(now, &mut out);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        resampler.finish(&mut out);
        prop_assert_eq!(out, whole);
    }
}
