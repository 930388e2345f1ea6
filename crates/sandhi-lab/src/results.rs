//! What an evaluation found: `results.json`, and one [`Prediction`] per utterance and task.
//!
//! ```text
//! {
//!   "_meta": { "recipe": "slm", "seed": 1, … },
//!   "asr": { "base": { "wer": { "value": 0.071, "lo": 0.06, "hi": 0.083, "n": 200 } } },
//!   ^ task   ^ domain   ^ metric
//! }
//! ```
//!
//! Rates and shares are fractions, not percentages; BLEU and chrF are on the scale from 0 to 100 that
//! sacreBLEU has. A metric's name may carry one of three
//! suffixes: [`TEXT`] for the same language model reading the transcript (the upper bound),
//! [`CASCADE`] for the encoder's own transcript given to the language model, and [`RECOVERED`] for
//! the share of the upper bound that speech recovers.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use sandhi_data::score::Interval;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    checkpoint::files,
    costs::Costs,
    protocol::{Protocol, Unsupported},
};

/// Suffix of a metric measured on the language model that reads the transcript.
pub const TEXT: &str = "_text";
/// Suffix of a metric measured on the cascade of recognizer and language model.
pub const CASCADE: &str = "_cascade";
/// Suffix of the share of the upper bound that speech recovers.
pub const RECOVERED: &str = "_recovered";

/// Suffix of a metric measured on the true sound, where a vocoder says it again.
pub const ORIGINAL: &str = "_original";
/// Suffix of a metric measured on what a vocoder makes of the true units, beside what it makes of a model's.
pub const TRUE_UNITS: &str = "_true_units";
/// The mean distance of a vocoder's log-mel energies from those of the true sound, in nats.
pub const LOG_MEL: &str = "log_mel_l1";
/// The same of the sound that it makes.
pub const LOG_MEL_OF_SOUND: &str = "log_mel_l1_sound";

/// The metrics that tasks report, without suffix.
pub const METRICS: [&str; 15] = [
    "wer",
    "cer",
    "bleu",
    "chrf",
    "exact",
    "accuracy",
    "accuracy_per_token",
    "accuracy_per_character",
    "perplexity",
    "loss_per_word",
    "loss_per_second",
    "entity_recall",
    "follows",
    UNIT_ERROR_RATE,
    STEPS_SAVED,
];

/// Whether a smaller value of the metric (with or without suffix) is a better one.
///
/// ```
/// # use sandhi_lab::results::lower_is_better;
/// assert!(lower_is_better("wer_text"));
/// assert!(lower_is_better("cer_true_units_t2s"));
/// assert!(!lower_is_better("wer_recovered"));
/// assert!(!lower_is_better("bleu"));
/// ```
pub fn lower_is_better(metric: &str) -> bool {
    if metric.ends_with(RECOVERED) {
        return false;
    }
    // The sides first, where they are named.
    let metric =
        ["_s2s", "_t2s"].iter().find_map(|sides| metric.strip_suffix(sides)).unwrap_or(metric);
    let suffixes = [TEXT, CASCADE, ORIGINAL, TRUE_UNITS];
    let base = suffixes.iter().find_map(|suffix| metric.strip_suffix(suffix)).unwrap_or(metric);
    matches!(base, "wer" | "cer" | "disagreement" | VECTORS_PER_SECOND | LOG_MEL | LOG_MEL_OF_SOUND)
        || ["loss", "perplexity", "divergence", UNIT_ERROR_RATE]
            .iter()
            .any(|name| base.starts_with(name))
}

/// Vectors that a language model is given for a second of speech.
pub const VECTORS_PER_SECOND: &str = "vectors_per_second";

/// Edits between the units that a model says and those of a true utterance, runs of one unit taken as one, over the
/// length of the true one. No sound is made of them.
pub const UNIT_ERROR_RATE: &str = "unit_error_rate";

/// Of the tokens that a model reads of its own answer, the share that takes no step of the largest transformer.
pub const STEPS_SAVED: &str = "steps_saved";

/// What can go wrong with a results or predictions file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("cannot access {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line (or the whole of a `.json` file, then line 0 is where parsing stopped) is not what
    /// it should be.
    #[error("{}:{line}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// Writing failed in the same way as for a checkpoint.
    #[error(transparent)]
    Write(#[from] crate::checkpoint::Error),
}

