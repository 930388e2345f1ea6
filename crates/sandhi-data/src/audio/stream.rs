//! Symphonia behind one door: opening, packets, seeking, with its panics caught.
//!
//! Symphonia returns errors for bad input, but it parses untrusted bytes; the fuzz test finds panics in version 0.6.1
//! (a WAV header that claims 65,535 channels overflows in a debug build). Every call into it therefore runs
//! under `catch_unwind`, and a panic becomes a value. Whatever state it left behind is not used again.

use std::{
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
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

use super::{AudioInfo, Expected};

/// A WAV header that claims this many bytes or more was written by a program that could not
/// seek back (SoX writes 0x7ffff000), so its length means nothing.
const UNKNOWN_WAV_BYTES: u64 = 0x7fff_0000;

/// One audio track of a container.
pub(super) struct Stream {
    format: Box<dyn FormatReader>,
    codec: Box<dyn AudioDecoder>,
    track_id: u32,
    sample_rate_hz: u32,
    /// Packets carry exact positions and each decodes by itself, so that seeking is exact.
    exact: bool,
}

impl Stream {
    /// Recognizes the container by its content and opens its first audio track.
    pub(super) fn open(
        source: Box<dyn MediaSource>,
    ) -> Result<(Self, AudioInfo, Option<Expected>), Failure> {
        let stream = MediaSourceStream::new(source, Default::default());
        let format = guarded(|| {
            symphonia::default::get_probe().probe(
                &Hint::new(),
                stream,
                FormatOptions::default(),
                MetadataOptions::default(),
            )
        })?;
        let track = format
            .default_track(TrackType::Audio)
            .ok_or_else(|| Failure::unsupported("file without an audio track"))?;
        let params: &AudioCodecParameters = track
            .codec_params
            .as_ref()
            .and_then(|params| params.audio())
            .ok_or_else(|| Failure::unsupported("audio track without a codec"))?;
        let sample_rate_hz = params
            .sample_rate
            .ok_or_else(|| Failure::unsupported("audio track without a sample rate"))?;
        let n_channels = params.channels.as_ref().map_or(0, |channels| channels.count());

        let container = format.format_info().format;
        let is_mpeg = [CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3].contains(&params.codec);
        // Without an encoder's tag the length of an MP3 is a guess from its first frames.
        let is_guess = is_mpeg && track.delay.is_none();
        let n_samples = track.num_frames.filter(|_| !is_guess).filter(|&n| {
            let bytes_per_sample = u64::from(params.bits_per_sample.unwrap_or(32)).div_ceil(8);
            let n_bytes = n.saturating_mul(bytes_per_sample).saturating_mul(n_channels as u64);
            container != FORMAT_ID_WAVE || n_bytes < UNKNOWN_WAV_BYTES
        });
        let expected = match n_samples {
            Some(n) => Some(Expected::Samples(n)),
            None if container == FORMAT_ID_OGG => Some(Expected::EndOfStreamPage),
            None => None,
        };
        let guessed = track.num_frames.filter(|_| is_guess);
        let info = AudioInfo {
            format: format.format_info().short_name,
            sample_rate_hz,
            n_channels,
            n_samples,
            duration_s: n_samples.or(guessed).map(|n| n as f64 / f64::from(sample_rate_hz)),
        };
        let options = AudioDecoderOptions::default()
            // A guessed length must not trim.
            .gapless(!is_guess)
            // The checksum is the only way to notice a missing end when the length is not known.
            .verify(params.codec == CODEC_ID_FLAC && n_samples.is_none());
        let codec =
            guarded(|| symphonia::default::get_codecs().make_audio_decoder(params, &options))
                .map_err(|failure| Failure::Unsupported(format!("codec: {failure}")))?;
        let track_id = track.id;
        let exact = [FORMAT_ID_WAVE, FORMAT_ID_FLAC].contains(&container);
        Ok((Self { format, codec, track_id, sample_rate_hz, exact }, info, expected))
    }

    /// Puts the next block, which must start at sample `position`, into `interleaved`. Returns
    /// its number of channels, or nothing at the end of the stream.
    pub(super) fn next(
        &mut self,
        position: u64,
        interleaved: &mut Vec<f32>,
    ) -> Result<Option<usize>, Failure> {
        loop {
            let packet = match guarded(|| self.format.next_packet()) {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(None),
                // The caller knows how many samples there should be.
                Err(failure) if failure.is_end_of_file() => return Ok(None),
                Err(failure) => return Err(failure),
            };
            if packet.track_id != self.track_id {
                continue;
            }
            // A gap means that a damaged frame was dropped on the way.
            let start = packet.pts.get();
            if self.exact && u64::try_from(start).ok() != Some(position) {
                return Err(Failure::Damage(format!("the next intact frame starts at {start}")));
            }
            let codec = &mut self.codec;
            let (rate, n_channels) = guarded(|| {
                let buffer = codec.decode(&packet)?;
                buffer.copy_to_vec_interleaved(interleaved);
                Ok((buffer.spec().rate(), buffer.num_planes()))
            })?;
            if rate != self.sample_rate_hz {
                let found = format!("change of the sample rate to {rate} Hz");
                return Err(Failure::Unsupported(found));
            }
            if !interleaved.is_empty() {
                return Ok(Some(n_channels));
            }
        }
    }

    /// Moves to a packet that starts at or before `sample_idx` and returns its position. Formats without exact
    /// positions stay where they are, which is the start.
    pub(super) fn seek_before(&mut self, sample_idx: u64) -> Result<u64, Failure> {
        let Some(ts) = i64::try_from(sample_idx).ok().filter(|_| self.exact) else { return Ok(0) };
        let to = SeekTo::Timestamp { ts: Timestamp::new(ts), track_id: self.track_id };
        let seeked = guarded(|| self.format.seek(SeekMode::Accurate, to))?;
        self.codec.reset();
        match u64::try_from(seeked.actual_ts.get()) {
            Ok(reached) if reached <= sample_idx => Ok(reached),
            _ => Err(Failure::Damage(format!("no frame starts at or before sample {sample_idx}"))),
        }
    }

    /// Whether the checksum of the whole stream, where one is kept, does not match.
    pub(super) fn checksum_differs(&mut self) -> bool {
        self.codec.finalize().verify_ok == Some(false)
    }
}

/// Why a decoder gave nothing.
pub(super) enum Failure {
    /// What symphonia says.
    Symphonia(SymphoniaError),
    /// Symphonia's panic message.
    Panic(String),
    /// Well formed, but not for us.
    Unsupported(String),
    /// Bytes that make no sense.
    Damage(String),
}

impl Failure {
    fn unsupported(found: &str) -> Self {
        Self::Unsupported(found.to_owned())
    }

    /// Whether the bytes ended where more were needed.
    pub(super) fn is_end_of_file(&self) -> bool {
        matches!(self, Self::Symphonia(SymphoniaError::IoError(e)) if e.kind() == ErrorKind::UnexpectedEof)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Symphonia(SymphoniaError::DecodeError(reason)) => f.write_str(reason),
            Self::Symphonia(error) => write!(f, "{error}"),
            Self::Panic(message) => write!(f, "the decoder panicked: {message}"),
            Self::Unsupported(reason) | Self::Damage(reason) => f.write_str(reason),
        }
    }
}

/// Calls into symphonia; a panic there becomes a value.
fn guarded<T>(call: impl FnOnce() -> Result<T, SymphoniaError>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(Failure::Symphonia),
        Err(panic) => {
            let message = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            Err(Failure::Panic(message.unwrap_or_default()))
        }
    }
}
