//! Choices of files that others made: HellaSwag, StoryCloze, MMLU, spoken StoryCloze.
//!
//! ```text
//! file ─ items ─┬─ recording, or spoken here ─ encoder ─ connector ─┐
//!               ├─ context as text ─────────────────────────────────┼─ likeliest ending ─ scores
//!               └─ … ─ encoder ─ CTC text ──────────────────────────┘
//! ```
//!
//! A task is named after its file, a domain `recorded` where the file brings all recordings of its contexts; otherwise
//! every context is spoken in the domains that are asked for, by one voice each. Preface, shots and cue are always written. What a model or a file has no
//! side for is no number, and says why.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use sandhi_data::{
    choice::{self, ChoiceItem, ChoiceSet},
    manifest,
};

use super::{
    Heard, Outcomes,
    answer::{Job, Reader, Way, answers},
    cells::{Cell, DOMAINS, acoustic},
    choice::{Asked, Form},
    score::{self, Ways, add_side, chosen, counts, is_chosen, scorers},
};
use crate::{
    frames::FrameCache,
    model::AnyModel,
    protocol::{PromptForm, Score, Side, Sides, Unsupported},
    recipe::{ChoicesConfig, EvalConfig},
    results::{CASCADE, Metric, Prediction, Results, TEXT},
    sources::{Error, Spoken, Workshop},
};

/// Items that are heard and answered at once.
const CHUNK: usize = 512;

/// The domain of a file that brings recordings of all its contexts.
const RECORDED: &str = "recorded";

/// The suffix of a side's metrics.
pub(super) fn suffix(sides: Sides) -> &'static str {
    match (sides.context, sides.ending) {
        (Side::Spoken, Side::Written) => "",
        (Side::Written, Side::Written) => TEXT,
        (Side::Spoken, Side::Spoken) => "_s2s",
        (Side::Written, Side::Spoken) => "_t2s",
    }
}

/// What a kind of model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abilities {
    Hears,
    Reads,
    HearsAndReads,
}

impl Abilities {
    fn of(model: &AnyModel) -> Self {
        match model {
            AnyModel::Ctc(_)
            | AnyModel::Aligner(_)
            | AnyModel::SpeechText(_)
            | AnyModel::Vocoder(_) => Self::Hears,
            AnyModel::Text(_) => Self::Reads,
            AnyModel::Connector(_) => Self::HearsAndReads,
        }
    }

    /// Why there is no such side, if so.
    fn lack(self, sides: Sides) -> Option<Unsupported> {
        match (self, sides) {
            (Self::Hears, _) => Some(Unsupported::NoLanguageModel),
            (_, Sides { ending: Side::Spoken, .. }) => Some(Unsupported::CannotSpeak),
            (Self::Reads, Sides { context: Side::Spoken, .. }) => Some(Unsupported::CannotHear),
            (Self::Reads | Self::HearsAndReads, _) => None,
        }
    }

    /// Notes the sides of Microworld's choices that are asked for by name and are not there.
    pub(super) fn add_lacking(self, results: &mut Results, cells: &[Cell], asked: &[Sides]) {
        for cell in cells.iter().filter(|cell| cell.kind.choice().is_some()) {
            for &sides in asked {
                if let Some(why) = self.lack(sides) {
                    add_unsupported(results, (&cell.task, &cell.domain), sides, why);
                }
            }
        }
    }
}

/// Why some item has no such side in a domain, if so. What is not recorded is spoken, where it is written.
fn unsupported_in(items: &[ChoiceItem], domain: &str, sides: Sides) -> Option<Unsupported> {
    let any = |lacks: fn(&ChoiceItem) -> bool| items.iter().any(lacks);
    let context = match sides.context {
        Side::Spoken if any(|item| item.context == choice::Part::default()) => {
            Some(Unsupported::ContextNotRecorded)
        }
        Side::Spoken if domain == RECORDED => None,
        Side::Spoken | Side::Written => {
            any(|item| item.context.text.is_none()).then_some(Unsupported::ContextNotWritten)
        }
    };
    context.or_else(|| {
        let written = sides.ending == Side::Written;
        (written && any(|item| item.endings.iter().any(|ending| ending.text.is_none())))
            .then_some(Unsupported::EndingsNotWritten)
    })
}

