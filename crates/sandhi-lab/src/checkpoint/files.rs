//! The few file operations that everything durable is made of.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use sandhi_data::{Place, place};
use serde::Serialize;

use super::{Error, Result};

/// A file that counts and hashes what is written to it and is on the disk when it is finished.
pub(crate) struct HashedFile {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    size: u64,
}

impl HashedFile {
    /// A new file; one that exists already is an error.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(|e| Error::io("create", path, e))?;
        Ok(Self::over(file, path))
    }

    /// Writes to an open file that is called `path`.
    pub(crate) fn over(file: File, path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(1 << 20, file),
            hasher: blake3::Hasher::new(),
            size: 0,
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|e| Error::io("write", &self.path, e))
    }

    /// Flushes to the disk; returns the size in bytes and the hash.
    pub(crate) fn finish(mut self) -> Result<(u64, String)> {
        let map = |e| Error::io("write", &self.path, e);
        self.file.flush().map_err(map)?;
        self.file.get_ref().sync_all().map_err(map)?;
        Ok((self.size, self.hasher.finalize().to_hex().to_string()))
    }

    /// How many bytes were written so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

/// Makes the renames and new names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| Error::io("sync", dir, e))
}

pub(crate) fn create_dir_all(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::MissingFile { path: path.to_owned() },
        _ => Error::io("read", path, e),
    })
}

/// `path` with `suffix` added to its last component: a name beside it.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The directory that a path lies in; `.` for a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes a file whole or not at all: beside its name (`.partial`), fsynced, renamed. Missing
/// folders are made. What a link points to is replaced, not the link; a device or a pipe cannot be replaced and is
/// written into.
///
/// # Errors
///
/// [`Error::DiskFull`], [`Error::ReadOnly`] or [`Error::Io`].
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let Place::File(target) = place(path) else {
        return fs::write(path, bytes).map_err(|e| Error::io("write", path, e));
    };
    let path = target.as_path();
    create_dir_all(parent(path))?;
    let partial = beside(path, ".partial");
    let result = (|| {
        let file = File::create(&partial).map_err(|e| Error::io("create", &partial, e))?;
        let mut file = HashedFile::over(file, &partial);
        file.write(bytes)?;
        file.finish()?;
        fs::rename(&partial, path).map_err(|e| Error::io("replace", path, e))?;
        sync_dir(parent(path))
    })();
    if result.is_err() {
        // The error matters more than what is left of the attempt.
        let _ = fs::remove_file(&partial);
    }
    result
}

/// Compact JSON of a value that goes to `path`.
pub(crate) fn json<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|e| Error::Format { path: path.to_owned(), reason: e.to_string() })
}

/// Indented JSON with a final line end of a value that goes to `path`.
pub(crate) fn pretty_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::Format { path: path.to_owned(), reason: e.to_string() })?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.json");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(!dir.path().join("a/b.json.partial").exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn links_and_pipes_stay() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "one").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        write_atomically(&at("link"), b"two").unwrap();
        assert!(fs::read_link(at("link")).is_ok());
        assert_eq!(fs::read(at("file")).unwrap(), b"two");

        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        // Open for both, so that neither side waits for the other.
        let mut pipe = File::options().read(true).write(true).open(at("pipe")).unwrap();
        write_atomically(&at("pipe"), b"three").unwrap();
        assert!(!fs::metadata(at("pipe")).unwrap().is_file());
        let mut found = [0; 5];
        std::io::Read::read_exact(&mut pipe, &mut found).unwrap();
        assert_eq!(&found, b"three");
    }

    #[test]
    fn a_full_disk_is_one_clear_error() {
        // Linux's /dev/full answers every write with ENOSPC.
        let Ok(file) = File::options().write(true).open("/dev/full") else {
            eprintln!("skipped: no /dev/full here");
            return;
        };
        let mut file = HashedFile::over(file, Path::new("run/model.safetensors"));
        let error = file.write(&[0; 100]).and_then(|()| file.finish()).unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        assert_eq!(error.to_string(), "cannot write run/model.safetensors: the disk is full");
    }

    #[test]
    fn a_failed_attempt_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        // The target is a directory that is not empty, so that the rename must fail.
        fs::create_dir_all(dir.path().join("x/y")).unwrap();
        write_atomically(&dir.path().join("x"), b"one").unwrap_err();
        assert!(!dir.path().join("x.partial").exists());
    }
}
