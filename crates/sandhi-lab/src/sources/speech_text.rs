//! What models of units and text learn from: stories that are spoken, files of units, text.
//!
//! ```text
//! story ─ Studio ─ samples ─ frames ─ nearest centers ─ units with words ─┬─ interleaved, drawn at every reading
//! unit files ─────────────────────────────────────────────────────────────┼─ spoken, transcribed, voiced
//! text files, stories ────────────────────────────────────────────────────┴─ written
//! ```

use std::sync::Arc;

use sandhi_data::{
    interleave::{self, Document},
    language::Language,
    microworld::{Level, Split, Story, Style},
    patching::UnitMerges,
    rng::Stream,
    speech::Domain,
    text::JointVocabulary,
    units::{UnitCorpus, UnitUtterance, UnitWord, UnitsHeader, words_in_units},
};

use super::{Error, HeldOut, Prepared, Spoken, Workshop, unfit, written::text_files};
use crate::{
    frames::FrameCache,
    model::{Hearing, SpeechModel},
    recipe::{Form, NetworkConfig, SourceConfig, StageConfig, StoriesSource, UnitsSource},
    train::speech_text::{
        Cutting, Material, Meter, Reading, SpeechTextDataset, Utterances, document_of, text_of,
    },
};

/// What documents are made with.
#[derive(Debug)]
pub struct Made<'a> {
    /// What tokens are.
    pub vocabulary: &'a Arc<JointVocabulary>,
    /// Which units those are, or are merges of.
    pub units: &'a UnitsHeader,
    /// Byte-pair merges of units.
    pub merges: Option<&'a Arc<UnitMerges>>,
    /// What makes units of sound.
    pub hearing: Option<&'a Hearing>,
    /// Where frames are kept.
    pub cache: Option<&'a FrameCache>,
    /// What learns from them.
    pub network: &'a NetworkConfig,
    /// How documents are cut into patches.
    pub cutting: &'a Cutting,
    /// Tokens of a document at most.
    pub context: usize,
}

/// Utterances heard at once.
const CHUNK: usize = 256;

/// A story that is told to its end.
fn told(story: &Story) -> String {
    format!("{} {}", story.text(), story.endings[story.right])
}

impl Workshop {
    /// The stories of a source, in turn of every level.
    pub(crate) fn stories(&self, source: &StoriesSource) -> Vec<String> {
        let levels: &[Level] = if source.levels.is_empty() { &Level::ALL } else { &source.levels };
        let n_levels = levels.len();
        let until = source.from + source.n;
        let of_level: Vec<Vec<Story>> = levels
            .iter()
            .enumerate()
            .map(|(i, &level)| {
                let n = until.saturating_sub(i).div_ceil(n_levels);
                self.world().stories(Split::Train, Style::Seen, level, n)
            })
            .collect();
        (source.from..until)
            .filter_map(|i| of_level[i % n_levels].get(i / n_levels).map(told))
            .collect()
    }

