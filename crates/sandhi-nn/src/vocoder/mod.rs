//! A unit vocoder: units of speech back to sound.
//!
//! ```text
//! units 25 Hz ─ embedding ─ n × block ─ linear, 4 frames of each ─ n × block ─ norm ─┬─ mel ─────────────── log-mel
//!                                                                                    ├─ magnitude ─ exp ─┐
//!                                                                                    └─ phase ─ cos, sin ┴─ spectra ─ sound
//! block: x + down(gelu(up(norm(depthwise convolution))))
//! ```
//!
//! The network and its head are Vocos' (Siuzdak 2023, [arXiv 2306.00814](https://arxiv.org/abs/2306.00814), section 3): blocks
//! of ConvNeXt at one rate, then magnitude and phase of every frame of a short-time Fourier transform, from which the
//! inverse transform makes the sound. What differs: units are read instead of mel spectra, some blocks run at their rate, a
//! second head says the mel spectrum, and the losses are those two and [`SpectralLoss`]; there is no adversary. Nothing says
//! who speaks, so that the voice is an average of those that were heard.
//!
//! There are convolutions alone, so that a frame follows from the units within [`Vocoder::context`]: what is said in pieces
//! with so many units around equals what is said at once.

mod loss;
mod spectrum;

use burn::{module::Param, prelude::*};
use serde::{Deserialize, Serialize};

use self::spectrum::Inverse;
pub use self::{
    loss::{N_RESOLUTIONS, SpectralDistance, SpectralLoss, loss_values},
    spectrum::spectral_width,
};
use crate::{
    init::Init,
    layers::{Embedding, Linear, Norm, NormKind},
    ops,
    ragged::{Offsets, Ragged},
    transformer::Dropout,
};

/// The `[model.vocoder]` table of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VocoderConfig {
    /// Width of everything; more tells more sounds apart.
    pub d_model: usize,
    /// Width inside a block.
    pub d_ff: usize,
    /// Blocks over units, which see far and cost little.
    #[serde(default = "default_unit_layers")]
    pub unit_layers: usize,
    /// Blocks over frames.
    #[serde(default = "default_frame_layers")]
    pub frame_layers: usize,
    /// Units or frames that a block sees: odd.
    #[serde(default = "default_kernel")]
    pub kernel: usize,
    /// Samples between frames, even; a unit has a whole number of frames: 160 at 16 kHz gives 4 to a unit of 25 Hz.
    #[serde(default = "default_hop")]
    pub hop: usize,
    /// Hops that a frame covers: odd, at least 3. More tell neighboring pitches apart, and blur what is sudden.
    #[serde(default = "default_overlap")]
    pub overlap: usize,
    /// Mel filters of the regression.
    #[serde(default = "default_mels")]
    pub n_mels: usize,
}

fn default_unit_layers() -> usize {
    2
}
fn default_frame_layers() -> usize {
    4
}
fn default_kernel() -> usize {
    7
}
fn default_hop() -> usize {
    160
}
fn default_overlap() -> usize {
    3
}
fn default_mels() -> usize {
    80
}

/// Built by [`VocoderConfig::init`].
#[derive(Module, Debug)]
pub struct Vocoder {
    embedding: Embedding,
    unit_layers: Vec<ConvNext>,
    upsample: Linear,
    frame_layers: Vec<ConvNext>,
    norm: Norm,
    mel: Linear,
    magnitude: Linear,
    phase: Linear,
    frames_per_unit: usize,
    kernel: usize,
    #[module(skip)]
    inverse: Inverse,
}

/// A block of ConvNeXt (Liu et al. 2022, <https://arxiv.org/abs/2201.03545>) over a sequence.
#[derive(Module, Debug)]
struct ConvNext {
    /// `[kernel, d]`.
    depthwise: Param<Tensor<2>>,
    norm: Norm,
    up: Linear,
    down: Linear,
}

