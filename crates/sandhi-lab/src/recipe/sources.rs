//! What a stage learns from.

use std::collections::BTreeMap;

use sandhi_data::{
    language::Language,
    microworld::{DocumentKind, Task, WildWords},
    speech::Domain,
};
use serde::{Deserialize, Serialize};

use super::{StoriesSource, UnitsSource};

/// One `[[stage.data]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum SourceConfig {
    /// Spoken items of Microworld.
    Microworld(MicroworldSource),
    /// Spoken sentences for the encoder's pre-training, in the `wild` domain.
    Wild(WildSource),
    /// Text of Microworld for the language model.
    Documents(DocumentsSource),
    /// Utterances of a manifest.
    Manifest(ManifestSource),
    /// Plain text files, a document a paragraph.
    Text(TextSource),
    /// Letters, digits and number words, spelled at random.
    Spelling(SpellingSource),
    /// Stories of Microworld, spoken, written or both in turn.
    Stories(StoriesSource),
    /// Files of units.
    Units(UnitsSource),
}

impl SourceConfig {
    /// The value of `source` in recipes.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Microworld(_) => "microworld",
            Self::Wild(_) => "wild",
            Self::Documents(_) => "documents",
            Self::Manifest(_) => "manifest",
            Self::Text(_) => "text",
            Self::Spelling(_) => "spelling",
            Self::Stories(_) => "stories",
            Self::Units(_) => "units",
        }
    }

    /// Whether it is text that is read, and nothing that is heard.
    pub fn is_written(&self) -> bool {
        match self {
            Self::Microworld(_)
            | Self::Wild(_)
            | Self::Manifest(_)
            | Self::Stories(_)
            | Self::Units(_) => false,
            Self::Documents(_) | Self::Text(_) | Self::Spelling(_) => true,
        }
    }

    /// Share of the batches, where the recipe says one.
    pub fn weight(&self) -> Option<f64> {
        match self {
            Self::Microworld(s) => s.weight,
            Self::Wild(s) => s.weight,
            Self::Documents(s) => s.weight,
            Self::Manifest(s) => s.weight,
            Self::Text(s) => s.weight,
            Self::Spelling(s) => s.weight,
            Self::Stories(s) => s.weight,
            Self::Units(s) => s.weight,
        }
    }

    /// Names of the tasks that speech of the source is asked for; a manifest's own questions aside.
    pub(super) fn asked(&self) -> Vec<String> {
        let asked: &[String] = match self {
            Self::Microworld(source) if source.ask.is_empty() => &source.tasks,
            Self::Microworld(source) => &source.ask,
            Self::Wild(source) => &source.ask,
            Self::Manifest(_) => &[],
            Self::Documents(_)
            | Self::Text(_)
            | Self::Spelling(_)
            | Self::Stories(_)
            | Self::Units(_) => return Vec::new(),
        };
        if asked.is_empty() { vec![Task::Transcribe.name()] } else { asked.to_vec() }
    }
}

/// `source = "microworld"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MicroworldSource {
    /// Share of the batches; by the number of items when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Task names, e.g. `transcribe`, `translate_de`.
    pub tasks: Vec<String>,
    /// Languages that are spoken.
    #[serde(default = "english")]
    pub languages: Vec<Language>,
    /// How it sounds.
    pub domain: Domain,
    /// What connectors are asked instead of the tasks' own questions, e.g. `transcribe`, `first_word`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ask: Vec<String>,
    /// Slowest and fastest playing of an utterance; each is heard at one speed between them.
    #[serde(default = "as_spoken", skip_serializing_if = "is_as_spoken")]
    pub speed: [f64; 2],
    /// Items of each task and language.
    pub n: usize,
}

/// A range of speeds that changes nothing.
pub(crate) const AS_SPOKEN: [f64; 2] = [1.0, 1.0];

fn as_spoken() -> [f64; 2] {
    AS_SPOKEN
}

fn is_as_spoken(speed: &[f64; 2]) -> bool {
    *speed == AS_SPOKEN
}

fn english() -> Vec<Language> {
    vec![Language::English]
}

/// `source = "wild"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WildSource {
    /// Share of the batches; by the number of items when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// How it sounds; `wild` unless a control says otherwise.
    #[serde(default = "wild")]
    pub domain: Domain,
    /// Which words: `all`, or `open` for what connectors may hear.
    #[serde(default)]
    pub words: WildWords,
    /// What connectors are asked, e.g. `transcribe`, `first_word`; to transcribe when nothing is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ask: Vec<String>,
    /// Slowest and fastest playing of an utterance; each is heard at one speed between them.
    #[serde(default = "as_spoken", skip_serializing_if = "is_as_spoken")]
    pub speed: [f64; 2],
    /// Texts of each language.
    pub n: BTreeMap<Language, usize>,
}

fn wild() -> Domain {
    Domain::Wild
}

/// `source = "documents"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentsSource {
    /// Share of the batches; by the number of items when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Which documents: `all`, or `repetition` for word salad to be repeated.
    #[serde(default)]
    pub kind: DocumentKind,
    /// Names that an instruction lists at most; up to 100.
    #[serde(default = "default_max_phrases")]
    pub max_phrases: usize,
    /// Share of the exchanges whose transcript is written as hesitant speech: pieces said again, dashes
    /// for pauses. Models of the size that people use have read such text by the million words.
    #[serde(default)]
    pub hesitant: f64,
    /// Documents.
    pub n: usize,
}

fn default_max_phrases() -> usize {
    20
}

/// `source = "manifest"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestSource {
    /// Share of the batches; by the number of items when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// A manifest or corpus folder that `sandhi data import` reads; `$name` stands for a folder or file
    /// of `--path`.
    pub path: String,
    /// Only utterances of this split, e.g. `train`; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Speeds at which every utterance is heard besides its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub speeds: Vec<f64>,
    /// Instructions to draw from when the model is a connector model; the utterances' own where nothing is
    /// said, and to transcribe where they have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instructions: Vec<String>,
    /// As text only: the transcripts train a language model.
    #[serde(default = "one")]
    pub repeat: usize,
}

fn one() -> usize {
    1
}

/// `source = "text"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSource {
    /// Share of the batches; by the number of items when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// A file or a folder of `.txt` and `.md` files.
    pub path: String,
    /// Longest document, in characters; longer paragraphs are cut at sentences.
    #[serde(default = "default_text_length")]
    pub max_chars: usize,
    /// Upper-cased and without punctuation, as transcripts of speech corpora are.
    #[serde(default)]
    pub transcript_style: bool,
    /// Instructions under which the text is to be written down again; plain text without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instructions: Vec<String>,
}

fn default_text_length() -> usize {
    400
}

/// `source = "spelling"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpellingSource {
    /// Share of the batches; by the number of items when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Documents.
    pub n: usize,
    /// Instructions under which the text is to be written down again; plain text without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instructions: Vec<String>,
}