/// One number with its 95 % bootstrap interval.
///
/// Values that are not finite are written as `null` and read back as NaN.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The point estimate; a fraction for rates and shares, 0 to 100 for BLEU and chrF.
    #[serde(serialize_with = "number_or_null", deserialize_with = "number_or_nan")]
    pub value: f64,
    /// Lower end of the interval.
    #[serde(serialize_with = "number_or_null", deserialize_with = "number_or_nan")]
    pub lo: f64,
    /// Upper end of the interval.
    #[serde(serialize_with = "number_or_null", deserialize_with = "number_or_nan")]
    pub hi: f64,
    /// How many utterances it is over.
    pub n: usize,
    /// How choices by likelihood were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Why there is no value, where that is no accident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<Unsupported>,
}

impl Metric {
    /// A metric over `n` utterances with its interval.
    pub fn new(value: f64, lo: f64, hi: f64, n: usize) -> Self {
        Self { value, lo, hi, n, protocol: None, unsupported: None }
    }

    /// A number that has no interval of its own: both ends are the value.
    pub fn exact(value: f64, n: usize) -> Self {
        Self::new(value, value, value, n)
    }

    /// What cannot be measured: no value, and why.
    pub fn unsupported(why: Unsupported) -> Self {
        Self { unsupported: Some(why), ..Self::exact(f64::NAN, 0) }
    }

    /// The same with the protocol that it was measured by.
    #[must_use]
    pub fn under(self, protocol: Protocol) -> Self {
        Self { protocol: Some(protocol), ..self }
    }
}

impl From<Interval> for Metric {
    fn from(Interval { value, lo, hi, n }: Interval) -> Self {
        Self::new(value, lo, hi, n)
    }
}

fn number_or_null<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    value.is_finite().then_some(*value).serialize(serializer)
}

fn number_or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// Where the numbers of a [`Results`] come from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ResultsMeta {
    /// Name of the recipe; runs of one recipe differ in their seed only.
    pub recipe: String,
    /// The model in words, e.g. `slm: conformer 2.4 M, adapter 0.4 M, llama 2.9 M`.
    #[serde(default)]
    pub model: String,
    /// The seed that every random stream of the run derives from.
    pub seed: u64,
    /// Commit of the program, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The machine in words: processor, threads, device.
    #[serde(default)]
    pub machine: String,
    /// When the run began, RFC 3339; given by the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// Wall time of the run in seconds.
    #[serde(default)]
    pub duration_s: f64,
    /// Metric → the settings of its scorer, e.g. `bleu` → sacreBLEU's signature.
    #[serde(default)]
    pub scorer: IndexMap<String, String>,
    /// Tasks whose speech form was trained; all others are zero-shot.
    #[serde(default)]
    pub trained_tasks: Vec<String>,
    /// Whether the system used knowledge that a real one would not have (exact alignments, …).
    #[serde(default)]
    pub oracle: bool,
    /// What it cost to train, where that was here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub costs: Option<Costs>,
    /// What a reader must know to read the numbers rightly, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Domain → metric → number.
pub type Domains = IndexMap<String, IndexMap<String, Metric>>;

/// The content of `results.json`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Results {
    /// Under the key `_meta`, because the tasks lie at the top.
    #[serde(rename = "_meta")]
    pub meta: ResultsMeta,
    /// Task → domain → metric → number, in the order of insertion.
    #[serde(flatten)]
    pub scores: IndexMap<String, Domains>,
}

impl Results {
    /// No scores yet.
    pub fn new(meta: ResultsMeta) -> Self {
        Self { meta, scores: IndexMap::new() }
    }

    /// Stores a number, in place of an earlier one of the same name.
    pub fn set(&mut self, task: &str, domain: &str, metric: &str, number: Metric) {
        self.scores
            .entry(task.to_owned())
            .or_default()
            .entry(domain.to_owned())
            .or_default()
            .insert(metric.to_owned(), number);
    }

    /// The number of a task, domain and metric.
    pub fn get(&self, task: &str, domain: &str, metric: &str) -> Option<&Metric> {
        self.scores.get(task)?.get(domain)?.get(metric)
    }

    /// Whether the speech form of the task was trained.
    pub fn is_trained(&self, task: &str) -> bool {
        self.meta.trained_tasks.iter().any(|trained| trained == task)
    }

    /// Every number as (task, domain, metric, number), in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &str, &Metric)> {
        self.scores.iter().flat_map(|(task, domains)| {
            domains.iter().flat_map(move |(domain, metrics)| {
                metrics.iter().map(move |(metric, number)| {
                    (task.as_str(), domain.as_str(), metric.as_str(), number)
                })
            })
        })
    }

    /// Reads a `results.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::Format`] with the line where parsing stopped.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = read(path)?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Format {
            path: path.to_owned(),
            line: error.line(),
            reason: error.to_string(),
        })
    }

    /// Writes a `results.json`: whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::Write`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        Ok(files::write_atomically(path, &files::pretty_json(path, self)?)?)
    }
}

