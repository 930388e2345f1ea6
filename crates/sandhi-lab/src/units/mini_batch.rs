//! Centers of clusters from more frames than memory holds, a shard at a time: mini-batch k-means that can be interrupted.
//!
//! ```text
//! shard of utterances ─ frames ─ shuffled ─ batches ─┬─ the first one: k-means++ ─> centers
//!                                                    └─ nearest centers ─> each moves to the mean of all its frames so far
//! after each shard    centers, counts, position, settings ─> OUT.state, from which a fit goes on with the same bits
//! ```
//!
//! Sculley 2010, "Web-scale k-means clustering", algorithm 1: a center moves towards each of its frames by one over the
//! frames that it has had. The frames of a batch are given to centers before any moves, so that the steps of a batch come
//! to one, the mean, which is what is computed here, in double precision and in the order of frames.

use std::path::{Path, PathBuf};

use sandhi_data::{
    manifest::Utterance,
    rng::{Stream, stream},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    FitError, Kmeans,
    fit::{check, seed},
};
use crate::checkpoint::{self, files};

/// All that the centers depend on. A state is only gone on with by the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MiniBatchConfig {
    /// Clusters.
    pub n_clusters: usize,
    /// Width of the frames.
    pub width: usize,
    /// Frames that are given to centers before these move. The first centers are drawn from the first batch, so that it
    /// should have many for each cluster.
    pub batch: usize,
    /// What batches and first centers are drawn with.
    pub seed: u64,
    /// Utterances that are heard before the state is kept; the frames of so many are in memory.
    pub shard_utterances: usize,
    /// How often all utterances are heard.
    pub epochs: usize,
    /// Hash of what makes the frames.
    pub front: String,
    /// Hash of the utterances, see [`mark`].
    pub utterances: String,
}

/// A hash of what is known of utterances, their order included. Not of sound files.
pub fn mark(utterances: &[Utterance]) -> String {
    let content = serde_json::to_vec(utterances).expect("utterances serialize");
    blake3::hash(&content).to_hex()[..16].to_owned()
}

/// Why a fit cannot go on from a file.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file is something else, or damaged.
    #[error("{}: {message}; remove it to begin anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found and expected.
        message: String,
    },
    /// It was begun with other settings.
    #[error(
        "{}: a fit that was begun with other settings: {differences}; go on with those, or remove the file to begin anew",
        path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// Settings, with what was found and expected.
        differences: String,
    },
    /// The file cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
}

/// What a fit has come to.
#[derive(Debug, Clone, PartialEq)]
pub struct MiniBatch {
    config: MiniBatchConfig,
    progress: Progress,
    /// `[n_clusters, width]`, row after row; empty before the first frames.
    centers: Vec<f64>,
    /// Frames that each center has had.
    counts: Vec<u64>,
}

/// How far a fit is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Shards that were learned from.
    pub n_shards: usize,
    /// Utterances that were heard.
    pub n_heard: usize,
    /// Utterances that could not be.
    pub n_failed: usize,
    /// Frames that were learned from.
    pub n_frames: u64,
    /// Mean squared distance of the last shard's frames from the centers that they were given to, before those moved.
    pub mean_square: Option<f64>,
}

/// The first line of a state.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    sandhi_mini_batch: u32,
    config: Value,
    progress: Progress,
    is_begun: bool,
}

/// The version of the format: a line of JSON, centers as f64 and counts as u64, little-endian, BLAKE3 of all that.
const VERSION: u32 = 1;

impl MiniBatch {
    /// Nothing yet.
    pub fn new(config: MiniBatchConfig) -> Self {
        Self { config, progress: Progress::default(), centers: Vec::new(), counts: Vec::new() }
    }

