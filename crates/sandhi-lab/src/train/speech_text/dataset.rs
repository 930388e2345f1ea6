//! Utterances and texts as documents: read, drawn anew, measured.

use std::{borrow::Cow, sync::Arc};

use rayon::prelude::*;
use sandhi_data::{
    interleave::{self, Document},
    patching::UnitMerges,
    rng::Stream,
    text::{JointVocabulary, Symbol},
    units::{UnitCorpus, UnitUtterance, UnitWord},
};

use super::{Cutting, Reading, SpeechTextBatch};
use crate::{
    plan,
    recipe::{Form, Measure, NetworkConfig},
    sources,
    train::dataset::{Dataset, Draw},
};

/// What documents are made of.
#[derive(Debug)]
pub enum Material {
    /// Documents that are always the same, with the words of the utterances that they are of.
    Fixed(Vec<Reading>),
    /// Utterances that are interleaved anew every time they are read.
    Interleaved(Utterances),
    /// Utterances that become the same documents whenever they are read.
    Parts {
        /// What documents they become.
        form: Form,
        /// The utterances.
        utterances: Utterances,
        /// Every part that the context cuts them into: the number of its utterance, and which of its parts.
        parts: Vec<(usize, usize)>,
    },
}

/// Utterances by their numbers.
#[derive(Debug)]
pub enum Utterances {
    /// In memory, in the tokens of the model.
    Here(Vec<UnitUtterance>),
    /// Some of those of files, which are read when they are wanted.
    InFiles {
        /// The files.
        corpus: UnitCorpus,
        /// Which.
        indices: Vec<usize>,
        /// What their units are merged by.
        merges: Option<Arc<UnitMerges>>,
    },
}

impl Utterances {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Here(utterances) => utterances.len(),
            Self::InFiles { indices, .. } => indices.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or has units that the merges do not know.
    pub fn get(&self, i: usize) -> Result<Cow<'_, UnitUtterance>, sources::Error> {
        Ok(match self {
            Self::Here(utterances) => Cow::Borrowed(&utterances[i]),
            Self::InFiles { corpus, indices, merges } => {
                let utterance = corpus.get(indices[i])?;
                Cow::Owned(match merges {
                    Some(merges) => merges.apply_to(utterance)?,
                    None => utterance,
                })
            }
        })
    }

    /// Keeps those that `is_kept` says, which may refuse one. What is in files is not held.
    ///
    /// # Errors
    ///
    /// Those of [`Utterances::get`]; those of `is_kept`, with the place in a file.
    pub fn retain(
        &mut self,
        mut is_kept: impl FnMut(&UnitUtterance) -> Result<bool, interleave::Error>,
    ) -> Result<(), sources::Error> {
        let kept: Result<Vec<bool>, _> = (0..self.len())
            .map(|i| {
                let utterance = self.get(i)?;
                is_kept(&utterance).map_err(|error| self.wrong(i, error))
            })
            .collect();
        let mut kept = kept?.into_iter();
        let mut next = || kept.next().expect("one for every utterance");
        match self {
            Self::Here(utterances) => utterances.retain(|_| next()),
            Self::InFiles { indices, .. } => indices.retain(|_| next()),
        }
        Ok(())
    }

    fn wrong(&self, i: usize, error: interleave::Error) -> sources::Error {
        match self {
            Self::Here(_) => error.into(),
            Self::InFiles { corpus, indices, .. } => {
                let at = corpus.place(indices[i]);
                sources::Error::Utterance { at, error: Box::new(error) }
            }
        }
    }

    /// As [`Utterances::get`], of what was read before training.
    ///
    /// # Panics
    ///
    /// When a file has changed since.
    fn again(&self, i: usize) -> Cow<'_, UnitUtterance> {
        self.get(i).unwrap_or_else(|error| panic!("{error}, and could be read before training"))
    }
}

/// What is said, as it was written down or as its words.
pub(crate) fn text_of(utterance: &UnitUtterance) -> String {
    utterance.text.clone().unwrap_or_else(|| {
        let words: Vec<&str> = utterance.words.iter().map(|word| word.word.as_str()).collect();
        words.join(" ")
    })
}

