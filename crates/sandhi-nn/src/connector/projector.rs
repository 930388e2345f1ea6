//! From pooled frames to the language model's width: one layer, two, or a small transformer between two.
//!
//! ```text
//! linear        x ── output ──>
//! mlp           x ── input ── ReLU ── output ──>
//! transformer   x ── input ── blocks, no mask ── norm ── output ──>
//! ```

use burn::{prelude::*, tensor::activation::relu};
use serde::{Deserialize, Serialize};

use super::Widths;
use crate::{
    init::Init,
    layers::{Linear, Norm, NormKind},
    lora::{Linears, NamedLinears, numbered},
    ops::Mask,
    ragged::Ragged,
    transformer::{Block, BlockConfig, Dropout, Placement},
};

/// The `projector` of a connector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProjectorConfig {
    /// One linear layer.
    #[default]
    Linear,
    /// Linear, ReLU, linear.
    Mlp(MlpConfig),
    /// A transformer between two linear layers, as in SLM: rotary positions, LayerNorm and GELU.
    Transformer(LayersConfig),
}

/// `kind = "mlp"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// Width between the two layers.
    pub d_hidden: usize,
}

/// `kind = "transformer"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayersConfig {
    /// Width of the transformer.
    pub d_hidden: usize,
    /// Its blocks.
    pub n_layers: usize,
    /// Its heads; `d_hidden / n_heads` must be even.
    pub n_heads: usize,
    /// Width inside its feed-forward layers.
    pub d_ff: usize,
}

/// Built by [`ProjectorConfig::init`].
#[derive(Module, Debug)]
pub struct Projector {
    input: Option<Linear>,
    layers: Vec<Block>,
    norm: Option<Norm>,
    output: Linear,
    recompute: bool,
}

const EPS: f64 = 1e-5;

impl ProjectorConfig {
    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut positive = |name: &str, value: usize| {
            if value == 0 {
                problems.push(format!("projector.{name} is 0, expected at least 1"));
            }
        };
        match *self {
            Self::Linear => {}
            Self::Mlp(MlpConfig { d_hidden }) => positive("d_hidden", d_hidden),
            Self::Transformer(LayersConfig { d_hidden, n_layers, n_heads, d_ff }) => {
                positive("n_layers", n_layers);
                positive("d_ff", d_ff);
                if d_hidden == 0 || n_heads == 0 || !d_hidden.is_multiple_of(2 * n_heads) {
                    problems.push(format!(
                        "projector.d_hidden {d_hidden} over projector.n_heads {n_heads} is not an even number"
                    ));
                }
            }
        }
        problems
    }

    /// Builds the projector with random weights.
    pub fn init(&self, widths: Widths, init: &Init) -> Projector {
        let Widths { d_encoder, d_model } = widths;
        let linear = |name: &str, d_in, d_out| Linear::new(&init.child(name), d_in, d_out, true);
        let between = |d_hidden: usize, layers: Vec<Block>, norm: Option<Norm>| Projector {
            input: Some(linear("input", d_encoder, d_hidden)),
            layers,
            norm,
            output: linear("output", d_hidden, d_model),
            recompute: false,
        };
        match *self {
            Self::Linear => Projector {
                input: None,
                layers: Vec::new(),
                norm: None,
                output: linear("output", d_encoder, d_model),
                recompute: false,
            },
            Self::Mlp(MlpConfig { d_hidden }) => between(d_hidden, Vec::new(), None),
            Self::Transformer(LayersConfig { d_hidden, n_layers, n_heads, d_ff }) => {
                let block = BlockConfig::plain(d_hidden, n_heads, d_ff, EPS);
                let layers = (0..n_layers)
                    .map(|i| Block::new(&init.child("layers").child(i), &block))
                    .collect();
                let norm = Norm::new(&init.child("norm"), NormKind::Layer, d_hidden, EPS);
                between(d_hidden, layers, Some(norm))
            }
        }
    }
}

impl Linears for Projector {
    fn linears(&mut self) -> NamedLinears<'_> {
        let input = self.input.as_mut().map(|input| ("input".to_owned(), input));
        let output = std::iter::once(("output".to_owned(), &mut self.output));
        let layers = numbered("layers", &mut self.layers);
        input.into_iter().chain(layers).chain(output).collect()
    }
}

impl Projector {
    pub(super) fn recompute(&mut self, on: bool) {
        self.recompute = on;
    }

    /// # Shapes
    ///
    /// - `x.values`: `[n_vectors, d_encoder]`
    /// - output: `[n_vectors, d_model]`
    pub fn forward(&self, x: Ragged, dropout: Dropout) -> Ragged {
        let Ragged { values, offsets } = x;
        let values = match (&self.input, &self.norm) {
            (None, _) => values,
            (Some(input), None) => relu(input.forward(values)),
            (Some(input), Some(norm)) => {
                let placement = Placement::packed(&offsets, Mask::Full);
                let x =
                    self.layers.iter().enumerate().fold(input.forward(values), |x, (i, layer)| {
                        let dropout = dropout.branch(&i.to_string());
                        layer.forward_or_again(self.recompute, x, &placement, None, dropout)
                    });
                norm.forward(x)
            }
        };
        Ragged { values: self.output.forward(values), offsets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let mlp = ProjectorConfig::Mlp(MlpConfig { d_hidden: 0 });
        assert_eq!(mlp.problems(), ["projector.d_hidden is 0, expected at least 1"]);
        let layers = LayersConfig { d_hidden: 6, n_layers: 0, n_heads: 2, d_ff: 1 };
        assert_eq!(
            ProjectorConfig::Transformer(layers).problems(),
            [
                "projector.n_layers is 0, expected at least 1",
                "projector.d_hidden 6 over projector.n_heads 2 is not an even number"
            ]
        );
        assert!(ProjectorConfig::Linear.problems().is_empty());
    }

    #[test]
    fn a_kind_has_its_own_fields() {
        let read = |text| serde_json::from_str::<ProjectorConfig>(text).map_err(|e| e.to_string());
        let mlp = ProjectorConfig::Mlp(MlpConfig { d_hidden: 5 });
        assert_eq!(read(r#"{"kind": "mlp", "d_hidden": 5}"#), Ok(mlp));
        assert!(read(r#"{"kind": "mlp", "d_hidden": 5, "d_ff": 2}"#).unwrap_err().contains("d_ff"));
    }
}
