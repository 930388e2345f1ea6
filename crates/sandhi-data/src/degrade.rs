//! Worse copies of recordings: what a model loses by them is what it has not learned to ignore.
//!
//! ```text
//! utterance ─ cut out, mixed to mono ─ speed ─ noise ─ telephone ─ turned down if too loud ─ samples
//! words ────────────────────────────── times divided ──────────────────────────────────────── words
//! ```
//!
//! A copy has the rate of its file and depends on the utterance, its id and the seed alone: copying a part of a
//! corpus gives the same sounds as copying all of it.

use serde::Serialize;

use crate::{
    alignment::Alignment,
    audio::{self, Waveform, probe},
    augment::{NoiseKind, add_noise, band_limit, limit, mu_law, power, speed_perturb},
    manifest::Utterance,
    rng::{Stream, stream},
};

/// What is done to a recording; the default is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Degradation {
    /// Played so many times as fast, at a pitch so many times as high: 0.1 to 10, in thousandths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// Noise that is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<Noise>,
    /// A telephone line: 300 to 3,400 Hz through 8-bit μ-law.
    pub telephone: bool,
}

/// Noise beside speech.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Noise {
    /// Its color.
    pub kind: NoiseKind,
    /// How far the mean power of the recording, pauses included, lies above the noise's: -40 to 100 dB.
    pub snr_db: f64,
}

/// A worse copy.
#[derive(Debug, Clone, PartialEq)]
pub struct Degraded {
    /// The sound, its peak at most 0.99.
    pub sound: Waveform,
    /// The utterance's words where they are now.
    pub words: Vec<Alignment>,
    /// Whether it would have been clipped and was turned down as a whole.
    pub turned_down: bool,
}

/// Why there is no copy of an utterance.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its sound cannot be read.
    #[error(transparent)]
    Audio(#[from] audio::Error),
    /// It is one channel of several, and those are mixed when read.
    #[error(
        "{file}: audio.channel: found channel {channel} of {n_channels}, expected a file of one channel"
    )]
    Channel {
        /// The file.
        file: String,
        /// What the utterance names.
        channel: usize,
        /// What the file has.
        n_channels: usize,
    },
    /// Noise has no level beside nothing.
    #[error("{file}: found silence, expected sound to add noise to")]
    Silent {
        /// The file.
        file: String,
    },
    /// Nothing is left of it.
    #[error("{file}: found {n_samples} samples, expected more to play them {speed} times as fast")]
    TooShort {
        /// The file.
        file: String,
        /// Samples of the utterance.
        n_samples: usize,
        /// The speed.
        speed: f64,
    },
}

impl Degradation {
    /// What is wrong with it, as sentences that name the fields.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self == &Self::default() {
            problems.push("speed, snr and telephone: found none, expected at least one".to_owned());
        }
        if let Some(speed) = self.speed {
            let thousandths = speed * 1_000.0;
            let fine = (0.1..=10.0).contains(&speed)
                && (thousandths - thousandths.round()).abs() < 1e-6
                && speed != 1.0;
            if !fine {
                problems.push(format!(
                    "speed is {speed}, expected 0.1 to 10 in steps of a thousandth, other than 1"
                ));
            }
        }
        if let Some(Noise { snr_db, .. }) = self.noise
            && !(-40.0..=100.0).contains(&snr_db)
        {
            problems.push(format!("snr is {snr_db}, expected -40 to 100 dB"));
        }
        problems
    }

    /// The worse copy of an utterance.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    ///
    /// # Panics
    ///
    /// When [`Degradation::problems`] has found any.
    pub fn copy(&self, utterance: &Utterance, seed: u64) -> Result<Degraded, Error> {
        assert!(self.problems().is_empty(), "{:?}", self.problems());
        let audio = &utterance.audio;
        let file = || audio.path.display().to_string();
        if let Some(channel) = audio.channel {
            let n_channels = probe(&audio.path)?.n_channels;
            if n_channels > 1 {
                return Err(Error::Channel { file: file(), channel, n_channels });
            }
        }
        let mut sound = Waveform::read_span(&audio.path, audio.start_s, audio.duration_s)?;
        let mut words = utterance.words.clone();

        if let Some(speed) = self.speed {
            let n_samples = sound.samples.len();
            sound.samples = speed_perturb(&sound.samples, speed);
            if sound.samples.is_empty() {
                return Err(Error::TooShort { file: file(), n_samples, speed });
            }
            for word in &mut words {
                word.start_s /= speed;
                word.end_s /= speed;
            }
        }
        let (samples, rate_hz) = (&mut sound.samples, sound.sample_rate_hz);
        if let Some(Noise { kind, snr_db }) = self.noise {
            if power(samples) == 0.0 {
                return Err(Error::Silent { file: file() });
            }
            let mut stream = Stream::named(stream(seed, "degrade"), &utterance.id);
            add_noise(samples, rate_hz, snr_db, kind, &mut stream);
        }
        if self.telephone {
            band_limit(samples, rate_hz, 300.0, 3_400.0);
        }
        // The curve of μ-law expects samples within one, and so does a file of 16 bit.
        let turned_down = limit(samples);
        if self.telephone {
            mu_law(samples);
        }
        Ok(Degraded { sound, words, turned_down })
    }
}

