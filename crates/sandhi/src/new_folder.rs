//! Folders of results.
//!
//! ```text
//! DIR.partial/00000-a.TextGrid, … ─ finish ─> DIR        an error or a kill before it leaves no DIR
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};

/// A name that no other utterance has, and that an id can be recognized in; without an ending.
pub fn file_name(idx: usize, id: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
    let name: String = id.chars().take(100).map(kept).collect();
    format!("{idx:05}-{name}")
}

/// A folder that is there whole or not at all: filled beside its name, then renamed.
pub struct NewFolder {
    partial: PathBuf,
    dir: PathBuf,
}

impl NewFolder {
    /// Begins a folder that does not exist, or is empty; folders above it are made. What an interrupted attempt left
    /// beside it is removed.
    ///
    /// # Errors
    ///
    /// When there is something in it, or it cannot be made.
    pub fn create(dir: &Path) -> anyhow::Result<Self> {
        let Some(name) = dir.file_name() else {
            bail!("{}: expected the name of a new folder", dir.display());
        };
        match fs::read_dir(dir) {
            Ok(mut entries) => ensure!(
                entries.next().is_none(),
                "{} exists and is not empty; give another --out",
                dir.display()
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| dir.display().to_string()),
        }
        let mut partial = name.to_owned();
        partial.push(".partial");
        let partial = dir.with_file_name(partial);
        let failed = || format!("{}: cannot create", partial.display());
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(failed)?;
        }
        fs::create_dir_all(&partial).with_context(failed)?;
        Ok(Self { partial, dir: dir.to_owned() })
    }

    /// Where it is filled.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Gives it its name.
    ///
    /// # Errors
    ///
    /// When that cannot be done.
    pub fn finish(self) -> anyhow::Result<()> {
        let failed = || format!("{}: cannot create", self.dir.display());
        if self.dir.exists() {
            fs::remove_dir(&self.dir).with_context(failed)?;
        }
        fs::rename(&self.partial, &self.dir).with_context(failed)
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // After `finish` there is nothing; before it, the error that ended the command matters more.
        let _ = fs::remove_dir_all(&self.partial);
    }
}
