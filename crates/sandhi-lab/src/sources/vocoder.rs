//! What vocoders learn from: utterances as units, beside their sound and its spectra.
//!
//! ```text
//! text ─ Studio, or recording ─ samples ─┬─ encoder ─ nearest centers ─ units
//!                                        └─ cut or filled to whole units ─ log-mel
//! ```

use rayon::prelude::*;

use super::{Error, HeldOut, Prepared, Spoken, Workshop, unfit};
use crate::{
    frames::FrameCache,
    model::VocoderModel,
    recipe::{SourceConfig, StageConfig},
    train::vocoder::{VocoderDataset, VocoderItem},
};

/// Utterances heard at once.
const CHUNK: usize = 256;

/// Samples of so many units: what is missing is silence, what is too much goes.
pub(crate) fn whole_units(
    mut samples: Vec<f32>,
    n_units: usize,
    samples_per_unit: usize,
) -> Vec<f32> {
    samples.resize(n_units * samples_per_unit, 0.0);
    samples
}

impl Workshop {
    /// The data sets of a vocoder's stage, of crops of so many units.
    ///
    /// # Errors
    ///
    /// When a source cannot be read, spoken or analyzed.
    pub(crate) fn vocoder(
        &self,
        stage: &StageConfig,
        model: &VocoderModel,
        crop: usize,
        cache: &FrameCache,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Prepared<VocoderDataset>, Error> {
        let mut lists = Vec::with_capacity(stage.sources.len());
        for source in &stage.sources {
            let spoken = self.aloud(stage, source)?;
            if spoken.is_empty() {
                return Err(match source {
                    SourceConfig::Stories(_)
                    | SourceConfig::Wild(_)
                    | SourceConfig::Microworld(_)
                    | SourceConfig::Manifest(_) => {
                        Error::Empty { stage: stage.name.clone(), source_kind: source.kind() }
                    }
                    _ => unfit(stage, source, "vocoder"),
                });
            }
            lists.push(spoken);
        }
        let held_out = HeldOut::new(stage, lists.iter().map(Vec::len).sum());
        let is_held_out = |spoken: &Spoken| match spoken.text() {
            // Recordings without a text go by their names.
            "" => held_out.has(&spoken.key()),
            text => held_out.has(text),
        };
        let dataset = |spoken: &[Spoken]| -> Result<VocoderDataset, Error> {
            let items = self.heard_as_units(spoken, model, cache, progress)?;
            Ok(VocoderDataset { items, crop, rate_hz: model.units.rate_hz })
        };
        let (mut sources, mut dev) = (Vec::new(), Vec::new());
        for (source, spoken) in stage.sources.iter().zip(lists) {
            let (measured, learned): (Vec<_>, Vec<_>) = spoken.into_iter().partition(is_held_out);
            dev.extend(measured);
            let learned = dataset(&learned)?;
            if learned.items.is_empty() {
                return Err(Error::Empty { stage: stage.name.clone(), source_kind: source.kind() });
            }
            sources.push((source.weight(), learned));
        }
        let dev = dataset(&held_out.drawn(dev))?;
        let dev = if dev.items.is_empty() { Vec::new() } else { vec![dev] };
        Ok((sources, dev))
    }

    /// Utterances with their units; those too short for one are left out.
    fn heard_as_units(
        &self,
        spoken: &[Spoken],
        model: &VocoderModel,
        cache: &FrameCache,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Vec<VocoderItem>, Error> {
        let mut items = Vec::with_capacity(spoken.len());
        let mut n_done = 0;
        for chunk in spoken.chunks(CHUNK) {
            let units = self.units(chunk, &model.hearing, cache, &|_, _| {})?;
            let sounds = self.sounds(chunk)?;
            let found: Vec<VocoderItem> = units
                .into_par_iter()
                .zip(sounds)
                .filter(|(utterance, _)| !utterance.units.is_empty())
                .map(|(utterance, sound)| {
                    let n_units = utterance.units.len();
                    let samples =
                        whole_units(sound.wave.samples, n_units, model.samples_per_unit());
                    let mels = model.stft().log_mel(&samples);
                    let units = utterance.units.into();
                    VocoderItem { units, samples: samples.into(), mels: mels.into() }
                })
                .collect();
            items.extend(found);
            n_done += chunk.len();
            progress(n_done, spoken.len());
        }
        Ok(items)
    }
}
