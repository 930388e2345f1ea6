//! What the program says: data to stdout, talk to stderr, errors once.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use serde::Serialize;

/// A mistake in what the user gave.
const USER_ERROR: u8 = 2;
/// Stopped by Ctrl-C, as shells count it.
const INTERRUPTED: u8 = 130;

/// The command was interrupted after saving; everything has been said already.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Prints an error and gives the exit code that belongs to it.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<Interrupted>() {
        return ExitCode::from(INTERRUPTED);
    }
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    // Nobody reads any more, as with `sandhi … | head`.
    if error.chain().any(closed) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", message(error));
    ExitCode::from(USER_ERROR)
}

/// The chain of an error, without causes that the error before them has already told.
pub fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(cause.trim()) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Prints text to stdout; a line end is added where there is none.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

/// Prints a value to stdout as indented JSON.
pub fn print_json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value).context("cannot write JSON")?)
}

/// Writes text to a file, whole or not at all, or to stdout without one.
pub fn write(out: Option<&Path>, text: &str) -> anyhow::Result<()> {
    match out {
        None if text.is_empty() => Ok(()),
        None => print(text),
        Some(path) => Ok(sandhi_lab::checkpoint::write_atomically(path, text.as_bytes())?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_not_told_twice() {
        let cause = io::Error::other("no such file");
        let error = anyhow::Error::new(cause).context("x.wav: no such file");
        assert_eq!(message(&error.context("reading sound")), "reading sound: x.wav: no such file");
    }
}
