//! Lines of text files as they come: gzip or not, byte order mark, CRLF, bytes that are not UTF-8,
//! lines of any length.

use std::{
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

use super::error::{Error, Kind, Problem};

/// Longer lines are skipped without being kept in memory.
const MAX_LINE_BYTES: usize = 64 << 20;

/// The lines that hold something, numbered from 1 as an editor numbers them.
pub(super) struct Lines<'a> {
    reader: Box<dyn BufRead + 'a>,
    n_read: usize,
    buffer: Vec<u8>,
}

impl Lines<'static> {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error: io::Error| read_error(path, &error);
        // Opening a folder succeeds on some systems and reading it fails.
        if path.is_dir() {
            return Err(failed(io::Error::other("is a folder, expected a file")));
        }
        let file = std::fs::File::open(path).map_err(failed)?;
        Lines::new(BufReader::with_capacity(1 << 16, file)).map_err(failed)
    }
}

impl<'a> Lines<'a> {
    pub(super) fn of_bytes(bytes: &'a [u8]) -> io::Result<Self> {
        Self::new(Cursor::new(bytes))
    }

    fn new(mut reader: impl BufRead + 'a) -> io::Result<Self> {
        let is_gzip = reader.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        let mut reader: Box<dyn BufRead> = if is_gzip {
            Box::new(BufReader::new(MultiGzDecoder::new(reader)))
        } else {
            Box::new(reader)
        };
        if reader.fill_buf()?.starts_with("\u{feff}".as_bytes()) {
            reader.consume(3);
        }
        Ok(Self { reader, n_read: 0, buffer: Vec::new() })
    }

    /// The next line that is not blank, without its end: its number, and the text or why it
    /// cannot be used. `None` at the end of the file.
    #[allow(clippy::type_complexity)]
    pub(super) fn next(&mut self) -> io::Result<Option<(usize, Result<&str, Problem>)>> {
        loop {
            self.buffer.clear();
            let limit = MAX_LINE_BYTES as u64 + 1;
            if self.reader.by_ref().take(limit).read_until(b'\n', &mut self.buffer)? == 0 {
                return Ok(None);
            }
            self.n_read += 1;
            let too_long = self.buffer.len() > MAX_LINE_BYTES && !self.buffer.ends_with(b"\n");
            if too_long {
                self.skip_line()?;
                let expected = format!("at most {} MiB", MAX_LINE_BYTES >> 20);
                let problem = Problem::new(Kind::TooLong, "", "a longer line", expected);
                return Ok(Some((self.n_read, Err(problem))));
            }
            if !self.buffer.iter().all(u8::is_ascii_whitespace) {
                break;
            }
        }
        let line = match std::str::from_utf8(&self.buffer) {
            Ok(text) => Ok(text.trim_end_matches(['\n', '\r'])),
            Err(error) => {
                let at = error.valid_up_to();
                let found = format!("the byte 0x{:02x} in column {}", self.buffer[at], at + 1);
                Err(Problem::new(Kind::NotUtf8, "", found, "UTF-8"))
            }
        };
        Ok(Some((self.n_read, line)))
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let available = self.reader.fill_buf()?;
            let (n, done) = match available.iter().position(|&byte| byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (available.len(), available.is_empty()),
            };
            self.reader.consume(n);
            if done {
                return Ok(());
            }
        }
    }
}

pub(super) fn read_error(path: &Path, error: &io::Error) -> Error {
    Error::Read { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn texts(bytes: &[u8]) -> Vec<(usize, Result<String, Kind>)> {
        let mut lines = Lines::of_bytes(bytes).unwrap();
        let mut texts = Vec::new();
        while let Some((number, line)) = lines.next().unwrap() {
            texts.push((number, line.map(str::to_owned).map_err(|problem| problem.kind)));
        }
        texts
    }

    #[test]
    fn marks_and_line_ends_are_taken_off_and_blank_lines_counted() {
        let expected = [(1, Ok("a".to_owned())), (4, Ok(" b".to_owned()))];
        assert_eq!(texts("\u{feff}a\r\n\r\n \t\n b".as_bytes()), expected);
        assert_eq!(texts(b""), []);
        assert_eq!(texts("\u{feff}\r\n".as_bytes()), []);
    }

    #[test]
    fn a_bad_byte_spoils_its_line_only() {
        assert_eq!(
            texts(b"a\n\xff\nb"),
            [(1, Ok("a".into())), (2, Err(Kind::NotUtf8)), (3, Ok("b".into()))]
        );
    }

    #[test]
    fn gzip_is_known_by_its_content() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all("\u{feff}x\ny".as_bytes()).unwrap();
        let bytes = encoder.finish().unwrap();
        assert_eq!(texts(&bytes), [(1, Ok("x".into())), (2, Ok("y".into()))]);
        let mut cut = Lines::of_bytes(&bytes[..bytes.len() - 9]).unwrap();
        let mut read = || cut.next().map(|line| line.is_some());
        assert!((0..3).any(|_| read().is_err()));
    }

    #[test]
    fn a_line_beyond_the_limit_is_skipped() {
        let mut bytes = vec![b'a'; MAX_LINE_BYTES + 7];
        bytes.extend(b"\nb\n");
        assert_eq!(texts(&bytes), [(1, Err(Kind::TooLong)), (2, Ok("b".into()))]);
    }
}
