//! What a run writes down while it trains: `metrics.jsonl` and TensorBoard event files.
//!
//! Nothing here reads a clock: wall times come from the caller.

mod metrics;
pub mod tensorboard;

use std::path::PathBuf;

pub use metrics::{MetricsLog, Record, read_metrics};

/// What can go wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A fresh log was asked for where there is one.
    #[error("{} exists already (to continue a run, resume it)", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A line that no log of ours holds.
    #[error("{}:{line}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// The file system refused; the cause is named as for a checkpoint.
    #[error(transparent)]
    File(#[from] crate::checkpoint::Error),
}

/// What log functions return.
pub type Result<T> = std::result::Result<T, Error>;
