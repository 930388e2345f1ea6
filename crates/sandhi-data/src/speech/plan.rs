//! What is decided before a word is spoken: voice, speed, pauses, channel.
//!
//! Every decision has a stream of its own, so that a change to one leaves the others alone.

use super::{
    BASE_WORDS_PER_MINUTE, Domain, Request,
    channel::{Band, Channel, Noise, Room},
    voices::voices,
};
use crate::{
    augment::NoiseKind,
    espeak::{MIN_WORDS_PER_MINUTE, Settings},
    rng::{Stream, stream},
};

/// Everything random about one spoken text, except the noise itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) settings: Settings,
    /// Silence before and after the speech, in seconds.
    pub(super) margins_s: [f64; 2],
    pub(super) pauses: Option<Pauses>,
    pub(super) channel: Channel,
    /// For where pauses fall, and the samples of rooms and noise.
    pub(super) seed: u64,
}

/// Pauses between words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pauses {
    /// How likely one is between two words.
    pub(super) probability: f64,
    /// The longest, in seconds.
    pub(super) longest_s: f64,
}

/// The shortest pause, in seconds.
pub(super) const SHORTEST_PAUSE_S: f64 = 0.08;

/// Margins of silence lie between these, in seconds.
const MARGIN_S: [f64; 2] = [0.08, 0.25];

pub(super) fn plan(request: &Request) -> Plan {
    // The voice and the margins do not depend on the domain, so that domains can be compared in pairs.
    let spoken = stream(stream(request.seed, &request.text), request.language.code());
    let seed = stream(spoken, request.domain.name());
    let voices = voices(request.domain, request.language);
    let by = request.voice.map_or(spoken, |voice| stream(voice, request.language.code()));
    let voice = Stream::named(by, "voice").pick(&voices).clone();
    let mut margins = Stream::named(spoken, "margins");
    let margins_s = [(); 2].map(|()| margins.between(MARGIN_S[0], MARGIN_S[1]));

    let mut draw = Stream::named(seed, "plan");
    let (mut speed, mut pauses, mut channel) = (1.0, None, Channel::default());
    let (mut pitch, mut pitch_range) = (50, 50);
    match request.domain {
        Domain::Base | Domain::Voices => {}
        Domain::Tempo => {
            speed = draw.between(0.7, 1.4);
            pauses = Some(Pauses { probability: draw.between(0.0, 0.3), longest_s: 0.5 });
        }
        Domain::Channel => channel = telephone(&mut draw),
        Domain::Wild => {
            speed = draw.between(0.7, 1.5);
            pitch = 30 + draw.below(41) as u32;
            pitch_range = 30 + draw.below(41) as u32;
            if draw.chance(0.3) {
                pauses = Some(Pauses { probability: draw.between(0.0, 0.3), longest_s: 0.7 });
            }
            if draw.chance(0.75) {
                channel = outdoors(&mut draw);
            }
        }
    }
    let words_per_minute = (f64::from(BASE_WORDS_PER_MINUTE) * speed).round() as u32;
    let words_per_minute = words_per_minute.max(MIN_WORDS_PER_MINUTE);
    let settings = Settings { voice, words_per_minute, pitch, pitch_range };
    Plan { settings, margins_s, pauses, channel, seed }
}

/// The channels of `channel`; at least one effect.
fn telephone(draw: &mut Stream) -> Channel {
    const NOISES: [NoiseKind; 4] =
        [NoiseKind::White, NoiseKind::Pink, NoiseKind::SpeechShaped, NoiseKind::Babble];
    const BANDS: [Band; 4] = [
        Band { low_hz: 300.0, high_hz: 3_400.0 },
        Band { low_hz: 200.0, high_hz: 3_000.0 },
        Band { low_hz: 80.0, high_hz: 4_500.0 },
        Band { low_hz: 500.0, high_hz: 6_000.0 },
    ];
    let mut channel = Channel::default();
    let (room, noise, band) = (draw.chance(0.5), draw.chance(0.7), draw.chance(0.4));
    channel.mu_law = draw.chance(0.3);
    if room {
        channel.room =
            Some(Room { rt60_s: draw.between(0.2, 0.8), direct_db: draw.between(-3.0, 9.0) });
    }
    if noise || !(room || band || channel.mu_law) {
        channel.noises.push(Noise { kind: *draw.pick(&NOISES), snr_db: draw.between(5.0, 20.0) });
    }
    if band {
        channel.band = Some(*draw.pick(&BANDS));
    }
    channel.gain_db = draw.between(-12.0, 0.0);
    channel
}