    /// What was kept at `path` by a fit of the same settings, or nothing yet where there is no such file.
    ///
    /// # Errors
    ///
    /// See [`StateError`].
    pub fn resume(path: &Path, config: MiniBatchConfig) -> Result<Self, StateError> {
        match files::read(path) {
            Ok(bytes) => Self::parse(&bytes, path, config),
            Err(checkpoint::Error::MissingFile { .. }) => Ok(Self::new(config)),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the state in a file, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`StateError::Checkpoint`].
    pub fn write(&self, path: &Path) -> Result<(), StateError> {
        Ok(files::write_atomically(path, &self.to_bytes())?)
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The order in which `n` utterances are heard in an epoch, counted from 0.
    pub fn order(&self, epoch: usize, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        let seed = stream(self.config.seed, "utterances");
        Stream::named(seed, &epoch.to_string()).shuffle(&mut order);
        order
    }

    /// Learns from the frames of the next shard, `[n_frames, width]`, which `n_heard` utterances gave and `n_failed` did
    /// not.
    ///
    /// # Errors
    ///
    /// See [`FitError`]; then nothing was learned.
    pub fn learn(
        &mut self,
        frames: &[f32],
        n_heard: usize,
        n_failed: usize,
    ) -> Result<(), FitError> {
        let (n_clusters, width) = (self.config.n_clusters, self.config.width);
        check(frames, width, n_clusters)?;
        let n_frames = frames.len() / width;
        let mut order: Vec<usize> = (0..n_frames).collect();
        let seed_of_shards = stream(self.config.seed, "shards");
        Stream::named(seed_of_shards, &self.progress.n_shards.to_string()).shuffle(&mut order);
        let mut square = 0.0;
        for batch in order.chunks(self.config.batch.max(1)) {
            let rows = batch.iter().flat_map(|&i| &frames[i * width..][..width]);
            let batch: Vec<f32> = rows.copied().collect();
            if self.centers.is_empty() {
                let first = seed(&batch, width, n_clusters, self.config.seed)?;
                self.centers = first.centers.into_iter().map(f64::from).collect();
                self.counts = vec![0; n_clusters];
            }
            square += self.step(&batch);
        }
        let Progress { n_shards, n_heard: heard, n_failed: failed, n_frames: before, .. } =
            self.progress;
        self.progress = Progress {
            n_shards: n_shards + 1,
            n_heard: heard + n_heard,
            n_failed: failed + n_failed,
            n_frames: before + n_frames as u64,
            mean_square: (n_frames > 0).then(|| square / n_frames as f64),
        };
        Ok(())
    }

    /// Moves the centers by a batch; gives the sum of the squared distances before.
    fn step(&mut self, batch: &[f32]) -> f64 {
        let width = self.config.width;
        let found = self.current().nearest(batch);
        let mut sums = vec![0.0_f64; self.centers.len()];
        let mut counts = vec![0_u64; self.counts.len()];
        for (frame, &(unit, _)) in batch.chunks_exact(width).zip(&found) {
            counts[unit as usize] += 1;
            for (sum, &value) in sums[unit as usize * width..][..width].iter_mut().zip(frame) {
                *sum += f64::from(value);
            }
        }
        let centers = self.centers.chunks_exact_mut(width).zip(sums.chunks_exact(width));
        for ((center, sums), (count, &new)) in centers.zip(self.counts.iter_mut().zip(&counts)) {
            if new == 0 {
                continue;
            }
            *count += new;
            for (value, sum) in center.iter_mut().zip(sums) {
                *value += (sum - new as f64 * *value) / *count as f64;
            }
        }
        found.iter().map(|&(_, distance)| f64::from(distance)).sum()
    }

    fn current(&self) -> Kmeans {
        let centers = self.centers.iter().map(|&value| value as f32).collect();
        Kmeans { centers, width: self.config.width }
    }

    /// The centers.
    ///
    /// # Errors
    ///
    /// [`FitError::TooFew`] where there were no frames.
    pub fn finish(&self) -> Result<Kmeans, FitError> {
        if self.centers.is_empty() {
            let n_clusters = self.config.n_clusters;
            return Err(FitError::TooFew { n_distinct: 0, n_frames: 0, n_clusters });
        }
        Ok(self.current())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let head = Head {
            sandhi_mini_batch: VERSION,
            config: plain(&self.config),
            progress: self.progress,
            is_begun: !self.centers.is_empty(),
        };
        let mut bytes = serde_json::to_vec(&head).expect("settings and counts are plain values");
        bytes.push(b'\n');
        bytes.extend(self.centers.iter().flat_map(|value| value.to_le_bytes()));
        bytes.extend(self.counts.iter().flat_map(|count| count.to_le_bytes()));
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    fn parse(bytes: &[u8], path: &Path, config: MiniBatchConfig) -> Result<Self, StateError> {
        let wrong = |message: &str| StateError::Damaged {
            path: path.to_owned(),
            message: message.to_owned(),
        };
        let (content, hash) = bytes
            .split_last_chunk::<{ blake3::OUT_LEN }>()
            .ok_or_else(|| wrong("found a file that is too short, expected the state of a fit"))?;
        if blake3::hash(content) != blake3::Hash::from_bytes(*hash) {
            return Err(wrong("found a damaged file, expected the state of a fit"));
        }
        let end = content.iter().position(|&byte| byte == b'\n');
        let (head, body) = content.split_at(end.ok_or_else(|| wrong("found no first line"))? + 1);
        let head: Head = serde_json::from_slice(head).map_err(|error| wrong(&error.to_string()))?;
        if head.sandhi_mini_batch != VERSION {
            let found = head.sandhi_mini_batch;
            return Err(wrong(&format!("found version {found} of the format, expected {VERSION}")));
        }
        let differences = differences(&head.config, &plain(&config));
        if !differences.is_empty() {
            return Err(StateError::Other { path: path.to_owned(), differences });
        }
        let n_clusters = if head.is_begun { config.n_clusters } else { 0 };
        let n_values = n_clusters * config.width;
        if body.len() != 8 * (n_values + n_clusters) {
            return Err(wrong(&format!(
                "found {} bytes of centers and counts, expected {}",
                body.len(),
                8 * (n_values + n_clusters)
            )));
        }
        let (words, _) = body.as_chunks::<8>();
        let (centers, counts) = words.split_at(n_values);
        Ok(Self {
            config,
            progress: head.progress,
            centers: centers.iter().map(|&word| f64::from_le_bytes(word)).collect(),
            counts: counts.iter().map(|&word| u64::from_le_bytes(word)).collect(),
        })
    }
}

fn plain(config: &MiniBatchConfig) -> Value {
    serde_json::to_value(config).expect("settings are plain values")
}

/// The settings that differ.
fn differences(found: &Value, expected: &Value) -> String {
    let Value::Object(expected) = expected else { unreachable!("settings are an object") };
    let differing = expected.iter().filter(|(name, value)| found.get(name) != Some(value));
    let said = differing.map(|(name, value)| {
        let found = found.get(name).unwrap_or(&Value::Null);
        format!("{name} was {found}, is {value}")
    });
    said.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::FitConfig;

    fn config(n_clusters: usize) -> MiniBatchConfig {
        MiniBatchConfig {
            n_clusters,
            width: 2,
            batch: 64,
            seed: 1,
            shard_utterances: 100,
            epochs: 1,
            front: "f".into(),
            utterances: "u".into(),
        }
    }

    /// Clouds of some width around corners.
    fn clouds(n: usize, deviation: f64) -> Vec<f32> {
        let mut stream = Stream::named(7, "clouds");
        let corners = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]];
        let point =
            |i: usize| corners[i % 4].map(|c: f64| (c + deviation * stream.normal()) as f32);
        (0..n).flat_map(point).collect()
    }

    /// Learns from shards of 100 frames.
    fn fit(frames: &[f32], config: MiniBatchConfig) -> MiniBatch {
        let mut fit = MiniBatch::new(config);
        frames.chunks(200).for_each(|shard| fit.learn(shard, 100, 0).unwrap());
        fit
    }

    #[test]
    fn centers_are_means_of_what_they_were_given() {
        // One cluster: whatever the batches, the mean of all, 3 and 4 here.
        let frames = [0.0, 1.0, 2.0, 3.0, 3.0, 4.0, 4.0, 5.0, 6.0, 7.0];
        let mut fit = MiniBatch::new(MiniBatchConfig { batch: 2, ..config(1) });
        fit.learn(&frames[..4], 1, 0).unwrap();
        fit.learn(&[], 0, 2).unwrap();
        fit.learn(&frames[4..], 1, 0).unwrap();
        let centers = fit.finish().unwrap().centers;
        assert!((centers[0] - 3.0).abs() < 1e-6 && (centers[1] - 4.0).abs() < 1e-6, "{centers:?}");
        let Progress { n_shards, n_heard, n_failed, n_frames, .. } = fit.progress();
        assert_eq!((n_shards, n_heard, n_failed, n_frames), (3, 2, 2, 5));
        assert_eq!(fit.counts, [5]);
    }

    #[test]
    fn clouds_are_found() {
        let frames = clouds(800, 0.3);
        for seed in 0..8 {
            let kmeans = fit(&frames, MiniBatchConfig { seed, ..config(4) }).finish().unwrap();
            let units = kmeans.assign(&frames);
            assert!((4..800).all(|i| units[i] == units[i % 4]), "seed {seed}");
            let mut first: Vec<u32> = units[..4].to_vec();
            first.sort_unstable();
            assert_eq!(first, [0, 1, 2, 3], "seed {seed}");
        }
    }

    #[test]
    fn the_distance_is_near_that_of_lloyd_s_iterations() {
        let mean_square = |kmeans: &Kmeans, frames: &[f32]| {
            let found = kmeans.nearest(frames);
            found.iter().map(|(_, d)| f64::from(*d)).sum::<f64>() / found.len() as f64
        };
        for deviation in [0.3, 2.0] {
            let frames = clouds(4_000, deviation);
            let lloyd = FitConfig { n_clusters: 4, iterations: 100, seed: 1 };
            let lloyd = Kmeans::fit(&frames, 2, &lloyd, &mut |_| ()).unwrap();
            let online = fit(&frames, config(4));
            let (best, found) =
                (mean_square(&lloyd, &frames), mean_square(&online.finish().unwrap(), &frames));
            assert!(found < 1.03 * best, "deviation {deviation}: {found}, Lloyd's {best}");
            let last = online.progress().mean_square.unwrap();
            assert!((last / best - 1.0).abs() < 0.35, "{last} of the last shard, {best} of all");
        }
    }

    #[test]
    fn a_fit_goes_on_with_the_same_bits_from_any_shard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("km.npy.state");
        let frames = clouds(700, 2.0);
        let whole = fit(&frames, config(9));
        for stop in 0..=7 {
            std::fs::remove_file(&path).ok();
            for (i, shard) in frames.chunks(200).enumerate() {
                let mut fit = MiniBatch::resume(&path, config(9)).unwrap();
                if fit.progress().n_shards > i {
                    continue;
                }
                fit.learn(shard, 100, 0).unwrap();
                // Only what was kept is left of what came before; one shard is kept only with the next.
                if i + 1 != stop {
                    fit.write(&path).unwrap();
                    continue;
                }
                let mut again = MiniBatch::resume(&path, config(9)).unwrap();
                assert_eq!(again.progress().n_shards, i);
                again.learn(shard, 100, 0).unwrap();
                again.write(&path).unwrap();
            }
            let end = MiniBatch::resume(&path, config(9)).unwrap();
            assert_eq!(end, whole, "stopped at {stop}");
            assert_eq!(end.to_bytes(), whole.to_bytes());
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_centers() {
        let frames = clouds(2_000, 2.0);
        let fit = |n_threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| fit(&frames, MiniBatchConfig { batch: 1_000, ..config(17) }))
        };
        assert_eq!(fit(1), fit(3));
        let other = fit(1).order(0, 50);
        assert_eq!(other, fit(1).order(0, 50));
        assert_ne!(other, fit(1).order(1, 50));
    }

