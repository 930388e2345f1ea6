//! sandhi-lab
