//! What a training step costs: operations and memory, from the shapes.
//!
//! ```text
//! forward    layer 0 ──> layer 1 ──> … ──> head ──> loss        operations; what backward keeps grows
//! backward   layer 0 <── layer 1 <── … <── head <──┘            what was kept goes, gradients come
//! ```
//!
//! Operations are those of matrix products, a multiplication and an addition each: `2 m n k` for
//! `[m, k] [k, n]`. With weights: once forward, once backward for the gradient of the layer's input where one
//! is needed, once for that of the weights that are trained. Between activations, in attention: once forward,
//! twice backward; only what the mask lets through.
//!
//! Values kept are those that the fused operations of the CPU save, each buffer once. A test trains models of
//! several shapes and holds the most bytes that were in use at once against [`Step::peak`].

use std::collections::BTreeMap;

use sandhi_nn::{
    aligner::{Hears, Softmax, UnitAlignerConfig},
    connector::{ConnectorConfig, CutConfig, Reduction},
    encoder::{
        ConformerConfig, EncoderConfig, Wav2vec2EncoderConfig, WhisperEncoderConfig,
        wav2vec2::ConvolutionNorm,
    },
    patch::{PatchLmConfig, StackConfig},
    transformer::TransformerConfig,
    vocoder::{VocoderConfig, loss_values, spectral_width},
};

use super::count::{self, Inventory, TOKEN_CTC};

/// A piece of a model whose backward pass is one piece of work.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Layer {
    /// Path of its parameters, without the part's name.
    pub name: String,
    /// Operations of a forward pass with weights.
    pub with_weights: f64,
    /// Operations of a forward pass between activations.
    pub between: f64,
    /// Values that the backward pass keeps.
    pub kept: f64,
    /// Values that the backward pass holds for a while, beside what it keeps and gives.
    pub passing: f64,
    /// Values that go into a block, which is all that it keeps where it runs again in the backward pass.
    pub input: f64,
    /// One product with weights: nothing in it needs the gradient of its input.
    pub single: bool,
    /// Sequences that go through one after another, so that where no gradient reaches it one is there at a time;
    /// 0 where they go together.
    pub in_turn: f64,
}

/// Sequences of equal length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Batch {
    pub n_sequences: f64,
    /// Rows of each.
    pub rows: f64,
    /// Rows at the end of each whose output is needed.
    pub tails: f64,
}

impl Batch {
    pub(super) fn new(n_sequences: f64, rows: f64) -> Self {
        Self { n_sequences, rows, tails: rows }
    }

    fn n_rows(&self) -> f64 {
        self.n_sequences * self.rows
    }
}

/// The widths of an attention block.
struct Widths {
    d: f64,
    d_q: f64,
    d_kv: f64,
    d_ff: f64,
    n_heads: f64,
    /// Matrices of the feed-forward layer: 3 with a gate, 2 without.
    n_ff: f64,
    /// Norms of queries and keys keep their inputs.
    qk_norm: bool,
}

impl Widths {
    /// As many heads for keys as for queries, no gate.
    fn plain(d: usize, n_heads: usize, d_ff: usize) -> Self {
        let [d, n_heads, d_ff] = [d, n_heads, d_ff].map(|n| n as f64);
        Self { d, d_q: d, d_kv: d, d_ff, n_heads, n_ff: 2.0, qk_norm: false }
    }

    /// Those of a language model.
    fn of(config: &TransformerConfig) -> Self {
        Self {
            d: config.d_model as f64,
            d_q: (config.n_heads * config.head_width()) as f64,
            d_kv: (config.kv_heads() * config.head_width()) as f64,
            d_ff: config.d_ff as f64,
            n_heads: config.n_heads as f64,
            n_ff: 3.0,
            qk_norm: config.qk_norm,
        }
    }

    /// A transformer block of which `asked` rows of each sequence give an output.
    fn block(&self, name: String, batch: &Batch, asked: f64, visible: f64) -> Layer {
        let Self { d, d_q, d_kv, d_ff, n_heads, n_ff, qk_norm } = *self;
        let (all, asked) = (batch.n_rows(), batch.n_sequences * asked);
        // Block input and its norm; keys and values. Then, of rows that ask: queries, attention's output and
        // one sum a head, the input of the second norm and its output, and what surrounds the activation.
        let mut kept =
            all * (2.0 * d + 2.0 * d_kv) + asked * (2.0 * d_q + n_heads + 2.0 * d + n_ff * d_ff);
        if asked < all {
            kept += asked * d;
        }
        if qk_norm {
            kept += all * d_kv + asked * d_q;
        }
        Layer {
            name,
            with_weights: 2.0 * (all * 2.0 * d * d_kv + asked * (2.0 * d * d_q + n_ff * d * d_ff)),
            // Scores, and the values that they weigh.
            between: 4.0 * d_q * batch.n_sequences * visible,
            kept,
            passing: asked * (d + d_ff),
            input: all * d,
            ..Layer::default()
        }
    }
}

