//! From results to responses: headers that every answer has, formats, errors.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_LENGTH,
    CONTENT_TYPE, ETAG, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::call::{Call, HEAD_BYTES_MAX};
use crate::api::{Applied, ErrorBody, ErrorCode, ErrorDetail, paths};
use crate::error::{Error, Failure, Result};
use crate::kv::Answer;
use crate::node::Told;

/// `X-Kvdb-Applied`.
pub(super) const APPLIED: HeaderName = HeaderName::from_static(paths::APPLIED);
/// `X-Kvdb-Revision`.
pub(super) const REVISION: HeaderName = HeaderName::from_static(paths::REVISION);
/// `X-Kvdb-Truncated`.
pub(super) const TRUNCATED: HeaderName = HeaderName::from_static(paths::TRUNCATED);
/// `Idempotency-Replayed`: `true` on an answer that was given before, under the same key.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// `X-Kvdb-Age-Ms`.
pub(super) const AGE: HeaderName = HeaderName::from_static(paths::AGE);
/// `X-Kvdb-Cursor`.
pub(super) const CURSOR: HeaderName = HeaderName::from_static(paths::CURSOR);
/// The headers that no script may set: they are ours to say.
const OWN_PREFIX: &str = "x-kvdb-";

pub(super) const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const JSON_LINES: HeaderValue = HeaderValue::from_static("application/jsonl");

/// What a browser's script may read of an answer.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "ETag, Location, Retry-After, X-Kvdb-Applied, X-Kvdb-Revision, X-Kvdb-Cursor, X-Kvdb-Truncated, X-Kvdb-Age-Ms, \
     X-Kvdb-Expires-At, Idempotency-Replayed, X-Ratelimit-Limit, X-Ratelimit-Remaining, X-Ratelimit-Reset",
);
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Accept, Cache-Control, If-Match, If-None-Match, Idempotency-Key",
);
const ALLOWED_METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, PUT, POST, PATCH, DELETE, OPTIONS");
/// How long a browser may keep a preflight's answer, in seconds.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("86400");
/// How long to wait before asking again, in seconds.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// What a handler comes to.
pub(super) type Outcome = std::result::Result<Response, Failure>;

/// A format of lists and errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
    JsonLines,
}

impl Format {
    /// What the call asks for: `format`, else `Accept`, else text.
    pub(super) fn of(call: &Call) -> Result<Self> {
        match call.query.text("format").as_deref() {
            None | Some("") => Ok(Self::accepted(call.accept())),
            Some("text") => Ok(Format::Text),
            Some("json") => Ok(Format::Json),
            Some("jsonl") => Ok(Format::JsonLines),
            Some(other) => Err(Error::NotAcceptable(format!(
                "there is no format `{other}`: choose text, json or jsonl"
            ))),
        }
    }

    /// The best of ours in an `Accept` header. What we do not have is no reason to refuse: text.
    pub(super) fn accepted(accept: &str) -> Self {
        let mut best = (0.0, Format::Text);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next().unwrap_or_default() {
                "application/json" => Format::Json,
                "application/jsonl" | "application/x-ndjson" => Format::JsonLines,
                "text/plain" | "text/*" | "*/*" => Format::Text,
                _ => continue,
            };
            let quality = parts.find_map(|p| p.strip_prefix("q=")).map_or(Ok(1.0), str::parse);
            if let Ok(quality) = quality
                && quality > best.0
            {
                best = (quality, format);
            }
        }
        best.1
    }

    /// Its media type.
    pub(super) fn content_type(self) -> HeaderValue {
        match self {
            Format::Text => TEXT,
            Format::Json => JSON,
            Format::JsonLines => JSON_LINES,
        }
    }
}

/// Whether errors are told in JSON.
fn wants_json(call: &Call) -> bool {
    let asked = matches!(call.query.get("format").map(|f| &f[..]), Some(b"json" | b"jsonl"));
    asked || Format::accepted(call.accept()) != Format::Text
}

/// A body with a status and a type.
pub(super) fn respond(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A 200 with text.
pub(super) fn text(body: impl Into<Bytes>) -> Response {
    respond(StatusCode::OK, TEXT, body.into())
}

/// A 200 with JSON.
pub(super) fn json(value: &impl Serialize) -> Result<Response> {
    Ok(respond(StatusCode::OK, JSON, to_json(value)?))
}

/// A value as JSON.
pub(super) fn to_json(value: &impl Serialize) -> Result<Bytes> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::Internal(format!("JSON: {e}")))?;
    Ok(bytes.into())
}

