//! Recipes, training, generation, tasks and reports of speech language models.

pub mod checkpoint;
pub mod log;
pub mod report;
pub mod results;
pub mod tensor;
