//! A Hub on this machine, with the golden checkpoints on it.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use burn::prelude::Device;
use ring::digest;

use super::*;
use crate::hf::{LanguageModel, SpeechEncoder};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const NAME: &str = "hf:tiny/model";

fn golden(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/language_models").join(family)
}

fn golden_encoder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/speech_encoders").join(name)
}

/// What the Hub has, and how it misbehaves.
#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// Status and reason for every request of a file, or of the list.
    refuse_files: Option<(u16, &'static str)>,
    refuse_list: Option<(u16, &'static str)>,
    /// Every connection ends at this byte of a file.
    cut_at: Option<usize>,
    /// Every connection gives so many bytes of a file.
    cut_after: Option<usize>,
    ignore_ranges: bool,
    /// A byte of every file is another one than the list says.
    damage: bool,
    /// The answer to a request for the list.
    list: Option<String>,
    /// Request lines, with the range and with `auth` where there is a token.
    requests: Vec<String>,
}

struct Mirror {
    state: Arc<Mutex<State>>,
    port: u16,
    serving: Option<JoinHandle<()>>,
}

impl Mirror {
    fn of(family: &str) -> Self {
        Self::of_directory(&golden(family))
    }

    fn of_directory(dir: &Path) -> Self {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            files.insert(name, fs::read(entry.path()).unwrap());
        }
        files.insert("README.md".into(), b"not wanted".to_vec());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let shared = state.clone();
        let serving = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if !answer(stream.unwrap(), port, &mut shared.lock().unwrap()) {
                    break;
                }
            }
        });
        Self { state, port, serving: Some(serving) }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// The requests since the last call.
    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    fn hub(&self, cache: &Path) -> Hub {
        Hub {
            endpoint: format!("http://127.0.0.1:{}", self.port),
            offline: false,
            ..Hub::offline(cache.to_owned())
        }
    }

    fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
            stream.write_all(b"STOP / HTTP/1.1\r\n\r\n").unwrap();
            serving.join().unwrap();
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop();
    }
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The Hub keeps weights as large files and everything else in Git.
fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".bin")
}

fn listed(state: &State) -> String {
    let files = state.files.iter().map(|(name, bytes)| {
        let git = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
        let id = hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &git));
        let mut file = serde_json::json!({"rfilename": name, "size": bytes.len(), "blobId": id});
        if is_large(name) {
            let sha256 = hex(digest::digest(&digest::SHA256, bytes));
            file["lfs"] =
                serde_json::json!({"sha256": sha256, "size": bytes.len(), "pointerSize": 134});
        }
        file
    });
    let files: Vec<serde_json::Value> = files.collect();
    serde_json::json!({"id": "tiny/model", "sha": COMMIT, "siblings": files}).to_string()
}

/// Answers one request; false ends the service.
fn answer(mut stream: TcpStream, port: u16, state: &mut State) -> bool {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    let path = request.split(' ').nth(1).unwrap().to_owned();
    if request.starts_with("STOP") {
        return false;
    }
    let (mut from, mut said) = (0, path.clone());
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
            said += &format!(" from {from}");
        }
        if line.starts_with("authorization: bearer ") {
            said += " auth";
        }
        assert!(!line.starts_with("accept-encoding") || line == "accept-encoding: identity");
    }
    state.requests.push(said);
    let mut reply = |status: &str, headers: &str, body: &[u8], length: usize| {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
        );
        // Who asks may be gone.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    };
    let mut refuse = |(status, code): (u16, &str)| {
        reply(&format!("{status} No"), &format!("X-Error-Code: {code}\r\n"), b"", 0);
    };
    if path.starts_with("/api/models/") {
        if let Some(refusal) = state.refuse_list {
            refuse(refusal);
        } else if path == "/api/models/tiny/model/revision/main?blobs=true"
            || path == format!("/api/models/tiny/model/revision/{COMMIT}?blobs=true")
        {
            let list = state.list.clone().unwrap_or_else(|| listed(state));
            reply("200 OK", "", list.as_bytes(), list.len());
        } else if path.starts_with("/api/models/tiny/model/") {
            refuse((404, "RevisionNotFound"));
        } else {
            refuse((404, ""));
        }
        return true;
    }
    if let Some(refusal) = state.refuse_files {
        refuse(refusal);
        return true;
    }
    let store = path.strip_prefix("/store/");
    let prefix = format!("/tiny/model/resolve/{COMMIT}/");
    let name = store.or_else(|| path.strip_prefix(&prefix)).unwrap().to_owned();
    let Some(bytes) = state.files.get(&name) else {
        refuse((404, "EntryNotFound"));
        return true;
    };
    if is_large(&name) && store.is_none() {
        // Large files lie elsewhere: another host, as far as a client can see.
        let place = format!("Location: http://localhost:{port}/store/{name}\r\n");
        reply("302 Found", &place, b"", 0);
        return true;
    }
    let mut bytes = bytes.clone();
    if state.damage {
        *bytes.last_mut().unwrap() ^= 1;
    }
    let n = bytes.len();
    let from = if state.ignore_ranges { 0 } else { from };
    let mut end = state.cut_after.map_or(n, |after| n.min(from + after));
    end = end.min(state.cut_at.unwrap_or(n)).max(from);
    let (status, range) = if from > 0 {
        ("206 Partial Content", format!("Content-Range: bytes {from}-{}/{n}\r\n", n - 1))
    } else {
        ("200 OK", String::new())
    };
    reply(status, &range, &bytes[from..end], n - from);
    true
}

