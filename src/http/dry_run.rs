//! `POST /BUCKET/scripts/?dry_run`: runs a source without keeping anything, and tells what it would do.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::Edge;
use super::answer::{self, JSON, Outcome, respond, with_applied};
use super::call::{Call, Payload};
use super::scripts::{compiled, script_call};
use crate::api::{Applied, ErrorCode};
use crate::error::{Error, Result};
use crate::kv::limits::SCRIPT_SOURCE_BYTES_MAX;
use crate::kv::{BucketName, ScriptName, json};
use crate::node::DryRun;

/// What messages call a source that has no name.
const NAME: &str = "dry_run";

/// Runs the body, here: what it reads is a linearizable view.
pub(super) async fn run(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    bucket: &BucketName,
) -> Outcome {
    if !call.query.flag("dry_run") {
        return Err(Error::MethodNotAllowed(
            "upload a script by PUT to its name, or try one by POST …/scripts/?dry_run".to_owned(),
        )
        .into());
    }
    call.check_unconditional()?;
    let credential = call.credential()?;
    let body = payload.read("a script", SCRIPT_SOURCE_BYTES_MAX).await?;
    let name = ScriptName::parse(NAME)?;
    let source = compiled(&name, &body).await?;
    // The body is the script, not what it is called with.
    let mut script_call = script_call(call, &name, Bytes::new())?;
    Arc::make_mut(&mut script_call.request).method = Method::POST.as_str().to_owned();
    let ran = edge.node.dry_run(bucket, script_call, source, &credential).await?;
    let mut response = respond(StatusCode::OK, JSON, told(&ran)?);
    answer::set_revision(response.headers_mut(), ran.revision);
    Ok(with_applied(response, Applied::No))
}

fn told(ran: &DryRun) -> Result<Bytes> {
    let mut text = b"{".to_vec();
    match &ran.result {
        Ok(answer) => {
            text.extend_from_slice(
                format!(r#""status":{},"headers":{{"#, answer.status).as_bytes(),
            );
            let headers = answer.headers.iter();
            each(&mut text, headers, |text, (name, value)| {
                json::push_string(text, name.as_bytes());
                text.push(b':');
                json::push_string(text, value.as_bytes());
            });
            text.extend_from_slice(b"},");
            json::push_text(&mut text, "output", &answer.body);
        }
        Err(error) => {
            let code = ErrorCode::of(error);
            let head =
                format!(r#""status":{},"headers":{{}},"output":"","#, code.status().as_u16());
            text.extend_from_slice(head.as_bytes());
            json::push_text(&mut text, "error", error.to_string().as_bytes());
        }
    }
    text.extend_from_slice(br#","reads":["#);
    each(&mut text, ran.reads.iter(), |text, key| json::push_string(text, key));
    text.extend_from_slice(br#"],"writes":["#);
    each(&mut text, ran.writes.iter(), |text, (key, value)| {
        text.push(b'{');
        json::push_text(text, "key", key);
        text.push(b',');
        match value {
            Some(value) => json::push_field(text, "value", value),
            None => text.extend_from_slice(br#""value":null"#),
        }
        text.push(b'}');
    });
    text.extend_from_slice(br#"],"logs":["#);
    each(&mut text, ran.log.iter(), |text, line| json::push_string(text, line.as_bytes()));
    let (fuel, memory) = (ran.cost.fuel, ran.cost.memory_bytes);
    let micros = ran.took.as_micros();
    let cost = format!(r#"],"cost":{{"fuel":{fuel},"micros":{micros},"memory":{memory}}}}}"#);
    text.extend_from_slice(cost.as_bytes());
    Ok(text.into())
}

/// Writes items with commas between them.
fn each<T>(text: &mut Vec<u8>, items: impl Iterator<Item = T>, push: impl Fn(&mut Vec<u8>, T)) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push(b',');
        }
        push(text, item);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::kv::Answer;
    use crate::script::Cost;

    fn ran(result: Result<Answer>) -> serde_json::Value {
        let text = |text: &'static str| Bytes::from_static(text.as_bytes());
        let ran = DryRun {
            revision: 7,
            result,
            reads: vec![text("a"), Bytes::from_static(b"\xff")],
            writes: vec![(text("b"), Some(text("9007199254740993"))), (text("c"), None)],
            log: vec!["x \"y\"".to_owned()],
            cost: Cost { fuel: 3, memory_bytes: 5 },
            took: Duration::from_micros(11),
        };
        serde_json::from_slice(&told(&ran).unwrap()).unwrap()
    }

    #[test]
    fn all_of_it_is_told_as_json() {
        let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
        let told = ran(Ok(Answer { headers, ..Answer::text("hi\n") }));
        let expected = serde_json::json!({
            "status": 200,
            "headers": {"content-type": "text/plain"},
            "output": "hi\n",
            "reads": ["a", "\u{fffd}"],
            "writes": [{"key": "b", "value": 9_007_199_254_740_993_i64}, {"key": "c", "value": null}],
            "logs": ["x \"y\""],
            "cost": {"fuel": 3, "micros": 11, "memory": 5},
        });
        assert_eq!(told, expected);
        let failed = ran(Err(Error::Script { message: "line 1: no".into(), traceback: None }));
        assert_eq!((&failed["status"], &failed["error"]), (&500.into(), &"line 1: no".into()));
    }
}
