use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use super::*;
use crate::{
    log::read_metrics,
    model::fingerprint,
    recipe::{Overrides, read_str},
    train::{Measurement, StepReport},
};

/// Says nothing and stops after so many steps of this call.
struct Silent {
    stop_after: u64,
    steps: AtomicU64,
}

impl Silent {
    fn new(stop_after: u64) -> Self {
        Self { stop_after, steps: AtomicU64::new(0) }
    }
}

impl Monitor for Silent {
    fn now_s(&self) -> f64 {
        0.0
    }
    fn wall_s(&self) -> f64 {
        0.0
    }
    fn clock(&self) -> Box<dyn Fn() -> f64 + Send> {
        Box::new(|| 0.0)
    }
    fn stopping(&self) -> bool {
        self.steps.load(Ordering::SeqCst) >= self.stop_after
    }
    fn stage(&mut self, _: &str, _: u64, _: u64) {}
    fn step(&mut self, _: &StepReport) {
        self.steps.fetch_add(1, Ordering::SeqCst);
    }
    fn measured(&mut self, _: u64, _: &Measurement) {}
    fn peak_bytes(&self) -> Option<u64> {
        None
    }
    fn note(&mut self, _: &str) {}
    fn preparing(&self, _: &str, _: usize, _: usize) {}
}

const RECIPE: &str = include_str!("../../../../recipes/smoke/language_model.toml");

fn recipe(set: &[(&str, &str)]) -> Recipe {
    let set = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    read_str(RECIPE, Path::new("smoke.toml"), &Overrides { set, paths: vec![] }).unwrap()
}

fn place(dir: &Path, resume: bool) -> Place {
    Place {
        dir: dir.join("run"),
        resume,
        base: dir.to_owned(),
        cache: dir.join("cache"),
        device: Device::flex(),
        hub: Hub::offline(dir.join("hub")),
        shared: None,
    }
}

fn losses(dir: &Path) -> Vec<(String, u64, u64)> {
    read_metrics(&dir.join("run/metrics.jsonl"))
        .unwrap()
        .iter()
        .filter_map(|r| Some((r.stage.clone(), r.step, r.number("loss")?.to_bits())))
        .collect()
}

/// Runs to the end, being stopped after every so many steps.
fn in_pieces(recipe: &Recipe, stop_after: u64) -> (tempfile::TempDir, AnyModel) {
    let dir = tempfile::tempdir().unwrap();
    let mut resume = false;
    loop {
        let mut monitor = Silent::new(stop_after);
        match run(recipe, &place(dir.path(), resume), &mut monitor).unwrap() {
            End::Done(model) => return (dir, *model),
            End::Interrupted => resume = true,
        }
    }
}

fn hash(model: &AnyModel) -> String {
    let AnyModel::Text(model) = model else { panic!("a text recipe makes a text model") };
    model::fingerprint(&model.lm)
}

#[test]
fn a_run_in_pieces_has_the_same_losses_to_the_last_bit() {
    let recipe = recipe(&[]);
    let (whole_dir, whole) = in_pieces(&recipe, u64::MAX);
    let (pieces_dir, pieces) = in_pieces(&recipe, 3);
    assert_eq!(losses(whole_dir.path()).len(), 8);
    assert_eq!(losses(whole_dir.path()), losses(pieces_dir.path()));
    assert_eq!(hash(&whole), hash(&pieces));
}

/// OTReg with everything that it has, on the foundation models, in a folder of its own.
fn otreg(dir: &Path, set: &[(&str, &str)], stop_after: u64) -> (Vec<(String, u64, u64)>, String) {
    const OTREG: &str = include_str!("../../../../recipes/smoke/otreg.toml");
    let set = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let paths = vec![("foundation".to_owned(), format!("{root}/weights"))];
    let overrides = Overrides { set, paths };
    let recipe = read_str(OTREG, Path::new("otreg.toml"), &overrides).unwrap();
    let mut resume = false;
    loop {
        let mut monitor = Silent::new(stop_after);
        match run(&recipe, &place(dir, resume), &mut monitor).unwrap() {
            End::Interrupted => resume = true,
            End::Done(model) => {
                let AnyModel::Connector(model) = *model else { panic!("a connector") };
                return (losses(dir), model::fingerprint(&model.connector));
            }
        }
    }
}

