//! Tasks, their instruction wordings, and items: an instruction, something spoken, an answer.
//!
//! ```text
//! instruction                         spoken                       answer
//! Write down what you hear.           Anna took the red ball.      Anna took the red ball.
//! Translate this into German.         Anna took the red ball.      Anna hat den roten Ball genommen.
//! What is the first word?             Anna took the red ball.      Anna
//! ```
//!
//! Speech training uses [`SPEECH_TRAINED`] in training wordings. All other tasks, and the last
//! [`N_HELD_OUT_WORDINGS`] wordings of every task, never meet speech in training. The language model's
//! text has all tasks and all wordings, as a general language model's text would.

use super::grammar::{Clause, Derivation, Np, Predicate};
use super::lexicon::{Noun, Person};
use super::sentences::{draw_in, id};
use super::stories::{self, Story};
use super::{Level, Split, Style, almanac, biasing, dialogue};
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

/// So many wordings at the end of each task's list are held out of speech training.
pub const N_HELD_OUT_WORDINGS: usize = 3;

impl Task {
    /// All tasks.
    pub const ALL: [Self; 14] = [
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
        }
        .to_owned()
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

    /// Whether speech training may use the task.
    pub fn is_speech_trained(self) -> bool {
        SPEECH_TRAINED.contains(&self)
    }

    /// The wordings of the instruction, the held-out ones last. `{L}` stands for a language.
    #[rustfmt::skip]
    pub fn wordings(self) -> &'static [&'static str] {
        match self {
            Self::Transcribe => &[
                "Write down what you hear.", "Transcribe the speech.", "What is being said?", "Write the words of the speaker.", "Give the transcript.",
                "Type what the speaker says.", "Turn the speech into text.", "Repeat the sentence as text.",
                "Please note every word.", "What did the speaker say?", "Put the recording in writing.",
            ],
            Self::Translate { .. } => &[
                "Translate into {L}.", "Say it in {L}.", "Give the {L} translation.", "Write this in {L}.", "What is this in {L}?", "Put the sentence into {L}.",
                "Translate the speech into {L}.", "How do you say this in {L}?",
                "Turn this into {L}.", "Please write the {L} version.", "I only read {L}, so translate.",
            ],
            Self::FirstWord => &[
                "What is the first word?", "Say the first word.", "Give only the first word.", "Which word comes first?", "Write the first word.", "Repeat the first word.",
                "Name the first word of the sentence.", "Tell me the first word.",
                "How does it begin?", "Which word does the speaker start with?", "The first word, please.",
            ],
            Self::NamePerson => &[
                "Who is mentioned?", "Give the name of the person.", "Which person is mentioned?", "Write the name that you hear.", "Whose name do you hear?", "Name the person.",
                "Tell me who it is about.", "What is the name of the person?",
                "Who is this about?", "Find the name in the sentence.", "The name, please.",
            ],
            Self::LastWord => &[
                "What is the last word?", "Say the last word.", "Give only the last word.", "Which word comes last?", "Write the last word.", "Repeat the last word.",
                "Name the last word of the sentence.", "Tell me the last word.",
                "How does it end?", "Which word does the speaker end with?", "The last word, please.",
            ],
            Self::NamePlace => &[
                "Which place is mentioned?", "Name the place.", "Give the name of the place.", "Write the place that you hear.", "What place is mentioned?", "Tell me the place.",
                "What is the place in the sentence?", "Say which place it is.",
                "Where does it happen?", "Find the place in the sentence.", "The place, please.",
            ],
            Self::UpperCase => &[
                "Repeat in upper case.", "Write it in capital letters.", "Transcribe in capitals.", "Give the words in upper case.", "Write everything in capitals.", "Type it in capital letters.",
                "Repeat the sentence in capitals.", "Use only capital letters.",
                "Shout it in capitals.", "The transcript in upper case, please.", "Put it in big letters.",
            ],
            Self::AnswerQuestion => &[
                "Answer the question.", "Listen and answer.", "What is the answer?", "Give the answer.", "Give a short answer.", "Answer what the speaker asks.", "Reply to the question.",
                "Write the answer to the question.",
                "Please answer.", "Tell the speaker the answer.", "The answer in a few words, please.",
            ],
            Self::Dialogue => &[
                "Reply to the speaker.", "What do you say?", "Give a reply.", "Answer the speaker.", "Write your reply.", "Respond to the speaker.", "Say something in return.",
                "Continue the conversation.",
                "Please reply.", "How do you respond?", "Talk to the speaker.",
            ],
            Self::Continue => &[
                "Continue the story.", "What comes next?", "Write the next sentence.", "How does the story go on?", "Give the next sentence.", "Finish the story.", "End the story.",
                "Say how the story ends.",
                "Please go on.", "Tell the end of the story.", "Add one sentence.",
            ],
            Self::Biasing => &[
                "Transcribe the speech.", "Write down what you hear.", "Give the transcript.", "Type what the speaker says.", "Turn the speech into text.", "Write the words of the speaker.",
                "Repeat the sentence as text.", "What is being said?",
                "Please note every word.", "What did the speaker say?", "Put the recording in writing.",
            ],
            Self::FactChoice => &[
                "Choose the right answer.", "Which choice is right?", "Pick the right choice.", "Answer with one of the choices.", "Select the answer.", "Give the right choice.",
                "Which answer is right?", "Write the right answer.",
                "Please choose.", "What is true?", "Tell me which one is right.",
            ],
        }
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

/// Which wordings an item may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wordings {
    /// Those that speech training uses.
    Training,
    /// Those that it never uses.
    HeldOut,
    /// All.
    All,
}

