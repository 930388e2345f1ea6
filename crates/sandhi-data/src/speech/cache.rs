//! Speech on disk, named by what it was made from.
//!
//! ```text
//! speech/ab/ab12….wav    RIFF │ fmt │ data: 16-bit samples │ sndh: BLAKE3 of all else, then words and phonemes as JSON
//! ```
//!
//! Every player plays the file, because unknown chunks are skipped. A file is written beside its final name and
//! renamed; one that is truncated or altered is noticed by its hash and made again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Error, Request, SAMPLE_RATE_HZ, Speech, render};
use crate::{alignment::Alignment, audio::Waveform, replace_file};

/// Changes whenever the same request gives other samples or times.
const VERSION: u32 = 1;

/// RIFF and fmt chunks, and the head of the data chunk.
const HEADER: usize = 44;
/// The chunk's name and length.
const CHUNK_HEADER: usize = 8;
const CHUNK_NAME: &[u8; 4] = b"sndh";

#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    espeak_version: String,
}

#[derive(Serialize, Deserialize)]
struct Meta {
    voice: String,
    words_per_minute: u32,
    words: Vec<Alignment>,
    phonemes: Vec<Alignment>,
}

impl Cache {
    pub(super) fn open(dir: &Path, espeak_version: &str) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(|e| failed(dir, "create the folder", e))?;
        Ok(Self { dir: dir.to_owned(), espeak_version: espeak_version.to_owned() })
    }

    /// BLAKE3 of everything that the speech depends on, in hexadecimal digits.
    pub(super) fn key(&self, request: &Request) -> String {
        let mut hasher = blake3::Hasher::new();
        // Lengths keep the end of one part from passing as the start of the next.
        let voice = request.voice.map(|voice| format!("voice {voice}"));
        let parts = [
            &VERSION.to_string(),
            &self.espeak_version,
            request.language.code(),
            request.domain.name(),
            &request.seed.to_string(),
            &request.text,
        ];
        for part in parts.into_iter().chain(voice.as_deref()) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.join(&key[..2]).join(format!("{key}.wav"))
    }

    /// The speech of that key; `None` where it is missing or damaged.
    pub(super) fn get(&self, key: &str) -> Result<Option<Speech>, Error> {
        let path = self.path(key);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path, "read", error)),
        };
        let speech = decode(&bytes);
        if speech.is_none() {
            tracing::warn!("{}: damaged, made again", path.display());
        }
        Ok(speech)
    }

    pub(super) fn put(&self, key: &str, speech: &Speech) -> Result<(), Error> {
        let path = self.path(key);
        let folder = self.dir.join(&key[..2]);
        fs::create_dir_all(&folder).map_err(|e| failed(&folder, "create the folder", e))?;
        replace_file(&path, &encode(speech)).map_err(|error| failed(&path, "write", error))
    }
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> Error {
    Error::Cache { path: path.to_owned(), action, source }
}

fn encode(speech: &Speech) -> Vec<u8> {
    let meta = Meta {
        voice: speech.voice.clone(),
        words_per_minute: speech.words_per_minute,
        words: speech.words.clone(),
        phonemes: speech.phonemes.clone(),
    };
    let mut json = serde_json::to_vec(&meta).expect("strings and finite numbers");
    if json.len() % 2 == 1 {
        // Chunks have an even length.
        json.push(b' ');
    }
    let n_data = 2 * speech.waveform.samples.len();
    let n_chunk = blake3::OUT_LEN + json.len();
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let rate = SAMPLE_RATE_HZ.to_le_bytes();
    let byte_rate = (2 * SAMPLE_RATE_HZ).to_le_bytes();

    let mut bytes = Vec::with_capacity(HEADER + n_data + CHUNK_HEADER + n_chunk);
    for part in [
        &b"RIFF"[..],
        &size(HEADER - 8 + n_data + CHUNK_HEADER + n_chunk),
        b"WAVEfmt ",
        // Length of the chunk, PCM, one channel, rates, bytes and bits of a sample.
        &[16, 0, 0, 0, 1, 0, 1, 0],
        &rate,
        &byte_rate,
        &[2, 0, 16, 0],
        b"data",
        &size(n_data),
    ] {
        bytes.extend_from_slice(part);
    }
    for &sample in &speech.waveform.samples {
        bytes.extend_from_slice(&render::quantize(sample).to_le_bytes());
    }
    let hash = hash(&bytes, &json);
    bytes.extend_from_slice(CHUNK_NAME);
    bytes.extend_from_slice(&size(n_chunk));
    bytes.extend_from_slice(hash.as_bytes());
    bytes.extend_from_slice(&json);
    bytes
}