#[test]
fn transport_in_pieces_has_the_same_losses_to_the_last_bit() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let at = dir.path().join(name);
        std::fs::create_dir(&at).unwrap();
        at
    };
    let (losses, connector) = otreg(&at("whole"), &[], u64::MAX);
    assert_eq!(losses.len(), 7);
    assert_eq!((losses, connector), otreg(&at("pieces"), &[], 2));

    // A step over two batches is the same on one replica and on two.
    let set = |replicas| [("stage.1.batch.accumulate", "2"), ("stage.1.batch.replicas", replicas)];
    let (one, _) = otreg(&at("one"), &set("1"), u64::MAX);
    let (two, _) = otreg(&at("two"), &set("2"), u64::MAX);
    for (one, two) in one.iter().zip(&two) {
        let (one, two) = (f64::from_bits(one.2), f64::from_bits(two.2));
        assert!((one - two).abs() < 1e-4, "{one} with one replica, {two} with two");
    }
}

/// An aligner, of units or of frames; its folder stays for as long as what is returned.
fn aligner(set: &[(&str, &str)], stop_after: u64) -> (tempfile::TempDir, AnyModel) {
    const ALIGNER: &str = include_str!("../../../../recipes/smoke/aligner.toml");
    let set = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let overrides = Overrides { set, paths: vec![] };
    in_pieces(&read_str(ALIGNER, Path::new("aligner.toml"), &overrides).unwrap(), stop_after)
}

#[test]
fn an_aligner_in_pieces_has_the_same_losses_and_is_what_was_saved() {
    let (whole_dir, whole) = aligner(&[], u64::MAX);
    let (pieces_dir, pieces) = aligner(&[], 2);
    assert_eq!(losses(whole_dir.path()).len(), 7);
    assert_eq!(losses(whole_dir.path()), losses(pieces_dir.path()));
    let net = |model: &AnyModel| match model {
        AnyModel::Aligner(model) => (model::fingerprint(&model.net), model.units.clone()),
        other => panic!("a {} model", other.kind()),
    };
    assert_eq!(net(&whole), net(&pieces));
    assert_eq!(net(&whole).1.map(|units| (units.n_clusters(), units.width())), Some((8, 80)));
    let (dir, hub) = (whole_dir.path().join("run/model"), Hub::offline(PathBuf::new()));
    let loaded = AnyModel::load(&dir, &Device::flex(), &hub).unwrap();
    assert_eq!(net(&loaded), net(&whole));
    // It gives the same numbers.
    let (AnyModel::Aligner(loaded), AnyModel::Aligner(whole)) = (loaded, whole) else { panic!() };
    let samples: Vec<f32> = (0..8_000).map(|i| (i as f32 * 0.05).sin() * 0.1).collect();
    let rows = loaded.log_probs(&samples, &[1, 2, 1]).unwrap();
    assert_eq!(rows, whole.log_probs(&samples, &[1, 2, 1]).unwrap());
    assert_eq!((rows.len(), loaded.symbols), (75, whole.symbols));
    // Centers of the file that a run has found, and frames without any.
    let found = whole_dir.path().join("run/units.npy").display().to_string();
    let units = format!("{{ from = \"file\", path = {found:?} }}");
    let (file_dir, _) = aligner(&[("model.units", &units)], u64::MAX);
    assert_eq!(losses(file_dir.path()), losses(whole_dir.path()));
    // Scores over units are a loss of their own, and as repeatable.
    let units = [("model.aligner", "{ d_model = 16, softmax = \"units\", n_layers = 0 }")];
    let (units_dir, units_model) = aligner(&units, u64::MAX);
    let (pieces_dir, pieces) = aligner(&units, 2);
    assert_eq!(losses(units_dir.path()), losses(pieces_dir.path()));
    assert_ne!(losses(units_dir.path()), losses(whole_dir.path()));
    assert_eq!(net(&units_model), net(&pieces));
}

