//! `sandhi data microworld`: the embedded corpus as JSON lines.

use std::path::PathBuf;

use anyhow::bail;
use clap::ValueEnum;
use sandhi_data::{
    language::Language,
    microworld::{
        Item, Level, Microworld, Split, Style, Task, WildWords, Wordings, biasing, write_jsonl,
    },
    speech::Domain,
};
use serde::Serialize;
use serde_json::json;

use super::speak::{Line, speak};
use crate::output;

/// Arguments of `sandhi data microworld`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is made.
    #[arg(value_enum)]
    what: What,
    /// Task of items, e.g. `transcribe`, `translate_de`; may be repeated, all when absent.
    #[arg(long)]
    task: Vec<Task>,
    /// Language that is spoken.
    #[arg(long, value_parser = language, default_value = "en")]
    language: Language,
    /// Part of the corpus.
    #[arg(long, value_enum, default_value = "train")]
    split: SplitArg,
    /// Templates and entities of training, or the others.
    #[arg(long, value_enum, default_value = "seen")]
    style: StyleArg,
    /// Level of stories; all when absent.
    #[arg(long, value_enum)]
    level: Option<LevelArg>,
    /// Wordings of instructions.
    #[arg(long, value_enum, default_value = "training")]
    wordings: WordingsArg,
    /// Names that a biasing instruction lists.
    #[arg(long, default_value_t = biasing::DEFAULT_N_PHRASES)]
    n_phrases: usize,
    /// How many (of each task or level).
    #[arg(long, short, default_value_t = 10)]
    n: usize,
    /// Seed of the world.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Output file; stdout when absent.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also speak, in this acoustic domain: wild, base, voices, tempo or channel.
    #[arg(long, value_name = "DOMAIN", value_parser = domain, requires = "audio_dir")]
    speak: Option<Domain>,
    /// Folder of the WAV files and their `manifest.jsonl`.
    #[arg(long, value_name = "DIR", requires = "speak")]
    audio_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Instruction, speech and answer.
    Items,
    /// Single sentences with their translations.
    Sentences,
    /// Word salad for the encoder's pre-training.
    Wild,
    /// Stories with a right ending and three wrong ones.
    Stories,
    /// The almanac.
    Facts,
    /// Text for the language model's pre-training.
    Documents,
    /// Rare names of a split.
    Names,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::commands) enum SplitArg {
    Train,
    Dev,
    Test,
}