/// One product with weights, `kept` values of whose input and output are kept.
fn linear(name: &str, n_rows: f64, d_in: f64, d_out: f64, kept: f64) -> Layer {
    Layer {
        name: name.into(),
        with_weights: 2.0 * n_rows * d_in * d_out,
        kept,
        passing: n_rows * d_in.max(d_out),
        single: true,
        ..Layer::default()
    }
}

fn norm(name: &str, kept: f64) -> Layer {
    Layer { name: name.into(), kept, passing: kept, ..Layer::default() }
}

/// Pairs of a query and a key that it sees, of a sequence of `rows` whose last `asked` rows ask.
fn causal(rows: f64, asked: f64, window: Option<usize>) -> f64 {
    let window = window.map_or(f64::INFINITY, |n| n as f64);
    // The k-th row sees min(k, window) rows; of rows 1 to m these are:
    let sum = |m: f64| {
        let rising = m.min(window);
        rising * (rising + 1.0) / 2.0 + if m > window { (m - window) * window } else { 0.0 }
    };
    sum(rows) - sum(rows - asked)
}

/// A language model: embedding, blocks, norm, output layer. Only the last block knows of tails.
pub(super) fn language_model(
    config: &TransformerConfig,
    n_tokens: usize,
    batch: &Batch,
) -> Vec<Layer> {
    let (d, n_tokens) = (config.d_model as f64, n_tokens as f64);
    let widths = Widths::of(config);
    let table = "model.embed_tokens";
    let mut layers = vec![Layer {
        name: table.into(),
        // A table has the gradients of two uses.
        passing: if config.tie_embeddings { n_tokens * d } else { 0.0 },
        ..Layer::default()
    }];
    for i in 0..config.n_layers {
        let asked = if i + 1 == config.n_layers { batch.tails } else { batch.rows };
        let visible = causal(batch.rows, asked, config.window);
        layers.push(widths.block(format!("model.layers.{i}"), batch, asked, visible));
    }
    let scored = batch.n_sequences * batch.tails;
    layers.push(norm("model.norm", scored * d));
    let head = if config.tie_embeddings { table } else { "lm_head" };
    layers.push(Layer {
        passing: scored * d,
        ..linear(head, scored, d, n_tokens, scored * (d + n_tokens))
    });
    layers
}

/// Documents of equal length over patches of equal length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PatchBatch {
    pub n_documents: f64,
    /// Tokens of each.
    pub n_tokens: f64,
    /// Patches of each.
    pub n_patches: f64,
}

