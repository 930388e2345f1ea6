//! A text-and-unit aligner: how well every frame of speech fits every character of a text.
//!
//! ```text
//! characters ─ embedding ── conv 3, ReLU ────────────────── conv 1 ─┐
//!                                                                   ├─ score = - temperature · distance  [frames, chars]
//! units ────── embedding ─┬ conv 3, ReLU ── conv 3, ReLU ── conv 1 ─┘
//! or frames ── linear ────┘
//! ```
//!
//! The aligner of UnitY2 (Seamless Communication 2023, "Seamless",
//! [arXiv 2312.05187](https://arxiv.org/abs/2312.05187), section 3.3.2), after Badlani et al. 2022
//! ([arXiv 2108.10447](https://arxiv.org/abs/2108.10447)). A frame's scores become a distribution over the characters of
//! *its* text by a softmax; [`crate::ops::forward_sum_loss`] trains them, and
//! [`sandhi_align::monotonic::search`] finds the path. The published one has embeddings of 1,024 for 10,000 units of
//! 20 ms; width, kernel and the frames themselves instead of units are ours to choose.
//!
//! [`Softmax::Units`] is ours, with units' embeddings, ReLU and conv 1 alone on the side of speech: a character's scores
//! become a distribution over all *units* there are, so that the aligner is a hidden Markov model with a state a
//! character, trained by [`crate::ops::path_sum_loss`]. A unit then has to be told from all others, not a character from
//! those beside it, which a character's neighbors can do as well.

use burn::{
    prelude::*,
    tensor::activation::{log_softmax, relu},
};
use sandhi_align::transport::Batch;
use serde::{Deserialize, Serialize};

use crate::{
    init::Init,
    layers::{Embedding, Linear},
    ops,
    ragged::{Offsets, Ragged},
    transformer::Dropout,
};

/// The `[aligner]` table of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitAlignerConfig {
    /// Width of everything; more tells more sounds apart.
    pub d_model: usize,
    /// Frames and characters that a convolution sees: odd.
    #[serde(default = "default_kernel")]
    pub kernel: usize,
    /// Convolutions over the units or frames, one behind the other; none where the softmax is over units.
    #[serde(default = "default_layers")]
    pub n_layers: usize,
    /// What scores are a distribution over.
    #[serde(default)]
    pub softmax: Softmax,
    /// What distances are multiplied with; more makes the distributions sharper from the start.
    #[serde(default = "default_temperature")]
    pub temperature: f64,
}

fn default_kernel() -> usize {
    3
}
fn default_layers() -> usize {
    2
}
fn default_temperature() -> f64 {
    1.0
}

/// What scores are a distribution over, in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Softmax {
    /// The characters of the text, for every frame: UnitY2's.
    #[default]
    Characters,
    /// All units, for every character.
    Units,
}

/// What is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hears {
    /// Discrete units, this many.
    Units(usize),
    /// Frames of this width.
    Frames(usize),
}

/// Units or frames of packed utterances.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // there is one of them
pub enum Heard {
    /// Numbers below that of the units, and where each utterance begins.
    Units(Vec<u32>, Offsets),
    /// Frames of the width that was said.
    Frames(Ragged),
}

impl Heard {
    /// Where each utterance begins.
    pub fn offsets(&self) -> &Offsets {
        match self {
            Self::Units(_, offsets) => offsets,
            Self::Frames(frames) => &frames.offsets,
        }
    }
}

/// Built by [`UnitAlignerConfig::init`].
#[derive(Module, Debug)]
pub struct UnitAligner {
    text: TextSide,
    speech: SpeechSide,
    temperature: f64,
    kernel: usize,
    #[module(skip)]
    softmax: Softmax,
}

#[derive(Module, Debug)]
struct TextSide {
    embedding: Embedding,
    conv: Linear,
    out: Linear,
}

#[derive(Module, Debug)]
struct SpeechSide {
    input: SpeechInput,
    convs: Vec<Linear>,
    out: Linear,
}

/// What turns into vectors first.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // there is one of them
enum SpeechInput {
    Units(UnitTable),
    Frames(Linear),
}

#[derive(Module, Debug)]
struct UnitTable {
    embedding: Embedding,
}

/// Scores of packed utterances.
#[derive(Debug)]
pub struct Scores {
    /// `[n_cells, 1]`: the matrices `[n_frames, n_characters]` behind one another.
    pub values: Tensor<2>,
    /// Where they begin.
    pub batch: Batch,
}

