//! Packing token embeddings and speech vectors into the rows of one batch.
//!
//! ```text
//! sequence 0   tokens ·· speech 0 ·· tokens        sequence 1   tokens ·· speech 1 ·· tokens
//! rows         e e e     v v v v     e e           e e e        v v          e e e e
//! ```

use sandhi_nn::{
    ops,
    ragged::{Offsets, Ragged},
    transformer::CausalLm,
};

use burn::prelude::*;

/// A piece of a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Tokens, embedded by the language model's table.
    Tokens(Vec<u32>),
    /// All vectors of an utterance, by its place in the batch's vectors.
    Speech(usize),
}

/// Embeddings of packed sequences, `[n_rows, d_model]`; `vectors` holds the utterances that the segments
/// name.
///
/// # Panics
///
/// When a segment names an utterance that `vectors` does not have.
pub fn pack<S: AsRef<[Segment]>>(
    lm: &CausalLm,
    sequences: &[S],
    vectors: Option<&Ragged>,
) -> Ragged {
    let ids: Vec<u32> = sequences
        .iter()
        .flat_map(AsRef::as_ref)
        .filter_map(|segment| match segment {
            Segment::Tokens(ids) => Some(ids.as_slice()),
            Segment::Speech(_) => None,
        })
        .flatten()
        .copied()
        .collect();
    let lengths: Vec<usize> = sequences
        .iter()
        .map(|segments| segments.as_ref().iter().map(|s| length(s, vectors)).sum())
        .collect();
    let offsets = Offsets::from_lengths(&lengths);
    let embedded = lm.embed(&ids);
    let Some(vectors) = vectors else {
        return Ragged { values: embedded, offsets };
    };
    let n_ids = ids.len();
    let mut order = Vec::with_capacity(offsets.n_rows());
    let mut next_id = 0;
    for segment in sequences.iter().flat_map(AsRef::as_ref) {
        match segment {
            Segment::Tokens(ids) => {
                order.extend((next_id..next_id + ids.len()).map(|row| row as u32));
                next_id += ids.len();
            }
            Segment::Speech(i) => {
                order.extend(vectors.offsets.range(*i).map(|row| (n_ids + row) as u32));
            }
        }
    }
    let pool = Tensor::cat(vec![embedded, vectors.values.clone()], 0);
    Ragged { values: ops::embedding(pool, &order), offsets }
}

/// Rows of a segment.
pub fn length(segment: &Segment, vectors: Option<&Ragged>) -> usize {
    match segment {
        Segment::Tokens(ids) => ids.len(),
        Segment::Speech(i) => {
            vectors.expect("a speech segment needs vectors").offsets.range(*i).len()
        }
    }
}
