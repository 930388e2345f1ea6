//! Every operation gives the same values and gradients off the fused path: with another type of
//! number in the default test run, and on a GPU (or its software stand-in) with the feature `wgpu`.

use burn::tensor::{DType, Device, FloatDType, Tensor};

use super::{testing::*, *};
use crate::ragged::Offsets;

type Operation = Box<dyn Fn(&[Tensor<2>]) -> Tensor<2>>;

/// A name, inputs and what to do with them.
struct Example {
    name: &'static str,
    inputs: Vec<Matrix>,
    operation: Operation,
}

fn example(
    name: &'static str,
    shapes: &[[usize; 2]],
    operation: impl Fn(&[Tensor<2>]) -> Tensor<2> + 'static,
) -> Example {
    let inputs = shapes.iter().zip(1..).map(|(&shape, seed)| random(shape, seed)).collect();
    Example { name, inputs, operation: Box::new(operation) }
}

/// The only row of a matrix.
fn vector(x: &Tensor<2>) -> Tensor<1> {
    let [_, width] = x.dims();
    x.clone().reshape([width])
}

fn examples() -> Vec<Example> {
    let offsets = Offsets::from_lengths(&[5, 0, 1, 6]);
    let attention = |mask| {
        let mut layout = AttentionLayout::of_sequences(4, 2, 6, &offsets, mask);
        layout.keys = Offsets::from_lengths(&[7, 0, 1, 6]).iter().collect();
        move |t: &[Tensor<2>]| ragged_attention(t[0].clone(), t[1].clone(), t[2].clone(), &layout)
    };
    let heads = [[12, 24], [14, 12], [14, 12]];
    let (of_conv, of_unfold, of_ctc) = (offsets.clone(), offsets.clone(), offsets.clone());
    vec![
        example("rms_norm", &[[12, 10], [1, 10]], |t| rms_norm(t[0].clone(), vector(&t[1]), 1e-5)),
        example("layer_norm", &[[12, 10], [1, 10], [1, 10]], |t| {
            layer_norm(t[0].clone(), vector(&t[1]), vector(&t[2]), 1e-5)
        }),
        example("silu", &[[12, 10]], |t| silu(t[0].clone())),
        example("gelu", &[[12, 10]], |t| gelu(t[0].clone())),
        example("gelu_tanh", &[[12, 10]], |t| gelu_tanh(t[0].clone())),
        example("glu", &[[12, 10]], |t| glu(t[0].clone())),
        example("swiglu", &[[12, 10], [12, 10]], |t| swiglu(t[0].clone(), t[1].clone())),
        example("cross_entropy", &[[4, 10]], |t| {
            cross_entropy(t[0].clone(), &[3, 99, 0, 9], &[1.0, 0.0, 0.5, 2.0]).reshape([1, 1])
        }),
        example("attention, full", &heads, attention(Mask::Full)),
        example("attention, causal", &heads, attention(Mask::Causal)),
        example("attention, window", &heads, attention(Mask::Window(3))),
        example("attention, ranges", &heads, {
            let ranges = [0..1, 0..7, 3..5, 6..7, 2..6, 0..1, 0..1, 0..2, 5..6, 0..6, 1..4, 2..3];
            attention(Mask::Ranges(ranges.into()))
        }),
        example("max_pool", &[[6, 5]], |t| max_pool(t[0].clone(), &[3..6, 0..1, 1..3])),
        example("smooth", &[[12, 5], [12, 1]], |t| {
            smooth(t[0].clone(), t[1].clone(), &Offsets::from_lengths(&[5, 0, 1, 6]))
        }),
        example("pool", &[[5, 10], [6, 1]], |t| {
            let of_pool = Offsets::from_lengths(&[3, 0, 1, 2]);
            pool(t[0].clone(), t[1].clone(), &[0, 1, 3, 3, 4, 0], &of_pool)
        }),
        example("rotary", &[[3, 24]], |t| rotary(t[0].clone(), &[0, 4, 1], 4, Rope::new(1e4))),
        example("dropout", &[[12, 10]], |t| dropout(t[0].clone(), 0.3, 5)),
        example("depthwise_conv", &[[12, 10], [3, 10]], move |t| {
            depthwise_conv(t[0].clone(), t[1].clone(), &of_conv)
        }),
        example("unfold", &[[12, 10]], move |t| unfold(t[0].clone(), &of_unfold, 3, 2, 1).0),
        example("transport", &[[7, 6], [5, 6]], |t| {
            use sandhi_align::transport::{Batch, Loss, Masses, Newton, Solver, Sparsity, Through};
            let batch = Batch::new(&[0, 4, 7], &[0, 3, 5]).unwrap();
            let problems = TransportProblems {
                batch: &batch,
                rows: Masses::UNIFORM,
                columns: Masses::UNIFORM,
                solver: Solver::Newton(Newton { epsilon: 0.2, ..Newton::default() }),
                loss: Loss { sparsity: Sparsity::Peak, weight: 0.1, through: Through::Implicit },
                order_weight: 0.0,
                pad: false,
            };
            let costs = cosine_costs(t[0].clone(), t[1].clone(), &batch);
            transport_loss(costs, &problems).sum.reshape([1, 1])
        }),
        example("distances, forward sum and binarization", &[[7, 6], [5, 6]], |t| {
            let batch = sandhi_align::transport::Batch::new(&[0, 4, 7], &[0, 3, 5]).unwrap();
            let scores = distances(t[0].clone(), t[1].clone(), &batch).neg();
            let sum = forward_sum_loss(scores.clone(), &batch, Some(-1.0), &[1.0, 0.5]);
            (sum + binarization_loss(scores, &batch, &[0.5, 1.0])).reshape([1, 1])
        }),
        example("path sum of log-probabilities", &[[5, 6]], |t| {
            let batch = sandhi_align::transport::Batch::new(&[0, 4, 7], &[0, 3, 5]).unwrap();
            let units = [0, 5, 2, 2, 1, 3, 5];
            let cells: Vec<u32> = (0..batch.len())
                .flat_map(|i| batch.rows(i).map(move |row| (i, row)))
                .flat_map(|(i, row)| batch.columns(i).map(move |c| (c * 6) as u32 + units[row]))
                .collect();
            let log_probs = burn::tensor::activation::log_softmax(t[0].clone(), 1);
            let cells = embedding(log_probs.reshape([30, 1]), &cells);
            path_sum_loss(cells, &batch, &[1.0, 0.5]).reshape([1, 1])
        }),
        example("ctc_loss", &[[12, 5]], move |t| {
            let targets = [vec![1, 1, 3], vec![], vec![2, 2], vec![4]];
            ctc_loss(t[0].clone(), &of_ctc, &targets, 0, &[1.0, 1.0, 1.0, 0.5]).reshape([1, 1])
        }),
        example("linear", &[[12, 10], [10, 7], [1, 7]], |t| {
            linear(t[0].clone(), t[1].clone(), Some(vector(&t[2])))
        }),
        example("linear, one row", &[[1, 10], [7, 10]], |t| {
            linear(t[0].clone(), t[1].clone().transpose(), None)
        }),
        example("embedding", &[[9, 10]], |t| embedding(t[0].clone(), &[8, 1, 8, 0])),
    ]
}

