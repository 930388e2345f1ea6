//! sandhi-nn
