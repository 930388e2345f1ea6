//! Numbers whose exponent has no end: products of thousands of probabilities.
//!
//! ```text
//! value = mantissa * 2^(512 exponent)        2^-512 <= mantissa, or 0
//! ```

/// A non-negative number `mantissa * 2^(512 exponent)`: a double whose range has no end, because
/// the probability of a path over thousands of frames is smaller than any double.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Wide {
    /// 0, or at least 2^-512; at most a few, since probabilities are.
    mantissa: f64,
    exponent: i64,
}

impl Wide {
    pub(crate) const ZERO: Self = Self { mantissa: 0.0, exponent: 0 };
    pub(crate) const ONE: Self = Self { mantissa: 1.0, exponent: 0 };
    /// 2^512.
    const STEP: f64 = f64::from_bits((1023 + 512) << 52);
    /// The natural logarithm of a step.
    const LOG_STEP: f64 = 512.0 * std::f64::consts::LN_2;

    /// `e^log`, for a logarithm of a probability. Below `e^-1e12` it is zero, as masks of -1e30 want it, and the
    /// exponent of a product of billions of others has room.
    #[inline]
    pub(crate) fn exp(log: f32) -> Self {
        let log = f64::from(log);
        if log > -350.0 {
            return Self { mantissa: log.exp(), exponent: 0 };
        }
        if log < -1e12 {
            return Self::ZERO;
        }
        let exponent = (log / Self::LOG_STEP).ceil();
        Self { mantissa: (log - exponent * Self::LOG_STEP).exp(), exponent: exponent as i64 }
    }

    #[inline]
    pub(crate) fn times(self, other: Self) -> Self {
        let mantissa = self.mantissa * other.mantissa;
        let exponent = self.exponent + other.exponent;
        if mantissa < 1.0 / Self::STEP {
            // Zero stays zero; its exponent must not win in a sum.
            if mantissa == 0.0 {
                return Self::ZERO;
            }
            return Self { mantissa: mantissa * Self::STEP, exponent: exponent - 1 };
        }
        Self { mantissa, exponent }
    }

    #[inline]
    pub(crate) fn plus(self, other: Self) -> Self {
        if self.exponent == other.exponent {
            return Self { mantissa: self.mantissa + other.mantissa, exponent: self.exponent };
        }
        if self.mantissa == 0.0 {
            return other;
        }
        if other.mantissa == 0.0 {
            return self;
        }
        let (large, small) =
            if self.exponent > other.exponent { (self, other) } else { (other, self) };
        let shift = if large.exponent - small.exponent == 1 { 1.0 / Self::STEP } else { 0.0 };
        Self { mantissa: large.mantissa + small.mantissa * shift, exponent: large.exponent }
    }

    /// `self * other / total` where that is at most about 1.
    #[inline]
    pub(crate) fn share(self, other: Self, total: Self) -> f64 {
        let (a, b) = (self.mantissa / total.mantissa, other.mantissa);
        match self.exponent + other.exponent - total.exponent {
            0 => a * b,
            1 => a * (b * Self::STEP),
            2 => (a * Self::STEP) * (b * Self::STEP),
            -1 => a * b / Self::STEP,
            _ => 0.0,
        }
    }

    pub(crate) fn ln(self) -> f64 {
        self.mantissa.ln() + self.exponent as f64 * Self::LOG_STEP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_numbers_add_and_multiply_like_their_logarithms() {
        let logs = [-2000.0_f32, -1999.5, -700.0, -355.0, -350.0, -10.0, -0.5];
        for a in logs {
            for b in logs {
                let (x, y) = (Wide::exp(a), Wide::exp(b));
                assert!((x.times(y).ln() - f64::from(a) - f64::from(b)).abs() < 1e-9);
                let (high, low) = (f64::from(a.max(b)), f64::from(a.min(b)));
                let sum = high + (low - high).exp().ln_1p();
                assert!((x.plus(y).ln() - sum).abs() < 1e-9, "{a} + {b}");
                assert_eq!(x.plus(Wide::ZERO), x);
                // A share of 1 half: a b of (a b + a b).
                let product = x.times(y);
                assert!((x.share(y, product.plus(product)) - 0.5).abs() < 1e-9, "{a} * {b}");
            }
        }
        assert_eq!(Wide::exp(f32::NEG_INFINITY), Wide::ZERO);
        assert_eq!(Wide::exp(f32::MIN), Wide::ZERO);
        let small = Wide::exp(-9e11);
        assert!((small.times(small).ln() / -1.8e12 - 1.0).abs() < 1e-7);
    }
}
