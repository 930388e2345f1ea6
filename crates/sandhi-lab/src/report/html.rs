//! Text that goes into a page: escaped, and numbers as people read them.

use std::fmt::{self, Display};

use crate::results::{CASCADE, RECOVERED, TEXT};

/// Text, written with everything escaped that could be markup in an element or an attribute.
pub(crate) struct Text<'a>(pub(crate) &'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Not allowed in HTML, not even escaped.
                '\0'..='\x08' | '\x0b'..='\x1f' | '\x7f' => f.write_str("\u{fffd}")?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// How the numbers of a metric are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A fraction shown as `7.1 %`.
    Percent,
    /// A score from 0 to 100 shown with one decimal, `34.2`: BLEU and chrF.
    Points,
    /// A number shown as it is.
    Plain,
}

/// What is in the names of metrics that are neither rates nor scores.
const PLAIN: [&str; 9] = [
    "perplexity",
    "loss",
    "bits",
    "nats",
    "seconds",
    "per_word",
    "per_second",
    "divergence",
    "cosine",
];

impl Unit {
    /// The unit of a metric, by its name without suffix.
    pub(super) fn of(metric: &str) -> Self {
        match metric {
            "bleu" | "chrf" => Self::Points,
            _ if PLAIN.iter().any(|plain| metric.contains(plain)) => Self::Plain,
            _ => Self::Percent,
        }
    }

    /// The number without its unit.
    pub(crate) fn number(self, value: f64) -> String {
        if !value.is_finite() {
            return "–".to_owned();
        }
        match self {
            Self::Percent => format!("{:.1}", value * 100.0),
            Self::Points => format!("{value:.1}"),
            Self::Plain => significant(value),
        }
    }

    /// The number with its unit.
    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::Percent if value.is_finite() => format!("{}\u{202f}%", self.number(value)),
            _ => self.number(value),
        }
    }
}

/// The unit of a metric, with or without suffix.
pub(crate) fn metric_unit(metric: &str) -> Unit {
    if metric.ends_with(RECOVERED) {
        return Unit::Percent;
    }
    let base = metric.strip_suffix(TEXT).or_else(|| metric.strip_suffix(CASCADE));
    Unit::of(base.unwrap_or(metric))
}

/// The name of a metric for readers.
pub(crate) fn metric_name(metric: &str) -> String {
    if let Some(base) = metric.strip_suffix(RECOVERED) {
        return format!("{}, share of text recovered", metric_name(base));
    }
    match metric {
        "wer" => "WER".to_owned(),
        "cer" => "CER".to_owned(),
        "bleu" => "BLEU".to_owned(),
        "chrf" => "chrF".to_owned(),
        "exact" => "exact match".to_owned(),
        other => other.replace('_', " "),
    }
}

/// Three significant digits, without an exponent where people would not write one.
pub(crate) fn significant(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor();
    if !(-4.0..6.0).contains(&magnitude) {
        return format!("{value:.2e}");
    }
    let decimals = (2.0 - magnitude).max(0.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A count with thin spaces between thousands.
pub(super) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A duration in words, e.g. `8 min 20 s`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    match (hours, minutes) {
        (0, 0) => format!("{} s", significant(seconds)),
        (0, _) => format!("{minutes} min {rest} s"),
        _ => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_text() {
        assert_eq!(
            Text("<a href=\"x\">'&\0</a>").to_string(),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;\u{fffd}&lt;/a&gt;"
        );
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(Unit::of("wer").show(0.0714), "7.1\u{202f}%");
        assert_eq!(Unit::of("bleu").show(34.23), "34.2");
        assert_eq!(Unit::of("perplexity").show(12.345), "12.3");
        assert_eq!(Unit::of("wer").show(f64::NAN), "–");
        assert_eq!(metric_unit("bleu_text"), Unit::Points);
        assert_eq!(metric_unit("bleu_recovered"), Unit::Percent);
        assert_eq!(metric_name("bleu_recovered"), "BLEU, share of text recovered");
        assert_eq!(significant(0.000_1), "0.0001");
        assert_eq!(significant(1e-6), "1.00e-6");
        assert_eq!(significant(1234.5), "1234");
        assert_eq!(significant(2.0), "2");
        assert_eq!(thousands(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(thousands(12), "12");
        assert_eq!(duration(9.26), "9.26 s");
        assert_eq!(duration(500.2), "8 min 20 s");
        assert_eq!(duration(7_260.0), "2 h 1 min");
    }
}
