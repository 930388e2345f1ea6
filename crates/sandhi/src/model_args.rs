//! The model that a command is about.

use std::path::PathBuf;

use burn::prelude::Device;
use sandhi_lab::{
    hf::{ModelSource, Want},
    model::AnyModel,
};

use crate::hub_args::HubArgs;

/// Arguments of what takes a model of ours or a published one.
#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    /// A model directory, a directory in Hugging Face's layout, or hf:owner/name@revision.
    #[arg(value_name = "MODEL")]
    pub source: ModelSource,
    #[command(flatten)]
    pub hub: HubArgs,
}

impl ModelArgs {
    /// The model, downloaded if it has to be.
    ///
    /// # Errors
    ///
    /// See [`sandhi_lab::model::Error`].
    pub fn open(&self, device: &Device) -> anyhow::Result<AnyModel> {
        Ok(AnyModel::open(&self.source, device, &self.hub.hub()?)?)
    }
}

/// Arguments of what takes a published model.
#[derive(Debug, clap::Args)]
pub struct PublishedArgs {
    /// A directory in Hugging Face's layout, or hf:owner/name@revision.
    #[arg(long = "model", value_name = "DIR")]
    pub source: ModelSource,
    #[command(flatten)]
    pub hub: HubArgs,
}

impl PublishedArgs {
    /// Its directory; downloaded if it has to be.
    ///
    /// # Errors
    ///
    /// See [`sandhi_lab::hf::HubError`].
    pub fn directory(&self) -> anyhow::Result<PathBuf> {
        match &self.source {
            ModelSource::Directory(dir) => Ok(dir.clone()),
            ModelSource::Hub(name) => Ok(self.hub.fetch(name, Want::Model)?.dir),
        }
    }
}
