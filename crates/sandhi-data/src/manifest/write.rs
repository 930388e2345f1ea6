//! Writing our JSONL.

use std::{
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf, absolute},
};

use super::{Error, Utterance};

/// Writes utterances, one JSON object a line. Sound files below the manifest's folder are written
/// relative to it, so that the folder can be moved; others absolute.
///
/// # Errors
///
/// [`Error::Write`].
pub fn write_jsonl(path: &Path, utterances: &[Utterance]) -> Result<(), Error> {
    let failed =
        |error: std::io::Error| Error::Write { path: path.to_owned(), reason: error.to_string() };
    let folder = absolute(path).map_err(failed)?.parent().map(Path::to_owned).unwrap_or_default();
    let mut file = BufWriter::new(fs::File::create(path).map_err(failed)?);
    for utterance in utterances {
        let mut utterance = utterance.clone();
        utterance.audio.path = placed(&utterance.audio.path, &folder).map_err(failed)?;
        serde_json::to_writer(&mut file, &utterance).map_err(|error| failed(error.into()))?;
        file.write_all(b"\n").map_err(failed)?;
    }
    file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)
}

/// The same lines as text, with the paths as they are.
///
/// # Errors
///
/// [`Error::Write`] when a path is not UTF-8.
pub fn to_jsonl(utterances: &[Utterance]) -> Result<String, Error> {
    let mut text = String::new();
    for utterance in utterances {
        let line = serde_json::to_string(utterance).map_err(|error| Error::Write {
            path: utterance.audio.path.clone(),
            reason: error.to_string(),
        })?;
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

fn placed(path: &Path, folder: &Path) -> std::io::Result<PathBuf> {
    let path = absolute(path)?;
    Ok(path.strip_prefix(folder).map(Path::to_owned).unwrap_or(path))
}
