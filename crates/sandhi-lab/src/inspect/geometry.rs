//! How near a connector's vectors are to the embeddings of what is said.
//!
//! ```text
//! words        |   she   |     |     left     |         exact times; a word's tokens share it by characters
//! tokens       | sh | e  |     |     ␣left    |
//! vectors       o  o  o  o  o   o  o  o  o  o  o        a vector stands for the middle of its frames
//!               sh sh e  pause  ␣left          pause
//! ```
//!
//! A vector of content has a cosine distance to its token's embedding, and is right if no other embedding is nearer: in
//! the whole table, and among the transcript's tokens and the pad. A vector of a pause has a distance to the pad's.
//! Distances are those of the vectors before compression.

use rayon::prelude::*;
use sandhi_data::{language::Language, microworld::Task};
use sandhi_nn::{compression::cosine, ragged::Ragged, transformer::CausalLm, weights::host};
use serde::Serialize;

use burn::prelude::*;

use super::{Error, piece};
use crate::{
    frames::FrameCache,
    model::{
        ConnectorModel,
        pack::{Segment, pack},
    },
    recipe::Half,
    sources::{self, Workshop, token_times},
    tasks::{gather, transcriptions},
    train::dataset::Utterance,
};

/// Utterances that go through a model at once.
const AT_ONCE: usize = 16;
/// Vectors that are compared with the whole table at once.
const ROWS: usize = 64;
/// Times that the prompts are read; the median counts.
const READINGS: usize = 5;

/// What is measured.
#[derive(Debug, Clone)]
pub struct GeometryConfig {
    /// Domains of [`crate::tasks::DOMAINS`]; all when empty.
    pub domains: Vec<String>,
    /// Utterances of each domain and language.
    pub n: usize,
    /// Of which half.
    pub half: Half,
    /// The token that stands for no content.
    pub pad: Option<u32>,
}

/// Where speech lies among the embeddings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Geometry {
    /// The pad, as the vocabulary writes it; without one there is no distance to it.
    pub pad: Option<String>,
    /// Every domain and language, then every domain.
    pub rows: Vec<GeometryRow>,
    /// What compression saves; none where nothing was heard.
    pub prompt_pass: Option<PromptPass>,
}

/// A domain in a language, or in all of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GeometryRow {
    /// The domain.
    pub domain: String,
    /// The language; all of them where absent.
    pub language: Option<Language>,
    /// Utterances that were measured.
    pub n_utterances: usize,
    /// Utterances whose words have no times that fit the transcript.
    pub n_left_out: usize,
    /// Vectors within words.
    pub content: Content,
    /// Vectors outside.
    pub pauses: Pauses,
    /// Vectors of an utterance, on average.
    pub vectors: Option<f64>,
    /// Those that the language model is given.
    pub given: Option<f64>,
    /// Tokens of its transcript.
    pub tokens: Option<f64>,
}

/// Vectors within words.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Content {
    /// How many.
    pub n: usize,
    /// Mean cosine distance to the embedding of the token that is said.
    pub distance: Option<f64>,
    /// Share to which no other embedding is nearer.
    pub right_of_table: Option<f64>,
    /// Share to which none of the transcript's tokens is nearer, and neither is the pad.
    pub right_of_transcript: Option<f64>,
}

/// Vectors outside of words.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pauses {
    /// How many.
    pub n: usize,
    /// Mean cosine distance to the pad's embedding.
    pub distance: Option<f64>,
    /// Share to which none of the transcript's tokens is nearer than the pad.
    pub on_pad: Option<f64>,
}

/// What the language model takes to read the same prompts with all vectors, and with those that compression leaves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PromptPass {
    /// Prompts, read together.
    pub n_prompts: usize,
    /// Their rows with all vectors.
    pub rows: usize,
    /// Their rows with those that are left.
    pub rows_given: usize,
    /// Seconds with all vectors, the median of [`PromptPass::readings`].
    pub uncompressed_s: f64,
    /// Seconds with those that are left.
    pub compressed_s: f64,
    /// Times that each was read, in turn.
    pub readings: usize,
}

