//! Buckets: items of similar length share a batch, under a budget of total length.
//!
//! ```text
//! lengths   3 9 2 8 4 1 9 2
//! buckets   short: 3 2 4 1 2      long: 9 8 9          equal shares of the total length
//! shuffled  2 4 1 | 3 2 · · 9 | 8 | 9                  budget 17: cut greedily, the rest of a
//!                                                      bucket begins the next bucket's batch
//! ```

use serde::{Deserialize, Serialize};

use super::Error;
use crate::rng::{Stream, mix, stream};

/// How items become batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketConfig {
    /// Total cost that a batch may reach, in the unit of the items' costs (samples, frames,
    /// tokens). Larger is faster per item and takes more memory.
    pub max_cost: u64,
    /// Items that a batch may hold, however short.
    pub max_items: usize,
    /// Buckets of equal total cost. More buckets make lengths within a batch more alike and the
    /// composition of batches less random; 1 ignores lengths.
    pub n_buckets: usize,
}

/// The lengths of a data set and the buckets they fall in.
#[derive(Debug, Clone)]
pub struct BucketPlan {
    config: BucketConfig,
    costs: Vec<u64>,
    buckets: Vec<u32>,
}

impl BucketPlan {
    /// Sorts items into buckets by their cost.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`], [`Error::NothingFits`], and [`Error::ItemTooLong`] for the first item
    /// that no batch can hold.
    pub fn new(costs: Vec<u64>, config: BucketConfig) -> Result<Self, Error> {
        if costs.is_empty() {
            return Err(Error::Empty);
        }
        if config.max_cost == 0 || config.max_items == 0 || config.n_buckets == 0 {
            return Err(Error::NothingFits);
        }
        let max_cost = config.max_cost;
        if let Some((item, &cost)) = costs.iter().enumerate().find(|(_, cost)| **cost > max_cost) {
            return Err(Error::ItemTooLong { item, cost, max_cost });
        }

        let mut by_cost: Vec<usize> = (0..costs.len()).collect();
        by_cost.sort_by_key(|&item| costs[item]);
        let total: u128 = costs.iter().map(|&cost| u128::from(cost)).sum();
        let mut buckets = vec![0; costs.len()];
        let mut below = 0_u128;
        for item in by_cost {
            let bucket = below * config.n_buckets as u128 / total.max(1);
            buckets[item] = bucket.min(config.n_buckets as u128 - 1) as u32;
            below += u128::from(costs[item]);
        }
        Ok(Self { config, costs, buckets })
    }

    /// Number of items.
    pub fn n_items(&self) -> usize {
        self.costs.len()
    }

    /// The cost of every item.
    pub fn costs(&self) -> &[u64] {
        &self.costs
    }

    /// The cost of some items together.
    pub fn cost(&self, indices: &[usize]) -> u64 {
        indices.iter().map(|&item| self.costs[item]).sum()
    }

    /// All batches of an epoch, every item exactly once, the order random by seed and epoch.
    pub fn epoch(&self, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
        let mut random = Stream::named(stream(seed, "batches"), &format!("epoch {epoch}"));
        let mut order: Vec<usize> = (0..self.costs.len()).collect();
        random.shuffle(&mut order);
        order.sort_by_key(|&item| self.buckets[item]);
        let mut batches = self.cut(order);
        random.shuffle(&mut batches);
        batches
    }

