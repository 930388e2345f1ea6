//! What a text-and-unit aligner learns: characters against units, the forward sum over all monotonic paths.
//!
//! ```text
//! units or frames ─┐                       ┌─ + prior ─ forward_sum     a sum over the characters
//!                  ├─ UnitAligner ─ scores ─┤
//! characters ──────┘                       └─ binarization            a sum over the frames
//! ```

use std::sync::Arc;

use burn::prelude::*;
use rayon::prelude::*;
use sandhi_align::{monotonic::beta_binomial_prior, transport::Batch};
use sandhi_nn::{
    aligner::{Heard, UnitAligner},
    ops,
    ragged::Offsets,
    transformer::Dropout,
};

use super::{
    dataset::{Dataset, Draw, milliseconds},
    learner::{Learner, Measured, Size, Term},
};
use crate::{
    model::HostRagged,
    recipe::{LossConfig, StageConfig},
    units::{FrameWindow, Spectra},
};

/// What is heard in an utterance.
#[derive(Debug, Clone, PartialEq)]
pub enum Rows {
    /// Numbers of units, one a frame.
    Units(Arc<[u32]>),
    /// Normalized spectra, row-major.
    Spectra(Arc<[f32]>),
}

/// An utterance with its text.
#[derive(Debug, Clone, PartialEq)]
pub struct AlignerItem {
    /// What is heard.
    pub rows: Rows,
    /// The numbers of its characters, a space at both ends.
    pub text: Vec<u32>,
    /// Seconds of audio.
    pub duration_s: f64,
}

/// Utterances with texts, for an aligner.
#[derive(Debug)]
pub struct AlignerDataset {
    /// The utterances, all of units or all of spectra, each with a frame for every character.
    pub items: Vec<AlignerItem>,
    /// How spectra become frames.
    pub window: FrameWindow,
    /// Width of the spectra.
    pub n_mels: usize,
}

/// Utterances of one forward pass.
#[derive(Debug, Clone)]
pub struct AlignerBatch {
    /// Units or frames.
    pub rows: HostRows,
    /// Numbers of the characters of every text.
    pub texts: Vec<Vec<u32>>,
    /// Seconds of audio.
    pub audio_s: f64,
}

/// Units or frames on the host.
#[derive(Debug, Clone)]
pub enum HostRows {
    /// Numbers of units, and how many each utterance has.
    Units(Vec<u32>, Vec<usize>),
    /// Frames.
    Frames(HostRagged),
}

impl HostRows {
    /// Frames of each utterance.
    pub fn lengths(&self) -> &[usize] {
        match self {
            Self::Units(_, lengths) => lengths,
            Self::Frames(frames) => &frames.lengths,
        }
    }

    /// As the network hears them.
    pub fn to_device(&self, device: &Device) -> Heard {
        match self {
            Self::Units(units, lengths) => {
                Heard::Units(units.clone(), Offsets::from_lengths(lengths))
            }
            Self::Frames(frames) => Heard::Frames(frames.to_device(device)),
        }
    }
}

impl AlignerDataset {
    /// Of what this front end gives: items with a frame for every character, without which training stops.
    pub fn new(items: Vec<AlignerItem>, spectra: &Spectra) -> Self {
        Self { items, window: spectra.window(), n_mels: spectra.n_mels() }
    }
}

impl Dataset for AlignerDataset {
    type Batch = AlignerBatch;

    fn costs(&self) -> Vec<u64> {
        self.items.iter().map(|item| milliseconds(item.duration_s)).collect()
    }

    fn load(&self, indices: &[usize], _: Draw) -> AlignerBatch {
        let items = || indices.iter().map(|&i| &self.items[i]);
        let (mut units, mut lengths, mut frames) = (Vec::new(), Vec::new(), Vec::new());
        for item in items() {
            match &item.rows {
                Rows::Units(row) => {
                    units.extend_from_slice(row);
                    lengths.push(row.len());
                }
                Rows::Spectra(rows) => frames.push(self.window.frames(rows, self.n_mels)),
            }
        }
        let rows = if frames.is_empty() {
            HostRows::Units(units, lengths)
        } else {
            let width = self.window.width(self.n_mels);
            HostRows::Frames(HostRagged::gather(width, frames.iter().map(Vec::as_slice)))
        };
        AlignerBatch {
            rows,
            texts: items().map(|item| item.text.clone()).collect(),
            audio_s: items().map(|item| item.duration_s).sum(),
        }
    }
}

const FORWARD_SUM: &str = "forward_sum";
const BINARIZATION: &str = "binarization";

