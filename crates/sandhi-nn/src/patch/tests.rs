use burn::module::ParamId;
use proptest::prelude::*;

use super::*;
use crate::{
    init::{Init, stream},
    ragged::Ragged,
    transformer::{CausalLm, TransformerConfig},
    weights::{Weights, host, load, load_where, parameters, to_autodiff, weights},
};

const N_TOKENS: usize = 24;
/// Tokens from here on are units.
const FIRST_UNIT: u32 = 12;

fn config(options: serde_json::Value) -> PatchLmConfig {
    let mut config = serde_json::json!({
        "d_local": 8, "d_global": 12, "n_queries": 2, "cross_heads": 2,
        "encoder": { "n_layers": 1, "n_heads": 2, "d_ff": 12, "window": 6 },
        "global": { "n_layers": 2, "n_heads": 3, "d_ff": 16 },
        "decoder": { "n_layers": 2, "n_heads": 2, "d_ff": 12, "window": 5 },
    });
    let serde_json::Value::Object(options) = options else { panic!("options are a table") };
    config.as_object_mut().unwrap().extend(options);
    serde_json::from_value(config).unwrap()
}

fn model(options: serde_json::Value) -> PatchLm {
    config(options).init(N_TOKENS, &Init::new(5, &Device::flex()))
}

fn is_alone(id: u32) -> bool {
    id < FIRST_UNIT
}

/// Units in patches of three, all else alone; known when it was read.
fn threes(ids: &[u32]) -> Vec<Closing> {
    let mut n_open = 0;
    let close = |&id: &u32| {
        if is_alone(id) {
            n_open = 0;
            return Closing::ALONE;
        }
        n_open = (n_open + 1) % 3;
        Closing { before: false, after: n_open == 0 }
    };
    ids.iter().map(close).collect()
}

/// Tokens with what a model wants to know of them.
struct Text {
    ids: Vec<u32>,
    closings: Vec<Closing>,
    alone: Vec<bool>,
    lengths: Vec<usize>,
}

impl Text {
    fn new(documents: &[Vec<u32>]) -> Self {
        let ids = documents.concat();
        Self {
            closings: documents.iter().flat_map(|ids| threes(ids)).collect(),
            alone: ids.iter().copied().map(is_alone).collect(),
            lengths: documents.iter().map(Vec::len).collect(),
            ids,
        }
    }

    fn documents(&self, model: &PatchLm) -> Documents<'_> {
        self.part(model, 0..self.ids.len(), &self.lengths)
    }

    fn part(
        &self,
        model: &PatchLm,
        rows: std::ops::Range<usize>,
        lengths: &[usize],
    ) -> Documents<'_> {
        let boundaries = if model.learns_boundaries() {
            Boundaries::Learned { alone: &self.alone[rows.clone()] }
        } else {
            Boundaries::Given(&self.closings[rows.clone()])
        };
        Documents { ids: &self.ids[rows], offsets: Offsets::from_lengths(lengths), boundaries }
    }
}

fn logits(model: &PatchLm, documents: &[Vec<u32>]) -> Vec<f32> {
    let text = Text::new(documents);
    let hidden = model.forward(&text.documents(model), Dropout::OFF).hidden;
    host(model.logits(hidden))
}

fn text_model() -> serde_json::Value {
    serde_json::to_value(TransformerConfig::tiny()).unwrap()
}

/// Around a text model, as it begins.
fn around_text(options: serde_json::Value) -> PatchLm {
    let mut config = serde_json::to_value(config(options)).unwrap();
    let fields = config.as_object_mut().unwrap();
    fields.retain(|name, _| name != "d_global" && name != "global");
    fields.insert("text".into(), text_model());
    let config: PatchLmConfig = serde_json::from_value(config).unwrap();
    config.init(N_TOKENS, &Init::new(5, &Device::flex()))
}

