//! Where chat templates run: without files, network or clock, and with an end.
//!
//! ```text
//! template ── instructions ── a ~ b, a + b, a * b, [a, b], x|filter, x.method() measured ── text
//!    │             │                            │                                          │
//! MAX_TEMPLATE    STEPS                 MAX_VALUE, MAX_WORK, DEPTH                      MAX_TEXT
//! ```
//!
//! A template comes with a model and is as little to be trusted. It can loop without an end and double a text until
//! the memory is gone. Against the first, steps are counted. Against the second, what makes values of values is
//! measured: operators and literals are compiled to filters of ours, which refuse before they compute. Two things
//! have other bounds: constants that the compiler computes itself (`"x" * 99999999`, 100 MB each), and literal text
//! that is captured in a variable ([`MAX_TEMPLATE`] a step). A namespace that is put into itself has none.

use std::{
    collections::BTreeMap,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use minijinja::{
    Environment, Error, ErrorKind, context, escape_formatter,
    machinery::{self, CodeGenerator, Instruction, Instructions},
    syntax::SyntaxConfig,
    value::{Rest, Value, ValueKind, ValueOrKwargs},
};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Bytes of a template. Those of the largest published ones are some ten thousand.
const MAX_TEMPLATE: usize = 256 * 1024;
/// Instructions of one conversation.
const STEPS: u64 = 20_000;
/// Bytes of a value that a template computes.
const MAX_VALUE: usize = 256 * 1024;
/// Bytes that a value in a list or object counts beside its own.
const ITEM: usize = 16;
/// How deep lists and objects lie in each other.
const DEPTH: usize = 32;
/// Bytes that a filter or method may make, as the product of what it is given.
const MAX_WORK: usize = 16 * 1024 * 1024;
/// Bytes of what a template writes.
const MAX_TEXT: usize = 1024 * 1024;

/// Minijinja's filters. `format` is none of ours: it makes texts as wide as a number in a text says.
const FILTERS: [&str; 46] = [
    "abs",
    "attr",
    "batch",
    "bool",
    "chain",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "zip",
];
/// Operators that make texts longer, each with a filter of its name.
const OPERATORS: [(&str, &str); 3] = [("~", "a ~ b"), ("+", "a + b"), ("*", "a * b")];
const FORMAT: &str = "format";

/// Computes what has been measured.
static UNBOUNDED: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.remove_filter(FORMAT);
    environment
});

/// The text that a template writes, with transformers' whitespace and functions.
///
/// # Errors
///
/// What is wrong with the template, what it says against the conversation (`raise_exception`), and what it takes
/// more of than one conversation can need: bytes, steps, texts.
pub(super) fn render(template: &str, values: Value) -> Result<String, Error> {
    if template.len() > MAX_TEMPLATE {
        let n = template.len();
        return Err(refusal(format!("it has {n} bytes, expected at most {MAX_TEMPLATE}")));
    }
    // As transformers renders them.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    let name = "<string>";
    let mut compiler = CodeGenerator::new(name, template);
    compiler.compile_stmt(&machinery::parse(template, name, syntax)?);
    let (mut instructions, mut blocks) = compiler.finish();
    measure(&mut instructions)?;
    blocks.values_mut().try_for_each(measure)?;
    let environment = environment();
    let mut text = String::new();
    let mut output = machinery::make_string_output(&mut text);
    let done = machinery::eval(
        &environment,
        &instructions,
        values,
        &blocks,
        &mut output,
        minijinja::AutoEscape::None,
    )
    .map(drop);
    match done {
        Err(error) if error.kind() == ErrorKind::OutOfFuel => {
            Err(refusal(format!("it takes more than {STEPS} steps")))
        }
        Err(error) => Err(error),
        Ok(()) if text.len() > MAX_TEXT => Err(too_long(MAX_TEXT)),
        Ok(()) => Ok(text),
    }
}

