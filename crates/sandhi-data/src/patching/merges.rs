//! Byte-pair merges of units: the baseline that shortens speech by a vocabulary instead of by patches.
//!
//! ```text
//! units    3 1 2 1 2 3 1 2        4 units, so that merges are numbered from 4
//! merge 4     (1 2): 3 ×          3 4 4 3 4
//! merge 5     (3 4): 2 ×          5 4 5
//! ```
//!
//! The most frequent pair is merged first, one of smaller numbers first where several are. The count of a pair is that
//! of the places where it stands side by side: `1 1 1` has two of `(1 1)`, of which one is merged. Sequences are
//! never joined. Sennrich et al., 2016, <https://arxiv.org/abs/1508.07909>; on units as a baseline of
//! <https://arxiv.org/abs/2510.06195>. `tokenizers` merges characters and gives one number to all merges that
//! spell the same, where a merge here has its own.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    fs,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{
    LearnedError,
    learned::{VERSION, check, decoded, malformed},
};
use crate::{
    replace_file,
    units::{UnitUtterance, UnitWord, UnitsHeader},
};

/// Units that a symbol may stand for, more than ten hours at 25 Hz: a file of merges of merges says more in few words.
const MAX_LENGTH: u64 = 1 << 20;

type Pair = (u32, u32);

/// Merges in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitMerges {
    quantizer: String,
    n_units: u32,
    merges: Vec<Pair>,
    /// The merge of every pair.
    ranks: HashMap<Pair, u32>,
    /// Units that every merge stands for.
    lengths: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    sandhi_unit_merges: u32,
    quantizer: String,
    n_units: u32,
    merges: Vec<Pair>,
}

impl UnitMerges {
    /// Learns up to so many merges from sequences of units; fewer where no pair occurs twice.
    ///
    /// # Errors
    ///
    /// [`LearnedError::Outside`] for a number that is no unit.
    pub fn learn<S: AsRef<[u32]>>(
        header: &UnitsHeader,
        sequences: impl IntoIterator<Item = S>,
        n_merges: u32,
    ) -> Result<Self, LearnedError> {
        let n_units = header.n_units;
        let mut sequences: Vec<Vec<u32>> =
            sequences.into_iter().map(|units| units.as_ref().to_vec()).collect();
        for units in &sequences {
            check(units, n_units)?;
        }
        let mut pairs = Pairs::default();
        for (number, units) in sequences.iter().enumerate() {
            for pair in units.windows(2) {
                pairs.add((pair[0], pair[1]), number);
            }
        }
        pairs.enqueue();

        let mut merges = Vec::new();
        let mut lengths = Lengths::new(n_units);
        let most = n_merges.min(u32::MAX - n_units) as usize;
        while merges.len() < most
            && let Some(pair) = pairs.pop()
        {
            if !lengths.push(pair) {
                continue;
            }
            let symbol = n_units + merges.len() as u32;
            for number in pairs.places.remove(&pair).unwrap_or_default() {
                let before = std::mem::take(&mut sequences[number]);
                sequences[number] = pairs.merge(before, pair, symbol, number);
            }
            pairs.enqueue();
            merges.push(pair);
        }
        Ok(Self::of(header.quantizer.clone(), n_units, merges))
    }

    fn of(quantizer: String, n_units: u32, merges: Vec<Pair>) -> Self {
        let ranks = merges.iter().zip(0..).map(|(&pair, rank)| (pair, rank)).collect();
        let mut merged =
            Self { quantizer, n_units, merges: Vec::new(), ranks, lengths: Vec::new() };
        for &(left, right) in &merges {
            let length = merged.length(left) + merged.length(right);
            merged.lengths.push(length);
        }
        Self { merges, ..merged }
    }

    /// Units that a symbol stands for.
    ///
    /// # Panics
    ///
    /// When it is neither a unit nor a merge.
    pub fn length(&self, symbol: u32) -> u32 {
        symbol.checked_sub(self.n_units).map_or(1, |rank| self.lengths[rank as usize])
    }

