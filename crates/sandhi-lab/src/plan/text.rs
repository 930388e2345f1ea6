//! A plan for people.

use std::fmt::{self, Display, Formatter};

use super::{Memory, Part, Plan, StagePlan};

/// 155.6 M, 1.28 k, 950.
fn count(n: u64) -> String {
    let n = n as f64;
    let (scaled, unit) = match n {
        n if n >= 1e9 => (n / 1e9, " B"),
        n if n >= 1e6 => (n / 1e6, " M"),
        n if n >= 1e4 => (n / 1e3, " k"),
        n => return format!("{n}"),
    };
    let digits = if scaled >= 1000.0 {
        0
    } else if scaled >= 10.0 {
        1
    } else {
        2
    };
    format!("{scaled:.digits$}{unit}")
}

fn bytes(n: u64) -> String {
    let n = n as f64;
    match n {
        n if n >= (1u64 << 30) as f64 => format!("{:.2} GiB", n / (1u64 << 30) as f64),
        n if n >= (1u64 << 20) as f64 => format!("{:.1} MiB", n / (1u64 << 20) as f64),
        n if n > 0.0 => format!("{:.1} KiB", n / 1024.0),
        _ => "–".to_owned(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// Rows of cells, the first column to the left and all others to the right.
fn table(f: &mut Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..n_columns).map(|i| width(i).unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::from(" ");
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let fill = " ".repeat(width - cell.chars().count());
            line.push(' ');
            line.push_str(&if i == 0 { format!("{cell}{fill}") } else { format!(" {fill}{cell}") });
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

impl Plan {
    fn part_row(part: &Part) -> Vec<String> {
        let rest = part.n_in_matrices.map(|n| count(part.n_parameters - n));
        vec![
            part.name.clone(),
            count(part.n_parameters),
            part.n_in_matrices.map_or("declared".to_owned(), count),
            rest.unwrap_or_else(|| "–".to_owned()),
            if part.n_trained == 0 { "–".to_owned() } else { count(part.n_trained) },
            percent(part.share),
        ]
    }

    fn stage_row(stage: &StagePlan) -> Vec<String> {
        let unknown = || "–".to_owned();
        vec![
            stage.name.clone(),
            stage.steps.to_string(),
            count(stage.n_trained),
            stage.n_items.map_or_else(unknown, |n| count(n as u64)),
            stage.audio_s_per_step.map_or_else(unknown, |s| format!("{s:.0} s")),
            stage.audio_h.map_or_else(unknown, |h| format!("{h:.1} h")),
            stage.tokens_per_step.map_or_else(unknown, count),
            stage.tokens.map_or_else(unknown, count),
        ]
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} model, seed {})", self.name, self.kind, self.seed)?;
        if !self.about.is_empty() {
            write!(f, ": {}", self.about)?;
        }
        writeln!(f, "\n")?;
        let mut rows = vec![cells([
            "parameters",
            "all",
            "linear layers",
            "norms, biases",
            "trained",
            "share of all",
        ])];
        rows.extend(self.parts.iter().map(Self::part_row));
        rows.push(vec![
            "all".into(),
            count(self.n_parameters),
            String::new(),
            String::new(),
            count(self.n_trained),
            percent(self.n_trained as f64 / self.n_parameters.max(1) as f64),
        ]);
        table(f, &rows)?;
        writeln!(
            f,
            "  linear layers: tables and kernels too. The last share is that of what is trained.\n"
        )?;

        let Memory { weight_bytes, gradient_bytes, moment_bytes, activation_bytes, .. } =
            self.memory;
        let mut rows = vec![cells(["memory", "weights", "gradients", "moments"])];
        for part in &self.parts {
            rows.push(vec![
                part.name.clone(),
                bytes(part.weight_bytes),
                bytes(part.gradient_bytes),
                bytes(part.moment_bytes),
            ]);
        }
        rows.push(vec![
            "all".into(),
            bytes(weight_bytes),
            bytes(gradient_bytes),
            bytes(moment_bytes),
        ]);
        table(f, &rows)?;
        let activations = activation_bytes
            .map_or("unknown, a part is only declared".to_owned(), |n| {
                format!("about {}", bytes(n))
            });
        writeln!(f, "  activations    {activations}")?;
        writeln!(f, "  in all         {} without data", bytes(self.memory.total_bytes))?;
        if activation_bytes.is_some() {
            writeln!(f, "  (activations: {})", self.memory.activation_formula)?;
        }
        writeln!(f)?;

        let mut rows = vec![cells([
            "stage",
            "steps",
            "trained",
            "items",
            "audio a step",
            "audio",
            "tokens a step",
            "tokens",
        ])];
        rows.extend(self.stages.iter().map(Self::stage_row));
        table(f, &rows)?;
        let tokens = match self.kind {
            "text" => "of text",
            "ctc" => "encoder frames",
            _ => "vectors of speech, and an estimated 48 tokens of text an item",
        };
        writeln!(f, "  at most, were all batches full; tokens: {tokens}")?;
        if self.parts.iter().any(|part| part.declared.is_some()) {
            writeln!(f, "\na base is only declared: this recipe can be planned, not trained")?;
        }
        for missing in &self.missing {
            writeln!(f, "\nbefore it can be trained: {missing}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "\nwarning: {warning}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short() {
        assert_eq!(count(155_648_000), "155.6 M");
        assert_eq!(count(15_000_000_000), "15.0 B");
        assert_eq!(count(1_234), "1234");
        assert_eq!(bytes(3 << 30), "3.00 GiB");
        assert_eq!(bytes(0), "–");
    }
}
