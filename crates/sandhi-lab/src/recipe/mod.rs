//! Recipes: an experiment as a TOML file.
//!
//! ```text
//! slm.toml ─ extends ─> base.toml ─ merged ─ --set a.b=c ─ parsed ─> Recipe ─ resolve ─> Plan
//! ```
//!
//! A recipe says what the file says and nothing is looked up; [`crate::plan`] resolves it. Every
//! unknown key, wrong type and missing field is reported, all at once.

mod aligner;
mod distill;
mod read;
mod transport;

use std::collections::{BTreeMap, BTreeSet};

use sandhi_data::{
    choice,
    features::FeatureConfig,
    language::Language,
    microworld::{DocumentKind, Task, WildWords},
    speech::Domain,
};
use sandhi_nn::{
    compression::CompressionConfig,
    connector::ConnectorConfig,
    encoder::{CtcHeadConfig, EncoderConfig},
    lora::LoraConfig,
    transformer::TransformerConfig,
    weights::WeightType,
};
use serde::{Deserialize, Serialize};

use crate::{hf::ModelName, model::Segmenter, protocol::Sides};

pub use self::{
    aligner::{AlignerModelConfig, UnitsConfig},
    distill::{DistillationConfig, EmbeddingConfig},
    read::{Error, Overrides, Problems, read, read_str},
    transport::{GradientKind, PadMass, SolverConfig, SparsityKind, TargetMass, TransportConfig},
};

/// An experiment as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the row in tables.
    pub name: String,
    /// What it shows, in a sentence.
    #[serde(default)]
    pub about: String,
    /// Every random stream of the run derives from it.
    pub seed: u64,
    /// A row that sees what it would not have in use (transcripts, lengths, boundaries) says so.
    #[serde(default)]
    pub oracle: bool,
    /// Folders that the command line gives with `--path name=DIR`; sources write `$name/…`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub paths: BTreeMap<String, String>,
    /// What is trained.
    pub model: ModelConfig,
    /// Stages in order. The model carries over; the optimizer and the data do not.
    #[serde(rename = "stage", default)]
    pub stages: Vec<StageConfig>,
    /// What is measured at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalConfig>,
}

impl Recipe {
    /// Models that the recipe names on the Hub.
    pub fn models_of_the_hub(&self) -> Vec<ModelName> {
        let ModelConfig::Connector(model) = &self.model else { return Vec::new() };
        let named = [model.encoder.of_the_hub(), model.language_model.of_the_hub()];
        named.into_iter().flatten().collect()
    }
}

/// The `[model]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ModelConfig {
    /// A speech encoder with a CTC head: the speech foundation model.
    Ctc(CtcModelConfig),
    /// A language model: the text foundation model.
    Text(TextModelConfig),
    /// Encoder, connector, language model.
    Connector(ConnectorModelConfig),
    /// A text-and-unit aligner: when the characters of a known text are said.
    Aligner(AlignerModelConfig),
}

/// `kind = "ctc"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CtcModelConfig {
    /// The front end.
    pub features: FeatureConfig,
    /// The encoder.
    pub encoder: EncoderConfig,
    /// The head.
    pub ctc: CtcHeadConfig,
}

/// `kind = "text"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextModelConfig {
    /// The tokenizer to train.
    pub tokenizer: TokenizerConfig,
    /// The transformer.
    pub language_model: TransformerConfig,
    /// Low-rank branches beside linear layers, for stages that train `["*lora_*"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

/// Byte-level BPE, trained on the text of the longest stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerConfig {
    /// Tokens, markers included. More tokens make fewer pieces a word.
    pub vocab_size: usize,
    /// Documents that the merges are learned from.
    #[serde(default = "default_tokenizer_documents")]
    pub n_documents: usize,
}

fn default_tokenizer_documents() -> usize {
    20_000
}

