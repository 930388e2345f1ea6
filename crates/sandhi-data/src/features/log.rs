//! Natural logarithm of many positive numbers at once.
//!
//! The C library's `logf` is a call per value, and 80 logarithms took a quarter of the time of a frame. This is the
//! method of Moshier's Cephes library (`logf.c`, its constants) in a form that compilers vectorize:
//!
//! ```text
//! x = m 2^e,  m in [sqrt(1/2), sqrt(2)),  t = m - 1
//! ln x = t - t²/2 + t³ P(t) + e ln 2            with ln 2 in two parts, so that e ln 2 loses nothing
//! ```

/// The bits of `sqrt(1/2)`.
const SQRT_HALF: u32 = 0x3f35_04f3;

/// Replaces every value by its natural logarithm, to about one unit in the last place. All must be normal, positive
/// and finite.
pub(super) fn ln_in_place(values: &mut [f32]) {
    for x in values {
        *x = ln(*x);
    }
}

/// [`ln_in_place`] for one value.
#[inline(always)]
pub(super) fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = (bits.wrapping_sub(SQRT_HALF) as i32) >> 23;
    let t = f32::from_bits(bits.wrapping_sub((exponent << 23) as u32)) - 1.0;
    let e = exponent as f32;
    let mut p = 7.037_683_6e-2;
    for c in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        p = p * t + c;
    }
    let square = t * t;
    let small = p * t * square - 2.121_944_4e-4 * e - 0.5 * square;
    t + small + 0.693_359_4 * e
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_logarithm_over_the_whole_range() {
        // From 1e-37 to 1e37, in steps of a tenth of a percent.
        let mut x = 1e-37_f64;
        while x < 1e37 {
            let single = x as f32;
            let expected = f64::from(single).ln();
            let error = (f64::from(ln(single)) - expected).abs();
            assert!(error <= 1.2e-7 * expected.abs().max(0.5), "{single:e}: off by {error:e}");
            x *= 1.001;
        }
        assert_eq!(ln(1.0), 0.0);
    }
}
