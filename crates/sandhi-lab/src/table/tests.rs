//! Whole tables from run directories.

use std::path::Path;

use super::*;
use crate::results::{
    Edits, Metric, Prediction, Results, ResultsMeta, predictions_path, write_predictions,
};

/// A run whose utterance `i` of four words has `errors[i]` substitutions.
fn run(root: &Path, recipe: &str, seed: u64, errors: &[usize]) -> PathBuf {
    let dir = root.join(format!("{recipe}-{seed}"));
    let meta = ResultsMeta {
        recipe: recipe.to_owned(),
        seed,
        oracle: recipe == "exact",
        trained_tasks: vec!["asr".to_owned()],
        costs: (recipe == "base").then_some(Costs {
            trained_parameters: 1200,
            step_s: Some(0.1 * seed as f64),
            peak_bytes: None,
        }),
        ..ResultsMeta::default()
    };
    let mut results = Results::new(meta);
    let wer = errors.iter().sum::<usize>() as f64 / (4 * errors.len()) as f64;
    results.set("asr", "base", "wer", Metric::exact(wer, errors.len()));
    results.set("asr", "base", "wer_text", Metric::exact(0.0, errors.len()));
    results.write(&dir.join("results.json")).unwrap();
    let predictions: Vec<Prediction> = errors
        .iter()
        .enumerate()
        .map(|(i, &sub)| Prediction {
            id: format!("u{i}"),
            task: "asr".to_owned(),
            domain: "base".to_owned(),
            edits: Some(Edits { sub, hits: 4 - sub, ..Edits::default() }),
            ..Prediction::default()
        })
        .collect();
    write_predictions(&predictions_path(&dir, "asr", "base"), &predictions).unwrap();
    dir
}

fn against(baseline: &str) -> TableConfig {
    TableConfig { baseline: Some(baseline.to_owned()), ..TableConfig::default() }
}

#[test]
fn rows_are_recipes_over_seeds_with_paired_differences() {
    let root = tempfile::tempdir().unwrap();
    // Everywhere one error less than the baseline: the difference is -1/4 in every resample.
    run(root.path(), "base", 1, &[1, 2, 3, 1]);
    run(root.path(), "base", 2, &[2, 2, 3, 1]);
    run(root.path(), "better", 1, &[0, 1, 2, 0]);
    run(root.path(), "better", 2, &[1, 1, 2, 0]);
    run(root.path(), "exact", 1, &[1, 2, 3, 1]);
    let table = table(&find_runs(root.path()).unwrap(), &against("base")).unwrap();

    let recipes: Vec<_> = table.rows.iter().map(|row| row.recipe.as_str()).collect();
    assert_eq!(recipes, ["base", "better", "exact"]);
    let cell = |row: usize| table.rows[row].cell("asr", "base", "wer").unwrap();
    // 7/16 and 8/16: mean 15/32, deviation (1/16) / sqrt 2.
    assert_eq!(cell(0).mean, 15.0 / 32.0);
    assert!((cell(0).sd.unwrap() - 1.0 / 16.0 / 2.0_f64.sqrt()).abs() < 1e-12);
    assert_eq!(cell(0).difference, None);
    let difference = cell(1).difference.unwrap();
    assert_eq!((difference.value, difference.lo, difference.hi), (-0.25, -0.25, -0.25));
    assert_eq!((difference.n_seeds, difference.n_utterances), (2, 8));
    assert!(difference.is_beyond_chance());
    let same = cell(2).difference.unwrap();
    assert_eq!((same.value, same.n_seeds, same.is_beyond_chance()), (0.0, 1, false));
    assert!(table.rows[2].oracle && cell(2).sd.is_none());
    assert_eq!(table.warnings, ["exact has 1 of the 2 seeds that other rows have"]);
    let json = serde_json::to_string(&table).unwrap();
    assert_eq!(serde_json::from_str::<Table>(&json).unwrap(), table);
}

