//! Gradient checkpointing: a layer keeps its input alone and runs again in the backward pass
//! ("Training deep nets with sublinear memory cost", Chen et al., 2016, <https://arxiv.org/abs/1604.06174>).
//!
//! ```text
//! forward    x ── layer, nothing recorded ──> y         kept: x
//! backward   x ── layer, recorded anew ──> y' ── Σ y' · dy ──> dx and the gradients of the layer's parameters
//! ```
//!
//! The layer's parameters are no parents of the step: their gradients are put where those of other operations
//! would be. Inside the second run all of them are leaves of their own, so that the two graphs share nothing.
//! Dropout is a function of its key, so both runs drop the same entries.

use std::{fmt::Debug, sync::Arc};

use burn::{
    backend::{
        Autodiff, DispatchDevice, Flex, autodiff::checkpoint::strategy::NoCheckpointing,
        tensor::FloatTensor,
    },
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Device, Tensor},
};
use burn_autodiff::{
    NodeId,
    checkpoint::base::Checkpointer,
    grads::Gradients,
    ops::{Backward, NodeGuard, Ops, OpsKind},
};
use burn_flex::FlexTensor;

type Graph = Autodiff<Flex>;

/// Whether layers run again on a device: on others [`recompute`] keeps what every operation keeps.
pub fn recomputes(device: &Device) -> bool {
    matches!(device.clone().without_autodiff().as_dispatch(), DispatchDevice::Flex(_))
}

/// `f(module, x)`, of which `x` alone is kept for the backward pass. Only rows of `x` and parameters of `module`
/// receive gradients.
///
/// # Shapes
///
/// - `x`: `[n_rows, width]`; output as `f` gives it
pub fn recompute<M: Module + Send + Sync + 'static>(
    module: &M,
    x: Tensor<2>,
    f: impl Fn(&M, Tensor<2>) -> Tensor<2> + Send + Sync + 'static,
) -> Tensor<2> {
    let mut trained = Trained::default();
    module.visit(&mut trained);
    if !recomputes(&x.device()) || (trained.nodes.is_empty() && !x.is_autodiff()) {
        return f(module, x);
    }
    let (input, guard) = x.autodiff().try_into_primitive::<Graph>().expect(ON_CPU).into_parts();
    let plain = module.valid();
    let output = primitive(f(&plain, Tensor::from_primitive::<Flex>(input.clone())));
    let Trained { learns, nodes, mut guards } = trained;
    let n_nodes = nodes.len();
    let state = |wants_input: bool| {
        let again = move |gradient: FlexTensor| {
            let x = Tensor::<2>::from_primitive::<Flex>(input.clone()).autodiff();
            let x = if wants_input { x.require_grad() } else { x };
            let module = plain.clone().map(&mut Leaves(learns.iter()));
            let gradient = Tensor::<2>::from_primitive::<Flex>(gradient).autodiff();
            let gradients = (f(&module, x.clone()) * gradient).sum().backward();
            let mut found = Found(&gradients, Vec::with_capacity(nodes.len()));
            module.visit(&mut found);
            let parameters = nodes.iter().copied().zip(found.1);
            Again {
                input: wants_input.then(|| x.grad(&gradients).map(primitive)).flatten(),
                parameters: parameters.filter_map(|(node, g)| Some((node, g?))).collect(),
            }
        };
        State(Arc::new(again))
    };
    let tracked = match Step.prepare::<NoCheckpointing>([guard]).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(state(true), output),
        OpsKind::UnTracked(prepared) if n_nodes == 0 => prepared.finish(output),
        // Nobody asks for the input's gradient: the step hangs on a parameter instead.
        OpsKind::UnTracked(_) => {
            let anchor = guards.swap_remove(0);
            match Step.prepare::<NoCheckpointing>([anchor]).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => prepared.finish(state(false), output),
                OpsKind::UnTracked(_) => unreachable!("a parameter that learns is tracked"),
            }
        }
    };
    Tensor::from_primitive::<Graph>(tracked)
}

const ON_CPU: &str = "the device was compared above, and modules lie on one device";

fn primitive<const D: usize>(x: Tensor<D>) -> FloatTensor<Flex> {
    x.inner().try_into_primitive::<Flex>().expect(ON_CPU)
}

