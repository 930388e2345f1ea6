//! How well units tell phones apart.
//!
//! ```text
//! phones  n n n iː iː iː iː n n ə      of every frame, by its middle
//! units   4 4 4 9  9  7  7  4 2 2      ─> how often each pair meets ─> purities, mutual information
//! ```
//!
//! Hsu et al., 2021, HuBERT, <https://arxiv.org/abs/2106.07447>, where the quality of cluster assignments is measured.
//! Theirs are phones of an aligner, with its silence among them.

use std::collections::BTreeMap;

use sandhi_data::alignment::Alignment;
use serde::Serialize;

/// What units tell of phones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quality {
    /// Frames that are counted.
    pub n_frames: usize,
    /// Phones among them.
    pub n_phones: usize,
    /// Units among them; others are never used.
    pub n_units: usize,
    /// `exp H(z)`: as many units, used equally often, would say as much.
    pub unit_perplexity: f64,
    /// Share of the frames that are right where every unit stands for the phone that it meets most often: the mean over
    /// `z` of `max_y p(y|z)`. More units raise it; a unit of its own for every frame has 1.
    pub phone_purity: f64,
    /// The same the other way round, the mean over `y` of `max_z p(z|y)`. More units lower it.
    pub unit_purity: f64,
    /// Phone-normalized mutual information, `I(y; z) / H(y)`: how much of what the phones say the units say, 0 to 1. None
    /// where there is one phone only.
    pub pnmi: Option<f64>,
}

/// The label at each of these times, in seconds and in order; `silence` where there is none. Labels are in order; one
/// that begins before another ends goes on to where that begins.
///
/// # Shapes
///
/// - `times_s`: `[n_frames]`
/// - output: `[n_frames]`
pub fn labels_at<'a>(
    labels: &'a [Alignment],
    times_s: impl IntoIterator<Item = f64>,
    silence: &'a str,
) -> Vec<&'a str> {
    let at = |time_s: f64| {
        let n_begun = labels.partition_point(|label| label.start_s <= time_s);
        let last = labels[..n_begun].last().filter(|label| time_s < label.end_s);
        last.map_or(silence, |label| label.label.as_str())
    };
    times_s.into_iter().map(at).collect()
}

