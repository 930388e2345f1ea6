//! Using a model on sound of any length.
//!
//! ```text
//! samples ───────▁────────────▁▁─────────▁───────   quiet places
//! chunks  └ at most 12 s ┘└ at most 12 s ┘└ … ┘     cut where it is quietest, nothing twice
//! ```

use sandhi_data::{alignment::Alignment, audio::Waveform};
use sandhi_nn::ragged::Ragged;

use crate::{
    align::Aligner,
    generate::{self, Decoding},
    model::{AnyModel, ConnectorModel, HostRagged, SpeechModel, TextModel, pack::Segment},
    sources::Error,
};

/// How long sound is cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chunking {
    /// Longest chunk, in seconds; models have not heard longer ones.
    pub max_s: f64,
    /// A cut is looked for after this many seconds.
    pub min_s: f64,
}

impl Default for Chunking {
    fn default() -> Self {
        Self { max_s: 12.0, min_s: 5.0 }
    }
}

/// A chunk with what was said in it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Passage {
    /// Where it starts, in seconds.
    pub start_s: f64,
    /// Where it ends, in seconds.
    pub end_s: f64,
    /// What was said.
    pub text: String,
    /// When its words were said, by the encoder's CTC head; nothing where the text does not fit into the
    /// sound.
    pub words: Vec<Alignment>,
}

/// Energy is compared over windows of this many samples (0.16 s): a gap between words, not a stop
/// consonant.
const WINDOW: usize = 2_560;
/// Steps between compared windows (10 ms).
const HOP: usize = 160;

/// Sample ranges that cover the sound once, each at most `max_s` long, cut where it is quietest.
pub fn chunks(
    samples: &[f32],
    sample_rate_hz: u32,
    chunking: Chunking,
) -> Vec<std::ops::Range<usize>> {
    let rate = f64::from(sample_rate_hz);
    let (min, max) = ((chunking.min_s * rate) as usize, ((chunking.max_s * rate) as usize).max(1));
    let mut chunks = Vec::new();
    let mut start = 0;
    while samples.len() - start > max {
        // What is left is long enough to be heard.
        let latest = (start + max).min(samples.len() - WINDOW);
        let cut = quietest(samples, start + min.min(max - 1), latest.max(start + 1));
        chunks.push(start..cut);
        start = cut;
    }
    if start < samples.len() {
        chunks.push(start..samples.len());
    }
    chunks
}

/// The middle of the quietest window whose middle lies in `from..to`; the latest of equals, so that
/// chunks are long.
fn quietest(samples: &[f32], from: usize, to: usize) -> usize {
    let mut best = (f64::INFINITY, to);
    for middle in (from..to).step_by(HOP) {
        let (a, b) = (middle.saturating_sub(WINDOW / 2), (middle + WINDOW / 2).min(samples.len()));
        let power = sandhi_data::augment::power(&samples[a..b]);
        if power <= best.0 {
            best = (power, middle);
        }
    }
    best.1.max(from + 1)
}

/// Writes down what is said, passage by passage; words have times where the model has a CTC head.
///
/// # Errors
///
/// When the sound has no features, or the model has no way from speech to text.
pub fn transcribe(
    model: &AnyModel,
    wave: &Waveform,
    instruction: &str,
    chunking: Chunking,
) -> Result<Vec<Passage>, Error> {
    let wave = wave.resampled(16_000)?;
    let ranges = chunks(&wave.samples, 16_000, chunking);
    let speech = match model {
        AnyModel::Connector(model) => &model.speech,
        AnyModel::Ctc(model) => model,
        AnyModel::Text(_) => return Err(deaf()),
        AnyModel::Aligner(_) => return Err(mute()),
        AnyModel::SpeechText(_) => return Err(untaught()),
        AnyModel::Vocoder(_) => return Err(speaks()),
    };
    let recognizer = speech.recognizer.as_ref();
    let aligner = Aligner::new(speech);
    let mut passages = Vec::with_capacity(ranges.len());
    for some in ranges.chunks(16) {
        let pieces: Vec<&[f32]> = some.iter().map(|range| &wave.samples[range.clone()]).collect();
        let frames = frames(speech, &pieces)?;
        let log_probs = recognizer.map(|recognizer| recognizer.log_probs(&frames));
        let texts = match (model, recognizer.zip(log_probs.as_ref())) {
            (AnyModel::Connector(model), _) => {
                let asked = vec![instruction; pieces.len()];
                answer_frames(model, &frames, &asked, &Decoding::default())?
            }
            (_, Some((recognizer, log_probs))) => recognizer.greedy(log_probs),
            (_, None) => return Err(no_recognizer()),
        };
        let mut rows = log_probs.as_ref().map(HostRagged::sequences);
        for (range, text) in some.iter().zip(texts) {
            let start_s = range.start as f64 / 16_000.0;
            let rows = rows.as_mut().and_then(Iterator::next);
            let words = match (&aligner, rows) {
                // What has no place has no times.
                (Some(aligner), Some(rows)) => aligner.of(rows, &text).unwrap_or_default().words(),
                _ => Vec::new(),
            };
            passages.push(Passage {
                start_s,
                end_s: range.end as f64 / 16_000.0,
                text,
                words: words.into_iter().map(|word| word.shifted(start_s)).collect(),
            });
        }
    }
    Ok(passages)
}

