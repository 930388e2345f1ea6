//! The parts of a model with their parameters: those of its modules by name, or what a recipe declares.
//!
//! ```text
//! encoder ─ connector ─ language_model        named as the trainer names them, so that patterns can be tried
//!     └── lora: branches beside the layers of both
//! ```

use std::path::Path;

use sandhi_data::{
    features::FeatureExtractor,
    text::{JointVocabulary, Mode, Tokenizer},
};
use sandhi_nn::{
    aligner::Hears, connector::Widths, lora::LoraConfig, pattern, weights::WeightType,
};

use super::{
    F32,
    check::{Base, SpeechBase, TextBase},
    count::{self, Entry, Inventory},
    total,
};
use crate::{
    model::samples_per_unit,
    recipe::{
        MatrixRule, ModelConfig, PadMass, Recipe, SpeechUnitsConfig, StageConfig, UnitsConfig,
    },
    sources::{Workshop, resolve},
    train::{is_covered, is_ever_trained, is_trained, optimizer::is_hidden_matrix, trainable},
    units::Kmeans,
};

/// A part while it is counted.
pub(super) struct Counted {
    pub(super) name: &'static str,
    pub(super) size: Size,
    /// How matrices are held.
    pub(super) dtype: WeightType,
}

/// What is known of a part's parameters.
pub(super) enum Size {
    Listed(Inventory),
    /// Only what the recipe declares.
    Declared {
        label: String,
        n_parameters: u64,
    },
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

    /// Rows of the first tensor whose name ends so, where the part is known.
    pub(super) fn rows_of(&self, name: &str) -> Option<usize> {
        let Size::Listed(list) = &self.size else { return None };
        let entry = list.0.iter().find(|entry| entry.name.ends_with(name))?;
        entry.shape.first().copied()
    }

