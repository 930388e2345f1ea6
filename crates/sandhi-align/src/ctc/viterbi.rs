//! Forced alignment: the steps of each unit of a known target, in memory that has a bound.
//!
//! ```text
//! rows  0 ......... K ......... 2K ........ 3K ..... T     forward: keep the scores before rows 0, K, 2K, …
//!       |           |            |            |<--- again  backward: run the last block again with back-pointers,
//!       |           |            |<-- again --|            read its path, then the block before
//!                                                          a block's path cannot leave the K units below its end
//! ```
//!
//! Where all back-pointers fit, there is one block. The path is the same to the last bit for every block length, as
//! the scores are. At equal scores a path stays where it is rather than coming from the state before, and from
//! there rather than from two states before; it ends in the last blank rather than in the last unit.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    Error,
    band::Band,
    graph::Graph,
    n_frames,
    units::{Unit, check_units, n_frames_of},
};

/// Where a token of the target lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// First frame that emits the token.
    pub start: usize,
    /// One past the last frame that emits it.
    pub end: usize,
    /// Mean of the token's log-probability over those frames.
    pub log_prob: f32,
    /// Geometric mean of the token's probability over those frames, `e^log_prob`: in `[0, 1]`.
    pub confidence: f32,
}

/// The single most probable path that spells a target of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// One span per token, in order, without overlap.
    pub spans: Vec<Span>,
    /// Log-probability of the path: the sum over all frames, blanks included.
    pub log_prob: f64,
}

/// The single most probable path that spells a target of units.
#[derive(Debug, Clone, PartialEq)]
pub struct Alignment {
    /// One span per unit, in order, without overlap; none for an optional unit that was left out.
    pub spans: Vec<Option<Span>>,
    /// Log-probability of the path, less the costs of stars and of what was left out.
    pub log_prob: f64,
}

/// How much memory an alignment may take beside its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that one alignment may take. Viterbi keeps all back-pointers where they fit, which are three bits for every
    /// frame and unit, and else runs blocks of the recursion twice in about `6 (n_units n_frames)^(2/3)` bytes: 27 MB for
    /// an hour. With optional units these are two bytes, and `12 n_units n_frames^(1/2)`; the ways past them, 16 bytes for
    /// every unit that can be skipped before another, are not counted.
    pub max_bytes: usize,
}

impl Default for Limits {
    /// One GiB.
    fn default() -> Self {
        Self { max_bytes: 1 << 30 }
    }
}

/// The frames of each token on the single most probable path that spells `target`.
///
/// # Shapes
///
/// - `log_probs`: `[n_frames, n_symbols]`, rows of log-probabilities
/// - output: one span per token, in order, without overlap; none for the empty target, whose path is all blank
///
/// # Errors
///
/// As [`viterbi_path`], with the default [`Limits`].
pub fn viterbi_align(
    log_probs: &[f32],
    n_symbols: usize,
    target: &[u32],
    blank: u32,
) -> Result<Vec<Span>, Error> {
    Ok(viterbi_path(log_probs, n_symbols, target, blank, Limits::default())?.spans)
}

/// As [`viterbi_align`], with the log-probability of the path, and within `limits`.
///
/// # Errors
///
/// When the matrix is not whole rows, a symbol has no column, the target holds the blank, there are too few frames
/// for it, a log-probability that a path could meet is NaN or beyond 1e30, every path has the probability 0, or
/// the memory would be more than the limit.
pub fn viterbi_path(
    log_probs: &[f32],
    n_symbols: usize,
    target: &[u32],
    blank: u32,
    limits: Limits,
) -> Result<Path, Error> {
    let units: Vec<Unit> = target.iter().copied().map(Unit::Token).collect();
    let found = align(log_probs, n_symbols, &units, blank, limits)?;
    let spans = found.spans.into_iter().map(|span| span.expect("a path emits every token"));
    Ok(Path { spans: spans.collect(), log_prob: found.log_prob })
}