/// What a model without ears answers.
pub(crate) fn deaf() -> Error {
    Error::Task {
        stage: "transcribe".into(),
        error: "a text model hears nothing; give a connector or ctc model".into(),
    }
}

/// What a model over text and units answers.
pub(crate) fn untaught() -> Error {
    Error::Task {
        stage: "transcribe".into(),
        error: "a speech_text model goes on with what it hears and was not taught to write it down; give a connector \
                or ctc model"
            .into(),
    }
}

/// What an aligner model answers.
pub(crate) fn mute() -> Error {
    Error::Task {
        stage: "transcribe".into(),
        error: "an aligner model hears and writes nothing; give a connector or ctc model".into(),
    }
}

/// What a vocoder answers.
pub(crate) fn speaks() -> Error {
    Error::Task {
        stage: "transcribe".into(),
        error: "a vocoder speaks and writes nothing; give a connector or ctc model".into(),
    }
}

/// What an encoder without a head answers.
pub(crate) fn no_recognizer() -> Error {
    Error::NoRecognizer { asked: "transcription".into() }
}

/// Greedy CTC transcripts of pieces of 16 kHz sound.
///
/// # Errors
///
/// When a piece has no features, or the model no CTC head.
pub fn ctc(model: &SpeechModel, pieces: &[&[f32]]) -> Result<Vec<String>, Error> {
    let recognizer = model.recognizer.as_ref().ok_or_else(no_recognizer)?;
    Ok(recognizer.transcribe(&frames(model, pieces)?))
}

pub(crate) fn frames(model: &SpeechModel, pieces: &[&[f32]]) -> Result<HostRagged, Error> {
    let features: Vec<_> = pieces
        .iter()
        .enumerate()
        .map(|(i, piece)| {
            model
                .extract(piece)
                .map_err(|error| Error::Features { id: format!("passage {}", i + 1), error })
        })
        .collect::<Result<_, _>>()?;
    let width = model.extractor().n_mels();
    let packed = HostRagged::gather(width, features.iter().map(|f| f.values.as_slice()));
    Ok(model.encode(&packed))
}

/// Answers instructions about pieces of 16 kHz sound.
///
/// # Errors
///
/// When a piece has no features or an instruction cannot be tokenized.
pub fn answer(
    model: &ConnectorModel,
    pieces: &[&[f32]],
    instructions: &[&str],
    decoding: &Decoding,
) -> Result<Vec<String>, Error> {
    answer_frames(model, &frames(&model.speech, pieces)?, instructions, decoding)
}

fn answer_frames(
    model: &ConnectorModel,
    frames: &HostRagged,
    instructions: &[&str],
    decoding: &Decoding,
) -> Result<Vec<String>, Error> {
    let inputs = (0..instructions.len()).map(Segment::Speech).collect();
    chat(&model.text, instructions, inputs, Some(&model.vectors(frames, None)?), decoding)
}

/// Answers instructions about written texts.
///
/// # Errors
///
/// When a text cannot be tokenized.
pub fn read(
    model: &TextModel,
    texts: &[&str],
    instructions: &[&str],
    decoding: &Decoding,
) -> Result<Vec<String>, Error> {
    let tokens = |text: &&str| Ok(Segment::Tokens(model.chat.transcript(text)?));
    let inputs = texts.iter().map(tokens).collect::<Result<_, Error>>()?;
    chat(model, instructions, inputs, None, decoding)
}

/// One turn each: the instruction, what stands for the speech, the answer.
fn chat(
    model: &TextModel,
    instructions: &[&str],
    inputs: Vec<Segment>,
    vectors: Option<&Ragged>,
    decoding: &Decoding,
) -> Result<Vec<String>, Error> {
    let chat = &model.chat;
    let prompts: Vec<Vec<Segment>> = instructions
        .iter()
        .zip(inputs)
        .map(|(instruction, input)| chat.prompt(instruction, vec![input]))
        .collect::<Result<_, _>>()?;
    let answers = generate::generate(&model.lm, &prompts, vectors, chat.ends(), decoding);
    Ok(answers.iter().map(|answer| chat.decode(&answer.ids)).collect())
}

#[cfg(test)]
mod tests {
    use sandhi_data::{
        language::Language,
        microworld::{Split, Style},
        speech::Domain,
    };

    use super::*;
    use crate::sources::{Sound, Spoken, Workshop};

    /// A second of tone for each entry that is true, of silence for each that is not.
    fn sound(seconds: &[bool]) -> Vec<f32> {
        seconds
            .iter()
            .flat_map(|&loud| {
                (0..16_000).map(move |i| if loud { (i as f32 * 0.1).sin() } else { 0.0 })
            })
            .collect()
    }