/// What a download showed.
#[derive(Default)]
struct Seen(Vec<(String, u64, u64)>);

impl Progress for Seen {
    fn start(&mut self, file: &str, n_bytes: u64, had: u64) {
        self.0.push((file.to_owned(), n_bytes, had));
    }
    fn advance(&mut self, n_bytes: u64) {
        self.0.last_mut().unwrap().2 += n_bytes;
    }
    fn finish(&mut self) {
        let (file, n_bytes, had) = self.0.last().unwrap();
        assert_eq!(n_bytes, had, "{file}");
    }
}

fn fetch(hub: &Hub, name: &str) -> Result<Snapshot, HubError> {
    hub.fetch(&ModelName::parse(name).unwrap(), Want::Model, &mut ())
}

#[track_caller]
fn fails(hub: &Hub, name: &str, expected: &[&str]) {
    let error = fetch(hub, name).unwrap_err().to_string();
    let repository = name.split('@').next().unwrap();
    for part in expected.iter().chain([&repository]) {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

/// All files of a folder and of the folders in it, by their path in it.
fn files_in(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            found.extend(files_in(&path).iter().map(|inner| format!("{name}/{inner}")));
        } else {
            found.push(name.to_owned());
        }
    }
    found.sort();
    found
}

#[test]
fn a_model_is_downloaded_once_and_loads() {
    let cache = tempfile::tempdir().unwrap();
    let mut mirror = Mirror::of("llama3");
    mirror.set(|state| drop(state.files.insert("tokenizer.json".into(), b"{}".to_vec())));
    let hub = Hub { token: Some("secret".into()), ..mirror.hub(cache.path()) };
    let name = ModelName::parse(NAME).unwrap();
    let mut seen = Seen::default();
    let snapshot = hub.fetch(&name, Want::Model, &mut seen).unwrap();
    assert_eq!(snapshot.commit, COMMIT);
    let wanted = [
        "config.json",
        "model-00001-of-00005.safetensors",
        "model-00002-of-00005.safetensors",
        "model-00003-of-00005.safetensors",
        "model-00004-of-00005.safetensors",
        "model-00005-of-00005.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ];
    assert_eq!(files_in(&snapshot.dir), wanted);
    assert_eq!(seen.0.len(), wanted.len());
    let expected = LanguageModel::load(&golden("llama3"), &Device::flex()).unwrap();
    let loaded = LanguageModel::load(&snapshot.dir, &Device::flex()).unwrap();
    let weights = |model: &LanguageModel| sandhi_nn::weights::weights(&model.lm);
    assert_eq!(weights(&loaded), weights(&expected));
    // The token stays with the Hub.
    let requests = mirror.requests();
    assert!(requests.iter().filter(|r| r.contains("/store/")).count() == 5);
    assert!(requests.iter().all(|r| r.contains("/store/") != r.ends_with(" auth")), "{requests:?}");

    // The branch is asked for again, files are not.
    assert_eq!(hub.fetch(&name, Want::Model, &mut ()).unwrap(), snapshot);
    assert_eq!(mirror.requests().len(), 1);
    mirror.stop();
    // A commit means the same for ever.
    assert_eq!(fetch(&hub, &format!("{NAME}@{COMMIT}")).unwrap(), snapshot);
    fails(&hub, NAME, &["the list of files", "cannot be reached", "--offline"]);
    let offline = Hub { offline: true, ..hub };
    assert_eq!(fetch(&offline, NAME).unwrap(), snapshot);
    fs::remove_file(snapshot.dir.join(wanted[3])).unwrap();
    fails(&offline, NAME, &["not in the cache", wanted[3], "--offline"]);
    fs::remove_file(snapshot.dir.join("model.safetensors.index.json")).unwrap();
    fails(&offline, NAME, &["not in the cache", "model.safetensors"]);
    fails(&offline, "hf:tiny/model@v2", &["not in the cache", "\"v2\""]);
    fails(&offline, "hf:tiny/other", &["not in the cache", "\"main\""]);
}

#[test]
fn by_name_and_by_directory_a_recognizer_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "preprocessor_config.json"] {
        fs::copy(golden_encoder("wav2vec2_ctc").join(file), dir.path().join(file)).unwrap();
    }
    let read = |file: &str| -> serde_json::Value {
        let bytes = fs::read(golden_encoder("wav2vec2_ctc").join(file)).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let write =
        |file: &str, value: serde_json::Value| fs::write(dir.path().join(file), value.to_string());
    // The same symbols, as older checkpoints say them: the blank has another name, in a file of its own.
    let mut vocabulary = read("vocab.json");
    let symbols = vocabulary.as_object_mut().unwrap();
    let blank = symbols.remove("<pad>").unwrap();
    symbols.insert("[PAD]".into(), blank);
    let start = symbols.remove("<s>").unwrap();
    write("vocab.json", vocabulary).unwrap();
    write("special_tokens_map.json", serde_json::json!({"pad_token": "[PAD]"})).unwrap();
    write("added_tokens.json", serde_json::json!({"<s>": start})).unwrap();
    // And the front end, as newer ones do.
    let mut front_end = read("preprocessor_config.json");
    front_end["do_normalize"] = false.into();
    write("processor_config.json", serde_json::json!({"feature_extractor": front_end})).unwrap();
    fs::remove_file(dir.path().join("preprocessor_config.json")).unwrap();

    let cache = tempfile::tempdir().unwrap();
    let mirror = Mirror::of_directory(dir.path());
    let snapshot = fetch(&mirror.hub(cache.path()), NAME).unwrap();
    let expected = SpeechEncoder::load(dir.path(), &Device::flex()).unwrap();
    let loaded = SpeechEncoder::load(&snapshot.dir, &Device::flex()).unwrap();
    assert_eq!((&loaded.config, &loaded.features), (&expected.config, &expected.features));
    let weights = |model: &SpeechEncoder| sandhi_nn::weights::weights(&model.encoder);
    assert_eq!(weights(&loaded), weights(&expected));
    let (loaded, expected) = (loaded.ctc.unwrap(), expected.ctc.unwrap());
    assert_eq!((&loaded.symbols, &loaded.columns), (&expected.symbols, &expected.columns));
    let weights = |head: &crate::hf::PublishedCtcHead| sandhi_nn::weights::weights(&head.head);
    assert_eq!(weights(&loaded), weights(&expected));
}

