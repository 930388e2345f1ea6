//! How alike the patches of one word are: the vectors that enter the transformer over patches, by the words they are of.
//!
//! ```text
//! story, spoken ─ units ─ patches ─ encoder ─ vectors ─┬─ of one word, in two utterances ─ cosine within
//!                            └─ the word of most units ┴─ of two words, in two utterances ─ cosine between
//! ```
//!
//! LST (<https://arxiv.org/abs/2510.06195>) finds a cosine of about 0.87 within words and 0.43 between them, for patches
//! that are words, and a silhouette of 0.65 to 0.68. Where patches are no words, a word has several, and one that is cut
//! elsewhere is another vector; so numbers compare between models whose patches are found alike.

use std::{collections::BTreeMap, ops::Range};

use sandhi_data::{
    interleave::{self, SpeechSpan},
    text::normalize,
    units::UnitUtterance,
};
use sandhi_nn::{patch::members, transformer::Dropout, weights::host};
use serde::Serialize;

use super::Error;
use crate::{
    frames::FrameCache,
    model::SpeechTextModel,
    recipe::Half,
    results::{Metric, Results},
    sources::{self, Spoken, Workshop},
    tasks::stories,
    train::{
        dataset::Draw,
        speech_text::{Network, Reading, SpeechTextBatch},
    },
};

/// Documents that go through a model at once.
const AT_ONCE: usize = 16;

/// What is measured.
#[derive(Debug, Clone)]
pub struct PatchesConfig {
    /// Domains of [`crate::tasks::DOMAINS`]; all when empty.
    pub domains: Vec<String>,
    /// Stories of each domain.
    pub n: usize,
    /// Of which half.
    pub half: Half,
}

/// A domain.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PatchesRow {
    /// The domain.
    pub domain: String,
    /// Stories that were heard.
    pub n_utterances: usize,
    /// Patches of units that became whole.
    pub n_patches: usize,
    /// Those that are of a word; the others are silence.
    pub n_of_words: usize,
    /// Different words.
    pub n_words: usize,
    /// Whether patches end where words do, which nothing tells in use.
    pub is_told: bool,
    /// How alike they are.
    #[serde(flatten)]
    pub likeness: Likeness,
}

/// How alike vectors are, within words and between them. Absent where there is nothing to compare.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Likeness {
    /// Mean cosine of two vectors of one word in different utterances.
    pub within: Option<f64>,
    /// Mean cosine of two vectors of different words in different utterances.
    pub between: Option<f64>,
    /// Mean silhouette (Rousseeuw, 1987) of vectors among words, by the distance 1 - cosine, in other utterances alone: 1
    /// where words are apart, 0 where they are not. A vector of a word that no other utterance has counts 0.
    pub silhouette: Option<f64>,
}

/// Vectors, and of what each is.
#[derive(Debug, Default)]
struct Said {
    /// Numbers of word and utterance.
    of: Vec<(usize, usize)>,
    /// Of length 1, row after row.
    rows: Vec<f64>,
    width: usize,
}

impl Said {
    fn row(&self, i: usize) -> &[f64] {
        &self.rows[i * self.width..(i + 1) * self.width]
    }

