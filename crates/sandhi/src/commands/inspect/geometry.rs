//! `sandhi inspect geometry`: distances between speech vectors and the embeddings of what is said.

use std::path::PathBuf;

use anyhow::ensure;
use sandhi_lab::{
    hf::ModelSource,
    inspect::{Geometry, GeometryConfig, GeometryRow, geometry, pad},
    sources::Workshop,
    tasks,
    train::Monitor,
};

use super::super::eval::nameless;
use crate::{console::Console, output, run_args::RunArgs};

/// Arguments of `sandhi inspect geometry`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A connector model's directory.
    model: ModelSource,
    /// Domains; all when not given.
    #[arg(long, value_delimiter = ',')]
    domains: Vec<String>,
    /// Utterances of each domain and language.
    #[arg(long, default_value_t = 40)]
    n: usize,
    /// Measure on the half that is opened once, instead of the one that tuning uses.
    #[arg(long)]
    test: bool,
    /// The token that stands for no content; by default the model's own, or its recipe's.
    #[arg(long, value_name = "TOKEN")]
    pad: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// Measures and prints.
pub fn run(args: Args) -> anyhow::Result<()> {
    super::check_domains(&args.domains)?;
    ensure!(args.n > 0, "--n is 0, expected at least 1 utterance");
    let (model, recipe) = super::open(&args.model, &args.run.device.open()?, &args.run.hub.hub()?)?;
    let config = GeometryConfig {
        pad: pad(&model, recipe.as_ref(), args.pad.as_deref())?,
        domains: args.domains,
        n: args.n,
        half: super::half(args.test),
    };
    let workshop = Workshop::new(&args.run.cache, &PathBuf::new(), &nameless("inspect"));
    let cache = tasks::frame_cache(&model, &args.run.cache);
    let console = Console::new(args.run.quiet)?;
    let found =
        geometry(&model, &workshop, &config, &cache, &|| console.now_s(), &|what, i, n| {
            console.preparing(what, i, n);
        })?;
    if args.json { output::print_json(&found) } else { output::print(&table(&found)) }
}

/// The rows, then what was compared with what.
fn table(found: &Geometry) -> String {
    let mut lines = vec![
        format!("{:<27}{:<31}{:<23}{}", "", "within words", "outside", "an utterance"),
        format!(
            "{:<9}{:<6}{:>9}   {:>7}{:>9}{:>7}{:>5}   {:>7}{:>9}{:>4}   {:>7}{:>7}{:>7}",
            "domain",
            "lang",
            "utts",
            "vectors",
            "distance",
            "table",
            "said",
            "vectors",
            "distance",
            "pad",
            "vectors",
            "given",
            "tokens"
        ),
    ];
    lines.extend(found.rows.iter().map(line));
    lines.push(String::new());
    let pad = match &found.pad {
        Some(pad) => format!("the pad is {pad:?}"),
        None => "the model has no pad; --pad TOKEN names one".to_owned(),
    };
    lines.push(format!(
        "distance: 1 - cosine, to the token that is said or to the pad; shares in % to which nothing is nearer, in the \
         whole table or among what is said and the pad; {pad}"
    ));
    let left_out: usize =
        found.rows.iter().filter(|row| row.language.is_some()).map(|row| row.n_left_out).sum();
    if left_out > 0 {
        lines.push(format!(
            "{left_out} utterances are left out: their words have no times that fit the text"
        ));
    }
    if let Some(pass) = found.prompt_pass {
        lines.push(format!(
            "reading {} prompts together: {:.1} ms with all vectors ({} rows), {:.1} ms as given ({} rows); medians of {}",
            pass.n_prompts,
            1e3 * pass.uncompressed_s,
            pass.rows,
            1e3 * pass.compressed_s,
            pass.rows_given,
            pass.readings
        ));
    }
    lines.join("\n")
}

fn line(row: &GeometryRow) -> String {
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let percent = |value: Option<f64>| number(value.map(|value| 100.0 * value), 0);
    format!(
        "{:<9}{:<6}{:>9}   {:>7}{:>9}{:>7}{:>5}   {:>7}{:>9}{:>4}   {:>7}{:>7}{:>7}",
        row.domain,
        row.language.map_or("all", |language| language.code()),
        row.n_utterances,
        row.content.n,
        number(row.content.distance, 3),
        percent(row.content.right_of_table),
        percent(row.content.right_of_transcript),
        row.pauses.n,
        number(row.pauses.distance, 3),
        percent(row.pauses.on_pad),
        number(row.vectors, 1),
        number(row.given, 1),
        number(row.tokens, 1),
    )
}
