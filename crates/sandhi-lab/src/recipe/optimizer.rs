//! How parameters move, and how fast.

use serde::{Deserialize, Serialize};

/// What updates the matrices inside a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatrixRule {
    /// AdamW, as everything else.
    #[default]
    Adamw,
    /// Muon (Jordan et al., 2024), at the size of AdamW's updates.
    Muon,
}

/// AdamW (Loshchilov and Hutter, 2019), with Muon for matrices where asked, and the schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Highest learning rate.
    pub lr: f64,
    /// What updates matrices between hidden states: `adamw` or `muon`.
    #[serde(default)]
    pub matrices: MatrixRule,
    /// Decay of the first moment.
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// Decay of the second moment.
    #[serde(default = "default_beta2")]
    pub beta2: f64,
    /// Added to the root of the second moment.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Decoupled decay of matrices; norms, biases and embeddings do not decay.
    #[serde(default = "default_decay")]
    pub weight_decay: f64,
    /// Largest global gradient norm; larger ones are scaled down to it.
    #[serde(default = "default_clip")]
    pub clip: f64,
    /// Steps over which the rate rises from 0.
    #[serde(default)]
    pub warmup: u64,
    /// How the rate falls afterwards.
    #[serde(default)]
    pub schedule: Schedule,
    /// Non-finite losses or gradients in a row after which the run stops.
    #[serde(default = "default_patience")]
    pub nonfinite_patience: u64,
}

fn default_beta1() -> f64 {
    0.9
}
fn default_beta2() -> f64 {
    0.98
}
fn default_eps() -> f64 {
    1e-8
}
fn default_decay() -> f64 {
    0.01
}
fn default_clip() -> f64 {
    1.0
}
fn default_patience() -> u64 {
    5
}

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Half a cosine down to `floor` times the highest rate.
    Cosine {
        /// Share of the highest rate that remains at the end.
        #[serde(default)]
        floor: f64,
    },
    /// A straight line down to `floor` times the highest rate.
    Linear {
        /// Share of the highest rate that remains at the end.
        #[serde(default)]
        floor: f64,
    },
    /// Warm-up, stable, decay: constant, then a straight line to 0 over the last `decay` share.
    Wsd {
        /// Share of the steps that the decay takes.
        decay: f64,
    },
    /// Does not fall.
    Constant {},
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Cosine { floor: 0.0 }
    }
}

impl Schedule {
    /// The rate's share of its maximum at `step` (from 0) of `steps`, `warmup` steps rising.
    pub fn factor(self, step: u64, steps: u64, warmup: u64) -> f64 {
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let progress = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
        match self {
            Self::Cosine { floor } => {
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            Self::Linear { floor } => floor + (1.0 - floor) * (1.0 - progress),
            Self::Wsd { decay } if progress > 1.0 - decay => (1.0 - progress) / decay,
            Self::Wsd { .. } | Self::Constant {} => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_rise_and_fall() {
        let cosine = Schedule::Cosine { floor: 0.1 };
        assert_eq!(cosine.factor(0, 100, 10), 0.1);
        assert_eq!(cosine.factor(9, 100, 10), 1.0);
        assert_eq!(cosine.factor(10, 100, 10), 1.0);
        // Half of the way: the mean of 1 and the floor.
        assert!((cosine.factor(55, 100, 10) - 0.55).abs() < 1e-12);
        assert!((cosine.factor(100, 100, 10) - 0.1).abs() < 1e-12);
        let wsd = Schedule::Wsd { decay: 0.2 };
        assert_eq!(wsd.factor(79, 100, 0), 1.0);
        assert!((wsd.factor(90, 100, 0) - 0.5).abs() < 1e-12);
        assert_eq!(Schedule::Linear { floor: 0.0 }.factor(75, 100, 0), 0.25);
        assert_eq!(Schedule::Constant {}.factor(75, 100, 0), 1.0);
    }
}
