//! Parameters by name and size, without making them.
//!
//! ```text
//! config ─ the names and shapes that `init` would make ─ Inventory ─ counts, what `trainable` covers
//! ```
//!
//! Recipes of the size of papers do not fit into memory, and a plan must not need it. A test holds
//! these lists against the parameters of small real models of every kind.

use std::collections::BTreeMap;

use burn::prelude::Device;

use sandhi_nn::{
    aligner::{Hears, UnitAlignerConfig},
    connector::{ConnectorConfig, Widths},
    encoder::{
        ConformerConfig, CtcHeadConfig, EncoderConfig, Wav2vec2EncoderConfig, WhisperEncoderConfig,
        wav2vec2::ConvolutionNorm,
    },
    init::Init,
    layers::NormKind,
    lora::{Linears, LoraConfig},
    pattern,
    transformer::{AttentionBias, MlpKind, TransformerConfig},
    vocoder::VocoderConfig,
    weights,
};

use crate::recipe::NetworkConfig;

/// Name of the CTC head that only training has.
pub(super) const TOKEN_CTC: &str = "ctc_head";

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(super) name: String,
    /// As in files.
    pub(super) shape: Vec<usize>,
    pub(super) n_values: u64,
    /// Two axes: a linear layer's weight, a table, a kernel.
    pub(super) matrix: bool,
    kind: Kind,
}

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The weight of a linear layer: it can have a branch, and be held in 16 bits.
    Linear,
    /// Rows that are looked up; they can be held in 16 bits.
    Table,
    Other,
}

impl Entry {
    /// The rank that a matrix can have at most.
    pub(super) fn rank(&self) -> usize {
        self.shape.iter().copied().min().unwrap_or(0)
    }
}

/// The tensors of a part of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inventory(pub(super) Vec<Entry>);

/// The sizes of a transformer block.
struct BlockSizes {
    d: usize,
    d_q: usize,
    d_kv: usize,
    d_head: usize,
    d_ff: usize,
    norm: NormKind,
    mlp: MlpKind,
    bias: AttentionBias,
    qk_norm: bool,
}

impl BlockSizes {
    /// As many heads for keys as for queries, layer norm, GELU and biases, as in encoders and connectors.
    fn plain(d: usize, n_heads: usize, d_ff: usize) -> Self {
        let d_head = d / n_heads.max(1);
        Self {
            d,
            d_q: n_heads * d_head,
            d_kv: n_heads * d_head,
            d_head,
            d_ff,
            norm: NormKind::Layer,
            mlp: MlpKind::Gelu,
            bias: AttentionBias::QKV,
            qk_norm: false,
        }
    }
}

impl Inventory {
    pub(crate) fn n_values(&self) -> u64 {
        self.0.iter().map(|entry| entry.n_values).fold(0, u64::saturating_add)
    }

    /// Those that a base may hold in 16 bits: weights of linear layers and embeddings.
    pub(super) fn holdable(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(|entry| entry.kind != Kind::Other)
    }

    pub(super) fn n_in_matrices(&self) -> u64 {
        let matrices = self.0.iter().filter(|entry| entry.matrix);
        matrices.map(|entry| entry.n_values).fold(0, u64::saturating_add)
    }

    /// Names and shapes, as in files.
    pub(crate) fn shapes(self) -> BTreeMap<String, Vec<usize>> {
        self.0.into_iter().map(|entry| (entry.name, entry.shape)).collect()
    }

    /// The same tensors below a name.
    pub(super) fn below(mut self, name: &str) -> Self {
        for entry in &mut self.0 {
            entry.name = format!("{name}.{}", entry.name);
        }
        self
    }

    fn tensor(&mut self, name: String, shape: &[usize]) {
        self.entry(name, shape, Kind::Other);
    }

    fn table(&mut self, name: &str, n_rows: usize, width: usize) {
        self.entry(format!("{name}.weight"), &[n_rows, width], Kind::Table);
    }

    fn entry(&mut self, name: String, shape: &[usize], kind: Kind) {
        let n_values = shape.iter().fold(1_u64, |n, &size| n.saturating_mul(size as u64));
        let (shape, matrix) = (shape.to_vec(), shape.len() > 1);
        self.0.push(Entry { name, shape, n_values, matrix, kind });
    }

