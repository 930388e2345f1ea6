//! A plan for people.

use std::fmt::{self, Display, Formatter};

use super::{Memory, Part, Plan, StagePlan, Work};

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

/// 3.41 T: operations.
fn operations(n: f64) -> String {
    const UNITS: [(f64, &str); 7] = [
        (1e18, " E"),
        (1e15, " P"),
        (1e12, " T"),
        (1e9, " G"),
        (1e6, " M"),
        (1e3, " k"),
        (1.0, ""),
    ];
    match UNITS.iter().find(|(scale, _)| n >= *scale) {
        Some((scale, unit)) => format!("{:.2}{unit}", n / scale),
        None => "–".to_owned(),
    }
}

/// 12.3 ms, 4.5 s, 6.7 min, 8.9 h, 12.3 days.
fn duration(s: f64) -> String {
    match s {
        s if s < 1e-3 => format!("{:.3} ms", 1e3 * s),
        s if s < 1.0 => format!("{:.1} ms", 1e3 * s),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
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

    /// A row for every part, and one for the step.
    fn work_rows(stage: &StagePlan, work: &[Work]) -> Vec<Vec<String>> {
        let of_documents = stage.tokens_per_document.and(stage.tokens_per_step);
        let row = |name: &str, forward: f64, backward: f64, once: f64| {
            let a_token = of_documents.map(|n_tokens| operations(forward / n_tokens as f64));
            let mut row = vec![
                format!("{}: {name}", stage.name),
                operations(forward),
                operations(backward),
                operations(forward + backward),
                operations(once),
                operations((forward + backward) * stage.steps as f64 + once),
            ];
            row.extend(a_token);
            row
        };
        let sum = |of: fn(&Work) -> f64| work.iter().map(of).sum();
        let mut rows: Vec<Vec<String>> =
            work.iter().map(|w| row(&w.part, w.forward, w.backward, w.once)).collect();
        if work.len() > 1 {
            rows.push(row("all", sum(|w| w.forward), sum(|w| w.backward), sum(|w| w.once)));
        }
        rows
    }

    /// What the operations of every stage are, and how long they take.
    fn write_work(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut rows =
            vec![cells(["operations", "forward", "backward", "a step", "once", "the stage"])];
        if self.stages.iter().any(|stage| stage.tokens_per_document.is_some()) {
            rows[0].push("forward, a token".to_owned());
        }
        for stage in &self.stages {
            match &stage.work {
                Some(work) => rows.extend(Self::work_rows(stage, work)),
                None => rows.push(vec![format!("{}: unknown", stage.name)]),
            }
        }
        table(f, &rows)?;
        writeln!(
            f,
            "  of matrix products, for full batches of equal items; a multiplication and an addition are two"
        )?;
        if self.stages.iter().flat_map(|s| s.work.iter().flatten()).any(|work| work.once > 0.0) {
            writeln!(
                f,
                "  once: a frozen encoder hears every utterance once, its frames are cached; at most"
            )?;
        }
        if self.parts.iter().any(|part| part.declared.is_some()) {
            writeln!(f, "  of declared parts: two a parameter and row, without attention")?;
        }
        let timed = |stage: &StagePlan| {
            let (step_s, stage_s) = (duration(stage.step_s?), duration(stage.stage_s?));
            Some(format!("  {}: {step_s} a step, {stage_s} in all", stage.name))
        };
        for line in self.stages.iter().filter_map(timed) {
            writeln!(f, "{line}, at the given rate")?;
        }
        writeln!(f)
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
        let unknown = || "unknown".to_owned();
        let mut rows = vec![cells(["memory", "weights", "gradients", "moments", "activations"])];
        for part in &self.parts {
            rows.push(vec![
                part.name.clone(),
                bytes(part.weight_bytes),
                bytes(part.gradient_bytes),
                bytes(part.moment_bytes),
                part.activation_bytes.map_or_else(unknown, bytes),
            ]);
        }
        rows.push(vec![
            "all".into(),
            bytes(weight_bytes),
            bytes(gradient_bytes),
            bytes(moment_bytes),
            activation_bytes.map_or_else(unknown, bytes),
        ]);
        table(f, &rows)?;
        let total = bytes(self.memory.total_bytes);
        if activation_bytes.is_some() {
            writeln!(f, "  at once        {total} at most, in stage {}", self.memory.stage)?;
            writeln!(
                f,
                "  f32, without data; activations are what fused operations keep of full batches, and go while \
                 gradients come"
            )?;
            if self.memory.lattice_bytes > 0 {
                let lattice = bytes(self.memory.lattice_bytes);
                let loss = if self.kind == "aligner" { "the forward sum" } else { "CTC's loss" };
                writeln!(f, "  {loss} needs {lattice} more on the host for every thread")?;
            }
        } else {
            writeln!(f, "  in all         {total}, and activations: a part is only declared")?;
        }
        writeln!(f)?;
        self.write_work(f)?;

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
            "vocoder" => "units",
            "speech_text" => "of text and units",
            _ => "vectors of speech, and an estimated 48 tokens of text an item",
        };
        writeln!(f, "  at most, were all batches full; tokens: {tokens}")?;
        let assumed = |stage: &StagePlan| {
            let (tokens, patches) = (stage.tokens_per_document?, stage.patches_per_document?);
            Some(format!("  {}: documents of {tokens:.0} tokens, {patches:.0} patches", stage.name))
        };
        for line in self.stages.iter().filter_map(assumed) {
            writeln!(f, "{line} are assumed; attention costs more in longer ones")?;
        }
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
        assert_eq!(operations(3.406e12), "3.41 T");
        assert_eq!(operations(0.0), "–");
        let times = [4e-5, 0.0123, 12.34, 150.0, 10_000.0, 1e6].map(duration);
        assert_eq!(times, ["0.040 ms", "12.3 ms", "12.3 s", "2.5 min", "2.8 h", "11.6 days"]);
    }
}
