//! A recipe from start to end: data, stages, model directory.
//!
//! ```text
//! DIR/recipe.json          the recipe after overrides; resuming with another one is refused
//! DIR/metrics.jsonl        one object a step
//! DIR/events/              the same for TensorBoard
//! DIR/checkpoints/step-…   the newest two
//! DIR/model/               the trained model, written at the end
//! DIR/results.json         what was measured
//! ```

use std::path::{Path, PathBuf};

use burn::prelude::*;
use sandhi_data::text::Tokenizer;
use sandhi_nn::{init::Init, weights};

use crate::{
    chat::{Chat, MARKERS},
    checkpoint::{self, Checkpoint, Dtype, write_atomically},
    frames::FrameCache,
    model::{self, AnyModel, ConnectorModel, CtcNet, SpeechModel, TextModel},
    recipe::{
        BaseConfig, ConnectorModelConfig, CtcModelConfig, ModelConfig, Recipe, TextModelConfig,
    },
    sources::{self, Prepared, Workshop},
    train::{
        self, Monitor, Outcome, Run, RunState,
        dataset::Dataset,
        learner::{ConnectorNet, Learner},
        trains_encoder,
    },
};

/// What can go wrong while a recipe runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Training failed.
    #[error(transparent)]
    Train(#[from] train::Error),
    /// Data could not be made ready.
    #[error(transparent)]
    Sources(#[from] sources::Error),
    /// A model directory cannot be read or written.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// A file of the run cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The tokenizer cannot be made.
    #[error(transparent)]
    Text(#[from] sandhi_data::text::Error),
    /// The front end's settings are not possible.
    #[error(transparent)]
    Features(#[from] sandhi_data::features::Error),
    /// The output directory is in use.
    #[error("{dir} exists and is not empty; give another --out, or --resume to continue it")]
    Exists {
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
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// The model, which also lies in `DIR/model`.
    Done(Box<AnyModel>),
    /// Saved before the end.
    Interrupted,
}

/// Claims or reopens the run directory.
fn open_dir(place: &Place, recipe: &Recipe) -> Result<(), Error> {
    let file = place.dir.join("recipe.json");
    let text = serde_json::to_vec_pretty(recipe).expect("a recipe serializes");
    // What a killed start left half-written is nothing; what cannot be looked at is something.
    let is_nothing = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|e| e == "partial"))
    };
    let empty = match std::fs::read_dir(&place.dir) {
        Ok(mut entries) => entries.all(is_nothing),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if !place.resume {
        if !empty {
            return Err(Error::Exists { dir: place.dir.clone() });
        }
        write_atomically(&file, &text)?;
        return Ok(());
    }
    let nothing =
        |why: &str| Error::NothingToResume { dir: place.dir.clone(), why: why.to_owned() };
    let stored = std::fs::read(&file).map_err(|_| nothing("recipe.json is missing"))?;
    let stored: serde_json::Value =
        serde_json::from_slice(&stored).map_err(|e| nothing(&format!("recipe.json: {e}")))?;
    let given: serde_json::Value = serde_json::from_slice(&text).expect("written the line above");
    if let (Some(stored), Some(given)) = (stored.as_object(), given.as_object()) {
        let fields: Vec<&str> = given
            .keys()
            .chain(stored.keys())
            .filter(|key| stored.get(*key) != given.get(*key))
            .map(String::as_str)
            .collect();
        if !fields.is_empty() {
            let mut fields = fields;
            fields.dedup();
            return Err(Error::OtherRecipe { dir: place.dir.clone(), fields: fields.join(", ") });
        }
    }
    Ok(())
}

/// Runs all stages of a recipe and writes the model.
///
/// # Errors
///
/// See [`Error`].
pub fn run(recipe: &Recipe, place: &Place, monitor: &mut dyn Monitor) -> Result<End, Error> {
    open_dir(place, recipe)?;
    let workshop = Workshop::new(&place.cache, &place.base, recipe);
    let model = match &recipe.model {
        ModelConfig::Text(config) => text(recipe, config, place, &workshop, monitor)?,
        ModelConfig::Ctc(config) => ctc(recipe, config, place, &workshop, monitor)?,
        ModelConfig::Connector(config) => connector(recipe, config, place, &workshop, monitor)?,
    };
    let Some(model) = model else { return Ok(End::Interrupted) };
    model.save(&place.dir.join("model"), Dtype::F32)?;
    Ok(End::Done(Box::new(model)))
}

/// Runs the stages of one learner from where the run stands.
fn stages<L: Learner, D: Dataset<Batch = L::Batch>>(
    recipe: &Recipe,
    place: &Place,
    monitor: &mut dyn Monitor,
    mut net: L,
    mut data: impl FnMut(usize, &mut dyn Monitor) -> Result<Prepared<D>, Error>,
) -> Result<Option<L>, Error> {
    let kept: Vec<String> = recipe.stages.iter().flat_map(|s| s.trainable.clone()).collect();
    let mut run = Run { dir: &place.dir, seed: recipe.seed, monitor, kept };
    let mut state = RunState::default();
    let mut checkpoint: Option<Checkpoint> = None;
    if place.resume
        && let Some((found, from)) = train::latest(&place.dir)?
    {
        net = run.restore(net, &from)?;
        run.monitor.note(&format!("resuming after step {}", found.global_step));
        state = found;
        checkpoint = (state.step > 0).then_some(from);
    }
    for (i, stage) in recipe.stages.iter().enumerate().skip(state.stage) {
        let (sources, dev) = data(i, run.monitor)?;
        let begin = RunState { stage: i, stage_name: stage.name.clone(), ..state.clone() };
        match run.stage(net, sources, dev.as_ref(), stage, begin, checkpoint.take().as_ref())? {
            Outcome::Interrupted(_) => return Ok(None),
            Outcome::Done(done) => net = done,
        }
        state = RunState {
            stage: i + 1,
            global_step: recipe.stages[..=i].iter().map(|s| s.steps).sum(),
            nonfinite: state.nonfinite,
            ..RunState::default()
        };
    }
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
    let chat = Chat::new(tokenizer)?;
    let device = place.device.clone().autodiff();
    let init = Init::new(recipe.seed, &device);
    let net = config.language_model.init(chat.tokenizer().n_tokens(), &init);
    let net = stages(recipe, place, monitor, net, |i, monitor| {
        monitor.note(&format!("cutting the documents of stage {}", recipe.stages[i].name));
        Ok(workshop.text(&recipe.stages[i], &chat)?)
    })?;
    Ok(net.map(|net| {
        let model = TextModel {
            config: config.language_model.clone(),
            lm: net.valid(),
            chat: chat.clone(),
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
    let net: CtcNet = model.net.clone();
    let net = stages(recipe, place, monitor, net, |i, monitor| {
        let progress = |done, total| monitor.preparing("speaking and analyzing", done, total);
        Ok(workshop.ctc(&recipe.stages[i], &model, model.extractor(), &progress)?)
    })?;
    Ok(net.map(|net| {
        model.net = net.valid();
        AnyModel::Ctc(Box::new(model))
    }))
}

/// The directory of a base.
fn base_dir(base: &BaseConfig, which: &'static str, workshop: &Workshop) -> Result<PathBuf, Error> {
    match base {
        BaseConfig::Directory { path } => Ok(workshop.resolve(path)),
        BaseConfig::Declared { name, .. } => Err(Error::Declared { which, name: name.clone() }),
    }
}

/// The two foundation models of a connector recipe.
///
/// # Errors
///
/// When one is only declared or cannot be loaded.
pub fn bases(
    config: &ConnectorModelConfig,
    workshop: &Workshop,
    device: &Device,
) -> Result<(SpeechModel, TextModel), Error> {
    let encoder: &Path = &base_dir(&config.encoder, "model.encoder", workshop)?;
    let lm: &Path = &base_dir(&config.language_model, "model.language_model", workshop)?;
    Ok((AnyModel::load_speech(encoder, device)?, AnyModel::load_text(lm, device)?))
}

fn connector(
    recipe: &Recipe,
    config: &ConnectorModelConfig,
    place: &Place,
    workshop: &Workshop,
    monitor: &mut dyn Monitor,
) -> Result<Option<AnyModel>, Error> {
    let (speech, text) = bases(config, workshop, &place.device)?;
    let mut model = ConnectorModel {
        connector: config.connector.init(
            sandhi_nn::connector::Widths {
                d_encoder: speech.d_encoder(),
                d_model: text.config.d_model,
            },
            &Init::new(recipe.seed, &place.device).child("connector"),
        ),
        config: config.connector.clone(),
        speech,
        text,
    };
    // The encoder is heard once and cached as long as no stage trains it.
    let cache = (!trains_encoder(recipe))
        .then(|| FrameCache::new(&place.cache, &model.speech.frames_fingerprint()));
    let net = ConnectorNet {
        encoder: model.speech.net.encoder.clone(),
        connector: model.connector.clone(),
        language_model: model.text.lm.clone(),
    };
    let net = weights::to_autodiff(net);
    let net = stages(recipe, place, monitor, net, |i, monitor| {
        let progress = |done, total| monitor.preparing("speaking and encoding", done, total);
        Ok(workshop.spoken(
            &recipe.stages[i],
            &model.speech,
            model.speech.extractor(),
            &model.text.chat,
            cache.as_ref(),
            &progress,
        )?)
    })?;
    let Some(net) = net.map(|net| net.valid()) else { return Ok(None) };
    model.speech.net.encoder = net.encoder;
    model.connector = net.connector;
    model.text.lm = net.language_model;
    Ok(Some(AnyModel::Connector(Box::new(model))))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{
        log::read_metrics,
        recipe::{Overrides, read_str},
        train::{Measurement, StepReport},
    };

    /// Says nothing and stops after so many steps of this call.
    struct Silent {
        stop_after: u64,
        steps: AtomicU64,
    }

    impl Silent {
        fn new(stop_after: u64) -> Self {
            Self { stop_after, steps: AtomicU64::new(0) }
        }
    }

    impl Monitor for Silent {
        fn now_s(&self) -> f64 {
            0.0
        }
        fn wall_s(&self) -> f64 {
            0.0
        }
        fn clock(&self) -> Box<dyn Fn() -> f64 + Send> {
            Box::new(|| 0.0)
        }
        fn stopping(&self) -> bool {
            self.steps.load(Ordering::SeqCst) >= self.stop_after
        }
        fn stage(&mut self, _: &str, _: u64, _: u64) {}
        fn step(&mut self, _: &StepReport) {
            self.steps.fetch_add(1, Ordering::SeqCst);
        }
        fn measured(&mut self, _: u64, _: &Measurement) {}
        fn note(&mut self, _: &str) {}
        fn preparing(&self, _: &str, _: usize, _: usize) {}
    }

    const RECIPE: &str = include_str!("../../../recipes/smoke/language_model.toml");

    fn recipe(set: &[(&str, &str)]) -> Recipe {
        let set = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        read_str(RECIPE, Path::new("smoke.toml"), &Overrides { set, paths: vec![] }).unwrap()
    }

    fn place(dir: &Path, resume: bool) -> Place {
        Place {
            dir: dir.join("run"),
            resume,
            base: dir.to_owned(),
            cache: dir.join("cache"),
            device: Device::flex(),
        }
    }

    fn losses(dir: &Path) -> Vec<(String, u64, u64)> {
        read_metrics(&dir.join("run/metrics.jsonl"))
            .unwrap()
            .iter()
            .filter_map(|r| Some((r.stage.clone(), r.step, r.number("loss")?.to_bits())))
            .collect()
    }

    /// Runs to the end, being stopped after every so many steps.
    fn in_pieces(recipe: &Recipe, stop_after: u64) -> (tempfile::TempDir, AnyModel) {
        let dir = tempfile::tempdir().unwrap();
        let mut resume = false;
        loop {
            let mut monitor = Silent::new(stop_after);
            match run(recipe, &place(dir.path(), resume), &mut monitor).unwrap() {
                End::Done(model) => return (dir, *model),
                End::Interrupted => resume = true,
            }
        }
    }

    fn hash(model: &AnyModel) -> String {
        let AnyModel::Text(model) = model else { panic!("a text recipe makes a text model") };
        model::fingerprint(&model.lm)
    }

    #[test]
    fn a_run_in_pieces_has_the_same_losses_to_the_last_bit() {
        let recipe = recipe(&[]);
        let (whole_dir, whole) = in_pieces(&recipe, u64::MAX);
        let (pieces_dir, pieces) = in_pieces(&recipe, 3);
        assert_eq!(losses(whole_dir.path()).len(), 8);
        assert_eq!(losses(whole_dir.path()), losses(pieces_dir.path()));
        assert_eq!(hash(&whole), hash(&pieces));
    }

    #[test]
    fn replicas_do_not_change_the_loss() {
        let (one_dir, _) = in_pieces(&recipe(&[("stage.0.batch.replicas", "1")]), u64::MAX);
        let (two_dir, _) = in_pieces(&recipe(&[("stage.0.batch.replicas", "2")]), u64::MAX);
        for (one, two) in losses(one_dir.path()).iter().zip(losses(two_dir.path())) {
            let (one, two) = (f64::from_bits(one.2), f64::from_bits(two.2));
            assert!((one - two).abs() < 1e-5, "{one} with one replica, {two} with two");
        }
    }

    #[test]
    fn a_model_that_was_saved_is_the_model() {
        let (dir, model) = in_pieces(&recipe(&[("stage.0.steps", "2")]), u64::MAX);
        let path = dir.path().join("run/model");
        let loaded = AnyModel::load(&path, &Device::flex()).unwrap();
        assert_eq!(hash(&model), hash(&loaded));
        // One flipped byte is found and named.
        let file = path.join(LANGUAGE_MODEL_FILE);
        let mut bytes = std::fs::read(&file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let error = AnyModel::load(&path, &Device::flex()).unwrap_err().to_string();
        assert!(error.contains(LANGUAGE_MODEL_FILE), "{error}");
    }

    const LANGUAGE_MODEL_FILE: &str = "language_model.safetensors";

    #[test]
    fn directories_in_use_and_other_recipes_are_refused() {
        let recipe_a = recipe(&[("stage.0.steps", "1")]);
        let (dir, _) = in_pieces(&recipe_a, u64::MAX);
        let mut monitor = Silent::new(u64::MAX);
        let again = run(&recipe_a, &place(dir.path(), false), &mut monitor);
        assert!(matches!(again, Err(Error::Exists { .. })));
        let other = recipe(&[("stage.0.steps", "2")]);
        match run(&other, &place(dir.path(), true), &mut monitor) {
            Err(Error::OtherRecipe { fields, .. }) => assert_eq!(fields, "stage"),
            other => panic!("expected a refusal, found {other:?}"),
        }
        let empty = tempfile::tempdir().unwrap();
        let nothing = run(&recipe_a, &place(empty.path(), true), &mut monitor);
        assert!(matches!(nothing, Err(Error::NothingToResume { .. })));
    }
}
