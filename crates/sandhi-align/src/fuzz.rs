//! Bodies of the fuzz targets in `fuzz/`: plain functions over bytes that must neither panic nor hang.

use crate::transport::{
    self, Batch, Exact, Gradient, Masses, Metric, Monotone, Newton, SemiRelaxed, Sinkhorn, Solver,
    Unbalanced,
};
use crate::{
    ctc::{self, Limits, Unit},
    monotonic,
};

/// Solves what bytes describe: a byte each for solver, kind of masses, rows and columns, ε and τ as `f32`, then
/// costs and masses as `f32`; what is missing is zero.
///
/// # Panics
///
/// When a solver breaks a promise: a solved problem whose plan is negative or not finite, whose sums are not the
/// masses, whose gradient has another shape, or that is another one in double precision. That is what a fuzzer looks
/// for.
pub fn transport(data: &[u8]) {
    outcome(data);
}

/// What became of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Refused,
    Unsolved,
    Solved,
}

fn outcome(data: &[u8]) -> Outcome {
    let byte = |at: usize| data.get(at).copied().unwrap_or(0) as usize;
    let mut words = data.get(4..).unwrap_or_default().chunks_exact(4);
    let mut number = || {
        words.next().map_or(0.0, |word| f32::from_le_bytes(word.try_into().expect("four bytes")))
    };
    let [epsilon, tau] = [f64::from(number()), f64::from(number())];
    let [n, m] = [byte(2) % 24, byte(3) % 24];
    let Ok(batch) = Batch::one([n, m]) else { return Outcome::Refused };
    let costs: Vec<f32> = (0..n * m).map(|_| number()).collect();
    let given: Vec<f64> = (0..n + m).map(|_| f64::from(number())).collect();
    let counts: Vec<u32> = given.iter().map(|&mass| mass as u32).collect();
    let shares = [epsilon];
    let [rows, columns] = match byte(1) % 4 {
        0 => [Masses::UNIFORM; 2],
        1 => [Masses::counts(&counts[..n]), Masses::counts(&counts[n..])],
        2 => [Masses::given(&given[..n]), Masses::given(&given[n..])],
        _ => [Masses::UNIFORM, Masses::UNIFORM.with_pad(&shares)],
    };
    let (tolerance, max_iterations) = (1e-6, 300);
    let solver = match byte(0) % 6 {
        0 => Solver::Exact(Exact { max_iterations: 10_000 }),
        1 => Solver::Sinkhorn(Sinkhorn { epsilon, tolerance, max_iterations, max_relaxation: 1.9 }),
        2 => Solver::Newton(Newton { epsilon, tolerance, max_iterations: 50 }),
        3 => Solver::SemiRelaxed(SemiRelaxed { epsilon }),
        4 => Solver::Unbalanced(Unbalanced { epsilon, tau, tolerance, max_iterations }),
        _ => Solver::Monotone(Monotone { pad: tau > 0.0 }),
    };
    let wide: Vec<f64> = costs.iter().map(|&cost| f64::from(cost)).collect();
    let again = transport::solve(&wide, [n, m], rows, columns, &solver);
    let found = match transport::solve_batch(&costs, &batch, rows, columns, &solver) {
        Ok(mut found) => found.pop().expect("the batch has one problem"),
        Err(error) => {
            assert!(again.is_err(), "{error}");
            assert!(error.to_string().len() < 300, "{error}");
            return Outcome::Refused;
        }
    };
    for mode in [Gradient::Envelope, Gradient::Implicit, Gradient::Exact] {
        let gradient = transport::cost_gradient(&found, &costs, mode);
        assert!(gradient.is_err() || gradient.is_ok_and(|gradient| gradient.len() == costs.len()));
    }
    let again = again.expect("the same numbers were solved in single precision");
    // By bits, as an unsolved problem may hold NaN.
    let bits = |found: &transport::Transport| {
        [found.value, found.cost, found.marginal_error].map(f64::to_bits)
    };
    assert_eq!((bits(&found), found.status), (bits(&again), again.status));
    if !found.status.is_solved() {
        return Outcome::Unsolved;
    }
    assert!(found.value.is_finite() && found.cost.is_finite(), "{found:?}");
    assert!(found.marginal_error <= 2e-6, "{found:?}");
    let total: f64 = found.plan.iter().map(|(_, _, mass)| mass).sum();
    let mut expected: Vec<f64> = match byte(1) % 4 {
        2 => given[..n].to_vec(),
        1 => counts[..n].iter().map(|&count| f64::from(count)).collect(),
        _ => vec![1.0; n],
    };
    let sum: f64 = expected.iter().sum();
    expected.iter_mut().for_each(|mass| *mass *= total / sum);
    for (found, expected) in found.plan.row_sums().iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-5 * total, "{found} {expected} of {total}");
    }
    assert!(found.plan.iter().all(|(_, _, mass)| mass >= 0.0 && mass.is_finite()), "{found:?}");
    Outcome::Solved
}

