//! A mixture of sources: which data set the next step draws from.
//!
//! ```text
//! weights  2 : 1 : 1        phase(step) = start(seed) + step · φ   (mod 1)
//!          |---A---|-B-|-C-|
//! steps    A B A C A B A A C …
//! ```
//!
//! The phase is Weyl's sequence with the golden ratio (its 64-bit fraction), whose points are
//! spread as evenly as any: after `n` steps the count of a source is within a few of
//! `n · weight / total`, where independent draws would be `√n` away. The source of a step depends
//! on the seed and the step's number alone.

use serde::{Deserialize, Serialize};

use super::{Batch, Error, Sampler, SamplerState};
use crate::rng::stream;

/// Several samplers drawn from in proportion to weights.
#[derive(Debug, Clone)]
pub struct Mixture {
    samplers: Vec<Sampler>,
    /// Upper ends of the sources' shares of the 64-bit circle; the last is open.
    ends: Vec<u64>,
    start: u64,
    step: u64,
}

/// Where a mixture stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixtureState {
    /// Steps drawn.
    pub step: u64,
    /// The position in every source.
    pub sources: Vec<SamplerState>,
}

/// One step's batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Index of the source that the batch comes from.
    pub source: usize,
    /// The batch, its indices into that source.
    pub batch: Batch,
    /// The state that continues after this step: what a checkpoint stores once it is used.
    pub after: MixtureState,
}

impl Mixture {
    /// Draws from each sampler in proportion to its weight.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`] without sources and [`Error::BadWeight`] for a weight that is negative,
    /// not finite, or zero like all others.
    pub fn new(sources: Vec<(f64, Sampler)>, seed: u64) -> Result<Self, Error> {
        let total: f64 = sources.iter().map(|(weight, _)| weight).sum();
        let bad = |weight: f64| !weight.is_finite() || weight < 0.0 || total <= 0.0;
        for (source_idx, &(weight, _)) in sources.iter().enumerate() {
            if bad(weight) {
                return Err(Error::BadWeight { source_idx, weight });
            }
        }
        if sources.is_empty() {
            return Err(Error::Empty);
        }
        let mut below = 0.0;
        let mut ends = Vec::with_capacity(sources.len());
        for (weight, _) in &sources {
            below += weight / total;
            // The cast saturates at the end of the circle.
            ends.push((below * 2.0_f64.powi(64)) as u64);
        }
        // Rounding must not leave a gap behind the last source that has a weight.
        if let Some(last) = sources.iter().rposition(|(weight, _)| *weight > 0.0) {
            ends[last..].fill(u64::MAX);
        }
        let samplers = sources.into_iter().map(|(_, sampler)| sampler).collect();
        Ok(Self { samplers, ends, start: stream(seed, "mixture"), step: 0 })
    }

    /// Moves a new mixture of the same sources to where `state` was taken.
    ///
    /// # Errors
    ///
    /// [`Error::SourceCount`], and what [`Sampler::resume`] says of a source.
    pub fn resume(mut self, state: MixtureState) -> Result<Self, Error> {
        let (expected, found) = (self.samplers.len(), state.sources.len());
        if expected != found {
            return Err(Error::SourceCount { expected, found });
        }
        for (sampler, state) in self.samplers.iter_mut().zip(state.sources) {
            *sampler = sampler.at(state)?;
        }
        self.step = state.step;
        Ok(self)
    }

    /// The source that a step draws from.
    pub fn source(&self, step: u64) -> usize {
        let phase = self.start.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        self.ends.partition_point(|&end| end <= phase && end != u64::MAX)
    }

    /// The position before the next step.
    pub fn state(&self) -> MixtureState {
        let sources = self.samplers.iter().map(|sampler| sampler.state().clone()).collect();
        MixtureState { step: self.step, sources }
    }

    /// The sources, in order.
    pub fn samplers(&self) -> &[Sampler] {
        &self.samplers
    }

    /// The next step's batch.
    pub fn next_step(&mut self) -> Step {
        let source = self.source(self.step);
        let batch = self.samplers[source].next_batch();
        self.step += 1;
        Step { source, batch, after: self.state() }
    }
}

impl Iterator for Mixture {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        Some(self.next_step())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::batch::{BucketConfig, BucketPlan};

    fn mixture(weights: &[f64], seed: u64) -> Result<Mixture, Error> {
        let config = BucketConfig { max_cost: 20, max_items: 3, n_buckets: 2 };
        let sources = weights.iter().zip(5_u64..).map(|(&weight, n)| {
            let plan = BucketPlan::new((1..n).collect(), config).unwrap();
            (weight, Sampler::new(Arc::new(plan), seed))
        });
        Mixture::new(sources.collect(), seed)
    }

    #[test]
    fn one_source_is_always_drawn() {
        let mixture = mixture(&[0.3], 4).unwrap();
        assert!((0..1_000).all(|step| mixture.source(step) == 0));
    }

    #[test]
    fn a_weight_of_zero_is_never_drawn() {
        let mixture = mixture(&[0.0, 1.0, 0.0, 0.1, 0.0], 4).unwrap();
        let drawn: std::collections::BTreeSet<_> = (0..1_000).map(|s| mixture.source(s)).collect();
        assert_eq!(drawn, [1, 3].into());
    }

    #[test]
    fn bad_weights_are_refused() {
        for weights in [&[1.0, -1.0][..], &[f64::NAN], &[0.0, 0.0], &[f64::INFINITY, 1.0]] {
            assert!(matches!(mixture(weights, 0).unwrap_err(), Error::BadWeight { .. }));
        }
        assert_eq!(mixture(&[], 0).unwrap_err(), Error::Empty);
    }

    #[test]
    fn a_state_of_other_sources_is_refused() {
        let state = mixture(&[1.0], 0).unwrap().state();
        let error = mixture(&[1.0, 1.0], 0).unwrap().resume(state).unwrap_err();
        assert_eq!(error, Error::SourceCount { expected: 2, found: 1 });
    }

    proptest! {
        #[test]
        fn counts_stay_close_to_the_weights(
            weights in prop::collection::vec(0.01_f64..1.0, 1..6),
            seed: u64,
        ) {
            let mixture = mixture(&weights, seed).unwrap();
            let total: f64 = weights.iter().sum();
            let mut counts = vec![0_u32; weights.len()];
            for step in 0..2_000 {
                counts[mixture.source(step)] += 1;
                for (&count, weight) in counts.iter().zip(&weights) {
                    let expected = (step + 1) as f64 * weight / total;
                    prop_assert!((f64::from(count) - expected).abs() < 5.0);
                }
            }
        }

        #[test]
        fn a_resumed_mixture_gives_the_same_steps(seed: u64, n_used in 0_usize..60) {
            let weights = [0.5, 0.2, 0.3];
            let mut run = mixture(&weights, seed).unwrap();
            let mut state = run.state();
            for step in run.by_ref().take(n_used) {
                state = step.after;
            }
            let state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
            let resumed = mixture(&weights, seed).unwrap().resume(state).unwrap();
            let expected: Vec<_> = run.take(30).collect();
            prop_assert_eq!(resumed.take(30).collect::<Vec<_>>(), expected);
        }
    }
}
