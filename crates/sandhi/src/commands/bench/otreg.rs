//! `sandhi bench otreg`: what optimal transport adds to a connector's training step.
//!
//! ```text
//! frames ─ connector ─┬─ language model ─ cross-entropy      a step without
//!                     └─ costs ─ plans ─ their gradient      and with it, in turn
//! ```
//!
//! Random weights and frames. Plans between vectors that are near their tokens take longer than these, up to three
//! times (`sandhi bench ot`); they are the smaller part beside the costs' product and the rest of the step.

use std::time::Instant;

use burn::prelude::Device;
use sandhi_data::rng::Stream;
use sandhi_lab::{
    model::{Aids, HostRagged},
    recipe::{LossConfig, SolverConfig, TransportConfig},
    train::{
        learner::{ConnectorBatch, ConnectorNet, Heard, Said, SpeechBatch, SpokenItem},
        step::gradients,
    },
};
use sandhi_nn::{
    connector::{ConnectorConfig, Widths},
    encoder::EncoderConfig,
    init::Init,
    transformer::{Dropout, TransformerConfig},
    weights,
};
use serde::Serialize;

use super::{at_least_one, median};
use crate::output;

/// Arguments of `sandhi bench otreg`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Utterances a step.
    #[arg(long, default_value_t = 32)]
    utterances: usize,
    /// Length of each; 12.5 vectors and 4 tokens a second.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Width of the language model.
    #[arg(long, default_value_t = 384)]
    d_model: usize,
    /// Its blocks.
    #[arg(long, default_value_t = 6)]
    n_layers: usize,
    /// newton, sinkhorn or exact.
    #[arg(long, default_value = "newton", value_parser = ["newton", "sinkhorn", "exact"])]
    solver: String,
    /// Weight of the entropy.
    #[arg(long, default_value_t = 0.05)]
    epsilon: f64,
    /// Steps of each kind.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    what: &'static str,
    utterances: usize,
    seconds: f64,
    d_model: usize,
    solver: String,
    /// None for the solver that has none.
    epsilon: Option<f64>,
    rounds: usize,
    threads: usize,
    /// Share of the problems that were not solved.
    unsolved: f64,
    /// Median seconds of a step without transport, forward and backward.
    step_s: f64,
    /// The same with it.
    with_transport_s: f64,
    /// Median over rounds of what it adds, as a share of the step with it.
    share: f64,
}

const N_TOKENS: usize = 2000;
const D_ENCODER: usize = 256;
const FRAMES_HZ: f64 = 25.0;
const TOKENS_HZ: f64 = 4.0;

fn net(d_model: usize, n_layers: usize, device: &Device) -> anyhow::Result<ConnectorNet> {
    anyhow::ensure!(
        d_model > 0 && d_model.is_multiple_of(64),
        "--d-model is {d_model}, expected a multiple of 64"
    );
    at_least_one("n-layers", n_layers)?;
    let encoder: EncoderConfig = serde_json::from_value(serde_json::json!({
        "kind": "conformer", "d_model": D_ENCODER, "n_layers": 1, "n_heads": 4, "d_ff": 8, "kernel": 3,
    }))?;
    let connector: ConnectorConfig = serde_json::from_value(serde_json::json!({
        "kind": "slm", "reduction": 2, "reduce": "stack", "d_hidden": 256, "n_layers": 2,
        "n_heads": 4, "d_ff": 1024,
    }))?;
    let lm: TransformerConfig = serde_json::from_value(serde_json::json!({
        "d_model": d_model, "n_layers": n_layers, "n_heads": d_model / 64, "d_ff": 8 * d_model / 3,
    }))?;
    let init = Init::new(1, device);
    let widths = Widths { d_encoder: D_ENCODER, d_model };
    Ok(ConnectorNet {
        encoder: encoder.init(80, &init.child("encoder")),
        connector: connector.init(widths, &init.child("connector")),
        language_model: lm.init(N_TOKENS, &init.child("language_model")),
        ctc_head: None,
        pad: Some(0),
        compression: None,
        aids: Aids::default(),
    })
}

