//! `checkpoint.json`: what a checkpoint must hold, sealed by a hash of itself.
//!
//! ```text
//! {
//!   "format": "sandhi-checkpoint-1",
//!   "model_fingerprint": "…",
//!   "files": { "model.safetensors": { "size": …, "blake3": "…", "tensors": { … } } },
//!   "blake3": "…"          hash of every byte of this file but these 64 digits
//! }
//! ```

use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::tensors::Dtype;
use super::{Error, Result, files};

/// The format that this program writes and reads.
pub(super) const FORMAT: &str = "sandhi-checkpoint-1";
/// The name of the manifest inside a checkpoint.
pub(super) const FILE: &str = "checkpoint.json";

/// The manifest of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: String,
    pub(super) model_fingerprint: String,
    pub(super) files: IndexMap<String, FileEntry>,
    /// The seal; empty in memory.
    blake3: String,
}

/// What a file was when it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    pub(super) size: u64,
    pub(super) blake3: String,
    /// Only files of tensors have some.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub(super) tensors: IndexMap<String, TensorEntry>,
}

/// Where a tensor lies in its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TensorEntry {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// First byte and the byte after the last, counted from the beginning of the file.
    pub(super) bytes: [u64; 2],
    pub(super) blake3: String,
}

const N_DIGITS: usize = 64;
const TAIL: &[u8] = b"\"\n}\n";
const HEAD: &[u8] = b",\n  \"blake3\": \"";

impl Manifest {
    pub(super) fn new(model_fingerprint: String, files: IndexMap<String, FileEntry>) -> Self {
        Self { format: FORMAT.to_owned(), model_fingerprint, files, blake3: String::new() }
    }

    /// The bytes of the file, with the seal.
    pub(super) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        let open = Self { blake3: "0".repeat(N_DIGITS), ..self.clone() };
        let mut bytes = files::pretty_json(path, &open)?;
        let digits = bytes.len() - TAIL.len() - N_DIGITS..bytes.len() - TAIL.len();
        let seal = seal(&bytes[..digits.start]);
        bytes[digits].copy_from_slice(seal.as_bytes());
        Ok(bytes)
    }

    /// Reads the bytes of the file; any changed byte is an error.
    pub(super) fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        let altered = || Error::FileAltered { path: path.to_owned() };
        let head = bytes.strip_suffix(TAIL).ok_or_else(altered)?;
        let start = head.len().checked_sub(N_DIGITS).ok_or_else(altered)?;
        let (body, digits) = head.split_at(start);
        if !body.ends_with(HEAD) || seal(body).as_bytes() != digits {
            return Err(altered());
        }
        // From here on the bytes are those that some program of ours wrote.
        #[derive(Deserialize)]
        struct Format {
            format: String,
        }
        let reason = |e: serde_json::Error| Error::Format {
            path: path.to_owned(),
            reason: format!("not a manifest of a checkpoint: {e}"),
        };
        let Format { format } = serde_json::from_slice(bytes).map_err(reason)?;
        if format != FORMAT {
            let path = path.to_owned();
            return Err(Error::Version { path, found: format, expected: FORMAT });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(reason)?;
        Ok(Self { blake3: String::new(), ..manifest })
    }
}

/// The hash of everything but the digits: the tail is constant, so the body decides.
fn seal(body: &[u8]) -> String {
    blake3::hash(body).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Manifest {
        let tensor = TensorEntry {
            dtype: Dtype::F16,
            shape: vec![2],
            bytes: [80, 84],
            blake3: "ab".repeat(32),
        };
        let file = FileEntry {
            size: 84,
            blake3: "cd".repeat(32),
            tensors: IndexMap::from([("w".to_owned(), tensor)]),
        };
        Manifest::new("slm \"small\"".into(), IndexMap::from([("m.safetensors".to_owned(), file)]))
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let path = Path::new("checkpoint.json");
        let bytes = example().to_bytes(path).unwrap();
        assert_eq!(Manifest::from_bytes(&bytes, path).unwrap(), example());
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[position] ^= 1 << bit;
                assert!(Manifest::from_bytes(&changed, path).is_err(), "{position} {bit}");
            }
            assert!(Manifest::from_bytes(&bytes[..position], path).is_err(), "{position}");
        }
    }

    #[test]
    fn another_format_is_named() {
        let path = Path::new("checkpoint.json");
        let next = Manifest { format: "sandhi-checkpoint-2".into(), ..example() };
        let error = Manifest::from_bytes(&next.to_bytes(path).unwrap(), path).unwrap_err();
        assert!(matches!(error, Error::Version { .. }), "{error}");
    }
}