#[test]
fn markdown_reads_as_a_table() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), "base", 1, &[1, 2, 3, 1]);
    run(root.path(), "base", 2, &[2, 2, 3, 1]);
    run(root.path(), "exact", 1, &[0, 1, 2, 0]);
    let table = table(&find_runs(root.path()).unwrap(), &against("base")).unwrap();
    insta::assert_snapshot!(table.to_markdown(), @r"
    ### asr: WER (lower is better)

    | recipe | seeds | base |
    |---|--:|--:|
    | base (baseline) | 2 | 46.9 ± 4.4 |
    | exact (oracle) | 1 | 18.8, **Δ −25.0** [−25.0, −25.0] over 1 of 2 seeds |

    ### Costs of training

    | recipe | trained parameters | seconds a step | peak MiB |
    |---|--:|--:|--:|
    | base | 1200 | 0.150 | – |

    Mean ± standard deviation over seeds; rates and shares times 100. ° marks rows that never trained the task on speech. Δ is the difference to base with its 95 % interval: same seed and utterances, utterances bootstrapped within seeds, averaged over seeds; bold where the interval excludes 0. Oracle rows know what a real system would not.

    * exact has 1 of the 2 seeds that other rows have
    ");
}

#[test]
fn predictions_that_do_not_give_the_number_are_not_used() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), "base", 1, &[1, 1]);
    let dir = run(root.path(), "other", 1, &[1, 2]);
    let mut results = Results::read(&dir.join("results.json")).unwrap();
    results.set("asr", "base", "wer", Metric::exact(0.1, 2));
    results.write(&dir.join("results.json")).unwrap();
    let table = table(&find_runs(root.path()).unwrap(), &against("base")).unwrap();
    assert_eq!(table.rows[1].cell("asr", "base", "wer").unwrap().difference, None);
    assert_eq!(table.warnings.len(), 1);
    assert!(table.warnings[0].contains("give wer 0.375000, results.json says 0.100000"));
}

#[test]
fn utterances_that_only_one_side_has_are_left_out_and_counted() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), "base", 1, &[1, 1]);
    run(root.path(), "other", 1, &[1, 2, 4]);
    let table = table(&find_runs(root.path()).unwrap(), &against("base")).unwrap();
    let difference = table.rows[1].cell("asr", "base", "wer").unwrap().difference.unwrap();
    // u0 and u1: 3/8 against 2/8.
    assert_eq!((difference.value, difference.n_utterances), (0.125, 2));
    assert!(table.warnings[0].contains("1 utterances of asr.base"), "{:?}", table.warnings);
}

#[test]
fn without_predictions_or_a_common_seed_there_is_no_difference() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), "base", 1, &[1, 1]);
    run(root.path(), "other", 2, &[1, 2]);
    let dir = run(root.path(), "third", 1, &[1, 2]);
    std::fs::remove_dir_all(dir.join("predictions")).unwrap();
    let table = table(&find_runs(root.path()).unwrap(), &against("base")).unwrap();
    for row in &table.rows[1..] {
        assert_eq!(row.cell("asr", "base", "wer").unwrap().difference, None);
    }
}

#[test]
fn what_cannot_be_compared_is_named() {
    let root = tempfile::tempdir().unwrap();
    assert!(matches!(find_runs(root.path()), Err(Error::NoRuns { .. })));
    assert!(matches!(find_runs(&root.path().join("none")), Err(Error::List { .. })));
    let first = run(root.path(), "base", 1, &[1, 1]);
    let error = table(std::slice::from_ref(&first), &against("bass")).unwrap_err().to_string();
    assert_eq!(error, "no row is called \"bass\" (there are base)");
    let error = table(&[first.clone(), first], &TableConfig::default()).unwrap_err();
    assert!(matches!(error, Error::Duplicate { seed: 1, .. }), "{error}");
}

