//! The model of a recipe: sizes that are possible and fit each other.

use std::path::{Path, PathBuf};

use sandhi_data::{
    features::{FeatureConfig, FeatureExtractor},
    patching::{Closure, PatchingConfig},
    text::{self, JointVocabulary, Tokenizer},
};
use sandhi_nn::{
    aligner::Softmax, connector::Widths, encoder::EncoderConfig, lora::LoraConfig,
    transformer::TransformerConfig, weights::WeightType,
};

use super::{
    Base, Checker, SpeechBase, TextBase,
    bases::{Published, TextSpec},
};
use crate::{
    chat::MARKERS,
    hf::{self, LanguageModelConfig},
    model::{Segmenter, samples_per_unit},
    recipe::{
        AlignerModelConfig, BaseConfig, ConnectorModelConfig, Form, ModelConfig, NetworkConfig,
        PadMass, PublishedEncoder, PublishedLanguageModel, SourceConfig, SpeechTextModelConfig,
        SpeechUnitsConfig, TransportConfig, UnitsConfig, VocoderModelConfig,
    },
    units::Kmeans,
};

/// Samples of a frame at most, whose transform is a matrix: a quarter of a second.
const LONGEST_FRAME: usize = 4_096;

impl Checker<'_> {
    pub(super) fn model(&mut self) -> (Option<Base<SpeechBase>>, Option<Base<TextBase>>) {
        let recipe = self.recipe;
        match &recipe.model {
            ModelConfig::Text(config) => {
                let lm = &config.language_model;
                self.transformer("model.language_model", lm);
                let place = "model.tokenizer";
                let needed = 256 + MARKERS.len();
                let found = config.tokenizer.vocab_size;
                let wrong = text::Error::VocabularyTooSmall { needed, found };
                self.need(found >= needed, place, format_args!("vocab_size: {wrong}"));
                self.sane(place, 0, &[found]);
                self.counts(place, "n_documents", config.tokenizer.n_documents);
                self.lora(config.lora.as_ref());
                (None, None)
            }
            ModelConfig::Ctc(config) => {
                self.features("model.features", &config.features);
                self.encoder("model.encoder", &config.encoder);
                self.hears("model.encoder", &config.encoder, &config.features);
                let steps = config.ctc.steps_per_frame;
                self.at_least_one("model.ctc", "steps_per_frame", steps);
                self.sane("model.ctc", 0, &[steps]);
                (None, None)
            }
            ModelConfig::Connector(config) => self.connector(config),
            ModelConfig::Aligner(config) => {
                self.aligner(config);
                (None, None)
            }
            ModelConfig::SpeechText(config) => self.speech_text(config),
            ModelConfig::Vocoder(config) => (self.vocoder(config), None),
        }
    }

    fn aligner(&mut self, config: &AlignerModelConfig) {
        let n_mels = self.features("model.features", &config.features);
        self.need(
            !matches!(config.features, FeatureConfig::Waveform(_)),
            "model.features",
            "an aligner takes spectra, not \"waveform\"",
        );
        self.need(
            config.features.padded_frames().is_none(),
            "model.features",
            "pad_to_30_s would align silence; leave it out",
        );
        for problem in config.window.problems() {
            self.problem("model.window", problem);
        }
        for problem in config.aligner.problems() {
            self.problem("model.aligner", problem);
        }
        let aligner = &config.aligner;
        self.sane("model.aligner", aligner.n_layers, &[aligner.d_model, aligner.kernel]);
        let place = "model.units";
        match &config.units {
            None => self.need(
                aligner.softmax != Softmax::Units,
                place,
                "softmax = \"units\" is over units, and there are none",
            ),
            Some(UnitsConfig::Fit { n, n_frames, iterations }) => {
                self.fit(place, *n, *n_frames, *iterations);
            }
            Some(UnitsConfig::File { path, n }) => {
                let Some((path, kmeans)) = self.centers(place, path, *n) else { return };
                let width = config.window.width(n_mels.unwrap_or(0));
                self.need(
                    n_mels.is_none() || kmeans.width() == width,
                    place,
                    format_args!(
                        "{} has centers of width {}, frames are {width} wide",
                        path.display(),
                        kmeans.width()
                    ),
                );
            }
        }
    }

    fn speech_text(
        &mut self,
        config: &SpeechTextModelConfig,
    ) -> (Option<Base<SpeechBase>>, Option<Base<TextBase>>) {
        self.need(
            config.tokenizer.is_some() != config.language_model.is_some(),
            "model",
            match config.tokenizer {
                Some(_) => {
                    "tokenizer is given beside language_model, which has its own; leave one out"
                }
                None => "tokenizer is missing; expected it, or a language_model that has one",
            },
        );
        self.need(
            config.edges.is_none() || config.language_model.is_some(),
            "model.edges",
            "are tokens of a language_model, and there is none",
        );
        if let Some(tokenizer) = &config.tokenizer {
            let needed = 256 + 1;
            let found = tokenizer.vocab_size;
            let wrong = text::Error::VocabularyTooSmall { needed, found };
            self.need(found >= needed, "model.tokenizer", format_args!("vocab_size: {wrong}"));
            self.sane("model.tokenizer", 0, &[found]);
            self.counts("model.tokenizer", "n_documents", tokenizer.n_documents);
        }
        if let Some(found) = config.unit_merges {
            self.need(
                (1..=1_000_000).contains(&found),
                "model",
                format_args!(
                    "unit_merges is {found}, expected 1 to 1000000; none where it is left out"
                ),
            );
        }
        let place = "model.network";
        match &config.network {
            NetworkConfig::Plain(network) => self.transformer(place, network),
            NetworkConfig::Patch(network) => {
                for problem in network.problems() {
                    self.problem(place, problem);
                }
                let of_tokens = network.encoder.n_layers.max(network.decoder.n_layers);
                let widths = [network.d_local, network.d_global(), network.gathered_width()];
                self.sane(place, of_tokens.max(network.n_global_layers()), &widths);
                if let Some(text) = &network.text {
                    let sizes = [text.d_ff, text.n_heads, text.head_width()];
                    self.sane(place, text.n_layers, &sizes);
                }
            }
        }
        let place = "model.patching";
        match (&config.patching, config.network.wants_patching()) {
            (None, true) => self.problem(place, "is missing; where patches end is not learned"),
            (Some(_), false) => self.problem(
                place,
                "is given, and the network has no patches or learns where they end",
            ),
            (patching, _) => {
                for problem in patching.iter().flat_map(PatchingConfig::problems) {
                    self.problem(place, problem);
                }
            }
        }
        self.need(
            config.unit_merges.is_none()
                || !matches!(config.patching, Some(PatchingConfig::Entropy(_))),
            place,
            "entropies are of units; leave out unit_merges",
        );
        let learned = match config.patching {
            Some(PatchingConfig::Entropy(_)) => Some(place),
            _ => config.unit_merges.map(|_| "model.unit_merges"),
        };
        let has_units = |source: &SourceConfig| match source {
            SourceConfig::Units(_) => true,
            SourceConfig::Stories(stories) => stories.form != Form::Written,
            _ => false,
        };
        if let (Some(place), Some(stage)) = (learned, self.recipe.stages.first()) {
            self.need(
                stage.sources.iter().any(has_units),
                place,
                "is learned from the units of the first stage, and that has none",
            );
        }
        let is_told = matches!(config.patching, Some(PatchingConfig::Aligned(_)));
        self.need(
            !is_told || self.recipe.oracle,
            place,
            "aligned patches need an aligner in use; the recipe has to say oracle = true",
        );
        self.need(
            config.closure == Closure::Causal || config.network.wants_patching(),
            "model.closure",
            "is for patches that are given",
        );
        self.need(
            (8..=1_000_000).contains(&config.context),
            "model",
            format_args!("context is {}, expected 8 to 1000000 tokens", config.context),
        );
        let encoder = self.units(&config.units);
        let text = config.language_model.as_ref().and_then(|base| self.begins_as(base, config));
        (encoder, text)
    }

    /// The language model that a network over text and units begins as.
    fn begins_as(
        &mut self,
        base: &BaseConfig<PublishedLanguageModel>,
        config: &SpeechTextModelConfig,
    ) -> Option<Base<TextBase>> {
        let place = "model.language_model";
        self.need(
            base.dtype() == WeightType::F32,
            place,
            format_args!(
                "dtype is {}, what is trained on is f32; leave it out",
                base.dtype().name()
            ),
        );
        let text = self.text_base(place, base)?;
        let Base::Known(found) = &text else {
            self.problem(place, "is declared, expected one whose weights the network begins with");
            return None;
        };
        let place = match &config.network {
            NetworkConfig::Plain(_) => "model.network",
            NetworkConfig::Patch(_) => "model.network.text",
        };
        let sizes = inline(&found.transformer);
        match config.network.text() {
            None => self.problem(
                place,
                format_args!("is missing, the language model goes there; expected {sizes}"),
            ),
            Some(network) => self.need(
                network.computes_as(&found.transformer),
                place,
                format_args!("has other settings than the language model; expected {sizes}"),
            ),
        }
        if let Some(path) = &found.tokenizer
            && let Some(tokenizer) = self.right("model.language_model", Tokenizer::load(path))
        {
            self.vocabulary(&tokenizer, config);
        }
        Some(text)
    }

    /// Whether a tokenizer takes markers and units.
    fn vocabulary(&mut self, tokenizer: &Tokenizer, config: &SpeechTextModelConfig) {
        let place = "model.language_model";
        for name in config.edges.iter().flatten() {
            self.right("model.edges", tokenizer.special_id(name));
        }
        let units = match &config.units {
            SpeechUnitsConfig::Files { n } => Some(*n),
            SpeechUnitsConfig::Encoder { centers: UnitsConfig::Fit { n, .. }, .. } => {
                u32::try_from(*n).ok()
            }
            SpeechUnitsConfig::Encoder { centers: UnitsConfig::File { n, .. }, .. } => {
                n.and_then(|n| u32::try_from(n).ok())
            }
        };
        let Some(n) = units else { return };
        let n_symbols = n.saturating_add(config.unit_merges.unwrap_or(0));
        // Any special token of it does: which ones documents have is known with its prompts.
        let Some(edge) = tokenizer.special_ids().keys().next().cloned() else {
            self.problem(place, "its tokenizer has no special token, expected those of documents");
            return;
        };
        match JointVocabulary::extend(tokenizer, &edge, &edge, n_symbols) {
            Err(text::Error::TwoSymbols(_)) | Ok(_) => {}
            Err(error) => self.problem(place, error),
        }
    }

    fn vocoder(&mut self, config: &VocoderModelConfig) -> Option<Base<SpeechBase>> {
        let base = self.units(&config.units);
        self.need(
            matches!(config.units, SpeechUnitsConfig::Encoder { .. }),
            "model.units",
            "from is \"files\", expected \"encoder\": a vocoder learns from sound and its units together",
        );
        self.need(
            config.crop_s.is_finite() && config.crop_s > 0.0 && config.crop_s <= 60.0,
            "model",
            format_args!("crop_s is {}, expected above 0 to 60 seconds", config.crop_s),
        );
        let frames = base.as_ref().and_then(Base::<SpeechBase>::frames);
        let place = "model.units.encoder";
        if frames.is_some_and(|frames| frames.an_item > 0.0) {
            self.problem(
                place,
                "pads what it hears to 30 s, so that units do not say how long it is",
            );
        }
        let a_second = frames.map(|frames| frames.a_second).filter(|&rate_hz| rate_hz > 0.0);
        let samples_per_unit = a_second.and_then(samples_per_unit);
        self.need(
            a_second.is_none() || samples_per_unit.is_some(),
            place,
            format_args!(
                "gives {} frames a second, expected a whole number of 16 kHz samples in each",
                a_second.unwrap_or(0.0)
            ),
        );
        let vocoder = &config.vocoder;
        for problem in vocoder.problems(samples_per_unit) {
            self.problem("model.vocoder", problem);
        }
        let n_layers = vocoder.unit_layers.saturating_add(vocoder.frame_layers);
        let n_fft = vocoder.hop.saturating_mul(vocoder.overlap);
        self.sane("model.vocoder", n_layers, &[vocoder.d_model, vocoder.d_ff, vocoder.kernel]);
        self.need(
            n_fft <= LONGEST_FRAME,
            "model.vocoder",
            format_args!("a frame has {n_fft} samples, expected at most {LONGEST_FRAME}"),
        );
        base
    }

    /// What units are the units of.
    fn units(&mut self, config: &SpeechUnitsConfig) -> Option<Base<SpeechBase>> {
        match config {
            SpeechUnitsConfig::Files { n } => {
                self.counts("model.units", "n", *n as usize);
                None
            }
            SpeechUnitsConfig::Encoder { encoder, centers } => {
                let base = self.speech_base("model.units.encoder", encoder);
                let place = "model.units.centers";
                match centers {
                    UnitsConfig::Fit { n, n_frames, iterations } => {
                        self.fit(place, *n, *n_frames, *iterations);
                    }
                    UnitsConfig::File { path, n } => {
                        let found = self.centers(place, path, *n);
                        if let (Some((_, kmeans)), Some(base)) = (found, &base) {
                            let (found, expected) = (kmeans.width(), base.width());
                            self.need(
                                found == expected,
                                place,
                                format_args!(
                                    "centers of width {found}, frames are {expected} wide"
                                ),
                            );
                        }
                    }
                }
                base
            }
        }
    }

    /// Centers of a file, and where it is.
    fn centers(&mut self, place: &str, path: &str, n: Option<usize>) -> Option<(PathBuf, Kmeans)> {
        if let Some(n) = n {
            self.counts(place, "n", n);
        }
        let path = self.path(&format!("{place}.path"), path)?;
        let kmeans = self.right(place, Kmeans::read(&path))?;
        let found = kmeans.n_clusters();
        self.need(
            n.is_none_or(|n| n == found),
            place,
            format_args!("n is {}, {} has {found}", n.unwrap_or(0), path.display()),
        );
        Some((path, kmeans))
    }

    /// How units are fitted.
    fn fit(&mut self, place: &str, n: usize, n_frames: usize, iterations: usize) {
        self.counts(place, "n", n);
        self.counts(place, "iterations", iterations);
        self.counts(place, "n_frames", n_frames);
        self.need(
            n_frames >= n,
            place,
            format_args!("n_frames is {n_frames}, expected one for each of {n} units at least"),
        );
    }

    fn lora(&mut self, config: Option<&LoraConfig>) {
        let Some(config) = config else { return };
        for problem in config.problems() {
            self.problem("model.lora", problem);
        }
        self.sane("model.lora", 0, &[config.rank]);
    }

    fn transformer(&mut self, place: &str, config: &TransformerConfig) {
        for problem in config.problems() {
            self.problem(place, problem);
        }
        let sizes = [config.d_model, config.d_ff, config.n_heads, config.head_width()];
        self.sane(place, config.n_layers, &sizes);
    }

    fn encoder(&mut self, place: &str, config: &EncoderConfig) {
        for problem in config.problems() {
            self.problem(place, problem);
        }
        match config {
            EncoderConfig::Conformer(c) => {
                self.at_least_one(place, "d_model", c.d_model);
                self.sane(place, c.n_layers, &[c.d_model, c.d_ff, c.kernel]);
            }
            EncoderConfig::Whisper(c) => {
                self.sane(place, c.n_layers, &[c.d_model, c.d_ff, c.max_frames]);
            }
            EncoderConfig::Wav2vec2(c) => {
                let lists = [&c.conv_dims, &c.conv_kernels, &c.conv_strides];
                let n_buckets = c.position_bias.as_ref().map_or(0, |bias| bias.buckets);
                let sizes = [c.d_model, c.d_ff, c.position_kernel, n_buckets];
                let sizes: Vec<usize> = lists.into_iter().flatten().copied().chain(sizes).collect();
                self.sane(place, c.n_layers.max(c.conv_dims.len()), &sizes);
            }
        }
    }

    /// Samples go into encoders that begin with samples, spectra into the others.
    fn hears(&mut self, place: &str, encoder: &EncoderConfig, features: &FeatureConfig) {
        let waveform = matches!(features, FeatureConfig::Waveform(_));
        let expected = match encoder {
            EncoderConfig::Wav2vec2(_) if !waveform => "a wav2vec2 encoder takes \"waveform\"",
            EncoderConfig::Conformer(_) | EncoderConfig::Whisper(_) if waveform => {
                "a conformer or whisper encoder takes spectra, not \"waveform\""
            }
            _ => return,
        };
        self.problem(place, format_args!("model.features do not fit, {expected}"));
    }

    /// There are no bands to mask in a waveform.
    pub(super) fn masks(&mut self, base: Option<&Base<SpeechBase>>) {
        let features = match (&self.recipe.model, base) {
            (ModelConfig::Ctc(config), _) => &config.features,
            (ModelConfig::Connector(_), Some(Base::Known(speech))) => &speech.features,
            _ => return,
        };
        if !matches!(features, FeatureConfig::Waveform(_)) {
            return;
        }
        for (i, stage) in self.recipe.stages.iter().enumerate() {
            self.need(
                stage.spec_augment.is_none(),
                &format!("stage[{i}].spec_augment"),
                "masks bands and frames of spectra, the encoder hears a waveform; leave it out",
            );
        }
    }

    /// Transport and distillation look at depths that the language model has. The last block does not work on speech.
    pub(super) fn depths(&mut self, base: Option<&Base<TextBase>>) {
        let Some(Base::Known(text)) = base else { return };
        let n_layers = text.transformer.n_layers;
        for (i, stage) in self.recipe.stages.iter().enumerate() {
            let loss = &stage.loss;
            let transport = loss.transport.iter().flat_map(|config| &config.depths);
            let distillation = loss.distillation.iter().flat_map(|config| &config.depths);
            let named = transport
                .map(|depth| ("transport", depth))
                .chain(distillation.map(|depth| ("distillation", depth)));
            for (name, depth) in named.filter(|(_, depth)| **depth >= n_layers) {
                self.problem(
                    &format!("stage[{i}].loss.{name}.depths"),
                    format_args!(
                        "{depth} is not below the {n_layers} blocks of the language model"
                    ),
                );
            }
        }
    }

    fn features(&mut self, place: &str, config: &FeatureConfig) -> Option<usize> {
        match FeatureExtractor::new(config) {
            Ok(extractor) => Some(extractor.n_mels()),
            Err(error) => {
                self.problem(place, error);
                None
            }
        }
    }

    fn connector(
        &mut self,
        config: &ConnectorModelConfig,
    ) -> (Option<Base<SpeechBase>>, Option<Base<TextBase>>) {
        for problem in config.connector.problems() {
            self.problem("model.connector", problem);
        }
        if let sandhi_nn::connector::ConnectorConfig::Slm(c) = &config.connector {
            let place = "model.connector";
            for (field, value) in [("d_hidden", c.d_hidden), ("d_ff", c.d_ff)] {
                self.at_least_one(place, field, value);
            }
        }
        self.connector_sizes(config);
        self.segmenter(config);
        self.lora(config.lora.as_ref());
        let encoder = self.speech_base("model.encoder", &config.encoder);
        self.ctc_head(config, encoder.as_ref());
        let text = self.text_base("model.language_model", &config.language_model);
        self.pad(config, text.as_ref());
        if let (Some(encoder), Some(text)) = (&encoder, &text) {
            let widths = Widths { d_encoder: encoder.width(), d_model: text.width() };
            for problem in config.connector.misfits(widths) {
                self.problem("model.connector", problem);
            }
            if let Base::Known(text) = text
                && let Some(problem) = config.connector.wrong_tokens(text.n_tokens, None)
            {
                self.problem("model.connector", problem);
            }
        }
        (encoder, text)
    }

    /// A language model that a recipe begins with.
    fn text_base(
        &mut self,
        place: &str,
        config: &BaseConfig<PublishedLanguageModel>,
    ) -> Option<Base<TextBase>> {
        self.base(
            place,
            config,
            |checker, path| {
                let TextSpec { transformer, n_tokens } =
                    checker.directory(place, path, "text")?.text?;
                let dir = checker.path(&format!("{place}.path"), path)?;
                let tokenizer = Some(dir.join("tokenizer.json"));
                Some(TextBase { transformer, n_tokens, tokenizer })
            },
            |checker, published| {
                let (found, tokenizer) = match checker.published(place, &published.path)? {
                    Published::Here(dir) => {
                        (hf::check_text(&dir, published), Some(dir.join("tokenizer.json")))
                    }
                    Published::Known(name, value) => {
                        (LanguageModelConfig::read(Path::new(&name), &value), None)
                    }
                };
                let found = checker.right(place, found)?;
                if let Some(adapter) = &published.adapter {
                    checker.path(&format!("{place}.adapter"), adapter);
                }
                let (transformer, n_tokens) = (found.transformer, found.n_tokens);
                Some(TextBase { transformer, n_tokens, tokenizer })
            },
        )
    }

    /// A speech encoder that a recipe begins with.
    fn speech_base(
        &mut self,
        place: &str,
        config: &BaseConfig<PublishedEncoder>,
    ) -> Option<Base<SpeechBase>> {
        self.base(
            place,
            config,
            |checker, path| {
                let speech = checker.directory(place, path, "ctc")?.speech?;
                let n_mels = checker.features(place, &speech.features)?;
                let has_ctc_head = Some(speech.ctc.is_some());
                let (features, encoder) = (speech.features, speech.encoder);
                Some(SpeechBase { features, encoder, n_mels, has_ctc_head })
            },
            |checker, published| {
                let found = match checker.published(place, &published.path)? {
                    Published::Here(dir) => hf::check_speech(&dir, published),
                    Published::Known(name, value) => hf::known_speech(&name, &value, published),
                };
                let (found, features) = checker.right(place, found)?;
                let n_mels = checker.features(place, &features)?;
                let is_whisper = matches!(found.encoder, EncoderConfig::Whisper(_));
                let has_ctc_head = is_whisper.then_some(false);
                Some(SpeechBase { features, encoder: found.encoder, n_mels, has_ctc_head })
            },
        )
    }

    /// A connector is built to be counted: its shapes have to be numbers, and its layers a list.
    fn connector_sizes(&mut self, config: &ConnectorModelConfig) {
        const LARGEST: u64 = 1 << 16;
        let value = serde_json::to_value(&config.connector).unwrap_or_default();
        let mut pending = vec![("connector".to_owned(), value)];
        while let Some((name, value)) = pending.pop() {
            match value {
                serde_json::Value::Object(fields) => pending.extend(fields),
                serde_json::Value::Number(size) => {
                    let size = size.as_u64().unwrap_or(0);
                    let most = if name == "n_layers" { 1 << 10 } else { LARGEST };
                    self.need(
                        size <= most,
                        "model.connector",
                        format_args!("{name} is {size}, expected at most {most}"),
                    );
                }
                _ => {}
            }
        }
    }

    /// What cuts speech is there where it is needed, and called what it is.
    fn segmenter(&mut self, config: &ConnectorModelConfig) {
        let place = "model.segmenter";
        match (config.connector.needs().segments, config.segmenter) {
            (true, None) => self.problem(
                place,
                "is missing: this connector cuts speech where tokens end; expected \"forced\" or \"ctc\"",
            ),
            (false, Some(_)) => {
                self.problem(place, "is for connectors that cut speech where tokens end; leave it out");
            }
            (true, Some(Segmenter::Forced)) => self.need(
                self.recipe.oracle,
                place,
                "is \"forced\", which sees the transcript in use too; say so with oracle = true",
            ),
            (true, Some(Segmenter::Ctc)) | (false, None) => {}
        }
    }

    /// Encoders that cannot write are asked for nothing that is written.
    fn ctc_head(&mut self, config: &ConnectorModelConfig, encoder: Option<&Base<SpeechBase>>) {
        let Some(Base::Known(SpeechBase { has_ctc_head: Some(false), .. })) = encoder else {
            return;
        };
        let why = "needs the encoder's CTC head, and it has none";
        let needs = config.connector.needs();
        self.need(!needs.ctc, "model.connector", why);
        self.need(config.segmenter.is_none() || !needs.segments, "model.segmenter", why);
        for (i, stage) in self.recipe.stages.iter().enumerate() {
            let asks = |config: &TransportConfig| config.pad == PadMass::Blank;
            let asks = stage.loss.transport.as_ref().is_some_and(asks);
            self.need(!asks, &format!("stage[{i}].loss.transport.pad"), why);
        }
    }

    /// The token for no content: there where a stage needs it, and one of the vocabulary.
    fn pad(&mut self, config: &ConnectorModelConfig, text: Option<&Base<TextBase>>) {
        let needs = self.recipe.stages.iter().position(|stage| {
            let drops = stage.compression.is_some_and(|compression| compression.drop.is_some());
            let compares = config.connector.needs().embeddings;
            compares || drops || stage.loss.transport.as_ref().is_some_and(TransportConfig::has_pad)
        });
        let Some(token) = &config.pad_token else {
            if let Some(i) = needs {
                self.problem(
                    "model.pad_token",
                    format_args!(
                        "is missing, and stage[{i}] draws speech to it or knows pauses by it; expected a token of the \
                         language model, e.g. \"<|endoftext|>\""
                    ),
                );
            }
            return;
        };
        let Some(Base::Known(TextBase { tokenizer: Some(path), .. })) = text else { return };
        let Some(tokenizer) = self.right("model.language_model", Tokenizer::load(path)) else {
            return;
        };
        self.need(
            tokenizer.id(token).is_some(),
            "model.pad_token",
            format_args!("{token:?} is not a token of {}", path.display()),
        );
    }
}

/// Settings as a recipe writes them in one line.
fn inline(config: &TransformerConfig) -> String {
    toml::Value::try_from(config).map_or_else(|error| error.to_string(), |value| value.to_string())
}
