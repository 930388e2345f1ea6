//! What stages learn from, made ready: text spoken, features computed, frames encoded, tokens cut.
//!
//! ```text
//! SourceConfig ─ texts ─ Studio ─ samples ─ features ─┬─ CtcDataset       (encoder pre-training)
//!                  │                                  └─ frames ─ SpeechDataset  (connectors)
//!                  └─ tokens ─ TextDataset                          (language model)
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rayon::prelude::*;
use sandhi_data::{
    alignment::Alignment,
    audio::Waveform,
    features::{FeatureExtractor, Features},
    language::Language,
    manifest,
    microworld::{Document, Item, Microworld, Split, Style, Task},
    rng::Stream,
    speech::{self, Domain, Studio},
    text::{Characters, Unknown},
};

use crate::{
    chat::Chat,
    frames::FrameCache,
    model::{HostRagged, SpeechModel},
    recipe::{
        DocumentsSource, ManifestSource, MicroworldSource, Recipe, SourceConfig, SpellingSource,
        StageConfig, TextSource, WildSource,
    },
    train::{
        dataset::{CtcDataset, SpeechDataset, TextDataset, Utterance},
        learner::{SpokenItem, TextItem},
    },
};

/// What can go wrong while data are made ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Speech cannot be made.
    #[error(transparent)]
    Speech(#[from] speech::Error),
    /// A sound file cannot be read.
    #[error(transparent)]
    Audio(#[from] sandhi_data::audio::Error),
    /// A manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// Samples have no features.
    #[error("{id}: {error}")]
    Features {
        /// The utterance.
        id: String,
        /// Why.
        error: sandhi_data::features::Error,
    },
    /// Text cannot be tokenized.
    #[error(transparent)]
    Text(#[from] sandhi_data::text::Error),
    /// Frames cannot be cached.
    #[error(transparent)]
    Cache(#[from] crate::checkpoint::Error),
    /// A text file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The source is for another kind of model.
    #[error("stage {stage}: source {source_kind} gives nothing that a {model} model learns from")]
    Unfit {
        /// The stage.
        stage: String,
        /// The source's kind.
        source_kind: &'static str,
        /// The model's kind.
        model: &'static str,
    },
    /// A source without items.
    #[error("stage {stage}: source {source_kind} has no items")]
    Empty {
        /// The stage.
        stage: String,
        /// The source's kind.
        source_kind: &'static str,
    },
    /// A task that Microworld does not have.
    #[error("stage {stage}: {error}")]
    Task {
        /// The stage.
        stage: String,
        /// What is wrong.
        error: String,
    },
}

/// Something to be said, or already recorded.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // a list holds one kind, so boxing would save nothing
pub enum Spoken {
    /// Spoken by the studio.
    Made {
        /// What is said.
        text: String,
        /// In which language.
        language: Language,
        /// How it sounds.
        domain: Domain,
        /// Tells takes of the same text apart.
        take: u64,
    },
    /// A recording.
    Recorded {
        /// The utterance.
        utterance: manifest::Utterance,
        /// 1 as it is, 1.1 a tenth faster.
        speed: f64,
    },
}

impl Spoken {
    /// What is said.
    pub fn text(&self) -> &str {
        match self {
            Self::Made { text, .. } => text,
            Self::Recorded { utterance, .. } => &utterance.text,
        }
    }

    /// A key under which equal sounds are equal.
    fn key(&self) -> String {
        match self {
            Self::Made { text, language, domain, take } => {
                format!("{}\u{0}{}\u{0}{take}\u{0}{text}", language.code(), domain.name())
            }
            Self::Recorded { utterance, speed } => format!("{}\u{0}{speed}", utterance.id),
        }
    }
}

/// What is heard.
#[derive(Debug, Clone)]
pub struct Sound {
    /// 16 kHz samples.
    pub wave: Waveform,
    /// Words with their times, where they are known.
    pub words: Vec<Alignment>,
}

/// Where data come from: the studio, its cache, and the folder that relative paths start at.
#[derive(Debug)]
pub struct Workshop {
    cache: PathBuf,
    base: PathBuf,
    paths: BTreeMap<String, String>,
    studio: OnceLock<Studio>,
    /// Seed of the world; one world for all recipes, so that splits and foundation models agree.
    world: Microworld,
}

/// The seed of the world that all recipes share.
pub const WORLD_SEED: u64 = 1;

impl Workshop {
    /// A workshop that caches below `cache`; the recipe's own paths start at `base`.
    pub fn new(cache: &Path, base: &Path, recipe: &Recipe) -> Self {
        Self {
            cache: cache.to_owned(),
            base: base.to_owned(),
            paths: recipe.paths.clone(),
            studio: OnceLock::new(),
            world: Microworld::new(WORLD_SEED),
        }
    }

    /// The world.
    pub fn world(&self) -> &Microworld {
        &self.world
    }

    /// The studio, opened at first use.
    ///
    /// # Errors
    ///
    /// When espeak-ng is not installed.
    pub fn studio(&self) -> Result<&Studio, speech::Error> {
        if let Some(studio) = self.studio.get() {
            return Ok(studio);
        }
        let studio = Studio::open(Some(&self.cache))?;
        Ok(self.studio.get_or_init(|| studio))
    }

    /// A path of the recipe: `$name` stands for a folder of the command line, everything else starts
    /// at the recipe's folder.
    pub fn resolve(&self, path: &str) -> PathBuf {
        resolve(path, &self.base, &self.paths)
    }

    /// 16 kHz samples of several utterances, in order.
    ///
    /// # Errors
    ///
    /// When one cannot be spoken or read.
    pub fn sounds(&self, spoken: &[Spoken]) -> Result<Vec<Sound>, Error> {
        let made: Vec<speech::Request> = spoken
            .iter()
            .filter_map(|s| match s {
                Spoken::Made { text, language, domain, take } => Some(speech::Request {
                    text: text.clone(),
                    language: *language,
                    domain: *domain,
                    seed: *take,
                }),
                Spoken::Recorded { .. } => None,
            })
            .collect();
        let mut made =
            if made.is_empty() { Vec::new() } else { self.studio()?.speak_many(&made)? }
                .into_iter();
        let recorded: Vec<Option<Result<Sound, Error>>> = spoken
            .par_iter()
            .map(|s| match s {
                Spoken::Made { .. } => None,
                Spoken::Recorded { utterance, speed } => {
                    Some(recording(utterance, *speed).map(|wave| {
                        let words =
                            if *speed == 1.0 { utterance.words.clone() } else { Vec::new() };
                        Sound { wave, words }
                    }))
                }
            })
            .collect();
        recorded
            .into_iter()
            .map(|r| match r {
                Some(recording) => recording,
                None => {
                    let speech = made.next().expect("one speech a request");
                    Ok(Sound { wave: speech.waveform, words: speech.words })
                }
            })
            .collect()
    }

    /// Features of several utterances, in order; samples are dropped as soon as they are heard.
    ///
    /// # Errors
    ///
    /// When one cannot be spoken, read or analyzed.
    pub fn features(
        &self,
        spoken: &[Spoken],
        extractor: &FeatureExtractor,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Vec<Utterance>, Error> {
        let mut out = Vec::with_capacity(spoken.len());
        for chunk in spoken.chunks(CHUNK) {
            let sounds = self.sounds(chunk)?;
            let utterances: Result<Vec<Utterance>, Error> = sounds
                .into_par_iter()
                .zip(chunk)
                .map(|(Sound { wave, words }, spoken)| {
                    let features = extractor
                        .compute(&wave.samples)
                        .map_err(|error| Error::Features { id: spoken.key(), error })?;
                    Ok(Utterance {
                        rows: features.values.into(),
                        duration_s: wave.duration_s(),
                        words,
                    })
                })
                .collect();
            out.extend(utterances?);
            progress(out.len(), spoken.len());
        }
        Ok(out)
    }

    /// Encoder frames of several utterances, in order, from the cache where they are.
    ///
    /// # Errors
    ///
    /// When one cannot be spoken, read or analyzed, or the cache cannot be written.
    pub fn frames(
        &self,
        spoken: &[Spoken],
        speech: &SpeechModel,
        cache: &FrameCache,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Vec<Utterance>, Error> {
        let mut out = Vec::with_capacity(spoken.len());
        for chunk in spoken.chunks(CHUNK) {
            let samples: Vec<Waveform> =
                self.sounds(chunk)?.into_iter().map(|sound| sound.wave).collect();
            let mut known: Vec<(String, Option<Vec<f32>>)> = samples
                .par_iter()
                .map(|wave| {
                    let key = cache.key(&wave.samples, "none");
                    let frames = cache.get(&key);
                    (key, frames)
                })
                .collect();
            let missing: Vec<usize> = (0..chunk.len()).filter(|&i| known[i].1.is_none()).collect();
            let features: Vec<Features> = missing
                .par_iter()
                .map(|&i| {
                    speech
                        .extract(&samples[i].samples)
                        .map_err(|error| Error::Features { id: chunk[i].key(), error })
                })
                .collect::<Result<_, _>>()?;
            // A batch has too little work for several threads, several batches have not.
            let batches: Vec<(SpeechModel, &[Features])> =
                features.chunks(ENCODED_AT_ONCE).map(|batch| (speech.clone(), batch)).collect();
            let encoded: Vec<HostRagged> = batches
                .into_par_iter()
                .map(|(speech, batch)| {
                    let rows = batch.iter().map(|f| f.values.as_slice());
                    speech.encode(&HostRagged::gather(batch[0].n_mels, rows))
                })
                .collect();
            let encoded = encoded.iter().flat_map(HostRagged::sequences);
            for (&i, frames) in missing.iter().zip(encoded) {
                cache.put(&known[i].0, frames)?;
                known[i].1 = Some(frames.to_vec());
            }
            out.extend(known.into_iter().zip(&samples).map(|((_, frames), wave)| Utterance {
                rows: frames.expect("encoded above").into(),
                duration_s: wave.duration_s(),
                words: Vec::new(),
            }));
            progress(out.len(), spoken.len());
        }
        Ok(out)
    }
}

/// Utterances spoken or read at once.
const CHUNK: usize = 512;
/// Utterances encoded at once.
const ENCODED_AT_ONCE: usize = 32;

/// A path of a recipe: `$name/rest` below a given folder, else below the recipe's.
pub fn resolve(path: &str, base: &Path, paths: &BTreeMap<String, String>) -> PathBuf {
    if let Some(rest) = path.strip_prefix('$') {
        let (name, rest) = rest.split_once('/').unwrap_or((rest, ""));
        if let Some(folder) = paths.get(name) {
            let folder = base.join(folder);
            return if rest.is_empty() { folder } else { folder.join(rest) };
        }
    }
    base.join(path)
}

/// Samples of recordings, in order; nothing is spoken.
///
/// # Errors
///
/// When one cannot be read.
pub fn recordings(spoken: &[Spoken]) -> Result<Vec<Waveform>, Error> {
    spoken
        .par_iter()
        .filter_map(|s| match s {
            Spoken::Recorded { utterance, speed } => Some(recording(utterance, *speed)),
            Spoken::Made { .. } => None,
        })
        .collect()
}

fn recording(utterance: &manifest::Utterance, speed: f64) -> Result<Waveform, Error> {
    let audio = &utterance.audio;
    let wave =
        Waveform::read_span(&audio.path, audio.start_s, audio.duration_s)?.resampled(16_000)?;
    if speed == 1.0 {
        return Ok(wave);
    }
    let samples = sandhi_data::augment::speed_perturb(&wave.samples, speed);
    Ok(Waveform { samples, sample_rate_hz: 16_000 })
}

/// A spoken item of a connector's training.
#[derive(Debug, Clone)]
pub struct Lesson {
    /// What is heard.
    pub spoken: Spoken,
    /// What is asked.
    pub instruction: String,
    /// What is to be answered.
    pub answer: String,
}

fn kind(source: &SourceConfig) -> &'static str {
    match source {
        SourceConfig::Microworld(_) => "microworld",
        SourceConfig::Wild(_) => "wild",
        SourceConfig::Documents(_) => "documents",
        SourceConfig::Manifest(_) => "manifest",
        SourceConfig::Text(_) => "text",
        SourceConfig::Spelling(_) => "spelling",
    }
}

fn weight(source: &SourceConfig) -> Option<f64> {
    match source {
        SourceConfig::Microworld(s) => s.weight,
        SourceConfig::Wild(s) => s.weight,
        SourceConfig::Documents(s) => s.weight,
        SourceConfig::Manifest(s) => s.weight,
        SourceConfig::Text(s) => s.weight,
        SourceConfig::Spelling(s) => s.weight,
    }
}

/// Data sets of a stage with their weights, and the items that the dev half is measured on.
pub type Prepared<D> = (Vec<(Option<f64>, D)>, Option<D>);

impl Workshop {
    fn items(
        &self,
        source: &MicroworldSource,
        split: Split,
        n: usize,
        stage: &str,
    ) -> Result<Vec<Item>, Error> {
        let mut items = Vec::new();
        for name in &source.tasks {
            let task: Task = name
                .parse()
                .map_err(|e| Error::Task { stage: stage.to_owned(), error: format!("{e}") })?;
            for &language in source.languages.iter().filter(|&&language| task.speaks(language)) {
                items.extend(self.world.items(task, language, split, Style::Seen, n));
            }
        }
        Ok(items)
    }

    fn wild(&self, source: &WildSource) -> Vec<Spoken> {
        let mut spoken = Vec::new();
        for (&language, &n) in &source.n {
            for (i, text) in self.world.wild_sentences(language, n).into_iter().enumerate() {
                spoken.push(Spoken::Made { text, language, domain: source.domain, take: i as u64 });
            }
        }
        spoken
    }

    fn recorded(&self, source: &ManifestSource) -> Result<Vec<manifest::Utterance>, Error> {
        let mut utterances = manifest::import(&self.resolve(&source.path), None)?.utterances;
        if let Some(split) = &source.split {
            utterances.retain(|u| u.split.as_ref() == Some(split));
        }
        Ok(utterances)
    }

    /// Utterances with transcripts, for a speech foundation model; the second list is held out.
    ///
    /// # Errors
    ///
    /// When a source cannot be read.
    pub fn transcribed(
        &self,
        stage: &StageConfig,
    ) -> Result<(Vec<Vec<Spoken>>, Vec<Spoken>), Error> {
        let (mut lists, mut dev) = (Vec::new(), Vec::new());
        for source in &stage.sources {
            let mut spoken = match source {
                SourceConfig::Wild(source) => self.wild(source),
                SourceConfig::Microworld(source) => self
                    .items(source, Split::Train, source.n, &stage.name)?
                    .into_iter()
                    .enumerate()
                    .map(|(i, item)| made(item.spoken, item.spoken_language, source.domain, i))
                    .collect(),
                SourceConfig::Manifest(source) => {
                    let utterances = self.recorded(source)?;
                    let mut spoken = Vec::new();
                    for speed in std::iter::once(1.0).chain(source.speeds.iter().copied()) {
                        spoken.extend(
                            utterances
                                .iter()
                                .map(|u| Spoken::Recorded { utterance: u.clone(), speed }),
                        );
                    }
                    spoken
                }
                _ => return Err(unfit(stage, source, "ctc")),
            };
            if spoken.is_empty() {
                return Err(Error::Empty { stage: stage.name.clone(), source_kind: kind(source) });
            }
            // Every so many an utterance is held out, but never another speed of one that is heard.
            if !matches!(source, SourceConfig::Manifest(_)) {
                let n = (stage.eval_items / stage.sources.len()).min(spoken.len() / 10);
                let every = spoken.len().checked_div(n).unwrap_or(usize::MAX).max(1);
                let mut i = 0;
                spoken.retain(|s| {
                    i += 1;
                    let held_out = n > 0 && i % every == 0 && dev.len() < stage.eval_items;
                    if held_out {
                        dev.push(s.clone());
                    }
                    !held_out
                });
            }
            lists.push(spoken);
        }
        Ok((lists, dev))
    }

    /// The data sets of a speech foundation model's stage.
    ///
    /// # Errors
    ///
    /// When a source cannot be read, spoken or analyzed.
    pub fn ctc(
        &self,
        stage: &StageConfig,
        speech: &SpeechModel,
        extractor: &FeatureExtractor,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Prepared<CtcDataset>, Error> {
        let (lists, dev) = self.transcribed(stage)?;
        let dataset = |spoken: Vec<Spoken>, augment: bool| -> Result<CtcDataset, Error> {
            let utterances = self.features(&spoken, extractor, progress)?;
            let targets: Result<Vec<Vec<u32>>, _> =
                spoken.iter().map(|s| speech.symbols.encode(s.text(), Unknown::Skip)).collect();
            Ok(CtcDataset {
                items: utterances.into_iter().zip(targets?).collect(),
                n_mels: extractor.n_mels(),
                encoder: speech.encoder.clone(),
                steps_per_frame: speech.ctc.steps_per_frame,
                symbols: speech.symbols.clone(),
                spec_augment: stage.spec_augment.clone().filter(|_| augment),
            })
        };
        let mut sources = Vec::new();
        for (list, source) in lists.into_iter().zip(&stage.sources) {
            sources.push((weight(source), dataset(list, true)?));
        }
        let dev = if dev.is_empty() { None } else { Some(dataset(dev, false)?) };
        Ok((sources, dev))
    }

    /// All transcripts of a stage: what the CTC symbols are collected from.
    ///
    /// # Errors
    ///
    /// When a source cannot be read.
    pub fn symbols(&self, stage: &StageConfig) -> Result<Characters, Error> {
        let (lists, _) = self.transcribed(stage)?;
        Ok(Characters::from_texts(lists.iter().flatten().map(Spoken::text)))
    }

    /// Texts of a stage in documents; chats keep prompt and answer apart.
    fn documents(&self, stage: &StageConfig, source: &SourceConfig) -> Result<Vec<Text>, Error> {
        Ok(match source {
            SourceConfig::Documents(DocumentsSource { kind, n, .. }) => {
                self.world.documents_of(*kind, "train").take(*n).map(Text::from).collect()
            }
            SourceConfig::Text(source) => {
                repeated(text_files(source, &self.resolve(&source.path))?, &source.instructions)
            }
            SourceConfig::Spelling(SpellingSource { n, instructions, .. }) => {
                repeated(spelled(*n), instructions)
            }
            SourceConfig::Manifest(source) => {
                let utterances = self.recorded(source)?;
                let mut documents = Vec::new();
                for round in 0..source.repeat {
                    for (i, u) in utterances.iter().enumerate() {
                        documents.push(document(u.text.clone(), &source.instructions, i + round));
                    }
                }
                documents
            }
            SourceConfig::Microworld(_) | SourceConfig::Wild(_) => {
                return Err(unfit(stage, source, "text"));
            }
        })
    }

    /// Texts that a tokenizer is trained on.
    ///
    /// # Errors
    ///
    /// When a source cannot be read.
    pub fn tokenizer_texts(&self, stage: &StageConfig, n: usize) -> Result<Vec<String>, Error> {
        let mut texts = Vec::new();
        for source in &stage.sources {
            for document in self.documents(stage, source)?.into_iter().take(n) {
                match document {
                    Text::Plain(text) => texts.push(text),
                    Text::Chat { instruction, spoken, answer } => {
                        texts.extend([instruction, spoken, answer]);
                    }
                }
            }
        }
        Ok(texts)
    }

    /// The data sets of a text foundation model's stage.
    ///
    /// # Errors
    ///
    /// When a source cannot be read or its text tokenized.
    pub fn text(&self, stage: &StageConfig, chat: &Chat) -> Result<Prepared<TextDataset>, Error> {
        let (mut sources, mut dev) = (Vec::new(), Vec::new());
        for source in &stage.sources {
            let documents = self.documents(stage, source)?;
            let mut items: Vec<TextItem> = documents
                .par_iter()
                .enumerate()
                .map(|(i, document)| text_item(chat, document, i as u64))
                .collect::<Result<_, _>>()?;
            items.retain(|item| item.ids.len() >= 2);
            let n = (stage.eval_items / stage.sources.len()).min(items.len() / 10);
            dev.extend(items.split_off(items.len() - n));
            if items.is_empty() {
                return Err(Error::Empty { stage: stage.name.clone(), source_kind: kind(source) });
            }
            sources.push((weight(source), TextDataset { items }));
        }
        let dev = (!dev.is_empty()).then_some(TextDataset { items: dev });
        Ok((sources, dev))
    }

    fn lessons(
        &self,
        stage: &StageConfig,
        source: &SourceConfig,
        split: Split,
        n: Option<usize>,
    ) -> Result<Vec<Lesson>, Error> {
        Ok(match source {
            SourceConfig::Microworld(source) => self
                .items(source, split, n.unwrap_or(source.n), &stage.name)?
                .into_iter()
                .enumerate()
                .map(|(i, item)| Lesson {
                    spoken: made(item.spoken, item.spoken_language, source.domain, i),
                    instruction: item.instruction,
                    answer: item.answer,
                })
                .collect(),
            SourceConfig::Manifest(source) => {
                let default = [Task::Transcribe.wordings()[0].to_owned()];
                let list: &[String] =
                    if source.instructions.is_empty() { &default } else { &source.instructions };
                let utterances = self.recorded(source)?;
                let mut lessons = Vec::new();
                for speed in std::iter::once(1.0).chain(source.speeds.iter().copied()) {
                    lessons.extend(utterances.iter().enumerate().map(|(i, u)| Lesson {
                        spoken: Spoken::Recorded { utterance: u.clone(), speed },
                        instruction: list[i % list.len()].clone(),
                        answer: u.text.clone(),
                    }));
                }
                lessons
            }
            _ => return Err(unfit(stage, source, "connector")),
        })
    }

    /// The data sets of a connector's stage. Frames are computed once when `frozen` gives a cache,
    /// else the data sets hold features.
    ///
    /// # Errors
    ///
    /// When a source cannot be read, spoken, analyzed or tokenized.
    pub fn spoken(
        &self,
        stage: &StageConfig,
        speech: &SpeechModel,
        extractor: &FeatureExtractor,
        chat: &Chat,
        frozen: Option<&FrameCache>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Prepared<SpeechDataset>, Error> {
        let dataset = |lessons: Vec<Lesson>| -> Result<SpeechDataset, Error> {
            // Items that hear the same share one utterance.
            let mut index: BTreeMap<String, usize> = BTreeMap::new();
            let (mut spoken, mut items) = (Vec::new(), Vec::new());
            for lesson in lessons {
                let next = spoken.len();
                let utterance = *index.entry(lesson.spoken.key()).or_insert_with(|| {
                    spoken.push(lesson.spoken.clone());
                    next
                });
                let frame = chat.frame(&lesson.instruction)?;
                items.push((
                    utterance,
                    SpokenItem {
                        before: frame.before,
                        after: frame.after,
                        answer: chat.answer(&lesson.answer)?,
                    },
                ));
            }
            let (utterances, width) = match frozen {
                Some(cache) => (self.frames(&spoken, speech, cache, progress)?, speech.d_encoder()),
                None => (self.features(&spoken, extractor, progress)?, extractor.n_mels()),
            };
            Ok(SpeechDataset {
                utterances,
                width,
                encoded: frozen.is_some(),
                items,
                spec_augment: stage.spec_augment.clone().filter(|_| frozen.is_none()),
            })
        };
        let (mut sources, mut dev) = (Vec::new(), Vec::new());
        for source in &stage.sources {
            let lessons = self.lessons(stage, source, Split::Train, None)?;
            if lessons.is_empty() {
                return Err(Error::Empty { stage: stage.name.clone(), source_kind: kind(source) });
            }
            if let SourceConfig::Microworld(_) = source {
                let n = stage.eval_items / stage.sources.len();
                dev.extend(self.lessons(stage, source, Split::Dev, Some(n.div_ceil(4)))?);
            }
            sources.push((weight(source), dataset(lessons)?));
        }
        // Spread over tasks and languages, not the first task alone.
        Stream::named(0, "dev").shuffle(&mut dev);
        dev.truncate(stage.eval_items);
        let dev = if dev.is_empty() { None } else { Some(dataset(dev)?) };
        Ok((sources, dev))
    }
}

fn made(text: String, language: Language, domain: Domain, i: usize) -> Spoken {
    Spoken::Made { text, language, domain, take: i as u64 }
}

fn unfit(stage: &StageConfig, source: &SourceConfig, model: &'static str) -> Error {
    Error::Unfit { stage: stage.name.clone(), source_kind: kind(source), model }
}

/// A document for a language model.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Text {
    /// As it stands.
    Plain(String),
    /// An exchange; only the answer is the model's own.
    Chat { instruction: String, spoken: String, answer: String },
}

impl From<Document> for Text {
    fn from(document: Document) -> Self {
        match document {
            Document::Plain(text) => Self::Plain(text),
            Document::Chat(item) => Self::Chat {
                instruction: item.instruction,
                spoken: item.spoken,
                answer: item.answer,
            },
        }
    }
}

fn repeated(texts: Vec<String>, instructions: &[String]) -> Vec<Text> {
    texts.into_iter().enumerate().map(|(i, text)| document(text, instructions, i)).collect()
}

/// A text as it is, or with one of the instructions as an exchange in which it is written down again.
fn document(text: String, instructions: &[String], i: usize) -> Text {
    match instructions {
        [] => Text::Plain(text),
        list => Text::Chat {
            instruction: list[i % list.len()].clone(),
            spoken: text.clone(),
            answer: text,
        },
    }
}

/// One chat in so many has its transcript as a recognizer writes it: lower case, no punctuation. A
/// text model that is to read transcripts has seen some.
const PLAIN_TRANSCRIPTS: f64 = 0.2;

fn text_item(chat: &Chat, document: &Text, index: u64) -> Result<TextItem, Error> {
    Ok(match document {
        Text::Plain(text) => TextItem { ids: chat.document(text)?, n_prompt: 0 },
        Text::Chat { instruction, spoken, answer } => {
            let frame = chat.frame(instruction)?;
            let mut stream = Stream::named(index, "transcript style");
            let transcript = if stream.chance(PLAIN_TRANSCRIPTS) {
                sandhi_data::text::normalize(spoken)
            } else {
                spoken.clone()
            };
            let mut ids = frame.before;
            ids.extend(chat.tokenizer().encode(&transcript)?);
            ids.extend(frame.after);
            let n_prompt = ids.len();
            ids.extend(chat.answer(answer)?);
            TextItem { ids, n_prompt }
        }
    })
}

/// Paragraphs of text files, cut to length at sentence ends.
fn text_files(source: &TextSource, path: &Path) -> Result<Vec<String>, Error> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    let mut files = BTreeSet::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(io(path))? {
            let file = entry.map_err(io(path))?.path();
            if file.extension().is_some_and(|e| e == "txt" || e == "md") {
                files.insert(file);
            }
        }
    } else {
        files.insert(path.to_owned());
    }
    let mut texts = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(io(&file))?;
        for paragraph in text.split("\n\n") {
            let paragraph = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
            texts.extend(cut(&paragraph, source.max_chars).into_iter().map(|piece| {
                if source.transcript_style {
                    sandhi_data::text::normalize(&piece).to_uppercase()
                } else {
                    piece
                }
            }));
        }
    }
    texts.retain(|text| text.chars().filter(|c| c.is_alphabetic()).count() >= 2);
    Ok(texts)
}

/// Cuts a paragraph at sentence ends so that no piece is longer than asked, if a sentence end allows.
fn cut(paragraph: &str, max_chars: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for sentence in paragraph.split_inclusive(['.', '!', '?', ';']) {
        let last = pieces.last_mut().expect("never empty");
        if !last.is_empty() && last.chars().count() + sentence.chars().count() > max_chars {
            pieces.push(sentence.trim_start().to_owned());
        } else {
            last.push_str(sentence);
        }
    }
    pieces.iter().map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect()
}

/// Spelled letters, digits and number words, as in dictated names, codes and dates.
fn spelled(n: usize) -> Vec<String> {
    const DIGITS: [&str; 10] =
        ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"];
    const TEENS: [&str; 10] = [
        "TEN",
        "ELEVEN",
        "TWELVE",
        "THIRTEEN",
        "FOURTEEN",
        "FIFTEEN",
        "SIXTEEN",
        "SEVENTEEN",
        "EIGHTEEN",
        "NINETEEN",
    ];
    const TENS: [&str; 8] =
        ["TWENTY", "THIRTY", "FORTY", "FIFTY", "SIXTY", "SEVENTY", "EIGHTY", "NINETY"];
    let number = |stream: &mut Stream| match stream.below(3) {
        0 => (*stream.pick(&TEENS)).to_owned(),
        1 => (*stream.pick(&TENS)).to_owned(),
        _ => format!("{} {}", stream.pick(&TENS), DIGITS[1 + stream.below(9)]),
    };
    let mut stream = Stream::named(0, "spelling");
    (0..n)
        .map(|_| {
            let length = 1 + stream.below(9);
            let words: Vec<String> = match stream.below(5) {
                0 => (0..length)
                    .map(|_| char::from(b'A' + stream.below(26) as u8).to_string())
                    .collect(),
                1 => (0..length).map(|_| (*stream.pick(&DIGITS)).to_owned()).collect(),
                2 => (0..1 + length / 3).map(|_| number(&mut stream)).collect(),
                _ => (0..length)
                    .map(|_| match stream.below(3) {
                        0 => (*stream.pick(&DIGITS)).to_owned(),
                        1 => number(&mut stream),
                        _ => char::from(b'A' + stream.below(26) as u8).to_string(),
                    })
                    .collect(),
            };
            words.join(" ")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_start_at_the_recipe_or_at_a_named_folder() {
        let paths = BTreeMap::from([("an4".to_owned(), "/data/an4".to_owned())]);
        let base = Path::new("/recipes");
        assert_eq!(resolve("$an4/train.jsonl", base, &paths), Path::new("/data/an4/train.jsonl"));
        assert_eq!(resolve("x/y.jsonl", base, &paths), Path::new("/recipes/x/y.jsonl"));
    }

    #[test]
    fn long_paragraphs_are_cut_at_sentences() {
        assert_eq!(cut("One two. Three four. Five.", 14), ["One two.", "Three four.", "Five."]);
        assert_eq!(cut("One two. Three.", 100), ["One two. Three."]);
        assert_eq!(cut("  ", 10), Vec::<String>::new());
    }

    #[test]
    fn spelling_has_letters_digits_and_numbers() {
        let texts = spelled(200);
        for word in ["A", "SEVEN", "TWELVE", "FORTY"] {
            assert!(texts.iter().any(|t| t.split(' ').any(|w| w == word)), "no {word}");
        }
        assert_eq!(texts, spelled(200));
    }
}