/// Which parameters learn, in the order of visits, and the nodes of those that do.
#[derive(Default)]
struct Trained {
    learns: Vec<bool>,
    nodes: Vec<NodeId>,
    guards: Vec<NodeGuard>,
}

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let learns = value.is_require_grad();
        self.learns.push(learns);
        if learns && let Ok(tracked) = value.try_into_primitive::<Graph>() {
            self.nodes.push(tracked.id());
            self.guards.push(tracked.node());
        }
    }
}

/// Makes new leaves of the parameters, in the order of visits.
struct Leaves<'a>(std::slice::Iter<'a, bool>);

impl ModuleMapper for Leaves<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let learns = *self.0.next().expect("one entry for every parameter");
        let (id, value, mapper) = param.consume();
        Param::from_mapped_value(id, value.autodiff().set_require_grad(learns), mapper)
    }
}

/// The gradients of the parameters that learn, in the order of visits.
struct Found<'a>(&'a burn::tensor::Gradients, Vec<Option<FlexTensor>>);

impl ModuleVisitor for Found<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        if value.is_require_grad() {
            self.1.push(value.grad(self.0).map(primitive));
        }
    }
}

/// What the second run gives.
struct Again {
    input: Option<FlexTensor>,
    parameters: Vec<(NodeId, FlexTensor)>,
}

/// The second run, given the output's gradient.
#[derive(Clone)]
struct State(Arc<dyn Fn(FlexTensor) -> Again + Send + Sync>);

impl Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("State")
    }
}

#[derive(Debug)]
struct Step;

impl Backward<Flex, 1> for Step {
    type State = State;

