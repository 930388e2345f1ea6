//! Praat's TextGrid, in its long and short text formats.
//!
//! ```text
//! File type = "ooTextFile"            "IntervalTier"        both formats are one sequence of
//! xmin = 0                            "words"               numbers, "strings" and <flags>;
//! intervals [1]:                      0                     what else stands there is for people
//!     text = "the"                    1.2
//! ```
//!
//! So one reader serves both, as in Praat itself: numbers count only when they stand free (`[1]:` does not), and
//! a `!` starts a comment.

use std::{fmt::Write as _, path::Path};

use super::{
    Alignment, Error, Source,
    error::{self, Text},
};

/// A TextGrid file.
#[derive(Debug, Clone, PartialEq)]
pub struct TextGrid {
    /// Where the time axis starts, in seconds.
    pub start_s: f64,
    /// Where it ends.
    pub end_s: f64,
    /// Its tiers, in order.
    pub tiers: Vec<Tier>,
}

/// One tier.
#[derive(Debug, Clone, PartialEq)]
pub struct Tier {
    /// Its name, e.g. `words`.
    pub name: String,
    /// Where the tier starts, in seconds.
    pub start_s: f64,
    /// Where it ends.
    pub end_s: f64,
    /// What it holds.
    pub marks: Marks,
}

/// What a tier holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Marks {
    /// Spans without gaps; silence is a span with an empty text.
    Intervals(Vec<Interval>),
    /// Instants.
    Points(Vec<Point>),
}

/// A span of an interval tier.
#[derive(Debug, Clone, PartialEq)]
pub struct Interval {
    /// In seconds.
    pub start_s: f64,
    /// In seconds.
    pub end_s: f64,
    /// The label; empty for silence.
    pub text: String,
}

/// A mark of a point tier.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// In seconds.
    pub time_s: f64,
    /// The label.
    pub text: String,
}

/// How a TextGrid is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// With names and indentation, for people.
    Long,
    /// Values alone, one a line.
    Short,
}

impl Tier {
    /// A tier of words or phones, its gaps filled with silence up to `end_s` or the last label.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`] when a label starts before the one before has ended (by more than a microsecond;
    /// less is moved), or a time is negative or not finite.
    pub fn from_alignments(
        name: impl Into<String>,
        labels: &[Alignment],
        end_s: f64,
    ) -> Result<Self, Error> {
        const ROUNDING_S: f64 = 1e-6;
        let mut intervals = Vec::new();
        let mut at = 0.0;
        let silence = |start_s, end_s| Interval { start_s, end_s, text: String::new() };
        for label in labels {
            let unwritable = |found, expected| Error::Unwritable {
                format: "TextGrid",
                label: label.label.clone(),
                start_s: label.start_s,
                found,
                expected,
            };
            let Some((start_s, end_s)) = error::span(label.start_s, label.end_s) else {
                let found = format!("times from {} to {} s", label.start_s, label.end_s);
                return Err(unwritable(found, "0 <= start <= end"));
            };
            if start_s < at - ROUNDING_S {
                let found = format!("a start before {at} s, where the label before ends");
                return Err(unwritable(found, "labels in order, without overlap"));
            }
            if start_s > at + ROUNDING_S {
                intervals.push(silence(at, start_s));
                at = start_s;
            }
            let end_s = end_s.max(at);
            intervals.push(Interval { start_s: at, end_s, text: label.label.clone() });
            at = end_s;
        }
        if end_s > at {
            intervals.push(silence(at, end_s));
            at = end_s;
        }
        Ok(Self { name: name.into(), start_s: 0.0, end_s: at, marks: Marks::Intervals(intervals) })
    }

    /// The labels of the tier; silences (empty or white) are left out, a point has no length.
    pub fn alignments(&self, source: &Source) -> Vec<Alignment> {
        let label = |text: &str, start_s, end_s| Alignment {
            label: text.trim().to_owned(),
            start_s,
            end_s,
            confidence: None,
            source: source.clone(),
        };
        match &self.marks {
            Marks::Intervals(intervals) => intervals
                .iter()
                .filter(|interval| !interval.text.trim().is_empty())
                .map(|interval| label(&interval.text, interval.start_s, interval.end_s))
                .collect(),
            Marks::Points(points) => points
                .iter()
                .filter(|point| !point.text.trim().is_empty())
                .map(|point| label(&point.text, point.time_s, point.time_s))
                .collect(),
        }
    }
}

