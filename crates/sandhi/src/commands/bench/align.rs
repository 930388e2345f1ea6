//! `sandhi bench align`: our best paths against what people use in Python, on the same problems in the same run.
//!
//! ```text
//! problems ─┬─ files ─> bench/peers/align.py: torchaudio, a search in Python, NumPy and C ─┐ times and paths
//!           └─────────> sandhi_align::{ctc, monotonic} ────────────────────────────────────┘
//! round     theirs, ours, theirs, ours, …             medians, and the median of the rounds' ratios
//! ```
//!
//! One thread each. In the clock: from scores in memory to a path in memory. Paths must be equal.

use std::{
    collections::BTreeMap,
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, bail, ensure};
use sandhi_align::{
    ctc::{self, Limits},
    monotonic,
};
use sandhi_data::rng::Stream;
use sandhi_lab::npy;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{at_least_one, median};
use crate::output;

/// The other side, carried in the program so that it fits.
const PEER: &str = include_str!("../../../../../bench/peers/align.py");

/// Arguments of `sandhi bench align`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A Python with numpy, torch and torchaudio; the search in C needs `cc`.
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    python: PathBuf,
    /// Rounds of both sides in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Time an hour of speech against its transcript besides: 180,000 steps, 60,000 characters.
    #[arg(long)]
    hour: bool,
}

/// Frames, tokens, symbols.
const CTC: [[usize; 3]; 4] =
    [[250, 20, 32], [1_500, 150, 32], [3_000, 300, 1_024], [15_000, 1_500, 32]];
/// An hour at 50 steps a second, read fast.
const HOUR: [usize; 3] = [180_000, 60_000, 32];
/// Frames, tokens.
const MONOTONIC: [[usize; 2]; 3] = [[200, 40], [1_000, 150], [4_000, 600]];

/// What is aligned.
enum Problem {
    Ctc { log_probs: Vec<f32>, n_symbols: usize, target: Vec<u32> },
    Monotonic { scores: Vec<f32>, n_tokens: usize },
}

impl Problem {
    /// Log-probabilities that lean to a path, half of whose steps are blank, and its target.
    fn ctc(stream: &mut Stream, [n_frames, n_tokens, n_symbols]: [usize; 3]) -> Self {
        let mut target: Vec<u32> = Vec::with_capacity(n_tokens);
        while target.len() < n_tokens {
            let symbol = 1 + stream.below(n_symbols - 1) as u32;
            if target.last() != Some(&symbol) {
                target.push(symbol);
            }
        }
        let mut logits: Vec<f32> =
            (0..n_frames * n_symbols).map(|_| 4.0 * stream.uniform() as f32).collect();
        for (frame, token) in tokens(stream, n_frames, n_tokens).into_iter().enumerate() {
            let symbol = if stream.uniform() < 0.5 { 0 } else { target[token] as usize };
            logits[frame * n_symbols + symbol] += 4.0;
        }
        let log_probs = ctc::log_softmax(&logits, n_symbols).expect("rows of symbols");
        Self::Ctc { log_probs, n_symbols, target }
    }

    fn monotonic(stream: &mut Stream, [n_frames, n_tokens]: [usize; 2]) -> Self {
        let mut scores: Vec<f32> =
            (0..n_frames * n_tokens).map(|_| -4.0 * stream.uniform() as f32).collect();
        for (frame, token) in tokens(stream, n_frames, n_tokens).into_iter().enumerate() {
            scores[frame * n_tokens + token] += 2.0;
        }
        Self::Monotonic { scores, n_tokens }
    }

    /// The path as the other side writes it: start and end of each token, or the frames of each.
    fn path(&self) -> anyhow::Result<Value> {
        Ok(match self {
            Self::Ctc { log_probs, n_symbols, target } => {
                let found = ctc::viterbi_path(log_probs, *n_symbols, target, 0, Limits::default())?;
                let spans: Vec<_> = found.spans.iter().map(|span| [span.start, span.end]).collect();
                json!(spans)
            }
            Self::Monotonic { scores, n_tokens } => {
                json!(monotonic::search(scores, *n_tokens)?.durations)
            }
        })
    }

