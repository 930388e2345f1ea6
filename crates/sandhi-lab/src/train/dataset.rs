//! What a stage learns from: items with costs, loaded a batch at a time.

use std::sync::Arc;

use sandhi_data::{augment::SpecAugmentConfig, features::Features, rng::Stream};
use sandhi_nn::{encoder::EncoderConfig, ops};

use super::learner::{CtcBatch, Heard, SpeechBatch, SpokenItem, TextBatch, TextItem};
use crate::model::HostRagged;

/// Items that batches are made of.
pub trait Dataset: Send + Sync + 'static {
    /// What a learner takes.
    type Batch;

    /// Length of every item in the unit of `batch.max_length`, times 1000: milliseconds of audio, or
    /// thousandths of a token.
    fn costs(&self) -> Vec<u64>;

    /// Loads items. `key` seeds what is random about them; the same key gives the same batch.
    fn load(&self, indices: &[usize], key: u64) -> Self::Batch;

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
}

/// Utterances with transcripts, for a speech foundation model.
#[derive(Debug)]
pub struct CtcDataset {
    /// Features and symbols of each utterance.
    pub items: Vec<(Utterance, Vec<u32>)>,
    /// Width of the features.
    pub n_mels: usize,
    /// The encoder, for its length.
    pub encoder: EncoderConfig,
    /// CTC steps per encoder frame.
    pub steps_per_frame: usize,
    /// Masks, if any.
    pub spec_augment: Option<SpecAugmentConfig>,
}

fn milliseconds(duration_s: f64) -> u64 {
    ((duration_s * 1000.0).ceil() as u64).max(1)
}

impl Dataset for CtcDataset {
    type Batch = CtcBatch;

    fn costs(&self) -> Vec<u64> {
        self.items.iter().map(|(utterance, _)| milliseconds(utterance.duration_s)).collect()
    }

    fn load(&self, indices: &[usize], key: u64) -> CtcBatch {
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
        CtcBatch {
            features,
            targets,
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

    fn load(&self, indices: &[usize], _: u64) -> TextBatch {
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
            audio_s: heard.iter().map(|&u| self.utterances[u].duration_s).sum(),
        }
    }
}

impl Dataset for SpeechDataset {
    type Batch = SpeechBatch;

    fn costs(&self) -> Vec<u64> {
        self.items.iter().map(|(u, _)| milliseconds(self.utterances[*u].duration_s)).collect()
    }

    fn load(&self, indices: &[usize], key: u64) -> SpeechBatch {
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

/// Feature frames that go with features on the host.
pub fn utterance(features: &Features, duration_s: f64) -> Utterance {
    Utterance { rows: features.values.as_slice().into(), duration_s }
}