/// Frames of packed utterances.
#[derive(Debug)]
pub struct Frames {
    /// `[n_frames, n_mels]`: natural logarithms of mel energies.
    pub mels: Tensor<2>,
    /// `[n_frames, 2 n_bins]`: real parts before imaginary ones.
    pub spectra: Tensor<2>,
    /// Where each utterance begins.
    pub offsets: Offsets,
}

const EPS: f64 = 1e-6;

/// What the mean of speech is near, so that training does not begin with finding it: of log-mel energies, and of logarithms
/// of magnitudes.
const MEAN_LOG_MEL: f32 = -6.0;
const MEAN_LOG_MAGNITUDE: f32 = -3.0;

/// The largest logarithm of a magnitude: Vocos clips at 100.
const MOST_LOG_MAGNITUDE: f64 = 4.605_170_185_988_092;

impl VocoderConfig {
    /// What is wrong with the sizes, for units of `samples_per_unit` samples where that is known.
    pub fn problems(&self, samples_per_unit: Option<usize>) -> Vec<String> {
        let mut problems = Vec::new();
        for (field, value) in [("d_model", self.d_model), ("d_ff", self.d_ff)] {
            if value == 0 {
                problems.push(format!("{field} is 0, expected at least 1"));
            }
        }
        if self.kernel.is_multiple_of(2) {
            problems.push(format!("kernel is {}, expected an odd number", self.kernel));
        }
        if self.hop == 0 || !self.hop.is_multiple_of(2) {
            problems.push(format!("hop is {}, expected an even number above 0", self.hop));
        }
        if self.overlap < 3 || self.overlap.is_multiple_of(2) {
            problems
                .push(format!("overlap is {}, expected an odd number of 3 or more", self.overlap));
        }
        let most = self.hop.saturating_mul(self.overlap) / 2;
        if !(1..=most).contains(&self.n_mels) {
            problems.push(format!("n_mels is {}, expected 1 to {most}", self.n_mels));
        }
        if let Some(samples) = samples_per_unit.filter(|n| n.checked_rem(self.hop) != Some(0)) {
            problems.push(format!(
                "hop is {}, expected one of which a unit's {samples} samples are a multiple",
                self.hop
            ));
        }
        problems
    }

    /// Builds the vocoder with random weights, for `n_units` units of `samples_per_unit` samples.
    ///
    /// # Panics
    ///
    /// When a unit has no whole number of frames.
    pub fn init(&self, n_units: usize, samples_per_unit: usize, init: &Init) -> Vocoder {
        assert_eq!(samples_per_unit % self.hop, 0, "a unit has a whole number of frames");
        let frames_per_unit = samples_per_unit / self.hop;
        let d = self.d_model;
        let n_bins = self.hop * self.overlap / 2 + 1;
        let n_layers = self.unit_layers + self.frame_layers;
        let blocks = |name: &str, n: usize| -> Vec<ConvNext> {
            (0..n).map(|i| self.block(n_layers, &init.child(name).child(i))).collect()
        };
        let around = |name: &str, d_out: usize, mean: f32| {
            let init = init.child(name);
            let bias = Some(init.child("bias").constant([d_out], mean));
            Linear { bias, ..Linear::new(&init, d, d_out, false) }
        };
        Vocoder {
            embedding: Embedding::new(&init.child("embedding"), n_units, d, 1.0),
            unit_layers: blocks("unit_layers", self.unit_layers),
            upsample: Linear::new(&init.child("upsample"), d, frames_per_unit * d, true),
            frame_layers: blocks("frame_layers", self.frame_layers),
            norm: Norm::new(&init.child("norm"), NormKind::Layer, d, EPS),
            mel: around("mel", self.n_mels, MEAN_LOG_MEL),
            magnitude: around("magnitude", n_bins, MEAN_LOG_MAGNITUDE),
            phase: around("phase", n_bins, 0.0),
            frames_per_unit,
            kernel: self.kernel,
            inverse: Inverse::new(self.hop, self.overlap),
        }
    }

