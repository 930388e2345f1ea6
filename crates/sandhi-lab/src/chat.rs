//! The prompt layout, in one place.
//!
//! ```text
//! before ─ instruction ─ between ─ ·· speech or its transcript ·· ─ after ─ answer ─ end
//!
//! ours:    <|user|> instruction <|speech|> ·· <|assistant|> answer <|end|>
//! others:  <|im_start|>user⏎ instruction ⏎ ·· <|im_end|>⏎<|im_start|>assistant⏎ answer <|im_end|>
//! ```
//!
//! Instruction, transcript and answer are tokenized apart, so that replacing the transcript by
//! vectors changes nothing around it.

use sandhi_data::text::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::model::pack::Segment;

/// Begins the user's turn.
pub const USER: &str = "<|user|>";
/// Stands before what is spoken.
pub const SPEECH: &str = "<|speech|>";
/// Ends the user's turn and begins the answer.
pub const ASSISTANT: &str = "<|assistant|>";
/// Ends an answer or a document.
pub const END: &str = "<|end|>";

/// Every marker, in the order of their ids.
pub const MARKERS: [&str; 4] = [END, USER, SPEECH, ASSISTANT];

/// What stands around instruction, speech and answer, as tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptLayout {
    /// Before the instruction.
    pub before: Vec<u32>,
    /// Between the instruction and what is spoken.
    pub between: Vec<u32>,
    /// Between what is spoken and the answer.
    pub after: Vec<u32>,
    /// Whether a space stands before the instruction; it is tokenized with it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub instruction_spaced: bool,
    /// Whether a space stands before what is spoken; it is tokenized with the transcript, and left out before speech.
    #[serde(default, skip_serializing_if = "is_false")]
    pub speech_spaced: bool,
    /// Text that is tokenized with the answer, before it: a space, as a rule.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lead: String,
    /// Ends an answer or a document; learned with the answer.
    pub end: u32,
    /// Further tokens at which decoding stops.
    pub stops: Vec<u32>,
    /// Begins a document.
    pub begin: u32,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A text with the space before it that the layout has.
fn spaced(text: &str, space: bool) -> String {
    let space = if space { " " } else { "" };
    format!("{space}{text}")
}

impl PromptLayout {
    /// The layout of our own language models, over a tokenizer that has the markers.
    ///
    /// # Errors
    ///
    /// When a marker is not in the vocabulary.
    pub fn markers(tokenizer: &Tokenizer) -> Result<Self, sandhi_data::text::Error> {
        let end = tokenizer.special_id(END)?;
        Ok(Self {
            before: vec![tokenizer.special_id(USER)?],
            between: vec![tokenizer.special_id(SPEECH)?],
            after: vec![tokenizer.special_id(ASSISTANT)?],
            instruction_spaced: false,
            speech_spaced: false,
            lead: String::new(),
            end,
            stops: Vec::new(),
            begin: end,
        })
    }

    /// The largest token id.
    pub fn largest_id(&self) -> u32 {
        let lists = [&self.before, &self.between, &self.after, &self.stops];
        let single = [self.end, self.begin];
        lists.into_iter().flatten().chain(&single).copied().max().unwrap_or_default()
    }
}

/// A prompt layout over one tokenizer.
#[derive(Debug, Clone)]
pub struct Chat {
    tokenizer: Tokenizer,
    layout: PromptLayout,
    /// All tokens at which decoding stops.
    ends: Vec<u32>,
}

/// A prompt around the place of the speech.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Tokens before the speech.
    pub before: Vec<u32>,
    /// Tokens between the speech and the answer.
    pub after: Vec<u32>,
}

impl Chat {
    /// The layout over the tokenizer that its ids are of.
    pub fn new(tokenizer: Tokenizer, layout: PromptLayout) -> Self {
        let ends = std::iter::once(layout.end).chain(layout.stops.iter().copied()).collect();
        Self { tokenizer, layout, ends }
    }

