//! A language model over text and units put together: vocabulary, network, and what it hears with; in memory and on disk.
//!
//! ```text
//! samples ─ encoder ─ frames ─ nearest centers ─ units ─┐
//!                                                      ├─ JointVocabulary ─ tokens ─ Network ─ next token
//! text ─ tokenizer ─ pieces ────────────────────────────┘
//!
//! network.safetensors, tokenizer.json with markers and units by name; encoder.safetensors and units.npy where it hears;
//! unit_merges.json and unit_entropy.json where units are merged, and where patches end by the entropy of the next one
//! ```

use std::{collections::BTreeSet, sync::Arc};

use burn::prelude::*;
use sandhi_data::{
    patching::{
        Closed, Closure, LearnedError, Patching, PatchingConfig, Rule, TokenKind, UnitEntropy,
        UnitMerges,
    },
    rng::Stream,
    text::{JointVocabulary, Mode, Symbol, Tokenizer},
    units::{UnitUtterance, UnitsHeader},
};
use sandhi_nn::{
    init::Init,
    ops,
    patch::{Boundaries, Closing, Documents, State},
    ragged::{Offsets, Ragged},
    transformer::{Cache, Dropout},
    weights::host,
};
use serde::{Deserialize, Serialize};

use super::{
    Error, SpeechModel,
    parts::{SPEC, SpeechSpec, TOKENIZER, get, put},
};
use crate::{
    chat::END,
    checkpoint::{Checkpoint, CheckpointWriter, Dtype},
    generate::{Answer, Decoding, decode},
    hf::Hub,
    recipe::NetworkConfig,
    train::{
        dataset::Draw,
        speech_text::{Cutting, Network, Reading, SpeechTextBatch, SpeechTextNet},
    },
    units::Kmeans,
};

const NETWORK: &str = "network.safetensors";
pub(super) const UNITS: &str = "units.npy";
/// Byte-pair merges of units, in the folder of a run and of a model.
pub(crate) const MERGES: &str = "unit_merges.json";
/// How uncertain the next unit is, in the folder of a run and of a model.
pub(crate) const ENTROPY: &str = "unit_entropy.json";

/// A language model over text and units.
#[derive(Debug, Clone)]
pub struct SpeechTextModel {
    /// What tokens are.
    pub vocabulary: Arc<JointVocabulary>,
    /// Which units those are, or are merges of.
    pub units: UnitsHeader,
    /// Byte-pair merges of units; a token stands for a unit where there are none.
    pub merges: Option<Arc<UnitMerges>>,
    /// The network's settings.
    pub config: NetworkConfig,
    /// Where patches end, where that is not learned.
    pub patching: Option<Patching>,
    /// When it is known that a patch that was cut short is whole.
    pub closure: Closure,
    /// Tokens of a document at most.
    pub context: usize,
    /// The weights.
    pub net: SpeechTextNet,
    /// What it hears with; one that was trained on files of units has nothing.
    pub hearing: Option<Hearing>,
}

/// What makes units of sound.
#[derive(Debug, Clone)]
pub struct Hearing {
    /// Gives frames.
    pub speech: SpeechModel,
    /// Give units.
    pub centers: Kmeans,
}

/// What an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// Steps of the largest transformer.
    pub taken: usize,
    /// Tokens of the answer that were read.
    pub read: usize,
}

/// What `model.json` says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpeechTextSpec {
    network: NetworkConfig,
    units: UnitsHeader,
    /// Whether units are merged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    merged: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    patching: Option<PatchingConfig>,
    #[serde(default)]
    closure: Closure,
    context: usize,
    /// Names of the tokens that documents begin and end with; ours where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    edges: Option<[String; 2]>,
    /// The encoder, where the model hears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    speech: Option<SpeechSpec>,
}

impl Hearing {
    /// What its units are.
    pub fn header(&self) -> UnitsHeader {
        self.centers.header(&self.speech.frames_fingerprint(), self.speech.frame_rate_hz())
    }

    /// Units of 16 kHz samples.
    ///
    /// # Errors
    ///
    /// When the samples have no features, or are longer than the encoder takes.
    pub fn units(&self, samples: &[f32]) -> Result<Vec<u32>, sandhi_data::features::Error> {
        Ok(self.centers.assign(&self.speech.frames(samples)?))
    }
}

