//! Microworld: the corpus that the program makes itself.
//!
//! ```text
//! seed ─ stream ─ derivation ─┬─ English   Anna took the red ball.          hash of the derivation
//!                             ├─ German    Anna hat den roten Ball genommen.  └─ train, dev or test
//!                             └─ Spanish   Anna tomó la pelota roja.
//! ```
//!
//! A small world with state (who is where, who has what, colors, counts, hours) and a grammar over it
//! give sentences in three languages, stories with endings that only the state tells apart, questions,
//! dialogues, an almanac of invented facts and lists of rare names. Everything follows from a seed;
//! which split a derivation belongs to follows from its key alone, so no two seeds disagree about it.
//!
//! * [`Microworld::items`]: instruction, speech, answer, for training and evaluation on speech;
//! * [`Microworld::documents`]: the endless text that the language model is pre-trained on;
//! * [`Microworld::stories`] and [`cues`]: endings, and the shallow scorers that must fail on them;
//! * [`Microworld::wild_sentences`]: word salad for the pre-training of the encoder.

pub mod almanac;
pub mod biasing;
pub mod cues;
pub mod dialogue;
pub mod documents;
pub mod grammar;
pub mod lexicon;
mod pairs;
pub mod sentences;
pub mod stories;
pub mod tasks;
mod topics;
mod wild;
pub mod world;

pub use almanac::Fact;
pub use documents::{Document, DocumentKind, Documents};
pub use pairs::Phenomenon;
pub use sentences::Sentence;
pub use stories::{Continuation, Story, check_continuation};
pub use tasks::{Item, SPEECH_TRAINED, Task, Wordings};
pub use wild::WildWords;

use crate::language::Language;
use crate::rng::Stream;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// A part of the corpus. Derivations never cross.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For training.
    Train,
    /// The tuning half of the evaluation.
    Dev,
    /// The half of the evaluation that is opened once.
    Test,
}

impl Split {
    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Test => "test",
        }
    }
}

/// Whether templates and entities are those of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// Those of training.
    Seen,
    /// The evaluation domain `texts`: templates and entities that no training item has. It has no
    /// training split.
    Unseen,
}

impl Style {
    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Unseen => "unseen",
        }
    }
}

/// How many steps of the state an answer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Only the topic tells: the wrong endings are about something else.
    Topic,
    /// Which of several parallel facts.
    Entity,
    /// A fact that one event changed.
    OneHop,
    /// Two facts joined: a thing is where its holder went.
    TwoHops,
}

impl Level {
    /// All levels, easiest first.
    pub const ALL: [Self; 4] = [Self::Topic, Self::Entity, Self::OneHop, Self::TwoHops];

    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Entity => "entity",
            Self::OneHop => "one_hop",
            Self::TwoHops => "two_hops",
        }
    }
}

/// The generator of the corpus.
#[derive(Debug, Clone, Copy)]
pub struct Microworld {
    seed: u64,
}