/// Puts "not available" with its reason in the place of every accuracy of a side.
pub(super) fn add_unsupported(
    results: &mut Results,
    (task, domain): (&str, &str),
    sides: Sides,
    why: Unsupported,
) {
    for score in Score::ALL {
        let name = format!("{}{}", score.metric(), suffix(sides));
        results.set(task, domain, &name, Metric::unsupported(why));
    }
}

/// Chooses the endings of all files of the configuration and adds the scores to `results`; gives the predictions of
/// every file and domain.
///
/// # Errors
///
/// When files share a name; when one cannot be read, has fewer solved items than are asked for, groups that cannot be told
/// apart or no such domain; when speech cannot be made, read or heard.
pub fn evaluate_files(
    model: &AnyModel,
    workshop: &Workshop,
    config: &EvalConfig,
    cache: &Path,
    results: &mut Results,
    progress: &dyn Fn(&str, usize, usize),
) -> Result<Vec<Vec<Prediction>>, Error> {
    let mut predictions = Vec::new();
    let Some(choices) = &config.choices else { return Ok(predictions) };
    if let AnyModel::SpeechText(_) = model {
        return Err(Error::Task {
            stage: "eval".into(),
            error: "files of choices are for models with prompts; a speech_text model chooses the endings of stories".into(),
        });
    }
    let paths: Vec<PathBuf> = choices.paths.iter().map(|path| workshop.resolve(path)).collect();
    choice::check_names(&paths)?;
    let is_heard = matches!(model, AnyModel::Connector(_));
    let read = |path: &PathBuf| File::read(path, choices, &config.domains, is_heard);
    let files: Vec<File> = paths.iter().map(read).collect::<Result<_, _>>()?;
    for file in &files {
        if let Some(what) = file.unheard() {
            tracing::warn!("{what}");
        }
        for domain in &file.domains {
            let say = |done, total| progress(&format!("{} {domain}", file.name), done, total);
            let found =
                file.evaluate(model, workshop, &config.sides, domain, cache, results, &say)?;
            predictions.push(found);
        }
    }
    results.meta.scorer.extend(scorers());
    Ok(predictions)
}

/// Refuses a file that cannot be evaluated so, whatever its name; contexts are heard by connectors.
///
/// # Errors
///
/// As [`evaluate_files`].
pub fn check_choices(
    path: &Path,
    choices: &ChoicesConfig,
    domains: &[String],
    is_heard: bool,
) -> Result<(), Error> {
    File::read(path, choices, domains, is_heard).map(|_| ())
}

/// The domains of the contexts of a file: those that are asked for, where it has them.
fn domains(
    path: &Path,
    items: &[ChoiceItem],
    asked: &[String],
    is_heard: bool,
) -> Result<Vec<String>, choice::Error> {
    let is_recorded = items.iter().all(|item| item.context.audio.is_some());
    let possible: Vec<&str> = match (is_recorded, is_heard) {
        (true, _) => Vec::new(),
        (false, true) => DOMAINS.into_iter().filter(|domain| acoustic(domain).is_some()).collect(),
        (false, false) => vec!["base"],
    };
    if let Some(domain) = asked.iter().find(|domain| !possible.contains(&domain.as_str())) {
        let expected = match &possible[..] {
            [] => "none, because all of its contexts are recorded".to_owned(),
            ["base"] => "base, because only a connector hears its contexts".to_owned(),
            several => format!("one of {}", several.join(", ")),
        };
        let (path, domain) = (path.to_owned(), domain.clone());
        return Err(choice::Error::Domain { path, domain, expected });
    }
    Ok(match asked {
        [] if is_recorded => vec![RECORDED.to_owned()],
        [] => vec!["base".to_owned()],
        asked => asked.to_vec(),
    })
}

/// Refuses groups whose metrics would have one name.
fn check_groups(path: &Path, items: &[ChoiceItem]) -> Result<(), choice::Error> {
    let groups: BTreeSet<&str> = items.iter().filter_map(|item| item.group.as_deref()).collect();
    let mut metrics: HashMap<String, &str> = HashMap::new();
    for second in groups {
        if let Some(first) = metrics.insert(group_metric(second), second) {
            let (first, second) = (first.to_owned(), second.to_owned());
            return Err(choice::Error::SameGroup { path: path.to_owned(), first, second });
        }
    }
    Ok(())
}

/// What stands around the items of a file.
struct Jobs {
    asked: Vec<Asked>,
    prompt: PromptForm,
    shots: usize,
}

