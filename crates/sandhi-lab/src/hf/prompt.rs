//! The prompt layout of a published language model, from its chat template.
//!
//! ```text
//! chat_template.jinja      rendered with marks in the place of instruction, speech and answer,
//! tokenizer_config.json    cut at the marks, and the pieces tokenized:
//!
//! <|im_start|>user⏎ [instruction] ⏎ [speech] <|im_end|>⏎<|im_start|>assistant⏎ [answer] <|im_end|>
//! ──── before ─────               between    ──────────── after ───────────────          end
//! ```
//!
//! Templates run in a sandbox without files, network or clock (minijinja); one that asks for today's date gets
//! none and uses its own. `enable_thinking` is false: an answer to speech begins at once.

use std::path::{Path, PathBuf};

use minijinja::{Environment, ErrorKind, context, syntax::SyntaxConfig};
use sandhi_data::text::Tokenizer;
use serde_json::Value;

use super::{Error, config::Fields, read_json};
use crate::{chat::PromptLayout, recipe::PublishedLanguageModel};

const TEMPLATE: &str = "chat_template.jinja";
const ABOUT: &str = "tokenizer_config.json";
const GENERATION: &str = "generation_config.json";

/// Stand for what is not known yet; no text and no template has these characters.
const INSTRUCTION: &str = "\u{F0000}instruction\u{F0001}";
const HEARD: &str = "\u{F0000}speech\u{F0001}";
const ANSWER: &str = "\u{F0000}answer\u{F0001}";

/// What a model without a chat template is asked with.
const PLAIN: &str = "{instruction}\n{speech}\n";

/// The files of a directory that say how its model is talked to.
struct Files {
    dir: PathBuf,
    template: Option<(PathBuf, String)>,
    /// `tokenizer_config.json`, or nothing.
    about: Value,
    /// `generation_config.json`, or nothing.
    generation: Value,
}

impl Files {
    fn read(dir: &Path) -> Result<Self, Error> {
        let json = |name: &str| {
            let path = dir.join(name);
            if path.exists() { read_json(&path) } else { Ok(Value::Object(Default::default())) }
        };
        let about = json(ABOUT)?;
        let path = dir.join(TEMPLATE);
        let template = if path.exists() {
            let bytes = crate::checkpoint::files::read(&path)?;
            let text = String::from_utf8(bytes)
                .map_err(|_| Error::Config { path: path.clone(), message: "not UTF-8".into() })?;
            Some((path, text))
        } else {
            template(&about).map(|text| (dir.join(ABOUT), text.to_owned()))
        };
        Ok(Self { dir: dir.to_owned(), template, about, generation: json(GENERATION)? })
    }

    /// Tokens at which the publishers stop decoding, `config.json`'s where there is no generation config.
    fn stops(&self, of_config: &[u32]) -> Result<Vec<u32>, Error> {
        let path = self.dir.join(GENERATION);
        let stops = Fields::new(&path, &self.generation)?.ids("eos_token_id")?;
        Ok(if stops.is_empty() { of_config.to_vec() } else { stops })
    }

    /// The text of a special token, which is a string or an object with `content`.
    fn special(&self, name: &str) -> Option<&str> {
        let value = self.about.get(name)?;
        value.as_str().or_else(|| value.get("content")?.as_str())
    }

    /// The conversation that the template writes: one user turn, and the answer where one is given.
    fn render(
        &self,
        (path, template): &(PathBuf, String),
        system: Option<&str>,
        answer: Option<&str>,
    ) -> Result<String, Error> {
        let wrong = |error: minijinja::Error| Error::Config {
            path: path.clone(),
            message: format!("chat template: {error:#}"),
        };
        let mut environment = Environment::new();
        // As transformers renders them.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(wrong)?);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, _> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        let turn = |role: &str, content: &str| context! { role, content };
        let mut messages = Vec::new();
        messages.extend(system.map(|system| turn("system", system)));
        messages.push(turn("user", &format!("{INSTRUCTION}\n{HEARD}")));
        messages.extend(answer.map(|answer| turn("assistant", answer)));
        let values = context! {
            messages,
            add_generation_prompt => answer.is_none(),
            enable_thinking => false,
            bos_token => self.special("bos_token").unwrap_or_default(),
            eos_token => self.special("eos_token").unwrap_or_default(),
            unk_token => self.special("unk_token").unwrap_or_default(),
            pad_token => self.special("pad_token").unwrap_or_default(),
        };
        environment.render_str(template, values).map_err(wrong)
    }
}

/// The template of a `tokenizer_config.json`: one, or the one named `default` of several.
fn template(about: &Value) -> Option<&str> {
    let found = about.get("chat_template")?;
    let named = |value: &&Value| value.get("name").and_then(Value::as_str) == Some("default");
    found.as_str().or_else(|| found.as_array()?.iter().find(named)?.get("template")?.as_str())
}

