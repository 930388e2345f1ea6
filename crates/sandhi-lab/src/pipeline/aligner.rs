//! Aligner models: units first, then the network.
//!
//! ```text
//! frames of the first stage ─ k-means ─ DIR/units.npy ─┐
//!                                                      ├─ UnitAligner ─ stages ─> AlignerModel
//! transcripts ─ symbols ───────────────────────────────┘
//! ```

use burn::prelude::*;
use sandhi_nn::init::Init;

use super::{Error, Place, fitted, marks, stages};
use crate::{
    model::{AlignerModel, AnyModel},
    recipe::{AlignerModelConfig, Recipe, UnitsConfig},
    sources::Workshop,
    train::Monitor,
    units::{Kmeans, Spectra},
};

/// Trains an aligner; none when it was interrupted.
pub(super) fn aligner(
    recipe: &Recipe,
    config: &AlignerModelConfig,
    place: &Place,
    workshop: &Workshop,
    monitor: &mut dyn Monitor,
) -> Result<Option<AnyModel>, Error> {
    let symbols = workshop.symbols(&recipe.stages[0])?;
    let spectra = Spectra::new(&config.features, config.window)?;
    let units = match &config.units {
        Some(units) => Some(centers(recipe, units, &spectra, place, workshop, monitor)?),
        None => None,
    };
    let mut model = AlignerModel::init(
        config.features.clone(),
        config.window,
        config.aligner.clone(),
        symbols,
        units,
        &Init::new(recipe.seed, &place.device.clone().autodiff()),
    )?;
    let also = model
        .units
        .as_ref()
        .map_or_else(String::new, |kmeans| blake3::hash(&kmeans.to_npy()).to_hex().to_string());
    let sources = marks(recipe, place, workshop, &also)?;
    let net = stages(recipe, place, monitor, model.net.clone(), &sources, |i, monitor| {
        let progress = |done, total| monitor.preparing("speaking and analyzing", done, total);
        let (stage, units) = (&recipe.stages[i], model.units.as_ref());
        Ok(workshop.aligned(stage, model.spectra(), units, &model.symbols, &progress)?)
    })?;
    let Some(net) = net else { return Ok(None) };
    model.net = net.valid();
    Ok(Some(AnyModel::Aligner(Box::new(model))))
}

/// The centers that the recipe names, or those that this run has found, now or before it was interrupted.
fn centers(
    recipe: &Recipe,
    config: &UnitsConfig,
    spectra: &Spectra,
    place: &Place,
    workshop: &Workshop,
    monitor: &mut dyn Monitor,
) -> Result<Kmeans, Error> {
    match config {
        UnitsConfig::File { path, .. } => Ok(Kmeans::read(&workshop.resolve(path))?),
        UnitsConfig::Fit { n, n_frames, iterations } => {
            fitted(recipe, place, monitor, (*n, *iterations), spectra.width(), || {
                let stage = &recipe.stages[0];
                Ok(workshop.some_frames(stage, spectra, *n_frames, recipe.seed)?)
            })
        }
    }
}
