//! What lies between a mouth and the recording.

use super::SAMPLE_RATE_HZ;
use crate::{
    augment::{NoiseKind, add_noise, band_limit, gain, limit, mu_law, reverberate, room_response},
    rng::Stream,
};

/// Room, noises, band, μ-law and level, applied in this order. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Channel {
    pub(super) room: Option<Room>,
    pub(super) noises: Vec<Noise>,
    pub(super) band: Option<Band>,
    pub(super) mu_law: bool,
    pub(super) gain_db: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Room {
    pub(super) rt60_s: f64,
    pub(super) direct_db: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Noise {
    pub(super) kind: NoiseKind,
    pub(super) snr_db: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Band {
    pub(super) low_hz: f64,
    pub(super) high_hz: f64,
}

impl Channel {
    /// Changes samples in place; nothing moves in time.
    pub(super) fn apply(&self, samples: &mut [f32], seed: u64) {
        if let Some(Room { rt60_s, direct_db }) = self.room {
            let mut stream = Stream::named(seed, "room");
            let response = room_response(SAMPLE_RATE_HZ, rt60_s, direct_db, &mut stream);
            reverberate(samples, &response);
        }
        let mut stream = Stream::named(seed, "noise");
        for &Noise { kind, snr_db } in &self.noises {
            add_noise(samples, SAMPLE_RATE_HZ, snr_db, kind, &mut stream);
        }
        if let Some(Band { low_hz, high_hz }) = self.band {
            band_limit(samples, SAMPLE_RATE_HZ, low_hz, high_hz);
        }
        if self.gain_db != 0.0 {
            gain(samples, self.gain_db);
        }
        if self.mu_law {
            // The curve expects samples within one.
            limit(samples);
            mu_law(samples);
        }
    }
}
