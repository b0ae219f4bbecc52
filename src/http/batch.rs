//! `POST /BUCKET`: several operations on keys, all or nothing.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Edge;
use super::answer::Outcome;
use super::call::{Call, Payload};
use super::leader::{Write, write_on_leader};
use crate::error::{Error, Result};
use crate::kv::limits::{BATCH_OPERATIONS_MAX, TRANSACTION_BYTES_MAX};
use crate::kv::{BucketName, Key, Lifetime, Number, Operation, Step};

/// The body: an object, so that there can be more beside the list.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    txn: Operations<'a>,
}

/// The operations as they were sent. Read with its limits: a body is large, and most of it may be noise.
struct Operations<'a>(Vec<BTreeMap<String, &'a RawValue>>);

/// Most fields of an operation.
const FIELDS_MAX: usize = 4;

impl<'de: 'a, 'a> Deserialize<'de> for Operations<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Vec<BTreeMap<String, &'de RawValue>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of operations")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> std::result::Result<Self::Value, A::Error> {
                let mut operations = Vec::new();
                while let Some(OperationFields(fields)) = items.next_element()? {
                    if operations.len() == BATCH_OPERATIONS_MAX {
                        return Err(A::Error::custom(TOO_MANY));
                    }
                    operations.push(fields);
                }
                Ok(operations)
            }
        }
        deserializer.deserialize_seq(List).map(Operations)
    }
}

/// The fields of one operation; each once, and not many.
struct OperationFields<'a>(BTreeMap<String, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for OperationFields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = BTreeMap<String, &'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an operation")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut items: A,
            ) -> std::result::Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = items.next_entry::<String, &'de RawValue>()? {
                    if fields.len() == FIELDS_MAX || fields.insert(name, value).is_some() {
                        return Err(A::Error::custom("a field twice, or too many fields"));
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Fields).map(OperationFields)
    }
}

/// What reading fails with where there are too many operations.
const TOO_MANY: &str = "too many operations";

/// Runs a transaction.
pub(super) async fn run(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    bucket: &BucketName,
) -> Outcome {
    call.check_unconditional()?;
    let limit = ("a transaction", TRANSACTION_BYTES_MAX);
    let value_bytes_max = edge.value_bytes_max;
    let operation = |body: Bytes| Ok(Operation::Batch(steps(&body, value_bytes_max)?));
    write_on_leader(edge, call, payload, Write::plain(bucket, limit), operation).await
}

fn steps(body: &Bytes, value_bytes_max: usize) -> Result<Vec<Step>> {
    let body: Body<'_> = serde_json::from_slice(body).map_err(|e| {
        if e.to_string().starts_with(TOO_MANY) {
            let text = format!("a transaction has at most {BATCH_OPERATIONS_MAX} operations");
            return Error::invalid(text);
        }
        Error::invalid(format!("send {{\"txn\":[…]}}: line {}, column {}", e.line(), e.column()))
    })?;
    let numbered = body.txn.0.iter().enumerate();
    let step = |(index, fields)| {
        let fields = Fields { index, fields };
        let step = fields.step(value_bytes_max)?;
        fields.check_names(&step).map(|()| step)
    };
    numbered.map(step).collect()
}

/// One operation's fields as they were sent.
struct Fields<'a> {
    index: usize,
    fields: &'a BTreeMap<String, &'a RawValue>,
}

