//! Buckets: created, their policy read and changed, deleted.

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::Edge;
use super::answer::{self, Format, JSON, Outcome, from_answer, to_json};
use super::call::{Call, Payload};
use super::cluster::check_admin;
use super::fields::Fields;
use super::leader::{Route, Write, on_leader, write_on_leader};
use super::once::once;
use super::owner::owned;
use crate::api::{BucketCreated, BucketInfo, paths};
use crate::config::CreateBuckets;
use crate::error::{Error, Missing, Result};
use crate::kv::{BucketName, Once, Operation, PolicyPatch, Transaction};

/// Largest body that names a policy, in bytes.
const POLICY_BODY_BYTES_MAX: usize = 16 << 10;
/// Shortest `Idempotency-Key` of a creation, in bytes.
const CREATION_KEY_BYTES_MIN: usize = 16;
const LIMIT: (&str, usize) = ("a policy", POLICY_BODY_BYTES_MAX);

/// `POST /`: creates a bucket with the name that was chosen, or one that nobody can guess.
pub(super) async fn create(edge: &Edge, call: &Call, payload: &mut Payload) -> Outcome {
    call.check_unconditional()?;
    let run = async |body: Bytes| -> Outcome {
        if edge.create_buckets == CreateBuckets::Admin {
            check_admin(edge, call)?;
        }
        let fields = Fields::parse(call, &body)?;
        let name = match fields.text("id") {
            Some(id) => BucketName::parse(id)?,
            None => edge.node.random_bucket_name(),
        };
        let mut policy = patch(&fields)?;
        if fields.number("default_ttl")?.is_none() {
            policy.default_ttl = Some(edge.default_ttl);
        }
        let once = creation_once(call, &body)?;
        let answer = edge.node.create_bucket(name, policy, once).await?;
        created(call, answer).map_err(|error| Error::Unknown(error.to_string()).into())
    };
    on_leader(edge, call, payload, LIMIT, Route::Proxy, run).await
}

/// A creation's key. All of them lie in one place, and most come from strangers: it must be one that nobody
/// else will think of, or two strangers would share a bucket.
fn creation_once(call: &Call, body: &Bytes) -> Result<Option<Once>> {
    let Some(once) = once(call, body)? else { return Ok(None) };
    let key = call.headers.get(paths::IDEMPOTENCY_KEY).map_or(0, HeaderValue::len);
    if key < CREATION_KEY_BYTES_MIN {
        return Err(Error::invalid(format!(
            "the Idempotency-Key of a creation has at least {CREATION_KEY_BYTES_MIN} bytes: a UUID will do"
        )));
    }
    Ok(Some(once.within("")))
}

/// The executor answers with the name, which may be that of an earlier call.
fn created(call: &Call, mut answer: crate::kv::Answer) -> Result<Response> {
    answer.status = StatusCode::CREATED.as_u16();
    let json = Format::accepted(call.accept()) == Format::Json;
    if json {
        let id = String::from_utf8_lossy(&answer.body).into_owned();
        answer.body = to_json(&BucketCreated { id })?;
    }
    let mut response = from_answer(answer)?;
    if json {
        response.headers_mut().insert(http::header::CONTENT_TYPE, JSON);
    }
    Ok(response)
}

/// `PATCH /BUCKET`: changes the policy.
pub(super) async fn change(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    bucket: &BucketName,
) -> Outcome {
    call.check_unconditional()?;
    let operation = |body: Bytes| Ok(Operation::ChangePolicy(patch(&Fields::parse(call, &body)?)?));
    write_on_leader(edge, call, payload, Write::plain(bucket, LIMIT), operation).await
}

/// `DELETE /BUCKET/`: the bucket with all that is in it.
pub(super) async fn delete(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    bucket: &BucketName,
) -> Outcome {
    call.check_unconditional()?;
    let operation = |_| Ok(Operation::DeleteBucket);
    write_on_leader(edge, call, payload, Write::plain(bucket, LIMIT), operation).await
}

