//! Single sentences for speech recognition and translation, and texts of their own for the encoder.
//!
//! ```text
//! frames     seen   go, take, give, bring, paint, sleep, questions, …      training and evaluation
//!            unseen passives, existentials, negation, want to, with …      the evaluation domain `texts`
//!            plain  all words, seen frames and a few of their own          text of the language model
//! wild       random words of all three lexica, never a sentence of the grammar
//! ```

use super::grammar::{Clause, Derivation, Np, Predicate, Question, Tense, When};
use super::lexicon::{Adjective, Kind, Noun, Pool, Words};
use super::{Split, Style};
use crate::language::Language;
use crate::rng::{self, Stream};
use serde::{Deserialize, Serialize};

/// A sentence in the language asked for and in all three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sentence {
    /// Names the derivation; the same in every language.
    pub id: String,
    /// The language of `text`.
    pub language: Language,
    /// The sentence, with capital and punctuation.
    pub text: String,
    /// English, German and Spanish, in the order of [`Language::ALL`].
    pub parallel: [String; 3],
}

/// Which constructions to draw from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frames {
    Seen,
    Unseen,
    Plain,
}

/// The split that the derivation with this key belongs to. Training has 80 % of what is seen; of what
/// is unseen, one half is for tuning and one for the test.
pub fn split_of(key: &str, style: Style) -> Split {
    let slot = rng::stream(0x5eed_0f5a_11d5, key) % 10;
    match (style, slot) {
        (Style::Seen, 0..8) => Split::Train,
        (Style::Seen, 8) => Split::Dev,
        (Style::Seen, _) => Split::Test,
        (Style::Unseen, 0..5) => Split::Dev,
        (Style::Unseen, _) => Split::Test,
    }
}

/// A short name for the derivation with this key.
pub(super) fn id(prefix: &str, key: &str) -> String {
    format!("{prefix}-{:012x}", rng::stream(0x1d, key) >> 16)
}

/// Draws a derivation.
pub(super) fn draw(words: &Words, frames: Frames, rng: &mut Stream) -> Derivation {
    match frames {
        Frames::Seen => seen(words, rng),
        Frames::Unseen => unseen(words, rng),
        Frames::Plain => {
            if rng.chance(0.5) {
                seen(words, rng)
            } else {
                plain(words, rng)
            }
        }
    }
}

fn persons(words: &Words, rng: &mut Stream) -> Np {
    let first = *rng.pick(&words.persons);
    if rng.chance(0.15) {
        let second = *rng.pick(&words.persons);
        if second != first {
            return Np::Two(first, second);
        }
    }
    Np::One(first)
}

fn adjective_for(noun: Noun, words: &Words, rng: &mut Stream) -> Adjective {
    if noun.entry().kind == Kind::Animal {
        // Red goats and broken birds are left out: white, black, brown; big, small, old, beautiful.
        if rng.chance(0.5) { words.colors[1 + rng.below(3)] } else { words.qualities[rng.below(4)] }
    } else if rng.chance(0.6) {
        *rng.pick(&words.colors)
    } else {
        *rng.pick(&words.qualities)
    }
}

fn thing(words: &Words, adjective: f64, rng: &mut Stream) -> Np {
    let noun = *rng.pick(&words.things);
    let adjective = rng.chance(adjective).then(|| adjective_for(noun, words, rng));
    match rng.below(8) {
        0..4 => Np::The(noun, adjective),
        4..7 => Np::A(noun, adjective),
        _ => Np::Count(2 + rng.below(11) as u8, noun, adjective),
    }
}

fn definite(words: &Words, adjective: f64, rng: &mut Stream) -> Np {
    let noun = *rng.pick(&words.things);
    Np::The(noun, rng.chance(adjective).then(|| adjective_for(noun, words, rng)))
}

fn animal(words: &Words, rng: &mut Stream) -> Np {
    let noun = *rng.pick(&words.animals);
    let adjective = rng.chance(0.5).then(|| adjective_for(noun, words, rng));
    if rng.chance(0.5) {
        Np::A(noun, adjective)
    } else {
        Np::Count(2 + rng.below(11) as u8, noun, adjective)
    }
}

