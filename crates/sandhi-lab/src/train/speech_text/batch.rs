//! Documents of one forward pass, and where their patches end.

use std::sync::Arc;

use sandhi_data::{
    interleave::Document,
    patching::{Closure, Patches, Patching},
    rng::Stream,
    text::{JointVocabulary, Symbol},
    units::UnitWord,
};
use sandhi_nn::{
    patch::{Boundaries, Closing, Documents},
    ragged::Offsets,
};

use crate::{
    recipe::{LossConfig, NetworkConfig},
    train::{
        dataset::Draw,
        learner::{Measured, Size},
    },
};

/// The ratio loss of learned boundaries.
pub(super) const RATIO: &str = "ratio";
/// Patches for every token: watched.
pub(super) const PATCHES: &str = "patches_per_token";
/// Millions of operations of matrix products for every token, forward: watched.
pub(super) const OPERATIONS: &str = "mop_per_token";
/// Those of the parts of a network over patches.
pub(super) const OPERATIONS_OF_PARTS: [&str; 3] =
    ["mop_per_token_encoder", "mop_per_token_global", "mop_per_token_decoder"];

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
    pub(super) fn patches(
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

    pub(super) fn n_of(&self, kind: TargetKind) -> f64 {
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
