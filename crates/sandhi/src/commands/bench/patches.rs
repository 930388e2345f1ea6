//! `sandhi bench patches`: what patches save, in training and in generation.
//!
//! ```text
//! utterances of every length ─ interleaved ─┬─ patches as the recipe has them ─┐ forward and backward, in turn;
//!                                           ├─ a patch a unit                  ├ then units behind a spoken prompt
//!                                           └─ a plain transformer, if given   ┘
//! ```
//!
//! Random weights, and utterances whose words and silences are as long as in audio books (5.8 and 3.7 units at 25 Hz, LST,
//! <https://arxiv.org/abs/2510.06195>).

use std::{sync::Arc, time::Instant};

use anyhow::Context;
use burn::prelude::Device;
use sandhi_data::{
    patching::{Closure, Patching, PatchingConfig, StaticConfig},
    rng::Stream,
    text::{JointVocabulary, Mode, Tokenizer},
    units::{UnitUtterance, UnitsHeader},
};
use sandhi_lab::{
    chat::END,
    generate::Decoding,
    model::SpeechTextModel,
    recipe::{LossConfig, Measure, ModelConfig, NetworkConfig, Recipe, SpeechTextModelConfig},
    train::{
        dataset::{Dataset, Draw},
        speech_text::{
            Cutting, Material, Meter, SpeechTextBatch, SpeechTextDataset, SpeechTextNet, Utterances,
        },
        step::gradients,
    },
};
use sandhi_nn::{init::Init, patch::PatchLmConfig, transformer::Dropout, weights};
use serde::Serialize;

use super::{at_least_one, median};
use crate::{memory, output, recipe_args::RecipeArgs};

/// Arguments of `sandhi bench patches`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// A recipe of a plain network to hold it against, too.
    #[arg(long, value_name = "RECIPE")]
    plain: Option<std::path::PathBuf>,
    /// Seconds of an utterance, one row each.
    #[arg(long, value_delimiter = ',', default_value = "5,15,45")]
    seconds: Vec<f64>,
    /// Seconds of all utterances of a step together.
    #[arg(long, default_value_t = 180.0)]
    step_seconds: f64,
    /// Units that are generated behind every prompt, half an utterance long.
    #[arg(long, default_value_t = 100)]
    new_units: usize,
    /// Prompts that are gone on with at once.
    #[arg(long, default_value_t = 8)]
    prompts: usize,
    /// Rounds of each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    what: &'static str,
    rounds: usize,
    threads: usize,
    rows: Vec<Row>,
}

/// A network on utterances of one length.
#[derive(Debug, Serialize)]
struct Row {
    network: &'static str,
    seconds: f64,
    parameters: usize,
    tokens: usize,
    patches_per_token: f64,
    /// Median seconds of forward and backward.
    train_s: f64,
    train_tokens_per_s: f64,
    train_speech_per_s: f64,
    /// How many times as fast as a patch a unit, median over rounds.
    train_speedup: f64,
    /// The most bytes at once of forward and backward, beside the weights; not counted on other devices than the CPU.
    train_bytes: Option<u64>,
    /// Median seconds of all prompts.
    generate_s: f64,
    generate_units_per_s: f64,
    generate_speedup: f64,
    /// The most bytes at once of all prompts and their continuations, so too.
    generate_bytes: Option<u64>,
    /// Of the steps of the largest transformer, the share that is saved while generating.
    steps_saved: f64,
}

const RATE_HZ: f64 = 25.0;
const MIB: f64 = (1 << 20) as f64;
const N_UNITS: u32 = 100;

