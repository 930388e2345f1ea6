//! What connectors may look at: frames, and what stands beside them, checked once where it comes in.
//!
//! ```text
//! frames ── with_ctc ── with_segments ── with_embeddings ── with_said ──> ConnectorInput
//!              │              │                 │                │
//!              └──────────────┴── InputError ───┴────────────────┘        what does not fit the frames
//! ```
//!
//! A [`ConnectorInput`] that exists fits together, so that no connector asks again. What a connector cannot do
//! without it says in [`Needs`].

use burn::prelude::*;

use super::{CtcSteps, Segments};
use crate::ragged::{Offsets, Ragged};

/// What a connector may look at. What it does not need it ignores.
#[derive(Debug, Clone)]
pub struct ConnectorInput {
    pub(super) frames: Ragged,
    pub(super) ctc: Option<CtcSteps>,
    pub(super) segments: Option<Segments>,
    pub(super) embeddings: Option<Embeddings>,
    pub(super) said: Option<Vec<Vec<u32>>>,
}

/// The table of a language model.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// `[n_tokens, d_model]`.
    pub table: Tensor<2>,
    /// The token that stands for no content.
    pub pad: u32,
}

/// What a connector cannot do without, besides the frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// [`ConnectorInput::with_ctc`].
    pub ctc: bool,
    /// [`ConnectorInput::with_segments`].
    pub segments: bool,
    /// [`ConnectorInput::with_embeddings`].
    pub embeddings: bool,
    /// [`ConnectorInput::with_said`], in training.
    pub said: bool,
}

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// A part is there for more or fewer utterances than the frames.
    #[error("{part}: found {found} utterances, expected {expected} as in the frames")]
    Utterances {
        /// Which part.
        part: &'static str,
        /// Its utterances.
        found: usize,
        /// Those of the frames.
        expected: usize,
    },
    /// Steps are no whole number of frames.
    #[error(
        "ctc: found {found} steps in utterance {utterance}, expected {per_frame} for each of its \
         {n_frames} frames"
    )]
    Steps {
        /// Counted from 0.
        utterance: usize,
        /// Its steps.
        found: usize,
        /// Steps of a frame.
        per_frame: usize,
        /// Its frames.
        n_frames: usize,
    },
    /// A frame has no steps.
    #[error("steps_per_frame: found 0, expected at least 1")]
    NoSteps,
    /// There is nothing that a step could be.
    #[error("ctc: found {found} symbols, expected the blank at least")]
    Symbols {
        /// Columns of the log-probabilities.
        found: usize,
    },
    /// A segment does not end after the one before.
    #[error(
        "segments: segment {segment} of utterance {utterance} ends at frame {found}, expected more than {before}"
    )]
    NotAscending {
        /// Counted from 0.
        utterance: usize,
        /// Counted from 0.
        segment: usize,
        /// Its last frame.
        found: u32,
        /// The last frame of the segment before.
        before: u32,
    },
    /// A segment ends beyond its utterance.
    #[error(
        "segments: segment {segment} of utterance {utterance} ends at frame {found}, expected one of {n_frames}"
    )]
    BeyondFrames {
        /// Counted from 0.
        utterance: usize,
        /// Counted from 0.
        segment: usize,
        /// Its last frame.
        found: u32,
        /// Frames of the utterance.
        n_frames: usize,
    },
    /// A token has no row in the table.
    #[error("{part}: found token {token}, expected one of the {n_tokens} rows of the embeddings")]
    Token {
        /// Which part.
        part: &'static str,
        /// The token.
        token: u32,
        /// Rows of the table.
        n_tokens: usize,
    },
    /// The token that stands for no content is said.
    #[error(
        "said: found the pad, token {pad}, in utterance {utterance}, expected tokens of content"
    )]
    PadIsSaid {
        /// Counted from 0.
        utterance: usize,
        /// The token.
        pad: u32,
    },
    /// A width that two parts share differs.
    #[error("{part}: found width {found}, expected {expected}")]
    Width {
        /// Which part.
        part: &'static str,
        /// Its width.
        found: usize,
        /// What the connector was built for.
        expected: usize,
    },
    /// A connector cannot do without a part.
    #[error("{part}: found none, expected it because the connector needs it")]
    Missing {
        /// Which part.
        part: &'static str,
    },
}

impl Embeddings {
    /// Whether they are as wide as the connector's vectors.
    pub(super) fn check_width(&self, expected: usize) -> Result<(), InputError> {
        let [_, found] = self.table.dims();
        let wrong = InputError::Width { part: "embeddings", found, expected };
        if found == expected { Ok(()) } else { Err(wrong) }
    }
}

impl ConnectorInput {
    /// Frames alone: `[n_frames, d_encoder]`, one span an utterance.
    pub fn frames(frames: Ragged) -> Self {
        Self { frames, ctc: None, segments: None, embeddings: None, said: None }
    }

    /// With what the encoder's CTC head takes the frames for.
    ///
    /// # Shapes
    ///
    /// - `log_probs`: `[n_steps, n_symbols]`, normalized, `steps_per_frame` rows a frame; symbol 0 is the blank
    ///
    /// # Errors
    ///
    /// When the steps are not those of the frames.
    pub fn with_ctc(self, log_probs: Ragged, steps_per_frame: usize) -> Result<Self, InputError> {
        let ctc = CtcSteps::new(log_probs, steps_per_frame, &self.frames.offsets)?;
        Ok(Self { ctc: Some(ctc), ..self })
    }

