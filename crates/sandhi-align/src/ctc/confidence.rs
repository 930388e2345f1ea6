//! How sure an alignment is, by all paths that spell the target rather than by the best one alone.
//!
//! ```text
//! occupancy of a token    .0  .3  .9  1.  .8  .2  .0        how probable it is that the path is in it
//! span of the best path           |-----------|             confidence: its mean over the span
//! expected start, end           ^                ^          a frame is before the start as far as the path
//!                                                           is in a state before: sums over all frames
//! ```

use std::ops::Range;

use super::{Error, Posteriors, Span};

impl Posteriors {
    /// Frames of the matrix.
    pub fn n_frames(&self) -> usize {
        self.occupancy.len() / self.n_states
    }

    /// Tokens of the target.
    pub fn n_tokens(&self) -> usize {
        self.n_states / 2
    }

    /// How probable each token is over the frames of its span, on average, given the target: in `[0, 1]`.
    ///
    /// # Shapes
    ///
    /// - `spans`, output: one per token
    ///
    /// # Errors
    ///
    /// [`Error::Spans`] when the spans are none of this target and matrix.
    pub fn confidences(&self, spans: &[Span]) -> Result<Vec<f32>, Error> {
        self.check(spans)?;
        let spans = spans.iter().enumerate();
        Ok(spans.map(|(i, span)| self.within(span.start..span.end, 2 * i + 1..2 * i + 2)).collect())
    }

    /// How probable it is, on average over the frames from the first token's start to the last one's end, that the path
    /// is within the word that these tokens spell, blanks between them included: in `[0, 1]`.
    ///
    /// # Shapes
    ///
    /// - `spans`: one per token of the target
    /// - `tokens`: those of the word, one or more
    ///
    /// # Errors
    ///
    /// [`Error::Spans`] when the spans are none of this target and matrix, or the word is none of its tokens.
    pub fn word_confidence(&self, spans: &[Span], tokens: Range<usize>) -> Result<f32, Error> {
        self.check(spans)?;
        if tokens.is_empty() || tokens.end > spans.len() {
            return Err(self.no_spans(&spans[..0]));
        }
        let frames = spans[tokens.start].start..spans[tokens.end - 1].end;
        Ok(self.within(frames, 2 * tokens.start + 1..2 * tokens.end))
    }

    /// Where each token is expected to start and end, in frames: the means over all paths, each as probable as it is.
    pub fn expected_boundaries(&self) -> Vec<[f64; 2]> {
        let mut sums = vec![0.0; self.n_states];
        for row in self.occupancy.chunks_exact(self.n_states) {
            sums.iter_mut().zip(row).for_each(|(sum, &p)| *sum += f64::from(p));
        }
        let mut frames_before = 0.0;
        let pairs = sums.chunks_exact(2).map(|pair| {
            let start = frames_before + pair[0];
            frames_before = start + pair[1];
            [start, frames_before]
        });
        pairs.collect()
    }

    /// Mean over frames of the probability of some states.
    fn within(&self, frames: Range<usize>, states: Range<usize>) -> f32 {
        let row = |frame: usize| &self.occupancy[frame * self.n_states..][states.clone()];
        let sum: f64 = frames.clone().flat_map(row).copied().map(f64::from).sum();
        (sum / frames.len() as f64).min(1.0) as f32
    }

    fn check(&self, spans: &[Span]) -> Result<(), Error> {
        let is_in_order = spans.windows(2).all(|pair| pair[0].end <= pair[1].start);
        let is_within =
            spans.iter().all(|span| span.start < span.end && span.end <= self.n_frames());
        match spans.len() == self.n_tokens() && is_in_order && is_within {
            true => Ok(()),
            false => Err(self.no_spans(spans)),
        }
    }

    fn no_spans(&self, spans: &[Span]) -> Error {
        Error::Spans {
            n_spans: spans.len(),
            last_frame: spans.iter().map(|span| span.end).max().unwrap_or(0),
            n_tokens: self.n_tokens(),
            n_frames: self.n_frames(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctc::{Limits, posteriors, posteriors_within, viterbi_align};

    /// Two frames and the target "a"; the probabilities of "a" are 1/2 and 1/4, those of the blank the rest.
    fn two_frames() -> [f32; 4] {
        [0.5_f32.ln(), 0.5_f32.ln(), 0.75_f32.ln(), 0.25_f32.ln()]
    }

    #[test]
    fn confidence_counts_all_paths() {
        // a -: 1/2 3/4 = 3/8.  a a: 1/8.  - a: 1/8. Of 5/8 these are 3/5, 1/5 and 1/5.
        let log_probs = two_frames();
        let found = posteriors(&log_probs, 2, &[1], 0).unwrap();
        let spans = viterbi_align(&log_probs, 2, &[1], 0).unwrap();
        assert_eq!((spans[0].start, spans[0].end), (0, 1));
        // The first frame is "a" on the first two paths.
        assert!((found.confidences(&spans).unwrap()[0] - 0.8).abs() < 1e-6);
        assert!((found.word_confidence(&spans, 0..1).unwrap() - 0.8).abs() < 1e-6);
        // Starts 0, 0, 1 and ends 1, 2, 2.
        let [start, end] = found.expected_boundaries()[0];
        assert!((start - 0.2).abs() < 1e-6 && (end - 1.4).abs() < 1e-6, "{start} {end}");
    }

    #[test]
    fn a_word_holds_its_blanks() {
        // Certain frames: a - b, then a blank.
        let no = f32::NEG_INFINITY;
        let log_probs = [no, 0.0, no, 0.0, no, no, no, no, 0.0, 0.0, no, no];
        let found = posteriors(&log_probs, 3, &[1, 2], 0).unwrap();
        let spans = viterbi_align(&log_probs, 3, &[1, 2], 0).unwrap();
        assert_eq!(found.word_confidence(&spans, 0..2).unwrap(), 1.0);
        assert_eq!(found.expected_boundaries(), [[0.0, 1.0], [2.0, 3.0]]);
        assert!(matches!(found.word_confidence(&spans, 1..3), Err(Error::Spans { .. })));
        assert!(matches!(found.word_confidence(&spans, 1..1), Err(Error::Spans { .. })));
        assert!(matches!(found.confidences(&spans[..1]), Err(Error::Spans { n_spans: 1, .. })));
        let far = [spans[0], Span { end: 9, ..spans[1] }];
        assert!(matches!(found.confidences(&far), Err(Error::Spans { last_frame: 9, .. })));
    }

    #[test]
    fn posteriors_beyond_the_limit_or_of_nothing_are_refused() {
        // Two frames of three states, 28 bytes each.
        let with = |log_probs: &[f32], max_bytes| {
            posteriors_within(log_probs, 2, &[1], 0, Limits { max_bytes })
        };
        assert!(with(&two_frames(), 168).is_ok());
        let error = with(&two_frames(), 167).unwrap_err();
        assert_eq!(error, Error::TooLarge { n_bytes: 168, max_bytes: 167 });
        let no = f32::NEG_INFINITY;
        assert_eq!(with(&[0.0, no, 0.0, no], 168), Err(Error::Impossible));
        let error = with(&[0.0, -1.0, 0.0, f32::NAN], 168).unwrap_err();
        assert!(matches!(error, Error::NotALogProb { frame: 1, symbol: 1, .. }));
    }
}
