//! What a stage learns from: items with costs, loaded a batch at a time.

use std::sync::Arc;

use sandhi_data::{
    alignment::Alignment,
    augment::SpecAugmentConfig,
    rng::Stream,
    text::{Characters, Unknown},
};
use sandhi_nn::{connector::Penalty, encoder::EncoderConfig, ops};

use super::learner::{
    ConnectorBatch, CtcBatch, Heard, SpeechBatch, SpokenItem, TextBatch, TextItem,
};
use crate::model::HostRagged;

/// What may differ from one reading of an item to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Seeds what is random: another one for every source and epoch.
    pub key: u64,
    /// The share of the stage that is done; none outside training.
    pub progress: Option<f64>,
}

impl Draw {
    /// Outside training: always the same.
    pub const FIXED: Self = Self { key: 0, progress: None };
}

/// Items that batches are made of.
pub trait Dataset: Send + Sync + 'static {
    /// What a learner takes.
    type Batch;

    /// Length of every item in the unit of `batch.max_length`, times 1000: milliseconds of audio, or
    /// thousandths of a token.
    fn costs(&self) -> Vec<u64>;

    /// Tokens of all items, where the weight of a source is its share of tokens and not of batches.
    fn n_tokens(&self) -> Option<f64> {
        None
    }

    /// Loads items; the same draw gives the same batch.
    fn load(&self, indices: &[usize], draw: Draw) -> Self::Batch;

    /// The same items, each with the speech of another: what a model that ignores the audio would not
    /// notice. `None` where nothing is heard.
    fn mismatched(&self, indices: &[usize]) -> Option<Self::Batch> {
        let _ = indices;
        None
    }
}

/// Encoder frames or features of an utterance, shared by all items that speak it.
#[derive(Debug, Clone)]
pub struct Utterance {
    /// Row-major rows.
    pub rows: Arc<[f32]>,
    /// Seconds of audio.
    pub duration_s: f64,
    /// Words with their exact times, where they are known.
    pub words: Vec<Alignment>,
}

/// The symbol that is said at each of `n_steps` CTC steps of `step_s` seconds, from exact word times: the
/// characters of a word share its span evenly, a space stands where the next word begins, a blank parts
/// equal neighbours and fills pauses. No times, no symbols.
///
/// ```text
/// words     |  it          |     | is       |
/// symbols    i i i t t t t   _ _   ' ' s s ...
/// ```
pub fn step_symbols(
    words: &[Alignment],
    symbols: &Characters,
    n_steps: usize,
    step_s: f64,
) -> Vec<Option<u32>> {
    const BLANK: u32 = 0;
    if words.is_empty() {
        return vec![None; n_steps];
    }
    let mut steps = vec![Some(BLANK); n_steps];
    let index = |time_s: f64| ((time_s / step_s).round() as usize).min(n_steps);
    let mut first = true;
    for word in words {
        let ids = symbols.encode(&word.label, Unknown::Skip).unwrap_or_default();
        let (start, end) = (index(word.start_s), index(word.end_s));
        if ids.is_empty() || start >= end {
            continue;
        }
        let mut last = None;
        for (step, slot) in steps[start..end].iter_mut().enumerate() {
            let k = step * ids.len() / (end - start);
            let doubled = last.is_some_and(|l: usize| l != k && ids[l] == ids[k]);
            *slot = Some(if doubled { BLANK } else { ids[k] });
            last = Some(k);
        }
        if let (false, Some(space)) = (first, symbols.id(' ')) {
            steps[start] = Some(space);
        }
        first = false;
    }
    steps
}

/// Utterances with transcripts, for a speech foundation model.
#[derive(Debug)]
pub struct CtcDataset {
    /// Features and symbols of each utterance.
    pub items: Vec<(Utterance, Vec<u32>)>,
    /// Width of the features.
    pub n_mels: usize,
    /// Feature frames a second.
    pub rate_hz: f64,
    /// The encoder, for its length.
    pub encoder: EncoderConfig,
    /// CTC steps per encoder frame.
    pub steps_per_frame: usize,
    /// What the symbols mean.
    pub symbols: Characters,
    /// Masks, if any.
    pub spec_augment: Option<SpecAugmentConfig>,
}

