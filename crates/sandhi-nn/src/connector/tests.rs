//! What holds for every connector whose length is known beforehand.

use std::collections::BTreeMap;

use burn::{module::Param, tensor::FloatDType};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::json;

use super::*;
use crate::{
    ops::testing::{Case, cpu, random, to_vec},
    ragged::Offsets,
    weights::{self, NamedTensor, ParameterMap, Weights, map_parameters, parameters, to_autodiff},
};

const WIDTHS: Widths = Widths { d_encoder: 6, d_model: 10 };

/// One of every kind, by name; the golden fixture has those of its names.
fn configs() -> BTreeMap<&'static str, ConnectorConfig> {
    let configs = [
        (
            "slm",
            json!({ "kind": "slm", "reduction": 3, "reduce": "stack", "d_hidden": 8, "n_layers": 1,
                "n_heads": 2, "d_ff": 12 }),
        ),
        ("stack_mlp", json!({ "kind": "stack_mlp", "reduction": 3, "d_hidden": 7 })),
        (
            "stack_mlp_drop",
            json!({ "kind": "stack_mlp", "reduction": 3, "d_hidden": 7, "remainder": "drop" }),
        ),
        ("stack_swiglu_mid", json!({ "kind": "stack_swiglu", "reduction": 4, "d_hidden": 7 })),
        (
            "stack_swiglu_post",
            json!({ "kind": "stack_swiglu", "reduction": 4, "d_hidden": 7, "norm": "post",
                "norm_init": 0.4 }),
        ),
        ("conv", json!({ "kind": "conv", "n_layers": 2, "kernel": 5, "d_bottleneck": 4 })),
        (
            "q_former",
            json!({ "kind": "q_former", "n_queries": 5, "d_hidden": 8, "n_layers": 3, "n_heads": 2,
                "d_ff": 12, "cross_attention_frequency": 2 }),
        ),
        (
            "window_q_former",
            json!({ "kind": "window_q_former", "window": 4, "n_queries": 2, "d_hidden": 8,
                "n_layers": 2, "n_heads": 2, "d_ff": 12 }),
        ),
        (
            "window_q_former_one",
            json!({ "kind": "window_q_former", "window": 3, "d_hidden": 8, "n_layers": 2,
                "n_heads": 2, "d_ff": 12 }),
        ),
    ];
    configs.map(|(name, config)| (name, serde_json::from_value(config).expect(name))).into()
}

fn run(connector: &Connector, values: Tensor<2>, lengths: &[usize]) -> Ragged {
    let frames = Ragged { values, offsets: Offsets::from_lengths(lengths) };
    connector.forward(&ConnectorInput::frames(frames), Dropout::OFF).vectors
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn lengths_are_those_of_the_forward_pass(lengths in prop::collection::vec(0..14_usize, 0..5)) {
        for (name, config) in configs() {
            let connector = config.init(WIDTHS, &Init::new(2, &cpu()));
            let n_frames = lengths.iter().sum();
            let vectors = run(&connector, random([n_frames, 6], 1).tensor(&cpu()), &lengths);
            let expected: Vec<Length> = lengths.iter().map(|&n| config.length(n)).collect();
            let found: Vec<Length> =
                vectors.offsets.lengths().into_iter().map(Length::Exact).collect();
            prop_assert_eq!(found, expected, "{}", name);
            prop_assert_eq!(vectors.values.dims(), [vectors.offsets.n_rows(), 10], "{}", name);
        }
    }
}

