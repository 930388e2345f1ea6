//! How alike speech and text are inside the language model, at every depth.
//!
//! ```text
//! prompt, transcript ─ language model ─ t0 t1 t2 t3 …      the state of every token      depth 0: its embedding
//! prompt, speech ───── language model ─ v0 v1 v2 v3 v4 …   the states of the vectors     depth N: what leaves block N
//!                                       └─┬─┘ └┬┘    pairing: a vector a token, else the mean of those within its time
//!                                         s0   s1 …
//!
//! at a depth    linear CKA of (s, t)    cosine of (s, t)    is t_j the nearest of all t to s_j, or one of its token
//! ```
//!
//! Vectors are those that the language model is given. What has no partner is counted: tokens within whose time no vector
//! lies, vectors in pauses or of all blanks, utterances whose words have no times. Word times are exact, and a word's
//! tokens share its time by their characters, as in [`super::geometry()`].
//!
//! Measures after Kornblith et al. 2019 ([`super::cka`]) and the retrieval of a token by its speech among all others, as
//! one looks at embeddings of sentences in two languages.

use std::{
    collections::BTreeSet,
    ops::{AddAssign, Range},
};

use burn::prelude::*;
use rayon::prelude::*;
use sandhi_data::{microworld::Task, score::Interval};
use sandhi_nn::{compression::cosine, connector::ConnectorOutput, ragged::Ragged, weights::host};
use serde::Serialize;

use super::{
    Error, SpeechConfig,
    cka::{Rows, linear_cka},
    segments::in_order,
};
use crate::{
    frames::FrameCache,
    model::{
        ConnectorModel, TextModel,
        pack::{Segment, pack},
    },
    results::{Metric, Results},
    sources::{self, Workshop, token_times},
    tasks::{gather, transcriptions},
    train::dataset::Utterance,
};

/// Utterances that go through a model at once.
const AT_ONCE: usize = 16;
/// States that are compared with all others at once.
const ROWS: usize = 64;
/// Cosines that differ by less are equal: the embeddings of a token are the same wherever it stands, and rounding shall not
/// choose among them.
const TIE: f32 = 1e-6;

/// A domain, over all languages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayersRow {
    /// The domain.
    pub domain: String,
    /// Utterances that were paired.
    pub n_utterances: usize,
    /// Of these, those that have a vector a token and were paired one by one.
    pub n_one_by_one: usize,
    /// Utterances without: their words have no times that fit the transcript.
    pub n_left_out: usize,
    /// Tokens of the paired utterances, among which one is looked for.
    pub n_tokens: usize,
    /// Tokens that have speech.
    pub n_pairs: usize,
    /// Vectors that the language model is given.
    pub n_vectors: usize,
    /// Vectors that lie in no token's time, or have none.
    pub n_unpaired_vectors: usize,
    /// Depth 0 to the number of blocks.
    pub depths: Vec<DepthRow>,
}

/// A depth of the language model: 0 its input, `k` the residual stream that leaves block `k`, the last before the norm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DepthRow {
    /// The depth.
    pub depth: usize,
    /// Linear CKA, unbiased; none of fewer than four pairs, or where all are the same.
    pub cka: Option<f64>,
    /// Mean cosine of the pairs, with an interval over utterances.
    pub cosine: Interval,
    /// Share of pairs whose speech has no state of another token nearer than one of its own token.
    pub token: Interval,
    /// Share of pairs whose speech has no state nearer than that of its own position. States that are the same are as near:
    /// at depth 0 it is the share of tokens.
    pub position: Interval,
}

/// The states of an utterance at every depth.
#[derive(Debug, Clone)]
struct States {
    ids: Vec<u32>,
    /// Which token each row of `speech` is paired with.
    paired: Vec<usize>,
    is_one_by_one: bool,
    n_vectors: usize,
    n_unpaired_vectors: usize,
    /// `[n_tokens, d_model]` of every depth.
    text: Vec<Vec<f32>>,
    /// `[n_pairs, d_model]` of every depth.
    speech: Vec<Vec<f32>>,
}

