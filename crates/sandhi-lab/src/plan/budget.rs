//! What a stage takes: operations of its steps, and the memory that it needs at once.
//!
//! ```text
//! a full batch of equal items ─ layers of every part ─ cost::step ─┬─ work:   forward, backward, once
//!                                                                 └─ memory: gradients, moments, what backward keeps
//! ```

use sandhi_data::{features::FeatureExtractor, patching::PatchingConfig};
use sandhi_nn::{aligner::Hears, connector::ConnectorConfig, length::Length};

use super::{
    F32, Work,
    check::{Base, Frames, SpeechBase, TextBase},
    cost::{self, Batch, CHARACTERS_HZ, PartLayers, PatchBatch},
    count, forward_operations,
    parts::{Counted, LORA, Size, learns},
    total,
};
use crate::{
    model::samples_per_unit,
    recipe::{
        AlignerModelConfig, Form, Measure, ModelConfig, NetworkConfig, Recipe, SourceConfig,
        SpeechTextModelConfig, StageConfig, StoriesSource, UnitsSource,
    },
    train::{dataset::TOKEN_S, is_trained, trainable},
};

/// Instruction and answer tokens that an item of speech is estimated to have.
const TEXT_TOKENS_AN_ITEM: f64 = 48.0;

/// Frames that a connector's length is asked for, to tell how many become a vector.
const STEP: usize = 5_040;

/// The share of them that is the answer, whose tokens are scored.
const ANSWER_SHARE: f64 = 1.0 / 3.0;

/// What the layers and lengths of a batch follow from.
pub(super) struct Model<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) encoder: Option<&'a Base<SpeechBase>>,
    pub(super) language_model: Option<&'a Base<TextBase>>,
    pub(super) parts: &'a [Counted],
}

