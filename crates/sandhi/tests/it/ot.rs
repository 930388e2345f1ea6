use std::{fs, path::Path};

use sandhi_lab::npy;
use serde_json::Value;

use super::{Ran, sandhi};

/// Four frames, two tokens: the third frame prefers the first token, which has enough.
const COSTS: [f64; 8] = [0.1, 0.9, 0.2, 0.8, 0.4, 0.5, 0.9, 0.1];

/// A folder with the costs in every form, and masses.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: Vec<u8>| fs::write(dir.path().join(name), bytes).unwrap();
    put("c64.npy", npy::to_bytes(&[4, 2], &COSTS));
    put("c32.npy", npy::to_bytes(&[4, 2], &COSTS.map(|x| x as f32)));
    put("turned.npy", fortran());
    put("a.npy", npy::to_bytes(&[4], &[0.25_f64, 0.25, 0.25, 0.25]));
    put("b.npy", npy::to_bytes(&[2], &[0.625_f32, 0.375]));
    dir
}

/// The same costs, column by column, as NumPy writes such an array.
fn fortran() -> Vec<u8> {
    let header = "{'descr': '<f8', 'fortran_order': True, 'shape': (4, 2), }";
    let header = format!("{header:<117}\n");
    let mut bytes = [b"\x93NUMPY\x01\x00", &118_u16.to_le_bytes()[..], header.as_bytes()].concat();
    let columns = [0, 2, 4, 6, 1, 3, 5, 7];
    bytes.extend(columns.iter().flat_map(|&at: &usize| COSTS[at].to_le_bytes()));
    bytes
}

fn ot(dir: &Path, args: &[&str]) -> Ran {
    sandhi(dir, &[&["ot"], args].concat())
}

fn lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn matrix(path: &Path) -> Vec<f64> {
    let array = npy::read(path).unwrap();
    assert_eq!(array.shape, [4, 2]);
    array.values.into_f64()
}

#[test]
fn every_form_of_a_matrix_is_the_same_problem() {
    let dir = folder();
    let args = ["--cost", "c64.npy", "c32.npy", "turned.npy", "--solver", "exact", "--json"];
    let found = lines(&ot(dir.path(), &args).works());
    assert_eq!(found.len(), 3);
    for line in &found {
        // Frames 0 and 1 to the first token, 2 and 3 to the second.
        assert!((line["value"].as_f64().unwrap() - 0.225).abs() < 1e-8, "{line}");
        assert_eq!((&line["status"], &line["shape"][0]), (&"optimal".into(), &4.into()));
        assert!(line["marginal_error"] == 0.0 && line["seconds"].as_f64().unwrap() > 0.0);
        assert!(line["iterations"].is_u64() && line.get("gradient_seconds").is_none());
    }
    assert_eq!(found[2]["file"], "turned.npy");
    let text = ot(dir.path(), &["--cost", "c32.npy"]).works();
    assert!(text.starts_with("c32.npy: 4 x 2, newton: value ") && text.contains("converged"));
}