/// An utterance of words from a small vocabulary.
fn utterance(i: usize, seconds: f64) -> UnitUtterance {
    const WORDS: [&str; 8] = ["anna", "took", "the", "red", "ball", "to", "a", "kitchen"];
    let mut rng = Stream::named(i as u64, "bench patches");
    let length =
        |rng: &mut Stream, mean: f64| (mean * (0.5 + rng.uniform())).round().max(1.0) as u32;
    let n = (seconds * RATE_HZ).round() as u32;
    let (mut words, mut at) = (Vec::new(), 0);
    while at < n {
        let end = (at + length(&mut rng, 5.8)).min(n);
        words.push(((*rng.pick(&WORDS)).to_owned(), at, end).into());
        at = end;
        if rng.chance(0.25) {
            at += length(&mut rng, 3.7);
        }
    }
    UnitUtterance {
        id: i.to_string(),
        units: (0..n).map(|_| rng.below(N_UNITS as usize) as u32).collect(),
        words,
        text: None,
        language: None,
    }
}

/// A network, and how its documents are cut.
struct Candidate {
    name: &'static str,
    network: NetworkConfig,
    patching: Option<Patching>,
    closure: Closure,
}

/// A candidate on utterances of one length: their batch, and what was measured.
struct Trial {
    net: SpeechTextNet,
    batch: [SpeechTextBatch; 1],
    model: SpeechTextModel,
    train: Vec<f64>,
    generate: Vec<f64>,
    bytes: [Option<u64>; 2],
    steps_saved: f64,
    patches_per_token: f64,
}

fn speech_text(recipe: &Recipe) -> anyhow::Result<&SpeechTextModelConfig> {
    match &recipe.model {
        ModelConfig::SpeechText(config) => Ok(config),
        _ => anyhow::bail!("{}: no model over text and units", recipe.name),
    }
}

fn candidates(recipe: &Recipe, plain: Option<&Recipe>) -> anyhow::Result<Vec<Candidate>> {
    let config = speech_text(recipe)?;
    anyhow::ensure!(
        matches!(config.network, NetworkConfig::Patch(_)),
        "{}: its network has no patches; --plain takes one without",
        recipe.name
    );
    anyhow::ensure!(
        !matches!(config.patching, Some(PatchingConfig::Entropy(_))),
        "{}: its patches end by entropies of units, and the units of this benchmark are drawn at random",
        recipe.name
    );
    let mut found = vec![Candidate {
        name: "patches",
        network: config.network.clone(),
        patching: config.patching.clone().map(|patching| Patching::new(patching, None)),
        closure: config.closure,
    }];
    if let NetworkConfig::Patch(network) = &config.network {
        found.push(Candidate {
            name: "a patch a unit",
            network: NetworkConfig::Patch(PatchLmConfig { router: None, ..network.clone() }),
            patching: Some(Patching::new(PatchingConfig::Static(StaticConfig { size: 1 }), None)),
            closure: Closure::Causal,
        });
    }
    if let Some(plain) = plain {
        let config = speech_text(plain)?;
        anyhow::ensure!(
            matches!(config.network, NetworkConfig::Plain(_)),
            "{}: its network is not plain",
            plain.name
        );
        found.push(Candidate {
            name: "plain",
            network: config.network.clone(),
            patching: None,
            closure: Closure::Causal,
        });
    }
    Ok(found)
}

/// Measures and prints.
pub fn run(args: &Args, json: bool, device: &Device) -> anyhow::Result<()> {
    for (name, n) in
        [("new-units", args.new_units), ("prompts", args.prompts), ("rounds", args.rounds)]
    {
        at_least_one(name, n)?;
    }
    for &seconds in args.seconds.iter().chain([&args.step_seconds]) {
        anyhow::ensure!(
            (1.0..=3600.0).contains(&seconds),
            "a length is {seconds} s, expected 1 to 3600"
        );
    }
    let recipe = args.recipe.read()?;
    let plain = match &args.plain {
        Some(path) => Some(sandhi_lab::recipe::read(path, &Default::default())?),
        None => None,
    };
    let candidates = candidates(&recipe, plain.as_ref())?;
    let texts = (0..8).map(|i| {
        let words = utterance(i, 30.0).words;
        words.into_iter().map(|word| word.word).collect::<Vec<_>>().join(" ")
    });
    let tokenizer = Tokenizer::train_bpe(texts.collect::<Vec<_>>(), 640, &[END])?;
    let vocabulary = Arc::new(JointVocabulary::extend(&tokenizer, END, END, N_UNITS)?);
    let mut rows = Vec::new();
    for &seconds in &args.seconds {
        rows.extend(of_length(args, seconds, &candidates, &vocabulary, device)?);
    }
    let threads = rayon::current_num_threads();
    let report = Report { what: "patches", rounds: args.rounds, threads, rows };
    if json {
        return output::print_json(&report);
    }
    output::print(&table(&report))
}