/// Makes costs of what bytes describe, and takes a gradient back: a byte each for metric, width, problems, and pad,
/// then two bytes a problem for its rows and columns, then the order's weight and the embeddings as `f32`; what is
/// missing is zero.
///
/// # Panics
///
/// When costs are made that are not finite, or a gradient that has another shape. That is what a fuzzer looks for.
pub fn embeddings(data: &[u8]) {
    is_accepted(data);
}

/// Whether costs were made.
fn is_accepted(data: &[u8]) -> bool {
    let byte = |at: usize| data.get(at).copied().unwrap_or(0) as usize;
    let metric = [Metric::Cosine, Metric::SquaredEuclidean][byte(0) % 2];
    let (width, n_problems) = (byte(1) % 12, byte(2) % 5);
    let (mut rows, mut columns) = (vec![0], vec![0]);
    for problem in 0..n_problems {
        rows.push(rows[problem] + byte(4 + 2 * problem) % 12);
        columns.push(columns[problem] + byte(5 + 2 * problem) % 12);
    }
    let mut words = data.get(4 + 2 * n_problems..).unwrap_or_default().chunks_exact(4);
    let mut number = || {
        words.next().map_or(0.0, |word| f32::from_le_bytes(word.try_into().expect("four bytes")))
    };
    let weight = f64::from(number());
    let x: Vec<f32> = (0..rows[n_problems] * width).map(|_| number()).collect();
    let y: Vec<f32> = (0..columns[n_problems] * width).map(|_| number()).collect();
    let Ok(batch) = Batch::new(&rows, &columns) else { return false };
    let Ok(mut costs) = transport::embedding_costs(metric, &x, &y, width, &batch) else {
        return false;
    };
    assert_eq!(costs.len(), batch.totals()[2]);
    // Squares of numbers that single precision still holds may be beyond it: the solvers refuse those.
    let is_small = |x: &&f32| x.abs() < 1e15;
    if metric == Metric::Cosine || x.iter().chain(&y).filter(is_small).count() == x.len() + y.len()
    {
        assert!(costs.iter().all(|cost| cost.is_finite()), "{costs:?}");
    }
    let gradient: Vec<f64> = (0..costs.len()).map(|at| at as f64).collect();
    let [of_x, of_y] = transport::pull_back(metric, &x, &y, width, &batch, &gradient)
        .expect("costs were made of the same embeddings");
    assert_eq!((of_x.len(), of_y.len()), (x.len(), y.len()));
    transport::add_order_prior(&mut costs, &batch, weight, byte(3) % 2 == 1).is_ok()
}

/// Aligns what bytes describe: a byte each for symbols, frames and units, two a unit for its kind and its symbol or
/// cost, then log-probabilities as `f32`; what is missing is zero.
///
/// # Panics
///
/// When spans are out of order or place, a score is not finite, less memory changes a path, or posteriors are none.
/// That is what a fuzzer looks for.
pub fn ctc(data: &[u8]) {
    is_aligned(data);
}

