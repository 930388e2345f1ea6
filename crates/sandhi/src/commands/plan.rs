//! `sandhi plan`: what a recipe would do, and everything that is wrong with it.

use std::path::Path;

use anyhow::{anyhow, ensure};
use sandhi_lab::{
    hf::{Hub, ModelSource},
    plan::{self, Plan},
    recipe::Recipe,
};

use crate::{hub_args::HubArgs, output, recipe_args::RecipeArgs};

/// Arguments of `sandhi plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    hub: HubArgs,
    /// Operations a second that the device is expected to reach, e.g. 300e12 or 50GFLOPS: gives the time of
    /// steps and stages.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<f64>,
    /// JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// A number of operations a second: `300e12`, `300T`, `50 GFLOPS`, `50 GFLOP/s`.
fn rate(text: &str) -> Result<f64, String> {
    let expected = || "expected a positive number such as 300e12, 300T or 50GFLOPS".to_owned();
    let lower = text.trim().to_ascii_lowercase();
    let plain = ["flop/s", "flops"].iter().find_map(|unit| lower.strip_suffix(unit));
    let plain = plain.unwrap_or(&lower).trim_end();
    let scales = [('k', 1e3), ('m', 1e6), ('g', 1e9), ('t', 1e12), ('p', 1e15), ('e', 1e18)];
    let scaled = scales.iter().find_map(|(unit, scale)| Some((plain.strip_suffix(*unit)?, *scale)));
    let (number, scale) = scaled.unwrap_or((plain, 1.0));
    let rate = number.trim_end().parse::<f64>().map_err(|_| expected())? * scale;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err(expected()) }
}

/// Checks and prints.
pub fn run(args: Args) -> anyhow::Result<()> {
    let recipe = args.recipe.read()?;
    let mut plan = checked(&recipe, &args.recipe.recipe, args.recipe.base(), &args.hub.hub()?)?;
    if let Some(rate) = args.rate {
        plan = plan.at_rate(rate);
    }
    if args.json { output::print_json(&plan) } else { output::print(&plan.to_string()) }
}

/// The plan of the recipe in `file`, or all that is wrong with it.
fn checked(recipe: &Recipe, file: &Path, base: &Path, hub: &Hub) -> anyhow::Result<Plan> {
    plan::plan(recipe, base, hub).map_err(|problems| anyhow!("{}:\n{problems}", file.display()))
}

/// The plan of a recipe that is to be trained now, its published models fetched; its warnings are printed.
pub fn ready(recipe: &Recipe, file: &Path, base: &Path, hub: &Hub) -> anyhow::Result<Plan> {
    for name in recipe.models_of_the_hub() {
        hub.locate(&ModelSource::Hub(name))?;
    }
    let plan = checked(recipe, file, base, hub)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_with_and_without_units() {
        let cases = [
            ("300e12", 3e14),
            ("300T", 3e14),
            ("50GFLOPS", 5e10),
            ("50 gflop/s", 5e10),
            ("1.5 PFLOPS", 1.5e15),
            ("1e9", 1e9),
            ("7FLOPS", 7.0),
        ];
        for (text, expected) in cases {
            assert_eq!(rate(text), Ok(expected), "{text}");
        }
        for wrong in ["", "fast", "0", "-1T", "inf", "nan", "T", "FLOPS", "1e400"] {
            assert!(rate(wrong).unwrap_err().contains("50GFLOPS"), "{wrong}");
        }
    }
}
