//! Moves of whole rows: looking them up, and writing them into a cache.

use std::{mem::MaybeUninit, sync::Arc};

use burn::{
    backend::Flex,
    tensor::{DType, Float, IndexingUpdateOp, Tensor},
};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{
    blocks::{build, copy_into, for_each_block, rows_per_block},
    bridge::{Kernel, apply1, dense, dims2, is_fused, owned, tensor, unique_values, values},
    half::is_half,
    index_tensor,
};

/// The rows of `weight` at `ids`.
///
/// # Shapes
///
/// - `weight`: `[n_symbols, width]`
/// - `ids`: `[n_rows]`
/// - output: `[n_rows, width]`; in f32 when the table is held in 16 bits
///
/// # Panics
///
/// When an id is not below `n_symbols`, or a table that is held in 16 bits is to be trained.
pub fn embedding(weight: Tensor<2>, ids: &[u32]) -> Tensor<2> {
    let [n_symbols, width] = weight.dims();
    for (row_idx, &id) in ids.iter().enumerate() {
        assert!(
            (id as usize) < n_symbols,
            "id {id} of row {row_idx} is not below the {n_symbols} rows of the embedding"
        );
    }
    assert!(
        !(is_half(weight.dtype()) && weight.is_require_grad()),
        "a table that is held in 16 bits is frozen"
    );
    let dtype = if is_half(weight.dtype()) { DType::F32 } else { weight.dtype() };
    if ids.is_empty() {
        return Tensor::zeros([0, width], (&weight.device(), dtype));
    }
    if is_fused(&weight) {
        apply1(weight, Embedding { ids: ids.into() })
    } else if weight.dtype() != dtype {
        composed_embedding(weight, ids).cast(dtype)
    } else {
        composed_embedding(weight, ids)
    }
}

fn composed_embedding(weight: Tensor<2>, ids: &[u32]) -> Tensor<2> {
    let device = weight.device();
    weight.select(0, index_tensor(ids.iter().map(|&id| id as usize), &device))
}

#[derive(Debug, Clone)]
struct Embedding {
    ids: Arc<[u32]>,
}

impl Kernel<1> for Embedding {
    /// Number of symbols.
    type Saved = usize;

    fn forward(&self, [weight]: [FlexTensor; 1]) -> (FlexTensor, usize) {
        let weight = dense(weight);
        let [n_symbols, width] = dims2(&weight);
        let table = values(&weight);
        let block = rows_per_block(width);
        let fill = |out: &mut [MaybeUninit<f32>]| {
            for_each_block(out, block * width.max(1), |block_idx, out| {
                let ids = &self.ids[block_idx * block..];
                for (out, &id) in out.chunks_exact_mut(width).zip(ids) {
                    copy_into(out, &table[id as usize * width..][..width]);
                }
            });
        };
        // SAFETY: there is an id for every row, and each row is copied whole.
        let out = unsafe { build(self.ids.len() * width, fill) };
        (tensor(out, [self.ids.len(), width]), n_symbols)
    }

    /// Rows of one id are added in their order, so threads may share the ids.
    fn backward(
        &self,
        n_symbols: usize,
        gradient: FlexTensor,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let gradient = dense(gradient);
        let [n_rows, width] = dims2(&gradient);
        let rows = values(&gradient);
        let mut order: Vec<usize> = (0..n_rows).collect();
        order.sort_by_key(|&row_idx| self.ids[row_idx]);

        let mut table = vec![0.0; n_symbols * width];
        let mut jobs = Vec::new();
        let (mut rest, mut taken) = (table.as_mut_slice(), 0);
        for same in order.chunk_by(|&a, &b| self.ids[a] == self.ids[b]) {
            let at = self.ids[same[0]] as usize;
            let (sum, others) = rest[(at - taken) * width..].split_at_mut(width);
            (rest, taken) = (others, at + 1);
            jobs.push((sum, same));
        }
        jobs.into_par_iter().with_min_len(rows_per_block(width)).for_each(|(sum, same)| {
            for &row_idx in same {
                for (sum, value) in sum.iter_mut().zip(&rows[row_idx * width..]) {
                    *sum += value;
                }
            }
        });
        [Some(tensor(table, [n_symbols, width]))]
    }
}