    #[test]
    fn chunks_cover_everything_once() {
        let samples = sound(&[true; 31]);
        let ranges = chunks(&samples, 16_000, Chunking::default());
        assert_eq!(ranges[0].start, 0);
        assert_eq!(ranges.last().unwrap().end, samples.len());
        for pair in ranges.windows(2) {
            assert_eq!(pair[0].end, pair[1].start);
        }
        assert!(ranges.iter().all(|r| !r.is_empty() && r.len() <= 12 * 16_000));
    }

    #[test]
    fn cuts_fall_into_silence() {
        let samples = sound(&[
            true, true, true, true, true, true, true, false, true, true, true, true, true, true,
        ]);
        let ranges = chunks(&samples, 16_000, Chunking::default());
        assert_eq!(ranges.len(), 2);
        let cut = ranges[0].end as f64 / 16_000.0;
        assert!((7.0..8.0).contains(&cut), "cut at {cut} s");
    }

    #[test]
    fn short_sound_is_one_chunk_and_no_sound_is_none() {
        let one = chunks(&[0.0; 100], 16_000, Chunking::default());
        assert!(one.len() == 1 && one[0] == (0..100), "{one:?}");
        assert!(chunks(&[], 16_000, Chunking::default()).is_empty());
    }

    /// Utterances with their words, and all of them joined with short pauses.
    fn joined(n: usize) -> (Vec<Sound>, Vec<f32>, Vec<Alignment>) {
        let recipe: crate::recipe::Recipe = toml::from_str(
            "name = 'join'\nseed = 1\nmodel = { kind = 'text', tokenizer = { vocab_size = 300 }, \
             language_model = { d_model = 2, n_layers = 1, n_heads = 1, d_ff = 1 } }",
        )
        .unwrap();
        let cache = tempfile::tempdir().unwrap();
        let workshop = Workshop::new(cache.path(), cache.path(), &recipe);
        let sentences = workshop.world().sentences(Language::English, Split::Dev, Style::Seen, n);
        let spoken: Vec<Spoken> = sentences
            .into_iter()
            .map(|sentence| Spoken::Made {
                text: sentence.text,
                language: Language::English,
                domain: Domain::Base,
                take: 3,
                voice: None,
                speed: 1.0,
            })
            .collect();
        let sounds = workshop.sounds(&spoken).unwrap();
        let (mut samples, mut words) = (Vec::new(), Vec::new());
        for sound in &sounds {
            let start_s = samples.len() as f64 / 16_000.0;
            words.extend(sound.words.iter().map(|word| word.clone().shifted(start_s)));
            samples.extend(&sound.wave.samples);
            samples.extend([0.0; 4_000]);
        }
        (sounds, samples, words)
    }

    #[test]
    fn no_cut_goes_through_a_word() {
        let (_, samples, words) = joined(24);
        let ranges = chunks(&samples, 16_000, Chunking::default());
        assert!(ranges.len() > 6, "{} chunks", ranges.len());
        for range in &ranges[1..] {
            let cut = range.start as f64 / 16_000.0;
            let through = |word: &&Alignment| word.start_s < cut && cut < word.end_s;
            assert_eq!(words.iter().find(through), None, "cut at {cut} s");
        }
    }

    #[test]
    fn joined_utterances_are_transcribed_as_each_alone() {
        let (sounds, samples, words) = joined(10);
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/encoder");
        let hub = crate::hf::Hub::offline(std::path::PathBuf::new());
        let model = AnyModel::load(&dir, &burn::prelude::Device::flex(), &hub).unwrap();
        let AnyModel::Ctc(speech) = &model else { panic!("an encoder") };
        let alone: Vec<&[f32]> = sounds.iter().map(|s| s.wave.samples.as_slice()).collect();
        let alone = ctc(speech, &alone).unwrap().join(" ");
        let wave = Waveform::new(samples, 16_000);
        let often = Chunking { max_s: 6.0, min_s: 2.0 };
        let passages = transcribe(&model, &wave, "", often).unwrap();
        let together: Vec<&str> = passages.iter().map(|p| p.text.as_str()).collect();
        let edits = sandhi_data::score::EditCounts::of(&sandhi_data::score::word_edits(
            &alone,
            &together.join(" "),
        ));
        // A letter or a gap between words may change with what is around it. A word lost or doubled at
        // every cut would be more than a twentieth.
        let (n, n_cuts) = (words.len(), passages.len() - 1);
        assert!(n_cuts * 20 > n, "{n_cuts} cuts in {n} words");
        assert!((edits.deletions + edits.insertions) * 20 <= n, "{edits:?} of {n} words");
        assert!(edits.substitutions * 5 <= n, "{edits:?} of {n} words");

        // The words are where they were said.
        let placed: Vec<&Alignment> = passages.iter().flat_map(|p| &p.words).collect();
        let middle = |word: &Alignment| 0.5 * (word.start_s + word.end_s);
        let near = words.iter().filter(|word| {
            let there = |found: &&&Alignment| (middle(found) - middle(word)).abs() < 0.15;
            placed.iter().any(|found| there(&found))
        });
        let (near, n) = (near.count(), words.len());
        assert!(near * 10 >= n * 9, "{near} of {n} words have one within 0.15 s");
    }
}
