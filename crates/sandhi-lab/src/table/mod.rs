//! Runs side by side: mean and standard deviation over seeds, paired intervals to a baseline.
//!
//! ```text
//! runs/slm-1  runs/slm-2  runs/slm-3          one row: recipe `slm`, 3 seeds
//!   results.json                              value of every (task, domain, metric)  → mean ± sd
//!   predictions/asr.base.jsonl                counts of every utterance
//!         │
//!         └─ same seed, same utterances of the baseline's run → difference
//!            resampled within every seed, averaged over seeds → its 95 % interval
//! ```
//!
//! The standard deviation says how much training varies, the interval of the difference how much
//! the choice of test utterances does; a claim needs both. A difference is only given where the
//! predictions reproduce the numbers in `results.json`.

mod markdown;
mod runs;
mod statistics;

use std::path::PathBuf;

use indexmap::IndexSet;
use sandhi_data::{microworld::Level, score::Bootstrap};
use serde::{Deserialize, Serialize};

use crate::costs::Costs;
use crate::protocol::{Protocol, Unsupported};
use crate::results::{self, CASCADE, Prediction, RECOVERED, TEXT};
use runs::{Group, Run};
use statistics::Statistics;

pub use runs::find_runs;

/// What can go wrong when runs are compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of a run cannot be read.
    #[error(transparent)]
    Results(#[from] results::Error),
    /// A directory cannot be listed.
    #[error("cannot list {}: {source}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is nothing to compare.
    #[error("no results.json under {}", path.display())]
    NoRuns {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Two runs claim to be the same one.
    #[error("{} and {} are both recipe {recipe:?} with seed {seed}", first.display(), second.display())]
    Duplicate {
        /// The recipe of both.
        recipe: String,
        /// The seed of both.
        seed: u64,
        /// One run.
        first: PathBuf,
        /// The other run.
        second: PathBuf,
    },
    /// The baseline is not among the rows.
    #[error("no row is called {baseline:?} (there are {})", rows.join(", "))]
    NoBaseline {
        /// What was asked for.
        baseline: String,
        /// The recipes that there are.
        rows: Vec<String>,
    },
}

/// How runs are compared.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableConfig {
    /// The recipe that all others are compared with; without one there are no differences.
    pub baseline: Option<String>,
    /// How intervals are made.
    pub bootstrap: Bootstrap,
}

/// Recipes over seeds, as the rows of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// The recipe that the differences are to.
    pub baseline: Option<String>,
    /// One row a recipe: the baseline first, the others in the order of their names.
    pub rows: Vec<Row>,
    /// What a reader must know: seeds or predictions that are missing, numbers that disagree.
    pub warnings: Vec<String>,
}

/// The runs of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The recipe.
    pub recipe: String,
    /// Whether it used knowledge that a real system would not have.
    pub oracle: bool,
    /// Tasks whose speech form was trained.
    pub trained_tasks: Vec<String>,
    /// The seeds of its runs, ascending.
    pub seeds: Vec<u64>,
    /// What its runs cost, those that say it.
    #[serde(default)]
    pub costs: Vec<Costs>,
    /// Its numbers, in the order of the first run's `results.json`.
    pub cells: Vec<Cell>,
}

/// A number of a recipe over its seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The task.
    pub task: String,
    /// The domain.
    pub domain: String,
    /// The metric, with its suffix.
    pub metric: String,
    /// Mean over the seeds that have the number.
    pub mean: f64,
    /// Standard deviation over them (n − 1); `None` for a single one.
    pub sd: Option<f64>,
    /// The number of every seed that has it, in the order of [`Row::seeds`].
    pub values: Vec<f64>,
    /// This row minus the baseline, for the answers from speech; `None` for the baseline and where
    /// it cannot be had.
    pub difference: Option<Difference>,
    /// How choices by likelihood were made, in the first seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Why there is no number, where that is no accident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<Unsupported>,
}

