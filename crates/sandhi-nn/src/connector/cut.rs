//! Where a connector cuts frames by itself: a segment for every token that it hears.
//!
//! ```text
//! cif   frames ─ weights ─ fire ──────────────────────────── a segment ends where a vector does
//! ctc   frames ─ projector ─ distances to embeddings ─ path ─ a segment ends where a token's run does
//!                                                      |
//!                     in training of what is said, in use of the nearest embeddings
//! ```
//!
//! These are the segmenters that need no transcript in use, nor another model's CTC head (SSR, Tan et al., 2024,
//! <https://arxiv.org/abs/2410.00168>, has such a head over sub-words, and CIF). The CTC here has no classifier of its
//! own: the score of a token is the distance to its embedding, as in [`super::distance_ctc`], and the blank is the pad.

use burn::prelude::*;
use sandhi_align::ctc::{self, Limits};
use serde::{Deserialize, Serialize};

use super::{
    ConnectorInput, InputError, Needs, Penalty, Per, Projector, ProjectorConfig, Segments, Widths,
    distance_ctc::{Columns, nearest, wrong_temperature},
    fire::{FireConfig, Fired, Weigher, one},
    segments::own_frames,
};
use crate::{
    init::Init,
    lora::{Linears, NamedLinears, below},
    ops,
    ragged::Offsets,
    transformer::Dropout,
    weights::host,
};

/// How a connector cuts by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum CutConfig {
    /// Where weights fire.
    Cif(FireConfig),
    /// Where tokens of the language model end.
    Ctc(SubwordCtcConfig),
}

/// `by = "ctc"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubwordCtcConfig {
    /// From frames to what is compared to embeddings.
    #[serde(default)]
    pub projector: ProjectorConfig,
    /// What squared distances are divided by; see [`super::DistanceCtcConfig::temperature`].
    #[serde(default = "one")]
    pub temperature: f64,
    /// Weight of the CTC loss, per token.
    #[serde(default = "one")]
    pub ctc_weight: f64,
}

/// Built by [`CutConfig::init`].
#[derive(Module, Debug)]
pub enum Cut {
    /// Weights of frames.
    Cif(Weigher),
    /// What is compared to embeddings.
    Ctc(Reader),
}

/// Frames as they are compared to embeddings.
#[derive(Module, Debug)]
pub struct Reader {
    projector: Projector,
    temperature: f64,
}

/// Segments that were found.
pub(super) struct Found {
    pub segments: Segments,
    /// What fired, one vector a segment.
    pub fired: Option<Fired>,
    /// One for each of [`CutConfig::penalties`] in training.
    pub penalties: Vec<Tensor<1>>,
}

impl CutConfig {
    pub(super) fn needs(&self) -> Needs {
        Needs { said: true, embeddings: matches!(self, Self::Ctc(_)), ..Needs::default() }
    }

    pub(super) fn penalties(&self) -> Vec<Penalty> {
        vec![match self {
            Self::Cif(config) => config.penalty(),
            Self::Ctc(config) => {
                Penalty { name: "subword_ctc", weight: config.ctc_weight, per: Per::Token }
            }
        }]
    }

    /// Whether an utterance of these tokens can be learned from: the pad is not said.
    pub(super) fn can_say(&self, said: &[u32], pad: Option<u32>) -> bool {
        matches!(self, Self::Cif(_)) || said.iter().all(|token| Some(*token) != pad)
    }

    /// What is wrong with the settings.
    pub fn problems(&self) -> Vec<String> {
        let problems = match self {
            Self::Cif(config) => config.problems(),
            Self::Ctc(SubwordCtcConfig { projector, temperature, ctc_weight: weight }) => {
                let mut problems = projector.problems();
                problems.extend(wrong_temperature(*temperature));
                if !(weight.is_finite() && *weight >= 0.0) {
                    problems
                        .push(format!("ctc_weight is {weight}, expected a number of at least 0"));
                }
                problems
            }
        };
        problems.into_iter().map(|problem| format!("cut.{problem}")).collect()
    }

    /// Builds it with random weights.
    pub fn init(&self, widths: Widths, init: &Init) -> Cut {
        match self {
            Self::Cif(config) => Cut::Cif(config.init(widths, init)),
            Self::Ctc(config) => Cut::Ctc(Reader {
                projector: config.projector.init(widths, &init.child("projector")),
                temperature: config.temperature,
            }),
        }
    }
}

impl Linears for Cut {
    fn linears(&mut self) -> NamedLinears<'_> {
        match self {
            Self::Cif(weigher) => weigher.linears(),
            Self::Ctc(reader) => below("projector", reader.projector.linears()).collect(),
        }
    }
}

impl Cut {
    pub(super) fn recompute(&mut self, on: bool) {
        match self {
            Self::Cif(_) => {}
            Self::Ctc(reader) => reader.projector.recompute(on),
        }
    }

