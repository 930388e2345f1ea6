//! `sandhi score`: files of references and hypotheses, one utterance a line; for times, files of times.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use sandhi_data::{
    alignment::{self, Alignment, Source},
    score::{self, Bootstrap, Boundaries, Interval, Normalizer, TOLERANCES_S},
};
use serde_json::{Value, json};

use crate::output;

/// Arguments of `sandhi score`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The score.
    #[arg(value_enum)]
    metric: Metric,
    /// References, one utterance a line; empty lines count. For boundaries a file of word times (.TextGrid, .ctm, .jsonl,
    /// .srt, .vtt), or a folder of them.
    #[arg(long = "ref", value_name = "FILE")]
    reference: PathBuf,
    /// Hypotheses, line by line for the references; for boundaries the same utterances by name.
    #[arg(long = "hyp", value_name = "FILE")]
    hypothesis: PathBuf,
    /// What is done to both first: none, basic, basic-without-diacritics, basic-letters, english.
    #[arg(long, default_value = "none")]
    normalizer: Normalizer,
    /// JSON instead of a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Metric {
    /// Word error rate, as jiwer counts it.
    Wer,
    /// Character error rate, as jiwer counts it.
    Cer,
    /// Corpus BLEU, as sacreBLEU computes it.
    Bleu,
    /// Corpus chrF2, as sacreBLEU computes it.
    Chrf,
    /// The share of lines that are equal, white space aside.
    Exact,
    /// How far starts and ends of words are from the reference's, in seconds.
    Boundaries,
}

/// The lines of a text file; the last line end opens no line.
fn lines(path: &Path, normalizer: Normalizer) -> anyhow::Result<Vec<String>> {
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
        anyhow::anyhow!("{}:{line}: found bytes that are not UTF-8, expected text", path.display())
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut lines: Vec<&str> = text.split('\n').collect();
    if lines.last() == Some(&"") {
        lines.pop();
    }
    let plain = |line: &str| normalizer.apply(line.strip_suffix('\r').unwrap_or(line));
    Ok(lines.into_iter().map(plain).collect())
}

/// Boundary errors, for people and programs.
pub struct BoundaryReport {
    /// In a line.
    pub line: String,
    /// With all counts.
    pub json: Value,
}

/// Says how far word times are from their references; none where no word is on both sides.
pub fn boundary_report(found: &Boundaries, bootstrap: &Bootstrap) -> Option<BoundaryReport> {
    if found.counts.n_matched == 0 {
        return None;
    }
    let (boundary, duration) = (found.boundary_error(bootstrap), found.duration_error(bootstrap));
    let counts = found.counts;
    let ms = |seconds: f64| 1e3 * seconds;
    let n = counts.n_matched as f64;
    let within: Vec<String> = TOLERANCES_S
        .iter()
        .zip(counts.shares_within())
        .map(|(tolerance, share)| format!("{:.1} % within {:.0} ms", 100.0 * share, ms(*tolerance)))
        .collect();
    let line = format!(
        "boundaries {:.1} ms [{:.1}, {:.1}], median {:.1}; {}; durations {:.1} ms [{:.1}, {:.1}]; starts {:+.1} ms, ends \
         {:+.1} ms; {} of {} words",
        ms(boundary.value),
        ms(boundary.lo),
        ms(boundary.hi),
        ms(found.median_s),
        within.join(", "),
        ms(duration.value),
        ms(duration.lo),
        ms(duration.hi),
        ms(counts.late_start_s / n),
        ms(counts.late_end_s / n),
        counts.n_matched,
        counts.n_reference,
    );
    let json = json!({
        "metric": "boundaries",
        "boundary_error_s": boundary,
        "duration_error_s": duration,
        "median_s": found.median_s,
        "tolerances_s": TOLERANCES_S,
        "shares_within": counts.shares_within(),
        "counts": counts,
        "bootstrap": bootstrap,
    });
    Some(BoundaryReport { line, json })
}

