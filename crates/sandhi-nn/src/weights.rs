//! Parameters by name: reading, writing and counting them.
//!
//! Names are the paths of the module tree without enum variants; a [`crate::layers::Linear`] weight
//! is stored as `[d_out, d_in]`, as PyTorch does. Loading is strict: every missing, left-over or
//! misshapen tensor is listed, and a model is never loaded in part.

use std::collections::BTreeMap;

use burn::{
    module::{ModuleMapper, ModuleVisitor, Param, ParamId},
    prelude::*,
    tensor::DType,
};
use serde::{Deserialize, Serialize};

/// A tensor on the host, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// Values, the last axis fastest.
    pub values: Vec<f32>,
}

/// Parameters by name, sorted.
pub type Weights = BTreeMap<String, NamedTensor>;

/// What a file lacks or has too much of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Mismatch(pub Vec<String>);

/// The place of a visitor in the module tree.
#[derive(Default)]
struct Path {
    /// Name and type of each container on the way.
    stack: Vec<(String, String)>,
}

impl Path {
    fn enter(&mut self, name: &str, container: &str) {
        self.stack.push((name.to_owned(), container.to_owned()));
    }

    fn exit(&mut self) {
        self.stack.pop();
    }

    /// The name without enum variants (an enum's child is the variant) and without the branch between a linear
    /// layer and its factors.
    fn name(&self) -> String {
        let mut parts = Vec::with_capacity(self.stack.len());
        for (name, container) in &self.stack {
            let branch = name == "lora" && container == "Struct:Linear";
            if !branch && !container.starts_with("Enum:") {
                parts.push(name.as_str());
            }
        }
        parts.join(".")
    }

    /// Whether the parameter here is the weight of a linear layer, or a factor of its branch.
    fn transposed(&self) -> bool {
        self.stack.last().is_some_and(|(name, container)| {
            name == "weight" && ["Struct:Linear", "Struct:Factor"].contains(&container.as_str())
        })
    }
}

/// One parameter of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Path in the module tree.
    pub name: String,
    /// Id that keys gradients and optimizer state.
    pub id: ParamId,
    /// Sizes as in files.
    pub shape: Vec<usize>,
    /// Whether it receives gradients.
    pub trained: bool,
}

impl ParameterInfo {
    /// How many numbers it holds.
    pub fn n_values(&self) -> usize {
        self.shape.iter().product()
    }
}

fn shape_in_file(mut shape: Vec<usize>, transposed: bool) -> Vec<usize> {
    if transposed {
        shape.reverse();
    }
    shape
}

/// Lists the parameters of a module.
pub fn parameters<M: Module>(module: &M) -> Vec<ParameterInfo> {
    struct List(Path, Vec<ParameterInfo>);
    impl ModuleVisitor for List {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val();
            self.1.push(ParameterInfo {
                name: self.0.name(),
                id: param.id,
                shape: shape_in_file(value.dims().to_vec(), self.0.transposed()),
                trained: value.is_require_grad(),
            });
        }
    }
    let mut list = List(Path::default(), Vec::new());
    module.visit(&mut list);
    list.1
}

/// Copies the parameters of a module to the host.
pub fn weights<M: Module>(module: &M) -> Weights {
    weights_where(module, |_| true)
}

/// Copies the parameters whose names are wanted to the host.
pub fn weights_where<M: Module>(module: &M, wanted: impl Fn(&str) -> bool) -> Weights {
    struct Collect<F>(Path, Weights, F);
    impl<F: Fn(&str) -> bool> ModuleVisitor for Collect<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = self.0.name();
            if !(self.2)(&name) {
                return;
            }
            let mut value = param.val();
            if self.0.transposed() {
                value = value.transpose();
            }
            let shape = value.dims().to_vec();
            self.1.insert(name, NamedTensor { shape, values: host(value) });
        }
    }
    let mut collect = Collect(Path::default(), Weights::new(), wanted);
    module.visit(&mut collect);
    collect.1
}