/// `kind = "connector"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectorModelConfig {
    /// The speech foundation model, frozen unless a stage trains it.
    pub encoder: BaseConfig<PublishedEncoder>,
    /// The text foundation model, frozen unless a stage trains it.
    pub language_model: BaseConfig<PublishedLanguageModel>,
    /// What joins them.
    pub connector: ConnectorConfig,
    /// The token of the language model that stands for no content, e.g. `<|pad|>`: what pauses are drawn to and known
    /// by. Stages with a transport loss or a compression that have a use for one need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token: Option<String>,
    /// What tells where tokens end, for connectors that cut speech there: `forced` (the transcript in use too: an oracle)
    /// or `ctc` (what the encoder's CTC head reads).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmenter: Option<Segmenter>,
    /// Low-rank branches beside linear layers of `encoder.…` and `language_model.…`, for stages that train
    /// `["connector", "*lora_*"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

/// Where a foundation model comes from; `P` says what can be said of a published one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum BaseConfig<P> {
    /// A model directory.
    Directory {
        /// Relative to the recipe's file.
        path: String,
        /// How its matrices are held; in 16 bits they take half the memory and cannot be trained. On devices other than
        /// the CPU half is true of inference: backward keeps an f32 copy of every matrix that gradients flow through.
        #[serde(default, skip_serializing_if = "is_default")]
        dtype: WeightType,
    },
    /// A published checkpoint, in Hugging Face's layout.
    HuggingFace(P),
    /// Sizes only: such a recipe can be planned, not trained.
    Declared {
        /// What it stands for.
        name: String,
        /// Parameters, heads included.
        n_parameters: u64,
        /// Width of its frames or embeddings.
        width: usize,
        /// Frames or tokens a second, for what is planned from it.
        #[serde(default)]
        rate_hz: f64,
        /// How its matrices would be held.
        #[serde(default, skip_serializing_if = "is_default")]
        dtype: WeightType,
    },
}

/// A speech encoder of `from = "hugging_face"`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedEncoder {
    /// A directory, relative to the recipe's file, or `hf:owner/name@revision`.
    pub path: String,
    /// How its matrices are held, as [`BaseConfig::Directory`] says.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dtype: WeightType,
    /// Which frames are handed out, of the wav2vec 2.0 family: those that go into block `layer`, counted from 0, as
    /// `hidden_states[layer]` of `transformers`; those of the last block where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// Utterances are padded to 30 s, as Whisper's authors do; otherwise they keep their length.
    #[serde(default)]
    pub pad_to_30_s: bool,
}

/// A language model of `from = "hugging_face"`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedLanguageModel {
    /// A directory, relative to the recipe's file, or `hf:owner/name@revision`.
    pub path: String,
    /// How its matrices are held, as [`BaseConfig::Directory`] says.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dtype: WeightType,
    /// A LoRA adapter in PEFT's layout whose branches are folded into the model: a directory, relative to the recipe's
    /// file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// What the model is asked with: a text with `{instruction}`, then `{speech}`, special tokens as they are
    /// written; the answer follows it. The chat template where nothing is said, and for a model without one
    /// `{instruction}\n{speech}\n`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The system message of the chat template; the template's own where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What is said of every published checkpoint.
pub trait Published {
    /// Where it is.
    fn path(&self) -> &str;
    /// How its matrices are held.
    fn dtype(&self) -> WeightType;
}

impl Published for PublishedEncoder {
    fn path(&self) -> &str {
        &self.path
    }
    fn dtype(&self) -> WeightType {
        self.dtype
    }
}

impl Published for PublishedLanguageModel {
    fn path(&self) -> &str {
        &self.path
    }
    fn dtype(&self) -> WeightType {
        self.dtype
    }
}

impl<P: Published> BaseConfig<P> {
    /// How the matrices are held.
    pub fn dtype(&self) -> WeightType {
        match self {
            Self::Directory { dtype, .. } | Self::Declared { dtype, .. } => *dtype,
            Self::HuggingFace(published) => published.dtype(),
        }
    }

    /// The model that is named on the Hub. A name that is none is left to the plan.
    fn of_the_hub(&self) -> Option<ModelName> {
        match self {
            Self::HuggingFace(published) => ModelName::parse(published.path()).ok(),
            Self::Directory { .. } | Self::Declared { .. } => None,
        }
    }
}

