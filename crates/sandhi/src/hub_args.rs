//! Models of the Hugging Face Hub on the command line: where they come from, where they are kept, and bars
//! while they come.
//!
//! | option | variable | without both |
//! |---|---|---|
//! | `--hub-endpoint` | `HF_ENDPOINT` | `https://huggingface.co` |
//! | `--hub-cache` | `HF_HUB_CACHE`, then `hub` in `HF_HOME` | `~/.cache/huggingface/hub` |
//! | `--offline` | `HF_HUB_OFFLINE` | the network is used |
//! | | `HF_TOKEN`, then the file `HF_TOKEN_PATH`, then `token` in `HF_HOME` | no token |
//! | | `HTTPS_PROXY` | no proxy |
//!
//! The variables are those of Python's `huggingface_hub`, and so is the cache.

use std::{env, path::PathBuf};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sandhi_lab::hf::{
    self, Hub, Snapshot, Want,
    hub::{ModelName, Progress},
};

/// What stands above the arguments in help.
const HEADING: &str = "Models of the Hub";

/// Arguments that say where models named `hf:owner/name@revision` come from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct HubArgs {
    /// The Hub that models named hf:... come from [default: HF_ENDPOINT, or https://huggingface.co].
    #[arg(long, value_name = "URL", help_heading = HEADING)]
    pub hub_endpoint: Option<String>,
    /// Where they are kept, shared with Python's huggingface_hub [default: HF_HUB_CACHE, or the folder hub in
    /// HF_HOME, or ~/.cache/huggingface/hub].
    #[arg(long, value_name = "DIR", help_heading = HEADING)]
    pub hub_cache: Option<PathBuf>,
    /// Use what is in that cache and nothing else; HF_HUB_OFFLINE=1 does the same.
    #[arg(long, help_heading = HEADING)]
    pub offline: bool,
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

impl HubArgs {
    /// The arguments as they were given, for a command line that does the same again.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(endpoint) = &self.hub_endpoint {
            words.extend(["--hub-endpoint".to_owned(), endpoint.clone()]);
        }
        if let Some(cache) = &self.hub_cache {
            words.extend(["--hub-cache".to_owned(), cache.display().to_string()]);
        }
        words.extend(self.offline.then(|| "--offline".to_owned()));
        words
    }

    /// The Hub, from the arguments and the environment.
    ///
    /// # Errors
    ///
    /// When there is no home directory to keep a cache in.
    pub fn hub(&self) -> anyhow::Result<Hub> {
        let home = variable("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
            Some(cache.or_else(|| Some(env::home_dir()?.join(".cache")))?.join("huggingface"))
        });
        let cache = self
            .hub_cache
            .clone()
            .or_else(|| variable("HF_HUB_CACHE").map(PathBuf::from))
            .or_else(|| Some(home.as_ref()?.join("hub")))
            .context("there is no home directory for the Hub's cache: give --hub-cache")?;
        let endpoint = self.hub_endpoint.clone().or_else(|| variable("HF_ENDPOINT"));
        let endpoint = endpoint.unwrap_or_else(|| hf::hub::ENDPOINT.to_owned());
        let yes = |value: String| {
            ["1", "on", "yes", "true"].contains(&value.trim().to_ascii_lowercase().as_str())
        };
        let stored = || {
            let path = variable("HF_TOKEN_PATH").map(PathBuf::from);
            std::fs::read_to_string(path.or_else(|| Some(home.as_ref()?.join("token")))?).ok()
        };
        let token = variable("HF_TOKEN").or_else(stored).map(|token| token.trim().to_owned());
        let proxy = variable("HTTPS_PROXY").or_else(|| variable("https_proxy"));
        Ok(Hub {
            cache,
            offline: self.offline || variable("HF_HUB_OFFLINE").is_some_and(yes),
            token: token.filter(|token| !token.is_empty()),
            // As everywhere, it is for encrypted connections.
            proxy: proxy.filter(|_| endpoint.starts_with("https://")),
            endpoint,
            progress: || Box::new(Bars::default()),
        })
    }

    /// Fetches a model, with bars on stderr.
    ///
    /// # Errors
    ///
    /// See [`hf::HubError`].
    pub fn fetch(&self, model: &ModelName, want: Want) -> anyhow::Result<Snapshot> {
        Ok(self.hub()?.fetch(model, want, &mut Bars::default())?)
    }
}

/// One bar a file; where nobody looks, one line a file.
#[derive(Default)]
pub struct Bars {
    bar: Option<ProgressBar>,
}

impl Progress for Bars {
    fn start(&mut self, file: &str, n_bytes: u64, had: u64) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
        let bar = ProgressBar::with_draw_target(Some(n_bytes), ProgressDrawTarget::stderr());
        let template = "{msg:<34} {bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(file.to_owned());
        bar.set_position(had);
        // What was there already says nothing about the speed.
        bar.reset_eta();
        if bar.is_hidden() {
            eprintln!("downloading {file}, {}", indicatif::HumanBytes(n_bytes - had));
        }
        self.bar = Some(bar);
    }

    fn advance(&mut self, n_bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(n_bytes);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}
