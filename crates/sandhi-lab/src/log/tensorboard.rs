//! TensorBoard event files: scalars and text.
//!
//! ```text
//! record: u64 length │ u32 masked CRC-32C of it │ bytes of an `Event` │ u32 masked CRC-32C of them
//! file:   Event { file_version } , Event { summary { tag, simple_value } } , …
//! ```
//!
//! The framing is TensorFlow's TFRecord (`tensorflow/core/lib/io/record_writer.cc`), the messages
//! are the needed fields of `event.proto`, `summary.proto` and `tensor.proto`. A resumed run writes
//! a further file that begins with a `SessionLog` of status START at the first step it writes
//! again: TensorBoard then drops what the interrupted run wrote from there on.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use prost::Message;

use super::Result;
use crate::checkpoint::{self, files};

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    /// 1 is START.
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "Content", tags = "2, 8")]
    content: Option<Content>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Content {
    #[prost(float, tag = "2")]
    SimpleValue(f32),
    #[prost(message, tag = "8")]
    Tensor(Tensor),
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    /// 7 is DT_STRING.
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    string_val: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "2")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, tag = "1")]
    size: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = "1")]
    plugin_data: Option<PluginData>,
}

#[derive(Clone, PartialEq, Message)]
struct PluginData {
    #[prost(string, tag = "1")]
    plugin_name: String,
}

/// Writes one event file; every event is handed to the system before the call returns.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Begins an event file in `dir` (made when missing) at `wall_time_s`, seconds since 1970.
    ///
    /// `first_step` is the first step that a resumed run will write; whatever older files of the
    /// directory hold from there on is void. A fresh run gives `None`.
    ///
    /// # Errors
    ///
    /// [`super::Error::File`].
    pub fn create(dir: &Path, wall_time_s: f64, first_step: Option<u64>) -> Result<Self> {
        files::create_dir_all(dir)?;
        let seconds = wall_time_s.max(0.0) as u64;
        let mut n_earlier = 0;
        // Two writers of the same second get names of their own.
        let (path, file) = loop {
            let name = format!("events.out.tfevents.{seconds:010}.sandhi.{n_earlier}");
            let path = dir.join(name);
            match File::create_new(&path) {
                Ok(file) => break (path, file),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => n_earlier += 1,
                Err(e) => return Err(checkpoint::Error::io("create", &path, e).into()),
            }
        };
        let mut writer = Self { path, file };
        writer.write(0, wall_time_s, What::FileVersion("brain.Event:2".to_owned()))?;
        if let Some(step) = first_step {
            writer.write(step, wall_time_s, What::SessionLog(SessionLog { status: 1 }))?;
        }
        Ok(writer)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One point of each of some curves; a `/` in a tag groups them in the interface.
    ///
    /// # Errors
    ///
    /// [`super::Error::File`].
    pub fn scalars(&mut self, step: u64, wall_time_s: f64, values: &[(&str, f32)]) -> Result<()> {
        let value = values
            .iter()
            .map(|(tag, value)| Value {
                tag: (*tag).to_owned(),
                content: Some(Content::SimpleValue(*value)),
                metadata: None,
            })
            .collect();
        self.write(step, wall_time_s, What::Summary(Summary { value }))
    }

    /// A text, shown as Markdown.
    ///
    /// # Errors
    ///
    /// [`super::Error::File`].
    pub fn text(&mut self, tag: &str, step: u64, wall_time_s: f64, markdown: &str) -> Result<()> {
        let tensor = Tensor {
            dtype: 7,
            shape: Some(Shape { dim: vec![Dimension { size: 1 }] }),
            string_val: vec![markdown.as_bytes().to_vec()],
        };
        let plugin_data = Some(PluginData { plugin_name: "text".to_owned() });
        let value = Value {
            // The plugin's own convention: its summaries end in `/text_summary`.
            tag: format!("{tag}/text_summary"),
            content: Some(Content::Tensor(tensor)),
            metadata: Some(Metadata { plugin_data }),
        };
        self.write(step, wall_time_s, What::Summary(Summary { value: vec![value] }))
    }

    fn write(&mut self, step: u64, wall_time: f64, what: What) -> Result<()> {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let event = Event { wall_time, step, what: Some(what) };
        Ok(self
            .file
            .write_all(&record(&event.encode_to_vec()))
            .map_err(|e| checkpoint::Error::io("write", &self.path, e))?)
    }
}