/// A model over text and units of the foundation encoder.
fn speech_text(set: &[(&str, &str)], stop_after: u64) -> (tempfile::TempDir, AnyModel) {
    const LST: &str = include_str!("../../../../recipes/smoke/lst.toml");
    let set = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let paths = vec![("foundation".to_owned(), format!("{root}/weights"))];
    let overrides = Overrides { set, paths };
    in_pieces(&read_str(LST, Path::new("lst.toml"), &overrides).unwrap(), stop_after)
}

#[test]
fn a_model_over_units_in_pieces_has_the_same_losses_and_is_what_was_saved() {
    let (whole_dir, whole) = speech_text(&[], u64::MAX);
    let (pieces_dir, pieces) = speech_text(&[], 2);
    assert_eq!(losses(whole_dir.path()).len(), 4);
    assert_eq!(losses(whole_dir.path()), losses(pieces_dir.path()));
    let of = |model: AnyModel| match model {
        AnyModel::SpeechText(model) => *model,
        other => panic!("a {} model", other.kind()),
    };
    let (whole, pieces) = (of(whole), of(pieces));
    assert_eq!(model::fingerprint(&whole.net), model::fingerprint(&pieces.net));
    assert_eq!(whole.units, pieces.units);
    assert_eq!((whole.units.n_units, whole.units.rate_hz), (20, 25.0));
    let (dir, hub) = (whole_dir.path().join("run/model"), Hub::offline(PathBuf::new()));
    let loaded = of(AnyModel::load(&dir, &Device::flex(), &hub).unwrap());
    assert_eq!(loaded.units, whole.units);
    // It hears the same units, and gives the same numbers.
    let samples: Vec<f32> = (0..16_000).map(|i| (i as f32 * 0.05).sin() * 0.1).collect();
    let units = |model: &crate::model::SpeechTextModel| {
        model.hearing.as_ref().unwrap().units(&samples).unwrap()
    };
    assert_eq!(units(&loaded), units(&whole));
    let document = sandhi_data::interleave::written("Anna is here.", &whole.vocabulary).unwrap();
    let documents = [(document, std::sync::Arc::from([]))];
    let numbers = loaded.log_probs(&documents).unwrap();
    assert_eq!(numbers, whole.log_probs(&documents).unwrap());
    let short = crate::model::SpeechTextModel { context: 3, ..whole.clone() };
    let error = short.log_probs(&documents).unwrap_err().to_string();
    assert!(error.contains("the model's context is 3"), "{error}");
    let beginning = vec![documents[0].0.ids[..4].to_vec()];
    let gone_on = short.go_on(&beginning, &[9], None, &[], &crate::generate::Decoding::default());
    assert!(gone_on.is_err());
    // Everyone goes on as far as it may, whatever its neighbors may, and not beyond the context.
    let begun = vec![beginning[0].clone(); 3];
    let decoding = crate::generate::Decoding::default();
    let mode = Some(sandhi_data::text::Mode::Text);
    let said = |model: &crate::model::SpeechTextModel| -> Vec<Vec<u32>> {
        let found = model.go_on(&begun, &[5, 2, 0], mode, &[], &decoding).unwrap();
        found.into_iter().map(|(answer, _)| answer.ids).collect()
    };
    let found = said(&whole);
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [5, 2, 0]);
    assert_eq!(found[1], found[0][..2]);
    let short = crate::model::SpeechTextModel { context: 7, ..whole.clone() };
    assert_eq!(said(&short)[0], found[0][..3]);

    // Every network and rule learns from the same recipe.
    let plain = "{ kind = \"plain\", d_model = 16, n_layers = 1, n_heads = 2, d_ff = 32 }";
    let stack = "{ n_layers = 1, n_heads = 2, d_ff = 32 }";
    let learned = format!(
        "{{ kind = \"patch\", d_local = 16, d_global = 32, n_queries = 2, cross_heads = 2, encoder = {stack}, \
         global = {stack}, decoder = {stack}, router = {{}} }}"
    );
    let curriculum = "{ kind = \"curriculum\", size = 4 }";
    let entropy = "{ kind = \"entropy\", units_per_patch = 3.0 }";
    for set in [
        vec![("model.network", plain)],
        vec![("model.network", learned.as_str())],
        vec![("model.patching", curriculum), ("stage.0.batch.measure", "operations")],
        vec![("model.patching", entropy), ("stage.0.batch.measure", "patches")],
    ] {
        let (dir, model) = speech_text(&set, u64::MAX);
        assert_eq!(losses(dir.path()).len(), 4);
        assert_ne!(losses(dir.path()), losses(whole_dir.path()));
        assert_eq!(model.kind(), "speech_text");
        // What depends on how far training is, and on what a batch costs, is where it was.
        let (pieces_dir, _) = speech_text(&set, 2);
        assert_eq!(losses(dir.path()), losses(pieces_dir.path()));
        let folder = dir.path().join("run/model");
        let loaded = of(AnyModel::load(&folder, &Device::flex(), &hub).unwrap());
        assert_eq!(loaded.patching, of(model).patching);
        goes_on_as_it_was_taught(&loaded);
    }
}

