//! The Hugging Face Hub: models by name, downloaded once into the cache that Python's `huggingface_hub` shares.
//!
//! ```text
//! hf:owner/name@revision ── the Hub's list ──> commit; names, sizes and hashes of files
//!                                                   │ those that are wanted and not there
//! cache/models--owner--name/                        v
//!   blobs/<hash>.part        what came so far: the next call goes on from there
//!   blobs/<hash>             the same, whole and with the hash that the Hub lists
//!   snapshots/<commit>/…     one name a file, linked to its blob
//!   refs/<revision>          the commit that a branch or tag stood for
//!   .no_exist/<commit>/…     names that the model has no file for
//! ```
//!
//! Files are taken from the commit, so that a branch that moves meanwhile mixes nothing. A name whose revision
//! is a commit never asks the Hub for what the cache has.

mod error;
mod name;
mod remote;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

pub use self::{
    error::HubError,
    name::{ModelName, ModelSource, NameError},
};
use self::{
    name::is_commit,
    remote::{Listing, Remote, RemoteFile},
};
use super::{
    read_json,
    shards::{ShardIndex, WEIGHTS},
};
use crate::checkpoint::files;

/// Where the Hub is.
pub const ENDPOINT: &str = "https://huggingface.co";

const CONFIG: &str = "config.json";
/// What belongs to a model beside its configuration and its weights, where there is such a file. Whatever a loader
/// reads from a directory is here: by name and by directory, a model is the same.
pub const EXTRAS: [&str; 9] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "vocab.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// A Hub, and where what comes from it is kept.
#[derive(Clone)]
pub struct Hub {
    /// Its address, [`ENDPOINT`] or a mirror's.
    pub endpoint: String,
    /// The cache, as a rule `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// Use nothing but the cache.
    pub offline: bool,
    /// Who is asking, for models that are not for everyone.
    pub token: Option<String>,
    /// An HTTP proxy.
    pub proxy: Option<String>,
    /// Who watches the downloads of [`Hub::locate`].
    pub progress: fn() -> Box<dyn Progress>,
}

/// A published model where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// A directory in Hugging Face's layout.
    pub dir: PathBuf,
    /// What finds the same again: the directory, or the name with the commit.
    pub name: String,
}

/// How much of a model is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// `config.json` alone: what the model is.
    Config,
    /// Weights, tokenizer and whatever else there is for them.
    Model,
}

/// A model on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// A directory in Hugging Face's layout.
    pub dir: PathBuf,
    /// The commit that its revision stands for: 40 hexadecimal digits.
    pub commit: String,
}

/// Who watches downloads.
pub trait Progress {
    /// A file of `n_bytes` begins, `had` of which are there from an earlier call.
    fn start(&mut self, file: &str, n_bytes: u64, had: u64);
    /// More bytes came.
    fn advance(&mut self, n_bytes: u64);
    /// All bytes came.
    fn finish(&mut self);
}