/// One `[[stage]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Unique in the recipe.
    pub name: String,
    /// Optimizer steps, after accumulation.
    pub steps: u64,
    /// Names and patterns of the parameters that are trained, e.g. `["connector"]`, `["*lora_*"]` or
    /// `["*", "!encoder"]`; the last entry that covers a name decides ([`sandhi_nn::pattern`]).
    pub trainable: Vec<String>,
    /// What is learned from.
    #[serde(rename = "data")]
    pub sources: Vec<SourceConfig>,
    /// How batches are made.
    pub batch: BatchConfig,
    /// How parameters move.
    pub optimizer: OptimizerConfig,
    /// Weights of the losses.
    #[serde(default)]
    pub loss: LossConfig,
    /// Connector models only: what of the connector's vectors the language model is given, in this stage and, if it is
    /// the last one, in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<CompressionConfig>,
    /// Masks over features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_augment: Option<sandhi_data::augment::SpecAugmentConfig>,
    /// Blocks keep their input alone and run again in the backward pass: much less memory, about a third more time,
    /// the same result. On the CPU; blocks of WavLM share a bias of positions and keep what they computed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gradient_checkpointing: bool,
    /// Probability that an entry of a residual branch falls out.
    #[serde(default)]
    pub dropout: f64,
    /// Steps between measurements on the dev half; 0 measures at the end only.
    #[serde(default)]
    pub eval_every: u64,
    /// Items measured then.
    #[serde(default = "default_eval_items")]
    pub eval_items: usize,
    /// Steps between checkpoints; 0 saves at the end only.
    #[serde(default)]
    pub checkpoint_every: u64,
}

fn default_eval_items() -> usize {
    64
}

/// Weights of the losses of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Cross-entropy of the answer.
    pub cross_entropy: f64,
    /// Weight of a prompt token against an answer token, of what is read.
    pub prompt: f64,
    /// Cross-entropy of what is read beside speech, so that it is not forgotten; connector models only.
    pub text: f64,
    /// CTC of the transcript; CTC models only.
    pub ctc: f64,
    /// Cross-entropy of every CTC step against the character that is said there, where exact word times
    /// are known; CTC models only. It takes the network off the plateau on which it says nothing but
    /// blanks.
    pub alignment: f64,
    /// CTC of the transcript's tokens over the connector's vectors, by a linear head of its own, `ctc_head`, that is
    /// not part of the model that is saved; connector models only.
    pub token_ctc: f64,
    /// Cross-entropy of every token of the transcript but the first, given the connector's vectors up to it; connector
    /// models with one vector a token only.
    pub next_token: f64,
    /// How narrow the beta-binomial prior on the diagonal is that is added to the scores of an aligner, 0 for none; more
    /// is narrower. For a first stage.
    #[serde(skip_serializing_if = "is_default")]
    pub prior: f64,
    /// How far an aligner's soft alignment is from its best path, once it knows one.
    #[serde(skip_serializing_if = "is_default")]
    pub binarization: f64,
    /// Optimal transport between the connector's vectors and the transcript's embeddings; connector models only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<TransportConfig>,
    /// The distance of every vector from the embedding of its token; connector models with one vector a token only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding: Option<EmbeddingConfig>,
    /// The divergence from the same language model that reads the transcript; connector models only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distillation: Option<DistillationConfig>,
}

impl LossConfig {
    /// Whether a language model has to read prompts and answers.
    pub fn reads(&self) -> bool {
        self.cross_entropy > 0.0 || self.transport.is_some() || self.distillation.is_some()
    }

    /// Whether vectors are compared to tokens one by one.
    pub fn wants_pairs(&self) -> bool {
        self.embedding.is_some() || self.next_token > 0.0
    }

    /// Whether it matters what is said, besides what is to be answered.
    pub fn wants_said(&self) -> bool {
        let compares = self.transport.is_some() || self.distillation.is_some();
        compares || self.wants_pairs() || self.token_ctc > 0.0
    }
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            cross_entropy: 1.0,
            prompt: 0.0,
            text: 1.0,
            ctc: 1.0,
            alignment: 0.0,
            token_ctc: 0.0,
            next_token: 0.0,
            prior: 0.0,
            binarization: 0.0,
            transport: None,
            embedding: None,
            distillation: None,
        }
    }
}