/// Compares speech and text at every depth, in every domain.
///
/// # Errors
///
/// When speech cannot be made or frames cannot be cached, and [`Error::Unpaired`] for a connector whose vectors belong to no
/// time, where there is none a token.
pub fn layers(
    model: &ConnectorModel,
    workshop: &Workshop,
    config: &SpeechConfig,
    cache: &FrameCache,
    progress: &dyn Fn(&str, usize, usize),
) -> Result<Vec<LayersRow>, Error> {
    let cells = transcriptions(workshop.world(), config.half.split(), &config.domains, config.n);
    let mut domains: Vec<(&str, Vec<Option<States>>)> = Vec::new();
    for (domain, language, spoken) in cells {
        let utterances = workshop.frames(&spoken, &model.speech, cache, &|done, total| {
            progress(&format!("hearing {domain} {language}"), done, total);
        })?;
        let texts: Vec<&str> = spoken.iter().map(|spoken| spoken.text()).collect();
        let chunks: Vec<(&[&str], &[Utterance], ConnectorModel)> = texts
            .chunks(AT_ONCE)
            .zip(utterances.chunks(AT_ONCE))
            .map(|(texts, utterances)| (texts, utterances, model.clone()))
            .collect();
        let found: Vec<Vec<Option<States>>> = chunks
            .into_par_iter()
            .map(|(texts, utterances, model)| states(&model, texts, utterances))
            .collect::<Result<_, Error>>()?;
        let found = found.into_iter().flatten();
        match domains.iter_mut().find(|(name, _)| *name == domain) {
            Some((_, states)) => states.extend(found),
            None => domains.push((domain, found.collect())),
        }
    }
    let width = model.text.lm.d_model();
    let row = |(domain, states): (&str, Vec<Option<States>>)| {
        let n_left_out = states.iter().filter(|states| states.is_none()).count();
        let states: Vec<States> = states.into_iter().flatten().collect();
        let depths = compare(&states, width, config, &model.text.lm.device());
        let sum = |part: fn(&States) -> usize| states.iter().map(part).sum();
        LayersRow {
            domain: domain.to_owned(),
            n_utterances: states.len(),
            n_one_by_one: sum(|states| usize::from(states.is_one_by_one)),
            n_left_out,
            n_tokens: sum(|states| states.ids.len()),
            n_pairs: sum(|states| states.paired.len()),
            n_vectors: sum(|states| states.n_vectors),
            n_unpaired_vectors: sum(|states| states.n_unpaired_vectors),
            depths,
        }
    };
    Ok(domains.into_iter().map(row).collect())
}

/// Which vectors speak of which token of an utterance.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pairing {
    /// There is one a token, in their order.
    OneByOne,
    /// Those of every token, none of one without speech.
    ByTime(Vec<Vec<usize>>),
}

/// The middle of what every vector that the language model is given stands for, in seconds; none where vectors have no
/// time, or of one that stands for no stretch of its own. Of a vector of unequal frames it is the last of them: what came
/// before may be silence.
fn times(model: &ConnectorModel, output: &ConnectorOutput) -> Option<Vec<Vec<Option<f64>>>> {
    let middle = |i: f64, rate_hz: f64| (i + 0.5) / rate_hz;
    let all: Vec<Vec<Option<f64>>> = match (model.vector_rate_hz(), &output.ends) {
        (Some(rate_hz), _) => {
            let of = |n: usize| (0..n).map(|i| Some(middle(i as f64, rate_hz))).collect();
            output.vectors.offsets.lengths().into_iter().map(of).collect()
        }
        (None, Some(ends)) => {
            let rate_hz = model.speech.frame_rate_hz();
            let time = |end: Option<u32>| Some(middle(f64::from(end?), rate_hz));
            ends.iter().map(|ends| in_order(ends).into_iter().map(time).collect()).collect()
        }
        (None, None) => return None,
    };
    let Some(compression) = &model.compression else { return Some(all) };
    let kept = compression.kept(&output.vectors, &model.text.lm).into_iter().zip(all);
    let mean = |times: &[Option<f64>], [a, b]: [usize; 2]| Some(0.5 * (times[a]? + times[b]?));
    Some(kept.map(|(kept, times)| kept.into_iter().map(|ab| mean(&times, ab)).collect()).collect())
}

