//! The API as a document: OpenAPI 3.1, made of the table in `routes`, served at `/-/openapi.json`.
//!
//! The table is data: paths, methods, parameters, bodies, answers. What an error means is not written
//! here a second time: each call names its [`ErrorCode`]s, and their status and their name come from
//! there. A test beside the edge's `Target` holds paths and methods against what is really served.
//!
//! Left out, because it is the same everywhere: `OPTIONS`, and `HEAD`, which is served wherever `GET`
//! is but for running a script.
//!
//! Invariants, each held by a test:
//! - Every reference leads to something, and every component is referred to.
//! - Each call has a name of its own, and declares each parameter of its path.
//! - Every [`ErrorCode`] is named by a call.

mod routes;
mod schemas;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use self::routes::{Answer, Call, Content, PARAMETERS, Parameter, Place, ROUTES};
use super::error::ErrorCode;

const VERSION: &str = "3.1.1";
const TITLE: &str = "KVdb";
const ABOUT: &str = "A replicated key-value store with Lua scripts. The same on every node; ask any. \
    `HEAD` is served wherever `GET` is, but for running a script.";

/// The whole document as JSON text.
#[must_use]
pub fn document() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| build().to_string());
    &TEXT
}

fn build() -> Value {
    json!({
        "openapi": VERSION,
        "info": {
            "title": TITLE,
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths(),
        "components": {
            "securitySchemes": schemas::security(),
            "parameters": object(PARAMETERS.iter().map(|p| (p.key, parameter(p)))),
            "headers": object(routes::HEADERS.iter().map(|(name, about, kind)| {
                (*name, json!({ "description": about, "schema": { "type": kind } }))
            })),
            "schemas": schemas::all(),
        },
    })
}

fn object<K: Into<String>>(entries: impl Iterator<Item = (K, Value)>) -> Value {
    Value::Object(entries.map(|(name, value)| (name.into(), value)).collect())
}

/// The same object with another field, where there is something to say.
fn with(mut object: Value, field: &str, value: Option<Value>) -> Value {
    if let (Some(fields), Some(value)) = (object.as_object_mut(), value) {
        fields.insert(field.to_owned(), value);
    }
    object
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn paths() -> Value {
    object(ROUTES.iter().map(|(path, calls)| {
        (*path, object(calls.iter().map(|call| (call.method.as_str(), operation(path, call)))))
    }))
}

fn operation(path: &'static str, call: &Call) -> Value {
    let inside = in_path(path);
    let parameters = inside.into_iter().chain(call.parameters.iter().copied());
    let operation = json!({
        "operationId": call.id,
        "summary": call.summary,
        "description": format!("Needs: {}.", call.needs),
        "parameters": parameters.map(|key| reference("parameters", key)).collect::<Vec<_>>(),
        "responses": responses(call),
        "security": schemas::who(call.needs),
    });
    let body = || json!({ "required": true, "content": content(call.body) });
    with(operation, "requestBody", (!call.body.is_empty()).then(body))
}

/// The names in braces.
fn in_path(path: &'static str) -> Vec<&'static str> {
    let parts = path.split('{').skip(1);
    parts.filter_map(|part| part.split_once('}')).map(|(name, _)| name).collect()
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "in": parameter.place.as_str(),
        "required": parameter.place == Place::Path,
        "description": parameter.about,
        "schema": { "type": parameter.kind },
    })
}

fn content(content: Content) -> Value {
    let schema = |name| json!({ "schema": reference("schemas", name) });
    object(content.iter().map(|(media, name)| (*media, schema(name))))
}

fn responses(call: &Call) -> Value {
    let mut responses: Map<String, Value> = Map::new();
    for answer in call.answers {
        responses.insert(answer.status.to_string(), success(call, answer));
    }
    let mut codes: Vec<ErrorCode> = call.errors.iter().copied().flatten().copied().collect();
    codes.sort_by_key(|code| (code.status().as_u16(), code.as_str()));
    codes.dedup();
    for same in codes.chunk_by(|a, b| a.status() == b.status()) {
        if let Some(first) = same.first() {
            responses.insert(first.status().as_u16().to_string(), failure(call, same));
        }
    }
    Value::Object(responses)
}

fn success(call: &Call, answer: &Answer) -> Value {
    let headers = answer.headers.iter().copied().chain(applied(call));
    let response = json!({ "description": answer.about, "headers": headers_of(headers) });
    let body = || content(answer.content);
    with(response, "content", (!answer.content.is_empty()).then(body))
}

fn failure(call: &Call, codes: &[ErrorCode]) -> Value {
    let names: Vec<_> = codes.iter().map(|code| format!("`{code}`")).collect();
    let later = codes.iter().any(|code| matches!(code.status().as_u16(), 429 | 503));
    let headers = later.then_some("Retry-After").into_iter().chain(applied(call));
    json!({
        "description": names.join(", "),
        "headers": headers_of(headers),
        "content": content(routes::ERROR),
    })
}

/// The header that every answer to a mutating call has.
fn applied(call: &Call) -> Option<&'static str> {
    call.mutates().then_some("X-Kvdb-Applied")
}