    /// Segments of frames. In training there is one for every token that is said, where it has frames enough.
    ///
    /// # Errors
    ///
    /// When the input lacks embeddings, or they have another width.
    pub(super) fn find(
        &self,
        input: &ConnectorInput,
        d_model: usize,
        dropout: Dropout,
    ) -> Result<Found, InputError> {
        let offsets = &input.frames.offsets;
        let said = input.said.as_deref();
        match self {
            Self::Cif(weigher) => {
                let (fired, quantity) = weigher.fire(&input.frames, said);
                let past = |ends: &[u32]| ends.iter().map(|&end| end as usize + 1).collect();
                let ends = fired.ends.iter().zip(offsets.iter());
                let ends = ends.map(|(ends, span)| own_frames(past(ends), span.len())).collect();
                Ok(Found {
                    segments: Segments::new(ends, offsets)?,
                    fired: Some(fired),
                    penalties: quantity.into_iter().collect(),
                })
            }
            Self::Ctc(Reader { projector, temperature }) => {
                let embeddings = input.embeddings()?;
                embeddings.check_width(d_model)?;
                let s = projector.forward(input.frames.clone(), dropout).values;
                let columns = Columns::new(embeddings, None, *temperature);
                let logits = columns.logits(s);
                let mut ends = runs(&nearest(&logits), columns.blank, offsets);
                if let Some(said) = said {
                    take_what_is_said(&mut ends, &logits, columns.blank, offsets, said);
                }
                let loss = said.map(|said| {
                    ops::ctc_loss(logits, offsets, said, columns.blank, &vec![1.0; said.len()])
                });
                Ok(Found {
                    segments: Segments::new(ends, offsets)?,
                    fired: None,
                    penalties: loss.into_iter().collect(),
                })
            }
        }
    }
}

/// The last frame of every run of a token, the blank aside.
fn runs(nearest: &[u32], blank: u32, offsets: &Offsets) -> Vec<Vec<u32>> {
    let of_utterance = |span: std::ops::Range<usize>| {
        let mut past = 0;
        let runs = nearest[span].chunk_by(|a, b| a == b);
        let ends = runs.filter_map(|run| {
            past += run.len() as u32;
            (run[0] != blank).then(|| past - 1)
        });
        ends.collect()
    };
    offsets.iter().map(of_utterance).collect()
}

/// Puts the ends on the best path of what is said in place of those that are heard. Utterances without a path keep
/// theirs: with too few frames for it, where the loss of CTC has none either, or with scores that are not numbers.
fn take_what_is_said(
    ends: &mut [Vec<u32>],
    logits: &Tensor<2>,
    blank: u32,
    offsets: &Offsets,
    said: &[Vec<u32>],
) {
    let [_, n_columns] = logits.dims();
    // A constant that a frame's scores share decides nothing, so they are not normalized.
    let scores = host(logits.clone().detach());
    let paths = ctc::viterbi_align_batch(
        &scores,
        n_columns,
        offsets.as_slice(),
        said,
        blank,
        Limits::default(),
    );
    let paths = paths.unwrap_or_else(|error| panic!("{error}"));
    for (ends, path) in ends.iter_mut().zip(paths) {
        if let Ok(path) = path {
            *ends = path.spans.iter().map(|span| span.end as u32 - 1).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_ends_where_a_run_does() {
        let offsets = Offsets::from_lengths(&[7, 0, 2]);
        let nearest = [0, 3, 3, 4, 0, 4, 0, 0, 0];
        assert_eq!(runs(&nearest, 0, &offsets), [vec![2, 3, 5], vec![], vec![]]);
    }

    #[test]
    fn what_is_said_decides_in_training() {
        // Nearest say 1, blank, 1; what is said is 1 2, which is likeliest with 2 in the third frame.
        let device = crate::ops::testing::cpu();
        let logits = Tensor::<2>::from_floats(
            [[0.0, 5.0, 0.0], [5.0, 0.0, 0.0], [0.0, 5.0, 4.0], [0.0, 3.0, 0.0]],
            &device,
        );
        let offsets = Offsets::from_lengths(&[3, 1]);
        let mut ends = runs(&nearest(&logits), 0, &offsets);
        assert_eq!(ends, [vec![0, 2], vec![0]]);
        // The second utterance has one frame for two tokens and keeps what is heard.
        take_what_is_said(&mut ends, &logits, 0, &offsets, &[vec![1, 2], vec![1, 2]]);
        assert_eq!(ends, [vec![0, 2], vec![0]]);
        take_what_is_said(&mut ends, &logits, 0, &offsets, &[vec![2], vec![1]]);
        assert_eq!(ends, [vec![2], vec![0]]);
    }

    #[test]
    fn settings_that_do_not_fit_are_named() {
        let wrong = CutConfig::Cif(FireConfig { kernel: 4, d_conv: 8, quantity_weight: 1.0 });
        assert_eq!(wrong.problems(), ["cut.kernel is 4, expected an odd number"]);
        let projector = ProjectorConfig::Linear;
        let wrong =
            CutConfig::Ctc(SubwordCtcConfig { projector, temperature: 0.0, ctc_weight: -1.0 });
        assert_eq!(
            wrong.problems(),
            [
                "cut.temperature is 0, expected a number above 0",
                "cut.ctc_weight is -1, expected a number of at least 0"
            ]
        );
    }
}