/// Shows every parameter to `see`, with its name and its tensor as files hold it, one after the other.
pub fn for_each<M: Module>(module: &M, see: impl FnMut(String, NamedTensor)) {
    struct Each<F>(Path, F);
    impl<F: FnMut(String, NamedTensor)> ModuleVisitor for Each<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let mut value = param.val();
            if self.0.transposed() {
                value = value.transpose();
            }
            let shape = value.dims().to_vec();
            (self.1)(self.0.name(), NamedTensor { shape, values: host(value) });
        }
    }
    module.visit(&mut Each(Path::default(), see));
}

/// Copies a tensor's values to the host, as `f32`.
pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .into_data()
        .convert::<f32>()
        .try_into_vec::<f32>()
        .expect("converted to f32 the line before")
}

/// Replaces every parameter of a module by the tensor of its name.
///
/// # Errors
///
/// [`Mismatch`] lists all tensors that are missing, left over or of another shape.
pub fn load<M: Module>(module: M, weights: Weights) -> Result<M, Mismatch> {
    load_where(module, weights, |_| true)
}

/// Replaces the parameters that `wanted` picks; all of them must be there, and nothing else.
///
/// # Errors
///
/// As [`load`].
pub fn load_where<M: Module>(
    module: M,
    weights: Weights,
    wanted: impl Fn(&ParameterInfo) -> bool,
) -> Result<M, Mismatch> {
    let wanted: BTreeMap<String, Vec<usize>> =
        parameters(&module).into_iter().filter(|p| wanted(p)).map(|p| (p.name, p.shape)).collect();
    check_shapes(&wanted, &weights)?;
    Ok(replace(module, weights))
}

/// Compares tensors with the names and shapes that a model expects.
///
/// # Errors
///
/// As [`load`].
pub fn check_shapes(
    wanted: &BTreeMap<String, Vec<usize>>,
    weights: &Weights,
) -> Result<(), Mismatch> {
    let mut problems = Vec::new();
    for (name, shape) in wanted {
        match weights.get(name) {
            None => problems.push(format!("missing tensor {name} of shape {shape:?}")),
            Some(found) if found.shape != *shape => problems.push(format!(
                "tensor {name} has shape {:?}, the model expects {shape:?}",
                found.shape
            )),
            Some(_) => {}
        }
    }
    for name in weights.keys().filter(|name| !wanted.contains_key(*name)) {
        problems.push(format!("left-over tensor {name}, the model has no such parameter"));
    }
    if problems.is_empty() { Ok(()) } else { Err(Mismatch(problems)) }
}

/// Puts the tensors in the place of the parameters of their names; shapes are known to fit. Each tensor leaves the
/// map as it is used, so that a large model is in memory once.
fn replace<M: Module>(module: M, weights: Weights) -> M {
    struct Replace(Path, Weights);
    impl ModuleMapper for Replace {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(found) = self.1.remove(&self.0.name()) else { return param };
            let (id, old, mapper) = param.consume();
            let mut values = found.values;
            if self.0.transposed() {
                values = transpose(&values, found.shape[0], found.shape[1]);
            }
            let new: Tensor<D> =
                Tensor::from_data(TensorData::new(values, old.dims()), &old.device());
            let new = if old.dtype() == new.dtype() { new } else { new.cast(old.dtype()) };
            Param::from_mapped_value(id, new.set_require_grad(old.is_require_grad()), mapper)
        }
    }
    module.map(&mut Replace(Path::default(), weights))
}

/// `[n_rows, n_columns]` to `[n_columns, n_rows]`.
fn transpose(values: &[f32], n_rows: usize, n_columns: usize) -> Vec<f32> {
    (0..n_columns).flat_map(|c| (0..n_rows).map(move |r| values[r * n_columns + c])).collect()
}

/// Whether a parameter is a table that nobody trains: the positions of Whisper's encoder.
pub fn is_fixed(name: &str) -> bool {
    name.rsplit('.').next() == Some("embed_positions")
}

/// Sets which parameters receive gradients, by name.
pub fn set_trained<M: Module>(module: M, trained: impl Fn(&str) -> bool) -> M {
    struct Set<F>(Path, F);
    impl<F: Fn(&str) -> bool> ModuleMapper for Set<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let trained = (self.1)(&self.0.name());
            let (id, value, mapper) = param.consume();
            let value = value.detach().set_require_grad(trained);
            Param::from_mapped_value(id, value, mapper)
        }
    }
    module.map(&mut Set(Path::default(), trained))
}

