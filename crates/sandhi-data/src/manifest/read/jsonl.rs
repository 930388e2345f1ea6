//! Formats with one JSON object per utterance.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::Read;
use crate::manifest::{
    AudioRef, Utterance,
    collect::Entry,
    error::{Kind, Problem, quoted},
    json::{Fields, show},
    language,
};

type Object = Map<String, Value>;

/// Our own format: every key is known, so that a misspelled one is noticed.
pub(super) fn sandhi(fields: Object) -> Read {
    let mut fields = Fields::new(fields, "");
    let id = fields.text("id")?;
    if id.is_empty() {
        return Err(Problem::new(Kind::BadValue, "id", "an empty string", "a name"));
    }
    let mut audio = fields
        .optional_object("audio")?
        .ok_or_else(|| Problem::missing("audio", "an object with a path"))?;
    let path = PathBuf::from(audio.text("path")?);
    let start_s = audio.optional_start("start_s")?.unwrap_or(0.0);
    let duration_s = audio.optional_duration("duration_s")?;
    let channel = audio.optional_index("channel")?;
    audio.end("path, start_s, duration_s, channel")?;

    let words = fields.optional_list("words")?.unwrap_or_default();
    let words = serde_json::from_value(Value::Array(words)).map_err(|error| {
        Problem::new(Kind::BadValue, "words", error.to_string(), "a list of alignments")
    })?;
    let utterance = Utterance {
        id,
        audio: AudioRef { path, start_s, duration_s, channel },
        text: fields.text("text")?,
        language: fields.optional_text("language")?,
        speaker: fields.optional_text("speaker")?,
        split: fields.optional_text("split")?,
        task: fields.optional_text("task")?,
        instruction: fields.optional_text("instruction")?,
        answer: fields.optional_text("answer")?,
        words,
        extra: fields.optional_object("extra")?.map(Fields::rest).unwrap_or_default(),
    };
    fields.end(
        "id, audio, text, language, speaker, split, task, instruction, answer, words, extra",
    )?;
    Ok(utterance.into())
}

/// <https://docs.nvidia.com/nemo-framework/user-guide/latest/nemotoolkit/asr/datasets.html>
pub(super) fn nemo(fields: Object) -> Read {
    let mut fields = Fields::new(fields, "");
    let skip = match fields.take("_skipme") {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        // Scripts write 0, 1 or 0.0 as well.
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(other) => return Err(fields.wrong("_skipme", &other, "true or false")),
    };
    let mut utterance = Utterance::new("", fields.text("audio_filepath")?, "");
    utterance.audio.duration_s = Some(fields.duration("duration")?);
    utterance.text = fields.text("text")?;
    utterance.audio.start_s = fields.optional_start("offset")?.unwrap_or(0.0);
    utterance.id = fields.optional_name("id")?.unwrap_or_default();
    utterance.speaker = fields.optional_name("speaker")?;
    utterance.language = language_of(&mut fields, &["lang", "target_lang", "source_lang"])?;
    utterance.answer = fields.optional_text("answer")?;
    utterance.extra = fields.rest();
    Ok(if skip { Entry::Skip } else { utterance.into() })
}

/// <https://github.com/X-LANCE/SLAM-LLM>: small recipes name the sound `source`, large ones `path`.
pub(super) fn slam_llm(fields: Object) -> Read {
    let mut fields = Fields::new(fields, "");
    let id = fields.optional_name("key")?.ok_or_else(|| Problem::missing("key", "a string"))?;
    let path = if fields.has("path") { fields.text("path")? } else { fields.text("source")? };
    if let Some((archive, offset)) = path.rsplit_once(':')
        && archive.ends_with(".ark")
        && offset.parse::<u64>().is_ok()
    {
        let found = format!("{}, a place in a Kaldi archive", quoted(&path));
        return Err(Problem::new(Kind::Unsupported, "path", found, "a sound file"));
    }
    let target = fields.text("target")?;
    let task = fields.optional_text("task")?;
    let is_transcript = task.as_ref().is_none_or(|task| {
        task.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("asr")) || task == "hotword"
    });
    let mut utterance = Utterance::new(id, path, "");
    if is_transcript {
        utterance.text = target;
    } else {
        utterance.answer = Some(target);
    }
    utterance.task = task;
    utterance.instruction = fields.optional_text("prompt")?;
    utterance.audio.duration_s = fields.optional_duration("duration")?;
    utterance.extra = fields.rest();
    Ok(utterance.into())
}

