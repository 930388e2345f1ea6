//! Reading recipes: merge, override, parse, and say everything that is wrong.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{EvalConfig, ModelConfig, Recipe, StageConfig};

/// What cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened.
    #[error("{path}: {source}")]
    Io {
        /// The recipe.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path}: {message}")]
    Syntax {
        /// The recipe.
        path: PathBuf,
        /// Where and why, with the line.
        message: String,
    },
    /// The base of a recipe has a base itself.
    #[error("{path}: extends a recipe that extends another; one level is allowed")]
    Nested {
        /// The base.
        path: PathBuf,
    },
    /// The recipe does not say what a recipe must say.
    #[error("{path}:\n{problems}")]
    Invalid {
        /// The recipe.
        path: PathBuf,
        /// One line each.
        problems: Problems,
    },
}

/// What is wrong with a recipe, a sentence each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}  - {problem}")?;
        }
        Ok(())
    }
}

/// What the command line changes: `--set a.b=c` and `--path name=DIR`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Dotted key and value, the value as TOML or, failing that, as a string.
    pub set: Vec<(String, String)>,
    /// Name and folder.
    pub paths: Vec<(String, String)>,
}

/// Reads a recipe, its base and the overrides.
///
/// # Errors
///
/// See [`Error`]; [`Error::Invalid`] lists all that is wrong.
pub fn read(path: &Path, overrides: &Overrides) -> Result<Recipe, Error> {
    let mut table = parse(path)?;
    if let Some(base) = table.remove("extends") {
        let Some(base) = base.as_str() else {
            return Err(invalid(path, vec![format!("extends is {base}, expected a file name")]));
        };
        let base_path = path.parent().unwrap_or(Path::new("")).join(base);
        let mut merged = parse(&base_path)?;
        if merged.contains_key("extends") {
            return Err(Error::Nested { path: base_path });
        }
        let of_stages = table.remove("stage");
        merge(&mut merged, table);
        if let Some(of_stages) = of_stages {
            merge_stages(&mut merged, of_stages).map_err(|problem| invalid(path, vec![problem]))?;
        }
        table = merged;
    }
    from_table(table, overrides).map_err(|problems| Error::Invalid { path: path.into(), problems })
}

/// Reads a recipe from text; `extends` is not followed.
///
/// # Errors
///
/// As [`read`]; `path` is for messages only.
pub fn read_str(text: &str, path: &Path, overrides: &Overrides) -> Result<Recipe, Error> {
    from_table(table(text, path)?, overrides)
        .map_err(|problems| Error::Invalid { path: path.into(), problems })
}

fn invalid(path: &Path, problems: Vec<String>) -> Error {
    Error::Invalid { path: path.into(), problems: Problems(problems) }
}

fn parse(path: &Path) -> Result<Table, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let text = String::from_utf8(bytes).map_err(|e| Error::Syntax {
        path: path.into(),
        message: format!("not UTF-8 at byte {}", e.utf8_error().valid_up_to()),
    })?;
    table(&text, path)
}

fn table(text: &str, path: &Path) -> Result<Table, Error> {
    text.parse::<Table>()
        .map_err(|e| Error::Syntax { path: path.into(), message: e.to_string().trim_end().into() })
}

/// Tables merge key by key; everything else, arrays too, is replaced. A table whose `kind`, `from`
/// or `source` changes is replaced whole, since its fields belong to the old choice.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => {
                let changes = ["kind", "from", "source"].iter().any(
                    |tag| matches!((old.get(*tag), new.get(*tag)), (Some(a), Some(b)) if a != b),
                );
                if changes {
                    *old = new;
                } else {
                    merge(old, new);
                }
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// `[[stage]]` tables replace those of the base; `[stage.NAME]` changes the one of that name.
fn merge_stages(base: &mut Table, over: Value) -> Result<(), String> {
    let Value::Table(over) = over else {
        base.insert("stage".into(), over);
        return Ok(());
    };
    let mut stages = match base.get_mut("stage") {
        Some(Value::Array(stages)) => stages.iter_mut().filter_map(Value::as_table_mut).collect(),
        _ => Vec::new(),
    };
    let name = |stage: &Table| stage.get("name").and_then(Value::as_str).map(str::to_owned);
    for (key, value) in over {
        let names: Vec<String> = stages.iter().filter_map(|stage| name(stage)).collect();
        let of_key = stages.iter_mut().find(|stage| name(stage).as_ref() == Some(&key));
        let (Some(stage), Value::Table(value)) = (of_key, value) else {
            return Err(format!(
                "stage.{key}: expected [stage.NAME] with a stage of the base: {}",
                names.join(", ")
            ));
        };
        merge(stage, value);
    }
    Ok(())
}

