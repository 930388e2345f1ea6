//! Writing a checkpoint beside its final name and moving it there.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Serialize;

use super::files::{self, HashedFile};
use super::manifest::{self, FileEntry, Manifest};
use super::tensors::{self, Dtype};
use super::{Error, Result};
use crate::tensor::HostTensor;

/// Writes one checkpoint.
///
/// Nothing is visible under the final name before [`CheckpointWriter::finish`]; a writer that is
/// dropped earlier removes what it wrote.
#[derive(Debug)]
pub struct CheckpointWriter {
    final_dir: PathBuf,
    partial_dir: PathBuf,
    fingerprint: String,
    files: IndexMap<String, FileEntry>,
    finished: bool,
    #[cfg(test)]
    pub(super) steps_until_kill: Option<usize>,
}

impl CheckpointWriter {
    /// Begins a checkpoint that will lie at `final_dir`; folders above it are made. What an
    /// interrupted attempt left beside it is removed.
    ///
    /// # Errors
    ///
    /// [`Error::NotACheckpoint`] when `final_dir` exists, is not empty and was not written by this
    /// type; [`Error::ReadOnly`], [`Error::DiskFull`] or [`Error::Io`].
    pub fn create(final_dir: &Path) -> Result<Self> {
        if !may_be_replaced(final_dir)? {
            return Err(Error::NotACheckpoint { dir: final_dir.to_owned() });
        }
        files::create_dir_all(files::parent(final_dir))?;
        let partial_dir = files::beside(final_dir, ".partial");
        remove_dir(&partial_dir)?;
        fs::create_dir(&partial_dir).map_err(|e| Error::io("create", &partial_dir, e))?;
        Ok(Self {
            final_dir: final_dir.to_owned(),
            partial_dir,
            fingerprint: String::new(),
            files: IndexMap::new(),
            finished: false,
            #[cfg(test)]
            steps_until_kill: None,
        })
    }

    /// Records what model this is of: any text that changes when its structure does. The empty text
    /// is the default.
    pub fn fingerprint(&mut self, model_fingerprint: &str) -> &mut Self {
        model_fingerprint.clone_into(&mut self.fingerprint);
        self
    }

    /// Adds a safetensors file.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`], [`Error::F16Range`], [`Error::FileName`], [`Error::DiskFull`] or
    /// [`Error::Io`].
    pub fn tensors(
        &mut self,
        file: &str,
        tensors: &IndexMap<String, HostTensor>,
        dtype: Dtype,
        metadata: &IndexMap<String, String>,
    ) -> Result<()> {
        let path = self.new_file(file)?;
        let entry = tensors::write_to(HashedFile::create(&path)?, &path, tensors, dtype, metadata)?;
        self.files.insert(file.to_owned(), entry);
        Ok(())
    }

    /// Adds a JSON file.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when the value cannot be JSON (a map whose keys are not text);
    /// [`Error::FileName`], [`Error::DiskFull`] or [`Error::Io`].
    pub fn json<T: Serialize + ?Sized>(&mut self, file: &str, value: &T) -> Result<()> {
        let bytes = files::pretty_json(&self.final_dir.join(file), value)?;
        self.bytes(file, &bytes)
    }

    /// Adds a file of any content.
    ///
    /// # Errors
    ///
    /// [`Error::FileName`], [`Error::DiskFull`] or [`Error::Io`].
    pub fn bytes(&mut self, file: &str, bytes: &[u8]) -> Result<()> {
        let path = self.new_file(file)?;
        let mut out = HashedFile::create(&path)?;
        out.write(bytes)?;
        self.add(file, out)
    }

