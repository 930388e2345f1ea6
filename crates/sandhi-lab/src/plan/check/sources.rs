//! What stages learn from and the evaluation asks about: amounts, lengths, names and files.

use sandhi_data::{
    choice, manifest,
    microworld::{
        Document, Split, Style, Task, WildWords, documents::MAX_PHRASES, tasks::ABOUT_WORDS,
    },
    speech::Domain,
    units::UnitCorpus,
};

use super::{Checker, kind};
use crate::{
    recipe::{
        AS_SPOKEN, EvalConfig, Form, ManifestSource, ModelConfig, SourceConfig,
        SpeechTextModelConfig, SpeechUnitsConfig, StageConfig, UnitsSource, VocoderModelConfig,
    },
    tasks,
    train::dataset::TOKEN_S,
};

/// Nobody speaks more words in a second: so long an utterance is at least.
const FASTEST_WORDS_PER_S: f64 = 5.0;
/// Items of a source whose length is looked at.
const LOOKED_AT: usize = 128;

impl Checker<'_> {
    /// Checks a source and counts its items.
    pub(super) fn source(
        &mut self,
        place: &str,
        source: &SourceConfig,
        stage: &StageConfig,
    ) -> Option<usize> {
        let model = kind(&self.recipe.model);
        let fits = match source {
            SourceConfig::Microworld(_) | SourceConfig::Wild(_) => {
                model != "text" && model != "speech_text"
            }
            SourceConfig::Manifest(_) => model != "speech_text",
            SourceConfig::Documents(_) | SourceConfig::Spelling(_) => {
                model == "text" || model == "connector"
            }
            SourceConfig::Text(_) => {
                model == "text" || model == "connector" || model == "speech_text"
            }
            SourceConfig::Stories(source) => {
                model == "speech_text" || (model == "vocoder" && source.form == Form::Spoken)
            }
            SourceConfig::Units(_) => model == "speech_text",
        };
        self.need(
            fits,
            place,
            format_args!(
                "source {:?} gives nothing that a {model} model learns from",
                source.kind()
            ),
        );
        if let Some(weight) = source.weight() {
            self.need(
                weight.is_finite() && weight > 0.0,
                place,
                format_args!("weight is {weight}, expected a number above 0"),
            );
        }
        let max_length = match &self.recipe.model {
            // What goes into a batch are crops, however long the utterances are.
            ModelConfig::Vocoder(_) => f64::INFINITY,
            _ => stage.batch.max_length,
        };
        // Beside speech a token counts as long as it takes to say.
        let max_tokens = max_length / if model == "connector" { TOKEN_S } else { 1.0 };
        match source {
            SourceConfig::Microworld(source) => {
                self.counts(place, "n", source.n);
                self.need(!source.tasks.is_empty(), place, "tasks is empty");
                self.need(!source.languages.is_empty(), place, "languages is empty");
                let (mut n_items, mut longest) = (0_usize, 0);
                for name in &source.tasks {
                    let task: Task = match name.parse() {
                        Ok(task) => task,
                        Err(error) => {
                            self.problem(place, error);
                            continue;
                        }
                    };
                    self.need(
                        model != "connector" || task != Task::FactChoice,
                        place,
                        "task fact_choice speaks the almanac, which is never voiced for training",
                    );
                    self.need(
                        !task.is_pair(),
                        place,
                        format_args!("task {name} has nothing to answer: it is only measured"),
                    );
                    if model == "connector" && source.ask.is_empty() {
                        self.trained_on_speech(place, task);
                    }
                    let spoken: Vec<_> =
                        source.languages.iter().filter(|&&l| task.speaks(l)).copied().collect();
                    self.need(
                        !spoken.is_empty() || source.languages.is_empty(),
                        place,
                        format_args!("task {name} is spoken in none of the languages"),
                    );
                    for language in spoken {
                        n_items = source.n.saturating_add(n_items);
                        let n = source.n.min(LOOKED_AT);
                        for item in self.world.items(task, language, Split::Train, Style::Seen, n) {
                            longest = longest.max(n_words(&item.spoken));
                        }
                    }
                }
                self.ask(place, &source.ask);
                self.speed(place, source.speed);
                self.audio_fits(place, longest, max_length);
                Some(n_items.saturating_mul(source.ask.len().max(1)))
            }
            SourceConfig::Wild(source) => {
                let n = source.n.values().fold(0, |sum: usize, &n| sum.saturating_add(n));
                self.counts(place, "n of all languages", n);
                self.need(
                    model != "connector" || source.words == WildWords::Open,
                    place,
                    "words is \"all\", expected \"open\": a connector must not hear the entities that evaluation holds back",
                );
                let mut longest = 0;
                for (&language, &n) in &source.n {
                    let texts = self.world.wild_sentences(language, source.words, n.min(LOOKED_AT));
                    longest =
                        texts.iter().map(|text| n_words(text)).max().unwrap_or(0).max(longest);
                }
                self.ask(place, &source.ask);
                self.speed(place, source.speed);
                self.audio_fits(place, longest, max_length);
                Some(n.saturating_mul(source.ask.len().max(1)))
            }
            SourceConfig::Documents(source) => {
                self.counts(place, "n", source.n);
                self.need(
                    (0.0..=1.0).contains(&source.hesitant),
                    place,
                    format_args!("hesitant is {}, expected 0 to 1", source.hesitant),
                );
                self.need(
                    source.max_phrases <= MAX_PHRASES,
                    place,
                    format_args!(
                        "max_phrases is {}, expected at most {MAX_PHRASES}",
                        source.max_phrases
                    ),
                );
                // A word is at least one token.
                let longest = self
                    .world
                    .documents_of(source.kind, "train")
                    .with_lists_of(source.max_phrases)
                    .take(source.n.min(LOOKED_AT))
                    .map(|document| match document {
                        Document::Plain(text) => n_words(&text),
                        Document::Chat(item) => [&item.instruction, &item.spoken, &item.answer]
                            .into_iter()
                            .map(|text| n_words(text))
                            .sum(),
                    })
                    .max()
                    .unwrap_or(0);
                self.need(
                    max_tokens >= longest as f64,
                    place,
                    format_args!(
                        "batch.max_length is {max_tokens} tokens, a document has {longest} words"
                    ),
                );
                Some(source.n)
            }
            SourceConfig::Spelling(source) => {
                self.counts(place, "n", source.n);
                Some(source.n)
            }
            SourceConfig::Text(source) => {
                self.at_least_one(place, "max_chars", source.max_chars);
                self.path(&format!("{place}.path"), &source.path);
                None
            }
            SourceConfig::Manifest(source) => self.manifest(place, source, max_length),
            SourceConfig::Stories(source) => {
                self.counts(place, "n", source.n);
                self.need(
                    source.domain == Domain::Base || source.form == Form::Written,
                    place,
                    format_args!(
                        "domain is {:?}, expected \"base\": the others are for evaluation and for encoders",
                        source.domain.name()
                    ),
                );
                let heard = source.form != Form::Written;
                self.need(
                    !heard || self.units_are_made(),
                    place,
                    "what is spoken needs model.units.from = \"encoder\"",
                );
                Some(source.n)
            }
            SourceConfig::Units(source) => self.unit_files(place, source),
        }
    }

    /// Whether the model makes units of sound.
    fn units_are_made(&self) -> bool {
        matches!(
            &self.recipe.model,
            ModelConfig::SpeechText(SpeechTextModelConfig { units, .. })
            | ModelConfig::Vocoder(VocoderModelConfig { units, .. })
                if matches!(units, SpeechUnitsConfig::Encoder { .. })
        )
    }

    /// Opens files of units; what is wrong with them is a problem.
    fn unit_files(&mut self, place: &str, source: &UnitsSource) -> Option<usize> {
        self.need(!source.files.is_empty(), place, "files is empty, expected at least one");
        let place = format!("{place}.files");
        let paths: Option<Vec<_>> =
            source.files.iter().map(|path| self.path(&place, path)).collect();
        let corpus = self.right(&place, UnitCorpus::open(&paths?))?;
        if let ModelConfig::SpeechText(config) = &self.recipe.model
            && let SpeechUnitsConfig::Files { n } = config.units
        {
            let found = corpus.header().n_units;
            self.need(found == n, &place, format_args!("{found} units, model.units.n is {n}"));
        }
        Some(corpus.len())
    }

    /// Questions that can be asked of any text.
    fn ask(&mut self, place: &str, ask: &[String]) {
        let model = kind(&self.recipe.model);
        self.need(
            ask.is_empty() || model == "connector",
            place,
            format_args!("ask is for connectors, a {model} model is asked nothing"),
        );
        for name in ask {
            match name.parse::<Task>() {
                Err(error) => self.problem(place, error),
                Ok(task) if !ABOUT_WORDS.contains(&task) => {
                    let possible = ABOUT_WORDS.map(Task::name).join(", ");
                    self.problem(
                        place,
                        format_args!("ask has {name}, which needs more than the words; it may have {possible}"),
                    );
                }
                Ok(task) => self.trained_on_speech(place, task),
            }
        }
    }

    fn speed(&mut self, place: &str, [slowest, fastest]: [f64; 2]) {
        self.need(
            0.5 <= slowest && slowest <= fastest && fastest <= 2.0,
            place,
            format_args!(
                "speed is [{slowest}, {fastest}], expected slowest and fastest within 0.5 and 2"
            ),
        );
        let model = kind(&self.recipe.model);
        self.need(
            model != "text" || [slowest, fastest] == AS_SPOKEN,
            place,
            "speed is for models that hear",
        );
        self.need(
            model != "vocoder" || [slowest, fastest] == AS_SPOKEN,
            place,
            "speed is for models that hear; a vocoder would learn to sound so",
        );
    }

    /// What the evaluation says of a task must stay true.
    fn trained_on_speech(&mut self, place: &str, task: Task) {
        if !task.is_speech_trained() {
            self.warnings.push(format!(
                "{place}: the tables of the evaluation say that task {task} was never trained on speech; this recipe makes them wrong"
            ));
        }
    }

    /// Some encoders have positions for so many frames only.
    fn encoder_hears(&mut self, place: &str, what: &str, seconds: f64) {
        let ModelConfig::Ctc(model) = &self.recipe.model else { return };
        let Some(most) = model.encoder.max_feature_frames() else { return };
        let most_s = most as f64 / model.features.rate_hz();
        self.need(
            seconds <= most_s,
            place,
            format_args!(
                "{what} lasts {seconds:.1} s or more, the encoder takes at most {most_s:.1} s"
            ),
        );
    }

    fn audio_fits(&mut self, place: &str, n_words: usize, max_length: f64) {
        let shortest_s = n_words as f64 / FASTEST_WORDS_PER_S;
        self.encoder_hears(place, "an utterance", shortest_s);
        self.need(
            max_length >= shortest_s,
            place,
            format_args!(
                "batch.max_length is {max_length} s, an utterance has {n_words} words and lasts at least {shortest_s:.1} s"
            ),
        );
    }

    /// Reads a manifest; what is wrong with it is a problem of the field that names it.
    fn import(
        &mut self,
        place: &str,
        field: &str,
        path: &str,
        split: Option<&str>,
    ) -> Option<manifest::Import> {
        let place = format!("{place}.{field}");
        let path = self.path(&place, path)?;
        match manifest::import_split(&path, split) {
            Ok(import) => Some(import),
            Err(error) => {
                self.problem(&place, error);
                None
            }
        }
    }

    fn manifest(&mut self, place: &str, source: &ManifestSource, max_length: f64) -> Option<usize> {
        for &speed in &source.speeds {
            self.need(
                (0.5..=2.0).contains(&speed),
                place,
                format_args!("a speed is {speed}, expected 0.5 to 2"),
            );
        }
        self.need(
            kind(&self.recipe.model) != "vocoder"
                || source.speeds.iter().all(|&speed| speed == 1.0),
            place,
            "speeds are for models that hear; a vocoder would learn to sound so",
        );
        self.at_least_one(place, "repeat", source.repeat);
        let import = self.import(place, "path", &source.path, source.split.as_deref())?;
        if let Some(first) = import.rejected.first() {
            self.warnings.push(format!(
                "{place}: {} lines of {} are left out, the first: {first}",
                import.rejected.len(),
                source.path
            ));
        }
        let n = import.utterances.len();
        self.need(n > 0, place, format_args!("{} has no usable utterance", source.path));
        if matches!(self.recipe.model, ModelConfig::Text(_)) {
            return Some(n * source.repeat);
        }
        let longest = import
            .utterances
            .iter()
            .filter_map(|u| Some((u.audio.duration_s?, &u.id)))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((longest_s, id)) = longest {
            let slowest = source.speeds.iter().copied().fold(1.0, f64::min);
            let longest_s = longest_s / slowest;
            self.encoder_hears(place, &format!("utterance {id}"), longest_s);
            self.need(
                max_length >= longest_s,
                place,
                format_args!(
                    "batch.max_length is {max_length} s, utterance {id} lasts {longest_s:.2} s"
                ),
            );
        }
        Some(n * (1 + source.speeds.len()))
    }

    pub(super) fn eval(&mut self, eval: &EvalConfig) {
        self.need(
            !matches!(self.recipe.model, ModelConfig::Aligner(_)),
            "eval",
            "an aligner writes nothing; leave the table out, and measure with `sandhi align` and `sandhi score boundaries`",
        );
        let is_speech_text = matches!(self.recipe.model, ModelConfig::SpeechText(_));
        self.need(
            !is_speech_text || (eval.choices.is_none() && eval.manifest.is_none()),
            "eval",
            "a speech_text model is asked about Microworld's stories alone; leave manifest and choices out",
        );
        let place = "eval.unit_files";
        self.need(
            is_speech_text || eval.unit_files.is_empty(),
            place,
            "files of units are for speech_text models",
        );
        let units: Vec<_> =
            eval.unit_files.iter().filter_map(|path| self.path(place, path)).collect();
        for path in &units {
            self.right(place, UnitCorpus::open(std::slice::from_ref(path)));
        }
        if let Some((first, second)) = tasks::same_name(&units) {
            let (first, second) = (first.display(), second.display());
            self.problem(
                place,
                format_args!("{first} and {second} have one name, which names their results"),
            );
        }
        let is_vocoder = matches!(self.recipe.model, ModelConfig::Vocoder(_));
        self.need(
            !is_vocoder || (eval.choices.is_none() && eval.manifest.is_none()),
            "eval",
            "a vocoder says Microworld's sentences again; leave manifest and choices out",
        );
        if let Some(path) = &eval.recognizer {
            let place = "eval.recognizer";
            let reads = is_vocoder || eval.vocoder.is_some();
            self.need(
                reads,
                place,
                "reads what a vocoder says; leave it out, or name eval.vocoder",
            );
            self.path(place, path);
        }
        if let Some(path) = &eval.vocoder {
            let place = "eval.vocoder";
            self.need(is_speech_text, place, "says what a speech_text model does; leave it out");
            self.need(
                eval.recognizer.is_some(),
                place,
                "nothing reads it: eval.recognizer is missing",
            );
            self.path(place, path);
        }
        self.counts("eval", "n", eval.n);
        self.at_least_one("eval", "max_tokens", eval.max_tokens);
        for task in eval.tasks.iter().filter(|task| !tasks::is_task(task)) {
            let known: Vec<&str> = tasks::TASKS.iter().map(|(name, _)| *name).collect();
            self.problem(
                "eval.tasks",
                format_args!("no task is called {task:?}; tasks are {}", known.join(", ")),
            );
        }
        for domain in eval.domains.iter().filter(|domain| !tasks::is_domain(domain)) {
            self.problem(
                "eval.domains",
                format_args!(
                    "no domain is called {domain:?}; domains are {}",
                    tasks::DOMAINS.join(", ")
                ),
            );
        }
        if let Some(path) = &eval.manifest {
            self.import("eval", "manifest", path, eval.manifest_split.as_deref());
            if eval.choices.is_some() {
                self.problem(
                    "eval",
                    "either a manifest is transcribed or choices are made, not both",
                );
            }
        }
        if let Some(choices) = &eval.choices {
            if choices.paths.is_empty() {
                self.problem("eval.choices", "no `paths` are given");
            }
            let is_heard = kind(&self.recipe.model) == "connector";
            let mut files = Vec::with_capacity(choices.paths.len());
            for path in &choices.paths {
                let Some(file) = self.path("eval.choices.paths", path) else { continue };
                if let Err(error) = tasks::check_choices(&file, choices, &eval.domains, is_heard) {
                    self.problem("eval.choices", error);
                }
                files.push(file);
            }
            if let Err(error) = choice::check_names(&files) {
                self.problem("eval.choices.paths", error);
            }
        }
    }
}

