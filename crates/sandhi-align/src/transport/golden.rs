//! Held against POT (Flamary et al. 2021); made by `tools/golden/transport.py`.

use serde::Deserialize;

use super::{simd::at_every_width, *};

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    shape: [usize; 2],
    a: Vec<f64>,
    b: Vec<f64>,
    uniform: [bool; 2],
    cost: Vec<f64>,
    exact: f64,
    /// ε, `<P, C>`, the sum of squares of P.
    entropic: Vec<(f64, f64, f64)>,
    /// ε, τ, `<P, C>`, the sum of squares of P.
    unbalanced: Vec<(f64, f64, f64, f64)>,
}

impl Case {
    /// The masses as numbers and, where both are uniform, as such.
    fn masses(&self) -> Vec<[Masses<'_>; 2]> {
        let mut masses = vec![[Masses::given(&self.a), Masses::given(&self.b)]];
        if self.uniform == [true; 2] {
            masses.push([Masses::UNIFORM; 2]);
        }
        masses
    }
}

fn cases() -> Vec<Case> {
    let golden: Golden =
        serde_json::from_str(include_str!("../../tests/golden/transport.json")).unwrap();
    assert!(golden.cases.len() > 10);
    golden.cases
}

#[test]
fn exact_values_are_those_of_the_network_simplex() {
    at_every_width(check_exact);
}

fn check_exact() {
    let solver = Solver::Exact(Exact::default());
    for case in cases() {
        for [a, b] in case.masses() {
            let found = solve(&case.cost, case.shape, a, b, &solver).unwrap();
            let shape = case.shape;
            assert!((found.value - case.exact).abs() < 1e-9, "{shape:?}: {found:?} {}", case.exact);
            assert_eq!(found.status, Status::Optimal);
            let Entries::Sparse { masses, .. } = &found.plan.entries else { panic!("not sparse") };
            assert!(masses.len() < shape[0] + shape[1], "{shape:?}: {} entries", masses.len());
        }
    }
}

/// `<P, C>` and the plan's sum of squares.
fn assert_agrees(found: &Transport, cost: f64, squares: f64, tolerance: f64) {
    let Entries::Dense(plan) = &found.plan.entries else { panic!("not dense") };
    let ours: f64 = plan.iter().map(|p| p * p).sum();
    assert!((found.cost - cost).abs() < tolerance, "{} {cost}", found.cost);
    assert!((ours - squares).abs() < tolerance, "{ours} {squares}");
}

#[test]
fn entropic_plans_are_those_of_converged_sweeps() {
    at_every_width(check_entropic);
}

fn check_entropic() {
    for case in cases() {
        for &(epsilon, cost, squares) in &case.entropic {
            let sweeps = Sinkhorn { epsilon, tolerance: 1e-10, ..Sinkhorn::default() };
            let steps = Newton { epsilon, tolerance: 1e-10, ..Newton::default() };
            for solver in [Solver::Sinkhorn(sweeps), Solver::Newton(steps)] {
                for [a, b] in case.masses() {
                    let found = solve(&case.cost, case.shape, a, b, &solver).unwrap();
                    let shape = case.shape;
                    assert_eq!(found.status, Status::Converged, "{shape:?} {solver:?}");
                    assert!(found.marginal_error < 2e-10, "{shape:?} {solver:?}");
                    assert_agrees(&found, cost, squares, 1e-8);
                }
            }
        }
    }
}

#[test]
fn unbalanced_plans_are_those_of_converged_sweeps() {
    at_every_width(check_unbalanced);
}

fn check_unbalanced() {
    for case in cases() {
        for &(epsilon, tau, cost, squares) in &case.unbalanced {
            let settings = Unbalanced { epsilon, tau, tolerance: 1e-11, ..Unbalanced::default() };
            let solver = Solver::Unbalanced(settings);
            let [a, b] = case.masses()[0];
            let found = solve(&case.cost, case.shape, a, b, &solver).unwrap();
            assert_eq!(found.status, Status::Converged, "{:?} {solver:?}", case.shape);
            assert_agrees(&found, cost, squares, 1e-8);
        }
    }
}
