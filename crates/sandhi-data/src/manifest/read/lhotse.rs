//! Lhotse: cuts, or supervisions with their recordings. <https://lhotse.readthedocs.io>
//!
//! ```text
//! recording  |-----------------------------------|      file
//! cut             |-------------------------|           start in the file
//! supervision          |--------|                       start in the cut (in the file without cut)
//! word                   |--|                           start as the supervision's
//! ```
//!
//! Every supervision becomes an utterance; a cut without one becomes an utterance without text.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::each_line;
use crate::{
    alignment::{Alignment, Source},
    manifest::{
        AudioRef, Error, Format, Utterance,
        collect::{Collector, Entry},
        error::{Kind, Problem, quoted},
        format::{file_names, is_lhotse_name},
        json::{self, Fields, check_duration, check_start, show},
        language,
        lines::Lines,
    },
};

/// Reads one file, with the file that belongs to it, or all files of a folder.
pub(super) fn folder(path: &Path, collector: &mut Collector) -> Result<(), Error> {
    if path.is_dir() {
        let names = file_names(path)?;
        let part = |part: &str| -> Vec<PathBuf> {
            let names = names.iter().filter(|name| is_lhotse_name(name) && name.contains(part));
            names.map(|name| path.join(name)).collect()
        };
        let cut_files = part("cuts");
        if !cut_files.is_empty() {
            return cut_files
                .iter()
                .try_for_each(|file| cuts(file, &mut Lines::open(file)?, collector));
        }
        let (supervisions, recordings) = (part("supervisions"), part("recordings"));
        return supervised(path, &supervisions, &recordings, collector);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.contains("supervisions") {
        let other = sibling(path, "supervisions", "recordings");
        supervised(path, &[path.to_owned()], other.as_slice(), collector)
    } else if name.contains("recordings") {
        let other = sibling(path, "recordings", "supervisions");
        supervised(path, other.as_slice(), &[path.to_owned()], collector)
    } else {
        cuts(path, &mut Lines::open(path)?, collector)
    }
}

/// The file of the same name but for one part, with or without gzip.
fn sibling(path: &Path, part: &str, other: &str) -> Option<PathBuf> {
    let name = path.file_name()?.to_string_lossy().replace(part, other);
    let bare = name.strip_suffix(".gz").unwrap_or(&name);
    let candidates = [name.clone(), bare.to_owned(), format!("{bare}.gz")];
    candidates.iter().map(|name| path.with_file_name(name)).find(|path| path.is_file())
}

/// Reads cuts.
pub(super) fn cuts(
    path: &Path,
    lines: &mut Lines<'_>,
    collector: &mut Collector,
) -> Result<(), Error> {
    each_line(path, lines, |number, line| {
        match line.and_then(json::object).and_then(|fields| cut(Fields::new(fields, ""))) {
            Ok(utterances) => {
                for utterance in utterances {
                    collector.add(path, number, utterance.map(Entry::from));
                }
            }
            Err(problem) => collector.add(path, number, Err(problem)),
        }
    })
}

fn supervised(
    path: &Path,
    supervisions: &[PathBuf],
    recordings: &[PathBuf],
    collector: &mut Collector,
) -> Result<(), Error> {
    for (files, part) in [(supervisions, "supervisions"), (recordings, "recordings")] {
        if files.is_empty() {
            let missing = format!("a file of {part} (*{part}*.jsonl or .jsonl.gz)");
            return Err(Error::MissingFile {
                path: path.to_owned(),
                format: Format::Lhotse,
                missing,
            });
        }
    }
    let mut known = HashMap::new();
    for file in recordings {
        each_line(file, &mut Lines::open(file)?, |number, line| {
            let read = line.and_then(json::object).and_then(|fields| {
                let recording = Recording::read(Fields::new(fields, ""))?;
                if known.contains_key(&recording.id) {
                    let found = quoted(&recording.id);
                    return Err(Problem::new(Kind::DuplicateId, "id", found, "a new id"));
                }
                Ok(recording)
            });
            match read {
                Ok(recording) => drop(known.insert(recording.id.clone(), recording)),
                Err(problem) => collector.add(file, number, Err(problem)),
            }
        })?;
    }
    for file in supervisions {
        each_line(file, &mut Lines::open(file)?, |number, line| {
            let read = line.and_then(json::object).and_then(|fields| {
                let supervision = Supervision::read(Fields::new(fields, ""))?;
                let id = &supervision.recording_id;
                let recording = known.get(id).ok_or_else(|| {
                    let expected = "the id of a recording that could be read";
                    Problem::new(Kind::Mismatch, "recording_id", quoted(id), expected)
                })?;
                supervision.utterance(recording, 0.0, None)
            });
            collector.add(file, number, read.map(Entry::from));
        })?;
    }
    Ok(())
}

fn cut(mut fields: Fields) -> Result<Vec<Result<Utterance, Problem>>, Problem> {
    let kind = fields.optional_text("type")?;
    if let Some(kind) = kind.filter(|kind| kind != "MonoCut" && kind != "MultiCut") {
        return Err(Problem::new(Kind::Unsupported, "type", quoted(&kind), "MonoCut or MultiCut"));
    }
    let id = name(&mut fields, "id")?;
    let start_s = fields.optional_start("start")?.unwrap_or(0.0);
    let duration_s = fields.duration("duration")?;
    let channel = channel(&mut fields)?;
    let recording = fields
        .optional_object("recording")?
        .ok_or_else(|| Problem::missing("recording", "an object (features alone are no sound)"))?;
    let recording = Recording::read(recording)?;
    let custom = fields.optional_object("custom")?.map(Fields::rest).unwrap_or_default();
    let supervisions = fields.optional_list("supervisions")?.unwrap_or_default();

    if supervisions.is_empty() {
        let mut utterance = Utterance::new(id, recording.path(channel)?, "");
        utterance.audio.start_s = start_s;
        utterance.audio.duration_s = Some(duration_s);
        utterance.audio.channel = channel.filter(|_| recording.n_channels > 1);
        utterance.extra = custom;
        return Ok(vec![Ok(utterance)]);
    }
    let supervision = |(i, value): (usize, Value)| {
        let place = format!("supervisions[{i}]");
        match value {
            Value::Object(fields) => {
                let supervision = Supervision::read(Fields::new(fields, format!("{place}.")))?;
                supervision.utterance(&recording, start_s, channel)
            }
            other => Err(Problem::new(Kind::WrongType, place, show(&other), "an object")),
        }
    };
    Ok(supervisions.into_iter().enumerate().map(supervision).collect())
}

struct Recording {
    id: String,
    /// Channels and the file that holds them.
    sources: Vec<(Vec<usize>, PathBuf)>,
    n_channels: usize,
    duration_s: Option<f64>,
}

impl Recording {
    fn read(mut fields: Fields) -> Result<Self, Problem> {
        let id = name(&mut fields, "id")?;
        let duration_s = fields.optional_duration("duration")?;
        let place = fields.place("sources");
        let listed = fields
            .optional_list("sources")?
            .ok_or_else(|| Problem::missing(place.as_str(), "a list of sources"))?;
        let mut sources = Vec::new();
        for (i, source) in listed.into_iter().enumerate() {
            let place = format!("{place}[{i}]");
            let Value::Object(source) = source else {
                return Err(Problem::new(Kind::WrongType, place, show(&source), "an object"));
            };
            let mut source = Fields::new(source, format!("{place}."));
            let kind = source.text("type")?;
            if kind != "file" {
                let place = source.place("type");
                return Err(Problem::new(Kind::Unsupported, place, quoted(&kind), "\"file\""));
            }
            let mut channels = Vec::new();
            for channel in source.optional_list("channels")?.unwrap_or_else(|| vec![0.into()]) {
                let index = channel.as_u64().and_then(|index| usize::try_from(index).ok());
                channels.push(
                    index.ok_or_else(|| {
                        source.wrong("channels", &channel, "whole numbers from 0")
                    })?,
                );
            }
            sources.push((channels, PathBuf::from(source.text("source")?)));
        }
        if sources.is_empty() {
            return Err(Problem::new(Kind::BadValue, place, "an empty list", "a source"));
        }
        let n_channels = sources.iter().map(|(channels, _)| channels.len()).sum();
        Ok(Self { id, sources, n_channels, duration_s })
    }

    /// The file that holds a channel, or the only file.
    fn path(&self, channel: Option<usize>) -> Result<&Path, Problem> {
        let holds = |channels: &[usize]| channel.is_none_or(|channel| channels.contains(&channel));
        match self.sources.iter().find(|(channels, _)| holds(channels)) {
            Some((_, path)) => Ok(path),
            None => {
                let found = format!("channel {}", channel.unwrap_or(0));
                let expected = format!("a channel of recording {:?}", self.id);
                Err(Problem::new(Kind::Mismatch, "channel", found, expected))
            }
        }
    }
}

struct Supervision {
    recording_id: String,
    start_s: f64,
    duration_s: f64,
    channel: Option<usize>,
    utterance: Utterance,
}

impl Supervision {
    /// The fields of a supervision, the sound still missing.
    fn read(mut fields: Fields) -> Result<Self, Problem> {
        let id = name(&mut fields, "id")?;
        let recording_id = name(&mut fields, "recording_id")?;
        // A supervision may begin before its cut.
        let start_s = fields.optional_number("start")?;
        let start_s = start_s.ok_or_else(|| Problem::missing(fields.place("start"), "seconds"))?;
        let duration_s = fields.duration("duration")?;
        let channel = channel(&mut fields)?;
        let mut utterance = Utterance::new(id, "", fields.text("text")?);
        utterance.language = fields.optional_text("language")?.map(|name| language::code(&name));
        utterance.speaker = fields.optional_name("speaker")?;
        utterance.words = words(&mut fields, start_s)?;
        utterance.extra = fields.optional_object("custom")?.map(Fields::rest).unwrap_or_default();
        if let Some(gender) = fields.optional_text("gender")? {
            utterance.extra.insert("gender".into(), gender.into());
        }
        Ok(Self { recording_id, start_s, duration_s, channel, utterance })
    }

    fn utterance(
        self,
        recording: &Recording,
        cut_start_s: f64,
        cut_channel: Option<usize>,
    ) -> Result<Utterance, Problem> {
        let channel = cut_channel.or(self.channel);
        let path = recording.path(channel)?.to_owned();
        // Times come from sums of decimal fractions: nothing below a microsecond is meant.
        let start_s = ((cut_start_s + self.start_s) * 1e6).round() / 1e6;
        let start_s = check_start("start".into(), start_s)?;
        let duration_s = check_duration("duration".into(), self.duration_s)?;
        if let Some(end_s) = recording.duration_s.filter(|end_s| start_s >= *end_s) {
            let expected = format!("a start before the recording's end at {end_s} s");
            return Err(Problem::new(Kind::Mismatch, "start", format!("{start_s} s"), expected));
        }
        let channel = channel.filter(|_| recording.n_channels > 1);
        let audio = AudioRef { path, start_s, duration_s: Some(duration_s), channel };
        Ok(Utterance { audio, ..self.utterance })
    }
}

/// `{"word": [[label, start, duration, score?], …]}`, made relative to the supervision.
fn words(fields: &mut Fields, start_s: f64) -> Result<Vec<Alignment>, Problem> {
    let Some(mut alignment) = fields.optional_object("alignment")? else { return Ok(Vec::new()) };
    let mut words = Vec::new();
    for item in alignment.optional_list("word")?.unwrap_or_default() {
        let read = |item: &Value| {
            let item = item.as_array()?;
            let start = item.get(1)?.as_f64()?;
            let relative = |time: f64| ((time - start_s) * 1e6).round() / 1e6;
            Some(Alignment {
                label: item.first()?.as_str()?.to_owned(),
                start_s: relative(start).max(0.0),
                end_s: relative(start + item.get(2)?.as_f64()?).max(0.0),
                confidence: item.get(3).and_then(Value::as_f64).map(|score| score as f32),
                source: Source::Silver,
            })
        };
        let word = read(&item)
            .ok_or_else(|| alignment.wrong("word", &item, "[label, start, duration, score]"))?;
        words.push(word);
    }
    Ok(words)
}

fn name(fields: &mut Fields, field: &str) -> Result<String, Problem> {
    fields
        .optional_name(field)?
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Problem::missing(fields.place(field), "a name"))
}

/// A number, or a list of one number; a list of several leaves all channels mixed.
fn channel(fields: &mut Fields) -> Result<Option<usize>, Problem> {
    match fields.take("channel") {
        None => Ok(None),
        Some(Value::Array(channels)) if channels.len() != 1 => Ok(None),
        Some(value) => {
            let number = value.get(0).unwrap_or(&value).as_u64();
            match number.and_then(|number| usize::try_from(number).ok()) {
                Some(channel) => Ok(Some(channel)),
                None => Err(fields.wrong("channel", &value, "whole numbers from 0")),
            }
        }
    }
}