/// A transformer over patches: the layers of its three parts.
pub(super) fn patch_lm(
    config: &PatchLmConfig,
    n_vocabulary: usize,
    batch: &PatchBatch,
) -> [Vec<Layer>; 3] {
    let PatchBatch { n_documents, n_tokens, n_patches } = *batch;
    let (tokens, patches) = (Batch::new(n_documents, n_tokens), Batch::new(n_documents, n_patches));
    let (all_tokens, all_patches) = (tokens.n_rows(), patches.n_rows());
    let [d, d_global, k] = [config.d_local, config.d_global(), config.n_queries].map(|n| n as f64);
    // Pairs of a token and a patch that is read from it or reads it: its own and those before, as far as the window.
    let pairs = if n_patches > 0.0 {
        n_documents * n_tokens / n_patches * causal(n_patches, n_patches, Some(config.cross_window))
    } else {
        0.0
    };
    let named = |name: &str| format!("network.{name}");
    let blocks = |name: &str, n_layers: usize, window, widths: Widths, batch: &Batch| {
        let visible = causal(batch.rows, batch.rows, window);
        let name = |i| named(&format!("{name}.layers.{i}"));
        let block = |i| widths.block(name(i), batch, batch.rows, visible);
        (0..n_layers).map(block).collect::<Vec<Layer>>()
    };
    let stack = |name: &str, stack: &StackConfig, d: usize, batch: &Batch| {
        let widths = Widths { n_ff: 3.0, ..Widths::plain(d, stack.n_heads, stack.feed_forward(d)) };
        blocks(name, stack.n_layers, stack.window, widths, batch)
    };

    let gathered = k * d;
    let mut encoder = vec![Layer {
        name: named("embed_tokens"),
        // A table has the gradients of two uses.
        passing: if config.tie_embeddings { n_vocabulary as f64 * d } else { 0.0 },
        ..Layer::default()
    }];
    encoder.extend(stack("encoder", &config.encoder, config.d_local, &tokens));
    if config.router.is_some() {
        for name in ["router.q_proj", "router.k_proj"] {
            encoder.push(linear(&named(name), all_tokens, d, d, 2.0 * all_tokens * d));
        }
    }
    let pooled =
        linear(&named("pool_proj"), all_patches, d, gathered, all_patches * (d + gathered));
    encoder.push(pooled);
    encoder.push(Layer {
        name: named("gather"),
        with_weights: 4.0 * d * d * (all_tokens + k * all_patches),
        between: 4.0 * d * k * pairs,
        kept: all_tokens * 4.0 * d + all_patches * k * 5.0 * d,
        passing: all_tokens * d,
        ..Layer::default()
    });
    if config.gathered_width() != config.d_global() {
        encoder.push(linear(
            &named("widen"),
            all_patches,
            gathered,
            d_global,
            all_patches * gathered,
        ));
    }

    let n = n_vocabulary as f64;
    let global = match (&config.text, &config.global) {
        (Some(text), _) => {
            let table = named("text.embed_tokens");
            let mut layers = vec![Layer {
                name: table.clone(),
                passing: if text.tie_embeddings { n * d_global } else { 0.0 },
                ..Layer::default()
            }];
            // What the encoder gives, and the gate that it goes through.
            layers.push(norm(&named("text.gate"), all_patches * d_global));
            layers.extend(blocks("global", text.n_layers, text.window, Widths::of(text), &patches));
            layers.push(norm(&named("text.norm"), all_patches * d_global));
            let head = if text.tie_embeddings { table } else { named("text.lm_head") };
            layers.push(linear(&head, all_tokens, d_global, n, all_tokens * (d_global + n)));
            layers
        }
        (None, Some(global)) => stack("global", global, config.d_global(), &patches),
        (None, None) => Vec::new(),
    };

    let memory =
        linear(&named("memory_proj"), all_patches, d_global, gathered, all_patches * d_global);
    let mut decoder = vec![memory];
    let blocks = stack("decoder", &config.decoder, config.d_local, &tokens);
    for (i, block) in blocks.into_iter().enumerate() {
        decoder.push(Layer {
            name: named(&format!("decoder.layers.{i}.read")),
            with_weights: 4.0 * d * d * (all_tokens + k * all_patches),
            between: 4.0 * d * k * pairs,
            kept: all_tokens * 5.0 * d + all_patches * k * 4.0 * d,
            passing: all_tokens * d,
            ..Layer::default()
        });
        decoder.push(Layer { name: format!("{}.block", block.name), ..block });
    }
    decoder.push(norm(&named("norm"), all_tokens * d));
    let head = if config.tie_embeddings { "embed_tokens" } else { "lm_head" };
    decoder.push(Layer {
        passing: all_tokens * d,
        ..linear(&named(head), all_tokens, d, n, all_tokens * (d + n))
    });
    [encoder, global, decoder]
}

/// What holds the language model that hears against the one that reads `read` in writing, at the answer's tokens. Of the
/// one that reads nothing is kept, but its share of the divergence; its blocks pass while everything of the one that
/// hears is there.
pub(super) fn distillation(
    config: &TransformerConfig,
    n_tokens: usize,
    n_depths: usize,
    read: &Batch,
) -> Layer {
    let (d, n_tokens, n_depths) = (config.d_model as f64, n_tokens as f64, n_depths as f64);
    let scored = read.n_sequences * read.tails;
    let blocks = language_model(config, n_tokens as usize, read);
    let blocks = blocks.iter().filter(|layer| layer.input > 0.0).map(|layer| 2.0 * layer.passing);
    Layer {
        name: "distillation".into(),
        // Probabilities of both sides; of every depth the rows of both.
        kept: scored * 2.0 * (n_tokens + n_depths * d),
        // Gradients of the divergence on their way through the softmax.
        passing: blocks.fold(3.0 * scored * n_tokens, f64::max),
        ..Layer::default()
    }
}

/// An encoder that hears features of width `n_mels`; `batch` counts its output frames.
pub(super) fn encoder(config: &EncoderConfig, n_mels: usize, batch: &Batch) -> Vec<Layer> {
    match config {
        EncoderConfig::Conformer(config) => conformer(config, n_mels as f64, batch),
        EncoderConfig::Whisper(config) => whisper(config, n_mels as f64, batch),
        EncoderConfig::Wav2vec2(config) => wav2vec2(config, batch),
    }
}

