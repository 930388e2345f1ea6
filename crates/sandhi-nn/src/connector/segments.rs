//! Segments of frames, one a token: where they end.
//!
//! ```text
//! frames   0  1  2 | 3 | 4  5 | 6  7          ends 2, 3, 5; frames 6 and 7 belong to no segment
//! times    ── ·12 s ──┤            ends of tokens at 25 Hz: ·12 s is the end of frame 2
//! ```

use super::{InputError, input::same_utterances};
use crate::ragged::Offsets;

/// The last frame of every segment of every utterance: strictly ascending, and frames of their utterance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    ends: Vec<Vec<u32>>,
}

/// Why times give no segments.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum TimesError {
    /// There is no such rate.
    #[error("frame_rate_hz: found {found}, expected a finite number above 0")]
    Rate {
        /// In frames a second.
        found: f64,
    },
    /// A token does not end after the one before.
    #[error(
        "end_s: token {token} ends at {found} s, expected a finite time of at least {before} s"
    )]
    Time {
        /// Counted from 0.
        token: usize,
        /// Its end.
        found: f64,
        /// The end of the token before, 0 of the first.
        before: f64,
    },
    /// Every token needs a frame.
    #[error("found {n_tokens} tokens, expected at most one for each of {n_frames} frames")]
    TooFewFrames {
        /// Tokens.
        n_tokens: usize,
        /// Frames.
        n_frames: usize,
    },
}

/// The last frame of every token, strictly ascending, from the times at which tokens end.
///
/// Frame `i` lasts from `i / rate` to `(i + 1) / rate`. A token that ends at `t` has its boundary at the frame's
/// edge that is next to `t`, edge `round(t * rate)`, and so ends with the frame before it: at most half a frame is
/// on the wrong side. A token without a frame of its own takes the next one; where the utterance is over before
/// that, those before it give theirs.
///
/// # Errors
///
/// When times descend or are no numbers, the rate is none, or there are more tokens than frames.
pub fn segment_ends(
    end_s: &[f64],
    frame_rate_hz: f64,
    n_frames: usize,
) -> Result<Vec<u32>, TimesError> {
    if !(frame_rate_hz.is_finite() && frame_rate_hz > 0.0) {
        return Err(TimesError::Rate { found: frame_rate_hz });
    }
    let mut before = 0.0;
    for (token, &found) in end_s.iter().enumerate() {
        if !(found.is_finite() && found >= before) {
            return Err(TimesError::Time { token, found, before });
        }
        before = found;
    }
    let n_tokens = end_s.len();
    if n_tokens > n_frames {
        return Err(TimesError::TooFewFrames { n_tokens, n_frames });
    }
    // One past the last frame of each, which a number of frames is large enough for.
    let past =
        end_s.iter().map(|t| (t * frame_rate_hz).round().min(n_frames as f64) as usize).collect();
    Ok(own_frames(past, n_frames))
}

/// The last frame of every segment, given one past it: a segment without a frame of its own takes the next one; where
/// the utterance is over before that, those before it give theirs.
///
/// # Panics
///
/// When there are fewer frames than segments.
pub(super) fn own_frames(mut past: Vec<usize>, n_frames: usize) -> Vec<u32> {
    let mut least = 1;
    for past in &mut past {
        *past = least.max(*past);
        least = *past + 1;
    }
    let mut most = n_frames;
    for past in past.iter_mut().rev() {
        *past = most.min(*past);
        most = *past - 1;
    }
    past.into_iter().map(|past| (past - 1) as u32).collect()
}

impl Segments {
    /// Segments of utterances with these frames.
    ///
    /// # Errors
    ///
    /// When ends do not ascend or are none of their utterance's frames.
    pub fn new(ends: Vec<Vec<u32>>, frames: &Offsets) -> Result<Self, InputError> {
        same_utterances("segments", ends.len(), frames)?;
        for (utterance, (ends, frames)) in ends.iter().zip(frames.iter()).enumerate() {
            let mut before = None;
            for (segment, &found) in ends.iter().enumerate() {
                if let Some(before) = before.filter(|&before| found <= before) {
                    return Err(InputError::NotAscending { utterance, segment, found, before });
                }
                let n_frames = frames.len();
                if found as usize >= n_frames {
                    return Err(InputError::BeyondFrames { utterance, segment, found, n_frames });
                }
                before = Some(found);
            }
        }
        Ok(Self { ends })
    }

    /// The last frame of every segment, counted from its utterance's first.
    pub fn ends(&self) -> &[Vec<u32>] {
        &self.ends
    }

