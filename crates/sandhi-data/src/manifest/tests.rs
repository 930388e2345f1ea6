//! Formats and mistakes, each written out as people meet them.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use super::*;

/// A folder with empty files in place of sound.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(sounds: &[&str]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for sound in sounds {
            folder.write(sound, "");
        }
        folder
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn import(&self, name: &str) -> Import {
        import(&self.path(name), None).unwrap()
    }
}

/// Reads one manifest beside `a.wav` and `b.flac`.
fn read(text: &str) -> Import {
    let folder = Folder::new(&["a.wav", "b.flac"]);
    folder.write("m.jsonl", text);
    let mut import = folder.import("m.jsonl");
    for utterance in &mut import.utterances {
        let path = utterance.audio.path.strip_prefix(folder.0.path()).unwrap();
        utterance.audio.path = path.to_owned();
    }
    import
}

#[track_caller]
fn check_rejected(line: &str, kind: Kind, message: &str) {
    let good = r#"{"audio_filepath": "b.flac", "duration": 2, "text": "fine"}"#;
    let import = read(&format!("{good}\n{line}\n"));
    assert_eq!(import.utterances.len(), 1, "{import:?}");
    let rejected = &import.rejected[0];
    assert_eq!(rejected.kind, kind, "{rejected}");
    let text = rejected.to_string();
    let (place, found) = text.split_once("m.jsonl:2: ").expect("the place is named");
    assert!(!place.is_empty());
    assert_eq!(found, message);
}