/// The output, and the gradients of its weighted sum.
fn run(example: &Example, device: &Device, dtype: DType) -> Vec<Vec<f32>> {
    let dtype = FloatDType::from(dtype);
    let leaf = |matrix: &Matrix| matrix.tensor(device).cast(dtype).require_grad();
    let leaves: Vec<_> = example.inputs.iter().map(leaf).collect();
    let output = (example.operation)(&leaves);
    let weights = random(output.dims(), 77).tensor(device).cast(dtype);
    let host = |x: Tensor<2>| to_vec(x.cast(FloatDType::F32));
    let mut all = vec![host(output.clone().inner())];
    let gradients = (output * weights).sum().backward();
    all.extend(leaves.iter().map(|leaf| host(leaf.grad(&gradients).expect("a leaf of the graph"))));
    all
}

fn every_operation_agrees_on(device: &Device, dtype: DType) {
    let check = |name: &str, part: usize, values: &[f32], expected: &[f32]| {
        assert_eq!(values.len(), expected.len(), "{name}, part {part}");
        for (i, (value, expected)) in values.iter().zip(expected).enumerate() {
            assert!(
                (value - expected).abs() <= 1e-4 * expected.abs().max(1.0),
                "{name}, part {part} (0 is the output), element {i}: {value}, not {expected}"
            );
        }
    };
    let tracking = device.clone().autodiff();
    for example in examples() {
        let expected = run(&example, &cpu().autodiff(), DType::F32);
        let found = run(&example, &tracking, dtype);
        for (part, (values, expected)) in found.iter().zip(&expected).enumerate() {
            check(example.name, part, values, expected);
        }
    }

    let step = AdamStep { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, step: 3 };
    let update = |device: &Device, dtype: DType| {
        let tensor = |seed| random([7, 9], seed).tensor(device).cast(FloatDType::from(dtype));
        let (param, m, v) = adamw(tensor(1), tensor(2), tensor(3), tensor(4).square(), &step);
        let norm = sum_squares(&param) as f32;
        let written = write_rows(m.clone(), param.clone().narrow(0, 0, 2), &[6, 2]);
        let mut all = vec![vec![norm]];
        all.extend([param, m, v, written].map(|x| to_vec(x.cast(FloatDType::F32))));
        all
    };
    let expected = update(&cpu(), DType::F32);
    for (part, (values, expected)) in update(device, dtype).iter().zip(&expected).enumerate() {
        check("norm, adamw, write_rows", part, values, expected);
    }
}