/// The same parameters on a device that tracks gradients.
pub fn to_autodiff<M: Module>(module: M) -> M {
    struct Track;
    impl ModuleMapper for Track {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, value, mapper) = param.consume();
            Param::from_mapped_value(id, value.autodiff().require_grad(), mapper)
        }
    }
    module.map(&mut Track)
}

/// How the matrices of a frozen model are held; norms and biases are f32 always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightType {
    /// 32 bits.
    #[default]
    F32,
    /// The upper 16 bits of an f32: 8 significant bits.
    Bf16,
    /// 16 bits, of which 11 are significant; at most 65,504.
    F16,
}

impl WeightType {
    /// Its name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// Bytes of a value.
    pub fn n_bytes(self) -> u64 {
        if self == Self::F32 { 4 } else { 2 }
    }

    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

/// Rounds the weights of linear layers and embeddings to a type and holds them in it. Branches of a LoRA stay
/// as they are.
///
/// # Errors
///
/// A sentence that names a weight that the type cannot hold.
pub fn hold<M: Module>(module: M, to: WeightType) -> Result<M, String> {
    struct Hold(Path, WeightType, Option<String>);
    impl ModuleMapper for Hold {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let held = self.0.stack.last().is_some_and(|(name, container)| {
                name == "weight"
                    && ["Struct:Linear", "Struct:Embedding"].contains(&container.as_str())
            });
            if !held {
                return param;
            }
            let (id, value, mapper) = param.consume();
            if self.1 == WeightType::F16 {
                let largest = host(value.clone().abs().max())[0];
                if largest.is_finite() && half::f16::from_f32(largest).is_infinite() {
                    self.2 = Some(format!(
                        "{} has the value {largest}, f16 holds at most 65504",
                        self.0.name()
                    ));
                }
            }
            let learns = value.is_require_grad();
            let value = value.detach().cast(self.1.dtype()).set_require_grad(learns);
            Param::from_mapped_value(id, value, mapper)
        }
    }
    let mut hold = Hold(Path::default(), to, None);
    let module = module.map(&mut hold);
    match hold.2 {
        Some(problem) => Err(problem),
        None => Ok(module),
    }
}

/// Maps every parameter with its name; what [`crate::weights`] does not offer is built on this.
pub trait ParameterMap {
    /// The new parameter.
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>>;
}

