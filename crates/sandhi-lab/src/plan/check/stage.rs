//! A stage of a recipe: steps, loss, batch and optimizer.

use super::Checker;
use crate::recipe::{ModelConfig, OptimizerConfig, Schedule, StageConfig};

impl Checker<'_> {
    /// Checks a stage and counts its items.
    pub(super) fn stage(&mut self, place: &str, stage: &StageConfig) -> Option<usize> {
        self.need(stage.steps > 0, place, "steps is 0, expected at least 1");
        self.need(
            !stage.trainable.is_empty(),
            place,
            "trainable is empty, expected names or patterns such as \"connector\", or \"*\"",
        );
        self.need(
            (0.0..1.0).contains(&stage.dropout),
            place,
            format_args!("dropout is {}, expected 0 to below 1", stage.dropout),
        );
        let loss = &stage.loss;
        let weights = [
            ("cross_entropy", loss.cross_entropy),
            ("prompt", loss.prompt),
            ("ctc", loss.ctc),
            ("alignment", loss.alignment),
        ];
        for (name, weight) in weights {
            self.need(
                weight.is_finite() && weight >= 0.0,
                &format!("{place}.loss"),
                format_args!("{name} is {weight}, expected a number of at least 0"),
            );
        }
        let (names, learned) = match &self.recipe.model {
            ModelConfig::Ctc(_) => ("ctc and alignment are", loss.ctc + loss.alignment),
            _ => ("cross_entropy is", loss.cross_entropy),
        };
        self.need(
            learned != 0.0,
            &format!("{place}.loss"),
            format_args!("{names} 0, so nothing would be learned"),
        );
        self.batch(place, stage);
        self.optimizer(place, &stage.optimizer, stage.steps);
        self.need(!stage.sources.is_empty(), place, "data is empty, expected at least one source");
        let mut n_items = Some(0);
        for (j, source) in stage.sources.iter().enumerate() {
            let n = self.source(&format!("{place}.data[{j}]"), source, stage);
            n_items = n_items.zip(n).map(|(sum, n): (usize, usize)| sum.saturating_add(n));
        }
        n_items
    }

    fn batch(&mut self, place: &str, stage: &StageConfig) {
        let batch = &stage.batch;
        let place = &format!("{place}.batch");
        self.at_least_one(place, "max_items", batch.max_items);
        self.at_least_one(place, "accumulate", batch.accumulate);
        self.at_least_one(place, "replicas", batch.replicas);
        if batch.replicas > 0 {
            self.need(
                batch.accumulate.is_multiple_of(batch.replicas),
                place,
                format_args!(
                    "accumulate {} is not a multiple of replicas {}, some would have nothing to do",
                    batch.accumulate, batch.replicas
                ),
            );
        }
        self.need(
            batch.max_length.is_finite() && batch.max_length > 0.0,
            place,
            format_args!("max_length is {}, expected a number above 0", batch.max_length),
        );
    }

    fn optimizer(&mut self, place: &str, o: &OptimizerConfig, steps: u64) {
        let place = &format!("{place}.optimizer");
        let positive = |x: f64| x.is_finite() && x > 0.0;
        for (field, value) in [("lr", o.lr), ("eps", o.eps), ("clip", o.clip)] {
            self.need(
                positive(value),
                place,
                format_args!("{field} is {value}, expected a number above 0"),
            );
        }
        for (field, value) in [("beta1", o.beta1), ("beta2", o.beta2)] {
            self.need(
                (0.0..1.0).contains(&value),
                place,
                format_args!("{field} is {value}, expected 0 to below 1"),
            );
        }
        self.need(
            o.weight_decay.is_finite() && o.weight_decay >= 0.0,
            place,
            format_args!("weight_decay is {}, expected a number of at least 0", o.weight_decay),
        );
        self.need(
            o.warmup <= steps,
            place,
            format_args!("warmup {} is longer than the stage's {steps} steps", o.warmup),
        );
        self.need(o.nonfinite_patience > 0, place, "nonfinite_patience is 0, expected at least 1");
        let share = match o.schedule {
            Schedule::Cosine { floor } | Schedule::Linear { floor } => Some(("floor", floor, true)),
            Schedule::Wsd { decay } => Some(("decay", decay, false)),
            Schedule::Constant {} => None,
        };
        if let Some((field, value, zero)) = share {
            let fine = (0.0..=1.0).contains(&value) && (zero || value > 0.0);
            let from = if zero { "from 0" } else { "above 0" };
            self.need(
                fine,
                &format!("{place}.schedule"),
                format_args!("{field} is {value}, expected a share {from} to 1"),
            );
        }
    }
}
