//! Reading long recordings in blocks of bounded memory.

use std::path::Path;

use super::{AudioInfo, Error, Resampler, decode::Decoder};

/// Mono blocks of one file at a chosen rate: an iterator over `Result<Vec<f32>, Error>`.
///
/// All blocks have `block_len` samples, except for a shorter last one; joined they are the same
/// samples as [`super::Waveform::read_resampled`], to the bit. Memory does not grow with the file. An
/// error (also a truncated end, which is only known there) is the last item.
///
/// ```no_run
/// use sandhi_data::audio::Blocks;
/// let mut n_samples = 0;
/// for block in Blocks::open("lecture.mp3".as_ref(), 16_000, 16_000 * 30)? {
///     n_samples += block?.len();
/// }
/// # Ok::<(), sandhi_data::audio::Error>(())
/// ```
pub struct Blocks {
    decoder: Decoder,
    /// Taken when the stream ends.
    resampler: Option<Resampler>,
    decoded: Vec<f32>,
    ready: Vec<f32>,
    block_len: usize,
    failed: bool,
}

impl Blocks {
    /// Opens a file to be read at `sample_rate_hz` in blocks of `block_len` samples (at least 1).
    ///
    /// # Errors
    ///
    /// As [`super::Waveform::read`] for what the header shows; the rest comes with the blocks.
    pub fn open(path: &Path, sample_rate_hz: u32, block_len: usize) -> Result<Self, Error> {
        Self::new(Decoder::open(path)?, sample_rate_hz, block_len)
    }

    /// As [`Blocks::open`] for bytes in memory; `name` stands for the file in messages.
    ///
    /// # Errors
    ///
    /// As [`Blocks::open`].
    pub fn decode(
        bytes: Vec<u8>,
        name: &str,
        sample_rate_hz: u32,
        block_len: usize,
    ) -> Result<Self, Error> {
        Self::new(Decoder::from_bytes(bytes, name)?, sample_rate_hz, block_len)
    }

    fn new(decoder: Decoder, sample_rate_hz: u32, block_len: usize) -> Result<Self, Error> {
        let from = decoder.info().sample_rate_hz;
        let resampler = Resampler::new(from, sample_rate_hz, decoder.file())?;
        Ok(Self {
            decoder,
            resampler: Some(resampler),
            decoded: Vec::new(),
            ready: Vec::new(),
            block_len: block_len.max(1),
            failed: false,
        })
    }

    /// What the file's header says; the rate is the file's own.
    pub fn info(&self) -> &AudioInfo {
        self.decoder.info()
    }

    /// Samples that the buffers have room for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.decoded.capacity() + self.ready.capacity()
    }

    /// Decodes until a block is ready or the stream is over.
    fn fill(&mut self) -> Result<(), Error> {
        while self.ready.len() < self.block_len {
            let Some(resampler) = &mut self.resampler else { break };
            self.decoded.clear();
            if self.decoder.next(&mut self.decoded)? {
                resampler.push(&self.decoded, &mut self.ready);
            } else if let Some(resampler) = self.resampler.take() {
                resampler.finish(&mut self.ready);
            }
        }
        Ok(())
    }
}

impl Iterator for Blocks {
    type Item = Result<Vec<f32>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if let Err(error) = self.fill() {
            self.failed = true;
            return Some(Err(error));
        }
        if self.ready.is_empty() {
            return None;
        }
        let n = self.block_len.min(self.ready.len());
        let rest = self.ready.split_off(n);
        Some(Ok(std::mem::replace(&mut self.ready, rest)))
    }
}
