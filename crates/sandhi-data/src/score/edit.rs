//! Minimum edit alignment of two symbol sequences.
//!
//! ```text
//! reference   the  cat  sat  on   mat
//! hypothesis  the  hat  sat       mat  now
//!              =    S    =   D     =    I
//! ```
//!
//! Distances come from the bit-parallel recurrence of Myers (JACM 1999) in the form of Hyyrö
//! (2003): 64 rows of the table per machine word, kept as vertical differences. Where several
//! alignments are equally short, the choice is RapidFuzz's (deletion, then insertion, then
//! diagonal, walking from the end), so that the counts equal those of `jiwer`, which calls it.
//! Tables above [`TABLE_LIMIT`] words are split in two by Hirschberg's method (CACM 1975): the
//! memory stays bounded for hours of speech, the distance is the same, ties may fall differently.

use std::collections::HashMap;

/// Machine words that a difference table may take before it is split: 64 MiB in two tables.
const TABLE_LIMIT: usize = 1 << 22;

/// One step of an alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Edit {
    /// The reference symbol was recognized.
    Equal,
    /// The reference symbol became another one.
    Substitute,
    /// The reference symbol has no counterpart.
    Delete,
    /// The hypothesis symbol has no counterpart.
    Insert,
}

/// The shortest alignment that turns `reference` into `hypothesis`, in order.
pub fn align(reference: &[u32], hypothesis: &[u32]) -> Vec<Edit> {
    let mut edits = Vec::with_capacity(reference.len().max(hypothesis.len()));
    align_into(reference, hypothesis, TABLE_LIMIT, &mut edits);
    edits
}

/// Numbers the symbols of both sides, equal symbols alike.
pub(super) fn intern<'a>(reference: &[&'a str], hypothesis: &[&'a str]) -> (Vec<u32>, Vec<u32>) {
    let mut ids: HashMap<&str, u32> = HashMap::new();
    let mut number = |symbols: &[&'a str]| {
        symbols
            .iter()
            .map(|symbol| {
                let next = ids.len() as u32;
                *ids.entry(symbol).or_insert(next)
            })
            .collect()
    };
    (number(reference), number(hypothesis))
}

fn align_into(reference: &[u32], hypothesis: &[u32], limit: usize, edits: &mut Vec<Edit>) {
    let same = |(a, b): &(&u32, &u32)| a == b;
    let n_prefix = reference.iter().zip(hypothesis).take_while(same).count();
    let (reference, hypothesis) = (&reference[n_prefix..], &hypothesis[n_prefix..]);
    let n_suffix = reference.iter().rev().zip(hypothesis.iter().rev()).take_while(same).count();
    let reference = &reference[..reference.len() - n_suffix];
    let hypothesis = &hypothesis[..hypothesis.len() - n_suffix];

    edits.extend(std::iter::repeat_n(Edit::Equal, n_prefix));
    if reference.is_empty() || hypothesis.is_empty() {
        edits.extend(std::iter::repeat_n(Edit::Delete, reference.len()));
        edits.extend(std::iter::repeat_n(Edit::Insert, hypothesis.len()));
    } else if reference.len().div_ceil(64) * hypothesis.len() <= limit || hypothesis.len() < 2 {
        Table::new(reference, hypothesis).walk(edits);
    } else {
        // Hirschberg: the best cut of the reference for the middle of the hypothesis.
        let (front, back) = hypothesis.split_at(hypothesis.len() / 2);
        let before = last_column(reference.iter().copied(), front.iter().copied());
        let after = last_column(reference.iter().rev().copied(), back.iter().rev().copied());
        let cut = (0..=reference.len())
            .min_by_key(|&i| before[i] + after[reference.len() - i])
            .expect("a range that includes its end is not empty");
        align_into(&reference[..cut], front, limit, edits);
        align_into(&reference[cut..], back, limit, edits);
    }
    edits.extend(std::iter::repeat_n(Edit::Equal, n_suffix));
}

/// Where each symbol stands in the reference, as bits.
struct Positions {
    masks: HashMap<u32, Vec<u64>>,
    none: Vec<u64>,
}

impl Positions {
    fn new(reference: impl ExactSizeIterator<Item = u32>) -> Self {
        let n_words = reference.len().div_ceil(64);
        let mut masks: HashMap<u32, Vec<u64>> = HashMap::new();
        for (i, symbol) in reference.enumerate() {
            masks.entry(symbol).or_insert_with(|| vec![0; n_words])[i / 64] |= 1 << (i % 64);
        }
        Self { masks, none: vec![0; n_words] }
    }

    fn of(&self, symbol: u32) -> &[u64] {
        self.masks.get(&symbol).unwrap_or(&self.none)
    }
}

/// One column of vertical differences: bit `i` says that `D[i + 1] - D[i]` is +1 or -1.
struct Column {
    plus: Vec<u64>,
    minus: Vec<u64>,
}

impl Column {
    fn first(n_words: usize) -> Self {
        Self { plus: vec![u64::MAX; n_words], minus: vec![0; n_words] }
    }

    /// Moves one hypothesis symbol to the right.
    fn step(&mut self, matches: &[u64]) {
        // The top row of the table grows by one per column.
        let (mut plus_in, mut minus_in) = (1_u64, 0_u64);
        for ((plus, minus), &matches) in self.plus.iter_mut().zip(&mut self.minus).zip(matches) {
            let (vertical_plus, vertical_minus) = (*plus, *minus);
            let x = matches | minus_in;
            let diagonal = ((x & vertical_plus).wrapping_add(vertical_plus) ^ vertical_plus)
                | x
                | vertical_minus;
            let horizontal_plus = vertical_minus | !(diagonal | vertical_plus);
            let horizontal_minus = diagonal & vertical_plus;
            let shifted_plus = (horizontal_plus << 1) | plus_in;
            let shifted_minus = (horizontal_minus << 1) | minus_in;
            plus_in = horizontal_plus >> 63;
            minus_in = horizontal_minus >> 63;
            *plus = shifted_minus | !(diagonal | shifted_plus);
            *minus = shifted_plus & diagonal;
        }
    }
}

