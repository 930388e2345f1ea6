//! Tasks, their instruction wordings, and items: an instruction, something spoken, an answer.
//!
//! ```text
//! instruction                         spoken                       answer
//! Write down what you hear.           Anna took the red ball.      Anna took the red ball.
//! Translate this into German.         Anna took the red ball.      Anna hat den roten Ball genommen.
//! What is the first word?             Anna took the red ball.      Anna
//! (nothing)                           ball | boll                  ball
//! ```
//!
//! Speech training uses [`SPEECH_TRAINED`] in training wordings. All other tasks, and the last
//! [`N_HELD_OUT_WORDINGS`] wordings of every task, never meet speech in training. The language model's
//! text has all tasks and all wordings, as a general language model's text would.

mod wordings;

pub use wordings::{N_HELD_OUT_WORDINGS, Wordings};

use super::grammar::{Clause, Derivation, Np, Predicate};
use super::lexicon::{Noun, Person};
use super::sentences::{draw_in, id};
use super::stories::{self, Drawn, Story};
use super::{Level, Phenomenon, Split, Style, almanac, biasing, dialogue, pairs};
use crate::language::Language;
use crate::rng::Stream;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What is to be done with the speech. Written as its [`name`](Task::name).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Task {
    /// Write it down.
    Transcribe,
    /// Write it in another language.
    Translate {
        /// The language to write.
        to: Language,
    },
    /// The first word.
    FirstWord,
    /// The name of the person.
    NamePerson,
    /// The last word.
    LastWord,
    /// The place that is named.
    NamePlace,
    /// The transcript in capitals.
    UpperCase,
    /// Facts and a question are spoken: answer it.
    AnswerQuestion,
    /// Something is said to the listener: reply.
    Dialogue,
    /// A story is told: say how it goes on.
    Continue,
    /// Write it down; the instruction lists names that may occur.
    Biasing,
    /// A question about the almanac and four choices are spoken: choose.
    FactChoice,
    /// A word is spoken, and a pseudo-word: nothing is asked, the word should be likelier.
    Swuggy,
    /// A sentence is spoken, and one that the grammar does not make: nothing is asked, the sentence should be likelier.
    Sblimp,
}

/// The tasks that speech training may use: recognition, translation and two instruction tasks.
pub const SPEECH_TRAINED: [Task; 6] = [
    Task::Transcribe,
    Task::Translate { to: Language::English },
    Task::Translate { to: Language::German },
    Task::Translate { to: Language::Spanish },
    Task::FirstWord,
    Task::NamePerson,
];

impl Task {
    /// All tasks.
    pub const ALL: [Self; 16] = [
        Self::Transcribe,
        Self::Translate { to: Language::English },
        Self::Translate { to: Language::German },
        Self::Translate { to: Language::Spanish },
        Self::FirstWord,
        Self::NamePerson,
        Self::LastWord,
        Self::NamePlace,
        Self::UpperCase,
        Self::AnswerQuestion,
        Self::Dialogue,
        Self::Continue,
        Self::Biasing,
        Self::FactChoice,
        Self::Swuggy,
        Self::Sblimp,
    ];

    /// The name in recipes, files and reports: `transcribe`, `translate_de`, `first_word`, …
    pub fn name(self) -> String {
        match self {
            Self::Transcribe => "transcribe",
            Self::Translate { to } => return format!("translate_{}", to.code()),
            Self::FirstWord => "first_word",
            Self::NamePerson => "name_person",
            Self::LastWord => "last_word",
            Self::NamePlace => "name_place",
            Self::UpperCase => "upper_case",
            Self::AnswerQuestion => "answer_question",
            Self::Dialogue => "dialogue",
            Self::Continue => "continue",
            Self::Biasing => "biasing",
            Self::FactChoice => "fact_choice",
            Self::Swuggy => "swuggy",
            Self::Sblimp => "sblimp",
        }
        .to_owned()
    }

    /// Names what is spoken; tasks with the same name draw the same speech from the same stream.
    pub(super) fn spoken_side(self) -> String {
        match self {
            Self::Transcribe | Self::Translate { .. } => "passage".to_owned(),
            Self::FirstWord
            | Self::LastWord
            | Self::NamePerson
            | Self::NamePlace
            | Self::UpperCase => "sentence".to_owned(),
            _ => self.name(),
        }
    }