/// Around a text model after some training: what begins at 0 is not 0 any more.
fn begun(options: serde_json::Value) -> PatchLm {
    let mut model = around_text(options);
    let init = Init::new(6, &Device::flex());
    let text = model.text.as_mut().unwrap();
    text.gate = init.child("gate").normal(text.gate.dims(), 1.0);
    let head = model.lm_head.as_mut().unwrap();
    head.weight = init.child("head").normal(head.weight.dims(), 0.5);
    // Parameters are known by their paths.
    let weights = weights(&model);
    load(
        around_text(
            serde_json::json!({ "router": model.router.as_ref().map(|_| RouterConfig::default()) }),
        ),
        weights,
    )
    .unwrap()
}

fn kinds() -> Vec<PatchLm> {
    vec![
        begun(serde_json::json!({})),
        begun(serde_json::json!({ "router": {} })),
        model(serde_json::json!({})),
        model(serde_json::json!({
            "cross_window": 3, "tie_embeddings": true,
            "global": { "n_layers": 2, "n_heads": 3, "d_ff": 16, "window": 3 },
        })),
        model(serde_json::json!({
            "d_global": 16, "global": { "n_layers": 2, "n_heads": 4, "d_ff": 16 }, "router": {},
        })),
    ]
}

/// What any rule may tell: the first token is a patch, what is open may end before a token and with it.
fn any_closings(lengths: &[usize], mut seed: u64) -> Vec<Closing> {
    let mut draw = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33).is_multiple_of(3)
    };
    let closing = |(n, i): (&usize, usize)| match i % n {
        0 => Closing::ALONE,
        _ => Closing { before: draw(), after: draw() },
    };
    lengths.iter().flat_map(|n| (0..*n).map(move |i| (n, i))).map(closing).collect()
}

/// Documents that begin with a token that stands alone.
fn documents() -> impl Strategy<Value = Vec<Vec<u32>>> {
    let token = prop_oneof![1 => 1..FIRST_UNIT, 4 => FIRST_UNIT..N_TOKENS as u32];
    let document = prop::collection::vec(token, 0..14).prop_map(|mut ids| {
        ids.insert(0, 0);
        ids
    });
    prop::collection::vec(document, 1..4)
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Read at once, in parts of any length and token by token, tokens have the same logits.
    #[test]
    fn tokens_one_by_one_are_tokens_at_once(
        documents in documents(),
        step in 1_usize..4,
        seed: u64,
        by_rule: bool,
    ) {
        for model in kinds() {
            let mut text = Text::new(&documents);
            if !by_rule {
                text.closings = any_closings(&text.lengths, seed);
            }
            let whole = host(model.logits(model.forward(&text.documents(&model), Dropout::OFF).hidden));
            let mut state = model.start(&text.lengths);
            let mut parts = vec![Vec::new(); documents.len()];
            for from in (0..14).step_by(step) {
                // Sequences in another order, those that are at their end left out.
                let mut new = Text::new(&[]);
                let mut sequences = Vec::new();
                for i in (0..documents.len()).rev().filter(|&i| from < documents[i].len()) {
                    let first: usize = text.lengths[..i].iter().sum();
                    let rows = first + from..first + (from + step).min(text.lengths[i]);
                    new.ids.extend(&text.ids[rows.clone()]);
                    new.closings.extend(&text.closings[rows.clone()]);
                    new.alone.extend(&text.alone[rows.clone()]);
                    new.lengths.push(rows.len());
                    sequences.push(i);
                }
                if sequences.is_empty() {
                    break;
                }
                let output = model.extend(&new.documents(&model), &sequences, &mut state);
                let found = host(model.logits(output.hidden));
                let mut rest = found.as_slice();
                for (&i, n) in sequences.iter().zip(&new.lengths) {
                    let (own, others) = rest.split_at(n * N_TOKENS);
                    parts[i].extend_from_slice(own);
                    rest = others;
                }
            }
            prop_assert!(near(&parts.concat(), &whole));
        }
    }

    /// What follows a token changes nothing at it: no boundary is known before it was read.
    #[test]
    fn the_future_is_not_known(documents in documents(), other in documents()) {
        for model in kinds() {
            let ids = &documents[0];
            let whole = logits(&model, std::slice::from_ref(ids));
            for cut in 1..ids.len() {
                let changed = [&ids[..cut], &other[0][1..]].concat();
                let found = logits(&model, &[changed]);
                prop_assert!(near(&found[..cut * N_TOKENS], &whole[..cut * N_TOKENS]), "{cut}");
            }
        }
    }

    /// To the last bit.
    #[test]
    fn a_document_alone_is_a_document_among_others(documents in documents()) {
        for model in kinds() {
            let alone: Vec<f32> =
                documents.iter().flat_map(|ids| logits(&model, std::slice::from_ref(ids))).collect();
            prop_assert_eq!(alone, logits(&model, &documents));
        }
    }
}

