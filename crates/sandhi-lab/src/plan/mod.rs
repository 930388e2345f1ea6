//! Plans: what a recipe would do, checked and counted before anything is trained.
//!
//! ```text
//! Recipe ─ check ─┬─ every problem, all at once
//!                 └─ Plan: parameters and memory of each part; seconds, tokens and operations of each stage
//! ```
//!
//! Nothing is allocated and nothing is spoken. Files that a recipe names are opened: a base model's
//! directory is verified, a manifest read.

mod budget;
pub(crate) mod check;
mod cost;
pub(crate) mod count;
mod parts;
mod text;
mod warnings;

use std::path::Path;

use serde::Serialize;

use self::{
    budget::Model,
    check::{Checked, Frames},
    parts::{Counted, Size},
};
use crate::{
    hf::Hub,
    recipe::{ModelConfig, NetworkConfig, Problems, Recipe},
    train::trainable,
};

/// Bytes of an f32.
const F32: u64 = 4;

/// A resolved recipe.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Name of the recipe.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// `ctc`, `text`, `connector`, `aligner`, `speech_text` or `vocoder`.
    pub kind: &'static str,
    /// The seed.
    pub seed: u64,
    /// Whether it can be trained: false when a base is only declared or something is missing.
    pub trainable: bool,
    /// What has to be given or fetched before it can be trained.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Parameters of every part.
    pub parts: Vec<Part>,
    /// Parameters of all parts.
    pub n_parameters: u64,
    /// Parameters that some stage trains.
    pub n_trained: u64,
    /// The memory that training needs.
    pub memory: Memory,
    /// Every stage.
    pub stages: Vec<StagePlan>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<String>,
}

/// A part of the model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// `encoder`, `head`, `connector`, `language_model`, `lora`, `aligner`, `network`, `patch_encoder`, `global`,
    /// `patch_decoder`, `vocoder`.
    pub name: String,
    /// What a declared part stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared: Option<String>,
    /// All its parameters.
    pub n_parameters: u64,
    /// Those in linear layers, tables and kernels; the rest are norms and biases. Unknown for a
    /// declared part.
    pub n_in_matrices: Option<u64>,
    /// Those that some stage trains.
    pub n_trained: u64,
    /// Share of all parameters of the model.
    pub share: f64,
    /// Bytes of weights; f32, and 16 bits for matrices of a base that is held so.
    pub weight_bytes: u64,
    /// Bytes of gradients, f32, of all batches whose gradients live at once, in the stage that needs most memory.
    pub gradient_bytes: u64,
    /// Bytes of what the optimizer keeps in that stage, f32: two moments for AdamW, one velocity for Muon.
    pub moment_bytes: u64,
    /// Bytes of what backward keeps of the full batches that are at work at once in that stage, f32; none where
    /// a part is only declared.
    pub activation_bytes: Option<u64>,
}

/// Bytes that training needs on its device, in the stage that needs most; without data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Memory {
    /// That stage.
    pub stage: String,
    /// Weights of all parts.
    pub weight_bytes: u64,
    /// Gradients.
    pub gradient_bytes: u64,
    /// What the optimizer keeps.
    pub moment_bytes: u64,
    /// What backward keeps; none where a part is only declared.
    pub activation_bytes: Option<u64>,
    /// The most at once. Gradients come while what backward kept goes, so this is less than the sum; where a
    /// part is only declared, it is the sum of what is known.
    pub total_bytes: u64,
    /// Besides, on the host and for every thread: the lattice of CTC's loss, or the forward sum's, over one utterance.
    pub lattice_bytes: u64,
}

/// Operations of matrix products that a part does in a stage: multiplications and additions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Work {
    /// The part.
    pub part: String,
    /// Forward, a step.
    pub forward: f64,
    /// Backward, a step.
    pub backward: f64,
    /// Before the first step: a frozen encoder hears every utterance once, unless its frames are cached.
    pub once: f64,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StagePlan {
    /// Its name.
    pub name: String,
    /// Optimizer steps.
    pub steps: u64,
    /// Parameters that it trains.
    pub n_trained: u64,
    /// Items of all its sources, where the recipe or the files say; before the dev half is taken out.
    pub n_items: Option<usize>,
    /// Batches a step, over all replicas.
    pub batches_per_step: usize,
    /// The most seconds of audio that a step hears; none for text.
    pub audio_s_per_step: Option<f64>,
    /// The most hours of audio that the stage hears, repetitions counted.
    pub audio_h: Option<f64>,
    /// Tokens that a document is assumed to have, of a model over text and units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_document: Option<f64>,
    /// Its patches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patches_per_document: Option<f64>,
    /// The most tokens of a step: of text for a text model, encoder frames for a CTC model; for a
    /// connector model vectors of speech and an estimated 48 tokens of text an item. None where a
    /// declared part does not say its rate.
    pub tokens_per_step: Option<u64>,
    /// The same over the stage.
    pub tokens: Option<u64>,
    /// Operations of every part, for full batches; none where a declared part does not say its rate.
    pub work: Option<Vec<Work>>,
    /// Their sum over a step.
    pub operations_per_step: Option<f64>,
    /// Their sum over the stage, what is done once included.
    pub operations: Option<f64>,
    /// Seconds of a step at the rate of [`Plan::at_rate`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_s: Option<f64>,
    /// Seconds of the stage at that rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage_s: Option<f64>,
}

