//! Labels with times: words, pieces or phones placed on the time axis.

use serde::{Deserialize, Serialize};

/// One label with its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alignment {
    /// The word, piece or phone.
    pub label: String,
    /// Where it starts, in seconds.
    pub start_s: f64,
    /// Where it ends, in seconds.
    pub end_s: f64,
    /// How sure the source is, in `[0, 1]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// Who says so.
    pub source: Source,
}

/// Where a time comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Exact by construction.
    Exact,
    /// An automatic aligner's.
    Silver,
    /// A model's, named by its hash.
    Model(String),
}