fn when(words: &Words, probability: f64, rng: &mut Stream) -> Option<When> {
    rng.chance(probability).then(|| {
        let adverb =
            if rng.chance(0.3) { *rng.pick(&words.hours) } else { *rng.pick(&words.times) };
        // "then" and "later" open the sentence in all three languages.
        let opens = [super::lexicon::Adverb::THEN, super::lexicon::Adverb::LATER].contains(&adverb);
        When { adverb, front: opens || rng.chance(0.5) }
    })
}

fn seen(words: &Words, rng: &mut Stream) -> Derivation {
    let place = |rng: &mut Stream| *rng.pick(&words.places);
    let at = |probability: f64, rng: &mut Stream| {
        rng.chance(probability).then(|| *rng.pick(&words.places))
    };
    let clause = |subject, predicate, place, when| {
        Derivation::Plain(Clause { when, subject, predicate, place })
    };
    match rng.below(32) {
        0..4 => {
            let predicate = Predicate::Go(*rng.pick(&words.motion), place(rng));
            clause(persons(words, rng), predicate, None, when(words, 1.0, rng))
        }
        4..9 => {
            let what = thing(words, 0.8, rng);
            let at = at(0.4, rng);
            let when = when(words, if at.is_some() { 0.15 } else { 0.7 }, rng);
            clause(
                persons(words, rng),
                Predicate::DoTo(*rng.pick(&words.transitive), what),
                at,
                when,
            )
        }
        9..12 => {
            let what = animal(words, rng);
            let at = at(0.6, rng);
            let when = when(words, if at.is_some() { 0.15 } else { 0.8 }, rng);
            // Seeing, finding and looking for, buying: what one does with animals.
            let verbs: Vec<_> =
                words.transitive.iter().filter(|verb| suits_animals(**verb)).copied().collect();
            clause(persons(words, rng), Predicate::DoTo(*rng.pick(&verbs), what), at, when)
        }
        12..15 => {
            let (giver, to) = two_persons(words, rng);
            let predicate = Predicate::Give(
                *rng.pick(&words.ditransitive),
                to,
                thing(words, 0.9, rng),
                rng.chance(0.4),
            );
            clause(Np::One(giver), predicate, None, when(words, 0.35, rng))
        }
        15..17 => {
            let (from, to) = two_persons(words, rng);
            clause(
                Np::One(to),
                Predicate::Get(thing(words, 0.9, rng), from),
                None,
                when(words, 0.35, rng),
            )
        }
        17..20 => {
            let what = definite(words, 0.6, rng);
            let predicate = if rng.chance(0.5) {
                Predicate::Bring(what, place(rng))
            } else {
                Predicate::LeaveAt(what, place(rng))
            };
            clause(
                persons(words, rng),
                predicate,
                None,
                when(words, if matches!(what, Np::The(_, Some(_))) { 0.2 } else { 1.0 }, rng),
            )
        }
        20 => {
            let noun = *rng.pick(&words.things);
            let quality = rng.chance(0.5).then(|| *rng.pick(&words.qualities));
            let predicate = Predicate::Paint(Np::The(noun, quality), *rng.pick(&words.colors));
            clause(persons(words, rng), predicate, None, when(words, 1.0, rng))
        }
        21 => {
            let noun = *rng.pick(&words.things);
            let tense = if rng.chance(0.5) { Tense::Present } else { Tense::Past };
            let subject = Np::The(noun, Some(adjective_for(noun, words, rng)));
            clause(subject, Predicate::At(tense, place(rng), None), None, None)
        }
        22 => {
            let noun = *rng.pick(&words.things);
            let color = *rng.pick(&words.colors);
            let subject = Np::The(noun, Some(color));
            let tense = if rng.chance(0.5) { Tense::Present } else { Tense::Past };
            clause(subject, Predicate::Is(tense, *rng.pick(&words.qualities)), None, None)
        }
        23 => {
            let tense = if rng.chance(0.5) { Tense::Present } else { Tense::Past };
            clause(persons(words, rng), Predicate::Has(tense, thing(words, 1.0, rng)), None, None)
        }
        24..26 => {
            let verb = Predicate::Do(*rng.pick(&words.intransitive));
            clause(persons(words, rng), verb, Some(place(rng)), when(words, 1.0, rng))
        }
        26 => {
            let noun = *rng.pick(&words.animals);
            let subject = Np::Count(
                2 + rng.below(11) as u8,
                noun,
                rng.chance(0.6).then(|| adjective_for(noun, words, rng)),
            );
            clause(
                subject,
                Predicate::Do(words.intransitive[0]),
                Some(place(rng)),
                when(words, 0.4, rng),
            )
        }
        27 => {
            let predicate = if rng.chance(0.5) {
                Predicate::ComeFrom(place(rng))
            } else {
                Predicate::Leave(place(rng))
            };
            clause(persons(words, rng), predicate, None, when(words, 1.0, rng))
        }
        28 => {
            let mood = Predicate::Is(Tense::Past, *rng.pick(&words.moods));
            let (a, b) = two_persons(words, rng);
            let verb = Predicate::Do(*rng.pick(&words.intransitive));
            Derivation::Pair(Clause::new(Np::One(a), verb), Clause::new(Np::One(b), mood))
        }
        29 => {
            let (a, b) = two_persons(words, rng);
            let first = Clause::new(
                Np::One(a),
                Predicate::DoTo(*rng.pick(&words.transitive), thing(words, 0.5, rng)),
            );
            Derivation::Pair(
                first,
                Clause::new(Np::One(b), Predicate::Do(*rng.pick(&words.intransitive))),
            )
        }
        _ => Derivation::Ask(question(words, rng)),
    }
}

