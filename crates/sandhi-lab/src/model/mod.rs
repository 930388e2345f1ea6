//! Models put together: what a recipe's `[model]` becomes, on disk and in memory.
//!
//! ```text
//! SpeechModel     features ─ encoder ─ frames (─ recognizer ─ transcript)
//! TextModel       tokenizer + language model
//! ConnectorModel  SpeechModel.encoder ─ connector ─ TextModel
//! VocoderModel    units ─ vocoder ─ spectra ─ sound
//! ```
//!
//! A model directory holds everything that loading needs: `model.json`, safetensors, the tokenizer.

mod aids;
mod aligner;
mod begin;
mod error;
pub mod pack;
mod parts;
mod speech_text;
mod store;
mod vocoder;

pub(crate) use self::parts::{from_host, to_host};

use std::sync::Arc;

use burn::prelude::*;
use sandhi_data::{
    features::{FeatureConfig, FeatureExtractor, Features},
    text::Characters,
};
use sandhi_nn::{
    compression::CompressionConfig,
    connector::{Connector, ConnectorConfig, ConnectorOutput, Widths},
    encoder::{CtcHead, CtcHeadConfig, Encoder, EncoderConfig},
    init::Init,
    length::Length,
    lora::{self, Linears, NamedLinears},
    ragged::{Offsets, Ragged},
    transformer::{CausalLm, Dropout, TransformerConfig},
    weights::{self, WeightType},
};
use serde::{Deserialize, Serialize};

pub(crate) use self::speech_text::{ENTROPY, MERGES};
pub use self::{
    aids::{Aids, EndsError, Segmenter, TokenEnds},
    aligner::AlignerModel,
    error::Error,
    parts::fingerprint,
    speech_text::{Hearing, SpeechTextModel, Steps},
    store::AnyModel,
    vocoder::{VocoderModel, samples_per_unit},
};
use crate::chat::Chat;

/// Rows on the host with the length of each sequence; what batches carry between threads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostRagged {
    /// Row-major `[n_rows, width]`.
    pub values: Vec<f32>,
    /// Width of a row.
    pub width: usize,
    /// Rows of each sequence.
    pub lengths: Vec<usize>,
}

impl HostRagged {
    /// Copies sequences of one width behind one another.
    pub fn gather<'a>(width: usize, sequences: impl IntoIterator<Item = &'a [f32]>) -> Self {
        let mut packed = Self { width, ..Self::default() };
        for sequence in sequences {
            assert_eq!(sequence.len() % width, 0, "rows of another width");
            packed.values.extend_from_slice(sequence);
            packed.lengths.push(sequence.len() / width);
        }
        packed
    }

    /// Moves the rows to a device.
    pub fn to_device(&self, device: &Device) -> Ragged {
        let n_rows = self.lengths.iter().sum();
        let data = TensorData::new(self.values.clone(), [n_rows, self.width]);
        Ragged {
            values: Tensor::from_data(data, device),
            offsets: Offsets::from_lengths(&self.lengths),
        }
    }

    /// Copies rows from a device.
    pub fn from_device(ragged: Ragged) -> Self {
        let [_, width] = ragged.values.dims();
        Self {
            lengths: ragged.offsets.lengths(),
            values: sandhi_nn::weights::host(ragged.values),
            width,
        }
    }

    /// The sequences one by one, row-major.
    pub fn sequences(&self) -> impl Iterator<Item = &[f32]> {
        let mut start = 0;
        self.lengths.iter().map(move |&n| {
            let span = &self.values[start..start + n * self.width];
            start += n * self.width;
            span
        })
    }
}

/// Where published weights came from, and which they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// A directory in Hugging Face's layout, or `hf:owner/name@commit`.
    pub path: String,
    /// [`fingerprint`] of the weights: what is loaded again must be the same.
    pub fingerprint: String,
}

/// Encoder and CTC head as one module, as they are trained together.
#[derive(Module, Debug)]
pub struct CtcNet {
    /// The speech encoder.
    pub encoder: Encoder,
    /// Symbol scores.
    pub head: CtcHead,
}

/// A speech foundation model: an encoder, and a recognizer over its frames where it has one.
#[derive(Debug, Clone)]
pub struct SpeechModel {
    /// The front end's settings.
    pub features: FeatureConfig,
    /// The encoder's settings.
    pub config: EncoderConfig,
    /// The encoder's weights.
    pub encoder: Encoder,
    /// What reads characters off the frames; published encoders without a CTC head have none.
    pub recognizer: Option<Recognizer>,
    /// Where the weights were published, as long as they are those.
    pub origin: Option<Origin>,
    /// How the encoder's matrices are held.
    pub dtype: WeightType,
    extractor: Arc<FeatureExtractor>,
}

