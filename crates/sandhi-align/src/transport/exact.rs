//! The linear program, solved exactly by successive shortest paths over the shorter side.
//!
//! ```text
//! 1. every frame goes to its cheapest token          |aaaa|aa|a|        wanted  |aa|bb|ccc|
//! 2. tokens are nodes; j -> k costs what the         a ──.1──> b ──.2──> c
//!    frame of j that moves most cheaply to k pays    └────────.4───────> c
//! 3. from tokens with too much along the cheapest paths to those with too little: move, repeat
//! ```
//!
//! This is the primal-dual method for transportation problems (Ford and Fulkerson 1956; reduced costs after Edmonds and
//! Karp 1972, so that Dijkstra's algorithm applies), on a graph that has only as many nodes as the shorter side, as in
//! "semi-assignment" problems (Kennington and Wang 1992). With 5 to 80 tokens and hundreds of frames a search is a few
//! thousand operations. Masses are whole numbers (see `masses`), so that the search ends without a tolerance.
//!
//! A plan has `n + m - 1` entries at most, unless equal costs tie; the duals certify it.

use super::{
    Duals, Plan, Status, Transport, masses,
    simd::{LANES, lanes, lanes_mut, vectorized},
    table::{Layout, Problem, Table},
};

/// Settings of the exact solver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exact {
    /// Stop after so many augmenting paths. There are seldom more than rows and columns together.
    pub max_iterations: usize,
}

impl Default for Exact {
    fn default() -> Self {
        Self { max_iterations: 1_000_000 }
    }
}

/// Mass of a line of the long side at a line of the short one.
#[derive(Debug, Clone, Copy)]
struct Share {
    line: u32,
    units: i64,
}

/// What a thread keeps for the next problem.
#[derive(Debug, Default)]
pub(super) struct Space {
    of_rows: Vec<i64>,
    of_columns: Vec<i64>,
    supply: Vec<i64>,
    demand: Vec<i64>,
    /// Which lines of the long side are at each line of the short one, and with how much.
    at: Vec<Vec<Share>>,
    /// How much more than its demand each has.
    excess: Vec<i64>,
    g: Vec<f64>,
    /// `[m, stride]`: the cheapest move from `j` to `k`, and the line that makes it.
    moves: Vec<f64>,
    movers: Vec<u64>,
    distance: Vec<f64>,
    open: Vec<f64>,
    parent: Vec<u64>,
    /// Lines with too little in the order in which the search reached them.
    sinks: Vec<u32>,
    path: Vec<u32>,
    is_touched: Vec<bool>,
}

impl Exact {
    pub(super) fn solve<T: Copy + Into<f64>>(
        &self,
        problem: &Problem<'_, T>,
        table: &mut Table,
        space: &mut Space,
    ) -> Transport {
        table.fill(problem, Layout::ByLong);
        let Problem { rows, columns, .. } = problem;
        let sum = masses::units(rows, columns, &mut space.of_rows, &mut space.of_columns);
        space.begin(table);
        let mut iterations = 0;
        while iterations < self.max_iterations && space.excess.iter().any(|&excess| excess > 0) {
            space.search(table);
            for at in 0..space.sinks.len() {
                if iterations < self.max_iterations
                    && space.augment(table, space.sinks[at] as usize)
                {
                    iterations += 1;
                }
            }
            for j in 0..table.m {
                if std::mem::take(&mut space.is_touched[j]) {
                    space.renew(table, j);
                }
            }
        }
        let balanced = space.excess.iter().all(|&excess| excess == 0);
        space.finish(table, problem, sum, iterations, balanced)
    }
}

impl Space {
    /// Every line of the long side goes where it is cheapest.
    fn begin(&mut self, table: &Table) {
        let [n, m, stride] = [table.n, table.m, table.stride];
        let (of_long, of_short) = match table.swapped {
            false => (&self.of_rows, &self.of_columns),
            true => (&self.of_columns, &self.of_rows),
        };
        self.supply.clear();
        self.supply.extend(table.long.iter().map(|&i| of_long[i as usize]));
        self.demand.clear();
        self.demand.extend(table.short.iter().map(|&j| of_short[j as usize]));
        self.at.iter_mut().for_each(Vec::clear);
        self.at.resize_with(self.at.len().max(m), Vec::new);
        self.excess.clear();
        self.excess.extend(self.demand.iter().map(|demand| -demand));
        for list in [&mut self.g, &mut self.distance, &mut self.open] {
            list.clear();
            list.resize(stride, 0.0);
        }
        self.parent.clear();
        self.parent.resize(stride, 0);
        self.sinks.clear();
        self.sinks.reserve(m);
        self.is_touched.clear();
        self.is_touched.resize(m, false);
        self.moves.clear();
        self.moves.resize(m * stride, f64::INFINITY);
        self.movers.clear();
        self.movers.resize(m * stride, 0);
        for i in 0..n {
            let units = self.supply[i];
            if units > 0 {
                let j = cheapest(&table.costs[i * stride..(i + 1) * stride]);
                self.at[j].push(Share { line: i as u32, units });
                self.excess[j] += units;
            }
        }
        (0..m).for_each(|j| self.renew(table, j));
    }