/// What an utterance costs a batch.
pub(super) fn milliseconds(duration_s: f64) -> u64 {
    ((duration_s * 1000.0).ceil() as u64).max(1)
}

impl Dataset for CtcDataset {
    type Batch = CtcBatch;

    fn costs(&self) -> Vec<u64> {
        self.items.iter().map(|(utterance, _)| milliseconds(utterance.duration_s)).collect()
    }

    fn load(&self, indices: &[usize], Draw { key, .. }: Draw) -> CtcBatch {
        let mut features =
            HostRagged::gather(self.n_mels, indices.iter().map(|&i| self.items[i].0.rows.as_ref()));
        if let Some(config) = &self.spec_augment {
            mask(&mut features, config, key, indices);
        }
        let targets: Vec<Vec<u32>> = indices.iter().map(|&i| self.items[i].1.clone()).collect();
        let feasible = features
            .lengths
            .iter()
            .zip(&targets)
            .map(|(&n, target)| {
                ops::ctc_feasible(self.encoder.length(n).bound() * self.steps_per_frame, target)
            })
            .collect();
        let steps = features
            .lengths
            .iter()
            .zip(indices)
            .flat_map(|(&n, &i)| {
                let n_steps = self.encoder.length(n).bound() * self.steps_per_frame;
                let steps_per_frame = self.steps_per_frame as f64;
                let step_s = self.encoder.stride() as f64 / (self.rate_hz * steps_per_frame);
                step_symbols(&self.items[i].0.words, &self.symbols, n_steps, step_s)
            })
            .collect();
        CtcBatch {
            features,
            targets,
            steps,
            feasible,
            audio_s: indices.iter().map(|&i| self.items[i].0.duration_s).sum(),
        }
    }
}

fn mask(features: &mut HostRagged, config: &SpecAugmentConfig, key: u64, indices: &[usize]) {
    let n_mels = features.width;
    let mut start = 0;
    for (&n_frames, &index) in features.lengths.iter().zip(indices) {
        let span = start..start + n_frames * n_mels;
        start = span.end;
        let mut stream = Stream::named(key, &format!("item {index}"));
        sandhi_data::augment::spec_augment(
            &mut features.values[span],
            n_frames,
            n_mels,
            config,
            &mut stream,
        );
    }
}

/// Documents, for a text foundation model.
#[derive(Debug)]
pub struct TextDataset {
    /// The documents.
    pub items: Vec<TextItem>,
}

impl Dataset for TextDataset {
    type Batch = TextBatch;

    fn costs(&self) -> Vec<u64> {
        self.items.iter().map(|item| 1000 * (item.ids.len() as u64 - 1).max(1)).collect()
    }

    fn load(&self, indices: &[usize], _: Draw) -> TextBatch {
        TextBatch { items: indices.iter().map(|&i| self.items[i].clone()).collect() }
    }
}

/// Spoken prompts with answers, for a connector.
#[derive(Debug)]
pub struct SpeechDataset {
    /// Every utterance once.
    pub utterances: Vec<Utterance>,
    /// Width of their rows.
    pub width: usize,
    /// Whether the rows are encoder frames or features.
    pub encoded: bool,
    /// The utterance of each item, and the tokens around it.
    pub items: Vec<(usize, SpokenItem)>,
    /// Masks over features, if any; needs rows that are not encoded.
    pub spec_augment: Option<SpecAugmentConfig>,
    /// The last frame of every token of each utterance, for connectors that cut there; empty for others.
    pub ends: Vec<Vec<u32>>,
    /// Losses of the connector's own.
    pub penalties: Vec<Penalty>,
}

/// What a connector's stage learns from.
#[derive(Debug)]
pub enum ConnectorDataset {
    /// What is heard.
    Spoken(SpeechDataset),
    /// What the language model reads beside it.
    Written(TextDataset),
}

