//! Scores held against `jiwer`, `sacrebleu` and `whisper_normalizer`; made by
//! `tools/golden/scores.py`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Golden {
    signatures: BTreeMap<String, BTreeMap<String, String>>,
    scores: Vec<Case>,
    /// A text; basic, without diacritics, by letters; English.
    normalized: Vec<[String; 5]>,
}

#[derive(Deserialize)]
struct Case {
    refs: Vec<String>,
    hyps: Vec<String>,
    /// Rate, hits, substitutions, deletions, insertions.
    wer: (f64, usize, usize, usize, usize),
    cer: (f64, usize, usize, usize, usize),
    bleu: BTreeMap<String, f64>,
    chrf: BTreeMap<String, f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../tests/golden/scores.json")).unwrap()
}

fn bleu_config(name: &str) -> BleuConfig {
    let config = BleuConfig::default();
    match name {
        "13a" => config,
        "intl" | "char" | "none" => BleuConfig { tokenizer: name.parse().unwrap(), ..config },
        "lc" => BleuConfig { lowercase: true, ..config },
        "floor" => BleuConfig { smoothing: Smoothing::Floor(0.1), ..config },
        "add-k" => BleuConfig { smoothing: Smoothing::AddK(1.0), ..config },
        "unsmoothed" => BleuConfig { smoothing: Smoothing::None, ..config },
        "effective" => BleuConfig { effective_order: true, ..config },
        _ => panic!("unknown configuration {name}"),
    }
}

fn chrf_config(name: &str) -> ChrfConfig {
    let config = ChrfConfig::default();
    match name {
        "chrF2" => config,
        "chrF2++" => ChrfConfig::plus_plus(),
        "lc" => ChrfConfig { lowercase: true, ..config },
        "space" => ChrfConfig { whitespace: true, ..config },
        "eps" => ChrfConfig { eps_smoothing: true, word_order: 1, ..config },
        "beta3" => ChrfConfig { beta: 3, char_order: 4, ..config },
        _ => panic!("unknown configuration {name}"),
    }
}

#[track_caller]
fn close(found: f64, expected: f64, what: &str, case: &Case) {
    let Case { refs, hyps, .. } = case;
    assert!(
        (found - expected).abs() < 1e-6,
        "{what}: {found}, expected {expected}: {refs:?} {hyps:?}"
    );
}

#[test]
fn error_rates_equal_jiwers() {
    for case in golden().scores {
        for (name, rate, expected) in [
            ("wer", wer(&case.refs, &case.hyps).unwrap(), case.wer),
            ("cer", cer(&case.refs, &case.hyps).unwrap(), case.cer),
        ] {
            close(rate.rate, expected.0, name, &case);
            let ErrorRate { hits, substitutions, deletions, insertions, .. } = rate;
            let found = (expected.0, hits, substitutions, deletions, insertions);
            assert_eq!(found, expected, "{name} of {:?} {:?}", case.refs, case.hyps);
        }
    }
}

#[test]
fn bleu_equals_sacrebleus() {
    for case in golden().scores {
        for (name, &expected) in &case.bleu {
            let score = bleu_config(name).bleu(&case.refs, &case.hyps).unwrap();
            close(score.score, expected, name, &case);
        }
    }
}

#[test]
fn chrf_equals_sacrebleus() {
    for case in golden().scores {
        for (name, &expected) in &case.chrf {
            let score = chrf_config(name).chrf(&case.refs, &case.hyps).unwrap();
            close(score.score, expected, name, &case);
        }
    }
}

#[test]
fn signatures_equal_sacrebleus_up_to_the_version() {
    let golden = golden();
    let settings = |signature: &str| signature.rsplit_once("|version:").unwrap().0.to_owned();
    for (name, expected) in &golden.signatures["bleu"] {
        assert_eq!(settings(&bleu_config(name).signature()), settings(expected));
    }
    for (name, expected) in &golden.signatures["chrf"] {
        assert_eq!(settings(&chrf_config(name).signature()), settings(expected));
    }
}

#[test]
fn normalized_texts_equal_whispers() {
    let normalizers = [
        Normalizer::Basic,
        Normalizer::BasicWithoutDiacritics,
        Normalizer::BasicLetters,
        Normalizer::English,
    ];
    let mut wrong = Vec::new();
    for [text, expected @ ..] in golden().normalized {
        for (normalizer, expected) in normalizers.into_iter().zip(&expected) {
            let found = normalizer.apply(&text);
            if found != *expected {
                wrong.push(format!("{normalizer} of {text:?}: {found:?}, expected {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
