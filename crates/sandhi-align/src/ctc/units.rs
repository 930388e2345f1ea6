//! What a target is made of: tokens that are said, tokens that may be left out, and stars for what is not written.
//!
//! ```text
//! target   Star  h  i  Optional(,)  y  o  u        "hi, you" somewhere in a longer recording
//! steps    * * * h  i       -       y  o  u        the comma took no step, the star took three
//! ```

use super::{Error, n_frames_needed};

/// One position of a target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unit {
    /// A symbol that the path emits at one step or more.
    Token(u32),
    /// A symbol that the path may leave out, which takes `cost` from its log-probability.
    Optional {
        /// The symbol.
        symbol: u32,
        /// Nats that leaving it out costs; at least 0.
        cost: f32,
    },
    /// Anything at all, for one step or more, as the `<star>` of Pratap et al. 2023 ("Scaling speech technology to
    /// 1,000+ languages", [arXiv 2305.13516](https://arxiv.org/abs/2305.13516), section 3.1): one more column of the
    /// matrix with the log-probability 0, or `-cost`. Two stars in a row are parted by a blank as other equals are.
    Star {
        /// Nats that every step of it costs; at least 0.
        cost: f32,
    },
}

/// What a unit is spelled with: equal neighbors need a blank between them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Spelling {
    Symbol(usize),
    Star,
}

impl Spelling {
    /// Whether a path may go on from one to the other without a blank.
    pub(super) fn differs(self, other: Self) -> bool {
        self != other
    }
}

/// Log-probabilities, normalized or not, are below this, so that sums over a few rows stay in single precision.
pub(super) const BEYOND: f32 = 1e30;

/// Whether a value may stand in a matrix of log-probabilities: neither NaN nor too large.
pub(super) fn is_log_prob(value: f32) -> bool {
    value < BEYOND
}

impl Unit {
    pub(super) fn spelling(&self) -> Spelling {
        match *self {
            Self::Token(symbol) | Self::Optional { symbol, .. } => {
                Spelling::Symbol(symbol as usize)
            }
            Self::Star { .. } => Spelling::Star,
        }
    }

    /// The cost of leaving the unit out, for units that can be.
    pub(super) fn skip_cost(&self) -> Option<f64> {
        match *self {
            Self::Optional { cost, .. } => Some(f64::from(cost)),
            Self::Token(_) | Self::Star { .. } => None,
        }
    }

    /// The log-probability that it has in a row.
    pub(super) fn log_prob(&self, row: &[f32]) -> f64 {
        match *self {
            Self::Token(symbol) | Self::Optional { symbol, .. } => f64::from(row[symbol as usize]),
            Self::Star { cost } => -f64::from(cost),
        }
    }
}

/// Refuses symbols that have no column or are the blank, and costs that are none.
pub(super) fn check_units(units: &[Unit], blank: u32, n_symbols: usize) -> Result<(), Error> {
    let has_column = |symbol: u32| match (symbol as usize) < n_symbols {
        true => Ok(()),
        false => Err(Error::UnknownSymbol { symbol, n_symbols }),
    };
    has_column(blank)?;
    for (position, unit) in units.iter().enumerate() {
        if let Unit::Token(symbol) | Unit::Optional { symbol, .. } = *unit {
            has_column(symbol)?;
            if symbol == blank {
                return Err(Error::BlankInTarget { position, blank });
            }
        }
        if let Unit::Optional { cost, .. } | Unit::Star { cost } = *unit
            && !(cost >= 0.0 && cost.is_finite())
        {
            return Err(Error::Cost { position, found: cost });
        }
    }
    Ok(())
}

/// How many steps the shortest spelling takes. A blank between equals is never more than an optional unit in its place.
pub(super) fn n_frames_of(units: &[Unit]) -> usize {
    let needed: Vec<u32> = units
        .iter()
        .filter(|unit| unit.skip_cost().is_none())
        .map(|unit| match unit.spelling() {
            Spelling::Symbol(symbol) => symbol as u32,
            Spelling::Star => u32::MAX,
        })
        .collect();
    n_frames_needed(&needed)
}
