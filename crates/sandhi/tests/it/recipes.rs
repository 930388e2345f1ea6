use std::{fs, path::Path};

use sandhi_lab::{
    model::Segmenter,
    recipe::{ModelConfig, Overrides, StageConfig},
};

use super::sandhi;

const TINY: &str = r#"
name = "tiny"
seed = 1
[model]
kind = "text"
tokenizer = { vocab_size = 300 }
language_model = { d_model = 16, n_layers = 1, n_heads = 2, d_ff = 32 }
[[stage]]
name = "pretrain"
steps = 3
trainable = ["*"]
data = [{ source = "text", path = "$books/a.txt" }]
batch = { max_items = 4, max_length = 400 }
optimizer = { lr = 1e-3 }
"#;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn the_paper_s_adapter_is_planned() {
    let recipe = "recipes/paper/slm.toml";
    let text = sandhi(root(), &["plan", recipe]).works();
    assert!(text.contains("155.6 M") && text.contains("1.03 %"), "{text}");
    let plan = sandhi(root(), &["plan", recipe, "--json"]).json();
    assert_eq!(plan["parts"][1]["n_in_matrices"], 155_648_000);
    assert_eq!(plan["trainable"], false);
    assert!(plan["stages"][0]["step_s"].is_null(), "{plan}");
    let timed = sandhi(root(), &["plan", recipe, "--json", "--rate", "300T"]).json();
    let stage = &timed["stages"][0];
    let number = |name: &str| stage[name].as_f64().unwrap();
    assert_eq!(number("step_s"), number("operations_per_step") / 300e12);
    let wrong = sandhi(root(), &["plan", recipe, "--rate", "fast"]);
    assert!(wrong.code == 2 && wrong.err.contains("such as 300e12"), "{}", wrong.err);
}

/// The compressor of four of Llama's blocks, counted without its memory.
#[test]
fn the_segment_connector_is_planned_at_its_published_width() {
    let nowhere = tempfile::tempdir().unwrap();
    let cache = nowhere.path().display().to_string();
    let args = ["plan", "recipes/paper/ssr_dinosr_llama.toml", "--json", "--rate", "300e12"];
    let plan = sandhi(root(), &[&args[..], &["--offline", "--hub-cache", &cache]].concat()).json();
    assert_eq!(plan["parts"][1]["n_parameters"], 875_597_824_u64);
    assert_eq!(plan["parts"][2]["n_parameters"], 8_030_261_248_u64);
    assert_eq!(plan["trainable"], false);
    assert!(plan["stages"][0]["step_s"].as_f64().unwrap() > 0.0, "{plan}");
}

/// The recipes on published models resolve on any machine: no weights, no corpora, no network.
#[test]
fn recipes_on_published_models_are_planned_without_their_weights() {
    let nowhere = tempfile::tempdir().unwrap();
    let cache = nowhere.path().display().to_string();
    let adapter = 0.005..0.02;
    for (name, encoder, language_model, n_missing, expected) in [
        ("slm_whisper_qwen", 636_968_960_u64, 7_615_616_512_u64, 7, &adapter),
        ("slm_wavlm_llama", 315_451_968, 8_030_261_248, 7, &adapter),
        ("slm_whisper_llama", 636_968_960, 8_030_261_248, 7, &adapter),
        ("slm_wavlm_qwen", 315_451_968, 7_615_616_512, 7, &adapter),
        ("otreg_whisper_qwen", 636_968_960, 7_615_616_512, 9, &adapter),
        // A compressor of Llama's width.
        ("ssr_hubert_llama", 94_370_816, 8_030_261_248, 5, &(0.09..0.11)),
    ] {
        let recipe = format!("recipes/paper/{name}.toml");
        let offline = ["--offline", "--hub-cache", &cache];
        let plan = |more: &[&str]| {
            sandhi(root(), &[&["plan", recipe.as_str()], &offline[..], more].concat())
        };
        let found = plan(&["--json", "--rate", "300e12"]).json();
        assert_eq!(found["parts"][0]["n_parameters"], encoder, "{name}");
        assert_eq!(found["parts"][2]["n_parameters"], language_model, "{name}");
        // About 1 % of all is trained by an adapter, and no part is only declared.
        let (trained, all) = (&found["n_trained"], &found["n_parameters"]);
        let share = trained.as_f64().unwrap() / all.as_f64().unwrap();
        assert!(expected.contains(&share), "{name}: {share}");
        assert_eq!(found["trainable"], false);
        let missing: Vec<&str> =
            found["missing"].as_array().unwrap().iter().filter_map(|line| line.as_str()).collect();
        assert_eq!(missing.len(), n_missing, "{missing:?}");
        assert!(missing[0].contains("sandhi download hf:"), "{missing:?}");
        let text = plan(&["--rate", "300e12"]).works();
        assert!(text.contains("before it can be trained"), "{text}");
        let train = [&["train", &recipe, "--out", "run"], &offline[..]].concat();
        sandhi(root(), &train).fails_with(&["is not in the cache"]);
    }
}

