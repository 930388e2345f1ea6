//! Attention on slices, one (sequence, head) at a time.
//!
//! Scores are made for blocks of [`BLOCK`] queries and never stored. The forward pass keeps one
//! number per query and head, the logarithm of the sum of the exponentials; the backward pass makes
//! the scores again from it (Dao et al. 2022, arXiv 2205.14135, appendix B):
//!
//! ```text
//! P = exp(Q Kᵀ scale - lse)    dV = Pᵀ dO    dP = dO Vᵀ    dS = P (dP - rowsum(dO O)) scale
//!                                            dQ = dS K     dK = dSᵀ Q
//! ```

use std::{ops::Range, sync::Arc};

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::AttentionLayout;
use crate::ops::{
    bridge::{Kernel, dense, dims2, tensor, values},
    matrix::{Target, View, product},
    simd::{dot, exp_shifted, max, mul_add, vectorized},
};

/// Queries whose scores are in memory at a time, per thread.
const BLOCK: usize = 128;

#[derive(Debug, Clone)]
pub(super) struct Attention {
    pub(super) layout: AttentionLayout,
}

#[derive(Debug, Clone)]
pub(super) struct Saved {
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    out: FlexTensor,
    /// `[n_query_rows, n_heads]`.
    log_sums: Arc<[f32]>,
}

/// Some queries of one sequence, and the keys that any of them sees.
struct Block {
    /// Row of `q` of the first query.
    first: usize,
    n_queries: usize,
    /// Rows of `k`.
    keys: Range<usize>,
    /// Keys seen by each query, relative to `keys.start`.
    visible: Vec<Range<usize>>,
}

impl Kernel<3> for Attention {
    type Saved = Saved;

    fn forward(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, Saved) {
        let [q, k, v] = inputs.map(dense);
        let [n_rows, width] = dims2(&q);
        let n_heads = self.layout.n_heads;
        let mut out = vec![0.0; n_rows * width];
        let mut log_sums = vec![f32::NEG_INFINITY; n_rows * n_heads];
        self.run_forward(&q, &k, &v, &mut out, &mut log_sums);
        let out = tensor(out, [n_rows, width]);
        (out.clone(), Saved { q, k, v, out, log_sums: log_sums.into() })
    }

    fn infer(&self, inputs: [FlexTensor; 3]) -> FlexTensor {
        let [q, k, v] = inputs.map(dense);
        let [n_rows, width] = dims2(&q);
        let mut out = vec![0.0; n_rows * width];
        let mut log_sums = vec![0.0; n_rows * self.layout.n_heads];
        self.run_forward(&q, &k, &v, &mut out, &mut log_sums);
        tensor(out, [n_rows, width])
    }

    fn backward(
        &self,
        saved: Saved,
        gradient: FlexTensor,
        wanted @ [want_q, want_k, want_v]: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let gradient = dense(gradient);
        let layout = &self.layout;
        let ([n_queries, width], [n_keys, kv_width]) = (dims2(&saved.q), dims2(&saved.k));
        let zeros = |wanted: bool, n: usize| vec![0.0; if wanted { n } else { 0 }];
        let mut dq = zeros(want_q, n_queries * width);
        let mut dk = zeros(want_k, n_keys * kv_width);
        let mut dv = zeros(want_v, n_keys * kv_width);
        let pass = Backward {
            layout,
            wanted,
            q: values(&saved.q),
            k: values(&saved.k),
            v: values(&saved.v),
            out: values(&saved.out),
            gradient: values(&gradient),
            log_sums: &saved.log_sums,
            dq: Target::rows(dq.as_mut_ptr(), width),
            dk: Target::rows(dk.as_mut_ptr(), kv_width),
            dv: Target::rows(dv.as_mut_ptr(), kv_width),
        };
        if layout.keys_are_disjoint() {
            let mut jobs: Vec<(usize, usize)> = (0..layout.queries.len())
                .flat_map(|sequence| (0..layout.n_kv_heads).map(move |head| (sequence, head)))
                .collect();
            jobs.sort_by_key(|&(sequence, _)| std::cmp::Reverse(layout.work(sequence)));
            jobs.into_par_iter().with_max_len(1).for_each(|(sequence, head)| {
                // SAFETY: this is the only job of the sequence's queries and keys in the head.
                unsafe { pass.run(sequence, head) };
            });
        } else {
            (0..layout.n_kv_heads).into_par_iter().for_each(|head| {
                for sequence in 0..layout.queries.len() {
                    // SAFETY: this is the only job of the head.
                    unsafe { pass.run(sequence, head) };
                }
            });
        }
        [
            want_q.then(|| tensor(dq, [n_queries, width])),
            want_k.then(|| tensor(dk, [n_keys, kv_width])),
            want_v.then(|| tensor(dv, [n_keys, kv_width])),
        ]
    }
}