/// Measures utterances of Microworld; `now_s` gives the seconds of a clock that never goes back.
///
/// # Errors
///
/// When speech cannot be made, or frames cannot be cached.
pub fn geometry(
    model: &ConnectorModel,
    workshop: &Workshop,
    config: &GeometryConfig,
    cache: &FrameCache,
    now_s: &dyn Fn() -> f64,
    progress: &dyn Fn(&str, usize, usize),
) -> Result<Geometry, Error> {
    model.vector_rate_hz().ok_or(Error::NotUniform)?;
    let cells = transcriptions(workshop.world(), config.half.split(), &config.domains, config.n);
    let table = Table::new(&model.text.lm);
    let mut found: Vec<(&str, Option<Language>, Counts)> = Vec::new();
    let mut prompt_pass = None;
    for (domain, language, spoken) in cells {
        let utterances = workshop.frames(&spoken, &model.speech, cache, &|done, total| {
            progress(&format!("hearing {domain} {language}"), done, total);
        })?;
        if prompt_pass.is_none() {
            let few = &utterances[..utterances.len().min(AT_ONCE)];
            prompt_pass = Some(read_prompts(model, few, now_s)?);
        }
        let texts: Vec<&str> = spoken.iter().map(|spoken| spoken.text()).collect();
        let chunks: Vec<(&[&str], &[Utterance], ConnectorModel, Table)> = texts
            .chunks(AT_ONCE)
            .zip(utterances.chunks(AT_ONCE))
            .map(|(texts, utterances)| (texts, utterances, model.clone(), table.clone()))
            .collect();
        let counts: Vec<Counts> = chunks
            .into_par_iter()
            .map(|(texts, utterances, model, table)| {
                measured(&model, &table, texts, utterances, config.pad)
            })
            .collect::<Result<_, Error>>()?;
        let mut sum = Counts::default();
        counts.iter().for_each(|counts| sum.add(counts));
        found.push((domain, Some(language), sum));
    }
    let mut domains: Vec<(&str, Option<Language>, Counts)> = Vec::new();
    for (domain, _, counts) in &found {
        match domains.iter_mut().find(|(name, ..)| name == domain) {
            Some((.., sum)) => sum.add(counts),
            None => domains.push((domain, None, counts.clone())),
        }
    }
    let has_pad = config.pad.is_some();
    let rows = found.iter().chain(&domains);
    let rows = rows.map(|(domain, language, counts)| counts.row(domain, *language, has_pad));
    Ok(Geometry { pad: config.pad.map(|pad| piece(model, pad)), rows: rows.collect(), prompt_pass })
}

/// What is counted of utterances, to be added up.
#[derive(Debug, Clone, Default, PartialEq)]
struct Counts {
    n_utterances: usize,
    n_left_out: usize,
    n_content: usize,
    content_distance: f64,
    n_right_of_table: usize,
    n_right_of_transcript: usize,
    n_pauses: usize,
    pause_distance: f64,
    n_on_pad: usize,
    n_vectors: usize,
    n_given: usize,
    n_tokens: usize,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.n_utterances += other.n_utterances;
        self.n_left_out += other.n_left_out;
        self.n_content += other.n_content;
        self.content_distance += other.content_distance;
        self.n_right_of_table += other.n_right_of_table;
        self.n_right_of_transcript += other.n_right_of_transcript;
        self.n_pauses += other.n_pauses;
        self.pause_distance += other.pause_distance;
        self.n_on_pad += other.n_on_pad;
        self.n_vectors += other.n_vectors;
        self.n_given += other.n_given;
        self.n_tokens += other.n_tokens;
    }

    fn row(&self, domain: &str, language: Option<Language>, has_pad: bool) -> GeometryRow {
        let mean = |sum: f64, n: usize| (n > 0).then(|| sum / n as f64);
        let share = |part: usize, n: usize| mean(part as f64, n);
        GeometryRow {
            domain: domain.to_owned(),
            language,
            n_utterances: self.n_utterances,
            n_left_out: self.n_left_out,
            content: Content {
                n: self.n_content,
                distance: mean(self.content_distance, self.n_content),
                right_of_table: share(self.n_right_of_table, self.n_content),
                right_of_transcript: share(self.n_right_of_transcript, self.n_content),
            },
            pauses: Pauses {
                n: self.n_pauses,
                distance: mean(self.pause_distance, self.n_pauses).filter(|_| has_pad),
                on_pad: share(self.n_on_pad, self.n_pauses).filter(|_| has_pad),
            },
            vectors: share(self.n_vectors, self.n_utterances),
            given: share(self.n_given, self.n_utterances),
            tokens: share(self.n_tokens, self.n_utterances),
        }
    }
}

/// The embedding table with rows of length one.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// `[d_model, n_tokens]`
    unit: Tensor<2>,
    /// Rows without a direction, to which nothing is near.
    is_zero: Vec<bool>,
}

