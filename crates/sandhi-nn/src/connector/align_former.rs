//! AlignFormer: a learned query for every spike of CTC, which asks the frames around it ("AlignFormer: Modality
//! matching can achieve better zero-shot instruction-following speech-LLM", Fan et al., 2024,
//! <https://arxiv.org/abs/2412.01145>).
//!
//! ```text
//! frame     f0  f1  f2  f3  f4  f5  f6  f7
//! symbol     -   a   a   -   -   b   -   c         spikes f2 (surer than f1), f5, f7
//! windows  |     f0 – f3     | f4 f5 | f6 f7 |     from midpoint to midpoint: 3½, 6
//! vectors          v0            v1      v2
//! ```
//!
//! A window-level Q-Former ([`super::q_former`] has the layers) whose windows the data decide: a spike is the surest
//! frame of a run of one symbol, and a midpoint that is a frame belongs to the later window. One query a window is
//! alone with itself in the attention among queries, whose queries and keys therefore learn nothing. An utterance
//! of nothing but blanks gives no vector. Norms are where the window-level Q-Former has them.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{
    ConnectorOutput, CtcSteps, Kind, Needs, QFormer, Widths,
    ctc_steps::{BLANK, FrameSymbol},
    q_former::{Sizes, one},
};
use crate::{init::Init, length::Length, ragged::Ragged, transformer::Dropout};

/// `kind = "align_former"` in a recipe's `[connector]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlignFormerConfig {
    /// Width of the query.
    pub d_hidden: usize,
    /// Layers.
    pub n_layers: usize,
    /// Heads of every attention; divides `d_hidden`.
    pub n_heads: usize,
    /// Width inside the feed-forward layers.
    pub d_ff: usize,
    /// The first of every so many layers asks the frames.
    #[serde(default = "one")]
    pub cross_attention_frequency: usize,
}

impl Kind for AlignFormerConfig {
    fn needs(&self) -> Needs {
        Needs { ctc: true, ..Needs::default() }
    }
}

impl AlignFormerConfig {
    fn sizes(&self) -> Sizes {
        Sizes {
            n_queries: 1,
            d_hidden: self.d_hidden,
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            d_ff: self.d_ff,
            cross_attention_frequency: self.cross_attention_frequency,
            window: None,
            input_norm: true,
            output_norm: false,
        }
    }

    /// Vectors for `n_frames` frames: one a spike.
    pub fn length(&self, n_frames: usize) -> Length {
        Length::AtMost(n_frames)
    }

    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        self.sizes().problems()
    }

    /// Builds the connector with random weights.
    pub fn init(&self, widths: Widths, init: &Init) -> QFormer {
        self.sizes().init(widths, init)
    }
}

/// Vectors, and the last frame of the window of each.
pub(super) fn forward(
    former: &QFormer,
    frames: &Ragged,
    ctc: &CtcSteps,
    dropout: Dropout,
) -> ConnectorOutput {
    let symbols = ctc.read();
    let windows: Vec<Vec<Range<usize>>> =
        frames.offsets.iter().map(|span| windows(span.clone(), &symbols[span])).collect();
    let ends = frames.offsets.iter().zip(&windows).map(|(span, windows)| {
        windows.iter().map(|window| (window.end - 1 - span.start) as u32).collect()
    });
    let ends = Some(ends.collect());
    ConnectorOutput { ends, ..ConnectorOutput::vectors(former.ask_spans(frames, windows, dropout)) }
}

/// The rows of an utterance from midpoint to midpoint of its spikes.
fn windows(span: Range<usize>, symbols: &[FrameSymbol]) -> Vec<Range<usize>> {
    let mut spikes = Vec::new();
    let mut first = span.start;
    for run in symbols.chunk_by(|a, b| b.goes_on(*a)) {
        if run[0].symbol != BLANK {
            let mut spike = 0;
            for (i, frame) in run.iter().enumerate() {
                if frame.probability > run[spike].probability {
                    spike = i;
                }
            }
            spikes.push(first + spike);
        }
        first += run.len();
    }
    let midpoints = spikes.windows(2).map(|pair| (pair[0] + pair[1]).div_ceil(2));
    let mut start = span.start;
    let last = (!spikes.is_empty()).then_some(span.end);
    midpoints.chain(last).map(|end| std::mem::replace(&mut start, end)..end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::{ConnectorConfig, testing::obeys_but};

    #[test]
    fn it_is_a_connector() {
        for cross_attention_frequency in [1, 2] {
            let config = AlignFormerConfig {
                d_hidden: 8,
                n_layers: 2,
                n_heads: 2,
                d_ff: 12,
                cross_attention_frequency,
            };
            // One query alone in its softmax; without positions, a bias of keys moves all scores alike.
            let idle = ["self_attn.q_proj", "self_attn.k_proj", "cross_attn.k_proj.bias"];
            obeys_but(&ConnectorConfig::AlignFormer(config), &idle);
        }
    }

    #[test]
    fn windows_go_from_midpoint_to_midpoint() {
        let check = |symbols: &[(u32, f32)], expected: &[(usize, usize)]| {
            let symbols: Vec<FrameSymbol> = symbols
                .iter()
                .map(|&(symbol, probability)| FrameSymbol {
                    symbol,
                    probability,
                    blank: 0.0,
                    parted: false,
                })
                .collect();
            let found: Vec<_> = windows(10..10 + symbols.len(), &symbols)
                .into_iter()
                .map(|window| (window.start - 10, window.end - 10))
                .collect();
            assert_eq!(found, expected);
        };
        let blank = (0, 0.9);
        check(
            &[blank, (1, 0.5), (1, 0.6), blank, blank, (2, 0.5), blank, (3, 0.5)],
            &[(0, 4), (4, 6), (6, 8)],
        );
        // The first of equals; neighbours of two symbols, and one symbol again behind a blank.
        check(&[(1, 0.5), (1, 0.5), (2, 0.5), blank, (2, 0.5)], &[(0, 1), (1, 3), (3, 5)]);
        check(&[blank, blank, (1, 0.2), blank], &[(0, 4)]);
        check(&[blank, blank], &[]);
        check(&[], &[]);
    }

    #[test]
    fn sizes_that_fit_nothing_are_refused() {
        let config: AlignFormerConfig = serde_json::from_value(serde_json::json!({
            "d_hidden": 8, "n_layers": 0, "n_heads": 3, "d_ff": 4,
        }))
        .unwrap();
        let expected =
            ["n_layers is 0, expected at least 1", "d_hidden 8 is not a multiple of n_heads 3"];
        assert_eq!(config.problems(), expected);
    }
}