    pub(super) fn weight_bytes(&self) -> u64 {
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

    pub(super) fn n_parameters(&self) -> u64 {
        match &self.size {
            Size::Listed(list) => list.n_values(),
            Size::Declared { n_parameters, .. } => *n_parameters,
        }
    }

    /// Parameters that patterns of `trainable` cover.
    pub(super) fn n_trained(&self, patterns: &[String]) -> u64 {
        self.weighed(|name| is_trained(patterns, name), 1, |_| 1)
    }

    /// Parameters that some stage trains.
    pub(super) fn n_ever_trained(&self, stages: &[Vec<String>]) -> u64 {
        self.weighed(|name| is_ever_trained(stages, name), 1, |_| 1)
    }

    /// Values that the optimizer of a stage keeps: two moments for AdamW, one velocity for Muon. What is
    /// only declared counts as AdamW's.
    pub(super) fn n_kept(&self, stage: &StageConfig) -> u64 {
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

/// The parts of the model with their parameters.
pub(super) fn counted(
    recipe: &Recipe,
    base: &Path,
    encoder: Option<&Base<SpeechBase>>,
    language_model: Option<&Base<TextBase>>,
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
            let n_symbols = n_symbols(recipe, base, stage, problems)?;
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
            let mut parts = vec![speech, Counted::known("connector", connector), text];
            if recipe.stages.iter().any(|stage| stage.loss.token_ctc > 0.0) {
                let n_tokens = match lm {
                    Base::Known(text) => text.n_tokens,
                    Base::Declared { .. } => {
                        problems.push("token_ctc: a declared language model has no tokens".into());
                        return None;
                    }
                };
                let list = count::token_ctc_head(lm.width(), n_tokens);
                let (name, size) = (count::TOKEN_CTC, Size::Listed(list));
                parts.push(Counted { name, size, dtype: WeightType::F32 });
            }
            Some(parts)
        }
        ModelConfig::Aligner(config) => {
            let n_mels = FeatureExtractor::new(&config.features).ok()?.n_mels();
            let n_symbols = n_symbols(recipe, base, recipe.stages.first()?, problems)?;
            let hears = match &config.units {
                None => Hears::Frames(config.window.width(n_mels)),
                Some(UnitsConfig::Fit { n, .. }) => Hears::Units(*n),
                Some(UnitsConfig::File { path, n }) => {
                    Hears::Units(n_centers(path, *n, recipe, base)?)
                }
            };
            // Here the aligner is the whole model, and its names have no prefix.
            let size = Size::Listed(count::aligner(&config.aligner, n_symbols, hears));
            Some(vec![Counted { name: ALIGNER, size, dtype: WeightType::F32 }])
        }
        ModelConfig::Vocoder(config) => {
            let samples_per_unit = samples_per_unit(encoder?.frames()?.a_second)?;
            let n_units = n_units(&config.units, recipe, base)?;
            // Here the vocoder is the whole model, and its names have no prefix.
            let list = count::vocoder(&config.vocoder, n_units, samples_per_unit);
            Some(vec![Counted { name: VOCODER, size: Size::Listed(list), dtype: WeightType::F32 }])
        }
        ModelConfig::SpeechText(config) => {
            let n_units = n_units(&config.units, recipe, base)?;
            let n_units = n_units + config.unit_merges.unwrap_or(0) as usize;
            let n_tokens = match (&config.tokenizer, language_model) {
                (Some(tokenizer), _) => tokenizer.vocab_size + Mode::ALL.len() + n_units,
                (None, Some(Base::Known(TextBase { tokenizer: Some(path), .. }))) => {
                    let tokenizer = Tokenizer::load(path).ok()?;
                    JointVocabulary::n_tokens_beside(&tokenizer, n_units)
                }
                (None, Some(Base::Known(text))) => text.n_tokens + Mode::ALL.len() + n_units,
                (None, _) => return None,
            };
            // Here the parts are those of one network, and their names have no prefix.
            let parts = count::network(&config.network, n_tokens).into_iter();
            let counted = parts.map(|(name, list)| Counted {
                name,
                size: Size::Listed(list),
                dtype: WeightType::F32,
            });
            Some(counted.collect())
        }
    }
}

/// How many units there are; none where they are in a file that cannot be read.
fn n_units(config: &SpeechUnitsConfig, recipe: &Recipe, base: &Path) -> Option<usize> {
    Some(match config {
        SpeechUnitsConfig::Files { n } => *n as usize,
        SpeechUnitsConfig::Encoder { centers: UnitsConfig::Fit { n, .. }, .. } => *n,
        SpeechUnitsConfig::Encoder { centers: UnitsConfig::File { path, n }, .. } => {
            n_centers(path, *n, recipe, base)?
        }
    })
}

/// The centers of a file, or as many as the recipe says.
fn n_centers(path: &str, n: Option<usize>, recipe: &Recipe, base: &Path) -> Option<usize> {
    let path = resolve(path, base, &recipe.paths);
    Kmeans::read(&path).ok().map(|kmeans| kmeans.n_clusters()).or(n)
}

/// Name of the only part of a vocoder model.
pub(super) const VOCODER: &str = "vocoder";

/// Name of the only part of an aligner model.
pub(super) const ALIGNER: &str = "aligner";

/// The symbols are those of the transcripts, which only exist when the sources are right.
fn n_symbols(
    recipe: &Recipe,
    base: &Path,
    stage: &StageConfig,
    problems: &mut Vec<String>,
) -> Option<usize> {
    if !problems.is_empty() {
        return Some(1);
    }
    match Workshop::new(Path::new(""), base, recipe).symbols(stage) {
        Ok(symbols) => Some(symbols.n_symbols()),
        Err(error) => {
            problems.push(error.to_string());
            None
        }
    }
}

/// Name of the part that holds the low-rank branches.
pub(super) const LORA: &str = "lora";

/// The `[model.lora]` table.
pub(super) fn lora(recipe: &Recipe) -> Option<&LoraConfig> {
    match &recipe.model {
        ModelConfig::Text(config) => config.lora.as_ref(),
        ModelConfig::Connector(config) => config.lora.as_ref(),
        ModelConfig::Ctc(_)
        | ModelConfig::Aligner(_)
        | ModelConfig::SpeechText(_)
        | ModelConfig::Vocoder(_) => None,
    }
}

/// The low-rank branches as a part of their own.
pub(super) fn branches(
    config: &LoraConfig,
    parts: &[Counted],
    problems: &mut Vec<String>,
) -> Option<Counted> {
    let mut all = Inventory::default();
    let bases = parts.iter().filter(|part| ["encoder", "language_model"].contains(&part.name));
    for part in bases {
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

/// Whether some stage trains a part of the model, its branches included.
pub(super) fn learns(parts: &[Counted], name: &str, stages: &[Vec<String>]) -> bool {
    let below = format!("{name}.");
    let trained = |n: &str| n.starts_with(&below) && is_ever_trained(stages, n);
    parts.iter().any(|part| part.weighed(trained, 1, |_| 1) > 0)
}

/// The pad's mass follows from blanks of an encoder that is heard once.
pub(super) fn blanks(recipe: &Recipe, parts: &[Counted], problems: &mut Vec<String>) {
    if !learns(parts, "encoder", &trainable(recipe)) {
        return;
    }
    for (i, stage) in recipe.stages.iter().enumerate() {
        if stage.loss.transport.as_ref().is_some_and(|config| config.pad == PadMass::Blank) {
            problems.push(format!(
                "stage[{i}].loss.transport.pad: \"blank\" needs an encoder that no stage trains; expected \"target\", \
                 \"none\" or {{ share = S }}"
            ));
        }
    }
}

/// Text beside speech teaches the language model alone.
pub(super) fn written(recipe: &Recipe, parts: &[Counted], problems: &mut Vec<String>) {
    for (i, stage) in recipe.stages.iter().enumerate() {
        let source = stage.sources.iter().find(|source| source.is_written());
        let Some(source) = source.filter(|_| matches!(recipe.model, ModelConfig::Connector(_)))
        else {
            continue;
        };
        let mut wrong = |why| {
            let kind = source.kind();
            problems.push(format!("stage[{i}].data: source {kind:?} teaches nothing: {why}"));
        };
        if !learns(parts, "language_model", std::slice::from_ref(&stage.trainable)) {
            wrong("the stage trains nothing of the language model");
        }
        if stage.loss.text == 0.0 {
            wrong("loss.text is 0");
        }
    }
}

/// Patterns of `trainable` that match nothing, or what cannot be trained.
pub(super) fn patterns(recipe: &Recipe, parts: &[Counted], problems: &mut Vec<String>) {
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