/// An utterance as a form has it; blocks are drawn from the stream.
///
/// # Errors
///
/// When it has nothing that the form needs, or units that the vocabulary has not.
pub(crate) fn document_of(
    form: Form,
    utterance: &UnitUtterance,
    vocabulary: &JointVocabulary,
    stream: &mut Stream,
) -> Result<Document, interleave::Error> {
    match form {
        Form::Interleaved => interleave::interleaved(utterance, vocabulary, stream),
        Form::Spoken => interleave::spoken(utterance, vocabulary),
        Form::Transcribed => interleave::transcribed(utterance, &text_of(utterance), vocabulary),
        Form::Voiced => interleave::voiced(&text_of(utterance), utterance, vocabulary),
        Form::Written => interleave::written(&text_of(utterance), vocabulary),
    }
}

/// Documents, or what they are made of.
#[derive(Debug)]
pub struct SpeechTextDataset {
    /// What the tokens are.
    pub vocabulary: Arc<JointVocabulary>,
    /// How documents are cut into patches.
    pub cutting: Cutting,
    /// Tokens of a document at most.
    pub context: usize,
    /// Units a second.
    pub rate_hz: f64,
    /// What units were merged by.
    pub merges: Option<Arc<UnitMerges>>,
    /// What documents are made of.
    pub material: Material,
    /// What batches are measured by.
    pub meter: Meter,
}

/// What a document costs a batch.
#[derive(Debug, Clone)]
pub struct Meter {
    /// By what.
    pub measure: Measure,
    /// Of which network.
    pub network: NetworkConfig,
    /// Rows of its embedding table.
    pub n_vocabulary: usize,
}

impl Meter {
    /// Thousandths of the unit of `batch.max_length`.
    fn cost(&self, n_tokens: f64, n_patches: f64) -> u64 {
        let length = match self.measure {
            Measure::Tokens => n_tokens,
            Measure::Patches => match self.network {
                NetworkConfig::Plain(_) => n_tokens,
                NetworkConfig::Patch(_) => n_patches,
            },
            Measure::Operations => {
                operations(&self.network, self.n_vocabulary, n_tokens, n_patches) / 1e6
            }
        };
        (1000.0 * length).ceil().max(1.0) as u64
    }
}

/// Operations of matrix products, forward, of a document of so many tokens and patches.
fn operations(network: &NetworkConfig, n_vocabulary: usize, n_tokens: f64, n_patches: f64) -> f64 {
    let parts = plan::forward_operations(network, n_vocabulary, n_tokens, n_patches);
    parts.into_iter().map(|(_, operations)| operations).sum()
}

/// Readings that the length of an interleaved document is estimated by.
pub(super) const READINGS: u64 = 6;

impl SpeechTextDataset {
    pub(crate) fn n_items(&self) -> usize {
        match &self.material {
            Material::Fixed(documents) => documents.len(),
            Material::Interleaved(utterances) => utterances.len(),
            Material::Parts { parts, .. } => parts.len(),
        }
    }

    /// Draws that lengths are estimated by: over the documents of an utterance, and over the course of training.
    pub(super) fn readings(&self) -> Vec<Draw> {
        let changes = matches!(self.material, Material::Interleaved(_))
            || matches!(&self.cutting, Cutting::Given(patching, _) if patching.config().is_drawn());
        let n = if changes { READINGS } else { 1 };
        let at = |i: u64| Draw { key: i, progress: Some((i as f64 + 0.5) / n as f64) };
        (0..n).map(at).collect()
    }

    /// Patches of a document, about as many where the model says where they end.
    fn n_patches(&self, document: &Document, words: &[UnitWord], draw: Draw, item: usize) -> f64 {
        let item = item.to_string();
        let patches = self.cutting.patches((document, words), &self.vocabulary, draw, &item);
        let n = document.ids.len() - 1;
        if let Some(patches) = patches {
            // The last token is predicted and not read: what ends by it does not become whole.
            return patches.closes.iter().filter(|&&told| (told as usize) < n).count() as f64;
        }
        let (n_tokens, n_units) = (n as f64, document.n_units as f64);
        match &self.meter.network {
            NetworkConfig::Plain(_) => n_tokens,
            NetworkConfig::Patch(config) => config
                .router
                .map_or(n_tokens, |router| n_tokens - n_units + n_units / router.units_per_patch),
        }
    }

