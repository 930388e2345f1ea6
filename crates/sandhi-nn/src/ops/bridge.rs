//! How a kernel on slices becomes an operation of the tensor framework.
//!
//! A [`Kernel`] knows its forward and backward pass on the CPU backend's tensors. [`apply1`],
//! [`apply2`] and [`apply3`] hand it to Burn's backend extension mechanism, once for all kernels:
//!
//! ```text
//! apply1(x, kernel) ── Dispatch ──┬── Flex            kernel.infer(x)
//!                                 └── Autodiff<Flex>  kernel.forward(x) ── saved ── kernel.backward
//! ```
//!
//! Callers ask [`is_fused`] first: other devices and types have no kernels.

use std::{fmt::Debug, marker::PhantomData};

use burn::{
    backend::{Autodiff, Backend, Dispatch, DispatchDevice, Flex, backend_extension},
    backend::{autodiff::checkpoint::strategy::CheckpointStrategy, tensor::FloatTensor},
    tensor::{Bytes, DType, Shape, Tensor},
};
use burn_autodiff::{
    checkpoint::base::Checkpointer,
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn_flex::{FlexTensor, Layout};

use super::{blocks::for_each_block, half::is_half};

/// A fused operation of `N` inputs and one output on the CPU backend, all `f32`.
pub(crate) trait Kernel<const N: usize>: Clone + Debug + Send + Sync + 'static {
    /// What the forward pass leaves for the backward pass.
    type Saved: Clone + Debug + Send + 'static;

    /// The output, and what the backward pass needs. Inputs that nobody else holds may be reused.
    fn forward(&self, inputs: [FlexTensor; N]) -> (FlexTensor, Self::Saved);

    /// The output alone, where no gradient will be asked for.
    fn infer(&self, inputs: [FlexTensor; N]) -> FlexTensor {
        self.forward(inputs).0
    }

    /// Gradients of the inputs that are `wanted`, given the output's.
    fn backward(
        &self,
        saved: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; N],
    ) -> [Option<FlexTensor>; N];
}

#[backend_extension(Flex, Autodiff)]
trait Fused: Backend {
    fn fused1<K: Kernel<1>>(a: FloatTensor<Self>, kernel: K) -> FloatTensor<Self>;
    fn fused2<K: Kernel<2>>(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        kernel: K,
    ) -> FloatTensor<Self>;
    fn fused3<K: Kernel<3>>(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        kernel: K,
    ) -> FloatTensor<Self>;
}

impl Fused for Flex {
    fn fused1<K: Kernel<1>>(a: FlexTensor, kernel: K) -> FlexTensor {
        kernel.infer([a])
    }

    fn fused2<K: Kernel<2>>(a: FlexTensor, b: FlexTensor, kernel: K) -> FlexTensor {
        kernel.infer([a, b])
    }

    fn fused3<K: Kernel<3>>(a: FlexTensor, b: FlexTensor, c: FlexTensor, kernel: K) -> FlexTensor {
        kernel.infer([a, b, c])
    }
}

/// A tensor of the CPU backend that carries gradients.
type Tracked = FloatTensor<Autodiff<Flex>>;

impl<C: CheckpointStrategy> Fused for Autodiff<Flex, C> {
    fn fused1<K: Kernel<1>>(a: Tracked, kernel: K) -> Tracked {
        track::<K, C, 1>([a], kernel)
    }

    fn fused2<K: Kernel<2>>(a: Tracked, b: Tracked, kernel: K) -> Tracked {
        track::<K, C, 2>([a, b], kernel)
    }

    fn fused3<K: Kernel<3>>(a: Tracked, b: Tracked, c: Tracked, kernel: K) -> Tracked {
        track::<K, C, 3>([a, b, c], kernel)
    }
}

/// The backward step of kernel `K`.
struct Step<K>(PhantomData<K>);

impl<K> Debug for Step<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::any::type_name::<K>())
    }
}