/// Puts filters in the place of what makes values of values.
fn measure(instructions: &mut Instructions<'_>) -> Result<(), Error> {
    let count = |n: usize| {
        u16::try_from(n)
            .map_err(|_| refusal(format!("it has a list of {n} values, expected at most 65535")))
    };
    let mut i = 0;
    while let Some(instruction) = instructions.get_mut(i) {
        let measured = match instruction {
            Instruction::StringConcat => Some(("~", Some(2))),
            Instruction::Add => Some(("+", Some(2))),
            Instruction::Mul => Some(("*", Some(2))),
            Instruction::BuildList(n) => Some(("[]", n.map(count).transpose()?)),
            Instruction::BuildTuple(n) => Some(("()", n.map(count).transpose()?)),
            Instruction::BuildMap(n) => Some(("{}", Some(count(n.saturating_mul(2))?))),
            _ => None,
        };
        if let Some((filter, n)) = measured {
            // The last number: looked up each time.
            *instruction = Instruction::ApplyFilter(filter, n, u8::MAX);
        }
        i += 1;
    }
    Ok(())
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(STEPS));
    environment.remove_filter(FORMAT);
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(refusal(message))
    });
    for name in FILTERS {
        environment.add_filter(name, move |arguments: Rest<ValueOrKwargs>| {
            let arguments = arguments.into_values();
            check_work(&arguments)?;
            checked(UNBOUNDED.empty_state().apply_filter(name, &arguments)?)
        });
    }
    for (name, expression) in OPERATORS {
        environment.add_filter(name, move |a: Value, b: Value| {
            if name == "*" && !(a.is_number() && b.is_number()) {
                check_work(&[a.clone(), b.clone()])?;
            } else if size(&a)?.saturating_add(size(&b)?) > MAX_VALUE {
                return Err(too_long(MAX_VALUE));
            }
            checked(compute(expression, a, b)?)
        });
    }
    let sized = |values: &[Value]| sizes(values, DEPTH - 1).map(drop);
    environment.add_filter("[]", move |values: Rest<ValueOrKwargs>| {
        let values = values.into_values();
        sized(&values)?;
        Ok::<_, Error>(Value::from(values))
    });
    environment.add_filter("()", move |values: Rest<ValueOrKwargs>| {
        let values = values.into_values();
        sized(&values)?;
        let empty = UNBOUNDED.compile_expression("()")?.eval(())?;
        values.iter().try_fold(empty, |tuple, value| compute("a + (b,)", tuple, value.clone()))
    });
    environment.add_filter("{}", move |values: Rest<ValueOrKwargs>| {
        let values = values.into_values();
        sized(&values)?;
        let (pairs, _) = values.as_chunks::<2>();
        let map: BTreeMap<Value, Value> =
            pairs.iter().cloned().map(<(Value, Value)>::from).collect();
        Ok::<_, Error>(Value::from_object(map))
    });
    environment.set_unknown_method_callback(|state, value, method, arguments| {
        if method == FORMAT {
            return Err(Error::from(ErrorKind::UnknownMethod));
        }
        check_work(&[std::slice::from_ref(value), arguments].concat())?;
        checked(unknown_method_callback(state, value, method, arguments)?)
    });
    let written = AtomicUsize::new(0);
    environment.set_formatter(move |output, state, value| {
        let size = size(value)?;
        if written.fetch_add(size, Ordering::Relaxed) + size > MAX_TEXT {
            return Err(too_long(MAX_TEXT));
        }
        escape_formatter(output, state, value)
    });
    environment
}

/// What an expression is of two values.
fn compute(expression: &'static str, a: Value, b: Value) -> Result<Value, Error> {
    UNBOUNDED.compile_expression(expression)?.eval(context! { a, b })
}

