//! `sandhi plan`: what a recipe would do, and everything that is wrong with it.

use std::path::Path;

use anyhow::{anyhow, ensure};
use sandhi_lab::{
    plan::{self, Plan},
    recipe::Recipe,
};

use crate::{output, recipe_args::RecipeArgs};

/// Arguments of `sandhi plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// Checks and prints.
pub fn run(args: Args) -> anyhow::Result<()> {
    let recipe = args.recipe.read()?;
    let plan = checked(&recipe, &args.recipe.recipe, args.recipe.base())?;
    if args.json { output::print_json(&plan) } else { output::print(&plan.to_string()) }
}

/// The plan of the recipe in `file`, or all that is wrong with it.
fn checked(recipe: &Recipe, file: &Path, base: &Path) -> anyhow::Result<Plan> {
    plan::plan(recipe, base).map_err(|problems| anyhow!("{}:\n{problems}", file.display()))
}

/// The plan of a recipe that is to be trained now; its warnings are printed.
pub fn ready(recipe: &Recipe, file: &Path, base: &Path) -> anyhow::Result<Plan> {
    let plan = checked(recipe, file, base)?;
    let file = file.display();
    ensure!(plan.missing.is_empty(), "{file}:\n  - {}", plan.missing.join("\n  - "));
    ensure!(
        plan.trainable,
        "{file}: a base is only declared; such a recipe can be planned, not trained"
    );
    for warning in &plan.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(plan)
}
