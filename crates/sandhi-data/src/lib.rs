//! Host-side data of speech language models: sound, text, manifests, batches and scores.
//!
//! Nothing here names a tensor type, reads the environment or the clock; randomness enters as a
//! seed from which each consumer derives a stream of its own by name ([`rng`]).

pub mod alignment;
pub mod audio;
pub mod augment;
pub mod batch;
pub mod choice;
pub mod degrade;
pub mod espeak;
pub mod features;
mod files;
pub mod fuzz;
pub mod interleave;
pub mod language;
pub mod manifest;
pub mod microworld;
pub mod patching;
pub mod rng;
pub mod score;
pub mod speech;
pub mod text;
pub mod units;

pub use files::{Place, place, replace_file};
