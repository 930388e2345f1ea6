//! Evaluation: every task in every domain, from speech, from the transcript and through the cascade.
//!
//! ```text
//! item ─┬─ speech ─ encoder ─ connector ─┐
//!       ├─ transcript ───────────────────┼─ the same language model ─ answer ─ score
//!       └─ speech ─ encoder ─ CTC text ──┘
//! ```
//!
//! The transcript's score is the upper bound, the share that speech recovers of it stands beside it. An
//! encoder without a CTC head has no cascade, and nothing to shorten long lists of names with.

mod answer;
mod cells;
mod choice;
mod files;
mod follows;
mod held_out;
mod pictures;
mod says;
mod score;
mod speech_text;
mod vocoder;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use indexmap::IndexMap;
use rayon::prelude::*;
use sandhi_data::{
    language::Language,
    microworld::{Item, Microworld, Split, biasing},
    speech::Domain,
    text::Unknown,
};

pub(crate) use self::vocoder::result_name;
use self::{
    answer::{AT_ONCE, Reader, Way, answers},
    cells::{Cell, Kind, cells, leave_out_units, shortlist},
    choice::Likelihood,
    files::Abilities,
};
pub use self::{
    cells::{DOMAINS, TASKS, is_domain, is_task, task_title},
    files::{check_choices, evaluate_files},
    held_out::evaluate_unit_files,
    pictures::{Pictured, find, write as write_pictures},
    score::scorers,
    speech_text::evaluate_speech_text,
    vocoder::{Voice, evaluate_vocoder, recognizer, voice},
};
pub(crate) use self::{
    cells::{stories, transcriptions},
    held_out::same_name,
};
use crate::{
    frames::FrameCache,
    model::{ConnectorModel, HostRagged, Recognizer, SpeechModel, TextModel},
    protocol::{Protocol, Score, Sides},
    recipe::EvalConfig,
    results::{CASCADE, Prediction, Results, TEXT},
    sources::{Error, Spoken, Workshop},
    train::dataset::Utterance,
    transcribe,
};

/// What is found for one item.
#[derive(Debug, Clone, Default)]
struct Outcome {
    /// The free answer.
    text: String,
    /// How likely each of the options is, where there are any.
    endings: Vec<Likelihood>,
}

/// Answers of one way of reading the items of a cell.
type Outcomes = Vec<Outcome>;

/// Refuses a task that is asked for by name and needs a CTC head, of an encoder without one.
///
/// # Errors
///
/// [`Error::NoRecognizer`].
pub fn check_named(speech: &SpeechModel, config: &EvalConfig) -> Result<(), Error> {
    let needy = config.tasks.iter().find(|task| shortlist(task).is_some());
    match needy {
        Some(task) if speech.recognizer.is_none() && config.manifest.is_none() => {
            Err(Error::NoRecognizer { asked: format!("task {task}") })
        }
        _ => Ok(()),
    }
}

