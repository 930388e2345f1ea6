//! Masks over features: SpecAugment without its time warp (Park et al., <https://arxiv.org/abs/1904.08779>).
//!
//! ```text
//! mel   . . . # # . . . . .
//!       = = = = = = = = = =    one frequency mask
//!       . . . # # . . . . .    one time mask
//!              frames
//! ```

use serde::{Deserialize, Serialize};

use crate::rng::Stream;

/// How much is masked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecAugmentConfig {
    /// Masks over time; each hides more words when it grows.
    #[serde(default = "two")]
    pub n_time_masks: usize,
    /// The longest time mask, in frames; every length from 0 is equally likely.
    #[serde(default = "forty")]
    pub max_frames: usize,
    /// The longest time mask as a share of the utterance, so that short ones keep something.
    #[serde(default = "fifth")]
    pub max_time_share: f64,
    /// Masks over frequency; each hides more of the voice when it grows.
    #[serde(default = "two")]
    pub n_mel_masks: usize,
    /// The widest frequency mask, in mel bands; every width from 0 is equally likely.
    #[serde(default = "sixteen")]
    pub max_mels: usize,
}

fn two() -> usize {
    2
}

fn forty() -> usize {
    40
}

fn sixteen() -> usize {
    16
}

fn fifth() -> f64 {
    0.2
}

impl Default for SpecAugmentConfig {
    fn default() -> Self {
        Self {
            n_time_masks: two(),
            max_frames: forty(),
            max_time_share: fifth(),
            n_mel_masks: two(),
            max_mels: sixteen(),
        }
    }
}

/// Replaces spans of frames and of mel bands by the mean of all values.
///
/// The paper fills with zero after the mean was removed, which is the same.
///
/// # Shapes
///
/// - `values`: `[n_frames, n_mels]`, row-major
///
/// # Panics
///
/// When `values` has another length.
pub fn spec_augment(
    values: &mut [f32],
    n_frames: usize,
    n_mels: usize,
    config: &SpecAugmentConfig,
    stream: &mut Stream,
) {
    assert_eq!(values.len(), n_frames * n_mels, "values are [n_frames, n_mels]");
    if values.is_empty() {
        return;
    }
    let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
    let mean = (sum / values.len() as f64) as f32;
    let share = (config.max_time_share.clamp(0.0, 1.0) * n_frames as f64) as usize;
    for _ in 0..config.n_time_masks {
        let (start, length) = span(n_frames, config.max_frames.min(share), stream);
        values[start * n_mels..(start + length) * n_mels].fill(mean);
    }
    for _ in 0..config.n_mel_masks {
        let (start, width) = span(n_mels, config.max_mels, stream);
        for frame in values.chunks_exact_mut(n_mels) {
            frame[start..start + width].fill(mean);
        }
    }
}

/// A random span of at most `longest` within `0..n`: its start and length.
fn span(n: usize, longest: usize, stream: &mut Stream) -> (usize, usize) {
    let length = stream.below(longest.min(n) + 1);
    (stream.below(n - length + 1), length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn masks_keep_their_bounds(
            n_frames in 0..120_usize, n_mels in 1..90_usize, seed: u64,
            n_time_masks in 0..3_usize, max_frames in 0..200_usize, max_time_share in 0.0..1.0_f64,
            n_mel_masks in 0..3_usize, max_mels in 0..100_usize,
        ) {
            let config =
                SpecAugmentConfig { n_time_masks, max_frames, max_time_share, n_mel_masks, max_mels };
            // Irregular values, none of which is their mean.
            let before: Vec<f32> = (0..n_frames * n_mels).map(|i| (i as f32 * 0.37).sin()).collect();
            let mut after = before.clone();
            spec_augment(&mut after, n_frames, n_mels, &config, &mut Stream::new(seed));
            let mut again = before.clone();
            spec_augment(&mut again, n_frames, n_mels, &config, &mut Stream::new(seed));
            prop_assert_eq!(&after, &again);

            let masked = |f: usize, m: usize| after[f * n_mels + m] != before[f * n_mels + m];
            let frames = (0..n_frames).filter(|&f| (0..n_mels).all(|m| masked(f, m))).count();
            let mels = (0..n_mels).filter(|&m| (0..n_frames).all(|f| masked(f, m))).count();
            let n_masked = (0..n_frames).flat_map(|f| (0..n_mels).map(move |m| (f, m)))
                .filter(|&(f, m)| masked(f, m)).count();
            let limit = max_frames.min((max_time_share * n_frames as f64) as usize);
            if n_frames > 0 && mels < n_mels {
                prop_assert!(frames <= n_time_masks * limit);
            }
            if frames < n_frames {
                prop_assert!(mels <= n_mel_masks * max_mels);
            }
            // Nothing but whole frames and whole bands.
            prop_assert_eq!(n_masked, frames * n_mels + mels * n_frames - frames * mels);
        }
    }

    #[test]
    fn masked_values_are_the_mean() {
        let config = SpecAugmentConfig {
            n_time_masks: 8,
            max_frames: 10,
            max_time_share: 1.0,
            ..Default::default()
        };
        let mut values: Vec<f32> = (0..40).map(|i| if i % 2 == 0 { 3.0 } else { 5.0 }).collect();
        spec_augment(&mut values, 10, 4, &config, &mut Stream::new(1));
        assert!(values.contains(&4.0));
        assert!(values.iter().all(|v| [3.0, 4.0, 5.0].contains(v)));
    }

    #[test]
    fn unknown_fields_are_errors() {
        let error = serde_json::from_str::<SpecAugmentConfig>(r#"{"max_mel": 3}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `max_mel`"), "{error}");
        assert_eq!(
            serde_json::from_str::<SpecAugmentConfig>("{}").unwrap(),
            SpecAugmentConfig::default()
        );
    }
}