/// Resolves and checks a recipe whose relative paths start at `base`; `hub` says where published models are. Of one
/// that is neither there nor known, the configuration is fetched and nothing else.
///
/// # Errors
///
/// Everything that is wrong with it and can be known before training.
pub fn plan(recipe: &Recipe, base: &Path, hub: &Hub) -> Result<Plan, Problems> {
    let Checked { mut problems, mut warnings, missing, encoder, language_model, n_items } =
        check::check(recipe, base, hub);
    // A model whose sizes are wrong has no parameters to speak of.
    let counted = if !check::model_is_wrong(&problems) {
        parts::counted(recipe, base, encoder.as_ref(), language_model.as_ref(), &mut problems)
    } else {
        None
    };
    let counted = counted.map(|mut parts| {
        let lora = parts::lora(recipe);
        parts.extend(lora.and_then(|config| parts::branches(config, &parts, &mut problems)));
        parts
    });
    if let Some(parts) = &counted {
        parts::patterns(recipe, parts, &mut problems);
        parts::blanks(recipe, parts, &mut problems);
        parts::written(recipe, parts, &mut problems);
    }
    let (Some(parts), true) = (counted, problems.is_empty()) else {
        problems.extend(missing);
        return Err(Problems(problems));
    };
    warnings::warnings(recipe, encoder.as_ref(), &parts, &mut warnings);
    let model = Model {
        recipe,
        encoder: encoder.as_ref(),
        language_model: language_model.as_ref(),
        parts: &parts,
    };
    let mut plan = assemble(recipe, warnings, &n_items, &model);
    plan.trainable &= missing.is_empty();
    plan.missing = missing;
    Ok(plan)
}

/// Operations of matrix products of a network over text and units, forward, for a document of so many tokens and
/// patches, all patches alike: of each of its parts, by name.
pub fn forward_operations(
    network: &NetworkConfig,
    n_vocabulary: usize,
    n_tokens: f64,
    n_patches: f64,
) -> Vec<(&'static str, f64)> {
    let parts: Vec<(&str, Vec<cost::Layer>)> = match network {
        NetworkConfig::Plain(config) => {
            let batch = cost::Batch::new(1.0, n_tokens);
            vec![(count::PLAIN, cost::language_model(config, n_vocabulary, &batch))]
        }
        NetworkConfig::Patch(config) => {
            let batch = cost::PatchBatch { n_documents: 1.0, n_tokens, n_patches };
            count::PATCHES.into_iter().zip(cost::patch_lm(config, n_vocabulary, &batch)).collect()
        }
    };
    let sum = |layers: Vec<cost::Layer>| {
        layers.iter().map(|layer| layer.with_weights + layer.between).sum()
    };
    parts.into_iter().map(|(name, layers)| (name, sum(layers))).collect()
}