/// A paired difference to the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Mean over the seeds that both rows have.
    pub value: f64,
    /// Lower end of the interval.
    pub lo: f64,
    /// Upper end of the interval.
    pub hi: f64,
    /// How many seeds were paired.
    pub n_seeds: usize,
    /// How many utterances were paired, over all seeds.
    pub n_utterances: usize,
}

impl Difference {
    /// Whether the interval excludes zero.
    pub fn is_beyond_chance(&self) -> bool {
        self.lo > 0.0 || self.hi < 0.0
    }
}

impl Row {
    /// The cell of a task, domain and metric.
    pub fn cell(&self, task: &str, domain: &str, metric: &str) -> Option<&Cell> {
        self.cells.iter().find(|c| c.task == task && c.domain == domain && c.metric == metric)
    }
}

impl Table {
    /// The table as Markdown: one table a task and metric, recipes down, domains across.
    pub fn to_markdown(&self) -> String {
        markdown::render(self)
    }
}

/// Compares the runs in `dirs` (each with a `results.json`; see [`find_runs`]).
///
/// # Errors
///
/// [`Error::Results`] for a file that cannot be read, [`Error::Duplicate`], [`Error::NoBaseline`].
pub fn table(dirs: &[PathBuf], config: &TableConfig) -> Result<Table, Error> {
    let groups = runs::group(runs::load(dirs)?, config.baseline.as_deref())?;
    let mut warnings = Vec::new();
    let baseline = groups.first().filter(|group| Some(&group.recipe) == config.baseline.as_ref());
    let mut cells: Vec<Vec<Cell>> = groups.iter().map(Group::cells).collect();
    if let Some(baseline) = baseline {
        let baseline_cells = cells[0].clone();
        for (task, domain) in places(&cells) {
            let there = Predicted::read(baseline, &task, &domain)?;
            for (group, cells) in groups.iter().zip(&mut cells).skip(1) {
                let here = Predicted::read(group, &task, &domain)?;
                let same = |cell: &&mut Cell| cell.task == task && cell.domain == domain;
                for cell in cells.iter_mut().filter(same) {
                    if let Some(other) = other_protocol(&baseline_cells, cell) {
                        warnings.push(other);
                        continue;
                    }
                    if let Some(why) = not_telling(&baseline_cells, cell) {
                        warnings.push(why);
                        continue;
                    }
                    cell.difference = difference(&here, &there, cell, config, &mut warnings);
                }
            }
        }
    }
    let rows: Vec<Row> = groups.iter().zip(cells).map(|(group, cells)| group.row(cells)).collect();
    let most = rows.iter().map(|row| row.seeds.len()).max().unwrap_or_default();
    for row in rows.iter().filter(|row| row.seeds.len() < most) {
        let n = row.seeds.len();
        warnings.push(format!("{} has {n} of the {most} seeds that other rows have", row.recipe));
    }
    warnings.sort();
    warnings.dedup();
    Ok(Table { baseline: config.baseline.clone(), rows, warnings })
}

/// Levels of difficulty are compared where the baseline stands between these accuracies: below it
/// hardly does the task, above it has no room.
const TELLING: std::ops::RangeInclusive<f64> = 0.60..=0.95;

/// Whether a number is of the answers from speech, not of another way of reading.
fn is_from_speech(metric: &str) -> bool {
    ![TEXT, CASCADE, RECOVERED].iter().any(|suffix| metric.ends_with(suffix))
}

/// Why the difference of a level of stories would say nothing; `None` where it does, and of other numbers.
fn not_telling(baseline: &[Cell], cell: &Cell) -> Option<String> {
    let name = cell.metric.strip_prefix("accuracy_")?;
    if Level::ALL.iter().all(|level| level.name() != name) {
        return None;
    }
    let same = |other: &&Cell| {
        (&other.task, &other.domain, &other.metric) == (&cell.task, &cell.domain, &cell.metric)
    };
    let mean = baseline.iter().find(same)?.mean;
    (mean.is_finite() && !TELLING.contains(&mean)).then(|| {
        format!(
            "{}.{} {}: the baseline stands at {:.1} %, outside 60 to 95 %; not compared",
            cell.task,
            cell.domain,
            cell.metric,
            100.0 * mean
        )
    })
}

