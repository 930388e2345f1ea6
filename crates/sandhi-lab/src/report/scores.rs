//! The tables of results: speech beside its upper bound, the cascade and the share recovered.

use std::fmt::Write;

use indexmap::IndexMap;

use super::data::ReportData;
use super::html::{Text, Unit, metric_name};
use crate::protocol::Protocol;
use crate::results::{CASCADE, Domains, Metric, RECOVERED, TEXT, lower_is_better};

/// A metric of a task on a domain, from all sides.
struct Row<'a> {
    domain: &'a str,
    speech: Option<&'a Metric>,
    text: Option<&'a Metric>,
    cascade: Option<&'a Metric>,
    recovered: Option<&'a Metric>,
}

/// The tables of all tasks; nothing for results without scores.
pub(super) fn section(out: &mut String, data: &ReportData) {
    if data.results.scores.is_empty() {
        return;
    }
    out.push_str(
        "<section id=\"results\"><h2>Results</h2>\
         <p>Every number comes with its 95\u{202f}% bootstrap interval over the utterances. \
         <b class=\"k speech\">Speech</b> is the model that hears the utterance; \
         <b class=\"k text\">text</b> is the same language model reading the transcript, which is \
         as good as hearing can get; the <b class=\"k cascade\">cascade</b> reads what the \
         recognizer wrote. <em>Recovered</em> is the share of the text score that speech \
         reaches.</p>",
    );
    for (task, domains) in &data.results.scores {
        table(out, data, task, domains);
    }
    out.push_str("</section>\n");
}

fn table(out: &mut String, data: &ReportData, task: &str, domains: &Domains) {
    let title = data.task_titles.get(task).map_or(task, String::as_str);
    let badge = if data.results.is_trained(task) {
        "<span class=\"badge trained\">trained on speech</span>"
    } else {
        "<span class=\"badge\">zero-shot: never trained on speech</span>"
    };
    let _ = write!(
        out,
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{0}\">\
         <table class=\"scores\"><caption>{0} {badge}</caption>\
         <thead><tr><th scope=\"col\">metric</th><th scope=\"col\">domain</th>\
         <th scope=\"col\">speech</th><th scope=\"col\">text</th><th scope=\"col\">cascade</th>\
         <th scope=\"col\">recovered</th><th scope=\"col\">n</th><td></td></tr></thead>",
        Text(title)
    );
    for (metric, rows) in by_metric(domains) {
        let unit = Unit::of(metric);
        let better = if lower_is_better(metric) { "↓" } else { "↑" };
        let better_words =
            if lower_is_better(metric) { "lower is better" } else { "higher is better" };
        let right = right_end(unit, metric, &rows);
        out.push_str("<tbody>");
        for (index, row) in rows.iter().enumerate() {
            out.push_str("<tr>");
            if index == 0 {
                let _ = write!(
                    out,
                    "<th scope=\"rowgroup\" rowspan=\"{}\">{} <span class=\"better\" \
                     title=\"{better_words}\">{better}<i class=\"sr\">{better_words}</i></span></th>",
                    rows.len(),
                    Text(&metric_name(metric))
                );
            }
            let _ = write!(out, "<th scope=\"row\">{}</th>", Text(row.domain));
            cell(out, "speech", unit, row.speech);
            cell(out, "text", unit, row.text);
            cell(out, "cascade", unit, row.cascade);
            cell(out, "recovered", Unit::Percent, row.recovered);
            let n = [row.speech, row.text, row.cascade].into_iter().flatten().next();
            let _ = write!(out, "<td class=\"n\">{}</td>", n.map_or(0, |metric| metric.n));
            plot(out, row, right);
            out.push_str("</tr>");
        }
        out.push_str("</tbody>");
    }
    out.push_str("</table></div>");
    protocols(out, domains);
}

