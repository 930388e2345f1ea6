//! Spelled-out numbers to digits.
//!
//! ```text
//! twenty five dollars         20, +5, "$"             -> $25
//! nineteen eighty four        19, then 84 joins       -> 1984
//! two and a half million      2 . 5 · 10^6            -> 2500000
//! five double oh seven        5, "00", "7"            -> 5007
//! ```
//!
//! Words are read from left to right with one number under construction. It is an integer while
//! words add up (`twenty five`), and a string of digits once they are read one after the other
//! (`one oh one`, `three point one`). Integers are of any size, because digits in a text are.

use std::sync::LazyLock;

use regex::Regex;

use super::{
    constant,
    unicode::{digit, is_boundary},
};
use crate::score::is_space;

pub(super) fn normalize(text: &str) -> String {
    let text = prepared(text);
    let words: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    finished(&Reader::read(&words))
}

/// What a word means in a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// `oh`.
    Zero,
    /// `one` to `nineteen`.
    One(u8),
    /// `sixth`, `nineties`' like of the ones: ends the number.
    OneSuffixed(u8, &'static str),
    /// `twenty` to `ninety`.
    Ten(u8),
    /// `twentieth`, `twenties`.
    TenSuffixed(u8, &'static str),
    /// `hundred` and so on: the exponent of ten.
    Multiplier(usize),
    /// `thousandth`, `millions`.
    MultiplierSuffixed(usize, &'static str),
    /// A sign, spoken before the number.
    Sign(&'static str),
    /// A currency, spoken after the number and written before it.
    Currency(&'static str),
    Per,
    Percent,
    And,
    /// `double`, `triple`: how often the next digit is read.
    Repeat(usize),
    Point,
}

const ONES: [&str; 19] = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];

const TENS: [&str; 8] =
    ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

const MULTIPLIERS: [(&str, usize); 12] = [
    ("hundred", 2),
    ("thousand", 3),
    ("million", 6),
    ("billion", 9),
    ("trillion", 12),
    ("quadrillion", 15),
    ("quintillion", 18),
    ("sextillion", 21),
    ("septillion", 24),
    ("octillion", 27),
    ("nonillion", 30),
    ("decillion", 33),
];

const PREFIXES: [char; 6] = ['-', '+', '£', '€', '$', '¢'];

impl Meaning {
    fn of(word: &str) -> Option<Self> {
        let simple = match word {
            "o" | "oh" | "zero" => Self::Zero,
            "zeroth" => Self::OneSuffixed(0, "th"),
            "first" => Self::OneSuffixed(1, "st"),
            "second" => Self::OneSuffixed(2, "nd"),
            "third" => Self::OneSuffixed(3, "rd"),
            "fifth" => Self::OneSuffixed(5, "th"),
            "twelfth" => Self::OneSuffixed(12, "th"),
            "sixes" => Self::OneSuffixed(6, "s"),
            "minus" | "negative" => Self::Sign("-"),
            "plus" | "positive" => Self::Sign("+"),
            "pound" | "pounds" => Self::Currency("£"),
            "euro" | "euros" => Self::Currency("€"),
            "dollar" | "dollars" => Self::Currency("$"),
            "cent" | "cents" => Self::Currency("¢"),
            "per" => Self::Per,
            "percent" => Self::Percent,
            "and" => Self::And,
            "double" => Self::Repeat(2),
            "triple" => Self::Repeat(3),
            "point" => Self::Point,
            _ => return Self::of_regular(word),
        };
        Some(simple)
    }

    fn of_regular(word: &str) -> Option<Self> {
        for (name, value) in ONES.into_iter().zip(1..) {
            match word.strip_prefix(name) {
                Some("") => return Some(Self::One(value)),
                Some("s") if value != 6 => return Some(Self::OneSuffixed(value, "s")),
                Some("h") if value == 8 => return Some(Self::OneSuffixed(value, "th")),
                Some("th") if value > 3 && ![5, 8, 12].contains(&value) => {
                    return Some(Self::OneSuffixed(value, "th"));
                }
                _ => {}
            }
        }
        for (name, value) in TENS.into_iter().zip((20..).step_by(10)) {
            match word.strip_prefix(name.trim_end_matches('y')) {
                Some("y") => return Some(Self::Ten(value)),
                Some("ies") => return Some(Self::TenSuffixed(value, "s")),
                Some("ieth") => return Some(Self::TenSuffixed(value, "th")),
                _ => {}
            }
        }
        for (name, exponent) in MULTIPLIERS {
            match word.strip_prefix(name) {
                Some("") => return Some(Self::Multiplier(exponent)),
                Some("s") => return Some(Self::MultiplierSuffixed(exponent, "s")),
                Some("th") => return Some(Self::MultiplierSuffixed(exponent, "th")),
                _ => {}
            }
        }
        None
    }

    /// Whether it can follow a decimal point.
    fn is_decimal(self) -> bool {
        matches!(self, Self::Zero | Self::One(_) | Self::Ten(_))
    }
}

/// The number under construction.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// An integer, in decimal digits without leading zeros.
    Integer(String),
    /// Digits (and points) read one after the other.
    Digits(String),
}

impl Value {
    fn integer(value: u8) -> Self {
        Self::Integer(value.to_string())
    }

    fn text(&self) -> &str {
        match self {
            Self::Integer(text) | Self::Digits(text) => text,
        }
    }

    /// An integer whose last `n` digits are zero, with a smaller number put there.
    fn with_end(integer: &str, n: usize, end: u8) -> Option<String> {
        if integer == "0" {
            return Some(end.to_string());
        }
        let head = integer.len().saturating_sub(n);
        let is_round = integer.len() >= n && integer[head..].bytes().all(|byte| byte == b'0');
        is_round.then(|| format!("{}{end:0n$}", &integer[..head]))
    }
}

struct Reader<'a> {
    words: &'a [&'a str],
    at: usize,
    out: Vec<String>,
    prefix: Option<String>,
    value: Option<Value>,
}

