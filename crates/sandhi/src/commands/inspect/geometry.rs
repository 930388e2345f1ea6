//! `sandhi inspect geometry`: distances between speech vectors and the embeddings of what is said.

use sandhi_lab::{
    hf::ModelSource,
    inspect::{Geometry, GeometryConfig, GeometryRow, geometry, pad},
    tasks,
    train::Monitor,
};

use super::MeasureArgs;

/// Arguments of `sandhi inspect geometry`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A connector model's directory.
    model: ModelSource,
    /// The token that stands for no content; by default the model's own, or its recipe's.
    #[arg(long, value_name = "TOKEN")]
    pad: Option<String>,
    #[command(flatten)]
    of: MeasureArgs,
}

/// Measures and prints.
pub fn run(args: Args) -> anyhow::Result<()> {
    args.of.check()?;
    let (model, recipe) =
        super::open(&args.model, &args.of.run.device.open()?, &args.of.run.hub.hub()?)?;
    let config = GeometryConfig {
        pad: pad(&model, recipe.as_ref(), args.pad.as_deref())?,
        domains: args.of.domains.clone(),
        n: args.of.n,
        half: args.of.half(),
    };
    let (workshop, console) = args.of.workplace()?;
    let cache = tasks::frame_cache(&model, &args.of.run.cache);
    let found =
        geometry(&model, &workshop, &config, &cache, &|| console.now_s(), &|what, i, n| {
            console.preparing(what, i, n);
        })?;
    args.of.show(&found, table)
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
