//! `sandhi units fit`: centers of clusters of frames.
//!
//! ```text
//! utterances ─ drawn ─┬─ frames, as many as memory holds ──────────── k-means ─────────────┬─> centers.npy
//!                     └─ shard ─ frames ─ mini-batches ─ OUT.state ─ next shard … ─ done ──┘
//! ```

use std::{fs, path::PathBuf};

use anyhow::{Context, ensure};
use sandhi_data::{
    manifest::{self, Utterance},
    rng::Stream,
};
use sandhi_lab::{
    checkpoint::write_atomically,
    units::{FitConfig, Front, Kmeans, MiniBatch, MiniBatchConfig, mark},
};

use super::{FrontArgs, bar, heard, none_heard};
use crate::commands::{data::tell_rejected, failures::Failures};

/// Arguments of `sandhi units fit`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    front: FrontArgs,
    /// Clusters.
    #[arg(long, short = 'n', value_name = "N")]
    clusters: usize,
    /// The centers, a .npy file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What utterances and first centers are drawn with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Lloyd's iterations at most.
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "mini_batch")]
    iterations: usize,
    /// Utterances are heard, in an order drawn from the seed, until there are so many frames.
    #[arg(long, value_name = "N", default_value_t = 200_000, conflicts_with = "mini_batch")]
    max_frames: usize,
    /// Hear all utterances, a shard at a time, and move the centers after so many frames: for more frames than memory
    /// holds. The first centers are drawn from the first so many, which should be many for each cluster. What was
    /// reached is kept in OUT.state after each shard; the same command goes on from there.
    #[arg(long, value_name = "FRAMES")]
    mini_batch: Option<usize>,
    /// Utterances of a shard, whose frames are in memory together.
    #[arg(long, value_name = "N", default_value_t = 256, requires = "mini_batch")]
    shard_utterances: usize,
    /// How often all utterances are heard.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "mini_batch")]
    epochs: usize,
    /// Utterances to hear: a manifest or a data folder.
    #[arg(long, value_name = "PATH")]
    manifest: Option<PathBuf>,
    /// Only utterances of this part of the manifest, e.g. `train`.
    #[arg(long, requires = "manifest")]
    split: Option<String>,
    /// No progress bar.
    #[arg(long)]
    quiet: bool,
    /// Sound files to hear.
    #[arg(value_name = "FILE", required_unless_present = "manifest", conflicts_with = "manifest")]
    files: Vec<PathBuf>,
}

/// Finds centers and writes them.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    for (name, value) in [
        ("--max-frames", args.max_frames),
        ("--iterations", args.iterations),
        ("--mini-batch", args.mini_batch.unwrap_or(1)),
        ("--shard-utterances", args.shard_utterances),
        ("--epochs", args.epochs),
    ] {
        ensure!(value > 0, "{name} is 0, expected at least 1");
    }
    if let Some(batch) = args.mini_batch {
        let n = args.clusters;
        ensure!(
            batch >= n,
            "--mini-batch is {batch}, expected at least as many frames as units: {n}"
        );
    }
    let utterances = match &args.manifest {
        Some(path) => {
            let import = manifest::import_split(path, args.split.as_deref())?;
            tell_rejected(&import.rejected);
            import.utterances
        }
        None => {
            let alone = |path: &PathBuf| Utterance::new(path.display().to_string(), path, "");
            args.files.iter().map(alone).collect()
        }
    };
    ensure!(!utterances.is_empty(), "there is nothing to hear");
    let device = args.front.device.open()?;
    let (front, _) = args.front.clone().open(&device)?;
    match args.mini_batch {
        Some(batch) => fit_shards(&args, batch, &utterances, &front),
        None => fit_at_once(&args, utterances, &front),
    }
}