impl<'a> Reader<'a> {
    fn read(words: &'a [&'a str]) -> String {
        let mut reader = Self { words, at: 0, out: Vec::new(), prefix: None, value: None };
        while reader.at < words.len() {
            reader.word();
            reader.at += 1;
        }
        reader.flush();
        reader.out.join(" ")
    }

    fn previous(&self) -> Option<Meaning> {
        self.at.checked_sub(1).and_then(|at| Meaning::of(self.words[at]))
    }

    fn next(&self) -> Option<&'a str> {
        self.words.get(self.at + 1).copied()
    }

    fn next_is_number(&self) -> bool {
        self.next().is_some_and(is_numeral)
    }

    /// Writes a word or number with the sign or currency that waits for it; the number under
    /// construction ends.
    fn write(&mut self, text: impl AsRef<str>) {
        let prefix = self.prefix.take().unwrap_or_default();
        self.out.push(format!("{prefix}{}", text.as_ref()));
        self.value = None;
    }

    fn flush(&mut self) {
        if let Some(value) = self.value.take() {
            self.write(value.text());
        }
    }

    /// Writes the number, if there is one, and the current word behind it.
    fn flush_and_write_word(&mut self) {
        self.flush();
        self.write(self.words[self.at]);
    }

    fn word(&mut self) {
        let word = self.words[self.at];
        let bare = word.strip_prefix(PREFIXES).unwrap_or(word);
        if is_numeral(bare) {
            return self.numeral(word, bare);
        }
        let Some(meaning) = Meaning::of(word) else { return self.flush_and_write_word() };
        match meaning {
            Meaning::Zero => self.append("0"),
            Meaning::One(one) => {
                let joined = self.with_one(one);
                self.value = Some(joined);
            }
            Meaning::OneSuffixed(one, suffix) => {
                let joined = self.with_one(one);
                self.write(format!("{}{suffix}", joined.text()));
            }
            Meaning::Ten(ten) => {
                let joined = self.with_ten(ten);
                self.value = Some(joined);
            }
            Meaning::TenSuffixed(ten, suffix) => {
                let joined = self.with_ten(ten);
                self.write(format!("{}{suffix}", joined.text()));
            }
            Meaning::Multiplier(exponent) => {
                let multiplied = self.multiplied(exponent, true);
                self.value = Some(multiplied);
            }
            Meaning::MultiplierSuffixed(exponent, suffix) => {
                let multiplied = self.multiplied(exponent, false);
                self.write(format!("{}{suffix}", multiplied.text()));
            }
            Meaning::Sign(sign) => {
                self.flush();
                if self.next().is_some_and(|next| Meaning::of(next).is_some() || is_numeral(next)) {
                    self.prefix = Some(sign.to_owned());
                } else {
                    self.write(word);
                }
            }
            Meaning::Currency(currency) => match self.value.take() {
                Some(value) => {
                    self.prefix = Some(currency.to_owned());
                    self.write(value.text());
                }
                None => self.write(word),
            },
            Meaning::Percent => match self.value.take() {
                Some(value) => self.write(format!("{}%", value.text())),
                None => self.write(word),
            },
            Meaning::Per => match self.value.take() {
                Some(value) if self.next() == Some("cent") => {
                    self.write(format!("{}%", value.text()));
                    self.at += 1;
                }
                Some(value) => {
                    self.write(value.text());
                    self.write(word);
                }
                None => self.write(word),
            },
            Meaning::And | Meaning::Repeat(_) | Meaning::Point => self.special(meaning),
        }
    }

    /// Words that mean something only before a number.
    fn special(&mut self, meaning: Meaning) {
        let next = self.next().and_then(Meaning::of);
        if next.is_none() && !self.next_is_number() {
            return self.flush_and_write_word();
        }
        match meaning {
            // "two hundred and five" is one number, "two and five" are two.
            Meaning::And if matches!(self.previous(), Some(Meaning::Multiplier(_))) => {}
            Meaning::Repeat(n) => match next {
                Some(Meaning::Zero) => self.repeat(0, n),
                Some(Meaning::One(one)) => self.repeat(one, n),
                _ => self.flush_and_write_word(),
            },
            Meaning::Point => {
                if next.is_some_and(Meaning::is_decimal) || self.next_is_number() {
                    self.append(".");
                }
            }
            _ => self.flush_and_write_word(),
        }
    }

    fn repeat(&mut self, one: u8, n: usize) {
        self.append(&one.to_string().repeat(n));
        self.at += 1;
    }

    /// Reads on digit by digit; an integer zero before is no digit.
    fn append(&mut self, digits: &str) {
        let before = match self.value.take() {
            Some(Value::Integer(zero)) if zero == "0" => String::new(),
            Some(value) => value.text().to_owned(),
            None => String::new(),
        };
        self.value = Some(Value::Digits(before + digits));
    }

    fn numeral(&mut self, word: &str, bare: &str) {
        match self.value.take() {
            Some(Value::Digits(digits)) if digits.ends_with('.') => {
                // Decimals, or the parts of an address.
                self.value = Some(Value::Digits(digits + word));
                return;
            }
            Some(value) => self.write(value.text()),
            None => {}
        }
        if bare.len() < word.len() {
            self.prefix = word.chars().next().map(String::from);
        }
        // Digits of other scripts count, and a fraction of zeros is an integer.
        let ascii: String = bare
            .chars()
            .map(|character| digit(character).map_or(character, |value| char::from(b'0' + value)))
            .collect();
        let (whole, fraction) = ascii.split_once('.').unwrap_or((&ascii, ""));
        self.value = Some(if fraction.bytes().all(|byte| byte == b'0') {
            Value::Integer(without_leading_zeros(whole))
        } else {
            Value::Digits(bare.to_owned())
        });
    }

    fn with_one(&mut self, one: u8) -> Value {
        let previous = self.previous();
        let follows_one = matches!(previous, Some(Meaning::One(_)));
        match self.value.take() {
            None => Value::integer(one),
            Some(Value::Integer(integer)) if !follows_one => {
                let n_digits = if one < 10 { 1 } else { 2 };
                match Value::with_end(&integer, n_digits, one) {
                    Some(integer) => Value::Integer(integer),
                    None => Value::Digits(format!("{integer}{one}")),
                }
            }
            Some(value) => {
                let text = value.text();
                let follows_ten = matches!(previous, Some(Meaning::Ten(_))) && one < 10;
                match text.strip_suffix('0').filter(|_| follows_ten) {
                    Some(head) => Value::Digits(format!("{head}{one}")),
                    None => Value::Digits(format!("{text}{one}")),
                }
            }
        }
    }

    fn with_ten(&mut self, ten: u8) -> Value {
        match self.value.take() {
            None => Value::integer(ten),
            Some(Value::Integer(integer)) => match Value::with_end(&integer, 2, ten) {
                Some(integer) => Value::Integer(integer),
                None => Value::Digits(format!("{integer}{ten}")),
            },
            Some(Value::Digits(digits)) => Value::Digits(format!("{digits}{ten}")),
        }
    }

    /// The number times a power of ten: only its last three digits, so that "two thousand three
    /// hundred" adds up. A number that cannot be multiplied is written, and the power stands alone.
    fn multiplied(&mut self, exponent: usize, zero_is_read: bool) -> Value {
        let power = format!("1{}", "0".repeat(exponent));
        match self.value.take() {
            None => Value::Integer(power),
            Some(Value::Integer(zero)) if zero == "0" && zero_is_read => Value::Integer(zero),
            Some(Value::Integer(integer)) => {
                let (before, residual) = integer.split_at(integer.len().saturating_sub(3));
                let before = if before.is_empty() { "0".into() } else { format!("{before}000") };
                let residual = format!("{residual}{}", "0".repeat(exponent));
                Value::Integer(sum(&before, &residual))
            }
            Some(Value::Digits(digits)) => match scaled(&digits, exponent) {
                Some(integer) => Value::Integer(integer),
                None => {
                    self.write(digits);
                    Value::Integer(power)
                }
            },
        }
    }
}

