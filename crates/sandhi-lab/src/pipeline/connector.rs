//! Connector models: two foundation models, what joins them, and what is left of each after training.
//!
//! ```text
//! encoder ────────┐
//! connector ──────┼─ ConnectorNet ─ stages ─> ConnectorModel
//! language model ─┘    pad, aids, ctc_head
//! ```

use burn::{prelude::*, tensor::DType};
use sandhi_nn::{connector::Widths, init::Init, layers::Linear, lora, weights};

use super::{Error, Place, marks, stages};
use crate::{
    costs::median,
    frames::FrameCache,
    hf::{self, Hub, Located, ModelSource},
    model::{Aids, AnyModel, Compression, ConnectorModel, SpeechModel, TextModel},
    recipe::{
        BaseConfig, ConnectorModelConfig, PadMass, PublishedEncoder, PublishedLanguageModel, Recipe,
    },
    sources::{self, Workshop},
    tasks,
    train::{self, Monitor, learner::ConnectorNet, trains_encoder},
};

/// A base, from a model directory or a published checkpoint.
fn base<P, M>(
    config: &BaseConfig<P>,
    which: &'static str,
    directory: impl FnOnce(&str) -> Result<M, Error>,
    published: impl FnOnce(&P) -> Result<M, Error>,
) -> Result<M, Error> {
    match config {
        BaseConfig::Directory { path, .. } => directory(path),
        BaseConfig::HuggingFace(config) => published(config),
        BaseConfig::Declared { name, .. } => Err(Error::Declared { which, name: name.clone() }),
    }
}

/// The two foundation models of a connector recipe, held as it says. Branches that they have are merged.
///
/// # Errors
///
/// When one is only declared or cannot be loaded.
pub fn bases(
    config: &ConnectorModelConfig,
    workshop: &Workshop,
    device: &Device,
    hub: &Hub,
) -> Result<(SpeechModel, TextModel), Error> {
    let speech = encoder_base(&config.encoder, "model.encoder", workshop, device, hub)?;
    let text = text_base(&config.language_model, workshop, device, hub)?;
    Ok((speech, text))
}

/// The language model of a recipe, held as `config` says. Branches that it has are merged.
///
/// # Errors
///
/// When it is only declared or cannot be loaded.
pub(super) fn text_base(
    config: &BaseConfig<PublishedLanguageModel>,
    workshop: &Workshop,
    device: &Device,
    hub: &Hub,
) -> Result<TextModel, Error> {
    let which = "model.language_model";
    let mut text = base(
        config,
        which,
        |path| Ok(AnyModel::load_text(&workshop.resolve(path), device, hub)?),
        |config| {
            let adapter = config.adapter.as_ref().map(|path| workshop.resolve(path));
            let at = published(&config.path, workshop, hub)?;
            Ok(hf::text_model(&at, config, adapter.as_deref(), device)?)
        },
    )?;
    text.merge_lora();
    text.hold(config.dtype()).map_err(|why| Error::Dtype { which, why })?;
    Ok(text)
}

/// Where a published checkpoint is.
fn published(path: &str, workshop: &Workshop, hub: &Hub) -> Result<Located, hf::Error> {
    let source = ModelSource::read(path, |path| workshop.resolve(path))?;
    Ok(hub.locate(&source)?)
}

/// A speech encoder, held as `config` says; `which` names its table. Branches that it has are merged.
///
/// # Errors
///
/// When it is only declared or cannot be loaded.
pub(super) fn encoder_base(
    config: &BaseConfig<PublishedEncoder>,
    which: &'static str,
    workshop: &Workshop,
    device: &Device,
    hub: &Hub,
) -> Result<SpeechModel, Error> {
    let mut speech = base(
        config,
        which,
        |path| Ok(AnyModel::load_speech(&workshop.resolve(path), device, hub)?),
        |config| {
            let at = published(&config.path, workshop, hub)?;
            Ok(hf::speech_model(&at, config, device)?)
        },
    )?;
    speech.merge_lora();
    speech.hold(config.dtype()).map_err(|why| Error::Dtype { which, why })?;
    Ok(speech)
}

