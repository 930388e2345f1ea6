//! The `sandhi` command line.
fn main() {}
