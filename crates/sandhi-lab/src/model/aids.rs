//! What a connector is given beside the frames, as far as it needs it.
//!
//! ```text
//! frames ─┬─ CTC head ─ steps ───────────────────────────────┐
//!         └─ CTC head ─ text ─ its tokens' times ─ segments ─┼─ ConnectorInput
//! language model ─ embeddings, pad ──────────────────────────┘
//! ```

use sandhi_data::alignment::Source;
use sandhi_nn::{
    connector::{ConnectorConfig, ConnectorInput, Embeddings, Needs, segment_ends},
    ragged::Ragged,
    transformer::CausalLm,
};
use serde::{Deserialize, Serialize};

use super::{HostRagged, Recognizer, SpeechModel};
use crate::{
    align::{Aligner, Failure, Widening},
    chat::Chat,
};

/// What tells where the tokens of speech end, for connectors that cut there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Segmenter {
    /// Forced alignment of the transcript, in use too: an oracle, which sees the transcript and its length.
    Forced,
    /// In training forced alignment of the transcript; in use of what the encoder's CTC head reads.
    Ctc,
}

impl Segmenter {
    /// Its name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forced => "forced",
            Self::Ctc => "ctc",
        }
    }
}

/// What is needed, and what it is made with.
#[derive(Debug, Clone, Default)]
pub struct Aids {
    /// What the connector cannot do without.
    pub needs: Needs,
    /// What reads characters off the frames.
    pub recognizer: Option<Recognizer>,
    /// The token that stands for no content.
    pub pad: Option<u32>,
}

impl Aids {
    /// The aids of a connector behind this encoder.
    pub fn of(config: &ConnectorConfig, speech: &SpeechModel, pad: Option<u32>) -> Self {
        let needs = config.needs();
        let recognizer = speech.recognizer.clone().filter(|_| needs.ctc);
        Self { needs, recognizer, pad }
    }

    /// What is missing, as a sentence.
    pub fn problem(&self) -> Option<&'static str> {
        if self.needs.ctc && self.recognizer.is_none() {
            return Some("the connector listens to the encoder's CTC head, and it has none");
        }
        (self.needs.embeddings && self.pad.is_none())
            .then_some("the connector compares frames to embeddings and needs model.pad_token")
    }

    /// What the connector is given of these frames; `host` has the same on the host.
    ///
    /// # Panics
    ///
    /// When something is [missing](Aids::problem), or `ends` and `said` are not of these frames.
    pub fn input(
        &self,
        lm: &CausalLm,
        frames: Ragged,
        host: impl FnOnce() -> HostRagged,
        ends: Option<Vec<Vec<u32>>>,
        said: Option<Vec<Vec<u32>>>,
    ) -> ConnectorInput {
        const FITS: &str = "aids are those of the frames";
        let device = frames.values.device();
        let mut input = ConnectorInput::frames(frames);
        if self.needs.ctc {
            let recognizer = self.recognizer.as_ref().expect("a head for who listens to it");
            let log_probs = recognizer.log_probs(&host()).to_device(&device);
            input = input.with_ctc(log_probs, recognizer.config.steps_per_frame).expect(FITS);
        }
        if let Some(ends) = ends.filter(|_| self.needs.segments) {
            input = input.with_segments(ends).expect(FITS);
        }
        if self.needs.embeddings {
            let pad = self.pad.expect("a pad for who compares to it");
            let table = lm.embedding_table().detach();
            input = input.with_embeddings(Embeddings { table, pad }).expect(FITS);
        }
        if let Some(said) = said.filter(|_| self.needs.said) {
            input = input.with_said(said).expect(FITS);
        }
        input
    }
}

/// Places tokens in the frames of a speech model.
pub struct TokenEnds<'a> {
    aligner: Aligner<'a>,
    chat: &'a Chat,
    frame_rate_hz: f64,
}

/// Why an utterance has no segments.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EndsError {
    /// The text has no place.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// There are too few frames.
    #[error(transparent)]
    Times(#[from] sandhi_nn::connector::TimesError),
    /// The text has no tokens, for what the tokenizer says.
    #[error("{0}")]
    Text(String),
}

impl<'a> TokenEnds<'a> {
    /// By the CTC head of this model, where it has one.
    pub fn new(speech: &'a SpeechModel, chat: &'a Chat) -> Option<Self> {
        let aligner = Aligner::by(speech, Source::Silver)?.widening(Widening::NONE);
        Some(Self { aligner, chat, frame_rate_hz: speech.frame_rate_hz() })
    }

    /// The last frame of every token of the texts of utterances, or why one has none: it has no place in the sound, or more
    /// tokens than that has frames.
    ///
    /// # Shapes
    ///
    /// - `log_probs`: `[n_steps, n_symbols]`, what [`Recognizer::log_probs`] gives for utterances of `n_frames`
    pub fn all<T: AsRef<str>>(
        &self,
        log_probs: &HostRagged,
        n_frames: &[usize],
        texts: &[T],
    ) -> Vec<Result<Vec<u32>, EndsError>> {
        let utterances = log_probs.sequences().zip(n_frames).zip(texts);
        utterances.map(|((rows, &n), text)| self.of(rows, n, text.as_ref())).collect()
    }

    fn of(&self, log_probs: &[f32], n_frames: usize, text: &str) -> Result<Vec<u32>, EndsError> {
        let aligned = self.aligner.of(log_probs, text)?;
        let pieces = self.chat.transcript_spans(text);
        let pieces = pieces.map_err(|error| EndsError::Text(error.to_string()))?;
        let times = aligned.pieces(text, self.aligner.symbols(), &pieces);
        let ends: Vec<f64> = times.iter().map(|piece| piece.end_s).collect();
        Ok(segment_ends(&ends, self.frame_rate_hz, n_frames)?)
    }
}