#[test]
fn offline_nothing_that_changes_a_model_is_guessed() {
    let cache = tempfile::tempdir().unwrap();
    let mirror = Mirror::of("llama2");
    let hub = mirror.hub(cache.path());
    fetch(&hub, NAME).unwrap();
    let offline = Hub { offline: true, ..hub.clone() };
    let snapshot = fetch(&offline, NAME).unwrap();
    // As another program leaves a cache that asked for some files alone.
    let known = cache.path().join("models--tiny--model/.no_exist").join(COMMIT);
    for name in EXTRAS {
        fs::remove_file(known.join(name)).unwrap();
        fails(
            &offline,
            NAME,
            &["not complete", &format!("may have {name}, "), "without --offline"],
        );
        fs::write(snapshot.dir.join(name), "{}").unwrap();
        fetch(&offline, NAME).unwrap();
        fs::remove_file(snapshot.dir.join(name)).unwrap();
        fs::write(known.join(name), "").unwrap();
    }
    fs::remove_dir_all(&known).unwrap();
    fails(&offline, NAME, &EXTRAS);
    fetch(&hub, NAME).unwrap();
    assert_eq!(fetch(&offline, NAME).unwrap(), snapshot);
}

#[test]
fn one_file_goes_before_several() {
    // Both are there, the index names files that are not.
    let cache = tempfile::tempdir().unwrap();
    let mirror = Mirror::of("llama2");
    let index = br#"{"weight_map": {"a": "missing.safetensors"}}"#.to_vec();
    mirror.set(|state| {
        state.files.insert("model.safetensors.index.json".into(), index.clone());
    });
    let snapshot = fetch(&mirror.hub(cache.path()), NAME).unwrap();
    assert_eq!(files_in(&snapshot.dir), ["config.json", "model.safetensors"]);
    let dir = tempfile::tempdir().unwrap();
    for name in files_in(&snapshot.dir) {
        fs::copy(snapshot.dir.join(&name), dir.path().join(&name)).unwrap();
    }
    fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    let weights = |dir: &Path| {
        sandhi_nn::weights::weights(&LanguageModel::load(dir, &Device::flex()).unwrap().lm)
    };
    assert_eq!(weights(dir.path()), weights(&snapshot.dir));
}

