//! SSR-Connector: a causal transformer over frames, and its state at the end of every segment
//! ("SSR: Alignment-aware modality connector for speech language models", Tan et al., 2024,
//! <https://arxiv.org/abs/2410.00168>, section 3).
//!
//! ```text
//! frames    f0 f1 f2 | f3 | f4 f5         ends 2, 3, 5: one segment a token
//! input     linear, no bias
//! blocks    a frame sees its segment's frames up to itself, and the last frame of the segment before:
//!
//!           f0 f1 f2   f3   f4 f5
//!      f0    x
//!      f2    x  x  x
//!      f3          x    x
//!      f5               x    x  x
//!
//! output          c0   c1      c2         states of f2, f3, f5 -> norm -> linear where widths differ
//! ```
//!
//! Segments are given, or the connector finds them itself ([`super::cut`]).
//!
//! There are no positions: order comes from the causal mask. The frame before a segment is there with what it is at
//! that depth, so that content passes on by one segment a block. The block mask is a range of keys for every query,
//! not a matrix. With `pool = "last"` the last block works on the frames that end segments alone.

use std::ops::Range;

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    ConnectorInput, ConnectorOutput, InputError, Kind, Needs, Penalty, Segments, Widths,
    cut::{Cut, CutConfig, Found},
    fire::Fired,
    groups::Groups,
};
use crate::{
    init::Init,
    layers::{Linear, Norm, NormKind},
    length::Length,
    lora::{Linears, NamedLinears, below, numbered},
    ops::Mask,
    ragged::{Offsets, Ragged},
    transformer::{AttentionBias, Block, BlockConfig, Dropout, MlpKind, Placement},
};

/// What a segment becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum SegmentPool {
    /// The state of its last frame, as in the paper.
    #[default]
    Last,
    /// The mean of the states of its frames.
    Mean,
    /// The sum of states by the shares that fired, through which weights learn; needs `cut.by = "cif"`.
    Fire,
}

/// `kind = "ssr"` in a recipe's `[connector]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SsrConfig {
    /// Width of the compressor; the language model's in the paper.
    pub d_hidden: usize,
    /// Its blocks; the paper has 4.
    pub n_layers: usize,
    /// Its query heads; 32 in the paper.
    pub n_heads: usize,
    /// Its key and value heads; 8 in the paper.
    pub n_kv_heads: usize,
    /// Width inside its feed-forward layers; 14,336 in the paper.
    pub d_ff: usize,
    /// Whether frames see no segment but their own and the last frame of the one before; all frames before them
    /// otherwise.
    #[serde(default = "yes")]
    pub blockwise: bool,
    /// What a segment becomes.
    #[serde(default)]
    pub pool: SegmentPool,
    /// Whether a linear layer follows; without one `d_hidden` is the language model's width, as in the paper.
    #[serde(default = "yes")]
    pub output: bool,
    /// How it cuts by itself; segments are those that the model is given where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<CutConfig>,
}

fn yes() -> bool {
    true
}

/// Built by [`SsrConfig::init`].
#[derive(Module, Debug)]
pub struct SsrConnector {
    input: Linear,
    layers: Vec<Block>,
    norm: Norm,
    output: Option<Linear>,
    cut: Option<Cut>,
    blockwise: bool,
    #[module(skip)]
    pool: SegmentPool,
    d_model: usize,
    recompute: bool,
}

const EPS: f64 = 1e-5;

impl Kind for SsrConfig {
    fn needs(&self) -> Needs {
        match &self.cut {
            None => Needs { segments: true, ..Needs::default() },
            Some(cut) => cut.needs(),
        }
    }

    fn penalties(&self) -> Vec<Penalty> {
        self.cut.iter().flat_map(CutConfig::penalties).collect()
    }

    fn misfits(&self, widths: Widths) -> Vec<String> {
        let (found, expected) = (self.d_hidden, widths.d_model);
        let misfit = !self.output && found != expected;
        misfit
            .then(|| format!("d_hidden is {found}, expected {expected} where output is false"))
            .into_iter()
            .collect()
    }