    fn block(&self, n_layers: usize, init: &Init) -> ConvNext {
        let (d, d_ff) = (self.d_model, self.d_ff);
        // Branches of all blocks together begin about as large as what they are added to.
        let gain = 1.0 / (n_layers as f64).sqrt();
        ConvNext {
            depthwise: init
                .child("depthwise")
                .normal([self.kernel, d], 1.0 / (self.kernel as f64).sqrt()),
            norm: Norm::new(&init.child("norm"), NormKind::Layer, d, EPS),
            up: Linear::new(&init.child("up"), d, d_ff, true),
            down: Linear::scaled(&init.child("down"), d_ff, d, true, gain),
        }
    }
}

impl ConvNext {
    fn forward(&self, x: Tensor<2>, offsets: &Offsets, dropout: Dropout) -> Tensor<2> {
        let seen = ops::depthwise_conv(x.clone(), self.depthwise.val(), offsets);
        let inner = ops::gelu(self.up.forward(self.norm.forward(seen)));
        x + dropout.apply(self.down.forward(inner))
    }
}

impl Vocoder {
    /// Mel spectra and spectra of packed units.
    ///
    /// # Shapes
    ///
    /// - `units`: `[n_units]`, in all utterances
    /// - output: frames, a whole number to a unit
    ///
    /// # Panics
    ///
    /// When the offsets do not cover the units, or a unit is beyond the table.
    pub fn forward(&self, units: &[u32], offsets: &Offsets, dropout: Dropout) -> Frames {
        assert_eq!(offsets.n_rows(), units.len(), "the offsets cover the units");
        let mut x = self.embedding.forward(units);
        for (i, block) in self.unit_layers.iter().enumerate() {
            x = block.forward(x, offsets, dropout.branch("unit").branch(&i.to_string()));
        }
        let [n_units, d] = x.dims();
        let n_frames = n_units * self.frames_per_unit;
        let mut x = self.upsample.forward(x).reshape([n_frames, d]);
        let lengths: Vec<usize> =
            offsets.lengths().into_iter().map(|n| n * self.frames_per_unit).collect();
        let offsets = Offsets::from_lengths(&lengths);
        for (i, block) in self.frame_layers.iter().enumerate() {
            x = block.forward(x, &offsets, dropout.branch("frame").branch(&i.to_string()));
        }
        let x = self.norm.forward(x);
        let mels = self.mel.forward(x.clone());
        let magnitude = self.magnitude.forward(x.clone()).clamp_max(MOST_LOG_MAGNITUDE).exp();
        let phase = self.phase.forward(x);
        let spectra =
            Tensor::cat(vec![magnitude.clone() * phase.clone().cos(), magnitude * phase.sin()], 1);
        Frames { mels, spectra, offsets }
    }

    /// The sound of frames, `[n_samples, 1]`, a hop a frame: the inverse transform as a product with a fixed matrix, through
    /// which gradients flow.
    pub fn sound(&self, frames: &Frames) -> Ragged {
        self.inverse.forward(frames.spectra.clone(), &frames.offsets)
    }

    /// Frames of a unit.
    pub fn frames_per_unit(&self) -> usize {
        self.frames_per_unit
    }

    /// Units on either side that a unit's frames may depend on.
    pub fn context(&self) -> usize {
        let reach = self.kernel / 2;
        let of_frames = (self.frame_layers.len() * reach).div_ceil(self.frames_per_unit);
        self.unit_layers.len() * reach + of_frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ops::testing::to_vec, weights};

    fn config() -> VocoderConfig {
        serde_json::from_value(serde_json::json!({
            "d_model": 8, "d_ff": 12, "unit_layers": 1, "frame_layers": 2, "kernel": 3, "hop": 4, "n_mels": 5,
        }))
        .unwrap()
    }

    fn net() -> Vocoder {
        config().init(7, 16, &Init::new(3, &Device::flex()))
    }

