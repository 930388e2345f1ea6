//! Sound and what encoders make of it: spoken by the studio or read from files, analyzed, encoded, cached.

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
    microworld::{Microworld, Task},
    rng::{Stream, stream},
    speech::{self, Domain, Studio},
};

use super::Error;
use crate::{
    frames::FrameCache,
    model::{self, HostRagged, SpeechModel},
    recipe::{Form, Recipe, SourceConfig, StageConfig},
    train::dataset::Utterance,
};
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
        /// What the voice is drawn by where several texts are to have one.
        voice: Option<u64>,
        /// 1 as it was spoken, 1.1 a tenth faster.
        speed: f64,
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
    /// The one take of a text in a domain: whatever asks for it hears the same.
    pub fn made(text: String, language: Language, domain: Domain) -> Self {
        let take = Self::take_of(&text);
        Self::Made { text, language, domain, take, voice: None, speed: 1.0 }
    }

    /// The number of the one take of a text.
    pub fn take_of(text: &str) -> u64 {
        stream(0, text) >> 32
    }

    /// Played at one speed from this range, which follows from the text: speed perturbation (Ko et al.,
    /// 2015), with one copy of each utterance. Recordings stay as they are.
    pub fn perturbed(self, [slowest, fastest]: [f64; 2]) -> Self {
        match self {
            Self::Made { text, language, domain, take, voice, .. } => {
                let place = Stream::new(stream(1, &text)).uniform();
                // Thousandths, which is what the resampler works in.
                let speed = (1e3 * (slowest + place * (fastest - slowest))).round() / 1e3;
                Self::Made { text, language, domain, take, voice, speed }
            }
            recorded => recorded,
        }
    }

    /// What is said.
    pub fn text(&self) -> &str {
        match self {
            Self::Made { text, .. } => text,
            Self::Recorded { utterance, .. } => &utterance.text,
        }
    }

    /// A key under which equal sounds are equal.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Made { text, language, domain, take, voice, speed } => {
                let (language, domain) = (language.code(), domain.name());
                let voice = voice.map_or_else(String::new, |voice| format!("\u{0}voice {voice}"));
                format!("{language}\u{0}{domain}\u{0}{take}\u{0}{speed}\u{0}{text}{voice}")
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

impl Sound {
    fn at_speed(self, speed: f64) -> Self {
        if speed == 1.0 {
            return self;
        }
        let samples = sandhi_data::augment::speed_perturb(&self.wave.samples, speed);
        let mut words = self.words;
        for word in &mut words {
            (word.start_s, word.end_s) = (word.start_s / speed, word.end_s / speed);
        }
        Self { wave: Waveform { samples, sample_rate_hz: self.wave.sample_rate_hz }, words }
    }
}

