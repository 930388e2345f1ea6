//! Units in a file that is mapped into memory: what is not asked for is not read.
//!
//! ```text
//! head         "sandhiU\n" │ version, u32 │ length of the header, u32 │ header, JSON
//! utterances   units, u16 or u32, one after another │ id, words, text, language, JSON
//! index        start, u64 │ units, u32 │ bytes of JSON, u32 │ hash of the id, u64 │ hash of the utterance, u64
//! tail         utterances, u64 │ BLAKE3 of head, index and their number │ "sandhiE\n"
//! ```
//!
//! All numbers are little-endian. Units take two bytes where the quantizer has at most 65,536. Head and index are
//! checked when the file is opened, an utterance when it is read, so that a byte that was changed is noticed and
//! nothing is read in vain. A file without its tail was cut short.

use std::{fs::File, ops::Deref, path::Path};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use super::{Error, UnitUtterance, UnitWord, UnitsHeader, VERSION};

pub(super) const MAGIC: &[u8; 8] = b"sandhiU\n";
const END: &[u8; 8] = b"sandhiE\n";
/// Magic, version and the header's length.
const N_HEAD: usize = 16;
const N_ENTRY: usize = 32;
const N_HASH: usize = blake3::OUT_LEN;
/// Number of utterances, hash and magic.
const N_TAIL: usize = 8 + N_HASH + 8;

/// The bytes of a file.
#[derive(Debug)]
pub(super) enum Bytes {
    Mapped(Mmap),
    Held(Vec<u8>),
}

impl Bytes {
    pub(super) fn map(file: &File) -> std::io::Result<Self> {
        // SAFETY: no one changes a corpus while it is being read; who does, changes the units that are read, which
        // their hash tells, and who cuts it short ends the program.
        unsafe { Mmap::map(file) }.map(Self::Mapped)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Held(bytes) => bytes,
        }
    }
}

/// An utterance without its units.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rest {
    id: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    words: Vec<UnitWord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    language: Option<String>,
}

/// Where an utterance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    start: u64,
    n_units: u32,
    n_rest: u32,
    id_hash: u64,
    hash: u64,
}

impl Entry {
    fn to_bytes(self) -> [u8; N_ENTRY] {
        let mut bytes = [0; N_ENTRY];
        bytes[..8].copy_from_slice(&self.start.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.n_units.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.n_rest.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id_hash.to_le_bytes());
        bytes[24..].copy_from_slice(&self.hash.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        Self {
            start: u64_at(bytes, 0),
            n_units: u32_at(bytes, 8),
            n_rest: u32_at(bytes, 12),
            id_hash: u64_at(bytes, 16),
            hash: u64_at(bytes, 24),
        }
    }

    /// One past its last byte; no sum of these overflows.
    fn end(&self, n_width: u64) -> u128 {
        u128::from(self.start)
            + u128::from(self.n_units) * u128::from(n_width)
            + u128::from(self.n_rest)
    }
}

/// A file that is open.
#[derive(Debug)]
pub(super) struct Binary {
    bytes: Bytes,
    header: UnitsHeader,
    index_start: usize,
    n_utterances: usize,
}

impl Binary {
    pub(super) fn open(bytes: Bytes, path: &Path) -> Result<Self, Error> {
        let damaged = |found: String, expected: String| Error::Damaged {
            path: path.to_owned(),
            found,
            expected,
        };
        let n_bytes = bytes.len();
        if n_bytes < N_HEAD + N_TAIL {
            let least = N_HEAD + N_TAIL;
            return Err(damaged(format!("{n_bytes} bytes"), format!("at least {least}")));
        }
        let found = u32_at(&bytes, 8);
        if found != VERSION {
            let found = u64::from(found);
            return Err(Error::Version { path: path.to_owned(), found, expected: VERSION });
        }
        if !bytes.ends_with(END) {
            return Err(damaged("another end".to_owned(), "that of a whole file".to_owned()));
        }
        let tail = n_bytes - N_TAIL;
        let n_head = (N_HEAD as u128) + u128::from(u32_at(&bytes, 12));
        let n_index = u128::from(u64_at(&bytes, tail)) * N_ENTRY as u128;
        if n_head + n_index > tail as u128 {
            let expected = format!("at most {tail}");
            return Err(damaged(format!("{} bytes of head and index", n_head + n_index), expected));
        }
        // Both are below the length of the file.
        let (n_head, n_index) = (n_head as usize, n_index as usize);
        let index_start = tail - n_index;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes[..n_head]).update(&bytes[index_start..tail + 8]);
        if hasher.finalize().as_bytes()[..] != bytes[tail + 8..tail + 8 + N_HASH] {
            let expected = "those that were written, by their hash".to_owned();
            return Err(damaged("other bytes in head or index".to_owned(), expected));
        }
        let at = || path.display().to_string();
        let header: UnitsHeader =
            serde_json::from_slice(&bytes[N_HEAD..n_head]).map_err(|error| Error::Header {
                at: at(),
                found: error.to_string(),
                expected: "a header with `quantizer`, `n_units` and `rate_hz`",
            })?;
        if let Some((found, expected)) = header.problem() {
            return Err(Error::Header { at: at(), found, expected });
        }
        let binary = Self { header, index_start, n_utterances: n_index / N_ENTRY, bytes };
        let mut end = n_head as u128;
        for (i, entry) in binary.entries().enumerate() {
            if u128::from(entry.start) != end {
                let found = format!("utterance {i} at byte {}", entry.start);
                return Err(damaged(found, format!("it at {end}")));
            }
            end = entry.end(width(&binary.header));
        }
        if end != index_start as u128 {
            let found = format!("utterances up to byte {end}");
            return Err(damaged(found, format!("them to end at {index_start}")));
        }
        Ok(binary)
    }

