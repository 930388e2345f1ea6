//! Stories of four sentences with one right ending and three that contradict the state.
//!
//! ```text
//! level      story (in any order)                                                right        wrong
//! topic      The waves were big. Anna found a shell. …                           Anna swam.   Anna milked the cows.
//! entity     Anna is in the park. Ben is in the shop. Leo … Ida …                Ben is still in the shop / park / …
//! one hop    Anna came from the park. Anna went to the shop. Ben … Ben …         Now Anna is in the shop / park / …
//! two hops   Anna has the key. Ben has the hat. Anna went to the shop. Ben …     Now the key is in the shop / …
//! ```
//!
//! The four endings of the last three levels differ in one word, a *candidate*. Every candidate is
//! mentioned once in the story; which one is right, in which order the sentences come and which clauses
//! share a sentence are drawn independently, so that position, recency, frequency, length and n-grams
//! tell nothing: only who did what does. At level `topic` the wrong endings come from other topics and
//! nothing is mentioned twice, so the scorers that look at mentions do not apply there
//! ([`super::cues`] measures all this).

mod forms;

use super::grammar::{Derivation, parse};
use super::sentences::{id, split_of, words_of};
use super::topics::{self, TopicStory};
use super::world::World;
use super::{Level, Split, Style};
use crate::language::Language;
use crate::rng::Stream;
use forms::Draft;
use serde::{Deserialize, Serialize};

/// A story with its endings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Story {
    /// Names the derivation.
    pub id: String,
    /// Where its derivation belongs.
    pub split: Split,
    /// Seen or unseen templates and entities.
    pub style: Style,
    /// How many steps the right ending takes.
    pub level: Level,
    /// The construction: `place`, `holder`, `color`, …, or the topic.
    pub form: String,
    /// The story.
    pub sentences: [String; 4],
    /// Four endings, one of them right.
    pub endings: [String; 4],
    /// The index of the right ending.
    pub right: usize,
    /// The word in which each ending differs (`kitchen`, `Ben`, `red`); empty at level `topic`.
    pub candidates: Vec<String>,
    /// What the endings are about (`Anna`, `key`); empty at level `topic`.
    pub focus: String,
    /// The state, for checking free endings.
    pub world: World,
}

impl Story {
    /// The four sentences in one line.
    pub fn text(&self) -> String {
        self.sentences.join(" ")
    }
}

/// What a free ending is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continuation {
    /// The grammar can have made its first sentence.
    pub parses: bool,
    /// It agrees with the story's state (or topic); `None` when the story does not tell.
    pub agrees: Option<bool>,
}

/// Checks the first sentence of a free ending against the story.
pub fn check_continuation(story: &Story, text: &str) -> Continuation {
    let text = text.trim();
    let end = text.find(['.', '?']).map_or(text.len(), |at| at + 1);
    let first = &text[..end];
    if let Some(topic) = topics::topic_of(first) {
        let agrees = (story.level == Level::Topic).then(|| topic == story.form);
        return Continuation { parses: true, agrees };
    }
    match parse(first) {
        Some(sentence) => Continuation { parses: true, agrees: story.world.agrees(&sentence) },
        None => Continuation { parses: false, agrees: None },
    }
}

/// The key of a story: its sentences, whatever their order.
pub(super) fn story_key(sentences: &[String]) -> String {
    let mut sorted: Vec<&str> = sentences.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted.join(" ")
}

/// A story and a question about it with its answer; topics have no question.
pub(super) struct Drawn {
    pub(super) story: Story,
    pub(super) question: Option<(String, String)>,
}

/// What a story says, from either of its sources.
enum Source {
    Topic(TopicStory),
    State(Box<Draft>),
}

/// Sentences of a story and a question about them with its answer.
pub(super) struct Brief {
    pub(super) sentences: Vec<String>,
    pub(super) question: (String, String),
}

/// Draws a story of `split` of which only `n` sentences are told, or as many as the answer needs.
pub(super) fn draw_brief(
    split: Split,
    style: Style,
    level: Level,
    n: usize,
    rng: &mut Stream,
) -> Option<Brief> {
    for _ in 0..400 {
        let draft = forms::draft(level, style, rng)?;
        let Some((question, answer)) = draft.question else { continue };
        let kept = shorten(draft.sentences, &draft.endings[0], n, rng);
        let sentences: Vec<String> =
            kept.iter().map(|sentence| sentence.text(Language::English)).collect();
        if split_of(&story_key(&sentences), style) == split {
            let question = Derivation::Ask(question).text(Language::English);
            return Some(Brief { sentences, question: (question, answer) });
        }
    }
    None
}

/// Leaves out sentences as long as `ending` still follows and more than `n` are left.
fn shorten(
    mut sentences: Vec<Derivation>,
    ending: &Derivation,
    n: usize,
    rng: &mut Stream,
) -> Vec<Derivation> {
    let mut order: Vec<Derivation> = sentences.clone();
    rng.shuffle(&mut order);
    for candidate in order {
        if sentences.len() <= n {
            break;
        }
        let rest: Vec<Derivation> =
            sentences.iter().copied().filter(|sentence| *sentence != candidate).collect();
        if World::after(&rest).agrees(ending) == Some(true) {
            sentences = rest;
        }
    }
    sentences
}

/// Draws a story of `split`; `None` when the search was in vain. Unseen stories of training do not exist.
pub(super) fn draw_story(
    split: Split,
    style: Style,
    level: Level,
    rng: &mut Stream,
) -> Option<Drawn> {
    if (style, split) == (Style::Unseen, Split::Train) {
        return None;
    }
    for _ in 0..400 {
        let (source, sentences) = match forms::draft(level, style, rng) {
            Some(draft) => {
                let texts = draft.sentences.iter().map(|sentence| sentence.text(Language::English));
                let texts: Vec<String> = texts.collect();
                (Source::State(Box::new(draft)), texts)
            }
            None => {
                let persons = &words_of(style).persons;
                let topic = topics::draw(style == Style::Unseen, persons, rng);
                let texts = topic.sentences.to_vec();
                (Source::Topic(topic), texts)
            }
        };
        let key = story_key(&sentences);
        if split_of(&key, style) != split {
            continue;
        }
        let Ok(sentences) = <[String; 4]>::try_from(sentences) else { continue };
        let mut order = [0, 1, 2, 3];
        rng.shuffle(&mut order);
        let right = order.iter().position(|&i| i == 0).unwrap_or(0);
        let id = id("story", &key);
        return Some(match source {
            Source::Topic(topic) => {
                let endings = order.map(|i| topic.endings[i].clone());
                let story = Story {
                    id,
                    split,
                    style,
                    level,
                    form: topic.name.to_owned(),
                    sentences,
                    endings,
                    right,
                    candidates: Vec::new(),
                    focus: String::new(),
                    world: World::default(),
                };
                Drawn { story, question: None }
            }
            Source::State(draft) => {
                let question = draft.question.map(|(question, answer)| {
                    (Derivation::Ask(question).text(Language::English), answer)
                });
                let story = Story {
                    id,
                    split,
                    style,
                    level,
                    form: draft.form.to_owned(),
                    sentences,
                    endings: order.map(|i| draft.endings[i].text(Language::English)),
                    right,
                    candidates: order.map(|i| draft.candidates[i].clone()).to_vec(),
                    focus: draft.focus,
                    world: World::after(&draft.sentences),
                };
                Drawn { story, question }
            }
        });
    }
    None
}