    fn linear(&mut self, name: &str, d_in: usize, d_out: usize, bias: bool) {
        self.entry(format!("{name}.weight"), &[d_out, d_in], Kind::Linear);
        if bias {
            self.tensor(format!("{name}.bias"), &[d_out]);
        }
    }

    /// Names of the linear layers, with the shapes of their weights.
    pub(super) fn linears(&self) -> impl Iterator<Item = (&str, [usize; 2])> {
        self.0.iter().filter(|entry| entry.kind == Kind::Linear).filter_map(|entry| {
            Some((entry.name.strip_suffix(".weight")?, [entry.shape[0], entry.shape[1]]))
        })
    }

    /// The branches that linear layers get.
    pub(super) fn lora(&self, config: &LoraConfig) -> Self {
        let mut list = Self::default();
        for (name, [d_out, d_in]) in self.linears() {
            if pattern::selects(&config.targets, name) {
                list.tensor(format!("{name}.lora_a.weight"), &[config.rank, d_in]);
                list.tensor(format!("{name}.lora_b.weight"), &[d_out, config.rank]);
            }
        }
        list
    }

    fn norm(&mut self, name: &str, kind: NormKind, d: usize) {
        self.tensor(format!("{name}.weight"), &[d]);
        if kind == NormKind::Layer {
            self.tensor(format!("{name}.bias"), &[d]);
        }
    }

    fn attention(&mut self, name: &str, b: &BlockSizes) {
        self.linear(&format!("{name}.q_proj"), b.d, b.d_q, b.bias.q);
        self.linear(&format!("{name}.k_proj"), b.d, b.d_kv, b.bias.k);
        self.linear(&format!("{name}.v_proj"), b.d, b.d_kv, b.bias.v);
        self.linear(&format!("{name}.o_proj"), b.d_q, b.d, b.bias.o);
        if b.qk_norm {
            self.norm(&format!("{name}.q_norm"), NormKind::Rms, b.d_head);
            self.norm(&format!("{name}.k_norm"), NormKind::Rms, b.d_head);
        }
    }

    fn block(&mut self, name: &str, b: &BlockSizes) {
        self.attention(&format!("{name}.self_attn"), b);
        match b.mlp {
            MlpKind::SwiGlu => {
                self.linear(&format!("{name}.mlp.gate_proj"), b.d, b.d_ff, false);
                self.linear(&format!("{name}.mlp.up_proj"), b.d, b.d_ff, false);
                self.linear(&format!("{name}.mlp.down_proj"), b.d_ff, b.d, false);
            }
            MlpKind::Gelu => {
                self.linear(&format!("{name}.mlp.fc1"), b.d, b.d_ff, true);
                self.linear(&format!("{name}.mlp.fc2"), b.d_ff, b.d, true);
            }
        }
        self.norm(&format!("{name}.input_layernorm"), b.norm, b.d);
        self.norm(&format!("{name}.post_attention_layernorm"), b.norm, b.d);
    }
}

/// The tensors of a language model.
pub(crate) fn language_model(config: &TransformerConfig, n_tokens: usize) -> Inventory {
    let mut list = Inventory::default();
    let block = BlockSizes {
        d: config.d_model,
        d_q: config.n_heads * config.head_width(),
        d_kv: config.kv_heads() * config.head_width(),
        d_head: config.head_width(),
        d_ff: config.d_ff,
        norm: NormKind::Rms,
        mlp: MlpKind::SwiGlu,
        bias: config.bias(),
        qk_norm: config.qk_norm,
    };
    list.table("model.embed_tokens", n_tokens, config.d_model);
    for i in 0..config.n_layers {
        list.block(&format!("model.layers.{i}"), &block);
    }
    list.norm("model.norm", NormKind::Rms, config.d_model);
    if !config.tie_embeddings {
        list.linear("lm_head", config.d_model, n_tokens, false);
    }
    list
}