/// The most probable paths of a batch of packed sequences, which run in parallel. A sequence that cannot be aligned
/// has its own error.
///
/// # Shapes
///
/// - `log_probs`: `[n_frames, n_symbols]`, rows of log-probabilities
/// - `offsets`: first row of each sequence and, at the end, `n_frames`
/// - `targets`, output: one per sequence
///
/// # Errors
///
/// When the parts of the batch do not fit; of one sequence, as [`viterbi_path`]. `limits` hold for each sequence.
pub fn viterbi_align_batch<T: AsRef<[u32]> + Sync>(
    log_probs: &[f32],
    n_symbols: usize,
    offsets: &[usize],
    targets: &[T],
    blank: u32,
    limits: Limits,
) -> Result<Vec<Result<Path, Error>>, Error> {
    let n_frames = n_frames(log_probs, n_symbols)?;
    let n_sequences = offsets.len().saturating_sub(1);
    let n_rows = offsets.last().copied().unwrap_or(0);
    let ascending = offsets.first() == Some(&0) && offsets.is_sorted();
    if !ascending || targets.len() != n_sequences || n_rows != n_frames {
        let n_targets = targets.len();
        return Err(Error::Offsets { n_sequences, n_targets, n_rows, n_frames });
    }
    let path = |i: usize| {
        let rows = &log_probs[offsets[i] * n_symbols..offsets[i + 1] * n_symbols];
        viterbi_path(rows, n_symbols, targets[i].as_ref(), blank, limits)
    };
    Ok((0..n_sequences).into_par_iter().map(path).collect())
}

/// The frames of each unit on the single most probable path that spells `target`, whose optional units may be left out
/// and whose stars stand for anything.
///
/// ```
/// use sandhi_align::ctc::{self, Limits, Unit};
///
/// // Columns blank, a, b; the recording says "a b", the transcript only "b".
/// let log_probs = ctc::log_softmax(&[0., 5., 0., 0., 5., 0., 0., 0., 5.], 3)?;
/// let target = [Unit::Star { cost: 0.0 }, Unit::Token(2)];
/// let found = ctc::align(&log_probs, 3, &target, 0, Limits::default())?;
/// let spans: Vec<_> = found.spans.iter().flatten().map(|span| span.start..span.end).collect();
/// assert_eq!(spans, [0..2, 2..3]);
/// # Ok::<(), ctc::Error>(())
/// ```
///
/// # Shapes
///
/// - `log_probs`: `[n_frames, n_symbols]`, rows of log-probabilities
///
/// # Errors
///
/// As [`viterbi_path`]; further when a cost is negative or not finite, and when more than 100 units in a row are
/// optional.
pub fn align(
    log_probs: &[f32],
    n_symbols: usize,
    target: &[Unit],
    blank: u32,
    limits: Limits,
) -> Result<Alignment, Error> {
    let n_frames = n_frames(log_probs, n_symbols)?;
    check_units(target, blank, n_symbols)?;
    let n_needed = n_frames_of(target);
    if n_frames < n_needed {
        return Err(Error::TooFewFrames { n_frames, n_needed });
    }
    let mut path = Tally::new(log_probs, n_symbols, target, blank);
    let visit = |frame, state| path.visit(frame, state);
    if n_frames == 0 {
        // What is left out is all that a path without frames can hold.
    } else if target.iter().any(|unit| unit.skip_cost().is_some()) {
        let graph = Graph::new(log_probs, n_symbols, target, blank)?;
        trace(graph, n_frames, Block::Within(limits.max_bytes), visit)?;
    } else {
        let band = Band::new(log_probs, n_symbols, target, blank);
        trace(band, n_frames, Block::Within(limits.max_bytes), visit)?;
    }
    Ok(path.alignment())
}