impl Model<'_> {
    /// Tokens, frames or vectors that items become, and the tokens of text that stand beside those of an item.
    pub(super) fn tokens(&self) -> (Option<Frames>, f64) {
        match &self.recipe.model {
            ModelConfig::Text(_) | ModelConfig::SpeechText(_) => {
                (Some(Frames { a_second: 1.0, an_item: 0.0 }), 0.0)
            }
            ModelConfig::Ctc(config) => (Some(Frames::new(&config.features, &config.encoder)), 0.0),
            ModelConfig::Aligner(config) => (Some(aligner_frames(config)), 0.0),
            ModelConfig::Vocoder(_) => (self.encoder.and_then(Base::frames), 0.0),
            ModelConfig::Connector(config) => {
                let vectors = self.encoder.and_then(Base::frames).map(|frames| {
                    // Where the data decide, a vector for every character at most.
                    let per_frame = match config.connector.length(STEP) {
                        Length::Exact(n) => n as f64 / STEP as f64,
                        Length::AtMost(_) => {
                            (CHARACTERS_HZ / frames.a_second.max(CHARACTERS_HZ)).min(1.0)
                        }
                    };
                    match config.connector {
                        ConnectorConfig::QFormer(ref former) => {
                            Frames { a_second: 0.0, an_item: former.n_queries as f64 }
                        }
                        _ => Frames {
                            a_second: frames.a_second * per_frame,
                            an_item: frames.an_item * per_frame,
                        },
                    }
                });
                (vectors, TEXT_TOKENS_AN_ITEM)
            }
        }
    }

    /// A full batch of a model over text and units.
    pub(super) fn documents(&self, stage: &StageConfig) -> Option<PatchBatch> {
        let ModelConfig::SpeechText(config) = &self.recipe.model else { return None };
        let n_vocabulary = self.parts.first().and_then(|part| part.rows_of(EMBEDDINGS))?;
        Some(documents(config, stage, n_vocabulary))
    }

    /// The layers of every part over a full batch of equal items; `all` with an encoder that is heard once.
    /// None where a declared part does not say its rate.
    fn layers(&self, stage: &StageConfig, all: bool) -> Option<Vec<PartLayers<'_>>> {
        let n = stage.batch.max_items as f64;
        let units = stage.batch.max_length / n.max(1.0);
        let layers = match &self.recipe.model {
            ModelConfig::Text(config) => {
                let n_tokens = config.tokenizer.vocab_size;
                let batch = Batch::new(n, units);
                vec![cost::language_model(&config.language_model, n_tokens, &batch)]
            }
            ModelConfig::Ctc(config) => {
                let n_mels = FeatureExtractor::new(&config.features).ok()?.n_mels();
                let frames = Frames::new(&config.features, &config.encoder);
                let batch = Batch::new(n, frames.of(units));
                // The head has a row of the weight and an entry of the bias for every output.
                let d = config.encoder.d_encoder();
                let outputs = self.parts.get(1)?.n_parameters() / (d as u64 + 1);
                let aligned = stage.loss.alignment > 0.0;
                let rows = n * batch.rows;
                vec![
                    cost::encoder(&config.encoder, n_mels, &batch),
                    cost::ctc_head(d, outputs as f64, aligned, rows),
                ]
            }
            ModelConfig::Connector(config) => {
                let frames = self.encoder?.frames()?.of(units);
                let (vectors, text) = self.tokens();
                let vectors = Batch::new(n, vectors?.of(units));
                // What is read: prompts and answers, the vectors alone for the token that comes next, or nothing.
                let reads = stage.loss.reads();
                let prompts = if reads { vectors.rows + text } else { 0.0 };
                let alone = if stage.loss.next_token > 0.0 { vectors.rows } else { 0.0 };
                let answers = if reads { text * ANSWER_SHARE } else { 0.0 };
                let mut tails = answers + alone;
                let mut rows = prompts + alone;
                // A batch of documents beside those of speech: every token is predicted. The larger of both counts.
                if stage.sources.iter().any(SourceConfig::is_written) {
                    let written = units / TOKEN_S;
                    (rows, tails) = (rows.max(written), tails.max(written));
                }
                let spoken = Batch { tails, ..Batch::new(n, rows) };
                let heard = match self.encoder? {
                    _ if !all && !learns(self.parts, "encoder", &trainable(self.recipe)) => {
                        Vec::new()
                    }
                    Base::Known(speech) => {
                        cost::encoder(&speech.encoder, speech.n_mels, &Batch::new(n, frames))
                    }
                    Base::Declared { n_parameters, .. } => {
                        cost::declared(*n_parameters, n * frames)
                    }
                };
                let lm = self.language_model?;
                let mut read = match lm {
                    Base::Known(text) => {
                        cost::language_model(&text.transformer, text.n_tokens, &spoken)
                    }
                    Base::Declared { n_parameters, .. } => {
                        cost::declared(*n_parameters, n * spoken.rows)
                    }
                };
                if let (Some(loss), Base::Known(text)) = (&stage.loss.distillation, lm) {
                    let read_in_writing = in_writing(stage);
                    let depths = loss.depths.len();
                    read.push(cost::distillation(
                        &text.transformer,
                        text.n_tokens,
                        depths,
                        &read_in_writing,
                    ));
                }
                let width = self.encoder?.width();
                let mut connected =
                    cost::connector(&config.connector, width, lm.width(), &vectors, n * frames);
                if let Base::Known(text) = lm {
                    connected.extend(cost::token_distances(
                        &config.connector,
                        lm.width(),
                        text.n_tokens,
                        n * frames,
                    ));
                }
                let mut layers = vec![heard, connected, read];
                if let (true, Base::Known(text)) = (self.has_token_ctc(), lm) {
                    let on = stage.loss.token_ctc > 0.0;
                    let rows = if on { n * vectors.rows } else { 0.0 };
                    layers.push(cost::token_ctc(lm.width(), text.n_tokens + 1, rows));
                }
                layers
            }
            ModelConfig::Aligner(config) => {
                let hears = match &config.units {
                    None => {
                        let n_mels = FeatureExtractor::new(&config.features).ok()?.n_mels();
                        Hears::Frames(config.window.width(n_mels))
                    }
                    // As many units as their table has rows.
                    Some(_) => {
                        let Size::Listed(list) = &self.parts.first()?.size else { return None };
                        let table = list.0.iter().find(|entry| entry.name == UNIT_TABLE)?;
                        Hears::Units(table.shape[0])
                    }
                };
                let batch = Batch::new(n, aligner_frames(config).of(units));
                vec![cost::aligner(&config.aligner, hears, CHARACTERS_HZ * units, &batch)]
            }
            ModelConfig::Vocoder(config) => {
                let rate_hz = self.encoder?.frames()?.a_second;
                let samples = samples_per_unit(rate_hz)? as f64;
                let batch = Batch::new(n, units * rate_hz);
                vec![cost::vocoder(&config.vocoder, samples, &batch)]
            }
            ModelConfig::SpeechText(config) => {
                let n_tokens = self.parts.first().and_then(|part| part.rows_of(EMBEDDINGS))?;
                match &config.network {
                    NetworkConfig::Plain(network) => {
                        let batch = documents(config, stage, n_tokens);
                        let batch = Batch::new(batch.n_documents, batch.n_tokens);
                        let mut layers = cost::language_model(network, n_tokens, &batch);
                        for layer in &mut layers {
                            layer.name = format!("network.{}", layer.name);
                        }
                        vec![layers]
                    }
                    NetworkConfig::Patch(network) => {
                        let batch = documents(config, stage, n_tokens);
                        cost::patch_lm(network, n_tokens, &batch).into()
                    }
                }
            }
        };
        let text = matches!(
            self.recipe.model,
            ModelConfig::Text(_)
                | ModelConfig::Aligner(_)
                | ModelConfig::SpeechText(_)
                | ModelConfig::Vocoder(_)
        );
        let branches = self.parts.iter().find(|part| part.name == LORA);
        let branches = branches.and_then(|part| match &part.size {
            Size::Listed(list) => Some(list),
            Size::Declared { .. } => None,
        });
        // Branches have no layers of their own: they are counted where they are.
        let layers = layers.into_iter().chain(branches.map(|_| Vec::new()));
        let parts = layers.zip(self.parts).map(|(layers, part)| PartLayers {
            prefix: match part.name {
                _ if text => String::new(),
                count::TOKEN_CTC => String::new(),
                name => format!("{name}."),
            },
            layers,
            list: match &part.size {
                Size::Listed(list) => Some(list),
                Size::Declared { .. } => None,
            },
            branches,
            trained: part.n_trained(&stage.trainable) > 0,
        });
        Some(parts.collect())
    }

    fn has_token_ctc(&self) -> bool {
        self.parts.iter().any(|part| part.name == count::TOKEN_CTC)
    }

    /// Operations of reading what is said in writing, where transport compares speech to it within the language
    /// model: forward alone, as no gradient goes there.
    fn read_in_writing(&self, stage: &StageConfig) -> f64 {
        self.transport_in_writing(stage) + self.distillation_in_writing(stage)
    }

    /// Operations of reading prompts with the transcript in writing, where the language model that hears is held against
    /// the one that reads.
    fn distillation_in_writing(&self, stage: &StageConfig) -> f64 {
        let (Some(_), Some(Base::Known(text))) = (&stage.loss.distillation, self.language_model)
        else {
            return 0.0;
        };
        let layers = cost::language_model(&text.transformer, text.n_tokens, &in_writing(stage));
        layers.iter().map(|layer| layer.with_weights + layer.between).sum()
    }

    fn transport_in_writing(&self, stage: &StageConfig) -> f64 {
        let depths = stage.loss.transport.iter().flat_map(|config| config.inner_depths());
        let (Some(deepest), Some(Base::Known(text))) = (depths.max(), self.language_model) else {
            return 0.0;
        };
        let n = stage.batch.max_items as f64;
        // Instruction and transcript, which is about as long as an answer.
        let rows = TEXT_TOKENS_AN_ITEM;
        let layers = cost::language_model(&text.transformer, text.n_tokens, &Batch::new(n, rows));
        let blocks = layers.iter().filter(|layer| layer.name.contains("layers.")).take(deepest);
        blocks.map(|layer| layer.with_weights + layer.between).sum()
    }

    /// One batch of a stage.
    fn step(&self, stage: &StageConfig, all: bool) -> Option<cost::Step> {
        let parts = self.layers(stage, all)?;
        Some(cost::step(&parts, stage.gradient_checkpointing, |name| {
            is_trained(&stage.trainable, name)
        }))
    }

    /// Operations of every part in a stage.
    pub(super) fn work(&self, stage: &StageConfig, n_items: Option<usize>) -> Option<Vec<Work>> {
        let (step, all) = (self.step(stage, false)?, self.step(stage, true)?);
        let n = stage.batch.accumulate as f64;
        let heard = n * stage.steps as f64;
        // How often the stage hears an item, where that is known.
        let passes = n_items.map_or(1.0, |n_items| {
            (heard * stage.batch.max_items as f64 / n_items.max(1) as f64).max(1.0)
        });
        let parts = self.parts.iter().zip(step.parts.iter().zip(&all.parts));
        let work = parts.map(|(part, (step, all))| Work {
            part: part.name.to_owned(),
            forward: n * match part.name {
                "language_model" => step.forward + self.read_in_writing(stage),
                _ => step.forward,
            },
            backward: n * step.backward,
            once: (all.forward - step.forward) * heard / passes,
        });
        Some(work.collect())
    }

    /// Memory of a stage, beside the weights: gradients and moments of every part, what backward keeps, and the
    /// most of it at once.
    pub(super) fn memory(&self, stage: &StageConfig) -> StageMemory {
        let step = self.step(stage, false);
        let known = self.parts.iter().all(|part| matches!(part.size, Size::Listed(_)));
        let copies = gradient_copies(stage);
        let at_once = stage.batch.replicas.min(stage.batch.accumulate).max(1) as f64;
        let bytes = |values: f64| (values * F32 as f64) as u64;
        let parts: Vec<PartMemory> = self
            .parts
            .iter()
            .enumerate()
            .map(|(i, part)| PartMemory {
                gradients: part.n_trained(&stage.trainable).saturating_mul(copies * F32),
                moments: part.n_kept(stage).saturating_mul(F32),
                activations: match (&part.size, &step) {
                    (Size::Listed(_), Some(step)) => Some(bytes(at_once * step.parts[i].kept)),
                    _ => None,
                },
            })
            .collect();
        let sum = |of: fn(&PartMemory) -> u64| total(parts.iter().map(of));
        let activations = known.then_some(sum(|part| part.activations.unwrap_or(0)));
        let (gradients, moments) = (sum(|part| part.gradients), sum(|part| part.moments));
        let trained = total(self.parts.iter().map(|part| part.n_trained(&stage.trainable)));
        let passing = match (&step, known) {
            (Some(step), true) => bytes(at_once_bytes(stage, step.peak, trained as f64)),
            _ => gradients.saturating_add(activations.unwrap_or(0)),
        };
        StageMemory { parts, activations, total: passing.saturating_add(moments) }
    }
}