/// `12` or `1.5`, in digits of any script.
fn is_numeral(word: &str) -> bool {
    static NUMERAL: LazyLock<Regex> = LazyLock::new(|| constant(r"^\p{Nd}+(\.\p{Nd}+)?$"));
    NUMERAL.is_match(word)
}

/// A decimal fraction times a power of ten, where that is an integer.
fn scaled(digits: &str, exponent: usize) -> Option<String> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (ascii(whole)?, ascii(fraction)?);
    let fraction = fraction.trim_end_matches('0');
    if (whole.is_empty() && !digits.contains(|character| digit(character).is_some()))
        || fraction.len() > exponent
    {
        return None;
    }
    Some(without_leading_zeros(&format!("{whole}{fraction:0<exponent$}")))
}

/// Digits of any script as ASCII; `None` where something else stands between them.
fn ascii(digits: &str) -> Option<String> {
    digits.chars().map(|character| Some(char::from(b'0' + digit(character)?))).collect()
}

fn without_leading_zeros(digits: &str) -> String {
    match digits.trim_start_matches('0') {
        "" => "0".to_owned(),
        rest => rest.to_owned(),
    }
}

/// The sum of two integers in decimal digits.
fn sum(a: &str, b: &str) -> String {
    let mut digits = Vec::new();
    let (mut a, mut b) = (a.bytes().rev(), b.bytes().rev());
    let mut carry = 0;
    loop {
        let (x, y) = (a.next(), b.next());
        if x.is_none() && y.is_none() && carry == 0 {
            break;
        }
        let total = carry + [x, y].into_iter().flatten().map(|byte| byte - b'0').sum::<u8>();
        digits.push(char::from(b'0' + total % 10));
        carry = total / 10;
    }
    without_leading_zeros(&digits.into_iter().rev().collect::<String>())
}

