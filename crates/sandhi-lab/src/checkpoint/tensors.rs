//! Files of tensors in the safetensors format, with the same bytes for the same tensors.
//!
//! ```text
//! u64: length of the header | header: JSON, padded with spaces to 8 bytes | tensor | tensor | …
//! ```
//!
//! The `safetensors` crate reads them. It does not write them here, because it keeps the metadata
//! in a hash map, which gives other bytes in every process.

use std::path::Path;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::files::{self, HashedFile};
use super::manifest::{FileEntry, TensorEntry};
use super::{Error, Result};
use crate::tensor::HostTensor;

/// How values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dtype {
    /// 32-bit floats: exactly what the model holds.
    F32,
    /// 16-bit floats: half the size, 11 significant bits, at most 65504.
    F16,
}

impl Dtype {
    /// Bytes of a value.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
        }
    }
}

/// Values that are converted and written at a time.
const CHUNK: usize = 1 << 16;

/// A value of the header, whose fields are written in this order.
#[derive(Serialize)]
#[serde(untagged)]
enum HeaderValue<'a> {
    Metadata(IndexMap<&'a str, &'a str>),
    Tensor { dtype: &'static str, shape: &'a [usize], data_offsets: [usize; 2] },
}

/// Writes tensors to an open file; returns what the manifest needs to know.
pub(super) fn write_to(
    mut file: HashedFile,
    path: &Path,
    tensors: &IndexMap<String, HostTensor>,
    dtype: Dtype,
    metadata: &IndexMap<String, String>,
) -> Result<FileEntry> {
    let mut sorted: Vec<(&String, &HostTensor)> = tensors.iter().collect();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    check(&sorted, dtype)?;

    let mut header = IndexMap::<&str, HeaderValue<'_>>::new();
    if !metadata.is_empty() {
        header.insert("__metadata__", HeaderValue::Metadata(sorted_metadata(metadata)));
    }
    let mut end = 0;
    for (name, tensor) in &sorted {
        let start = end;
        end += tensor.n_values() * dtype.size();
        let (dtype, shape) = (dtype.name(), tensor.shape.as_slice());
        header.insert(name, HeaderValue::Tensor { dtype, shape, data_offsets: [start, end] });
    }
    let mut header = files::json(path, &header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    file.write(&(header.len() as u64).to_le_bytes())?;
    file.write(&header)?;

    let mut entries = IndexMap::new();
    for (name, tensor) in &sorted {
        let start = file.size();
        let mut hasher = blake3::Hasher::new();
        for chunk in tensor.values.chunks(CHUNK) {
            let bytes = to_bytes(chunk, dtype);
            hasher.update(&bytes);
            file.write(&bytes)?;
        }
        let entry = TensorEntry {
            dtype,
            shape: tensor.shape.clone(),
            bytes: [start, file.size()],
            blake3: hasher.finalize().to_hex().to_string(),
        };
        entries.insert((*name).clone(), entry);
    }
    let (size, blake3) = file.finish()?;
    Ok(FileEntry { size, blake3, tensors: entries })
}

fn sorted_metadata(metadata: &IndexMap<String, String>) -> IndexMap<&str, &str> {
    let mut sorted: IndexMap<&str, &str> =
        metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    sorted.sort_unstable_keys();
    sorted
}

fn check(tensors: &[(&String, &HostTensor)], dtype: Dtype) -> Result<()> {
    for (name, tensor) in tensors {
        if name.as_str() == "__metadata__" {
            let name = (*name).clone();
            return Err(Error::FileName { name, reason: "safetensors reserves it" });
        }
        if !tensor.is_consistent() {
            return Err(Error::Shape {
                tensor: (*name).clone(),
                shape: tensor.shape.clone(),
                n_values: tensor.n_values(),
            });
        }
        if dtype == Dtype::F16 {
            let lost = |v: &&f32| v.is_finite() && f16::from_f32(**v).is_infinite();
            if let Some(&value) = tensor.values.iter().find(lost) {
                return Err(Error::F16Range { tensor: (*name).clone(), value });
            }
        }
    }
    Ok(())
}

fn to_bytes(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Dtype::F16 => {
            let mut half = vec![f16::ZERO; values.len()];
            half.convert_from_f32_slice(values);
            half.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
    }
}

/// Reads the bytes of a safetensors file; `path` is for messages.
pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<IndexMap<String, HostTensor>> {
    let format = |reason: String| Error::Format { path: path.to_owned(), reason };
    let file = safetensors::SafeTensors::deserialize(bytes)
        .map_err(|e| format(format!("not a safetensors file: {e}")))?;
    let mut names = file.names();
    names.sort_unstable();
    names
        .into_iter()
        .map(|name| {
            let view = file.tensor(name).map_err(|e| format(e.to_string()))?;
            let values = from_bytes(view.data(), view.dtype()).ok_or_else(|| {
                format(format!(
                    "tensor {name:?} is of type {:?}, expected F32, F16 or BF16",
                    view.dtype()
                ))
            })?;
            Ok((name.to_owned(), HostTensor { shape: view.shape().to_vec(), values }))
        })
        .collect()
}

/// Values of a tensor's bytes; `None` for types other than F32, F16 and BF16.
pub(crate) fn from_bytes(bytes: &[u8], dtype: safetensors::Dtype) -> Option<Vec<f32>> {
    let (pairs, _) = bytes.as_chunks::<2>();
    let (quads, _) = bytes.as_chunks::<4>();
    match dtype {
        safetensors::Dtype::F32 => Some(quads.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        safetensors::Dtype::F16 => {
            let half: Vec<f16> = pairs.iter().map(|b| f16::from_le_bytes(*b)).collect();
            Some(half.to_f32_vec())
        }
        safetensors::Dtype::BF16 => {
            Some(pairs.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect())
        }
        _ => None,
    }
}

/// Reads a safetensors file of F32, F16 or BF16 tensors that stands alone (weights from elsewhere,
/// or those shipped with a recipe), in the order of the tensors' names.
///
/// # Errors
///
/// [`Error::MissingFile`], [`Error::Format`] or [`Error::Io`].
pub fn read_tensors(path: &Path) -> Result<IndexMap<String, HostTensor>> {
    parse(&files::read(path)?, path)
}

/// Writes a safetensors file that stands alone: the whole file or not at all.
///
/// # Errors
///
/// [`Error::Shape`], [`Error::F16Range`], [`Error::DiskFull`], [`Error::ReadOnly`] or [`Error::Io`].
pub fn write_tensors(
    path: &Path,
    tensors: &IndexMap<String, HostTensor>,
    dtype: Dtype,
    metadata: &IndexMap<String, String>,
) -> Result<()> {
    files::create_dir_all(files::parent(path))?;
    let partial = files::beside(path, ".partial");
    let result = (|| {
        let file = std::fs::File::create(&partial).map_err(|e| Error::io("create", &partial, e))?;
        write_to(HashedFile::over(file, &partial), path, tensors, dtype, metadata)?;
        std::fs::rename(&partial, path).map_err(|e| Error::io("replace", path, e))?;
        files::sync_dir(files::parent(path))
    })();
    if result.is_err() {
        // The error matters more than what is left of the attempt.
        let _ = std::fs::remove_file(&partial);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(
        tensors: &IndexMap<String, HostTensor>,
        dtype: Dtype,
        metadata: &[(&str, &str)],
    ) -> Result<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        write_tensors(&path, tensors, dtype, &metadata)?;
        Ok(std::fs::read(&path).unwrap())
    }

    fn pair(names: [&str; 2]) -> IndexMap<String, HostTensor> {
        IndexMap::from([
            (names[0].to_owned(), HostTensor::new([2], vec![1.0, -2.0])),
            (names[1].to_owned(), HostTensor::new([2], vec![1.0, -2.0])),
        ])
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let tensors = IndexMap::from([("w".to_owned(), HostTensor::new([1, 2], vec![1.0, -2.0]))]);
        let bytes = write(&tensors, Dtype::F16, &[("k", "v")]).unwrap();
        let header = concat!(
            r#"{"__metadata__":{"k":"v"},"#,
            r#""w":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]}}"#
        );
        let padded = format!("{header:<width$}", width = header.len().next_multiple_of(8));
        let mut expected = (padded.len() as u64).to_le_bytes().to_vec();
        expected.extend(padded.as_bytes());
        // 1.0 is 0x3c00, -2.0 is 0xc000 in half precision.
        expected.extend([0x00, 0x3c, 0x00, 0xc0]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn the_order_of_insertion_does_not_matter() {
        let metadata = [("b", "1"), ("a", "2")];
        let turned = [("a", "2"), ("b", "1")];
        let one = write(&pair(["x", "y"]), Dtype::F32, &metadata).unwrap();
        let two = write(&pair(["y", "x"]), Dtype::F32, &turned).unwrap();
        assert_eq!(one, two);
    }

    #[test]
    fn what_half_precision_cannot_hold_is_an_error() {
        let with = |value| IndexMap::from([("w".to_owned(), HostTensor::new([1], vec![value]))]);
        match write(&with(70_000.0), Dtype::F16, &[]).unwrap_err() {
            Error::F16Range { tensor, value } => assert_eq!((&*tensor, value), ("w", 70_000.0)),
            other => panic!("{other}"),
        }
        write(&with(f32::INFINITY), Dtype::F16, &[]).unwrap();
        write(&with(65_504.0), Dtype::F16, &[]).unwrap();
        let error = write(&with(70_000.0), Dtype::F32, &[]);
        assert!(error.is_ok());
    }

    #[test]
    fn a_tensor_that_contradicts_itself_is_an_error() {
        let tensor = HostTensor { shape: vec![3], values: vec![0.0; 2] };
        let error = write(&IndexMap::from([("w".to_owned(), tensor)]), Dtype::F32, &[]);
        assert!(matches!(error, Err(Error::Shape { n_values: 2, .. })));
        let reserved = IndexMap::from([("__metadata__".to_owned(), HostTensor::new([0], vec![]))]);
        assert!(matches!(write(&reserved, Dtype::F32, &[]), Err(Error::FileName { .. })));
    }

    #[test]
    fn a_foreign_file_is_read_and_a_bad_one_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        // bf16 of 1.0 is 0x3f80, of -3.0 is 0xc040.
        let data = [0x80, 0x3f, 0x40, 0xc0];
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, vec![2], &data).unwrap();
        std::fs::write(&path, safetensors::serialize([("w", view)], None).unwrap()).unwrap();
        assert_eq!(read_tensors(&path).unwrap()["w"].values, [1.0, -3.0]);

        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::I32, vec![1], &data).unwrap();
        std::fs::write(&path, safetensors::serialize([("w", view)], None).unwrap()).unwrap();
        let error = read_tensors(&path).unwrap_err().to_string();
        assert!(error.contains("\"w\"") && error.contains("I32"), "{error}");

        std::fs::write(&path, b"RIFF").unwrap();
        assert!(matches!(read_tensors(&path), Err(Error::Format { .. })));
        assert!(matches!(read_tensors(&dir.path().join("n")), Err(Error::MissingFile { .. })));
    }

    proptest! {
        // Every case waits for the disk.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_f32_survives_to_the_bit(
            values in proptest::collection::vec(any::<u32>().prop_map(f32::from_bits), 0..200),
            name in ".{0,20}",
        ) {
            prop_assume!(name != "__metadata__");
            let tensor = HostTensor::new([values.len(), 1], values.clone());
            let bytes =
                write(&IndexMap::from([(name.clone(), tensor)]), Dtype::F32, &[("f", "pt")]).unwrap();
            let read = parse(&bytes, Path::new("t")).unwrap();
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&read[&name].values), bits(&values));
            prop_assert_eq!(&read[&name].shape, &vec![values.len(), 1]);
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes, Path::new("t"));
        }
    }
}
