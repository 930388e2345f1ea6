use std::{path::Path, sync::Arc};

use burn::prelude::Device;
use sandhi_data::{
    batch::{BucketConfig, BucketPlan},
    interleave::{self, Document, SpeechSpan},
    patching::{Closure, Patches, Patching, PatchingConfig, StaticConfig, UnitMerges},
    rng::Stream,
    text::{JointVocabulary, Mode, Symbol, Tokenizer},
    units::{Format, UnitCorpus, UnitUtterance, UnitWord, UnitWriter, UnitsHeader},
};
use sandhi_nn::{init::Init, patch::Closing, ragged::Offsets, transformer::Dropout};

use super::{dataset::READINGS, *};
use crate::{
    chat::END,
    recipe::{BatchConfig, Form, Measure, Overrides, read_str},
    train::{
        dataset::{Dataset, Draw},
        learner::Measured,
    },
};

fn vocabulary() -> Arc<JointVocabulary> {
    let texts = ["anna took the red ball to the kitchen"; 4];
    let tokenizer = Tokenizer::train_bpe(texts, 280, &[END]).unwrap();
    Arc::new(JointVocabulary::extend(&tokenizer, END, END, 5).unwrap())
}

/// Eight words of three units, a silence of two between them.
fn utterance(id: &str) -> UnitUtterance {
    let words = "anna took the red ball to the kitchen".split(' ').zip(0_u32..);
    UnitUtterance {
        id: id.to_owned(),
        units: (0..38).map(|i| i % 5).collect(),
        words: words.map(|(word, i)| (word.to_owned(), 5 * i, 5 * i + 3).into()).collect(),
        text: None,
        language: None,
    }
}

fn network(patches: bool) -> NetworkConfig {
    let stack = |n: usize| serde_json::json!({ "n_layers": n, "n_heads": 2, "d_ff": 12 });
    let config = if patches {
        serde_json::json!({
            "kind": "patch", "d_local": 8, "d_global": 16, "n_queries": 2, "cross_heads": 2,
            "encoder": stack(1), "global": stack(1), "decoder": stack(1),
        })
    } else {
        serde_json::json!({
            "kind": "plain", "d_model": 8, "n_layers": 1, "n_heads": 2, "d_ff": 12,
        })
    };
    serde_json::from_value(config).unwrap()
}

fn dataset(patches: bool, measure: Measure) -> SpeechTextDataset {
    let vocabulary = vocabulary();
    let rule = Patching::new(PatchingConfig::Static(StaticConfig { size: 4 }), None);
    SpeechTextDataset {
        cutting: if patches { Cutting::Given(rule, Closure::Causal) } else { Cutting::Plain },
        context: 200,
        rate_hz: 25.0,
        merges: None,
        material: Material::Interleaved(Utterances::Here(vec![utterance("a"), utterance("b")])),
        meter: Meter { measure, network: network(patches), n_vocabulary: vocabulary.n_tokens() },
        vocabulary,
    }
}

/// Another reading has other blocks, the same one the same; every target follows its token.
#[test]
fn every_epoch_has_documents_of_its_own() {
    let dataset = dataset(true, Measure::Tokens);
    let load = |key| dataset.load(&[0, 1], Draw { key, progress: Some(0.0) });
    let (first, again) = (load(1), load(1));
    assert_eq!((&first.ids, &first.targets), (&again.ids, &again.targets));
    assert!((2..12).any(|key| load(key).ids != first.ids));
    for span in Offsets::from_lengths(&first.lengths).iter() {
        let (ids, targets) = (&first.ids[span.clone()], &first.targets[span]);
        assert_eq!(ids[1..], targets[..targets.len() - 1]);
        assert_eq!(ids[0], dataset.vocabulary.begin());
        assert_eq!(targets.last(), Some(&dataset.vocabulary.end()));
    }
    // Every word is written once or said once, whatever the blocks.
    let HostBoundaries::Given(closings) = &first.boundaries else { panic!("they are given") };
    assert_eq!(closings.len(), first.ids.len());
    assert_eq!(first.speech_s, first.n_of(TargetKind::Speech) / 25.0);
    assert!(first.n_words <= 16, "{}", first.n_words);
}

