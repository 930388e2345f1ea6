//! Tensors on the host: what checkpoints and reports exchange with a model, without naming a
//! tensor framework.

/// An `f32` tensor in host memory, row-major.
///
/// # Shapes
///
/// - `values`: the product of `shape` (an empty shape is a scalar: one value)
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostTensor {
    /// The length of each axis, outermost first.
    pub shape: Vec<usize>,
    /// The values; the last axis varies fastest.
    pub values: Vec<f32>,
}

impl HostTensor {
    /// A tensor over `values`.
    ///
    /// # Panics
    ///
    /// When the product of `shape` is not the number of values.
    pub fn new(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        let tensor = Self { shape: shape.into(), values };
        assert!(
            tensor.is_consistent(),
            "a tensor of shape {:?} cannot hold {} values",
            tensor.shape,
            tensor.values.len()
        );
        tensor
    }

    /// Whether the product of `shape` is the number of values (false also when it overflows).
    pub fn is_consistent(&self) -> bool {
        let product = self.shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n));
        product == Some(self.values.len())
    }

    /// How many values it holds.
    pub fn n_values(&self) -> usize {
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_holds_one_value() {
        assert_eq!(HostTensor::new([], vec![2.5]).n_values(), 1);
        assert!(!HostTensor { shape: vec![], values: vec![] }.is_consistent());
        assert!(HostTensor { shape: vec![3, 0], values: vec![] }.is_consistent());
        assert!(!HostTensor { shape: vec![usize::MAX, 2], values: vec![] }.is_consistent());
    }

    #[test]
    #[should_panic(expected = "cannot hold 5 values")]
    fn a_shape_that_does_not_fit_panics() {
        HostTensor::new([2, 3], vec![0.0; 5]);
    }
}