    /// Units and merges: one more than the largest symbol.
    pub fn n_symbols(&self) -> u32 {
        self.n_units + self.merges.len() as u32
    }

    /// Whether they merge these units.
    pub fn are_of(&self, units: &UnitsHeader) -> bool {
        (&self.quantizer, self.n_units) == (&units.quantizer, units.n_units)
    }

    /// The symbols of units: merges in their order, from the left.
    ///
    /// # Errors
    ///
    /// [`LearnedError::Outside`] for a number that is no unit.
    pub fn apply(&self, units: &[u32]) -> Result<Vec<u32>, LearnedError> {
        check(units, self.n_units)?;
        let mut symbols = units.to_vec();
        let rank = |pair: &[u32]| self.ranks.get(&(pair[0], pair[1])).copied();
        while let Some(rank) = symbols.windows(2).filter_map(rank).min() {
            let pair = self.merges[rank as usize];
            symbols = merged(&symbols, pair, self.n_units + rank).0;
        }
        Ok(symbols)
    }

    /// An utterance with symbols in place of its units. Merges do not ask where words end: the boundary of a word goes
    /// to that of a symbol that is nearest, the earlier one of two.
    ///
    /// # Errors
    ///
    /// [`LearnedError::Outside`] for a number that is no unit.
    pub fn apply_to(&self, utterance: UnitUtterance) -> Result<UnitUtterance, LearnedError> {
        let units = self.apply(&utterance.units)?;
        // Where every symbol begins, in units, and where the last one ends.
        let mut borders = vec![0];
        borders.extend(units.iter().scan(0, |at, &symbol| {
            *at += self.length(symbol);
            Some(*at)
        }));
        let nearest = |unit: u32| {
            let after = borders.partition_point(|&border| border < unit).min(borders.len() - 1);
            let is_before = after > 0 && unit - borders[after - 1] <= borders[after].abs_diff(unit);
            (after - usize::from(is_before)) as u32
        };
        let word = |UnitWord { word, start, end }| {
            let (start, end) = (nearest(start), nearest(end));
            UnitWord { word, start, end }
        };
        let words = utterance.words.into_iter().map(word).collect();
        Ok(UnitUtterance { units, words, ..utterance })
    }

    /// The units of symbols.
    ///
    /// # Errors
    ///
    /// [`LearnedError::Outside`] for a number that is neither a unit nor a merge.
    pub fn expand(&self, symbols: &[u32]) -> Result<Vec<u32>, LearnedError> {
        check(symbols, self.n_symbols())?;
        let mut units = Vec::with_capacity(2 * symbols.len());
        let mut stack: Vec<u32> = symbols.iter().rev().copied().collect();
        while let Some(symbol) = stack.pop() {
            match symbol.checked_sub(self.n_units) {
                None => units.push(symbol),
                Some(rank) => {
                    let (left, right) = self.merges[rank as usize];
                    stack.extend([right, left]);
                }
            }
        }
        Ok(units)
    }