impl UnitAlignerConfig {
    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.d_model == 0 {
            problems.push("d_model is 0, expected at least 1".into());
        }
        match self.softmax {
            Softmax::Characters if self.n_layers == 0 => {
                problems.push("n_layers is 0, expected at least 1".into());
            }
            Softmax::Units if self.n_layers > 0 => problems.push(format!(
                "n_layers is {}, but a distribution over units knows none beside them: expected 0",
                self.n_layers
            )),
            _ => {}
        }
        if self.kernel.is_multiple_of(2) {
            problems.push(format!("kernel is {}, expected an odd number", self.kernel));
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            problems
                .push(format!("temperature is {}, expected a number above 0", self.temperature));
        }
        problems
    }

    /// Builds the aligner with random weights for so many characters.
    ///
    /// # Panics
    ///
    /// When the softmax is over units and frames are heard.
    pub fn init(&self, n_characters: usize, hears: Hears, init: &Init) -> UnitAligner {
        let (d, d_window) = (self.d_model, self.kernel * self.d_model);
        let (text, speech) = (init.child("text"), init.child("speech"));
        assert!(
            self.softmax == Softmax::Characters || matches!(hears, Hears::Units(_)),
            "a distribution over units takes units"
        );
        // A ReLU halves the variance, which the gain gives back.
        let conv = |init: &Init| Linear::scaled(init, d_window, d, true, 2.0_f64.sqrt());
        let input = speech.child("input");
        UnitAligner {
            text: TextSide {
                embedding: Embedding::new(&text.child("embedding"), n_characters, d, 1.0),
                conv: conv(&text.child("conv")),
                out: Linear::new(&text.child("out"), d, d, true),
            },
            speech: SpeechSide {
                input: match hears {
                    Hears::Units(n) => SpeechInput::Units(UnitTable {
                        embedding: Embedding::new(&input.child("embedding"), n, d, 1.0),
                    }),
                    Hears::Frames(width) => {
                        SpeechInput::Frames(Linear::new(&input, width, d, true))
                    }
                },
                convs: (0..self.n_layers).map(|i| conv(&speech.child("convs").child(i))).collect(),
                out: Linear::new(&speech.child("out"), d, d, true),
            },
            temperature: self.temperature,
            kernel: self.kernel,
            softmax: self.softmax,
        }
    }
}

impl UnitAligner {
    /// The loss of all paths in these scores, to which a prior may have been added; a sum over the utterances, by
    /// their weights.
    ///
    /// # Panics
    ///
    /// As [`ops::forward_sum_loss`].
    pub fn path_loss(&self, scores: Tensor<2>, batch: &Batch, weights: &[f32]) -> Tensor<1> {
        match self.softmax {
            Softmax::Characters => ops::forward_sum_loss(scores, batch, None, weights),
            Softmax::Units => ops::path_sum_loss(scores, batch, weights),
        }
    }

    /// Scores of every frame for every character of its utterance's text; the log-probabilities of the frames' units
    /// where the softmax is over those.
    ///
    /// # Panics
    ///
    /// When there are not as many texts as utterances, one of either is empty, what is heard is not what the aligner
    /// was built for, or a number is beyond the table.
    pub fn forward(&self, heard: &Heard, texts: &[Vec<u32>], dropout: Dropout) -> Scores {
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        let columns = Offsets::from_lengths(&lengths);
        let batch = Batch::new(heard.offsets().as_slice(), columns.as_slice())
            .unwrap_or_else(|error| panic!("as many texts as utterances, none empty: {error}"));
        let text = dropout.branch("text");
        let x = self.text.embedding.forward(&texts.concat());
        let x = text.apply(self.convolved(&self.text.conv, x, &columns));
        let characters = self.text.out.forward(x);
        if let (Softmax::Units, SpeechInput::Units(table), Heard::Units(units, _)) =
            (self.softmax, &self.speech.input, heard)
        {
            let sounds = self.speech.out.forward(relu(table.embedding.weight.val()));
            let values = self.unit_log_probs(characters, sounds, units, &batch);
            return Scores { values, batch };
        }
        let mut x = match (&self.speech.input, heard) {
            (SpeechInput::Units(table), Heard::Units(units, _)) => table.embedding.forward(units),
            (SpeechInput::Frames(linear), Heard::Frames(frames)) => {
                linear.forward(frames.values.clone())
            }
            _ => panic!("an aligner of units hears units, one of frames frames"),
        };
        for (i, conv) in self.speech.convs.iter().enumerate() {
            let dropout = dropout.branch("speech").branch(&i.to_string());
            x = dropout.apply(self.convolved(conv, x, heard.offsets()));
        }
        let frames = self.speech.out.forward(x);
        let values = ops::distances(frames, characters, &batch) * -self.temperature;
        Scores { values, batch }
    }