/// Whether there was a path.
fn is_aligned(data: &[u8]) -> bool {
    let byte = |at: usize| data.get(at).copied().unwrap_or(0);
    let [n_symbols, n_frames, n_units] = [byte(0) % 9, byte(1) % 90, byte(2) % 40].map(usize::from);
    let unit = |at: usize| match (byte(3 + 2 * at) % 8, byte(4 + 2 * at)) {
        (0, cost) => Unit::Star { cost: f32::from(cost) / 16.0 - 0.1 },
        (1, which) => {
            Unit::Optional { symbol: u32::from(which % 10), cost: f32::from(which) / 16.0 }
        }
        (_, symbol) => Unit::Token(u32::from(symbol % 10)),
    };
    let units: Vec<Unit> = (0..n_units).map(unit).collect();
    let mut words = data.get(3 + 2 * n_units..).unwrap_or_default().chunks_exact(4);
    let mut number = || {
        words.next().map_or(0.0, |word| f32::from_le_bytes(word.try_into().expect("four bytes")))
    };
    let log_probs: Vec<f32> = (0..n_frames * n_symbols).map(|_| number()).collect();
    let blank = u32::from(byte(0) / 128);
    let limited =
        |max_bytes| ctc::align(&log_probs, n_symbols, &units, blank, Limits { max_bytes });
    let found = match limited(usize::MAX) {
        Ok(found) => found,
        Err(error) => {
            assert!(error.to_string().len() < 300, "{error}");
            return false;
        }
    };
    assert!(found.log_prob.is_finite(), "{found:?}");
    let mut end = 0;
    for (span, unit) in found.spans.iter().zip(&units) {
        let Some(span) = span else {
            assert!(matches!(unit, Unit::Optional { .. }), "{found:?}");
            continue;
        };
        assert!(end <= span.start && span.start < span.end && span.end <= n_frames, "{found:?}");
        end = span.end;
    }
    if let Err(ctc::Error::TooLarge { n_bytes, .. }) = limited(0) {
        assert_eq!(limited(n_bytes).as_ref(), Ok(&found));
    }
    let token = |unit: &Unit| match *unit {
        Unit::Token(symbol) => Some(symbol),
        Unit::Optional { .. } | Unit::Star { .. } => None,
    };
    if let Some(target) = units.iter().map(token).collect::<Option<Vec<u32>>>() {
        let spans = ctc::viterbi_align(&log_probs, n_symbols, &target, blank)
            .expect("it was aligned without a limit");
        assert!(spans.iter().copied().map(Some).eq(found.spans), "{spans:?}");
        if let Ok(posteriors) = ctc::posteriors(&log_probs, n_symbols, &target, blank) {
            let confidences = posteriors.confidences(&spans).expect("spans of the same target");
            assert!(confidences.iter().all(|p| (0.0..=1.0).contains(p)), "{confidences:?}");
        }
    }
    true
}

/// Searches what bytes describe: a byte each for frames, tokens and blank, then scores as `f32`; what is missing is
/// zero.
///
/// # Panics
///
/// When durations do not add up, a batch finds another path, or a gradient has another shape. That is what a
/// fuzzer looks for.
pub fn monotonic(data: &[u8]) {
    is_searched(data);
}