/// The tensors of an encoder for features of width `n_mels`.
pub(crate) fn encoder(config: &EncoderConfig, n_mels: usize) -> Inventory {
    match config {
        EncoderConfig::Conformer(config) => conformer(config, n_mels),
        EncoderConfig::Whisper(config) => whisper(config, n_mels),
        EncoderConfig::Wav2vec2(config) => wav2vec2(config),
    }
}

fn whisper(config: &WhisperEncoderConfig, n_mels: usize) -> Inventory {
    let mut list = Inventory::default();
    let d = config.d_model;
    let block = BlockSizes {
        bias: AttentionBias { q: true, k: false, v: true, o: true },
        ..BlockSizes::plain(d, config.n_heads, config.d_ff)
    };
    list.linear("conv1", 3 * n_mels, d, true);
    list.linear("conv2", 3 * d, d, true);
    list.tensor("embed_positions".into(), &[config.max_frames, d]);
    for i in 0..config.n_layers {
        list.block(&format!("layers.{i}"), &block);
    }
    list.norm("layer_norm", NormKind::Layer, d);
    list
}

fn wav2vec2(config: &Wav2vec2EncoderConfig) -> Inventory {
    let mut list = Inventory::default();
    let d = config.d_model;
    let mut d_in = 1_usize;
    for (i, (&d_out, &kernel)) in config.conv_dims.iter().zip(&config.conv_kernels).enumerate() {
        let name = format!("conv_layers.{i}");
        let d_window = d_in.saturating_mul(kernel);
        list.linear(&format!("{name}.conv"), d_window, d_out, config.conv_bias);
        if config.conv_norm == ConvolutionNorm::Layer || i == 0 {
            list.norm(&format!("{name}.layer_norm"), NormKind::Layer, d_out);
        }
        d_in = d_out;
    }
    if config.projection_norm {
        list.norm("feature_projection.layer_norm", NormKind::Layer, d_in);
    }
    list.linear("feature_projection.projection", d_in, d, true);
    let d_group = d / config.position_groups.max(1);
    for i in 0..config.position_groups {
        let d_window = config.position_kernel.saturating_mul(d_group);
        list.linear(&format!("pos_conv_embed.groups.{i}"), d_window, d_group, true);
    }
    if config.has_stack_norm() {
        list.norm("layer_norm", NormKind::Layer, d);
    }
    if let Some(bias) = config.position_bias.as_ref().filter(|_| config.n_blocks() > 0) {
        list.table("rel_attn_embed", bias.buckets, config.n_heads);
    }
    for i in 0..config.n_blocks() {
        let name = format!("layers.{i}");
        for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            list.linear(&format!("{name}.attention.{projection}"), d, d, true);
        }
        if config.position_bias.is_some() {
            let d_head = d / config.n_heads.max(1);
            list.linear(&format!("{name}.attention.gate.linear"), d_head, 8, true);
            list.tensor(format!("{name}.attention.gate.scale"), &[config.n_heads]);
        }
        list.norm(&format!("{name}.layer_norm"), NormKind::Layer, d);
        list.linear(&format!("{name}.feed_forward.intermediate_dense"), d, config.d_ff, true);
        list.linear(&format!("{name}.feed_forward.output_dense"), config.d_ff, d, true);
        list.norm(&format!("{name}.final_layer_norm"), NormKind::Layer, d);
    }
    list
}

fn conformer(config: &ConformerConfig, n_mels: usize) -> Inventory {
    let mut list = Inventory::default();
    let d = config.d_model;
    let attention = BlockSizes::plain(d, config.n_heads, config.d_ff);
    list.linear("conv1", 3 * n_mels, d, true);
    list.linear("conv2", 3 * d, d, true);
    list.linear("input", d, d, true);
    for i in 0..config.n_layers {
        let name = format!("layers.{i}");
        for ff in ["ff1", "ff2"] {
            list.norm(&format!("{name}.{ff}.norm"), NormKind::Layer, d);
            list.linear(&format!("{name}.{ff}.up"), d, config.d_ff, true);
            list.linear(&format!("{name}.{ff}.down"), config.d_ff, d, true);
        }
        list.norm(&format!("{name}.attn_norm"), NormKind::Layer, d);
        list.attention(&format!("{name}.self_attn"), &attention);
        list.norm(&format!("{name}.conv.norm"), NormKind::Layer, d);
        list.linear(&format!("{name}.conv.pointwise1"), d, 2 * d, true);
        list.tensor(format!("{name}.conv.depthwise"), &[config.kernel, d]);
        list.norm(&format!("{name}.conv.depthwise_norm"), NormKind::Layer, d);
        list.linear(&format!("{name}.conv.pointwise2"), d, d, true);
        list.norm(&format!("{name}.final_norm"), NormKind::Layer, d);
    }
    list
}

