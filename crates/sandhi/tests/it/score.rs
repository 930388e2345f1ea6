use std::fs;

use super::{Ran, sandhi};

fn score(reference: &[u8], hypothesis: &[u8], args: &[&str]) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ref.txt"), reference).unwrap();
    fs::write(dir.path().join("hyp.txt"), hypothesis).unwrap();
    let files = ["--ref", "ref.txt", "--hyp", "hyp.txt"];
    sandhi(dir.path(), &[&["score"], args, &files[..]].concat())
}

#[test]
fn word_errors_are_counted_with_empty_lines() {
    // One substitution and one deletion, then an insertion against an empty line: 3 of 4 words.
    let result = score(b"the cat sat\n\nhello", b"the hat\noh\nhello\n", &["wer", "--json"]).json();
    assert_eq!(result["value"], 0.75);
    assert_eq!(
        (&result["substitutions"], &result["deletions"], &result["insertions"], &result["n"]),
        (&1.into(), &1.into(), &1.into(), &3.into())
    );
    assert_eq!(result["normalizer"], "none");
    assert!(result["signature"].as_str().unwrap().contains("norm:none"));
}

#[test]
fn normalizers_are_stamped() {
    let args = ["wer", "--json", "--normalizer", "english"];
    let result = score(b"It's the colour.\r\n", b"it is the color\n", &args).json();
    assert_eq!((&result["value"], &result["normalizer"]), (&0.0.into(), &"english".into()));
}

#[test]
fn translations_are_scored() {
    for metric in ["bleu", "chrf"] {
        let line = b"the cat sat on the mat today\n";
        let result = score(line, line, &[metric, "--json"]).json();
        assert!((result["value"].as_f64().unwrap() - 100.0).abs() < 1e-9, "{result}");
        assert!(result["signature"].as_str().unwrap().contains("version:sandhi"), "{result}");
    }
    let exact = score(b"in the hall\nTwo\n", b" in  the hall\ntwo\n", &["exact", "--json"]).json();
    assert_eq!((&exact["value"], &exact["n"]), (&0.5.into(), &2.into()));
    let text = score(b"abc\n", b"abd\n", &["cer"]).works();
    assert!(text.starts_with("cer 0.3333"), "{text}");
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    score(b"a\nb\n", b"a\n", &["wer"]).fails_with(&["ref.txt has 2 lines", "hyp.txt has 1"]);
    score(b"", b"", &["wer"]).fails_with(&["ref.txt", "no lines"]);
    score(b"a\nb\xff\n", b"a\nb\n", &["wer"]).fails_with(&["ref.txt:2", "UTF-8"]);
    score(b"a\n", b"a\n", &["wer", "--normalizer", "loud"]).fails_with(&["loud", "english"]);
}
