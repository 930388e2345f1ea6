//! What a model of units and text learns: the next token of documents, whatever it is.
//!
//! ```text
//! utterance ─ blocks, drawn by epoch and utterance ─ document ─ patches ─┐
//! text ────────────────────────────────────────────── document ──────────┴─ SpeechTextNet ─ ce of all tokens
//!                                                                             watched: text, speech, marker, text_per_word, speech_per_s
//! ```

use std::{borrow::Cow, sync::Arc};

use burn::prelude::*;
use rayon::prelude::*;
use sandhi_data::{
    interleave::{self, Document},
    patching::{Closure, Patches, Patching, UnitMerges},
    rng::Stream,
    text::{JointVocabulary, Symbol},
    units::{UnitCorpus, UnitUtterance, UnitWord},
};
use sandhi_nn::{
    ops,
    patch::{Boundaries, Closing, Documents, PatchLm},
    ragged::{Offsets, Ragged},
    transformer::{CausalLm, Dropout},
};

use super::{
    dataset::{Dataset, Draw},
    learner::{Learner, Measured, Size, Term},
};
use crate::{
    plan,
    recipe::{Form, LossConfig, Measure, NetworkConfig, StageConfig},
    sources,
};

/// What predicts the next token.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // handles of tensors, not tensors
pub enum Network {
    /// A transformer over tokens.
    Plain(CausalLm),
    /// One over patches.
    Patch(PatchLm),
}

/// A network as it is trained.
#[derive(Module, Debug)]
pub struct SpeechTextNet {
    /// What predicts.
    pub network: Network,
    /// Its settings, for counting what it does.
    #[module(skip)]
    pub config: NetworkConfig,
    /// Weight of the ratio loss of learned boundaries.
    pub ratio_weight: f64,
}

/// Where the patches of documents end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostBoundaries {
    /// There are no patches.
    None,
    /// One for every token.
    Given(Vec<Closing>),
    /// Whether every token is a patch of its own in any case.
    Learned(Vec<bool>),
}

/// What a token is that is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// A piece of text.
    Text,
    /// A unit.
    Speech,
    /// The beginning of text or of speech, or the end.
    Marker,
}

/// Documents of one forward pass.
#[derive(Debug, Clone)]
pub struct SpeechTextBatch {
    /// Tokens that are read: all of a document but its last.
    pub ids: Vec<u32>,
    /// The token that follows each of them.
    pub targets: Vec<u32>,
    /// What that is.
    pub kinds: Vec<TargetKind>,
    /// Tokens of each document.
    pub lengths: Vec<usize>,
    /// Where patches end.
    pub boundaries: HostBoundaries,
    /// Words that are written: those that begin with a piece of text.
    pub n_words: usize,
    /// Seconds that the units last.
    pub speech_s: f64,
}

/// How documents are cut into patches.
#[derive(Debug, Clone, PartialEq)]
pub enum Cutting {
    /// Not at all.
    Plain,
    /// By a rule.
    Given(Patching, Closure),
    /// By the model.
    Learned,
}

impl Cutting {
    /// How the documents of a network are cut; `patching` where it does not learn that.
    pub fn new(network: &NetworkConfig, patching: Option<&Patching>, closure: Closure) -> Self {
        match (network, patching) {
            (NetworkConfig::Plain(_), _) => Self::Plain,
            (NetworkConfig::Patch(_), Some(patching)) => Self::Given(patching.clone(), closure),
            (NetworkConfig::Patch(_), None) => Self::Learned,
        }
    }

    /// The patches of a document as this draw has them for the item of this name, where a rule gives them.
    ///
    /// # Panics
    ///
    /// When the document begins with a unit.
    fn patches(
        &self,
        (document, words): (&Document, &[UnitWord]),
        vocabulary: &JointVocabulary,
        draw: Draw,
        item: &str,
    ) -> Option<Patches> {
        let Self::Given(patching, closure) = self else { return None };
        let mut stream = Stream::named(draw.key, &format!("patching {item}"));
        let rule = patching.rule(draw.progress, &mut stream);
        let patches = rule.patches(document, words, vocabulary, *closure);
        Some(patches.expect("documents begin with a token that is no unit"))
    }
}

