//! Whisper's encoder: `config.json` and names. Its decoder is read and dropped.

use indexmap::IndexMap;
use sandhi_nn::{
    encoder::{EncoderConfig, WhisperEncoderConfig},
    weights::Mismatch,
};

use super::super::{Error, config::Fields};
use crate::tensor::HostTensor;

/// The sizes, as `config.json` has them.
pub(super) fn config(fields: &Fields) -> Result<EncoderConfig, Error> {
    if let Some(act) = fields.text("activation_function")?.filter(|act| *act != "gelu") {
        return Err(fields.error(format_args!("activation_function is {act:?}, expected \"gelu\"")));
    }
    if fields.flag("scale_embedding")? {
        return Err(fields.error("scale_embedding is true, expected false"));
    }
    fields.bounded("encoder_layers", super::MOST_LAYERS)?;
    Ok(EncoderConfig::Whisper(WhisperEncoderConfig {
        d_model: fields.size("d_model")?,
        n_layers: fields.size("encoder_layers")?,
        n_heads: fields.size("encoder_attention_heads")?,
        d_ff: fields.size("encoder_ffn_dim")?,
        max_frames: fields.size("max_source_positions")?,
    }))
}

/// The encoder's tensors under our names. The decoder's are known and left out; what is neither is listed.
pub(super) fn tensors(
    tensors: IndexMap<String, HostTensor>,
) -> Result<IndexMap<String, HostTensor>, Mismatch> {
    let mut ours = IndexMap::new();
    let mut unknown = Vec::new();
    for (name, tensor) in tensors {
        let inner = name.strip_prefix("model.").unwrap_or(&name);
        if let Some(inner) = inner.strip_prefix("encoder.") {
            let tensor = if inner.starts_with("conv") { super::taps_first(tensor) } else { tensor };
            ours.insert(our_name(inner), tensor);
        } else if !inner.starts_with("decoder.") && !inner.starts_with("proj_out.") {
            unknown.push(format!("{name} is left over"));
        }
    }
    if unknown.is_empty() { Ok(ours) } else { Err(Mismatch(unknown)) }
}

/// The published name of one of our tensors: [`our_name`] the other way round.
pub(in crate::hf) fn published_name(ours: &str) -> String {
    let theirs = ours
        .replace("self_attn.o_proj", "self_attn.out_proj")
        .replace("post_attention_layernorm", "final_layer_norm")
        .replace("input_layernorm", "self_attn_layer_norm")
        .replace(".mlp.fc", ".fc");
    if theirs == "embed_positions" { "embed_positions.weight".into() } else { theirs }
}

/// Our name of a tensor of the encoder.
pub(super) fn our_name(theirs: &str) -> String {
    let ours = theirs
        .replace("self_attn.out_proj", "self_attn.o_proj")
        .replace("self_attn_layer_norm", "input_layernorm")
        .replace("final_layer_norm", "post_attention_layernorm")
        .replace(".fc", ".mlp.fc");
    if ours == "embed_positions.weight" { "embed_positions".into() } else { ours }
}
