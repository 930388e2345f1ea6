//! Pictures of a few utterances that an evaluation hears: where they are cut, and the nearest token of every vector.
//!
//! ```text
//! cells ─ the first of every language ─┐
//! manifest ─ the first ────────────────┴─ sound ─ inspect::segments ─ pictures/TASK.DOMAIN.ID.svg
//! ```

use std::{collections::HashMap, path::Path};

use sandhi_data::{language::Language, manifest, microworld::Split};

use super::cells::cells;
use crate::{
    checkpoint::write_atomically,
    experiment::Error,
    inspect::{MAX_DRAWN_S, SegmentsRequest, lanes_svg, patch_segments, segments},
    model::AnyModel,
    recipe::{EvalConfig, Half},
    sources::{self, Spoken, Workshop},
};

/// Items of a cell among which an id is looked for.
const MOST_ITEMS: usize = 200;

/// An utterance that can be drawn.
#[derive(Debug, Clone)]
pub struct Pictured {
    /// Where it is from: task, domain and id.
    pub name: String,
    /// What is heard.
    pub spoken: Spoken,
}

/// Draws the first utterances of every language, or of the manifest, into `dir/pictures`: where a connector or a model over
/// text and units cuts them. Nothing where choices of files are made or files of units are measured, and of models that cut
/// or hear nothing.
///
/// # Errors
///
/// When one cannot be spoken, heard or written.
pub fn write(
    model: &AnyModel,
    workshop: &Workshop,
    config: &EvalConfig,
    dir: &Path,
) -> Result<(), Error> {
    let draws = match model {
        AnyModel::Connector(_) => true,
        AnyModel::SpeechText(model) => model.hearing.is_some(),
        _ => false,
    };
    if config.pictures == 0 || !draws {
        return Ok(());
    }
    for Pictured { name, spoken } in pictured(workshop, config)? {
        let sound = workshop.sounds(std::slice::from_ref(&spoken))?.remove(0);
        let wave = sound.wave.resampled(16_000).map_err(sources::Error::from)?;
        if wave.duration_s() > MAX_DRAWN_S {
            tracing::warn!("{name} is not drawn: it is {:.0} s long", wave.duration_s());
            continue;
        }
        let request = SegmentsRequest {
            samples: &wave.samples,
            text: Some(spoken.text()),
            words: Some(&sound.words),
        };
        let found = match model {
            AnyModel::Connector(model) => segments(model, &request)?,
            AnyModel::SpeechText(model) => patch_segments(model, &request)?,
            _ => continue,
        };
        let picture = lanes_svg(&found);
        let path = dir.join("pictures").join(format!("{}.svg", file_name(&name)));
        write_atomically(&path, picture.as_bytes())?;
    }
    Ok(())
}

/// What is drawn.
fn pictured(workshop: &Workshop, config: &EvalConfig) -> Result<Vec<Pictured>, Error> {
    let n = config.pictures;
    if config.choices.is_some() || !config.unit_files.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(path) = &config.manifest {
        let path = workshop.resolve(path);
        let split = config.manifest_split.as_deref();
        let found = manifest::import_split(&path, split).map_err(sources::Error::from)?;
        let few = found.utterances.into_iter().take(n);
        return Ok(few
            .map(|utterance| Pictured {
                name: format!("asr.{}", utterance.id),
                spoken: Spoken::Recorded { utterance, speed: 1.0 },
            })
            .collect());
    }
    let few = EvalConfig { n: config.n.min(n), ..config.clone() };
    let mut drawn: HashMap<Language, usize> = HashMap::new();
    let mut found = Vec::new();
    for cell in cells(workshop.world(), config.half.split(), &few) {
        for item in &cell.items {
            let drawn = drawn.entry(item.spoken_language).or_default();
            if *drawn < n {
                *drawn += 1;
                let name = format!("{}.{}.{}", cell.task, cell.domain, item.id);
                found.push(Pictured { name, spoken: cell.spoken(item) });
            }
        }
    }
    Ok(found)
}

/// The utterance of an item that predictions name, in a domain; those of the dev half come first.
pub fn find(workshop: &Workshop, id: &str, domain: &str) -> Option<Pictured> {
    let config =
        EvalConfig { domains: vec![domain.to_owned()], ..EvalConfig::new(MOST_ITEMS, Half::Dev) };
    [Split::Dev, Split::Test].into_iter().find_map(|split| {
        cells(workshop.world(), split, &config).into_iter().find_map(|cell| {
            let item = cell.items.iter().find(|item| item.id == id)?;
            let name = format!("{}.{domain}.{id}", cell.task);
            Some(Pictured { name, spoken: cell.spoken(item) })
        })
    })
}

/// A name that is one file's on every system.
fn file_name(name: &str) -> String {
    let kept = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    name.chars().map(|c| if kept(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{ChoicesConfig, Recipe};

    fn workshop() -> Workshop {
        let path = Path::new("slm.toml");
        let text = include_str!("../../../../recipes/smoke/otreg.toml");
        let recipe: Recipe = crate::recipe::read_str(text, path, &Default::default()).unwrap();
        Workshop::new(Path::new("no cache"), Path::new(""), &recipe)
    }

    fn config(pictures: usize) -> EvalConfig {
        EvalConfig { domains: vec!["tempo".into()], pictures, ..EvalConfig::new(5, Half::Dev) }
    }

    #[test]
    fn every_language_has_its_pictures() {
        let workshop = workshop();
        for n in [1, 2] {
            let found = pictured(&workshop, &config(n)).unwrap();
            let names: Vec<&str> = found.iter().map(|p| p.name.as_str()).collect();
            assert_eq!(found.len(), 3 * n, "{names:?}");
            for task in ["asr", "asr_de", "asr_es"] {
                let prefix = format!("{task}.tempo.");
                assert_eq!(names.iter().filter(|name| name.starts_with(&prefix)).count(), n);
            }
            // What is drawn is found by its id.
            for drawn in &found {
                let id = drawn.name.rsplit('.').next().unwrap();
                let again = find(&workshop, id, "tempo").unwrap();
                assert_eq!((&again.name, again.spoken.text()), (&drawn.name, drawn.spoken.text()));
            }
        }
        // Of few items only those.
        let few = EvalConfig { n: 1, ..config(4) };
        assert!(pictured(&workshop, &few).unwrap().iter().all(|p| p.name.contains(".tempo.")));
        assert!(find(&workshop, "nobody", "tempo").is_none());
    }

    #[test]
    fn choices_of_files_have_none() {
        let choices =
            ChoicesConfig { paths: Vec::new(), format: None, shots: 0, instruction: None };
        let config = EvalConfig { choices: Some(choices), ..config(2) };
        assert!(pictured(&workshop(), &config).unwrap().is_empty());
    }

    #[test]
    fn names_are_files() {
        assert_eq!(file_name("asr.base.a/b c:ü-1"), "asr.base.a_b_c_ü-1");
    }
}
