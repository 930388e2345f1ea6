//! `sandhi train`: a recipe from start to end.

use std::path::PathBuf;

use sandhi_lab::{experiment, pipeline::Place};

use super::plan::ready;
use crate::{
    console::Console,
    output::Interrupted,
    provenance::provenance,
    recipe_args::{RecipeArgs, command_line},
    run_args::RunArgs,
};

/// Arguments of `sandhi train`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Output directory: model, metrics, checkpoints.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Continue the run in --out.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// Runs the recipe, saves on Ctrl-C.
pub fn run(args: Args) -> anyhow::Result<()> {
    let recipe = args.recipe.read()?;
    let hub = args.run.hub.hub()?;
    ready(&recipe, &args.recipe.recipe, args.recipe.base(), &hub)?;
    let place = Place {
        dir: args.out.clone(),
        resume: args.resume,
        base: args.recipe.base().to_owned(),
        cache: args.run.cache.clone(),
        device: args.run.device.open()?,
        hub,
        shared: None,
    };
    let mut console = Console::new(args.run.quiet)?;
    match experiment::run(&recipe, &place, &provenance(), &mut console)? {
        Some((_, results)) => {
            eprintln!("the model is in {}", args.out.join("model").display());
            if results.is_some() {
                eprintln!("the numbers are in {}", args.out.join("results.json").display());
            }
            Ok(())
        }
        None => {
            eprintln!("saved; continue with\n  {}", command_line(&args.resuming()));
            Err(Interrupted.into())
        }
    }
}

impl Args {
    /// The command that continues this run.
    fn resuming(&self) -> Vec<String> {
        let mut words = vec!["sandhi".to_owned(), "train".to_owned()];
        words.extend(self.recipe.words());
        words.extend(["--out".to_owned(), self.out.display().to_string(), "--resume".to_owned()]);
        words.extend(self.run.words());
        words
    }
}
