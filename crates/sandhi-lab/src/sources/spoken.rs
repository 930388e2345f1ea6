//! What is heard: utterances with transcripts for speech models, spoken items for connectors.

use std::collections::BTreeMap;

use sandhi_data::{
    features::FeatureExtractor,
    language::Language,
    manifest,
    microworld::{Item, Split, Style, Task},
    rng::Stream,
    speech::Domain,
    text::{Characters, Unknown},
};

use sandhi_nn::connector::ConnectorConfig;

use super::{
    Error, Prepared, Spoken, Workshop,
    said::{Wanted, ends, said},
    unfit,
};
use crate::{
    chat::Chat,
    frames::FrameCache,
    model::SpeechModel,
    recipe::{
        AS_SPOKEN, CtcModelConfig, ManifestSource, MicroworldSource, SourceConfig, StageConfig,
        WildSource,
    },
    train::{
        dataset::{ConnectorDataset, CtcDataset, SpeechDataset, TextDataset},
        learner::{Said, SpokenItem},
    },
};

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

fn lesson(item: Item, domain: Domain, speed: [f64; 2]) -> Lesson {
    Lesson {
        spoken: Spoken::made(item.spoken, item.spoken_language, domain).perturbed(speed),
        instruction: item.instruction,
        answer: item.answer,
    }
}

