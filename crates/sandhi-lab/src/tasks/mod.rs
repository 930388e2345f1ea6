//! Evaluation: every task in every domain, from speech, from the transcript and through the cascade.
//!
//! ```text
//! item ─┬─ speech ─ encoder ─ connector ─┐
//!       ├─ transcript ───────────────────┼─ the same language model ─ answer ─ score
//!       └─ speech ─ encoder ─ CTC text ──┘
//! ```
//!
//! The transcript's score is the upper bound, the share that speech recovers of it stands beside it.

mod cells;
mod score;

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use sandhi_data::{
    language::Language,
    microworld::{Item, biasing},
    speech::Domain,
    text::Unknown,
};
use sandhi_nn::{ragged::Ragged, transformer::CausalLm};

use self::cells::{Cell, Kind, cells};
pub use self::{
    cells::{DOMAINS, TASKS, is_domain, is_task, task_title},
    score::scorers,
};
use crate::{
    chat::Chat,
    frames::FrameCache,
    generate::{self, Answer, Decoding},
    model::{ConnectorModel, HostRagged, SpeechModel, TextModel, fingerprint, pack::Segment},
    recipe::EvalConfig,
    results::{CASCADE, Prediction, Results, TEXT},
    sources::{Error, Spoken, Workshop},
    train::dataset::Utterance,
};

/// What is found for one item.
#[derive(Debug, Clone)]
struct Outcome {
    /// The answer, or the chosen option.
    text: String,
    /// How likely the right option is.
    right: Option<Likelihood>,
    /// Which option was chosen.
    chosen: Option<usize>,
}

/// How likely a text is, and how long.
#[derive(Debug, Clone, Copy)]
struct Likelihood {
    /// Log-probability, in nats.
    log_prob: f64,
    /// Words.
    n_words: usize,
    /// Seconds that it takes to say, where speech is made.
    seconds: Option<f64>,
}

/// Answers of one way of reading the items of a cell.
type Outcomes = Vec<Outcome>;

/// Runs every cell and adds its scores to `results`; gives the predictions of every cell.
///
/// # Errors
///
/// When speech cannot be made or frames cannot be cached.
pub fn evaluate(
    model: &ConnectorModel,
    workshop: &Workshop,
    config: &EvalConfig,
    cache: &FrameCache,
    results: &mut Results,
    progress: &dyn Fn(&str, usize, usize),
) -> Result<Vec<Vec<Prediction>>, Error> {
    let mut all = cells(workshop.world(), config.half.split(), config);
    all.retain(|cell| !cell.items.is_empty());
    for cell in &mut all {
        cell.right_s = right_seconds(workshop, cell)?;
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
        workshop.frames(&spoken, &model.speech, cache, &|done, total| {
            progress(&format!("hearing {domain}"), done, total);
        })?;
    }
    let mut texts = TextAnswers::default();
    for (i, cell) in all.iter().enumerate().filter(|(_, cell)| cell.shortlist.is_none()) {
        progress(&format!("reading {}", cell.task), i, all.len());
        texts.read(&model.text, cell)?;
    }
    let mut predictions = Vec::with_capacity(all.len());
    // Several cells at once, so that no thread waits for the end of one.
    let at_once = 2 * rayon::current_num_threads();
    for (i, some) in all.chunks(at_once).enumerate() {
        progress(&format!("{} {}", some[0].task, some[0].domain), i * at_once, all.len());
        let jobs: Vec<(&Cell, ConnectorModel)> =
            some.iter().map(|cell| (cell, model.clone())).collect();
        let answered: Vec<Answered> = jobs
            .into_par_iter()
            .map(|(cell, model)| Answered::of(&model, workshop, cell, cache, &texts))
            .collect::<Result<_, Error>>()?;
        for Answered { cell, speech, text, cascade } in answered {
            score::add(results, &cell, &speech, &text, &cascade);
            let ways = [("", &speech), (TEXT, &text), (CASCADE, &cascade)];
            predictions.push(score::predictions(&cell, &ways));
            if cell.trained && !results.meta.trained_tasks.contains(&cell.task) {
                results.meta.trained_tasks.push(cell.task.clone());
            }
        }
    }
    results.meta.scorer.extend(scorers());
    progress("done", all.len(), all.len());
    Ok(predictions)
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
    let mut all = cells(workshop.world(), config.half.split(), config);
    all.retain(|cell| ["asr", "asr_de", "asr_es", "biasing_0"].contains(&cell.task.as_str()));
    let mut predictions = Vec::with_capacity(all.len());
    for (i, cell) in all.iter().enumerate() {
        progress(&format!("{} {}", cell.task, cell.domain), i, all.len());
        let heard = Heard::new(model, workshop, cell, cache)?;
        let outcomes: Outcomes = heard
            .transcripts
            .into_iter()
            .map(|text| Outcome { text, right: None, chosen: None })
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
    // Text does not sound; the acoustic domains are one, and nothing shortens a long list.
    all.retain(|cell| ["base", "texts"].contains(&cell.domain.as_str()));
    all.retain(|cell| cell.shortlist.is_none());
    let mut predictions = Vec::with_capacity(all.len());
    for (i, cell) in all.iter().enumerate() {
        progress(&format!("{} {}", cell.task, cell.domain), i, all.len());
        let outcomes = read(model, cell, &cell.transcripts())?;
        score::add_one(results, cell, TEXT, &outcomes);
        predictions.push(score::predictions(cell, &[(TEXT, &outcomes)]));
    }
    results.meta.scorer.extend(scorers());
    progress("done", all.len(), all.len());
    Ok(predictions)
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
        })
        .collect();
    let sounds = workshop.sounds(&spoken)?;
    Ok(texts.into_iter().zip(sounds.iter().map(|sound| sound.wave.duration_s())).collect())
}

