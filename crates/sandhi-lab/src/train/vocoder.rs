//! What a unit vocoder learns: crops of utterances, as units and as sound.
//!
//! ```text
//! utterance   u0 u1 u2 u3 u4 u5 u6 u7 u8       a crop begins at a unit, drawn anew in every epoch
//! crop              u2 u3 u4 u5 ─ Vocoder ─┬─ log-mel ─ mean distance from the true one      a sum over the cells
//!                                          └─ sound ─── distance of spectra                 a sum over crops and resolutions
//! ```
//!
//! There is no adversary that tells made sound from true one.

use std::sync::{Arc, LazyLock};

use burn::prelude::*;
use sandhi_data::rng::Stream;
use sandhi_nn::{
    ragged::Offsets,
    transformer::Dropout,
    vocoder::{N_RESOLUTIONS, SpectralLoss, Vocoder},
};

use super::{
    dataset::{Dataset, Draw, milliseconds},
    learner::{Learner, Measured, Size, Term},
};
use crate::recipe::{LossConfig, StageConfig};

/// An utterance.
#[derive(Debug, Clone, PartialEq)]
pub struct VocoderItem {
    /// Its units, at least one.
    pub units: Arc<[u32]>,
    /// 16 kHz samples, a whole number to a unit.
    pub samples: Arc<[f32]>,
    /// Log-mel energies of the whole utterance, a whole number of rows to a unit.
    pub mels: Arc<[f32]>,
}

/// Utterances for a vocoder, all of which lie in memory: 64 KB a second, and half as much for their spectra.
#[derive(Debug)]
pub struct VocoderDataset {
    /// The utterances.
    pub items: Vec<VocoderItem>,
    /// Units of a crop at most.
    pub crop: usize,
    /// Units a second.
    pub rate_hz: f64,
}

/// Crops of one forward pass.
#[derive(Debug, Clone, Default)]
pub struct VocoderBatch {
    /// Units of all crops.
    pub units: Vec<u32>,
    /// Units of each.
    pub lengths: Vec<usize>,
    /// Samples of all.
    pub samples: Vec<f32>,
    /// Log-mel energies of all.
    pub mels: Vec<f32>,
    /// Seconds of audio.
    pub audio_s: f64,
}

impl VocoderDataset {
    /// Seconds of a crop of an item.
    fn crop_s(&self, item: &VocoderItem) -> f64 {
        item.units.len().min(self.crop) as f64 / self.rate_hz
    }
}

impl Dataset for VocoderDataset {
    type Batch = VocoderBatch;

    fn costs(&self) -> Vec<u64> {
        self.items.iter().map(|item| milliseconds(self.crop_s(item))).collect()
    }

    fn load(&self, indices: &[usize], Draw { key, .. }: Draw) -> VocoderBatch {
        let mut batch = VocoderBatch::default();
        for &index in indices {
            let item = &self.items[index];
            let (n, all) = (item.units.len().min(self.crop), item.units.len());
            let start = Stream::named(key, &format!("item {index}")).below(all - n + 1);
            let of = |values: &[f32]| {
                let a_unit = values.len() / all;
                values[start * a_unit..(start + n) * a_unit].to_vec()
            };
            batch.units.extend_from_slice(&item.units[start..start + n]);
            batch.lengths.push(n);
            batch.samples.extend(of(&item.samples));
            batch.mels.extend(of(&item.mels));
            batch.audio_s += self.crop_s(item);
        }
        batch
    }
}

const MEL: &str = "mel";
const CONVERGENCE: &str = "convergence";
const MAGNITUDE: &str = "magnitude";

/// The matrices of its transforms are made once.
static SPECTRA: LazyLock<SpectralLoss> = LazyLock::new(SpectralLoss::default);

impl Measured for VocoderBatch {
    fn size(&self, loss: &LossConfig) -> Size {
        let mut counts = Vec::with_capacity(3);
        if loss.mel > 0.0 {
            counts.push((MEL, self.mels.len() as f64));
        }
        if loss.spectra > 0.0 {
            let n = (self.lengths.len() * N_RESOLUTIONS) as f64;
            counts.extend([(CONVERGENCE, n), (MAGNITUDE, n)]);
        }
        Size {
            counts,
            n_items: self.lengths.len(),
            n_tokens: self.units.len(),
            audio_s: self.audio_s,
        }
    }
}

impl Learner for Vocoder {
    type Batch = VocoderBatch;

    fn begin(&mut self, _: &StageConfig) {}

