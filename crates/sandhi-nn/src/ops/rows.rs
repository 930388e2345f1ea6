//! Moves of whole rows: looking them up, and writing them into a cache.

use burn::tensor::{IndexingUpdateOp, Tensor};

use super::index_tensor;

/// The rows of `weight` at `ids`.
///
/// # Shapes
///
/// - `weight`: `[n_symbols, width]`
/// - `ids`: `[n_rows]`
/// - output: `[n_rows, width]`
///
/// # Panics
///
/// When an id is not below `n_symbols`.
pub fn embedding(weight: Tensor<2>, ids: &[u32]) -> Tensor<2> {
    let [n_symbols, width] = weight.dims();
    for (row_idx, &id) in ids.iter().enumerate() {
        assert!(
            (id as usize) < n_symbols,
            "id {id} of row {row_idx} is not below the {n_symbols} rows of the embedding"
        );
    }
    let device = weight.device();
    if ids.is_empty() {
        return Tensor::zeros([0, width], (&device, weight.dtype()));
    }
    weight.select(0, index_tensor(ids.iter().map(|&id| id as usize), &device))
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
    composed_write(cache, rows, at)
}

fn composed_write(cache: Tensor<2>, rows: Tensor<2>, at: &[usize]) -> Tensor<2> {
    let device = cache.device();
    let index = index_tensor(at.iter().copied(), &device);
    cache.select_assign(0, index, rows, IndexingUpdateOp::Assign)
}
