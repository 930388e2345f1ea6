//! `sandhi bench ot`: our optimal transport against what people use in Python, on the same problems in the same run.
//!
//! ```text
//! problems ─┬─ file ──> bench/peers/ot.py: POT, geomloss, unrolled PyTorch ─┐ the fastest of theirs and the fastest
//!           └─────────> sandhi_align::transport, f32 ───────────────────────┘ of ours that reach the tolerance
//! round     theirs, ours, theirs, ours, …                     medians, and the median of the rounds' ratios
//! ```
//!
//! Costs are cosines. In `random` problems rows and columns know nothing of each other; in `speech` ones rows are noisy
//! columns in order, as trained speech vectors are, which makes entropic problems hard. In the clock: from costs in
//! memory to plans in memory, or on to the gradient.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, bail, ensure};
use rayon::{ThreadPool, ThreadPoolBuilder};
use sandhi_align::transport::{
    self, Batch, Exact, Gradient, Masses, Metric, Newton, Sinkhorn, Solver, Transport,
};
use sandhi_data::rng::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::median;
use crate::output;

/// The other side, carried in the program so that it fits.
const PEER: &str = include_str!("../../../../../bench/peers/ot.py");

/// Arguments of `sandhi bench ot`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A Python with numpy, pot, torch and, if it is to be compared, geomloss.
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    python: PathBuf,
    /// Rounds of both sides in turn.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Threads of both sides; 0 for all there are. Several numbers: everything with each of them.
    #[arg(long, num_args = 1.., value_name = "N", default_values_t = [1, 0])]
    threads: Vec<usize>,
    /// Only these comparisons; all by default.
    #[arg(long, num_args = 1.., value_enum)]
    only: Vec<What>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
enum What {
    /// The linear program, against POT's `emd`.
    Exact,
    /// Transport with entropy, against POT's Sinkhorns.
    Entropic,
    /// A ragged batch, against POT's `batch`.
    Batch,
    /// A ragged batch, against geomloss.
    Geomloss,
    /// The gradient through the plan, against automatic differentiation of unrolled sweeps in the log domain.
    Gradient,
    /// The same, against sweeps of the kernel `exp(-C / ε)`, which vanishes for small ε.
    KernelGradient,
}

impl What {
    const ALL: [Self; 6] = [
        Self::Exact,
        Self::Entropic,
        Self::Batch,
        Self::Geomloss,
        Self::Gradient,
        Self::KernelGradient,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Entropic => "entropic",
            Self::Batch => "batch",
            Self::Geomloss => "geomloss",
            Self::Gradient => "gradient",
            Self::KernelGradient => "kernel-gradient",
        }
    }

    /// The weights of the entropy at which a problem is solved.
    fn epsilons(self) -> &'static [f64] {
        match self {
            Self::Exact => &[0.0],
            Self::Entropic => &[0.05, 0.01],
            _ => &[0.05],
        }
    }

    /// What the geometric mean and the least of the ratios should be.
    fn aims(self) -> [f64; 2] {
        match self {
            Self::Exact => [3.0, 3.0],
            Self::Entropic => [10.0, 2.0],
            Self::Batch | Self::Geomloss => [50.0, 50.0],
            Self::Gradient | Self::KernelGradient => [20.0, 20.0],
        }
    }
}

/// The marginal error that both sides reach; [`Newton`] and [`Sinkhorn`] have it as default.
const TOLERANCE: f64 = 1e-6;

/// Values of linear programs agree within this.
const SAME_EXACT: f64 = 1e-9;

/// Costs of plans with entropy agree within this, where both sides reach the tolerance.
const SAME_ENTROPIC: f64 = 1e-5;

/// One comparison.
#[derive(Debug, Serialize)]
struct Cell {
    what: What,
    problems: String,
    threads: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    epsilon: Option<f64>,
    /// The fastest of theirs that reaches the tolerance; the nearest to it, where none does.
    theirs: String,
    their_seconds: f64,
    their_error: f64,
    /// The fastest of ours.
    ours: &'static str,
    our_seconds: f64,
    our_error: f64,
    /// The largest difference of the costs of plans.
    difference: f64,
    /// Median of their seconds over ours in the same round.
    ratio: f64,
}