fn suits_animals(verb: super::lexicon::Verb) -> bool {
    ["bought", "found", "lost", "saw", "drew", "sold"].contains(&verb.entry().en)
}

fn two_persons(
    words: &Words,
    rng: &mut Stream,
) -> (super::lexicon::Person, super::lexicon::Person) {
    let first = rng.below(words.persons.len());
    let second = (first + 1 + rng.below(words.persons.len() - 1)) % words.persons.len();
    (words.persons[first], words.persons[second])
}

fn question(words: &Words, rng: &mut Stream) -> Question {
    let what = definite(words, 1.0, rng);
    let person = *rng.pick(&words.persons);
    match rng.below(6) {
        0 => Question::WhereIs(what),
        1 => Question::WhoHas(what),
        2 => Question::HowMany(*rng.pick(&words.things), person),
        3 => Question::WhoDid(*rng.pick(&words.transitive), what),
        4 => Question::WhereDid(person, *rng.pick(&words.transitive), what),
        _ => Question::DidGo(person, *rng.pick(&words.motion), *rng.pick(&words.places)),
    }
}

/// Frames of the evaluation domain `texts`.
fn unseen(words: &Words, rng: &mut Stream) -> Derivation {
    let place = |rng: &mut Stream| *rng.pick(&words.places);
    let passive = |rng: &mut Stream| {
        let verbs: Vec<_> = words
            .transitive
            .iter()
            .filter(|verb| verb.entry().en != "looked for")
            .copied()
            .collect();
        *rng.pick(&verbs)
    };
    let person = Np::One(*rng.pick(&words.persons));
    let plain = |clause: Clause| Derivation::Plain(clause);
    match rng.below(8) {
        0 | 1 => {
            let what = if rng.chance(0.5) {
                animal(words, rng)
            } else {
                let noun = *rng.pick(&words.things);
                Np::A(noun, Some(adjective_for(noun, words, rng)))
            };
            Derivation::There(place(rng), what)
        }
        2 | 3 => {
            let (by, _) = two_persons(words, rng);
            let noun = *rng.pick(&words.things);
            let adjective = rng.chance(0.7).then(|| adjective_for(noun, words, rng));
            plain(Clause::new(Np::The(noun, adjective), Predicate::Done(passive(rng), Some(by))))
        }
        4 => plain(Clause::new(person, Predicate::ComeWith(place(rng), animal(words, rng)))),
        5 => {
            let what = thing(words, 0.9, rng);
            plain(Clause::new(person, Predicate::WantDo(*rng.pick(&words.transitive), what)))
        }
        6 => plain(Clause::new(
            person,
            Predicate::NotDoTo(*rng.pick(&words.transitive), definite(words, 1.0, rng)),
        )),
        _ => {
            let (a, b) = two_persons(words, rng);
            let give = Predicate::Give(
                *rng.pick(&words.ditransitive),
                b,
                definite(words, 0.6, rng),
                false,
            );
            plain(Clause { place: Some(place(rng)), ..Clause::new(Np::One(a), give) })
        }
    }
}

