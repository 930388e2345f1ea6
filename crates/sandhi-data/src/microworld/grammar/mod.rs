//! The grammar: what can be said about the world, and how three languages say it.
//!
//! ```text
//! Derivation ─ Clause ─ when? subject predicate place?      On Monday Anna gave Ben the red ball.
//!                                                         Am Montag hat Anna Ben den roten Ball gegeben.
//!                                                         El lunes Anna le dio la pelota roja a Ben.
//! ```
//!
//! A [`Derivation`] is what is said; [`Derivation::text`] is its realization in one language and
//! [`parse()`] reads the English realization back. All three languages come from the same derivation,
//! so translations are exact.

mod de;
mod en;
mod es;
mod parse;

pub use parse::parse;

use super::lexicon::{Adjective, Adverb, Noun, Person, Verb};
use crate::language::Language;
use serde::{Deserialize, Serialize};

/// A noun phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Np {
    /// A person by name.
    One(Person),
    /// Two persons: `Anna and Ben`.
    Two(Person, Person),
    /// Definite: `the (red) ball`.
    The(Noun, Option<Adjective>),
    /// Indefinite: `a (red) ball`.
    A(Noun, Option<Adjective>),
    /// Counted, 2 to 12: `three (red) balls`.
    Count(u8, Noun, Option<Adjective>),
}

impl Np {
    /// Whether the verb takes the plural.
    pub fn is_plural(self) -> bool {
        matches!(self, Self::Two(..) | Self::Count(..))
    }

    /// The noun, when it is not a name.
    pub fn noun(self) -> Option<Noun> {
        match self {
            Self::The(noun, _) | Self::A(noun, _) | Self::Count(_, noun, _) => Some(noun),
            _ => None,
        }
    }
}

/// The time of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Tense {
    /// `is`
    Present,
    /// `is still`
    Still,
    /// `was`
    Past,
}

/// What is said of the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Predicate {
    /// `went to the kitchen`
    Go(Verb, Noun),
    /// `came from the kitchen`
    ComeFrom(Noun),
    /// `left the kitchen`
    Leave(Noun),
    /// `came to the kitchen with two dogs`
    ComeWith(Noun, Np),
    /// `is (still) (with Ben) in the kitchen`
    At(Tense, Noun, Option<Np>),
    /// `was not in the kitchen`
    NotAt(Noun),
    /// `has the ball`
    Has(Tense, Np),
    /// `has something red`
    HasColored(Tense, Adjective),
    /// `is red`, `is tired`
    Is(Tense, Adjective),
    /// `slept`
    Do(Verb),
    /// `took the ball`
    DoTo(Verb, Np),
    /// `did not take the ball`
    NotDoTo(Verb, Np),
    /// `gave Ben the ball`, or with `true` `gave the ball to Ben`
    Give(Verb, Person, Np, bool),
    /// `got the ball from Ben`
    Get(Np, Person),
    /// `borrowed the ball (from Ben)`
    Borrow(Np, Option<Person>),
    /// `brought the ball to the kitchen`
    Bring(Np, Noun),
    /// `left the ball in the kitchen`
    LeaveAt(Np, Noun),
    /// `painted the ball red`
    Paint(Np, Adjective),
    /// `wants a ball`
    Want(Np),
    /// `can take the ball`
    CanDo(Verb, Np),
    /// `wants to take the ball`
    WantDo(Verb, Np),
    /// `was found (by Ben)`
    Done(Verb, Option<Person>),
}

/// When: the adverbial and whether it opens the sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct When {
    /// The adverbial.
    pub adverb: Adverb,
    /// It stands first (German then inverts), not in its usual place.
    pub front: bool,
}

/// Subject and predicate with their adverbials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Clause {
    /// When.
    pub when: Option<When>,
    /// Who or what.
    pub subject: Np,
    /// What is said.
    pub predicate: Predicate,
    /// Where it happens: `in the garden`.
    pub place: Option<Noun>,
}

impl Clause {
    /// A clause without adverbials.
    pub fn new(subject: Np, predicate: Predicate) -> Self {
        Self { when: None, subject, predicate, place: None }
    }

    /// The clause with `adverb` at its head.
    pub fn opened(self, adverb: Adverb) -> Self {
        Self { when: Some(When { adverb, front: true }), ..self }
    }
}

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Question {
    /// `Where is Anna?`
    WhereIs(Np),
    /// `Where was Anna earlier?`
    WhereWas(Np),
    /// `Who has the ball?`
    WhoHas(Np),
    /// `What does Anna have?`
    WhatHas(Person),
    /// `What color is the ball?`
    ColorOf(Np),
    /// `What color was the ball earlier?`
    ColorWas(Np),
    /// `How many ducks does Anna have?`
    HowMany(Noun, Person),
    /// `Who is in the kitchen?`
    WhoIsIn(Noun),
    /// `When did Anna sing?`
    WhenDid(Person, Verb),
    /// `Who took the ball?`
    WhoDid(Verb, Np),
    /// `Where did Anna find the ball?`
    WhereDid(Person, Verb, Np),
    /// `Did Anna go to the kitchen?`
    DidGo(Person, Verb, Noun),
}

/// What one sentence says, before it is put in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Derivation {
    /// One clause.
    Plain(Clause),
    /// Two clauses joined by *and*.
    Pair(Clause, Clause),
    /// A remark that concerns nobody; an index below [`N_REMARKS`].
    Remark(u8),
    /// `It was three o'clock.`, 1 to 12.
    Hour(u8),
    /// `In the barn there was a fox.`
    There(Noun, Np),
    /// `There were two dogs.`
    ThereWere(u8, Noun),
    /// A question.
    Ask(Question),
}

/// The number of remarks; the last three are only in unseen stories.
pub const N_REMARKS: u8 = 9;

