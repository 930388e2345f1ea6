//! Stages that several recipes begin with, trained once.
//!
//! ```text
//! base     adapter ── continue            DIR/ab12…/    what the stages up to here have trained, and their log
//! otreg    adapter ── regularize          named by a hash of all that it depends on
//! ctc      adapter ── with a CTC head
//! ```
//!
//! Two recipes share their first stages when these are the same and seed, model, the weights that they start from, the
//! program, and what is learned from: of manifests and texts what they say, of sound files their names. What a later
//! stage adds for itself, as a CTC head, does not part them.

use std::path::{Path, PathBuf};

use sandhi_nn::weights::{self, Weights};

use super::{Error, Learner, RunState, is_trained};
use crate::{
    checkpoint::{self, Checkpoint, CheckpointWriter, Dtype},
    recipe::Recipe,
};

/// Parts that only some stages have, and that no model is saved with.
pub(crate) const OF_A_STAGE: &str = "ctc_head.";

/// A folder of stages, and what tells the program that fills it from others.
#[derive(Debug, Clone)]
pub struct SharedStages {
    /// The folder.
    pub dir: PathBuf,
    /// Version and commit.
    pub program: String,
}

/// Where the stages of a recipe are shared.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    recipe: &'a Recipe,
    dir: PathBuf,
    /// What all stages depend on.
    base: String,
    /// What each stage learns from.
    sources: &'a [String],
}

impl<'a> Shared<'a> {
    /// Stages of a recipe, before anything is trained; `sources` tells apart what each of them learns from.
    pub(crate) fn new<L: Learner>(
        recipe: &'a Recipe,
        stages: &SharedStages,
        sources: &'a [String],
        model: &L,
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        weights::for_each(model, |name, tensor| {
            if !name.starts_with(OF_A_STAGE) {
                hasher.update(name.as_bytes());
                hasher.update(bytemuck::cast_slice(&tensor.values));
            }
        });
        let device = format!("{:?}", model.devices());
        let settings = (recipe.seed, &recipe.paths, &recipe.model, &stages.program, device);
        hasher.update(&serde_json::to_vec(&settings).expect("a recipe serializes"));
        let base = hasher.finalize().to_hex().to_string();
        Self { recipe, dir: stages.dir.clone(), base, sources }
    }

    /// The folder of the first `n` stages.
    fn folder(&self, n: usize) -> PathBuf {
        let stages = (&self.base, &self.recipe.stages[..n], &self.sources[..n]);
        let hash = blake3::hash(&serde_json::to_vec(&stages).expect("a recipe serializes"));
        self.dir.join(&hash.to_hex()[..16])
    }

    /// Whether the first `n` stages train a parameter.
    fn is_theirs(&self, n: usize, name: &str) -> bool {
        let stages = &self.recipe.stages[..n];
        let has_head = stages.iter().any(|stage| stage.loss.token_ctc > 0.0);
        (has_head || !name.starts_with(OF_A_STAGE))
            && stages.iter().any(|stage| is_trained(&stage.trainable, name))
    }

    /// The most stages that are there, with the run's state behind them and their metrics. What is damaged is told to
    /// `damaged`, removed, and trained again.
    ///
    /// # Errors
    ///
    /// When what is there is of another model, or what is damaged cannot be removed.
    pub(crate) fn take<L: Learner>(
        &self,
        model: L,
        mut damaged: impl FnMut(&str),
    ) -> Result<(L, Option<Taken>), Error> {
        for n in (1..self.recipe.stages.len()).rev() {
            let dir = self.folder(n);
            if !dir.exists() {
                continue;
            }
            let (stored, taken) = match self.read(n, &dir) {
                Ok(found) => found,
                Err(error) => {
                    damaged(&format!("{error}; the stage is trained again"));
                    std::fs::remove_dir_all(&dir)
                        .map_err(|error| Error::State(format!("{}: {error}", dir.display())))?;
                    continue;
                }
            };
            let model = weights::load_where(model, stored, |info| self.is_theirs(n, &info.name))
                .map_err(|mismatch| Error::State(format!("{}: {mismatch}", dir.display())))?;
            return Ok((model, Some(taken)));
        }
        Ok((model, None))
    }

    fn read(&self, n: usize, dir: &Path) -> Result<(Weights, Taken), checkpoint::Error> {
        let checkpoint = Checkpoint::open(dir)?;
        let stored = crate::model::from_host(checkpoint.tensors(MODEL)?);
        let taken = Taken {
            state: checkpoint.json(STATE)?,
            metrics: checkpoint.bytes(METRICS)?,
            names: self.recipe.stages[..n].iter().map(|stage| stage.name.clone()).collect(),
            dir: dir.to_owned(),
        };
        Ok((stored, taken))
    }

    /// Keeps what the first `n` stages have trained, if others may go on from there. Of two runs that keep the same, one
    /// does.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn keep<L: Learner>(
        &self,
        n: usize,
        model: &L,
        state: &RunState,
        metrics: &[u8],
    ) -> Result<(), Error> {
        let dir = self.folder(n);
        if n == self.recipe.stages.len() || dir.exists() {
            return Ok(());
        }
        let own = self.dir.join(format!(".{}", std::process::id()));
        let kept = weights::weights_where(model, |name| self.is_theirs(n, name));
        let mut writer = CheckpointWriter::create(&own)?;
        let none = indexmap::IndexMap::new();
        writer.tensors(MODEL, &crate::model::to_host(kept), Dtype::F32, &none)?;
        writer.json(STATE, state)?;
        writer.bytes(METRICS, metrics)?;
        writer.finish()?;
        if let Err(error) = std::fs::rename(&own, &dir) {
            // Another run was first, which is as good.
            let _ = std::fs::remove_dir_all(&own);
            if !dir.exists() {
                return Err(Error::State(format!("{}: {error}", dir.display())));
            }
        }
        Ok(())
    }
}

/// Stages that were there.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Where the run stands behind them.
    pub state: RunState,
    /// Their `metrics.jsonl`.
    pub metrics: Vec<u8>,
    /// Their names.
    pub names: Vec<String>,
    /// Where they were.
    pub dir: PathBuf,
}

const MODEL: &str = "model.safetensors";
const STATE: &str = "state.json";
const METRICS: &str = "metrics.jsonl";