impl<K: Kernel<N>, const N: usize> Backward<Flex, N> for Step<K> {
    type State = (K, K::Saved);

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let (kernel, saved) = ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let results = kernel.backward(saved, gradient, wanted);
        for (parent, result) in ops.parents.into_iter().zip(results) {
            if let (Some(parent), Some(result)) = (parent, result) {
                gradients.register::<Flex>(parent.id, result);
            }
        }
    }
}

fn track<K: Kernel<N>, C: CheckpointStrategy, const N: usize>(
    inputs: [Tracked; N],
    kernel: K,
) -> Tracked {
    // The guards must be taken while the inputs still are part of the graph.
    let nodes = inputs.each_ref().map(|input| input.node());
    let primitives = inputs.map(|input| input.into_primitive());
    match Step::<K>(PhantomData).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let (output, saved) = kernel.forward(primitives);
            prepared.finish((kernel, saved), output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(kernel.infer(primitives)),
    }
}

/// Runs a kernel of one input.
pub(crate) fn apply1<const D: usize>(a: Tensor<2>, kernel: impl Kernel<1>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused1(a.into_dispatch(), kernel))
}

/// Runs a kernel of two inputs.
pub(crate) fn apply2<const A: usize, const B: usize>(
    a: Tensor<A>,
    b: Tensor<B>,
    kernel: impl Kernel<2>,
) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::fused2(a.into_dispatch(), b.into_dispatch(), kernel))
}

/// Runs a kernel of three inputs.
pub(crate) fn apply3<const A: usize, const B: usize, const C: usize>(
    a: Tensor<A>,
    b: Tensor<B>,
    c: Tensor<C>,
    kernel: impl Kernel<3>,
) -> Tensor<2> {
    let output = Dispatch::fused3(a.into_dispatch(), b.into_dispatch(), c.into_dispatch(), kernel);
    Tensor::from_dispatch(output)
}

/// Whether `x` is on the CPU backend and of the type the kernels are for.
pub(crate) fn is_fused<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32
        && matches!(x.device().without_autodiff().as_dispatch(), DispatchDevice::Flex(_))
}

/// Whether a weight is held in 16 bits on the CPU backend.
pub(crate) fn is_fused_half<const D: usize>(x: &Tensor<D>) -> bool {
    is_half(x.dtype())
        && matches!(x.device().without_autodiff().as_dispatch(), DispatchDevice::Flex(_))
}

/// `x` as one run of values in row order. Copies only what is strided.
pub(crate) fn dense(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

/// The values of a [`dense`] tensor.
pub(crate) fn values(x: &FlexTensor) -> &[f32] {
    x.as_slice::<f32>().expect("a dense f32 tensor is one slice")
}

/// The values of a [`dense`] tensor for writing, if nobody else can see them.
pub(crate) fn unique_values(x: &mut FlexTensor) -> Option<&mut [f32]> {
    let (start, end) = x.layout().contiguous_offsets()?;
    x.try_storage_mut::<f32>().map(|storage| &mut storage[start..end])
}

/// The values of `x`, taken over when nobody else holds them and copied otherwise.
pub(crate) fn owned(x: FlexTensor) -> FlexTensor {
    let mut x = dense(x);
    if unique_values(&mut x).is_some() {
        return x;
    }
    let shape = x.layout().shape().clone();
    tensor(values(&x).to_vec(), shape)
}

/// A tensor of these values in row order.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape.into()), DType::F32)
}

/// `x` times `factor`, in place when nobody else holds it.
pub(crate) fn scaled(x: FlexTensor, factor: f32) -> FlexTensor {
    if factor == 1.0 {
        return x;
    }
    let mut x = owned(x);
    let target = unique_values(&mut x).expect("owned the line before");
    for_each_block(target, 1 << 14, |_, block| {
        for value in block {
            *value *= factor;
        }
    });
    x
}

/// Rows and width of a two-dimensional tensor.
pub(crate) fn dims2(x: &FlexTensor) -> [usize; 2] {
    let shape = x.layout().shape();
    [shape[0], shape[1]]
}