fn whisper(config: &WhisperEncoderConfig, n_mels: f64, batch: &Batch) -> Vec<Layer> {
    let (n, d) = (batch.n_rows(), config.d_model as f64);
    let widths = Widths::plain(config.d_model, config.n_heads, config.d_ff);
    // Unfolded input, and what the activation takes in.
    let mut layers = vec![
        linear("conv1", 2.0 * n, 3.0 * n_mels, d, 2.0 * n * (3.0 * n_mels + d)),
        linear("conv2", n, 3.0 * d, d, n * (3.0 * d + d)),
    ];
    layers.extend(
        (0..config.n_layers).map(|i| {
            widths.block(format!("layers.{i}"), batch, batch.rows, batch.rows * batch.rows)
        }),
    );
    layers.push(norm("layer_norm", n * d));
    layers
}

fn wav2vec2(config: &Wav2vec2EncoderConfig, batch: &Batch) -> Vec<Layer> {
    let (n, d) = (batch.n_rows(), config.d_model as f64);
    let mut layers = Vec::new();
    let (mut rows, mut d_in) = (n * config.samples_per_frame() as f64, 1.0);
    let sizes = config.conv_dims.iter().zip(&config.conv_kernels).zip(&config.conv_strides);
    for (i, ((&d_out, &kernel), &stride)) in sizes.enumerate() {
        rows /= stride as f64;
        let (d_out, window) = (d_out as f64, kernel as f64 * d_in);
        // The windows, and what the norm and the activation take in; a norm over time keeps what it scales, too.
        let norm = match config.conv_norm {
            ConvolutionNorm::Layer => 1.0,
            ConvolutionNorm::Group if i == 0 => 2.0,
            ConvolutionNorm::Group => 0.0,
        };
        let kept = rows * (window + (norm + 1.0) * d_out);
        layers.push(Layer {
            in_turn: batch.n_sequences,
            ..linear(&format!("conv_layers.{i}"), rows, window, d_out, kept)
        });
        d_in = d_out;
    }
    layers.push(linear("feature_projection.projection", n, d_in, d, n * (2.0 * d_in + d)));
    // Every group of channels has windows of its own.
    let (groups, kernel) = (config.position_groups.max(1) as f64, config.position_kernel as f64);
    layers.push(Layer {
        name: "pos_conv_embed".into(),
        with_weights: 2.0 * n * kernel * d * d / groups,
        kept: n * (kernel * d + 2.0 * d),
        passing: n * kernel * d / groups,
        ..Layer::default()
    });
    layers.push(norm("layer_norm", n * d));
    let widths = Widths::plain(config.d_model, config.n_heads, config.d_ff);
    let pairs = batch.rows * batch.rows;
    // Values of a bias of positions, or of scores.
    let scores = config.n_heads as f64 * batch.n_sequences * pairs;
    if config.position_bias.is_some() {
        layers.push(Layer {
            name: "rel_attn_embed".into(),
            // The bias that all blocks share, and the table's row for every pair.
            kept: scores + batch.n_sequences * pairs,
            passing: scores,
            ..Layer::default()
        });
    }
    layers.extend((0..config.n_blocks()).map(|i| {
        let mut block = widths.block(format!("layers.{i}"), batch, batch.rows, pairs);
        if config.position_bias.is_some() {
            // Such blocks do not run again.
            block.input = 0.0;
            // Exponents, their powers and what these are of their sum, where the fused attention keeps none.
            block.kept += 3.0 * scores;
        }
        block
    }));
    layers
}

fn conformer(config: &ConformerConfig, n_mels: f64, batch: &Batch) -> Vec<Layer> {
    let n = batch.n_rows();
    let [d, d_ff, n_heads] = [config.d_model, config.d_ff, config.n_heads].map(|n| n as f64);
    let mut layers = vec![
        linear("conv1", 2.0 * n, 3.0 * n_mels, d, 2.0 * n * (3.0 * n_mels + d)),
        linear("conv2", n, 3.0 * d, d, n * (3.0 * d + d)),
        linear("input", n, d, d, n * d),
    ];
    layers.extend((0..config.n_layers).map(|i| Layer {
        name: format!("layers.{i}"),
        // Two feed-forward layers, four projections of attention, and the convolution's two: to 2 d, and d.
        with_weights: 2.0 * n * (4.0 * d * d_ff + 4.0 * d * d + 3.0 * d * d),
        between: 4.0 * d * batch.n_sequences * batch.rows * batch.rows,
        // 2 d + 2 d_ff in each feed-forward layer, 6 d in attention, 8 d in the convolution, the last norm's d.
        kept: n * (19.0 * d + 4.0 * d_ff + n_heads),
        passing: n * (2.0 * d + d_ff).max(4.0 * d),
        input: n * d,
        ..Layer::default()
    }));
    layers
}