/// How the choices of a task were made, a line for each of its ways.
fn protocols(out: &mut String, domains: &Domains) {
    let mut found: IndexMap<Protocol, Vec<&str>> = IndexMap::new();
    for (metric, number) in domains.values().flatten() {
        if let Some(protocol) = number.protocol {
            let metrics = found.entry(protocol).or_default();
            if !metrics.contains(&metric.as_str()) {
                metrics.push(metric);
            }
        }
    }
    if found.is_empty() {
        return;
    }
    out.push_str("<ul class=\"protocols\">");
    for (protocol, metrics) in &found {
        let names: Vec<String> = metrics.iter().map(|metric| metric_name(metric)).collect();
        let (names, protocol) = (names.join(", "), protocol.to_string());
        let _ = write!(out, "<li><b>{}</b>: {}</li>", Text(&names), Text(&protocol));
    }
    out.push_str("</ul>");
}

/// Turns domain → metric into metric (without suffix) → rows, in order of appearance.
fn by_metric(domains: &Domains) -> IndexMap<&str, Vec<Row<'_>>> {
    let mut table: IndexMap<&str, Vec<Row<'_>>> = IndexMap::new();
    for (domain, metrics) in domains {
        for (metric, number) in metrics {
            let strip = |suffix| metric.strip_suffix(suffix);
            let base = strip(TEXT).or_else(|| strip(CASCADE)).or_else(|| strip(RECOVERED));
            let base = base.unwrap_or(metric);
            let rows = table.entry(base).or_default();
            if rows.last().is_none_or(|row| row.domain != domain) {
                let row = Row { domain, speech: None, text: None, cascade: None, recovered: None };
                rows.push(row);
            }
            let Some(row) = rows.last_mut() else { continue };
            match &metric[base.len()..] {
                TEXT => row.text = Some(number),
                CASCADE => row.cascade = Some(number),
                RECOVERED => row.recovered = Some(number),
                _ => row.speech = Some(number),
            }
        }
    }
    table
}

fn cell(out: &mut String, class: &str, unit: Unit, metric: Option<&Metric>) {
    if let Some(why) = metric.and_then(|metric| metric.unsupported) {
        let _ =
            write!(out, "<td class=\"{class} none\">n/a<small>{}</small></td>", Text(why.reason()));
        return;
    }
    let Some(metric) = metric.filter(|metric| metric.value.is_finite()) else {
        let _ = write!(out, "<td class=\"{class} none\">–<small></small></td>");
        return;
    };
    let _ = write!(out, "<td class=\"{class}\"><b>{}</b>", unit.show(metric.value));
    let interval = if metric.lo < metric.hi {
        format!("{}–{}", unit.number(metric.lo), unit.number(metric.hi))
    } else {
        String::new()
    };
    let _ = write!(out, "<small>{interval}</small></td>");
}

/// What the right end of a metric's plots stands for.
fn right_end(unit: Unit, metric: &str, rows: &[Row]) -> f64 {
    let largest = rows
        .iter()
        .flat_map(|row| [row.speech, row.text, row.cascade])
        .flatten()
        .flat_map(|metric| [metric.value, metric.hi])
        .filter(|value| value.is_finite())
        .fold(0.0, f64::max);
    match unit {
        Unit::Percent if !lower_is_better(metric) => largest.max(1.0),
        Unit::Points => largest.max(100.0),
        _ if largest > 0.0 => largest * 1.05,
        _ => 1.0,
    }
}