/// <https://github.com/QwenLM/Qwen3-ASR>: the language stands before the text.
pub(super) fn qwen(fields: Object) -> Read {
    let mut fields = Fields::new(fields, "");
    let mut utterance = Utterance::new("", fields.text("audio")?, "");
    let text = fields.text("text")?;
    match text.split_once("<asr_text>") {
        Some((head, text)) => {
            let name = head.trim().strip_prefix("language ").ok_or_else(|| {
                let expected = "\"language NAME<asr_text>TEXT\"";
                Problem::new(Kind::BadValue, "text", quoted(head), expected)
            })?;
            let name = name.trim();
            utterance.language = (name != "None").then(|| language::code(name));
            utterance.text = text.to_owned();
        }
        None => utterance.text = text,
    }
    utterance.id = optional_id(&mut fields)?;
    utterance.instruction = fields.optional_text("prompt")?;
    utterance.audio.duration_s = fields.optional_duration("duration")?;
    utterance.extra = fields.rest();
    Ok(utterance.into())
}

/// <https://github.com/wenet-e2e/wenet>
pub(super) fn wenet(fields: Object) -> Read {
    let mut fields = Fields::new(fields, "");
    let path = fields.text("wav")?;
    let mut utterance = Utterance::new("", path, fields.text("txt")?);
    utterance.id = optional_id(&mut fields)?;
    utterance.language = language_of(&mut fields, &["lang"])?;
    utterance.speaker = fields.optional_name("speaker")?;
    utterance.audio.duration_s = fields.optional_duration("duration")?;
    utterance.extra = fields.rest();
    Ok(utterance.into())
}

/// <https://swift.readthedocs.io>: a user's turn with `<audio>` where the sound belongs, and the
/// assistant's answer. Content may also be a list of parts, as OpenAI's API has it.
pub(super) fn chat(fields: Object) -> Read {
    let mut fields = Fields::new(fields, "");
    let messages = fields
        .optional_list("messages")?
        .ok_or_else(|| Problem::missing("messages", "a list of messages"))?;
    let mut paths = Vec::new();
    for (i, audio) in fields.optional_list("audios")?.unwrap_or_default().into_iter().enumerate() {
        paths.push(audio_path(&format!("audios[{i}]"), audio)?);
    }

    let mut n_placeholders = 0;
    let (mut system, mut user, mut answer) = (None, None, None);
    for (i, message) in messages.into_iter().enumerate() {
        let place = format!("messages[{i}]");
        let Value::Object(message) = message else {
            return Err(Problem::new(Kind::WrongType, place, show(&message), "an object"));
        };
        let mut message = Fields::new(message, format!("{place}."));
        let role = message.text("role")?;
        let content = content(&mut message, &mut paths)?;
        n_placeholders += content.matches(PLACEHOLDER).count();
        let slot = match role.as_str() {
            "system" if user.is_none() => &mut system,
            "user" if answer.is_none() => &mut user,
            "assistant" if user.is_some() => &mut answer,
            _ => {
                let expected = "system, user or assistant, in this order";
                return Err(Problem::new(Kind::Unsupported, place, quoted(&role), expected));
            }
        };
        if slot.replace(content).is_some() {
            let found = format!("a second turn of {role:?}");
            return Err(Problem::new(Kind::Unsupported, place, found, "one question, one answer"));
        }
    }
    if n_placeholders != paths.len() {
        let found = format!("{n_placeholders} {PLACEHOLDER} for {} audios", paths.len());
        return Err(Problem::new(Kind::Mismatch, "messages", found, "one for each"));
    }
    let n_paths = paths.len();
    let [path] = <[PathBuf; 1]>::try_from(paths).map_err(|_| {
        let found = format!("{n_paths} audios");
        Problem::new(Kind::Unsupported, "audios", found, "one per utterance")
    })?;
    let user = user.ok_or_else(|| Problem::missing("messages", "a message of the user"))?;
    let answer = answer.ok_or_else(|| Problem::missing("messages", "an answer"))?;
    for (name, content) in [("system", system.as_deref()), ("assistant", Some(&*answer))] {
        if content.is_some_and(|content| content.contains(PLACEHOLDER)) {
            let found = format!("{PLACEHOLDER} in the words of {name:?}");
            return Err(Problem::new(Kind::Unsupported, "messages", found, "it in the question"));
        }
    }

    let mut utterance = Utterance::new("", path, "");
    utterance.id = optional_id(&mut fields)?;
    utterance.instruction = Some(user);
    utterance.answer = Some(answer);
    utterance.extra = fields.rest();
    if let Some(system) = system {
        utterance.extra.insert("system".into(), Value::String(system));
    }
    Ok(utterance.into())
}

