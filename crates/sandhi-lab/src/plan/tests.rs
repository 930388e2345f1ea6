use std::path::Path;

use burn::prelude::*;

use super::*;
use crate::recipe::{Overrides, read_str};

const TEXT: &str = r#"
    name = "tiny"
    seed = 1
    [model]
    kind = "text"
    tokenizer = { vocab_size = 300 }
    language_model = { d_model = 16, n_layers = 1, n_heads = 2, d_ff = 32, tie_embeddings = true }
    [[stage]]
    name = "pretrain"
    steps = 3
    trainable = ["*"]
    data = [{ source = "documents", n = 20 }]
    batch = { max_items = 4, max_length = 400, accumulate = 2 }
    optimizer = { lr = 1e-3 }
"#;

const CTC: &str = r#"
    name = "tiny"
    seed = 1
    [model]
    kind = "ctc"
    features = { kind = "whisper" }
    encoder = { kind = "conformer", d_model = 16, n_layers = 1, n_heads = 2, d_ff = 32, kernel = 3 }
    ctc = { steps_per_frame = 2 }
    [[stage]]
    name = "a"
    steps = 2
    trainable = ["*"]
    data = [{ source = "wild", n = { en = 20 } }]
    batch = { max_items = 4, max_length = 60 }
    optimizer = { lr = 1e-3 }
    [[stage]]
    name = "b"
    steps = 3
    trainable = ["head"]
    data = [{ source = "microworld", tasks = ["transcribe"], languages = ["en", "de"], domain = "base", n = 10 }]
    batch = { max_items = 4, max_length = 60 }
    optimizer = { lr = 1e-3 }
"#;

const ALIGNER: &str = r#"
    name = "tiny"
    seed = 1
    [model]
    kind = "aligner"
    features = { kind = "whisper", n_mels = 20 }
    window = { context = 1, stride = 2 }
    units = { from = "fit", n = 8 }
    aligner = { d_model = 16 }
    [[stage]]
    name = "a"
    steps = 2
    trainable = ["*"]
    loss = { prior = 1.0 }
    data = [{ source = "wild", n = { en = 20 } }]
    batch = { max_items = 4, max_length = 60 }
    optimizer = { lr = 1e-3 }
"#;

#[test]
fn an_aligner_is_counted() {
    let found = of(ALIGNER).unwrap();
    assert_eq!((found.kind, found.trainable, found.parts.len()), ("aligner", true, 1));
    // 50 frames a second.
    assert_eq!(found.stages[0].tokens_per_step, Some(3_000));
    // Three convolutions of 3 over 16 and two outputs, with biases; eight units; the characters.
    let fixed = 3 * (48 * 16 + 16) + 2 * (16 * 16 + 16) + 8 * 16;
    let characters = found.n_parameters - fixed;
    assert!(characters.is_multiple_of(16) && characters > 20 * 16, "{characters}");
    // 15 s an utterance: 750 frames of 240 characters.
    assert_eq!(found.memory.lattice_bytes, 750 * 240 * 20);
    let frames = of(&ALIGNER.replace("units = { from = \"fit\", n = 8 }", "")).unwrap();
    assert_eq!(frames.n_parameters - found.n_parameters, 80 * 16 + 16 - 8 * 16);
    let over_units =
        ALIGNER.replace("d_model = 16", "d_model = 16, softmax = \"units\", n_layers = 0");
    let over_units = of(&over_units).unwrap();
    assert_eq!(found.n_parameters - over_units.n_parameters, 2 * (48 * 16 + 16));
    // Scores over more units take more distances.
    let many = ALIGNER.replace("n = 8 }", "n = 800 }");
    let many = many.replace("d_model = 16", "d_model = 16, softmax = \"units\", n_layers = 0");
    let operations = |plan: &Plan| plan.stages[0].work.as_ref().unwrap()[0].forward;
    assert!(operations(&of(&many).unwrap()) > 8.0 * operations(&over_units));
}

#[test]
fn distances_to_all_tokens_are_counted() {
    let of = |connector: &str| {
        let plan = recipe_with("smoke/zoo/slm.toml", &[("model.connector", connector)]).unwrap();
        let work = plan.stages[0].work.clone().unwrap();
        work.into_iter().find(|work| work.part == "connector").unwrap().forward
    };
    let plain = of("{ kind = \"stack_mlp\", reduction = 1, d_hidden = 8 }");
    let found = of("{ kind = \"distance_ctc\" }");
    // A frame is multiplied with all of the thousand embeddings, not with 8 columns.
    assert!(found > 20.0 * plain, "{found} {plain}");
}

#[test]
fn what_an_aligner_cannot_be_is_said() {
    let check = |from: &str, to: &str, parts: &[&str]| check_one(ALIGNER, from, to, parts);
    check("stride = 2", "stride = 0", &["model.window", "stride is 0"]);
    check("d_model = 16", "d_model = 16, kernel = 4", &["model.aligner", "kernel is 4"]);
    check("n = 8", "n = 80000", &["model.units", "n_frames is 60000", "80000"]);
    let units = "softmax = \"units\", d_model = 16";
    check("d_model = 16", units, &["model.aligner", "n_layers is 2", "expected 0"]);
    let frames = ALIGNER.replace("units = { from = \"fit\", n = 8 }", "");
    let units = "softmax = \"units\", n_layers = 0, d_model = 16";
    check_one(&frames, "d_model = 16", units, &["model.units", "there are none"]);
    let file = "{ from = \"file\", path = \"none.npy\" }";
    check("{ from = \"fit\", n = 8 }", file, &["model.units.path", "none.npy does not exist"]);
    check("prior = 1.0", "prior = -1.0", &["stage[0].loss", "prior is -1"]);
    check("steps = 2", "steps = 2\nspec_augment = {}", &["stage[0].spec_augment", "leave it out"]);
    check("optimizer", "gradient_checkpointing = true\noptimizer", &["gradient_checkpointing"]);
    check("\"whisper\", n_mels = 20", "\"waveform\"", &["model.features", "waveform"]);
    let eval = "name = \"tiny\"\n eval = { n = 2 }";
    check("name = \"tiny\"", eval, &["eval", "sandhi align"]);
    check_one(CTC, "steps = 2", "steps = 2\nloss = { prior = 1.0 }", &["aligner models"]);
}

