//! CTC compression: frames that a CTC head takes for the same symbol become one, blanks go.
//!
//! ```text
//! frame      f0  f1  f2  f3  f4  f5  f6
//! symbol      -   a   a   -   a   b   -
//! runs           ½(f1+f2)    f4  f5               merge = runs, blanks = drop
//!            f0  ½(f1+f2) f3 f4  f5  f6           merge = runs, blanks = keep
//! frames          f1  f2     f4  f5  f6           merge = none: f0 and f3 are surer blanks than `threshold`
//! vectors    projector: one layer, two, or a small transformer
//! ```
//!
//! Runs are those of Gaido et al. 2021 ("CTC-based compression for direct speech translation",
//! <https://arxiv.org/abs/2102.01578>), their mean or the mean weighted by the posterior. Without runs it is blank
//! filtering (Wang et al. 2023, "Speech-to-text adapter and speech-to-entity retriever augmented LLMs for speech
//! understanding", <https://arxiv.org/abs/2306.07944>). What a frame of several steps is taken for says
//! [`super::CtcSteps`]. What goes is decided on the head's values, from which no gradient flows; an utterance of
//! nothing but blanks gives no vector.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    ConnectorOutput, CtcSteps, Kind, Needs, Projector, ProjectorConfig, Widths,
    ctc_steps::{BLANK, FrameSymbol},
    groups::Groups,
};
use crate::{
    init::Init,
    length::Length,
    lora::{Linears, NamedLinears, below},
    ragged::{Offsets, Ragged},
    transformer::Dropout,
};

/// What happens to frames.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Merge {
    /// Neighbours of one symbol become their mean.
    Runs(RunsConfig),
    /// Frames stay as they are, but for blanks.
    None(FilterConfig),
}

/// `merge = { kind = "runs" }`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunsConfig {
    /// What becomes of runs of blanks.
    #[serde(default)]
    pub blanks: Blanks,
    /// What the frames of a run weigh.
    #[serde(default)]
    pub weights: RunWeights,
}

/// `merge = { kind = "none", threshold = 0.9 }`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterConfig {
    /// Frames go whose probability of being blank is above: 0 to 1. Fewer go where it is higher.
    pub threshold: f64,
}

/// Runs of blanks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blanks {
    /// They go.
    #[default]
    Drop,
    /// They become one vector like others.
    Keep,
}

/// Weights of the frames of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunWeights {
    /// All weigh the same.
    #[default]
    Equal,
    /// As probable as the run's symbol is in them.
    Posterior,
}

/// `kind = "ctc_collapse"` in a recipe's `[connector]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CtcCollapseConfig {
    /// What happens to frames.
    pub merge: Merge,
    /// From what is left to vectors.
    #[serde(default)]
    pub projector: ProjectorConfig,
}

/// Built by [`CtcCollapseConfig::init`].
#[derive(Module, Debug)]
pub struct CtcCollapse {
    projector: Projector,
    #[module(skip)]
    merge: Merge,
}

impl Kind for CtcCollapseConfig {
    fn needs(&self) -> Needs {
        Needs { ctc: true, ..Needs::default() }
    }
}

impl CtcCollapseConfig {
    /// Vectors for `n_frames` frames.
    pub fn length(&self, n_frames: usize) -> Length {
        Length::AtMost(n_frames)
    }

    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.projector.problems();
        if let Merge::None(FilterConfig { threshold }) = self.merge
            && !(0.0..=1.0).contains(&threshold)
        {
            let expected = "expected a probability, 0 to 1";
            problems.push(format!("merge.threshold is {threshold}, {expected}"));
        }
        problems
    }

    /// Builds the connector with random weights.
    pub fn init(&self, widths: Widths, init: &Init) -> CtcCollapse {
        let projector = self.projector.init(widths, &init.child("projector"));
        CtcCollapse { projector, merge: self.merge }
    }
}

impl Linears for CtcCollapse {
    fn linears(&mut self) -> NamedLinears<'_> {
        below("projector", self.projector.linears()).collect()
    }
}

impl CtcCollapse {
    pub(super) fn recompute(&mut self, on: bool) {
        self.projector.recompute(on);
    }