impl TextGrid {
    /// A file of these tiers; the time axis covers all of them.
    pub fn new(tiers: Vec<Tier>) -> Self {
        let start_s = tiers.iter().map(|tier| tier.start_s).fold(f64::INFINITY, f64::min);
        let end_s = tiers.iter().map(|tier| tier.end_s).fold(0.0, f64::max);
        Self { start_s: if start_s.is_finite() { start_s } else { 0.0 }, end_s, tiers }
    }

    /// The first tier of that name, whatever its case.
    pub fn tier(&self, name: &str) -> Option<&Tier> {
        self.tiers.iter().find(|tier| tier.name.eq_ignore_ascii_case(name))
    }

    /// Reads a file in UTF-8 or UTF-16.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Encoding`], [`Error::Malformed`] with the line.
    pub fn read(path: &Path) -> Result<Self, Error> {
        parse(&Text::read(path)?)
    }

    /// Reads the bytes of a file; `name` stands for it in messages.
    ///
    /// # Errors
    ///
    /// As [`TextGrid::read`].
    pub fn decode(bytes: Vec<u8>, name: &str) -> Result<Self, Error> {
        parse(&Text::decode(bytes, name)?)
    }

    /// Writes a file in UTF-8.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn write(&self, path: &Path, layout: Layout) -> Result<(), Error> {
        error::write(path, &self.to_text(layout))
    }

    /// The text that [`TextGrid::write`] writes.
    pub fn to_text(&self, layout: Layout) -> String {
        let mut out = Out { text: String::new(), layout };
        out.text.push_str("File type = \"ooTextFile\"\nObject class = \"TextGrid\"\n\n");
        out.value(0, "xmin = ", self.start_s);
        out.value(0, "xmax = ", self.end_s);
        out.value(0, "tiers? ", "<exists>");
        out.value(0, "size = ", self.tiers.len());
        out.heading(0, "item []:");
        for (i, tier) in self.tiers.iter().enumerate() {
            let (class, kind, n) = match &tier.marks {
                Marks::Intervals(intervals) => ("IntervalTier", "intervals", intervals.len()),
                Marks::Points(points) => ("TextTier", "points", points.len()),
            };
            out.heading(1, &format!("item [{}]:", i + 1));
            out.value(2, "class = ", quoted(class));
            out.value(2, "name = ", quoted(&tier.name));
            out.value(2, "xmin = ", tier.start_s);
            out.value(2, "xmax = ", tier.end_s);
            out.value(2, &format!("{kind}: size = "), n);
            match &tier.marks {
                Marks::Intervals(intervals) => {
                    for (k, interval) in intervals.iter().enumerate() {
                        out.heading(2, &format!("intervals [{}]:", k + 1));
                        out.value(3, "xmin = ", interval.start_s);
                        out.value(3, "xmax = ", interval.end_s);
                        out.value(3, "text = ", quoted(&interval.text));
                    }
                }
                Marks::Points(points) => {
                    for (k, point) in points.iter().enumerate() {
                        out.heading(2, &format!("points [{}]:", k + 1));
                        out.value(3, "number = ", point.time_s);
                        out.value(3, "mark = ", quoted(&point.text));
                    }
                }
            }
        }
        out.text
    }
}

struct Out {
    text: String,
    layout: Layout,
}

impl Out {
    fn heading(&mut self, depth: usize, text: &str) {
        if self.layout == Layout::Long {
            let _ = writeln!(self.text, "{:1$}{text}", "", 4 * depth);
        }
    }

    fn value(&mut self, depth: usize, name: &str, value: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _ = match self.layout {
            Layout::Long => writeln!(self.text, "{:1$}{name}{value} ", "", 4 * depth),
            Layout::Short => writeln!(self.text, "{value}"),
        };
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// What counts in a file.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    Number(f64),
    Text(String),
    Flag(String),
}

impl Token {
    fn describe(&self) -> String {
        match self {
            Self::Number(number) => format!("the number {number}"),
            Self::Text(text) => format!("the text {}", quoted(text)),
            Self::Flag(flag) => format!("the flag <{flag}>"),
        }
    }
}

struct Tokens<'a> {
    source: &'a Text,
    rest: &'a str,
    line: usize,
    /// Line of the last token.
    token_line: usize,
}