/// All candidates on utterances of one length, in turn.
fn of_length(
    args: &Args,
    seconds: f64,
    candidates: &[Candidate],
    vocabulary: &Arc<JointVocabulary>,
    device: &Device,
) -> anyhow::Result<Vec<Row>> {
    let n = (args.step_seconds / seconds).round().max(1.0) as usize;
    let utterances: Vec<UnitUtterance> = (0..n).map(|i| utterance(i, seconds)).collect();
    let indices: Vec<usize> = (0..n).collect();
    let loss = LossConfig::default();
    let half = (seconds * RATE_HZ / 2.0) as usize;
    let beginning = |i: usize| {
        let units = utterance(i, seconds).units.into_iter().take(half);
        let units = units.filter_map(|unit| vocabulary.unit(unit));
        [vocabulary.begin(), vocabulary.marker(Mode::Speech)].into_iter().chain(units).collect()
    };
    let beginnings: Vec<Vec<u32>> = (0..args.prompts).map(beginning).collect();
    let decoding = Decoding {
        max_tokens: args.new_units,
        batch: args.prompts,
        temperature: 1.0,
        ..Decoding::default()
    };
    let mut trials = Vec::with_capacity(candidates.len());
    for Candidate { network, patching, closure, .. } in candidates {
        let net = network.init(vocabulary.n_tokens(), &Init::new(1, device));
        let header = UnitsHeader { quantizer: "none".into(), n_units: N_UNITS, rate_hz: RATE_HZ };
        let dataset = SpeechTextDataset {
            vocabulary: vocabulary.clone(),
            cutting: Cutting::new(network, patching.as_ref(), *closure),
            context: 1 << 20,
            rate_hz: RATE_HZ,
            merges: None,
            material: Material::Interleaved(Utterances::Here(utterances.clone())),
            meter: Meter {
                measure: Measure::Tokens,
                network: network.clone(),
                n_vocabulary: vocabulary.n_tokens(),
            },
        };
        let batch = dataset.load(&indices, Draw { key: 1, progress: Some(1.0) });
        let model = SpeechTextModel {
            vocabulary: vocabulary.clone(),
            units: header,
            merges: None,
            config: network.clone(),
            patching: patching.clone(),
            closure: *closure,
            context: 1 << 20,
            net: net.clone(),
            hearing: None,
        };
        trials.push(Trial {
            net: weights::to_autodiff(net),
            batch: [batch],
            model,
            train: Vec::new(),
            generate: Vec::new(),
            bytes: [None; 2],
            steps_saved: 0.0,
            patches_per_token: 1.0,
        });
    }
    // A round to get warm, one that counts memory, and those that count time.
    for round in 0..args.rounds + 2 {
        for (trial, candidate) in trials.iter_mut().zip(candidates) {
            let start = Instant::now();
            let step = || gradients(&trial.net, &trial.batch, &loss, 1, |_| Dropout::OFF);
            let ((losses, grads), train_bytes) =
                if round == 1 { memory::measured(step) } else { (step(), 0) };
            std::hint::black_box(&grads);
            let train_s = start.elapsed().as_secs_f64();
            anyhow::ensure!(losses.total.is_finite(), "a loss is not finite");
            if let Some(&patches) = losses.terms.get("patches_per_token") {
                trial.patches_per_token = patches;
            }
            let start = Instant::now();
            let longest = vec![decoding.max_tokens; beginnings.len()];
            let mode = Some(Mode::Speech);
            let go_on = || trial.model.go_on(&beginnings, &longest, mode, &[], &decoding);
            let (found, generate_bytes) =
                if round == 1 { memory::measured(go_on) } else { (go_on(), 0) };
            let generate_s = start.elapsed().as_secs_f64();
            let found = found.context(candidate.name)?;
            let steps: usize = found.iter().map(|(_, steps)| steps).sum();
            // The last token of an answer is never read.
            let read = found.len() * (args.new_units - 1).max(1);
            trial.steps_saved = 1.0 - steps as f64 / read as f64;
            if round == 1 {
                trial.bytes = [train_bytes, generate_bytes].map(Some);
            } else if round > 1 {
                trial.train.push(train_s);
                trial.generate.push(generate_s);
            }
        }
    }
    let speedup =
        |unit: &[f64], own: &[f64]| median(unit.iter().zip(own).map(|(unit, own)| unit / own));
    let unit = &trials[1];
    let is_counted = *device == Device::flex();
    let row = |(candidate, trial): (&Candidate, &Trial)| {
        let train_s = median(trial.train.iter().copied());
        let generate_s = median(trial.generate.iter().copied());
        let batch = &trial.batch[0];
        Row {
            network: candidate.name,
            seconds,
            parameters: weights::parameters(&trial.net).iter().map(|info| info.n_values()).sum(),
            tokens: batch.ids.len(),
            patches_per_token: trial.patches_per_token,
            train_s,
            train_tokens_per_s: batch.ids.len() as f64 / train_s,
            train_speech_per_s: batch.speech_s / train_s,
            train_speedup: speedup(&unit.train, &trial.train),
            train_bytes: trial.bytes[0].filter(|_| is_counted),
            generate_s,
            generate_units_per_s: (args.prompts * args.new_units) as f64 / generate_s,
            generate_speedup: speedup(&unit.generate, &trial.generate),
            generate_bytes: trial.bytes[1].filter(|_| is_counted),
            steps_saved: trial.steps_saved,
        }
    };
    Ok(candidates.iter().zip(&trials).map(row).collect())
}

