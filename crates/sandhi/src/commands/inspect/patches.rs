//! `sandhi inspect patches`: how alike the patches of one word are, and those of different words.

use std::path::PathBuf;

use sandhi_lab::{
    hf::ModelSource,
    inspect::{PatchesConfig, PatchesRow, add_patches, patches},
    model::AnyModel,
    train::Monitor,
};

use super::MeasureArgs;

/// Arguments of `sandhi inspect patches`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory of a model over text and units whose network has patches.
    model: ModelSource,
    /// Add the numbers to the results.json of this run, for sandhi table.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    #[command(flatten)]
    of: MeasureArgs,
}

/// Measures and prints.
pub fn run(args: Args) -> anyhow::Result<()> {
    args.of.check()?;
    let model = AnyModel::open(&args.model, &args.of.run.device.open()?, &args.of.run.hub.hub()?)?;
    let kind = model.kind();
    let AnyModel::SpeechText(model) = model else {
        anyhow::bail!(
            "{} is a {kind} model, expected a speech_text: only those have patches",
            args.model
        );
    };
    let config =
        PatchesConfig { domains: args.of.domains.clone(), n: args.of.n, half: args.of.half() };
    let (workshop, console) = args.of.workplace()?;
    let found = patches(&model, &workshop, &config, &args.of.run.cache, &|what, i, n| {
        console.preparing(what, i, n);
    })?;
    if let Some(dir) = &args.run_dir {
        super::add_to_results(dir, |results| add_patches(&found, results))?;
    }
    args.of.show(&found[..], table)
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
