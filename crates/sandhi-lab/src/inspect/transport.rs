//! The transport plan between the speech of one utterance and what is said in it.
//!
//! ```text
//!                  vector 0  1   2   3   4      rows: speech, in time
//! columns   ␣she        ██  ▒                   the embeddings of the transcript's tokens
//!           ␣left               ▒   ██
//!           pad             ██                  the place for what carries no content
//! ```
//!
//! The problem is the one that training solves, by the same settings.

use burn::prelude::*;
use sandhi_align::transport::{Masses, Metric, add_order_prior, embedding_costs, solve_batch};
use sandhi_data::{alignment::Alignment, microworld::Task};
use sandhi_nn::{
    ragged::{Offsets, Ragged},
    transformer::{CausalLm, Dropout},
    weights::host,
};
use serde::{Deserialize, Serialize};

use super::Error;
use crate::{
    align::Aligner,
    chat::Chat,
    generate::Decoding,
    model::{
        ConnectorModel, HostRagged,
        pack::{Segment, pack},
    },
    recipe::{LossConfig, Recipe, TransportConfig},
    sources::{self, Wanted, begins_word, said},
    train::{
        dataset::Utterance,
        learner::{Said, SpokenItem},
        transport::{Read, Sides, sides},
    },
    transcribe,
};

/// Peaks of the waveform a second.
const PEAKS_HZ: f64 = 100.0;

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub struct TransportRequest<'a> {
    /// 16 kHz samples.
    pub samples: &'a [f32],
    /// What is said; what the model writes where absent.
    pub text: Option<&'a str>,
    /// When the words are said, where that is known; else the encoder's CTC head is asked, where it has one.
    pub words: Option<&'a [Alignment]>,
    /// How speech is transported.
    pub config: &'a TransportConfig,
    /// The token that stands for no content.
    pub pad: Option<u32>,
}

/// Where the speech of an utterance goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transported {
    /// What is said.
    pub text: String,
    /// Seconds of sound.
    pub duration_s: f64,
    /// The lowest and the highest sample of every hundredth of a second.
    pub waveform: Vec<[f32; 2]>,
    /// The words with their times, where they are known.
    pub words: Vec<Alignment>,
    /// Seconds from one vector to the next.
    pub vector_s: f64,
    /// The connector's vectors.
    pub n_vectors: usize,
    /// The first and last of them that each vector is made of that the language model is given; absent where nothing
    /// is compressed.
    pub given: Option<Vec<[usize; 2]>>,
    /// Tokens of the transcript.
    pub n_tokens: usize,
    /// How it was transported.
    pub settings: TransportConfig,
    /// A plan at each depth.
    pub plans: Vec<DepthPlan>,
}

/// A plan at one depth of the language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DepthPlan {
    /// 0: the connector's vectors and the embeddings; `k`: what leaves block `k`.
    pub depth: usize,
    /// When each row's speech is, from start to end in seconds.
    pub rows_s: Vec<[f64; 2]>,
    /// The targets; the pad, if it is one, is the last.
    pub columns: Vec<Column>,
    /// The plan, row by row: shares of all mass.
    pub plan: Vec<Vec<f64>>,
    /// What the transport costs, with the prior that keeps the order.
    pub cost: f64,
    /// How far the plan's sums are from the masses, as a share.
    pub marginal_error: f64,
    /// Steps that the solver took.
    pub iterations: usize,
    /// Whether the plan is what was asked for.
    pub is_solved: bool,
}

/// A target of the speech.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// How the token is written, `␣` before what begins a word.
    pub label: String,
    /// The token.
    pub token: u32,
    /// Whether it is the place for what carries no content.
    pub is_pad: bool,
    /// Share of all mass that it has.
    pub share: f64,
    /// The mean time of its mass; none where it has none.
    pub mean_s: Option<f64>,
    /// The mean cosine distance of its mass; none where it has none.
    pub distance: Option<f64>,
}

impl Transported {
    /// Vectors that the language model is given.
    pub fn n_given(&self) -> usize {
        self.given.as_ref().map_or(self.n_vectors, Vec::len)
    }
}

impl DepthPlan {
    /// Share of all mass that the pad has, if it is a target.
    pub fn pad_share(&self) -> Option<f64> {
        self.columns.last().filter(|column| column.is_pad).map(|column| column.share)
    }
}