/// Of frames that are all in memory.
fn fit_at_once(args: &Args, mut utterances: Vec<Utterance>, front: &Front) -> anyhow::Result<()> {
    Stream::named(args.seed, "utterances").shuffle(&mut utterances);
    let width = front.width();
    let hearing = bar(args.max_frames, "hearing", args.quiet)?;
    let mut frames: Vec<f32> = Vec::new();
    let mut n_heard = 0;
    let mut failures = Failures::default();
    for utterance in &utterances {
        match heard(front, utterance) {
            Ok(found) => {
                frames.extend(found);
                n_heard += 1;
            }
            Err(why) => failures.add(&hearing, &utterance.id, &why),
        }
        hearing.set_position((frames.len() / width).min(args.max_frames) as u64);
        if frames.len() >= args.max_frames * width {
            break;
        }
    }
    hearing.finish_and_clear();
    failures.tell_rest();
    if n_heard == 0 {
        return Err(none_heard(&failures, utterances.len()));
    }
    frames.truncate(args.max_frames * width);
    let n_frames = frames.len() / width;
    let fitting = bar(args.iterations, "fitting", args.quiet)?;
    let config =
        FitConfig { n_clusters: args.clusters, iterations: args.iterations, seed: args.seed };
    let mut last = None;
    let kmeans = Kmeans::fit(&frames, width, &config, &mut |iteration| {
        fitting.set_position(iteration.number as u64);
        fitting.set_message(format!("mean squared distance {:.4}", iteration.mean_square));
        last = Some(iteration);
    })?;
    fitting.finish_and_clear();
    write_atomically(&args.out, &kmeans.to_npy())?;
    if let Some(last) = last {
        let (n, square, out) = (last.number, last.mean_square, args.out.display());
        eprintln!(
            "{} centers of {n_frames} frames of {n_heard} utterances, width {width}, mean squared distance {square:.4} \
             after {n} iterations: {out}",
            kmeans.n_clusters()
        );
    }
    Ok(())
}

/// Of frames of a shard of utterances at a time, from where an interrupted command was.
fn fit_shards(
    args: &Args,
    batch: usize,
    utterances: &[Utterance],
    front: &Front,
) -> anyhow::Result<()> {
    let state = args.out.with_added_extension("state");
    let mut fit = MiniBatch::resume(
        &state,
        MiniBatchConfig {
            n_clusters: args.clusters,
            width: front.width(),
            batch,
            seed: args.seed,
            shard_utterances: args.shard_utterances,
            epochs: args.epochs,
            front: front.fingerprint(),
            utterances: mark(utterances),
        },
    )?;
    let n_shards = utterances.len().div_ceil(args.shard_utterances);
    let n_done = fit.progress().n_shards;
    let n_all = n_shards * args.epochs;
    if n_done > 0 {
        eprintln!("going on after shard {n_done} of {n_all}: {}", state.display());
    }
    let fitting = bar(n_all, "fitting", args.quiet)?;
    let mut failures = Failures::default();
    for epoch in n_done / n_shards..args.epochs {
        let order = fit.order(epoch, utterances.len());
        let shards = order.chunks(args.shard_utterances);
        for shard in shards.skip(n_done.saturating_sub(epoch * n_shards)) {
            let (mut frames, mut n_heard) = (Vec::new(), 0);
            for utterance in shard.iter().map(|&i| &utterances[i]) {
                match heard(front, utterance) {
                    Ok(found) => {
                        frames.extend(found);
                        n_heard += 1;
                    }
                    Err(why) => failures.add(&fitting, &utterance.id, &why),
                }
            }
            fit.learn(&frames, n_heard, shard.len() - n_heard)?;
            fit.write(&state)?;
            fitting.set_position(fit.progress().n_shards as u64);
            if let Some(square) = fit.progress().mean_square {
                fitting.set_message(format!("mean squared distance {square:.4}"));
            }
        }
    }
    fitting.finish_and_clear();
    failures.tell_rest();
    let progress = fit.progress();
    if progress.n_heard == 0 {
        fs::remove_file(&state).with_context(|| format!("{}: cannot remove", state.display()))?;
        return Err(none_heard(&failures, utterances.len()));
    }
    let kmeans = fit.finish()?;
    write_atomically(&args.out, &kmeans.to_npy())?;
    fs::remove_file(&state).with_context(|| format!("{}: cannot remove", state.display()))?;
    let (n_frames, n_heard, n_failed) = (progress.n_frames, progress.n_heard, progress.n_failed);
    let square = progress.mean_square.map_or_else(|| "unknown".to_owned(), |s| format!("{s:.4}"));
    eprintln!(
        "{} centers of {n_frames} frames of {n_heard} utterances in {n_all} shards, {n_failed} failed, width {}, mean \
         squared distance {square} in the last shard: {}",
        kmeans.n_clusters(),
        kmeans.width(),
        args.out.display()
    );
    Ok(())
}