/// Frames that only the plain text of the language model has: they teach the words of the unseen ones.
fn plain(words: &Words, rng: &mut Stream) -> Derivation {
    let person = Np::One(*rng.pick(&words.persons));
    let (_, other) = two_persons(words, rng);
    let place = *rng.pick(&words.places);
    let predicate = match rng.below(9) {
        0 => Predicate::Want(thing(words, 0.5, rng)),
        1 => Predicate::CanDo(*rng.pick(&words.transitive), thing(words, 0.3, rng)),
        2 | 8 => {
            let person_or_animal = if rng.chance(0.2) && person != Np::One(other) {
                Np::One(other)
            } else {
                animal(words, rng)
            };
            Predicate::At(Tense::Present, place, Some(person_or_animal))
        }
        3 => Predicate::NotAt(place),
        4 => {
            let nouns = if rng.chance(0.5) { &words.animals } else { &words.things };
            let noun = *rng.pick(nouns);
            let subject = Np::A(noun, Some(adjective_for(noun, words, rng)));
            return Clause::new(subject, Predicate::At(Tense::Present, place, None)).into();
        }
        5 => Predicate::Borrow(thing(words, 0.5, rng), None),
        6 => return Derivation::ThereWere(2 + rng.below(11) as u8, *rng.pick(&words.animals)),
        _ => {
            let subject = definite(words, 0.3, rng);
            return Clause::new(subject, Predicate::Done(*rng.pick(&words.transitive), None))
                .into();
        }
    };
    Clause::new(person, predicate).into()
}

/// The words that `style` draws from.
pub(super) fn words_of(style: Style) -> &'static Words {
    use std::sync::LazyLock;
    static OPEN: LazyLock<Words> = LazyLock::new(|| Words::new(Pool::Open));
    static RESERVED: LazyLock<Words> = LazyLock::new(|| {
        // Entities are reserved ones; verbs are all, or the domain would test a dozen verbs.
        let all = Words::new(Pool::All);
        Words {
            transitive: all.transitive,
            ditransitive: all.ditransitive,
            motion: all.motion,
            intransitive: all.intransitive,
            ..Words::new(Pool::Reserved)
        }
    });
    match style {
        Style::Seen => &OPEN,
        Style::Unseen => &RESERVED,
    }
}

/// All words, for the plain text of the language model.
pub(super) fn all_words() -> &'static Words {
    use std::sync::LazyLock;
    static ALL: LazyLock<Words> = LazyLock::new(|| Words::new(Pool::All));
    &ALL
}

/// Whether it is as short as the sentences of stories: one clause without adjective, time or place.
/// Such sentences are not held out, so they are not drawn for recognition and translation.
fn is_bare(derivation: &Derivation) -> bool {
    let Derivation::Plain(Clause { when: None, subject, predicate, place: None }) = derivation
    else {
        return false;
    };
    let described =
        |np: &Np| matches!(np, Np::The(_, Some(_)) | Np::A(_, Some(_)) | Np::Count(_, _, Some(_)));
    let object = match predicate {
        Predicate::DoTo(_, what)
        | Predicate::Give(_, _, what, _)
        | Predicate::Get(what, _)
        | Predicate::Has(_, what) => Some(what),
        Predicate::Bring(what, _) | Predicate::LeaveAt(what, _) | Predicate::Paint(what, _) => {
            Some(what)
        }
        _ => None,
    };
    !described(subject) && !object.is_some_and(described)
}

/// Draws a derivation of `style` that belongs to `split`; `None` when the search was in vain.
pub(super) fn draw_in(
    style: Style,
    split: Split,
    rng: &mut Stream,
) -> Option<(Derivation, String)> {
    if (style, split) == (Style::Unseen, Split::Train) {
        return None;
    }
    let frames = if style == Style::Seen { Frames::Seen } else { Frames::Unseen };
    for _ in 0..400 {
        let derivation = draw(words_of(style), frames, rng);
        if style == Style::Seen && is_bare(&derivation) {
            continue;
        }
        let key = derivation.key();
        if split_of(&key, style) == split {
            return Some((derivation, key));
        }
    }
    None
}