/// A word that is said without a unit of its own begins where its block ends, and is not a written one.
#[test]
fn words_count_as_written_by_their_first_piece() {
    let dataset = dataset(false, Measure::Tokens);
    let vocabulary = &dataset.vocabulary;
    let unit = vocabulary.unit(0).unwrap();
    let piece = vocabulary.tokenizer().encode(" ball").unwrap()[0];
    let (text, speech) = (vocabulary.marker(Mode::Text), vocabulary.marker(Mode::Speech));
    let document = Document {
        ids: vec![vocabulary.begin(), speech, unit, unit, text, piece, vocabulary.end()],
        spans: vec![SpeechSpan { tokens: 2..4, word: Some(0) }],
        words: vec![2, 4, 5, 7],
        n_units: 2,
    };
    let mut batch = SpeechTextBatch::new(&Cutting::Plain);
    batch.push(&document, &[], vocabulary, &Cutting::Plain, Draw::FIXED, "");
    assert_eq!(batch.n_words, 1);
}

#[test]
fn what_a_token_tells_of_patches_by_hand() {
    // B | a b c d | e | T: complete at d, e is ended by T.
    let patches = Patches { ends: vec![1, 5, 6, 7], closes: vec![0, 4, 6, 6] };
    let told = |before, after| Closing { before, after };
    let open = told(false, false);
    let expected = [told(false, true), open, open, open, told(false, true), open, told(true, true)];
    assert_eq!(closings_of(&patches), expected);
    // The published shift tells at e; the end of what is there ends nothing.
    let patches = Patches { ends: vec![1, 2, 3], closes: vec![0, 1, 3] };
    assert_eq!(closings_of(&patches), [told(false, true), told(false, true), open]);
}

#[test]
fn kinds_of_tokens_are_means_of_their_own() {
    let dataset = dataset(true, Measure::Tokens);
    let batch = dataset.load(&[0, 1], Draw::FIXED);
    let device = Device::flex();
    let net = network(true).init(dataset.vocabulary.n_tokens(), &Init::new(1, &device));
    let loss = LossConfig::default();
    let size = batch.size(&loss);
    let count = |name| size.counts.iter().find(|(n, _)| *n == name).unwrap().1;
    let found = crate::train::step::losses(&net, std::slice::from_ref(&batch), &loss);
    let term = |name: &str| found.terms[name];
    let kinds = ["text", "speech", "marker"];
    assert_eq!(count("ce"), kinds.into_iter().map(count).sum::<f64>());
    let is_text = |id: &&u32| matches!(dataset.vocabulary.symbol(**id), Some(Symbol::Text));
    assert_eq!(count("text"), batch.targets.iter().filter(is_text).count() as f64);
    assert!(count("marker") >= 4.0, "a block and an end of each document");
    let sum: f64 = kinds.into_iter().map(|kind| term(kind) * count(kind)).sum();
    assert!((sum / count("ce") - term("ce")).abs() < 1e-5);
    assert!((found.total - term("ce")).abs() < 1e-6, "only what is learned is in the total");
    let per_second = term("speech") * count("speech") / batch.speech_s;
    assert!((term("speech_per_s") - per_second).abs() < 1e-3);
    assert!(term("patches_per_token") < 0.8, "{}", term("patches_per_token"));
    // One by one the documents have the losses that they have together.
    let alone: Vec<SpeechTextBatch> = (0..2).map(|i| dataset.load(&[i], Draw::FIXED)).collect();
    let apart = crate::train::step::losses(&net, &alone, &loss);
    assert!((apart.total - found.total).abs() < 1e-6);
}

/// The same documents cost their tokens, their patches or what is computed of them.
#[test]
fn batches_are_measured_by_what_is_held_equal() {
    let of = |patches, measure| dataset(patches, measure).costs()[0];
    let tokens = of(true, Measure::Tokens);
    assert_eq!(tokens, of(false, Measure::Tokens));
    assert_eq!(tokens, of(false, Measure::Patches));
    let patches = of(true, Measure::Patches);
    assert!(patches < tokens && 3 * patches > tokens, "{patches} of {tokens}");
    // Patches are those that become whole where the network reads, and each token of text is one.
    let read = dataset(true, Measure::Patches);
    let net = network(true).init(read.vocabulary.n_tokens(), &Init::new(1, &Device::flex()));
    let ran: usize = read
        .readings()
        .into_iter()
        .map(|draw| {
            let patched = net.hidden(&read.load(&[0], draw), Dropout::OFF).1.unwrap();
            patched.n_patches.iter().sum::<usize>()
        })
        .sum();
    assert_eq!(patches, 1000 * ran as u64 / READINGS);
    let written = |patches| {
        let document = interleave::written("the red ball", &read.vocabulary).unwrap();
        let material = Material::Fixed(vec![(document, Arc::from([]))]);
        SpeechTextDataset { material, ..dataset(patches, Measure::Patches) }.costs()
    };
    assert_eq!(written(true), written(false));
    // A plain network: 2 operations a parameter and token, and what attention does.
    let plain = of(false, Measure::Operations) as f64 * 1e3;
    let n = tokens as f64 / 1e3;
    let vocabulary = vocabulary().n_tokens() as f64;
    let weights = 4.0 * 64.0 + 3.0 * 8.0 * 12.0 + 8.0 * vocabulary;
    let expected = 2.0 * weights * n + 4.0 * 8.0 * n * (n + 1.0) / 2.0;
    assert!((plain / expected - 1.0).abs() < 0.05, "{plain}, not {expected}");
}

