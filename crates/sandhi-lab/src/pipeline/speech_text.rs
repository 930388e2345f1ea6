//! Language models over text and units: units and vocabulary first, then the network.
//!
//! ```text
//! what the first stage hears ─ encoder ─ k-means ─ DIR/units.npy ─┐
//! what it reads ─ BPE ─ DIR/tokenizer.json, units in it ──────────┴─ SpeechTextNet ─ stages ─> SpeechTextModel
//! or a text model ──────┴───────────────────────────────────────────┘ which begins as it
//! ```

use std::sync::Arc;

use burn::prelude::*;
use sandhi_data::{
    patching::{EntropyConfig, Patching, PatchingConfig, UnitEntropy, UnitMerges},
    text::{JointVocabulary, Tokenizer},
    units::UnitsHeader,
};
use sandhi_nn::init::Init;

use super::{
    Error, Place,
    connector::{encoder_base, text_base},
    fitted, marks, stages,
};
use crate::{
    chat::END,
    checkpoint::write_atomically,
    frames::FrameCache,
    model::{AnyModel, ENTROPY, Hearing, MERGES, SpeechTextModel, TextModel},
    recipe::{
        Recipe, SourceConfig, SpeechTextModelConfig, SpeechUnitsConfig, TokenizerConfig,
        UnitsConfig,
    },
    sources::{self, Made, Workshop},
    train::{Monitor, speech_text::Cutting},
    units::Kmeans,
};

/// Units that merges are learned from, at most; all of them are in memory.
const MERGED: usize = 20_000_000;

/// Trains a model over text and units; none when it was interrupted.
pub(super) fn speech_text(
    recipe: &Recipe,
    config: &SpeechTextModelConfig,
    place: &Place,
    workshop: &Workshop,
    monitor: &mut dyn Monitor,
) -> Result<Option<AnyModel>, Error> {
    let hearing = hearing(recipe, &config.units, place, workshop, monitor)?;
    let units = match &hearing {
        Some(hearing) => hearing.header(),
        None => header(recipe, workshop)?,
    };
    let cache = hearing
        .as_ref()
        .map(|hearing| FrameCache::new(&place.cache, &hearing.speech.frames_fingerprint()));
    let heard = hearing.as_ref().zip(cache.as_ref());
    let merges = match config.unit_merges {
        Some(n) => Some(Arc::new(merges(recipe, n, place, workshop, &units, heard, monitor)?)),
        None => None,
    };
    let n_symbols = merges.as_ref().map_or(units.n_units, |merges| merges.n_symbols());
    let text = match &config.language_model {
        // Its weights go where the network is; of it nothing stays.
        Some(base) => Some(text_base(base, workshop, &Device::flex(), &place.hub)?),
        None => None,
    };
    let vocabulary = match (&text, &config.tokenizer) {
        (Some(text), None) => extended(text, config.edges.as_ref(), place, n_symbols, monitor)?,
        (None, Some(tokenizer)) => learned(recipe, tokenizer, place, workshop, n_symbols, monitor)?,
        _ => return Err(Error::NoTokenizer),
    };
    let vocabulary = Arc::new(vocabulary);
    let init = Init::new(recipe.seed, &place.device.clone().autodiff());
    let mut net = config.network.init(vocabulary.n_tokens(), &init);
    if let Some(text) = text {
        net = net.begin_as(&text, &vocabulary, recipe.seed)?;
    }
    let patching = match config.patching.clone().filter(|_| config.network.wants_patching()) {
        Some(patching) => {
            let entropy = match &patching {
                PatchingConfig::Entropy(config) => Some(Arc::new(entropy(
                    recipe, config, place, workshop, &units, heard, monitor,
                )?)),
                _ => None,
            };
            Some(Patching::new(patching, entropy))
        }
        None => None,
    };
    let context = config.context;
    let also = format!("{:?}{}", units, vocabulary.tokenizer().to_json()?);
    let sources = marks(recipe, place, workshop, &also)?;
    let cutting = Cutting::new(&config.network, patching.as_ref(), config.closure);
    let later = patching.as_ref().map(Patching::finished);
    let later = Cutting::new(&config.network, later.as_ref(), config.closure);
    // The weights are handed on, so that those of the beginning do not stay beside those that are trained.
    let net = stages(recipe, place, monitor, net, &sources, |i, monitor| {
        let progress = |done, total| monitor.preparing("speaking and encoding", done, total);
        let made = Made {
            vocabulary: &vocabulary,
            units: &units,
            merges: merges.as_ref(),
            hearing: hearing.as_ref(),
            cache: cache.as_ref(),
            network: &config.network,
            cutting: if i == 0 { &cutting } else { &later },
            context,
        };
        Ok(workshop.speech_text(&recipe.stages[i], &made, &progress)?)
    })?;
    let Some(net) = net else { return Ok(None) };
    let model = SpeechTextModel {
        units,
        merges,
        config: config.network.clone(),
        patching,
        closure: config.closure,
        context,
        net: net.valid(),
        vocabulary,
        hearing,
    };
    Ok(Some(AnyModel::SpeechText(Box::new(model))))
}

