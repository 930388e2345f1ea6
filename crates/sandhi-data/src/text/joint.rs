//! One vocabulary of text and speech: the pieces of a tokenizer, a marker for either mode, and discrete units.
//!
//! ```text
//! ids       0 … 511        512        513          514          515          … 613
//! names     pieces         <|text|>   <|speech|>   <|unit_0|>   <|unit_1|>   … <|unit_99|>
//! symbols   Begin, Text …  Marker     Marker       Unit(0)      Unit(1)      … Unit(99)
//! ```
//!
//! All of it stands in an ordinary `tokenizer.json`: markers and units are special tokens, found by their names and
//! nothing else, so that text never becomes one of them and their numbers may be any. The layout of sequences is that
//! of Spirit LM (<https://arxiv.org/abs/2402.05755>, section 3.1): each stretch of a mode opens with its marker.

use super::{Error, Tokenizer};

/// What a sequence is made of from a marker on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Pieces of text.
    Text,
    /// Units of speech.
    Speech,
}

impl Mode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Text, Self::Speech];

    /// The name of its marker in the vocabulary.
    pub fn marker(self) -> &'static str {
        match self {
            Self::Text => "<|text|>",
            Self::Speech => "<|speech|>",
        }
    }

    /// The one that this is not.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Text => Self::Speech,
            Self::Speech => Self::Text,
        }
    }
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Symbol {
    /// A piece of text, or a special token that is none of those below.
    Text,
    /// What documents begin with.
    Begin,
    /// What documents end with, also where they begin with the same.
    End,
    /// What a stretch of text or speech begins with.
    Marker(Mode),
    /// A unit of speech, by its number.
    Unit(u32),
}

/// A tokenizer that has markers and units.
#[derive(Debug, Clone)]
pub struct JointVocabulary {
    tokenizer: Tokenizer,
    begin: u32,
    end: u32,
    /// In the order of [`Mode::ALL`].
    markers: [u32; 2],
    /// The id of every unit.
    units: Vec<u32>,
    /// The symbol of every id, `None` where the vocabulary has a gap.
    symbols: Vec<Option<Symbol>>,
}

impl JointVocabulary {
    /// Adds to a tokenizer what it lacks of the markers and `n_units` units. Begin and end are names of special tokens
    /// that it has; they may be the same.
    ///
    /// # Errors
    ///
    /// [`Error::UnitCount`] where it has more units already, what [`Tokenizer::with_special_tokens`] says, and what
    /// [`JointVocabulary::from_tokenizer`] does.
    pub fn extend(
        tokenizer: &Tokenizer,
        begin: &str,
        end: &str,
        n_units: u32,
    ) -> Result<Self, Error> {
        let units = (0..n_units).map(unit_name);
        let names: Vec<String> =
            Mode::ALL.iter().map(|mode| mode.marker().to_owned()).chain(units).collect();
        let joint = Self::from_tokenizer(tokenizer.with_special_tokens(&names)?, begin, end)?;
        match joint.units.len() {
            found if found == n_units as usize => Ok(joint),
            found => Err(Error::UnitCount { found, expected: n_units as usize }),
        }
    }

    /// Finds markers, units, begin and end by their names.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownToken`] for a name that is missing, [`Error::MissingUnit`] where units are not numbered without
    /// gaps, [`Error::TwoSymbols`] where begin or end is a marker or a unit.
    pub fn from_tokenizer(tokenizer: Tokenizer, begin: &str, end: &str) -> Result<Self, Error> {
        let n_units = tokenizer.special_ids().keys().filter(|name| is_unit(name)).count();
        if n_units == 0 {
            return Err(Error::UnknownToken(unit_name(0)));
        }
        let markers = [
            tokenizer.special_id(Mode::Text.marker())?,
            tokenizer.special_id(Mode::Speech.marker())?,
        ];
        let mut symbols: Vec<Option<Symbol>> = (0_u32..)
            .take(tokenizer.n_tokens())
            .map(|id| tokenizer.piece(id).map(|_| Symbol::Text))
            .collect();
        for (id, mode) in markers.into_iter().zip(Mode::ALL) {
            symbols[id as usize] = Some(Symbol::Marker(mode));
        }
        let mut units = Vec::with_capacity(n_units);
        for unit in (0_u32..).take(n_units) {
            let name = unit_name(unit);
            let id = tokenizer
                .special_id(&name)
                .map_err(|_| Error::MissingUnit { n_units, missing: name })?;
            symbols[id as usize] = Some(Symbol::Unit(unit));
            units.push(id);
        }
        let mut edge = |name: &str, symbol: Symbol| {
            let id = tokenizer.special_id(name)?;
            let before = symbols[id as usize].replace(symbol);
            match before {
                Some(Symbol::Marker(_) | Symbol::Unit(_)) => {
                    Err(Error::TwoSymbols(name.to_owned()))
                }
                _ => Ok(id),
            }
        };
        let (begin, end) = (edge(begin, Symbol::Begin)?, edge(end, Symbol::End)?);
        Ok(Self { tokenizer, begin, end, markers, units, symbols })
    }

