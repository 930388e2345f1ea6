//! AdamW over a module's trained parameters, with its state by name.

use std::collections::BTreeMap;

use burn::{module::Param, optim::GradientsParams, prelude::*};
use sandhi_nn::{
    ops::{self, AdamStep},
    weights::{self, NamedTensor, ParameterMap, Weights},
};

use crate::recipe::OptimizerConfig;

/// First and second moments by parameter name, and how many updates there were.
#[derive(Debug, Default)]
pub struct AdamW {
    moments: BTreeMap<String, (Tensor<1>, Tensor<1>)>,
    n_updates: u64,
}

/// Whether a parameter decays: matrices do, norms, biases and embeddings do not.
fn decays(name: &str, rank: usize) -> bool {
    rank >= 2 && !name.contains("embed_tokens")
}

impl AdamW {
    /// One update of every parameter that has a gradient; gradients are multiplied by `scale`.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        grads: GradientsParams,
        config: &OptimizerConfig,
        lr: f64,
        scale: f64,
    ) -> M {
        self.n_updates += 1;
        let mut update = Update { optimizer: self, grads, config, lr, scale };
        weights::map_parameters(module, &mut update)
    }

    /// The state as tensors called `m.<name>` and `v.<name>`.
    pub fn state(&self) -> Weights {
        let mut state = Weights::new();
        for (name, (m, v)) in &self.moments {
            for (prefix, tensor) in [("m", m), ("v", v)] {
                let values = weights::host(tensor.clone());
                let shape = vec![values.len()];
                state.insert(format!("{prefix}.{name}"), NamedTensor { shape, values });
            }
        }
        state
    }

    /// Takes up a state again.
    ///
    /// # Errors
    ///
    /// A sentence that names the tensor that lacks its partner.
    pub fn resume(mut state: Weights, n_updates: u64, device: &Device) -> Result<Self, String> {
        let names: Vec<String> =
            state.keys().filter_map(|key| key.strip_prefix("m.").map(str::to_owned)).collect();
        let mut moments = BTreeMap::new();
        for name in names {
            let mut take = |prefix: &str| {
                let key = format!("{prefix}.{name}");
                let t = state.remove(&key).ok_or_else(|| format!("optimizer state lacks {key}"))?;
                Ok::<_, String>(Tensor::<1>::from_data(TensorData::new(t.values, t.shape), device))
            };
            let pair = (take("m")?, take("v")?);
            moments.insert(name, pair);
        }
        match state.keys().next() {
            Some(key) => Err(format!("optimizer state has {key} without its partner")),
            None => Ok(Self { moments, n_updates }),
        }
    }

    /// Updates so far.
    pub fn n_updates(&self) -> u64 {
        self.n_updates
    }
}

struct Update<'a> {
    optimizer: &'a mut AdamW,
    grads: GradientsParams,
    config: &'a OptimizerConfig,
    lr: f64,
    scale: f64,
}

impl ParameterMap for Update<'_> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(grad) = self.grads.remove::<D>(param.id) else { return param };
        let (id, value, mapper) = param.consume();
        let shape = value.dims();
        let n: usize = shape.iter().product();
        let value: Tensor<1> = value.inner().reshape([n]);
        let mut grad: Tensor<1> = grad.reshape([n]);
        if self.scale != 1.0 {
            grad = grad * self.scale;
        }
        let device = value.device();
        let (m, v) = self
            .optimizer
            .moments
            .remove(name)
            .unwrap_or_else(|| (Tensor::zeros([n], &device), Tensor::zeros([n], &device)));
        let step = AdamStep {
            lr: self.lr,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            eps: self.config.eps,
            weight_decay: if decays(name, D) { self.config.weight_decay } else { 0.0 },
            step: self.optimizer.n_updates,
        };
        let (value, m, v) = ops::adamw(value, grad, m, v, &step);
        self.optimizer.moments.insert(name.to_owned(), (m, v));
        let value = value.reshape(shape).autodiff().require_grad();
        Param::from_mapped_value(id, value, mapper)
    }
}

/// The norm of all gradients together, in a fixed order.
pub fn gradient_norm<M: Module>(module: &M, grads: &GradientsParams) -> f64 {
    struct Norm<'a>(&'a GradientsParams, f64);
    impl burn::module::ModuleVisitor for Norm<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.0.get::<D>(param.id) {
                self.1 += ops::sum_squares(&grad);
            }
        }
    }
    let mut norm = Norm(grads, 0.0);
    module.visit(&mut norm);
    norm.1.sqrt()
}
