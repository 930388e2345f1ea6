//! Batches: which items go together, in which order, and loading them ahead of time.
//!
//! ```text
//! lengths ─ BucketPlan ─ Sampler ┐
//! lengths ─ BucketPlan ─ Sampler ┴─ Mixture ─ steps ─ Prefetch(load) ─ training loop
//!           (seed, epoch)           (step)            threads, in order
//! ```
//!
//! The order of an epoch is a function of the seed and the epoch's number, and the source of a
//! step a function of the seed and the step's number. A position is therefore two small numbers
//! per source, and resuming reads no data that was already used. Every batch carries the state
//! that continues after it, because a prefetcher's sampler runs ahead of the training loop.

mod bucket;
mod mixture;
mod prefetch;
mod sampler;

pub use bucket::{BucketConfig, BucketPlan};
pub use mixture::{Mixture, MixtureState, Step};
pub use prefetch::{Prefetch, PrefetchError};
pub use sampler::{Batch, Sampler, SamplerState};

/// What can be wrong with a batch plan or its state.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// Nothing to draw from.
    #[error("there is no item to make batches of")]
    Empty,
    /// A batch could hold nothing.
    #[error("a batch must hold at least one item, one bucket and a cost of one")]
    NothingFits,
    /// One item exceeds the budget of a batch.
    #[error("item {item} costs {cost}, a batch may cost {max_cost}")]
    ItemTooLong {
        /// Index of the item.
        item: usize,
        /// Its cost.
        cost: u64,
        /// The budget.
        max_cost: u64,
    },
    /// The state belongs to other lengths, another configuration or another seed.
    #[error("the saved position belongs to batch plan {found}, this is plan {expected}")]
    OtherPlan {
        /// Fingerprint of the plan at hand.
        expected: String,
        /// Fingerprint in the state.
        found: String,
    },
    /// The state points behind the end of its epoch.
    #[error("the saved position is batch {batch_idx} of epoch {epoch}, which has {n_batches}")]
    BehindTheEnd {
        /// Epoch of the state.
        epoch: u64,
        /// Batch of the state.
        batch_idx: usize,
        /// Batches in that epoch.
        n_batches: usize,
    },
    /// The state of a mixture has another number of sources.
    #[error("the saved position has {found} sources, the mixture has {expected}")]
    SourceCount {
        /// Sources of the mixture.
        expected: usize,
        /// Sources of the state.
        found: usize,
    },
    /// Weights must be finite, not negative, and not all zero.
    #[error("mixture weight {weight} of source {source_idx} is not a positive share")]
    BadWeight {
        /// Index of the source.
        source_idx: usize,
        /// Its weight.
        weight: f64,
    },
}
