//! Recipes, training, generation, tasks and reports of speech language models.

pub mod align;
pub mod chat;
pub mod checkpoint;
pub mod costs;
pub mod experiment;
pub mod frames;
#[doc(hidden)]
pub mod fuzz;
pub mod generate;
pub mod hf;
pub mod inspect;
pub mod log;
pub mod model;
pub mod npy;
pub mod pipeline;
pub mod plan;
pub mod protocol;
pub mod quickstart;
pub mod recipe;
pub mod report;
pub mod results;
pub mod sources;
pub mod table;
pub mod tasks;
pub mod tensor;
pub mod train;
pub mod transcribe;
pub mod units;