/// Sequences that are read token by token.
struct Reader<'a> {
    model: &'a SpeechTextModel,
    kept: Kept,
    /// Of every token, whether it may come next; all may where absent.
    allowed: Option<Vec<bool>>,
}

#[allow(clippy::large_enum_variant)] // there is one of them
enum Kept {
    Plain(Cache),
    /// Where patches end is told by a rule for every sequence, or by the model.
    Patch(State, Option<Vec<Rule>>),
}

impl<'a> Reader<'a> {
    /// Nothing read yet, with room for beginnings and so many more tokens of each.
    fn new(
        model: &'a SpeechTextModel,
        beginnings: &[Vec<u32>],
        longest: &[usize],
        allowed: Option<Vec<bool>>,
    ) -> Self {
        let capacities: Vec<usize> =
            beginnings.iter().zip(longest).map(|(ids, n)| ids.len() + n).collect();
        let kept = match &model.net.network {
            Network::Plain(lm) => Kept::Plain(lm.cache(&capacities)),
            Network::Patch(lm) => {
                // Outside training every rule is the same for all.
                let rule = |patching: &Patching| patching.rule(None, &mut Stream::new(0));
                let rules = model.patching.as_ref().map(|p| vec![rule(p); capacities.len()]);
                Kept::Patch(lm.start(&capacities), rules)
            }
        };
        Self { model, kept, allowed }
    }

    /// Reads tokens of some sequences and gives the logits of what follows the last of each.
    fn read(&mut self, ids: &[&[u32]], sequences: &[usize]) -> Vec<f32> {
        let lengths: Vec<usize> = ids.iter().map(|ids| ids.len()).collect();
        let (offsets, all) = (Offsets::from_lengths(&lengths), ids.concat());
        let vocabulary = &self.model.vocabulary;
        let kind = |id: &u32| vocabulary.symbol(*id).map_or(TokenKind::Alone, TokenKind::from);
        let hidden = match (&self.model.net.network, &mut self.kept) {
            (Network::Plain(lm), Kept::Plain(cache)) => {
                let input = Ragged { values: lm.embed(&all), offsets: offsets.clone() };
                lm.extend(&input, sequences, cache)
            }
            (Network::Patch(lm), Kept::Patch(state, rules)) => {
                let (mut closings, mut alone) = (Vec::new(), Vec::new());
                match rules {
                    Some(rules) => {
                        for (&i, ids) in sequences.iter().zip(ids) {
                            closings.extend(ids.iter().map(|id| {
                                let Closed { before, after } = rules[i].push(kind(id), false);
                                Closing { before, after }
                            }));
                        }
                    }
                    None => alone.extend(all.iter().map(|id| kind(id) == TokenKind::Alone)),
                }
                let boundaries = match rules {
                    Some(_) => Boundaries::Given(&closings),
                    None => Boundaries::Learned { alone: &alone },
                };
                let documents = Documents { ids: &all, offsets: offsets.clone(), boundaries };
                lm.extend(&documents, sequences, state).hidden
            }
            _ => unreachable!("what is kept is of this network"),
        };
        let last: Vec<u32> = offsets.iter().map(|span| span.end as u32 - 1).collect();
        let mut logits = host(self.model.net.logits(ops::embedding(hidden, &last)));
        if let Some(allowed) = &self.allowed {
            for row in logits.chunks_exact_mut(allowed.len()) {
                let masked = row.iter_mut().zip(allowed).filter(|(_, allowed)| !**allowed);
                masked.for_each(|(logit, _)| *logit = f32::NEG_INFINITY);
            }
        }
        logits
    }

    /// Steps of the largest transformer that every sequence took.
    fn steps(&self) -> Vec<usize> {
        match &self.kept {
            Kept::Plain(cache) => (0..cache.n_sequences()).map(|i| cache.length(i)).collect(),
            Kept::Patch(state, _) => (0..state.n_sequences()).map(|i| state.n_patches(i)).collect(),
        }
    }
}

impl NetworkConfig {
    /// The network with random weights.
    pub fn init(&self, n_tokens: usize, init: &Init) -> SpeechTextNet {
        let init = init.child("network");
        let (network, ratio_weight) = match self {
            Self::Plain(config) => (Network::Plain(config.init(n_tokens, &init)), 0.0),
            Self::Patch(config) => {
                let ratio_weight = config.router.map_or(0.0, |router| router.ratio_weight);
                (Network::Patch(config.init(n_tokens, &init)), ratio_weight)
            }
        };
        SpeechTextNet { network, config: self.clone(), ratio_weight }
    }
}

