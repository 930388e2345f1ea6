//! What the report of a run shows, from its folder.
//!
//! ```text
//! metrics.jsonl ─ the losses of every stage ─────────┐
//! recipe, model ─ what is there, what was trained ───┼─ ReportData
//! results.json ─ the numbers ────────────────────────┤
//! utterances ─ pictures, what the model answers ─────┘
//! ```

use std::path::{Path, PathBuf};

use sandhi_data::{
    alignment::Alignment,
    features::{FeatureConfig, Features},
    language::Language,
    manifest,
    microworld::{Sentence, Split, Style, Task},
    speech::{Domain, Request},
};
use sandhi_nn::weights::{self, ParameterInfo};

use super::{
    Answer, Chart, Curve, Example, Highlight, LogMel, ParameterRow, ReportData, Word, html::Unit,
};
use crate::{
    experiment::Error,
    generate::Decoding,
    inspect::{self, Segmented, SegmentsRequest, TransportRequest, Transported},
    log::{Record, read_metrics},
    model::{AnyModel, ConnectorModel, Segmenter, SpeechModel, SpeechTextModel},
    recipe::{PadMass, Recipe, TransportConfig},
    results::{Results, TEXT},
    sources::{self, Sound, Spoken, Workshop},
    tasks,
    train::{is_ever_trained, trainable},
    transcribe,
};

/// A finished run.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Its folder.
    pub dir: &'a Path,
    /// What it was made by.
    pub recipe: &'a Recipe,
    /// What it made.
    pub model: &'a AnyModel,
    /// What was measured; nothing where it was not.
    pub results: &'a Results,
    /// Folders of runs whose losses are drawn beside its own, against operations.
    pub beside: &'a [PathBuf],
}

/// An utterance that a report shows.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The heading.
    pub title: String,
    /// What is said.
    pub text: String,
    /// The same in German, where it is known.
    pub german: Option<String>,
    /// 16 kHz samples, and the words with their times where they are known.
    pub sound: Sound,
}

impl Shown {
    /// A sentence of Microworld in an acoustic domain.
    ///
    /// # Errors
    ///
    /// When it cannot be spoken.
    pub fn spoken(workshop: &Workshop, sentence: &Sentence, domain: Domain) -> Result<Self, Error> {
        let text = sentence.text.clone();
        let request = Request { text, language: Language::English, domain, seed: 7, voice: None };
        let studio = workshop.studio().map_err(sources::Error::from)?;
        let speech = studio.speak(&request).map_err(sources::Error::from)?;
        Ok(Self {
            title: format!("{} ({})", domain.name(), speech.voice),
            text: sentence.text.clone(),
            german: Some(sentence.parallel[Language::German as usize].clone()),
            sound: Sound { wave: speech.waveform, words: speech.words },
        })
    }

    /// A test sentence of Microworld in each acoustic domain.
    ///
    /// # Errors
    ///
    /// When one cannot be spoken.
    pub fn of_microworld(workshop: &Workshop) -> Result<Vec<Self>, Error> {
        let sentences = workshop.world().sentences(Language::English, Split::Test, Style::Seen, 4);
        let domains = [Domain::Base, Domain::Voices, Domain::Tempo, Domain::Channel];
        let spoken = sentences.iter().zip(domains);
        spoken.map(|(sentence, domain)| Self::spoken(workshop, sentence, domain)).collect()
    }

    /// The first utterances of a manifest; those of more than a minute, and those that nobody wrote down, are left out.
    ///
    /// # Errors
    ///
    /// When the manifest or a sound cannot be read.
    pub fn of_manifest(workshop: &Workshop, path: &Path, n: usize) -> Result<Vec<Self>, Error> {
        let utterances =
            manifest::import_split(path, None).map_err(sources::Error::from)?.utterances;
        let mut found = Vec::new();
        for utterance in utterances {
            if found.len() == n {
                break;
            }
            let (title, text) = (utterance.id.clone(), utterance.text.trim().to_owned());
            if text.is_empty() {
                tracing::warn!("{title} is not shown: nobody wrote down what is said");
                continue;
            }
            let spoken = Spoken::Recorded { utterance, speed: 1.0 };
            let Sound { wave, words } = workshop.sounds(&[spoken])?.remove(0);
            let wave = wave.resampled(16_000).map_err(sources::Error::from)?;
            if wave.duration_s() > inspect::MAX_DRAWN_S {
                tracing::warn!("{title} is not shown: it is {:.0} s long", wave.duration_s());
                continue;
            }
            found.push(Self { title, text, german: None, sound: Sound { wave, words } });
        }
        Ok(found)
    }
}