impl Microworld {
    /// The corpus of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn stream(&self, parts: &[&str]) -> Stream {
        Stream::named(self.seed, &parts.join("/"))
    }

    /// `n` different items in training wordings. Fewer where the derivations run out, none for what
    /// does not exist: a task in a language that it does not speak ([`Task::speaks`]), training items
    /// of unseen style.
    pub fn items(
        &self,
        task: Task,
        language: Language,
        split: Split,
        style: Style,
        n: usize,
    ) -> Vec<Item> {
        self.items_with(task, language, split, style, Wordings::Training, n)
    }

    /// As [`Self::items`], with the wordings to choose from. The spoken side and the answers do not
    /// depend on the wordings, and tasks that can be about the same speech are: recognition and
    /// translation, and on single sentences the first and last word, capitals and names.
    pub fn items_with(
        &self,
        task: Task,
        language: Language,
        split: Split,
        style: Style,
        wordings: Wordings,
        n: usize,
    ) -> Vec<Item> {
        let mut rng = self.stream(&[
            "items",
            &task.spoken_side(),
            language.code(),
            split.name(),
            style.name(),
        ]);
        let draw = |rng: &mut Stream| {
            // Each from a stream of its own, so that tasks which draw alike speak alike.
            let mut item = Stream::new(rng.next_u64());
            tasks::draw(task, language, split, style, wordings, None, &mut item)
        };
        distinct(n, &mut rng, draw, |item| item.id.clone())
    }

    /// A training item that asks one of [`tasks::ABOUT_WORDS`] of a text of this corpus, in a training
    /// wording.
    pub fn item_of(&self, task: Task, language: Language, text: &str) -> Item {
        let mut rng = self.stream(&["asked", &task.name(), text]);
        tasks::of_words(task, language, text.to_owned(), Wordings::Training, &mut rng)
    }

    /// `n` different items whose instruction lists `n_phrases` names, one of which is spoken (with 0
    /// there is no list). The spoken side does not depend on `n_phrases`.
    pub fn biasing_items(&self, n_phrases: usize, split: Split, n: usize) -> Vec<Item> {
        let mut rng = self.stream(&["items", "biasing", split.name()]);
        let draw = |rng: &mut Stream| biasing::draw(n_phrases, split, Wordings::Training, rng);
        distinct(n, &mut rng, draw, |item| item.id.clone())
    }

    /// `n` different single sentences with their translations.
    pub fn sentences(
        &self,
        language: Language,
        split: Split,
        style: Style,
        n: usize,
    ) -> Vec<Sentence> {
        let mut rng = self.stream(&["sentences", split.name(), style.name()]);
        let draw = |rng: &mut Stream| {
            let (derivation, key) = sentences::draw_in(style, split, rng)?;
            let parallel = Language::ALL.map(|language| derivation.text(language));
            let id = sentences::id("sentence", &key);
            Some(Sentence { id, language, text: parallel[language as usize].clone(), parallel })
        };
        distinct(n, &mut rng, draw, |sentence| sentence.id.clone())
    }

    /// `n` texts of words, names and numerals of `language` in random order, which no other generator
    /// makes: for the encoder's pre-training, and of open words for connectors.
    pub fn wild_sentences(&self, language: Language, words: WildWords, n: usize) -> Vec<String> {
        let mut rng = self.stream(&["wild", language.code()]);
        distinct(n, &mut rng, |rng| Some(wild::draw(language, words, rng)), String::clone)
    }

    /// `n` different stories with their endings.
    pub fn stories(&self, split: Split, style: Style, level: Level, n: usize) -> Vec<Story> {
        let mut rng = self.stream(&["stories", split.name(), style.name(), level.name()]);
        let draw = |rng: &mut Stream| {
            stories::draw_story(split, style, level, rng).map(|drawn| drawn.story)
        };
        distinct(n, &mut rng, draw, |story| story.id.clone())
    }

    /// The almanac. It does not depend on the seed.
    pub fn facts(&self) -> Vec<Fact> {
        almanac::facts().to_vec()
    }

    /// The endless text of the language model's pre-training; `name` tells streams apart.
    pub fn documents(&self, name: &str) -> Documents {
        self.documents_of(DocumentKind::All, name)
    }

    /// Endless documents of one kind.
    pub fn documents_of(&self, kind: DocumentKind, name: &str) -> Documents {
        Documents::new(kind, self.stream(&["documents", name]))
    }
}

/// The words of a language, names left out; some belong to several languages.
pub fn vocabulary(language: Language) -> impl Iterator<Item = &'static str> {
    wild::vocabulary(language)
}

/// Writes one JSON object a line: items, stories, facts, sentences or documents.
///
/// # Errors
///
/// What the writer gives.
pub fn write_jsonl<'a, T: Serialize + 'a>(
    writer: &mut impl std::io::Write,
    records: impl IntoIterator<Item = &'a T>,
) -> std::io::Result<()> {
    for record in records {
        serde_json::to_writer(&mut *writer, record)?;
        writer.write_all(b"\n")?;
    }
    Ok(())
}

/// Draws until `n` have different keys, or until drawing finds nothing new for long.
fn distinct<T>(
    n: usize,
    rng: &mut Stream,
    draw: impl Fn(&mut Stream) -> Option<T>,
    key: impl Fn(&T) -> String,
) -> Vec<T> {
    let mut seen = HashSet::with_capacity(n);
    let mut out = Vec::with_capacity(n);
    let mut in_vain = 0;
    while out.len() < n && in_vain < 2_000 {
        match draw(rng) {
            Some(value) if seen.insert(key(&value)) => {
                in_vain = 0;
                out.push(value);
            }
            Some(_) => in_vain += 1,
            // A draw has already searched for long.
            None => in_vain += 500,
        }
    }
    out
}

#[cfg(test)]
mod tests;