/// Rows in a format: a line of text each, an array, or JSON a line.
pub(super) fn rows<T: Serialize>(
    rows: &[T],
    format: Format,
    line: impl Fn(&T) -> String,
) -> Result<Response> {
    let mut body = Vec::new();
    for row in rows {
        match format {
            Format::Json => return json(&rows),
            Format::JsonLines => body.extend_from_slice(&to_json(row)?),
            Format::Text => body.extend_from_slice(line(row).as_bytes()),
        }
        body.push(b'\n');
    }
    match format {
        Format::Json => json(&rows),
        other => Ok(respond(StatusCode::OK, other.content_type(), body.into())),
    }
}

/// Says what became of a call.
pub(super) fn with_applied(mut response: Response, applied: Applied) -> Response {
    response.headers_mut().insert(APPLIED, HeaderValue::from_static(applied.as_str()));
    response
}

/// Says which revision an answer stands on.
pub(super) fn set_revision(headers: &mut HeaderMap, revision: u64) {
    headers.insert(REVISION, HeaderValue::from(revision));
}

/// A version as an entity tag.
pub(super) fn etag(version: u64) -> Result<HeaderValue> {
    HeaderValue::from_str(&format!("\"{version}\""))
        .map_err(|e| Error::Internal(format!("entity tag: {e}")))
}

/// What the executor answered, as a response. It stands: what cannot be told of it is unknown.
pub(super) fn from_told(told: Told) -> Outcome {
    from_answer(told?).map_err(|error| Error::Unknown(error.to_string()).into())
}

/// What the executor answered, as a response. It is applied unless its status says otherwise, and
/// even then where the script kept its writes.
pub(super) fn from_answer(answer: Answer) -> Result<Response> {
    let status = StatusCode::from_u16(answer.status)
        .map_err(|_| Error::Internal(format!("status {}", answer.status)))?;
    let mut response = respond(status, TEXT, answer.body);
    let headers = response.headers_mut();
    for (name, value) in &answer.headers {
        set_script_header(headers, name, value);
    }
    if let Some(version) = answer.version {
        headers.insert(ETAG, etag(version)?);
    }
    if answer.revision > 0 {
        set_revision(headers, answer.revision);
    }
    if answer.replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    let applied = answer.status < 400 || answer.committed;
    Ok(with_applied(response, if applied { Applied::Yes } else { Applied::No }))
}

/// The guest has checked name and value; what is no header all the same is left out, and a script
/// cannot speak for us.
fn set_script_header(headers: &mut HeaderMap, name: &str, value: &str) {
    let parsed = (name.parse::<HeaderName>(), HeaderValue::from_str(value));
    if let (Ok(name), Ok(value)) = parsed
        && !name.as_str().starts_with(OWN_PREFIX)
    {
        headers.insert(name, value);
    }
}

/// What a request with too many or too long headers is answered; nothing came of it.
pub(super) fn large_head(call: &Call) -> Response {
    let limit = "a request's head (path, query and headers)";
    let error = Error::TooLarge { limit, max: HEAD_BYTES_MAX as u64 };
    let mut response = error_body(call, &error, ErrorCode::TooLarge);
    *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    response
}

/// An error as a response: one line of text, or JSON where it is asked for.
pub(super) fn from_failure(
    call: &Call,
    failure: &Failure,
    allow: Option<&'static str>,
) -> Response {
    let code = ErrorCode::of(&failure.error);
    let mut response = error_body(call, &failure.error, code);
    let headers = response.headers_mut();
    if let Some(revision) = failure.revision {
        set_revision(headers, revision);
    }
    match code {
        ErrorCode::Behind
        | ErrorCode::NoLeader
        | ErrorCode::Overloaded
        | ErrorCode::RateLimited
        | ErrorCode::OutcomeUnknown => {
            headers.insert(RETRY_AFTER, RETRY_SECONDS);
        }
        ErrorCode::Unauthorized => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        ErrorCode::MethodNotAllowed => {
            let allow = allow.unwrap_or_default();
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        _ => {}
    }
    response
}

/// An error as clients may read it: what failed within has paths of this machine in it, and goes to the log.
fn told(error: &Error) -> String {
    match error {
        Error::Corrupt { what, .. } => format!("corrupt {what} on this node: ask another"),
        Error::Io(_) | Error::Internal(_) => "this node failed: its log says why".to_owned(),
        other => other.to_string(),
    }
}

fn error_body(call: &Call, error: &Error, code: ErrorCode) -> Response {
    let message = told(error).replace(['\n', '\r'], " ");
    let traceback = match error {
        Error::Script { traceback, .. } => traceback.clone(),
        _ => None,
    };
    if !wants_json(call) {
        let traceback = traceback.map(|text| format!("{text}\n")).unwrap_or_default();
        return respond(code.status(), TEXT, format!("{message}\n{traceback}").into());
    }
    let (retryable, applied) = (code.is_retryable(), code.applied());
    let code_text = code.as_str().to_owned();
    let error = ErrorDetail { code: code_text, message, retryable, applied, traceback };
    let body = to_json(&ErrorBody { error }).unwrap_or_default();
    respond(code.status(), JSON, body)
}

/// What is allowed at a path; to a browser, everything: the methods that a path lacks answer 405.
pub(super) fn preflight(allow: &'static str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(allow));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    response
}

/// What a HEAD is answered: the head that a GET's answer has, its length included.
pub(super) fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    // A 304 has no body of its own: its length would be taken for the value's (RFC 9110, 8.6).
    if parts.status != StatusCode::NOT_MODIFIED
        && let Some(bytes) = http_body::Body::size_hint(&body).exact()
    {
        parts.headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from(bytes));
    }
    Response::from_parts(parts, Body::empty())
}

