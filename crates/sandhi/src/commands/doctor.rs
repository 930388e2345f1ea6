//! `sandhi doctor`: what is present and what is missing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sandhi_data::espeak::Espeak;
use serde::Serialize;

use crate::{device, foundation, output};

/// Arguments of `sandhi doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The cache folder that is looked at.
    #[arg(long, value_name = "DIR", default_value = "cache")]
    cache: PathBuf,
    /// JSON instead of a list.
    #[arg(long)]
    json: bool,
}

/// One line of the list.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    /// Whether anything has to be done about it.
    ok: bool,
    found: String,
}

impl Finding {
    fn new(name: &'static str, ok: bool, found: impl Into<String>) -> Self {
        Self { name, ok, found: found.into() }
    }
}

/// Prints the list. What is missing is no error: the list says what it is needed for.
pub fn run(args: Args) -> anyhow::Result<()> {
    let findings = [
        Finding::new("version", true, env!("CARGO_PKG_VERSION")),
        Finding::new("cpu", true, cpu()),
        memory(),
        devices(),
        espeak(),
        weights(),
        cache(&args.cache),
    ];
    if args.json {
        return output::print_json(&findings);
    }
    let mut text = String::new();
    for Finding { name, ok, found } in &findings {
        let mark = if *ok { "ok     " } else { "missing" };
        text.push_str(&format!("{mark}  {name:<10} {found}\n"));
    }
    output::print(&text)
}

fn cpu() -> String {
    #[cfg(target_arch = "x86_64")]
    let features: Vec<&str> = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("f16c", std::arch::is_x86_feature_detected!("f16c")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512bw", std::arch::is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
    ]
    .into_iter()
    .filter_map(|(name, present)| present.then_some(name))
    .collect();
    #[cfg(not(target_arch = "x86_64"))]
    let features: Vec<&str> = Vec::new();
    format!(
        "{} threads, {} {}",
        rayon::current_num_threads(),
        std::env::consts::ARCH,
        features.join(" ")
    )
    .trim_end()
    .to_owned()
}

const GIB: f64 = (1u64 << 30) as f64;

fn memory() -> Finding {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib * 1024.0 / GIB)
    };
    match (field("MemTotal:"), field("MemAvailable:")) {
        (Some(total), Some(free)) => {
            Finding::new("memory", free >= 2.0, format!("{total:.1} GiB, {free:.1} GiB of it free"))
        }
        _ => Finding::new("memory", true, "this system does not say how much there is"),
    }
}

fn devices() -> Finding {
    let list = |wanted: bool| -> Vec<&str> {
        device::backends().filter(|(_, present)| *present == wanted).map(|(name, _)| name).collect()
    };
    let (present, absent) = (list(true), list(false));
    let mut found = present.join(", ");
    if !absent.is_empty() {
        found.push_str(&format!(" (not built in: {}; cargo features)", absent.join(", ")));
    }
    Finding::new("devices", true, found)
}

fn espeak() -> Finding {
    match Espeak::open() {
        Ok(espeak) => Finding::new("espeak-ng", true, espeak.version()),
        Err(error) => {
            Finding::new("espeak-ng", false, format!("{error} (Microworld's speech needs it)"))
        }
    }
}

fn weights() -> Finding {
    let models: Vec<String> = foundation::sizes()
        .map(|(name, n)| format!("{name} ({:.1} MiB)", n as f64 / f64::from(1 << 20)))
        .collect();
    Finding::new("weights", !models.is_empty(), format!("embedded: {}", models.join(", ")))
}

/// Whether something can be written where the cache is or will be, and how much.
fn cache(dir: &Path) -> Finding {
    let Ok(absolute) = std::path::absolute(dir) else {
        return Finding::new("cache", false, format!("{}: not a path", dir.display()));
    };
    let Some(existing) = absolute.ancestors().find(|folder| folder.exists()) else {
        return Finding::new("cache", false, format!("{}: no such folder", dir.display()));
    };
    let shown = absolute.display();
    let probe = existing.join(format!(".sandhi-doctor-{}", std::process::id()));
    let written = fs::write(&probe, b"x");
    // It stays only where it could not be made.
    let _ = fs::remove_file(&probe);
    if let Err(error) = written {
        return Finding::new("cache", false, format!("{shown}: cannot write: {error}"));
    }
    match rustix::fs::statvfs(existing) {
        Ok(disk) => {
            let free = disk.f_bavail as f64 * disk.f_frsize as f64 / GIB;
            Finding::new("cache", free >= 2.0, format!("{shown}: writable, {free:.1} GiB free"))
        }
        Err(error) => {
            Finding::new("cache", true, format!("{shown}: writable, size unknown: {error}"))
        }
    }
}
