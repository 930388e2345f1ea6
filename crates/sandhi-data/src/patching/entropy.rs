//! Patches that end where it is uncertain what comes next.
//!
//! ```text
//! tokens     B  s  0  1  2  3   1  2  3   3   t  0  w      any unit follows 3, one follows each of the others
//! nats             0  0  0  1   0  0  1   1      0         of the next unit, given those before it
//! patches   |B |s |0  1  2  3 | 1  2  3 | 3 | t |0 |w |    a patch ends where they are above a threshold
//! ```
//!
//! The entropy is that of a model that has counted which unit follows which, so that a host can ask it for every unit as it
//! comes, in training and in use: it depends on what has been read alone. Pagnoni et al., "Byte Latent Transformer", 2024,
//! <https://arxiv.org/abs/2412.09871>, section 2.3, with one threshold for all; there a small transformer predicts
//! bytes. The counts are smoothed by those of shorter histories (Witten and Bell, 1991).

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    Closed, LearnedError, TokenKind,
    learned::{VERSION, check, decoded, malformed},
};
use crate::units::UnitsHeader;

/// Patches that end where it is uncertain what comes next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntropyConfig {
    /// Units a patch on average, in the utterances that the entropies are learned from: the threshold follows from it.
    pub units_per_patch: f64,
    /// Units ahead of the next one that its entropy depends on, 1 to 8.
    #[serde(default = "three")]
    pub history: usize,
    /// Units a patch at most: a long silence is certain all the while.
    #[serde(default = "sixteen")]
    pub longest: usize,
}

fn three() -> usize {
    3
}

fn sixteen() -> usize {
    16
}

impl Default for EntropyConfig {
    fn default() -> Self {
        Self { units_per_patch: 4.0, history: three(), longest: sixteen() }
    }
}

impl EntropyConfig {
    /// What is wrong with the sizes.
    pub fn problems(&self) -> Vec<String> {
        let Self { units_per_patch, history, longest } = *self;
        let mut problems = Vec::new();
        if !(1.0..=1000.0).contains(&units_per_patch) {
            problems.push(format!("units_per_patch is {units_per_patch}, expected 1 to 1000"));
        }
        if !(1..=MAX_HISTORY).contains(&history) {
            problems.push(format!("history is {history}, expected 1 to {MAX_HISTORY}"));
        }
        if units_per_patch > longest as f64 {
            problems.push(format!(
                "longest is {longest}, expected at least units_per_patch, {units_per_patch}"
            ));
        }
        problems
    }
}

const MAX_HISTORY: usize = 8;

/// Histories that were followed less often are forgotten: what little followed them says less than shorter ones do.
const LEAST: u64 = 4;

/// How uncertain the next unit is behind every history, in thousandths of a nat, and above which of them a patch ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitEntropy {
    quantizer: String,
    n_units: u32,
    longest: usize,
    threshold: u32,
    /// Units of the longest history.
    n_history: usize,
    /// The empty history is always there.
    entropies: HashMap<Box<[u32]>, u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    sandhi_unit_entropy: u32,
    quantizer: String,
    n_units: u32,
    longest: usize,
    threshold: u32,
    entropies: Vec<(Vec<u32>, u32)>,
}

/// How often each unit followed a history.
type Followers = BTreeMap<u32, u64>;

impl UnitEntropy {
    /// Units that are enough to learn from; the histories of more would fill the memory.
    pub const MOST: usize = 4_000_000;

