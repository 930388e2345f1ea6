//! What a run cost: parameters that learned, time of a step, memory.
//!
//! ```text
//! training ── DIR/costs.json ──┐
//! metrics.jsonl ── median step ┴─ results.json ─ table
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{checkpoint, log::read_metrics};

/// What a run cost.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Costs {
    /// Parameters that some stage trained.
    pub trained_parameters: u64,
    /// Seconds of a step of the last stage, the median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_s: Option<f64>,
    /// Bytes that the process held at most while it trained, everything in it counted, what the runs before it in a sweep
    /// left as well; of the last part of a run that was resumed, none where stages were taken from another run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
}

const FILE: &str = "costs.json";

impl Costs {
    /// Puts them into a run directory.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), checkpoint::Error> {
        let text = serde_json::to_vec_pretty(self).expect("numbers serialize");
        checkpoint::write_atomically(&dir.join(FILE), &text)
    }

    /// Those of a run directory with its log; none where nothing was trained or they cannot be read.
    pub fn read(dir: &Path) -> Option<Self> {
        let text = std::fs::read(dir.join(FILE)).ok()?;
        let costs: Self = serde_json::from_slice(&text).ok()?;
        Some(Self { step_s: step_s(&dir.join("metrics.jsonl")), ..costs })
    }
}

/// The median over the steps of the last stage.
fn step_s(metrics: &Path) -> Option<f64> {
    let records = read_metrics(metrics).ok()?;
    let last = &records.last()?.stage;
    let of_stage = records.iter().filter(|record| record.stage == *last);
    median(of_stage.filter_map(|record| record.number("step_s")))
}

/// The middle value, or the mean of the middle two; none of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let odd = !values.len().is_multiple_of(2);
    Some(if odd { upper } else { (values[values.len() / 2 - 1] + upper) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_two_is_between_them() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0]), Some(2.0));
        assert_eq!(median([3.0, 1.0, 9.0]), Some(3.0));
    }

    #[test]
    fn a_step_is_the_median_of_the_last_stage() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Costs::read(dir.path()), None);
        let costs = Costs { trained_parameters: 7, peak_bytes: Some(9), step_s: None };
        costs.write(dir.path()).unwrap();
        assert_eq!(Costs::read(dir.path()), Some(costs));
        let step = |stage: &str, step: u64, s: f64| {
            format!("{{\"stage\":\"{stage}\",\"step\":{step},\"loss\":1.0,\"step_s\":{s}}}\n")
        };
        let log = [step("a", 1, 9.0), step("b", 1, 0.1), step("b", 2, 0.3), step("b", 3, 0.2)];
        std::fs::write(dir.path().join("metrics.jsonl"), log.concat()).unwrap();
        assert_eq!(Costs::read(dir.path()), Some(Costs { step_s: Some(0.2), ..costs }));
    }
}
