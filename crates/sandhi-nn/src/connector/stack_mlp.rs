//! Stack and MLP: frames side by side, two linear layers ("An embarrassingly simple approach for LLM with strong ASR
//! capacity", Ma et al., 2024, <https://arxiv.org/abs/2402.08846>).
//!
//! ```text
//! frames   f0 f1 f2 f3 f4 | f5 f6              reduction 5, seven frames
//! stack    [f0 f1 f2 f3 f4] [f5 f6 0 0 0]      -> linear -> ReLU -> linear
//! ```
//!
//! The authors stack 5 frames of 50 Hz, with a width of 2,048 between the layers, and drop the frames that do not fill
//! a group. Here zeros fill the last one, so that nothing said is unheard; `remainder = "drop"` does as they do.

use burn::{prelude::*, tensor::activation};
use serde::{Deserialize, Serialize};

use super::{
    Kind, Widths,
    stack::{Remainder, stack},
};
use crate::{
    init::Init,
    layers::Linear,
    length::Length,
    lora::{Linears, NamedLinears},
    ragged::Ragged,
};

/// `kind = "stack_mlp"` in a recipe's `[connector]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StackMlpConfig {
    /// Encoder frames per output vector: 5 at 50 Hz gives 10 vectors a second.
    pub reduction: usize,
    /// Width between the two layers; the paper has 2,048.
    pub d_hidden: usize,
    /// What becomes of the frames that do not fill a group.
    #[serde(default)]
    pub remainder: Remainder,
}

/// Built by [`StackMlpConfig::init`].
#[derive(Module, Debug)]
pub struct StackMlp {
    linear1: Linear,
    linear2: Linear,
    reduction: usize,
    #[module(skip)]
    remainder: Remainder,
}

impl Kind for StackMlpConfig {
    fn stride(&self) -> Option<usize> {
        Some(self.reduction)
    }
}

impl StackMlpConfig {
    /// Vectors for `n_frames` frames: none for no frames, and with `remainder = "drop"` none for fewer than
    /// `reduction`.
    pub fn length(&self, n_frames: usize) -> Length {
        Length::Exact(self.remainder.n_groups(n_frames, self.reduction))
    }

    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        super::zeros(&[("reduction", self.reduction), ("d_hidden", self.d_hidden)])
    }

    /// Builds the connector with random weights.
    pub fn init(&self, widths: Widths, init: &Init) -> StackMlp {
        let d_group = self.reduction * widths.d_encoder;
        StackMlp {
            linear1: Linear::new(&init.child("linear1"), d_group, self.d_hidden, true),
            linear2: Linear::new(&init.child("linear2"), self.d_hidden, widths.d_model, true),
            reduction: self.reduction,
            remainder: self.remainder,
        }
    }
}

impl Linears for StackMlp {
    fn linears(&mut self) -> NamedLinears<'_> {
        vec![("linear1".to_owned(), &mut self.linear1), ("linear2".to_owned(), &mut self.linear2)]
    }
}

impl StackMlp {
    /// # Shapes
    ///
    /// - `frames.values`: `[n_frames, d_encoder]`
    /// - output: `[n_vectors, d_model]`, [`StackMlpConfig::length`] vectors an utterance
    pub fn forward(&self, frames: &Ragged) -> Ragged {
        let groups = stack(frames, self.reduction, self.remainder);
        let hidden = activation::relu(self.linear1.forward(groups.values));
        Ragged { values: self.linear2.forward(hidden), offsets: groups.offsets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ops::testing::{cpu, to_vec},
        ragged::Offsets,
        weights::parameters,
    };

    fn config(reduction: usize, d_hidden: usize) -> StackMlpConfig {
        StackMlpConfig { reduction, d_hidden, remainder: Remainder::Pad }
    }

    #[test]
    fn vectors_by_hand() {
        // Groups (1, 2), (3, 0) and (-4, 0). The layers: h = relu(a + 2 b - 1, -a), y = 10 h0 + h1 + 0.5.
        let init = Init::new(1, &cpu());
        let mut connector = config(2, 2).init(Widths { d_encoder: 1, d_model: 1 }, &init);
        connector.linear1.weight = init.values(vec![1.0, -1.0, 2.0, 0.0], [2, 2]);
        connector.linear1.bias = Some(init.values(vec![-1.0, 0.0], [2]));
        connector.linear2.weight = init.values(vec![10.0, 1.0], [2, 1]);
        connector.linear2.bias = Some(init.values(vec![0.5], [1]));
        let values = Tensor::from_floats([[1.0], [2.0], [3.0], [-4.0]], &cpu());
        let vectors =
            connector.forward(&Ragged { values, offsets: Offsets::from_lengths(&[3, 1]) });
        assert_eq!(vectors.offsets.lengths(), [2, 1]);
        // h = (4, 0), (2, 0), (0, 4).
        assert_eq!(to_vec(vectors.values), [40.5, 20.5, 4.5]);
    }

    #[test]
    fn a_published_projector_has_as_many_parameters() {
        // Whisper-large-v3-turbo before EuroLLM-1.7B: 17.31 M, as the model card of a projector that was trained with
        // the authors' code says (SpeechTek/mEUltilingual_speechllm_linear_projector_v1).
        let widths = Widths { d_encoder: 1280, d_model: 2048 };
        let connector = config(5, 2048).init(widths, &Init::blank(&cpu()));
        let n: usize = parameters(&connector).iter().map(|p| p.n_values()).sum();
        assert_eq!(n, 6400 * 2048 + 2048 + 2048 * 2048 + 2048);
        assert_eq!((n as f64 / 1e4).round() / 1e2, 17.31);
    }
}