impl Table {
    pub(super) fn new(lm: &CausalLm) -> Self {
        let (n_tokens, width) = (lm.n_tokens(), lm.d_model());
        let mut rows = host(lm.embedding_table());
        let mut is_zero = Vec::with_capacity(n_tokens);
        for row in rows.chunks_exact_mut(width) {
            let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            is_zero.push(norm == 0.0);
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm.max(f64::MIN_POSITIVE)) as f32);
        }
        let data = TensorData::new(rows, [n_tokens, width]);
        Self { unit: Tensor::<2>::from_data(data, &lm.device()).transpose(), is_zero }
    }

    /// The nearest embedding of every row of `[n_rows, d_model]`, the first of equals, and its cosine; none of a row
    /// without a direction.
    pub(super) fn nearest(&self, rows: &Tensor<2>) -> Vec<Option<(u32, f64)>> {
        let ([n_rows, width], n_tokens) = (rows.dims(), self.is_zero.len());
        let mut found = Vec::with_capacity(n_rows);
        for start in (0..n_rows).step_by(ROWS) {
            let some = rows.clone().narrow(0, start, ROWS.min(n_rows - start));
            let products = host(some.clone().matmul(self.unit.clone()));
            let values = host(some);
            let rows = products.chunks_exact(n_tokens).zip(values.chunks_exact(width));
            found.extend(rows.map(|(products, row)| {
                let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                let known =
                    (0..).zip(products).zip(&self.is_zero).filter(|(_, is_zero)| !**is_zero);
                let nearest = known
                    .map(|((token, &product), _)| (token, product))
                    .reduce(|best, next| if next.1 > best.1 { next } else { best });
                let (token, product) = nearest.filter(|_| norm > 0.0 && norm.is_finite())?;
                Some((token, f64::from(product) / norm))
            }));
        }
        found
    }

    /// Whether no embedding is nearer to a row of `[n_rows, d_model]` than that of its token.
    fn none_is_nearer(&self, rows: &Tensor<2>, tokens: &[Option<u32>]) -> Vec<bool> {
        let n_tokens = self.is_zero.len();
        let mut right = Vec::with_capacity(tokens.len());
        for (i, tokens) in tokens.chunks(ROWS).enumerate() {
            let some = rows.clone().narrow(0, i * ROWS, tokens.len());
            let cosines = host(some.matmul(self.unit.clone()));
            right.extend(cosines.chunks_exact(n_tokens).zip(tokens).map(|(row, token)| {
                let known = row.iter().zip(&self.is_zero).filter(|(_, is_zero)| !**is_zero);
                let best = known.map(|(&cosine, _)| cosine).fold(f32::NEG_INFINITY, f32::max);
                token.is_some_and(|token| row[token as usize] >= best)
            }));
        }
        right
    }
}

/// Counts of a few utterances.
fn measured(
    model: &ConnectorModel,
    table: &Table,
    texts: &[&str],
    utterances: &[Utterance],
    pad: Option<u32>,
) -> Result<Counts, Error> {
    let rate_hz = model.vector_rate_hz().ok_or(Error::NotUniform)?;
    let frames = gather(&model.speech, utterances);
    let vectors = model.uncompressed(&frames, None).map_err(sources::Error::from)?;
    let given = match &model.compression {
        Some(compression) => compression.forward(&vectors, &model.text.lm).offsets.lengths(),
        None => vectors.offsets.lengths(),
    };
    let mut counts = Counts::default();
    for (i, (text, utterance)) in texts.iter().zip(utterances).enumerate() {
        let tokens = model.text.chat.transcript(text)?;
        let Some(times) = token_times(&model.text.chat, &tokens, &utterance.words) else {
            counts.n_left_out += 1;
            continue;
        };
        let span = vectors.offsets.range(i);
        let rows = vectors.values.clone().narrow(0, span.start, span.len());
        counts.add(&of_utterance(
            &model.text.lm,
            table,
            rows,
            &tokens,
            &times,
            Place { rate_hz, pad },
        ));
        counts.n_given += given[i];
    }
    Ok(counts)
}

/// Where vectors lie in time, and what lies outside of words.
#[derive(Debug, Clone, Copy)]
struct Place {
    rate_hz: f64,
    pad: Option<u32>,
}