/// Vectors by the times of tokens, which lie one behind the other.
fn by_time(tokens: &[[f64; 2]], vectors: &[Option<f64>]) -> Vec<Vec<usize>> {
    let within = |&[start, end]: &[f64; 2]| {
        let of = |i: &usize| vectors[*i].is_some_and(|time| (start..end).contains(&time));
        (0..vectors.len()).filter(of).collect()
    };
    tokens.iter().map(within).collect()
}

/// The states of a few utterances; none of one that cannot be paired.
fn states(
    model: &ConnectorModel,
    texts: &[&str],
    utterances: &[Utterance],
) -> Result<Vec<Option<States>>, Error> {
    let chat = &model.text.chat;
    let frames = gather(&model.speech, utterances);
    let output = model.output(&frames, Some(texts)).map_err(sources::Error::from)?;
    let times = times(model, &output);
    let given = match &model.compression {
        Some(compression) => compression.forward(&output.vectors, &model.text.lm),
        None => output.vectors,
    };
    let mut pairings = Vec::with_capacity(texts.len());
    for (i, (text, utterance)) in texts.iter().zip(utterances).enumerate() {
        let ids = chat.transcript(text)?;
        if model.config.is_per_token() && ids.len() == given.offsets.range(i).len() {
            pairings.push((ids, Some(Pairing::OneByOne)));
            continue;
        }
        let times = &times.as_ref().ok_or(Error::Unpaired)?[i];
        let tokens = token_times(chat, &ids, &utterance.words);
        let pairing = tokens.map(|tokens| Pairing::ByTime(by_time(&tokens, times)));
        pairings.push((ids, pairing));
    }
    at_depths(&model.text, pairings, &given)
}

/// The states of utterances at every depth, in the prompts that ask for a transcript: what is behind the speech changes
/// nothing of it.
///
/// # Shapes
///
/// - `given.values`: `[n_vectors, d_model]`, a span an utterance
fn at_depths(
    model: &TextModel,
    utterances: Vec<(Vec<u32>, Option<Pairing>)>,
    given: &Ragged,
) -> Result<Vec<Option<States>>, Error> {
    let (lm, width) = (&model.lm, model.lm.d_model());
    let before = model.chat.frame(Task::Transcribe.wordings()[0])?.before;
    let depths: Vec<usize> = (0..=model.config.n_layers).collect();
    let read = |told: Vec<Segment>| {
        let prompts: Vec<[Segment; 2]> =
            told.into_iter().map(|told| [Segment::Tokens(before.clone()), told]).collect();
        let input = pack(lm, &prompts, Some(given));
        let states: Vec<Vec<f32>> =
            lm.forward_depths(&input, &depths).into_iter().map(host).collect();
        let spans: Vec<Range<usize>> = input
            .offsets
            .iter()
            .map(|span| (span.start + before.len()) * width..span.end * width)
            .collect();
        (spans, states)
    };
    let written = utterances.iter().map(|(ids, _)| Segment::Tokens(ids.clone())).collect();
    let (text_spans, text) = read(written);
    let (speech_spans, speech) = read((0..utterances.len()).map(Segment::Speech).collect());
    let spans = text_spans.into_iter().zip(speech_spans);
    let of = |((ids, pairing), (read, heard)): ((Vec<u32>, Option<Pairing>), _)| {
        let heard: Range<usize> = heard;
        let pairing = pairing?;
        let is_one_by_one = pairing == Pairing::OneByOne;
        let vectors = match pairing {
            Pairing::OneByOne => (0..ids.len()).map(|k| vec![k]).collect(),
            Pairing::ByTime(vectors) => vectors,
        };
        let paired: Vec<usize> = (0..ids.len()).filter(|&k| !vectors[k].is_empty()).collect();
        let means = |rows: &[f32]| -> Vec<f32> {
            paired.iter().flat_map(|&k| mean(rows, width, &vectors[k])).collect()
        };
        let n_vectors = heard.len() / width;
        // Words may overlap, so that a vector may be of two tokens.
        let of_tokens: BTreeSet<usize> = vectors.iter().flatten().copied().collect();
        let read: Range<usize> = read;
        Some(States {
            text: text.iter().map(|rows| rows[read.clone()].to_vec()).collect(),
            speech: speech.iter().map(|rows| means(&rows[heard.clone()])).collect(),
            ids,
            is_one_by_one,
            n_vectors,
            n_unpaired_vectors: n_vectors - of_tokens.len(),
            paired,
        })
    };
    Ok(utterances.into_iter().zip(spans).map(of).collect())
}