/// What follows when tokens are read one by one is what is likeliest where whole documents are read.
fn goes_on_as_it_was_taught(model: &crate::model::SpeechTextModel) {
    let vocabulary = &model.vocabulary;
    let begin = [vocabulary.begin(), vocabulary.marker(sandhi_data::text::Mode::Speech)];
    let units = (0..16).filter_map(|i| vocabulary.unit(i * 7 % 20));
    let ids = begin.into_iter().chain(units);
    let ids: Vec<u32> = ids.collect();
    let decoding = crate::generate::Decoding::default();
    let said = |beginning: &[u32], n: usize| -> Vec<u32> {
        let found = model.go_on(&[beginning.to_vec()], &[n], None, &[], &decoding).unwrap();
        found[0].0.ids.clone()
    };
    for n in (3..14).step_by(3) {
        let followed_by = |id: u32| sandhi_data::interleave::Document {
            ids: ids[..n].iter().copied().chain([id]).collect(),
            spans: Vec::new(),
            words: Vec::new(),
            n_units: n - 2,
        };
        let all =
            (0..vocabulary.n_tokens() as u32).map(|id| (followed_by(id), std::sync::Arc::from([])));
        let log_probs = model.log_probs(&all.collect::<Vec<_>>()).unwrap();
        let last = log_probs.iter().map(|row| row[n - 1]).enumerate();
        let likeliest = last.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0 as u32;
        let answer = said(&ids[..n], 5);
        assert_eq!(answer[0], likeliest, "behind {n} tokens");
        // The same when what was said is read as a beginning.
        let longer = [&ids[..n], &answer[..3]].concat();
        assert_eq!(said(&longer, 2), answer[3..]);
    }
    // Whoever goes on beside it, and for however long, does not matter.
    let beginnings = [3, 16, 7, 12, 5].map(|n| ids[..n].to_vec());
    let at_once = |batch: usize| -> Vec<(Vec<u32>, usize)> {
        let decoding = crate::generate::Decoding { batch, ..decoding.clone() };
        let found = model.go_on(&beginnings, &[6, 3, 8, 5, 4], None, &[], &decoding).unwrap();
        found.into_iter().map(|(answer, steps)| (answer.ids, steps)).collect()
    };
    let alone = at_once(1);
    assert_eq!(alone.iter().map(|(ids, _)| ids.len()).collect::<Vec<_>>(), [6, 3, 8, 5, 4]);
    assert!([2, 3, 8].into_iter().all(|batch| at_once(batch) == alone));
}

/// A second stage has patches of one size from its first step, as if there had been no curriculum.
#[test]
fn a_curriculum_is_over_after_the_first_stage() {
    let stage = |name: &str| {
        format!(
            "{{ name = {name:?}, steps = 2, trainable = [\"*\"], data = [{{ source = \"stories\", n = 24 }}], \
             batch = {{ max_items = 8, max_length = 2000 }}, \
             optimizer = {{ lr = 1e-3, schedule = {{ kind = \"constant\" }} }} }}"
        )
    };
    let stages = format!("[{}, {}]", stage("first"), stage("second"));
    let patches = |patching: &str| -> Vec<f64> {
        let set = [("stage", stages.as_str()), ("model.patching", patching)];
        let (dir, _) = speech_text(&set, u64::MAX);
        let steps = read_metrics(&dir.path().join("run/metrics.jsonl")).unwrap();
        steps.iter().filter_map(|r| r.number_in("terms", "patches_per_token")).collect()
    };
    let curriculum = patches("{ kind = \"curriculum\", size = 4 }");
    let one_size = patches("{ kind = \"static\", size = 4 }");
    assert_eq!((curriculum.len(), one_size.len()), (4, 4));
    assert_ne!(curriculum[0], one_size[0]);
    assert_eq!(curriculum[2..], one_size[2..]);
}

