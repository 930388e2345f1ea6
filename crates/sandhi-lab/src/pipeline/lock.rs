//! One process at a time in a run's directory.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use crate::checkpoint::{self, create_dir_all};

/// Name of the file that is locked; it stays, empty, when the run is over.
pub(super) const LOCK: &str = ".lock";

/// The right to write into a run's directory, held until it is dropped or its process ends in whatever way.
#[derive(Debug)]
pub(crate) struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the directory, which is made where there is none. None when another process has it.
    ///
    /// # Errors
    ///
    /// When the directory or the file in it cannot be made, or the file system knows no locks.
    pub(super) fn take(dir: &Path) -> Result<Option<Self>, checkpoint::Error> {
        let path = dir.join(LOCK);
        let io = |source| checkpoint::Error::io("lock", &path, source);
        create_dir_all(dir)?;
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_by_one() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/run");
        let lock = RunLock::take(&dir).unwrap().expect("free");
        assert!(RunLock::take(&dir).unwrap().is_none());
        drop(lock);
        assert!(RunLock::take(&dir).unwrap().is_some());
        std::fs::write(parent.path().join("file"), "").unwrap();
        let error = RunLock::take(&parent.path().join("file")).unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
    }
}
