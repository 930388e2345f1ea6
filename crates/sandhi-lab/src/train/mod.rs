//! Training: one loop for every model.
//!
//! ```text
//! sources ─ Mixture ─ Prefetch ─ batches ─┐
//!                                         ├─ gradients ─ clip ─ update ─┐
//! model ──────────────────────────────────┘                            └─> model
//! every step: metrics.jsonl, event file     now and then: dev loss, listening gap, checkpoint
//! ```
//!
//! The state of a run is: parameters, optimizer moments, stage and step, the position in every
//! source. Dropout and augmentation are functions of seed, step and item, so nothing random has a
//! state. A run killed at any instant goes on from its last checkpoint with the same losses to the
//! last bit.

pub mod aligner;
pub mod dataset;
mod distill;
pub mod learner;
pub mod optimizer;
pub mod shared;
pub mod speech_text;
pub mod step;
pub(crate) mod transport;
pub mod vocoder;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use sandhi_data::{
    batch::{self, BucketConfig, BucketPlan, Mixture, MixtureState, Prefetch, Sampler},
    rng::stream,
};
use sandhi_nn::{
    pattern,
    transformer::Dropout,
    weights::{self, ParameterInfo, Weights},
};
use serde::{Deserialize, Serialize};

use self::{
    dataset::{Dataset, Draw},
    learner::Learner,
    optimizer::{Optimizer, gradient_norm},
    step::{Losses, gradients, losses, total_size},
};
use crate::{
    checkpoint::{self, Checkpoint, CheckpointWriter, Dtype},
    log::{self, MetricsLog, tensorboard::EventWriter},
    recipe::{Recipe, StageConfig},
};

/// What can go wrong while training.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The metrics cannot be written.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// Batches cannot be made.
    #[error("stage {stage}, data[{source_idx}]: {error}")]
    Batches {
        /// The stage.
        stage: String,
        /// Index of the source.
        source_idx: usize,
        /// Why.
        error: batch::Error,
    },
    /// The mixture cannot be made, or its saved position is of other data.
    #[error("stage {stage}: {error}")]
    Mixture {
        /// The stage.
        stage: String,
        /// Why.
        error: batch::Error,
    },
    /// A loader panicked.
    #[error("stage {stage}: loading a batch failed: {why}")]
    Load {
        /// The stage.
        stage: String,
        /// What it said.
        why: String,
    },
    /// `trainable` names nothing.
    #[error("stage {stage}: trainable {pattern:?} matches no parameter; the model has {modules}")]
    NothingTrained {
        /// The stage.
        stage: String,
        /// The entry.
        pattern: String,
        /// What it could have been.
        modules: String,
    },
    /// Losses stopped being numbers.
    #[error(
        "stage {stage}: {n} steps in a row had a loss or gradient that is not finite; the batches are in {dir}"
    )]
    NonFinite {
        /// The stage.
        stage: String,
        /// How many.
        n: u64,
        /// Where their indices were written.
        dir: PathBuf,
    },
    /// The optimizer's state is not that of the model.
    #[error("{0}")]
    State(String),
}

/// What a training run tells while it runs, and what stops it. The binary draws progress bars and
/// listens for Ctrl-C with this; tests stay silent.
pub trait Monitor {
    /// Seconds from any origin; libraries have no clock.
    fn now_s(&self) -> f64;
    /// Seconds since 1970.
    fn wall_s(&self) -> f64;
    /// A clock for the loader's threads.
    fn clock(&self) -> Box<dyn Fn() -> f64 + Send>;
    /// Whether to save and stop after this step.
    fn stopping(&self) -> bool;
    /// A stage begins at a step.
    fn stage(&mut self, name: &str, first_step: u64, n_steps: u64);
    /// A step is done.
    fn step(&mut self, report: &StepReport);
    /// The dev half was measured.
    fn measured(&mut self, step: u64, measurement: &Measurement);
    /// Something worth a line.
    fn note(&mut self, line: &str);
    /// Bytes that the process held at most since the last call, where that is known.
    fn peak_bytes(&self) -> Option<u64>;
    /// Data are being made ready.
    fn preparing(&self, what: &str, done: usize, total: usize);
}

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Steps done in this stage; not repeated in the line, which has it already.
    #[serde(skip)]
    pub step: u64,
    /// Steps of this stage.
    #[serde(skip)]
    pub n_steps: u64,
    /// Weighted sum of the losses.
    pub loss: f64,
    /// Each of them without its weight, and what is only watched, where there are several.
    #[serde(skip_serializing_if = "is_single")]
    pub terms: BTreeMap<&'static str, f64>,
    /// Learning rate.
    pub lr: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Rows through the model.
    pub tokens: usize,
    /// Items.
    pub items: usize,
    /// Rows a second.
    pub tokens_per_s: f64,
    /// Hours of audio an hour.
    pub audio_h_per_h: f64,
    /// Share of the step's time that was spent waiting for data.
    pub data_wait: f64,
    /// Seconds that the step took.
    pub step_s: f64,
    /// False when a loss or gradient was not finite and the step was skipped.
    pub finite: bool,
    /// Pass over each source.
    pub epochs: Vec<u64>,
}

