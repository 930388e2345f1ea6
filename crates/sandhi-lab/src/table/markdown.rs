//! A table as Markdown, to be read and to be pasted.

use std::fmt::Write;

use indexmap::{IndexMap, IndexSet};

use super::{Cell, Row, Table};
use crate::costs::{Costs, median};
use crate::protocol::Protocol;
use crate::report::{metric_name, metric_unit};
use crate::results::{CASCADE, TEXT, lower_is_better};

/// One Markdown table a task and metric (upper bounds and cascades are left to the JSON, shares
/// recovered are shown), then what the marks mean.
pub(super) fn render(table: &Table) -> String {
    let mut out = String::new();
    // (task, metric) → domains, in order of appearance.
    let mut parts: IndexMap<(&str, &str), IndexSet<&str>> = IndexMap::new();
    for cell in table.rows.iter().flat_map(|row| &row.cells) {
        if !cell.metric.ends_with(TEXT) && !cell.metric.ends_with(CASCADE) {
            parts.entry((&cell.task, &cell.metric)).or_default().insert(&cell.domain);
        }
    }
    for ((task, metric), domains) in &parts {
        part(&mut out, table, task, metric, domains);
    }
    costs(&mut out, table);
    notes(&mut out, table);
    out
}

/// What rows cost, medians over seeds.
fn costs(out: &mut String, table: &Table) {
    if table.rows.iter().all(|row| row.costs.is_empty()) {
        return;
    }
    out.push_str(
        "### Costs of training\n\n| recipe | trained parameters | seconds a step | peak MiB |\n|---|--:|--:|--:|\n",
    );
    for row in table.rows.iter().filter(|row| !row.costs.is_empty()) {
        let median = |of: &dyn Fn(&Costs) -> Option<f64>| median(row.costs.iter().filter_map(of));
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            escape(&row.recipe),
            or_none(median(&|costs| Some(costs.trained_parameters as f64)).map(|n| format!("{n}"))),
            or_none(median(&|costs| costs.step_s).map(|s| format!("{s:.3}"))),
            or_none(
                median(&|costs| Some(costs.peak_bytes? as f64 / f64::from(1 << 20)))
                    .map(|mib| format!("{mib:.0}"))
            ),
        );
    }
    out.push('\n');
}

fn part(out: &mut String, table: &Table, task: &str, metric: &str, domains: &IndexSet<&str>) {
    let direction = if lower_is_better(metric) { "lower is better" } else { "higher is better" };
    let _ = writeln!(out, "### {}: {} ({direction})\n", escape(task), metric_name(metric));
    let cells = table.rows.iter().flat_map(|row| &row.cells);
    let protocols: IndexSet<Protocol> = cells
        .filter(|cell| cell.task == task && cell.metric == metric)
        .filter_map(|cell| cell.protocol)
        .collect();
    for protocol in &protocols {
        let _ = writeln!(out, "{protocol}\n");
    }
    let _ = write!(out, "| recipe | seeds |");
    domains.iter().for_each(|domain| {
        let _ = write!(out, " {} |", escape(domain));
    });
    let _ = writeln!(out, "\n|---|--:|{}", "--:|".repeat(domains.len()));
    let n_seeds = table.rows.iter().map(|row| row.seeds.len()).max().unwrap_or_default();
    for row in &table.rows {
        if !domains.iter().any(|domain| row.cell(task, domain, metric).is_some()) {
            continue;
        }
        let _ = write!(out, "| {} | {} |", name(table, row, task), row.seeds.len());
        for domain in domains {
            let cell = row.cell(task, domain, metric);
            let _ = write!(
                out,
                " {} |",
                cell.map_or("–".to_owned(), |cell| content(cell, row, n_seeds))
            );
        }
        out.push('\n');
    }
    out.push('\n');
}

fn name(table: &Table, row: &Row, task: &str) -> String {
    let mut name = escape(&row.recipe);
    if table.baseline.as_ref() == Some(&row.recipe) {
        name.push_str(" (baseline)");
    }
    if row.oracle {
        name.push_str(" (oracle)");
    }
    if !row.trained_tasks.iter().any(|trained| trained == task) {
        name.push_str(" °");
    }
    name
}

/// `7.1 ± 0.3, Δ −1.2 [−1.9, −0.5]`; `n_seeds` is how many a complete row has.
fn content(cell: &Cell, row: &Row, n_seeds: usize) -> String {
    if let Some(why) = cell.unsupported.filter(|_| !cell.mean.is_finite()) {
        return format!("n/a ({why})");
    }
    let unit = metric_unit(&cell.metric);
    let mut text = unit.number(cell.mean);
    if let Some(sd) = cell.sd {
        let _ = write!(text, " ± {}", unit.number(sd));
    }
    if cell.values.len() < row.seeds.len() {
        let _ = write!(text, " (n = {})", cell.values.len());
    }
    if let Some(difference) = &cell.difference {
        let signed = |value: f64| {
            let sign = if value < 0.0 { "−" } else { "+" };
            format!("{sign}{}", unit.number(value.abs()))
        };
        let mark = if difference.is_beyond_chance() { "**" } else { "" };
        let _ = write!(
            text,
            ", {mark}Δ {}{mark} [{}, {}]",
            signed(difference.value),
            signed(difference.lo),
            signed(difference.hi)
        );
        if difference.n_seeds < n_seeds {
            let _ = write!(text, " over {} of {n_seeds} seeds", difference.n_seeds);
        }
    }
    text
}

fn notes(out: &mut String, table: &Table) {
    out.push_str(
        "Mean ± standard deviation over seeds; rates and shares times 100. ° marks \
         rows that never trained the task on speech.",
    );
    if let Some(baseline) = &table.baseline {
        let _ = write!(
            out,
            " Δ is the difference to {} with its 95 % interval: same seed and utterances, \
             utterances bootstrapped within seeds, averaged over seeds; bold where the interval \
             excludes 0.",
            escape(baseline)
        );
    }
    if table.rows.iter().any(|row| row.oracle) {
        out.push_str(" Oracle rows know what a real system would not.");
    }
    out.push('\n');
    if !table.warnings.is_empty() {
        out.push('\n');
        for warning in &table.warnings {
            let _ = writeln!(out, "* {}", escape(warning));
        }
    }
}

/// Keeps a name from ending its cell.
fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}
