//! Gathers what the readers deliver: resolves paths, checks them, keeps ids distinct.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    Error, Format, Rejected, Utterance,
    error::{Kind, Problem, quoted},
};

/// What a manifest gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Import {
    /// The format that it was read as.
    pub format: Format,
    /// What can be used, in the order of the manifest.
    pub utterances: Vec<Utterance>,
    /// What cannot, in the order of the manifest.
    pub rejected: Vec<Rejected>,
    /// Lines that ask to be left out (`_skipme`).
    pub n_skipped: usize,
}

impl Import {
    /// The utterances, or the first mistake.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`].
    pub fn strict(self) -> Result<Vec<Utterance>, Error> {
        match self.rejected.into_iter().next() {
            Some(rejected) => Err(rejected.into()),
            None => Ok(self.utterances),
        }
    }
}

/// What one line gave.
pub(super) enum Entry {
    /// An utterance; an empty id asks for one made from the file's name.
    Utterance(Box<Utterance>),
    /// The line asks to be left out.
    Skip,
}

impl From<Utterance> for Entry {
    fn from(utterance: Utterance) -> Self {
        Self::Utterance(Box::new(utterance))
    }
}

pub(super) struct Collector {
    import: Import,
    /// Where relative paths start.
    folder: PathBuf,
    /// Whether sound files must exist.
    check_files: bool,
    /// Every id with the line that has it.
    ids: HashMap<String, (PathBuf, usize)>,
    /// Paths as written, and what they stand for.
    resolved: HashMap<PathBuf, Option<PathBuf>>,
}

impl Collector {
    pub(super) fn new(format: Format, folder: &Path, check_files: bool) -> Self {
        let import = Import { format, utterances: Vec::new(), rejected: Vec::new(), n_skipped: 0 };
        let (ids, resolved) = (HashMap::new(), HashMap::new());
        Self { import, folder: folder.to_owned(), check_files, ids, resolved }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn add(&mut self, file: &Path, line: usize, entry: Result<Entry, Problem>) {
        let accepted = entry.and_then(|entry| match entry {
            Entry::Skip => Ok(None),
            Entry::Utterance(utterance) => self.accept(file, line, *utterance).map(Some),
        });
        match accepted {
            Ok(Some(utterance)) => self.import.utterances.push(utterance),
            Ok(None) => self.import.n_skipped += 1,
            Err(problem) => self.import.rejected.push(problem.at(file.to_owned(), line)),
        }
    }

    pub(super) fn finish(self, path: &Path) -> Result<Import, Error> {
        let Import { utterances, rejected, n_skipped, .. } = &self.import;
        if utterances.is_empty() && rejected.is_empty() && *n_skipped == 0 {
            return Err(Error::Empty { path: path.to_owned() });
        }
        Ok(self.import)
    }

    fn accept(
        &mut self,
        file: &Path,
        line: usize,
        mut utterance: Utterance,
    ) -> Result<Utterance, Problem> {
        utterance.audio.path = self.resolve(&utterance.audio.path)?;
        if utterance.id.is_empty() {
            let stem = utterance.audio.path.file_stem().unwrap_or_default();
            utterance.id = stem.to_string_lossy().into_owned();
            if utterance.id.is_empty() {
                utterance.id = format!("utterance-{line}");
            }
            while self.ids.contains_key(&utterance.id) {
                utterance.id = format!("{}-{line}", utterance.id);
            }
        } else if let Some((other, other_line)) = self.ids.get(&utterance.id) {
            let found = quoted(&utterance.id);
            let expected = format!("an id other than that of {}:{other_line}", other.display());
            return Err(Problem::new(Kind::DuplicateId, "id", found, expected));
        }
        for word in &utterance.words {
            let times = 0.0 <= word.start_s && word.start_s <= word.end_s && word.end_s.is_finite();
            if !times || word.confidence.is_some_and(|confidence| !confidence.is_finite()) {
                let found = format!("{:?} from {} to {} s", word.label, word.start_s, word.end_s);
                let expected = "0 <= start <= end and a finite confidence";
                return Err(Problem::new(Kind::BadValue, "words", found, expected));
            }
        }
        self.ids.insert(utterance.id.clone(), (file.to_owned(), line));
        Ok(utterance)
    }

    /// A path relative to the manifest's folder, or else to the current one.
    fn resolve(&mut self, path: &Path) -> Result<PathBuf, Problem> {
        let text = path.to_string_lossy();
        let expected = "the path of a sound file";
        if text.is_empty() || text.contains('\0') {
            return Err(Problem::new(Kind::BadValue, "path", quoted(&text), expected));
        }
        if text.contains("://") || text.starts_with("data:") {
            return Err(Problem::new(Kind::Unsupported, "path", quoted(&text), expected));
        }
        if !self.check_files {
            return Ok(self.folder.join(path));
        }
        if !self.resolved.contains_key(path) {
            let candidates = [self.folder.join(path), path.to_owned()];
            let existing = candidates.into_iter().find(|candidate| candidate.is_file());
            self.resolved.insert(path.to_owned(), existing);
        }
        self.resolved[path].clone().ok_or_else(|| {
            let found = quoted(&self.folder.join(path).to_string_lossy());
            Problem::new(Kind::NoFile, "path", found, "an existing file")
        })
    }
}