    /// Rows of an embedding table once a tokenizer has what it lacks of the markers and `n_units` units.
    pub fn n_tokens_beside(tokenizer: &Tokenizer, n_units: usize) -> usize {
        let specials = tokenizer.special_ids();
        let there = specials.keys().filter(|name| is_unit(name)).count();
        let lacking = Mode::ALL.iter().filter(|mode| !specials.contains_key(mode.marker())).count();
        tokenizer.n_tokens() + lacking + n_units.saturating_sub(there)
    }

    /// The names of the tokens that documents begin and end with.
    pub fn edges(&self) -> [String; 2] {
        [self.begin, self.end].map(|id| self.tokenizer.piece(id).unwrap_or_default())
    }

    /// What a token is; `None` outside the vocabulary.
    pub fn symbol(&self, id: u32) -> Option<Symbol> {
        self.symbols.get(id as usize).copied().flatten()
    }

    /// As [`JointVocabulary::symbol`], of a token that must be there.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownId`].
    pub fn known(&self, id: u32) -> Result<Symbol, Error> {
        self.symbol(id).ok_or(Error::UnknownId { id, n_tokens: self.n_tokens() })
    }

    /// The token of a unit; `None` where there are fewer units.
    pub fn unit(&self, unit: u32) -> Option<u32> {
        self.units.get(unit as usize).copied()
    }

    /// The token that a mode's stretches begin with.
    pub fn marker(&self, mode: Mode) -> u32 {
        let [text, speech] = self.markers;
        match mode {
            Mode::Text => text,
            Mode::Speech => speech,
        }
    }

    /// The token that documents begin with.
    pub fn begin(&self) -> u32 {
        self.begin
    }

    /// The token that documents end with.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Rows of an embedding table for this vocabulary.
    pub fn n_tokens(&self) -> usize {
        self.tokenizer.n_tokens()
    }

    /// How many units there are.
    pub fn n_units(&self) -> usize {
        self.units.len()
    }

