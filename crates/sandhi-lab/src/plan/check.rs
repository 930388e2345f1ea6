//! Everything about a recipe that can be wrong and be known before training.

use std::path::{Path, PathBuf};

use sandhi_data::{
    features::{FeatureConfig, FeatureExtractor},
    manifest,
    microworld::{
        Document, Microworld, Split, Style, Task, WildWords, documents::MAX_PHRASES,
        tasks::ABOUT_WORDS,
    },
    text,
};
use sandhi_nn::{encoder::EncoderConfig, lora::LoraConfig, transformer::TransformerConfig};
use serde::Deserialize;

use crate::{
    chat::MARKERS,
    checkpoint::Checkpoint,
    hf::{self, Hub, LanguageModelConfig, ModelSource, Want},
    recipe::{
        AS_SPOKEN, BaseConfig, ConnectorModelConfig, EvalConfig, ManifestSource, ModelConfig,
        OptimizerConfig, Recipe, Schedule, SourceConfig, StageConfig,
    },
    sources::{WORLD_SEED, resolve},
    tasks,
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

/// A base model: its sizes, or what is declared of it.
pub(super) enum Base<T> {
    Known(T),
    Declared { name: String, n_parameters: u64, width: usize, rate_hz: f64 },
}

/// A published model.
enum Published {
    /// In this directory.
    Here(PathBuf),
    /// Somewhere else, under this name, with this configuration.
    Known(String, serde_json::Value),
}

/// A speech foundation model's sizes.
pub(super) struct SpeechBase {
    pub(super) features: FeatureConfig,
    pub(super) encoder: EncoderConfig,
    pub(super) n_mels: usize,
}

/// A text foundation model's sizes.
pub(super) struct TextBase {
    pub(super) transformer: TransformerConfig,
    pub(super) n_tokens: usize,
}

impl Base<SpeechBase> {
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Known(speech) => speech.encoder.d_encoder(),
            Self::Declared { width, .. } => *width,
        }
    }

    /// Encoder frames a second, where they are known.
    pub(super) fn rate_hz(&self) -> Option<f64> {
        match self {
            Self::Known(speech) => Some(speech.features.rate_hz() / speech.encoder.stride() as f64),
            Self::Declared { rate_hz, .. } => (*rate_hz > 0.0).then_some(*rate_hz),
        }
    }
}

impl Base<TextBase> {
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Known(text) => text.transformer.d_model,
            Self::Declared { width, .. } => *width,
        }
    }
}

