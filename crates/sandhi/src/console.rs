//! What a person at a terminal sees of a run: bars on stderr, and Ctrl-C.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sandhi_lab::train::{Measurement, Monitor, StepReport};

/// Bars, a clock and a stop flag.
pub struct Console {
    start: Instant,
    stop: Arc<AtomicBool>,
    bar: Option<ProgressBar>,
    preparing: ProgressBar,
    /// Smoothed loss, rows a second and hours of audio an hour.
    smooth: Option<(f64, f64, f64)>,
    gap: Option<f64>,
    quiet: bool,
}

impl Console {
    /// Draws on stderr; `quiet` draws nothing. The first Ctrl-C saves and stops, the second ends the
    /// program at once.
    pub fn new(quiet: bool) -> anyhow::Result<Self> {
        static PRESSED: AtomicU32 = AtomicU32::new(0);
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        // A second console of one process keeps the first one's handler.
        let _ = ctrlc::set_handler(move || {
            if PRESSED.fetch_add(1, Ordering::SeqCst) > 0 {
                std::process::exit(130);
            }
            eprintln!("\nsaving after this step; press Ctrl-C again to end at once");
            flag.store(true, Ordering::SeqCst);
        });
        let target =
            if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let preparing = ProgressBar::with_draw_target(Some(0), target);
        preparing.set_style(ProgressStyle::with_template(
            "{msg:<28} {bar:30} {pos}/{len}  {elapsed} elapsed, {eta} left",
        )?);
        Ok(Self {
            start: Instant::now(),
            stop,
            bar: None,
            preparing,
            smooth: None,
            gap: None,
            quiet,
        })
    }

    /// Whether Ctrl-C was pressed.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) if !bar.is_hidden() => bar.println(text),
            _ if self.quiet => {}
            _ => eprintln!("{text}"),
        }
    }
}

/// The most bytes that the process has held at once; Linux alone says it.
pub fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

impl Monitor for Console {
    fn now_s(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn wall_s(&self) -> f64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
    }

    fn clock(&self) -> Box<dyn Fn() -> f64 + Send> {
        let start = self.start;
        Box::new(move || start.elapsed().as_secs_f64())
    }

    fn stopping(&self) -> bool {
        self.stopped()
    }

    fn peak_bytes(&self) -> Option<u64> {
        let peak = peak_bytes()?;
        // 5 begins the peak anew.
        std::fs::write("/proc/self/clear_refs", "5").ok()?;
        Some(peak)
    }

    fn stage(&mut self, name: &str, first_step: u64, n_steps: u64) {
        let target =
            if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(n_steps), target);
        if let Ok(style) = ProgressStyle::with_template(
            "{prefix:<14} {bar:24} {pos}/{len}  {msg}  {elapsed} elapsed, {eta} left",
        ) {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        bar.set_position(first_step);
        self.smooth = None;
        self.bar = Some(bar);
    }

    fn step(&mut self, report: &StepReport) {
        let now = (report.loss, report.tokens_per_s, report.audio_h_per_h);
        let mix = |old: f64, new: f64| if new.is_finite() { 0.95 * old + 0.05 * new } else { old };
        let smooth = self
            .smooth
            .map_or(now, |old| (mix(old.0, now.0), mix(old.1, now.1), mix(old.2, now.2)));
        self.smooth = Some(smooth);
        let audio =
            if smooth.2 > 0.0 { format!("  {:.0} audio h/h", smooth.2) } else { String::new() };
        let gap = self.gap.map(|gap| format!("  gap {gap:.2}")).unwrap_or_default();
        if let Some(bar) = &self.bar {
            bar.set_position(report.step);
            bar.set_message(format!(
                "loss {:.3}  lr {:.1e}  |g| {:.2}  {:.0} tok/s{audio}  wait {:.0} %{gap}",
                smooth.0,
                report.lr,
                report.grad_norm,
                smooth.1,
                100.0 * report.data_wait,
            ));
            if bar.is_hidden() && !self.quiet && report.step.is_multiple_of(100) {
                eprintln!(
                    "step {}/{}  loss {:.4}  {:.0} tok/s{audio}",
                    report.step, report.n_steps, smooth.0, smooth.1
                );
            }
            if report.step == report.n_steps {
                bar.finish();
            }
        }
    }

    fn measured(&mut self, step: u64, measurement: &Measurement) {
        self.gap = measurement.listening_gap;
        let gap = measurement
            .listening_gap
            .map(|gap| format!(", listening gap {gap:.3}"))
            .unwrap_or_default();
        self.line(&format!("step {step}: dev loss {:.4}{gap}", measurement.dev_loss));
    }

    fn note(&mut self, line: &str) {
        self.line(line);
    }

    fn preparing(&self, what: &str, done: usize, total: usize) {
        if self.preparing.position() > done as u64 {
            self.preparing.reset();
        }
        self.preparing.set_length(total as u64);
        self.preparing.set_message(what.to_owned());
        self.preparing.set_position(done as u64);
        if done == total {
            self.preparing.finish_and_clear();
        }
    }
}
