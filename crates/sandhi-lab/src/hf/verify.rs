//! Proof that what was loaded computes what its authors' code computes.
//!
//! A reference is a safetensors file that `tools/reference.py` writes with `transformers`:
//!
//! ```text
//! input_ids [n_sequences, n]                   ┐                 ┌ logits [n_sequences, n, n_tokens]
//! attention_mask [n_sequences, n], if padded   ├─ the model ─────┼ last_hidden_state [n_sequences, n, width]
//! input_features [n_utterances, n_mels, n]     │                 │
//! input_values [n_utterances, n_samples]       ┘                 └
//! ```

use std::path::Path;

use burn::{prelude::*, tensor::TensorData};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sandhi_nn::{
    encoder::{EncoderConfig, wav2vec2::ConvolutionNorm},
    ragged::{Offsets, Ragged},
    transformer::Dropout,
    weights::host,
};
use serde::Serialize;

use super::{
    Error, Family, LanguageModel, SpeechEncoder, config::Fields, read_json, shards::map, speech,
};

/// How far an output is from the reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputDifference {
    /// `logits` or `last_hidden_state`.
    pub output: &'static str,
    /// The largest absolute difference.
    pub largest: f64,
    /// The mean absolute difference.
    pub mean: f64,
    /// The largest absolute value of the reference.
    pub scale: f64,
    /// Values compared; those of padding are not.
    pub n_values: usize,
}

/// Runs the model of a directory on the inputs of a reference and compares every output that it has.
///
/// # Errors
///
/// See [`Error`]; [`Error::Tensors`] for a reference that lacks what the model takes in, or every output.
pub fn verify(
    dir: &Path,
    reference: &Path,
    device: &Device,
) -> Result<Vec<OutputDifference>, Error> {
    let path = dir.join("config.json");
    let config = read_json(&path)?;
    let bytes = map(reference)?;
    let wrong = |message: String| Error::Tensors { path: reference.to_owned(), message };
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|error| wrong(format!("not a safetensors file: {error}")))?;
    let reference = Reference { path: reference, tensors };
    let fields = Fields::new(&path, &config)?;
    let kind = fields.text("model_type")?.unwrap_or("missing");
    if Family::ALL.iter().any(|(name, _)| *name == kind) {
        language_model(&LanguageModel::load(dir, device)?, &reference)
    } else if speech::FAMILIES.contains(&kind) {
        speech_encoder(&SpeechEncoder::load(dir, device)?, &reference)
    } else {
        let known: Vec<&str> =
            Family::ALL.iter().map(|(name, _)| *name).chain(speech::FAMILIES).collect();
        Err(fields.error(format_args!(
            "model_type is {kind:?}, models that can be verified are {}",
            known.join(", ")
        )))
    }
}

fn language_model(
    model: &LanguageModel,
    reference: &Reference,
) -> Result<Vec<OutputDifference>, Error> {
    let ([n_sequences, n], ids) = reference.whole_numbers("input_ids")?;
    let n_tokens = model.config.n_tokens;
    let unknown = |id: &&i64| usize::try_from(**id).map_or(true, |id| id >= n_tokens);
    if let Some(id) = ids.iter().find(unknown) {
        return Err(reference.error(format!("input_ids has {id}, the model has {n_tokens} tokens")));
    }
    let lengths = match reference.find("attention_mask") {
        None => vec![n; n_sequences],
        Some(_) => reference.lengths("input_ids", [n_sequences, n])?,
    };
    let ids: Vec<u32> = ids
        .chunks(n.max(1))
        .zip(&lengths)
        .flat_map(|(ids, &length)| ids[..length].iter().map(|&id| id as u32))
        .collect();
    let input = Ragged { values: model.lm.embed(&ids), offsets: Offsets::from_lengths(&lengths) };
    let hidden = model.lm.forward(&input, &[], Dropout::OFF).last;
    reference.compare(n_sequences, n, &lengths, |output| {
        let logits = output == LOGITS;
        let rows = if logits { model.lm.logits(hidden.clone()) } else { hidden.clone() };
        Ok(Found::all(rows))
    })
}