/// Losses on the dev half.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// Loss with the right audio.
    pub dev_loss: f64,
    /// Each of its parts, where there are several.
    #[serde(skip_serializing_if = "is_single")]
    pub dev_terms: BTreeMap<&'static str, f64>,
    /// Loss with another utterance's audio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev_loss_mismatched: Option<f64>,
    /// The difference, of the answer's cross-entropy alone: 0 when the model ignores the audio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listening_gap: Option<f64>,
}

fn is_single(terms: &BTreeMap<&'static str, f64>) -> bool {
    terms.len() < 2
}

/// Where a run stands; `state.json` of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Index of the stage.
    pub stage: usize,
    /// Its name.
    pub stage_name: String,
    /// Steps done in it.
    pub step: u64,
    /// Steps done in all stages.
    pub global_step: u64,
    /// Updates of the optimizer in this stage.
    pub n_updates: u64,
    /// Position in the sources; none before the first step.
    pub data: Option<MixtureState>,
    /// Steps skipped so far because something was not finite, and how many of them in a row.
    pub nonfinite: (u64, u64),
}

/// A run directory and what all its stages share.
pub struct Run<'a> {
    /// The directory.
    pub dir: &'a Path,
    /// Seed of the recipe.
    pub seed: u64,
    /// Whom to tell.
    pub monitor: &'a mut dyn Monitor,
    /// What each stage trains; checkpoints hold all of it.
    pub kept: Vec<Vec<String>>,
}

/// How a stage ended.
#[derive(Debug)]
pub enum Outcome<L> {
    /// All steps are done.
    Done(L),
    /// The monitor asked to stop; the run is saved.
    Interrupted(L),
}

/// Whether an entry of `trainable` gives or takes away a parameter that can be trained.
pub fn is_covered(entry: &str, name: &str) -> bool {
    !weights::is_fixed(name) && pattern::covers(entry, name)
}

/// Whether a parameter's name is covered by the patterns of `trainable`: see [`pattern`].
pub fn is_trained(patterns: &[String], name: &str) -> bool {
    !weights::is_fixed(name) && pattern::selects(patterns, name)
}

/// The patterns of every stage of a recipe.
pub fn trainable(recipe: &Recipe) -> Vec<Vec<String>> {
    recipe.stages.iter().map(|stage| stage.trainable.clone()).collect()
}

/// Whether some stage trains a parameter.
pub fn is_ever_trained(stages: &[Vec<String>], name: &str) -> bool {
    stages.iter().any(|patterns| is_trained(patterns, name))
}

/// Whether some stage of a connector recipe trains a parameter of the encoder, which is else heard once and
/// cached; `names` are the parameters of the model.
pub fn trains_encoder<'a>(recipe: &Recipe, names: impl IntoIterator<Item = &'a str>) -> bool {
    let stages = trainable(recipe);
    names.into_iter().any(|name| name.starts_with("encoder.") && is_ever_trained(&stages, name))
}

/// Checkpoints that a run keeps.
const N_KEPT: usize = 2;

/// The place of the checkpoints of a run.
pub fn checkpoints(run_dir: &Path) -> PathBuf {
    run_dir.join("checkpoints")
}

