//! Opening a checkpoint: everything is verified before anything is used.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::de::DeserializeOwned;

use super::manifest::{self, FileEntry, Manifest};
use super::{Error, Result, files, tensors};
use crate::tensor::HostTensor;

/// A checkpoint whose files are all there with the content that was written.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    dir: PathBuf,
    manifest: Manifest,
}

impl Checkpoint {
    /// Opens the checkpoint at `dir` and verifies sizes, file hashes and tensor hashes.
    ///
    /// When `dir` is missing and `dir.old` is there (the process that replaced it was killed
    /// between two renames), that one is opened.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::NotACheckpoint`], [`Error::Version`], [`Error::MissingFile`],
    /// [`Error::Truncated`], [`Error::TensorAltered`], [`Error::FileAltered`] or [`Error::Io`].
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = existing(dir).ok_or_else(|| Error::Missing { dir: dir.to_owned() })?;
        let path = dir.join(manifest::FILE);
        if !path.exists() {
            return Err(Error::NotACheckpoint { dir });
        }
        let manifest = Manifest::from_bytes(&files::read(&path)?, &path)?;
        let checkpoint = Self { dir, manifest };
        for (name, entry) in &checkpoint.manifest.files {
            checkpoint.verified(name, entry)?;
        }
        Ok(checkpoint)
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What model it is of, as its writer said.
    pub fn fingerprint(&self) -> &str {
        &self.manifest.model_fingerprint
    }

    /// Refuses a checkpoint of another model.
    ///
    /// # Errors
    ///
    /// [`Error::OtherModel`].
    pub fn expect_fingerprint(&self, model_fingerprint: &str) -> Result<()> {
        if self.fingerprint() == model_fingerprint {
            return Ok(());
        }
        Err(Error::OtherModel {
            dir: self.dir.clone(),
            found: self.fingerprint().to_owned(),
            expected: model_fingerprint.to_owned(),
        })
    }

    /// The names of its files, in the order of writing.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.manifest.files.keys().map(String::as_str)
    }

    /// The tensors of a file in the order of their names, as `f32`.
    ///
    /// # Errors
    ///
    /// [`Error::NotListed`], and those of [`Checkpoint::open`], because the file is verified again.
    pub fn tensors(&self, file: &str) -> Result<IndexMap<String, HostTensor>> {
        tensors::parse(&self.bytes(file)?, &self.dir.join(file))
    }

    /// The value of a JSON file.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when it is not a `T`, and those of [`Checkpoint::tensors`].
    pub fn json<T: DeserializeOwned>(&self, file: &str) -> Result<T> {
        serde_json::from_slice(&self.bytes(file)?)
            .map_err(|e| Error::Format { path: self.dir.join(file), reason: e.to_string() })
    }

    /// The content of a file.
    ///
    /// # Errors
    ///
    /// Those of [`Checkpoint::tensors`].
    pub fn bytes(&self, file: &str) -> Result<Vec<u8>> {
        let entry = self.manifest.files.get(file).ok_or_else(|| Error::NotListed {
            dir: self.dir.clone(),
            file: file.to_owned(),
            listed: self.files().map(str::to_owned).collect(),
        })?;
        self.verified(file, entry)
    }

    /// The content of a file, if it is what was written.
    fn verified(&self, name: &str, entry: &FileEntry) -> Result<Vec<u8>> {
        let path = self.dir.join(name);
        let bytes = files::read(&path)?;
        let found = bytes.len() as u64;
        if found != entry.size {
            return Err(Error::Truncated { path, found, expected: entry.size });
        }
        if blake3::hash(&bytes).to_hex().as_str() == entry.blake3 {
            return Ok(bytes);
        }
        // Say where: a tensor when it is one, else the header.
        for (tensor, place) in &entry.tensors {
            let range =
                usize::try_from(place.bytes[0]).ok().zip(usize::try_from(place.bytes[1]).ok());
            let data = range.and_then(|(start, end)| bytes.get(start..end));
            let intact =
                data.is_some_and(|data| blake3::hash(data).to_hex().as_str() == place.blake3);
            if !intact {
                return Err(Error::TensorAltered { path, tensor: tensor.clone() });
            }
        }
        Err(Error::FileAltered { path })
    }
}

