//! What can go wrong between the Hub and the cache, each with the words its user needs.

use std::{io, path::PathBuf};

use super::ModelName;

/// What can go wrong when a model of the Hub is fetched.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The Hub has no such model, or does not show it to strangers.
    #[error(
        "{model}: {endpoint} has no model {:?}, or a private one that the token does not open",
        model.repository()
    )]
    NoModel {
        /// The model.
        model: ModelName,
        /// The Hub.
        endpoint: String,
    },
    /// The model has no such branch, tag or commit.
    #[error("{model}: the model is there, but it has no revision {:?}", model.revision())]
    NoRevision {
        /// The model.
        model: ModelName,
    },
    /// The model lacks a file that it needs.
    #[error("{model}: the model has no {file}")]
    NoFile {
        /// The model.
        model: ModelName,
        /// The file, or what would do.
        file: String,
    },
    /// Its authors give the model only to those who ask for it.
    #[error("{model}: {file} is refused (status {status}): {}", advice(*token_given))]
    Refused {
        /// The model.
        model: ModelName,
        /// The file.
        file: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token went with the request.
        token_given: bool,
    },
    /// Any other answer than the file.
    #[error("{model}: {file}: {endpoint} answers with status {status}{}", said(message))]
    Status {
        /// The model.
        model: ModelName,
        /// The file.
        file: String,
        /// The Hub.
        endpoint: String,
        /// The status.
        status: u16,
        /// What the Hub says about it.
        message: String,
    },
    /// No connection, or none that lasted.
    #[error(
        "{model}: {file}: {endpoint} cannot be reached: {message}; --offline works with what is in the cache"
    )]
    Unreachable {
        /// The model.
        model: ModelName,
        /// The file.
        file: String,
        /// The Hub.
        endpoint: String,
        /// What the connection says.
        message: String,
    },
    /// The connection ended early and gives no more.
    #[error(
        "{model}: {file} ends after {found} of {expected} bytes: {message}; the next call goes on from there"
    )]
    Short {
        /// The model.
        model: ModelName,
        /// The file.
        file: String,
        /// Bytes that came.
        found: u64,
        /// Bytes that it has.
        expected: u64,
        /// What the connection says.
        message: String,
    },
    /// What came is not what the Hub lists.
    #[error("{model}: {file} is damaged: {message}")]
    Damaged {
        /// The model.
        model: ModelName,
        /// The file.
        file: String,
        /// Size or hash, as found and as expected.
        message: String,
    },
    /// The answer is not one of a Hub.
    #[error("{model}: {endpoint} does not answer as a Hub does: {message}")]
    Answer {
        /// The model.
        model: ModelName,
        /// The Hub.
        endpoint: String,
        /// What was found and expected.
        message: String,
    },
    /// Working offline, and something is not there.
    #[error(
        "{model} is not in the cache {}: {missing} is missing; download it without --offline",
        cache.display()
    )]
    NotCached {
        /// The model.
        model: ModelName,
        /// The cache.
        cache: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// The address of the Hub or of the proxy is none.
    #[error("{what} is {found:?}, expected an address such as {expected}")]
    Address {
        /// Which address.
        what: &'static str,
        /// What was given.
        found: String,
        /// An example.
        expected: &'static str,
    },
    /// The cache cannot be written or read.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The index of shards is none.
    #[error("{model}: {source}")]
    Index {
        /// The model.
        model: ModelName,
        /// What is wrong with it.
        source: Box<crate::hf::Error>,
    },
}

fn advice(token_given: bool) -> &'static str {
    if token_given {
        "the token does not open it; accept its terms on the model's page with the account of the token"
    } else {
        "it needs a token (HF_TOKEN, or log in with `hf auth login`), and maybe consent on the model's page"
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}
