//! `sandhi bench connectors`: forward and backward of every connector, and of two beside PyTorch in the same run.
//!
//! ```text
//! ragged frames ─┬─ files ─> bench/peers/connectors.py: padded, with a mask ─┐ vectors, gradients: must agree
//!                └─────────> Connector, packed ─────────────────────────────┘
//! round            theirs, ours, theirs, ours, …        medians, and the median of the rounds' ratios
//! ```
//!
//! One thread each. In the clock: from frames in memory to the gradients of all parameters, of half the sum of squares
//! of the vectors; the frames need none, as behind a frozen encoder.

use std::{fs, hint::black_box, path::PathBuf, time::Instant};

use anyhow::{Context, ensure};
use burn::{
    module::{Module, ModuleVisitor, Param},
    prelude::*,
    tensor::Gradients,
};
use rayon::ThreadPoolBuilder;
use sandhi_data::rng::Stream;
use sandhi_lab::npy;
use sandhi_nn::{
    connector::{Connector, ConnectorConfig, ConnectorInput, Embeddings, Widths},
    init::Init,
    ragged::{Offsets, Ragged},
    transformer::Dropout,
    weights::{self, host, parameters},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{at_least_one, median, ot::Peer};
use crate::output;

/// The other side, carried in the program so that it fits.
const PEER: &str = include_str!("../../../../../bench/peers/connectors.py");

/// Connectors that the other side has.
const WITH_PEER: [&str; 2] = ["stack_mlp", "window_q_former"];

/// Arguments of `sandhi bench connectors`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A Python with numpy and torch; without it connectors are timed alone.
    #[arg(long, value_name = "PYTHON")]
    python: Option<PathBuf>,
    /// Kinds of connectors; all when not given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Utterances of a batch, 2 to 14 seconds long.
    #[arg(long, default_value_t = 16)]
    utterances: usize,
    /// Frames a second.
    #[arg(long, default_value_t = 50.0)]
    rate_hz: f64,
    /// Rounds of both sides in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Widths of what stands around the connector, and of the connector itself.
#[derive(Debug, Clone, Copy)]
struct Size {
    name: &'static str,
    widths: Widths,
    d_hidden: usize,
    /// Between the two layers of an MLP.
    d_mlp: usize,
}

/// That of the models which the program carries, and one as published ones are.
const SIZES: [Size; 2] = [
    Size {
        name: "small",
        widths: Widths { d_encoder: 144, d_model: 192 },
        d_hidden: 192,
        d_mlp: 512,
    },
    Size {
        name: "published",
        widths: Widths { d_encoder: 1024, d_model: 2048 },
        d_hidden: 768,
        d_mlp: 2048,
    },
];

/// Tokens that are said a second, and how many there are.
const TOKENS_HZ: f64 = 4.0;
const N_TOKENS: usize = 1280;
/// Symbols of the CTC head, one step a frame.
const N_SYMBOLS: usize = 32;

/// Every connector at a size.
fn zoo(size: Size) -> Vec<Value> {
    let Size { d_hidden, d_mlp, .. } = size;
    let n_heads = d_hidden / 64;
    let layers = |n_layers: usize, more: Value| {
        let mut config = json!({
            "d_hidden": d_hidden, "n_layers": n_layers, "n_heads": n_heads, "d_ff": 4 * d_hidden,
        });
        let object = config.as_object_mut().expect("written as one");
        object.extend(more.as_object().expect("written as one").clone());
        config
    };
    let mlp = json!({ "kind": "mlp", "d_hidden": d_mlp });
    vec![
        json!({ "kind": "stack_mlp", "reduction": 5, "d_hidden": d_mlp }),
        layers(2, json!({ "kind": "window_q_former", "window": 17, "n_queries": 1 })),
        layers(2, json!({ "kind": "q_former", "n_queries": 64 })),
        layers(2, json!({ "kind": "align_former" })),
        layers(2, json!({ "kind": "slm", "reduction": 4, "reduce": "stack" })),
        layers(4, json!({ "kind": "ssr", "n_kv_heads": n_heads / 3 })),
        json!({ "kind": "stack_swiglu", "reduction": 8, "d_hidden": d_mlp }),
        json!({ "kind": "conv", "n_layers": 3, "kernel": 5, "d_bottleneck": 512 }),
        json!({ "kind": "ctc_collapse", "merge": { "kind": "runs" }, "projector": mlp }),
        json!({ "kind": "cif", "d_conv": d_hidden, "projector": mlp }),
        json!({ "kind": "distance_ctc" }),
    ]
}

/// One connector at one size.
#[derive(Debug, Serialize)]
struct Cell {
    size: &'static str,
    kind: String,
    n_parameters: usize,
    /// Median seconds of a forward and a backward pass.
    ours_s: f64,
    /// Seconds of sound that it gets through in a second.
    sound_a_second: f64,
    #[serde(flatten)]
    theirs: Option<Theirs>,
}

/// What the other side took for the same.
#[derive(Debug, Serialize)]
struct Theirs {
    theirs_s: f64,
    /// Median of the rounds' ratios, theirs over ours.
    ratio: f64,
    #[serde(flatten)]
    same: Same,
}

/// Whether both compute the same.
#[derive(Debug, Serialize, Deserialize)]
struct Same {
    /// How the other side runs fastest.
    way: String,
    /// The largest difference between vectors, as a share of the largest value.
    vectors: f64,
    /// The norm of that between the gradients of a parameter, as a share of the gradients' norm or of a hundredth of the
    /// largest; the worst parameter's.
    gradients: f64,
}

/// Differences of vectors above this are no rounding.
const VECTORS: f64 = 1e-4;
/// Those of gradients: of a million inputs of a ReLU, rounding moves one or two over zero, and each moves a unit's.
const GRADIENTS: f64 = 1e-2;

#[derive(Debug, Serialize)]
struct Report {
    what: &'static str,
    sandhi: &'static str,
    versions: Value,
    utterances: usize,
    rate_hz: f64,
    audio_s: f64,
    rounds: usize,
    cells: Vec<Cell>,
}

/// Compares and prints.
pub fn run(args: &Args, json: bool) -> anyhow::Result<()> {
    at_least_one("rounds", args.rounds)?;
    at_least_one("utterances", args.utterances)?;
    ensure!(
        (1.0..=1_000.0).contains(&args.rate_hz),
        "--rate-hz is {}, expected 1 to 1000",
        args.rate_hz
    );
    let known: Vec<Value> = zoo(SIZES[0]);
    for kind in &args.only {
        ensure!(
            known.iter().any(|config| config["kind"] == kind.as_str()),
            "--only: unknown connector {kind:?}, expected one of {}",
            known
                .iter()
                .filter_map(|config| config["kind"].as_str())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    let folder = tempfile::tempdir().context("cannot make a folder for the problems")?;
    let script = folder.path().join("connectors.py");
    fs::write(&script, PEER).with_context(|| script.display().to_string())?;
    let mut peer = match &args.python {
        Some(python) => Some(Peer::start(python, &script, 1)?),
        None => None,
    };
    let versions = match &mut peer {
        Some(peer) => peer.ask(&json!({ "do": "versions" }))?,
        None => Value::Null,
    };
    let one_thread = ThreadPoolBuilder::new().num_threads(1).build_global();
    one_thread.context("cannot run on one thread")?;
    let mut cells = Vec::new();
    let mut audio_s = 0.0;
    for size in SIZES {
        let batch = Batch::new(args.utterances, args.rate_hz, size.widths);
        audio_s = batch.audio_s;
        for config in zoo(size) {
            let kind = config["kind"].as_str().expect("written as one").to_owned();
            if !args.only.is_empty() && !args.only.contains(&kind) {
                continue;
            }
            let peer = peer.as_mut().filter(|_| WITH_PEER.contains(&kind.as_str()));
            let folder = folder.path().join(format!("{}-{kind}", size.name));
            let timed = Timed { size, config, kind, batch: &batch, rounds: args.rounds, folder };
            let cell = timed.measure(peer)?;
            eprintln!("{}", cell.text());
            cells.push(cell);
        }
    }
    let sandhi = env!("CARGO_PKG_VERSION");
    let report = Report {
        what: "connectors",
        sandhi,
        versions,
        utterances: args.utterances,
        rate_hz: args.rate_hz,
        audio_s,
        rounds: args.rounds,
        cells,
    };
    if json { output::print_json(&report) } else { output::print(&report.text()) }
}

/// Frames of utterances with all that a connector may look at.
struct Batch {
    lengths: Vec<usize>,
    audio_s: f64,
    frames: Vec<f32>,
    log_probs: Vec<f32>,
    ends: Vec<Vec<u32>>,
    said: Vec<Vec<u32>>,
    table: Vec<f32>,
    widths: Widths,
}

impl Batch {
    fn new(n: usize, rate_hz: f64, widths: Widths) -> Self {
        let mut rng = Stream::named(1, "bench connectors");
        let mut number = |scale: f32| scale * (rng.uniform() as f32 - 0.5);
        let seconds = |i: usize| 2.0 + 12.0 * i as f64 / (n.max(2) - 1) as f64;
        let lengths: Vec<usize> = (0..n).map(|i| (seconds(i) * rate_hz) as usize).collect();
        let n_frames: usize = lengths.iter().sum();
        let frames = (0..n_frames * widths.d_encoder).map(|_| number(2.0)).collect();
        let table = (0..N_TOKENS * widths.d_model).map(|_| number(1.0)).collect();
        // As many frames a token, the last third of them blank.
        let per_token = (rate_hz / TOKENS_HZ).max(3.0) as usize;
        let tokens = |length: usize| length / per_token;
        let symbol = |frame: usize| match frame % per_token {
            place if place < per_token - per_token / 3 => 1 + frame / per_token % (N_SYMBOLS - 1),
            _ => 0,
        };
        let frame = |frame: usize| {
            let sure = (0.9_f32).ln();
            let rest = (0.1 / (N_SYMBOLS - 1) as f32).ln();
            (0..N_SYMBOLS).map(move |i| if i == symbol(frame) { sure } else { rest })
        };
        Self {
            log_probs: lengths.iter().flat_map(|&length| (0..length).flat_map(frame)).collect(),
            ends: lengths
                .iter()
                .map(|&length| (1..=tokens(length)).map(|i| (i * per_token - 1) as u32).collect())
                .collect(),
            said: lengths
                .iter()
                .map(|&n| (0..tokens(n)).map(|i| 1 + (i * 37 % (N_TOKENS - 1)) as u32).collect())
                .collect(),
            audio_s: n_frames as f64 / rate_hz,
            lengths,
            frames,
            table,
            widths,
        }
    }

    fn input(&self, device: &Device) -> anyhow::Result<ConnectorInput> {
        let offsets = Offsets::from_lengths(&self.lengths);
        let packed = |values: &[f32], width: usize| Ragged {
            values: matrix(values, width, device),
            offsets: offsets.clone(),
        };
        let table = matrix(&self.table, self.widths.d_model, device);
        let input = ConnectorInput::frames(packed(&self.frames, self.widths.d_encoder))
            .with_ctc(packed(&self.log_probs, N_SYMBOLS), 1)?
            .with_segments(self.ends.clone())?
            .with_embeddings(Embeddings { table, pad: 0 })?
            .with_said(self.said.clone())?;
        Ok(input)
    }
}

fn matrix(values: &[f32], width: usize, device: &Device) -> Tensor<2> {
    let data = TensorData::new(values.to_vec(), [values.len() / width, width]);
    Tensor::from_data(data, device)
}

/// A connector to be timed.
struct Timed<'a> {
    size: Size,
    config: Value,
    kind: String,
    batch: &'a Batch,
    rounds: usize,
    folder: PathBuf,
}

impl Timed<'_> {
    fn measure(self, mut peer: Option<&mut Peer>) -> anyhow::Result<Cell> {
        let config: ConnectorConfig = serde_json::from_value(self.config.clone())?;
        let connector = config.init(self.size.widths, &Init::new(1, &Device::flex()));
        let n_parameters = connector.num_params();
        let connector = weights::to_autodiff(connector);
        let input = self.batch.input(&Device::flex().autodiff())?;
        let (vectors, gradients) = pass(&connector, &input)?;
        let mut theirs_s = Vec::new();
        let mut same = None;
        if let Some(peer) = &mut peer {
            self.write(&connector, &vectors, &gradients)?;
            let found: Same = peer.ask(&json!({
                "do": "load", "folder": self.folder, "config": self.config,
                "lengths": self.batch.lengths,
            }))?;
            ensure!(
                found.vectors <= VECTORS && found.gradients <= GRADIENTS,
                "{} ({}): the two do not compute the same, {found:?}",
                self.kind,
                self.size.name
            );
            same = Some(found);
        }
        let mut ours_s = Vec::new();
        for _ in 0..self.rounds {
            if let Some(peer) = &mut peer {
                theirs_s.push(peer.ask::<f64>(&json!({ "do": "run" }))?);
            }
            let start = Instant::now();
            black_box(pass(&connector, &input)?);
            ours_s.push(start.elapsed().as_secs_f64());
        }
        let ratios: Vec<f64> = theirs_s.iter().zip(&ours_s).map(|(a, b)| a / b).collect();
        let ours_s = median(ours_s);
        Ok(Cell {
            size: self.size.name,
            kind: self.kind,
            n_parameters,
            sound_a_second: self.batch.audio_s / ours_s,
            ours_s,
            theirs: same.map(|same| Theirs {
                theirs_s: median(theirs_s),
                ratio: median(ratios),
                same,
            }),
        })
    }

    /// Frames, weights, and what came out of them, as PyTorch has them.
    fn write(
        &self,
        connector: &Connector,
        vectors: &Tensor<2>,
        gradients: &Gradients,
    ) -> anyhow::Result<()> {
        fs::create_dir(&self.folder).with_context(|| self.folder.display().to_string())?;
        let write = |name: &str, shape: &[usize], values: &[f32]| {
            let path = self.folder.join(format!("{name}.npy"));
            fs::write(&path, npy::to_bytes(shape, values))
                .with_context(|| path.display().to_string())
        };
        let n_frames: usize = self.batch.lengths.iter().sum();
        write("frames", &[n_frames, self.size.widths.d_encoder], &self.batch.frames)?;
        write("vectors", &vectors.dims(), &host(vectors.clone().detach()))?;
        let mut found = Found { gradients, values: Vec::new() };
        connector.visit(&mut found);
        for (info, values) in parameters(connector).into_iter().zip(found.values) {
            let (shape, [weights, gradient]) = values;
            write(&format!("weight.{}", info.name), &shape, &weights)?;
            write(&format!("gradient.{}", info.name), &shape, &gradient)?;
        }
        Ok(())
    }
}

/// Parameters and their gradients, in the order in which they are listed.
struct Found<'a> {
    gradients: &'a Gradients,
    values: Vec<(Vec<usize>, [Vec<f32>; 2])>,
}