#[test]
fn forks_go_on_as_whole_documents_do() {
    for model in kinds() {
        let heads = [vec![0, 3, 14, 15, 16, 17], vec![0, 2, 20]];
        let tails: [Vec<u32>; 3] = [vec![18, 4, 5], vec![13, 14, 1], vec![6]];
        let parents = [0, 1, 0];
        let text = Text::new(&heads);
        let mut state = model.start(&text.lengths);
        model.extend(&text.documents(&model), &[0, 1], &mut state);
        assert_eq!(state.n_tokens(0), 6);
        let whole: Vec<Vec<u32>> = parents
            .iter()
            .zip(&tails)
            .map(|(&i, tail)| [heads[i].clone(), tail.clone()].concat())
            .collect();
        let lengths: Vec<usize> = whole.iter().map(Vec::len).collect();
        let mut fork = state.fork(&parents, &lengths);
        // The part of every whole text that is new.
        let (all, mut new) = (Text::new(&whole), Text::new(&[]));
        let mut expected = Vec::new();
        let logits = logits(&model, &whole);
        for (i, span) in Offsets::from_lengths(&lengths).iter().enumerate() {
            let rows = span.end - tails[i].len()..span.end;
            new.ids.extend(&all.ids[rows.clone()]);
            new.closings.extend(&all.closings[rows.clone()]);
            new.alone.extend(&all.alone[rows.clone()]);
            new.lengths.push(rows.len());
            expected.extend_from_slice(&logits[rows.start * N_TOKENS..rows.end * N_TOKENS]);
        }
        let hidden = model.extend(&new.documents(&model), &[0, 1, 2], &mut fork).hidden;
        assert!(near(&host(model.logits(hidden)), &expected));
    }
}

/// The text model of [`around_text`] on its own, and the weights that it gives to it.
fn text_alone(seed: u64) -> (CausalLm, Weights) {
    let lm = TransformerConfig::tiny().init(N_TOKENS, &Init::new(seed, &Device::flex()));
    let name = |name: String| match name.strip_prefix("model.layers.") {
        Some(rest) => format!("global.layers.{rest}"),
        None => format!("text.{}", name.strip_prefix("model.").unwrap_or(&name)),
    };
    let given = weights(&lm).into_iter().map(|(old, tensor)| (name(old), tensor)).collect();
    (lm, given)
}

/// At the first step all that stands alone is predicted as the text model does, which sees a patch as the sum of its
/// tokens.
#[test]
fn it_begins_as_the_text_model() {
    let (lm, given) = text_alone(9);
    let names: Vec<String> = given.keys().cloned().collect();
    let model =
        load_where(around_text(serde_json::json!({})), given, |info| names.contains(&info.name))
            .unwrap();
    let of_lm = |rows: &[&[u32]]| {
        let rows = rows.iter().map(|ids| lm.embed(ids).sum_dim(0)).collect();
        let values: Tensor<2> = Tensor::cat(rows, 0);
        let offsets = Offsets::from_lengths(&[values.dims()[0]]);
        let hidden = lm.forward(&Ragged { values, offsets }, &[], Dropout::OFF).last;
        host(lm.logits(hidden))
    };
    let text = vec![0, 3, 5, 2, 8, 1];
    let alone: Vec<&[u32]> = text.chunks(1).collect();
    assert!(near(&logits(&model, std::slice::from_ref(&text)), &of_lm(&alone)));
    // Behind three units and one that was cut short.
    let found = logits(&model, &[vec![0, 4, 14, 15, 16, 17, 6, 7]]);
    let patches = of_lm(&[&[0], &[4], &[14, 15, 16], &[17], &[6], &[7]]);
    for (token, patch) in [(0, 0), (1, 1), (4, 2), (6, 4), (7, 5)] {
        let row = |values: &[f32], i: usize| values[i * N_TOKENS..(i + 1) * N_TOKENS].to_vec();
        assert!(near(&row(&found, token), &row(&patches, patch)), "{token}");
    }
    // Inside a patch nothing is predicted yet.
    assert!(found[2 * N_TOKENS..4 * N_TOKENS].iter().all(|logit| *logit == 0.0));
}