    /// `log p(unit of the frame | character)` of every frame and character of its utterance.
    fn unit_log_probs(
        &self,
        characters: Tensor<2>,
        sounds: Tensor<2>,
        units: &[u32],
        batch: &Batch,
    ) -> Tensor<2> {
        let shape @ [n_characters, n_units] = [characters.dims()[0], sounds.dims()[0]];
        let all = Batch::one(shape).expect("there are characters and units");
        let scores = ops::distances(characters, sounds, &all) * -self.temperature;
        let log_probs = log_softmax(scores.reshape(shape), 1);
        let mut cells = Vec::with_capacity(batch.totals()[2]);
        for problem in 0..batch.len() {
            let columns = batch.columns(problem);
            for &unit in &units[batch.rows(problem)] {
                assert!((unit as usize) < n_units, "unit {unit} is beyond a table of {n_units}");
                cells.extend(columns.clone().map(|column| (column * n_units) as u32 + unit));
            }
        }
        ops::embedding(log_probs.reshape([n_characters * n_units, 1]), &cells)
    }

    fn convolved(&self, conv: &Linear, x: Tensor<2>, offsets: &Offsets) -> Tensor<2> {
        let (windows, _) = ops::unfold(x, offsets, self.kernel, 1, self.kernel / 2);
        relu(conv.forward(windows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ops::testing::{cpu, random, to_vec},
        weights,
    };

    fn config() -> UnitAlignerConfig {
        UnitAlignerConfig {
            d_model: 24,
            kernel: 3,
            n_layers: 2,
            temperature: 0.7,
            softmax: Softmax::Characters,
        }
    }

    #[test]
    fn parameters_have_names_and_shapes() {
        let net = config().init(9, Hears::Units(50), &Init::new(1, &cpu()));
        let mut found: Vec<(String, Vec<usize>)> =
            weights::parameters(&net).into_iter().map(|info| (info.name, info.shape)).collect();
        found.sort();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "speech.convs.0.bias",
            "speech.convs.0.weight",
            "speech.convs.1.bias",
            "speech.convs.1.weight",
            "speech.input.embedding.weight",
            "speech.out.bias",
            "speech.out.weight",
            "text.conv.bias",
            "text.conv.weight",
            "text.embedding.weight",
            "text.out.bias",
            "text.out.weight",
        ];
        assert_eq!(names, expected);
        assert_eq!(found[4].1, [50, 24]);
    }

    #[test]
    fn scores_are_negative_distances_of_the_two_sides() {
        let init = Init::new(3, &cpu());
        let net = config().init(9, Hears::Frames(5), &init);
        let frames = |n: usize, seed| Ragged {
            values: random([n, 5], seed).tensor(&cpu()),
            offsets: Offsets::from_lengths(&[n]),
        };
        let score = |heard: Heard, text: &[u32]| {
            let scores = net.forward(&heard, &[text.to_vec()], Dropout::OFF);
            (to_vec(scores.values), scores.batch.shape(0))
        };
        let (values, shape) = score(Heard::Frames(frames(6, 1)), &[1, 2, 3]);
        assert_eq!((values.len(), shape), (18, [6, 3]));
        // A temperature is a factor, and what is known of a frame and a character alone lies 0 apart at least.
        let warm = UnitAlignerConfig { temperature: 1.4, ..config() };
        let warm = warm.init(9, Hears::Frames(5), &init);
        let twice = warm.forward(&Heard::Frames(frames(6, 1)), &[vec![1, 2, 3]], Dropout::OFF);
        for (twice, once) in to_vec(twice.values).into_iter().zip(&values) {
            assert!((twice - 2.0 * once).abs() < 1e-4 && *once < 0.0, "{twice} {once}");
        }
        // A character's neighbors are part of it: the convolution sees three.
        let (other, _) = score(Heard::Frames(frames(6, 1)), &[1, 2, 4]);
        assert_eq!(values[0], other[0]);
        assert_ne!(values[1], other[1]);
    }

    #[test]
    fn an_utterance_does_not_know_its_batch() {
        let net = config().init(9, Hears::Units(7), &Init::new(1, &cpu()));
        let units: Vec<u32> = (0..90).map(|i| i * i % 7).collect();
        let texts = [vec![1, 2, 3], vec![4], vec![8, 8, 2, 5, 0]];
        let lengths = [30, 1, 59];
        let heard = Heard::Units(units.clone(), Offsets::from_lengths(&lengths));
        let whole = net.forward(&heard, &texts, Dropout::OFF);
        let values = to_vec(whole.values);
        let mut start = 0;
        for (i, (text, n)) in texts.iter().zip(lengths).enumerate() {
            let units = units[start..start + n].to_vec();
            start += n;
            let heard = Heard::Units(units, Offsets::from_lengths(&[n]));
            let alone = net.forward(&heard, std::slice::from_ref(text), Dropout::OFF);
            assert_eq!(to_vec(alone.values), values[whole.batch.cells(i)], "utterance {i}");
        }
    }

    /// `p(unit | character)` sums to one over the units, whoever else is in the batch.
    #[test]
    fn a_softmax_over_units_is_a_distribution_of_every_character() {
        let config = UnitAlignerConfig { n_layers: 0, softmax: Softmax::Units, ..config() };
        let net = config.init(9, Hears::Units(7), &Init::new(1, &cpu()));
        let texts = [vec![1, 2, 3], vec![8, 8, 2, 5]];
        let heard = Heard::Units((0..7).chain(0..7).collect(), Offsets::from_lengths(&[7, 7]));
        let scores = net.forward(&heard, &texts, Dropout::OFF);
        let values = to_vec(scores.values);
        for (i, text) in texts.iter().enumerate() {
            let rows = &values[scores.batch.cells(i)];
            for character in 0..text.len() {
                let column = rows.iter().skip(character).step_by(text.len());
                let total: f32 = column.map(|log_prob| log_prob.exp()).sum();
                assert!((total - 1.0).abs() < 1e-5, "{total}");
            }
            let alone = Heard::Units((0..7).collect(), Offsets::from_lengths(&[7]));
            let alone = net.forward(&alone, std::slice::from_ref(text), Dropout::OFF);
            assert_eq!(to_vec(alone.values), rows, "text {i}");
        }
    }

    /// Units that follow from the characters are told apart within a few steps. Without neighbors to tell a character by
    /// there is one solution alone.
    #[test]
    fn it_learns_to_align() {
        let device = cpu().autodiff();
        let texts = [vec![1, 2, 3], vec![3, 1, 4], vec![2, 4, 1]];
        let units: Vec<u32> =
            texts.iter().flat_map(|text| [text[0], text[0], text[1], text[2], text[2]]).collect();
        let heard = Heard::Units(units, Offsets::from_lengths(&[5; 3]));
        let prior = sandhi_align::monotonic::beta_binomial_prior(5, 3, 1.0).unwrap().repeat(3);
        let prior = Tensor::<2>::from_data(TensorData::new(prior, [45, 1]), &device);
        for (softmax, n_layers) in [(Softmax::Characters, 2), (Softmax::Units, 0)] {
            let config = UnitAlignerConfig { kernel: 1, n_layers, softmax, ..config() };
            let mut net = config.init(5, Hears::Units(5), &Init::new(1, &device));
            let mut optimizer = burn::optim::AdamConfig::new().init();
            for _ in 0..60 {
                let scores = net.forward(&heard, &texts, Dropout::OFF);
                let loss = net.path_loss(scores.values + prior.clone(), &scores.batch, &[1.0; 3]);
                let gradients = burn::optim::GradientsParams::from_grads(loss.backward(), &net);
                net = optimizer.step(0.02, net, gradients);
            }
            let scores = net.forward(&heard, &texts, Dropout::OFF);
            let values = to_vec(scores.values.inner());
            for i in 0..3 {
                let scores = &values[scores.batch.cells(i)];
                let path = sandhi_align::monotonic::search(scores, 3).unwrap();
                assert_eq!(path.durations, [2, 1, 2], "{softmax:?}");
            }
        }
    }

    #[test]
    fn impossible_sizes_are_said() {
        assert!(config().problems().is_empty());
        let bad = UnitAlignerConfig {
            d_model: 0,
            kernel: 2,
            n_layers: 1,
            temperature: 0.0,
            softmax: Softmax::Units,
        };
        assert_eq!(bad.problems().len(), 4, "{:?}", bad.problems());
        let none = UnitAlignerConfig { n_layers: 0, ..config() };
        assert_eq!(none.problems(), ["n_layers is 0, expected at least 1"]);
    }
}
