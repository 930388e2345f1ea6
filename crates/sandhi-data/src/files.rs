//! Files that caches are made of, and where a file really lies.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Tells temporary files of this process apart.
static N_WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Writes a file beside its final name and renames it, so that nobody reads half of it. It is not synced: a
/// crash of the machine may leave it short, so readers check a hash.
///
/// # Errors
///
/// What the system says; then the temporary file is removed.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let number = N_WRITTEN.fetch_add(1, Ordering::Relaxed);
    let partial = path.with_added_extension(format!("{}.{number}.partial", std::process::id()));
    fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path)).inspect_err(|_| {
        // The error that matters is the first.
        let _ = fs::remove_file(&partial);
    })
}

/// Where what is written to a path has to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file, there already or not: it is written beside this name and renamed. What a link points to is replaced, not
    /// the link.
    File(PathBuf),
    /// A device or a pipe, which cannot be replaced: it is written into.
    Stream,
}

/// Where what is written to `path` has to go.
pub fn place(path: &Path) -> Place {
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Place::Stream;
    }
    let target = fs::read_link(path).and_then(|_| fs::canonicalize(path));
    Place::File(target.unwrap_or_else(|_| path.to_owned()))
}
