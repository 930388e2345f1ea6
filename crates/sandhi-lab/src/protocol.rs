//! How a choice by likelihood was made: what stands beside its number.
//!
//! ```text
//! S→T, plain, 0-shot, sum; joint tokenization; no markers scored; k tied for best share 1
//! │    │      │       │
//! │    │      │       └ which log-probability: of the ending, per token, per character
//! │    │      └ solved items, written, before the question
//! │    └ a document, or a chat with an instruction
//! └ context spoken or written → ending spoken or written
//! ```

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a part of an item is given as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Speech.
    Spoken,
    /// Text.
    Written,
}

impl Side {
    fn letter(self) -> char {
        match self {
            Self::Spoken => 'S',
            Self::Written => 'T',
        }
    }
}

/// The sides of context and ending, written `s2t` in recipes and on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sides {
    /// The context's.
    pub context: Side,
    /// The endings'.
    pub ending: Side,
}

impl Sides {
    /// Speech, then text.
    pub const S2T: Self = Self { context: Side::Spoken, ending: Side::Written };
    /// Text, then text: the upper bound of `s2t`.
    pub const T2T: Self = Self { context: Side::Written, ending: Side::Written };
    /// Speech, then speech.
    pub const S2S: Self = Self { context: Side::Spoken, ending: Side::Spoken };
    /// Text, then speech.
    pub const T2S: Self = Self { context: Side::Written, ending: Side::Spoken };
    /// All of them.
    pub const ALL: [Self; 4] = [Self::S2T, Self::T2T, Self::S2S, Self::T2S];

    /// The name in recipes and on the command line.
    pub fn name(self) -> &'static str {
        match (self.context, self.ending) {
            (Side::Spoken, Side::Written) => "s2t",
            (Side::Written, Side::Written) => "t2t",
            (Side::Spoken, Side::Spoken) => "s2s",
            (Side::Written, Side::Spoken) => "t2s",
        }
    }
}

impl fmt::Display for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}→{}", self.context.letter(), self.ending.letter())
    }
}

impl FromStr for Sides {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|s| s.name() == name || s.to_string() == name);
        found.ok_or_else(|| {
            format!("found {name:?}, expected one of {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

impl TryFrom<String> for Sides {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<Sides> for String {
    fn from(sides: Sides) -> Self {
        sides.name().to_owned()
    }
}

/// What context and ending stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PromptForm {
    /// A document, as a language model reads them: nothing asks for anything. Context and ending are tokenized together.
    Plain,
    /// The chat prompt: an instruction, what is said, the ending as the answer. Markers part context and ending, so each is
    /// tokenized as the prompt has it.
    Chat,
}

impl PromptForm {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Chat => "chat",
        }
    }

    fn rules(self) -> &'static str {
        match self {
            Self::Plain => "joint tokenization; no markers scored; k tied for best share 1",
            Self::Chat => "turns tokenized apart; no markers scored; k tied for best share 1",
        }
    }
}

/// Which number of an ending is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Score {
    /// The sum of its tokens' log-probabilities.
    Sum,
    /// Their mean.
    PerToken,
    /// The sum over its characters (Unicode scalar values, without the space before it).
    PerCharacter,
}

impl Score {
    /// All of them; the first is what is meant where nothing is said.
    pub const ALL: [Self; 3] = [Self::Sum, Self::PerToken, Self::PerCharacter];

    /// The metric that it makes.
    pub fn metric(self) -> &'static str {
        match self {
            Self::Sum => "accuracy",
            Self::PerToken => "accuracy_per_token",
            Self::PerCharacter => "accuracy_per_character",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::PerToken => "per token",
            Self::PerCharacter => "per character",
        }
    }
}