/// Where data come from: the studio, its cache, and the folder that relative paths start at.
#[derive(Debug)]
pub struct Workshop {
    cache: PathBuf,
    base: PathBuf,
    paths: BTreeMap<String, String>,
    studio: OnceLock<Studio>,
    /// Names of the tasks that speech is asked for in training; not known of a recipe without stages.
    taught: Option<BTreeSet<String>>,
    /// What is learned of utterances as units.
    forms: Vec<Form>,
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
            taught: (!recipe.stages.is_empty()).then(|| recipe.asked_of_speech()),
            forms: recipe.forms(),
            world: Microworld::new(WORLD_SEED),
        }
    }

    /// Whether the recipe's stages ask this of speech, or may do so where it has none.
    pub(crate) fn may_have_taught(&self, task: Task) -> bool {
        self.taught.as_ref().is_none_or(|taught| taught.contains(&task.name()))
    }

    /// Whether the recipe's stages learn utterances in this form.
    pub(crate) fn has_learned(&self, form: Form) -> bool {
        self.forms.contains(&form)
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

    /// A hash of what the files say that a stage learns from: utterances of manifests, texts. Not of sound files.
    ///
    /// # Errors
    ///
    /// When one cannot be read.
    pub fn mark(&self, stage: &StageConfig) -> Result<String, Error> {
        let mut hasher = blake3::Hasher::new();
        for source in &stage.sources {
            match source {
                SourceConfig::Manifest(source) => {
                    let utterances = self.recorded(source)?;
                    hasher.update(&serde_json::to_vec(&utterances).expect("utterances serialize"));
                }
                SourceConfig::Text(source) => {
                    for text in super::written::text_files(source, &self.resolve(&source.path))? {
                        hasher.update(text.as_bytes());
                        hasher.update(&[0]);
                    }
                }
                SourceConfig::Units(source) => {
                    let corpus = self.corpus(source)?;
                    for i in 0..corpus.len() {
                        let utterance = corpus.get(i)?;
                        hasher
                            .update(&serde_json::to_vec(&utterance).expect("utterances serialize"));
                    }
                }
                // They follow from the recipe.
                SourceConfig::Microworld(_)
                | SourceConfig::Wild(_)
                | SourceConfig::Documents(_)
                | SourceConfig::Spelling(_)
                | SourceConfig::Stories(_) => {}
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
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
                Spoken::Made { text, language, domain, take, voice, .. } => Some(speech::Request {
                    text: text.clone(),
                    language: *language,
                    domain: *domain,
                    seed: *take,
                    voice: *voice,
                }),
                Spoken::Recorded { .. } => None,
            })
            .collect();
        let mut made =
            if made.is_empty() { Vec::new() } else { self.studio()?.speak_many(&made)? }
                .into_iter();
        let made: Vec<Option<Sound>> = spoken
            .iter()
            .map(|s| match s {
                Spoken::Made { .. } => {
                    let speech = made.next().expect("one speech a request");
                    Some(Sound { wave: speech.waveform, words: speech.words })
                }
                Spoken::Recorded { .. } => None,
            })
            .collect();
        spoken
            .par_iter()
            .zip(made)
            .map(|(s, made)| match s {
                Spoken::Made { speed, .. } => Ok(made.expect("spoken above").at_speed(*speed)),
                Spoken::Recorded { utterance, speed } => recording(utterance, *speed),
            })
            .collect()
    }

    /// Features of several utterances, in order, of at most `max_frames` frames each; samples are dropped as
    /// soon as they are heard.
    ///
    /// # Errors
    ///
    /// When one cannot be spoken, read or analyzed.
    pub fn features(
        &self,
        spoken: &[Spoken],
        extractor: &FeatureExtractor,
        max_frames: Option<usize>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Vec<Utterance>, Error> {
        let mut out = Vec::with_capacity(spoken.len());
        for chunk in spoken.chunks(CHUNK) {
            let sounds = self.sounds(chunk)?;
            let utterances: Result<Vec<Utterance>, Error> = sounds
                .into_par_iter()
                .zip(chunk)
                .map(|(Sound { wave, words }, spoken)| {
                    let features = model::extract(extractor, max_frames, &wave.samples)
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
            // One thread speaks while another encodes: espeak-ng has one voice at a time, and a batch has
            // too little work for several threads.
            let batches: Vec<(SpeechModel, &[Spoken])> =
                chunk.chunks(ENCODED_AT_ONCE).map(|batch| (speech.clone(), batch)).collect();
            let heard: Vec<Vec<Utterance>> = batches
                .into_par_iter()
                .with_max_len(1)
                .map(|(speech, batch)| self.batch_of_frames(batch, &speech, cache))
                .collect::<Result<_, _>>()?;
            out.extend(heard.into_iter().flatten());
            progress(out.len(), spoken.len());
        }
        Ok(out)
    }

    fn batch_of_frames(
        &self,
        spoken: &[Spoken],
        speech: &SpeechModel,
        cache: &FrameCache,
    ) -> Result<Vec<Utterance>, Error> {
        let (waves, words): (Vec<Waveform>, Vec<Vec<Alignment>>) =
            self.sounds(spoken)?.into_iter().map(|sound| (sound.wave, sound.words)).unzip();
        let keys: Vec<String> = waves.iter().map(|wave| cache.key(&wave.samples, "none")).collect();
        let mut frames: Vec<Option<Vec<f32>>> = keys.iter().map(|key| cache.get(key)).collect();
        let missing: Vec<usize> = (0..frames.len()).filter(|&i| frames[i].is_none()).collect();
        let features: Vec<Features> = missing
            .iter()
            .map(|&i| {
                speech
                    .extract(&waves[i].samples)
                    .map_err(|error| Error::Features { id: spoken[i].key(), error })
            })
            .collect::<Result<_, _>>()?;
        if let Some(first) = features.first() {
            let rows = features.iter().map(|f| f.values.as_slice());
            let encoded = speech.encode(&HostRagged::gather(first.n_mels, rows));
            for (&i, rows) in missing.iter().zip(encoded.sequences()) {
                cache.put(&keys[i], rows)?;
                frames[i] = Some(rows.to_vec());
            }
        }
        let heard = frames.into_iter().zip(&waves).zip(words);
        let utterances = heard.map(|((rows, wave), words)| Utterance {
            rows: rows.expect("found or encoded").into(),
            duration_s: wave.duration_s(),
            words,
        });
        Ok(utterances.collect())
    }
}

/// Utterances spoken or read at once.
const CHUNK: usize = 512;
/// Utterances encoded at once.
const ENCODED_AT_ONCE: usize = 16;

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
            Spoken::Recorded { utterance, speed } => {
                Some(recording(utterance, *speed).map(|sound| sound.wave))
            }
            Spoken::Made { .. } => None,
        })
        .collect()
}