/// A document, and the words that its spans are of.
pub type Reading = (Document, Arc<[UnitWord]>);

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
const READINGS: u64 = 6;

impl SpeechTextDataset {
    pub(crate) fn n_items(&self) -> usize {
        match &self.material {
            Material::Fixed(documents) => documents.len(),
            Material::Interleaved(utterances) => utterances.len(),
            Material::Parts { parts, .. } => parts.len(),
        }
    }

    /// Draws that lengths are estimated by: over the documents of an utterance, and over the course of training.
    fn readings(&self) -> Vec<Draw> {
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

/// What every token of a document tells about patches.
pub fn closings_of(patches: &Patches) -> Vec<Closing> {
    let mut closings = vec![Closing::default(); patches.n_tokens()];
    for (&end, &told) in patches.ends.iter().zip(&patches.closes) {
        let Some(closing) = closings.get_mut(told as usize) else { continue };
        if told < end {
            closing.after = true;
        } else {
            closing.before = true;
        }
    }
    closings
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

/// The ratio loss of learned boundaries.
const RATIO: &str = "ratio";
/// Patches for every token: watched.
const PATCHES: &str = "patches_per_token";
/// Millions of operations of matrix products for every token, forward: watched.
const OPERATIONS: &str = "mop_per_token";
/// Those of the parts of a network over patches.
const OPERATIONS_OF_PARTS: [&str; 3] =
    ["mop_per_token_encoder", "mop_per_token_global", "mop_per_token_decoder"];

impl SpeechTextBatch {
    /// No documents yet, to be cut so.
    pub fn new(cutting: &Cutting) -> Self {
        Self {
            ids: Vec::new(),
            targets: Vec::new(),
            kinds: Vec::new(),
            lengths: Vec::new(),
            boundaries: match cutting {
                Cutting::Plain => HostBoundaries::None,
                Cutting::Given(..) => HostBoundaries::Given(Vec::new()),
                Cutting::Learned => HostBoundaries::Learned(Vec::new()),
            },
            n_words: 0,
            speech_s: 0.0,
        }
    }

    /// Adds a document, cut as this draw has it for the item of this name; `words` are those that its spans are of.
    ///
    /// # Panics
    ///
    /// When it has fewer than two tokens, or does not begin with one that is no unit.
    pub fn push(
        &mut self,
        document: &Document,
        words: &[UnitWord],
        vocabulary: &JointVocabulary,
        cutting: &Cutting,
        draw: Draw,
        item: &str,
    ) {
        let n = document.ids.len() - 1;
        let kind = |id: &u32| match vocabulary.symbol(*id) {
            Some(Symbol::Unit(_)) => TargetKind::Speech,
            Some(Symbol::Text) => TargetKind::Text,
            Some(Symbol::Begin | Symbol::End | Symbol::Marker(_)) | None => TargetKind::Marker,
        };
        let kinds: Vec<TargetKind> = document.ids.iter().map(kind).collect();
        self.ids.extend(&document.ids[..n]);
        self.targets.extend(&document.ids[1..]);
        self.kinds.extend(&kinds[1..]);
        self.lengths.push(n);
        let begins_with_text = |start: &&u32| {
            let first = document.ids.get(**start as usize);
            matches!(first.and_then(|id| vocabulary.symbol(*id)), Some(Symbol::Text))
        };
        self.n_words += document.words.iter().filter(begins_with_text).count();
        let patches = cutting.patches((document, words), vocabulary, draw, item);
        match (&mut self.boundaries, patches, cutting) {
            (HostBoundaries::Given(closings), Some(patches), _) => {
                closings.extend(&closings_of(&patches)[..n]);
            }
            (HostBoundaries::Learned(alone), _, Cutting::Learned) => {
                alone.extend(kinds[..n].iter().map(|kind| *kind != TargetKind::Speech));
            }
            (HostBoundaries::None, _, Cutting::Plain) => {}
            _ => panic!("documents of a batch are cut alike"),
        }
    }

    fn n_of(&self, kind: TargetKind) -> f64 {
        self.kinds.iter().filter(|other| **other == kind).count() as f64
    }

    fn n_read_units(&self) -> f64 {
        match &self.boundaries {
            HostBoundaries::Learned(alone) => alone.iter().filter(|alone| !**alone).count() as f64,
            HostBoundaries::None | HostBoundaries::Given(_) => 0.0,
        }
    }

    /// As the network over patches takes it.
    ///
    /// # Panics
    ///
    /// When it is for a network without patches.
    pub fn documents(&self) -> Documents<'_> {
        let boundaries = match &self.boundaries {
            HostBoundaries::Given(closings) => Boundaries::Given(closings),
            HostBoundaries::Learned(alone) => Boundaries::Learned { alone },
            HostBoundaries::None => panic!("documents of a plain network have no patches"),
        };
        Documents { ids: &self.ids, offsets: Offsets::from_lengths(&self.lengths), boundaries }
    }
}

impl Measured for SpeechTextBatch {
    fn size(&self, _: &LossConfig) -> Size {
        let n = self.targets.len() as f64;
        let mut counts = vec![
            ("ce", n),
            ("text", self.n_of(TargetKind::Text)),
            ("speech", self.n_of(TargetKind::Speech)),
            ("marker", self.n_of(TargetKind::Marker)),
            ("text_per_word", self.n_words as f64),
            ("speech_per_s", self.speech_s),
            (RATIO, self.n_read_units()),
            (PATCHES, n),
            (OPERATIONS, n),
        ];
        counts.extend(OPERATIONS_OF_PARTS.map(|name| (name, n)));
        Size {
            counts,
            n_items: self.lengths.len(),
            n_tokens: self.ids.len(),
            audio_s: self.speech_s,
        }
    }
}

/// What a pass over patches gives besides states.
#[derive(Debug)]
pub struct Patched {
    /// Patches of every document that became whole.
    pub n_patches: Vec<usize>,
    /// The ratio loss of learned boundaries.
    pub ratio: Option<Tensor<1>>,
}

impl SpeechTextNet {
    /// States of all tokens, `[n_tokens, d]`, and of what the patches were.
    pub fn hidden(
        &self,
        batch: &SpeechTextBatch,
        dropout: Dropout,
    ) -> (Tensor<2>, Option<Patched>) {
        match &self.network {
            Network::Plain(lm) => {
                let offsets = Offsets::from_lengths(&batch.lengths);
                let input = Ragged { values: lm.embed(&batch.ids), offsets };
                (lm.forward(&input, &[], dropout).last, None)
            }
            Network::Patch(lm) => {
                let output = lm.forward(&batch.documents(), dropout);
                let patched = Patched { n_patches: output.n_patches, ratio: output.ratio };
                (output.hidden, Some(patched))
            }
        }
    }

    /// Rows of the embedding table.
    pub fn n_vocabulary(&self) -> usize {
        match &self.network {
            Network::Plain(lm) => lm.n_tokens(),
            Network::Patch(lm) => lm.n_tokens(),
        }
    }

    /// Scores of the next token.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[n_rows, d]`
    /// - output: `[n_rows, n_tokens]`
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.network {
            Network::Plain(lm) => lm.logits(hidden),
            Network::Patch(lm) => lm.logits(hidden),
        }
    }
}

impl Learner for SpeechTextNet {
    type Batch = SpeechTextBatch;

