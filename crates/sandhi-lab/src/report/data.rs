//! What a report shows, as plain data.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::inspect::{Segmented, Transported};
use crate::log::Record;
use crate::results::Results;

/// Everything a report shows. What is empty is left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ReportData {
    /// The heading.
    pub title: String,
    /// Paragraphs of plain text that say what was done and what came out.
    pub explanation: Vec<String>,
    /// Key numbers at the top; when empty, the first metric of every task on its first domain.
    #[serde(default)]
    pub highlights: Vec<Highlight>,
    /// Loss curves per stage, the listening gap, …
    #[serde(default)]
    pub charts: Vec<Chart>,
    /// What the model is made of.
    #[serde(default)]
    pub parameters: Vec<ParameterRow>,
    /// The numbers.
    #[serde(default)]
    pub results: Results,
    /// Task → its name for readers, e.g. `asr` → `Transcription`.
    #[serde(default)]
    pub task_titles: IndexMap<String, String>,
    /// Utterances with sound, picture and answers.
    #[serde(default)]
    pub examples: Vec<Example>,
}

/// A key number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Highlight {
    /// What it is, in two or three words.
    pub label: String,
    /// The number with its unit.
    pub value: String,
    /// What to compare it with.
    pub note: String,
}

/// A chart of one or more curves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// The heading.
    pub title: String,
    /// A sentence on how to read it.
    pub caption: String,
    /// What the horizontal axis counts.
    pub x_label: String,
    /// What the vertical axis measures.
    pub y_label: String,
    /// The curves, the most important first; at most six differ in color.
    pub curves: Vec<Curve>,
    /// Whether the area between the first two curves is what the chart is about.
    #[serde(default)]
    pub fill_between: bool,
}

/// A named line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// `(x, y)`, ascending in `x`; points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// A part of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParameterRow {
    /// Its name, e.g. `speech encoder`.
    pub name: String,
    /// How many parameters it has.
    pub total: u64,
    /// How many of them some stage trained.
    pub trained: u64,
}

/// An utterance and what was made of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Example {
    /// The heading, e.g. the utterance's id and domain.
    pub title: String,
    /// What was said.
    pub transcript: String,
    /// The sound as a WAV file; empty when there is none to play.
    #[serde(default, with = "base64_bytes")]
    pub audio_wav: Vec<u8>,
    /// The words with their times.
    #[serde(default)]
    pub words: Vec<Word>,
    /// The picture.
    #[serde(default)]
    pub log_mel: Option<LogMel>,
    /// Where its vectors go among the transcript's tokens.
    #[serde(default)]
    pub transported: Option<Transported>,
    /// Where it is cut, and what its vectors are nearest to.
    #[serde(default)]
    pub segmented: Option<Segmented>,
    /// What was asked and answered.
    #[serde(default)]
    pub answers: Vec<Answer>,
}

/// A word and when it was said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The word.
    pub label: String,
    /// When it begins, in seconds.
    pub start_s: f64,
    /// When it ends, in seconds.
    pub end_s: f64,
}

/// A log-mel spectrogram.
///
/// # Shapes
///
/// - `values`: `[n_frames, n_mels]`, row-major
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogMel {
    /// How many frames.
    pub n_frames: usize,
    /// How many mel bands, low to high.
    pub n_mels: usize,
    /// The values; any scale, the picture spans the range that occurs.
    pub values: Vec<f32>,
    /// Seconds from one frame to the next.
    pub frame_s: f64,
}

/// An instruction and the answers to it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Answer {
    /// The task, as in the results.
    pub task: String,
    /// What the model was told to do.
    pub instruction: String,
    /// What it answered when it heard the utterance.
    pub speech: String,
    /// What the same language model answered when it read the transcript.
    #[serde(default)]
    pub text: Option<String>,
    /// What it answered when it read what the recognizer wrote.
    #[serde(default)]
    pub cascade: Option<String>,
    /// The right answer.
    pub reference: String,
}

impl Chart {
    /// Curves of one stage from a metrics log: for every `(key, name)` that occurs, the values of
    /// `key` over the steps of the stage. `None` when none occurs.
    pub fn from_records(
        records: &[Record],
        stage: &str,
        title: &str,
        caption: &str,
        keys: &[(&str, &str)],
    ) -> Option<Self> {
        let of_stage = || records.iter().filter(|record| record.stage == stage);
        let curves: Vec<Curve> = keys
            .iter()
            .map(|(key, name)| Curve {
                name: (*name).to_owned(),
                points: of_stage()
                    .filter_map(|record| Some((record.step as f64, record.number(key)?)))
                    .collect(),
            })
            .filter(|curve| !curve.points.is_empty())
            .collect();
        (!curves.is_empty()).then(|| Self {
            title: title.to_owned(),
            caption: caption.to_owned(),
            x_label: "optimizer step".to_owned(),
            y_label: "loss".to_owned(),
            curves,
            fill_between: false,
        })
    }

    /// The listening gap: `points` are `(step, loss with the right audio, loss with the audio of
    /// another utterance)`.
    pub fn listening_gap(points: &[(f64, f64, f64)]) -> Self {
        let curve = |name: &str, pick: fn(&(f64, f64, f64)) -> f64| Curve {
            name: name.to_owned(),
            points: points.iter().map(|point| (point.0, pick(point))).collect(),
        };
        Self {
            title: "Does it listen?".to_owned(),
            caption: "Loss of the right answer when the model hears the right utterance, and when \
                      it hears somebody else's. The area between the lines is what it takes from \
                      the sound; a model that ignores its audio has none."
                .to_owned(),
            x_label: "optimizer step".to_owned(),
            y_label: "loss per token".to_owned(),
            curves: vec![
                curve("the right audio", |point| point.1),
                curve("another utterance's audio", |point| point.2),
            ],
            fill_between: true,
        }
    }
}

/// Bytes as base64 text, so that the data of a report can be kept as JSON.
pub(crate) mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_becomes_the_curves_that_it_logged() {
        let record = |stage: &str, step, key: &str, value: f64| Record {
            stage: stage.to_owned(),
            step,
            values: IndexMap::from([(key.to_owned(), serde_json::json!(value))]),
        };
        let records = [
            record("lm", 1, "loss", 4.0),
            record("adapter", 1, "loss", 3.0),
            record("adapter", 2, "dev_loss", 2.5),
            record("adapter", 2, "loss", 2.0),
        ];
        let keys = [("loss", "training"), ("dev_loss", "held out"), ("other", "other")];
        let chart = Chart::from_records(&records, "adapter", "t", "c", &keys).unwrap();
        assert_eq!(
            chart.curves,
            [
                Curve { name: "training".into(), points: vec![(1.0, 3.0), (2.0, 2.0)] },
                Curve { name: "held out".into(), points: vec![(2.0, 2.5)] },
            ]
        );
        assert_eq!(Chart::from_records(&records, "none", "t", "c", &keys), None);
    }

    #[test]
    fn the_data_survive_json() {
        let data = ReportData {
            title: "a".into(),
            examples: vec![Example { audio_wav: vec![0, 255, 7], ..Example::default() }],
            charts: vec![Chart::listening_gap(&[(1.0, 2.0, 3.0)])],
            ..ReportData::default()
        };
        let json = serde_json::to_string(&data).unwrap();
        assert_eq!(serde_json::from_str::<ReportData>(&json).unwrap(), data);
    }
}
