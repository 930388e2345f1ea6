//! `sandhi inspect`: what a connector makes of speech, beside the embeddings of what is said.

mod geometry;
mod segments;
mod transport;

use anyhow::ensure;
use burn::prelude::Device;
use sandhi_lab::{
    hf::{Hub, ModelSource},
    inspect::recipe_of,
    model::{AnyModel, ConnectorModel},
    recipe::Recipe,
};

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
}

/// Looks.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.what {
        What::Geometry(args) => geometry::run(args),
        What::Segments(args) => segments::run(args),
        What::Transport(args) => transport::run(*args),
    }
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
    let recipe = match source {
        ModelSource::Directory(dir) => recipe_of(dir)?,
        ModelSource::Hub(_) => None,
    };
    Ok((*model, recipe))
}