const PLACEHOLDER: &str = "<audio>";

/// A message's text with placeholders; paths that stand inside parts are added to `paths`.
fn content(message: &mut Fields, paths: &mut Vec<PathBuf>) -> Result<String, Problem> {
    let place = message.place("content");
    let parts = match message.take("content") {
        Some(Value::String(text)) => return Ok(text),
        Some(Value::Array(parts)) => parts,
        Some(other) => return Err(message.wrong("content", &other, "a string or a list of parts")),
        None => return Err(Problem::missing(place, "a string or a list of parts")),
    };
    let mut content = String::new();
    for (i, part) in parts.into_iter().enumerate() {
        let place = format!("{place}[{i}]");
        let Value::Object(part) = part else {
            return Err(Problem::new(Kind::WrongType, place, show(&part), "an object"));
        };
        let mut part = Fields::new(part, format!("{place}."));
        match part.text("type")?.as_str() {
            "text" => content.push_str(&part.text("text")?),
            "audio" => {
                content.push_str(PLACEHOLDER);
                // Without a path here, it is the next of the list `audios`.
                for name in ["audio", "path", "audio_url"] {
                    if let Some(audio) = part.take(name) {
                        paths.push(audio_path(&part.place(name), audio)?);
                        break;
                    }
                }
            }
            "audio_url" => {
                content.push_str(PLACEHOLDER);
                let audio = part.take("audio_url");
                let place = part.place("audio_url");
                let audio = audio.ok_or_else(|| Problem::missing(place.as_str(), "a path"))?;
                paths.push(audio_path(&place, audio)?);
            }
            other => {
                let expected = "text, audio or audio_url";
                return Err(Problem::new(Kind::Unsupported, place, quoted(other), expected));
            }
        }
    }
    Ok(content)
}

/// A path, or an object that holds one.
fn audio_path(place: &str, audio: Value) -> Result<PathBuf, Problem> {
    let expected = "a path";
    let wrong = |found: &Value| Problem::new(Kind::WrongType, place, show(found), expected);
    match audio {
        Value::String(path) => Ok(PathBuf::from(path.strip_prefix("file://").unwrap_or(&path))),
        Value::Object(mut fields) => {
            let path = ["path", "url"].iter().find_map(|name| fields.remove(*name));
            match path {
                Some(Value::String(path)) => audio_path(place, Value::String(path)),
                Some(other) => Err(wrong(&other)),
                None => Err(Problem::missing(format!("{place}.path"), expected)),
            }
        }
        other => Err(wrong(&other)),
    }
}

fn optional_id(fields: &mut Fields) -> Result<String, Problem> {
    for name in ["id", "key"] {
        if let Some(id) = fields.optional_name(name)? {
            return Ok(id);
        }
    }
    Ok(String::new())
}

fn language_of(fields: &mut Fields, names: &[&str]) -> Result<Option<String>, Problem> {
    for name in names {
        if let Some(language) = fields.optional_text(name)? {
            return Ok(Some(language::code(&language)));
        }
    }
    Ok(None)
}
