//! The chat template, in one place.
//!
//! ```text
//! <|user|> instruction <|speech|> ·· speech or its transcript ·· <|assistant|> answer <|end|>
//! ```
//!
//! Instruction, transcript and answer are tokenized apart, so that replacing the transcript by
//! vectors changes nothing around it.

use sandhi_data::text::Tokenizer;

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

/// The template over one tokenizer.
#[derive(Debug, Clone)]
pub struct Chat {
    tokenizer: Tokenizer,
    user: u32,
    speech: u32,
    assistant: u32,
    end: u32,
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
    /// The template over a tokenizer that has the markers.
    ///
    /// # Errors
    ///
    /// When a marker is not in the vocabulary.
    pub fn new(tokenizer: Tokenizer) -> Result<Self, sandhi_data::text::Error> {
        Ok(Self {
            user: tokenizer.special_id(USER)?,
            speech: tokenizer.special_id(SPEECH)?,
            assistant: tokenizer.special_id(ASSISTANT)?,
            end: tokenizer.special_id(END)?,
            tokenizer,
        })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Id of the marker that ends answers and documents.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// The prompt for an instruction.
    ///
    /// # Errors
    ///
    /// When the tokenizer refuses the text.
    pub fn frame(&self, instruction: &str) -> Result<Frame, sandhi_data::text::Error> {
        let mut before = vec![self.user];
        before.extend(self.tokenizer.encode(instruction)?);
        before.push(self.speech);
        Ok(Frame { before, after: vec![self.assistant] })
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

    /// The answer's tokens with the end marker.
    ///
    /// # Errors
    ///
    /// When the tokenizer refuses the text.
    pub fn answer(&self, text: &str) -> Result<Vec<u32>, sandhi_data::text::Error> {
        let mut ids = self.tokenizer.encode(text)?;
        ids.push(self.end);
        Ok(ids)
    }

    /// A document of its own: its tokens between end markers, the first of which is context.
    ///
    /// # Errors
    ///
    /// When the tokenizer refuses the text.
    pub fn document(&self, text: &str) -> Result<Vec<u32>, sandhi_data::text::Error> {
        let mut ids = vec![self.end];
        ids.extend(self.answer(text)?);
        Ok(ids)
    }

    /// The text of generated tokens: markers are left out, spaces at the ends trimmed.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids).map(|text| text.trim().to_owned()).unwrap_or_default()
    }
}
