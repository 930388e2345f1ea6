//! Decoding a container into mono blocks at the file's own rate.
//!
//! ```text
//! bytes ─ probe by content ─┬─ Stream (symphonia) ─┬─ interleaved f32 ─ mean of the channels ─ samples
//!                           └─ WideWav (hound) ────┘        │                  └ all finite
//!                                                           └ positions follow each other, the count is what the header says
//! ```

use std::{
    fs::File,
    io::{Cursor, ErrorKind, Read},
    path::Path,
    sync::Arc,
};

use symphonia::core::{errors::Error as SymphoniaError, io::MediaSource};

use super::{
    AudioInfo, Error, Expected, MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ,
    error::describe,
    stream::{Failure, Stream},
    wide_wav::{self, WideWav},
};

/// Bytes that are looked at before a decoder is chosen.
const HEAD_LEN: u64 = 64;

/// A reader that gives mono blocks at the file's own rate.
pub(super) struct Decoder {
    file: String,
    source: Source,
    info: AudioInfo,
    /// Checked when the stream ends.
    expected: Option<Expected>,
    /// Samples per channel that were given out or skipped.
    position: u64,
    interleaved: Vec<f32>,
}

enum Source {
    Stream(Stream),
    WideWav(WideWav),
}

impl Decoder {
    /// Opens a file. The extension is not looked at.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = path.display().to_string();
        let failed = |source| Error::Open { file: file.clone(), source };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(std::io::Error::from(ErrorKind::IsADirectory)));
        }
        if !metadata.is_file() {
            // A pipe can be read only once and not sought in.
            return Self::from_bytes(std::fs::read(path).map_err(failed)?, &file);
        }
        if metadata.len() == 0 {
            return Err(Error::EmptyFile { file });
        }
        Self::from_opener(file.clone(), || Ok(Box::new(File::open(path)?)))
    }

    /// Opens bytes; `name` stands for the file in messages.
    pub(super) fn from_bytes(bytes: Vec<u8>, name: &str) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Err(Error::EmptyFile { file: name.to_owned() });
        }
        let bytes: Arc<[u8]> = bytes.into();
        Self::from_opener(name.to_owned(), || Ok(Box::new(Cursor::new(bytes.clone()))))
    }

    /// Opens what `open` gives; it is called first for a look at the start, then for the decoder.
    fn from_opener(
        file: String,
        open: impl Fn() -> std::io::Result<Box<dyn MediaSource>>,
    ) -> Result<Self, Error> {
        let opened = || open().map_err(|source| Error::Open { file: file.clone(), source });
        let mut head = Vec::new();
        let read = opened()?.take(HEAD_LEN).read_to_end(&mut head);
        read.map_err(|source| Error::Read { file: file.clone(), source })?;

        let wide = || -> Result<_, Error> {
            let (wav, info, expected) =
                WideWav::open(opened()?).map_err(|failure| failed(&file, 0, failure))?;
            Ok((Source::WideWav(wav), info, expected))
        };
        let (source, info, expected) = if wide_wav::is_wide(&head) {
            wide()?
        } else {
            match Stream::open(opened()?) {
                Ok((stream, info, expected)) => (Source::Stream(stream), info, expected),
                // The header's format may come behind other chunks.
                Err(failure) if failure.to_string().contains("channel") => wide()?,
                Err(failure) => return Err(not_opened(&file, failure, &head)),
            }
        };
        let found = info.sample_rate_hz;
        if !(MIN_SAMPLE_RATE_HZ..=MAX_SAMPLE_RATE_HZ).contains(&found) {
            return Err(Error::SampleRate { file, found });
        }
        Ok(Self { file, source, info, expected, position: 0, interleaved: Vec::new() })
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    pub(super) fn info(&self) -> &AudioInfo {
        &self.info
    }

    /// Samples per channel that were given out or skipped.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Moves near `sample_idx`, never beyond it; [`Decoder::position`] says where. After an
    /// error the decoder is of no more use.
    pub(super) fn seek_before(&mut self, sample_idx: u64) -> Result<(), Error> {
        if let Source::Stream(stream) = &mut self.source {
            let reached = stream.seek_before(sample_idx);
            self.position = reached.map_err(|failure| failed(&self.file, 0, failure))?;
        }
        Ok(())
    }

    /// Appends the next block of mono samples to `out`. Returns false at the end of the stream.
    ///
    /// # Errors
    ///
    /// What [`super::Waveform::read`] returns.
    pub(super) fn next(&mut self, out: &mut Vec<f32>) -> Result<bool, Error> {
        self.interleaved.clear();
        let block = match &mut self.source {
            Source::Stream(stream) => stream.next(self.position, &mut self.interleaved),
            Source::WideWav(wav) => wav.next(&mut self.interleaved),
        };
        let Some(n_channels) = block.map_err(|f| failed(&self.file, self.position, f))? else {
            self.check_end()?;
            return Ok(false);
        };
        let start = out.len();
        mix_down(&self.interleaved, n_channels, out);
        if let Some(i) = out[start..].iter().position(|x| !x.is_finite()) {
            return Err(Error::NonFinite {
                file: self.file.clone(),
                sample_idx: self.position + i as u64,
                value: out[start + i],
            });
        }
        self.position += (out.len() - start) as u64;
        Ok(true)
    }

    /// Checks the number of samples when the stream is over.
    fn check_end(&mut self) -> Result<(), Error> {
        let name = self.file.clone();
        let file = || name.clone();
        let found = self.position;
        match self.expected {
            Some(expected @ Expected::Samples(n)) if found < n => {
                return Err(Error::Truncated { file: file(), found, expected });
            }
            Some(expected @ Expected::EndOfStreamPage) => {
                return Err(Error::Truncated { file: file(), found, expected });
            }
            _ if found == 0 => return Err(Error::NoSamples { file: file() }),
            _ => {}
        }
        let differs = match &mut self.source {
            Source::Stream(stream) => stream.checksum_differs(),
            Source::WideWav(_) => false,
        };
        if differs {
            let reason = "the checksum of the whole stream does not match".to_owned();
            return Err(Error::Corrupt { file: file(), sample_idx: found, reason });
        }
        Ok(())
    }
}