fn task_named(name: &str, stage: &str) -> Result<Task, Error> {
    name.parse().map_err(|e| Error::Task { stage: stage.to_owned(), error: format!("{e}") })
}

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
            let task = task_named(name, stage)?;
            for &language in source.languages.iter().filter(|&&language| task.speaks(language)) {
                items.extend(self.world().items(task, language, split, Style::Seen, n));
            }
        }
        Ok(items)
    }

    fn wild_texts(&self, source: &WildSource) -> Vec<(Language, String)> {
        let of = |(&language, &n): (&Language, &usize)| {
            let texts = self.world().wild_sentences(language, source.words, n);
            texts.into_iter().map(move |text| (language, text))
        };
        source.n.iter().flat_map(of).collect()
    }

    /// Every question of every text; to transcribe it where none is given.
    fn asked(
        &self,
        ask: &[String],
        texts: impl IntoIterator<Item = (Language, String)>,
        stage: &str,
    ) -> Result<Vec<Item>, Error> {
        let mut tasks: Vec<Task> =
            ask.iter().map(|name| task_named(name, stage)).collect::<Result<_, _>>()?;
        if tasks.is_empty() {
            tasks.push(Task::Transcribe);
        }
        let mut items = Vec::new();
        for (language, text) in texts {
            items.extend(tasks.iter().map(|&task| self.world().item_of(task, language, &text)));
        }
        Ok(items)
    }

    pub(super) fn recorded(
        &self,
        source: &ManifestSource,
    ) -> Result<Vec<manifest::Utterance>, Error> {
        let path = self.resolve(&source.path);
        Ok(manifest::import_split(&path, source.split.as_deref())?.utterances)
    }

    /// Utterances of a source that has transcripts; none of others.
    pub(super) fn utterances(
        &self,
        stage: &StageConfig,
        source: &SourceConfig,
    ) -> Result<Option<Vec<Spoken>>, Error> {
        Ok(Some(match source {
            SourceConfig::Wild(source) => {
                let texts = self.wild_texts(source).into_iter();
                texts.map(|(language, text)| Spoken::made(text, language, source.domain)).collect()
            }
            SourceConfig::Microworld(source) => self
                .items(source, Split::Train, source.n, &stage.name)?
                .into_iter()
                .map(|item| Spoken::made(item.spoken, item.spoken_language, source.domain))
                .collect(),
            SourceConfig::Manifest(source) => {
                let utterances = self.recorded(source)?;
                let mut spoken = Vec::new();
                for speed in std::iter::once(1.0).chain(source.speeds.iter().copied()) {
                    spoken.extend(
                        utterances.iter().map(|u| Spoken::Recorded { utterance: u.clone(), speed }),
                    );
                }
                spoken
            }
            _ => return Ok(None),
        }))
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
            let spoken = self.utterances(stage, source)?;
            let mut spoken = spoken.ok_or_else(|| unfit(stage, source, "ctc"))?;
            if spoken.is_empty() {
                return Err(Error::Empty { stage: stage.name.clone(), source_kind: source.kind() });
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
            // What is held out is heard as it was spoken.
            if let SourceConfig::Wild(WildSource { speed, .. })
            | SourceConfig::Microworld(MicroworldSource { speed, .. }) = source
            {
                spoken = spoken.into_iter().map(|s| s.perturbed(*speed)).collect();
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
        config: &CtcModelConfig,
        extractor: &FeatureExtractor,
        symbols: &Characters,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Prepared<CtcDataset>, Error> {
        let (lists, dev) = self.transcribed(stage)?;
        let dataset = |spoken: Vec<Spoken>, augment: bool| -> Result<CtcDataset, Error> {
            let max_frames = config.encoder.max_feature_frames();
            let utterances = self.features(&spoken, extractor, max_frames, progress)?;
            let targets: Result<Vec<Vec<u32>>, _> =
                spoken.iter().map(|s| symbols.encode(s.text(), Unknown::Skip)).collect();
            Ok(CtcDataset {
                items: utterances.into_iter().zip(targets?).collect(),
                n_mels: extractor.n_mels(),
                rate_hz: extractor.rate_hz(),
                encoder: config.encoder.clone(),
                steps_per_frame: config.ctc.steps_per_frame,
                symbols: symbols.clone(),
                spec_augment: stage.spec_augment.clone().filter(|_| augment),
            })
        };
        let mut sources = Vec::new();
        for (list, source) in lists.into_iter().zip(&stage.sources) {
            sources.push((source.weight(), dataset(list, true)?));
        }
        let dev = if dev.is_empty() { Vec::new() } else { vec![dataset(dev, false)?] };
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

    fn lessons(
        &self,
        stage: &StageConfig,
        source: &SourceConfig,
        split: Split,
        n: Option<usize>,
    ) -> Result<Vec<Lesson>, Error> {
        Ok(match source {
            SourceConfig::Microworld(source) => {
                let n = n.unwrap_or(source.n);
                let mut items = self.items(source, split, n, &stage.name)?;
                if !source.ask.is_empty() {
                    let texts = items.into_iter().map(|item| (item.spoken_language, item.spoken));
                    items = self.asked(&source.ask, texts, &stage.name)?;
                }
                // What is held out is heard as it was spoken.
                let speed = if split == Split::Train { source.speed } else { AS_SPOKEN };
                items.into_iter().map(|item| lesson(item, source.domain, speed)).collect()
            }
            SourceConfig::Manifest(source) => {
                let default = [Task::Transcribe.wordings()[0].to_owned()];
                let list: &[String] =
                    if source.instructions.is_empty() { &default } else { &source.instructions };
                let utterances = self.recorded(source)?;
                let mut lessons = Vec::new();
                for speed in std::iter::once(1.0).chain(source.speeds.iter().copied()) {
                    lessons.extend(utterances.iter().enumerate().map(|(i, u)| {
                        let own = u.instruction.as_ref().filter(|_| source.instructions.is_empty());
                        let own = own.map(|text| text.replace("<audio>", "").trim().to_owned());
                        Lesson {
                            spoken: Spoken::Recorded { utterance: u.clone(), speed },
                            instruction: own.unwrap_or_else(|| list[i % list.len()].clone()),
                            answer: u.answer.as_ref().unwrap_or(&u.text).clone(),
                        }
                    }));
                }
                lessons
            }
            SourceConfig::Wild(source) if split == Split::Train => {
                let items = self.asked(&source.ask, self.wild_texts(source), &stage.name)?;
                items.into_iter().map(|item| lesson(item, source.domain, source.speed)).collect()
            }
            _ => return Err(unfit(stage, source, "connector")),
        })
    }

    /// The data sets of a connector's stage. Frames are computed once when `frozen` gives a cache,
    /// else the data sets hold features. Some may be text that the language model reads beside.
    ///
    /// # Errors
    ///
    /// When a source cannot be read, spoken, analyzed or tokenized.
    pub fn spoken(
        &self,
        stage: &StageConfig,
        speech: &SpeechModel,
        (connector, pad): (&ConnectorConfig, Option<u32>),
        chat: &Chat,
        frozen: Option<&FrameCache>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Prepared<ConnectorDataset>, Error> {
        let extractor = speech.extractor();
        let needs = connector.needs();
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
                        said: Said::default(),
                        begin: chat.layout().begin,
                    },
                ));
            }
            let (utterances, width) = match frozen {
                Some(cache) => (self.frames(&spoken, speech, cache, progress)?, speech.d_encoder()),
                None => {
                    let max_frames = speech.config.max_feature_frames();
                    let features = self.features(&spoken, extractor, max_frames, progress)?;
                    (features, extractor.n_mels())
                }
            };
            let texts: Vec<&str> = spoken.iter().map(Spoken::text).collect();
            let wanted =
                Wanted { loss: &stage.loss, tokens: needs.said, encoded: frozen.is_some() };
            let said = said(&wanted, chat, speech, &texts, &utterances)?;
            let ends = if needs.segments {
                let ends = ends(chat, speech, &texts, &utterances, frozen.is_some())?;
                items.retain(|(utterance, _)| !ends[*utterance].is_empty());
                ends
            } else {
                Vec::new()
            };
            for (utterance, item) in &mut items {
                item.said.clone_from(&said[*utterance]);
            }
            let items = sayable(items, connector, pad, &texts)?;
            Ok(SpeechDataset {
                utterances,
                width,
                encoded: frozen.is_some(),
                items,
                spec_augment: stage.spec_augment.clone().filter(|_| frozen.is_none()),
                ends,
                penalties: connector.penalties(),
            })
        };
        let (mut sources, mut dev, mut read) = (Vec::new(), Vec::new(), Vec::new());
        for source in &stage.sources {
            if source.is_written() {
                let (dataset, held_out) = self.written(stage, source, chat)?;
                sources.push((source.weight(), ConnectorDataset::Written(dataset)));
                read.extend(held_out);
                continue;
            }
            let lessons = self.lessons(stage, source, Split::Train, None)?;
            if lessons.is_empty() {
                return Err(Error::Empty { stage: stage.name.clone(), source_kind: source.kind() });
            }
            if let SourceConfig::Microworld(_) = source {
                let n = stage.eval_items / stage.sources.len();
                dev.extend(self.lessons(stage, source, Split::Dev, Some(n.div_ceil(4)))?);
            }
            sources.push((source.weight(), ConnectorDataset::Spoken(dataset(lessons)?)));
        }
        // Spread over tasks and languages, not the first task alone.
        Stream::named(0, "dev").shuffle(&mut dev);
        dev.truncate(stage.eval_items);
        let mut measured = Vec::new();
        if !dev.is_empty() {
            measured.push(ConnectorDataset::Spoken(dataset(dev)?));
        }
        if !read.is_empty() {
            measured.push(ConnectorDataset::Written(TextDataset { items: read }));
        }
        Ok((sources, measured))
    }
}