/// The mean of some rows.
fn mean(rows: &[f32], width: usize, some: &[usize]) -> Vec<f32> {
    let mut sum = vec![0.0_f64; width];
    for &i in some {
        let row = &rows[i * width..(i + 1) * width];
        sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    sum.into_iter().map(|sum| (sum / some.len() as f64) as f32).collect()
}

/// What is counted of the pairs of an utterance, to be added up.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    n: f64,
    cosine: f64,
    token: f64,
    position: f64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.n += other.n;
        self.cosine += other.cosine;
        self.token += other.token;
        self.position += other.position;
    }
}

/// Every depth, over all utterances.
fn compare(
    utterances: &[States],
    width: usize,
    config: &SpeechConfig,
    device: &Device,
) -> Vec<DepthRow> {
    let n_depths = utterances.first().map_or(0, |states| states.text.len());
    let ids: Vec<u32> = utterances.iter().flat_map(|states| states.ids.iter().copied()).collect();
    // The utterance and the position, among those of all utterances, that every pair is of.
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    let mut first = 0;
    for (i, states) in utterances.iter().enumerate() {
        pairs.extend(states.paired.iter().map(|&k| (i, first + k)));
        first += states.ids.len();
    }
    let positions: Vec<usize> = pairs.iter().map(|(_, position)| *position).collect();
    let of_depth = |depth: usize| {
        let joined = |part: fn(&States) -> &Vec<Vec<f32>>| -> Vec<f32> {
            utterances.iter().flat_map(|states| part(states)[depth].iter().copied()).collect()
        };
        let (text, speech) = (joined(|states| &states.text), joined(|states| &states.speech));
        let row = |i: usize| &text[i * width..(i + 1) * width];
        let partners: Vec<f32> = positions.iter().flat_map(|&i| row(i).iter().copied()).collect();
        let rows = |values| Rows { values, width };
        let mut counts = vec![Counts::default(); utterances.len()];
        let right = retrieved(rows(&speech), rows(&text), &positions, &ids, device);
        let cosines = speech.chunks_exact(width).zip(partners.chunks_exact(width));
        for ((&(i, _), (s, t)), [token, position]) in pairs.iter().zip(cosines).zip(right) {
            let [token, position] = [token, position].map(|right| f64::from(u8::from(right)));
            counts[i] += Counts { n: 1.0, cosine: cosine(s, t), token, position };
        }
        let share = |part: fn(&Counts) -> f64| {
            config.bootstrap.interval(&counts, |counts| part(counts) / counts.n)
        };
        DepthRow {
            depth,
            cka: linear_cka(rows(&speech), rows(&partners), device),
            cosine: share(|counts| counts.cosine),
            token: share(|counts| counts.token),
            position: share(|counts| counts.position),
        }
    };
    (0..n_depths).map(of_depth).collect()
}

/// Rows of length one, `[n_rows, width]`; a row without direction stays zero.
fn unit(Rows { values, width }: Rows, device: &Device) -> Tensor<2> {
    let rows = values.chunks_exact(width).flat_map(|row| {
        let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        row.iter().map(move |&x| (f64::from(x) / norm.max(f64::MIN_POSITIVE)) as f32)
    });
    let rows: Vec<f32> = rows.collect();
    Tensor::from_data(TensorData::new(rows, [values.len() / width, width]), device)
}

