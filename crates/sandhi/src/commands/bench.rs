//! `sandhi bench`: how fast this machine is, on the work that users wait for.
//!
//! ```text
//! features   minutes of sound ─ log-mel or filter bank          seconds of sound a second
//! train      the first steps of a recipe, in a folder of its own   seconds a step, rows a second
//! decode     prompts ─ greedy answers of a fixed length         tokens a second
//! align      forced and monotonic alignment, the same               the same
//! ot         optimal transport, against what people use in Python  their seconds over ours
//! connectors every connector forward and backward, two beside PyTorch   the same, and seconds of sound a second
//! otreg      what optimal transport adds to a training step        its share
//! patches    a network over patches beside the same without        tokens a second, by length
//! ```
//!
//! Medians over rounds, after one that does not count. Other comparisons with other programs are in `bench/`.

mod align;
mod connectors;
mod ot;
mod otreg;
mod patches;

use std::{path::PathBuf, time::Instant};

use anyhow::Context;
use clap::Subcommand;
use sandhi_data::{
    features::{
        FEATURE_SAMPLE_RATE_HZ, FbankConfig, FeatureConfig, FeatureExtractor, WhisperConfig,
    },
    rng::Stream,
};
use sandhi_lab::{
    generate::{self, Decoding},
    model::{AnyModel, pack::Segment},
    pipeline::{self, Place},
    recipe::Recipe,
    train::{Measurement, Monitor, StepReport},
};
use serde::Serialize;

use super::plan::ready;
use crate::{
    console::Console, device::DeviceArg, hub_args::HubArgs, output, recipe_args::RecipeArgs,
};

/// Arguments of `sandhi bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    /// cpu, wgpu[:i], vulkan[:i], cuda[:i] or metal[:i].
    #[arg(long, global = true, default_value = "cpu")]
    device: DeviceArg,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Features of sound in memory.
    Features {
        /// whisper or fbank.
        #[arg(long, default_value = "whisper", value_parser = ["whisper", "fbank"])]
        kind: String,
        /// Values per frame.
        #[arg(long, default_value_t = 80)]
        n_mels: usize,
        /// Length of an utterance.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        /// Utterances a round, one after the other on one thread.
        #[arg(long, default_value_t = 12)]
        utterances: usize,
        /// Rounds.
        #[arg(long, default_value_t = 7)]
        rounds: usize,
    },
    /// The first steps of a recipe.
    Train {
        #[command(flatten)]
        recipe: RecipeArgs,
        /// Steps, of which the first third does not count.
        #[arg(long, default_value_t = 15)]
        steps: u64,
        /// Folder of speech and frames that are kept between runs.
        #[arg(long, value_name = "DIR", default_value = "cache")]
        cache: PathBuf,
    },
    /// Greedy answers of a language model to random prompts.
    Decode {
        /// A model directory with a language model.
        model: PathBuf,
        /// Prompts a round.
        #[arg(long, default_value_t = 64)]
        prompts: usize,
        /// Tokens of a prompt.
        #[arg(long, default_value_t = 32)]
        prompt_tokens: usize,
        /// Tokens of every answer; no answer ends before.
        #[arg(long, default_value_t = 64)]
        new_tokens: usize,
        /// Prompts decoded at once.
        #[arg(long, default_value_t = 64)]
        batch: usize,
        /// Rounds.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Write prompts and answers as JSON, so that another program can do the same work.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Forced and monotonic alignment against torchaudio, and searches in Python and C, on the same problems.
    Align(align::Args),
    /// Optimal transport against POT, geomloss and PyTorch, on the same problems.
    Ot(ot::Args),
    /// Connectors forward and backward, two of them against PyTorch, on the same ragged batch.
    Connectors(connectors::Args),
    /// What optimal transport adds to a connector's training step.
    Otreg(otreg::Args),
    /// A network over patches, trained and generating, against the same network with a patch a unit.
    Patches(patches::Args),
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    what: &'static str,
    /// Median seconds of a round or step.
    seconds: f64,
    /// Seconds of every round or step that counts.
    all_seconds: Vec<f64>,
    /// What the work amounts to: sound, rows or tokens of a round.
    amount: f64,
    unit: &'static str,
    /// Amount a second.
    rate: f64,
    threads: usize,
}

