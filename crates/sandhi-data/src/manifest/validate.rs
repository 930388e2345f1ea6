//! Validation: decode everything, count it, and list what is bad and why.
//!
//! ```text
//! utterances ─ by file ─ decode once, in parallel ─┬─ hours, rates, lengths, words
//!                                                  └─ bad: damaged, silent, outside of its file …
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use rayon::prelude::*;
use serde::Serialize;

use super::Utterance;
use crate::audio::{AudioInfo, Blocks, Error, SILENT_PEAK, SPAN_TOLERANCE_S, probe};

/// Shorter sound has not one analysis window.
const SHORTEST_S: f64 = 0.025;

/// Nobody speaks more words in a second; more means that text and sound do not belong together.
const FASTEST_WORDS_PER_S: f64 = 9.0;

/// A larger share of samples at full scale is heard as distortion.
const MOST_CLIPPED: f64 = 0.01;

/// Upper ends of the length histogram, in seconds; a last bin is open.
const BIN_ENDS_S: [f64; 10] = [0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 20.0, 30.0, 60.0];

/// What a data set holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Validation {
    /// Utterances looked at.
    pub n_utterances: usize,
    /// Utterances that can be used; all numbers below are about these.
    pub n_valid: usize,
    /// Sound files read.
    pub n_files: usize,
    /// Hours of speech.
    pub hours: f64,
    /// Utterances by sample rate in Hz.
    pub sample_rates_hz: BTreeMap<u32, usize>,
    /// Utterances by channels of their file.
    pub channels: BTreeMap<usize, usize>,
    /// Utterances by container.
    pub formats: BTreeMap<&'static str, usize>,
    /// Lengths; absent when nothing is valid.
    pub durations: Option<Durations>,
    /// About the transcripts.
    pub text: TextStats,
    /// Distinct speakers, where they are known.
    pub n_speakers: usize,
    /// Utterances by language, where it is known.
    pub languages: BTreeMap<String, usize>,
    /// Utterances by part, where it is known.
    pub splits: BTreeMap<String, usize>,
    /// What cannot be used, in the order of the manifest.
    pub bad: Vec<Bad>,
    /// What can be used and should be looked at.
    pub suspicious: Vec<Bad>,
}

/// Lengths of utterances, in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Durations {
    /// Shortest.
    pub min_s: f64,
    /// Half are shorter.
    pub median_s: f64,
    /// Average.
    pub mean_s: f64,
    /// One in twenty is longer.
    pub p95_s: f64,
    /// Longest.
    pub max_s: f64,
    /// How many there are of which length.
    pub histogram: Vec<Bin>,
}

/// One bar of a histogram.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bin {
    /// From this length.
    pub from_s: f64,
    /// To below this length; none for the last.
    pub to_s: Option<f64>,
    /// Utterances.
    pub n: usize,
}

/// About transcripts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TextStats {
    /// Utterances without text.
    pub n_empty: usize,
    /// Words (runs without white space).
    pub n_words: usize,
    /// Distinct words.
    pub n_distinct_words: usize,
    /// Characters.
    pub n_characters: usize,
    /// All characters that occur, in code point order.
    pub characters: String,
    /// Words per second over utterances that have text; 0 without any.
    pub words_per_s: f64,
}

/// An utterance with what is wrong about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bad {
    /// The utterance.
    pub id: String,
    /// Its sound file.
    pub path: PathBuf,
    /// What was found and what was expected.
    pub why: String,
}

/// What decoding says of one utterance.
struct Measured {
    info: AudioInfo,
    duration_s: f64,
    clipped: f64,
}

