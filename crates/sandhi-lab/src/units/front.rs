//! What units are the units of: frames of an encoder, or windows of spectra.
//!
//! ```text
//! samples ─ features ─┬─ encoder ──────────────────────── frames of its last, or of one, layer
//!                     └─ mean 0, deviation 1 ─ windows ── frames of (2 context + stride) spectra each
//!
//! spectra   0  1  2  3  4  5
//! window 0 [0  0  1  2]             stride 2, context 1: beyond the ends the last one is repeated
//! window 1       [1  2  3  4]
//! ```

use sandhi_data::{
    features::{self, FeatureConfig, FeatureExtractor},
    units::UnitsHeader,
};
use serde::{Deserialize, Serialize};

use super::Kmeans;
use crate::model::SpeechModel;

/// How spectra become frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameWindow {
    /// Spectra on either side of those that a frame stands for; more tell sounds that move apart, and blur boundaries.
    #[serde(default = "default_context")]
    pub context: usize,
    /// Spectra that a frame stands for: 1 gives frames of 10 ms, 2 of 20 ms.
    #[serde(default = "default_stride")]
    pub stride: usize,
}

fn default_context() -> usize {
    1
}
fn default_stride() -> usize {
    1
}

impl Default for FrameWindow {
    fn default() -> Self {
        Self { context: default_context(), stride: default_stride() }
    }
}

impl FrameWindow {
    /// Largest context and stride: windows of seconds tell nothing apart.
    const MOST: usize = 100;

    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.stride == 0 || self.stride > Self::MOST {
            problems.push(format!("stride is {}, expected 1 to {}", self.stride, Self::MOST));
        }
        if self.context > Self::MOST {
            problems.push(format!("context is {}, expected at most {}", self.context, Self::MOST));
        }
        problems
    }

    /// Frames of so many spectra.
    pub fn n_frames(&self, n_spectra: usize) -> usize {
        n_spectra.div_ceil(self.stride)
    }

    /// Values of a frame.
    pub fn width(&self, n_mels: usize) -> usize {
        (2 * self.context + self.stride) * n_mels
    }

    /// Frames of the spectra of one utterance.
    ///
    /// # Shapes
    ///
    /// - `spectra`: `[n_spectra, n_mels]`
    /// - output: `[n_frames, width]`
    pub fn frames(&self, spectra: &[f32], n_mels: usize) -> Vec<f32> {
        let n_spectra = spectra.len() / n_mels;
        let mut frames = Vec::with_capacity(self.n_frames(n_spectra) * self.width(n_mels));
        for first in (0..n_spectra).step_by(self.stride) {
            for at in first..first + 2 * self.context + self.stride {
                let at = at.saturating_sub(self.context).min(n_spectra - 1);
                frames.extend_from_slice(&spectra[at * n_mels..][..n_mels]);
            }
        }
        frames
    }
}

/// Takes from every band of an utterance its mean, and divides all by one deviation: loudness and channel go, the
/// weights of bands stay. What does not vary becomes 0.
///
/// # Shapes
///
/// - `spectra`: `[n_spectra, n_mels]`
pub fn normalize(spectra: &mut [f32], n_mels: usize) {
    let n_spectra = (spectra.len() / n_mels).max(1) as f64;
    let mut means = vec![0.0_f64; n_mels];
    for row in spectra.chunks_exact(n_mels) {
        for (mean, &value) in means.iter_mut().zip(row) {
            *mean += f64::from(value) / n_spectra;
        }
    }
    let mut square = 0.0;
    for row in spectra.chunks_exact_mut(n_mels) {
        for (value, &mean) in row.iter_mut().zip(&means) {
            *value = (f64::from(*value) - mean) as f32;
            square += f64::from(*value).powi(2);
        }
    }
    let deviation = (square / (n_spectra * n_mels as f64)).sqrt();
    // Below this there is nothing but rounding.
    if deviation > 1e-5 {
        spectra.iter_mut().for_each(|value| *value = (f64::from(*value) / deviation) as f32);
    } else {
        spectra.fill(0.0);
    }
}

