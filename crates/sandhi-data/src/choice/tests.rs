use std::fs;

use proptest::prelude::*;

use super::*;
use crate::fuzz;

const HELLA_SWAG: &str = r#"{"ind": 24, "activity_label": "Roof shingle removal", "ctx_a": "A man is sitting on a roof.", "ctx_b": "he", "ctx": "A man is sitting on a roof. he", "split": "val", "split_type": "indomain", "label": 3, "endings": ["is wrapping skis.", "is ripping tiles off.", "is holding a cube.", "starts pulling up roofing."], "source_id": "activitynet~v_1"}
{"ind": 25, "ctx": "[header] How to rest [title] Lie down. [step] Close your eyes.", "label": "0", "endings": ["Breathe. [substeps] Wait.", "Run."], "split_type": "zeroshot"}
"#;
const STORY_CLOZE: &str = "InputStoryid,InputSentence1,InputSentence2,InputSentence3,InputSentence4,\
RandomFifthSentenceQuiz1,RandomFifthSentenceQuiz2,AnswerRightEnding
a1,Rick grew up.,\"He met a man, a thief.\",He stole.,He was shot.,He is happy.,He changed his life.,2
";
const MMLU: &str = "\"What is 2, plus 2?\",3,4,5,6,B\nWhich is a prime?,4,6,7,9,C\n";
const OURS: &str = r#"{"id": "s1", "audio": "a/s1.wav", "context": "Anna ran.", "endings": ["She was fast.", "She slept."], "right": 0, "group": "easy", "language": "en"}
{"id": "s2", "ending_audio": ["x.wav", "y.wav", "z.wav"], "right": 2}
"#;

fn items(text: &str, format: Format) -> Vec<ChoiceItem> {
    decode(text.as_bytes(), "f", format).unwrap().items
}

fn texts(item: &ChoiceItem) -> Vec<&str> {
    item.endings.iter().map(|part| part.text.as_deref().unwrap()).collect()
}

#[test]
fn hella_swag_is_read_without_its_marks() {
    let items = items(HELLA_SWAG, Format::HellaSwag);
    assert_eq!(items.len(), 2);
    assert_eq!(items[0].context, Part::written("A man is sitting on a roof. he"));
    assert_eq!((items[0].id.as_str(), items[0].right), ("24", 3));
    assert_eq!(items[0].group.as_deref(), Some("indomain"));
    assert_eq!(items[1].context.text.as_deref(), Some("How to rest. Lie down. Close your eyes."));
    assert_eq!((texts(&items[1]), items[1].right), (vec!["Breathe. Wait.", "Run."], 0));
}

#[test]
fn a_story_has_four_sentences_and_two_endings() {
    let items = items(STORY_CLOZE, Format::StoryCloze);
    let context = "Rick grew up. He met a man, a thief. He stole. He was shot.";
    assert_eq!(items[0].context, Part::written(context));
    assert_eq!(
        (texts(&items[0])[items[0].right], items[0].id.as_str()),
        ("He changed his life.", "a1")
    );
}

#[test]
fn mmlu_is_asked_in_the_words_of_its_paper() {
    let dir = tempfile::tempdir().unwrap();
    for (folder, split, text) in [("test", "test", MMLU), ("dev", "dev", "What is 1?,0,1,2,3,B\n")]
    {
        fs::create_dir(dir.path().join(folder)).unwrap();
        let file = dir.path().join(folder).join(format!("high_school_physics_{split}.csv"));
        fs::write(file, text).unwrap();
    }
    assert_eq!(Format::detect(dir.path()).unwrap(), Format::Mmlu);
    let set = read(dir.path(), None).unwrap();
    let item = &set.items[0];
    assert_eq!(item.id, "high_school_physics-1");
    assert_eq!(item.context, Part::written("What is 2, plus 2?\nA. 3\nB. 4\nC. 5\nD. 6"));
    assert_eq!((item.cue.as_str(), texts(item)[item.right]), ("Answer:", "B"));
    assert!(item.preface.ends_with("about high school physics."), "{}", item.preface);
    assert_eq!(set.shots["high_school_physics"][0].right, 1);
    // A test file alone finds its shots too.
    let alone = read(&dir.path().join("test/high_school_physics_test.csv"), None).unwrap();
    assert_eq!(alone, set);
}

