//! Keys: read on any node, written on the leader.

use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::Edge;
use super::answer::{self, Outcome, TEXT, etag, respond};
use super::call::{Call, Payload};
use super::consistency;
use super::leader::{Write, patiently, write_on_leader};
use crate::api::paths;
use crate::error::{Error, Failure, Missing, Result};
use crate::kv::{
    BucketName, Condition, Key, Lifetime, Number, Operation, Permission, Record, Transaction, grant,
};

/// `X-Kvdb-Expires-At`.
const EXPIRES_AT: HeaderName = HeaderName::from_static(paths::EXPIRES_AT);
/// A version that no key has: what a foreign entity tag matches.
const NO_VERSION: u64 = 0;

/// `GET` and `HEAD`: the value as it was written.
pub(super) async fn get(edge: &Edge, call: &Call, bucket: &BucketName, key: &Key) -> Outcome {
    let consistency = consistency::of(&call.query)?;
    let read = patiently(|| edge.node.read_with(bucket, consistency)).await;
    let (outcome, age) = match read {
        Ok((txn, age)) => (show(txn, call, key), age),
        Err(error) => (Err(error.into()), consistency.stale.then(|| edge.node.state_age())),
    };
    consistency::with_age(edge, call, outcome, age)
}

fn show(mut txn: Transaction, call: &Call, key: &Key) -> Outcome {
    let known = call.texts(&IF_NONE_MATCH)?;
    let revision = txn.read_revision();
    let at_revision = |error| Failure { error, revision: Some(revision) };
    let record = find(&mut txn, call, key).map_err(at_revision)?;
    let mut response = value(&known, record).map_err(at_revision)?;
    answer::set_revision(response.headers_mut(), revision);
    Ok(response)
}

fn find(txn: &mut Transaction, call: &Call, key: &Key) -> Result<Record> {
    grant(txn, &call.credential()?)?.check(Permission::Read, key.bytes())?;
    let shown = || key.bytes().escape_ascii().to_string();
    txn.get(key)?.ok_or_else(|| Error::not_found(Missing::Key, shown()))
}

/// The value, unless the client knows it: `known` are its `If-None-Match` headers.
fn value(known: &[&str], record: Record) -> Result<Response> {
    let tag = etag(record.version)?;
    let expires_at = record.expires_at;
    if known.iter().any(|list| has_tag(list, &tag)) {
        let mut response = respond(StatusCode::NOT_MODIFIED, TEXT, Bytes::new());
        response.headers_mut().remove(CONTENT_TYPE);
        response.headers_mut().insert(ETAG, tag);
        return Ok(response);
    }
    let stored = record.content_type.and_then(|text| HeaderValue::from_str(&text).ok());
    let mut response = respond(StatusCode::OK, stored.unwrap_or(TEXT), record.value);
    let headers = response.headers_mut();
    headers.insert(ETAG, tag);
    if let Some(expires_at) = expires_at {
        headers.insert(EXPIRES_AT, HeaderValue::from(expires_at));
    }
    // Strangers' bytes: a browser is not to guess that they are a page.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// Whether a list of entity tags has this one, compared weakly, as a reader may.
fn has_tag(list: &str, tag: &HeaderValue) -> bool {
    let tags = list.split(',').map(str::trim);
    let mut tags = tags.map(|own| own.strip_prefix("W/").unwrap_or(own));
    tags.any(|own| own == "*" || own.as_bytes() == tag.as_bytes())
}

/// `PUT`, `POST`, `PATCH` and `DELETE`.
pub(super) async fn write(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    bucket: &BucketName,
    key: &Key,
) -> Outcome {
    let (lifetime, condition) = (lifetime(call)?, condition(call)?);
    let limit = ("a value", edge.value_bytes_max);
    let operation = |body| operation(call, key.clone(), (lifetime, condition), body);
    write_on_leader(edge, call, payload, Write::plain(bucket, limit), operation).await
}

fn operation(
    call: &Call,
    key: Key,
    (lifetime, condition): (Lifetime, Condition),
    body: Bytes,
) -> Result<Operation> {
    if call.method == Method::DELETE {
        return Ok(Operation::Delete { key, condition });
    }
    if call.method == Method::PATCH {
        return Ok(Operation::Increment { key, by: Number::parse(&body)?, lifetime, condition });
    }
    let content_type = content_type(call)?;
    Ok(Operation::Set { key, value: body, content_type, lifetime, condition })
}

/// The type that a value is served with again. curl calls every body a form, so a form is no type.
fn content_type(call: &Call) -> Result<Option<String>> {
    let Some(header) = call.headers.get(CONTENT_TYPE).filter(|_| !call.is_form()) else {
        return Ok(None);
    };
    let text = header.to_str().map_err(|_| Error::invalid("the Content-Type is not ASCII"))?;
    Ok(Some(text.to_owned()))
}

/// How long what is written lives.
fn lifetime(call: &Call) -> Result<Lifetime> {
    match call.query.text("ttl") {
        None => Ok(Lifetime::Default),
        Some(text) => {
            let seconds = text
                .parse()
                .map_err(|_| Error::invalid("`ttl` is a whole number of seconds; 0 is for ever"))?;
            Lifetime::of_seconds(seconds)
        }
    }
}

/// What `If-Match` or `If-None-Match` ask of the version that is there.
fn condition(call: &Call) -> Result<Condition> {
    let header = |name: &HeaderName| match call.texts(name)?.as_slice() {
        [] => Ok(None),
        [text] => Ok(Some(*text)),
        _ => Err(Error::invalid(format!("send one `{name}` only"))),
    };
    match (header(&IF_MATCH)?, header(&IF_NONE_MATCH)?) {
        (None, None) => Ok(Condition::Any),
        (Some("*"), None) => Ok(Condition::Present),
        (Some(tag), None) => Ok(Condition::Version(version(tag)?)),
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(_)) => Err(Error::invalid("on a write, If-None-Match takes only `*`")),
        (Some(_), Some(_)) => Err(Error::invalid("send If-Match or If-None-Match, not both")),
    }
}