/// Patches around the text foundation model: what is resumed has begun in the same way, what is loaded is whole.
#[test]
fn a_text_model_goes_on_over_patches_in_pieces() {
    const FROM_TEXT: &str = include_str!("../../../../recipes/smoke/lst_from_text.toml");
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let paths = vec![("foundation".to_owned(), format!("{root}/weights"))];
    let overrides = Overrides { set: vec![], paths };
    let recipe = read_str(FROM_TEXT, Path::new("from_text.toml"), &overrides).unwrap();
    let (whole_dir, whole) = in_pieces(&recipe, u64::MAX);
    let (pieces_dir, pieces) = in_pieces(&recipe, 2);
    assert_eq!(losses(whole_dir.path()).len(), 4);
    assert_eq!(losses(whole_dir.path()), losses(pieces_dir.path()));
    let net = |model: &AnyModel| match model {
        AnyModel::SpeechText(model) => model::fingerprint(&model.net),
        other => panic!("a {} model", other.kind()),
    };
    assert_eq!(net(&whole), net(&pieces));
    let (dir, hub) = (whole_dir.path().join("run/model"), Hub::offline(PathBuf::new()));
    assert_eq!(net(&AnyModel::load(&dir, &Device::flex(), &hub).unwrap()), net(&whole));
    // It begins as what has read stories before: what is written costs less than what nobody has learned.
    let AnyModel::SpeechText(model) = &whole else { panic!("it is one") };
    let story = sandhi_data::interleave::written("Anna went to the kitchen.", &model.vocabulary);
    let log_probs = model.log_probs(&[(story.unwrap(), std::sync::Arc::from([]))]).unwrap();
    let mean = log_probs[0].iter().sum::<f64>() / log_probs[0].len() as f64;
    assert!(mean > -5.0, "{mean}, of 1,301 tokens all alike have {}", -(1301.0_f64).ln());
}

/// A vocoder of units of the foundation encoder.
fn vocoder(set: &[(&str, &str)], stop_after: u64) -> (tempfile::TempDir, AnyModel) {
    const VOCODER: &str = include_str!("../../../../recipes/smoke/vocoder.toml");
    let set = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let paths = vec![("foundation".to_owned(), format!("{root}/weights"))];
    let overrides = Overrides { set, paths };
    in_pieces(&read_str(VOCODER, Path::new("vocoder.toml"), &overrides).unwrap(), stop_after)
}

#[test]
fn a_vocoder_in_pieces_has_the_same_losses_and_is_what_was_saved() {
    let (whole_dir, whole) = vocoder(&[], u64::MAX);
    let (pieces_dir, pieces) = vocoder(&[], 2);
    assert_eq!(losses(whole_dir.path()).len(), 5);
    assert_eq!(losses(whole_dir.path()), losses(pieces_dir.path()));
    let of = |model: AnyModel| match model {
        AnyModel::Vocoder(model) => *model,
        other => panic!("a {} model", other.kind()),
    };
    let (whole, pieces) = (of(whole), of(pieces));
    assert_eq!(model::fingerprint(&whole.net), model::fingerprint(&pieces.net));
    assert_eq!((whole.units.n_units, whole.units.rate_hz), (20, 25.0));
    let (dir, hub) = (whole_dir.path().join("run/model"), Hub::offline(PathBuf::new()));
    let loaded = of(AnyModel::load(&dir, &Device::flex(), &hub).unwrap());
    assert_eq!(loaded.units, whole.units);
    // It hears the same units, and says them to the last bit.
    let samples: Vec<f32> = (0..16_000).map(|i| (i as f32 * 0.05).sin() * 0.1).collect();
    let units = loaded.hearing.units(&samples).unwrap();
    assert_eq!(units, whole.hearing.units(&samples).unwrap());
    let said = loaded.say(&units).unwrap();
    assert_eq!((&said, said.samples.len()), (&whole.say(&units).unwrap(), 16_000));
    // A vocoder for the centers that another run has found.
    let found = whole_dir.path().join("run/units.npy").display().to_string();
    let centers = format!("{{ from = \"file\", path = {found:?} }}");
    let (file_dir, file) = vocoder(&[("model.units.centers", &centers)], u64::MAX);
    assert_eq!((losses(file_dir.path()), of(file).units), (losses(whole_dir.path()), whole.units));
    // One loss alone, and crops longer than what is heard.
    let set = [("stage.0.loss", "{ spectra = 0.0 }"), ("model.crop_s", "50.0")];
    let set = [&set[..], &[("stage.0.batch.max_length", "100")]].concat();
    let (long_dir, _) = vocoder(&set, u64::MAX);
    assert_eq!(losses(long_dir.path()).len(), 5);
}

