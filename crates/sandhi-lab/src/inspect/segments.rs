//! Where an utterance is cut by everything that can cut it, and which token each of its vectors is nearest to.
//!
//! ```text
//! words          |   she   |     |     left     |       exact, or by forced alignment
//! forced         . . . |   .|             . .   |       last frames of the transcript's tokens
//! ctc            . . . |   .|             . .   |       of the tokens that the CTC head reads
//! connector      . .  .     |    .      .       |       last frames of its vectors, where it decides on them
//! vectors        |sh |  e   | -  |   ␣left      |       what the language model is given
//! ```
//!
//! The nearest token of a vector is the one whose embedding has the greatest cosine to it.

use sandhi_data::{
    alignment::{Alignment, Source},
    features::{FeatureConfig, FeatureExtractor, WhisperConfig},
    microworld::Task,
};
use sandhi_nn::connector::{ConnectorConfig, ConnectorOutput};
use serde::{Deserialize, Serialize};

use super::{
    Error,
    geometry::Table,
    transport::{label, peaks},
};
use crate::{
    align::Aligner,
    generate::Decoding,
    model::{ConnectorModel, HostRagged, Segmenter, TokenEnds},
    report::{self, LogMel},
    sources, transcribe,
};

const RATE_HZ: f64 = 16_000.0;
/// What errors call it.
const SPECTROGRAM: &str = "spectrogram";

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub struct SegmentsRequest<'a> {
    /// 16 kHz samples.
    pub samples: &'a [f32],
    /// What is said; what the model writes where absent.
    pub text: Option<&'a str>,
    /// When the words are said, where that is known; else the encoder's CTC head is asked, where it has one.
    pub words: Option<&'a [Alignment]>,
}

/// An utterance with its cuts and vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segmented {
    /// What is said, or what the model writes.
    pub text: String,
    /// Whether the text was given, and is no reading of the sound.
    pub is_given: bool,
    /// Seconds of sound.
    pub duration_s: f64,
    /// The lowest and the highest sample of every hundredth of a second.
    pub waveform: Vec<[f32; 2]>,
    /// Its log-mel spectrogram, 100 columns a second and 80 bands, as a PNG.
    #[serde(with = "crate::report::base64_bytes")]
    pub spectrogram: Vec<u8>,
    /// The words with their times.
    pub words: Vec<Alignment>,
    /// Why there are no words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_words: Option<String>,
    /// Boundaries by every segmenter that the model has.
    pub cuts: Vec<Cuts>,
    /// What the language model is given, in order.
    pub vectors: Vec<VectorSpan>,
}

/// Where one segmenter cuts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cuts {
    /// Its name: `forced`, `ctc`, or the connector's kind.
    pub name: String,
    /// Whether it sees the transcript.
    pub is_oracle: bool,
    /// Where segments end, in seconds, in order.
    pub ends_s: Vec<f64>,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<String>,
}

/// A vector that the language model is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VectorSpan {
    /// From where to where it reaches, in seconds: to the end of its last frame, from the end of the vector before where
    /// the data decide. None of a vector that stands for no stretch of its own.
    pub span_s: Option<[f64; 2]>,
    /// The nearest token; none of a vector without a direction.
    pub nearest: Option<Nearest>,
}

/// The token whose embedding is nearest to a vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nearest {
    /// The token.
    pub token: u32,
    /// How it is written, `␣` before what begins a word.
    pub label: String,
    /// The cosine between vector and embedding.
    pub cosine: f64,
}

/// Cuts an utterance by everything that can cut it, and names the nearest token of every vector.
///
/// # Errors
///
/// When the sound has no features, or the model hears nothing without its transcript and none was given.
pub fn segments(model: &ConnectorModel, request: &SegmentsRequest<'_>) -> Result<Segmented, Error> {
    let SegmentsRequest { samples, .. } = *request;
    let frames = transcribe::frames(&model.speech, &[samples])?;
    let is_given = request.text.is_some();
    let text = match request.text {
        Some(text) => text.trim().to_owned(),
        None => {
            let asked = Task::Transcribe.wordings()[0];
            transcribe::answer(model, &[samples], &[asked], &Decoding::default())?.remove(0)
        }
    };
    let log_probs =
        model.speech.recognizer.as_ref().map(|recognizer| recognizer.log_probs(&frames));
    let (words, no_words) = match request.words {
        Some(words) if !words.is_empty() => (words.to_vec(), None),
        _ => heard_words(model, log_probs.as_ref(), &text),
    };
    let output = model.output(&frames, Some(&[&text])).map_err(sources::Error::from)?;
    let mut cuts = by_head(model, log_probs.as_ref(), &frames, &text, is_given);
    cuts.extend(own(model, &output));
    Ok(Segmented {
        is_given,
        duration_s: samples.len() as f64 / RATE_HZ,
        waveform: peaks(samples),
        spectrogram: spectrogram(samples)?,
        words,
        no_words,
        cuts,
        vectors: vectors(model, &output),
        text,
    })
}