    /// The layout of our own language models.
    ///
    /// # Errors
    ///
    /// When a marker is not in the vocabulary.
    pub fn with_markers(tokenizer: Tokenizer) -> Result<Self, sandhi_data::text::Error> {
        let layout = PromptLayout::markers(&tokenizer)?;
        Ok(Self::new(tokenizer, layout))
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What stands around instruction, speech and answer.
    pub fn layout(&self) -> &PromptLayout {
        &self.layout
    }

    /// Tokens that end a generated answer; the first is the one that answers are taught with.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The prompt for an instruction.
    ///
    /// # Errors
    ///
    /// When the tokenizer refuses the text.
    pub fn frame(&self, instruction: &str) -> Result<Frame, sandhi_data::text::Error> {
        let mut before = self.layout.before.clone();
        let instruction = spaced(instruction, self.layout.instruction_spaced);
        before.extend(self.tokenizer.encode_on(&instruction)?);
        before.extend(&self.layout.between);
        Ok(Frame { before, after: self.layout.after.clone() })
    }

    /// The whole prompt, with whatever stands in the place of the speech.
    ///
    /// # Errors
    ///
    /// When the tokenizer refuses the instruction.
    pub fn prompt(
        &self,
        instruction: &str,
        speech: Vec<Segment>,
    ) -> Result<Vec<Segment>, sandhi_data::text::Error> {
        let Frame { before, after } = self.frame(instruction)?;
        let mut prompt = vec![Segment::Tokens(before)];
        prompt.extend(speech);
        prompt.push(Segment::Tokens(after));
        Ok(prompt)
    }

    /// What is said, in writing: the tokens that stand where speech would.
    ///
    /// # Errors
    ///
    /// When the tokenizer refuses the text.
    pub fn transcript(&self, text: &str) -> Result<Vec<u32>, sandhi_data::text::Error> {
        self.tokenizer.encode_on(&spaced(text, self.layout.speech_spaced))
    }

    /// The bytes of `text` that each of [`Chat::transcript`]'s tokens covers, in order; none for one of a space that was put
    /// before it.
    ///
    /// # Errors
    ///
    /// When the tokenizer refuses the text, or cuts it in another way than it encodes it.
    pub fn transcript_spans(
        &self,
        text: &str,
    ) -> Result<Vec<std::ops::Range<usize>>, sandhi_data::text::Error> {
        let spaced = spaced(text, self.layout.speech_spaced);
        let shift = spaced.len() - text.len();
        let pieces = self.tokenizer.pieces_on(&spaced)?;
        let ids: Vec<u32> = pieces.iter().map(|piece| piece.id).collect();
        let expected = self.transcript(text)?;
        if ids != expected {
            return Err(sandhi_data::text::Error::Tokenizer(format!(
                "{text:?} is cut into {} pieces and encoded as {}",
                ids.len(),
                expected.len()
            )));
        }
        let span = |piece: sandhi_data::text::Piece| {
            piece.span.start.saturating_sub(shift)..piece.span.end.saturating_sub(shift)
        };
        Ok(pieces.into_iter().map(span).collect())
    }

    /// The answer's tokens with the one that ends it.
    ///
    /// # Errors
    ///
    /// When the tokenizer refuses the text.
    pub fn answer(&self, text: &str) -> Result<Vec<u32>, sandhi_data::text::Error> {
        let mut ids = self.tokenizer.encode_on(&format!("{}{text}", self.layout.lead))?;
        ids.push(self.layout.end);
        Ok(ids)
    }

    /// A document of its own: its tokens, one that begins it and is context, and one that ends it.
    ///
    /// # Errors
    ///
    /// When the tokenizer refuses the text.
    pub fn document(&self, text: &str) -> Result<Vec<u32>, sandhi_data::text::Error> {
        let mut ids = vec![self.layout.begin];
        ids.extend(self.tokenizer.encode(text)?);
        ids.push(self.layout.end);
        Ok(ids)
    }

    /// The one token that is written so: a special token, or a piece in the vocabulary's own spelling.
    pub fn token(&self, piece: &str) -> Option<u32> {
        self.tokenizer.id(piece)
    }

    /// The text of generated tokens: markers are left out, spaces at the ends trimmed.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids).map(|text| text.trim().to_owned()).unwrap_or_default()
    }
}