static LETTER_DIGIT: LazyLock<Regex> = LazyLock::new(|| constant(r"([a-z])([0-9])"));
static DIGIT_LETTER: LazyLock<Regex> = LazyLock::new(|| constant(r"([0-9])([a-z])"));
static SPACED_SUFFIX: LazyLock<Regex> =
    LazyLock::new(|| constant(r"([0-9])[\s\x1c-\x1f]+(st|nd|rd|th|s)"));
static AND_A_HALF: LazyLock<Regex> =
    LazyLock::new(|| constant(r"and[\s\x1c-\x1f]+a[\s\x1c-\x1f]+half"));
static DOLLARS_AND_CENTS: LazyLock<Regex> =
    LazyLock::new(|| constant(r"([€£$])([0-9]+) (?:and )?¢([0-9]{1,2})"));
static CENTS: LazyLock<Regex> = LazyLock::new(|| constant(r"[€£$]0.([0-9]{1,2})"));
static ONE: LazyLock<Regex> = LazyLock::new(|| constant(r"1s?"));

/// "and a half" as "point five" behind a number; numbers apart from letters, but not from `th`.
fn prepared(text: &str) -> String {
    let bounds: Vec<(usize, usize)> = AND_A_HALF
        .find_iter(text)
        .map(|found| (found.start(), found.end()))
        .filter(|&(start, end)| {
            is_boundary(&text[..start], &text[start..]) && is_boundary(&text[..end], &text[end..])
        })
        .collect();
    let mut parts = Vec::new();
    let mut start = 0;
    for (end, next) in bounds.into_iter().chain([(text.len(), usize::MAX)]) {
        let segment = &text[start..end];
        start = next;
        let Some(last) = segment.split(is_space).rfind(|word| !word.is_empty()) else { continue };
        parts.push(segment);
        if next != usize::MAX {
            let is_number = Meaning::of(last).is_some_and(|meaning| {
                meaning.is_decimal() || matches!(meaning, Meaning::Multiplier(_))
            });
            parts.push(if is_number { "point five" } else { "and a half" });
        }
    }
    let text = parts.join(" ");
    let text = LETTER_DIGIT.replace_all(&text, "$1 $2");
    let text = DIGIT_LETTER.replace_all(&text, "$1 $2");
    replace_bounded(&SPACED_SUFFIX, &text, false, |found| format!("{}{}", &found[1], &found[2]))
}