#[test]
fn plans_and_gradients_are_written() {
    let dir = folder();
    let at = |name: &str| matrix(&dir.path().join(name));
    ot(dir.path(), &["--cost", "c64.npy", "--solver", "exact", "--plan", "p.npy"]).works();
    assert_eq!(at("p.npy"), [0.25, 0.0, 0.25, 0.0, 0.0, 0.25, 0.0, 0.25]);
    // Five eighths of the mass belong to the first token, so that the third frame is split.
    let masses = ["--a", "a.npy", "--b", "b.npy"];
    let args = ["--cost", "turned.npy", "--epsilon", "0.2", "--plan", "p.npy", "--grad", "g.npy"];
    let out = ot(dir.path(), &[&args[..], &masses, &["--json"]].concat()).works();
    assert!(lines(&out)[0]["gradient_seconds"].as_f64().unwrap() > 0.0);
    let plan = at("p.npy");
    let columns = [0, 1].map(|j| (0..4).map(|i| plan[2 * i + j]).sum::<f64>());
    assert!((columns[0] - 0.625).abs() < 2e-6 && (columns[1] - 0.375).abs() < 2e-6, "{plan:?}");
    assert_eq!(at("g.npy"), plan, "the envelope's gradient is the plan");
    // Through the plan it is another one, and sums to one with it: a constant on all costs is paid in full.
    ot(dir.path(), &[&args[..], &masses, &["--gradient", "implicit"]].concat()).works();
    let implicit = at("g.npy");
    assert!(implicit.iter().zip(&plan).any(|(x, y)| (x - y).abs() > 1e-3), "{implicit:?}");
    assert!((implicit.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    // Several problems go into a folder, under their names.
    let args = ["--cost", "c64.npy", "c32.npy", "--solver", "monotone", "--plan", "out/plans"];
    ot(dir.path(), &args).works();
    assert_eq!(at("out/plans/c64.npy"), at("out/plans/c32.npy"));
    assert_eq!(fs::read_dir(dir.path().join("out/plans")).unwrap().count(), 2);
}

#[test]
fn every_solver_runs_with_its_settings() {
    let dir = folder();
    let value = |args: &[&str]| {
        let args = [&["--cost", "c64.npy", "--json", "--solver"], args].concat();
        lines(&ot(dir.path(), &args).works())[0]["value"].as_f64().unwrap()
    };
    let [newton, sinkhorn] = ["newton", "sinkhorn"].map(|solver| value(&[solver]));
    assert!((newton - sinkhorn).abs() < 1e-5, "{newton} {sinkhorn}");
    assert!(value(&["newton", "--epsilon", "0.5"]) > newton);
    // Every row to its nearest: 0.1, 0.2, 0.4 and 0.1.
    assert!((value(&["semi-relaxed", "--epsilon", "0"]) - 0.2).abs() < 1e-12);
    let unbalanced = value(&["unbalanced", "--tau", "0.01", "--tolerance", "1e-9"]);
    assert!(unbalanced < newton, "{unbalanced} {newton}");
    assert!((value(&["monotone"]) - 0.2).abs() < 1e-12);
    // The second column as a pad: the last row alone rests on it, at 0.1.
    assert!((value(&["monotone", "--pad"]) - 0.2).abs() < 1e-12);
    // Rows at 1/8 to 7/8, columns at 1/4 and 3/4: every row is 1/8 from its column.
    let prior = value(&["exact", "--order-weight", "64"]);
    assert!((prior - 1.225).abs() < 1e-12, "{prior}");
}

#[test]
fn what_is_not_solved_is_said() {
    let dir = folder();
    let few = ["--cost", "c64.npy", "--json", "--solver", "sinkhorn", "--max-iterations", "1"];
    let few = [&few[..], &["--tolerance", "1e-12", "--epsilon", "0.01"]].concat();
    let ran = ot(dir.path(), &few);
    assert!(ran.err.contains("1 of 1 problems not solved"), "{}", ran.err);
    assert_eq!(lines(&ran.works())[0]["status"], "not-converged");
    let ran = ot(dir.path(), &[&few[..], &["--strict", "--plan", "p.npy"]].concat());
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("error: 1 of 1 problems not solved"), "{}", ran.err);
    assert_eq!(lines(&ran.out)[0]["status"], "not-converged");
    assert!(dir.path().join("p.npy").exists());
    // Newton falls back on sweeps, and says so; that is solved.
    let args = ["--cost", "c64.npy", "--json", "--max-iterations", "1", "--strict"];
    let more = ["--b", "b.npy", "--tolerance", "1e-11"];
    let out = ot(dir.path(), &[&args[..], &more].concat()).works();
    assert_eq!(lines(&out)[0]["status"], "fell-back");
}

#[test]
fn bad_input_is_refused_by_name() {
    let dir = folder();
    let put = |name: &str, bytes: Vec<u8>| fs::write(dir.path().join(name), bytes).unwrap();
    put("nan.npy", npy::to_bytes(&[2, 2], &[0.0_f32, 1.0, f32::NAN, 3.0]));
    put("flat.npy", npy::to_bytes(&[8], &COSTS));
    put("empty.npy", npy::to_bytes(&[0, 2], &[0.0_f64; 0]));
    put("cut.npy", fortran()[..150].to_vec());
    put("text.npy", b"0.1 0.9".to_vec());
    put("wrong.npy", npy::to_bytes(&[3], &[0.2_f64, 0.3, 0.5]));
    put("heavy.npy", npy::to_bytes(&[2], &[1.0_f64, 1.0]));
    put("minus.npy", npy::to_bytes(&[2], &[1.5_f64, -0.5]));
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::copy(dir.path().join("c64.npy"), dir.path().join("sub/c64.npy")).unwrap();
    let bad = |args: &[&str], parts: &[&str]| ot(dir.path(), args).fails_with(parts);
    let with = |more: &[&str], parts: &[&str]| bad(&[&["--cost", "c64.npy"], more].concat(), parts);

    bad(&["--cost", "none.npy"], &["none.npy"]);
    bad(&["--cost", "text.npy"], &["text.npy", "not a .npy file"]);
    bad(&["--cost", "cut.npy"], &["cut.npy", "[4, 2]", "needs more than the 22 bytes"]);
    bad(&["--cost", "flat.npy"], &["flat.npy", "[8]", "expected [n_rows, n_columns]"]);
    bad(&["--cost", "empty.npy"], &["empty.npy", "a problem has a row and a column"]);
    bad(&["--cost", "nan.npy"], &["nan.npy: the cost at [1, 0] is NaN"]);
    with(&["--a", "wrong.npy"], &["wrong.npy", "[3]", "expected [4]", "rows of c64.npy"]);
    with(&["--b", "heavy.npy"], &["c64.npy", "the rows hold 1 and the columns 2"]);
    with(&["--b", "minus.npy"], &["c64.npy", "mass 1 of the columns is -0.5"]);
    with(&["c32.npy", "--a", "a.npy"], &["--a has 1 files, --cost has 2"]);
    with(&["--epsilon", "0"], &["c64.npy", "epsilon is 0", "positive"]);
    with(&["--tolerance", "nan"], &["tolerance is NaN"]);
    with(&["--order-weight=-1"], &["the order weight is -1"]);
    with(&["--tau", "1"], &["--tau belongs to --solver unbalanced, found --solver newton"]);
    with(
        &["--solver", "exact", "--epsilon", "1"],
        &["--epsilon belongs to", "found --solver exact"],
    );
    let exact = ["--solver", "exact", "--grad", "g.npy", "--gradient", "implicit"];
    with(&exact, &["c64.npy", "the gradient mode implicit"]);
    with(&["--gradient", "exact"], &["--grad"]);
    with(&["c32.npy", "--plan", "p.npy"], &["--plan p.npy", "expected a folder", "2 cost"]);
    with(&["--plan", "sub"], &["--plan sub", "expected a file"]);
    with(&["--plan", "./c64.npy"], &["c64.npy: would be written over"]);
    with(&["--plan", "x.npy", "--grad", "x.npy"], &["x.npy: would be written twice"]);
    with(&["sub/c64.npy", "--plan", "out"], &["out/c64.npy: would be written twice"]);
    with(&["nan.npy", "--plan", "out"], &["nan.npy"]);
    assert!(!dir.path().join("out").exists(), "nothing is written when one problem is bad");
}

#[test]
fn a_comparison_needs_another_side() {
    let dir = tempfile::tempdir().unwrap();
    let bench = |args: &[&str]| sandhi(dir.path(), &[&["bench", "ot"], args].concat());
    bench(&["--python", "./none"]).fails_with(&["--python ./none", "cannot start"]);
    // A program that starts and says nothing.
    bench(&["--python", "true"]).fails_with(&["the other side ended at", "versions"]);
    bench(&["--rounds", "0"]).fails_with(&["--rounds is 0"]);
}
