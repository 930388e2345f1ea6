//! Distance CTC: frames in the language model's own space, read off by the nearest embeddings (DirectSpeech2LLM,
//! 2026).
//!
//! ```text
//! frames     f0   f1   f2   f3   f4   f5      through a projector, or none where the encoder has the width already
//! nearest     _    a    a    _    b    _      argmax of -|s - q_v|² over the embeddings q; the pad is the blank
//! vectors   ⅓(f0 + f3 + f5)  ½(f1 + f2)  f4   all blanks in one vector, put first; then the runs
//!
//! training   CTC of what is said over the logits -|s - q_v|², and |s - q_nearest|² / √d of frames that are no
//!            blank, of an utterance never more than its CTC
//! ```
//!
//! The softmax does not see what all logits of a frame share, so that they are `2 s · q_v - |q_v|²`: one product of
//! matrices. No gradient flows into the embeddings. With `tokens`, the softmax, too, is over those and the pad
//! alone; the paper restricts the paths and keeps the softmax over all tokens.

use burn::prelude::*;
use rayon::prelude::*;
use sandhi_align::ctc;
use serde::{Deserialize, Serialize};

use super::{
    ConnectorOutput, Embeddings, InputError, Kind, Needs, Penalty, Per, Projector, ProjectorConfig,
    Widths, groups::Groups,
};
use crate::{
    init::Init,
    length::Length,
    lora::{Linears, NamedLinears, below},
    ops,
    ragged::{Offsets, Ragged},
    transformer::Dropout,
    weights::host,
};

/// `kind = "distance_ctc"` in a recipe's `[connector]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistanceCtcConfig {
    /// Whether a projector takes frames to the embeddings' width; without one the encoder has it and learns, as in the
    /// paper.
    #[serde(default = "yes")]
    pub project: bool,
    /// What it is. Beside a frozen encoder a linear layer has to tell tokens by a frame alone.
    #[serde(default)]
    pub projector: ProjectorConfig,
    /// The tokens that frames can be, the pad aside; all where absent. An utterance in which others are said has no
    /// CTC and no commitment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<u32>>,
    /// Whether the mean of all blank frames is put first; they go otherwise.
    #[serde(default = "yes")]
    pub blank_vector: bool,
    /// What squared distances are divided by. In the paper by nothing, among embeddings about 1 long; where they are longer,
    /// distances tell tokens apart so sharply that CTC begins, and stays, with the blank everywhere.
    #[serde(default = "one")]
    pub temperature: f64,
    /// Weight of the CTC loss, per token.
    #[serde(default = "one")]
    pub ctc_weight: f64,
    /// Weight of the commitment, per token.
    #[serde(default = "one")]
    pub commitment_weight: f64,
}

fn yes() -> bool {
    true
}

fn one() -> f64 {
    1.0
}

/// Built by [`DistanceCtcConfig::init`].
#[derive(Module, Debug)]
pub struct DistanceCtc {
    projector: Option<Projector>,
    d_model: usize,
    blank_vector: bool,
    temperature: f64,
    #[module(skip)]
    tokens: Option<Vec<u32>>,
}

/// Rows of the table whose lengths are taken at a time: a table in 16 bits is not copied whole.
const TABLE_BLOCK: usize = 8192;

impl Kind for DistanceCtcConfig {
    fn needs(&self) -> Needs {
        Needs { embeddings: true, said: true, ..Needs::default() }
    }

    /// CTC over distances, and the commitment to the nearest embedding.
    fn penalties(&self) -> Vec<Penalty> {
        vec![
            Penalty { name: "distance_ctc", weight: self.ctc_weight, per: Per::Token },
            Penalty { name: "commitment", weight: self.commitment_weight, per: Per::Token },
        ]
    }

    fn misfits(&self, Widths { d_encoder, d_model }: Widths) -> Vec<String> {
        let misfit = !self.project && d_encoder != d_model;
        let sentence =
            || format!("frames are {d_encoder} wide, expected {d_model} where project is false");
        misfit.then(sentence).into_iter().collect()
    }

    /// The pad is not said.
    fn can_say(&self, said: &[u32], pad: Option<u32>) -> bool {
        let known = |token| self.tokens.as_ref().is_none_or(|tokens| tokens.contains(token));
        said.iter().all(|token| Some(*token) != pad && known(token))
    }