    /// Adds a copy of a file.
    ///
    /// # Errors
    ///
    /// [`Error::MissingFile`] when there is nothing to copy; [`Error::FileName`],
    /// [`Error::DiskFull`] or [`Error::Io`].
    pub fn copy_file(&mut self, file: &str, from: &Path) -> Result<()> {
        let mut source = fs::File::open(from).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::MissingFile { path: from.to_owned() },
            _ => Error::io("read", from, e),
        })?;
        let path = self.new_file(file)?;
        let mut out = HashedFile::create(&path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match source.read(&mut buffer).map_err(|e| Error::io("read", from, e))? {
                0 => break,
                n => out.write(&buffer[..n])?,
            }
        }
        self.add(file, out)
    }

    /// Makes everything durable and moves it to its final name, in the place of an older
    /// checkpoint.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`], [`Error::ReadOnly`] or [`Error::Io`]; the older checkpoint is then still
    /// what [`super::Checkpoint::open`] opens.
    pub fn finish(mut self) -> Result<()> {
        let path = self.partial_dir.join(manifest::FILE);
        let manifest =
            Manifest::new(std::mem::take(&mut self.fingerprint), std::mem::take(&mut self.files));
        let mut file = HashedFile::create(&path)?;
        file.write(&manifest.to_bytes(&path)?)?;
        file.finish()?;
        files::sync_dir(&self.partial_dir)?;
        self.step()?;

        let old = files::beside(&self.final_dir, ".old");
        let above = files::parent(&self.final_dir).to_owned();
        let rename = |from: &Path, to: &Path| {
            fs::rename(from, to).map_err(|e| Error::io("replace", to, e))?;
            files::sync_dir(&above)
        };
        if self.final_dir.exists() {
            // With a checkpoint at the final name, an `.old` is the rest of a replacement that was
            // complete but for this removal.
            remove_dir(&old)?;
            self.step()?;
            rename(&self.final_dir, &old)?;
            self.step()?;
        }
        if let Err(error) = rename(&self.partial_dir, &self.final_dir) {
            if !self.final_dir.exists() && old.exists() {
                // Put the older one back; if that fails too, `open` still finds it as `.old`.
                let _ = rename(&old, &self.final_dir);
            }
            return Err(error);
        }
        self.finished = true;
        self.step()?;
        remove_dir(&old)?;
        self.step()
    }

    fn add(&mut self, file: &str, out: HashedFile) -> Result<()> {
        let (size, blake3) = out.finish()?;
        let entry = FileEntry { size, blake3, tensors: IndexMap::new() };
        self.files.insert(file.to_owned(), entry);
        Ok(())
    }

    fn new_file(&mut self, name: &str) -> Result<PathBuf> {
        self.step()?;
        let bad = |reason| Err(Error::FileName { name: name.to_owned(), reason });
        if name.is_empty() || name == "." || name == ".." {
            return bad("it is not a name");
        }
        if name.contains(['/', '\\', '\0']) {
            return bad("it is a path");
        }
        if name == manifest::FILE {
            return bad("the manifest has this name");
        }
        if self.files.contains_key(name) {
            return bad("there is one already");
        }
        Ok(self.partial_dir.join(name))
    }

    /// A place where tests let the process die.
    #[cfg(test)]
    fn step(&mut self) -> Result<()> {
        match &mut self.steps_until_kill {
            Some(0) => {
                self.finished = true; // a dead process cleans nothing up
                let source = std::io::Error::from(std::io::ErrorKind::Interrupted);
                Err(Error::io("survive in", &self.final_dir, source))
            }
            Some(n) => {
                *n -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn step(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Whatever kept the writer from finishing has been reported; this is tidying.
            let _ = fs::remove_dir_all(&self.partial_dir);
        }
    }
}

/// Nothing there, an empty directory, or a checkpoint.
fn may_be_replaced(dir: &Path) -> Result<bool> {
    if dir.join(manifest::FILE).exists() || !dir.exists() {
        return Ok(true);
    }
    if !dir.is_dir() {
        return Ok(false);
    }
    let mut entries = fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))?;
    Ok(entries.next().is_none())
}

/// Removes a directory if it is there.
fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", dir, e)),
        _ => Ok(()),
    }
}
