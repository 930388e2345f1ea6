//! One file a subcommand, each with `Args` and `run`.

pub mod align;
pub mod ask;
pub mod bench;
pub mod completions;
pub mod data;
pub mod doctor;
pub mod download;
pub mod eval;
pub mod export;
mod failures;
pub mod features;
pub mod inspect;
pub mod ot;
pub mod pack;
pub mod plan;
pub mod quickstart;
pub mod report;
pub mod score;
pub mod sweep;
pub mod table;
pub mod train;
pub mod transcribe;
pub mod units;
pub mod verify;