/// The picture of a log-mel spectrogram, whatever the encoder itself is given.
pub(super) fn spectrogram(samples: &[f32]) -> Result<Vec<u8>, Error> {
    Ok(report::png(SPECTROGRAM, &log_mel(samples)?)?.unwrap_or_default())
}

/// A log-mel spectrogram of 80 bands, 100 frames a second.
///
/// # Errors
///
/// When there are no samples, or they are not finite.
pub(crate) fn log_mel(samples: &[f32]) -> Result<LogMel, Error> {
    let features = |error| sources::Error::Features { id: SPECTROGRAM.to_owned(), error };
    let config = FeatureConfig::Whisper(WhisperConfig::default());
    let found = FeatureExtractor::new(&config).map_err(features)?;
    let found = found.compute(samples).map_err(features)?;
    let frame_s = 1.0 / config.rate_hz();
    let (n_frames, n_mels) = (found.n_frames, found.n_mels);
    Ok(LogMel { n_frames, n_mels, values: found.values, frame_s })
}

/// The words by the encoder's CTC head, or why there are none.
fn heard_words(
    model: &ConnectorModel,
    log_probs: Option<&HostRagged>,
    text: &str,
) -> (Vec<Alignment>, Option<String>) {
    let none = |why: String| (Vec::new(), Some(why));
    if text.is_empty() {
        return none("nothing is written".into());
    }
    let Some((aligner, log_probs)) = Aligner::by(&model.speech, Source::Silver).zip(log_probs)
    else {
        return none("the encoder has no CTC head to place them by".into());
    };
    match aligner.of(&log_probs.values, text) {
        Ok(aligned) => (aligned.words(), None),
        Err(why) => none(why.to_string()),
    }
}