/// Speech as a dot with its interval, text as a bar, the cascade as a diamond, from 0 to `right`.
fn plot(out: &mut String, row: &Row, right: f64) {
    const WIDTH: f64 = 150.0;
    let at = |value: f64| 5.0 + (WIDTH - 10.0) * (value / right).clamp(0.0, 1.0);
    let _ = write!(
        out,
        "<td class=\"plot\"><svg viewBox=\"0 0 {WIDTH} 18\" width=\"{WIDTH}\" height=\"18\" \
         aria-hidden=\"true\"><path class=\"base\" d=\"M5 9H{}\"/>",
        WIDTH - 5.0
    );
    let finite = |metric: Option<&Metric>| metric.copied().filter(|m| m.value.is_finite());
    if let Some(text) = finite(row.text) {
        let _ = write!(out, "<path class=\"text\" d=\"M{:.1} 2V16\"/>", at(text.value));
    }
    if let Some(cascade) = finite(row.cascade) {
        let _ = write!(
            out,
            "<path class=\"cascade\" d=\"M{:.1} 4.5l4.5 4.5-4.5 4.5-4.5-4.5z\"/>",
            at(cascade.value)
        );
    }
    if let Some(speech) = finite(row.speech) {
        let end = |value: f64| at(if value.is_finite() { value } else { speech.value });
        let _ = write!(
            out,
            "<path class=\"whisker\" d=\"M{:.1} 9H{:.1}\"/><circle cx=\"{:.1}\" cy=\"9\" r=\"3.6\"/>",
            end(speech.lo),
            end(speech.hi),
            at(speech.value)
        );
    }
    out.push_str("</svg></td>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Unsupported;
    use crate::results::Results;

    fn example() -> ReportData {
        let mut results = Results::default();
        results.meta.trained_tasks = vec!["asr".into()];
        results.set("asr", "base", "wer", Metric::new(0.071, 0.06, 0.083, 200));
        results.set("asr", "base", "wer_cascade", Metric::new(0.05, 0.04, 0.06, 200));
        results.set("asr", "channel", "wer", Metric::new(0.3, 0.2, 0.4, 100));
        results.set("qa", "base", "exact", Metric::new(0.8, 0.7, 0.9, 50));
        results.set("qa", "base", "exact_text", Metric::exact(0.9, 50));
        results.set("qa", "base", "exact_recovered", Metric::new(0.889, 0.8, 0.95, 50));
        results.set("story", "<base>", "perplexity", Metric::new(f64::NAN, f64::NAN, 1.0, 5));
        ReportData { results, ..ReportData::default() }
    }

    #[test]
    fn suffixes_become_columns_of_one_row() {
        let data = example();
        let rows = by_metric(&data.results.scores["qa"]);
        assert_eq!(rows.len(), 1);
        let row = &rows["exact"][0];
        assert_eq!(row.speech.unwrap().value, 0.8);
        assert_eq!(row.text.unwrap().value, 0.9);
        assert_eq!(row.recovered.unwrap().value, 0.889);
        assert!(row.cascade.is_none());
        assert_eq!(by_metric(&data.results.scores["asr"])["wer"].len(), 2);
    }

    #[test]
    fn choices_stand_with_their_protocol_and_what_is_not_with_its_reason() {
        let stamp = "S→T, plain, 0-shot, sum; joint tokenization; no markers scored; \
                     k tied for best share 1";
        let mut data = example();
        let found = Metric::exact(0.75, 4).under(stamp.parse().unwrap());
        data.results.set("story_cloze", "base", "accuracy", found);
        data.results.set("story_cloze", "base", "accuracy_entity", found);
        let none = Metric::unsupported(Unsupported::CannotSpeak);
        data.results.set("story_cloze", "base", "accuracy_s2s", none);
        let mut out = String::new();
        section(&mut out, &data);
        let line = format!("<li><b>accuracy, accuracy entity</b>: {stamp}</li>");
        assert_eq!(out.matches(&line).count(), 1, "{out}");
        let cell = "<td class=\"speech none\">n/a<small>the model cannot speak</small></td>";
        assert!(out.contains(cell), "{out}");
        assert_eq!(out.matches("class=\"protocols\"").count(), 1);
    }

    #[test]
    fn cells_show_numbers_with_their_intervals() {
        let mut out = String::new();
        section(&mut out, &example());
        assert!(out.contains("<b>7.1\u{202f}%</b><small>6.0–8.3</small>"), "{out}");
        assert!(
            out.contains("<b>90.0\u{202f}%</b><small></small></td>"),
            "no interval for an exact number"
        );
        assert!(out.contains("&lt;base&gt;") && !out.contains("<base>"));
        assert_eq!(out.matches("trained on speech</span>").count(), 3);
        assert_eq!(out.matches("badge trained").count(), 1);
        assert!(!out.contains("NaN"));
    }
}
