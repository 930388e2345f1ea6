//! Plans: what a recipe would do, checked and counted before anything is trained.
//!
//! ```text
//! Recipe ─ check ─┬─ every problem, all at once
//!                 └─ Plan: parameters and memory of each part; seconds, tokens and operations of each stage
//! ```
//!
//! Nothing is allocated and nothing is spoken. Files that a recipe names are opened: a base model's
//! directory is verified, a manifest read.

pub(crate) mod check;
mod cost;
pub(crate) mod count;
mod text;

use std::path::Path;

use sandhi_data::features::FeatureExtractor;
use sandhi_nn::{
    connector::{ConnectorConfig, Widths},
    lora::LoraConfig,
    pattern,
    weights::WeightType,
};
use serde::Serialize;

use self::{
    check::{Base, Checked},
    cost::{Batch, PartLayers},
    count::{Entry, Inventory},
};
use crate::{
    hf::Hub,
    recipe::{MatrixRule, ModelConfig, Problems, Recipe, StageConfig},
    sources::Workshop,
    train::{is_covered, is_ever_trained, is_trained, optimizer::is_hidden_matrix, trainable},
};

/// A resolved recipe.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Name of the recipe.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// `ctc`, `text` or `connector`.
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
    /// `encoder`, `head`, `connector`, `language_model`, `lora`.
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
    /// Besides, on the host and for every thread: the lattice of CTC's loss over one utterance.
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

/// Bytes of an f32.
const F32: u64 = 4;

/// Instruction and answer tokens that an item of speech is estimated to have.
const TEXT_TOKENS_AN_ITEM: f64 = 48.0;

/// The share of them that is the answer, whose tokens are scored.
const ANSWER_SHARE: f64 = 1.0 / 3.0;

/// A part while it is counted.
struct Counted {
    name: &'static str,
    size: Size,
    /// How matrices are held.
    dtype: WeightType,
}

/// What is known of a part's parameters.
enum Size {
    Listed(Inventory),
    /// Only what the recipe declares.
    Declared {
        label: String,
        n_parameters: u64,
    },
}