    /// Writes `{"sandhi_unit_merges": 1, "quantizer": "…", "n_units": 4, "merges": [[1, 2], [3, 4]]}`.
    ///
    /// # Errors
    ///
    /// [`LearnedError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), LearnedError> {
        let io = |source| LearnedError::Io { path: path.to_owned(), source };
        replace_file(path, self.to_json().as_bytes()).map_err(io)
    }

    /// What [`UnitMerges::save`] writes.
    pub fn to_json(&self) -> String {
        let Self { quantizer, n_units, merges, .. } = self.clone();
        let written = Written { sandhi_unit_merges: VERSION, quantizer, n_units, merges };
        serde_json::to_string(&written).expect("texts and numbers")
    }

    /// Reads what [`UnitMerges::save`] wrote.
    ///
    /// # Errors
    ///
    /// [`LearnedError::Io`], and [`LearnedError::Malformed`] for another version, merges of what is not there yet, one
    /// that is there twice, and one of more than a million units.
    pub fn load(path: &Path) -> Result<Self, LearnedError> {
        let io = |source| LearnedError::Io { path: path.to_owned(), source };
        Self::parse(&fs::read(path).map_err(io)?, path)
    }

    /// As [`UnitMerges::load`], from the bytes of a file.
    ///
    /// # Errors
    ///
    /// [`LearnedError::Malformed`].
    pub fn parse(json: &[u8], path: &Path) -> Result<Self, LearnedError> {
        let wrong = |found, expected| malformed(path, found, expected);
        let Written { quantizer, n_units, merges, .. } =
            decoded(json, path, "merges of units", |written: &Written| written.sandhi_unit_merges)?;
        let mut lengths = Lengths::new(n_units);
        for (rank, &(left, right)) in merges.iter().enumerate() {
            let found = format!("({left} {right}) as merge {rank}");
            let below = u64::from(n_units) + rank as u64;
            if u64::from(left.max(right)) >= below || below >= u64::from(u32::MAX) {
                return Err(wrong(found, format!("numbers below {below}, those ahead of it")));
            }
            if !lengths.push((left, right)) {
                return Err(wrong(found, format!("at most {MAX_LENGTH} units")));
            }
        }
        let n_merges = merges.len();
        let read = Self::of(quantizer, n_units, merges);
        if read.ranks.len() < n_merges {
            return Err(wrong("a pair twice".to_owned(), "every pair once".to_owned()));
        }
        Ok(read)
    }
}

/// Every place of a pair as one symbol, from the left, and where the pair stood.
fn merged(symbols: &[u32], (left, right): Pair, symbol: u32) -> (Vec<u32>, Vec<usize>) {
    let (mut after, mut places) = (Vec::with_capacity(symbols.len()), Vec::new());
    let mut at = 0;
    while at < symbols.len() {
        if symbols[at] == left && symbols.get(at + 1) == Some(&right) {
            after.push(symbol);
            places.push(at);
            at += 2;
        } else {
            after.push(symbols[at]);
            at += 1;
        }
    }
    (after, places)
}

/// How many units each symbol stands for.
struct Lengths {
    n_units: u32,
    merges: Vec<u64>,
}

impl Lengths {
    fn new(n_units: u32) -> Self {
        Self { n_units, merges: Vec::new() }
    }

    /// Adds a merge of symbols that are there; false where it would stand for too many units.
    fn push(&mut self, (left, right): Pair) -> bool {
        let length = |symbol: u32| {
            symbol.checked_sub(self.n_units).map_or(1, |rank| self.merges[rank as usize])
        };
        let length = length(left) + length(right);
        let is_short = length <= MAX_LENGTH;
        if is_short {
            self.merges.push(length);
        }
        is_short
    }
}

/// Counts of pairs side by side, and the sequences that have them.
#[derive(Default)]
struct Pairs {
    counts: HashMap<Pair, u64>,
    /// Sequences where a pair is, or was; a sequence may stand there twice.
    places: HashMap<Pair, Vec<usize>>,
    /// Pairs by counts that they have or had, the largest first, then the smaller numbers.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
    /// Pairs that are not there yet: a pair is only found until the next merge, and loses places from then on.
    new: Vec<Pair>,
}

impl Pairs {
    fn add(&mut self, pair: Pair, sequence: usize) {
        let count = self.counts.entry(pair).or_default();
        if *count == 0 {
            self.new.push(pair);
        }
        *count += 1;
        let places = self.places.entry(pair).or_default();
        if places.last() != Some(&sequence) {
            places.push(sequence);
        }
    }

    fn enqueue(&mut self) {
        let new = self.new.drain(..);
        self.queue.extend(new.map(|pair| (self.counts[&pair], Reverse(pair))));
    }