impl Wordings {
    /// Draws the index of a wording of `task` and puts its words together.
    pub(super) fn draw(self, task: Task, rng: &mut Stream) -> (usize, String) {
        let all = task.wordings();
        let n_training = all.len() - N_HELD_OUT_WORDINGS;
        let range = match self {
            Self::Training => 0..n_training,
            Self::HeldOut => n_training..all.len(),
            Self::All => 0..all.len(),
        };
        let wording = range.start + rng.below(range.len());
        let text = match task {
            Task::Translate { to } => all[wording].replace("{L}", to.name()),
            _ => all[wording].to_owned(),
        };
        (wording, text)
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
    /// The instruction, as text. It never has the transcript; for [`Task::Biasing`] it lists names.
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
        Task::Biasing => {
            return biasing::draw(biasing::DEFAULT_N_PHRASES, split, wordings, rng)
                .filter(|_| style == Style::Seen);
        }
    };
    let answer_language = if let Task::Translate { to } = task { to } else { language };
    let (wording, instruction) = wordings.draw(task, rng);
    Some(Item {
        id: id(&task.name(), &spoken.key),
        task,
        split,
        style,
        instruction,
        wording,
        held_out_wording: wording + N_HELD_OUT_WORDINGS >= task.wordings().len(),
        spoken: spoken.text,
        spoken_language: language,
        answer: spoken.answer,
        answer_language,
        choices: spoken.choices,
        right: spoken.right,
        phrases: Vec::new(),
        entities: Vec::new(),
        level: spoken.level,
        story: spoken.story,
    })
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
        let mut words = text.split(' ').map(|word| word.trim_matches(['.', '?', ',', '¿']));
        let answer = match task {
            Task::FirstWord => words.next().map(str::to_owned),
            Task::LastWord => words.next_back().map(str::to_owned),
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
            | Predicate::At(.., Some(person))
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
    for _ in 0..50 {
        let (story, question) = stories::draw_story(split, style, level, rng)?;
        let Some((question, answer)) = question else { continue };
        let mut sentences: Vec<&str> = story.sentences.iter().map(String::as_str).collect();
        if rng.chance(0.5) {
            shorten(&mut sentences, &story, if level == Level::TwoHops { 3 } else { 2 }, rng);
        }
        let key = format!("{} {question}", stories::story_key(&story.sentences));
        let text = format!("{} {question}", sentences.join(" "));
        return Some(Spoken { key, text, answer, level: Some(level), ..Spoken::default() });
    }
    None
}

/// Leaves out sentences as long as the right ending still follows and more than `n` are left.
fn shorten(sentences: &mut Vec<&str>, story: &Story, n: usize, rng: &mut Stream) {
    use super::grammar::parse;
    use super::world::World;
    let mut order: Vec<usize> = (0..sentences.len()).collect();
    rng.shuffle(&mut order);
    let mut kept: Vec<bool> = vec![true; sentences.len()];
    let Some(ending) = parse(&story.endings[story.right]) else { return };
    let parsed: Vec<_> = sentences.iter().filter_map(|sentence| parse(sentence)).collect();
    for i in order {
        if kept.iter().filter(|kept| **kept).count() <= n {
            break;
        }
        kept[i] = false;
        let rest =
            parsed.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(sentence, _)| sentence);
        if World::after(rest).agrees(&ending) != Some(true) {
            kept[i] = true;
        }
    }
    let mut kept = kept.into_iter();
    sentences.retain(|_| kept.next().unwrap_or(true));
}

fn continuation(
    split: Split,
    style: Style,
    level: Option<Level>,
    rng: &mut Stream,
) -> Option<Spoken> {
    let level = level.unwrap_or_else(|| *rng.pick(&Level::ALL));
    let (story, _) = stories::draw_story(split, style, level, rng)?;
    Some(Spoken {
        key: stories::story_key(&story.sentences),
        text: story.text(),
        answer: story.endings[story.right].clone(),
        choices: story.endings.to_vec(),
        right: story.right,
        level: Some(level),
        story: Some(Box::new(story)),
    })
}
