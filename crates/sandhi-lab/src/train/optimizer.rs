//! The optimizer over a module's trained parameters, with its state by name.
//!
//! ```text
//! norm, bias, channel-wise filter, embedding, head ─ AdamW
//! every other matrix ─ AdamW, or Muon when the recipe says so
//! ```

use std::collections::BTreeMap;

use burn::{
    module::Param,
    optim::{
        AdjustLrFn, GradientsParams, MuonConfig, Optimizer as _, decay::WeightDecayConfig,
        momentum::MomentumConfig,
    },
    prelude::*,
};
use rayon::prelude::*;
use sandhi_nn::{
    ops::{self, AdamStep},
    weights::{self, NamedTensor, ParameterMap, Weights},
};

use crate::recipe::{MatrixRule, OptimizerConfig};

/// AdamW's moments and Muon's velocities by parameter name, and how many updates there were.
#[derive(Debug, Default)]
pub struct Optimizer {
    moments: BTreeMap<String, (Tensor<1>, Tensor<1>)>,
    velocities: BTreeMap<String, Tensor<1>>,
    n_updates: u64,
}

/// Decay of Muon's velocity.
const MUON_MOMENTUM: f64 = 0.95;

/// Whether a parameter decays: matrices do, norms, biases and embeddings do not.
fn decays(name: &str, rank: usize) -> bool {
    rank >= 2 && !name.contains("embed_tokens")
}

/// Whether Muon may update a parameter: matrices between hidden states, neither tables, output layers, channel-wise
/// filters nor factors of low-rank branches, whose product is such a matrix.
pub(crate) fn is_hidden_matrix(name: &str, rank: usize) -> bool {
    let outer = ["embed_tokens", "embedding", "head", "depthwise", "lora_"];
    rank == 2 && !outer.iter().any(|part| name.contains(part))
}

impl Optimizer {
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
        let mut update =
            Update { optimizer: self, grads, config, lr, scale, directions: Vec::new() };
        let module = weights::map_parameters(module, &mut update);
        // The matrices are too small to share one among threads.
        let moved: BTreeMap<String, Tensor<2>> = std::mem::take(&mut update.directions)
            .into_par_iter()
            .map(|(name, value, direction)| (name, muon(value, direction, config, lr)))
            .collect();
        if moved.is_empty() {
            return module;
        }
        weights::map_parameters(module, &mut Move(moved))
    }

    /// The state as tensors called `m.<name>` and `v.<name>` (AdamW) or `velocity.<name>` (Muon).
    pub fn state(&self) -> Weights {
        let mut state = Weights::new();
        let mut put = |prefix: &str, name: &str, tensor: &Tensor<1>| {
            let values = weights::host(tensor.clone());
            let shape = vec![values.len()];
            state.insert(format!("{prefix}.{name}"), NamedTensor { shape, values });
        };
        for (name, (m, v)) in &self.moments {
            put("m", name, m);
            put("v", name, v);
        }
        for (name, velocity) in &self.velocities {
            put("velocity", name, velocity);
        }
        state
    }

    /// Takes up a state again.
    ///
    /// # Errors
    ///
    /// A sentence that names the tensor that lacks its partner.
    pub fn resume(mut state: Weights, n_updates: u64, device: &Device) -> Result<Self, String> {
        let names = |state: &Weights, prefix: &str| -> Vec<String> {
            state.keys().filter_map(|key| key.strip_prefix(prefix).map(str::to_owned)).collect()
        };
        let (with_moments, with_velocity) = (names(&state, "m."), names(&state, "velocity."));
        let mut take = |prefix: &str, name: &str| {
            let key = format!("{prefix}.{name}");
            let t = state.remove(&key).ok_or_else(|| format!("optimizer state lacks {key}"))?;
            Ok::<_, String>(Tensor::<1>::from_data(TensorData::new(t.values, t.shape), device))
        };
        let mut resumed = Self { n_updates, ..Self::default() };
        for name in with_moments {
            let pair = (take("m", &name)?, take("v", &name)?);
            resumed.moments.insert(name, pair);
        }
        for name in with_velocity {
            let velocity = take("velocity", &name)?;
            resumed.velocities.insert(name, velocity);
        }
        match state.keys().next() {
            Some(key) => Err(format!("optimizer state has {key} without its partner")),
            None => Ok(resumed),
        }
    }

    /// Updates so far.
    pub fn n_updates(&self) -> u64 {
        self.n_updates
    }
}

