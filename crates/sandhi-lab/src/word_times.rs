//! When the words of a text are said, by the CTC head of a speech model.
//!
//! ```text
//! text      the           ball            the best path that spells the characters, by Viterbi
//! symbols   t h e ␣ ␣ ␣ b _ a l _ l _ _
//! word     |-----|     |-----------|      from its first character's start to its last one's end
//! ```
//!
//! CTC may say a character anywhere within it, often as a short spike, so that words come out a little
//! short; their order and places hold.

use sandhi_align::ctc::{self, Error};
use sandhi_data::{
    alignment::{Alignment, Source},
    text::{Characters, Unknown},
};

use crate::model::{Recognizer, SpeechModel, fingerprint};

/// Places words on the time axis.
#[derive(Debug)]
pub struct WordTimes<'a> {
    recognizer: &'a Recognizer,
    /// Seconds of a CTC step.
    step_s: f64,
    source: Source,
}

impl<'a> WordTimes<'a> {
    /// By the head of this model, where it has one.
    pub fn new(model: &'a SpeechModel) -> Option<Self> {
        let recognizer = model.recognizer.as_ref()?;
        let steps = recognizer.config.steps_per_frame as f64;
        Some(Self {
            recognizer,
            step_s: 1.0 / (model.frame_rate_hz() * steps),
            source: Source::Model(fingerprint(&model.ctc_net()?)),
        })
    }

    /// The words of `text` with times from the start of the utterance and confidence; words without a
    /// character that the model knows are left out. `None` when the text is too long for the sound.
    ///
    /// # Shapes
    ///
    /// - `log_probs`: `[n_steps, n_symbols]`, of [`Recognizer::log_probs`]
    pub fn of(&self, log_probs: &[f32], text: &str) -> Option<Vec<Alignment>> {
        let symbols = &self.recognizer.symbols;
        let step_s = self.step_s;
        let mut target: Vec<u32> = Vec::new();
        let mut words = Vec::new();
        for word in text.split_whitespace() {
            let ids = symbols.encode(word, Unknown::Skip);
            let ids = ids.expect("what is unknown is skipped");
            if ids.is_empty() {
                continue;
            }
            if !target.is_empty() {
                target.extend(symbols.id(' '));
            }
            words.push((word, target.len()..target.len() + ids.len()));
            target.extend(ids);
        }
        let spans =
            match ctc::viterbi_align(log_probs, symbols.n_symbols(), &target, Characters::BLANK) {
                Ok(spans) => spans,
                Err(Error::TooFewFrames { .. }) => return None,
                Err(error) => unreachable!("symbols of the model over rows of its head: {error}"),
            };
        let place = |(word, range): (&str, std::ops::Range<usize>)| {
            let spans = &spans[range];
            let log_mean =
                spans.iter().map(|s| s.confidence.ln()).sum::<f32>() / spans.len() as f32;
            Alignment {
                label: word.to_owned(),
                start_s: spans[0].start as f64 * step_s,
                end_s: spans[spans.len() - 1].end as f64 * step_s,
                confidence: Some(log_mean.exp()),
                source: self.source.clone(),
            }
        };
        Some(words.into_iter().map(place).collect())
    }
}

#[cfg(test)]
mod tests {
    use burn::prelude::Device;
    use sandhi_nn::init::Init;
    use serde_json::{from_value, json};

    use super::*;

    fn model() -> SpeechModel {
        SpeechModel::init(
            from_value(json!({ "kind": "whisper", "n_mels": 80 })).unwrap(),
            from_value(json!({
                "kind": "conformer", "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 16,
                "kernel": 3,
            }))
            .unwrap(),
            from_value(json!({ "steps_per_frame": 2 })).unwrap(),
            Characters::new(" abc".chars()).unwrap(),
            &Init::new(1, &Device::flex()),
        )
        .unwrap()
    }

    /// Rows in which one symbol has nearly everything.
    fn sure(model: &SpeechModel, path: &str) -> Vec<f32> {
        let n = model.recognizer.as_ref().unwrap().symbols.n_symbols();
        let mut rows = vec![-20.0; path.len() * n];
        for (row, symbol) in rows.chunks_mut(n).zip(path.chars()) {
            row[model.recognizer.as_ref().unwrap().symbols.id(symbol).unwrap_or(0) as usize] =
                -1e-3;
        }
        rows
    }

    #[test]
    fn words_lie_where_their_characters_are() {
        let model = model();
        // Steps of 20 ms: 25 Hz, two steps a frame.
        let found =
            WordTimes::new(&model).unwrap().of(&sure(&model, "_ab_ _cc_a_"), "Ab, ca").unwrap();
        let places: Vec<(&str, i64, i64)> = found
            .iter()
            .map(|w| {
                let ms = |s: f64| (1e3 * s).round() as i64;
                (w.label.as_str(), ms(w.start_s), ms(w.end_s))
            })
            .collect();
        assert_eq!(places, [("Ab,", 20, 60), ("ca", 120, 200)]);
        assert!(found.iter().all(|w| w.confidence.unwrap() > 0.99));
    }

    #[test]
    fn what_cannot_be_placed_is_said() {
        let model = model();
        let times = WordTimes::new(&model).unwrap();
        assert_eq!(times.of(&sure(&model, "ab"), "abc"), None);
        assert_eq!(times.of(&sure(&model, "ab"), "… ?"), Some(vec![]));
        assert_eq!(times.of(&[], ""), Some(vec![]));
    }
}
