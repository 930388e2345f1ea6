//! Discrete units: the nearest of k centers for every frame of an encoder, as HuBERT's k-means gives them.
//!
//! ```text
//! frames [n_frames, d] ─ layer 11 of an mHuBERT ─┐
//! centers [1000, d]    ─ .npy or .safetensors ───┴─ argmin |frame - center|² ─> 17 17 203 998 …   one a frame
//! ```
//!
//! Centers are read, or fitted to frames of an encoder or to windows of spectra ([`Front`]): to frames
//! [in memory](Kmeans::fit), or to [any number of them](MiniBatch). [`quality()`] says how well units tell phones apart.
//!
//! Lakhotia et al., 2021, <https://arxiv.org/abs/2102.01192>, section 3.1. scikit-learn keeps its models as pickles,
//! which could run code and are not opened; `tools/kmeans.py` takes the centers out of them.

mod fit;
mod front;
mod mini_batch;
mod nearest;
mod quality;

use std::path::{Path, PathBuf};

use sandhi_data::units::UnitsHeader;

use crate::{
    checkpoint::{self, files},
    npy,
    tensor::HostTensor,
};

pub use self::{
    fit::{FitConfig, FitError, Iteration},
    front::{FrameWindow, Front, Spectra, normalize},
    mini_batch::{MiniBatch, MiniBatchConfig, Progress, StateError, mark},
    quality::{Quality, labels_at, quality},
};

/// What can go wrong with a file of centers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is something else, or damaged.
    #[error("{}: {message}", path.display())]
    Centers {
        /// The file.
        path: PathBuf,
        /// What was found and expected.
        message: String,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
}

/// Centers of clusters.
#[derive(Debug, Clone, PartialEq)]
pub struct Kmeans {
    /// `[n_clusters, width]`, row after row.
    centers: Vec<f32>,
    width: usize,
}

/// How pickles begin, alone or compressed by joblib: protocol 2 and later, zlib, gzip, xz, lz4, zip (PyTorch).
const PICKLES: [&[u8]; 6] =
    [b"\x80", b"\x78", b"\x1f\x8b", b"\xfd7zXZ", b"\x04\x22\x4d\x18", b"PK\x03\x04"];

impl Kmeans {
    /// Reads centers, `[n_clusters, width]`: a `.npy` file of f32 or f64, or a safetensors file with one tensor of
    /// two axes.
    ///
    /// # Errors
    ///
    /// [`Error::Centers`] for a file that is neither, holds something else, or values that are not finite;
    /// [`Error::Checkpoint`] for one that cannot be read.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&files::read(path)?, path)
    }

    /// As [`Kmeans::read`], from the bytes of a file.
    ///
    /// # Errors
    ///
    /// [`Error::Centers`].
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, Error> {
        let wrong = |message: String| Error::Centers { path: path.to_owned(), message };
        let found = if bytes.starts_with(npy::MAGIC) {
            let array = npy::parse(bytes).map_err(&wrong)?;
            HostTensor { shape: array.shape, values: array.values.into_f32() }
        } else if PICKLES.iter().any(|start| bytes.starts_with(start)) && !is_safetensors(bytes) {
            return Err(wrong(
                "this is a pickle, which could run code and is not opened; take the centers out of it with \
                 `python tools/kmeans.py IN OUT.npy`"
                    .into(),
            ));
        } else if is_safetensors(bytes) {
            let tensors = checkpoint::parse_tensors(bytes, path)?;
            let names: Vec<&String> = tensors.keys().collect();
            match tensors.values().collect::<Vec<_>>()[..] {
                [tensor] => tensor.clone(),
                _ => {
                    return Err(wrong(format!(
                        "expected one tensor, the centers; there are {names:?}"
                    )));
                }
            }
        } else {
            return Err(wrong("neither a .npy nor a .safetensors file".into()));
        };
        let [n_clusters, width] = found.shape[..] else {
            return Err(wrong(format!("shape {:?}, expected [n_clusters, width]", found.shape)));
        };
        if n_clusters == 0 || width == 0 || u32::try_from(n_clusters).is_err() {
            return Err(wrong(format!("shape {:?}, expected at least one center", found.shape)));
        }
        if let Some(value) = found.values.iter().find(|value| !value.is_finite()) {
            return Err(wrong(format!("a center has {value}, expected finite numbers")));
        }
        Ok(Self { centers: found.values, width })
    }

    /// How many units there are.
    pub fn n_clusters(&self) -> usize {
        self.centers.len() / self.width
    }

    /// Width of the frames.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The center nearest to each frame by squared distance; of centers equally near, the first.
    ///
    /// # Panics
    ///
    /// When the frames are no whole rows of [`Kmeans::width`].
    pub fn assign(&self, frames: &[f32]) -> Vec<u32> {
        assert!(frames.len().is_multiple_of(self.width), "frames are {} wide", self.width);
        self.nearest(frames).into_iter().map(|(unit, _)| unit).collect()
    }

    /// Cosine between a frame and the center of a unit; 0 where either has no direction.
    ///
    /// # Panics
    ///
    /// When there is no such unit, or the frame is of another width.
    pub fn cosine(&self, unit: u32, frame: &[f32]) -> f64 {
        let center = &self.centers[unit as usize * self.width..][..self.width];
        assert_eq!(frame.len(), self.width, "width of a frame");
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        let norms = (dot(center, center) * dot(frame, frame)).sqrt();
        if norms > 0.0 { dot(center, frame) / norms } else { 0.0 }
    }

    /// What their units are, of frames whose settings and weights have this fingerprint: units are never mixed with
    /// those of other centers or frames.
    pub fn header(&self, frames: &str, rate_hz: f64) -> UnitsHeader {
        let mut hasher = blake3::Hasher::new();
        hasher.update(frames.as_bytes());
        hasher.update(&self.to_npy());
        let quantizer = hasher.finalize().to_hex()[..32].to_owned();
        UnitsHeader { quantizer, n_units: self.n_clusters() as u32, rate_hz }
    }

    /// The centers as a `.npy` file.
    pub fn to_npy(&self) -> Vec<u8> {
        npy::to_bytes(&[self.n_clusters(), self.width], &self.centers)
    }

    /// The nearest center of each frame and its squared distance.
    fn nearest(&self, frames: &[f32]) -> Vec<(u32, f32)> {
        nearest::nearest(frames, &self.centers, self.width)
    }
}

