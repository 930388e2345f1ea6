use std::fs;

use proptest::prelude::*;

use super::*;

pub(crate) fn header(n_units: u32) -> UnitsHeader {
    UnitsHeader { quantizer: "5ae1".to_owned(), n_units, rate_hz: 25.0 }
}

pub(crate) fn utterance(id: &str, units: &[u32], words: &[(&str, u32, u32)]) -> UnitUtterance {
    let words = words.iter().map(|&(word, start, end)| (word.to_owned(), start, end).into());
    UnitUtterance {
        id: id.to_owned(),
        units: units.to_vec(),
        words: words.collect(),
        text: None,
        language: None,
    }
}

fn two() -> Vec<UnitUtterance> {
    let a = utterance("a", &[17, 17, 3, 98], &[("yes", 1, 4)]);
    let b = UnitUtterance {
        text: Some("Née.".to_owned()),
        language: Some("fr".to_owned()),
        ..utterance("b", &[5], &[])
    };
    vec![a, b]
}

fn decode(bytes: impl Into<Vec<u8>>) -> Result<UnitFile, Error> {
    UnitFile::decode(bytes.into(), "a.jsonl")
}

fn all(file: &UnitFile) -> Vec<UnitUtterance> {
    (0..file.len()).map(|i| file.get(i).unwrap()).collect()
}

const HEADER: &str = r#"{"sandhi_units":1,"quantizer":"5ae1","n_units":100,"rate_hz":25.0}"#;

#[test]
fn lines_are_what_the_documentation_shows() {
    let text = to_bytes(Format::Jsonl, &header(100), &two()).unwrap();
    let lines = [
        HEADER,
        r#"{"id":"a","units":[17,17,3,98],"words":[["yes",1,4]]}"#,
        r#"{"id":"b","units":[5],"text":"Née.","language":"fr"}"#,
        "",
    ];
    assert_eq!(String::from_utf8(text).unwrap(), lines.join("\n"));
    let file = decode(format!("\u{feff}\n{}", lines.join("\r\n"))).unwrap();
    assert_eq!((file.header(), all(&file)), (&header(100), two()));
}

#[test]
fn a_unit_takes_two_bytes_where_that_is_enough() {
    let length = |n_units| to_bytes(Format::Binary, &header(n_units), &two()[..1]).unwrap().len();
    // Four units; either number has five digits in the header.
    assert_eq!(length(99_999) - length(65_536), 4 * 2);
}