/// Dollars with their cents, and `one` for a lone 1, which is easier to read.
fn finished(text: &str) -> String {
    let text = replace_bounded(&DOLLARS_AND_CENTS, text, false, |found| {
        format!("{}{}.{:0>2}", &found[1], &found[2], &found[3])
    });
    let text = replace_bounded(&CENTS, &text, false, |found| {
        format!("¢{}", without_leading_zeros(&found[1]))
    });
    replace_bounded(&ONE, &text, true, |found| found[0].replace('1', "one"))
}

/// Replaces matches that end (and, if asked for, start) at a word boundary.
fn replace_bounded(
    pattern: &Regex,
    text: &str,
    at_start: bool,
    replacement: impl Fn(&regex::Captures<'_>) -> String,
) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut done, mut search) = (0, 0);
    while let Some(found) = pattern.captures_at(text, search) {
        let (start, end) = (found.get_match().start(), found.get_match().end());
        let starts = !at_start || is_boundary(&text[..start], &text[start..]);
        if starts && is_boundary(&text[..end], &text[end..]) {
            out.push_str(&text[done..start]);
            out.push_str(&replacement(&found));
            (done, search) = (end, end);
        } else {
            search = start + text[start..].chars().next().map_or(1, char::len_utf8);
        }
    }
    out + &text[done..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(normalize(text), expected);
    }

    #[test]
    fn words_add_up() {
        check("two hundred and five", "205");
        check("three thousand two hundred twelve", "3212");
        check("one hundred thousand", "100000");
    }

    #[test]
    fn words_follow_each_other() {
        check("nineteen eighty four", "1984");
        check("five double oh seven", "5007");
        check("three point one four", "3.14");
    }

    #[test]
    fn ordinals_and_units_end_a_number() {
        check("twenty first of may", "21st of may");
        check("ten percent or ten per cent", "10% or 10%");
        check("minus five pounds", "£5");
    }

    #[test]
    fn integers_have_any_size() {
        // 10^60 - 1: the last three digits count thousands, 999,000 + (10^60 - 1,000).
        let digits = "9".repeat(60);
        check(&format!("{digits} thousand"), &format!("1{}998000", "0".repeat(54)));
        assert_eq!(sum("999", "1"), "1000");
        assert_eq!(scaled("2.50", 1), Some("25".into()));
        assert_eq!(scaled("2.55", 1), None);
        assert_eq!(scaled(".", 3), None);
    }
}