#[test]
fn a_token_is_not_printed() {
    let hub = Hub::offline(PathBuf::from("cache"));
    assert!(format!("{hub:?}").contains("token: None"), "{hub:?}");
    let hub = Hub { token: Some("hf_secret".into()), ..hub };
    let printed = format!("{hub:?} {hub:#?}");
    assert!(!printed.contains("secret") && printed.contains("token: Some(\"…\")"), "{printed}");
}

#[test]
fn the_cache_is_laid_out_as_others_lay_it_out() {
    let cache = tempfile::tempdir().unwrap();
    let mirror = Mirror::of("llama2");
    let snapshot = fetch(&mirror.hub(cache.path()), NAME).unwrap();
    let model = cache.path().join("models--tiny--model");
    assert_eq!(snapshot.dir, model.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(model.join("refs/main")).unwrap(), COMMIT);
    assert!(model.join(".no_exist").join(COMMIT).join("tokenizer.json").exists());
    // Blobs have the names that the Hub's `etag` has: Git's of small files, SHA-256 of large ones.
    let sha256 = hex(digest::digest(
        &digest::SHA256,
        &fs::read(golden("llama2").join("model.safetensors")).unwrap(),
    ));
    let blobs = files_in(&model.join("blobs"));
    assert!(blobs.len() == 2 && blobs.contains(&sha256), "{blobs:?}");
    assert!(blobs.iter().any(|name| name.len() == 40), "{blobs:?}");
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(snapshot.dir.join("model.safetensors")).unwrap(),
        Path::new("../../blobs").join(sha256)
    );
    // By commit, nothing is noted under refs.
    fetch(&mirror.hub(cache.path()), &format!("{NAME}@{COMMIT}")).unwrap();
    assert_eq!(files_in(&model.join("refs")), ["main"]);
}

#[test]
fn a_configuration_comes_alone() {
    let cache = tempfile::tempdir().unwrap();
    let mirror = Mirror::of("qwen2");
    let hub = mirror.hub(cache.path());
    let name = ModelName::parse(NAME).unwrap();
    let snapshot = hub.fetch(&name, Want::Config, &mut ()).unwrap();
    assert_eq!(files_in(&snapshot.dir), ["config.json"]);
    let offline = Hub { offline: true, ..hub.clone() };
    assert_eq!(offline.fetch(&name, Want::Config, &mut ()).unwrap(), snapshot);
    fails(&offline, NAME, &["model.safetensors"]);
    // By commit, what is not known to be missing is asked for.
    mirror.requests();
    let at = format!("{NAME}@{COMMIT}");
    fetch(&hub, &at).unwrap();
    assert_eq!(mirror.requests().len(), 3, "the list, the weights and where they lie");
    fetch(&hub, &at).unwrap();
    assert_eq!(mirror.requests().len(), 0);
}

