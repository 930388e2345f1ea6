//! Kaldi's log filter bank, as `torchaudio.compliance.kaldi.fbank` computes it without dither.
//!
//! ```text
//! frame t (400 samples) ─ minus its mean ─ x[i] - 0.97 x[i-1] ─ Povey window ─ FFT 512, |.|²
//!                       ─ HTK mel triangles ─ ln(max(., f32 epsilon))
//! ```
//!
//! Nothing limits the dynamic range here, so that between the harmonics of a pure tone single
//! precision would show its rounding (torchaudio's own does, up to 1e-2 on a loud sweep). Frames are
//! therefore computed in `f64`.
//!
//! With `snip_edges` only frames that lie inside count, `1 + (n - 400) / 160`; without, frames are
//! centered on multiples of the shift and the signal is mirrored, `(n + 80) / 160`.

use serde::{Deserialize, Serialize};

use super::{
    Error, Features,
    edges::mirror,
    mel::{LANES, MelBank},
    spectrum::{Buffers, LogMel, n_bins},
};

/// Samples of a frame: 25 ms at 16 kHz.
const WINDOW: usize = 400;
/// Samples between frames: 10 ms.
const SHIFT: usize = 160;
/// The next power of two.
const N_FFT: usize = 512;
const NYQUIST_HZ: f32 = 8_000.0;

/// `kind = "fbank"` in a recipe's feature table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FbankConfig {
    /// Mel filters per frame: 80 for most models of speech.
    pub n_mels: usize,
    /// Lower edge of the first filter in Hz.
    pub low_hz: f32,
    /// Upper edge of the last filter in Hz, at most 8,000.
    pub high_hz: f32,
    /// Share of the previous sample that is subtracted; more of it lifts high frequencies.
    pub preemphasis: f32,
    /// Subtract each frame's mean.
    pub remove_dc: bool,
    /// Only frames that lie wholly inside; otherwise the signal is mirrored at its ends.
    pub snip_edges: bool,
    /// Shape of the analysis window.
    pub window: FbankWindow,
    /// Factor on the samples first: 1 as they are, 32,768 for models trained on 16-bit integers.
    pub scale: f32,
}

impl Default for FbankConfig {
    fn default() -> Self {
        Self {
            n_mels: 80,
            low_hz: 20.0,
            high_hz: NYQUIST_HZ,
            preemphasis: 0.97,
            remove_dc: true,
            snip_edges: true,
            window: FbankWindow::Povey,
            scale: 1.0,
        }
    }
}

/// Analysis windows of Kaldi, all symmetric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FbankWindow {
    /// Hann to the power of 0.85: narrower at the ends than Hamming, but reaching 0.
    Povey,
    /// `0.5 - 0.5 cos`.
    Hann,
    /// `0.54 - 0.46 cos`.
    Hamming,
}

impl FbankWindow {
    fn values(self) -> Vec<f64> {
        let value = |i: usize| {
            let cos = (std::f64::consts::TAU * i as f64 / (WINDOW - 1) as f64).cos();
            match self {
                Self::Povey => (0.5 - 0.5 * cos).powf(0.85),
                Self::Hann => 0.5 - 0.5 * cos,
                Self::Hamming => 0.54 - 0.46 * cos,
            }
        };
        (0..WINDOW).map(value).collect()
    }
}

/// The tables of one configuration.
pub(super) struct Fbank {
    config: FbankConfig,
    log_mel: LogMel<f64>,
}

impl Fbank {
    pub(super) fn new(config: &FbankConfig) -> Result<Self, Error> {
        if !(1..=N_FFT / 2).contains(&config.n_mels) {
            return Err(Error::Mels { found: config.n_mels, max: N_FFT / 2 });
        }
        let (low_hz, high_hz) = (config.low_hz, config.high_hz);
        if !(low_hz >= 0.0 && low_hz < high_hz && high_hz <= NYQUIST_HZ) {
            return Err(Error::Band { low_hz, high_hz, nyquist_hz: NYQUIST_HZ });
        }
        for (field, found) in [("preemphasis", config.preemphasis), ("scale", config.scale)] {
            if !found.is_finite() || found < 0.0 {
                return Err(Error::Factor { field, found });
            }
        }
        let mel = MelBank::kaldi(
            config.n_mels,
            n_bins(N_FFT),
            2.0 * f64::from(NYQUIST_HZ) / N_FFT as f64,
            f64::from(low_hz),
            f64::from(high_hz),
        );
        let log_mel = LogMel::new(config.window.values(), N_FFT, mel, f32::EPSILON);
        Ok(Self { config: config.clone(), log_mel })
    }