    fn wrong_tokens(&self, n_tokens: usize, pad: Option<u32>) -> Option<String> {
        let tokens = self.tokens.as_ref()?;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= n_tokens) {
            return Some(format!("tokens has {token}, the language model has {n_tokens}"));
        }
        let only_pad = tokens.iter().all(|token| Some(*token) == pad);
        only_pad.then(|| "tokens has nothing but the pad, expected something to say".to_owned())
    }
}

impl DistanceCtcConfig {
    /// Vectors for `n_frames` frames.
    pub fn length(&self, n_frames: usize) -> Length {
        Length::AtMost(n_frames)
    }

    /// What is wrong with the settings.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.projector.problems();
        problems.extend(wrong_temperature(self.temperature));
        if let Some(tokens) = &self.tokens {
            let mut sorted = tokens.clone();
            sorted.sort_unstable();
            if tokens.is_empty() {
                problems.push("tokens is empty, expected at least one token".into());
            } else if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                problems.push(format!("tokens has {} twice, expected every token once", pair[0]));
            }
        }
        let weights =
            [("ctc_weight", self.ctc_weight), ("commitment_weight", self.commitment_weight)];
        for (name, weight) in weights {
            if !(weight.is_finite() && weight >= 0.0) {
                problems.push(format!("{name} is {weight}, expected a number of at least 0"));
            }
        }
        problems
    }

    /// Builds the connector with random weights.
    ///
    /// # Panics
    ///
    /// When there are misfits of the widths.
    pub fn init(&self, widths: Widths, init: &Init) -> DistanceCtc {
        let wrong = self.misfits(widths);
        assert!(wrong.is_empty(), "{}", wrong.join("; "));
        DistanceCtc {
            projector: self.project.then(|| self.projector.init(widths, &init.child("projector"))),
            d_model: widths.d_model,
            blank_vector: self.blank_vector,
            temperature: self.temperature,
            tokens: self.tokens.clone(),
        }
    }
}

/// What is wrong with a temperature.
pub(super) fn wrong_temperature(temperature: f64) -> Option<String> {
    let right = temperature > 0.0 && temperature.is_finite();
    (!right).then(|| format!("temperature is {temperature}, expected a number above 0"))
}

impl Linears for DistanceCtc {
    fn linears(&mut self) -> NamedLinears<'_> {
        let projector = self.projector.as_mut().map(Projector::linears);
        below("projector", projector.unwrap_or_default()).collect()
    }
}

/// The embeddings that frames can be.
pub(super) struct Columns {
    /// `[n_columns, d_model]`, without a gradient.
    table: Tensor<2>,
    pub blank: u32,
    /// What squared distances are divided by.
    temperature: f64,
    /// The column of every token, where not all have their own.
    of_token: Option<std::collections::HashMap<u32, u32>>,
}

impl Columns {
    pub fn new(embeddings: &Embeddings, tokens: Option<&[u32]>, temperature: f64) -> Self {
        let Embeddings { table, pad } = embeddings;
        let table = table.clone().detach();
        let Some(tokens) = tokens else {
            return Self { table, blank: *pad, temperature, of_token: None };
        };
        let others = tokens.iter().copied().filter(|token| token != pad);
        let columns: Vec<u32> = std::iter::once(*pad).chain(others).collect();
        let of_token = columns.iter().zip(0..).map(|(&token, column)| (token, column)).collect();
        let table = ops::embedding(table, &columns);
        Self { table, blank: 0, temperature, of_token: Some(of_token) }
    }

    /// What is said as columns; none where a token has none.
    fn target(&self, said: &[u32]) -> Option<Vec<u32>> {
        match &self.of_token {
            None => Some(said.to_vec()),
            Some(columns) => said.iter().map(|token| columns.get(token).copied()).collect(),
        }
    }

    /// `(2 s · q - |q|²) / temperature`, `[n_frames, n_columns]`.
    pub fn logits(&self, s: Tensor<2>) -> Tensor<2> {
        let [n_columns, _] = self.table.dims();
        let lengths = (0..n_columns).step_by(TABLE_BLOCK).map(|start| {
            let n = TABLE_BLOCK.min(n_columns - start);
            let rows = self.table.clone().narrow(0, start, n).cast(s.dtype());
            rows.square().sum_dim(1).reshape([n])
        });
        let lengths = Tensor::cat(lengths.collect(), 0);
        let bias = lengths / -self.temperature;
        ops::linear(s * (2.0 / self.temperature), self.table.clone().transpose(), Some(bias))
    }
}

