//! What is kept of sequences while tokens are added to them: three caches, and what joins them.
//!
//! ```text
//! encoder   keys and values of tokens ─┐
//! tokens    states, and what patches ask of them; those of an open patch wait until it is whole
//! global    keys and values of patches, one step for every patch
//! memory    what tokens ask of patches, for every block of the decoder
//! decoder   keys and values of tokens
//! ```
//!
//! A pass over whole documents is the same code with nothing kept.

use std::ops::Range;

use burn::prelude::*;

use super::{
    PatchLm, Stack,
    layout::{Layout, Progress},
    router::Routed,
};
use crate::{
    ops::{self, Mask},
    ragged::Offsets,
    transformer::{Block, Cache, Placement},
};

/// Keys and values.
pub(super) type Keys = (Tensor<2>, Tensor<2>);

/// Sequences that are being read or written. Every one owns as many rows as it may become long.
#[derive(Debug)]
pub struct State {
    progress: Vec<Progress>,
    /// The rows of each sequence's tokens; its patches have as many.
    slots: Vec<Range<usize>>,
    caches: [Cache; 3],
    /// Tokens, in their rows.
    ids: Vec<u32>,
    /// States of tokens. What is kept is taken out to be written, so that it has one owner and is not copied.
    states: Option<Tensor<2>>,
    keys: Option<Keys>,
    /// For every block of the decoder, `n_queries` rows a patch.
    memory: Vec<Option<Keys>>,
    n_queries: usize,
    /// The last patch of every sequence as it left the smoothing, where boundaries are learned.
    smoothed: Vec<Option<Tensor<2>>>,
}

/// Where a cache is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Encoder,
    Global,
    Decoder,
}

/// Tokens as they are kept.
pub(super) struct Tokens {
    /// States of all rows.
    pub states: Tensor<2>,
    /// What patches ask of them.
    pub keys: Keys,
    /// The rows of each sequence of the pass, new ones included.
    pub spans: Vec<Range<usize>>,
    /// For each new token the row of the one before it; its own for the first of a sequence.
    pub previous: Vec<u32>,
}

impl State {
    /// Nothing yet of sequences that may have `capacities[i]` tokens.
    pub(super) fn new(model: &PatchLm, capacities: &[usize]) -> Self {
        let device = model.device();
        let cache = |blocks: &[&Block]| Cache::new(blocks, capacities, &device);
        let stack = |stack: &Stack| cache(&stack.layers.iter().collect::<Vec<_>>());
        let decoder: Vec<&Block> = model.decoder.layers.iter().map(|layer| &layer.block).collect();
        let slots: Vec<Range<usize>> = Offsets::from_lengths(capacities).iter().collect();
        let n_rows = slots.last().map_or(0, |slot| slot.end);
        let [d_local] = model.norm.weight.dims();
        let zeros = |n: usize| Tensor::<2>::zeros([n, d_local], &device);
        let n_memory = n_rows * model.n_queries;
        Self {
            progress: vec![Progress::default(); capacities.len()],
            caches: [stack(&model.encoder), stack(&model.global), cache(&decoder)],
            ids: vec![0; n_rows],
            states: Some(zeros(n_rows)),
            keys: Some((zeros(n_rows), zeros(n_rows))),
            memory: decoder.iter().map(|_| Some((zeros(n_memory), zeros(n_memory)))).collect(),
            n_queries: model.n_queries,
            smoothed: vec![None; capacities.len()],
            slots,
        }
    }

    /// How many sequences there are.
    pub fn n_sequences(&self) -> usize {
        self.slots.len()
    }

    /// Tokens that the sequence `i` has.
    pub fn n_tokens(&self, i: usize) -> usize {
        self.progress[i].n_tokens
    }

    /// Steps of the global transformer that the sequence `i` took.
    pub fn n_patches(&self, i: usize) -> usize {
        self.progress[i].starts.len()
    }