    /// Adds a vector; one of length 0 has no direction and is left out.
    fn push(&mut self, word: usize, utterance: usize, vector: &[f32]) {
        let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            self.width = vector.len();
            self.of.push((word, utterance));
            self.rows.extend(vector.iter().map(|&x| f64::from(x) / length));
        }
    }

    /// Sums of vectors, and how many there are, by what they are of.
    fn sums<K: Ord>(&self, key: impl Fn((usize, usize)) -> K) -> BTreeMap<K, (Vec<f64>, f64)> {
        let mut sums = BTreeMap::new();
        for (i, &of) in self.of.iter().enumerate() {
            let (sum, n) = sums.entry(key(of)).or_insert_with(|| (vec![0.0; self.width], 0.0));
            sum.iter_mut().zip(self.row(i)).for_each(|(sum, x)| *sum += x);
            *n += 1.0;
        }
        sums
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Cosines of all pairs, themselves included, and how many those are: the square of a sum is the sum over pairs.
fn pairs<K>(sums: &BTreeMap<K, (Vec<f64>, f64)>) -> [f64; 2] {
    let of = |(sum, n): &(Vec<f64>, f64)| [dot(sum, sum), n * n];
    sums.values().map(of).fold([0.0; 2], |[a, b], [c, d]| [a + c, b + d])
}

fn likeness(said: &Said) -> Likeness {
    let all = pairs(&said.sums(|_| ()));
    let same_utterance = pairs(&said.sums(|(_, utterance)| utterance));
    let words = said.sums(|(word, _)| word);
    let same_word = pairs(&words);
    let here = said.sums(|of| of);
    let both = pairs(&here);
    let mean = |sum: f64, n: f64| (n > 0.0).then(|| sum / n);
    let within = [0, 1].map(|i| same_word[i] - both[i]);
    let between = [0, 1].map(|i| all[i] - same_utterance[i] - within[i]);
    let silhouette = |i: usize| {
        let (row, (own, utterance)) = (said.row(i), said.of[i]);
        // From the vectors of a word in other utterances; none where it was said in this one alone.
        let distance = |word: usize, (sum, n): &(Vec<f64>, f64)| {
            let (of_here, n_here) = match here.get(&(word, utterance)) {
                Some((sum, n)) => (dot(row, sum), *n),
                None => (0.0, 0.0),
            };
            (*n > n_here).then(|| 1.0 - (dot(row, sum) - of_here) / (n - n_here))
        };
        let Some(near) = distance(own, &words[&own]) else { return 0.0 };
        let others = words.iter().filter(|(word, _)| **word != own);
        let far =
            others.filter_map(|(&word, sum)| distance(word, sum)).fold(f64::INFINITY, f64::min);
        let largest = near.max(far);
        if far.is_finite() && largest > 0.0 { (far - near) / largest } else { 0.0 }
    };
    let n = said.of.len();
    Likeness {
        within: mean(within[0], within[1]),
        between: mean(between[0], between[1]),
        silhouette: (words.len() > 1).then(|| (0..n).map(silhouette).sum::<f64>() / n as f64),
    }
}

/// The word that has most of a patch's units, the first of those that have as many; none where that is silence, or the
/// patch has no units.
fn word_of(patch: &Range<usize>, spans: &[SpeechSpan]) -> Option<u32> {
    let mut found: Vec<(Option<u32>, usize)> = Vec::new();
    for span in spans {
        let n = span.tokens.end.min(patch.end).saturating_sub(span.tokens.start.max(patch.start));
        match found.iter_mut().find(|(word, _)| *word == span.word) {
            Some((_, sum)) => *sum += n,
            None if n > 0 => found.push((span.word, n)),
            None => {}
        }
    }
    let first = |best: (Option<u32>, usize), next: &(Option<u32>, usize)| {
        if next.1 > best.1 { *next } else { best }
    };
    found.iter().fold((None, 0), first).0
}

/// How alike the patches of words are in every domain, on spoken stories.
///
/// # Errors
///
/// [`Error::NoPatches`] for a plain network, [`Error::Deaf`] for a model that hears nothing; when speech cannot be made or
/// frames cannot be cached.
pub fn patches(
    model: &SpeechTextModel,
    workshop: &Workshop,
    config: &PatchesConfig,
    cache: &std::path::Path,
    progress: &dyn Fn(&str, usize, usize),
) -> Result<Vec<PatchesRow>, Error> {
    if matches!(model.net.network, Network::Plain(_)) {
        return Err(Error::NoPatches);
    }
    let hearing = model.hearing.as_ref().ok_or(Error::Deaf)?;
    let cache = FrameCache::new(cache, &hearing.speech.frames_fingerprint());
    let mut rows = Vec::new();
    for (domain, told) in stories(workshop.world(), config.half.split(), &config.domains, config.n)
    {
        let spoken: Vec<Spoken> = told.into_iter().map(|(_, spoken)| spoken).collect();
        let utterances = workshop.units(&spoken, hearing, &cache, &|done, total| {
            progress(&format!("hearing {domain}"), done, total);
        })?;
        let utterances: Vec<UnitUtterance> = utterances
            .into_iter()
            .map(|utterance| model.in_tokens(utterance))
            .collect::<Result<_, _>>()
            .map_err(sources::Error::from)?;
        let (said, n_words, n_patches) = said_in(model, &utterances)?;
        rows.push(PatchesRow {
            domain: domain.to_owned(),
            n_utterances: utterances.len(),
            n_patches,
            n_of_words: said.of.len(),
            n_words,
            is_told: !model.can_go_on(),
            likeness: likeness(&said),
        });
    }
    Ok(rows)
}

/// The patches of words in utterances, how many words those are, and how many patches of units there are.
fn said_in(
    model: &SpeechTextModel,
    utterances: &[UnitUtterance],
) -> Result<(Said, usize, usize), Error> {
    let mut documents: Vec<(usize, Reading)> = Vec::new();
    for (i, utterance) in utterances.iter().enumerate() {
        let document = interleave::spoken(utterance, &model.vocabulary);
        let document = document.map_err(sources::Error::from)?;
        let parts = interleave::split(document, &model.vocabulary, model.context);
        for part in parts.map_err(sources::Error::from)? {
            documents.push((i, (part, utterance.words.clone().into())));
        }
    }
    let Network::Patch(lm) = &model.net.network else { return Err(Error::NoPatches) };
    let cutting = model.cutting();
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let (mut said, mut n_patches) = (Said::default(), 0);
    for chunk in documents.chunks(AT_ONCE) {
        let mut batch = SpeechTextBatch::new(&cutting);
        for (_, (document, words)) in chunk {
            batch.push(document, words, &model.vocabulary, &cutting, Draw::FIXED, "");
        }
        let read = batch.documents();
        let output = lm.forward(&read, Dropout::OFF);
        let Some(vectors) = output.patches else { continue };
        let [_, width] = vectors.dims();
        let vectors = host(vectors);
        let mut vectors = vectors.chunks_exact(width);
        for ((i, (document, words)), span) in chunk.iter().zip(read.offsets.iter()) {
            for patch in members(&output.closings[span]) {
                let vector = vectors.next().expect("a vector a patch");
                let overlaps = |span: &SpeechSpan| {
                    span.tokens.start < patch.end && patch.start < span.tokens.end
                };
                n_patches += usize::from(document.spans.iter().any(overlaps));
                if let Some(word) = word_of(&patch, &document.spans) {
                    let label = normalize(&words[word as usize].word);
                    let n = numbers.len();
                    said.push(*numbers.entry(label).or_insert(n), *i, vector);
                }
            }
        }
    }
    Ok((said, numbers.len(), n_patches))
}

/// Adds the numbers of every domain.
pub fn add_patches(rows: &[PatchesRow], results: &mut Results) {
    for row in rows {
        let Likeness { within, between, silhouette } = row.likeness;
        let measured =
            [("cosine_within", within), ("cosine_between", between), ("silhouette", silhouette)];
        for (metric, value) in measured {
            if let Some(value) = value {
                results.set("patches", &row.domain, metric, Metric::exact(value, row.n_of_words));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(vectors: &[(usize, usize, [f32; 2])]) -> Said {
        let mut said = Said::default();
        vectors.iter().for_each(|(word, utterance, vector)| said.push(*word, *utterance, vector));
        said
    }

    fn near(found: Option<f64>, expected: f64) {
        assert!((found.unwrap() - expected).abs() < 1e-12, "{found:?}, not {expected}");
    }

    #[test]
    fn cosines_of_pairs_by_hand() {
        // Word 0 along x in utterances 0 and 1, word 1 along y in 0 and at 45 degrees in 1; lengths say nothing.
        let half = 0.5_f64.sqrt();
        let found = likeness(&said(&[
            (0, 0, [1.0, 0.0]),
            (0, 1, [3.0, 0.0]),
            (1, 0, [0.0, 2.0]),
            (1, 1, [5.0, 5.0]),
        ]));
        // Within: 1 and cos 45 degrees. Between utterances: x with 45 degrees, and x with y.
        near(found.within, f64::midpoint(1.0, half));
        near(found.between, half / 2.0);
        // Silhouettes, against the other utterance. x in 0: own 0, other 1 - half, so 1; x in 1: own 0, other 1, so 1. y:
        // own 1 - half, other 1, so half. 45 degrees: own and other 1 - half, so 0.
        near(found.silhouette, (1.0 + 1.0 + half + 0.0) / 4.0);
        // Two patches of one word beside each other say nothing of it: every word was said once.
        let once = said(&[(0, 0, [1.0, 0.0]), (0, 0, [1.0, 0.0]), (1, 1, [0.0, 1.0])]);
        near(likeness(&once).silhouette, 0.0);
    }

    #[test]
    fn pairs_of_one_utterance_do_not_count() {
        let found = likeness(&said(&[(0, 0, [1.0, 0.0]), (0, 0, [0.0, 1.0]), (1, 0, [1.0, 1.0])]));
        assert_eq!((found.within, found.between), (None, None));
        assert_eq!(likeness(&said(&[])), Likeness::default());
        // A vector without a direction is left out.
        assert!(said(&[(0, 0, [0.0, 0.0])]).of.is_empty());
    }

    #[test]
    fn a_patch_is_of_the_word_of_most_units() {
        let span = |tokens: Range<usize>, word| SpeechSpan { tokens, word };
        let spans = [span(2..5, Some(0)), span(5..6, None), span(6..10, Some(1))];
        for (patch, expected) in [
            (2..6, Some(0)),
            // One unit of each: the first.
            (4..6, Some(0)),
            (5..6, None),
            (4..9, Some(1)),
            // Begin and marker.
            (0..2, None),
        ] {
            assert_eq!(word_of(&patch, &spans), expected, "{patch:?}");
        }
    }
}