impl SpeechTextModel {
    /// How documents are cut into patches.
    pub fn cutting(&self) -> Cutting {
        Cutting::new(&self.config, self.patching.as_ref(), self.closure)
    }

    /// Log-probabilities of the tokens of documents, each given those before it: one for every token but the first.
    ///
    /// Documents are cut into patches as in use, not as in training.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`] for a document longer than the context.
    ///
    /// # Panics
    ///
    /// When a document has fewer than two tokens, or a given boundary does not fit it.
    pub fn log_probs(&self, documents: &[Reading]) -> Result<Vec<Vec<f64>>, Error> {
        let cutting = self.cutting();
        let mut batch = SpeechTextBatch::new(&cutting);
        for (document, words) in documents {
            self.fits(document.ids.len())?;
            batch.push(document, words, &self.vocabulary, &cutting, Draw::FIXED, "");
        }
        let (hidden, _) = self.net.hidden(&batch, Dropout::OFF);
        let mut out = Vec::with_capacity(documents.len());
        for span in Offsets::from_lengths(&batch.lengths).iter() {
            let rows: Vec<u32> = span.clone().map(|row| row as u32).collect();
            let logits = self.net.logits(ops::embedding(hidden.clone(), &rows));
            let [_, width] = logits.dims();
            let mut values = host(logits);
            let probs =
                values.chunks_exact_mut(width).zip(&batch.targets[span]).map(|(row, &target)| {
                    sandhi_align::ctc::log_softmax_row(row);
                    f64::from(row[target as usize])
                });
            out.push(probs.collect());
        }
        Ok(out)
    }

    /// Refuses what is longer than the context.
    pub(crate) fn fits(&self, found: usize) -> Result<(), Error> {
        let context = self.context;
        if found > context { Err(Error::TooLong { found, context }) } else { Ok(()) }
    }

    /// Whether it knows where patches end of what it says itself.
    pub fn can_go_on(&self) -> bool {
        self.patching.as_ref().is_none_or(|patching| patching.config().is_known_in_use())
    }

    /// What follows each of some beginnings, until one of `ends`, the most tokens that it may have or the context's end, and
    /// how many steps of the largest transformer it took. With a mode there are tokens of that mode alone, and ends.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`] where a beginning leaves no room in the context; [`Error::GivenBoundaries`] when patches end
    /// where words do, which is not known of what is not said yet. Patches of one size are told by what was read, whatever
    /// the closure of training.
    ///
    /// # Panics
    ///
    /// When `longest` is not one for every beginning.
    pub fn go_on(
        &self,
        beginnings: &[Vec<u32>],
        longest: &[usize],
        mode: Option<Mode>,
        ends: &[u32],
        decoding: &Decoding,
    ) -> Result<Vec<(Answer, usize)>, Error> {
        if !self.can_go_on() {
            return Err(Error::GivenBoundaries);
        }
        for ids in beginnings {
            self.fits(ids.len() + 1)?;
        }
        assert_eq!(beginnings.len(), longest.len(), "each has its longest continuation");
        let room = |(ids, &longest): (&Vec<u32>, &usize)| longest.min(self.context - ids.len());
        let longest: Vec<usize> = beginnings.iter().zip(longest).map(room).collect();
        let mut found = Vec::with_capacity(beginnings.len());
        let at_once = decoding.batch.max(1);
        for (i, (chunk, longest)) in
            beginnings.chunks(at_once).zip(longest.chunks(at_once)).enumerate()
        {
            let allowed = mode.map(|mode| self.allowed(mode, ends));
            let mut reader = Reader::new(self, chunk, longest, allowed);
            let all: Vec<usize> = (0..chunk.len()).collect();
            let begun: Vec<&[u32]> = chunk.iter().map(Vec::as_slice).collect();
            let logits = reader.read(&begun, &all);
            let steps = reader.steps();
            let answers = decode(longest, logits, ends, decoding, i * at_once, |ids, active| {
                let ids: Vec<&[u32]> = ids.chunks(1).collect();
                reader.read(&ids, active)
            });
            let taken = reader.steps().into_iter().zip(steps).map(|(all, before)| all - before);
            found.extend(answers.into_iter().zip(taken));
        }
        Ok(found)
    }

