//! What could not be done of many utterances: said as it happens, counted, and listed beside the output.
//!
//! ```text
//! id, why ─┬─ stderr, the first ones
//!          └─ OUT.failures.jsonl, all
//! ```

use std::path::Path;

use indicatif::ProgressBar;
use serde::Serialize;

use super::data::SHOWN;
use crate::output;

/// An utterance without a result.
#[derive(Debug, Serialize)]
pub(super) struct Failed {
    pub(super) id: String,
    pub(super) why: String,
}

/// Those of a run.
#[derive(Debug, Default)]
pub(super) struct Failures(Vec<Failed>);

impl Failures {
    /// Adds one and says so above the bar.
    pub(super) fn add(&mut self, bar: &ProgressBar, id: &str, why: &anyhow::Error) {
        let failed = Failed { id: id.to_owned(), why: output::message(why) };
        if self.0.len() < SHOWN {
            bar.suspend(|| eprintln!("failed: {}: {}", failed.id, failed.why));
        }
        self.0.push(failed);
    }

    /// The one where there is no other.
    pub(super) fn only(&self) -> Option<&Failed> {
        self.0.first().filter(|_| self.0.len() == 1)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Says how many were not said.
    pub(super) fn tell_rest(&self) {
        if self.0.len() > SHOWN {
            eprintln!("failed: {} more", self.0.len() - SHOWN);
        }
    }

    /// Writes all of them beside what could be done, if there are any.
    pub(super) fn write(&self, out: &Path) -> anyhow::Result<()> {
        write(out, &self.0)
    }
}

/// Writes them to `OUT.failures.jsonl`, if there are any.
pub(super) fn write(out: &Path, failed: &[Failed]) -> anyhow::Result<()> {
    if failed.is_empty() {
        return Ok(());
    }
    let lines = failed.iter().map(|failed| Ok(format!("{}\n", serde_json::to_string(failed)?)));
    let lines: String = lines.collect::<anyhow::Result<_>>()?;
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".failures.jsonl");
    output::write(Some(&out.with_file_name(name)), &lines)
}