    fn is_per_token(&self) -> bool {
        true
    }

    fn can_say(&self, said: &[u32], pad: Option<u32>) -> bool {
        self.cut.as_ref().is_none_or(|cut| cut.can_say(said, pad))
    }
}

impl SsrConfig {
    /// Vectors for `n_frames` frames: one a segment.
    pub fn length(&self, n_frames: usize) -> Length {
        Length::AtMost(n_frames)
    }

    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        let Self { d_hidden, n_layers, n_heads, n_kv_heads, d_ff, .. } = *self;
        let sizes = [("d_hidden", d_hidden), ("n_layers", n_layers), ("d_ff", d_ff)];
        let mut problems = super::zeros(&sizes);
        if n_heads == 0 || !d_hidden.is_multiple_of(n_heads) {
            problems.push(format!("d_hidden {d_hidden} is not a multiple of n_heads {n_heads}"));
        }
        if n_kv_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
            problems
                .push(format!("n_heads {n_heads} is not a multiple of n_kv_heads {n_kv_heads}"));
        }
        problems.extend(self.cut.iter().flat_map(CutConfig::problems));
        if self.pool == SegmentPool::Fire && !matches!(self.cut, Some(CutConfig::Cif(_))) {
            problems.push("pool is \"fire\", which needs cut.by = \"cif\"".into());
        }
        problems
    }

    /// Builds the connector with random weights.
    ///
    /// # Panics
    ///
    /// When there are [`SsrConfig::problems`] or misfits of the widths.
    pub fn init(&self, widths: Widths, init: &Init) -> SsrConnector {
        let wrong = [self.problems(), self.misfits(widths)].concat();
        assert!(wrong.is_empty(), "{}", wrong.join("; "));
        let block = BlockConfig {
            d_model: self.d_hidden,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            d_head: self.d_hidden / self.n_heads,
            d_ff: self.d_ff,
            norm: NormKind::Rms,
            mlp: MlpKind::SwiGlu,
            bias: AttentionBias::default(),
            qk_norm: false,
            norm_eps: EPS,
            rope: None,
        };
        SsrConnector {
            input: Linear::new(&init.child("input"), widths.d_encoder, self.d_hidden, false),
            layers: (0..self.n_layers)
                .map(|i| Block::new(&init.child("layers").child(i), &block))
                .collect(),
            norm: Norm::new(&init.child("norm"), NormKind::Rms, self.d_hidden, EPS),
            output: self
                .output
                .then(|| Linear::new(&init.child("output"), self.d_hidden, widths.d_model, false)),
            cut: self.cut.as_ref().map(|cut| cut.init(widths, &init.child("cut"))),
            blockwise: self.blockwise,
            pool: self.pool,
            d_model: widths.d_model,
            recompute: false,
        }
    }
}

impl Linears for SsrConnector {
    fn linears(&mut self) -> NamedLinears<'_> {
        let input = std::iter::once(("input".to_owned(), &mut self.input));
        let output = self.output.as_mut().map(|output| ("output".to_owned(), output));
        let cut = self.cut.iter_mut().flat_map(|cut| below("cut", cut.linears()));
        input.chain(numbered("layers", &mut self.layers)).chain(output).chain(cut).collect()
    }
}

impl SsrConnector {
    pub(super) fn recompute(&mut self, on: bool) {
        self.recompute = on;
        self.cut.iter_mut().for_each(|cut| cut.recompute(on));
    }

