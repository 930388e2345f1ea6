//! Scaled dot-product attention over packed sequences (arXiv 1706.03762), with grouped key and value
//! heads (arXiv 2305.13245), causal masks, sliding windows and any range of keys per query.
//!
//! ```text
//! q rows   a0 a1 a2 | b0          queries  0..3, 3..4
//! k rows   a0 a1 a2 | b0 b1 b2    keys     0..3, 3..6    (b0, b1 come from the cache)
//!
//! causal        a0 a1 a2  b0 b1 b2        queries are the last rows of their key span
//!          a0   x
//!          a1   x  x
//!          a2   x  x  x
//!          b2               x  x  x
//! ```

mod fused;

use std::{ops::Range, sync::Arc};

use burn::tensor::{Bool, Device, Tensor, TensorData, activation};

use self::fused::Attention;
use super::bridge::{apply3, is_fused};
use crate::ragged::Offsets;

/// Which keys a query may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// Every key of its sequence.
    Full,
    /// The keys up to its own position.
    Causal,
    /// Causal, and of those at most this many of the last keys, its own included.
    Window(usize),
    /// For every row of `q` the keys that it sees, counted from the first of its sequence's span; never none.
    Ranges(Arc<[Range<u32>]>),
}

/// Heads, sequences and mask of one attention call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttentionLayout {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`. Query head `h` reads head `h / (n_heads / n_kv_heads)`.
    pub n_kv_heads: usize,
    /// Width of one head.
    pub d_head: usize,
    /// Rows of `q` for each sequence: ascending, without overlap.
    pub queries: Arc<[Range<usize>]>,
    /// Rows of `k` and `v` for each sequence. With [`Mask::Causal`] or [`Mask::Window`] the queries
    /// are the last rows of the span, so a span may be longer than the queries (decoding with a
    /// cache), not shorter.
    pub keys: Arc<[Range<usize>]>,
    /// Which keys of its sequence a query sees.
    pub mask: Mask,
}

impl AttentionLayout {
    /// Attention of packed sequences to themselves.
    pub fn of_sequences(
        n_heads: usize,
        n_kv_heads: usize,
        d_head: usize,
        offsets: &Offsets,
        mask: Mask,
    ) -> Self {
        let ranges: Arc<[Range<usize>]> = offsets.iter().collect();
        Self { n_heads, n_kv_heads, d_head, queries: ranges.clone(), keys: ranges, mask }
    }

    /// The keys, relative to the start of their span, that query `query_idx` of a sequence sees.
    fn visible(&self, sequence: usize, query_idx: usize) -> Range<usize> {
        let (queries, n_keys) = (&self.queries[sequence], self.keys[sequence].len());
        let own_end = || n_keys - queries.len() + query_idx + 1;
        match &self.mask {
            Mask::Full => 0..n_keys,
            Mask::Causal => 0..own_end(),
            Mask::Window(width) => own_end().saturating_sub(*width)..own_end(),
            Mask::Ranges(ranges) => {
                let Range { start, end } = ranges[queries.start + query_idx];
                start as usize..end as usize
            }
        }
    }