/// The embeddings of a network over text and units.
const EMBEDDINGS: &str = "embed_tokens.weight";

/// Units of a patch that is a word or a silence, about: those of LST (<https://arxiv.org/abs/2510.06195>) have 5.8 and 3.7.
const UNITS_A_WORD: f64 = 4.9;
/// The share of units among the tokens of interleaved documents, about; 0.77 in LST.
const UNITS_INTERLEAVED: f64 = 0.77;

/// The share of units where an utterance stands beside the same in writing, about: 9.7 a word, and 1.3 pieces.
const UNITS_BESIDE_TEXT: f64 = 0.88;

/// Patches for a token, about: text alone, units as the rule has it.
pub(super) fn patches_per_token(config: &SpeechTextModelConfig, stage: &StageConfig) -> f64 {
    let share = |source: &SourceConfig| match source {
        SourceConfig::Stories(StoriesSource { form, .. })
        | SourceConfig::Units(UnitsSource { form, .. }) => match form {
            Form::Interleaved => UNITS_INTERLEAVED,
            Form::Spoken => 1.0,
            Form::Written => 0.0,
            Form::Transcribed | Form::Voiced => UNITS_BESIDE_TEXT,
        },
        _ => 0.0,
    };
    // Sources without a weight count by their items, which may differ in length.
    let weight = |source: &SourceConfig| source.weight().unwrap_or(1.0);
    let total: f64 = stage.sources.iter().map(weight).sum();
    let units: f64 = stage.sources.iter().map(|source| weight(source) * share(source)).sum();
    let units = units / total.max(f64::MIN_POSITIVE);
    let size = match (&config.patching, &config.network) {
        (Some(PatchingConfig::Static(rule)), _) => rule.size as f64,
        (Some(PatchingConfig::Aligned(_)), _) => UNITS_A_WORD,
        (Some(PatchingConfig::Mixed(rule)), _) => {
            1.0 / (rule.p_aligned / UNITS_A_WORD + (1.0 - rule.p_aligned) / rule.size as f64)
        }
        (Some(PatchingConfig::Curriculum(rule)), _) => {
            let aligned = 0.5 * (rule.aligned_until + rule.static_from);
            1.0 / (aligned / UNITS_A_WORD + (1.0 - aligned) / rule.size as f64)
        }
        (Some(PatchingConfig::Entropy(rule)), _) => rule.units_per_patch,
        (None, NetworkConfig::Patch(network)) => {
            network.router.map_or(1.0, |router| router.units_per_patch)
        }
        (None, NetworkConfig::Plain(_)) => 1.0,
    };
    1.0 - units + units / size
}

