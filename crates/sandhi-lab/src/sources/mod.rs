//! What stages learn from, made ready: text spoken, features computed, frames encoded, tokens cut.
//!
//! ```text
//! SourceConfig ─ texts ─ Studio ─ samples ─ features ─┬─ CtcDataset       (encoder pre-training)
//!                  │     workshop                     └─ frames ─ SpeechDataset  (connectors)   spoken
//!                  └─ tokens ─ TextDataset                          (language model)            written
//! ```

mod aligned;
mod said;
mod speech_text;
mod spoken;
mod vocoder;
mod workshop;
mod written;

use std::path::PathBuf;

use sandhi_data::{manifest, rng::Stream, speech};

pub(crate) use self::said::{Wanted, begins_word, said, token_times};
pub(crate) use self::speech_text::{Made, cut, in_domain};
pub(crate) use self::vocoder::whole_units;
pub use self::{
    spoken::Lesson,
    workshop::{Sound, Spoken, WORLD_SEED, Workshop, recordings, resolve},
};
use crate::{
    model::NeedsTranscript,
    recipe::{SourceConfig, StageConfig},
};

/// What can go wrong while data are made ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Speech cannot be made.
    #[error(transparent)]
    Speech(#[from] speech::Error),
    /// A sound file cannot be read.
    #[error(transparent)]
    Audio(#[from] sandhi_data::audio::Error),
    /// A manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// Choice items cannot be read.
    #[error(transparent)]
    Choice(#[from] sandhi_data::choice::Error),
    /// Fewer solved items than are to be shown.
    #[error(
        "{}: found {found} solved items{}, expected {asked} to show before each",
        path.display(),
        if group.is_empty() { String::new() } else { format!(" for {group}") }
    )]
    Shots {
        /// The file or folder.
        path: PathBuf,
        /// The subject that lacks them.
        group: String,
        /// How many there are.
        found: usize,
        /// How many are asked for.
        asked: usize,
    },
    /// Samples have no features.
    #[error("{id}: {error}")]
    Features {
        /// The utterance.
        id: String,
        /// Why.
        error: sandhi_data::features::Error,
    },
    /// Text cannot be tokenized.
    #[error(transparent)]
    Text(#[from] sandhi_data::text::Error),
    /// An encoder is asked to write, and has nothing to write with.
    #[error("{asked}: the encoder has no CTC head, so that it hears and cannot write")]
    NoRecognizer {
        /// What was asked for.
        asked: String,
    },
    /// Blanks are asked of an encoder that learns, or that is heard through masks.
    #[error(
        "transport.pad = \"blank\" is known where the encoder is heard once: no stage may train it"
    )]
    BlanksMove,
    /// Segments are asked of an encoder that learns, or that is heard through masks.
    #[error("segmenter: segments are known where the encoder is heard once: no stage may train it")]
    SegmentsMove,
    /// No utterance can be cut into its tokens.
    #[error("no utterance can be cut where its tokens end; the first is {text:?}: {why}")]
    Segments {
        /// What is said in it.
        text: String,
        /// Why not.
        why: String,
    },
    /// No utterance can be learned from.
    #[error("no text is without the pad and all of the connector's tokens; the first is {text:?}")]
    Unsayable {
        /// What is said in it.
        text: String,
    },
    /// No utterance can be aligned.
    #[error(
        "no utterance has a frame for every character; the first has {n_frames} frames for {n_characters}: {text:?}"
    )]
    Unplaceable {
        /// What is said in it.
        text: String,
        /// Its frames.
        n_frames: usize,
        /// Its characters, with a space at both ends.
        n_characters: usize,
    },
    /// A transcript is asked for.
    #[error(transparent)]
    NeedsTranscript(#[from] NeedsTranscript),
    /// An utterance of a file cannot be read as a source has it.
    #[error("{at}: {error}")]
    Utterance {
        /// The file, and its line or the utterance's number.
        at: String,
        /// What is wrong.
        error: Box<sandhi_data::interleave::Error>,
    },
    /// Masses are to follow durations that are not known.
    #[error(
        "no utterance has times for each of its words, to transport by durations; {text:?} is the first"
    )]
    WordTimes {
        /// What is said in it.
        text: String,
    },
    /// Frames cannot be cached.
    #[error(transparent)]
    Cache(#[from] crate::checkpoint::Error),
    /// A text file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The source is for another kind of model.
    #[error("stage {stage}: source {source_kind} gives nothing that a {model} model learns from")]
    Unfit {
        /// The stage.
        stage: String,
        /// The source's kind.
        source_kind: &'static str,
        /// The model's kind.
        model: &'static str,
    },
    /// A source without items.
    #[error("stage {stage}: source {source_kind} has no items")]
    Empty {
        /// The stage.
        stage: String,
        /// The source's kind.
        source_kind: &'static str,
    },
    /// A model cannot do what it is asked for.
    #[error(transparent)]
    Model(#[from] Box<crate::model::Error>),
    /// A file of units is wrong.
    #[error(transparent)]
    Units(#[from] sandhi_data::units::Error),
    /// A document cannot be cut into patches.
    #[error(transparent)]
    Patching(#[from] sandhi_data::patching::Error),
    /// Units are not those that merges or entropies are of.
    #[error(transparent)]
    Learned(#[from] sandhi_data::patching::LearnedError),
    /// An utterance cannot be put into tokens.
    #[error(transparent)]
    Interleave(#[from] sandhi_data::interleave::Error),
    /// Something is to be learned from what a stage hears or has in files, and there is nothing.
    #[error(
        "stage {stage}: nothing is spoken that units, or anything of units, could be learned from"
    )]
    Silent {
        /// The stage.
        stage: String,
    },
    /// Something is to be heard by a model whose units come in files.
    #[error(
        "stage {stage}: stories are spoken, and the model's units come in files, so that it cannot hear"
    )]
    Deaf {
        /// The stage.
        stage: String,
    },
    /// No stage has a file of units.
    #[error("model.units: from = \"files\", and no stage has a source \"units\"")]
    NoUnits,
    /// Units of another quantizer.
    #[error(
        "{place}: {} has {} units at {} Hz of quantizer {}, the model has {} at {} Hz of {}",
        file.display(), found.n_units, found.rate_hz, found.quantizer,
        expected.n_units, expected.rate_hz, expected.quantizer
    )]
    OtherUnits {
        /// What names it: a stage, or the evaluation.
        place: String,
        /// The file.
        file: PathBuf,
        /// What it has.
        found: Box<sandhi_data::units::UnitsHeader>,
        /// What the model has.
        expected: Box<sandhi_data::units::UnitsHeader>,
    },
    /// A vocoder is to be measured by what is read of it, and nothing reads it.
    #[error("a vocoder says what the model does, and nothing reads it: name a recognizer")]
    Unread,
    /// Two files whose results would have one name.
    #[error("eval.unit_files: {} and {} have one name, which names their results", first.display(), second.display())]
    SameName {
        /// One of them.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// A task that Microworld does not have.
    #[error("stage {stage}: {error}")]
    Task {
        /// The stage.
        stage: String,
        /// What is wrong.
        error: String,
    },
}

/// Data sets of a stage with their weights, and those that are measured on the dev half.
pub type Prepared<D> = (Vec<(Option<f64>, D)>, Vec<D>);

/// Which utterances and documents are held out, by what is said in them, so that no source learns what another one holds
/// out.
struct HeldOut {
    share: f64,
    n: usize,
}

impl HeldOut {
    /// About as many as the stage measures, of so many, and at most a tenth.
    fn new(stage: &StageConfig, n_items: usize) -> Self {
        let n = stage.eval_items;
        Self { share: (n as f64 / n_items.max(1) as f64).min(0.1), n }
    }

    fn has(&self, said: &str) -> bool {
        Stream::named(0, &format!("dev {said}")).chance(self.share)
    }

    /// Those that are measured, of every source.
    fn drawn<T>(&self, mut all: Vec<T>) -> Vec<T> {
        Stream::named(0, "dev").shuffle(&mut all);
        all.truncate(self.n);
        all
    }
}

fn unfit(stage: &StageConfig, source: &SourceConfig, model: &'static str) -> Error {
    Error::Unfit { stage: stage.name.clone(), source_kind: source.kind(), model }
}