impl Report {
    fn new(what: &'static str, seconds: &[f64], amount: f64, unit: &'static str) -> Self {
        let median = median(seconds.iter().copied());
        Self {
            what,
            seconds: median,
            all_seconds: seconds.to_vec(),
            amount,
            unit,
            rate: amount / median,
            threads: rayon::current_num_threads(),
        }
    }
}

/// Measures and prints.
pub fn run(args: Args) -> anyhow::Result<()> {
    let report = match args.what {
        What::Features { kind, n_mels, seconds, utterances, rounds } => {
            features(&kind, n_mels, seconds, utterances, rounds)?
        }
        What::Train { recipe, steps, cache } => train(&recipe, steps, cache, &args.device)?,
        What::Decode { model, prompts, prompt_tokens, new_tokens, batch, rounds, out } => {
            let work = Work { prompts, prompt_tokens, new_tokens, batch };
            decode(&model, &work, rounds, out.as_deref(), &args.device)?
        }
        What::Align(of_paths) => return align::run(&of_paths, args.json),
        What::Ot(of_transport) => return ot::run(&of_transport, args.json),
        What::Connectors(of_zoo) => return connectors::run(&of_zoo, args.json),
        What::Otreg(of_step) => return otreg::run(&of_step, args.json, &args.device.open()?),
        What::Patches(of_network) => {
            return patches::run(&of_network, args.json, &args.device.open()?);
        }
    };
    if args.json {
        return output::print_json(&report);
    }
    output::print(&format!(
        "{}: median {:.4} s of {} rounds, {:.1} {} a second, {} threads",
        report.what,
        report.seconds,
        report.all_seconds.len(),
        report.rate,
        report.unit,
        report.threads
    ))
}

/// Times `work` so often, after once that does not count.
fn time(rounds: usize, mut work: impl FnMut()) -> Vec<f64> {
    work();
    (0..rounds)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect()
}

/// The middle one of at least one.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    sandhi_lab::costs::median(values).expect("at least one round")
}

fn at_least_one(name: &str, n: usize) -> anyhow::Result<()> {
    anyhow::ensure!(n > 0, "--{name} is 0, expected at least 1");
    Ok(())
}

fn features(
    kind: &str,
    n_mels: usize,
    seconds: f64,
    utterances: usize,
    rounds: usize,
) -> anyhow::Result<Report> {
    at_least_one("rounds", rounds)?;
    at_least_one("utterances", utterances)?;
    anyhow::ensure!(
        (0.1..=3_600.0).contains(&seconds),
        "--seconds is {seconds}, expected 0.1 to 3600"
    );
    let config = match kind {
        "whisper" => FeatureConfig::Whisper(WhisperConfig { n_mels, pad_to_30_s: false }),
        _ => FeatureConfig::Fbank(FbankConfig { n_mels, ..FbankConfig::default() }),
    };
    let extractor = FeatureExtractor::new(&config)?;
    let mut rng = Stream::named(1, "bench features");
    let n = (seconds * f64::from(FEATURE_SAMPLE_RATE_HZ)) as usize;
    let samples: Vec<f32> = (0..n).map(|_| 0.2 * (rng.uniform() as f32 - 0.5)).collect();
    extractor.compute(&samples)?;
    let times = time(rounds, || {
        for _ in 0..utterances {
            let found = extractor.compute(&samples).expect("computed a moment ago");
            std::hint::black_box(&found);
        }
    });
    let report = Report::new("features", &times, seconds * utterances as f64, "seconds of sound");
    Ok(Report { threads: 1, ..report })
}

/// Takes down the times of steps and stops after enough of them.
struct Timer {
    console: Console,
    steps: Vec<StepReport>,
    n_steps: u64,
}

impl Monitor for Timer {
    fn now_s(&self) -> f64 {
        self.console.now_s()
    }
    fn wall_s(&self) -> f64 {
        self.console.wall_s()
    }
    fn clock(&self) -> Box<dyn Fn() -> f64 + Send> {
        self.console.clock()
    }
    fn stopping(&self) -> bool {
        self.steps.len() as u64 >= self.n_steps || self.console.stopping()
    }
    fn stage(&mut self, _: &str, _: u64, _: u64) {}
    fn step(&mut self, report: &StepReport) {
        self.steps.push(report.clone());
    }
    fn measured(&mut self, _: u64, _: &Measurement) {}
    fn peak_bytes(&self) -> Option<u64> {
        None
    }

