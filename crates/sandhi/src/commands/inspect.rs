//! `sandhi inspect`: what a connector makes of speech, beside the same words in writing, what training on speech made of
//! the language model, and what patches of units are.

mod forgetting;
mod geometry;
mod layers;
mod patches;
mod segments;
mod transport;

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use burn::prelude::Device;
use sandhi_lab::{
    hf::{Hub, ModelSource},
    inspect::recipe_of,
    model::{AnyModel, ConnectorModel},
    recipe::{Half, Recipe},
    results::Results,
    sources::Workshop,
};

use serde::Serialize;

use super::eval::{check_domains, nameless};
use crate::{console::Console, output, run_args::RunArgs};

/// Arguments of `sandhi inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// How near speech vectors are to the embeddings of what is said, in every domain and language.
    Geometry(geometry::Args),
    /// Where an utterance is cut by everything that can cut it, and the nearest token of every vector, as a picture.
    Segments(segments::Args),
    /// Where the speech of a sound file goes among the tokens of what is said, in numbers and as a picture.
    Transport(Box<transport::Args>),
    /// How alike speech and text are at every depth of the language model: CKA, and retrieval of tokens.
    Layers(layers::Args),
    /// How alike the patches of one word are, and those of different words, in a model over text and units.
    Patches(patches::Args),
    /// What the language model has forgotten, and how far speech leads from where text leads.
    Forgetting(Box<forgetting::Args>),
}

/// Looks.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.what {
        What::Geometry(args) => geometry::run(args),
        What::Segments(args) => segments::run(args),
        What::Transport(args) => transport::run(*args),
        What::Layers(args) => layers::run(args),
        What::Patches(args) => patches::run(args),
        What::Forgetting(args) => forgetting::run(*args),
    }
}

fn half(test: bool) -> Half {
    if test { Half::Test } else { Half::Dev }
}

/// What is measured, and how it is shown.
#[derive(Debug, clap::Args)]
struct MeasureArgs {
    /// Domains; all when not given.
    #[arg(long, value_delimiter = ',')]
    domains: Vec<String>,
    /// Utterances of each domain and language; stories where models read stories.
    #[arg(long, default_value_t = 40)]
    n: usize,
    /// Measure on the half that is opened once, instead of the one that tuning uses.
    #[arg(long)]
    test: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
}

impl MeasureArgs {
    /// Refuses what cannot be measured.
    fn check(&self) -> anyhow::Result<()> {
        check_domains(&self.domains)?;
        ensure!(self.n > 0, "--n is 0, expected at least 1");
        Ok(())
    }

    fn half(&self) -> Half {
        half(self.test)
    }

    /// Where sound and frames come from, and where progress goes.
    fn workplace(&self) -> anyhow::Result<(Workshop, Console)> {
        let workshop = Workshop::new(&self.run.cache, &PathBuf::new(), &nameless("inspect"));
        Ok((workshop, Console::new(self.run.quiet)?))
    }

    /// Prints JSON or a table.
    fn show<T: Serialize + ?Sized>(
        &self,
        found: &T,
        table: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        if self.json { output::print_json(found) } else { output::print(&table(found)) }
    }
}

/// Adds numbers to the `results.json` of a run.
fn add_to_results(dir: &Path, add: impl FnOnce(&mut Results)) -> anyhow::Result<()> {
    let path = dir.join("results.json");
    let mut results = Results::read(&path).context("--run-dir takes the directory of a run")?;
    add(&mut results);
    Ok(results.write(&path)?)
}

/// The recipe beside a model, where there is one.
fn recipe_beside(source: &ModelSource) -> anyhow::Result<Option<Recipe>> {
    Ok(match source {
        ModelSource::Directory(dir) => recipe_of(dir)?,
        ModelSource::Hub(_) => None,
    })
}

/// A connector model, and the recipe beside it where there is one.
fn open(
    source: &ModelSource,
    device: &Device,
    hub: &Hub,
) -> anyhow::Result<(ConnectorModel, Option<Recipe>)> {
    let model = AnyModel::open(source, device, hub)?;
    let kind = model.kind();
    ensure!(
        kind == "connector",
        "{source} is a {kind} model, expected a connector: only those have speech vectors among a language model's \
         embeddings"
    );
    let AnyModel::Connector(model) = model else { unreachable!("its kind was checked") };
    Ok((*model, recipe_beside(source)?))
}