/// Characters a second that speech is estimated to have.
pub(super) const CHARACTERS_HZ: f64 = 16.0;

/// Bytes of the lattice that CTC's loss makes on the host of one utterance of `n_steps` steps: for every step and
/// state a forward score and an occupancy. States are symbols with blanks around.
pub(super) fn ctc_lattice(n_steps: f64, duration_s: f64) -> f64 {
    let state_bytes = 16.0 + 8.0;
    n_steps * (2.0 * CHARACTERS_HZ * duration_s + 1.0) * state_bytes
}

/// A CTC head; with the loss of `alignment` its outputs are kept twice.
pub(super) fn ctc_head(d_encoder: usize, n_outputs: f64, alignment: bool, n: f64) -> Vec<Layer> {
    let d = d_encoder as f64;
    let copies = if alignment { 2.0 } else { 1.0 };
    vec![Layer { passing: n * d, ..linear("proj", n, d, n_outputs, n * (d + copies * n_outputs)) }]
}

/// A CTC head over `n` vectors of a connector.
pub(super) fn token_ctc(d_model: usize, n_outputs: usize, n: f64) -> Vec<Layer> {
    let (d, n_outputs) = (d_model as f64, n_outputs as f64);
    vec![Layer { passing: n * d, ..linear(TOKEN_CTC, n, d, n_outputs, n * n_outputs) }]
}

/// A text-and-unit aligner; `batch` counts its frames, `n_characters` those of each text.
pub(super) fn aligner(
    config: &UnitAlignerConfig,
    hears: Hears,
    n_characters: f64,
    batch: &Batch,
) -> Vec<Layer> {
    let d = config.d_model as f64;
    let d_window = config.kernel as f64 * d;
    let (frames, characters) = (batch.n_rows(), batch.n_sequences * n_characters);
    // The windows, and what the activation gives.
    let conv = |name: &str, n: f64| linear(name, n, d_window, d, n * (d_window + d));
    let cells = frames * n_characters;
    let mut layers = vec![
        Layer { name: "text.embedding".into(), ..Layer::default() },
        conv("text.conv", characters),
        linear("text.out", characters, d, d, characters * d),
    ];
    match hears {
        Hears::Units(n) if config.softmax == Softmax::Units => {
            // Distances to all units, their softmax, and what the frames take of it.
            let (n, table) = (n as f64, n as f64 * characters);
            layers.push(Layer { name: "speech.input.embedding".into(), ..Layer::default() });
            layers.push(Layer {
                between: 2.0 * table * d,
                kept: 3.0 * table + 3.0 * cells,
                passing: 2.0 * cells,
                ..linear("speech.out", n, d, d, n * d)
            });
            return layers;
        }
        Hears::Units(_) => {
            layers.push(Layer { name: "speech.input.embedding".into(), ..Layer::default() });
        }
        Hears::Frames(width) => {
            layers.push(linear("speech.input", frames, width as f64, d, frames * width as f64));
        }
    }
    layers.extend((0..config.n_layers).map(|i| conv(&format!("speech.convs.{i}"), frames)));
    // Distances, with what both sides give, and the gradient of the loss beside them.
    layers.push(Layer {
        between: 2.0 * cells * d,
        kept: frames * d + (frames + characters) * d + 3.0 * cells,
        passing: 2.0 * cells,
        ..linear("speech.out", frames, d, d, 0.0)
    });
    layers
}