/// Runs every cell and adds its scores to `results`; gives the predictions of every cell. What an encoder without
/// a CTC head cannot do is left out, unless it is asked for by name.
///
/// # Errors
///
/// When speech cannot be made or frames cannot be cached; as [`check_named`].
pub fn evaluate(
    model: &ConnectorModel,
    workshop: &Workshop,
    config: &EvalConfig,
    cache: &FrameCache,
    results: &mut Results,
    progress: &dyn Fn(&str, usize, usize),
) -> Result<Vec<Vec<Prediction>>, Error> {
    let mut all = cells(workshop.world(), config.half.split(), config);
    leave_out_units(&mut all, config);
    all.retain(|cell| !cell.items.is_empty());
    let recognizer = model.speech.recognizer.as_ref();
    if recognizer.is_none() {
        check_named(&model.speech, config)?;
        for cell in all.extract_if(.., |cell| cell.shortlist.is_some()) {
            let Cell { task, domain, .. } = cell;
            tracing::warn!("{task}.{domain} is left out: the encoder has no CTC head");
        }
    }
    for cell in &mut all {
        cell.right_s = right_seconds(workshop, cell)?;
        cell.trained &= cell.items.iter().all(|item| workshop.may_have_taught(item.task));
    }
    // What several cells hear is spoken and encoded once.
    for domain in DOMAINS {
        let mut spoken: BTreeMap<(Language, &str), Spoken> = BTreeMap::new();
        for cell in all.iter().filter(|cell| cell.domain == domain) {
            for item in &cell.items {
                let said = (item.spoken_language, item.spoken.as_str());
                spoken.entry(said).or_insert_with(|| cell.spoken(item));
            }
        }
        let spoken: Vec<Spoken> = spoken.into_values().collect();
        let heard = workshop.frames(&spoken, &model.speech, cache, &|done, total| {
            progress(&format!("hearing {domain}"), done, total);
        })?;
        if !spoken.is_empty() {
            score::add_length(results, domain, lengths(model, &spoken, &heard)?);
        }
    }
    let panels = panels(&all);
    let mut predictions = Vec::with_capacity(all.len());
    for (i, cells) in panels.iter().enumerate() {
        progress(&cells[0].task, i, panels.len());
        let heard: Vec<Heard> = cells
            .iter()
            .map(|cell| Heard::new(&model.speech, workshop, cell, cache))
            .collect::<Result<_, _>>()?;
        let shortlisted = match cells[0].shortlist {
            Some(n) => {
                let recognizer = recognizer.expect("cells with a shortlist need one");
                Some(heard[0].shortlisted(&model.speech, recognizer, cells[0], n)?)
            }
            None => None,
        };
        let asked = shortlisted.as_ref().unwrap_or(cells[0]);
        let mut ways = vec![Way::Read(asked.transcripts())];
        for Heard { utterances, transcripts } in heard {
            ways.push(Way::Heard(utterances));
            ways.extend(transcripts.map(Way::Read));
        }
        let mut answered =
            answers(&Reader::Connector(Box::new(model.clone())), &asked.job(), &ways)?.into_iter();
        let text = answered.next().expect("an answer a way");
        for cell in cells {
            let cell = shortlisted.as_ref().unwrap_or(cell);
            let speech = answered.next().expect("an answer a way");
            let cascade = recognizer.map(|_| answered.next().expect("an answer a way"));
            score::add(results, cell, &speech, &text, cascade.as_deref());
            let mut ways = vec![("", &speech), (TEXT, &text)];
            ways.extend(cascade.as_ref().map(|cascade| (CASCADE, cascade)));
            predictions.push(score::predictions(cell, &ways));
            if cell.trained && !results.meta.trained_tasks.contains(&cell.task) {
                results.meta.trained_tasks.push(cell.task.clone());
            }
        }
    }
    follows::add_rates(results, &predictions, &trained_of(&all));
    Abilities::HearsAndReads.add_lacking(results, &all, &config.sides);
    results.meta.scorer.extend(scorers());
    progress("done", all.len(), all.len());
    Ok(predictions)
}

/// The tasks that speech may have been trained on.
fn trained_of(cells: &[Cell]) -> BTreeSet<String> {
    cells.iter().filter(|cell| cell.trained).map(|cell| cell.task.clone()).collect()
}

/// Utterances of a domain whose vectors are counted.
const COUNTED: usize = 64;

/// Vectors that the language model is given of utterances, and their seconds.
fn lengths(
    model: &ConnectorModel,
    spoken: &[Spoken],
    heard: &[Utterance],
) -> Result<Vec<(usize, f64)>, Error> {
    let every = spoken.len().div_ceil(COUNTED);
    let (said, heard): (Vec<&str>, Vec<&Utterance>) =
        spoken.iter().zip(heard).step_by(every).map(|(s, u)| (s.text(), u)).unzip();
    let vectors = model.vectors(&gather(&model.speech, heard.iter().copied()), Some(&said))?;
    Ok(vectors.offsets.lengths().into_iter().zip(heard.iter().map(|u| u.duration_s)).collect())
}

