//! Initialization by path: a parameter's first value and its id depend on the seed and on its path
//! in the model, never on the order of construction.
//!
//! ```text
//! seed 7 ── "lm" ── "layers.0" ── "q_proj.weight" ──> SplitMix64 stream ──> values
//!                                        └── hash of the path ──> ParamId (keys the optimizer state)
//! ```
//!
//! Burn's own initializers draw from one process-wide generator at first use, so that values depend
//! on the order in which a model happens to be touched. Here adding a module changes nothing else.

use burn::{
    module::{Param, ParamId},
    prelude::*,
};

/// Derives a 64-bit value from a seed and a name: FNV-1a, then SplitMix64's finalizer.
pub(crate) fn stream(seed: u64, name: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ mix(seed);
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(hash)
}

/// SplitMix64's finalizer (Steele, Lea, Flood, OOPSLA 2014).
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Where a module is being built: its path, the seed of the model and the device.
#[derive(Debug, Clone)]
pub struct Init {
    /// None where values are not drawn.
    seed: Option<u64>,
    /// Whether every parameter is one value, seen in its shape.
    hollow: bool,
    path: String,
    device: Device,
}

impl Init {
    /// The root of a model.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self { seed: Some(seed), hollow: false, path: String::new(), device: device.clone() }
    }

    /// The root of a model whose values are loaded next: zeros stand where others would be drawn.
    pub fn blank(device: &Device) -> Self {
        Self { seed: None, hollow: false, path: String::new(), device: device.clone() }
    }

    /// The root of a model that is only looked at: parameters have names and shapes, and take the memory of one value.
    pub fn hollow(device: &Device) -> Self {
        Self { hollow: true, ..Self::blank(device) }
    }

    /// The place called `name` below this one.
    pub fn child(&self, name: impl std::fmt::Display) -> Self {
        let path =
            if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) };
        Self { seed: self.seed, hollow: self.hollow, path, device: self.device.clone() }
    }

    /// The device that parameters are made on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A parameter with normally distributed values of standard deviation `std`.
    pub fn normal<const D: usize>(&self, shape: [usize; D], std: f64) -> Param<Tensor<D>> {
        let Some(seed) = self.seed else { return self.zeros(shape) };
        let n = shape.iter().product();
        let mut state = stream(seed, &self.path);
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            (mix(state) >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut values = Vec::with_capacity(n + 1);
        while values.len() < n {
            // Box and Muller: two uniforms give two normals.
            let radius = std * (-2.0 * (1.0 - next()).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * next()).sin_cos();
            values.push((radius * cos) as f32);
            values.push((radius * sin) as f32);
        }
        values.truncate(n);
        self.param(values, shape)
    }

    /// A parameter with values spread evenly between `-bound` and `bound`.
    pub fn uniform<const D: usize>(&self, shape: [usize; D], bound: f64) -> Param<Tensor<D>> {
        let Some(seed) = self.seed else { return self.zeros(shape) };
        let mut state = stream(seed, &self.path);
        let values = (0..shape.iter().product())
            .map(|_| {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let share = (mix(state) >> 11) as f64 / (1_u64 << 53) as f64;
                (bound * (2.0 * share - 1.0)) as f32
            })
            .collect();
        self.param(values, shape)
    }

    /// A parameter of given values, row-major.
    pub fn values<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        self.param(values, shape)
    }

    /// A parameter of equal values.
    pub fn constant<const D: usize>(&self, shape: [usize; D], value: f32) -> Param<Tensor<D>> {
        if self.hollow {
            return self.zeros(shape);
        }
        self.param(vec![value; shape.iter().product()], shape)
    }

    fn zeros<const D: usize>(&self, shape: [usize; D]) -> Param<Tensor<D>> {
        if self.hollow {
            return self.of(Tensor::<D>::zeros([1; D], &self.device).expand(shape));
        }
        self.of(Tensor::zeros(shape, &self.device))
    }

    fn param<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        self.of(Tensor::from_data(TensorData::new(values, shape), &self.device))
    }

    fn of<const D: usize>(&self, tensor: Tensor<D>) -> Param<Tensor<D>> {
        let tensor = if self.device.is_autodiff() { tensor.require_grad() } else { tensor };
        Param::initialized(ParamId::from(stream(0, &self.path)), tensor)
    }
}