fn batch(utterances: usize, seconds: f64) -> SpeechBatch {
    let mut rng = Stream::named(1, "bench otreg");
    let n_frames = (seconds * FRAMES_HZ).ceil() as usize;
    let frames: Vec<Vec<f32>> = (0..utterances)
        .map(|_| (0..n_frames * D_ENCODER).map(|_| rng.uniform() as f32 - 0.5).collect())
        .collect();
    let rows = HostRagged::gather(D_ENCODER, frames.iter().map(Vec::as_slice));
    let mut ids = |n: usize| -> Vec<u32> { (0..n).map(|_| rng.below(N_TOKENS) as u32).collect() };
    let items = (0..utterances)
        .map(|_| {
            let tokens = ids((seconds * TOKENS_HZ).ceil() as usize);
            SpokenItem {
                before: ids(8),
                after: ids(2),
                answer: tokens.clone(),
                said: Said { tokens, ..Said::default() },
                begin: 0,
            }
        })
        .collect();
    SpeechBatch {
        heard: Heard::Frames(rows),
        items,
        ends: None,
        penalties: Vec::new(),
        audio_s: seconds * utterances as f64,
    }
}

/// Measures and prints.
pub fn run(args: &Args, json: bool, device: &Device) -> anyhow::Result<()> {
    at_least_one("utterances", args.utterances)?;
    at_least_one("rounds", args.rounds)?;
    anyhow::ensure!(
        (0.5..=300.0).contains(&args.seconds),
        "--seconds is {}, expected 0.5 to 300",
        args.seconds
    );
    let epsilon = args.epsilon;
    let transport = TransportConfig {
        solver: match args.solver.as_str() {
            "sinkhorn" => SolverConfig::Sinkhorn { epsilon },
            "exact" => SolverConfig::Exact {},
            _ => SolverConfig::Newton { epsilon },
        },
        merge_targets: Some(0.9),
        sparsity_weight: if args.solver == "exact" { 0.0 } else { 0.1 },
        ..TransportConfig::default()
    };
    let problems = transport.problems();
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("; "));
    let net = weights::to_autodiff(net(args.d_model, args.n_layers, device)?);
    let net = weights::set_trained(net, |name| name.starts_with("connector."));
    let batches = [ConnectorBatch::Spoken(batch(args.utterances, args.seconds))];
    let plain = LossConfig::default();
    let with = LossConfig { transport: Some(transport), ..plain.clone() };
    let step = |loss: &LossConfig| {
        let start = Instant::now();
        let (losses, grads) = gradients(&net, &batches, loss, 1, |_| Dropout::OFF);
        std::hint::black_box(&grads);
        let seconds = start.elapsed().as_secs_f64();
        anyhow::ensure!(losses.total.is_finite(), "a loss is not finite");
        Ok((seconds, losses.terms.get("unsolved").copied().unwrap_or(0.0)))
    };
    let (_, unsolved) = step(&with)?;
    let (mut without_s, mut with_s) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        without_s.push(step(&plain)?.0);
        with_s.push(step(&with)?.0);
    }
    let shares: Vec<f64> =
        without_s.iter().zip(&with_s).map(|(without, with)| 1.0 - without / with).collect();
    let report = Report {
        what: "otreg",
        utterances: args.utterances,
        seconds: args.seconds,
        d_model: args.d_model,
        solver: args.solver.clone(),
        epsilon: (args.solver != "exact").then_some(epsilon),
        unsolved,
        rounds: args.rounds,
        threads: rayon::current_num_threads(),
        share: median(shares),
        step_s: median(without_s),
        with_transport_s: median(with_s),
    };
    if json {
        return output::print_json(&report);
    }
    output::print(&format!(
        "a step over {} utterances of {} s, d_model {}: {:.3} s without transport, {:.3} s with it ({}); \
         it takes {:.1} % of the step, {:.0} % of the problems unsolved, {} threads",
        report.utterances,
        report.seconds,
        report.d_model,
        report.step_s,
        report.with_transport_s,
        report.solver,
        100.0 * report.share,
        100.0 * report.unsolved,
        report.threads
    ))
}