/// Trains a connector between its two foundation models; none when it was interrupted.
pub(super) fn connector(
    recipe: &Recipe,
    config: &ConnectorModelConfig,
    place: &Place,
    workshop: &Workshop,
    monitor: &mut dyn Monitor,
) -> Result<Option<AnyModel>, Error> {
    let (mut speech, mut text) = bases(config, workshop, &place.device, &place.hub)?;
    // Better now than after the last step.
    if let Some(eval) = &recipe.eval {
        tasks::check_named(&speech, eval)?;
    }
    let pad = pad(config, &text, monitor)?;
    let aids = aids(recipe, config, &speech, &text, pad)?;
    if let Some(lora) = &config.lora {
        lora::attach(&mut speech.encoder, "encoder", lora, recipe.seed);
        lora::attach(&mut text.lm, "language_model", lora, recipe.seed);
    }
    let widths = Widths { d_encoder: speech.d_encoder(), d_model: text.config.d_model };
    let init = Init::new(recipe.seed, &place.device);
    let with_head = recipe.stages.iter().any(|stage| stage.loss.token_ctc > 0.0);
    let ctc_head = with_head.then(|| {
        // The language model's tokens, and the blank.
        Linear::new(&init.child("ctc_head"), widths.d_model, text.lm.n_tokens() + 1, true)
    });
    let known_pad = pad.filter(|_| aids.needs.embeddings);
    // What is trained is in one place, but for the encoder, whose frames may be cached.
    let net = ConnectorNet {
        encoder: speech.encoder.clone(),
        connector: config.connector.init(widths, &init.child("connector")),
        language_model: text.lm,
        ctc_head,
        pad,
        compression: None,
        aids,
    };
    // The encoder is heard once and cached as long as no stage trains it.
    let names: Vec<String> = weights::parameters(&net).into_iter().map(|info| info.name).collect();
    let cache = (!trains_encoder(recipe, names.iter().map(String::as_str)))
        .then(|| FrameCache::new(&place.cache, &speech.frames_fingerprint()));
    let net = weights::to_autodiff(net);
    // An encoder that is heard once is heard without masks and dropout.
    let heard = if cache.is_some() { "frames" } else { "features" };
    let sources = marks(recipe, place, workshop, heard)?;
    let net = stages(recipe, place, monitor, net, &sources, |i, monitor| {
        let progress = |done, total| monitor.preparing("speaking and encoding", done, total);
        Ok(workshop.spoken(
            &recipe.stages[i],
            &speech,
            (&config.connector, pad),
            &text.chat,
            cache.as_ref(),
            &progress,
        )?)
    })?;
    let Some(net) = net.map(|net| net.valid()) else { return Ok(None) };
    // What a stage has trained is no longer what was published.
    let trained = |prefix: &str| {
        let of_part = names.iter().filter(|name| name.starts_with(prefix) && !lora::is_lora(name));
        of_part
            .into_iter()
            .any(|name| recipe.stages.iter().any(|stage| train::is_trained(&stage.trainable, name)))
    };
    if trained("encoder.") {
        speech.origin = None;
    }
    if trained("language_model.") {
        text.origin = None;
    }
    let last = recipe.stages.last().and_then(|stage| stage.compression);
    speech.encoder = net.encoder;
    Ok(Some(AnyModel::Connector(Box::new(ConnectorModel {
        speech,
        text: TextModel { lm: net.language_model, ..text },
        config: config.connector.clone(),
        connector: net.connector,
        compression: last.map(|thresholds| Compression { thresholds, pad }),
        segmenter: config.segmenter,
        pad: known_pad,
    }))))
}

/// What the connector is given beside the frames, if the two foundation models have it; losses that look at blanks are
/// refused without a CTC head, too.
fn aids(
    recipe: &Recipe,
    config: &ConnectorModelConfig,
    speech: &SpeechModel,
    text: &TextModel,
    pad: Option<u32>,
) -> Result<Aids, Error> {
    let aids = Aids::of(&config.connector, speech, pad);
    if let Some(problem) = aids.problem() {
        return Err(Error::Aids(problem.to_owned()));
    }
    if let Some(problem) = config.connector.wrong_tokens(text.lm.n_tokens(), pad) {
        return Err(Error::Aids(format!("connector: {problem}")));
    }
    let asks_blanks = recipe.stages.iter().any(|stage| {
        stage.loss.transport.as_ref().is_some_and(|config| config.pad == PadMass::Blank)
    });
    let asked = [(asks_blanks, "transport.pad = \"blank\""), (aids.needs.segments, "segmenter")];
    match asked.into_iter().find(|(is_asked, _)| *is_asked) {
        Some((_, asked)) if speech.recognizer.is_none() => {
            Err(sources::Error::NoRecognizer { asked: asked.to_owned() }.into())
        }
        _ => Ok(aids),
    }
}

/// The token for no content, if the recipe names one: with a row that has a direction, which is noted beside the
/// others.
fn pad(
    config: &ConnectorModelConfig,
    text: &TextModel,
    monitor: &mut dyn Monitor,
) -> Result<Option<u32>, Error> {
    let Some(token) = &config.pad_token else { return Ok(None) };
    let wrong = |problem: &str| Error::Pad { token: token.clone(), problem: problem.to_owned() };
    let id = text.chat.token(token).ok_or_else(|| wrong("the vocabulary has no such token"))?;
    let table = text.lm.embedding_table().cast(DType::F32);
    let norms = weights::host(table.square().sum_dim(1).sqrt());
    let own = norms.get(id as usize).copied().unwrap_or(0.0);
    if own == 0.0 {
        return Err(wrong(
            "its embedding is zero, as untrained ones often are; name a trained one",
        ));
    }
    let median = median(norms.into_iter().map(f64::from)).unwrap_or(0.0);
    monitor.note(&format!(
        "the pad {token:?} has an embedding of norm {own:.3}, the median is {median:.3}"
    ));
    Ok(Some(id))
}
