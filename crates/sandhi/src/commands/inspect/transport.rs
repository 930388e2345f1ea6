//! `sandhi inspect transport`: where the speech of a sound file goes among the tokens of what is said.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use sandhi_data::audio::Waveform;
use sandhi_lab::{
    hf::ModelSource,
    inspect::{
        DepthPlan, MAX_DRAWN_S, TransportRequest, Transported, pad, svg, transport,
        transport_settings,
    },
    recipe::{PadMass, SolverConfig, TargetMass, TransportConfig},
};

use super::super::ot::{Kind, name};
use crate::{device::DeviceArg, hub_args::HubArgs, output};

/// Arguments of `sandhi inspect transport`. Settings that are not given are those of the model's recipe.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A connector model's directory.
    model: ModelSource,
    /// A sound file: WAV, FLAC, MP3 or OGG.
    file: PathBuf,
    /// What is said in it; what the model writes when not given.
    #[arg(long)]
    text: Option<String>,
    /// Depths of the language model: 0 for its input, k for what leaves block k.
    #[arg(long, value_name = "K", value_delimiter = ',', num_args = 1..)]
    depth: Vec<usize>,
    /// How the plan is found.
    #[arg(long, value_enum)]
    solver: Option<Kind>,
    /// Weight of the entropy; costs are 0 to 2.
    #[arg(long)]
    epsilon: Option<f64>,
    /// Weight of the targets' penalty, of unbalanced transport.
    #[arg(long)]
    tau: Option<f64>,
    /// Weight of the prior that keeps the order.
    #[arg(long, value_name = "WEIGHT")]
    order_weight: Option<f64>,
    /// Tokens whose embeddings' cosine is above are one target, or none.
    #[arg(long, value_name = "COSINE", value_parser = merge_targets)]
    merge_targets: Option<Merge>,
    /// Masses of the tokens.
    #[arg(long, value_enum)]
    masses: Option<MassArg>,
    /// The mass of the pad: none, target, blank, or its share of the utterance.
    #[arg(long, value_name = "MASS", value_parser = pad_mass)]
    pad_mass: Option<PadMass>,
    /// The token that stands for no content; by default the model's own, or its recipe's.
    #[arg(long, value_name = "TOKEN")]
    pad: Option<String>,
    /// Draw the plan.
    #[arg(long, value_name = "OUT.svg")]
    svg: Option<PathBuf>,
    /// Print JSON, the whole plan included.
    #[arg(long)]
    json: bool,
    /// cpu, wgpu[:i], vulkan[:i], cuda[:i] or metal[:i].
    #[arg(long, default_value = "cpu")]
    device: DeviceArg,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MassArg {
    /// Every target as much.
    Uniform,
    /// By how often a token is said.
    Counts,
    /// By how long it is in writing.
    Characters,
    /// By how long it is said, by the encoder's CTC head.
    Durations,
}

impl From<MassArg> for TargetMass {
    fn from(masses: MassArg) -> Self {
        match masses {
            MassArg::Uniform => Self::Uniform,
            MassArg::Counts => Self::Counts,
            MassArg::Characters => Self::Characters,
            MassArg::Durations => Self::Durations,
        }
    }
}

fn pad_mass(text: &str) -> Result<PadMass, String> {
    match text {
        "none" => Ok(PadMass::None),
        "target" => Ok(PadMass::Target),
        "blank" => Ok(PadMass::Blank),
        share => share
            .parse()
            .map(PadMass::Share)
            .map_err(|_| "expected none, target, blank or a share".to_owned()),
    }
}

/// A threshold, or none.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Merge(Option<f64>);

fn merge_targets(text: &str) -> Result<Merge, String> {
    match text {
        "none" => Ok(Merge(None)),
        cosine => cosine
            .parse()
            .map(|cosine| Merge(Some(cosine)))
            .map_err(|_| "expected a cosine or none".to_owned()),
    }
}

impl Args {
    /// The recipe's settings with what was given in their place.
    fn settings(&self, recipe: TransportConfig) -> anyhow::Result<TransportConfig> {
        Ok(TransportConfig {
            solver: self.solver(recipe.solver)?,
            order_weight: self.order_weight.unwrap_or(recipe.order_weight),
            merge_targets: self.merge_targets.map_or(recipe.merge_targets, |merge| merge.0),
            masses: self.masses.map_or(recipe.masses, TargetMass::from),
            pad: self.pad_mass.unwrap_or(recipe.pad),
            // It moves no plan, and another solver may have no gradient for it.
            sparsity_weight: if self.solver.is_some() { 0.0 } else { recipe.sparsity_weight },
            depths: if self.depth.is_empty() { recipe.depths } else { self.depth.clone() },
            ..recipe
        })
    }

