//! NumPy arrays on disk, `.npy`: f32 and f64 of any shape, always row-major in memory.
//!
//! ```text
//! C order        1 2 3 | 4 5 6  ──────────────┐
//!                                             ├─> shape [2, 3], values 1 2 3 4 5 6
//! Fortran order  1 4 | 2 5 | 3 6 ── turned ───┘
//! ```

use std::path::{Path, PathBuf};

use npyz::{AutoSerialize, DType, NpyFile, Order, TypeChar, WriterBuilder};

use crate::checkpoint::{self, files};

/// What can go wrong with an array.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is something else, or damaged.
    #[error("{}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was found and expected.
        message: String,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
}

/// An array in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// The length of each axis, outermost first.
    pub shape: Vec<usize>,
    /// The values; the last axis varies fastest.
    pub values: Values,
}

/// Values in the precision of the file.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
}

impl Values {
    /// In single precision, rounded.
    pub fn into_f32(self) -> Vec<f32> {
        match self {
            Self::F32(values) => values,
            Self::F64(values) => values.into_iter().map(|x| x as f32).collect(),
        }
    }

    /// In double precision.
    pub fn into_f64(self) -> Vec<f64> {
        match self {
            Self::F32(values) => values.into_iter().map(f64::from).collect(),
            Self::F64(values) => values,
        }
    }
}

/// How a file begins.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";
/// Digits of a header whose numbers, multiplied, stay within 64 bits.
const MOST_DIGITS: usize = 19;

/// Reads an array of f32 or f64, of either byte order and in either order of axes.
///
/// # Errors
///
/// [`Error::Content`] for a file that is none, or holds something else; [`Error::Checkpoint`] for one that cannot be
/// read.
pub fn read(path: &Path) -> Result<Array, Error> {
    let bytes = files::read(path).map_err(|error| match error {
        // It is no part of a checkpoint.
        checkpoint::Error::MissingFile { path } => {
            Error::Content { path, message: "no such file".to_owned() }
        }
        error => error.into(),
    })?;
    parse(&bytes).map_err(|message| Error::Content { path: path.to_owned(), message })
}

/// As [`read`], from the bytes of a file.
pub(crate) fn parse(bytes: &[u8]) -> Result<Array, String> {
    if !bytes.starts_with(MAGIC) {
        return Err("not a .npy file: it does not begin as one".into());
    }
    let damaged = |error: std::io::Error| format!("not a .npy file: {error}");
    // Sizes are multiplied, and as many bytes taken as the header is said to have, before anybody can look at them.
    let (header, body) = parts(bytes).ok_or("not a .npy file: it ends within its header")?;
    if header.iter().filter(|byte| byte.is_ascii_digit()).count() > MOST_DIGITS {
        return Err("not a .npy file of numbers: its header has sizes that no file could".into());
    }
    let file = NpyFile::new(bytes).map_err(damaged)?;
    let shape: Vec<usize> =
        file.shape().iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX)).collect();
    let n = shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size));
    let kind = match file.dtype() {
        DType::Plain(kind) => kind,
        other => return Err(format!("values are {}, expected f32 or f64", other.descr())),
    };
    let size = usize::try_from(kind.size_field()).unwrap_or(usize::MAX);
    let n_bytes = n.and_then(|n| n.checked_mul(size));
    if n_bytes.is_none_or(|n_bytes| n_bytes > body.len()) {
        return Err(format!(
            "not a .npy file: shape {shape:?} needs more than the {} bytes that follow its header",
            body.len()
        ));
    }
    let is_turned = file.order() == Order::Fortran;
    let values = match (kind.type_char(), size) {
        (TypeChar::Float, 4) => {
            Values::F32(row_major(file.into_vec().map_err(damaged)?, &shape, is_turned))
        }
        (TypeChar::Float, 8) => {
            Values::F64(row_major(file.into_vec().map_err(damaged)?, &shape, is_turned))
        }
        _ => return Err(format!("values are {kind}, expected f32 or f64")),
    };
    Ok(Array { shape, values })
}

