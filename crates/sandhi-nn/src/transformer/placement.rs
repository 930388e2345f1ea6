//! Which rows attend to which, and the keys and values that are kept while decoding.

use std::{ops::Range, sync::Arc};

use burn::prelude::*;

use super::Block;
use crate::{
    ops::{self, Mask},
    ragged::Offsets,
};

/// Which rows attend to which, and where they stand.
#[derive(Debug, Clone)]
pub struct Placement {
    pub(super) queries: Arc<[Range<usize>]>,
    pub(super) keys: Arc<[Range<usize>]>,
    /// Position of each query row in its sequence.
    pub(super) positions: Arc<[usize]>,
    pub(super) mask: Mask,
    /// Rows of the cache that the new keys go to; empty without a cache.
    pub(super) written: Arc<[usize]>,
    /// The rows that ask, where not all do; the others are keys and values only.
    pub(super) asking: Option<Asking>,
}

/// Rows that ask, and where they stand.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    rows: Arc<[u32]>,
    pub(super) positions: Arc<[usize]>,
}

impl Placement {
    /// Every sequence attends to itself; positions count from 0.
    pub fn packed(offsets: &Offsets, mask: Mask) -> Self {
        let spans: Arc<[Range<usize>]> =
            (0..offsets.n_sequences()).map(|i| offsets.range(i)).collect();
        let positions = spans.iter().flat_map(|span| 0..span.len()).collect();
        let written = Arc::from([]);
        Self { queries: spans.clone(), keys: spans, positions, mask, written, asking: None }
    }

    /// The same, but that only the last `tails[i]` rows of sequence `i` ask.
    ///
    /// # Panics
    ///
    /// When a sequence has fewer rows, or there are more or fewer sequences than tails.
    pub fn of_tails(&self, tails: &[usize]) -> Self {
        assert_eq!(self.queries.len(), tails.len(), "one tail a sequence");
        let rows = self.queries.iter().zip(tails).flat_map(|(span, &tail)| {
            assert!(tail <= span.len(), "a tail is longer than its sequence");
            span.end - tail..span.end
        });
        self.asked(rows.map(|row| row as u32).collect(), &Offsets::from_lengths(tails))
    }

    /// The same, but that only `rows` ask, of which sequence `i` has the span `i` of `offsets`.
    ///
    /// # Panics
    ///
    /// When a row is not of its sequence, or they are not its last and a mask goes by how many rows come after.
    pub(crate) fn of_rows(&self, rows: Vec<u32>, offsets: &Offsets) -> Self {
        assert_eq!(self.queries.len(), offsets.n_sequences(), "one span of rows a sequence");
        assert!(
            matches!(self.mask, Mask::Full | Mask::Ranges(_)),
            "with {:?} only the last rows of a sequence can ask alone",
            self.mask
        );
        for (span, asking) in self.queries.iter().zip(offsets.iter()) {
            let within = rows[asking].iter().all(|&row| span.contains(&(row as usize)));
            assert!(within, "a row asks that is none of its sequence, {span:?}");
        }
        self.asked(rows, offsets)
    }

    fn asked(&self, rows: Vec<u32>, offsets: &Offsets) -> Self {
        let positions = rows.iter().map(|&row| self.positions[row as usize]).collect();
        let mask = match &self.mask {
            Mask::Ranges(ranges) => {
                Mask::Ranges(rows.iter().map(|&row| ranges[row as usize].clone()).collect())
            }
            same => same.clone(),
        };
        Self {
            queries: offsets.iter().collect(),
            mask,
            asking: Some(Asking { rows: rows.into(), positions }),
            ..self.clone()
        }
    }

    /// The rows of `x` that ask.
    pub(super) fn ask(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.asking {
            None => x,
            Some(asking) => ops::embedding(x, &asking.rows),
        }
    }
}

