//! What the Hub says over HTTP: which files a model has, and their bytes.
//!
//! ```text
//! GET {endpoint}/api/models/{owner/name}/revision/{revision}?blobs=true    commit; names, sizes, hashes
//! GET {endpoint}/{owner/name}/resolve/{commit}/{file}                      bytes, from wherever redirects lead
//! ```

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::Path,
    time::Duration,
};

use ring::digest;
use serde::Deserialize;

use super::{
    Hub, HubError, ModelName, Progress,
    name::{is_commit, is_hex},
};

/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(30);
/// Until the next bytes come.
const STALL: Duration = Duration::from_secs(60);
/// The longest list of files that is read.
const MOST_LISTED: u64 = 64 << 20;

/// The files of a model in one commit.
#[derive(Debug)]
pub(super) struct Listing {
    pub commit: String,
    pub files: BTreeMap<String, RemoteFile>,
}

/// A file as the Hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteFile {
    pub n_bytes: u64,
    pub hash: Hash,
}

/// What a file's bytes give; also its name among the blobs of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hash {
    /// Of a small file: SHA-1 of `blob <size>\0` and the bytes, Git's name of it.
    Git(String),
    /// Of a large file: SHA-256 of the bytes.
    Sha256(String),
}

impl Hash {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Git(text) | Self::Sha256(text) => text,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Git(_) => "Git hash",
            Self::Sha256(_) => "SHA-256",
        }
    }

    /// The same kind of hash of what a file holds.
    fn of(&self, mut file: &File, n_bytes: u64) -> io::Result<String> {
        let mut context = match self {
            Self::Git(_) => {
                let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {n_bytes}\0").as_bytes());
                context
            }
            Self::Sha256(_) => digest::Context::new(&digest::SHA256),
        };
        file.rewind()?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => context.update(&buffer[..n]),
            }
        }
        Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// One model on a Hub that can be reached.
pub(super) struct Remote<'a> {
    hub: &'a Hub,
    model: &'a ModelName,
    agent: ureq::Agent,
}

impl<'a> Remote<'a> {
    pub(super) fn new(hub: &'a Hub, model: &'a ModelName) -> Result<Self, HubError> {
        let endpoint = &hub.endpoint;
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(HubError::Address {
                what: "the Hub's endpoint",
                found: endpoint.clone(),
                expected: super::ENDPOINT,
            });
        }
        let mut agent = ureq::AgentBuilder::new()
            .timeout_connect(CONNECT)
            .timeout_read(STALL)
            .redirect_auth_headers(ureq::RedirectAuthHeaders::SameHost)
            .user_agent(concat!("sandhi/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = &hub.proxy {
            agent = agent.proxy(ureq::Proxy::new(proxy).map_err(|_| HubError::Address {
                what: "the proxy",
                found: proxy.clone(),
                expected: "http://proxy.example:3128",
            })?);
        }
        Ok(Self { hub, model, agent: agent.build() })
    }

    fn endpoint(&self) -> String {
        self.hub.endpoint.trim_end_matches('/').to_owned()
    }

    fn answer(&self, message: impl Into<String>) -> HubError {
        let (model, endpoint) = (self.model.clone(), self.endpoint());
        HubError::Answer { model, endpoint, message: message.into() }
    }