/// A recursion over rows whose back-pointers can be made again. States are those of CTC: `2 i` is the blank before
/// unit `i`, `2 i + 1` the unit.
pub(super) trait Recursion {
    /// A state's score.
    type Score: Copy;
    /// An element of the back-pointers.
    type Back: Copy + Default;

    /// The scores before the first row.
    fn start(&self) -> Vec<Self::Score>;

    /// How many back-pointers so many rows take at most.
    fn n_back(&self, n_rows: usize) -> usize;

    /// Runs rows, and writes how they were reached, unless `back` is empty. Rows may be run again from the same scores
    /// for the sake of one state at their end.
    ///
    /// # Errors
    ///
    /// When a value is no log-probability.
    fn advance(
        &mut self,
        window: &Window,
        scores: &mut [Self::Score],
        back: &mut [Self::Back],
    ) -> Result<(), Error>;

    /// The state in which the best path ends; none where every path has the probability 0.
    fn last(&self, scores: &[Self::Score]) -> Option<usize>;

    /// The state at the row before that the best path to `state` at `row` comes from.
    fn before(&self, window: &Window, back: &[Self::Back], row: usize, state: usize) -> usize;
}

/// Rows, and the state of the last of them, where it is known.
#[derive(Debug, Clone)]
pub(super) struct Window {
    pub(super) rows: Range<usize>,
    pub(super) end: Option<usize>,
}

/// How many rows a block has.
#[derive(Debug, Clone, Copy)]
enum Block {
    /// All of them if that takes no more bytes, else those that take the fewest.
    Within(usize),
    #[cfg(test)]
    Rows(usize),
}

impl Block {
    fn n_rows<R: Recursion>(self, recursion: &R, n_frames: usize) -> Result<usize, Error> {
        let max_bytes = match self {
            Self::Within(max_bytes) => max_bytes,
            #[cfg(test)]
            Self::Rows(n_rows) => return Ok(n_rows),
        };
        let score_bytes = recursion.start().len().saturating_mul(size_of::<R::Score>());
        let n_bytes = |n_rows: usize| {
            let back = recursion.n_back(n_rows).saturating_mul(size_of::<R::Back>());
            score_bytes.saturating_mul(n_frames.div_ceil(n_rows) + 1).saturating_add(back)
        };
        if n_bytes(n_frames) <= max_bytes {
            return Ok(n_frames);
        }
        let lengths = std::iter::successors(Some(1), |&n| Some(n + n / 4 + 1));
        let lengths = lengths.take_while(|&n| n < n_frames).chain([n_frames]);
        let best = lengths.min_by_key(|&n| n_bytes(n)).expect("there is one frame or more");
        match n_bytes(best) {
            n_bytes if n_bytes <= max_bytes => Ok(best),
            n_bytes => Err(Error::TooLarge { n_bytes, max_bytes }),
        }
    }
}

/// Calls `visit` with every row and its state, from the last row to the first.
fn trace<R: Recursion>(
    mut recursion: R,
    n_frames: usize,
    block: Block,
    mut visit: impl FnMut(usize, usize),
) -> Result<(), Error> {
    let n_rows = block.n_rows(&recursion, n_frames)?;
    let blocks: Vec<_> =
        (0..n_frames).step_by(n_rows).map(|row| row..n_frames.min(row + n_rows)).collect();
    let mut back = vec![R::Back::default(); recursion.n_back(n_rows)];
    let mut scores = recursion.start();
    let mut kept = Vec::with_capacity(blocks.len());
    for rows in &blocks {
        let window = Window { rows: rows.clone(), end: None };
        if blocks.len() > 1 {
            kept.push(scores.clone());
            recursion.advance(&window, &mut scores, &mut [])?;
        } else {
            recursion.advance(&window, &mut scores, &mut back)?;
        }
    }
    let mut state = recursion.last(&scores).ok_or(Error::Impossible)?;
    for rows in blocks.into_iter().rev() {
        let mut window = Window { rows: rows.clone(), end: None };
        if let Some(mut scores) = kept.pop() {
            window.end = Some(state);
            recursion.advance(&window, &mut scores, &mut back)?;
        }
        for row in rows.rev() {
            visit(row, state);
            if row > 0 {
                state = recursion.before(&window, &back, row, state);
            }
        }
    }
    Ok(())
}

