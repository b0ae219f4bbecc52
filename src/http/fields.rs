//! The named fields of a small body, sent as a form or as JSON.
//!
//! Both come to the same: a text for each name. Unknown names are ignored; what is neither form nor JSON is
//! refused. Values may be keys: no error repeats one.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use super::call::Call;
use super::query::Query;
use crate::error::{Error, Result};

/// Fields that some call reads: an object in the place of a key would leave a bucket without it.
const KNOWN: [&str; 15] = [
    "id",
    "email",
    "secret_key",
    "write_key",
    "read_key",
    "signing_key",
    "previous_signing_key",
    "keep_signing_key",
    "default_ttl",
    "max_keys",
    "max_bytes",
    "prefix",
    "permissions",
    "ttl",
    "access_token",
];

/// Names and their texts. JSON's `null` is the empty text.
#[derive(Clone, Default)]
pub(super) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Reads a body.
    pub(super) fn parse(call: &Call, body: &Bytes) -> Result<Self> {
        if call.is_content("application/json") {
            return from_json(body);
        }
        check_form(call, body)?;
        let form = Query::parse(body);
        Ok(Fields(form.texts().map(|(name, value)| (name.to_owned(), value)).collect()))
    }

    /// A field's text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether a field is there and does not say no.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| !matches!(text, "" | "0" | "false" | "no"))
    }

    /// A field's number; nothing where it is absent or empty.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>> {
        let text = self.text(name).filter(|text| !text.is_empty());
        let bad = |_| Error::invalid(format!("`{name}` is a whole number, 0 or more"));
        text.map(|text| text.parse().map_err(bad)).transpose()
    }

    /// A field's number; 0, which takes a limit away, where it is empty.
    pub(super) fn limit(&self, name: &str) -> Result<Option<u64>> {
        let emptied = self.text(name).filter(|text| text.is_empty()).map(|_| 0);
        Ok(self.number(name)?.or(emptied))
    }
}

/// Refuses what is no form. Read as one it would name no field, and make a bucket without its keys:
/// curl calls JSON a form too, where nobody says otherwise.
fn check_form(call: &Call, body: &Bytes) -> Result<()> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if body.is_empty() || (call.is_form() && !matches!(first, Some(b'{' | b'['))) {
        return Ok(());
    }
    Err(Error::invalid(
        "the body is not a form: send JSON with `Content-Type: application/json`, or a form with \
         `Content-Type: application/x-www-form-urlencoded`",
    ))
}

fn from_json(body: &Bytes) -> Result<Fields> {
    let fields: BTreeMap<String, Value> = serde_json::from_slice(body).map_err(|e| {
        // serde's message can quote what it met, which may be a key: only the place is told.
        let (line, column) = (e.line(), e.column());
        Error::invalid(format!("the body is not a JSON object (line {line}, column {column})"))
    })?;
    let mut texts = BTreeMap::new();
    for (name, value) in fields {
        let text = match value {
            Value::Null => String::new(),
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            // A list of words is also written with commas.
            Value::Array(words) if name == "permissions" && words.iter().all(Value::is_string) => {
                let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
                words.join(",")
            }
            Value::Array(_) | Value::Object(_) if KNOWN.contains(&name.as_str()) => {
                return Err(Error::invalid(format!("`{name}` is a text or a number")));
            }
            Value::Array(_) | Value::Object(_) => continue,
        };
        texts.insert(name, text);
    }
    Ok(Fields(texts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::call::Origin;

    fn parsed(content_type: &str, body: &'static str) -> Result<Fields> {
        let request =
            http::Request::post("/").header("content-type", content_type).body(()).unwrap();
        let call = Call::new(request.into_parts().0, Origin::default());
        Fields::parse(&call, &Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn forms_and_json_come_to_the_same() {
        let form = parsed("application/x-www-form-urlencoded", "a=x+y&n=7&f=true&e=").unwrap();
        let json = r#"{"a":"x y","n":7,"f":true,"e":null,"o":{}}"#;
        let json = parsed("application/json; charset=utf-8", json).unwrap();
        assert_eq!(form.0, json.0);
        assert_eq!((form.text("a"), form.number("n").unwrap()), (Some("x y"), Some(7)));
        assert!(form.flag("f") && !form.flag("e") && !form.flag("absent"));
        assert_eq!((form.number("e").unwrap(), form.number("absent").unwrap()), (None, None));
        assert_eq!((form.limit("e").unwrap(), form.limit("absent").unwrap()), (Some(0), None));
        assert!(form.number("a").is_err() && form.limit("a").is_err());
        let words = parsed("application/json", r#"{"permissions":["read","write"]}"#).unwrap();
        assert_eq!(words.text("permissions"), Some("read,write"));
    }

    #[test]
    fn what_is_no_form_names_no_field_by_accident() {
        let form = "application/x-www-form-urlencoded";
        let json = r#"{"id":"b","secret_key":"s"}"#;
        for (content_type, body) in [
            (form, json),
            (form, " \n[1]"),
            ("", json),
            ("", "id=b"),
            ("text/plain", "id=b"),
            ("multipart/form-data; boundary=x", "--x\r\n"),
        ] {
            let error = parsed(content_type, body).err().unwrap().to_string();
            assert!(error.contains("`Content-Type: application/json`"), "{content_type}: {error}");
        }
        for content_type in ["", form, "text/plain", "multipart/form-data; boundary=x"] {
            assert!(parsed(content_type, "").unwrap().0.is_empty(), "{content_type}");
        }
        for body in ["", "[1]", "1", "{"] {
            assert!(parsed("application/json", body).is_err(), "{body}");
        }
    }
}