impl Progress for () {
    fn start(&mut self, _: &str, _: u64, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn finish(&mut self) {}
}

/// All but the token, of which it says whether there is one.
impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, cache, offline, token, proxy, progress: _ } = self;
        f.debug_struct("Hub")
            .field("endpoint", endpoint)
            .field("cache", cache)
            .field("offline", offline)
            .field("token", &token.as_ref().map(|_| "…"))
            .field("proxy", proxy)
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// A cache and no network.
    pub fn offline(cache: PathBuf) -> Self {
        Self {
            endpoint: ENDPOINT.to_owned(),
            cache,
            offline: true,
            token: None,
            proxy: None,
            progress: || Box::new(()),
        }
    }

    /// A model where it lies, downloaded if it has to be.
    ///
    /// # Errors
    ///
    /// As [`Hub::fetch`].
    pub fn locate(&self, model: &ModelSource) -> Result<Located, HubError> {
        match model {
            ModelSource::Directory(dir) => {
                // Found again from wherever the model is loaded.
                let name = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
                Ok(Located { dir: dir.clone(), name: name.display().to_string() })
            }
            ModelSource::Hub(name) => {
                let found = self.fetch(name, Want::Model, &mut *(self.progress)())?;
                let pinned = name.at(&found.commit).expect("a commit is a revision");
                Ok(Located { dir: found.dir, name: pinned.to_string() })
            }
        }
    }

    /// Downloads what is wanted and not in the cache.
    ///
    /// # Errors
    ///
    /// See [`HubError`]; each names the model, and the file where it is about one.
    pub fn fetch(
        &self,
        model: &ModelName,
        want: Want,
        progress: &mut dyn Progress,
    ) -> Result<Snapshot, HubError> {
        let cached = Cached::new(self, model);
        if self.offline {
            return cached.snapshot(&cached.commit()?, want);
        }
        if let Some(commit) = model.commit()
            && let Ok(snapshot) = cached.snapshot(commit, want)
        {
            return Ok(snapshot);
        }
        let remote = Remote::new(self, model)?;
        let listing = remote.listing()?;
        let mut download = Download { model, remote, cached, listing, progress };
        download.config()?;
        if want == Want::Model {
            download.model()?;
        }
        let Download { cached, listing: Listing { commit, .. }, .. } = download;
        if model.commit().is_none() {
            let path = cached.folder.join("refs").join(model.revision());
            write(&path, |path| {
                files::write_atomically(path, commit.as_bytes()).map_err(io::Error::other)
            })?;
        }
        Ok(Snapshot { dir: cached.dir(&commit), commit })
    }
}

/// One model in the cache.
struct Cached<'a> {
    hub: &'a Hub,
    model: &'a ModelName,
    repository: hf_hub::CacheRepo,
    /// `models--owner--name`.
    folder: PathBuf,
}

impl<'a> Cached<'a> {
    fn new(hub: &'a Hub, model: &'a ModelName) -> Self {
        let repository = hf_hub::Repo::model(model.repository().to_owned());
        let folder = hub.cache.join(repository.folder_name());
        let repository = hf_hub::Cache::new(hub.cache.clone()).repo(repository);
        Self { hub, model, repository, folder }
    }

    /// The directory of a commit.
    fn dir(&self, commit: &str) -> PathBuf {
        self.repository.pointer_path(commit)
    }

    fn missing(&self, missing: impl Into<String>) -> HubError {
        let (model, cache) = (self.model.clone(), self.hub.cache.clone());
        HubError::NotCached { model, cache, missing: missing.into() }
    }

    /// The commit that the revision stood for when it was last asked.
    fn commit(&self) -> Result<String, HubError> {
        if let Some(commit) = self.model.commit() {
            return Ok(commit.to_owned());
        }
        let path = self.folder.join("refs").join(self.model.revision());
        let text = fs::read_to_string(&path)
            .map_err(|_| self.missing(format!("revision {:?}", self.model.revision())))?;
        if is_commit(text.trim()) {
            Ok(text.trim().to_owned())
        } else {
            Err(self.missing(format!("a commit in {}", path.display())))
        }
    }

    /// The snapshot, if everything that is wanted is there, and what is not there is known to be in no model.
    fn snapshot(&self, commit: &str, want: Want) -> Result<Snapshot, HubError> {
        let dir = self.dir(commit);
        let there = |name: &str| dir.join(name).exists();
        let need = |name: &str| if there(name) { Ok(()) } else { Err(self.missing(name)) };
        need(CONFIG)?;
        if want == Want::Model {
            let found = WEIGHTS.iter().find(|weights| there(weights.file));
            let weights = found.ok_or_else(|| {
                self.missing(format!("{} or {}", WEIGHTS[0].file, WEIGHTS[1].file))
            })?;
            if weights.is_index {
                for shard in shards(self.model, &dir.join(weights.file))? {
                    need(&shard)?;
                }
            }
            let unknown = |name: &&str| !there(name) && !self.absent(commit, name).exists();
            let unknown: Vec<&str> = EXTRAS.into_iter().filter(unknown).collect();
            if !unknown.is_empty() {
                let (model, cache) = (self.model.clone(), self.hub.cache.clone());
                return Err(HubError::Unknown { model, cache, files: unknown.join(", ") });
            }
        }
        Ok(Snapshot { dir, commit: commit.to_owned() })
    }