impl Jobs {
    fn new(path: &Path, set: &ChoiceSet, choices: &ChoicesConfig) -> Result<Self, Error> {
        let n = choices.shots;
        let none = Vec::new();
        let mut asked = Vec::with_capacity(set.items.len());
        for item in &set.items {
            let group = item.group.as_deref().unwrap_or_default();
            let solved = set.shots.get(group).unwrap_or(&none);
            if solved.len() < n {
                let (path, group) = (path.to_owned(), group.to_owned());
                return Err(Error::Shots { path, group, found: solved.len(), asked: n });
            }
            let between = if item.cue.is_empty() { " ".into() } else { format!("\n{} ", item.cue) };
            let mut before: Vec<String> = Vec::with_capacity(n + 2);
            before.extend((!item.preface.is_empty()).then(|| item.preface.clone()));
            before.extend(solved[..n].iter().map(|shot| {
                format!("{}{between}{}", text(&shot.context), text(&shot.endings[shot.right]))
            }));
            let form = match &choices.instruction {
                None => {
                    let before = before.into_iter().map(|part| part + "\n\n").collect();
                    Form::Plain { before, between }
                }
                Some(instruction) => {
                    before.insert(0, instruction.clone());
                    Form::Chat { instruction: before.join("\n\n") }
                }
            };
            asked.push(Asked { form, endings: item.endings.iter().map(text).collect() });
        }
        let prompt = choices.instruction.as_ref().map_or(PromptForm::Plain, |_| PromptForm::Chat);
        Ok(Self { asked, prompt, shots: n })
    }
}

/// What a part says; nothing where it is not written.
fn text(part: &choice::Part) -> String {
    part.text.clone().unwrap_or_default()
}

/// A file of items.
struct File {
    name: String,
    /// What its contexts are heard in.
    domains: Vec<String>,
    set: ChoiceSet,
    jobs: Jobs,
}

impl File {
    fn read(
        path: &Path,
        choices: &ChoicesConfig,
        asked: &[String],
        is_heard: bool,
    ) -> Result<Self, Error> {
        let set = choice::read(path, choices.format)?;
        check_groups(path, &set.items)?;
        Ok(Self {
            name: choice::name(path),
            domains: domains(path, &set.items, asked, is_heard)?,
            jobs: Jobs::new(path, &set, choices)?,
            set,
        })
    }

    /// What a reader must know of a file that brings recordings of some contexts only.
    fn unheard(&self) -> Option<String> {
        let items = &self.set.items;
        let n = items.iter().filter(|item| item.context.audio.is_some()).count();
        (0 < n && n < items.len()).then(|| {
            let n_items = items.len();
            format!("{}: {n} of {n_items} contexts are recorded; no recording is heard", self.name)
        })
    }