#[cfg(test)]
mod tests {
    use std::{f64::consts::TAU, path::Path};

    use super::*;
    use crate::alignment::Source;

    const RATE_HZ: u32 = 8_000;

    /// Half a second of silence, a second of 1,000 Hz, half a second of silence, and when it sounds.
    fn recording(dir: &Path, id: &str, amplitude: f64) -> Utterance {
        let tone = |i: usize| amplitude * (TAU * 1_000.0 * i as f64 / f64::from(RATE_HZ)).sin();
        let sounds = 4_000..12_000;
        let samples = (0..16_000).map(|i| if sounds.contains(&i) { tone(i) as f32 } else { 0.0 });
        let path = dir.join(format!("{id}.wav"));
        Waveform::new(samples.collect(), RATE_HZ).write_wav(&path).unwrap();
        let (start_s, end_s) = (0.5, 1.5);
        let (label, source) = ("beep".to_owned(), Source::Exact);
        let word = Alignment { label, start_s, end_s, confidence: None, source };
        Utterance { words: vec![word], ..Utterance::new(id, path, "beep") }
    }

    fn noise(snr_db: f64) -> Option<Noise> {
        Some(Noise { kind: NoiseKind::Babble, snr_db })
    }

    #[test]
    fn words_sound_where_their_times_say() {
        let dir = tempfile::tempdir().unwrap();
        let utterance = recording(dir.path(), "a", 0.5);
        for (speed, n_samples) in [(1.25, 12_800), (0.8, 20_000)] {
            let how = Degradation { speed: Some(speed), ..Degradation::default() };
            let Degraded { sound, words, turned_down } = how.copy(&utterance, 1).unwrap();
            assert_eq!((sound.samples.len(), sound.sample_rate_hz), (n_samples, RATE_HZ));
            assert!(!turned_down);
            let word = &words[0];
            assert_eq!((word.start_s, word.end_s), (0.5 / speed, 1.5 / speed));
            // The tone's power within the word is 0.5² / 2, and nothing sounds outside but the filter's ringing.
            let at = |s: f64| (s * f64::from(RATE_HZ)) as usize;
            let inside = power(&sound.samples[at(word.start_s)..at(word.end_s)]);
            assert!((inside - 0.125).abs() < 0.002, "{inside}");
            let before = power(&sound.samples[..at(word.start_s - 0.02)]);
            let after = power(&sound.samples[at(word.end_s + 0.02)..]);
            assert!(before.max(after) < 1e-6, "{before} and {after}");
        }
    }

