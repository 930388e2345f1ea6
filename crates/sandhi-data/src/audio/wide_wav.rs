//! WAV files with more channels than symphonia has names for, read through hound.
//!
//! Symphonia 0.6.1 gives each channel a loudspeaker's position and stops at 26, or at 18 when the header has a channel
//! mask. Microphone arrays go further; their mean is as good as anyone's.

use std::io::{BufReader, ErrorKind};

use symphonia::core::io::MediaSource;

use super::{AudioInfo, Expected, stream::Failure};

/// Frames per block.
const BLOCK_LEN: usize = 4_096;

/// Whether a file that starts with `head` is a WAV with more channels than symphonia can always take.
pub(super) fn is_wide(head: &[u8]) -> bool {
    let is_wav = head.len() >= 24
        && head.starts_with(b"RIFF")
        && &head[8..12] == b"WAVE"
        && &head[12..16] == b"fmt ";
    is_wav && u16::from_le_bytes([head[22], head[23]]) > 18
}

/// An integer or float PCM file.
pub(super) struct WideWav {
    reader: hound::WavReader<BufReader<Box<dyn MediaSource>>>,
    spec: hound::WavSpec,
    /// The file ended inside a block.
    ended: bool,
}

impl WideWav {
    /// Opens what hound can read.
    pub(super) fn open(
        source: Box<dyn MediaSource>,
    ) -> Result<(Self, AudioInfo, Option<Expected>), Failure> {
        let reader = hound::WavReader::new(BufReader::new(source)).map_err(failure)?;
        let spec = reader.spec();
        let n_samples = u64::from(reader.duration());
        let info = AudioInfo {
            format: "wave",
            sample_rate_hz: spec.sample_rate,
            n_channels: usize::from(spec.channels),
            n_samples: Some(n_samples),
            duration_s: Some(n_samples as f64 / f64::from(spec.sample_rate.max(1))),
        };
        let wav = Self { reader, spec, ended: false };
        Ok((wav, info, Some(Expected::Samples(n_samples))))
    }

    /// As [`super::stream::Stream::next`].
    pub(super) fn next(&mut self, interleaved: &mut Vec<f32>) -> Result<Option<usize>, Failure> {
        let n_channels = usize::from(self.spec.channels);
        let n_wanted = if self.ended { 0 } else { BLOCK_LEN * n_channels };
        let read = match self.spec.sample_format {
            hound::SampleFormat::Float => {
                fill(self.reader.samples::<f32>().take(n_wanted), interleaved, |x| x)
            }
            hound::SampleFormat::Int => {
                let scale = 1.0 / 2.0_f32.powi(i32::from(self.spec.bits_per_sample) - 1);
                fill(self.reader.samples::<i32>().take(n_wanted), interleaved, |x| x as f32 * scale)
            }
        };
        match read {
            Ok(()) => {}
            // Of a file that ends early, whole frames remain; the caller counts them.
            Err(hound::Error::IoError(e))
                if e.kind() == ErrorKind::UnexpectedEof || e.kind() == ErrorKind::Other =>
            {
                self.ended = true;
            }
            Err(error) => return Err(failure(error)),
        }
        interleaved.truncate(interleaved.len() / n_channels.max(1) * n_channels);
        Ok((!interleaved.is_empty()).then_some(n_channels))
    }
}

/// Appends converted samples until there are no more or one cannot be read.
fn fill<S>(
    samples: impl Iterator<Item = hound::Result<S>>,
    out: &mut Vec<f32>,
    convert: impl Fn(S) -> f32,
) -> hound::Result<()> {
    for sample in samples {
        out.push(convert(sample?));
    }
    Ok(())
}

fn failure(error: hound::Error) -> Failure {
    match error {
        hound::Error::Unsupported => {
            Failure::Unsupported("WAV with many channels that is not plain PCM".to_owned())
        }
        error => Failure::Damage(error.to_string()),
    }
}