    fn evaluate(
        &self,
        model: &AnyModel,
        workshop: &Workshop,
        asked: &[Sides],
        domain: &str,
        cache: &Path,
        results: &mut Results,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Vec<Prediction>, Error> {
        let items = &self.set.items;
        let abilities = Abilities::of(model);
        let why = |sides| abilities.lack(sides).or_else(|| unsupported_in(items, domain, sides));
        let able = |sides: &Sides| why(*sides).is_none();
        let mut sides: Vec<Sides> = match asked {
            [] => Sides::ALL.into_iter().filter(able).collect(),
            asked => asked.to_vec(),
        };
        if sides.is_empty() {
            sides.extend([Sides::S2T, Sides::T2T]);
        }
        let place = (self.name.as_str(), domain);
        for &sides in &sides {
            if let Some(why) = why(sides) {
                add_unsupported(results, place, sides, why);
            }
        }
        sides.retain(able);
        let reader = match model {
            AnyModel::Connector(model) => Reader::Connector(model.clone()),
            AnyModel::Text(model) => Reader::Text(model.clone()),
            AnyModel::Ctc(_)
            | AnyModel::Aligner(_)
            | AnyModel::SpeechText(_)
            | AnyModel::Vocoder(_) => {
                return Ok(Vec::new());
            }
        };
        if sides.is_empty() {
            return Ok(Vec::new());
        }
        let (mut heard, mut read, mut cascade): (Outcomes, Outcomes, Outcomes) = Default::default();
        for from in (0..items.len()).step_by(CHUNK) {
            progress(from, items.len());
            let range = from..(from + CHUNK).min(items.len());
            let chunk = &items[range.clone()];
            let mut ways = Vec::new();
            let mut into: Vec<&mut Outcomes> = Vec::new();
            if let (true, AnyModel::Connector(model)) = (sides.contains(&Sides::S2T), model) {
                let spoken: Vec<Spoken> = chunk.iter().map(|item| spoken(item, domain)).collect();
                let cache = FrameCache::new(cache, &model.speech.frames_fingerprint());
                let found = Heard::of(&model.speech, workshop, &spoken, &cache)?;
                ways.push(Way::Heard(found.utterances));
                into.push(&mut heard);
                if let Some(transcripts) = found.transcripts {
                    ways.push(Way::Read(transcripts));
                    into.push(&mut cascade);
                }
            }
            if sides.contains(&Sides::T2T) {
                ways.push(Way::Read(chunk.iter().map(|item| text(&item.context)).collect()));
                into.push(&mut read);
            }
            let job = Job {
                asked: self.jobs.asked[range].to_vec(),
                said: chunk.iter().map(|item| item.context.text.clone()).collect(),
                max_tokens: None,
            };
            for (outcomes, found) in into.into_iter().zip(answers(&reader, &job, &ways)?) {
                outcomes.extend(found);
            }
        }
        progress(items.len(), items.len());
        Ok(self.add(results, domain, [heard, read, cascade]))
    }

    /// Adds the scores of what was answered from speech, from text and through the cascade, each of which may be nothing.
    fn add(
        &self,
        results: &mut Results,
        domain: &str,
        [heard, read, cascade]: [Outcomes; 3],
    ) -> Vec<Prediction> {
        let items = &self.set.items;
        let rights: Vec<usize> = items.iter().map(|item| item.right).collect();
        let names: BTreeSet<&str> = items.iter().filter_map(|item| item.group.as_deref()).collect();
        let groups: Vec<(String, Vec<bool>)> = names
            .into_iter()
            .map(|name| {
                let belongs = items.iter().map(|item| item.group.as_deref() == Some(name));
                (group_metric(name), belongs.collect())
            })
            .collect();
        let numbers = |outcomes: &Outcomes| {
            (!outcomes.is_empty()).then(|| score::choices(outcomes, &rights, groups.clone()))
        };
        let choice = Some((self.jobs.prompt, self.jobs.shots));
        let place = (self.name.as_str(), domain);
        match (numbers(&heard), numbers(&read), numbers(&cascade)) {
            (Some(speech), Some(text), cascade) => {
                Ways { speech, text, cascade }.add(results, &self.name, domain, choice);
            }
            (speech, text, cascade) => {
                for (suffix, numbers, sides) in [
                    ("", speech, Sides::S2T),
                    (TEXT, text, Sides::T2T),
                    (CASCADE, cascade, Sides::S2T),
                ] {
                    let numbers = numbers.unwrap_or_default();
                    add_side(results, place, suffix, &numbers, choice, sides);
                }
            }
        }
        let ways = [("", &heard), (TEXT, &read), (CASCADE, &cascade)];
        let ways: Vec<(&str, &Outcomes)> =
            ways.into_iter().filter(|(_, o)| !o.is_empty()).collect();
        let scored: Vec<_> = ways
            .iter()
            .map(|(suffix, o)| (*suffix, score::choices(o, &rights, groups.clone())))
            .collect();
        let prediction = |(i, item): (usize, &ChoiceItem)| {
            let options = &self.jobs.asked[i].endings;
            let of = |suffix: &str| ways.iter().find(|(s, _)| *s == suffix).map(|(_, o)| &o[i]);
            let said = |suffix: &str| of(suffix).map(|o| chosen(o, options).to_owned());
            let right = |suffix: &str| of(suffix).map(|o| is_chosen(o, item.right));
            Prediction {
                id: item.id.clone(),
                task: self.name.clone(),
                domain: domain.to_owned(),
                transcript: item.context.text.clone(),
                reference: options[item.right].clone(),
                hypothesis: chosen(&ways[0].1[i], options).to_owned(),
                text_hypothesis: said(TEXT),
                cascade_hypothesis: said(CASCADE),
                correct: right(""),
                text_correct: right(TEXT),
                cascade_correct: right(CASCADE),
                counts: counts(&scored, i),
                ..Prediction::default()
            }
        };
        items.iter().enumerate().map(prediction).collect()
    }
}

/// A context as it sounds.
fn spoken(item: &ChoiceItem, domain: &str) -> Spoken {
    let said = text(&item.context);
    match &item.context.audio {
        Some(path) if domain == RECORDED => {
            let name = path.display().to_string();
            let utterance = manifest::Utterance::new(name, path.clone(), said);
            Spoken::Recorded { utterance, speed: 1.0 }
        }
        _ => {
            // Lines are for the eye.
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            let acoustic = acoustic(domain).expect("other domains are refused");
            Spoken::made(said, item.language, acoustic)
        }
    }
}

/// The metric of a group; no underscore of its name is taken for a suffix.
fn group_metric(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() { c } else { '-' };
    format!("accuracy/{}", name.chars().map(plain).collect::<String>().to_lowercase())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sandhi_data::{audio::Waveform, microworld::Microworld};

    use super::*;
    use crate::{
        inspect::testing,
        recipe::{self, Half, Overrides},
        tasks::cells::cells,
    };

    /// A folder with recordings and items of them, and one with written items alone.
    fn files(dir: &Path) -> [PathBuf; 2] {
        for (name, pitch) in [("a", 0.1), ("b", 0.2)] {
            let samples = (0..16_000).map(|i| 0.3 * (i as f32 * pitch).sin()).collect();
            let bytes = Waveform::new(samples, 16_000).to_wav_bytes().unwrap();
            fs::write(dir.join(format!("{name}.wav")), bytes).unwrap();
        }
        let recorded = dir.join("told.jsonl");
        let lines = [
            r#"{"id": "1", "audio": "a.wav", "context": "she left", "endings": ["early", "she"], "right": 0, "group": "an early_text"}"#,
            r#"{"id": "2", "audio": "b.wav", "context": "she", "endings": ["early", "left", "early"], "right": 2}"#,
        ];
        fs::write(&recorded, lines.join("\n")).unwrap();
        let written = dir.join("physics_test.csv");
        fs::write(&written, "left?,a,b,c,d,B\nearly?,a,b,c,d,C\n").unwrap();
        fs::write(dir.join("physics_dev.csv"), "she?,a,b,c,d,A\n").unwrap();
        [recorded, written]
    }

    fn run(
        model: &AnyModel,
        paths: &[&PathBuf],
        sides: &[Sides],
        shots: usize,
    ) -> Result<(Results, Vec<Vec<Prediction>>), Error> {
        let dir = tempfile::tempdir().unwrap();
        let toml = "name = \"n\"\nseed = 1\n[model]\nkind = \"text\"\ntokenizer = { vocab_size = 300 }\n\
                    language_model = { d_model = 2, n_layers = 1, n_heads = 1, d_ff = 1 }\n";
        let recipe = recipe::read_str(toml, Path::new("n.toml"), &Overrides::default()).unwrap();
        let workshop = Workshop::new(dir.path(), dir.path(), &recipe);
        let config = EvalConfig {
            sides: sides.to_vec(),
            choices: Some(ChoicesConfig {
                paths: paths.iter().map(|path| path.display().to_string()).collect(),
                format: None,
                shots,
                instruction: None,
            }),
            ..EvalConfig::new(1, Half::Dev)
        };
        let mut results = Results::default();
        let found =
            evaluate_files(model, &workshop, &config, dir.path(), &mut results, &|_, _, _| {})?;
        Ok((results, found))
    }

    #[test]
    fn recordings_are_heard_beside_what_they_say() {
        let dir = tempfile::tempdir().unwrap();
        let [recorded, _] = files(dir.path());
        let model = AnyModel::Connector(Box::new(testing::model()));
        let (results, predictions) = run(&model, &[&recorded], &[], 0).unwrap();
        let metrics: Vec<&str> =
            results.scores["told"]["recorded"].keys().map(String::as_str).collect();
        let ways = ["", "_text", "_cascade", "_recovered"];
        let names =
            ["accuracy", "accuracy_per_token", "accuracy_per_character", "accuracy/an-early-text"];
        let expected: Vec<String> =
            names.iter().flat_map(|name| ways.map(|way| format!("{name}{way}"))).collect();
        assert_eq!(metrics, expected);
        for (metric, sides) in [("accuracy", Sides::S2T), ("accuracy_text", Sides::T2T)] {
            let protocol = results.get("told", "recorded", metric).unwrap().protocol.unwrap();
            assert_eq!(
                (protocol.sides, protocol.shots, protocol.prompt),
                (sides, 0, PromptForm::Plain)
            );
        }
        // The second item has its right ending twice: both tie, and are the best together or not at all.
        for prediction in &predictions[0] {
            let credit = prediction.counts["accuracy"][0];
            let possible: &[f64] = if prediction.id == "2" { &[0.0, 0.5] } else { &[0.0, 1.0] };
            assert!(possible.contains(&credit), "{prediction:?}");
            assert_eq!(prediction.correct, Some(credit == 1.0));
        }
        let mean = predictions[0].iter().map(|p| p.counts["accuracy_text"][0]).sum::<f64>() / 2.0;
        assert_eq!(results.get("told", "recorded", "accuracy_text").unwrap().value, mean);
    }

    #[test]
    fn what_a_model_cannot_do_is_said_where_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let [recorded, written] = files(dir.path());
        let connector = testing::model();
        let reason = |results: &Results, metric: &str| {
            results.get("told", "recorded", metric).and_then(|metric| metric.unsupported)
        };
        let text = AnyModel::Text(Box::new(connector.text.clone()));
        let (results, _) = run(&text, &[&recorded], &[], 0).unwrap();
        assert!(results.scores["told"]["recorded"].keys().all(|metric| metric.ends_with(TEXT)));
        let (results, _) = run(&text, &[&recorded], &Sides::ALL, 0).unwrap();
        assert_eq!(reason(&results, "accuracy"), Some(Unsupported::CannotHear));
        assert_eq!(reason(&results, "accuracy_s2s"), Some(Unsupported::CannotSpeak));
        assert!(results.get("told", "recorded", "accuracy_text").unwrap().value.is_finite());
        let ears = AnyModel::Ctc(Box::new(connector.speech.clone()));
        let (results, predictions) = run(&ears, &[&recorded], &[], 0).unwrap();
        assert_eq!(reason(&results, "accuracy"), Some(Unsupported::NoLanguageModel));
        assert!(predictions.iter().all(Vec::is_empty));

        let (results, _) = run(&text, &[&written], &[], 1).unwrap();
        let found = results.get("physics_test", "base", "accuracy/physics_text").unwrap();
        assert_eq!((found.protocol.unwrap().shots, found.n), (1, 2));
        let error = run(&text, &[&written], &[], 2).unwrap_err().to_string();
        assert!(
            error.ends_with("found 1 solved items for physics, expected 2 to show before each"),
            "{error}"
        );
    }