/// The directory that holds the checkpoint called `dir` at this instant.
pub(super) fn existing(dir: &Path) -> Option<PathBuf> {
    let old = files::beside(dir, ".old");
    [dir.to_owned(), old].into_iter().find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::super::{CheckpointWriter, Dtype};
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn tensors(value: f32) -> IndexMap<String, HostTensor> {
        IndexMap::from([
            ("encoder.weight".to_owned(), HostTensor::new([2, 3], vec![value; 6])),
            ("adapter.bias".to_owned(), HostTensor::new([3], vec![-value, 0.0, f32::NAN])),
        ])
    }

    fn fill(writer: &mut CheckpointWriter, value: f32) -> Result<()> {
        let metadata = IndexMap::from([("format".to_owned(), "pt".to_owned())]);
        writer.fingerprint("slm-d96");
        writer.tensors("model.safetensors", &tensors(value), Dtype::F32, &metadata)?;
        writer.tensors("half.safetensors", &tensors(value), Dtype::F16, &metadata)?;
        writer.json("trainer.json", &IndexMap::from([("step", 7), ("epoch", 1)]))
    }

    fn write(dir: &Path, value: f32) -> Result<()> {
        let mut writer = CheckpointWriter::create(dir)?;
        fill(&mut writer, value)?;
        writer.finish()
    }

    /// The value that a checkpoint written by [`write`] was given.
    fn value(checkpoint: &Checkpoint) -> f32 {
        checkpoint.tensors("model.safetensors").unwrap()["encoder.weight"].values[0]
    }

    #[test]
    fn what_was_written_is_read() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("runs/step-000007");
        write(&dir, 0.5).unwrap();
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let read = checkpoint.tensors("model.safetensors").unwrap();
        assert_eq!(read["encoder.weight"], tensors(0.5)["encoder.weight"]);
        assert!(read["adapter.bias"].values[2].is_nan());
        assert_eq!(
            checkpoint.tensors("half.safetensors").unwrap()["encoder.weight"].values[5],
            0.5
        );
        let json: IndexMap<String, u32> = checkpoint.json("trainer.json").unwrap();
        assert_eq!(json["step"], 7);
        assert_eq!(
            checkpoint.files().collect::<Vec<_>>(),
            ["model.safetensors", "half.safetensors", "trainer.json"]
        );
        checkpoint.expect_fingerprint("slm-d96").unwrap();
        assert_eq!(fs::read_dir(root.path().join("runs")).unwrap().count(), 1);
    }

    #[test]
    fn the_same_state_gives_the_same_bytes() {
        let root = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| root.path().join(name));
        write(&a, 0.5).unwrap();
        write(&b, 0.5).unwrap();
        for entry in fs::read_dir(&a).unwrap() {
            let name = entry.unwrap().file_name();
            assert_eq!(fs::read(a.join(&name)).unwrap(), fs::read(b.join(&name)).unwrap());
        }
    }

    #[test]
    fn a_kill_at_any_instant_leaves_the_old_or_the_new_one() {
        let mut seen = Vec::new();
        for steps in 0.. {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("step-000007");
            write(&dir, 1.0).unwrap();
            let mut writer = CheckpointWriter::create(&dir).unwrap();
            writer.steps_until_kill = Some(steps);
            let survived = fill(&mut writer, 2.0).and_then(|()| writer.finish()).is_ok();
            let left = value(&Checkpoint::open(&dir).unwrap());
            assert!(left == 1.0 || left == 2.0);
            seen.push(left);
            // Whatever was left, the next attempt succeeds and tidies up.
            write(&dir, 3.0).unwrap();
            assert_eq!(value(&Checkpoint::open(&dir).unwrap()), 3.0);
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
            if survived {
                break;
            }
        }
        assert!(seen.is_sorted(), "once new, always new: {seen:?}");
        assert!(seen.len() > 6 && seen[0] == 1.0 && seen[seen.len() - 1] == 2.0, "{seen:?}");
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_the_old_one_alone() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("step-000007");
        write(&dir, 1.0).unwrap();
        let mut writer = CheckpointWriter::create(&dir).unwrap();
        fill(&mut writer, 2.0).unwrap();
        drop(writer);
        assert_eq!(value(&Checkpoint::open(&dir).unwrap()), 1.0);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn each_kind_of_damage_has_its_error() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("c");
        let model = dir.join("model.safetensors");
        let fresh = || {
            write(&dir, 0.5).unwrap();
            fs::read(&model).unwrap()
        };
        let message = || Checkpoint::open(&dir).unwrap_err().to_string();

        let bytes = fresh();
        fs::write(&model, &bytes[..bytes.len() - 1]).unwrap();
        assert!(message().contains(&format!(
            "{} bytes, {} expected",
            bytes.len() - 1,
            bytes.len()
        )));

        // Tensors lie in the order of their names: 12 bytes of adapter.bias, then 24 of
        // encoder.weight up to the end of the file.
        for (from_end, tensor) in
            [(1, "encoder.weight"), (24, "encoder.weight"), (25, "adapter.bias")]
        {
            let mut bytes = fresh();
            let position = bytes.len() - from_end;
            bytes[position] ^= 1;
            fs::write(&model, &bytes).unwrap();
            let message = message();
            assert!(message.contains(tensor) && message.contains("model.safetensors"), "{message}");
        }

        fresh();
        fs::write(dir.join("trainer.json"), "{\n  \"step\": 8,\n  \"epoch\": 1\n}\n").unwrap();
        assert!(message().contains("trainer.json was altered"), "{}", message());

        fresh();
        fs::remove_file(&model).unwrap();
        assert!(message().contains("model.safetensors is missing"), "{}", message());

        fresh();
        fs::remove_file(dir.join("checkpoint.json")).unwrap();
        assert!(matches!(Checkpoint::open(&dir), Err(Error::NotACheckpoint { .. })));
        assert!(matches!(Checkpoint::open(&root.path().join("none")), Err(Error::Missing { .. })));
    }

    #[test]
    fn another_model_and_a_missing_file_are_named() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("c");
        write(&dir, 0.5).unwrap();
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let error = checkpoint.expect_fingerprint("slm-d128").unwrap_err().to_string();
        assert!(error.contains("slm-d96") && error.contains("slm-d128"), "{error}");
        let error = checkpoint.tensors("optimizer.safetensors").unwrap_err().to_string();
        assert!(
            error.contains("optimizer.safetensors") && error.contains("trainer.json"),
            "{error}"
        );
        assert!(matches!(checkpoint.json::<Vec<u8>>("trainer.json"), Err(Error::Format { .. })));
    }

    #[test]
    fn names_that_cannot_be_files_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let mut writer = CheckpointWriter::create(&root.path().join("c")).unwrap();
        writer.bytes("a", b"x").unwrap();
        for name in ["", ".", "..", "a/b", "checkpoint.json", "a"] {
            let error = writer.bytes(name, b"x").unwrap_err();
            assert!(matches!(error, Error::FileName { .. }), "{name:?}: {error}");
        }
        let error = writer.copy_file("b", &root.path().join("none")).unwrap_err();
        assert!(matches!(error, Error::MissingFile { .. }), "{error}");
    }

    #[test]
    fn a_copied_file_is_a_file_like_any_other() {
        let root = tempfile::tempdir().unwrap();
        let from = root.path().join("tokenizer.json");
        fs::write(&from, vec![7; 3_000_000]).unwrap();
        let dir = root.path().join("c");
        let mut writer = CheckpointWriter::create(&dir).unwrap();
        writer.copy_file("tokenizer.json", &from).unwrap();
        writer.finish().unwrap();
        assert_eq!(
            Checkpoint::open(&dir).unwrap().bytes("tokenizer.json").unwrap().len(),
            3_000_000
        );
    }

    #[test]
    fn what_is_not_a_checkpoint_is_never_replaced() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("thesis");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("chapter.tex"), "x").unwrap();
        assert!(matches!(write(&dir, 1.0), Err(Error::NotACheckpoint { .. })));
        assert!(dir.join("chapter.tex").exists());
        let file = root.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(write(&file, 1.0), Err(Error::NotACheckpoint { .. })));
        let empty = root.path().join("empty");
        fs::create_dir(&empty).unwrap();
        write(&empty, 1.0).unwrap();
        Checkpoint::open(&empty).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_read_only_directory_is_one_clear_error() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("locked");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o555)).unwrap();
        if fs::write(dir.join("probe"), "").is_ok() {
            eprintln!("skipped: this user may write anywhere");
        } else {
            let error = write(&dir.join("step-000001"), 1.0).unwrap_err();
            assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_flipped_bit_of_any_file_is_noticed(
            file in 0..4_usize, position in any::<proptest::sample::Index>(), bit in 0..8_u32,
        ) {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("c");
            write(&dir, 0.5).unwrap();
            let names = ["model.safetensors", "half.safetensors", "trainer.json", "checkpoint.json"];
            let path = dir.join(names[file]);
            let mut bytes = fs::read(&path).unwrap();
            let position = position.index(bytes.len());
            bytes[position] ^= 1 << bit;
            fs::write(&path, &bytes).unwrap();
            let error = Checkpoint::open(&dir).unwrap_err();
            prop_assert!(error.to_string().contains(names[file]), "{}", error);
            // A byte of tensor data names its tensor, a byte of the header does not.
            let data = match file { 0 => 36, 1 => 18, _ => 0 };
            let in_data = position >= bytes.len() - data;
            prop_assert_eq!(matches!(error, Error::TensorAltered { .. }), in_data, "{}", error);
        }
    }
}
