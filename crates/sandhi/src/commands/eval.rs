//! `sandhi eval`: measures a model.

use std::path::PathBuf;

use sandhi_data::choice;
use sandhi_lab::{
    experiment,
    hf::ModelSource,
    inspect::recipe_of,
    model::AnyModel,
    pipeline::Place,
    protocol::Sides,
    recipe::{
        ChoicesConfig, EvalConfig, Half, ModelConfig, Recipe, TextModelConfig, TokenizerConfig,
    },
    results::Metric,
};

use crate::{console::Console, output, provenance::provenance, run_args::RunArgs};

/// Arguments of `sandhi eval`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model directory, a directory in Hugging Face's layout, or hf:owner/name@revision.
    model: ModelSource,
    /// Where results.json and predictions/ go.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Tasks; all when not given.
    #[arg(long, value_delimiter = ',')]
    tasks: Vec<String>,
    /// Domains; all when not given, of `--choices` base.
    #[arg(long, value_delimiter = ',')]
    domains: Vec<String>,
    /// Items a cell; of `--choices` all are measured.
    #[arg(long, default_value_t = 200)]
    n: usize,
    /// Measure on the half that tuning uses.
    #[arg(long)]
    dev: bool,
    /// Transcribe a manifest instead of Microworld.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Only utterances of this split of the manifest.
    #[arg(long, requires = "manifest")]
    split: Option<String>,
    /// Utterances of each language, or of the manifest, that are drawn in pictures/, for a connector; none of `--choices`.
    #[arg(long, default_value_t = 1)]
    pictures: usize,
    /// Measure how likely the utterances of a file of units are to a speech_text model, written, spoken and interleaved,
    /// instead of Microworld; may be repeated.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["manifest", "choices", "tasks", "dev", "n"])]
    units: Vec<PathBuf>,
    /// Choose the endings of a file or folder of choice items instead of Microworld: HellaSwag, StoryCloze, MMLU, spoken
    /// StoryCloze or our JSONL; may be repeated.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["manifest", "tasks", "dev", "n"])]
    choices: Vec<String>,
    /// Format of `--choices`; told from the content when not given: sandhi, hella-swag, story-cloze, mmlu,
    /// spoken-story-cloze or spoken-pairs.
    #[arg(long, value_name = "FORMAT", requires = "choices")]
    format: Option<choice::Format>,
    /// Solved items, in writing, before each of `--choices`.
    #[arg(long, default_value_t = 0, requires = "choices")]
    shots: usize,
    /// Ask for the endings of `--choices` in a chat with this instruction; they continue a document when not given.
    #[arg(long, value_name = "TEXT", requires = "choices")]
    instruction: Option<String>,
    /// Sides of choices, what is heard or read first: s2t, t2t, s2s, t2s. What the model cannot do is said to be n/a;
    /// all that it can when not given.
    #[arg(long, value_delimiter = ',')]
    sides: Vec<Sides>,
    /// A ctc model that reads what a vocoder says, beside the true sound; not the encoder that made its units.
    #[arg(long, value_name = "DIR")]
    recognizer: Option<PathBuf>,
    /// A vocoder that makes sound of what a speech_text model says, for the recognizer to read.
    #[arg(long, value_name = "DIR", requires = "recognizer")]
    vocoder: Option<PathBuf>,
    /// Name of the row.
    #[arg(long, default_value = "model")]
    name: String,
    /// Print results.json.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// Measures the model and writes the numbers.