fn from_table(mut table: Table, overrides: &Overrides) -> Result<Recipe, Problems> {
    let mut problems = Vec::new();
    for (key, value) in &overrides.set {
        if let Err(problem) = set(&mut table, key, value) {
            problems.push(problem);
        }
    }
    for (name, folder) in &overrides.paths {
        let paths = table.entry("paths").or_insert_with(|| Value::Table(Table::new()));
        // Given on the command line, so it starts at the working directory, not at the recipe.
        let folder =
            std::path::absolute(folder).map_or(folder.clone(), |p| p.display().to_string());
        if let Some(paths) = paths.as_table_mut() {
            paths.insert(name.clone(), Value::String(folder));
        }
    }

    for (key, value) in &table {
        not_finite(key, value, &mut problems);
    }
    // Each part is parsed on its own, so that one mistake does not hide the others.
    let model = table
        .remove("model")
        .and_then(|value| part::<ModelConfig>("model", value, &mut problems))
        .or_else(|| missing("model", "[model]", &mut problems));
    let stages: Vec<StageConfig> = match table.remove("stage") {
        None => Vec::new(),
        Some(Value::Array(stages)) => stages
            .into_iter()
            .enumerate()
            .filter_map(|(i, value)| part(&format!("stage[{i}]"), value, &mut problems))
            .collect(),
        Some(other) => {
            problems.push(format!("stage is {}, expected [[stage]] tables", other.type_str()));
            Vec::new()
        }
    };
    for (i, stage) in stages.iter().enumerate() {
        if let Some(first) = stages[..i].iter().position(|other| other.name == stage.name) {
            problems.push(format!(
                "stage[{i}].name is {:?}, the name of stage[{first}]; names must differ",
                stage.name
            ));
        }
    }
    let eval =
        table.remove("eval").and_then(|value| part::<EvalConfig>("eval", value, &mut problems));

    // The rest of the recipe, with a model that always parses in the place of the real one.
    let mut rest = table;
    rest.insert("model".into(), placeholder());
    let recipe = part::<Recipe>("", Value::Table(rest), &mut problems);
    match (recipe, model) {
        (Some(mut recipe), Some(model)) if problems.is_empty() => {
            recipe.model = model;
            recipe.stages = stages;
            recipe.eval = eval;
            Ok(recipe)
        }
        _ => {
            problems.dedup();
            Err(Problems(problems))
        }
    }
}

/// Floats that no JSON holds, and that nothing here means.
fn not_finite(place: &str, value: &Value, problems: &mut Vec<String>) {
    match value {
        Value::Float(x) if !x.is_finite() => {
            problems.push(format!("{place} is {x}, expected a finite number"));
        }
        Value::Table(table) => {
            for (key, value) in table {
                not_finite(&format!("{place}.{key}"), value, problems);
            }
        }
        Value::Array(values) => {
            for (i, value) in values.iter().enumerate() {
                not_finite(&format!("{place}[{i}]"), value, problems);
            }
        }
        _ => {}
    }
}

fn missing<T>(name: &str, what: &str, problems: &mut Vec<String>) -> Option<T> {
    // A part that was there but wrong has been reported already.
    if !problems.iter().any(|p| p.starts_with(name)) {
        problems.push(format!("{what} is missing"));
    }
    None
}

fn placeholder() -> Value {
    let text = "kind = \"text\"\n[tokenizer]\nvocab_size = 1\n[language_model]\nd_model = 2\nn_layers = 1\nn_heads = 1\nd_ff = 1";
    Value::Table(text.parse().expect("a constant"))
}

/// Parses one part; an unknown field is reported, taken out, and the parse repeated.
fn part<T: DeserializeOwned>(
    name: &str,
    mut value: Value,
    problems: &mut Vec<String>,
) -> Option<T> {
    let mut clean = true;
    loop {
        let parsed = serde_path_to_error::deserialize::<_, T>(value.clone());
        let error = match parsed {
            Ok(parsed) => return clean.then_some(parsed),
            Err(error) => error,
        };
        let path = error.path().to_string();
        let message = error.inner().to_string();
        let message = message.trim_end();
        let place = match (name, path.as_str()) {
            ("", ".") => String::new(),
            ("", path) => format!("{path}: "),
            (name, ".") => format!("{name}: "),
            (name, path) => format!("{name}.{path}: "),
        };
        problems.push(format!("{place}{message}"));
        clean = false;
        let unknown = message.strip_prefix("unknown field `").and_then(|m| m.split('`').next());
        if !remove(&mut value, unknown?) {
            return None;
        }
    }
}

/// Takes the first field called `key` out of the tree, so that the parse can go on.
fn remove(value: &mut Value, key: &str) -> bool {
    match value {
        Value::Table(table) => {
            table.remove(key).is_some() || table.iter_mut().any(|(_, child)| remove(child, key))
        }
        Value::Array(items) => items.iter_mut().any(|child| remove(child, key)),
        _ => false,
    }
}