#[test]
fn lengths_at_the_edges_by_hand() {
    let configs = configs();
    let check = |name: &str, expected: &[(usize, usize)]| {
        for &(n_frames, n_vectors) in expected {
            let found = configs[name].length(n_frames);
            assert_eq!(found, Length::Exact(n_vectors), "{name} of {n_frames}");
        }
    };
    // k = 3, 3, 4, 4, 4 and 3 frames a group.
    check("stack_mlp", &[(0, 0), (1, 1), (2, 1), (3, 1), (4, 2)]);
    check("stack_mlp_drop", &[(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (6, 2)]);
    check("stack_swiglu_mid", &[(0, 0), (1, 1), (3, 1), (4, 1), (5, 2)]);
    check("conv", &[(0, 0), (1, 1), (3, 1), (4, 1), (5, 2)]);
    check("window_q_former", &[(0, 0), (1, 2), (3, 2), (4, 2), (5, 4)]);
    check("window_q_former_one", &[(0, 0), (1, 1), (2, 1), (3, 1), (4, 2)]);
    check("q_former", &[(0, 5), (1, 5), (1000, 5)]);
}

#[test]
fn strides_by_hand() {
    let strides: Vec<_> = configs().into_iter().map(|(name, c)| (name, c.stride())).collect();
    let expected = [
        ("conv", Some(4)),
        ("q_former", None),
        ("slm", Some(3)),
        ("stack_mlp", Some(3)),
        ("stack_mlp_drop", Some(3)),
        ("stack_swiglu_mid", Some(4)),
        ("stack_swiglu_post", Some(4)),
        ("window_q_former", None),
        ("window_q_former_one", Some(3)),
    ];
    assert_eq!(strides, expected);
}

#[test]
fn an_utterance_does_not_know_its_batch() {
    let lengths = [0, 1, 2, 3, 4, 5, 40, 0, 7, 300];
    let offsets = Offsets::from_lengths(&lengths);
    let x = random([offsets.n_rows(), 6], 1);
    for (name, config) in configs() {
        let connector = config.init(WIDTHS, &Init::new(2, &cpu()));
        let together = run(&connector, x.tensor(&cpu()), &lengths);
        let rows: Vec<Vec<f32>> = to_vec(together.values).chunks(10).map(<[f32]>::to_vec).collect();
        for (rows_in, rows_out) in offsets.iter().zip(together.offsets.iter()) {
            let alone = run(&connector, x.rows(rows_in.clone()).tensor(&cpu()), &[rows_in.len()]);
            let alone: Vec<u32> = to_vec(alone.values).into_iter().map(f32::to_bits).collect();
            let together: Vec<u32> =
                rows[rows_out].concat().into_iter().map(f32::to_bits).collect();
            assert_eq!(alone, together, "{name}, frames {rows_in:?}");
        }
    }
}

/// The gradients of `sum(vectors * loss_weights)` by name, and that of the frames.
fn gradients(
    connector: Connector,
    frames: Tensor<2>,
    lengths: &[usize],
    loss_weights: Tensor<2>,
) -> (BTreeMap<String, Vec<f32>>, Vec<f32>) {
    struct Collect(burn::tensor::Gradients, BTreeMap<String, Vec<f32>>);
    impl ParameterMap for Collect {
        fn map<const D: usize>(&mut self, name: &str, p: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if let Some(gradient) = p.val().grad(&self.0) {
                self.1.insert(name.to_owned(), weights::host(gradient));
            }
            p
        }
    }
    let connector = to_autodiff(connector);
    let frames = frames.autodiff().require_grad();
    let vectors = run(&connector, frames.clone(), lengths).values;
    let found = (vectors * loss_weights.autodiff()).sum().backward();
    let of_frames = weights::host(frames.grad(&found).expect("frames are a leaf"));
    let mut collect = Collect(found, BTreeMap::new());
    map_parameters(connector, &mut collect);
    (collect.1, of_frames)
}

#[test]
fn every_parameter_learns() {
    for (name, config) in configs() {
        let connector = config.init(WIDTHS, &Init::new(2, &cpu()));
        let lengths = [4, 9];
        let n_vectors = lengths.map(|n| config.length(n).bound()).iter().sum();
        let x = random([13, 6], 1).tensor(&cpu());
        let (found, of_frames) =
            gradients(connector.clone(), x, &lengths, random([n_vectors, 10], 3).tensor(&cpu()));
        let named: Vec<String> = parameters(&connector).into_iter().map(|p| p.name).collect();
        assert!(of_frames.iter().any(|g| g.abs() > 1e-3), "{name}: the frames");
        for parameter in named {
            let gradient = &found[&parameter];
            // The same score more for every key changes no softmax (rotary positions make another of it), and one query
            // has no choice among queries.
            let still = name.contains("q_former") && parameter.ends_with("k_proj.bias")
                || name == "window_q_former_one"
                    && ["self_attn.q_proj", "self_attn.k_proj"]
                        .iter()
                        .any(|p| parameter.contains(p));
            let largest = gradient.iter().fold(0.0_f32, |m, g| m.max(g.abs()));
            assert_eq!(largest > 1e-5, !still, "{name}: {parameter} has {largest}");
        }
    }
}

#[test]
fn gradients_of_frames_match_differences() {
    for (_, config) in configs() {
        // Random values between the knees of ReLU, by seed: differences over one are no gradient.
        let connector = to_autodiff(config.init(WIDTHS, &Init::new(2, &cpu())));
        let lengths = [4, 0, 1, 3];
        let plain = connector.clone().valid();
        Case::new().input(random([8, 6], 4)).check_differences(|t| {
            let x = t.rows(0);
            let connector = if x.device().is_autodiff() { &connector } else { &plain };
            run(connector, x, &lengths).values
        });
    }
}

/// Vectors and all gradients on a device, with a type of number, are those of the CPU's fused operations.
fn every_connector_agrees_on(device: &Device, dtype: FloatDType) {
    struct Cast(FloatDType);
    impl ParameterMap for Cast {
        fn map<const D: usize>(&mut self, _: &str, p: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, value, mapper) = p.consume();
            Param::from_mapped_value(id, value.cast(self.0), mapper)
        }
    }
    let lengths = [4, 0, 1, 9];
    for (name, config) in configs() {
        let n_vectors: usize = lengths.iter().map(|&n| config.length(n).bound()).sum();
        let everything = |device: &Device, dtype: FloatDType| {
            let connector = config.init(WIDTHS, &Init::new(2, device));
            let connector = map_parameters(connector, &mut Cast(dtype));
            let tensor = |rows, width, seed| random([rows, width], seed).tensor(device).cast(dtype);
            let vectors = run(&connector, tensor(14, 6, 4), &lengths).values;
            let loss_weights = tensor(n_vectors, 10, 3);
            let (mut all, frames) = gradients(connector, tensor(14, 6, 4), &lengths, loss_weights);
            all.insert("vectors".into(), weights::host(vectors));
            all.insert("frames".into(), frames);
            all
        };
        let expected = everything(&cpu(), FloatDType::F32);
        let found = everything(device, dtype);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (part, expected) in &expected {
            let worst = difference(&found[part], expected);
            assert!(worst < 1e-3, "{name}: {part} differs by {worst}");
        }
    }
}