/// One `[[stage.data]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum SourceConfig {
    /// Spoken items of Microworld.
    Microworld(MicroworldSource),
    /// Spoken sentences for the encoder's pre-training, in the `wild` domain.
    Wild(WildSource),
    /// Text of Microworld for the language model.
    Documents(DocumentsSource),
    /// Utterances of a manifest.
    Manifest(ManifestSource),
    /// Plain text files, a document a paragraph.
    Text(TextSource),
    /// Letters, digits and number words, spelled at random.
    Spelling(SpellingSource),
}

impl SourceConfig {
    /// The value of `source` in recipes.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Microworld(_) => "microworld",
            Self::Wild(_) => "wild",
            Self::Documents(_) => "documents",
            Self::Manifest(_) => "manifest",
            Self::Text(_) => "text",
            Self::Spelling(_) => "spelling",
        }
    }

    /// Whether it is text that is read, and nothing that is heard.
    pub fn is_written(&self) -> bool {
        match self {
            Self::Microworld(_) | Self::Wild(_) | Self::Manifest(_) => false,
            Self::Documents(_) | Self::Text(_) | Self::Spelling(_) => true,
        }
    }

    /// Share of the batches, where the recipe says one.
    pub fn weight(&self) -> Option<f64> {
        match self {
            Self::Microworld(s) => s.weight,
            Self::Wild(s) => s.weight,
            Self::Documents(s) => s.weight,
            Self::Manifest(s) => s.weight,
            Self::Text(s) => s.weight,
            Self::Spelling(s) => s.weight,
        }
    }
}

impl Recipe {
    /// Names of the tasks that its stages ask of speech.
    pub(crate) fn asked_of_speech(&self) -> BTreeSet<String> {
        let of = |source: &SourceConfig| match source {
            SourceConfig::Microworld(source) if source.ask.is_empty() => source.tasks.clone(),
            SourceConfig::Microworld(MicroworldSource { ask, .. })
            | SourceConfig::Wild(WildSource { ask, .. })
                if !ask.is_empty() =>
            {
                ask.clone()
            }
            source if source.is_written() => Vec::new(),
            _ => vec![Task::Transcribe.name()],
        };
        self.stages.iter().flat_map(|stage| &stage.sources).flat_map(of).collect()
    }
}

/// `source = "microworld"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MicroworldSource {
    /// Share of the batches; by the number of items when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Task names, e.g. `transcribe`, `translate_de`.
    pub tasks: Vec<String>,
    /// Languages that are spoken.
    #[serde(default = "english")]
    pub languages: Vec<Language>,
    /// How it sounds.
    pub domain: Domain,
    /// What connectors are asked instead of the tasks' own questions, e.g. `transcribe`, `first_word`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ask: Vec<String>,
    /// Slowest and fastest playing of an utterance; each is heard at one speed between them.
    #[serde(default = "as_spoken", skip_serializing_if = "is_as_spoken")]
    pub speed: [f64; 2],
    /// Items of each task and language.
    pub n: usize,
}

/// A range of speeds that changes nothing.
pub(crate) const AS_SPOKEN: [f64; 2] = [1.0, 1.0];

fn as_spoken() -> [f64; 2] {
    AS_SPOKEN
}

fn is_as_spoken(speed: &[f64; 2]) -> bool {
    *speed == AS_SPOKEN
}

fn english() -> Vec<Language> {
    vec![Language::English]
}

/// `source = "wild"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WildSource {
    /// Share of the batches; by the number of items when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// How it sounds; `wild` unless a control says otherwise.
    #[serde(default = "wild")]
    pub domain: Domain,
    /// Which words: `all`, or `open` for what connectors may hear.
    #[serde(default)]
    pub words: WildWords,
    /// What connectors are asked, e.g. `transcribe`, `first_word`; to transcribe when nothing is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ask: Vec<String>,
    /// Slowest and fastest playing of an utterance; each is heard at one speed between them.
    #[serde(default = "as_spoken", skip_serializing_if = "is_as_spoken")]
    pub speed: [f64; 2],
    /// Texts of each language.
    pub n: BTreeMap<Language, usize>,
}

fn wild() -> Domain {
    Domain::Wild
}

