//! Plans: what a recipe would do, checked and counted before anything is trained.
//!
//! ```text
//! Recipe ─ check ─┬─ every problem, all at once
//!                 └─ Plan: parameters of each part, memory, seconds and tokens of each stage
//! ```
//!
//! Nothing is allocated and nothing is spoken. Files that a recipe names are opened: a base model's
//! directory is verified, a manifest read.

pub(crate) mod check;
pub(crate) mod count;
mod text;

use std::path::Path;

use sandhi_data::features::FeatureExtractor;
use sandhi_nn::{
    connector::{ConnectorConfig, Widths},
    encoder::EncoderConfig,
    lora::LoraConfig,
    pattern,
    transformer::TransformerConfig,
    weights::WeightType,
};
use serde::Serialize;

use self::{
    check::{Base, Checked},
    count::{Entry, Inventory},
};
use crate::{
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
    /// Whether it can be trained: false when a base is only declared.
    pub trainable: bool,
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
    /// Bytes of gradients, f32, in the stage that has most of them.
    pub gradient_bytes: u64,
    /// Bytes of what the optimizer keeps in that stage, f32: two moments for AdamW, one velocity for Muon.
    pub moment_bytes: u64,
}

/// Bytes that training needs, apart from data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Memory {
    /// Weights of all parts.
    pub weight_bytes: u64,
    /// Gradients of the stage that has most of them.
    pub gradient_bytes: u64,
    /// What the optimizer keeps in that stage.
    pub moment_bytes: u64,
    /// An estimate of what the backward pass keeps of the largest batch; none where a part is only
    /// declared.
    pub activation_bytes: Option<u64>,
    /// How that was estimated.
    pub activation_formula: &'static str,
    /// Sum of all that is known.
    pub total_bytes: u64,
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
}

/// Bytes of an f32.
const F32: u64 = 4;

/// Instruction and answer tokens that an item of speech is estimated to have.
const TEXT_TOKENS_AN_ITEM: f64 = 48.0;

const FORMULA: &str = "f32 values that backward keeps for each row of the largest batch, times \
    replicas: a transformer block 5 d + 2 d_q + 2 d_kv + 3 d_ff (SwiGLU) or + 2 d_ff (GELU), a Conformer \
    block 19 d + 4 d_ff, 2 n_symbols a scored row, 2 r a LoRA branch; with \
    gradient_checkpointing d for every block and all of one block; an item of speech has 48 tokens of text besides";

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

/// Resolves and checks a recipe whose relative paths start at `base`.
///
/// # Errors
///
/// Everything that is wrong with it and can be known before training.
pub fn plan(recipe: &Recipe, base: &Path) -> Result<Plan, Problems> {
    let Checked { mut problems, mut warnings, encoder, language_model, n_items } =
        check::check(recipe, base);
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
        return Err(Problems(problems));
    };
    nothing_masked(recipe, &parts, &mut warnings);
    let stages = trainable(recipe);
    if parts.iter().any(|part| part.name == LORA && part.n_ever_trained(&stages) == 0) {
        warnings.push("model.lora: no stage trains it; trainable may have \"*lora_*\"".into());
    }
    let shapes: Vec<Shape> = recipe
        .stages
        .iter()
        .map(|stage| {
            let kept = Kept { again: stage.gradient_checkpointing };
            Shape::of(recipe, encoder.as_ref(), language_model.as_ref(), &parts, kept)
        })
        .collect();
    Ok(assemble(recipe, warnings, &n_items, &parts, &shapes))
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

/// What the lengths and activations of a batch follow from.
struct Shape {
    /// Values that backward keeps for a second of audio, a token of text, and an item.
    kept_per_unit: Option<f64>,
    kept_per_item: f64,
    /// Tokens or vectors that a second of audio becomes; 1 for text.
    tokens_per_unit: Option<f64>,
    tokens_per_item: f64,
    audio: bool,
}

/// What the blocks of a stage keep.
#[derive(Clone, Copy)]
struct Kept {
    /// Their inputs alone; only one block at a time keeps everything, while it runs again.
    again: bool,
}

impl Kept {
    /// Values of a row through `n_layers` blocks of width `d`, of which each computes `block` values.
    fn blocks(self, n_layers: usize, d: usize, block: f64) -> f64 {
        if self.again && n_layers > 0 {
            (n_layers * d) as f64 + block
        } else {
            n_layers as f64 * block
        }
    }
}