/// Sums along a path.
struct Tally<'a> {
    log_probs: &'a [f32],
    n_symbols: usize,
    target: &'a [Unit],
    blank: u32,
    /// Frames and log-probability of every unit.
    units: Vec<(Range<usize>, f64)>,
    log_prob: f64,
}

impl<'a> Tally<'a> {
    fn new(log_probs: &'a [f32], n_symbols: usize, target: &'a [Unit], blank: u32) -> Self {
        let units = vec![(0..0, 0.0); target.len()];
        Self { log_probs, n_symbols, target, blank, units, log_prob: 0.0 }
    }

    /// Frames come from the last to the first.
    fn visit(&mut self, frame: usize, state: usize) {
        let row = &self.log_probs[frame * self.n_symbols..][..self.n_symbols];
        if state.is_multiple_of(2) {
            self.log_prob += f64::from(row[self.blank as usize]);
            return;
        }
        let log_prob = self.target[state / 2].log_prob(row);
        let (frames, sum) = &mut self.units[state / 2];
        *frames = frame..frames.end.max(frame + 1);
        *sum += log_prob;
        self.log_prob += log_prob;
    }

    fn alignment(self) -> Alignment {
        let span = |(frames, sum): (Range<usize>, f64)| {
            let mean = sum / frames.len() as f64;
            (!frames.is_empty()).then(|| Span {
                start: frames.start,
                end: frames.end,
                log_prob: mean as f32,
                confidence: mean.exp() as f32,
            })
        };
        let spans: Vec<_> = self.units.into_iter().map(span).collect();
        let skipped = self.target.iter().zip(&spans).filter(|(_, span)| span.is_none());
        let costs: f64 = skipped.filter_map(|(unit, _)| unit.skip_cost()).sum();
        Alignment { spans, log_prob: self.log_prob - costs }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ctc::log_softmax, transport::simd::at_every_width};

    const ALL: Limits = Limits { max_bytes: usize::MAX };

    /// Log-probabilities that make `path` all but certain.
    fn sure(path: &[usize], n_symbols: usize) -> Vec<f32> {
        let mut logits = vec![0.0; path.len() * n_symbols];
        for (t, &symbol) in path.iter().enumerate() {
            logits[t * n_symbols + symbol] = 20.0;
        }
        log_softmax(&logits, n_symbols).unwrap()
    }

    /// Numbers from -4 to 0 that do not repeat soon, on a grid if there should be ties.
    fn noise(n: usize, seed: u64, grid: f32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let snap = |x: f32| if grid > 0.0 { (x / grid).round() * grid } else { x };
        (0..n).map(|_| snap(-4.0 * next())).collect()
    }

    /// The recursion as it is written in papers, in double precision, by states.
    fn reference(log_probs: &[f32], n_symbols: usize, target: &[u32]) -> (Vec<usize>, f64) {
        let n_states = 2 * target.len() + 1;
        let symbol = |s: usize| if s.is_multiple_of(2) { 0 } else { target[s / 2] as usize };
        let skips = |s: usize| s % 2 == 1 && s > 1 && symbol(s) != symbol(s - 2);
        let mut rows = log_probs.chunks_exact(n_symbols);
        let first = rows.next().unwrap();
        let mut past = vec![f64::NEG_INFINITY; n_states];
        (0..n_states.min(2)).for_each(|s| past[s] = f64::from(first[symbol(s)]));
        let mut steps = vec![vec![0; n_states]];
        for row in rows {
            let mut step = vec![0; n_states];
            past = (0..n_states)
                .map(|s| {
                    let mut best = past[s];
                    for back in 1..=2 {
                        let is_open = s >= back && (back == 1 || skips(s));
                        if is_open && past[s - back] > best {
                            (best, step[s]) = (past[s - back], back);
                        }
                    }
                    best + f64::from(row[symbol(s)])
                })
                .collect();
            steps.push(step);
        }
        let mut state = n_states - 1;
        if n_states > 1 && past[n_states - 2] > past[n_states - 1] {
            state = n_states - 2;
        }
        let score = past[state];
        let mut path = vec![];
        for step in steps.iter().rev() {
            path.push(state);
            state -= step[state];
        }
        path.reverse();
        (path, score)
    }

