//! The patches of a sequence, and which of them a token may know.
//!
//! ```text
//! tokens      B   s   a b c d   e   t   w          static, four units
//! patches    |B  |s  |a b c d |e  |t  |w  |
//! ends         1   2        6   7   8   9
//! closes       0   1        5   7   7   8          [e] is short: only t tells that it is whole
//! context      0   1  1 1 1 2   2   4   5          the last patch that is known when the token has been read
//! published    0   1  1 1 1 2   3   4   5          e knows that no unit follows
//! ```

use super::{Closed, Error, Rule, TokenKind};

/// When a patch is known to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closure {
    /// When what has been read tells so: what a model is given in training is what it has when it generates.
    #[default]
    Causal,
    /// At its last token, as the paper does: a patch that the end of a run cuts short tells of that end ahead of it. A model
    /// that generates cannot have it so, and then closes patches as [`Closure::Causal`] does.
    Published,
}

/// The patches of a sequence, which tile its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patches {
    /// One past the last token of each patch.
    pub ends: Vec<u32>,
    /// The token after which each patch is known to be whole; the number of tokens where none tells. It never falls.
    pub closes: Vec<u32>,
}

impl Patches {
    /// The patches that a rule makes of tokens, each with its mark.
    ///
    /// # Errors
    ///
    /// [`Error::First`] where there is no token, or the first is a unit: nothing would be known after it.
    pub fn new(
        mut rule: Rule,
        tokens: impl IntoIterator<Item = (TokenKind, bool)>,
        closure: Closure,
    ) -> Result<Self, Error> {
        let (mut ends, mut closes) = (Vec::new(), Vec::new());
        // A patch up to a token, which a token tells when it has been read.
        let mut close = |end: u32, told: u32| {
            ends.push(end);
            closes.push(match closure {
                Closure::Causal => told,
                Closure::Published => end - 1,
            });
        };
        let (mut n_tokens, mut is_open) = (0, false);
        for (at, (kind, mark)) in (0_u32..).zip(tokens) {
            if at == 0 && matches!(kind, TokenKind::Unit(_)) {
                return Err(Error::First { found: "a unit" });
            }
            let Closed { before, after } = rule.push(kind, mark);
            if before {
                close(at, at);
            }
            if after {
                close(at + 1, at);
            }
            (n_tokens, is_open) = (at + 1, !after);
        }
        if is_open {
            close(n_tokens, n_tokens);
        }
        if n_tokens == 0 {
            return Err(Error::First { found: "no token" });
        }
        Ok(Self { ends, closes })
    }

    /// How many there are.
    pub fn n_patches(&self) -> usize {
        self.ends.len()
    }

    /// The tokens that they tile.
    pub fn n_tokens(&self) -> usize {
        self.ends.last().map_or(0, |&end| end as usize)
    }

    /// The last patch that is known when a token has been read. There is one, because the first token is a patch.
    pub fn context(&self, token: usize) -> usize {
        self.closes.partition_point(|&told| told as usize <= token).saturating_sub(1)
    }