    /// Whether the task exists for speech in `language`: recognition and the tasks about words in all
    /// three, translation into another language, everything else in English.
    pub fn speaks(self, language: Language) -> bool {
        match self {
            Self::Transcribe
            | Self::FirstWord
            | Self::LastWord
            | Self::NamePerson
            | Self::NamePlace => true,
            Self::Translate { to } => to != language,
            _ => language == Language::English,
        }
    }

    /// Whether items are pairs of which one is right: nothing is asked and nothing answered, and they are only measured.
    pub fn is_pair(self) -> bool {
        matches!(self, Self::Swuggy | Self::Sblimp)
    }

    /// Whether speech training may use the task.
    pub fn is_speech_trained(self) -> bool {
        SPEECH_TRAINED.contains(&self)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// A name that no task has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no task is called \"{0}\"; tasks are {names}", names = Task::ALL.map(Task::name).join(", "))]
pub struct UnknownTask(pub String);

impl FromStr for Task {
    type Err = UnknownTask;

    fn from_str(name: &str) -> Result<Self, UnknownTask> {
        Self::ALL
            .into_iter()
            .find(|task| task.name() == name)
            .ok_or_else(|| UnknownTask(name.to_owned()))
    }
}

impl TryFrom<String> for Task {
    type Error = UnknownTask;
    fn try_from(name: String) -> Result<Self, UnknownTask> {
        name.parse()
    }
}

impl From<Task> for String {
    fn from(task: Task) -> Self {
        task.name()
    }
}

/// One exchange: an instruction, speech and the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Names the derivation of the spoken side.
    pub id: String,
    /// What is to be done.
    pub task: Task,
    /// Where the derivation belongs.
    pub split: Split,
    /// Seen or unseen templates and entities.
    pub style: Style,
    /// The instruction, as text. It never has the transcript; for [`Task::Biasing`] it lists names, and pairs have none.
    pub instruction: String,
    /// The index of the wording among [`Task::wordings`].
    pub wording: usize,
    /// The wording is held out of speech training.
    pub held_out_wording: bool,
    /// What is said, in proper orthography: the transcript.
    pub spoken: String,
    /// The language of `spoken`.
    pub spoken_language: Language,
    /// The right answer.
    pub answer: String,
    /// The language of `answer`.
    pub answer_language: Language,
    /// For multiple choice, the candidate answers (`answer` is at `right`); else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// The index of the answer among `choices`.
    #[serde(default)]
    pub right: usize,
    /// The names in the instruction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phrases: Vec<String>,
    /// The rare names in `spoken`, for entity recall.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entities: Vec<String>,
    /// How many steps the answer takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// What is wrong with the other sentence of a pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phenomenon: Option<Phenomenon>,
    /// The story that is told, for checking free endings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub story: Option<Box<Story>>,
}

/// Draws an item; `None` when there is none of the kind or the search was in vain.
pub(super) fn draw(
    task: Task,
    language: Language,
    split: Split,
    style: Style,
    wordings: Wordings,
    level: Option<Level>,
    rng: &mut Stream,
) -> Option<Item> {
    if !task.speaks(language) {
        return None;
    }
    let spoken = match task {
        Task::Transcribe | Task::Translate { .. } | Task::UpperCase => {
            passage(task, language, split, style, rng)?
        }
        Task::FirstWord | Task::LastWord | Task::NamePerson | Task::NamePlace => {
            about_words(task, language, split, style, rng)?
        }
        Task::AnswerQuestion => answer_question(split, style, level, rng)?,
        Task::Continue => continuation(split, style, level, rng)?,
        Task::Dialogue => dialogue::draw(split, style, rng)?,
        Task::FactChoice => almanac::draw(split, style, rng)?,
        Task::Swuggy | Task::Sblimp => pairs::draw(task, split, style, rng)?,
        Task::Biasing => {
            return biasing::draw(biasing::DEFAULT_N_PHRASES, split, wordings, rng)
                .filter(|_| style == Style::Seen);
        }
    };
    Some(item(task, language, split, style, wordings, spoken, rng))
}

/// The tasks whose answer needs nothing but the words that are spoken.
pub const ABOUT_WORDS: [Task; 4] =
    [Task::Transcribe, Task::FirstWord, Task::LastWord, Task::UpperCase];

/// One of [`ABOUT_WORDS`] asked of a text, whatever it says; training only.
pub(super) fn of_words(
    task: Task,
    language: Language,
    text: String,
    wordings: Wordings,
    rng: &mut Stream,
) -> Item {
    let answer = match task {
        Task::FirstWord => words(&text).next().unwrap_or_default().to_owned(),
        Task::LastWord => words(&text).next_back().unwrap_or_default().to_owned(),
        Task::UpperCase => text.to_uppercase(),
        _ => text.clone(),
    };
    let spoken = Spoken { key: text.clone(), text, answer, ..Spoken::default() };
    item(task, language, Split::Train, Style::Seen, wordings, spoken, rng)
}

/// The words of a text, without punctuation.
fn words(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    text.split(' ').map(|word| word.trim_matches(['.', '?', ',', '¿']))
}

/// What is spoken with an instruction to it.
fn item(
    task: Task,
    language: Language,
    split: Split,
    style: Style,
    wordings: Wordings,
    spoken: Spoken,
    rng: &mut Stream,
) -> Item {
    let answer_language = if let Task::Translate { to } = task { to } else { language };
    let (wording, instruction) = wordings.draw(task, rng);
    Item {
        id: id(&task.name(), &spoken.key),
        task,
        split,
        style,
        instruction,
        wording,
        held_out_wording: !task.is_pair() && wording + N_HELD_OUT_WORDINGS >= task.wordings().len(),
        spoken: spoken.text,
        spoken_language: language,
        answer: spoken.answer,
        answer_language,
        choices: spoken.choices,
        right: spoken.right,
        phrases: Vec::new(),
        entities: Vec::new(),
        level: spoken.level,
        phenomenon: spoken.phenomenon,
        story: spoken.story,
    }
}

/// The spoken side of an item and its answer.
#[derive(Default)]
pub(super) struct Spoken {
    pub(super) key: String,
    pub(super) text: String,
    pub(super) answer: String,
    pub(super) choices: Vec<String>,
    pub(super) right: usize,
    pub(super) level: Option<Level>,
    pub(super) phenomenon: Option<Phenomenon>,
    pub(super) story: Option<Box<Story>>,
}

/// Mostly one sentence; two in a fifth and four in a tenth of the passages, so that what is trained on
/// sentences has met the length of stories. Every sentence belongs to the split.
fn passage(
    task: Task,
    language: Language,
    split: Split,
    style: Style,
    rng: &mut Stream,
) -> Option<Spoken> {
    let n = if task == Task::UpperCase { 1 } else { [1, 1, 1, 1, 1, 1, 1, 2, 2, 4][rng.below(10)] };
    let mut spoken = Spoken::default();
    for _ in 0..n {
        let (derivation, key) = draw_in(style, split, rng)?;
        spoken.key.push_str(&key);
        derivation.write(language, &mut spoken.text);
        if let Task::Translate { to } = task {
            derivation.write(to, &mut spoken.answer);
        }
    }
    match task {
        Task::UpperCase => spoken.answer = spoken.text.to_uppercase(),
        Task::Translate { .. } => {}
        _ => spoken.answer.clone_from(&spoken.text),
    }
    Some(spoken)
}

fn about_words(
    task: Task,
    language: Language,
    split: Split,
    style: Style,
    rng: &mut Stream,
) -> Option<Spoken> {
    for _ in 0..50 {
        let (derivation, key) = draw_in(style, split, rng)?;
        let text = derivation.text(language);
        let answer = match task {
            Task::FirstWord => words(&text).next().map(str::to_owned),
            Task::LastWord => words(&text).next_back().map(str::to_owned),
            Task::NamePerson => match persons(&derivation)[..] {
                [person] => Some(person.entry().name.to_owned()),
                _ => None,
            },
            _ => match places(&derivation)[..] {
                [place] => Some(match language {
                    Language::English => place.entry().en[0].to_owned(),
                    Language::German => place.entry().de[0].to_owned(),
                    Language::Spanish => place.entry().es[0].to_owned(),
                }),
                _ => None,
            },
        };
        if let Some(answer) = answer {
            return Some(Spoken { key, text, answer, ..Spoken::default() });
        }
    }
    None
}

fn clauses(derivation: &Derivation) -> Vec<&Clause> {
    match derivation {
        Derivation::Plain(clause) => vec![clause],
        Derivation::Pair(first, second) => vec![first, second],
        _ => Vec::new(),
    }
}

/// The persons that a statement names.
pub(super) fn persons(derivation: &Derivation) -> Vec<Person> {
    let mut found = Vec::new();
    for clause in clauses(derivation) {
        match clause.subject {
            Np::One(person) => found.push(person),
            Np::Two(a, b) => found.extend([a, b]),
            _ => {}
        }
        match clause.predicate {
            Predicate::Give(_, person, ..)
            | Predicate::Get(_, person)
            | Predicate::Borrow(_, Some(person))
            | Predicate::At(.., Some(Np::One(person)))
            | Predicate::Done(_, Some(person)) => {
                found.push(person);
            }
            _ => {}
        }
    }
    found
}

/// The places that a statement names.
fn places(derivation: &Derivation) -> Vec<Noun> {
    if let Derivation::There(place, _) = derivation {
        return vec![*place];
    }
    let mut found = Vec::new();
    for clause in clauses(derivation) {
        found.extend(clause.place);
        match clause.predicate {
            Predicate::Go(_, place)
            | Predicate::ComeFrom(place)
            | Predicate::Leave(place)
            | Predicate::ComeWith(place, _)
            | Predicate::At(_, place, _)
            | Predicate::NotAt(place)
            | Predicate::Bring(_, place)
            | Predicate::LeaveAt(_, place) => found.push(place),
            _ => {}
        }
    }
    found
}

/// A few facts and a question. Half of the time as few sentences as the answer needs and one more,
/// half of the time a whole story.
fn answer_question(
    split: Split,
    style: Style,
    level: Option<Level>,
    rng: &mut Stream,
) -> Option<Spoken> {
    let level = level.unwrap_or_else(|| {
        *rng.pick(&[Level::Entity, Level::Entity, Level::OneHop, Level::TwoHops])
    });
    if (style, split) == (Style::Unseen, Split::Train) {
        return None;
    }
    let (sentences, (question, answer)) = if rng.chance(0.5) {
        let n = if level == Level::TwoHops { 3 } else { 2 };
        let brief = stories::draw_brief(split, style, level, n, rng)?;
        (brief.sentences, brief.question)
    } else {
        (0..50).find_map(|_| {
            let Drawn { story, question } = stories::draw_story(split, style, level, rng)?;
            Some((story.sentences.to_vec(), question?))
        })?
    };
    let question = if style == Style::Unseen { reworded(&question) } else { question };
    let key = format!("{} {question}", stories::story_key(&sentences));
    let text = format!("{} {question}", sentences.join(" "));
    Some(Spoken { key, text, answer, level: Some(level), ..Spoken::default() })
}

/// The question in words that only the evaluation of unseen style has.
fn reworded(question: &str) -> String {
    for (seen, unseen) in [("Where is ", "In which place is "), ("Who ", "Which person ")] {
        if let Some(rest) = question.strip_prefix(seen) {
            return format!("{unseen}{rest}");
        }
    }
    question.to_owned()
}

fn continuation(
    split: Split,
    style: Style,
    level: Option<Level>,
    rng: &mut Stream,
) -> Option<Spoken> {
    let level = level.unwrap_or_else(|| *rng.pick(&Level::ALL));
    let Drawn { story, .. } = stories::draw_story(split, style, level, rng)?;
    Some(Spoken {
        key: stories::story_key(&story.sentences),
        text: story.text(),
        answer: story.endings[story.right].clone(),
        choices: story.endings.to_vec(),
        right: story.right,
        level: Some(level),
        story: Some(Box::new(story)),
        ..Spoken::default()
    })
}