/// `GET /BUCKET?policy`: the policy without its keys, and how much the bucket holds.
pub(super) async fn policy(edge: &Edge, call: &Call, bucket: &BucketName) -> Outcome {
    if !call.query.flag("policy") {
        let path = &call.path;
        let hint = format!("{path} (keys are listed at {path}/, the policy is at {path}?policy)");
        return Err(Error::not_found(Missing::Path, hint).into());
    }
    owned(edge, call, bucket, |txn| answer::json(&info(bucket, txn)?)).await
}

fn info(bucket: &BucketName, txn: &mut Transaction) -> Result<BucketInfo> {
    let (policy, counts) = (txn.policy()?, txn.counts());
    let signing_keys = [&policy.signing_key, &policy.previous_signing_key];
    Ok(BucketInfo {
        id: bucket.to_string(),
        revision: txn.read_revision(),
        keys: counts.keys,
        bytes: counts.bytes,
        scripts: counts.scripts,
        tokens: counts.tokens,
        default_ttl: policy.default_ttl,
        max_keys: policy.max_keys,
        max_bytes: policy.max_bytes,
        email: policy.email.clone(),
        has_secret_key: policy.secret_key.is_some(),
        has_write_key: policy.write_key.is_some(),
        has_read_key: policy.read_key.is_some(),
        signing_keys: signing_keys.into_iter().flatten().count(),
    })
}

fn patch(fields: &Fields) -> Result<PolicyPatch> {
    let text = |name| fields.text(name).map(str::to_owned);
    let previous = fields.text("previous_signing_key");
    if previous.is_some_and(|key| !key.is_empty()) {
        let text = "`previous_signing_key` can only be taken away: send it empty";
        return Err(Error::invalid(text));
    }
    Ok(PolicyPatch {
        secret_key: text("secret_key"),
        write_key: text("write_key"),
        read_key: text("read_key"),
        signing_key: text("signing_key"),
        keep_signing_key: fields.flag("keep_signing_key"),
        drop_previous_signing_key: previous.is_some(),
        default_ttl: fields.limit("default_ttl")?,
        max_keys: fields.limit("max_keys")?,
        max_bytes: fields.limit("max_bytes")?,
        email: text("email"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::call::Origin;

    fn patched(content_type: &str, body: &'static str) -> Result<PolicyPatch> {
        let request =
            http::Request::post("/").header("content-type", content_type).body(()).unwrap();
        let call = Call::new(request.into_parts().0, Origin::default());
        patch(&Fields::parse(&call, &Bytes::from_static(body.as_bytes()))?)
    }

    #[test]
    fn a_policy_is_asked_for_by_form_or_json() {
        let expected = PolicyPatch {
            secret_key: Some("s 1".into()),
            read_key: Some(String::new()),
            default_ttl: Some(60),
            keep_signing_key: true,
            drop_previous_signing_key: true,
            ..PolicyPatch::default()
        };
        let form = "secret_key=s+1&read_key=&default_ttl=60&keep_signing_key=true&x=1&previous_signing_key=";
        assert_eq!(patched("application/x-www-form-urlencoded", form).unwrap(), expected);
        let json = r#"{"secret_key":"s 1","read_key":null,"default_ttl":60,"keep_signing_key":true,
            "x":[1],"previous_signing_key":""}"#;
        assert_eq!(patched("application/json; charset=utf-8", json).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_not_repeated() {
        let form = "application/x-www-form-urlencoded";
        for (content_type, body) in [
            (form, "default_ttl=soon"),
            (form, "max_keys=-1"),
            (form, "previous_signing_key=hunter2"),
            ("application/json", r#"{"default_ttl":"hunter2"}"#),
            ("application/json", r#"{"secret_key":["hunter2"]}"#),
        ] {
            let error = patched(content_type, body).unwrap_err();
            assert!(matches!(error, Error::Invalid(_)), "{body}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