    fn states(log_probs: &[f32], n_symbols: usize, target: &[u32], block: Block) -> Vec<usize> {
        let units: Vec<Unit> = target.iter().copied().map(Unit::Token).collect();
        let mut path = vec![];
        let band = Band::new(log_probs, n_symbols, &units, 0);
        trace(band, log_probs.len() / n_symbols, block, |_, state| path.push(state)).unwrap();
        path.reverse();
        path
    }

    /// The best log-probability by trying every sequence of symbols, the star being one symbol more.
    fn by_force(log_probs: &[f32], n_symbols: usize, units: &[Unit]) -> f64 {
        let n_frames = log_probs.len() / n_symbols;
        let star = n_symbols;
        let symbol = |unit: &Unit| match *unit {
            Unit::Token(symbol) | Unit::Optional { symbol, .. } => symbol as usize,
            Unit::Star { .. } => star,
        };
        let optional: Vec<usize> =
            (0..units.len()).filter(|&i| units[i].skip_cost().is_some()).collect();
        let mut best = f64::NEG_INFINITY;
        for chosen in 0..1_usize << optional.len() {
            let is_left_out = |i: usize| {
                optional.iter().position(|&at| at == i).is_some_and(|bit| chosen >> bit & 1 == 1)
            };
            let kept: Vec<&Unit> =
                (0..units.len()).filter(|&i| !is_left_out(i)).map(|i| &units[i]).collect();
            let cost: f64 = (0..units.len())
                .filter(|&i| is_left_out(i))
                .filter_map(|i| units[i].skip_cost())
                .sum();
            for number in 0..(n_symbols + 1).pow(n_frames as u32) {
                let path: Vec<usize> = (0..n_frames)
                    .map(|t| number / (n_symbols + 1).pow(t as u32) % (n_symbols + 1))
                    .collect();
                let mut spelled = path.clone();
                spelled.dedup();
                spelled.retain(|&symbol| symbol != 0);
                if !spelled.iter().copied().eq(kept.iter().map(|unit| symbol(unit))) {
                    continue;
                }
                // Which unit a frame belongs to matters for stars of different costs.
                let (mut unit, mut score) = (0, -cost);
                for (t, &emitted) in path.iter().enumerate() {
                    if t > 0 && path[t - 1] != 0 && path[t - 1] != emitted {
                        unit += 1;
                    }
                    let row = &log_probs[t * n_symbols..][..n_symbols];
                    score +=
                        if emitted == 0 { f64::from(row[0]) } else { kept[unit].log_prob(row) };
                }
                best = best.max(score);
            }
        }
        best
    }

    #[test]
    fn spans_follow_a_certain_path() {
        let log_probs = sure(&[0, 1, 1, 0, 1, 2, 0], 3);
        let spans = viterbi_align(&log_probs, 3, &[1, 1, 2], 0).unwrap();
        let places: Vec<_> = spans.iter().map(|span| (span.start, span.end)).collect();
        assert_eq!(places, [(1, 3), (4, 5), (5, 6)]);
        assert!(spans.iter().all(|span| span.confidence > 0.999));
    }

