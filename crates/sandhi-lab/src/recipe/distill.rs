//! Losses that hold speech against the same words in writing: `[stage.loss.embedding]`, `[stage.loss.distillation]`.

use serde::{Deserialize, Serialize};

/// A connector that gives one vector a token is pulled to the tokens' embeddings: the squared error, summed over the
/// width, and the cosine distance, each a mean over tokens (SSR-Connector, Tan et al. 2024, arXiv 2410.00168). An
/// utterance with another number of vectors than of tokens has no loss, and its tokens count; `unpaired` is their share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddingConfig {
    /// Weight of the sum in the stage's loss.
    pub weight: f64,
    /// Weight of the cosine distance beside the squared error.
    pub cosine: f64,
}

impl Default for EmbeddingConfig {
    /// The published weights.
    fn default() -> Self {
        Self { weight: 1.0, cosine: 5.0 }
    }
}

/// The language model that hears is pulled to itself when it reads the transcript instead: at every token of the answer,
/// the divergence of what comes next (with a temperature, times its square: Hinton et al. 2015, arXiv 1503.02531; with
/// speech Ultravox), and the cosine distance of its hidden states.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistillationConfig {
    /// Weight of the divergence in the stage's loss.
    pub weight: f64,
    /// What logits are divided by.
    pub temperature: f64,
    /// Weight of the cosine distance of hidden states, a mean over `depths`.
    pub hidden: f64,
    /// After how many blocks hidden states are compared; below the number of the language model's blocks.
    pub depths: Vec<usize>,
}

impl Default for DistillationConfig {
    /// Ultravox's temperature.
    fn default() -> Self {
        Self { weight: 1.0, temperature: 2.0, hidden: 0.0, depths: Vec::new() }
    }
}

impl EmbeddingConfig {
    /// What is wrong with the settings, as sentences that name the fields.
    pub fn problems(&self) -> Vec<String> {
        at_least_0(&[("weight", self.weight), ("cosine", self.cosine)])
    }
}

impl DistillationConfig {
    /// What is wrong with the settings, as sentences that name the fields.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = at_least_0(&[("weight", self.weight), ("hidden", self.hidden)]);
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            problems.push(format!("temperature is {}, expected more than 0", self.temperature));
        }
        if self.depths.contains(&0) {
            problems
                .push("depths has 0, where both read the same answer; expected at least 1".into());
        }
        if self.hidden > 0.0 && self.depths.is_empty() {
            problems.push("hidden has a weight and depths is empty".into());
        }
        if self.hidden == 0.0 && !self.depths.is_empty() {
            problems.push("depths are given and hidden has no weight".into());
        }
        problems
    }
}

fn at_least_0(weights: &[(&str, f64)]) -> Vec<String> {
    let wrong = weights.iter().filter(|(_, weight)| !(weight.is_finite() && *weight >= 0.0));
    wrong
        .map(|(name, weight)| format!("{name} is {weight}, expected a number of at least 0"))
        .collect()
}
