//! What is said in the utterances of a connector's stage, for the losses that compare speech to text.
//!
//! ```text
//! text        she  left early          tokens     sh e ␣left ␣ear ly
//! word times  |--| |---| |-----|       durations  of the words, split among their tokens by letters
//! blanks      share of an utterance that the encoder's CTC head takes for no character
//! ```

use rayon::prelude::*;
use sandhi_data::{alignment::Alignment, text::Characters};

use super::Error;
use crate::{
    chat::Chat,
    model::{EndsError, HostRagged, Recognizer, SpeechModel, TokenEnds},
    recipe::{LossConfig, PadMass, TargetMass},
    train::{dataset::Utterance, learner::Said},
};

/// Utterances whose posteriors are computed at once.
const AT_ONCE: usize = 16;

/// Who asks what is said.
pub(crate) struct Wanted<'a> {
    /// The losses of a stage.
    pub loss: &'a LossConfig,
    /// Whether the connector asks for the tokens in any case.
    pub tokens: bool,
    /// Whether the utterances' rows are frames of the encoder.
    pub encoded: bool,
}

/// What is said in every utterance, as far as it is wanted.
///
/// # Errors
///
/// When masses are to follow durations and no utterance has times for its words, or blanks are asked of an encoder that
/// has no CTC head. Single utterances without times are warned of; without masses they take no part in transport.
pub(crate) fn said(
    wanted: &Wanted<'_>,
    chat: &Chat,
    speech: &SpeechModel,
    texts: &[&str],
    utterances: &[Utterance],
) -> Result<Vec<Said>, Error> {
    let Wanted { loss, tokens, encoded } = *wanted;
    let transport = loss.transport.as_ref();
    if !loss.wants_said() && !tokens {
        return Ok(vec![Said::default(); texts.len()]);
    }
    let mut said = Vec::with_capacity(texts.len());
    let mut n_untimed = 0;
    for (text, utterance) in texts.iter().zip(utterances) {
        let tokens = chat.transcript(text)?;
        let masses = match transport.map_or(TargetMass::Uniform, |config| config.masses) {
            TargetMass::Uniform | TargetMass::Counts => Vec::new(),
            TargetMass::Characters => {
                tokens.iter().map(|&token| n_characters(chat, token)).collect()
            }
            TargetMass::Durations => {
                let found = by_word(chat, &tokens, &utterance.words);
                n_untimed += usize::from(found.is_none());
                found.map_or_else(|| vec![0.0; tokens.len()], |words| words.concat())
            }
        };
        said.push(Said { tokens, masses, pad_share: None });
    }
    if n_untimed > 0 {
        let n = texts.len();
        if n_untimed == n {
            return Err(Error::WordTimes { text: texts[0].to_owned() });
        }
        tracing::warn!(
            "{n_untimed} of {n} utterances have no times for each of their words, and take no part in transport by \
             durations"
        );
    }
    if transport.is_some_and(|config| config.pad == PadMass::Blank) {
        if !encoded {
            return Err(Error::BlanksMove);
        }
        let none = || Error::NoRecognizer { asked: "transport.pad = \"blank\"".to_owned() };
        let recognizer = speech.recognizer.as_ref().ok_or_else(none)?;
        let chunks: Vec<(&[Utterance], Recognizer)> =
            utterances.chunks(AT_ONCE).map(|chunk| (chunk, recognizer.clone())).collect();
        let shares: Vec<Vec<f64>> = chunks
            .into_par_iter()
            .map(|(chunk, recognizer)| blank_shares(&recognizer, speech.d_encoder(), chunk))
            .collect();
        for (said, share) in said.iter_mut().zip(shares.into_iter().flatten()) {
            said.pad_share = Some(share);
        }
    }
    Ok(said)
}