struct Update<'a> {
    optimizer: &'a mut Optimizer,
    grads: GradientsParams,
    config: &'a OptimizerConfig,
    lr: f64,
    scale: f64,
    /// Matrices that Muon will move: name, value, direction.
    directions: Vec<(String, Tensor<2>, Tensor<2>)>,
}

impl ParameterMap for Update<'_> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(grad) = self.grads.remove::<D>(param.id) else { return param };
        let shape = param.val().dims();
        let n: usize = shape.iter().product();
        let mut grad: Tensor<1> = grad.reshape([n]);
        if self.scale != 1.0 {
            grad = grad * self.scale;
        }
        if self.config.matrices == MatrixRule::Muon && is_hidden_matrix(name, D) {
            let shape = [shape[0], shape[1]];
            // Nesterov's momentum.
            let velocity = match self.optimizer.velocities.remove(name) {
                Some(velocity) => velocity * MUON_MOMENTUM + grad.clone(),
                None => grad.clone(),
            };
            let direction = velocity.clone() * MUON_MOMENTUM + grad;
            self.optimizer.velocities.insert(name.to_owned(), velocity);
            let value = param.val().inner().reshape(shape);
            self.directions.push((name.to_owned(), value, direction.reshape(shape)));
            return param;
        }
        let (id, value, mapper) = param.consume();
        let value: Tensor<1> = value.inner().reshape([n]);
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

/// New values of the matrices that Muon moved.
struct Move(BTreeMap<String, Tensor<2>>);

impl ParameterMap for Move {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(moved) = self.0.remove(name) else { return param };
        let (id, value, mapper) = param.consume();
        let value = moved.reshape(value.dims()).autodiff().require_grad();
        Param::from_mapped_value(id, value, mapper)
    }
}

/// Muon (Jordan et al., 2024): a matrix moved in a direction that is made orthogonal, scaled to the size of
/// AdamW's updates (Liu et al., 2025, arXiv 2502.16982), so that one learning rate serves both.
fn muon(value: Tensor<2>, direction: Tensor<2>, config: &OptimizerConfig, lr: f64) -> Tensor<2> {
    // The velocity is kept here, where checkpoints find it, so the library's rule has none of its own.
    let rule = MuonConfig::new()
        .with_momentum(MomentumConfig { momentum: 0.0, dampening: 0.0, nesterov: false })
        .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW)
        .with_weight_decay(Some(WeightDecayConfig::new(config.weight_decay as f32)))
        .build();
    rule.step::<2>(lr, value, direction, None).0
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

#[cfg(test)]
mod tests {
    use sandhi_nn::{init::Init, layers::Linear};
    use serde_json::json;

    use super::*;

    fn config() -> OptimizerConfig {
        serde_json::from_value(json!({ "lr": 0.1, "matrices": "muon", "weight_decay": 0.0 }))
            .unwrap()
    }