    /// What follows each beginning in writing, until a marker, the longest answer or the context's end, and how much it
    /// took.
    ///
    /// # Errors
    ///
    /// As [`Self::go_on`].
    pub fn transcribe(
        &self,
        beginnings: &[Vec<u32>],
        decoding: &Decoding,
    ) -> Result<Vec<(String, Steps)>, Error> {
        let longest = vec![decoding.max_tokens; beginnings.len()];
        let (mode, ends) = (Some(Mode::Text), self.markers());
        let answers = self.go_on(beginnings, &longest, mode, &ends, decoding)?;
        let text = |(answer, taken): (Answer, usize)| {
            let text = self.vocabulary.tokenizer().decode(&answer.ids)?;
            Ok((text, Steps { taken, read: answer.n_read() }))
        };
        answers.into_iter().map(text).collect()
    }

    /// What follows each beginning in units, until a marker, its longest answer or the context's end, and how much it took.
    ///
    /// # Errors
    ///
    /// As [`Self::go_on`].
    pub fn speak(
        &self,
        beginnings: &[Vec<u32>],
        longest: &[usize],
        decoding: &Decoding,
    ) -> Result<Vec<(Vec<u32>, Steps)>, Error> {
        let (mode, ends) = (Some(Mode::Speech), self.markers());
        let answers = self.go_on(beginnings, longest, mode, &ends, decoding)?;
        let unit = |&id: &u32| match self.vocabulary.symbol(id) {
            Some(Symbol::Unit(unit)) => Some(unit),
            _ => None,
        };
        let units = |(answer, taken): (Answer, usize)| {
            let said: Vec<u32> = answer.ids.iter().filter_map(unit).collect();
            (self.units_of(said), Steps { taken, read: answer.n_read() })
        };
        Ok(answers.into_iter().map(units).collect())
    }

    /// An utterance as its tokens have it: units, or merges of them.
    ///
    /// # Errors
    ///
    /// When merges meet what is no unit of the model.
    pub fn in_tokens(&self, utterance: UnitUtterance) -> Result<UnitUtterance, LearnedError> {
        match &self.merges {
            Some(merges) => merges.apply_to(utterance),
            None => Ok(utterance),
        }
    }

    /// The units that tokens of speech stand for.
    ///
    /// # Panics
    ///
    /// When one stands for none.
    pub fn units_of(&self, said: Vec<u32>) -> Vec<u32> {
        match &self.merges {
            Some(merges) => merges.expand(&said).expect("the vocabulary has units and merges"),
            None => said,
        }
    }

    /// Tokens that are neither written nor said.
    fn markers(&self) -> Vec<u32> {
        let markers = Mode::ALL.iter().map(|&mode| self.vocabulary.marker(mode));
        markers.chain([self.vocabulary.begin(), self.vocabulary.end()]).collect()
    }

    /// Whether each token is of a mode, or one of `ends`. Special tokens of a text model's own are not text.
    fn allowed(&self, mode: Mode, ends: &[u32]) -> Vec<bool> {
        let specials: BTreeSet<u32> =
            self.vocabulary.tokenizer().special_ids().values().copied().collect();
        let is_allowed = |id: u32| {
            ends.contains(&id)
                || match (self.vocabulary.symbol(id), mode) {
                    (Some(Symbol::Text), Mode::Text) => !specials.contains(&id),
                    (Some(Symbol::Unit(_)), Mode::Speech) => true,
                    _ => false,
                }
        };
        (0..self.vocabulary.n_tokens() as u32).map(is_allowed).collect()
    }

    pub(super) fn write(
        &self,
        writer: &mut CheckpointWriter,
        dtype: Dtype,
        whole: bool,
    ) -> Result<SpeechTextSpec, Error> {
        put(writer, NETWORK, &self.net, dtype)?;
        writer.bytes(TOKENIZER, self.vocabulary.tokenizer().to_json()?.as_bytes())?;
        if let Some(merges) = &self.merges {
            writer.bytes(MERGES, merges.to_json().as_bytes())?;
        }
        if let Some(entropy) = self.patching.as_ref().and_then(Patching::entropy) {
            writer.bytes(ENTROPY, entropy.to_json().as_bytes())?;
        }
        let speech = match &self.hearing {
            Some(hearing) => {
                hearing.speech.write(writer, dtype, whole)?;
                writer.bytes(UNITS, &hearing.centers.to_npy())?;
                Some(hearing.speech.spec(whole))
            }
            None => None,
        };
        Ok(SpeechTextSpec {
            network: self.config.clone(),
            units: self.units.clone(),
            merged: self.merges.is_some(),
            patching: self.patching.as_ref().map(|patching| patching.config().clone()),
            closure: self.closure,
            context: self.context,
            edges: Some(self.vocabulary.edges()).filter(|edges| *edges != [END, END]),
            speech,
        })
    }

