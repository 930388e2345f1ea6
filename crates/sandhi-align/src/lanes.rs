//! Sixteen numbers of single precision at a time, with comparisons that become bits.
//!
//! ```text
//! a        1  5  2 …  0
//! b        3  4  2 …  1
//! a > b    .  1  .    .      -> 0b0…010, lane 0 in the lowest bit
//! ```
//!
//! [`in_lanes!`] compiles a body for AVX-512, for AVX2 and for the baseline, and picks at run time. Compilers make bits
//! of sixteen plain comparisons in several times as many instructions, so that the two wide kinds are spelled out.

pub(crate) use crate::transport::simd::LANES;

/// Sixteen numbers. Values of the wide kinds live in functions that are compiled for them.
pub(crate) trait Lanes: Copy {
    fn splat(value: f32) -> Self;
    fn load(values: &[f32]) -> Self;
    fn store(self, values: &mut [f32]);
    fn plus(self, other: Self) -> Self;
    /// The larger ones, of numbers that are not NaN.
    fn max(self, other: Self) -> Self;
    /// Where `self` is larger.
    fn above(self, other: Self) -> u16;
    /// The last number of `other`, then all but the last of `self`. A load from one place before would have to wait
    /// until both blocks are stored.
    fn behind(self, other: Self) -> Self;

    /// The values at `columns` of a row.
    ///
    /// # Safety
    ///
    /// Every column must be below the length of the row.
    #[inline(always)]
    unsafe fn pick(row: &[f32], columns: &[u32]) -> Self {
        let columns: &[u32; LANES] = columns.try_into().expect("a block of columns");
        let mut values = [0.0; LANES];
        for (value, &column) in values.iter_mut().zip(columns) {
            // SAFETY: the caller's promise.
            *value = unsafe { *row.get_unchecked(column as usize) };
        }
        Self::load(&values)
    }

    /// The values at `columns`, all below 32, of a row of at most 32 values whose halves `table` holds.
    #[inline(always)]
    fn look_up(table: [Self; 2], columns: &[u32]) -> Self {
        let mut row = [0.0; 2 * LANES];
        table[0].store(&mut row[..LANES]);
        table[1].store(&mut row[LANES..]);
        let columns: &[u32; LANES] = columns.try_into().expect("a block of columns");
        let mut values = [0.0; LANES];
        for (value, &column) in values.iter_mut().zip(columns) {
            *value = row[column as usize % row.len()];
        }
        Self::load(&values)
    }
}

/// The first sixteen values.
#[inline(always)]
fn block(values: &[f32]) -> &[f32; LANES] {
    values[..LANES].try_into().expect("the slice was just cut to this length")
}

/// For any processor.
impl Lanes for [f32; LANES] {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; LANES]
    }

    #[inline(always)]
    fn load(values: &[f32]) -> Self {
        *block(values)
    }

    #[inline(always)]
    fn store(self, values: &mut [f32]) {
        values[..LANES].copy_from_slice(&self);
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        std::array::from_fn(|l| self[l] + other[l])
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|l| if self[l] > other[l] { self[l] } else { other[l] })
    }

    #[inline(always)]
    fn above(self, other: Self) -> u16 {
        (0..LANES).fold(0, |bits, l| bits | u16::from(self[l] > other[l]) << l)
    }

    #[inline(always)]
    fn behind(self, other: Self) -> Self {
        std::array::from_fn(|l| if l == 0 { other[LANES - 1] } else { self[l - 1] })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Lanes, block};

    /// One register of AVX-512.
    #[derive(Clone, Copy)]
    pub(crate) struct Widest(__m512);

    /// Two registers of AVX2.
    #[derive(Clone, Copy)]
    pub(crate) struct Wide([__m256; 2]);

    impl Lanes for Widest {
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: `in_lanes!` makes this type where the processor has AVX-512 only; so below.
            Self(unsafe { _mm512_set1_ps(value) })
        }

        #[inline(always)]
        fn load(values: &[f32]) -> Self {
            // SAFETY: as above, and the block has sixteen values.
            Self(unsafe { _mm512_loadu_ps(block(values).as_ptr()) })
        }

        #[inline(always)]
        fn store(self, values: &mut [f32]) {
            // SAFETY: as above, and the slice has sixteen values.
            unsafe { _mm512_storeu_ps(values[..LANES].as_mut_ptr(), self.0) }
        }

        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_max_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn above(self, other: Self) -> u16 {
            // SAFETY: as above.
            unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, other.0) }
        }

        #[inline(always)]
        fn behind(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe {
                let (high, low) = (_mm512_castps_si512(self.0), _mm512_castps_si512(other.0));
                Self(_mm512_castsi512_ps(_mm512_alignr_epi32::<15>(high, low)))
            }
        }

        #[inline(always)]
        fn look_up(table: [Self; 2], columns: &[u32]) -> Self {
            let columns: &[u32; LANES] = columns.try_into().expect("a block of columns");
            // SAFETY: as above, and the block has sixteen columns; their lowest five bits are used.
            unsafe {
                let columns = _mm512_loadu_si512(columns.as_ptr().cast());
                Self(_mm512_permutex2var_ps(table[0].0, columns, table[1].0))
            }
        }
    }

    impl Lanes for Wide {
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: `in_lanes!` makes this type where the processor has AVX2 only; so below.
            Self([unsafe { _mm256_set1_ps(value) }; 2])
        }

        #[inline(always)]
        fn load(values: &[f32]) -> Self {
            let at = block(values).as_ptr();
            // SAFETY: as above, and the block has sixteen values.
            Self(unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] })
        }

        #[inline(always)]
        fn store(self, values: &mut [f32]) {
            let at = values[..LANES].as_mut_ptr();
            // SAFETY: as above, and the slice has sixteen values.
            unsafe {
                _mm256_storeu_ps(at, self.0[0]);
                _mm256_storeu_ps(at.add(8), self.0[1]);
            }
        }

        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            let ([a, b], [c, d]) = (self.0, other.0);
            // SAFETY: as above.
            Self(unsafe { [_mm256_add_ps(a, c), _mm256_add_ps(b, d)] })
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            let ([a, b], [c, d]) = (self.0, other.0);
            // SAFETY: as above.
            Self(unsafe { [_mm256_max_ps(a, c), _mm256_max_ps(b, d)] })
        }

        #[inline(always)]
        fn above(self, other: Self) -> u16 {
            let ([a, b], [c, d]) = (self.0, other.0);
            // SAFETY: as above.
            let [low, high] = unsafe {
                [
                    _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a, c)),
                    _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(b, d)),
                ]
            };
            (low | high << 8) as u16
        }

        #[inline(always)]
        fn behind(self, other: Self) -> Self {
            // The upper half of `low` beside the lower half of `high`, then four bytes short of `high`.
            let shifted = |high: __m256, low: __m256| {
                // SAFETY: as above.
                unsafe {
                    let [high, low] = [_mm256_castps_si256(high), _mm256_castps_si256(low)];
                    let between = _mm256_permute2x128_si256::<0x21>(low, high);
                    _mm256_castsi256_ps(_mm256_alignr_epi8::<12>(high, between))
                }
            };
            Self([shifted(self.0[0], other.0[1]), shifted(self.0[1], self.0[0])])
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Wide, Widest};