    /// The cheapest moves from `j`, by those that are there now.
    fn renew(&mut self, table: &Table, j: usize) {
        let stride = table.stride;
        let range = j * stride..(j + 1) * stride;
        let (moves, movers) = (&mut self.moves[range.clone()], &mut self.movers[range]);
        offer(&self.at[j], &table.costs, stride, j, moves, movers);
    }

    /// Dijkstra's algorithm from all lines with too much to all with too little; adjusts the potentials so that the
    /// paths, and whatever was tight before, cost nothing.
    fn search(&mut self, table: &Table) {
        let [m, stride] = [table.m, table.stride];
        self.distance.fill(f64::INFINITY);
        for j in 0..m {
            if self.excess[j] > 0 {
                self.distance[j] = 0.0;
                self.parent[j] = j as u64;
            }
        }
        self.open.copy_from_slice(&self.distance);
        let length = walk(
            stride,
            &self.moves,
            &self.g,
            &self.excess,
            &mut self.distance,
            &mut self.open,
            &mut self.parent,
            &mut self.sinks,
        );
        for (g, &distance) in self.g[..m].iter_mut().zip(&self.distance) {
            if distance < length {
                *g += distance - length;
            }
        }
    }

    /// Moves as much as the path to `sink` allows. Nothing, and false, where paths before have used up what this one
    /// needs; the first path of a search is always whole.
    fn augment(&mut self, table: &Table, sink: usize) -> bool {
        let stride = table.stride;
        self.path.clear();
        self.path.push(sink as u32);
        let mut units = -self.excess[sink];
        let mut k = sink;
        loop {
            let j = self.parent[k] as usize;
            if j == k {
                units = units.min(self.excess[k]);
                break;
            }
            let line = self.movers[j * stride + k] as u32;
            match self.at[j].iter().find(|share| share.line == line) {
                Some(share) => units = units.min(share.units),
                None => return false,
            }
            self.path.push(j as u32);
            k = j;
        }
        if units <= 0 {
            return false;
        }
        self.excess[sink] += units;
        self.excess[k] -= units;
        self.is_touched[sink] = true;
        for at in 1..self.path.len() {
            let [k, j] = [self.path[at - 1] as usize, self.path[at] as usize];
            self.is_touched[j] = true;
            let line = self.movers[j * stride + k] as u32;
            let here = &mut self.at[j];
            let position = here.iter().position(|share| share.line == line);
            let position = position.expect("the mover was found on the way here");
            here[position].units -= units;
            if here[position].units == 0 {
                here.swap_remove(position);
            }
            let there = &mut self.at[k];
            match there.iter_mut().find(|share| share.line == line) {
                Some(share) => share.units += units,
                None => there.push(Share { line, units }),
            }
        }
        true
    }

    fn finish<T: Copy + Into<f64>>(
        &self,
        table: &Table,
        problem: &Problem<'_, T>,
        sum: i64,
        iterations: usize,
        balanced: bool,
    ) -> Transport {
        let [n_rows, n_columns] = problem.shape();
        let unit = problem.rows.total / sum as f64;
        let mut entries = Vec::with_capacity(table.n + table.m);
        for (j, shares) in self.at[..table.m].iter().enumerate() {
            for share in shares {
                let (row, column) = table.cell(share.line as usize, j);
                entries.push((row, column, share.units as f64 * unit));
            }
        }
        let plan = Plan::sparse(n_rows, n_columns, entries);
        let at = |row: usize, column: usize| problem.cost(row, column);
        let cost = plan.iter().map(|(row, column, mass)| mass * at(row, column)).sum();
        let left: i64 = self.excess.iter().map(|excess| excess.abs()).sum();
        Transport {
            value: cost,
            cost,
            plan,
            duals: Some(self.duals(table, at, [n_rows, n_columns])),
            marginal_error: left as f64 / sum as f64,
            iterations,
            status: if balanced { Status::Optimal } else { Status::NotConverged },
            smoothing: None,
        }
    }

    /// Potentials of all lines, also of those without mass: as high as the costs allow.
    fn duals(
        &self,
        table: &Table,
        at: impl Fn(usize, usize) -> f64,
        [n_rows, n_columns]: [usize; 2],
    ) -> Duals {
        let [long_size, short_size] =
            if table.swapped { [n_columns, n_rows] } else { [n_rows, n_columns] };
        let cost = |i: usize, j: usize| if table.swapped { at(j, i) } else { at(i, j) };
        let mut short = vec![f64::INFINITY; short_size];
        for (j, &line) in table.short.iter().enumerate() {
            short[line as usize] = self.g[j];
        }
        let long: Vec<f64> = (0..long_size)
            .map(|i| {
                let least = |low: f64, &j: &u32| low.min(cost(i, j as usize) - short[j as usize]);
                table.short.iter().fold(f64::INFINITY, least)
            })
            .collect();
        for (j, g) in short.iter_mut().enumerate().filter(|(_, g)| g.is_infinite()) {
            *g = (0..long_size).fold(f64::INFINITY, |low, i| low.min(cost(i, j) - long[i]));
        }
        if table.swapped { Duals { f: short, g: long } } else { Duals { f: long, g: short } }
    }
}