/// Counts of an utterance's vectors, `[n_vectors, d_model]`, without those that are given.
fn of_utterance(
    lm: &CausalLm,
    table: &Table,
    vectors: Tensor<2>,
    tokens: &[u32],
    times: &[[f64; 2]],
    Place { rate_hz, pad }: Place,
) -> Counts {
    let width = lm.d_model();
    // What is said, each token once, and the pad.
    let mut candidates: Vec<u32> = tokens.to_vec();
    candidates.extend(pad);
    candidates.sort_unstable();
    candidates.dedup();
    let embeddings = host(lm.embed(&candidates));
    let n_vectors = vectors.dims()[0];
    let said: Vec<Option<u32>> = (0..n_vectors)
        .map(|i| {
            let middle_s = (i as f64 + 0.5) / rate_hz;
            let at = times.iter().position(|&[start, end]| (start..end).contains(&middle_s));
            at.map(|at| tokens[at])
        })
        .collect();
    let right = table.none_is_nearer(&vectors, &said);
    let n_tokens = tokens.len();
    let mut counts = Counts { n_utterances: 1, n_vectors, n_tokens, ..Counts::default() };
    let values = host(vectors);
    for ((vector, said), right) in values.chunks_exact(width).zip(said).zip(right) {
        let cosines: Vec<f64> =
            embeddings.chunks_exact(width).map(|row| cosine(vector, row)).collect();
        let of = |token: u32| {
            cosines[candidates.binary_search(&token).expect("it is among the candidates")]
        };
        let best = cosines.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if let Some(token) = said {
            counts.n_content += 1;
            counts.content_distance += 1.0 - of(token);
            counts.n_right_of_table += usize::from(right);
            counts.n_right_of_transcript += usize::from(of(token) >= best);
            continue;
        }
        counts.n_pauses += 1;
        if let Some(pad) = pad {
            counts.pause_distance += 1.0 - of(pad);
            counts.n_on_pad += usize::from(of(pad) >= best);
        }
    }
    counts
}

/// Reads prompts that ask for a transcript, with all vectors and with those that are left, in turn.
fn read_prompts(
    model: &ConnectorModel,
    utterances: &[Utterance],
    now_s: &dyn Fn() -> f64,
) -> Result<PromptPass, Error> {
    let lm = &model.text.lm;
    let instruction = Task::Transcribe.wordings()[0];
    let prompts: Vec<Vec<Segment>> = (0..utterances.len())
        .map(|i| model.text.chat.prompt(instruction, vec![Segment::Speech(i)]))
        .collect::<Result<_, _>>()?;
    let vectors = model
        .uncompressed(&gather(&model.speech, utterances), None)
        .map_err(sources::Error::from)?;
    let given = match &model.compression {
        Some(compression) => compression.forward(&vectors, lm),
        None => vectors.clone(),
    };
    let inputs = [vectors, given].map(|vectors| pack(lm, &prompts, Some(&vectors)));
    let mut seconds = [Vec::new(), Vec::new()];
    // The first reading of each is for caches and pages.
    for reading in 0..=READINGS {
        for (input, seconds) in inputs.iter().zip(&mut seconds) {
            let began = now_s();
            read(lm, input);
            if reading > 0 {
                seconds.push(now_s() - began);
            }
        }
    }
    let [uncompressed_s, compressed_s] = seconds.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[READINGS / 2]
    });
    let [rows, rows_given] = inputs.map(|input| input.offsets.n_rows());
    let n_prompts = utterances.len();
    Ok(PromptPass { n_prompts, rows, rows_given, uncompressed_s, compressed_s, readings: READINGS })
}

/// What answering begins with: the prompts, into a cache, up to the last hidden states.
fn read(lm: &CausalLm, input: &Ragged) {
    let lengths = input.offsets.lengths();
    let all: Vec<usize> = (0..lengths.len()).collect();
    let mut cache = lm.cache(&lengths);
    // On the host, so that a device has done the work.
    host(lm.extend_to_last(input, &all, &mut cache));
}

#[cfg(test)]
mod tests {
    use sandhi_nn::{init::Init, transformer::TransformerConfig};
    use serde_json::{from_value, json};

    use super::*;

    const PAD: u32 = 7;
    /// Two vectors a second: middles at 0.25, 0.75, …
    const PLACE: Place = Place { rate_hz: 2.0, pad: Some(PAD) };
    /// Token 3 for a second, token 4 for half of one, a pause, token 3 again.
    const TIMES: [[f64; 2]; 3] = [[0.0, 1.0], [1.0, 1.5], [2.0, 2.5]];
    const TOKENS: [u32; 3] = [3, 4, 3];

