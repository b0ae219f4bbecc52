//! `POST /`: creates a bucket.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;

use super::Edge;
use super::answer::{Format, JSON, Outcome, from_answer, to_json};
use super::call::{Call, Payload};
use super::cluster::check_admin;
use super::leader::{Route, on_leader};
use super::query::Query;
use crate::api::{BucketCreated, NewBucket};
use crate::config::CreateBuckets;
use crate::error::{Error, Result};
use crate::kv::{BucketName, PolicyRequest};

/// Largest body that names a policy, in bytes.
const POLICY_BODY_BYTES_MAX: usize = 16 << 10;

/// Creates a bucket with the name that was chosen, or one that nobody can guess.
pub(super) async fn create(edge: &Edge, call: &Call, payload: &mut Payload) -> Outcome {
    call.check_unconditional()?;
    let run = async |body: Bytes| {
        if edge.create_buckets == CreateBuckets::Admin {
            check_admin(edge, call)?;
        }
        let new = parse(call, &body)?;
        let name = match &new.id {
            Some(id) => BucketName::parse(id)?,
            None => edge.node.random_bucket_name(),
        };
        let answer = edge.node.create_bucket(name.clone(), policy(new)).await?;
        created(call, &name, answer)
    };
    let limit = ("a policy", POLICY_BODY_BYTES_MAX);
    on_leader(edge, call, payload, limit, Route::Proxy, run).await
}

fn created(call: &Call, name: &BucketName, mut answer: crate::kv::Answer) -> Result<Response> {
    answer.status = StatusCode::CREATED.as_u16();
    answer.version = None;
    let json = Format::accepted(call.accept()) == Format::Json;
    answer.body = match json {
        true => to_json(&BucketCreated { id: name.to_string() })?,
        false => name.to_string().into(),
    };
    let mut response = from_answer(answer)?;
    if json {
        response.headers_mut().insert(http::header::CONTENT_TYPE, JSON);
    }
    Ok(response)
}

fn parse(call: &Call, body: &Bytes) -> Result<NewBucket> {
    let new = if call.is_content("application/json") {
        from_json(body)?
    } else {
        check_form(call, body)?;
        from_form(body)?
    };
    if new.signing_key.is_some() {
        return Err(Error::invalid("signing_key is not supported yet"));
    }
    if new.default_ttl.is_some_and(|ttl| ttl != 0) {
        return Err(Error::invalid("default_ttl is not supported yet"));
    }
    Ok(new)
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

fn from_json(body: &Bytes) -> Result<NewBucket> {
    serde_json::from_slice(body).map_err(|e| {
        // serde's message can quote what it met, which may be a key: only the place is told.
        let (line, column) = (e.line(), e.column());
        Error::invalid(format!(
            "the body is not the JSON of a bucket (line {line}, column {column})"
        ))
    })
}

fn from_form(body: &Bytes) -> Result<NewBucket> {
    let form = Query::parse(body);
    let text = |name| form.text(name).map(std::borrow::Cow::into_owned);
    let seconds = |text: String| {
        text.parse().map_err(|_| Error::invalid("default_ttl is a whole number of seconds"))
    };
    Ok(NewBucket {
        id: text("id"),
        secret_key: text("secret_key"),
        write_key: text("write_key"),
        read_key: text("read_key"),
        email: text("email"),
        signing_key: text("signing_key").filter(|key| !key.is_empty()),
        default_ttl: text("default_ttl").map(seconds).transpose()?,
    })
}

fn policy(new: NewBucket) -> PolicyRequest {
    PolicyRequest {
        secret_key: new.secret_key,
        write_key: new.write_key,
        read_key: new.read_key,
        email: new.email,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::call::Origin;

    fn parsed(content_type: &str, body: &'static str) -> Result<NewBucket> {
        let request =
            http::Request::post("/").header("content-type", content_type).body(()).unwrap();
        parse(
            &Call::new(request.into_parts().0, Origin::default()),
            &Bytes::from_static(body.as_bytes()),
        )
    }

    #[test]
    fn a_bucket_is_asked_for_by_form_or_json() {
        let form = "application/x-www-form-urlencoded";
        let expected = NewBucket {
            id: Some("b".into()),
            secret_key: Some("s 1".into()),
            email: Some("a@b".into()),
            ..NewBucket::default()
        };
        assert_eq!(parsed(form, "id=b&secret_key=s+1&email=a%40b&x=1").unwrap(), expected);
        let json = r#"{"id":"b","secret_key":"s 1","email":"a@b","default_ttl":null}"#;
        assert_eq!(parsed("application/json; charset=utf-8", json).unwrap(), expected);
        assert_eq!(parsed(form, "").unwrap(), NewBucket::default());
        assert_eq!(parsed(form, "default_ttl=0").unwrap().default_ttl, Some(0));
    }

    #[test]
    fn a_body_that_is_no_form_makes_no_bucket() {
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
            let error = parsed(content_type, body).unwrap_err().to_string();
            assert!(error.contains("`Content-Type: application/json`"), "{content_type}: {error}");
        }
        for content_type in ["", form, "text/plain", "multipart/form-data; boundary=x"] {
            assert_eq!(parsed(content_type, "").unwrap(), NewBucket::default(), "{content_type}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let form = "application/x-www-form-urlencoded";
        for (content_type, body) in [
            (form, "signing_key=k"),
            (form, "default_ttl=60"),
            (form, "default_ttl=soon"),
            ("application/json", ""),
            ("application/json", "[1]"),
            ("application/json", r#"{"secret_key":1}"#),
        ] {
            assert!(matches!(parsed(content_type, body), Err(Error::Invalid(_))), "{body}");
        }
        let error = parsed("application/json", r#"{"default_ttl":"hunter2"}"#).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }
}
