//! `POST /BUCKET/scripts/?dry_run`: runs a source without keeping anything, and tells what it would do.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::Edge;
use super::answer::{self, JSON, Outcome, respond, with_applied};
use super::call::{Call, Payload};
use super::scripts::{compiled, script_call};
use crate::api::{Applied, ErrorCode};
use crate::error::Error;
use crate::kv::limits::SCRIPT_SOURCE_BYTES_MAX;
use crate::kv::{Answer, BucketName, ScriptName, json};
use crate::node::DryRun;

/// What messages call a source that has no name.
const NAME: &str = "dry_run";
/// Most bytes that are shown of an output, an error or a value.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Most items, and bytes of them, that are shown of what was read, of what was written and of the log.
const LIST_ITEMS_MAX: usize = 1000;
const LIST_BYTES_MAX: usize = 256 << 10;

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
    let mut response = respond(StatusCode::OK, JSON, told(&ran));
    answer::set_revision(response.headers_mut(), ran.revision);
    Ok(with_applied(response, Applied::No))
}

/// Everything as JSON, within limits: each byte that is shown takes up to six as JSON, of each text at most
/// [`TEXT_BYTES_MAX`] are shown, and of each list at most [`LIST_BYTES_MAX`].
fn told(ran: &DryRun) -> Bytes {
    let mut text = b"{".to_vec();
    let mut cut = match &ran.result {
        Ok(answer) => push_answer(&mut text, answer),
        Err(error) => push_error(&mut text, error),
    };
    text.extend_from_slice(br#","reads":["#);
    cut |= each(
        &mut text,
        ran.reads.iter(),
        |key| key.len(),
        |text, key| {
            json::push_string(text, key);
            false
        },
    );
    text.extend_from_slice(br#"],"writes":["#);
    cut |= each(&mut text, ran.writes.iter(), shown_bytes, push_write);
    text.extend_from_slice(br#"],"logs":["#);
    cut |= each(&mut text, ran.log.iter(), String::len, |text, line| {
        json::push_string(text, line.as_bytes());
        false
    });
    let (fuel, memory) = (ran.cost.fuel, ran.cost.memory_bytes);
    let micros = ran.took.as_micros();
    let cost = format!(r#"],"cost":{{"fuel":{fuel},"micros":{micros},"memory":{memory}}}"#);
    text.extend_from_slice(cost.as_bytes());
    text.extend_from_slice(if cut { br#","truncated":true}"# } else { b"}" });
    text.into()
}

/// Appends what a script answered, and says whether it is cut.
fn push_answer(text: &mut Vec<u8>, answer: &Answer) -> bool {
    text.extend_from_slice(format!(r#""status":{},"headers":{{"#, answer.status).as_bytes());
    // A script's headers have limits of their own.
    for (index, (name, value)) in answer.headers.iter().enumerate() {
        text.extend_from_slice(if index > 0 { b"," } else { b"" });
        json::push_string(text, name.as_bytes());
        text.push(b':');
        json::push_string(text, value.as_bytes());
    }
    text.extend_from_slice(b"},");
    let output = beginning(&answer.body);
    json::push_text(text, "output", output);
    output.len() < answer.body.len()
}

/// The same for a script that failed.
fn push_error(text: &mut Vec<u8>, error: &Error) -> bool {
    let status = ErrorCode::of(error).status().as_u16();
    let head = format!(r#""status":{status},"headers":{{}},"output":"","#);
    text.extend_from_slice(head.as_bytes());
    let message = error.to_string();
    let shown = beginning(message.as_bytes());
    json::push_text(text, "error", shown);
    shown.len() < message.len()
}

/// Appends a write, and says whether its value is cut.
fn push_write(text: &mut Vec<u8>, (key, value): &(Bytes, Option<Bytes>)) -> bool {
    text.push(b'{');
    json::push_text(text, "key", key);
    text.push(b',');
    let shown = value.as_deref().map(beginning);
    let cut = shown.map(<[u8]>::len) != value.as_ref().map(Bytes::len);
    match shown {
        // The beginning of a number would be another number.
        Some(shown) if cut => json::push_text(text, "value", shown),
        Some(shown) => json::push_field(text, "value", shown),
        None => text.extend_from_slice(br#""value":null"#),
    }
    text.extend_from_slice(if cut { br#","truncated":true}"# } else { b"}" });
    cut
}

/// Bytes of a write that are shown.
fn shown_bytes((key, value): &(Bytes, Option<Bytes>)) -> usize {
    key.len() + value.as_ref().map_or(0, Bytes::len).min(TEXT_BYTES_MAX)
}

/// As much of a text as is shown: what is UTF-8 stays UTF-8.
fn beginning(text: &[u8]) -> &[u8] {
    let (shown, _) = text.split_at(text.len().min(TEXT_BYTES_MAX));
    match std::str::from_utf8(shown) {
        // It ends within a character.
        Err(error) if error.error_len().is_none() && std::str::from_utf8(text).is_ok() => {
            shown.split_at(error.valid_up_to()).0
        }
        _ => shown,
    }
}

/// Writes items with commas between them, as long as they are within the limits of a list; and says whether
/// any of it is cut.
fn each<'a, T: 'a>(
    text: &mut Vec<u8>,
    items: impl Iterator<Item = &'a T>,
    bytes: impl Fn(&T) -> usize,
    push: impl Fn(&mut Vec<u8>, &T) -> bool,
) -> bool {
    let (mut left, mut cut) = (LIST_BYTES_MAX, false);
    for (index, item) in items.enumerate() {
        left = match left.checked_sub(bytes(item)) {
            Some(left) if index < LIST_ITEMS_MAX => left,
            _ => return true,
        };
        if index > 0 {
            text.push(b',');
        }
        cut |= push(text, item);
    }
    cut
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::script::Cost;

    fn ran(result: crate::error::Result<Answer>) -> serde_json::Value {
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
        serde_json::from_slice(&told(&ran)).unwrap()
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

    /// What a script of 150 bytes can come to: each byte is six in JSON.
    #[test]
    fn much_is_cut_and_says_so() {
        let controls = |bytes| Bytes::from(vec![1; bytes]);
        let key = |i: usize| Bytes::from(format!("{i:0>100}"));
        let value = controls(1 << 20);
        let ran = DryRun {
            revision: 7,
            result: Ok(Answer { body: controls(8 << 20), ..Answer::text("") }),
            reads: (0..50_000).map(key).collect(),
            writes: (0..50_000).map(|i| (key(i), Some(value.clone()))).collect(),
            log: (0..32).map(|_| "\u{1}".repeat(1 << 10)).collect(),
            cost: Cost { fuel: 3, memory_bytes: 5 },
            took: Duration::from_micros(11),
        };
        let text = told(&ran);
        let most = 6 * (TEXT_BYTES_MAX + 3 * LIST_BYTES_MAX) + 3 * 100 * LIST_ITEMS_MAX;
        assert!(text.len() < most, "{}", text.len());
        let told: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let len = |value: &serde_json::Value| value.as_str().unwrap().len();
        assert_eq!((&told["truncated"], len(&told["output"])), (&true.into(), TEXT_BYTES_MAX));
        assert_eq!(told["reads"].as_array().unwrap().len(), LIST_ITEMS_MAX);
        let writes = told["writes"].as_array().unwrap();
        let first = (&writes[0]["truncated"], len(&writes[0]["value"]));
        assert_eq!((writes.len(), first), (3, (&true.into(), TEXT_BYTES_MAX)));
        assert_eq!(told["logs"].as_array().unwrap().len(), 32);
    }

    #[test]
    fn what_is_cut_stays_what_it_is() {
        let text = format!("x{}", "é".repeat(TEXT_BYTES_MAX));
        assert_eq!(beginning(text.as_bytes()), &text.as_bytes()[..TEXT_BYTES_MAX - 1]);
        let mut bytes = text.into_bytes();
        bytes.push(0xff);
        assert_eq!(beginning(&bytes).len(), TEXT_BYTES_MAX);
        let shown = |value: String| {
            let mut text = Vec::new();
            assert!(push_write(&mut text, &(Bytes::from_static(b"k"), Some(value.into()))));
            serde_json::from_slice::<serde_json::Value>(&text).unwrap()["value"].is_string()
        };
        assert!(shown(format!("0.{}", "1".repeat(TEXT_BYTES_MAX))), "no other number");
    }
}
