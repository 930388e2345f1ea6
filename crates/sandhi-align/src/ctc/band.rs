//! The best-path recursion over tokens and stars, many states at a time.
//!
//! ```text
//! scores   units   a0   a1   a2             a1' = e1 + max(a1, b1, a0 if the units differ)
//!          blanks b0   b1   b2   b3         b1' = e_blank + max(b1, a0)
//!
//! rows     0  x                             a row runs the blocks of 16 units that a path
//!          1  x x                           can be in: reachable from the start, and the
//!          2    x x                         end from them
//!          3      x x
//! ```
//!
//! Scores are single precision, relative to the best one every 64 rows, so that their rounding does not grow with
//! the length; the sum along the path is taken anew in double precision. A block leaves three bits a unit: whether
//! the unit's best path comes from elsewhere, from two states before rather than one, and whether its blank's does.

use super::{
    Error,
    units::{BEYOND, Unit, is_log_prob},
    viterbi::{Recursion, Window},
};
use crate::lanes::{LANES, in_lanes};

/// Rows from one change of the origin of scores to the next.
const ROWS_PER_SHIFT: usize = 64;

/// Bit planes of a block.
const PLANES: usize = 3;

/// A target over a matrix.
pub(super) struct Band<'a> {
    log_probs: &'a [f32],
    n_symbols: usize,
    blank: usize,
    n_units: usize,
    /// The column that each unit emits; the blank's for stars and to fill the last block, whose further units no path
    /// comes back from.
    columns: Vec<u32>,
    /// 0 where a path may come from the unit before without a blank, else `-inf`. Whole blocks.
    skips: Vec<f32>,
    /// Where stars are, and their log-probability.
    stars: Vec<(usize, f32)>,
    /// What was taken from the scores, and for how many rows it is known.
    shifts: Vec<f32>,
    n_known: usize,
}

impl<'a> Band<'a> {
    /// Over a target and blank whose symbols have columns.
    pub(super) fn new(log_probs: &'a [f32], n_symbols: usize, target: &[Unit], blank: u32) -> Self {
        // One position more than units, for the last blank.
        let n_lanes = (target.len() / LANES + 1) * LANES;
        let mut band = Self {
            log_probs,
            n_symbols,
            blank: blank as usize,
            n_units: target.len(),
            columns: vec![blank; n_lanes],
            skips: vec![f32::NEG_INFINITY; n_lanes],
            stars: vec![],
            shifts: vec![0.0; log_probs.len() / n_symbols / ROWS_PER_SHIFT],
            n_known: 0,
        };
        for (i, unit) in target.iter().enumerate() {
            if i > 0 && target[i - 1].spelling().differs(unit.spelling()) {
                band.skips[i] = 0.0;
            }
            match *unit {
                Unit::Star { cost } => band.stars.push((i, -cost)),
                Unit::Token(symbol) | Unit::Optional { symbol, .. } => band.columns[i] = symbol,
            }
        }
        band
    }

    /// The blocks that a path can be in at `row`.
    #[inline(always)]
    fn blocks(&self, window: &Window, row: usize) -> std::ops::Range<usize> {
        // A path goes on by one position a row at most, and ends in the last unit or the blank after it.
        let (last, end) = match window.end {
            Some(state) => (state / 2, window.rows.end),
            None => (self.n_units, self.log_probs.len() / self.n_symbols),
        };
        let first = last.saturating_sub(end - row);
        first / LANES..last.min(row) / LANES + 1
    }

    /// The first block of a window, and how many it has at most.
    fn frame(&self, window: &Window) -> (usize, usize) {
        let first = self.blocks(window, window.rows.start).start;
        (first, self.blocks(window, window.rows.end - 1).end - first)
    }

    /// The value of a row that is no log-probability.
    fn culprit(&self, rows: std::ops::Range<usize>) -> Error {
        let columns = || self.columns.iter().map(|&column| column as usize).chain([self.blank]);
        let value =
            |(frame, symbol): (usize, usize)| self.log_probs[frame * self.n_symbols + symbol];
        let (frame, symbol) = rows
            .flat_map(|frame| columns().map(move |symbol| (frame, symbol)))
            .find(|&at| !is_log_prob(value(at)))
            .expect("the recursion met one");
        Error::NotALogProb { frame, symbol, found: value((frame, symbol)) }
    }
}