/// Windows over normalized spectra.
#[derive(Debug)]
pub struct Spectra {
    /// A hash of the settings.
    fingerprint: String,
    extractor: FeatureExtractor,
    window: FrameWindow,
    offset_s: f64,
}

impl Spectra {
    /// # Errors
    ///
    /// When the front end's settings are not possible.
    pub fn new(config: &FeatureConfig, window: FrameWindow) -> Result<Self, features::Error> {
        let extractor = FeatureExtractor::new(config)?;
        // Half the distance of two spectra before the center of the first one.
        let half_s = 0.5 / extractor.rate_hz();
        let offset_s = match config {
            // Centered at multiples of the distance.
            FeatureConfig::Whisper(_) => -half_s,
            // The first one lies in the first 25 ms.
            FeatureConfig::Fbank(config) if config.snip_edges => 0.0125 - half_s,
            // Centered between multiples of the distance; samples begin where they are.
            FeatureConfig::Fbank(_) | FeatureConfig::Waveform(_) => 0.0,
        };
        let settings = serde_json::to_string(&(config, window)).expect("settings are plain values");
        let fingerprint = blake3::hash(settings.as_bytes()).to_hex()[..16].to_owned();
        Ok(Self { fingerprint, extractor, window, offset_s })
    }

    /// Normalized spectra of 16 kHz samples, `[n_spectra, n_mels]`.
    ///
    /// # Errors
    ///
    /// When the samples have none.
    pub fn spectra(&self, samples: &[f32]) -> Result<Vec<f32>, features::Error> {
        let mut features = self.extractor.compute(samples)?;
        normalize(&mut features.values, features.n_mels);
        Ok(features.values)
    }

    /// Frames of 16 kHz samples, `[n_frames, width]`.
    ///
    /// # Errors
    ///
    /// As [`Spectra::spectra`].
    pub fn frames(&self, samples: &[f32]) -> Result<Vec<f32>, features::Error> {
        Ok(self.window.frames(&self.spectra(samples)?, self.n_mels()))
    }

    /// The front end.
    pub fn extractor(&self) -> &FeatureExtractor {
        &self.extractor
    }

    /// Width of a spectrum.
    pub fn n_mels(&self) -> usize {
        self.extractor.n_mels()
    }

    /// Values of a frame.
    pub fn width(&self) -> usize {
        self.window.width(self.n_mels())
    }

    /// How spectra become frames.
    pub fn window(&self) -> FrameWindow {
        self.window
    }

    /// Frames a second.
    pub fn rate_hz(&self) -> f64 {
        self.extractor.rate_hz() / self.window.stride as f64
    }

    /// When a frame begins, halfway from the center of the spectrum before it; not before the sound does.
    pub fn start_s(&self, frame: usize) -> f64 {
        (frame as f64 / self.rate_hz() + self.offset_s).max(0.0)
    }

    /// The middle of a frame.
    pub fn middle_s(&self, frame: usize) -> f64 {
        (frame as f64 + 0.5) / self.rate_hz() + self.offset_s
    }
}

/// Where frames come from.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // there is one of them
pub enum Front {
    /// An encoder.
    Encoder(SpeechModel),
    /// Spectra.
    Spectra(Spectra),
}

impl Front {
    /// Values of a frame.
    pub fn width(&self) -> usize {
        match self {
            Self::Encoder(speech) => speech.d_encoder(),
            Self::Spectra(spectra) => spectra.width(),
        }
    }

    /// Frames a second.
    pub fn rate_hz(&self) -> f64 {
        match self {
            Self::Encoder(speech) => speech.frame_rate_hz(),
            Self::Spectra(spectra) => spectra.rate_hz(),
        }
    }

    /// Frames of 16 kHz samples, `[n_frames, width]`.
    ///
    /// # Errors
    ///
    /// When the samples have no features, or more than the encoder takes.
    pub fn frames(&self, samples: &[f32]) -> Result<Vec<f32>, features::Error> {
        match self {
            Self::Encoder(speech) => speech.frames(samples),
            Self::Spectra(spectra) => spectra.frames(samples),
        }
    }