#[test]
fn either_format_is_known_by_its_content() {
    let folder = tempfile::tempdir().unwrap();
    for format in [Format::Jsonl, Format::Binary] {
        let path = folder.path().join(format!("{format:?}"));
        let mut writer = UnitWriter::create(&path, format, header(100)).unwrap();
        for utterance in &two() {
            writer.push(utterance).unwrap();
        }
        assert!(!path.exists(), "a file has its name when it is whole");
        writer.finish().unwrap();
        let file = UnitFile::open(&path).unwrap();
        assert_eq!((file.header(), all(&file)), (&header(100), two()));
        let error = file.get(2).unwrap_err().to_string();
        assert_eq!(
            error,
            "found the number 2, expected one below 2, the utterances that there are"
        );
    }
    // Nothing is left beside them, also of a file that was given up.
    drop(UnitWriter::create(&folder.path().join("c"), Format::Binary, header(100)).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn links_and_devices_stay() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let write = |path: &std::path::Path| {
        let mut writer = UnitWriter::create(path, Format::Jsonl, header(100)).unwrap();
        two().iter().for_each(|utterance| writer.push(utterance).unwrap());
        writer.finish().unwrap();
    };
    fs::create_dir(at("far")).unwrap();
    fs::write(at("far/file"), "one").unwrap();
    std::os::unix::fs::symlink("far/file", at("link")).unwrap();
    write(&at("link"));
    assert!(fs::read_link(at("link")).is_ok());
    assert_eq!(all(&UnitFile::open(&at("far/file")).unwrap()), two());
    // One that is given up leaves what was there.
    drop(UnitWriter::create(&at("link"), Format::Jsonl, header(100)).unwrap());
    assert_eq!(all(&UnitFile::open(&at("link")).unwrap()), two());
    assert_eq!(fs::read_dir(at("far")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);

    assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    // Open for both, so that neither side waits for the other.
    let mut pipe = fs::File::options().read(true).write(true).open(at("pipe")).unwrap();
    write(&at("pipe"));
    let expected = to_bytes(Format::Jsonl, &header(100), &two()).unwrap();
    let mut found = vec![0; expected.len()];
    std::io::Read::read_exact(&mut pipe, &mut found).unwrap();
    assert_eq!(found, expected);
    assert!(!fs::metadata(at("pipe")).unwrap().is_file());
    // A header that cannot be leaves nothing.
    UnitWriter::create(&at("none"), Format::Jsonl, header(0)).unwrap_err();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn errors_name_line_found_and_expected() {
    let check = |lines: &str, expected: &str| {
        let error = decode(lines.replace('H', HEADER)).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}\n{expected}");
    };
    check("", "a.jsonl: found an empty file");
    check("\n \n", "a.jsonl: found an empty file");
    check("[1]", "a.jsonl:1: found no header (invalid type: sequence");
    check(
        r#"{"id": "a", "units": []}"#,
        "a.jsonl:1: found a line without `sandhi_units`, expected {",
    );
    check(r#"{"sandhi_units": 2}"#, "a.jsonl: found version 2 of the format, expected 1");
    check(r#"{"sandhi_units": 1}"#, "a.jsonl:1: found missing field `quantizer`");
    check(
        r#"{"sandhi_units": 1, "quantizer": "a", "n_units": 0, "rate_hz": 25.0}"#,
        "a.jsonl:1: found `n_units` = 0, expected one unit at least",
    );
    check(
        r#"{"sandhi_units": 1, "quantizer": "a", "n_units": 5, "rate_hz": -1}"#,
        "a.jsonl:1: found `rate_hz` = -1, expected a number of units a second above 0",
    );
    check("H\n{\"id\"", "a.jsonl:2: found EOF while parsing");
    check("H\n{\"id\": \"a\", \"units\": [1]} x", "a.jsonl:2: found trailing characters");
    check(
        "H\n{\"id\": \"a\", \"units\": [1], \"word\": 1}",
        "a.jsonl:2: found unknown field `word`",
    );
    check("H\n{\"id\": \"\", \"units\": []}", "a.jsonl:2: found an utterance without a name");
    check(
        "H\n\n{\"id\": \"a\", \"units\": [1, 100]}",
        "a.jsonl:3: utterance \"a\": found unit 100 at 1, expected units below 100",
    );
    check(
        "H\n{\"id\":\"a\",\"units\":[1]}\n\n{\"id\":\"b\",\"units\":[]}",
        "a.jsonl:4: utterance \"b\": found no units, expected one at least",
    );
    check(
        "H\n{\"id\":\"a\",\"units\":[1]}\n{\"id\":\"a\",\"units\":[1]}",
        "a.jsonl:3: found the utterance \"a\", which a.jsonl:2 has as well, expected names to be distinct",
    );
    let word = |words: &str, expected: &str| {
        let lines = format!("H\n{{\"id\":\"a\",\"units\":[1,2,3],\"words\":{words}}}");
        check(&lines, &format!("a.jsonl:2: utterance \"a\": word {expected}"));
    };
    word(
        r#"[["b",1,4]]"#,
        "\"b\": found the units 1 to 4, expected an end of 3 at most, the units of the utterance",
    );
    word(
        r#"[["b",2,1]]"#,
        "\"b\": found the units 2 to 1, expected an end that is not before the start",
    );
    word(
        r#"[["b",0,2],["c",1,3]]"#,
        "\"c\": found the units 1 to 3, expected a start of 2 at least, where the word ahead ends",
    );
    word(r#"[[" ",0,2]]"#, "\" \": found nothing written at the units 0 to 2, expected a word");
}

#[test]
fn what_cannot_be_read_is_not_written() {
    let write = |utterances: &[UnitUtterance]| {
        to_bytes(Format::Binary, &header(100), utterances).unwrap_err().to_string()
    };
    let twice = [utterance("a", &[1], &[]), utterance("a", &[1], &[])];
    assert_eq!(
        write(&twice),
        "units: number 1: found the utterance \"a\", which the same file has as well, expected names to be distinct"
    );
    assert_eq!(
        write(&[utterance("a", &[100], &[])]),
        "units: number 0: utterance \"a\": found unit 100 at 0, expected units below 100"
    );
    let error = to_bytes(Format::Jsonl, &header(0), &[]).unwrap_err().to_string();
    assert_eq!(error, "units: found `n_units` = 0, expected one unit at least");
}

#[test]
fn files_of_two_quantizers_are_never_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, header: UnitsHeader, utterances: &[UnitUtterance], format| {
        let path = folder.path().join(name);
        fs::write(&path, to_bytes(format, &header, utterances).unwrap()).unwrap();
        path
    };
    let (a, b) = (&two()[..1], &two()[1..]);
    let first = file("first", header(100), a, Format::Jsonl);
    let second = file("second", header(100), b, Format::Binary);
    let corpus = UnitCorpus::open(&[first.clone(), second.clone()]).unwrap();
    assert_eq!((corpus.len(), corpus.header()), (2, &header(100)));
    assert_eq!([corpus.get(0).unwrap(), corpus.get(1).unwrap()], two()[..]);
    let place = |i: usize, name: &str| corpus.place(i).ends_with(name);
    assert!(place(0, "first:2") && place(1, "second: number 0"));
    assert!(corpus.get(2).is_err());

    let refused = |other: UnitsHeader, expected: &str| {
        let other = file("other", other, b, Format::Jsonl);
        let error = UnitCorpus::open(&[first.clone(), other]).unwrap_err().to_string();
        let names = ["first", "other"].map(|name| folder.path().join(name).display().to_string());
        let [first, other] = names;
        assert_eq!(
            error,
            format!(
                "{other}: found {expected} as in {first}; units of two quantizers are never mixed"
            )
        );
    };
    refused(
        UnitsHeader { quantizer: "77".to_owned(), ..header(100) },
        "quantizer = 77, expected 5ae1",
    );
    refused(header(101), "n_units = 101, expected 100");
    refused(UnitsHeader { rate_hz: 50.0, ..header(100) }, "rate_hz = 50, expected 25");

    let again = UnitCorpus::open(&[second.clone(), first, second]).unwrap_err().to_string();
    assert!(again.contains("second: number 0: found the utterance \"b\", which"), "{again}");
    assert!(matches!(UnitCorpus::open(&[]), Err(Error::NoFiles)));
}

#[test]
fn a_file_without_utterances_is_one() {
    for format in [Format::Jsonl, Format::Binary] {
        let file = decode(to_bytes(format, &header(7), &[]).unwrap()).unwrap();
        assert!(file.is_empty() && file.get(0).is_err());
        assert!(UnitCorpus::of(vec![file]).unwrap().is_empty());
    }
}

/// Whether a changed file is refused, when it is opened or when one of its utterances is read.
fn is_refused(bytes: Vec<u8>) -> bool {
    !decode(bytes).is_ok_and(|file| (0..file.len()).all(|i| file.get(i).is_ok()))
}

#[test]
fn every_changed_byte_of_a_binary_file_is_noticed() {
    let bytes = to_bytes(Format::Binary, &header(100), &two()).unwrap();
    assert!(!is_refused(bytes.clone()));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(is_refused(changed), "byte {at} of {}", bytes.len());
        assert!(is_refused(bytes[..at].to_vec()), "cut at {at} of {}", bytes.len());
    }
    assert!(is_refused([&bytes[..], b"\n"].concat()));
    let error = decode(&bytes[..bytes.len() - 1]).unwrap_err().to_string();
    assert_eq!(
        error,
        "a.jsonl: found another end, expected that of a whole file; the file is damaged, write it again"
    );
    let mut other = bytes;
    other[8] = 2;
    let error = decode(other).unwrap_err().to_string();
    assert_eq!(error, "a.jsonl: found version 2 of the format, expected 1");
}

pub(crate) fn utterances() -> impl Strategy<Value = Vec<UnitUtterance>> {
    let word = ("[a-zé ]{0,5}x", 0_u32..4, 0_u32..9);
    let parts = (
        proptest::collection::vec(word, 0..7),
        1_u32..5,
        proptest::option::of(".{0,9}"),
        proptest::option::of("[a-z]{2}"),
    );
    proptest::collection::vec(parts, 0..4).prop_map(|all| {
        let utterance = |(index, (lengths, tail, text, language)): (usize, (Vec<_>, u32, _, _))| {
            let mut end = 0;
            let words = lengths
                .into_iter()
                .map(|(word, gap, n_units)| {
                    let start = end + gap;
                    end = start + n_units;
                    UnitWord { word, start, end }
                })
                .collect();
            let units = (0..end + tail).map(|i| i * 37 % 100).collect();
            UnitUtterance { id: format!("utterance {index}"), units, words, text, language }
        };
        all.into_iter().enumerate().map(utterance).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(
        utterances in utterances(),
        n_units in prop::sample::select(vec![100, 65_536, 65_537]),
    ) {
        for format in [Format::Jsonl, Format::Binary] {
            let file = decode(to_bytes(format, &header(n_units), &utterances).unwrap()).unwrap();
            prop_assert_eq!(all(&file), utterances.clone());
            prop_assert_eq!(file.header(), &header(n_units));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = decode([binary::MAGIC, &bytes[..]].concat());
        let _ = decode(bytes);
    }
}