/// No model of the Hub is anywhere.
fn nowhere() -> Hub {
    Hub::offline("no cache".into())
}

fn of(text: &str) -> Result<Plan, Problems> {
    let recipe = read_str(text, Path::new("r.toml"), &Overrides::default()).unwrap();
    plan(&recipe, Path::new(env!("CARGO_MANIFEST_DIR")), &nowhere())
}

fn problems(text: &str) -> Vec<String> {
    of(text).unwrap_err().0
}

#[track_caller]
fn check_one(text: &str, from: &str, to: &str, parts: &[&str]) {
    assert!(text.contains(from), "{from} is not in the recipe");
    let found = problems(&text.replace(from, to));
    assert_eq!(found.len(), 1, "{found:#?}");
    for part in parts {
        assert!(found[0].contains(part), "{part:?} is not in {:?}", found[0]);
    }
}

#[test]
fn the_paper_s_adapter_is_one_percent() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/paper/slm.toml");
    let recipe = crate::recipe::read(&path, &Overrides::default()).unwrap();
    let plan = plan(&recipe, path.parent().unwrap(), &nowhere()).unwrap();
    let adapter = &plan.parts[1];
    // 1536·2432 + 2 (4·2432² + 2·2432·9728) + 2432·4096
    assert_eq!(adapter.n_in_matrices, Some(155_648_000));
    let norms_and_biases = adapter.n_parameters - 155_648_000;
    // Input 2432, output 4096, last norm 2·2432; a block: q, k, v 3·2432, mlp 9728 + 2432, norms 4·2432.
    assert_eq!(norms_and_biases, 2432 + 4096 + 2 * 2432 + 2 * (3 * 2432 + 9728 + 2432 + 4 * 2432));
    assert_eq!(plan.n_parameters, 15_000_000_000 + adapter.n_parameters);
    assert_eq!(plan.n_trained, adapter.n_parameters);
    let share = plan.n_trained as f64 / 15e9;
    assert!((0.0100..0.0108).contains(&share), "{share}");
    assert!(!plan.trainable);
    // 1500 s at 25 frames a second, one of four, and 48 tokens for each of 128 items.
    assert_eq!(plan.stages[0].tokens_per_step, Some(1500 * 25 / 4 + 128 * 48));
    let text = plan.to_string();
    assert!(text.contains("155.6 M") && text.contains("1.03 %"), "{text}");
}

#[test]
fn a_text_model_is_counted() {
    let plan = of(TEXT).unwrap();
    // Embedding 300·16; block 4·16² + 3·16·32 + 2·16; last norm 16.
    assert_eq!(plan.n_parameters, 300 * 16 + 4 * 256 + 3 * 512 + 32 + 16);
    assert_eq!(plan.n_trained, plan.n_parameters);
    assert_eq!(plan.stages[0].tokens_per_step, Some(800));
    assert_eq!(plan.stages[0].tokens, Some(2400));
    assert_eq!(plan.stages[0].n_items, Some(20));
    assert_eq!(plan.stages[0].audio_h, None);
    assert_eq!(plan.memory.weight_bytes, 4 * plan.n_parameters);
    // Two batches: the sum of the gradients and the newest.
    assert_eq!(plan.memory.gradient_bytes, 8 * plan.n_parameters);
    assert_eq!(plan.memory.moment_bytes, 8 * plan.n_parameters);
    // Each of 400 rows keeps 8·16 + 2 heads + 3·32 in the block, 16 in the last norm, 16 + 300 at the output.
    assert_eq!(plan.memory.activation_bytes, Some(4 * 400 * (8 * 16 + 2 + 96 + 16 + 316)));
    // Gradients come while that goes: the sum of the first batch's, and the most of the second, which is at
    // the output, with the gradients of its table and of its input.
    let output = plan.memory.activation_bytes.unwrap() + 4 * (300 * 16 + 400 * 16);
    let total = plan.memory.weight_bytes + plan.memory.moment_bytes + 4 * plan.n_parameters;
    assert_eq!(plan.memory.total_bytes, total + output);
}

#[test]
fn operations_of_a_text_model_are_those_of_its_products() {
    let plan = of(TEXT).unwrap();
    let work = &plan.stages[0].work.as_ref().unwrap()[0];
    // Two batches of four documents of 100 rows: 800 rows through 4·16² + 3·16·32 weights of the block and
    // 16·300 of the output; 5050 pairs a document, 16 wide, for the scores and for what they weigh.
    let weights = 2.0 * 800.0 * (4.0 * 256.0 + 3.0 * 512.0 + 4800.0);
    let attention = 2.0 * 2.0 * 16.0 * 8.0 * 5050.0;
    assert_eq!(work.forward, weights + attention);
    assert_eq!(work.backward, 2.0 * (weights + attention));
    assert_eq!(work.once, 0.0);
    let stage = &plan.stages[0];
    assert_eq!(stage.operations_per_step, Some(work.forward + work.backward));
    assert_eq!(stage.operations, stage.operations_per_step.map(|n| 3.0 * n));
    assert_eq!((stage.step_s, stage.stage_s), (None, None));
    let timed = of(TEXT).unwrap().at_rate(1e9);
    let seconds = stage.operations_per_step.unwrap() / 1e9;
    assert_eq!(timed.stages[0].step_s, Some(seconds));
    assert!((timed.stages[0].stage_s.unwrap() - 3.0 * seconds).abs() < 1e-12);
    assert!(timed.to_string().contains("at the given rate"), "{timed}");
    assert!(!plan.to_string().contains("at the given rate"));
}

