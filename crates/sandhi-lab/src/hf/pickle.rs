//! Tensors of PyTorch's own files: `pytorch_model.bin`.
//!
//! ```text
//! archive ─ data.pkl ─ what it calls ─ tensors alone? ─┬─ no: refused
//!           data/0 …                                   └─ yes: shapes, then bytes
//! ```
//!
//! A pickle is a program: Python that opens it calls whatever functions it names. Nothing here ever calls one;
//! the reader knows what a tensor's parts look like and takes everything else for a value that it does not
//! understand. A file that names more than tensors need is refused all the same, even if what it names would
//! leave no trace among the values: who has it should know.

use std::{fs::File, io::Read, path::Path};

use indexmap::IndexMap;
use pytorch_reader::{DType, MAX_PICKLE_SIZE, PickleValue, PytorchReader};
use rayon::prelude::*;

use super::{Error, shards::map};
use crate::{checkpoint, tensor::HostTensor};

/// What `torch.save` names for a dictionary of tensors.
const HARMLESS: [(&str, &str); 14] = [
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "FloatStorage"),
    ("torch", "HalfStorage"),
    ("torch", "BFloat16Storage"),
    ("torch", "DoubleStorage"),
    ("torch", "LongStorage"),
    ("torch", "IntStorage"),
    ("torch", "ShortStorage"),
    ("torch", "CharStorage"),
    ("torch", "ByteStorage"),
    ("torch", "BoolStorage"),
];

/// Buffers of whole numbers that are functions of the configuration, by the end of their names.
const COUNTERS: [&str; 2] = ["position_ids", "num_batches_tracked"];

/// Versions of modules, which `Module.state_dict` sets beside the tensors.
const VERSIONS: &str = "_metadata";

/// Pickles in front of the tensors of a file of PyTorch before 1.6: two numbers, the system, the tensors' places,
/// the storages' names.
const LEGACY_PICKLES: usize = 5;

/// Where a TAR archive says that it is one.
const TAR_MAGIC_AT: usize = 257;

/// The tensors of a file, as f32, by name. Known buffers of whole numbers are left out.
///
/// # Errors
///
/// [`Error::Tensors`] for a damaged file, one that calls more than tensors need, values that are no tensors and
/// tensors of other types than F32, F16 and BF16; [`Error::Checkpoint`] when it cannot be read.
pub(super) fn read(path: &Path) -> Result<IndexMap<String, HostTensor>, Error> {
    let wrong = |message: String| Error::Tensors { path: path.to_owned(), message };
    check_pickles(path)?;
    let damaged = |error| wrong(format!("not a file of torch.save: {error}"));
    if let PickleValue::Dict(values) =
        PytorchReader::read_pickle_data(path, None).map_err(damaged)?
    {
        let mut others: Vec<String> = values
            .iter()
            .filter(|(name, _)| name.as_str() != VERSIONS)
            .filter_map(|(name, value)| Some(format!("{name} is {}", no_tensor(value)?)))
            .collect();
        if !others.is_empty() {
            others.sort_unstable();
            return Err(wrong(format!("{}, expected tensors alone", others.join(", "))));
        }
    }
    let mut tensors: Vec<_> =
        PytorchReader::new(path).map_err(damaged)?.into_tensors().into_iter().collect();
    tensors.retain(|(name, tensor)| !is_counter(name, tensor.dtype()));
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    if tensors.is_empty() {
        return Err(wrong("there is no tensor in it".into()));
    }
    let io = |source| checkpoint::Error::io("read", path, source);
    let size = std::fs::metadata(path).map_err(io)?.len();
    let needed: u64 = tensors
        .iter()
        .fold(0, |sum: u64, (_, tensor)| sum.saturating_add(tensor.byte_len() as u64));
    // A tied table has two names. More than that are views of a few bytes that would take all memory.
    if needed > 2 * size {
        return Err(wrong(format!("its tensors would take {needed} bytes, the file has {size}")));
    }
    tensors
        .into_par_iter()
        .map(|(name, tensor)| {
            let dtype = match tensor.dtype() {
                DType::F32 => safetensors::Dtype::F32,
                DType::F16 => safetensors::Dtype::F16,
                DType::BF16 => safetensors::Dtype::BF16,
                other => {
                    return Err(wrong(format!(
                        "tensor {name} is of type {other:?}, expected F32, F16 or BF16"
                    )));
                }
            };
            let bytes = tensor.read().map_err(|error| wrong(error.to_string()))?;
            let values = checkpoint::values(&bytes, dtype).expect("these three types are read");
            Ok((name, HostTensor { shape: tensor.shape().to_vec(), values }))
        })
        .collect::<Result<Vec<_>, _>>()
        .map(|tensors| tensors.into_iter().collect())
}