/// Tokens of a document where nothing says more: a story that is spoken has as many.
const DOCUMENT: f64 = 256.0;

/// A full batch of a stage, whatever it is measured by, as documents of equal length.
fn documents(
    config: &SpeechTextModelConfig,
    stage: &StageConfig,
    n_vocabulary: usize,
) -> PatchBatch {
    let per_token = patches_per_token(config, stage);
    let n_tokens = DOCUMENT.min(config.context as f64);
    let cost = match (stage.batch.measure, &config.network) {
        (Measure::Tokens, _) | (Measure::Patches, NetworkConfig::Plain(_)) => n_tokens,
        (Measure::Patches, NetworkConfig::Patch(_)) => n_tokens * per_token,
        (Measure::Operations, network) => {
            let parts = forward_operations(network, n_vocabulary, n_tokens, n_tokens * per_token);
            parts.into_iter().map(|(_, operations)| operations).sum::<f64>() / 1e6
        }
    };
    let length = stage.batch.max_length;
    // Where fewer documents are allowed they are longer, by what a token costs on average.
    let n_documents = (length / cost).min(stage.batch.max_items as f64).max(1.0);
    let n_tokens = (length / n_documents * n_tokens / cost).min(config.context as f64);
    PatchBatch { n_documents, n_tokens, n_patches: n_tokens * per_token }
}