impl Measured for AlignerBatch {
    fn size(&self, loss: &LossConfig) -> Size {
        let n_characters: usize = self.texts.iter().map(Vec::len).sum();
        let n_frames: usize = self.rows.lengths().iter().sum();
        let mut counts = vec![(FORWARD_SUM, n_characters as f64)];
        if loss.binarization > 0.0 {
            counts.push((BINARIZATION, n_frames as f64));
        }
        Size { counts, n_items: self.texts.len(), n_tokens: n_frames, audio_s: self.audio_s }
    }
}

impl Learner for UnitAligner {
    type Batch = AlignerBatch;

    fn begin(&mut self, _: &StageConfig) {}

    fn terms(&self, batch: &AlignerBatch, loss: &LossConfig, dropout: Dropout) -> Vec<Term> {
        let device = self.devices().into_iter().next().expect("a model has parameters");
        let scores = self.forward(&batch.rows.to_device(&device), &batch.texts, dropout);
        let weights = vec![1.0; batch.texts.len()];
        let mut terms = Vec::with_capacity(2);
        if loss.binarization > 0.0 {
            let sum = ops::binarization_loss(scores.values.clone(), &scores.batch, &weights);
            terms.push(Term { name: BINARIZATION, weight: loss.binarization, sum });
        }
        let mut values = scores.values;
        if loss.prior > 0.0 {
            let prior = TensorData::new(prior(&scores.batch, loss.prior), values.dims());
            values = values + Tensor::<2>::from_data(prior, &device);
        }
        let sum = self.path_loss(values, &scores.batch, &weights);
        terms.push(Term { name: FORWARD_SUM, weight: 1.0, sum });
        terms
    }
}

/// The prior of every matrix, packed as they are.
fn prior(batch: &Batch, scaling: f64) -> Vec<f32> {
    let of = |problem: usize| {
        let [n_frames, n_tokens] = batch.shape(problem);
        beta_binomial_prior(n_frames, n_tokens, scaling)
            .expect("a scaling that the plan has checked")
    };
    (0..batch.len()).into_par_iter().map(of).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use sandhi_nn::{
        aligner::{Hears, UnitAlignerConfig},
        init::Init,
    };

    use super::*;

    fn item(units: &[u32], text: &[u32]) -> AlignerItem {
        let duration_s = units.len() as f64 / 100.0;
        AlignerItem { rows: Rows::Units(units.into()), text: text.to_vec(), duration_s }
    }

    fn dataset(items: Vec<AlignerItem>) -> AlignerDataset {
        AlignerDataset { items, window: FrameWindow::default(), n_mels: 1 }
    }

    #[test]
    fn terms_are_sums_over_utterances() {
        let data = dataset(vec![item(&[0, 1, 2, 2], &[1, 2, 1]), item(&[3, 3, 0], &[1, 1])]);
        assert_eq!(data.costs(), [40, 30]);
        let loss = LossConfig { prior: 1.0, binarization: 0.5, ..LossConfig::default() };
        let config: UnitAlignerConfig =
            serde_json::from_value(serde_json::json!({ "d_model": 8 })).unwrap();
        let net = config.init(3, Hears::Units(4), &Init::new(1, &Device::flex()));
        let terms = |indices: &[usize]| -> Vec<f32> {
            let terms = net.terms(&data.load(indices, Draw::FIXED), &loss, Dropout::OFF);
            assert_eq!([terms[0].name, terms[1].name], [BINARIZATION, FORWARD_SUM]);
            terms.into_iter().map(|term| sandhi_nn::weights::host(term.sum)[0]).collect()
        };
        let size = data.load(&[0, 1], Draw::FIXED).size(&loss);
        assert_eq!(size.counts, [(FORWARD_SUM, 5.0), (BINARIZATION, 7.0)]);
        assert_eq!((size.n_items, size.n_tokens), (2, 7));
        let (all, parts) = (terms(&[0, 1]), [terms(&[0]), terms(&[1])]);
        for (i, sum) in all.iter().enumerate() {
            let expected = parts[0][i] + parts[1][i];
            assert!(*sum > 0.0 && (sum - expected).abs() < 1e-4, "{sum} {expected}");
        }
    }

    #[test]
    fn spectra_become_frames_when_they_are_loaded() {
        let spectra = |rows: &[f32]| AlignerItem {
            rows: Rows::Spectra(rows.into()),
            text: vec![1],
            duration_s: 0.02,
        };
        let data = dataset(vec![spectra(&[1.0, 2.0]), spectra(&[5.0])]);
        let HostRows::Frames(frames) = data.load(&[1, 0], Draw::FIXED).rows else {
            panic!("frames")
        };
        assert_eq!((frames.width, frames.lengths), (3, vec![1, 2]));
        assert_eq!(frames.values, [5., 5., 5., 1., 1., 2., 1., 2., 2.]);
    }
}
