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

use std::path::PathBuf;

use burn::{prelude::*, tensor::DType};
use sandhi_data::{features::FeatureExtractor, text::Tokenizer};
use sandhi_nn::{
    init::Init,
    layers::Linear,
    lora,
    ops::recomputes,
    weights::{self, WeightType},
};

use crate::{
    chat::{Chat, MARKERS},
    checkpoint::{self, Checkpoint, write_atomically},
    frames::FrameCache,
    hf::{self, Hub, Located, ModelSource},
    model::{
        self, Aids, AnyModel, Compression, ConnectorModel, CtcNet, Recognizer, SpeechModel,
        TextModel,
    },
    recipe::{
        BaseConfig, ConnectorModelConfig, CtcModelConfig, LossConfig, ModelConfig, PadMass, Recipe,
        TextModelConfig,
    },
    sources::{self, Prepared, Workshop},
    tasks,
    train::{
        self, Monitor, Outcome, Run, RunState,
        dataset::Dataset,
        learner::{ConnectorNet, Learner},
        shared::{Shared, SharedStages},
        trains_encoder,
    },
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
    if let Some(stage) = recipe.stages.iter().find(|stage| stage.gradient_checkpointing)
        && !recomputes(&place.device)
    {
        let (stage, device) = (stage.name.clone(), format!("{:?}", place.device));
        return Err(Error::Checkpointing { stage, device });
    }
    open_dir(place, recipe)?;
    let workshop = Workshop::new(&place.cache, &place.base, recipe);
    let model = match &recipe.model {
        ModelConfig::Text(config) => text(recipe, config, place, &workshop, monitor)?,
        ModelConfig::Ctc(config) => ctc(recipe, config, place, &workshop, monitor)?,
        ModelConfig::Connector(config) => connector(recipe, config, place, &workshop, monitor)?,
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
    let mut run = Run { dir: &place.dir, seed: recipe.seed, monitor, kept };
    let mut state = RunState::default();
    let mut checkpoint: Option<Checkpoint> = None;
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
            let names = taken.names.join(", ");
            run.monitor.note(&format!("stages {names} are those of {}", taken.dir.display()));
            write_atomically(&metrics, &taken.metrics)?;
            state = taken.state;
        }
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
        if let Some(shared) = shared.as_ref().filter(|_| i + 1 < recipe.stages.len()) {
            let log = std::fs::read(&metrics)
                .map_err(|source| Error::Metrics { path: metrics.clone(), source })?;
            shared.keep(i + 1, &net, &state, &log)?;
        }
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

/// A base, from a model directory or a published checkpoint.
fn base<P, M>(
    config: &BaseConfig<P>,
    which: &'static str,
    directory: impl FnOnce(&str) -> Result<M, Error>,
    published: impl FnOnce(&P) -> Result<M, Error>,
) -> Result<M, Error> {
    match config {
        BaseConfig::Directory { path, .. } => directory(path),
        BaseConfig::HuggingFace(config) => published(config),
        BaseConfig::Declared { name, .. } => Err(Error::Declared { which, name: name.clone() }),
    }
}

/// The two foundation models of a connector recipe, held as it says. Branches that they have are merged.
///
/// # Errors
///
/// When one is only declared or cannot be loaded.
pub fn bases(
    config: &ConnectorModelConfig,
    workshop: &Workshop,
    device: &Device,
    hub: &Hub,
) -> Result<(SpeechModel, TextModel), Error> {
    let published = |path: &str| -> Result<Located, hf::Error> {
        let source = ModelSource::read(path, |path| workshop.resolve(path))?;
        Ok(hub.locate(&source)?)
    };
    let mut speech = base(
        &config.encoder,
        "model.encoder",
        |path| Ok(AnyModel::load_speech(&workshop.resolve(path), device, hub)?),
        |config| Ok(hf::speech_model(&published(&config.path)?, config, device)?),
    )?;
    let mut text = base(
        &config.language_model,
        "model.language_model",
        |path| Ok(AnyModel::load_text(&workshop.resolve(path), device, hub)?),
        |config| {
            let adapter = config.adapter.as_ref().map(|path| workshop.resolve(path));
            let at = published(&config.path)?;
            Ok(hf::text_model(&at, config, adapter.as_deref(), device)?)
        },
    )?;
    speech.merge_lora();
    text.merge_lora();
    let wrong = |which| move |why| Error::Dtype { which, why };
    speech.hold(config.encoder.dtype()).map_err(wrong("model.encoder"))?;
    text.hold(config.language_model.dtype()).map_err(wrong("model.language_model"))?;
    Ok((speech, text))
}

fn connector(
    recipe: &Recipe,
    config: &ConnectorModelConfig,
    place: &Place,
    workshop: &Workshop,
    monitor: &mut dyn Monitor,
) -> Result<Option<AnyModel>, Error> {
    let (mut speech, mut text) = bases(config, workshop, &place.device, &place.hub)?;
    if let Some(eval) = &recipe.eval {
        // Better now than after the last step.
        tasks::check_named(&speech, eval)?;
    }
    let asks_blanks = |loss: &LossConfig| {
        loss.transport.as_ref().is_some_and(|config| config.pad == PadMass::Blank)
    };
    if speech.recognizer.is_none() && recipe.stages.iter().any(|stage| asks_blanks(&stage.loss)) {
        let asked = "transport.pad = \"blank\"".to_owned();
        return Err(sources::Error::NoRecognizer { asked }.into());
    }
    if let Some(lora) = &config.lora {
        lora::attach(&mut speech.encoder, "encoder", lora, recipe.seed);
        lora::attach(&mut text.lm, "language_model", lora, recipe.seed);
    }
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
        compression: None,
        segmenter: config.segmenter,
        pad: None,
    };
    let pad = pad(config, &model.text, monitor)?;
    let aids = Aids::of(&config.connector, &model.speech, pad);
    if let Some(problem) = aids.problem() {
        return Err(Error::Aids(problem.to_owned()));
    }
    let n_tokens = model.text.lm.n_tokens();
    if let Some(problem) = config.connector.wrong_tokens(n_tokens, pad) {
        return Err(Error::Aids(format!("connector: {problem}")));
    }
    if aids.needs.segments && model.speech.recognizer.is_none() {
        let asked = "segmenter".to_owned();
        return Err(sources::Error::NoRecognizer { asked }.into());
    }
    model.pad = pad.filter(|_| aids.needs.embeddings);
    let with_head = recipe.stages.iter().any(|stage| stage.loss.token_ctc > 0.0);
    let ctc_head = with_head.then(|| {
        let init = Init::new(recipe.seed, &place.device).child("ctc_head");
        // The language model's tokens, and the blank.
        Linear::new(&init, model.text.config.d_model, model.text.lm.n_tokens() + 1, true)
    });
    // What is trained is in one place, but for the encoder, whose frames may be cached.
    let net = ConnectorNet {
        encoder: model.speech.encoder.clone(),
        connector: model.connector,
        language_model: model.text.lm,
        ctc_head,
        pad,
        compression: None,
        aids,
    };
    // The encoder is heard once and cached as long as no stage trains it.
    let names: Vec<String> = weights::parameters(&net).into_iter().map(|info| info.name).collect();
    let cache = (!trains_encoder(recipe, names.iter().map(String::as_str)))
        .then(|| FrameCache::new(&place.cache, &model.speech.frames_fingerprint()));
    let net = weights::to_autodiff(net);
    // An encoder that is heard once is heard without masks and dropout.
    let heard = if cache.is_some() { "frames" } else { "features" };
    let sources = marks(recipe, place, workshop, heard)?;
    let net = stages(recipe, place, monitor, net, &sources, |i, monitor| {
        let progress = |done, total| monitor.preparing("speaking and encoding", done, total);
        Ok(workshop.spoken(
            &recipe.stages[i],
            &model.speech,
            (&config.connector, pad),
            &model.text.chat,
            cache.as_ref(),
            &progress,
        )?)
    })?;
    let Some(net) = net.map(|net| net.valid()) else { return Ok(None) };
    // What a stage has trained is no longer what was published.
    let trained = |prefix: &str| {
        let names = weights::parameters(&net).into_iter().map(|parameter| parameter.name);
        names.filter(|name| name.starts_with(prefix) && !lora::is_lora(name)).any(|name| {
            recipe.stages.iter().any(|stage| train::is_trained(&stage.trainable, &name))
        })
    };
    if trained("encoder.") {
        model.speech.origin = None;
    }
    if trained("language_model.") {
        model.text.origin = None;
    }
    model.speech.encoder = net.encoder;
    model.connector = net.connector;
    model.text.lm = net.language_model;
    let last = recipe.stages.last().and_then(|stage| stage.compression);
    model.compression = last.map(|thresholds| Compression { thresholds, pad });
    Ok(Some(AnyModel::Connector(Box::new(model))))
}

