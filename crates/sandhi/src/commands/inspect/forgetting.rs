//! `sandhi inspect forgetting`: what a language model knew before it was trained on speech, and what it knows now.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use sandhi_data::microworld::Microworld;
use sandhi_data::score::{Bootstrap, Interval};
use sandhi_lab::{
    hf::ModelSource,
    inspect::{
        Change, Corpus, Forgetting, MisalignmentRow, SpeechConfig, TextRow, add_misalignment,
        almanac, base, misalignment, texts,
    },
    model::AnyModel,
    sources::{WORLD_SEED, Workshop},
    tasks,
    train::Monitor,
};
use serde::Serialize;

use super::super::eval::nameless;
use crate::{console::Console, output, run_args::RunArgs};

/// Arguments of `sandhi inspect forgetting`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model with a language model: a directory, or hf:owner/name@revision.
    model: ModelSource,
    /// What its language model was before; by default what the model or the recipe beside it says that it was made from.
    #[arg(long, value_name = "MODEL")]
    before: Option<ModelSource>,
    /// Read these texts instead of Microworld's: files with a document a line.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    text: Vec<PathBuf>,
    /// Documents of each kind, questions, and stories of each domain.
    #[arg(long, default_value_t = 100)]
    n: usize,
    /// Measure on the half that is opened once, instead of the one that tuning uses.
    #[arg(long)]
    test: bool,
    /// Domains in which a connector model hears stories; all when not given.
    #[arg(long, value_delimiter = ',', conflicts_with = "text")]
    domains: Vec<String>,
    /// Add the numbers to the results.json of this run, for sandhi table.
    #[arg(long, value_name = "DIR", conflicts_with = "text")]
    run_dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Found {
    before: String,
    #[serde(flatten)]
    forgetting: Forgetting,
    misalignment: Vec<MisalignmentRow>,
}

/// Measures and prints.
pub fn run(args: Args) -> anyhow::Result<()> {
    super::check_domains(&args.domains)?;
    ensure!(args.n > 0, "--n is 0, expected at least 1 document");
    let (device, hub) = (args.run.device.open()?, args.run.hub.hub()?);
    let model = AnyModel::open(&args.model, &device, &hub)?;
    let recipe = super::recipe_beside(&args.model)?;
    let before =
        base(&model, recipe.as_ref(), args.before.as_ref(), &device, &hub).context("--before")?;
    let (half, bootstrap) = (super::half(args.test), Bootstrap::default());
    let console = Console::new(args.run.quiet)?;
    let progress = |what: &str, i: usize, n: usize| console.preparing(what, i, n);
    let world = Microworld::new(WORLD_SEED);
    let corpora = if args.text.is_empty() {
        Corpus::of_world(&world, half, args.n)
    } else {
        args.text.iter().map(|path| Corpus::read(path)).collect::<Result<_, _>>()?
    };
    let after =
        sandhi_lab::inspect::text_side(&model).context("the model has no language model")?;
    let rows = texts(&before.text, after, &corpora, &bootstrap, &progress)?;
    let is_ours = args.text.is_empty();
    let choices = is_ours
        .then(|| almanac(&before.text, after, &world, half, args.n, &bootstrap))
        .transpose()?;
    let heard = match &model {
        AnyModel::Connector(model) if is_ours => {
            let workshop = Workshop::new(&args.run.cache, &PathBuf::new(), &nameless("inspect"));
            let cache = tasks::frame_cache(model, &args.run.cache);
            let config = SpeechConfig { domains: args.domains, n: args.n, half, bootstrap };
            misalignment(&before.text, model, &workshop, &config, &cache, &progress)?
        }
        _ => Vec::new(),
    };
    let forgetting = Forgetting { texts: rows, almanac: choices };
    if let Some(dir) = &args.run_dir {
        super::add_to_results(dir, |results| {
            forgetting.add_to(results);
            add_misalignment(&heard, results);
        })?;
    }
    let found = Found { before: before.name, forgetting, misalignment: heard };
    if args.json { output::print_json(&found) } else { output::print(&table(&found)) }
}

/// `1.23 [1.10, 1.31]`
fn ranged(interval: &Interval, digits: usize) -> String {
    let Interval { value, lo, hi, .. } = interval;
    format!("{value:.digits$} [{lo:.digits$}, {hi:.digits$}]")
}

/// Before, after and the difference, with its sign.
fn change(Change { before, after, change }: &Change, scale: f64, digits: usize) -> String {
    format!(
        "{:>8.digits$}{:>8.digits$}  {:<24}",
        scale * before.value,
        scale * after.value,
        format!(
            "{:+.digits$} [{:+.digits$}, {:+.digits$}]",
            scale * change.value,
            scale * change.lo,
            scale * change.hi
        )
    )
}

fn text_line(row: &TextRow) -> String {
    format!(
        "{:<12}{:>6}{:>8}  {}{}{}",
        row.corpus,
        row.n_documents,
        row.n_tokens,
        change(&row.perplexity, 1.0, 2),
        change(&row.perplexity_per_word, 1.0, 1),
        ranged(&row.divergence, 4)
    )
}

fn table(found: &Found) -> String {
    let before_after = format!("{:>8}{:>8}  {:<24}", "before", "after", "change");
    let mut lines = vec![
        format!("before: {}", found.before),
        String::new(),
        format!("{:<28}{:<42}{:<42}{}", "", "perplexity a token", "perplexity a word", "KL"),
        format!(
            "{:<12}{:>6}{:>8}  {before_after}{before_after}{}",
            "texts", "docs", "tokens", "a token"
        ),
    ];
    lines.extend(found.forgetting.texts.iter().map(text_line));
    if let Some(almanac) = &found.forgetting.almanac {
        lines.push(String::new());
        lines.push(format!(
            "almanac, multiple choice in writing, {} questions, % right: {}",
            almanac.accuracy.after.n,
            change(&almanac.accuracy, 100.0, 1).trim()
        ));
    }
    if !found.misalignment.is_empty() {
        lines.push(String::new());
        lines.push(format!(
            "{:<12}{:>6}{:>8}  {:<26}{:<26}{:<26}",
            "stories", "n", "tokens", "misalignment", "forgetting", "both"
        ));
        lines.extend(found.misalignment.iter().map(|row| {
            format!(
                "{:<12}{:>6}{:>8}  {:<26}{:<26}{:<26}",
                row.domain,
                row.n_stories,
                row.n_tokens,
                ranged(&row.misalignment, 4),
                ranged(&row.forgetting, 4),
                ranged(&row.gap, 4)
            )
            .trim_end()
            .to_owned()
        }));
        let n_unheard: usize = found.misalignment.iter().map(|row| row.n_unheard).sum();
        if n_unheard > 0 {
            lines.push(format!("of {n_unheard} stories no vector reached the language model"));
        }
    }
    lines.push(String::new());
    lines.push(
        "perplexity before and after, and its change; divergences in nats a token: KL(before || after) of what is read, \
         KL(read || heard) of the model as it is, KL(before, read || heard); 95 % intervals over documents"
            .to_owned(),
    );
    lines.join("\n")
}
