//! Checkpoints: directories that are there whole or not at all, and that notice a changed byte.
//!
//! ```text
//! step-000200.partial/      written here, every file and the directory fsynced …
//!   model.safetensors
//!   trainer.json
//!   checkpoint.json         what must be there: sizes, hashes of files and of single tensors
//! step-000200/              … then renamed to this: complete by construction
//! step-000200.old/          what was replaced, deleted at the very end
//! ```
//!
//! A process that is killed at any instant leaves the old checkpoint or the new one: when
//! `step-000200` is missing, [`Checkpoint::open`] takes `step-000200.old`, which exists exactly
//! while one is being replaced by the other. Nothing ever reads a `.partial`.
//!
//! The same tensors give the same bytes: tensors are stored in the order of their names, the header
//! is written in a fixed order, nothing holds a time.

mod error;
pub(crate) mod files;
mod manifest;
mod reader;
mod steps;
mod tensors;
mod writer;

pub use error::Error;
pub(crate) use files::create_dir_all;
pub use files::write_atomically;
pub use reader::Checkpoint;
pub use steps::{latest, prune, step_dir, step_of};
pub use tensors::{Dtype, read_tensors, write_tensors};
pub(crate) use tensors::{from_bytes as values, parse as parse_tensors};
pub use writer::CheckpointWriter;

/// What checkpoint functions return.
pub type Result<T> = std::result::Result<T, Error>;