    /// The tokenizer with everything in it.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

/// The name of a unit in the vocabulary.
fn unit_name(unit: u32) -> String {
    format!("<|unit_{unit}|>")
}

/// Whether a special token is meant to be a unit.
fn is_unit(name: &str) -> bool {
    let digits = name.strip_prefix("<|unit_").and_then(|rest| rest.strip_suffix("|>"));
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const BEGIN: &str = "<|begin|>";
    const END: &str = "<|end|>";

    fn tokenizer(specials: &[&str]) -> Tokenizer {
        let texts = ["the mill is old", "the harbor is cold and the mill is far"];
        Tokenizer::train_bpe(texts, 300, specials).unwrap()
    }

    /// A vocabulary of about 270 pieces of text and the given number of units.
    pub(crate) fn vocabulary(n_units: u32) -> JointVocabulary {
        JointVocabulary::extend(&tokenizer(&[BEGIN, END]), BEGIN, END, n_units).unwrap()
    }

    #[test]
    fn markers_and_units_stand_behind_the_pieces() {
        let n_pieces = tokenizer(&[BEGIN, END]).n_tokens();
        let joint = vocabulary(3);
        let first = n_pieces as u32;
        assert_eq!((joint.begin(), joint.end()), (0, 1));
        assert_eq!([joint.marker(Mode::Text), joint.marker(Mode::Speech)], [first, first + 1]);
        let units = [0, 1, 2].map(|unit| joint.unit(unit).unwrap());
        assert_eq!(units, [first + 2, first + 3, first + 4]);
        assert_eq!((joint.n_tokens(), joint.n_units()), (n_pieces + 5, 3));
        assert_eq!(joint.unit(3), None);
        let symbols = [0, 1, 2, first, first + 1, first + 4].map(|id| joint.symbol(id).unwrap());
        let marker = Symbol::Marker;
        assert_eq!(
            symbols,
            [
                Symbol::Begin,
                Symbol::End,
                Symbol::Text,
                marker(Mode::Text),
                marker(Mode::Speech),
                Symbol::Unit(2)
            ]
        );
        assert_eq!(joint.symbol(first + 5), None);
    }

    #[test]
    fn units_need_not_lie_side_by_side() {
        let specials = ["<|unit_1|>", BEGIN, "<|speech|>", "<|unit_0|>"];
        let joint = JointVocabulary::extend(&tokenizer(&specials), BEGIN, BEGIN, 3).unwrap();
        assert_eq!([0, 1].map(|unit| joint.unit(unit)), [Some(3), Some(0)]);
        assert!(joint.unit(2).unwrap() > 255);
        assert_eq!(joint.marker(Mode::Speech), 2);
        for unit in 0..3 {
            assert_eq!(joint.symbol(joint.unit(unit).unwrap()), Some(Symbol::Unit(unit)));
        }
        // One token for both: what a model writes can only end with it.
        assert_eq!((joint.begin(), joint.symbol(1)), (1, Some(Symbol::End)));
    }

    #[test]
    fn a_file_keeps_all_of_it() {
        let joint = vocabulary(5);
        let json = joint.tokenizer().to_json().unwrap();
        let read = Tokenizer::from_bytes(json.as_bytes()).unwrap();
        let again = JointVocabulary::from_tokenizer(read, BEGIN, END).unwrap();
        assert_eq!((again.units, again.markers), (joint.units, joint.markers));
        assert_eq!(again.symbols, joint.symbols);
    }

    #[test]
    fn text_never_becomes_a_unit() {
        let joint = vocabulary(2);
        let ids = joint.tokenizer().encode("<|unit_1|> <|text|>").unwrap();
        assert!(ids.iter().all(|&id| joint.symbol(id) == Some(Symbol::Text)));
    }

    #[test]
    fn what_is_missing_is_named() {
        let refused = |specials: &[&str], begin: &str, end: &str| {
            JointVocabulary::from_tokenizer(tokenizer(specials), begin, end)
                .unwrap_err()
                .to_string()
        };
        let both = ["<|text|>", "<|speech|>", "<|unit_0|>", BEGIN];
        assert_eq!(refused(&[BEGIN], BEGIN, BEGIN), "the vocabulary has no token \"<|unit_0|>\"");
        assert_eq!(
            refused(&["<|unit_0|>", "<|text|>"], BEGIN, BEGIN),
            "the vocabulary has no token \"<|speech|>\""
        );
        assert_eq!(refused(&both, BEGIN, END), "the vocabulary has no token \"<|end|>\"");
        assert_eq!(
            refused(&["<|text|>", "<|speech|>", "<|unit_0|>", "<|unit_2|>"], BEGIN, END),
            "the vocabulary has 2 tokens of units, and none of them is \"<|unit_1|>\"; expected all numbers from 0"
        );
        assert_eq!(
            refused(&both, BEGIN, "<|text|>"),
            "\"<|text|>\" marks a mode or a unit; expected another token to begin or end documents with"
        );
    }

    #[test]
    fn other_units_are_not_taken_over() {
        let joint = vocabulary(5);
        let error = JointVocabulary::extend(joint.tokenizer(), BEGIN, END, 3).unwrap_err();
        assert_eq!(error.to_string(), "the vocabulary has 5 units already, 3 were asked for");
        assert_eq!(JointVocabulary::extend(joint.tokenizer(), BEGIN, END, 6).unwrap().n_units(), 6);
    }
}
