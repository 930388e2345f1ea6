//! The languages that Microworld speaks and writes.

use serde::{Deserialize, Serialize};

/// A language, written as its ISO 639-1 code in recipes and manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Language {
    /// English, `en`.
    #[serde(rename = "en")]
    English,
    /// German, `de`.
    #[serde(rename = "de")]
    German,
    /// Spanish, `es`.
    #[serde(rename = "es")]
    Spanish,
}

impl Language {
    /// All languages, in a fixed order.
    pub const ALL: [Self; 3] = [Self::English, Self::German, Self::Spanish];

    /// The ISO 639-1 code.
    pub fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
            Self::Spanish => "es",
        }
    }

    /// The English name.
    pub fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::German => "German",
            Self::Spanish => "Spanish",
        }
    }
}

impl std::fmt::Display for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}