impl Recursion for Band<'_> {
    type Score = f32;
    type Back = u16;

    /// A block of nothing, the units, the blanks.
    fn start(&self) -> Vec<f32> {
        let mut scores = vec![f32::NEG_INFINITY; LANES + 2 * self.skips.len()];
        scores[LANES + self.skips.len()] = 0.0;
        scores
    }

    fn n_back(&self, n_rows: usize) -> usize {
        // Units that a path meets in so many rows lie in one block more than they fill, at most.
        let n_blocks = (self.skips.len() / LANES).min(n_rows / LANES + 2);
        n_rows.saturating_mul(PLANES * n_blocks)
    }

    fn advance(
        &mut self,
        window: &Window,
        scores: &mut [f32],
        back: &mut [u16],
    ) -> Result<(), Error> {
        if !advance(self, window, scores, back) {
            return Err(self.culprit(window.rows.clone()));
        }
        self.n_known = self.n_known.max(window.rows.end);
        Ok(())
    }

    fn last(&self, scores: &[f32]) -> Option<usize> {
        let (units, blanks) = scores.split_at(LANES + self.skips.len());
        let blank = blanks[self.n_units];
        // The place before the first unit holds `-inf`.
        let unit = units[LANES + self.n_units - 1];
        match unit > blank {
            _ if unit.max(blank) == f32::NEG_INFINITY => None,
            true => Some(2 * self.n_units - 1),
            false => Some(2 * self.n_units),
        }
    }

    fn before(&self, window: &Window, back: &[u16], row: usize, state: usize) -> usize {
        let (first, n_blocks) = self.frame(window);
        let (block, lane) = (state / 2 / LANES, state / 2 % LANES);
        let planes = &back[PLANES * ((row - window.rows.start) * n_blocks + block - first)..];
        let bit = |plane: usize| usize::from(planes[plane] >> lane & 1);
        match state % 2 {
            1 => state - bit(0) * (1 + bit(1)),
            _ => state - bit(2),
        }
    }
}

/// Rows of at most so many symbols are looked up in registers.
const MOST_IN_REGISTERS: usize = 2 * LANES;

in_lanes! {
    /// Runs the rows of a window; false when a value that it met is NaN or too large.
    fn advance<V>(band: &mut Band<'_>, window: &Window, scores: &mut [f32], back: &mut [u16]) -> bool {
        let n_symbols = band.n_symbols;
        let (first_block, n_blocks) = band.frame(window);
        let (units, blanks) = scores.split_at_mut(LANES + band.skips.len());
        let beyond = V::splat(BEYOND);
        let mut sound = u16::MAX;
        for row_idx in window.rows.clone() {
            let row = &band.log_probs[row_idx * n_symbols..][..n_symbols];
            let blocks = band.blocks(window, row_idx);
            let is_small = n_symbols <= MOST_IN_REGISTERS;
            let mut table = [V::splat(0.0); 2];
            if is_small {
                let mut copy = [0.0; MOST_IN_REGISTERS];
                copy[..n_symbols].copy_from_slice(row);
                table = [V::load(&copy), V::load(&copy[LANES..])];
            }
            let mut stars = &band.stars[..];
            if !stars.is_empty() {
                stars = &stars[..stars.partition_point(|&(at, _)| at < blocks.end * LANES)];
            }
            let of_blank = V::splat(row[band.blank]);
            sound &= beyond.above(of_blank);
            // From the last block to the first, so that what lies before is still that of the row before.
            let mut stay = V::load(&units[blocks.end * LANES..]);
            for block in blocks.clone().rev() {
                let at = block * LANES;
                let columns = &band.columns[at..at + LANES];
                let mut emitted = if is_small {
                    V::look_up(table, columns)
                } else {
                    // SAFETY: `check_units` has held every symbol against the width of a row.
                    unsafe { V::pick(row, columns) }
                };
                if stars.last().is_some_and(|&(star, _)| star >= at) {
                    let mut values = [0.0; LANES];
                    emitted.store(&mut values);
                    while let Some((&(star, log_prob), others)) = stars.split_last()
                        && star >= at
                    {
                        values[star - at] = log_prob;
                        stars = others;
                    }
                    emitted = V::load(&values);
                }
                let below = V::load(&units[at..]);
                let before = stay.behind(below);
                let rest = V::load(&blanks[at..]);
                let skip = before.plus(V::load(&band.skips[at..]));
                let moved = skip.max(rest);
                emitted.plus(moved.max(stay)).store(&mut units[LANES + at..]);
                of_blank.plus(before.max(rest)).store(&mut blanks[at..]);
                sound &= beyond.above(emitted);
                if !back.is_empty() {
                    let row = row_idx - window.rows.start;
                    let planes = &mut back[PLANES * (row * n_blocks + block - first_block)..][..PLANES];
                    planes[0] = moved.above(stay);
                    planes[1] = skip.above(rest);
                    planes[2] = before.above(rest);
                }
                stay = below;
            }
            if (row_idx + 1).is_multiple_of(ROWS_PER_SHIFT) {
                let range = blocks.start * LANES..blocks.end * LANES;
                let units = &mut units[LANES..][range.clone()];
                let blanks = &mut blanks[range];
                let shift = &mut band.shifts[row_idx / ROWS_PER_SHIFT];
                if row_idx >= band.n_known {
                    let most = |values: &[f32]| values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let best = most(units).max(most(blanks));
                    *shift = if best == f32::NEG_INFINITY { 0.0 } else { best };
                }
                units.iter_mut().chain(blanks).for_each(|value| *value -= *shift);
            }
        }
        sound == u16::MAX
    }
}