    pub(super) fn header(&self) -> &UnitsHeader {
        &self.header
    }

    pub(super) fn len(&self) -> usize {
        self.n_utterances
    }

    /// A hash of every utterance's id.
    pub(super) fn id_hashes(&self) -> impl Iterator<Item = u64> {
        self.entries().map(|entry| entry.id_hash)
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        let index = &self.bytes[self.index_start..self.index_start + self.n_utterances * N_ENTRY];
        index.chunks_exact(N_ENTRY).map(Entry::from_bytes)
    }

    /// An utterance by its number, which is below [`Binary::len`].
    pub(super) fn get(&self, index: usize, path: &Path) -> Result<UnitUtterance, Error> {
        let damaged = |found: String, expected: &str| Error::Damaged {
            path: path.to_owned(),
            found: format!("in utterance {index} {found}"),
            expected: expected.to_owned(),
        };
        let at = self.index_start + index * N_ENTRY;
        let entry = Entry::from_bytes(&self.bytes[at..at + N_ENTRY]);
        let n_width = width(&self.header);
        // Opening the file found all utterances to lie within it.
        let record = &self.bytes[entry.start as usize..entry.end(n_width) as usize];
        if short_hash(record) != entry.hash {
            return Err(damaged(
                "other bytes".to_owned(),
                "those that were written, by their hash",
            ));
        }
        let (units, rest) = record.split_at(entry.n_units as usize * n_width as usize);
        let units = if n_width == 2 {
            units
                .chunks_exact(2)
                .map(|unit| u32::from(u16::from_le_bytes([unit[0], unit[1]])))
                .collect()
        } else {
            units.chunks_exact(4).map(|unit| u32_at(unit, 0)).collect()
        };
        let Rest { id, words, text, language } =
            serde_json::from_slice(rest).map_err(|error| damaged(error.to_string(), "its text"))?;
        let utterance = UnitUtterance { id, units, words, text, language };
        utterance.check(&self.header, || format!("{}: number {index}", path.display()))?;
        Ok(utterance)
    }
}

/// What a file begins with.
pub(super) fn head(header: &UnitsHeader) -> Vec<u8> {
    let json = serde_json::to_vec(header).expect("texts and finite numbers");
    let n_json = u32::try_from(json.len()).expect("a header is short");
    [&MAGIC[..], &VERSION.to_le_bytes(), &n_json.to_le_bytes(), &json].concat()
}

/// An utterance that starts at a byte, and its entry; `None` where it has 2^32 units or bytes.
pub(super) fn record(
    header: &UnitsHeader,
    utterance: &UnitUtterance,
    start: u64,
) -> Option<(Vec<u8>, Entry)> {
    let UnitUtterance { id, units, words, text, language } = utterance.clone();
    let id_hash = short_hash(id.as_bytes());
    let rest = serde_json::to_vec(&Rest { id, words, text, language }).expect("texts and numbers");
    let mut record = Vec::with_capacity(units.len() * width(header) as usize + rest.len());
    for unit in &units {
        record.extend_from_slice(&unit.to_le_bytes()[..width(header) as usize]);
    }
    record.extend_from_slice(&rest);
    let n_units = u32::try_from(units.len()).ok()?;
    let n_rest = u32::try_from(rest.len()).ok()?;
    let entry = Entry { start, n_units, n_rest, id_hash, hash: short_hash(&record) };
    Some((record, entry))
}

/// What a file ends with.
pub(super) fn index(head: &[u8], entries: &[Entry]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_bytes()).collect();
    bytes.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    let hash = blake3::Hasher::new().update(head).update(&bytes).finalize();
    bytes.extend_from_slice(hash.as_bytes());
    bytes.extend_from_slice(END);
    bytes
}

/// Bytes of a unit.
fn width(header: &UnitsHeader) -> u64 {
    if header.n_units <= 1 << 16 { 2 } else { 4 }
}

/// The first 8 bytes of BLAKE3.
pub(super) fn short_hash(bytes: &[u8]) -> u64 {
    u64_at(blake3::hash(bytes).as_bytes(), 0)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
