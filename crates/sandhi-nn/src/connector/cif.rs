//! Continuous integrate-and-fire: weights of frames add up, and every whole number is a vector
//! ("CIF: Continuous integrate-and-fire for end-to-end speech recognition", Dong and Xu, 2020,
//! <https://arxiv.org/abs/1905.11235>, section 3.1; before language models as in CFormer,
//! <https://arxiv.org/abs/2405.19041>, and Wav2Prompt, <https://arxiv.org/abs/2406.00522>).
//!
//! ```text
//! frames ─┬─ weights ─ fire ─ shares ─┐
//!         └───────────────────────────┴─ sums of frames ─ projector ─ vectors, one a token
//! ```
//!
//! [`super::fire`] says how weights fire. Losses are taken with weights scaled to the number of tokens, on the dev half
//! too: how well the unscaled weights count is told by the quantity loss, and by what is measured in use.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    ConnectorOutput, Kind, Needs, Penalty, Projector, ProjectorConfig, Widths,
    fire::{FireConfig, Weigher, default_kernel, one},
};
use crate::{
    init::Init,
    length::Length,
    lora::{Linears, NamedLinears, below},
    ragged::Ragged,
    transformer::Dropout,
};

/// `kind = "cif"` in a recipe's `[connector]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CifConfig {
    /// Frames that a weight looks at: odd, the frame in the middle.
    #[serde(default = "default_kernel")]
    pub kernel: usize,
    /// Channels of the convolution.
    pub d_conv: usize,
    /// From fired vectors to those of the language model.
    #[serde(default)]
    pub projector: ProjectorConfig,
    /// Weight of `|sum of alpha - tokens|`, per utterance.
    #[serde(default = "one")]
    pub quantity_weight: f64,
}

/// Built by [`CifConfig::init`].
#[derive(Module, Debug)]
pub struct Cif {
    weigher: Weigher,
    projector: Projector,
}

impl Kind for CifConfig {
    fn needs(&self) -> Needs {
        Needs { said: true, ..Needs::default() }
    }

    fn penalties(&self) -> Vec<Penalty> {
        vec![self.fire().penalty()]
    }

    fn is_per_token(&self) -> bool {
        true
    }
}

impl CifConfig {
    fn fire(&self) -> FireConfig {
        let Self { kernel, d_conv, quantity_weight, .. } = *self;
        FireConfig { kernel, d_conv, quantity_weight }
    }

    /// Vectors for `n_frames` frames.
    pub fn length(&self, n_frames: usize) -> Length {
        Length::AtMost(n_frames)
    }

    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        [self.projector.problems(), self.fire().problems()].concat()
    }

    /// Builds the connector with random weights.
    pub fn init(&self, widths: Widths, init: &Init) -> Cif {
        Cif {
            weigher: self.fire().init(widths, &init.child("weigher")),
            projector: self.projector.init(widths, &init.child("projector")),
        }
    }
}

impl Linears for Cif {
    fn linears(&mut self) -> NamedLinears<'_> {
        let weigher = below("weigher", self.weigher.linears());
        weigher.into_iter().chain(below("projector", self.projector.linears())).collect()
    }
}

impl Cif {
    pub(super) fn recompute(&mut self, on: bool) {
        self.projector.recompute(on);
    }

    /// Vectors, the frame that each fired at, and the loss on their number where `said` is given.
    ///
    /// # Shapes
    ///
    /// - `frames.values`: `[n_frames, d_encoder]`
    /// - `said`: tokens of every utterance, in training
    /// - output: `[n_vectors, d_model]`
    pub fn forward(
        &self,
        frames: &Ragged,
        said: Option<&[Vec<u32>]>,
        dropout: Dropout,
    ) -> ConnectorOutput {
        let (fired, quantity) = self.weigher.fire(frames, said);
        let vectors = self.projector.forward(fired.integrate(frames.values.clone()), dropout);
        let penalties = quantity.into_iter().collect();
        ConnectorOutput { vectors, ends: Some(fired.ends), penalties }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::{ConnectorConfig, LayersConfig, MlpConfig, testing::obeys};

    #[test]
    fn it_is_a_connector() {
        let mlp = ProjectorConfig::Mlp(MlpConfig { d_hidden: 10 });
        let layers = LayersConfig { d_hidden: 8, n_layers: 1, n_heads: 2, d_ff: 12 };
        let transformer = ProjectorConfig::Transformer(layers);
        for (kernel, projector) in [(3, ProjectorConfig::Linear), (1, mlp), (5, transformer)] {
            obeys(&ConnectorConfig::Cif(CifConfig {
                kernel,
                d_conv: 7,
                projector,
                quantity_weight: 1.0,
            }));
        }
    }
}