    /// The most frequent pair that occurs twice at least.
    fn pop(&mut self) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            let now = self.counts.get(&pair).copied().unwrap_or(0);
            if now == count {
                return (count > 1).then_some(pair);
            }
            // Others took some of its places.
            if now > 0 {
                self.queue.push((now, Reverse(pair)));
            }
        }
        None
    }

    /// A sequence after a merge; the counts of the pairs around it follow.
    fn merge(&mut self, before: Vec<u32>, pair: Pair, symbol: u32, sequence: usize) -> Vec<u32> {
        let (after, places) = merged(&before, pair, symbol);
        if places.is_empty() {
            return before;
        }
        // Pairs that a merged place is part of: they begin one ahead of it, at it, or within it.
        let mut gone: Vec<usize> = places
            .iter()
            .flat_map(|&at| at.saturating_sub(1)..=at + 1)
            .filter(|&at| at + 1 < before.len())
            .collect();
        gone.dedup();
        for at in gone {
            if let Some(count) = self.counts.get_mut(&(before[at], before[at + 1])) {
                *count -= 1;
            }
        }
        for new in after.windows(2).filter(|new| new.contains(&symbol)) {
            self.add((new[0], new[1]), sequence);
        }
        after
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::tests::header;

    fn learn(n_units: u32, sequences: &[Vec<u32>], n_merges: u32) -> UnitMerges {
        UnitMerges::learn(&header(n_units), sequences, n_merges).unwrap()
    }

    #[test]
    fn the_example_by_hand() {
        let units = [3, 1, 2, 1, 2, 3, 1, 2];
        let merges = learn(4, &[units.to_vec()], 10);
        assert_eq!(merges.merges, [(1, 2), (3, 4)]);
        assert_eq!(merges.apply(&units).unwrap(), [5, 4, 5]);
        assert_eq!(merges.expand(&[5, 4, 5]).unwrap(), units);
        assert_eq!(merges.n_symbols(), 6);
        let other = UnitsHeader { quantizer: "6".into(), ..header(4) };
        assert_eq!(
            [header(4), header(5), other].map(|of| merges.are_of(&of)),
            [true, false, false]
        );
    }

    #[test]
    fn ties_go_to_the_smaller_numbers_and_runs_merge_from_the_left() {
        // (0 1), (1 0) and (2 2) occur twice each.
        let merges = learn(3, &[vec![2, 2, 2], vec![1, 0, 1, 0, 1]], 1);
        assert_eq!(merges.merges, [(0, 1)]);
        let merges = learn(3, &[vec![2; 5]], 1);
        assert_eq!(merges.apply(&[2; 5]).unwrap(), [3, 3, 2]);
        // Nothing occurs twice, also not across sequences.
        assert_eq!(learn(3, &[vec![0, 1], vec![2]], 9).merges, []);
    }

    #[test]
    fn words_lie_where_symbols_do() {
        let merges = learn(4, &[vec![3, 1, 2, 1, 2, 3, 1, 2]], 10);
        assert_eq!([3, 4, 5].map(|symbol| merges.length(symbol)), [1, 2, 3]);
        // Symbols 5, 4 and 5 begin at 0, 3 and 5; 2 goes to 3, 4 to the earlier of 3 and 5, 6 to 5.
        let words = [("a", 0, 2), ("b", 2, 4), ("c", 4, 5), ("d", 6, 8)];
        let utterance = UnitUtterance {
            id: "u".into(),
            units: vec![3, 1, 2, 1, 2, 3, 1, 2],
            words: words.map(|(word, start, end)| (word.to_owned(), start, end).into()).into(),
            text: None,
            language: None,
        };
        let found = merges.apply_to(utterance.clone()).unwrap();
        assert_eq!(found.units, [5, 4, 5]);
        let spans: Vec<_> = found.words.iter().map(|word| (word.start, word.end)).collect();
        assert_eq!(spans, [(0, 1), (1, 1), (1, 2), (2, 3)]);
        // Without merges all is as it was.
        assert_eq!(learn(4, &[vec![0]], 9).apply_to(utterance.clone()).unwrap(), utterance);
        let empty = UnitUtterance { units: Vec::new(), words: Vec::new(), ..utterance };
        assert_eq!(merges.apply_to(empty.clone()).unwrap(), empty);
    }

    #[test]
    fn what_is_no_unit_is_refused() {
        let merges = learn(3, &[vec![0, 1, 0, 1]], 9);
        let message = |error: LearnedError| error.to_string();
        let expected = "found 3 at 1, expected numbers below 3";
        assert_eq!(message(merges.apply(&[0, 3]).unwrap_err()), expected);
        assert_eq!(
            message(merges.expand(&[0, 4]).unwrap_err()),
            "found 4 at 1, expected numbers below 4"
        );
        assert_eq!(message(UnitMerges::learn(&header(3), [[0, 3]], 1).unwrap_err()), expected);
    }

    #[test]
    fn files_keep_merges_and_refuse_what_cannot_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("merges.json");
        let merges = learn(3, &[vec![0, 1, 2, 0, 1, 2]], 9);
        merges.save(&path).unwrap();
        assert_eq!(UnitMerges::load(&path).unwrap(), merges);
        assert_eq!(
            merges.to_json(),
            r#"{"sandhi_unit_merges":1,"quantizer":"5ae1","n_units":3,"merges":[[0,1],[3,2]]}"#
        );
        let refused = |from: &str, to: &str| {
            let json = merges.to_json().replace(from, to);
            UnitMerges::parse(json.as_bytes(), Path::new("m.json")).unwrap_err().to_string()
        };
        assert_eq!(refused(":1,", ":2,"), "m.json: found version 2 of the format, expected 1");
        assert_eq!(
            refused("[3,2]", "[4,2]"),
            "m.json: found (4 2) as merge 1, expected numbers below 4, those ahead of it"
        );
        assert_eq!(
            refused("[3,2]", "[0,1]"),
            "m.json: found a pair twice, expected every pair once"
        );
        // Each merge doubles what a symbol stands for.
        let doubled: Vec<String> = (3..40).map(|symbol| format!("[{symbol},{symbol}]")).collect();
        assert_eq!(
            refused("[3,2]", &doubled.join(",")),
            "m.json: found (22 22) as merge 20, expected at most 1048576 units"
        );
    }

    /// The same by counting everything again for every merge.
    fn slowly(n_units: u32, sequences: &[Vec<u32>], n_merges: u32) -> Vec<Pair> {
        let mut sequences = sequences.to_vec();
        let mut merges = Vec::new();
        for symbol in n_units..n_units + n_merges {
            let mut counts: HashMap<Pair, u64> = HashMap::new();
            for pair in sequences.iter().flat_map(|units| units.windows(2)) {
                *counts.entry((pair[0], pair[1])).or_default() += 1;
            }
            let best = counts.into_iter().map(|(pair, count)| (count, Reverse(pair))).max();
            let Some((2.., Reverse(pair))) = best else { break };
            for units in &mut sequences {
                *units = merged(units, pair, symbol).0;
            }
            merges.push(pair);
        }
        merges
    }

    proptest! {
        #[test]
        fn learning_is_that_of_counting_everything(
            sequences in prop::collection::vec(prop::collection::vec(0_u32..4, 0..40), 0..8),
            n_merges in 0_u32..30,
        ) {
            let merges = learn(4, &sequences, n_merges);
            prop_assert_eq!(&merges.merges, &slowly(4, &sequences, n_merges));
            prop_assert_eq!(&learn(4, &sequences, n_merges), &merges);
        }

        #[test]
        fn expanding_gives_the_units_back(
            sequences in prop::collection::vec(prop::collection::vec(0_u32..4, 0..40), 1..6),
            other in prop::collection::vec(0_u32..4, 0..60),
        ) {
            let merges = learn(4, &sequences, 40);
            for units in sequences.iter().chain([&other]) {
                let symbols = merges.apply(units).unwrap();
                prop_assert!(symbols.len() <= units.len());
                prop_assert_eq!(&merges.expand(&symbols).unwrap(), units);
            }
        }
    }
}