/// The kind of a model in a word.
pub(super) fn kind(model: &ModelConfig) -> &'static str {
    match model {
        ModelConfig::Ctc(_) => "ctc",
        ModelConfig::Text(_) => "text",
        ModelConfig::Connector(_) => "connector",
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

/// Nobody speaks more words in a second: so long an utterance is at least.
const FASTEST_WORDS_PER_S: f64 = 5.0;
/// Items of a source whose length is looked at.
const LOOKED_AT: usize = 128;

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

    fn model(&mut self) -> (Option<Base<SpeechBase>>, Option<Base<TextBase>>) {
        let recipe = self.recipe;
        match &recipe.model {
            ModelConfig::Text(config) => {
                let lm = &config.language_model;
                self.transformer("model.language_model", lm);
                let place = "model.tokenizer";
                let needed = 256 + MARKERS.len();
                let found = config.tokenizer.vocab_size;
                let wrong = text::Error::VocabularyTooSmall { needed, found };
                self.need(found >= needed, place, format_args!("vocab_size: {wrong}"));
                self.sane(place, 0, &[found]);
                self.counts(place, "n_documents", config.tokenizer.n_documents);
                self.lora(config.lora.as_ref());
                (None, None)
            }
            ModelConfig::Ctc(config) => {
                self.features("model.features", &config.features);
                self.encoder("model.encoder", &config.encoder);
                self.hears("model.encoder", &config.encoder, &config.features);
                let steps = config.ctc.steps_per_frame;
                self.at_least_one("model.ctc", "steps_per_frame", steps);
                self.sane("model.ctc", 0, &[steps]);
                (None, None)
            }
            ModelConfig::Connector(config) => self.connector(config),
        }
    }

    fn lora(&mut self, config: Option<&LoraConfig>) {
        let Some(config) = config else { return };
        for problem in config.problems() {
            self.problem("model.lora", problem);
        }
        self.sane("model.lora", 0, &[config.rank]);
    }

    fn transformer(&mut self, place: &str, config: &TransformerConfig) {
        for problem in config.problems() {
            self.problem(place, problem);
        }
        let sizes = [config.d_model, config.d_ff, config.n_heads, config.head_width()];
        self.sane(place, config.n_layers, &sizes);
    }

    fn encoder(&mut self, place: &str, config: &EncoderConfig) {
        for problem in config.problems() {
            self.problem(place, problem);
        }
        match config {
            EncoderConfig::Conformer(c) => {
                self.at_least_one(place, "d_model", c.d_model);
                self.sane(place, c.n_layers, &[c.d_model, c.d_ff, c.kernel]);
            }
            EncoderConfig::Whisper(c) => {
                self.sane(place, c.n_layers, &[c.d_model, c.d_ff, c.max_frames]);
            }
            EncoderConfig::Wav2vec2(c) => {
                let lists = [&c.conv_dims, &c.conv_kernels, &c.conv_strides];
                let n_buckets = c.position_bias.as_ref().map_or(0, |bias| bias.buckets);
                let sizes = [c.d_model, c.d_ff, c.position_kernel, n_buckets];
                let sizes: Vec<usize> = lists.into_iter().flatten().copied().chain(sizes).collect();
                self.sane(place, c.n_layers.max(c.conv_dims.len()), &sizes);
            }
        }
    }

    /// Samples go into encoders that begin with samples, spectra into the others.
    fn hears(&mut self, place: &str, encoder: &EncoderConfig, features: &FeatureConfig) {
        let waveform = matches!(features, FeatureConfig::Waveform(_));
        let expected = match encoder {
            EncoderConfig::Wav2vec2(_) if !waveform => "a wav2vec2 encoder takes \"waveform\"",
            EncoderConfig::Conformer(_) | EncoderConfig::Whisper(_) if waveform => {
                "a conformer or whisper encoder takes spectra, not \"waveform\""
            }
            _ => return,
        };
        self.problem(place, format_args!("model.features do not fit, {expected}"));
    }

    /// There are no bands to mask in a waveform.
    fn masks(&mut self, base: Option<&Base<SpeechBase>>) {
        let features = match (&self.recipe.model, base) {
            (ModelConfig::Ctc(config), _) => &config.features,
            (ModelConfig::Connector(_), Some(Base::Known(speech))) => &speech.features,
            _ => return,
        };
        if !matches!(features, FeatureConfig::Waveform(_)) {
            return;
        }
        for (i, stage) in self.recipe.stages.iter().enumerate() {
            self.need(
                stage.spec_augment.is_none(),
                &format!("stage[{i}].spec_augment"),
                "masks bands and frames of spectra, the encoder hears a waveform; leave it out",
            );
        }
    }

    fn features(&mut self, place: &str, config: &FeatureConfig) -> Option<usize> {
        match FeatureExtractor::new(config) {
            Ok(extractor) => Some(extractor.n_mels()),
            Err(error) => {
                self.problem(place, error);
                None
            }
        }
    }

    fn connector(
        &mut self,
        config: &ConnectorModelConfig,
    ) -> (Option<Base<SpeechBase>>, Option<Base<TextBase>>) {
        for problem in config.connector.problems() {
            self.problem("model.connector", problem);
        }
        match &config.connector {
            sandhi_nn::connector::ConnectorConfig::Slm(c) => {
                let place = "model.connector";
                for (field, value) in [("d_hidden", c.d_hidden), ("d_ff", c.d_ff)] {
                    self.at_least_one(place, field, value);
                }
                self.sane(place, c.n_layers, &[c.d_hidden, c.d_ff, c.reduction]);
            }
        }
        self.lora(config.lora.as_ref());
        let place = "model.encoder";
        let encoder = self.base(
            place,
            &config.encoder,
            |checker, path| {
                let speech = checker.directory(place, path, "ctc")?.speech?;
                let n_mels = checker.features(place, &speech.features)?;
                Some(SpeechBase { features: speech.features, encoder: speech.encoder, n_mels })
            },
            |checker, published| {
                let found = match checker.published(place, &published.path)? {
                    Published::Here(dir) => hf::check_speech(&dir, published),
                    Published::Known(name, value) => hf::known_speech(&name, &value, published),
                };
                let (found, features) = checker.right(place, found)?;
                let n_mels = checker.features(place, &features)?;
                Some(SpeechBase { features, encoder: found.encoder, n_mels })
            },
        );
        let place = "model.language_model";
        let text = self.base(
            place,
            &config.language_model,
            |checker, path| {
                let TextSpec { transformer, n_tokens } =
                    checker.directory(place, path, "text")?.text?;
                Some(TextBase { transformer, n_tokens })
            },
            |checker, published| {
                let found = match checker.published(place, &published.path)? {
                    Published::Here(dir) => hf::check_text(&dir, published),
                    Published::Known(name, value) => {
                        LanguageModelConfig::read(Path::new(&name), &value)
                    }
                };
                let found = checker.right(place, found)?;
                if let Some(adapter) = &published.adapter {
                    checker.path(&format!("{place}.adapter"), adapter);
                }
                Some(TextBase { transformer: found.transformer, n_tokens: found.n_tokens })
            },
        );
        (encoder, text)
    }

    /// A base's description; all that is wrong with its directory is a problem.
    fn base<P, T>(
        &mut self,
        place: &str,
        config: &BaseConfig<P>,
        directory: impl FnOnce(&mut Self, &str) -> Option<T>,
        published: impl FnOnce(&mut Self, &P) -> Option<T>,
    ) -> Option<Base<T>> {
        match config {
            BaseConfig::Declared { name, n_parameters, width, rate_hz, .. } => {
                self.at_least_one(place, "width", *width);
                self.need(
                    *width <= LARGEST_SIZE,
                    place,
                    format_args!("width is {width}, expected at most {LARGEST_SIZE}"),
                );
                self.need(
                    rate_hz.is_finite() && *rate_hz >= 0.0,
                    place,
                    format_args!("rate_hz is {rate_hz}, expected a number of at least 0"),
                );
                let (name, width, rate_hz) = (name.clone(), *width, *rate_hz);
                Some(Base::Declared { name, n_parameters: *n_parameters, width, rate_hz })
            }
            BaseConfig::Directory { path, .. } => directory(self, path).map(Base::Known),
            BaseConfig::HuggingFace(config) => published(self, config).map(Base::Known),
        }
    }

    /// Where a published model is, or what is known of it. Weights that are not here are missing.
    fn published(&mut self, place: &str, path: &str) -> Option<Published> {
        let field = format!("{place}.path");
        let name = match path.parse() {
            Ok(ModelSource::Directory(_)) => return self.path(&field, path).map(Published::Here),
            Ok(ModelSource::Hub(name)) => name,
            Err(error) => {
                self.problem(&field, error);
                return None;
            }
        };
        let cached = Hub { offline: true, ..self.hub.clone() };
        if let Ok(snapshot) = cached.fetch(&name, Want::Model, &mut ()) {
            return Some(Published::Here(snapshot.dir));
        }
        self.missing
            .push(format!("{field}: {name} is not here, `sandhi download {name}` fetches it"));
        let known = hf::known::config(name.repository());
        let value = match known {
            Some(value) => value,
            None => {
                let snapshot = self.hub.fetch(&name, Want::Config, &mut ());
                let snapshot = self.right(place, snapshot)?;
                self.right(place, hf::read_json(&snapshot.dir.join("config.json")))?
            }
        };
        Some(Published::Known(name.to_string(), value))
    }

    /// What a result holds; what is wrong is a problem.
    fn right<T>(&mut self, place: &str, found: Result<T, impl std::fmt::Display>) -> Option<T> {
        found.map_err(|error| self.problem(place, error)).ok()
    }

    /// What the model directory of a base says of itself.
    fn directory(&mut self, place: &str, path: &str, expected: &str) -> Option<Spec> {
        let dir = self.path(&format!("{place}.path"), path)?;
        let spec = Checkpoint::open(&dir).and_then(|c| c.json::<Spec>("model.json"));
        let spec = self.right(place, spec)?;
        if spec.kind != expected {
            let (dir, found) = (dir.display(), spec.kind);
            self.problem(place, format_args!("{dir} holds a {found} model, expected {expected}"));
            return None;
        }
        Some(spec)
    }

    /// Checks a stage and counts its items.
    fn stage(&mut self, place: &str, stage: &StageConfig) -> Option<usize> {
        self.need(stage.steps > 0, place, "steps is 0, expected at least 1");
        self.need(
            !stage.trainable.is_empty(),
            place,
            "trainable is empty, expected names or patterns such as \"connector\", or \"*\"",
        );
        self.need(
            (0.0..1.0).contains(&stage.dropout),
            place,
            format_args!("dropout is {}, expected 0 to below 1", stage.dropout),
        );
        let loss = &stage.loss;
        let weights = [
            ("cross_entropy", loss.cross_entropy),
            ("prompt", loss.prompt),
            ("ctc", loss.ctc),
            ("alignment", loss.alignment),
        ];
        for (name, weight) in weights {
            self.need(
                weight.is_finite() && weight >= 0.0,
                &format!("{place}.loss"),
                format_args!("{name} is {weight}, expected a number of at least 0"),
            );
        }
        let (names, learned) = match &self.recipe.model {
            ModelConfig::Ctc(_) => ("ctc and alignment are", loss.ctc + loss.alignment),
            _ => ("cross_entropy is", loss.cross_entropy),
        };
        self.need(
            learned != 0.0,
            &format!("{place}.loss"),
            format_args!("{names} 0, so nothing would be learned"),
        );
        self.batch(place, stage);
        self.optimizer(place, &stage.optimizer, stage.steps);
        self.need(!stage.sources.is_empty(), place, "data is empty, expected at least one source");
        let mut n_items = Some(0);
        for (j, source) in stage.sources.iter().enumerate() {
            let n = self.source(&format!("{place}.data[{j}]"), source, stage);
            n_items = n_items.zip(n).map(|(sum, n): (usize, usize)| sum.saturating_add(n));
        }
        n_items
    }

    fn batch(&mut self, place: &str, stage: &StageConfig) {
        let batch = &stage.batch;
        let place = &format!("{place}.batch");
        self.at_least_one(place, "max_items", batch.max_items);
        self.at_least_one(place, "accumulate", batch.accumulate);
        self.at_least_one(place, "replicas", batch.replicas);
        if batch.replicas > 0 {
            self.need(
                batch.accumulate.is_multiple_of(batch.replicas),
                place,
                format_args!(
                    "accumulate {} is not a multiple of replicas {}, some would have nothing to do",
                    batch.accumulate, batch.replicas
                ),
            );
        }
        self.need(
            batch.max_length.is_finite() && batch.max_length > 0.0,
            place,
            format_args!("max_length is {}, expected a number above 0", batch.max_length),
        );
    }

    fn optimizer(&mut self, place: &str, o: &OptimizerConfig, steps: u64) {
        let place = &format!("{place}.optimizer");
        let positive = |x: f64| x.is_finite() && x > 0.0;
        for (field, value) in [("lr", o.lr), ("eps", o.eps), ("clip", o.clip)] {
            self.need(
                positive(value),
                place,
                format_args!("{field} is {value}, expected a number above 0"),
            );
        }
        for (field, value) in [("beta1", o.beta1), ("beta2", o.beta2)] {
            self.need(
                (0.0..1.0).contains(&value),
                place,
                format_args!("{field} is {value}, expected 0 to below 1"),
            );
        }
        self.need(
            o.weight_decay.is_finite() && o.weight_decay >= 0.0,
            place,
            format_args!("weight_decay is {}, expected a number of at least 0", o.weight_decay),
        );
        self.need(
            o.warmup <= steps,
            place,
            format_args!("warmup {} is longer than the stage's {steps} steps", o.warmup),
        );
        self.need(o.nonfinite_patience > 0, place, "nonfinite_patience is 0, expected at least 1");
        let share = match o.schedule {
            Schedule::Cosine { floor } | Schedule::Linear { floor } => Some(("floor", floor, true)),
            Schedule::Wsd { decay } => Some(("decay", decay, false)),
            Schedule::Constant {} => None,
        };
        if let Some((field, value, zero)) = share {
            let fine = (0.0..=1.0).contains(&value) && (zero || value > 0.0);
            let from = if zero { "from 0" } else { "above 0" };
            self.need(
                fine,
                &format!("{place}.schedule"),
                format_args!("{field} is {value}, expected a share {from} to 1"),
            );
        }
    }

    /// Checks a source and counts its items.
    fn source(&mut self, place: &str, source: &SourceConfig, stage: &StageConfig) -> Option<usize> {
        let model = kind(&self.recipe.model);
        let fits = match source {
            SourceConfig::Microworld(_) | SourceConfig::Wild(_) => model != "text",
            SourceConfig::Manifest(_) => true,
            SourceConfig::Documents(_) | SourceConfig::Text(_) | SourceConfig::Spelling(_) => {
                model == "text"
            }
        };
        self.need(
            fits,
            place,
            format_args!(
                "source {:?} gives nothing that a {model} model learns from",
                source.kind()
            ),
        );
        if let Some(weight) = source.weight() {
            self.need(
                weight.is_finite() && weight > 0.0,
                place,
                format_args!("weight is {weight}, expected a number above 0"),
            );
        }
        let max_length = stage.batch.max_length;
        match source {
            SourceConfig::Microworld(source) => {
                self.counts(place, "n", source.n);
                self.need(!source.tasks.is_empty(), place, "tasks is empty");
                self.need(!source.languages.is_empty(), place, "languages is empty");
                let (mut n_items, mut longest) = (0_usize, 0);
                for name in &source.tasks {
                    let task: Task = match name.parse() {
                        Ok(task) => task,
                        Err(error) => {
                            self.problem(place, error);
                            continue;
                        }
                    };
                    self.need(
                        model != "connector" || task != Task::FactChoice,
                        place,
                        "task fact_choice speaks the almanac, which is never voiced for training",
                    );
                    if model == "connector" && source.ask.is_empty() {
                        self.trained_on_speech(place, task);
                    }
                    let spoken: Vec<_> =
                        source.languages.iter().filter(|&&l| task.speaks(l)).copied().collect();
                    self.need(
                        !spoken.is_empty() || source.languages.is_empty(),
                        place,
                        format_args!("task {name} is spoken in none of the languages"),
                    );
                    for language in spoken {
                        n_items = source.n.saturating_add(n_items);
                        let n = source.n.min(LOOKED_AT);
                        for item in self.world.items(task, language, Split::Train, Style::Seen, n) {
                            longest = longest.max(n_words(&item.spoken));
                        }
                    }
                }
                self.ask(place, &source.ask);
                self.speed(place, source.speed);
                self.audio_fits(place, longest, max_length);
                Some(n_items.saturating_mul(source.ask.len().max(1)))
            }
            SourceConfig::Wild(source) => {
                let n = source.n.values().fold(0, |sum: usize, &n| sum.saturating_add(n));
                self.counts(place, "n of all languages", n);
                self.need(
                    model != "connector" || source.words == WildWords::Open,
                    place,
                    "words is \"all\", expected \"open\": a connector must not hear the entities that evaluation holds back",
                );
                let mut longest = 0;
                for (&language, &n) in &source.n {
                    let texts = self.world.wild_sentences(language, source.words, n.min(LOOKED_AT));
                    longest =
                        texts.iter().map(|text| n_words(text)).max().unwrap_or(0).max(longest);
                }
                self.ask(place, &source.ask);
                self.speed(place, source.speed);
                self.audio_fits(place, longest, max_length);
                Some(n.saturating_mul(source.ask.len().max(1)))
            }
            SourceConfig::Documents(source) => {
                self.counts(place, "n", source.n);
                self.need(
                    (0.0..=1.0).contains(&source.hesitant),
                    place,
                    format_args!("hesitant is {}, expected 0 to 1", source.hesitant),
                );
                self.need(
                    source.max_phrases <= MAX_PHRASES,
                    place,
                    format_args!(
                        "max_phrases is {}, expected at most {MAX_PHRASES}",
                        source.max_phrases
                    ),
                );
                // A word is at least one token.
                let longest = self
                    .world
                    .documents_of(source.kind, "train")
                    .with_lists_of(source.max_phrases)
                    .take(source.n.min(LOOKED_AT))
                    .map(|document| match document {
                        Document::Plain(text) => n_words(&text),
                        Document::Chat(item) => [&item.instruction, &item.spoken, &item.answer]
                            .into_iter()
                            .map(|text| n_words(text))
                            .sum(),
                    })
                    .max()
                    .unwrap_or(0);
                self.need(
                    max_length >= longest as f64,
                    place,
                    format_args!(
                        "batch.max_length is {max_length} tokens, a document has {longest} words"
                    ),
                );
                Some(source.n)
            }
            SourceConfig::Spelling(source) => {
                self.counts(place, "n", source.n);
                Some(source.n)
            }
            SourceConfig::Text(source) => {
                self.at_least_one(place, "max_chars", source.max_chars);
                self.path(&format!("{place}.path"), &source.path);
                None
            }
            SourceConfig::Manifest(source) => self.manifest(place, source, max_length),
        }
    }

    /// Questions that can be asked of any text.
    fn ask(&mut self, place: &str, ask: &[String]) {
        let model = kind(&self.recipe.model);
        self.need(
            ask.is_empty() || model == "connector",
            place,
            format_args!("ask is for connectors, a {model} model is asked nothing"),
        );
        for name in ask {
            match name.parse::<Task>() {
                Err(error) => self.problem(place, error),
                Ok(task) if !ABOUT_WORDS.contains(&task) => {
                    let possible = ABOUT_WORDS.map(Task::name).join(", ");
                    self.problem(
                        place,
                        format_args!("ask has {name}, which needs more than the words; it may have {possible}"),
                    );
                }
                Ok(task) => self.trained_on_speech(place, task),
            }
        }
    }

    fn speed(&mut self, place: &str, [slowest, fastest]: [f64; 2]) {
        self.need(
            0.5 <= slowest && slowest <= fastest && fastest <= 2.0,
            place,
            format_args!(
                "speed is [{slowest}, {fastest}], expected slowest and fastest within 0.5 and 2"
            ),
        );
        let model = kind(&self.recipe.model);
        self.need(
            model != "text" || [slowest, fastest] == AS_SPOKEN,
            place,
            "speed is for models that hear",
        );
    }

    /// What the evaluation says of a task must stay true.
    fn trained_on_speech(&mut self, place: &str, task: Task) {
        if !task.is_speech_trained() {
            self.warnings.push(format!(
                "{place}: the tables of the evaluation say that task {task} was never trained on speech; this recipe makes them wrong"
            ));
        }
    }

    /// Some encoders have positions for so many frames only.
    fn encoder_hears(&mut self, place: &str, what: &str, seconds: f64) {
        let ModelConfig::Ctc(model) = &self.recipe.model else { return };
        let Some(most) = model.encoder.max_feature_frames() else { return };
        let most_s = most as f64 / model.features.rate_hz();
        self.need(
            seconds <= most_s,
            place,
            format_args!(
                "{what} lasts {seconds:.1} s or more, the encoder takes at most {most_s:.1} s"
            ),
        );
    }

    fn audio_fits(&mut self, place: &str, n_words: usize, max_length: f64) {
        let shortest_s = n_words as f64 / FASTEST_WORDS_PER_S;
        self.encoder_hears(place, "an utterance", shortest_s);
        self.need(
            max_length >= shortest_s,
            place,
            format_args!(
                "batch.max_length is {max_length} s, an utterance has {n_words} words and lasts at least {shortest_s:.1} s"
            ),
        );
    }

    /// Reads a manifest; what is wrong with it is a problem of the field that names it.
    fn import(
        &mut self,
        place: &str,
        field: &str,
        path: &str,
        split: Option<&str>,
    ) -> Option<manifest::Import> {
        let place = format!("{place}.{field}");
        let path = self.path(&place, path)?;
        match manifest::import_split(&path, split) {
            Ok(import) => Some(import),
            Err(error) => {
                self.problem(&place, error);
                None
            }
        }
    }

    fn manifest(&mut self, place: &str, source: &ManifestSource, max_length: f64) -> Option<usize> {
        for &speed in &source.speeds {
            self.need(
                (0.5..=2.0).contains(&speed),
                place,
                format_args!("a speed is {speed}, expected 0.5 to 2"),
            );
        }
        self.at_least_one(place, "repeat", source.repeat);
        let import = self.import(place, "path", &source.path, source.split.as_deref())?;
        if let Some(first) = import.rejected.first() {
            self.warnings.push(format!(
                "{place}: {} lines of {} are left out, the first: {first}",
                import.rejected.len(),
                source.path
            ));
        }
        let n = import.utterances.len();
        self.need(n > 0, place, format_args!("{} has no usable utterance", source.path));
        if matches!(self.recipe.model, ModelConfig::Text(_)) {
            return Some(n * source.repeat);
        }
        let longest = import
            .utterances
            .iter()
            .filter_map(|u| Some((u.audio.duration_s?, &u.id)))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((longest_s, id)) = longest {
            let slowest = source.speeds.iter().copied().fold(1.0, f64::min);
            let longest_s = longest_s / slowest;
            self.encoder_hears(place, &format!("utterance {id}"), longest_s);
            self.need(
                max_length >= longest_s,
                place,
                format_args!(
                    "batch.max_length is {max_length} s, utterance {id} lasts {longest_s:.2} s"
                ),
            );
        }
        Some(n * (1 + source.speeds.len()))
    }

    fn eval(&mut self, eval: &EvalConfig) {
        self.counts("eval", "n", eval.n);
        self.at_least_one("eval", "max_tokens", eval.max_tokens);
        for task in eval.tasks.iter().filter(|task| !tasks::is_task(task)) {
            let known: Vec<&str> = tasks::TASKS.iter().map(|(name, _)| *name).collect();
            self.problem(
                "eval.tasks",
                format_args!("no task is called {task:?}; tasks are {}", known.join(", ")),
            );
        }
        for domain in eval.domains.iter().filter(|domain| !tasks::is_domain(domain)) {
            self.problem(
                "eval.domains",
                format_args!(
                    "no domain is called {domain:?}; domains are {}",
                    tasks::DOMAINS.join(", ")
                ),
            );
        }
        if let Some(path) = &eval.manifest {
            self.import("eval", "manifest", path, eval.manifest_split.as_deref());
        }
    }
}

fn n_words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// The sizes that `model.json` of a model directory holds; what else is in it does not matter here.
#[derive(Debug, Deserialize)]
struct Spec {
    kind: String,
    speech: Option<SpeechSpec>,
    text: Option<TextSpec>,
}

#[derive(Debug, Deserialize)]
struct SpeechSpec {
    features: FeatureConfig,
    encoder: EncoderConfig,
}

#[derive(Debug, Deserialize)]
struct TextSpec {
    transformer: TransformerConfig,
    n_tokens: usize,
}
