//! Where chat templates run: without files, network or clock, and with an end.
//!
//! ```text
//! template ── at most MAX_TEMPLATE bytes ── at most STEPS instructions ── at most MAX_TEXT bytes ── text
//! ```
//!
//! A template comes with a model and is as little to be trusted. What has no bound here is the memory of one value: a
//! template that doubles a text on purpose can ask for more than there is, as a checkpoint can that says it is large.

use std::io::{self, Write};

use minijinja::{Environment, Error, ErrorKind, syntax::SyntaxConfig, value::Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Bytes of a template. Those of the largest published ones are some ten thousand.
const MAX_TEMPLATE: usize = 256 * 1024;
/// Instructions of one conversation.
const STEPS: u64 = 100_000;
/// Bytes of what a template writes.
const MAX_TEXT: usize = 1024 * 1024;

/// The text that a template writes, with transformers' whitespace and functions.
///
/// # Errors
///
/// What is wrong with the template, what it says against the conversation (`raise_exception`), and what it takes more
/// of than one conversation can need: bytes, steps, text.
pub(super) fn render(template: &str, values: Value) -> Result<String, Error> {
    let refusal = |message: String| Error::new(ErrorKind::InvalidOperation, message);
    if template.len() > MAX_TEMPLATE {
        let n = template.len();
        return Err(refusal(format!("it has {n} bytes, expected at most {MAX_TEMPLATE}")));
    }
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(STEPS));
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_function("raise_exception", move |message: String| -> Result<String, Error> {
        Err(refusal(message))
    });
    let mut text = Limited(Vec::new());
    let done = environment.template_from_str(template)?.render_captured_to(values, &mut text);
    match done {
        Err(error) if error.kind() == ErrorKind::OutOfFuel => {
            Err(refusal(format!("it takes more than {STEPS} steps")))
        }
        Err(error) => Err(error),
        Ok(_) => Ok(String::from_utf8(text.0).expect("templates write text")),
    }
}

/// Takes [`MAX_TEXT`] bytes and no more.
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_TEXT {
            return Err(io::Error::other(format!("it writes more than {MAX_TEXT} bytes")));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use minijinja::context;

    use super::*;

    fn ran(template: &str) -> Result<String, String> {
        render(template, context! { word => "ab" }).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error:#} {}", source.unwrap_or_default())
        })
    }

    #[test]
    fn templates_have_the_methods_and_whitespace_of_transformers() {
        let template = "{% if true %}\n  {{- word.upper().strip() }}\n  {% endif %}\n.";
        assert_eq!(ran(template).unwrap(), "AB\n.");
        assert_eq!(ran("{{ [1]|tojson(indent=2) }}").unwrap(), "[\n  1\n]");
        assert!(ran("{{ raise_exception('no') }}").unwrap_err().contains("no"));
        // Nothing else is there.
        assert!(ran("{% include '/etc/passwd' %}").is_err());
        assert!(ran("{{ strftime_now('%d') }}").is_err());
    }

    #[test]
    fn what_has_no_end_ends() {
        let endless =
            "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}";
        assert!(ran(endless).unwrap_err().contains("more than 100000 steps"));
        let long = "{% set w = word * 9999 %}{% for i in range(999) %}{{ w }}{% endfor %}";
        let error = ran(long).unwrap_err();
        assert!(error.contains("more than 1048576 bytes"), "{error}");
        assert!(ran(&" ".repeat(MAX_TEMPLATE + 1)).unwrap_err().contains("expected at most"));
    }
}
