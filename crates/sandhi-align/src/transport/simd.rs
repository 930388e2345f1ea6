//! Loops that the compiler turns into wide instructions, and the elementary functions they need, in double precision.
//!
//! [`vectorized!`] compiles the body of a function for AVX-512, for AVX2 with FMA and for the baseline, and picks at
//! run time. Inside, plain loops over fixed-width lanes are enough for the compiler; sums use lanes too, so their
//! order depends on the length only.

/// Lines of a table are padded to a multiple of this: two registers of AVX-512, or one of single precision.
pub(crate) const LANES: usize = 16;

/// Defines a function whose body is compiled three times. The body sees the constants `FMA`, whether a product and a
/// sum are one instruction, and `WIDTH`, how many doubles a register holds.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $out)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, clippy::extra_unused_type_parameters)]
            fn body<const FMA: bool, const WIDTH: usize>($($arg: $ty),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn widest($($arg: $ty),*) $(-> $out)? {
                    body::<true, 8>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn wide($($arg: $ty),*) $(-> $out)? {
                    body::<true, 4>($($arg),*)
                }
                match $crate::transport::simd::registers() {
                    // SAFETY: the processor has these features, as was just asked.
                    8 => return unsafe { widest($($arg),*) },
                    // SAFETY: the same.
                    4 => return unsafe { wide($($arg),*) },
                    _ => {}
                }
            }
            // Every 64-bit Arm processor multiplies and adds in one instruction.
            body::<{ cfg!(target_arch = "aarch64") }, 2>($($arg),*)
        }
    };
}
pub(crate) use vectorized;

/// How many doubles the registers hold that may be used: 8 with AVX-512 (f, dq, vl), 4 with AVX2 and FMA, 2 otherwise.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn registers() -> usize {
    use std::arch::is_x86_feature_detected as has;
    let wide = is_allowed(4) && has!("avx2") && has!("fma");
    let widest = wide && is_allowed(8) && has!("avx512f") && has!("avx512dq") && has!("avx512vl");
    if widest {
        8
    } else if wide {
        4
    } else {
        2
    }
}

/// Whether registers of so many doubles may be used; tests forbid the wide ones to try the others.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn is_allowed(width: usize) -> bool {
    #[cfg(test)]
    let is_allowed = width <= WIDEST.get();
    #[cfg(not(test))]
    let is_allowed = width <= 8;
    is_allowed
}

#[cfg(test)]
thread_local! {
    static WIDEST: std::cell::Cell<usize> = const { std::cell::Cell::new(8) };
}

/// Runs a check in this thread with registers of two, of at most four and of at most eight doubles.
#[cfg(test)]
pub(crate) fn at_every_width(check: impl Fn()) {
    for width in [2, 4, 8] {
        WIDEST.set(width);
        check();
    }
}