#[test]
fn a_window_lets_fewer_pairs_through() {
    let window = |n: &str| {
        let plan = of(&TEXT.replace("d_ff = 32", &format!("d_ff = 32, {n}"))).unwrap();
        plan.stages[0].work.as_ref().unwrap()[0].forward
    };
    // Of 100 rows the first 10 see themselves and all before, the others 10 rows.
    let pairs = 8.0 * (5050.0 - (55.0 + 90.0 * 10.0));
    assert_eq!(window("rope_theta = 1e4") - window("window = 10"), 4.0 * 16.0 * pairs);
}

#[test]
fn gradients_go_back_to_the_first_part_that_learns() {
    let plan = of(CTC).unwrap();
    let [all, head] = [0, 1].map(|i| plan.stages[i].work.as_ref().unwrap());
    // All of the encoder: twice, but for the input of its first layer: 6000 / 2 rows, 3·80 to 16.
    let conv1 = 2.0 * 3000.0 * 240.0 * 16.0;
    assert_eq!(all[0].backward, 2.0 * all[0].forward - conv1);
    assert_eq!(all[1].backward, 2.0 * all[1].forward);
    // The head alone: its weights once; its input's gradient is for nobody.
    assert_eq!(head[0].forward, all[0].forward);
    assert_eq!((head[0].backward, head[1].backward), (0.0, head[1].forward));
    assert_eq!(plan.memory.stage, "a");
}

#[test]
fn a_frozen_encoder_hears_once() {
    let slm = |set: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/slm.toml");
        let set = vec![("stage.0.trainable".to_owned(), set.to_owned())];
        let recipe = crate::recipe::read(&path, &Overrides { set, paths: vec![] }).unwrap();
        plan(&recipe, path.parent().unwrap(), &nowhere()).unwrap()
    };
    let frozen = slm("[\"connector\"]");
    let [encoder, connector, lm] = &frozen.stages[0].work.as_ref().unwrap()[..] else { panic!() };
    assert_eq!((encoder.forward, encoder.backward), (0.0, 0.0));
    // The first layer's input needs no gradient: 120 s at 25 frames, four of 160 to 128.
    let input = 2.0 * 750.0 * 640.0 * 128.0;
    assert_eq!(connector.backward, 2.0 * connector.forward - input);
    // The language model is on the way: once for its weights, twice for its attention.
    assert!(lm.backward > lm.forward && lm.backward < 2.0 * lm.forward);
    assert_eq!(
        frozen.memory.activation_bytes.map(|_| frozen.parts[0].activation_bytes),
        Some(Some(0))
    );
    let learning = slm("[\"connector\", \"encoder\"]");
    let heard = &learning.stages[0].work.as_ref().unwrap()[0];
    assert!(heard.forward > 0.0 && heard.backward > heard.forward && heard.once == 0.0);
    // Heard once, over less audio than the stage's steps hear.
    let steps = frozen.stages[0].steps as f64;
    assert!(encoder.once > 0.0 && encoder.once < steps * heard.forward);
    let text = frozen.to_string();
    assert!(
        text.contains("hears every utterance once") && text.contains("adapter: encoder"),
        "{text}"
    );
}

#[test]
fn what_is_declared_counts_by_its_parameters() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/paper/slm.toml");
    let recipe = crate::recipe::read(&path, &Overrides::default()).unwrap();
    let plan = plan(&recipe, path.parent().unwrap(), &nowhere()).unwrap();
    let work = plan.stages[0].work.as_ref().unwrap();
    // 13 billion parameters over 1500·25/4 vectors and 128·48 tokens.
    let rows = 1500.0 * 25.0 / 4.0 + 128.0 * 48.0;
    assert_eq!(work[2].forward, 2.0 * 13e9 * rows);
    assert_eq!(work[2].backward, work[2].forward);
    assert_eq!(plan.memory.activation_bytes, None);
    assert!(plan.to_string().contains("without attention"), "{plan}");
}

#[test]
fn patterns_choose_what_learns() {
    let trained = |patterns: &str| of(&TEXT.replace("[\"*\"]", patterns)).unwrap().n_trained;
    assert_eq!(trained("[\"*.q_proj\", \"model.norm\"]"), 256 + 16);
    let all = trained("[\"*\"]");
    assert_eq!(trained("[\"*\", \"!*.mlp\"]"), all - 3 * 512);
    assert_eq!(trained("[\"*\", \"!*.mlp\", \"*.mlp.up_proj\"]"), all - 2 * 512);
    let found = ["stage[0].trainable", "!*.mpl"];
    check_one(TEXT, "[\"*\"]", "[\"*\", \"!*.mpl\"]", &found);
}

#[test]
fn what_several_stages_train_is_added_up() {
    let two = CTC.replace("trainable = [\"head\"]", "trainable = [\"*\", \"!encoder\"]");
    let plan = of(&two).unwrap();
    assert_eq!(plan.stages[1].n_trained, plan.parts[1].n_parameters);
    // The second stage takes the encoder away from itself, not from the first.
    assert_eq!(plan.n_trained, plan.n_parameters);
}

#[test]
fn a_ctc_model_has_a_symbol_for_every_character() {
    let plan = of(CTC).unwrap();
    let head = &plan.parts[1];
    assert_eq!(head.name, "head");
    // Two steps of some 25 characters and the blank, a row of 16 and a bias each.
    assert_eq!(head.n_parameters % (2 * 17), 0);
    assert!((20..40).contains(&(head.n_parameters / 34)), "{}", head.n_parameters);
    assert_eq!(plan.stages[0].n_trained, plan.n_parameters);
    assert_eq!(plan.stages[1].n_trained, head.n_parameters);
    assert_eq!(plan.stages[1].n_items, Some(20));
    assert_eq!(plan.stages[0].audio_s_per_step, Some(60.0));
    assert_eq!(plan.stages[0].tokens_per_step, Some(1500));
}