/// The settings that a recipe's last stage with a transport loss has; the defaults without one.
pub fn transport_settings(recipe: Option<&Recipe>) -> TransportConfig {
    let stages = recipe.iter().flat_map(|recipe| recipe.stages.iter().rev());
    stages.filter_map(|stage| stage.loss.transport.clone()).next().unwrap_or_default()
}

/// Transports the speech of an utterance to what is said in it.
///
/// # Errors
///
/// When settings make no sense, the model lacks what they ask for, or there is nothing to transport.
pub fn transport(
    model: &ConnectorModel,
    request: &TransportRequest<'_>,
) -> Result<Transported, Error> {
    let TransportRequest { samples, config, .. } = *request;
    check(model, request)?;
    let vector_s = 1.0 / model.vector_rate_hz().ok_or(Error::NotUniform)?;
    let instruction = Task::Transcribe.wordings()[0];
    let text = match request.text {
        Some(text) => text.trim().to_owned(),
        None => {
            transcribe::answer(model, &[samples], &[instruction], &Decoding::default())?.remove(0)
        }
    };
    let frames = transcribe::frames(&model.speech, &[samples])?;
    let words = match request.words {
        Some(words) => words.to_vec(),
        None => heard_words(model, &frames, &text),
    };
    let duration_s = samples.len() as f64 / 16_000.0;
    let chat = &model.text.chat;
    let said = said_in(model, config, &text, &frames, &words, duration_s)?;
    if said.tokens.is_empty() {
        return Err(Error::NoText);
    }
    let n_tokens = said.tokens.len();
    let frame = chat.frame(instruction)?;
    let item = SpokenItem {
        before: frame.before,
        after: frame.after,
        answer: Vec::new(),
        said,
        begin: chat.layout().begin,
    };

    let lm = &model.text.lm;
    let heard = model.uncompressed(&frames, None).map_err(sources::Error::from)?;
    let given = match &model.compression {
        Some(compression) => compression.forward(&heard, lm),
        None => heard.clone(),
    };
    let kept = model.compression.map(|compression| compression.kept(&heard, lm).remove(0));
    let span_s =
        |[first, last]: [usize; 2]| [first as f64 * vector_s, (last + 1) as f64 * vector_s];
    let n_vectors = heard.offsets.n_rows();
    let all: Vec<[usize; 2]> = (0..n_vectors).map(|i| [i, i]).collect();

    let (input, hidden) = read(lm, &item, &given, config);
    let read = Read { input: &input, given: &given.offsets, hidden };
    let of_depths = sides(lm, request.pad, std::slice::from_ref(&item), &heard, read, config);
    let mut plans = Vec::with_capacity(config.depths.len());
    for (&depth, sides) in config.depths.iter().zip(of_depths) {
        let rows = if depth == 0 { &all } else { kept.as_ref().unwrap_or(&all) };
        if sides.problems.batch.is_empty() {
            return Err(Error::Nothing { depth, n_vectors: rows.len(), n_tokens });
        }
        let rows_s: Vec<[f64; 2]> = rows.iter().map(|&row| span_s(row)).collect();
        plans.push(plan(&sides, &item.said, chat, request, rows_s, depth)?);
    }
    Ok(Transported {
        text,
        duration_s,
        waveform: peaks(samples),
        words,
        vector_s,
        n_vectors,
        given: kept,
        n_tokens,
        settings: config.clone(),
        plans,
    })
}

/// Refuses what would be asked in vain.
fn check(model: &ConnectorModel, request: &TransportRequest<'_>) -> Result<(), Error> {
    let problems = request.config.problems();
    if !problems.is_empty() {
        return Err(Error::Settings(problems.join("; ")));
    }
    let n_layers = model.text.config.n_layers;
    if let Some(&depth) = request.config.depths.iter().find(|&&depth| depth >= n_layers) {
        return Err(Error::Depth { depth, n_layers });
    }
    if request.config.has_pad() && request.pad.is_none() {
        return Err(Error::NoPad);
    }
    Ok(())
}

/// The words by the encoder's CTC head; none without one, or where the text does not fit into the sound.
fn heard_words(model: &ConnectorModel, frames: &HostRagged, text: &str) -> Vec<Alignment> {
    let aligner = Aligner::new(&model.speech).zip(model.speech.recognizer.as_ref());
    let aligned = aligner.and_then(|(aligner, recognizer)| {
        aligner.of(&recognizer.log_probs(frames).values, text).ok()
    });
    aligned.unwrap_or_default().words()
}