/// Everything that the report of a run shows. Utterances are for connector models; others have none.
///
/// # Errors
///
/// When the log cannot be read, or an utterance cannot be heard.
pub fn of_run(run: &Run<'_>, shown: &[Shown]) -> Result<ReportData, Error> {
    let Run { dir, recipe, model, results, beside } = *run;
    let records = read_metrics(&dir.join("metrics.jsonl"))?;
    let mut explanation = vec![recipe.about.clone()];
    explanation.retain(|about| !about.is_empty());
    if results.iter().any(|(_, _, metric, _)| metric.ends_with(TEXT)) {
        explanation.push(BESIDE_TEXT.to_owned());
    }
    let titles = results.scores.keys();
    let mut charts = charts(&records);
    let mut runs = vec![(name_of(recipe), records)];
    for dir in beside {
        let model = dir.join("model");
        let recipe = inspect::recipe_of(&model)?;
        let name = recipe.as_ref().map_or_else(|| dir.display().to_string(), name_of);
        runs.push((name, read_metrics(&dir.join("metrics.jsonl"))?));
    }
    charts.extend(over_operations(&runs));
    Ok(ReportData {
        title: recipe.name.clone(),
        explanation,
        highlights: highlights(results),
        charts,
        parameters: parameters(model, recipe),
        results: results.clone(),
        task_titles: titles.map(|t| (t.clone(), tasks::task_title(t).to_owned())).collect(),
        examples: match model {
            AnyModel::Connector(model) => examples(model, recipe, shown)?,
            AnyModel::SpeechText(model) => patched(model, shown)?,
            _ => Vec::new(),
        },
    })
}

fn name_of(recipe: &Recipe) -> String {
    format!("{}, seed {}", recipe.name, recipe.seed)
}

/// What columns of a table mean.
pub(crate) const BESIDE_TEXT: &str = "Every number from speech stands beside the number that the same language model \
    reaches when it reads the transcript (the upper bound), and beside the cascade, which reads what the encoder alone \
    would have written. The share recovered is what of the upper bound survives the way through the sound.";

/// What most look at first, as far as it was measured.
fn highlights(results: &Results) -> Vec<Highlight> {
    let mut highlights = Vec::new();
    let mut add = |label: &str, task: &str, domain: &str, metric: &str| {
        let Some(found) = results.get(task, domain, metric) else { return };
        let upper = results.get(task, domain, &format!("{metric}{TEXT}"));
        let value = |x: f64| Unit::of(metric).show(x);
        highlights.push(Highlight {
            label: label.to_owned(),
            value: value(found.value),
            note: upper
                .map_or_else(String::new, |m| format!("{} from the transcript", value(m.value))),
        });
    };
    add("word error rate", "asr", "base", "wer");
    add("… in noise and rooms", "asr", "channel", "wer");
    add("BLEU, English to German", "st_en_de", "base", "bleu");
    let questions = match results.is_trained("sqa") {
        true => "questions answered",
        false => "questions answered, never trained on speech",
    };
    add(questions, "sqa", "base", "exact");
    highlights
}

/// The losses of every stage, in the order of the log.
fn charts(records: &[Record]) -> Vec<Chart> {
    let mut stages: Vec<&str> = records.iter().map(|record| record.stage.as_str()).collect();
    stages.dedup();
    let caption = "The loss, for every step and on held-out items.";
    let keys = [("loss", "training"), ("dev_loss", "held out")];
    let mut charts = Vec::new();
    for stage in stages {
        let title = format!("Loss of stage {stage}");
        charts.extend(Chart::from_records(records, stage, &title, caption, &keys));
        let of_stage = records.iter().filter(|record| record.stage == stage);
        let gap: Vec<(f64, f64, f64)> = of_stage
            .filter_map(|r| {
                Some((r.step as f64, r.number("dev_loss")?, r.number("dev_loss_mismatched")?))
            })
            .collect();
        if !gap.is_empty() {
            charts.push(Chart::listening_gap(&gap));
        }
    }
    charts
}