fn total(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

impl Counted {
    fn known(name: &'static str, list: Inventory) -> Self {
        Self { name, size: Size::Listed(list.below(name)), dtype: WeightType::F32 }
    }

    /// A base of a connector model.
    fn base<T>(name: &'static str, base: &Base<T>, list: impl FnOnce(&T) -> Inventory) -> Self {
        match base {
            Base::Known(known) => Self::known(name, list(known)),
            Base::Declared { name: label, n_parameters, .. } => {
                let (label, n_parameters) = (label.clone(), *n_parameters);
                let size = Size::Declared { label, n_parameters };
                Self { name, size, dtype: WeightType::F32 }
            }
        }
    }

    fn held(self, dtype: WeightType) -> Self {
        Self { dtype, ..self }
    }

    fn weight_bytes(&self) -> u64 {
        let n_held = match &self.size {
            Size::Listed(list) => total(list.holdable().map(|entry| entry.n_values)),
            // Matrices are nearly all of it.
            Size::Declared { n_parameters, .. } => *n_parameters,
        };
        let n_wide = self.n_parameters() - n_held;
        n_wide.saturating_mul(F32).saturating_add(n_held.saturating_mul(self.dtype.n_bytes()))
    }

    /// A parameter that patterns would train although it is held in 16 bits.
    fn trained_half(&self, patterns: &[String]) -> Option<&str> {
        if self.dtype == WeightType::F32 {
            return None;
        }
        match &self.size {
            Size::Listed(list) => {
                let mut held = list.holdable().map(|entry| entry.name.as_str());
                held.find(|name| is_trained(patterns, name))
            }
            Size::Declared { .. } => (self.n_trained(patterns) > 0).then_some(self.name),
        }
    }

    fn n_parameters(&self) -> u64 {
        match &self.size {
            Size::Listed(list) => list.n_values(),
            Size::Declared { n_parameters, .. } => *n_parameters,
        }
    }

    /// Parameters that patterns of `trainable` cover.
    fn n_trained(&self, patterns: &[String]) -> u64 {
        self.weighed(|name| is_trained(patterns, name), 1, |_| 1)
    }

    /// Parameters that some stage trains.
    fn n_ever_trained(&self, stages: &[Vec<String>]) -> u64 {
        self.weighed(|name| is_ever_trained(stages, name), 1, |_| 1)
    }

    /// Values that the optimizer of a stage keeps: two moments for AdamW, one velocity for Muon. What is
    /// only declared counts as AdamW's.
    fn n_kept(&self, stage: &StageConfig) -> u64 {
        self.weighed(
            |name| is_trained(&stage.trainable, name),
            2,
            |entry| {
                let muon = stage.optimizer.matrices == MatrixRule::Muon;
                let rank = if entry.matrix { 2 } else { 1 };
                if muon && is_hidden_matrix(&entry.name, rank) { 1 } else { 2 }
            },
        )
    }

    /// The sum of the covered parameters, each as often as its entry says; `declared` times where there is
    /// no list.
    fn weighed(
        &self,
        covered: impl Fn(&str) -> bool,
        declared: u64,
        times: impl Fn(&Entry) -> u64,
    ) -> u64 {
        match &self.size {
            // What a declared part consists of is not known: it is trained whole or not at all.
            Size::Declared { n_parameters, .. } if covered(&format!("{}.?", self.name)) => {
                n_parameters.saturating_mul(declared)
            }
            Size::Declared { .. } => 0,
            Size::Listed(list) => {
                let covered = list.0.iter().filter(|entry| covered(&entry.name));
                total(covered.map(|entry| entry.n_values.saturating_mul(times(entry))))
            }
        }
    }

    fn matches(&self, pattern: &str) -> bool {
        match &self.size {
            Size::Declared { .. } => {
                let bare = pattern.strip_prefix('!').unwrap_or(pattern);
                let (below, head) = (format!("{}.", self.name), bare.split('*').next());
                bare == self.name
                    || head.is_some_and(|head| {
                        head.starts_with(&below) || (head != bare && below.starts_with(head))
                    })
            }
            Size::Listed(list) => list.0.iter().any(|entry| is_covered(pattern, &entry.name)),
        }
    }
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
        counted(recipe, base, encoder.as_ref(), language_model.as_ref(), &mut problems)
    } else {
        None
    };
    let counted = counted.map(|mut parts| {
        let branches = lora(recipe).and_then(|config| branches(config, &parts, &mut problems));
        parts.extend(branches);
        parts
    });
    if let Some(parts) = &counted {
        patterns(recipe, parts, &mut problems);
    }
    let (Some(parts), true) = (counted, problems.is_empty()) else {
        problems.extend(missing);
        return Err(Problems(problems));
    };
    nothing_masked(recipe, &parts, &mut warnings);
    let stages = trainable(recipe);
    if parts.iter().any(|part| part.name == LORA && part.n_ever_trained(&stages) == 0) {
        warnings.push("model.lora: no stage trains it; trainable may have \"*lora_*\"".into());
    }
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

/// The parts of the model with their parameters.
fn counted(
    recipe: &Recipe,
    base: &Path,
    encoder: Option<&Base<check::SpeechBase>>,
    language_model: Option<&Base<check::TextBase>>,
    problems: &mut Vec<String>,
) -> Option<Vec<Counted>> {
    match &recipe.model {
        ModelConfig::Text(config) => {
            let n_tokens = config.tokenizer.vocab_size;
            let list = count::language_model(&config.language_model, n_tokens);
            // Here the language model is the whole model, and its names have no prefix.
            let size = Size::Listed(list);
            Some(vec![Counted { name: "language_model", size, dtype: WeightType::F32 }])
        }
        ModelConfig::Ctc(config) => {
            let n_mels = FeatureExtractor::new(&config.features).ok()?.n_mels();
            let stage = recipe.stages.first()?;
            // The symbols are those of the transcripts, which only exist when the sources are right.
            let n_symbols = if problems.is_empty() {
                match Workshop::new(Path::new(""), base, recipe).symbols(stage) {
                    Ok(symbols) => symbols.n_symbols(),
                    Err(error) => {
                        problems.push(error.to_string());
                        return None;
                    }
                }
            } else {
                1
            };
            let head = count::ctc_head(&config.ctc, config.encoder.d_encoder(), n_symbols);
            Some(vec![
                Counted::known("encoder", count::encoder(&config.encoder, n_mels)),
                Counted::known("head", head),
            ])
        }
        ModelConfig::Connector(config) => {
            let (encoder, lm) = (encoder?, language_model?);
            let widths = Widths { d_encoder: encoder.width(), d_model: lm.width() };
            let speech = Counted::base("encoder", encoder, |speech| {
                count::encoder(&speech.encoder, speech.n_mels)
            });
            let text = Counted::base("language_model", lm, |text| {
                count::language_model(&text.transformer, text.n_tokens)
            });
            let connector = count::connector(&config.connector, widths);
            let (speech, text) =
                (speech.held(config.encoder.dtype()), text.held(config.language_model.dtype()));
            Some(vec![speech, Counted::known("connector", connector), text])
        }
    }
}

/// Name of the part that holds the low-rank branches.
const LORA: &str = "lora";

/// The `[model.lora]` table.
fn lora(recipe: &Recipe) -> Option<&LoraConfig> {
    match &recipe.model {
        ModelConfig::Text(config) => config.lora.as_ref(),
        ModelConfig::Connector(config) => config.lora.as_ref(),
        ModelConfig::Ctc(_) => None,
    }
}

/// The low-rank branches as a part of their own.
fn branches(config: &LoraConfig, parts: &[Counted], problems: &mut Vec<String>) -> Option<Counted> {
    let mut all = Inventory::default();
    for part in parts.iter().filter(|part| part.name != "connector") {
        match &part.size {
            Size::Listed(list) => all.0.extend(list.0.iter().cloned()),
            Size::Declared { .. } => {
                problems.push(format!(
                    "model.lora: the layers of a declared {} are not known",
                    part.name
                ));
                return None;
            }
        }
    }
    for target in &config.targets {
        if !all.linears().any(|(name, _)| pattern::covers(target, name)) {
            problems.push(format!("model.lora.targets: {target:?} matches no linear layer"));
        }
    }
    Some(Counted { name: LORA, size: Size::Listed(all.lora(config)), dtype: WeightType::F32 })
}

/// Stages whose masks nothing would reach.
fn nothing_masked(recipe: &Recipe, parts: &[Counted], warnings: &mut Vec<String>) {
    let hears_features = match &recipe.model {
        ModelConfig::Ctc(_) => true,
        ModelConfig::Text(_) => false,
        ModelConfig::Connector(_) => learns(parts, "encoder", &trainable(recipe)),
    };
    let masked = recipe.stages.iter().enumerate().filter(|(_, s)| s.spec_augment.is_some());
    for (i, _) in masked.filter(|_| !hears_features) {
        warnings.push(format!(
            "stage[{i}].spec_augment: the encoder is frozen and hears every utterance once, so nothing is masked"
        ));
    }
}

/// Whether some stage trains a part of the model, its branches included.
fn learns(parts: &[Counted], name: &str, stages: &[Vec<String>]) -> bool {
    let below = format!("{name}.");
    let trained = |n: &str| n.starts_with(&below) && is_ever_trained(stages, n);
    parts.iter().any(|part| part.weighed(trained, 1, |_| 1) > 0)
}

/// Patterns of `trainable` that match nothing, or what cannot be trained.
fn patterns(recipe: &Recipe, parts: &[Counted], problems: &mut Vec<String>) {
    for (i, stage) in recipe.stages.iter().enumerate() {
        for part in parts {
            if let Some(name) = part.trained_half(&stage.trainable) {
                let dtype = part.dtype.name();
                problems.push(format!(
                    "stage[{i}].trainable: {name} is held in {dtype} and cannot be trained; take dtype \
                     away or train LoRA"
                ));
            }
        }
        for pattern in &stage.trainable {
            if !parts.iter().any(|part| part.matches(pattern)) {
                let mut names: Vec<&str> = parts
                    .iter()
                    .flat_map(|part| match &part.size {
                        Size::Declared { .. } => vec![part.name],
                        Size::Listed(list) => {
                            list.0.iter().filter_map(|e| e.name.split('.').next()).collect()
                        }
                    })
                    .collect();
                names.dedup();
                problems.push(format!(
                    "stage[{i}].trainable: {pattern:?} matches no parameter; the model has {}",
                    names.join(", ")
                ));
            }
        }
    }
}

/// What the layers and lengths of a batch follow from.
struct Model<'a> {
    recipe: &'a Recipe,
    encoder: Option<&'a Base<check::SpeechBase>>,
    language_model: Option<&'a Base<check::TextBase>>,
    parts: &'a [Counted],
}

