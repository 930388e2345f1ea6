//! Burn modules, losses and weights of speech language models.
//!
//! Sequences of a batch lie packed as `[n_rows, width]` with their [`ragged::Offsets`]; there is no
//! padding anywhere. This crate opens no data set and knows no tokenizer.

pub mod aligner;
pub mod compression;
pub mod connector;
pub mod encoder;
pub mod init;
pub mod layers;
pub mod length;
pub mod lora;
pub mod ops;
pub mod patch;
pub mod pattern;
pub mod ragged;
pub mod transformer;
pub mod vocoder;
pub mod weights;
