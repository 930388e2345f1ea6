//! Notes the commit that the program was built from, for `results.json`; a changed tree says so.

use std::process::Command;

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn main() {
    // The log of HEAD is written at every commit and every change of branch; the rest is what a build reads.
    for path in ["build.rs", "..", "../../recipes", "../../weights", "../../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    if let Some(commit) = git(&["describe", "--always", "--dirty", "--exclude", "*"]) {
        println!("cargo::rustc-env=SANDHI_COMMIT={commit}");
    }
}
