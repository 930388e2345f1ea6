//! Bodies of the fuzz targets in `fuzz/`: plain functions over bytes that must neither panic nor hang.
//!
//! Tests run a fixed number of mutated seeds through each, so that the targets are exercised where no
//! fuzzer is installed; `fuzz/README.md` says how to run the real ones.

use std::path::Path;

use crate::{
    audio::{Blocks, MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ, Waveform},
    choice,
    manifest::{self, Format, Import},
    rng::Stream,
    units::{self, UnitFile},
};

/// Stop decoding here: a few bytes of FLAC can stand for hours of silence.
const MAX_SAMPLES: usize = 1_000_000;

/// Decodes bytes as a sound file and checks what comes out.
///
/// # Panics
///
/// When the decoder breaks a promise: samples that are not finite, an empty sound, or a
/// rate out of range. That is what a fuzzer looks for.
pub fn decode(data: &[u8]) {
    let Ok(blocks) = Blocks::decode(data.to_vec(), "fuzz", 16_000, 4_096) else { return };
    let rate = blocks.info().sample_rate_hz;
    assert!((MIN_SAMPLE_RATE_HZ..=MAX_SAMPLE_RATE_HZ).contains(&rate), "rate {rate}");
    let (mut n_samples, mut failed) = (0, false);
    for block in blocks {
        let Ok(block) = block else {
            failed = true;
            break;
        };
        assert!(!block.is_empty() && block.len() <= 4_096, "block of {}", block.len());
        n_samples += block.len();
        if n_samples > MAX_SAMPLES {
            return;
        }
    }
    assert!(failed || n_samples > 0, "an empty sound must be an error");
    // Whole-file reading agrees about success. The native rate may be 48 times 16 kHz.
    let whole = Waveform::decode(data.to_vec(), "fuzz");
    assert_eq!(whole.is_err(), failed);
    if let Ok(whole) = whole {
        assert!(whole.samples.iter().all(|x| x.is_finite()));
    }
}

/// Reads bytes as a manifest and checks what comes out. The first byte chooses the format; the
/// tables of a Kaldi folder stand behind each other, separated by the byte 0xFF.
///
/// # Panics
///
/// When the readers break a promise: ids that repeat, times that cannot be, or utterances that
/// do not survive being written and read. That is what a fuzzer looks for.
pub fn manifest(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let format = match choice % 16 {
        0 => Some(Format::Sandhi),
        1 => Some(Format::Nemo),
        2 => Some(Format::SlamLlm),
        3 => Some(Format::Qwen),
        4 => Some(Format::Wenet),
        5 => Some(Format::Chat),
        6 => Some(Format::Lhotse),
        7 => {
            let names = ["wav.scp", "text", "segments", "utt2spk", "utt2lang", "utt2dur"];
            let tables: Vec<_> = names.into_iter().zip(data.split(|&byte| byte == 0xff)).collect();
            if let Ok(import) = manifest::import_kaldi_tables(&tables) {
                check_import(&import);
            }
            return;
        }
        8 => {
            for line in String::from_utf8_lossy(data).lines() {
                if let Some((id, words)) = manifest::sphinx_transcript(line) {
                    assert!(!id.is_empty() && !words.starts_with(' '), "{id:?} {words:?}");
                }
            }
            return;
        }
        10 => {
            for stem in String::from_utf8_lossy(data).lines() {
                if let Some((text, speaker, take)) = manifest::fsdd_recording(stem) {
                    assert!(stem.contains(speaker) && !speaker.is_empty(), "{stem:?}: {speaker:?}");
                    assert!(
                        !text.is_empty() && stem.ends_with(&take.to_string()),
                        "{stem:?}: {take}"
                    );
                }
            }
            return;
        }
        _ => None,
    };
    if let Ok(import) = manifest::import_bytes(data, Path::new("fuzz"), format) {
        check_import(&import);
    }
}

/// Reads bytes as choice items in every format of files and checks what comes out.
///
/// # Panics
///
/// When a reader gives an item that cannot be: fewer than two endings, or a right one that is not among them.
pub fn choice(data: &[u8]) {
    for format in choice::Format::ALL {
        let Ok(set) = choice::decode(data, "fuzz", format) else { continue };
        for item in &set.items {
            assert!(item.endings.len() >= 2 && item.right < item.endings.len(), "{item:?}");
            let is_there = |part: &choice::Part| part.text.is_some() || part.audio.is_some();
            assert!(item.endings.iter().all(is_there), "{item:?}");
        }
    }
}