/// `a.b.0.c = value`; numbers index arrays.
fn set(table: &mut Table, key: &str, value: &str) -> Result<(), String> {
    let parsed = format!("v = {value}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| Value::String(value.to_owned()));
    let parts: Vec<&str> = key.split('.').collect();
    let (last, way) = parts.split_last().expect("split gives at least one part");
    if parts.iter().any(|part| part.is_empty()) {
        return Err(format!("--set {key}: a part of the key is empty"));
    }
    let mut root = Value::Table(std::mem::take(table));
    let result = (|| {
        let mut place = &mut root;
        for part in way {
            place = match place {
                Value::Table(t) => {
                    t.entry((*part).to_owned()).or_insert_with(|| Value::Table(Table::new()))
                }
                Value::Array(items) => {
                    let n = items.len();
                    part.parse::<usize>()
                        .ok()
                        .and_then(|i| items.get_mut(i))
                        .ok_or_else(|| format!("--set {key}: {part} does not index {n} entries"))?
                }
                other => {
                    return Err(format!("--set {key}: {part} lies below a {}", other.type_str()));
                }
            };
        }
        match place {
            Value::Table(t) => {
                t.insert((*last).to_owned(), parsed);
                Ok(())
            }
            Value::Array(items) => {
                let n = items.len();
                let slot = last
                    .parse::<usize>()
                    .ok()
                    .and_then(|i| items.get_mut(i))
                    .ok_or_else(|| format!("--set {key}: {last} does not index {n} entries"))?;
                *slot = parsed;
                Ok(())
            }
            other => Err(format!("--set {key}: {last} lies below a {}", other.type_str())),
        }
    })();
    if let Value::Table(t) = root {
        *table = t;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        name = "tiny"
        seed = 1
        [model]
        kind = "text"
        tokenizer = { vocab_size = 300 }
        language_model = { d_model = 16, n_layers = 1, n_heads = 2, d_ff = 32 }
        [[stage]]
        name = "pretrain"
        steps = 3
        trainable = ["*"]
        data = [{ source = "documents", n = 20 }]
        batch = { max_items = 4, max_length = 200 }
        optimizer = { lr = 1e-3 }
    "#;

    fn problems(text: &str) -> Vec<String> {
        match read_str(text, Path::new("r.toml"), &Overrides::default()) {
            Err(Error::Invalid { problems, .. }) => problems.0,
            other => panic!("expected problems, found {other:?}"),
        }
    }

    #[test]
    fn a_recipe_reads() {
        let recipe = read_str(TEXT, Path::new("r.toml"), &Overrides::default()).unwrap();
        assert_eq!(recipe.stages[0].steps, 3);
        assert_eq!(recipe.stages[0].optimizer.beta1, 0.9);
    }

    #[test]
    fn overrides_reach_into_arrays() {
        let overrides = Overrides {
            set: vec![
                ("stage.0.steps".into(), "7".into()),
                ("about".into(), "it works".into()),
                ("model.language_model.d_ff".into(), "48".into()),
            ],
            paths: vec![],
        };
        let recipe = read_str(TEXT, Path::new("r.toml"), &overrides).unwrap();
        assert_eq!(recipe.stages[0].steps, 7);
        assert_eq!(recipe.about, "it works");
    }

    #[test]
    fn all_problems_come_at_once() {
        let text = TEXT
            .replace("seed = 1", "seed = 1\nsed = 2")
            .replace("steps = 3", "steps = 3\nstepz = 4")
            .replace("d_ff = 32", "d_ff = \"wide\"");
        let text = format!("{text}\n[[stage]]\nname = \"pretrain\"\n");
        let found = problems(&text);
        assert!(found.iter().any(|p| p.contains("unknown field `sed`")), "{found:#?}");
        assert!(found.iter().any(|p| p.contains("stage[0]") && p.contains("stepz")), "{found:#?}");
        assert!(found.iter().any(|p| p.contains("model") && p.contains("wide")), "{found:#?}");
        assert!(found.iter().any(|p| p.contains("stage[1]") && p.contains("steps")), "{found:#?}");
    }

    #[test]
    fn two_stages_of_one_name_are_refused() {
        let stage = TEXT.split("[[stage]]").nth(1).unwrap();
        let found = problems(&format!("{TEXT}\n[[stage]]\n{stage}"));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("stage[0]"), "{found:#?}");
    }

    #[test]
    fn a_base_is_merged_one_level() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("base.toml"), TEXT).unwrap();
        let top = dir.path().join("top.toml");
        std::fs::write(
            &top,
            "extends = \"base.toml\"\nname = \"top\"\n[model.language_model]\nd_ff = 64",
        )
        .unwrap();
        let recipe = read(&top, &Overrides::default()).unwrap();
        assert_eq!(recipe.name, "top");
        assert_eq!(recipe.stages.len(), 1);
        let stage = dir.path().join("stage.toml");
        let of = |name: &str| format!("extends = \"base.toml\"\n[stage.{name}]\nsteps = 9");
        std::fs::write(&stage, of("pretrain")).unwrap();
        let changed = read(&stage, &Overrides::default()).unwrap();
        let expected = StageConfig { steps: 9, ..recipe.stages[0].clone() };
        assert_eq!(changed.stages, [expected]);
        std::fs::write(&stage, of("pretrian")).unwrap();
        let error = read(&stage, &Overrides::default()).unwrap_err().to_string();
        assert!(
            error.contains("stage.pretrian: expected") && error.contains(": pretrain"),
            "{error}"
        );
        let deep = dir.path().join("deep.toml");
        std::fs::write(&deep, "extends = \"top.toml\"").unwrap();
        assert!(matches!(read(&deep, &Overrides::default()), Err(Error::Nested { .. })));
    }
}
