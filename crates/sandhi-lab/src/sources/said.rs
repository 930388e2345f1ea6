//! What is said in the utterances of a connector's stage, for the losses that compare speech to text.
//!
//! ```text
//! text        she  left early          tokens     sh e ␣left ␣ear ly
//! word times  |--| |---| |-----|       durations  of the words, split among their tokens by letters
//! blanks      share of an utterance that the encoder's CTC head takes for no character
//! ```

use rayon::prelude::*;
use sandhi_data::text::Characters;

use super::{Error, Spoken};
use crate::{
    chat::Chat,
    model::{HostRagged, Recognizer, SpeechModel},
    recipe::{LossConfig, PadMass, TargetMass},
    train::{dataset::Utterance, learner::Said},
};

/// Utterances whose posteriors are computed at once.
const AT_ONCE: usize = 16;

/// What is said in every utterance, as far as the losses of a stage ask for it; `encoded` says that their rows are
/// frames of the encoder.
///
/// # Errors
///
/// When masses are to follow durations and no utterance has times for its words, or blanks are asked of an encoder that
/// has no CTC head. Single utterances without times are warned of; without masses they take no part in transport.
pub(super) fn said(
    loss: &LossConfig,
    chat: &Chat,
    speech: &SpeechModel,
    spoken: &[Spoken],
    utterances: &[Utterance],
    encoded: bool,
) -> Result<Vec<Said>, Error> {
    let transport = loss.transport.as_ref();
    if transport.is_none() && loss.token_ctc == 0.0 {
        return Ok(vec![Said::default(); spoken.len()]);
    }
    let mut said = Vec::with_capacity(spoken.len());
    let mut n_untimed = 0;
    for (spoken, utterance) in spoken.iter().zip(utterances) {
        let tokens = chat.transcript(spoken.text())?;
        let masses = match transport.map_or(TargetMass::Uniform, |config| config.masses) {
            TargetMass::Uniform | TargetMass::Counts => Vec::new(),
            TargetMass::Characters => {
                tokens.iter().map(|&token| n_characters(chat, token)).collect()
            }
            TargetMass::Durations => durations(chat, &tokens, utterance).unwrap_or_else(|| {
                n_untimed += 1;
                vec![0.0; tokens.len()]
            }),
        };
        said.push(Said { tokens, masses, pad_share: None });
    }
    if n_untimed > 0 {
        let n = spoken.len();
        if n_untimed == n {
            return Err(Error::WordTimes { text: spoken[0].text().to_owned() });
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
fn begins_word(chat: &Chat, token: u32) -> bool {
    let piece = chat.tokenizer().piece(token).unwrap_or_default();
    piece.starts_with(['Ġ', '▁', ' '])
}

/// A word lasts at least so long: times may be rounded to nothing.
const SHORTEST_S: f64 = 0.01;

/// Seconds of every token: those of its word, by its share of the word's characters. None where there are not as many
/// words with times as in the transcript.
fn durations(chat: &Chat, tokens: &[u32], utterance: &Utterance) -> Option<Vec<f64>> {
    let mut words: Vec<Vec<f64>> = Vec::new();
    for &token in tokens {
        if words.is_empty() || begins_word(chat, token) {
            words.push(Vec::new());
        }
        words.last_mut().expect("pushed above").push(n_characters(chat, token));
    }
    if words.len() != utterance.words.len() {
        return None;
    }
    let of_words = words.iter().zip(&utterance.words).flat_map(|(characters, word)| {
        let seconds = (word.end_s - word.start_s).max(SHORTEST_S);
        let total: f64 = characters.iter().sum();
        characters.iter().map(move |n| n * seconds / total)
    });
    Some(of_words.collect())
}

#[cfg(test)]
mod tests {
    use sandhi_data::{
        alignment::{Alignment, Source},
        language::Language,
        speech::Domain,
        text::Tokenizer,
    };

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
        let spoken = Spoken::made(text.into(), Language::English, Domain::Base);
        let words = vec![word("she", 0.0, 0.3), word("left", 0.4, 0.8), word("early", 0.9, 1.4)];
        let utterance = Utterance { rows: [0.0].into(), duration_s: 1.5, words };
        let tokens = chat.transcript(text).unwrap();
        assert!(tokens.len() > 3);
        let found = durations(&chat, &tokens, &utterance).unwrap();
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

        let untimed = Utterance { words: Vec::new(), ..utterance.clone() };
        assert_eq!(durations(&chat, &tokens, &untimed), None);
        // Times that are rounded to nothing.
        let mut flat = utterance.clone();
        for word in &mut flat.words {
            word.end_s = word.start_s;
        }
        let found = durations(&chat, &tokens, &flat).unwrap();
        assert!((found.iter().sum::<f64>() - 0.03).abs() < 1e-9);

        let transport = TransportConfig { masses: TargetMass::Durations, ..Default::default() };
        let loss = LossConfig { transport: Some(transport), ..LossConfig::default() };
        let of = |utterances: &[Utterance]| {
            let spoken = vec![spoken.clone(); utterances.len()];
            said(&loss, &chat, &speech(), &spoken, utterances, true)
        };
        let some = of(&[utterance, untimed.clone()]).unwrap();
        assert!(some[0].masses.iter().sum::<f64>() > 1.0);
        assert_eq!(some[1].masses, vec![0.0; tokens.len()]);
        let error = of(&[untimed]).unwrap_err().to_string();
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
