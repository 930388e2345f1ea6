//! Patches of one size.
//!
//! ```text
//! tokens    B s u u u u u t w u u        size 4
//! patches  |B|s|u u u u|u|t|w|u u|       a run of units is cut from its start; its last patch may be short
//! ```

use super::{Closed, TokenKind};

/// Closes a patch when so many units of a run have been read, or when something that is no unit follows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Static {
    size: usize,
    n_open: usize,
}

impl Static {
    /// Patches of `size` units; 0 counts as 1.
    pub fn new(size: usize) -> Self {
        Self { size: size.max(1), n_open: 0 }
    }

    /// Units of a patch that is not cut short.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Reads a token.
    pub fn push(&mut self, kind: TokenKind) -> Closed {
        match kind {
            TokenKind::Alone => {
                let before = self.n_open > 0;
                self.n_open = 0;
                Closed { before, after: true }
            }
            TokenKind::Unit(_) => {
                self.n_open += 1;
                let after = self.n_open >= self.size;
                if after {
                    self.n_open = 0;
                }
                Closed { before: false, after }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Rule, tests},
        *,
    };

    fn check(size: usize, tokens: &str, expected: &str) {
        tests::check(Rule::Static(Static::new(size)), tokens, expected);
    }

    #[test]
    fn runs_are_cut_from_their_start() {
        check(4, "Bsuuuuutwuu", "|B|s|uuuu|u|t|w|uu|");
    }

    #[test]
    fn marks_change_nothing() {
        check(2, "Bsu'uu'", "|B|s|uu|u|");
    }

    #[test]
    fn a_size_of_one_is_no_grouping() {
        check(1, "Bsuut", "|B|s|u|u|t|");
        check(0, "Bsuut", "|B|s|u|u|t|");
    }
}
