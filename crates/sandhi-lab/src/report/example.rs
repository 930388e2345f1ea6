//! An utterance: its sound, its picture with the words, what was asked and answered.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sandhi_data::score::{Edit, word_edits, words};

use super::Error;
use super::data::{Answer, Example, ReportData};
use super::html::{Text, significant};
use super::spectrogram;
use crate::inspect::{Segmented, Transported, inline, inline_lanes};

/// The picture's width for a second of sound, in CSS pixels.
const PIXELS_PER_SECOND: f64 = 150.0;

/// All examples; nothing when there are none.
pub(super) fn section(out: &mut String, data: &ReportData) -> Result<(), Error> {
    if data.examples.is_empty() {
        return Ok(());
    }
    out.push_str(
        "<section id=\"examples\"><h2>Listen</h2>\
         <p>The pictures show the sound as the encoder gets it: time runs right, pitch runs up, brighter is louder. Differences from the \
         reference are <mark>marked</mark>, words that are missing are <del>struck out</del>.</p>",
    );
    for (index, example) in data.examples.iter().enumerate() {
        card(out, data, example, index)?;
    }
    out.push_str("</section>\n");
    Ok(())
}

fn card(out: &mut String, data: &ReportData, example: &Example, index: usize) -> Result<(), Error> {
    let _ = write!(
        out,
        "<article class=\"example\" aria-labelledby=\"example{index}\"><h3 id=\"example{index}\">{}</h3>",
        Text(&example.title)
    );
    picture(out, example)?;
    if !example.audio_wav.is_empty() {
        let _ = write!(
            out,
            "<audio controls preload=\"metadata\" aria-label=\"Sound of {}\" \
             src=\"data:audio/wav;base64,",
            Text(&example.title)
        );
        STANDARD.encode_string(&example.audio_wav, out);
        out.push_str("\"></audio>");
    }
    if !example.transcript.is_empty() {
        let _ =
            write!(out, "<p class=\"said\"><span>said</span> “{}”</p>", Text(&example.transcript));
    }
    if let Some(segmented) = &example.segmented {
        segments(out, example, segmented);
    }
    if let Some(transported) = &example.transported {
        plan(out, example, transported);
    }
    for answer in &example.answers {
        answered(out, data, answer);
    }
    out.push_str("</article>");
    Ok(())
}

/// The spectrogram under a strip of words; the strip alone where there is no spectrogram.
fn picture(out: &mut String, example: &Example) -> Result<(), Error> {
    let uri = match &example.log_mel {
        Some(mel) => spectrogram::data_uri(&example.title, mel)?,
        None => None,
    };
    let duration_s = match &example.log_mel {
        Some(mel) => mel.n_frames as f64 * mel.frame_s,
        None => example.words.iter().map(|word| word.end_s).fold(0.0, f64::max),
    };
    let drawable = duration_s.is_finite() && duration_s > 0.0;
    if !drawable || (uri.is_none() && example.words.is_empty()) {
        return Ok(());
    }
    let _ = write!(
        out,
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Spectrogram of {}\">\
         <div class=\"sound\" data-duration=\"{duration_s}\" style=\"min-width:{:.0}px\">",
        Text(&example.title),
        duration_s * PIXELS_PER_SECOND
    );
    if let Some(uri) = uri {
        let _ =
            write!(out, "<img src=\"{uri}\" alt=\"{}\">", Text(&description(example, duration_s)));
    }
    out.push_str("<ol class=\"words\">");
    let percent = |seconds: f64| 100.0 * (seconds / duration_s).clamp(0.0, 1.0);
    for word in &example.words {
        if !(word.start_s.is_finite() && word.end_s.is_finite()) {
            continue;
        }
        let (left, right) = (percent(word.start_s), percent(word.end_s));
        let _ = write!(
            out,
            "<li style=\"left:{left:.3}%;width:{:.3}%\" title=\"{} {:.2}–{:.2} s\">{}</li>",
            (right - left).max(0.0),
            Text(&word.label),
            word.start_s,
            word.end_s,
            Text(&word.label)
        );
    }
    out.push_str("</ol><div class=\"ruler\" aria-hidden=\"true\">");
    for tenth in
        (0..).step_by(5).take_while(|tenth| f64::from(*tenth) / 10.0 <= duration_s).take(1000)
    {
        let second = f64::from(tenth) / 10.0;
        let label = if tenth % 10 == 0 { format!("{second:.0} s") } else { String::new() };
        let _ = write!(out, "<span style=\"left:{:.3}%\">{label}</span>", percent(second));
    }
    out.push_str("</div><i class=\"head\"></i></div></div>");
    Ok(())
}

fn description(example: &Example, duration_s: f64) -> String {
    let mut text = format!("Log-mel spectrogram, {} seconds.", significant(duration_s));
    for word in &example.words {
        let _ = write!(text, " {} at {:.2} s,", word.label, word.start_s);
    }
    if text.ends_with(',') {
        text.pop();
    }
    text
}

/// Where it is cut, folded away.
fn segments(out: &mut String, example: &Example, segmented: &Segmented) {
    let _ = write!(
        out,
        "<details><summary>Where it is cut, and what its vectors are nearest to</summary><p>Boundaries by everything \
         that can cut the utterance; what sees the transcript is an oracle. Every vector that the language model is given \
         stands at its time, with the token whose embedding is nearest; the darker, the nearer.</p>\
         <div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Segments of {}\">",
        Text(&example.title)
    );
    inline_lanes(out, segmented);
    out.push_str("</div></details>");
}