/// The transcript's tokens, with the masses that the settings ask for.
fn said_in(
    model: &ConnectorModel,
    config: &TransportConfig,
    text: &str,
    frames: &HostRagged,
    words: &[Alignment],
    duration_s: f64,
) -> Result<Said, sources::Error> {
    let rows = frames.values.as_slice().into();
    let utterance = Utterance { rows, duration_s, words: words.to_vec() };
    let loss = LossConfig { transport: Some(config.clone()), ..LossConfig::default() };
    let wanted = Wanted { loss: &loss, tokens: false, encoded: true };
    let said = said(&wanted, &model.text.chat, &model.speech, &[text], &[utterance])?;
    Ok(said.into_iter().next().expect("one utterance was given"))
}

/// Where the prompt's rows are, and what they are at the inner depths.
fn read(
    lm: &CausalLm,
    item: &SpokenItem,
    given: &Ragged,
    config: &TransportConfig,
) -> (Offsets, Vec<Tensor<2>>) {
    let [before, after] = [&item.before, &item.after].map(|ids| Segment::Tokens(ids.clone()));
    let input = pack(lm, &[[before, Segment::Speech(0), after]], Some(given));
    let depths: Vec<usize> = config.inner_depths().collect();
    let hidden = if depths.is_empty() {
        Vec::new()
    } else {
        lm.forward_tails_at(&input, &[1], &depths, Dropout::OFF).depths
    };
    (input.offsets, hidden)
}

fn plan(
    sides: &Sides,
    said: &Said,
    chat: &Chat,
    request: &TransportRequest<'_>,
    rows_s: Vec<[f64; 2]>,
    depth: usize,
) -> Result<DepthPlan, Error> {
    let (Sides { problems, x, y }, config) = (sides, request.config);
    let batch = &problems.batch;
    let [_, width] = x.dims();
    let values = [x, y].map(|side| host(side.clone()));
    let distances = embedding_costs(Metric::Cosine, &values[0], &values[1], width, batch)?;
    let mut costs = distances.clone();
    if config.order_weight != 0.0 {
        add_order_prior(&mut costs, batch, config.order_weight, config.has_pad())?;
    }
    let masses = problems.columns(config);
    let found = solve_batch(&costs, batch, Masses::UNIFORM, masses, &config.solver())?.remove(0);

    let n_columns = found.plan.n_columns;
    let total: f64 = found.plan.row_sums().iter().sum();
    let mut plan = vec![vec![0.0; n_columns]; found.plan.n_rows];
    // Of every column: share, and sums of times and distances.
    let mut sums = vec![[0.0; 3]; n_columns];
    for (row, column, mass) in found.plan.iter() {
        let share = mass / total;
        plan[row][column] = share;
        let [start_s, end_s] = rows_s[row];
        let distance = f64::from(distances[row * n_columns + column]);
        let of_mass = [1.0, f64::midpoint(start_s, end_s), distance];
        sums[column].iter_mut().zip(of_mass).for_each(|(sum, value)| *sum += share * value);
    }
    let tokens = problems.targets[0].places.iter().map(|&place| (said.tokens[place], false));
    let pad = request.pad.filter(|_| config.has_pad()).map(|pad| (pad, true));
    let columns =
        tokens.chain(pad).zip(&sums).map(|((token, is_pad), &[share, time, distance])| {
            let mean = |sum: f64| (share > 0.0).then(|| sum / share);
            let label = label(chat, token);
            Column { label, token, is_pad, share, mean_s: mean(time), distance: mean(distance) }
        });
    Ok(DepthPlan {
        depth,
        rows_s,
        columns: columns.collect(),
        plan,
        cost: found.cost / total,
        marginal_error: found.marginal_error,
        iterations: found.iterations,
        is_solved: found.status.is_solved(),
    })
}

/// How a token is written.
pub(super) fn label(chat: &Chat, token: u32) -> String {
    let space = if begins_word(chat, token) { "␣" } else { "" };
    match chat.decode(&[token]).as_str() {
        // Markers are no text.
        "" if space.is_empty() => {
            chat.tokenizer().piece(token).unwrap_or_else(|| format!("#{token}"))
        }
        text => format!("{space}{text}"),
    }
}