fn is_counter(name: &str, dtype: DType) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    matches!(dtype, DType::I64 | DType::I32) && COUNTERS.contains(&last)
}

/// What a value is that is no tensor.
fn no_tensor(value: &PickleValue) -> Option<String> {
    Some(match value {
        PickleValue::Unsupported(kind) if kind == "torch.Tensor" => return None,
        PickleValue::Unsupported(kind) => kind.clone(),
        PickleValue::None => "None".into(),
        PickleValue::Bool(_) => "a truth value".into(),
        PickleValue::Int(_) | PickleValue::Float(_) => "a number".into(),
        PickleValue::String(_) | PickleValue::Bytes(_) => "a text".into(),
        PickleValue::List(_) => "a list".into(),
        PickleValue::Dict(_) => "a dictionary".into(),
    })
}

/// Checks all pickles of a file, one at a time.
fn check_pickles(path: &Path) -> Result<(), Error> {
    let refused = |message: String| Error::Tensors { path: path.to_owned(), message };
    let wrong =
        |error: &dyn std::fmt::Display| refused(format!("not a file of torch.save: {error}"));
    let bytes = map(path)?;
    if bytes.get(TAR_MAGIC_AT..).is_some_and(|rest| rest.starts_with(b"ustar")) {
        return Err(refused(
            "a TAR archive, as PyTorch before 0.1.10 wrote them, is not read; expected a file of torch.save since then"
                .into(),
        ));
    }
    if !bytes.starts_with(b"PK") {
        // Older than archives: pickles one after another, and then numbers.
        let mut rest = &bytes[..];
        for _ in 0..LEGACY_PICKLES {
            if rest.is_empty() {
                break;
            }
            let end = length(rest).map_err(|error| wrong(&error))?;
            check(&rest[..end]).map_err(refused)?;
            rest = &rest[end..];
        }
        return Ok(());
    }
    let file = File::open(path).map_err(|e| checkpoint::Error::io("read", path, e))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| wrong(&error))?;
    let mut found = false;
    for i in 0..archive.len() {
        let entry = archive.by_index(i).map_err(|error| wrong(&error))?;
        let name = entry.name().map_err(|error| wrong(&error))?.into_owned();
        if name.rsplit('/').next() == Some("data.pkl") {
            if found {
                return Err(wrong(&format!("{name} is a second data.pkl, expected one")));
            }
            found = true;
            let mut pickle = Vec::new();
            let mut entry = entry.take(MAX_PICKLE_SIZE);
            entry.read_to_end(&mut pickle).map_err(|error| wrong(&error))?;
            check(&pickle).map_err(refused)?;
        }
    }
    if found { Ok(()) } else { Err(wrong(&"there is no data.pkl in it")) }
}

/// An operation of a pickle.
enum Operation<'a> {
    /// Looks up what it may call.
    Names(&'a [u8], &'a [u8]),
    /// Looks up what it may call, by a name that another operation made.
    Computes,
    Stops,
    Other,
}

