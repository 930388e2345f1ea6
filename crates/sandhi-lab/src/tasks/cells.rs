//! Which items make up a task in a domain.

use std::collections::HashMap;

use sandhi_data::{
    language::Language::{self, English, German, Spanish},
    microworld::{Item, Level, Microworld, Phenomenon, Split, Style, Task, Wordings},
    rng::Stream,
    speech::Domain,
};

use super::{
    answer::Job,
    choice::{Asked, Form},
    follows::RATE,
};
use crate::{
    protocol::PromptForm,
    recipe::{EvalConfig, Half},
    sources::Spoken,
};

/// The domains of the report: four acoustic ones, and texts that training did not have, in the voices
/// of `base`.
pub const DOMAINS: [&str; 5] = ["base", "voices", "tempo", "channel", "texts"];

/// Every task with its title, in the order of the report.
pub const TASKS: [(&str, &str); 30] = [
    ("asr", "Transcription, English"),
    ("asr_de", "Transcription, German"),
    ("asr_es", "Transcription, Spanish"),
    ("st_en_de", "Translation, English to German"),
    ("st_en_es", "Translation, English to Spanish"),
    ("st_de_en", "Translation, German to English"),
    ("st_es_en", "Translation, Spanish to English"),
    ("first_word", "First word"),
    ("name_person", "Name of the person"),
    ("unseen_wording", "Transcription, wordings never trained on speech"),
    ("last_word", "Last word"),
    ("name_place", "Name of the place"),
    ("upper_case", "Transcription in capitals"),
    ("sqa", "Question about what was said"),
    ("dialogue", "Reply in a dialogue"),
    ("continuation", "Story continuation"),
    ("story_cloze", "Likelier of two story endings"),
    ("story_cloze_chat", "Likelier of two story endings, asked for in a chat"),
    ("hella_swag", "Likeliest of four story endings"),
    ("swuggy", "Likelier of word and pseudo-word"),
    ("sblimp", "Likelier of sentence and wrong sentence"),
    ("asr_3", "Transcription, English, behind 3 that are solved"),
    ("tts", "Speech of a text, in units"),
    ("tts_3", "Speech of a text, in units, behind 3 that are said"),
    ("facts", "Spoken multiple choice (almanac)"),
    ("facts_5", "Spoken multiple choice (almanac), 5 solved in writing"),
    ("biasing_0", "Rare names, no list"),
    ("biasing_10", "Rare names, list of 10"),
    ("biasing_100", "Rare names, list of 100"),
    ("biasing_1000", "Rare names, list of 1,000, shortlist of 20"),
];

/// Tasks that only models over text and units have: those score whole utterances, hear what was solved, and speak.
const OF_UNITS: [&str; 5] = ["swuggy", "sblimp", "asr_3", "tts", "tts_3"];

/// Takes out what a model cannot do that is none over text and units; what was asked for by name is told.
pub(super) fn leave_out_units(cells: &mut Vec<Cell>, config: &EvalConfig) {
    let is_of_units = |cell: &mut Cell| OF_UNITS.contains(&cell.task.as_str());
    for Cell { task, domain, .. } in cells.extract_if(.., is_of_units) {
        if !config.tasks.is_empty() {
            tracing::warn!("{task}.{domain} is left out: only speech_text models have it");
        }
    }
}

/// Whether an evaluation task has this name.
pub fn is_task(name: &str) -> bool {
    TASKS.iter().any(|(task, _)| *task == name)
}

/// Whether an evaluation domain has this name.
pub fn is_domain(name: &str) -> bool {
    DOMAINS.contains(&name)
}

/// How a domain sounds, where that is its difference.
pub(super) fn acoustic(domain: &str) -> Option<Domain> {
    match domain {
        "base" => Some(Domain::Base),
        "voices" => Some(Domain::Voices),
        "tempo" => Some(Domain::Tempo),
        "channel" => Some(Domain::Channel),
        _ => None,
    }
}

/// A task's name for readers.
pub fn task_title(name: &str) -> &str {
    let others = [
        (RATE, "Instructions followed in form, untrained tasks"),
        ("length", "Length before the language model"),
        ("resynthesis", "Units said again, English"),
        ("resynthesis_de", "Units said again, German"),
        ("resynthesis_es", "Units said again, Spanish"),
    ];
    let mut titles = TASKS.iter().chain(&others);
    titles.find(|(task, _)| *task == name).map_or(name, |(_, title)| title)
}

