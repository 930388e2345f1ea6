//! Subtitles from timed words: SubRip (`.srt`) and WebVTT (`.vtt`).
//!
//! ```text
//! words ── lines of at most 42 characters and 6 seconds, cut at pauses and at full stops ── cues
//! ```

use std::{fmt::Write as _, path::Path};

use super::{
    Alignment, Error,
    error::{self, Text},
};

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

/// Reads a file in either format: what is no cue (numbers, headers, notes, styles) is passed over, marks like `<i>` are
/// taken out of WebVTT's text.
///
/// # Errors
///
/// [`Error::Io`], [`Error::Encoding`], [`Error::Malformed`] with the line.
pub fn read(path: &Path) -> Result<Vec<Cue>, Error> {
    parse(&Text::read(path)?)
}

/// Reads the bytes of a file; `name` stands for it in messages.
///
/// # Errors
///
/// As [`read`].
pub fn decode(bytes: Vec<u8>, name: &str) -> Result<Vec<Cue>, Error> {
    parse(&Text::decode(bytes, name)?)
}

fn parse(text: &Text) -> Result<Vec<Cue>, Error> {
    let is_vtt = text.text.starts_with("WEBVTT");
    let mut cues = Vec::new();
    let mut lines = text.text.lines().enumerate();
    while let Some((i, line)) = lines.next() {
        let Some((start, rest)) = line.split_once("-->") else { continue };
        // Behind the end may stand where the cue is shown.
        let end = rest.split_whitespace().next().unwrap_or_default();
        let time = |found: &str| {
            let expected = "a time like 01:02:03,456";
            seconds(found.trim())
                .ok_or_else(|| text.malformed(i + 1, format!("`{found}`"), expected))
        };
        let Some((start_s, end_s)) = error::span(time(start)?, time(end)?) else {
            return Err(text.malformed(i + 1, format!("`{line}`"), "an end behind the start"));
        };
        let spoken =
            lines.by_ref().map(|(_, line)| line).take_while(|line| !line.trim().is_empty());
        let spoken = spoken.collect::<Vec<_>>().join(" ");
        let text = if is_vtt { unmarked(&spoken) } else { spoken };
        cues.push(Cue { start_s, end_s, text: one_line(&text) });
    }
    Ok(cues)
}

/// WebVTT's text without its marks.
fn unmarked(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        match c {
            '<' => inside = true,
            '>' if inside => inside = false,
            _ if !inside => plain.push(c),
            _ => {}
        }
    }
    plain.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", " ").replace("&amp;", "&")
}

/// `01:02:03,456`, `02:03.456`.
fn seconds(time: &str) -> Option<f64> {
    let (clock, milliseconds) = time.split_once([',', '.'])?;
    let digits = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse::<u32>().ok()).flatten()
    };
    let mut fields = clock.split(':').rev().map(digits);
    let (seconds, minutes) = (fields.next()??, fields.next()??);
    let hours = fields.next().unwrap_or(Some(0))?;
    if fields.next().is_some() || milliseconds.len() != 3 || seconds > 59 || minutes > 59 {
        return None;
    }
    let whole = f64::from(hours) * 3_600.0 + f64::from(60 * minutes + seconds);
    Some(whole + f64::from(digits(milliseconds)?) / 1e3)
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
    fn what_is_written_is_read_again() {
        let cues = [
            Cue { start_s: 0.5, end_s: 1.999, text: "one & <two>".to_owned() },
            Cue { start_s: 3_723.456, end_s: 3_724.0, text: "three".to_owned() },
        ];
        for text in [to_srt(&cues), to_vtt(&cues)] {
            assert_eq!(decode(text.into_bytes(), "x").unwrap(), cues);
        }
        let others = "WEBVTT - by hand\n\nNOTE not this\n\nintro\n00:01.000 --> 00:02.500 align:start\n\
                      <v Anna>Well,\nno</v>\n";
        let found = decode(others.into(), "x").unwrap();
        assert_eq!(found, [Cue { start_s: 1.0, end_s: 2.5, text: "Well, no".to_owned() }]);
        for wrong in ["1:2 --> 00:00:03,000", "00:00:02,000 --> 00:00:01,000", "00:61:00,000 --> x"]
        {
            let error = decode(format!("1\n{wrong}\na\n").into(), "x.srt").unwrap_err();
            assert!(error.to_string().starts_with("x.srt:2: found"), "{error}");
        }
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
