//! Mel filter banks: triangles over the bins of a power spectrum.
//!
//! ```text
//!        /\  /\    /\          one row per filter, few bins each; kept as (first bin, weights)
//!       /  \/  \  /  \
//!      /   /\   \/    \
//! bins 0 1 2 3 4 5 6 7 ...
//! ```

/// Frames that are filtered together: filters are narrow, frames are many, so the inner loop runs over frames.
pub(super) const LANES: usize = 8;

/// One triangle: the weights of neighboring bins.
#[derive(Debug, Clone)]
struct Filter {
    first_bin: usize,
    weights: Vec<f32>,
}

/// A bank of triangular filters over `n_bins` bins.
#[derive(Debug, Clone)]
pub(super) struct MelBank {
    filters: Vec<Filter>,
    n_bins: usize,
}

impl MelBank {
    /// Slaney's bank as librosa and Whisper have it: the scale is linear below 1 kHz and logarithmic above,
    /// triangles are straight in Hz and have an area of 2 Hz⁻¹·Hz over their base ("slaney" norm).
    ///
    /// `n_bins` bins lie evenly from 0 to `high_hz`.
    pub(super) fn slaney(n_mels: usize, n_bins: usize, high_hz: f64) -> Self {
        let top = slaney_from_hz(high_hz);
        let edges: Vec<f64> =
            (0..n_mels + 2).map(|i| slaney_to_hz(top * i as f64 / (n_mels + 1) as f64)).collect();
        let bin_hz = high_hz / (n_bins - 1) as f64;
        Self::from_weights(n_mels, n_bins, |mel, bin| {
            let (low, center, high) = (edges[mel], edges[mel + 1], edges[mel + 2]);
            let hz = bin as f64 * bin_hz;
            let height = ((hz - low) / (center - low)).min((high - hz) / (high - center));
            height.max(0.0) * 2.0 / (high - low)
        })
    }

    /// Kaldi's bank: the HTK scale `1127 ln(1 + hz / 700)`, triangles straight in mel with height
    /// 1, the last bin (Nyquist) never used.
    ///
    /// `n_bins` bins lie `bin_hz` apart, starting at 0.
    pub(super) fn kaldi(
        n_mels: usize,
        n_bins: usize,
        bin_hz: f64,
        low_hz: f64,
        high_hz: f64,
    ) -> Self {
        let low = htk_from_hz(low_hz);
        let step = (htk_from_hz(high_hz) - low) / (n_mels + 1) as f64;
        Self::from_weights(n_mels, n_bins, |mel, bin| {
            if bin + 1 == n_bins {
                return 0.0;
            }
            // Position on the mel axis in units of the spacing, seen from the left edge.
            let x = (htk_from_hz(bin as f64 * bin_hz) - low) / step - mel as f64;
            x.min(2.0 - x).max(0.0)
        })
    }

    fn from_weights(n_mels: usize, n_bins: usize, weight: impl Fn(usize, usize) -> f64) -> Self {
        let filter = |mel| {
            let row: Vec<f32> = (0..n_bins).map(|bin| weight(mel, bin) as f32).collect();
            let first_bin = row.iter().position(|&w| w > 0.0).unwrap_or(0);
            let end = row.iter().rposition(|&w| w > 0.0).map_or(first_bin, |last| last + 1);
            Filter { first_bin, weights: row[first_bin..end].to_vec() }
        };
        Self { filters: (0..n_mels).map(filter).collect(), n_bins }
    }

    pub(super) fn n_mels(&self) -> usize {
        self.filters.len()
    }