/// The transcription cells for a speech foundation model: the same utterances, read off its CTC head.
///
/// # Errors
///
/// When speech cannot be made or frames cannot be cached.
pub fn evaluate_ctc(
    model: &SpeechModel,
    workshop: &Workshop,
    config: &EvalConfig,
    cache: &FrameCache,
    results: &mut Results,
    progress: &dyn Fn(&str, usize, usize),
) -> Result<Vec<Vec<Prediction>>, Error> {
    if model.recognizer.is_none() {
        return Err(transcribe::no_recognizer());
    }
    let mut all = cells(workshop.world(), config.half.split(), config);
    leave_out_units(&mut all, config);
    Abilities::Hears.add_lacking(results, &all, &config.sides);
    all.retain(|cell| ["asr", "asr_de", "asr_es", "biasing_0"].contains(&cell.task.as_str()));
    let mut predictions = Vec::with_capacity(all.len());
    for (i, cell) in all.iter().enumerate() {
        progress(&format!("{} {}", cell.task, cell.domain), i, all.len());
        let heard = Heard::new(model, workshop, cell, cache)?;
        let outcomes: Outcomes = heard
            .transcripts
            .into_iter()
            .flatten()
            .map(|text| Outcome { text, endings: Vec::new() })
            .collect();
        score::add_one(results, cell, "", &outcomes);
        predictions.push(score::predictions(cell, &[("", &outcomes)]));
    }
    results.meta.scorer.extend(scorers());
    progress("done", all.len(), all.len());
    Ok(predictions)
}

/// The tasks for a text foundation model, which reads what the others hear.
///
/// # Errors
///
/// When text cannot be tokenized.
pub fn evaluate_text(
    model: &TextModel,
    workshop: &Workshop,
    config: &EvalConfig,
    results: &mut Results,
    progress: &dyn Fn(&str, usize, usize),
) -> Result<Vec<Vec<Prediction>>, Error> {
    let mut all = cells(workshop.world(), config.half.split(), config);
    leave_out_units(&mut all, config);
    // Text does not sound; the acoustic domains are one, and nothing shortens a long list.
    all.retain(|cell| ["base", "texts"].contains(&cell.domain.as_str()));
    all.retain(|cell| cell.shortlist.is_none());
    let mut predictions = Vec::with_capacity(all.len());
    for (i, cell) in all.iter().enumerate() {
        progress(&format!("{} {}", cell.task, cell.domain), i, all.len());
        let ways = [Way::Read(cell.transcripts())];
        let outcomes =
            answers(&Reader::Text(Box::new(model.clone())), &cell.job(), &ways)?.remove(0);
        score::add_one(results, cell, TEXT, &outcomes);
        predictions.push(score::predictions(cell, &[(TEXT, &outcomes)]));
    }
    follows::add_rates(results, &predictions, &trained_of(&all));
    Abilities::Reads.add_lacking(results, &all, &config.sides);
    results.meta.scorer.extend(scorers());
    progress("done", all.len(), all.len());
    Ok(predictions)
}

/// What the choices of a language model are worth that reads the almanac, a question each, and how they are made: those of
/// `facts`, in writing alone.
///
/// # Errors
///
/// When text cannot be tokenized.
pub(crate) fn read_almanac(
    model: &TextModel,
    world: &Microworld,
    split: Split,
    n: usize,
) -> Result<(Vec<f64>, Protocol), Error> {
    let cell = cells::almanac(world, split, n);
    let (prompt, shots) = cell.kind.choice().expect("the almanac is chosen from");
    let protocol = Protocol { sides: Sides::T2T, prompt, shots, score: Score::Sum };
    let ways = [Way::Read(cell.transcripts())];
    let outcomes = answers(&Reader::Text(Box::new(model.clone())), &cell.job(), &ways)?.remove(0);
    let credit = |(item, outcome): (&Item, &Outcome)| {
        choice::credit(&outcome.endings, cell.right(item), protocol.score)
    };
    Ok((cell.items.iter().zip(&outcomes).map(credit).collect(), protocol))
}

/// How long the right endings of stories take in the base voices: the same yardstick for every model that
/// hears, whatever its tokens or frames.
fn right_seconds(workshop: &Workshop, cell: &Cell) -> Result<HashMap<String, f64>, Error> {
    if cell.kind != Kind::Story {
        return Ok(HashMap::new());
    }
    let texts: Vec<String> =
        cell.items.iter().map(|item| cell.options(item)[cell.right(item)].clone()).collect();
    let spoken: Vec<Spoken> = texts
        .iter()
        .map(|text| Spoken::Made {
            text: text.clone(),
            language: Language::English,
            domain: Domain::Base,
            take: 0,
            voice: None,
            speed: 1.0,
        })
        .collect();
    let sounds = workshop.sounds(&spoken)?;
    Ok(texts.into_iter().zip(sounds.iter().map(|sound| sound.wave.duration_s())).collect())
}