#[rustfmt::skip]
const REMARKS: [[&str; 3]; N_REMARKS as usize] = [
    ["it was raining", "es hat geregnet", "llovía"],
    ["it was cold", "es war kalt", "hacía frío"],
    ["it was late", "es war spät", "era tarde"],
    ["it was dark", "es war dunkel", "estaba oscuro"],
    ["the sun was shining", "die Sonne hat geschienen", "brillaba el sol"],
    ["it was very quiet", "es war sehr still", "todo estaba tranquilo"],
    ["it was very cold", "es war sehr kalt", "hacía mucho frío"],
    ["it was very late", "es war sehr spät", "era muy tarde"],
    ["it was very dark", "es war sehr dunkel", "estaba muy oscuro"],
];

/// The words of the constructions themselves, in English, German and Spanish.
#[rustfmt::skip]
pub(crate) const FUNCTION_WORDS: [&str; 3] = [
    "a an the and is are was were has have had still not in to from with by can want wants did does where who what when how many \
     color something it there was raining cold late dark sun shining very quiet left got brought painted borrowed which person place",
    "der die das den dem ein eine einen einem einer und ist sind war waren hat haben hatte hatten noch nicht im in ins aus mit von \
     will wollen kann können wurde wurden wo wer was wann wie viele welche Farbe etwas Rotes Weißes Schwarzes Braunes Blaues Grünes \
     Gelbes Graues es da geregnet kalt spät dunkel Sonne geschienen sehr still verlassen bekommen gebracht gelassen gestrichen ausgeliehen",
    "el la un una y e es son está están era eran estaba estaban tiene tienen tenía tenían todavía no en a al de del con por quiere \
     quieren puede pueden fue fueron dónde quién qué cuándo cuántos cuántas color algo le había llovía hacía frío tarde oscuro \
     brillaba sol todo tranquilo salió salieron recibió recibieron llevó llevaron dejó dejaron pintó pintaron pidió pidieron prestado prestada mucho muy",
];

impl From<Clause> for Derivation {
    fn from(clause: Clause) -> Self {
        Self::Plain(clause)
    }
}

impl Derivation {
    /// The sentence in `language`, with its capital and its full stop or question mark.
    pub fn text(&self, language: Language) -> String {
        let mut out = String::with_capacity(64);
        self.write(language, &mut out);
        out
    }

    /// Appends the sentence in `language` to `out`.
    pub fn write(&self, language: Language, out: &mut String) {
        if !out.is_empty() {
            out.push(' ');
        }
        if let (Self::Ask(_), Language::Spanish) = (self, language) {
            out.push('¿');
        }
        let body = out.len();
        match self {
            Self::Plain(clause) => self::clause(language, clause, out),
            Self::Pair(first, second) => {
                self::clause(language, first, out);
                let mut rest = String::with_capacity(48);
                self::clause(language, second, &mut rest);
                out.push_str(match language {
                    Language::English => " and ",
                    Language::German => " und ",
                    Language::Spanish => es::and(&rest),
                });
                out.push_str(&rest);
            }
            Self::Remark(index) => {
                let remark = &REMARKS[usize::from(*index) % REMARKS.len()];
                out.push_str(remark[language as usize]);
            }
            Self::Hour(hour) => match language {
                Language::English => en::hour(*hour, out),
                Language::German => de::hour(*hour, out),
                Language::Spanish => es::hour(*hour, out),
            },
            Self::There(place, what) => match language {
                Language::English => en::there(*place, *what, out),
                Language::German => de::there(*place, *what, out),
                Language::Spanish => es::there(*place, *what, out),
            },
            Self::ThereWere(n, noun) => match language {
                Language::English => en::there_were(*n, *noun, out),
                Language::German => de::there_were(*n, *noun, out),
                Language::Spanish => es::there_were(*n, *noun, out),
            },
            Self::Ask(question) => match language {
                Language::English => en::question(question, out),
                Language::German => de::question(question, out),
                Language::Spanish => es::question(question, out),
            },
        }
        capitalize(out, body);
        out.push(if matches!(self, Self::Ask(_)) { '?' } else { '.' });
    }

    /// The key of the derivation: two derivations with one key are the same sentence.
    pub fn key(&self) -> String {
        self.text(Language::English)
    }
}

fn clause(language: Language, clause: &Clause, out: &mut String) {
    match language {
        Language::English => en::clause(clause, out),
        Language::German => de::clause(clause, out),
        Language::Spanish => es::clause(clause, out),
    }
}

/// The noun phrase in `language`, as a short answer (`the kitchen`, `die Küche`, `Ben`).
pub fn phrase(language: Language, np: Np) -> String {
    let mut out = String::new();
    match language {
        Language::English => en::np(np, &mut out),
        Language::German => de::np(np, de::Case::Nominative, &mut out),
        Language::Spanish => es::np(np, &mut out),
    }
    out
}

/// Makes the letter at byte `at` of `text` a capital.
pub(crate) fn capitalize(text: &mut String, at: usize) {
    let Some(first) = text[at..].chars().next() else { return };
    if first.is_lowercase() {
        let upper: String = first.to_uppercase().collect();
        text.replace_range(at..at + first.len_utf8(), &upper);
    }
}

/// Joins words with single spaces.
pub(crate) fn word(out: &mut String, text: &str) {
    if !out.is_empty() && !out.ends_with([' ', '¿']) {
        out.push(' ');
    }
    out.push_str(text);
}

/// The word for `n` (1 to 12) in the language with this index.
pub(crate) fn numeral(n: u8, language: usize) -> &'static str {
    super::lexicon::NUMERALS[usize::from(n.clamp(1, 12)) - 1][language]
}

#[cfg(test)]
mod tests;
