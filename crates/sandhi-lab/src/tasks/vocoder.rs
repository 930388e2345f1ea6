//! How well units are said again: spectra, and what a recognizer reads of it.
//!
//! ```text
//! sentence ─ Studio ─ true sound ─┬─ recognizer ──────────────────────── wer_original, cer_original
//!                                 ├─ log-mel ───────────────┐
//!                                 └─ units ─ Vocoder ─┬─ log-mel ─ log_mel_l1
//!                                                     └─ sound ─┬─ log-mel ─ log_mel_l1_sound
//!                                                               └─ recognizer ─ wer, cer
//! ```
//!
//! The recognizer must not be the encoder that made the units: it would read what it wrote.

use burn::prelude::Device;
use sandhi_data::{
    score::{self, Bootstrap},
    text::normalize,
    units::UnitsHeader,
};

use super::{
    Cell, Error,
    cells::cells,
    score::{Ratio, scorers},
};
use crate::{
    hf::Hub,
    model::{AnyModel, SpeechModel, VocoderModel},
    recipe::EvalConfig,
    results::{LOG_MEL, LOG_MEL_OF_SOUND, Metric, ORIGINAL, Prediction, Results},
    sources::{Spoken, Workshop, whole_units},
    transcribe,
};

/// Sentences that are said again at once.
const AT_ONCE: usize = 16;

/// Tasks whose sentences are said again, and what the results call them.
const TASKS: [(&str, &str); 3] =
    [("asr", "resynthesis"), ("asr_de", "resynthesis_de"), ("asr_es", "resynthesis_es")];

/// What the results of a vocoder call a task, where it is one that is said again.
pub(crate) fn result_name(task: &str) -> Option<&'static str> {
    TASKS.iter().find(|(name, _)| *name == task).map(|(_, result)| *result)
}

/// The recognizer that an evaluation names, if it does.
///
/// # Errors
///
/// When it cannot be read, is no ctc model, or has no CTC head.
pub fn recognizer(
    config: &EvalConfig,
    workshop: &Workshop,
    device: &Device,
    hub: &Hub,
) -> Result<Option<SpeechModel>, Error> {
    let Some(path) = &config.recognizer else { return Ok(None) };
    let speech = AnyModel::load_speech(&workshop.resolve(path), device, hub).map_err(Box::new)?;
    if speech.recognizer.is_none() {
        return Err(Error::NoRecognizer { asked: format!("eval.recognizer {path}") });
    }
    Ok(Some(speech))
}

/// What makes sound of a model's units, and what reads it.
#[derive(Debug)]
pub struct Voice {
    vocoder: VocoderModel,
    recognizer: SpeechModel,
}

/// The voice that an evaluation names, if it does.
///
/// # Errors
///
/// When either cannot be read or is of another kind; [`Error::Unread`] where nothing reads what is said.
pub fn voice(
    config: &EvalConfig,
    workshop: &Workshop,
    device: &Device,
    hub: &Hub,
) -> Result<Option<Voice>, Error> {
    let Some(path) = &config.vocoder else { return Ok(None) };
    let vocoder = AnyModel::load_vocoder(&workshop.resolve(path), device, hub).map_err(Box::new)?;
    let recognizer = recognizer(config, workshop, device, hub)?.ok_or(Error::Unread)?;
    Ok(Some(Voice { vocoder, recognizer }))
}

impl Voice {
    /// What is to be known of the recognizer; refuses units of another quantizer.
    ///
    /// # Errors
    ///
    /// [`Error::OtherUnits`].
    pub(super) fn note(&self, units: &UnitsHeader, config: &EvalConfig) -> Result<String, Error> {
        if self.vocoder.units != *units {
            return Err(Error::OtherUnits {
                place: "eval.vocoder".to_owned(),
                file: config.vocoder.clone().unwrap_or_default().into(),
                found: Box::new(self.vocoder.units.clone()),
                expected: Box::new(units.clone()),
            });
        }
        Ok(reader(&self.vocoder, Some(&self.recognizer)))
    }