    /// [`Patches::context`] of every token.
    pub fn contexts(&self) -> Vec<u32> {
        let mut known = 0;
        let context = |token: u32| {
            while self.closes.get(known + 1).is_some_and(|&told| told <= token) {
                known += 1;
            }
            known as u32
        };
        (0_u32..).take(self.n_tokens()).map(context).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{
        super::{
            Aligned, Entropy, Granularity, Silence, Static, entropy::tests::uncertain_after_3,
            tests::tokens,
        },
        *,
    };

    fn of(rule: Rule, picture: &str, closure: Closure) -> Patches {
        Patches::new(rule, tokens(picture), closure).unwrap()
    }

    fn aligned() -> Rule {
        Rule::Aligned(Aligned::new(Granularity::Word, Silence::Separate))
    }

    fn rules() -> impl Strategy<Value = Rule> {
        let entropy = Rule::Entropy(Entropy::new(Arc::new(uncertain_after_3())));
        prop_oneof![
            (1_usize..7).prop_map(|size| Rule::Static(Static::new(size))),
            Just(aligned()),
            Just(entropy),
        ]
    }

    #[test]
    fn the_example_by_hand() {
        let rule = Rule::Static(Static::new(4));
        let causal = of(rule.clone(), "Bsuuuuutw", Closure::Causal);
        assert_eq!(causal.ends, [1, 2, 6, 7, 8, 9]);
        assert_eq!(causal.closes, [0, 1, 5, 7, 7, 8]);
        assert_eq!(causal.contexts(), [0, 1, 1, 1, 1, 2, 2, 4, 5]);
        let published = of(rule, "Bsuuuuutw", Closure::Published);
        assert_eq!(published.ends, causal.ends);
        assert_eq!(published.closes, [0, 1, 5, 6, 7, 8]);
        assert_eq!(published.contexts(), [0, 1, 1, 1, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_patch_that_nothing_closes_is_never_known() {
        let patches = of(Rule::Static(Static::new(4)), "Bsuu", Closure::Causal);
        assert_eq!((&patches.ends[..], &patches.closes[..]), (&[1, 2, 4][..], &[0, 1, 4][..]));
        assert_eq!(patches.contexts(), [0, 1, 1, 1]);
        // The paper's shift has it known at the last token.
        let patches = of(Rule::Static(Static::new(4)), "Bsuu", Closure::Published);
        assert_eq!(patches.contexts(), [0, 1, 1, 2]);
    }

    #[test]
    fn a_mark_tells_when_its_unit_has_been_read() {
        // Patches [B] [s] [uu] [u] [t]; the third ends at its mark, token 3, the fourth at t, token 5.
        let patches = of(aligned(), "Bsuu'ut", Closure::Causal);
        assert_eq!(patches.closes, [0, 1, 3, 5, 5]);
        assert_eq!(patches.contexts(), [0, 1, 1, 2, 2, 4]);
    }

    #[test]
    fn something_precedes_the_first_unit() {
        for (picture, found) in [("", "no token"), ("ut", "a unit")] {
            let error = Patches::new(aligned(), tokens(picture), Closure::Causal).unwrap_err();
            assert!(error.to_string().starts_with(&format!("found {found} at the start")));
        }
    }

    proptest! {
        #[test]
        fn patches_tile_and_are_never_known_early(
            picture in "B([a-t]|([u0-3]'?){1,9}){0,30}",
            rule in rules(),
        ) {
            let tokens = tokens(&picture);
            let n_tokens = tokens.len() as u32;
            let causal = of(rule.clone(), &picture, Closure::Causal);
            let published = of(rule.clone(), &picture, Closure::Published);
            prop_assert_eq!(&causal.ends, &published.ends);
            prop_assert_eq!(causal.n_tokens(), n_tokens as usize);
            prop_assert!(causal.ends.windows(2).all(|pair| pair[0] < pair[1]));
            let starts = std::iter::once(0).chain(causal.ends.iter().copied());
            for (start, &end) in starts.zip(&causal.ends) {
                let patch = &tokens[start as usize..end as usize];
                let all_units = patch.iter().all(|(kind, _)| matches!(kind, TokenKind::Unit(_)));
                prop_assert!(patch.len() == 1 || all_units);
                match &rule {
                    Rule::Static(rule) => prop_assert!(patch.len() <= rule.size()),
                    Rule::Aligned(_) => {
                        prop_assert!(patch[..patch.len() - 1].iter().all(|(_, mark)| !mark));
                    }
                    Rule::Entropy(_) => prop_assert!(patch.len() <= 5),
                }
            }
            for patches in [&causal, &published] {
                prop_assert!(patches.closes.windows(2).all(|pair| pair[0] <= pair[1]));
                let late = patches.ends.iter().zip(&patches.closes);
                prop_assert!(late.into_iter().all(|(end, told)| end - 1 <= *told));
                let contexts: Vec<u32> =
                    (0..n_tokens as usize).map(|token| patches.context(token) as u32).collect();
                prop_assert_eq!(patches.contexts(), contexts);
            }
        }

        #[test]
        fn what_is_known_depends_on_what_was_read_alone(
            picture in "B([a-t]|([u0-3]'?){1,9}){0,20}",
            rule in rules(),
            share in 0.0..1.0_f64,
        ) {
            let tokens = tokens(&picture);
            let n_read = 1 + (share * (tokens.len() - 1) as f64) as usize;
            let whole = Patches::new(rule.clone(), tokens.clone(), Closure::Causal).unwrap();
            let prefix = tokens[..n_read].iter().copied();
            let read = Patches::new(rule, prefix, Closure::Causal).unwrap();
            prop_assert_eq!(&read.contexts()[..], &whole.contexts()[..n_read]);
            // And the patches that are known are the same ones.
            let n_known = read.context(n_read - 1) + 1;
            prop_assert_eq!(&read.ends[..n_known], &whole.ends[..n_known]);
        }
    }
}
