//! The Free Spoken Digit Dataset. <https://github.com/Jakobovski/free-spoken-digit-dataset>
//!
//! ```text
//! recordings/7_jackson_32.wav        digit, speaker, take: "seven", speaker "jackson", split "train"
//! test/0_george_4.flac               the same, sorted into folders: split "test"
//! ```

use std::path::Path;

use crate::manifest::{
    Error, Format, Utterance,
    collect::{Collector, Entry},
    error::{Kind, Problem, quoted},
    format::file_names,
};

const ENDINGS: [&str; 4] = ["flac", "wav", "mp3", "ogg"];

const DIGITS: [&str; 10] =
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/// Takes below this one are the official test set, where folders do not say it.
const FIRST_TRAINING_TAKE: u32 = 5;

/// Reads the sound files of a folder and of the folders in it.
pub(super) fn folder(path: &Path, collector: &mut Collector) -> Result<(), Error> {
    if !path.is_dir() {
        let missing = "its folder, not one file of it".to_owned();
        return Err(Error::MissingFile { path: path.to_owned(), format: Format::Fsdd, missing });
    }
    let inner = file_names(path)?.into_iter().map(|name| path.join(name));
    let inner: Vec<_> = inner.filter(|path| path.is_dir()).collect();
    for folder in std::iter::once(path.to_owned()).chain(inner) {
        let part = folder.file_name().and_then(|name| name.to_str());
        let part = part.filter(|name| ["train", "test"].contains(name));
        for name in file_names(&folder)? {
            let Some(stem) = sound_stem(&name) else { continue };
            let sound = folder.join(&name);
            let entry = recording(stem).map(|Recording { text, speaker, take }| {
                let official = if take < FIRST_TRAINING_TAKE { "test" } else { "train" };
                let mut utterance = Utterance::new(stem, &sound, text);
                utterance.language = Some("en".to_owned());
                utterance.speaker = Some(speaker.to_owned());
                utterance.split = Some(part.unwrap_or(official).to_owned());
                Entry::from(utterance)
            });
            collector.add(&sound, 1, entry);
        }
    }
    Ok(())
}

/// Whether a folder, or one in it, has a file that is named so.
pub(in crate::manifest) fn is_folder(path: &Path) -> Result<bool, Error> {
    let is_recording = |name: &String| sound_stem(name).is_some_and(|stem| recording(stem).is_ok());
    let names = file_names(path)?;
    if names.iter().any(is_recording) {
        return Ok(true);
    }
    for inner in names.iter().map(|name| path.join(name)).filter(|inner| inner.is_dir()) {
        if file_names(&inner)?.iter().any(is_recording) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The name of a sound file without its ending.
fn sound_stem(name: &str) -> Option<&str> {
    let (stem, ending) = name.rsplit_once('.')?;
    ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)).then_some(stem)
}

/// What the name of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recording<'a> {
    /// The digit as a word.
    pub(super) text: &'static str,
    pub(super) speaker: &'a str,
    pub(super) take: u32,
}

pub(super) fn recording(stem: &str) -> Result<Recording<'_>, Problem> {
    let parts = || {
        let (digit, rest) = stem.split_once('_')?;
        let (speaker, take) = rest.rsplit_once('_')?;
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let &text = DIGITS.get(digit.parse::<usize>().ok()?)?;
        let fine = digit.len() == 1 && !speaker.is_empty() && is_number(take);
        fine.then_some(Recording { text, speaker, take: take.parse().ok()? })
    };
    parts().ok_or_else(|| {
        let expected = "digit_speaker_take, e.g. 7_jackson_32";
        Problem::new(Kind::BadValue, "name", quoted(stem), expected)
    })
}