    fn begin(&mut self, stage: &StageConfig) {
        let again = stage.gradient_checkpointing;
        match &mut self.network {
            Network::Plain(lm) => lm.recompute(again),
            Network::Patch(lm) => lm.recompute(again),
        }
    }

    fn terms(&self, batch: &SpeechTextBatch, loss: &LossConfig, dropout: Dropout) -> Vec<Term> {
        let mut terms = Vec::new();
        let (hidden, patched) = self.hidden(batch, dropout);
        let watched = |name, sum: f64| {
            let sum = Tensor::from_floats([sum as f32], &hidden.device());
            Term { name, weight: 0.0, sum }
        };
        let mut of_parts = vec![0.0; if patched.is_some() { 3 } else { 1 }];
        for (i, &n) in batch.lengths.iter().enumerate() {
            let n_patches = patched.as_ref().map_or(n, |patched| patched.n_patches[i]);
            let (n, n_patches) = (n as f64, n_patches as f64);
            let parts = plan::forward_operations(&self.config, self.n_vocabulary(), n, n_patches);
            for (sum, (_, operations)) in of_parts.iter_mut().zip(parts) {
                *sum += operations / 1e6;
            }
        }
        terms.push(watched(OPERATIONS, of_parts.iter().sum()));
        if let Some(Patched { n_patches, ratio }) = patched {
            let named = OPERATIONS_OF_PARTS.into_iter().zip(of_parts);
            terms.extend(named.map(|(name, operations)| watched(name, operations)));
            terms.push(watched(PATCHES, n_patches.iter().sum::<usize>() as f64));
            terms.extend(ratio.map(|sum| Term { name: RATIO, weight: self.ratio_weight, sum }));
        }
        // Each kind of token is scored once; all together are what is learned.
        let of = |kind: TargetKind| {
            let rows = (0..batch.targets.len()).filter(|&i| batch.kinds[i] == kind);
            let rows: Vec<u32> = rows.map(|i| i as u32).collect();
            (!rows.is_empty()).then(|| {
                let targets: Vec<u32> =
                    rows.iter().map(|&row| batch.targets[row as usize]).collect();
                let states = if rows.len() == batch.targets.len() {
                    hidden.clone()
                } else {
                    ops::embedding(hidden.clone(), &rows)
                };
                let logits = self.logits(states);
                ops::cross_entropy(logits, &targets, &vec![1.0; rows.len()])
            })
        };
        let mut sum: Option<Tensor<1>> = None;
        let kinds: [(TargetKind, &[&str]); 3] = [
            (TargetKind::Text, &["text", "text_per_word"]),
            (TargetKind::Speech, &["speech", "speech_per_s"]),
            (TargetKind::Marker, &["marker"]),
        ];
        for (kind, names) in kinds {
            let Some(part) = of(kind) else { continue };
            terms.extend(names.iter().map(|&name| Term { name, weight: 0.0, sum: part.clone() }));
            sum = Some(match sum {
                None => part,
                Some(sum) => sum + part,
            });
        }
        terms.extend(sum.map(|sum| Term { name: "ce", weight: loss.cross_entropy, sum }));
        terms
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sandhi_data::units::{Format, UnitWriter, UnitsHeader};
    use sandhi_data::{
        batch::{BucketConfig, BucketPlan},
        interleave::SpeechSpan,
        patching::{PatchingConfig, StaticConfig},
        text::{Mode, Tokenizer},
    };
    use sandhi_nn::init::Init;

    use super::*;
    use crate::{
        chat::END,
        recipe::{BatchConfig, Overrides, read_str},
    };

    fn vocabulary() -> Arc<JointVocabulary> {
        let texts = ["anna took the red ball to the kitchen"; 4];
        let tokenizer = Tokenizer::train_bpe(texts, 280, &[END]).unwrap();
        Arc::new(JointVocabulary::extend(&tokenizer, END, END, 5).unwrap())
    }

    /// Eight words of three units, a silence of two between them.
    fn utterance(id: &str) -> UnitUtterance {
        let words = "anna took the red ball to the kitchen".split(' ').zip(0_u32..);
        UnitUtterance {
            id: id.to_owned(),
            units: (0..38).map(|i| i % 5).collect(),
            words: words.map(|(word, i)| (word.to_owned(), 5 * i, 5 * i + 3).into()).collect(),
            text: None,
            language: None,
        }
    }

    fn network(patches: bool) -> NetworkConfig {
        let stack = |n: usize| serde_json::json!({ "n_layers": n, "n_heads": 2, "d_ff": 12 });
        let config = if patches {
            serde_json::json!({
                "kind": "patch", "d_local": 8, "d_global": 16, "n_queries": 2, "cross_heads": 2,
                "encoder": stack(1), "global": stack(1), "decoder": stack(1),
            })
        } else {
            serde_json::json!({
                "kind": "plain", "d_model": 8, "n_layers": 1, "n_heads": 2, "d_ff": 12,
            })
        };
        serde_json::from_value(config).unwrap()
    }

    fn dataset(patches: bool, measure: Measure) -> SpeechTextDataset {
        let vocabulary = vocabulary();
        let rule = Patching::new(PatchingConfig::Static(StaticConfig { size: 4 }), None);
        SpeechTextDataset {
            cutting: if patches { Cutting::Given(rule, Closure::Causal) } else { Cutting::Plain },
            context: 200,
            rate_hz: 25.0,
            merges: None,
            material: Material::Interleaved(Utterances::Here(vec![utterance("a"), utterance("b")])),
            meter: Meter {
                measure,
                network: network(patches),
                n_vocabulary: vocabulary.n_tokens(),
            },
            vocabulary,
        }
    }

    /// Another reading has other blocks, the same one the same; every target follows its token.
    #[test]
    fn every_epoch_has_documents_of_its_own() {
        let dataset = dataset(true, Measure::Tokens);
        let load = |key| dataset.load(&[0, 1], Draw { key, progress: Some(0.0) });
        let (first, again) = (load(1), load(1));
        assert_eq!((&first.ids, &first.targets), (&again.ids, &again.targets));
        assert!((2..12).any(|key| load(key).ids != first.ids));
        for span in Offsets::from_lengths(&first.lengths).iter() {
            let (ids, targets) = (&first.ids[span.clone()], &first.targets[span]);
            assert_eq!(ids[1..], targets[..targets.len() - 1]);
            assert_eq!(ids[0], dataset.vocabulary.begin());
            assert_eq!(targets.last(), Some(&dataset.vocabulary.end()));
        }
        // Every word is written once or said once, whatever the blocks.
        let HostBoundaries::Given(closings) = &first.boundaries else { panic!("they are given") };
        assert_eq!(closings.len(), first.ids.len());
        assert_eq!(first.speech_s, first.n_of(TargetKind::Speech) / 25.0);
        assert!(first.n_words <= 16, "{}", first.n_words);
    }

    /// A word that is said without a unit of its own begins where its block ends, and is not a written one.
    #[test]
    fn words_count_as_written_by_their_first_piece() {
        let dataset = dataset(false, Measure::Tokens);
        let vocabulary = &dataset.vocabulary;
        let unit = vocabulary.unit(0).unwrap();
        let piece = vocabulary.tokenizer().encode(" ball").unwrap()[0];
        let (text, speech) = (vocabulary.marker(Mode::Text), vocabulary.marker(Mode::Speech));
        let document = Document {
            ids: vec![vocabulary.begin(), speech, unit, unit, text, piece, vocabulary.end()],
            spans: vec![SpeechSpan { tokens: 2..4, word: Some(0) }],
            words: vec![2, 4, 5, 7],
            n_units: 2,
        };
        let mut batch = SpeechTextBatch::new(&Cutting::Plain);
        batch.push(&document, &[], vocabulary, &Cutting::Plain, Draw::FIXED, "");
        assert_eq!(batch.n_words, 1);
    }

    #[test]
    fn what_a_token_tells_of_patches_by_hand() {
        // B | a b c d | e | T: complete at d, e is ended by T.
        let patches = Patches { ends: vec![1, 5, 6, 7], closes: vec![0, 4, 6, 6] };
        let told = |before, after| Closing { before, after };
        let open = told(false, false);
        let expected =
            [told(false, true), open, open, open, told(false, true), open, told(true, true)];
        assert_eq!(closings_of(&patches), expected);
        // The published shift tells at e; the end of what is there ends nothing.
        let patches = Patches { ends: vec![1, 2, 3], closes: vec![0, 1, 3] };
        assert_eq!(closings_of(&patches), [told(false, true), told(false, true), open]);
    }

    #[test]
    fn kinds_of_tokens_are_means_of_their_own() {
        let dataset = dataset(true, Measure::Tokens);
        let batch = dataset.load(&[0, 1], Draw::FIXED);
        let device = Device::flex();
        let net = network(true).init(dataset.vocabulary.n_tokens(), &Init::new(1, &device));
        let loss = LossConfig::default();
        let size = batch.size(&loss);
        let count = |name| size.counts.iter().find(|(n, _)| *n == name).unwrap().1;
        let found = super::super::step::losses(&net, std::slice::from_ref(&batch), &loss);
        let term = |name: &str| found.terms[name];
        let kinds = ["text", "speech", "marker"];
        assert_eq!(count("ce"), kinds.into_iter().map(count).sum::<f64>());
        let is_text = |id: &&u32| matches!(dataset.vocabulary.symbol(**id), Some(Symbol::Text));
        assert_eq!(count("text"), batch.targets.iter().filter(is_text).count() as f64);
        assert!(count("marker") >= 4.0, "a block and an end of each document");
        let sum: f64 = kinds.into_iter().map(|kind| term(kind) * count(kind)).sum();
        assert!((sum / count("ce") - term("ce")).abs() < 1e-5);
        assert!((found.total - term("ce")).abs() < 1e-6, "only what is learned is in the total");
        let per_second = term("speech") * count("speech") / batch.speech_s;
        assert!((term("speech_per_s") - per_second).abs() < 1e-3);
        assert!(term("patches_per_token") < 0.8, "{}", term("patches_per_token"));
        // One by one the documents have the losses that they have together.
        let alone: Vec<SpeechTextBatch> = (0..2).map(|i| dataset.load(&[i], Draw::FIXED)).collect();
        let apart = super::super::step::losses(&net, &alone, &loss);
        assert!((apart.total - found.total).abs() < 1e-6);
    }

    /// The same documents cost their tokens, their patches or what is computed of them.
    #[test]
    fn batches_are_measured_by_what_is_held_equal() {
        let of = |patches, measure| dataset(patches, measure).costs()[0];
        let tokens = of(true, Measure::Tokens);
        assert_eq!(tokens, of(false, Measure::Tokens));
        assert_eq!(tokens, of(false, Measure::Patches));
        let patches = of(true, Measure::Patches);
        assert!(patches < tokens && 3 * patches > tokens, "{patches} of {tokens}");
        // Patches are those that become whole where the network reads, and each token of text is one.
        let read = dataset(true, Measure::Patches);
        let net = network(true).init(read.vocabulary.n_tokens(), &Init::new(1, &Device::flex()));
        let ran: usize = read
            .readings()
            .into_iter()
            .map(|draw| {
                let patched = net.hidden(&read.load(&[0], draw), Dropout::OFF).1.unwrap();
                patched.n_patches.iter().sum::<usize>()
            })
            .sum();
        assert_eq!(patches, 1000 * ran as u64 / READINGS);
        let written = |patches| {
            let document = interleave::written("the red ball", &read.vocabulary).unwrap();
            let material = Material::Fixed(vec![(document, Arc::from([]))]);
            SpeechTextDataset { material, ..dataset(patches, Measure::Patches) }.costs()
        };
        assert_eq!(written(true), written(false));
        // A plain network: 2 operations a parameter and token, and what attention does.
        let plain = of(false, Measure::Operations) as f64 * 1e3;
        let n = tokens as f64 / 1e3;
        let vocabulary = vocabulary().n_tokens() as f64;
        let weights = 4.0 * 64.0 + 3.0 * 8.0 * 12.0 + 8.0 * vocabulary;
        let expected = 2.0 * weights * n + 4.0 * 8.0 * n * (n + 1.0) / 2.0;
        assert!((plain / expected - 1.0).abs() < 0.05, "{plain}, not {expected}");
    }

    /// Utterances like those of a corpus: 30 to 56 words of 1 to 11 units.
    fn corpus(n: usize) -> Utterances {
        let utterance = |i: usize| {
            let mut stream = Stream::named(i as u64, "corpus");
            let mut end = 0;
            let mut word = |_| {
                let start = end + stream.below(4) as u32;
                end = start + 1 + stream.below(11) as u32;
                ("anna".to_owned(), start, end).into()
            };
            let words: Vec<UnitWord> = (0..30 + i % 27).map(&mut word).collect();
            let units = (0..end).map(|unit| unit % 5).collect();
            UnitUtterance { id: i.to_string(), units, words, text: None, language: None }
        };
        Utterances::Here((0..n).map(utterance).collect())
    }

    /// Batches as long as those of LST are full of documents of any length, as many as fit on average over readings;
    /// a reading is a little longer or shorter.
    #[test]
    fn batches_are_full() {
        let material = Material::Interleaved(corpus(2_000));
        let dataset =
            SpeechTextDataset { context: 1024, material, ..dataset(true, Measure::Tokens) };
        let max_cost = 16_000_000;
        let config = BucketConfig { max_cost, max_items: 4_096, n_buckets: 8 };
        let plan = BucketPlan::new(dataset.costs(), config).unwrap();
        let draw = Draw { key: 3, progress: Some(0.5) };
        let mut full: Vec<f64> = plan
            .epoch(1, 0)
            .iter()
            .map(|indices| dataset.load(indices, draw).ids.len() as f64 / 16_000.0)
            .collect();
        // One batch is the rest of the epoch.
        full.sort_by(f64::total_cmp);
        full.remove(0);
        let mean = full.iter().sum::<f64>() / full.len() as f64;
        assert!(full.len() > 10 && mean >= 0.98, "{full:?}");
        assert!(full.iter().all(|full| (0.9..1.1).contains(full)), "{full:?}");
    }

    /// Two tokens of short texts to one of long utterances, whatever batches are measured by and hold.
    #[test]
    fn sources_are_mixed_by_tokens() {
        const LST: &str = include_str!("../../../../recipes/smoke/lst.toml");
        let recipe = read_str(LST, Path::new("lst.toml"), &Overrides::default()).unwrap();
        let mut stage = recipe.stages[0].clone();
        (stage.batch.max_items, stage.batch.max_length) = (8, 2_000.0);
        let texts = (0..300).map(|i| {
            let text = vec!["the red ball"; 1 + i % 3].join(" ");
            (interleave::written(&text, &vocabulary()).unwrap(), Arc::from([]))
        });
        let texts: Vec<Reading> = texts.collect();
        for measure in [Measure::Tokens, Measure::Patches] {
            let of =
                |material| SpeechTextDataset { context: 1024, material, ..dataset(true, measure) };
            let sources = vec![
                (Some(1.0), of(Material::Interleaved(corpus(100)))),
                (Some(2.0), of(Material::Fixed(texts.clone()))),
            ];
            let (mut mixture, sources) = super::super::mixture(sources, &stage, 7, None).unwrap();
            let mut n_tokens = [0.0; 2];
            for key in 0..1_000 {
                let step = mixture.next_step();
                let draw = Draw { key, progress: Some(0.5) };
                let batch = sources[step.source].load(&step.batch.indices, draw);
                n_tokens[step.source] += batch.ids.len() as f64;
            }
            let share = n_tokens[1] / n_tokens.iter().sum::<f64>();
            assert!((share - 2.0 / 3.0).abs() < 0.02, "{measure:?}: {share}");
        }
    }

    #[test]
    fn measures_have_names() {
        let text = "max_items = 2\nmax_length = 10.0\nmeasure = \"operations\"";
        let batch: BatchConfig = toml::from_str(text).unwrap();
        assert_eq!(batch.measure, Measure::Operations);
    }

    /// Each form of an utterance is the document that its name says.
    #[test]
    fn an_utterance_has_its_sides_in_the_order_of_its_form() {
        let vocabulary = vocabulary();
        let utterance = UnitUtterance {
            id: "a".into(),
            units: vec![2, 1],
            words: Vec::new(),
            text: Some("red kitchen".into()),
            language: None,
        };
        let of =
            |form| document_of(form, &utterance, &vocabulary, &mut Stream::new(0)).unwrap().ids;
        let begin = vec![vocabulary.begin()];
        let end = vec![vocabulary.end()];
        let said: Vec<u32> = vec![
            vocabulary.marker(Mode::Speech),
            vocabulary.unit(2).unwrap(),
            vocabulary.unit(1).unwrap(),
        ];
        let pieces = vocabulary.tokenizer().encode("red kitchen").unwrap();
        let written = [vec![vocabulary.marker(Mode::Text)], pieces].concat();
        let all = |parts: &[&Vec<u32>]| -> Vec<u32> {
            parts.iter().flat_map(|part| part.iter().copied()).collect()
        };
        assert_eq!(of(Form::Spoken), all(&[&begin, &said, &end]));
        assert_eq!(of(Form::Written), all(&[&begin, &written, &end]));
        assert_eq!(of(Form::Transcribed), all(&[&begin, &said, &written, &end]));
        assert_eq!(of(Form::Voiced), all(&[&begin, &written, &said, &end]));
    }

    /// What stays in files is what would be in memory, merged or not, and what is taken out is gone from both.
    #[test]
    fn utterances_of_files_are_those_in_memory() {
        let header = UnitsHeader { quantizer: "q".into(), n_units: 5, rate_hz: 25.0 };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.units");
        let all: Vec<UnitUtterance> = ["a", "b", "c", "d"].map(utterance).into();
        let mut writer = UnitWriter::create(&path, Format::Binary, header.clone()).unwrap();
        all.iter().for_each(|utterance| writer.push(utterance).unwrap());
        writer.finish().unwrap();
        let sequences: Vec<Vec<u32>> =
            all.iter().map(|utterance| utterance.units.clone()).collect();
        let merges = Arc::new(UnitMerges::learn(&header, &sequences, 3).unwrap());
        for merges in [None, Some(merges)] {
            let tokens = |utterance: &UnitUtterance| match &merges {
                Some(merges) => merges.apply_to(utterance.clone()).unwrap(),
                None => utterance.clone(),
            };
            let corpus = UnitCorpus::open(std::slice::from_ref(&path)).unwrap();
            let indices = (0..corpus.len()).collect();
            let merges = merges.clone();
            let mut there = Utterances::InFiles { corpus, indices, merges };
            let mut here = Utterances::Here(all.iter().map(tokens).collect());
            for utterances in [&mut there, &mut here] {
                utterances.retain(|utterance| Ok(utterance.id != "b")).unwrap();
            }
            assert_eq!((there.len(), here.len()), (3, 3));
            for i in 0..3 {
                assert_eq!(there.get(i).unwrap(), here.get(i).unwrap());
            }
            assert_eq!(here.get(1).unwrap().id, "c");
            let refused = there.retain(|utterance| match utterance.id.as_str() {
                "c" => Err(interleave::Error::Wordless { id: "c".to_owned() }),
                _ => Ok(true),
            });
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("a.units: number 2: utterance \"c\""), "{refused}");
            assert_eq!(there.len(), 3);
        }
    }

    #[test]
    fn what_is_said_is_its_text_or_its_words() {
        let utterance = |text: Option<&str>| UnitUtterance {
            id: "a".into(),
            units: vec![0; 4],
            words: vec![("hello".to_owned(), 0, 2).into(), ("there".to_owned(), 2, 4).into()],
            text: text.map(str::to_owned),
            language: None,
        };
        assert_eq!(text_of(&utterance(Some("Hello, there."))), "Hello, there.");
        assert_eq!(text_of(&utterance(None)), "hello there");
    }
}
