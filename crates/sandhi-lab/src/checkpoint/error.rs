//! What can go wrong with a checkpoint, each with the words its user needs.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong when a checkpoint (or another file of a run) is written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing at the path.
    #[error("no checkpoint at {}", dir.display())]
    Missing {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// There is something, but it was not written by [`super::CheckpointWriter`].
    #[error("{} exists and is not a checkpoint (it holds no checkpoint.json)", dir.display())]
    NotACheckpoint {
        /// The directory or file.
        dir: PathBuf,
    },
    /// A format of another version of the program.
    #[error("{}: checkpoint format {found:?}, this program reads {expected:?}", path.display())]
    Version {
        /// The `checkpoint.json`.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What this program writes.
        expected: &'static str,
    },
    /// A file that `checkpoint.json` lists is not there.
    #[error("{} is missing from its checkpoint", path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
    },
    /// A file is shorter or longer than it was when it was written.
    #[error("{} is truncated or extended: {found} bytes, {expected} expected", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The size that was written.
        expected: u64,
    },
    /// A byte of a file changed since it was written.
    #[error("{} was altered after it was written (its hash differs)", path.display())]
    FileAltered {
        /// The file.
        path: PathBuf,
    },
    /// A byte of a tensor changed since it was written.
    #[error("tensor {tensor:?} in {} was altered after it was written (its hash differs)", path.display())]
    TensorAltered {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The checkpoint belongs to a model of another structure.
    #[error("{} is of another model: its fingerprint is {found:?}, {expected:?} expected", dir.display())]
    OtherModel {
        /// The checkpoint.
        dir: PathBuf,
        /// The fingerprint that it records.
        found: String,
        /// The fingerprint of the model at hand.
        expected: String,
    },
    /// The checkpoint is in order but does not hold the file that was asked for.
    #[error("{} holds no {file:?} (it holds {})", dir.display(), listed.join(", "))]
    NotListed {
        /// The checkpoint.
        dir: PathBuf,
        /// What was asked for.
        file: String,
        /// What there is.
        listed: Vec<String>,
    },
    /// A name that cannot be a file of a checkpoint.
    #[error("{name:?} cannot be a file of a checkpoint: {reason}")]
    FileName {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// A tensor whose shape and number of values disagree.
    #[error("tensor {tensor:?} has shape {shape:?} and {n_values} values")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How many values came with it.
        n_values: usize,
    },
    /// A finite value that becomes infinite in half precision.
    #[error("tensor {tensor:?} holds {value}, beyond the range of f16 (65504)")]
    F16Range {
        /// The tensor.
        tensor: String,
        /// The value.
        value: f32,
    },
    /// Content that cannot be read: not JSON, not safetensors, an unknown tensor type.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The directory, or the file system, does not allow writing.
    #[error("cannot write {}: the directory is read-only or belongs to someone else", path.display())]
    ReadOnly {
        /// What was to be written.
        path: PathBuf,
    },
    /// The disk is full, or the user's quota is.
    #[error("cannot write {}: the disk is full", path.display())]
    DiskFull {
        /// What was to be written.
        path: PathBuf,
    },
    /// Any other failure of the file system.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb, e.g. `create`.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Error {
    /// Names the causes that a user can act on: a full disk and a read-only directory.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        let writing = !matches!(doing, "read" | "list");
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if writing => {
                Self::ReadOnly { path }
            }
            _ => Self::Io { doing, path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_read_only_directory_are_named() {
        let map = |doing, code| {
            Error::io(doing, Path::new("out/x"), io::Error::from_raw_os_error(code)).to_string()
        };
        // Linux: 28 ENOSPC, 122 EDQUOT, 13 EACCES, 30 EROFS, 5 EIO.
        assert_eq!(map("write", 28), "cannot write out/x: the disk is full");
        assert_eq!(map("write", 122), "cannot write out/x: the disk is full");
        assert!(map("create", 13).contains("read-only"));
        assert!(map("create", 30).contains("read-only"));
        assert!(map("read", 13).starts_with("cannot read out/x: "));
        assert!(map("write", 5).starts_with("cannot write out/x: "));
    }
}