    /// Learns entropies and their threshold from utterances' units.
    ///
    /// # Errors
    ///
    /// [`LearnedError::Outside`] for a number that is no unit.
    pub fn learn<S: AsRef<[u32]>>(
        header: &UnitsHeader,
        sequences: &[S],
        config: &EntropyConfig,
    ) -> Result<Self, LearnedError> {
        let mut counts: HashMap<&[u32], Followers> = HashMap::from([(&[][..], Followers::new())]);
        for units in sequences {
            check(units.as_ref(), header.n_units)?;
        }
        // A history is followed as often as its end, at most: longer ones are counted where shorter ones stay.
        for n in 0..=config.history {
            for units in sequences.iter().map(AsRef::as_ref) {
                for (at, &next) in units.iter().enumerate().skip(n) {
                    if n == 0 || counts.contains_key(&units[at - n + 1..at]) {
                        let followers = counts.entry(&units[at - n..at]).or_default();
                        *followers.entry(next).or_default() += 1;
                    }
                }
            }
            counts.retain(|history, followers| {
                history.is_empty() || followers.values().sum::<u64>() >= LEAST
            });
        }
        let n_history = counts.keys().map(|history| history.len()).max().unwrap_or(0);
        let entropies = counts
            .keys()
            .map(|&history| (history.into(), entropy(history, &counts, header.n_units)))
            .collect();
        let mut learned = Self {
            quantizer: header.quantizer.clone(),
            n_units: header.n_units,
            longest: config.longest,
            threshold: 0,
            n_history,
            entropies,
        };
        learned.threshold = learned.fitting(sequences, config.units_per_patch);
        Ok(learned)
    }

    /// The least threshold by which patches have so many units on average.
    fn fitting<S: AsRef<[u32]>>(&self, sequences: &[S], units_per_patch: f64) -> u32 {
        let entropies = self.of_sequences(sequences);
        let n_units: usize = entropies.iter().map(Vec::len).sum();
        let most = n_units as f64 / units_per_patch;
        let mut thresholds: Vec<u32> = self.entropies.values().copied().chain([0]).collect();
        thresholds.sort_unstable();
        thresholds.dedup();
        // Patches get fewer as the threshold rises; above the last none ends for its entropy.
        let is_low = |&threshold: &u32| self.n_patches(&entropies, threshold) as f64 > most;
        let at = thresholds.partition_point(is_low);
        thresholds.get(at).or(thresholds.last()).copied().unwrap_or(0)
    }

    /// The entropy behind every unit of utterances.
    fn of_sequences<S: AsRef<[u32]>>(&self, sequences: &[S]) -> Vec<Vec<u32>> {
        let of = |units: &[u32]| (1..=units.len()).map(|n| self.of(&units[..n])).collect();
        sequences.iter().map(|units| of(units.as_ref())).collect()
    }

    /// Patches of utterances with these entropies, by a threshold.
    fn n_patches(&self, entropies: &[Vec<u32>], threshold: u32) -> usize {
        let of = |entropies: &Vec<u32>| {
            let (mut n, mut n_open) = (0, 0);
            for &entropy in entropies {
                n_open += 1;
                if entropy > threshold || n_open >= self.longest {
                    (n, n_open) = (n + 1, 0);
                }
            }
            n + usize::from(n_open > 0)
        };
        entropies.iter().map(of).sum()
    }

    /// Units a patch on average, where each of these is a run of its own; 0 where there is none.
    pub fn units_per_patch<S: AsRef<[u32]>>(&self, sequences: &[S]) -> f64 {
        let entropies = self.of_sequences(sequences);
        let n_units: usize = entropies.iter().map(Vec::len).sum();
        n_units as f64 / self.n_patches(&entropies, self.threshold).max(1) as f64
    }

    /// How uncertain the unit behind these is, in thousandths of a nat: by the longest history that is known.
    fn of(&self, units: &[u32]) -> u32 {
        let longest = self.n_history.min(units.len());
        let known = |n: usize| self.entropies.get(&units[units.len() - n..]);
        (0..=longest).rev().find_map(known).copied().expect("the empty history is known")
    }

    /// Whether they are of these units.
    pub fn is_of(&self, units: &UnitsHeader) -> bool {
        (&self.quantizer, self.n_units) == (&units.quantizer, units.n_units)
    }

    /// Histories that it knows.
    pub fn n_histories(&self) -> usize {
        self.entropies.len()
    }

    /// Above how many nats a patch ends.
    pub fn threshold(&self) -> f64 {
        f64::from(self.threshold) / 1000.0
    }

    /// `{"sandhi_unit_entropy": 1, "quantizer": "…", "n_units": 3, "longest": 16, "threshold": 650, "entropies":
    /// [[[], 1040], [[0], 600]]}`: thousandths of a nat behind each history.
    pub fn to_json(&self) -> String {
        let Self { quantizer, n_units, longest, threshold, entropies, .. } = self.clone();
        let mut entropies: Vec<(Vec<u32>, u32)> =
            entropies.into_iter().map(|(history, entropy)| (history.into(), entropy)).collect();
        entropies.sort_unstable();
        let written = Written {
            sandhi_unit_entropy: VERSION,
            quantizer,
            n_units,
            longest,
            threshold,
            entropies,
        };
        serde_json::to_string(&written).expect("texts and numbers")
    }

