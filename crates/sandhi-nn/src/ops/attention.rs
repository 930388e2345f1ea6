//! Scaled dot-product attention over packed sequences (arXiv 1706.03762), with grouped key and value
//! heads (arXiv 2305.13245), causal masks and sliding windows.
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

use std::{ops::Range, sync::Arc};

use burn::tensor::{Bool, Device, Tensor, TensorData, activation};

use crate::ragged::Offsets;

/// Which keys a query may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// Every key of its sequence.
    Full,
    /// The keys up to its own position.
    Causal,
    /// Causal, and of those at most this many of the last keys, its own included.
    Window(usize),
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
    /// Rows of `k` and `v` for each sequence. With a causal mask or a window the queries are the
    /// last rows of the span, so a span may be longer than the queries (decoding with a cache), not
    /// shorter.
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

    /// The keys, relative to the start of their span, that query `query_idx` of `n_queries` sees
    /// among `n_keys`.
    fn visible(&self, query_idx: usize, n_queries: usize, n_keys: usize) -> Range<usize> {
        match self.mask {
            Mask::Full => 0..n_keys,
            Mask::Causal => 0..n_keys - n_queries + query_idx + 1,
            Mask::Window(width) => {
                let end = n_keys - n_queries + query_idx + 1;
                end.saturating_sub(width)..end
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
            assert!(
                self.mask == Mask::Full || queries.len() <= keys.len(),
                "{} queries cannot be the last of {} keys",
                queries.len(),
                keys.len()
            );
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
    composed(q, k, v, layout)
}

fn composed(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, layout: &AttentionLayout) -> Tensor<2> {
    let device = q.device();
    let [n_rows, width] = q.dims();
    let zeros = |n| Tensor::<2>::zeros([n, width], (&device, q.dtype()));
    let (n_heads, n_kv_heads, d_head) = (layout.n_heads, layout.n_kv_heads, layout.d_head);
    let group = n_heads / n_kv_heads;

    let mut parts = Vec::new();
    let mut end = 0;
    for (queries, keys) in layout.queries.iter().zip(layout.keys.iter()) {
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
            let hidden = hidden(layout, n_queries, n_keys, &device);
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
fn hidden(
    layout: &AttentionLayout,
    n_queries: usize,
    n_keys: usize,
    device: &Device,
) -> Tensor<3, Bool> {
    let mut mask = vec![true; n_queries * n_keys];
    for query_idx in 0..n_queries {
        let visible = layout.visible(query_idx, n_queries, n_keys);
        mask[query_idx * n_keys..][visible].fill(false);
    }
    Tensor::from_data(TensorData::new(mask, [1, n_queries, n_keys]), device)
}
