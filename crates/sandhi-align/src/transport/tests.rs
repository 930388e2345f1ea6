//! What holds for every solver.

use proptest::prelude::*;

use super::*;

/// Random numbers in `[0, 1)`, always the same ones.
pub(super) fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..20).for_each(|_| _ = next());
    (0..n).map(|_| next()).collect()
}

/// Masses that sum to 1, some of them zero.
fn masses(n: usize, seed: u64) -> Vec<f64> {
    let mut masses = numbers(n, seed);
    masses.iter_mut().skip(1).step_by(4).for_each(|mass| *mass = 0.0);
    let sum: f64 = masses.iter().sum();
    masses.iter().map(|mass| mass / sum).collect()
}

const EXACT: Solver = Solver::Exact(Exact { max_iterations: 10_000 });

fn sinkhorn(epsilon: f64) -> Solver {
    Solver::Sinkhorn(Sinkhorn { epsilon, tolerance: 1e-12, ..Sinkhorn::default() })
}

fn newton(epsilon: f64) -> Solver {
    Solver::Newton(Newton { epsilon, tolerance: 1e-12, ..Newton::default() })
}

fn semi_relaxed(epsilon: f64) -> Solver {
    Solver::SemiRelaxed(SemiRelaxed { epsilon })
}

fn unbalanced(epsilon: f64, tau: f64) -> Solver {
    Solver::Unbalanced(Unbalanced { epsilon, tau, tolerance: 1e-12, ..Unbalanced::default() })
}

/// Every solver, with costs about 1.
fn all() -> Vec<Solver> {
    vec![
        EXACT,
        sinkhorn(0.1),
        newton(0.1),
        semi_relaxed(0.1),
        semi_relaxed(0.0),
        unbalanced(0.1, 0.3),
        Solver::Monotone(Monotone { pad: false }),
    ]
}

fn with_entropy() -> Vec<Solver> {
    vec![sinkhorn(0.15), newton(0.15), semi_relaxed(0.15), unbalanced(0.15, 0.3)]
}

fn transport(costs: &[f64], shape: [usize; 2], solver: &Solver) -> Transport {
    let found = solve(costs, shape, Masses::UNIFORM, Masses::UNIFORM, solver).unwrap();
    assert!(found.status.is_solved(), "{solver:?} {found:?}");
    found
}

pub(super) fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().fold(1e-300_f64, |size, x| size.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance * size, "{what}, {i}: {found} {expected}");
    }
}

/// The slope of `loss` along every cost, by central differences of fourth order.
fn slopes(costs: &[f64], loss: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-3;
    (0..costs.len())
        .map(|at| {
            let moved = |by: f64| {
                let mut costs = costs.to_vec();
                costs[at] += by;
                loss(&costs)
            };
            let [near, far] = [1.0, 2.0].map(|k| moved(k * step) - moved(-k * step));
            (8.0 * near - far) / (12.0 * step)
        })
        .collect()
}

/// Shape, costs, masses of rows and of columns.
type Problem = ([usize; 2], Vec<f64>, Vec<f64>, Vec<f64>);

/// The gradients' problems, both sides longer in turn, with zero masses.
fn problems() -> Vec<Problem> {
    [[7, 4], [3, 6], [5, 5], [1, 3], [4, 1]]
        .into_iter()
        .map(|[n, m]| {
            let seed = (10 * n + m) as u64;
            ([n, m], numbers(n * m, seed), masses(n, seed + 1), masses(m, seed + 2))
        })
        .collect()
}

/// Fourth-order differences of step 1e-3 are off by about 1e-12 / ε^4 of the gradient, and by the tolerance over the
/// step.
const SLOPE_TOLERANCE: f64 = 1e-6;

#[test]
fn the_envelope_gradient_is_the_slope_of_the_value() {
    for (shape, costs, a, b) in problems() {
        for solver in with_entropy() {
            let at = |costs: &[f64]| {
                solve(costs, shape, Masses::given(&a), Masses::given(&b), &solver).unwrap()
            };
            let gradient = cost_gradient(&at(&costs), &costs, Gradient::Envelope).unwrap();
            let expected = slopes(&costs, |costs| at(costs).value);
            assert_close(&gradient, &expected, SLOPE_TOLERANCE, &format!("{shape:?} {solver:?}"));
        }
    }
}

