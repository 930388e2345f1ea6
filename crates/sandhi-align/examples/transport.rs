//! Our side of the benchmark of optimal transport: solves the problems of a file as often as asked, for every line on
//! standard input.
//!
//! ```text
//! > PROBLEMS exact 0 20              {"seconds": […], "values": […], "marginal_error": 0, "iterations": 57, …}
//! > PROBLEMS newton 0.05 20
//! > PROBLEMS newton+implicit 0.05 20     and the gradient of the cost
//! > PROBLEMS cosine 4096 20              the costs alone, of other problems of these shapes in so many dimensions
//! ```
//!
//! A file holds the number of problems, `n_rows` and `n_columns` of each as little-endian `u32`, then all costs as `f32`.
//! In the clock: from costs in memory to plans in memory. `bench/peers/ot.py` drives it against POT.

use std::{
    io::{BufRead, Write},
    time::Instant,
};

use sandhi_align::transport::{
    self, Batch, Exact, Gradient, Masses, Metric, Newton, Sinkhorn, Solver, Status,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type AnyError = Box<dyn std::error::Error>;

fn read(path: &str) -> Result<(Batch, Vec<f32>), AnyError> {
    let bytes = std::fs::read(path)?;
    let words: Vec<[u8; 4]> =
        bytes.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]).collect();
    let number = |at: usize| words.get(at).map(|&word| u32::from_le_bytes(word) as usize);
    let n = number(0).ok_or("an empty file")?;
    let (mut rows, mut columns) = (vec![0], vec![0]);
    for problem in 0..n {
        for (offsets, at) in [(&mut rows, 1 + 2 * problem), (&mut columns, 2 + 2 * problem)] {
            offsets.push(offsets[problem] + number(at).ok_or("shapes end early")?);
        }
    }
    let costs = words
        .get(1 + 2 * n..)
        .ok_or("no costs")?
        .iter()
        .map(|&word| f32::from_le_bytes(word))
        .collect();
    Ok((Batch::new(&rows, &columns)?, costs))
}

fn cosine(batch: &Batch, width: usize, n_rounds: usize) -> Result<Vec<f64>, AnyError> {
    let [n, m, _] = batch.totals();
    let [x, y] =
        [n, m].map(|n| (0..n * width).map(|i| ((i * i) % 1009) as f32 - 500.0).collect::<Vec<_>>());
    let mut seconds = vec![];
    for _ in 0..n_rounds {
        let start = Instant::now();
        std::hint::black_box(transport::embedding_costs(Metric::Cosine, &x, &y, width, batch)?);
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(seconds)
}

fn answer(line: &str) -> Result<String, AnyError> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [path, solver, epsilon, rounds] = words[..] else {
        return Err("expected: PROBLEMS SOLVER EPSILON ROUNDS".into());
    };
    let (batch, costs) = read(path)?;
    let n_rounds: usize = rounds.parse()?;
    let epsilon: f64 = epsilon.parse()?;
    if solver == "cosine" {
        return Ok(format!("{{\"seconds\": {:?}}}", cosine(&batch, epsilon as usize, n_rounds)?));
    }
    let (solver, gradient) = match solver.strip_suffix("+implicit") {
        Some(solver) => (solver, true),
        None => (solver, false),
    };
    let solver = match solver {
        "exact" => Solver::Exact(Exact::default()),
        "sinkhorn" => Solver::Sinkhorn(Sinkhorn { epsilon, ..Sinkhorn::default() }),
        "newton" => Solver::Newton(Newton { epsilon, ..Newton::default() }),
        other => return Err(format!("no solver {other}").into()),
    };
    let mut seconds = vec![];
    let mut solved = vec![];
    for round in 0..=n_rounds {
        let start = Instant::now();
        solved = transport::solve_batch(&costs, &batch, Masses::UNIFORM, Masses::UNIFORM, &solver)?;
        if gradient {
            let mode = Gradient::Implicit;
            std::hint::black_box(transport::batch_cost_gradient(&solved, &costs, &batch, mode)?);
        }
        if round > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    let values: Vec<f64> = solved.iter().map(|found| found.cost).collect();
    let error = solved.iter().map(|found| found.marginal_error).fold(0.0, f64::max);
    let iterations: usize = solved.iter().map(|found| found.iterations).sum();
    let is_solved = solved.iter().all(|found| found.status.is_solved());
    let n_fell_back = solved.iter().filter(|found| found.status == Status::FellBack).count();
    Ok(format!(
        "{{\"seconds\": {seconds:?}, \"values\": {values:?}, \"marginal_error\": {error:e}, \
         \"iterations\": {iterations}, \"is_solved\": {is_solved}, \"fell_back\": {n_fell_back}}}"
    ))
}

fn main() -> Result<(), AnyError> {
    for line in std::io::stdin().lock().lines() {
        println!("{}", answer(&line?)?);
        std::io::stdout().flush()?;
    }
    Ok(())
}
