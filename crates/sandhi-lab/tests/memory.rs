//! The memory that a plan names, held against the most bytes that training had in use at once.
//!
//! ```text
//! recipe ─┬─ plan ───────────────────> bytes ──┐
//!         └─ model, full batches, steps ─> peak ┴─ within 15 %
//! ```
//!
//! A test program of its own, because its allocator counts, and nothing else may run meanwhile.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::HashMap,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use burn::prelude::Device;
use sandhi_data::features::FeatureExtractor;
use sandhi_lab::{
    hf::Hub,
    model::{Aids, AnyModel, CtcNet, HostRagged},
    plan::{Plan, plan},
    recipe::{ModelConfig, NetworkConfig, Overrides, Recipe, StageConfig, read_str},
    train::{
        is_trained,
        learner::{
            ConnectorBatch, ConnectorNet, CtcBatch, Heard, Learner, Said, SpeechBatch, SpokenItem,
            TextBatch, TextItem,
        },
        optimizer::{Optimizer, gradient_norm},
        speech_text::{HostBoundaries, SpeechTextBatch, TargetKind},
        step::gradients,
        trains_encoder,
        vocoder::VocoderBatch,
    },
};
use sandhi_nn::{
    connector::Widths,
    init::Init,
    layers::Linear,
    lora::{self, Linears, LoraConfig},
    patch::Closing,
    transformer::Dropout,
    weights,
};

/// The system's allocator, and how many bytes it has given away.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn count(added: usize, removed: usize) {
    let live = LIVE.fetch_add(added, Relaxed) + added;
    PEAK.fetch_max(live, Relaxed);
    LIVE.fetch_sub(removed, Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes at once in two steps of a stage over the same batches, beside those of the batches.
fn measured<L: Learner>(
    stage: &StageConfig,
    batches: &[L::Batch],
    make: impl FnOnce() -> L,
) -> usize {
    let before = LIVE.load(Relaxed);
    let model = weights::to_autodiff(make());
    let mut model = weights::set_trained(model, |name| is_trained(&stage.trainable, name));
    model.begin(stage);
    PEAK.store(LIVE.load(Relaxed), Relaxed);
    let mut optimizer = Optimizer::default();
    for step in 0..2 {
        let dropout = |i| Dropout::new(stage.dropout, 10 * step + i as u64);
        let (_, grads) = gradients(&model, batches, &stage.loss, stage.batch.replicas, dropout);
        let norm = gradient_norm(&model, &grads);
        assert!(norm > 0.0 && norm.is_finite());
        model = optimizer.step(model, grads, &stage.optimizer, 1e-3, 1.0 / norm);
    }
    PEAK.load(Relaxed) - before
}

/// `n` numbers that look like data.
fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5).collect()
}

fn ids(n: usize, first: usize, n_tokens: usize) -> Vec<u32> {
    (0..n).map(|i| ((first + i * 31) % n_tokens) as u32).collect()
}

/// Utterances of equal length, `width` wide at `rate` rows a second, that fill a batch.
fn heard(stage: &StageConfig, width: usize, rate: f64) -> HostRagged {
    let n = stage.batch.max_items;
    let rows = (stage.batch.max_length / n as f64 * rate) as usize;
    HostRagged { values: numbers(n * rows * width), width, lengths: vec![rows; n] }
}

/// With the branches that the recipe asks for.
fn adapted<M: Linears>(mut module: M, part: &str, config: Option<&LoraConfig>) -> M {
    if let Some(config) = config {
        lora::attach(&mut module, part, config, 1);
    }
    module
}