#[test]
fn the_implicit_gradient_is_the_slope_of_the_cost() {
    for (shape, costs, a, b) in problems() {
        for solver in with_entropy() {
            let at = |costs: &[f64]| {
                solve(costs, shape, Masses::given(&a), Masses::given(&b), &solver).unwrap()
            };
            let gradient = cost_gradient(&at(&costs), &costs, Gradient::Implicit).unwrap();
            let expected = slopes(&costs, |costs| at(costs).cost);
            assert_close(&gradient, &expected, SLOPE_TOLERANCE, &format!("{shape:?} {solver:?}"));
        }
    }
}

#[test]
fn the_exact_gradient_is_the_slope_of_the_linear_program() {
    for (shape, costs, a, b) in problems() {
        let at = |costs: &[f64]| {
            solve(costs, shape, Masses::given(&a), Masses::given(&b), &EXACT).unwrap()
        };
        let gradient = cost_gradient(&at(&costs), &costs, Gradient::Exact).unwrap();
        let expected = slopes(&costs, |costs| at(costs).value);
        assert_close(&gradient, &expected, SLOPE_TOLERANCE, &format!("{shape:?}"));
    }
}

#[test]
fn any_loss_of_the_plan_has_its_gradient() {
    // The entropy of the plan: its gradient with respect to P is -(ln P + 1).
    let loss = |found: &Transport| -> f64 {
        found.plan.iter().filter(|entry| entry.2 > 0.0).map(|(_, _, p)| -p * p.ln()).sum()
    };
    for (shape, costs, a, b) in problems() {
        for solver in with_entropy() {
            let at = |costs: &[f64]| {
                solve(costs, shape, Masses::given(&a), Masses::given(&b), &solver).unwrap()
            };
            let found = at(&costs);
            let upstream: Vec<f64> = found
                .plan
                .iter()
                .map(|(_, _, p)| if p > 0.0 { -(p.ln() + 1.0) } else { 0.0 })
                .collect();
            let gradient = plan_gradient(&found, &upstream).unwrap();
            let expected = slopes(&costs, |costs| loss(&at(costs)));
            let size = expected.iter().fold(0.0_f64, |size, x| size.max(x.abs()));
            if size < 1e-9 {
                // One row or one column: the plan cannot move.
                assert!(gradient.iter().all(|x| x.abs() < 1e-9), "{shape:?} {solver:?}");
                continue;
            }
            assert_close(&gradient, &expected, SLOPE_TOLERANCE, &format!("{shape:?} {solver:?}"));
        }
    }
}

