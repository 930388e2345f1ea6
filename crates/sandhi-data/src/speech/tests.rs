use super::*;
use crate::augment::power;

fn studio(cache_dir: Option<&Path>) -> Studio {
    Studio::open(cache_dir).unwrap_or_else(|error| panic!("{error}"))
}

fn request(domain: Domain, seed: u64) -> Request {
    let text = "Anna is in the kitchen, and Ben has the red ball.".to_owned();
    Request { text, language: Language::English, domain, seed, voice: None }
}

fn requests(domain: Domain, n: u64) -> Vec<Request> {
    (0..n).map(|seed| request(domain, seed)).collect()
}

#[test]
fn every_domain_speaks_every_word_in_order() {
    let studio = studio(None);
    for domain in Domain::ALL {
        for speech in studio.speak_many(&requests(domain, 6)).unwrap() {
            let labels: Vec<&str> = speech.words.iter().map(|w| w.label.as_str()).collect();
            assert_eq!(labels.join(" "), "Anna is in the kitchen and Ben has the red ball");
            assert_eq!(speech.waveform.sample_rate_hz, 16_000);
            let mut before = 0.05;
            for word in &speech.words {
                assert!(word.start_s >= before - 1e-9 && word.end_s > word.start_s, "{word:?}");
                before = word.end_s;
            }
            assert!(before < speech.waveform.duration_s());
            for phoneme in &speech.phonemes {
                let inside = |w: &Alignment| {
                    w.start_s <= phoneme.start_s + 1e-9 && phoneme.end_s <= w.end_s + 1e-9
                };
                assert!(speech.words.iter().any(inside), "{domain}: {phoneme:?}");
            }
            let peak = speech.waveform.samples.iter().fold(0.0_f32, |peak, s| peak.max(s.abs()));
            assert!((0.01..1.0).contains(&peak), "{domain}: peak {peak}");
        }
    }
}

#[test]
fn inserted_pauses_are_silent_and_between_words() {
    let studio = studio(None);
    let mut n_pauses = 0;
    for speech in studio.speak_many(&requests(Domain::Tempo, 12)).unwrap() {
        for pair in speech.words.windows(2) {
            let gap_s = pair[1].start_s - pair[0].end_s;
            if gap_s < 0.1 {
                continue;
            }
            n_pauses += 1;
            // Some voices have an echo of a tenth, 0.14 s later: 20 dB below the word before.
            let samples = |start_s: f64, end_s: f64| {
                &speech.waveform.samples[(16_000.0 * start_s) as usize..(16_000.0 * end_s) as usize]
            };
            let middle_s = f64::midpoint(pair[0].end_s, pair[1].start_s);
            let pause = power(samples(middle_s - 0.01, middle_s + 0.01));
            let word = power(samples(pair[0].start_s, pair[0].end_s));
            assert!(pause < word / 50.0, "{}: {pause} and {word} at {pair:?}", speech.voice);
        }
    }
    // One at the comma of each text, and some more.
    assert!(n_pauses > 20, "{n_pauses}");
}

#[test]
fn words_are_louder_than_the_margins() {
    let studio = studio(None);
    for speech in studio.speak_many(&requests(Domain::Base, 8)).unwrap() {
        let samples = &speech.waveform.samples;
        let first = (16_000.0 * speech.words[0].start_s) as usize;
        assert!(samples[..first - 160].iter().all(|s| s.abs() < 1e-3));
        for word in &speech.words {
            let span =
                &samples[(16_000.0 * word.start_s) as usize..(16_000.0 * word.end_s) as usize];
            assert!(power(span) > 1e-5, "{word:?}");
        }
    }
}

#[test]
fn speech_depends_on_the_request_alone() {
    let studio = studio(None);
    for domain in Domain::ALL {
        let many = studio.speak_many(&requests(domain, 4)).unwrap();
        for (seed, speech) in (0..4).rev().zip(many.iter().rev()) {
            assert_eq!(&studio.speak(&request(domain, seed)).unwrap(), speech);
        }
        assert_ne!(many[0].waveform, many[1].waveform);
    }
}

#[test]
fn the_cache_gives_back_the_same_and_repairs_itself() {
    let dir = tempfile::tempdir().unwrap();
    let studio = studio(Some(dir.path()));
    let request = request(Domain::Channel, 3);
    let fresh = studio.speak(&request).unwrap();
    assert_eq!(studio.speak(&request).unwrap(), fresh);

    let mut files = Vec::new();
    for folder in std::fs::read_dir(dir.path().join("speech")).unwrap() {
        files.extend(std::fs::read_dir(folder.unwrap().path()).unwrap().map(|f| f.unwrap().path()));
    }
    let [file] = &files[..] else { panic!("one file, found {files:?}") };
    let bytes = std::fs::read(file).unwrap();
    std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(studio.speak(&request).unwrap(), fresh);
    assert_eq!(std::fs::read(file).unwrap(), bytes, "the file was made again");
}

#[test]
fn a_text_without_words_is_an_error() {
    let studio = studio(None);
    let request = Request { text: " … ".to_owned(), ..request(Domain::Base, 1) };
    let error = studio.speak(&request).unwrap_err().to_string();
    assert!(error.starts_with("found nothing to speak"), "{error}");
}

#[test]
fn domains_are_written_in_lower_case() {
    for domain in Domain::ALL {
        assert_eq!(serde_json::to_string(&domain).unwrap(), format!("\"{domain}\""));
    }
}
