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

use super::{Error, Prepared, Spoken, Workshop, unfit, written::text_files};
use crate::{
    frames::FrameCache,
    model::{Hearing, SpeechModel},
    recipe::{Form, NetworkConfig, SourceConfig, StageConfig, StoriesSource, UnitsSource},
    train::speech_text::{Cutting, Material, Meter, Reading, SpeechTextDataset},
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

    /// Units of what a stage hears and of its files, utterance by utterance: what merges are learned from.
    ///
    /// # Errors
    ///
    /// When one cannot be spoken, read or analyzed; [`Error::Silent`] when there is none.
    pub(crate) fn unit_sequences(
        &self,
        stage: &StageConfig,
        hearing: Option<(&Hearing, &FrameCache)>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Vec<Vec<u32>>, Error> {
        let mut sequences = Vec::new();
        for source in &stage.sources {
            if let SourceConfig::Units(source) = source {
                let corpus = self.corpus(source)?;
                for i in 0..corpus.len() {
                    sequences.push(corpus.get(i)?.units);
                }
            } else if let Some((hearing, cache)) = hearing {
                let heard = self.units(&self.heard_stories(source), hearing, cache, progress)?;
                sequences.extend(heard.into_iter().map(|utterance| utterance.units));
            }
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
            let (form, utterances, texts) = self.material(stage, source, made, progress)?;
            let utterances = match made.merges {
                Some(merges) => utterances
                    .into_iter()
                    .map(|utterance| merges.apply_to(utterance))
                    .collect::<Result<_, _>>()?,
                None => utterances,
            };
            materials.push((form, utterances, texts));
        }
        let n_items: usize = materials.iter().map(|(_, u, t)| u.len() + t.len()).sum();
        let share = (stage.eval_items as f64 / n_items.max(1) as f64).min(0.1);
        // By what is said, so that no source learns what another one holds out.
        let is_held_out = |text: &str| Stream::named(0, &format!("dev {text}")).chance(share);
        for (source, (form, utterances, texts)) in stage.sources.iter().zip(materials) {
            let (held_utterances, utterances): (Vec<_>, Vec<_>) =
                utterances.into_iter().partition(|utterance| is_held_out(&text_of(utterance)));
            let (held_texts, texts): (Vec<_>, Vec<_>) =
                texts.into_iter().partition(|text| is_held_out(text));
            // What is held out is read in one way, all of it together.
            match learned(form, held_utterances, held_texts, made)? {
                Material::Fixed(documents) => dev.extend(documents),
                Material::Interleaved(utterances) => {
                    for utterance in utterances {
                        let mut stream = interleave::reading_stream(0, 0, &utterance.id);
                        let document =
                            interleave::interleaved(&utterance, made.vocabulary, &mut stream)?;
                        dev.extend(cut(
                            document,
                            utterance.words.into(),
                            made.vocabulary,
                            made.context,
                        )?);
                    }
                }
            }
            let material = learned(form, utterances, texts, made)?;
            let is_empty = match &material {
                Material::Fixed(documents) => documents.is_empty(),
                Material::Interleaved(utterances) => utterances.is_empty(),
            };
            if is_empty {
                return Err(Error::Empty { stage: stage.name.clone(), source_kind: source.kind() });
            }
            sources.push((source.weight(), dataset(material)));
        }
        // Of every kind in each batch.
        Stream::named(0, "dev").shuffle(&mut dev);
        dev.truncate(stage.eval_items);
        let dev = if dev.is_empty() { Vec::new() } else { vec![dataset(Material::Fixed(dev))] };
        Ok((sources, dev))
    }

    /// What a source has: utterances, or texts.
    fn material(
        &self,
        stage: &StageConfig,
        source: &SourceConfig,
        made: &Made<'_>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<(Form, Vec<UnitUtterance>, Vec<String>), Error> {
        Ok(match source {
            SourceConfig::Stories(stories) if stories.form == Form::Written => {
                (Form::Written, Vec::new(), self.stories(stories))
            }
            SourceConfig::Stories(stories) => {
                let (Some(hearing), Some(cache)) = (made.hearing, made.cache) else {
                    return Err(Error::Deaf { stage: stage.name.clone() });
                };
                let spoken = self.heard_stories(source);
                (stories.form, self.units(&spoken, hearing, cache, progress)?, Vec::new())
            }
            SourceConfig::Units(source) => {
                let corpus = self.corpus(source)?;
                if corpus.header() != made.units {
                    return Err(Error::OtherUnits {
                        stage: stage.name.clone(),
                        file: self.resolve(&source.files[0]),
                        found: Box::new(corpus.header().clone()),
                        expected: Box::new(made.units.clone()),
                    });
                }
                let utterances: Result<Vec<UnitUtterance>, _> =
                    (0..corpus.len()).map(|i| corpus.get(i)).collect();
                let utterances = utterances?;
                match source.form {
                    Form::Written => {
                        (Form::Written, Vec::new(), utterances.iter().map(text_of).collect())
                    }
                    form => (form, utterances, Vec::new()),
                }
            }
            SourceConfig::Text(source) => {
                (Form::Written, Vec::new(), text_files(source, &self.resolve(&source.path))?)
            }
            other => return Err(unfit(stage, other, "speech_text")),
        })
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

/// Utterances, or texts, in the form in which they are learned.
fn learned(
    form: Form,
    utterances: Vec<UnitUtterance>,
    texts: Vec<String>,
    made: &Made<'_>,
) -> Result<Material, Error> {
    let vocabulary = made.vocabulary;
    let whole =
        |of: fn(&UnitUtterance, &JointVocabulary) -> Result<Document, interleave::Error>| {
            let mut documents = Vec::new();
            for utterance in &utterances {
                let words = Arc::from(utterance.words.as_slice());
                documents.extend(cut(of(utterance, vocabulary)?, words, vocabulary, made.context)?);
            }
            Ok(Material::Fixed(documents))
        };
    match form {
        Form::Interleaved => {
            // What is wrong with one is said now, and not in the middle of training.
            for utterance in &utterances {
                let mut stream = interleave::reading_stream(0, 0, &utterance.id);
                interleave::interleaved(utterance, vocabulary, &mut stream)?;
            }
            Ok(Material::Interleaved(utterances))
        }
        Form::Spoken => whole(interleave::spoken),
        Form::Transcribed => whole(|utterance, vocabulary| {
            interleave::transcribed(utterance, &text_of(utterance), vocabulary)
        }),
        Form::Voiced => whole(|utterance, vocabulary| {
            interleave::voiced(&text_of(utterance), utterance, vocabulary)
        }),
        Form::Written => {
            let mut documents = Vec::new();
            for text in texts {
                let document = interleave::written(&text, vocabulary)?;
                documents.extend(cut(document, Arc::from([]), vocabulary, made.context)?);
            }
            Ok(Material::Fixed(documents))
        }
    }
}

/// What is said, as it was written down or as its words.
pub(crate) fn text_of(utterance: &UnitUtterance) -> String {
    utterance.text.clone().unwrap_or_else(|| {
        let words: Vec<&str> = utterance.words.iter().map(|word| word.word.as_str()).collect();
        words.join(" ")
    })
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

    /// Each form of an utterance is the document that its name says.
    #[test]
    fn an_utterance_has_its_sides_in_the_order_of_its_form() {
        use sandhi_data::text::{Mode, Tokenizer};

        use crate::chat::END;
        let tokenizer = Tokenizer::train_bpe(["hello there"; 4], 270, &[END]).unwrap();
        let vocabulary = JointVocabulary::extend(&tokenizer, END, END, 3).unwrap();
        let utterance = UnitUtterance {
            id: "a".into(),
            units: vec![2, 1],
            words: Vec::new(),
            text: Some("hello there".into()),
            language: None,
        };
        let network = serde_json::json!({
            "kind": "plain", "d_model": 8, "n_layers": 1, "n_heads": 2, "d_ff": 12,
        });
        let vocabulary = Arc::new(vocabulary);
        let made = Made {
            vocabulary: &vocabulary,
            units: &UnitsHeader { quantizer: "a".into(), n_units: 3, rate_hz: 25.0 },
            merges: None,
            hearing: None,
            cache: None,
            network: &serde_json::from_value(network).unwrap(),
            cutting: &Cutting::Plain,
            context: 100,
        };
        let of = |form| match learned(form, vec![utterance.clone()], Vec::new(), &made).unwrap() {
            Material::Fixed(documents) => documents[0].0.ids.clone(),
            Material::Interleaved(_) => panic!("{form:?} is drawn at every reading"),
        };
        let begin = vec![vocabulary.begin()];
        let end = vec![vocabulary.end()];
        let said: Vec<u32> = vec![
            vocabulary.marker(Mode::Speech),
            vocabulary.unit(2).unwrap(),
            vocabulary.unit(1).unwrap(),
        ];
        let pieces = tokenizer.encode("hello there").unwrap();
        let written = [vec![vocabulary.marker(Mode::Text)], pieces].concat();
        let all = |parts: &[&Vec<u32>]| -> Vec<u32> {
            parts.iter().flat_map(|part| part.iter().copied()).collect()
        };
        assert_eq!(of(Form::Spoken), all(&[&begin, &said, &end]));
        assert_eq!(of(Form::Transcribed), all(&[&begin, &said, &written, &end]));
        assert_eq!(of(Form::Voiced), all(&[&begin, &written, &said, &end]));
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

    #[test]
    fn what_is_said_is_its_text_or_its_words() {
        let utterance = |text: Option<&str>| UnitUtterance {
            id: "a".into(),
            units: vec![0; 4],
            words: vec![("hello".to_owned(), 0, 2).into(), ("there".to_owned(), 2, 4).into()],
            text: text.map(str::to_owned),
            language: None,
        };
        assert_eq!(text_of(&utterance(Some("Hello, there."))), "Hello, there.");
        assert_eq!(text_of(&utterance(None)), "hello there");
    }
}