    /// Reads a file of [`UnitEntropy::to_json`].
    ///
    /// # Errors
    ///
    /// [`LearnedError::Io`], and those of [`UnitEntropy::parse`].
    pub fn load(path: &Path) -> Result<Self, LearnedError> {
        let io = |source| LearnedError::Io { path: path.to_owned(), source };
        Self::parse(&fs::read(path).map_err(io)?, path)
    }

    /// Reads what [`UnitEntropy::to_json`] wrote, from the bytes of a file.
    ///
    /// # Errors
    ///
    /// [`LearnedError::Malformed`] for another version, histories of what is no unit, one that is there twice or too long,
    /// and where the empty one is missing.
    pub fn parse(json: &[u8], path: &Path) -> Result<Self, LearnedError> {
        let wrong = |found, expected| malformed(path, found, expected);
        let Written { quantizer, n_units, longest, threshold, entropies, .. } =
            decoded(json, path, "entropies of units", |written: &Written| {
                written.sandhi_unit_entropy
            })?;
        if longest == 0 {
            return Err(wrong("longest 0".to_owned(), "at least 1".to_owned()));
        }
        let n_histories = entropies.len();
        for (history, _) in &entropies {
            if history.len() > MAX_HISTORY {
                let found = format!("a history of {} units", history.len());
                return Err(wrong(found, format!("at most {MAX_HISTORY}")));
            }
            check(history, n_units).map_err(|_| {
                wrong(format!("history {history:?}"), format!("units below {n_units}"))
            })?;
        }
        let n_history = entropies.iter().map(|(history, _)| history.len()).max().unwrap_or(0);
        let entropies: HashMap<Box<[u32]>, u32> =
            entropies.into_iter().map(|(history, entropy)| (history.into(), entropy)).collect();
        if entropies.len() < n_histories {
            return Err(wrong("a history twice".to_owned(), "every history once".to_owned()));
        }
        if !entropies.contains_key(&[][..]) {
            return Err(wrong("no empty history".to_owned(), "one".to_owned()));
        }
        Ok(Self { quantizer, n_units, longest, threshold, n_history, entropies })
    }
}

/// The entropy of what follows a history, in thousandths of a nat.
///
/// p(u | h) = (c(h, u) + t(h) p(u | h')) / (c(h) + t(h)), where t counts the kinds of units that followed h, and h' is h
/// without its first unit; before the empty history all units are equally likely.
fn entropy(history: &[u32], counts: &HashMap<&[u32], Followers>, n_units: u32) -> u32 {
    let mut p = vec![1.0 / f64::from(n_units.max(1)); n_units as usize];
    for n in 0..=history.len() {
        // What is behind a longer history that was not forgotten is behind a shorter one.
        let Some(followers) = counts.get(&history[history.len() - n..]) else { continue };
        let kinds = followers.len() as f64;
        let total = followers.values().sum::<u64>() as f64 + kinds;
        if total == 0.0 {
            continue;
        }
        p.iter_mut().for_each(|p| *p *= kinds / total);
        for (&unit, &count) in followers {
            p[unit as usize] += count as f64 / total;
        }
    }
    let nats: f64 = p.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum();
    (1000.0 * nats).round() as u32
}

/// Closes a patch where the next unit is uncertain, or the patch as long as one may be. A history does not reach beyond
/// its run of units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entropy {
    learned: Arc<UnitEntropy>,
    recent: Vec<u32>,
    n_open: usize,
}

impl Entropy {
    /// Patches by what was learned.
    pub fn new(learned: Arc<UnitEntropy>) -> Self {
        Self { learned, recent: Vec::new(), n_open: 0 }
    }

