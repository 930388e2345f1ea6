//! Loops that the compiler turns into wide instructions, and the elementary functions they need.
//!
//! A release build targets the oldest processors of its architecture. [`vectorized!`] compiles the
//! body of a function twice, once for that target and once with AVX2 and FMA, and picks at run
//! time. Inside, plain loops over fixed-width lanes are enough for the compiler; sums use lanes
//! too, so their order depends on the length only.

/// Lanes of a running sum: two AVX2 registers, one of AVX-512.
pub(crate) const LANES: usize = 16;

/// Defines a function whose body is compiled for the baseline and for AVX2 with FMA. The body sees
/// a constant `FMA`, to be passed to the functions of this module.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $out)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, clippy::extra_unused_type_parameters)]
            fn body<const FMA: bool>($($arg: $ty),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn wide($($arg: $ty),*) $(-> $out)? {
                    body::<true>($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2")
                    && std::arch::is_x86_feature_detected!("fma")
                {
                    // SAFETY: the processor has both features, as asked the line before.
                    return unsafe { wide($($arg),*) };
                }
            }
            // Every 64-bit Arm processor multiplies and adds in one instruction.
            body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub(crate) use vectorized;

/// `a * b + c`, rounded once where the processor can.
#[inline(always)]
pub(crate) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x` within 2 units in the last place; 0 below -87.3, infinite above 88.3, NaN for NaN.
///
/// Splits `x = n ln 2 + r` with `|r| <= ln 2 / 2` (Cody and Waite) and sums the Taylor-like
/// minimax polynomial of Cephes' `expf` for `e^r`.
#[inline(always)]
#[allow(clippy::excessive_precision)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOW: f32 = -87.336_54;
    const HIGH: f32 = 88.376_26;
    // Adding and taking away 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    // Written so that NaN passes through: no comparison with NaN holds.
    let clamped = if x < LOW { LOW } else { x };
    let clamped = if clamped > HIGH { HIGH } else { clamped };
    let shifted = mul_add::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FMA>(n, -0.693_359_375, clamped);
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, r);
    let p = 1.987_569_15e-4;
    let p = mul_add::<FMA>(p, r, 1.398_199_95e-3);
    let p = mul_add::<FMA>(p, r, 8.333_451_9e-3);
    let p = mul_add::<FMA>(p, r, 4.166_579_6e-2);
    let p = mul_add::<FMA>(p, r, 1.666_666_5e-1);
    let p = mul_add::<FMA>(p, r, 5.000_000_1e-1);
    let p = mul_add::<FMA>(p, r * r, r + 1.0);
    // The integer sits in the low bits of the shifted number; move it into the exponent.
    let scale = f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23);
    let value = p * scale;
    let value = if x < LOW { 0.0 } else { value };
    if x > HIGH { f32::INFINITY } else { value }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// The hyperbolic tangent, within 2e-7.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    1.0 - 2.0 / (1.0 + exp::<FMA>(2.0 * x))
}

/// The error function, within 5e-7, and `e^(-x²)`, which its derivative needs.
///
/// Abramowitz and Stegun 7.1.26.
#[inline(always)]
#[allow(clippy::excessive_precision)]
pub(crate) fn erf<const FMA: bool>(x: f32) -> (f32, f32) {
    let magnitude = x.abs();
    let t = 1.0 / mul_add::<FMA>(magnitude, 0.327_591_1, 1.0);
    let p = 1.061_405_429;
    let p = mul_add::<FMA>(p, t, -1.453_152_027);
    let p = mul_add::<FMA>(p, t, 1.421_413_741);
    let p = mul_add::<FMA>(p, t, -0.284_496_736);
    let p = mul_add::<FMA>(p, t, 0.254_829_592) * t;
    let bell = exp::<FMA>(-x * x);
    ((1.0 - p * bell).copysign(x), bell)
}

/// Adds up the lanes, always in the same order.
#[inline(always)]
fn fold(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `sum_i f(a[i], b[i])` over slices of one length.
#[inline(always)]
pub(crate) fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] = f(a[i], b[i], lanes[i]);
        }
    }
    for (i, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] = f(a, b, lanes[i]);
    }
    fold(lanes)
}

/// `sum_i a[i] * b[i]`.
#[inline(always)]
pub(crate) fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    sum2(a, b, mul_add::<FMA>)
}

/// The largest value; NaN when any is NaN, minus infinity for none.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let larger = |value: f32, best: f32| if best >= value || best.is_nan() { best } else { value };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = larger(chunk[i], lanes[i]);
        }
    }
    for (i, &value) in rest.iter().enumerate() {
        lanes[i] = larger(value, lanes[i]);
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, |best, value| larger(value, best))
}

/// Replaces each value by `e^(value - shift)` and returns the sum of the results.
#[inline(always)]
pub(crate) fn exp_shifted<const FMA: bool>(values: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = values.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            chunk[i] = exp::<FMA>(chunk[i] - shift);
            lanes[i] += chunk[i];
        }
    }
    for (i, value) in rest.iter_mut().enumerate() {
        *value = exp::<FMA>(*value - shift);
        lanes[i] += *value;
    }
    fold(lanes)
}

/// `sum_i e^(values[i] - shift)`.
#[inline(always)]
pub(crate) fn sum_exp_shifted<const FMA: bool>(values: &[f32], shift: f32) -> f32 {
    sum2(values, values, |value, _, sum| sum + exp::<FMA>(value - shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    vectorized! {
        fn exp_all(values: &mut [f32]) {
            for value in values {
                *value = exp::<FMA>(*value);
            }
        }
    }

    /// Distance in units in the last place.
    fn ulps(a: f32, b: f64) -> f64 {
        let unit = f64::from((b as f32).abs().next_up()) - f64::from((b as f32).abs());
        (f64::from(a) - b).abs() / unit
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let inputs: Vec<f32> = (-870_000..880_000).map(|i| i as f32 * 1e-4).collect();
        let mut wide = inputs.clone();
        exp_all(&mut wide);
        for (&x, &fast) in inputs.iter().zip(&wide) {
            let exact = f64::from(x).exp();
            assert!(ulps(fast, exact) < 2.0, "exp({x}) = {fast}, not {exact}");
            assert!(ulps(exp::<false>(x), exact) < 2.0, "baseline exp({x})");
        }
    }

    #[test]
    fn exp_of_the_extremes() {
        let mut values =
            [0.0, f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -1e30, 1e30, -100.0, 100.0];
        exp_all(&mut values);
        assert_eq!(values[..3], [1.0, 0.0, f32::INFINITY]);
        assert!(values[3].is_nan());
        assert_eq!(values[4..], [0.0, f32::INFINITY, 0.0, f32::INFINITY]);
    }

    #[test]
    fn sums_of_every_length_count_every_element_once() {
        let ones = [1.0; 67];
        for n in 0..ones.len() {
            assert_eq!(dot::<false>(&ones[..n], &ones[..n]), n as f32);
            assert_eq!(sum_exp_shifted::<false>(&ones[..n], 1.0), n as f32);
        }
    }

    #[test]
    fn max_finds_the_largest_wherever_it_is_and_keeps_nan() {
        for n in 1..40 {
            for at in 0..n {
                let mut values = vec![-3.0; n];
                values[at] = -1.0;
                assert_eq!(max(&values), -1.0);
                values[at] = f32::NAN;
                assert!(max(&values).is_nan());
            }
        }
        assert_eq!(max(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn erf_and_tanh_match_known_values() {
        // Abramowitz and Stegun, tables 7.1 and 4.15.
        for (x, expected) in
            [(0.0, 0.0), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3)]
        {
            assert!((erf::<false>(x).0 - expected).abs() < 5e-7, "erf({x})");
            assert!((erf::<false>(-x).0 + expected).abs() < 5e-7, "erf(-{x})");
        }
        for x in [-20.0_f32, -1.0, -1e-3, 0.0, 0.3, 1.0, 9.0, 50.0] {
            assert!((tanh::<false>(x) - x.tanh()).abs() < 3e-7, "tanh({x})");
        }
    }
}