    /// Vectors and the last frame of each.
    ///
    /// # Shapes
    ///
    /// - `frames.values`: `[n_frames, d_encoder]`
    /// - `ctc`: steps of the frames
    /// - output: `[n_vectors, d_model]`
    pub fn forward(&self, frames: &Ragged, ctc: &CtcSteps, dropout: Dropout) -> ConnectorOutput {
        let (x, ends) = self.merge.apply(frames, &ctc.read());
        let vectors = self.projector.forward(x, dropout);
        ConnectorOutput { ends: Some(ends), ..ConnectorOutput::vectors(vectors) }
    }
}

impl Merge {
    /// What is left of the frames, and the last frame of each group.
    fn apply(self, frames: &Ragged, symbols: &[FrameSymbol]) -> (Ragged, Vec<Vec<u32>>) {
        let mut groups = Groups::default();
        let ends: Vec<Vec<u32>> = frames
            .offsets
            .iter()
            .map(|span| {
                let mut first = span.start;
                let mut ends = Vec::new();
                for run in symbols[span.clone()].chunk_by(|a, b| self.joins(*a, *b)) {
                    if self.keeps(run[0]) {
                        let weights = run.iter().map(|frame| self.weight(*frame));
                        groups.push((first..).zip(weights));
                        ends.push((first + run.len() - 1 - span.start) as u32);
                    }
                    first += run.len();
                }
                ends
            })
            .collect();
        let lengths: Vec<usize> = ends.iter().map(Vec::len).collect();
        let values = groups.means(frames.values.clone());
        (Ragged { values, offsets: Offsets::from_lengths(&lengths) }, ends)
    }

    fn joins(self, a: FrameSymbol, b: FrameSymbol) -> bool {
        matches!(self, Self::Runs(_)) && b.goes_on(a)
    }

    fn keeps(self, first: FrameSymbol) -> bool {
        match self {
            Self::Runs(runs) => runs.blanks == Blanks::Keep || first.symbol != BLANK,
            Self::None(filter) => {
                let is_blank = f64::from(first.blank) > filter.threshold;
                !is_blank
            }
        }
    }