fn n_words(text: &str) -> usize {
    text.split_whitespace().count()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    use crate::{
        hf::Hub,
        plan::check::check,
        recipe::{Overrides, read_str},
    };

    #[test]
    fn choices_are_known_before_training() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["a", "b"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
            let item = r#"{"id": "1", "context": "a", "endings": ["b", "c"], "right": 0}"#;
            fs::write(dir.path().join(folder).join("told.jsonl"), item).unwrap();
        }
        let problems = |eval: &str| -> Vec<String> {
            let text = format!(
                "name = \"n\"\nseed = 1\n[model]\nkind = \"text\"\ntokenizer = {{ vocab_size = 300 }}\n\
                 language_model = {{ d_model = 16, n_layers = 1, n_heads = 2, d_ff = 32 }}\n\
                 [eval]\nn = 1\n{eval}"
            );
            let recipe = read_str(&text, Path::new("n.toml"), &Overrides::default()).unwrap();
            let found = check(&recipe, dir.path(), &Hub::offline(PathBuf::new())).problems;
            found.into_iter().filter(|problem| problem.starts_with("eval")).collect()
        };
        assert_eq!(problems("choices = { paths = [\"a/told.jsonl\"] }"), Vec::<String>::new());
        let found = problems("choices = { paths = [\"a/told.jsonl\", \"b/told.jsonl\"] }");
        assert!(found.len() == 1 && found[0].contains("found the name \"told\""), "{found:?}");
        let found = problems("domains = [\"tempo\"]\nchoices = { paths = [\"a/told.jsonl\"] }");
        assert!(found.len() == 1 && found[0].contains("found the domain \"tempo\""), "{found:?}");
    }
}