    #[test]
    fn stories_of_microworld_lack_what_choices_lack() {
        let config = EvalConfig {
            tasks: vec!["asr".into(), "continuation".into()],
            domains: vec!["base".into()],
            ..EvalConfig::new(1, Half::Dev)
        };
        let cells = cells(&Microworld::new(1), config.half.split(), &config);
        let mut results = Results::default();
        Abilities::Reads.add_lacking(&mut results, &cells, &[Sides::S2S]);
        let found = results.get("continuation", "base", "accuracy_s2s").unwrap();
        assert_eq!((found.unsupported, cells.len()), (Some(Unsupported::CannotSpeak), 2));
        assert_eq!(results.scores.len(), 1);
    }

    #[test]
    fn files_and_groups_of_one_name_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let [_, written] = files(dir.path());
        fs::create_dir(dir.path().join("other")).unwrap();
        let other = dir.path().join("other/physics_test.csv");
        fs::copy(&written, &other).unwrap();
        let model = AnyModel::Text(Box::new(testing::text_model(3)));
        let refused = |paths: &[&PathBuf]| run(&model, paths, &[], 0).unwrap_err().to_string();
        let error = refused(&[&written, &other]);
        assert!(error.contains("other") && error.contains("the name \"physics_test\""), "{error}");

        let grouped = dir.path().join("grouped.jsonl");
        let line = |id: &str, group: &str| {
            format!(
                r#"{{"id": "{id}", "context": "she", "endings": ["left", "early"], "right": 0, "group": "{group}"}}"#
            )
        };
        let lines = [line("1", "a b"), line("2", "A-b"), line("3", "c")].join("\n");
        fs::write(&grouped, lines).unwrap();
        let error = refused(&[&grouped]);
        assert!(error.contains("grouped.jsonl: found the groups \"A-b\" and \"a b\""), "{error}");
    }

    fn plain() -> ChoicesConfig {
        ChoicesConfig { paths: Vec::new(), format: None, shots: 0, instruction: None }
    }

    #[test]
    fn a_domain_that_cannot_be_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let [recorded, written] = files(dir.path());
        let of = |path: &Path, domain: &str, is_heard: bool| {
            check_choices(path, &plain(), &[domain.to_owned()], is_heard)
        };
        for (path, domain, is_heard, expected) in [
            (&recorded, "tempo", true, "none, because all of its contexts are recorded"),
            (&recorded, "base", false, "none, because all of its contexts are recorded"),
            (&written, "texts", true, "one of base, voices, tempo, channel"),
            (&written, "tempo", false, "base, because only a connector hears its contexts"),
        ] {
            let error = of(path, domain, is_heard).unwrap_err().to_string();
            let expected = format!("found the domain {domain:?}, expected {expected}");
            assert!(error.ends_with(&expected), "{error}");
        }
        of(&written, "tempo", true).unwrap();
        of(&written, "base", false).unwrap();
    }

    #[test]
    fn recordings_of_some_contexts_are_not_heard() {
        let dir = tempfile::tempdir().unwrap();
        let [recorded, _] = files(dir.path());
        let some = dir.path().join("some.jsonl");
        let lines = [
            r#"{"id": "1", "audio": "a.wav", "endings": ["early", "left"], "right": 0}"#,
            r#"{"id": "2", "context": "she", "endings": ["early", "left"], "right": 1}"#,
        ];
        fs::write(&some, lines.join("\n")).unwrap();
        let unheard = |path: &Path| File::read(path, &plain(), &[], true).unwrap().unheard();
        let expected = "some: 1 of 2 contexts are recorded; no recording is heard";
        assert_eq!((unheard(&some).as_deref(), unheard(&recorded)), (Some(expected), None));
        // What is not written cannot be spoken here.
        let model = AnyModel::Connector(Box::new(testing::model()));
        let (results, _) = run(&model, &[&some], &[], 0).unwrap();
        let why = results.get("some", "base", "accuracy").unwrap().unsupported;
        assert_eq!(why, Some(Unsupported::ContextNotWritten));
    }

    #[test]
    fn pairs_of_whole_stories_have_a_spoken_side_alone() {
        let dir = tempfile::tempdir().unwrap();
        files(dir.path());
        let pairs = dir.path().join("sSC");
        fs::create_dir(&pairs).unwrap();
        for (i, name) in ["a", "b"].into_iter().enumerate() {
            fs::copy(dir.path().join(format!("{name}.wav")), pairs.join(format!("{i}_x.wav")))
                .unwrap();
        }
        let model = AnyModel::Connector(Box::new(testing::model()));
        let (results, _) =
            run(&model, &[&pairs], &[Sides::S2S, Sides::S2T, Sides::T2T], 0).unwrap();
        let why = |metric: &str| results.get("sSC", "base", metric).unwrap().unsupported;
        assert_eq!(why("accuracy_s2s"), Some(Unsupported::CannotSpeak));
        assert_eq!(why("accuracy"), Some(Unsupported::ContextNotRecorded));
        assert_eq!(why("accuracy_text"), Some(Unsupported::ContextNotWritten));
    }

    #[test]
    fn shots_and_cues_are_written_around_the_question() {
        let dir = tempfile::tempdir().unwrap();
        let [_, written] = files(dir.path());
        let set = choice::read(&written, None).unwrap();
        let mut choices =
            ChoicesConfig { paths: Vec::new(), format: None, shots: 1, instruction: None };
        let jobs = Jobs::new(&written, &set, &choices).unwrap();
        let Form::Plain { before, between } = &jobs.asked[1].form else { panic!("a document") };
        let shot = "she?\nA. a\nB. b\nC. c\nD. d\nAnswer: A\n\n";
        let preface =
            "The following are multiple choice questions (with answers) about physics.\n\n";
        assert_eq!((before, between.as_str()), (&format!("{preface}{shot}"), "\nAnswer: "));
        choices.instruction = Some("Choose.".to_owned());
        let jobs = Jobs::new(&written, &set, &choices).unwrap();
        let Form::Chat { instruction } = &jobs.asked[1].form else { panic!("a chat") };
        assert_eq!(*instruction, format!("Choose.\n\n{preface}{}", shot.trim_end()));
    }
}
