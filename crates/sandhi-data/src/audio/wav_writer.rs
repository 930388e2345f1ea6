//! WAV files of any length, written as their samples come.
//!
//! ```text
//! samples, samples, … ─ FILE.wav.partial ─ finish ─> FILE.wav        one that is not finished is removed
//! ```

use std::{
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use super::{Error, to_16_bit, wav_spec};

/// A mono WAV file of 16 bit that is being written beside its final name, and gets that name when it is whole.
pub struct WavWriter {
    path: PathBuf,
    partial: PathBuf,
    /// `None` once the file is finished.
    sink: Option<hound::WavWriter<BufWriter<File>>>,
    n_samples: u64,
}

impl std::fmt::Debug for WavWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WavWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Samples that a WAV file holds at most: sizes have 32 bits.
const MOST_SAMPLES: u64 = (u32::MAX as u64 - 64) / 2;

impl WavWriter {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// [`Error::Write`].
    pub fn create(path: &Path, sample_rate_hz: u32) -> Result<Self, Error> {
        let partial = path.with_added_extension("partial");
        let sink = hound::WavWriter::create(&partial, wav_spec(sample_rate_hz))
            .map_err(|source| failed(path, source))?;
        Ok(Self { path: path.to_owned(), partial, sink: Some(sink), n_samples: 0 })
    }

    /// Adds samples. Values outside of `[-1, 1)` are clipped, NaN becomes 0.
    ///
    /// # Errors
    ///
    /// [`Error::Write`], also when the file would exceed 4 GiB.
    pub fn push(&mut self, samples: &[f32]) -> Result<(), Error> {
        self.n_samples += samples.len() as u64;
        if self.n_samples > MOST_SAMPLES {
            let full = io::Error::new(io::ErrorKind::FileTooLarge, "a WAV file holds up to 4 GiB");
            return Err(failed(&self.path, full.into()));
        }
        let sink = self.sink.as_mut().expect("only `finish` takes it, and the writer with it");
        let mut write = || samples.iter().try_for_each(|&x| sink.write_sample(to_16_bit(x)));
        write().map_err(|source| failed(&self.path, source))
    }

    /// Ends the file and gives it its name; returns how many samples it has.
    ///
    /// # Errors
    ///
    /// [`Error::Write`].
    pub fn finish(mut self) -> Result<u64, Error> {
        let sink = self.sink.take().expect("only `finish` takes it, and the writer with it");
        let renamed = sink
            .finalize()
            .and_then(|()| Ok(fs::rename(&self.partial, &self.path)?))
            .map_err(|source| failed(&self.path, source));
        renamed.inspect_err(|_| {
            // The error that matters is the first.
            let _ = fs::remove_file(&self.partial);
        })?;
        Ok(self.n_samples)
    }
}

impl Drop for WavWriter {
    fn drop(&mut self) {
        if self.sink.take().is_some() {
            // Nobody is left to be told.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

fn failed(path: &Path, source: hound::Error) -> Error {
    Error::Write { file: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::Waveform;

    #[test]
    fn parts_are_the_file_that_is_written_at_once_and_half_a_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, parts) = (dir.path().join("whole.wav"), dir.path().join("parts.wav"));
        let samples: Vec<f32> = (0..1_000).map(|i| (i as f32 * 0.1).sin() * 1.2).collect();
        Waveform::new(samples.clone(), 16_000).write_wav(&whole).unwrap();
        let mut writer = WavWriter::create(&parts, 16_000).unwrap();
        for part in samples.chunks(300) {
            writer.push(part).unwrap();
        }
        assert!(!parts.exists());
        assert_eq!(writer.finish().unwrap(), 1_000);
        assert_eq!(fs::read(&parts).unwrap(), fs::read(&whole).unwrap());
        let mut half = WavWriter::create(&dir.path().join("half.wav"), 16_000).unwrap();
        half.push(&samples).unwrap();
        drop(half);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        let error = WavWriter::create(&dir.path().join("none/a.wav"), 16_000).unwrap_err();
        assert!(error.to_string().contains("a.wav"), "{error}");
    }
}
