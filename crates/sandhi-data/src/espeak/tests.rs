use super::*;

fn installed() -> Espeak {
    Espeak::open().unwrap_or_else(|error| panic!("{error}"))
}

fn labels(words: &[Alignment]) -> Vec<&str> {
    words.iter().map(|word| word.label.as_str()).collect()
}

#[test]
fn every_word_has_its_time() {
    let espeak = installed();
    let cases = [
        (
            "en-us+f3",
            "She is in the kitchen, and it has been of the best; at 42 o'clock it isn't 1,234.",
        ),
        ("de+m2", "Über den Fluss ging Jürgen in den Wald – ja, „natürlich“ ins Grüne!"),
        ("es+f1", "¿Dónde está el niño? Mañana va al jardín con la pelota, ¡qué bien!"),
    ];
    for (voice, text) in cases {
        let spoken = espeak.synthesize(text, &Settings::new(voice, 115)).unwrap();
        let expected: Vec<&str> = text
            .split_whitespace()
            .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
            .filter(|word| !word.is_empty())
            .collect();
        assert_eq!(labels(&spoken.words), expected);
        let mut before = 0.0;
        for word in &spoken.words {
            assert!(
                word.start_s >= before && word.end_s > word.start_s + 0.02,
                "{voice}: {word:?}"
            );
            before = word.end_s;
        }
        assert!(before <= spoken.waveform.duration_s());
        assert_eq!(spoken.waveform.sample_rate_hz, 22_050);
    }
}

#[test]
fn pauses_are_silent_and_words_are_not() {
    let espeak = installed();
    let text = "Anna goes home. Ben sleeps, and Carla sings.";
    let spoken = espeak.synthesize(text, &Settings::new("en-us", 115)).unwrap();
    let power = |start_s: f64, end_s: f64| {
        let index = |s: f64| (s * 22_050.0).round() as usize;
        let samples = &spoken.waveform.samples[index(start_s)..index(end_s)];
        samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32
    };
    let home = &spoken.words[2];
    let ben = &spoken.words[3];
    assert!(ben.start_s - home.end_s > 0.2, "a full stop is a pause");
    // The sound rings for some milliseconds after the last phoneme.
    assert!(power(home.end_s + 0.03, ben.start_s) < 1e-7);
    for word in &spoken.words {
        assert!(power(word.start_s, word.end_s) > 1e-5, "{word:?}");
    }
}

#[test]
fn the_result_does_not_depend_on_what_was_spoken_before() {
    let espeak = installed();
    for voice in ["en-us+f3", "de", "en-gb+whisper", "es+klatt2"] {
        let settings = Settings::new(voice, 115);
        let first = espeak.synthesize("The same words again.", &settings).unwrap();
        espeak.synthesize("Something else, louder!", &Settings::new("de+m5", 160)).unwrap();
        let second = espeak.synthesize("The same words again.", &settings).unwrap();
        assert_eq!(first, second);
    }
}

#[test]
fn what_espeak_cannot_do_is_an_error() {
    let espeak = installed();
    for voice in ["xx", "en-us+nobody", "", "en-us+", "en\0us"] {
        let error = espeak.synthesize("Hello.", &Settings::new(voice, 115)).unwrap_err();
        assert!(matches!(error, Error::UnknownVoice { .. }), "{voice}: {error}");
    }
    for text in ["", "  ", "\n"] {
        let error = espeak.synthesize(text, &Settings::new("en-us", 115)).unwrap_err();
        assert!(matches!(error, Error::NothingToSay { .. }), "{text:?}: {error}");
    }
    let error = espeak.synthesize("Hello.", &Settings::new("en-us", 60)).unwrap_err();
    assert!(matches!(error, Error::Speed { found: 60 }));
    // A zero byte ends a C string; here it ends a word.
    let spoken = espeak.synthesize("one\0two", &Settings::new("en-us", 115)).unwrap();
    assert_eq!(labels(&spoken.words), ["one", "two"]);
}

#[test]
fn base_speed_is_near_audiobooks() {
    let espeak = installed();
    let text = "The old man went to the market in the morning and he bought two small blue boxes.";
    let spoken = espeak.synthesize(text, &Settings::new("en-us", 115)).unwrap();
    let first = spoken.words.first().unwrap().start_s;
    let last = spoken.words.last().unwrap().end_s;
    let words_per_second = spoken.words.len() as f64 / (last - first);
    assert!((2.4..3.1).contains(&words_per_second), "{words_per_second}");
}