/// Phrases that stay of a task's long list, where a CTC head says which.
pub(super) fn shortlist(task: &str) -> Option<usize> {
    (task == "biasing_1000").then_some(20)
}

/// How a task is answered and scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Word and character error rates; entity recall where items have entities.
    Transcript,
    /// BLEU and chrF.
    Translation,
    /// Equal but for case and punctuation.
    Exact,
    /// Equal to the letter.
    ExactCase,
    /// A free ending that parses and agrees, the choice among four, perplexity of the right one.
    Story,
    /// The likelier of two whole utterances, both spoken or both written.
    Pair,
    /// Units of speech, held against those of a true utterance.
    Units,
    /// The likeliest option, of a document or of a chat.
    Choice {
        /// What context and options stand in.
        prompt: PromptForm,
        /// Solved items before it.
        shots: usize,
    },
}

/// Stories, in a document or a chat. On 800 stories of the dev half the foundation model chooses 54.1 % of four endings
/// right in documents and 55.5 % in chats. Connectors meet speech in chats alone, and documents of speech are new to them.
fn endings(prompt: PromptForm) -> Kind {
    Kind::Choice { prompt, shots: 0 }
}

impl Kind {
    pub(super) fn generates(self) -> bool {
        !matches!(self, Self::Choice { .. } | Self::Pair)
    }

    /// What choices are made in and after how many solved items; `None` where none are made.
    pub(super) fn choice(self) -> Option<(PromptForm, usize)> {
        match self {
            Self::Story => Some((PromptForm::Chat, 0)),
            Self::Choice { prompt, shots } => Some((prompt, shots)),
            Self::Pair => Some((PromptForm::Plain, 0)),
            Self::Transcript | Self::Translation | Self::Exact | Self::ExactCase | Self::Units => {
                None
            }
        }
    }
}

/// A task in a domain.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) task: String,
    pub(super) domain: String,
    pub(super) kind: Kind,
    pub(super) acoustic: Domain,
    pub(super) trained: bool,
    pub(super) items: Vec<Item>,
    pub(super) max_tokens: usize,
    /// Phrases that stay of a long list.
    pub(super) shortlist: Option<usize>,
    /// Solved items that every question follows, in writing; those of transcription are heard.
    pub(super) shots: Vec<Item>,
    /// How long the right options take to say, where that is known.
    pub(super) right_s: HashMap<String, f64>,
}

impl Cell {
    /// What is heard: equal texts of a domain are one utterance, whatever the task.
    pub(super) fn spoken(&self, item: &Item) -> Spoken {
        Spoken::made(item.spoken.clone(), item.spoken_language, self.acoustic)
    }

    /// What is said, in writing.
    pub(super) fn transcripts(&self) -> Vec<String> {
        self.items.iter().map(|item| item.spoken.clone()).collect()
    }

    /// What is asked.
    pub(super) fn job(&self) -> Job {
        let form = |item: &Item| match self.kind.choice() {
            Some((PromptForm::Plain, _)) => {
                let solved = self.shots.iter().map(solved);
                Form::Plain { before: solved.map(|text| text + " ").collect(), between: " ".into() }
            }
            Some((PromptForm::Chat, _)) | None => {
                let solved = self.shots.iter().map(|shot| format!(" {}", solved(shot)));
                let instruction = std::iter::once(item.instruction.clone()).chain(solved).collect();
                Form::Chat { instruction }
            }
        };
        let asked = |item: &Item| Asked { form: form(item), endings: self.options(item) };
        Job {
            asked: self.items.iter().map(asked).collect(),
            said: self.items.iter().map(|item| Some(item.spoken.clone())).collect(),
            max_tokens: self.kind.generates().then_some(self.max_tokens),
        }
    }

    /// What is chosen from.
    pub(super) fn options(&self, item: &Item) -> Vec<String> {
        match (self.kind, &item.story) {
            (Kind::Story, Some(story)) => story.endings.to_vec(),
            (Kind::Choice { .. } | Kind::Pair, _) => item.choices.clone(),
            _ => Vec::new(),
        }
    }

    /// Index of the right option.
    pub(super) fn right(&self, item: &Item) -> usize {
        match (self.kind, &item.story) {
            (Kind::Story, Some(story)) => story.right,
            _ => item.right,
        }
    }
}