    fn weight(self, frame: FrameSymbol) -> f32 {
        match self {
            Self::Runs(RunsConfig { weights: RunWeights::Posterior, .. }) => frame.probability,
            Self::Runs(_) | Self::None(_) => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        connector::{
            ConnectorConfig, LayersConfig, MlpConfig, ctc_steps::tests::log_probs, testing::obeys,
        },
        ops::testing::cpu,
        weights::host,
    };

    fn runs(blanks: Blanks, weights: RunWeights) -> Merge {
        Merge::Runs(RunsConfig { blanks, weights })
    }

    #[test]
    fn it_is_a_connector() {
        let mlp = ProjectorConfig::Mlp(MlpConfig { d_hidden: 10 });
        let layers = LayersConfig { d_hidden: 8, n_layers: 2, n_heads: 2, d_ff: 12 };
        for (merge, projector) in [
            (runs(Blanks::Drop, RunWeights::Equal), mlp),
            (runs(Blanks::Keep, RunWeights::Posterior), ProjectorConfig::Linear),
            (Merge::None(FilterConfig { threshold: 0.4 }), ProjectorConfig::Transformer(layers)),
        ] {
            obeys(&ConnectorConfig::CtcCollapse(CtcCollapseConfig { merge, projector }));
        }
    }

    /// What is left of one column of frames, and its ends.
    fn apply(merge: Merge, lengths: &[usize]) -> (Vec<f32>, Vec<Vec<u32>>) {
        // - a a - a b | - -, or all of them in one utterance.
        let probabilities: [&[f32]; 8] = [
            &[0.875, 0.125, 0.0],
            &[0.25, 0.75, 0.0],
            &[0.25, 0.5, 0.25],
            &[0.75, 0.25, 0.0],
            &[0.0, 1.0, 0.0],
            &[0.25, 0.25, 0.5],
            &[0.5, 0.25, 0.25],
            &[1.0, 0.0, 0.0],
        ];
        let offsets = Offsets::from_lengths(lengths);
        let ctc = CtcSteps::new(log_probs(&probabilities, lengths), 1, &offsets).unwrap();
        let values = [[1.0], [2.0], [7.0], [4.0], [5.0], [6.0], [8.0], [10.0]];
        let frames = Ragged { values: Tensor::from_floats(values, &cpu()), offsets };
        let (left, ends) = merge.apply(&frames, &ctc.read());
        let lengths: Vec<usize> = ends.iter().map(Vec::len).collect();
        assert_eq!(left.offsets.lengths(), lengths);
        (host(left.values), ends)
    }

    #[test]
    fn runs_become_their_mean_and_blanks_go() {
        let (left, ends) = apply(runs(Blanks::Drop, RunWeights::Equal), &[6, 2]);
        assert_eq!(left, [4.5, 5.0, 6.0]);
        assert_eq!(ends, [vec![2, 4, 5], vec![]]);
        let (left, ends) = apply(runs(Blanks::Keep, RunWeights::Equal), &[6, 0, 2]);
        assert_eq!(left, [1.0, 4.5, 4.0, 5.0, 6.0, 9.0]);
        assert_eq!(ends, [vec![0, 2, 3, 4, 5], vec![], vec![1]]);
        // An utterance's end is a run's end: the two blanks of one utterance belong to one run.
        assert_eq!(apply(runs(Blanks::Keep, RunWeights::Equal), &[7, 1]).1[1], [0]);
    }

    #[test]
    fn posteriors_weigh_the_frames_of_a_run() {
        // a: (¾ 2 + ½ 7) / 1¼ = 4; the last blanks: (½ 8 + 1 · 10) / 1½.
        let (left, _) = apply(runs(Blanks::Keep, RunWeights::Posterior), &[6, 2]);
        let expected = [1.0, 4.0, 4.0, 5.0, 6.0, 28.0 / 3.0];
        assert!(left.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{left:?}");
    }

    #[test]
    fn sure_blanks_are_filtered_and_frames_stay_apart() {
        let (left, ends) = apply(Merge::None(FilterConfig { threshold: 0.7 }), &[6, 2]);
        assert_eq!(left, [2.0, 7.0, 5.0, 6.0, 8.0]);
        assert_eq!(ends, [vec![1, 2, 4, 5], vec![0]]);
        let (left, _) = apply(Merge::None(FilterConfig { threshold: 1.0 }), &[8]);
        assert_eq!(left.len(), 8);
    }

    #[test]
    fn nothing_but_blanks_gives_nothing() {
        let probabilities: [&[f32]; 2] = [&[0.875, 0.125], &[0.875, 0.125]];
        let offsets = Offsets::from_lengths(&[2]);
        let ctc = CtcSteps::new(log_probs(&probabilities, &[2]), 1, &offsets).unwrap();
        let frames = Ragged { values: Tensor::zeros([2, 3], &cpu()), offsets };
        let (left, ends) = runs(Blanks::Drop, RunWeights::Equal).apply(&frames, &ctc.read());
        assert_eq!((left.values.dims(), ends), ([0, 3], vec![vec![]]));
    }

    #[test]
    fn a_threshold_is_a_probability() {
        let config = |threshold| CtcCollapseConfig {
            merge: Merge::None(FilterConfig { threshold }),
            projector: ProjectorConfig::Linear,
        };
        assert_eq!(
            config(1.5).problems(),
            ["merge.threshold is 1.5, expected a probability, 0 to 1"]
        );
        assert_eq!(config(f64::NAN).problems().len(), 1);
        assert!(config(0.9).problems().is_empty());
    }

    #[test]
    fn a_recipe_names_what_happens_to_frames() {
        let read = |text| serde_json::from_str::<ConnectorConfig>(text).map_err(|e| e.to_string());
        let config = CtcCollapseConfig {
            merge: runs(Blanks::Keep, RunWeights::Equal),
            projector: ProjectorConfig::Linear,
        };
        let text = r#"{"kind": "ctc_collapse", "merge": {"kind": "runs", "blanks": "keep"}}"#;
        assert_eq!(read(text), Ok(ConnectorConfig::CtcCollapse(config)));
        let wrong = r#"{"kind": "ctc_collapse", "merge": {"kind": "runs", "threshold": 0.5}}"#;
        assert!(read(wrong).unwrap_err().contains("threshold"));
    }
}
