//! What a CTC head takes every frame of the encoder for.
//!
//! ```text
//! steps    -  a | -  - | a  b | -  -          two a frame, the best symbol of each
//! frames   a      -      b      -             where b is more probable than the second a
//! blank    ·2     ·9     ·1     ·8            the product of the steps' blanks
//! ```
//!
//! Steps of CTC are independent given the sound (Graves et al. 2006, equation 2), so that a frame is blank with the
//! product of the probabilities of its steps. A frame is taken for a symbol as soon as one of its steps is: heads
//! are sure in single steps, and an average over steps would lose them. A frame whose steps are taken for two
//! symbols counts as the more probable one, the earlier of equals. Two frames of one symbol are one, as CTC reads them,
//! unless a blank step parts them; a frame that says a symbol twice has one.

use super::{InputError, input::same_utterances};
use crate::{
    ragged::{Offsets, Ragged},
    weights::host,
};

/// The blank of a CTC head.
pub(super) const BLANK: u32 = 0;

/// Log-probabilities of the symbols of a CTC head; symbol 0 is the blank.
#[derive(Debug, Clone)]
pub struct CtcSteps {
    log_probs: Ragged,
    steps_per_frame: usize,
}

/// What a frame is taken for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FrameSymbol {
    /// 0 for the blank.
    pub symbol: u32,
    /// Of the symbol in the step that says it; of the blank as [`FrameSymbol::blank`].
    pub probability: f32,
    /// That every step is blank.
    pub blank: f32,
    /// Whether a blank step lies between the step that says the symbol and the frame before.
    pub parted: bool,
}

impl FrameSymbol {
    /// Whether this frame goes on with what the frame before it says.
    pub fn goes_on(self, before: Self) -> bool {
        self.symbol == before.symbol && (self.symbol == BLANK || !self.parted)
    }
}

impl CtcSteps {
    /// Steps of frames with these offsets.
    pub(super) fn new(
        log_probs: Ragged,
        steps_per_frame: usize,
        frames: &Offsets,
    ) -> Result<Self, InputError> {
        if steps_per_frame == 0 {
            return Err(InputError::NoSteps);
        }
        same_utterances("ctc", log_probs.offsets.n_sequences(), frames)?;
        for (utterance, (steps, frames)) in log_probs.offsets.iter().zip(frames.iter()).enumerate()
        {
            let (found, n_frames) = (steps.len(), frames.len());
            if found != steps_per_frame * n_frames {
                let per_frame = steps_per_frame;
                return Err(InputError::Steps { utterance, found, per_frame, n_frames });
            }
        }
        match log_probs.values.dims()[1] {
            0 => Err(InputError::Symbols { found: 0 }),
            _ => Ok(Self { log_probs, steps_per_frame }),
        }
    }

    /// What every frame of the batch is taken for; no gradient flows from here.
    pub(super) fn read(&self) -> Vec<FrameSymbol> {
        let [_, n_symbols] = self.log_probs.values.dims();
        let values = host(self.log_probs.values.clone().detach());
        let mut parts = false;
        let frames = values.chunks_exact(self.steps_per_frame * n_symbols);
        frames
            .map(|steps| {
                let (mut found, parts_next) = frame(steps, n_symbols);
                found.parted |= parts;
                parts = parts_next;
                found
            })
            .collect()
    }
}

/// What a frame is taken for, and whether a blank step parts that from the next frame.
fn frame(steps: &[f32], n_symbols: usize) -> (FrameSymbol, bool) {
    let (mut blank, mut said) = (0.0, None);
    // Blank steps so far, in front of what is said, and behind it.
    let (mut n_blank, mut n_before) = (0, 0);
    for step in steps.chunks_exact(n_symbols) {
        blank += step[BLANK as usize];
        let mut best = 0;
        for (symbol, value) in step.iter().enumerate() {
            if *value > step[best] {
                best = symbol;
            }
        }
        if best == BLANK as usize {
            n_blank += 1;
        } else if said.is_none_or(|(_, value)| step[best] > value) {
            said = Some((best as u32, step[best]));
            n_before = n_blank;
        }
    }
    let blank = blank.exp();
    let (symbol, probability) = match said {
        Some((symbol, value)) => (symbol, value.exp()),
        None => (BLANK, blank),
    };
    (FrameSymbol { symbol, probability, blank, parted: n_before > 0 }, n_blank > n_before)
}

#[cfg(test)]
pub(super) mod tests {
    use burn::prelude::*;

    use super::*;

    /// Steps of given probabilities.
    pub fn log_probs(probabilities: &[&[f32]], lengths: &[usize]) -> Ragged {
        let n_symbols = probabilities.first().map_or(1, |row| row.len());
        let values: Vec<f32> = probabilities.concat().iter().map(|p| p.ln()).collect();
        let data = TensorData::new(values, [probabilities.len(), n_symbols]);
        Ragged {
            values: Tensor::from_data(data, &Device::flex()),
            offsets: Offsets::from_lengths(lengths),
        }
    }

    #[test]
    fn a_blank_step_parts_equal_frames() {
        let (l, blank): (&[f32], &[f32]) = (&[0.25, 0.75], &[0.75, 0.25]);
        let joined = |steps: [&[f32]; 4]| {
            let frames = Offsets::from_lengths(&[2]);
            let found = CtcSteps::new(log_probs(&steps, &[4]), 2, &frames).unwrap().read();
            assert!(found.iter().all(|frame| frame.symbol == 1), "{found:?}");
            found[1].goes_on(found[0])
        };
        // CTC reads the first as one letter, the others as two.
        assert!(joined([l, l, l, blank]) && joined([blank, l, l, l]));
        assert!(!joined([l, blank, l, blank]) && !joined([l, blank, blank, l]));
        assert!(!joined([l, l, blank, l]));
    }

    #[test]
    fn one_step_that_is_sure_makes_its_frame() {
        let steps: [&[f32]; 6] = [
            &[0.75, 0.25, 0.0],
            &[0.25, 0.5, 0.25],
            &[0.5, 0.25, 0.25],
            &[0.75, 0.0, 0.25],
            &[0.25, 0.5, 0.25],
            &[0.0, 0.25, 0.75],
        ];
        let steps = log_probs(&steps, &[4, 0, 2]);
        let frames = Offsets::from_lengths(&[2, 0, 1]);
        let found = CtcSteps::new(steps, 2, &frames).unwrap().read();
        let expected = [(1, 0.5, 0.75 * 0.25), (0, 0.375, 0.375), (2, 0.75, 0.0)];
        for (found, (symbol, probability, blank)) in found.iter().zip(expected) {
            assert_eq!(found.symbol, symbol);
            assert!((found.probability - probability).abs() < 1e-6, "{found:?}");
            assert!((found.blank - blank).abs() < 1e-6, "{found:?}");
        }
        assert_eq!(found.len(), 3);
    }
}