/// `<P, C>` after `k` sweeps of log-domain Sinkhorn with uniform masses, and its gradient through all of them, by
/// tangents: what automatic differentiation of an unrolled loop gives.
fn unrolled(costs: &[f64], [n, m]: [usize; 2], epsilon: f64, k: usize) -> (f64, Vec<f64>) {
    let mut value = 0.0;
    let gradient = (0..n * m)
        .map(|cell| {
            let moved = |i: usize, j: usize| f64::from(u8::from(i * m + j == cell));
            let (mut f, mut g) = (vec![[0.0; 2]; n], vec![[0.0; 2]; m]);
            // A soft minimum over pairs of value and tangent.
            let soft = |pairs: Vec<[f64; 2]>| {
                let low = pairs.iter().fold(f64::INFINITY, |low, x| low.min(x[0]));
                let weights: Vec<f64> =
                    pairs.iter().map(|x| ((low - x[0]) / epsilon).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let tangent = pairs.iter().zip(&weights).map(|(x, w)| x[1] * w / sum).sum();
                [low - epsilon * (sum / pairs.len() as f64).ln(), tangent]
            };
            for _ in 0..k {
                for i in 0..n {
                    let pair = |j: usize| [costs[i * m + j] - g[j][0], moved(i, j) - g[j][1]];
                    f[i] = soft((0..m).map(pair).collect());
                }
                for j in 0..m {
                    let pair = |i: usize| [costs[i * m + j] - f[i][0], moved(i, j) - f[i][1]];
                    g[j] = soft((0..n).map(pair).collect());
                }
            }
            let mut tangent = 0.0;
            value = 0.0;
            for i in 0..n {
                for j in 0..m {
                    let cost = costs[i * m + j];
                    let p = ((f[i][0] + g[j][0] - cost) / epsilon).exp() / (n * m) as f64;
                    let of_p = p * (f[i][1] + g[j][1] - moved(i, j)) / epsilon;
                    value += p * cost;
                    tangent += of_p * cost + p * moved(i, j);
                }
            }
            tangent
        })
        .collect();
    (value, gradient)
}

#[test]
fn the_implicit_gradient_is_what_unrolled_sweeps_approach() {
    for shape in [[9, 4], [4, 7]] {
        let costs = numbers(shape[0] * shape[1], 5);
        let found = transport(&costs, shape, &newton(0.1));
        let gradient = cost_gradient(&found, &costs, Gradient::Implicit).unwrap();
        let (value, unrolled_gradient) = unrolled(&costs, shape, 0.1, 2_000);
        assert!((value - found.cost).abs() < 1e-10, "{value} {}", found.cost);
        assert_close(&gradient, &unrolled_gradient, 1e-9, "unrolled");
        // Few sweeps are another function, and the plan alone is not this gradient.
        let (_, early) = unrolled(&costs, shape, 0.1, 2);
        let apart =
            |x: &[f64]| x.iter().zip(&gradient).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        assert!(apart(&early) > 1e-3 && apart(&found.plan.to_dense()) > 1e-3);
    }
}

#[test]
fn gradients_reach_the_embeddings() {
    // Two problems, of 5 x 3 and 2 x 4, in four dimensions; the order prior adds a constant to every cost.
    let batch = Batch::new(&[0, 5, 7], &[0, 3, 7]).unwrap();
    let [x, y]: [Vec<f64>; 2] =
        [1, 2].map(|seed| numbers(28, seed).iter().map(|x| 2.0 * x - 1.0).collect());
    for metric in [Metric::Cosine, Metric::SquaredEuclidean] {
        let solved = |x: &[f64], y: &[f64]| {
            let mut costs = embedding_costs(metric, x, y, 4, &batch).unwrap();
            add_order_prior(&mut costs, &batch, 0.5, false).unwrap();
            let solver = newton(0.2);
            let found =
                solve_batch(&costs, &batch, Masses::UNIFORM, Masses::UNIFORM, &solver).unwrap();
            (found, costs)
        };
        let loss = |x: &[f64], y: &[f64]| solved(x, y).0.iter().map(|found| found.cost).sum();
        let (found, costs) = solved(&x, &y);
        let gradient = batch_cost_gradient(&found, &costs, &batch, Gradient::Implicit).unwrap();
        let [of_x, of_y] = pull_back(metric, &x, &y, 4, &batch, &gradient).unwrap();
        let what = format!("{metric:?}");
        assert_close(&of_x, &slopes(&x, |x| loss(x, &y)), SLOPE_TOLERANCE, &what);
        assert_close(&of_y, &slopes(&y, |y| loss(&x, y)), SLOPE_TOLERANCE, &what);
    }
}

#[test]
fn gradients_of_a_batch_are_packed_as_its_costs() {
    let batch = Batch::new(&[0, 3, 8], &[0, 2, 6]).unwrap();
    let costs = numbers(26, 8);
    let found =
        solve_batch(&costs, &batch, Masses::UNIFORM, Masses::UNIFORM, &newton(0.1)).unwrap();
    let packed = batch_cost_gradient(&found, &costs, &batch, Gradient::Implicit).unwrap();
    let second = cost_gradient(&found[1], &costs[6..], Gradient::Implicit).unwrap();
    assert_eq!(packed[6..], second);
    let exact = solve_batch(&costs, &batch, Masses::UNIFORM, Masses::UNIFORM, &EXACT).unwrap();
    assert_eq!(
        cost_gradient(&exact[0], &costs[..6], Gradient::Implicit).unwrap_err().to_string(),
        "the gradient mode implicit found a plan without, expected a plan with entropy"
    );
    assert!(cost_gradient(&found[0], &costs[..6], Gradient::Exact).is_err());
    assert!(cost_gradient(&found[0], &costs[..5], Gradient::Envelope).is_err());
    assert!(plan_gradient(&found[0], &[0.0; 5]).is_err());
}

#[test]
fn a_problem_alone_is_the_problem_in_a_batch() {
    let shapes = [[60, 7], [3, 2], [9, 9], [40, 12], [1, 1]];
    let (mut rows, mut columns, mut costs) = (vec![0], vec![0], vec![]);
    for (i, [n, m]) in shapes.into_iter().enumerate() {
        rows.push(rows[i] + n);
        columns.push(columns[i] + m);
        costs.extend(numbers(n * m, i as u64).iter().map(|&x| x as f32));
    }
    let batch = Batch::new(&rows, &columns).unwrap();
    for solver in all() {
        let found = solve_batch(&costs, &batch, Masses::UNIFORM, Masses::UNIFORM, &solver).unwrap();
        for (problem, found) in found.iter().enumerate() {
            let costs = &costs[batch.cells(problem)];
            let alone =
                solve(costs, shapes[problem], Masses::UNIFORM, Masses::UNIFORM, &solver).unwrap();
            assert_eq!(*found, alone, "{solver:?}");
        }
    }
}

#[test]
fn lines_in_another_order_give_the_plan_in_that_order() {
    let [n, m] = [11, 5];
    let costs = numbers(n * m, 3);
    let (row, column) = (|i: usize| i * 4 % n, |j: usize| j * 2 % m);
    let shuffled: Vec<f64> = (0..n * m).map(|at| costs[row(at / m) * m + column(at % m)]).collect();
    for solver in all().into_iter().filter(|solver| !matches!(solver, Solver::Monotone(_))) {
        let [found, other] = [&costs, &shuffled].map(|costs| transport(costs, [n, m], &solver));
        assert!((found.value - other.value).abs() < 1e-11, "{solver:?}");
        let plan = found.plan.to_dense();
        let expected: Vec<f64> =
            (0..n * m).map(|at| plan[row(at / m) * m + column(at % m)]).collect();
        assert_close(&other.plan.to_dense(), &expected, 1e-9, &format!("{solver:?}"));
    }
}

#[test]
fn rows_and_columns_trade_places() {
    let [n, m] = [9, 4];
    let costs = numbers(n * m, 6);
    let turned: Vec<f64> = (0..n * m).map(|at| costs[at % n * m + at / n]).collect();
    for solver in [EXACT, sinkhorn(0.05), newton(0.05)] {
        let [found, other] =
            [transport(&costs, [n, m], &solver), transport(&turned, [m, n], &solver)];
        let plan = other.plan.to_dense();
        let expected: Vec<f64> = (0..n * m).map(|at| plan[at % m * n + at / m]).collect();
        assert_close(&found.plan.to_dense(), &expected, 1e-9, &format!("{solver:?}"));
    }
}

/// The same solver for costs in other units.
fn scaled(solver: &Solver, by: f64) -> Solver {
    match *solver {
        Solver::Sinkhorn(s) => Solver::Sinkhorn(Sinkhorn { epsilon: s.epsilon * by, ..s }),
        Solver::Newton(s) => Solver::Newton(Newton { epsilon: s.epsilon * by, ..s }),
        Solver::SemiRelaxed(s) => Solver::SemiRelaxed(SemiRelaxed { epsilon: s.epsilon * by }),
        Solver::Unbalanced(s) => {
            Solver::Unbalanced(Unbalanced { epsilon: s.epsilon * by, tau: s.tau * by, ..s })
        }
        other => other,
    }
}

#[test]
fn units_and_origin_of_the_costs_do_not_matter() {
    let shape = [12, 5];
    let costs = numbers(60, 4);
    for solver in all() {
        let found = transport(&costs, shape, &solver);
        let plan = found.plan.to_dense();
        for scale in [1e-8, 1e8, 1e30] {
            let other: Vec<f64> = costs.iter().map(|cost| cost * scale).collect();
            let other = transport(&other, shape, &scaled(&solver, scale));
            assert!((other.value / scale - found.value).abs() < 1e-11, "{solver:?} {scale}");
            assert_close(&other.plan.to_dense(), &plan, 1e-9, &format!("{solver:?} {scale}"));
        }
        for shift in [-3.0, 7.0] {
            let other: Vec<f64> = costs.iter().map(|cost| cost + shift).collect();
            let other = transport(&other, shape, &solver);
            assert!((other.value - shift - found.value).abs() < 1e-11, "{solver:?} {shift}");
            assert_close(&other.plan.to_dense(), &plan, 1e-9, &format!("{solver:?} {shift}"));
        }
        // Twice the mass, twice the value.
        let (a, b) = ([2.0 / 12.0; 12], [2.0 / 5.0; 5]);
        let other = solve(&costs, shape, Masses::given(&a), Masses::given(&b), &solver).unwrap();
        assert!((other.value - 2.0 * found.value).abs() < 1e-11, "{solver:?}");
        assert!(other.marginal_error < 1e-9);
    }
}

#[test]
fn a_column_may_be_split_into_equals() {
    // The last of three columns twice, with half its mass each.
    let costs = numbers(24, 9);
    let split: Vec<f64> =
        costs.chunks(3).flat_map(|row| [row[0], row[1], row[2], row[2]]).collect();
    let (b, halves) = ([0.2, 0.3, 0.5], [0.2, 0.3, 0.25, 0.25]);
    for solver in all().into_iter().filter(|solver| !matches!(solver, Solver::Monotone(_))) {
        let found = solve(&costs, [8, 3], Masses::UNIFORM, Masses::given(&b), &solver).unwrap();
        let other =
            solve(&split, [8, 4], Masses::UNIFORM, Masses::given(&halves), &solver).unwrap();
        assert!(other.status.is_solved() && other.marginal_error < 1e-9, "{solver:?}");
        assert!((found.value - other.value).abs() < 1e-11, "{solver:?}");
    }
}

#[test]
fn equal_costs_leave_only_the_masses() {
    let costs = [0.25_f32; 35];
    let (a, b) = (masses(7, 1), masses(5, 2));
    for solver in all() {
        let found = solve(&costs, [7, 5], Masses::given(&a), Masses::given(&b), &solver).unwrap();
        assert!((found.cost - 0.25).abs() < 1e-12, "{solver:?}");
        assert!(found.status.is_solved() && found.marginal_error < 1e-9, "{solver:?}");
        if matches!(solver, Solver::Sinkhorn(_) | Solver::Newton(_) | Solver::Unbalanced(_)) {
            // No reason to prefer: the product of the masses, whose divergence is zero.
            let product: Vec<f64> = a.iter().flat_map(|a| b.iter().map(move |b| a * b)).collect();
            assert_close(&found.plan.to_dense(), &product, 1e-10, &format!("{solver:?}"));
            assert!((found.value - 0.25).abs() < 1e-12);
        }
    }
}

#[test]
fn one_row_and_one_column_have_one_plan() {
    for solver in all() {
        let found = solve(&[3.5_f32], [1, 1], Masses::UNIFORM, Masses::UNIFORM, &solver).unwrap();
        assert!((found.value - 3.5).abs() < 1e-12, "{solver:?}");
        assert_close(&found.plan.to_dense(), &[1.0], 1e-12, "one by one");
    }
}

#[test]
fn lines_without_mass_get_nothing_and_still_have_potentials() {
    let costs = numbers(30, 12);
    let (a, b) = (masses(6, 3), masses(5, 4));
    for solver in [EXACT, sinkhorn(0.1), newton(0.1), unbalanced(0.1, 0.3), semi_relaxed(0.1)] {
        let found = solve(&costs, [6, 5], Masses::given(&a), Masses::given(&b), &solver).unwrap();
        assert!(found.status.is_solved() && found.marginal_error < 1e-9);
        for (row, column, mass) in found.plan.iter() {
            assert!(mass == 0.0 || (a[row] > 0.0 && b[column] > 0.0), "{solver:?}");
        }
        let duals = found.duals.unwrap();
        assert!(duals.f.iter().chain(&duals.g).all(|value| value.is_finite()), "{solver:?}");
        if solver == EXACT {
            for (at, cost) in costs.iter().enumerate() {
                assert!(duals.f[at / 5] + duals.g[at % 5] <= cost + 1e-12);
            }
        }
    }
}

#[test]
fn potentials_give_the_plan() {
    let costs = numbers(48, 13);
    let (a, b) = (masses(6, 5), masses(8, 6));
    for solver in with_entropy() {
        let found = solve(&costs, [6, 8], Masses::given(&a), Masses::given(&b), &solver).unwrap();
        let Duals { f, g } = found.duals.as_ref().unwrap();
        let epsilon = found.smoothing.unwrap().epsilon;
        let plan: Vec<f64> = (0..48)
            .map(|at| a[at / 8] * b[at % 8] * ((f[at / 8] + g[at % 8] - costs[at]) / epsilon).exp())
            .collect();
        assert_close(&found.plan.to_dense(), &plan, 1e-10, &format!("{solver:?}"));
    }
}

#[test]
fn small_entropy_approaches_the_linear_program() {
    let costs = numbers(400, 14);
    let exact = transport(&costs, [40, 10], &EXACT);
    let mut last = f64::INFINITY;
    for epsilon in [0.1, 0.01, 0.001, 0.0001] {
        let found = transport(&costs, [40, 10], &newton(epsilon));
        let gap = found.cost - exact.cost;
        assert!(gap > -1e-9 && gap < last, "{epsilon}: {gap}");
        last = gap;
    }
    assert!(last < 1e-3, "{last}");
}

#[test]
fn what_is_not_reached_is_said() {
    let costs = numbers(150 * 12, 15);
    let at = |solver: Solver| {
        solve(&costs, [150, 12], Masses::UNIFORM, Masses::UNIFORM, &solver).unwrap()
    };
    let few =
        at(Solver::Sinkhorn(Sinkhorn { epsilon: 0.01, max_iterations: 2, ..Sinkhorn::default() }));
    assert_eq!(few.status, Status::NotConverged);
    assert!(few.marginal_error > 1e-6 && few.iterations == 2);
    let impossible = Sinkhorn { tolerance: 1e-300, max_iterations: 2_000, ..Sinkhorn::default() };
    assert_eq!(at(Solver::Sinkhorn(impossible)).status, Status::NotConverged);
    let fallen =
        at(Solver::Newton(Newton { epsilon: 0.01, max_iterations: 1, ..Newton::default() }));
    assert_eq!(fallen.status, Status::FellBack);
    assert!(fallen.marginal_error <= 1.1e-6);
    let one = at(Solver::Exact(Exact { max_iterations: 1 }));
    assert_eq!((one.status, one.iterations), (Status::NotConverged, 1));
    assert!(one.marginal_error > 0.0);
}

#[test]
fn input_that_makes_no_sense_is_refused() {
    let message = |costs: &[f64], shape, solver: Solver| {
        solve(costs, shape, Masses::UNIFORM, Masses::UNIFORM, &solver).unwrap_err().to_string()
    };
    let nan = [0.0, 1.0, 2.0, f64::NAN];
    assert_eq!(
        message(&nan, [2, 2], EXACT),
        "problem 0: the cost at [1, 1] is NaN, expected a finite number up to 1e100"
    );
    assert!(message(&[f64::NEG_INFINITY], [1, 1], newton(0.1)).contains("at [0, 0] is -inf"));
    assert_eq!(message(&[0.0; 3], [2, 2], EXACT), "costs: 3 values, expected 4");
    assert!(message(&[], [0, 2], EXACT).contains("a problem has a row and a column"));
    for epsilon in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        for solver in [sinkhorn(epsilon), newton(epsilon), unbalanced(epsilon, 1.0)] {
            assert!(message(&[0.0], [1, 1], solver).starts_with("epsilon is "));
        }
    }
    assert!(message(&[0.0], [1, 1], semi_relaxed(-1.0)).starts_with("epsilon is -1"));
    assert!(message(&[0.0], [1, 1], unbalanced(0.1, 0.0)).starts_with("tau is 0"));
    let eager = Sinkhorn { max_relaxation: 2.0, ..Sinkhorn::default() };
    assert_eq!(
        message(&[0.0], [1, 1], Solver::Sinkhorn(eager)),
        "max_relaxation is 2, expected 1 to below 2"
    );
    let given = |a: &[f64], b: &[f64]| {
        solve(&[0.0; 4], [2, 2], Masses::given(a), Masses::given(b), &EXACT)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        given(&[1.0, 1.0], &[1.0, 0.5]),
        "problem 0: the rows hold 2 and the columns 1.5, expected the same within 1e-6 of it"
    );
    // The first problem that has an error is the one that is named.
    let batch = Batch::new(&[0, 1, 2, 3], &[0, 1, 2, 3]).unwrap();
    let costs = [0.0, f64::NAN, f64::INFINITY];
    let error = solve_batch(&costs, &batch, Masses::UNIFORM, Masses::UNIFORM, &EXACT).unwrap_err();
    assert!(matches!(error, Error::Cost { problem: 1, .. }), "{error}");
}