/// Edit operations that turn a hypothesis into its reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Edits {
    /// Substitutions.
    pub sub: usize,
    /// Deletions: in the reference, not in the hypothesis.
    pub del: usize,
    /// Insertions: in the hypothesis, not in the reference.
    pub ins: usize,
    /// Equal words.
    pub hits: usize,
}

impl Edits {
    /// Substitutions, deletions and insertions together.
    pub fn errors(&self) -> usize {
        self.sub + self.del + self.ins
    }

    /// Length of the reference.
    pub fn n_reference(&self) -> usize {
        self.hits + self.sub + self.del
    }
}

/// What the model made of one utterance in one task: a line of
/// `predictions/<task>.<domain>.jsonl`.
///
/// `counts` holds the sufficient statistics of corpus metrics by metric name (with suffix), so that
/// intervals can be bootstrapped without scoring again: two numbers are summed and divided
/// (numerator, denominator; e.g. `entity_recall: [2, 3]`); other lengths belong to the scorer of
/// that name (`bleu`, `chrf`).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Prediction {
    /// The utterance.
    pub id: String,
    /// The task, as in `results.json`.
    pub task: String,
    /// The acoustic domain, as in `results.json`.
    pub domain: String,
    /// The instruction that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// What was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<String>,
    /// The right answer.
    pub reference: String,
    /// The answer from speech.
    pub hypothesis: String,
    /// The answer of the same language model from the transcript.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_hypothesis: Option<String>,
    /// The answer of the cascade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cascade_hypothesis: Option<String>,
    /// Whether the answer from speech is right, for tasks where that is yes or no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correct: Option<bool>,
    /// Whether the answer from the transcript is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_correct: Option<bool>,
    /// Whether the cascade's answer is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cascade_correct: Option<bool>,
    /// Word edits of the answer from speech, after the scorer's normalization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edits: Option<Edits>,
    /// Word edits of the cascade's transcript or answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cascade_edits: Option<Edits>,
    /// Sufficient statistics by metric name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub counts: IndexMap<String, Vec<f64>>,
}

/// Where the predictions of a task and domain lie inside a run directory.
pub fn predictions_path(run_dir: &Path, task: &str, domain: &str) -> PathBuf {
    run_dir.join("predictions").join(format!("{task}.{domain}.jsonl"))
}

/// Writes predictions as JSON lines: the whole file or not at all; missing folders are made.
///
/// # Errors
///
/// [`Error::Write`].
pub fn write_predictions(path: &Path, predictions: &[Prediction]) -> Result<(), Error> {
    let mut bytes = Vec::new();
    for prediction in predictions {
        bytes.extend(files::json(path, prediction)?);
        bytes.push(b'\n');
    }
    Ok(files::write_atomically(path, &bytes)?)
}

