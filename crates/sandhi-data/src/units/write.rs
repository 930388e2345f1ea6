//! Writing units, an utterance at a time.
//!
//! ```text
//! header, utterance, utterance … ─> FILE.partial ─ index, sync, rename ─> FILE, or the file that a link points to
//!                              └──> a pipe or a device
//! ```

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{Error, Format, UnitUtterance, UnitsHeader, binary, jsonl};
use crate::files::{Place, place};

/// A file that is being written beside its final name, and gets that name when it is whole. One that is not finished
/// is removed. What a link points to is replaced, not the link; a device or a pipe is written into.
#[derive(Debug)]
pub struct UnitWriter {
    path: PathBuf,
    /// The file beside it, and what that is renamed to.
    renamed: Option<[PathBuf; 2]>,
    /// `None` once the file is finished.
    sink: Option<Sink<BufWriter<File>>>,
}

impl UnitWriter {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// [`Error::Header`], [`Error::Io`].
    pub fn create(path: &Path, format: Format, header: UnitsHeader) -> Result<Self, Error> {
        let renamed = match place(path) {
            Place::File(target) => Some([target.with_added_extension("partial"), target]),
            Place::Stream => None,
        };
        let opened = match &renamed {
            Some([partial, _]) => File::create(partial).map_err(|source| io_error(partial, source)),
            None => File::options().write(true).open(path).map_err(|source| io_error(path, source)),
        };
        let mut this = Self { path: path.to_owned(), renamed, sink: None };
        let sink = Sink::new(BufWriter::new(opened?), format, header, path);
        this.sink = Some(sink.inspect_err(|_| this.remove())?);
        Ok(this)
    }

    /// Adds an utterance.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], and what is wrong with an utterance, which is then not written.
    pub fn push(&mut self, utterance: &UnitUtterance) -> Result<(), Error> {
        let sink = self.sink.as_mut().expect("only `finish` takes it, and the writer with it");
        sink.push(utterance, &self.path)
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn finish(mut self) -> Result<(), Error> {
        let sink = self.sink.take().expect("only `finish` takes it, and the writer with it");
        let written = sink.finish(&self.path).and_then(|mut writer| {
            let done = match &self.renamed {
                // A pipe has nothing to sync.
                None => writer.flush(),
                Some([partial, target]) => writer
                    .into_inner()
                    .map_err(io::IntoInnerError::into_error)
                    .and_then(|file| file.sync_all())
                    .and_then(|()| fs::rename(partial, target)),
            };
            done.map_err(|source| io_error(&self.path, source))
        });
        written.inspect_err(|_| self.remove())
    }

    /// Removes what was begun.
    fn remove(&self) {
        if let Some([partial, _]) = &self.renamed {
            // The error that led here is the one that matters.
            let _ = fs::remove_file(partial);
        }
    }
}

impl Drop for UnitWriter {
    fn drop(&mut self) {
        if self.sink.is_some() {
            self.remove();
        }
    }
}

/// The bytes of a file of these utterances.
///
/// # Errors
///
/// What [`UnitWriter`] says of header and utterances.
pub fn to_bytes(
    format: Format,
    header: &UnitsHeader,
    utterances: &[UnitUtterance],
) -> Result<Vec<u8>, Error> {
    let path = Path::new("units");
    let mut sink = Sink::new(Vec::new(), format, header.clone(), path)?;
    for utterance in utterances {
        sink.push(utterance, path)?;
    }
    sink.finish(path)
}

#[derive(Debug)]
struct Sink<W> {
    writer: W,
    format: Format,
    header: UnitsHeader,
    n_written: u64,
    ids: HashSet<String>,
    /// Of the utterances so far, where the format has an index.
    entries: Vec<binary::Entry>,
}

impl<W: Write> Sink<W> {
    fn new(mut writer: W, format: Format, header: UnitsHeader, path: &Path) -> Result<Self, Error> {
        if let Some((found, expected)) = header.problem() {
            return Err(Error::Header { at: path.display().to_string(), found, expected });
        }
        let head = match format {
            Format::Jsonl => jsonl::header_line(&header),
            Format::Binary => binary::head(&header),
        };
        writer.write_all(&head).map_err(|source| io_error(path, source))?;
        let n_written = head.len() as u64;
        Ok(Self { writer, format, header, n_written, ids: HashSet::new(), entries: Vec::new() })
    }

    fn push(&mut self, utterance: &UnitUtterance, path: &Path) -> Result<(), Error> {
        let index = self.ids.len();
        let at = || format!("{}: number {index}", path.display());
        utterance.check(&self.header, at)?;
        if self.ids.contains(&utterance.id) {
            let first = "the same file".to_owned();
            return Err(Error::Duplicate { at: at(), id: utterance.id.clone(), first });
        }
        let bytes = match self.format {
            Format::Jsonl => jsonl::line(utterance),
            Format::Binary => {
                let record = binary::record(&self.header, utterance, self.n_written);
                let (bytes, entry) = record.ok_or_else(|| Error::Malformed {
                    at: at(),
                    found: "an utterance of 2^32 units or bytes of text, or more".to_owned(),
                    expected: "fewer",
                })?;
                self.entries.push(entry);
                bytes
            }
        };
        self.writer.write_all(&bytes).map_err(|source| io_error(path, source))?;
        self.n_written += bytes.len() as u64;
        self.ids.insert(utterance.id.clone());
        Ok(())
    }

    fn finish(mut self, path: &Path) -> Result<W, Error> {
        if self.format == Format::Binary {
            let index = binary::index(&binary::head(&self.header), &self.entries);
            self.writer.write_all(&index).map_err(|source| io_error(path, source))?;
        }
        Ok(self.writer)
    }
}

fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), action: "write", source }
}