/// Decodes the sound of all utterances in parallel and sums up.
///
/// `on_progress(n_done, n_utterances)` is called from several threads, once per sound file.
pub fn validate(utterances: &[Utterance], on_progress: impl Fn(usize, usize) + Sync) -> Validation {
    let mut files: Vec<(&Path, Vec<usize>)> = Vec::new();
    let mut known: HashMap<&Path, usize> = HashMap::new();
    for (i, utterance) in utterances.iter().enumerate() {
        let path = utterance.audio.path.as_path();
        let at = *known.entry(path).or_insert_with(|| {
            files.push((path, Vec::new()));
            files.len() - 1
        });
        files[at].1.push(i);
    }

    let n_done = AtomicUsize::new(0);
    let mut measured: Vec<(usize, Result<Measured, String>)> = files
        .par_iter()
        .flat_map_iter(|(path, indices)| {
            let spans: Vec<&Utterance> = indices.iter().map(|&i| &utterances[i]).collect();
            let found = measure(path, &spans);
            let n = n_done.fetch_add(indices.len(), Ordering::Relaxed) + indices.len();
            on_progress(n, utterances.len());
            indices.clone().into_iter().zip(found)
        })
        .collect();
    measured.sort_by_key(|(i, _)| *i);
    summarize(utterances, files.len(), measured)
}

/// Decodes a file once and measures all utterances in it.
fn measure(path: &Path, utterances: &[&Utterance]) -> Vec<Result<Measured, String>> {
    match decode(path, utterances) {
        Ok(measured) => measured,
        Err(error) => utterances.iter().map(|_| Err(error.to_string())).collect(),
    }
}

fn decode(path: &Path, utterances: &[&Utterance]) -> Result<Vec<Result<Measured, String>>, Error> {
    let info = probe(path)?;
    let rate = f64::from(info.sample_rate_hz);
    let mut levels = vec![(0.0_f32, 0_usize); utterances.len()];
    let bounds: Vec<(usize, usize)> = utterances
        .iter()
        .map(|utterance| {
            // Float to integer conversions saturate, so that "to the end" is the largest index.
            let start_s = utterance.audio.start_s;
            let end_s = start_s + utterance.audio.duration_s.unwrap_or(f64::INFINITY);
            ((start_s * rate).round() as usize, (end_s * rate).round() as usize)
        })
        .collect();
    let mut n_samples = 0;
    for block in Blocks::open(path, info.sample_rate_hz, 1 << 16)? {
        let block = block?;
        let end = n_samples + block.len();
        for (&(from, to), (peak, n_clipped)) in bounds.iter().zip(&mut levels) {
            let (from, to) = (from.max(n_samples), to.min(end));
            if from < to {
                for sample in &block[from - n_samples..to - n_samples] {
                    *peak = peak.max(sample.abs());
                    *n_clipped += usize::from(sample.abs() >= 0.999);
                }
            }
        }
        n_samples = end;
    }
    let file_s = n_samples as f64 / rate;
    let judged = utterances.iter().zip(levels).map(|(utterance, (peak, n_clipped))| {
        let duration_s = judge(utterance, &info, file_s, peak)?;
        let clipped = n_clipped as f64 / (duration_s * rate).max(1.0);
        Ok(Measured { info: info.clone(), duration_s, clipped })
    });
    Ok(judged.collect())
}

/// The length of an utterance, or why it cannot be used.
fn judge(utterance: &Utterance, info: &AudioInfo, file_s: f64, peak: f32) -> Result<f64, String> {
    let audio = &utterance.audio;
    let end_s = audio.duration_s.map_or(file_s, |duration_s| audio.start_s + duration_s);
    if audio.start_s >= file_s || end_s > file_s + SPAN_TOLERANCE_S {
        let start_s = audio.start_s;
        return Err(format!(
            "audio: found {file_s:.3} s in the file, expected the utterance from {start_s:.3} s to \
             {end_s:.3} s inside"
        ));
    }
    if let Some(channel) = audio.channel.filter(|_| info.n_channels > 1) {
        let n = info.n_channels;
        return Err(format!(
            "audio.channel: found channel {channel} of {n}, expected a file of one channel (several \
             are mixed when read; split the file)"
        ));
    }
    let duration_s = end_s.min(file_s) - audio.start_s;
    if duration_s < SHORTEST_S {
        return Err(format!("audio: found {duration_s:.4} s, expected at least {SHORTEST_S} s"));
    }
    if peak < SILENT_PEAK {
        return Err(format!("audio: found silence (peak {peak:e}), expected sound"));
    }
    match utterance.words.iter().find(|word| word.end_s > duration_s + SPAN_TOLERANCE_S) {
        Some(word) => Err(format!(
            "words: found {:?} ending at {:.3} s, expected the end of the utterance at {duration_s:.3} s",
            word.label, word.end_s
        )),
        None => Ok(duration_s),
    }
}

