//! An endless stream of batches over epochs, resumable from two numbers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BucketPlan, Error};

/// Where a sampler stands: before batch `batch_idx` of `epoch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerState {
    /// Passes over the data that are complete.
    pub epoch: u64,
    /// Batches of this epoch that are used.
    pub batch_idx: usize,
    /// Fingerprint of plan and seed, so that a changed data set is noticed.
    pub plan: String,
}

/// Items that are processed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Indices into the data set.
    pub indices: Vec<usize>,
    /// The epoch that the batch belongs to.
    pub epoch: u64,
    /// The state that continues after this batch: what a checkpoint stores once it is used.
    pub after: SamplerState,
}

/// Draws the batches of a plan, epoch after epoch, without end.
#[derive(Debug, Clone)]
pub struct Sampler {
    plan: Arc<BucketPlan>,
    seed: u64,
    state: SamplerState,
    batches: Vec<Vec<usize>>,
}

impl Sampler {
    /// Starts at the first batch of epoch 0.
    pub fn new(plan: Arc<BucketPlan>, seed: u64) -> Self {
        let state = SamplerState { epoch: 0, batch_idx: 0, plan: plan.fingerprint(seed) };
        let batches = plan.epoch(seed, 0);
        Self { plan, seed, state, batches }
    }

    /// Continues where `state` was taken; touches no batch before it.
    ///
    /// # Errors
    ///
    /// [`Error::OtherPlan`] when lengths, configuration or seed differ, and
    /// [`Error::BehindTheEnd`] for a state that was not taken from this plan.
    pub fn resume(plan: Arc<BucketPlan>, seed: u64, state: SamplerState) -> Result<Self, Error> {
        let expected = plan.fingerprint(seed);
        if state.plan != expected {
            return Err(Error::OtherPlan { expected, found: state.plan });
        }
        let batches = plan.epoch(seed, state.epoch);
        let SamplerState { epoch, batch_idx, .. } = state;
        if batch_idx >= batches.len() {
            return Err(Error::BehindTheEnd { epoch, batch_idx, n_batches: batches.len() });
        }
        Ok(Self { plan, seed, state, batches })
    }

    /// The same sampler where `state` was taken.
    pub(super) fn at(&self, state: SamplerState) -> Result<Self, Error> {
        Self::resume(self.plan.clone(), self.seed, state)
    }

    /// The position before the next batch.
    pub fn state(&self) -> &SamplerState {
        &self.state
    }

    /// The plan that is drawn from.
    pub fn plan(&self) -> &BucketPlan {
        &self.plan
    }

    /// Batches in the current epoch.
    pub fn n_batches(&self) -> usize {
        self.batches.len()
    }

    /// The next batch; after the last of an epoch comes the first of the next.
    pub fn next_batch(&mut self) -> Batch {
        let epoch = self.state.epoch;
        let indices = std::mem::take(&mut self.batches[self.state.batch_idx]);
        self.state.batch_idx += 1;
        if self.state.batch_idx == self.batches.len() {
            self.state.epoch += 1;
            self.state.batch_idx = 0;
            self.batches = self.plan.epoch(self.seed, self.state.epoch);
        }
        Batch { indices, epoch, after: self.state.clone() }
    }
}

impl Iterator for Sampler {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        Some(self.next_batch())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::BucketConfig;

    fn plan(costs: Vec<u64>) -> Arc<BucketPlan> {
        let config = BucketConfig { max_cost: 30, max_items: 4, n_buckets: 3 };
        Arc::new(BucketPlan::new(costs, config).unwrap())
    }

    #[test]
    fn the_epoch_turns_over() {
        let sampler = Sampler::new(plan(vec![30, 30]), 1);
        let seen: Vec<_> =
            sampler.take(3).map(|b| (b.epoch, b.after.epoch, b.after.batch_idx)).collect();
        assert_eq!(seen, [(0, 0, 1), (0, 1, 0), (1, 1, 1)]);
    }

    #[test]
    fn foreign_states_are_refused() {
        let first = plan(vec![3, 4, 5]);
        let state = Sampler::new(first.clone(), 1).state().clone();
        assert!(Sampler::resume(first.clone(), 1, state.clone()).is_ok());
        for (plan, seed) in [(plan(vec![3, 4, 6]), 1), (first.clone(), 2)] {
            let error = Sampler::resume(plan, seed, state.clone()).unwrap_err();
            assert!(matches!(error, Error::OtherPlan { .. }));
        }
        let late = SamplerState { batch_idx: 9, ..state };
        let error = Sampler::resume(first, 1, late).unwrap_err();
        assert_eq!(error, Error::BehindTheEnd { epoch: 0, batch_idx: 9, n_batches: 1 });
    }

    proptest! {
        #[test]
        fn a_resumed_sampler_gives_the_same_batches(
            costs in prop::collection::vec(0_u64..=30, 1..60),
            seed: u64,
            n_used in 0_usize..80,
        ) {
            let plan = plan(costs);
            let mut sampler = Sampler::new(plan.clone(), seed);
            let mut state = sampler.state().clone();
            for batch in sampler.by_ref().take(n_used) {
                state = batch.after;
            }
            let written = serde_json::to_string(&state).unwrap();
            let state = serde_json::from_str(&written).unwrap();
            let resumed = Sampler::resume(plan, seed, state).unwrap();
            let expected: Vec<_> = sampler.take(40).collect();
            prop_assert_eq!(resumed.take(40).collect::<Vec<_>>(), expected);
        }
    }
}
