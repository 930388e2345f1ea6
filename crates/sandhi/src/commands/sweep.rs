//! `sandhi sweep`: the recipes of a folder over seeds.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::bail;
use sandhi_lab::{
    experiment::{self, SweepCell},
    pipeline::{self, Place},
    recipe::{self, Overrides},
    train::{Monitor, shared::SharedStages},
};

use super::plan::ready;
use crate::{console::Console, output::Interrupted, provenance::provenance, run_args::RunArgs};

/// Arguments of `sandhi sweep`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder of recipes.
    dir: PathBuf,
    /// Where the runs go: OUT/RECIPE/seed-N.
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
    /// Names of recipes' files, without .toml; all when not given.
    #[arg(long, value_name = "RECIPE", value_delimiter = ',')]
    only: Vec<String>,
    /// Seeds of every recipe, from 1.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// A folder that the recipes call `$NAME`.
    #[arg(long, value_name = "NAME=DIR", value_parser = crate::recipe_args::pair)]
    path: Vec<(String, String)>,
    /// Change a field of every recipe.
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::recipe_args::pair)]
    set: Vec<(String, String)>,
    #[command(flatten)]
    run: RunArgs,
}

/// Runs every cell that is not finished; the same command continues after a stop. Beside another of the same command it
/// runs the cells that the other one does not.
pub fn run(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.seeds > 0, "--seeds is 0, expected at least 1");
    let device = args.run.device.open()?;
    let hub = args.run.hub.hub()?;
    let mut cells = experiment::sweep_cells(&args.dir, &args.out, args.seeds)?;
    if !args.only.is_empty() {
        let names: BTreeSet<Cow<str>> = cells.iter().map(SweepCell::name).collect();
        if let Some(unknown) = args.only.iter().find(|name| !names.contains(name.as_str())) {
            let known = names.into_iter().collect::<Vec<_>>().join(", ");
            bail!("--only {unknown}: {} has {known}", args.dir.display());
        }
        cells.retain(|cell| args.only.iter().any(|name| *name == cell.name()));
    }
    let mut console = Console::new(args.run.quiet)?;
    let n = cells.len();
    // Every recipe is read and planned before the first one runs.
    let mut plans = Vec::with_capacity(n);
    for cell in cells {
        let mut set = args.set.clone();
        set.push(("seed".to_owned(), cell.seed.to_string()));
        let overrides = Overrides { set, paths: args.path.clone() };
        let recipe = recipe::read(&cell.recipe, &overrides)?;
        if cell.seed == 1 {
            ready(&recipe, &cell.recipe, cell.recipe.parent().unwrap_or(Path::new("")), &hub)?;
        }
        plans.push((recipe, cell));
    }
    let program = format!(
        "{} {}",
        env!("CARGO_PKG_VERSION"),
        provenance().commit.unwrap_or_else(|| "of no known commit".to_owned())
    );
    let shared = SharedStages { dir: args.out.join(".stages"), program };
    let mut elsewhere = 0;
    for (i, (recipe, SweepCell { recipe: file, dir, seed })) in plans.into_iter().enumerate() {
        let done = if recipe.eval.is_some() { "results.json" } else { "model/model.json" };
        let done = dir.join(done);
        if done.exists() {
            continue;
        }
        console.note(&format!("cell {} of {n}: {}, seed {seed}", i + 1, recipe.name));
        let place = Place {
            resume: dir.join("recipe.json").exists(),
            dir,
            base: file.parent().map(std::path::Path::to_owned).unwrap_or_default(),
            cache: args.run.cache.clone(),
            device: device.clone(),
            hub: hub.clone(),
            shared: Some(shared.clone()),
        };
        match experiment::run(&recipe, &place, &provenance(), &mut console) {
            Ok(Some(_)) => {}
            Ok(None) => {
                eprintln!("saved; the same command continues");
                return Err(Interrupted.into());
            }
            Err(experiment::Error::Pipeline(pipeline::Error::Busy { .. })) => elsewhere += 1,
            Err(error) => return Err(error.into()),
        }
    }
    if elsewhere > 0 {
        eprintln!("{} of {n} cells are finished, another process runs the rest", n - elsewhere);
    } else {
        let out = args.out.display();
        eprintln!("{n} cells are finished; compare them with `sandhi table {out}`");
    }
    Ok(())
}
