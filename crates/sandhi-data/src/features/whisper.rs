//! Whisper's log-mel spectrogram, as `transformers`' `WhisperFeatureExtractor` computes it.
//!
//! ```text
//! samples   ..........................................      16 kHz
//! frame t         [---- 400 ----]                           centered at 160 t, reflected at the ends
//!                 Hann, FFT 400, |.|²  ─ 201 bins ─ Slaney mel ─ log10(max(., 1e-10))
//! all frames      max(., largest - 8), then (. + 4) / 4
//! ```
//!
//! Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (arXiv 2212.04356); constants
//! as in the two public implementations. A centered transform of `n` samples has `1 + n / 160` frames; Whisper
//! drops the last one, so there are `n / 160` (rounded down).

use serde::{Deserialize, Serialize};

use super::{
    Error, Features,
    edges::reflect,
    log::ln,
    mel::{LANES, MelBank},
    spectrum::{Buffers, LogMel, n_bins},
};

/// Samples of a frame, and length of the transform: 25 ms.
const N_FFT: usize = 400;
/// Samples between frames: 10 ms.
const HOP: usize = 160;
/// Samples of the padded form: 30 s.
const N_PADDED: usize = 480_000;
/// Frames of the padded form.
pub(super) const N_PADDED_FRAMES: usize = N_PADDED / HOP;
/// The least power, before the logarithm.
const FLOOR: f32 = 1e-10;

/// `kind = "whisper"` in a recipe's feature table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WhisperConfig {
    /// Mel filters per frame: 80 for Whisper up to large-v2, 128 from large-v3 on.
    pub n_mels: usize,
    /// Pad with silence to 30 s, which the original encoder needs: 3,000 frames whatever the
    /// length, and longer input is an error. Otherwise `n_samples / 160` frames.
    pub pad_to_30_s: bool,
}

impl Default for WhisperConfig {
    fn default() -> Self {
        Self { n_mels: 80, pad_to_30_s: false }
    }
}

/// The tables of one configuration.
pub(super) struct Whisper {
    log_mel: LogMel<f32>,
    pad: bool,
}

impl Whisper {
    pub(super) fn new(config: &WhisperConfig) -> Result<Self, Error> {
        if !(1..=N_FFT / 2).contains(&config.n_mels) {
            return Err(Error::Mels { found: config.n_mels, max: N_FFT / 2 });
        }
        // Periodic: the period is the window's length, not one less.
        let hann = |i| 0.5 - 0.5 * (std::f64::consts::TAU * f64::from(i) / N_FFT as f64).cos();
        let window = (0..N_FFT as u32).map(|i| hann(i) as f32).collect();
        let mel = MelBank::slaney(config.n_mels, n_bins(N_FFT), 8_000.0);
        let log_mel = LogMel::new(window, N_FFT, mel, FLOOR);
        Ok(Self { log_mel, pad: config.pad_to_30_s })
    }

    pub(super) fn buffers(&self) -> Buffers<f32> {
        self.log_mel.buffers()
    }

    pub(super) fn n_mels(&self) -> usize {
        self.log_mel.n_mels()
    }

    /// Frames for `n_samples`.
    pub(super) fn n_frames(&self, n_samples: usize) -> Result<usize, Error> {
        match (self.pad, n_samples) {
            (_, 0) => Err(Error::NoSamples),
            (true, N_PADDED..) if n_samples > N_PADDED => {
                Err(Error::TooLong { n_samples, max: N_PADDED })
            }
            (true, _) => Ok(N_PADDED_FRAMES),
            (false, ..HOP) => Err(Error::TooShort { n_samples, min: HOP }),
            (false, _) => Ok(n_samples / HOP),
        }
    }

    /// The features of one utterance at 16 kHz.
    pub(super) fn compute(
        &self,
        samples: &[f32],
        work: &mut Buffers<f32>,
    ) -> Result<Features, Error> {
        let n_frames = self.n_frames(samples.len())?;
        let n_mels = self.n_mels();
        // Behind the samples there are zeros up to here, then the reflection of all that.
        let n_total = if self.pad { N_PADDED } else { samples.len() };

        let start = |frame_idx: usize| (frame_idx * HOP) as isize - (N_FFT / 2) as isize;
        let silence = ln(FLOOR);
        let mut values = vec![silence; n_frames * n_mels];
        for (block_idx, rows) in values.chunks_mut(LANES * n_mels).enumerate() {
            let first = block_idx * LANES;
            let mut frames = first..first + rows.len() / n_mels;
            if frames.all(|i| self.is_silent_padding(start(i), samples.len(), n_total)) {
                continue;
            }
            self.log_mel.compute(work, rows, |i, frame| {
                load(samples, start(first + i), n_total, frame);
            });
        }

        // From here on in log10: the largest minus 8, then (. + 4) / 4.
        let largest = values.iter().fold(f32::NEG_INFINITY, |a, &x| a.max(x));
        let log10 = |x: f32| x * std::f32::consts::LOG10_E;
        let least = log10(largest) - 8.0;
        for x in &mut values {
            *x = (log10(*x).max(least) + 4.0) / 4.0;
        }
        Ok(Features { values, n_frames, n_mels })
    }

    /// Whether a frame touches nothing but padding, also in the reflection behind the end.
    fn is_silent_padding(&self, start: isize, n_samples: usize, n_total: usize) -> bool {
        let n_behind = (start + N_FFT as isize - n_total as isize).max(0);
        self.pad
            && start >= n_samples as isize
            && n_total as isize - 1 - n_behind >= n_samples as isize
    }
}

/// Copies the frame that starts at `start`, reflecting at both ends.
fn load(samples: &[f32], start: isize, n_total: usize, frame: &mut [f32]) {
    let inside = usize::try_from(start).ok().and_then(|s| samples.get(s..s + N_FFT));
    if let Some(inside) = inside {
        frame.copy_from_slice(inside);
        return;
    }
    for (i, x) in frame.iter_mut().enumerate() {
        let source = reflect(start + i as isize, n_total);
        *x = samples.get(source).copied().unwrap_or(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_the_floor() {
        // log10(1e-10) = -10 everywhere, so nothing is cut at -18, and (-10 + 4) / 4 = -1.5.
        for pad_to_30_s in [false, true] {
            let whisper = Whisper::new(&WhisperConfig { n_mels: 80, pad_to_30_s }).unwrap();
            let features = whisper.compute(&[0.0; 1_600], &mut whisper.buffers()).unwrap();
            assert_eq!(features.n_frames, if pad_to_30_s { N_PADDED_FRAMES } else { 10 });
            assert!(features.values.iter().all(|&x| (x + 1.5).abs() < 1e-6));
        }
    }

    #[test]
    fn padding_that_is_skipped_equals_padding_that_is_computed() {
        let whisper = Whisper::new(&WhisperConfig { n_mels: 80, pad_to_30_s: true }).unwrap();
        let mut work = whisper.buffers();
        for n_samples in [1, 150, 479_700, 479_801, 479_999, 480_000] {
            let mut samples: Vec<f32> = (0..n_samples).map(|i| (i as f32 * 0.3).sin()).collect();
            let short = whisper.compute(&samples, &mut work).unwrap();
            samples.resize(N_PADDED, 0.0);
            let full = whisper.compute(&samples, &mut work).unwrap();
            assert_eq!(short, full, "{n_samples} samples");
        }
    }
}