/// The tensors of a CTC head.
pub(super) fn ctc_head(config: &CtcHeadConfig, d_encoder: usize, n_symbols: usize) -> Inventory {
    let mut list = Inventory::default();
    list.linear("proj", d_encoder, config.steps_per_frame * n_symbols, true);
    list
}

/// The tensors of a CTC head over a connector's vectors, under their full names: scores of the language model's tokens,
/// and of the blank.
pub(super) fn token_ctc_head(d_model: usize, n_tokens: usize) -> Inventory {
    let mut list = Inventory::default();
    list.linear(TOKEN_CTC, d_model, n_tokens + 1, true);
    list
}

/// The tensors of a text-and-unit aligner.
pub(super) fn aligner(config: &UnitAlignerConfig, n_symbols: usize, hears: Hears) -> Inventory {
    let mut list = Inventory::default();
    let (d, d_window) = (config.d_model, config.kernel * config.d_model);
    list.table("text.embedding", n_symbols, d);
    list.linear("text.conv", d_window, d, true);
    list.linear("text.out", d, d, true);
    match hears {
        Hears::Units(n) => list.table("speech.input.embedding", n, d),
        Hears::Frames(width) => list.linear("speech.input", width, d, true),
    }
    for i in 0..config.n_layers {
        list.linear(&format!("speech.convs.{i}"), d_window, d, true);
    }
    list.linear("speech.out", d, d, true);
    list
}

/// The tensors of a connector: those of one without values.
pub(super) fn connector(config: &ConnectorConfig, widths: Widths) -> Inventory {
    let mut module = config.init(widths, &Init::hollow(&Device::flex()));
    let mut list = Inventory::default();
    for parameter in weights::parameters(&module) {
        list.entry(parameter.name, &parameter.shape, Kind::Other);
    }
    for (name, _) in module.linears() {
        let weight = format!("{name}.weight");
        if let Some(entry) = list.0.iter_mut().find(|entry| entry.name == weight) {
            entry.kind = Kind::Linear;
        }
    }
    list
}

/// The parts of a network over text and units, with their tensors.
pub(super) fn network(config: &NetworkConfig, n_tokens: usize) -> Vec<(&'static str, Inventory)> {
    let names: &[&str] = match config {
        NetworkConfig::Plain(_) => &[PLAIN],
        NetworkConfig::Patch(_) => &PATCHES,
    };
    let mut parts: Vec<(&str, Inventory)> =
        names.iter().map(|&name| (name, Inventory::default())).collect();
    let net = config.init(n_tokens, &Init::hollow(&Device::flex()));
    for parameter in weights::parameters(&net) {
        let below = parameter.name.strip_prefix("network.").unwrap_or(&parameter.name);
        let part = match below.split('.').next() {
            _ if parts.len() == 1 => 0,
            Some("global" | "text") => 1,
            Some("memory_proj" | "decoder" | "norm" | "lm_head") => 2,
            _ => 0,
        };
        parts[part].1.entry(parameter.name, &parameter.shape, Kind::Other);
    }
    parts
}

/// The tensors of a unit vocoder: those of one without values.
pub(super) fn vocoder(
    config: &VocoderConfig,
    n_units: usize,
    samples_per_unit: usize,
) -> Inventory {
    let net = config.init(n_units, samples_per_unit, &Init::hollow(&Device::flex()));
    let mut list = Inventory::default();
    for parameter in weights::parameters(&net) {
        list.entry(parameter.name, &parameter.shape, Kind::Other);
    }
    list
}

/// Name of the only part of a plain network over text and units.
pub(super) const PLAIN: &str = "network";
/// Names of the parts of one over patches.
pub(super) const PATCHES: [&str; 3] = ["patch_encoder", "global", "patch_decoder"];