/// Reads bytes as a file of units in either format and checks what comes out.
///
/// # Panics
///
/// When a reader gives utterances that cannot be, or that do not survive being written and read.
pub fn units(data: &[u8]) {
    let read = |bytes: Vec<u8>| {
        let file = UnitFile::decode(bytes, "fuzz").ok()?;
        let utterances: Result<Vec<_>, _> = (0..file.len()).map(|i| file.get(i)).collect();
        Some((file.header().clone(), utterances.ok()?))
    };
    let Some((header, utterances)) = read(data.to_vec()) else { return };
    for utterance in &utterances {
        assert!(utterance.units.iter().all(|&unit| unit < header.n_units), "{utterance:?}");
        let ends = utterance.words.iter().flat_map(|word| [word.start, word.end]);
        assert!(ends.is_sorted(), "{utterance:?}");
        let end = utterance.words.last().map_or(0, |word| word.end);
        assert!(end as usize <= utterance.units.len(), "{utterance:?}");
    }
    for format in [units::Format::Jsonl, units::Format::Binary] {
        let written = units::to_bytes(format, &header, &utterances);
        let again = read(written.expect("what was read can be written"));
        assert_eq!(again, Some((header.clone(), utterances.clone())));
    }
}

fn check_import(import: &Import) {
    let mut ids = std::collections::HashSet::new();
    for utterance in &import.utterances {
        assert!(!utterance.id.is_empty() && ids.insert(&utterance.id), "id {:?}", utterance.id);
        let audio = &utterance.audio;
        assert!(audio.start_s >= 0.0 && audio.start_s.is_finite(), "{audio:?}");
        assert!(audio.duration_s.is_none_or(|s| s > 0.0 && s.is_finite()), "{audio:?}");
    }
    for rejected in &import.rejected {
        assert!(rejected.line > 0 && rejected.to_string().len() < 2_000, "{rejected}");
    }
    if import.utterances.is_empty() {
        return;
    }
    let written = manifest::to_jsonl(&import.utterances).expect("paths came from text");
    let again = manifest::import_bytes(written.as_bytes(), Path::new("fuzz"), Some(Format::Sandhi))
        .and_then(Import::strict)
        .expect("what was accepted is accepted again");
    assert_eq!(again, import.utterances);
}