vectorized! {
    /// Where the least value is, the first of equals.
    fn cheapest(values: &[f64]) -> usize {
        let _ = (FMA, WIDTH);
        first_least(values, least(values))
    }
}

#[inline(always)]
fn least(values: &[f64]) -> f64 {
    let mut least = [f64::INFINITY; LANES];
    for block in values.chunks_exact(LANES) {
        lower(&mut least, lanes::<LANES>(block));
    }
    lowest(least)
}

#[inline(always)]
fn lower(least: &mut [f64; LANES], block: &[f64; LANES]) {
    for l in 0..LANES {
        least[l] = if block[l] < least[l] { block[l] } else { least[l] };
    }
}

/// The least of all lanes.
#[inline(always)]
fn lowest(mut least: [f64; LANES]) -> f64 {
    let mut n = LANES;
    while n > 1 {
        n /= 2;
        for l in 0..n {
            least[l] = if least[l + n] < least[l] { least[l + n] } else { least[l] };
        }
    }
    least[0]
}

#[inline(always)]
fn first_least(values: &[f64], least: f64) -> usize {
    for (block, values) in values.chunks_exact(LANES).enumerate() {
        let values = lanes::<LANES>(values);
        if values.iter().fold(false, |any, &value| any | (value == least)) {
            let at = values.iter().position(|&value| value == least);
            return block * LANES + at.unwrap_or(0);
        }
    }
    0
}

vectorized! {
    /// The cheapest move from `j` to every other, of the lines that are there.
    fn offer(
        here: &[Share],
        costs: &[f64],
        stride: usize,
        j: usize,
        moves: &mut [f64],
        movers: &mut [u64],
    ) {
        let _ = (FMA, WIDTH);
        for at in (0..stride).step_by(LANES) {
            let mut best = [f64::INFINITY; LANES];
            let mut by = [0_u64; LANES];
            for share in here {
                let line = u64::from(share.line);
                let row = &costs[share.line as usize * stride..][..stride];
                let (base, row) = (row[j], lanes::<LANES>(&row[at..]));
                for l in 0..LANES {
                    let step = row[l] - base;
                    let is_better = step < best[l];
                    best[l] = if is_better { step } else { best[l] };
                    by[l] = if is_better { line } else { by[l] };
                }
            }
            moves[at..at + LANES].copy_from_slice(&best);
            movers[at..at + LANES].copy_from_slice(&by);
        }
    }
}

vectorized! {
    /// Dijkstra's algorithm from the lines at distance 0, until all lines with a negative excess are among the `sinks`;
    /// how far the last of them is. Lines that are done are at infinity in `open`.
    fn walk(
        stride: usize,
        moves: &[f64],
        g: &[f64],
        excess: &[i64],
        distance: &mut [f64],
        open: &mut [f64],
        parent: &mut [u64],
        sinks: &mut Vec<u32>,
    ) -> f64 {
        let _ = (FMA, WIDTH);
        let (g, distance, open, parent) =
            (&g[..stride], &mut distance[..stride], &mut open[..stride], &mut parent[..stride]);
        let mut n_left = excess.iter().filter(|&&excess| excess < 0).count();
        sinks.clear();
        let mut length = least(open);
        loop {
            let j = first_least(open, length);
            if excess[j] < 0 {
                sinks.push(j as u32);
                n_left -= 1;
                if n_left == 0 {
                    return length;
                }
            }
            open[j] = f64::INFINITY;
            let start = g[j];
            let moves = &moves[j * stride..(j + 1) * stride];
            let mut next = [f64::INFINITY; LANES];
            for at in (0..stride).step_by(LANES) {
                let (moves, g) = (lanes::<LANES>(&moves[at..]), lanes::<LANES>(&g[at..]));
                let distance = lanes_mut::<LANES>(&mut distance[at..]);
                let open = lanes_mut::<LANES>(&mut open[at..]);
                let parent = &mut parent[at..at + LANES];
                for l in 0..LANES {
                    let step = moves[l] + (start - g[l]);
                    // Rounding may leave a tight step a little below zero.
                    let by_way = length + if step > 0.0 { step } else { 0.0 };
                    let is_better = by_way < distance[l];
                    distance[l] = if is_better { by_way } else { distance[l] };
                    open[l] = if is_better { by_way } else { open[l] };
                    parent[l] = if is_better { j as u64 } else { parent[l] };
                }
                lower(&mut next, open);
            }
            length = lowest(next);
        }
    }
}
