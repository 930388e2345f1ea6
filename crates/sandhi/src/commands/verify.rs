//! `sandhi verify`: a published checkpoint, as it is computed here, against what its authors' code gives.

use std::path::PathBuf;

use sandhi_lab::hf;

use crate::{device::DeviceArg, model_args::PublishedArgs, output};

/// Arguments of `sandhi verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: PublishedArgs,
    /// Inputs and outputs of the same model elsewhere; tools/reference.py writes them.
    #[arg(long, value_name = "FILE.safetensors")]
    reference: PathBuf,
    /// Largest difference that passes, for outputs between -1 and 1; for larger ones in proportion to the
    /// largest of them.
    #[arg(long, default_value_t = 1e-4)]
    tolerance: f64,
    /// cpu, wgpu[:i], vulkan[:i], cuda[:i] or metal[:i].
    #[arg(long, default_value = "cpu")]
    device: DeviceArg,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Compares and prints; fails above the tolerance.
pub fn run(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.tolerance > 0.0 && args.tolerance.is_finite(),
        "--tolerance is {}, expected a positive number",
        args.tolerance
    );
    let model = args.model.directory()?;
    let found = hf::verify(&model, &args.reference, &args.device.open()?)?;
    if args.json {
        output::print_json(&found)?;
    } else {
        for one in &found {
            output::print(&format!(
                "{:<18} largest difference {:.2e}, mean {:.2e}, over {} values of up to {:.3}",
                one.output, one.largest, one.mean, one.n_values, one.scale
            ))?;
        }
    }
    for one in &found {
        let allowed = args.tolerance * one.scale.max(1.0);
        anyhow::ensure!(
            one.largest.is_finite() && one.largest <= allowed,
            "{}: {} differs by {:.2e}, allowed are {allowed:.2e}",
            args.model.source,
            one.output,
            one.largest
        );
    }
    Ok(())
}