/// Frames the bytes of an event as a TFRecord.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

/// CRC-32C, rotated and shifted so that a CRC of data that contains CRCs stays a good one.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads event files back, with checks of their sums.
    fn events(path: &Path) -> Vec<Event> {
        let bytes = std::fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut events = Vec::new();
        while !rest.is_empty() {
            let (length, tail) = rest.split_at(8);
            let (sum, tail) = tail.split_at(4);
            assert_eq!(sum, masked_crc(length).to_le_bytes());
            let (data, tail) =
                tail.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            let (sum, tail) = tail.split_at(4);
            assert_eq!(sum, masked_crc(data).to_le_bytes());
            events.push(Event::decode(data).unwrap());
            rest = tail;
        }
        events
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of CRC-32C (RFC 3720, B.4 uses the same polynomial).
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_file_begins_as_tensorflows_do() {
        let dir = tempfile::tempdir().unwrap();
        let writer = EventWriter::create(dir.path(), 1.0, None).unwrap();
        let bytes = std::fs::read(writer.path()).unwrap();
        // The first 12 bytes of every event file in the world: a record of 24 bytes …
        assert_eq!(bytes[..12], *b"\x18\0\0\0\0\0\0\0\xa3\x7f\x4b\x22");
        // … with field 1 (wall_time, 64 bits) 1.0 and field 3 (file_version) of 13 letters.
        assert_eq!(bytes[12..21], *b"\x09\0\0\0\0\0\0\xf0\x3f");
        assert_eq!(bytes[21..36], *b"\x1a\x0dbrain.Event:2");
        assert_eq!(bytes.len(), 40);
    }

    #[test]
    fn a_scalar_has_these_bytes() {
        let value = Value {
            tag: "loss".to_owned(),
            content: Some(Content::SimpleValue(0.5)),
            metadata: None,
        };
        let what = What::Summary(Summary { value: vec![value] });
        let event = Event { wall_time: 2.0, step: 3, what: Some(what) };
        // 09 wall_time; 10 step; 2a summary of 13 bytes { 0a value of 11 bytes { 0a tag, 15 f32 } }
        let expected = b"\x09\0\0\0\0\0\0\0\x40\x10\x03\x2a\x0d\x0a\x0b\x0a\x04loss\x15\0\0\0\x3f";
        assert_eq!(event.encode_to_vec(), expected);
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("tensorboard");
        let mut writer = EventWriter::create(&logs, 1_700_000_000.5, None).unwrap();
        writer.scalars(1, 1_700_000_001.0, &[("loss", 2.5), ("rate/lr", 1e-3)]).unwrap();
        writer.text("recipe", 0, 1_700_000_002.0, "seed = **1**").unwrap();
        let events = events(writer.path());
        assert_eq!(events.len(), 3);
        assert_eq!((events[1].step, events[1].wall_time), (1, 1_700_000_001.0));
        let Some(What::Summary(summary)) = &events[1].what else { panic!("{:?}", events[1]) };
        let tags: Vec<_> = summary.value.iter().map(|v| v.tag.as_str()).collect();
        assert_eq!(tags, ["loss", "rate/lr"]);
        assert_eq!(summary.value[1].content, Some(Content::SimpleValue(1e-3)));
        let Some(What::Summary(summary)) = &events[2].what else { panic!("{:?}", events[2]) };
        let Some(Content::Tensor(tensor)) = &summary.value[0].content else { panic!() };
        assert_eq!(tensor.string_val, [b"seed = **1**".to_vec()]);
    }

    #[test]
    fn a_resumed_run_writes_a_further_file_that_voids_the_rest_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = EventWriter::create(dir.path(), 5.0, None).unwrap();
        let second = EventWriter::create(dir.path(), 5.0, Some(101)).unwrap();
        assert!(first.path() < second.path());
        let start = &events(second.path())[1];
        assert_eq!(start.step, 101);
        assert_eq!(start.what, Some(What::SessionLog(SessionLog { status: 1 })));
    }
}