#[test]
fn levels_are_compared_where_the_baseline_has_room() {
    let root = tempfile::tempdir().unwrap();
    // Of eight stories the baseline gets six of one level and all of the other; the rival gets all.
    for (recipe, right) in [("base", 6), ("rival", 8)] {
        let dir = root.path().join(recipe);
        let mut results = Results::new(ResultsMeta {
            recipe: recipe.to_owned(),
            seed: 1,
            ..ResultsMeta::default()
        });
        let hard = f64::from(right) / 8.0;
        results.set("continuation", "base", "accuracy_entity", Metric::exact(hard, 8));
        results.set("continuation", "base", "accuracy_topic", Metric::exact(1.0, 8));
        // No levels, though they begin so; and one that nothing is known of.
        results.set("forgetting", "almanac", "accuracy_before", Metric::exact(0.3, 8));
        results.set("forgetting", "almanac", "accuracy_change", Metric::exact(0.0, 8));
        results.set("continuation", "base", "accuracy_per_token_s2s", Metric::exact(0.3, 8));
        results.set("continuation", "base", "accuracy_one_hop", Metric::exact(f64::NAN, 0));
        results.write(&dir.join("results.json")).unwrap();
        let predictions: Vec<Prediction> = (0..8)
            .map(|i| Prediction {
                id: format!("s{i}"),
                task: "continuation".to_owned(),
                domain: "base".to_owned(),
                counts: [
                    ("accuracy_entity".to_owned(), vec![f64::from(u8::from(i < right)), 1.0]),
                    ("accuracy_topic".to_owned(), vec![1.0, 1.0]),
                ]
                .into(),
                ..Prediction::default()
            })
            .collect();
        write_predictions(&predictions_path(&dir, "continuation", "base"), &predictions).unwrap();
    }
    let table = table(&find_runs(root.path()).unwrap(), &against("base")).unwrap();
    let cell = |metric: &str| table.rows[1].cell("continuation", "base", metric).unwrap();
    assert_eq!(cell("accuracy_entity").difference.unwrap().value, 0.25);
    assert_eq!(cell("accuracy_topic").difference, None);
    assert_eq!(table.warnings.len(), 1, "{:?}", table.warnings);
    assert!(table.warnings[0].contains("accuracy_topic: the baseline stands at 100.0 %"));
}

#[test]
fn choices_stand_under_their_protocol_and_another_one_is_not_compared() {
    let root = tempfile::tempdir().unwrap();
    let rules = "joint tokenization; no markers scored; k tied for best share 1";
    for (recipe, shots) in [("base", 0), ("other", 5)] {
        let meta = ResultsMeta { recipe: recipe.into(), seed: 1, ..ResultsMeta::default() };
        let mut results = Results::new(meta);
        let protocol = format!("S→T, plain, {shots}-shot, sum; {rules}").parse().unwrap();
        results.set("story_cloze", "base", "accuracy", Metric::exact(0.75, 4).under(protocol));
        let none = Metric::unsupported(Unsupported::CannotSpeak);
        results.set("story_cloze", "base", "accuracy_s2s", none);
        results.write(&root.path().join(recipe).join("results.json")).unwrap();
        let predictions = vec![Prediction {
            id: "u".into(),
            task: "story_cloze".into(),
            domain: "base".into(),
            counts: [("accuracy".to_owned(), vec![0.75, 1.0])].into_iter().collect(),
            ..Prediction::default()
        }];
        let path = predictions_path(&root.path().join(recipe), "story_cloze", "base");
        write_predictions(&path, &predictions).unwrap();
    }
    let table = table(&find_runs(root.path()).unwrap(), &against("base")).unwrap();
    assert_eq!(table.rows[1].cell("story_cloze", "base", "accuracy").unwrap().difference, None);
    let text = table.to_markdown();
    assert!(text.contains(&format!("\nS→T, plain, 0-shot, sum; {rules}\n")), "{text}");
    assert!(
        text.contains("5-shot, sum") && text.contains("the baseline as S→T, plain, 0-shot"),
        "{text}"
    );
    assert!(text.contains("| n/a (the model cannot speak) |"), "{text}");
    assert!(!table.warnings.iter().any(|warning| warning.contains("s2s")), "{:?}", table.warnings);
}