impl DistanceCtc {
    pub(super) fn recompute(&mut self, on: bool) {
        if let Some(projector) = &mut self.projector {
            projector.recompute(on);
        }
    }

    /// Whether the embeddings are as wide as the connector's vectors, and have all of its tokens.
    pub(super) fn check(&self, embeddings: &Embeddings) -> Result<(), InputError> {
        embeddings.check_width(self.d_model)?;
        let [n_tokens, _] = embeddings.table.dims();
        let mut tokens = self.tokens.iter().flatten().copied();
        match tokens.find(|&token| token as usize >= n_tokens) {
            Some(token) => Err(InputError::Token { part: "tokens", token, n_tokens }),
            None => Ok(()),
        }
    }

    /// Vectors, the last frame in each (that of the blanks stands first), and the two losses where `said` is given.
    ///
    /// # Shapes
    ///
    /// - `frames.values`: `[n_frames, d_encoder]`
    /// - `said`: tokens of every utterance, in training
    /// - output: `[n_vectors, d_model]`
    pub fn forward(
        &self,
        frames: &Ragged,
        embeddings: &Embeddings,
        said: Option<&[Vec<u32>]>,
        dropout: Dropout,
    ) -> ConnectorOutput {
        let s = match &self.projector {
            Some(projector) => projector.forward(frames.clone(), dropout).values,
            None => frames.values.clone(),
        };
        let columns = Columns::new(embeddings, self.tokens.as_deref(), self.temperature);
        let logits = columns.logits(s.clone());
        let nearest = nearest(&logits);
        let offsets = &frames.offsets;
        let penalties = match said {
            None => Vec::new(),
            Some(said) => losses(&s, logits, offsets, &nearest, &columns, said).into(),
        };
        let (groups, ends) = self.group(offsets, &nearest, columns.blank);
        let lengths: Vec<usize> = ends.iter().map(Vec::len).collect();
        let vectors = Ragged { values: groups.means(s), offsets: Offsets::from_lengths(&lengths) };
        ConnectorOutput { vectors, ends: Some(ends), penalties }
    }

    /// The frames of every vector, and the last of them.
    fn group(&self, offsets: &Offsets, nearest: &[u32], blank: u32) -> (Groups, Vec<Vec<u32>>) {
        let mut groups = Groups::default();
        let of_utterance = |span: std::ops::Range<usize>| {
            let mut ends = Vec::new();
            let blanks = || span.clone().filter(|&row| nearest[row] == blank);
            if let Some(last) = blanks().next_back().filter(|_| self.blank_vector) {
                groups.push(blanks().map(|row| (row, 1.0)));
                ends.push((last - span.start) as u32);
            }
            let mut first = span.start;
            for run in nearest[span.clone()].chunk_by(|a, b| a == b) {
                let past = first + run.len();
                if run[0] != blank {
                    groups.push((first..past).map(|row| (row, 1.0)));
                    ends.push((past - 1 - span.start) as u32);
                }
                first = past;
            }
            ends
        };
        let ends = offsets.iter().map(of_utterance).collect();
        (groups, ends)
    }
}

/// The column of the largest logit of every frame.
pub(super) fn nearest(logits: &Tensor<2>) -> Vec<u32> {
    if logits.dims()[0] == 0 {
        return Vec::new();
    }
    let columns = logits.clone().detach().argmax(1).into_data().convert::<i64>();
    let columns = columns.as_slice::<i64>().expect("converted to i64 the line before");
    columns.iter().map(|&column| column as u32).collect()
}