    /// Sums the power of [`LANES`] frames under each triangle.
    ///
    /// # Shapes
    ///
    /// - `power`: `[n_bins, LANES]`
    /// - `out`: `[n_mels, LANES]`
    pub(super) fn apply(&self, power: &[[f32; LANES]], out: &mut [[f32; LANES]]) {
        debug_assert_eq!(power.len(), self.n_bins);
        for (filter, out) in self.filters.iter().zip(out) {
            let bins = &power[filter.first_bin..filter.first_bin + filter.weights.len()];
            let mut sums = [0.0; LANES];
            for (bin, &weight) in bins.iter().zip(&filter.weights) {
                for (sum, p) in sums.iter_mut().zip(bin) {
                    *sum += weight * p;
                }
            }
            *out = sums;
        }
    }

    /// The bank as a dense matrix, `[n_mels, n_bins]` row by row.
    #[cfg(test)]
    pub(super) fn dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.filters.len() * self.n_bins];
        for (row, filter) in dense.chunks_exact_mut(self.n_bins).zip(&self.filters) {
            row[filter.first_bin..][..filter.weights.len()].copy_from_slice(&filter.weights);
        }
        dense
    }
}

/// Mels per Hz below 1 kHz on Slaney's scale.
const SLANEY_LINEAR: f64 = 3.0 / 200.0;
/// Where the logarithmic part starts, in Hz.
const SLANEY_KNEE_HZ: f64 = 1_000.0;

/// Ratio of neighboring mels above the knee: 27 steps cover a factor of 6.4.
fn slaney_log_step() -> f64 {
    6.4_f64.ln() / 27.0
}

fn slaney_from_hz(hz: f64) -> f64 {
    let knee = SLANEY_KNEE_HZ * SLANEY_LINEAR;
    if hz < SLANEY_KNEE_HZ {
        hz * SLANEY_LINEAR
    } else {
        knee + (hz / SLANEY_KNEE_HZ).ln() / slaney_log_step()
    }
}

fn slaney_to_hz(mel: f64) -> f64 {
    let knee = SLANEY_KNEE_HZ * SLANEY_LINEAR;
    if mel < knee {
        mel / SLANEY_LINEAR
    } else {
        SLANEY_KNEE_HZ * ((mel - knee) * slaney_log_step()).exp()
    }
}

fn htk_from_hz(hz: f64) -> f64 {
    1127.0 * (1.0 + hz / 700.0).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slaney_scale_inverts_and_meets_at_the_knee() {
        // 15 mels at 1 kHz from either side; 6.4 kHz is 27 steps further.
        assert!((slaney_from_hz(1_000.0) - 15.0).abs() < 1e-12);
        assert!((slaney_from_hz(6_400.0) - 42.0).abs() < 1e-12);
        for hz in [0.0, 10.0, 999.0, 1_001.0, 7_999.0] {
            assert!((slaney_to_hz(slaney_from_hz(hz)) - hz).abs() < 1e-9);
        }
    }

    #[test]
    fn kaldi_triangles_sum_to_one_between_the_first_and_the_last_center() {
        let bank = MelBank::kaldi(23, 257, 31.25, 20.0, 8_000.0);
        let dense = bank.dense();
        // 22 of 24 steps up the scale lies at 6.96 kHz, bin 222.
        for bin in 10..222 {
            let sum: f32 = (0..23).map(|mel| dense[mel * 257 + bin]).sum();
            assert!((sum - 1.0).abs() < 1e-5, "bin {bin}: {sum}");
        }
        assert!((0..23).all(|mel| dense[mel * 257 + 256] == 0.0));
    }

    #[test]
    fn applying_equals_the_dense_product() {
        let bank = MelBank::slaney(80, 201, 8_000.0);
        let power: Vec<[f32; LANES]> =
            (0..201).map(|i| std::array::from_fn(|lane| ((i * 37 + lane) % 11) as f32)).collect();
        let mut out = vec![[0.0; LANES]; 80];
        bank.apply(&power, &mut out);
        for (mel, row) in bank.dense().chunks_exact(201).enumerate() {
            for lane in 0..LANES {
                let expected: f32 = row.iter().zip(&power).map(|(w, p)| w * p[lane]).sum();
                assert!((out[mel][lane] - expected).abs() < 1e-5);
            }
        }
    }
}
