//! Texts as WAV files with a manifest that holds exact word times.

use std::{fs, path::Path};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use sandhi_data::{
    language::Language,
    manifest::{Utterance, write_jsonl},
    speech::{Domain, Request, Studio},
};

/// A text to be spoken.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) id: String,
    pub(super) text: String,
    pub(super) language: Language,
    pub(super) split: Option<&'static str>,
    pub(super) task: Option<String>,
    pub(super) instruction: Option<String>,
    pub(super) answer: Option<String>,
    /// What the voice is drawn by where several lines are to have one.
    pub(super) voice: Option<u64>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            id: String::new(),
            text: String::new(),
            language: Language::English,
            split: None,
            task: None,
            instruction: None,
            answer: None,
            voice: None,
        }
    }
}

/// Texts spoken between two movements of the bar.
const CHUNK: usize = 64;

/// Writes `DIR/<id>.wav` for every line and `DIR/manifest.jsonl`.
pub(super) fn speak(lines: &[Line], domain: Domain, dir: &Path) -> anyhow::Result<()> {
    let studio = Studio::open(None)?;
    fs::create_dir_all(dir).with_context(|| format!("{}: cannot create", dir.display()))?;
    let bar = ProgressBar::new(lines.len() as u64);
    bar.set_style(ProgressStyle::with_template("speaking {bar:30} {pos}/{len}  {eta} left")?);
    let mut utterances = Vec::with_capacity(lines.len());
    for (chunk_idx, chunk) in lines.chunks(CHUNK).enumerate() {
        let requests: Vec<Request> = chunk
            .iter()
            .enumerate()
            .map(|(i, line)| Request {
                text: line.text.clone(),
                language: line.language,
                domain,
                seed: (chunk_idx * CHUNK + i) as u64,
                voice: line.voice,
            })
            .collect();
        for (line, speech) in chunk.iter().zip(studio.speak_many(&requests)?) {
            let path = dir.join(format!("{}.wav", file_name(&line.id)));
            speech.waveform.write_wav(&path)?;
            utterances.push(Utterance {
                language: Some(line.language.code().to_owned()),
                speaker: Some(speech.voice),
                split: line.split.map(str::to_owned),
                task: line.task.clone(),
                instruction: line.instruction.clone(),
                answer: line.answer.clone(),
                words: speech.words,
                ..Utterance::new(line.id.clone(), path, line.text.clone())
            });
        }
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    let manifest = dir.join("manifest.jsonl");
    write_jsonl(&manifest, &utterances)?;
    eprintln!("{} utterances in {}", utterances.len(), manifest.display());
    Ok(())
}

/// An id as the name of a file.
fn file_name(id: &str) -> String {
    let kept = |c: char| if c.is_alphanumeric() || "-_".contains(c) { c } else { '_' };
    id.chars().map(kept).collect()
}