    /// How many segments every utterance has.
    pub fn offsets(&self) -> Offsets {
        let lengths: Vec<usize> = self.ends.iter().map(Vec::len).collect();
        Offsets::from_lengths(&lengths)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_ends_with_the_last_frame_before_its_end() {
        // 25 Hz: frame i lasts from ·04 i to ·04 (i + 1).
        let ends = |end_s: &[f64], n_frames| segment_ends(end_s, 25.0, n_frames).unwrap();
        assert_eq!(ends(&[0.12, 0.16, 0.24], 8), [2, 3, 5]);
        // Edges are rounded: ·05 s is nearer to the end of frame 0, ·07 s to that of frame 1.
        assert_eq!(ends(&[0.05, 0.11], 8), [0, 2]);
        assert_eq!(ends(&[0.07, 0.11], 8), [1, 2]);
        // The last token ends with the utterance, or beyond it where its last frame was not full.
        assert_eq!(ends(&[0.08, 0.32], 8), [1, 7]);
        assert_eq!(ends(&[0.08, 9.9], 8), [1, 7]);
        // A frame for tokens without one: the next, or one of those before at the end.
        assert_eq!(ends(&[0.0, 0.01, 0.01, 0.2], 8), [0, 1, 2, 4]);
        assert_eq!(ends(&[0.2, 0.3, 0.3, 0.3], 8), [4, 5, 6, 7]);
        assert!(ends(&[], 0).is_empty());
    }

    #[test]
    fn times_that_are_none_are_refused() {
        let refused = |end_s: &[f64], rate, n_frames, expected: &str| {
            let found = segment_ends(end_s, rate, n_frames).unwrap_err();
            assert_eq!(found.to_string(), expected);
        };
        refused(&[], 0.0, 1, "frame_rate_hz: found 0, expected a finite number above 0");
        refused(
            &[0.2, 0.1],
            25.0,
            9,
            "end_s: token 1 ends at 0.1 s, expected a finite time of at least 0.2 s",
        );
        refused(
            &[f64::NAN],
            25.0,
            9,
            "end_s: token 0 ends at NaN s, expected a finite time of at least 0 s",
        );
        refused(&[0.1, 0.2], 25.0, 1, "found 2 tokens, expected at most one for each of 1 frames");
    }

    #[test]
    fn segments_that_do_not_fit_are_refused() {
        let refused = |ends: Vec<Vec<u32>>, expected: &str| {
            let found = Segments::new(ends, &Offsets::from_lengths(&[3, 0])).unwrap_err();
            assert_eq!(found.to_string(), expected);
        };
        refused(vec![vec![0]], "segments: found 1 utterances, expected 2 as in the frames");
        refused(
            vec![vec![1, 1], vec![]],
            "segments: segment 1 of utterance 0 ends at frame 1, expected more than 1",
        );
        refused(
            vec![vec![1], vec![0]],
            "segments: segment 0 of utterance 1 ends at frame 0, expected one of 0",
        );
        let good =
            Segments::new(vec![vec![0, 2], vec![]], &Offsets::from_lengths(&[3, 0])).unwrap();
        assert_eq!(good.offsets().lengths(), [2, 0]);
    }

    proptest! {
        #[test]
        fn every_token_has_a_frame(
            steps in prop::collection::vec(0.0..0.3_f64, 0..12),
            rate in 1.0..60.0_f64,
            spare in 0_usize..9,
        ) {
            let mut now = 0.0;
            let end_s: Vec<f64> = steps.iter().map(|step| { now += step; now }).collect();
            let n_frames = end_s.len() + spare;
            let ends = segment_ends(&end_s, rate, n_frames).unwrap();
            let offsets = Offsets::from_lengths(&[n_frames]);
            prop_assert!(Segments::new(vec![ends.clone()], &offsets).is_ok());
            // Where every token has its own edge within the utterance, the error is at most half a frame.
            let edges: Vec<f64> = end_s.iter().map(|t| (t * rate).round()).collect();
            let apart = edges.windows(2).all(|pair| pair[0] < pair[1]);
            let within = edges.first().is_none_or(|&edge| edge >= 1.0)
                && edges.last().is_none_or(|&edge| edge <= n_frames as f64);
            if apart && within {
                for (end, t) in ends.iter().zip(&end_s) {
                    prop_assert!((f64::from(*end) + 1.0 - t * rate).abs() <= 0.5 + 1e-9);
                }
            }
        }
    }
}