/// How the model of a directory is talked to; `of_config` are the end tokens of its `config.json`, `n_tokens`
/// the rows of its table.
///
/// # Errors
///
/// When a file is damaged, the template refuses the conversation or loses a part of it, the recipe's prompt has
/// not its two places, nothing says how an answer ends, or a token is none of the model's.
pub(super) fn layout(
    dir: &Path,
    tokenizer: &Tokenizer,
    config: &PublishedLanguageModel,
    of_config: &[u32],
    n_tokens: usize,
) -> Result<PromptLayout, Error> {
    let files = Files::read(dir)?;
    let stops = files.stops(of_config)?;
    let ids = |text: &str| tokenizer.encode_template(text).map_err(Error::from);
    let eos = files.special("eos_token").and_then(|token| tokenizer.id(token));
    let opening = tokenizer.opening()?;
    let (parts, own_end) = match (&config.prompt, &files.template) {
        (Some(prompt), _) => (written(prompt)?, None),
        (None, Some(template)) => {
            let asked = files.render(template, config.system.as_deref(), None)?;
            let parts = cut(&asked, [INSTRUCTION, HEARD]).ok_or_else(|| lost(template))?;
            let told = files.render(template, config.system.as_deref(), Some(ANSWER))?;
            let [_, closing] = cut(&told, [ANSWER]).ok_or_else(|| lost(template))?;
            let closing = ids(&closing)?.first().copied();
            let special = |id: &u32| tokenizer.special_ids().values().any(|found| found == id);
            (parts, closing.filter(|id| special(id) || stops.contains(id)))
        }
        (None, None) => (written(PLAIN)?, None),
    };
    if config.system.is_some() && (config.prompt.is_some() || files.template.is_none()) {
        return Err(Error::Config {
            path: dir.to_owned(),
            message: "system needs a chat template, and no prompt beside it".into(),
        });
    }
    let end = own_end.or(eos.filter(|id| stops.is_empty() || stops.contains(id)));
    let end = end.or(stops.first().copied()).ok_or_else(|| Error::Config {
        path: dir.to_owned(),
        message: format!("neither {GENERATION}, config.json nor {ABOUT} names an end token"),
    })?;
    let [before, between, after] = parts;
    let mut before = ids(&before)?;
    // Templates write the token themselves that a text begins with; other prompts leave it to the tokenizer.
    if files.template.is_none() || config.prompt.is_some() {
        before = opening.iter().copied().chain(before).collect();
    }
    let layout = PromptLayout {
        before,
        between: ids(&between)?,
        after: ids(&after)?,
        end,
        stops: stops.into_iter().filter(|&id| id != end).collect(),
        begin: opening.first().copied().unwrap_or(end),
    };
    let largest = layout.largest_id().max(tokenizer.n_tokens() as u32 - 1);
    if largest as usize >= n_tokens {
        return Err(Error::Config {
            path: dir.join("tokenizer.json"),
            message: format!(
                "token {largest} has no row in the embedding table, config.json says vocab_size {n_tokens}"
            ),
        });
    }
    Ok(layout)
}

fn lost((path, _): &(PathBuf, String)) -> Error {
    Error::Config {
        path: path.clone(),
        message:
            "the chat template does not write down what user and assistant say, once and in order; \
                  give the recipe's base a prompt"
                .into(),
    }
}

/// The three pieces of a recipe's prompt.
fn written(prompt: &str) -> Result<[String; 3], Error> {
    cut(prompt, ["{instruction}", "{speech}"])
        .ok_or_else(|| Error::Prompt { prompt: prompt.to_owned() })
}

/// The pieces of a text around marks, each of which stands in it once, in this order.
fn cut<const M: usize, const N: usize>(text: &str, marks: [&str; M]) -> Option<[String; N]> {
    let mut pieces = Vec::with_capacity(N);
    let mut rest = text;
    for mark in marks {
        let (piece, after) = rest.split_once(mark)?;
        pieces.push(piece.to_owned());
        rest = after;
    }
    pieces.push(rest.to_owned());
    let once = |mark: &&str| text.matches(mark).count() == 1;
    if marks.iter().all(once) { pieces.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_its_marks() {
        let found: Option<[String; 3]> = cut("a {x} b {y} c", ["{x}", "{y}"]);
        assert_eq!(found.unwrap(), ["a ", " b ", " c"]);
        // In another order, missing, or twice.
        for text in ["{y} {x}", "{x}", "{x} {y} {y}"] {
            assert_eq!(cut::<2, 3>(text, ["{x}", "{y}"]), None, "{text}");
        }
    }
}