#[test]
fn every_operation_agrees_in_double_precision() {
    every_operation_agrees_on(&cpu(), DType::F64);
}

#[cfg(feature = "wgpu")]
#[test]
fn every_operation_agrees_on_the_gpu() {
    every_operation_agrees_on(&Device::wgpu(Default::default()), DType::F32);
}

/// Training and decoding of whole models, on a GPU and on the CPU.
mod training {
    use burn::{
        module::{Module, Param},
        optim::GradientsParams,
    };

    use super::*;
    #[cfg(feature = "wgpu")]
    use crate::{
        connector::{Connector, ConnectorConfig, ConnectorInput, Widths},
        encoder::{CtcHead, CtcHeadConfig, Encoder, EncoderConfig},
        transformer::CausalLm,
    };
    use crate::{
        init::Init,
        ragged::Ragged,
        transformer::{Dropout, TransformerConfig},
        weights::{self, ParameterMap},
    };

    /// Everything that an SLM run has, tiny: encoder, CTC head, adapter, language model.
    #[cfg(feature = "wgpu")]
    #[derive(Module, Debug)]
    struct Net {
        encoder: Encoder,
        head: CtcHead,
        connector: Connector,
        lm: CausalLm,
    }

    fn config<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).expect("a configuration of this crate")
    }

    #[cfg(feature = "wgpu")]
    fn net(device: &Device) -> Net {
        let init = Init::new(5, device);
        let encoder: EncoderConfig = config(serde_json::json!({
            "kind": "conformer", "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 24, "kernel": 3,
        }));
        let head: CtcHeadConfig = config(serde_json::json!({ "steps_per_frame": 2 }));
        let connector: ConnectorConfig = config(serde_json::json!({
            "kind": "slm", "reduction": 2, "reduce": "stack", "d_hidden": 16, "n_layers": 1,
            "n_heads": 2, "d_ff": 24,
        }));
        let lm: TransformerConfig = config(serde_json::json!({
            "d_model": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_ff": 24, "qk_norm": true,
            "tie_embeddings": true,
        }));
        Net {
            encoder: encoder.init(8, &init.child("encoder")),
            head: head.init(16, 5, &init.child("head")),
            connector: connector
                .init(Widths { d_encoder: 16, d_model: 16 }, &init.child("connector")),
            lm: lm.init(20, &init.child("lm")),
        }
    }

    /// A first step of AdamW with these gradients.
    struct Update(GradientsParams, AdamStep);

    impl ParameterMap for Update {
        fn map<const D: usize>(
            &mut self,
            _name: &str,
            param: Param<Tensor<D>>,
        ) -> Param<Tensor<D>> {
            let Some(grad) = self.0.remove::<D>(param.id) else { return param };
            let (id, value, mapper) = param.consume();
            let shape = value.dims();
            let n: usize = shape.iter().product();
            let zeros = Tensor::<1>::zeros([n], &value.device().inner());
            let value = value.inner().reshape([n]);
            let (value, ..) = adamw(value, grad.reshape([n]), zeros.clone(), zeros, &self.1);
            Param::from_mapped_value(id, value.reshape(shape).autodiff().require_grad(), mapper)
        }
    }

    /// The loss of two utterances with answers, and the weights after one step.
    #[cfg(feature = "wgpu")]
    fn step(device: &Device) -> (f32, weights::Weights) {
        let device = &device.clone().autodiff();
        let net = net(device);
        let features = Ragged {
            values: random([64, 8], 3).tensor(device),
            offsets: Offsets::from_lengths(&[40, 24]),
        };
        let frames = net.encoder.forward(&features, Dropout::OFF);
        let symbols = net.head.forward(&frames);
        let ctc =
            ctc_loss(symbols.values, &symbols.offsets, &[vec![1, 2, 2], vec![4]], 0, &[0.5, 0.5]);
        let vectors = net.connector.forward(&ConnectorInput::frames(frames), Dropout::OFF).vectors;
        let hidden = net.lm.forward(&vectors, &[], Dropout::OFF).last;
        let logits = net.lm.logits(hidden);
        let [n, _] = logits.dims();
        let targets: Vec<u32> = (0..n as u32).map(|i| i * 7 % 20).collect();
        let loss = cross_entropy(logits, &targets, &vec![1.0 / n as f32; n]) + ctc;
        let value = to_vec(loss.clone().inner())[0];
        let grads = GradientsParams::from_grads(loss.backward(), &net);
        // With a large eps the step is proportional to the gradient, so that it is compared too.
        let step =
            AdamStep { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1.0, weight_decay: 0.1, step: 1 };
        (value, weights::weights(&weights::map_parameters(net, &mut Update(grads, step))))
    }

    /// What the language model below learns by heart.
    const TEXT: [u32; 10] = [1, 5, 9, 13, 17, 2, 6, 10, 14, 18];

    /// First and last loss of a language model that learns [`TEXT`], and how it goes on from its first token.
    fn learned(device: &Device) -> (f32, f32, Vec<u32>) {
        let lm: TransformerConfig = config(serde_json::json!({
            "d_model": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_ff": 24, "qk_norm": true,
            "tie_embeddings": true,
        }));
        let mut lm = lm.init(20, &Init::new(5, &device.clone().autodiff()));
        // With gradients of its own alone, the step is as long for every weight.
        let step =
            AdamStep { lr: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0, step: 1 };
        let mut losses = Vec::new();
        for _ in 0..60 {
            let n = TEXT.len() - 1;
            let offsets = Offsets::from_lengths(&[n]);
            let input = Ragged { values: lm.embed(&TEXT[..n]), offsets };
            let logits = lm.logits(lm.forward(&input, &[], Dropout::OFF).last);
            let loss = cross_entropy(logits, &TEXT[1..], &vec![1.0 / n as f32; n]);
            losses.push(to_vec(loss.clone().inner())[0]);
            let grads = GradientsParams::from_grads(loss.backward(), &lm);
            lm = weights::map_parameters(lm, &mut Update(grads, step));
        }
        let lm = lm.valid();
        let (mut cache, mut said) = (lm.cache(&[TEXT.len()]), vec![TEXT[0]]);
        while said.len() < TEXT.len() {
            let last = [said[said.len() - 1]];
            let input = Ragged { values: lm.embed(&last), offsets: Offsets::from_lengths(&[1]) };
            let scores = to_vec(lm.logits(lm.extend(&input, &[0], &mut cache)));
            let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
            said.push(best.expect("there are tokens") as u32);
        }
        (losses[0], losses[losses.len() - 1], said)
    }

    fn check_learned(device: &Device) {
        let (first, last, said) = learned(device);
        assert!(last < 0.1 * first, "the loss went from {first} to {last}");
        assert_eq!(said, TEXT);
    }

    #[test]
    fn a_model_says_what_it_has_learned() {
        check_learned(&cpu());
    }

    #[cfg(feature = "wgpu")]
    #[test]
    fn a_model_says_what_it_has_learned_on_the_gpu() {
        check_learned(&Device::wgpu(Default::default()));
    }

    #[cfg(feature = "wgpu")]
    #[test]
    fn a_training_step_agrees_on_the_gpu() {
        let (expected_loss, expected) = step(&cpu());
        let (loss, found) = step(&Device::wgpu(Default::default()));
        assert!((loss - expected_loss).abs() < 1e-4, "loss {loss}, not {expected_loss}");
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, tensor) in &expected {
            for (i, (value, expected)) in found[name].values.iter().zip(&tensor.values).enumerate()
            {
                assert!((value - expected).abs() < 1e-4, "{name}[{i}]: {value}, not {expected}");
            }
        }
    }
}