/// Opens the newest checkpoint of a run, and removes what a kill left of older ones.
///
/// # Errors
///
/// When it is not whole.
pub fn latest(run_dir: &Path) -> Result<Option<(RunState, Checkpoint)>, Error> {
    let root = checkpoints(run_dir);
    let Some(dir) = checkpoint::latest(&root)? else { return Ok(None) };
    checkpoint::prune(&root, N_KEPT)?;
    let checkpoint = Checkpoint::open(&dir)?;
    Ok(Some((checkpoint.json("state.json")?, checkpoint)))
}

impl Run<'_> {
    fn keeps(&self, info: &ParameterInfo) -> bool {
        is_ever_trained(&self.kept, &info.name)
    }

    /// A text that changes with the structure of the model and with its frozen weights.
    fn fingerprint<L: Learner>(&self, model: &L) -> String {
        let mut hasher = blake3::Hasher::new();
        for info in weights::parameters(model) {
            hasher.update(format!("{}{:?}", info.name, info.shape).as_bytes());
        }
        let frozen: Weights = weights::weights(model)
            .into_iter()
            .filter(|(name, _)| !is_ever_trained(&self.kept, name))
            .collect();
        for (name, tensor) in frozen {
            hasher.update(name.as_bytes());
            hasher.update(bytemuck::cast_slice(&tensor.values));
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    /// Puts a checkpoint's parameters into a model.
    ///
    /// # Errors
    ///
    /// When the checkpoint is of another model.
    pub fn restore<L: Learner>(&self, model: L, checkpoint: &Checkpoint) -> Result<L, Error> {
        checkpoint.expect_fingerprint(&self.fingerprint(&model))?;
        let stored = crate::model::from_host(checkpoint.tensors("model.safetensors")?);
        weights::load_where(model, stored, |info| self.keeps(info))
            .map_err(|mismatch| Error::State(format!("{}: {mismatch}", checkpoint.dir().display())))
    }

    fn save<L: Learner>(
        &self,
        model: &L,
        optimizer: &Optimizer,
        state: &RunState,
        fingerprint: &str,
    ) -> Result<(), Error> {
        let root = checkpoints(self.dir);
        let mut writer = CheckpointWriter::create(&checkpoint::step_dir(&root, state.global_step))?;
        writer.fingerprint(fingerprint);
        let kept: Weights = weights::weights(model)
            .into_iter()
            .filter(|(name, _)| is_ever_trained(&self.kept, name))
            .collect();
        let none = indexmap::IndexMap::new();
        writer.tensors("model.safetensors", &crate::model::to_host(kept), Dtype::F32, &none)?;
        let moments = crate::model::to_host(optimizer.state());
        writer.tensors("optimizer.safetensors", &moments, Dtype::F32, &none)?;
        writer.json("state.json", state)?;
        writer.finish()?;
        checkpoint::prune(&root, N_KEPT)?;
        Ok(())
    }

    /// Trains one stage. `resume` continues in the middle of it.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn stage<L, D>(
        &mut self,
        model: L,
        sources: Vec<(Option<f64>, D)>,
        dev: &[D],
        stage: &StageConfig,
        mut state: RunState,
        resume: Option<&Checkpoint>,
    ) -> Result<Outcome<L>, Error>
    where
        L: Learner,
        D: Dataset<Batch = L::Batch>,
    {
        let mut model = self.freeze(model, stage)?;
        model.begin(stage);
        let device = model.devices().into_iter().next().expect("a model has parameters").inner();
        let mark = self.fingerprint(&model);
        let mut optimizer = match resume {
            None => Optimizer::default(),
            Some(checkpoint) => {
                let moments = crate::model::from_host(checkpoint.tensors("optimizer.safetensors")?);
                Optimizer::resume(moments, state.n_updates, &device).map_err(Error::State)?
            }
        };
        let seed = stream(self.seed, &format!("stage {}", stage.name));
        let (mixture, sources) = mixture(sources, stage, seed, state.data.clone())?;
        let n_batches = stage.steps * stage.batch.accumulate as u64;
        let mut batches = prefetch(mixture, sources, seed, n_batches, self.monitor.clock());

        let metrics_path = self.dir.join("metrics.jsonl");
        let mut metrics = if metrics_path.exists() {
            MetricsLog::resume(&metrics_path, &stage.name, state.step)?
        } else {
            MetricsLog::create(&metrics_path)?
        };
        let mut events = EventWriter::create(
            &self.dir.join("events"),
            self.monitor.wall_s(),
            Some(state.global_step + 1),
        )?;
        let dev_batches: Vec<_> = dev.iter().map(|dev| dev_batches(dev, stage)).collect();
        self.monitor.stage(&stage.name, state.step, stage.steps);
        if state.step == 0 {
            self.measure(&model, &dev_batches, stage, &state, &mut metrics, &mut events)?;
        }

        let mut waited = batches.wait_s();
        while state.step < stage.steps {
            let began = self.monitor.now_s();
            let mut parts = Vec::with_capacity(stage.batch.accumulate);
            let mut drawn = Vec::with_capacity(stage.batch.accumulate);
            for _ in 0..stage.batch.accumulate {
                let (step, batch) = batches
                    .next()
                    .expect("a mixture has no end")
                    .map_err(|e| Error::Load { stage: stage.name.clone(), why: e.to_string() })?;
                parts.push(batch);
                drawn.push(step);
            }
            let key = stream(seed, &format!("dropout {}", state.step));
            let (loss, grads) = gradients(&model, &parts, &stage.loss, stage.batch.replicas, |i| {
                Dropout::new(stage.dropout, stream(key, &format!("batch {i}")))
            });
            let norm = gradient_norm(&model, &grads);
            let finite = loss.total.is_finite() && norm.is_finite();
            let warmup = stage.optimizer.warmup;
            let lr = stage.optimizer.lr
                * stage.optimizer.schedule.factor(state.step, stage.steps, warmup);
            if finite {
                let clip = stage.optimizer.clip;
                let scale = if norm > clip { clip / norm } else { 1.0 };
                model = optimizer.step(model, grads, &stage.optimizer, lr, scale);
                state.nonfinite.1 = 0;
            } else {
                self.keep_nonfinite(stage, &state, &drawn, &loss, norm)?;
                state.nonfinite = (state.nonfinite.0 + 1, state.nonfinite.1 + 1);
            }
            state.step += 1;
            state.global_step += 1;
            state.n_updates = optimizer.n_updates();
            state.data = drawn.pop().map(|step| step.after);

            let took = (self.monitor.now_s() - began).max(1e-9);
            let size = total_size(&parts, &stage.loss);
            let report = StepReport {
                step: state.step,
                n_steps: stage.steps,
                loss: loss.total,
                terms: loss.terms,
                lr,
                grad_norm: norm,
                tokens: size.n_tokens,
                items: size.n_items,
                tokens_per_s: size.n_tokens as f64 / took,
                audio_h_per_h: size.audio_s / took,
                data_wait: (batches.wait_s() - waited) / took,
                step_s: took,
                finite,
                epochs: state
                    .data
                    .as_ref()
                    .map(|data| data.sources.iter().map(|s| s.epoch).collect())
                    .unwrap_or_default(),
            };
            waited = batches.wait_s();
            metrics.append(&stage.name, state.step, &report)?;
            let named: Vec<(String, f32)> = report
                .terms
                .iter()
                .filter(|_| !is_single(&report.terms))
                .map(|(name, &value)| (format!("train/{name}"), value as f32))
                .collect();
            let mut scalars = vec![
                ("train/loss", report.loss as f32),
                ("train/lr", lr as f32),
                ("train/grad_norm", norm as f32),
                ("train/tokens_per_s", report.tokens_per_s as f32),
                ("train/data_wait", report.data_wait as f32),
            ];
            scalars.extend(named.iter().map(|(name, value)| (name.as_str(), *value)));
            events.scalars(state.global_step, self.monitor.wall_s(), &scalars)?;
            self.monitor.step(&report);
            if state.nonfinite.1 >= stage.optimizer.nonfinite_patience {
                return Err(Error::NonFinite {
                    stage: stage.name.clone(),
                    n: state.nonfinite.1,
                    dir: self.dir.join("nonfinite"),
                });
            }

            let last = state.step == stage.steps;
            let due = |every: u64| every > 0 && state.step.is_multiple_of(every);
            if last || due(stage.eval_every) {
                self.measure(&model, &dev_batches, stage, &state, &mut metrics, &mut events)?;
            }
            if !last && (due(stage.checkpoint_every) || self.monitor.stopping()) {
                metrics.sync()?;
                self.save(&model, &optimizer, &state, &mark)?;
                if self.monitor.stopping() {
                    return Ok(Outcome::Interrupted(model));
                }
            }
        }
        // The stage is over: what follows starts with a fresh optimizer and its own data.
        metrics.sync()?;
        let next = RunState {
            stage: state.stage + 1,
            stage_name: String::new(),
            step: 0,
            n_updates: 0,
            data: None,
            ..state
        };
        self.save(&model, &Optimizer::default(), &next, &mark)?;
        Ok(Outcome::Done(model))
    }

    fn freeze<L: Learner>(&mut self, model: L, stage: &StageConfig) -> Result<L, Error> {
        let infos = weights::parameters(&model);
        for pattern in &stage.trainable {
            if !infos.iter().any(|info| is_covered(pattern, &info.name)) {
                let mut modules: Vec<&str> =
                    infos.iter().filter_map(|info| info.name.split('.').next()).collect();
                modules.dedup();
                return Err(Error::NothingTrained {
                    stage: stage.name.clone(),
                    pattern: pattern.clone(),
                    modules: modules.join(", "),
                });
            }
        }
        let trained: usize = infos
            .iter()
            .filter(|info| is_trained(&stage.trainable, &info.name))
            .map(ParameterInfo::n_values)
            .sum();
        let total: usize = infos.iter().map(ParameterInfo::n_values).sum();
        self.monitor.note(&format!(
            "stage {}: {trained} of {total} parameters learn ({:.1} %)",
            stage.name,
            100.0 * trained as f64 / total.max(1) as f64
        ));
        Ok(weights::set_trained(model, |name| is_trained(&stage.trainable, name)))
    }

    fn measure<L: Learner>(
        &mut self,
        model: &L,
        sets: &[Vec<DevBatch<L::Batch>>],
        stage: &StageConfig,
        state: &RunState,
        metrics: &mut MetricsLog,
        events: &mut EventWriter,
    ) -> Result<(), Error> {
        if sets.is_empty() {
            return Ok(());
        }
        let model = model.valid();
        // Data sets have different losses, which add up; what is read is the same whatever is heard beside it.
        let (mut found, mut mismatched, mut hears) = (Losses::default(), Losses::default(), false);
        for batches in sets {
            let of_set = losses(&model, batches.iter().map(|(batch, _)| batch), &stage.loss);
            let others: Option<Vec<&L::Batch>> =
                batches.iter().map(|(_, other)| other.as_ref()).collect();
            let others = others.map(|others| losses(&model, others, &stage.loss));
            hears |= others.is_some();
            let other = others.unwrap_or_else(|| of_set.clone());
            for (sum, part) in [(&mut found, of_set), (&mut mismatched, other)] {
                sum.total += part.total;
                sum.terms.extend(part.terms);
            }
        }
        // What is understood is in the answer; other losses look at the sound itself.
        let answer = |losses: &Losses| losses.terms.get(ANSWER).copied();
        let measurement = Measurement {
            dev_loss: found.total,
            dev_loss_mismatched: hears.then_some(mismatched.total),
            listening_gap: answer(&mismatched)
                .zip(answer(&found))
                .filter(|_| hears)
                .map(|(other, heard)| other - heard),
            dev_terms: found.terms,
        };
        metrics.append(&stage.name, state.step, &measurement)?;
        let mut scalars = vec![("dev/loss", measurement.dev_loss as f32)];
        if let Some(gap) = measurement.listening_gap {
            scalars.push(("dev/listening_gap", gap as f32));
        }
        events.scalars(state.global_step, self.monitor.wall_s(), &scalars)?;
        self.monitor.measured(state.step, &measurement);
        Ok(())
    }

    /// Writes which items a skipped step was made of.
    fn keep_nonfinite(
        &mut self,
        stage: &StageConfig,
        state: &RunState,
        drawn: &[batch::Step],
        loss: &Losses,
        norm: f64,
    ) -> Result<(), Error> {
        let batches: Vec<_> = drawn
            .iter()
            .map(|step| {
                serde_json::json!({
                    "source": step.source,
                    "epoch": step.batch.epoch,
                    "indices": step.batch.indices,
                })
            })
            .collect();
        let what = serde_json::json!({
            "stage": stage.name,
            "step": state.step + 1,
            "loss": format!("{}", loss.total),
            "grad_norm": format!("{norm}"),
            "batches": batches,
        });
        let path =
            self.dir.join("nonfinite").join(format!("{}-{}.json", stage.name, state.step + 1));
        let text = serde_json::to_vec_pretty(&what).expect("a JSON value serializes");
        checkpoint::write_atomically(&path, &text)?;
        self.monitor.note(&format!(
            "step {} skipped: loss {} or gradient norm {norm} is not finite; its items are in {}",
            state.step + 1,
            loss.total,
            path.display()
        ));
        Ok(())
    }
}