    fn check(&self, q: [usize; 2], k: [usize; 2], v: [usize; 2]) {
        let Self { n_heads, n_kv_heads, d_head, .. } = *self;
        assert!(
            n_kv_heads > 0 && n_heads % n_kv_heads == 0,
            "{n_kv_heads} key heads do not divide {n_heads} query heads"
        );
        assert_eq!(q[1], n_heads * d_head, "q is {n_heads} heads of {d_head} wide");
        assert_eq!(k[1], n_kv_heads * d_head, "k is {n_kv_heads} heads of {d_head} wide");
        assert_eq!(k, v, "k and v have one shape");
        assert_eq!(
            self.queries.len(),
            self.keys.len(),
            "every sequence has a range of queries and a range of keys"
        );
        assert!(self.mask != Mask::Window(0), "a window holds at least the query's own position");
        let mut end = 0;
        for (queries, keys) in self.queries.iter().zip(self.keys.iter()) {
            assert!(
                end <= queries.start && queries.start <= queries.end && queries.end <= q[0],
                "query rows {queries:?} overlap, descend or leave the {} rows of q",
                q[0]
            );
            assert!(
                keys.start <= keys.end && keys.end <= k[0],
                "key rows {keys:?} descend or leave the {} rows of k",
                k[0]
            );
            let (n_queries, n_keys) = (queries.len(), keys.len());
            match &self.mask {
                Mask::Full => {}
                Mask::Causal | Mask::Window(_) => assert!(
                    n_queries <= n_keys,
                    "{n_queries} queries cannot be the last of {n_keys} keys"
                ),
                Mask::Ranges(ranges) => {
                    assert_eq!(ranges.len(), q[0], "one range of keys for every row of q");
                    for (row, seen) in queries.clone().zip(&ranges[queries.clone()]) {
                        assert!(
                            seen.start < seen.end && seen.end as usize <= n_keys,
                            "row {row} of q sees keys {seen:?}, expected some of {n_keys}"
                        );
                    }
                }
            }
            end = queries.end;
        }
    }
}

/// Attention within each packed sequence: `softmax(q kᵀ / sqrt(d_head)) v`, head by head.
///
/// A sequence gives the same bits alone as among others. Rows of `q` in no sequence, and queries
/// that see no key, give zeros.
///
/// # Shapes
///
/// - `q`: `[n_query_rows, n_heads * d_head]`
/// - `k`, `v`: `[n_key_rows, n_kv_heads * d_head]`
/// - output: `[n_query_rows, n_heads * d_head]`
///
/// # Panics
///
/// When the layout does not fit the tensors or itself; see the fields of [`AttentionLayout`].
pub fn ragged_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    layout: &AttentionLayout,
) -> Tensor<2> {
    layout.check(q.dims(), k.dims(), v.dims());
    if [&q, &k, &v].into_iter().all(is_fused) {
        apply3(q, k, v, Attention { layout: layout.clone() })
    } else {
        composed(q, k, v, layout)
    }
}

fn composed(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, layout: &AttentionLayout) -> Tensor<2> {
    let device = q.device();
    let [n_rows, width] = q.dims();
    let zeros = |n| Tensor::<2>::zeros([n, width], (&device, q.dtype()));
    let (n_heads, n_kv_heads, d_head) = (layout.n_heads, layout.n_kv_heads, layout.d_head);
    let group = n_heads / n_kv_heads;

    let mut parts = Vec::new();
    let mut end = 0;
    for (sequence, (queries, keys)) in layout.queries.iter().zip(layout.keys.iter()).enumerate() {
        let (n_queries, n_keys) = (queries.len(), keys.len());
        if n_queries == 0 {
            continue;
        }
        if queries.start > end {
            parts.push(zeros(queries.start - end));
        }
        end = queries.end;
        if n_keys == 0 {
            parts.push(zeros(n_queries));
            continue;
        }
        // [n_kv_heads, group * n_queries, d_head]: the heads of a group share their keys.
        let q = q
            .clone()
            .narrow(0, queries.start, n_queries)
            .reshape([n_queries, n_kv_heads, group, d_head])
            .permute([1, 2, 0, 3])
            .reshape([n_kv_heads, group * n_queries, d_head]);
        let heads = |x: &Tensor<2>| {
            x.clone().narrow(0, keys.start, n_keys).reshape([n_keys, n_kv_heads, d_head])
        };
        let k = heads(&k).permute([1, 2, 0]);
        let v = heads(&v).swap_dims(0, 1);
        let mut scores = q.matmul(k) / (d_head as f64).sqrt();
        if layout.mask != Mask::Full {
            let hidden = hidden(layout, sequence, &device);
            scores = scores
                .reshape([n_heads, n_queries, n_keys])
                .mask_fill(hidden.expand([n_heads, n_queries, n_keys]), f32::NEG_INFINITY)
                .reshape([n_kv_heads, group * n_queries, n_keys]);
        }
        let out = activation::softmax(scores, 2)
            .matmul(v)
            .reshape([n_kv_heads, group, n_queries, d_head])
            .permute([2, 0, 1, 3])
            .reshape([n_queries, width]);
        parts.push(out);
    }
    if n_rows > end {
        parts.push(zeros(n_rows - end));
    }
    if parts.is_empty() { zeros(0) } else { Tensor::cat(parts, 0) }
}