fn speech_encoder(
    model: &SpeechEncoder,
    reference: &Reference,
) -> Result<Vec<OutputDifference>, Error> {
    let device = model.encoder.devices().into_iter().next().expect("an encoder has parameters");
    let (input, n) = match &model.config.encoder {
        EncoderConfig::Wav2vec2(config) => {
            waveforms(reference, config.conv_norm == ConvolutionNorm::Layer, &device)?
        }
        _ => spectra(model, reference, &device)?,
    };
    let n_frames = model.config.encoder.length(n).bound();
    let hidden = model.encoder.forward(&input, Dropout::OFF);
    let lengths = hidden.offsets.lengths();
    if lengths.contains(&0) {
        return Err(reference.error("an utterance is shorter than what one frame hears".into()));
    }
    reference.compare(lengths.len(), n_frames, &lengths, |output| match &model.ctc {
        _ if output == LAST_HIDDEN_STATE => Ok(Found::all(hidden.values.clone())),
        None => Err(reference.error(format!("there are {LOGITS}, but the model has no CTC head"))),
        Some(ctc) => Ok(Found {
            columns: ctc.columns.clone(),
            n_columns: ctc.n_outputs,
            ..Found::all(ctc.head.forward(&hidden).values)
        }),
    })
}

/// The samples of a reference, and how many there are of each utterance, padding included. Group norm takes padding
/// for silence, so there a reference must have none.
fn waveforms(
    reference: &Reference,
    padded: bool,
    device: &Device,
) -> Result<(Ragged, usize), Error> {
    let (shape, values) = reference.values("input_values")?;
    let [n_utterances, n] = shape[..] else {
        return Err(reference.error(format!(
            "input_values has shape {shape:?}, expected [n_utterances, n_samples]"
        )));
    };
    if n_utterances == 0 || n == 0 {
        return Err(reference.error(format!("input_values has shape {shape:?} and nothing in it")));
    }
    let lengths = match reference.find("attention_mask") {
        None => vec![n; n_utterances],
        Some(_) => reference.lengths("input_values", [n_utterances, n])?,
    };
    if !padded && lengths.iter().any(|&length| length < n) {
        return Err(reference.error(
            "attention_mask has zeros, but a model with group norm hears padding as silence; \
             give it utterances of one length"
                .into(),
        ));
    }
    let rows: Vec<f32> = values
        .chunks(n)
        .zip(&lengths)
        .flat_map(|(samples, &length)| &samples[..length])
        .copied()
        .collect();
    let values = Tensor::from_data(TensorData::new(rows, [lengths.iter().sum(), 1]), device);
    Ok((Ragged { values, offsets: Offsets::from_lengths(&lengths) }, n))
}

/// The spectra of a reference, and how many frames there are of each utterance.
fn spectra(
    model: &SpeechEncoder,
    reference: &Reference,
    device: &Device,
) -> Result<(Ragged, usize), Error> {
    let (shape, values) = reference.values("input_features")?;
    let [n_utterances, n_mels, n] = shape[..] else {
        return Err(reference.error(format!(
            "input_features has shape {shape:?}, expected [n_utterances, n_mels, n_frames]"
        )));
    };
    let longest = model.config.encoder.max_feature_frames().unwrap_or(usize::MAX);
    if n_utterances == 0 || n_mels != model.config.n_mels || n == 0 || n > longest {
        return Err(reference.error(format!(
            "input_features has shape {shape:?}, the model takes {} mels and at most {longest} frames",
            model.config.n_mels
        )));
    }
    // Frame after frame, as everything here has it.
    let rows: Vec<f32> = values
        .chunks(n_mels * n)
        .flat_map(|utterance| {
            (0..n).flat_map(move |frame| (0..n_mels).map(move |mel| utterance[mel * n + frame]))
        })
        .collect();
    let values = Tensor::from_data(TensorData::new(rows, [n_utterances * n, n_mels]), device);
    Ok((Ragged { values, offsets: Offsets::from_lengths(&vec![n; n_utterances]) }, n))
}

const LOGITS: &str = "logits";
const LAST_HIDDEN_STATE: &str = "last_hidden_state";

/// What the model gives, packed row after row.
struct Found {
    values: Vec<f32>,
    /// Which columns of the reference these are.
    columns: Vec<usize>,
    /// How many the reference has.
    n_columns: usize,
}

impl Found {
    fn all(rows: Tensor<2>) -> Self {
        let [_, width] = rows.dims();
        Self { values: host(rows), columns: (0..width).collect(), n_columns: width }
    }
}

struct Reference<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
}

