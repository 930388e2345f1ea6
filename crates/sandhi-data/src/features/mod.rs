//! Features: Whisper's log-mel, Kaldi's fbank, or the samples themselves.
//!
//! ```text
//! samples at 16 kHz ─ FeatureExtractor (tables, made once) ─ Features [n_frames, n_mels]
//!                       └ one Workspace per thread, nothing is allocated per frame
//! ```

mod edges;
mod fbank;
mod log;
mod mel;
mod spectrum;
mod stft;
mod waveform;
mod whisper;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use self::{
    fbank::{FbankConfig, FbankWindow},
    stft::{Stft, Synthesis},
    waveform::WaveformConfig,
    whisper::WhisperConfig,
};

/// The rate that all features are computed at, in Hz.
pub const FEATURE_SAMPLE_RATE_HZ: u32 = 16_000;

/// Frames a second of spectral features: they are 10 ms apart.
const SPECTRAL_RATE_HZ: f64 = 100.0;

/// An error of [`crate::features`]. It names no file; the caller knows which utterance it was.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There are no samples at all.
    #[error("found no samples, expected at least one")]
    NoSamples,
    /// There are too few samples for one frame.
    #[error("found {n_samples} samples, expected at least {min} for one frame")]
    TooShort {
        /// Samples given, at 16 kHz.
        n_samples: usize,
        /// Samples of the shortest input that has a frame.
        min: usize,
    },
    /// The form padded to 30 s does not hold more than that.
    #[error("found {n_samples} samples, expected at most {max} for features padded to 30 s")]
    TooLong {
        /// Samples given, at 16 kHz.
        n_samples: usize,
        /// Samples in 30 s.
        max: usize,
    },
    /// More frames than an encoder has positions for.
    #[error("found {found} feature frames, the encoder takes at most {max}")]
    Frames {
        /// Frames of the utterance.
        found: usize,
        /// The most that is possible.
        max: usize,
    },
    /// A sample is NaN or infinite.
    #[error("sample {sample_idx} is {value}, expected a finite number")]
    NonFinite {
        /// Index of the first such sample.
        sample_idx: usize,
        /// Its value.
        value: f32,
    },
    /// A number of mel filters that the transform cannot serve.
    #[error("found n_mels = {found}, expected 1 to {max}")]
    Mels {
        /// What the configuration says.
        found: usize,
        /// The most that is possible.
        max: usize,
    },
    /// A band that is empty or exceeds the Nyquist frequency.
    #[error("found a band from {low_hz} to {high_hz} Hz, expected 0 <= low < high <= {nyquist_hz}")]
    Band {
        /// Lower edge in Hz.
        low_hz: f32,
        /// Upper edge in Hz.
        high_hz: f32,
        /// Half the sample rate in Hz.
        nyquist_hz: f32,
    },
    /// Frames that cannot be taken back, or have no middle hop.
    #[error(
        "found frames of {overlap} hops of {hop} samples, expected an odd number of hops, 3 or more, of an even number of \
         samples"
    )]
    Hops {
        /// Samples between frames.
        hop: usize,
        /// Hops that a frame covers.
        overlap: usize,
    },
    /// A factor that is negative or not finite.
    #[error("found {field} = {found}, expected a finite number of at least 0")]
    Factor {
        /// The field of the configuration.
        field: &'static str,
        /// Its value.
        found: f32,
    },
    /// The features could not be written as NumPy's format.
    #[error("cannot write the npy data: {0}")]
    Npy(String),
}

/// Which features to compute; `kind` tells the variants apart in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FeatureConfig {
    /// Whisper's log-mel spectrogram.
    Whisper(WhisperConfig),
    /// Kaldi's log filter bank.
    Fbank(FbankConfig),
    /// The samples themselves, one value wide.
    Waveform(WaveformConfig),
}