/// The headers that every answer has. Only a script may have chosen another `Cache-Control`.
pub(super) fn finish(headers: &mut HeaderMap) {
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::call::Origin;

    fn call(uri: &str, accept: &str) -> Call {
        let request = http::Request::builder().uri(uri).header("accept", accept).body(()).unwrap();
        Call::new(request.into_parts().0, Origin::default())
    }

    async fn shown(response: Response) -> String {
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        format!("{status} {}", String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn the_format_is_named_or_accepted_or_text() {
        for (accept, expected) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("application/json", Format::Json),
            ("application/json, text/plain, */*", Format::Json),
            ("text/html, application/json;q=0.9, */*;q=0.8", Format::Json),
            ("text/plain, application/json;q=0.5", Format::Text),
            ("application/x-ndjson", Format::JsonLines),
            ("application/json;q=0", Format::Text),
            ("application/json;q=x", Format::Text),
            ("image/png", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{accept}");
        }
        let named = |query: &str| Format::of(&call(&format!("/b/?{query}"), "application/json"));
        assert_eq!(named("format=text").unwrap(), Format::Text);
        assert_eq!(named("format=jsonl").unwrap(), Format::JsonLines);
        assert_eq!(named("x=1").unwrap(), Format::Json);
        assert!(matches!(named("format=xml"), Err(Error::NotAcceptable(_))));
    }

    #[tokio::test]
    async fn errors_are_a_line_or_json() {
        let failure = Failure { error: Error::NoLeader("an\nelection".into()), revision: Some(7) };
        let plain = from_failure(&call("/b/k", "*/*"), &failure, None);
        assert_eq!(plain.headers()["retry-after"], "1");
        assert_eq!(plain.headers()["x-kvdb-revision"], "7");
        assert_eq!(shown(plain).await, "503 no leader: an election\n");
        let json = from_failure(&call("/b/k", "application/json"), &failure, None);
        assert_eq!(
            shown(json).await,
            r#"503 {"error":{"code":"no_leader","message":"no leader: an election","retryable":true,"applied":"no"}}"#
        );
        let refused = Failure::from(Error::MethodNotAllowed("no".into()));
        let refused = from_failure(&call("/", "*/*"), &refused, Some("POST, OPTIONS"));
        assert_eq!(refused.headers()["allow"], "POST, OPTIONS");
    }

    #[test]
    fn an_answer_is_applied_unless_it_failed_and_kept_nothing() {
        let applied = |status, committed| {
            let response = from_answer(Answer { status, committed, ..Answer::default() }).unwrap();
            response.headers()["x-kvdb-applied"].to_str().unwrap().to_owned()
        };
        assert_eq!(applied(200, false), "yes");
        assert_eq!(applied(302, false), "yes");
        assert_eq!(applied(403, false), "no");
        assert_eq!(applied(403, true), "yes");
    }

    #[test]
    fn a_script_sets_its_headers_and_none_of_ours() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let answer = Answer {
            status: 200,
            headers: vec![
                header("content-type", "text/html"),
                header("cache-control", "max-age=60"),
                header("x-mine", "1"),
                header("x-bad", "a\r\nx-injected: 1"),
                header("x-kvdb-applied", "no"),
            ],
            version: Some(9),
            revision: 12,
            ..Answer::default()
        };
        let mut response = from_answer(answer).unwrap();
        finish(response.headers_mut());
        let shown = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap());
        assert_eq!(shown("content-type"), Some("text/html"));
        assert_eq!(shown("cache-control"), Some("max-age=60"));
        assert_eq!(shown("x-mine"), Some("1"));
        assert_eq!(shown("x-bad"), None);
        assert_eq!(shown("x-injected"), None);
        assert_eq!(shown("x-kvdb-applied"), Some("yes"));
        assert_eq!(shown("etag"), Some("\"9\""));
        assert_eq!(shown("x-kvdb-revision"), Some("12"));
    }
}