/// Whether a pickle names nothing but what tensors need.
fn check(pickle: &[u8]) -> Result<(), String> {
    let mut rest = pickle;
    loop {
        match operation(&mut rest)? {
            Operation::Stops => return Ok(()),
            Operation::Other => {}
            Operation::Computes => {
                return Err("the pickle calls functions whose names it puts together; nothing of it was run. \
                     Expected tensors alone, saved by torch.save with the usual protocol"
                    .into());
            }
            Operation::Names(module, name) => {
                let known =
                    HARMLESS.iter().any(|(m, n)| m.as_bytes() == module && n.as_bytes() == name);
                if !known {
                    return Err(format!(
                        "the pickle calls {}.{}, which Python would run on opening it; nothing of it was run. \
                         Expected tensors alone",
                        module.escape_ascii(),
                        name.escape_ascii()
                    ));
                }
            }
        }
    }
}

/// Bytes of the first pickle.
fn length(bytes: &[u8]) -> Result<usize, String> {
    let mut rest = bytes;
    while !matches!(operation(&mut rest)?, Operation::Stops) {}
    Ok(bytes.len() - rest.len())
}

/// Takes the first operation of a pickle with what belongs to it; protocols 0 to 2 (Python's `pickletools`), and
/// bytes of protocol 3.
fn operation<'a>(rest: &mut &'a [u8]) -> Result<Operation<'a>, String> {
    let code = take(rest, 1)?[0];
    match code {
        b'.' => return Ok(Operation::Stops),
        b'c' | b'i' => {
            let module = line(rest)?;
            return Ok(Operation::Names(module, line(rest)?));
        }
        // Extensions are numbers in place of names.
        0x93 | 0x82..=0x84 => return Ok(Operation::Computes),
        b'('
        | b'0'
        | b'1'
        | b'2'
        | b'N'
        | b'R'
        | b'a'
        | b'b'
        | b'd'
        | b'}'
        | b'e'
        | b'l'
        | b']'
        | b'o'
        | b's'
        | b't'
        | b')'
        | b'u'
        | b'Q'
        | 0x81
        | 0x85..=0x89 => {}
        b'K' | b'h' | b'q' | 0x80 => drop(take(rest, 1)?),
        b'M' => drop(take(rest, 2)?),
        b'J' | b'j' | b'r' => drop(take(rest, 4)?),
        b'G' => drop(take(rest, 8)?),
        b'I' | b'L' | b'F' | b'S' | b'V' | b'P' | b'g' | b'p' => drop(line(rest)?),
        b'U' | b'C' | 0x8a => {
            let n = take(rest, 1)?[0];
            take(rest, usize::from(n))?;
        }
        b'T' | b'X' | b'B' | 0x8b => {
            let n = take(rest, 4)?.try_into().expect("four bytes were taken");
            take(rest, u32::from_le_bytes(n) as usize)?;
        }
        // Frames and memory of protocol 4 bring names that are put together.
        0x8c..=0x97 => return Ok(Operation::Computes),
        other => return Err(format!("not a pickle of tensors: it has the operation {other:#04x}")),
    }
    Ok(Operation::Other)
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Result<&'a [u8], String> {
    let (taken, others) = rest.split_at_checked(n).ok_or("the pickle ends in the middle")?;
    *rest = others;
    Ok(taken)
}

fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let end = rest.iter().position(|&b| b == b'\n').ok_or("the pickle ends in the middle")?;
    let taken = take(rest, end)?;
    take(rest, 1)?;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::checkpoint::read_tensors;

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pickles").join(name)
    }

    #[track_caller]
    fn refused(path: &Path, parts: &[&str]) {
        let error = read(path).unwrap_err().to_string();
        for part in parts.iter().chain([&path.file_name().unwrap().to_str().unwrap()]) {
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        }
    }

    /// A file of these bytes.
    fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn tensors_of_every_type_are_those_that_were_saved() {
        let expected = read_tensors(&golden("types.safetensors")).unwrap();
        for name in ["types.bin", "legacy.bin"] {
            let found = read(&golden(name)).unwrap();
            assert_eq!(found.len(), expected.len(), "{name}");
            for (tensor, expected) in &expected {
                assert_eq!(&found[tensor], expected, "{name} {tensor}");
            }
        }
    }

    #[test]
    fn what_would_run_is_refused() {
        refused(&golden("calls.bin"), &["calls os.system", "nothing of it was run"]);
        refused(&golden("hidden.bin"), &["calls os.system"]);
        refused(&golden("memo.bin"), &["puts together"]);
        refused(&golden("protocol4.bin"), &["puts together", "usual protocol"]);
        let dir = tempfile::tempdir().unwrap();
        let ran = dir.path().join("ran");
        let shell = format!("touch {}", ran.display());
        // By hand: os.system(shell); the same by INST; and behind another pickle.
        let global = format!("cos\nsystem\n(S'{shell}'\ntR.");
        let inst = format!("(S'{shell}'\nios\nsystem\n.");
        for text in [global.clone(), inst, format!("I1\n.{global}")] {
            let (_dir, path) = file(text.as_bytes());
            refused(&path, &["calls os.system"]);
        }
        assert!(!ran.exists());
        let (_dir, path) = file(b"ctorch.storage\n_load_from_bytes\n.");
        refused(&path, &["calls torch.storage._load_from_bytes"]);
    }

    #[test]
    fn an_archive_has_one_pickle_and_is_no_tar() {
        let zip = |names: &[&str]| {
            let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
            for name in names {
                let stored = zip::write::SimpleFileOptions::default();
                archive
                    .start_file(*name, stored.compression_method(zip::CompressionMethod::Stored))
                    .unwrap();
                std::io::Write::write_all(&mut archive, b"}.").unwrap();
            }
            file(&archive.finish().unwrap().into_inner())
        };
        let (_dir, path) = zip(&["a/data.pkl", "a/data/0", "b/data.pkl"]);
        refused(&path, &["b/data.pkl is a second data.pkl"]);
        let (_dir, path) = zip(&["a/data.pkl", "a/data/0"]);
        refused(&path, &["no tensor"]);
        // The reader takes it for an archive even where it begins like a harmless pickle, or with PK.
        for start in [&b"}."[..], b"PK"] {
            let mut tar = start.to_vec();
            tar.resize(1024, 0);
            tar[TAR_MAGIC_AT..][..5].copy_from_slice(b"ustar");
            let (_dir, path) = file(&tar);
            refused(&path, &["a TAR archive", "torch.save"]);
        }
    }

    #[test]
    fn what_is_no_weight_is_refused() {
        refused(&golden("whole_numbers.bin"), &["tensor a is of type I64", "F32, F16 or BF16"]);
        refused(&golden("config.bin"), &["about is a text", "tensors alone"]);
        refused(&golden("expanded.bin"), &["8589934592 bytes"]);
        let (_dir, path) = file(b"}.");
        refused(&path, &["no tensor"]);
        let (_dir, path) = file(b"I7\n.");
        refused(&path, &["not a file of torch.save"]);
    }

    #[test]
    fn damaged_files_are_refused() {
        let whole = std::fs::read(golden("types.bin")).unwrap();
        for n in [0, 1, 2, 100, whole.len() / 2, whole.len() - 1] {
            let (_dir, path) = file(&whole[..n]);
            assert!(read(&path).is_err(), "{n} bytes");
        }
        let legacy = std::fs::read(golden("legacy.bin")).unwrap();
        for n in (0..legacy.len()).step_by(7) {
            let (_dir, path) = file(&legacy[..n]);
            assert!(read(&path).is_err(), "{n} bytes");
        }
        // A value that changed does not have the archive's checksum.
        let expected = read(&golden("types.bin")).unwrap();
        let first = expected["f32"].values[0].to_le_bytes();
        let at = whole.windows(4).position(|bytes| bytes == first).unwrap();
        let mut changed = whole;
        changed[at] ^= 1;
        let (_dir, path) = file(&changed);
        assert!(read(&path).is_err());
    }
}
