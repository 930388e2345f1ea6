//! How far speech leads from where the same words in writing lead.
//!
//! ```text
//! story, written ─ language model before ─ o(. | ending so far) ─┐
//! story, written ─ language model after ── t(. | ending so far) ─┼─ divergences at every token of the ending
//! story, spoken ── language model after ── s(. | ending so far) ─┘
//! ```
//!
//! SALAD (Cuervo et al. 2025, [arXiv 2510.13632](https://arxiv.org/abs/2510.13632)) tells what a model has forgotten from
//! what it does not hear by two divergences. Theirs are of web text cut into pieces that are spoken and pieces that are
//! written; here the prompt is the one of training, its story is spoken or written, and the positions are those of the
//! right ending, which is written: the story's whole meaning has to come through.

use std::ops::AddAssign;

use rayon::prelude::*;
use sandhi_data::{
    microworld::Item,
    score::{Bootstrap, Interval},
};
use sandhi_nn::{ragged::Ragged, transformer::Dropout};
use serde::Serialize;

use super::{
    Error,
    divergence::{at_every_row, divergence},
    forgetting::{check_tokens, shared_tokens},
};
use crate::{
    frames::FrameCache,
    model::{
        ConnectorModel, TextModel,
        pack::{Segment, pack},
    },
    recipe::Half,
    results::{Metric, Results},
    sources::{self, Spoken, Workshop},
    tasks::{gather, stories},
    train::dataset::Utterance,
};

/// Stories that go through a model at once.
const AT_ONCE: usize = 16;

/// What is measured.
#[derive(Debug, Clone)]
pub struct SpeechConfig {
    /// Domains of [`crate::tasks::DOMAINS`]; all when empty.
    pub domains: Vec<String>,
    /// Utterances of each domain, and of each language where there are several.
    pub n: usize,
    /// Of which half.
    pub half: Half,
    /// How intervals are made, over utterances.
    pub bootstrap: Bootstrap,
}

/// A domain. Divergences are in nats a token, means over all tokens of all endings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MisalignmentRow {
    /// The domain.
    pub domain: String,
    /// Stories.
    pub n_stories: usize,
    /// Those of which no vector reached the language model.
    pub n_unheard: usize,
    /// Tokens of their endings.
    pub n_tokens: usize,
    /// Misalignment, `KL(t || s)`: the model as it is, on what it reads and on what it hears.
    pub misalignment: Interval,
    /// Forgetting at the same tokens, `KL(o || t)`: what is read, before and after.
    pub forgetting: Interval,
    /// Both together, `KL(o || s)`: what the language model read before it was trained, and what it hears now. No sum of the
    /// two others; equal to misalignment where the language model is what it was.
    pub gap: Interval,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    n_tokens: f64,
    n_unheard: usize,
    misalignment: f64,
    forgetting: f64,
    gap: f64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.n_tokens += other.n_tokens;
        self.n_unheard += other.n_unheard;
        self.misalignment += other.misalignment;
        self.forgetting += other.forgetting;
        self.gap += other.gap;
    }
}

/// The divergences in every domain; `before` is the language model that the model was made from.
///
/// # Errors
///
/// When speech cannot be made, frames cannot be cached, or the language models do not share their tokens.
pub fn misalignment(
    before: &TextModel,
    model: &ConnectorModel,
    workshop: &Workshop,
    config: &SpeechConfig,
    cache: &FrameCache,
    progress: &dyn Fn(&str, usize, usize),
) -> Result<Vec<MisalignmentRow>, Error> {
    check_tokens(before, &model.text)?;
    let mut rows = Vec::new();
    for (domain, told) in stories(workshop.world(), config.half.split(), &config.domains, config.n)
    {
        let (items, spoken): (Vec<Item>, Vec<Spoken>) = told.into_iter().unzip();
        let utterances = workshop.frames(&spoken, &model.speech, cache, &|done, total| {
            progress(&format!("hearing {domain}"), done, total);
        })?;
        let chunks: Vec<(&[Item], &[Utterance], TextModel, ConnectorModel)> = items
            .chunks(AT_ONCE)
            .zip(utterances.chunks(AT_ONCE))
            .map(|(items, utterances)| (items, utterances, before.clone(), model.clone()))
            .collect();
        let counts: Vec<Vec<Counts>> = chunks
            .into_par_iter()
            .map(|(items, utterances, before, model)| {
                let texts: Vec<&str> = items.iter().map(|item| item.spoken.as_str()).collect();
                let frames = gather(&model.speech, utterances);
                let vectors = model.vectors(&frames, Some(&texts)).map_err(sources::Error::from)?;
                told_both(&before, &model.text, items, &vectors)
            })
            .collect::<Result<_, _>>()?;
        let counts = counts.concat();
        let mut sum = Counts::default();
        counts.iter().for_each(|&counts| sum += counts);
        let mean = |part: fn(&Counts) -> f64| {
            config.bootstrap.interval(&counts, |counts| part(counts) / counts.n_tokens)
        };
        rows.push(MisalignmentRow {
            domain: domain.to_owned(),
            n_stories: counts.len(),
            n_unheard: sum.n_unheard,
            n_tokens: sum.n_tokens as usize,
            misalignment: mean(|counts| counts.misalignment),
            forgetting: mean(|counts| counts.forgetting),
            gap: mean(|counts| counts.gap),
        });
    }
    Ok(rows)
}