impl Model<'_> {
    /// Tokens, frames or vectors that a unit of `batch.max_length` becomes, and those of an item beside them.
    fn tokens(&self) -> (Option<f64>, f64) {
        match &self.recipe.model {
            ModelConfig::Text(_) => (Some(1.0), 0.0),
            ModelConfig::Ctc(config) => {
                (Some(config.features.rate_hz() / config.encoder.stride() as f64), 0.0)
            }
            ModelConfig::Connector(config) => {
                let ConnectorConfig::Slm(slm) = &config.connector;
                let rate = self.encoder.and_then(Base::rate_hz);
                (rate.map(|rate| rate / slm.reduction.max(1) as f64), TEXT_TOKENS_AN_ITEM)
            }
        }
    }

    /// The layers of every part over a full batch of equal items; `all` with an encoder that is heard once.
    /// None where a declared part does not say its rate.
    fn layers(&self, stage: &StageConfig, all: bool) -> Option<Vec<PartLayers<'_>>> {
        let n = stage.batch.max_items as f64;
        let units = stage.batch.max_length / n.max(1.0);
        let layers = match &self.recipe.model {
            ModelConfig::Text(config) => {
                let n_tokens = config.tokenizer.vocab_size;
                let batch = Batch::new(n, units);
                vec![cost::language_model(&config.language_model, n_tokens, &batch)]
            }
            ModelConfig::Ctc(config) => {
                let n_mels = FeatureExtractor::new(&config.features).ok()?.n_mels();
                let rate = config.features.rate_hz() / config.encoder.stride() as f64;
                let batch = Batch::new(n, units * rate);
                // The head has a row of the weight and an entry of the bias for every output.
                let d = config.encoder.d_encoder();
                let outputs = self.parts.get(1)?.n_parameters() / (d as u64 + 1);
                let aligned = stage.loss.alignment > 0.0;
                let rows = n * batch.rows;
                vec![
                    cost::encoder(&config.encoder, n_mels, &batch),
                    cost::ctc_head(d, outputs as f64, aligned, rows),
                ]
            }
            ModelConfig::Connector(config) => {
                let frames = units * self.encoder?.rate_hz()?;
                let (vectors, text) = self.tokens();
                let vectors = Batch::new(n, units * vectors?);
                let spoken =
                    Batch { tails: text * ANSWER_SHARE, ..Batch::new(n, vectors.rows + text) };
                let heard = match self.encoder? {
                    _ if !all && !learns(self.parts, "encoder", &trainable(self.recipe)) => {
                        Vec::new()
                    }
                    Base::Known(speech) => {
                        cost::encoder(&speech.encoder, speech.n_mels, &Batch::new(n, frames))
                    }
                    Base::Declared { n_parameters, .. } => {
                        cost::declared(*n_parameters, n * frames)
                    }
                };
                let lm = self.language_model?;
                let read = match lm {
                    Base::Known(text) => {
                        cost::language_model(&text.transformer, text.n_tokens, &spoken)
                    }
                    Base::Declared { n_parameters, .. } => {
                        cost::declared(*n_parameters, n * spoken.rows)
                    }
                };
                let width = self.encoder?.width();
                vec![heard, cost::connector(&config.connector, width, lm.width(), &vectors), read]
            }
        };
        let text = matches!(self.recipe.model, ModelConfig::Text(_));
        let branches = self.parts.iter().find(|part| part.name == LORA);
        let branches = branches.and_then(|part| match &part.size {
            Size::Listed(list) => Some(list),
            Size::Declared { .. } => None,
        });
        // Branches have no layers of their own: they are counted where they are.
        let layers = layers.into_iter().chain(branches.map(|_| Vec::new()));
        let parts = layers.zip(self.parts).map(|(layers, part)| PartLayers {
            prefix: if text { String::new() } else { format!("{}.", part.name) },
            layers,
            list: match &part.size {
                Size::Listed(list) => Some(list),
                Size::Declared { .. } => None,
            },
            branches,
            trained: part.n_trained(&stage.trainable) > 0,
        });
        Some(parts.collect())
    }

    /// One batch of a stage.
    fn step(&self, stage: &StageConfig, all: bool) -> Option<cost::Step> {
        let parts = self.layers(stage, all)?;
        Some(cost::step(&parts, stage.gradient_checkpointing, |name| {
            is_trained(&stage.trainable, name)
        }))
    }

    /// Operations of every part in a stage.
    fn work(&self, stage: &StageConfig, n_items: Option<usize>) -> Option<Vec<Work>> {
        let (step, all) = (self.step(stage, false)?, self.step(stage, true)?);
        let n = stage.batch.accumulate as f64;
        let heard = n * stage.steps as f64;
        // How often the stage hears an item, where that is known.
        let passes = n_items.map_or(1.0, |n_items| {
            (heard * stage.batch.max_items as f64 / n_items.max(1) as f64).max(1.0)
        });
        let parts = self.parts.iter().zip(step.parts.iter().zip(&all.parts));
        let work = parts.map(|(part, (step, all))| Work {
            part: part.name.to_owned(),
            forward: n * step.forward,
            backward: n * step.backward,
            once: (all.forward - step.forward) * heard / passes,
        });
        Some(work.collect())
    }

    /// Memory of a stage, beside the weights: gradients and moments of every part, what backward keeps, and the
    /// most of it at once.
    fn memory(&self, stage: &StageConfig) -> StageMemory {
        let step = self.step(stage, false);
        let known = self.parts.iter().all(|part| matches!(part.size, Size::Listed(_)));
        let copies = gradient_copies(stage);
        let at_once = stage.batch.replicas.min(stage.batch.accumulate).max(1) as f64;
        let bytes = |values: f64| (values * F32 as f64) as u64;
        let parts: Vec<PartMemory> = self
            .parts
            .iter()
            .enumerate()
            .map(|(i, part)| PartMemory {
                gradients: part.n_trained(&stage.trainable).saturating_mul(copies * F32),
                moments: part.n_kept(stage).saturating_mul(F32),
                activations: match (&part.size, &step) {
                    (Size::Listed(_), Some(step)) => Some(bytes(at_once * step.parts[i].kept)),
                    _ => None,
                },
            })
            .collect();
        let sum = |of: fn(&PartMemory) -> u64| total(parts.iter().map(of));
        let activations = known.then_some(sum(|part| part.activations.unwrap_or(0)));
        let (gradients, moments) = (sum(|part| part.gradients), sum(|part| part.moments));
        let trained = total(self.parts.iter().map(|part| part.n_trained(&stage.trainable)));
        let passing = match (&step, known) {
            (Some(step), true) => bytes(at_once_bytes(stage, step.peak, trained as f64)),
            _ => gradients.saturating_add(activations.unwrap_or(0)),
        };
        StageMemory { parts, activations, total: passing.saturating_add(moments) }
    }
}