/// Held-out losses of what is written and of what is spoken against operations, of runs side by side; none of runs that
/// did not count them.
fn over_operations(runs: &[(String, Vec<Record>)]) -> Vec<Chart> {
    let of = |term: &str, what: &str, y_label: &str| {
        let curves: Vec<Curve> = runs
            .iter()
            .map(|(name, records)| Curve { name: name.clone(), points: against(records, term) })
            .filter(|curve| !curve.points.is_empty())
            .collect();
        (!curves.is_empty()).then(|| Chart {
            title: format!("Held-out loss of {what} against operations"),
            caption: "Operations of matrix products, counted from the shapes that ran, three times those forward for a step."
                .to_owned(),
            x_label: "operations (10⁹)".to_owned(),
            y_label: y_label.to_owned(),
            curves,
            fill_between: false,
        })
    };
    [("text_per_word", "text", "nats a word"), ("speech_per_s", "speech", "nats a second")]
        .into_iter()
        .filter_map(|(term, what, y_label)| of(term, what, y_label))
        .collect()
}

/// A held-out term against the operations until then, in thousands of millions.
fn against(records: &[Record], term: &str) -> Vec<(f64, f64)> {
    let mut operations = 0.0;
    let mut points = Vec::new();
    for record in records {
        if let (Some(per_token), Some(n)) =
            (record.number_in("terms", "mop_per_token"), record.number("tokens"))
        {
            // Backward takes twice the products of forward.
            operations += 3.0 * 1e-3 * per_token * n;
        }
        if let Some(loss) = record.number_in("dev_terms", term) {
            points.push((operations, loss));
        }
    }
    points
}

/// The parts of a model; `trainable` knows their parameters behind a prefix.
fn parameters(model: &AnyModel, recipe: &Recipe) -> Vec<ParameterRow> {
    let stages = trainable(recipe);
    let row = |name: &str, prefix: &str, parameters: Vec<ParameterInfo>| {
        let learns = |p: &&ParameterInfo| is_ever_trained(&stages, &format!("{prefix}{}", p.name));
        let trained = parameters.iter().filter(learns).map(|p| p.n_values() as u64).sum();
        let total = parameters.iter().map(|p| p.n_values() as u64).sum();
        ParameterRow { name: name.to_owned(), total, trained }
    };
    let hearing = |speech: &SpeechModel| {
        let encoder = row("speech encoder", "encoder.", weights::parameters(&speech.encoder));
        let head = speech.recognizer.as_ref();
        let head = head.map(|r| row("CTC head", "head.", weights::parameters(&r.head)));
        std::iter::once(encoder).chain(head).collect::<Vec<_>>()
    };
    match model {
        AnyModel::Ctc(speech) => hearing(speech),
        AnyModel::Text(text) => vec![row("language model", "", weights::parameters(&text.lm))],
        AnyModel::Aligner(aligner) => vec![row("aligner", "", weights::parameters(&aligner.net))],
        AnyModel::Vocoder(model) => vec![row("vocoder", "", weights::parameters(&model.net))],
        AnyModel::SpeechText(model) => {
            vec![row("network", "", weights::parameters(&model.net))]
        }
        AnyModel::Connector(model) => {
            let mut rows = hearing(&model.speech);
            // What joins the two does not train the head that the encoder came with, whatever its patterns cover.
            rows.iter_mut().skip(1).for_each(|head| head.trained = 0);
            let lm = weights::parameters(&model.text.lm);
            rows.push(row("connector", "connector.", weights::parameters(&model.connector)));
            rows.push(row("language model", "language_model.", lm));
            rows
        }
    }
}

/// Utterances with sound, pictures and answers. They are transported as in training; without a pad, where neither the
/// model nor its recipe has one.
fn examples(
    model: &ConnectorModel,
    recipe: &Recipe,
    shown: &[Shown],
) -> Result<Vec<Example>, Error> {
    let pad = inspect::pad(model, Some(recipe), None)?;
    let mut config = inspect::transport_settings(Some(recipe));
    if pad.is_none() {
        config.pad = PadMass::None;
    }
    let example = |shown: &Shown| {
        let Shown { title, text, sound: Sound { wave, words }, .. } = shown;
        Ok(Example {
            title: title.clone(),
            transcript: text.clone(),
            audio_wav: wave.to_wav_bytes().map_err(sources::Error::from)?,
            words: heard_words(words),
            log_mel: Some(log_mel(model, shown)?),
            transported: transported(model, shown, &config, pad),
            segmented: Some(segmented(model, shown)?),
            answers: answers(model, shown)?,
        })
    };
    shown.iter().map(example).collect()
}

