//! Parameters by name: reading, writing and counting them.
//!
//! Names are the paths of the module tree without enum variants; a [`crate::layers::Linear`] weight
//! is stored as `[d_out, d_in]`, as PyTorch does. Loading is strict: every missing, left-over or
//! misshapen tensor is listed, and a model is never loaded in part.

use std::collections::BTreeMap;

use burn::{
    module::{ModuleMapper, ModuleVisitor, Param, ParamId},
    prelude::*,
};

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

    /// The name without enum variants: an enum's child is the variant.
    fn name(&self) -> String {
        let mut parts = Vec::with_capacity(self.stack.len());
        for (i, (name, _)) in self.stack.iter().enumerate() {
            let variant = i > 0 && self.stack[i].1.starts_with("Enum:");
            if !variant {
                parts.push(name.as_str());
            }
        }
        parts.join(".")
    }

    /// Whether the parameter here is the weight of a linear layer.
    fn transposed(&self) -> bool {
        let n = self.stack.len();
        n >= 1 && self.stack[n - 1].0 == "weight" && self.stack[n - 1].1 == "Struct:Linear"
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
    struct Collect(Path, Weights);
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let mut value = param.val();
            let transposed = self.0.transposed();
            if transposed {
                value = value.transpose();
            }
            let shape = value.dims().to_vec();
            self.1.insert(self.0.name(), NamedTensor { shape, values: host(value) });
        }
    }
    let mut collect = Collect(Path::default(), Weights::new());
    module.visit(&mut collect);
    collect.1
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
/// [`Mismatch`] lists all tensors that are missing, left over or of another shape, and the module is
/// not touched.
pub fn load<M: Module>(module: M, weights: &Weights) -> Result<M, Mismatch> {
    let wanted: BTreeMap<String, Vec<usize>> =
        parameters(&module).into_iter().map(|p| (p.name, p.shape)).collect();
    let mut problems = Vec::new();
    for (name, shape) in &wanted {
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
    if !problems.is_empty() {
        return Err(Mismatch(problems));
    }

    struct Replace<'a>(Path, &'a Weights);
    impl ModuleMapper for Replace<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let found = &self.1[&self.0.name()];
            let (id, old, mapper) = param.consume();
            let data = TensorData::new(found.values.clone(), found.shape.clone());
            let mut new = Tensor::<D>::from_data(data, &old.device());
            if self.0.transposed() {
                // A copy in row order: the view would be copied at every use.
                let shape = old.dims();
                let flat: Tensor<1> = new.transpose().flatten(0, D - 1);
                new = Tensor::from_data(TensorData::new(host(flat), shape.to_vec()), &old.device());
            }
            let new = new.set_require_grad(old.is_require_grad());
            Param::from_mapped_value(id, new, mapper)
        }
    }
    Ok(module.map(&mut Replace(Path::default(), weights)))
}
