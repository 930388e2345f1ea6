//! Stages that several recipes begin with, trained once.
//!
//! ```text
//! base     adapter ── continue            DIR/ab12…/    what the stages up to here have trained, and their log
//! otreg    adapter ── regularize          named by a hash of all that it depends on
//! ctc      adapter ── with a CTC head
//! ```
//!
//! Two recipes share their first stages when seed, model and those stages are the same, and the weights that they
//! start from. What a later stage adds for itself, as a CTC head, does not part them.

use std::path::PathBuf;

use sandhi_nn::weights::{self, Weights};

use super::{Error, Learner, RunState, is_ever_trained};
use crate::{
    checkpoint::{Checkpoint, CheckpointWriter, Dtype},
    recipe::Recipe,
};

/// Parts that only some stages have, and that no model is saved with.
pub(crate) const OF_A_STAGE: &str = "ctc_head.";

/// Where stages are shared.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    recipe: &'a Recipe,
    dir: PathBuf,
    /// What all stages depend on.
    base: String,
}

impl<'a> Shared<'a> {
    /// Stages of a recipe below `dir`, before anything is trained.
    pub(crate) fn new<L: Learner>(recipe: &'a Recipe, dir: PathBuf, model: &L) -> Self {
        let mut hasher = blake3::Hasher::new();
        weights::for_each(model, |name, tensor| {
            if !name.starts_with(OF_A_STAGE) {
                hasher.update(name.as_bytes());
                hasher.update(bytemuck::cast_slice(&tensor.values));
            }
        });
        let settings = (recipe.seed, &recipe.paths, &recipe.model, env!("CARGO_PKG_VERSION"));
        hasher.update(&serde_json::to_vec(&settings).expect("a recipe serializes"));
        Self { recipe, dir, base: hasher.finalize().to_hex().to_string() }
    }

    /// The folder of the first `n` stages.
    fn folder(&self, n: usize) -> PathBuf {
        let stages = serde_json::to_vec(&self.recipe.stages[..n]).expect("a recipe serializes");
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.base.as_bytes());
        hasher.update(&stages);
        self.dir.join(&hasher.finalize().to_hex()[..16])
    }

    fn trained(&self, n: usize) -> Vec<Vec<String>> {
        self.recipe.stages[..n].iter().map(|stage| stage.trainable.clone()).collect()
    }

    /// The most stages that are there, with the run's state behind them and their metrics.
    ///
    /// # Errors
    ///
    /// When what is there is not whole.
    pub(crate) fn take<L: Learner>(&self, model: L) -> Result<(L, Option<Taken>), Error> {
        let found = (1..self.recipe.stages.len()).rev().find(|&n| self.folder(n).exists());
        let Some(n) = found else { return Ok((model, None)) };
        let dir = self.folder(n);
        let checkpoint = Checkpoint::open(&dir)?;
        let stored = crate::model::from_host(checkpoint.tensors(MODEL)?);
        let trained = self.trained(n);
        let model =
            weights::load_where(model, stored, |info| is_ever_trained(&trained, &info.name))
                .map_err(|mismatch| Error::State(format!("{}: {mismatch}", dir.display())))?;
        let taken = Taken {
            state: checkpoint.json(STATE)?,
            metrics: checkpoint.bytes(METRICS)?,
            names: self.recipe.stages[..n].iter().map(|stage| stage.name.clone()).collect(),
            dir,
        };
        Ok((model, Some(taken)))
    }

    /// Keeps what the first `n` stages have trained, if others may go on from there.
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
        let trained = self.trained(n);
        let kept: Weights = weights::weights(model)
            .into_iter()
            .filter(|(name, _)| is_ever_trained(&trained, name))
            .collect();
        let mut writer = CheckpointWriter::create(&dir)?;
        let none = indexmap::IndexMap::new();
        writer.tensors(MODEL, &crate::model::to_host(kept), Dtype::F32, &none)?;
        writer.json(STATE, state)?;
        writer.bytes(METRICS, metrics)?;
        writer.finish()?;
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