fn total(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

/// The plan of a recipe that is right.
fn assemble(
    recipe: &Recipe,
    warnings: Vec<String>,
    n_items: &[Option<usize>],
    model: &Model,
) -> Plan {
    let counted = model.parts;
    let n_parameters = total(counted.iter().map(Counted::n_parameters));
    let all = trainable(recipe);
    let needed = recipe.stages.iter().map(|stage| (stage, model.memory(stage)));
    let (heaviest, needed) =
        needed.max_by_key(|(_, memory)| memory.total).expect("a recipe has stages");
    let parts: Vec<Part> = counted
        .iter()
        .zip(&needed.parts)
        .map(|(part, memory)| {
            let n = part.n_parameters();
            Part {
                name: part.name.to_owned(),
                declared: match &part.size {
                    Size::Declared { label, .. } => Some(label.clone()),
                    Size::Listed(_) => None,
                },
                n_parameters: n,
                n_in_matrices: match &part.size {
                    Size::Declared { .. } => None,
                    Size::Listed(list) => Some(list.n_in_matrices()),
                },
                n_trained: part.n_ever_trained(&all),
                share: n as f64 / n_parameters.max(1) as f64,
                weight_bytes: part.weight_bytes(),
                gradient_bytes: memory.gradients,
                moment_bytes: memory.moments,
                activation_bytes: memory.activations,
            }
        })
        .collect();
    let sum = |of: fn(&Part) -> u64| total(parts.iter().map(of));
    let weight_bytes = sum(|part| part.weight_bytes);
    let memory = Memory {
        stage: heaviest.name.clone(),
        weight_bytes,
        gradient_bytes: sum(|part| part.gradient_bytes),
        moment_bytes: sum(|part| part.moment_bytes),
        activation_bytes: needed.activations,
        total_bytes: weight_bytes.saturating_add(needed.total),
        lattice_bytes: match &recipe.model {
            ModelConfig::Ctc(config) => {
                let duration_s = heaviest.batch.max_length / heaviest.batch.max_items.max(1) as f64;
                let frames = Frames::new(&config.features, &config.encoder).of(duration_s);
                cost::ctc_lattice(frames * config.ctc.steps_per_frame as f64, duration_s) as u64
            }
            ModelConfig::Aligner(config) => {
                let duration_s = heaviest.batch.max_length / heaviest.batch.max_items.max(1) as f64;
                let n_frames = budget::aligner_frames(config).of(duration_s);
                let n_characters = cost::CHARACTERS_HZ * duration_s;
                cost::forward_sum_lattice(n_frames, n_characters) as u64
            }
            ModelConfig::Text(_)
            | ModelConfig::Connector(_)
            | ModelConfig::SpeechText(_)
            | ModelConfig::Vocoder(_) => 0,
        },
    };
    let audio = !matches!(recipe.model, ModelConfig::Text(_) | ModelConfig::SpeechText(_));
    let (rows, text) = model.tokens();

    let stages = recipe
        .stages
        .iter()
        .zip(n_items)
        .map(|(stage, &n_items)| {
            let n_batches = stage.batch.accumulate as f64;
            let units = n_batches * stage.batch.max_length;
            let tokens = rows.map(|rows| {
                let items = n_batches * stage.batch.max_items as f64;
                units * rows.a_second + items * (rows.an_item + text)
            });
            let documents = model.documents(stage);
            let of_documents =
                documents.map(|batch| n_batches * batch.n_documents * batch.n_tokens);
            let tokens = of_documents.or(tokens);
            let work = model.work(stage, n_items);
            let sum = |of: fn(&Work) -> f64| -> Option<f64> {
                work.as_ref().map(|work| work.iter().map(of).sum())
            };
            let operations_per_step = sum(|work| work.forward + work.backward);
            let once = sum(|work| work.once);
            StagePlan {
                name: stage.name.clone(),
                steps: stage.steps,
                n_trained: total(counted.iter().map(|part| part.n_trained(&stage.trainable))),
                n_items,
                batches_per_step: stage.batch.accumulate,
                audio_s_per_step: audio.then_some(units),
                audio_h: audio.then_some(units * stage.steps as f64 / 3600.0),
                tokens_per_document: documents.map(|batch| batch.n_tokens),
                patches_per_document: documents.map(|batch| batch.n_patches),
                tokens_per_step: tokens.map(|n| n as u64),
                tokens: tokens.map(|n| (n * stage.steps as f64) as u64),
                operations: operations_per_step
                    .zip(once)
                    .map(|(step, once)| step * stage.steps as f64 + once),
                work,
                operations_per_step,
                step_s: None,
                stage_s: None,
            }
        })
        .collect();
    Plan {
        name: recipe.name.clone(),
        about: recipe.about.clone(),
        kind: check::kind(&recipe.model),
        seed: recipe.seed,
        missing: Vec::new(),
        trainable: counted.iter().all(|part| matches!(part.size, Size::Listed(_))),
        n_trained: sum(|part| part.n_trained),
        parts,
        n_parameters,
        memory,
        stages,
        warnings,
    }
}

impl Plan {
    /// The plan with the times that its steps and stages take at a rate of operations a second.
    #[must_use]
    pub fn at_rate(mut self, operations_per_s: f64) -> Self {
        for stage in &mut self.stages {
            stage.step_s = stage.operations_per_step.map(|n| n / operations_per_s);
            stage.stage_s = stage.operations.map(|n| n / operations_per_s);
        }
        self
    }
}

#[cfg(test)]
mod tests;
