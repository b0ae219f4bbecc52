//! Scripts: uploaded and removed as any write is, run on the leader, listed on any node.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use http::Method;
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};

use super::Edge;
use super::answer::{self, Format, Outcome, from_told, text};
use super::call::{Call, Payload};
use super::consistency;
use super::leader::{Route, Write, on_leader, patiently, redeem, write_on_leader};
use super::once::once;
use super::owner::owned;
use super::query::Query;
use crate::api::{ScriptInfo, ScriptMetrics, paths};
use crate::error::{Error, Failure, Missing, Result};
use crate::kv::limits::SCRIPT_SOURCE_BYTES_MAX;
use crate::kv::{BucketName, Operation, Script, ScriptMode, ScriptName, Transaction, upload};
use crate::node::{Request, ScriptCall};
use crate::script;

/// The variable that no parameter can set.
const REMOTE_ADDR: &str = "remote_addr";

/// `GET` and `POST`: runs a script.
pub(super) async fn run(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    bucket: &BucketName,
    name: &ScriptName,
) -> Outcome {
    if call.method == Method::POST && call.query.get("rollback").is_some() {
        return roll_back(edge, call, payload, bucket, name).await;
    }
    call.check_unconditional()?;
    redeem(edge, call)?;
    let credential = call.credential()?;
    if call.query.flag("dry_run") {
        // To ignore it would run in earnest what was to be tried.
        let text = "`dry_run` takes a source: send it by POST to …/scripts/?dry_run";
        return Err(Error::invalid(text).into());
    }
    // Under a key it may have been done before, when it was another version: the leader knows.
    let keyed = call.headers.contains_key(paths::IDEMPOTENCY_KEY);
    if !keyed
        && edge.node.may_be_readonly(bucket, name)?
        && let Some(response) = run_readonly(edge, call, payload, bucket, name).await?
    {
        return Ok(response);
    }
    let limit = ("a request body", edge.value_bytes_max);
    let run = async |body: Bytes| {
        let once = once(call, &body)?;
        let request = Request::Run(script_call(call, name, body)?);
        from_told(edge.node.execute(bucket, request, credential.clone(), once).await)
    };
    on_leader(edge, call, payload, limit, Route::Script(bucket), run).await
}

/// Runs a script on this node, if it is one that only reads.
async fn run_readonly(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    bucket: &BucketName,
    name: &ScriptName,
) -> std::result::Result<Option<Response>, Failure> {
    let consistency = consistency::of(&call.query)?;
    let credential = call.credential()?;
    let body = payload.read("a request body", edge.value_bytes_max).await?;
    let script_call = script_call(call, name, body)?;
    let ran = patiently(|| edge.node.run_readonly(bucket, &script_call, &credential, consistency));
    match ran.await? {
        Some((told, age)) => consistency::with_age(edge, call, from_told(told), age).map(Some),
        None => Ok(None),
    }
}

pub(super) fn script_call(call: &Call, name: &ScriptName, body: Bytes) -> Result<ScriptCall> {
    let form = if call.is_form() { Query::parse_form(&body)? } else { Query::default() };
    Ok(ScriptCall {
        name: name.clone(),
        vars: Arc::new(vars(&call.query, &form, &call.origin.remote_addr)),
        request: Arc::new(script::Request {
            method: call.method.as_str().to_owned(),
            path: call.path.clone(),
            headers: headers(call),
            body,
        }),
    })
}

/// `kvdb.var`: the query without credentials, then the form, then what cannot be faked.
fn vars(query: &Query, form: &Query, remote_addr: &str) -> BTreeMap<String, String> {
    let mut vars = BTreeMap::new();
    for (name, value) in query.texts().filter(|(name, _)| !paths::CREDENTIALS.contains(name)) {
        vars.insert(name.to_owned(), value);
    }
    for (name, value) in form.texts() {
        vars.insert(name.to_owned(), value);
    }
    vars.insert(REMOTE_ADDR.to_owned(), remote_addr.to_owned());
    vars
}