/// A CTC head and what its symbols mean.
#[derive(Debug, Clone)]
pub struct Recognizer {
    /// The head's settings.
    pub config: CtcHeadConfig,
    /// What the head's symbols mean.
    pub symbols: Characters,
    /// The head's weights.
    pub head: CtcHead,
}

impl SpeechModel {
    /// A model of these parts.
    ///
    /// # Errors
    ///
    /// When the front end's settings are not possible.
    pub fn new(
        features: FeatureConfig,
        config: EncoderConfig,
        encoder: Encoder,
        recognizer: Option<Recognizer>,
    ) -> Result<Self, sandhi_data::features::Error> {
        let extractor = Arc::new(FeatureExtractor::new(&features)?);
        let (origin, dtype) = (None, WeightType::F32);
        Ok(Self { features, config, encoder, recognizer, origin, dtype, extractor })
    }

    /// A model with random weights and a CTC head.
    ///
    /// # Errors
    ///
    /// When the front end's settings are not possible.
    pub fn init(
        features: FeatureConfig,
        config: EncoderConfig,
        ctc: CtcHeadConfig,
        symbols: Characters,
        init: &Init,
    ) -> Result<Self, sandhi_data::features::Error> {
        let n_mels = FeatureExtractor::new(&features)?.n_mels();
        let encoder = config.init(n_mels, &init.child("encoder"));
        let head = ctc.init(config.d_encoder(), symbols.n_symbols(), &init.child("head"));
        Self::new(features, config, encoder, Some(Recognizer { config: ctc, symbols, head }))
    }

    /// The front end.
    pub fn extractor(&self) -> &FeatureExtractor {
        &self.extractor
    }

    /// Features of 16 kHz samples.
    ///
    /// # Errors
    ///
    /// When the extractor refuses the samples (none at all, or not finite), or they are longer than what
    /// the encoder takes.
    pub fn extract(&self, samples: &[f32]) -> Result<Features, sandhi_data::features::Error> {
        extract(&self.extractor, self.config.max_feature_frames(), samples)
    }

    /// Encoder frames of several utterances.
    pub fn encode(&self, features: &HostRagged) -> HostRagged {
        let features = features.to_device(&device(&self.encoder));
        HostRagged::from_device(self.encoder.forward(&features, Dropout::OFF))
    }

    /// Encoder frames of 16 kHz samples, row-major `[n_frames, d_encoder]`.
    ///
    /// # Errors
    ///
    /// As [`Self::extract`].
    pub fn frames(&self, samples: &[f32]) -> Result<Vec<f32>, sandhi_data::features::Error> {
        let features = self.extract(samples)?;
        let features = HostRagged::gather(features.n_mels, [&features.values[..]]);
        Ok(self.encode(&features).values)
    }

    /// Encoder and head as one module, where there is a head.
    pub fn ctc_net(&self) -> Option<CtcNet> {
        let head = self.recognizer.as_ref()?.head.clone();
        Some(CtcNet { encoder: self.encoder.clone(), head })
    }

    /// Holds the encoder's matrices in another type; from then on they cannot be trained.
    ///
    /// # Errors
    ///
    /// As [`weights::hold`].
    pub fn hold(&mut self, dtype: WeightType) -> Result<(), String> {
        self.encoder = weights::hold(self.encoder.clone(), dtype)?;
        self.dtype = dtype;
        Ok(())
    }

    /// Whether both encoders come of one: half of the matrices that both have are nearly the same, held in other types or
    /// trained further. Those of encoders that were trained apart are at right angles, about.
    pub fn is_kin_of(&self, other: &Self) -> bool {
        const NEARLY: f64 = 0.8;
        let mine = weights::weights_where(&self.encoder, |name| !weights::is_fixed(name));
        let theirs = weights::weights_where(&other.encoder, |name| !weights::is_fixed(name));
        let is_matrix = |tensor: &weights::NamedTensor| {
            tensor.shape.len() > 1 && tensor.shape.iter().filter(|&&n| n > 1).count() > 1
        };
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        let is_near = |(name, a): (&String, &weights::NamedTensor)| {
            let b = theirs.get(name).filter(|b| b.shape == a.shape)?;
            let (a, b) = (&a.values, &b.values);
            Some(dot(a, b) > NEARLY * (dot(a, a) * dot(b, b)).sqrt())
        };
        let matrices = mine.iter().filter(|(_, tensor)| is_matrix(tensor));
        let near: Vec<bool> = matrices.filter_map(is_near).collect();
        let n_near = near.iter().filter(|near| **near).count();
        n_near > 0 && 2 * n_near >= near.len()
    }