#[test]
fn wrong_lines_are_rejected_with_what_was_found_and_expected() {
    let nemo = |rest: &str| format!(r#"{{"audio_filepath": "a.wav", "text": "x", {rest}}}"#);
    check_rejected(
        "not json",
        Kind::NotJson,
        "found \"not json\" (expected ident at line 1 column 2), expected a JSON object",
    );
    check_rejected("[1, 2]", Kind::NotJson, "found a list of 2, expected a JSON object");
    check_rejected(
        &nemo(r#""dur": 1"#),
        Kind::MissingField,
        "duration: found nothing, expected a number of seconds above 0",
    );
    check_rejected(
        r#"{"duration": 1, "text": "x"}"#,
        Kind::MissingField,
        "audio_filepath: found nothing, expected a string",
    );
    check_rejected(
        &nemo(r#""duration": -0.5"#),
        Kind::BadValue,
        "duration: found -0.5, expected a number of seconds above 0",
    );
    check_rejected(
        &nemo(r#""duration": "long""#),
        Kind::WrongType,
        "duration: found the string \"long\", expected a number",
    );
    check_rejected(
        &nemo(r#""duration": 1, "offset": -1"#),
        Kind::BadValue,
        "offset: found -1, expected a number of seconds from 0",
    );
    check_rejected(
        &nemo(r#""duration": 1, "duration": 2"#),
        Kind::DuplicateKey,
        "duration: found the key twice, expected it once",
    );
}

#[test]
fn paths_must_lead_to_a_file_of_this_machine() {
    let import = read(concat!(
        r#"{"audio_filepath": "none.wav", "duration": 1, "text": "x"}"#,
        "\n",
        r#"{"audio_filepath": "https://x.org/a.wav", "duration": 1, "text": "x"}"#,
        "\n",
        r#"{"audio_filepath": "", "duration": 1, "text": "x"}"#,
    ));
    let kinds: Vec<_> = import.rejected.iter().map(|rejected| rejected.kind).collect();
    assert_eq!(kinds, [Kind::NoFile, Kind::Unsupported, Kind::BadValue]);
    assert!(import.rejected[0].to_string().ends_with("none.wav\", expected an existing file"));
}

#[test]
fn ids_must_differ_and_missing_ids_are_made() {
    let line = |id: &str| {
        format!(r#"{{"id": {id}, "audio_filepath": "a.wav", "duration": 1, "text": ""}}"#)
    };
    let import =
        read(&[line("\"u\""), line("7"), line("\"u\""), line("null"), line("null")].join("\n"));
    let ids: Vec<_> = import.utterances.iter().map(|utterance| utterance.id.as_str()).collect();
    assert_eq!(ids, ["u", "7", "a", "a-5"]);
    let rejected = &import.rejected[0];
    assert_eq!((rejected.line, rejected.kind), (3, Kind::DuplicateId));
    assert!(rejected.expected.ends_with("m.jsonl:1"), "{rejected}");
}

#[test]
fn bytes_that_are_not_utf8_spoil_one_line() {
    let folder = Folder::new(&["a.wav"]);
    let good: &[u8] = br#"{"audio_filepath": "a.wav", "duration": 1, "text": "x"}"#;
    folder.write("m.jsonl", [good, b"\n{\"text\": \"\xe4\"}\r\n\r\n", good].concat());
    let import = folder.import("m.jsonl");
    assert_eq!(import.utterances.len(), 2);
    let rejected = &import.rejected[0];
    assert_eq!((rejected.line, rejected.kind), (2, Kind::NotUtf8));
    assert!(rejected.to_string().ends_with("found the byte 0xe4 in column 11, expected UTF-8"));
}

#[test]
fn marks_line_ends_and_long_lines_are_read() {
    let text = "x".repeat(10_000_000);
    let import = read(&format!(
        "\u{feff}{{\"audio_filepath\": \"a.wav\", \"duration\": 1, \"text\": \"{text}\"}}\r\n"
    ));
    assert_eq!(import.rejected, []);
    assert_eq!(import.utterances[0].text.len(), 10_000_000);
}

#[test]
fn files_that_hold_no_manifest_are_refused() {
    let folder = Folder::new(&["empty.jsonl"]);
    let error = |name: &str| import(&folder.path(name), None).unwrap_err();
    assert!(matches!(error("empty.jsonl"), Error::Empty { .. }));
    assert!(matches!(error("missing.jsonl"), Error::Read { .. }));
    assert!(matches!(error("."), Error::UnknownFormat { .. }));
    folder.write("odd.jsonl", "{\"a\": 1, \"b\": 2}\n");
    let message = error("odd.jsonl").to_string();
    assert!(
        message.contains("odd.jsonl: found objects with the keys a, b, expected one of sandhi,")
    );
    folder.write("text.jsonl", "hello\n");
    assert!(error("text.jsonl").to_string().contains("found lines that are not JSON objects"));
    let forced = import(&folder.path("empty.jsonl"), Some(Format::Nemo)).unwrap_err();
    assert!(matches!(forced, Error::Empty { .. }));
}

#[test]
fn strict_callers_get_the_first_mistake() {
    let error = read("{\"audio_filepath\": 1}\n{").strict().unwrap_err().to_string();
    assert!(error.ends_with("m.jsonl:1: audio_filepath: found 1, expected a string"), "{error}");
}

#[test]
fn our_own_lines_survive_writing_and_refuse_unknown_keys() {
    let line = concat!(
        r#"{"id":"u1","audio":{"path":"a.wav","start_s":0.5,"duration_s":1.25,"channel":1},"#,
        r#""text":"née","language":"fr","speaker":"s","split":"dev","task":"qa","#,
        r#""instruction":"<audio> Why?","answer":"So.","#,
        r#""words":[{"label":"née","start_s":0.1,"end_s":0.4,"source":"silver"}],"#,
        r#""extra":{"hotword":["a"]}}"#,
    );
    let imported = read(line);
    assert_eq!(imported.rejected, []);
    assert_eq!(imported.format, Format::Sandhi);
    assert_eq!(to_jsonl(&imported.utterances).unwrap().trim(), line);

    for (wrong, field) in [
        (line.replace("\"speaker\"", "\"spaker\""), "spaker"),
        (line.replace("\"channel\"", "\"chanel\""), "audio.chanel"),
    ] {
        let rejected = &read(&wrong).rejected[0];
        assert_eq!((rejected.kind, rejected.field.as_str()), (Kind::UnknownField, field));
    }
    let backwards = line.replace("0.4", "0.05");
    assert_eq!(read(&backwards).rejected[0].field, "words");
}

#[test]
fn written_manifests_can_be_moved_with_their_sound() {
    let folder = Folder::new(&["data/wav/a.wav", "b.wav"]);
    let paths = [folder.path("data/wav/a.wav"), folder.path("b.wav")];
    let utterances: Vec<_> =
        paths.iter().zip(["a", "b"]).map(|(path, id)| Utterance::new(id, path, "")).collect();
    let manifest = folder.path("data/m.jsonl");
    write_jsonl(&manifest, &utterances).unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    assert!(text.contains(r#""path":"wav/a.wav""#), "{text}");
    assert_eq!(import(&manifest, None).unwrap().strict().unwrap(), utterances);
    assert!(matches!(write_jsonl(&folder.path("no/m.jsonl"), &[]), Err(Error::Write { .. })));
}

#[test]
fn nemo() {
    let import = read(concat!(
        r#"{"audio_filepath": "a.wav", "duration": 3.5, "offset": 1.5, "text": "hi", "lang": "en", "pred_text": "hey"}"#,
        "\n",
        r#"{"audio_filepath": "b.flac", "duration": 1, "text": "no", "_skipme": 1}"#,
        "\n",
        r#"{"audio_filepath": "b.flac", "duration": 1, "text": "yes", "_skipme": false}"#,
    ));
    assert_eq!((import.utterances.len(), import.n_skipped), (2, 1));
    let utterance = &import.utterances[0];
    assert_eq!(utterance.audio.start_s, 1.5);
    assert_eq!(utterance.audio.duration_s, Some(3.5));
    assert_eq!(utterance.language.as_deref(), Some("en"));
    assert_eq!(utterance.extra["pred_text"], "hey");
}

#[test]
fn slam_llm() {
    let import = read(concat!(
        r#"{"key": "u1", "source": "a.wav", "target": "some words"}"#,
        "\n",
        r#"{"key": "u2", "task": "ASR", "path": "b.flac", "target": "Bob", "hotword": "Bob"}"#,
        "\n",
        r#"{"key": "u3", "task": "en2zh", "path": "b.flac", "target": "你好"}"#,
        "\n",
        r#"{"key": "u4", "task": "ASR", "path": "x.ark:17", "target": "no"}"#,
    ));
    assert_eq!(import.format, Format::SlamLlm);
    let texts: Vec<_> = import.utterances.iter().map(|u| u.text.as_str()).collect();
    assert_eq!(texts, ["some words", "Bob", ""]);
    assert_eq!(import.utterances[1].extra["hotword"], "Bob");
    assert_eq!(import.utterances[2].answer.as_deref(), Some("你好"));
    assert_eq!(import.rejected[0].kind, Kind::Unsupported);
}

#[test]
fn qwen() {
    let import = read(concat!(
        r#"{"audio": "a.wav", "text": "language English<asr_text>Good day."}"#,
        "\n",
        r#"{"audio": "b.flac", "text": "language None<asr_text>"}"#,
        "\n",
        r#"{"audio": "b.flac", "text": "speech English<asr_text>x"}"#,
    ));
    assert_eq!(import.format, Format::Qwen);
    let utterance = &import.utterances[0];
    assert_eq!((utterance.language.as_deref(), utterance.text.as_str()), (Some("en"), "Good day."));
    assert_eq!((&import.utterances[1].language, import.utterances[1].text.as_str()), (&None, ""));
    assert_eq!(import.rejected[0].kind, Kind::BadValue);
}

#[test]
fn wenet() {
    let import = read(r#"{"key": "k", "wav": "a.wav", "txt": "hello"}"#);
    let utterance = &import.utterances[0];
    assert_eq!((utterance.id.as_str(), utterance.text.as_str()), ("k", "hello"));
}

#[test]
fn chat_gives_question_and_answer() {
    let import = read(concat!(
        r#"{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<audio>Who?"}, "#,
        r#"{"role": "assistant", "content": "Ann."}], "audios": ["a.wav"]}"#,
        "\n",
        r#"{"messages": [{"role": "user", "content": [{"type": "audio", "audio": "b.flac"}, {"type": "text", "text": " When?"}]}, "#,
        r#"{"role": "assistant", "content": "Now."}]}"#,
    ));
    assert_eq!(import.rejected, []);
    let [first, second] = &import.utterances[..] else { panic!("{import:?}") };
    assert_eq!(first.instruction.as_deref(), Some("<audio>Who?"));
    assert_eq!(first.answer.as_deref(), Some("Ann."));
    assert_eq!(first.extra["system"], "Be brief.");
    assert_eq!(second.instruction.as_deref(), Some("<audio> When?"));
    assert_eq!(second.id, "b");
}

#[test]
fn chat_placeholders_must_match_the_audios() {
    let line = |user: &str, audios: &str| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "{user}"}}, {{"role": "assistant", "content": "x"}}], "audios": {audios}}}"#
        )
    };
    let two = r#"["a.wav", "b.flac"]"#;
    let import = read(
        &[
            line("<audio>", two),
            line("none", r#"["a.wav"]"#),
            line("<audio><audio>", two),
            line("none", "[]"),
            r#"{"messages": [{"role": "user", "content": "<audio>"}], "audios": ["a.wav"]}"#.into(),
            r#"{"messages": [{"role": "assistant", "content": ""}], "audios": []}"#.into(),
        ]
        .join("\n"),
    );
    let kinds: Vec<_> = import.rejected.iter().map(|r| (r.line, r.kind)).collect();
    assert_eq!(
        kinds,
        [
            (1, Kind::Mismatch),
            (2, Kind::Mismatch),
            (3, Kind::Unsupported),
            (4, Kind::Unsupported),
            (5, Kind::MissingField),
            (6, Kind::Unsupported),
        ]
    );
    let found = &import.rejected[0].found;
    assert_eq!(found, "1 <audio> for 2 audios");
}

const RECORDING: &str = r#"{"id": "rec", "sources": [{"type": "file", "channels": [0, 1], "source": "a.wav"}], "sampling_rate": 16000, "num_samples": 160000, "duration": 10.0}"#;

fn supervision(id: &str, start: f64) -> String {
    format!(
        r#"{{"id": "{id}", "recording_id": "rec", "start": {start}, "duration": 2.0, "channel": 1, "text": "hi you", "language": "English", "speaker": "s1", "gender": "f", "alignment": {{"word": [["hi", {}, 0.5], ["you", {}, 0.75, 0.9]]}}}}"#,
        start + 0.1,
        start + 0.7,
    )
}

#[track_caller]
fn check_lhotse(import: &Import, start_s: f64) {
    assert_eq!(import.rejected, []);
    assert_eq!(import.format, Format::Lhotse);
    let utterance = &import.utterances[0];
    assert_eq!((utterance.id.as_str(), utterance.text.as_str()), ("sup", "hi you"));
    assert_eq!(utterance.audio.start_s, start_s);
    assert_eq!((utterance.audio.duration_s, utterance.audio.channel), (Some(2.0), Some(1)));
    assert_eq!(utterance.language.as_deref(), Some("en"));
    let times: Vec<_> =
        utterance.words.iter().map(|w| (w.start_s, w.end_s, w.confidence)).collect();
    assert_eq!(times, [(0.1, 0.6, None), (0.7, 1.45, Some(0.9))]);
}

#[test]
fn lhotse_recordings_and_supervisions() {
    let folder = Folder::new(&["a.wav"]);
    folder.write("x_recordings_all.jsonl", RECORDING);
    folder.write("x_supervisions_all.jsonl", supervision("sup", 3.3));
    check_lhotse(&folder.import("."), 3.3);
    check_lhotse(&folder.import("x_supervisions_all.jsonl"), 3.3);
    check_lhotse(&folder.import("x_recordings_all.jsonl"), 3.3);

    let lonely =
        supervision("late", 11.0) + "\n" + &supervision("lost", 1.0).replace("rec\"", "rex\"");
    folder.write("x_supervisions_all.jsonl", lonely);
    let rejected = folder.import(".").rejected;
    assert_eq!(
        rejected[0].to_string().split_once("jsonl:1: ").unwrap().1,
        "start: found 11 s, expected a start before the recording's end at 10 s"
    );
    assert_eq!((rejected[1].kind, rejected[1].field.as_str()), (Kind::Mismatch, "recording_id"));

    fs::remove_file(folder.path("x_recordings_all.jsonl")).unwrap();
    let error = import(&folder.path("."), None).unwrap_err();
    assert!(error.to_string().contains("needs a file of recordings"), "{error}");
}

#[test]
fn lhotse_cuts_with_gzip() {
    let folder = Folder::new(&["a.wav"]);
    let cut = |rest: &str| {
        format!(
            r#"{{"id": "cut", "start": 2.2, "duration": 5.0, "channel": 1, "recording": {RECORDING}, {rest}}}"#
        )
    };
    let mut lines =
        cut(&format!(r#""type": "MonoCut", "supervisions": [{}]"#, supervision("sup", 1.1)));
    lines += "\n";
    lines += &cut(r#""custom": {"k": 1}"#);
    lines += "\n";
    lines += &cut(r#""type": "MixedCut""#);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(lines.as_bytes()).unwrap();
    folder.write("cuts.000000.jsonl.gz", encoder.finish().unwrap());

    let mut imported = folder.import(".");
    assert_eq!(imported, folder.import("cuts.000000.jsonl.gz"));
    let rejected = imported.rejected.pop().unwrap();
    assert_eq!((rejected.line, rejected.kind), (3, Kind::Unsupported));
    check_lhotse(&imported, 3.3);
    let bare = &imported.utterances[1];
    assert_eq!((bare.id.as_str(), bare.text.as_str(), bare.audio.start_s), ("cut", "", 2.2));
    assert_eq!(bare.extra["k"], 1);
}

#[test]
fn kaldi_folder_with_segments() {
    let folder = Folder::new(&["a.wav", "sound/b.flac"]);
    folder.write("wav.scp", "r1 a.wav\nr2  sound/b.flac \nr3 sox x.wav -t wav - |\nr4 x.ark:12\n");
    folder.write("text", "u1 ONE TWO\nu2\nu3 THREE\nu4 FOUR\nu9 NINE\n");
    folder.write(
        "segments",
        "u1 r1 0.5 2.05\nu2 r2 0 -1\nu3 r3 0 1\nu4 r4 0 1\nu5 r1 0 1\nu6 r1 2 1\nu7 r1 0\nu8 r0 0 1\nu1 r1 3 4\n",
    );
    folder.write("utt2spk", "u1 anna\n");
    let imported = folder.import(".");
    assert_eq!(imported.format, Format::Kaldi);
    assert_eq!(imported, folder.import("wav.scp"));
    let [first, second] = &imported.utterances[..] else { panic!("{imported:?}") };
    assert_eq!((first.text.as_str(), first.speaker.as_deref()), ("ONE TWO", Some("anna")));
    assert_eq!((first.audio.start_s, first.audio.duration_s), (0.5, Some(1.55)));
    assert_eq!((second.text.as_str(), second.audio.duration_s), ("", None));
    assert_eq!(second.audio.path, folder.path("./sound/b.flac"));
    let rejected: Vec<_> = imported
        .rejected
        .iter()
        .map(|r| (r.file.file_name().unwrap().to_str().unwrap(), r.line, r.kind))
        .collect();
    assert_eq!(
        rejected,
        [
            ("segments", 9, Kind::DuplicateId),
            ("segments", 3, Kind::Unsupported),
            ("segments", 4, Kind::Unsupported),
            ("segments", 5, Kind::MissingField),
            ("segments", 6, Kind::BadValue),
            ("segments", 7, Kind::BadValue),
            ("segments", 8, Kind::Mismatch),
            ("text", 5, Kind::Mismatch),
        ]
    );
    let pipe = imported.rejected[1].to_string();
    assert!(pipe.contains("found the command \"sox x.wav -t wav - |\", expected a sound file"));
}

#[test]
fn kaldi_folder_without_segments() {
    let folder = Folder::new(&["a.wav"]);
    folder.write("wav.scp", "u1 a.wav\n");
    folder.write("text", "u1 hello\n");
    folder.write("utt2dur", "u1 1.25\n");
    folder.write("utt2lang", "u1 English\n");
    let imported = folder.import(".");
    assert_eq!(imported.rejected, []);
    assert_eq!(imported.utterances[0].audio.duration_s, Some(1.25));
    assert_eq!(imported.utterances[0].language.as_deref(), Some("en"));
    fs::remove_file(folder.path("text")).unwrap();
    let error = import(folder.0.path(), None).unwrap_err();
    assert!(error.to_string().ends_with("a kaldi data set needs the file text"), "{error}");
}

#[test]
fn librispeech_tree() {
    let base = "train-clean-5/1088/134315";
    let folder = Folder::new(&[&format!("{base}/1088-134315-0000.flac")]);
    folder.write(
        &format!("{base}/1088-134315.trans.txt"),
        "1088-134315-0000 AS YOU KNOW\n1088-134315-0001 MISSING\n",
    );
    let imported = folder.import(".");
    assert_eq!(imported.format, Format::LibriSpeech);
    let utterance = &imported.utterances[0];
    assert_eq!(
        (utterance.id.as_str(), utterance.text.as_str()),
        ("1088-134315-0000", "AS YOU KNOW")
    );
    assert_eq!(utterance.speaker.as_deref(), Some("1088"));
    assert_eq!(utterance.split.as_deref(), Some("train-clean-5"));
    assert_eq!((imported.rejected[0].line, imported.rejected[0].kind), (2, Kind::NoFile));
}

#[test]
fn common_voice_and_covost_tables() {
    let folder = Folder::new(&["clips/a.mp3", "clips/b.mp3", "clips/c.mp3"]);
    folder.write(
        "train.tsv",
        "client_id\tpath\tsentence\tup_votes\tlocale\n\
         x1\ta.mp3\tShe said \"no\".\t2\ten\n\
         x2\tb\tYes.\t0\ten\nx3\tgone.mp3\tGone.\t0\ten\nx4\tc.mp3\tShort.\n",
    );
    let import = folder.import("train.tsv");
    assert_eq!(import.format, Format::CommonVoice);
    let found: Vec<_> = import
        .utterances
        .iter()
        .map(|u| (u.id.as_str(), u.text.as_str(), u.speaker.as_deref(), u.split.as_deref()))
        .collect();
    let train = Some("train");
    assert_eq!(
        found,
        [("a.mp3", "She said \"no\".", Some("x1"), train), ("b", "Yes.", Some("x2"), train)]
    );
    assert!(import.utterances.iter().all(|u| u.language.as_deref() == Some("en")));
    // A clip that is not there, and a line that is cut off, with their lines.
    let rejected: Vec<_> = import.rejected.iter().map(|r| (r.line, r.kind)).collect();
    assert_eq!(rejected, [(4, Kind::NoFile), (5, Kind::Mismatch)]);
    assert!(import.rejected[1].to_string().contains("found 3 fields, expected 5 as in the header"));

    folder.write(
        "covost_v2.en_de.dev.tsv",
        "path\tsentence\ttranslation\tclient_id\na.mp3\tGood.\tGut.\tx1\n",
    );
    let import = folder.import("covost_v2.en_de.dev.tsv");
    let u = &import.utterances[0];
    assert_eq!((u.text.as_str(), u.answer.as_deref()), ("Good.", Some("Gut.")));
    assert_eq!((u.language.as_deref(), u.split.as_deref()), (Some("en"), Some("dev")));
    assert_eq!(u.audio.path, folder.path("clips/a.mp3"));
    // The tables of a folder overlap.
    let error = import_error(&folder.path(""));
    assert!(error.contains("common-voice") && error.contains(".tsv"), "{error}");
}

fn import_error(path: &Path) -> String {
    import(path, None).unwrap_err().to_string()
}

#[test]
fn sphinx_folder() {
    let folder = Folder::new(&["wav/tr/fash/a1.wav", "wav/te/mjwl/b1.flac"]);
    folder.write("etc/x_train.fileids", "tr/fash/a1\ntr/fash/a2\ntr/fash/a3\n");
    folder.write(
        "etc/x_train.transcription",
        "<s> YES READ(2) ++UM++ NO </s> (a1)\n<s> GO </s> (fash/a2)\nno id\n<s> X </s> (zz)\n",
    );
    folder.write("etc/x_test.fileids", "te/mjwl/b1\n");
    folder.write("etc/x_test.transcription", "RUBOUT G (b1)\n");
    let imported = folder.import(".");
    assert_eq!(imported.format, Format::Sphinx);
    assert_eq!(imported.utterances.len(), folder.import("etc").utterances.len());
    let got: Vec<_> = imported
        .utterances
        .iter()
        .map(|u| (u.id.as_str(), u.text.as_str(), u.split.as_deref(), u.speaker.as_deref()))
        .collect();
    assert_eq!(
        got,
        [
            ("te/mjwl/b1", "RUBOUT G", Some("test"), Some("mjwl")),
            ("tr/fash/a1", "YES READ NO", Some("train"), Some("fash")),
        ]
    );
    let rejected: Vec<_> = imported.rejected.iter().map(|r| (r.line, r.kind)).collect();
    assert_eq!(
        rejected,
        [(3, Kind::BadValue), (2, Kind::NoFile), (3, Kind::MissingField), (4, Kind::Mismatch)]
    );
    assert_eq!(folder.import("etc/x_test.fileids").utterances.len(), 1);
}

#[test]
fn digits_are_told_by_the_names_of_their_files() {
    let sounds = ["test/0_george_4.flac", "train/7_jackson_32.flac", "train/9_de_la_cruz_0.WAV"];
    let folder = Folder::new(&sounds);
    folder.write("README.md", "digits");
    folder.write("train/notes.txt", "no sound");
    let imported = folder.import(".");
    assert_eq!((imported.format, imported.rejected.as_slice()), (Format::Fsdd, &[][..]));
    let got: Vec<_> = imported
        .utterances
        .iter()
        .map(|u| (u.id.as_str(), u.text.as_str(), u.speaker.as_deref(), u.split.as_deref()))
        .collect();
    assert_eq!(
        got,
        [
            ("0_george_4", "zero", Some("george"), Some("test")),
            ("7_jackson_32", "seven", Some("jackson"), Some("train")),
            // Its folder says so, whatever the number of the take.
            ("9_de_la_cruz_0", "nine", Some("de_la_cruz"), Some("train")),
        ]
    );
    assert!(imported.utterances.iter().all(|u| u.language.as_deref() == Some("en")));
    assert_eq!(imported.utterances[1].audio.path, folder.path("./train/7_jackson_32.flac"));
    let test = folder.import("test");
    assert_eq!((test.format, test.utterances.len()), (Format::Fsdd, 1));
    let text = |split| {
        let part = import_split(&folder.path("."), Some(split)).unwrap().utterances;
        part.into_iter().map(|u| u.text).collect::<Vec<_>>().join(" ")
    };
    assert_eq!([text("test"), text("train")], ["zero", "seven nine"]);
}

#[test]
fn digits_of_one_folder_have_their_official_split() {
    let names = ["recordings/1_theo_4.wav", "recordings/1_theo_5.wav", "recordings/2_theo_49.wav"];
    let imported = Folder::new(&names).import(".");
    let splits: Vec<_> = imported.utterances.iter().map(|u| u.split.as_deref().unwrap()).collect();
    assert_eq!(splits, ["test", "train", "train"]);
}

#[test]
fn sounds_that_name_no_digit_are_rejected() {
    let wrong = [
        "10_theo_1.wav",
        "a_theo_1.wav",
        "_theo_1.wav",
        "+1_theo_1.wav",
        "1_theo.wav",
        "1__1.wav",
        "1_theo_.wav",
        "1_theo_+1.wav",
        "1_theo_x.wav",
        "1_theo_4294967296.wav",
        "１_theo_1.wav",
    ];
    let folder = Folder::new(&[&wrong[..], &["1_theo_1.wav"]].concat());
    let imported = folder.import(".");
    assert_eq!((imported.format, imported.utterances.len()), (Format::Fsdd, 1));
    assert_eq!(imported.rejected.len(), wrong.len());
    for rejected in &imported.rejected {
        assert_eq!((rejected.kind, rejected.field.as_str()), (Kind::BadValue, "name"));
        assert_eq!(rejected.expected, "digit_speaker_take, e.g. 7_jackson_32");
    }
    // The same take twice, in two folders.
    let twice = Folder::new(&["a/1_theo_1.wav", "b/1_theo_1.wav"]).import(".");
    let kinds: Vec<_> = twice.rejected.iter().map(|rejected| rejected.kind).collect();
    assert_eq!((twice.utterances.len(), kinds), (1, vec![Kind::DuplicateId]));
    // Sounds alone are no digits; one file of the set is not the set.
    let error = import_error(&Folder::new(&["a/noise.wav"]).path("."));
    assert!(error.contains("none of a known layout") && error.contains("fsdd"), "{error}");
    let error = import(&folder.path("1_theo_1.wav"), Some(Format::Fsdd)).unwrap_err().to_string();
    assert!(error.contains("a fsdd data set needs its folder"), "{error}");
}

#[test]
fn bytes_are_read_without_files() {
    let line = br#"{"audio_filepath": "x/a.wav", "duration": 1, "text": "t"}"#;
    let import = import_bytes(line, Path::new("dir/m.jsonl"), None).unwrap();
    assert_eq!(import.utterances[0].audio.path, Path::new("dir/x/a.wav"));
    let error = import_bytes(b"a b", Path::new("wav.scp"), Some(Format::Kaldi)).unwrap_err();
    assert!(matches!(error, Error::MissingFile { .. }));
}

/// Folder of test data beside the workspace, which most machines do not have.
fn test_data() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("SANDHI_TEST_DATA").map_or(default, PathBuf::from);
    if !folder.is_dir() {
        eprintln!("skipped: no test data in {}", folder.display());
        return None;
    }
    Some(folder)
}

#[test]
fn an4_has_its_official_split() {
    let Some(data) = test_data() else { return };
    let import = import(&data.join("an4"), None).unwrap();
    assert_eq!(import.rejected, []);
    let count =
        |split| import.utterances.iter().filter(|u| u.split.as_deref() == Some(split)).count();
    assert_eq!((count("train"), count("test")), (948, 130));
    let first = import.utterances.iter().find(|u| u.id == "an4_clstk/fash/an251-fash-b").unwrap();
    assert_eq!(first.text, "YES");
    assert!(import.utterances.iter().all(|u| !u.text.contains(['<', '>', '('])));
}

#[test]
fn fsdd_has_its_official_split() {
    let Some(data) = test_data() else { return };
    if !data.join("fsdd").is_dir() {
        eprintln!("skipped: no fsdd in {}", data.display());
        return;
    }
    let import = import(&data.join("fsdd"), None).unwrap();
    assert_eq!((import.format, import.rejected.as_slice()), (Format::Fsdd, &[][..]));
    let test: Vec<_> =
        import.utterances.iter().filter(|u| u.split.as_deref() == Some("test")).collect();
    // Six speakers, ten digits, five takes.
    assert_eq!(test.len(), 300);
    assert_eq!(test.iter().filter(|u| u.text == "three").count(), 30);
}
