//! A text-and-unit aligner put together: front end, units, symbols and network; in memory and on disk.
//!
//! ```text
//! samples ─ spectra ─ windows ─(─ nearest centers ─)─┐
//!                                                    ├─ UnitAligner ─ log-probabilities [n_frames, n_characters]
//! text ───── characters, a space at both ends ───────┘
//!
//! aligner.safetensors, and units.npy where there are units
//! ```

use std::sync::Arc;

use burn::prelude::*;
use sandhi_align::ctc::log_softmax_row;
use sandhi_data::{
    features::{self, FeatureConfig},
    text::Characters,
};
use sandhi_nn::{
    aligner::{Heard, Hears, Softmax, UnitAligner, UnitAlignerConfig},
    init::Init,
    ragged::{Offsets, Ragged},
    transformer::Dropout,
    weights,
};
use serde::{Deserialize, Serialize};

use super::{
    Error,
    parts::{SPEC, get, put},
};
use crate::{
    checkpoint::{Checkpoint, CheckpointWriter, Dtype},
    units::{FrameWindow, Kmeans, Spectra},
};

const ALIGNER: &str = "aligner.safetensors";
const UNITS: &str = "units.npy";

/// When the characters of a known text are said.
#[derive(Debug, Clone)]
pub struct AlignerModel {
    /// The front end's settings.
    pub features: FeatureConfig,
    /// The network's settings.
    pub config: UnitAlignerConfig,
    /// What the characters' numbers mean.
    pub symbols: Characters,
    /// Centers of the units; the network hears the frames themselves where absent.
    pub units: Option<Kmeans>,
    /// The weights.
    pub net: UnitAligner,
    spectra: Arc<Spectra>,
}

/// What `model.json` says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AlignerSpec {
    features: FeatureConfig,
    window: FrameWindow,
    aligner: UnitAlignerConfig,
    symbols: Characters,
    /// How many there are in `units.npy`; none where the network hears frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n_units: Option<usize>,
}

impl AlignerModel {
    /// A model with random weights.
    ///
    /// # Errors
    ///
    /// When the front end's settings are not possible.
    ///
    /// # Panics
    ///
    /// When the centers are of frames of another width.
    pub fn init(
        features: FeatureConfig,
        window: FrameWindow,
        config: UnitAlignerConfig,
        symbols: Characters,
        units: Option<Kmeans>,
        init: &Init,
    ) -> Result<Self, features::Error> {
        let spectra = Spectra::new(&features, window)?;
        let hears = match &units {
            Some(kmeans) => {
                assert_eq!(kmeans.width(), spectra.width(), "the units are of these frames");
                Hears::Units(kmeans.n_clusters())
            }
            None => Hears::Frames(spectra.width()),
        };
        let net = config.init(symbols.n_symbols(), hears, init);
        Ok(Self { features, config, symbols, units, net, spectra: Arc::new(spectra) })
    }

    /// The front end.
    pub fn spectra(&self) -> &Spectra {
        &self.spectra
    }

    /// Log-probabilities of the characters of a text, frame by frame: what the best path is searched in.
    ///
    /// # Shapes
    ///
    /// - `text`: numbers of symbols, at least one
    /// - output: `[n_frames, n_characters]`
    ///
    /// # Errors
    ///
    /// When the samples have no features.
    pub fn log_probs(&self, samples: &[f32], text: &[u32]) -> Result<Vec<f32>, features::Error> {
        let frames = self.spectra.frames(samples)?;
        let device = self.net.devices().into_iter().next().expect("a model has parameters");
        let width = self.spectra.width();
        let offsets = Offsets::from_lengths(&[frames.len() / width]);
        let heard = match &self.units {
            Some(kmeans) => Heard::Units(kmeans.assign(&frames), offsets),
            None => {
                let data = TensorData::new(frames, [offsets.n_rows(), width]);
                Heard::Frames(Ragged { values: Tensor::from_data(data, &device), offsets })
            }
        };
        let scores = self.net.forward(&heard, &[text.to_vec()], Dropout::OFF);
        let mut rows = weights::host(scores.values);
        rows.chunks_exact_mut(text.len()).for_each(log_softmax_row);
        Ok(rows)
    }

    pub(super) fn write(
        &self,
        writer: &mut CheckpointWriter,
        dtype: Dtype,
    ) -> Result<AlignerSpec, Error> {
        put(writer, ALIGNER, &self.net, dtype)?;
        if let Some(kmeans) = &self.units {
            writer.bytes(UNITS, &kmeans.to_npy())?;
        }
        Ok(AlignerSpec {
            features: self.features.clone(),
            window: self.spectra.window(),
            aligner: self.config.clone(),
            symbols: self.symbols.clone(),
            n_units: self.units.as_ref().map(Kmeans::n_clusters),
        })
    }

    pub(super) fn read(
        checkpoint: &Checkpoint,
        spec: AlignerSpec,
        device: &Device,
    ) -> Result<Self, Error> {
        let AlignerSpec { features, window, aligner, symbols, n_units } = spec;
        let wrong = |message| Error::Spec { path: checkpoint.dir().join(SPEC), message };
        let problems = [window.problems(), aligner.problems()].concat();
        if let Some(problem) = problems.into_iter().next() {
            return Err(wrong(format!("aligner: {problem}")));
        }
        let width = Spectra::new(&features, window)?.width();
        let units = match n_units {
            None if aligner.softmax == Softmax::Units => {
                return Err(wrong("aligner: a softmax over units without n_units".into()));
            }
            None => None,
            Some(n) => {
                let path = checkpoint.dir().join(UNITS);
                let kmeans = Kmeans::parse(&checkpoint.bytes(UNITS)?, &path)?;
                let found = [kmeans.n_clusters(), kmeans.width()];
                if found != [n, width] {
                    return Err(wrong(format!(
                        "aligner: {UNITS} has centers of shape {found:?}, expected {:?}",
                        [n, width]
                    )));
                }
                Some(kmeans)
            }
        };
        let init = Init::blank(device);
        let model = Self::init(features, window, aligner, symbols, units, &init)?;
        Ok(Self { net: get(checkpoint, ALIGNER, model.net)?, ..model })
    }
}