/// `D[i]` for every prefix of the reference against the whole hypothesis.
fn last_column(
    reference: impl ExactSizeIterator<Item = u32>,
    hypothesis: impl ExactSizeIterator<Item = u32>,
) -> Vec<usize> {
    let n_reference = reference.len();
    let mut distance = hypothesis.len();
    let positions = Positions::new(reference);
    let mut column = Column::first(positions.none.len());
    for symbol in hypothesis {
        column.step(positions.of(symbol));
    }
    let mut distances = Vec::with_capacity(n_reference + 1);
    distances.push(distance);
    for i in 0..n_reference {
        distance += (column.plus[i / 64] >> (i % 64) & 1) as usize;
        distance -= (column.minus[i / 64] >> (i % 64) & 1) as usize;
        distances.push(distance);
    }
    distances
}

/// All columns, for walking back.
struct Table<'a> {
    reference: &'a [u32],
    hypothesis: &'a [u32],
    n_words: usize,
    plus: Vec<u64>,
    minus: Vec<u64>,
}

impl<'a> Table<'a> {
    fn new(reference: &'a [u32], hypothesis: &'a [u32]) -> Self {
        let positions = Positions::new(reference.iter().copied());
        let n_words = positions.none.len();
        let mut column = Column::first(n_words);
        let mut plus = Vec::with_capacity(n_words * hypothesis.len());
        let mut minus = Vec::with_capacity(n_words * hypothesis.len());
        for &symbol in hypothesis {
            column.step(positions.of(symbol));
            plus.extend_from_slice(&column.plus);
            minus.extend_from_slice(&column.minus);
        }
        Self { reference, hypothesis, n_words, plus, minus }
    }

    fn bit(&self, table: &[u64], column: usize, row: usize) -> bool {
        table[column * self.n_words + row / 64] >> (row % 64) & 1 == 1
    }

    fn walk(&self, edits: &mut Vec<Edit>) {
        let start = edits.len();
        let (mut i, mut j) = (self.reference.len(), self.hypothesis.len());
        while i > 0 && j > 0 {
            if self.bit(&self.plus, j - 1, i - 1) {
                i -= 1;
                edits.push(Edit::Delete);
                continue;
            }
            j -= 1;
            if j > 0 && self.bit(&self.minus, j - 1, i - 1) {
                edits.push(Edit::Insert);
            } else {
                i -= 1;
                let equal = self.reference[i] == self.hypothesis[j];
                edits.push(if equal { Edit::Equal } else { Edit::Substitute });
            }
        }
        edits.extend(std::iter::repeat_n(Edit::Delete, i));
        edits.extend(std::iter::repeat_n(Edit::Insert, j));
        edits[start..].reverse();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn symbols(text: &str) -> Vec<u32> {
        text.chars().map(u32::from).collect()
    }

    #[track_caller]
    fn check(reference: &str, hypothesis: &str, expected: &str) {
        let edits = align(&symbols(reference), &symbols(hypothesis));
        let drawn: String = edits
            .iter()
            .map(|edit| match edit {
                Edit::Equal => '=',
                Edit::Substitute => 'S',
                Edit::Delete => 'D',
                Edit::Insert => 'I',
            })
            .collect();
        assert_eq!(drawn, expected);
    }

    #[test]
    fn hand_made_alignments() {
        check("", "", "");
        check("abc", "", "DDD");
        check("", "ab", "II");
        check("abc", "abc", "===");
        check("kitten", "sitting", "S===S=I");
        check("abcd", "acd", "=D==");
        check("acd", "abcd", "=I==");
    }

    /// The textbook recurrence.
    fn distance(a: &[u32], b: &[u32]) -> usize {
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, x) in a.iter().enumerate() {
            let mut diagonal = row[0];
            row[0] = i + 1;
            for (j, y) in b.iter().enumerate() {
                let best = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
                diagonal = std::mem::replace(&mut row[j + 1], best);
            }
        }
        row[b.len()]
    }

    /// Replays the edits and counts those that cost something.
    fn replay(a: &[u32], b: &[u32], edits: &[Edit]) -> usize {
        let (mut i, mut j, mut cost) = (0, 0, 0);
        for edit in edits {
            match edit {
                Edit::Equal => assert_eq!(a[i], b[j]),
                Edit::Substitute => assert_ne!(a[i], b[j]),
                Edit::Delete | Edit::Insert => {}
            }
            i += usize::from(*edit != Edit::Insert);
            j += usize::from(*edit != Edit::Delete);
            cost += usize::from(*edit != Edit::Equal);
        }
        assert_eq!((i, j), (a.len(), b.len()));
        cost
    }

    proptest! {
        #[test]
        fn alignment_is_as_short_as_the_textbook_says(
            a in prop::collection::vec(0_u32..4, 0..200),
            b in prop::collection::vec(0_u32..4, 0..200),
        ) {
            prop_assert_eq!(replay(&a, &b, &align(&a, &b)), distance(&a, &b));
        }

        #[test]
        fn a_split_table_is_as_short(
            a in prop::collection::vec(0_u32..4, 0..150),
            b in prop::collection::vec(0_u32..4, 0..150),
        ) {
            let mut edits = Vec::new();
            align_into(&a, &b, 8, &mut edits);
            prop_assert_eq!(replay(&a, &b, &edits), distance(&a, &b));
        }
    }
}