/// Trains as the recipe says, on made-up batches that are as full as they may be.
fn peak(recipe: &Recipe, plan: &Plan) -> usize {
    let stage = &recipe.stages[0];
    let (n, init) = (stage.batch.max_items, Init::new(1, &Device::flex()));
    let audio_s = stage.batch.max_length;
    match &recipe.model {
        ModelConfig::Aligner(_) => panic!("none of the recipes below trains one"),
        ModelConfig::Vocoder(config) => {
            // 25 units a second, of 640 samples each.
            const A_UNIT: usize = 640;
            let crop = (audio_s / n as f64 * 25.0) as usize;
            let n_samples = n * crop * A_UNIT;
            let batches = [VocoderBatch {
                units: ids(n * crop, 1, N_UNITS),
                lengths: vec![crop; n],
                samples: numbers(n_samples),
                mels: numbers(n_samples / config.vocoder.hop * config.vocoder.n_mels),
                audio_s,
            }];
            measured(stage, &batches, || config.vocoder.init(N_UNITS, A_UNIT, &init))
        }
        ModelConfig::SpeechText(config) => {
            // Spoken documents: one token alone, then units in fours. Where a model finds patches itself every fourth token
            // is alone, which makes a patch of the units before it, too.
            let pieces =
                config.tokenizer.as_ref().expect("no recipe below begins as another model");
            let n_tokens = pieces.vocab_size + 2 + N_UNITS;
            let length = (stage.batch.max_length / n as f64) as usize;
            let alone: Vec<bool> =
                (0..n * length).map(|i| (i % length).is_multiple_of(4)).collect();
            let closing = |i: usize| match i % length {
                0 => Closing::ALONE,
                i => Closing { before: false, after: i % 4 == 0 },
            };
            let batches = [SpeechTextBatch {
                ids: ids(n * length, 1, n_tokens),
                targets: ids(n * length, 2, n_tokens),
                kinds: vec![TargetKind::Speech; n * length],
                lengths: vec![length; n],
                boundaries: match (&config.network, &config.patching) {
                    (NetworkConfig::Plain(_), _) => HostBoundaries::None,
                    (_, Some(_)) => HostBoundaries::Given((0..n * length).map(closing).collect()),
                    (_, None) => HostBoundaries::Learned(alone),
                },
                n_words: 0,
                speech_s: 1.0,
            }];
            measured(stage, &batches, || config.network.init(n_tokens, &init))
        }
        ModelConfig::Text(config) => {
            let n_tokens = config.tokenizer.vocab_size;
            let length = (stage.batch.max_length / n as f64) as usize + 1;
            let item = |i| TextItem { ids: ids(length, i, n_tokens), n_prompt: 0 };
            let batches: Vec<TextBatch> = (0..stage.batch.accumulate)
                .map(|_| TextBatch { items: (0..n).map(item).collect() })
                .collect();
            measured(stage, &batches, || {
                adapted(config.language_model.init(n_tokens, &init), "", config.lora.as_ref())
            })
        }
        ModelConfig::Ctc(config) => {
            let d = config.encoder.d_encoder();
            let n_mels = FeatureExtractor::new(&config.features).unwrap().n_mels();
            let outputs = plan.parts[1].n_parameters as usize / (d + 1);
            let n_symbols = outputs / config.ctc.steps_per_frame;
            let features = heard(stage, n_mels, config.features.rate_hz());
            let frames = config.encoder.length(features.lengths[0]).bound();
            let n_steps = n * frames * config.ctc.steps_per_frame;
            // 16 characters a second.
            let n_characters = (16.0 * audio_s / n as f64) as usize;
            let target = |i| ids(n_characters, i, n_symbols - 1).iter().map(|id| id + 1).collect();
            let batches = [CtcBatch {
                features,
                targets: (0..n).map(target).collect(),
                feasible: vec![true; n],
                steps: (0..n_steps).map(|i| Some((i % n_symbols) as u32)).collect(),
                audio_s,
            }];
            measured(stage, &batches, || CtcNet {
                encoder: config.encoder.init(n_mels, &init.child("encoder")),
                head: config.ctc.init(d, n_symbols, &init.child("head")),
            })
        }
        ModelConfig::Connector(config) => {
            let foundation = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights");
            let (device, hub) = (Device::flex(), Hub::offline("no cache".into()));
            let speech = AnyModel::load_speech(&foundation.join("encoder"), &device, &hub).unwrap();
            let text =
                AnyModel::load_text(&foundation.join("language_model"), &device, &hub).unwrap();
            let lora = config.lora.as_ref();
            let branched = adapted(speech.encoder.clone(), "encoder", lora);
            let names: Vec<String> = weights::parameters(&branched)
                .into_iter()
                .map(|info| format!("encoder.{}", info.name))
                .collect();
            let heard = if trains_encoder(recipe, names.iter().map(String::as_str)) {
                Heard::Features(heard(stage, 80, 100.0))
            } else {
                Heard::Frames(heard(stage, speech.d_encoder(), 25.0))
            };
            // A vector a token, 16 a second, where tokens are compared one by one.
            let n_said = match stage.loss.wants_pairs() {
                true => (16.0 * audio_s / n as f64) as usize,
                false => 16,
            };
            let ends = |frames: usize| {
                (1..=n_said).map(|i| (i * frames / n_said - 1) as u32).collect::<Vec<u32>>()
            };
            let frames = (25.0 * audio_s / n as f64) as usize;
            let aids = Aids::of(&config.connector, &speech, Some(0));
            // 48 tokens, a third of them the answer, whose last is never read.
            let item = |i| SpokenItem {
                before: ids(17, i, 1000),
                after: ids(16, i + 5, 1000),
                answer: ids(16, i + 9, 1000),
                said: Said { tokens: ids(n_said, i + 3, 1000), ..Said::default() },
                begin: 0,
            };
            let batches = [ConnectorBatch::Spoken(SpeechBatch {
                heard,
                items: (0..n).map(item).collect(),
                ends: aids.needs.segments.then(|| vec![ends(frames); n]),
                penalties: Vec::new(),
                audio_s,
            })];
            drop(branched);
            let widths = Widths { d_encoder: speech.d_encoder(), d_model: text.config.d_model };
            let with_head = stage.loss.token_ctc > 0.0;
            // Models that were loaded are copied, so that their weights are counted.
            let copy = init.child("copy");
            measured(stage, &batches, || {
                let encoder = speech.config.init(80, &copy.child("encoder"));
                let lm = text.config.init(text.lm.n_tokens(), &copy.child("lm"));
                let encoder = weights::hold(encoder, config.encoder.dtype()).unwrap();
                let lm = weights::hold(lm, config.language_model.dtype()).unwrap();
                ConnectorNet {
                    encoder: adapted(encoder, "encoder", lora),
                    connector: config.connector.init(widths, &init.child("connector")),
                    language_model: adapted(lm, "language_model", lora),
                    ctc_head: with_head.then(|| {
                        let n_outputs = text.lm.n_tokens() + 1;
                        Linear::new(&init.child("ctc_head"), text.config.d_model, n_outputs, true)
                    }),
                    pad: Some(0),
                    compression: None,
                    aids,
                }
            })
        }
    }
}