/// How a choice was made. Written as one line, see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Protocol {
    /// What is spoken and what is written.
    pub sides: Sides,
    /// What both stand in.
    pub prompt: PromptForm,
    /// Solved items before the question.
    pub shots: usize,
    /// What is compared.
    pub score: Score,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sides, prompt, shots, score } = self;
        let (form, score, rules) = (prompt.name(), score.name(), prompt.rules());
        write!(f, "{sides}, {form}, {shots}-shot, {score}; {rules}")
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || -> Option<Self> {
            let mut parts = text.split(';').next()?.split(", ");
            let sides = parts.next()?.parse().ok()?;
            let form = parts.next()?;
            let prompt =
                [PromptForm::Plain, PromptForm::Chat].into_iter().find(|p| p.name() == form)?;
            let shots = parts.next()?.strip_suffix("-shot")?.parse().ok()?;
            let name = parts.next()?;
            let score = Score::ALL.into_iter().find(|score| score.name() == name)?;
            Some(Self { sides, prompt, shots, score })
        };
        // What follows from the rest must be there as well: other rules are another protocol.
        parse().filter(|protocol| protocol.to_string() == text).ok_or_else(|| {
            format!(
                "found the protocol {text:?}, expected one as \"S→T, plain, 0-shot, sum; {}\"",
                PromptForm::Plain.rules()
            )
        })
    }
}

impl TryFrom<String> for Protocol {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Protocol> for String {
    fn from(protocol: Protocol) -> Self {
        protocol.to_string()
    }
}

/// Why there is no number: written as the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Unsupported {
    /// Endings would be spoken.
    CannotSpeak,
    /// Contexts would be spoken.
    CannotHear,
    /// There is nothing that gives likelihoods of text.
    NoLanguageModel,
    /// Contexts are only in recordings together with their endings.
    ContextNotRecorded,
    /// Contexts are only recorded.
    ContextNotWritten,
    /// Endings are only recorded.
    EndingsNotWritten,
    /// Patches end where words do.
    CannotGoOn,
    /// An item has more tokens than the model takes.
    TooLong,
}

impl Unsupported {
    const ALL: [Self; 8] = [
        Self::CannotSpeak,
        Self::CannotHear,
        Self::NoLanguageModel,
        Self::ContextNotRecorded,
        Self::ContextNotWritten,
        Self::EndingsNotWritten,
        Self::CannotGoOn,
        Self::TooLong,
    ];

    /// The reason in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::CannotSpeak => "the model cannot speak",
            Self::CannotHear => "the model cannot hear",
            Self::NoLanguageModel => "the model has no language model",
            Self::ContextNotRecorded => "no recording has the context alone",
            Self::ContextNotWritten => "the context is not written",
            Self::EndingsNotWritten => "the endings are not written",
            Self::CannotGoOn => "the model's patches end where words do, so that it cannot go on",
            Self::TooLong => "an item is longer than the model's context",
        }
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl TryFrom<String> for Unsupported {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let reasons = Self::ALL.map(Self::reason).join(", ");
        let found = Self::ALL.into_iter().find(|why| why.reason() == text);
        found.ok_or_else(|| format!("found {text:?}, expected one of: {reasons}"))
    }
}

impl From<Unsupported> for String {
    fn from(why: Unsupported) -> Self {
        why.reason().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_survive_being_written() {
        let mut seen = std::collections::HashSet::new();
        for sides in Sides::ALL {
            assert_eq!(sides.name().parse(), Ok(sides));
            for prompt in [PromptForm::Plain, PromptForm::Chat] {
                for score in Score::ALL {
                    for shots in [0, 5] {
                        let protocol = Protocol { sides, prompt, shots, score };
                        let text = serde_json::to_string(&protocol).unwrap();
                        assert_eq!(serde_json::from_str::<Protocol>(&text).unwrap(), protocol);
                        assert!(seen.insert(text));
                    }
                }
            }
        }
        let stamp = "S→T, plain, 5-shot, per token; joint tokenization; no markers scored; \
                     k tied for best share 1";
        assert!(seen.contains(&format!("{stamp:?}")), "{seen:?}");
        // Other rules are another protocol.
        assert!(stamp.replace("no markers", "markers").parse::<Protocol>().is_err());
        assert!("s2x".parse::<Sides>().unwrap_err().contains("s2t, t2t, s2s, t2s"));
    }

    #[test]
    fn reasons_survive_being_written() {
        for why in Unsupported::ALL {
            let text = serde_json::to_string(&why).unwrap();
            assert_eq!(serde_json::from_str::<Unsupported>(&text).unwrap(), why);
        }
    }
}