/// The ratios of one kind of comparison.
#[derive(Debug, Serialize)]
struct Summary {
    what: What,
    threads: usize,
    cells: usize,
    geometric_mean: f64,
    least: f64,
    aim_geometric_mean: f64,
    aim_least: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    versions: Value,
    sandhi: &'static str,
    rounds: usize,
    /// Load averages of the machine before and after, where it tells them.
    load: [Option<String>; 2],
    cells: Vec<Cell>,
    summary: Vec<Summary>,
}

/// Compares and prints.
pub(super) fn run(args: &Args, json: bool) -> anyhow::Result<()> {
    super::at_least_one("rounds", args.rounds)?;
    let before = load();
    let scratch = tempfile::tempdir().context("cannot make a folder for the problems")?;
    let script = scratch.path().join("peer.py");
    std::fs::write(&script, PEER).with_context(|| script.display().to_string())?;
    let problems = Problems::all(scratch.path())?;
    let all = std::thread::available_parallelism()?.get();
    let mut threads: Vec<usize> =
        args.threads.iter().map(|&n| if n == 0 { all } else { n }).collect();
    threads.dedup();
    let mut cells = vec![];
    let mut versions = Value::Null;
    for &threads in &threads {
        let mut peer = Peer::start(&args.python, &script, threads)?;
        versions = peer.ask(&json!({ "do": "versions" }))?;
        let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;
        for problems in &problems {
            peer.ask::<Value>(&json!({ "do": "load", "path": problems.file }))?;
            for what in What::ALL {
                let is_wanted = args.only.is_empty() || args.only.contains(&what);
                let is_there = what != What::Geomloss || !versions["geomloss"].is_null();
                if !is_wanted || !is_there || !problems.takes(what) {
                    continue;
                }
                for &epsilon in what.epsilons() {
                    let cell = compare(&mut peer, &pool, problems, what, epsilon, args.rounds)?;
                    eprintln!("{}", cell.text());
                    cells.push(cell);
                }
            }
        }
    }
    let summary = summaries(&cells, &threads);
    let sandhi = env!("CARGO_PKG_VERSION");
    let load = [before, load()];
    let report = Report { versions, sandhi, rounds: args.rounds, load, cells, summary };
    if json { output::print_json(&report) } else { output::print(&report.text()) }
}

/// Cost matrices in memory, and in a file for the other side.
struct Problems {
    name: String,
    batch: Batch,
    costs: Vec<f32>,
    file: PathBuf,
}

impl Problems {
    fn all(dir: &Path) -> anyhow::Result<Vec<Self>> {
        /// Dimensions of the vectors whose cosines are costs.
        const WIDTH: usize = 64;
        let mut found = vec![];
        for kind in ["random", "speech"] {
            let mut rng = Stream::named(1, &format!("bench ot {kind}"));
            let ragged = (0..32).map(|_| [40 + rng.below(361), 5 + rng.below(56)]).collect();
            for (name, shapes) in [
                ("50x8", vec![[50, 8]]),
                ("150x25", vec![[150, 25]]),
                ("400x60", vec![[400, 60]]),
                ("ragged", ragged),
            ] {
                let name = format!("{kind} {name}");
                let (mut rows, mut columns) = (vec![0], vec![0]);
                let (mut x, mut y) = (vec![], vec![]);
                for (i, &[n, m]) in shapes.iter().enumerate() {
                    rows.push(rows[i] + n);
                    columns.push(columns[i] + m);
                    let of_y: Vec<f32> = (0..m * WIDTH).map(|_| rng.normal() as f32).collect();
                    let mut of_x: Vec<f32> = (0..n * WIDTH).map(|_| rng.normal() as f32).collect();
                    if kind == "speech" {
                        let mut tokens: Vec<usize> = (0..n).map(|_| rng.below(m)).collect();
                        tokens.sort_unstable();
                        for (row, token) in of_x.chunks_exact_mut(WIDTH).zip(tokens) {
                            let token = &of_y[token * WIDTH..(token + 1) * WIDTH];
                            row.iter_mut().zip(token).for_each(|(x, y)| *x += y);
                        }
                    }
                    x.extend(of_x);
                    y.extend(of_y);
                }
                let batch = Batch::new(&rows, &columns)?;
                let costs = transport::embedding_costs(Metric::Cosine, &x, &y, WIDTH, &batch)?;
                let mut bytes = (shapes.len() as u32).to_le_bytes().to_vec();
                for &size in shapes.as_flattened() {
                    bytes.extend((size as u32).to_le_bytes());
                }
                bytes.extend(costs.iter().flat_map(|cost| cost.to_le_bytes()));
                let file = dir.join(name.replace(' ', "_"));
                std::fs::write(&file, bytes).with_context(|| file.display().to_string())?;
                found.push(Self { name, batch, costs, file });
            }
        }
        Ok(found)
    }