const STAGE: &str = r#"
    [[stage]]
    name = "a"
    steps = 3
    trainable = ["*"]
    optimizer = { lr = 1e-3 }
"#;

fn text(language_model: &str, vocab_size: usize, batch: &str) -> String {
    format!(
        r#"
        name = "text"
        seed = 1
        [model]
        kind = "text"
        tokenizer = {{ vocab_size = {vocab_size} }}
        language_model = {{ {language_model} }}
        {STAGE}
        data = [{{ source = "documents", n = 20 }}]
        batch = {{ {batch} }}
        "#
    )
}

fn ctc(encoder: &str, batch: &str) -> String {
    format!(
        r#"
        name = "ctc"
        seed = 1
        [model]
        kind = "ctc"
        features = {{ kind = "whisper" }}
        encoder = {{ {encoder} }}
        ctc = {{ steps_per_frame = 2 }}
        {STAGE}
        data = [{{ source = "wild", n = {{ en = 20 }} }}]
        batch = {{ {batch} }}
        "#
    )
}

/// As [`ctc`], over samples.
fn samples(encoder: &str, batch: &str) -> String {
    let encoder = format!(
        "kind = \"wav2vec2\", d_model = 96, n_layers = 4, n_heads = 4, d_ff = 384, \
         conv_dims = [16, 16, 16, 16, 16, 16, 16], position_kernel = 32, position_groups = 4{encoder}"
    );
    ctc(&encoder, batch).replace("\"whisper\" }", "\"waveform\" }")
}

/// Blocks keep their input alone.
fn again(text: String) -> String {
    text.replace("steps = 3\n", "steps = 3\n    gradient_checkpointing = true\n")
}