/// Reads predictions written by [`write_predictions`]; blank lines are skipped.
///
/// # Errors
///
/// [`Error::Io`], or [`Error::Format`] with the line.
pub fn read_predictions(path: &Path) -> Result<Vec<Prediction>, Error> {
    let bytes = read(path)?;
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    lines
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(index, line)| {
            serde_json::from_slice(line).map_err(|error| Error::Format {
                path: path.to_owned(),
                line: index + 1,
                reason: error.to_string(),
            })
        })
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Results {
        let mut results = Results::new(ResultsMeta {
            recipe: "slm".into(),
            seed: 7,
            trained_tasks: vec!["asr".into()],
            scorer: IndexMap::from([("bleu".into(), "nrefs:1|case:mixed".into())]),
            ..ResultsMeta::default()
        });
        results.set("asr", "base", "wer", Metric::new(0.071, 0.06, 0.083, 200));
        results.set("asr", "channel", "wer", Metric::new(0.21, 0.19, 0.24, 200));
        results.set("qa", "base", "exact", Metric::exact(0.8, 10));
        results
    }

    #[test]
    fn tasks_lie_at_the_top_and_meta_under_its_key() {
        let json = serde_json::to_value(example()).unwrap();
        assert_eq!(json["asr"]["base"]["wer"]["value"], 0.071);
        assert_eq!(json["asr"]["base"]["wer"]["n"], 200);
        assert_eq!(json["_meta"]["recipe"], "slm");
        let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys.len(), 3);
    }

    #[test]
    fn order_and_values_survive_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/results.json");
        example().write(&path).unwrap();
        let read = Results::read(&path).unwrap();
        assert_eq!(read, example());
        let order: Vec<_> = read.iter().map(|(t, d, m, _)| format!("{t}.{d}.{m}")).collect();
        assert_eq!(order, ["asr.base.wer", "asr.channel.wer", "qa.base.exact"]);
        assert!(read.is_trained("asr") && !read.is_trained("qa"));
    }

    #[test]
    fn what_is_not_finite_becomes_null_and_nan() {
        let mut results = Results::default();
        results.set("story", "base", "perplexity", Metric::new(f64::INFINITY, 2.0, f64::NAN, 3));
        let text = serde_json::to_string(&results).unwrap();
        assert!(text.contains(r#"{"value":null,"lo":2.0,"hi":null,"n":3}"#), "{text}");
        let read: Results = serde_json::from_str(&text).unwrap();
        let metric = read.get("story", "base", "perplexity").unwrap();
        assert!(metric.value.is_nan() && metric.hi.is_nan());
        assert_eq!(metric.lo, 2.0);
    }

    #[test]
    fn what_cannot_be_measured_has_a_reason_and_choices_their_protocol() {
        let protocol = "S→T, plain, 0-shot, sum; joint tokenization; no markers scored; \
                        k tied for best share 1";
        let mut results = Results::default();
        let none = Metric::unsupported(Unsupported::CannotSpeak);
        results.set("story", "base", "accuracy_s2s", none);
        let found = Metric::exact(0.5, 2).under(protocol.parse().unwrap());
        results.set("story", "base", "accuracy", found);
        let json = serde_json::to_value(&results).unwrap();
        let expected = serde_json::json!({
            "value": null, "lo": null, "hi": null, "n": 0, "unsupported": "the model cannot speak",
        });
        assert_eq!(json["story"]["base"]["accuracy_s2s"], expected);
        assert_eq!(json["story"]["base"]["accuracy"]["protocol"], protocol);
        let read: Results = serde_json::from_value(json).unwrap();
        let read = |metric: &str| *read.get("story", "base", metric).unwrap();
        assert_eq!(read("accuracy"), found);
        assert!(read("accuracy_s2s").value.is_nan());
        assert_eq!(read("accuracy_s2s").unsupported, Some(Unsupported::CannotSpeak));
    }

    #[test]
    fn a_bad_file_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.json");
        std::fs::write(&path, "{\n  \"_meta\": 3\n}").unwrap();
        let error = Results::read(&path).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{error}");
        assert!(error.to_string().contains("results.json:"), "{error}");
        let lines = dir.path().join("asr.base.jsonl");
        std::fs::write(
            &lines,
            "{\"id\":\"a\",\"task\":\"asr\",\"domain\":\"base\",\"reference\":\"\",\"hypothesis\":\"\"}\n\n{\"id\":1}\n",
        )
        .unwrap();
        match read_predictions(&lines).unwrap_err() {
            Error::Format { line, .. } => assert_eq!(line, 3),
            other => panic!("{other}"),
        }
        assert!(matches!(Results::read(&dir.path().join("none")), Err(Error::Io { .. })));
    }

    #[test]
    fn suffixes_keep_the_direction_of_a_metric() {
        for metric in METRICS {
            let lower = matches!(metric, "wer" | "cer" | "perplexity" | UNIT_ERROR_RATE)
                || metric.contains("loss");
            assert_eq!(lower_is_better(metric), lower, "{metric}");
            assert_eq!(lower_is_better(&format!("{metric}{TEXT}")), lower, "{metric}");
            assert_eq!(lower_is_better(&format!("{metric}{CASCADE}")), lower, "{metric}");
            assert!(!lower_is_better(&format!("{metric}{RECOVERED}")), "{metric}");
            assert_eq!(lower_is_better(&format!("{metric}{ORIGINAL}")), lower, "{metric}");
        }
    }

    #[test]
    fn edits_count_errors_over_the_reference() {
        // reference "a b c d", hypothesis "a x c e e": 2 hits, 2 substitutions, 1 insertion
        let edits = Edits { sub: 2, del: 0, ins: 1, hits: 2 };
        assert_eq!((edits.errors(), edits.n_reference()), (3, 4));
    }

    proptest! {
        // Every case waits for the disk.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn predictions_survive_any_text(
            id in ".{0,12}", reference in "\\PC{0,40}", hypothesis in any::<String>(),
            text in proptest::option::of(any::<String>()), correct in any::<Option<bool>>(),
            count in proptest::num::f64::NORMAL,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = predictions_path(dir.path(), "asr", "base");
            let written = vec![Prediction {
                id, task: "asr".into(), domain: "base".into(), reference, hypothesis,
                text_hypothesis: text, correct,
                counts: IndexMap::from([("wer".to_owned(), vec![count, 1.0])]),
                ..Prediction::default()
            }; 2];
            write_predictions(&path, &written).unwrap();
            prop_assert_eq!(read_predictions(&path).unwrap(), written);
        }
    }
}
