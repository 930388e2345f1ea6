//! Sound: decoding WAV, FLAC, MP3 and Ogg Vorbis, mixing to mono, resampling, writing WAV.
//!
//! ```text
//! file ─ probe by content ─ decode ─ mono ─┬─ Waveform (whole, or a span)
//!                                          └─ resample ─ Blocks (bounded memory)
//! ```
//!
//! The name's extension is never looked at: a FLAC called `.wav` is read, a text called `.wav` is an error.
//! WAV may be 8, 16, 24 or 32 bit, 32 or 64 bit float, A-law or μ-law, with any number of channels.

mod blocks;
mod decode;
mod error;
mod resample;
mod stream;
mod wav_writer;
mod wide_wav;

use std::{io::Cursor, path::Path};

use decode::Decoder;

pub use self::{
    blocks::Blocks,
    error::{Error, Expected},
    resample::{Resampler, resampled_len},
    wav_writer::WavWriter,
};

/// The lowest sample rate that is read or made, in Hz.
pub const MIN_SAMPLE_RATE_HZ: u32 = 1_000;
/// The highest sample rate that is read or made, in Hz.
pub const MAX_SAMPLE_RATE_HZ: u32 = 768_000;

/// Sound whose largest amplitude is below this (-80 dB of full scale) is silence.
pub const SILENT_PEAK: f32 = 1e-4;

/// How far the end of a span may lie behind the end of its file, in seconds: manifests round.
pub const SPAN_TOLERANCE_S: f64 = 0.05;

/// One channel of sound.
#[derive(Debug, Clone, PartialEq)]
pub struct Waveform {
    /// Amplitudes, nominally in `[-1, 1]`; a float file may exceed that. Always finite when read.
    pub samples: Vec<f32>,
    /// Samples per second.
    pub sample_rate_hz: u32,
}

/// What a file's header says.
#[derive(Debug, Clone, PartialEq)]
pub struct AudioInfo {
    /// The container: `wave`, `flac`, `mp3`, `ogg`.
    pub format: &'static str,
    /// Samples per second.
    pub sample_rate_hz: u32,
    /// Channels in the file, before they are mixed.
    pub n_channels: usize,
    /// Samples per channel, where the header states it.
    pub n_samples: Option<u64>,
    /// Length in seconds: exact where `n_samples` is known, an estimate from the bit rate for
    /// an MP3 without an encoder's tag, absent for a stream of unknown length.
    pub duration_s: Option<f64>,
}

/// Reads a file's header without decoding the sound.
///
/// # Errors
///
/// As [`Waveform::read`], for what the header shows.
pub fn probe(path: &Path) -> Result<AudioInfo, Error> {
    Ok(Decoder::open(path)?.info().clone())
}

impl Waveform {
    /// A waveform from its parts.
    pub fn new(samples: Vec<f32>, sample_rate_hz: u32) -> Self {
        Self { samples, sample_rate_hz }
    }

