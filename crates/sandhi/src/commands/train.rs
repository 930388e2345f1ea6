//! `sandhi train`: a recipe from start to end.

use std::path::PathBuf;

use sandhi_lab::{experiment, pipeline::Place};

use super::plan::checked;
use crate::{
    console::Console,
    device::DeviceArg,
    output::Interrupted,
    provenance::provenance,
    recipe_args::{RecipeArgs, command_line},
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
    /// Folder of speech and frames that are kept between runs.
    #[arg(long, value_name = "DIR", default_value = "cache")]
    cache: PathBuf,
    /// cpu, wgpu[:i], vulkan[:i], cuda[:i] or metal[:i].
    #[arg(long, default_value = "cpu")]
    device: DeviceArg,
    /// No progress bars.
    #[arg(long)]
    quiet: bool,
}

/// Runs the recipe, saves on Ctrl-C.
pub fn run(args: Args) -> anyhow::Result<()> {
    let recipe = args.recipe.read()?;
    let plan = checked(&recipe, &args.recipe)?;
    if !plan.trainable {
        anyhow::bail!(
            "{}: a base is only declared; such a recipe can be planned, not trained",
            args.recipe.display()
        );
    }
    for warning in &plan.warnings {
        eprintln!("warning: {warning}");
    }
    let place = Place {
        dir: args.out.clone(),
        resume: args.resume,
        base: args.recipe.base().to_owned(),
        cache: args.cache.clone(),
        device: args.device.open()?,
    };
    let mut console = Console::new(args.quiet)?;
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
        words.extend(["--cache".to_owned(), self.cache.display().to_string()]);
        words.extend(["--device".to_owned(), self.device.to_string()]);
        words.extend(self.quiet.then(|| "--quiet".to_owned()));
        words
    }
}