fn recording(utterance: &manifest::Utterance, speed: f64) -> Result<Sound, Error> {
    let audio = &utterance.audio;
    let wave =
        Waveform::read_span(&audio.path, audio.start_s, audio.duration_s)?.resampled(16_000)?;
    Ok(Sound { wave, words: utterance.words.clone() }.at_speed(speed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_speed_a_text_and_times_follow_it() {
        let made = |text: &str| Spoken::made(text.into(), Language::English, Domain::Base);
        let speed = |spoken: &Spoken| match spoken {
            Spoken::Made { speed, .. } => *speed,
            Spoken::Recorded { .. } => unreachable!(),
        };
        let speeds: Vec<f64> =
            (0..200).map(|i| speed(&made(&format!("text {i}")).perturbed([0.8, 1.25]))).collect();
        assert!(speeds.iter().all(|s| (0.8..=1.25).contains(s)));
        assert!(speeds.iter().any(|s| *s < 0.85) && speeds.iter().any(|s| *s > 1.2));
        assert_eq!(made("a").perturbed([0.8, 1.25]), made("a").perturbed([0.8, 1.25]));
        assert_ne!(made("a").perturbed([0.8, 0.8]).key(), made("a").key());

        let word = Alignment {
            label: "a".into(),
            start_s: 0.25,
            end_s: 0.5,
            confidence: None,
            source: sandhi_data::alignment::Source::Exact,
        };
        let wave = Waveform { samples: vec![0.0; 16_000], sample_rate_hz: 16_000 };
        let twice = Sound { wave, words: vec![word] }.at_speed(2.0);
        assert!(twice.wave.samples.len().abs_diff(8_000) < 100, "{}", twice.wave.samples.len());
        assert_eq!((twice.words[0].start_s, twice.words[0].end_s), (0.125, 0.25));
    }

    #[test]
    fn what_speech_was_asked_for_is_known_from_the_recipe() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/connectors");
        let taught = |recipe: &Recipe| -> Vec<bool> {
            let workshop = Workshop::new(Path::new("cache"), Path::new("."), recipe);
            let tasks =
                [Task::Transcribe, Task::Translate { to: Language::German }, Task::FirstWord];
            tasks.map(|task| workshop.may_have_taught(task)).to_vec()
        };
        let read = |name: &str| crate::recipe::read(&root.join(name), &Default::default()).unwrap();
        let mut slm = read("slm.toml");
        assert_eq!(taught(&slm), [true, true, false]);
        assert_eq!(taught(&read("forms/multitask.toml")), [true, false, false]);
        slm.stages.clear();
        assert_eq!(taught(&slm), [true; 3]);
    }

    #[test]
    fn paths_start_at_the_recipe_or_at_a_named_folder() {
        let paths = BTreeMap::from([("an4".to_owned(), "/data/an4".to_owned())]);
        let base = Path::new("/recipes");
        assert_eq!(resolve("$an4/train.jsonl", base, &paths), Path::new("/data/an4/train.jsonl"));
        assert_eq!(resolve("x/y.jsonl", base, &paths), Path::new("/recipes/x/y.jsonl"));
    }
}