/// `source = "documents"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentsSource {
    /// Share of the batches; by the number of items when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Which documents: `all`, or `repetition` for word salad to be repeated.
    #[serde(default)]
    pub kind: DocumentKind,
    /// Names that an instruction lists at most; up to 100.
    #[serde(default = "default_max_phrases")]
    pub max_phrases: usize,
    /// Share of the exchanges whose transcript is written as hesitant speech: pieces said again, dashes
    /// for pauses. Models of the size that people use have read such text by the million words.
    #[serde(default)]
    pub hesitant: f64,
    /// Documents.
    pub n: usize,
}

fn default_max_phrases() -> usize {
    20
}

/// `source = "manifest"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestSource {
    /// Share of the batches; by the number of items when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// A manifest or corpus folder that `sandhi data import` reads; `$name` stands for a folder or file
    /// of `--path`.
    pub path: String,
    /// Only utterances of this split, e.g. `train`; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Speeds at which every utterance is heard besides its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub speeds: Vec<f64>,
    /// Instructions to draw from when the model is a connector model; the utterances' own where nothing is
    /// said, and to transcribe where they have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instructions: Vec<String>,
    /// As text only: the transcripts train a language model.
    #[serde(default = "one")]
    pub repeat: usize,
}

fn one() -> usize {
    1
}

/// `source = "text"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSource {
    /// Share of the batches; by the number of items when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// A file or a folder of `.txt` and `.md` files.
    pub path: String,
    /// Longest document, in characters; longer paragraphs are cut at sentences.
    #[serde(default = "default_text_length")]
    pub max_chars: usize,
    /// Upper-cased and without punctuation, as transcripts of speech corpora are.
    #[serde(default)]
    pub transcript_style: bool,
    /// Instructions under which the text is to be written down again; plain text without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instructions: Vec<String>,
}

fn default_text_length() -> usize {
    400
}

/// `source = "spelling"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpellingSource {
    /// Share of the batches; by the number of items when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Documents.
    pub n: usize,
    /// Instructions under which the text is to be written down again; plain text without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instructions: Vec<String>,
}

/// How batches are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// Items of a batch at most.
    pub max_items: usize,
    /// Sum of the items' lengths at most: seconds of audio, or tokens of text.
    pub max_length: f64,
    /// Batches whose gradients are added before a step.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Replicas of the model, each on a thread; a step's batches are dealt among them.
    #[serde(default = "one")]
    pub replicas: usize,
}

/// What updates the matrices inside a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatrixRule {
    /// AdamW, as everything else.
    #[default]
    Adamw,
    /// Muon (Jordan et al., 2024), at the size of AdamW's updates.
    Muon,
}

/// AdamW (Loshchilov and Hutter, 2019), with Muon for matrices where asked, and the schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Highest learning rate.
    pub lr: f64,
    /// What updates matrices between hidden states: `adamw` or `muon`.
    #[serde(default)]
    pub matrices: MatrixRule,
    /// Decay of the first moment.
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// Decay of the second moment.
    #[serde(default = "default_beta2")]
    pub beta2: f64,
    /// Added to the root of the second moment.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Decoupled decay of matrices; norms, biases and embeddings do not decay.
    #[serde(default = "default_decay")]
    pub weight_decay: f64,
    /// Largest global gradient norm; larger ones are scaled down to it.
    #[serde(default = "default_clip")]
    pub clip: f64,
    /// Steps over which the rate rises from 0.
    #[serde(default)]
    pub warmup: u64,
    /// How the rate falls afterwards.
    #[serde(default)]
    pub schedule: Schedule,
    /// Non-finite losses or gradients in a row after which the run stops.
    #[serde(default = "default_patience")]
    pub nonfinite_patience: u64,
}

fn default_beta1() -> f64 {
    0.9
}
fn default_beta2() -> f64 {
    0.98
}
fn default_eps() -> f64 {
    1e-8
}
fn default_decay() -> f64 {
    0.01
}
fn default_clip() -> f64 {
    1.0
}
fn default_patience() -> u64 {
    5
}

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Half a cosine down to `floor` times the highest rate.
    Cosine {
        /// Share of the highest rate that remains at the end.
        #[serde(default)]
        floor: f64,
    },
    /// A straight line down to `floor` times the highest rate.
    Linear {
        /// Share of the highest rate that remains at the end.
        #[serde(default)]
        floor: f64,
    },
    /// Warm-up, stable, decay: constant, then a straight line to 0 over the last `decay` share.
    Wsd {
        /// Share of the steps that the decay takes.
        decay: f64,
    },
    /// Does not fall.
    Constant {},
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Cosine { floor: 0.0 }
    }
}