/// Connectors that are compared are about as large, learn from the same data for the same steps beside frozen models, and
/// the one that is told more than in use says so.
#[test]
fn connectors_are_compared_at_equal_size() {
    let read = |path: &Path| sandhi_lab::recipe::read(path, &Overrides::default()).unwrap();
    for (folder, first, n_recipes, n_steps) in
        [("connectors", "slm", 16, 1600), ("connectors/forms", "frozen", 8, 1400)]
    {
        let folder = root().join("recipes").join(folder);
        let first = read(&folder.join(first).with_extension("toml"));
        let recipes = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let recipes: Vec<_> =
            recipes.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
        assert_eq!(recipes.len(), n_recipes, "{recipes:?}");
        for path in recipes {
            let plan = sandhi(root(), &["plan", path.to_str().unwrap(), "--json"]).json();
            let recipe = read(&path);
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert_eq!((recipe.name.as_str(), recipe.seed), (name, first.seed));
            let n = plan["parts"][1]["n_parameters"].as_f64().unwrap();
            assert!((0.75..1.25).contains(&(n / 487_000.0)), "{name} has {n}");
            assert_eq!(plan["trainable"], true, "{name}");
            let ModelConfig::Connector(model) = &recipe.model else { panic!("{name}") };
            let is_told = model.segmenter == Some(Segmenter::Forced);
            assert_eq!((is_told, recipe.oracle), (name == "ssr_forced", is_told), "{name}");
            assert_eq!(recipe.stages.iter().map(|s| s.steps).sum::<u64>(), n_steps, "{name}");
            assert_eq!(recipe.eval, first.eval, "{name}");
            for (stage, of_first) in recipe.stages.iter().zip(&first.stages) {
                assert_eq!((stage.steps, &stage.batch), (of_first.steps, &of_first.batch));
                if first.name == "slm" {
                    // Losses and compression alone are the connector's own.
                    let alike = StageConfig {
                        loss: of_first.loss.clone(),
                        compression: of_first.compression,
                        ..stage.clone()
                    };
                    assert_eq!(&alike, of_first, "{name}");
                }
            }
        }
    }
}

#[test]
fn what_is_declared_is_not_trained() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let recipe = root().join("recipes/paper/slm.toml");
    let args = ["train", recipe.to_str().unwrap(), "--out", out.to_str().unwrap()];
    sandhi(dir.path(), &args).fails_with(&["only declared", "planned, not trained"]);
    assert!(!out.exists());
}

#[test]
fn all_mistakes_of_a_recipe_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.toml");
    let run = |text: &str, args: &[&str]| {
        fs::write(&path, text).unwrap();
        sandhi(dir.path(), &[&["plan", "r.toml"], args].concat())
    };
    // Of form: told while reading.
    let text = TINY.replace("seed = 1", "seed = 1\nsed = 2").replace("steps = 3", "steps = \"x\"");
    run(&text, &[]).fails_with(&["r.toml", "sed", "stage[0].steps"]);
    // Of meaning: told by the plan.
    let text = TINY.replace("steps = 3", "steps = 0").replace("= 300", "= 30");
    run(&text, &["--set", "stage.0.optimizer.lr=0"]).fails_with(&[
        "r.toml",
        "stage[0]: steps is 0",
        "lr is 0",
        "vocab_size",
        "--path books=DIR",
    ]);
    fs::write(dir.path().join("a.txt"), "Some words to learn from.").unwrap();
    let plan = run(TINY, &["--path", "books=.", "--json"]).json();
    // Two tables of 300·16, a block 4·16² + 3·16·32 + 2·16, the last norm 16.
    assert_eq!(plan["n_parameters"], 2 * 4800 + 1024 + 1536 + 32 + 16);
    assert_eq!(plan["stages"][0]["tokens"], 1200);
}

#[test]
fn files_that_are_no_recipes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    sandhi(dir.path(), &["plan", "none.toml"]).fails_with(&["none.toml", "No such file"]);
    fs::write(dir.path().join("r.toml"), "name = \"a\"\nseed = \n").unwrap();
    sandhi(dir.path(), &["plan", "r.toml"]).fails_with(&["r.toml", "line 2"]);
    fs::write(dir.path().join("r.toml"), [0xff, 0xfe]).unwrap();
    sandhi(dir.path(), &["plan", "r.toml"]).fails_with(&["r.toml", "not UTF-8"]);
}

#[test]
fn output_folders_are_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("r.toml"), TINY).unwrap();
    fs::write(dir.path().join("a.txt"), "Some words to learn from.").unwrap();
    fs::create_dir(dir.path().join("run")).unwrap();
    fs::write(dir.path().join("run/mine"), "x").unwrap();
    let args = ["train", "r.toml", "--path", "books=.", "--out", "run"];
    sandhi(dir.path(), &args).fails_with(&["run exists and is not empty", "--resume"]);
    let args = ["train", "r.toml", "--path", "books=.", "--out", "run", "--resume"];
    sandhi(dir.path(), &args).fails_with(&["no run to resume", "recipe.json"]);
}