/// The speech of a cell, and what the CTC head makes of it where there is one.
struct Heard {
    utterances: Vec<Utterance>,
    transcripts: Option<Vec<String>>,
}

impl Heard {
    fn new(
        speech: &SpeechModel,
        workshop: &Workshop,
        cell: &Cell,
        cache: &FrameCache,
    ) -> Result<Self, Error> {
        let spoken: Vec<Spoken> = cell.items.iter().map(|item| cell.spoken(item)).collect();
        Self::of(speech, workshop, &spoken, cache)
    }

    fn of(
        speech: &SpeechModel,
        workshop: &Workshop,
        spoken: &[Spoken],
        cache: &FrameCache,
    ) -> Result<Self, Error> {
        let utterances = workshop.frames(spoken, speech, cache, &|_, _| {})?;
        let transcripts = speech.recognizer.as_ref().map(|recognizer| {
            let chunks: Vec<(HostRagged, Recognizer)> = utterances
                .chunks(AT_ONCE)
                .map(|chunk| (gather(speech, chunk), recognizer.clone()))
                .collect();
            let read = |(frames, recognizer): (_, Recognizer)| recognizer.transcribe(&frames);
            chunks.into_par_iter().flat_map_iter(read).collect()
        });
        Ok(Self { utterances, transcripts })
    }

    /// The cell with lists of phrases cut to the `n` that the CTC posteriors make likeliest.
    fn shortlisted(
        &self,
        speech: &SpeechModel,
        recognizer: &Recognizer,
        cell: &Cell,
        n: usize,
    ) -> Result<Cell, Error> {
        let mut cell = cell.clone();
        for (item, utterance) in cell.items.iter_mut().zip(&self.utterances) {
            let log_probs = recognizer.log_probs(&gather(speech, std::slice::from_ref(utterance)));
            let mut scored: Vec<(f32, &String)> = Vec::with_capacity(item.phrases.len());
            for phrase in &item.phrases {
                let ids = recognizer.symbols.encode(phrase, Unknown::Skip)?;
                let score = sandhi_align::ctc::spot(&log_probs.values, log_probs.width, &ids, 0)
                    .expect("symbols of the model over rows of its head");
                scored.push((score, phrase));
            }
            scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
            let phrases: Vec<String> =
                scored.into_iter().take(n).map(|(_, phrase)| phrase.clone()).collect();
            item.instruction = biasing::instruction(item.task.wordings()[item.wording], &phrases);
            item.phrases = phrases;
        }
        Ok(cell)
    }
}

/// The frames of utterances, one behind the other.
pub(crate) fn gather<'a>(
    speech: &SpeechModel,
    utterances: impl IntoIterator<Item = &'a Utterance>,
) -> HostRagged {
    HostRagged::gather(speech.d_encoder(), utterances.into_iter().map(|u| u.rows.as_ref()))
}

/// Cells of the same items, which only sound different: what is asked is read once for all of them. A cell
/// whose list of phrases follows from the sound stands alone.
fn panels(cells: &[Cell]) -> Vec<Vec<&Cell>> {
    let mut panels: IndexMap<(&str, &str), Vec<&Cell>> = IndexMap::new();
    for cell in cells {
        let alone = cell.domain == "texts" || cell.shortlist.is_some();
        let domain = if alone { cell.domain.as_str() } else { "" };
        panels.entry((&cell.task, domain)).or_default().push(cell);
    }
    panels.into_values().collect()
}

