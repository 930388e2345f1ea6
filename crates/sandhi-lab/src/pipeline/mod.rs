//! A recipe from start to end: data, stages, model directory.
//!
//! ```text
//! DIR/.lock                held by the process that writes here
//! DIR/recipe.json          the recipe after overrides; resuming with another one is refused
//! DIR/units.npy            centers of units that were fitted
//! DIR/unit_merges.json     byte-pair merges of units that were learned
//! DIR/unit_entropy.json    how uncertain the next unit is, where patches end by it
//! DIR/metrics.jsonl        one object a step
//! DIR/events/              the same for TensorBoard
//! DIR/checkpoints/step-…   the newest two
//! DIR/costs.json           time, memory and parameters of the stages
//! DIR/model/               the trained model, written at the end
//! DIR/results.json         what was measured
//! ```

mod aligner;
mod connector;
mod lock;
mod speech_text;
#[cfg(test)]
mod tests;
mod vocoder;

use std::{collections::BTreeSet, path::PathBuf};

use burn::prelude::*;
use sandhi_data::{features::FeatureExtractor, text::Tokenizer};
use sandhi_nn::{
    init::Init,
    lora,
    ops::recomputes,
    weights::{self, ParameterInfo, WeightType},
};

pub use self::connector::bases;
use self::{
    aligner::aligner,
    connector::connector,
    lock::{LOCK, RunLock},
    speech_text::speech_text,
    vocoder::vocoder,
};
use crate::{
    chat::{Chat, MARKERS},
    checkpoint::{self, Checkpoint, write_atomically},
    costs::Costs,
    hf::{self, Hub},
    model::{self, AnyModel, CtcNet, Recognizer, SpeechModel, TextModel},
    recipe::{CtcModelConfig, ModelConfig, Recipe, TextModelConfig},
    sources::{self, Prepared, Workshop},
    train::{
        self, Monitor, Outcome, Run, RunState,
        dataset::Dataset,
        learner::Learner,
        shared::{Shared, SharedStages},
    },
    units::{FitConfig, Kmeans},
};

