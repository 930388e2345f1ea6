//! JSON objects read strictly: no key twice, and fields that say what they expected.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::error::{Kind, Problem, quoted};

/// Parses one JSON object, refusing keys that occur twice at any depth.
pub(super) fn object(text: &str) -> Result<Map<String, Value>, Problem> {
    let mut duplicate = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict { duplicate: &mut duplicate }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| {
            let found = format!("{} ({error})", quoted(text));
            Problem::new(Kind::NotJson, "", found, "a JSON object")
        })?;
    if let Some(key) = duplicate {
        return Err(Problem::new(Kind::DuplicateKey, key, "the key twice", "it once"));
    }
    match value {
        Value::Object(fields) => Ok(fields),
        other => Err(Problem::new(Kind::NotJson, "", show(&other), "a JSON object")),
    }
}

/// Builds a [`Value`] and remembers the first key that occurred twice in its object.
struct Strict<'a> {
    duplicate: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(Strict { duplicate: &mut *self.duplicate })? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Strict { duplicate: &mut *self.duplicate })?;
            if fields.contains_key(&key) {
                self.duplicate.get_or_insert(key);
            } else {
                fields.insert(key, value);
            }
        }
        Ok(Value::Object(fields))
    }
}

/// The fields of an object, taken one by one; what is left over is the reader's to judge.
pub(super) struct Fields {
    fields: Map<String, Value>,
    /// Where the object stands in its line: `"audio."`.
    place: String,
}

impl Fields {
    pub(super) fn new(fields: Map<String, Value>, place: impl Into<String>) -> Self {
        Self { fields, place: place.into() }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// The field's value; JSON's `null` counts as absent, as Python writes `None`.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn place(&self, name: &str) -> String {
        format!("{}{name}", self.place)
    }

    pub(super) fn text(&mut self, name: &str) -> Result<String, Problem> {
        self.optional_text(name)?.ok_or_else(|| Problem::missing(self.place(name), "a string"))
    }

    pub(super) fn optional_text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, &other, "a string")),
        }
    }

    /// Text, or a whole number, which many data sets use for ids and speakers.
    pub(super) fn optional_name(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Number(number)) if !number.is_f64() => Ok(Some(number.to_string())),
            Some(other) => Err(self.wrong(name, &other, "a string")),
        }
    }

    pub(super) fn optional_number(&mut self, name: &str) -> Result<Option<f64>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(name, &value, "a number")),
            },
        }
    }

    /// A time that is not negative.
    pub(super) fn optional_start(&mut self, name: &str) -> Result<Option<f64>, Problem> {
        match self.optional_number(name)? {
            Some(start) => check_start(self.place(name), start).map(Some),
            None => Ok(None),
        }
    }

    /// A duration above zero.
    pub(super) fn optional_duration(&mut self, name: &str) -> Result<Option<f64>, Problem> {
        match self.optional_number(name)? {
            Some(duration) => check_duration(self.place(name), duration).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn duration(&mut self, name: &str) -> Result<f64, Problem> {
        self.optional_duration(name)?.ok_or_else(|| Problem::missing(self.place(name), DURATION))
    }

    pub(super) fn optional_index(&mut self, name: &str) -> Result<Option<usize>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => match value.as_u64().and_then(|index| usize::try_from(index).ok()) {
                Some(index) => Ok(Some(index)),
                None => Err(self.wrong(name, &value, "a whole number from 0")),
            },
        }
    }

    pub(super) fn optional_object(&mut self, name: &str) -> Result<Option<Self>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => {
                Ok(Some(Self::new(fields, format!("{}.", self.place(name)))))
            }
            Some(other) => Err(self.wrong(name, &other, "an object")),
        }
    }

    pub(super) fn optional_list(&mut self, name: &str) -> Result<Option<Vec<Value>>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(other) => Err(self.wrong(name, &other, "a list")),
        }
    }

    pub(super) fn wrong(&self, name: &str, found: &Value, expected: &str) -> Problem {
        Problem::new(Kind::WrongType, self.place(name), show(found), expected)
    }

    /// What was not taken.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.fields
    }

    /// Refuses what was not taken.
    pub(super) fn end(self, known: &str) -> Result<(), Problem> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(key) => {
                let field = self.place(key);
                Err(Problem::new(Kind::UnknownField, field, "an unknown key", known))
            }
        }
    }
}

const DURATION: &str = "a number of seconds above 0";

pub(super) fn check_start(field: String, start_s: f64) -> Result<f64, Problem> {
    if start_s.is_finite() && start_s >= 0.0 {
        Ok(start_s)
    } else {
        let expected = "a number of seconds from 0";
        Err(Problem::new(Kind::BadValue, field, start_s.to_string(), expected))
    }
}

pub(super) fn check_duration(field: String, duration_s: f64) -> Result<f64, Problem> {
    if duration_s.is_finite() && duration_s > 0.0 {
        Ok(duration_s)
    } else {
        Err(Problem::new(Kind::BadValue, field, duration_s.to_string(), DURATION))
    }
}

/// A value as a message shows it.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(text) => format!("the string {}", quoted(text)),
        Value::Array(values) => format!("a list of {}", values.len()),
        Value::Object(fields) => format!("an object of {} keys", fields.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_must_not_repeat_at_any_depth() {
        assert_eq!(object(r#"{"a": 1, "a": 1}"#).unwrap_err().kind, Kind::DuplicateKey);
        let deep = object(r#"{"a": [{"b": {"c": 1, "c": 2}}]}"#).unwrap_err();
        assert_eq!((deep.kind, deep.field.as_str()), (Kind::DuplicateKey, "c"));
        assert!(object(r#"{"a": {"b": 1}, "b": 1}"#).is_ok());
    }

    #[test]
    fn only_whole_objects_pass() {
        for text in ["", "{", "[]", "3", r#"{"a": 1} x"#, r#"{"a": NaN}"#, r#"{"a": 1e999}"#, "'"] {
            assert_eq!(object(text).unwrap_err().kind, Kind::NotJson, "{text}");
        }
        let deep = "[".repeat(10_000);
        assert_eq!(object(&format!("{{\"a\": {deep}")).unwrap_err().kind, Kind::NotJson);
    }

    #[test]
    fn values_equal_those_of_serde_json() {
        let text = r#"{"a": [1, -2, 0.1, 1e300, true, null, "\u00e4\n"], "b": {"c": 18446744073709551615}}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(object(text).unwrap()), value);
    }

    #[test]
    fn messages_are_short() {
        let problem = object(&"x".repeat(10_000)).unwrap_err();
        assert!(problem.found.len() < 200, "{}", problem.found);
    }
}
