//! Scripts: uploaded and removed as any write is, run on the leader, listed on any node.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};

use super::Edge;
use super::answer::{self, Failure, Format, Outcome, REVISION, from_answer, text, to_json};
use super::call::{Call, Payload};
use super::leader::{Route, on_leader, patiently, redeem};
use super::query::Query;
use crate::api::{ScriptInfo, paths};
use crate::error::{Error, Missing, Result};
use crate::kv::limits::SCRIPT_SOURCE_BYTES_MAX;
use crate::kv::{BucketName, Operation, Script, ScriptName, Transaction};
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
    if call.query.flag("rollback") {
        return Err(Error::invalid("rollback is not supported yet").into());
    }
    if call.query.flag("dry_run") {
        return Err(Error::invalid("dry_run is not supported yet").into());
    }
    call.check_unconditional()?;
    redeem(edge, call)?;
    let credential = call.credential()?;
    let limit = ("a request body", edge.value_bytes_max);
    let run = async |body: Bytes| {
        let request = Request::Run(script_call(call, name, body));
        from_answer(edge.node.execute(bucket, request, credential.clone()).await?)
    };
    on_leader(edge, call, payload, limit, Route::Script(bucket), run).await
}

fn script_call(call: &Call, name: &ScriptName, body: Bytes) -> ScriptCall {
    let form = if call.is_form() { Query::parse(&body) } else { Query::default() };
    ScriptCall {
        name: name.clone(),
        vars: Arc::new(vars(&call.query, &form, &call.origin.remote_addr)),
        request: Arc::new(script::Request {
            method: call.method.as_str().to_owned(),
            path: call.path.clone(),
            headers: headers(call),
            body,
        }),
    }
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
    check_upload(call)?;
    call.check_unconditional()?;
    let credential = call.credential()?;
    let run = async |body: Bytes| {
        let source = compiled(name, &body).await?;
        let operation = Operation::PutScript { name: name.clone(), source };
        let request = Request::Operation(operation);
        from_answer(edge.node.execute(bucket, request, credential.clone()).await?)
    };
    let limit = ("a script", SCRIPT_SOURCE_BYTES_MAX);
    on_leader(edge, call, payload, limit, Route::Proxy, run).await
}

/// Modes of a script that this version lacks are refused: to ignore them would change who may write.
fn check_upload(call: &Call) -> Result<()> {
    if call.query.flag("readonly") {
        return Err(Error::invalid("readonly is not supported yet"));
    }
    match call.query.text("run_as").as_deref() {
        None | Some("caller") => Ok(()),
        Some(_) => Err(Error::invalid("run_as is not supported yet, but for `caller`")),
    }
}

/// The source, once it has compiled; away from the threads that serve connections.
async fn compiled(name: &ScriptName, body: &Bytes) -> Result<String> {
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
    let credential = call.credential()?;
    let run = async |_: Bytes| {
        let request = Request::Operation(Operation::DeleteScript { name: name.clone() });
        from_answer(edge.node.execute(bucket, request, credential.clone()).await?)
    };
    let limit = ("a request body", edge.value_bytes_max);
    on_leader(edge, call, payload, limit, Route::Proxy, run).await
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
    let script = |script: Script| Ok(text(script.source));
    owned(edge, call, bucket, |txn| script(find(txn)?)).await
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

/// Reads something that only the bucket's owner may.
async fn owned(
    edge: &Edge,
    call: &Call,
    bucket: &BucketName,
    read: impl FnOnce(&mut Transaction) -> Result<Response>,
) -> Outcome {
    let credential = call.credential()?;
    let mut txn = patiently(|| edge.node.read(bucket)).await?;
    let revision = txn.read_revision();
    let checked = |txn: &mut Transaction| {
        txn.policy()?.grant(&credential)?.check_owner()?;
        read(txn)
    };
    let mut response =
        checked(&mut txn).map_err(|error| Failure { error, revision: Some(revision) })?;
    response.headers_mut().insert(REVISION, revision.into());
    Ok(response)
}

fn info(name: &Bytes, script: &Script) -> ScriptInfo {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    ScriptInfo {
        name: String::from_utf8_lossy(name).into_owned(),
        version: script.version,
        bytes: script.source.len() as u64,
        sha256: hex(&script.sha256),
    }
}

fn render(infos: &[ScriptInfo], format: Format) -> Result<Response> {
    let lines = |line: &dyn Fn(&ScriptInfo) -> Result<Bytes>| -> Result<Bytes> {
        let mut text = Vec::new();
        for info in infos {
            text.extend_from_slice(&line(info)?);
            text.push(b'\n');
        }
        Ok(text.into())
    };
    match format {
        Format::Json => answer::json(&infos),
        Format::JsonLines => {
            let body = lines(&|info| to_json(info))?;
            Ok(answer::respond(http::StatusCode::OK, Format::JsonLines.content_type(), body))
        }
        Format::Text => Ok(text(lines(&|info| {
            Ok(format!("{} version={} bytes={}", info.name, info.version, info.bytes).into())
        })?)),
    }
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
        let script = Script { version: 7, sha256: [0xab; 32], source: "return".to_owned() };
        let infos = [info(&Bytes::from_static(b"a"), &script)];
        let shown = async |format| {
            let body = render(&infos, format).unwrap().into_body();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            String::from_utf8(body.to_vec()).unwrap()
        };
        assert_eq!(shown(Format::Text).await, "a version=7 bytes=6\n");
        let json =
            format!(r#"{{"name":"a","version":7,"bytes":6,"sha256":"{}"}}"#, "ab".repeat(32));
        assert_eq!(shown(Format::Json).await, format!("[{json}]"));
        assert_eq!(shown(Format::JsonLines).await, format!("{json}\n"));
    }
}