#[test]
fn a_run_belongs_to_one_process_and_one_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let small = recipe(&[]);
    let lock = claim(&small, &place(dir.path(), false)).unwrap();
    for resume in [false, true] {
        let error =
            run(&small, &place(dir.path(), resume), &mut Silent::new(u64::MAX)).unwrap_err();
        assert!(matches!(error, Error::Busy { .. }), "{error}");
    }
    drop(lock);
    // A finished run is that of its recipe, too; every field that differs is named once.
    run(&small, &place(dir.path(), true), &mut Silent::new(u64::MAX)).unwrap();
    let other = Recipe { seed: 9, about: "another".into(), ..small };
    let provenance = crate::experiment::Provenance::default();
    let place = place(dir.path(), true);
    let found = crate::experiment::run(&other, &place, &provenance, &mut Silent::new(u64::MAX));
    let Err(error) = found else { panic!("it is another recipe's") };
    assert!(error.to_string().ends_with("differs in: about, seed"), "{error}");
    std::fs::write(place.dir.join("recipe.json"), "null").unwrap();
    let error = claim(&other, &place).unwrap_err();
    assert!(matches!(error, Error::NothingToResume { .. }), "{error}");
}

#[test]
fn layers_that_run_again_change_no_loss() {
    let set = [("stage.0.dropout", "0.1"), ("stage.0.batch.replicas", "2")];
    let (plain_dir, plain) = in_pieces(&recipe(&set), u64::MAX);
    let set = [&set[..], &[("stage.0.gradient_checkpointing", "true")]].concat();
    let (again_dir, again) = in_pieces(&recipe(&set), u64::MAX);
    assert_eq!(losses(plain_dir.path()), losses(again_dir.path()));
    assert_eq!(hash(&plain), hash(&again));
}