    /// Reads a whole file at its own rate; several channels become their mean.
    ///
    /// # Errors
    ///
    /// Each variant of [`Error`] but those of spans and writing: a file that cannot be opened, is empty, is no
    /// audio, is truncated or damaged, has no samples, or has a sample that is not finite.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::collect(Decoder::open(path)?)
    }

    /// Reads a whole file and converts it to `sample_rate_hz` while decoding.
    ///
    /// # Errors
    ///
    /// As [`Waveform::read`], and [`Error::SampleRate`] for a target rate out of range.
    pub fn read_resampled(path: &Path, sample_rate_hz: u32) -> Result<Self, Error> {
        let mut samples = Vec::new();
        for block in Blocks::open(path, sample_rate_hz, 1 << 16)? {
            samples.append(&mut block?);
        }
        Ok(Self { samples, sample_rate_hz })
    }

    /// Decodes bytes as [`Waveform::read`] does; `name` stands for the file in messages.
    ///
    /// # Errors
    ///
    /// As [`Waveform::read`].
    pub fn decode(bytes: Vec<u8>, name: &str) -> Result<Self, Error> {
        Self::collect(Decoder::from_bytes(bytes, name)?)
    }

    /// Reads the part of a file that starts at `start_s` and lasts `duration_s`, both in seconds; `None`
    /// reads to the end. Both bounds are rounded to whole samples.
    ///
    /// WAV and FLAC jump to the place; MP3 and Ogg are decoded from the start, because their
    /// frames depend on each other and only this is exact. What follows the span is not decoded,
    /// so damage there is not noticed.
    ///
    /// # Errors
    ///
    /// As [`Waveform::read`]; [`Error::BadSpan`] for a negative start or a duration that is not positive;
    /// [`Error::Span`] when the end lies more than [`SPAN_TOLERANCE_S`] behind the file's end (within the
    /// tolerance the span is cut) or no sample is left.
    pub fn read_span(
        path: &Path,
        start_s: f64,
        duration_s: impl Into<Option<f64>>,
    ) -> Result<Self, Error> {
        let duration_s = duration_s.into();
        let length_s = duration_s.unwrap_or(f64::INFINITY);
        let mut decoder = Decoder::open(path)?;
        let file = decoder.file().to_owned();
        let valid = start_s.is_finite() && start_s >= 0.0 && length_s > 0.0;
        if !valid {
            return Err(Error::BadSpan { file, start_s, duration_s: length_s });
        }
        let sample_rate_hz = decoder.info().sample_rate_hz;
        let rate = f64::from(sample_rate_hz);
        // Float to integer conversions saturate, so that "to the end" is the largest index.
        let start = (start_s * rate).round() as u64;
        let end = ((start_s + length_s) * rate).round() as u64;
        let outside = |n_total: u64| Error::Span {
            file: file.clone(),
            start_s,
            end_s: start_s + length_s,
            file_duration_s: n_total as f64 / rate,
        };
        if let Some(n_total) = decoder.info().n_samples.filter(|&n| n > 0 && start >= n) {
            return Err(outside(n_total));
        }

        if decoder.seek_before(start).is_err() {
            // Symphonia finds no place in some FLAC files that it reads well from the start.
            decoder = Decoder::open(path)?;
        }
        let mut samples = Vec::new();
        let mut skipped = decoder.position();
        let mut ended = false;
        while decoder.position() < end && !ended {
            let n_before = samples.len();
            ended = !decoder.next(&mut samples)?;
            if skipped < start {
                let n_new = samples.len() - n_before;
                let n_drop = usize::try_from(start - skipped).unwrap_or(usize::MAX).min(n_new);
                samples.drain(n_before..n_before + n_drop);
                skipped += n_drop as u64;
            }
        }
        let tolerance = (SPAN_TOLERANCE_S * rate) as u64;
        let missing = end.saturating_sub(decoder.position());
        if samples.is_empty() || (duration_s.is_some() && missing > tolerance) {
            return Err(outside(decoder.position()));
        }
        samples.truncate(usize::try_from(end - start).unwrap_or(usize::MAX));
        Ok(Self { samples, sample_rate_hz })
    }

    /// Seconds of sound.
    pub fn duration_s(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.sample_rate_hz)
    }

    /// The same sound at another rate; the length becomes [`resampled_len`].
    ///
    /// # Errors
    ///
    /// [`Error::SampleRate`] when either rate is out of range.
    pub fn resampled(&self, sample_rate_hz: u32) -> Result<Self, Error> {
        let mut resampler = Resampler::new(self.sample_rate_hz, sample_rate_hz, "waveform")?;
        let n = resampled_len(self.samples.len() as u64, self.sample_rate_hz, sample_rate_hz);
        let mut samples = Vec::with_capacity(usize::try_from(n).unwrap_or(0));
        resampler.push(&self.samples, &mut samples);
        resampler.finish(&mut samples);
        Ok(Self { samples, sample_rate_hz })
    }

    /// Writes a mono WAV file of 16 bit. Values outside of `[-1, 1)` are clipped, NaN becomes 0.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] when the file cannot be written, or would exceed 4 GiB.
    pub fn write_wav(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::Write { file: path.display().to_string(), source };
        let writer = hound::WavWriter::create(path, self.wav_spec()).map_err(failed)?;
        self.write_samples(writer).map_err(failed)
    }

    /// The bytes of the file that [`Waveform::write_wav`] writes.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] when the sound exceeds 4 GiB.
    pub fn to_wav_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Cursor::new(Vec::with_capacity(44 + 2 * self.samples.len()));
        hound::WavWriter::new(&mut bytes, self.wav_spec())
            .and_then(|writer| self.write_samples(writer))
            .map_err(|source| Error::Write { file: "memory".to_owned(), source })?;
        Ok(bytes.into_inner())
    }

    fn wav_spec(&self) -> hound::WavSpec {
        wav_spec(self.sample_rate_hz)
    }

    fn write_samples<W: std::io::Write + std::io::Seek>(
        &self,
        mut writer: hound::WavWriter<W>,
    ) -> hound::Result<()> {
        for &sample in &self.samples {
            writer.write_sample(to_16_bit(sample))?;
        }
        writer.finalize()
    }

    fn collect(mut decoder: Decoder) -> Result<Self, Error> {
        let mut samples = Vec::new();
        while decoder.next(&mut samples)? {}
        Ok(Self { samples, sample_rate_hz: decoder.info().sample_rate_hz })
    }
}

/// One channel of 16 bit.
fn wav_spec(sample_rate_hz: u32) -> hound::WavSpec {
    hound::WavSpec {
        channels: 1,
        sample_rate: sample_rate_hz,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    }
}

/// The inverse of decoding, which divides by 32,768; the conversion saturates.
fn to_16_bit(sample: f32) -> i16 {
    (sample * 32_768.0).round() as i16
}

#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod tests;
