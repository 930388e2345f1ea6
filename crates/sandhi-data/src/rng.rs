//! Random streams: every consumer of randomness derives its own from a seed and a name.
//!
//! ```text
//! seed ── stream(seed, "speech") ── stream(_, "utterance 17") ── Stream ── u64, f64, below(n), …
//! ```
//!
//! A stream depends on the seed and the names on its path alone, so that adding a consumer, a
//! thread or an utterance changes nothing elsewhere. The generator is SplitMix64 (Steele, Lea,
//! Flood, OOPSLA 2014); its values are fixed for ever because corpora are identified by their seed.

/// Derives the seed of the stream called `name` from `seed` (FNV-1a over the name, then mixed).
pub fn stream(seed: u64, name: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ mix(seed);
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(hash)
}

/// The finalizer of SplitMix64: a bijection of `u64` whose output bits all depend on all input bits.
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A small, fast generator over one stream. Not for cryptography.
#[derive(Debug, Clone)]
pub struct Stream {
    state: u64,
}

impl Stream {
    /// A generator that starts at `seed` as it is.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The generator of the stream called `name` under `seed`.
    pub fn named(seed: u64, name: &str) -> Self {
        Self::new(stream(seed, name))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let value = mix(self.state);
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        value
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `[low, high)`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform over `0..n` (multiply-shift; the bias is below `n / 2^64`).
    ///
    /// # Panics
    ///
    /// When `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "cannot draw from an empty range");
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// One element of a slice that is not empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Fisher and Yates's shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_matches_the_published_sequence() {
        // First outputs for state 0, from the reference generator.
        let mut stream = Stream::new(0);
        assert_eq!(stream.next_u64(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(stream.next_u64(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn names_and_seeds_separate_streams() {
        assert_ne!(stream(1, "a"), stream(1, "b"));
        assert_ne!(stream(1, "a"), stream(2, "a"));
        assert_eq!(stream(7, "speech"), stream(7, "speech"));
    }

    #[test]
    fn below_covers_the_range_evenly() {
        let mut stream = Stream::named(3, "test");
        let mut counts = [0_usize; 7];
        for _ in 0..7_000 {
            counts[stream.below(7)] += 1;
        }
        // 1,000 expected, standard deviation 29.
        assert!(counts.iter().all(|&n| n.abs_diff(1_000) < 150), "{counts:?}");
    }

    #[test]
    fn normal_has_unit_variance() {
        let mut stream = Stream::named(3, "normal");
        let n = 20_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..n {
            let x = stream.normal();
            sum += x;
            squares += x * x;
        }
        assert!((sum / f64::from(n)).abs() < 0.03);
        assert!((squares / f64::from(n) - 1.0).abs() < 0.05);
    }
}