/// Compares two files or folders of word times; utterances are matched by name.
fn run_boundaries(args: &Args) -> anyhow::Result<()> {
    let references = alignment::read(&args.reference, &Source::Exact)?;
    let hypotheses = alignment::read(&args.hypothesis, &Source::Silver)?;
    let named: HashMap<&str, &Vec<Alignment>> =
        hypotheses.iter().map(|(name, words)| (name.as_str(), words)).collect();
    let of = |id: &str| named.get(id).copied();
    let (mut right, mut found): (Vec<&[Alignment]>, Vec<&[Alignment]>) = (Vec::new(), Vec::new());
    // A file of one utterance is called as one likes.
    let alone = references.len() == 1 && hypotheses.len() == 1;
    for (id, words) in &references {
        let theirs = if alone { Some(&hypotheses[0].1) } else { of(id) };
        right.push(words);
        found.push(theirs.map_or(&[], Vec::as_slice));
    }
    let n_known = references.iter().filter(|(id, _)| alone || of(id).is_some()).count();
    if n_known == 0 {
        bail!(
            "{} and {} have no utterance in common",
            args.reference.display(),
            args.hypothesis.display()
        );
    }
    if n_known < references.len() {
        eprintln!(
            "{} of {} utterances have no hypothesis",
            references.len() - n_known,
            references.len()
        );
    }
    let found = score::boundaries(&right, &found)?;
    let Some(report) = boundary_report(&found, &Bootstrap::default()) else {
        bail!(
            "no word of {} is one of {}: {} and {} words; subtitles hold whole cues",
            args.reference.display(),
            args.hypothesis.display(),
            found.counts.n_reference,
            found.counts.n_hypothesis
        );
    };
    if args.json { output::print_json(&report.json) } else { output::print(&report.line) }
}

/// Prints the score.
pub fn run(args: Args) -> anyhow::Result<()> {
    if args.metric == Metric::Boundaries {
        if args.normalizer != Normalizer::default() {
            bail!("--normalizer: words are compared as CTC characters, expected none");
        }
        return run_boundaries(&args);
    }
    let references = lines(&args.reference, args.normalizer)?;
    let hypotheses = lines(&args.hypothesis, args.normalizer)?;
    if references.len() != hypotheses.len() {
        bail!(
            "{} has {} lines, {} has {}; expected as many",
            args.reference.display(),
            references.len(),
            args.hypothesis.display(),
            hypotheses.len()
        );
    }
    if references.is_empty() {
        bail!("{}: found no lines, expected at least one utterance", args.reference.display());
    }
    let bootstrap = Bootstrap::default();
    let (name, interval, signature, counts) = match args.metric {
        Metric::Wer | Metric::Cer => {
            let (name, unit, rate) = if args.metric == Metric::Wer {
                ("wer", "words", score::wer(&references, &hypotheses)?)
            } else {
                ("cer", "characters", score::cer(&references, &hypotheses)?)
            };
            let counts = json!({
                "hits": rate.hits,
                "substitutions": rate.substitutions,
                "deletions": rate.deletions,
                "insertions": rate.insertions,
                "n_reference": rate.n_reference,
                "n_hypothesis": rate.n_hypothesis,
            });
            let signature = format!("unit:{unit}|version:sandhi-{}", env!("CARGO_PKG_VERSION"));
            (name.to_owned(), rate.interval(&bootstrap), signature, counts)
        }
        Metric::Bleu => {
            let bleu = score::bleu(&references, &hypotheses)?;
            let counts = json!({
                "precisions": bleu.precisions,
                "brevity_penalty": bleu.brevity_penalty,
                "n_reference": bleu.counts.n_reference,
                "n_hypothesis": bleu.counts.n_hypothesis,
            });
            ("bleu".to_owned(), bleu.interval(&bootstrap), bleu.signature, counts)
        }
        Metric::Chrf => {
            let chrf = score::chrf(&references, &hypotheses)?;
            ("chrf".to_owned(), chrf.interval(&bootstrap), chrf.signature, Value::Null)
        }
        Metric::Boundaries => unreachable!("times are no lines of text"),
        Metric::Exact => {
            let exact = score::exact_match(&references, &hypotheses)?;
            let signature = format!("version:sandhi-{}", env!("CARGO_PKG_VERSION"));
            ("exact".to_owned(), exact.interval(&bootstrap), signature, Value::Null)
        }
    };
    let signature = format!("norm:{}|{signature}", args.normalizer);
    let Interval { value, lo, hi, n } = interval;
    if !args.json {
        return output::print(&format!(
            "{name} {value:.4} [{lo:.4}, {hi:.4}]  n {n}  {signature}  bootstrap {} % of {} resamples",
            100.0 * bootstrap.coverage,
            bootstrap.n_resamples
        ));
    }
    let mut result = json!({
        "metric": name,
        "value": value,
        "lo": lo,
        "hi": hi,
        "n": n,
        "normalizer": args.normalizer.name(),
        "signature": signature,
        "bootstrap": bootstrap,
    });
    if let (Some(result), Value::Object(counts)) = (result.as_object_mut(), counts) {
        result.extend(counts);
    }
    output::print_json(&result)
}