impl ModuleVisitor for Found<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let shape = value.dims().to_vec();
        let gradient = value.grad(self.gradients).map_or_else(Vec::new, host);
        self.values.push((shape, [host(value.detach()), gradient]));
    }
}

/// Vectors, and gradients of half the sum of their squares and of the connector's own losses.
fn pass(connector: &Connector, input: &ConnectorInput) -> anyhow::Result<(Tensor<2>, Gradients)> {
    let found = connector.try_forward(input, Dropout::OFF)?;
    let vectors = found.vectors.values;
    let loss = vectors.clone().square().sum() * 0.5;
    let loss = found.penalties.into_iter().fold(loss, |loss, penalty| loss + penalty);
    Ok((vectors, loss.backward()))
}

impl Cell {
    fn text(&self) -> String {
        let theirs = self.theirs.as_ref().map(|theirs| {
            format!(
                "{:>9.4} s {:>7.2} x   vectors {:.1e}, gradients {:.1e} ({})",
                theirs.theirs_s,
                theirs.ratio,
                theirs.same.vectors,
                theirs.same.gradients,
                theirs.same.way
            )
        });
        format!(
            "{:<10} {:<16} {:>11} {:>9.4} s {:>8.0} {}",
            self.size,
            self.kind,
            self.n_parameters,
            self.ours_s,
            self.sound_a_second,
            theirs.as_deref().unwrap_or("        -")
        )
    }
}