    /// The documents of an utterance as this reading has them, none longer than the context.
    fn documents(&self, form: Form, utterance: &UnitUtterance, key: u64) -> Vec<Reading> {
        const CHECKED: &str = "utterances were read before training";
        let mut stream = Stream::named(key, &utterance.id);
        let document = document_of(form, utterance, &self.vocabulary, &mut stream).expect(CHECKED);
        let parts = interleave::split(document, &self.vocabulary, self.context).expect(CHECKED);
        let words: Arc<[UnitWord]> = utterance.words.clone().into();
        parts.into_iter().map(|part| (part, words.clone())).collect()
    }

    /// The documents of an item as this reading has them.
    fn read(&self, i: usize, key: u64) -> Vec<Reading> {
        match &self.material {
            Material::Fixed(documents) => vec![documents[i].clone()],
            Material::Interleaved(utterances) => {
                self.documents(Form::Interleaved, &utterances.again(i), key)
            }
            Material::Parts { form, utterances, parts } => {
                let (utterance, part) = parts[i];
                let documents = self.documents(*form, &utterances.again(utterance), key);
                documents.into_iter().skip(part).take(1).collect()
            }
        }
    }

    /// The documents of an item as each of the [`Self::readings`] has them; what is in a file is read once.
    fn all_readings(&self, i: usize) -> Vec<(Draw, Vec<Reading>)> {
        let draws = self.readings().into_iter();
        match &self.material {
            Material::Interleaved(utterances) => {
                let utterance = utterances.again(i);
                let of =
                    |draw: Draw| (draw, self.documents(Form::Interleaved, &utterance, draw.key));
                draws.map(of).collect()
            }
            Material::Fixed(_) | Material::Parts { .. } => {
                let documents = self.read(i, 0);
                draws.map(|draw| (draw, documents.clone())).collect()
            }
        }
    }
}

impl Dataset for SpeechTextDataset {
    type Batch = SpeechTextBatch;

    fn costs(&self) -> Vec<u64> {
        let cost = |i: usize| {
            let readings = self.all_readings(i);
            let sum: u64 = readings
                .iter()
                .flat_map(|(draw, documents)| {
                    documents.iter().map(|(document, words)| {
                        let n_tokens = (document.ids.len() - 1) as f64;
                        let n_patches = self.n_patches(document, words, *draw, i);
                        self.meter.cost(n_tokens, n_patches)
                    })
                })
                .sum();
            sum / readings.len() as u64
        };
        (0..self.n_items()).into_par_iter().map(cost).collect()
    }

    fn n_tokens(&self) -> Option<f64> {
        let tokens = |i: usize| {
            let readings = self.all_readings(i);
            let documents = readings.iter().flat_map(|(_, documents)| documents);
            let sum: usize = documents.map(|(document, _)| document.ids.len() - 1).sum();
            sum as f64 / readings.len() as f64
        };
        // Summed in order, so that the sum is the same on any number of threads.
        let of_items: Vec<f64> = (0..self.n_items()).into_par_iter().map(tokens).collect();
        Some(of_items.iter().sum())
    }

    fn load(&self, indices: &[usize], draw: Draw) -> SpeechTextBatch {
        let mut batch = SpeechTextBatch::new(&self.cutting);
        for &i in indices {
            for (document, words) in self.read(i, draw.key) {
                let item = i.to_string();
                batch.push(&document, &words, &self.vocabulary, &self.cutting, draw, &item);
            }
        }
        let unit = |id: &u32| match self.vocabulary.symbol(*id) {
            Some(Symbol::Unit(unit)) => {
                self.merges.as_ref().map_or(1, |merges| u64::from(merges.length(unit)))
            }
            _ => 0,
        };
        batch.speech_s = batch.targets.iter().map(unit).sum::<u64>() as f64 / self.rate_hz;
        batch
    }
}
