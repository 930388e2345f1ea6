//! `sandhi data validate`: decode everything, count it, list what is bad.

use std::{fmt::Write, path::PathBuf};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use sandhi_data::manifest::{self, Format, Rejected, Validation};
use serde::Serialize;

use crate::output;

/// Arguments of `sandhi data validate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A manifest or a data folder.
    manifest: PathBuf,
    /// The format; told from the content when absent.
    #[arg(long)]
    format: Option<Format>,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
    /// Exit with code 2 when anything is bad.
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    manifest: &'a PathBuf,
    format: Format,
    rejected: &'a [Rejected],
    #[serde(flatten)]
    validation: &'a Validation,
}

/// Decodes and reports.
pub fn run(args: Args) -> anyhow::Result<()> {
    let import = manifest::import(&args.manifest, args.format)?;
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("decoding {bar:30} {pos}/{len} files  {eta} left")?);
    let validation = manifest::validate(&import.utterances, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let n_bad = validation.bad.len() + import.rejected.len();
    if args.json {
        output::print_json(&Report {
            manifest: &args.manifest,
            format: import.format,
            rejected: &import.rejected,
            validation: &validation,
        })?;
    } else {
        output::print(&text(&validation, &import.rejected, import.format))?;
    }
    if validation.n_valid == 0 {
        bail!("{}: no utterance can be used", args.manifest.display());
    }
    if args.strict && n_bad > 0 {
        bail!("{}: {n_bad} entries cannot be used", args.manifest.display());
    }
    Ok(())
}

fn text(v: &Validation, rejected: &[Rejected], format: Format) -> String {
    let mut out = String::new();
    let counts = |map: &mut dyn Iterator<Item = (String, usize)>| {
        map.map(|(key, n)| format!("{key} ({n})")).collect::<Vec<_>>().join(", ")
    };
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "{name:<12} {value}");
        }
    };
    line("format", format.to_string());
    line("utterances", format!("{} of {} can be used", v.n_valid, v.n_utterances + rejected.len()));
    line("audio", format!("{:.3} h in {} files", v.hours, v.n_files));
    line("rates", counts(&mut v.sample_rates_hz.iter().map(|(k, n)| (format!("{k} Hz"), *n))));
    line("channels", counts(&mut v.channels.iter().map(|(k, n)| (k.to_string(), *n))));
    line("containers", counts(&mut v.formats.iter().map(|(k, n)| ((*k).to_owned(), *n))));
    line("languages", counts(&mut v.languages.iter().map(|(k, n)| (k.clone(), *n))));
    line("splits", counts(&mut v.splits.iter().map(|(k, n)| (k.clone(), *n))));
    if v.n_speakers > 0 {
        line("speakers", v.n_speakers.to_string());
    }
    line(
        "text",
        format!(
            "{} words, {} distinct, {:.1} a second; {} characters: {}; {} utterances without text",
            v.text.n_words,
            v.text.n_distinct_words,
            v.text.words_per_s,
            v.text.characters.chars().count(),
            v.text.characters.escape_debug(),
            v.text.n_empty
        ),
    );
    if let Some(d) = &v.durations {
        line(
            "lengths",
            format!(
                "{:.2} to {:.2} s, mean {:.2}, median {:.2}, 95 % below {:.2}",
                d.min_s, d.max_s, d.mean_s, d.median_s, d.p95_s
            ),
        );
        let most = d.histogram.iter().map(|bin| bin.n).max().unwrap_or(1).max(1);
        for bin in d.histogram.iter().filter(|bin| bin.n > 0) {
            let to = bin.to_s.map_or("    ".to_owned(), |to| format!("{to:>4}"));
            let bar = "#".repeat((40 * bin.n).div_ceil(most));
            line("", format!("{:>4} - {to} s  {:>7}  {bar}", bin.from_s, bin.n));
        }
    }
    for line in rejected {
        let _ = writeln!(out, "bad          {line}");
    }
    for (mark, list) in [("bad", &v.bad), ("suspicious", &v.suspicious)] {
        for entry in list {
            let _ =
                writeln!(out, "{mark:<12} {} ({}): {}", entry.id, entry.path.display(), entry.why);
        }
    }
    out
}
