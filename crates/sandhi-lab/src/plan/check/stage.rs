//! A stage of a recipe: steps, loss, batch and optimizer.

use super::Checker;
use crate::{
    recipe::{Measure, ModelConfig, OptimizerConfig, Schedule, StageConfig},
    train::is_trained,
};

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
            ("text", loss.text),
            ("ctc", loss.ctc),
            ("alignment", loss.alignment),
            ("token_ctc", loss.token_ctc),
            ("next_token", loss.next_token),
            ("prior", loss.prior),
            ("binarization", loss.binarization),
            ("mel", loss.mel),
            ("spectra", loss.spectra),
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
            ModelConfig::Text(_) | ModelConfig::SpeechText(_) => {
                ("cross_entropy is", loss.cross_entropy)
            }
            // The forward sum always is.
            ModelConfig::Aligner(_) => ("all weights are", 1.0),
            ModelConfig::Vocoder(_) => ("mel and spectra are", loss.mel + loss.spectra),
            ModelConfig::Connector(config) => {
                self.need(
                    !loss.wants_pairs() || config.connector.is_per_token(),
                    &format!("{place}.loss"),
                    "embedding and next_token compare vectors to tokens one by one, which are not as many with this \
                     connector",
                );
                let transport = loss.transport.as_ref().map_or(0.0, |config| config.weight);
                let embedding = loss.embedding.as_ref().map_or(0.0, |config| config.weight);
                let distillation =
                    loss.distillation.as_ref().map_or(0.0, |config| config.weight + config.hidden);
                let penalties = config.connector.penalties();
                let own = loss.cross_entropy
                    + loss.token_ctc
                    + loss.next_token
                    + penalties.iter().map(|penalty| penalty.weight).sum::<f64>();
                // What is below 0 is wrong in another way.
                let sum = [own, transport, embedding, distillation].map(f64::abs).iter().sum();
                ("all weights are", sum)
            }
        };
        self.need(
            learned != 0.0,
            &format!("{place}.loss"),
            format_args!("{names} 0, so nothing would be learned"),
        );
        self.speech_losses(place, stage);
        self.aligner_stage(place, stage);
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

    /// What only connectors have: transport, CTC over their vectors, compression.
    fn speech_losses(&mut self, place: &str, stage: &StageConfig) {
        let loss = &stage.loss;
        let is_connector = matches!(self.recipe.model, ModelConfig::Connector(_));
        let given = [
            ("loss.transport", loss.transport.is_some()),
            ("loss.token_ctc", loss.token_ctc > 0.0),
            ("loss.next_token", loss.next_token > 0.0),
            ("loss.embedding", loss.embedding.is_some()),
            ("loss.distillation", loss.distillation.is_some()),
            ("compression", stage.compression.is_some()),
        ];
        for (field, _) in given.into_iter().filter(|(_, is_given)| *is_given && !is_connector) {
            let what = "is for connector models, which have vectors of speech";
            self.problem(&format!("{place}.{field}"), what);
        }
        for problem in stage.compression.iter().flat_map(|compression| compression.problems()) {
            self.problem(&format!("{place}.compression"), problem);
        }
        for problem in loss.embedding.iter().flat_map(|config| config.problems()) {
            self.problem(&format!("{place}.loss.embedding"), problem);
        }
        for problem in loss.distillation.iter().flat_map(|config| config.problems()) {
            self.problem(&format!("{place}.loss.distillation"), problem);
        }
        for problem in loss.transport.iter().flat_map(|config| config.problems()) {
            self.problem(&format!("{place}.loss.transport"), problem);
        }
        self.need(
            loss.token_ctc == 0.0
                || !is_connector
                || is_trained(&stage.trainable, "ctc_head.weight"),
            &format!("{place}.trainable"),
            "has no \"ctc_head\", which token_ctc needs: it would score with random weights",
        );
    }

    /// What only aligners and vocoders have, and what they have not.
    fn aligner_stage(&mut self, place: &str, stage: &StageConfig) {
        let is_aligner = matches!(self.recipe.model, ModelConfig::Aligner(_));
        let is_vocoder = matches!(self.recipe.model, ModelConfig::Vocoder(_));
        let has_none = is_aligner || is_vocoder;
        for (field, weight) in [("mel", stage.loss.mel), ("spectra", stage.loss.spectra)] {
            let what = "is for vocoders, which make sound";
            self.need(weight == 1.0 || is_vocoder, &format!("{place}.loss.{field}"), what);
        }
        let (prior, binarization) = (stage.loss.prior, stage.loss.binarization);
        for (field, weight) in [("prior", prior), ("binarization", binarization)] {
            let what = "is for aligner models, which have a soft alignment";
            self.need(weight == 0.0 || is_aligner, &format!("{place}.loss.{field}"), what);
        }
        let others = [
            ("spec_augment", stage.spec_augment.is_some()),
            ("gradient_checkpointing", stage.gradient_checkpointing),
        ];
        for (field, is_given) in others {
            let what = "is for models with an encoder that learns; leave it out";
            self.need(!is_given || !has_none, &format!("{place}.{field}"), what);
        }
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
        let is_speech_text = matches!(self.recipe.model, ModelConfig::SpeechText(_));
        self.need(
            batch.measure == Measure::Tokens || is_speech_text,
            place,
            "measure is for models over text and units",
        );
        // Shares of tokens and shares of batches do not mix.
        let n_weighed = stage.sources.iter().filter(|source| source.weight().is_some()).count();
        self.need(
            !is_speech_text || n_weighed == 0 || n_weighed == stage.sources.len(),
            place,
            "some sources have a weight and some have none",
        );
        if let ModelConfig::Vocoder(config) = &self.recipe.model {
            self.need(
                batch.max_length >= config.crop_s,
                place,
                format_args!("max_length is {} s, a crop has {}", batch.max_length, config.crop_s),
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