impl From<SplitArg> for Split {
    fn from(split: SplitArg) -> Self {
        match split {
            SplitArg::Train => Self::Train,
            SplitArg::Dev => Self::Dev,
            SplitArg::Test => Self::Test,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StyleArg {
    Seen,
    Unseen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum LevelArg {
    Topic,
    Entity,
    OneHop,
    TwoHops,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum WordingsArg {
    Training,
    HeldOut,
    All,
}

pub(in crate::commands) fn language(code: &str) -> Result<Language, String> {
    let found = Language::ALL.into_iter().find(|language| language.code() == code);
    found.ok_or_else(|| format!("expected one of {}", Language::ALL.map(Language::code).join(", ")))
}

pub(in crate::commands) fn domain(name: &str) -> Result<Domain, String> {
    let found = Domain::ALL.into_iter().find(|domain| domain.name() == name);
    found.ok_or_else(|| format!("expected one of {}", Domain::ALL.map(Domain::name).join(", ")))
}

/// Records as text, and the lines that can be spoken.
#[derive(Default)]
struct Made {
    jsonl: Vec<u8>,
    lines: Vec<Line>,
}

impl Made {
    fn add<T: Serialize>(
        &mut self,
        records: &[T],
        line: impl Fn(&T) -> Line,
    ) -> anyhow::Result<()> {
        write_jsonl(&mut self.jsonl, records)?;
        self.lines.extend(records.iter().map(line));
        Ok(())
    }
}

/// Makes, prints and speaks.
pub fn run(args: Args) -> anyhow::Result<()> {
    let made = make(&args)?;
    if made.jsonl.is_empty() {
        bail!(
            "there is nothing of this kind in {}, split {:?}, style {:?}",
            args.language.name(),
            args.split,
            args.style
        );
    }
    output::write(args.out.as_deref(), &String::from_utf8_lossy(&made.jsonl))?;
    if let (Some(domain), Some(dir)) = (args.speak, &args.audio_dir) {
        if made.lines.is_empty() {
            bail!(
                "{:?} cannot be spoken; items, sentences, wild, stories and names can",
                args.what
            );
        }
        speak(&made.lines, domain, dir)?;
    }
    Ok(())
}

fn make(args: &Args) -> anyhow::Result<Made> {
    let world = Microworld::new(args.seed);
    let (split, style) = (args.split(), args.style());
    let (language, n) = (args.language, args.n);
    let mut made = Made::default();
    let plain = |id: String, text: String, language| Line { id, text, language, ..Line::default() };
    match args.what {
        What::Items => {
            for &task in if args.task.is_empty() { &Task::ALL[..] } else { &args.task } {
                if !task.speaks(language) && !args.task.is_empty() {
                    bail!("task {task} is not spoken in {}", language.name());
                }
                let items = if task == Task::Biasing && args.n_phrases != biasing::DEFAULT_N_PHRASES
                {
                    world.biasing_items(args.n_phrases, split, n)
                } else {
                    world.items_with(task, language, split, style, args.wordings(), n)
                };
                let line = |item: &Item| Line {
                    id: item.id.clone(),
                    text: item.spoken.clone(),
                    language: item.spoken_language,
                    split: Some(split.name()),
                    task: Some(item.task.name()),
                    instruction: Some(item.instruction.clone()),
                    answer: Some(item.answer.clone()),
                    voice: None,
                };
                write_jsonl(&mut made.jsonl, &items)?;
                for (i, item) in items.iter().enumerate() {
                    if !task.is_pair() {
                        made.lines.push(line(item));
                        continue;
                    }
                    // Both of a pair in one voice, numbered as the choices are.
                    for (n, choice) in item.choices.iter().enumerate() {
                        made.lines.push(Line {
                            id: format!("{}-{n}", item.id),
                            text: choice.clone(),
                            instruction: None,
                            voice: Some(i as u64),
                            ..line(item)
                        });
                    }
                }
            }
        }
        What::Sentences => {
            made.add(&world.sentences(language, split, style, n), |sentence| Line {
                split: Some(split.name()),
                ..plain(format!("{}-{language}", sentence.id), sentence.text.clone(), language)
            })?;
        }
        What::Wild => {
            let records: Vec<_> = world
                .wild_sentences(language, WildWords::All, n)
                .into_iter()
                .enumerate()
                .map(|(i, text)| json!({"id": format!("wild-{language}-{i}"), "text": text}))
                .collect();
            made.add(&records, |record| {
                let field = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
                plain(field("id"), field("text"), language)
            })?;
        }
        What::Stories => {
            for &level in args.level().as_ref().map_or(&Level::ALL[..], std::slice::from_ref) {
                made.add(&world.stories(split, style, level, n), |story| Line {
                    split: Some(split.name()),
                    ..plain(story.id.clone(), story.text(), Language::English)
                })?;
            }
        }
        What::Facts => {
            let facts = world.facts();
            write_jsonl(&mut made.jsonl, &facts[..facts.len().min(n)])?;
        }
        What::Documents => {
            let documents: Vec<_> = world.documents("train").take(n).collect();
            write_jsonl(&mut made.jsonl, &documents)?;
        }
        What::Names => {
            let names = biasing::names(split);
            let records: Vec<_> = names[..names.len().min(n)]
                .iter()
                .map(|name| json!({"name": name, "split": split.name()}))
                .collect();
            made.add(&records, |record| {
                let name = record["name"].as_str().unwrap_or_default();
                plain(format!("name-{name}"), name.to_owned(), language)
            })?;
        }
    }
    Ok(made)
}

impl Args {
    fn split(&self) -> Split {
        self.split.into()
    }

    fn style(&self) -> Style {
        match self.style {
            StyleArg::Seen => Style::Seen,
            StyleArg::Unseen => Style::Unseen,
        }
    }

    fn level(&self) -> Option<Level> {
        self.level.map(|level| match level {
            LevelArg::Topic => Level::Topic,
            LevelArg::Entity => Level::Entity,
            LevelArg::OneHop => Level::OneHop,
            LevelArg::TwoHops => Level::TwoHops,
        })
    }

    fn wordings(&self) -> Wordings {
        match self.wordings {
            WordingsArg::Training => Wordings::Training,
            WordingsArg::HeldOut => Wordings::HeldOut,
            WordingsArg::All => Wordings::All,
        }
    }
}
