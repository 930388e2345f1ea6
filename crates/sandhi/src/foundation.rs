//! The foundation models that the program carries, made by `recipes/foundation`.

use std::path::Path;

use sandhi_lab::checkpoint::write_atomically;

macro_rules! model {
    ($name:literal, $($file:literal),+) => {
        ($name, &[$(($file, include_bytes!(concat!("../../../weights/", $name, "/", $file)).as_slice())),+])
    };
}

type Files = &'static [(&'static str, &'static [u8])];

const MODELS: [(&str, Files); 2] = [
    model!("encoder", "checkpoint.json", "model.json", "encoder.safetensors"),
    model!(
        "language_model",
        "checkpoint.json",
        "model.json",
        "language_model.safetensors",
        "tokenizer.json"
    ),
];

/// Every model's name and the bytes that it takes.
pub fn sizes() -> impl Iterator<Item = (&'static str, usize)> {
    MODELS.iter().map(|(name, files)| (*name, files.iter().map(|(_, bytes)| bytes.len()).sum()))
}

/// Writes a model's directory; `model.json` comes last, so that a directory that has it is whole.
///
/// # Errors
///
/// When a file cannot be written.
pub fn write(name: &str, dir: &Path) -> anyhow::Result<()> {
    let files = MODELS.iter().find(|(n, _)| *n == name).map(|(_, files)| *files);
    let files = files.ok_or_else(|| anyhow::anyhow!("the program carries no model {name}"))?;
    let (last, rest): (Vec<_>, Vec<_>) = files.iter().partition(|(file, _)| *file == "model.json");
    for (file, bytes) in rest.into_iter().chain(last) {
        write_atomically(&dir.join(file), bytes)?;
    }
    Ok(())
}
