//! A unit vocoder put together: what its units are, network and inverse transform; in memory and on disk.
//!
//! ```text
//! units ─ pieces with context ─ Vocoder ─ spectra ─ Synthesis ─ samples        10 s in memory, whatever the length
//!
//! samples ─ encoder ─ frames ─ nearest centers ─ units        how they were made, to measure by
//!
//! vocoder.safetensors; encoder.safetensors and units.npy of the quantizer
//! ```

use std::sync::Arc;

use burn::prelude::*;
use sandhi_data::{
    features::{FEATURE_SAMPLE_RATE_HZ, Stft},
    units::UnitsHeader,
};
use sandhi_nn::{
    init::Init,
    ragged::Offsets,
    transformer::Dropout,
    vocoder::{Vocoder, VocoderConfig},
    weights::host,
};
use serde::{Deserialize, Serialize};

use super::{
    Error, Hearing, SpeechModel,
    parts::{SPEC, SpeechSpec, get, put},
    speech_text::UNITS,
};
use crate::{
    checkpoint::{Checkpoint, CheckpointWriter, Dtype},
    hf::Hub,
    units::Kmeans,
};

const VOCODER: &str = "vocoder.safetensors";

/// Units that go through the network at once, beside their context: 10 s at 25 Hz.
const AT_ONCE: usize = 250;

/// Samples of a unit at 16 kHz, where that is a whole number.
pub fn samples_per_unit(rate_hz: f64) -> Option<usize> {
    let samples = f64::from(FEATURE_SAMPLE_RATE_HZ) / rate_hz;
    (samples >= 1.0 && samples.fract() == 0.0).then_some(samples as usize)
}

/// Units of speech back to sound.
#[derive(Debug, Clone)]
pub struct VocoderModel {
    /// Which units those are.
    pub units: UnitsHeader,
    /// The network's settings.
    pub config: VocoderConfig,
    /// The weights.
    pub net: Vocoder,
    /// What makes units of sound.
    pub hearing: Hearing,
    stft: Arc<Stft>,
}

/// What `model.json` says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VocoderSpec {
    vocoder: VocoderConfig,
    units: UnitsHeader,
    speech: SpeechSpec,
}

/// What is said of units.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Said {
    /// `[n_frames, n_mels]`: log-mel energies.
    pub mels: Vec<f32>,
    /// 16 kHz samples.
    pub samples: Vec<f32>,
}

impl VocoderModel {
    /// A model with random weights, for the units of an encoder.
    ///
    /// # Errors
    ///
    /// [`Error::UnitRate`] when a unit is no whole number of hops, [`Error::Features`] when frames cannot be taken back.
    pub fn init(config: VocoderConfig, hearing: Hearing, init: &Init) -> Result<Self, Error> {
        let units = hearing.header();
        let stft = Arc::new(Stft::new(config.hop, config.overlap, config.n_mels)?);
        let samples = samples_per_unit(units.rate_hz).filter(|n| n.is_multiple_of(config.hop));
        let (rate_hz, hop) = (units.rate_hz, config.hop);
        let samples = samples.ok_or(Error::UnitRate { rate_hz, hop })?;
        let net = config.init(units.n_units as usize, samples, init);
        Ok(Self { units, config, net, hearing, stft })
    }

    /// Samples of a unit, at 16 kHz.
    pub fn samples_per_unit(&self) -> usize {
        self.net.frames_per_unit() * self.config.hop
    }

    /// The transform that sound is made by.
    pub fn stft(&self) -> &Arc<Stft> {
        &self.stft
    }

    /// Says units, and gives their samples to `sink` as they are made. What is said does not depend on the pieces.
    ///
    /// # Errors
    ///
    /// [`Error::NoUnits`], [`Error::Unit`], and those of `sink`.
    pub fn speak<E: From<Error>>(
        &self,
        units: &[u32],
        mut sink: impl FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.in_pieces(units, AT_ONCE, |_, samples| sink(samples))
    }

    /// What is said of units, all of it.
    ///
    /// # Errors
    ///
    /// [`Error::NoUnits`], [`Error::Unit`].
    pub fn say(&self, units: &[u32]) -> Result<Said, Error> {
        let mut said = Said::default();
        self.in_pieces(units, AT_ONCE, |mels, samples| {
            said.mels.extend_from_slice(mels);
            said.samples.extend_from_slice(samples);
            Ok::<(), Error>(())
        })?;
        Ok(said)
    }