/// The lowest and the highest sample of every hundredth of a second.
pub(super) fn peaks(samples: &[f32]) -> Vec<[f32; 2]> {
    let of_chunk = |chunk: &[f32]| {
        let low = chunk.iter().copied().fold(f32::INFINITY, f32::min);
        [low, chunk.iter().copied().fold(f32::NEG_INFINITY, f32::max)]
    };
    samples.chunks((16_000.0 / PEAKS_HZ) as usize).map(of_chunk).collect()
}

#[cfg(test)]
mod tests {
    use sandhi_nn::compression::CompressionConfig;

    use super::*;
    use crate::{
        inspect::testing::{TEXT, model, samples},
        model::Compression,
        recipe::{PadMass, SolverConfig, TargetMass},
    };

    fn looked(model: &ConnectorModel, config: &TransportConfig) -> Result<Transported, Error> {
        let samples = samples();
        let pad = model.text.chat.token("-");
        let request =
            TransportRequest { samples: &samples, text: Some(TEXT), words: None, config, pad };
        transport(model, &request)
    }

    #[test]
    fn speech_that_is_its_tokens_goes_to_them_when_they_are_said() {
        let model = model();
        let (lm, chat) = (&model.text.lm, &model.text.chat);
        let pad = chat.token("-");
        let tokens = chat.transcript("she").unwrap();
        // What is said, then a pause: one vector for every target, half a second each.
        let speech: Vec<u32> = tokens.iter().copied().chain(pad).collect();
        let values = lm.embed(&speech);
        let heard = Ragged { values, offsets: Offsets::from_lengths(&[speech.len()]) };
        let config = TransportConfig { solver: SolverConfig::Exact {}, ..Default::default() };
        let said = Said { tokens: tokens.clone(), ..Said::default() };
        let item = SpokenItem { before: vec![], after: vec![], answer: vec![], said, begin: 0 };
        let (input, hidden) = read(lm, &item, &heard, &config);
        let read = Read { input: &input, given: &heard.offsets, hidden };
        let sides = sides(lm, pad, std::slice::from_ref(&item), &heard, read, &config);
        let rows_s: Vec<[f64; 2]> =
            (0..speech.len()).map(|i| [0.5 * i as f64, 0.5 * (i + 1) as f64]).collect();
        let request =
            TransportRequest { samples: &[], text: None, words: None, config: &config, pad };
        let found = plan(&sides[0], &item.said, chat, &request, rows_s, 0).unwrap();
        assert!(found.cost.abs() < 1e-6 && found.is_solved, "{found:?}");
        assert_eq!(found.columns.len(), speech.len());
        for (i, (column, token)) in found.columns.iter().zip(&speech).enumerate() {
            assert_eq!((column.token, column.is_pad), (*token, i == tokens.len()));
            assert!((column.share - 1.0 / speech.len() as f64).abs() < 1e-9);
            assert!((column.mean_s.unwrap() - (0.5 * i as f64 + 0.25)).abs() < 1e-9);
            assert!(column.distance.unwrap().abs() < 1e-6);
        }
        assert!((found.pad_share().unwrap() - found.columns[0].share).abs() < 1e-9);
    }