/// Utterances with sound and patches.
fn patched(model: &SpeechTextModel, shown: &[Shown]) -> Result<Vec<Example>, Error> {
    let example = |Shown { title, text, sound: Sound { wave, words }, .. }: &Shown| {
        let samples = &wave.samples;
        let request = SegmentsRequest { samples, text: Some(text), words: Some(words) };
        Ok(Example {
            title: title.clone(),
            transcript: text.clone(),
            audio_wav: wave.to_wav_bytes().map_err(sources::Error::from)?,
            words: heard_words(words),
            log_mel: Some(inspect::log_mel(samples)?),
            segmented: Some(inspect::patch_segments(model, &request)?),
            ..Example::default()
        })
    };
    shown.iter().map(example).collect()
}

fn heard_words(words: &[Alignment]) -> Vec<Word> {
    let word = |w: &Alignment| Word { label: w.label.clone(), start_s: w.start_s, end_s: w.end_s };
    words.iter().map(word).collect()
}

/// The encoder's features; the log-mel spectrogram of an encoder that hears samples.
fn log_mel(model: &ConnectorModel, shown: &Shown) -> Result<LogMel, Error> {
    let samples = &shown.sound.wave.samples;
    let config = &model.speech.features;
    if let FeatureConfig::Waveform(_) = config {
        return Ok(inspect::log_mel(samples)?);
    }
    let wrong = |error| sources::Error::Features { id: shown.title.clone(), error };
    let Features { n_frames, n_mels, values } = model.speech.extract(samples).map_err(wrong)?;
    Ok(LogMel { n_frames, n_mels, values, frame_s: 1.0 / config.rate_hz() })
}

/// Where the speech of an utterance goes; what cannot be transported is left out.
fn transported(
    model: &ConnectorModel,
    shown: &Shown,
    config: &TransportConfig,
    pad: Option<u32>,
) -> Option<Transported> {
    let Shown { title, text, sound: Sound { wave, words }, .. } = shown;
    let words = (!words.is_empty()).then_some(words.as_slice());
    let request = TransportRequest { samples: &wave.samples, text: Some(text), words, config, pad };
    let found = inspect::transport(model, &request);
    found.inspect_err(|error| tracing::info!("{title}: no transport plan: {error}")).ok()
}

/// Where an utterance is cut.
fn segmented(model: &ConnectorModel, shown: &Shown) -> Result<Segmented, Error> {
    let Shown { text, sound: Sound { wave, words }, .. } = shown;
    let request = SegmentsRequest { samples: &wave.samples, text: Some(text), words: Some(words) };
    Ok(inspect::segments(model, &request)?)
}

/// What is asked, with its name in the results, the instruction and the right answer.
fn questions(shown: &Shown) -> Vec<(&'static str, String, String)> {
    let Shown { text, german, .. } = shown;
    let mut words = text.split_whitespace().map(|word| word.trim_matches(['.', '?', ',']));
    let first = words.next().unwrap_or_default().to_owned();
    let last = words.next_back().map_or_else(|| first.clone(), str::to_owned);
    let ask = |task: Task, name, answer| (name, task.wordings()[0].to_owned(), answer);
    let mut asked = vec![ask(Task::Transcribe, "asr", text.clone())];
    if let Some(german) = german {
        let to = Language::German;
        let (name, wording, answer) = ask(Task::Translate { to }, "st_en_de", german.clone());
        asked.push((name, wording.replace("{L}", to.name()), answer));
    }
    asked.push(ask(Task::FirstWord, "first_word", first));
    asked.push(ask(Task::LastWord, "last_word", last));
    asked.push(ask(Task::UpperCase, "upper_case", text.to_uppercase()));
    asked
}

