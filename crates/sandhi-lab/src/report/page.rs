//! The page around the sections.

use std::fmt::Write;
use std::path::Path;

use super::data::{Highlight, ReportData};
use super::html::{Text, Unit, duration, metric_name};
use super::{Error, chart, example, parameters, scores};
use crate::checkpoint::write_atomically;
use crate::results::{CASCADE, RECOVERED, TEXT};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Writes the report as one self-contained HTML file: whole or not at all.
///
/// # Errors
///
/// [`Error::LogMel`] for a spectrogram whose sizes contradict each other, [`Error::File`] when the
/// file cannot be written.
pub fn write_html(path: &Path, data: &ReportData) -> Result<(), Error> {
    Ok(write_atomically(path, render_html(data)?.as_bytes())?)
}

/// The report as HTML.
///
/// # Errors
///
/// [`Error::LogMel`] for a spectrogram whose sizes contradict each other.
pub fn render_html(data: &ReportData) -> Result<String, Error> {
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{}</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n",
        Text(&data.title)
    );
    header(&mut out, data);
    highlights(&mut out, data);
    curves(&mut out, data);
    parameters::section(&mut out, &data.parameters);
    scores::section(&mut out, data);
    example::section(&mut out, data)?;
    provenance(&mut out, data);
    let _ = write!(out, "</main>\n<script>\n{SCRIPT}</script>\n</body></html>\n");
    Ok(out)
}

fn header(out: &mut String, data: &ReportData) {
    let _ = write!(out, "<header><h1>{}</h1>", Text(&data.title));
    if !data.results.meta.model.is_empty() {
        let _ = write!(out, "<p class=\"subtitle\">{}</p>", Text(&data.results.meta.model));
    }
    for paragraph in &data.explanation {
        let _ = write!(out, "<p class=\"lead\">{}</p>", Text(paragraph));
    }
    out.push_str("</header>\n");
}

fn highlights(out: &mut String, data: &ReportData) {
    let own;
    let highlights = if data.highlights.is_empty() {
        own = first_metrics(data);
        &own
    } else {
        &data.highlights
    };
    if highlights.is_empty() {
        return;
    }
    out.push_str("<dl class=\"highlights\">");
    for item in highlights {
        let _ = write!(
            out,
            "<div><dt>{}</dt><dd><b>{}</b><small>{}</small></dd></div>",
            Text(&item.label),
            Text(&item.value),
            Text(&item.note)
        );
    }
    out.push_str("</dl>\n");
}

/// The first metric of every task on its first domain, beside its upper bound.
fn first_metrics(data: &ReportData) -> Vec<Highlight> {
    let tasks = data.results.scores.iter();
    tasks
        .filter_map(|(task, domains)| {
            let (domain, metrics) = domains.first()?;
            let derived = |name: &str| [TEXT, CASCADE, RECOVERED].iter().any(|s| name.ends_with(s));
            let (metric, number) = metrics.iter().find(|(name, _)| !derived(name))?;
            let unit = Unit::of(metric);
            let bound = |suffix, word: &str| {
                let number = metrics.get(&format!("{metric}{suffix}"))?;
                Some(format!(", {word} {}", unit.show(number.value)))
            };
            let against = bound(TEXT, "text").or_else(|| bound(CASCADE, "cascade"));
            let title = data.task_titles.get(task).unwrap_or(task);
            Some(Highlight {
                label: title.clone(),
                value: unit.show(number.value),
                note: format!("{} on {domain}{}", metric_name(metric), against.unwrap_or_default()),
            })
        })
        .collect()
}

fn curves(out: &mut String, data: &ReportData) {
    if data.charts.is_empty() {
        return;
    }
    out.push_str(
        "<section id=\"training\"><h2>How it learned</h2>\
         <p>A loss of ln\u{202f}k nats means that the model is as unsure as if it chose among k \
         equally likely pieces of text; 0 is certainty. The pale band spans the single steps.</p>\
         <div class=\"charts\">",
    );
    for (index, chart) in data.charts.iter().enumerate() {
        chart::figure(out, chart, index);
    }
    out.push_str("</div></section>\n");
}

fn provenance(out: &mut String, data: &ReportData) {
    let meta = &data.results.meta;
    out.push_str("<footer><h2>Where this comes from</h2><dl class=\"facts\">");
    let mut fact = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", Text(name), Text(value));
        }
    };
    if !meta.recipe.is_empty() {
        fact("recipe", &meta.recipe);
        fact("seed", &meta.seed.to_string());
    }
    fact("commit", meta.commit.as_deref().unwrap_or_default());
    fact("machine", &meta.machine);
    fact("started", meta.started.as_deref().unwrap_or_default());
    if meta.duration_s > 0.0 {
        fact("took", &duration(meta.duration_s));
    }
    if meta.oracle {
        fact("oracle", "this system used knowledge that a real one would not have");
    }
    for (metric, settings) in &meta.scorer {
        fact(&metric_name(metric), settings);
    }
    for note in &meta.notes {
        fact("note", note);
    }
    out.push_str("</dl></footer>\n");
}

