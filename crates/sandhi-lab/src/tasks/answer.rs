//! What a language model answers to the items of a cell, however it takes them in.
//!
//! ```text
//!                    ┌─ transcript
//! item ─ instruction ┼─ speech, base ── connector       the instruction is read once,
//!                    ├─ speech, tempo ─ connector       however long a list of names it has
//!                    └─ CTC text
//! ```

use std::ops::Range;

use rayon::prelude::*;
use sandhi_nn::ragged::Ragged;

use super::{
    Outcome, Outcomes,
    choice::{Asked, Context, Likelihood, Question},
    gather,
};
use crate::{
    generate::{self, Answer, Decoding},
    model::{ConnectorModel, TextModel},
    sources::Error,
    train::dataset::Utterance,
};

/// Sequences that go through a model at once.
pub(super) const AT_ONCE: usize = 64;

/// What is asked of items, in their order.
pub(super) struct Job {
    pub(super) asked: Vec<Asked>,
    /// What is said in each, where that is known.
    pub(super) said: Vec<Option<String>>,
    /// The longest free answer, in tokens; none where nothing is to be answered freely.
    pub(super) max_tokens: Option<usize>,
}

/// What a language model takes in of each item of a job, in their order.
pub(super) enum Way {
    /// Speech, through the encoder and the connector.
    Heard(Vec<Utterance>),
    /// Writing.
    Read(Vec<String>),
}

/// A language model, and what it hears with.
#[derive(Clone)]
pub(super) enum Reader {
    Connector(Box<ConnectorModel>),
    /// Takes in writing only.
    Text(Box<TextModel>),
}

impl Reader {
    fn text(&self) -> &TextModel {
        match self {
            Self::Connector(model) => &model.text,
            Self::Text(model) => model,
        }
    }

    /// Oracles are told what is said.
    fn vectors(
        &self,
        utterances: &[&Utterance],
        said: &[Option<&str>],
    ) -> Result<Option<Ragged>, Error> {
        match self {
            _ if utterances.is_empty() => Ok(None),
            Self::Connector(model) => {
                let frames = gather(&model.speech, utterances.iter().copied());
                let said: Option<Vec<&str>> = said.iter().copied().collect();
                Ok(Some(model.vectors(&frames, said.as_deref())?))
            }
            Self::Text(_) => unreachable!("a text model is given writing"),
        }
    }
}

/// Answers to the items of a job, for each way of taking them in.
///
/// # Errors
///
/// When the tokenizer refuses a text; when an oracle needs a transcript that there is not.
pub(super) fn answers(reader: &Reader, job: &Job, ways: &[Way]) -> Result<Vec<Outcomes>, Error> {
    let n = job.asked.len();
    // As many chunks as threads can share evenly, of one size: a step of decoding is too little work for
    // several threads, several chunks are not. No answer depends on how the items are cut.
    let n_chunks = (n * ways.len()).div_ceil(AT_ONCE).max(1);
    let size = n.div_ceil(n_chunks.next_multiple_of(rayon::current_num_threads())).max(1);
    let chunks: Vec<(Range<usize>, Reader)> =
        (0..n).step_by(size).map(|i| (i..(i + size).min(n), reader.clone())).collect();
    let found: Vec<Outcomes> = chunks
        .into_par_iter()
        .map(|(range, reader)| chunk(&reader, job, ways, range))
        .collect::<Result<_, Error>>()?;
    let mut outcomes: Vec<Outcomes> = ways.iter().map(|_| Vec::with_capacity(n)).collect();
    for (i, outcome) in found.into_iter().flatten().enumerate() {
        outcomes[i % ways.len()].push(outcome);
    }
    Ok(outcomes)
}

/// Answers to some items, item by item and way by way.
fn chunk(reader: &Reader, job: &Job, ways: &[Way], range: Range<usize>) -> Result<Outcomes, Error> {
    let TextModel { lm, chat, .. } = reader.text();
    let n = range.len() * ways.len();
    let (mut prompts, mut options) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let mut asked: Vec<&Asked> = Vec::with_capacity(n);
    let (mut utterances, mut said): (Vec<&Utterance>, Vec<Option<&str>>) = Default::default();
    for i in range {
        for way in ways {
            let context = match way {
                Way::Heard(heard) => {
                    utterances.push(&heard[i]);
                    said.push(job.said[i].as_deref());
                    Context::Heard(utterances.len() - 1, job.said[i].as_deref())
                }
                Way::Read(texts) => Context::Written(&texts[i]),
            };
            let Question { prompt, endings } = Question::new(chat, &job.asked[i], context)?;
            prompts.push(prompt);
            options.push(endings);
            asked.push(&job.asked[i]);
        }
    }
    let vectors = reader.vectors(&utterances, &said)?;
    let mut found = vec![Outcome::default(); prompts.len()];
    if let Some(max_tokens) = job.max_tokens {
        let decoding = Decoding { max_tokens, batch: AT_ONCE, ..Decoding::default() };
        let answers = generate::generate(lm, &prompts, vectors.as_ref(), chat.ends(), &decoding);
        for (outcome, Answer { ids, .. }) in found.iter_mut().zip(answers) {
            outcome.text = chat.decode(&ids);
        }
    }
    if options.iter().any(|endings| !endings.is_empty()) {
        let scores = generate::score(lm, &prompts, &options, vectors.as_ref(), AT_ONCE);
        for ((outcome, asked), scores) in found.iter_mut().zip(asked).zip(scores) {
            let endings = scores.iter().zip(&asked.endings);
            outcome.endings = endings.map(|(tokens, text)| Likelihood::new(tokens, text)).collect();
        }
    }
    Ok(found)
}
