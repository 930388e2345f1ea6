//! Everything about a recipe that can be wrong and be known before training.
//!
//! ```text
//! recipe ─┬─ model ── bases      sizes that fit each other, and those of what it begins with
//!         ├─ stage ── sources    steps, batch, optimizer; what is learned from
//!         └─ eval ─── sources    what is asked
//! ```
//!
//! A `Checker` goes through all of it and stops at no problem.

mod bases;
mod model;
mod sources;
mod stage;

use std::path::{Path, PathBuf};

use sandhi_data::microworld::Microworld;

pub(super) use self::bases::{Base, Frames, SpeechBase, TextBase};
use crate::{
    hf::Hub,
    recipe::{ModelConfig, Recipe},
    sources::{WORLD_SEED, resolve},
};

/// What checking found.
pub(super) struct Checked {
    pub(super) problems: Vec<String>,
    pub(super) warnings: Vec<String>,
    /// What has to be given or fetched before it can be trained.
    pub(super) missing: Vec<String>,
    /// The bases of a connector model, where they are right.
    pub(super) encoder: Option<Base<SpeechBase>>,
    pub(super) language_model: Option<Base<TextBase>>,
    /// Items of each stage, where they can be told.
    pub(super) n_items: Vec<Option<usize>>,
}

/// The kind of a model in a word.
pub(super) fn kind(model: &ModelConfig) -> &'static str {
    match model {
        ModelConfig::Ctc(_) => "ctc",
        ModelConfig::Text(_) => "text",
        ModelConfig::Connector(_) => "connector",
        ModelConfig::Aligner(_) => "aligner",
        ModelConfig::SpeechText(_) => "speech_text",
        ModelConfig::Vocoder(_) => "vocoder",
    }
}

/// Whether a problem concerns the model's sizes.
pub(super) fn model_is_wrong(problems: &[String]) -> bool {
    problems.iter().any(|problem| problem.starts_with("model"))
}

/// More items than this are a typing mistake, and would be made before it is noticed.
const MOST_ITEMS: usize = 10_000_000;
/// More layers than this are a typing mistake.
pub(crate) const MOST_LAYERS: usize = 10_000;
/// Wider than this is one too.
pub(crate) const LARGEST_SIZE: usize = 1 << 30;

pub(super) fn check(recipe: &Recipe, base: &Path, hub: &Hub) -> Checked {
    let mut checker = Checker {
        recipe,
        base,
        hub,
        world: Microworld::new(WORLD_SEED),
        problems: Vec::new(),
        warnings: Vec::new(),
        missing: Vec::new(),
    };
    let (encoder, language_model) = checker.model();
    let n_items = recipe
        .stages
        .iter()
        .enumerate()
        .map(|(i, stage)| checker.stage(&format!("stage[{i}]"), stage))
        .collect();
    if recipe.stages.is_empty() {
        checker.problem("stage", "found none, expected at least one [[stage]]");
    }
    if let Some(eval) = &recipe.eval {
        checker.eval(eval);
    }
    checker.masks(encoder.as_ref());
    checker.depths(language_model.as_ref());
    let Checker { mut problems, warnings, mut missing, .. } = checker;
    let is_connector = matches!(recipe.model, ModelConfig::Connector(_));
    if is_connector && (encoder.is_none() || language_model.is_none()) {
        // Without sizes there is nothing to plan with.
        problems.append(&mut missing);
    }
    Checked { problems, warnings, missing, encoder, language_model, n_items }
}

struct Checker<'a> {
    recipe: &'a Recipe,
    base: &'a Path,
    hub: &'a Hub,
    world: Microworld,
    problems: Vec<String>,
    warnings: Vec<String>,
    missing: Vec<String>,
}

impl Checker<'_> {
    fn problem(&mut self, place: &str, what: impl std::fmt::Display) {
        self.problems.push(format!("{place}: {what}"));
    }

    fn need(&mut self, holds: bool, place: &str, what: impl std::fmt::Display) {
        if !holds {
            self.problem(place, what);
        }
    }

    fn at_least_one(&mut self, place: &str, field: &str, value: usize) {
        self.need(value > 0, place, format_args!("{field} is 0, expected at least 1"));
    }

    /// A number of things that are made one by one.
    fn counts(&mut self, place: &str, field: &str, value: usize) {
        self.at_least_one(place, field, value);
        self.need(
            value <= MOST_ITEMS,
            place,
            format_args!("{field} is {value}, expected at most {MOST_ITEMS}"),
        );
    }

    /// Sizes beyond every machine would only make a plan slow.
    fn sane(&mut self, place: &str, n_layers: usize, sizes: &[usize]) {
        self.need(
            n_layers <= MOST_LAYERS,
            place,
            format_args!("n_layers is {n_layers}, expected at most {MOST_LAYERS}"),
        );
        if let Some(size) = sizes.iter().find(|&&size| size > LARGEST_SIZE) {
            self.problem(place, format_args!("a size is {size}, expected at most {LARGEST_SIZE}"));
        }
    }

    /// A path of the recipe that exists; a folder that the command line has not given yet is missing.
    fn path(&mut self, place: &str, path: &str) -> Option<PathBuf> {
        let folder = path.strip_prefix('$').and_then(|rest| rest.split('/').next());
        if let Some(name) = folder.filter(|name| !self.recipe.paths.contains_key(*name)) {
            self.missing.push(format!(
                "{place}: ${name} stands for no folder, give it with --path {name}=DIR"
            ));
            return None;
        }
        let hint =
            folder.map_or(String::new(), |name| format!("; --path {name}=DIR says where it is"));
        let path = resolve(path, self.base, &self.recipe.paths);
        if !path.exists() {
            self.problem(place, format_args!("{} does not exist{hint}", path.display()));
            return None;
        }
        Some(path)
    }

    /// What a result holds; what is wrong is a problem.
    fn right<T>(&mut self, place: &str, found: Result<T, impl std::fmt::Display>) -> Option<T> {
        found.map_err(|error| self.problem(place, error)).ok()
    }
}
