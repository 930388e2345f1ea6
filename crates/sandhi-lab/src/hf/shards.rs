//! Tensors of a directory: one safetensors file, or several with an index; where there are none, PyTorch's own
//! files in the same manner.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Component, Path, PathBuf},
};

use indexmap::IndexMap;
use memmap2::Mmap;
use rayon::prelude::*;
use serde::Deserialize;

use super::{Error, pickle, read_json};
use crate::{
    checkpoint::{self, parse_tensors},
    tensor::HostTensor,
};

pub(super) const ONE: &str = "model.safetensors";

/// A file that weights are found by.
#[derive(Debug)]
pub(super) struct Weights {
    pub(super) file: &'static str,
    /// Whether it names the files that have them.
    pub(super) is_index: bool,
    /// Whether they are PyTorch's own.
    pickled: bool,
}

/// Where weights are looked for; as transformers, the first that is there.
pub(super) const WEIGHTS: [Weights; 4] = [
    Weights { file: ONE, is_index: false, pickled: false },
    Weights { file: "model.safetensors.index.json", is_index: true, pickled: false },
    Weights { file: "pytorch_model.bin", is_index: false, pickled: true },
    Weights { file: "pytorch_model.bin.index.json", is_index: true, pickled: true },
];

/// The files of a directory.
#[derive(Debug)]
pub struct Shards {
    files: Vec<(PathBuf, Content)>,
    /// Which file should hold which tensor, where there is an index.
    index: Option<(PathBuf, BTreeMap<String, PathBuf>)>,
}

/// A file of tensors.
#[derive(Debug)]
enum Content {
    Safetensors(Mmap),
    /// PyTorch's own; read when its tensors are.
    Pickle,
}

impl Content {
    fn open(path: &Path, pickled: bool) -> Result<Self, Error> {
        if pickled { Ok(Self::Pickle) } else { map(path).map(Self::Safetensors) }
    }

    fn tensors(&self, path: &Path) -> Result<IndexMap<String, HostTensor>, Error> {
        match self {
            Self::Safetensors(bytes) => parse_tensors(bytes, path).map_err(|error| {
                Error::Tensors { path: path.to_owned(), message: error.to_string() }
            }),
            Self::Pickle => pickle::read(path),
        }
    }
}

/// Which file holds which tensor: `model.safetensors.index.json`.
#[derive(Debug, Deserialize)]
pub struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads an index; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Json`], or [`Error::Tensors`] for an index of nothing, or one that leads out of its directory.
    pub fn read(path: &Path, value: serde_json::Value) -> Result<Self, Error> {
        let wrong = |message: String| Error::Tensors { path: path.to_owned(), message };
        let index: Self = serde_json::from_value(value)
            .map_err(|source| Error::Json { path: path.to_owned(), source })?;
        if index.weight_map.is_empty() {
            return Err(wrong("weight_map names no tensor".into()));
        }
        for (tensor, file) in &index.weight_map {
            let mut parts = Path::new(file).components();
            let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
            if !plain || file.contains(['/', '\\', '\0']) {
                return Err(wrong(format!(
                    "tensor {tensor} is in {file:?}, expected the name of a file in the same directory"
                )));
            }
        }
        Ok(index)
    }

    /// The files that it names, once a tensor.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.weight_map.values().map(String::as_str)
    }
}

impl Shards {
    /// Opens the files of a directory, the first of those that weights are found by: one file before several,
    /// safetensors before PyTorch's own.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`], [`Error::Json`], or [`Error::Tensors`] when there are no tensors or the index names
    /// a file that is not in the directory.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let found = WEIGHTS.iter().find(|weights| dir.join(weights.file).exists());
        let Some(Weights { file, is_index, pickled }) = found else {
            return Err(nothing_there(dir));
        };
        let (path, pickled) = (dir.join(file), *pickled);
        if !is_index {
            let content = Content::open(&path, pickled)?;
            return Ok(Self { files: vec![(path, content)], index: None });
        }
        let index_path = path;
        let wrong = |message: String| Error::Tensors { path: index_path.clone(), message };
        let index = ShardIndex::read(&index_path, read_json(&index_path)?)?;
        let mut places = BTreeMap::new();
        for (tensor, file) in &index.weight_map {
            if !dir.join(file).exists() {
                return Err(wrong(format!("tensor {tensor} is in {file}, which is not there")));
            }
            places.insert(tensor.clone(), dir.join(file));
        }
        let mut paths: Vec<PathBuf> = places.values().cloned().collect();
        paths.sort_unstable();
        paths.dedup();
        let files = paths
            .into_iter()
            .map(|path| Ok((path.clone(), Content::open(&path, pickled)?)))
            .collect::<Result<_, Error>>()?;
        Ok(Self { files, index: Some((index_path, places)) })
    }

    /// All tensors, as f32.
    ///
    /// # Errors
    ///
    /// [`Error::Tensors`] for a damaged file, a tensor that two files have, and all tensors that are not where
    /// the index says.
    pub fn tensors(&self) -> Result<IndexMap<String, HostTensor>, Error> {
        let read: Vec<IndexMap<String, HostTensor>> = self
            .files
            .par_iter()
            .map(|(path, content)| content.tensors(path))
            .collect::<Result<_, _>>()?;
        let mut problems = Vec::new();
        let mut tensors = IndexMap::new();
        let mut found: BTreeMap<String, &Path> = BTreeMap::new();
        for ((path, _), read) in self.files.iter().zip(read) {
            for (name, tensor) in read {
                if let Some(other) = found.insert(name.clone(), path) {
                    problems.push(format!(
                        "{name} is in {} and in {}",
                        other.display(),
                        path.display()
                    ));
                }
                tensors.insert(name, tensor);
            }
        }
        if let Some((index_path, places)) = &self.index {
            for (name, place) in places {
                if found.get(name).is_none_or(|path| path != place) {
                    problems.push(format!("{name} is not in {}", place.display()));
                }
            }
            for name in found.keys().filter(|name| !places.contains_key(*name)) {
                problems.push(format!("{name} is not in the index"));
            }
            if !problems.is_empty() {
                let message = problems.join("\n");
                return Err(Error::Tensors { path: index_path.clone(), message });
            }
        }
        Ok(tensors)
    }
}

pub(super) fn map(path: &Path) -> Result<Mmap, Error> {
    let io = |source| checkpoint::Error::io("read", path, source);
    let file = File::open(path).map_err(io)?;
    // SAFETY: no one changes a checkpoint while it is being loaded; who does, changes the values that are
    // read, and who cuts it short ends the program.
    Ok(unsafe { Mmap::map(&file) }.map_err(io)?)
}

/// Says what is there instead.
fn nothing_there(dir: &Path) -> Error {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let other = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| [".safetensors", ".bin", ".pt", ".pth"].iter().any(|end| name.ends_with(end)));
    let other = other.map(|name| format!("; {name} is not looked at")).unwrap_or_default();
    let [one, index, pickle, pickle_index] = WEIGHTS.map(|weights| weights.file);
    let message = format!("there is no {one}, {index}, {pickle} or {pickle_index}{other}");
    Error::Tensors { path: dir.to_owned(), message }
}
