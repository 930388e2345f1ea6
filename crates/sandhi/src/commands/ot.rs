//! `sandhi ot`: optimal transport for cost matrices in NumPy files, with plans and gradients.
//!
//! ```text
//! C.npy [n_rows, n_columns] ─ order prior ─ solver ──> value, marginal error, iterations, status, time
//! A.npy [n_rows]    ───────────────────────────┤├────> P.npy  the plan
//! B.npy [n_columns] ───────────────────────────┘└────> G.npy  the gradient with respect to C
//! ```
//!
//! All files are read and all problems solved before anything is written.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use sandhi_align::transport::{
    self, Batch, Exact, Gradient, Masses, Monotone, Newton, Real, SemiRelaxed, Sinkhorn, Solver,
    Status, Transport, Unbalanced,
};
use sandhi_lab::{
    checkpoint::write_atomically,
    npy::{self, Array, Values},
};
use serde::Serialize;

use crate::output;

/// Arguments of `sandhi ot`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Cost matrices, one problem each: .npy of f32 or f64, `[n_rows, n_columns]`.
    #[arg(long, required = true, num_args = 1.., value_name = "C.npy")]
    cost: Vec<PathBuf>,
    /// Masses of the rows, `[n_rows]`, a file for every cost matrix; uniform by default.
    #[arg(long, num_args = 1.., value_name = "A.npy")]
    a: Vec<PathBuf>,
    /// Masses of the columns, `[n_columns]`, a file for every cost matrix; uniform by default.
    #[arg(long, num_args = 1.., value_name = "B.npy")]
    b: Vec<PathBuf>,
    /// What is solved, and how.
    #[arg(long, value_enum, default_value = "newton")]
    solver: Kind,
    /// Weight of the entropy, in units of the cost: 0.05 by default; semi-relaxed takes 0.
    #[arg(long)]
    epsilon: Option<f64>,
    /// Weight of the columns' penalty in units of the cost, of unbalanced transport: 0.5 by default.
    #[arg(long)]
    tau: Option<f64>,
    /// Marginal error to stop at, of sinkhorn, newton and unbalanced: 1e-6 by default.
    #[arg(long)]
    tolerance: Option<f64>,
    /// Give up after so many iterations; newton then goes on with Sinkhorn's sweeps.
    #[arg(long, value_name = "N")]
    max_iterations: Option<usize>,
    /// Weight of the order prior: adds `weight * (row's place - column's place)^2` to the costs, places from 0 to 1.
    #[arg(long, value_name = "WEIGHT", default_value_t = 0.0)]
    order_weight: f64,
    /// The last column is a pad: it has no place in the order, and monotone rows may rest on it.
    #[arg(long)]
    pad: bool,
    /// Write the plan, f64 `[n_rows, n_columns]`; of several problems, into a folder under the names of the costs.
    #[arg(long, value_name = "P.npy")]
    plan: Option<PathBuf>,
    /// Write the gradient with respect to the costs, f64 `[n_rows, n_columns]`; of several problems, into a folder.
    #[arg(long, value_name = "G.npy")]
    grad: Option<PathBuf>,
    /// Of what the gradient is: envelope, of the value; implicit, of <P, C> through the plan; exact, of the linear
    /// program. Envelope by default.
    #[arg(long, value_enum, requires = "grad")]
    gradient: Option<Mode>,
    /// Exit with code 2 when a problem was not solved to its tolerance; what was found is written and printed first.
    #[arg(long)]
    strict: bool,
    /// One JSON object a problem and line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// The linear program.
    Exact,
    /// With entropy, by Sinkhorn's sweeps.
    Sinkhorn,
    /// With entropy, by Newton's method; by sweeps where its steps lead nowhere.
    Newton,
    /// Every row alone, whatever the columns then hold.
    SemiRelaxed,
    /// With a penalty on what the columns hold.
    Unbalanced,
    /// Every row to one column, in order.
    Monotone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Envelope,
    Implicit,
    Exact,
}

impl From<Mode> for Gradient {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Envelope => Self::Envelope,
            Mode::Implicit => Self::Implicit,
            Mode::Exact => Self::Exact,
        }
    }
}

/// The name of a choice on the command line.
pub(super) fn name(choice: impl ValueEnum) -> String {
    choice.to_possible_value().expect("no choice is hidden").get_name().to_owned()
}