/// Sums over utterances of CTC and of the commitment, `[1]` each.
///
/// The commitment of an utterance is `sum_t |s_t - q_nearest(t)|² / (temperature √d)` over frames that are no blank.
/// Where it is more than the utterance's CTC, it counts as much as that, and nothing learns from it. An utterance that
/// frames cannot say has neither.
fn losses(
    s: &Tensor<2>,
    logits: Tensor<2>,
    offsets: &Offsets,
    nearest: &[u32],
    columns: &Columns,
    said: &[Vec<u32>],
) -> [Tensor<1>; 2] {
    let targets: Vec<Option<Vec<u32>>> = said.iter().map(|said| columns.target(said)).collect();
    let weights: Vec<f32> =
        targets.iter().map(|target| f32::from(u8::from(target.is_some()))).collect();
    let targets: Vec<Vec<u32>> = targets.into_iter().map(Option::unwrap_or_default).collect();
    let ctc = each_ctc(&logits, offsets, &targets, columns.blank, &weights);
    let sum = ops::ctc_loss(logits, offsets, &targets, columns.blank, &weights);

    let [_, d_model] = s.dims();
    let (device, dtype) = (s.device(), s.dtype());
    let rows: Vec<u32> = (0..)
        .zip(nearest)
        .filter(|(_, column)| **column != columns.blank)
        .map(|(i, _)| i)
        .collect();
    let labels: Vec<u32> = rows.iter().map(|&row| nearest[row as usize]).collect();
    let apart = ops::embedding(s.clone(), &rows) - ops::embedding(columns.table.clone(), &labels);
    let apart = apart.square().sum_dim(1) / (columns.temperature * (d_model as f64).sqrt());

    let on_host = host(apart.clone().detach());
    let (mut counts, mut constant) = (vec![0.0; rows.len()], 0.0);
    for (span, ctc) in offsets.iter().zip(ctc) {
        let within = rows.partition_point(|&row| (row as usize) < span.start)
            ..rows.partition_point(|&row| (row as usize) < span.end);
        let commitment: f64 = on_host[within.clone()].iter().map(|&x| f64::from(x)).sum();
        if commitment > ctc {
            constant += ctc;
        } else {
            counts[within].fill(1.0_f32);
        }
    }
    let counts = TensorData::new(counts, [rows.len(), 1]);
    let counts = Tensor::<2>::from_data(counts, (&device, dtype));
    let constant = Tensor::<1>::full([1], constant as f32, (&device, dtype));
    let commitment = if rows.is_empty() { constant } else { (apart * counts).sum() + constant };
    [sum, commitment]
}