/// Utterances like those of a corpus: 30 to 56 words of 1 to 11 units.
fn corpus(n: usize) -> Utterances {
    let utterance = |i: usize| {
        let mut stream = Stream::named(i as u64, "corpus");
        let mut end = 0;
        let mut word = |_| {
            let start = end + stream.below(4) as u32;
            end = start + 1 + stream.below(11) as u32;
            ("anna".to_owned(), start, end).into()
        };
        let words: Vec<UnitWord> = (0..30 + i % 27).map(&mut word).collect();
        let units = (0..end).map(|unit| unit % 5).collect();
        UnitUtterance { id: i.to_string(), units, words, text: None, language: None }
    };
    Utterances::Here((0..n).map(utterance).collect())
}

/// Batches as long as those of LST are full of documents of any length, as many as fit on average over readings;
/// a reading is a little longer or shorter.
#[test]
fn batches_are_full() {
    let material = Material::Interleaved(corpus(2_000));
    let dataset = SpeechTextDataset { context: 1024, material, ..dataset(true, Measure::Tokens) };
    let max_cost = 16_000_000;
    let config = BucketConfig { max_cost, max_items: 4_096, n_buckets: 8 };
    let plan = BucketPlan::new(dataset.costs(), config).unwrap();
    let draw = Draw { key: 3, progress: Some(0.5) };
    let mut full: Vec<f64> = plan
        .epoch(1, 0)
        .iter()
        .map(|indices| dataset.load(indices, draw).ids.len() as f64 / 16_000.0)
        .collect();
    // One batch is the rest of the epoch.
    full.sort_by(f64::total_cmp);
    full.remove(0);
    let mean = full.iter().sum::<f64>() / full.len() as f64;
    assert!(full.len() > 10 && mean >= 0.98, "{full:?}");
    assert!(full.iter().all(|full| (0.9..1.1).contains(full)), "{full:?}");
}

/// Two tokens of short texts to one of long utterances, whatever batches are measured by and hold.
#[test]
fn sources_are_mixed_by_tokens() {
    const LST: &str = include_str!("../../../../../recipes/smoke/lst.toml");
    let recipe = read_str(LST, Path::new("lst.toml"), &Overrides::default()).unwrap();
    let mut stage = recipe.stages[0].clone();
    (stage.batch.max_items, stage.batch.max_length) = (8, 2_000.0);
    let texts = (0..300).map(|i| {
        let text = vec!["the red ball"; 1 + i % 3].join(" ");
        (interleave::written(&text, &vocabulary()).unwrap(), Arc::from([]))
    });
    let texts: Vec<Reading> = texts.collect();
    for measure in [Measure::Tokens, Measure::Patches] {
        let of = |material| SpeechTextDataset { context: 1024, material, ..dataset(true, measure) };
        let sources = vec![
            (Some(1.0), of(Material::Interleaved(corpus(100)))),
            (Some(2.0), of(Material::Fixed(texts.clone()))),
        ];
        let (mut mixture, sources) = crate::train::mixture(sources, &stage, 7, None).unwrap();
        let mut n_tokens = [0.0; 2];
        for key in 0..1_000 {
            let step = mixture.next_step();
            let draw = Draw { key, progress: Some(0.5) };
            let batch = sources[step.source].load(&step.batch.indices, draw);
            n_tokens[step.source] += batch.ids.len() as f64;
        }
        let share = n_tokens[1] / n_tokens.iter().sum::<f64>();
        assert!((share - 2.0 / 3.0).abs() < 0.02, "{measure:?}: {share}");
    }
}

