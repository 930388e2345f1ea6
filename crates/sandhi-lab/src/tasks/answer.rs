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
use sandhi_data::microworld::Item;
use sandhi_nn::ragged::Ragged;

use super::{
    Likelihood, Outcome, Outcomes,
    cells::{Cell, Kind},
    gather,
};
use crate::{
    generate::{self, Answer, Decoding},
    model::{ConnectorModel, TextModel, pack::Segment},
    sources::Error,
    train::dataset::Utterance,
};

/// Sequences that go through a model at once.
pub(super) const AT_ONCE: usize = 64;

/// What a language model takes in of each item of a cell, in their order.
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
    fn vectors(&self, utterances: &[&Utterance], said: &[&str]) -> Result<Option<Ragged>, Error> {
        match self {
            _ if utterances.is_empty() => Ok(None),
            Self::Connector(model) => {
                let frames = gather(&model.speech, utterances.iter().copied());
                Ok(Some(model.vectors(&frames, Some(said))?))
            }
            Self::Text(_) => unreachable!("a text model is given writing"),
        }
    }
}

/// Answers to the items of a cell, for each way of taking them in.
///
/// # Errors
///
/// When the tokenizer refuses a text.
pub(super) fn answers(reader: &Reader, cell: &Cell, ways: &[Way]) -> Result<Vec<Outcomes>, Error> {
    let n = cell.items.len();
    // As many chunks as threads can share evenly, of one size: a step of decoding is too little work for
    // several threads, several chunks are not. No answer depends on how the items are cut.
    let n_chunks = (n * ways.len()).div_ceil(AT_ONCE).max(1);
    let size = n.div_ceil(n_chunks.next_multiple_of(rayon::current_num_threads())).max(1);
    let chunks: Vec<(Range<usize>, Reader)> =
        (0..n).step_by(size).map(|i| (i..(i + size).min(n), reader.clone())).collect();
    let found: Vec<Outcomes> = chunks
        .into_par_iter()
        .map(|(range, reader)| chunk(&reader, cell, ways, range))
        .collect::<Result<_, Error>>()?;
    let mut outcomes: Vec<Outcomes> = ways.iter().map(|_| Vec::with_capacity(n)).collect();
    for (i, outcome) in found.into_iter().flatten().enumerate() {
        outcomes[i % ways.len()].push(outcome);
    }
    Ok(outcomes)
}

/// Answers to some items, item by item and way by way.
fn chunk(
    reader: &Reader,
    cell: &Cell,
    ways: &[Way],
    range: Range<usize>,
) -> Result<Outcomes, Error> {
    let chat = &reader.text().chat;
    let mut prompts = Vec::with_capacity(range.len() * ways.len());
    let mut items: Vec<&Item> = Vec::with_capacity(prompts.capacity());
    let (mut utterances, mut said): (Vec<&Utterance>, Vec<&str>) = Default::default();
    for i in range {
        for way in ways {
            let input = match way {
                Way::Heard(heard) => {
                    utterances.push(&heard[i]);
                    said.push(&cell.items[i].spoken);
                    Segment::Speech(utterances.len() - 1)
                }
                Way::Read(texts) => Segment::Tokens(chat.transcript(&texts[i])?),
            };
            prompts.push(chat.prompt(&cell.items[i].instruction, vec![input])?);
            items.push(&cell.items[i]);
        }
    }
    let vectors = reader.vectors(&utterances, &said)?;
    let mut found = vec![Outcome::default(); items.len()];
    if cell.kind.generates() {
        let decoding =
            Decoding { max_tokens: cell.max_tokens, batch: AT_ONCE, ..Decoding::default() };
        let lm = &reader.text().lm;
        let answers = generate::generate(lm, &prompts, vectors.as_ref(), chat.ends(), &decoding);
        for (outcome, Answer { ids, .. }) in found.iter_mut().zip(answers) {
            outcome.text = chat.decode(&ids);
        }
    }
    if cell.kind.chooses() {
        choose(reader.text(), cell, &items, &prompts, vectors.as_ref(), &mut found)?;
    }
    Ok(found)
}

/// Finds the likeliest option of each item, and how likely the right one is.
fn choose(
    model: &TextModel,
    cell: &Cell,
    items: &[&Item],
    prompts: &[Vec<Segment>],
    vectors: Option<&Ragged>,
    found: &mut Outcomes,
) -> Result<(), Error> {
    let options: Vec<Vec<String>> = items.iter().map(|item| cell.options(item)).collect();
    let ids = options
        .iter()
        .map(|options| options.iter().map(|text| model.chat.answer(text)).collect())
        .collect::<Result<Vec<Vec<_>>, _>>()?;
    let scores = generate::score(&model.lm, prompts, &ids, vectors, AT_ONCE);
    for (((outcome, options), item), scores) in
        found.iter_mut().zip(&options).zip(items).zip(scores)
    {
        let scores: Vec<f64> = scores.iter().map(|tokens| tokens.iter().sum()).collect();
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
    Ok(())
}