fn headers_of<'a>(names: impl Iterator<Item = &'a str>) -> Value {
    object(names.map(|name| (name, reference("headers", name))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn parsed() -> Value {
        serde_json::from_str(document()).unwrap()
    }

    fn operations(document: &Value) -> Vec<(String, Value)> {
        let paths = document["paths"].as_object().unwrap();
        let of_path = |(path, methods): (&String, &Value)| -> Vec<_> {
            let methods = methods.as_object().unwrap();
            let named = |(method, operation): (&String, &Value)| {
                (format!("{method} {path}"), operation.clone())
            };
            methods.iter().map(named).collect()
        };
        paths.iter().flat_map(of_path).collect()
    }

    /// Every reference within a value.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(to)) = fields.get("$ref") {
                    found.insert(to.clone());
                }
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn references_lead_somewhere_and_no_component_is_idle() {
        let document = parsed();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for to in &found {
            let pointer = to.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "nothing is at {to}");
        }
        for kind in ["parameters", "headers", "schemas"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                let to = format!("#/components/{kind}/{name}");
                assert!(found.contains(&to), "nothing refers to {to}");
            }
        }
    }

    #[test]
    fn calls_have_a_name_of_their_own_and_declare_their_path() {
        let document = parsed();
        let mut ids = BTreeSet::new();
        for (call, operation) in operations(&document) {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(ids.insert(id.clone()), "{call}: the name {id} is taken");
            let parameters: Vec<_> = operation["parameters"].as_array().unwrap().iter().collect();
            let names: BTreeSet<_> = parameters
                .iter()
                .map(|p| &document.pointer(&p["$ref"].as_str().unwrap()[1..]).unwrap()["name"])
                .map(|name| name.as_str().unwrap())
                .collect();
            assert_eq!(names.len(), parameters.len(), "{call}: a parameter comes twice");
            assert!(in_path_of(&call).is_subset(&names), "{call}: {names:?}");
            let answers = operation["responses"].as_object().unwrap();
            assert!(answers.keys().any(|status| status < &"400".to_owned()), "{call}: no success");
            assert!(answers.keys().any(|status| status >= &"400".to_owned()) || is_bare(&call));
        }
    }

    fn in_path_of(call: &str) -> BTreeSet<&str> {
        call.split('{').skip(1).map(|part| part.split_once('}').unwrap().0).collect()
    }

    /// Answers that cannot fail.
    fn is_bare(call: &str) -> bool {
        ["get /livez", "get /metrics", "get /-/openapi.json", "get /-/cluster"].contains(&call)
    }

    #[test]
    fn every_error_code_is_named_where_its_status_is() {
        let document = parsed();
        for code in ErrorCode::ALL {
            let status = code.status().as_u16().to_string();
            let named = operations(&document).iter().any(|(_, operation)| {
                let about = &operation["responses"][&status]["description"];
                about.as_str().is_some_and(|about| about.contains(&format!("`{code}`")))
            });
            assert!(named, "no call answers {status} `{code}`");
        }
    }

    /// The table of errors in the reference, a row for each status, says what the codes say.
    #[test]
    fn the_reference_names_every_error_code() {
        let reference = include_str!("../../docs/api.md");
        let (_, table) = reference.split_once("\n## Errors\n").unwrap();
        for code in ErrorCode::ALL {
            let row = table.lines().find(|line| line.contains(&format!("`{code}`")));
            let row = row.unwrap_or_else(|| panic!("`{code}` is not in docs/api.md"));
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let status = code.status().as_u16().to_string();
            let retryable = if code.is_retryable() { "yes" } else { "no" };
            let expected = [&status, retryable, code.applied().as_str()];
            assert_eq!([cells[1], cells[3], cells[4]], expected, "`{code}`: {row}");
        }
    }

    #[test]
    fn what_mutates_says_what_became_of_it() {
        for (call, operation) in operations(&parsed()) {
            let silent = |answer: &Value| answer["headers"].get("X-Kvdb-Applied").is_none();
            let answers = operation["responses"].as_object().unwrap();
            let reads = call.starts_with("get ") && !call.ends_with("/scripts/{script}");
            assert!(answers.values().all(|answer| silent(answer) == reads), "{call}");
        }
    }
}
