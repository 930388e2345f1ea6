//! Where a model over text and units cuts an utterance into patches, as a picture of lanes.
//!
//! ```text
//! words                | she  |     left    |
//! static 4             .   |   |   |   |   |          ends of the model's own patches
//! words (oracle)            |             |           where patches would end that are words
//! units                |17|17|4|91|91|12|…            the unit of every frame; the darker, the nearer its center
//! ```

use sandhi_data::{
    alignment::Alignment,
    interleave::{self, Document},
    patching::{Aligned, Closure, Granularity, Rule, Silence},
    units::{UnitUtterance, words_in_units},
};
use sandhi_nn::{patch::members, transformer::Dropout};

use super::{
    Error,
    segments::{Cuts, Nearest, Segmented, SegmentsRequest, VectorSpan, spectrogram},
    transport::peaks,
};
use crate::{
    model::SpeechTextModel,
    sources,
    train::{
        dataset::Draw,
        speech_text::{Network, SpeechTextBatch},
    },
};

const RATE_HZ: f64 = 16_000.0;

/// Tokens ahead of the first unit of a document that is spoken: what it begins with, and the marker.
const BEFORE: usize = 2;

/// Cuts an utterance into the patches of a model, and, where its words are known, into patches that are words.
///
/// # Errors
///
/// [`Error::Deaf`] for a model that hears nothing; when the sound has no features, or more units than the model's context.
pub fn patch_segments(
    model: &SpeechTextModel,
    request: &SegmentsRequest<'_>,
) -> Result<Segmented, Error> {
    let SegmentsRequest { samples, text, words } = *request;
    let hearing = model.hearing.as_ref().ok_or(Error::Deaf)?;
    let heard = |error| sources::Error::Features { id: "the utterance".to_owned(), error };
    let frames = hearing.speech.frames(samples).map_err(heard)?;
    let units = hearing.centers.assign(&frames);
    let rate_hz = model.units.rate_hz;
    let words: Vec<Alignment> = words.unwrap_or_default().to_vec();
    let vectors = units
        .iter()
        .zip(frames.chunks_exact(hearing.centers.width()))
        .enumerate()
        .map(|(i, (&unit, frame))| VectorSpan {
            span_s: Some([i as f64, (i + 1) as f64].map(|i| i / rate_hz)),
            nearest: Some(Nearest {
                token: unit,
                label: unit.to_string(),
                cosine: hearing.centers.cosine(unit, frame),
            }),
        })
        .collect();
    let utterance = UnitUtterance {
        id: String::new(),
        words: words_in_units(&words, rate_hz, units.len() as u32),
        units,
        text: None,
        language: None,
    };
    Ok(Segmented {
        text: text.unwrap_or_default().to_owned(),
        is_given: text.is_some(),
        duration_s: samples.len() as f64 / RATE_HZ,
        waveform: peaks(samples),
        spectrogram: spectrogram(samples)?,
        no_words: words.is_empty().then(|| "nobody said when they are said".to_owned()),
        words,
        cuts: cuts(model, utterance)?,
        vectors,
    })
}

/// Ends of the model's own patches, and of words.
fn cuts(model: &SpeechTextModel, utterance: UnitUtterance) -> Result<Vec<Cuts>, Error> {
    let utterance = model.in_tokens(utterance).map_err(sources::Error::from)?;
    // When each token of speech ends, in seconds.
    let mut n_units = 0;
    let ends: Vec<f64> = utterance
        .units
        .iter()
        .map(|&unit| {
            n_units += model.merges.as_ref().map_or(1, |merges| merges.length(unit));
            f64::from(n_units) / model.units.rate_hz
        })
        .collect();
    let document =
        interleave::spoken(&utterance, &model.vocabulary).map_err(sources::Error::from)?;
    model.fits(document.ids.len())?;
    let none = |name: &str, why: &str| Cuts {
        name: name.to_owned(),
        is_oracle: false,
        ends_s: Vec::new(),
        none: Some(why.to_owned()),
    };
    let of_words = (!utterance.words.is_empty()).then(|| words(model, &document, &utterance));
    let of_words = of_words.transpose()?.map(|patches| Cuts {
        name: "words".to_owned(),
        is_oracle: true,
        ends_s: ends_s(&patches, &ends),
        none: None,
    });
    let own = match &model.net.network {
        Network::Plain(_) => Some(none("plain", "every token is one of its own")),
        // They are words, where those are known.
        Network::Patch(_) if !model.can_go_on() && of_words.is_some() => None,
        Network::Patch(_) if !model.can_go_on() => {
            Some(none("words", "nobody said when they are said"))
        }
        Network::Patch(lm) => {
            let cutting = model.cutting();
            let mut batch = SpeechTextBatch::new(&cutting);
            let vocabulary = &model.vocabulary;
            batch.push(&document, &utterance.words, vocabulary, &cutting, Draw::FIXED, "");
            let closings = lm.forward(&batch.documents(), Dropout::OFF).closings;
            let name = match &model.patching {
                None => "learned".to_owned(),
                Some(patching) => match (patching.entropy(), patching.config().size()) {
                    (Some(_), _) => "entropy".to_owned(),
                    // In use all others that know where they end are of one size.
                    (None, size) => {
                        format!("static {}", size.expect("it knows where they end"))
                    }
                },
            };
            let patches: Vec<usize> = members(&closings).iter().map(|tokens| tokens.end).collect();
            Some(Cuts { name, is_oracle: false, ends_s: ends_s(&patches, &ends), none: None })
        }
    };
    Ok(own.into_iter().chain(of_words).collect())
}

/// Where patches end that are words, as numbers of tokens.
fn words(
    model: &SpeechTextModel,
    document: &Document,
    utterance: &UnitUtterance,
) -> Result<Vec<usize>, Error> {
    let aligned = match &model.patching {
        Some(patching) => patching.config().words(),
        None => Aligned::new(Granularity::default(), Silence::default()),
    };
    let rule = Rule::Aligned(aligned);
    let patches = rule
        .patches(document, &utterance.words, &model.vocabulary, Closure::Causal)
        .map_err(sources::Error::from)?;
    Ok(patches.ends.iter().map(|&end| end as usize).collect())
}

/// When the patches of speech end that end at these tokens.
fn ends_s(patches: &[usize], ends: &[f64]) -> Vec<f64> {
    let of = |&end: &usize| ends.get(end.checked_sub(BEFORE + 1)?).copied();
    patches.iter().filter_map(of).collect()
}