    /// Reads a token.
    pub fn push(&mut self, kind: TokenKind) -> Closed {
        let TokenKind::Unit(unit) = kind else {
            let before = self.n_open > 0;
            self.recent.clear();
            self.n_open = 0;
            return Closed { before, after: true };
        };
        let learned = &self.learned;
        if self.recent.len() == learned.n_history.max(1) {
            self.recent.remove(0);
        }
        self.recent.push(unit);
        self.n_open += 1;
        let after = learned.of(&self.recent) > learned.threshold || self.n_open >= learned.longest;
        if after {
            self.n_open = 0;
        }
        Closed { before: false, after }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::{
        super::{Rule, tests},
        *,
    };
    use crate::units::tests::header;

    fn config(units_per_patch: f64, history: usize, longest: usize) -> EntropyConfig {
        EntropyConfig { units_per_patch, history, longest }
    }

    fn learn(n_units: u32, sequences: &[Vec<u32>], config: &EntropyConfig) -> UnitEntropy {
        UnitEntropy::learn(&header(n_units), sequences, config).unwrap()
    }

    /// Unit 3 is followed by anything, all others by one.
    pub(in super::super) fn uncertain_after_3() -> UnitEntropy {
        let units = [0, 1, 2, 3, 1, 2, 3, 2, 3, 3, 0, 1, 2, 3, 1, 2, 3, 2, 3, 3];
        learn(4, &[units.repeat(20)], &config(2.5, 1, 5))
    }

    #[test]
    fn patches_end_where_the_next_unit_is_uncertain() {
        let rule = Rule::Entropy(Entropy::new(Arc::new(uncertain_after_3())));
        tests::check(rule.clone(), "Bs01231233t0w", "|B|s|0123|123|3|t|0|w|");
        // Nothing lasts longer than five, and what is open ends with its run.
        tests::check(rule, "Bs2222222t3ts1t", "|B|s|22222|22|t|3|t|s|1|t|");
    }

    #[test]
    fn entropies_by_hand() {
        let learned = learn(2, &[vec![0, 1, 0, 1, 0, 1, 0, 1, 0]], &config(1.0, 1, 4));
        // Counts 5 and 4: p = 6/11, 5/11. Behind 0 comes 1 four times: p(1) = (4 + 5/11) / 5 = 49/55; behind 1 comes 0
        // four times: p(0) = (4 + 6/11) / 5 = 50/55.
        let entropy = |p: f64| (-1000.0 * (p * p.ln() + (1.0 - p) * (1.0 - p).ln())).round() as u32;
        let expected = [entropy(6.0 / 11.0), entropy(49.0 / 55.0), entropy(50.0 / 55.0)];
        assert_eq!(expected, [689, 345, 305]);
        assert_eq!([&[][..], &[0], &[1]].map(|history| learned.entropies[history]), expected);
        // A history that is followed three times is forgotten: the empty one stands for it.
        let learned = learn(2, &[vec![0, 1, 0, 1, 0, 1, 0]], &config(1.0, 1, 4));
        assert_eq!(learned.entropies.len(), 1);
        assert_eq!(learned.of(&[0, 1]), learned.entropies[&[][..]]);
    }

    #[test]
    fn histories_are_as_long_as_they_are_known() {
        let sequence = [0, 1, 1, 0, 0, 1, 0, 1, 1, 1].repeat(30);
        let learned = learn(2, &[sequence], &config(2.0, 3, 8));
        assert_eq!(learned.n_history, 3);
        let of = |history: &[u32]| learned.entropies[history];
        assert_eq!(learned.of(&[0, 1, 1, 0]), of(&[1, 1, 0]));
        assert_eq!(learned.of(&[1, 0]), of(&[1, 0]));
        // Three zeros never stood side by side.
        assert_eq!(learned.of(&[0, 0, 0]), of(&[0, 0]));
    }

    #[test]
    fn the_threshold_follows_from_the_length_of_patches() {
        let mut stream = crate::rng::Stream::named(1, "units");
        let sequences: Vec<Vec<u32>> = (0..50)
            .map(|_| {
                let mut units = vec![0_u32];
                while units.len() < 200 {
                    // Runs, and behind them one of a few.
                    let last = units[units.len() - 1];
                    let next = (7 * last + 3 + stream.below(1 + last as usize % 5) as u32) % 20;
                    units.extend(std::iter::repeat_n(next, 1 + stream.below(3)));
                }
                units
            })
            .collect();
        for wanted in [2.0, 4.0, 7.5] {
            let learned = Arc::new(learn(20, &sequences, &config(wanted, 3, 16)));
            let mut n_patches = 0;
            for units in &sequences {
                let mut rule = Entropy::new(learned.clone());
                let closed = units.iter().filter(|unit| rule.push(TokenKind::Unit(**unit)).after);
                n_patches += closed.count();
                n_patches += usize::from(rule.n_open > 0);
            }
            let n_units: usize = sequences.iter().map(Vec::len).sum();
            let found = n_units as f64 / n_patches as f64;
            assert_eq!(found, learned.units_per_patch(&sequences));
            assert!((wanted..1.15 * wanted).contains(&found), "{found} for {wanted}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let error = UnitEntropy::learn(&header(3), &[[0, 3]], &config(4.0, 2, 16)).unwrap_err();
        assert_eq!(error.to_string(), "found 3 at 1, expected numbers below 3");
        assert_eq!(
            config(20.0, 9, 16).problems(),
            [
                "history is 9, expected 1 to 8",
                "longest is 16, expected at least units_per_patch, 20"
            ]
        );
        assert_eq!(config(0.5, 3, 16).problems(), ["units_per_patch is 0.5, expected 1 to 1000"]);
        // Nothing to learn from: all is equally likely.
        let learned = learn(3, &[], &config(4.0, 2, 16));
        assert_eq!((learned.n_histories(), learned.of(&[1])), (1, 1099));
    }

    #[test]
    fn files_keep_entropies_and_refuse_what_cannot_be() {
        let learned = learn(2, &[vec![0, 1, 0, 1, 0, 1, 0, 1, 0]], &config(1.0, 1, 4));
        let json = learned.to_json();
        assert_eq!(
            json,
            r#"{"sandhi_unit_entropy":1,"quantizer":"5ae1","n_units":2,"longest":4,"threshold":0,"entropies":[[[],689],[[0],345],[[1],305]]}"#
        );
        let parse = |json: &str| UnitEntropy::parse(json.as_bytes(), Path::new("e.json"));
        assert_eq!(parse(&json).unwrap(), learned);
        let refused = |from: &str, to: &str| {
            let error = parse(&json.replace(from, to)).unwrap_err().to_string();
            error.strip_prefix("e.json: found ").unwrap().to_owned()
        };
        assert_eq!(refused(":1,\"q", ":2,\"q"), "version 2 of the format, expected 1");
        assert_eq!(refused("[[1]", "[[2]"), "history [2], expected units below 2");
        assert_eq!(refused("[[1]", "[[0]"), "a history twice, expected every history once");
        assert_eq!(refused("[[],689],", ""), "no empty history, expected one");
        assert_eq!(
            refused("[[1]", "[[1,1,1,1,1,1,1,1,1]"),
            "a history of 9 units, expected at most 8"
        );
        assert_eq!(refused("\"longest\":4", "\"longest\":0"), "longest 0, expected at least 1");
        assert!(refused("[[],", "[").starts_with("invalid type"));
    }

    #[test]
    fn a_history_does_not_reach_beyond_its_run() {
        let json = r#"{"sandhi_unit_entropy":1,"quantizer":"5ae1","n_units":2,"longest":9,"threshold":500,
            "entropies":[[[],100],[[0],100],[[1],100],[[0,1],900]]}"#;
        let learned = UnitEntropy::parse(json.as_bytes(), Path::new("e.json")).unwrap();
        let rule = Rule::Entropy(Entropy::new(Arc::new(learned)));
        tests::check(rule.clone(), "Bs010t", "|B|s|01|0|t|");
        tests::check(rule, "Bs0t10t", "|B|s|0|t|10|t|");
    }

    proptest! {
        /// What is closed depends on the run so far, and on nothing ahead of it.
        #[test]
        fn runs_do_not_know_of_each_other(
            first in prop::collection::vec(0_u32..4, 0..20),
            second in prop::collection::vec(0_u32..4, 0..20),
        ) {
            let mut rule = Entropy::new(Arc::new(uncertain_after_3()));
            let mut alone = rule.clone();
            for unit in first {
                rule.push(TokenKind::Unit(unit));
            }
            rule.push(TokenKind::Alone);
            for unit in second {
                prop_assert_eq!(rule.push(TokenKind::Unit(unit)), alone.push(TokenKind::Unit(unit)));
            }
        }
    }
}