/// Items that the connector can learn from; the others are warned of.
fn sayable(
    items: Vec<(usize, SpokenItem)>,
    connector: &ConnectorConfig,
    pad: Option<u32>,
    texts: &[&str],
) -> Result<Vec<(usize, SpokenItem)>, Error> {
    let can_say = |(_, item): &(usize, SpokenItem)| connector.can_say(&item.said.tokens, pad);
    let (good, bad): (Vec<_>, Vec<_>) = items.into_iter().partition(can_say);
    let Some(text) = bad.first().map(|(utterance, _)| texts[*utterance]) else { return Ok(good) };
    if good.is_empty() {
        return Err(Error::Unsayable { text: text.to_owned() });
    }
    tracing::warn!(
        "{} of {} items are left out: their text has the pad, or tokens that the connector cannot say; the first: {text:?}",
        bad.len(),
        good.len() + bad.len(),
    );
    Ok(good)
}

#[cfg(test)]
mod tests {
    use sandhi_data::microworld::WildWords;

    use super::*;
    use crate::recipe::{ModelConfig, Overrides, read};

    /// Transport needs more speech than text. Where a vector stands for more than a token there is nothing to compress.
    #[test]
    fn there_are_more_vectors_than_tokens() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let recipe = read(&root.join("recipes/otreg/base.toml"), &Overrides::default()).unwrap();
        let ModelConfig::Connector(model) = &recipe.model else { panic!("it has a connector") };
        let dir = tempfile::tempdir().unwrap();
        let workshop = Workshop::new(dir.path(), &root, &recipe);
        let device = burn::prelude::Device::flex();
        let hub = crate::hf::Hub::offline(dir.path().join("hub"));
        let load = |name: &str| {
            crate::model::AnyModel::load(&root.join("weights").join(name), &device, &hub)
        };
        let (Ok(crate::model::AnyModel::Ctc(speech)), Ok(crate::model::AnyModel::Text(text))) =
            (load("encoder"), load("language_model"))
        else {
            panic!("weights/ holds the foundation models");
        };
        let (mut n_vectors, mut n_tokens) = (0, 0);
        for language in [Language::English, Language::German, Language::Spanish] {
            let world = workshop.world();
            let items = world.items(Task::Transcribe, language, Split::Train, Style::Seen, 12);
            // Half of what is learned from is words in no order.
            let salad = world.wild_sentences(language, WildWords::Open, 12);
            let spoken: Vec<Spoken> = items
                .into_iter()
                .map(|item| item.spoken)
                .chain(salad)
                .map(|text| Spoken::made(text, language, Domain::Base))
                .collect();
            let extractor = speech.extractor();
            let heard = workshop.features(&spoken, extractor, None, &|_, _| {}).unwrap();
            for (spoken, utterance) in spoken.iter().zip(heard) {
                let frames = utterance.rows.len() / extractor.n_mels();
                let frames = speech.config.length(frames).bound();
                n_vectors += model.connector.length(frames).bound();
                n_tokens += text.chat.transcript(spoken.text()).unwrap().len();
            }
        }
        let ratio = n_vectors as f64 / n_tokens as f64;
        assert!(ratio >= 1.5, "{n_vectors} vectors of {n_tokens} tokens");
    }
}