    /// Refuses what cannot be said.
    ///
    /// # Errors
    ///
    /// [`Error::NoUnits`], [`Error::Unit`].
    pub fn check(&self, units: &[u32]) -> Result<(), Error> {
        let n_units = self.units.n_units;
        match units.iter().position(|&unit| unit >= n_units) {
            Some(position) => Err(Error::Unit { unit: units[position], position, n_units }),
            None if units.is_empty() => Err(Error::NoUnits),
            None => Ok(()),
        }
    }

    /// Gives log-mel energies and samples of `at_once` units after another, and what is left of the samples at the end.
    fn in_pieces<E: From<Error>>(
        &self,
        units: &[u32],
        at_once: usize,
        mut sink: impl FnMut(&[f32], &[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.check(units)?;
        let (context, per_unit) = (self.net.context(), self.net.frames_per_unit());
        let mut synthesis = self.stft.synthesis();
        let mut samples = Vec::new();
        for start in (0..units.len()).step_by(at_once) {
            let end = (start + at_once).min(units.len());
            let (from, to) = (start.saturating_sub(context), (end + context).min(units.len()));
            let offsets = Offsets::from_lengths(&[to - from]);
            let frames = self.net.forward(&units[from..to], &offsets, Dropout::OFF);
            let (first, n) = ((start - from) * per_unit, (end - start) * per_unit);
            let spectra = host(frames.spectra.narrow(0, first, n));
            synthesis.push(&spectra, &mut samples);
            sink(&host(frames.mels.narrow(0, first, n)), &samples)?;
            samples.clear();
        }
        synthesis.finish(&mut samples);
        sink(&[], &samples)
    }

    pub(super) fn write(
        &self,
        writer: &mut CheckpointWriter,
        dtype: Dtype,
        whole: bool,
    ) -> Result<VocoderSpec, Error> {
        put(writer, VOCODER, &self.net, dtype)?;
        self.hearing.speech.write(writer, dtype, whole)?;
        writer.bytes(UNITS, &self.hearing.centers.to_npy())?;
        Ok(VocoderSpec {
            vocoder: self.config.clone(),
            units: self.units.clone(),
            speech: self.hearing.speech.spec(whole),
        })
    }

    pub(super) fn read(
        checkpoint: &Checkpoint,
        spec: VocoderSpec,
        device: &Device,
        hub: &Hub,
    ) -> Result<Self, Error> {
        let wrong = |message| Error::Spec { path: checkpoint.dir().join(SPEC), message };
        let VocoderSpec { vocoder, units, speech } = spec;
        let problems = vocoder.problems(samples_per_unit(units.rate_hz));
        if let Some(problem) = problems.into_iter().next() {
            return Err(wrong(format!("vocoder: {problem}")));
        }
        let speech = SpeechModel::read(checkpoint, speech, device, hub)?;
        let path = checkpoint.dir().join(UNITS);
        let centers = Kmeans::parse(&checkpoint.bytes(UNITS)?, &path)?;
        if centers.width() != speech.d_encoder() {
            return Err(wrong(format!("{UNITS} is of frames of another width")));
        }
        let model = Self::init(vocoder, Hearing { speech, centers }, &Init::blank(device))?;
        if model.units != units {
            return Err(wrong(format!(
                "units.quantizer is {}, the encoder and {UNITS} are {}",
                units.quantizer, model.units.quantizer
            )));
        }
        Ok(Self { net: get(checkpoint, VOCODER, model.net)?, ..model })
    }
}

#[cfg(test)]
mod tests {
    use sandhi_data::{rng::Stream, text::Characters};
    use sandhi_nn::{encoder::CtcHeadConfig, ragged::Ragged, vocoder::Frames};

    use super::*;
    use crate::npy;

    /// Ten units of a tiny encoder at 25 Hz.
    fn model() -> VocoderModel {
        let encoder = serde_json::json!({
            "kind": "conformer", "d_model": 4, "n_layers": 1, "n_heads": 2, "d_ff": 4, "kernel": 3,
        });
        let init = Init::new(1, &Device::flex());
        let speech = SpeechModel::init(
            serde_json::from_str(r#"{"kind": "whisper", "n_mels": 4}"#).unwrap(),
            serde_json::from_value(encoder).unwrap(),
            CtcHeadConfig { steps_per_frame: 1 },
            Characters::from_texts(["a"]),
            &init,
        )
        .unwrap();
        let centers: Vec<f32> = (0..40).map(|i| (i % 7) as f32).collect();
        let centers = Kmeans::parse(&npy::to_bytes(&[10, 4], &centers), "a.npy".as_ref()).unwrap();
        let config = serde_json::from_value(serde_json::json!({
            "d_model": 8, "d_ff": 12, "unit_layers": 2, "frame_layers": 3, "kernel": 5, "hop": 64, "n_mels": 6,
        }));
        VocoderModel::init(config.unwrap(), Hearing { speech, centers }, &init).unwrap()
    }

    fn units(n: usize) -> Vec<u32> {
        let mut stream = Stream::named(3, "units");
        (0..n).map(|_| stream.below(10) as u32).collect()
    }

    #[test]
    fn pieces_are_the_whole_to_the_last_bit() {
        let model = model();
        assert_eq!((model.samples_per_unit(), model.net.frames_per_unit()), (640, 10));
        let units = units(61);
        let said = |at_once: usize| {
            let (mut mels, mut samples, mut n_pieces) = (Vec::new(), Vec::new(), 0);
            let sink = |m: &[f32], s: &[f32]| {
                mels.extend_from_slice(m);
                samples.extend_from_slice(s);
                n_pieces += 1;
                Ok::<(), Error>(())
            };
            model.in_pieces(&units, at_once, sink).unwrap();
            (mels, samples, n_pieces)
        };
        let (mels, samples, n_pieces) = said(1_000);
        assert_eq!((mels.len(), samples.len(), n_pieces), (61 * 10 * 6, 61 * 640, 2));
        assert!(samples.iter().any(|x| x.abs() > 1e-3));
        for at_once in [1, 7, 60, 61] {
            let (of_mels, of_samples, _) = said(at_once);
            assert!(of_mels == mels && of_samples == samples, "{at_once} at once");
        }
        // With a unit less of context it would not be so: the last test would not notice.
        let short = model.net.context() - 1;
        let part = |from: usize| {
            let offsets = Offsets::from_lengths(&[61 - from]);
            host(model.net.forward(&units[from..], &offsets, Dropout::OFF).mels)
        };
        let of_30 = |from: usize| part(from)[(30 - from) * 60..][..60].to_vec();
        assert_eq!(of_30(30 - model.net.context()), mels[30 * 60..][..60]);
        assert_ne!(of_30(30 - short), mels[30 * 60..][..60]);
    }

    /// The product with a fixed matrix, and the inverse transform of the host: noise comes back from its spectra.
    #[test]
    fn both_inverse_transforms_give_the_sound_back() {
        let model = model();
        let mut stream = Stream::named(1, "noise");
        let samples: Vec<f32> = (0..64 * 23).map(|_| 0.2 * stream.normal() as f32).collect();
        let lengths = [64 * 9, 64 * 14];
        let (first, second) = samples.split_at(lengths[0]);
        let spectra = [model.stft.spectra(first), model.stft.spectra(second)].concat();
        let width = 2 * model.stft.n_bins();
        let data = TensorData::new(spectra.clone(), [23, width]);
        let frames = Frames {
            mels: Tensor::zeros([23, 6], &Device::flex()),
            spectra: Tensor::from_data(data, &Device::flex()),
            offsets: Offsets::from_lengths(&[9, 14]),
        };
        let Ragged { values, offsets } = model.net.sound(&frames);
        assert_eq!(offsets.lengths(), lengths);
        let mut on_host = Vec::new();
        for spectra in [&spectra[..9 * width], &spectra[9 * width..]] {
            let mut synthesis = model.stft.synthesis();
            synthesis.push(spectra, &mut on_host);
            synthesis.finish(&mut on_host);
        }
        for ((product, host), truth) in host(values).iter().zip(&on_host).zip(&samples) {
            assert!((product - truth).abs() < 1e-4, "{product} {truth}");
            assert!((product - host).abs() < 1e-4, "{product} {host}");
        }
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let model = model();
        let error = |units: &[u32]| model.say(units).unwrap_err().to_string();
        assert!(error(&[]).contains("found no units"));
        let error = error(&[3, 9, 10]);
        assert!(error.contains("unit 10 at 2") && error.contains("below 10"), "{error}");
        assert_eq!(model.say(&[9]).unwrap().samples.len(), 640);
        let config = VocoderConfig { hop: 150, ..model.config.clone() };
        let error = VocoderModel::init(config, model.hearing, &Init::blank(&Device::flex()));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("25 Hz") && error.contains("150 samples"), "{error}");
        assert_eq!(
            [25.0, 50.0, 30.0, 0.0].map(samples_per_unit),
            [Some(640), Some(320), None, None]
        );
    }
}
