//! Files of units in either format, alone and joined.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use super::{
    Error, UnitUtterance, UnitsHeader,
    binary::{self, Binary, Bytes},
    jsonl,
};

/// One file, its utterances by their numbers.
#[derive(Debug)]
pub struct UnitFile {
    path: PathBuf,
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    /// Each with its line.
    Lines(UnitsHeader, Vec<(usize, UnitUtterance)>),
    Binary(Binary),
}

impl UnitFile {
    /// Opens a file, whose content tells its format. JSON lines are read whole, the binary format is mapped into memory.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, and where.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io { path: path.to_owned(), action: "read", source };
        let mut file = File::open(path).map_err(failed)?;
        let mut start = Vec::new();
        let n_magic = binary::MAGIC.len() as u64;
        file.by_ref().take(n_magic).read_to_end(&mut start).map_err(failed)?;
        let bytes = if start == binary::MAGIC {
            Bytes::map(&file).map_err(failed)?
        } else {
            Bytes::Held(fs::read(path).map_err(failed)?)
        };
        Self::of(bytes, path)
    }

    /// Reads the bytes of a file; `name` stands for it in messages.
    ///
    /// # Errors
    ///
    /// As [`UnitFile::open`].
    pub fn decode(bytes: Vec<u8>, name: &str) -> Result<Self, Error> {
        Self::of(Bytes::Held(bytes), Path::new(name))
    }

    fn of(bytes: Bytes, path: &Path) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Err(Error::Empty { path: path.to_owned() });
        }
        let contents = if bytes.starts_with(binary::MAGIC) {
            Contents::Binary(Binary::open(bytes, path)?)
        } else {
            let (header, utterances) = jsonl::decode(&bytes, path)?;
            Contents::Lines(header, utterances)
        };
        let file = Self { path: path.to_owned(), contents };
        check_ids(std::slice::from_ref(&file))?;
        Ok(file)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its utterances share.
    pub fn header(&self) -> &UnitsHeader {
        match &self.contents {
            Contents::Lines(header, _) => header,
            Contents::Binary(binary) => binary.header(),
        }
    }

    /// How many utterances it has.
    pub fn len(&self) -> usize {
        match &self.contents {
            Contents::Lines(_, utterances) => utterances.len(),
            Contents::Binary(binary) => binary.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An utterance by its number.
    ///
    /// # Errors
    ///
    /// [`Error::Outside`], [`Error::Damaged`], and what is wrong with the utterance.
    pub fn get(&self, index: usize) -> Result<UnitUtterance, Error> {
        let outside = Error::Outside { index, len: self.len() };
        match &self.contents {
            Contents::Lines(_, utterances) => {
                utterances.get(index).map(|(_, utterance)| utterance.clone()).ok_or(outside)
            }
            Contents::Binary(binary) if index < binary.len() => binary.get(index, &self.path),
            Contents::Binary(_) => Err(outside),
        }
    }

    /// Where an utterance stands: the file with its line, or with its number where there are no lines.
    ///
    /// # Panics
    ///
    /// When there is no such utterance.
    pub fn place(&self, index: usize) -> String {
        let path = self.path.display();
        match &self.contents {
            Contents::Lines(_, utterances) => format!("{path}:{}", utterances[index].0),
            Contents::Binary(_) => format!("{path}: number {index}"),
        }
    }

    /// A hash of every utterance's id.
    fn id_hashes(&self) -> Vec<u64> {
        match &self.contents {
            Contents::Lines(_, utterances) => {
                let ids = utterances.iter().map(|(_, utterance)| utterance.id.as_bytes());
                ids.map(binary::short_hash).collect()
            }
            Contents::Binary(binary) => binary.id_hashes().collect(),
        }
    }
}

/// Files of one quantizer, one after another.
#[derive(Debug)]
pub struct UnitCorpus {
    files: Vec<UnitFile>,
    /// The number of every file's first utterance, and that of all.
    starts: Vec<usize>,
}

impl UnitCorpus {
    /// Opens files, all of which must be of one quantizer and rate.
    ///
    /// # Errors
    ///
    /// [`Error::NoFiles`], [`Error::Mixed`], [`Error::Duplicate`], and what is wrong with a file.
    pub fn open(paths: &[PathBuf]) -> Result<Self, Error> {
        let files: Result<_, _> = paths.iter().map(|path| UnitFile::open(path)).collect();
        Self::of(files?)
    }

    /// Joins files that are open.
    ///
    /// # Errors
    ///
    /// As [`UnitCorpus::open`].
    pub fn of(files: Vec<UnitFile>) -> Result<Self, Error> {
        let first = files.first().ok_or(Error::NoFiles)?;
        for second in &files[1..] {
            check_mixed(first, second)?;
        }
        check_ids(&files)?;
        let mut starts = vec![0];
        for file in &files {
            starts.push(starts[starts.len() - 1] + file.len());
        }
        Ok(Self { files, starts })
    }

    /// What all utterances share.
    pub fn header(&self) -> &UnitsHeader {
        self.files[0].header()
    }

    /// How many utterances there are.
    pub fn len(&self) -> usize {
        self.starts[self.files.len()]
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An utterance by its number, counted over the files in their order.
    ///
    /// # Errors
    ///
    /// As [`UnitFile::get`].
    pub fn get(&self, index: usize) -> Result<UnitUtterance, Error> {
        if index >= self.len() {
            return Err(Error::Outside { index, len: self.len() });
        }
        let (file, index) = self.find(index);
        file.get(index)
    }

    /// As [`UnitFile::place`].
    ///
    /// # Panics
    ///
    /// When there is no such utterance.
    pub fn place(&self, index: usize) -> String {
        let (file, index) = self.find(index);
        file.place(index)
    }

    /// The file of an utterance, and its number there.
    fn find(&self, index: usize) -> (&UnitFile, usize) {
        let file = self.starts.partition_point(|&start| start <= index) - 1;
        (&self.files[file], index - self.starts[file])
    }
}

fn check_mixed(first: &UnitFile, second: &UnitFile) -> Result<(), Error> {
    let (a, b) = (first.header(), second.header());
    let fields = [
        ("quantizer", a.quantizer.clone(), b.quantizer.clone()),
        ("n_units", a.n_units.to_string(), b.n_units.to_string()),
        ("rate_hz", a.rate_hz.to_string(), b.rate_hz.to_string()),
    ];
    match fields.into_iter().find(|(_, a, b)| a != b) {
        None => Ok(()),
        Some((field, expected, found)) => {
            let (first, second) = (first.path.clone(), second.path.clone());
            Err(Error::Mixed { first, second, field, expected, found })
        }
    }
}

/// Refuses utterances of one name, in one file or in two.
fn check_ids(files: &[UnitFile]) -> Result<(), Error> {
    let mut seen: HashMap<u64, (usize, usize)> = HashMap::new();
    for (file_idx, file) in files.iter().enumerate() {
        for (index, hash) in file.id_hashes().into_iter().enumerate() {
            let Some((first_idx, first_index)) = seen.insert(hash, (file_idx, index)) else {
                continue;
            };
            let first = &files[first_idx];
            // Two names may have one hash.
            let (id, other) = (file.get(index)?.id, first.get(first_index)?.id);
            if id == other {
                let first = first.place(first_index);
                return Err(Error::Duplicate { at: file.place(index), id, first });
            }
        }
    }
    Ok(())
}
