//! Names of models on the Hub, as they stand in recipes and on command lines.
//!
//! ```text
//! hf:HuggingFaceTB/SmolLM2-135M@v1.0
//!    └ owner ────┘ └ name ────┘ └ revision: branch, tag or commit; main if there is none
//! ```

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The revision of a name that gives none.
const MAIN: &str = "main";
/// What a name begins with.
const SCHEME: &str = "hf:";

/// A model on the Hub, in one revision of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName {
    repository: Box<str>,
    revision: Box<str>,
}

/// A name that cannot be one of a model on the Hub.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?}: {problem}, expected hf:owner/name or hf:owner/name@revision")]
pub struct NameError {
    found: String,
    problem: &'static str,
}

impl ModelName {
    /// Reads `hf:owner/name@revision`. Old models have no owner; without a revision it is `main`.
    ///
    /// # Errors
    ///
    /// [`NameError`] for what the Hub would not take either, and for what leads out of a directory.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let wrong = |problem| NameError { found: text.to_owned(), problem };
        let name = text.strip_prefix(SCHEME).ok_or_else(|| wrong("it does not begin with hf:"))?;
        let (repository, revision) = name.split_once('@').unwrap_or((name, MAIN));
        let parts: Vec<&str> = repository.split('/').collect();
        if parts.len() > 2 {
            return Err(wrong("there is more than one / before the revision"));
        }
        for part in parts {
            if !is_repository_part(part) {
                return Err(wrong(
                    "owner and name are 1 to 96 letters, digits, -, _ and ., with none of - and . at an end and \
                     neither -- nor .. inside",
                ));
            }
        }
        if repository.ends_with(".git") {
            return Err(wrong("the name ends in .git"));
        }
        if !revision.split('/').all(is_revision_part) || revision.len() > 255 {
            return Err(wrong("the revision is not a branch, a tag or a commit"));
        }
        Ok(Self { repository: repository.into(), revision: revision.into() })
    }

    /// `owner/name`, or `name`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Branch, tag or commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The same model at another revision, e.g. at the commit that a branch stood for.
    ///
    /// # Errors
    ///
    /// [`NameError`] when the revision cannot be one.
    pub fn at(&self, revision: &str) -> Result<Self, NameError> {
        Self::parse(&format!("{SCHEME}{}@{revision}", self.repository))
    }

    /// The revision, if it is a commit in full and therefore never changes what it means.
    pub fn commit(&self) -> Option<&str> {
        is_commit(&self.revision).then_some(&self.revision)
    }
}

/// Whether this is the full hash of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

/// Whether this is a hash in the Hub's manner: small letters.
pub(super) fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_repository_part(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=96).contains(&part.len())
        && part.bytes().all(plain)
        && !part.starts_with(['-', '.'])
        && !part.ends_with(['-', '.'])
        && !part.contains("--")
        && !part.contains("..")
}

/// A part of a Git reference that is also the name of a file and needs no escape in an address.
fn is_revision_part(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.+".contains(&b);
    !part.is_empty()
        && part.bytes().all(plain)
        && !part.starts_with(['-', '.'])
        && !part.ends_with('.')
        && !part.contains("..")
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}@{}", self.repository, self.revision)
    }
}

impl FromStr for ModelName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

/// Where a published model is: in a directory, or on the Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A directory in Hugging Face's layout.
    Directory(PathBuf),
    /// A model on the Hub.
    Hub(ModelName),
}

impl ModelSource {
    /// As its text says; `resolve` says where a path leads.
    ///
    /// # Errors
    ///
    /// [`NameError`] for a name that is none.
    pub fn read(text: &str, resolve: impl FnOnce(&str) -> PathBuf) -> Result<Self, NameError> {
        Ok(match text.parse()? {
            Self::Directory(_) => Self::Directory(resolve(text)),
            name => name,
        })
    }
}

impl FromStr for ModelSource {
    type Err = NameError;

    /// What begins with `hf:` is a name, everything else a path.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.starts_with(SCHEME) {
            ModelName::parse(text).map(Self::Hub)
        } else {
            Ok(Self::Directory(Path::new(text).to_owned()))
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(dir) => write!(f, "{}", dir.display()),
            Self::Hub(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_and_written_back() {
        let full = "hf:HuggingFaceTB/SmolLM2-135M@refs/pr/7";
        let name = ModelName::parse(full).unwrap();
        assert_eq!(name.repository(), "HuggingFaceTB/SmolLM2-135M");
        assert_eq!((name.revision(), name.commit()), ("refs/pr/7", None));
        assert_eq!(name.to_string(), full);
        let old = ModelName::parse("hf:gpt2").unwrap();
        assert_eq!((old.repository(), old.revision()), ("gpt2", "main"));
        assert_eq!(old.to_string(), "hf:gpt2@main");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(old.at(commit).unwrap().commit(), Some(commit));
        assert!(old.at("..").is_err());
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_was_expected() {
        let long = format!("hf:{}", "a".repeat(97));
        let cases = [
            ("gpt2", "does not begin with hf:"),
            ("hf:", "owner and name"),
            ("hf:a/b/c", "more than one /"),
            ("hf:/b", "owner and name"),
            ("hf:a/", "owner and name"),
            ("hf:../etc", "owner and name"),
            ("hf:a/..", "owner and name"),
            ("hf:a--b/c", "owner and name"),
            ("hf:a/b c", "owner and name"),
            ("hf:a\\b", "owner and name"),
            ("hf:a/b%2Fc", "owner and name"),
            (&long, "owner and name"),
            ("hf:a/b.git", ".git"),
            ("hf:a/b@", "the revision"),
            ("hf:a/b@../../x", "the revision"),
            ("hf:a/b@/x", "the revision"),
            ("hf:a/b@x?y", "the revision"),
            ("hf:a/b@x@y", "the revision"),
            ("hf:a/b@.git", "the revision"),
        ];
        for (text, problem) in cases {
            let error = ModelName::parse(text).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("expected hf:owner/name"), "{error}");
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn a_path_stays_a_path() {
        let source = |text: &str| text.parse::<ModelSource>();
        assert_eq!(source("models/a@b"), Ok(ModelSource::Directory("models/a@b".into())));
        assert_eq!(source("./hf:x"), Ok(ModelSource::Directory("./hf:x".into())));
        let name = ModelName::parse("hf:a/b").unwrap();
        assert_eq!(source("hf:a/b"), Ok(ModelSource::Hub(name)));
        assert!(source("hf:a/b/c").is_err());
    }
}