    /// The recipe's solver, or another; a setting that it does not have is refused.
    fn solver(&self, recipe: SolverConfig) -> anyhow::Result<SolverConfig> {
        let (kind, epsilon, tau) = match recipe {
            SolverConfig::Newton { epsilon } => (Kind::Newton, Some(epsilon), None),
            SolverConfig::Sinkhorn { epsilon } => (Kind::Sinkhorn, Some(epsilon), None),
            SolverConfig::SemiRelaxed { epsilon } => (Kind::SemiRelaxed, Some(epsilon), None),
            SolverConfig::Unbalanced { epsilon, tau } => {
                (Kind::Unbalanced, Some(epsilon), Some(tau))
            }
            SolverConfig::Exact {} => (Kind::Exact, None, None),
            SolverConfig::Monotone {} => (Kind::Monotone, None, None),
        };
        let kind = self.solver.unwrap_or(kind);
        let refuse = |option: &str| bail!("the solver {} has no --{option}", name(kind));
        if self.tau.is_some() && kind != Kind::Unbalanced {
            refuse("tau")?;
        }
        if self.epsilon.is_some() && matches!(kind, Kind::Exact | Kind::Monotone) {
            refuse("epsilon")?;
        }
        let epsilon = self.epsilon.or(epsilon).unwrap_or(0.05);
        let tau = self.tau.or(tau).unwrap_or(0.5);
        Ok(match kind {
            Kind::Newton => SolverConfig::Newton { epsilon },
            Kind::Sinkhorn => SolverConfig::Sinkhorn { epsilon },
            Kind::SemiRelaxed => SolverConfig::SemiRelaxed { epsilon },
            Kind::Unbalanced => SolverConfig::Unbalanced { epsilon, tau },
            Kind::Exact => SolverConfig::Exact {},
            Kind::Monotone => SolverConfig::Monotone {},
        })
    }
}

/// Transports, draws and prints.
pub fn run(args: Args) -> anyhow::Result<()> {
    let file = args.file.display();
    let is_empty = args.text.as_ref().is_some_and(|text| text.trim().is_empty());
    ensure!(!is_empty, "--text is empty, expected what is said in {file}");
    let wave = Waveform::read(&args.file)?.resampled(16_000)?;
    ensure!(
        wave.duration_s() <= MAX_DRAWN_S,
        "{file} is {:.0} s long, expected at most {MAX_DRAWN_S:.0} s",
        wave.duration_s()
    );
    let (model, recipe) = super::open(&args.model, &args.device.open()?, &args.hub.hub()?)?;
    let request = TransportRequest {
        samples: &wave.samples,
        text: args.text.as_deref(),
        words: None,
        config: &args.settings(transport_settings(recipe.as_ref()))?,
        pad: pad(&model, recipe.as_ref(), args.pad.as_deref())?,
    };
    let found = transport(&model, &request).with_context(|| file.to_string())?;
    if let Some(path) = &args.svg {
        output::write(Some(path), &svg(&found))?;
    }
    if args.json { output::print_json(&found) } else { output::print(&text(&found)) }
}

/// A table of each depth, then what was transported how.
fn text(found: &Transported) -> String {
    let mut lines = vec![format!("“{}”", found.text)];
    for plan in &found.plans {
        lines.push(String::new());
        lines.extend(table(plan));
    }
    lines.push(String::new());
    lines.push(format!(
        "{:.2} s of speech: {} vectors, {} as given to the language model; {} tokens",
        found.duration_s,
        found.n_vectors,
        found.n_given(),
        found.n_tokens
    ));
    let settings = serde_json::to_string(&found.settings).expect("settings serialize");
    lines.push(format!("settings {settings}"));
    lines.join("\n")
}

fn table(plan: &DepthPlan) -> Vec<String> {
    let widest = plan.columns.iter().map(|column| column.label.chars().count()).max();
    let width = widest.unwrap_or(0).max(5) + 6;
    let mut lines = vec![format!(
        "{:<width$}{:>8}{:>11}{:>11}",
        format!("depth {}", plan.depth),
        "share",
        "mean time",
        "distance"
    )];
    for column in &plan.columns {
        let number = |value: Option<f64>, digits: usize, unit: &str| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}{unit}"))
        };
        let pad = if column.is_pad { "pad " } else { "" };
        lines.push(format!(
            "{:<width$}{:>8}{:>11}{:>11}",
            format!("{pad}{}", column.label),
            format!("{:.1} %", 100.0 * column.share),
            number(column.mean_s, 2, " s"),
            number(column.distance, 3, "")
        ));
    }
    let pad = plan.pad_share().map(|share| format!(", {:.1} % of it on the pad", 100.0 * share));
    let solved = if plan.is_solved {
        format!("solved in {} steps", plan.iterations)
    } else {
        format!("NOT solved to its tolerance: marginal error {:.1e}", plan.marginal_error)
    };
    lines.push(format!(
        "cost {:.4} for the whole mass{}; {solved}",
        plan.cost,
        pad.unwrap_or_default()
    ));
    lines
}