impl Tokens<'_> {
    /// The next token; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<Token>, Error> {
        loop {
            let trimmed = self.rest.trim_start();
            self.line += newlines(&self.rest[..self.rest.len() - trimmed.len()]);
            self.rest = trimmed;
            self.token_line = self.line;
            let Some(first) = trimmed.chars().next() else { return Ok(None) };
            if first == '"' {
                return self.string().map(Some);
            }
            if first == '!' {
                self.rest = &trimmed[trimmed.find('\n').unwrap_or(trimmed.len())..];
                continue;
            }
            // A string may follow a word without a space: `text="a"`.
            let end =
                trimmed.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(trimmed.len());
            let (word, rest) = trimmed.split_at(end);
            self.rest = rest;
            if let Some(flag) = word.strip_prefix('<').and_then(|word| word.strip_suffix('>')) {
                return Ok(Some(Token::Flag(flag.to_owned())));
            }
            let starts_number = first.is_ascii_digit() || matches!(first, '-' | '+' | '.');
            if let (true, Ok(number)) = (starts_number, word.parse()) {
                return Ok(Some(Token::Number(number)));
            }
        }
    }

    fn string(&mut self) -> Result<Token, Error> {
        let mut text = String::new();
        let mut rest = &self.rest[1..];
        loop {
            let Some(end) = rest.find('"') else {
                let found = "the end of the file";
                return Err(self.source.malformed(
                    self.token_line,
                    found,
                    "a closing quotation mark",
                ));
            };
            text.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(after) => {
                    text.push('"');
                    rest = after;
                }
                None => break,
            }
        }
        self.line += newlines(&text);
        self.rest = rest;
        Ok(Token::Text(text))
    }

    fn wrong(&self, found: &str, expected: &str) -> Error {
        self.source.malformed(self.token_line, found, expected)
    }

    fn expect<T>(
        &mut self,
        expected: &str,
        take: impl FnOnce(&Token) -> Option<T>,
    ) -> Result<T, Error> {
        match self.next()? {
            None => Err(self.wrong("the end of the file", expected)),
            Some(token) => take(&token).ok_or_else(|| self.wrong(&token.describe(), expected)),
        }
    }

    fn text(&mut self, expected: &str) -> Result<String, Error> {
        self.expect(expected, |token| match token {
            Token::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    fn number(&mut self, expected: &str) -> Result<f64, Error> {
        self.expect(expected, |token| match token {
            Token::Number(number) if number.is_finite() => Some(*number),
            _ => None,
        })
    }

    fn count(&mut self, expected: &str) -> Result<usize, Error> {
        self.expect(expected, |token| match token {
            Token::Number(n) if *n >= 0.0 && n.fract() == 0.0 && *n < 1e9 => Some(*n as usize),
            _ => None,
        })
    }

    /// A start and an end; both in order.
    fn span(&mut self, of: &str) -> Result<(f64, f64), Error> {
        let start_s = self.number(&format!("the start of {of}"))?;
        let expected = format!("the end of {of}, at least {start_s}");
        self.expect(&expected, |token| match token {
            Token::Number(end_s) if end_s.is_finite() && *end_s >= start_s => {
                Some((start_s, *end_s))
            }
            _ => None,
        })
    }
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|&b| b == b'\n').count()
}

fn parse(source: &Text) -> Result<TextGrid, Error> {
    let mut tokens = Tokens { source, rest: &source.text, line: 1, token_line: 1 };
    tokens.expect("\"ooTextFile\"", |token| match token {
        Token::Text(text) => text.starts_with("ooTextFile").then_some(()),
        _ => None,
    })?;
    tokens.expect("\"TextGrid\"", |token| match token {
        Token::Text(text) => (text == "TextGrid").then_some(()),
        _ => None,
    })?;
    let (start_s, end_s) = tokens.span("the file")?;
    let exists = tokens.expect("<exists> or <absent>", |token| match token {
        Token::Flag(flag) => Some(flag == "exists"),
        _ => None,
    })?;
    let mut tiers = Vec::new();
    let n_tiers = if exists { tokens.count("the number of tiers")? } else { 0 };
    for _ in 0..n_tiers {
        tiers.push(tier(&mut tokens)?);
    }
    Ok(TextGrid { start_s, end_s, tiers })
}

fn tier(tokens: &mut Tokens<'_>) -> Result<Tier, Error> {
    let is_intervals = tokens.expect("\"IntervalTier\" or \"TextTier\"", |token| match token {
        Token::Text(class) if class == "IntervalTier" => Some(true),
        Token::Text(class) if class == "TextTier" => Some(false),
        _ => None,
    })?;
    let name = tokens.text("the name of a tier")?;
    let (start_s, end_s) = tokens.span("a tier")?;
    let n = tokens.count("the number of marks of a tier")?;
    let marks = if is_intervals {
        let mut intervals = Vec::new();
        for _ in 0..n {
            let (start_s, end_s) = tokens.span("an interval")?;
            intervals.push(Interval {
                start_s,
                end_s,
                text: tokens.text("the text of an interval")?,
            });
        }
        Marks::Intervals(intervals)
    } else {
        let mut points = Vec::new();
        for _ in 0..n {
            let time_s = tokens.number("the time of a point")?;
            points.push(Point { time_s, text: tokens.text("the text of a point")? });
        }
        Marks::Points(points)
    };
    Ok(Tier { name, start_s, end_s, marks })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::alignment::tests::{fixture, label};

    fn decode(text: &str) -> Result<TextGrid, Error> {
        TextGrid::decode(text.as_bytes().to_vec(), "a.TextGrid")
    }

    fn two_tiers() -> TextGrid {
        let words = [label("say", 0.25, 0.5), label("\"hi\"", 0.5, 1.0)];
        TextGrid::new(vec![
            Tier::from_alignments("words", &words, 1.5).unwrap(),
            Tier {
                name: "clicks".to_owned(),
                start_s: 0.0,
                end_s: 1.5,
                marks: Marks::Points(vec![Point { time_s: 0.75, text: "!".to_owned() }]),
            },
        ])
    }

    #[test]
    fn the_long_format_is_praats() {
        let text = two_tiers().to_text(Layout::Long);
        let expected = r#"File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0 
xmax = 1.5 
tiers? <exists> 
size = 2 
item []:
    item [1]:
        class = "IntervalTier" 
        name = "words" 
        xmin = 0 
        xmax = 1.5 
        intervals: size = 4 
        intervals [1]:
            xmin = 0 
            xmax = 0.25 
            text = "" 
        intervals [2]:
            xmin = 0.25 
            xmax = 0.5 
            text = "say" 
        intervals [3]:
            xmin = 0.5 
            xmax = 1 
            text = """hi""" 
"#;
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(decode(&text).unwrap(), two_tiers());
    }

    #[test]
    fn the_short_format_is_values_alone() {
        let text = two_tiers().to_text(Layout::Short);
        assert!(text.contains("\"IntervalTier\"\n\"words\"\n0\n1.5\n4\n0\n0.25\n\"\"\n"), "{text}");
        assert_eq!(decode(&text).unwrap(), two_tiers());
    }

    #[test]
    fn every_encoding_is_read() {
        let grid = TextGrid::new(vec![
            Tier::from_alignments("wörter", &[label("grün", 0.0, 1.0)], 1.0).unwrap(),
        ]);
        let text = grid.to_text(Layout::Long).replace('\n', "\r\n");
        let utf16 = |mark: [u8; 2], bytes: fn(u16) -> [u8; 2]| {
            mark.into_iter().chain(text.encode_utf16().flat_map(bytes)).collect::<Vec<u8>>()
        };
        for bytes in [
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            utf16([0xff, 0xfe], u16::to_le_bytes),
            utf16([0xfe, 0xff], u16::to_be_bytes),
        ] {
            assert_eq!(TextGrid::decode(bytes, "a").unwrap(), grid);
        }
        let error = TextGrid::decode(b"\xff\xfea".to_vec(), "a").unwrap_err();
        assert!(error.to_string().contains("not UTF-16"), "{error}");
    }

    #[test]
    fn comments_and_texts_of_several_lines_are_read() {
        let text = "\"ooTextFile short\"\n\"TextGrid\" ! made \"by hand\" 7\n0 2\n<exists> 1\n\
                    \"IntervalTier\" \"a\" 0 2 1\n0 2 \"one\ntwo\"";
        let grid = decode(text).unwrap();
        assert_eq!(
            grid.tier("A").unwrap().alignments(&Source::Exact),
            [label("one\ntwo", 0.0, 2.0)]
        );
    }

    #[test]
    fn errors_name_line_found_and_expected() {
        for (text, expected) in [
            ("", "a.TextGrid:1: found the end of the file, expected \"ooTextFile\""),
            (
                "\"ooTextFile\"\n\"Pitch\"",
                "a.TextGrid:2: found the text \"Pitch\", expected \"TextGrid\"",
            ),
            (
                "\"ooTextFile\"\n\"TextGrid\"\n5\n4",
                "a.TextGrid:4: found the number 4, expected the end of the file, at least 5",
            ),
            (
                "\"ooTextFile\"\n\"TextGrid\"\n0 4\n<exists>\n1.5",
                "a.TextGrid:5: found the number 1.5, expected the number of tiers",
            ),
            (
                "\"ooTextFile\"\n\"TextGrid\"\n0 4\n<exists>\n1 \"IntervalTier\" \"a\n\nb",
                "a.TextGrid:5: found the end of the file, expected a closing quotation mark",
            ),
            (
                "\"ooTextFile\"\n\"TextGrid\"\n0 4\n<exists>\n1\n\"TextTier\" \"a\" 0 4 1\n<x>",
                "a.TextGrid:7: found the flag <x>, expected the time of a point",
            ),
        ] {
            assert_eq!(decode(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn overlapping_labels_cannot_be_written() {
        let labels = [label("a", 0.0, 1.0), label("b", 0.5, 2.0)];
        let error = Tier::from_alignments("words", &labels, 2.0).unwrap_err().to_string();
        assert!(error.contains("`b` at 0.5 s") && error.contains("without overlap"), "{error}");
        let error = Tier::from_alignments("words", &[label("a", -1.0, 0.0)], 2.0).unwrap_err();
        assert!(error.to_string().contains("0 <= start <= end"), "{error}");
    }

    #[test]
    fn files_of_praat_are_read() {
        let Some(dir) = fixture("praatio") else { return };
        let words = TextGrid::read(&dir.join("bobby_words.TextGrid")).unwrap();
        assert_eq!(words.tiers.len(), 2);
        let labels = words.tier("word").unwrap().alignments(&Source::Exact);
        let texts: Vec<&str> = labels.iter().map(|l| l.label.as_str()).collect();
        assert_eq!(texts, ["BOBBY", "RIPPED", "THE", "LEDGER"]);
        assert_eq!((labels[0].start_s, labels[0].end_s), (0.06469123242311078, 0.41156462585));
        // Short format, three tiers, CRLF.
        let mary = TextGrid::read(&dir.join("mary.TextGrid")).unwrap();
        assert_eq!(mary.tiers.len(), 3);
        assert_eq!(mary.tier("phone").unwrap().alignments(&Source::Exact)[1].label, "ə");
        for grid in [words, mary] {
            for layout in [Layout::Long, Layout::Short] {
                assert_eq!(decode(&grid.to_text(layout)).unwrap(), grid);
            }
        }
    }

    fn marks() -> impl Strategy<Value = Marks> {
        // Strings with quotes, flags, numbers, comments and line ends.
        let text = "[a-zé\"! <>0-9.=\n]{0,8}";
        let intervals = proptest::collection::vec((0.0..9.0_f64, 0.0..5.0_f64, text), 0..6)
            .prop_map(|marks| {
                marks
                    .into_iter()
                    .map(|(start_s, length, text)| Interval {
                        start_s,
                        end_s: start_s + length,
                        text,
                    })
                    .collect()
            })
            .prop_map(Marks::Intervals);
        let points = proptest::collection::vec((0.0..9.0_f64, text), 0..6)
            .prop_map(|marks| {
                marks.into_iter().map(|(time_s, text)| Point { time_s, text }).collect()
            })
            .prop_map(Marks::Points);
        prop_oneof![intervals, points]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_read(tiers in proptest::collection::vec(("[a-z\" ]{0,5}", marks()), 0..4)) {
            let tiers = tiers.into_iter()
                .map(|(name, marks)| Tier { name, start_s: 0.0, end_s: 20.0, marks }).collect();
            let grid = TextGrid::new(tiers);
            for layout in [Layout::Long, Layout::Short] {
                prop_assert_eq!(&decode(&grid.to_text(layout)).unwrap(), &grid);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = TextGrid::decode(bytes, "a");
        }

        #[test]
        fn no_text_makes_it_panic(text in "\"ooTextFile\" \"TextGrid\" [0-9. \"<>a-z!\n-]{0,80}") {
            let _ = decode(&text);
        }
    }
}
