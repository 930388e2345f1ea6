//! wav2vec 2.0, HuBERT and WavLM: `config.json` and names.
//!
//! ```text
//! wav2vec2.encoder.layers.0.attention.q_proj.weight    layers.0.attention.q_proj.weight
//! wav2vec2.feature_extractor.conv_layers.0.conv.weight conv_layers.0.conv.weight, taps first
//! …pos_conv_embed.conv.{weight_g, weight_v}            pos_conv_embed.groups.N.weight, weight norm folded
//! masked_spec_embed, quantizer.*, project_*            dropped: of pre-training only
//! ```

use indexmap::IndexMap;
use sandhi_nn::{
    encoder::{
        EncoderConfig, Wav2vec2EncoderConfig,
        wav2vec2::{ConvolutionNorm, PositionBiasConfig},
    },
    weights::Mismatch,
};

use super::super::{Error, config::Fields};
use crate::tensor::HostTensor;

/// Values of `model_type`, which are also the prefix of names in checkpoints with a head.
pub(super) const FAMILIES: [&str; 3] = ["wav2vec2", "hubert", "wavlm"];

/// Tensors that only training needs: the vector that stands for masked frames, and wav2vec 2.0's quantizer with the
/// projections of its contrastive loss.
fn is_of_training(name: &str) -> bool {
    name == "masked_spec_embed"
        || ["quantizer.", "project_q.", "project_hid."].iter().any(|part| name.starts_with(part))
}

/// The sizes, as `config.json` has them. What a file leaves out is as in the families' base models.
pub(super) fn config(fields: &Fields, family: &str) -> Result<EncoderConfig, Error> {
    for name in ["hidden_act", "feat_extract_activation"] {
        if let Some(act) = fields.text(name)?.filter(|act| *act != "gelu") {
            return Err(fields.error(format_args!("{name} is {act:?}, expected \"gelu\"")));
        }
    }
    if fields.flag("add_adapter")? {
        return Err(fields
            .error("add_adapter is true, encoders with an adapter behind them are not supported"));
    }
    if let Some(width) = fields.optional_size("adapter_attn_dim")? {
        return Err(fields.error(format_args!(
            "adapter_attn_dim is {width}, adapters of languages inside the blocks (MMS) are not supported"
        )));
    }
    if fields.flag("conv_pos_batch_norm")? {
        return Err(fields.error(
            "conv_pos_batch_norm is true, expected false: positions of a weight-normalized convolution",
        ));
    }
    let conv_norm = match fields.text("feat_extract_norm")?.unwrap_or("group") {
        "group" => ConvolutionNorm::Group,
        "layer" => ConvolutionNorm::Layer,
        other => {
            return Err(fields.error(format_args!(
                "feat_extract_norm is {other:?}, expected \"group\" or \"layer\""
            )));
        }
    };
    let mut config = Wav2vec2EncoderConfig {
        conv_bias: fields.flag("conv_bias")?,
        conv_norm,
        pre_norm: fields.flag("do_stable_layer_norm")?,
        ..Wav2vec2EncoderConfig::new(
            fields.size("hidden_size")?,
            fields.size("num_hidden_layers")?,
            fields.size("num_attention_heads")?,
            fields.size("intermediate_size")?,
        )
    };
    fields.bounded("num_hidden_layers", super::MOST_LAYERS)?;
    let lists = [
        ("conv_dim", &mut config.conv_dims),
        ("conv_kernel", &mut config.conv_kernels),
        ("conv_stride", &mut config.conv_strides),
    ];
    for (name, list) in lists {
        if let Some(found) = fields.sizes(name)? {
            *list = found;
        }
        let n = list.len();
        if let Some(said) =
            fields.optional_size("num_feat_extract_layers")?.filter(|said| *said != n)
        {
            return Err(fields
                .error(format_args!("{name} has {n} entries, num_feat_extract_layers is {said}")));
        }
    }
    if let Some(kernel) = fields.optional_size("num_conv_pos_embeddings")? {
        config.position_kernel = kernel;
    }
    if let Some(groups) = fields.optional_size("num_conv_pos_embedding_groups")? {
        config.position_groups = groups;
    }
    if let Some(eps) = fields.number("layer_norm_eps")? {
        config.norm_eps = eps;
    }
    match family {
        "hubert" => {
            config.projection_norm = fields.optional_flag("feat_proj_layer_norm")?.unwrap_or(true);
        }
        "wavlm" => {
            let published = PositionBiasConfig::default();
            config.position_bias = Some(PositionBiasConfig {
                buckets: fields.optional_size("num_buckets")?.unwrap_or(published.buckets),
                max_distance: fields
                    .optional_size("max_bucket_distance")?
                    .unwrap_or(published.max_distance),
            });
        }
        _ => {}
    }
    Ok(EncoderConfig::Wav2vec2(config))
}

/// The tensors of a checkpoint, told apart.
pub(super) struct Sorted {
    /// Of the encoder, under our names; what nobody knows is among them under its own.
    pub(super) encoder: IndexMap<String, HostTensor>,
    /// `lm_head.weight` and `lm_head.bias`, where there are any.
    pub(super) head: IndexMap<String, HostTensor>,
}