/// Defines a function whose body is compiled for every kind of [`Lanes`], which it knows by the name in brackets.
macro_rules! in_lanes {
    ($(#[$meta:meta])* fn $name:ident<$kind:ident>($($arg:ident : $ty:ty),* $(,)?) -> $out:ty $body:block) => {
        $(#[$meta])*
        fn $name($($arg: $ty),*) -> $out {
            #[inline(always)]
            fn body<$kind: $crate::lanes::Lanes>($($arg: $ty),*) -> $out $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma")]
                fn widest($($arg: $ty),*) -> $out {
                    body::<$crate::lanes::Widest>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn wide($($arg: $ty),*) -> $out {
                    body::<$crate::lanes::Wide>($($arg),*)
                }
                match $crate::transport::simd::registers() {
                    // SAFETY: the processor has these features, as was just asked.
                    8 => return unsafe { widest($($arg),*) },
                    // SAFETY: the same.
                    4 => return unsafe { wide($($arg),*) },
                    _ => {}
                }
            }
            body::<[f32; $crate::lanes::LANES]>($($arg),*)
        }
    };
}
pub(crate) use in_lanes;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::simd::at_every_width;

    in_lanes! {
        fn above_or_sum<V>(a: &[f32], b: &[f32], columns: &[u32], out: &mut [f32]) -> u16 {
            let (x, y) = (V::load(a), V::load(b));
            x.max(y).plus(V::splat(1.0)).store(out);
            V::look_up([x, y], columns).store(&mut out[LANES..]);
            // SAFETY: the columns are below 16 here.
            unsafe { V::pick(a, &[3; LANES]) }.store(&mut out[2 * LANES..]);
            x.behind(y).store(&mut out[3 * LANES..]);
            x.above(y)
        }
    }

    #[test]
    fn every_width_does_what_it_says() {
        at_every_width(|| {
            let a: [f32; LANES] = std::array::from_fn(|l| (l * 7 % 16) as f32);
            let b: [f32; LANES] = std::array::from_fn(|l| if l == 5 { f32::NAN } else { 6.5 });
            let columns: [u32; LANES] = std::array::from_fn(|l| (l * 11 % 32) as u32);
            let mut out = [0.0; 4 * LANES];
            let bits = above_or_sum(&a, &b, &columns, &mut out);
            for l in 0..LANES {
                assert_eq!(bits >> l & 1 == 1, a[l] > b[l], "lane {l}");
                if l != 5 {
                    assert_eq!(out[l], a[l].max(b[l]) + 1.0);
                }
                let column = columns[l] as usize;
                let expected = if column < LANES { a[column] } else { b[column - LANES] };
                assert_eq!(out[LANES + l].to_bits(), expected.to_bits());
                assert_eq!(out[2 * LANES + l], a[3]);
                assert_eq!(out[3 * LANES + l], if l == 0 { b[LANES - 1] } else { a[l - 1] });
            }
        });
    }
}