fn summarize(
    utterances: &[Utterance],
    n_files: usize,
    measured: Vec<(usize, Result<Measured, String>)>,
) -> Validation {
    let mut validation = Validation {
        n_utterances: utterances.len(),
        n_valid: 0,
        n_files,
        hours: 0.0,
        sample_rates_hz: BTreeMap::new(),
        channels: BTreeMap::new(),
        formats: BTreeMap::new(),
        durations: None,
        text: TextStats::default(),
        n_speakers: 0,
        languages: BTreeMap::new(),
        splits: BTreeMap::new(),
        bad: Vec::new(),
        suspicious: Vec::new(),
    };
    let (mut words, mut characters) = (BTreeSet::new(), BTreeSet::new());
    let mut speakers = BTreeSet::new();
    let mut lengths_s = Vec::new();
    let mut spoken_s = 0.0;
    for (i, measured) in measured {
        let utterance = &utterances[i];
        let bad =
            |why: String| Bad { id: utterance.id.clone(), path: utterance.audio.path.clone(), why };
        let Measured { info, duration_s, clipped } = match measured {
            Ok(measured) => measured,
            Err(why) => {
                validation.bad.push(bad(why));
                continue;
            }
        };
        lengths_s.push(duration_s);
        *validation.sample_rates_hz.entry(info.sample_rate_hz).or_default() += 1;
        *validation.channels.entry(info.n_channels).or_default() += 1;
        *validation.formats.entry(info.format).or_default() += 1;
        for (count, name) in [
            (&mut validation.languages, &utterance.language),
            (&mut validation.splits, &utterance.split),
        ] {
            if let Some(name) = name {
                *count.entry(name.clone()).or_default() += 1;
            }
        }
        speakers.extend(utterance.speaker.as_deref());
        let n_words = utterance.text.split_whitespace().count();
        words.extend(utterance.text.split_whitespace());
        characters.extend(utterance.text.chars());
        validation.text.n_words += n_words;
        validation.text.n_characters += utterance.text.chars().count();
        if n_words == 0 {
            validation.text.n_empty += 1;
        } else {
            spoken_s += duration_s;
        }
        if n_words as f64 > FASTEST_WORDS_PER_S * duration_s.max(1.0) {
            let why = format!(
                "text: found {n_words} words in {duration_s:.2} s, expected at most \
                 {FASTEST_WORDS_PER_S} a second"
            );
            validation.suspicious.push(bad(why));
        }
        if clipped > MOST_CLIPPED {
            let share = clipped * 100.0;
            let why =
                format!("audio: found {share:.1} % of samples at full scale, expected below 1 %");
            validation.suspicious.push(bad(why));
        }
    }
    validation.n_valid = lengths_s.len();
    validation.hours = lengths_s.iter().fold(0.0, |sum, s| sum + s) / 3_600.0;
    validation.durations = durations(lengths_s);
    validation.text.n_distinct_words = words.len();
    validation.text.characters = characters.into_iter().collect();
    if spoken_s > 0.0 {
        validation.text.words_per_s = validation.text.n_words as f64 / spoken_s;
    }
    validation.n_speakers = speakers.len();
    validation
}

fn durations(mut lengths_s: Vec<f64>) -> Option<Durations> {
    lengths_s.sort_by(f64::total_cmp);
    let (&min_s, &max_s) = (lengths_s.first()?, lengths_s.last()?);
    let n = lengths_s.len();
    let at = |share: f64| lengths_s[((n - 1) as f64 * share).round() as usize];
    let mut histogram = Vec::new();
    let mut from_s = 0.0;
    for to_s in BIN_ENDS_S.into_iter().map(Some).chain([None]) {
        let in_bin = |length: &&f64| **length >= from_s && to_s.is_none_or(|to_s| **length < to_s);
        histogram.push(Bin { from_s, to_s, n: lengths_s.iter().filter(in_bin).count() });
        from_s = to_s.unwrap_or(from_s);
    }
    // Bins beyond the longest say nothing.
    while histogram.len() > 1 && histogram.last().is_some_and(|bin| bin.n == 0) {
        histogram.pop();
    }
    let mean_s = lengths_s.iter().sum::<f64>() / n as f64;
    Some(Durations { min_s, median_s: at(0.5), mean_s, p95_s: at(0.95), max_s, histogram })
}

