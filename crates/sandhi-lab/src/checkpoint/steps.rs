//! The checkpoints of a run: `step-000100`, `step-000200`, …

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Error, Result, files, manifest, reader};

/// The directory of the checkpoint after `step` optimizer steps: `root/step-000123`.
pub fn step_dir(root: &Path, step: u64) -> PathBuf {
    root.join(format!("step-{step:06}"))
}

/// The step that a checkpoint's directory is named after.
pub fn step_of(dir: &Path) -> Option<u64> {
    let digits = dir.file_name()?.to_str()?.strip_prefix("step-")?;
    let canonical = digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit());
    canonical.then(|| digits.parse().ok()).flatten()
}

/// The steps that have a complete checkpoint, ascending. Leftovers of interrupted writes
/// (`*.partial`) are neither counted nor removed.
fn steps(root: &Path) -> Result<BTreeSet<u64>> {
    let entries = match fs::read_dir(root) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        other => other.map_err(|e| Error::io("list", root, e))?,
    };
    let mut steps = BTreeSet::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io("list", root, e))?.path();
        // `step-000100.old` stands for `step-000100` while that is missing.
        let name = if path.extension().is_some_and(|e| e == "old") {
            path.with_extension("")
        } else {
            path
        };
        let Some(step) = step_of(&name) else { continue };
        let complete = reader::existing(&name).is_some_and(|dir| dir.join(manifest::FILE).exists());
        if complete {
            steps.insert(step);
        }
    }
    Ok(steps)
}

/// The last checkpoint of a run, by step; `None` when there is none, or no such directory.
///
/// Its content is not verified: that is what [`super::Checkpoint::open`] does.
///
/// # Errors
///
/// [`Error::Io`] when the directory cannot be listed.
pub fn latest(root: &Path) -> Result<Option<PathBuf>> {
    Ok(steps(root)?.last().map(|&step| step_dir(root, step)))
}

/// Removes all but the last `keep_last` checkpoints; returns the steps that were removed.
///
/// Each is renamed to `.partial` first, so that an interruption leaves no half checkpoint. What an
/// interruption left of steps before the last one is removed too.
///
/// # Errors
///
/// [`Error::ReadOnly`] or [`Error::Io`].
pub fn prune(root: &Path, keep_last: usize) -> Result<Vec<u64>> {
    let steps = steps(root)?;
    remove_leftovers(root, steps.last().copied())?;
    let n_removed = steps.len().saturating_sub(keep_last);
    let removed: Vec<u64> = steps.into_iter().take(n_removed).collect();
    for &step in &removed {
        let dir = step_dir(root, step);
        let doomed = files::beside(&dir, ".partial");
        for path in [dir.clone(), files::beside(&dir, ".old")] {
            if path.exists() {
                if doomed.exists() {
                    fs::remove_dir_all(&doomed).map_err(|e| Error::io("remove", &doomed, e))?;
                }
                fs::rename(&path, &doomed).map_err(|e| Error::io("remove", &path, e))?;
                fs::remove_dir_all(&doomed).map_err(|e| Error::io("remove", &doomed, e))?;
            }
        }
    }
    Ok(removed)
}

/// Removes `.partial` directories of steps up to the last complete one: nobody writes those any more.
fn remove_leftovers(root: &Path, last: Option<u64>) -> Result<()> {
    let Some(last) = last else { return Ok(()) };
    for entry in fs::read_dir(root).map_err(|e| Error::io("list", root, e))? {
        let path = entry.map_err(|e| Error::io("list", root, e))?.path();
        let partial = path.extension().is_some_and(|e| e == "partial");
        if partial && step_of(&path.with_extension("")).is_some_and(|step| step <= last) {
            fs::remove_dir_all(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Checkpoint, CheckpointWriter};
    use super::*;

    fn write(root: &Path, step: u64) {
        let mut writer = CheckpointWriter::create(&step_dir(root, step)).unwrap();
        writer.json("step.json", &step).unwrap();
        writer.finish().unwrap();
    }

    #[test]
    fn names_and_steps_belong_together() {
        for step in [0, 123, 999_999, 1_000_000] {
            assert_eq!(step_of(&step_dir(Path::new("x"), step)), Some(step));
        }
        assert_eq!(step_dir(Path::new("x"), 123), Path::new("x/step-000123"));
        for name in ["step-12", "step-00012x", "step-000012.partial", "best", "step-+00012"] {
            assert_eq!(step_of(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn the_latest_is_by_number_and_leftovers_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("checkpoints");
        assert_eq!(latest(&root).unwrap(), None);
        for step in [999_999, 1_000_000, 5] {
            write(&root, step);
        }
        fs::create_dir(root.join("step-2000000.partial")).unwrap();
        fs::create_dir(root.join("step-3000000")).unwrap(); // no checkpoint.json
        fs::write(root.join("notes.txt"), "x").unwrap();
        assert_eq!(latest(&root).unwrap(), Some(root.join("step-1000000")));
        assert!(root.join("step-2000000.partial").exists());
    }

    #[test]
    fn a_checkpoint_that_is_being_replaced_is_found() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 1);
        write(dir.path(), 2);
        fs::rename(dir.path().join("step-000002"), dir.path().join("step-000002.old")).unwrap();
        let last = latest(dir.path()).unwrap().unwrap();
        assert_eq!(last, dir.path().join("step-000002"));
        assert_eq!(Checkpoint::open(&last).unwrap().json::<u64>("step.json").unwrap(), 2);
    }

    #[test]
    fn pruning_keeps_the_last_ones_and_what_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        for step in [10, 20, 30] {
            write(dir.path(), step);
        }
        fs::create_dir(dir.path().join("best")).unwrap();
        fs::create_dir(dir.path().join("step-000040.partial")).unwrap();
        // The rest of a removal that was killed.
        fs::create_dir(dir.path().join("step-000020.partial")).unwrap();
        assert_eq!(prune(dir.path(), 2).unwrap(), [10]);
        assert_eq!(prune(dir.path(), 2).unwrap(), Vec::<u64>::new());
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["best", "step-000020", "step-000030", "step-000040.partial"]);
        assert_eq!(prune(dir.path(), 0).unwrap(), [20, 30]);
    }
}