    #[test]
    fn scores_are_those_of_the_path() {
        // Two frames of "a" with probabilities 1/4 and 1/16, whose geometric mean is 1/8, then a blank with 1/2.
        let [half, quarter, low] = [0.5_f32.ln(), 0.25_f32.ln(), 0.0625_f32.ln()];
        let log_probs = [-9.0, quarter, -9.0, low, half, -9.0];
        let found = viterbi_path(&log_probs, 2, &[1], 0, ALL).unwrap();
        let span = found.spans[0];
        assert_eq!((span.start, span.end), (0, 2));
        assert!((span.confidence - 0.125).abs() < 1e-6);
        assert!((span.log_prob - 0.125_f32.ln()).abs() < 1e-6);
        assert!((found.log_prob - (1.0_f64 / 128.0).ln()).abs() < 1e-6);
    }

    #[test]
    fn the_empty_target_is_all_blank() {
        assert_eq!(viterbi_align(&[], 2, &[], 0).unwrap(), []);
        let found = viterbi_path(&[-1.0, -0.5, -2.0, -0.1], 2, &[], 0, ALL).unwrap();
        assert_eq!(found, Path { spans: vec![], log_prob: -3.0 });
        let nothing = align(&[], 2, &[Unit::Optional { symbol: 1, cost: 0.5 }], 0, ALL).unwrap();
        assert_eq!(nothing, Alignment { spans: vec![None], log_prob: -0.5 });
    }

    #[test]
    fn a_star_takes_what_is_not_written() {
        let log_probs = sure(&[1, 2, 0, 3, 1, 0], 4);
        let star = Unit::Star { cost: 0.0 };
        let found = align(&log_probs, 4, &[star, Unit::Token(3), star], 0, ALL).unwrap();
        let spans: Vec<_> = found.spans.iter().flatten().map(|span| span.start..span.end).collect();
        assert_eq!(spans, [0..3, 3..4, 4..6]);
        // Five frames of stars cost 2 each, a blank next to nothing: now the blanks at 2 and 5 are blanks.
        let star = Unit::Star { cost: 2.0 };
        let found = align(&log_probs, 4, &[star, Unit::Token(3), star], 0, ALL).unwrap();
        let spans: Vec<_> = found.spans.iter().flatten().map(|span| span.start..span.end).collect();
        assert_eq!(spans, [0..2, 3..4, 4..5]);
        assert!((found.log_prob + 6.0).abs() < 1e-6);
    }

    #[test]
    fn an_optional_unit_is_left_out_where_that_is_cheaper() {
        let log_probs = sure(&[1, 3, 0], 4);
        let unit = |cost| [Unit::Token(1), Unit::Optional { symbol: 2, cost }, Unit::Token(3)];
        let found = align(&log_probs, 4, &unit(3.0), 0, ALL).unwrap();
        assert_eq!(found.spans[1], None);
        assert!((found.log_prob + 3.0).abs() < 1e-6);
        // Saying it takes two frames that are all but certain to be something else: 40 nats.
        assert!(align(&log_probs, 4, &unit(50.0), 0, ALL).unwrap().spans[1].is_some());
    }

    #[test]
    fn what_cannot_be_aligned_is_said() {
        let log_probs = [-1.0_f32; 6];
        let error = |units: &[Unit]| align(&log_probs, 3, units, 0, ALL).unwrap_err();
        let [a, b] = [Unit::Token(1), Unit::Token(2)];
        assert_eq!(error(&[a, a]), Error::TooFewFrames { n_frames: 2, n_needed: 3 });
        assert_eq!(error(&[a, b, a]), Error::TooFewFrames { n_frames: 2, n_needed: 3 });
        assert_eq!(error(&[Unit::Token(3)]), Error::UnknownSymbol { symbol: 3, n_symbols: 3 });
        assert_eq!(error(&[b, Unit::Token(0)]), Error::BlankInTarget { position: 1, blank: 0 });
        let cost = -1.0;
        assert_eq!(error(&[a, Unit::Star { cost }]), Error::Cost { position: 1, found: cost });
        let many = vec![Unit::Optional { symbol: 1, cost: 1.0 }; 101];
        assert_eq!(error(&many), Error::TooManyOptional { position: 100, n_most: 100 });
        assert!(align(&log_probs, 3, &many[..100], 0, ALL).is_ok());
        assert!(matches!(
            align(&log_probs, 3, &[a], 0, Limits { max_bytes: 50 }),
            Err(Error::TooLarge { n_bytes: 51.., max_bytes: 50 })
        ));
        let no = [f32::NEG_INFINITY; 6];
        assert_eq!(align(&no, 3, &[a], 0, ALL), Err(Error::Impossible));
    }

