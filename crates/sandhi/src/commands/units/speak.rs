//! `sandhi units speak`: units as sound again.
//!
//! ```text
//! units ── VocoderModel, of the same quantizer ─ WAV files
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use sandhi_data::{audio::WavWriter, features::FEATURE_SAMPLE_RATE_HZ, units::UnitFile};
use sandhi_lab::model::{AnyModel, VocoderModel};
use serde::Serialize;

use super::bar;
use crate::{device::DeviceArg, hub_args::HubArgs, output};

/// Arguments of `sandhi units speak`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A vocoder model.
    #[arg(long, value_name = "DIR")]
    vocoder: PathBuf,
    /// A file of units, of the vocoder's quantizer; all of its utterances are said, in their order.
    #[arg(long, value_name = "FILE", conflicts_with = "ids")]
    units: Option<PathBuf>,
    /// A .wav file for one utterance; otherwise a folder, in which they are numbered.
    #[arg(long, value_name = "DIR|FILE.wav")]
    out: PathBuf,
    /// cpu, wgpu[:i], vulkan[:i], cuda[:i] or metal[:i].
    #[arg(long, default_value = "cpu")]
    device: DeviceArg,
    #[command(flatten)]
    hub: HubArgs,
    /// No progress bar.
    #[arg(long)]
    quiet: bool,
    /// Units of one utterance, repetitions included; they are taken for those of the vocoder's quantizer.
    #[arg(value_name = "ID", required_unless_present = "units")]
    ids: Vec<u32>,
}

/// A sound file that was made.
#[derive(Debug, Serialize)]
struct Line {
    /// The utterance's name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    file: String,
    duration_s: f64,
}

/// Says units; nothing is written before all of them were found to be the vocoder's.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let dir = args.vocoder.display();
    let model = match AnyModel::load(&args.vocoder, &args.device.open()?, &args.hub.hub()?)? {
        AnyModel::Vocoder(model) => *model,
        other => bail!("{dir} holds a {} model, expected vocoder", other.kind()),
    };
    let file = args.units.as_deref().map(UnitFile::open).transpose()?;
    let n = match &file {
        Some(file) => check_units(file, &model, &args.vocoder)?,
        None => {
            model.check(&args.ids)?;
            1
        }
    };
    let out = &args.out;
    let is_file = out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("wav"));
    ensure!(
        !is_file || n == 1,
        "--out {}: {n} utterances do not fit into one file, give a folder",
        out.display()
    );
    if !is_file {
        fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    }
    let speaking = bar(n, "speaking", args.quiet)?;
    for i in 0..n {
        let (id, units) = match &file {
            Some(file) => {
                let utterance = file.get(i)?;
                (Some(utterance.id), utterance.units)
            }
            None => (None, args.ids.clone()),
        };
        let path = if is_file { out.clone() } else { out.join(format!("{:06}.wav", i + 1)) };
        let mut writer = WavWriter::create(&path, FEATURE_SAMPLE_RATE_HZ)?;
        model.speak(&units, |samples| Ok::<(), anyhow::Error>(writer.push(samples)?))?;
        let duration_s = writer.finish()? as f64 / f64::from(FEATURE_SAMPLE_RATE_HZ);
        let line = Line { id, file: path.display().to_string(), duration_s };
        output::print(&serde_json::to_string(&line)?)?;
        speaking.inc(1);
    }
    speaking.finish_and_clear();
    Ok(())
}

/// Refuses a file of another quantizer, and utterances without units; gives how many there are.
fn check_units(file: &UnitFile, model: &VocoderModel, dir: &Path) -> anyhow::Result<usize> {
    let (name, found, expected) = (file.path().display(), file.header(), &model.units);
    ensure!(
        found == expected,
        "{name} has {} units at {} Hz of quantizer {}, the vocoder {} says {} at {} Hz of {}; units of two quantizers mean \
         different sounds",
        found.n_units,
        found.rate_hz,
        found.quantizer,
        dir.display(),
        expected.n_units,
        expected.rate_hz,
        expected.quantizer
    );
    ensure!(!file.is_empty(), "{name}: found no utterances, expected at least one");
    for i in 0..file.len() {
        let utterance = file.get(i)?;
        model.check(&utterance.units).with_context(|| format!("{name}: {:?}", utterance.id))?;
    }
    Ok(file.len())
}