/// Applies a map to every parameter of a module.
pub fn map_parameters<M: Module>(module: M, map: &mut impl ParameterMap) -> M {
    struct Adapter<'a, P>(Path, &'a mut P);
    impl<P: ParameterMap> ModuleMapper for Adapter<'_, P> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let name = self.0.name();
            self.1.map(&name, param)
        }
    }
    module.map(&mut Adapter(Path::default(), map))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{init::Init, transformer::TransformerConfig};

    fn model(seed: u64) -> crate::transformer::CausalLm {
        TransformerConfig::tiny().init(11, &Init::new(seed, &Device::flex()))
    }

    #[test]
    fn names_are_those_of_the_llama_layout() {
        let names: Vec<String> = parameters(&model(1)).into_iter().map(|p| p.name).collect();
        for name in [
            "model.embed_tokens.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.1.self_attn.k_norm.weight",
            "model.layers.1.mlp.down_proj.weight",
            "model.layers.0.post_attention_layernorm.weight",
            "model.norm.weight",
        ] {
            assert!(names.iter().any(|n| n == name), "{name} is not in {names:#?}");
        }
    }

    #[test]
    fn ids_are_those_of_the_paths_and_differ() {
        let ids: std::collections::BTreeSet<u64> =
            parameters(&model(1)).iter().map(|p| p.id.val()).collect();
        let again: std::collections::BTreeSet<u64> =
            parameters(&model(2)).iter().map(|p| p.id.val()).collect();
        assert_eq!(ids.len(), parameters(&model(1)).len());
        assert_eq!(ids, again);
    }

    #[test]
    fn a_model_survives_the_way_through_names() {
        let (a, b) = (model(1), model(2));
        let stored = weights(&a);
        // [d_kv, d_model], as PyTorch stores it.
        assert_eq!(stored["model.layers.0.self_attn.k_proj.weight"].shape, [4, 8]);
        assert_ne!(stored, weights(&b));
        assert_eq!(stored, weights(&load(b, stored.clone()).unwrap()));
    }

    #[test]
    fn matrices_are_held_in_16_bits_and_compute_in_32() {
        use crate::{lora, ops, ragged, transformer::Dropout};
        for to in [WeightType::Bf16, WeightType::F16] {
            let mut held = hold(model(1), to).unwrap();
            let rounded = load(model(2), weights(&held)).unwrap();
            assert_ne!(weights(&held), weights(&model(1)));
            let targets = vec!["*.q_proj".into()];
            let config = lora::LoraConfig { rank: 2, alpha: 2.0, targets, rslora: false };
            lora::attach(&mut held, "", &config, 1);
            struct Bytes(usize);
            impl ModuleVisitor for Bytes {
                fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                    let value = param.val();
                    let size = if value.dtype() == DType::F32 { 4 } else { 2 };
                    self.0 += size * value.shape().num_elements();
                }
            }
            let mut bytes = Bytes(0);
            held.visit(&mut bytes);
            let n = |keep: fn(&str) -> bool| -> usize {
                parameters(&held)
                    .iter()
                    .filter(|p| keep(&p.name))
                    .map(ParameterInfo::n_values)
                    .sum()
            };
            let wide = n(|name| name.contains("norm") || lora::is_lora(name));
            assert_eq!(bytes.0, 2 * n(|_| true) + 2 * wide);

            let ids = [1, 5, 3, 10];
            let loss = |lm: &crate::transformer::CausalLm| {
                let offsets = ragged::Offsets::from_lengths(&[4]);
                let input = ragged::Ragged { values: lm.embed(&ids), offsets };
                let hidden = lm.forward(&input, &[], Dropout::OFF).last;
                ops::cross_entropy(lm.logits(hidden), &[5, 3, 10, 2], &[1.0; 4])
            };
            let (a, b) = (host(loss(&held))[0], host(loss(&rounded))[0]);
            assert!((a - b).abs() <= 1e-6 * b, "{a} and {b}");
            // What learns beside it is f32 and gets its gradient through it.
            let held = set_trained(to_autodiff(held), lora::is_lora);
            let grads = loss(&held).backward();
            for linear in lora::Linears::linears(&mut held.clone()) {
                let Some(lora) = &linear.1.lora else { continue };
                let [_, b] = lora.factors();
                let gradient = b.val().grad(&grads).expect("it learns");
                assert!(host(gradient).iter().any(|&g| g != 0.0), "{}", linear.0);
            }
            // Loading keeps the type.
            let again =
                load_where(hold(model(3), to).unwrap(), weights(&rounded), |_| true).unwrap();
            assert_eq!(weights(&again), weights(&rounded));
            assert_eq!(again.embedding_table().dtype(), to.dtype());
        }
    }

    #[test]
    fn what_f16_cannot_hold_is_named() {
        let mut stored = weights(&model(1));
        stored.get_mut("model.layers.1.mlp.up_proj.weight").unwrap().values[3] = -70_000.0;
        let wide = load(model(1), stored.clone()).unwrap();
        let error = hold(wide.clone(), WeightType::F16).unwrap_err();
        assert!(
            error.contains("layers.1.mlp.up_proj.weight") && error.contains("70000"),
            "{error}"
        );
        assert!(hold(wide, WeightType::Bf16).is_ok());
    }

    #[test]
    fn every_mismatch_is_listed() {
        let mut stored = weights(&model(1));
        stored.remove("model.norm.weight");
        stored.insert("extra".into(), NamedTensor { shape: vec![1], values: vec![0.0] });
        stored.get_mut("model.embed_tokens.weight").unwrap().shape = vec![8, 11];
        let problems = load(model(2), stored.clone()).unwrap_err().0;
        assert_eq!(problems.len(), 3, "{problems:#?}");
    }
}