/// `a * b + c`, rounded once where the processor can.
#[inline(always)]
pub(super) fn mul_add<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x` within 2 units in the last place for `x <= 700`; 0 below -700, NaN for NaN.
///
/// Splits `x = n ln 2 + r` with `|r| <= ln 2 / 2` (Cody and Waite) and sums the Taylor series of `e^r` to degree 12,
/// whose rest is below 2e-16.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f64) -> f64 {
    const LIMIT: f64 = 700.0;
    // Adding and taking away 1.5 * 2^52 rounds to the nearest integer.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // Written so that NaN passes through: no comparison with NaN holds.
    let clamped = if x < -LIMIT { -LIMIT } else { x };
    let clamped = if clamped > LIMIT { LIMIT } else { clamped };
    let shifted = mul_add::<FMA>(clamped, std::f64::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FMA>(n, -LN_2_HIGH, clamped);
    let r = mul_add::<FMA>(n, -LN_2_LOW, r);
    let p = 1.0 / 479_001_600.0;
    let p = mul_add::<FMA>(p, r, 1.0 / 39_916_800.0);
    let p = mul_add::<FMA>(p, r, 1.0 / 3_628_800.0);
    let p = mul_add::<FMA>(p, r, 1.0 / 362_880.0);
    let p = mul_add::<FMA>(p, r, 1.0 / 40_320.0);
    let p = mul_add::<FMA>(p, r, 1.0 / 5_040.0);
    let p = mul_add::<FMA>(p, r, 1.0 / 720.0);
    let p = mul_add::<FMA>(p, r, 1.0 / 120.0);
    let p = mul_add::<FMA>(p, r, 1.0 / 24.0);
    let p = mul_add::<FMA>(p, r, 1.0 / 6.0);
    let p = mul_add::<FMA>(p, r, 0.5);
    let p = mul_add::<FMA>(p, r, 1.0);
    let p = mul_add::<FMA>(p, r, 1.0);
    // The integer sits in the low bits of the shifted number; move it into the exponent.
    let scale = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    let value = p * scale;
    if x < -LIMIT { 0.0 } else { value }
}

/// `ln x` within 3 units in the last place for positive normal numbers; meaningless for others.
///
/// `x = 2^e m` with `m` between `sqrt(1/2)` and `sqrt(2)`, and `ln m = 2 (s + s^3 / 3 + …)` with
/// `s = (m - 1) / (m + 1)`.
#[inline(always)]
pub(super) fn ln<const FMA: bool>(x: f64) -> f64 {
    const MAGIC: u64 = 0x4330_0000_0000_0000;
    const MAGIC_VALUE: f64 = 4_503_599_627_370_496.0;
    // The bits of sqrt(1/2): subtracting them rounds the exponent to the nearest power of two.
    const ROOT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    let shifted = x.to_bits().wrapping_sub(ROOT_HALF).wrapping_add(1023 << 52);
    let exponent = f64::from_bits(MAGIC | (shifted >> 52)) - MAGIC_VALUE - 1023.0;
    let mantissa = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff).wrapping_add(ROOT_HALF));
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let q = s * s;
    let p = 2.0 / 21.0;
    let p = mul_add::<FMA>(p, q, 2.0 / 19.0);
    let p = mul_add::<FMA>(p, q, 2.0 / 17.0);
    let p = mul_add::<FMA>(p, q, 2.0 / 15.0);
    let p = mul_add::<FMA>(p, q, 2.0 / 13.0);
    let p = mul_add::<FMA>(p, q, 2.0 / 11.0);
    let p = mul_add::<FMA>(p, q, 2.0 / 9.0);
    let p = mul_add::<FMA>(p, q, 2.0 / 7.0);
    let p = mul_add::<FMA>(p, q, 2.0 / 5.0);
    let p = mul_add::<FMA>(p, q, 2.0 / 3.0);
    let p = mul_add::<FMA>(p, q, 2.0);
    mul_add::<FMA>(exponent, std::f64::consts::LN_2, p * s)
}

/// A block of lanes.
#[inline(always)]
pub(super) fn lanes<const N: usize>(values: &[f64]) -> &[f64; N] {
    values[..N].try_into().expect("the slice was just cut to this length")
}

/// A block of lanes to write to.
#[inline(always)]
pub(super) fn lanes_mut<const N: usize>(values: &mut [f64]) -> &mut [f64; N] {
    (&mut values[..N]).try_into().expect("the slice was just cut to this length")
}

/// The sum of lanes, pairwise.
#[inline(always)]
pub(super) fn total<const N: usize>(lanes: [f64; N]) -> f64 {
    let mut lanes = lanes;
    let mut n = N;
    while n > 1 {
        n /= 2;
        for l in 0..n {
            lanes[l] += lanes[l + n];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    vectorized! {
        fn exps(values: &mut [f64]) {
            values.iter_mut().for_each(|value| *value = exp::<FMA>(*value) * (1.0 + 0.0 * WIDTH as f64));
        }
    }
    vectorized! {
        fn logs(values: &mut [f64]) {
            values.iter_mut().for_each(|value| *value = ln::<FMA>(*value) * (1.0 + 0.0 * WIDTH as f64));
        }
    }

    #[test]
    fn elementary_functions_agree_with_the_standard_library() {
        at_every_width(check_elementary_functions);
    }

    fn check_elementary_functions() {
        let inputs: Vec<f64> = (-7000..7000).map(|i| f64::from(i) / 10.0 + 0.037).collect();
        let mut found = inputs.clone();
        exps(&mut found);
        for (x, found) in inputs.iter().zip(&found) {
            assert!((found / x.exp() - 1.0).abs() < 5e-16, "exp({x}) = {found}");
        }
        let inputs: Vec<f64> = (-690..690).map(|i| (f64::from(i) + 0.017).exp()).collect();
        let inputs: Vec<f64> =
            inputs.into_iter().chain((1..4000).map(|i| f64::from(i) / 1999.0)).collect();
        let mut found = inputs.clone();
        logs(&mut found);
        for (x, found) in inputs.iter().zip(&found) {
            assert!((found - x.ln()).abs() <= 7e-16 * x.ln().abs().max(1e-3), "ln({x}) = {found}");
        }
        let mut edges = [f64::NEG_INFINITY, -701.0, 0.0, f64::NAN];
        exps(&mut edges);
        assert_eq!(edges[..3], [0.0, 0.0, 1.0]);
        assert!(edges[3].is_nan());
        assert_eq!(total([1.0, 2.0, 3.0, 4.0]), 10.0);
    }
}