#[cfg(test)]
mod tests {
    use super::super::data::{Answer, Chart, Example, LogMel, ParameterRow, Word};
    use super::*;
    use crate::results::{Metric, Results, ResultsMeta};
    use indexmap::IndexMap;

    /// A report in which every text is `evil`.
    fn report_of(evil: &str) -> ReportData {
        let text = || evil.to_owned();
        let meta = ResultsMeta {
            recipe: text(),
            model: text(),
            commit: Some(text()),
            machine: text(),
            started: Some(text()),
            duration_s: 61.0,
            scorer: IndexMap::from([(text(), text())]),
            notes: vec![text()],
            oracle: true,
            ..ResultsMeta::default()
        };
        let mut results = Results::new(meta);
        results.set(evil, evil, evil, Metric::new(0.5, 0.4, 0.6, 3));
        let mut chart = Chart::listening_gap(&[(1.0, 2.0, 3.0), (2.0, 1.0, 3.0)]);
        for field in [&mut chart.title, &mut chart.caption, &mut chart.x_label, &mut chart.y_label]
        {
            *field = text();
        }
        chart.curves[0].name = text();
        let answer = Answer {
            task: text(),
            instruction: text(),
            speech: text(),
            text: Some(text()),
            cascade: Some(format!("{evil} x")),
            reference: format!("y {evil}"),
        };
        let example = Example {
            title: text(),
            transcript: text(),
            audio_wav: vec![1, 2, 3],
            words: vec![Word { label: text(), start_s: 0.0, end_s: 0.1 }],
            log_mel: Some(LogMel { n_frames: 20, n_mels: 1, values: vec![0.0; 20], frame_s: 0.01 }),
            transported: Some(crate::inspect::testing::transported(evil)),
            segmented: Some(crate::inspect::testing::segmented(evil)),
            answers: vec![answer],
        };
        let highlight = Highlight { label: text(), value: text(), note: text() };
        ReportData {
            title: text(),
            explanation: vec![text()],
            highlights: vec![highlight],
            charts: vec![chart],
            parameters: vec![ParameterRow { name: text(), total: 3, trained: 1 }],
            results,
            task_titles: IndexMap::new(),
            examples: vec![example],
        }
    }

    #[test]
    fn no_text_can_become_markup() {
        let evil = "\"'><script>alert(1)</script><img src=x onerror='";
        let html = render_html(&report_of(evil)).unwrap();
        let harmless = render_html(&report_of("word")).unwrap();
        let count = |html: &str, c: char| html.matches(c).count();
        for c in ['<', '"', '\''] {
            assert_eq!(count(&html, c), count(&harmless, c), "{c}");
        }
        assert!(html.contains("&lt;script&gt;alert(1)"));
    }

    #[test]
    fn nothing_is_fetched() {
        let html = render_html(&report_of("word")).unwrap();
        for needle in ["http:", "https:", "@import", "url(", "<link"] {
            assert!(!html.contains(needle), "{needle}");
        }
        for source in html.split("src=\"").skip(1) {
            assert!(source.starts_with("data:"));
        }
    }

    #[test]
    fn elements_are_closed() {
        let html = render_html(&report_of("word")).unwrap();
        for tag in [
            "section", "div", "table", "tr", "td", "th", "dl", "dd", "svg", "figure", "p", "ol",
            "article", "main", "span", "small", "b", "details", "summary", "title", "text", "g",
            "ul", "li",
        ] {
            let opened = html.matches(&format!("<{tag}>")).count()
                + html.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn an_empty_report_is_a_page() {
        let html = render_html(&ReportData { title: "t".into(), ..ReportData::default() }).unwrap();
        assert!(html.contains("<h1>t</h1>") && !html.contains("<section"));
    }

    #[test]
    fn without_highlights_the_first_metrics_stand_at_the_top() {
        let mut data = ReportData::default();
        data.results.set("qa", "base", "exact_text", Metric::exact(0.9, 5));
        data.results.set("qa", "base", "exact", Metric::exact(0.8, 5));
        data.results.set("none", "base", "wer_text", Metric::exact(0.8, 5));
        let highlights = first_metrics(&data);
        assert_eq!(highlights.len(), 1);
        assert_eq!(highlights[0].value, "80.0\u{202f}%");
        assert_eq!(highlights[0].note, "exact match on base, text 90.0\u{202f}%");
    }

    #[test]
    fn the_same_data_give_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.html");
        write_html(&path, &report_of("word")).unwrap();
        let first = std::fs::read(&path).unwrap();
        write_html(&path, &report_of("word")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
    }
}