    /// Which files the revision has.
    pub(super) fn listing(&self) -> Result<Listing, HubError> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Sibling {
            rfilename: String,
            size: Option<u64>,
            blob_id: Option<String>,
            lfs: Option<Large>,
        }
        #[derive(Deserialize)]
        struct Large {
            sha256: String,
            size: u64,
        }
        let (repository, revision) =
            (self.model.repository(), self.model.revision().replace('/', "%2F"));
        let url =
            format!("{}/api/models/{repository}/revision/{revision}?blobs=true", self.endpoint());
        let what = "the list of files";
        let response = self.get(&url, what, 0)?;
        let mut text = String::new();
        response
            .into_reader()
            .take(MOST_LISTED)
            .read_to_string(&mut text)
            .map_err(|error| self.unreachable(what, &error))?;
        let answer: Answer = serde_json::from_str(&text)
            .map_err(|error| self.answer(format!("the list of files: {error}")))?;
        if !is_commit(&answer.sha) {
            return Err(self.answer(format!("the commit is {:?}, expected 40 digits", answer.sha)));
        }
        let mut files = BTreeMap::new();
        for Sibling { rfilename: name, size, blob_id, lfs } in answer.siblings {
            let file = match (lfs, size, blob_id) {
                (Some(Large { sha256, size }), ..) => {
                    Some(RemoteFile { n_bytes: size, hash: Hash::Sha256(sha256) })
                }
                (None, Some(n_bytes), Some(id)) => {
                    Some(RemoteFile { n_bytes, hash: Hash::Git(id) })
                }
                _ => None,
            };
            // The hash is to be the name of a file.
            let plain = |hash: &Hash| match hash {
                Hash::Git(text) => is_commit(text),
                Hash::Sha256(text) => text.len() == 64 && is_hex(text),
            };
            let file = file.filter(|file| plain(&file.hash)).ok_or_else(|| {
                self.answer(format!("{name} is listed without its size and hash"))
            })?;
            files.insert(name, file);
        }
        Ok(Listing { commit: answer.sha, files })
    }

    /// Downloads a file to `part`, from where an earlier call ended, and checks what is there then.
    ///
    /// A connection that broke is taken up again as long as that brings bytes.
    pub(super) fn download(
        &self,
        commit: &str,
        name: &str,
        listed: &RemoteFile,
        part: &Path,
        progress: &mut dyn Progress,
    ) -> Result<File, HubError> {
        let io = |source| HubError::Io { doing: "write", path: part.to_owned(), source };
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(part).map_err(io)?;
        file.lock().map_err(io)?;
        let mut had = file.metadata().map_err(io)?.len();
        if had > listed.n_bytes {
            file.set_len(0).map_err(io)?;
            had = 0;
        }
        progress.start(name, listed.n_bytes, had);
        while had < listed.n_bytes {
            let started = had;
            let ended = self.go_on(commit, name, listed, &mut file, &mut had, progress)?;
            if had < listed.n_bytes && had <= started {
                return Err(HubError::Short {
                    model: self.model.clone(),
                    file: name.to_owned(),
                    found: had,
                    expected: listed.n_bytes,
                    message: ended,
                });
            }
        }
        progress.finish();
        let found = listed.hash.of(&file, listed.n_bytes).map_err(io)?;
        if found != listed.hash.text() {
            // Emptied, not deleted: others may wait for the lock on it.
            file.set_len(0).map_err(io)?;
            return Err(self.damaged(name, listed.hash.kind(), &found, listed.hash.text()));
        }
        file.sync_all().map_err(io)?;
        Ok(file)
    }

    /// One request for what is missing of a file; says how it ended. `had` counts the bytes in the file.
    fn go_on(
        &self,
        commit: &str,
        name: &str,
        listed: &RemoteFile,
        file: &mut File,
        had: &mut u64,
        progress: &mut dyn Progress,
    ) -> Result<String, HubError> {
        let io = |source| HubError::Io { doing: "write", path: name.into(), source };
        let url = format!(
            "{}/{}/resolve/{commit}/{}",
            self.endpoint(),
            self.model.repository(),
            escaped(name)
        );
        let response = self.get(&url, name, *had)?;
        let continues = format!("bytes {had}-");
        if *had > 0 && !response.header("content-range").is_some_and(|r| r.starts_with(&continues))
        {
            // The whole file comes, whatever was asked for.
            file.set_len(0).map_err(io)?;
            *had = 0;
            progress.start(name, listed.n_bytes, 0);
        }
        let mut body = response.into_reader();
        let mut buffer = vec![0; 1 << 17];
        loop {
            match body.read(&mut buffer) {
                Ok(0) => return Ok("the connection ended".into()),
                Ok(n) if *had + n as u64 > listed.n_bytes => {
                    file.set_len(0).map_err(io)?;
                    let found = format!("more than {}", listed.n_bytes);
                    return Err(self.damaged(name, "size", &found, listed.n_bytes));
                }
                Ok(n) => {
                    file.write_all(&buffer[..n]).map_err(io)?;
                    *had += n as u64;
                    progress.advance(n as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(error.to_string()),
            }
        }
    }

    fn damaged(
        &self,
        file: &str,
        what: &str,
        found: &str,
        expected: impl std::fmt::Display,
    ) -> HubError {
        let (model, file) = (self.model.clone(), file.to_owned());
        let message = format!("its {what} is {found}, expected {expected}");
        HubError::Damaged { model, file, message }
    }

    fn unreachable(&self, file: &str, error: &dyn std::fmt::Display) -> HubError {
        HubError::Unreachable {
            model: self.model.clone(),
            file: file.to_owned(),
            endpoint: self.endpoint(),
            message: error.to_string(),
        }
    }

    /// The bytes at an address from the `from`-th on.
    fn get(&self, url: &str, file: &str, from: u64) -> Result<ureq::Response, HubError> {
        // Sizes and ranges are those of the file itself.
        let mut request = self.agent.get(url).set("Accept-Encoding", "identity");
        if let Some(token) = &self.hub.token {
            request = request.set("Authorization", &format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.set("Range", &format!("bytes={from}-"));
        }
        match request.call() {
            Ok(response) if matches!(response.status(), 200 | 206) => Ok(response),
            Ok(response) | Err(ureq::Error::Status(_, response)) => {
                Err(self.refusal(file, &response))
            }
            Err(ureq::Error::Transport(error)) => Err(self.unreachable(file, &cause(&error))),
        }
    }

    /// What a status means. The Hub names its reasons in a header; mirrors do not always.
    fn refusal(&self, file: &str, response: &ureq::Response) -> HubError {
        let (model, endpoint) = (self.model.clone(), self.endpoint());
        let file = file.to_owned();
        // Others that it leads to have their own reasons.
        let hub_s = response.get_url().starts_with(&endpoint);
        let listing = hub_s && response.get_url().contains("/api/models/");
        let token_given = self.hub.token.is_some();
        match (response.status(), response.header("x-error-code")) {
            (_, Some("RepoNotFound")) => HubError::NoModel { model, endpoint },
            (_, Some("RevisionNotFound")) => HubError::NoRevision { model },
            (_, Some("EntryNotFound")) => HubError::NoFile { model, file },
            // Strangers are not told which models there are.
            (401, None) if listing && !token_given => HubError::NoModel { model, endpoint },
            (status @ (401 | 403), _) if hub_s => {
                HubError::Refused { model, file, status, token_given }
            }
            (404, _) if listing => HubError::NoModel { model, endpoint },
            (404, _) if hub_s => HubError::NoFile { model, file },
            (status, _) => {
                let message = response.header("x-error-message").unwrap_or_default().to_owned();
                HubError::Status { model, file, endpoint, status, message }
            }
        }
    }
}

/// The first cause of an error that has several: the others repeat it and the address.
fn cause(error: &dyn std::error::Error) -> String {
    let mut first = error;
    while let Some(source) = first.source() {
        first = source;
    }
    first.to_string()
}

/// A file's name in an address.
fn escaped(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