#[test]
fn the_pad_gets_its_share() {
    let costs = numbers(40, 16);
    let columns = Masses::counts(&[2, 1, 1, 0]).with_pad(&[0.4]);
    for solver in [EXACT, sinkhorn(0.1), newton(0.1)] {
        let found = solve(&costs, [10, 4], Masses::UNIFORM, columns, &solver).unwrap();
        assert_close(&found.plan.column_sums(), &[0.3, 0.15, 0.15, 0.4], 1e-10, "columns");
    }
}

#[test]
fn costs_far_from_epsilon_are_solved_or_said_not_to_be() {
    let costs = numbers(20 * 6, 17);
    let exact = transport(&costs, [20, 6], &EXACT);
    // Costs that do not matter: the product of the masses.
    let small: Vec<f64> = costs.iter().map(|cost| cost * 1e-8).collect();
    for solver in [sinkhorn(0.05), newton(0.05), unbalanced(0.05, 0.5), semi_relaxed(0.05)] {
        let found = transport(&small, [20, 6], &solver);
        assert_close(&found.plan.to_dense(), &[1.0 / 120.0; 120], 1e-6, &format!("{solver:?}"));
    }
    // An entropy that does not: the linear program, where rounding leaves it in reach.
    for scale in [1e4, 1e8] {
        let large: Vec<f64> = costs.iter().map(|cost| cost * scale).collect();
        for solver in [
            Solver::Newton(Newton::default()),
            Solver::Sinkhorn(Sinkhorn { max_iterations: 5_000, ..Sinkhorn::default() }),
        ] {
            let found = solve(&large, [20, 6], Masses::UNIFORM, Masses::UNIFORM, &solver).unwrap();
            let again = marginal_error(&found, &[1.0 / 20.0; 20], &[1.0 / 6.0; 6]);
            assert!((again - found.marginal_error).abs() < 1e-9, "{solver:?} {scale}");
            if found.status.is_solved() {
                assert!(again < 2e-6, "{solver:?} {scale}: {again}");
                let gap = (found.cost / scale - exact.cost).abs();
                assert!(gap < 1e-5, "{solver:?} {scale}: {gap}");
            }
        }
    }
}