/// Whether, by cosine, no text of another token is nearer to a row of speech than some of its own token; and whether no
/// text is nearer than that of its own position.
fn retrieved(
    speech: Rows,
    text: Rows,
    positions: &[usize],
    ids: &[u32],
    device: &Device,
) -> Vec<[bool; 2]> {
    if positions.is_empty() {
        return Vec::new();
    }
    let (width, n_text) = (speech.width, ids.len());
    let text = unit(text, device).transpose();
    let mut right = Vec::with_capacity(positions.len());
    for (rows, positions) in speech.values.chunks(ROWS * width).zip(positions.chunks(ROWS)) {
        let cosines = host(unit(Rows { values: rows, width }, device).matmul(text.clone()));
        let rows = rows.chunks_exact(width).zip(cosines.chunks_exact(n_text));
        right.extend(rows.zip(positions).map(|((row, cosines), &own)| {
            // Nothing is near what has no direction.
            let is_zero = row.iter().all(|&x| x == 0.0);
            let best = |of: &dyn Fn(u32) -> bool| {
                let some = cosines.iter().zip(ids).filter(|(_, id)| of(**id));
                some.map(|(&cosine, _)| cosine).fold(f32::NEG_INFINITY, f32::max)
            };
            let limit = best(&|_| true) - TIE;
            let token = best(&|id| id == ids[own]) >= limit;
            [token, cosines[own] >= limit].map(|is_right| is_right && !is_zero)
        }));
    }
    right
}