    /// The middle of a frame in seconds; frames of an encoder lie side by side from the start of the sound, as units
    /// do.
    pub fn middle_s(&self, frame: usize) -> f64 {
        match self {
            Self::Encoder(speech) => (frame as f64 + 0.5) / speech.frame_rate_hz(),
            Self::Spectra(spectra) => spectra.middle_s(frame),
        }
    }

    /// A hash of all that frames depend on: settings, and weights where there are some.
    pub fn fingerprint(&self) -> String {
        match self {
            Self::Encoder(speech) => speech.frames_fingerprint(),
            Self::Spectra(spectra) => spectra.fingerprint.clone(),
        }
    }

    /// What the units of these centers are.
    pub fn header(&self, centers: &Kmeans) -> UnitsHeader {
        centers.header(&self.fingerprint(), self.rate_hz())
    }
}

#[cfg(test)]
mod tests {
    use sandhi_data::features::{FbankConfig, WhisperConfig};

    use super::*;

    #[test]
    fn windows_by_hand() {
        let window = FrameWindow { context: 1, stride: 2 };
        assert_eq!((window.n_frames(5), window.width(1)), (3, 4));
        let frames = window.frames(&[0.0, 1.0, 2.0, 3.0, 4.0], 1);
        assert_eq!(frames, [0., 0., 1., 2., 1., 2., 3., 4., 3., 4., 4., 4.]);
        let alone = FrameWindow { context: 0, stride: 1 };
        assert_eq!(alone.frames(&[1.0, 2.0, 3.0, 4.0], 2), [1.0, 2.0, 3.0, 4.0]);
        assert!(alone.frames(&[], 2).is_empty());
        assert_eq!(FrameWindow { context: 101, stride: 0 }.problems().len(), 2);
    }

    #[test]
    fn bands_lose_their_means_and_all_have_one_deviation() {
        // Means 2 and 5; what is left is -1, 1 and -2, 2, whose mean square is 2.5.
        let mut spectra = [1.0, 3.0, 3.0, 7.0];
        normalize(&mut spectra, 2);
        let root = 2.5_f32.sqrt();
        let expected = [-1.0 / root, -2.0 / root, 1.0 / root, 2.0 / root];
        assert!(spectra.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{spectra:?}");
        let mut flat = [3.0; 6];
        normalize(&mut flat, 2);
        assert_eq!(flat, [0.0; 6]);
    }

    /// A click lies in the middle of the frame that its time says.
    #[test]
    fn frames_begin_between_the_centers_of_spectra() {
        let mut samples = vec![0.0; 16_000];
        samples[8_000] = 1.0;
        let snipped = FbankConfig::default();
        let configs = [
            FeatureConfig::Whisper(WhisperConfig::default()),
            FeatureConfig::Fbank(FbankConfig { snip_edges: false, ..snipped.clone() }),
            FeatureConfig::Fbank(snipped),
        ];
        for config in configs {
            let spectra = Spectra::new(&config, FrameWindow { context: 0, stride: 1 }).unwrap();
            let frames = spectra.frames(&samples).unwrap();
            let loudness: Vec<f32> =
                frames.chunks(spectra.width()).map(|frame| frame.iter().sum()).collect();
            let most = loudness.iter().copied().fold(f32::MIN, f32::max);
            let loud: Vec<usize> =
                (0..loudness.len()).filter(|&i| loudness[i] > 0.5 * most).collect();
            let (first, last) = (loud[0], loud[loud.len() - 1]);
            let middle_s = 0.5 * (spectra.start_s(first) + spectra.start_s(last + 1));
            assert!((middle_s - 0.5).abs() <= 0.006, "{config:?}: {middle_s}");
            let middle_s = 0.5 * (spectra.middle_s(first) + spectra.middle_s(last));
            assert!((middle_s - 0.5).abs() <= 0.006, "{config:?}: {middle_s}");
        }
    }
}
