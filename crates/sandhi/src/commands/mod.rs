//! One file a subcommand, each with `Args` and `run`.

pub mod completions;
pub mod data;
pub mod doctor;
pub mod features;
pub mod plan;
pub mod score;
pub mod table;
pub mod train;