    fn backward(
        self,
        ops: Ops<State, 1>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let again = (ops.state.0)(gradient);
        if let ([Some(parent)], Some(gradient)) = (ops.parents, again.input) {
            gradients.register::<Flex>(parent.id, gradient);
        }
        for (node, gradient) in again.parameters {
            gradients.register::<Flex>(node, gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        connector::{ConnectorConfig, ConnectorInput, Widths},
        encoder::{ConformerConfig, EncoderConfig, Wav2vec2EncoderConfig, WhisperEncoderConfig},
        init::Init,
        lora::{LoraConfig, attach, is_lora},
        ops::testing::{cpu, random, to_vec},
        ragged::{Offsets, Ragged},
        transformer::{CausalLm, Dropout, TransformerConfig},
        weights::{set_trained, to_autodiff},
    };

    /// Which parameters learn.
    type Choice = fn(&str) -> bool;

    /// Output, gradient of the input, and gradients of the parameters, as bits.
    type Bits = (Vec<u32>, Option<Vec<u32>>, Vec<Option<Vec<u32>>>);

    fn bits<const D: usize>(x: Tensor<D>) -> Vec<u32> {
        to_vec(x).into_iter().map(f32::to_bits).collect()
    }

    fn run<M: Module>(
        module: &M,
        x: &Tensor<2>,
        learns: bool,
        f: &impl Fn(&M, Tensor<2>) -> Tensor<2>,
    ) -> Bits {
        let x = x.clone().autodiff();
        let x = if learns { x.require_grad() } else { x };
        let y = f(module, x.clone());
        let weights = random(y.dims(), 5).tensor(&cpu()).autodiff();
        let gradients = (y.clone() * weights).sum().backward();
        struct All<'a>(&'a burn::tensor::Gradients, Vec<Option<Vec<u32>>>);
        impl ModuleVisitor for All<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.1.push(param.val().grad(self.0).map(bits));
            }
        }
        let mut all = All(&gradients, Vec::new());
        module.visit(&mut all);
        (bits(y.inner()), x.grad(&gradients).map(bits), all.1)
    }

    /// A module gives the same bits, in value and in every gradient, whichever parts are frozen.
    #[track_caller]
    fn check<M: Module>(
        module: M,
        x: [usize; 2],
        set: impl Fn(&mut M, bool),
        f: impl Fn(&M, Tensor<2>) -> Tensor<2>,
    ) {
        let x = random(x, 3).tensor(&cpu());
        let module = to_autodiff(module);
        let some: Choice = |name| name.contains("layers.1");
        let chosen: [(Choice, bool); 5] = [
            (|_| true, true),
            (|_| true, false),
            (|_| false, true),
            (some, false),
            (is_lora, false),
        ];
        for (i, (trained, learns)) in chosen.into_iter().enumerate() {
            let mut module = set_trained(module.clone(), trained);
            let expected = run(&module, &x, learns, &f);
            let n = expected.2.iter().flatten().count();
            assert!(n > 0 || expected.1.is_some(), "case {i} has no gradient");
            set(&mut module, true);
            assert_eq!(run(&module, &x, learns, &f), expected, "case {i}");
        }
    }

    const DROPOUT: f64 = 0.2;

    fn language_model() -> CausalLm {
        let config: TransformerConfig = serde_json::from_value(serde_json::json!({
            "d_model": 16, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "d_ff": 24, "qk_norm": true,
        }))
        .unwrap();
        let mut lm = config.init(30, &Init::new(5, &cpu()));
        let targets = vec!["*.q_proj".into(), "*.up_proj".into()];
        attach(&mut lm, "", &LoraConfig { rank: 2, alpha: 4.0, targets, rslora: false }, 9);
        lm
    }

    #[test]
    fn a_language_model_has_the_same_gradients_to_the_bit() {
        let forward = |lm: &CausalLm, x: Tensor<2>| {
            let input = Ragged { values: x, offsets: Offsets::from_lengths(&[4, 1, 6]) };
            lm.logits(lm.forward_tails(&input, &[2, 1, 6], Dropout::new(DROPOUT, 3)))
        };
        check(language_model(), [11, 16], CausalLm::recompute, forward);
    }

    #[test]
    fn encoders_and_connectors_have_the_same_gradients_to_the_bit() {
        let init = Init::new(1, &cpu());
        let (d_model, n_layers, n_heads, d_ff) = (8, 2, 2, 12);
        let lora = LoraConfig { rank: 2, alpha: 2.0, targets: vec!["layers".into()], rslora: true };
        let conformer = ConformerConfig { d_model, n_layers, n_heads, d_ff, kernel: 3 };
        let whisper = WhisperEncoderConfig { d_model, n_layers, n_heads, d_ff, max_frames: 20 };
        let wav2vec2: Wav2vec2EncoderConfig = serde_json::from_value(serde_json::json!({
            "d_model": 8, "n_layers": 2, "n_heads": 2, "d_ff": 12, "conv_dims": [6],
            "conv_kernels": [2], "conv_strides": [1], "position_kernel": 4, "position_groups": 2,
        }))
        .unwrap();
        let samples = EncoderConfig::Wav2vec2(wav2vec2);
        let features = [EncoderConfig::Conformer(conformer), EncoderConfig::Whisper(whisper)];
        for (config, width) in features.into_iter().map(|c| (c, 4)).chain([(samples, 1)]) {
            let mut encoder = config.init(width, &init);
            attach(&mut encoder, "", &lora, 2);
            check(encoder, [31, width], crate::encoder::Encoder::recompute, |encoder, x| {
                let features = Ragged { values: x, offsets: Offsets::from_lengths(&[20, 11]) };
                encoder.forward(&features, Dropout::new(DROPOUT, 4)).values
            });
        }
        let connectors = [
            serde_json::json!({
                "kind": "slm", "reduction": 2, "reduce": "stack", "d_hidden": 8, "n_layers": 2, "n_heads": 2, "d_ff": 12,
            }),
            serde_json::json!({
                "kind": "q_former", "n_queries": 3, "d_hidden": 8, "n_layers": 2, "n_heads": 2, "d_ff": 12,
            }),
            serde_json::json!({
                "kind": "window_q_former", "window": 2, "d_hidden": 8, "n_layers": 2, "n_heads": 2, "d_ff": 12,
            }),
        ];
        for config in connectors {
            let config: ConnectorConfig = serde_json::from_value(config).unwrap();
            let mut connector = config.init(Widths { d_encoder: 4, d_model: 6 }, &init);
            attach(&mut connector, "", &lora, 2);
            check(connector, [9, 4], crate::connector::Connector::recompute, |connector, x| {
                let frames = Ragged { values: x, offsets: Offsets::from_lengths(&[5, 4]) };
                let input = ConnectorInput::frames(frames);
                connector.forward(&input, Dropout::new(DROPOUT, 5)).vectors.values
            });
        }
    }

    #[test]
    fn without_gradients_nothing_changes() {
        let mut lm = language_model();
        let x = random([5, 16], 3).tensor(&cpu());
        let run = |lm: &CausalLm| {
            let input = Ragged { values: x.clone(), offsets: Offsets::from_lengths(&[5]) };
            bits(lm.forward(&input, &[], Dropout::OFF).last.inner())
        };
        let expected = run(&lm);
        lm.recompute(true);
        assert_eq!(run(&lm), expected);
        // Nothing learns: no graph, and the same values.
        let frozen = set_trained(to_autodiff(lm), |_| false);
        assert_eq!(run(&frozen), expected);
    }
}