impl Attention {
    fn run_forward(
        &self,
        q: &FlexTensor,
        k: &FlexTensor,
        v: &FlexTensor,
        out: &mut [f32],
        log_sums: &mut [f32],
    ) {
        let layout = &self.layout;
        let (d, n_heads) = (layout.d_head, layout.n_heads);
        let group = n_heads / layout.n_kv_heads;
        let (width, kv_width) = (n_heads * d, layout.n_kv_heads * d);
        let scale = layout.scale();
        let (q, k, v) = (values(q), values(k), values(v));
        let out = Target::rows(out.as_mut_ptr(), width);
        let log_sums = Target::rows(log_sums.as_mut_ptr(), n_heads);

        let mut blocks: Vec<Block> =
            (0..layout.queries.len()).flat_map(|sequence| layout.blocks(sequence)).collect();
        blocks.sort_by_key(|block| std::cmp::Reverse(block.n_queries * block.keys.len()));
        let jobs: Vec<(&Block, usize)> =
            blocks.iter().flat_map(|block| (0..n_heads).map(move |head| (block, head))).collect();
        let run = |scores: &mut Vec<f32>, &(block, head): &(&Block, usize)| {
            let (rows, n_keys) = (block.n_queries, block.keys.len());
            let at = block.first * width + head * d;
            let kv_at = block.keys.start * kv_width + head / group * d;
            // SAFETY: each job has its own queries and head, so its own rows of d values here.
            let out = unsafe { Rows::new(out.at(at), rows, d) };
            // SAFETY: as above, of one value.
            let log_sums = unsafe { Rows::new(log_sums.at(block.first * n_heads + head), rows, 1) };
            if rows == 1 {
                let (q, k, v) = (&q[at..at + d], &k[kv_at..], &v[kv_at..]);
                scores.resize(n_keys, 0.0);
                let seen = block.visible[0].clone();
                let log_sum = attend_one(q, k, v, kv_width, seen, scale, scores, out.row(0));
                log_sums.row(0)[0] = log_sum;
                return;
            }
            scores.resize(rows * n_keys, 0.0);
            let q = View::rows(q, at, rows, d, width);
            let k = View::rows(k, kv_at, n_keys, d, kv_width);
            let v = View::rows(v, kv_at, n_keys, d, kv_width);
            let target = Target::rows(scores.as_mut_ptr(), n_keys);
            // SAFETY: the scores are this thread's and hold rows of n_keys.
            unsafe { product(target, q, k.transposed(), scale, false) };
            let mut factors = [0.0; BLOCK];
            for (i, row) in scores.chunks_exact_mut(n_keys.max(1)).enumerate() {
                let seen = block.visible[i].clone();
                let (log_sum, sum) = softmax_unscaled(row, seen);
                log_sums.row(i)[0] = log_sum;
                factors[i] = 1.0 / sum;
            }
            let weights = View::rows(scores, 0, rows, n_keys, n_keys);
            // SAFETY: the rows of the output are this job's, as above.
            unsafe { product(out.target, weights, v, 1.0, false) };
            for (i, factor) in factors[..rows].iter().enumerate() {
                // A query that sees nothing has a sum of 0 and an output of 0.
                if factor.is_finite() || !block.visible[i].is_empty() {
                    scale_row(out.row(i), *factor);
                }
            }
        };
        if jobs.len() == 1 {
            run(&mut Vec::new(), &jobs[0]);
        } else {
            jobs.par_iter().with_max_len(1).for_each_init(Vec::new, run);
        }
    }
}

/// What the jobs of a backward pass share.
struct Backward<'a> {
    layout: &'a AttentionLayout,
    wanted: [bool; 3],
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    gradient: &'a [f32],
    log_sums: &'a [f32],
    dq: Target,
    dk: Target,
    dv: Target,
}