#[test]
fn refusals_say_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let mirror = Mirror::of("llama2");
    let hub = mirror.hub(cache.path());
    fails(&hub, "hf:tiny/other", &["no model \"tiny/other\"", &hub.endpoint]);
    fails(&hub, "hf:tiny/model@v9", &["no revision \"v9\""]);
    mirror.set(|state| state.refuse_files = Some((401, "GatedRepo")));
    fails(&hub, NAME, &["config.json is refused (status 401)", "HF_TOKEN"]);
    let known = Hub { token: Some("secret".into()), ..hub.clone() };
    mirror.set(|state| state.refuse_files = Some((403, "GatedRepo")));
    fails(&known, NAME, &["config.json is refused (status 403)", "accept its terms"]);
    mirror.set(|state| state.refuse_files = Some((503, "")));
    fails(&hub, NAME, &["config.json", "status 503"]);
    mirror.set(|state| state.refuse_files = Some((404, "EntryNotFound")));
    fails(&hub, NAME, &["has no config.json"]);
    mirror.set(|state| state.refuse_list = Some((401, "RepoNotFound")));
    fails(&hub, NAME, &["no model", "private"]);
    assert!(!cache.path().join("models--tiny--model/refs").exists());

    let nowhere = Hub { endpoint: "huggingface.co".into(), ..hub.clone() };
    let error = fetch(&nowhere, NAME).unwrap_err().to_string();
    assert!(error.contains("\"huggingface.co\"") && error.contains(ENDPOINT), "{error}");
    let nowhere = Hub { proxy: Some("ftp://x".into()), ..hub };
    let error = fetch(&nowhere, NAME).unwrap_err().to_string();
    assert!(error.contains("the proxy is \"ftp://x\""), "{error}");
}