/// Frames of the speech of a cell, and what the encoder's CTC head makes of them.
struct Heard {
    utterances: Vec<Utterance>,
    transcripts: Vec<String>,
    d_encoder: usize,
}

/// Utterances that go through the connector at once.
const AT_ONCE: usize = 64;

impl Heard {
    fn new(
        speech: &SpeechModel,
        workshop: &Workshop,
        cell: &Cell,
        cache: &FrameCache,
    ) -> Result<Self, Error> {
        let spoken: Vec<Spoken> = cell.items.iter().map(|item| cell.spoken(item)).collect();
        let utterances = workshop.frames(&spoken, speech, cache, &|_, _| {})?;
        let d_encoder = speech.d_encoder();
        let mut transcripts = Vec::with_capacity(utterances.len());
        for chunk in utterances.chunks(AT_ONCE) {
            let frames = HostRagged::gather(d_encoder, chunk.iter().map(|u| u.rows.as_ref()));
            transcripts.extend(speech.transcribe(&frames));
        }
        Ok(Self { utterances, transcripts, d_encoder })
    }

    fn frames(&self, range: std::ops::Range<usize>) -> HostRagged {
        let rows = self.utterances[range].iter().map(|u| u.rows.as_ref());
        HostRagged::gather(self.d_encoder, rows)
    }

    fn vectors(&self, model: &ConnectorModel, range: std::ops::Range<usize>) -> Ragged {
        model.vectors(&self.frames(range))
    }

