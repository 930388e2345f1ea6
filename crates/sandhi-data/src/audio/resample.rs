//! Changing the sample rate: band-limited, zero phase, exact length, in blocks.
//!
//! ```text
//! samples ─ blocks of n_in ─ FFT, windowed-sinc low-pass, crop or extend the spectrum, inverse FFT ─ n_out
//!                            overlap-add; the filter's delay of n_out / 2 is dropped at the start
//! ```
//!
//! The filter is rubato's synchronous FFT resampler (squared Blackman-Harris window, the passband ends
//! about 1.5 % below the lower Nyquist frequency). Blocks have a fixed length, so that it makes
//! no difference how the samples are cut when they are pushed: streaming equals the whole file
//! to the bit.

use rubato::{Fft, FixedSync, Resampler as _, audioadapter_buffers::direct::InterleavedSlice};

use super::{Error, MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ};

/// Filter length at the lower of the two rates, in samples: 64 ms at 16 kHz.
const FILTER_LEN: usize = 1024;

/// Converts one channel from one sample rate to another, block by block.
pub struct Resampler {
    from_hz: u32,
    to_hz: u32,
    /// Absent when both rates are the same.
    fft: Option<Box<Fft<f32>>>,
    /// Input that does not fill a block yet.
    pending: Vec<f32>,
    /// Output of one block.
    block: Vec<f32>,
    /// Output samples still to drop, because the filter delays.
    to_skip: usize,
    n_in: u64,
    n_out: u64,
}

/// Number of samples after resampling: `round(n_samples * to / from)`, and at least one if there was one.
pub fn resampled_len(n_samples: u64, from_hz: u32, to_hz: u32) -> u64 {
    let (n, from, to) = (u128::from(n_samples), u128::from(from_hz.max(1)), u128::from(to_hz));
    let rounded = (2 * n * to + from) / (2 * from);
    u64::try_from(rounded).unwrap_or(u64::MAX).max(u64::from(n_samples > 0))
}

impl Resampler {
    /// A converter between two rates in Hz. `file` is only for the error message.
    ///
    /// # Errors
    ///
    /// [`Error::SampleRate`] when a rate is outside of [`MIN_SAMPLE_RATE_HZ`]`..=`[`MAX_SAMPLE_RATE_HZ`].
    pub fn new(from_hz: u32, to_hz: u32, file: &str) -> Result<Self, Error> {
        for found in [from_hz, to_hz] {
            if !(MIN_SAMPLE_RATE_HZ..=MAX_SAMPLE_RATE_HZ).contains(&found) {
                return Err(Error::SampleRate { file: file.to_owned(), found });
            }
        }
        let mut new = Self {
            from_hz,
            to_hz,
            fft: None,
            pending: Vec::new(),
            block: Vec::new(),
            to_skip: 0,
            n_in: 0,
            n_out: 0,
        };
        if from_hz == to_hz {
            return Ok(new);
        }
        let divisor = gcd(from_hz, to_hz);
        let (unit_in, unit_out) = ((from_hz / divisor) as usize, (to_hz / divisor) as usize);
        // An even number of units, so that half a block, which is the delay, is whole on both sides.
        let n_units = 2 * FILTER_LEN.div_ceil(2 * unit_in.min(unit_out));
        let fft = Fft::new_custom(
            from_hz as usize,
            to_hz as usize,
            n_units * unit_in,
            1,
            1,
            rubato::WindowFunction::BlackmanHarris2,
            FixedSync::Both,
        )
        .expect("rates and block length are not zero");
        new.to_skip = fft.output_delay();
        new.block = vec![0.0; fft.output_frames_max()];
        new.fft = Some(Box::new(fft));
        Ok(new)
    }

    /// Takes samples and appends to `out` what is ready.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.n_in += samples.len() as u64;
        let Some(n_block) = self.fft.as_ref().map(|fft| fft.input_frames_next()) else {
            out.extend_from_slice(samples);
            return;
        };
        let mut rest = samples;
        if !self.pending.is_empty() {
            let n_missing = (n_block - self.pending.len()).min(rest.len());
            self.pending.extend_from_slice(&rest[..n_missing]);
            rest = &rest[n_missing..];
            if self.pending.len() < n_block {
                return;
            }
            let full = std::mem::take(&mut self.pending);
            self.process(&full, out);
            self.pending = full;
            self.pending.clear();
        }
        let mut blocks = rest.chunks_exact(n_block);
        for block in &mut blocks {
            self.process(block, out);
        }
        self.pending.extend_from_slice(blocks.remainder());
    }

    /// Appends the end: as much as is missing to [`resampled_len`] of everything that was pushed.
    pub fn finish(mut self, out: &mut Vec<f32>) {
        let Some(n_block) = self.fft.as_ref().map(|fft| fft.input_frames_next()) else {
            return;
        };
        let n_total = resampled_len(self.n_in, self.from_hz, self.to_hz);
        let mut last = std::mem::take(&mut self.pending);
        last.resize(n_block, 0.0);
        while self.n_out < n_total {
            self.process(&last, out);
            last.fill(0.0);
        }
        // The last block runs over; nothing before it does, because the filter delays by half a block.
        out.truncate(out.len() - (self.n_out - n_total) as usize);
    }

    /// Runs one full block.
    fn process(&mut self, block: &[f32], out: &mut Vec<f32>) {
        let Some(fft) = &mut self.fft else { return };
        let n_out = self.block.len();
        let input = InterleavedSlice::new(block, 1, block.len()).expect("one channel");
        let mut output = InterleavedSlice::new_mut(&mut self.block, 1, n_out).expect("one channel");
        let (_, n_written) = fft
            .process_into_buffer(&input, &mut output, None)
            .expect("buffers have the lengths that the resampler asks for");
        let n_skipped = self.to_skip.min(n_written);
        self.to_skip -= n_skipped;
        out.extend_from_slice(&self.block[n_skipped..n_written]);
        self.n_out += (n_written - n_skipped) as u64;
    }
}

impl std::fmt::Debug for Resampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resampler({} Hz to {} Hz)", self.from_hz, self.to_hz)
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