    /// A state whose sequence `i` begins with what sequence `parents[i]` of this one has read, and may have
    /// `capacities[i]` tokens.
    ///
    /// # Panics
    ///
    /// When a capacity is smaller than what its parent has.
    pub fn fork(&self, parents: &[usize], capacities: &[usize]) -> Self {
        let slots: Vec<Range<usize>> = Offsets::from_lengths(capacities).iter().collect();
        let order = |n_each: usize, filled: &dyn Fn(usize) -> usize| {
            let mut order = Vec::new();
            for (&parent, slot) in parents.iter().zip(&slots) {
                let first = self.slots[parent].start * n_each;
                order.extend((first..first + filled(parent) * n_each).map(|row| row as u32));
                // Rows to come: written before they are read.
                order.resize(slot.end * n_each, 0);
            }
            order
        };
        let tokens = order(1, &|i| self.progress[i].n_tokens);
        let patches = order(self.n_queries, &|i| self.progress[i].starts.len());
        let of = |rows: &Tensor<2>, order: &[u32]| ops::embedding(rows.clone(), order);
        let pair = |kept: &Option<Keys>, order: &[u32]| {
            let (keys, values) = kept.as_ref().expect(KEPT);
            Some((of(keys, order), of(values, order)))
        };
        Self {
            caches: self.caches.each_ref().map(|cache| cache.fork(parents, capacities)),
            ids: tokens.iter().map(|&row| self.ids[row as usize]).collect(),
            states: Some(of(self.states.as_ref().expect(KEPT), &tokens)),
            keys: pair(&self.keys, &tokens),
            memory: self.memory.iter().map(|keys| pair(keys, &patches)).collect(),
            n_queries: self.n_queries,
            progress: parents.iter().map(|&i| self.progress[i].clone()).collect(),
            smoothed: parents.iter().map(|&i| self.smoothed[i].clone()).collect(),
            slots,
        }
    }
}

const KEPT: &str = "what is taken out is put back";

/// Writes keys and values among those that are kept, and gives all.
fn write(kept: &mut Option<Keys>, (keys, values): Keys, at: &[usize]) -> Keys {
    let (k, v) = kept.take().expect(KEPT);
    let written = (ops::write_rows(k, keys, at), ops::write_rows(v, values, at));
    *kept = Some(written.clone());
    written
}

/// A pass: over whole documents, or over tokens that follow what is kept.
pub(super) enum Pass<'a> {
    Whole,
    Kept { state: &'a mut State, sequences: &'a [usize] },
}

