//! Recipes, training, generation, tasks and reports of speech language models.

pub mod checkpoint;
pub mod log;
pub mod report;
pub mod results;
pub mod table;
pub mod tensor;
pub mod chat;
pub mod frames;
pub mod generate;
pub mod model;
pub mod pipeline;
pub mod recipe;
pub mod sources;
pub mod train;
