//! Rotary position embedding (arXiv 2104.09864) in the layout of Hugging Face's Llama, where
//! component `i` of a head turns together with component `i + d_head / 2`.

use burn::tensor::{Device, Tensor, TensorData};

/// Turns each pair of components of each head by an angle that grows with the row's position:
/// `position * theta^(-2 i / d_head)` for pair `i`.
///
/// # Shapes
///
/// - `x` and output: `[n_rows, n_heads * d_head]`
/// - `positions`: `[n_rows]`, counted from 0 within each sequence
///
/// # Panics
///
/// When there is not one position per row, or `x` does not divide into heads of even width.
pub fn rotary(x: Tensor<2>, positions: &[usize], n_heads: usize, theta: f64) -> Tensor<2> {
    let [n_rows, width] = x.dims();
    assert_eq!(positions.len(), n_rows, "rotary needs one position per row");
    assert!(
        n_heads > 0 && width % (2 * n_heads) == 0,
        "rows of {width} do not divide into {n_heads} heads of even width"
    );
    composed(x, positions, n_heads, theta)
}

fn composed(x: Tensor<2>, positions: &[usize], n_heads: usize, theta: f64) -> Tensor<2> {
    let [n_rows, width] = x.dims();
    if n_rows == 0 {
        return x;
    }
    let half = width / n_heads / 2;
    let (cos, sin) = tables(positions, half, theta, &x.device());
    let (cos, sin) = (cos.cast(x.dtype()), sin.cast(x.dtype()));
    let x = x.reshape([n_rows, n_heads, 2 * half]);
    let (a, b) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
    let turned_a = a.clone() * cos.clone() - b.clone() * sin.clone();
    let turned_b = b * cos + a * sin;
    Tensor::cat(vec![turned_a, turned_b], 2).reshape([n_rows, width])
}

/// Cosines and sines of all angles, each `[n_rows, 1, half]`.
fn tables(positions: &[usize], half: usize, theta: f64, device: &Device) -> (Tensor<3>, Tensor<3>) {
    let mut cos = Vec::with_capacity(positions.len() * half);
    let mut sin = Vec::with_capacity(positions.len() * half);
    for &position in positions {
        for i in 0..half {
            let angle = position as f64 * theta.powf(-(i as f64) / half as f64);
            cos.push(angle.cos() as f32);
            sin.push(angle.sin() as f32);
        }
    }
    let shape = [positions.len(), 1, half];
    (
        Tensor::from_data(TensorData::new(cos, shape), device),
        Tensor::from_data(TensorData::new(sin, shape), device),
    )
}