    pub(super) fn buffers(&self) -> Buffers<f64> {
        self.log_mel.buffers()
    }

    pub(super) fn n_mels(&self) -> usize {
        self.log_mel.n_mels()
    }

    /// Frames for `n_samples`.
    pub(super) fn n_frames(&self, n_samples: usize) -> Result<usize, Error> {
        let min = if self.config.snip_edges { WINDOW } else { SHIFT / 2 };
        match n_samples {
            0 => Err(Error::NoSamples),
            _ if n_samples < min => Err(Error::TooShort { n_samples, min }),
            _ if self.config.snip_edges => Ok(1 + (n_samples - WINDOW) / SHIFT),
            _ => Ok((n_samples + SHIFT / 2) / SHIFT),
        }
    }

    /// The features of one utterance at 16 kHz.
    pub(super) fn compute(
        &self,
        samples: &[f32],
        work: &mut Buffers<f64>,
    ) -> Result<Features, Error> {
        let n_frames = self.n_frames(samples.len())?;
        let n_mels = self.n_mels();
        let first =
            if self.config.snip_edges { 0 } else { (SHIFT / 2) as isize - (WINDOW / 2) as isize };

        let mut values = vec![0.0; n_frames * n_mels];
        for (block_idx, rows) in values.chunks_mut(LANES * n_mels).enumerate() {
            self.log_mel.compute(work, rows, |i, frame| {
                let frame_idx = block_idx * LANES + i;
                load(samples, first + (frame_idx * SHIFT) as isize, frame);
                self.prepare(frame);
            });
        }
        Ok(Features { values, n_frames, n_mels })
    }

    /// Scale, mean, pre-emphasis; in this order.
    fn prepare(&self, frame: &mut [f64]) {
        if self.config.scale != 1.0 {
            frame.iter_mut().for_each(|x| *x *= f64::from(self.config.scale));
        }
        if self.config.remove_dc {
            let mean = frame.iter().sum::<f64>() / frame.len() as f64;
            frame.iter_mut().for_each(|x| *x -= mean);
        }
        // The first sample stands in for its missing predecessor.
        let mut previous = frame[0];
        for x in frame {
            let current = *x;
            *x -= f64::from(self.config.preemphasis) * previous;
            previous = current;
        }
    }
}

/// Copies the frame that starts at `start`, mirroring at both ends.
fn load(samples: &[f32], start: isize, frame: &mut [f64]) {
    let inside = usize::try_from(start).ok().and_then(|s| samples.get(s..s + frame.len()));
    if let Some(inside) = inside {
        frame.iter_mut().zip(inside).for_each(|(x, &y)| *x = f64::from(y));
        return;
    }
    for (i, x) in frame.iter_mut().enumerate() {
        *x = f64::from(samples[mirror(start + i as isize, samples.len())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_counts_are_kaldis() {
        let count = |snip_edges, n| {
            let config = FbankConfig { snip_edges, ..FbankConfig::default() };
            Fbank::new(&config).unwrap().n_frames(n).unwrap()
        };
        assert_eq!([400, 559, 560, 16_000].map(|n| count(true, n)), [1, 1, 2, 98]);
        assert_eq!([80, 160, 239, 240, 16_000].map(|n| count(false, n)), [1, 1, 1, 2, 100]);
    }

    #[test]
    fn a_constant_signal_has_no_energy() {
        // The mean is removed, so every filter is at ln(epsilon).
        let fbank = Fbank::new(&FbankConfig::default()).unwrap();
        let features = fbank.compute(&[0.25; 1_600], &mut fbank.buffers()).unwrap();
        let floor = f32::EPSILON.ln();
        assert!(features.values.iter().all(|&x| (x - floor).abs() < 2e-6));
    }

    #[test]
    fn bad_configurations_say_which_value() {
        let check = |change: fn(&mut FbankConfig), expected: &str| {
            let mut config = FbankConfig::default();
            change(&mut config);
            let error = Fbank::new(&config).err().map(|e| e.to_string());
            assert_eq!(error.as_deref(), Some(expected));
        };
        check(|c| c.n_mels = 0, "found n_mels = 0, expected 1 to 256");
        check(
            |c| c.low_hz = 9_000.0,
            "found a band from 9000 to 8000 Hz, expected 0 <= low < high <= 8000",
        );
        check(|c| c.scale = f32::NAN, "found scale = NaN, expected a finite number of at least 0");
    }
}