    /// With the last frame of every segment, counted from the utterance's first and strictly ascending; frames
    /// behind the last one belong to no segment. [`super::segment_ends`] makes them of times.
    ///
    /// # Errors
    ///
    /// When they do not ascend or do not fit the frames.
    pub fn with_segments(self, ends: Vec<Vec<u32>>) -> Result<Self, InputError> {
        let segments = Segments::new(ends, &self.frames.offsets)?;
        Ok(Self { segments: Some(segments), ..self })
    }

    /// With the language model's embeddings, from which nothing learns here.
    ///
    /// # Errors
    ///
    /// When the pad, or what is said, has no row.
    pub fn with_embeddings(self, embeddings: Embeddings) -> Result<Self, InputError> {
        let input = Self { embeddings: Some(embeddings), ..self };
        input.check_tokens()?;
        Ok(input)
    }

    /// With the tokens that are said, in training alone.
    ///
    /// # Errors
    ///
    /// When they are of other utterances, have no row in the embeddings, or hold the pad.
    pub fn with_said(self, said: Vec<Vec<u32>>) -> Result<Self, InputError> {
        same_utterances("said", said.len(), &self.frames.offsets)?;
        let input = Self { said: Some(said), ..self };
        input.check_tokens()?;
        Ok(input)
    }

    pub(super) fn ctc(&self) -> Result<&CtcSteps, InputError> {
        self.ctc.as_ref().ok_or(InputError::Missing { part: "ctc" })
    }

    pub(super) fn segments(&self) -> Result<&Segments, InputError> {
        self.segments.as_ref().ok_or(InputError::Missing { part: "segments" })
    }

    pub(super) fn embeddings(&self) -> Result<&Embeddings, InputError> {
        self.embeddings.as_ref().ok_or(InputError::Missing { part: "embeddings" })
    }

    fn check_tokens(&self) -> Result<(), InputError> {
        let Some(Embeddings { table, pad }) = &self.embeddings else { return Ok(()) };
        let [n_tokens, _] = table.dims();
        let check = |part, token: u32| match token as usize {
            row if row < n_tokens => Ok(()),
            _ => Err(InputError::Token { part, token, n_tokens }),
        };
        check("pad", *pad)?;
        for (utterance, said) in self.said.iter().flatten().enumerate() {
            said.iter().try_for_each(|&token| check("said", token))?;
            if said.contains(pad) {
                return Err(InputError::PadIsSaid { utterance, pad: *pad });
            }
        }
        Ok(())
    }
}

/// One entry for every utterance of the frames.
pub(super) fn same_utterances(
    part: &'static str,
    found: usize,
    frames: &Offsets,
) -> Result<(), InputError> {
    let expected = frames.n_sequences();
    if found == expected { Ok(()) } else { Err(InputError::Utterances { part, found, expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(lengths: &[usize]) -> ConnectorInput {
        let offsets = Offsets::from_lengths(lengths);
        let values = Tensor::zeros([offsets.n_rows(), 2], &Device::flex());
        ConnectorInput::frames(Ragged { values, offsets })
    }

    fn refused(found: Result<ConnectorInput, InputError>, expected: &str) {
        assert_eq!(found.unwrap_err().to_string(), expected);
    }

    #[test]
    fn parts_that_do_not_fit_the_frames_are_refused() {
        let log_probs = |lengths: &[usize], n_symbols| {
            let offsets = Offsets::from_lengths(lengths);
            Ragged {
                values: Tensor::zeros([offsets.n_rows(), n_symbols], &Device::flex()),
                offsets,
            }
        };
        assert!(frames(&[2, 0]).with_ctc(log_probs(&[4, 0], 3), 2).is_ok());
        refused(
            frames(&[2, 0]).with_ctc(log_probs(&[4], 3), 2),
            "ctc: found 1 utterances, expected 2 as in the frames",
        );
        refused(
            frames(&[2, 1]).with_ctc(log_probs(&[4, 1], 3), 2),
            "ctc: found 1 steps in utterance 1, expected 2 for each of its 1 frames",
        );
        refused(
            frames(&[0]).with_ctc(log_probs(&[0], 3), 0),
            "steps_per_frame: found 0, expected at least 1",
        );
        refused(
            frames(&[2]).with_ctc(log_probs(&[2], 0), 1),
            "ctc: found 0 symbols, expected the blank at least",
        );
        refused(
            frames(&[2, 1]).with_said(vec![]),
            "said: found 0 utterances, expected 2 as in the frames",
        );
    }

    #[test]
    fn tokens_have_rows_and_the_pad_is_not_said() {
        let embeddings = |pad| Embeddings { table: Tensor::zeros([5, 2], &Device::flex()), pad };
        refused(
            frames(&[2]).with_embeddings(embeddings(5)),
            "pad: found token 5, expected one of the 5 rows of the embeddings",
        );
        // In either order.
        let said = || frames(&[2]).with_said(vec![vec![1, 9]]).unwrap();
        let expected = "said: found token 9, expected one of the 5 rows of the embeddings";
        refused(said().with_embeddings(embeddings(0)), expected);
        let embedded = || frames(&[2]).with_embeddings(embeddings(1)).unwrap();
        refused(embedded().with_said(vec![vec![9]]), expected);
        refused(
            embedded().with_said(vec![vec![2, 1]]),
            "said: found the pad, token 1, in utterance 0, expected tokens of content",
        );
        assert!(embedded().with_said(vec![vec![2, 4]]).is_ok());
    }
}