/// One step of the global transformer for a patch, however many units it has.
#[test]
fn a_patch_is_one_step() {
    let model = model(serde_json::json!({}));
    let text = Text::new(&[vec![0, 1, 14, 15, 16, 17, 18, 19, 2, 3], vec![0, 20, 21]]);
    let output = model.forward(&text.documents(&model), Dropout::OFF);
    // 0 | 1 | 14 15 16 | 17 18 19 | 2 | 3, and 0 with an open patch.
    assert_eq!(output.n_patches, [6, 1]);
    assert_eq!(output.patches.unwrap().dims(), [7, 12]);
    let mut state = model.start(&text.lengths);
    let output = model.extend(&text.documents(&model), &[0, 1], &mut state);
    assert_eq!(output.n_patches, [6, 1]);
    assert_eq!((state.n_patches(0), state.n_patches(1)), (6, 1));
}

/// The published shift lets the last unit of a run that ends early know it.
#[test]
fn the_published_shift_tells_that_a_run_ends() {
    let model = model(serde_json::json!({}));
    let ids = vec![0, 1, 14, 15, 2];
    let text = Text::new(std::slice::from_ref(&ids));
    let mut shifted = Text::new(&[ids]);
    shifted.closings[3].after = true;
    let logits = |text: &Text| {
        let hidden = model.forward(&text.documents(&model), Dropout::OFF).hidden;
        host(model.logits(hidden))
    };
    let (causal, published) = (logits(&text), logits(&shifted));
    let row = |values: &[f32], i: usize| values[i * N_TOKENS..(i + 1) * N_TOKENS].to_vec();
    assert!((0..3).all(|i| row(&causal, i) == row(&published, i)));
    assert_ne!(row(&causal, 3), row(&published, 3));
}

#[test]
fn ids_are_those_of_the_paths() {
    for model in kinds() {
        for parameter in parameters(&model) {
            let id = ParamId::from(stream(0, &parameter.name));
            assert_eq!(parameter.id, id, "{}", parameter.name);
        }
    }
}

#[test]
fn every_parameter_learns() {
    for model in kinds() {
        let model = to_autodiff(model);
        let text =
            Text::new(&[vec![0, 1, 14, 15, 16, 17, 18, 19, 2, 3], vec![0, 20, 21, 14, 5, 6]]);
        let output = model.forward(&text.documents(&model), Dropout::OFF);
        let targets: Vec<u32> = text.ids.iter().map(|id| (id * 7 + 1) % N_TOKENS as u32).collect();
        let weights = vec![1.0; targets.len()];
        let mut loss = ops::cross_entropy(model.logits(output.hidden), &targets, &weights);
        assert_eq!(output.ratio.is_some(), model.learns_boundaries());
        if let Some(ratio) = output.ratio {
            loss = loss + ratio;
        }
        let gradients = loss.backward();
        let learned = burn::optim::GradientsParams::from_grads(gradients, &model);
        assert_eq!(learned.len(), parameters(&model).len());
        for parameter in parameters(&model) {
            let slope = match parameter.shape.len() {
                1 => host(learned.get::<1>(parameter.id).unwrap()),
                _ => host(learned.get::<2>(parameter.id).unwrap()),
            };
            assert!(slope.iter().any(|slope| slope.abs() > 1e-9), "{}", parameter.name);
        }
    }
}

