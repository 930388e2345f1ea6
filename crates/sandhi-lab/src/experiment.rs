//! A recipe with its evaluation, and folders of recipes over seeds.
//!
//! ```text
//! recipes/study/*.toml × seeds ─ OUT/<name>/seed-1/ … ─ results.json, predictions/
//! ```
//!
//! A sweep that was killed goes on where it was: finished cells are kept, a begun one resumes. Speech
//! and encoder frames are shared through the cache.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use sandhi_data::{
    manifest,
    score::{self, Bootstrap},
    text::normalize,
};

use crate::{
    checkpoint,
    costs::Costs,
    generate::Decoding,
    model::{AnyModel, Segmenter},
    pipeline::{self, End, Place},
    recipe::{EvalConfig, Recipe},
    results::{
        self, Edits, Metric, Prediction, Results, ResultsMeta, predictions_path, write_predictions,
    },
    sources::{self, Spoken, Workshop},
    tasks,
    train::Monitor,
    transcribe,
};

/// What can go wrong in an experiment.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Training failed.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// Evaluation data could not be made ready.
    #[error(transparent)]
    Sources(#[from] sources::Error),
    /// Results cannot be written.
    #[error(transparent)]
    Results(#[from] results::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The log of a run cannot be read.
    #[error(transparent)]
    Log(#[from] crate::log::Error),
    /// A model cannot be read.
    #[error(transparent)]
    Model(#[from] crate::model::Error),
    /// A recipe cannot be read.
    #[error(transparent)]
    Recipe(#[from] crate::recipe::Error),
    /// A model cannot be looked into.
    #[error(transparent)]
    Inspect(#[from] crate::inspect::Error),
    /// A folder cannot be listed.
    #[error("{path}: {source}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The report cannot be written.
    #[error("cannot write the report: {0}")]
    Report(#[from] crate::report::Error),
    /// A folder without recipes.
    #[error("{dir} has no .toml recipe")]
    NoRecipes {
        /// The folder.
        dir: PathBuf,
    },
}

/// Where numbers come from; given by the binary, which knows the machine and the clock.
#[derive(Debug, Clone, Default)]
pub struct Provenance {
    /// The machine in words.
    pub machine: String,
    /// Commit of the program, when known.
    pub commit: Option<String>,
}

/// Measures a model as the recipe asks and writes `results.json` and the predictions.
///
/// # Errors
///
/// See [`Error`].
pub fn evaluate(
    recipe: &Recipe,
    config: &EvalConfig,
    model: &AnyModel,
    place: &Place,
    provenance: &Provenance,
    monitor: &mut dyn Monitor,
) -> Result<Results, Error> {
    let began = monitor.now_s();
    let workshop = Workshop::new(&place.cache, &place.base, recipe);
    let mut results = Results::new(ResultsMeta {
        recipe: recipe.name.clone(),
        model: model.describe(),
        seed: recipe.seed,
        commit: provenance.commit.clone(),
        machine: provenance.machine.clone(),
        oracle: recipe.oracle || is_told(model),
        costs: Costs::read(&place.dir),
        ..ResultsMeta::default()
    });
    let predictions = match (&config.manifest, model) {
        (None, model) if config.choices.is_some() => {
            let progress = |what: &str, done, total| monitor.preparing(what, done, total);
            tasks::evaluate_files(model, &workshop, config, &place.cache, &mut results, &progress)?
        }
        (_, AnyModel::SpeechText(model)) if !config.unit_files.is_empty() => {
            let progress = |what: &str, done, total| monitor.preparing(what, done, total);
            tasks::evaluate_unit_files(model, &workshop, config, &mut results, &progress)?;
            Vec::new()
        }
        (Some(path), model) => {
            let split = config.manifest_split.as_deref();
            vec![manifest(model, &workshop.resolve(path), split, &mut results)?]
        }
        (None, AnyModel::Connector(model)) => {
            let cache = tasks::frame_cache(model, &place.cache);
            let progress = |what: &str, done, total| monitor.preparing(what, done, total);
            tasks::evaluate(model, &workshop, config, &cache, &mut results, &progress)?
        }
        (None, AnyModel::Ctc(model)) => {
            let cache = crate::frames::FrameCache::new(&place.cache, &model.frames_fingerprint());
            let progress = |what: &str, done, total| monitor.preparing(what, done, total);
            tasks::evaluate_ctc(model, &workshop, config, &cache, &mut results, &progress)?
        }
        (None, AnyModel::Text(model)) => {
            let progress = |what: &str, done, total| monitor.preparing(what, done, total);
            tasks::evaluate_text(model, &workshop, config, &mut results, &progress)?
        }
        (None, AnyModel::Aligner(_)) => return Err(transcribe::mute().into()),
        (None, AnyModel::Vocoder(model)) => {
            let progress = |what: &str, done, total| monitor.preparing(what, done, total);
            let recognizer = tasks::recognizer(config, &workshop, &place.device, &place.hub)?;
            tasks::evaluate_vocoder(
                model,
                recognizer.as_ref(),
                &workshop,
                config,
                &mut results,
                &progress,
            )?
        }
        (None, AnyModel::SpeechText(model)) => {
            let progress = |what: &str, done, total| monitor.preparing(what, done, total);
            let voice = tasks::voice(config, &workshop, &place.device, &place.hub)?;
            tasks::evaluate_speech_text(
                model,
                voice.as_ref(),
                &workshop,
                config,
                &place.cache,
                &mut results,
                &progress,
            )?
        }
    };
    for what in not_measured(model, config, &results) {
        monitor.note(&what);
    }
    for cell in predictions.iter().filter(|cell| !cell.is_empty()) {
        let path = predictions_path(&place.dir, &cell[0].task, &cell[0].domain);
        write_predictions(&path, cell)?;
    }
    results.meta.duration_s = monitor.now_s() - began;
    results.write(&place.dir.join("results.json"))?;
    // Numbers are there without pictures of them, too.
    if let Err(error) = tasks::write_pictures(model, &workshop, config, &place.dir) {
        tracing::warn!("no pictures of utterances: {error}");
    }
    Ok(results)
}

/// What was asked for by name and has no number, not even one that says why.
fn not_measured(model: &AnyModel, config: &EvalConfig, results: &Results) -> Vec<String> {
    let nothing_of = |kind: &str, name: &String| {
        format!(
            "nothing was measured of {kind} {name}: what else was asked for, or the model, leaves nothing of it"
        )
    };
    let is_there = |task: &str| {
        let name = match model {
            AnyModel::Vocoder(_) => tasks::result_name(task),
            _ => Some(task),
        };
        name.is_some_and(|name| results.iter().any(|(found, ..)| found == name))
    };
    let tasks = config.tasks.iter().filter(|task| !is_there(task));
    let domains = config
        .domains
        .iter()
        .filter(|domain| !results.iter().any(|(_, found, ..)| found == *domain));
    let tasks = tasks.map(|task| nothing_of("task", task));
    tasks.chain(domains.map(|domain| nothing_of("domain", domain))).collect()
}

/// Whether the model sees what it would not have in use, whatever its recipe says: where the transcript's tokens end, or
/// its words.
fn is_told(model: &AnyModel) -> bool {
    match model {
        AnyModel::Connector(model) => model.segmenter == Some(Segmenter::Forced),
        AnyModel::SpeechText(model) => !model.can_go_on(),
        AnyModel::Ctc(_) | AnyModel::Text(_) | AnyModel::Aligner(_) | AnyModel::Vocoder(_) => false,
    }
}

/// Transcription of a manifest.
fn manifest(
    model: &AnyModel,
    path: &Path,
    split: Option<&str>,
    results: &mut Results,
) -> Result<Vec<Prediction>, Error> {
    let utterances = manifest::import_split(path, split).map_err(sources::Error::from)?.utterances;
    let domain = path.file_stem().map_or("manifest".into(), |s| s.to_string_lossy().into_owned());
    let mut predictions = Vec::with_capacity(utterances.len());
    let instruction = sandhi_data::microworld::Task::Transcribe.wordings()[0];
    for chunk in utterances.chunks(32) {
        let spoken: Vec<Spoken> =
            chunk.iter().map(|u| Spoken::Recorded { utterance: u.clone(), speed: 1.0 }).collect();
        let waves = sources::recordings(&spoken)?;
        let pieces: Vec<&[f32]> = waves.iter().map(|wave| wave.samples.as_slice()).collect();
        let (texts, cascade) = match model {
            AnyModel::Connector(model) => {
                let asked = vec![instruction; pieces.len()];
                let texts = transcribe::answer(model, &pieces, &asked, &Decoding::default())?;
                let cascade = match &model.speech.recognizer {
                    Some(_) => Some(transcribe::ctc(&model.speech, &pieces)?),
                    None => None,
                };
                (texts, cascade)
            }
            AnyModel::Ctc(model) => (transcribe::ctc(model, &pieces)?, None),
            AnyModel::Text(_) => return Err(transcribe::deaf().into()),
            AnyModel::Aligner(_) => return Err(transcribe::mute().into()),
            AnyModel::SpeechText(_) => return Err(transcribe::untaught().into()),
            AnyModel::Vocoder(_) => return Err(transcribe::speaks().into()),
        };
        for (i, u) in chunk.iter().enumerate() {
            let edits = |text: &str| {
                let counts = score::EditCounts::of(&score::word_edits(
                    &normalize(&u.text),
                    &normalize(text),
                ));
                Edits {
                    sub: counts.substitutions,
                    del: counts.deletions,
                    ins: counts.insertions,
                    hits: counts.hits,
                }
            };
            predictions.push(Prediction {
                id: u.id.clone(),
                task: "asr".into(),
                domain: domain.clone(),
                transcript: Some(u.text.clone()),
                reference: u.text.clone(),
                edits: Some(edits(&texts[i])),
                hypothesis: texts[i].clone(),
                cascade_edits: cascade.as_ref().map(|c| edits(&c[i])),
                cascade_hypothesis: cascade.as_ref().map(|c| c[i].clone()),
                ..Prediction::default()
            });
        }
    }
    let mut add = |suffix: &str, texts: Vec<&str>| {
        let references: Vec<String> = predictions.iter().map(|p| normalize(&p.reference)).collect();
        let texts: Vec<String> = texts.into_iter().map(normalize).collect();
        let boot = Bootstrap::default();
        for (name, rate) in
            [("wer", score::wer(&references, &texts)), ("cer", score::cer(&references, &texts))]
        {
            let interval = rate.expect("an answer an utterance").interval(&boot);
            let metric = Metric::new(interval.value, interval.lo, interval.hi, interval.n);
            results.set("asr", &domain, &format!("{name}{suffix}"), metric);
        }
    };
    add("", predictions.iter().map(|p| p.hypothesis.as_str()).collect());
    if predictions.iter().all(|p| p.cascade_hypothesis.is_some()) {
        add(
            results::CASCADE,
            predictions.iter().filter_map(|p| p.cascade_hypothesis.as_deref()).collect(),
        );
    }
    results.meta.trained_tasks = vec!["asr".into()];
    results.meta.scorer.extend(tasks::scorers());
    Ok(predictions)
}

/// Trains a recipe, or takes its finished model, and evaluates it if the recipe asks.
///
/// # Errors
///
/// See [`Error`].
pub fn run(
    recipe: &Recipe,
    place: &Place,
    provenance: &Provenance,
    monitor: &mut dyn Monitor,
) -> Result<Option<(AnyModel, Option<Results>)>, Error> {
    let _lock = pipeline::claim(recipe, place)?;
    let finished = place.dir.join("model");
    let model = if place.resume && finished.join("model.json").exists() {
        AnyModel::load(&finished, &place.device, &place.hub)?
    } else {
        match pipeline::train(recipe, place, monitor)? {
            End::Interrupted => return Ok(None),
            End::Done(model) => *model,
        }
    };
    let results = match &recipe.eval {
        None => None,
        Some(config) => Some(evaluate(recipe, config, &model, place, provenance, monitor)?),
    };
    Ok(Some((model, results)))
}

/// One run of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepCell {
    /// The recipe's file.
    pub recipe: PathBuf,
    /// Its seed.
    pub seed: u64,
    /// Where it runs.
    pub dir: PathBuf,
}

impl SweepCell {
    /// Name of the recipe's file, and of the folder that its seeds run in.
    pub fn name(&self) -> Cow<'_, str> {
        self.recipe.file_stem().unwrap_or_default().to_string_lossy()
    }
}

/// The cells of a sweep: every recipe of a folder with seeds 1 to `n_seeds`, seed by seed, so that a
/// sweep that is cut short has whole rounds.
///
/// # Errors
///
/// When the folder cannot be listed or has no recipe.
pub fn sweep_cells(dir: &Path, out: &Path, n_seeds: u64) -> Result<Vec<SweepCell>, Error> {
    let io = |source| Error::Io { path: dir.to_owned(), source };
    let mut recipes = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            recipes.push(path);
        }
    }
    recipes.sort();
    if recipes.is_empty() {
        return Err(Error::NoRecipes { dir: dir.to_owned() });
    }
    let mut cells = Vec::new();
    for seed in 1..=n_seeds {
        for recipe in &recipes {
            let name = recipe.file_stem().expect("listed with an extension");
            let dir = out.join(name).join(format!("seed-{seed}"));
            cells.push(SweepCell { recipe: recipe.clone(), seed, dir });
        }
    }
    Ok(cells)
}