impl Pass<'_> {
    /// What was read of the sequences of this pass, which is to be [put back](Pass::put).
    pub fn progress(&mut self, n_sequences: usize) -> Vec<Progress> {
        match self {
            Self::Whole => vec![Progress::default(); n_sequences],
            Self::Kept { state, sequences } => {
                assert_eq!(sequences.len(), n_sequences, "one span of tokens a sequence");
                sequences.iter().map(|&i| std::mem::take(&mut state.progress[i])).collect()
            }
        }
    }

    pub fn put(&mut self, progress: Vec<Progress>) {
        if let Self::Kept { state, sequences } = self {
            for (progress, &i) in progress.into_iter().zip(*sequences) {
                state.progress[i] = progress;
            }
        }
    }

    /// Who sees whom among new rows of a stack and those that it keeps.
    pub fn place(&mut self, place: Place, new: &Offsets, mask: Mask) -> Placement {
        match self {
            Self::Whole => Placement::packed(new, mask),
            Self::Kept { state, sequences } => {
                let present = |&(_, count): &(usize, usize)| count > 0;
                let (sequences, counts): (Vec<usize>, Vec<usize>) =
                    sequences.iter().copied().zip(new.lengths()).filter(present).unzip();
                state.caches[place as usize].place(&sequences, &counts, mask)
            }
        }
    }

    pub fn cache(&mut self, place: Place) -> Option<&mut Cache> {
        match self {
            Self::Whole => None,
            Self::Kept { state, .. } => Some(&mut state.caches[place as usize]),
        }
    }

    /// Keeps what patches will want of new tokens; `progress` has not read them yet.
    pub fn keep_tokens(
        &mut self,
        (new, ids): (&Offsets, &[u32]),
        progress: &[Progress],
        states: Tensor<2>,
        keys: Keys,
    ) -> Tokens {
        let spans: Vec<Range<usize>> = match self {
            Self::Whole => new.iter().collect(),
            Self::Kept { state, sequences } => {
                let length =
                    progress.iter().zip(new.iter()).map(|(p, span)| p.n_tokens + span.len());
                sequences
                    .iter()
                    .zip(length)
                    .map(|(&i, n)| state.slots[i].start..state.slots[i].start + n)
                    .collect()
            }
        };
        let written: Vec<usize> = spans
            .iter()
            .zip(new.iter())
            .flat_map(|(span, new)| span.end - new.len()..span.end)
            .collect();
        let previous = spans
            .iter()
            .zip(new.iter())
            .flat_map(|(span, new)| {
                let rows = span.end - new.len()..span.end;
                rows.map(|row| row.max(span.start + 1) as u32 - 1)
            })
            .collect();
        let (states, keys) = match self {
            Self::Whole => (states, keys),
            Self::Kept { state, .. } => {
                for (&row, &id) in written.iter().zip(ids) {
                    state.ids[row] = id;
                }
                let kept = state.states.take().expect(KEPT);
                let states = ops::write_rows(kept, states, &written);
                state.states = Some(states.clone());
                (states, write(&mut state.keys, keys, &written))
            }
        };
        Tokens { states, keys, spans, previous }
    }

    /// The tokens of patches, of which `members` are the rows among those kept; `ids` are the new tokens.
    pub fn members_ids(&self, ids: &[u32], members: &[Range<usize>]) -> (Vec<u32>, Offsets) {
        let all = match self {
            Self::Whole => ids,
            Self::Kept { state, .. } => &state.ids,
        };
        let lengths: Vec<usize> = members.iter().map(ExactSizeIterator::len).collect();
        let of_patches = members.iter().flat_map(|rows| all[rows.clone()].iter().copied());
        (of_patches.collect(), Offsets::from_lengths(&lengths))
    }

    /// Keeps what tokens ask of new patches in block `block` of the decoder; `progress` has read them. Gives all keys
    /// and values.
    pub fn keep_memory(&mut self, block: usize, layout: &Layout, keys: Option<Keys>) -> Keys {
        match self {
            Self::Whole => keys.expect("whole documents have patches"),
            Self::Kept { state, sequences } => {
                let Some(keys) = keys else {
                    return state.memory[block].clone().expect(KEPT);
                };
                let written: Vec<usize> = sequences
                    .iter()
                    .zip(layout.whole())
                    .flat_map(|(&i, whole)| {
                        let first = state.slots[i].start;
                        (first + whole.start) * state.n_queries
                            ..(first + whole.end) * state.n_queries
                    })
                    .collect();
                write(&mut state.memory[block], keys, &written)
            }
        }
    }

    /// Rows that stand for the patches of each sequence, new ones included.
    pub fn memory_spans(&self, layout: &Layout, n_queries: usize) -> Vec<Range<usize>> {
        let rows = |span: Range<usize>| span.start * n_queries..span.end * n_queries;
        match self {
            Self::Whole => layout.patches.iter().map(rows).collect(),
            Self::Kept { state, sequences } => sequences
                .iter()
                .zip(layout.whole())
                .map(|(&i, whole)| {
                    let first = state.slots[i].start;
                    rows(first..first + whole.end)
                })
                .collect(),
        }
    }

    /// Smooths new patches, each sequence from where its last one was.
    pub fn smooth(&mut self, patches: Tensor<2>, routed: &Routed, layout: &Layout) -> Tensor<2> {
        let rates = ops::embedding(routed.p.clone(), &layout.closed_by);
        let Self::Kept { state, sequences } = self else {
            return ops::smooth(patches, rates, &layout.patches);
        };
        let one = Tensor::<2>::ones([1, 1], (&rates.device(), rates.dtype()));
        let mut rows = Vec::with_capacity(sequences.len());
        for (&i, span) in sequences.iter().zip(layout.patches.iter()) {
            if span.is_empty() {
                continue;
            }
            let mut new = patches.clone().narrow(0, span.start, span.len());
            let mut rate = rates.clone().narrow(0, span.start, span.len());
            let carried = state.smoothed[i].take();
            let n_carried = usize::from(carried.is_some());
            if let Some(last) = carried {
                new = Tensor::cat(vec![last, new], 0);
                rate = Tensor::cat(vec![one.clone(), rate], 0);
            }
            let n = n_carried + span.len();
            let smoothed = ops::smooth(new, rate, &Offsets::from_lengths(&[n]));
            state.smoothed[i] = Some(smoothed.clone().narrow(0, n - 1, 1));
            rows.push(smoothed.narrow(0, n_carried, span.len()));
        }
        Tensor::cat(rows, 0)
    }
}