/// What the units of frames tell of their phones; none where there are no frames.
///
/// # Shapes
///
/// - `phones`: `[n_frames]`
/// - `units`: `[n_frames]`
///
/// # Panics
///
/// When there are not as many phones as units.
pub fn quality<Phone: Ord + Copy>(phones: &[Phone], units: &[u32]) -> Option<Quality> {
    assert_eq!(phones.len(), units.len(), "every frame has a phone and a unit");
    if phones.is_empty() {
        return None;
    }
    let mut pairs: BTreeMap<(Phone, u32), usize> = BTreeMap::new();
    for pair in phones.iter().copied().zip(units.iter().copied()) {
        *pairs.entry(pair).or_default() += 1;
    }
    // How often each comes, and how often at most with one of the other side.
    let mut of_phones: BTreeMap<Phone, [usize; 2]> = BTreeMap::new();
    let mut of_units: BTreeMap<u32, [usize; 2]> = BTreeMap::new();
    for (&(phone, unit), &n) in &pairs {
        for [sum, most] in [of_phones.entry(phone).or_default(), of_units.entry(unit).or_default()]
        {
            (*sum, *most) = (*sum + n, n.max(*most));
        }
    }
    let n_frames = phones.len() as f64;
    let entropy = |counts: &mut dyn Iterator<Item = usize>| -> f64 {
        let shares = counts.map(|n| n as f64 / n_frames);
        -shares.map(|p| p * p.ln()).sum::<f64>()
    };
    let purity = |mosts: &mut dyn Iterator<Item = usize>| mosts.sum::<usize>() as f64 / n_frames;
    let of_phone = entropy(&mut of_phones.values().map(|&[n, _]| n));
    let of_unit = entropy(&mut of_units.values().map(|&[n, _]| n));
    // Rounding may take what is 0 a little below.
    let mutual = (of_phone + of_unit - entropy(&mut pairs.values().copied())).max(0.0);
    Some(Quality {
        n_frames: phones.len(),
        n_phones: of_phones.len(),
        n_units: of_units.len(),
        unit_perplexity: of_unit.exp(),
        phone_purity: purity(&mut of_units.values().map(|&[_, most]| most)),
        unit_purity: purity(&mut of_phones.values().map(|&[_, most]| most)),
        pnmi: (of_phones.len() > 1).then(|| (mutual / of_phone).min(1.0)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sandhi_data::alignment::Source;

    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn units_that_are_phones_say_all_and_units_by_chance_nothing() {
        // Two of each: 1 bit, and units that are phones by other names.
        let same = quality(&["a", "b", "b", "a"], &[7, 3, 3, 7]).unwrap();
        assert!(close(same.phone_purity, 1.0) && close(same.unit_purity, 1.0), "{same:?}");
        assert!(close(same.pnmi.unwrap(), 1.0) && close(same.unit_perplexity, 2.0), "{same:?}");
        // Every pair once: nothing is told.
        let chance = quality(&["a", "b", "a", "b"], &[0, 0, 1, 1]).unwrap();
        assert!(close(chance.pnmi.unwrap(), 0.0), "{chance:?}");
        assert!(close(chance.phone_purity, 0.5) && close(chance.unit_purity, 0.5), "{chance:?}");
        assert_eq!(quality::<u32>(&[], &[]), None);
        let one = quality(&["a", "a"], &[0, 1]).unwrap();
        assert_eq!((one.pnmi, one.phone_purity, one.unit_purity), (None, 1.0, 0.5));
    }

    #[test]
    fn a_table_by_hand() {
        // Of 8 frames, phone a meets unit 0 three times and unit 1 once; phone b meets them once and three times.
        //        0  1
        //   a    3  1     purities (3 + 3) / 8
        //   b    1  3     I = sum p ln(p / (1/4)), with p = 3/8 twice and 1/8 twice; H(y) = ln 2
        let phones = ["a", "a", "a", "a", "b", "b", "b", "b"];
        let found = quality(&phones, &[0, 0, 0, 1, 0, 1, 1, 1]).unwrap();
        assert_eq!((found.n_frames, found.n_phones, found.n_units), (8, 2, 2));
        assert!(close(found.phone_purity, 0.75) && close(found.unit_purity, 0.75));
        let mutual = 0.75 * 1.5_f64.ln() + 0.25 * 0.5_f64.ln();
        assert!(close(found.pnmi.unwrap(), mutual / 2.0_f64.ln()), "{found:?}");
        // Unit 0 split in two by nothing that matters: purer phones, less pure units.
        let found = quality(&phones, &[0, 0, 2, 1, 2, 1, 1, 1]).unwrap();
        // Units 0: a twice; 1: a once, b three times; 2: each once. Phones a: 0 twice; b: 1 three times.
        assert!(close(found.phone_purity, 6.0 / 8.0) && close(found.unit_purity, 5.0 / 8.0));
    }

    #[test]
    fn frames_have_the_phone_at_their_middle() {
        let label = |label: &str, start_s, end_s| Alignment {
            label: label.to_owned(),
            start_s,
            end_s,
            confidence: None,
            source: Source::Exact,
        };
        // b takes no time; c begins before a ends.
        let labels = [
            label("a", 0.1, 0.35),
            label("b", 0.2, 0.2),
            label("c", 0.3, 0.4),
            label("d", 0.5, 0.6),
        ];
        let at = |times: &[f64]| labels_at(&labels, times.iter().copied(), "-").join(" ");
        assert_eq!(at(&[0.0, 0.1, 0.15, 0.3, 0.36, 0.4, 0.5, 0.59, 0.6]), "- a a c c - d d -");
        assert_eq!(labels_at(&[], [1.0], "-"), ["-"]);
    }

    proptest! {
        #[test]
        fn shares_are_shares_and_names_do_not_matter(
            pairs in proptest::collection::vec((0_u32..5, 0_u32..7), 1..200),
        ) {
            let (phones, units): (Vec<u32>, Vec<u32>) = pairs.into_iter().unzip();
            let found = quality(&phones, &units).unwrap();
            prop_assert!((0.0..=1.0).contains(&found.pnmi.unwrap_or(0.0)));
            prop_assert!(found.phone_purity <= 1.0 && found.unit_purity <= 1.0);
            // The commonest phone alone is right as often.
            let most = (0..5).map(|y| phones.iter().filter(|phone| **phone == y).count()).max();
            let most = most.unwrap() as f64 / phones.len() as f64;
            prop_assert!(found.phone_purity >= most - 1e-12);
            prop_assert!(found.unit_perplexity <= found.n_units as f64 + 1e-9);
            let renamed: Vec<u32> = units.iter().map(|unit| 100 - unit).collect();
            let again = quality(&phones, &renamed).unwrap();
            prop_assert!((again.pnmi.unwrap_or(0.0) - found.pnmi.unwrap_or(0.0)).abs() < 1e-9);
            prop_assert_eq!(again.phone_purity, found.phone_purity);
        }
    }
}