#[cfg(test)]
mod tests {
    use burn::prelude::*;
    use burn::{module::Param, tensor::DType};
    use sandhi_nn::{
        aligner::Softmax,
        connector::{Reduction, SlmConfig},
        layers::Linear,
        weights::{ParameterMap, WeightType},
    };

    use super::*;
    use crate::{model::CtcNet, train::learner::ConnectorNet};

    #[track_caller]
    fn check<M: Module>(list: Inventory, module: &M) {
        let mut listed: Vec<(String, u64, bool)> =
            list.0.into_iter().map(|e| (e.name, e.n_values, e.matrix)).collect();
        let mut real: Vec<(String, u64, bool)> = weights::parameters(module)
            .into_iter()
            .map(|p| (p.name.clone(), p.n_values() as u64, p.shape.len() > 1))
            .collect();
        listed.sort();
        real.sort();
        assert_eq!(listed, real);
    }

    /// Names of the parameters that are held in 16 bits.
    struct Held(Vec<String>);

    impl ParameterMap for Held {
        fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if param.val().dtype() != DType::F32 {
                self.0.push(name.to_owned());
            }
            param
        }
    }

    /// Besides: the list marks as linear what can have a branch, and as holdable what is held in 16 bits.
    #[track_caller]
    fn check_kinds<M: Module + Linears>(list: Inventory, module: &M) {
        let own = |(name, shape): (&str, [usize; 2])| (name.to_owned(), shape);
        let mut listed: Vec<_> = list.linears().map(own).collect();
        let mut module = module.clone();
        let real = module.linears().into_iter().map(|(name, linear)| {
            let [d_in, d_out] = linear.weight.dims();
            (name, [d_out, d_in])
        });
        let mut real: Vec<_> = real.collect();
        listed.sort();
        real.sort();
        assert_eq!(listed, real);
        let mut holdable: Vec<String> = list.holdable().map(|entry| entry.name.clone()).collect();
        let mut held = Held(Vec::new());
        weights::map_parameters(
            weights::hold(module.clone(), WeightType::Bf16).unwrap(),
            &mut held,
        );
        holdable.sort();
        held.0.sort();
        assert_eq!(holdable, held.0);
        check(list, &module);
    }

    fn init() -> Init {
        Init::new(1, &Device::flex())
    }

    const TEXT: TransformerConfig = TransformerConfig {
        d_model: 12,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: Some(1),
        d_head: None,
        d_ff: 20,
        rope_theta: 1e4,
        rope_scaling: None,
        unrotated: Vec::new(),
        norm_eps: 1e-5,
        tie_embeddings: true,
        qk_norm: true,
        attention_bias: false,
        output_bias: false,
        window: None,
    };

    const SPEECH: EncoderConfig = EncoderConfig::Conformer(ConformerConfig {
        d_model: 12,
        n_layers: 2,
        n_heads: 2,
        d_ff: 20,
        kernel: 5,
    });

    #[test]
    fn a_language_model_has_the_listed_parameters() {
        let wide = TransformerConfig {
            d_head: Some(8),
            n_kv_heads: None,
            tie_embeddings: false,
            qk_norm: false,
            attention_bias: true,
            output_bias: true,
            ..TEXT
        };
        for config in [TEXT, wide] {
            check_kinds(language_model(&config, 31), &config.init(31, &init()));
        }
    }

    #[test]
    fn branches_are_the_listed_parameters() {
        let targets = ["lm.*.q_proj", "*.mlp", "!*.layers.1"].map(str::to_owned).to_vec();
        let config = LoraConfig { rank: 3, alpha: 6.0, targets, rslora: false };
        let mut lm = TEXT.init(31, &init());
        sandhi_nn::lora::attach(&mut lm, "lm", &config, 1);
        let mut list = language_model(&TEXT, 31).below("lm");
        let branches = list.lora(&config);
        assert_eq!(branches.0.len(), 8);
        list.0.extend(branches.0);
        for entry in &mut list.0 {
            entry.name = entry.name.trim_start_matches("lm.").to_owned();
        }
        check(list, &lm);
    }

    #[test]
    fn encoders_of_spectra_have_the_listed_parameters() {
        let config = EncoderConfig::Whisper(WhisperEncoderConfig {
            d_model: 12,
            n_layers: 2,
            n_heads: 3,
            d_ff: 20,
            max_frames: 9,
        });
        check_kinds(encoder(&config, 16), &config.init(16, &init()));
        check_kinds(encoder(&SPEECH, 16), &SPEECH.init(16, &init()));
    }

    #[test]
    fn a_wav2vec2_encoder_has_the_listed_parameters() {
        for text in [
            r#"{}"#,
            r#"{"layer": 1, "conv_norm": "layer", "conv_bias": true, "pre_norm": true}"#,
            r#"{"pre_norm": true, "position_bias": {"buckets": 8}, "projection_norm": false}"#,
            r#"{"layer": 0, "position_bias": {}}"#,
        ] {
            let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
            for (name, size) in [
                ("d_model", 12),
                ("n_layers", 2),
                ("n_heads", 3),
                ("d_ff", 20),
                ("position_groups", 4),
            ] {
                value[name] = size.into();
            }
            value["conv_dims"] = serde_json::json!([5, 6]);
            value["conv_kernels"] = serde_json::json!([4, 3]);
            value["conv_strides"] = serde_json::json!([3, 2]);
            let config: Wav2vec2EncoderConfig = serde_json::from_value(value).unwrap();
            let config = EncoderConfig::Wav2vec2(config);
            check_kinds(encoder(&config, 1), &config.init(1, &init()));
        }
    }

    #[test]
    fn a_ctc_model_has_the_listed_parameters() {
        let ctc = CtcHeadConfig { steps_per_frame: 2 };
        let net = CtcNet {
            encoder: SPEECH.init(16, &init()),
            head: ctc.init(12, 30, &init().child("head")),
        };
        let mut list = encoder(&SPEECH, 16).below("encoder");
        list.0.extend(ctc_head(&ctc, 12, 30).below("head").0);
        check(list, &net);
    }

    #[test]
    fn a_vocoder_has_the_listed_parameters() {
        let config: VocoderConfig = serde_json::from_value(
            serde_json::json!({ "d_model": 6, "d_ff": 8, "hop": 4, "n_mels": 5 }),
        )
        .unwrap();
        check(vocoder(&config, 9, 8), &config.init(9, 8, &init()));
    }

    #[test]
    fn an_aligner_has_the_listed_parameters() {
        let config: UnitAlignerConfig =
            serde_json::from_value(serde_json::json!({ "d_model": 6, "n_layers": 3, "kernel": 5 }))
                .unwrap();
        for hears in [Hears::Units(11), Hears::Frames(7)] {
            check(aligner(&config, 9, hears), &config.init(9, hears, &init()));
        }
        let config = UnitAlignerConfig { n_layers: 0, softmax: Softmax::Units, ..config };
        check(aligner(&config, 9, Hears::Units(11)), &config.init(9, Hears::Units(11), &init()));
    }

    #[test]
    fn a_connector_model_has_the_listed_parameters() {
        let widths = Widths { d_encoder: 12, d_model: 12 };
        for (reduce, reduction) in [(Reduction::Stack, 4), (Reduction::Drop, 2)] {
            let config = ConnectorConfig::Slm(SlmConfig {
                reduction,
                reduce,
                d_hidden: 18,
                n_layers: 2,
                n_heads: 3,
                d_ff: 24,
            });
            let net = ConnectorNet {
                encoder: SPEECH.init(16, &init()),
                connector: config.init(widths, &init()),
                language_model: TEXT.init(31, &init()),
                ctc_head: Some(Linear::new(&init(), 12, 32, true)),
                pad: None,
                compression: None,
                aids: crate::model::Aids::default(),
            };
            let mut list = encoder(&SPEECH, 16).below("encoder");
            list.0.extend(connector(&config, widths).below("connector").0);
            list.0.extend(language_model(&TEXT, 31).below("language_model").0);
            list.0.extend(token_ctc_head(12, 31).0);
            check(list, &net);
        }
    }
}
