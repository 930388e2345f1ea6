//! Files that caches are made of.

use std::{
    fs, io,
    path::Path,
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