/// What is wrong where a number was measured by another protocol than the baseline's.
fn other_protocol(baseline: &[Cell], cell: &Cell) -> Option<String> {
    let same = |other: &&Cell| {
        (&other.task, &other.domain, &other.metric) == (&cell.task, &cell.domain, &cell.metric)
    };
    let (there, here) = (baseline.iter().find(same)?.protocol?, cell.protocol?);
    (there != here).then(|| {
        let Cell { task, domain, metric, .. } = cell;
        format!(
            "{task}.{domain} {metric}: measured as {here}, the baseline as {there}; not compared"
        )
    })
}

/// Every (task, domain) that some row has.
fn places(rows: &[Vec<Cell>]) -> IndexSet<(String, String)> {
    rows.iter().flatten().map(|cell| (cell.task.clone(), cell.domain.clone())).collect()
}

/// The predictions of a group's runs on one task and domain.
struct Predicted<'a> {
    runs: Vec<(&'a Run, Option<Vec<Prediction>>)>,
}

impl<'a> Predicted<'a> {
    fn read(group: &'a Group, task: &str, domain: &str) -> Result<Self, Error> {
        let read = |run: &'a Run| Ok((run, run.predictions(task, domain)?));
        Ok(Self { runs: group.runs.iter().map(read).collect::<Result<_, Error>>()? })
    }

    /// The statistics of a number in the run of a seed, if its predictions give that number; if they
    /// give another, `warnings` says so.
    fn statistics(&self, seed: u64, cell: &Cell, warnings: &mut Vec<String>) -> Option<Statistics> {
        let (run, predictions) = self.runs.iter().find(|(run, _)| run.seed() == seed)?;
        let number = run.results.get(&cell.task, &cell.domain, &cell.metric)?;
        if !number.value.is_finite() {
            return None;
        }
        match Statistics::of(predictions.as_ref()?, &cell.metric, number.value) {
            Ok(statistics) => Some(statistics),
            Err(None) => None,
            Err(Some(other)) => {
                warnings.push(format!(
                    "{}: predictions of {}.{} give {} {other:.6}, results.json says {:.6}; no \
                     difference",
                    run.dir.display(),
                    cell.task,
                    cell.domain,
                    cell.metric,
                    number.value
                ));
                None
            }
        }
    }
}

/// The paired difference of one number of the answers from speech; `None` where it cannot be had.
fn difference(
    here: &Predicted,
    there: &Predicted,
    cell: &Cell,
    config: &TableConfig,
    warnings: &mut Vec<String>,
) -> Option<Difference> {
    if !is_from_speech(&cell.metric) {
        return None;
    }
    let mut pairs: Vec<(Statistics, Statistics)> = Vec::new();
    for (run, _) in &here.runs {
        let Some(mine) = here.statistics(run.seed(), cell, warnings) else { continue };
        let Some(theirs) = there.statistics(run.seed(), cell, warnings) else { continue };
        let n_mine = mine.len();
        let (mine, theirs) = mine.paired_with(theirs);
        if mine.len() < n_mine {
            warnings.push(format!(
                "{}: {} utterances of {}.{} are not among the baseline's predictions",
                run.dir.display(),
                n_mine - mine.len(),
                cell.task,
                cell.domain
            ));
        }
        if mine.len() > 0 {
            pairs.push((mine, theirs));
        }
    }
    let interval = Statistics::difference(&pairs, &config.bootstrap)?;
    // Where what is shared holds nothing that counts, there is nothing to compare.
    if !interval.value.is_finite() {
        return None;
    }
    Some(Difference {
        value: interval.value,
        lo: interval.lo,
        hi: interval.hi,
        n_seeds: pairs.len(),
        n_utterances: interval.n,
    })
}

#[cfg(test)]
mod tests;
