//! The models that a recipe begins with: sizes from our model directories, from published ones, or as declared.

use std::path::PathBuf;

use sandhi_data::features::FeatureConfig;
use sandhi_nn::{encoder::EncoderConfig, transformer::TransformerConfig};
use serde::{Deserialize, de::IgnoredAny};

use super::{Checker, LARGEST_SIZE};
use crate::{
    checkpoint::Checkpoint,
    hf::{self, Hub, ModelSource, Want},
    recipe::BaseConfig,
};

/// A base model: its sizes, or what is declared of it.
pub(crate) enum Base<T> {
    Known(T),
    Declared { name: String, n_parameters: u64, width: usize, rate_hz: f64 },
}

/// A speech foundation model's sizes.
pub(crate) struct SpeechBase {
    pub(crate) features: FeatureConfig,
    pub(crate) encoder: EncoderConfig,
    pub(crate) n_mels: usize,
    /// Whether it has a CTC head, where that is known without its weights.
    pub(crate) has_ctc_head: Option<bool>,
}

/// A text foundation model's sizes.
pub(crate) struct TextBase {
    pub(crate) transformer: TransformerConfig,
    pub(crate) n_tokens: usize,
    /// Its tokenizer, where it is here.
    pub(crate) tokenizer: Option<PathBuf>,
}

impl Base<SpeechBase> {
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::Known(speech) => speech.encoder.d_encoder(),
            Self::Declared { width, .. } => *width,
        }
    }

    /// Encoder frames of an utterance, where they are known.
    pub(crate) fn frames(&self) -> Option<Frames> {
        match self {
            Self::Known(speech) => Some(Frames::new(&speech.features, &speech.encoder)),
            Self::Declared { rate_hz, .. } => {
                (*rate_hz > 0.0).then_some(Frames { a_second: *rate_hz, an_item: 0.0 })
            }
        }
    }
}

/// How many frames an encoder makes of an utterance: so many a second, and so many whatever its length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frames {
    pub(crate) a_second: f64,
    pub(crate) an_item: f64,
}

impl Frames {
    pub(crate) fn new(features: &FeatureConfig, encoder: &EncoderConfig) -> Self {
        let stride = encoder.stride() as f64;
        match features.padded_frames() {
            Some(n) => Self { a_second: 0.0, an_item: n as f64 / stride },
            None => Self { a_second: features.rate_hz() / stride, an_item: 0.0 },
        }
    }

    /// Those of an utterance of `duration_s`.
    pub(crate) fn of(self, duration_s: f64) -> f64 {
        duration_s * self.a_second + self.an_item
    }
}

impl Base<TextBase> {
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::Known(text) => text.transformer.d_model,
            Self::Declared { width, .. } => *width,
        }
    }
}

/// A published model.
pub(super) enum Published {
    /// In this directory.
    Here(PathBuf),
    /// Somewhere else, under this name, with this configuration.
    Known(String, serde_json::Value),
}

impl Checker<'_> {
    /// A base's description; all that is wrong with its directory is a problem.
    pub(super) fn base<P, T>(
        &mut self,
        place: &str,
        config: &BaseConfig<P>,
        directory: impl FnOnce(&mut Self, &str) -> Option<T>,
        published: impl FnOnce(&mut Self, &P) -> Option<T>,
    ) -> Option<Base<T>> {
        match config {
            BaseConfig::Declared { name, n_parameters, width, rate_hz, .. } => {
                self.at_least_one(place, "width", *width);
                self.need(
                    *width <= LARGEST_SIZE,
                    place,
                    format_args!("width is {width}, expected at most {LARGEST_SIZE}"),
                );
                self.need(
                    rate_hz.is_finite() && *rate_hz >= 0.0,
                    place,
                    format_args!("rate_hz is {rate_hz}, expected a number of at least 0"),
                );
                let (name, width, rate_hz) = (name.clone(), *width, *rate_hz);
                Some(Base::Declared { name, n_parameters: *n_parameters, width, rate_hz })
            }
            BaseConfig::Directory { path, .. } => directory(self, path).map(Base::Known),
            BaseConfig::HuggingFace(config) => published(self, config).map(Base::Known),
        }
    }

    /// Where a published model is, or what is known of it. Weights that are not here are missing.
    pub(super) fn published(&mut self, place: &str, path: &str) -> Option<Published> {
        let field = format!("{place}.path");
        let name = match path.parse() {
            Ok(ModelSource::Directory(_)) => return self.path(&field, path).map(Published::Here),
            Ok(ModelSource::Hub(name)) => name,
            Err(error) => {
                self.problem(&field, error);
                return None;
            }
        };
        let cached = Hub { offline: true, ..self.hub.clone() };
        if let Ok(snapshot) = cached.fetch(&name, Want::Model, &mut ()) {
            return Some(Published::Here(snapshot.dir));
        }
        self.missing
            .push(format!("{field}: {name} is not here, `sandhi download {name}` fetches it"));
        let known = hf::known::config(name.repository());
        let value = match known {
            Some(value) => value,
            None => {
                let snapshot = self.hub.fetch(&name, Want::Config, &mut ());
                let snapshot = self.right(place, snapshot)?;
                self.right(place, hf::read_json(&snapshot.dir.join("config.json")))?
            }
        };
        Some(Published::Known(name.to_string(), value))
    }

    /// What the model directory of a base says of itself.
    pub(super) fn directory(&mut self, place: &str, path: &str, expected: &str) -> Option<Spec> {
        let dir = self.path(&format!("{place}.path"), path)?;
        let spec = Checkpoint::open(&dir).and_then(|c| c.json::<Spec>("model.json"));
        let spec = self.right(place, spec)?;
        if spec.kind != expected {
            let (dir, found) = (dir.display(), spec.kind);
            self.problem(place, format_args!("{dir} holds a {found} model, expected {expected}"));
            return None;
        }
        Some(spec)
    }
}

/// The sizes that `model.json` of a model directory holds; what else is in it does not matter here.
#[derive(Debug, Deserialize)]
pub(super) struct Spec {
    kind: String,
    pub(super) speech: Option<SpeechSpec>,
    pub(super) text: Option<TextSpec>,
}

#[derive(Debug, Deserialize)]
pub(super) struct SpeechSpec {
    pub(super) features: FeatureConfig,
    pub(super) encoder: EncoderConfig,
    pub(super) ctc: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
pub(super) struct TextSpec {
    pub(super) transformer: TransformerConfig,
    pub(super) n_tokens: usize,
}
