//! Every connector through the whole program: planned, trained, saved, loaded, asked.

use std::fs;

use super::{sandhi, sine};

/// The folder with a small recipe of each.
const ZOO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/smoke/zoo");

#[test]
fn every_connector_is_trained_and_asked() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["sweep", ZOO, "--seeds", "1", "--out", "zoo", "--cache", "cache", "--quiet"];
    sandhi(dir.path(), &args).works();
    let table = sandhi(dir.path(), &["table", "zoo"]).works();
    sine(&dir.path().join("tone.wav"), 1.0);
    let recipes = fs::read_dir(ZOO).unwrap().map(|entry| entry.unwrap().path());
    let mut n = 0;
    for recipe in recipes {
        let name = recipe.file_stem().unwrap().to_str().unwrap().to_owned();
        // An oracle is called one.
        let row = if name == "ssr_forced" { "ssr_forced (oracle)" } else { &name };
        assert!(table.contains(&format!("| {row} |")), "{row} is not in: {table}");
        let metrics = dir.path().join(format!("zoo/{name}/seed-1/metrics.jsonl"));
        let last = fs::read_to_string(metrics).unwrap();
        assert!(last.lines().all(|line| !line.contains("\"finite\":false")), "{name}: {last}");
        let model = format!("zoo/{name}/seed-1/model");
        let heard = sandhi(dir.path(), &["transcribe", &model, "tone.wav"]);
        if name == "ssr_forced" {
            heard.fails_with(&["tone.wav", "segmenter = \"forced\""]);
        } else {
            heard.works();
        }
        n += 1;
    }
    assert_eq!(n, 15);
    // What a vector has no time of its own for is not drawn.
    let geometry = ["inspect", "geometry", "zoo/ssr/seed-1/model", "--n", "1", "--cache", "cache"];
    sandhi(dir.path(), &geometry).fails_with(&["do not stand for equal times"]);
    // Where it is cut is, and the first utterance of an evaluation is drawn.
    let segments = |name: &str, more: &[&str]| {
        let model = format!("zoo/{name}/seed-1/model");
        sandhi(dir.path(), &[&["inspect", "segments", &model, "tone.wav"], more].concat())
    };
    let found = segments("cif", &["--text", "one two", "--out", "x.svg"]).works();
    for name in ["forced (oracle)", "ctc ", "cif ", "nearest"] {
        assert!(found.contains(name), "{name} is not in: {found}");
    }
    let svg = fs::read_to_string(dir.path().join("x.svg")).unwrap();
    assert!(svg.contains("data-lane=\"cif\"") && svg.trim_end().ends_with("</svg>"), "{svg}");
    segments("ssr_forced", &[]).fails_with(&["tone.wav", "segmenter = \"forced\""]);
    let known = segments("ssr_forced", &["--text", "one two", "--json"]).json();
    assert_eq!(known["cuts"][2]["is_oracle"], true);
    let pictures = fs::read_dir(dir.path().join("zoo/ssr/seed-1/pictures")).unwrap();
    let names: Vec<String> =
        pictures.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() == 1 && names[0].starts_with("asr.base."), "{names:?}");
    let id = names[0].rsplit('.').nth(1).unwrap();
    let said = ["inspect", "segments", "zoo/slm/seed-1/model", id, "--cache", "cache", "--json"];
    let said = sandhi(dir.path(), &said).json();
    assert_eq!(said["words"][0]["source"], "exact", "{}", said["text"]);
    let unknown = ["inspect", "segments", "zoo/slm/seed-1/model", "nobody"];
    sandhi(dir.path(), &unknown).fails_with(&["nobody", "neither a file nor the id"]);
}

#[test]
fn what_does_not_fit_a_connector_is_planned_away() {
    let dir = tempfile::tempdir().unwrap();
    let plan = |recipe: &str, set: &[&str]| {
        let recipe = format!("{ZOO}/{recipe}.toml");
        let set: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
        sandhi(dir.path(), &[&["plan", recipe.as_str()], &set[..]].concat())
    };
    plan("ssr_forced", &["oracle=false"]).fails_with(&["model.segmenter", "oracle = true"]);
    plan("ssr", &["model.connector.d_hidden=12", "model.connector.output=false"])
        .fails_with(&["model.connector"]);
    plan("slm", &["model.segmenter='ctc'"]).fails_with(&["model.segmenter", "leave it out"]);
    plan("cif", &["model.connector.kernel=4"]).fails_with(&["kernel"]);
    plan("conv", &["model.connector.d_bottleneck=4294967296"])
        .fails_with(&["d_bottleneck is 4294967296", "65536"]);
    plan("stack_mlp", &["model.connector.reduction=0"]).fails_with(&["reduction is 0"]);
    plan("q_former", &["model.connector.heads=2"]).fails_with(&["heads"]);
    plan("stack_swiglu", &["stage.0.loss.distillation.depths=[9]"])
        .fails_with(&["distillation.depths", "9 is not below"]);
    plan("stack_swiglu", &["stage.0.loss.distillation.temperature=0.0"])
        .fails_with(&["temperature is 0"]);
    plan("slm", &["stage.0.loss.next_token=1.0"]).fails_with(&["one by one"]);
    plan("distance_ctc", &["model.connector.tokens=[99999]"]).fails_with(&["99999"]);
    plan("multitask", &["stage.0.trainable=['connector']"])
        .fails_with(&["source \"documents\" teaches nothing", "nothing of the language model"]);
    plan("multitask", &["stage.0.loss.text=0.0"]).fails_with(&["loss.text is 0"]);
    plan("multitask", &["stage.0.batch.max_length=1.0"]).fails_with(&["4 tokens"]);
    plan("ssr", &["model.connector.pool='fire'"]).fails_with(&["needs cut.by"]);
    plan("ssr_cif", &["model.segmenter='ctc'"]).fails_with(&["model.segmenter", "leave it out"]);
    plan("ssr", &["model.connector.d_ff=0"]).fails_with(&["d_ff is 0"]);
    plan("ssr", &["stage.0.loss.next_token=-1.0"]).fails_with(&["next_token is -1"]);
}