/// The error for a file that could not be opened and starts with `head`.
fn not_opened(file: &str, failure: Failure, head: &[u8]) -> Error {
    let is_known = [b"RIFF", b"fLaC", b"OggS"].iter().any(|magic| head.starts_with(*magic));
    match failure {
        failure if failure.is_end_of_file() && is_known => Error::Corrupt {
            file: file.to_owned(),
            sample_idx: 0,
            reason: "the file ends inside its header".to_owned(),
        },
        // The probe itself says "core (probe): ..."; a reader names its format.
        Failure::Symphonia(SymphoniaError::Unsupported(what)) if !what.starts_with("core") => {
            Error::Unsupported { file: file.to_owned(), found: what.to_owned() }
        }
        Failure::Symphonia(SymphoniaError::Unsupported(_) | SymphoniaError::LimitError(_)) => {
            Error::NotAudio { file: file.to_owned(), found: describe(head) }
        }
        failure if failure.is_end_of_file() => {
            Error::NotAudio { file: file.to_owned(), found: describe(head) }
        }
        failure => failed(file, 0, failure),
    }
}

/// The error for a file that was recognized.
fn failed(file: &str, sample_idx: u64, failure: Failure) -> Error {
    let file = file.to_owned();
    match failure {
        Failure::Symphonia(SymphoniaError::IoError(source))
            if source.kind() != ErrorKind::UnexpectedEof =>
        {
            Error::Read { file, source }
        }
        Failure::Symphonia(SymphoniaError::ResetRequired) => {
            Error::Unsupported { file, found: "chain of several streams in one file".to_owned() }
        }
        Failure::Unsupported(found) => Error::Unsupported { file, found },
        failure => Error::Corrupt { file, sample_idx, reason: failure.to_string() },
    }
}

/// Appends the mean of the channels.
fn mix_down(interleaved: &[f32], n_channels: usize, out: &mut Vec<f32>) {
    match n_channels {
        0 => {}
        1 => out.extend_from_slice(interleaved),
        2 => out.extend(interleaved.chunks_exact(2).map(|pair| 0.5 * (pair[0] + pair[1]))),
        n => {
            let scale = 1.0 / n as f32;
            out.extend(interleaved.chunks_exact(n).map(|all| all.iter().sum::<f32>() * scale));
        }
    }
}