/// The last frame of every token of the transcripts, by forced alignment to the encoder's CTC head; nothing for utterances
/// that their text does not fit into, which are warned of.
///
/// # Errors
///
/// When the encoder learns or has no CTC head, or no text fits its sound.
pub(crate) fn ends(
    chat: &Chat,
    speech: &SpeechModel,
    texts: &[&str],
    utterances: &[Utterance],
    encoded: bool,
) -> Result<Vec<Vec<u32>>, Error> {
    if !encoded {
        return Err(Error::SegmentsMove);
    }
    if speech.recognizer.is_none() {
        return Err(Error::NoRecognizer { asked: "segmenter".to_owned() });
    }
    let chunks = utterances.chunks(AT_ONCE).zip(texts.chunks(AT_ONCE));
    let chunks: Vec<(&[Utterance], &[&str], SpeechModel)> =
        chunks.map(|(utterances, texts)| (utterances, texts, speech.clone())).collect();
    let of_chunk = |(utterances, texts, speech): (&[Utterance], &[&str], SpeechModel)| {
        let rows = utterances.iter().map(|utterance| utterance.rows.as_ref());
        let frames = HostRagged::gather(speech.d_encoder(), rows);
        let recognizer = speech.recognizer.as_ref().expect("asked above");
        let places = TokenEnds::new(&speech, chat).expect("asked above");
        places.all(&recognizer.log_probs(&frames), &frames.lengths, texts)
    };
    let found: Vec<Result<Vec<u32>, EndsError>> =
        chunks.into_par_iter().flat_map_iter(of_chunk).collect();
    let n_bad = found.iter().filter(|ends| ends.is_err()).count();
    let first = found.iter().zip(texts).find_map(|(ends, text)| Some((ends.as_ref().err()?, text)));
    if let Some((why, text)) = first {
        if n_bad == found.len() {
            return Err(Error::Segments { text: (*text).to_owned(), why: why.to_string() });
        }
        let n = found.len();
        tracing::warn!(
            "{n_bad} of {n} utterances are left out, as their text has no segments; the first: {text:?}: {why}"
        );
    }
    Ok(found.into_iter().map(Result::unwrap_or_default).collect())
}

/// Mean posterior of the blank over the steps of every utterance; its rows are encoder frames.
fn blank_shares(recognizer: &Recognizer, width: usize, utterances: &[Utterance]) -> Vec<f64> {
    let frames = HostRagged::gather(width, utterances.iter().map(|u| u.rows.as_ref()));
    let log_probs = recognizer.log_probs(&frames);
    let blank = Characters::BLANK as usize;
    let shares = log_probs.sequences().map(|rows| {
        let steps = rows.chunks_exact(log_probs.width);
        let n_steps = steps.len().max(1) as f64;
        steps.map(|row| f64::from(row[blank]).exp()).sum::<f64>().min(n_steps) / n_steps
    });
    shares.collect()
}

/// Characters of a token, spaces left out; at least 1.
fn n_characters(chat: &Chat, token: u32) -> f64 {
    chat.decode(&[token]).chars().count().max(1) as f64
}

/// Whether a token begins a word, by the marks that vocabularies have for a space.
pub(crate) fn begins_word(chat: &Chat, token: u32) -> bool {
    let piece = chat.tokenizer().piece(token).unwrap_or_default();
    piece.starts_with(['Ġ', '▁', ' '])
}

/// A word lasts at least so long: times may be rounded to nothing.
const SHORTEST_S: f64 = 0.01;

/// When every token is said, from its start to its end in seconds: its word's time, split by characters. None where there
/// are not as many words with times as in the transcript.
pub(crate) fn token_times(
    chat: &Chat,
    tokens: &[u32],
    words: &[Alignment],
) -> Option<Vec<[f64; 2]>> {
    let of_words = by_word(chat, tokens, words)?;
    let mut times = Vec::with_capacity(tokens.len());
    for (durations, word) in of_words.iter().zip(words) {
        let mut start_s = word.start_s;
        for duration_s in durations {
            times.push([start_s, start_s + duration_s]);
            start_s += duration_s;
        }
    }
    Some(times)
}