/// A summary for people, several lines.
impl fmt::Display for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = |counts: Vec<(String, usize)>| {
            let shown: Vec<_> = counts.iter().map(|(what, n)| format!("{what}: {n}")).collect();
            shown.join(", ")
        };
        let Self { n_utterances, n_valid, n_files, hours, .. } = self;
        writeln!(
            f,
            "{n_valid} of {n_utterances} utterances are valid: {hours:.3} h in {n_files} files"
        )?;
        let rates = self.sample_rates_hz.iter().map(|(rate, n)| (format!("{rate} Hz"), *n));
        writeln!(f, "rates       {}", counts(rates.collect()))?;
        let channels = self.channels.iter().map(|(channels, n)| (channels.to_string(), *n));
        writeln!(f, "channels    {}", counts(channels.collect()))?;
        let formats = self.formats.iter().map(|(format, n)| ((*format).to_owned(), *n));
        writeln!(f, "formats     {}", counts(formats.collect()))?;
        for (name, map) in [("languages", &self.languages), ("splits", &self.splits)] {
            if !map.is_empty() {
                let map = map.iter().map(|(what, n)| (what.clone(), *n));
                writeln!(f, "{name:11} {}", counts(map.collect()))?;
            }
        }
        let TextStats { n_words, n_distinct_words, n_empty, words_per_s, .. } = &self.text;
        writeln!(
            f,
            "text        {n_words} words ({n_distinct_words} distinct, {words_per_s:.2} a second), \
             {n_empty} empty"
        )?;
        if let Some(Durations { min_s, median_s, mean_s, p95_s, max_s, histogram }) =
            &self.durations
        {
            writeln!(
                f,
                "lengths     {min_s:.2} to {max_s:.2} s, median {median_s:.2}, mean {mean_s:.2}, \
                 95 % below {p95_s:.2}"
            )?;
            let most = histogram.iter().map(|bin| bin.n).max().unwrap_or(0).max(1);
            for Bin { from_s, to_s, n } in histogram {
                let to = to_s.map_or("…".to_owned(), |to_s| format!("{to_s}"));
                let bar = "█".repeat((n * 40).div_ceil(most));
                writeln!(f, "  {:>10} s {n:>8} {bar}", format!("{from_s}–{to}"))?;
            }
        }
        for (title, list) in [("bad", &self.bad), ("suspicious", &self.suspicious)] {
            if !list.is_empty() {
                writeln!(f, "{} {title}:", list.len())?;
            }
            for Bad { id, why, .. } in list {
                writeln!(f, "  {id}: {why}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{
        alignment::{Alignment, Source},
        audio::Waveform,
    };

    /// A tone of this many samples at 8 kHz.
    fn write(folder: &Path, name: &str, n_samples: usize, amplitude: f32) -> PathBuf {
        let samples = (0..n_samples).map(|i| amplitude * (i as f32 * 0.5).sin()).collect();
        let path = folder.join(name);
        Waveform::new(samples, 8_000).write_wav(&path).unwrap();
        path
    }

    #[test]
    fn good_utterances_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let long = write(folder.path(), "long.wav", 80_000, 0.5);
        let short = write(folder.path(), "short.wav", 4_000, 0.5);
        let mut first = Utterance::new("a", &long, "two words");
        first.audio.start_s = 1.0;
        first.audio.duration_s = Some(3.0);
        first.speaker = Some("s".into());
        let mut second = Utterance::new("b", &long, "two");
        second.audio.start_s = 4.0;
        second.language = Some("en".into());
        let third = Utterance::new("c", &short, "");

        let progress = Mutex::new(Vec::new());
        let validation =
            validate(&[first, second, third], |n, of| progress.lock().unwrap().push((n, of)));
        assert_eq!((validation.bad.len(), validation.suspicious.len()), (0, 0), "{validation}");
        assert_eq!((validation.n_valid, validation.n_files, validation.n_speakers), (3, 2, 1));
        // 3 + 6 + 0.5 s.
        assert!((validation.hours * 3_600.0 - 9.5).abs() < 1e-9);
        assert_eq!(validation.sample_rates_hz, [(8_000, 3)].into());
        let lengths = validation.durations.as_ref().unwrap();
        assert_eq!((lengths.min_s, lengths.median_s, lengths.max_s), (0.5, 3.0, 6.0));
        let bins: Vec<_> = lengths.histogram.iter().map(|bin| bin.n).collect();
        assert_eq!(bins, [0, 1, 0, 1, 1]);
        let TextStats { n_words, n_distinct_words, n_empty, words_per_s, .. } = validation.text;
        assert_eq!((n_words, n_distinct_words, n_empty), (3, 2, 1));
        assert!((words_per_s - 3.0 / 9.0).abs() < 1e-9);
        let mut progress = progress.into_inner().unwrap();
        progress.sort_unstable();
        assert_eq!(progress.last(), Some(&(3, 3)));
    }

    #[track_caller]
    fn check_bad(utterance: Utterance, why: &str) {
        let validation = validate(&[utterance], |_, _| {});
        assert_eq!((validation.n_valid, validation.durations.is_none()), (0, true));
        assert!(validation.bad[0].why.contains(why), "{}", validation.bad[0].why);
    }

    #[test]
    fn what_cannot_be_used_is_listed_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let tone = write(folder.path(), "tone.wav", 8_000, 0.5);
        let utterance = |path: &Path| Utterance::new("u", path, "text");
        check_bad(utterance(&folder.path().join("none.wav")), "none.wav");
        let text = folder.path().join("text.wav");
        std::fs::write(&text, "hello").unwrap();
        check_bad(utterance(&text), "text.wav");
        check_bad(utterance(&write(folder.path(), "silent.wav", 8_000, 0.0)), "found silence");
        check_bad(utterance(&write(folder.path(), "one.wav", 1, 0.5)), "found 0.0001 s");

        let mut late = utterance(&tone);
        late.audio.start_s = 0.5;
        late.audio.duration_s = Some(0.6);
        check_bad(
            late.clone(),
            "found 1.000 s in the file, expected the utterance from 0.500 s to 1.100 s",
        );
        late.audio.start_s = 2.0;
        check_bad(late, "inside");
        let mut words = utterance(&tone);
        words.words.push(Alignment {
            label: "x".into(),
            start_s: 0.5,
            end_s: 1.5,
            confidence: None,
            source: Source::Silver,
        });
        check_bad(words, "found \"x\" ending at 1.500 s");

        let bytes = std::fs::read(&tone).unwrap();
        let cut = folder.path().join("cut.wav");
        std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
        check_bad(utterance(&cut), "truncated");
    }

    #[test]
    fn what_looks_odd_is_listed_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let loud = write(folder.path(), "loud.wav", 8_000, 3.0);
        let validation = validate(&[Utterance::new("u", &loud, "a ".repeat(30))], |_, _| {});
        assert_eq!((validation.n_valid, validation.bad.len()), (1, 0));
        let why: Vec<_> = validation.suspicious.iter().map(|bad| bad.why.as_str()).collect();
        assert!(why[0].starts_with("text: found 30 words in 1.00 s"), "{why:?}");
        assert!(why[1].contains("at full scale"), "{why:?}");
    }

    #[test]
    fn a_channel_cannot_be_chosen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("two.wav");
        let spec = hound::WavSpec {
            channels: 2,
            sample_rate: 8_000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(&path, spec).unwrap();
        for i in 0..16_000 {
            writer.write_sample((i % 50 * 100) as i16).unwrap();
        }
        writer.finalize().unwrap();
        let mut utterance = Utterance::new("u", &path, "text");
        let validation = validate(std::slice::from_ref(&utterance), |_, _| {});
        assert_eq!(validation.channels, [(2, 1)].into());
        utterance.audio.channel = Some(1);
        check_bad(utterance, "found channel 1 of 2");
    }

    #[test]
    fn nothing_is_a_data_set_too() {
        let validation = validate(&[], |_, _| {});
        assert_eq!((validation.n_valid, validation.hours), (0, 0.0));
        assert!(validation.to_string().starts_with("0 of 0 utterances"));
        assert!(serde_json::to_string(&validation).unwrap().contains("\"durations\":null"));
    }
}