impl Fields<'_> {
    fn step(&self, value_bytes_max: usize) -> Result<Step> {
        let verbs = ["set", "delete", "incr", "get", "check"];
        let mut named = verbs.into_iter().filter(|verb| self.fields.contains_key(*verb));
        let (Some(verb), None) = (named.next(), named.next()) else {
            return Err(self.wrong("name one of set, delete, incr, get, check with a key"));
        };
        let key = Key::parse(self.string(verb)?)?;
        Ok(match verb {
            "set" => {
                let value = self.value()?;
                if value.len() > value_bytes_max {
                    let max = value_bytes_max as u64;
                    return Err(Error::TooLarge { limit: "a value", max });
                }
                Step::Set { key, value, lifetime: self.lifetime()? }
            }
            "delete" => Step::Delete { key },
            "incr" => Step::Increment { key, by: self.by()?, lifetime: self.lifetime()? },
            "get" => Step::Get { key },
            _ => Step::Check { key, version: self.version()? },
        })
    }

    /// A misspelt `ttl` that is ignored would keep a key for ever.
    fn check_names(&self, step: &Step) -> Result<()> {
        let known: &[&str] = match step {
            Step::Set { .. } => &["set", "value", "value_base64", "ttl"],
            Step::Increment { .. } => &["incr", "by", "ttl"],
            Step::Delete { .. } => &["delete"],
            Step::Get { .. } => &["get"],
            Step::Check { .. } => &["check", "version"],
        };
        match self.fields.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(self.wrong(&format!("`{}` is not known here", name.escape_debug()))),
            None => Ok(()),
        }
    }

    fn raw(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|raw| raw.get().trim())
    }

    fn string(&self, name: &str) -> Result<String> {
        let raw = self.raw(name).unwrap_or_default();
        serde_json::from_str(raw).map_err(|_| self.wrong(&format!("`{name}` is a string")))
    }

    /// A string as it is, a number as it is spelled, all else as JSON without blanks.
    fn value(&self) -> Result<Bytes> {
        match (self.raw("value"), self.raw("value_base64")) {
            (Some(raw), None) if raw.starts_with('"') => self.string("value").map(Bytes::from),
            (Some(raw), None) => Ok(without_blanks(raw).into()),
            (None, Some(_)) => {
                let bytes = BASE64_STANDARD.decode(self.string("value_base64")?);
                Ok(bytes.map_err(|_| self.wrong("`value_base64` is base64"))?.into())
            }
            _ => Err(self.wrong("`set` takes a `value`, or a `value_base64`")),
        }
    }

    fn by(&self) -> Result<Number> {
        match self.raw("by") {
            None => Ok(Number::Int(1)),
            Some(raw) if raw.starts_with('"') => Number::parse(self.string("by")?.as_bytes()),
            Some(raw) => Number::parse(raw.as_bytes()),
        }
    }

    fn lifetime(&self) -> Result<Lifetime> {
        match self.raw("ttl") {
            None | Some("null") => Ok(Lifetime::Default),
            Some(raw) => {
                let seconds = raw.parse();
                let wrong = |_| self.wrong("`ttl` is a whole number of seconds; 0 is for ever");
                Lifetime::of_seconds(seconds.map_err(wrong)?)
            }
        }
    }

    fn version(&self) -> Result<Option<u64>> {
        match self.raw("version") {
            Some("null") => Ok(None),
            Some(raw) => raw.parse().map(Some).map_err(|_| self.wrong("`version` is a number")),
            None => Err(self.wrong("`check` takes a `version`; null where the key must be absent")),
        }
    }

    fn wrong(&self, what: &str) -> Error {
        Error::invalid(format!("operation {} of the transaction: {what}", self.index + 1))
    }
}