#[test]
fn recordings_lie_beside_the_file_that_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("items.jsonl");
    fs::write(&file, OURS).unwrap();
    let set = read(&file, None).unwrap();
    assert_eq!(set.items[0].context.audio, Some(dir.path().join("a/s1.wav")));
    assert_eq!(set.items[0].context.text.as_deref(), Some("Anna ran."));
    assert_eq!(set.items[1].context, Part::default());
    assert_eq!(set.items[1].endings[2].audio, Some(dir.path().join("z.wav")));
    // A folder with nothing else in it is its file.
    assert_eq!(read(dir.path(), None).unwrap(), set);
}

#[test]
fn texts_begin_and_end_with_words() {
    let line = r#"{"id": "a", "context": " Anna ran.\n", "endings": ["\tShe slept. ", "She won."], "right": 0}"#;
    let items = items(line, Format::Sandhi);
    assert_eq!(items[0].context, Part::written("Anna ran."));
    assert_eq!(texts(&items[0]), ["She slept.", "She won."]);
}

#[test]
fn a_name_is_of_one_set() {
    let dir = tempfile::tempdir().unwrap();
    let [file, other] = ["a/told.jsonl", "b/told.csv"].map(PathBuf::from);
    let folder = dir.path().join("told.v2");
    fs::create_dir(&folder).unwrap();
    assert_eq!([&file, &folder].map(|path| name(path)), ["told", "told.v2"]);
    check_names(&[file.clone(), folder]).unwrap();
    let error = check_names(&[file, other]).unwrap_err().to_string();
    let expected = "b/told.csv: found the name \"told\", which a/told.jsonl has as well, expected names to be distinct";
    assert_eq!(error, expected);
}

#[test]
fn folders_of_spoken_stories_are_told_apart() {
    let write = |dir: &Path, name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    let sides = tempfile::tempdir().unwrap();
    for id in ["1", "2"] {
        for part in ["mutual", "correct", "incorrect"] {
            write(sides.path(), &format!("{id}_{part}.wav"), "");
            write(sides.path(), &format!("{id}_{part}.txt"), &format!("{part} {id}\n"));
        }
    }
    let set = read(sides.path(), None).unwrap();
    assert_eq!(Format::detect(sides.path()).unwrap(), Format::SpokenStoryCloze);
    assert_eq!(set.items.len(), 2);
    for (i, item) in set.items.iter().enumerate() {
        let id = (i + 1).to_string();
        assert_eq!(item.context.text.as_deref(), Some(&*format!("mutual {id}")));
        assert_eq!(item.context.audio, Some(sides.path().join(format!("{id}_mutual.wav"))));
        assert_eq!((texts(item)[item.right], item.right), (&*format!("correct {id}"), i % 2));
    }
    fs::remove_file(sides.path().join("2_incorrect.wav")).unwrap();
    fs::remove_file(sides.path().join("2_incorrect.txt")).unwrap();
    let error = read(sides.path(), None).unwrap_err().to_string();
    assert!(error.contains("2_incorrect.txt: found no such file"), "{error}");

    let pairs = tempfile::tempdir().unwrap();
    let inner = pairs.path().join("sSC");
    fs::create_dir(&inner).unwrap();
    for number in [0, 1, 2, 3, 10, 11] {
        write(&inner, &format!("{number}_story.wav"), "");
    }
    let set = read(pairs.path(), None).unwrap();
    assert_eq!(Format::detect(pairs.path()).unwrap(), Format::SpokenPairs);
    let right = |item: &ChoiceItem| {
        let audio = item.endings[item.right].audio.as_ref().unwrap();
        audio.file_stem().unwrap().to_str().unwrap().to_owned()
    };
    let found: Vec<String> = set.items.iter().map(right).collect();
    assert_eq!(found, ["0_story", "2_story", "10_story"]);
    assert!(set.items.iter().all(|item| item.context == Part::default()));
    fs::remove_file(inner.join("2_story.wav")).unwrap();
    let error = read(pairs.path(), None).unwrap_err().to_string();
    assert!(error.contains("expected pairs of an even number"), "{error}");
}

