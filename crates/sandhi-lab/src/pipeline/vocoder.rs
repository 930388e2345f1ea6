//! Vocoders: units first, then the network.
//!
//! ```text
//! what the first stage hears ─ encoder ─ k-means, or a file of centers ─┐
//!                                                                      ├─ Vocoder ─ stages ─> VocoderModel
//! sound, in crops of whole units ──────────────────────────────────────┘
//! ```

use burn::prelude::*;
use sandhi_nn::init::Init;

use super::{Error, Place, marks, speech_text::hearing, stages};
use crate::{
    frames::FrameCache,
    model::{AnyModel, VocoderModel},
    recipe::{Recipe, VocoderModelConfig},
    sources::{self, Workshop},
    tasks,
    train::Monitor,
};

/// Trains a vocoder; none when it was interrupted.
pub(super) fn vocoder(
    recipe: &Recipe,
    config: &VocoderModelConfig,
    place: &Place,
    workshop: &Workshop,
    monitor: &mut dyn Monitor,
) -> Result<Option<AnyModel>, Error> {
    // Better now than after the last step.
    if let Some(eval) = &recipe.eval {
        tasks::recognizer(eval, workshop, &place.device, &place.hub)?;
    }
    let hearing = hearing(recipe, &config.units, place, workshop, monitor)?;
    let deaf = || sources::Error::Deaf { stage: recipe.stages[0].name.clone() };
    let hearing = hearing.ok_or_else(deaf)?;
    let init = Init::new(recipe.seed, &place.device.clone().autodiff());
    let mut model = VocoderModel::init(config.vocoder.clone(), hearing, &init)?;
    let cache = FrameCache::new(&place.cache, &model.hearing.speech.frames_fingerprint());
    let crop = config.crop_units(model.units.rate_hz);
    let also = format!("{:?}{crop}", model.units);
    let sources = marks(recipe, place, workshop, &also)?;
    let net = stages(recipe, place, monitor, model.net.clone(), &sources, |i, monitor| {
        let progress = |done, total| monitor.preparing("speaking and encoding", done, total);
        Ok(workshop.vocoder(&recipe.stages[i], &model, crop, &cache, &progress)?)
    })?;
    let Some(net) = net else { return Ok(None) };
    model.net = net.valid();
    Ok(Some(AnyModel::Vocoder(Box::new(model))))
}
