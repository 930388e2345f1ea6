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
//! Templates run in a [sandbox] without files, network or clock; one that asks for today's date gets none and uses
//! its own. `enable_thinking` is false: an answer to speech begins at once.

use std::path::{Path, PathBuf};

use minijinja::context;
use sandhi_data::text::Tokenizer;
use serde_json::Value;

use super::{Error, config::Fields, read_json, sandbox};
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
        sandbox::render(template, values).map_err(wrong)
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
    let wrong = |message| Error::Config { path: dir.join("tokenizer.json"), message };
    let Some(last) = tokenizer.n_tokens().checked_sub(1) else {
        return Err(wrong("the vocabulary is empty, expected at least one token".into()));
    };
    let files = Files::read(dir)?;
    let stops = files.stops(of_config)?;
    let ids = |text: &str| tokenizer.encode_template(text).map_err(Error::from);
    let on = |text: &str| tokenizer.encode_template_on(text).map_err(Error::from);
    let eos = files.special("eos_token").and_then(|token| tokenizer.id(token));
    let opening = tokenizer.opening()?;
    let (parts, lead, own_end) = match (&config.prompt, &files.template) {
        (Some(prompt), _) => (written(prompt)?, String::new(), None),
        (None, Some(template)) => {
            let asked = files.render(template, config.system.as_deref(), None)?;
            let parts: [String; 3] =
                cut(&asked, [INSTRUCTION, HEARD]).ok_or_else(|| lost(template))?;
            let told = files.render(template, config.system.as_deref(), Some(ANSWER))?;
            let [_, _, before, closing] =
                cut(&told, [INSTRUCTION, HEARD, ANSWER]).ok_or_else(|| lost(template))?;
            // What the prompt does not have, the model writes itself.
            let lead = before.strip_prefix(&parts[2]).unwrap_or_default().to_owned();
            let closing = on(&closing)?.first().copied();
            let special = |id: &u32| tokenizer.special_ids().values().any(|found| found == id);
            (parts, lead, closing.filter(|id| special(id) || stops.contains(id)))
        }
        (None, None) => (written(PLAIN)?, String::new(), None),
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
    // A space belongs to the word behind it.
    let trimmed = |text: String| match text.strip_suffix(' ') {
        Some(rest) => (rest.to_owned(), true),
        None => (text, false),
    };
    let ((before, instruction_spaced), (between, speech_spaced)) =
        (trimmed(before), trimmed(between));
    let mut before = ids(&before)?;
    // Templates write the token themselves that a text begins with; other prompts leave it to the tokenizer.
    if files.template.is_none() || config.prompt.is_some() {
        before = opening.iter().copied().chain(before).collect();
    }
    let layout = PromptLayout {
        before,
        between: on(&between)?,
        after: on(&after)?,
        instruction_spaced,
        speech_spaced,
        lead,
        end,
        stops: stops.into_iter().filter(|&id| id != end).collect(),
        begin: opening.first().copied().unwrap_or(end),
    };
    let largest = layout.largest_id().max(last as u32);
    if largest as usize >= n_tokens {
        return Err(wrong(format!(
            "token {largest} has no row in the embedding table, config.json says vocab_size {n_tokens}"
        )));
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
    use crate::{chat::Chat, model::pack::Segment};

    fn golden() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/chat_templates")
    }

    fn cases() -> Value {
        read_json(&golden().join("cases.json")).unwrap()
    }

    /// That of a case, byte-level where it has none of its own.
    fn tokenizer_of(name: &str) -> Tokenizer {
        let own = golden().join(format!("tokenizer_{name}.json"));
        let path = if own.exists() { own } else { golden().join("tokenizer.json") };
        Tokenizer::load(&path).unwrap()
    }

    fn tokenizer() -> Tokenizer {
        tokenizer_of("")
    }

    fn text<'a>(value: &'a Value, name: &str) -> &'a str {
        value[name].as_str().unwrap()
    }

    /// A directory with the files of a case, and some of them changed.
    fn directory(name: &str, changed: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in cases()["cases"][name]["files"].as_object().into_iter().flatten() {
            std::fs::write(dir.path().join(file), text.as_str().unwrap()).unwrap();
        }
        for (file, text) in changed {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        dir
    }

    fn config(prompt: Option<&str>, system: Option<&str>) -> PublishedLanguageModel {
        PublishedLanguageModel {
            prompt: prompt.map(str::to_owned),
            system: system.map(str::to_owned),
            ..PublishedLanguageModel::default()
        }
    }

    fn found(dir: &Path, config: &PublishedLanguageModel) -> Result<PromptLayout, Error> {
        let tokenizer = tokenizer();
        layout(dir, &tokenizer, config, &[], tokenizer.n_tokens())
    }

    fn written_down(chat: &Chat, cases: &Value) -> (Vec<u32>, Vec<u32>) {
        let speech = chat.transcript(text(cases, "speech")).unwrap();
        let prompt =
            chat.prompt(text(cases, "instruction"), vec![Segment::Tokens(speech)]).unwrap();
        let ids = prompt.into_iter().flat_map(|segment| match segment {
            Segment::Tokens(ids) => ids,
            Segment::Speech(_) => panic!("there is none"),
        });
        (ids.collect(), chat.answer(text(cases, "answer")).unwrap())
    }

    #[test]
    fn prompts_are_those_of_transformers() {
        let cases = cases();
        for (name, case) in cases["cases"].as_object().unwrap() {
            let dir = directory(name, &[]);
            let tokenizer = tokenizer_of(name);
            let n_tokens = tokenizer.n_tokens();
            let layout = layout(dir.path(), &tokenizer, &config(None, None), &[], n_tokens);
            let chat = Chat::new(tokenizer, layout.unwrap());
            let (prompt, answer) = written_down(&chat, &cases);
            let theirs: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(prompt, theirs, "{name}");
            let show = |ids: &[u32]| chat.tokenizer().decode_with_specials(ids).unwrap();
            // Pieces are written with the space that was put before them.
            let written = show(&prompt).replace("<s> <<ask>>", "<s><<ask>>");
            assert_eq!(written, text(case, "prompt"), "{name}");
            // The end token is a part of the conversation; a line's end may follow it.
            let whole = text(case, "conversation").trim_end();
            assert!(whole.ends_with(&show(&answer)), "{name}: {} in {whole}", show(&answer));
        }
    }

    /// What is written for a layout is read as that layout again.
    #[test]
    fn an_exported_template_says_the_same() {
        let tokenizer = tokenizer();
        for name in ["chatml", "headers", "inst"] {
            let before = found(directory(name, &[]).path(), &config(None, None)).unwrap();
            let text = crate::hf::export::template(&tokenizer, &before).unwrap();
            let about = serde_json::json!({ "chat_template": text });
            let mut ends = vec![before.end];
            ends.extend(&before.stops);
            let generation = serde_json::json!({ "eos_token_id": ends });
            let (about, generation) = (about.to_string(), generation.to_string());
            let files = [(ABOUT, about.as_str()), (GENERATION, generation.as_str())];
            let after = found(directory("none", &files).path(), &config(None, None)).unwrap();
            assert_eq!(after, before, "{name}");
        }
    }

    #[test]
    fn answers_end_where_the_template_and_the_publishers_say() {
        let tokenizer = tokenizer();
        let id = |token: &str| tokenizer.special_id(token).unwrap();
        let ends = |name: &str| {
            let dir = directory(name, &[]);
            let layout = found(dir.path(), &config(None, None)).unwrap();
            (layout.end, layout.stops, layout.lead)
        };
        let none = String::new();
        let im_end = id("<|im_end|>");
        assert_eq!(ends("chatml"), (im_end, vec![id("<|endoftext|>")], none.clone()));
        assert_eq!(ends("headers"), (id("<|eot_id|>"), vec![id("<|endoftext|>")], none));
        assert_eq!(ends("inst"), (id("</s>"), Vec::new(), " ".to_owned()));
    }

    #[test]
    fn a_prompt_of_the_recipe_stands_for_the_template() {
        let tokenizer = tokenizer();
        let dir = directory("chatml", &[]);
        let prompt = "<s>{instruction} [INST]{speech}</s>";
        let layout = found(dir.path(), &config(Some(prompt), None)).unwrap();
        let special = |token: &str| tokenizer.special_id(token).unwrap();
        assert_eq!(layout.before, [special("<s>")]);
        assert_eq!(layout.after, [special("</s>")]);
        assert_eq!(tokenizer.decode_with_specials(&layout.between).unwrap(), " [INST]");
        let layout = found(dir.path(), &config(None, Some("Hear well."))).unwrap();
        let before = tokenizer.decode_with_specials(&layout.before).unwrap();
        assert!(before.contains("Hear well.") && !before.contains("Be brief."), "{before}");
    }

    #[test]
    fn what_cannot_be_a_prompt_is_refused() {
        let check = |dir: tempfile::TempDir, config: PublishedLanguageModel, expected: &[&str]| {
            let message = found(dir.path(), &config).unwrap_err().to_string();
            for part in expected {
                assert!(message.contains(part), "{part} is not in: {message}");
            }
        };
        let plain = || config(None, None);
        let with = |template: &str| directory("chatml", &[(TEMPLATE, template)]);
        check(with("{% for"), plain(), &[TEMPLATE, "syntax error"]);
        check(with("{{ raise_exception('no users') }}"), plain(), &[TEMPLATE, "no users"]);
        check(
            with("{{ messages[0].role }}"),
            plain(),
            &[TEMPLATE, "give the recipe's base a prompt"],
        );
        check(with("{% for i in range(99999999) %}x{% endfor %}"), plain(), &[TEMPLATE, "range"]);
        check(with("{% include '/etc/passwd' %}"), plain(), &[TEMPLATE, "/etc/passwd"]);
        check(directory("none", &[]), plain(), &["end token"]);
        let swapped = Some("{speech}{instruction}");
        check(
            directory("chatml", &[]),
            config(swapped, None),
            &["{speech}{instruction}", "expected"],
        );
        check(directory("none", &[]), config(None, Some("x")), &["system needs a chat template"]);
        check(directory("chatml", &[(ABOUT, "{")]), plain(), &[ABOUT, "not JSON"]);
        check(
            directory("chatml", &[(GENERATION, r#"{"eos_token_id": "x"}"#)]),
            plain(),
            &[GENERATION, "eos_token_id"],
        );
        let nested =
            "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}";
        check(with(nested), plain(), &[TEMPLATE, "more than 100000 steps"]);
        // No token at all.
        let dir = directory("none", &[(GENERATION, r#"{"eos_token_id": 0}"#)]);
        let path = dir.path().join("tokenizer.json");
        let empty = r#"{"added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}"#;
        std::fs::write(&path, empty).unwrap();
        let empty = Tokenizer::load(&path).unwrap();
        let error = layout(dir.path(), &empty, &plain(), &[], 100).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: the vocabulary is empty"), "{error}");
        // More tokens than the model has rows for.
        let dir = directory("chatml", &[]);
        let error = layout(dir.path(), &tokenizer(), &plain(), &[], 100).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json") && error.contains("vocab_size 100"), "{error}");
    }

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