    /// Vectors, one a segment, and the last frame of each; in training what the cut is trained with.
    ///
    /// # Shapes
    ///
    /// - `input.frames.values`: `[n_frames, d_encoder]`
    /// - output: `[n_segments, d_model]`
    ///
    /// # Errors
    ///
    /// When the input lacks segments, or what the connector finds them with.
    pub fn forward(
        &self,
        input: &ConnectorInput,
        dropout: Dropout,
    ) -> Result<ConnectorOutput, InputError> {
        let Some(cut) = &self.cut else {
            let segments = input.segments()?;
            let vectors = self.compress(&input.frames, segments, None, dropout);
            let ends = Some(segments.ends().to_vec());
            return Ok(ConnectorOutput { ends, ..ConnectorOutput::vectors(vectors) });
        };
        let Found { segments, fired, penalties } =
            cut.find(input, self.d_model, dropout.branch("cut"))?;
        let vectors = self.compress(&input.frames, &segments, fired.as_ref(), dropout);
        Ok(ConnectorOutput { vectors, ends: Some(segments.ends().to_vec()), penalties })
    }

    fn compress(
        &self,
        frames: &Ragged,
        segments: &Segments,
        fired: Option<&Fired>,
        dropout: Dropout,
    ) -> Ragged {
        let offsets = segments.offsets();
        let seen = key_ranges(&frames.offsets, segments, self.blockwise);
        let all = Placement::packed(&frames.offsets, Mask::Ranges(seen.into()));
        let spans = || frames.offsets.iter().zip(segments.ends());
        let last_frames =
            || spans().flat_map(|(span, ends)| ends.iter().map(move |end| span.start as u32 + end));
        let at_the_end = match self.pool {
            SegmentPool::Last => all.of_rows(last_frames().collect(), &offsets),
            SegmentPool::Mean | SegmentPool::Fire => all.clone(),
        };

        let n_layers = self.layers.len();
        let mut x = self.input.forward(frames.values.clone());
        for (i, layer) in self.layers.iter().enumerate() {
            let placement = if i + 1 == n_layers { &at_the_end } else { &all };
            let dropout = dropout.branch(&i.to_string());
            x = layer.forward_or_again(self.recompute, x, placement, None, dropout);
        }
        let x = match self.pool {
            SegmentPool::Last => x,
            SegmentPool::Mean => means(x, spans()),
            SegmentPool::Fire => {
                fired.expect("problems() lets nothing else than CIF fire").integrate(x).values
            }
        };
        let x = self.norm.forward(x);
        let values = match &self.output {
            Some(output) => output.forward(x),
            None => x,
        };
        Ragged { values, offsets }
    }
}

/// The mean of the frames of every segment.
fn means<'a>(x: Tensor<2>, spans: impl Iterator<Item = (Range<usize>, &'a Vec<u32>)>) -> Tensor<2> {
    let mut groups = Groups::default();
    for (span, ends) in spans {
        let mut first = span.start;
        for &end in ends {
            let past = span.start + end as usize + 1;
            groups.push((first..past).map(|row| (row, 1.0)));
            first = past;
        }
    }
    groups.means(x)
}

