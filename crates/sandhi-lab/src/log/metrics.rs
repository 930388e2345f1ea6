//! `metrics.jsonl`: one JSON object a line, in the order in which things happened.
//!
//! ```text
//! {"stage":"encoder","step":1,"loss":4.61,"learning_rate":0.0001}
//! {"stage":"encoder","step":2,"loss":4.55,"learning_rate":0.0002}      ◄ last checkpoint
//! {"stage":"encoder","step":3,"loss":4.5                               ◄ cut off when the run resumes
//! ```

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Error, Result};
use crate::checkpoint::{self, files};

/// A line of the log as it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The stage of training.
    pub stage: String,
    /// The optimizer step within the stage, counted from 1.
    pub step: u64,
    /// Everything else: `loss`, `learning_rate`, …
    #[serde(flatten)]
    pub values: IndexMap<String, serde_json::Value>,
}

impl Record {
    /// A value that is a number (`null`, which stands for one that was not finite, is NaN).
    pub fn number(&self, name: &str) -> Option<f64> {
        number(self.values.get(name)?)
    }

    /// A number in a table of numbers, such as `ce` in `terms`.
    pub fn number_in(&self, table: &str, name: &str) -> Option<f64> {
        number(self.values.get(table)?.get(name)?)
    }
}

/// A number as it is written: `null` where it is not finite.
fn number(value: &serde_json::Value) -> Option<f64> {
    match value {
        serde_json::Value::Null => Some(f64::NAN),
        value => value.as_f64(),
    }
}

#[derive(Serialize)]
struct Line<'a, T> {
    stage: &'a str,
    step: u64,
    #[serde(flatten)]
    values: &'a T,
}

/// Appends to a `metrics.jsonl`; every line is handed to the system before the call returns.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// A new log; folders above it are made.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when there is one already, or [`Error::File`].
    pub fn create(path: &Path) -> Result<Self> {
        files::create_dir_all(files::parent(path))?;
        let file = File::create_new(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Exists { path: path.to_owned() },
            _ => checkpoint::Error::io("create", path, e).into(),
        })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Continues a log after `step` of `stage`: later lines, which the resumed run writes again,
    /// are removed (the file is replaced whole or not at all), as is a line that was cut off. A log
    /// that does not exist is begun.
    ///
    /// A stage that the log does not know has not begun: then every line stays. Log a step before
    /// its checkpoint is written, so that no line of the checkpoint's step is written twice.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] for a line, other than the last, that is not a record; [`Error::File`].
    pub fn resume(path: &Path, stage: &str, step: u64) -> Result<Self> {
        if !path.exists() {
            return Self::create(path);
        }
        let bytes = files::read(path)?;
        let mut begun = false;
        let mut end = 0;
        for (line, record) in records(&bytes, path) {
            let record = record?;
            begun |= record.stage == stage;
            if begun && (record.stage != stage || record.step > step) {
                break;
            }
            end = line.end;
        }
        if end < bytes.len() {
            files::write_atomically(path, &bytes[..end])?;
        }
        let file = File::options()
            .append(true)
            .open(path)
            .map_err(|e| checkpoint::Error::io("open", path, e))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends `{"stage": …, "step": …, …values}`. Numbers that are not finite become `null`.
    ///
    /// # Errors
    ///
    /// [`Error::File`]; values that are not a struct or a map are
    /// [`checkpoint::Error::Format`].
    pub fn append<T: Serialize>(&mut self, stage: &str, step: u64, values: &T) -> Result<()> {
        let mut line = files::json(&self.path, &Line { stage, step, values })?;
        line.push(b'\n');
        Ok(self.file.write_all(&line).map_err(|e| checkpoint::Error::io("write", &self.path, e))?)
    }

    /// Waits until everything is on the disk, as before a checkpoint that will count on it.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn sync(&self) -> Result<()> {
        Ok(self.file.sync_data().map_err(|e| checkpoint::Error::io("write", &self.path, e))?)
    }
}

/// Reads a whole log; a last line without its line end was cut off and is left out.
///
/// # Errors
///
/// [`Error::Format`] with the line, or [`Error::File`].
pub fn read_metrics(path: &Path) -> Result<Vec<Record>> {
    let bytes = files::read(path)?;
    records(&bytes, path).map(|(_, record)| record).collect()
}

