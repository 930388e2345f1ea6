//! Chores of the repository: what a developer runs now and then and nobody remembers the flags of.
//!
//! ```text
//! cargo run -p xtask -- ci                               what a change must pass
//! cargo run -p xtask -- gpu [--software]                 operations on a GPU, held against the CPU
//! cargo run -p xtask -- golden --python venv/bin/python  makes the golden fixtures again
//! cargo run -p xtask -- fuzz manifest --seconds 600      a bounded run of cargo-fuzz
//! ```

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};

/// Chores of the repository.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Formatting, lints and all tests: runs .ci/run.
    Ci,
    /// Holds the operations of sandhi-nn on a GPU against the CPU; its first build is long.
    Gpu {
        /// Use Mesa's software device (package mesa-vulkan-drivers), also where a GPU is present.
        #[arg(long)]
        software: bool,
    },
    /// Makes golden fixtures again from their references; each script in tools/golden says what it needs.
    Golden {
        /// The Python of an environment that has the references.
        #[arg(long)]
        python: PathBuf,
        /// A script, e.g. `scores`; all when absent.
        name: Option<String>,
        /// Arguments for that script, after `--`.
        #[arg(last = true, requires = "name")]
        arguments: Vec<String>,
    },
    /// Runs a fuzz target for a while; needs a nightly toolchain and cargo-fuzz.
    Fuzz {
        /// A file in fuzz/fuzz_targets, e.g. `manifest`.
        target: String,
        /// How long.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root.canonicalize().context("the repository that xtask was built from is gone")?;
    match Cli::parse().chore {
        Chore::Ci => run(Command::new(root.join(".ci/run")).current_dir(&root)),
        Chore::Gpu { software } => gpu(&root, software),
        Chore::Golden { python, name, arguments } => {
            golden(&root, &python, name.as_deref(), &arguments)
        }
        Chore::Fuzz { target, seconds } => fuzz(&root, &target, seconds),
    }
}

/// Prints the command and runs it; its failure is ours.
fn run(command: &mut Command) -> Result<()> {
    eprintln!("+ {command:?}");
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// Tests that need a device end in `_on_the_gpu`; they exist with the feature `wgpu` only. No feature
/// of the workspace turns autotune on, which would take minutes on a software device.
fn gpu(root: &Path, software: bool) -> Result<()> {
    let cargo = || {
        let mut command = Command::new("cargo");
        command.current_dir(root);
        command.args(["test", "--release", "-p", "sandhi-nn", "--lib", "--features", "wgpu"]);
        if software {
            command.env("CUBECL_WGPU_DEFAULT_DEVICE", "Cpu");
        }
        command.args(["on_the_gpu", "--"]);
        command
    };
    let mut list = cargo();
    list.arg("--list").stderr(Stdio::inherit());
    eprintln!("+ {list:?}");
    let output = list.output().context("cannot start cargo")?;
    ensure!(output.status.success(), "{list:?} ended with {}", output.status);
    let n_tests = n_listed(&String::from_utf8_lossy(&output.stdout));
    ensure!(n_tests > 0, "no test is named ..._on_the_gpu, so nothing would be checked");
    run(cargo().args(["--nocapture", "--test-threads", "1"]))
}

/// Tests in the output of `cargo test -- --list`.
fn n_listed(output: &str) -> usize {
    output.lines().filter(|line| line.ends_with(": test")).count()
}

/// Where a script's standard output belongs, for scripts that do not write their fixtures themselves.
fn printed_fixture(script: &str) -> Option<&'static str> {
    match script {
        "scores" => Some("crates/sandhi-data/tests/golden/scores.json"),
        _ => None,
    }
}