    #[test]
    fn numbers_that_are_no_log_probabilities_are_named() {
        for (value, units) in [
            (f32::NAN, vec![Unit::Token(2)]),
            (f32::INFINITY, vec![Unit::Token(2), Unit::Optional { symbol: 1, cost: 0.5 }]),
        ] {
            let mut log_probs = vec![-1.0_f32; 9];
            log_probs[5] = value;
            match align(&log_probs, 3, &units, 0, ALL) {
                Err(Error::NotALogProb { frame: 1, symbol: 2, found }) => {
                    assert_eq!(found.to_bits(), value.to_bits());
                }
                other => panic!("{other:?}"),
            }
            // What no path meets plays no part.
            let mut log_probs = vec![-1.0_f32; 12];
            log_probs[7] = value;
            assert!(align(&log_probs, 4, &units, 0, ALL).is_ok());
        }
    }

    #[test]
    fn a_batch_is_its_sequences() {
        let log_probs = noise(9 * 3, 5, 0.0);
        let targets: [&[u32]; 3] = [&[1, 2], &[1, 1], &[]];
        let found = viterbi_align_batch(&log_probs, 3, &[0, 5, 7, 9], &targets, 0, ALL).unwrap();
        assert_eq!(found[0], viterbi_path(&log_probs[..15], 3, &[1, 2], 0, ALL));
        assert_eq!(found[1], Err(Error::TooFewFrames { n_frames: 2, n_needed: 3 }));
        assert_eq!(found[2], viterbi_path(&log_probs[21..], 3, &[], 0, ALL));
        for offsets in [&[0, 5, 7, 8][..], &[0, 7, 5, 9], &[1, 5, 7, 9], &[0, 9], &[]] {
            let error = viterbi_align_batch(&log_probs, 3, offsets, &targets, 0, ALL).unwrap_err();
            assert!(matches!(error, Error::Offsets { n_targets: 3, n_frames: 9, .. }), "{error}");
        }
    }

    #[test]
    fn an_hour_of_speech_fits_into_little_memory() {
        // 9000 steps against 1500 tokens: 9000 * 94 blocks * 6 bytes of back-pointers would be 5 MB.
        let (n_frames, n_tokens) = (9000, 1500);
        let target: Vec<u32> = (0..n_tokens).map(|i| 1 + i * 7 % 5 + i % 2).collect();
        let log_probs = noise(n_frames * 7, 3, 0.0);
        let all = viterbi_path(&log_probs, 7, &target, 0, ALL).unwrap();
        let few = viterbi_path(&log_probs, 7, &target, 0, Limits { max_bytes: 500_000 }).unwrap();
        assert_eq!(all, few);
        let (states, score) = reference(&log_probs, 7, &target);
        assert!((all.log_prob - score).abs() < 1e-3, "{} {score}", all.log_prob);
        for (i, span) in all.spans.iter().enumerate() {
            let found = states.iter().filter(|&&state| state == 2 * i + 1).count();
            assert_eq!(span.end - span.start, found, "token {i}");
        }
    }

