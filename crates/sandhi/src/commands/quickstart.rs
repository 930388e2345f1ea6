//! `sandhi quickstart`: the main job, from nothing to a report.

use std::path::{Path, PathBuf};

use sandhi_lab::{
    checkpoint::Dtype,
    experiment,
    model::AnyModel,
    pipeline::Place,
    quickstart,
    recipe::{self, Overrides, Recipe},
    train::Monitor,
};

use crate::{
    console::Console, foundation, output, output::Interrupted, provenance::provenance,
    run_args::RunArgs,
};

/// Arguments of `sandhi quickstart`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where everything goes.
    #[arg(long, value_name = "DIR", default_value = "runs/quickstart")]
    out: PathBuf,
    /// Train the two foundation models too instead of taking those that the program carries; nearly two
    /// hours.
    #[arg(long)]
    from_scratch: bool,
    /// Begin anew even where the output directory has a run.
    #[arg(long)]
    fresh: bool,
    /// Items a cell of the evaluation.
    #[arg(long, default_value_t = 200)]
    n: usize,
    /// Change a field of the adapter's recipe.
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::recipe_args::pair)]
    set: Vec<(String, String)>,
    #[command(flatten)]
    run: RunArgs,
}

/// The recipes that the program carries.
const ENCODER: &str = include_str!("../../../../recipes/foundation/encoder.toml");
const LANGUAGE_MODEL: &str = include_str!("../../../../recipes/foundation/language_model.toml");
const SLM: &str = include_str!("../../../../recipes/slm.toml");

/// Makes, trains, evaluates, asks and reports. Continues where an earlier call was stopped.
pub fn run(args: Args) -> anyhow::Result<()> {
    if args.fresh && args.out.join("slm").exists() {
        std::fs::remove_dir_all(args.out.join("slm"))?;
    }
    // Said first, because everything else would be in vain without it.
    sandhi_data::espeak::Espeak::open()?;
    let device = args.run.device.open()?;
    let hub = args.run.hub.hub()?;
    let mut console = Console::new(args.run.quiet)?;
    let place = |name: &str| {
        let dir = args.out.join(name);
        Place {
            resume: dir.join("recipe.json").exists(),
            dir,
            base: PathBuf::new(),
            cache: args.run.cache.clone(),
            device: device.clone(),
            hub: hub.clone(),
            shared: None,
        }
    };
    let models = args.out.join("foundation");
    for (name, text) in [("encoder", ENCODER), ("language_model", LANGUAGE_MODEL)] {
        let dir = models.join(name);
        if dir.join("model.json").exists() {
            continue;
        }
        if args.from_scratch {
            console.note(&format!("pre-training the {}", name.replace('_', " ")));
            // The adapter's evaluation says all that theirs would.
            let recipe = Recipe { eval: None, ..read(text, name, &[], &[])? };
            let place = place(&format!("pretrain_{name}"));
            match experiment::run(&recipe, &place, &provenance(), &mut console)? {
                None => return interrupted(),
                Some((model, _)) => save(&model, &dir)?,
            }
        } else {
            foundation::write(name, &dir)?;
        }
    }
    let mut set = args.set.clone();
    set.push(("eval.n".to_owned(), args.n.to_string()));
    let paths = [("foundation".to_owned(), models.display().to_string())];
    let recipe = read(SLM, "slm", &set, &paths)?;
    let result = quickstart::run(&recipe, &place("slm"), &provenance(), &mut console)?;
    let Some((results, demonstration)) = result else { return interrupted() };

    output::print(&format!(
        "\nheard   {}   ({})",
        demonstration.transcript,
        demonstration.wav.display()
    ))?;
    for (instruction, answer) in &demonstration.answers {
        output::print(&format!("asked   {instruction:<28} answered   {answer}"))?;
    }
    output::print(&format!("\n{:<64} {:>9} {:>9} {:>9}", "base", "speech", "text", "cascade"))?;
    for (task, speech, text, cascade) in quickstart::summary(&results) {
        output::print(&format!("{task:<64} {speech:>9} {text:>9} {cascade:>9}"))?;
    }
    output::print(&format!(
        "\nmodel    {}\nresults  {}\nreport   {}",
        args.out.join("slm/model").display(),
        args.out.join("results.json").display(),
        args.out.join("report.html").display()
    ))
}

fn read(
    text: &str,
    name: &str,
    set: &[(String, String)],
    paths: &[(String, String)],
) -> Result<Recipe, recipe::Error> {
    let overrides = Overrides { set: set.to_vec(), paths: paths.to_vec() };
    recipe::read_str(text, Path::new(&format!("{name}.toml")), &overrides)
}

fn save(model: &AnyModel, dir: &Path) -> anyhow::Result<()> {
    Ok(model.save(dir, Dtype::F16)?)
}

fn interrupted() -> anyhow::Result<()> {
    eprintln!("saved; the same command continues");
    Err(Interrupted.into())
}
