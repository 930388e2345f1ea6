//! Who speaks: a table of espeak-ng's variants, each with its accent in every language.

use super::Domain;
use crate::language::Language;

/// A speaker: a variant (formants, pitch, roughness), English accent, Spanish accent.
type Speaker = (&'static str, &'static str, &'static str);

/// `base`, `tempo`, `channel`: four men, four women.
const BASE: [Speaker; 8] = [
    ("m1", "en-us", "es"),
    ("m3", "en-gb", "es"),
    ("m4", "en-us", "es-419"),
    ("m7", "en-us", "es"),
    ("f1", "en-gb", "es-419"),
    ("f2", "en-us", "es"),
    ("f3", "en-us", "es-419"),
    ("f5", "en-gb", "es"),
];

/// `voices`: four men, four women.
const UNSEEN: [Speaker; 8] = [
    ("m2", "en-us", "es"),
    ("m6", "en-gb", "es-419"),
    ("quincy", "en-us", "es"),
    ("marcelo", "en-gb", "es-419"),
    ("f4", "en-us", "es"),
    ("linda", "en-gb", "es"),
    ("steph", "en-us", "es-419"),
    ("Annie", "en-us", "es"),
];

/// `wild`.
const WILD: [Speaker; 20] = [
    ("Alex", "en-us", "es"),
    ("Andy", "en-gb", "es-419"),
    ("Diogo", "en-us", "es"),
    ("Lee", "en-gb-scotland", "es-419"),
    ("Mario", "en-us", "es"),
    ("Michael", "en-gb-x-rp", "es-419"),
    ("Nguyen", "en-us", "es"),
    ("adam", "en-gb", "es-419"),
    ("aunty", "en-gb-scotland", "es"),
    ("belinda", "en-us", "es-419"),
    ("david", "en-gb-x-rp", "es"),
    ("ed", "en-us", "es-419"),
    ("grandma", "en-gb", "es"),
    ("iven3", "en-us", "es-419"),
    ("klatt2", "en-us", "es"),
    ("m5", "en-gb", "es-419"),
    ("m8", "en-us", "es"),
    ("miguel", "en-us", "es-419"),
    ("pablo", "en-gb-x-rp", "es"),
    ("shelby", "en-us", "es-419"),
];

fn speakers(domain: Domain) -> &'static [Speaker] {
    match domain {
        Domain::Base | Domain::Tempo | Domain::Channel => &BASE,
        Domain::Voices => &UNSEEN,
        Domain::Wild => &WILD,
    }
}

/// The voices of a domain in a language, e.g. `en-us+f3`; one place in the list is one speaker in all languages.
pub fn voices(domain: Domain, language: Language) -> Vec<String> {
    let accent = |&(variant, english, spanish): &Speaker| {
        let accent = match language {
            Language::English => english,
            Language::German => "de",
            Language::Spanish => spanish,
        };
        format!("{accent}+{variant}")
    };
    speakers(domain).iter().map(accent).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::espeak::Espeak;

    #[test]
    fn no_speaker_is_in_two_sets() {
        let all: Vec<&str> = [&BASE[..], &UNSEEN, &WILD].concat().iter().map(|s| s.0).collect();
        assert_eq!(all.len(), 36);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 36);
    }

    #[test]
    fn every_voice_is_installed() {
        let espeak = Espeak::open().unwrap_or_else(|error| panic!("{error}"));
        for domain in Domain::ALL {
            for language in Language::ALL {
                for voice in voices(domain, language) {
                    assert!(espeak.has_voice(&voice).unwrap(), "{voice}");
                }
            }
        }
    }
}