fn refusal(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn too_long(limit: usize) -> Error {
    refusal(format!("it makes a text of more than {limit} bytes"))
}

/// A text that is not too long, or another value.
fn checked(value: Value) -> Result<Value, Error> {
    if value.as_str().is_some_and(|text| text.len() > MAX_VALUE) {
        return Err(too_long(MAX_VALUE));
    }
    Ok(value)
}

/// Refuses what could make too much of its arguments: every byte of the first may become all bytes of the others, and
/// as many as a number among them says.
fn check_work(arguments: &[Value]) -> Result<(), Error> {
    let Some((first, others)) = arguments.split_first() else { return Ok(()) };
    let mut most = 1_usize;
    for other in others {
        most = most.saturating_add(weight(other)?);
    }
    // A number is what a filter is for (`abs`), or how often an operator repeats what stands behind it.
    let first = if others.is_empty() { size(first)? } else { weight(first)? };
    if most.saturating_mul(first.saturating_add(1)) > MAX_WORK {
        return Err(too_long(MAX_WORK));
    }
    Ok(())
}

/// The size of a value, and the number that it is.
fn weight(value: &Value) -> Result<usize, Error> {
    let mut weight = size(value)?;
    if value.is_number() {
        let n = value.as_i64().map_or(u64::MAX, i64::unsigned_abs);
        weight = weight.saturating_add(usize::try_from(n).unwrap_or(usize::MAX));
    }
    if value.is_kwargs() {
        for name in value.try_iter()? {
            weight = weight.saturating_add(self::weight(&value.get_item(&name)?)?);
        }
    }
    Ok(weight)
}

/// About the bytes of a value.
fn size(value: &Value) -> Result<usize, Error> {
    sizes(std::slice::from_ref(value), DEPTH)
}

/// About the bytes of values, at most [`MAX_VALUE`].
fn sizes(values: &[Value], depth: usize) -> Result<usize, Error> {
    let mut left = MAX_VALUE;
    values.iter().try_for_each(|value| subtract(value, depth, &mut left))?;
    Ok(MAX_VALUE - left)
}

fn subtract(value: &Value, depth: usize, left: &mut usize) -> Result<(), Error> {
    let n = value.as_str().map_or(ITEM, str::len);
    *left = left.checked_sub(n).ok_or_else(|| too_long(MAX_VALUE))?;
    let is_map = value.kind() == ValueKind::Map;
    if !is_map && !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(());
    }
    let depth = depth
        .checked_sub(1)
        .ok_or_else(|| refusal(format!("it nests values more than {DEPTH} deep")))?;
    for item in value.try_iter()? {
        // Even empty texts are many where there is no end.
        *left = left.checked_sub(ITEM).ok_or_else(|| too_long(MAX_VALUE))?;
        subtract(&item, depth, left)?;
        if is_map {
            subtract(&value.get_item(&item)?, depth, left)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(template: &str) -> Result<String, String> {
        render(template, context! { word => "ab", n => 7 }).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn operators_filters_and_methods_are_those_of_the_language() {
        let check = |template: &str, expected: &str| {
            assert_eq!(ran(template).as_deref(), Ok(expected), "{template}");
        };
        check("{{ word ~ n ~ none }}", "ab7None");
        check("{{ word + 'c' }}{{ n + 1 }}{{ ([n] + [1]) | length }}", "abc82");
        check("{{ word * 3 }}{{ n * n * 1000000 }}", "ababab49000000");
        check("{{ nothing ~ word }}{{ nothing | default('-') }}", "ab-");
        check("{{ word | replace('a', 'x') }}{{ [1, 2] | join(', ') }}", "xb1, 2");
        check("{{ word.replace('a', 'x') }}{{ word.split('b')[0] }}", "xba");
        check("{{ {'a': word} | tojson(indent=1) }}", "{\n \"a\": \"ab\"\n}");
        check("{{ ['a', 'b'] | map('upper') | join }}{{ (0 - 100000000) | abs }}", "AB100000000");
        check(
            "{{ [n, 'a'] }}{{ (n, 'a') }}{{ (n,) }}{{ {'b': [n], 'a': 2} }}",
            "[7, 'a'](7, 'a')(7,){'a': 2, 'b': [7]}",
        );
        check(
            "{% for k, v in {'a': n}.items() %}{{ k }}{{ v }}{% endfor %}{{ n in [7, 8] }}",
            "a7True",
        );
        check(
            "{{ dict(a=n).a }}{{ range(3) | list | length }}{{ [1, 2][::-1][0] }}{{ loop }}",
            "732",
        );
        check(
            "{% macro f(a, b=1) %}{{ a }}{{ b }}{% endmacro %}{{ f(n) }}{{ f(*[1, 2]) }}{{ f(*[3], b=4) }}",
            "711234",
        );
        check("{% set text %}{{ word }}!{% endset %}{{ text }}{{ text }}", "ab!ab!");
        assert!(ran("{{ 'a' + 1 }}").unwrap_err().contains("unsupported types"));
        // Filters without a limit are not there, and all others have one.
        for name in ["format", "unheard"] {
            assert!(
                ran(&format!("{{{{ word | {name} }}}}")).unwrap_err().contains("unknown filter")
            );
        }
        assert!(ran("{{ '{:9}'.format(1) }}").unwrap_err().contains("format"));
    }

    #[test]
    fn what_never_ends_or_takes_all_memory_is_refused() {
        let check = |template: &str, expected: &str| {
            let error = ran(template).unwrap_err();
            assert!(error.contains(expected), "{template}: {error:?} lacks {expected:?}");
        };
        let steps = "more than 20000 steps";
        let nested =
            "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}";
        check(nested, steps);
        check("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "recursion");
        let doubled = |how: &str| {
            format!(
                "{{% set s = namespace(x='ab') %}}{{% for i in range(60) %}}{{% set s.x = {how} %}}{{% endfor %}}\
                 {{{{ s.x | length }}}}"
            )
        };
        let long = "a text of more than";
        for how in [
            "s.x ~ s.x",
            "s.x + s.x",
            "s.x * 2",
            "2 * s.x",
            "[s.x, s.x] | join",
            "[s.x, s.x] | string",
            "[s.x, s.x] | tojson",
            "s.x | replace('a', 'aa')",
            "s.x | replace('', s.x)",
            "s.x.replace('b', 'bb')",
            "''.join([s.x, s.x])",
            "s.x | indent(99999999999)",
            "[s.x] | batch(99999999999, 'x') | list",
            "s.x | tojson(indent=99999999999)",
            "s.x * 99999999",
        ] {
            check(&doubled(how), long);
        }
        // Lists, tuples and objects of themselves; and what is written to a variable.
        for how in ["[s.x, s.x]", "(s.x, s.x)", "s.x + s.x", "{'a': s.x, 'b': s.x}"] {
            check(&doubled(how).replace("x='ab'", "x=['ab']"), long);
        }
        check(&doubled("[s.x]"), "more than 32 deep");
        let captured = "{% set s = namespace(x='ab') %}{% for i in range(60) %}{% set y %}{{ s.x }}{{ s.x }}{% endset %}\
                        {% set s.x = y %}{% endfor %}";
        check(captured, long);
        let raw = format!("{{% for i in range(200) %}}{}{{% endfor %}}", "x".repeat(10_000));
        check(&raw, long);
        check(&" ".repeat(MAX_TEMPLATE + 1), "expected at most 262144");
    }
}