#[test]
fn measures_have_names() {
    let text = "max_items = 2\nmax_length = 10.0\nmeasure = \"operations\"";
    let batch: BatchConfig = toml::from_str(text).unwrap();
    assert_eq!(batch.measure, Measure::Operations);
}

/// Each form of an utterance is the document that its name says.
#[test]
fn an_utterance_has_its_sides_in_the_order_of_its_form() {
    let vocabulary = vocabulary();
    let utterance = UnitUtterance {
        id: "a".into(),
        units: vec![2, 1],
        words: Vec::new(),
        text: Some("red kitchen".into()),
        language: None,
    };
    let of = |form| document_of(form, &utterance, &vocabulary, &mut Stream::new(0)).unwrap().ids;
    let begin = vec![vocabulary.begin()];
    let end = vec![vocabulary.end()];
    let said: Vec<u32> = vec![
        vocabulary.marker(Mode::Speech),
        vocabulary.unit(2).unwrap(),
        vocabulary.unit(1).unwrap(),
    ];
    let pieces = vocabulary.tokenizer().encode("red kitchen").unwrap();
    let written = [vec![vocabulary.marker(Mode::Text)], pieces].concat();
    let all = |parts: &[&Vec<u32>]| -> Vec<u32> {
        parts.iter().flat_map(|part| part.iter().copied()).collect()
    };
    assert_eq!(of(Form::Spoken), all(&[&begin, &said, &end]));
    assert_eq!(of(Form::Written), all(&[&begin, &written, &end]));
    assert_eq!(of(Form::Transcribed), all(&[&begin, &said, &written, &end]));
    assert_eq!(of(Form::Voiced), all(&[&begin, &written, &said, &end]));
}

/// What stays in files is what would be in memory, merged or not, and what is taken out is gone from both.
#[test]
fn utterances_of_files_are_those_in_memory() {
    let header = UnitsHeader { quantizer: "q".into(), n_units: 5, rate_hz: 25.0 };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.units");
    let all: Vec<UnitUtterance> = ["a", "b", "c", "d"].map(utterance).into();
    let mut writer = UnitWriter::create(&path, Format::Binary, header.clone()).unwrap();
    all.iter().for_each(|utterance| writer.push(utterance).unwrap());
    writer.finish().unwrap();
    let sequences: Vec<Vec<u32>> = all.iter().map(|utterance| utterance.units.clone()).collect();
    let merges = Arc::new(UnitMerges::learn(&header, &sequences, 3).unwrap());
    for merges in [None, Some(merges)] {
        let tokens = |utterance: &UnitUtterance| match &merges {
            Some(merges) => merges.apply_to(utterance.clone()).unwrap(),
            None => utterance.clone(),
        };
        let corpus = UnitCorpus::open(std::slice::from_ref(&path)).unwrap();
        let indices = (0..corpus.len()).collect();
        let merges = merges.clone();
        let mut there = Utterances::InFiles { corpus, indices, merges };
        let mut here = Utterances::Here(all.iter().map(tokens).collect());
        for utterances in [&mut there, &mut here] {
            utterances.retain(|utterance| Ok(utterance.id != "b")).unwrap();
        }
        assert_eq!((there.len(), here.len()), (3, 3));
        for i in 0..3 {
            assert_eq!(there.get(i).unwrap(), here.get(i).unwrap());
        }
        assert_eq!(here.get(1).unwrap().id, "c");
        let refused = there.retain(|utterance| match utterance.id.as_str() {
            "c" => Err(interleave::Error::Wordless { id: "c".to_owned() }),
            _ => Ok(true),
        });
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("a.units: number 2: utterance \"c\""), "{refused}");
        assert_eq!(there.len(), 3);
    }
}

#[test]
fn what_is_said_is_its_text_or_its_words() {
    let utterance = |text: Option<&str>| UnitUtterance {
        id: "a".into(),
        units: vec![0; 4],
        words: vec![("hello".to_owned(), 0, 2).into(), ("there".to_owned(), 2, 4).into()],
        text: text.map(str::to_owned),
        language: None,
    };
    assert_eq!(text_of(&utterance(Some("Hello, there."))), "Hello, there.");
    assert_eq!(text_of(&utterance(None)), "hello there");
}