    fn terms(&self, batch: &VocoderBatch, loss: &LossConfig, dropout: Dropout) -> Vec<Term> {
        let device = self.devices().into_iter().next().expect("a model has parameters");
        let frames = self.forward(&batch.units, &Offsets::from_lengths(&batch.lengths), dropout);
        let mut terms = Vec::with_capacity(3);
        if loss.mel > 0.0 {
            let expected = TensorData::new(batch.mels.clone(), frames.mels.dims());
            let expected = Tensor::<2>::from_data(expected, &device);
            let sum = (frames.mels.clone() - expected).abs().sum();
            terms.push(Term { name: MEL, weight: loss.mel, sum });
        }
        if loss.spectra > 0.0 {
            let sound = self.sound(&frames);
            let expected = TensorData::new(batch.samples.clone(), sound.values.dims());
            let expected = Tensor::<2>::from_data(expected, &device);
            let found = SPECTRA.forward(&sound.values, &expected, &sound.offsets);
            let weight = loss.spectra;
            terms.push(Term { name: CONVERGENCE, weight, sum: found.convergence });
            terms.push(Term { name: MAGNITUDE, weight, sum: found.magnitude });
        }
        terms
    }
}

#[cfg(test)]
mod tests {
    use sandhi_nn::{init::Init, vocoder::VocoderConfig, weights::host};

    use super::*;

    /// Units that count up, with two samples and one mel row of two cells each.
    fn item(first: u32, n: usize) -> VocoderItem {
        let units: Vec<u32> = (first..).take(n).collect();
        let twice: Vec<f32> = units.iter().flat_map(|&unit| [unit as f32; 2]).collect();
        VocoderItem { units: units.into(), samples: twice.clone().into(), mels: twice.into() }
    }

    #[test]
    fn crops_begin_at_units_and_are_drawn_by_epoch_and_item() {
        let items = vec![item(0, 40), item(100, 3), item(200, 40)];
        let data = VocoderDataset { items, crop: 5, rate_hz: 25.0 };
        assert_eq!(data.costs(), [200, 120, 200]);
        let draw = |key| Draw { key, progress: None };
        let batch = data.load(&[0, 1, 2], draw(1));
        assert_eq!((batch.lengths.clone(), batch.units.len()), (vec![5, 3, 5], 13));
        assert!((batch.audio_s - 0.52).abs() < 1e-9);
        assert!(batch.units[..5].windows(2).all(|pair| pair[1] == pair[0] + 1));
        assert_eq!(batch.units[5..8], [100, 101, 102]);
        let twice: Vec<f32> = batch.units.iter().flat_map(|&unit| [unit as f32; 2]).collect();
        assert_eq!((&batch.samples, &batch.mels), (&twice, &twice));
        // The same draw is the same crop, alone too; others differ by epoch and item.
        assert_eq!(data.load(&[2], draw(1)).units, batch.units[8..]);
        let starts = |key| {
            let units = data.load(&[0, 2], draw(key)).units;
            [units[0], units[5] - 200]
        };
        let drawn: Vec<[u32; 2]> = (0..20).map(starts).collect();
        assert!(
            drawn.iter().any(|at| at[0] != drawn[0][0]) && drawn.iter().any(|at| at[0] != at[1])
        );
        assert!(drawn.iter().flatten().all(|&at| at <= 35));
    }

    #[test]
    fn terms_are_sums_over_crops() {
        let config: VocoderConfig = serde_json::from_value(serde_json::json!({
            "d_model": 8, "d_ff": 8, "unit_layers": 1, "frame_layers": 1, "kernel": 3, "hop": 80, "n_mels": 3,
        }))
        .unwrap();
        let net = config.init(4, 160, &Init::new(1, &Device::flex()));
        let item = |n: usize| VocoderItem {
            units: (0..n).map(|i| (i % 4) as u32).collect(),
            samples: (0..n * 160).map(|i| (i as f32 * 0.3).sin() * 0.1).collect(),
            mels: (0..n * 6).map(|i| i as f32 * 0.1).collect(),
        };
        let data = VocoderDataset { items: vec![item(9), item(5)], crop: 9, rate_hz: 100.0 };
        let loss = LossConfig { spectra: 0.5, ..LossConfig::default() };
        let terms = |indices: &[usize]| -> Vec<f32> {
            let terms = net.terms(&data.load(indices, Draw::FIXED), &loss, Dropout::OFF);
            assert_eq!(
                [terms[0].name, terms[1].name, terms[2].name],
                [MEL, CONVERGENCE, MAGNITUDE]
            );
            assert_eq!([terms[0].weight, terms[1].weight], [1.0, 0.5]);
            terms.into_iter().map(|term| host(term.sum)[0]).collect()
        };
        let size = data.load(&[0, 1], Draw::FIXED).size(&loss);
        assert_eq!(size.counts, [(MEL, 84.0), (CONVERGENCE, 6.0), (MAGNITUDE, 6.0)]);
        assert_eq!((size.n_items, size.n_tokens), (2, 14));
        let (all, parts) = (terms(&[0, 1]), [terms(&[0]), terms(&[1])]);
        for (i, sum) in all.iter().enumerate() {
            let expected = parts[0][i] + parts[1][i];
            assert!(*sum > 0.0 && (sum - expected).abs() < 1e-3 * expected, "{sum} {expected}");
        }
        // What has no weight is not computed.
        let mel = LossConfig { spectra: 0.0, ..LossConfig::default() };
        assert_eq!(net.terms(&data.load(&[0], Draw::FIXED), &mel, Dropout::OFF).len(), 1);
    }
}
