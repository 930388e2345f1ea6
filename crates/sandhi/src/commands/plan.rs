//! `sandhi plan`: what a recipe would do, and everything that is wrong with it.

use anyhow::anyhow;
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
    let plan = checked(&recipe, &args.recipe)?;
    if args.json { output::print_json(&plan) } else { output::print(&plan.to_string()) }
}

/// The plan of a recipe, or all that is wrong with it.
pub fn checked(recipe: &Recipe, args: &RecipeArgs) -> anyhow::Result<Plan> {
    plan::plan(recipe, args.base())
        .map_err(|problems| anyhow!("{}:\n{problems}", args.recipe.display()))
}