impl FeatureConfig {
    /// Frames a second: 100 of spectra, 16,000 of a waveform.
    pub fn rate_hz(&self) -> f64 {
        match self {
            Self::Whisper(_) | Self::Fbank(_) => SPECTRAL_RATE_HZ,
            Self::Waveform(_) => f64::from(FEATURE_SAMPLE_RATE_HZ),
        }
    }

    /// Frames that every utterance has whatever its length, where it is padded to 30 s.
    pub fn padded_frames(&self) -> Option<usize> {
        match self {
            Self::Whisper(config) if config.pad_to_30_s => Some(whisper::N_PADDED_FRAMES),
            Self::Whisper(_) | Self::Fbank(_) | Self::Waveform(_) => None,
        }
    }
}

/// The features of one utterance, row-major `[n_frames, n_mels]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// `n_frames * n_mels` values, frame after frame.
    pub values: Vec<f32>,
    /// Frames, [`FeatureConfig::rate_hz`] a second.
    pub n_frames: usize,
    /// Values per frame.
    pub n_mels: usize,
}

/// Computes features; built once from a configuration and shared by all threads.
///
/// ```
/// use sandhi_data::features::{FeatureConfig, FeatureExtractor, WhisperConfig};
/// let config = FeatureConfig::Whisper(WhisperConfig::default());
/// let extractor = FeatureExtractor::new(&config)?;
/// let features = extractor.compute(&[0.0; 16_000])?;
/// assert_eq!((features.n_frames, features.n_mels), (100, 80));
/// # Ok::<(), sandhi_data::features::Error>(())
/// ```
pub struct FeatureExtractor {
    kind: Kind,
}

/// The buffers of one thread, see [`FeatureExtractor::compute_with`].
pub struct Workspace(Buffers);

enum Buffers {
    Whisper(spectrum::Buffers<f32>),
    Fbank(spectrum::Buffers<f64>),
    Waveform,
}

impl std::fmt::Debug for FeatureExtractor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeatureExtractor").field("n_mels", &self.n_mels()).finish_non_exhaustive()
    }
}

enum Kind {
    Whisper(whisper::Whisper),
    Fbank(fbank::Fbank),
    Waveform(WaveformConfig),
}

impl FeatureExtractor {
    /// Makes the window, the transform and the filters.
    ///
    /// # Errors
    ///
    /// [`Error::Mels`], [`Error::Band`] or [`Error::Factor`] for a configuration that makes no sense.
    pub fn new(config: &FeatureConfig) -> Result<Self, Error> {
        let kind = match config {
            FeatureConfig::Whisper(config) => Kind::Whisper(whisper::Whisper::new(config)?),
            FeatureConfig::Fbank(config) => Kind::Fbank(fbank::Fbank::new(config)?),
            FeatureConfig::Waveform(config) => Kind::Waveform(config.clone()),
        };
        Ok(Self { kind })
    }

    /// Values per frame.
    pub fn n_mels(&self) -> usize {
        match &self.kind {
            Kind::Whisper(whisper) => whisper.n_mels(),
            Kind::Fbank(fbank) => fbank.n_mels(),
            Kind::Waveform(_) => 1,
        }
    }

    /// Frames a second, as [`FeatureConfig::rate_hz`].
    pub fn rate_hz(&self) -> f64 {
        match &self.kind {
            Kind::Whisper(_) | Kind::Fbank(_) => SPECTRAL_RATE_HZ,
            Kind::Waveform(_) => f64::from(FEATURE_SAMPLE_RATE_HZ),
        }
    }

    /// Frames that `n_samples` at 16 kHz give, exactly.
    ///
    /// # Errors
    ///
    /// [`Error::NoSamples`], [`Error::TooShort`] or [`Error::TooLong`].
    pub fn n_frames(&self, n_samples: usize) -> Result<usize, Error> {
        match &self.kind {
            Kind::Whisper(whisper) => whisper.n_frames(n_samples),
            Kind::Fbank(fbank) => fbank.n_frames(n_samples),
            Kind::Waveform(_) => waveform::n_frames(n_samples),
        }
    }