/// The encoder and the centers that make units; none where units come in files.
pub(super) fn hearing(
    recipe: &Recipe,
    config: &SpeechUnitsConfig,
    place: &Place,
    workshop: &Workshop,
    monitor: &mut dyn Monitor,
) -> Result<Option<Hearing>, Error> {
    let SpeechUnitsConfig::Encoder { encoder, centers } = config else { return Ok(None) };
    let speech = encoder_base(encoder, "model.units.encoder", workshop, &place.device, &place.hub)?;
    let centers = match centers {
        UnitsConfig::File { path, .. } => Kmeans::read(&workshop.resolve(path))?,
        UnitsConfig::Fit { n, n_frames, iterations } => {
            let cache = FrameCache::new(&place.cache, &speech.frames_fingerprint());
            fitted(recipe, place, monitor, (*n, *iterations), speech.d_encoder(), || {
                let stage = &recipe.stages[0];
                Ok(workshop.encoder_frames(stage, &speech, &cache, *n_frames, recipe.seed)?)
            })?
        }
    };
    if centers.width() != speech.d_encoder() {
        return Err(Error::Centers { found: centers.width(), expected: speech.d_encoder() });
    }
    Ok(Some(Hearing { speech, centers }))
}

/// What the units of the files are that the stages learn from.
fn header(recipe: &Recipe, workshop: &Workshop) -> Result<UnitsHeader, Error> {
    let sources = recipe.stages.iter().flat_map(|stage| &stage.sources);
    let first = sources.filter_map(|source| match source {
        SourceConfig::Units(source) => Some(source),
        _ => None,
    });
    match first.into_iter().next() {
        Some(source) => Ok(workshop.corpus(source)?.header().clone()),
        None => Err(sources::Error::NoUnits.into()),
    }
}

/// The merges of this run, found now or before it was interrupted.
fn merges(
    recipe: &Recipe,
    n: u32,
    place: &Place,
    workshop: &Workshop,
    units: &UnitsHeader,
    heard: Option<(&Hearing, &FrameCache)>,
    monitor: &mut dyn Monitor,
) -> Result<UnitMerges, Error> {
    let path = place.dir.join(MERGES);
    if path.exists() {
        let merges = UnitMerges::load(&path)?;
        return match merges.are_of(units) {
            true => Ok(merges),
            false => Err(Error::OtherLearned { path }),
        };
    }
    let progress = |done, total| monitor.preparing("speaking and encoding", done, total);
    let sequences = workshop.unit_sequences(&recipe.stages[0], units, heard, MERGED, &progress)?;
    let merges = UnitMerges::learn(units, &sequences, n)?;
    let before: usize = sequences.iter().map(Vec::len).sum();
    let after: usize = sequences
        .iter()
        .map(|units| merges.apply(units).map(|symbols| symbols.len()))
        .sum::<Result<_, _>>()?;
    let share = after as f64 / before.max(1) as f64;
    let n = merges.n_symbols() - units.n_units;
    monitor
        .note(&format!("{n} merges, learned from {before} units: {share:.3} symbols for a unit"));
    merges.save(&path)?;
    Ok(merges)
}