/// Sums over patches, boundaries and both attentions, against differences: a step that moves no boundary.
#[test]
fn gradients_match_differences() {
    let model = model(serde_json::json!({ "cross_window": 2 }));
    let text = Text::new(&[vec![0, 1, 14, 15, 16, 17, 2], vec![0, 20, 21, 22]]);
    let targets: Vec<u32> = text.ids.iter().map(|id| (id * 5 + 2) % N_TOKENS as u32).collect();
    let weights = vec![1.0; targets.len()];
    let loss = |model: &PatchLm| {
        let output = model.forward(&text.documents(model), Dropout::OFF);
        ops::cross_entropy(model.logits(output.hidden), &targets, &weights)
    };
    let learning = to_autodiff(model.clone());
    let gradients = loss(&learning).backward();
    let table = learning.embed_tokens.weight.val();
    let slopes = host(table.grad(&gradients).unwrap());
    let values = host(model.embed_tokens.weight.val());
    let at = |i: usize, by: f32| {
        let mut values = values.clone();
        values[i] += by;
        let data = burn::tensor::TensorData::new(values, [N_TOKENS, 8]);
        let mut model = model.clone();
        model.embed_tokens.weight =
            model.embed_tokens.weight.map(|_| Tensor::from_data(data, &Device::flex()));
        f64::from(host(loss(&model))[0])
    };
    for i in (0..N_TOKENS * 8).step_by(11) {
        let difference = (at(i, 4e-3) - at(i, -4e-3)) / 8e-3;
        let slope = f64::from(slopes[i]);
        assert!(
            (difference - slope).abs() < 0.02 * slope.abs().max(0.3),
            "{i}: {difference}, {slope}"
        );
    }
}

/// LST's table 7: 52.4 M, 1,284.5 M and 190.8 M parameters at 32,508 tokens, 1.528 B together.
#[test]
fn the_published_model_has_the_published_size() {
    let stack = |n_layers: usize, window: Option<usize>| serde_json::json!({ "n_layers": n_layers, "n_heads": 16, "window": window });
    let config: PatchLmConfig = serde_json::from_value(serde_json::json!({
        "d_local": 1024, "d_global": 2048, "n_queries": 2, "cross_heads": 16,
        "encoder": stack(1, Some(512)), "global": stack(25, None), "decoder": stack(9, Some(512)),
    }))
    .unwrap();
    let global = config.global.as_ref().unwrap();
    assert_eq!((config.encoder.feed_forward(1024), global.feed_forward(2048)), (2816, 5632));
    let model = config.init(32_508, &Init::hollow(&Device::flex()));
    let count = |prefixes: &[&str]| -> usize {
        parameters(&model)
            .iter()
            .filter(|p| prefixes.iter().any(|prefix| p.name.starts_with(prefix)))
            .map(|p| p.shape.iter().product::<usize>())
            .sum()
    };
    let millions = |n: usize| (n as f64 / 1e5).round() / 10.0;
    assert_eq!(millions(count(&["embed_tokens", "encoder", "pool_proj", "gather"])), 52.4);
    assert_eq!(millions(count(&["global"])), 1284.6);
    assert_eq!(millions(count(&["memory_proj", "decoder", "norm", "lm_head"])), 190.9);
    assert_eq!(millions(count(&[""])), 1527.9);
}

#[test]
fn sizes_that_do_not_fit_are_said() {
    let problems = config(serde_json::json!({
        "d_local": 10, "cross_heads": 3, "n_queries": 0, "cross_window": 0,
        "router": { "units_per_patch": 1.0 },
    }))
    .problems();
    for part in [
        "n_queries is 0",
        "cross_window is 0",
        "cross_heads 3",
        "encoder.n_heads is 2",
        "router.units_per_patch is 1",
    ] {
        assert!(problems.iter().any(|p| p.contains(part)), "{part}: {problems:?}");
    }
    assert!(config(serde_json::json!({})).problems().is_empty());
    for (options, part) in [
        (serde_json::json!({ "text": text_model() }), "given beside text"),
        (serde_json::json!({ "d_global": null }), "d_global is missing"),
        (serde_json::json!({ "global": null }), "global is missing"),
        (
            serde_json::json!({
                "d_global": null, "global": null, "text": text_model(), "tie_embeddings": true,
            }),
            "tie_embeddings is true beside text",
        ),
    ] {
        let problems = config(options).problems();
        assert!(problems.iter().any(|p| p.contains(part)), "{part}: {problems:?}");
    }
}
