//! What every command that speaks, trains or measures takes.

use std::path::PathBuf;

use crate::{device::DeviceArg, hub_args::HubArgs};

/// Where a run caches, where it computes, and whether it talks.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// Folder of speech and frames that are kept between runs.
    #[arg(long, value_name = "DIR", default_value = "cache")]
    pub cache: PathBuf,
    /// cpu, wgpu[:i], vulkan[:i], cuda[:i] or metal[:i].
    #[arg(long, default_value = "cpu")]
    pub device: DeviceArg,
    /// No progress bars.
    #[arg(long)]
    pub quiet: bool,
    #[command(flatten)]
    pub hub: HubArgs,
}

impl RunArgs {
    /// The arguments as they were given, for a command line that does the same again.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec!["--cache".to_owned(), self.cache.display().to_string()];
        words.extend(["--device".to_owned(), self.device.to_string()]);
        words.extend(self.quiet.then(|| "--quiet".to_owned()));
        words.extend(self.hub.words());
        words
    }
}