/// A unit vocoder with its losses; `batch` counts units, each of `samples` samples.
pub(super) fn vocoder(config: &VocoderConfig, samples: f64, batch: &Batch) -> Vec<Layer> {
    let [d, d_ff, kernel, hop] =
        [config.d_model, config.d_ff, config.kernel, config.hop].map(|n| n as f64);
    let width = spectral_width(config.hop, config.overlap) as f64;
    let (units, per_unit) = (batch.n_rows(), samples / hop);
    let frames = units * per_unit;
    // The convolution, its norm and what surrounds the activation.
    let block = |name: String, n: f64| Layer {
        name,
        with_weights: 2.0 * n * (kernel * d + 2.0 * d * d_ff),
        kept: n * (3.0 * d + 2.0 * d_ff),
        passing: n * (d + d_ff),
        ..Layer::default()
    };
    let mut layers = vec![Layer { name: "embedding".into(), ..Layer::default() }];
    layers.extend((0..config.unit_layers).map(|i| block(format!("unit_layers.{i}"), units)));
    layers.push(linear("upsample", units, d, per_unit * d, units * d));
    layers.extend((0..config.frame_layers).map(|i| block(format!("frame_layers.{i}"), frames)));
    layers.push(norm("norm", frames * d));
    layers.push(linear("mel", frames, d, config.n_mels as f64, frames * config.n_mels as f64));
    // Logarithms, what is made of them, and the windows that the inverse transform reads.
    layers.push(linear("magnitude", frames, d, width / 2.0, frames * width));
    layers.push(linear("phase", frames, d, width / 2.0, frames * width));
    let (operations, kept) = loss_values(batch.rows * samples);
    let overlap = config.overlap as f64;
    layers.push(Layer {
        name: "sound".into(),
        between: 2.0 * frames * overlap * width * hop + batch.n_sequences * operations,
        kept: frames * (overlap * width + 2.0 * hop) + batch.n_sequences * kept,
        passing: frames * overlap * width,
        ..Layer::default()
    });
    layers
}

/// Bytes that the forward sum makes on the host of one utterance.
pub(super) fn forward_sum_lattice(n_frames: f64, n_characters: f64) -> f64 {
    20.0 * n_frames * n_characters
}

/// A connector; `batch` counts its output vectors, `n_frames` what it is given.
pub(super) fn connector(
    config: &ConnectorConfig,
    d_encoder: usize,
    d_model: usize,
    batch: &Batch,
    n_frames: f64,
) -> Vec<Layer> {
    match config {
        ConnectorConfig::Slm(config) => {
            let (n, d) = (batch.n_rows(), config.d_hidden as f64);
            let widths = Widths::plain(config.d_hidden, config.n_heads, config.d_ff);
            let group = d_encoder as f64
                * match config.reduce {
                    Reduction::Stack => config.reduction as f64,
                    Reduction::Drop => 1.0,
                };
            let mut layers = vec![linear("input", n, group, d, n * group)];
            layers.extend((0..config.n_layers).map(|i| {
                widths.block(format!("layers.{i}"), batch, batch.rows, batch.rows * batch.rows)
            }));
            layers.push(norm("norm", n * d));
            layers.push(linear("output", n, d, d_model as f64, n * d));
            layers
        }
        _ => {
            let widths = sandhi_nn::connector::Widths { d_encoder, d_model };
            let list = count::connector(config, widths);
            let products = list.linears().map(|(name, [d_out, d_in])| {
                let rows = connector_rows(config, name, batch.n_rows(), n_frames);
                let (d_in, d_out) = (d_in as f64, d_out as f64);
                linear(name, rows, d_in, d_out, rows * (d_in + d_out))
            });
            products.collect()
        }
    }
}

/// Distances of `n_frames` frames to the embeddings of all tokens, where a connector reads frames by them; CTC has them
/// on the host, too, and gives a gradient of the same size.
pub(super) fn token_distances(
    config: &ConnectorConfig,
    d_model: usize,
    n_tokens: usize,
    n_frames: f64,
) -> Option<Layer> {
    let reads = match config {
        ConnectorConfig::DistanceCtc(_) => true,
        ConnectorConfig::Ssr(config) => matches!(config.cut, Some(CutConfig::Ctc(_))),
        _ => false,
    };
    let cells = n_frames * n_tokens as f64;
    reads.then(|| Layer {
        between: 2.0 * cells * d_model as f64,
        kept: 2.0 * cells,
        passing: 2.0 * cells,
        ..Layer::default()
    })
}

/// Rows that go through a linear layer of a connector.
fn connector_rows(config: &ConnectorConfig, name: &str, n_vectors: f64, n_frames: f64) -> f64 {
    match config {
        // Every convolution halves the rows; what follows works on what is left.
        ConnectorConfig::Conv(_) => match name.strip_prefix("conv_layers.") {
            Some(i) => n_frames / 2_f64.powi(1 + i.parse().unwrap_or(0)),
            None => n_vectors,
        },
        // Keys and values are of frames, all else of queries.
        ConnectorConfig::QFormer(_)
        | ConnectorConfig::WindowQFormer(_)
        | ConnectorConfig::AlignFormer(_) => {
            let of_frames =
                name.contains("cross_attn.k_proj") || name.contains("cross_attn.v_proj");
            if of_frames { n_frames } else { n_vectors }
        }
        ConnectorConfig::Slm(_)
        | ConnectorConfig::StackMlp(_)
        | ConnectorConfig::StackSwiglu(_) => n_vectors,
        // At most: what is read off frame by frame. Outputs are fewer.
        ConnectorConfig::Ssr(_) | ConnectorConfig::DistanceCtc(_) => n_frames,
        // A projector works on what is merged.
        ConnectorConfig::CtcCollapse(_) | ConnectorConfig::Cif(_) => {
            if name.starts_with("projector") { n_vectors } else { n_frames }
        }
    }
}