    #[test]
    fn other_settings_and_damage_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("km.npy.state");
        let begun = fit(&clouds(200, 1.0), config(3));
        begun.write(&path).unwrap();
        let refused = |config: MiniBatchConfig, parts: &[&str]| {
            let error = MiniBatch::resume(&path, config).unwrap_err().to_string();
            for part in [&["km.npy.state", "to begin anew"], parts].concat() {
                assert!(error.contains(part), "{part:?} is not in {error:?}");
            }
        };
        refused(
            MiniBatchConfig { seed: 2, front: "g".into(), ..config(3) },
            &["other settings", "seed was 1, is 2", "front was \"f\", is \"g\""],
        );
        refused(MiniBatchConfig { n_clusters: 4, ..config(3) }, &["n_clusters was 3, is 4"]);
        let bytes = std::fs::read(&path).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            refused(config(3), &["damaged"]);
        }
        std::fs::write(&path, "x").unwrap();
        refused(config(3), &["too short"]);
        // Before the first frames there are no centers, which is a state too.
        let mut fit = MiniBatch::new(config(3));
        fit.learn(&[], 0, 1).unwrap();
        fit.write(&path).unwrap();
        assert_eq!(MiniBatch::resume(&path, config(3)).unwrap(), fit);
        assert!(fit.finish().unwrap_err().to_string().contains("0 different frames"));
        // Nothing is learned of frames that cannot be.
        let before = fit.clone();
        assert!(fit.learn(&[1.0, 1.0, 2.0, 2.0], 1, 0).is_err());
        assert!(fit.learn(&[f32::NAN; 2], 1, 0).is_err());
        assert_eq!(fit, before);
    }
}