impl Args {
    /// The solver with its settings; one that it does not have is refused.
    fn solver(&self) -> anyhow::Result<Solver> {
        let kind = self.solver;
        for (option, is_given, of) in [
            (
                "epsilon",
                self.epsilon.is_some(),
                &[Kind::Sinkhorn, Kind::Newton, Kind::SemiRelaxed, Kind::Unbalanced][..],
            ),
            ("tau", self.tau.is_some(), &[Kind::Unbalanced]),
            (
                "tolerance",
                self.tolerance.is_some(),
                &[Kind::Sinkhorn, Kind::Newton, Kind::Unbalanced],
            ),
            (
                "max-iterations",
                self.max_iterations.is_some(),
                &[Kind::Exact, Kind::Sinkhorn, Kind::Newton, Kind::Unbalanced],
            ),
        ] {
            if is_given && !of.contains(&kind) {
                let of: Vec<String> = of.iter().map(|&kind| name(kind)).collect();
                bail!(
                    "--{option} belongs to --solver {}, found --solver {}",
                    of.join(", "),
                    name(kind)
                );
            }
        }
        macro_rules! with {
            ($defaults:expr, $($field:ident),*) => {{
                let mut settings = $defaults;
                $(if let Some(value) = self.$field {
                    settings.$field = value;
                })*
                settings
            }};
        }
        Ok(match kind {
            Kind::Exact => Solver::Exact(with!(Exact::default(), max_iterations)),
            Kind::Sinkhorn => {
                Solver::Sinkhorn(with!(Sinkhorn::default(), epsilon, tolerance, max_iterations))
            }
            Kind::Newton => {
                Solver::Newton(with!(Newton::default(), epsilon, tolerance, max_iterations))
            }
            Kind::SemiRelaxed => Solver::SemiRelaxed(with!(SemiRelaxed::default(), epsilon)),
            Kind::Unbalanced => Solver::Unbalanced(with!(
                Unbalanced::default(),
                epsilon,
                tau,
                tolerance,
                max_iterations
            )),
            Kind::Monotone => Solver::Monotone(Monotone { pad: self.pad }),
        })
    }
}

/// A problem as it is read.
struct Problem {
    file: PathBuf,
    shape: [usize; 2],
    costs: Values,
    masses: [Option<Vec<f64>>; 2],
}

/// A problem's line of the output.
#[derive(Debug, Serialize)]
struct Line {
    file: String,
    shape: [usize; 2],
    solver: String,
    /// The minimum, with entropy and penalty where the solver has them.
    value: f64,
    /// `<P, C>` alone.
    cost: f64,
    marginal_error: f64,
    iterations: usize,
    status: &'static str,
    /// Seconds from the costs in memory to the plan in memory.
    seconds: f64,
    /// Seconds of the gradient, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    gradient_seconds: Option<f64>,
}

/// What becomes of a problem.
struct Solved {
    line: Line,
    is_solved: bool,
    plan: Vec<f64>,
    gradient: Option<Vec<f64>>,
}