/// JSON without what lies between its parts. Numbers keep their spelling.
fn without_blanks(json: &str) -> String {
    let (mut text, mut in_string, mut escaped) = (String::with_capacity(json.len()), false, false);
    for c in json.chars() {
        if in_string || !c.is_ascii_whitespace() {
            text.push(c);
        }
        match c {
            '"' if !escaped => in_string = !in_string,
            '\\' if in_string => {
                escaped = !escaped;
                continue;
            }
            _ => {}
        }
        escaped = false;
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(body: &str) -> Result<Vec<Step>> {
        steps(&Bytes::copy_from_slice(body.as_bytes()), 100)
    }

    fn value(json: &str) -> String {
        match parsed(&format!(r#"{{"txn":[{{"set":"k","value":{json}}}]}}"#)).unwrap().pop() {
            Some(Step::Set { value, .. }) => String::from_utf8(value.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_are_kept_to_the_last_digit() {
        for (json, stored) in [
            (r#""a\nb""#, "a\nb"),
            ("9007199254740993", "9007199254740993"),
            ("1.50", "1.50"),
            ("true", "true"),
            ("null", "null"),
            (
                r#"{ "a" : [1, " b \" c ", 9007199254740993] }"#,
                r#"{"a":[1," b \" c ",9007199254740993]}"#,
            ),
        ] {
            assert_eq!(value(json), stored, "{json}");
        }
    }

    #[test]
    fn every_operation() {
        let key = |name: &str| Key::parse(name.to_owned()).unwrap();
        let body = r#"{"txn":[
            {"set":"a","value_base64":"/w==","ttl":60}, {"delete":"b"}, {"incr":"c","by":-2},
            {"incr":"c"}, {"get":"d"}, {"check":"e","version":7}, {"check":"f","version":null}]}"#;
        let steps = parsed(body).unwrap();
        let set = Step::Set {
            key: key("a"),
            value: Bytes::from_static(b"\xff"),
            lifetime: Lifetime::Seconds(60),
        };
        let incr = |by| Step::Increment {
            key: key("c"),
            by: Number::Int(by),
            lifetime: Lifetime::Default,
        };
        let check = |name, version| Step::Check { key: key(name), version };
        assert_eq!(
            steps,
            [
                set,
                Step::Delete { key: key("b") },
                incr(-2),
                incr(1),
                Step::Get { key: key("d") },
                check("e", Some(7)),
                check("f", None),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (body, told) in [
            ("", "send {\"txn\":[…]}: line 1"),
            ("[]", "send {\"txn\":[…]}"),
            (
                r#"{"txn":[{"set":"a","value":1},{"set":"a"}]}"#,
                "operation 2 of the transaction: `set`",
            ),
            (r#"{"txn":[{"set":"a","delete":"b"}]}"#, "name one of set"),
            (r#"{"txn":[{"put":"a"}]}"#, "name one of set"),
            (r#"{"txn":[{"get":7}]}"#, "`get` is a string"),
            (r#"{"txn":[{"set":"a","value":1,"tll":2}]}"#, "`tll` is not known"),
            (r#"{"txn":[{"set":"a","value":1,"ttl":-2}]}"#, "`ttl` is a whole number"),
            (r#"{"txn":[{"incr":"a","by":"x"}]}"#, "not a number"),
            (r#"{"txn":[{"set":"a","set":"b","value":1}]}"#, "send {\"txn\":[…]}"),
            (r#"{"txn":[{"a":1,"b":1,"c":1,"d":1,"e":1}]}"#, "send {\"txn\":[…]}"),
            (r#"{"txn":[{"check":"a"}]}"#, "`check` takes a `version`"),
            (r#"{"txn":[{"get":""}]}"#, "at least one byte"),
            (r#"{"txn":[{"set":"a","value_base64":"*"}]}"#, "is base64"),
        ] {
            let error = parsed(body).unwrap_err();
            assert!(
                matches!(error, Error::Invalid(_)) && error.to_string().contains(told),
                "{error}"
            );
        }
        let long = format!(r#"{{"txn":[{{"set":"a","value":"{}"}}]}}"#, "x".repeat(101));
        assert!(matches!(parsed(&long), Err(Error::TooLarge { .. })));
        let many = format!(r#"{{"txn":[{}]}}"#, vec![r#"{"get":"a"}"#; 1001].join(","));
        assert!(parsed(&many).is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(body: String) {
            let _ = parsed(&body);
            let _ = parsed(&format!(r#"{{"txn":[{body}]}}"#));
        }

        #[test]
        fn blanks_go_and_the_meaning_stays(text: String, number: i64) {
            let json = serde_json::json!({ &text: [number, text, null] });
            let pretty = serde_json::to_string_pretty(&json).unwrap();
            prop_assert_eq!(without_blanks(&pretty), json.to_string());
        }
    }
}