    /// A hash of all that its frames depend on: the front end, and the encoder's settings and weights. Weights alone
    /// do not tell how many heads they are for, or whether samples are normalized.
    pub fn frames_fingerprint(&self) -> String {
        let settings = serde_json::to_string(&(&self.features, &self.config, self.dtype));
        let settings = settings.expect("settings are plain values");
        let weights = fingerprint(&self.encoder);
        blake3::hash(format!("{settings}{weights}").as_bytes()).to_hex()[..16].to_owned()
    }

    /// Folds the LoRA branches of encoder and head into the weights.
    pub fn merge_lora(&mut self) {
        // What branches are folded into is no longer what was published.
        if lora::describe(&self.encoder).is_some() {
            self.origin = None;
        }
        lora::merge(&mut self.encoder);
        if let Some(recognizer) = &mut self.recognizer {
            lora::merge(&mut recognizer.head);
        }
    }

    /// [`fingerprint`] of the encoder, and of its head where there is one.
    pub(crate) fn published_fingerprint(&self) -> String {
        self.ctc_net().map_or_else(|| fingerprint(&self.encoder), |net| fingerprint(&net))
    }

    /// Width of the frames.
    pub fn d_encoder(&self) -> usize {
        self.config.d_encoder()
    }

    /// Encoder frames a second.
    pub fn frame_rate_hz(&self) -> f64 {
        self.features.rate_hz() / self.config.stride() as f64
    }
}

impl Recognizer {
    /// Normalized log-probabilities of the symbols, for encoder frames.
    pub fn log_probs(&self, frames: &HostRagged) -> HostRagged {
        let logits = self.head.forward(&frames.to_device(&device(&self.head)));
        let mut host = HostRagged::from_device(logits);
        for row in host.values.chunks_exact_mut(host.width) {
            sandhi_align::ctc::log_softmax_row(row);
        }
        host
    }

    /// Greedy CTC transcripts of encoder frames.
    pub fn transcribe(&self, frames: &HostRagged) -> Vec<String> {
        self.greedy(&self.log_probs(frames))
    }

    /// Greedy CTC transcripts of what [`Self::log_probs`] gives.
    pub fn greedy(&self, log_probs: &HostRagged) -> Vec<String> {
        log_probs
            .sequences()
            .map(|rows| {
                let ids = sandhi_align::ctc::greedy(rows, log_probs.width, Characters::BLANK)
                    .expect("rows of the head's width, blank among its symbols");
                self.symbols.decode(&ids).expect("symbols of the head are symbols of the model")
            })
            .collect()
    }
}

/// Device of a module's weights.
fn device<M: Module>(module: &M) -> Device {
    module.devices().into_iter().next().expect("a model has parameters")
}

/// Features of at most `max_frames` frames.
pub(crate) fn extract(
    extractor: &FeatureExtractor,
    max_frames: Option<usize>,
    samples: &[f32],
) -> Result<Features, sandhi_data::features::Error> {
    let features = extractor.compute(samples)?;
    match max_frames {
        Some(max) if features.n_frames > max => {
            Err(sandhi_data::features::Error::Frames { found: features.n_frames, max })
        }
        _ => Ok(features),
    }
}

impl Linears for CtcNet {
    fn linears(&mut self) -> NamedLinears<'_> {
        let parts = [("encoder", self.encoder.linears()), ("head", self.head.linears())];
        let named = parts.into_iter().flat_map(|(part, layers)| {
            layers.into_iter().map(move |(name, linear)| (format!("{part}.{name}"), linear))
        });
        named.collect()
    }
}

/// A text foundation model.
#[derive(Debug, Clone)]
pub struct TextModel {
    /// The transformer's settings.
    pub config: TransformerConfig,
    /// The weights.
    pub lm: CausalLm,
    /// Tokenizer and prompt layout.
    pub chat: Chat,
    /// Where the weights were published, as long as they are those.
    pub origin: Option<Origin>,
    /// How the matrices are held.
    pub dtype: WeightType,
}

impl TextModel {
    /// Folds the LoRA branches into the weights.
    pub fn merge_lora(&mut self) {
        if lora::describe(&self.lm).is_some() {
            self.origin = None;
        }
        lora::merge(&mut self.lm);
    }

    /// Holds the matrices in another type; from then on they cannot be trained.
    ///
    /// # Errors
    ///
    /// As [`weights::hold`].
    pub fn hold(&mut self, dtype: WeightType) -> Result<(), String> {
        self.lm = weights::hold(self.lm.clone(), dtype)?;
        self.dtype = dtype;
        Ok(())
    }
}