/// The answer's cross-entropy among the terms.
const ANSWER: &str = "ce";

/// Items with the right audio, and with another's where something is heard.
type DevBatch<B> = (B, Option<B>);

/// The dev items in batches no larger than those of training, with and without the right audio.
fn dev_batches<D: Dataset>(dev: &D, stage: &StageConfig) -> Vec<DevBatch<D::Batch>> {
    let costs = dev.costs();
    let indices: Vec<usize> = (0..costs.len().min(stage.eval_items)).collect();
    let most = (stage.batch.max_length * 1000.0) as u64;
    let mut batches = Vec::new();
    let mut rest = indices.as_slice();
    while !rest.is_empty() {
        let mut cost = 0_u64;
        let fits = |&&i: &&usize| {
            cost = cost.saturating_add(costs[i]);
            cost <= most
        };
        let n = rest.iter().take(stage.batch.max_items).take_while(fits).count().max(1);
        let (now, later) = rest.split_at(n);
        batches.push((dev.load(now, Draw::FIXED), dev.mismatched(now)));
        rest = later;
    }
    batches
}

type Sources<D> = Arc<Vec<D>>;

fn mixture<D: Dataset>(
    sources: Vec<(Option<f64>, D)>,
    stage: &StageConfig,
    seed: u64,
    position: Option<MixtureState>,
) -> Result<(Mixture, Sources<D>), Error> {
    let config = BucketConfig {
        max_cost: (stage.batch.max_length * 1000.0) as u64,
        max_items: stage.batch.max_items,
        n_buckets: 8,
    };
    let (mut samplers, mut datasets) = (Vec::new(), Vec::new());
    for (source_idx, (weight, dataset)) in sources.into_iter().enumerate() {
        let wrong = |error| Error::Batches { stage: stage.name.clone(), source_idx, error };
        let plan = BucketPlan::new(dataset.costs(), config).map_err(wrong)?;
        let n_batches = plan.epoch(seed, 0).len() as f64;
        let weight = match (weight, dataset.n_tokens()) {
            // Batches of short items, or of items that cost more than their tokens, are drawn more often.
            (Some(share), Some(n_tokens)) => share * n_batches / n_tokens.max(1.0),
            (Some(weight), None) => weight,
            // Without a weight a source counts by its batches, so that all items are seen equally often.
            (None, _) => n_batches,
        };
        let sampler = Sampler::new(Arc::new(plan), stream(seed, &format!("source {source_idx}")));
        samplers.push((weight, sampler));
        datasets.push(dataset);
    }
    let wrong = |error| Error::Mixture { stage: stage.name.clone(), error };
    let mut mixture = Mixture::new(samplers, stream(seed, "mixture")).map_err(wrong)?;
    if let Some(position) = position {
        mixture = mixture.resume(position).map_err(wrong)?;
    }
    Ok((mixture, Arc::new(datasets)))
}

fn prefetch<D: Dataset>(
    mut mixture: Mixture,
    sources: Sources<D>,
    seed: u64,
    n_batches: u64,
    clock: Box<dyn Fn() -> f64 + Send>,
) -> Prefetch<(batch::Step, D::Batch), std::convert::Infallible>
where
    D::Batch: Send + 'static,
{
    let steps = std::iter::from_fn(move || Some(mixture.next_step()));
    Prefetch::new(steps, 1, 4, clock, move |step: batch::Step| {
        let name = format!("augment {} {}", step.source, step.batch.epoch);
        let drawn = step.after.step.saturating_sub(1) as f64;
        let draw =
            Draw { key: stream(seed, &name), progress: Some((drawn / n_batches as f64).min(1.0)) };
        let batch = sources[step.source].load(&step.batch.indices, draw);
        Ok((step, batch))
    })
}