#[test]
fn a_model_without_what_it_needs_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    let mirror = Mirror::of("llama3");
    let hub = mirror.hub(cache.path());
    let index = "model.safetensors.index.json";
    let list = listed(&mirror.state.lock().unwrap());
    for (wrong, expected) in [
        ("{}".to_owned(), "missing field"),
        ("<html>".to_owned(), "does not answer as a Hub does"),
        (list.replace(COMMIT, "../../x"), "\"../../x\""),
        (list.replace("blobId", "id"), "without its size and hash"),
        (list.replace("\"blobId\":\"", "\"blobId\":\"../"), "without its size and hash"),
    ] {
        mirror.set(|state| state.list = Some(wrong));
        fails(&hub, NAME, &[expected, &hub.endpoint]);
    }
    mirror.set(|state| {
        state.list = None;
        state.files.insert(index.into(), br#"{"weight_map": {"a": "../x.safetensors"}}"#.to_vec());
    });
    fails(&hub, NAME, &[index, "\"../x.safetensors\"", "same directory"]);
    mirror.set(|state| {
        state
            .files
            .insert(index.into(), br#"{"weight_map": {"a": "missing.safetensors"}}"#.to_vec());
    });
    fails(&hub, NAME, &["has no missing.safetensors"]);
    mirror.set(|state| drop(state.files.remove(index)));
    fails(&hub, NAME, &["has no model.safetensors", index]);
    mirror.set(|state| drop(state.files.remove("config.json")));
    fails(&hub, NAME, &["has no config.json"]);
}

#[test]
fn pickles_are_for_models_that_have_nothing_else() {
    let cache = tempfile::tempdir().unwrap();
    let mirror = Mirror::of("llama2");
    let hub = mirror.hub(cache.path());
    mirror.set(|state| drop(state.files.insert("pytorch_model.bin".into(), b"pickle".to_vec())));
    let both = fetch(&hub, NAME).unwrap();
    assert_eq!(files_in(&both.dir), ["config.json", "model.safetensors"]);
    mirror.set(|state| drop(state.files.remove("model.safetensors")));
    fs::remove_dir_all(cache.path().join("models--tiny--model")).unwrap();
    let pickle = fetch(&hub, NAME).unwrap();
    assert_eq!(files_in(&pickle.dir), ["config.json", "pytorch_model.bin"]);
}

#[test]
fn a_download_that_breaks_goes_on() {
    let cache = tempfile::tempdir().unwrap();
    let mirror = Mirror::of("llama2");
    let hub = mirror.hub(cache.path());
    let size = fs::metadata(golden("llama2").join("model.safetensors")).unwrap().len();
    let dir = cache.path().join("models--tiny--model");
    let whole = || {
        let found = fs::read(dir.join("snapshots").join(COMMIT).join("model.safetensors")).unwrap();
        assert!(found == fs::read(golden("llama2").join("model.safetensors")).unwrap());
    };
    let parts = || {
        let blobs = files_in(&dir.join("blobs"));
        blobs.into_iter().filter(|name| name.ends_with(".part")).count()
    };
    // It ends at the same byte whenever it is asked.
    mirror.set(|state| state.cut_at = Some(10_000));
    let counts = ["model.safetensors ends after 10000 of", &size.to_string()];
    fails(&hub, NAME, &counts);
    assert!(!dir.join("snapshots").join(COMMIT).join("model.safetensors").exists());
    assert!(!dir.join("refs").exists() && parts() == 1);
    let offline = Hub { offline: true, ..hub.clone() };
    fails(&offline, &format!("{NAME}@{COMMIT}"), &["model.safetensors or", "is missing"]);
    // The next call goes on, over as many connections as it takes.
    mirror.requests();
    mirror.set(|state| (state.cut_at, state.cut_after) = (None, Some(20_000)));
    let mut seen = Seen::default();
    hub.fetch(&ModelName::parse(NAME).unwrap(), Want::Model, &mut seen).unwrap();
    assert_eq!(seen.0, [("model.safetensors".to_owned(), size, size)]);
    let requests = mirror.requests();
    assert!(requests.iter().any(|r| r.ends_with("/store/model.safetensors from 10000")));
    assert!(requests.iter().any(|r| r.ends_with("/store/model.safetensors from 30000")));
    assert_eq!(parts(), 0);
    whole();

    // Servers that know no ranges begin again.
    fs::remove_dir_all(&dir).unwrap();
    mirror.set(|state| (state.cut_at, state.cut_after) = (Some(10_000), None));
    fails(&hub, NAME, &counts);
    mirror.set(|state| (state.cut_at, state.ignore_ranges) = (None, true));
    fetch(&hub, NAME).unwrap();
    whole();
}

#[test]
fn damaged_files_are_refused_and_leave_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let mirror = Mirror::of("llama2");
    let hub = mirror.hub(cache.path());
    mirror.set(|state| state.damage = true);
    fails(&hub, NAME, &["config.json is damaged", "its Git hash is"]);
    mirror.set(|state| state.damage = false);
    hub.fetch(&ModelName::parse(NAME).unwrap(), Want::Config, &mut ()).unwrap();
    mirror.set(|state| state.damage = true);
    fails(&hub, NAME, &["model.safetensors is damaged", "its SHA-256 is"]);
    mirror.set(|state| {
        state.damage = false;
        // More than was listed.
        state.list = Some(listed(state));
        state.files.get_mut("model.safetensors").unwrap().push(0);
    });
    fails(&hub, NAME, &["model.safetensors is damaged", "its size is more than"]);
    let snapshot = cache.path().join("models--tiny--model/snapshots").join(COMMIT);
    assert_eq!(files_in(&snapshot), ["config.json"]);
    // And a file that was damaged on disk, in its length, comes again.
    mirror.set(|state| {
        state.files.get_mut("model.safetensors").unwrap().pop().unwrap();
    });
    let dir = fetch(&hub, NAME).unwrap().dir;
    let path = dir.join("model.safetensors");
    let target = fs::canonicalize(&path).unwrap();
    fs::write(&target, "short").unwrap();
    fetch(&hub, NAME).unwrap();
    assert!(
        fs::read(&path).unwrap() == fs::read(golden("llama2").join("model.safetensors")).unwrap()
    );
}
