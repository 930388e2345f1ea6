//! Notes the commit that the program was built from, for `results.json`.

use std::{path::Path, process::Command};

fn main() {
    // Written at every commit and every change of branch.
    let log = "../../.git/logs/HEAD";
    println!("cargo::rerun-if-changed=build.rs");
    if Path::new(log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    let Ok(output) = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output() else {
        return;
    };
    if output.status.success() {
        println!(
            "cargo::rustc-env=SANDHI_COMMIT={}",
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
}
