//! The main job in one call: foundation models, adapter, evaluation, report.
//!
//! ```text
//! DIR/foundation/{encoder,language_model}   copied from the program, or trained
//! DIR/slm/                                  the adapter's run
//! DIR/results.json, DIR/report.html         what came out
//! DIR/hello.wav                             what the model was asked about
//! ```

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use sandhi_data::{
    language::Language,
    microworld::{Sentence, Split, Style, Task},
    speech::{Domain, Request, Speech},
};

use crate::{
    checkpoint::write_atomically,
    experiment::{self, Error, Provenance},
    generate::Decoding,
    inspect::{self, Segmented, SegmentsRequest, TransportRequest, Transported},
    log::{Record, read_metrics},
    model::{AnyModel, ConnectorModel},
    pipeline::Place,
    recipe::{EvalConfig, Half, PadMass, Recipe, TransportConfig},
    report::{self, Answer, Chart, Example, Highlight, LogMel, ParameterRow, ReportData, Word},
    results::Results,
    sources::Workshop,
    tasks,
    train::Monitor,
    transcribe,
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

/// Instructions of the demonstration, with their names in the results; the last two were never trained on
/// speech.
const ASKED: [(Task, &str); 5] = [
    (Task::Transcribe, "asr"),
    (Task::Translate { to: Language::German }, "st_en_de"),
    (Task::FirstWord, "first_word"),
    (Task::LastWord, "last_word"),
    (Task::UpperCase, "upper_case"),
];

/// The right answer to an instruction of [`ASKED`].
fn reference(task: Task, sentence: &Sentence) -> String {
    let mut words = sentence.text.split(' ').map(|word| word.trim_matches(['.', '?', ',']));
    match task {
        Task::Translate { to } => sentence.parallel[to as usize].clone(),
        Task::FirstWord => words.next().unwrap_or_default().to_owned(),
        Task::LastWord => words.next_back().unwrap_or_default().to_owned(),
        Task::UpperCase => sentence.text.to_uppercase(),
        _ => sentence.text.clone(),
    }
}

fn spoken(workshop: &Workshop, text: &str, domain: Domain) -> Result<Speech, Error> {
    let request = Request { text: text.to_owned(), language: Language::English, domain, seed: 7 };
    let studio = workshop.studio().map_err(crate::sources::Error::from)?;
    Ok(studio.speak(&request).map_err(crate::sources::Error::from)?)
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
    let speech = spoken(workshop, &sentence.text, Domain::Base)?;
    let wav = dir.join("hello.wav");
    let bytes = speech.waveform.to_wav_bytes().map_err(crate::sources::Error::from)?;
    write_atomically(&wav, &bytes)?;
    let answers = ask_all(model, &speech, &sentence)?
        .into_iter()
        .map(|answer| (answer.instruction, answer.speech))
        .collect();
    Ok(Demonstration { transcript: sentence.text, wav, answers })
}

fn instruction(task: Task) -> String {
    let wording = task.wordings()[0];
    match task {
        Task::Translate { to } => wording.replace("{L}", to.name()),
        _ => wording.to_owned(),
    }
}

/// Asks about an utterance, about what was said in it, and about what the recognizer wrote.
fn ask_all(
    model: &ConnectorModel,
    speech: &Speech,
    sentence: &Sentence,
) -> Result<Vec<Answer>, Error> {
    let samples = speech.waveform.samples.as_slice();
    let instructions: Vec<String> = ASKED.iter().map(|(task, _)| instruction(*task)).collect();
    let asked: Vec<&str> = instructions.iter().map(String::as_str).collect();
    let pieces = vec![samples; asked.len()];
    let decoding = Decoding::default();
    let heard = transcribe::answer(model, &pieces, &asked, &decoding)?;
    let read =
        |text: &str| transcribe::read(&model.text, &vec![text; asked.len()], &asked, &decoding);
    let written = transcribe::ctc(&model.speech, &[samples])?.remove(0);
    let (text, cascade) = (read(&sentence.text)?, read(&written)?);
    let mut answers = Vec::with_capacity(ASKED.len());
    for (i, (task, name)) in ASKED.iter().enumerate() {
        answers.push(Answer {
            task: (*name).to_owned(),
            instruction: instructions[i].clone(),
            speech: heard[i].clone(),
            text: Some(text[i].clone()),
            cascade: Some(cascade[i].clone()),
            reference: reference(*task, sentence),
        });
    }
    Ok(answers)
}

/// Where the speech of an utterance goes; what cannot be transported is left out.
fn transported(
    model: &ConnectorModel,
    speech: &Speech,
    sentence: &Sentence,
    config: &TransportConfig,
    pad: Option<u32>,
) -> Option<Transported> {
    let request = TransportRequest {
        samples: &speech.waveform.samples,
        text: Some(&sentence.text),
        words: Some(&speech.words),
        config,
        pad,
    };
    let found = inspect::transport(model, &request);
    found.inspect_err(|error| tracing::warn!("{}: no transport plan: {error}", sentence.id)).ok()
}

/// Where an utterance is cut.
fn segmented(
    model: &ConnectorModel,
    speech: &Speech,
    sentence: &Sentence,
) -> Result<Segmented, Error> {
    let request = SegmentsRequest {
        samples: &speech.waveform.samples,
        text: Some(&sentence.text),
        words: Some(&speech.words),
    };
    Ok(inspect::segments(model, &request)?)
}

/// Utterances with sound, pictures and answers for the report: one of each acoustic domain. They are transported as in
/// training; without a pad, where neither the model nor its recipe has one.
fn examples(
    model: &ConnectorModel,
    recipe: Option<&Recipe>,
    workshop: &Workshop,
) -> Result<Vec<Example>, Error> {
    let pad = inspect::pad(model, recipe, None)?;
    let mut config = inspect::transport_settings(recipe);
    if pad.is_none() {
        config.pad = PadMass::None;
    }
    let config = &config;
    let sentences = workshop.world().sentences(Language::English, Split::Test, Style::Seen, 4);
    let domains = [Domain::Base, Domain::Voices, Domain::Tempo, Domain::Channel];
    let mut examples = Vec::with_capacity(domains.len());
    for (sentence, domain) in sentences.iter().zip(domains) {
        let speech = spoken(workshop, &sentence.text, domain)?;
        let features = model
            .speech
            .extract(&speech.waveform.samples)
            .map_err(|error| crate::sources::Error::Features { id: sentence.id.clone(), error })?;
        examples.push(Example {
            title: format!("{} ({})", domain.name(), speech.voice),
            transcript: sentence.text.clone(),
            audio_wav: speech.waveform.to_wav_bytes().map_err(crate::sources::Error::from)?,
            words: speech
                .words
                .iter()
                .map(|w| Word { label: w.label.clone(), start_s: w.start_s, end_s: w.end_s })
                .collect(),
            log_mel: Some(LogMel {
                n_frames: features.n_frames,
                n_mels: features.n_mels,
                values: features.values,
                frame_s: 0.01,
            }),
            transported: transported(model, &speech, sentence, config, pad),
            segmented: Some(segmented(model, &speech, sentence)?),
            answers: ask_all(model, &speech, sentence)?,
        });
    }
    Ok(examples)
}

/// The metric of a task that stands for it.
const HEADLINE: [&str; 5] = ["wer", "bleu", "exact", "accuracy", "agrees"];

fn percent(value: f64) -> String {
    if value.is_finite() { format!("{:.1} %", 100.0 * value) } else { "–".into() }
}

fn highlights(results: &Results) -> Vec<Highlight> {
    let mut highlights = Vec::new();
    let mut add = |label: &str, task: &str, domain: &str, metric: &str| {
        let Some(found) = results.get(task, domain, metric) else { return };
        let upper = results.get(task, domain, &format!("{metric}_text"));
        let value = |x: f64| if metric == "bleu" { format!("{x:.1}") } else { percent(x) };
        highlights.push(Highlight {
            label: label.to_owned(),
            value: value(found.value),
            note: upper
                .map(|m| format!("{} from the transcript", value(m.value)))
                .unwrap_or_default(),
        });
    };
    add("word error rate", "asr", "base", "wer");
    add("… in noise and rooms", "asr", "channel", "wer");
    add("BLEU, English to German", "st_en_de", "base", "bleu");
    add("questions answered, never trained on speech", "sqa", "base", "exact");
    highlights
}

fn explanation(results: &Results) -> Vec<String> {
    let mut lines = vec![
        "A speech encoder and a language model were trained apart and frozen. Between them stands one small \
         adapter, the only part that learned here: it turns the encoder's frames into vectors that the \
         language model reads as if they were words. It was trained on transcription, translation and two \
         kinds of instruction, with speech of eight voices."
            .to_owned(),
        "Every number from speech stands beside the number that the same language model reaches when it reads \
         the transcript (the upper bound), and beside the cascade, which reads what the encoder alone would \
         have written. The share recovered is what of the upper bound survives the way through the sound."
            .to_owned(),
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

fn charts(records: &[Record]) -> Vec<Chart> {
    let caption = "The loss of the answers, for every step and on held-out items.";
    let keys = [("loss", "training"), ("dev_loss", "held out")];
    let mut charts: Vec<Chart> =
        Chart::from_records(records, "adapter", "Loss of the adapter", caption, &keys)
            .into_iter()
            .collect();
    let gap: Vec<(f64, f64, f64)> = records
        .iter()
        .filter(|r| r.stage == "adapter")
        .filter_map(|r| {
            Some((r.step as f64, r.number("dev_loss")?, r.number("dev_loss_mismatched")?))
        })
        .collect();
    if !gap.is_empty() {
        charts.push(Chart::listening_gap(&gap));
    }
    charts
}

/// Writes `report.html` of a finished run.
///
/// # Errors
///
/// When an example cannot be spoken or the file cannot be written.
pub fn write_report(
    model: &ConnectorModel,
    results: &Results,
    workshop: &Workshop,
    run: &Path,
    out: &Path,
) -> Result<(), Error> {
    use burn::module::Module;
    let records = read_metrics(&run.join("metrics.jsonl"))?;
    let part = |name: &str, total: usize, trained: usize| ParameterRow {
        name: name.to_owned(),
        total: total as u64,
        trained: trained as u64,
    };
    let connector = model.connector.num_params();
    let encoder = &model.speech.encoder;
    let hearing = model.speech.ctc_net().map_or(encoder.num_params(), |net| net.num_params());
    let data = ReportData {
        title: "Sandhi quickstart: hearing with a text model's understanding".into(),
        explanation: explanation(results),
        highlights: highlights(results),
        charts: charts(&records),
        parameters: vec![
            part("speech encoder and CTC head", hearing, 0),
            part("adapter", connector, connector),
            part("language model", model.text.lm.num_params(), 0),
        ],
        results: results.clone(),
        task_titles: results
            .scores
            .keys()
            .map(|task| (task.clone(), tasks::task_title(task).to_owned()))
            .collect::<IndexMap<_, _>>(),
        examples: examples(model, inspect::recipe_of(&run.join("model"))?.as_ref(), workshop)?,
    };
    report::write_html(out, &data).map_err(|error| Error::Report { message: error.to_string() })
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
    write_report(connector, &results, &workshop, &place.dir, &dir.join("report.html"))?;
    Ok(Some((results, demonstration)))
}
