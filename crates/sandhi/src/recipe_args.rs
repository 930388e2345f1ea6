//! The recipe on the command line, with what is changed about it.

use std::path::{Path, PathBuf};

use sandhi_lab::recipe::{self, Overrides, Recipe};

/// Arguments that name a recipe.
#[derive(Debug, Clone, clap::Args)]
pub struct RecipeArgs {
    /// The recipe, a TOML file.
    pub recipe: PathBuf,
    /// Change a field of the recipe, e.g. `stage.0.steps=100`.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// A folder that the recipe calls `$NAME`.
    #[arg(long, value_name = "NAME=DIR", value_parser = pair)]
    pub path: Vec<(String, String)>,
}

/// A name and a value with `=` between.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected a name, = and a value".to_owned()),
    }
}

impl RecipeArgs {
    /// Reads the recipe.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub fn read(&self) -> Result<Recipe, recipe::Error> {
        let overrides = Overrides { set: self.set.clone(), paths: self.path.clone() };
        recipe::read(&self.recipe, &overrides)
    }

    /// The folder that the recipe's relative paths start at.
    pub fn base(&self) -> &Path {
        self.recipe.parent().unwrap_or(Path::new(""))
    }

    /// The arguments as they were given, for a command line that does the same again.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec![self.recipe.display().to_string()];
        for (option, pairs) in [("--set", &self.set), ("--path", &self.path)] {
            for (key, value) in pairs {
                words.extend([option.to_owned(), format!("{key}={value}")]);
            }
        }
        words
    }
}

/// Words as a shell reads them.
pub fn command_line(words: &[String]) -> String {
    let quoted: Vec<String> = words
        .iter()
        .map(|word| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                word.clone()
            } else {
                format!("'{}'", word.replace('\'', "'\\''"))
            }
        })
        .collect();
    quoted.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        let words = ["sandhi", "my recipe.toml", "it's", "a=b"].map(str::to_owned);
        assert_eq!(command_line(&words), r"sandhi 'my recipe.toml' 'it'\''s' a=b");
    }

    #[test]
    fn pairs_need_a_name() {
        assert_eq!(pair("a.b=c=d"), Ok(("a.b".to_owned(), "c=d".to_owned())));
        assert!(pair("=c").is_err() && pair("abc").is_err());
    }
}
