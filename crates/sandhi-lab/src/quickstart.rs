//! The main job in one call: foundation models, adapter, evaluation, report.
//!
//! ```text
//! DIR/foundation/{encoder,language_model}   copied from the program, or trained
//! DIR/slm/                                  the adapter's run
//! DIR/results.json, DIR/report.html         what came out
//! DIR/hello.wav                             what the model was asked about
//! ```

use std::path::{Path, PathBuf};

use sandhi_data::{
    language::Language,
    microworld::{Split, Style},
    speech::Domain,
};

use crate::{
    checkpoint::write_atomically,
    experiment::{self, Error, Provenance},
    model::{AnyModel, ConnectorModel},
    pipeline::Place,
    recipe::{EvalConfig, Half, Recipe},
    report::{self, ReportData, Shown},
    results::Results,
    sources::Workshop,
    tasks,
    train::Monitor,
};

/// An utterance that is put in front of the user.
#[derive(Debug, Clone)]
pub struct Demonstration {
    /// What was said.
    pub transcript: String,
    /// The sound file.
    pub wav: PathBuf,
    /// Instruction and answer.
    pub answers: Vec<(String, String)>,
}

/// Speaks a test sentence, writes it to a file and asks about it.
///
/// # Errors
///
/// When it cannot be spoken or written.
pub fn demonstrate(
    model: &ConnectorModel,
    workshop: &Workshop,
    dir: &Path,
) -> Result<Demonstration, Error> {
    let sentence =
        workshop.world().sentences(Language::English, Split::Test, Style::Seen, 5).remove(4);
    let shown = Shown::spoken(workshop, &sentence, Domain::Base)?;
    let wav = dir.join("hello.wav");
    let bytes = shown.sound.wave.to_wav_bytes().map_err(crate::sources::Error::from)?;
    write_atomically(&wav, &bytes)?;
    let answers = report::answers(model, &shown)?
        .into_iter()
        .map(|answer| (answer.instruction, answer.speech))
        .collect();
    Ok(Demonstration { transcript: sentence.text, wav, answers })
}

/// The metric of a task that stands for it.
const HEADLINE: [&str; 5] = ["wer", "bleu", "exact", "accuracy", "agrees"];

fn percent(value: f64) -> String {
    if value.is_finite() { format!("{:.1} %", 100.0 * value) } else { "–".into() }
}

fn explanation(results: &Results) -> Vec<String> {
    let mut lines = vec![
        "A speech encoder and a language model were trained apart and frozen. Between them stands one small \
         adapter, the only part that learned here: it turns the encoder's frames into vectors that the \
         language model reads as if they were words. It was trained on transcription, translation and two \
         kinds of instruction, with speech of eight voices."
            .to_owned(),
        report::BESIDE_TEXT.to_owned(),
    ];
    let zero: Vec<(f64, f64)> = ["last_word", "name_place", "upper_case", "sqa", "dialogue"]
        .iter()
        .filter_map(|task| {
            let speech = results.get(task, "base", "exact")?.value;
            Some((speech, results.get(task, "base", "exact_text")?.value))
        })
        .filter(|(_, text)| *text > 0.0)
        .collect();
    if !zero.is_empty() {
        let share = zero.iter().map(|(s, t)| s / t).sum::<f64>() / zero.len() as f64;
        let meaning = if share >= 0.6 {
            "Why it works shows there: it did not learn the tasks, it learned to say what was said in the \
             language model's own terms, and the frozen model does the rest."
        } else {
            "So it serves the tasks that it was trained on more than it says what was said: the language \
             model cannot yet read its vectors as it reads words."
        };
        lines.push(format!(
            "In the tasks that were never trained on speech the adapter reaches {} of what the language \
             model does from text. {meaning}",
            percent(share)
        ));
    }
    lines
}

/// What quickstart prints: the headline metric of every task on `base`.
pub fn summary(results: &Results) -> Vec<(String, String, String, String)> {
    tasks::TASKS
        .iter()
        .filter_map(|(task, title)| {
            let metric = HEADLINE.iter().find(|m| results.get(task, "base", m).is_some())?;
            let show = |suffix: &str| {
                results.get(task, "base", &format!("{metric}{suffix}")).map_or("–".into(), |m| {
                    if *metric == "bleu" { format!("{:.1}", m.value) } else { percent(m.value) }
                })
            };
            Some((format!("{title} ({metric})"), show(""), show("_text"), show("_cascade")))
        })
        .collect()
}

/// Trains the adapter of `recipe` in `place`, evaluates it, demonstrates it and writes the report.
/// `None` when interrupted.
///
/// # Errors
///
/// See [`Error`].
pub fn run(
    recipe: &Recipe,
    place: &Place,
    provenance: &Provenance,
    monitor: &mut dyn Monitor,
) -> Result<Option<(Results, Demonstration)>, Error> {
    let dir = place.dir.parent().unwrap_or(&place.dir).to_owned();
    let train_only = Recipe { eval: None, ..recipe.clone() };
    let Some((model, _)) = experiment::run(&train_only, place, provenance, monitor)? else {
        return Ok(None);
    };
    let AnyModel::Connector(connector) = &model else {
        unreachable!("the quickstart's recipe has a connector");
    };
    let workshop = Workshop::new(&place.cache, &place.base, recipe);
    let demonstration = demonstrate(connector, &workshop, &dir)?;
    let config = recipe
        .eval
        .clone()
        .unwrap_or_else(|| EvalConfig { pictures: 1, ..EvalConfig::new(200, Half::Test) });
    let results = experiment::evaluate(recipe, &config, &model, place, provenance, monitor)?;
    results.write(&dir.join("results.json"))?;
    let run =
        report::Run { dir: &place.dir, recipe, model: &model, results: &results, beside: &[] };
    let data = ReportData {
        title: "Sandhi quickstart: hearing with a text model's understanding".into(),
        explanation: explanation(&results),
        ..report::of_run(&run, &Shown::of_microworld(&workshop)?)?
    };
    report::write_html(&dir.join("report.html"), &data)?;
    Ok(Some((results, demonstration)))
}