    #[test]
    fn noise_has_its_level_and_follows_seed_and_id() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (recording(dir.path(), "a", 0.2), recording(dir.path(), "b", 0.2));
        let how = Degradation { noise: noise(10.0), ..Degradation::default() };
        let clean = Waveform::read(&a.audio.path).unwrap();
        let copy = how.copy(&a, 7).unwrap();
        let added: Vec<f32> =
            copy.sound.samples.iter().zip(&clean.samples).map(|(noisy, x)| noisy - x).collect();
        let ratio_db = 10.0 * (power(&clean.samples) / power(&added)).log10();
        assert!((ratio_db - 10.0).abs() < 0.01, "{ratio_db}");
        assert_eq!(copy.words, a.words);
        assert_eq!(copy, how.copy(&a, 7).unwrap());
        assert_ne!(copy.sound, how.copy(&a, 8).unwrap().sound);
        assert_ne!(copy.sound, how.copy(&b, 7).unwrap().sound);
    }

    #[test]
    fn a_telephone_takes_what_is_low_and_has_few_levels() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("low.wav");
        let tone = |hz: f64, i: usize| (0.3 * (TAU * hz * i as f64 / 16_000.0).sin()) as f32;
        let samples = (0..16_000).map(|i| tone(100.0, i) + tone(1_000.0, i)).collect();
        Waveform::new(samples, 16_000).write_wav(&path).unwrap();
        let how = Degradation { telephone: true, ..Degradation::default() };
        let copy = how.copy(&Utterance::new("a", path, ""), 1).unwrap();
        // Of two equal tones one is left: 0.3² / 2, within twice the 2.2 % that μ-law may change a sample by.
        let middle = power(&copy.sound.samples[2_000..14_000]);
        assert!((middle - 0.045).abs() < 0.002_2, "{middle}");
        let mut levels = copy.sound.samples.clone();
        levels.sort_by(f32::total_cmp);
        levels.dedup();
        assert!(levels.len() <= 256, "{}", levels.len());
    }

    #[test]
    fn what_would_be_clipped_is_turned_down_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let utterance = recording(dir.path(), "loud", 0.9);
        let how = Degradation { noise: noise(0.0), ..Degradation::default() };
        let copy = how.copy(&utterance, 1).unwrap();
        assert!(copy.turned_down);
        let peak = copy.sound.samples.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
        assert!((peak - 0.99).abs() < 1e-5, "{peak}");
    }

    #[test]
    fn only_the_span_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let mut utterance = recording(dir.path(), "a", 0.5);
        (utterance.audio.start_s, utterance.audio.duration_s) = (0.5, Some(1.0));
        utterance.words.clear();
        let how = Degradation { speed: Some(2.0), ..Degradation::default() };
        assert_eq!(how.copy(&utterance, 1).unwrap().sound.samples.len(), 4_000);
    }

    #[test]
    fn utterances_that_cannot_be_copied_say_why() {
        let dir = tempfile::tempdir().unwrap();
        let how = Degradation { noise: noise(10.0), ..Degradation::default() };
        let silent = recording(dir.path(), "silent", 0.0);
        let error = how.copy(&silent, 1).unwrap_err().to_string();
        assert!(error.contains("silent.wav: found silence"), "{error}");
        // Without noise, silence can be played faster.
        let faster = Degradation { speed: Some(1.25), ..Degradation::default() };
        assert_eq!(faster.copy(&silent, 1).unwrap().sound.samples, vec![0.0; 12_800]);

        let mut beyond = recording(dir.path(), "a", 0.5);
        beyond.audio.start_s = 9.0;
        assert!(matches!(how.copy(&beyond, 1), Err(Error::Audio(audio::Error::Span { .. }))));
        let missing = Utterance::new("x", dir.path().join("x.wav"), "");
        assert!(matches!(how.copy(&missing, 1), Err(Error::Audio(audio::Error::Open { .. }))));
    }

    #[test]
    fn one_channel_of_several_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stereo.wav");
        let (channels, sample_rate, bits_per_sample) = (2, RATE_HZ, 16);
        let sample_format = hound::SampleFormat::Int;
        let spec = hound::WavSpec { channels, sample_rate, bits_per_sample, sample_format };
        let mut writer = hound::WavWriter::create(&path, spec).unwrap();
        for sample in [1_000_i16; 1_600] {
            writer.write_sample(sample).unwrap();
        }
        writer.finalize().unwrap();
        let mut utterance = Utterance::new("a", path, "");
        let how = Degradation { telephone: true, ..Degradation::default() };
        assert_eq!(how.copy(&utterance, 1).unwrap().sound.samples.len(), 800);
        utterance.audio.channel = Some(1);
        let error = how.copy(&utterance, 1).unwrap_err().to_string();
        assert!(error.contains("stereo.wav: audio.channel: found channel 1 of 2"), "{error}");
    }

    #[test]
    fn settings_that_mean_nothing_are_told() {
        let told = |how: Degradation, part: &str| {
            let problems = how.problems().join("; ");
            assert!(problems.contains(part), "{problems:?}");
        };
        told(Degradation::default(), "expected at least one");
        for speed in [0.0, -1.25, 0.05, 11.0, 1.0, 1.000_5, f64::NAN, f64::INFINITY] {
            told(Degradation { speed: Some(speed), ..Degradation::default() }, "speed is");
        }
        for snr_db in [-41.0, 101.0, f64::NAN, f64::NEG_INFINITY] {
            told(Degradation { noise: noise(snr_db), ..Degradation::default() }, "snr is");
        }
        let fine = Degradation { speed: Some(1.1), noise: noise(-5.0), telephone: true };
        assert_eq!(fine.problems(), Vec::<String>::new());
        let both = Degradation { speed: Some(0.0), noise: noise(1e9), telephone: true };
        assert_eq!(both.problems().len(), 2);
    }
}