/// A solved item as a document has it.
fn solved(item: &Item) -> String {
    format!("{} {}.", item.spoken, item.answer)
}

/// Every cell that the configuration asks for.
pub(super) fn cells(world: &Microworld, split: Split, config: &EvalConfig) -> Vec<Cell> {
    let wants = |list: &[String], name: &str| list.is_empty() || list.iter().any(|n| n == name);
    let mut cells = Vec::new();
    for domain in DOMAINS.iter().filter(|name| wants(&config.domains, name)) {
        let style = if *domain == "texts" { Style::Unseen } else { Style::Seen };
        let acoustic = acoustic(domain).unwrap_or(Domain::Base);
        for (task, _) in TASKS.iter().filter(|(name, _)| wants(&config.tasks, name)) {
            if let Some((kind, trained, items)) = items(world, task, split, style, config.n) {
                cells.push(Cell {
                    task: (*task).to_owned(),
                    domain: (*domain).to_owned(),
                    kind,
                    acoustic,
                    trained,
                    items,
                    max_tokens: config.max_tokens,
                    shortlist: shortlist(task),
                    shots: shots(world, task, kind),
                    right_s: HashMap::new(),
                });
            }
        }
    }
    cells
}

/// The almanac after so many solved items, in a chat: on 200 questions of the dev half the foundation model chooses 36.5 % so,
/// with and without shots, and 27.5 to 30 % in a document, where a fourth is chance.
fn facts(shots: usize) -> Kind {
    Kind::Choice { prompt: PromptForm::Chat, shots }
}

/// Solved items of the training split, the same before every question. Those of the almanac were never voiced, and are
/// not here.
fn shots(world: &Microworld, task: &str, kind: Kind) -> Vec<Item> {
    let solved = |task, n| world.items(task, English, Split::Train, Style::Seen, n);
    match (task, kind) {
        (_, Kind::Choice { shots, .. }) if shots > 0 => solved(Task::FactChoice, shots),
        ("asr_3" | "tts_3", _) => {
            // Of one sentence each, so that a context has room for them.
            let n_ends = |item: &Item| item.spoken.matches(['.', '?', '!']).count();
            let mut shots = solved(Task::Transcribe, 20);
            shots.retain(|item| n_ends(item) == 1);
            shots.truncate(3);
            shots
        }
        _ => Vec::new(),
    }
}

/// The story with its right ending and one of the others, which follows from its name.
fn two_endings(item: Item) -> Item {
    let mut rng = Stream::named(0, &item.id);
    let wrong: Vec<&String> =
        (0..item.choices.len()).filter(|&i| i != item.right).map(|i| &item.choices[i]).collect();
    let mut choices = vec![(*rng.pick(&wrong)).clone(), item.answer.clone()];
    let right = rng.below(2);
    if right == 0 {
        choices.reverse();
    }
    Item { choices, right, ..item }
}

/// What is said to be transcribed: every language in every domain that is wanted, all where none is named.
pub(crate) fn transcriptions(
    world: &Microworld,
    split: Split,
    domains: &[String],
    n: usize,
) -> Vec<(&'static str, Language, Vec<Spoken>)> {
    let named = |(domain, cell): (_, Cell)| {
        let language = cell.items.first()?.spoken_language;
        Some((domain, language, cell.items.iter().map(|item| cell.spoken(item)).collect()))
    };
    let cells = of_tasks(world, split, &["asr", "asr_de", "asr_es"], domains, n);
    cells.into_iter().filter_map(named).collect()
}

/// Stories that are told, with their endings, in every domain that is wanted, all where none is named.
pub(crate) fn stories(
    world: &Microworld,
    split: Split,
    domains: &[String],
    n: usize,
) -> Vec<(&'static str, Vec<(Item, Spoken)>)> {
    let told = |cell: Cell| {
        let spoken: Vec<Spoken> = cell.items.iter().map(|item| cell.spoken(item)).collect();
        cell.items.into_iter().zip(spoken).collect()
    };
    let cells = of_tasks(world, split, &["continuation"], domains, n).into_iter();
    cells.map(|(domain, cell)| (domain, told(cell))).collect()
}

/// The questions of the almanac as `facts` asks them.
pub(super) fn almanac(world: &Microworld, split: Split, n: usize) -> Cell {
    let mut found = of_tasks(world, split, &["facts"], &["base".to_owned()], n);
    found.pop().expect("the almanac is asked in every domain").1
}