/// Values that each row leaves in a stack of blocks, with `branches` in all of its branches.
fn transformer_row(config: &TransformerConfig, branches: f64, kept: Kept) -> f64 {
    let d_q = config.n_heads * config.head_width();
    let d_kv = config.kv_heads() * config.head_width();
    let block = (5 * config.d_model + 2 * d_q + 2 * d_kv + 3 * config.d_ff) as f64;
    let branches = branches / config.n_layers.max(1) as f64;
    kept.blocks(config.n_layers, config.d_model, block + branches)
}

/// Twice the rank for every branch below a name.
fn lora_row(recipe: &Recipe, parts: &[Counted], below: &str) -> f64 {
    let rank = lora(recipe).map_or(0, |config| config.rank);
    let factors = |part: &Counted| match &part.size {
        Size::Listed(list) => list.0.iter().filter(|entry| entry.name.starts_with(below)).count(),
        Size::Declared { .. } => 0,
    };
    let n_factors: usize = parts.iter().filter(|part| part.name == LORA).map(factors).sum();
    (n_factors * rank) as f64
}

fn encoder_row(config: &EncoderConfig, branches: f64, kept: Kept) -> f64 {
    let (n_layers, d, block) = match config {
        EncoderConfig::Conformer(c) => (c.n_layers, c.d_model, 19 * c.d_model + 4 * c.d_ff),
        EncoderConfig::Whisper(c) => (c.n_layers, c.d_model, 9 * c.d_model + 2 * c.d_ff),
    };
    kept.blocks(n_layers, d, block as f64 + branches / n_layers.max(1) as f64)
}

fn connector_row(config: &ConnectorConfig, kept: Kept) -> (f64, f64) {
    match config {
        ConnectorConfig::Slm(c) => {
            let block = (9 * c.d_hidden + 2 * c.d_ff) as f64;
            (kept.blocks(c.n_layers, c.d_hidden, block), c.reduction.max(1) as f64)
        }
    }
}

impl Shape {
    fn of(
        recipe: &Recipe,
        encoder: Option<&Base<check::SpeechBase>>,
        language_model: Option<&Base<check::TextBase>>,
        parts: &[Counted],
        kept: Kept,
    ) -> Self {
        match &recipe.model {
            ModelConfig::Text(config) => Self {
                kept_per_unit: Some(
                    transformer_row(
                        &config.language_model,
                        lora_row(recipe, parts, "model."),
                        kept,
                    ) + 2.0 * config.tokenizer.vocab_size as f64,
                ),
                kept_per_item: 0.0,
                tokens_per_unit: Some(1.0),
                tokens_per_item: 0.0,
                audio: false,
            },
            ModelConfig::Ctc(config) => {
                let rate = 100.0 / config.encoder.stride() as f64;
                // The head has a row of the weight and an entry of the bias for every output.
                let d = config.encoder.d_encoder() as u64;
                let outputs = parts.get(1).map_or(0, Counted::n_parameters) / (d + 1);
                Self {
                    kept_per_unit: Some(
                        rate * (encoder_row(&config.encoder, 0.0, kept) + 2.0 * outputs as f64),
                    ),
                    kept_per_item: 0.0,
                    tokens_per_unit: Some(rate),
                    tokens_per_item: 0.0,
                    audio: true,
                }
            }
            ModelConfig::Connector(config) => {
                let (per_vector, reduction) = connector_row(&config.connector, kept);
                let rate = encoder.and_then(Base::rate_hz);
                let vectors = rate.map(|rate| rate / reduction);
                let lm = match language_model {
                    Some(Base::Known(text)) => {
                        let branches = lora_row(recipe, parts, "language_model.");
                        let row = transformer_row(&text.transformer, branches, kept);
                        Some((row, 2.0 * text.n_tokens as f64))
                    }
                    _ => None,
                };
                // A frozen encoder is heard once and keeps nothing.
                let trains = learns(parts, "encoder", &trainable(recipe));
                let heard = match encoder {
                    _ if !trains => Some(0.0),
                    Some(Base::Known(speech)) => {
                        let branches = lora_row(recipe, parts, "encoder.");
                        rate.map(|rate| rate * encoder_row(&speech.encoder, branches, kept))
                    }
                    _ => None,
                };
                let kept = (|| Some(heard? + vectors? * (per_vector + lm?.0)))();
                // A third of an item's text is its answer, whose rows are scored.
                let item =
                    lm.map_or(0.0, |(row, scored)| TEXT_TOKENS_AN_ITEM * (row + scored / 3.0));
                Self {
                    kept_per_unit: kept,
                    kept_per_item: item,
                    tokens_per_unit: vectors,
                    tokens_per_item: TEXT_TOKENS_AN_ITEM,
                    audio: true,
                }
            }
        }
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
    counted: &[Counted],
    shapes: &[Shape],
) -> Plan {
    let n_parameters = total(counted.iter().map(Counted::n_parameters));
    let all = trainable(recipe);
    // The stage that needs most for gradients and moments.
    let heaviest = recipe.stages.iter().max_by_key(|stage| {
        let learning = total(counted.iter().map(|part| part.n_trained(&stage.trainable)));
        let kept = total(counted.iter().map(|part| part.n_kept(stage)));
        learning.saturating_mul(gradient_copies(stage)).saturating_add(kept)
    });
    let parts: Vec<Part> = counted
        .iter()
        .map(|part| {
            let n = part.n_parameters();
            let gradients = heaviest.map_or(0, |stage| {
                part.n_trained(&stage.trainable).saturating_mul(gradient_copies(stage))
            });
            let kept = heaviest.map_or(0, |stage| part.n_kept(stage));
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
                gradient_bytes: gradients.saturating_mul(F32),
                moment_bytes: kept.saturating_mul(F32),
            }
        })
        .collect();