/// The channels of `wild`: no kind of noise and no band that `channel` has, and rooms of other seeds.
fn outdoors(draw: &mut Stream) -> Channel {
    const NOISES: [NoiseKind; 3] = [NoiseKind::Brown, NoiseKind::Blue, NoiseKind::Hum];
    let mut channel = Channel::default();
    if draw.chance(0.4) {
        channel.room =
            Some(Room { rt60_s: draw.between(0.1, 1.0), direct_db: draw.between(-4.0, 12.0) });
    }
    let n_noises = [0, 1, 1, 2][draw.below(4)];
    for _ in 0..n_noises {
        channel.noises.push(Noise { kind: *draw.pick(&NOISES), snr_db: draw.between(2.0, 30.0) });
    }
    if draw.chance(0.4) {
        let (low_hz, high_hz) = (draw.between(20.0, 450.0), draw.between(2_500.0, 7_500.0));
        channel.band = Some(Band { low_hz, high_hz });
    }
    channel.gain_db = draw.between(-20.0, 3.0);
    channel
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    fn plans(domain: Domain) -> Vec<Plan> {
        (0..400)
            .map(|seed| {
                let text = "The red ball is here.".to_owned();
                plan(&Request { text, language: Language::English, domain, seed, voice: None })
            })
            .collect()
    }

    /// Texts that are told a voice have one, others have one of their own each.
    #[test]
    fn several_texts_can_have_one_voice() {
        let voices = |voice: Option<u64>| {
            let of = |seed: u64| Request {
                text: format!("The red ball is here {seed} times."),
                language: Language::English,
                domain: Domain::Voices,
                seed,
                voice,
            };
            let voices = (0..20).map(|seed| plan(&of(seed)).settings.voice);
            voices.map(|voice| format!("{voice:?}")).collect::<std::collections::BTreeSet<_>>()
        };
        assert!(voices(None).len() > 1);
        let one: Vec<_> = (0..8).map(|voice| voices(Some(voice))).collect();
        assert!(one.iter().all(|voices| voices.len() == 1), "{one:?}");
        assert!(one.iter().any(|voices| *voices != one[0]), "{one:?}");
    }

    #[test]
    fn domains_differ_in_what_they_say_they_differ_in() {
        let speeds = |domain| {
            let mut speeds: Vec<u32> =
                plans(domain).iter().map(|plan| plan.settings.words_per_minute).collect();
            speeds.sort_unstable();
            [speeds[0], speeds[speeds.len() - 1]]
        };
        for domain in [Domain::Base, Domain::Voices, Domain::Channel] {
            assert_eq!(speeds(domain), [115, 115]);
        }
        // 0.7 * 115 = 80.5 and 1.4 * 115 = 161.
        let [slowest, fastest] = speeds(Domain::Tempo);
        assert!((80..=82).contains(&slowest) && (159..=161).contains(&fastest));
        assert!(speeds(Domain::Wild)[1] > 168);

        let clean =
            |domain| plans(domain).iter().filter(|plan| plan.channel == Channel::default()).count();
        assert_eq!(clean(Domain::Base) + clean(Domain::Voices) + clean(Domain::Tempo), 1_200);
        assert_eq!(clean(Domain::Channel), 0);
        assert!((60..140).contains(&clean(Domain::Wild)), "a quarter of 400 is 100");
        for plan in plans(Domain::Channel) {
            assert!(plan.channel.noises.iter().all(|n| (5.0..20.0).contains(&n.snr_db)));
            assert!(plan.channel.room.is_none_or(|r| (0.2..0.8).contains(&r.rt60_s)));
        }
    }

    #[test]
    fn wild_and_channel_share_no_noise() {
        let kinds = |domain| -> Vec<NoiseKind> {
            plans(domain).iter().flat_map(|p| p.channel.noises.iter().map(|n| n.kind)).collect()
        };
        let wild = kinds(Domain::Wild);
        assert!(kinds(Domain::Channel).iter().all(|kind| !wild.contains(kind)));
    }

    #[test]
    fn pairs_of_domains_have_the_same_voice() {
        for ((base, tempo), channel) in
            plans(Domain::Base).iter().zip(plans(Domain::Tempo)).zip(plans(Domain::Channel))
        {
            assert_eq!(base.settings.voice, tempo.settings.voice);
            assert_eq!(base.settings.voice, channel.settings.voice);
        }
    }

    #[test]
    fn every_voice_is_used() {
        for domain in Domain::ALL {
            let used: std::collections::HashSet<String> =
                plans(domain).into_iter().map(|plan| plan.settings.voice).collect();
            assert_eq!(used.len(), voices(domain, Language::English).len());
        }
    }
}