/// Where the vectors go, folded away.
fn plan(out: &mut String, example: &Example, transported: &Transported) {
    let _ = write!(
        out,
        "<details><summary>Where its vectors go</summary><p>Every vector between encoder and language model, by \
         optimal transport to the embeddings of what is said; the darker, the more of it.</p>\
         <div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Transport plan of {}\">",
        Text(&example.title)
    );
    inline(out, transported);
    out.push_str("</div></details>");
}

fn answered(out: &mut String, data: &ReportData, answer: &Answer) {
    let title = data.task_titles.get(&answer.task).map_or(answer.task.as_str(), String::as_str);
    let badge = if data.results.is_trained(&answer.task) { "trained" } else { "zero-shot" };
    let class = if badge == "trained" { "badge trained" } else { "badge" };
    let _ = write!(
        out,
        "<div class=\"answer\"><p class=\"asked\"><b>{}</b> <span class=\"{class}\">{badge}</span> {}</p><dl>",
        Text(title),
        Text(&answer.instruction)
    );
    let rows = [
        ("speech", "heard it", Some(&answer.speech)),
        ("text", "read it", answer.text.as_ref()),
        ("cascade", "cascade", answer.cascade.as_ref()),
    ];
    for (class, label, said) in rows {
        let Some(said) = said else { continue };
        let right = said.trim() == answer.reference.trim();
        let (mark, words) =
            if right { ("✓", "right") } else { ("✗", "differs from the reference") };
        let _ = write!(
            out,
            "<dt class=\"k {class}\">{label}</dt><dd><span class=\"{}\" role=\"img\" \
             aria-label=\"{words}\">{mark}</span> ",
            if right { "yes" } else { "no" }
        );
        difference(out, &answer.reference, said);
        out.push_str("</dd>");
    }
    let _ = write!(out, "<dt>reference</dt><dd>{}</dd></dl></div>", Text(&answer.reference));
}

/// What was said, with what differs from the reference marked.
fn difference(out: &mut String, reference: &str, said: &str) {
    if said.trim().is_empty() {
        out.push_str("<em class=\"none\">(nothing)</em>");
        return;
    }
    let (reference_words, said_words) = (words(reference), words(said));
    let (mut from, mut to) = (reference_words.iter(), said_words.iter());
    let mut first = true;
    for edit in word_edits(reference, said) {
        if !first {
            out.push(' ');
        }
        first = false;
        let _ = match edit {
            Edit::Equal => {
                from.next();
                write!(out, "{}", Text(to.next().map_or("", String::as_str)))
            }
            Edit::Substitute => {
                from.next();
                write!(out, "<mark>{}</mark>", Text(to.next().map_or("", String::as_str)))
            }
            Edit::Insert => {
                write!(out, "<mark>{}</mark>", Text(to.next().map_or("", String::as_str)))
            }
            Edit::Delete => {
                write!(out, "<del>{}</del>", Text(from.next().map_or("", String::as_str)))
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::{LogMel, Word};
    use super::*;

    fn marked(reference: &str, said: &str) -> String {
        let mut out = String::new();
        difference(&mut out, reference, said);
        out
    }

    #[test]
    fn differences_are_marked_by_word() {
        assert_eq!(marked("the cat sat", "the cat sat"), "the cat sat");
        assert_eq!(marked("the cat sat", "the hat sat"), "the <mark>hat</mark> sat");
        assert_eq!(
            marked("the old cat sat", "the cat sat now"),
            "the <del>old</del> cat sat <mark>now</mark>"
        );
        assert_eq!(marked("a", "<b>"), "<mark>&lt;b&gt;</mark>");
        assert!(marked("a", " ").contains("(nothing)"));
    }

    #[test]
    fn words_lie_where_they_were_said() {
        let example = Example {
            title: "u1".into(),
            words: vec![
                Word { label: "in".into(), start_s: 0.5, end_s: 1.0 },
                Word { label: "bad".into(), start_s: f64::NAN, end_s: 1.0 },
            ],
            log_mel: Some(LogMel {
                n_frames: 200,
                n_mels: 1,
                values: vec![0.0; 200],
                frame_s: 0.01,
            }),
            ..Example::default()
        };
        let mut out = String::new();
        picture(&mut out, &example).unwrap();
        assert!(out.contains("left:25.000%;width:25.000%"), "{out}");
        assert!(out.contains("alt=\"Log-mel spectrogram, 2 seconds. in at 0.50 s"));
        assert_eq!(out.matches("<li").count(), 1);
        // 0, 0.5, 1, 1.5 and 2 seconds.
        assert_eq!(out.matches("<span").count(), 5);
    }

    #[test]
    fn without_picture_and_sound_the_answers_remain() {
        let example = Example {
            answers: vec![Answer {
                speech: "x".into(),
                reference: "x".into(),
                ..Answer::default()
            }],
            ..Example::default()
        };
        let data = ReportData { examples: vec![example], ..ReportData::default() };
        let mut out = String::new();
        section(&mut out, &data).unwrap();
        assert!(out.contains("✓") && !out.contains("<audio") && !out.contains("<img"));
        assert!(!out.contains("cascade"));
    }
}
