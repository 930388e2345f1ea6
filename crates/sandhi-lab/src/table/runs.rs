//! Run directories: found, read and grouped by recipe.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Cell, Error, Row};
use crate::results::{Prediction, Results, predictions_path, read_predictions};

/// How deep runs may lie under the folder that is searched.
const MAX_DEPTH: usize = 4;

/// The directories at or under `root` that hold a `results.json`, in the order of their paths.
///
/// # Errors
///
/// [`Error::List`] for a directory that cannot be listed, [`Error::NoRuns`].
pub fn find_runs(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    search(root, MAX_DEPTH, &mut found)?;
    if found.is_empty() {
        return Err(Error::NoRuns { path: root.to_owned() });
    }
    found.sort();
    Ok(found)
}

fn search(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    if dir.join("results.json").is_file() {
        found.push(dir.to_owned());
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    let list = |source| Error::List { path: dir.to_owned(), source };
    for entry in fs::read_dir(dir).map_err(list)? {
        let entry = entry.map_err(list)?;
        if entry.file_type().map_err(list)?.is_dir() {
            search(&entry.path(), depth - 1, found)?;
        }
    }
    Ok(())
}

/// A run and what it found.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) dir: PathBuf,
    pub(super) results: Results,
}

impl Run {
    pub(super) fn seed(&self) -> u64 {
        self.results.meta.seed
    }

    /// The predictions of a task and domain; `None` when none were kept.
    pub(super) fn predictions(
        &self,
        task: &str,
        domain: &str,
    ) -> Result<Option<Vec<Prediction>>, Error> {
        let path = predictions_path(&self.dir, task, domain);
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(read_predictions(&path)?))
    }
}

/// The runs of a recipe, by seed.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) recipe: String,
    pub(super) runs: Vec<Run>,
}

pub(super) fn load(dirs: &[PathBuf]) -> Result<Vec<Run>, Error> {
    dirs.iter()
        .map(|dir| Ok(Run { dir: dir.clone(), results: Results::read(&dir.join("results.json"))? }))
        .collect()
}

/// Groups runs by recipe: the baseline first, the others by name.
pub(super) fn group(runs: Vec<Run>, baseline: Option<&str>) -> Result<Vec<Group>, Error> {
    let mut by_recipe: BTreeMap<String, Vec<Run>> = BTreeMap::new();
    for run in runs {
        by_recipe.entry(run.results.meta.recipe.clone()).or_default().push(run);
    }
    for (recipe, runs) in &mut by_recipe {
        runs.sort_by_key(Run::seed);
        if let Some(pair) = runs.windows(2).find(|pair| pair[0].seed() == pair[1].seed()) {
            return Err(Error::Duplicate {
                recipe: recipe.clone(),
                seed: pair[0].seed(),
                first: pair[0].dir.clone(),
                second: pair[1].dir.clone(),
            });
        }
    }
    if let Some(name) = baseline
        && !by_recipe.contains_key(name)
    {
        let rows = by_recipe.into_keys().collect();
        return Err(Error::NoBaseline { baseline: name.to_owned(), rows });
    }
    let mut groups: Vec<Group> =
        by_recipe.into_iter().map(|(recipe, runs)| Group { recipe, runs }).collect();
    groups.sort_by_key(|group| Some(group.recipe.as_str()) != baseline);
    Ok(groups)
}

impl Group {
    /// Mean and standard deviation of every number that a run of the group has, in the order of
    /// the first run that has it.
    pub(super) fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = Vec::new();
        for run in &self.runs {
            for (task, domain, metric, number) in run.results.iter() {
                let same =
                    |c: &&mut Cell| (&*c.task, &*c.domain, &*c.metric) == (task, domain, metric);
                match cells.iter_mut().find(same) {
                    Some(cell) => cell.values.push(number.value),
                    None => cells.push(Cell {
                        task: task.to_owned(),
                        domain: domain.to_owned(),
                        metric: metric.to_owned(),
                        mean: f64::NAN,
                        sd: None,
                        values: vec![number.value],
                        difference: None,
                        protocol: number.protocol,
                        unsupported: number.unsupported,
                    }),
                }
            }
        }
        for cell in &mut cells {
            (cell.mean, cell.sd) = mean_and_sd(&cell.values);
        }
        cells
    }

    pub(super) fn row(&self, cells: Vec<Cell>) -> Row {
        let meta = self.runs.first().map(|run| run.results.meta.clone()).unwrap_or_default();
        Row {
            recipe: self.recipe.clone(),
            oracle: self.runs.iter().any(|run| run.results.meta.oracle),
            trained_tasks: meta.trained_tasks,
            seeds: self.runs.iter().map(Run::seed).collect(),
            costs: self.runs.iter().filter_map(|run| run.results.meta.costs).collect(),
            cells,
        }
    }
}

fn mean_and_sd(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_no_deviation() {
        assert_eq!(mean_and_sd(&[0.5]), (0.5, None));
        // 1, 2, 3: mean 2, squares 1 + 0 + 1, over n - 1 = 2.
        assert_eq!(mean_and_sd(&[1.0, 2.0, 3.0]), (2.0, Some(1.0)));
    }
}