/// A length of the header that is possible, and a header that begins as one.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return false };
    u64::from_le_bytes(*length) <= rest.len() as u64 && rest.first() == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use npyz::{Order, WriterBuilder};

    use super::*;
    use crate::checkpoint::{Dtype, write_tensors};

    fn kmeans(centers: &[f32], width: usize) -> Kmeans {
        Kmeans { centers: centers.to_vec(), width }
    }

    #[test]
    fn the_nearest_center_by_hand() {
        // Centers 0, 1 and 4 on a line; halfway belongs to the first of the two.
        let line = kmeans(&[0.0, 1.0, 4.0], 1);
        assert_eq!(line.assign(&[-3.0, 0.4, 0.5, 0.6, 2.5, 2.6, 99.0]), [0, 0, 0, 1, 1, 2, 2]);
        // In the plane: squared distances of (1, 1) are 2, 1 and 1.
        let plane = kmeans(&[0.0, 0.0, 2.0, 1.0, 1.0, 2.0], 2);
        assert_eq!(plane.assign(&[1.0, 1.0]), [1]);
        // (1, 1) and (2, 1): 3 of the root of 2 × 5; a center at 0 has no direction.
        assert!((plane.cosine(1, &[1.0, 1.0]) - 3.0 / 10.0_f64.sqrt()).abs() < 1e-9);
        assert_eq!(plane.cosine(0, &[1.0, 1.0]), 0.0);
        // More than a block of lanes: only the last entry differs.
        let mut centers = vec![0.0; 2 * 19];
        centers[37] = 1.0;
        let wide = kmeans(&centers, 19);
        let mut frame = vec![0.0; 19];
        frame[18] = 0.75;
        assert_eq!((wide.assign(&frame), wide.n_clusters()), (vec![1], 2));
        assert_eq!(wide.assign(&[]), [0_u32; 0]);
    }

    fn write_npy<T: npyz::AutoSerialize>(path: &Path, order: Order, shape: &[u64], values: Vec<T>) {
        let mut bytes = Vec::new();
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(shape)
            .order(order)
            .writer(&mut bytes)
            .begin_nd()
            .unwrap();
        writer.extend(values).unwrap();
        writer.finish().unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn centers_are_read_from_arrays_and_safetensors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("km");
        let expected = kmeans(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3);
        write_npy(&path, Order::C, &[2, 3], vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(Kmeans::read(&path).unwrap(), expected);
        write_npy(&path, Order::Fortran, &[2, 3], vec![1.0_f64, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(Kmeans::read(&path).unwrap(), expected);
        let tensor = HostTensor::new([2, 3], expected.centers.clone());
        let mut tensors = IndexMap::from([("cluster_centers".to_owned(), tensor)]);
        write_tensors(&path, &tensors, Dtype::F32, &IndexMap::new()).unwrap();
        assert_eq!(Kmeans::read(&path).unwrap(), expected);
        std::fs::write(&path, expected.to_npy()).unwrap();
        assert_eq!(Kmeans::read(&path).unwrap(), expected);

        let refused = |expected: &[&str]| {
            let error = Kmeans::read(&path).unwrap_err().to_string();
            for part in expected {
                assert!(error.contains(part), "{error:?} lacks {part:?}");
            }
        };
        tensors.insert("other".into(), HostTensor::new([1], vec![0.0]));
        write_tensors(&path, &tensors, Dtype::F32, &IndexMap::new()).unwrap();
        refused(&["expected one tensor", "other"]);
        write_npy(&path, Order::C, &[6], vec![1.0_f32; 6]);
        refused(&["shape [6]", "[n_clusters, width]"]);
        write_npy(&path, Order::C, &[0, 3], Vec::<f32>::new());
        refused(&["shape [0, 3]"]);
        write_npy(&path, Order::C, &[1, 2], vec![1.0_f32, f32::NAN]);
        refused(&["NaN", "finite"]);
        write_npy(&path, Order::C, &[1, 2], vec![1_i64, 2]);
        refused(&["<i8", "f32 or f64"]);
        // A header that promises more than there is.
        write_npy(&path, Order::C, &[10, 2], vec![1.0_f32; 20]);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 40]).unwrap();
        refused(&["not a .npy file"]);
        std::fs::write(&path, &bytes[..bytes.len() - 79]).unwrap();
        refused(&["km"]);
        let huge =
            String::from_utf8_lossy(&bytes[10..]).replace("(10, 2", "(9999999999, 9999999999");
        std::fs::write(&path, [&bytes[..10], huge.as_bytes()].concat()).unwrap();
        refused(&["sizes that no file could"]);
        for start in PICKLES {
            std::fs::write(&path, [start, b"rest of it"].concat()).unwrap();
            refused(&["pickle", "tools/kmeans.py"]);
        }
        std::fs::write(&path, "1 2 3").unwrap();
        refused(&["neither a .npy nor"]);
        std::fs::remove_file(&path).unwrap();
        refused(&["km"]);
    }
}