    /// Long lists of phrases cut to those that the CTC posteriors can have.
    fn shortlisted(&self, model: &ConnectorModel, cell: &Cell) -> Result<Cell, Error> {
        let mut cell = cell.clone();
        let Some(n) = cell.shortlist else { return Ok(cell) };
        for (i, item) in cell.items.iter_mut().enumerate() {
            let log_probs = model.speech.ctc_log_probs(&self.frames(i..i + 1));
            let mut scored: Vec<(f32, &String)> = Vec::with_capacity(item.phrases.len());
            for phrase in &item.phrases {
                let ids = model.speech.symbols.encode(phrase, Unknown::Skip)?;
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

/// A cell with its answers from speech, from the transcript and through the cascade.
struct Answered {
    cell: Cell,
    speech: Outcomes,
    text: Outcomes,
    cascade: Outcomes,
}

impl Answered {
    fn of(
        model: &ConnectorModel,
        workshop: &Workshop,
        cell: &Cell,
        cache: &FrameCache,
        texts: &TextAnswers,
    ) -> Result<Self, Error> {
        let heard = Heard::new(&model.speech, workshop, cell, cache)?;
        let cell = heard.shortlisted(model, cell)?;
        let speech = answers(&model.text, &cell, &mut |range| {
            let vectors = heard.vectors(model, range.clone());
            let inputs = (0..range.len()).map(|k| vec![Segment::Speech(k)]).collect();
            Ok((inputs, Some(vectors)))
        })?;
        let cascade = read(&model.text, &cell, &heard.transcripts)?;
        let text = match texts.of(&cell) {
            Some(outcomes) => outcomes,
            // A list that follows from the sound.
            None => read(&model.text, &cell, &cell.transcripts())?,
        };
        Ok(Self { cell, speech, text, cascade })
    }
}

/// Answers from transcripts, which do not depend on how the speech sounds.
#[derive(Default)]
struct TextAnswers(HashMap<(String, String), Outcome>);

impl TextAnswers {
    fn key(item: &Item) -> (String, String) {
        (item.instruction.clone(), item.spoken.clone())
    }

    /// Answers what no earlier cell asked.
    fn read(&mut self, model: &TextModel, cell: &Cell) -> Result<(), Error> {
        let mut part = cell.clone();
        part.items.retain(|item| !self.0.contains_key(&Self::key(item)));
        let found = read(model, &part, &part.transcripts())?;
        self.0.extend(part.items.iter().map(Self::key).zip(found));
        Ok(())
    }

    /// The answers of a cell, where all of it was read.
    fn of(&self, cell: &Cell) -> Option<Outcomes> {
        cell.items.iter().map(|item| self.0.get(&Self::key(item)).cloned()).collect()
    }
}

/// Answers of the language model that reads what was said.
fn read(model: &TextModel, cell: &Cell, transcripts: &[String]) -> Result<Outcomes, Error> {
    answers(model, cell, &mut |range| {
        let inputs: Result<Vec<Vec<Segment>>, Error> = transcripts[range]
            .iter()
            .map(|text| Ok(vec![Segment::Tokens(model.chat.tokenizer().encode(text)?)]))
            .collect();
        Ok((inputs?, None))
    })
}

/// What stands in the place of the speech, and its vectors where it is speech.
type Inputs = (Vec<Vec<Segment>>, Option<Ragged>);

/// A chunk of a cell with what the language model reads of it.
struct Chunk {
    range: std::ops::Range<usize>,
    inputs: Inputs,
    lm: CausalLm,
}

fn answers(
    model: &TextModel,
    cell: &Cell,
    inputs: &mut dyn FnMut(std::ops::Range<usize>) -> Result<Inputs, Error>,
) -> Result<Outcomes, Error> {
    let n = cell.items.len();
    // As many chunks as threads can share evenly, of one size.
    let n_chunks = n.div_ceil(AT_ONCE).max(1).next_multiple_of(rayon::current_num_threads());
    let size = n.div_ceil(n_chunks).max(1);
    let chunks: Vec<Chunk> = (0..n)
        .step_by(size)
        .map(|start| {
            let range = start..(start + size).min(n);
            Ok(Chunk { inputs: inputs(range.clone())?, lm: model.lm.clone(), range })
        })
        .collect::<Result<_, Error>>()?;
    // A step of decoding is too little work for several threads, several chunks are not. No answer
    // depends on how the items are cut.
    let found: Vec<Outcomes> = chunks
        .into_par_iter()
        .map(|chunk| answers_of(&model.chat, cell, chunk))
        .collect::<Result<_, Error>>()?;
    Ok(found.into_iter().flatten().collect())
}

fn answers_of(chat: &Chat, cell: &Cell, chunk: Chunk) -> Result<Outcomes, Error> {
    let Chunk { range, inputs: (inputs, vectors), lm } = chunk;
    let items = &cell.items[range];
    let prompts: Vec<Vec<Segment>> = items
        .iter()
        .zip(inputs)
        .map(|(item, input)| chat.prompt(&item.instruction, input))
        .collect::<Result<_, _>>()?;
    let mut found: Outcomes = if cell.kind.generates() {
        let decoding =
            Decoding { max_tokens: cell.max_tokens, batch: AT_ONCE, ..Decoding::default() };
        generate::generate(&lm, &prompts, vectors.as_ref(), chat.end(), &decoding)
            .into_iter()
            .map(|Answer { ids, .. }| Outcome {
                text: chat.decode(&ids),
                right: None,
                chosen: None,
            })
            .collect()
    } else {
        vec![Outcome { text: String::new(), right: None, chosen: None }; items.len()]
    };
    let options: Vec<Vec<String>> = items.iter().map(|item| cell.options(item)).collect();
    if options.iter().all(Vec::is_empty) {
        return Ok(found);
    }
    let (mut contexts, mut continuations) = (Vec::new(), Vec::new());
    for (prompt, options) in prompts.iter().zip(&options) {
        for option in options {
            contexts.push(prompt.clone());
            continuations.push(chat.answer(option)?);
        }
    }
    let scores = generate::score(&lm, &contexts, &continuations, vectors.as_ref(), AT_ONCE);
    let mut scores = scores.into_iter().map(|tokens| tokens.iter().sum::<f64>());
    for ((outcome, options), item) in found.iter_mut().zip(&options).zip(items) {
        let scores: Vec<f64> = scores.by_ref().take(options.len()).collect();
        let chosen =
            (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
        let right = cell.right(item);
        outcome.chosen = Some(chosen);
        outcome.right = Some(Likelihood {
            log_prob: scores[right],
            n_words: options[right].split_whitespace().count(),
            seconds: cell.right_s.get(&options[right]).copied(),
        });
        if cell.kind == Kind::Choice {
            outcome.text.clone_from(&options[chosen]);
        }
    }
    Ok(found)
}

/// The cache that a model's encoder frames are kept in.
pub fn frame_cache(model: &ConnectorModel, dir: &std::path::Path) -> FrameCache {
    FrameCache::new(dir, &fingerprint(&model.speech.net.encoder))
}