/// What of a connector's vectors the language model is given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compression {
    /// The thresholds.
    pub thresholds: CompressionConfig,
    /// The token that stands for no content, where vectors near it go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad: Option<u32>,
}

impl Compression {
    /// Refuses thresholds that are none, and a pad that is missing or not among `n_tokens` tokens.
    fn check(&self, n_tokens: usize) -> Result<(), String> {
        let mut problems = self.thresholds.problems();
        match self.pad {
            None if self.thresholds.drop.is_some() => problems.push("drop needs a pad".into()),
            Some(pad) if pad as usize >= n_tokens => {
                problems.push(format!("pad is token {pad}, the model has {n_tokens}"));
            }
            _ => {}
        }
        let named = problems.into_iter().next().map(|problem| format!("compression: {problem}"));
        named.map_or(Ok(()), Err)
    }

    /// What is left of the vectors.
    ///
    /// # Panics
    ///
    /// When vectors near the pad are to go and there is none.
    pub fn forward(&self, vectors: &Ragged, lm: &CausalLm) -> Ragged {
        self.thresholds.forward(vectors, self.pad_of(lm))
    }

    /// Of which vectors of each utterance those are made that are left: [`CompressionConfig::kept`].
    ///
    /// # Panics
    ///
    /// As [`Compression::forward`].
    pub fn kept(&self, vectors: &Ragged, lm: &CausalLm) -> Vec<Vec<[usize; 2]>> {
        self.thresholds.kept(vectors, self.pad_of(lm))
    }

    /// The pad's embedding.
    fn pad_of(&self, lm: &CausalLm) -> Tensor<2> {
        match (self.thresholds.drop, self.pad) {
            (Some(_), pad) => lm.embed(&[pad.expect("what drops has a pad")]),
            // Merging looks at no pad.
            (None, _) => Tensor::zeros([1, lm.d_model()], &lm.device()),
        }
    }
}

/// A connector between two foundation models.
#[derive(Debug, Clone)]
pub struct ConnectorModel {
    /// The speech side.
    pub speech: SpeechModel,
    /// The text side.
    pub text: TextModel,
    /// The connector's settings.
    pub config: ConnectorConfig,
    /// The weights between them.
    pub connector: Connector,
    /// What of its vectors the language model is given; all where absent.
    pub compression: Option<Compression>,
    /// What tells where tokens end, for connectors that cut there.
    pub segmenter: Option<Segmenter>,
    /// The token that stands for no content, for connectors that know one.
    pub pad: Option<u32>,
}

/// The transcript is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the connector cuts speech where the transcript's tokens end (segmenter = \"forced\"), and hears nothing without it"
)]
pub struct NeedsTranscript;

impl ConnectorModel {
    /// What the language model is given for encoder frames: vectors of its embedding space, compressed where the model
    /// does so. Connectors that are no oracles do not look at `texts`.
    ///
    /// # Errors
    ///
    /// [`NeedsTranscript`].
    pub fn vectors(
        &self,
        frames: &HostRagged,
        texts: Option<&[&str]>,
    ) -> Result<Ragged, NeedsTranscript> {
        let vectors = self.uncompressed(frames, texts)?;
        let given = match &self.compression {
            Some(compression) => compression.forward(&vectors, &self.text.lm),
            None => vectors,
        };
        debug_assert!(
            given.offsets.iter().zip(&frames.lengths).all(|(span, &n)| match self.length(n) {
                Length::Exact(n) => span.len() == n,
                Length::AtMost(n) => span.len() <= n,
            }),
            "vectors keep to the length that was promised"
        );
        Ok(given)
    }

    /// The connector's vectors for encoder frames. Utterances that cannot be cut into tokens, because nothing is read in
    /// them, have none.
    ///
    /// # Errors
    ///
    /// [`NeedsTranscript`].
    pub fn uncompressed(
        &self,
        frames: &HostRagged,
        texts: Option<&[&str]>,
    ) -> Result<Ragged, NeedsTranscript> {
        Ok(self.output(frames, texts)?.vectors)
    }

    /// As [`ConnectorModel::uncompressed`], with the frames that the vectors end with where those are known.
    ///
    /// # Errors
    ///
    /// [`NeedsTranscript`].
    pub fn output(
        &self,
        frames: &HostRagged,
        texts: Option<&[&str]>,
    ) -> Result<ConnectorOutput, NeedsTranscript> {
        let aids = Aids::of(&self.config, &self.speech, self.pad);
        let ends = if aids.needs.segments { Some(self.ends(frames, texts)?) } else { None };
        let on_device = frames.to_device(&self.text.lm.device());
        let input = aids.input(&self.text.lm, on_device, || frames.clone(), ends, None);
        Ok(self.connector.forward(&input, Dropout::OFF))
    }