impl Reference<'_> {
    fn error(&self, message: String) -> Error {
        Error::Tensors { path: self.path.to_owned(), message }
    }

    fn find(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.tensor(name).ok()
    }

    fn need(&self, name: &str) -> Result<TensorView<'_>, Error> {
        self.find(name).ok_or_else(|| {
            let mut names = self.tensors.names();
            names.sort_unstable();
            self.error(format!("there is no {name}; there are {}", names.join(", ")))
        })
    }

    fn values(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), Error> {
        let view = self.need(name)?;
        let values = crate::checkpoint::values(view.data(), view.dtype()).ok_or_else(|| {
            self.error(format!("{name} is of type {:?}, expected F32, F16 or BF16", view.dtype()))
        })?;
        // Infinite is what half precision makes of large values.
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(self.error(format!("{name} has {value}, expected finite numbers")));
        }
        Ok((view.shape().to_vec(), values))
    }

    fn whole_numbers(&self, name: &str) -> Result<([usize; 2], Vec<i64>), Error> {
        let view = self.need(name)?;
        let values = match view.dtype() {
            Dtype::I64 => {
                view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
            }
            Dtype::I32 => {
                let found = view.data().as_chunks::<4>().0.iter();
                found.map(|b| i64::from(i32::from_le_bytes(*b))).collect()
            }
            other => {
                return Err(self.error(format!("{name} is of type {other:?}, expected I64 or I32")));
            }
        };
        match *view.shape() {
            [n_sequences, n] if n_sequences > 0 && n > 0 => Ok(([n_sequences, n], values)),
            _ => Err(self
                .error(format!("{name} has shape {:?}, expected [n_sequences, n]", view.shape()))),
        }
    }

    /// How many tokens or samples of each sequence are no padding, which must stand at the end.
    fn lengths(&self, input: &str, shape: [usize; 2]) -> Result<Vec<usize>, Error> {
        let (found, mask) = self.whole_numbers("attention_mask")?;
        if found != shape {
            return Err(
                self.error(format!("attention_mask has shape {found:?}, {input} has {shape:?}"))
            );
        }
        mask.chunks(shape[1])
            .enumerate()
            .map(|(i, mask)| {
                let length = mask.iter().take_while(|&&one| one == 1).count();
                if length == 0 || mask[length..].iter().any(|&one| one != 0) {
                    return Err(self.error(format!(
                        "attention_mask of sequence {i} is not ones and then zeros; pad on the right"
                    )));
                }
                Ok(length)
            })
            .collect()
    }

    /// Compares `found(output)`, packed rows, with each output of `n_sequences` of `n` rows that is there.
    fn compare(
        &self,
        n_sequences: usize,
        n: usize,
        lengths: &[usize],
        found: impl Fn(&str) -> Result<Found, Error>,
    ) -> Result<Vec<OutputDifference>, Error> {
        let mut differences = Vec::new();
        for output in [LOGITS, LAST_HIDDEN_STATE] {
            if self.find(output).is_none() {
                continue;
            }
            let (shape, expected) = self.values(output)?;
            let Found { values: found, columns, n_columns: width } = found(output)?;
            if shape != [n_sequences, n, width] {
                return Err(self.error(format!(
                    "{output} has shape {shape:?}, the model gives {:?}",
                    [n_sequences, n, width]
                )));
            }
            let expected = expected
                .chunks(n * width)
                .zip(lengths)
                .flat_map(|(sequence, &length)| sequence[..length * width].chunks(width))
                .flat_map(|row| columns.iter().map(|&column| &row[column]));
            let (mut largest, mut sum, mut scale) = (0.0_f64, 0.0, 0.0_f64);
            for (found, expected) in found.iter().zip(expected) {
                let difference = (f64::from(*found) - f64::from(*expected)).abs();
                // What is not a number differs from everything.
                largest = if difference.is_nan() { f64::INFINITY } else { largest.max(difference) };
                sum += difference;
                scale = scale.max(f64::from(expected.abs()));
            }
            let n_values = found.len();
            let mean = sum / n_values as f64;
            differences.push(OutputDifference { output, largest, mean, scale, n_values });
        }
        if differences.is_empty() {
            return Err(self.error(format!("there is neither {LOGITS} nor {LAST_HIDDEN_STATE}")));
        }
        Ok(differences)
    }
}
