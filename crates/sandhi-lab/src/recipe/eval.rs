//! What is measured of a trained model.

use sandhi_data::choice;
use serde::{Deserialize, Serialize};

use crate::protocol::Sides;

/// The `[eval]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Task names; all that the model can do when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// Domains; all when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// Items a cell.
    pub n: usize,
    /// `dev` while something is tuned, `test` once.
    #[serde(default = "default_half")]
    pub half: Half,
    /// Longest answer, in tokens.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: usize,
    /// Utterances of each language, or of the manifest, that a connector's evaluation draws in `pictures/`.
    #[serde(default = "default_pictures", skip_serializing_if = "is_default_pictures")]
    pub pictures: usize,
    /// A manifest or corpus folder to transcribe instead of Microworld.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Only utterances of this split of the manifest; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_split: Option<String>,
    /// Files of units whose utterances are measured instead of Microworld: how likely they are to a speech_text model, written,
    /// spoken and interleaved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unit_files: Vec<String>,
    /// Sides of choices that are asked for by name, `s2t`, `t2t`, `s2s` or `t2s`: those that the model does not have are
    /// said to be so. Of files only these are measured; all that the model has where nothing is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sides: Vec<Sides>,
    /// Choice items of files to choose the endings of instead of Microworld.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<ChoicesConfig>,
    /// A ctc model that reads what a vocoder says, beside the true sound; not the encoder that made the units. `$name` stands
    /// for a folder of `--path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recognizer: Option<String>,
    /// A vocoder that makes sound of what a speech_text model says, for the recognizer to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocoder: Option<String>,
}

impl EvalConfig {
    /// Everything that the model can do, `n` items a cell; no pictures.
    pub fn new(n: usize, half: Half) -> Self {
        Self {
            tasks: Vec::new(),
            domains: Vec::new(),
            n,
            half,
            max_tokens: default_max_tokens(),
            pictures: 0,
            manifest: None,
            manifest_split: None,
            unit_files: Vec::new(),
            sides: Vec::new(),
            choices: None,
            recognizer: None,
            vocoder: None,
        }
    }
}

/// `choices` of `[eval]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChoicesConfig {
    /// Files or folders of [`sandhi_data::choice`]; `$name` stands for a folder or file of `--path`. All of their items
    /// are measured.
    pub paths: Vec<String>,
    /// Their format, where it is not to be told from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<choice::Format>,
    /// Solved items before each, in writing.
    #[serde(default)]
    pub shots: usize,
    /// What is to be done: then a chat is asked, otherwise a document continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
}

fn default_max_tokens() -> usize {
    64
}

fn default_pictures() -> usize {
    1
}

fn is_default_pictures(n: &usize) -> bool {
    *n == default_pictures()
}

fn default_half() -> Half {
    Half::Test
}

/// Which half of the evaluation data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Half {
    /// For tuning.
    Dev,
    /// Opened once.
    Test,
}

impl Half {
    /// The split of Microworld.
    pub fn split(self) -> sandhi_data::microworld::Split {
        match self {
            Self::Dev => sandhi_data::microworld::Split::Dev,
            Self::Test => sandhi_data::microworld::Split::Test,
        }
    }
}