/// The cache that a model's encoder frames are kept in.
pub fn frame_cache(model: &ConnectorModel, dir: &std::path::Path) -> FrameCache {
    FrameCache::new(dir, &model.speech.frames_fingerprint())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Half;

    #[test]
    fn a_panel_asks_the_same_of_every_domain() {
        let config = EvalConfig {
            tasks: vec!["sqa".into(), "biasing_1000".into()],
            ..EvalConfig::new(5, Half::Dev)
        };
        let all = cells(&Microworld::new(1), config.half.split(), &config);
        let panels = panels(&all);
        let domains: Vec<Vec<&str>> = panels
            .iter()
            .map(|cells| cells.iter().map(|cell| cell.domain.as_str()).collect())
            .collect();
        let acoustic = ["base", "voices", "tempo", "channel"];
        assert!(domains.contains(&acoustic.to_vec()), "{domains:?}");
        // What is asked follows from the sound, or the texts are others.
        assert_eq!(domains.iter().filter(|domains| domains.len() == 1).count(), 5, "{domains:?}");
        let asked = |cell: &Cell| -> Vec<(String, String)> {
            let said = |item: &Item| (item.instruction.clone(), item.spoken.clone());
            cell.items.iter().map(said).collect()
        };
        for panel in panels {
            assert!(panel.iter().all(|cell| asked(cell) == asked(panel[0])));
        }
    }

    /// What only models over text and units do is no cell of the others; what is left has the names it had.
    #[test]
    fn others_have_no_pairs_and_do_not_speak() {
        let config = EvalConfig::new(1, Half::Dev);
        let of = |config: &EvalConfig| cells(&Microworld::new(1), config.half.split(), config);
        let mut all = of(&config);
        let names = |cells: &[Cell]| -> BTreeSet<String> {
            cells.iter().map(|cell| cell.task.clone()).collect()
        };
        let before = names(&all);
        leave_out_units(&mut all, &config);
        let gone: Vec<String> = before.difference(&names(&all)).cloned().collect();
        assert_eq!(gone, ["asr_3", "sblimp", "swuggy", "tts", "tts_3"]);
        // Examples of transcription and of speech are of the training half, a sentence each.
        let few = of(&EvalConfig { tasks: vec!["asr_3".into(), "tts_3".into()], ..config });
        assert_eq!(names(&few).len(), 2);
        for Cell { shots, .. } in few {
            assert!(shots.len() == 3 && shots.iter().all(|shot| shot.split == Split::Train));
            assert!(shots.iter().all(|shot| shot.spoken.matches(['.', '?', '!']).count() == 1));
        }
    }

    #[test]
    fn choices_ask_for_what_was_said() {
        let names =
            ["continuation", "story_cloze", "story_cloze_chat", "hella_swag", "facts", "facts_5"];
        let config = EvalConfig {
            tasks: names.map(str::to_owned).to_vec(),
            domains: vec!["base".into(), "texts".into()],
            ..EvalConfig::new(40, Half::Dev)
        };
        let all = cells(&Microworld::new(1), config.half.split(), &config);
        let cell = |task: &str, domain: &str| {
            all.iter().find(|cell| cell.task == task && cell.domain == domain).unwrap()
        };
        for domain in ["base", "texts"] {
            let stories = cell("continuation", domain);
            let [two, four] = ["story_cloze", "hella_swag"].map(|task| cell(task, domain));
            let asked = cell("story_cloze_chat", domain);
            assert_eq!(asked.items, two.items);
            let is_chat =
                |cell: &Cell| matches!(cell.job().asked[0].form, choice::Form::Chat { .. });
            assert_eq!([asked, two, four, stories].map(is_chat), [true, false, false, true]);
            let mut at = [0, 0];
            for ((story, two_of), four_of) in stories.items.iter().zip(&two.items).zip(&four.items)
            {
                // One utterance for all three.
                assert!(story.spoken == two_of.spoken && story.spoken == four_of.spoken);
                assert_eq!(stories.options(story), four.options(four_of));
                let options = two.options(two_of);
                assert_eq!(options.len(), 2);
                assert_eq!(options[two.right(two_of)], story.answer);
                assert!(options[0] != options[1]);
                assert!(options.iter().all(|option| story.choices.contains(option)));
                at[two.right(two_of)] += 1;
            }
            assert!(at.iter().all(|n| *n > 8), "{at:?}");
            let [none, five] = ["facts", "facts_5"].map(|task| cell(task, domain));
            assert_eq!((none.shots.len(), five.shots.len()), (0, 5));
            assert_eq!(none.transcripts(), five.transcripts());
            // The question and its choices are said and written in the same words; what is shown was not asked.
            let job = five.job();
            for (item, asked) in five.items.iter().zip(&job.asked) {
                assert!(item.choices.iter().all(|choice| item.spoken.contains(choice)));
                let choice::Form::Chat { instruction } = &asked.form else { panic!("a chat") };
                let shots: Vec<&str> = five.shots.iter().map(|shot| shot.spoken.as_str()).collect();
                assert!(
                    shots.iter().all(|shot| instruction.contains(shot) && *shot != item.spoken)
                );
            }
        }
    }
}