/// Seconds that a token takes to say, about: what a written one counts among utterances.
pub const TOKEN_S: f64 = 0.25;

impl Dataset for ConnectorDataset {
    type Batch = ConnectorBatch;

    fn costs(&self) -> Vec<u64> {
        let in_speech = |tokens: u64| (tokens as f64 * TOKEN_S).ceil() as u64;
        match self {
            Self::Spoken(dataset) => dataset.costs(),
            Self::Written(dataset) => dataset.costs().into_iter().map(in_speech).collect(),
        }
    }

    fn load(&self, indices: &[usize], draw: Draw) -> ConnectorBatch {
        match self {
            Self::Spoken(dataset) => ConnectorBatch::Spoken(dataset.load(indices, draw)),
            Self::Written(dataset) => ConnectorBatch::Written(dataset.load(indices, draw)),
        }
    }

    fn mismatched(&self, indices: &[usize]) -> Option<ConnectorBatch> {
        match self {
            Self::Spoken(dataset) => dataset.mismatched(indices).map(ConnectorBatch::Spoken),
            Self::Written(_) => None,
        }
    }
}

impl SpeechDataset {
    fn batch(&self, indices: &[usize], heard: &[usize], key: Option<u64>) -> SpeechBatch {
        let mut rows =
            HostRagged::gather(self.width, heard.iter().map(|&u| self.utterances[u].rows.as_ref()));
        if let (Some(config), Some(key)) = (&self.spec_augment, key) {
            mask(&mut rows, config, key, indices);
        }
        SpeechBatch {
            heard: if self.encoded { Heard::Frames(rows) } else { Heard::Features(rows) },
            items: indices.iter().map(|&i| self.items[i].1.clone()).collect(),
            ends: (!self.ends.is_empty())
                .then(|| heard.iter().map(|&u| self.ends[u].clone()).collect()),
            penalties: self.penalties.clone(),
            audio_s: heard.iter().map(|&u| self.utterances[u].duration_s).sum(),
        }
    }
}

impl Dataset for SpeechDataset {
    type Batch = SpeechBatch;

    fn costs(&self) -> Vec<u64> {
        self.items.iter().map(|(u, _)| milliseconds(self.utterances[*u].duration_s)).collect()
    }

    fn load(&self, indices: &[usize], Draw { key, .. }: Draw) -> SpeechBatch {
        let heard: Vec<usize> = indices.iter().map(|&i| self.items[i].0).collect();
        self.batch(indices, &heard, Some(key))
    }

    fn mismatched(&self, indices: &[usize]) -> Option<SpeechBatch> {
        // Each item hears the next one's utterance; a batch of one hears the data set's next.
        let next = |k: usize| match indices.len() {
            1 => (indices[0] + 1) % self.items.len(),
            n => indices[(k + 1) % n],
        };
        let heard: Vec<usize> = (0..indices.len()).map(|k| self.items[next(k)].0).collect();
        Some(self.batch(indices, &heard, None))
    }
}

#[cfg(test)]
mod tests {
    use sandhi_data::alignment::Source;

    use super::*;

    #[test]
    fn every_step_has_the_character_that_is_said() {
        let word = |label: &str, start_s, end_s| Alignment {
            label: label.into(),
            start_s,
            end_s,
            confidence: None,
            source: Source::Exact,
        };
        let symbols = Characters::new("abl ".chars()).unwrap();
        let id = |c| symbols.id(c).unwrap();
        let words = [word("All", 0.02, 0.14), word("a", 0.2, 0.26)];
        let steps: Vec<u32> =
            step_symbols(&words, &symbols, 15, 0.02).into_iter().map(Option::unwrap).collect();
        // Six steps for "all": a a l l _ l (a blank where the second l begins).
        let (a, l, space) = (id('a'), id('l'), id(' '));
        assert_eq!(steps, [0, a, a, l, l, 0, l, 0, 0, 0, space, a, a, 0, 0]);
        assert_eq!(step_symbols(&[], &symbols, 2, 0.02), [None, None]);
    }
}