/// A part of which nothing but its size is known: every parameter is used once a row.
pub(super) fn declared(n_parameters: u64, n_rows: f64) -> Vec<Layer> {
    vec![Layer { with_weights: 2.0 * n_parameters as f64 * n_rows, ..Layer::default() }]
}

/// Parameters of a layer.
#[derive(Debug, Clone, Copy, Default)]
struct Parameters {
    in_matrices: f64,
    trained_in_matrices: f64,
    trained: f64,
}

/// The low-rank branches of a layer.
#[derive(Debug, Clone, Copy, Default)]
struct Branches {
    n_values: f64,
    trained: f64,
    /// What they give between their factors, for a row.
    widths: f64,
}

/// The layer that a parameter belongs to.
fn layer_of(name: &str) -> &str {
    for whole in ["pos_conv_embed", "network.gather"] {
        if let Some(at) = name.find(whole) {
            return &name[..at + whole.len()];
        }
    }
    if let Some(at) = name.find("layers.") {
        let number = at + "layers.".len();
        let Some(dot) = name[number..].find('.') else { return name };
        let layer = &name[..number + dot];
        // Blocks that read patches are two layers.
        let behind = &name[layer.len()..];
        let part = [".read.", ".block."].into_iter().find(|part| behind.starts_with(part));
        return part.map_or(layer, |part| &name[..layer.len() + part.len() - 1]);
    }
    name.rsplit_once('.').map_or(name, |(layer, _)| layer)
}

/// What one batch does in one part.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Work {
    /// Operations forward and backward.
    pub forward: f64,
    pub backward: f64,
    /// Values that the backward pass keeps.
    pub kept: f64,
}

/// What one batch does in the whole model.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Step {
    /// In every part.
    pub parts: Vec<Work>,
    /// The most values of activations and gradients that live at once.
    pub peak: f64,
}

/// The layers of a part, in the order of the forward pass.
pub(super) struct PartLayers<'a> {
    /// What stands before their names among the parameters.
    pub prefix: String,
    pub layers: Vec<Layer>,
    /// The part's parameters, where they are known.
    pub list: Option<&'a Inventory>,
    /// Low-rank branches, of this part and of others.
    pub branches: Option<&'a Inventory>,
    /// Whether the part is trained, where they are not.
    pub trained: bool,
}