/// Values that sizes, counts and offsets in headers like to be wrong by.
const EXTREMES: [u32; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

/// The same, as text has them.
const NUMBERS: [&str; 8] = ["0", "-1", "1e999", "4294967296", "0.5", "null", "nan", "[]"];

/// Changes a few places of `seed`, with a preference for the start, where headers are.
fn mutate(seed: &[u8], other: &[u8], rng: &mut Stream) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=rng.below(4) {
        if bytes.len() < 8 {
            break;
        }
        let reach = if rng.chance(0.6) { bytes.len().min(64) } else { bytes.len() };
        let at = rng.below(reach - 4);
        match rng.below(9) {
            0 => {
                // The next run of digits, where there is one.
                let digits = bytes[at..].iter().position(u8::is_ascii_digit).map_or(at, |i| at + i);
                let n = bytes[digits..].iter().take_while(|b| b.is_ascii_digit()).count();
                bytes.splice(digits..digits + n, rng.pick(&NUMBERS).bytes());
            }
            8 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next_u64() as u8,
            2 => bytes[at..at + 4].copy_from_slice(&rng.pick(&EXTREMES).to_le_bytes()),
            3 => bytes[at..at + 4].copy_from_slice(&rng.pick(&EXTREMES).to_be_bytes()),
            4 => bytes[at..at + 2].copy_from_slice(&rng.pick(&EXTREMES).to_le_bytes()[..2]),
            5 => bytes.truncate(rng.below(bytes.len()) + 1),
            6 => {
                let end = (at + 1 + rng.below(64)).min(bytes.len());
                if rng.chance(0.5) {
                    bytes.drain(at..end);
                } else {
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
            }
            _ => {
                let from = rng.below(other.len());
                let end = (from + 1 + rng.below(256)).min(other.len());
                bytes.splice(at..at, other[from..end].iter().copied());
            }
        }
    }
    bytes
}

/// Runs the seeds, and `n` mutations of them, through a target: always the same ones.
pub fn run(n: usize, seeds: &[Vec<u8>], target: fn(&[u8])) {
    for seed in seeds {
        target(seed);
    }
    for i in 0..n {
        let mut rng = Stream::named(i as u64, "fuzz");
        let (seed, other) = (rng.pick(seeds), rng.pick(seeds));
        target(&mutate(seed, other, &mut rng));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutated_sound_files_neither_panic_nor_hang() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/audio");
        let mut seeds: Vec<Vec<u8>> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
            .collect();
        // The order of a directory is not the same everywhere.
        seeds.sort();
        let samples = (0..800).map(|i| (i as f32 * 0.1).sin()).collect();
        seeds.push(Waveform::new(samples, 8_000).to_wav_bytes().unwrap());
        run(2_000, &seeds, decode);
    }

    #[test]
    fn mutated_manifests_neither_panic_nor_hang() {
        let recording = r#"{"id":"r","sources":[{"type":"file","channels":[0,1],"source":"a.wav"}],"sampling_rate":8000,"num_samples":80000,"duration":10.0}"#;
        let lines = [
            r#"0{"id":"u","audio":{"path":"a.wav","start_s":0.5,"duration_s":1.25,"channel":1},"text":"née","language":"fr","speaker":"s","split":"dev","task":"qa","instruction":"<audio>?","answer":"So.","words":[{"label":"a","start_s":0.1,"end_s":0.4,"confidence":0.5,"source":"silver"}],"extra":{"k":[1,2.5,null]}}"#.to_owned(),
            "1{\"audio_filepath\":\"a.wav\",\"duration\":3.5,\"offset\":1.5,\"text\":\"hi\",\"_skipme\":0}\n{\"audio_filepath\":\"b.wav\",\"duration\":1,\"text\":\"\"}".to_owned(),
            r#"2{"key":"u1","source":"a.wav","target":"x"}
{"key":"u2","task":"ASR","path":"b.ark:12","target":"y","hotword":"y"}"#.to_owned(),
            r#"3{"audio":"a.wav","text":"language English<asr_text>Good day.","prompt":"p"}"#.to_owned(),
            r#"4{"key":"k","wav":"a.wav","txt":"hello"}"#.to_owned(),
            r#"5{"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"audio","audio":"b.wav"},{"type":"text","text":"When?"}]},{"role":"assistant","content":"Now."}],"audios":[]}
{"messages":[{"role":"user","content":"<audio>?"},{"role":"assistant","content":"y"}],"audios":["a.wav"]}"#.to_owned(),
            format!(r#"6{{"id":"c","start":2.5,"duration":5.0,"channel":1,"type":"MonoCut","recording":{recording},"supervisions":[{{"id":"s","recording_id":"r","start":0.5,"duration":2.0,"channel":1,"text":"hi","language":"English","alignment":{{"word":[["hi",0.6,0.5,0.9]]}}}}]}}"#),
            "8<s> YES READ(2) ++UM++ NO </s> (a/b)\nX (y)".to_owned(),
        ];
        let mut seeds: Vec<Vec<u8>> = lines
            .into_iter()
            .map(|line| {
                let (choice, rest) = line.split_at(1);
                [&[choice.as_bytes()[0] - b'0'], rest.as_bytes()].concat()
            })
            .collect();
        seeds.push(
            [
                b"\x07r1 a.wav\nr2 sox x |\n\xff",
                &b"u1 ONE\nu2 TWO\xffu1 r1 0 1.5\nu2 r2 2 -1\xffu1 s"[..],
            ]
            .concat(),
        );
        seeds.push([&[9], &seeds[1][1..]].concat());
        seeds.push(b"\x0a7_jackson_32\n0_a_b_4\nx_y_1\n".to_vec());
        let all_read = seeds.iter().filter(|seed| seed[0] < 7).all(|seed| {
            let import = manifest::import_bytes(&seed[1..], Path::new("fuzz"), None);
            import.is_ok_and(|import| !import.utterances.is_empty())
        });
        assert!(all_read, "seeds must be read before they are changed");
        run(4_000, &seeds, super::manifest);
    }
    #[test]
    fn mutated_units_neither_panic_nor_hang() {
        let lines = concat!(
            r#"{"sandhi_units":1,"quantizer":"5ae1","n_units":100,"rate_hz":25.0}"#,
            "\n",
            r#"{"id":"a","units":[17,17,3,98],"words":[["yes",1,4]],"text":"Yes.","language":"en"}"#,
            "\n",
            r#"{"id":"b","units":[99,5,5]}"#,
        );
        let file = UnitFile::decode(lines.as_bytes().to_vec(), "seed").unwrap();
        let utterances: Vec<_> = (0..file.len()).map(|i| file.get(i).unwrap()).collect();
        let binary = units::to_bytes(units::Format::Binary, file.header(), &utterances).unwrap();
        run(4_000, &[lines.as_bytes().to_vec(), binary], super::units);
    }
}