#[test]
fn every_mistake_is_told() {
    check_one(TEXT, "vocab_size = 300", "vocab_size = 200", &["model.tokenizer", "260", "200"]);
    check_one(
        TEXT,
        "n_heads = 2",
        "n_heads = 4, n_kv_heads = 3",
        &["model.language_model", "n_kv_heads 3"],
    );
    check_one(TEXT, "n_layers = 1", "n_layers = 9000000000", &["n_layers is 9000000000"]);
    check_one(TEXT, "steps = 3", "steps = 0", &["stage[0]", "steps is 0"]);
    check_one(TEXT, "1e-3", "-1.0", &["stage[0].optimizer", "lr is -1"]);
    check_one(TEXT, "1e-3", "1e-3, warmup = 9", &["warmup 9", "3 steps"]);
    check_one(
        TEXT,
        "accumulate = 2",
        "accumulate = 3, replicas = 2",
        &["accumulate 3", "replicas 2"],
    );
    check_one(TEXT, "max_length = 400", "max_length = 4", &["data[0]", "max_length is 4", "words"]);
    check_one(TEXT, "[\"*\"]", "[\"conector\"]", &["stage[0].trainable", "conector", "model"]);
    check_one(
        TEXT,
        "\"documents\"",
        "\"wild\", n = { en = 3 } }, { source = \"documents\"",
        &["stage[0].data[0]", "wild", "text model"],
    );
    check_one(
        TEXT,
        "source = \"documents\", n = 20",
        "source = \"text\", path = \"nowhere.txt\"",
        &["data[0].path", "nowhere.txt does not exist"],
    );
    check_one(TEXT, "n = 20", "n = 20, max_phrases = 101", &["data[0]", "max_phrases is 101"]);
    check_one(CTC, "\"wild\", n", "\"wild\", ask = [\"transcribe\"], n", &["ask", "ctc model"]);
    check_one(
        TEXT,
        "d_ff = ",
        "rope_scaling = { kind = \"linear\", factor = 0.0 }, d_ff = ",
        &["rope_scaling.factor is 0"],
    );
    check_one(TEXT, "n = 20", "n = 20, hesitant = 1.5", &["data[0]", "hesitant is 1.5"]);
    let whisper = CTC.replace(
        "kind = \"conformer\", d_model = 16, n_layers = 1, n_heads = 2, d_ff = 32, kernel = 3",
        "kind = \"whisper\", d_model = 16, n_layers = 1, n_heads = 2, d_ff = 32, max_frames = 1500",
    );
    of(&whisper).unwrap();
    let short = problems(&whisper.replace("max_frames = 1500", "max_frames = 20"));
    let told = short.iter().all(|problem| problem.contains("the encoder takes at most 0.4 s"));
    assert!(short.len() == 2 && told, "{short:#?}");
    let samples = CTC
        .replace(
            "kind = \"conformer\", d_model = 16, n_layers = 1, n_heads = 2, d_ff = 32, kernel = 3",
            "kind = \"wav2vec2\", d_model = 16, n_layers = 1, n_heads = 2, d_ff = 32",
        )
        .replace("features = { kind = \"whisper\" }", "features = { kind = \"waveform\" }");
    of(&samples).unwrap();
    let spectra = ["model.encoder", "model.features", "takes \"waveform\""];
    check_one(&samples, "\"waveform\"", "\"whisper\"", &spectra);
    check_one(CTC, "{ kind = \"whisper\" }", "{ kind = \"waveform\" }", &["takes spectra"]);
    let masked = "steps = 2\nspec_augment = {}";
    check_one(&samples, "steps = 2", masked, &["stage[0].spec_augment", "hears a waveform"]);
    check_one(&samples, "d_ff = 32", "d_ff = 32, layer = 2", &["layer is 2", "n_layers, 1"]);
    let many = "d_ff = 32, conv_dims = [2147483648], conv_kernels = [1], conv_strides = [1]";
    check_one(&samples, "d_ff = 32", many, &["a size is 2147483648"]);
    check_one(CTC, "{ en = 20 }", "{ en = 4294967296 }", &["data[0]", "at most 10000000"]);
    check_one(
        CTC,
        "\"wild\", n",
        "\"wild\", speed = [1.2, 0.8], n",
        &["data[0]", "speed is [1.2, 0.8]"],
    );
    check_one(CTC, "\"transcribe\"", "\"transcribe\", \"sing\"", &["stage[1].data[0]", "sing"]);
    check_one(
        TEXT,
        "steps = 3",
        "steps = 3\nloss = { cross_entropy = 0.0 }",
        &["stage[0].loss", "nothing"],
    );
    check_one(CTC, "steps = 2", "steps = 2\nloss = { ctc = 0.0 }", &["stage[0].loss", "alignment"]);
    check_one(CTC, "kernel = 3", "kernel = 4", &["model.encoder", "kernel 4"]);
    check_one(CTC, "\"whisper\" }", "\"whisper\", n_mels = 0 }", &["model.features", "n_mels"]);
    check_one(
        &format!("{CTC}\n[eval]\nn = 5\ntasks = [\"asr\"]\ndomains = [\"base\"]"),
        "\"asr\"",
        "\"singing\"",
        &["eval.tasks", "singing"],
    );
}

/// A manifest of two splits in a folder of its own.
fn manifest_of_two_splits() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.wav"), b"").unwrap();
    let line = |id: &str, split: &str, s: u32| {
        format!(
            r#"{{"id": "{id}", "audio": {{"path": "a.wav", "duration_s": {s}}}, "text": "a", "split": "{split}"}}"#
        )
    };
    let lines = [line("a", "train", 2), line("b", "train", 3), line("c", "test", 500)].join("\n");
    std::fs::write(dir.path().join("m.jsonl"), lines).unwrap();
    dir
}

