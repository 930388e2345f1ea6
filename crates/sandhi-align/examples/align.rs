//! Times the best path of CTC and monotonic alignment search, one thread, on the problems that `bench/peers/align.py`
//! times others on.
//!
//! ```text
//! cargo run --release -p sandhi-align --example align -- FOLDER
//!     FOLDER/problems.json         [{"name", "kind": "ctc" or "monotonic", "shape"}]; kind and sizes of each problem
//!     FOLDER/NAME.scores.npy       f32 [n_frames, n_symbols] log-probabilities, or [n_frames, n_tokens] scores
//!     FOLDER/NAME.target.npy       i32 [n_tokens], for CTC; the blank is symbol 0
//!     stdout                       one JSON object a problem: name, peer, seconds (median), least, score, path
//! … --example align -- --hour     times 180,000 frames against 60,000 tokens, once
//! bench/peers/align.py FOLDER      the same objects, of other programs
//! ```
//!
//! A path is `[start, end]` of each token for CTC, and the frames of each token for the search.

use std::{fmt::Write as _, fs, hint::black_box, io, path::Path, time::Instant};

use sandhi_align::{
    ctc::{self, Limits},
    monotonic,
};
use serde_json::json;

/// Frames, tokens, symbols.
const CTC: [[usize; 3]; 4] =
    [[250, 20, 32], [1500, 150, 32], [3000, 300, 1024], [15_000, 1500, 32]];
/// An hour at 50 frames a second, read fast.
const HOUR: [usize; 3] = [180_000, 60_000, 32];
/// Frames, tokens.
const MONOTONIC: [[usize; 2]; 3] = [[200, 40], [1000, 150], [4000, 600]];

/// A generator of the xorshift family: always the same numbers.
struct Stream(u64);

impl Stream {
    fn unit(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }

    fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f32) as usize
    }

    /// The token of each frame, each for one frame or more.
    fn durations(&mut self, n_frames: usize, n_tokens: usize) -> Vec<usize> {
        let mut is_start = vec![false; n_frames];
        is_start[0] = true;
        let mut n_starts = 1;
        while n_starts < n_tokens {
            let frame = self.below(n_frames);
            n_starts += usize::from(!is_start[frame]);
            is_start[frame] = true;
        }
        let mut token = 0;
        let place = |(frame, start)| {
            token += usize::from(start && frame > 0);
            token
        };
        is_start.into_iter().enumerate().map(place).collect()
    }
}

fn main() -> io::Result<()> {
    let folder = std::env::args()
        .nth(1)
        .ok_or_else(|| io::Error::other("usage: align FOLDER, or align --hour"))?;
    if folder == "--hour" {
        hour();
        return Ok(());
    }
    let folder = Path::new(&folder);
    fs::create_dir_all(folder)?;
    let mut stream = Stream(0x9e37_79b9_7f4a_7c15);
    let mut problems = vec![];
    for shape @ [n_frames, n_tokens, n_symbols] in CTC {
        let name = format!("ctc-{n_frames}x{n_tokens}x{n_symbols}");
        let (log_probs, target) = ctc_problem(&mut stream, shape);
        let symbols: Vec<u8> = target.iter().flat_map(|symbol| symbol.to_le_bytes()).collect();
        write_npy(
            &folder.join(format!("{name}.scores.npy")),
            &floats(&log_probs),
            "<f4",
            &[n_frames, n_symbols],
        )?;
        write_npy(&folder.join(format!("{name}.target.npy")), &symbols, "<i4", &[n_tokens])?;
        let solve = || ctc::viterbi_path(&log_probs, n_symbols, &target, 0, Limits::default());
        let found = solve().expect("a problem with a path");
        let spans: Vec<_> = found.spans.iter().map(|span| [span.start, span.end]).collect();
        print(&name, times_s(|| drop(black_box(solve()))), found.log_prob, &json!(spans));
        problems.push(json!({ "name": name, "kind": "ctc", "shape": shape }));
    }
    for shape @ [n_frames, n_tokens] in MONOTONIC {
        let name = format!("monotonic-{n_frames}x{n_tokens}");
        let mut scores: Vec<f32> = (0..n_frames * n_tokens).map(|_| -4.0 * stream.unit()).collect();
        for (frame, token) in stream.durations(n_frames, n_tokens).into_iter().enumerate() {
            scores[frame * n_tokens + token] += 2.0;
        }
        write_npy(&folder.join(format!("{name}.scores.npy")), &floats(&scores), "<f4", &shape)?;
        let solve = || monotonic::search(&scores, n_tokens);
        let found = solve().expect("a problem with a path");
        print(&name, times_s(|| drop(black_box(solve()))), found.score, &json!(found.durations));
        problems.push(json!({ "name": name, "kind": "monotonic", "shape": shape }));
    }
    fs::write(folder.join("problems.json"), json!(problems).to_string())
}

/// Log-probabilities that lean to a path, and its target.
fn ctc_problem(
    stream: &mut Stream,
    [n_frames, n_tokens, n_symbols]: [usize; 3],
) -> (Vec<f32>, Vec<u32>) {
    let mut target: Vec<u32> = vec![];
    while target.len() < n_tokens {
        let symbol = 1 + stream.below(n_symbols - 1) as u32;
        if target.last() != Some(&symbol) {
            target.push(symbol);
        }
    }
    let mut logits: Vec<f32> = (0..n_frames * n_symbols).map(|_| 4.0 * stream.unit()).collect();
    for (frame, token) in stream.durations(n_frames, n_tokens).into_iter().enumerate() {
        // Half of the frames are blank, as CTC has it.
        let symbol = if stream.unit() < 0.5 { 0 } else { target[token] as usize };
        logits[frame * n_symbols + symbol] += 4.0;
    }
    (ctc::log_softmax(&logits, n_symbols).expect("rows of symbols"), target)
}

/// Times an hour of speech once.
fn hour() {
    let [n_frames, n_tokens, n_symbols] = HOUR;
    let (log_probs, target) = ctc_problem(&mut Stream(7), HOUR);
    let start = Instant::now();
    let found = ctc::viterbi_path(&log_probs, n_symbols, &target, 0, Limits::default());
    let seconds = start.elapsed().as_secs_f64();
    let log_prob = found.expect("a problem with a path").log_prob;
    println!(
        "{}",
        json!({ "shape": [n_frames, n_tokens, n_symbols], "seconds": seconds, "score": log_prob })
    );
}

fn print(name: &str, [seconds, least]: [f64; 2], score: f64, path: &serde_json::Value) {
    let line = json!({
        "name": name, "peer": "sandhi", "seconds": seconds, "least": least, "score": score, "path": path,
    });
    println!("{line}");
}

/// Median and minimum over half a second of runs, five at least.
fn times_s(run: impl Fn()) -> [f64; 2] {
    let mut times = vec![];
    let begin = Instant::now();
    while times.len() < 5 || begin.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    [times[times.len() / 2], times[0]]
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// NumPy's format, version 1.0: magic, length of the header, header, values.
fn write_npy(path: &Path, values: &[u8], kind: &str, shape: &[usize]) -> io::Result<()> {
    let mut sizes = String::new();
    shape.iter().for_each(|size| write!(sizes, "{size},").expect("strings grow"));
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({sizes}), }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let length = u16::try_from(header.len()).expect("a short header").to_le_bytes();
    fs::write(path, [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), values].concat())
}
