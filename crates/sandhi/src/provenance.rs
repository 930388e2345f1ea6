//! The machine and the program, for results.

use sandhi_lab::experiment::Provenance;

/// What can be said of where numbers come from.
pub fn provenance() -> Provenance {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        line.split_once(':').map(|(_, name)| name.trim().to_owned())
    });
    let n_threads = rayon::current_num_threads();
    let cpu = cpu.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    Provenance {
        machine: format!("{cpu}, {n_threads} threads"),
        commit: option_env!("SANDHI_COMMIT").map(str::to_owned),
    }
}