    /// Units of several utterances, in order, with the words that are known.
    ///
    /// # Errors
    ///
    /// When one cannot be spoken, read or analyzed, or the cache cannot be written.
    pub(crate) fn units(
        &self,
        spoken: &[Spoken],
        hearing: &Hearing,
        cache: &FrameCache,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Vec<UnitUtterance>, Error> {
        let rate_hz = hearing.speech.frame_rate_hz();
        let mut out = Vec::with_capacity(spoken.len());
        for chunk in spoken.chunks(CHUNK) {
            let heard = self.frames(chunk, &hearing.speech, cache, &|_, _| {})?;
            for (spoken, utterance) in chunk.iter().zip(heard) {
                let units = hearing.centers.assign(&utterance.rows);
                out.push(UnitUtterance {
                    id: spoken.key(),
                    words: words_in_units(&utterance.words, rate_hz, units.len() as u32),
                    units,
                    text: Some(spoken.text().to_owned()),
                    language: None,
                });
            }
            progress(out.len(), spoken.len());
        }
        Ok(out)
    }

    /// Frames of what a stage hears, in an order drawn from the seed, `n_frames` at most: what units are fitted to.
    ///
    /// # Errors
    ///
    /// When one cannot be spoken or analyzed; [`Error::Silent`] when the stage hears nothing.
    pub(crate) fn encoder_frames(
        &self,
        stage: &StageConfig,
        speech: &SpeechModel,
        cache: &FrameCache,
        n_frames: usize,
        seed: u64,
    ) -> Result<Vec<f32>, Error> {
        let mut spoken = Vec::new();
        for source in &stage.sources {
            spoken.extend(self.aloud(stage, source)?);
        }
        if spoken.is_empty() {
            return Err(Error::Silent { stage: stage.name.clone() });
        }
        Stream::named(seed, "units").shuffle(&mut spoken);
        let n_values = n_frames * speech.d_encoder();
        let mut frames = Vec::new();
        for chunk in spoken.chunks(32) {
            for utterance in self.frames(chunk, speech, cache, &|_, _| {})? {
                frames.extend_from_slice(&utterance.rows);
            }
            if frames.len() >= n_values {
                break;
            }
        }
        frames.truncate(n_values);
        Ok(frames)
    }

    /// Units of what a stage hears and of its files, utterance by utterance: what merges and entropies are learned from. Where
    /// there are more than `most`, utterances are drawn, half of what is heard and half of what is in files where there is
    /// both.
    ///
    /// # Errors
    ///
    /// When one cannot be spoken, read or analyzed, or is of other units; [`Error::Silent`] when there is none.
    pub(crate) fn unit_sequences(
        &self,
        stage: &StageConfig,
        units: &UnitsHeader,
        hearing: Option<(&Hearing, &FrameCache)>,
        most: usize,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Vec<Vec<u32>>, Error> {
        let (mut spoken, mut corpora) = (Vec::new(), Vec::new());
        for source in &stage.sources {
            match source {
                SourceConfig::Units(source) => corpora.push(self.corpus_of(source, units, stage)?),
                other => spoken.extend(self.heard_stories(other)),
            }
        }
        let hearing = hearing.filter(|_| !spoken.is_empty());
        let most =
            most / (usize::from(hearing.is_some()) + usize::from(!corpora.is_empty())).max(1);
        let mut sequences = Vec::new();
        let mut stream = Stream::named(0, "unit sequences");
        if let Some((hearing, cache)) = hearing {
            stream.shuffle(&mut spoken);
            let mut n_units = 0;
            for (i, chunk) in spoken.chunks(CHUNK).enumerate() {
                if n_units >= most {
                    break;
                }
                for utterance in self.units(chunk, hearing, cache, &|_, _| {})? {
                    n_units += utterance.units.len();
                    sequences.push(utterance.units);
                }
                progress(i * CHUNK + chunk.len(), spoken.len());
            }
        }
        let all = corpora.iter().enumerate();
        let mut order: Vec<(usize, usize)> =
            all.flat_map(|(corpus, files)| (0..files.len()).map(move |i| (corpus, i))).collect();
        stream.shuffle(&mut order);
        let mut n_units = 0;
        for (corpus, i) in order {
            if n_units >= most {
                break;
            }
            let units = corpora[corpus].get(i)?.units;
            n_units += units.len();
            sequences.push(units);
        }
        match sequences.is_empty() {
            true => Err(Error::Silent { stage: stage.name.clone() }),
            false => Ok(sequences),
        }
    }

    /// What of a source can be heard.
    ///
    /// # Errors
    ///
    /// When the source cannot be read.
    pub(super) fn aloud(
        &self,
        stage: &StageConfig,
        source: &SourceConfig,
    ) -> Result<Vec<Spoken>, Error> {
        let utterances = self.utterances(stage, source)?;
        Ok(utterances.unwrap_or_else(|| self.heard_stories(source)))
    }

    /// What of a source is spoken by the studio.
    fn heard_stories(&self, source: &SourceConfig) -> Vec<Spoken> {
        match source {
            SourceConfig::Stories(source) if source.form != Form::Written => self
                .stories(source)
                .into_iter()
                .map(|text| Spoken::made(text, Language::English, source.domain))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// What is written in a stage, for a tokenizer to learn from: words as utterances have them, and texts.
    ///
    /// # Errors
    ///
    /// When a source cannot be read.
    pub(crate) fn texts_beside_units(
        &self,
        stage: &StageConfig,
        n: usize,
    ) -> Result<Vec<String>, Error> {
        let mut texts = Vec::new();
        for source in &stage.sources {
            match source {
                SourceConfig::Stories(source) => {
                    texts.extend(self.stories(source).into_iter().take(n));
                }
                SourceConfig::Text(source) => {
                    texts.extend(
                        text_files(source, &self.resolve(&source.path))?.into_iter().take(n),
                    );
                }
                SourceConfig::Units(source) => {
                    let corpus = self.corpus(source)?;
                    for i in 0..corpus.len().min(n) {
                        texts.push(text_of(&corpus.get(i)?));
                    }
                }
                other => return Err(unfit(stage, other, "speech_text")),
            }
        }
        Ok(texts)
    }

    /// The files of a source.
    ///
    /// # Errors
    ///
    /// When one is wrong, or they are of several quantizers.
    pub(crate) fn corpus(&self, source: &UnitsSource) -> Result<UnitCorpus, Error> {
        let paths: Vec<_> = source.files.iter().map(|path| self.resolve(path)).collect();
        Ok(UnitCorpus::open(&paths)?)
    }

    /// The files of a source, of these units.
    fn corpus_of(
        &self,
        source: &UnitsSource,
        units: &UnitsHeader,
        stage: &StageConfig,
    ) -> Result<UnitCorpus, Error> {
        let corpus = self.corpus(source)?;
        if corpus.header() == units {
            return Ok(corpus);
        }
        Err(Error::OtherUnits {
            place: format!("stage {}", stage.name),
            file: self.resolve(&source.files[0]),
            found: Box::new(corpus.header().clone()),
            expected: Box::new(units.clone()),
        })
    }

    /// The data sets of a stage of a model over units and text.
    ///
    /// # Errors
    ///
    /// When a source cannot be read, spoken or analyzed, or has units of another quantizer.
    pub(crate) fn speech_text(
        &self,
        stage: &StageConfig,
        made: &Made<'_>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Prepared<SpeechTextDataset>, Error> {
        let dataset = |material: Material| SpeechTextDataset {
            vocabulary: made.vocabulary.clone(),
            cutting: made.cutting.clone(),
            context: made.context,
            rate_hz: made.units.rate_hz,
            merges: made.merges.cloned(),
            material,
            meter: Meter {
                measure: stage.batch.measure,
                network: made.network.clone(),
                n_vocabulary: made.vocabulary.n_tokens(),
            },
        };
        let (mut sources, mut dev) = (Vec::new(), Vec::new());
        let mut materials = Vec::with_capacity(stage.sources.len());
        for source in &stage.sources {
            materials.push(self.found(stage, source, made, progress)?);
        }
        let held_out = HeldOut::new(stage, materials.iter().map(Found::len).sum());
        let parts =
            |document, words: Arc<[UnitWord]>| cut(document, words, made.vocabulary, made.context);
        for (source, found) in stage.sources.iter().zip(materials) {
            let material = match found {
                Found::Texts(texts) => {
                    let mut documents = Vec::new();
                    for text in texts {
                        let document = interleave::written(&text, made.vocabulary)?;
                        let to = if held_out.has(&text) { &mut dev } else { &mut documents };
                        to.extend(parts(document, Arc::from([]))?);
                    }
                    Material::Fixed(documents)
                }
                Found::Utterances(form, mut utterances) => {
                    // What is wrong with one is said now, and not in the middle of training. What is held out is read in
                    // one way, all of it together.
                    let mut n_parts = Vec::new();
                    utterances.retain(|utterance| {
                        let mut stream = interleave::reading_stream(0, 0, &utterance.id);
                        let document = document_of(form, utterance, made.vocabulary, &mut stream)?;
                        let documents = parts(document, utterance.words.as_slice().into())?;
                        let is_held_out = held_out.has(&text_of(utterance));
                        if is_held_out {
                            dev.extend(documents);
                        } else {
                            n_parts.push(documents.len());
                        }
                        Ok(!is_held_out)
                    })?;
                    let all = n_parts.into_iter().enumerate();
                    let parts = all.flat_map(|(i, n)| (0..n).map(move |part| (i, part))).collect();
                    match form {
                        Form::Interleaved => Material::Interleaved(utterances),
                        form => Material::Parts { form, utterances, parts },
                    }
                }
            };
            let dataset = dataset(material);
            if dataset.n_items() == 0 {
                return Err(Error::Empty { stage: stage.name.clone(), source_kind: source.kind() });
            }
            sources.push((source.weight(), dataset));
        }
        let dev = held_out.drawn(dev);
        let dev = if dev.is_empty() { Vec::new() } else { vec![dataset(Material::Fixed(dev))] };
        Ok((sources, dev))
    }

    /// What a source has. Files of units stay files.
    fn found(
        &self,
        stage: &StageConfig,
        source: &SourceConfig,
        made: &Made<'_>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Found, Error> {
        let merges = made.merges.cloned();
        Ok(match source {
            SourceConfig::Stories(stories) if stories.form == Form::Written => {
                Found::Texts(self.stories(stories))
            }
            SourceConfig::Stories(stories) => {
                let (Some(hearing), Some(cache)) = (made.hearing, made.cache) else {
                    return Err(Error::Deaf { stage: stage.name.clone() });
                };
                let spoken = self.heard_stories(source);
                let mut utterances = self.units(&spoken, hearing, cache, progress)?;
                if let Some(merges) = merges {
                    utterances = utterances
                        .into_iter()
                        .map(|utterance| merges.apply_to(utterance))
                        .collect::<Result<_, _>>()?;
                }
                Found::Utterances(stories.form, Utterances::Here(utterances))
            }
            SourceConfig::Units(source) => {
                let corpus = self.corpus_of(source, made.units, stage)?;
                let indices = (0..corpus.len()).collect();
                Found::Utterances(source.form, Utterances::InFiles { corpus, indices, merges })
            }
            SourceConfig::Text(source) => {
                Found::Texts(text_files(source, &self.resolve(&source.path))?)
            }
            other => return Err(unfit(stage, other, "speech_text")),
        })
    }
}

/// What a source has.
enum Found {
    Texts(Vec<String>),
    Utterances(Form, Utterances),
}

impl Found {
    fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Utterances(_, utterances) => utterances.len(),
        }
    }
}

/// A document in parts no longer than the context.
///
/// # Errors
///
/// When the context has no room for more than markers.
pub(crate) fn cut(
    document: Document,
    words: Arc<[UnitWord]>,
    vocabulary: &JointVocabulary,
    context: usize,
) -> Result<Vec<Reading>, interleave::Error> {
    let parts = interleave::split(document, vocabulary, context)?;
    Ok(parts.into_iter().map(|part| (part, words.clone())).collect())
}

/// A text as it is heard in a domain, by the voice that says the text `like` there: sides of an item have one voice.
pub(crate) fn in_domain(text: &str, like: &str, domain: Domain) -> Spoken {
    Spoken::Made {
        text: text.to_owned(),
        language: Language::English,
        domain,
        take: Spoken::take_of(text),
        voice: Some(sandhi_data::rng::stream(0, like)),
        speed: 1.0,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::recipe::{Recipe, read_str};

    fn recipe() -> Recipe {
        const LST: &str = include_str!("../../../../recipes/smoke/lst.toml");
        read_str(LST, Path::new("lst.toml"), &Default::default()).unwrap()
    }

    /// Sources of one recipe can have different stories, of every level in turn.
    #[test]
    fn stories_go_on_where_others_end() {
        let recipe = recipe();
        let workshop = Workshop::new(Path::new("cache"), Path::new("."), &recipe);
        let source = |from, n| StoriesSource {
            weight: None,
            form: Form::Written,
            domain: Domain::Base,
            levels: Vec::new(),
            from,
            n,
        };
        let all = workshop.stories(&source(0, 20));
        assert_eq!(all.len(), 20);
        assert_eq!(workshop.stories(&source(7, 13)), all[7..]);
        let topics = StoriesSource { levels: vec![Level::Topic], ..source(0, 3) };
        assert_eq!(workshop.stories(&topics), [0, 4, 8].map(|i| all[i].clone()));
    }

    /// A context and its endings are said by one, those of another context by somebody else.
    #[test]
    fn sides_of_an_item_have_one_voice() {
        let voice = |text: &str, like: &str| match in_domain(text, like, Domain::Base) {
            Spoken::Made { voice, .. } => voice,
            Spoken::Recorded { .. } => None,
        };
        assert!(voice("a", "a").is_some());
        assert_eq!(voice("a", "a"), voice("b", "a"));
        assert_ne!(voice("a", "a"), voice("a", "b"));
    }
}