#[test]
fn formats_are_told_from_their_first_lines() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, format) in [
        ("a.jsonl", HELLA_SWAG, Format::HellaSwag),
        ("b.csv", STORY_CLOZE, Format::StoryCloze),
        ("c.csv", MMLU, Format::Mmlu),
        ("d.jsonl", OURS, Format::Sandhi),
    ] {
        let file = dir.path().join(name);
        // As spreadsheets save it.
        fs::write(&file, format!("\u{feff}{text}")).unwrap();
        assert_eq!(Format::detect(&file).unwrap(), format);
        assert_eq!(read(&file, None).unwrap().items, {
            let name = file.display().to_string();
            let mut items = decode(text.as_bytes(), &name, format).unwrap().items;
            for part in
                items.iter_mut().flat_map(|i| std::iter::once(&mut i.context).chain(&mut i.endings))
            {
                part.audio = part.audio.take().map(|audio| dir.path().join(audio));
            }
            items
        });
    }
    assert!(Format::ALL.iter().all(|format| format.name().parse() == Ok(*format)));
    let error = "csv".parse::<Format>().unwrap_err();
    assert!(error.contains("expected one of sandhi, hella-swag"), "{error}");
}

#[test]
fn errors_name_file_line_and_field() {
    let header = STORY_CLOZE.lines().next().unwrap();
    for (format, text, expected) in [
        (
            Format::HellaSwag,
            "{\"ctx\": \"a\", \"endings\": [\"b\", \"c\"], \"label\": 2}".to_owned(),
            "f:1: found `label` = 2, expected the index of one of 2 endings, from 0",
        ),
        (
            Format::HellaSwag,
            "\n{\"ctx\": \"a\", \"endings\": [\"b\"], \"label\": 0}".to_owned(),
            "f:2: found `endings` = [\"b\"], expected a list of two texts at least",
        ),
        (
            Format::HellaSwag,
            "{\"endings\": []}".to_owned(),
            "f:1: found no field `ctx`, expected a text",
        ),
        (
            Format::StoryCloze,
            format!("{header}\na,b,c,d,e,f,g,3\n"),
            "f:2: found `AnswerRightEnding` = 3, expected 1 or 2",
        ),
        (
            Format::StoryCloze,
            format!("{header}\na,b,,d,e,f,g,1\n"),
            "f:2: found an empty `InputSentence2`, expected a text",
        ),
        (
            Format::StoryCloze,
            "a,RandomFifthSentenceQuiz1\n".to_owned(),
            "f:1: found `header` = a,RandomFifthSentenceQuiz1, expected a column `InputStoryid`",
        ),
        (
            Format::Mmlu,
            "q,1,2,3,4,A\nq,1,2,3,4,E\n".to_owned(),
            "f:2: found `answer` = E, expected A, B, C or D",
        ),
        (
            Format::Mmlu,
            "q,1,2,A\n".to_owned(),
            "f:1: found 4 columns, expected 6: question, four choices, the letter of the right one",
        ),
        (
            Format::Sandhi,
            "{\"id\": \"a\", \"endings\": [\"b\", \"c\"], \"right\": 2}".to_owned(),
            "f:1: found `right` = 2, expected the index of one of 2 endings, from 0",
        ),
        (
            Format::Sandhi,
            "{\"id\": \"a\", \"endings\": [\"b\", \"c\"], \"ending_audio\": [\"d\"], \"right\": 0}"
                .to_owned(),
            "f:1: found 1 in `ending_audio`, 2 in the other list, expected as many of either kind",
        ),
    ] {
        assert_eq!(decode(text.as_bytes(), "f", format).unwrap_err().to_string(), expected);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.jsonl");
    fs::write(&file, format!("{OURS}{OURS}")).unwrap();
    assert!(read(&file, None).unwrap_err().to_string().contains("two items called \"s1\""));
    assert!(matches!(read(dir.path().join("none").as_path(), None), Err(Error::Io { .. })));
}

#[test]
fn the_real_file_is_read() {
    let Some(path) = crate::alignment::tests::data("text/hellaswag_val_500_en.jsonl") else {
        return;
    };
    let set = read(&path, None).unwrap();
    assert_eq!(set.items.len(), 500);
    assert!(set.items.iter().all(|item| item.endings.len() == 4));
    assert!(set.items.iter().all(|item| !texts(item).iter().any(|text| text.contains('['))));
}

#[test]
fn mutated_files_neither_panic_nor_pass_what_cannot_be() {
    let seeds: Vec<Vec<u8>> =
        [HELLA_SWAG, STORY_CLOZE, MMLU, OURS].map(|text| text.as_bytes().to_vec()).into();
    fuzz::run(3_000, &seeds, fuzz::choice);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        fuzz::choice(&bytes);
    }
}
