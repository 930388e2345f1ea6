//! What the language model is pre-trained on: stories, facts, sentences, and chats of every task.
//!
//! ```text
//! plain   a story with its right ending · facts in paraphrase · sentences in one of three languages ·
//!         words that belong together
//! chat    instruction, transcript where the speech will be, answer: every task, every wording
//! ```
//!
//! Training split only, except that plain text draws on all words (a language model knows the words that
//! an evaluation calls unseen, not the templates).

use super::sentences::{Frames, all_words, draw, split_of};
use super::tasks::{self, Item, Task, Wordings};
use super::wild::{self, WildWords};
use super::{Level, Split, Style, almanac, biasing, stories, topics};
use crate::language::Language;
use crate::rng::Stream;
use serde::{Deserialize, Serialize};

/// One document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Document {
    /// Running text.
    Plain(String),
    /// An exchange; the transcript stands in the place of the speech.
    Chat(Item),
}

/// Which documents are drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKind {
    /// All kinds.
    #[default]
    All,
    /// All kinds, but what one task speaks another may ask about, so that the instruction alone says what
    /// is to be done, and what is spoken does not.
    Mixed,
    /// Word salad to be repeated. Sentences can be guessed from their beginnings, and a young model that
    /// guesses does not find out how to look a word up; here nothing else helps.
    Repetition,
}

/// The endless stream of [`super::Microworld::documents`].
#[derive(Debug, Clone)]
pub struct Documents {
    kind: DocumentKind,
    n_phrases: &'static [usize],
    rng: Stream,
}

/// The longest list of names in an instruction.
pub const MAX_PHRASES: usize = 100;
/// How many names an instruction may list.
const N_PHRASES: [usize; 11] = [0, 2, 3, 5, 8, 10, 15, 20, 30, 60, MAX_PHRASES];

/// The weights of what a document is, of 100.
const STORY: usize = 12;
const FACTS: usize = 8;
const SENTENCES: usize = 6;
const WORDS: usize = 2;

/// The weights of a chat's task; translation draws its target.
#[rustfmt::skip]
const CHATS: [(Task, usize); 14] = [
    (Task::Transcribe, 16),
    (Task::Translate { to: Language::English }, 10), (Task::Translate { to: Language::German }, 9), (Task::Translate { to: Language::Spanish }, 9),
    (Task::FirstWord, 3), (Task::NamePerson, 4), (Task::LastWord, 6), (Task::NamePlace, 5), (Task::UpperCase, 7),
    (Task::AnswerQuestion, 14), (Task::Dialogue, 4), (Task::Continue, 5), (Task::Biasing, 4), (Task::FactChoice, 4),
];

/// The share of recognition and of questions for the first and last word that is asked of word salad.
const SALAD: f64 = 0.5;

/// The share of what is left of the tasks about words that is asked of what another task speaks, in
/// mixed documents, and the tasks that lend it.
const BORROWED: f64 = 0.6;
const LENDERS: [Task; 4] = [Task::AnswerQuestion, Task::Dialogue, Task::Continue, Task::FactChoice];

impl Documents {
    pub(super) fn new(kind: DocumentKind, rng: Stream) -> Self {
        Self { kind, n_phrases: &[], rng }.with_lists_of(20)
    }

    /// The same documents, with lists of at most `max_phrases` names in instructions that list names.
    #[must_use]
    pub fn with_lists_of(self, max_phrases: usize) -> Self {
        let n = N_PHRASES.partition_point(|&n| n <= max_phrases);
        Self { n_phrases: &N_PHRASES[..n], ..self }
    }

    fn document(&mut self) -> Option<Document> {
        if self.kind == DocumentKind::Repetition {
            let task = [Task::Transcribe, Task::Transcribe, Task::FirstWord, Task::LastWord];
            let (task, language) = (*self.rng.pick(&task), *self.rng.pick(&Language::ALL));
            return Some(Document::Chat(self.salad(task, language)));
        }
        let kind = self.rng.below(100);
        Some(if kind < STORY {
            Document::Plain(self.story()?)
        } else if kind < STORY + FACTS {
            Document::Plain(self.facts())
        } else if kind < STORY + FACTS + SENTENCES {
            Document::Plain(self.sentences())
        } else if kind < STORY + FACTS + SENTENCES + WORDS {
            Document::Plain(self.words())
        } else {
            Document::Chat(self.chat()?)
        })
    }