/// Stories as speech and in writing, up to the last token of their endings.
///
/// # Shapes
///
/// - `vectors.values`: `[n_vectors, d_model]`, a span a story
fn told_both(
    before: &TextModel,
    after: &TextModel,
    items: &[Item],
    vectors: &Ragged,
) -> Result<Vec<Counts>, Error> {
    let both = [before, after];
    let (mut written, mut spoken) = (Vec::new(), Vec::new());
    let mut endings: Vec<Vec<u32>> = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let ending = item.story.as_ref().map_or(&item.answer, |story| &story.endings[story.right]);
        let ending = shared_tokens(both, |model| model.chat.answer(ending), ending)?;
        let text = shared_tokens(both, |model| model.chat.transcript(&item.spoken), &item.spoken)?;
        let frame = after.chat.frame(&item.instruction).map_err(sources::Error::from)?;
        // The last token is predicted and never read.
        let tail: Vec<u32> =
            frame.after.into_iter().chain(ending[..ending.len() - 1].iter().copied()).collect();
        let around = |told: Segment| {
            [Segment::Tokens(frame.before.clone()), told, Segment::Tokens(tail.clone())]
        };
        written.push(around(Segment::Tokens(text)));
        spoken.push(around(Segment::Speech(i)));
        endings.push(ending);
    }
    let tails: Vec<usize> = endings.iter().map(Vec::len).collect();
    let (lm, off) = (&after.lm, Dropout::OFF);
    let readers = [
        (&before.lm, before.lm.forward_tails(&pack(&before.lm, &written, None), &tails, off)),
        (lm, lm.forward_tails(&pack(lm, &written, None), &tails, off)),
        (lm, lm.forward_tails(&pack(lm, &spoken, Some(vectors)), &tails, off)),
    ];
    let mut counts: Vec<Counts> = vectors
        .offsets
        .iter()
        .map(|span| Counts { n_unheard: usize::from(span.is_empty()), ..Counts::default() })
        .collect();
    let story_of: Vec<usize> =
        tails.iter().enumerate().flat_map(|(i, &n)| std::iter::repeat_n(i, n)).collect();
    at_every_row(&readers, |row, expected| {
        let [original, read, heard] = expected else { unreachable!("three readers") };
        counts[story_of[row]] += Counts {
            n_tokens: 1.0,
            n_unheard: 0,
            misalignment: divergence(read, heard),
            forgetting: divergence(original, read),
            gap: divergence(original, heard),
        };
    });
    Ok(counts)
}

/// Adds the numbers to a run's: under `misalignment`, by domain.
pub fn add_misalignment(rows: &[MisalignmentRow], results: &mut Results) {
    for row in rows {
        let mut set = |metric: &str, interval: Interval| {
            results.set("misalignment", &row.domain, metric, Metric::from(interval));
        };
        set("divergence", row.misalignment);
        set("divergence_forgetting", row.forgetting);
        set("divergence_gap", row.gap);
    }
}

#[cfg(test)]
mod tests {
    use sandhi_data::{
        language::Language,
        microworld::{Microworld, Split, Style, Task},
    };
    use sandhi_nn::ragged::Offsets;

    use super::*;
    use crate::inspect::testing::text_model;

    fn items() -> Vec<Item> {
        Microworld::new(1).items(Task::Continue, Language::English, Split::Dev, Style::Seen, 3)
    }

    /// The embeddings of what is said, or of the same tokens in reverse order.
    fn embedded(model: &TextModel, items: &[Item], reversed: bool) -> Ragged {
        let tokens = |item: &Item| {
            let mut ids = model.chat.transcript(&item.spoken).unwrap();
            if reversed {
                ids.reverse();
            }
            ids
        };
        let ids: Vec<Vec<u32>> = items.iter().map(tokens).collect();
        let offsets = Offsets::from_lengths(&ids.iter().map(Vec::len).collect::<Vec<_>>());
        Ragged { values: model.lm.embed(&ids.concat()), offsets }
    }

    #[test]
    fn speech_that_is_what_is_read_is_not_misaligned() {
        let (model, items) = (text_model(3), items());
        let counts = told_both(&model, &model, &items, &embedded(&model, &items, false)).unwrap();
        for (counts, item) in counts.iter().zip(&items) {
            let story = item.story.as_ref().unwrap();
            let ending = model.chat.answer(&story.endings[story.right]).unwrap();
            assert_eq!((counts.n_tokens, counts.n_unheard), (ending.len() as f64, 0));
            assert_eq!((counts.misalignment, counts.forgetting, counts.gap), (0.0, 0.0, 0.0));
        }
        // The same words the other way round are something else.
        let counts = told_both(&model, &model, &items, &embedded(&model, &items, true)).unwrap();
        assert!(counts.iter().all(|counts| counts.misalignment > 1e-6), "{counts:?}");
        // What it reads is what it was.
        assert!(counts.iter().all(|c| c.forgetting == 0.0 && c.gap == c.misalignment));
    }

    #[test]
    fn forgetting_and_misalignment_are_told_apart() {
        let (before, after, items) = (text_model(3), text_model(4), items());
        let counts = told_both(&before, &after, &items, &embedded(&after, &items, false)).unwrap();
        assert!(counts.iter().all(|c| c.misalignment == 0.0 && c.forgetting > 1e-3));
        assert!(counts.iter().all(|c| c.gap == c.forgetting));
        // Of one of them nothing is heard.
        let heard = embedded(&after, &[items[0].clone(), items[2].clone()], false);
        let [first, last] = heard.offsets.lengths()[..] else { unreachable!("two are heard") };
        let heard = Ragged { offsets: Offsets::from_lengths(&[first, 0, last]), ..heard };
        let counts = told_both(&before, &after, &items, &heard).unwrap();
        let unheard: Vec<usize> = counts.iter().map(|counts| counts.n_unheard).collect();
        assert_eq!(unheard, [0, 1, 0]);
        assert!(counts[1].misalignment > 1e-6 && counts[0].misalignment == 0.0, "{counts:?}");
    }
}
