//! The order of the English rules: fillers, contractions, symbols, numbers, spelling.

use std::{borrow::Cow, sync::LazyLock};

use regex::Regex;

use super::{
    constant, numbers, single_spaces, spelling,
    unicode::{is_boundary, is_word, without_symbols_and_diacritics},
    without_brackets,
};

/// Sounds of hesitation.
const FILLERS: [&str; 6] = ["hmm", "mm", "mhm", "mmm", "uh", "um"];

/// Symbols that numbers may need.
const NUMERIC: &str = ".%$¢€£";

/// A literal to replace where a word starts or ends.
struct Rule {
    from: &'static str,
    to: &'static str,
    /// Whether it must start at a word boundary; it always ends at one.
    whole: bool,
}

const fn whole(from: &'static str, to: &'static str) -> Rule {
    Rule { from, to, whole: true }
}

const fn ending(from: &'static str, to: &'static str) -> Rule {
    Rule { from, to, whole: false }
}

/// In the order in which they apply.
const RULES: &[Rule] = &[
    whole("won't", "will not"),
    whole("can't", "can not"),
    whole("let's", "let us"),
    whole("ain't", "aint"),
    whole("y'all", "you all"),
    whole("wanna", "want to"),
    whole("kinda", "kind of"),
    whole("sorta", "sort of"),
    whole("dunno", "do not know"),
    whole("gotta", "got to"),
    whole("gonna", "going to"),
    whole("i'ma", "i am going to"),
    whole("imma", "i am going to"),
    whole("woulda", "would have"),
    whole("coulda", "could have"),
    whole("shoulda", "should have"),
    whole("cause", "because"),
    whole("ma'am", "madam"),
    // Titles.
    whole("mr", "mister "),
    whole("mrs", "missus "),
    whole("st", "saint "),
    whole("dr", "doctor "),
    whole("prof", "professor "),
    whole("capt", "captain "),
    whole("gov", "governor "),
    whole("ald", "alderman "),
    whole("gen", "general "),
    whole("sen", "senator "),
    whole("rep", "representative "),
    whole("pres", "president "),
    whole("rev", "reverend "),
    whole("hon", "honorable "),
    whole("asst", "assistant "),
    whole("assoc", "associate "),
    whole("lt", "lieutenant "),
    whole("col", "colonel "),
    whole("jr", "junior "),
    whole("sr", "senior "),
    whole("esq", "esquire "),
    // Perfect tenses, before `'d` and `'s` in general.
    ending("'d been", " had been"),
    ending("'s been", " has been"),
    ending("'d gone", " had gone"),
    ending("'s gone", " has gone"),
    ending("'d done", " had done"),
    ending("'s got", " has got"),
    ending("n't", " not"),
    ending("'re", " are"),
    ending("'s", " is"),
    ending("'d", " would"),
    ending("'ll", " will"),
    ending("'t", " not"),
    ending("'ve", " have"),
    ending("'m", " am"),
];

static SPACED_APOSTROPHE: LazyLock<Regex> = LazyLock::new(|| constant(r"[\s\x1c-\x1f]+'"));
static DIGIT_COMMA: LazyLock<Regex> = LazyLock::new(|| constant(r"(\p{Nd}),(\p{Nd})"));
static LONE_PERIOD: LazyLock<Regex> = LazyLock::new(|| constant(r"\.([^0-9]|$)"));
static LONE_PREFIX: LazyLock<Regex> = LazyLock::new(|| constant(r"[.$¢€£]([^0-9])"));
static LONE_PERCENT: LazyLock<Regex> = LazyLock::new(|| constant(r"([^0-9])%"));

pub(super) fn normalize(text: &str) -> String {
    let text = without_fillers(&without_brackets(&text.to_lowercase()));
    let mut text = SPACED_APOSTROPHE.replace_all(&text, "'").into_owned();
    for rule in RULES {
        if let Cow::Owned(changed) = rule.apply(&text) {
            text = changed;
        }
    }
    let text = DIGIT_COMMA.replace_all(&text, "$1$2");
    let text = LONE_PERIOD.replace_all(&text, " $1");
    let text = without_symbols_and_diacritics(&text, NUMERIC);
    let text = spelling::american(&numbers::normalize(&text));
    // Symbols that stand at no number after all.
    let text = LONE_PREFIX.replace_all(&text, " $1");
    let text = LONE_PERCENT.replace_all(&text, "$1 ");
    single_spaces(&text)
}

impl Rule {
    fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut out = String::new();
        let mut done = 0;
        let mut search = 0;
        while let Some(at) = text[search..].find(self.from).map(|at| at + search) {
            let end = at + self.from.len();
            let starts = !self.whole || is_boundary(&text[..at], &text[at..]);
            if starts && is_boundary(&text[..end], &text[end..]) {
                out.push_str(&text[done..at]);
                out.push_str(self.to);
                (done, search) = (end, end);
            } else {
                // All rules begin with an ASCII character.
                search = at + 1;
            }
        }
        if done == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(&text[done..]);
        Cow::Owned(out)
    }
}

/// Drops words that are fillers, leaving the spaces around them.
fn without_fillers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let same = |character: char| is_word(character) != is_word(first);
        let end = rest.find(same).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        if !FILLERS.contains(&run) {
            out.push_str(run);
        }
        rest = after;
    }
    out
}