/// Keys and values of the sequences that are being decoded, at the level of embeddings: it does not
/// know whether a row was a token or a frame of speech.
///
/// Every sequence owns a slot of rows that is as long as it may become.
#[derive(Debug)]
pub struct Cache {
    pub(super) layers: Vec<Option<(Tensor<2>, Tensor<2>)>>,
    /// Row span of each sequence's slot.
    pub(super) slots: Vec<Range<usize>>,
    /// Rows in use of each slot.
    pub(super) lengths: Vec<usize>,
}

impl Cache {
    /// An empty cache of a stack of blocks, with room for `capacities[i]` rows of sequence `i`.
    pub(crate) fn new(layers: &[&Block], capacities: &[usize], device: &Device) -> Self {
        let mut start = 0;
        let slots: Vec<_> = capacities
            .iter()
            .map(|&n| {
                let slot = start..start + n;
                start += n;
                slot
            })
            .collect();
        let layers = layers
            .iter()
            .map(|layer| {
                let width = layer.self_attn.kv_width();
                let zeros = || Tensor::zeros([start, width], device);
                Some((zeros(), zeros()))
            })
            .collect();
        Self { layers, lengths: vec![0; slots.len()], slots }
    }

    /// Where block `i` keeps its keys and values.
    pub(crate) fn entry(&mut self, i: usize) -> &mut Option<(Tensor<2>, Tensor<2>)> {
        &mut self.layers[i]
    }

    /// How many sequences there are.
    pub fn n_sequences(&self) -> usize {
        self.slots.len()
    }

    /// How many rows the sequence `i` has filled.
    pub fn length(&self, i: usize) -> usize {
        self.lengths[i]
    }

    /// A cache whose sequence `i` begins with the rows of sequence `parents[i]` of this one and has room
    /// for `capacities[i]` rows: what several continuations share is read once.
    ///
    /// # Panics
    ///
    /// When a capacity is smaller than what its parent has filled.
    pub fn fork(&self, parents: &[usize], capacities: &[usize]) -> Self {
        assert_eq!(parents.len(), capacities.len());
        let (mut slots, mut order) = (Vec::with_capacity(parents.len()), Vec::new());
        for (&parent, &capacity) in parents.iter().zip(capacities) {
            let (first, length) = (self.slots[parent].start, self.lengths[parent]);
            assert!(length <= capacity, "a sequence is longer than its slot of the cache");
            let start = order.len();
            order.extend((first..first + length).map(|row| row as u32));
            // Rows to come: written before they are read.
            order.resize(start + capacity, 0);
            slots.push(start..order.len());
        }
        let gather = |rows: &Tensor<2>| ops::embedding(rows.clone(), &order);
        let layers = self
            .layers
            .iter()
            .map(|layer| layer.as_ref().map(|(keys, values)| (gather(keys), gather(values))))
            .collect();
        Self { layers, slots, lengths: parents.iter().map(|&i| self.lengths[i]).collect() }
    }

    /// Claims room for `counts[k]` new rows of sequence `sequences[k]`.
    pub(crate) fn place(&mut self, sequences: &[usize], counts: &[usize], mask: Mask) -> Placement {
        let (mut queries, mut keys) = (Vec::new(), Vec::new());
        let (mut positions, mut written) = (Vec::new(), Vec::new());
        let mut row = 0;
        for (&sequence, &count) in sequences.iter().zip(counts) {
            let (slot, length) = (self.slots[sequence].clone(), self.lengths[sequence]);
            assert!(length + count <= slot.len(), "a sequence outgrew its slot of the cache");
            queries.push(row..row + count);
            keys.push(slot.start..slot.start + length + count);
            positions.extend(length..length + count);
            written.extend(slot.start + length..slot.start + length + count);
            self.lengths[sequence] += count;
            row += count;
        }
        Placement {
            queries: queries.into(),
            keys: keys.into(),
            positions: positions.into(),
            mask,
            written: written.into(),
            asking: None,
        }
    }
}