    fn solve(&self) -> anyhow::Result<()> {
        match self {
            Self::Ctc { log_probs, n_symbols, target } => {
                let limits = Limits::default();
                black_box(ctc::viterbi_path(log_probs, *n_symbols, target, 0, limits)?);
            }
            Self::Monotonic { scores, n_tokens } => {
                black_box(monotonic::search(scores, *n_tokens)?);
            }
        }
        Ok(())
    }

    /// The median over half a second of runs, five at least.
    fn seconds(&self) -> anyhow::Result<f64> {
        let mut times = Vec::new();
        let begin = Instant::now();
        while times.len() < 5 || begin.elapsed().as_secs_f64() < 0.5 {
            let start = Instant::now();
            self.solve()?;
            times.push(start.elapsed().as_secs_f64());
        }
        Ok(median(times))
    }
}

/// The token of each frame, each for one frame or more.
fn tokens(stream: &mut Stream, n_frames: usize, n_tokens: usize) -> Vec<usize> {
    let mut is_start = vec![false; n_frames];
    is_start[0] = true;
    let mut n_starts = 1;
    while n_starts < n_tokens {
        let frame = stream.below(n_frames);
        n_starts += usize::from(!is_start[frame]);
        is_start[frame] = true;
    }
    let mut token = 0;
    let place = |(frame, start)| {
        token += usize::from(start && frame > 0);
        token
    };
    is_start.into_iter().enumerate().map(place).collect()
}

/// A line of the other side.
#[derive(Debug, Deserialize)]
struct Line {
    name: String,
    peer: String,
    seconds: f64,
    path: Value,
}

/// One comparison.
#[derive(Debug, Serialize)]
struct Cell {
    problem: String,
    peer: String,
    ours_s: f64,
    theirs_s: f64,
    /// Median of the rounds' ratios.
    ratio: f64,
}

/// Compares and prints.
pub fn run(args: &Args, as_json: bool) -> anyhow::Result<()> {
    at_least_one("rounds", args.rounds)?;
    let folder = tempfile::tempdir().context("cannot make a folder for the problems")?;
    let problems = problems(folder.path())?;
    let script = folder.path().join("align.py");
    fs::write(&script, PEER).with_context(|| script.display().to_string())?;

    // Of every problem ours, and of every peer theirs, round by round.
    let mut ours: Vec<Vec<f64>> = vec![Vec::new(); problems.len()];
    let mut theirs: BTreeMap<(usize, String), Vec<f64>> = BTreeMap::new();
    let mut versions = Value::Null;
    let paths: Vec<Value> =
        problems.iter().map(|(_, problem)| problem.path()).collect::<anyhow::Result<_>>()?;
    for _ in 0..args.rounds {
        let (found, lines) = peers(&args.python, &script, folder.path())?;
        versions = found;
        for line in lines {
            let Some(i) = problems.iter().position(|(name, _)| *name == line.name) else {
                bail!("{} answers for {:?}, which was not asked", line.peer, line.name);
            };
            ensure!(line.path == paths[i], "{}: {} finds another path", line.name, line.peer);
            theirs.entry((i, line.peer)).or_default().push(line.seconds);
        }
        for ((_, problem), times) in problems.iter().zip(&mut ours) {
            times.push(problem.seconds()?);
        }
    }
    let cell = |((i, peer), times): (&(usize, String), &Vec<f64>)| Cell {
        problem: problems[*i].0.clone(),
        peer: peer.clone(),
        ours_s: median(ours[*i].clone()),
        theirs_s: median(times.clone()),
        ratio: median(times.iter().zip(&ours[*i]).map(|(theirs, ours)| theirs / ours)),
    };
    let cells: Vec<Cell> = theirs.iter().map(cell).collect();
    let hour_s = if args.hour { Some(hour()?) } else { None };
    if as_json {
        return output::print_json(&json!({
            "rounds": args.rounds, "versions": versions, "cells": cells, "hour_s": hour_s,
        }));
    }
    let mut text =
        format!("{:<22} {:<11} {:>10} {:>10} {:>8}\n", "", "", "ours ms", "theirs ms", "ratio");
    for cell in &cells {
        let Cell { problem, peer, ours_s, theirs_s, ratio } = cell;
        text += &format!(
            "{problem:<22} {peer:<11} {:>10.3} {:>10.3} {ratio:>8.1}\n",
            1e3 * ours_s,
            1e3 * theirs_s
        );
    }
    if let Some(hour_s) = hour_s {
        text += &format!("an hour, {} steps and {} characters: {hour_s:.2} s\n", HOUR[0], HOUR[1]);
    }
    text += &format!("one thread, medians of {} rounds; {versions}\n", args.rounds);
    output::print(&text)
}

