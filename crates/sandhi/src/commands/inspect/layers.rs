//! `sandhi inspect layers`: how alike speech and text are at every depth of the language model.

use std::path::PathBuf;

use sandhi_data::score::Bootstrap;
use sandhi_lab::{
    hf::ModelSource,
    inspect::{LayersRow, SpeechConfig, add_layers, layers},
    tasks,
    train::Monitor,
};

use super::MeasureArgs;

/// Arguments of `sandhi inspect layers`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A connector model's directory.
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
    let (model, _) =
        super::open(&args.model, &args.of.run.device.open()?, &args.of.run.hub.hub()?)?;
    let config = SpeechConfig {
        domains: args.of.domains.clone(),
        n: args.of.n,
        half: args.of.half(),
        bootstrap: Bootstrap::default(),
    };
    let (workshop, console) = args.of.workplace()?;
    let cache = tasks::frame_cache(&model, &args.of.run.cache);
    let found = layers(&model, &workshop, &config, &cache, &|what, i, n| {
        console.preparing(what, i, n);
    })?;
    if let Some(dir) = &args.run_dir {
        super::add_to_results(dir, |results| add_layers(&found, results))?;
    }
    args.of.show(&found[..], table)
}

/// A block of lines a domain.
fn table(found: &[LayersRow]) -> String {
    let mut lines = Vec::new();
    for row in found {
        lines.push(format!(
            "{}: {} utterances, {} of {} tokens have speech; {} of {} vectors lie in no token",
            row.domain,
            row.n_utterances,
            row.n_pairs,
            row.n_tokens,
            row.n_unpaired_vectors,
            row.n_vectors
        ));
        if row.n_one_by_one > 0 {
            lines.push(format!("  {} utterances have a vector a token", row.n_one_by_one));
        }
        if row.n_left_out > 0 {
            let n = row.n_left_out;
            lines.push(format!("  {n} utterances are left out: no times fit their text"));
        }
        lines.push(format!(
            "  {:<6}{:>8}{:>9}{:>9}{:>10}",
            "depth", "CKA", "cosine", "token", "position"
        ));
        lines.extend(row.depths.iter().map(|depth| {
            format!(
                "  {:<6}{:>8}{:>9.3}{:>9.1}{:>10.1}",
                depth.depth,
                depth.cka.map_or_else(|| "-".to_owned(), |cka| format!("{cka:.3}")),
                depth.cosine.value,
                100.0 * depth.token.value,
                100.0 * depth.position.value
            )
        }));
        lines.push(String::new());
    }
    lines.push(
        "speech against the same words in writing at every depth of the language model; CKA: linear, unbiased; token, \
         position: % whose nearest state in writing, among all tokens of the domain, is their token, or their own place"
            .to_owned(),
    );
    lines.join("\n")
}