    pub(super) fn read(
        checkpoint: &Checkpoint,
        spec: SpeechTextSpec,
        device: &Device,
        hub: &Hub,
    ) -> Result<Self, Error> {
        let wrong = |message| Error::Spec { path: checkpoint.dir().join(SPEC), message };
        let tokenizer = Tokenizer::from_bytes(&checkpoint.bytes(TOKENIZER)?)?;
        let [begin, end] = match &spec.edges {
            Some(edges) => edges.each_ref().map(String::as_str),
            None => [END, END],
        };
        let vocabulary = JointVocabulary::from_tokenizer(tokenizer, begin, end)?;
        let problems = match &spec.network {
            NetworkConfig::Plain(config) => config.problems(),
            NetworkConfig::Patch(config) => config.problems(),
        };
        if let Some(problem) = problems.into_iter().next() {
            return Err(wrong(format!("network: {problem}")));
        }
        let merges = if spec.merged {
            let path = checkpoint.dir().join(MERGES);
            let merges = UnitMerges::parse(&checkpoint.bytes(MERGES)?, &path)
                .map_err(|error| wrong(error.to_string()))?;
            if !merges.are_of(&spec.units) {
                return Err(wrong(format!("{MERGES} is of other units than units.quantizer")));
            }
            Some(Arc::new(merges))
        } else {
            None
        };
        let n_symbols = merges.as_ref().map_or(spec.units.n_units, |merges| merges.n_symbols());
        if vocabulary.n_units() != n_symbols as usize {
            return Err(wrong(format!(
                "{n_symbols} units and merges of them, {TOKENIZER} has {}",
                vocabulary.n_units()
            )));
        }
        let is_told = spec.network.wants_patching();
        if spec.patching.is_some() != is_told {
            let what = if is_told { "is missing" } else { "is there, and nothing wants it" };
            return Err(wrong(format!("patching {what}")));
        }
        if let Some(problem) = spec.patching.iter().flat_map(PatchingConfig::problems).next() {
            return Err(wrong(format!("patching: {problem}")));
        }
        let entropy = match &spec.patching {
            Some(PatchingConfig::Entropy(_)) if spec.merged => {
                return Err(wrong("entropies are of units, and units are merged".to_owned()));
            }
            Some(PatchingConfig::Entropy(_)) => {
                let path = checkpoint.dir().join(ENTROPY);
                let entropy = UnitEntropy::parse(&checkpoint.bytes(ENTROPY)?, &path)
                    .map_err(|error| wrong(error.to_string()))?;
                if !entropy.is_of(&spec.units) {
                    return Err(wrong(format!("{ENTROPY} is of other units than units.quantizer")));
                }
                Some(Arc::new(entropy))
            }
            _ => None,
        };
        let net = spec.network.init(vocabulary.n_tokens(), &Init::blank(device));
        let net = get(checkpoint, NETWORK, net)?;
        let hearing = match spec.speech {
            None => None,
            Some(speech) => {
                let speech = SpeechModel::read(checkpoint, speech, device, hub)?;
                let path = checkpoint.dir().join(UNITS);
                let centers = Kmeans::parse(&checkpoint.bytes(UNITS)?, &path)?;
                let hearing = Hearing { speech, centers };
                if hearing.centers.width() != hearing.speech.d_encoder() {
                    return Err(wrong(format!("{UNITS} is of frames of another width")));
                }
                Some(hearing)
            }
        };
        if let Some(found) = hearing.as_ref().map(Hearing::header).filter(|h| *h != spec.units) {
            return Err(wrong(format!(
                "units.quantizer is {}, the encoder and {UNITS} are {}",
                spec.units.quantizer, found.quantizer
            )));
        }
        let SpeechTextSpec { network: config, units, patching, closure, context, .. } = spec;
        let vocabulary = Arc::new(vocabulary);
        let patching = patching.map(|config| Patching::new(config, entropy));
        Ok(Self { vocabulary, units, merges, config, patching, closure, context, net, hearing })
    }
}
