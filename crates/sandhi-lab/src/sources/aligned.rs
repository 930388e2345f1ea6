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
            let items = placeable(items, spoken, spectra)?;
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

/// Items with a frame for every character; the others are warned of.
fn placeable(
    items: Vec<AlignerItem>,
    spoken: &[Spoken],
    spectra: &Spectra,
) -> Result<Vec<AlignerItem>, Error> {
    let n_frames = |item: &AlignerItem| match &item.rows {
        Rows::Units(units) => units.len(),
        Rows::Spectra(rows) => spectra.window().n_frames(rows.len() / spectra.n_mels()),
    };
    let fits = |item: &AlignerItem| n_frames(item) >= item.text.len();
    let Some((first, item)) = items.iter().enumerate().find(|(_, item)| !fits(item)) else {
        return Ok(items);
    };
    let text = spoken[first].text().to_owned();
    let (n_frames, n_characters) = (n_frames(item), item.text.len());
    let n = items.len();
    let items: Vec<AlignerItem> = items.into_iter().filter(fits).collect();
    if items.is_empty() {
        return Err(Error::Unplaceable { text, n_frames, n_characters });
    }
    tracing::warn!(
        "{} of {n} utterances are left out: they have fewer frames than characters; the first, {n_frames} for {n_characters}: {text:?}",
        n - items.len(),
    );
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_utterance_has_a_frame_for_every_character() {
        use sandhi_data::{language::Language, speech::Domain};
        let features =
            serde_json::from_value(serde_json::json!({ "kind": "whisper", "n_mels": 20 }));
        let spectra =
            Spectra::new(&features.unwrap(), crate::units::FrameWindow::default()).unwrap();
        let said = |text: &str| Spoken::made(text.into(), Language::English, Domain::Base);
        let spoken = [said("ab"), said("abc"), said("b")];
        let item = |n_frames: usize, n: usize| AlignerItem {
            rows: Rows::Units(vec![0; n_frames].into()),
            text: vec![1; n],
            duration_s: 1.0,
        };
        let items = vec![item(4, 4), item(4, 5), item(9, 3)];
        let kept = placeable(items.clone(), &spoken, &spectra).unwrap();
        assert_eq!(kept, [items[0].clone(), items[2].clone()]);
        let error = placeable(vec![items[1].clone()], &spoken[1..2], &spectra).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("abc") && error.contains("4 frames for 5"), "{error}");
    }

    #[test]
    fn a_text_has_a_space_at_both_ends() {
        let symbols = Characters::new(" ab".chars()).unwrap();
        assert_eq!(with_spaces(&symbols, "A, b7"), [1, 2, 1, 3, 1]);
        assert_eq!(with_spaces(&symbols, "…"), [1, 1]);
    }
}
