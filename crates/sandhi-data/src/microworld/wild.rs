//! Word salad for the pre-training of the speech encoder: all words, none of the sentences.
//!
//! ```text
//! Kitchen seven the Mirune painted on baskets Tarvo.
//! ```
//!
//! The encoder has to know the sound of every word, also of those that evaluation holds back, but must
//! not know the sentences that connectors are trained and evaluated on. A salad begins with a noun, an
//! adjective or a verb form; sentences of the grammar begin with a name, an article, a numeral or an
//! adverb, so no salad is one of them. A fifth of the words of an invented kind are made up on the spot,
//! so that the encoder can spell what it never heard.

use super::lexicon::{Adjective, Adverb, NUMERALS, Noun, Person, Verb};
use super::{Split, grammar};
use super::{almanac, biasing, dialogue, topics};
use crate::language::Language;
use crate::rng::Stream;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// Which words a wild text is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WildWords {
    /// All words of the corpus.
    #[default]
    All,
    /// Without the entities (persons, things, animals, places) that the evaluation of unseen texts holds
    /// back, and without the almanac. Verbs, adverbials and function words are all there.
    Open,
}

struct Salad {
    /// Words that may come first.
    first: Vec<&'static str>,
    content: Vec<&'static str>,
    function: Vec<&'static str>,
    names: Vec<&'static str>,
}

fn german_adjective(adjective: Adjective) -> impl Iterator<Item = &'static str> {
    static FORMS: LazyLock<Vec<Vec<String>>> = LazyLock::new(|| {
        let forms = |adjective: Adjective| {
            // Moods are only said of persons, without ending.
            let endings: &[&str] =
                if adjective.is_mood() { &[""] } else { &["", "e", "er", "es", "en"] };
            endings.iter().map(|ending| format!("{}{ending}", adjective.entry().de)).collect()
        };
        Adjective::all().map(forms).collect()
    });
    FORMS[adjective.index()].iter().map(String::as_str)
}

fn datives() -> &'static [String] {
    static FORMS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let plurals =
            Noun::all().map(|noun| noun.entry().de[1]).filter(|form| !form.ends_with(['n', 's']));
        plurals.map(|form| format!("{form}n")).collect()
    });
    &FORMS
}

fn participles() -> &'static [String] {
    static FORMS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let feminine = |verb: Verb| format!("{}a", verb.entry().es_forms[1].trim_end_matches('o'));
        Verb::all().map(feminine).collect()
    });
    &FORMS
}

fn split(words: &'static str) -> impl Iterator<Item = &'static str> {
    words
        .split([' ', '.', '?', '!', ',', '¿'])
        .filter(|word| !word.is_empty() && !word.starts_with('{'))
}

impl Salad {
    fn new(language: Language, words: WildWords) -> Self {
        let index = language as usize;
        let open = words == WildWords::Open;
        let mut content: Vec<&'static str> = Vec::new();
        let mut function: Vec<&'static str> = Vec::new();
        for noun in Noun::all().filter(|noun| !(open && noun.is_reserved())) {
            let entry = noun.entry();
            content.extend([entry.en, entry.de, entry.es][index]);
        }
        for adjective in Adjective::all() {
            match language {
                Language::English => content.push(adjective.entry().en),
                Language::German => content.extend(german_adjective(adjective)),
                Language::Spanish => content.extend(adjective.entry().es),
            }
        }
        for verb in Verb::all() {
            let entry = verb.entry();
            match language {
                Language::English => {
                    content.extend([entry.en].into_iter().chain(entry.en_forms).flat_map(split));
                }
                Language::German => content.extend([entry.de, entry.de_infinitive]),
                Language::Spanish => content.extend(entry.es.into_iter().chain(entry.es_forms)),
            }
        }
        // Spanish questions begin with a finite verb.
        let finite = |word: &str| {
            language == Language::Spanish && Verb::all().any(|verb| verb.entry().es.contains(&word))
        };
        let first: Vec<&'static str> = content
            .iter()
            .copied()
            .filter(|word| !["look", "looked", "for"].contains(word) && !finite(word))
            .collect();
        match language {
            Language::German if !open => content.extend(datives().iter().map(String::as_str)),
            Language::German => {}
            Language::Spanish => content.extend(participles().iter().map(String::as_str)),
            Language::English => {
                content.extend(topics::words().flat_map(split));
                if !open {
                    content.extend(almanac::words().flat_map(split));
                }
                content.extend(dialogue::WORDS.split(' '));
            }
        }
        for adverb in Adverb::all() {
            function.extend(split(adverb.entry().forms[index]));
        }
        function.extend(NUMERALS.iter().map(|numeral| numeral[index]));
        function.extend(grammar::FUNCTION_WORDS[index].split(' '));
        for words in [&mut content, &mut function] {
            words.sort_unstable();
            words.dedup();
        }
        let persons = Person::all().filter(|person| !(open && person.is_reserved()));
        let names: Vec<&'static str> = persons
            .map(|person| person.entry().name)
            .chain(almanac::names().filter(|_| !open))
            .collect();
        Self { first, content, function, names }
    }

    fn of(language: Language, words: WildWords) -> &'static Self {
        static ALL: LazyLock<[[Salad; 3]; 2]> = LazyLock::new(|| {
            let of = |words| Language::ALL.map(|language| Salad::new(language, words));
            [WildWords::All, WildWords::Open].map(of)
        });
        &ALL[words as usize][language as usize]
    }
}

/// Every word that wild texts of `language` draw from, except names.
pub(super) fn vocabulary(language: Language) -> impl Iterator<Item = &'static str> {
    let salad = Salad::of(language, WildWords::All);
    salad.content.iter().chain(&salad.function).copied()
}

pub(super) fn draw(language: Language, words: WildWords, rng: &mut Stream) -> String {
    let salad = Salad::of(language, words);
    let n_words = 4 + rng.below(7);
    let mut text = String::with_capacity(64);
    text.push_str(rng.pick::<&str>(&salad.first));
    for _ in 1..n_words {
        text.push(' ');
        match rng.below(20) {
            0..9 => text.push_str(rng.pick::<&str>(&salad.content)),
            9..16 => text.push_str(rng.pick::<&str>(&salad.function)),
            16..18 => text.push_str(rng.pick::<&str>(&salad.names)),
            18 => text.push_str(rng.pick::<String>(biasing::names(Split::Train))),
            _ => text.push_str(&biasing::invent_open(rng)),
        }
    }
    grammar::capitalize(&mut text, 0);
    text.push('.');
    text
}