/// Branches beside the projections of attention, trained with what `trainable` names.
fn branches(text: String, trainable: &str) -> String {
    let table = "[model.lora]\n    rank = 8\n    alpha = 16\n    \
                 targets = [\"*.q_proj\", \"*.k_proj\", \"*.v_proj\", \"*.o_proj\"]\n    [[stage]]";
    text.replace("[[stage]]", table).replace("[\"*\"]", &format!("[{trainable}]"))
}

fn connector(sizes: &str, batch: &str) -> String {
    format!(
        r#"
        name = "connector"
        seed = 1
        [model]
        kind = "connector"
        encoder = {{ from = "directory", path = "../../weights/encoder" }}
        language_model = {{ from = "directory", path = "../../weights/language_model" }}
        connector = {{ kind = "slm", reduction = 4, reduce = "stack", {sizes} }}
        {STAGE}
        data = [{{ source = "wild", domain = "base", words = "open", n = {{ en = 20 }} }}]
        batch = {{ {batch} }}
        "#
    )
}

const N_UNITS: usize = 100;

fn units(network: &str, patching: &str, batch: &str) -> String {
    format!(
        r#"
        name = "units"
        seed = 1
        [model]
        kind = "speech_text"
        tokenizer = {{ vocab_size = 600 }}
        context = 100000
        {patching}
        [model.units]
        from = "encoder"
        encoder = {{ from = "directory", path = "../../weights/encoder" }}
        centers = {{ from = "fit", n = {N_UNITS} }}
        [model.network]
        {network}
        {STAGE}
        data = [{{ source = "stories", form = "spoken", n = 20 }}]
        batch = {{ {batch} }}
        "#
    )
}

fn vocoder(sizes: &str, batch: &str) -> String {
    format!(
        r#"
        name = "vocoder"
        seed = 1
        [model]
        kind = "vocoder"
        vocoder = {{ {sizes} }}
        crop_s = 1.2
        [model.units]
        from = "encoder"
        encoder = {{ from = "directory", path = "../../weights/encoder" }}
        centers = {{ from = "fit", n = {N_UNITS} }}
        {STAGE}
        loss = {{ mel = 1.0, spectra = 1.0 }}
        data = [{{ source = "stories", form = "spoken", n = 20 }}]
        batch = {{ {batch} }}
        "#
    )
}

/// A network over patches, with what is said beside its sizes.
fn patches(more: &str) -> String {
    let stack =
        |n: usize, window: &str| format!("{{ n_layers = {n}, n_heads = 4, d_ff = 256{window} }}");
    let (local, global) = (stack(2, ", window = 128"), stack(3, ""));
    format!(
        "kind = \"patch\"\n d_local = 96\n d_global = 160\n n_queries = 2\n cross_heads = 4\n \
         encoder = {local}\n global = {global}\n decoder = {local}\n {more}"
    )
}

/// One whose global transformer is a text model.
fn around(text: &str) -> String {
    let stack = "{ n_layers = 2, n_heads = 4, d_ff = 256, window = 128 }";
    format!(
        "kind = \"patch\"\n d_local = 96\n n_queries = 2\n cross_heads = 4\n \
         encoder = {stack}\n text = {{ {text} }}\n decoder = {stack}"
    )
}