/// The entropies of this run's units, found now or before it was interrupted.
fn entropy(
    recipe: &Recipe,
    config: &EntropyConfig,
    place: &Place,
    workshop: &Workshop,
    units: &UnitsHeader,
    heard: Option<(&Hearing, &FrameCache)>,
    monitor: &mut dyn Monitor,
) -> Result<UnitEntropy, Error> {
    let path = place.dir.join(ENTROPY);
    if path.exists() {
        let entropy = UnitEntropy::load(&path)?;
        return match entropy.is_of(units) {
            true => Ok(entropy),
            false => Err(Error::OtherLearned { path }),
        };
    }
    let progress = |done, total| monitor.preparing("speaking and encoding", done, total);
    let sequences =
        workshop.unit_sequences(&recipe.stages[0], units, heard, UnitEntropy::MOST, &progress)?;
    let entropy = UnitEntropy::learn(units, &sequences, config)?;
    monitor.note(&format!(
        "{} histories, learned from {} units: patches end above {:.3} nats, {:.2} units each in whole utterances",
        entropy.n_histories(),
        sequences.iter().map(Vec::len).sum::<usize>(),
        entropy.threshold(),
        entropy.units_per_patch(&sequences),
    ));
    write_atomically(&path, entropy.to_json().as_bytes())?;
    Ok(entropy)
}

/// The tokenizer of a text model with markers and units behind it, the same one where a run goes on.
fn extended(
    text: &TextModel,
    edges: Option<&[String; 2]>,
    place: &Place,
    n_symbols: u32,
    monitor: &mut dyn Monitor,
) -> Result<JointVocabulary, Error> {
    let (tokenizer, layout) = (text.chat.tokenizer(), text.chat.layout());
    let name = |id| tokenizer.piece(id).unwrap_or_default();
    let own = || [layout.begin, layout.end].map(name);
    let [begin, end] = edges.cloned().unwrap_or_else(own);
    let vocabulary = JointVocabulary::extend(tokenizer, &begin, &end, n_symbols)?;
    let (path, json) = (place.dir.join("tokenizer.json"), vocabulary.tokenizer().to_json()?);
    match std::fs::read(&path) {
        Ok(found) if found == json.as_bytes() => return Ok(vocabulary),
        Ok(_) => return Err(Error::OtherTokenizer { path }),
        Err(_) => write_atomically(&path, json.as_bytes())?,
    }
    let n = text.lm.num_params() as f64 / 1e6;
    monitor.note(&format!(
        "begins as a language model of {n:.1} M parameters; documents begin with {begin} and end with {end}"
    ));
    Ok(vocabulary)
}

/// The vocabulary of this run, learned now or before it was interrupted.
fn learned(
    recipe: &Recipe,
    config: &TokenizerConfig,
    place: &Place,
    workshop: &Workshop,
    n_symbols: u32,
    monitor: &mut dyn Monitor,
) -> Result<JointVocabulary, Error> {
    let path = place.dir.join("tokenizer.json");
    if path.exists() {
        let vocabulary = JointVocabulary::from_tokenizer(Tokenizer::load(&path)?, END, END)?;
        let (found, expected) = (vocabulary.n_units(), n_symbols as usize);
        if found != expected {
            return Err(sandhi_data::text::Error::UnitCount { found, expected }.into());
        }
        return Ok(vocabulary);
    }
    monitor.note("learning the tokenizer");
    let longest = recipe.stages.iter().rev().max_by_key(|stage| stage.steps);
    let longest = longest.expect("a plan has a stage");
    let texts = workshop.texts_beside_units(longest, config.n_documents)?;
    let tokenizer = Tokenizer::train_bpe(texts, config.vocab_size, &[END])?;
    let vocabulary = JointVocabulary::extend(&tokenizer, END, END, n_symbols)?;
    write_atomically(&path, vocabulary.tokenizer().to_json()?.as_bytes())?;
    Ok(vocabulary)
}