/// The cells of some tasks by their domains.
fn of_tasks(
    world: &Microworld,
    split: Split,
    tasks: &[&str],
    domains: &[String],
    n: usize,
) -> Vec<(&'static str, Cell)> {
    let config = EvalConfig {
        tasks: tasks.iter().map(|&task| task.to_owned()).collect(),
        domains: domains.to_vec(),
        ..EvalConfig::new(n, Half::Dev)
    };
    let named = |cell: Cell| {
        let domain = DOMAINS.into_iter().find(|domain| *domain == cell.domain)?;
        Some((domain, cell))
    };
    cells(world, split, &config).into_iter().filter_map(named).collect()
}

/// The items of a task; `None` where the style has none.
fn items(
    world: &Microworld,
    name: &str,
    split: Split,
    style: Style,
    n: usize,
) -> Option<(Kind, bool, Vec<Item>)> {
    let of = |task: Task, language: Language| world.items(task, language, split, style, n);
    let translate = |from, to| (Kind::Translation, true, of(Task::Translate { to }, from));
    let biasing = |n_phrases| match style {
        Style::Seen => Some((Kind::Transcript, false, world.biasing_items(n_phrases, split, n))),
        Style::Unseen => None,
    };
    Some(match name {
        "asr" => (Kind::Transcript, true, of(Task::Transcribe, English)),
        "asr_de" => (Kind::Transcript, true, of(Task::Transcribe, German)),
        "asr_es" => (Kind::Transcript, true, of(Task::Transcribe, Spanish)),
        "st_en_de" => translate(English, German),
        "st_en_es" => translate(English, Spanish),
        "st_de_en" => translate(German, English),
        "st_es_en" => translate(Spanish, English),
        "first_word" => (Kind::Exact, true, of(Task::FirstWord, English)),
        "name_person" => (Kind::Exact, true, of(Task::NamePerson, English)),
        "unseen_wording" => (
            Kind::Transcript,
            false,
            world.items_with(Task::Transcribe, English, split, style, Wordings::HeldOut, n),
        ),
        "last_word" => (Kind::Exact, false, of(Task::LastWord, English)),
        "name_place" => (Kind::Exact, false, of(Task::NamePlace, English)),
        "upper_case" => (Kind::ExactCase, false, of(Task::UpperCase, English)),
        "sqa" => (Kind::Exact, false, of(Task::AnswerQuestion, English)),
        "dialogue" => (Kind::Exact, false, of(Task::Dialogue, English)),
        "continuation" => (Kind::Story, false, of(Task::Continue, English)),
        // The stories of `continuation`, which chooses among the four endings in a chat.
        "story_cloze" | "story_cloze_chat" => {
            let items = of(Task::Continue, English).into_iter().map(two_endings).collect();
            let is_chat = name == "story_cloze_chat";
            let prompt = if is_chat { PromptForm::Chat } else { PromptForm::Plain };
            (endings(prompt), false, items)
        }
        "hella_swag" => (endings(PromptForm::Plain), false, of(Task::Continue, English)),
        "swuggy" => (Kind::Pair, false, of(Task::Swuggy, English)),
        "sblimp" => (Kind::Pair, false, of(Task::Sblimp, English)),
        "asr_3" => (Kind::Transcript, false, of(Task::Transcribe, English)),
        "tts" | "tts_3" => (Kind::Units, false, of(Task::Transcribe, English)),
        "facts" => (facts(0), false, of(Task::FactChoice, English)),
        "facts_5" => (facts(5), false, of(Task::FactChoice, English)),
        "biasing_0" => return biasing(0),
        "biasing_10" => return biasing(10),
        "biasing_100" => return biasing(100),
        "biasing_1000" => return biasing(1_000),
        _ => return None,
    })
}

/// The phenomena of wrong sentences with the names of their metrics.
pub(super) fn phenomena() -> [(Phenomenon, String); 5] {
    Phenomenon::ALL.map(|phenomenon| (phenomenon, format!("accuracy_{}", phenomenon.name())))
}

/// The levels of stories with the names of their metrics.
pub(super) fn levels() -> [(Level, String); 4] {
    Level::ALL.map(|level| (level, format!("accuracy_{}", level.name())))
}