/// Cuts by the encoder's CTC head, where it has one: forced to the text, and of what it reads itself.
fn by_head(
    model: &ConnectorModel,
    log_probs: Option<&HostRagged>,
    frames: &HostRagged,
    text: &str,
    is_given: bool,
) -> Vec<Cuts> {
    let speech = &model.speech;
    let places = TokenEnds::new(speech, &model.text.chat);
    let (Some(places), Some(log_probs), Some(recognizer)) =
        (places, log_probs, speech.recognizer.as_ref())
    else {
        return Vec::new();
    };
    let read = recognizer.greedy(log_probs).remove(0);
    let of = |segmenter: Segmenter, text: &str, is_oracle, nothing: &str| {
        let found = match text.trim() {
            "" => Err(nothing.to_owned()),
            text => {
                let mut ends = places.all(log_probs, &frames.lengths, &[text]);
                ends.remove(0).map_err(|why| why.to_string())
            }
        };
        let (ends, none) = match found {
            Ok(ends) => (ends, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let name = segmenter.name().to_owned();
        Cuts { name, is_oracle, ends_s: seconds(model, &ends), none }
    };
    vec![
        of(Segmenter::Forced, text, is_given, "nothing is written"),
        of(Segmenter::Ctc, &read, false, "the CTC head reads nothing"),
    ]
}

/// When frames are over, in seconds.
fn seconds(model: &ConnectorModel, ends: &[u32]) -> Vec<f64> {
    let rate_hz = model.speech.frame_rate_hz();
    ends.iter().map(|&end| f64::from(end + 1) / rate_hz).collect()
}

/// The last frame of every vector in order; that of one which stands for no stretch of its own is none.
///
/// A vector of all blanks stands first and ends where others have begun.
pub(super) fn in_order(ends: &[u32]) -> Vec<Option<u32>> {
    let scattered = matches!(ends, [first, second, ..] if second < first);
    ends.iter().enumerate().map(|(i, &end)| (i > 0 || !scattered).then_some(end)).collect()
}

/// Cuts of the connector itself, where it decides on them.
fn own(model: &ConnectorModel, output: &ConnectorOutput) -> Option<Cuts> {
    let ends = output.ends.as_ref()?.first()?;
    let ends: Vec<u32> = in_order(ends).into_iter().flatten().collect();
    let kind = serde_json::to_value(&model.config).expect("settings are plain values");
    let name = kind["kind"].as_str().expect("a connector has a kind").to_owned();
    Some(Cuts {
        name,
        is_oracle: model.segmenter == Some(Segmenter::Forced),
        ends_s: seconds(model, &ends),
        none: ends.is_empty().then(|| "the connector gives no vector".to_owned()),
    })
}

/// What the language model is given: where it is, and what it is nearest to.
fn vectors(model: &ConnectorModel, output: &ConnectorOutput) -> Vec<VectorSpan> {
    let lm = &model.text.lm;
    let all = spans(model, output);
    let (given, spans) = match &model.compression {
        None => (output.vectors.clone(), all),
        Some(compression) => {
            let kept = compression.kept(&output.vectors, lm).into_iter().flatten();
            let merged = kept.map(|[first, last]| {
                let ([start_s, _], [_, end_s]) = (all[first]?, all[last]?);
                Some([start_s, end_s])
            });
            (compression.forward(&output.vectors, lm), merged.collect())
        }
    };
    let nearest = Table::new(lm).nearest(&given.values);
    let named = |(token, cosine)| Nearest { token, label: label(&model.text.chat, token), cosine };
    let spans = spans.into_iter().zip(nearest);
    spans.map(|(span_s, nearest)| VectorSpan { span_s, nearest: nearest.map(named) }).collect()
}

/// From where to where each of the connector's vectors reaches, before compression.
fn spans(model: &ConnectorModel, output: &ConnectorOutput) -> Vec<Option<[f64; 2]>> {
    let rate_hz = model.speech.frame_rate_hz();
    let n_vectors = output.vectors.offsets.n_rows();
    if let Some(ends) = output.ends.as_ref().and_then(|ends| ends.first()) {
        let mut past = 0;
        let span = |end: u32| {
            // Two vectors may end in one frame.
            let span = [past.min(end), end + 1].map(|frame| f64::from(frame) / rate_hz);
            past = end + 1;
            span
        };
        return in_order(ends).into_iter().scan(span, |span, end| Some(end.map(span))).collect();
    }
    // Frames of a window, and the vectors that share it.
    let (window, n_sharing) = match &model.config {
        ConnectorConfig::WindowQFormer(config) => (config.window, config.n_queries),
        config => match config.stride() {
            Some(stride) => (stride, 1),
            None => return vec![None; n_vectors],
        },
    };
    let vector_s = window as f64 / n_sharing as f64 / rate_hz;
    (0..n_vectors).map(|i| Some([i as f64 * vector_s, (i + 1) as f64 * vector_s])).collect()
}

#[cfg(test)]
mod tests {
    use sandhi_nn::{
        compression::CompressionConfig,
        ragged::{Offsets, Ragged},
    };
    use serde_json::json;

    use super::*;
    use crate::{
        inspect::testing::{TEXT, model, model_of, samples},
        model::Compression,
    };

    fn output(model: &ConnectorModel, tokens: &[u32], ends: Option<&[u32]>) -> ConnectorOutput {
        let values = model.text.lm.embed(tokens);
        let vectors = Ragged { values, offsets: Offsets::from_lengths(&[tokens.len()]) };
        let ends = ends.map(|ends| vec![ends.to_vec()]);
        ConnectorOutput { vectors, ends, penalties: Vec::new() }
    }

    fn places(found: &[VectorSpan]) -> Vec<Option<[i64; 2]>> {
        let ms = |s: f64| (1e3 * s).round() as i64;
        found.iter().map(|vector| vector.span_s.map(|span| span.map(ms))).collect()
    }

    #[test]
    fn vectors_that_are_embeddings_are_named_at_their_times() {
        let mut model = model();
        let tokens = model.text.chat.transcript(TEXT).unwrap();
        assert!(tokens.len() > 3);
        // 80 ms each.
        let found = vectors(&model, &output(&model, &tokens, None));
        for (i, (vector, &token)) in found.iter().zip(&tokens).enumerate() {
            let nearest = vector.nearest.as_ref().unwrap();
            assert_eq!(nearest.token, token);
            assert_eq!(nearest.label, label(&model.text.chat, token));
            assert!((nearest.cosine - 1.0).abs() < 1e-6);
            assert!((vector.span_s.unwrap()[0] - 0.08 * i as f64).abs() < 1e-9);
        }
        // Equal neighbours become one, over the time of both.
        let thresholds = CompressionConfig { merge: Some(0.999), drop: None };
        model.compression = Some(Compression { thresholds, pad: None });
        let [a, b] = [tokens[0], tokens[1]];
        let found = vectors(&model, &output(&model, &[a, a, b, b, a], None));
        let named: Vec<u32> = found.iter().map(|v| v.nearest.as_ref().unwrap().token).collect();
        assert_eq!(named, [a, b, a]);
        assert_eq!(places(&found), [Some([0, 160]), Some([160, 320]), Some([320, 400])]);
    }

    #[test]
    fn vectors_of_segments_reach_from_end_to_end() {
        let model = model();
        // 25 frames a second; the last two end in one frame.
        let found = vectors(&model, &output(&model, &[1, 2, 3, 4], Some(&[0, 4, 9, 9])));
        let expected = [Some([0, 40]), Some([40, 200]), Some([200, 400]), Some([360, 400])];
        assert_eq!(places(&found), expected);
        // A vector of all blanks stands first.
        let scattered = output(&model, &[1, 2, 3], Some(&[9, 4, 6]));
        assert_eq!(places(&vectors(&model, &scattered)), [None, Some([0, 200]), Some([200, 280])]);
        let cuts = own(&model, &scattered).unwrap();
        assert_eq!((cuts.name.as_str(), cuts.is_oracle), ("slm", false));
        assert_eq!(cuts.ends_s, [0.2, 0.28]);
        assert_eq!(own(&model, &output(&model, &[1], None)), None);
        let silent = own(&model, &output(&model, &[], Some(&[]))).unwrap();
        assert!(silent.none.unwrap().contains("no vector"));
    }

    #[test]
    fn every_segmenter_cuts() {
        let samples = samples();
        let request = SegmentsRequest { samples: &samples, text: Some(TEXT), words: None };
        let cif = model_of(json!({ "kind": "cif", "d_conv": 4 }));
        let found = segments(&cif, &request).unwrap();
        let names: Vec<&str> = found.cuts.iter().map(|cuts| cuts.name.as_str()).collect();
        assert_eq!(names, ["forced", "ctc", "cif"]);
        assert_eq!(
            found.cuts.iter().map(|c| c.is_oracle).collect::<Vec<_>>(),
            [true, false, false]
        );
        let n_tokens = cif.text.chat.transcript(TEXT).unwrap().len();
        assert_eq!(found.cuts[0].ends_s.len(), n_tokens);
        assert_eq!(found.cuts[2].ends_s.len(), found.vectors.len());
        assert!(found.cuts.iter().all(|cuts| cuts.ends_s.is_sorted()));
        assert_eq!((found.words.len(), found.no_words.as_deref()), (3, None));
        assert_eq!((found.duration_s, found.waveform.len()), (1.5, 150));
        assert!(found.spectrogram.starts_with(b"\x89PNG"));
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Segmented>(&json).unwrap(), found);

        // Words that are known are not asked for.
        let known = [Alignment { source: Source::Exact, ..found.words[0].clone() }];
        let with = SegmentsRequest { words: Some(&known), ..request };
        assert_eq!(segments(&cif, &with).unwrap().words, known);
        // Queries of the whole utterance have no time, those of a window share its.
        let sizes =
            json!({ "n_queries": 2, "d_hidden": 8, "n_layers": 1, "n_heads": 2, "d_ff": 8 });
        let of = |kind: &str, more: Option<usize>| {
            let mut sizes = sizes.clone();
            sizes["kind"] = kind.into();
            more.into_iter().for_each(|window| sizes["window"] = window.into());
            places(&segments(&model_of(sizes), &request).unwrap().vectors)
        };
        assert_eq!(of("q_former", None), [None, None]);
        let windows = of("window_q_former", Some(10));
        assert_eq!(windows[..3], [Some([0, 200]), Some([200, 400]), Some([400, 600])]);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let samples = samples();
        let request = SegmentsRequest { samples: &samples, text: Some(" "), words: None };
        let mut model = model();
        let found = segments(&model, &request).unwrap();
        assert_eq!(found.no_words.as_deref(), Some("nothing is written"));
        assert_eq!(found.cuts[0].none.as_deref(), Some("nothing is written"));
        // More text than fits into the sound.
        let long = [TEXT; 20].join(" ");
        let found = segments(&model, &SegmentsRequest { text: Some(&long), ..request }).unwrap();
        assert!(found.no_words.unwrap().contains("takes"), "{:?}", found.cuts[0]);
        assert!(found.cuts[0].none.as_ref().unwrap().contains("takes"));
        // What the model writes is no oracle.
        let found = segments(&model, &SegmentsRequest { text: None, ..request }).unwrap();
        assert!(!found.is_given && found.cuts.iter().all(|cuts| !cuts.is_oracle));
        model.speech.recognizer = None;
        let found = segments(&model, &SegmentsRequest { text: Some(TEXT), ..request }).unwrap();
        assert!(found.cuts.is_empty() && found.no_words.unwrap().contains("no CTC head"));
        assert_eq!(found.vectors.len(), 19);
        let error = segments(&model, &SegmentsRequest { samples: &[], ..request });
        assert!(error.is_err());
    }
}