fn golden(root: &Path, python: &Path, name: Option<&str>, arguments: &[String]) -> Result<()> {
    let python = python.to_str().context("the path of Python is not UTF-8")?;
    // A path is meant from where the user stands; a bare name is looked up in PATH.
    let python = if python.contains(std::path::is_separator) {
        std::path::absolute(python)?
    } else {
        PathBuf::from(python)
    };
    let known = stems(&root.join("tools/golden"), "py")?;
    for script in chosen(&known, name, "golden script")? {
        let mut command = Command::new(&python);
        command.current_dir(root).arg(format!("tools/golden/{script}.py")).args(arguments);
        match printed_fixture(script) {
            None => run(&mut command)?,
            Some(fixture) => {
                eprintln!("+ {command:?} > {fixture}");
                command.stderr(Stdio::inherit());
                let output =
                    command.output().with_context(|| format!("cannot start {command:?}"))?;
                ensure!(output.status.success(), "{command:?} ended with {}", output.status);
                fs::write(root.join(fixture), output.stdout)
                    .with_context(|| format!("cannot write {fixture}"))?;
            }
        }
    }
    eprintln!("`git status` shows which fixtures changed");
    Ok(())
}

fn fuzz(root: &Path, target: &str, seconds: u64) -> Result<()> {
    let known = stems(&root.join("fuzz/fuzz_targets"), "rs")?;
    let target = chosen(&known, Some(target), "fuzz target")?.remove(0);
    let corpus = root.join("fuzz/corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
    if target == "decode_audio" {
        let seeds = root.join("crates/sandhi-data/tests/golden/audio");
        for entry in
            fs::read_dir(&seeds).with_context(|| format!("cannot read {}", seeds.display()))?
        {
            let entry = entry?;
            fs::copy(entry.path(), corpus.join(entry.file_name()))?;
        }
    }
    let mut command = Command::new("cargo");
    command.current_dir(root).args(["+nightly", "fuzz", "run", target, "--"]);
    command.arg(format!("-max_total_time={seconds}"));
    run(command.args(["-max_len=65536", "-timeout=20", "-rss_limit_mb=2048"]))
        .context("fuzz/README.md says what has to be installed and what to do with a crash")
}

/// Names of the files in `folder` with this extension, without it, sorted.
fn stems(folder: &Path, extension: &str) -> Result<Vec<String>> {
    let what = || format!("cannot read {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(what)? {
        let path = entry.with_context(what)?.path();
        if path.extension() == Some(OsStr::new(extension))
            && let Some(stem) = path.file_stem().and_then(OsStr::to_str)
        {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The one that is named, or all.
fn chosen<'a>(known: &'a [String], name: Option<&str>, what: &str) -> Result<Vec<&'a str>> {
    let found: Vec<&str> = known
        .iter()
        .map(String::as_str)
        .filter(|one| name.is_none_or(|name| name == *one))
        .collect();
    if found.is_empty() {
        bail!("no {what} is called {:?}; there are {}", name.unwrap_or(""), known.join(", "));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn chores_name_files_that_exist() {
        assert!(root().join(".ci/run").is_file());
        let scripts = stems(&root().join("tools/golden"), "py").unwrap();
        let printing: Vec<_> = scripts.iter().filter_map(|name| printed_fixture(name)).collect();
        assert_eq!(printing.len(), 1, "{scripts:?}");
        assert!(root().join(printing[0]).is_file());
        let targets = stems(&root().join("fuzz/fuzz_targets"), "rs").unwrap();
        assert!(targets.iter().any(|name| name == "decode_audio"), "{targets:?}");
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let known = ["a".to_owned(), "b".to_owned()];
        assert_eq!(chosen(&known, None, "letter").unwrap(), ["a", "b"]);
        assert_eq!(chosen(&known, Some("b"), "letter").unwrap(), ["b"]);
        let error = chosen(&known, Some("c"), "letter").unwrap_err().to_string();
        assert_eq!(error, "no letter is called \"c\"; there are a, b");
    }

    #[test]
    fn listed_tests_are_counted() {
        let output = "ops::elsewhere::agrees_on_the_gpu: test\n\n1 test, 0 benchmarks\n";
        assert_eq!(n_listed(output), 1);
        assert_eq!(n_listed("0 tests, 0 benchmarks\n"), 0);
    }
}
