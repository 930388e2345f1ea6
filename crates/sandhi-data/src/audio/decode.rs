//! Decoding a container into mono blocks at the file's own rate, through symphonia.
//!
//! ```text
//! bytes ─ probe by content ─ packets ─ codec ─ interleaved f32 ─ mean of the channels ─ samples
//!                               └─ positions must follow each other, the count must be what the header says
//! ```
//!
//! Symphonia returns errors for bad input, but it parses untrusted bytes and has panicked before; every
//! call into it therefore runs under `catch_unwind`, and a panic becomes [`Error::Corrupt`].

use std::{
    fs::File,
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use symphonia::core::{
    codecs::audio::{
        AudioCodecParameters, AudioDecoder, AudioDecoderOptions,
        well_known::{CODEC_ID_FLAC, CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3},
    },
    errors::Error as SymphoniaError,
    formats::{
        FormatOptions, FormatReader, SeekMode, SeekTo, TrackType,
        probe::Hint,
        well_known::{FORMAT_ID_FLAC, FORMAT_ID_OGG, FORMAT_ID_WAVE},
    },
    io::{MediaSource, MediaSourceStream},
    meta::MetadataOptions,
    units::Timestamp,
};

use super::{AudioInfo, Error, Expected, MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ, error::describe};

/// A WAV header that claims this many bytes or more was written by a program that could not
/// seek back (SoX writes 0x7ffff000), so its length means nothing.
const UNKNOWN_WAV_BYTES: u64 = 0x7fff_0000;

/// A reader that gives mono blocks at the file's own rate.
pub(super) struct Decoder {
    file: String,
    format: Box<dyn FormatReader>,
    codec: Box<dyn AudioDecoder>,
    track_id: u32,
    info: AudioInfo,
    /// Checked when the stream ends.
    expected: Option<Expected>,
    /// Packets carry exact positions and each decodes by itself, so that seeking is exact.
    seekable: bool,
    /// Samples per channel that were given out or skipped.
    position: u64,
    interleaved: Vec<f32>,
}

impl Decoder {
    /// Opens a file. The extension is not looked at.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = path.display().to_string();
        let open = |source| Error::Open { file: file.clone(), source };
        let source = File::open(path).map_err(open)?;
        let metadata = source.metadata().map_err(open)?;
        if metadata.is_dir() {
            return Err(open(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
        }
        if metadata.is_file() && metadata.len() == 0 {
            return Err(Error::EmptyFile { file });
        }
        let head = || {
            let mut head = Vec::new();
            let read = File::open(path).and_then(|f| {
                std::io::Read::read_to_end(&mut std::io::Read::take(f, 16), &mut head)
            });
            if read.is_ok() { describe(&head) } else { "an unreadable file".to_owned() }
        };
        Self::from_source(Box::new(source), file.clone(), head)
    }

    /// Opens bytes; `name` stands for the file in messages.
    pub(super) fn from_bytes(bytes: Vec<u8>, name: &str) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Err(Error::EmptyFile { file: name.to_owned() });
        }
        let head = describe(&bytes);
        Self::from_source(Box::new(Cursor::new(bytes)), name.to_owned(), || head)
    }

    fn from_source(
        source: Box<dyn MediaSource>,
        file: String,
        head: impl FnOnce() -> String,
    ) -> Result<Self, Error> {
        let stream = MediaSourceStream::new(source, Default::default());
        let probed = guarded(|| {
            symphonia::default::get_probe().probe(
                &Hint::new(),
                stream,
                FormatOptions::default(),
                MetadataOptions::default(),
            )
        });
        let format = match probed {
            Ok(format) => format,
            // A known container whose header is broken says so; anything else was not recognized.
            Err(Failure::Symphonia(SymphoniaError::DecodeError(reason))) => {
                return Err(Error::Corrupt { file, sample_idx: 0, reason: reason.to_owned() });
            }
            Err(Failure::Symphonia(SymphoniaError::IoError(source)))
                if source.kind() != std::io::ErrorKind::UnexpectedEof =>
            {
                return Err(Error::Read { file, source });
            }
            // The probe itself says "core (probe): ...", a reader names its format.
            Err(Failure::Symphonia(SymphoniaError::Unsupported(what)))
                if !what.starts_with("core") =>
            {
                return Err(Error::Unsupported { file, found: what.to_owned() });
            }
            Err(Failure::Symphonia(_)) => return Err(Error::NotAudio { file, found: head() }),
            Err(Failure::Panic(reason)) => {
                return Err(Error::Corrupt { file, sample_idx: 0, reason });
            }
        };
        Self::from_format(format, file)
    }

    fn from_format(format: Box<dyn FormatReader>, file: String) -> Result<Self, Error> {
        let unsupported =
            |found: &str| Error::Unsupported { file: file.clone(), found: found.to_owned() };
        let track = format
            .default_track(TrackType::Audio)
            .ok_or_else(|| unsupported("file without an audio track"))?;
        let params: &AudioCodecParameters = track
            .codec_params
            .as_ref()
            .and_then(|params| params.audio())
            .ok_or_else(|| unsupported("audio track without a codec"))?;
        let sample_rate_hz =
            params.sample_rate.ok_or_else(|| unsupported("audio track without a sample rate"))?;
        if !(MIN_SAMPLE_RATE_HZ..=MAX_SAMPLE_RATE_HZ).contains(&sample_rate_hz) {
            return Err(Error::SampleRate { file, found: sample_rate_hz });
        }
        let n_channels = params.channels.as_ref().map_or(0, |channels| channels.count());

        let container = format.format_info().format;
        let is_mpeg = [CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3].contains(&params.codec);
        // Without an encoder's tag the length of an MP3 is a guess from its first frames.
        let n_samples = track.num_frames.filter(|_| !is_mpeg || track.delay.is_some());
        let n_samples = n_samples.filter(|&n| {
            let bytes_per_sample = u64::from(params.bits_per_sample.unwrap_or(32)).div_ceil(8);
            let n_bytes = n.saturating_mul(bytes_per_sample).saturating_mul(n_channels as u64);
            container != FORMAT_ID_WAVE || n_bytes < UNKNOWN_WAV_BYTES
        });
        let expected = match n_samples {
            Some(n) => Some(Expected::Samples(n)),
            None if container == FORMAT_ID_OGG => Some(Expected::EndOfStreamPage),
            None => None,
        };
        let options = AudioDecoderOptions::default()
            // A guessed length must not trim.
            .gapless(!is_mpeg || track.delay.is_some())
            // The checksum is the only way to notice a missing end when the length is not known.
            .verify(params.codec == CODEC_ID_FLAC && n_samples.is_none());
        let codec =
            guarded(|| symphonia::default::get_codecs().make_audio_decoder(params, &options));
        let codec = match codec {
            Ok(codec) => codec,
            Err(failure) => return Err(unsupported(&format!("codec: {failure}"))),
        };
        let info = AudioInfo {
            format: format.format_info().short_name,
            sample_rate_hz,
            n_channels,
            n_samples,
            duration_s: n_samples
                .or(track.num_frames.filter(|_| is_mpeg))
                .map(|n| n as f64 / f64::from(sample_rate_hz)),
        };
        let (track_id, seekable) =
            (track.id, [FORMAT_ID_WAVE, FORMAT_ID_FLAC].contains(&container));
        Ok(Self {
            file,
            format,
            codec,
            track_id,
            info,
            expected,
            seekable,
            position: 0,
            interleaved: Vec::new(),
        })
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

    /// Moves near `sample_idx`, never beyond it. The position says where; what cannot be
    /// reached exactly stays where it is.
    pub(super) fn seek_before(&mut self, sample_idx: u64) -> Result<(), Error> {
        let Some(n) = self.info.n_samples.filter(|_| self.seekable) else { return Ok(()) };
        let Ok(ts) = i64::try_from(sample_idx.min(n)) else { return Ok(()) };
        let to = SeekTo::Timestamp { ts: Timestamp::new(ts), track_id: self.track_id };
        let seeked = guarded(|| self.format.seek(SeekMode::Accurate, to));
        let reached = match seeked {
            Ok(seeked) => u64::try_from(seeked.actual_ts.get()).unwrap_or(u64::MAX),
            Err(failure) => return Err(self.failed(failure)),
        };
        if reached > sample_idx {
            let reason = format!("no frame starts at or before sample {sample_idx}");
            return Err(self.corrupt(reason));
        }
        self.codec.reset();
        self.position = reached;
        Ok(())
    }

    /// Appends the next block of mono samples to `out`. Returns false at the end of the stream.
    ///
    /// # Errors
    ///
    /// What [`super::Waveform::read`] returns.
    pub(super) fn next(&mut self, out: &mut Vec<f32>) -> Result<bool, Error> {
        loop {
            let packet = match guarded(|| self.format.next_packet()) {
                Ok(Some(packet)) => packet,
                Ok(None) => return self.end().map(|()| false),
                Err(Failure::Symphonia(SymphoniaError::IoError(e)))
                    if e.kind() == std::io::ErrorKind::UnexpectedEof =>
                {
                    return self.end().map(|()| false);
                }
                Err(failure) => return Err(self.failed(failure)),
            };
            if packet.track_id != self.track_id {
                continue;
            }
            // A gap means that a damaged frame was dropped on the way.
            if self.seekable && u64::try_from(packet.pts.get()).ok() != Some(self.position) {
                let found = packet.pts.get();
                return Err(self.corrupt(format!("the next intact frame starts at {found}")));
            }
            let interleaved = &mut self.interleaved;
            let codec = &mut self.codec;
            let decoded = guarded(|| {
                let buffer = codec.decode(&packet)?;
                buffer.copy_to_vec_interleaved(interleaved);
                Ok((buffer.spec().rate(), buffer.num_planes(), buffer.frames()))
            });
            let (rate, n_planes, n_frames) = match decoded {
                Ok(decoded) => decoded,
                Err(failure) => return Err(self.failed(failure)),
            };
            if n_frames == 0 {
                continue;
            }
            if rate != self.info.sample_rate_hz {
                let found = format!("change of the sample rate to {rate} Hz");
                return Err(Error::Unsupported { file: self.file.clone(), found });
            }
            let start = out.len();
            mix_down(&self.interleaved, n_planes, out);
            if let Some(i) = out[start..].iter().position(|x| !x.is_finite()) {
                return Err(Error::NonFinite {
                    file: self.file.clone(),
                    sample_idx: self.position + i as u64,
                    value: out[start + i],
                });
            }
            self.position += (out.len() - start) as u64;
            return Ok(true);
        }
    }

    /// Checks the number of samples when the stream is over.
    fn end(&mut self) -> Result<(), Error> {
        let found = self.position;
        let file = self.file.clone();
        match self.expected {
            Some(expected @ Expected::Samples(n)) if found < n => {
                Err(Error::Truncated { file, found, expected })
            }
            Some(expected @ Expected::EndOfStreamPage) => {
                Err(Error::Truncated { file, found, expected })
            }
            _ if found == 0 => Err(Error::NoSamples { file }),
            _ if self.codec.finalize().verify_ok == Some(false) => {
                Err(self.corrupt("the checksum of the whole stream does not match".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn corrupt(&self, reason: String) -> Error {
        Error::Corrupt { file: self.file.clone(), sample_idx: self.position, reason }
    }

    fn failed(&self, failure: Failure) -> Error {
        match failure {
            Failure::Symphonia(SymphoniaError::IoError(source))
                if source.kind() != std::io::ErrorKind::UnexpectedEof =>
            {
                Error::Read { file: self.file.clone(), source }
            }
            Failure::Symphonia(SymphoniaError::ResetRequired) => Error::Unsupported {
                file: self.file.clone(),
                found: "chain of several streams in one file".to_owned(),
            },
            failure => self.corrupt(failure.to_string()),
        }
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

/// Why a call into symphonia gave nothing.
enum Failure {
    Symphonia(SymphoniaError),
    Panic(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Symphonia(error) => write!(f, "{error}"),
            Self::Panic(message) => write!(f, "the decoder panicked: {message}"),
        }
    }
}

/// Calls into symphonia; a panic there becomes a value.
fn guarded<T>(call: impl FnOnce() -> Result<T, SymphoniaError>) -> Result<T, Failure> {
    // Whatever state the panic left behind is not used again: the caller gives up on the file.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(Failure::Symphonia),
        Err(panic) => {
            let message = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            Err(Failure::Panic(message))
        }
    }
}