/// `[1, n_queries, n_keys]`, true where a query may not look.
fn hidden(layout: &AttentionLayout, sequence: usize, device: &Device) -> Tensor<3, Bool> {
    let (n_queries, n_keys) = (layout.queries[sequence].len(), layout.keys[sequence].len());
    let mut mask = vec![true; n_queries * n_keys];
    for query_idx in 0..n_queries {
        let visible = layout.visible(sequence, query_idx);
        mask[query_idx * n_keys..][visible].fill(false);
    }
    Tensor::from_data(TensorData::new(mask, [1, n_queries, n_keys]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, Matrix, cpu, random, to_vec};

    /// Sequences as (queries, keys), packed one after the other.
    fn layout(
        heads: [usize; 2],
        d_head: usize,
        lengths: &[(usize, usize)],
        mask: Mask,
    ) -> AttentionLayout {
        let (queries, keys): (Vec<_>, Vec<_>) = lengths.iter().copied().unzip();
        AttentionLayout {
            n_heads: heads[0],
            n_kv_heads: heads[1],
            d_head,
            queries: Offsets::from_lengths(&queries).iter().collect(),
            keys: Offsets::from_lengths(&keys).iter().collect(),
            mask,
        }
    }

    fn case(layout: &AttentionLayout) -> Case {
        let rows = |ranges: &[Range<usize>]| ranges.iter().map(|r| r.end).max().unwrap_or(0);
        let kv = [rows(&layout.keys), layout.n_kv_heads * layout.d_head];
        Case::new()
            .input(random([rows(&layout.queries), layout.n_heads * layout.d_head], 1))
            .vector(random(kv, 2))
            .vector(random(kv, 3))
    }

    fn check(layout: &AttentionLayout) {
        case(layout).tolerance(1e-4).check(
            |t| ragged_attention(t.rows(0), t.rows(1), t.rows(2), layout),
            |t| composed(t.rows(0), t.rows(1), t.rows(2), layout),
        );
    }

    #[test]
    fn fused_equals_composed() {
        let lengths = [(1, 1), (0, 0), (5, 5), (1, 7), (3, 9), (150, 150)];
        for mask in [Mask::Full, Mask::Causal, Mask::Window(1), Mask::Window(4), Mask::Window(200)]
        {
            for heads in [[1, 1], [4, 4], [4, 2], [6, 1]] {
                check(&layout(heads, 8, &lengths, mask.clone()));
            }
            check(&layout([2, 2], 64, &[(260, 300)], mask));
        }
        // Queries and keys of unrelated sequences: more queries than keys.
        check(&layout([4, 2], 8, &[(7, 3), (2, 5)], Mask::Full));
    }

    /// Ranges that neither begin nor end in order, at random.
    fn ranges(lengths: &[(usize, usize)], seed: u64) -> Mask {
        let n_queries = lengths.iter().map(|&(n, _)| n).sum();
        let mut shares = random([n_queries, 2], seed).values.into_iter().map(|x| x.abs() % 1.0);
        let mut share = |n: usize| (shares.next().unwrap() * n as f32) as u32;
        let of_sequence = |&(n_queries, n_keys): &(usize, usize)| {
            let one = |_| {
                let start = share(n_keys);
                start..start + 1 + share(n_keys - start as usize)
            };
            (0..n_queries).map(one).collect::<Vec<_>>()
        };
        Mask::Ranges(lengths.iter().flat_map(of_sequence).collect())
    }

    #[test]
    fn ranges_of_keys_fused_and_composed() {
        let lengths = [(1, 1), (0, 0), (5, 5), (9, 3), (3, 9), (150, 150)];
        for (heads, seed) in [([1, 1], 1), ([4, 2], 2), ([6, 1], 3)] {
            check(&layout(heads, 8, &lengths, ranges(&lengths, seed)));
        }
        let long = [(260, 300)];
        check(&layout([2, 2], 64, &long, ranges(&long, 4)));
    }

    #[test]
    fn ranges_say_what_the_other_masks_say() {
        let lengths = [(4, 4), (2, 5), (1, 1)];
        for mask in [Mask::Full, Mask::Causal, Mask::Window(2)] {
            let plain = layout([4, 2], 8, &lengths, mask);
            let seen = lengths.iter().enumerate().flat_map(|(sequence, &(n, _))| {
                let plain = &plain;
                (0..n).map(move |query_idx| {
                    let Range { start, end } = plain.visible(sequence, query_idx);
                    start as u32..end as u32
                })
            });
            let ranges = layout([4, 2], 8, &lengths, Mask::Ranges(seen.collect()));
            case(&plain).tolerance(1e-6).check(
                |t| ragged_attention(t.rows(0), t.rows(1), t.rows(2), &ranges),
                |t| ragged_attention(t.rows(0), t.rows(1), t.rows(2), &plain),
            );
        }
    }

    #[test]
    #[should_panic(expected = "row 1 of q sees keys 1..3, expected some of 2")]
    fn a_range_beyond_its_keys_is_refused() {
        let layout = layout([1, 1], 2, &[(2, 2)], Mask::Ranges([0..1, 1..3].into()));
        let x = || Tensor::<2>::zeros([2, 2], &cpu());
        ragged_attention(x(), x(), x(), &layout);
    }

    #[test]
    fn rows_outside_every_sequence_and_queries_without_keys_give_zeros() {
        let mut layout = layout([2, 1], 4, &[(2, 2), (3, 0), (1, 2)], Mask::Full);
        layout.queries = [1..3, 4..7, 8..9].into();
        layout.keys = [0..2, 2..2, 3..5].into();
        let device = cpu();
        let q = random([10, 8], 1).tensor(&device);
        let kv = random([6, 4], 2).tensor(&device);
        let out = to_vec(ragged_attention(q.clone(), kv.clone(), kv.clone(), &layout));
        let expected = to_vec(composed(q, kv.clone(), kv, &layout));
        for (row_idx, (row, expected)) in out.chunks(8).zip(expected.chunks(8)).enumerate() {
            let seen = [1, 2, 8].contains(&row_idx);
            assert_eq!(row.iter().any(|&value| value != 0.0), seen, "row {row_idx}");
            assert!(row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "row {row_idx}");
        }
    }

    #[test]
    fn sequences_may_share_keys() {
        let mut shared = layout([4, 2], 8, &[(3, 6), (2, 8)], Mask::Causal);
        shared.keys = [0..6, 0..8].into();
        check(&shared);
    }

    #[test]
    fn gradients_match_differences() {
        let ranges = Mask::Ranges([0..1, 2..3, 0..3, 1..3, 0..4].into());
        for mask in [Mask::Full, Mask::Causal, Mask::Window(2), ranges] {
            let layout = layout([2, 1], 2, &[(3, 3), (2, 4)], mask);
            case(&layout)
                .check_differences(|t| ragged_attention(t.rows(0), t.rows(1), t.rows(2), &layout));
        }
    }

    #[test]
    fn equal_scores_average_the_values_seen() {
        // Queries of 0 weigh all they see equally: means of 1, of 1 and 3, and of 1, 3 and 8.
        let q = Tensor::<2>::zeros([3, 1], &cpu());
        let k = Tensor::<2>::from_floats([[5.0], [-2.0], [9.0]], &cpu());
        let v = Tensor::<2>::from_floats([[1.0], [3.0], [8.0]], &cpu());
        let attend = |mask| {
            let layout = layout([1, 1], 1, &[(3, 3)], mask);
            to_vec(ragged_attention(q.clone(), k.clone(), v.clone(), &layout))
        };
        assert_eq!(attend(Mask::Causal), [1.0, 2.0, 4.0]);
        assert_eq!(attend(Mask::Window(2)), [1.0, 2.0, 5.5]);
        assert_eq!(attend(Mask::Full), [4.0, 4.0, 4.0]);
        assert_eq!(attend(Mask::Ranges([1..2, 0..3, 0..2].into())), [3.0, 4.0, 2.0]);
    }

    #[test]
    fn a_sequence_does_not_know_its_batch() {
        let lengths = [(1, 1), (9, 9), (140, 140), (2, 60), (1, 33), (31, 31)];
        for mask in [Mask::Full, Mask::Causal, Mask::Window(16)] {
            let whole = layout([4, 2], 16, &lengths, mask.clone());
            let [n_queries, n_keys] = [&whole.queries, &whole.keys].map(|r| r.last().unwrap().end);
            let (q, k, v) =
                (random([n_queries, 64], 1), random([n_keys, 32], 2), random([n_keys, 32], 3));
            let gradients = |q: &Matrix, k: &Matrix, v: &Matrix, layout: &AttentionLayout| {
                let device = cpu().autodiff();
                let leaves = [q, k, v].map(|x| x.tensor(&device).require_grad());
                let [q, k, v] = leaves.clone();
                let out = ragged_attention(q, k, v, layout);
                let grads = (out.clone() * out.clone()).sum().backward();
                let mut all = vec![to_vec(out.inner())];
                all.extend(leaves.map(|leaf| to_vec(leaf.grad(&grads).unwrap())));
                all
            };
            let together = gradients(&q, &k, &v, &whole);
            for (i, &length) in lengths.iter().enumerate() {
                let (queries, keys) = (whole.queries[i].clone(), whole.keys[i].clone());
                let alone = gradients(
                    &q.rows(queries.clone()),
                    &k.rows(keys.clone()),
                    &v.rows(keys.clone()),
                    &layout([4, 2], 16, &[length], mask.clone()),
                );
                let rows = [queries.clone(), queries, keys.clone(), keys];
                for (((alone, together), rows), width) in
                    alone.iter().zip(&together).zip(rows).zip([64, 64, 32, 32])
                {
                    let together = &together[rows.start * width..rows.end * width];
                    assert!(
                        alone.iter().zip(together).all(|(a, b)| a.to_bits() == b.to_bits()),
                        "sequence {i} with {mask:?} differs"
                    );
                }
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let layout = layout([6, 3], 32, &[(200, 200), (70, 90)], Mask::Causal);
        let run = || {
            let device = cpu().autodiff();
            let leaves = [[270, 192], [290, 96], [290, 96]]
                .map(|shape| random(shape, 5).tensor(&device).require_grad());
            let [q, k, v] = leaves.clone();
            let grads = ragged_attention(q, k, v, &layout).powi_scalar(2).sum().backward();
            leaves.map(|leaf| to_vec(leaf.grad(&grads).unwrap()))
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert!(pool.install(run) == run());
    }

    #[test]
    #[should_panic(expected = "cannot be the last")]
    fn more_causal_queries_than_keys_are_refused() {
        let layout = layout([1, 1], 2, &[(3, 2)], Mask::Causal);
        let x = |n| Tensor::<2>::zeros([n, 2], &cpu());
        ragged_attention(x(3), x(2), x(2), &layout);
    }
}
