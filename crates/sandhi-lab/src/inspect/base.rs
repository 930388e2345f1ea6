//! The language model that a model was made from.
//!
//! ```text
//! named ──────────── any model with a text side
//! still published, or trained by no stage of the recipe beside the model ── the model's own language model
//! otherwise ──────── what that recipe begins with
//! ```

use std::path::Path;

use burn::prelude::Device;
use sandhi_nn::{lora, weights};

use super::Error;
use crate::{
    hf::{Hub, ModelSource},
    model::{AnyModel, TextModel},
    pipeline,
    recipe::{BaseConfig, ModelConfig, Recipe},
    sources::Workshop,
    train::{is_ever_trained, trainable},
};

/// A language model before it was trained further.
#[derive(Debug, Clone)]
pub struct Base {
    /// Where it is from.
    pub name: String,
    /// The model.
    pub text: TextModel,
}

/// The text side of a model, where it has one.
pub fn text_side(model: &AnyModel) -> Option<&TextModel> {
    match model {
        AnyModel::Ctc(_)
        | AnyModel::Aligner(_)
        | AnyModel::SpeechText(_)
        | AnyModel::Vocoder(_) => None,
        AnyModel::Text(model) => Some(model),
        AnyModel::Connector(model) => Some(&model.text),
    }
}

/// What `model`'s language model was before: that of `named`, or else what the model itself or the recipe beside it knows.
///
/// # Errors
///
/// [`Error::NoTextSide`] of a model that has none, [`Error::NoBase`] where nothing tells, [`Error::RelativeBase`] where the
/// recipe's own folder would have to be known, [`Error::Base`] where what it names cannot be loaded.
pub fn base(
    model: &AnyModel,
    recipe: Option<&Recipe>,
    named: Option<&ModelSource>,
    device: &Device,
    hub: &Hub,
) -> Result<Base, Error> {
    let deaf = |name: &str| Error::NoTextSide { name: name.to_owned() };
    let text = text_side(model).ok_or_else(|| deaf("the model"))?;
    if let Some(source) = named {
        let name = source.to_string();
        let found = AnyModel::open(source, device, hub)?;
        let text = text_side(&found).ok_or_else(|| deaf(&name))?.clone();
        return Ok(Base { name, text });
    }
    if let (Some(origin), None) = (&text.origin, lora::describe(&text.lm)) {
        return Ok(Base { name: origin.path.clone(), text: text.clone() });
    }
    let Some(recipe) = recipe else { return Err(Error::NoBase) };
    let ModelConfig::Connector(config) = &recipe.model else { return Err(Error::NoBase) };
    let path = match &config.language_model {
        BaseConfig::Directory { path, .. } => path,
        BaseConfig::HuggingFace(published) => &published.path,
        BaseConfig::Declared { name, .. } => name,
    };
    let none = Path::new("");
    let workshop = Workshop::new(none, none, recipe);
    let source = ModelSource::read(path, |path| workshop.resolve(path));
    let name = source.as_ref().map_or_else(|_| path.clone(), ToString::to_string);
    let stages = trainable(recipe);
    let parameters = weights::parameters(&text.lm);
    let mut names = parameters.iter().map(|info| format!("language_model.{}", info.name));
    if !names.any(|name| is_ever_trained(&stages, &name)) {
        return Ok(Base { name: format!("{name}, which no stage trained"), text: text.clone() });
    }
    let bases = match source {
        // Where its own folder was, a recipe does not know any more.
        Ok(ModelSource::Directory(dir)) if dir.is_relative() => {
            return Err(Error::RelativeBase { path: dir });
        }
        _ => pipeline::bases(config, &workshop, device, hub),
    };
    let wrong = |error| Error::Base { path: name.clone(), source: Box::new(error) };
    let (_, text) = bases.map_err(wrong)?;
    Ok(Base { name, text })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use sandhi_nn::lora::LoraConfig;

    use super::*;
    use crate::{inspect::testing::text_model, model::Origin};

    fn of(model: &AnyModel, recipe: Option<&Recipe>) -> Result<Base, Error> {
        base(model, recipe, None, &Device::flex(), &Hub::offline(PathBuf::new()))
    }

    #[test]
    fn what_is_still_published_was_nothing_else() {
        let mut text = text_model(3);
        let of_text = |text: &TextModel| of(&AnyModel::Text(Box::new(text.clone())), None);
        assert!(matches!(of_text(&text), Err(Error::NoBase)));
        text.origin = Some(Origin { path: "hf:a/b".to_owned(), fingerprint: String::new() });
        assert_eq!(of_text(&text).unwrap().name, "hf:a/b");
        // Branches beside published weights are what it has learned.
        let targets = vec!["*".to_owned()];
        let config = LoraConfig { rank: 2, alpha: 2.0, targets, rslora: false };
        lora::attach(&mut text.lm, "", &config, 1);
        assert!(lora::describe(&text.lm).is_some());
        assert!(matches!(of_text(&text), Err(Error::NoBase)));
    }

    #[test]
    fn a_recipe_tells_what_it_began_with() {
        let model = AnyModel::Text(Box::new(text_model(3)));
        let recipe = |trainable: &str, path: &str| -> Recipe {
            let recipe = serde_json::json!({
                "name": "a", "seed": 1, "paths": { "here": "/nowhere" },
                "model": {
                    "kind": "connector",
                    "encoder": { "from": "directory", "path": path },
                    "language_model": { "from": "directory", "path": path },
                    "connector": { "kind": "stack_mlp", "reduction": 4, "d_hidden": 8 },
                },
                "stage": [{
                    "name": "b", "steps": 1, "trainable": [trainable], "data": [],
                    "batch": { "max_items": 1, "max_length": 1 }, "optimizer": { "lr": 1.0 },
                }],
            });
            serde_json::from_value(recipe).unwrap()
        };
        let error = |trainable, path| of(&model, Some(&recipe(trainable, path))).unwrap_err();
        let found = of(&model, Some(&recipe("connector", "$here/lm"))).unwrap();
        assert!(
            found.name.contains("/nowhere/lm") && found.name.contains("no stage"),
            "{}",
            found.name
        );
        let there = error("language_model", "$here/lm");
        assert!(matches!(&there, Error::Base { path, .. } if path == "/nowhere/lm"), "{there}");
        let somewhere = error("*", "../lm");
        assert!(matches!(&somewhere, Error::RelativeBase { .. }), "{somewhere}");
        assert!(somewhere.to_string().contains("../lm"), "{somewhere}");
    }
}