fn version(tag: &str) -> Result<u64> {
    let quoted = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match quoted {
        Some(inner) if !inner.contains('"') => Ok(own_version(inner).unwrap_or(NO_VERSION)),
        _ => Err(Error::invalid("If-Match takes one version in quotes, `\"12\"`, or `*`")),
    }
}

/// The version in an entity tag of ours; `+12` and `012` parse, but are not what we say for 12.
fn own_version(text: &str) -> Option<u64> {
    let version: u64 = text.parse().ok()?;
    Some(version).filter(|version| version.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::call::Origin;

    fn call(method: &str, uri: &str, headers: &[(&str, &str)]) -> Call {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Call::new(request.body(()).unwrap().into_parts().0, Origin::default())
    }

    #[test]
    fn conditions() {
        let parse = |headers: &[(&str, &str)]| condition(&call("PUT", "/b/k", headers)).ok();
        assert_eq!(parse(&[]), Some(Condition::Any));
        assert_eq!(parse(&[("if-match", "*")]), Some(Condition::Present));
        assert_eq!(parse(&[("if-match", "\"12\"")]), Some(Condition::Version(12)));
        assert_eq!(parse(&[("if-match", "\"abc\"")]), Some(Condition::Version(NO_VERSION)));
        for foreign in ["\"+12\"", "\"012\"", "\" 12\"", "\"\"", "\"99999999999999999999\""] {
            let none = Some(Condition::Version(NO_VERSION));
            assert_eq!(parse(&[("if-match", foreign)]), none, "{foreign}");
        }
        assert_eq!(parse(&[("if-none-match", "*")]), Some(Condition::Absent));
        for bad in [
            &[("if-match", "12")][..],
            &[("if-match", "W/\"12\"")],
            &[("if-match", "\"1\", \"2\"")],
            &[("if-match", "\"1\""), ("if-match", "\"2\"")],
            &[("if-match", "\"")],
            &[("if-none-match", "\"12\"")],
            &[("if-match", "*"), ("if-none-match", "*")],
            &[("if-match", "é")],
            &[("if-none-match", "é")],
            &[("if-match", "")],
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_a_write_does() {
        let key = || Key::parse("k").unwrap();
        let run = |method: &str, headers: &[(&str, &str)], body: &'static str| {
            operation(
                &call(method, "/b/k", headers),
                key(),
                (Lifetime::Default, Condition::Any),
                body.into(),
            )
        };
        let set = |value: &'static str, content_type: Option<&str>| Operation::Set {
            key: key(),
            value: value.into(),
            content_type: content_type.map(str::to_owned),
            lifetime: Lifetime::Default,
            condition: Condition::Any,
        };
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let html = [("content-type", "text/html; charset=utf-8")];
        assert_eq!(run("PUT", &[], "a=b").unwrap(), set("a=b", None));
        assert_eq!(run("POST", &form, "a=b").unwrap(), set("a=b", None));
        assert_eq!(run("PUT", &html, "x").unwrap(), set("x", Some("text/html; charset=utf-8")));
        let (by, condition) = (Number::Int(-3), Condition::Any);
        assert_eq!(
            run("PATCH", &form, "-3").unwrap(),
            Operation::Increment { key: key(), by, lifetime: Lifetime::Default, condition }
        );
        assert_eq!(run("DELETE", &[], "x").unwrap(), Operation::Delete { key: key(), condition });
        assert!(run("PATCH", &[], "three").is_err() && run("PATCH", &[], "").is_err());
    }

    #[test]
    fn a_ttl_is_a_whole_number_of_seconds() {
        let ttl = |uri: &str| lifetime(&call("PUT", uri, &[])).ok();
        assert_eq!(ttl("/b/k"), Some(Lifetime::Default));
        assert_eq!(ttl("/b/k?ttl=0"), Some(Lifetime::Unlimited));
        assert_eq!(ttl("/b/k?ttl=60"), Some(Lifetime::Seconds(60)));
        for bad in ["", "x", "-1", "1.5", "18446744073709551616", "999999999999"] {
            assert_eq!(ttl(&format!("/b/k?ttl={bad}")), None, "{bad}");
        }
    }

    #[test]
    fn values_are_served_as_they_were_stored() {
        let record = |content_type: Option<&str>| Record {
            version: 7,
            expires_at: None,
            content_type: content_type.map(str::to_owned),
            value: Bytes::from_static(b"v"),
        };
        let served = |headers: &[(&str, &str)], record| {
            let call = call("GET", "/b/k", headers);
            let response = value(&call.texts(&IF_NONE_MATCH).unwrap(), record).unwrap();
            let content_type = response.headers().get("content-type").cloned();
            assert_eq!(response.headers()["etag"], "\"7\"");
            (response.status().as_u16(), content_type)
        };
        assert_eq!(served(&[], record(None)), (200, Some(TEXT)));
        let png = HeaderValue::from_static("image/png");
        assert_eq!(served(&[], record(Some("image/png"))), (200, Some(png)));
        for tags in ["\"7\"", "W/\"7\"", "\"1\", \"7\"", "*"] {
            assert_eq!(served(&[("if-none-match", tags)], record(None)), (304, None), "{tags}");
        }
        assert_eq!(served(&[("if-none-match", "\"8\"")], record(None)).0, 200);
    }
}