/// Bytes of a part in a stage.
struct PartMemory {
    gradients: u64,
    moments: u64,
    activations: Option<u64>,
}

/// Bytes of a stage, without weights.
struct StageMemory {
    parts: Vec<PartMemory>,
    activations: Option<u64>,
    total: u64,
}

/// The most values of activations and gradients at once, when a batch has at most `peak` and gives
/// `gradients`. A replica holds the gradients of its batches until all are done.
fn at_once_bytes(stage: &StageConfig, peak: f64, gradients: f64) -> f64 {
    let n = stage.batch.accumulate as f64;
    let replicas = (stage.batch.replicas.min(stage.batch.accumulate)).max(1) as f64;
    if replicas > 1.0 {
        ((n - replicas) * gradients + replicas * peak).max(n * gradients)
    } else if n > 1.0 {
        gradients + peak
    } else {
        peak
    }
}

/// Copies of the gradients that live at once: the sum and the newest one, or those of all batches
/// when replicas wait for each other.
fn gradient_copies(stage: &StageConfig) -> u64 {
    match (stage.batch.accumulate, stage.batch.replicas) {
        (1, _) => 1,
        (_, 0 | 1) => 2,
        (n, _) => 1 + n as u64,
    }
}

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
                let frames = duration_s * 100.0 / config.encoder.stride() as f64;
                cost::ctc_lattice(frames * config.ctc.steps_per_frame as f64, duration_s) as u64
            }
            ModelConfig::Text(_) | ModelConfig::Connector(_) => 0,
        },
    };
    let audio = !matches!(recipe.model, ModelConfig::Text(_));
    let (per_unit, per_item) = model.tokens();

    let stages = recipe
        .stages
        .iter()
        .zip(n_items)
        .map(|(stage, &n_items)| {
            let n_batches = stage.batch.accumulate as f64;
            let units = n_batches * stage.batch.max_length;
            let tokens = per_unit.map(|per_unit| {
                let items = n_batches * stage.batch.max_items as f64;
                units * per_unit + items * per_item
            });
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
