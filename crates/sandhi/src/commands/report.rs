//! `sandhi report`: a run as one HTML file.

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::{Context, ensure};
use sandhi_lab::{
    inspect::recipe_of,
    model::AnyModel,
    report::{Run, Shown, of_run, write_html},
    results::{Results, ResultsMeta},
    sources::Workshop,
};

use crate::{output, run_args::RunArgs};

/// Arguments of `sandhi report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory of a finished run.
    #[arg(value_name = "RUN")]
    dir: PathBuf,
    /// Where it goes; report.html in the run's directory when not given.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show the first utterances of this manifest to a model that cuts speech, instead of a sentence of Microworld in each acoustic
    /// domain.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// How many of the manifest's utterances.
    #[arg(long, default_value = "4", requires = "manifest")]
    n: NonZeroUsize,
    /// The directory of another run over text and units, whose losses are drawn beside these against operations; may be
    /// repeated.
    #[arg(long, value_name = "RUN")]
    beside: Vec<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
}

/// Hears a few utterances and writes the page.
pub fn run(args: Args) -> anyhow::Result<()> {
    let model_dir = args.dir.join("model");
    ensure!(
        model_dir.join("model.json").exists(),
        "{} has no model/model.json, expected the directory of a run that `sandhi train` finished",
        args.dir.display()
    );
    let recipe = recipe_of(&model_dir)?
        .with_context(|| format!("{} has no recipe.json", model_dir.display()))?;
    let model = AnyModel::load(&model_dir, &args.run.device.open()?, &args.run.hub.hub()?)?;
    let path = args.dir.join("results.json");
    let results = if path.exists() {
        Results::read(&path)?
    } else {
        eprintln!("{} was not evaluated: the report has no scores", args.dir.display());
        Results::new(ResultsMeta {
            recipe: recipe.name.clone(),
            model: model.describe(),
            seed: recipe.seed,
            ..ResultsMeta::default()
        })
    };
    let workshop = Workshop::new(&args.run.cache, &PathBuf::new(), &recipe);
    let shown = match (&model, &args.manifest) {
        (model, Some(path)) if hears(model) => {
            let shown = Shown::of_manifest(&workshop, path, args.n.get())?;
            ensure!(
                !shown.is_empty(),
                "{}: found no utterance to show, expected one of at most a minute with its text",
                path.display()
            );
            shown
        }
        (model, None) if hears(model) => Shown::of_microworld(&workshop)?,
        (_, None) => Vec::new(),
        (_, Some(_)) => anyhow::bail!(
            "--manifest: {} is a {} model; only connectors, and models over text and units that hear, are shown with \
             utterances",
            model_dir.display(),
            model.kind()
        ),
    };
    for dir in &args.beside {
        let log = dir.join("metrics.jsonl");
        ensure!(log.exists(), "--beside: {} has no metrics.jsonl", dir.display());
    }
    let run = Run {
        dir: &args.dir,
        recipe: &recipe,
        model: &model,
        results: &results,
        beside: &args.beside,
    };
    let data = of_run(&run, &shown)?;
    let out = args.out.unwrap_or_else(|| args.dir.join("report.html"));
    write_html(&out, &data)?;
    output::print(&out.display().to_string())
}

/// Whether utterances can be shown with what the model makes of them.
fn hears(model: &AnyModel) -> bool {
    match model {
        AnyModel::Connector(_) => true,
        AnyModel::SpeechText(model) => model.hearing.is_some(),
        _ => false,
    }
}