fn headers(call: &Call) -> Vec<(String, String)> {
    let named = call.headers.iter().filter(|(name, _)| {
        // A script is not shown its caller's key.
        *name != AUTHORIZATION && *name != PROXY_AUTHORIZATION
    });
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    named.map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

/// `PUT`: uploads a script, if it compiles.
pub(super) async fn put(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    bucket: &BucketName,
    name: &ScriptName,
) -> Outcome {
    let mode = mode(call)?;
    call.check_unconditional()?;
    let credential = call.credential()?;
    let run = async |body: Bytes| {
        let once = once(call, &body)?;
        let source = compiled(name, &body).await?;
        let operation = Operation::PutScript { name: name.clone(), source, mode };
        let request = Request::Operation(operation);
        from_told(edge.node.execute(bucket, request, credential.clone(), once).await)
    };
    let limit = ("a script", SCRIPT_SOURCE_BYTES_MAX);
    on_leader(edge, call, payload, limit, Route::Proxy, run).await
}

/// How an uploaded script is to be run.
fn mode(call: &Call) -> Result<ScriptMode> {
    let as_owner = match call.query.text("run_as").as_deref() {
        None | Some("" | "caller") => false,
        Some("owner") => true,
        Some(_) => return Err(Error::invalid("`run_as` is `caller` or `owner`")),
    };
    Ok(ScriptMode { readonly: call.query.flag("readonly"), as_owner })
}

/// `POST …?rollback=VERSION`: makes an earlier version the one that is run.
async fn roll_back(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    bucket: &BucketName,
    name: &ScriptName,
) -> Outcome {
    call.check_unconditional()?;
    let version = call.query.text("rollback").unwrap_or_default();
    let version = version
        .parse()
        .map_err(|_| Error::invalid("`rollback` is a version, as GET …?versions lists them"))?;
    let limit = ("a request body", edge.value_bytes_max);
    let operation = |_| Ok(Operation::RollBack { name: name.clone(), version });
    write_on_leader(edge, call, payload, Write::plain(bucket, limit), operation).await
}

/// The source, once it has compiled; away from the threads that serve connections.
pub(super) async fn compiled(name: &ScriptName, body: &Bytes) -> Result<String> {
    let source = String::from_utf8(body.to_vec())
        .map_err(|_| Error::invalid("a script's source is UTF-8 text"))?;
    let name = name.clone();
    let compile = move || script::check(&name, &source).map(|()| source);
    let compiled = tokio::task::spawn_blocking(compile).await;
    compiled.map_err(|e| Error::Internal(format!("compiling: {e}")))?
}

/// `DELETE`: removes a script.
pub(super) async fn delete(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    bucket: &BucketName,
    name: &ScriptName,
) -> Outcome {
    call.check_unconditional()?;
    let limit = ("a request body", edge.value_bytes_max);
    let operation = |_| Ok(Operation::DeleteScript { name: name.clone() });
    write_on_leader(edge, call, payload, Write::plain(bucket, limit), operation).await
}

/// `GET …?source`: a script's source, for the bucket's owner.
pub(super) async fn source(
    edge: &Edge,
    call: &Call,
    bucket: &BucketName,
    name: &ScriptName,
) -> Outcome {
    let find = |txn: &mut Transaction| {
        let script = txn.script(name)?;
        script.ok_or_else(|| Error::not_found(Missing::Script, name.as_str()))
    };
    owned(edge, call, bucket, |txn| Ok(text(find(txn)?.source.clone()))).await
}

/// `GET /BUCKET/scripts/`: names, versions and sizes, for the bucket's owner.
pub(super) async fn list(edge: &Edge, call: &Call, bucket: &BucketName) -> Outcome {
    let format = Format::of(call)?;
    owned(edge, call, bucket, |txn| {
        let infos: Vec<_> =
            txn.scripts()?.iter().map(|(name, script)| info(name, script)).collect();
        render(&infos, format)
    })
    .await
}

fn info(name: &Bytes, script: &Script) -> ScriptInfo {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    ScriptInfo {
        name: String::from_utf8_lossy(name).into_owned(),
        version: script.version,
        bytes: script.source.len() as u64,
        sha256: hex(&script.sha256),
        readonly: script.mode.readonly,
        run_as: if script.mode.as_owner { "owner" } else { "caller" }.to_owned(),
    }
}

fn render(infos: &[ScriptInfo], format: Format) -> Result<Response> {
    answer::rows(infos, format, |info| {
        let modes = [(info.readonly, " readonly"), (info.run_as == "owner", " run_as=owner")];
        let modes: String = modes.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
        format!("{} version={} bytes={}{modes}", info.name, info.version, info.bytes)
    })
}

/// `GET …?metrics`: what a script was called for on this node, and cost.
pub(super) async fn metrics(
    edge: &Edge,
    call: &Call,
    bucket: &BucketName,
    name: &ScriptName,
) -> Outcome {
    owned(edge, call, bucket, |txn| {
        if txn.script(name)?.is_none() {
            return Err(Error::not_found(Missing::Script, name.as_str()));
        }
        let stats = edge.node.script_stats(txn.bucket(), name);
        answer::json(&ScriptMetrics {
            calls: stats.calls,
            errors: stats.errors,
            conflicts: stats.conflicts,
            fuel: stats.fuel,
            seconds_total: stats.total.as_secs_f64(),
            seconds_max: stats.longest.as_secs_f64(),
        })
    })
    .await
}

/// `GET …?versions`: the versions of a script that are kept, oldest first.
pub(super) async fn versions(
    edge: &Edge,
    call: &Call,
    bucket: &BucketName,
    name: &ScriptName,
) -> Outcome {
    let format = Format::of(call)?;
    let shown = Bytes::copy_from_slice(name.as_str().as_bytes());
    owned(edge, call, bucket, |txn| {
        let infos: Vec<_> =
            upload::versions(txn, name)?.iter().map(|script| info(&shown, script)).collect();
        render(&infos, format)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::call::Origin;

    #[test]
    fn vars_are_query_then_form_then_the_client() {
        let query = Query::parse(
            b"a=query&b=query&remote_addr=faked&key=secret&access_token=secret&kvdb_ticket=n",
        );
        let form = Query::parse(b"b=form&c=form&remote_addr=faked&key=mine&kvdb_ticket=n");
        let vars = vars(&query, &form, "192.0.2.1");
        let shown: Vec<_> = vars.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown, ["a=query", "b=form", "c=form", "key=mine", "remote_addr=192.0.2.1"]);
    }

    #[test]
    fn only_a_form_makes_vars_of_a_body() {
        let call = |content_type: &str| {
            let request = http::Request::post("/b/scripts/s?q=1")
                .header("content-type", content_type)
                .header("authorization", "Bearer secret")
                .body(())
                .unwrap();
            let call = Call::new(request.into_parts().0, Origin::default());
            script_call(&call, &ScriptName::parse("s").unwrap(), Bytes::from_static(b"f=2"))
                .unwrap()
        };
        let form = call("application/x-www-form-urlencoded");
        assert_eq!(form.vars.get("f").map(String::as_str), Some("2"));
        assert_eq!(form.request.body, "f=2");
        assert_eq!(form.request.path, "/b/scripts/s");
        assert!(form.request.headers.iter().all(|(name, _)| name != "authorization"));
        assert_eq!(call("text/plain").vars.get("f"), None);
    }

    #[tokio::test]
    async fn a_list_of_scripts() {
        let mode = ScriptMode { readonly: true, as_owner: false };
        let script = Script { version: 7, sha256: [0xab; 32], source: "return".to_owned(), mode };
        let infos = [info(&Bytes::from_static(b"a"), &script)];
        let shown = async |format| {
            let body = render(&infos, format).unwrap().into_body();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            String::from_utf8(body.to_vec()).unwrap()
        };
        assert_eq!(shown(Format::Text).await, "a version=7 bytes=6 readonly\n");
        let json = format!(
            r#"{{"name":"a","version":7,"bytes":6,"sha256":"{}","readonly":true,"run_as":"caller"}}"#,
            "ab".repeat(32)
        );
        assert_eq!(shown(Format::Json).await, format!("[{json}]"));
        assert_eq!(shown(Format::JsonLines).await, format!("{json}\n"));
    }
}
