//! Matrix products on slices, read and written through strides.

use burn_flex::FlexTensor;

/// Products of at least this many multiplications are shared among threads.
const PARALLEL: usize = 1 << 21;

/// A matrix in someone's memory: element `(i, j)` lies at `i * row_stride + j * col_stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    values: &'a [f32],
    n_rows: usize,
    n_cols: usize,
    row_stride: isize,
    col_stride: isize,
    start: usize,
}

impl<'a> View<'a> {
    /// A two-dimensional tensor, strided or not.
    pub(crate) fn of(x: &'a FlexTensor) -> Self {
        let layout = x.layout();
        let (shape, strides) = (layout.shape(), layout.strides());
        let (n_rows, n_cols) = (shape[0], shape[1]);
        let view = Self {
            values: x.storage::<f32>(),
            n_rows,
            n_cols,
            row_stride: strides[0],
            col_stride: strides[1],
            start: layout.start_offset(),
        };
        view.check();
        view
    }

    /// Rows of `n_cols` values, `stride` apart, the first at `start`.
    pub(crate) fn rows(
        values: &'a [f32],
        start: usize,
        n_rows: usize,
        n_cols: usize,
        stride: usize,
    ) -> Self {
        let view =
            Self { values, n_rows, n_cols, row_stride: stride as isize, col_stride: 1, start };
        view.check();
        view
    }

    /// Rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self {
            n_rows: self.n_cols,
            n_cols: self.n_rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Whether rows are further apart than columns.
    pub(crate) fn is_row_major(&self) -> bool {
        self.row_stride.unsigned_abs() >= self.col_stride.unsigned_abs()
    }

    /// All four corners lie within the values, and so does everything between them.
    fn check(&self) {
        if self.n_rows == 0 || self.n_cols == 0 {
            return;
        }
        let down = self.row_stride * (self.n_rows as isize - 1);
        let right = self.col_stride * (self.n_cols as isize - 1);
        for offset in [0, down, right, down + right] {
            let at = self.start as isize + offset;
            assert!(
                usize::try_from(at).is_ok_and(|at| at < self.values.len()),
                "a view's corner lies beyond its memory"
            );
        }
    }

    fn pointer(&self) -> *const f32 {
        self.values[self.start.min(self.values.len())..].as_ptr()
    }
}

/// Where a product is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) pointer: *mut f32,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

// SAFETY: a target is an address; whoever writes through it answers for who else does.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// Rows of memory, `stride` values apart.
    pub(crate) fn rows(pointer: *mut f32, stride: usize) -> Self {
        Self { pointer, row_stride: stride, col_stride: 1 }
    }

    /// The target `offset` values further on.
    pub(crate) fn at(self, offset: usize) -> Self {
        Self { pointer: self.pointer.wrapping_add(offset), ..self }
    }
}

/// `target = scale * a b`, or `target += scale * a b` when `accumulate`.
///
/// # Safety
///
/// The target's `a.n_rows` rows of `b.n_cols` values must be valid for writing, initialized when
/// `accumulate`, and not read or written by anyone else meanwhile.
pub(crate) unsafe fn product(
    target: Target,
    a: View<'_>,
    b: View<'_>,
    scale: f32,
    accumulate: bool,
) {
    assert_eq!(a.n_cols, b.n_rows, "the inner sizes of a product agree");
    let (m, n, k) = (a.n_rows, b.n_cols, a.n_cols);
    let parallelism = if m.saturating_mul(n).saturating_mul(k) < PARALLEL {
        gemm::Parallelism::None
    } else {
        gemm::Parallelism::Rayon(0)
    };
    // SAFETY: views hold their corners within their memory (`View::check`), and the target is the
    // caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            target.pointer,
            target.col_stride as isize,
            target.row_stride as isize,
            accumulate,
            a.pointer(),
            a.col_stride,
            a.row_stride,
            b.pointer(),
            b.col_stride,
            b.row_stride,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// A new row-major matrix `a b`.
pub(crate) fn multiply(a: View<'_>, b: View<'_>) -> Vec<f32> {
    let (m, n) = (a.n_rows, b.n_cols);
    let mut values = Vec::with_capacity(m * n);
    // SAFETY: the memory is ours, holds m rows of n, and the product writes all of them before the
    // length says that they are there.
    unsafe {
        product(Target::rows(values.as_mut_ptr(), n), a, b, 1.0, false);
        values.set_len(m * n);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_by_hand_plain_and_transposed() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, 2.0, 1.0, 0.0, 3.0]);
        let a = View::rows(&a, 0, 2, 3, 3);
        let b = View::rows(&b, 0, 3, 2, 2);
        assert_eq!(multiply(a, b), [5.0, 11.0, 14.0, 23.0]);
        assert_eq!(multiply(b.transposed(), a.transposed()), [5.0, 14.0, 11.0, 23.0]);
    }

    #[test]
    fn products_accumulate_and_scale() {
        let (a, b) = ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]);
        let mut out = [10.0, 0.0];
        // SAFETY: the target is one row of one value.
        unsafe {
            let target = Target::rows(out.as_mut_ptr(), 2);
            product(target, View::rows(&a, 0, 1, 3, 3), View::rows(&b, 0, 3, 1, 1), 0.5, true);
        }
        assert_eq!(out, [13.0, 0.0]);
    }

    #[test]
    fn an_empty_inner_size_gives_zeros() {
        let empty = View::rows(&[], 0, 2, 0, 0);
        assert_eq!(multiply(empty, View::rows(&[], 0, 0, 3, 3)), [0.0; 6]);
    }

    #[test]
    #[should_panic(expected = "beyond its memory")]
    fn views_beyond_their_memory_are_refused() {
        let _ = View::rows(&[0.0; 5], 0, 2, 3, 3);
    }
}