/// Reads, solves, writes, prints.
pub fn run(args: Args) -> anyhow::Result<()> {
    let solver = args.solver()?;
    let n = args.cost.len();
    for (option, files) in [("a", &args.a), ("b", &args.b)] {
        ensure!(
            files.is_empty() || files.len() == n,
            "--{option} has {} files, --cost has {n}; expected as many",
            files.len()
        );
    }
    let plans = args.plan.as_deref().map(|out| targets("plan", out, &args.cost)).transpose()?;
    let gradients = args.grad.as_deref().map(|out| targets("grad", out, &args.cost)).transpose()?;
    refuse_overwriting(&args, plans.iter().chain(&gradients).flatten())?;
    let problems = (0..n)
        .map(|i| Problem::read(&args.cost[i], [args.a.get(i), args.b.get(i)]))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let solved = problems
        .into_iter()
        .map(|problem| match &problem.costs {
            Values::F32(costs) => problem.solve(costs.clone(), &solver, &args),
            Values::F64(costs) => problem.solve(costs.clone(), &solver, &args),
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    for (i, solved) in solved.iter().enumerate() {
        let shape = &solved.line.shape;
        if let Some(plans) = &plans {
            write_atomically(&plans[i], &npy::to_bytes(shape, &solved.plan))?;
        }
        if let (Some(paths), Some(gradient)) = (&gradients, &solved.gradient) {
            write_atomically(&paths[i], &npy::to_bytes(shape, gradient))?;
        }
    }
    for solved in &solved {
        output::print(&match args.json {
            true => serde_json::to_string(&solved.line)?,
            false => solved.line.text(),
        })?;
    }
    let unsolved: Vec<&Line> =
        solved.iter().filter(|solved| !solved.is_solved).map(|solved| &solved.line).collect();
    let Some(first) = unsolved.first() else { return Ok(()) };
    let message = format!(
        "{} of {n} problems not solved to the tolerance; {}: marginal error {:.2e} after {} iterations",
        unsolved.len(),
        first.file,
        first.marginal_error,
        first.iterations
    );
    ensure!(!args.strict, message);
    eprintln!("warning: {message}");
    Ok(())
}

/// A file for every problem: `out` itself for one, files in `out` with the names of the costs for several.
fn targets(option: &str, out: &Path, costs: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    if let [_] = costs {
        ensure!(!out.is_dir(), "--{option} {}: found a folder, expected a file", out.display());
        return Ok(vec![out.to_owned()]);
    }
    let is_file = out.exists() && !out.is_dir();
    ensure!(
        !is_file && out.extension().is_none_or(|extension| extension != "npy"),
        "--{option} {}: found a file, expected a folder: there are {} cost matrices",
        out.display(),
        costs.len()
    );
    costs
        .iter()
        .map(|cost| {
            let name = cost.file_name().with_context(|| format!("{}: no file", cost.display()))?;
            Ok(out.join(name).with_extension("npy"))
        })
        .collect()
}

/// Refuses to write one file twice, or over one that is read.
fn refuse_overwriting<'a>(
    args: &Args,
    targets: impl Iterator<Item = &'a PathBuf>,
) -> anyhow::Result<()> {
    // A file that is not there yet is known by its folder.
    let place = |path: &Path| {
        path.canonicalize().unwrap_or_else(|_| {
            let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
            match (folder, path.file_name()) {
                (Some(folder), Some(name)) => folder.join(name),
                _ => path.to_owned(),
            }
        })
    };
    let read: HashSet<PathBuf> =
        [&args.cost, &args.a, &args.b].into_iter().flatten().map(|path| place(path)).collect();
    let mut written = HashSet::new();
    for target in targets {
        let at = place(target);
        ensure!(!read.contains(&at), "{}: would be written over, and is read", target.display());
        ensure!(written.insert(at), "{}: would be written twice", target.display());
    }
    Ok(())
}

impl Problem {
    fn read(file: &Path, masses: [Option<&PathBuf>; 2]) -> anyhow::Result<Self> {
        let Array { shape, values } = npy::read(file)?;
        let [n_rows, n_columns] = shape[..] else {
            bail!("{}: found shape {shape:?}, expected [n_rows, n_columns]", file.display());
        };
        let masses_of = |path: Option<&PathBuf>, n: usize, side: &str| {
            let Some(path) = path else { return Ok(None) };
            let Array { shape, values } = npy::read(path)?;
            ensure!(
                shape == [n],
                "{}: found shape {shape:?}, expected [{n}], one mass for each of the {side} of {}",
                path.display(),
                file.display()
            );
            anyhow::Ok(Some(values.into_f64()))
        };
        let masses =
            [masses_of(masses[0], n_rows, "rows")?, masses_of(masses[1], n_columns, "columns")?];
        Ok(Self { file: file.to_owned(), shape: [n_rows, n_columns], costs: values, masses })
    }

    fn solve<T: Real>(
        &self,
        costs: Vec<T>,
        solver: &Solver,
        args: &Args,
    ) -> anyhow::Result<Solved> {
        // The command has problems in files, not in numbers.
        let named = |error: transport::Error| {
            let error = error.to_string();
            let error = error.strip_prefix("problem 0: ").unwrap_or(&error);
            anyhow::anyhow!("{}: {error}", self.file.display())
        };
        let mut costs = costs;
        let batch = Batch::one(self.shape).map_err(named)?;
        transport::add_order_prior(&mut costs, &batch, args.order_weight, args.pad)
            .map_err(named)?;
        let [a, b] = self.masses.each_ref().map(|masses| match masses {
            Some(masses) => Masses::given(masses),
            None => Masses::UNIFORM,
        });
        let start = Instant::now();
        let found = transport::solve(&costs, self.shape, a, b, solver).map_err(named)?;
        let seconds = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let gradient = match args.grad {
            None => None,
            Some(_) => {
                let mode = args.gradient.unwrap_or(Mode::Envelope).into();
                Some(transport::cost_gradient(&found, &costs, mode).map_err(named)?)
            }
        };
        let gradient_seconds = gradient.as_ref().map(|_| start.elapsed().as_secs_f64());
        let line = Line::new(self, args.solver, &found, seconds, gradient_seconds);
        let plan = if args.plan.is_some() { found.plan.to_dense() } else { vec![] };
        Ok(Solved { line, is_solved: found.status.is_solved(), plan, gradient })
    }
}

impl Line {
    fn new(
        problem: &Problem,
        solver: Kind,
        found: &Transport,
        seconds: f64,
        gradient_seconds: Option<f64>,
    ) -> Self {
        let status = match found.status {
            Status::Optimal => "optimal",
            Status::Converged => "converged",
            Status::FellBack => "fell-back",
            Status::NotConverged => "not-converged",
        };
        Self {
            file: problem.file.display().to_string(),
            shape: problem.shape,
            solver: name(solver),
            value: found.value,
            cost: found.cost,
            marginal_error: found.marginal_error,
            iterations: found.iterations,
            status,
            seconds,
            gradient_seconds,
        }
    }

    fn text(&self) -> String {
        let [n_rows, n_columns] = self.shape;
        let ms = |seconds: f64| format!("{:.3} ms", 1e3 * seconds);
        let gradient = self.gradient_seconds.map(|s| format!(", gradient {}", ms(s)));
        format!(
            "{}: {n_rows} x {n_columns}, {}: value {:.9}, cost {:.9}, marginal error {:.1e}, iterations {}, {}, {}{}",
            self.file,
            self.solver,
            self.value,
            self.cost,
            self.marginal_error,
            self.iterations,
            self.status,
            ms(self.seconds),
            gradient.unwrap_or_default()
        )
    }
}