/// Writes `rows` into `cache` at the row indices `at`, in place when nobody else holds the cache:
/// take it out of its field and let its views go first. For inference; it has no backward pass.
///
/// # Shapes
///
/// - `cache` and output: `[capacity, width]`
/// - `rows`: `[n_rows, width]`
/// - `at`: `[n_rows]`, distinct, each below `capacity`
///
/// # Panics
///
/// When a shape or an index does not fit.
pub fn write_rows(cache: Tensor<2>, rows: Tensor<2>, at: &[usize]) -> Tensor<2> {
    let [capacity, width] = cache.dims();
    assert_eq!(rows.dims(), [at.len(), width], "one row as wide as the cache per index");
    for &index in at {
        assert!(index < capacity, "row {index} is beyond the cache's {capacity} rows");
    }
    if at.is_empty() {
        return cache;
    }
    if [&cache, &rows].into_iter().all(|x| is_fused(x) && !x.is_autodiff()) {
        let [cache, rows] = [cache, rows].map(|x| {
            x.try_into_primitive::<Flex>().expect("asked for the backend the line before")
        });
        let (mut cache, rows) = (owned(cache), dense(rows));
        let target = unique_values(&mut cache).expect("owned the line before");
        for (row, &index) in values(&rows).chunks_exact(width.max(1)).zip(at) {
            target[index * width..][..width].copy_from_slice(row);
        }
        Tensor::<2, Float>::from_primitive::<Flex>(cache)
    } else {
        composed_write(cache, rows, at)
    }
}

fn composed_write(cache: Tensor<2>, rows: Tensor<2>, at: &[usize]) -> Tensor<2> {
    let device = cache.device();
    let index = index_tensor(at.iter().copied(), &device);
    cache.select_assign(0, index, rows, IndexingUpdateOp::Assign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, cpu, random, to_vec};

    #[test]
    fn embedding_fused_equals_composed() {
        for (n_symbols, width, ids) in [
            (1, 3, vec![0, 0, 0]),
            (9, 4, vec![8, 0, 3, 3, 8, 1]),
            (700, 100, (0..900).map(|i| i * i % 700).collect::<Vec<u32>>()),
        ] {
            Case::new()
                .input(random([n_symbols, width], 1))
                .check(|t| embedding(t.rows(0), &ids), |t| composed_embedding(t.rows(0), &ids));
        }
    }

    #[test]
    fn rows_are_looked_up_and_their_gradients_added() {
        let device = cpu().autodiff();
        let table = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &device).require_grad();
        let out = embedding(table.clone(), &[1, 0, 1]);
        assert_eq!(to_vec(out.clone().inner()), [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
        let scale = Tensor::<2>::from_floats([[1.0], [10.0], [100.0]], &device);
        let gradients = (out * scale).sum().backward();
        assert_eq!(to_vec(table.grad(&gradients).unwrap()), [10.0, 10.0, 101.0, 101.0]);
        assert_eq!(embedding(table, &[]).dims(), [0, 2]);
    }

    #[test]
    #[should_panic(expected = "id 2 of row 1")]
    fn an_id_without_a_row_is_refused() {
        embedding(Tensor::zeros([2, 2], &cpu()), &[0, 2]);
    }

    #[test]
    #[should_panic(expected = "a table that is held in 16 bits is frozen")]
    fn training_a_table_in_16_bits_is_refused() {
        let table = random([3, 2], 1).tensor(&cpu()).cast(DType::BF16).autodiff().require_grad();
        embedding(table, &[1]);
    }

    #[test]
    fn rows_are_written_where_they_belong() {
        let rows = random([2, 3], 1);
        let cache = || Tensor::<2>::ones([4, 3], &cpu());
        let fused = to_vec(write_rows(cache(), rows.tensor(&cpu()), &[3, 1]));
        assert_eq!(fused[..3], [1.0; 3]);
        assert_eq!(fused[3..6], rows.values[3..]);
        assert_eq!(fused[9..], rows.values[..3]);
        assert_eq!(to_vec(composed_write(cache(), rows.tensor(&cpu()), &[3, 1])), fused);
    }

    #[test]
    fn a_cache_nobody_else_holds_is_written_in_place() {
        let address = |x: &Tensor<2>| {
            let x = x.clone().try_into_primitive::<Flex>().unwrap();
            values(&x).as_ptr()
        };
        let cache = Tensor::<2>::ones([4, 3], &cpu());
        let before = address(&cache);
        let cache = write_rows(cache, random([1, 3], 1).tensor(&cpu()), &[2]);
        assert_eq!(address(&cache), before);
        let held = cache.clone();
        let cache = write_rows(cache, random([1, 3], 2).tensor(&cpu()), &[2]);
        assert_ne!(address(&cache), before);
        assert_eq!(to_vec(held)[6..9], random([1, 3], 1).values);
    }
}