impl Schedule {
    /// The rate's share of its maximum at `step` (from 0) of `steps`, `warmup` steps rising.
    pub fn factor(self, step: u64, steps: u64, warmup: u64) -> f64 {
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let progress = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
        match self {
            Self::Cosine { floor } => {
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            Self::Linear { floor } => floor + (1.0 - floor) * (1.0 - progress),
            Self::Wsd { decay } if progress > 1.0 - decay => (1.0 - progress) / decay,
            Self::Wsd { .. } | Self::Constant {} => 1.0,
        }
    }
}

/// The `[eval]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Task names; all that the model can do when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// Domains; all when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// Items a cell.
    pub n: usize,
    /// `dev` while something is tuned, `test` once.
    #[serde(default = "default_half")]
    pub half: Half,
    /// Longest answer, in tokens.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: usize,
    /// Utterances of each language, or of the manifest, that a connector's evaluation draws in `pictures/`.
    #[serde(default = "default_pictures", skip_serializing_if = "is_default_pictures")]
    pub pictures: usize,
    /// A manifest or corpus folder to transcribe instead of Microworld.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Only utterances of this split of the manifest; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_split: Option<String>,
    /// Sides of choices that are asked for by name, `s2t`, `t2t`, `s2s` or `t2s`: those that the model does not have are
    /// said to be so. Of files only these are measured; all that the model has where nothing is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sides: Vec<Sides>,
    /// Choice items of files to choose the endings of instead of Microworld.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<ChoicesConfig>,
}

impl EvalConfig {
    /// Everything that the model can do, `n` items a cell; no pictures.
    pub fn new(n: usize, half: Half) -> Self {
        Self {
            tasks: Vec::new(),
            domains: Vec::new(),
            n,
            half,
            max_tokens: default_max_tokens(),
            pictures: 0,
            manifest: None,
            manifest_split: None,
            sides: Vec::new(),
            choices: None,
        }
    }
}

/// `choices` of `[eval]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChoicesConfig {
    /// Files or folders of [`sandhi_data::choice`]; `$name` stands for a folder or file of `--path`. All of their items
    /// are measured.
    pub paths: Vec<String>,
    /// Their format, where it is not to be told from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<choice::Format>,
    /// Solved items before each, in writing.
    #[serde(default)]
    pub shots: usize,
    /// What is to be done: then a chat is asked, otherwise a document continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
}

fn default_max_tokens() -> usize {
    64
}

fn default_pictures() -> usize {
    1
}

fn is_default_pictures(n: &usize) -> bool {
    *n == default_pictures()
}

fn default_half() -> Half {
    Half::Test
}

/// Which half of the evaluation data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Half {
    /// For tuning.
    Dev,
    /// Opened once.
    Test,
}

impl Half {
    /// The split of Microworld.
    pub fn split(self) -> sandhi_data::microworld::Split {
        match self {
            Self::Dev => sandhi_data::microworld::Split::Dev,
            Self::Test => sandhi_data::microworld::Split::Test,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_rise_and_fall() {
        let cosine = Schedule::Cosine { floor: 0.1 };
        assert_eq!(cosine.factor(0, 100, 10), 0.1);
        assert_eq!(cosine.factor(9, 100, 10), 1.0);
        assert_eq!(cosine.factor(10, 100, 10), 1.0);
        // Half of the way: the mean of 1 and the floor.
        assert!((cosine.factor(55, 100, 10) - 0.55).abs() < 1e-12);
        assert!((cosine.factor(100, 100, 10) - 0.1).abs() < 1e-12);
        let wsd = Schedule::Wsd { decay: 0.2 };
        assert_eq!(wsd.factor(79, 100, 0), 1.0);
        assert!((wsd.factor(90, 100, 0) - 0.5).abs() < 1e-12);
        assert_eq!(Schedule::Linear { floor: 0.0 }.factor(75, 100, 0), 0.25);
        assert_eq!(Schedule::Constant {}.factor(75, 100, 0), 1.0);
    }
}
