//! Encoder frames on disk, so that a frozen encoder hears every utterance once.
//!
//! ```text
//! key = hash(encoder weights, samples, augmentation)  ->  frames/ab/ab34….frames
//! ```
//!
//! A file holds a hash and the values; one that does not match its hash is made again.

use std::path::{Path, PathBuf};

use sandhi_data::replace_file;

use crate::checkpoint::{Error, files};

/// A folder of encoder frames.
#[derive(Debug, Clone)]
pub struct FrameCache {
    dir: PathBuf,
    encoder: String,
}

impl FrameCache {
    /// Frames of the encoder with this fingerprint, below `dir`.
    pub fn new(dir: &Path, encoder: &str) -> Self {
        Self { dir: dir.join("frames"), encoder: encoder.to_owned() }
    }

    /// The key of an utterance.
    pub fn key(&self, samples: &[f32], augmentation: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.encoder.as_bytes());
        hasher.update(&[0]);
        hasher.update(augmentation.as_bytes());
        hasher.update(&[0]);
        hasher.update(bytemuck::cast_slice(samples));
        hasher.finalize().to_hex().to_string()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.join(&key[..2]).join(format!("{key}.frames"))
    }

    /// The frames of a key, row-major, if they are there and whole.
    pub fn get(&self, key: &str) -> Option<Vec<f32>> {
        let bytes = std::fs::read(self.path(key)).ok()?;
        let (hash, values) = bytes.split_at_checked(32)?;
        if blake3::hash(values).as_bytes() != hash || values.len() % 4 != 0 {
            return None;
        }
        Some(values.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// Stores the frames of a key.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn put(&self, key: &str, frames: &[f32]) -> Result<(), Error> {
        let values: Vec<u8> = frames.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut bytes = blake3::hash(&values).as_bytes().to_vec();
        bytes.extend(values);
        let path = self.path(key);
        files::create_dir_all(files::parent(&path))?;
        replace_file(&path, &bytes).map_err(|error| Error::io("write", &path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = FrameCache::new(dir.path(), "encoder");
        let key = cache.key(&[0.5, -0.5], "none");
        assert_eq!(cache.get(&key), None);
        cache.put(&key, &[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(cache.get(&key), Some(vec![1.0, 2.0, 3.0]));
        let path = cache.path(&key);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(cache.get(&key), None);
    }

    #[test]
    fn encoders_samples_and_augmentations_have_keys_of_their_own() {
        let cache = FrameCache::new(Path::new("x"), "a");
        let keys = [
            cache.key(&[1.0], "none"),
            cache.key(&[2.0], "none"),
            cache.key(&[1.0], "speed 0.9"),
            FrameCache::new(Path::new("x"), "b").key(&[1.0], "none"),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key));
        }
    }
}
