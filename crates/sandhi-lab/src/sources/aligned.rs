//! What aligners learn from: utterances with transcripts, as units or spectra beside the numbers of their characters.

use rayon::prelude::*;
use sandhi_data::{
    rng::Stream,
    text::{Characters, Unknown},
};

use super::{Error, Prepared, Sound, Spoken, Workshop};
use crate::{
    recipe::StageConfig,
    train::aligner::{AlignerDataset, AlignerItem, Rows},
    units::{Kmeans, Spectra},
};

/// Utterances spoken or read at once.
const CHUNK: usize = 512;

/// Numbers of a text's characters, with a space at both ends for what is silent there.
fn with_spaces(symbols: &Characters, text: &str) -> Vec<u32> {
    let ids = symbols.encode(text, Unknown::Skip).expect("what is unknown is skipped");
    let space = || symbols.id(' ');
    space().into_iter().chain(ids).chain(space()).collect()
}

impl Workshop {
    /// The data sets of an aligner's stage.
    ///
    /// # Errors
    ///
    /// When a source cannot be read, spoken or analyzed.
    pub fn aligned(
        &self,
        stage: &StageConfig,
        spectra: &Spectra,
        units: Option<&Kmeans>,
        symbols: &Characters,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Prepared<AlignerDataset>, Error> {
        let (lists, dev) = self.transcribed(stage)?;
        let dataset = |spoken: &[Spoken]| -> Result<AlignerDataset, Error> {
            let mut items = Vec::with_capacity(spoken.len());
            for chunk in spoken.chunks(CHUNK) {
                let heard = self.spectra(chunk, spectra)?.into_par_iter().zip(chunk);
                let found: Vec<AlignerItem> = heard
                    .map(|((rows, duration_s), spoken)| {
                        let rows = match units {
                            Some(kmeans) => {
                                let frames = spectra.window().frames(&rows, spectra.n_mels());
                                Rows::Units(kmeans.assign(&frames).into())
                            }
                            None => Rows::Spectra(rows.into()),
                        };
                        AlignerItem { rows, text: with_spaces(symbols, spoken.text()), duration_s }
                    })
                    .collect();
                items.extend(found);
                progress(items.len(), spoken.len());
            }
            Ok(AlignerDataset::new(items, spectra))
        };
        let mut sources = Vec::new();
        for (list, source) in lists.iter().zip(&stage.sources) {
            sources.push((source.weight(), dataset(list)?));
        }
        let dev = if dev.is_empty() { Vec::new() } else { vec![dataset(&dev)?] };
        Ok((sources, dev))
    }

    /// Frames of a stage's utterances, in an order drawn from the seed, `n_frames` at most: what units are fitted to.
    ///
    /// # Errors
    ///
    /// When a source cannot be read, spoken or analyzed.
    pub fn some_frames(
        &self,
        stage: &StageConfig,
        spectra: &Spectra,
        n_frames: usize,
        seed: u64,
    ) -> Result<Vec<f32>, Error> {
        /// Heard at once: a few hundred frames each.
        const AT_ONCE: usize = 32;
        let (lists, _) = self.transcribed(stage)?;
        let mut spoken = lists.concat();
        Stream::named(seed, "units").shuffle(&mut spoken);
        let n_values = n_frames * spectra.width();
        let mut frames = Vec::new();
        for chunk in spoken.chunks(AT_ONCE) {
            for (rows, _) in self.spectra(chunk, spectra)? {
                frames.extend(spectra.window().frames(&rows, spectra.n_mels()));
            }
            if frames.len() >= n_values {
                break;
            }
        }
        frames.truncate(n_values);
        Ok(frames)
    }

    /// Normalized spectra of several utterances, in order, with their seconds.
    fn spectra(&self, spoken: &[Spoken], spectra: &Spectra) -> Result<Vec<(Vec<f32>, f64)>, Error> {
        self.sounds(spoken)?
            .into_par_iter()
            .zip(spoken)
            .map(|(Sound { wave, .. }, spoken)| {
                let rows = spectra.spectra(&wave.samples);
                let rows = rows.map_err(|error| Error::Features { id: spoken.key(), error })?;
                Ok((rows, wave.duration_s()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_a_space_at_both_ends() {
        let symbols = Characters::new(" ab".chars()).unwrap();
        assert_eq!(with_spaces(&symbols, "A, b7"), [1, 2, 1, 3, 1]);
        assert_eq!(with_spaces(&symbols, "…"), [1, 1]);
    }
}