impl Backward<'_> {
    /// The gradients of one sequence from one key head and the query heads that read it, in order.
    ///
    /// # Safety
    ///
    /// The targets of what is wanted have the shapes of `q`, `k` and `v`, and nobody else touches
    /// the sequence's rows of the head in them.
    unsafe fn run(&self, sequence: usize, kv_head: usize) {
        let layout = self.layout;
        let [want_q, want_k, want_v] = self.wanted;
        let (d, n_heads) = (layout.d_head, layout.n_heads);
        let group = n_heads / layout.n_kv_heads;
        let (width, kv_width) = (n_heads * d, layout.n_kv_heads * d);
        let scale = layout.scale();
        let (mut weights, mut slopes) = (Vec::new(), Vec::new());
        for block in layout.blocks(sequence) {
            let (rows, n_keys) = (block.n_queries, block.keys.len());
            if n_keys == 0 {
                continue;
            }
            let kv_at = block.keys.start * kv_width + kv_head * d;
            let k = View::rows(self.k, kv_at, n_keys, d, kv_width);
            let v = View::rows(self.v, kv_at, n_keys, d, kv_width);
            for head in kv_head * group..(kv_head + 1) * group {
                let at = block.first * width + head * d;
                let q = View::rows(self.q, at, rows, d, width);
                let gradient = View::rows(self.gradient, at, rows, d, width);
                weights.resize(rows * n_keys, 0.0);
                // SAFETY: the scores are this job's and hold rows of n_keys.
                unsafe {
                    let target = Target::rows(weights.as_mut_ptr(), n_keys);
                    product(target, q, k.transposed(), scale, false);
                }
                for (i, row) in weights.chunks_exact_mut(n_keys).enumerate() {
                    let log_sum = self.log_sums[(block.first + i) * n_heads + head];
                    softmax_from(row, block.visible[i].clone(), log_sum);
                }
                if want_v {
                    let weights = View::rows(&weights, 0, rows, n_keys, n_keys).transposed();
                    // SAFETY: the caller promises the rows.
                    unsafe { product(self.dv.at(kv_at), weights, gradient, 1.0, true) };
                }
                if !want_q && !want_k {
                    continue;
                }
                slopes.resize(rows * n_keys, 0.0);
                // SAFETY: the slopes are this job's and hold rows of n_keys.
                unsafe {
                    let target = Target::rows(slopes.as_mut_ptr(), n_keys);
                    product(target, gradient, v.transposed(), 1.0, false);
                }
                let pairs = slopes.chunks_exact_mut(n_keys).zip(weights.chunks_exact(n_keys));
                for (i, (slopes, weights)) in pairs.enumerate() {
                    let at = at + i * width;
                    let level = row_dot(&self.gradient[at..at + d], &self.out[at..at + d]);
                    score_slopes(slopes, weights, level, scale);
                }
                let slopes = View::rows(&slopes, 0, rows, n_keys, n_keys);
                // SAFETY: the caller promises the rows.
                unsafe {
                    if want_q {
                        product(self.dq.at(at), slopes, k, 1.0, false);
                    }
                    if want_k {
                        product(self.dk.at(kv_at), slopes.transposed(), q, 1.0, true);
                    }
                }
            }
        }
    }
}

impl AttentionLayout {
    fn scale(&self) -> f32 {
        (1.0 / (self.d_head as f64).sqrt()) as f32
    }

    /// A measure of the time that a sequence takes.
    fn work(&self, sequence: usize) -> usize {
        self.queries[sequence].len() * self.keys[sequence].len()
    }

    /// Whether no key row belongs to two sequences.
    fn keys_are_disjoint(&self) -> bool {
        let mut keys: Vec<_> = self.keys.iter().filter(|keys| !keys.is_empty()).collect();
        keys.sort_by_key(|keys| keys.start);
        keys.windows(2).all(|pair| pair[0].end <= pair[1].start)
    }

