//! Dropout that does not depend on the batch, the threads or the order of calls.

use burn::prelude::*;

use crate::ops;

/// Counter-based dropout: which entries fall out depends on a key and on their place alone.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    probability: f64,
    key: u64,
}

impl Dropout {
    /// Keeps everything: evaluation.
    pub const OFF: Self = Self { probability: 0.0, key: 0 };

    /// Drops with `probability`; `key` names the step and the replica.
    pub fn new(probability: f64, key: u64) -> Self {
        Self { probability, key }
    }

    /// The same dropout for another place of the model.
    pub fn branch(self, name: &str) -> Self {
        if self.probability == 0.0 {
            return self;
        }
        Self { key: crate::init::stream(self.key, name), ..self }
    }

    /// Applies it; kept entries are scaled by `1 / (1 - probability)`.
    pub fn apply(self, x: Tensor<2>) -> Tensor<2> {
        if self.probability == 0.0 { x } else { ops::dropout(x, self.probability, self.key) }
    }
}