/// Asks about an utterance, about what was said in it, and about what the recognizer wrote. A model that cuts speech where
/// the transcript's tokens end hears nothing by itself: it is asked nothing.
pub(crate) fn answers(model: &ConnectorModel, shown: &Shown) -> Result<Vec<Answer>, Error> {
    if model.segmenter == Some(Segmenter::Forced) {
        return Ok(Vec::new());
    }
    let samples = shown.sound.wave.samples.as_slice();
    let questions = questions(shown);
    let asked: Vec<&str> = questions.iter().map(|(_, asked, _)| asked.as_str()).collect();
    let decoding = Decoding::default();
    let heard = transcribe::answer(model, &vec![samples; asked.len()], &asked, &decoding)?;
    let read =
        |text: &str| transcribe::read(&model.text, &vec![text; asked.len()], &asked, &decoding);
    let text = read(&shown.text)?;
    let cascade = match &model.speech.recognizer {
        Some(_) => Some(read(&transcribe::ctc(&model.speech, &[samples])?.remove(0))?),
        None => None,
    };
    let answers = questions.iter().enumerate().map(|(i, (task, instruction, reference))| Answer {
        task: (*task).to_owned(),
        instruction: instruction.clone(),
        speech: heard[i].clone(),
        text: Some(text[i].clone()),
        cascade: cascade.as_ref().map(|cascade| cascade[i].clone()),
        reference: reference.clone(),
    });
    Ok(answers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, german: Option<&str>) -> Shown {
        let wave = sandhi_data::audio::Waveform::new(vec![0.0; 16], 16_000);
        Shown {
            title: "u".into(),
            text: text.into(),
            german: german.map(str::to_owned),
            sound: Sound { wave, words: Vec::new() },
        }
    }

    #[test]
    fn answers_follow_from_what_is_said() {
        let of = |shown: Shown| -> Vec<(&str, String)> {
            questions(&shown).into_iter().map(|(name, _, answer)| (name, answer)).collect()
        };
        let expected = [
            ("asr", "Is it, Anna?"),
            ("st_en_de", "Ist es das?"),
            ("first_word", "Is"),
            ("last_word", "Anna"),
            ("upper_case", "IS IT, ANNA?"),
        ];
        let found = of(shown("Is it, Anna?", Some("Ist es das?")));
        assert_eq!(found, expected.map(|(name, answer)| (name, answer.to_owned())));
        // One word is the first and the last; what is not known is not asked.
        let found = of(shown("Yes.", None));
        let expected = [("asr", "Yes."), ("first_word", "Yes"), ("last_word", "Yes")];
        assert_eq!(found[..3], expected.map(|(name, answer)| (name, answer.to_owned())));
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn losses_against_operations_by_hand() {
        let record = |step: u64, values: serde_json::Value| {
            let mut line = serde_json::json!({ "stage": "a", "step": step });
            let line_values = line.as_object_mut().unwrap();
            line_values.extend(values.as_object().unwrap().clone());
            serde_json::from_value::<Record>(line).unwrap()
        };
        let trained = |step, tokens| {
            record(step, serde_json::json!({ "tokens": tokens, "terms": { "mop_per_token": 2.0 } }))
        };
        let dev = |step, loss| {
            record(step, serde_json::json!({ "dev_terms": { "text_per_word": loss } }))
        };
        // Three times 2 M a token: 1000 and 3000 tokens are 6 and 18 thousand millions.
        let records = vec![trained(1, 1000), dev(1, 5.0), trained(2, 2000), dev(2, 4.0)];
        assert_eq!(against(&records, "text_per_word"), [(6.0, 5.0), (18.0, 4.0)]);
        let charts = over_operations(&[("one".into(), records), ("none".into(), Vec::new())]);
        assert_eq!(charts.len(), 1);
        assert_eq!((charts[0].curves.len(), charts[0].curves[0].name.as_str()), (1, "one"));
    }

    #[test]
    fn every_stage_has_its_losses() {
        let record = |stage: &str, step, values: &[(&str, f64)]| Record {
            stage: stage.to_owned(),
            step,
            values: values.iter().map(|(key, v)| ((*key).to_owned(), (*v).into())).collect(),
        };
        let records = [
            record("distil", 1, &[("loss", 3.0)]),
            record("distil", 2, &[("loss", 2.0)]),
            record("finetune", 1, &[("loss", 1.0)]),
            record("finetune", 1, &[("dev_loss", 1.0), ("dev_loss_mismatched", 4.0)]),
        ];
        let found = charts(&records);
        let titles: Vec<&str> = found.iter().map(|chart| chart.title.as_str()).collect();
        assert_eq!(titles, ["Loss of stage distil", "Loss of stage finetune", "Does it listen?"]);
        assert_eq!(found[0].curves[0].points, [(1.0, 3.0), (2.0, 2.0)]);
        assert_eq!(found[2].curves[1].points, [(1.0, 4.0)]);
    }
}