    /// The queries of a sequence in blocks, with what they see. Depends on the sequence alone.
    fn blocks(&self, sequence: usize) -> impl Iterator<Item = Block> + '_ {
        let (queries, keys) = (self.queries[sequence].clone(), self.keys[sequence].clone());
        let n_queries = queries.len();
        (0..n_queries).step_by(BLOCK).map(move |start| {
            let end = (start + BLOCK).min(n_queries);
            let mut visible: Vec<Range<usize>> =
                (start..end).map(|i| self.visible(sequence, i)).collect();
            let first_seen = visible.iter().map(|seen| seen.start).min().unwrap_or(0);
            let last_seen = visible.iter().map(|seen| seen.end).max().unwrap_or(0);
            let span = first_seen..last_seen;
            for seen in &mut visible {
                *seen = seen.start - span.start..seen.end - span.start;
            }
            Block {
                first: queries.start + start,
                n_queries: end - start,
                keys: keys.start + span.start..keys.start + span.end,
                visible,
            }
        })
    }
}

/// Rows in someone's memory that one job may write.
struct Rows {
    target: Target,
    n_rows: usize,
    width: usize,
}

impl Rows {
    /// # Safety
    ///
    /// The rows are valid, initialized and, as long as this lives, nobody else's.
    unsafe fn new(target: Target, n_rows: usize, width: usize) -> Self {
        Self { target, n_rows, width }
    }

    #[expect(clippy::mut_from_ref, reason = "rows are handed out one at a time in this file")]
    fn row(&self, i: usize) -> &mut [f32] {
        assert!(i < self.n_rows, "row {i} of {}", self.n_rows);
        // SAFETY: the row is one of those that `new` was promised, and callers drop it before they
        // ask for another.
        unsafe {
            let pointer = self.target.pointer.add(i * self.target.row_stride);
            std::slice::from_raw_parts_mut(pointer, self.width)
        }
    }
}

vectorized! {
    /// Attention of one query, without a matrix product. Returns the logarithm of the sum.
    fn attend_one(
        q: &[f32],
        k: &[f32],
        v: &[f32],
        stride: usize,
        seen: Range<usize>,
        scale: f32,
        scores: &mut [f32],
        out: &mut [f32],
    ) -> f32 {
        let d = q.len();
        if seen.is_empty() {
            return f32::NEG_INFINITY;
        }
        for i in seen.clone() {
            scores[i] = scale * dot::<FMA>(q, &k[i * stride..][..d]);
        }
        let scores = &mut scores[seen.clone()];
        let peak = max(scores);
        let sum = exp_shifted::<FMA>(scores, peak);
        out.fill(0.0);
        for (i, &weight) in seen.zip(scores.iter()) {
            for (out, v) in out.iter_mut().zip(&v[i * stride..][..d]) {
                *out = mul_add::<FMA>(weight, *v, *out);
            }
        }
        let factor = 1.0 / sum;
        for out in out.iter_mut() {
            *out *= factor;
        }
        peak + sum.ln()
    }
}

vectorized! {
    /// Turns the scores that are `seen` into exponentials and the others into 0. Returns the
    /// logarithm of the sum, and the sum after the largest has been made 1.
    fn softmax_unscaled(row: &mut [f32], seen: Range<usize>) -> (f32, f32) {
        row[..seen.start].fill(0.0);
        row[seen.end..].fill(0.0);
        let row = &mut row[seen];
        if row.is_empty() {
            return (f32::NEG_INFINITY, 0.0);
        }
        let peak = max(row);
        let sum = exp_shifted::<FMA>(row, peak);
        (peak + sum.ln(), sum)
    }
}

vectorized! {
    /// Turns scores into the softmax, given the logarithm of the sum of their exponentials.
    fn softmax_from(row: &mut [f32], seen: Range<usize>, log_sum: f32) {
        row[..seen.start].fill(0.0);
        row[seen.end..].fill(0.0);
        exp_shifted::<FMA>(&mut row[seen], log_sum);
    }
}

vectorized! {
    /// `slopes = weights (slopes - level) scale`.
    fn score_slopes(slopes: &mut [f32], weights: &[f32], level: f32, scale: f32) {
        let _ = FMA;
        for (slope, weight) in slopes.iter_mut().zip(weights) {
            *slope = weight * (*slope - level) * scale;
        }
    }
}

vectorized! {
    fn row_dot(a: &[f32], b: &[f32]) -> f32 {
        dot::<FMA>(a, b)
    }
}

vectorized! {
    fn scale_row(row: &mut [f32], factor: f32) {
        let _ = FMA;
        for value in row {
            *value *= factor;
        }
    }
}