/// The embeddings of an aligner's units.
const UNIT_TABLE: &str = "speech.input.embedding.weight";

/// Frames that an aligner hears.
pub(super) fn aligner_frames(config: &AlignerModelConfig) -> Frames {
    let a_second = config.features.rate_hz() / config.window.stride as f64;
    Frames { a_second, an_item: 0.0 }
}

/// Prompts and answers with the transcript in writing, which is about as long as an answer.
fn in_writing(stage: &StageConfig) -> Batch {
    let answer = TEXT_TOKENS_AN_ITEM * ANSWER_SHARE;
    let rows = TEXT_TOKENS_AN_ITEM + answer;
    Batch { tails: answer, ..Batch::new(stage.batch.max_items as f64, rows) }
}

/// Bytes of a part in a stage.
pub(super) struct PartMemory {
    pub(super) gradients: u64,
    pub(super) moments: u64,
    pub(super) activations: Option<u64>,
}

/// Bytes of a stage, without weights.
pub(super) struct StageMemory {
    pub(super) parts: Vec<PartMemory>,
    pub(super) activations: Option<u64>,
    pub(super) total: u64,
}

/// The most values of activations and gradients at once, when a batch has at most `peak` and gives
/// `gradients`. A replica holds the gradients of its batches until all are done.
fn at_once_bytes(stage: &StageConfig, peak: f64, gradients: f64) -> f64 {
    let n = stage.batch.accumulate as f64;
    let replicas = (stage.batch.replicas.min(stage.batch.accumulate)).max(1) as f64;
    if replicas > 1.0 {
        ((n - replicas) * gradients + replicas * peak).max(n * gradients)
    } else if n > 1.0 {
        gradients + peak
    } else {
        peak
    }
}

/// Copies of the gradients that live at once: the sum and the newest one, or those of all batches
/// when replicas wait for each other.
fn gradient_copies(stage: &StageConfig) -> u64 {
    match (stage.batch.accumulate, stage.batch.replicas) {
        (1, _) => 1,
        (_, 0 | 1) => 2,
        (n, _) => 1 + n as u64,
    }
}