fn hash(sound: &[u8], json: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(sound);
    hasher.update(json);
    hasher.finalize()
}

/// The speech of a whole file; `None` for anything that [`encode`] did not write.
fn decode(bytes: &[u8]) -> Option<Speech> {
    let n_data = u32::from_le_bytes(*bytes.get(HEADER - 4..)?.first_chunk()?) as usize;
    let (sound, chunk) = bytes.split_at_checked(HEADER.checked_add(n_data)?)?;
    let (expected, json) = chunk.get(CHUNK_HEADER..)?.split_first_chunk::<{ blake3::OUT_LEN }>()?;
    if hash(sound, json) != blake3::Hash::from_bytes(*expected) || !chunk.starts_with(CHUNK_NAME) {
        return None;
    }
    let meta: Meta = serde_json::from_slice(json).ok()?;
    let samples = sound[HEADER..]
        .chunks_exact(2)
        .map(|pair| render::dequantize(i16::from_le_bytes([pair[0], pair[1]])))
        .collect();
    Some(Speech {
        waveform: Waveform { samples, sample_rate_hz: SAMPLE_RATE_HZ },
        words: meta.words,
        phonemes: meta.phonemes,
        voice: meta.voice,
        words_per_minute: meta.words_per_minute,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{alignment::Source, language::Language, speech::Domain};

    fn speech() -> Speech {
        let word = |label: &str, start_s, end_s| Alignment {
            label: label.to_owned(),
            start_s,
            end_s,
            confidence: Some(0.5),
            source: Source::Exact,
        };
        Speech {
            waveform: Waveform {
                samples: (0..1_000).map(|i| (i - 500) as f32 / 1_024.0).collect(),
                sample_rate_hz: SAMPLE_RATE_HZ,
            },
            words: vec![word("Müller", 0.1 + 0.2, 1.0 / 3.0)],
            phonemes: vec![word("ʏ", 1e-17, 0.7)],
            voice: "de+m1".to_owned(),
            words_per_minute: 115,
        }
    }

    fn request(text: &str, seed: u64) -> Request {
        let (language, domain) = (Language::German, Domain::Base);
        Request { text: text.to_owned(), language, domain, seed, voice: None }
    }

    #[test]
    fn what_was_put_is_got_to_the_bit() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), "1.51").unwrap();
        let key = cache.key(&request("a", 1));
        assert_eq!(cache.get(&key).unwrap(), None);
        cache.put(&key, &speech()).unwrap();
        assert_eq!(cache.get(&key).unwrap(), Some(speech()));
        // And it is a WAV file for everybody else.
        let wave = Waveform::read(&cache.path(&key)).unwrap();
        assert_eq!(wave, speech().waveform);
        let left: Vec<_> = fs::read_dir(dir.path().join(&key[..2])).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary file stays");
    }

    #[test]
    fn every_damage_is_noticed() {
        let bytes = encode(&speech());
        assert!(decode(&bytes).is_some());
        // The lengths of RIFF and of the last chunk do not matter for reading.
        let n_chunk = HEADER + 2_000 + 4..HEADER + 2_000 + 8;
        for i in (0..bytes.len()).filter(|i| !n_chunk.contains(i)) {
            let mut altered = bytes.clone();
            altered[i] ^= 1;
            assert!(decode(&altered).is_none(), "byte {i}");
        }
        for n in 0..bytes.len() {
            assert!(decode(&bytes[..n]).is_none(), "{n} bytes");
        }
    }

    #[test]
    fn keys_depend_on_everything() {
        let cache = |version| Cache { dir: PathBuf::new(), espeak_version: String::from(version) };
        let key = cache("1.51").key(&request("a", 1));
        assert_eq!(key, cache("1.51").key(&request("a", 1)));
        assert_ne!(key, cache("1.52").key(&request("a", 1)));
        assert_ne!(key, cache("1.51").key(&request("b", 1)));
        assert_ne!(key, cache("1.51").key(&request("a", 2)));
        let wild = Request { domain: Domain::Wild, ..request("a", 1) };
        let english = Request { language: Language::English, ..request("a", 1) };
        let voiced = Request { voice: Some(1), ..request("a", 1) };
        assert_ne!(key, cache("1.51").key(&wild));
        assert_ne!(key, cache("1.51").key(&english));
        assert_ne!(key, cache("1.51").key(&voiced));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = Cache::open(&file.join("speech"), "1.51").unwrap_err().to_string();
        assert!(error.contains("cannot create the folder") && error.contains("file"), "{error}");
    }
}