    #[test]
    fn a_unit_has_so_many_frames_and_samples() {
        let net = net();
        let units = [1, 2, 6, 0, 3];
        let frames = net.forward(&units, &Offsets::from_lengths(&[2, 3]), Dropout::OFF);
        assert_eq!(frames.mels.dims(), [20, 5]);
        // Frames of twelve samples.
        assert_eq!(frames.spectra.dims(), [20, spectral_width(4, 3)]);
        assert_eq!(frames.offsets.lengths(), [8, 12]);
        let sound = net.sound(&frames);
        assert_eq!((sound.values.dims(), sound.offsets.lengths()), ([80, 1], vec![32, 48]));
        let n_values: usize = weights::parameters(&net).iter().map(|p| p.n_values()).sum();
        // Table; three blocks of a kernel, a norm and two layers; upsampling; norm; heads of 5, 7 and 7.
        let block = 24 + 16 + (8 * 12 + 12) + (12 * 8 + 8);
        assert_eq!(n_values, 56 + 3 * block + (8 * 32 + 32) + 16 + 9 * (5 + 7 + 7));
    }

    #[test]
    fn an_utterance_does_not_know_its_batch() {
        let net = net();
        let units: Vec<u32> = (0..40).map(|i| i * i % 7).collect();
        let lengths = [17, 1, 22];
        let all = net.forward(&units, &Offsets::from_lengths(&lengths), Dropout::OFF);
        let (sound, spectra, mels) =
            (to_vec(net.sound(&all).values), to_vec(all.spectra), to_vec(all.mels));
        let mut start = 0;
        for n in lengths {
            let span = start..start + n;
            let alone =
                net.forward(&units[span.clone()], &Offsets::from_lengths(&[n]), Dropout::OFF);
            let of = |values: &[f32], a_unit: usize| {
                values[span.start * a_unit..span.end * a_unit].to_vec()
            };
            assert_eq!(to_vec(net.sound(&alone).values), of(&sound, 16));
            assert_eq!(to_vec(alone.spectra), of(&spectra, 4 * 14));
            assert_eq!(to_vec(alone.mels), of(&mels, 4 * 5));
            start += n;
        }
    }

    /// Units behind the context change nothing, those at its edge do.
    #[test]
    fn a_unit_depends_on_its_context_alone() {
        let net = net();
        // One unit through the first block; two frames, so half a unit, through the others.
        assert_eq!(net.context(), 2);
        let units: Vec<u32> = (0..9).map(|i| i * i % 7).collect();
        let mels = |units: &[u32]| {
            let offsets = Offsets::from_lengths(&[units.len()]);
            to_vec(net.forward(units, &offsets, Dropout::OFF).mels)
        };
        let whole = mels(&units);
        // Of units 3 to 6 with two on either side, the middle is the same to the last bit.
        let part = mels(&units[1..7]);
        assert_eq!(part[2 * 20..4 * 20], whole[3 * 20..5 * 20]);
        assert_ne!(mels(&units[2..7])[20..2 * 20], whole[3 * 20..4 * 20]);
    }

    /// The loss of sound reaches every parameter but the mel head, and that of spectra reaches that one.
    #[test]
    fn gradients_reach_everything() {
        let device = Device::flex().autodiff();
        let net = config().init(7, 16, &Init::new(3, &device));
        let frames = net.forward(&[1, 2, 3, 4], &Offsets::from_lengths(&[4]), Dropout::OFF);
        let sound = net.sound(&frames).values;
        let loss = (sound.clone() * sound).sum() + frames.mels.abs().sum();
        let gradients = loss.backward();
        for weight in [&net.mel, &net.magnitude, &net.phase, &net.upsample].map(|l| &l.weight) {
            let gradient = to_vec(weight.grad(&gradients).expect("it takes part"));
            assert!(gradient.iter().any(|&x| x != 0.0));
        }
    }

    #[test]
    fn impossible_sizes_are_said() {
        assert!(config().problems(Some(16)).is_empty());
        let problems = config().problems(Some(18));
        assert!(problems[0].contains("18 samples"), "{problems:?}");
        let bad =
            VocoderConfig { d_model: 0, kernel: 2, hop: 3, overlap: 4, n_mels: 9, ..config() };
        assert_eq!(bad.problems(None).len(), 5, "{:?}", bad.problems(None));
        assert_eq!(VocoderConfig { hop: 0, ..config() }.problems(Some(16)).len(), 3);
    }
}