/// What can go wrong while a recipe runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Training failed.
    #[error(transparent)]
    Train(#[from] train::Error),
    /// The connector lacks what it listens to.
    #[error("model: {0}")]
    Aids(String),
    /// Data could not be made ready.
    #[error(transparent)]
    Sources(#[from] sources::Error),
    /// A model directory cannot be read or written.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// A published checkpoint cannot be loaded.
    #[error(transparent)]
    HuggingFace(#[from] hf::Error),
    /// A file of the run cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// Centers of units cannot be read.
    #[error("model.units: {0}")]
    Units(#[from] crate::units::Error),
    /// Centers of units cannot be found.
    #[error("model.units: {0}")]
    Fit(#[from] crate::units::FitError),
    /// Centers are of other frames than the encoder's.
    #[error("model.units.centers: of frames of width {found}, the encoder's have {expected}")]
    Centers {
        /// Width of the centers.
        found: usize,
        /// Width of the frames.
        expected: usize,
    },
    /// Merges or entropies of units cannot be learned, read or written.
    #[error(transparent)]
    Learned(#[from] sandhi_data::patching::LearnedError),
    /// Merges or entropies that were found before are of other units.
    #[error("{}: of other units than this run's; take the file away to learn it again", path.display())]
    OtherLearned {
        /// The file.
        path: PathBuf,
    },
    /// Neither or both say what the pieces of text are.
    #[error("model: expected either tokenizer or language_model")]
    NoTokenizer,
    /// The run's tokenizer is not that of the language model that it began as.
    #[error("{}: another tokenizer than model.language_model's; the run began as another model", path.display())]
    OtherTokenizer {
        /// The file.
        path: PathBuf,
    },
    /// The language model that the network is to begin as does not go where it says.
    #[error("model.language_model does not fit model.network:\n{0}")]
    BeginsAs(#[from] sandhi_nn::weights::Mismatch),
    /// The tokenizer cannot be made.
    #[error(transparent)]
    Text(#[from] sandhi_data::text::Error),
    /// The front end's settings are not possible.
    #[error(transparent)]
    Features(#[from] sandhi_data::features::Error),
    /// A weight does not fit into the type that it is to be held in.
    #[error("{which}.dtype: {why}")]
    Dtype {
        /// Which base.
        which: &'static str,
        /// Which weight.
        why: String,
    },
    /// The device cannot do what a stage asks for.
    #[error("stage {stage}: gradient_checkpointing runs on the CPU, the device is {device}")]
    Checkpointing {
        /// The stage.
        stage: String,
        /// What was given.
        device: String,
    },
    /// The output directory is in use.
    #[error("{dir} exists and is not empty; give another --out, or --resume to continue it")]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process writes there.
    #[error("{dir} is being written by another process")]
    Busy {
        /// The directory.
        dir: PathBuf,
    },
    /// There is nothing to continue.
    #[error("{dir} has no run to resume: {why}")]
    NothingToResume {
        /// The directory.
        dir: PathBuf,
        /// What is missing.
        why: String,
    },
    /// The directory belongs to another recipe.
    #[error("{dir} was started with another recipe; its recipe.json differs in: {fields}")]
    OtherRecipe {
        /// The directory.
        dir: PathBuf,
        /// Top-level fields that differ.
        fields: String,
    },
    /// The log of a stage cannot be read again.
    #[error("{path}: {source}")]
    Metrics {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The token for no content is none, or its embedding is not one that speech can be drawn to.
    #[error("model.pad_token {token:?}: {problem}")]
    Pad {
        /// The token.
        token: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A base has no weights.
    #[error("{which} is only declared ({name}); such a recipe can be planned, not trained")]
    Declared {
        /// Which base.
        which: &'static str,
        /// What it stands for.
        name: String,
    },
}

/// Where a recipe runs.
#[derive(Debug, Clone)]
pub struct Place {
    /// Output directory.
    pub dir: PathBuf,
    /// Continue what is there.
    pub resume: bool,
    /// Folder that the recipe's relative paths start at.
    pub base: PathBuf,
    /// Folder of speech and frames that are kept between runs.
    pub cache: PathBuf,
    /// Where tensors live, without autodiff.
    pub device: Device,
    /// Where published models come from.
    pub hub: Hub,
    /// Where stages are kept that other recipes begin with, too; every run trains its own where absent.
    pub shared: Option<SharedStages>,
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// The model, which also lies in `DIR/model`.
    Done(Box<AnyModel>),
    /// Saved before the end.
    Interrupted,
}

/// Claims or reopens the run directory for this process.
///
/// # Errors
///
/// When another process has it, it belongs to another recipe or is no run's, or the device cannot do what is asked for;
/// nothing was written then.
pub(crate) fn claim(recipe: &Recipe, place: &Place) -> Result<RunLock, Error> {
    if let Some(stage) = recipe.stages.iter().find(|stage| stage.gradient_checkpointing)
        && !recomputes(&place.device)
    {
        let (stage, device) = (stage.name.clone(), format!("{:?}", place.device));
        return Err(Error::Checkpointing { stage, device });
    }
    let take = || match RunLock::take(&place.dir)? {
        Some(lock) => Ok(lock),
        None => Err(Error::Busy { dir: place.dir.clone() }),
    };
    // Who began a run has the file: it is asked first, because the rest may be half-written.
    let held = if place.dir.join(LOCK).exists() { Some(take()?) } else { None };
    check_dir(place, recipe)?;
    let lock = held.map_or_else(take, Ok)?;
    if !place.resume {
        let text = serde_json::to_vec_pretty(recipe).expect("a recipe serializes");
        write_atomically(&place.dir.join("recipe.json"), &text)?;
    }
    Ok(lock)
}

/// Whether the directory is free, or that of this recipe where it is to be continued.
fn check_dir(place: &Place, recipe: &Recipe) -> Result<(), Error> {
    let file = place.dir.join("recipe.json");
    // What a killed start left half-written is nothing; what cannot be looked at is something.
    let is_nothing = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| {
            entry.path().extension().is_some_and(|e| e == "partial") || entry.file_name() == LOCK
        })
    };
    let empty = match std::fs::read_dir(&place.dir) {
        Ok(mut entries) => entries.all(is_nothing),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if !place.resume {
        if !empty {
            return Err(Error::Exists { dir: place.dir.clone() });
        }
        return Ok(());
    }
    let nothing =
        |why: &str| Error::NothingToResume { dir: place.dir.clone(), why: why.to_owned() };
    let stored = std::fs::read(&file).map_err(|_| nothing("recipe.json is missing"))?;
    let stored: serde_json::Value =
        serde_json::from_slice(&stored).map_err(|e| nothing(&format!("recipe.json: {e}")))?;
    let given = serde_json::to_value(recipe).expect("a recipe serializes");
    let (Some(stored), Some(given)) = (stored.as_object(), given.as_object()) else {
        return Err(nothing("recipe.json is no table"));
    };
    let fields: BTreeSet<&str> = given
        .keys()
        .chain(stored.keys())
        .filter(|key| stored.get(*key) != given.get(*key))
        .map(String::as_str)
        .collect();
    if !fields.is_empty() {
        let fields = fields.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Error::OtherRecipe { dir: place.dir.clone(), fields });
    }
    Ok(())
}

/// Runs all stages of a recipe and writes the model.
///
/// # Errors
///
/// See [`Error`].
pub fn run(recipe: &Recipe, place: &Place, monitor: &mut dyn Monitor) -> Result<End, Error> {
    let _lock = claim(recipe, place)?;
    train(recipe, place, monitor)
}

/// As [`run`], in a directory that is claimed.
pub(crate) fn train(
    recipe: &Recipe,
    place: &Place,
    monitor: &mut dyn Monitor,
) -> Result<End, Error> {
    let workshop = Workshop::new(&place.cache, &place.base, recipe);
    let model = match &recipe.model {
        ModelConfig::Text(config) => text(recipe, config, place, &workshop, monitor)?,
        ModelConfig::Ctc(config) => ctc(recipe, config, place, &workshop, monitor)?,
        ModelConfig::Connector(config) => connector(recipe, config, place, &workshop, monitor)?,
        ModelConfig::Aligner(config) => aligner(recipe, config, place, &workshop, monitor)?,
        ModelConfig::SpeechText(config) => speech_text(recipe, config, place, &workshop, monitor)?,
        ModelConfig::Vocoder(config) => vocoder(recipe, config, place, &workshop, monitor)?,
    };
    let Some(model) = model else { return Ok(End::Interrupted) };
    model.save_with(&place.dir.join("model"), &documents(recipe, place))?;
    Ok(End::Done(Box::new(model)))
}

/// What a model was made from, to lie beside it: the recipe, and the plan that it resolved to.
fn documents(recipe: &Recipe, place: &Place) -> Vec<(&'static str, serde_json::Value)> {
    const SERIALIZES: &str = "recipes and plans serialize";
    let recipe_json = serde_json::to_value(recipe).expect(SERIALIZES);
    let mut documents = vec![("recipe.json", recipe_json)];
    // What was trained from may have been moved meanwhile, which loses the plan and not the model.
    if let Ok(plan) = crate::plan::plan(recipe, &place.base, &place.hub) {
        documents.push(("plan.json", serde_json::to_value(plan).expect(SERIALIZES)));
    }
    documents
}

/// What tells apart what each stage learns from, where stages are shared: its sources' contents, and `also`.
fn marks(
    recipe: &Recipe,
    place: &Place,
    workshop: &Workshop,
    also: &str,
) -> Result<Vec<String>, Error> {
    if place.shared.is_none() {
        return Ok(Vec::new());
    }
    let mark = |stage| Ok(format!("{}{also}", workshop.mark(stage)?));
    recipe.stages.iter().map(mark).collect()
}

/// The centers of `(n, iterations)` units that this run has found, now or before it was interrupted.
fn fitted(
    recipe: &Recipe,
    place: &Place,
    monitor: &mut dyn Monitor,
    (n, iterations): (usize, usize),
    width: usize,
    frames: impl FnOnce() -> Result<Vec<f32>, Error>,
) -> Result<Kmeans, Error> {
    let path = place.dir.join("units.npy");
    if path.exists() {
        return Ok(Kmeans::read(&path)?);
    }
    monitor.note(&format!("finding {n} units"));
    let frames = frames()?;
    let fit = FitConfig { n_clusters: n, iterations, seed: recipe.seed };
    let mut said = String::new();
    let kmeans = Kmeans::fit(&frames, width, &fit, &mut |iteration| {
        said = format!(
            "mean squared distance {:.3} after {} iterations",
            iteration.mean_square, iteration.number
        );
    })?;
    let n_frames = frames.len() / width;
    monitor.note(&format!("{n} units of {n_frames} frames: {said}"));
    write_atomically(&path, &kmeans.to_npy())?;
    Ok(kmeans)
}

/// Runs the stages of one learner from where the run stands.
fn stages<L: Learner, D: Dataset<Batch = L::Batch>>(
    recipe: &Recipe,
    place: &Place,
    monitor: &mut dyn Monitor,
    mut net: L,
    sources: &[String],
    mut data: impl FnMut(usize, &mut dyn Monitor) -> Result<Prepared<D>, Error>,
) -> Result<Option<L>, Error> {
    let kept = train::trainable(recipe);
    let learns = |info: &ParameterInfo| train::is_ever_trained(&kept, &info.name);
    let trained = weights::parameters(&net).into_iter().filter(learns);
    let trained_parameters = trained.map(|info| info.n_values() as u64).sum();
    // What was held before is no cost of training.
    let _ = monitor.peak_bytes();
    let mut run = Run { dir: &place.dir, seed: recipe.seed, monitor, kept };
    let mut state = RunState::default();
    let mut checkpoint: Option<Checkpoint> = None;
    let mut all_here = true;
    let shared = place.shared.as_ref().map(|stages| Shared::new(recipe, stages, sources, &net));
    let metrics = place.dir.join("metrics.jsonl");
    if place.resume
        && let Some((found, from)) = train::latest(&place.dir)?
    {
        net = run.restore(net, &from)?;
        run.monitor.note(&format!("resuming after step {}", found.global_step));
        state = found;
        checkpoint = (state.step > 0).then_some(from);
    } else if let Some(shared) = &shared {
        let (with, taken) = shared.take(net, |line| run.monitor.note(line))?;
        net = with;
        if let Some(taken) = taken {
            all_here = false;
            let names = taken.names.join(", ");
            run.monitor.note(&format!("stages {names} are those of {}", taken.dir.display()));
            write_atomically(&metrics, &taken.metrics)?;
            state = taken.state;
        }
    }
    for (i, stage) in recipe.stages.iter().enumerate().skip(state.stage) {
        let (sources, dev) = data(i, run.monitor)?;
        let begin = RunState { stage: i, stage_name: stage.name.clone(), ..state.clone() };
        match run.stage(net, sources, &dev, stage, begin, checkpoint.take().as_ref())? {
            Outcome::Interrupted(_) => return Ok(None),
            Outcome::Done(done) => net = done,
        }
        state = RunState {
            stage: i + 1,
            global_step: recipe.stages[..=i].iter().map(|s| s.steps).sum(),
            nonfinite: state.nonfinite,
            ..RunState::default()
        };
        if let Some(shared) = shared.as_ref().filter(|_| i + 1 < recipe.stages.len()) {
            let log = std::fs::read(&metrics)
                .map_err(|source| Error::Metrics { path: metrics.clone(), source })?;
            shared.keep(i + 1, &net, &state, &log)?;
        }
    }
    let peak_bytes = run.monitor.peak_bytes().filter(|_| all_here);
    Costs { trained_parameters, peak_bytes, step_s: None }.write(&place.dir)?;
    Ok(Some(net))
}

fn text(
    recipe: &Recipe,
    config: &TextModelConfig,
    place: &Place,
    workshop: &Workshop,
    monitor: &mut dyn Monitor,
) -> Result<Option<AnyModel>, Error> {
    let path = place.dir.join("tokenizer.json");
    let tokenizer = if path.exists() {
        Tokenizer::load(&path)?
    } else {
        monitor.note("learning the tokenizer");
        let longest = recipe.stages.iter().rev().max_by_key(|stage| stage.steps);
        let longest = longest.expect("a plan has a stage");
        let texts = workshop.tokenizer_texts(longest, config.tokenizer.n_documents)?;
        let tokenizer = Tokenizer::train_bpe(texts, config.tokenizer.vocab_size, &MARKERS)?;
        write_atomically(&path, tokenizer.to_json()?.as_bytes())?;
        tokenizer
    };
    let chat = Chat::with_markers(tokenizer)?;
    let device = place.device.clone().autodiff();
    let init = Init::new(recipe.seed, &device);
    let mut net = config.language_model.init(chat.tokenizer().n_tokens(), &init);
    if let Some(lora) = &config.lora {
        lora::attach(&mut net, "", lora, recipe.seed);
    }
    let sources = marks(recipe, place, workshop, &chat.tokenizer().to_json()?)?;
    let net = stages(recipe, place, monitor, net, &sources, |i, monitor| {
        monitor.note(&format!("cutting the documents of stage {}", recipe.stages[i].name));
        Ok(workshop.text(&recipe.stages[i], &chat)?)
    })?;
    Ok(net.map(|net| {
        let model = TextModel {
            config: config.language_model.clone(),
            lm: net.valid(),
            chat: chat.clone(),
            origin: None,
            dtype: WeightType::F32,
        };
        AnyModel::Text(Box::new(model))
    }))
}

fn ctc(
    recipe: &Recipe,
    config: &CtcModelConfig,
    place: &Place,
    workshop: &Workshop,
    monitor: &mut dyn Monitor,
) -> Result<Option<AnyModel>, Error> {
    let symbols = workshop.symbols(&recipe.stages[0])?;
    let device = place.device.clone().autodiff();
    let mut model = SpeechModel::init(
        config.features.clone(),
        config.encoder.clone(),
        config.ctc.clone(),
        symbols,
        &Init::new(recipe.seed, &device),
    )?;
    let recognizer = model.recognizer.take().expect("made with a head the lines before");
    let extractor = FeatureExtractor::new(&config.features)?;
    // What is trained is in one place.
    let net = CtcNet { encoder: model.encoder, head: recognizer.head };
    let sources = marks(recipe, place, workshop, "")?;
    let net = stages(recipe, place, monitor, net, &sources, |i, monitor| {
        let progress = |done, total| monitor.preparing("speaking and analyzing", done, total);
        let symbols = &recognizer.symbols;
        Ok(workshop.ctc(&recipe.stages[i], config, &extractor, symbols, &progress)?)
    })?;
    let Some(net) = net.map(|net| net.valid()) else { return Ok(None) };
    model.encoder = net.encoder;
    model.recognizer = Some(Recognizer { head: net.head, ..recognizer });
    Ok(Some(AnyModel::Ctc(Box::new(model))))
}
