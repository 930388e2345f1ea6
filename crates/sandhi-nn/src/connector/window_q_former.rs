//! Window-level Q-Former: a few learned queries for every window of an utterance ("SALMONN: Towards generic hearing
//! abilities for large language models", Tang et al., 2023, <https://arxiv.org/abs/2310.13289>).
//!
//! ```text
//! frames    f0 f1 f2 f3 | f4 f5 f6 f7 | f8 f9      window 4, ten frames
//! vectors       v0      |     v1      |   v2       one query each
//! ```
//!
//! Every window is a sequence of its own, for the queries as for the frames; see [`super::q_former`] for the layers.
//! The authors have windows of a third of a second, 17 frames of 50 Hz, a LayerNorm on the frames and none on the
//! vectors. They drop the frames that do not fill a window; here the last window is as short as it is.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{
    Kind, Widths,
    q_former::{QFormer, Sizes, one},
};
use crate::{init::Init, length::Length};

/// `kind = "window_q_former"` in a recipe's `[connector]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowQFormerConfig {
    /// Frames of a window: 17 at 50 Hz are a third of a second.
    pub window: usize,
    /// Vectors of a window.
    #[serde(default = "one")]
    pub n_queries: usize,
    /// Width of the queries; the paper has 768.
    pub d_hidden: usize,
    /// Layers; the paper has 2.
    pub n_layers: usize,
    /// Heads of every attention; divides `d_hidden`.
    pub n_heads: usize,
    /// Width inside the feed-forward layers.
    pub d_ff: usize,
    /// The first of every so many layers asks the frames, the others only the queries of the window.
    #[serde(default = "one")]
    pub cross_attention_frequency: usize,
}

impl Kind for WindowQFormerConfig {
    fn stride(&self) -> Option<usize> {
        (self.n_queries == 1).then_some(self.window)
    }
}

impl WindowQFormerConfig {
    fn sizes(&self) -> Sizes {
        Sizes {
            n_queries: self.n_queries,
            d_hidden: self.d_hidden,
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            d_ff: self.d_ff,
            cross_attention_frequency: self.cross_attention_frequency,
            window: Some(self.window),
            input_norm: true,
            output_norm: false,
        }
    }

    /// `n_queries` vectors a window, and `ceil(n / window)` windows: none for no frames.
    pub fn length(&self, n_frames: usize) -> Length {
        Length::Exact(n_frames.div_ceil(self.window) * self.n_queries)
    }

    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = super::zeros(&[("window", self.window)]);
        problems.extend(self.sizes().problems());
        problems
    }

    /// Builds the connector with random weights.
    pub fn init(&self, widths: Widths, init: &Init) -> QFormer {
        self.sizes().init(widths, init)
    }
}

/// The rows of an utterance in windows; the last may be shorter.
pub(super) fn windows(span: Range<usize>, window: usize) -> Vec<Range<usize>> {
    let end = span.end;
    span.step_by(window).map(|start| start..(start + window).min(end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ops::testing::{cpu, random, to_vec},
        ragged::{Offsets, Ragged},
        transformer::Dropout,
        weights::parameters,
    };

    #[test]
    fn windows_by_hand() {
        let found = |n: usize| -> Vec<_> {
            windows(3..3 + n, 4).into_iter().map(|rows| (rows.start, rows.end)).collect()
        };
        assert_eq!(found(10), [(3, 7), (7, 11), (11, 13)]);
        assert_eq!(found(4), [(3, 7)]);
        assert_eq!(found(1), [(3, 4)]);
        assert_eq!(found(0), []);
    }

    #[test]
    fn a_window_is_an_utterance_of_its_own() {
        let config = WindowQFormerConfig {
            window: 3,
            n_queries: 2,
            d_hidden: 8,
            n_layers: 2,
            n_heads: 2,
            d_ff: 12,
            cross_attention_frequency: 1,
        };
        let connector = config.init(Widths { d_encoder: 4, d_model: 6 }, &Init::new(3, &cpu()));
        let vectors = |lengths: &[usize]| {
            let offsets = Offsets::from_lengths(lengths);
            let frames = Ragged { values: random([8, 4], 2).tensor(&cpu()), offsets };
            to_vec(connector.forward(&frames, Dropout::OFF).values)
        };
        assert_eq!(vectors(&[7, 1]), vectors(&[3, 3, 1, 1]));
    }

    #[test]
    fn parameters_at_published_sizes() {
        // SALMONN: frames of Whisper-large-v2 and BEATs side by side before Vicuna-13B, one query, two layers. With the
        // LoRA of rank 8 on queries and values of 40 layers "about 33 million" parameters are trained.
        let config = WindowQFormerConfig {
            window: 17,
            n_queries: 1,
            d_hidden: 768,
            n_layers: 2,
            n_heads: 12,
            d_ff: 3072,
            cross_attention_frequency: 1,
        };
        let widths = Widths { d_encoder: 1280 + 768, d_model: 5120 };
        let connector = config.init(widths, &Init::blank(&cpu()));
        let n: usize = parameters(&connector).iter().map(|p| p.n_values()).sum();
        let lora = 40 * 2 * 8 * (5120 + 5120);
        assert_eq!(((n + lora) as f64 / 1e6).round(), 33.0, "{n} and {lora}");
    }
}
