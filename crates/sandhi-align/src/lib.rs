//! Alignment on plain slices: no tensors, no files.

pub mod ctc;
pub mod fuzz;
pub mod monotonic;
pub mod transport;

mod lanes;
mod wide;

#[cfg(test)]
mod golden;