    fn story(&mut self) -> Option<String> {
        let level = *self.rng.pick(&Level::ALL);
        let drawn = stories::draw_story(Split::Train, Style::Seen, level, &mut self.rng)?;
        let story = drawn.story;
        Some(format!("{} {}", story.text(), story.endings[story.right]))
    }

    fn facts(&mut self) -> String {
        let n = 2 + self.rng.below(4);
        let texts: Vec<&str> = (0..n)
            .map(|_| {
                let fact = self.rng.pick(almanac::facts());
                self.rng.pick(&fact.paraphrases).as_str()
            })
            .collect();
        texts.join(" ")
    }

    fn sentences(&mut self) -> String {
        let language = *self.rng.pick(&Language::ALL);
        let n = 2 + self.rng.below(4);
        let mut text = String::new();
        for _ in 0..n {
            let derivation = loop {
                let derivation = draw(all_words(), Frames::Plain, &mut self.rng);
                if split_of(&derivation.key(), Style::Seen) == Split::Train {
                    break derivation;
                }
            };
            derivation.write(language, &mut text);
        }
        text
    }

    /// Words that belong together, and the words of unseen dialogues and questions in other sentences.
    fn words(&mut self) -> String {
        const OTHERS: [&str; 8] = [
            "My horse is nice.",
            "You can call me now.",
            "We bring and get many things.",
            "I keep what I want.",
            "Every month people celebrate.",
            "We owe a lot to a good invention.",
            "The house will belong to you.",
            "This is the name of a friend.",
        ];
        let n = 2 + self.rng.below(3);
        let texts: Vec<String> = (0..n)
            .map(|_| {
                if self.rng.chance(0.8) {
                    topics::association(&mut self.rng)
                } else {
                    (*self.rng.pick(&OTHERS)).to_owned()
                }
            })
            .collect();
        texts.join(" ")
    }

    fn chat(&mut self) -> Option<Item> {
        let total: usize = CHATS.iter().map(|(_, weight)| weight).sum();
        let mut at = self.rng.below(total);
        let mut task = Task::Transcribe;
        for (candidate, weight) in CHATS {
            if at < weight {
                task = candidate;
                break;
            }
            at -= weight;
        }
        if task == Task::Biasing {
            return self.biasing();
        }
        let languages: Vec<Language> =
            Language::ALL.into_iter().filter(|language| task.speaks(*language)).collect();
        let language = *self.rng.pick(&languages);
        let about_words = matches!(task, Task::Transcribe | Task::FirstWord | Task::LastWord);
        if about_words && self.rng.chance(SALAD) {
            return Some(self.salad(task, language));
        }
        if self.kind == DocumentKind::Mixed
            && language == Language::English
            && tasks::ABOUT_WORDS.contains(&task)
            && self.rng.chance(BORROWED)
        {
            let other = *self.rng.pick(&LENDERS);
            let lent = self.draw(other, language)?;
            return Some(tasks::of_words(
                task,
                language,
                lent.spoken,
                Wordings::All,
                &mut self.rng,
            ));
        }
        self.draw(task, language)
    }

    fn draw(&mut self, task: Task, language: Language) -> Option<Item> {
        tasks::draw(task, language, Split::Train, Style::Seen, Wordings::All, None, &mut self.rng)
    }

    /// A task about words, of words that belong to no sentence.
    fn salad(&mut self, task: Task, language: Language) -> Item {
        let text = wild::draw(language, WildWords::All, &mut self.rng);
        tasks::of_words(task, language, text, Wordings::All, &mut self.rng)
    }

    /// Every other text has the name misspelt, as if misheard; the list sets it right.
    fn biasing(&mut self) -> Option<Item> {
        let n_phrases = *self.rng.pick(self.n_phrases);
        let mut item = biasing::draw(n_phrases, Split::Train, Wordings::All, &mut self.rng)?;
        if n_phrases > 0 && self.rng.chance(0.5) {
            let name = item.entities[0].clone();
            item.spoken = item.spoken.replacen(&name, &biasing::misheard(&name, &mut self.rng), 1);
        }
        Some(item)
    }
}

impl Iterator for Documents {
    type Item = Document;

    fn next(&mut self) -> Option<Document> {
        loop {
            // A draw that finds nothing is as good as never made.
            if let Some(document) = self.document() {
                return Some(document);
            }
        }
    }
}