/// Seconds of the tokens of every word: those of the word, by their shares of its characters. None where there are not as
/// many words with times as in the transcript.
fn by_word(chat: &Chat, tokens: &[u32], times: &[Alignment]) -> Option<Vec<Vec<f64>>> {
    let mut words: Vec<Vec<f64>> = Vec::new();
    for &token in tokens {
        if words.is_empty() || begins_word(chat, token) {
            words.push(Vec::new());
        }
        words.last_mut().expect("pushed above").push(n_characters(chat, token));
    }
    if words.len() != times.len() {
        return None;
    }
    for (characters, word) in words.iter_mut().zip(times) {
        let seconds = (word.end_s - word.start_s).max(SHORTEST_S);
        let total: f64 = characters.iter().sum();
        characters.iter_mut().for_each(|n| *n = *n * seconds / total);
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use sandhi_data::{alignment::Source, text::Tokenizer};

    use super::*;
    use crate::{chat::MARKERS, recipe::TransportConfig};

    fn word(label: &str, start_s: f64, end_s: f64) -> Alignment {
        let source = Source::Exact;
        Alignment { label: label.into(), start_s, end_s, confidence: None, source }
    }

    #[test]
    fn words_share_their_time_among_their_tokens() {
        let texts = ["she left early", "she left", "early"];
        let chat = Chat::with_markers(Tokenizer::train_bpe(texts, 262, &MARKERS).unwrap()).unwrap();
        let text = "she left early";
        let words = vec![word("she", 0.0, 0.3), word("left", 0.4, 0.8), word("early", 0.9, 1.4)];
        let tokens = chat.transcript(text).unwrap();
        assert!(tokens.len() > 3);
        let found = by_word(&chat, &tokens, &words).unwrap().concat();
        assert_eq!(found.len(), tokens.len());
        assert!((found.iter().sum::<f64>() - 1.2).abs() < 1e-9);
        // Every letter of a word has as much of it.
        let of_she: f64 = tokens
            .iter()
            .zip(&found)
            .scan(0.0, |letters, (&token, seconds)| {
                *letters += n_characters(&chat, token);
                (*letters <= 3.0).then_some(*seconds)
            })
            .sum();
        assert!((of_she - 0.3).abs() < 1e-9, "{of_she}");

        // One behind the other within a word, which begins when it does.
        let times = token_times(&chat, &tokens, &words).unwrap();
        for (&[start, end], seconds) in times.iter().zip(&found) {
            assert!((end - start - seconds).abs() < 1e-9);
            let within = |w: &Alignment| w.start_s - 1e-9 <= start && end <= w.end_s + 1e-9;
            assert_eq!(words.iter().filter(|w| within(w)).count(), 1, "{start} {end}");
        }
        assert_eq!(times[0][0], 0.0);
        assert!((times[tokens.len() - 1][1] - 1.4).abs() < 1e-9);

        // Times that are rounded to nothing.
        let flat: Vec<Alignment> =
            words.iter().map(|w| word(&w.label, w.start_s, w.start_s)).collect();
        let found = by_word(&chat, &tokens, &flat).unwrap().concat();
        assert!((found.iter().sum::<f64>() - 0.03).abs() < 1e-9);

        // Some without times are left out, all without are an error.
        let transport = TransportConfig { masses: TargetMass::Durations, ..Default::default() };
        let loss = LossConfig { transport: Some(transport), ..LossConfig::default() };
        let heard = |words: &[Alignment]| Utterance {
            rows: [0.0].into(),
            duration_s: 1.5,
            words: words.to_vec(),
        };
        let of = |utterances: &[Utterance]| {
            let texts = vec![text; utterances.len()];
            let wanted = Wanted { loss: &loss, tokens: false, encoded: true };
            said(&wanted, &chat, &speech(), &texts, utterances)
        };
        let some = of(&[heard(&words), heard(&[])]).unwrap();
        assert!(some[0].masses.iter().sum::<f64>() > 1.0);
        assert_eq!(some[1].masses, vec![0.0; tokens.len()]);
        let error = of(&[heard(&[])]).unwrap_err().to_string();
        assert!(error.contains("she left early"), "{error}");
    }

    fn speech() -> SpeechModel {
        let encoder = serde_json::json!({
            "kind": "conformer", "d_model": 8, "n_layers": 1, "n_heads": 2, "d_ff": 8, "kernel": 3,
        });
        SpeechModel::init(
            serde_json::from_str(r#"{"kind": "whisper", "n_mels": 4}"#).unwrap(),
            serde_json::from_value(encoder).unwrap(),
            sandhi_nn::encoder::CtcHeadConfig { steps_per_frame: 1 },
            Characters::from_texts(["a"]),
            &sandhi_nn::init::Init::new(1, &burn::prelude::Device::flex()),
        )
        .unwrap()
    }

    #[test]
    fn blanks_are_a_share_of_an_utterance() {
        let speech = speech();
        let recognizer = speech.recognizer.as_ref().unwrap();
        let utterance =
            |rows: Vec<f32>| Utterance { rows: rows.into(), duration_s: 1.0, words: Vec::new() };
        let utterances = [utterance(vec![0.3; 8 * 5]), utterance(vec![]), utterance(vec![-2.0; 8])];
        let shares = blank_shares(recognizer, 8, &utterances);
        // By hand for the first: every step is the same.
        let log_probs = recognizer.log_probs(&HostRagged::gather(8, [[0.3_f32; 8].as_slice()]));
        assert!((shares[0] - f64::from(log_probs.values[0]).exp()).abs() < 1e-6);
        assert!(shares[1] == 0.0 && shares[2] > 0.0 && shares[2] < 1.0, "{shares:?}");
    }
}