#[test]
fn only_the_split_that_is_asked_for_counts() {
    let dir = manifest_of_two_splits();
    let path = dir.path().join("m.jsonl");
    let source = format!(r#"source = "manifest", path = "{}", split = "train""#, path.display());
    let text = CTC.replace(r#"source = "wild", n = { en = 20 }"#, &source);
    // The test split's 500 s do not fit into a batch and need not.
    assert_eq!(of(&text).unwrap().stages[0].n_items, Some(2));
    check_one(
        &text,
        r#""train""#,
        r#""trian""#,
        &["stage[0].data[0].path", "m.jsonl", "\"trian\"", "test, train"],
    );
    let eval = format!(
        "{text}\n[eval]\nn = 5\nmanifest = \"{}\"\nmanifest_split = \"test\"",
        path.display()
    );
    assert!(of(&eval).is_ok());
    check_one(&eval, "= \"test\"", "= \"tset\"", &["eval.manifest", "\"tset\""]);
}

/// The plan of the SLM recipe with other data.
fn slm_with(data: &str) -> Result<Plan, Problems> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/slm.toml");
    let set = vec![("stage.0.data".to_owned(), format!("[{{ domain = \"base\", {data} }}]"))];
    let recipe = crate::recipe::read(&path, &Overrides { set, paths: vec![] }).unwrap();
    plan(&recipe, path.parent().unwrap(), &nowhere())
}

#[track_caller]
fn check_slm_problem(data: &str, part: &str) {
    let Problems(found) = slm_with(data).unwrap_err();
    assert!(found[0].contains("stage[0].data[0]") && found[0].contains(part), "{found:?}");
}

#[test]
fn connectors_hear_open_words_only() {
    let open = slm_with(
        r#"source = "wild", words = "open", ask = ["transcribe", "first_word"], n = { en = 9 }"#,
    );
    assert_eq!(open.unwrap().stages[0].n_items, Some(18));
    let plain = slm_with(r#"source = "wild", words = "open", n = { en = 9 }"#);
    assert_eq!(plain.unwrap().stages[0].n_items, Some(9));
    check_slm_problem(r#"source = "wild", words = "all", n = { en = 9 }"#, "open");
    check_slm_problem(r#"source = "microworld", tasks = ["fact_choice"], n = 9"#, "almanac");
}

#[test]
fn what_is_asked_must_be_answerable() {
    let of = |ask: &str| {
        format!(r#"source = "microworld", tasks = ["dialogue"], ask = ["{ask}"], n = 9"#)
    };
    let plan = slm_with(&of("transcribe")).unwrap();
    assert!(plan.warnings.is_empty() && plan.stages[0].n_items == Some(9));
    check_slm_problem(&of("sqa"), "sqa");
    check_slm_problem(&of("translate_de"), "needs more than the words");
    // These tasks' rows say that they were never trained on speech.
    assert!(slm_with(&of("last_word")).unwrap().warnings[0].contains("last_word"));
    let own = slm_with(r#"source = "microworld", tasks = ["dialogue"], n = 9"#).unwrap();
    assert!(own.warnings[0].contains("dialogue"), "{:?}", own.warnings);
}

#[test]
fn muon_keeps_one_velocity() {
    let plan = of(&TEXT.replace("lr = 1e-3", "lr = 1e-3, matrices = \"muon\"")).unwrap();
    // The table and the norms keep two values each, the matrices of the block one.
    let kept = 2 * (300 * 16 + 32 + 16) + 4 * 256 + 3 * 512;
    assert_eq!(plan.memory.moment_bytes, 4 * kept);
}

#[test]
fn lengths_beyond_all_machines_do_not_overflow() {
    let plan = of(&TEXT.replace("max_length = 400", "max_length = 1e300")).unwrap();
    assert_eq!(plan.memory.total_bytes, u64::MAX);
}

#[test]
fn one_of_two_losses_is_enough() {
    let text = CTC.replace("steps = 2", "steps = 2\nloss = { ctc = 0.0, alignment = 1.0 }");
    assert!(of(&text).is_ok());
}

#[test]
fn mistakes_come_together() {
    let text = TEXT
        .replace("vocab_size = 300", "vocab_size = 9")
        .replace("steps = 3", "steps = 0")
        .replace("lr = 1e-3", "lr = 0.0, beta1 = 1.0")
        .replace("max_items = 4", "max_items = 0");
    let found = problems(&text);
    assert_eq!(found.len(), 5, "{found:#?}");
}

#[test]
fn bases_must_be_there() {
    let paper = include_str!("../../../../recipes/paper/slm.toml");
    let declared = r#"encoder = { from = "declared", name = "USM, a Conformer", n_parameters = 2_000_000_000, width = 1536, rate_hz = 25.0 }"#;
    check_one(
        paper,
        declared,
        "encoder = { from = \"directory\", path = \"no/such\" }",
        &["model.encoder.path", "no/such does not exist"],
    );
    let path = "encoder = { from = \"directory\", path = \"src\" }";
    check_one(paper, declared, path, &["model.encoder", "not a checkpoint"]);
    check_one(paper, "n_heads = 19", "n_heads = 18", &["model.connector", "2432"]);
}

#[test]
fn blocks_that_run_again_keep_their_inputs() {
    let deep = TEXT.replace("n_layers = 1", "n_layers = 3");
    let activations = |text: &str| of(text).unwrap().memory.activation_bytes.unwrap();
    // A block's 8·16 + 2 heads + 3·32; 16 in the last norm, 16 + 300 at the output.
    assert_eq!(activations(&deep), 4 * 400 * (3 * (8 * 16 + 2 + 96) + 16 + 316));
    let again = deep.replace("steps = 3", "steps = 3\n    gradient_checkpointing = true");
    assert_eq!(activations(&again), 4 * 400 * (3 * 16 + 16 + 316));
}

#[test]
fn branches_are_a_part_of_their_own() {
    let lora =
        "[model.lora]\nrank = 4\nalpha = 8\ntargets = [\"*.q_proj\", \"*.down_proj\"]\n\n[[stage]]";
    let recipe = TEXT.replacen("[[stage]]", lora, 1).replace("[\"*\"]", "[\"*lora_*\"]");
    let plan = of(&recipe).unwrap();
    let part = &plan.parts[1];
    // q: 4·16 + 16·4; down: 4·32 + 16·4.
    assert_eq!((part.name.as_str(), part.n_parameters), ("lora", 128 + 192));
    assert_eq!((plan.n_trained, plan.stages[0].n_trained), (320, 320));
    let without = of(TEXT).unwrap();
    assert_eq!(plan.n_parameters, without.n_parameters + 320);
    // Two branches keep twice their rank for each of 400 rows.
    let more = plan.memory.activation_bytes.unwrap() - without.memory.activation_bytes.unwrap();
    assert_eq!(more, 4 * 400 * 2 * 2 * 4);
    assert!(plan.to_string().contains("lora"));
    let forgotten = of(&recipe.replace("[\"*lora_*\"]", "[\"model\", \"!*lora_*\"]")).unwrap();
    assert!(
        forgotten.warnings.iter().any(|w| w.contains("model.lora")),
        "{:?}",
        forgotten.warnings
    );
    check_one(&recipe, "*.q_proj", "*.kv_proj", &["model.lora.targets", "*.kv_proj"]);
    check_one(&recipe, "rank = 4", "rank = 0", &["model.lora", "rank is 0"]);
}

#[test]
fn a_base_in_16_bits_takes_half_and_is_not_trained() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights");
    let text = format!(
        r#"
        name = "half"
        seed = 1
        [model]
        kind = "connector"
        encoder = {{ from = "directory", path = "{0}/encoder", dtype = "f16" }}
        language_model = {{ from = "directory", path = "{0}/language_model", dtype = "bf16" }}
        connector = {{ kind = "slm", reduction = 4, reduce = "drop", d_hidden = 16, n_layers = 1, n_heads = 2, d_ff = 32 }}
        [[stage]]
        name = "a"
        steps = 3
        trainable = ["connector"]
        data = [{{ source = "wild", ask = ["transcribe"], n = {{ en = 20 }}, words = "open", domain = "base" }}]
        batch = {{ max_items = 4, max_length = 60 }}
        optimizer = {{ lr = 1e-3 }}
    "#,
        weights.display()
    );
    let plan = of(&text).unwrap();
    for part in &plan.parts {
        let n_held = if part.name == "connector" { 0 } else { part.n_in_matrices.unwrap() };
        // The Conformer's channel-wise kernels stay as they are: less than a percent.
        let expected = 4 * part.n_parameters - 2 * n_held;
        let more = part.weight_bytes - expected;
        assert!(more < part.n_parameters / 50, "{}: {more}", part.name);
    }
    let wide = of(&text.replace("bf16", "f32")).unwrap();
    assert_eq!(wide.parts[2].weight_bytes, 4 * wide.parts[2].n_parameters);
    let trains = |patterns: &str| text.replace("[\"connector\"]", patterns);
    assert!(of(&trains("[\"connector\", \"language_model.model.norm\"]")).is_ok());
    let found = of(&trains("[\"language_model\"]")).unwrap_err().0;
    assert!(found.len() == 1 && found[0].contains("bf16"), "{found:?}");
    assert!(found[0].contains("language_model.model.embed_tokens.weight"), "{found:?}");
    let found = of(&trains("[\"encoder.layers.0\"]")).unwrap_err().0;
    assert!(found[0].contains("held in f16"), "{found:?}");
}

/// A folder that is not given yet keeps nobody from planning; with mistakes it is told among them.
#[test]
fn what_is_missing_is_no_mistake() {
    let elsewhere = "source = \"text\", path = \"$books/a.txt\"";
    let text = TEXT.replace("source = \"documents\", n = 20", elsewhere);
    let plan = of(&text).unwrap();
    assert!(!plan.trainable);
    assert_eq!(plan.missing.len(), 1);
    assert!(plan.missing[0].contains("--path books=DIR"), "{:?}", plan.missing);
    assert!(plan.to_string().contains("before it can be trained: stage[0].data[0].path: $books"));
    let wrong = problems(&text.replace("steps = 3", "steps = 0"));
    assert!(wrong.iter().any(|problem| problem.contains("$books")), "{wrong:?}");
}

/// A recipe of the repository, with other values.
fn recipe_with(path: &str, set: &[(&str, &str)]) -> Result<Plan, Problems> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes").join(path);
    let set = set.iter().map(|&(at, value)| (at.to_owned(), value.to_owned())).collect();
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights");
    let paths = vec![("foundation".to_owned(), weights.display().to_string())];
    let recipe = crate::recipe::read(&path, &Overrides { set, paths }).unwrap();
    plan(&recipe, path.parent().unwrap(), &nowhere())
}

/// The smoke recipe with what is set.
fn vocoder(set: &[(&str, &str)]) -> Result<Plan, Problems> {
    recipe_with("smoke/vocoder.toml", set)
}

#[test]
fn a_vocoder_is_counted() {
    let found = vocoder(&[]).unwrap();
    assert_eq!((found.kind, found.trainable, found.parts.len()), ("vocoder", true, 1));
    // Twenty units; two blocks of kernel 3; four frames of a unit; norm; 20 bands, and twice 241 bins.
    let block = 3 * 16 + 2 * 16 + (16 * 24 + 24) + (24 * 16 + 16);
    let heads = 17 * (20 + 2 * 241);
    assert_eq!(found.n_parameters, 20 * 16 + 2 * block + (16 * 64 + 64) + 2 * 16 + heads);
    let stage = &found.stages[0];
    // Two seconds of 25 units.
    assert_eq!((stage.tokens_per_step, stage.n_items), (Some(50), Some(20)));
    assert_eq!(stage.audio_s_per_step, Some(2.0));
    let work = |plan: &Plan| plan.stages[0].work.as_ref().unwrap()[0].forward;
    // 200 frames go through a block over frames, 50 units through one over units.
    let more = |field: &str| work(&vocoder(&[(field, "2")]).unwrap()) - work(&found);
    let of_block = 2.0 * 50.0 * (3.0 * 16.0 + 2.0 * 16.0 * 24.0);
    assert_eq!(more("model.vocoder.unit_layers"), of_block);
    assert_eq!(more("model.vocoder.frame_layers"), 4.0 * of_block);
    assert!(found.memory.activation_bytes.unwrap() > 0, "{:?}", found.memory);
}

#[test]
fn what_a_vocoder_cannot_be_is_said() {
    let check = |at: &str, value: &str, parts: &[&str]| {
        let found = vocoder(&[(at, value)]).unwrap_err().0;
        for part in parts {
            assert!(found.iter().any(|problem| problem.contains(part)), "{part}: {found:#?}");
        }
    };
    check("model.vocoder.hop", "150", &["model.vocoder", "hop is 150", "640 samples"]);
    check("model.vocoder.hop", "0", &["hop is 0"]);
    check("model.vocoder.overlap", "4", &["overlap is 4, expected an odd number"]);
    check("model.vocoder.overlap", "33", &["5280 samples, expected at most 4096"]);
    check("model.vocoder.n_mels", "999", &["n_mels is 999, expected 1 to 240"]);
    check("model.crop_s", "0.0", &["crop_s is 0"]);
    check("model.crop_s", "3.0", &["max_length is 2 s, a crop has 3"]);
    check("model.units", "{ from = \"files\", n = 20 }", &["model.units: from is \"files\""]);
    check("stage.0.loss", "{ mel = 0.0, spectra = 0.0 }", &["mel and spectra are 0"]);
    check("stage.0.loss", "{ spectra = -1.0 }", &["spectra is -1"]);
    check("stage.0.gradient_checkpointing", "true", &["stage[0].gradient_checkpointing"]);
    let written = "[{ source = \"stories\", form = \"written\", n = 9 }]";
    check("stage.0.data", written, &["gives nothing that a vocoder model learns from"]);
    let faster = "[{ source = \"wild\", n = { en = 9 }, speed = [0.9, 1.1] }]";
    check("stage.0.data", faster, &["a vocoder would learn to sound so"]);
    check("eval.recognizer", "\"none\"", &["eval.recognizer", "none does not exist"]);
    let found = vocoder(&[("eval.recognizer", "\"$mine\"")]).unwrap();
    assert!(!found.trainable && found.missing[0].contains("--path mine=DIR"), "{found:?}");
    check("eval.manifest", "\"a.jsonl\"", &["a vocoder says Microworld's sentences again"]);
    check_one(CTC, "steps = 2", "steps = 2\nloss = { mel = 0.5 }", &["loss.mel", "vocoders"]);
    let eval = "name = \"tiny\"\n eval = { n = 2, recognizer = \".\" }";
    check_one(CTC, "name = \"tiny\"", eval, &["eval.recognizer", "leave it out"]);
}

#[test]
fn what_is_read_off_the_nearest_embeddings_has_no_vector_a_token() {
    let connector = "{ kind = \"distance_ctc\", blank_vector = false }";
    let set = [("model.connector", connector), ("stage.0.loss", "{ embedding = {} }")];
    let found = recipe_with("smoke/zoo/slm.toml", &set).unwrap_err().0;
    assert!(found.iter().any(|problem| problem.contains("one by one")), "{found:#?}");
}

#[test]
fn an_encoder_that_cannot_write_cuts_nothing() {
    let encoder = r#"{ from = "hugging_face", path = "hf:openai/whisper-large-v3@06f233fe06e710322aca913c1bc4249a0d71fce1" }"#;
    for (name, place) in [("ssr", "model.segmenter"), ("ctc_collapse", "model.connector")] {
        let path = format!("connectors/{name}.toml");
        recipe_with(&path, &[]).unwrap();
        let found = recipe_with(&path, &[("model.encoder", encoder)]).unwrap_err().0;
        let named = |problem: &String| problem.starts_with(place) && problem.contains("CTC head");
        assert!(found.iter().any(named), "{found:#?}");
    }
}

#[test]
fn documents_beside_speech_are_counted() {
    let [alone, beside] = ["full", "multitask"].map(|name| {
        let batch = "{ max_items = 4, max_length = 400 }";
        recipe_with(&format!("connectors/forms/{name}.toml"), &[("stage.1.batch", batch)]).unwrap()
    });
    // As many seconds are more tokens where they are read than where they are heard.
    let read = |plan: &Plan| plan.stages[1].work.as_ref().unwrap().last().unwrap().forward;
    assert!(read(&beside) > 1.05 * read(&alone), "{} {}", read(&beside), read(&alone));
    assert!(beside.memory.activation_bytes > alone.memory.activation_bytes);
    assert_eq!(beside.stages[0].work, alone.stages[0].work);
}

#[test]
fn the_lattice_has_the_encoder_s_frames() {
    let plan = recipe_with("smoke/wav2vec2_encoder.toml", &[]).unwrap();
    // 7.5 s at 50 frames of one step, 120 characters with blanks around, 24 bytes each.
    assert_eq!(plan.memory.lattice_bytes, 375 * 241 * 24);
}

#[test]
fn padded_utterances_count_as_30_s() {
    let whisper = CTC.replace(
        "kind = \"conformer\", d_model = 16, n_layers = 1, n_heads = 2, d_ff = 32, kernel = 3",
        "kind = \"whisper\", d_model = 16, n_layers = 1, n_heads = 2, d_ff = 32, max_frames = 1500",
    );
    let padded =
        whisper.replace("{ kind = \"whisper\" }", "{ kind = \"whisper\", pad_to_30_s = true }");
    let full = of(&whisper.replace("max_length = 60", "max_length = 120")).unwrap();
    let padded = of(&padded).unwrap();
    assert_eq!(padded.stages[0].tokens_per_step, Some(4 * 1500));
    assert_eq!(padded.stages[0].work, full.stages[0].work);
    assert_eq!(padded.memory.activation_bytes, full.memory.activation_bytes);
    // 3,000 steps, but no more characters than 15 s have.
    assert_eq!(padded.memory.lattice_bytes, 3000 * 481 * 24);

    let slm = |pad: &str, set: &[(&str, &str)]| {
        let set = [&[("model.encoder.pad_to_30_s", pad)], set].concat();
        recipe_with("paper/slm_whisper_qwen.toml", &set).unwrap()
    };
    let (one, two) = ("{ max_items = 1, max_length = 30 }", "{ max_items = 2, max_length = 30 }");
    let natural = slm("false", &[("stage.0.batch", one)]);
    let padded = slm("true", &[("stage.0.batch", two)]);
    // Two items of 15 s are as many frames as two of 30 s.
    for (natural, padded) in natural.stages.iter().zip(&padded.stages).take(1) {
        assert_eq!(padded.tokens_per_step, natural.tokens_per_step.map(|n| 2 * n));
        let connector = |stage: &StagePlan| stage.work.as_ref().unwrap()[1].forward;
        assert_eq!(connector(padded), 2.0 * connector(natural));
    }
}

#[test]
fn tables_in_16_bits_are_not_trained() {
    let trainable = "[\"connector\", \"encoder.rel_attn_embed\"]";
    let set = [("stage.0.trainable", trainable)];
    let found = recipe_with("paper/slm_wavlm_llama.toml", &set).unwrap_err().0;
    let named =
        |problem: &String| problem.contains("encoder.rel_attn_embed.weight is held in bf16");
    assert!(found.iter().any(named), "{found:#?}");
}

#[test]
fn what_checkpointing_and_16_bits_do_not_save_is_told() {
    let samples = CTC
        .replace(
            "kind = \"conformer\", d_model = 16, n_layers = 1, n_heads = 2, d_ff = 32, kernel = 3",
            "kind = \"wav2vec2\", d_model = 16, n_layers = 1, n_heads = 2, d_ff = 32, position_bias = {}",
        )
        .replace("features = { kind = \"whisper\" }", "features = { kind = \"waveform\" }");
    let asked =
        |steps: &str| samples.replace(steps, &format!("{steps}\ngradient_checkpointing = true"));
    let told = |text: &str, what: &str| {
        of(text).unwrap().warnings.into_iter().filter(|w| w.contains(what)).collect::<Vec<_>>()
    };
    let what = "gradient_checkpointing";
    assert_eq!(told(&samples, what), Vec::<String>::new());
    let found = told(&asked("steps = 2"), what);
    assert!(found.len() == 1 && found[0].starts_with("stage[0]."), "{found:?}");
    // The second stage trains the head, and no gradient reaches the encoder.
    assert_eq!(told(&asked("steps = 3"), what), Vec::<String>::new());
    let plain = asked("steps = 2").replace(", position_bias = {}", "");
    assert_eq!(told(&plain, what), Vec::<String>::new());

    let dtypes = |set: &[(&str, &str)]| -> Vec<String> {
        let warnings = recipe_with("paper/slm_wavlm_llama.toml", set).unwrap().warnings;
        warnings.into_iter().filter(|w| w.contains("dtype")).collect()
    };
    // No gradient reaches the frozen encoder.
    let found = dtypes(&[]);
    assert!(found.len() == 1 && found[0].starts_with("model.language_model.dtype"), "{found:?}");
    let lora = "{ rank = 4, alpha = 8, targets = [\"encoder.*.q_proj\"] }";
    let learns = [("model.lora", lora), ("stage.0.trainable", "[\"connector\", \"*lora_*\"]")];
    assert_eq!(dtypes(&learns).len(), 2);
    assert_eq!(dtypes(&[("model.language_model.dtype", "\"f32\"")]), Vec::<String>::new());
}

#[test]
fn what_a_network_begins_as_is_checked() {
    let smoke = |set: &[(&str, &str)]| recipe_with("smoke/lst_from_text.toml", set);
    let found = smoke(&[]).unwrap();
    let part = |name: &str| found.parts.iter().find(|part| part.name == name).unwrap();
    // The text model with a row for one marker and twenty units more, and the gate.
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/language_model");
    let hub = nowhere();
    let text = crate::model::AnyModel::load_text(&weights, &Device::flex(), &hub).unwrap();
    let n = text.lm.num_params() as u64;
    assert_eq!(part("global").n_parameters, n + 21 * 192 + 192);
    let work = &found.stages[0].work.as_ref().unwrap()[1];
    assert!(work.forward > 0.0 && work.backward > work.forward);

    let refused = |set: &[(&str, &str)], parts: &[&str]| {
        let Problems(found) = smoke(set).unwrap_err();
        assert_eq!(found.len(), 1, "{found:#?}");
        parts.iter().for_each(|part| assert!(found[0].contains(part), "{part}: {found:?}"));
    };
    refused(&[("model.tokenizer", "{ vocab_size = 300 }")], &["model: tokenizer", "beside"]);
    let sizes = ["model.network.text: has other settings", "n_layers = 6", "d_ff = 512"];
    refused(&[("model.network.text.n_layers", "5")], &sizes);
    let held = "{ from = \"directory\", path = \"$foundation/language_model\", dtype = \"bf16\" }";
    refused(&[("model.language_model", held)], &["dtype is bf16", "f32"]);
    let declared = "{ from = \"declared\", name = \"a\", n_parameters = 9, width = 192 }";
    refused(&[("model.language_model", declared)], &["is declared"]);
    let encoder = "{ from = \"directory\", path = \"$foundation/encoder\" }";
    refused(&[("model.language_model", encoder)], &["holds a ctc model, expected text"]);
    let stack = "{ n_layers = 1, n_heads = 2, d_ff = 32 }";
    let without = format!(
        "{{ kind = \"patch\", d_local = 16, d_global = 32, n_queries = 2, cross_heads = 2, encoder = {stack}, \
         global = {stack}, decoder = {stack} }}"
    );
    refused(&[("model.network", &without)], &["model.network.text: is missing", "n_heads = 6"]);
    let Problems(found) = recipe_with(
        "smoke/lst.toml",
        &[("model.network.text", "{ d_model = 8, n_layers = 1, n_heads = 2, d_ff = 8 }")],
    )
    .unwrap_err();
    assert!(found.iter().any(|problem| problem.contains("given beside text")), "{found:?}");
}