    /// One update of a square matrix whose gradient is diagonal; gives the change of the diagonal.
    fn change(diagonal: [f32; 3]) -> Vec<f64> {
        let device = Device::flex().autodiff();
        let layer = Linear::new(&Init::new(1, &device).child("layer"), 3, 3, false);
        let before = weights::host(layer.weight.val().inner());
        let mask = Tensor::<2>::from_data(
            TensorData::new(
                vec![diagonal[0], 0.0, 0.0, 0.0, diagonal[1], 0.0, 0.0, 0.0, diagonal[2]],
                [3, 3],
            ),
            &device,
        );
        let loss = (layer.weight.val() * mask).sum();
        let grads = GradientsParams::from_grads(loss.backward(), &layer);
        let mut optimizer = Optimizer::default();
        let layer = optimizer.step(layer, grads, &config(), 0.1, 1.0);
        let state = optimizer.state();
        assert_eq!(state.keys().collect::<Vec<_>>(), ["velocity.weight"]);
        assert_eq!(state["velocity.weight"].values[4], diagonal[1]);
        let after = weights::host(layer.weight.val().inner());
        let change = |i: usize| f64::from(after[i]) - f64::from(before[i]);
        assert!([1, 2, 3, 5, 6, 7].into_iter().all(|i| change(i).abs() < 1e-4));
        vec![change(0), change(4), change(8)]
    }

    #[test]
    fn muon_moves_every_direction_alike() {
        // Singular values of 1, 0.5 and 0.1 become 0.7 to 1.2, times lr 0.1 and 0.2 √3.
        for moved in change([1.0, -0.5, 0.1]).into_iter().zip([-1.0, 1.0, -1.0]) {
            let size = moved.0 * moved.1 / (0.1 * 0.2 * 3.0_f64.sqrt());
            assert!((0.6..1.3).contains(&size), "{size}");
        }
    }

    #[test]
    fn a_resumed_state_goes_on_to_the_bit() {
        let device = Device::flex().autodiff();
        let config = OptimizerConfig { weight_decay: 0.1, ..config() };
        let update = |optimizer: &mut Optimizer, layer: Linear| {
            let loss = (layer.weight.val() * layer.weight.val()).sum()
                + layer.bias.as_ref().unwrap().val().exp().sum();
            let grads = GradientsParams::from_grads(loss.backward(), &layer);
            optimizer.step(layer, grads, &config, 0.1, 1.0)
        };
        let layer = Linear::new(&Init::new(1, &device).child("layer"), 4, 3, true);
        let mut optimizer = Optimizer::default();
        let layer = update(&mut optimizer, layer);
        let state = optimizer.state();
        let names: Vec<&str> = state.keys().map(String::as_str).collect();
        assert_eq!(names, ["m.bias", "v.bias", "velocity.weight"]);
        let mut resumed = Optimizer::resume(state, 1, &Device::flex()).unwrap();
        let (a, b) = (update(&mut optimizer, layer.clone()), update(&mut resumed, layer.clone()));
        let values = |layer: &Linear| weights::host(layer.weight.val().inner());
        assert_eq!(values(&a), values(&b));
        assert_eq!(optimizer.state(), resumed.state());
        // A velocity that was forgotten would show.
        let fresh = update(&mut Optimizer::default(), layer);
        assert_ne!(values(&a), values(&fresh));
    }

    #[test]
    fn tables_and_output_layers_stay_with_adamw() {
        assert!(is_hidden_matrix("layers.0.mlp.up_proj.weight", 2));
        let factor = "layers.0.mlp.up_proj.lora_a.weight";
        let tables = ["model.embed_tokens.weight", "text.embedding.weight"];
        for name in tables.into_iter().chain(["lm_head.weight", "head.proj.weight", factor]) {
            assert!(!is_hidden_matrix(name, 2), "{name}");
        }
        assert!(!is_hidden_matrix("layers.0.conv.depthwise", 2));
        assert!(!is_hidden_matrix("layers.0.input_layernorm.weight", 1));
    }

    #[test]
    fn a_state_without_its_partner_is_refused() {
        let one = NamedTensor { shape: vec![1], values: vec![0.0] };
        let state = Weights::from([("v.a".to_owned(), one)]);
        let error = Optimizer::resume(state, 1, &Device::flex()).unwrap_err();
        assert!(error.contains("v.a"), "{error}");
    }
}