#[test]
fn every_connector_agrees_in_double_precision() {
    every_connector_agrees_on(&cpu(), FloatDType::F64);
}

#[cfg(feature = "wgpu")]
#[test]
fn every_connector_agrees_on_the_gpu() {
    every_connector_agrees_on(&Device::wgpu(Default::default()), FloatDType::F32);
}

/// Connectors by the authors' layers in PyTorch; made by `tools/golden/connectors.py`.
struct Golden(BTreeMap<String, NamedTensor>);

impl Golden {
    fn load() -> Self {
        let file =
            SafeTensors::deserialize(include_bytes!("../../tests/golden/connectors.safetensors"))
                .expect("a fixture of this crate");
        let tensors = file.tensors().into_iter().map(|(name, view)| {
            let values = view.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            (name, NamedTensor { shape: view.shape().to_vec(), values: values.collect() })
        });
        Self(tensors.collect())
    }

    fn below(&self, prefix: &str) -> Weights {
        let below = self.0.iter().filter_map(|(name, tensor)| {
            Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()))
        });
        below.collect()
    }
}

/// The largest difference over the largest value, or over 0.1 where all are small: a gradient that is 0 is rounding.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().fold(0.1_f32, |m, x| m.max(x.abs()));
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / size
}

#[test]
fn vectors_and_gradients_are_those_of_the_published_layers() {
    let golden = Golden::load();
    for (name, config) in configs() {
        if name == "slm" {
            continue;
        }
        let connector = config.init(WIDTHS, &Init::new(2, &cpu()));
        let weights = golden.below(&format!("{name}/weight/"));
        let connector = weights::load(connector, weights).unwrap_or_else(|e| panic!("{name}: {e}"));
        let reference = golden.below(&format!("{name}/"));
        let tensor = |part: &str| {
            let NamedTensor { shape, values } = reference[part].clone();
            Tensor::<2>::from_data(TensorData::new(values, shape), &cpu())
        };
        let lengths: Vec<usize> = reference["lengths"].values.iter().map(|&n| n as usize).collect();
        let found = run(&connector, tensor("frames"), &lengths);
        let n_vectors: Vec<f32> = found.offsets.lengths().iter().map(|&n| n as f32).collect();
        assert_eq!(n_vectors, reference["n_vectors"].values, "{name}");
        let worst = difference(&to_vec(found.values), &reference["vectors"].values);
        assert!(worst < 1e-5, "{name}: vectors differ by {worst}");

        let (found, of_frames) =
            gradients(connector.clone(), tensor("frames"), &lengths, tensor("loss_weights"));
        let worst = difference(&of_frames, &reference["gradient_of_frames"].values);
        assert!(worst < 1e-4, "{name}: gradients of frames differ by {worst}");
        let gradients = golden.below(&format!("{name}/gradient/"));
        assert_eq!(gradients.len(), parameters(&connector).len(), "{name}");
        for (parameter, expected) in gradients {
            // As they are held: weights of linear layers are turned on their way to files.
            let turned = connector_linears(&connector).contains(&parameter);
            let values = if turned { transposed(&expected) } else { expected.values };
            let worst = difference(&found[&parameter], &values);
            assert!(worst < 1e-4, "{name}: gradients of {parameter} differ by {worst}");
        }
    }
}

/// The names of the weights of linear layers.
fn connector_linears(connector: &Connector) -> Vec<String> {
    let mut connector = connector.clone();
    connector.linears().into_iter().map(|(name, _)| format!("{name}.weight")).collect()
}

fn transposed(tensor: &NamedTensor) -> Vec<f32> {
    let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
    (0..columns).flat_map(|c| (0..rows).map(move |r| tensor.values[r * columns + c])).collect()
}

#[test]
fn an_unknown_field_is_refused() {
    for (name, config) in configs() {
        let mut value = serde_json::to_value(&config).unwrap();
        assert_eq!(serde_json::from_value::<ConnectorConfig>(value.clone()).unwrap(), config);
        value["strid"] = json!(1);
        let error = serde_json::from_value::<ConnectorConfig>(value).unwrap_err().to_string();
        assert!(error.contains("strid"), "{name}: {error}");
        assert!(config.problems().is_empty(), "{name}: {:?}", config.problems());
    }
}
