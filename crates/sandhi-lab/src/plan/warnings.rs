//! What a recipe may say and probably does not mean, once the parts of its model are known.

use sandhi_nn::{encoder::EncoderConfig, weights::WeightType};

use super::{
    check::{Base, SpeechBase},
    parts::{Counted, LORA, learns},
};
use crate::{
    recipe::{ModelConfig, Recipe},
    train::trainable,
};

/// All of it.
pub(super) fn warnings(
    recipe: &Recipe,
    encoder: Option<&Base<SpeechBase>>,
    parts: &[Counted],
    warnings: &mut Vec<String>,
) {
    let stages = trainable(recipe);
    nothing_masked(recipe, parts, &stages, warnings);
    nothing_recomputed(recipe, encoder, parts, warnings);
    widened(parts, &stages, warnings);
    if parts.iter().any(|part| part.name == LORA && part.n_ever_trained(&stages) == 0) {
        warnings.push("model.lora: no stage trains it; trainable may have \"*lora_*\"".into());
    }
}

/// Stages whose masks nothing would reach.
fn nothing_masked(
    recipe: &Recipe,
    parts: &[Counted],
    stages: &[Vec<String>],
    warnings: &mut Vec<String>,
) {
    let hears_features = match &recipe.model {
        ModelConfig::Ctc(_) => true,
        ModelConfig::Text(_) | ModelConfig::SpeechText(_) => false,
        ModelConfig::Connector(_) => learns(parts, "encoder", stages),
        // There masks are a problem.
        ModelConfig::Aligner(_) | ModelConfig::Vocoder(_) => true,
    };
    let masked = recipe.stages.iter().enumerate().filter(|(_, s)| s.spec_augment.is_some());
    for (i, _) in masked.filter(|_| !hears_features) {
        warnings.push(format!(
            "stage[{i}].spec_augment: the encoder is frozen and hears every utterance once, so nothing is masked"
        ));
    }
}

/// Stages that ask blocks to run again which do not: those that share WavLM's bias of positions.
fn nothing_recomputed(
    recipe: &Recipe,
    base: Option<&Base<SpeechBase>>,
    parts: &[Counted],
    warnings: &mut Vec<String>,
) {
    let config = match (&recipe.model, base) {
        (ModelConfig::Ctc(config), _) => &config.encoder,
        (ModelConfig::Connector(_), Some(Base::Known(speech))) => &speech.encoder,
        _ => return,
    };
    let biased = matches!(config, EncoderConfig::Wav2vec2(c) if c.position_bias.is_some());
    for (i, stage) in recipe.stages.iter().enumerate() {
        let stages = std::slice::from_ref(&stage.trainable);
        if biased && stage.gradient_checkpointing && learns(parts, "encoder", stages) {
            warnings.push(format!(
                "stage[{i}].gradient_checkpointing: the encoder's blocks share a bias of positions (WavLM) and do \
                 not run again, they keep everything"
            ));
        }
    }
}

/// Parts whose matrices are widened for backward where there is no product of 16-bit matrices.
fn widened(parts: &[Counted], stages: &[Vec<String>], warnings: &mut Vec<String>) {
    for part in parts.iter().filter(|part| part.dtype != WeightType::F32) {
        // Whatever learns stands before the language model or in it.
        let reached = match part.name {
            "language_model" => stages.iter().any(|stage| !stage.is_empty()),
            name => learns(parts, name, stages),
        };
        if reached {
            warnings.push(format!(
                "model.{}.dtype: half the memory on the CPU and in inference; on other devices backward keeps an f32 \
                 copy of every matrix that gradients flow through, which the plan does not count",
                part.name
            ));
        }
    }
}