#[test]
fn a_column_twice_gets_the_same_twice() {
    let costs = numbers(9 * 3, 18);
    let twice: Vec<f64> =
        costs.chunks(3).flat_map(|row| [row[0], row[1], row[2], row[1]]).collect();
    for solver in [sinkhorn(0.1), newton(0.1), semi_relaxed(0.1), unbalanced(0.1, 0.3)] {
        let plan = transport(&twice, [9, 4], &solver).plan.to_dense();
        for row in plan.chunks(4) {
            assert!((row[1] - row[3]).abs() < 1e-10, "{solver:?} {row:?}");
        }
    }
}

/// What `marginal_error` says, from the plan itself, for solvers that hold both sides.
fn marginal_error(found: &Transport, a: &[f64], b: &[f64]) -> f64 {
    let [rows, columns] = [found.plan.row_sums(), found.plan.column_sums()];
    let total: f64 = a.iter().sum();
    let sums = rows.iter().zip(a).chain(columns.iter().zip(b));
    sums.map(|(sum, mass)| (sum - mass).abs()).sum::<f64>() / total
}

proptest! {
    #[test]
    fn the_marginal_error_is_the_plan_s(
        n in 1_usize..30,
        m in 1_usize..30,
        seed in any::<u32>(),
        scale in prop_oneof![Just(1e-8), Just(1.0), Just(1e8)],
        total in prop_oneof![Just(1.0), Just(40.0)],
    ) {
        let seed = u64::from(seed);
        let costs: Vec<f64> = numbers(n * m, seed).iter().map(|cost| cost * scale).collect();
        let [a, b] = [(n, seed + 1), (m, seed + 2)]
            .map(|(n, seed)| masses(n, seed).iter().map(|mass| mass * total).collect::<Vec<_>>());
        for solver in [EXACT, scaled(&newton(0.05), scale), scaled(&sinkhorn(0.2), scale)] {
            let found =
                solve(&costs, [n, m], Masses::given(&a), Masses::given(&b), &solver).unwrap();
            let again = marginal_error(&found, &a, &b);
            prop_assert!((again - found.marginal_error).abs() < 1e-11, "{solver:?} {again}");
            prop_assert!(!found.status.is_solved() || again < 1e-11, "{solver:?} {again}");
            let cost: f64 = found.plan.iter().map(|(i, j, mass)| mass * costs[i * m + j]).sum();
            prop_assert!((cost - found.cost).abs() < 1e-12 * scale * total, "{solver:?} {cost}");
            prop_assert!(found.plan.iter().all(|(_, _, mass)| mass >= 0.0));
        }
    }

    #[test]
    fn any_order_of_lines_gives_the_same_value(
        n in 1_usize..20,
        m in 1_usize..20,
        seed in any::<u32>(),
    ) {
        let costs = numbers(n * m, u64::from(seed));
        let order = |n: usize, seed: u64| {
            let keys = numbers(n, seed);
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|&i, &j| keys[i].total_cmp(&keys[j]));
            order
        };
        let (rows, columns) = (order(n, u64::from(seed) + 1), order(m, u64::from(seed) + 2));
        let shuffled: Vec<f64> =
            rows.iter().flat_map(|i| columns.iter().map(|j| costs[*i * m + *j]).collect::<Vec<_>>()).collect();
        for solver in [EXACT, newton(0.05), semi_relaxed(0.05), unbalanced(0.2, 0.3)] {
            let [one, other] = [&costs, &shuffled].map(|costs| transport(costs, [n, m], &solver));
            prop_assert!((one.value - other.value).abs() < 1e-10, "{solver:?}");
        }
    }

    #[test]
    fn duals_certify_exact_plans(
        n in 1_usize..14,
        m in 1_usize..9,
        seed in any::<u32>(),
        // Few different costs make ties, many do not.
        levels in prop_oneof![Just(2.0), Just(5.0), Just(1e6)],
        with_counts in any::<bool>(),
    ) {
        let seed = u64::from(seed);
        let costs: Vec<f64> = numbers(n * m, seed).iter().map(|x| (x * levels).floor() / levels).collect();
        let counts = |n, seed| numbers(n, seed).iter().map(|x| 1 + (x * 4.0) as u32).collect::<Vec<_>>();
        let (a, b) = (counts(n, seed + 1), counts(m, seed + 2));
        let [a, b] = if with_counts { [Masses::counts(&a), Masses::counts(&b)] } else { [Masses::UNIFORM; 2] };
        let found = solve(&costs, [n, m], a, b, &EXACT).unwrap();
        prop_assert_eq!(found.status, Status::Optimal);
        prop_assert_eq!(found.marginal_error, 0.0);
        let duals = found.duals.as_ref().unwrap();
        for (at, cost) in costs.iter().enumerate() {
            prop_assert!(duals.f[at / m] + duals.g[at % m] <= cost + 1e-12);
        }
        let sums = [found.plan.row_sums(), found.plan.column_sums()];
        let dual: f64 = [&duals.f, &duals.g]
            .iter()
            .zip(&sums)
            .map(|(potentials, sums)| potentials.iter().zip(sums).map(|(x, y)| x * y).sum::<f64>())
            .sum();
        prop_assert!((dual - found.value).abs() < 1e-12, "{dual} {}", found.value);
    }

    #[test]
    fn solvers_with_entropy_agree(
        n in 1_usize..40,
        m in 1_usize..12,
        seed in any::<u32>(),
        epsilon in prop_oneof![Just(1.0), Just(0.1), Just(0.02)],
    ) {
        let costs = numbers(n * m, u64::from(seed));
        let (a, b) = (masses(n, u64::from(seed) + 1), masses(m, u64::from(seed) + 2));
        let at = |solver: &Solver| solve(&costs, [n, m], Masses::given(&a), Masses::given(&b), solver).unwrap();
        let [first, second] = [
            at(&Solver::Sinkhorn(Sinkhorn { epsilon, tolerance: 1e-9, ..Sinkhorn::default() })),
            at(&Solver::Newton(Newton { epsilon, tolerance: 1e-9, ..Newton::default() })),
        ];
        for found in [&first, &second] {
            prop_assert!(found.status.is_solved(), "{:?} {:e}", found.status, found.marginal_error);
            prop_assert!(found.marginal_error < 2e-9);
        }
        prop_assert!((first.value - second.value).abs() < 1e-7, "{} {}", first.value, second.value);
        prop_assert!((first.cost - second.cost).abs() < 1e-6, "{} {}", first.cost, second.cost);
        // The linear program is cheaper, and the divergence is not negative.
        let exact = at(&EXACT);
        prop_assert!(exact.cost <= second.cost + 1e-9);
        prop_assert!(second.value >= second.cost - 1e-12);
    }
}
