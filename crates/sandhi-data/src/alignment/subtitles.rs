//! Subtitles from timed words: SubRip (`.srt`) and WebVTT (`.vtt`).
//!
//! ```text
//! words ── lines of at most 42 characters and 6 seconds, cut at pauses and at full stops ── cues
//! ```

use std::fmt::Write as _;

use super::Alignment;

/// A text that is shown for some time.
#[derive(Debug, Clone, PartialEq)]
pub struct Cue {
    /// When it appears, in seconds.
    pub start_s: f64,
    /// When it disappears, in seconds.
    pub end_s: f64,
    /// The text.
    pub text: String,
}

/// How words are gathered into cues.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CueConfig {
    /// The most characters of a cue; a longer word stands alone.
    pub max_chars: usize,
    /// The longest time from the first word's start to the last word's end, in seconds.
    pub max_duration_s: f64,
    /// A pause of that many seconds starts a new cue.
    pub max_pause_s: f64,
}

impl Default for CueConfig {
    /// One line of television subtitles.
    fn default() -> Self {
        Self { max_chars: 42, max_duration_s: 6.0, max_pause_s: 0.8 }
    }
}

/// Gathers words into cues, in order.
pub fn cues(words: &[Alignment], config: CueConfig) -> Vec<Cue> {
    let mut cues: Vec<Cue> = Vec::new();
    for word in words {
        if let Some(cue) = cues.last_mut() {
            let n_chars = cue.text.chars().count() + 1 + word.label.chars().count();
            let continues = n_chars <= config.max_chars
                && word.end_s - cue.start_s <= config.max_duration_s
                && word.start_s - cue.end_s < config.max_pause_s
                && !cue.text.ends_with(['.', '?', '!']);
            if continues {
                cue.text.push(' ');
                cue.text.push_str(&word.label);
                cue.end_s = cue.end_s.max(word.end_s);
                continue;
            }
        }
        cues.push(Cue { start_s: word.start_s, end_s: word.end_s, text: word.label.clone() });
    }
    cues
}

/// SubRip.
pub fn to_srt(cues: &[Cue]) -> String {
    let mut out = String::new();
    for (i, cue) in cues.iter().enumerate() {
        let (start, end) = (time(cue.start_s, ','), time(cue.end_s, ','));
        // Writing to a string cannot fail.
        let _ = write!(out, "{}\n{start} --> {end}\n{}\n\n", i + 1, one_line(&cue.text));
    }
    out
}

/// WebVTT; `&`, `<` and `>` are escaped.
pub fn to_vtt(cues: &[Cue]) -> String {
    let mut out = String::from("WEBVTT\n\n");
    for cue in cues {
        let (start, end) = (time(cue.start_s, '.'), time(cue.end_s, '.'));
        let text =
            one_line(&cue.text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = write!(out, "{start} --> {end}\n{text}\n\n");
    }
    out
}

/// An empty line would end the cue.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `01:02:03,456`; times before 0 are 0.
fn time(seconds: f64, separator: char) -> String {
    let milliseconds = (seconds.max(0.0) * 1e3).round() as u64;
    let (whole_s, ms) = (milliseconds / 1_000, milliseconds % 1_000);
    let (hours, minutes, seconds) = (whole_s / 3_600, whole_s / 60 % 60, whole_s % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}{separator}{ms:03}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alignment::tests::label;

    #[test]
    fn formats_are_as_specified() {
        let cues = [
            Cue { start_s: 0.0005, end_s: 1.9996, text: "one\n\ntwo".to_owned() },
            Cue { start_s: 3_723.456, end_s: 3_724.0, text: "a <b> & c --> d".to_owned() },
        ];
        assert_eq!(
            to_srt(&cues),
            "1\n00:00:00,001 --> 00:00:02,000\none two\n\n\
             2\n01:02:03,456 --> 01:02:04,000\na <b> & c --> d\n\n"
        );
        assert_eq!(
            to_vtt(&cues),
            "WEBVTT\n\n00:00:00.001 --> 00:00:02.000\none two\n\n\
             01:02:03.456 --> 01:02:04.000\na &lt;b&gt; &amp; c --&gt; d\n\n"
        );
    }

    #[test]
    fn cues_end_at_pauses_stops_and_limits() {
        let words = [
            label("Anna", 0.0, 0.5),
            label("sings.", 0.5, 1.0),
            label("Ben", 1.1, 1.5),
            label("sleeps", 1.5, 2.0),
            label("now", 3.0, 3.5),
        ];
        let texts = |config| -> Vec<String> {
            cues(&words, config).into_iter().map(|cue| cue.text).collect()
        };
        assert_eq!(texts(CueConfig::default()), ["Anna sings.", "Ben sleeps", "now"]);
        let narrow = CueConfig { max_chars: 9, ..Default::default() };
        assert_eq!(texts(narrow), ["Anna", "sings.", "Ben", "sleeps", "now"]);
        let patient = CueConfig { max_pause_s: 5.0, max_duration_s: 1.0, ..Default::default() };
        assert_eq!(texts(patient), ["Anna sings.", "Ben sleeps", "now"]);
        let all = cues(&words, CueConfig { max_pause_s: 5.0, ..Default::default() });
        assert_eq!((all[1].start_s, all[1].end_s), (1.1, 3.5));
    }
}