    fn lm() -> CausalLm {
        let config = json!({ "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 16 });
        let config: TransformerConfig = from_value(config).unwrap();
        config.init(12, &Init::new(5, &Device::flex()))
    }

    fn counts(said: &[u32], place: Place) -> Counts {
        let lm = lm();
        // Longer vectors point the same way.
        let vectors = lm.embed(said) * 3.0;
        of_utterance(&lm, &Table::new(&lm), vectors, &TOKENS, &TIMES, place)
    }

    #[test]
    fn speech_that_is_its_tokens_is_right_and_near() {
        let found = counts(&[3, 3, 4, PAD, 3, PAD], PLACE);
        assert_eq!((found.n_content, found.n_right_of_table), (4, 4));
        assert_eq!((found.n_right_of_transcript, found.n_pauses, found.n_on_pad), (4, 2, 2));
        assert!(found.content_distance.abs() < 1e-6 && found.pause_distance.abs() < 1e-6);
        assert_eq!((found.n_vectors, found.n_tokens), (6, 3));
        let row = found.row("base", None, true);
        assert_eq!((row.content.right_of_table, row.pauses.on_pad), (Some(1.0), Some(1.0)));
        assert_eq!((row.vectors, row.tokens), (Some(6.0), Some(3.0)));
    }

    #[test]
    fn what_is_near_something_else_is_not_right() {
        // A wrong token of the transcript, and one that is not in it; a pause that sounds like a token.
        let found = counts(&[4, 9, 4, 3], PLACE);
        let table = host(lm().embedding_table());
        let rows: Vec<&[f32]> = table.chunks(16).collect();
        let distances = [(4, 3), (9, 3), (4, 4)].map(|(a, b)| 1.0 - cosine(rows[a], rows[b]));
        assert!((found.content_distance - distances.iter().sum::<f64>()).abs() < 1e-6);
        let pause = 1.0 - cosine(rows[3], rows[PAD as usize]);
        assert!((found.pause_distance - pause).abs() < 1e-6);
        assert_eq!((found.n_content, found.n_right_of_table, found.n_pauses), (3, 1, 1));
        assert_eq!(found.n_on_pad, 0);
        // Token 9 is none of the transcript's, so that one of those is the nearest; which, its cosines say.
        let near = |token: usize| cosine(rows[9], rows[token]);
        let third = usize::from(near(3) >= near(4) && near(3) >= near(PAD as usize));
        assert_eq!(found.n_right_of_transcript, 1 + third);
    }

    #[test]
    fn without_a_pad_there_is_no_distance_to_it() {
        let found = counts(&[3, 3, 4, PAD], Place { pad: None, ..PLACE });
        let row = found.row("base", Some(Language::English), false);
        assert_eq!((row.pauses.n, row.pauses.distance, row.pauses.on_pad), (1, None, None));
        assert_eq!(Counts::default().row("base", None, true).content.distance, None);
    }

    #[test]
    fn nothing_is_near_an_embedding_without_direction() {
        let mut table = Table::new(&lm());
        let row = lm().embed(&[5]);
        assert_eq!(table.none_is_nearer(&row, &[Some(5)]), [true]);
        assert_eq!(table.none_is_nearer(&row, &[Some(6)]), [false]);
        assert_eq!(table.none_is_nearer(&row, &[None]), [false]);
        // Without it another one is the nearest.
        table.is_zero[5] = true;
        let all: Vec<Option<u32>> = (0..12).map(Some).collect();
        let rows = lm().embed(&[5; 12]);
        let nearest = table.none_is_nearer(&rows, &all);
        assert_eq!((nearest.iter().filter(|near| **near).count(), nearest[5]), (2, true));
        let found = table.nearest(&rows)[0].unwrap().0;
        assert!(found != 5 && nearest[found as usize]);
    }

    #[test]
    fn a_vector_that_is_an_embedding_is_nearest_to_its_token() {
        let (lm, table) = (lm(), Table::new(&lm()));
        // More rows than are compared at once, of any length, and one of none.
        let tokens: Vec<u32> = (0..ROWS as u32 + 6).map(|i| i % 12).collect();
        let rows = Tensor::cat(vec![lm.embed(&tokens) * 0.5, lm.embed(&[1]) * 0.0], 0);
        let found = table.nearest(&rows);
        assert_eq!(found.len(), tokens.len() + 1);
        for (found, token) in found.iter().zip(&tokens) {
            let (nearest, cosine) = found.unwrap();
            assert!(nearest == *token && (cosine - 1.0).abs() < 1e-6, "{token}: {found:?}");
        }
        assert_eq!(found[tokens.len()], None);
        assert!((table.nearest(&(lm.embed(&[3]) * -1.0))[0].unwrap().1) < 1.0);
    }
}