/// The problems by name, in files for the other side.
fn problems(folder: &Path) -> anyhow::Result<Vec<(String, Problem)>> {
    let mut stream = Stream::named(1, "bench align");
    let (mut problems, mut listed) = (Vec::new(), Vec::new());
    let put = |name: String, bytes: Vec<u8>| {
        let path = folder.join(name);
        fs::write(&path, bytes).with_context(|| path.display().to_string())
    };
    for shape @ [n_frames, n_tokens, n_symbols] in CTC {
        let name = format!("ctc-{n_frames}x{n_tokens}x{n_symbols}");
        let problem = Problem::ctc(&mut stream, shape);
        if let Problem::Ctc { log_probs, target, .. } = &problem {
            put(format!("{name}.scores.npy"), npy::to_bytes(&[n_frames, n_symbols], log_probs))?;
            let target: Vec<i32> = target.iter().map(|&symbol| symbol as i32).collect();
            put(format!("{name}.target.npy"), npy::to_bytes(&[n_tokens], &target))?;
        }
        listed.push(json!({ "name": name, "kind": "ctc", "shape": shape }));
        problems.push((name, problem));
    }
    for shape @ [n_frames, n_tokens] in MONOTONIC {
        let name = format!("monotonic-{n_frames}x{n_tokens}");
        let problem = Problem::monotonic(&mut stream, shape);
        if let Problem::Monotonic { scores, .. } = &problem {
            put(format!("{name}.scores.npy"), npy::to_bytes(&shape, scores))?;
        }
        listed.push(json!({ "name": name, "kind": "monotonic", "shape": shape }));
        problems.push((name, problem));
    }
    put("problems.json".to_owned(), json!(listed).to_string().into_bytes())?;
    Ok(problems)
}

/// One round of the other side: what is installed, and its answers.
fn peers(python: &Path, script: &Path, folder: &Path) -> anyhow::Result<(Value, Vec<Line>)> {
    let output = Command::new(python)
        .args([script, folder])
        .env("OMP_NUM_THREADS", "1")
        .output()
        .with_context(|| format!("{}: cannot start", python.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", python.display(), said.trim());
    let text = String::from_utf8(output.stdout).context("the peers' answers are not UTF-8")?;
    let mut lines = text.lines();
    let first: Value = serde_json::from_str(lines.next().unwrap_or_default())
        .context("the peers' first line is not what is installed")?;
    let found: Vec<Line> =
        lines.map(serde_json::from_str).collect::<Result<_, _>>().context("the peers' answers")?;
    ensure!(!found.is_empty(), "{} has no peer to compare with: {}", python.display(), said.trim());
    Ok((first["versions"].clone(), found))
}

/// Seconds of an hour, once.
fn hour() -> anyhow::Result<f64> {
    let problem = Problem::ctc(&mut Stream::named(7, "bench align"), HOUR);
    let start = Instant::now();
    problem.solve()?;
    Ok(start.elapsed().as_secs_f64())
}