    #[test]
    fn plans_hold_all_mass_at_every_depth() {
        let mut model = model();
        let pad = model.text.chat.token("-");
        // Every pair is merged, and the last vector is alone.
        let thresholds = CompressionConfig { merge: Some(-1.0), drop: None };
        model.compression = Some(Compression { thresholds, pad });
        let config = TransportConfig {
            depths: vec![2, 0],
            masses: TargetMass::Characters,
            pad: PadMass::Share(0.4),
            ..TransportConfig::default()
        };
        let found = looked(&model, &config).unwrap();
        // 1.5 s at 12.5 Hz.
        assert_eq!((found.n_vectors, found.n_given(), found.vector_s), (19, 10, 0.08));
        assert_eq!((found.text.as_str(), found.duration_s, found.waveform.len()), (TEXT, 1.5, 150));
        assert_eq!(found.given.as_ref().unwrap()[8..], [[16, 17], [18, 18]]);
        assert_eq!(found.plans.iter().map(|plan| plan.depth).collect::<Vec<_>>(), [2, 0]);
        for (plan, n_rows) in found.plans.iter().zip([10, 19]) {
            assert_eq!((plan.plan.len(), plan.rows_s.len()), (n_rows, n_rows));
            assert_eq!(plan.columns.len(), found.n_tokens + 1);
            let total: f64 = plan.plan.iter().flatten().sum();
            assert!((total - 1.0).abs() < 1e-9 && plan.is_solved, "{plan:?}");
            for row in &plan.plan {
                assert!((row.iter().sum::<f64>() - 1.0 / n_rows as f64).abs() < 1e-5);
            }
            assert!((plan.pad_share().unwrap() - 0.4).abs() < 1e-5, "{:?}", plan.pad_share());
            assert!(plan.rows_s.windows(2).all(|pair| (pair[0][1] - pair[1][0]).abs() < 1e-9));
            // A space alone has no character, and no mass.
            let of = |column: &Column| column.share * column.distance.unwrap_or(0.0);
            let cost: f64 = plan.columns.iter().map(of).sum();
            assert!((cost - plan.cost).abs() < 1e-9);
        }
        assert_eq!(found.plans[0].rows_s[9], [18.0 * 0.08, 19.0 * 0.08]);
        assert!(crate::inspect::svg(&found).contains("after block 2"));
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Transported>(&json).unwrap().columns(), found.columns());
    }

    impl Transported {
        fn columns(&self) -> Vec<&str> {
            let columns = self.plans.iter().flat_map(|plan| &plan.columns);
            columns.map(|column| column.label.as_str()).collect()
        }
    }

    #[test]
    fn words_that_are_known_are_not_asked_for() {
        let model = model();
        let samples = samples();
        let word = |label: &str, start_s, end_s| Alignment {
            label: label.into(),
            start_s,
            end_s,
            confidence: None,
            source: sandhi_data::alignment::Source::Exact,
        };
        let words = [word("she", 0.0, 0.3), word("left", 0.4, 0.8), word("early", 0.9, 1.4)];
        let config = TransportConfig { masses: TargetMass::Durations, ..Default::default() };
        let pad = model.text.chat.token("-");
        let request = |words| TransportRequest {
            samples: &samples,
            text: Some(TEXT),
            words,
            config: &config,
            pad,
        };
        let found = transport(&model, &request(Some(&words[..]))).unwrap();
        assert_eq!(found.words, words);
        let error = transport(&model, &request(Some(&words[1..]))).unwrap_err().to_string();
        assert!(error.contains("no utterance has times for each of its words"), "{error}");
        let heard = transport(&model, &request(None)).unwrap();
        assert_eq!(heard.words.len(), 3);
        assert!(found.columns()[0].starts_with('s'), "{:?}", found.columns());
        assert!(found.columns().iter().any(|label| label.starts_with('␣')));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let model = model();
        let refused = |config: TransportConfig, part: &str| {
            let error = looked(&model, &config).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        let default = TransportConfig::default;
        refused(TransportConfig { depths: vec![0, 3], ..default() }, "depth 3 is not below the 3");
        refused(TransportConfig { order_weight: -1.0, ..default() }, "order_weight is -1");
        let samples = samples();
        let config = default();
        let request = TransportRequest {
            samples: &samples,
            text: Some(TEXT),
            words: None,
            config: &config,
            pad: None,
        };
        let error = transport(&model, &request).unwrap_err().to_string();
        assert!(error.contains("name a token for it"), "{error}");
        let none = TransportRequest { text: Some(" "), pad: Some(1), ..request };
        let error = transport(&model, &none).unwrap_err().to_string();
        assert!(error.contains("give what is said"), "{error}");
        // Two vectors cannot say so many tokens in order.
        let config = TransportConfig { solver: SolverConfig::Monotone {}, ..default() };
        let short = TransportRequest { samples: &samples[..1_600], config: &config, ..request };
        let error =
            transport(&model, &TransportRequest { pad: Some(1), ..short }).unwrap_err().to_string();
        assert!(error.contains("at depth 0 2 vectors") && error.contains("in order"), "{error}");
    }

    #[test]
    fn settings_are_those_of_the_last_stage_that_has_some() {
        assert_eq!(transport_settings(None), TransportConfig::default());
        let text = include_str!("../../../../recipes/smoke/otreg.toml");
        let path = std::path::Path::new("otreg.toml");
        let recipe =
            crate::recipe::read_str(text, path, &crate::recipe::Overrides::default()).unwrap();
        let found = transport_settings(Some(&recipe));
        assert_eq!((found.pad, found.depths), (PadMass::Blank, vec![0, 2]));
    }
}