/// The text of the header and what follows it: after the magic, two bytes of version, and the header's length in two
/// bytes, or four since version 2.
fn parts(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match bytes.get(MAGIC.len())? {
        1 => {
            let (length, rest) = bytes.get(8..)?.split_first_chunk()?;
            (u32::from(u16::from_le_bytes(*length)), rest)
        }
        _ => {
            let (length, rest) = bytes.get(8..)?.split_first_chunk()?;
            (u32::from_le_bytes(*length), rest)
        }
    };
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// The values as they are, or those of an array whose first axis varies fastest.
fn row_major<T: Copy>(values: Vec<T>, shape: &[usize], is_turned: bool) -> Vec<T> {
    if !is_turned || shape.len() < 2 {
        return values;
    }
    let at_of = |mut at: usize| {
        let mut step = values.len();
        let mut from = 0;
        for &size in shape.iter().rev() {
            step /= size;
            from += at % size * step;
            at /= size;
        }
        from
    };
    (0..values.len()).map(|at| values[at_of(at)]).collect()
}

/// The bytes of a file, in C order.
///
/// # Panics
///
/// When the product of `shape` is not the number of values.
pub fn to_bytes<T: AutoSerialize + Copy>(shape: &[usize], values: &[T]) -> Vec<u8> {
    assert_eq!(shape.iter().product::<usize>(), values.len(), "the shape {shape:?} does not fit");
    let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
    let mut bytes = Vec::with_capacity(128 + size_of_val(values));
    let mut write = || {
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&shape)
            .writer(&mut bytes)
            .begin_nd()?;
        writer.extend(values.iter().copied())?;
        writer.finish()
    };
    write().expect("memory takes whatever is written");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as NumPy writes it, with any header.
    fn file(version: u8, header: &str, values: &[u8]) -> Vec<u8> {
        let mut bytes = [MAGIC, &[version, 0]].concat();
        let length = header.len() as u32;
        match version {
            1 => bytes.extend((length as u16).to_le_bytes()),
            _ => bytes.extend(length.to_le_bytes()),
        }
        [&bytes, header.as_bytes(), values].concat()
    }

    fn header(dtype: &str, fortran: bool, shape: &str) -> String {
        let order = if fortran { "True" } else { "False" };
        format!("{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}\n")
    }

    #[test]
    fn what_is_written_is_read() {
        let values = [0.1, -2.0, 3.5, 4.0, 5.0, f64::MIN_POSITIVE];
        let array = parse(&to_bytes(&[2, 3], &values)).unwrap();
        assert_eq!(array, Array { shape: vec![2, 3], values: Values::F64(values.to_vec()) });
        let array = parse(&to_bytes(&[3], &[1.0_f32, 2.0, 3.0])).unwrap();
        assert_eq!(array.values, Values::F32(vec![1.0, 2.0, 3.0]));
    }

    #[test]
    fn either_order_of_axes_and_bytes_is_read() {
        // [[0, 1, 2], [3, 4, 5]], its columns one after the other.
        let columns = [0.0_f64, 3.0, 1.0, 4.0, 2.0, 5.0];
        let big: Vec<u8> = columns.iter().flat_map(|x| x.to_be_bytes()).collect();
        let array = parse(&file(2, &header(">f8", true, "(2, 3)"), &big)).unwrap();
        let expected = Values::F64(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(array, Array { shape: vec![2, 3], values: expected });
        // [2, 1, 3]: the axis of one changes nothing.
        let array = parse(&file(1, &header(">f8", true, "(2, 1, 3)"), &big)).unwrap();
        assert_eq!(array.values.into_f32(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn what_is_no_array_of_numbers_is_refused() {
        let refused = |bytes: &[u8], part: &str| {
            let message = parse(bytes).unwrap_err();
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        };
        let whole = to_bytes(&[2], &[1.0_f64, 2.0]);
        for n in 0..whole.len() {
            assert!(parse(&whole[..n]).is_err(), "{n} bytes");
        }
        refused(b"1 2 3", "does not begin");
        refused(&file(1, &header("<f2", false, "(1,)"), &[0; 2]), "expected f32 or f64");
        refused(&file(1, &header("<i8", false, "(1,)"), &[0; 8]), "<i8");
        refused(&file(1, &header("<f8", false, "(2,)"), &[0; 8]), "needs more");
        // A line end before the sizes, where a reader of lines would stop.
        let sizes = header("<f8", false, "\n(99999999999, 99999999999)");
        refused(&file(1, &sizes, &[0; 8]), "sizes that no file could");
        let mut longer = file(2, &header("<f8", false, "(1,)"), &[0; 8]);
        longer[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        refused(&longer, "ends within its header");
    }
}