/// One batch through the parts. `again` says that blocks keep their input alone and run again.
pub(super) fn step(parts: &[PartLayers], again: bool, is_trained: impl Fn(&str) -> bool) -> Step {
    let mut flows = false;
    // The most that a layer needs which no gradient reaches: what goes in, what comes out, what is between.
    let mut unkept = 0.0_f64;
    let mut works = Vec::new();
    // Of every layer that gradients reach: kept, passing, and new gradients.
    let mut way_back: Vec<(f64, f64, f64)> = Vec::new();
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    // A table may be used by a part that it does not belong to, where names have no prefix.
    let shared = |part: &&PartLayers| part.prefix.is_empty() && !part.layers.is_empty();
    let all: Vec<&Inventory> = parts.iter().filter(shared).filter_map(|part| part.list).collect();
    for part in parts {
        let mut known: BTreeMap<&str, Parameters> = BTreeMap::new();
        let own: Vec<&Inventory> =
            if part.prefix.is_empty() { all.clone() } else { part.list.into_iter().collect() };
        for entry in own.into_iter().flat_map(|list| &list.0) {
            let layer = known.entry(layer_of(&entry.name)).or_default();
            let (n, trained) = (entry.n_values as f64, is_trained(&entry.name));
            layer.in_matrices += if entry.matrix { n } else { 0.0 };
            layer.trained_in_matrices += if entry.matrix && trained { n } else { 0.0 };
            layer.trained += if trained { n } else { 0.0 };
        }
        let mut branches: BTreeMap<&str, Branches> = BTreeMap::new();
        for entry in part.branches.iter().flat_map(|list| &list.0) {
            let beside = branches.entry(layer_of(&entry.name)).or_default();
            let n = entry.n_values as f64;
            beside.n_values += n;
            beside.trained += if is_trained(&entry.name) { n } else { 0.0 };
            beside.widths += entry.rank() as f64;
        }
        let mut work = Work::default();
        for layer in &part.layers {
            let path = format!("{}{}", part.prefix, layer.name);
            let of = match part.list {
                Some(_) => known.get(path.as_str()).copied().unwrap_or_default(),
                None => {
                    let n = f64::from(u8::from(part.trained));
                    Parameters { in_matrices: 1.0, trained_in_matrices: n, trained: 0.0 }
                }
            };
            let beside = branches.get(path.as_str()).copied().unwrap_or_default();
            let n_rows = layer.with_weights / (2.0 * of.in_matrices.max(1.0));
            let reached = flows;
            flows |= of.trained > 0.0 || of.trained_in_matrices > 0.0 || beside.trained > 0.0;
            let share = of.trained_in_matrices / of.in_matrices.max(1.0);
            let in_branches = 2.0 * n_rows * beside.n_values;
            work.forward += layer.with_weights + layer.between + in_branches;
            let input = if reached || (flows && !layer.single) { 1.0 } else { 0.0 };
            work.backward += layer.with_weights * (share + input);
            if beside.n_values > 0.0 {
                work.backward += in_branches * (beside.trained / beside.n_values + input);
            }
            if !flows {
                let alive = if layer.single { layer.kept } else { 2.0 * layer.passing };
                unkept = unkept.max(alive / layer.in_turn.max(1.0));
            } else {
                work.backward += 2.0 * layer.between;
                let whole = layer.kept + n_rows * beside.widths;
                let again = again && layer.input > 0.0;
                // A block that runs again keeps everything for as long as its own backward pass.
                let (kept, passing) = match again {
                    true => (layer.input, layer.passing + whole),
                    false => (whole, layer.passing),
                };
                if again {
                    work.backward += layer.with_weights + layer.between + in_branches;
                }
                work.kept += kept;
                // Weights that are used twice have one gradient, which comes with the last use.
                if let Some(earlier) = used.insert(path, way_back.len()) {
                    way_back[earlier].2 = 0.0;
                }
                way_back.push((kept, passing, of.trained + beside.trained));
            }
        }
        works.push(work);
    }
    let mut live: f64 = way_back.iter().map(|(kept, ..)| kept).sum();
    let mut peak = live.max(unkept);
    for (kept, passing, gradients) in way_back.into_iter().rev() {
        peak = peak.max(live + passing + gradients);
        live += gradients - kept;
    }
    Step { parts: works, peak: peak.max(live) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four patches of two tokens. Encoder and decoder, a block each: 2·8·(4·16 + 3·4·8) with weights and 4·4·36 between.
    /// To patches: 2·4·4·8 pooled, 4·16·(8 + 2·4) gathered, 2·4·8·6 widened. Over them: 2·4·(4·36 + 3·6·10) and 4·6·10.
    /// To tokens: 2·4·6·8 as memory, 4·16·(8 + 2·4) read, 2·8·4·10 scores.
    #[test]
    fn operations_over_patches_by_hand() {
        let stack = |d_ff: usize| serde_json::json!({ "n_layers": 1, "n_heads": 2, "d_ff": d_ff });
        let (blocks, patches) = (2_560.0 + 576.0, 2_592.0 + 240.0);
        let (encoder, decoder) =
            (blocks + 256.0 + 1_024.0 + 384.0, 384.0 + 1_024.0 + blocks + 640.0);
        // A window reads as far back as there are patches: 2·(1 + 1 + 1 + 1), 2·(1 + 2 + 3 + 3) and 2·(1 + 2 + 3 + 4)
        // pairs of a token and a patch, 4·4 operations for each of its two rows.
        for (cross_window, pairs) in [(1, 8.0), (3, 18.0), (100, 20.0)] {
            let config = serde_json::json!({
                "d_local": 4, "d_global": 6, "n_queries": 2, "cross_heads": 2,
                "cross_window": cross_window, "encoder": stack(8), "global": stack(10),
                "decoder": stack(8), "tie_embeddings": true,
            });
            let config: PatchLmConfig = serde_json::from_value(config).unwrap();
            let of = |n_documents: f64| {
                let batch = PatchBatch { n_documents, n_tokens: 8.0, n_patches: 4.0 };
                let sum = |layers: Vec<Layer>| -> f64 {
                    layers.iter().map(|layer| layer.with_weights + layer.between).sum()
                };
                patch_lm(&config, 10, &batch).map(sum)
            };
            let crossing = 32.0 * pairs;
            assert_eq!(of(1.0), [encoder + crossing, patches, decoder + crossing]);
            assert_eq!(of(3.0), of(1.0).map(|operations| 3.0 * operations));
        }
    }
}
