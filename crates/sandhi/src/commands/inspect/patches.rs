//! `sandhi inspect patches`: how alike the patches of one word are, and those of different words.

use std::path::PathBuf;

use anyhow::ensure;
use sandhi_lab::{
    hf::ModelSource,
    inspect::{PatchesConfig, PatchesRow, add_patches, patches},
    model::AnyModel,
    sources::Workshop,
    train::Monitor,
};

use super::super::eval::nameless;
use crate::{console::Console, output, run_args::RunArgs};

/// Arguments of `sandhi inspect patches`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory of a model over text and units whose network has patches.
    model: ModelSource,
    /// Domains; all when not given.
    #[arg(long, value_delimiter = ',')]
    domains: Vec<String>,
    /// Stories of each domain.
    #[arg(long, default_value_t = 40)]
    n: usize,
    /// Measure on the half that is opened once, instead of the one that tuning uses.
    #[arg(long)]
    test: bool,
    /// Add the numbers to the results.json of this run, for sandhi table.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// Measures and prints.
pub fn run(args: Args) -> anyhow::Result<()> {
    super::check_domains(&args.domains)?;
    ensure!(args.n > 0, "--n is 0, expected at least 1 story");
    let model = AnyModel::open(&args.model, &args.run.device.open()?, &args.run.hub.hub()?)?;
    let kind = model.kind();
    let AnyModel::SpeechText(model) = model else {
        anyhow::bail!(
            "{} is a {kind} model, expected a speech_text: only those have patches",
            args.model
        );
    };
    let config = PatchesConfig { domains: args.domains, n: args.n, half: super::half(args.test) };
    let workshop = Workshop::new(&args.run.cache, &PathBuf::new(), &nameless("inspect"));
    let console = Console::new(args.run.quiet)?;
    let found = patches(&model, &workshop, &config, &args.run.cache, &|what, i, n| {
        console.preparing(what, i, n);
    })?;
    if let Some(dir) = &args.run_dir {
        super::add_to_results(dir, |results| add_patches(&found, results))?;
    }
    if args.json { output::print_json(&found) } else { output::print(&table(&found)) }
}

/// A line a domain.
fn table(found: &[PatchesRow]) -> String {
    let mut lines = vec![format!(
        "{:<10}{:>9}{:>9}{:>9}{:>7}{:>9}{:>9}{:>12}",
        "domain", "stories", "patches", "of words", "words", "within", "between", "silhouette"
    )];
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |x| format!("{x:.3}"));
    for row in found {
        lines.push(format!(
            "{:<10}{:>9}{:>9}{:>9}{:>7}{:>9}{:>9}{:>12}",
            row.domain,
            row.n_utterances,
            row.n_patches,
            row.n_of_words,
            row.n_words,
            number(row.likeness.within),
            number(row.likeness.between),
            number(row.likeness.silhouette)
        ));
    }
    lines.push(String::new());
    lines.push(
        "mean cosines of patch vectors of one word and of different words, in different utterances; silhouette by 1 - cosine"
            .to_owned(),
    );
    if found.iter().any(|row| row.is_told) {
        lines.push("the patches end where words do, which is not known in use (oracle)".to_owned());
    }
    lines.join("\n")
}