pub fn run(args: Args) -> anyhow::Result<()> {
    for task in &args.tasks {
        anyhow::ensure!(
            sandhi_lab::tasks::is_task(task),
            "unknown task {task:?}, expected one of {}",
            sandhi_lab::tasks::TASKS.map(|(name, _)| name).join(", ")
        );
    }
    check_domains(&args.domains)?;
    let device = args.run.device.open()?;
    let hub = args.run.hub.hub()?;
    let model = AnyModel::open(&args.model, &device, &hub)?;
    let manifest = args.manifest.as_deref().map(std::path::absolute).transpose()?;
    let choices = (!args.choices.is_empty()).then_some(ChoicesConfig {
        paths: args
            .choices
            .iter()
            .map(|path| Ok(std::path::absolute(path)?.display().to_string()))
            .collect::<std::io::Result<_>>()?,
        format: args.format,
        shots: args.shots,
        instruction: args.instruction,
    });
    anyhow::ensure!(
        args.units.is_empty() || matches!(model, AnyModel::SpeechText(_)),
        "--units: a {} model knows no units",
        model.kind()
    );
    let absolute = |path: &PathBuf| Ok(std::path::absolute(path)?.display().to_string());
    let unit_files = args.units.iter().map(absolute).collect::<std::io::Result<_>>()?;
    let recognizer = args.recognizer.as_deref().map(std::path::absolute).transpose()?;
    let vocoder = args.vocoder.as_deref().map(std::path::absolute).transpose()?;
    anyhow::ensure!(
        vocoder.is_none() || matches!(model, AnyModel::SpeechText(_)),
        "--vocoder: a {} model says nothing in units",
        model.kind()
    );
    let config = EvalConfig {
        unit_files,
        tasks: args.tasks,
        domains: args.domains,
        pictures: args.pictures,
        manifest: manifest.map(|path| path.display().to_string()),
        manifest_split: args.split,
        sides: args.sides,
        choices,
        recognizer: recognizer.map(|path| path.display().to_string()),
        vocoder: vocoder.map(|path| path.display().to_string()),
        ..EvalConfig::new(args.n, if args.dev { Half::Dev } else { Half::Test })
    };
    let mut recipe = nameless(&args.name);
    // What such a model was trained to do is said in its recipe alone.
    if let (AnyModel::SpeechText(_), ModelSource::Directory(dir)) = (&model, &args.model) {
        recipe.stages = recipe_of(dir)?.map_or_else(Vec::new, |recipe| recipe.stages);
    }
    let place = Place {
        dir: args.out.clone(),
        resume: false,
        base: PathBuf::new(),
        cache: args.run.cache,
        device,
        hub,
        shared: None,
    };
    let mut console = Console::new(args.run.quiet)?;
    let results =
        experiment::evaluate(&recipe, &config, &model, &place, &provenance(), &mut console)?;
    if args.json {
        return output::print_json(&results);
    }
    for (task, domain, metric, number) in results.iter() {
        let Metric { value, lo, hi, n, protocol, unsupported } = number;
        let place = format!("{task:<16} {domain:<9} {metric:<24}");
        output::print(&match (unsupported, protocol) {
            (Some(why), _) => format!("{place}      n/a  {why}"),
            (None, None) => format!("{place} {value:>8.4}  [{lo:.4}, {hi:.4}]  n {n}"),
            (None, Some(how)) => format!("{place} {value:>8.4}  [{lo:.4}, {hi:.4}]  n {n}  {how}"),
        })?;
    }
    Ok(())
}

/// Refuses a domain that there is not.
pub(super) fn check_domains(domains: &[String]) -> anyhow::Result<()> {
    for domain in domains {
        anyhow::ensure!(
            sandhi_lab::tasks::is_domain(domain),
            "unknown domain {domain:?}, expected one of {}",
            sandhi_lab::tasks::DOMAINS.join(", ")
        );
    }
    Ok(())
}

/// A recipe that only carries the name of a row; the model is what was loaded.
pub(super) fn nameless(name: &str) -> Recipe {
    Recipe {
        name: name.to_owned(),
        about: String::new(),
        seed: 0,
        oracle: false,
        paths: Default::default(),
        model: ModelConfig::Text(TextModelConfig {
            tokenizer: TokenizerConfig { vocab_size: 0, n_documents: 0 },
            language_model: serde_json::from_value(serde_json::json!({
                "d_model": 2, "n_layers": 1, "n_heads": 1, "d_ff": 1
            }))
            .expect("a constant"),
            lora: None,
        }),
        stages: Vec::new(),
        eval: None,
    }
}