/// Adds the numbers to a run's: under `layers_DOMAIN`, a column a depth.
pub fn add_layers(rows: &[LayersRow], results: &mut Results) {
    for row in rows {
        let task = format!("layers_{}", row.domain);
        for depth in &row.depths {
            let place = format!("depth_{}", depth.depth);
            if let Some(cka) = depth.cka {
                results.set(&task, &place, "cka", Metric::exact(cka, row.n_pairs));
            }
            let measured = [
                ("cosine", depth.cosine),
                ("retrieval_token", depth.token),
                ("retrieval_position", depth.position),
            ];
            for (metric, interval) in measured {
                results.set(&task, &place, metric, Metric::from(interval));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sandhi_data::score::Bootstrap;
    use sandhi_nn::ragged::Offsets;

    use super::*;
    use crate::{
        inspect::testing::{model_of, text_model},
        recipe::Half,
    };

    fn config() -> SpeechConfig {
        let bootstrap = Bootstrap { n_resamples: 20, ..Bootstrap::default() };
        SpeechConfig { domains: Vec::new(), n: 1, half: Half::Dev, bootstrap }
    }

    const TEXTS: [&str; 3] =
        ["Anna took the red ball.", "The ball is in the kitchen.", "Ben has the ball."];

    /// Speech that is the embeddings of some tokens.
    fn spoken(model: &TextModel, ids: &[Vec<u32>]) -> Ragged {
        let offsets = Offsets::from_lengths(&ids.iter().map(Vec::len).collect::<Vec<_>>());
        Ragged { values: model.lm.embed(&ids.concat()), offsets }
    }

    fn compared(model: &TextModel, states: Vec<Option<States>>) -> Vec<DepthRow> {
        let states: Vec<States> = states.into_iter().flatten().collect();
        compare(&states, model.lm.d_model(), &config(), &model.lm.device())
    }

    #[test]
    fn speech_that_is_its_tokens_is_alike_at_every_depth() {
        let model = text_model(3);
        let mut ids: Vec<Vec<u32>> =
            TEXTS.iter().map(|text| model.chat.transcript(text).unwrap()).collect();
        ids.iter_mut().for_each(Vec::dedup);
        let paired = ids.iter().map(|ids| (ids.clone(), Some(Pairing::OneByOne))).collect();
        let states = at_depths(&model, paired, &spoken(&model, &ids)).unwrap();
        let rows = compared(&model, states);
        let depths: Vec<usize> = rows.iter().map(|row| row.depth).collect();
        assert_eq!(depths, (0..=model.config.n_layers).collect::<Vec<_>>());
        for row in &rows {
            assert!((row.cka.unwrap() - 1.0).abs() < 1e-6, "{row:?}");
            assert_eq!((row.token.value, row.position.value), (1.0, 1.0));
            assert!((row.cosine.value - 1.0).abs() < 1e-9 && row.cosine.n == 3, "{row:?}");
        }

        // Every token is said by the one after it, which is never the same.
        let other = ids.iter().map(|ids| ids[1..].iter().chain(&ids[..1]).copied().collect());
        let other: Vec<Vec<u32>> = other.collect();
        let paired = ids.iter().map(|ids| (ids.clone(), Some(Pairing::OneByOne))).collect();
        let rows = compared(&model, at_depths(&model, paired, &spoken(&model, &other)).unwrap());
        assert_eq!((rows[0].token.value, rows[0].position.value), (0.0, 0.0));
        assert!(rows[0].cosine.value < 0.5 && rows[0].cka.unwrap() < 0.5, "{:?}", rows[0]);
    }

    #[test]
    fn tokens_without_speech_and_vectors_without_a_token_are_counted() {
        let model = text_model(3);
        let ids = model.chat.transcript(TEXTS[0]).unwrap();
        let n = ids.len();
        assert!(n > 4);
        // Two vectors of the first token, a pause, none of the second, one of each of the others.
        let vectors: Vec<u32> = [ids[0], ids[0], 0].iter().chain(&ids[2..]).copied().collect();
        let tokens: Vec<[f64; 2]> = (0..n)
            .map(|k| k as f64)
            .map(|k| if k < 1.0 { [0.0, 1.0] } else { [k + 0.5, k + 1.0] })
            .collect();
        let mut times = vec![0.2, 0.8, 1.2];
        times.extend((2..n).map(|k| k as f64 + 0.75));
        let times: Vec<Option<f64>> = times.into_iter().map(Some).collect();
        let pairing = by_time(&tokens, &times);
        assert_eq!((&pairing[0], &pairing[1], &pairing[2]), (&vec![0, 1], &vec![], &vec![3]));
        let paired = vec![(ids.clone(), Some(Pairing::ByTime(pairing))), (ids, None)];
        let given = spoken(&model, &[vectors, vec![0]]);
        let states = at_depths(&model, paired, &given).unwrap();
        assert!(states[1].is_none());
        let of_first = states[0].as_ref().unwrap();
        assert_eq!(of_first.paired.len(), n - 1);
        assert_eq!((of_first.n_vectors, of_first.n_unpaired_vectors), (n + 1, 1));
        assert!(!of_first.is_one_by_one);
        // The mean of a vector with itself is the vector.
        let rows = compared(&model, states);
        assert_eq!((rows[0].token.value, rows[0].position.value), (1.0, 1.0));
    }

    #[test]
    fn a_vector_of_all_blanks_is_of_no_token() {
        let model = model_of(serde_json::json!({ "kind": "cif", "d_conv": 4 }));
        let output = |ends: &[u32]| ConnectorOutput {
            vectors: Ragged {
                values: model.text.lm.embed(&vec![1; ends.len()]),
                offsets: Offsets::from_lengths(&[ends.len()]),
            },
            ends: Some(vec![ends.to_vec()]),
            penalties: Vec::new(),
        };
        // 25 frames a second. It stands first, and ends where the last token does.
        let found = times(&model, &output(&[9, 4, 9])).unwrap().remove(0);
        assert_eq!(found, [None, Some(4.5 / 25.0), Some(9.5 / 25.0)]);
        assert_eq!(by_time(&[[0.0, 0.2], [0.2, 0.4]], &found), [vec![1], vec![2]]);
        // In order, the first is a segment as any other.
        let found = times(&model, &output(&[4, 9])).unwrap().remove(0);
        assert_eq!(found, [Some(4.5 / 25.0), Some(9.5 / 25.0)]);
    }

    #[test]
    fn a_token_may_be_found_elsewhere_and_nothing_is_near_zero() {
        fn rows(values: &[f32]) -> Rows<'_> {
            Rows { values, width: 2 }
        }
        let device = Device::flex();
        // Token 5 lies at two places, token 6 at one.
        let (text, ids) = ([1.0, 0.0, 0.0, 1.0, -1.0, 0.1], [5, 6, 5]);
        let right = |speech: &[f32], own: usize| {
            retrieved(rows(speech), rows(&text), &[own], &ids, &device)[0]
        };
        assert_eq!(right(&[3.0, 0.1], 0), [true, true]);
        assert_eq!(right(&[-1.0, 0.0], 0), [true, false]);
        assert_eq!(right(&[0.0, 2.0], 0), [false, false]);
        assert_eq!(right(&[0.0, 0.0], 1), [false, false]);
        assert_eq!(retrieved(rows(&[]), rows(&text), &[], &ids, &device), Vec::<[bool; 2]>::new());
        // Two places that are the same are as near.
        let same = [1.0, 1.0, 1.0, 1.0];
        let found = retrieved(rows(&[2.0, 1.0]), rows(&same), &[1], &[5, 5], &device);
        assert_eq!(found, [[true, true]]);
    }
}