/// Sorts the tensors of a checkpoint and folds its weight norm.
pub(super) fn sort(
    tensors: IndexMap<String, HostTensor>,
    config: &Wav2vec2EncoderConfig,
) -> Result<Sorted, Mismatch> {
    let (mut encoder, mut head) = (IndexMap::new(), IndexMap::new());
    let mut norm = WeightNorm::default();
    for (theirs, tensor) in tensors {
        let inner =
            FAMILIES.iter().find_map(|family| theirs.strip_prefix(family)?.strip_prefix('.'));
        let inner = inner.unwrap_or(&theirs);
        if is_of_training(inner) {
            continue;
        }
        if inner.starts_with("lm_head.") {
            head.insert(inner.to_owned(), tensor);
            continue;
        }
        let inner = inner.strip_prefix("feature_extractor.").unwrap_or(inner);
        let inner = inner.strip_prefix("encoder.").unwrap_or(inner);
        if let Some(part) = inner.strip_prefix("pos_conv_embed.conv.") {
            match part {
                "bias" => norm.bias = Some(tensor),
                "weight_g" | "parametrizations.weight.original0" => norm.g = Some(tensor),
                "weight_v" | "parametrizations.weight.original1" => norm.v = Some(tensor),
                _ => drop(encoder.insert(theirs, tensor)),
            }
            continue;
        }
        let (name, tensor) = rename(inner, tensor);
        encoder.insert(name, tensor);
    }
    norm.fold(config, &mut encoder)?;
    Ok(Sorted { encoder, head })
}

/// Our name and layout of a tensor, without the parts of the name that only say whose it is.
pub(super) fn rename(theirs: &str, tensor: HostTensor) -> (String, HostTensor) {
    if theirs.ends_with(".attention.rel_attn_embed.weight") && theirs.starts_with("layers.0.") {
        return ("rel_attn_embed.weight".into(), tensor);
    }
    if let Some(layer) = theirs.strip_suffix(".gru_rel_pos_const") {
        let tensor = match tensor.shape[..] {
            [1, n_heads, 1, 1] => HostTensor { shape: vec![n_heads], values: tensor.values },
            _ => tensor,
        };
        return (format!("{layer}.gate.scale"), tensor);
    }
    let ours = theirs.replace(".gru_rel_pos_linear.", ".gate.linear.");
    let convolution = theirs.starts_with("conv_layers.") && theirs.ends_with(".conv.weight");
    (ours, if convolution { super::taps_first(tensor) } else { tensor })
}

/// The convolution of positions as it is trained: `weight[o, i, tap] = g[tap] v[o, i, tap] / |v[.., .., tap]|`
/// (Salimans and Kingma, 2016, <https://arxiv.org/abs/1602.07868>).
#[derive(Default)]
struct WeightNorm {
    /// `[1, 1, kernel]`.
    g: Option<HostTensor>,
    /// `[d, d_group, kernel]`.
    v: Option<HostTensor>,
    /// `[d]`.
    bias: Option<HostTensor>,
}

impl WeightNorm {
    /// Adds the linear layers of the groups.
    fn fold(
        self,
        config: &Wav2vec2EncoderConfig,
        ours: &mut IndexMap<String, HostTensor>,
    ) -> Result<(), Mismatch> {
        let (d, kernel, n_groups) =
            (config.d_model, config.position_kernel, config.position_groups);
        let d_group = d / n_groups;
        let mut problems = Vec::new();
        let mut need = |found: Option<HostTensor>, name: &str, shape: &[usize]| {
            let name = format!("encoder.pos_conv_embed.conv.{name}");
            match found {
                None => problems.push(format!("missing tensor {name} of shape {shape:?}")),
                Some(tensor) if tensor.shape != shape => problems.push(format!(
                    "tensor {name} has shape {:?}, the model expects {shape:?}",
                    tensor.shape
                )),
                Some(tensor) => return tensor.values,
            }
            Vec::new()
        };
        let g = need(self.g, "weight_g", &[1, 1, kernel]);
        let v = need(self.v, "weight_v", &[d, d_group, kernel]);
        let bias = need(self.bias, "bias", &[d]);
        if !problems.is_empty() {
            return Err(Mismatch(problems));
        }
        let mut squares = vec![0.0_f64; kernel];
        for taps in v.chunks_exact(kernel) {
            for (sum, &x) in squares.iter_mut().zip(taps) {
                *sum += f64::from(x).powi(2);
            }
        }
        if let Some(tap) = squares.iter().position(|&sum| sum == 0.0) {
            return Err(Mismatch(vec![format!(
                "tensor encoder.pos_conv_embed.conv.weight_v is 0 throughout tap {tap}, it has no direction"
            )]));
        }
        let factors: Vec<f64> =
            g.iter().zip(&squares).map(|(&g, sum)| f64::from(g) / sum.sqrt()).collect();
        let scaled = |(tap, x): (usize, &f32)| (f64::from(*x) * factors[tap]) as f32;
        let weight: Vec<f32> =
            v.chunks_exact(kernel).flat_map(|taps| taps.iter().enumerate().map(scaled)).collect();
        let size = d_group * d_group * kernel;
        for (i, (weight, bias)) in
            weight.chunks_exact(size).zip(bias.chunks_exact(d_group)).enumerate()
        {
            let weight =
                HostTensor { shape: vec![d_group, d_group, kernel], values: weight.to_vec() };
            let bias = HostTensor { shape: vec![d_group], values: bias.to_vec() };
            ours.insert(format!("pos_conv_embed.groups.{i}.weight"), super::taps_first(weight));
            ours.insert(format!("pos_conv_embed.groups.{i}.bias"), bias);
        }
        Ok(())
    }
}