    proptest! {
        #[test]
        fn blocks_of_any_length_give_the_path_of_the_reference(
            n_frames in 1_usize..150, n_tokens in 0_usize..60, seed: u64, n_rows in 1_usize..160, is_tied: bool,
        ) {
            let n_symbols = 2 + (seed % 5) as usize;
            // Eighths are exact in single precision, so that ties are ties.
            let log_probs = noise(n_frames * n_symbols, seed, if is_tied { 0.125 } else { 0.0 });
            let symbols = noise(n_tokens, seed + 1, 0.0);
            let target: Vec<u32> =
                symbols.iter().map(|x| 1 + (-x / 4.001 * (n_symbols - 1) as f32) as u32).collect();
            prop_assume!(crate::ctc::is_feasible(n_frames, &target));
            let (expected, score) = reference(&log_probs, n_symbols, &target);
            at_every_width(|| {
                let found = states(&log_probs, n_symbols, &target, Block::Rows(n_rows));
                if is_tied {
                    assert_eq!(found, expected);
                }
                assert_eq!(found, states(&log_probs, n_symbols, &target, Block::Within(usize::MAX)));
                let path = viterbi_path(&log_probs, n_symbols, &target, 0, ALL).unwrap();
                assert!((path.log_prob - score).abs() < 1e-3, "{} {score}", path.log_prob);
            });
        }

        #[test]
        fn less_memory_changes_nothing(
            n_frames in 100_usize..300, n_tokens in 20_usize..50, seed: u64, percent in 0_usize..100, optional: bool,
        ) {
            let log_probs = noise(n_frames * 4, seed, 0.0);
            let target: Vec<Unit> = (0..n_tokens as u32).map(|i| match i % 5 {
                4 if optional => Unit::Optional { symbol: 1 + i % 3, cost: 0.3 },
                2 => Unit::Star { cost: 1.5 },
                _ => Unit::Token(1 + i % 3),
            }).collect();
            let all = align(&log_probs, 4, &target, 0, ALL).unwrap();
            let Err(Error::TooLarge { n_bytes, .. }) = align(&log_probs, 4, &target, 0, Limits { max_bytes: 0 })
            else { panic!("nothing fits into nothing") };
            let max_bytes = n_bytes + n_bytes * percent / 100;
            prop_assert_eq!(&align(&log_probs, 4, &target, 0, Limits { max_bytes }).unwrap(), &all);
            let refused = align(&log_probs, 4, &target, 0, Limits { max_bytes: n_bytes - 1 });
            prop_assert_eq!(refused, Err(Error::TooLarge { n_bytes, max_bytes: n_bytes - 1 }));
        }

        #[test]
        fn no_path_is_better(
            seed: u64, units in proptest::collection::vec((0_u8..6, 0_u8..3), 0..5), n_frames in 1_usize..6,
        ) {
            let log_probs = noise(n_frames * 3, seed, 0.0);
            let target: Vec<Unit> = units.iter().map(|&(kind, cost)| match kind {
                0 => Unit::Star { cost: f32::from(cost) },
                1 | 2 => Unit::Optional { symbol: u32::from(kind), cost: f32::from(cost) },
                _ => Unit::Token(1 + u32::from(kind) % 2),
            }).collect();
            let best = by_force(&log_probs, 3, &target);
            match align(&log_probs, 3, &target, 0, ALL) {
                Err(Error::TooFewFrames { n_needed, .. }) => {
                    prop_assert_eq!(best, f64::NEG_INFINITY);
                    prop_assert!(n_needed > n_frames);
                }
                found => {
                    let found = found.unwrap();
                    prop_assert!((found.log_prob - best).abs() < 1e-4, "{} {best}", found.log_prob);
                    let mut end = 0;
                    for (span, unit) in found.spans.iter().zip(&target) {
                        let Some(span) = span else {
                            prop_assert!(unit.skip_cost().is_some());
                            continue;
                        };
                        prop_assert!(end <= span.start && span.start < span.end && span.end <= n_frames);
                        end = span.end;
                    }
                }
            }
        }
    }
}