#[test]
fn branches_learn_beside_a_frozen_model() {
    let lora = r#"{ rank = 2, alpha = 4, targets = ["*.q_proj", "*.down_proj"] }"#;
    let set = [("model.lora", lora), ("stage.0.trainable", r#"["*lora_*"]"#)];
    let (plain_dir, plain) = in_pieces(&recipe(&[("stage.0.optimizer.lr", "1e-30")]), u64::MAX);
    let (whole_dir, whole) = in_pieces(&recipe(&set), u64::MAX);
    let (pieces_dir, pieces) = in_pieces(&recipe(&set), 3);
    assert_eq!(losses(whole_dir.path()), losses(pieces_dir.path()));
    assert_eq!(hash(&whole), hash(&pieces));
    // Branches begin as nothing, and the first loss is that of the model without them.
    let (plain_losses, losses) = (losses(plain_dir.path()), losses(whole_dir.path()));
    assert_eq!(plain_losses[0].2, losses[0].2);
    assert_ne!(plain_losses.last(), losses.last());

    let loaded = AnyModel::load(
        &whole_dir.path().join("run/model"),
        &Device::flex(),
        &Hub::offline(PathBuf::new()),
    )
    .unwrap();
    assert_eq!(hash(&loaded), hash(&whole));
    let AnyModel::Text(mut loaded) = loaded else { panic!("a text model was saved") };
    let AnyModel::Text(plain) = plain else { panic!("a text model was made") };
    for (name, tensor) in lora::lora_weights(&loaded.lm) {
        assert!(tensor.values.iter().any(|&v| v != 0.0), "{name} did not learn");
    }
    for (_, linear) in lora::Linears::linears(&mut loaded.lm) {
        linear.lora = None;
    }
    assert_eq!(fingerprint(&loaded.lm), fingerprint(&plain.lm));
}

#[test]
fn a_stage_that_recipes_share_is_trained_once() {
    let second = |steps: &str| {
        let text = RECIPE.split("[[stage]]").nth(1).unwrap();
        let text = text.split("[eval]").next().unwrap();
        let text = text.replacen("name = \"", "name = \"second_", 1);
        let text = format!("{RECIPE}\n[[stage]]\n{text}");
        let set = vec![("stage.1.steps".to_owned(), steps.to_owned())];
        read_str(&text, Path::new("smoke.toml"), &Overrides { set, paths: vec![] }).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let run_in = |name: &str, recipe: &Recipe, shared: Option<&str>| {
        let mut monitor = Silent::new(u64::MAX);
        let program = "test".to_owned();
        let shared = shared.map(|name| SharedStages { dir: dir.path().join(name), program });
        let at = dir.path().join(name);
        let place = Place { shared, ..place(&at, false) };
        let End::Done(model) = run(recipe, &place, &mut monitor).unwrap() else {
            panic!("nothing stops it");
        };
        (monitor.steps.into_inner(), losses(&at), hash(&model))
    };
    let (long, short) = (second("4"), second("2"));
    let n_first = long.stages[0].steps;
    let alone = run_in("alone", &short, None);
    assert_eq!(run_in("long", &long, Some("stages")).0, n_first + 4);
    let taken = run_in("short", &short, Some("stages"));
    assert_eq!((alone.0, taken.0), (n_first + 2, 2));
    assert_eq!((alone.1, alone.2), (taken.1, taken.2));
    // Another seed is another stage.
    let other = Recipe { seed: short.seed + 1, ..short };
    assert_eq!(run_in("other", &other, Some("stages")).0, n_first + 2);
}

#[test]
fn replicas_do_not_change_the_loss() {
    let (one_dir, _) = in_pieces(&recipe(&[("stage.0.batch.replicas", "1")]), u64::MAX);
    let (two_dir, _) = in_pieces(&recipe(&[("stage.0.batch.replicas", "2")]), u64::MAX);
    for (one, two) in losses(one_dir.path()).iter().zip(losses(two_dir.path())) {
        let (one, two) = (f64::from_bits(one.2), f64::from_bits(two.2));
        assert!((one - two).abs() < 1e-5, "{one} with one replica, {two} with two");
    }
}

#[test]
fn a_model_that_was_saved_is_the_model() {
    let (dir, model) = in_pieces(&recipe(&[("stage.0.steps", "2")]), u64::MAX);
    let path = dir.path().join("run/model");
    let loaded = AnyModel::load(&path, &Device::flex(), &Hub::offline(PathBuf::new())).unwrap();
    assert_eq!(hash(&model), hash(&loaded));
    // One flipped byte is found and named.
    let file = path.join(LANGUAGE_MODEL_FILE);
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error = AnyModel::load(&path, &Device::flex(), &Hub::offline(PathBuf::new()))
        .unwrap_err()
        .to_string();
    assert!(error.contains(LANGUAGE_MODEL_FILE), "{error}");
}

const LANGUAGE_MODEL_FILE: &str = "language_model.safetensors";

#[test]
fn directories_in_use_and_other_recipes_are_refused() {
    let recipe_a = recipe(&[("stage.0.steps", "1")]);
    let (dir, _) = in_pieces(&recipe_a, u64::MAX);
    let mut monitor = Silent::new(u64::MAX);
    let again = run(&recipe_a, &place(dir.path(), false), &mut monitor);
    assert!(matches!(again, Err(Error::Exists { .. })));
    let other = recipe(&[("stage.0.steps", "2")]);
    match run(&other, &place(dir.path(), true), &mut monitor) {
        Err(Error::OtherRecipe { fields, .. }) => assert_eq!(fields, "stage"),
        other => panic!("expected a refusal, found {other:?}"),
    }
    let empty = tempfile::tempdir().unwrap();
    let nothing = run(&recipe_a, &place(empty.path(), true), &mut monitor);
    assert!(matches!(nothing, Err(Error::NothingToResume { .. })));
}
