//! How long a sequence becomes on its way from samples to the language model.
//!
//! Packing, placeholders and admission all ask here; a property test holds the answers against the
//! real forward pass.

/// The length after a stage, in rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Known from the input's length alone.
    Exact(usize),
    /// The data decide (CTC, integrate-and-fire, transport compression); never more than this.
    AtMost(usize),
}

impl Length {
    /// Rows to reserve.
    pub fn bound(self) -> usize {
        match self {
            Self::Exact(n) | Self::AtMost(n) => n,
        }
    }

    /// The length after a further stage that maps lengths by `f`, which must be monotone.
    pub fn then(self, f: impl Fn(usize) -> Self) -> Self {
        match (self, f(self.bound())) {
            (Self::Exact(_), Self::Exact(n)) => Self::Exact(n),
            (_, Self::Exact(n) | Self::AtMost(n)) => Self::AtMost(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_never_becomes_exact_again() {
        let half = |n: usize| Length::Exact(n.div_ceil(2));
        assert_eq!(Length::Exact(7).then(half), Length::Exact(4));
        assert_eq!(Length::AtMost(7).then(half), Length::AtMost(4));
        assert_eq!(Length::Exact(7).then(Length::AtMost), Length::AtMost(7));
    }
}