    /// What is read of the sound of units; nothing where there are none.
    pub(super) fn read_units(&self, said: &[Vec<u32>]) -> Result<Vec<String>, Error> {
        let sounds: Vec<Vec<f32>> = said
            .iter()
            .map(|units| match units.is_empty() {
                true => Ok(Vec::new()),
                false => Ok(self.vocoder.say(units).map_err(Box::new)?.samples),
            })
            .collect::<Result<_, Error>>()?;
        self.read(&sounds)
    }

    /// What is read of sounds; nothing where one is empty.
    pub(super) fn read(&self, sounds: &[Vec<f32>]) -> Result<Vec<String>, Error> {
        let mut texts = vec![String::new(); sounds.len()];
        let heard: Vec<usize> = (0..sounds.len()).filter(|&i| !sounds[i].is_empty()).collect();
        for chunk in heard.chunks(AT_ONCE) {
            let pieces: Vec<&[f32]> = chunk.iter().map(|&i| sounds[i].as_slice()).collect();
            for (&i, text) in chunk.iter().zip(transcribe::ctc(&self.recognizer, &pieces)?) {
                texts[i] = text;
            }
        }
        Ok(texts)
    }
}

/// Says Microworld's sentences again, from the units of their sound.
///
/// # Errors
///
/// When speech cannot be made or analyzed.
pub fn evaluate_vocoder(
    model: &VocoderModel,
    recognizer: Option<&SpeechModel>,
    workshop: &Workshop,
    config: &EvalConfig,
    results: &mut Results,
    progress: &dyn Fn(&str, usize, usize),
) -> Result<Vec<Vec<Prediction>>, Error> {
    results.meta.notes.push(reader(model, recognizer));
    let named = |cell: Cell| {
        let task = TASKS.iter().find(|(task, _)| *task == cell.task);
        if task.is_none() && !config.tasks.is_empty() {
            let Cell { task, domain, .. } = &cell;
            tracing::warn!("{task}.{domain} is left out: a vocoder says sentences again");
        }
        task.map(|&(_, name)| (name, cell))
    };
    let all = cells(workshop.world(), config.half.split(), config).into_iter();
    let all: Vec<(&str, Cell)> = all.filter_map(named).collect();
    let mut predictions = Vec::with_capacity(all.len());
    for (i, (name, cell)) in all.iter().enumerate() {
        progress(&format!("{name} {}", cell.domain), i, all.len());
        let again = Again::new(model, recognizer, workshop, cell)?;
        again.add(results, name, cell);
        predictions.push(again.predictions(name, cell));
    }
    results.meta.scorer.extend(scorers());
    let how = "mean |difference| of natural logarithms of mel energies";
    results.meta.scorer.insert(LOG_MEL.into(), format!("{how}, regression"));
    results.meta.scorer.insert(LOG_MEL_OF_SOUND.into(), format!("{how}, of the sound"));
    progress("done", all.len(), all.len());
    Ok(predictions)
}

/// What is to be known of the recognizer.
fn reader(model: &VocoderModel, recognizer: Option<&SpeechModel>) -> String {
    let encoder = model.hearing.speech.frames_fingerprint();
    let Some(recognizer) = recognizer else {
        return "no recognizer was given (eval.recognizer), so that nothing was read".to_owned();
    };
    let found = recognizer.frames_fingerprint();
    if !model.hearing.speech.is_kin_of(recognizer) {
        return format!("read by recognizer {found}; the units are of encoder {encoder}");
    }
    let note = format!(
        "read by the encoder that made the units ({encoder}), or one that was made from it: error rates say how well it finds \
         its own units again, not how well others understand"
    );
    tracing::warn!("eval.recognizer: {note}");
    note
}