    /// A file whose being there says that the model has no file of this name.
    fn absent(&self, commit: &str, name: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(name)
    }
}

/// Files on their way into the cache.
struct Download<'a> {
    model: &'a ModelName,
    remote: Remote<'a>,
    cached: Cached<'a>,
    listing: Listing,
    progress: &'a mut dyn Progress,
}

impl Download<'_> {
    fn no_file(&self, file: impl Into<String>) -> HubError {
        HubError::NoFile { model: self.model.clone(), file: file.into() }
    }

    fn config(&mut self) -> Result<(), HubError> {
        self.file(CONFIG)?;
        Ok(())
    }

    /// Small files first: where there are weights, everything is.
    fn model(&mut self) -> Result<(), HubError> {
        for name in EXTRAS {
            if self.listing.files.contains_key(name) {
                self.file(name)?;
            } else {
                let path = self.cached.absent(&self.listing.commit, name);
                write(&path, |path| fs::File::create(path).map(drop))?;
            }
        }
        let weights = WEIGHTS
            .iter()
            .find(|weights| self.listing.files.contains_key(weights.file))
            .ok_or_else(|| {
                self.no_file(format!("{} and no {}", WEIGHTS[0].file, WEIGHTS[1].file))
            })?;
        let path = self.file(weights.file)?;
        if weights.is_index {
            for shard in shards(self.model, &path)? {
                self.file(&shard)?;
            }
        }
        Ok(())
    }

    /// One file: its place in the snapshot.
    fn file(&mut self, name: &str) -> Result<PathBuf, HubError> {
        let commit = self.listing.commit.clone();
        let listed = self.listing.files.get(name).ok_or_else(|| self.no_file(name))?.clone();
        let pointer = self.cached.dir(&commit).join(name);
        let blob = self.cached.folder.join("blobs").join(listed.hash.text());
        if is_whole(&pointer, &listed) {
            return Ok(pointer);
        }
        if !is_whole(&blob, &listed) {
            let part = files::beside(&blob, ".part");
            let folder = self.cached.folder.join("blobs");
            fs::create_dir_all(&folder).map_err(|source| HubError::Io {
                doing: "create",
                path: folder,
                source,
            })?;
            let file = self.remote.download(&commit, name, &listed, &part, self.progress)?;
            if is_whole(&blob, &listed) {
                // Another process was faster; what is left of this one's attempt is of no use.
                let _ = fs::remove_file(&part);
            } else {
                fs::rename(&part, &blob).map_err(|source| HubError::Io {
                    doing: "write",
                    path: blob.clone(),
                    source,
                })?;
            }
            drop(file);
        }
        write(&pointer, |pointer| link(&blob, pointer))?;
        Ok(pointer)
    }
}

fn is_whole(path: &Path, listed: &RemoteFile) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == listed.n_bytes)
}

/// The files that an index names, each once.
fn shards(model: &ModelName, path: &Path) -> Result<Vec<String>, HubError> {
    let index = read_json(path)
        .and_then(|value| ShardIndex::read(path, value))
        .map_err(|source| HubError::Index { model: model.clone(), source: Box::new(source) })?;
    let mut names: Vec<String> = index.files().map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Makes the directory of a path, then what is to be there.
fn write(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), HubError> {
    let dir = path.parent().expect("a path in the cache has a directory");
    fs::create_dir_all(dir).and_then(|()| make(path)).map_err(|source| HubError::Io {
        doing: "write",
        path: path.to_owned(),
        source,
    })
}

/// Gives a blob its name, in place of what has it.
fn link(blob: &Path, pointer: &Path) -> io::Result<()> {
    let new = files::beside(pointer, ".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    #[cfg(unix)]
    {
        let hash = blob.file_name().expect("a blob has a name");
        std::os::unix::fs::symlink(Path::new("../../blobs").join(hash), &new)?;
    }
    #[cfg(not(unix))]
    fs::hard_link(blob, &new)?;
    fs::rename(&new, pointer)
}

#[cfg(test)]
mod tests;
