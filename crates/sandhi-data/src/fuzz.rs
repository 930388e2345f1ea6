//! Bodies of the fuzz targets in `fuzz/`: plain functions over bytes that must neither panic nor hang.
//!
//! The test below runs a fixed number of mutated seeds through each, so that the targets are exercised
//! where no fuzzer is installed; `fuzz/README.md` says how to run the real ones.

use crate::audio::{Blocks, MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ, Waveform};

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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::rng::Stream;

    /// Values that sizes, counts and offsets in headers like to be wrong by.
    const EXTREMES: [u32; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

    /// Changes a few places of `seed`, with a preference for the start, where headers are.
    fn mutate(seed: &[u8], other: &[u8], rng: &mut Stream) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=rng.below(4) {
            if bytes.len() < 8 {
                break;
            }
            let reach = if rng.chance(0.6) { bytes.len().min(64) } else { bytes.len() };
            let at = rng.below(reach - 4);
            match rng.below(8) {
                0 => bytes[at] ^= 1 << rng.below(8),
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

    /// Runs `n` mutations of the seeds through a target.
    fn run(n: usize, seeds: &[Vec<u8>], target: fn(&[u8])) {
        for seed in seeds {
            target(seed);
        }
        for i in 0..n {
            let mut rng = Stream::named(i as u64, "fuzz");
            let (seed, other) = (rng.pick(seeds), rng.pick(seeds));
            target(&mutate(seed, other, &mut rng));
        }
    }

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
}