/// What was found of the sentences of a cell.
#[derive(Default)]
struct Again {
    /// Sums of distances, and the cells that they are over.
    mel: Vec<Ratio>,
    mel_of_sound: Vec<Ratio>,
    /// What was read of the true sound and of that of the vocoder.
    read: Option<[Vec<String>; 2]>,
}

impl Again {
    fn new(
        model: &VocoderModel,
        recognizer: Option<&SpeechModel>,
        workshop: &Workshop,
        cell: &Cell,
    ) -> Result<Self, Error> {
        let spoken: Vec<Spoken> = cell.items.iter().map(|item| cell.spoken(item)).collect();
        let mut again = Self { read: recognizer.map(|_| Default::default()), ..Self::default() };
        for chunk in spoken.chunks(AT_ONCE) {
            let (mut truths, mut saids) = (Vec::new(), Vec::new());
            for (sound, spoken) in workshop.sounds(chunk)?.into_iter().zip(chunk) {
                let samples = sound.wave.samples;
                let unheard = |error| Error::Features { id: spoken.text().to_owned(), error };
                let units = model.hearing.units(&samples).map_err(unheard)?;
                let truth = whole_units(samples, units.len(), model.samples_per_unit());
                let said = model.say(&units).map_err(Box::new)?;
                let of_truth = model.stft().log_mel(&truth);
                again.mel.push(distance(&said.mels, &of_truth));
                again.mel_of_sound.push(distance(&model.stft().log_mel(&said.samples), &of_truth));
                truths.push(truth);
                saids.push(said.samples);
            }
            if let (Some(recognizer), Some(read)) = (recognizer, &mut again.read) {
                for (read, sounds) in read.iter_mut().zip([truths, saids]) {
                    let pieces: Vec<&[f32]> = sounds.iter().map(Vec::as_slice).collect();
                    read.extend(transcribe::ctc(recognizer, &pieces)?);
                }
            }
        }
        Ok(again)
    }

    fn add(&self, results: &mut Results, name: &str, cell: &Cell) {
        let boot = Bootstrap::default();
        let mean = |sum: &Ratio| if sum.1 > 0.0 { sum.0 / sum.1 } else { f64::NAN };
        for (metric, counts) in [(LOG_MEL, &self.mel), (LOG_MEL_OF_SOUND, &self.mel_of_sound)] {
            results.set(name, &cell.domain, metric, Metric::from(boot.interval(counts, mean)));
        }
        let Some([of_truth, of_said]) = &self.read else { return };
        let references: Vec<String> =
            cell.transcripts().iter().map(|text| normalize(text)).collect();
        for (suffix, read) in [("", of_said), (ORIGINAL, of_truth)] {
            let read: Vec<String> = read.iter().map(|text| normalize(text)).collect();
            for (metric, rate) in
                [("wer", score::wer(&references, &read)), ("cer", score::cer(&references, &read))]
            {
                let rate = rate.expect("a reading of every sentence").interval(&boot);
                results.set(name, &cell.domain, &format!("{metric}{suffix}"), Metric::from(rate));
            }
        }
    }

    /// What was read of each sentence; as answer of the cascade what was read of the true sound.
    fn predictions(&self, name: &str, cell: &Cell) -> Vec<Prediction> {
        let Some([of_truth, of_said]) = &self.read else { return Vec::new() };
        let read = of_truth.iter().zip(of_said);
        cell.items
            .iter()
            .zip(read)
            .map(|(item, (of_truth, of_said))| Prediction {
                id: item.id.clone(),
                task: name.to_owned(),
                domain: cell.domain.clone(),
                transcript: Some(item.spoken.clone()),
                reference: item.spoken.clone(),
                hypothesis: of_said.clone(),
                cascade_hypothesis: Some(of_truth.clone()),
                ..Prediction::default()
            })
            .collect()
    }
}

/// The sum of the distances of two lists, and how many there are.
fn distance(found: &[f32], expected: &[f32]) -> Ratio {
    let sum = found.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs())).sum();
    Ratio(sum, expected.len() as f64)
}