    /// All batches for evaluation: longest items first, so that running out of memory shows in
    /// the first batch.
    pub fn longest_first(&self) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.costs.len()).collect();
        order.sort_by_key(|&item| std::cmp::Reverse(self.costs[item]));
        self.cut(order)
    }

    /// Splits a global batch over replicas so that their costs are close to equal: the longest
    /// item goes to the replica that has least so far. Parts keep the order of the batch; with
    /// fewer items than replicas, some parts are empty.
    ///
    /// # Panics
    ///
    /// When `n_parts` is 0 or an index is outside the plan.
    pub fn split(&self, indices: &[usize], n_parts: usize) -> Vec<Vec<usize>> {
        assert!(n_parts > 0, "a batch cannot be split over no replica");
        let mut positions: Vec<usize> = (0..indices.len()).collect();
        positions.sort_by_key(|&position| std::cmp::Reverse(self.costs[indices[position]]));
        let mut parts = vec![Vec::new(); n_parts];
        let mut loads = vec![(0_u64, 0_usize); n_parts];
        for position in positions {
            let least = (0..n_parts).min_by_key(|&part| loads[part]).expect("n_parts is not 0");
            loads[least].0 += self.costs[indices[position]];
            loads[least].1 += 1;
            parts[least].push(position);
        }
        for part in &mut parts {
            part.sort_unstable();
            part.iter_mut().for_each(|position| *position = indices[*position]);
        }
        parts
    }

    /// Sixteen hexadecimal digits that change with the lengths, the configuration and the seed.
    pub fn fingerprint(&self, seed: u64) -> String {
        let BucketConfig { max_cost, max_items, n_buckets } = self.config;
        let head = [seed, max_cost, max_items as u64, n_buckets as u64];
        let hash = head.iter().chain(&self.costs).fold(0, |hash, &value| mix(hash ^ mix(value)));
        format!("{hash:016x}")
    }

    fn cut(&self, order: Vec<usize>) -> Vec<Vec<usize>> {
        let mut batches = Vec::new();
        let mut batch = Vec::new();
        let mut cost = 0_u64;
        for item in order {
            let full = batch.len() == self.config.max_items
                || cost.saturating_add(self.costs[item]) > self.config.max_cost;
            if full {
                batches.push(std::mem::take(&mut batch));
                cost = 0;
            }
            batch.push(item);
            cost += self.costs[item];
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(costs: &[u64], max_cost: u64, max_items: usize, n_buckets: usize) -> BucketPlan {
        BucketPlan::new(costs.to_vec(), BucketConfig { max_cost, max_items, n_buckets }).unwrap()
    }

    #[test]
    fn buckets_have_equal_shares_of_the_length() {
        // Sorted 1 2 2 3 | 4 4: 8 of 16 lie below the first 4.
        assert_eq!(plan(&[4, 1, 2, 4, 3, 2], 8, 8, 2).buckets, [1, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn longest_items_come_first_in_evaluation() {
        assert_eq!(plan(&[1, 5, 3, 2], 5, 2, 1).longest_first(), [vec![1], vec![2, 3], vec![0]]);
    }

    #[test]
    fn parts_are_balanced() {
        // 9 | 5 4 | then 1 joins the part that came first among equals.
        assert_eq!(plan(&[5, 9, 4, 1], 20, 9, 1).split(&[0, 1, 2, 3], 2), [vec![1, 3], vec![0, 2]]);
        assert_eq!(plan(&[5], 20, 9, 1).split(&[0], 3), [vec![0], vec![], vec![]]);
        // Items that cost nothing are dealt out evenly.
        assert_eq!(plan(&[0, 0], 20, 9, 1).split(&[0, 1], 2), [vec![0], vec![1]]);
    }

    #[test]
    fn impossible_plans_are_refused() {
        let config = BucketConfig { max_cost: 4, max_items: 2, n_buckets: 2 };
        assert_eq!(BucketPlan::new(vec![], config).unwrap_err(), Error::Empty);
        let error = BucketPlan::new(vec![4, 5], config).unwrap_err();
        assert_eq!(error, Error::ItemTooLong { item: 1, cost: 5, max_cost: 4 });
        let empty = BucketConfig { max_items: 0, ..config };
        assert_eq!(BucketPlan::new(vec![1], empty).unwrap_err(), Error::NothingFits);
    }

    #[test]
    fn epochs_differ_and_repeat_by_seed() {
        let costs: Vec<u64> = (1..40).collect();
        let plan = plan(&costs, 60, 8, 4);
        assert_eq!(plan.epoch(1, 0), plan.epoch(1, 0));
        assert_ne!(plan.epoch(1, 0), plan.epoch(1, 1));
        assert_ne!(plan.epoch(1, 0), plan.epoch(2, 0));
    }

    proptest! {
        #[test]
        fn an_epoch_holds_every_item_once_within_budget(
            costs in prop::collection::vec(0_u64..=50, 1..200),
            max_items in 1_usize..10,
            n_buckets in 1_usize..8,
            seed: u64,
            epoch in 0_u64..100,
            n_parts in 1_usize..5,
        ) {
            let plan = plan(&costs, 50, max_items, n_buckets);
            let batches = plan.epoch(seed, epoch);
            for batch in &batches {
                prop_assert!(!batch.is_empty() && batch.len() <= max_items);
                prop_assert!(plan.cost(batch) <= 50);
                let parts = plan.split(batch, n_parts);
                prop_assert_eq!(parts.len(), n_parts);
                let mut joined = parts.concat();
                let mut sorted = batch.clone();
                joined.sort_unstable();
                sorted.sort_unstable();
                prop_assert_eq!(joined, sorted);
            }
            let mut items = batches.concat();
            items.sort_unstable();
            prop_assert_eq!(items, (0..costs.len()).collect::<Vec<_>>());
        }
    }
}