impl Report {
    fn text(&self) -> String {
        let mut lines = vec![format!(
            "{:<10} {:<16} {:>11} {:>11} {:>8} {:>11} {:>9}   largest difference",
            "size", "connector", "parameters", "ours", "sound/s", "PyTorch", "ratio"
        )];
        lines.extend(self.cells.iter().map(Cell::text));
        lines.push(String::new());
        lines.push(format!(
            "forward and backward over {} utterances of 2 to 14 s, {:.1} s together at {} Hz, a thread each; medians of \
             {} rounds; sound/s: seconds of sound a second; ratio: theirs over ours",
            self.utterances, self.audio_s, self.rate_hz, self.rounds
        ));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connector_of_the_zoo_goes_forth_and_back() {
        for size in SIZES {
            for config in zoo(size) {
                let config: ConnectorConfig = serde_json::from_value(config).unwrap();
                let wrong = [config.problems(), config.misfits(size.widths)].concat();
                assert_eq!(wrong, [""; 0], "{config:?}");
            }
        }
        let size = SIZES[0];
        let batch = Batch::new(2, 25.0, size.widths);
        assert_eq!((batch.lengths.as_slice(), batch.audio_s), ([50, 350].as_slice(), 16.0));
        let input = batch.input(&Device::flex().autodiff()).unwrap();
        for config in zoo(size) {
            let config: ConnectorConfig = serde_json::from_value(config).unwrap();
            let connector = config.init(size.widths, &Init::new(1, &Device::flex()));
            let connector = weights::to_autodiff(connector);
            let (vectors, gradients) = pass(&connector, &input).unwrap();
            let mut found = Found { gradients: &gradients, values: Vec::new() };
            connector.visit(&mut found);
            assert!(vectors.dims()[0] > 0);
            let learned = found.values.iter().filter(|(_, [_, g])| g.iter().any(|g| *g != 0.0));
            assert!(learned.count() > 0, "{config:?}");
        }
    }
}