/// The weighted CTC of every utterance; 0 where there are too few frames.
fn each_ctc(
    logits: &Tensor<2>,
    offsets: &Offsets,
    targets: &[Vec<u32>],
    blank: u32,
    weights: &[f32],
) -> Vec<f64> {
    let [_, n_columns] = logits.dims();
    let values = host(logits.clone().detach());
    let of_utterance = |i: usize| {
        let span = offsets.range(i);
        let rows = &values[span.start * n_columns..span.end * n_columns];
        let one = i..i + 1;
        let (targets, weights) = (&targets[one.clone()], &weights[one]);
        ctc::batch_loss(rows, n_columns, &[0, span.len()], targets, blank, weights)
            .unwrap_or_else(|error| panic!("{error}"))
    };
    (0..offsets.n_sequences()).into_par_iter().map(of_utterance).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        connector::{
            Connector, ConnectorConfig, LayersConfig,
            testing::{Speech, WIDTHS, input, obeys},
        },
        ops::testing::{Case, cpu, random},
    };

    fn config() -> DistanceCtcConfig {
        DistanceCtcConfig {
            project: true,
            projector: ProjectorConfig::Linear,
            tokens: None,
            blank_vector: true,
            temperature: 1.0,
            ctc_weight: 1.0,
            commitment_weight: 1.0,
        }
    }

    #[test]
    fn it_is_a_connector() {
        let some = DistanceCtcConfig { tokens: Some(vec![3, 0, 1]), ..config() };
        let dropped = DistanceCtcConfig { blank_vector: false, ..config() };
        let layers = LayersConfig { d_hidden: 8, n_layers: 1, n_heads: 2, d_ff: 12 };
        let projector = ProjectorConfig::Transformer(layers);
        let deep = DistanceCtcConfig { projector, ..config() };
        for config in [config(), some, dropped, deep] {
            obeys(&ConnectorConfig::DistanceCtc(config));
        }
    }

    /// Tokens of one number: the pad is 0, a is 4, b is -4.
    fn embeddings() -> Embeddings {
        Embeddings { table: Tensor::from_floats([[0.0], [4.0], [-4.0]], &cpu()), pad: 0 }
    }

    fn run(
        config: DistanceCtcConfig,
        frames: &[f32],
        lengths: &[usize],
        said: Option<&[Vec<u32>]>,
    ) -> ConnectorOutput {
        let connector = DistanceCtcConfig { project: false, ..config }
            .init(Widths { d_encoder: 1, d_model: 1 }, &Init::new(1, &cpu()));
        let data = TensorData::new(frames.to_vec(), [frames.len(), 1]);
        let values = Tensor::from_data(data, &cpu());
        let frames = Ragged { values, offsets: Offsets::from_lengths(lengths) };
        connector.forward(&frames, &embeddings(), said, Dropout::OFF)
    }

    #[test]
    fn runs_of_the_nearest_token_become_their_mean_and_blanks_stand_first() {
        // _ a a _ b _ and a _ a.
        let frames = [1.0, 3.0, 5.0, -1.0, -9.0, 1.5, 4.0, 0.5, 2.5];
        let found = run(config(), &frames, &[6, 0, 3], None);
        assert_eq!(host(found.vectors.values), [0.5, 4.0, -9.0, 0.5, 4.0, 2.5]);
        assert_eq!(found.ends.unwrap(), [vec![5, 2, 4], vec![], vec![1, 0, 2]]);
        assert!(found.penalties.is_empty());

        let dropped = DistanceCtcConfig { blank_vector: false, ..config() };
        let found = run(dropped, &frames, &[6, 0, 3], None);
        assert_eq!(host(found.vectors.values), [4.0, -9.0, 4.0, 2.5]);
        // Without b, -9 is nearer to the pad than to a.
        let only_a = DistanceCtcConfig { tokens: Some(vec![1]), ..config() };
        let found = run(only_a, &frames, &[6, 0, 3], None);
        assert_eq!(found.ends.unwrap(), [vec![5, 2], vec![], vec![1, 0, 2]]);
    }

    #[test]
    fn losses_by_hand() {
        // One frame at 3 that says a: -log of 1 / (1 + e^(1 - 9) + e^(1 - 49)); its distance to a is 1.
        let ctc = (1.0 + (-8.0_f64).exp() + (-48.0_f64).exp()).ln();
        let sums = |frames: &[f32], lengths: &[usize], said: &[Vec<u32>]| {
            run(config(), frames, lengths, Some(said))
                .penalties
                .into_iter()
                .map(|x| host(x)[0])
                .collect::<Vec<_>>()
        };
        // The commitment, 1, is more than the CTC and counts as much.
        let found = sums(&[3.0], &[1], &[vec![1]]);
        assert!(found.iter().all(|x| (f64::from(*x) - ctc).abs() < 1e-5), "{found:?}");
        // At 3 and saying b, the CTC is 48 more than nearest a, and the commitment is the distance to a.
        let found = sums(&[3.0], &[1], &[vec![2]]);
        assert!((f64::from(found[0]) - ctc - 48.0).abs() < 1e-4 && found[1] == 1.0, "{found:?}");
        // At a temperature of 4 distances count a quarter: 1 / (1 + e^((1 - 9) / 4) + …).
        let warm = DistanceCtcConfig { temperature: 4.0, ..config() };
        let [found, commitment] = [1, 2].map(|said| {
            let sums = run(warm.clone(), &[3.0], &[1], Some(&[vec![said]])).penalties;
            sums.into_iter().map(|sum| f64::from(host(sum)[0])).collect::<Vec<_>>()
        });
        let ctc_warm = (1.0 + (-2.0_f64).exp() + (-12.0_f64).exp()).ln();
        assert!(found.iter().all(|x| (x - ctc_warm).abs() < 1e-5), "{found:?} {ctc_warm}");
        // So does the commitment, where the CTC does not bound it.
        assert_eq!(commitment[1], 0.25);
        // Each utterance has its own bound; a frame at the pad has no commitment.
        let found = sums(&[3.0, 3.0, 0.0], &[1, 1, 1], &[vec![1], vec![2], vec![]]);
        assert!((f64::from(found[1]) - ctc - 1.0).abs() < 1e-5, "{found:?}");
        // What does not fit its frames, or is none of the tokens, has no loss.
        assert_eq!(sums(&[3.0], &[1], &[vec![1, 2]]), [0.0, 0.0]);
        let only_b = DistanceCtcConfig { tokens: Some(vec![2]), ..config() };
        assert!(
            only_b.can_say(&[2, 2], Some(0))
                && !only_b.can_say(&[2, 1], None)
                && !only_b.can_say(&[2], Some(2))
        );
        let found = run(only_b, &[-3.0], &[1], Some(&[vec![1]])).penalties;
        assert!(found.into_iter().all(|sum| host(sum) == [0.0]));
    }

    #[test]
    fn gradients_match_differences() {
        // Frames near embeddings of which other ones are said: the CTC is more than the commitment, and no frame is
        // about to be nearer to another embedding.
        let mut table = random([4, 3], 5);
        table.values.iter_mut().for_each(|x| *x *= 2.0);
        let mut s = random([6, 3], 1);
        for (s, label) in s.values.chunks_mut(3).zip([1, 2, 0, 3, 2, 1]) {
            let near = &table.values[3 * label..];
            s.iter_mut().zip(near).for_each(|(s, near)| *s = near + 0.2 * *s);
        }
        let embeddings = Embeddings { table: table.tensor(&cpu().autodiff()), pad: 0 };
        let offsets = Offsets::from_lengths(&[4, 2]);
        let said = [vec![1, 3, 2], vec![3]];
        Case::new().input(s).check_differences(|t| {
            let embeddings = if t.rows(0).is_autodiff() {
                embeddings.clone()
            } else {
                Embeddings { table: embeddings.table.clone().inner(), pad: 0 }
            };
            let columns = Columns::new(&embeddings, None, 1.0);
            let logits = columns.logits(t.rows(0));
            let nearest = nearest(&logits);
            assert_eq!(nearest, [1, 2, 0, 3, 2, 1]);
            let sums = losses(&t.rows(0), logits, &offsets, &nearest, &columns, &said);
            Tensor::cat(sums.to_vec(), 0)
        });
    }

    #[test]
    fn embeddings_learn_nothing() {
        let device = cpu().autodiff();
        let connector = config().init(WIDTHS, &Init::new(1, &device));
        let table = random([5, WIDTHS.d_model], 5).tensor(&device).require_grad();
        let embeddings = Embeddings { table: table.clone(), pad: 0 };
        let frames = Speech::new(7, 1).frames(&device);
        let found = connector.forward(&frames, &embeddings, Some(&[vec![1, 2]]), Dropout::OFF);
        let loss = found.penalties.into_iter().fold(found.vectors.values.sum(), |a, b| a + b);
        assert!(table.grad(&loss.backward()).is_none());
    }

    #[test]
    fn embeddings_that_do_not_fit_are_refused() {
        let tokens = Some(vec![1, 7]);
        let config = DistanceCtcConfig { tokens, ..config() };
        let given = input(&[Speech::new(2, 1)], false, &cpu());
        let connector = |widths| Connector::DistanceCtc(config.init(widths, &Init::new(1, &cpu())));
        let refused = |connector: Connector| {
            connector.try_forward(&given, Dropout::OFF).unwrap_err().to_string()
        };
        assert_eq!(
            refused(connector(WIDTHS)),
            "tokens: found token 7, expected one of the 5 rows of the embeddings"
        );
        assert_eq!(
            refused(connector(Widths { d_model: 4, ..WIDTHS })),
            "embeddings: found width 8, expected 4"
        );
    }

    #[test]
    fn settings_that_do_not_fit_are_named() {
        let wrong = DistanceCtcConfig {
            project: false,
            tokens: Some(vec![4, 2, 4]),
            ctc_weight: f64::NAN,
            ..config()
        };
        assert_eq!(
            wrong.problems(),
            [
                "tokens has 4 twice, expected every token once",
                "ctc_weight is NaN, expected a number of at least 0"
            ]
        );
        assert_eq!(wrong.misfits(WIDTHS), ["frames are 6 wide, expected 8 where project is false"]);
        let none = DistanceCtcConfig { tokens: Some(vec![]), ..config() };
        assert_eq!(none.problems(), ["tokens is empty, expected at least one token"]);
    }
}