fn table(report: &Report) -> String {
    let mib = |bytes: Option<u64>| {
        bytes.map_or_else(|| "–".to_owned(), |bytes| format!("{:.1}", bytes as f64 / MIB))
    };
    let mut out = format!(
        "{:<15} {:>8} {:>8} {:>8} {:>9} {:>10} {:>8} {:>8} {:>7} {:>10} {:>8} {:>7} {:>7}\n",
        "network",
        "sound s",
        "tokens",
        "patches",
        "train s",
        "tokens/s",
        "speech/s",
        "times",
        "MiB",
        "units/s",
        "times",
        "MiB",
        "saved"
    );
    for row in &report.rows {
        out += &format!(
            "{:<15} {:>8} {:>8} {:>8.3} {:>9.3} {:>10.0} {:>8.1} {:>8.2} {:>7} {:>10.0} {:>8.2} {:>7} {:>6.1}%\n",
            row.network,
            row.seconds,
            row.tokens,
            row.patches_per_token,
            row.train_s,
            row.train_tokens_per_s,
            row.train_speech_per_s,
            row.train_speedup,
            mib(row.train_bytes),
            row.generate_units_per_s,
            row.generate_speedup,
            mib(row.generate_bytes),
            100.0 * row.steps_saved
        );
    }
    out += &format!(
        "medians of {} rounds, {} threads; times: against a patch a unit; MiB: the most at once beside the weights, of a step and of all prompts\n",
        report.rounds, report.threads
    );
    out
}
