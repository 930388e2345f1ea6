//! The command line as a user meets it: exit codes, what is on stdout, what on stderr.
//!
//! Nothing here needs a file that is not in the repository; what speaks needs espeak-ng.

mod align;
mod data;
mod hub;
mod lst;
mod ot;
mod otreg;
mod recipes;
mod score;
mod train;
mod units;
mod usage;
mod verify;
mod vocoder;
mod zoo;

use std::{path::Path, process::Command};

/// What a command left.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// Runs `sandhi` in a folder.
fn sandhi(dir: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandhi"));
    let output = command.current_dir(dir).args(args).output().expect("the program starts");
    Ran {
        code: output.status.code().expect("the program ends by itself"),
        out: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        err: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

impl Ran {
    /// A user's mistake: code 2, nothing on stdout, one error that has all these parts.
    #[track_caller]
    fn fails_with(&self, parts: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (2, ""), "{}", self.err);
        assert_eq!(self.err.matches("error:").count(), 1, "{}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in: {}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }

    /// Success; gives stdout.
    #[track_caller]
    fn works(self) -> String {
        assert_eq!(self.code, 0, "{}", self.err);
        self.out
    }

    /// Success with JSON on stdout.
    #[track_caller]
    fn json(self) -> serde_json::Value {
        let out = self.works();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

/// A sine of 440 Hz.
fn sine(path: &Path, seconds: f64) {
    let n = (16_000.0 * seconds) as usize;
    let value = |i: usize| 0.3 * (std::f32::consts::TAU * 440.0 * i as f32 / 16_000.0).sin();
    let samples = (0..n).map(value).collect();
    sandhi_data::audio::Waveform::new(samples, 16_000).write_wav(path).expect("a file of ours");
}