/// Whether there was a path.
fn is_searched(data: &[u8]) -> bool {
    let byte = |at: usize| data.get(at).copied().unwrap_or(0);
    let [n_frames, n_tokens] = [byte(0) % 100, byte(1) % 50].map(usize::from);
    let mut words = data.get(3..).unwrap_or_default().chunks_exact(4);
    let mut number = || {
        words.next().map_or(0.0, |word| f32::from_le_bytes(word.try_into().expect("four bytes")))
    };
    let blank = number();
    let scores: Vec<f32> = (0..n_frames * n_tokens).map(|_| number()).collect();
    if let Ok((loss, gradient)) =
        monotonic::forward_sum(&scores, n_tokens, (byte(2) % 2 == 1).then_some(blank))
    {
        assert!(loss.is_finite() && gradient.len() == scores.len(), "{loss}");
        assert!(gradient.iter().all(|slope| slope.is_finite()), "{gradient:?}");
    }
    let path = match monotonic::search(&scores, n_tokens) {
        Ok(path) => path,
        Err(error) => {
            assert!(error.to_string().len() < 300, "{error}");
            return false;
        }
    };
    assert!(path.score.is_finite() && path.durations.len() == n_tokens, "{path:?}");
    assert!(path.durations.iter().all(|&n| n > 0), "{path:?}");
    assert_eq!(path.durations.iter().sum::<usize>(), n_frames);
    let twice = [scores.clone(), scores].concat();
    let found = monotonic::search_batch(&twice, &[[n_frames, n_tokens]; 2]).expect("two of them");
    assert_eq!(found, [Ok(path.clone()), Ok(path)]);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator of the xorshift family: always the same numbers.
    struct Stream(u64);

    impl Stream {
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            ((self.0 >> 20) % n as u64) as usize
        }
    }

    /// Values that numbers in a problem like to be wrong by.
    const EXTREMES: [f32; 12] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        1e-30,
        1e30,
        1e-8,
        1e8,
        f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];

    #[test]
    fn mutated_problems_neither_panic_nor_hang() {
        let mut stream = Stream(0x9e37_79b9_7f4a_7c15);
        let mut outcomes = vec![];
        for round in 0..6_000 {
            let [n, m] = [1 + stream.below(23), 1 + stream.below(23)];
            let mut bytes = vec![(round % 6) as u8, stream.below(256) as u8, n as u8, m as u8];
            let mut push = |value: f32| bytes.extend(value.to_le_bytes());
            let epsilon = [0.05, 0.2, 1e-3, 0.9][stream.below(4)];
            push(epsilon);
            push(0.5);
            (0..n * m).for_each(|_| push(stream.below(1 << 20) as f32 / (1 << 20) as f32));
            (0..n + m).for_each(|_| push(stream.below(5) as f32));
            for _ in 0..stream.below(4) {
                let word = 1 + stream.below(bytes.len() / 4 - 1);
                let value = EXTREMES[stream.below(EXTREMES.len())];
                bytes[4 * word..4 * word + 4].copy_from_slice(&value.to_le_bytes());
            }
            if stream.below(10) == 0 {
                let (at, bit) = (stream.below(bytes.len()), stream.below(8));
                bytes[at] ^= 1 << bit;
                bytes.truncate(stream.below(bytes.len()));
            }
            outcomes.push(outcome(&bytes));
        }
        for (kind, least) in
            [(Outcome::Refused, 500), (Outcome::Unsolved, 5), (Outcome::Solved, 1_000)]
        {
            let n = outcomes.iter().filter(|&&outcome| outcome == kind).count();
            assert!(n > least, "{n} {kind:?}");
        }
    }

    #[test]
    fn mutated_embeddings_do_not_panic() {
        let mut stream = Stream(0x5851_f42d_4c95_7f2d);
        let mut n_accepted = 0;
        for round in 0..4_000 {
            let n_problems = 1 + stream.below(4);
            let mut bytes = vec![round as u8, 1 + stream.below(11) as u8, n_problems as u8, 0];
            bytes.extend((0..2 * n_problems).map(|_| 1 + stream.below(11) as u8));
            let at = bytes.len();
            for _ in 0..1 + 11 * 44 * 2 {
                bytes.extend((stream.below(1 << 20) as f32 / (1 << 19) as f32).to_le_bytes());
            }
            mutate(&mut bytes, at, &mut stream);
            n_accepted += usize::from(is_accepted(&bytes));
        }
        assert!((2_000..3_900).contains(&n_accepted), "{n_accepted}");
    }

    #[test]
    fn mutated_alignments_do_not_panic() {
        let mut stream = Stream(0x2545_f491_4f6c_dd1d);
        let (mut n_aligned, mut n_searched) = (0, 0);
        for round in 0..4_000 {
            let (n_symbols, n_frames) = (2 + stream.below(7), 1 + stream.below(89));
            let n_units = stream.below(2 + n_frames / 2).min(39);
            let mut bytes = vec![n_symbols as u8, n_frames as u8, n_units as u8];
            for _ in 0..n_units {
                let kind = if round % 2 == 0 { stream.below(8) } else { 2 };
                bytes.extend([kind as u8, 1 + stream.below(n_symbols - 1) as u8]);
            }
            let at = bytes.len();
            let value = |stream: &mut Stream| -(stream.below(1 << 20) as f32) / (1 << 17) as f32;
            for _ in 0..n_frames * n_symbols {
                bytes.extend(value(&mut stream).to_le_bytes());
            }
            mutate(&mut bytes, at, &mut stream);
            n_aligned += usize::from(is_aligned(&bytes));

            let n_tokens = 1 + stream.below(49);
            let n_frames = n_tokens + stream.below(100 - n_tokens);
            let mut bytes = vec![n_frames as u8, n_tokens as u8, round as u8];
            for _ in 0..1 + n_frames * n_tokens {
                bytes.extend(value(&mut stream).to_le_bytes());
            }
            mutate(&mut bytes, 3, &mut stream);
            n_searched += usize::from(is_searched(&bytes));
        }
        assert!((2_000..3_900).contains(&n_aligned), "{n_aligned}");
        assert!((2_000..3_900).contains(&n_searched), "{n_searched}");
    }

    /// Puts extremes where numbers are, and at times flips a bit or cuts the end.
    fn mutate(bytes: &mut Vec<u8>, at: usize, stream: &mut Stream) {
        for _ in 0..stream.below(3) {
            let word = at + 4 * stream.below((bytes.len() - at) / 4);
            let value = EXTREMES[stream.below(EXTREMES.len())];
            bytes[word..word + 4].copy_from_slice(&value.to_le_bytes());
        }
        if stream.below(10) == 0 {
            let (at, bit) = (stream.below(bytes.len()), stream.below(8));
            bytes[at] ^= 1 << bit;
            bytes.truncate(stream.below(bytes.len()));
        }
    }
}