#[test]
fn plans_name_the_memory_that_training_takes() {
    let wide = "d_model = 384, n_layers = 2, n_heads = 6, d_ff = 1024, tie_embeddings = true";
    let narrow = "d_model = 96, n_layers = 6, n_heads = 4, d_ff = 256, tie_embeddings = true";
    let grouped =
        "d_model = 192, n_layers = 4, n_heads = 6, n_kv_heads = 2, qk_norm = true, d_ff = 512";
    let long = "max_items = 2, max_length = 2048";
    let conformer =
        "kind = \"conformer\", d_model = 128, n_layers = 4, n_heads = 4, d_ff = 256, kernel = 15";
    let whisper = "kind = \"whisper\", d_model = 128, n_layers = 4, n_heads = 4, d_ff = 512, max_frames = 1500";
    let slm = "d_hidden = 256, n_layers = 2, n_heads = 4, d_ff = 1024";
    let heard = "max_items = 4, max_length = 40";
    let few = "max_items = 4, max_length = 20";
    // The lattices of short utterances are small; they are gone when gradients come, and the sum counts them.
    let short = "max_items = 16, max_length = 24";
    let large = ", conv_norm = \"layer\", conv_bias = true, pre_norm = true";
    let biased = ", position_bias = { buckets = 32, max_distance = 80 }";
    let half = |text: String| {
        let held = |text: String, base: &str| {
            text.replace(&format!("{base}\" }}"), &format!("{base}\", dtype = \"bf16\" }}"))
        };
        held(held(text, "weights/encoder"), "weights/language_model")
    };
    let connector_text = connector(slm, heard);
    let slm_text = format!("\"slm\", reduction = 4, reduce = \"stack\", {slm} }}");
    let only = |text: String, trainable: &str| text.replace("[\"*\"]", &format!("[{trainable}]"));
    let cases = [
        ("text, wide, short batches", text(wide, 4000, "max_items = 4, max_length = 256")),
        ("text, narrow, long batches", text(narrow, 300, long)),
        // So long that what products of matrices pack for themselves, which no plan knows, is small beside the scores.
        ("text, many tokens", text(narrow, 8000, "max_items = 8, max_length = 2048")),
        ("text, grouped heads", text(grouped, 1280, "max_items = 8, max_length = 1024")),
        ("text, accumulated", text(wide, 1000, "max_items = 4, max_length = 512, accumulate = 3")),
        (
            "text, replicas",
            text(grouped, 1000, "max_items = 4, max_length = 256, accumulate = 4, replicas = 2"),
        ),
        (
            "text, Muon",
            text(wide, 1000, "max_items = 4, max_length = 512")
                .replace("1e-3", "1e-3, matrices = \"muon\""),
        ),
        ("text, the last block", only(text(narrow, 300, long), "\"model.layers.5\"")),
        ("ctc, Conformer", ctc(conformer, "max_items = 8, max_length = 40")),
        ("ctc, Whisper", ctc(whisper, "max_items = 2, max_length = 20")),
        ("ctc, the head", only(ctc(conformer, heard), "\"head\"")),
        ("connector", only(connector(slm, heard), "\"connector\"")),
        (
            "connector, few items",
            only(connector(slm, "max_items = 2, max_length = 8"), "\"connector\""),
        ),
        ("connector and encoder", only(connector(slm, heard), "\"connector\", \"encoder\"")),
        ("connector, all", connector(slm, heard)),
        (
            "units, plain",
            units(&format!("kind = \"plain\"\n{}", narrow.replace(", ", "\n")), "", long),
        ),
        ("units, patches", units(&patches(""), "patching = { kind = \"static\", size = 4 }", long)),
        (
            "units, patches, tied, a window",
            units(
                &patches("tie_embeddings = true\ncross_window = 8"),
                "patching = { kind = \"static\", size = 4 }",
                "max_items = 8, max_length = 2048",
            ),
        ),
        (
            "units, patches, again",
            again(units(&patches(""), "patching = { kind = \"static\", size = 4 }", long)),
        ),
        ("units, learned", units(&patches("router = { units_per_patch = 2.0 }"), "", long)),
        (
            "units, patches around a text model",
            units(
                &around(grouped),
                "patching = { kind = \"static\", size = 4 }",
                "max_items = 4, max_length = 2048",
            ),
        ),
        ("vocoder", vocoder("d_model = 96, d_ff = 288", "max_items = 8, max_length = 9.6")),
        (
            "vocoder, wide, few crops",
            vocoder("d_model = 256, d_ff = 768", "max_items = 2, max_length = 2.4"),
        ),
        ("text, again", again(text(narrow, 300, long))),
        ("text, LoRA", branches(text(narrow, 300, long), "\"*lora_*\"")),
        ("text, LoRA, again", again(branches(text(grouped, 1000, long), "\"*lora_*\""))),
        ("ctc, Conformer, again", again(ctc(conformer, "max_items = 8, max_length = 40"))),
        ("ctc, Whisper, again", again(ctc(whisper, "max_items = 8, max_length = 20"))),
        ("ctc, wav2vec2", samples("", few)),
        ("ctc, wav2vec2, again", again(samples("", few))),
        ("ctc, wav2vec2, large", samples(large, few)),
        (
            "ctc, wav2vec2, the last block",
            only(samples("", short), "\"encoder.layers.3\", \"head\""),
        ),
        ("ctc, WavLM", samples(biased, few)),
        ("ctc, WavLM, again", again(samples(biased, few))),
        ("connector, bf16", only(half(connector(slm, heard)), "\"connector\"")),
        (
            "connector, bf16, LoRA",
            branches(half(connector(slm, heard)), "\"connector\", \"*lora_*\""),
        ),
        ("connector, transport", {
            let loss = "loss = { transport = { merge_targets = 0.9, sparsity_weight = 0.1 } }\n        data";
            only(connector(slm, heard), "\"connector\"")
                .replace("kind = \"connector\"", "kind = \"connector\"\n        pad_token = \"-\"")
                .replace("data", loss)
        }),
        ("connector, transport within", {
            let loss = "loss = { transport = { pad = \"none\", depths = [0, 3] } }\n        data";
            connector(slm, heard).replace("data", loss)
        }),
        ("connector, token CTC", {
            let loss = "loss = { token_ctc = 0.3 }\n        data";
            only(connector(slm, heard), "\"connector\", \"ctc_head\"").replace("data", loss)
        }),
        ("connector, distillation", {
            let loss = "loss = { cross_entropy = 0.0, distillation = {} }\n        data";
            only(connector(slm, heard), "\"connector\"").replace("data", loss)
        }),
        ("connector, distillation within", {
            let loss = "loss = { distillation = { hidden = 0.5, depths = [1, 3] } }\n        data";
            connector(slm, heard).replace("data", loss)
        }),
        ("connector, distillation, few items", {
            let loss = "loss = { distillation = {} }\n        data";
            only(connector(slm, "max_items = 2, max_length = 4"), "\"connector\"")
                .replace("data", loss)
        }),
        ("connector, next token", {
            let ssr = "\"ssr\", d_hidden = 64, n_layers = 1, n_heads = 4, n_kv_heads = 2, d_ff = 128 }\n        \
                       segmenter = \"ctc\"";
            let loss = "loss = { cross_entropy = 0.0, next_token = 1.0 }\n        data";
            only(connector_text.replace(&slm_text, ssr), "\"connector\"").replace("data", loss)
        }),
        (
            "connector, bf16, LoRA, again",
            again(branches(half(connector(slm, heard)), "\"connector\", \"*lora_*\"")),
        ),
    ];
    // So that one lattice of CTC's is there at once, however busy the machine is.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    let mut wrong = Vec::new();
    let mut found = HashMap::new();
    for (name, text) in cases {
        let recipe = read_str(&text, Path::new("memory.toml"), &Overrides::default()).unwrap();
        let base = Path::new(env!("CARGO_MANIFEST_DIR"));
        let plan = plan(&recipe, base, &Hub::offline(base.join("hub")))
            .unwrap_or_else(|problems| panic!("{name}: {problems}"));
        let planned = (plan.memory.total_bytes + plan.memory.lattice_bytes) as f64;
        let measured = peak(&recipe, &plan) as f64;
        found.insert(name, (planned, measured));
        let line = format!(
            "{name:<28} {:8.2} MB planned, {:8.2} MB measured, {:+.1} %",
            planned / 1e6,
            measured / 1e6,
            100.0 * (planned / measured - 1.0)
        );
        println!("{line}");
        if (planned / measured - 1.0).abs() > 0.15 {
            wrong.push(line);
        }
    }
    // What a loss adds is planned, too, not only what all of it is.
    let [plain, with] = ["connector", "connector, distillation"].map(|name| found[name]);
    let (planned, measured) = (with.0 - plain.0, with.1 - plain.1);
    let line = format!("distillation adds {planned} bytes as planned, {measured} as measured");
    println!("{line}");
    if measured <= 0.0 || (planned / measured - 1.0).abs() > 0.25 {
        wrong.push(line);
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
