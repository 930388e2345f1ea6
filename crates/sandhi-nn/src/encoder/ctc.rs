//! The CTC head: symbol scores for every encoder frame (Graves et al., 2006).
//!
//! CTC needs at least as many steps as symbols, and one more between equal neighbours. Speech has 10
//! to 20 characters a second, too many for 25 Hz, so a frame may be read as several steps:
//!
//! ```text
//! frames 25 Hz   f0          f1
//! steps  50 Hz   s0   s1     s2   s3        one linear layer gives both halves
//! ```

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    init::Init,
    layers::Linear,
    lora::{Linears, NamedLinears},
    ragged::{Offsets, Ragged},
};

/// The `[ctc]` table of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CtcHeadConfig {
    /// CTC steps read from one encoder frame: 2 at 25 Hz gives 50 Hz.
    pub steps_per_frame: usize,
}

/// Built by [`CtcHeadConfig::init`].
#[derive(Module, Debug)]
pub struct CtcHead {
    proj: Linear,
    steps_per_frame: usize,
}

impl CtcHeadConfig {
    /// Builds the head with random weights; symbol 0 is the blank.
    pub fn init(&self, d_encoder: usize, n_symbols: usize, init: &Init) -> CtcHead {
        CtcHead {
            proj: Linear::new(
                &init.child("proj"),
                d_encoder,
                self.steps_per_frame * n_symbols,
                true,
            ),
            steps_per_frame: self.steps_per_frame,
        }
    }
}

impl Linears for CtcHead {
    fn linears(&mut self) -> NamedLinears<'_> {
        vec![("proj".to_owned(), &mut self.proj)]
    }
}

impl CtcHead {
    /// # Shapes
    ///
    /// - `frames.values`: `[n_frames, d_encoder]`
    /// - output: `[steps_per_frame * n_frames, n_symbols]`, not normalized
    pub fn forward(&self, frames: &Ragged) -> Ragged {
        let logits = self.proj.forward(frames.values.clone());
        let [n_frames, width] = logits.dims();
        let k = self.steps_per_frame;
        let lengths: Vec<usize> =
            (0..frames.offsets.n_sequences()).map(|i| k * frames.offsets.range(i).len()).collect();
        Ragged {
            values: logits.reshape([k * n_frames, width / k]),
            offsets: Offsets::from_lengths(&lengths),
        }
    }
}