/// The token for no content, if the recipe names one: with a row that has a direction, which is noted beside the
/// others.
fn pad(
    config: &ConnectorModelConfig,
    text: &TextModel,
    monitor: &mut dyn Monitor,
) -> Result<Option<u32>, Error> {
    let Some(token) = &config.pad_token else { return Ok(None) };
    let wrong = |problem: &str| Error::Pad { token: token.clone(), problem: problem.to_owned() };
    let id = text.chat.token(token).ok_or_else(|| wrong("the vocabulary has no such token"))?;
    let table = text.lm.embedding_table().cast(DType::F32);
    let mut norms = weights::host(table.square().sum_dim(1).sqrt());
    let own = norms.get(id as usize).copied().unwrap_or(0.0);
    if own == 0.0 {
        return Err(wrong(
            "its embedding is zero, as untrained ones often are; name a trained one",
        ));
    }
    norms.sort_by(f32::total_cmp);
    let median = norms[norms.len() / 2];
    monitor.note(&format!(
        "the pad {token:?} has an embedding of norm {own:.3}, the median is {median:.3}"
    ));
    Ok(Some(id))
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::atomic::{AtomicU64, Ordering},
    };

    use super::*;
    use crate::{
        log::read_metrics,
        model::fingerprint,
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
            hub: Hub::offline(dir.join("hub")),
            shared: None,
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

    /// OTReg with everything that it has, on the foundation models, in a folder of its own.
    fn otreg(
        dir: &Path,
        set: &[(&str, &str)],
        stop_after: u64,
    ) -> (Vec<(String, u64, u64)>, String) {
        const OTREG: &str = include_str!("../../../recipes/smoke/otreg.toml");
        let set = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let paths = vec![("foundation".to_owned(), format!("{root}/weights"))];
        let overrides = Overrides { set, paths };
        let recipe = read_str(OTREG, Path::new("otreg.toml"), &overrides).unwrap();
        let mut resume = false;
        loop {
            let mut monitor = Silent::new(stop_after);
            match run(&recipe, &place(dir, resume), &mut monitor).unwrap() {
                End::Interrupted => resume = true,
                End::Done(model) => {
                    let AnyModel::Connector(model) = *model else { panic!("a connector") };
                    return (losses(dir), model::fingerprint(&model.connector));
                }
            }
        }
    }

    #[test]
    fn transport_in_pieces_has_the_same_losses_to_the_last_bit() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let at = dir.path().join(name);
            std::fs::create_dir(&at).unwrap();
            at
        };
        let (losses, connector) = otreg(&at("whole"), &[], u64::MAX);
        assert_eq!(losses.len(), 7);
        assert_eq!((losses, connector), otreg(&at("pieces"), &[], 2));

        // A step over two batches is the same on one replica and on two.
        let set =
            |replicas| [("stage.1.batch.accumulate", "2"), ("stage.1.batch.replicas", replicas)];
        let (one, _) = otreg(&at("one"), &set("1"), u64::MAX);
        let (two, _) = otreg(&at("two"), &set("2"), u64::MAX);
        for (one, two) in one.iter().zip(&two) {
            let (one, two) = (f64::from_bits(one.2), f64::from_bits(two.2));
            assert!((one - two).abs() < 1e-4, "{one} with one replica, {two} with two");
        }
    }

    #[test]
    fn layers_that_run_again_change_no_loss() {
        let set = [("stage.0.dropout", "0.1"), ("stage.0.batch.replicas", "2")];
        let (plain_dir, plain) = in_pieces(&recipe(&set), u64::MAX);
        let set = [&set[..], &[("stage.0.gradient_checkpointing", "true")]].concat();
        let (again_dir, again) = in_pieces(&recipe(&set), u64::MAX);
        assert_eq!(losses(plain_dir.path()), losses(again_dir.path()));
        assert_eq!(hash(&plain), hash(&again));
    }

    #[test]
    fn branches_learn_beside_a_frozen_model() {
        let lora = r#"{ rank = 2, alpha = 4, targets = ["*.q_proj", "*.down_proj"] }"#;
        let set = [("model.lora", lora), ("stage.0.trainable", r#"["*lora_*"]"#)];
        let (plain_dir, plain) = in_pieces(&recipe(&[("stage.0.optimizer.lr", "1e-30")]), u64::MAX);
        let (whole_dir, whole) = in_pieces(&recipe(&set), u64::MAX);
        let (pieces_dir, pieces) = in_pieces(&recipe(&set), 3);
        assert_eq!(losses(whole_dir.path()), losses(pieces_dir.path()));
        assert_eq!(hash(&whole), hash(&pieces));
        // Branches begin as nothing, and the first loss is that of the model without them.
        let (plain_losses, losses) = (losses(plain_dir.path()), losses(whole_dir.path()));
        assert_eq!(plain_losses[0].2, losses[0].2);
        assert_ne!(plain_losses.last(), losses.last());

        let loaded = AnyModel::load(
            &whole_dir.path().join("run/model"),
            &Device::flex(),
            &Hub::offline(PathBuf::new()),
        )
        .unwrap();
        assert_eq!(hash(&loaded), hash(&whole));
        let AnyModel::Text(mut loaded) = loaded else { panic!("a text model was saved") };
        let AnyModel::Text(plain) = plain else { panic!("a text model was made") };
        for (name, tensor) in lora::lora_weights(&loaded.lm) {
            assert!(tensor.values.iter().any(|&v| v != 0.0), "{name} did not learn");
        }
        for (_, linear) in lora::Linears::linears(&mut loaded.lm) {
            linear.lora = None;
        }
        assert_eq!(fingerprint(&loaded.lm), fingerprint(&plain.lm));
    }

    #[test]
    fn a_stage_that_recipes_share_is_trained_once() {
        let second = |steps: &str| {
            let text = RECIPE.split("[[stage]]").nth(1).unwrap();
            let text = text.split("[eval]").next().unwrap();
            let text = text.replacen("name = \"", "name = \"second_", 1);
            let text = format!("{RECIPE}\n[[stage]]\n{text}");
            let set = vec![("stage.1.steps".to_owned(), steps.to_owned())];
            read_str(&text, Path::new("smoke.toml"), &Overrides { set, paths: vec![] }).unwrap()
        };
        let dir = tempfile::tempdir().unwrap();
        let run_in = |name: &str, recipe: &Recipe, shared: Option<&str>| {
            let mut monitor = Silent::new(u64::MAX);
            let program = "test".to_owned();
            let shared = shared.map(|name| SharedStages { dir: dir.path().join(name), program });
            let at = dir.path().join(name);
            let place = Place { shared, ..place(&at, false) };
            let End::Done(model) = run(recipe, &place, &mut monitor).unwrap() else {
                panic!("nothing stops it");
            };
            (monitor.steps.into_inner(), losses(&at), hash(&model))
        };
        let (long, short) = (second("4"), second("2"));
        let n_first = long.stages[0].steps;
        let alone = run_in("alone", &short, None);
        assert_eq!(run_in("long", &long, Some("stages")).0, n_first + 4);
        let taken = run_in("short", &short, Some("stages"));
        assert_eq!((alone.0, taken.0), (n_first + 2, 2));
        assert_eq!((alone.1, alone.2), (taken.1, taken.2));
        // Another seed is another stage.
        let other = Recipe { seed: short.seed + 1, ..short };
        assert_eq!(run_in("other", &other, Some("stages")).0, n_first + 2);
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
        let loaded = AnyModel::load(&path, &Device::flex(), &Hub::offline(PathBuf::new())).unwrap();
        assert_eq!(hash(&model), hash(&loaded));
        // One flipped byte is found and named.
        let file = path.join(LANGUAGE_MODEL_FILE);
        let mut bytes = std::fs::read(&file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let error = AnyModel::load(&path, &Device::flex(), &Hub::offline(PathBuf::new()))
            .unwrap_err()
            .to_string();
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