/// The frames that every frame sees, counted from its utterance's first: those up to itself, from the last frame of
/// the segment before where it is `blockwise`.
fn key_ranges(frames: &Offsets, segments: &Segments, blockwise: bool) -> Vec<Range<u32>> {
    let mut seen = Vec::with_capacity(frames.n_rows());
    for (span, ends) in frames.iter().zip(segments.ends()) {
        let mut ends = ends.iter().copied().filter(|_| blockwise).peekable();
        let mut first = 0;
        for frame in 0..span.len() as u32 {
            if let Some(end) = ends.next_if(|&end| end < frame) {
                first = end;
            }
            seen.push(first..frame + 1);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        connector::{
            ConnectorConfig, MlpConfig, ProjectorConfig,
            cut::SubwordCtcConfig,
            fire::FireConfig,
            testing::{Speech, WIDTHS, input, obeys},
        },
        ops::testing::{cpu, random},
        weights::{host, parameters},
    };

    fn config() -> SsrConfig {
        SsrConfig {
            d_hidden: 12,
            n_layers: 3,
            n_heads: 4,
            n_kv_heads: 2,
            d_ff: 16,
            blockwise: true,
            pool: SegmentPool::Last,
            output: true,
            cut: None,
        }
    }

    fn fires() -> CutConfig {
        CutConfig::Cif(FireConfig { kernel: 3, d_conv: 5, quantity_weight: 1.0 })
    }

    #[test]
    fn it_is_a_connector() {
        let same_width = SsrConfig { d_hidden: 8, output: false, ..config() };
        let mean = SsrConfig { pool: SegmentPool::Mean, ..config() };
        let plain = SsrConfig { blockwise: false, n_layers: 1, ..config() };
        for config in [config(), same_width, mean, plain] {
            obeys(&ConnectorConfig::Ssr(config));
        }
    }

    #[test]
    fn it_is_a_connector_that_cuts_by_itself() {
        let mlp = ProjectorConfig::Mlp(MlpConfig { d_hidden: 10 });
        let ctc = SubwordCtcConfig { projector: mlp, temperature: 2.0, ctc_weight: 1.0 };
        let ctc = CutConfig::Ctc(ctc);
        for (cut, pool) in [
            (fires(), SegmentPool::Fire),
            (fires(), SegmentPool::Last),
            (ctc.clone(), SegmentPool::Last),
            (ctc, SegmentPool::Mean),
        ] {
            obeys(&ConnectorConfig::Ssr(SsrConfig { cut: Some(cut), pool, ..config() }));
        }
    }

    #[test]
    fn in_training_there_is_a_segment_for_every_token() {
        let mlp = ProjectorConfig::Mlp(MlpConfig { d_hidden: 10 });
        let ctc = SubwordCtcConfig { projector: mlp, temperature: 2.0, ctc_weight: 1.0 };
        let ctc = CutConfig::Ctc(ctc);
        for cut in [fires(), ctc] {
            let config = SsrConfig { cut: Some(cut), ..config() };
            let connector = config.init(WIDTHS, &Init::new(1, &cpu()));
            let given = input(&[Speech::new(9, 1), Speech::new(12, 2)], true, &cpu());
            let found = connector.forward(&given, Dropout::OFF).unwrap().vectors.offsets.lengths();
            let said = given.said.unwrap();
            assert_eq!(found, said.iter().map(Vec::len).collect::<Vec<_>>());
        }
    }

    #[test]
    fn frames_see_their_segment_and_the_end_of_the_one_before() {
        let frames = Offsets::from_lengths(&[8, 0, 2]);
        let segments = Segments::new(vec![vec![2, 3, 5], vec![], vec![]], &frames).unwrap();
        let seen = key_ranges(&frames, &segments, true);
        assert_eq!(seen[..6], [0..1, 0..2, 0..3, 2..4, 3..5, 3..6]);
        assert_eq!(seen[6..], [5..7, 5..8, 0..1, 0..2]);
        let plain = key_ranges(&frames, &segments, false);
        assert_eq!(plain[..8], [0..1, 0..2, 0..3, 0..4, 0..5, 0..6, 0..7, 0..8]);
    }

    /// The frames that a vector depends on.
    fn reach(config: &SsrConfig, vector: usize) -> Vec<usize> {
        let device = cpu().autodiff();
        let offsets = Offsets::from_lengths(&[10]);
        let segments = Segments::new(vec![vec![1, 4, 5, 8]], &offsets).unwrap();
        let values = random([10, WIDTHS.d_encoder], 1).tensor(&device).require_grad();
        let frames = Ragged { values: values.clone(), offsets };
        let connector = config.init(WIDTHS, &Init::new(1, &device));
        let found = connector.compress(&frames, &segments, None, Dropout::OFF).values;
        let weights = random([4, WIDTHS.d_model], 2).tensor(&device);
        let loss = (found * weights).narrow(0, vector, 1).sum();
        let gradient = host(values.grad(&loss.backward()).unwrap());
        let rows = gradient.chunks(WIDTHS.d_encoder).enumerate();
        rows.filter(|(_, row)| row.iter().any(|g| *g != 0.0)).map(|(i, _)| i).collect()
    }

    #[test]
    fn content_passes_on_by_one_segment_a_block() {
        let of = |n_layers, vector| reach(&SsrConfig { n_layers, ..config() }, vector);
        // Segments 0-1, 2-4, 5, 6-8. One block: the segment, and the last frame before it.
        assert_eq!(of(1, 0), [0, 1]);
        assert_eq!(of(1, 1), [1, 2, 3, 4]);
        assert_eq!(of(1, 3), [5, 6, 7, 8]);
        // Two: what frame 5 has seen in the first, frames 4 and 5; three: what frame 4 has.
        assert_eq!(of(2, 3), [4, 5, 6, 7, 8]);
        assert_eq!(of(3, 3), [1, 2, 3, 4, 5, 6, 7, 8]);
        let plain = SsrConfig { blockwise: false, n_layers: 1, ..config() };
        assert_eq!(reach(&plain, 2), [0, 1, 2, 3, 4, 5]);
        // The mean is over what the frames of the segment have seen.
        let mean = SsrConfig { pool: SegmentPool::Mean, n_layers: 1, ..config() };
        assert_eq!(reach(&mean, 1), [1, 2, 3, 4]);
    }

    #[test]
    fn the_last_block_gives_what_it_gives_over_all_frames() {
        // One frame a segment: the mean of one frame is the state at its end.
        let speech = Speech::new(6, 3);
        let frames = speech.frames(&cpu());
        let ends = vec![(0..6).collect()];
        let segments = Segments::new(ends, &frames.offsets).unwrap();
        let run = |pool| {
            let connector = SsrConfig { pool, ..config() }.init(WIDTHS, &Init::new(1, &cpu()));
            host(connector.compress(&frames, &segments, None, Dropout::OFF).values)
        };
        for (last, mean) in run(SegmentPool::Last).iter().zip(run(SegmentPool::Mean)) {
            assert!((last - mean).abs() < 1e-5, "{last} and {mean}");
        }
    }

    /// What the weights of a configuration come to.
    fn n_parameters(config: &SsrConfig, widths: Widths) -> usize {
        let d = config.d_hidden;
        let d_kv = d / config.n_heads * config.n_kv_heads;
        let block = 2 * d * d + 2 * d * d_kv + 3 * d * config.d_ff + 2 * d;
        let output = if config.output { d * widths.d_model } else { 0 };
        widths.d_encoder * d + config.n_layers * block + d + output
    }

    #[test]
    fn at_the_width_of_the_paper_it_has_870_million_parameters() {
        let connector = config().init(WIDTHS, &Init::blank(&cpu()));
        let found: usize = parameters(&connector).iter().map(|p| p.n_values()).sum();
        assert_eq!(found, n_parameters(&config(), WIDTHS));
        let paper = SsrConfig {
            d_hidden: 4096,
            n_layers: 4,
            n_heads: 32,
            n_kv_heads: 8,
            d_ff: 14_336,
            output: false,
            ..config()
        };
        // 768 · 4096 + 4 (2 · 4096² + 2 · 4096 · 1024 + 3 · 4096 · 14336 + 2 · 4096) + 4096.
        let widths = Widths { d_encoder: 768, d_model: 4096 };
        assert_eq!(n_parameters(&paper, widths), 875_597_824);
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let wrong = SsrConfig { n_layers: 0, n_heads: 5, n_kv_heads: 2, ..config() };
        assert_eq!(
            wrong.problems(),
            [
                "n_layers is 0, expected at least 1",
                "d_hidden 12 is not a multiple of n_heads 5",
                "n_heads 5 is not a multiple of n_kv_heads 2"
            ]
        );
        let wrong = SsrConfig { pool: SegmentPool::Fire, ..config() };
        assert_eq!(wrong.problems(), ["pool is \"fire\", which needs cut.by = \"cif\""]);
        let wrong = SsrConfig { output: false, ..config() };
        assert_eq!(wrong.misfits(WIDTHS), ["d_hidden is 12, expected 8 where output is false"]);
    }
}