    /// The buffers of one thread, for [`FeatureExtractor::compute_with`].
    pub fn workspace(&self) -> Workspace {
        Workspace(match &self.kind {
            Kind::Whisper(whisper) => Buffers::Whisper(whisper.buffers()),
            Kind::Fbank(fbank) => Buffers::Fbank(fbank.buffers()),
            Kind::Waveform(_) => Buffers::Waveform,
        })
    }

    /// The features of one utterance, `samples` at 16 kHz in `[-1, 1]`.
    ///
    /// # Errors
    ///
    /// As [`FeatureExtractor::n_frames`], and [`Error::NonFinite`].
    pub fn compute(&self, samples: &[f32]) -> Result<Features, Error> {
        self.compute_with(samples, &mut self.workspace())
    }

    /// As [`FeatureExtractor::compute`], with buffers that are used again. Only the result is allocated.
    ///
    /// # Errors
    ///
    /// As [`FeatureExtractor::compute`].
    pub fn compute_with(
        &self,
        samples: &[f32],
        workspace: &mut Workspace,
    ) -> Result<Features, Error> {
        check_finite(samples)?;
        match (&self.kind, &mut workspace.0) {
            (Kind::Whisper(whisper), Buffers::Whisper(buffers)) => {
                whisper.compute(samples, buffers)
            }
            (Kind::Fbank(fbank), Buffers::Fbank(buffers)) => fbank.compute(samples, buffers),
            (Kind::Waveform(config), _) => waveform::compute(config, samples),
            // A workspace of the other kind becomes one of this kind.
            _ => {
                *workspace = self.workspace();
                self.compute_with(samples, workspace)
            }
        }
    }

    /// The features of many utterances, in parallel on rayon's threads, in the order given. A bad
    /// utterance is an error in its own place.
    pub fn compute_batch<S: AsRef<[f32]> + Sync>(
        &self,
        utterances: &[S],
    ) -> Vec<Result<Features, Error>> {
        utterances
            .par_iter()
            .with_max_len(1)
            .map_init(|| self.workspace(), |work, x| self.compute_with(x.as_ref(), work))
            .collect()
    }
}

/// Without its sign bit, a float that is not finite is at least infinity as an integer. The maximum is
/// one pass that compilers vectorize; who it was is only asked when there is one.
fn check_finite(samples: &[f32]) -> Result<(), Error> {
    let magnitude = |x: &f32| (x.to_bits() & 0x7fff_ffff) as i32;
    let largest = samples.iter().map(magnitude).fold(0, i32::max);
    if largest < magnitude(&f32::INFINITY) {
        return Ok(());
    }
    match samples.iter().position(|x| !x.is_finite()) {
        Some(sample_idx) => Err(Error::NonFinite { sample_idx, value: samples[sample_idx] }),
        None => Ok(()),
    }
}

impl Features {
    /// One frame, `[n_mels]`.
    ///
    /// # Panics
    ///
    /// When there are not that many frames.
    pub fn frame(&self, frame_idx: usize) -> &[f32] {
        &self.values[frame_idx * self.n_mels..(frame_idx + 1) * self.n_mels]
    }

    /// A NumPy file of f32 in the usual layout of models, `[n_mels, n_frames]`.
    ///
    /// # Errors
    ///
    /// [`Error::Npy`] when the writer fails.
    pub fn to_npy(&self) -> Result<Vec<u8>, Error> {
        use npyz::WriterBuilder;
        let mut bytes = Vec::with_capacity(128 + 4 * self.values.len());
        let mut write = || -> std::io::Result<()> {
            let mut writer = npyz::WriteOptions::new()
                .default_dtype()
                .shape(&[self.n_mels as u64, self.n_frames as u64])
                .writer(&mut bytes)
                .begin_nd()?;
            for mel in 0..self.n_mels {
                writer.extend(self.values.iter().skip(mel).step_by(self.n_mels))?;
            }
            writer.finish()
        };
        write().map_err(|e: std::io::Error| Error::Npy(e.to_string()))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