/// The complete lines with the bytes they span; blank ones are skipped.
fn records<'a>(
    bytes: &'a [u8],
    path: &'a Path,
) -> impl Iterator<Item = (std::ops::Range<usize>, Result<Record>)> + 'a {
    let mut start = 0;
    let lines = bytes.split_inclusive(|&b| b == b'\n').enumerate().map(move |(index, line)| {
        let range = start..start + line.len();
        start = range.end;
        (index + 1, range)
    });
    lines
        .filter(|(_, range)| bytes[range.clone()].ends_with(b"\n"))
        .filter(|(_, range)| !bytes[range.clone()].trim_ascii().is_empty())
        .map(|(line, range)| {
            let record = serde_json::from_slice(&bytes[range.clone()]).map_err(|e| Error::Format {
                path: path.to_owned(),
                line,
                reason: e.to_string(),
            });
            (range, record)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Serialize)]
    struct Step {
        loss: f32,
        learning_rate: f64,
    }

    fn step(loss: f32) -> Step {
        Step { loss, learning_rate: 1e-3 }
    }

    fn steps(path: &Path) -> Vec<String> {
        let records = read_metrics(path).unwrap();
        records.iter().map(|r| format!("{}{}", r.stage, r.step)).collect()
    }

    #[test]
    fn a_line_is_an_object_that_begins_with_stage_and_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        log.append("encoder", 1, &step(0.5)).unwrap();
        log.append("encoder", 2, &step(f32::NAN)).unwrap();
        log.sync().unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"stage\":\"encoder\",\"step\":1,\"loss\":0.5,\"learning_rate\":0.001}\n\
             {\"stage\":\"encoder\",\"step\":2,\"loss\":null,\"learning_rate\":0.001}\n"
        );
        let records = read_metrics(&path).unwrap();
        assert_eq!(records[0].number("loss"), Some(0.5));
        assert!(records[1].number("loss").unwrap().is_nan());
        assert_eq!(records[1].number("none"), None);
        assert!(matches!(MetricsLog::create(&path), Err(Error::Exists { .. })));
    }

    #[test]
    fn what_the_resumed_run_writes_again_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        for (stage, last) in [("a", 3), ("b", 4), ("c", 2)] {
            (1..=last).for_each(|n| log.append(stage, n, &step(0.1)).unwrap());
        }
        let all = std::fs::read(&path).unwrap();
        let check = |stage: &str, step_: u64, expected: &[&str]| {
            std::fs::write(&path, &all).unwrap();
            let mut log = MetricsLog::resume(&path, stage, step_).unwrap();
            assert_eq!(steps(&path), expected);
            log.append(stage, step_ + 1, &step(0.2)).unwrap();
            assert_eq!(steps(&path).len(), expected.len() + 1);
        };
        check("b", 2, &["a1", "a2", "a3", "b1", "b2"]);
        check("b", 0, &["a1", "a2", "a3"]);
        check("a", 3, &["a1", "a2", "a3"]);
        let whole = ["a1", "a2", "a3", "b1", "b2", "b3", "b4", "c1", "c2"];
        check("c", 2, &whole);
        check("d", 0, &whole);
    }

    #[test]
    fn a_line_that_was_cut_off_goes_and_one_that_was_spoilt_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let good = "{\"stage\":\"a\",\"step\":1,\"loss\":2.0}\n";
        std::fs::write(&path, format!("{good}{{\"stage\":\"a\",\"st")).unwrap();
        assert_eq!(steps(&path), ["a1"]);
        MetricsLog::resume(&path, "a", 1).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), good);

        std::fs::write(&path, format!("{good}oops\n{good}")).unwrap();
        match MetricsLog::resume(&path, "a", 1).unwrap_err() {
            Error::Format { line, .. } => assert_eq!(line, 2),
            other => panic!("{other}"),
        }
        let fresh = dir.path().join("fresh.jsonl");
        MetricsLog::resume(&fresh, "a", 1).unwrap().append("a", 2, &step(1.0)).unwrap();
        assert_eq!(steps(&fresh), ["a2"]);
    }

    #[test]
    fn values_that_are_no_object_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        assert!(log.append("a", 1, &3).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    proptest! {
        // Every case waits for the disk.
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// A run that is killed after `killed` steps (inside a line, at that) and resumed from a
        /// checkpoint leaves the log of a run that was never killed.
        #[test]
        fn killed_and_resumed_equals_never_killed(killed in 1..20_u64, every in 1..7_u64, cut in 0..30_usize) {
            let dir = tempfile::tempdir().unwrap();
            let write = |log: &mut MetricsLog, n: u64| log.append("a", n, &step(1.0 / n as f32));
            let straight = dir.path().join("straight.jsonl");
            let mut log = MetricsLog::create(&straight).unwrap();
            (1..=20).for_each(|n| write(&mut log, n).unwrap());

            let path = dir.path().join("killed.jsonl");
            let mut log = MetricsLog::create(&path).unwrap();
            (1..=killed).for_each(|n| write(&mut log, n).unwrap());
            let next = files::json(&path, &step(0.5)).unwrap();
            log.file.write_all(&next[..cut.min(next.len())]).unwrap();
            let resumed = killed / every * every;
            let mut log = MetricsLog::resume(&path, "a", resumed).unwrap();
            (resumed + 1..=20).for_each(|n| write(&mut log, n).unwrap());
            prop_assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&straight).unwrap());
        }
    }
}