    /// Batches are for those who batch.
    fn takes(&self, what: What) -> bool {
        !matches!(what, What::Batch | What::Geomloss) || self.batch.len() > 1
    }

    fn solve(&self, solver: &Solver, with_gradient: bool) -> anyhow::Result<Vec<Transport>> {
        let [a, b] = [Masses::UNIFORM; 2];
        let found = transport::solve_batch(&self.costs, &self.batch, a, b, solver)?;
        if with_gradient {
            let mode = Gradient::Implicit;
            let gradient = transport::batch_cost_gradient(&found, &self.costs, &self.batch, mode)?;
            std::hint::black_box(gradient);
        }
        Ok(found)
    }
}

/// What the other side has made ready.
#[derive(Debug, Deserialize)]
struct Ready {
    name: Option<String>,
    #[serde(default)]
    seconds: f64,
    #[serde(default)]
    marginal_error: f64,
    #[serde(default)]
    values: Vec<f64>,
}

fn compare(
    peer: &mut Peer,
    pool: &ThreadPool,
    problems: &Problems,
    what: What,
    epsilon: f64,
    rounds: usize,
) -> anyhow::Result<Cell> {
    /// Both sides work for about so long a round, if one go is shorter, and at most this often.
    const ROUND_S: f64 = 0.05;
    const MOST_REPEATS: f64 = 100.0;
    /// What takes the other side longer than this in all rounds is timed in three.
    const SLOW_S: f64 = 10.0;
    let asked = json!({ "do": "prepare", "what": what.name(), "epsilon": epsilon });
    let ready: Ready = peer.ask(&asked)?;
    let Some(theirs) = ready.name else {
        bail!("{}, {}: none of the other side's ways gives a plan", problems.name, what.name());
    };
    let repeats = (ROUND_S / ready.seconds).clamp(1.0, MOST_REPEATS) as usize;
    let with_gradient = matches!(what, What::Gradient | What::KernelGradient);
    let time = |solver: &Solver| {
        pool.install(|| {
            let start = Instant::now();
            for _ in 0..repeats {
                std::hint::black_box(problems.solve(solver, with_gradient)?);
            }
            anyhow::Ok(start.elapsed().as_secs_f64() / repeats as f64)
        })
    };
    let candidates = match what {
        What::Exact => vec![("exact", Solver::Exact(Exact::default()))],
        _ => vec![
            ("newton", Solver::Newton(Newton { epsilon, ..Newton::default() })),
            ("sinkhorn", Solver::Sinkhorn(Sinkhorn { epsilon, ..Sinkhorn::default() })),
        ],
    };
    let mut best = (f64::INFINITY, candidates[0]);
    for candidate in candidates {
        time(&candidate.1)?;
        let seconds = time(&candidate.1)?.min(time(&candidate.1)?);
        if seconds < best.0 {
            best = (seconds, candidate);
        }
    }
    let (ours, solver) = best.1;
    let found = problems.solve(&solver, false)?;
    let our_error = found.iter().map(|found| found.marginal_error).fold(0.0, f64::max);
    let is_solved = found.iter().all(|found| found.status.is_solved());
    ensure!(
        is_solved && our_error <= 1.01 * TOLERANCE,
        "{}, {ours}: marginal error {our_error:.2e}, expected at most {TOLERANCE:e}",
        problems.name
    );
    let difference = found
        .iter()
        .zip(&ready.values)
        .map(|(ours, theirs)| (ours.cost - theirs).abs())
        .fold(0.0, f64::max);
    let same = if what == What::Exact { SAME_EXACT } else { SAME_ENTROPIC };
    ensure!(
        found.len() == ready.values.len()
            && (difference <= same || ready.marginal_error > TOLERANCE),
        "{}, {ours} against {theirs}: costs differ by {difference:.2e}, expected at most {same:e}",
        problems.name
    );
    let is_slow = ready.seconds * rounds as f64 > SLOW_S;
    let mut pairs = vec![];
    for _ in 0..if is_slow { rounds.min(3) } else { rounds } {
        let run: Value = peer.ask(&json!({ "do": "run", "repeats": repeats }))?;
        let theirs = run["seconds"].as_f64().context("the other side gave no time")?;
        pairs.push((theirs, time(&solver)?));
    }
    Ok(Cell {
        what,
        problems: problems.name.clone(),
        threads: pool.current_num_threads(),
        epsilon: (epsilon > 0.0).then_some(epsilon),
        theirs,
        their_seconds: median(pairs.iter().map(|pair| pair.0)),
        their_error: ready.marginal_error,
        ours,
        our_seconds: median(pairs.iter().map(|pair| pair.1)),
        our_error,
        difference,
        ratio: median(pairs.iter().map(|pair| pair.0 / pair.1)),
    })
}

