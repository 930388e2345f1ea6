//! The best-path recursion where units may be left out: any state, and the arcs that lead to it.
//!
//! ```text
//! target  a (b) c          arcs to c:  c itself, its blank, b               as in every target
//!                                      the blank before b, a   less b's cost, leaving b out
//! ```
//!
//! An arc leaves out all optional units between its ends, so that a path is spelled in one way only. Blanks that it
//! would pass belong to the arc's start: it rests there or not at all.

use super::{
    Error,
    units::{Unit, is_log_prob},
    viterbi::{Recursion, Window},
};

/// Optional units in a row, at most: arcs are numbered by a byte, two a unit.
const MOST_IN_A_ROW: usize = 100;

/// A way into a state.
#[derive(Debug, Clone, Copy)]
struct Arc {
    from: usize,
    cost: f64,
}

/// A target over a matrix, with all its arcs.
pub(super) struct Graph<'a> {
    log_probs: &'a [f32],
    n_symbols: usize,
    blank: usize,
    target: &'a [Unit],
    /// Arcs of all states, first those into state 0; and where each state's begin.
    arcs: Vec<Arc>,
    first_arc: Vec<usize>,
    /// Ways out after the last row, the best first among equals.
    ends: Vec<Arc>,
    past: Vec<f64>,
}

impl<'a> Graph<'a> {
    /// Over a target and blank whose symbols have columns.
    ///
    /// # Errors
    ///
    /// When too many units in a row are optional.
    pub(super) fn new(
        log_probs: &'a [f32],
        n_symbols: usize,
        target: &'a [Unit],
        blank: u32,
    ) -> Result<Self, Error> {
        let mut graph = Self {
            log_probs,
            n_symbols,
            blank: blank as usize,
            target,
            arcs: vec![],
            first_arc: vec![0],
            ends: vec![],
            past: vec![],
        };
        let mut in_a_row = 0;
        for i in 0..=target.len() {
            // The blank before unit `i`: its own, and the unit before it.
            graph.arcs.push(Arc { from: 2 * i, cost: 0.0 });
            graph
                .arcs
                .push(Arc { from: if i > 0 { 2 * i - 1 } else { graph.n_states() }, cost: 0.0 });
            graph.first_arc.push(graph.arcs.len());
            if i < target.len() {
                graph.arcs.push(Arc { from: 2 * i + 1, cost: 0.0 });
                let ways = graph.ways(i);
                graph.arcs.extend(ways);
                graph.first_arc.push(graph.arcs.len());
                in_a_row = if target[i].skip_cost().is_some() { in_a_row + 1 } else { 0 };
                if in_a_row > MOST_IN_A_ROW {
                    return Err(Error::TooManyOptional { position: i, n_most: MOST_IN_A_ROW });
                }
            }
        }
        graph.ends = graph.ways(target.len());
        Ok(graph)
    }

    fn n_states(&self) -> usize {
        2 * self.target.len() + 1
    }

    /// The ways to position `i` from blanks and units before it, and from the start, which has the number after the
    /// last state; `i` may be the end, which takes any unit before it.
    fn ways(&self, i: usize) -> Vec<Arc> {
        let mut ways = vec![];
        let mut cost = 0.0;
        let mut at = i;
        loop {
            ways.push(Arc { from: 2 * at, cost });
            if at == 0 {
                if i < self.target.len() {
                    ways.push(Arc { from: self.n_states(), cost });
                }
                return ways;
            }
            at -= 1;
            let before = &self.target[at];
            if self.target.get(i).is_none_or(|unit| before.spelling().differs(unit.spelling())) {
                ways.push(Arc { from: 2 * at + 1, cost });
            }
            match before.skip_cost() {
                Some(more) => cost += more,
                None => return ways,
            }
        }
    }
}

impl Recursion for Graph<'_> {
    type Score = f64;
    type Back = u8;

    /// The states, then the start.
    fn start(&self) -> Vec<f64> {
        let mut scores = vec![f64::NEG_INFINITY; self.n_states() + 1];
        scores[self.n_states()] = 0.0;
        scores
    }

    fn n_back(&self, n_rows: usize) -> usize {
        n_rows.saturating_mul(self.n_states())
    }

    fn advance(
        &mut self,
        window: &Window,
        scores: &mut [f64],
        back: &mut [u8],
    ) -> Result<(), Error> {
        let n_states = self.n_states();
        for frame in window.rows.clone() {
            let row = &self.log_probs[frame * self.n_symbols..][..self.n_symbols];
            self.past.clear();
            self.past.extend_from_slice(scores);
            for (state, score) in scores[..n_states].iter_mut().enumerate() {
                let arcs = &self.arcs[self.first_arc[state]..self.first_arc[state + 1]];
                let (mut best, mut way) = (f64::NEG_INFINITY, 0);
                for (number, arc) in arcs.iter().enumerate() {
                    let through = self.past[arc.from] - arc.cost;
                    if through > best {
                        (best, way) = (through, number);
                    }
                }
                let emitted = match state % 2 {
                    0 => f64::from(row[self.blank]),
                    _ => self.target[state / 2].log_prob(row),
                };
                if !is_log_prob(emitted as f32) {
                    let symbol = match self.target.get(state / 2) {
                        Some(Unit::Token(symbol) | Unit::Optional { symbol, .. })
                            if state % 2 == 1 =>
                        {
                            *symbol as usize
                        }
                        _ => self.blank,
                    };
                    return Err(Error::NotALogProb { frame, symbol, found: emitted as f32 });
                }
                *score = best + emitted;
                if !back.is_empty() {
                    let at = (frame - window.rows.start) * n_states + state;
                    back[at] = u8::try_from(way).expect("the run of optional units was checked");
                }
            }
            scores[n_states] = f64::NEG_INFINITY;
        }
        Ok(())
    }

    fn last(&self, scores: &[f64]) -> Option<usize> {
        let mut best = (f64::NEG_INFINITY, None);
        for way in &self.ends {
            let score = scores[way.from] - way.cost;
            if score > best.0 {
                best = (score, Some(way.from));
            }
        }
        best.1
    }

    fn before(&self, window: &Window, back: &[u8], row: usize, state: usize) -> usize {
        let way = back[(row - window.rows.start) * self.n_states() + state];
        self.arcs[self.first_arc[state] + usize::from(way)].from
    }
}