    fn note(&mut self, line: &str) {
        self.console.note(line);
    }
    fn preparing(&self, what: &str, done: usize, total: usize) {
        self.console.preparing(what, done, total);
    }
}

fn train(
    args: &RecipeArgs,
    steps: u64,
    cache: PathBuf,
    device: &DeviceArg,
) -> anyhow::Result<Report> {
    anyhow::ensure!(steps >= 3, "--steps is {steps}, expected at least 3");
    let recipe: Recipe = args.read()?;
    ready(&recipe, &args.recipe, args.base(), &HubArgs::default().hub()?)?;
    let scratch = tempfile::tempdir().context("cannot make a folder for the run")?;
    let place = Place {
        dir: scratch.path().join("run"),
        resume: false,
        base: args.base().to_owned(),
        cache,
        device: device.open()?,
        hub: HubArgs::default().hub()?,
        shared: None,
    };
    let mut timer = Timer { console: Console::new(true)?, steps: Vec::new(), n_steps: steps };
    pipeline::run(&recipe, &place, &mut timer)?;
    let counted = &timer.steps[timer.steps.len() / 3..];
    anyhow::ensure!(!counted.is_empty(), "the run was interrupted before a step was taken");
    let seconds: Vec<f64> = counted.iter().map(|step| step.step_s).collect();
    let rows = counted.iter().map(|step| step.tokens as f64).sum::<f64>() / counted.len() as f64;
    let total: u64 = recipe.stages.iter().map(|stage| stage.steps).sum();
    let report = Report::new("train", &seconds, rows, "rows");
    eprintln!("all {total} steps would take {:.0} minutes", report.seconds * total as f64 / 60.0);
    Ok(report)
}

/// The work of a round of decoding.
#[derive(Debug, Clone, Copy, Serialize)]
struct Work {
    prompts: usize,
    prompt_tokens: usize,
    new_tokens: usize,
    batch: usize,
}

fn decode(
    dir: &std::path::Path,
    work: &Work,
    rounds: usize,
    out: Option<&std::path::Path>,
    device: &DeviceArg,
) -> anyhow::Result<Report> {
    for (name, n) in [
        ("prompts", work.prompts),
        ("prompt-tokens", work.prompt_tokens),
        ("new-tokens", work.new_tokens),
        ("batch", work.batch),
        ("rounds", rounds),
    ] {
        at_least_one(name, n)?;
    }
    let lm = match AnyModel::load(dir, &device.open()?, &HubArgs::default().hub()?)? {
        AnyModel::Text(model) => model.lm,
        AnyModel::Connector(model) => model.text.lm,
        other @ (AnyModel::Ctc(_)
        | AnyModel::Aligner(_)
        | AnyModel::SpeechText(_)
        | AnyModel::Vocoder(_)) => {
            anyhow::bail!("{}: a {} model decodes no tokens", dir.display(), other.kind())
        }
    };
    let mut rng = Stream::named(1, "bench decode");
    let n_tokens = lm.n_tokens();
    let prompts: Vec<Vec<u32>> = (0..work.prompts)
        .map(|_| (0..work.prompt_tokens).map(|_| rng.below(n_tokens) as u32).collect())
        .collect();
    let packed: Vec<Vec<Segment>> =
        prompts.iter().map(|ids| vec![Segment::Tokens(ids.clone())]).collect();
    let decoding =
        Decoding { max_tokens: work.new_tokens, batch: work.batch, ..Decoding::default() };
    let mut answers = Vec::new();
    let times = time(rounds, || {
        // No token has this number, so that every answer has its full length.
        answers = generate::generate(&lm, &packed, None, &[], &decoding);
    });
    if let Some(path) = out {
        let ids: Vec<&Vec<u32>> = answers.iter().map(|answer| &answer.ids).collect();
        let file = serde_json::json!({ "work": work, "prompts": prompts, "answers": ids });
        output::write(Some(path), &file.to_string())?;
    }
    Ok(Report::new("decode", &times, (work.prompts * work.new_tokens) as f64, "tokens"))
}