fn summaries(cells: &[Cell], threads: &[usize]) -> Vec<Summary> {
    let mut found = vec![];
    for &threads in threads {
        for what in What::ALL {
            let ratios: Vec<f64> = cells
                .iter()
                .filter(|cell| cell.what == what && cell.threads == threads)
                .map(|cell| cell.ratio)
                .collect();
            if ratios.is_empty() {
                continue;
            }
            let logs: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
            let [aim_geometric_mean, aim_least] = what.aims();
            found.push(Summary {
                what,
                threads,
                cells: ratios.len(),
                geometric_mean: (logs / ratios.len() as f64).exp(),
                least: ratios.iter().copied().fold(f64::INFINITY, f64::min),
                aim_geometric_mean,
                aim_least,
            });
        }
    }
    found
}

impl Cell {
    /// A row of the table.
    fn text(&self) -> String {
        let epsilon = self.epsilon.map_or("-".into(), |epsilon| epsilon.to_string());
        let falls_short = match self.their_error > TOLERANCE {
            true => format!(" (error {:.0e})", self.their_error),
            false => String::new(),
        };
        format!(
            "| {} | {} | {epsilon} | {} | {}{falls_short} | {:.3} | {} | {:.4} | {:.1} |",
            self.what.name(),
            self.problems,
            self.threads,
            self.theirs,
            1e3 * self.their_seconds,
            self.ours,
            1e3 * self.our_seconds,
            self.ratio
        )
    }
}

impl Report {
    fn text(&self) -> String {
        let mut lines = vec![
            format!("sandhi {}, {}, load {:?}", self.sandhi, self.versions, self.load),
            "| what | problems | ε | threads | theirs | ms | ours | ms | ratio |".into(),
            "|---|---|---|---|---|---|---|---|---|".into(),
        ];
        lines.extend(self.cells.iter().map(Cell::text));
        for s in &self.summary {
            lines.push(format!(
                "{}, {} thread{}: geometric mean {:.1} (aim {}), least {:.1} (aim {}), {} cells",
                s.what.name(),
                s.threads,
                if s.threads == 1 { "" } else { "s" },
                s.geometric_mean,
                s.aim_geometric_mean,
                s.least,
                s.aim_least,
                s.cells
            ));
        }
        lines.join("\n")
    }
}

/// Load averages, on Linux.
fn load() -> Option<String> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    Some(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// The other side, one JSON object a line each way.
pub(super) struct Peer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    pub(super) fn start(python: &Path, script: &Path, threads: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(python);
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"] {
            command.env(name, threads.to_string());
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("--python {}: cannot start", python.display()))?;
        let stdin = child.stdin.take().expect("it was asked for");
        let stdout = BufReader::new(child.stdout.take().expect("it was asked for"));
        Ok(Self { child, stdin, stdout })
    }

    pub(super) fn ask<T: for<'a> Deserialize<'a>>(
        &mut self,
        question: &Value,
    ) -> anyhow::Result<T> {
        let ended = || format!("the other side ended at {question}; it says above why");
        // Whether it is still there shows in what it answers.
        let _ = writeln!(self.stdin, "{question}");
        let mut answer = String::new();
        let n = self.stdout.read_line(&mut answer).with_context(ended)?;
        ensure!(n > 0, ended());
        serde_json::from_str(&answer).with_context(|| format!("the other side answered {answer:?}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