    let activations = recipe.stages.iter().zip(shapes).map(|(stage, shape)| {
        let batch = &stage.batch;
        let per_batch =
            batch.max_length * shape.kept_per_unit? + batch.max_items as f64 * shape.kept_per_item;
        let at_once = batch.replicas.min(batch.accumulate).max(1) as f64;
        Some((per_batch * at_once * F32 as f64) as u64)
    });
    let activation_bytes =
        activations.collect::<Option<Vec<u64>>>().and_then(|v| v.into_iter().max());
    let sum = |of: fn(&Part) -> u64| total(parts.iter().map(of));
    let (weight_bytes, gradient_bytes, moment_bytes) =
        (sum(|p| p.weight_bytes), sum(|p| p.gradient_bytes), sum(|p| p.moment_bytes));
    let memory = Memory {
        weight_bytes,
        gradient_bytes,
        moment_bytes,
        activation_bytes,
        activation_formula: FORMULA,
        total_bytes: total(
            [weight_bytes, gradient_bytes, moment_bytes, activation_bytes.unwrap_or(0)].into_iter(),
        ),
    };

    let stages = recipe
        .stages
        .iter()
        .zip(n_items.iter().zip(shapes))
        .map(|(stage, (&n_items, shape))| {
            let n_batches = stage.batch.accumulate as f64;
            let units = n_batches * stage.batch.max_length;
            let tokens = shape.tokens_per_unit.map(|per_unit| {
                let items = n_batches * stage.batch.max_items as f64;
                units * per_unit + items * shape.tokens_per_item
            });
            StagePlan {
                name: stage.name.clone(),
                steps: stage.steps,
                n_trained: total(counted.iter().map(|part| part.n_trained(&stage.trainable))),
                n_items,
                batches_per_step: stage.batch.accumulate,
                audio_s_per_step: shape.audio.then_some(units),
                audio_h: shape.audio.then_some(units * stage.steps as f64 / 3600.0),
                tokens_per_step: tokens.map(|n| n as u64),
                tokens: tokens.map(|n| (n * stage.steps as f64) as u64),
            }
        })
        .collect();
    Plan {
        name: recipe.name.clone(),
        about: recipe.about.clone(),
        kind: check::kind(&recipe.model),
        seed: recipe.seed,
        trainable: counted.iter().all(|part| matches!(part.size, Size::Listed(_))),
        n_trained: sum(|part| part.n_trained),
        parts,
        n_parameters,
        memory,
        stages,
        warnings,
    }
}

#[cfg(test)]
mod tests;