    /// The last frame of every token of every utterance.
    fn ends(
        &self,
        frames: &HostRagged,
        texts: Option<&[&str]>,
    ) -> Result<Vec<Vec<u32>>, NeedsTranscript> {
        let recognizer = self.speech.recognizer.as_ref().expect("what cuts speech reads it");
        let token_ends = TokenEnds::new(&self.speech, &self.text.chat).expect("it has a head");
        let log_probs = recognizer.log_probs(frames);
        let texts: Vec<String> = match self.segmenter {
            Some(Segmenter::Ctc) => recognizer.greedy(&log_probs),
            Some(Segmenter::Forced) | None => {
                texts.ok_or(NeedsTranscript)?.iter().map(|text| (*text).to_owned()).collect()
            }
        };
        let found = token_ends.all(&log_probs, &frames.lengths, &texts);
        let bad =
            found.iter().zip(&texts).filter_map(|(ends, text)| Some((ends.as_ref().err()?, text)));
        // Where nothing is read there is nothing to cut.
        let bad: Vec<_> = bad.filter(|(_, text)| !text.trim().is_empty()).collect();
        if let Some((why, text)) = bad.first() {
            tracing::warn!("{} utterances are not heard, the first: {text:?}: {why}", bad.len());
        }
        Ok(found.into_iter().map(Result::unwrap_or_default).collect())
    }

    /// Vectors that the language model is given of `n_frames` encoder frames.
    pub fn length(&self, n_frames: usize) -> Length {
        let compressed = |n| match &self.compression {
            Some(compression) => compression.thresholds.length(n),
            None => Length::Exact(n),
        };
        self.config.length(n_frames).then(compressed)
    }

    /// The connector's vectors a second, before compression; none where they do not stand for equal times.
    pub fn vector_rate_hz(&self) -> Option<f64> {
        Some(self.speech.frame_rate_hz() / self.config.stride()? as f64)
    }

    /// Widths that the connector joins.
    pub fn widths(&self) -> Widths {
        Widths { d_encoder: self.speech.d_encoder(), d_model: self.text.config.d_model }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_other_features_or_settings_are_other_frames() {
        let model = |features: &str, n_heads: usize| {
            let encoder = serde_json::json!({
                "kind": "conformer", "d_model": 8, "n_layers": 1, "n_heads": n_heads, "d_ff": 8, "kernel": 3,
            });
            SpeechModel::init(
                serde_json::from_str(features).unwrap(),
                serde_json::from_value(encoder).unwrap(),
                CtcHeadConfig { steps_per_frame: 1 },
                Characters::from_texts(["a"]),
                &Init::new(1, &Device::flex()),
            )
            .unwrap()
        };
        // All of them have the same weights.
        let plain = model(r#"{"kind": "whisper", "n_mels": 4}"#, 2);
        let padded = model(r#"{"kind": "whisper", "n_mels": 4, "pad_to_30_s": true}"#, 2);
        let heads = model(r#"{"kind": "whisper", "n_mels": 4}"#, 4);
        for other in [&padded, &heads] {
            assert_eq!(fingerprint(&plain.encoder), fingerprint(&other.encoder));
            assert_ne!(plain.frames_fingerprint(), other.frames_fingerprint());
        }
        assert_eq!(plain.frames_fingerprint(), plain.clone().frames_fingerprint());
    }

    #[test]
    fn encoders_of_one_origin_are_kin() {
        let encoder = serde_json::json!({
            "kind": "conformer", "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 24, "kernel": 3,
        });
        let model = |seed: u64| {
            SpeechModel::init(
                serde_json::from_str(r#"{"kind": "whisper", "n_mels": 20}"#).unwrap(),
                serde_json::from_value(encoder.clone()).unwrap(),
                CtcHeadConfig { steps_per_frame: 1 },
                Characters::from_texts(["a"]),
                &Init::new(seed, &Device::flex()),
            )
            .unwrap()
        };
        let (first, other) = (model(1), model(2));
        let mut held = first.clone();
        held.hold(WeightType::Bf16).unwrap();
        assert_ne!(first.frames_fingerprint(), held.frames_fingerprint());
        assert!(first.is_kin_of(&held) && held.is_kin_of(&first));
        assert!(!first.is_kin_of(&other));
    }
}
