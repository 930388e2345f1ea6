//! What the model is made of and what was trained.

use std::fmt::Write;

use super::data::ParameterRow;
use super::html::{Text, thousands};

/// A bar of the parts and the table behind it.
pub(super) fn section(out: &mut String, rows: &[ParameterRow]) {
    let total: u64 = rows.iter().map(|row| row.total).sum();
    let trained: u64 = rows.iter().map(|row| row.trained).sum();
    if total == 0 {
        return;
    }
    let share = |part: u64| 100.0 * part as f64 / total as f64;
    let _ = write!(
        out,
        "<section id=\"parameters\"><h2>What was trained</h2>\
         <p>Of {} parameters {} were trained, which is <strong>{}</strong>. All others \
         stayed as they were.</p>\
         <div class=\"parts\" aria-hidden=\"true\">",
        thousands(total),
        thousands(trained),
        percent(share(trained))
    );
    for row in rows.iter().filter(|row| row.total > 0) {
        let kind = if row.trained > 0 { "trained" } else { "frozen" };
        let _ = write!(
            out,
            "<span class=\"{kind}\" style=\"flex-grow:{}\"><b>{}</b></span>",
            row.total,
            Text(&row.name)
        );
    }
    out.push_str(
        "</div><div class=\"scroll\"><table class=\"numbers\"><thead><tr><th scope=\"col\">part</th>\
         <th scope=\"col\">parameters</th><th scope=\"col\">share</th>\
         <th scope=\"col\">trained</th></tr></thead><tbody>",
    );
    for row in rows {
        table_row(out, &row.name, row.total, row.trained, share(row.total));
    }
    out.push_str("</tbody><tfoot>");
    table_row(out, "all", total, trained, 100.0);
    out.push_str("</tfoot></table></div></section>\n");
}

fn table_row(out: &mut String, name: &str, total: u64, trained: u64, share: f64) {
    let trained = if trained == 0 { "–".to_owned() } else { thousands(trained) };
    let _ = write!(
        out,
        "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{trained}</td></tr>",
        Text(name),
        thousands(total),
        percent(share)
    );
}

fn percent(value: f64) -> String {
    let digits = if value < 10.0 { 2 } else { 1 };
    format!("{value:.digits$}\u{202f}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_whole_model() {
        let row = |name: &str, total, trained| ParameterRow { name: name.into(), total, trained };
        let mut out = String::new();
        section(&mut out, &[row("encoder", 600, 0), row("<adapter>", 100, 100), row("lm", 300, 0)]);
        assert!(out.contains("Of 1\u{202f}000 parameters 100 were trained"), "{out}");
        assert!(out.contains("<strong>10.0\u{202f}%</strong>"));
        assert!(out.contains("&lt;adapter&gt;") && !out.contains("<adapter>"));
        let mut none = String::new();
        section(&mut none, &[]);
        assert_eq!(none, "");
    }
}
