//! From an answer to what is known of a call.
//!
//! Three kinds of answers are told apart: what the state made of the call (done, denied, failed as it was
//! meant to), what kept it from the state (no leader, overloaded, out of time: nothing was written), and
//! what the contract does not know. The last is recorded as unknown and listed as a trouble.

use serde::Deserialize;
use serde_json::Value;

use super::UNEXPECTED;
use crate::history::{Action, Answer, Ending, Micro, Outcome, Resolution};
use crate::history::{Step, StepAnswer};
use crate::http::{Failure, Reply};
use crate::model::ACCOUNTS;

/// Most of a body that a reason shows.
const SHOWN_MAX: usize = 200;

/// Sorts what came back.
pub(super) fn outcome(action: &Action, result: Result<Reply, Failure>) -> Outcome {
    match result {
        Err(Failure { sent: false, reason }) => Outcome::Refused { reason },
        Err(Failure { sent: true, reason }) => unknown(reason),
        Ok(reply) => of_reply(action, &reply),
    }
}

fn unknown(reason: String) -> Outcome {
    Outcome::Unknown { reason, resolution: Resolution::None }
}

fn of_reply(action: &Action, reply: &Reply) -> Outcome {
    let nothing_written = applied(reply) == Some("no") || !action.writes();
    match reply.status {
        503 if applied(reply) == Some("unknown") => unknown(shown(reply)),
        503 | 429 if nothing_written => Outcome::Refused { reason: shown(reply) },
        // A node that stood still counts that against the script that it ran.
        500 if nothing_written && is_out_of_time(reply) && !is_failure(action, reply) => {
            Outcome::Refused { reason: shown(reply) }
        }
        // It has not heard of the bucket yet.
        404 if action.is_of_the_past() && code(reply).as_deref() == Some("bucket_not_found") => {
            Outcome::Refused { reason: shown(reply) }
        }
        // A node that met damage of its disk: it refuses, as it should, and ends.
        500 if code(reply).as_deref() == Some("corrupt") => unknown(shown(reply)),
        _ => match answer(action, reply) {
            Some(answer) => Outcome::Done { answer, revision: revision(reply) },
            None => unknown(format!("{UNEXPECTED}{}", shown(reply))),
        },
    }
}

fn applied(reply: &Reply) -> Option<&str> {
    reply.header("x-kvdb-applied")
}

fn revision(reply: &Reply) -> Option<u64> {
    reply.header("x-kvdb-revision").and_then(|text| text.parse().ok())
}

/// The version in an entity tag.
pub(super) fn version(reply: &Reply) -> Option<u64> {
    let tag = reply.header("etag")?.strip_prefix('"')?.strip_suffix('"')?;
    tag.parse().ok()
}

fn shown(reply: &Reply) -> String {
    let body: String = reply.text().chars().take(SHOWN_MAX).collect();
    let applied = applied(reply).unwrap_or("-");
    format!("{} applied={applied} {body:?}", reply.status)
}

/// An error of the server's own.
#[derive(Debug, Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Debug, Deserialize)]
struct ErrorDetail {
    code: String,
    message: String,
}

/// The code and message of an error of the server's own; a script's status has none.
fn error(reply: &Reply) -> Option<ErrorDetail> {
    serde_json::from_slice::<ErrorBody>(&reply.body).ok().map(|body| body.error)
}

/// The code of an error of the server's own.
pub(super) fn code(reply: &Reply) -> Option<String> {
    error(reply).map(|error| error.code)
}

fn is_out_of_time(reply: &Reply) -> bool {
    error(reply).is_some_and(|error| error.code == "script_limit" && error.message.contains("time"))
}

/// What the state made of the call; `None` where this is no answer to it.
fn answer(action: &Action, reply: &Reply) -> Option<Answer> {
    let denied = applied(reply) == Some("no");
    match (reply.status, action) {
        (200, _) if action.writes() && applied(reply) != Some("yes") => None,
        (200, _) => done(action, reply),
        (404, Action::Get { .. } | Action::Revisit { .. } | Action::GetAt { .. })
            if code(reply).as_deref() == Some("key_not_found") =>
        {
            Some(value(None, None, reply))
        }
        (304, Action::Revisit { .. }) => Some(Answer::Unchanged),
        (412, Action::Cas { .. } | Action::Create { .. } | Action::Remove { .. }) if denied => {
            Some(Answer::Denied)
        }
        (409, Action::Txn { .. }) if code(reply).as_deref() == Some("conflict") => {
            Some(Answer::Denied).filter(|_| denied || !action.writes())
        }
        (
            409,
            Action::Transfer { .. }
            | Action::Acquire { .. }
            | Action::Release { .. }
            | Action::Use { .. },
        ) if denied && error(reply).is_none() => Some(Answer::Denied),
        (500, Action::Pair { .. }) if denied && is_failure(action, reply) => Some(Answer::Failed),
        _ => None,
    }
}

/// Whether a script failed the way it was asked to. Whichever limit it meets first ends one that uses up
/// everything, and a node that stood still may end any of them.
fn is_failure(action: &Action, reply: &Reply) -> bool {
    let Action::Pair { ending, .. } = action else { return false };
    let error = error(reply);
    let limit = error.as_ref().is_some_and(|error| error.code == "script_limit");
    match ending {
        Ending::Well => false,
        Ending::Error => {
            limit || error.is_some_and(|e| e.code == "script_error" && e.message.contains("meant"))
        }
        Ending::Abort => limit || reply.body == b"as meant",
        Ending::Exit => limit || reply.body.is_empty(),
        Ending::Fuel | Ending::Memory | Ending::Caught => limit,
    }
}

/// Reads the body of a success.
fn done(action: &Action, reply: &Reply) -> Option<Answer> {
    let text = reply.text();
    let number = || text.trim_end().parse().ok().map(Answer::Number);
    match action {
        Action::Get { .. } | Action::Revisit { .. } | Action::GetAt { .. } => {
            Some(value(Some(text), Some(version(reply)?), reply))
        }
        Action::Repeat { .. } => {
            let replayed = reply.header("idempotency-replayed") == Some("true");
            Some(Answer::Again { number: text.trim_end().parse().ok()?, replayed })
        }
        Action::Txn { steps } => results(steps, &reply.body).map(Answer::Results),
        Action::Add { .. } | Action::Acquire { .. } => number(),
        Action::List { .. } => rows(&reply.body).map(Answer::Rows),
        Action::Append { steps } => lists(steps, &text).map(Answer::Lists),
        Action::Balances => {
            let balances: Option<Vec<i64>> = text.lines().map(|line| line.parse().ok()).collect();
            balances.filter(|b| b.len() as u64 == ACCOUNTS).map(Answer::Balances)
        }
        Action::ReadPair { .. } => halves(&text),
        Action::Set { .. }
        | Action::SetFor { .. }
        | Action::Cas { .. }
        | Action::Create { .. }
        | Action::Remove { .. }
        | Action::Delete { .. }
        | Action::Transfer { .. }
        | Action::Release { .. }
        | Action::Use { .. }
        // Also where it was to fail: that it did not is for the checkers to say.
        | Action::Pair { .. } => Some(Answer::Written),
    }
}

/// What a key holds, with what the answer says of time.
fn value(value: Option<String>, version: Option<u64>, reply: &Reply) -> Answer {
    let number = |name| reply.header(name).and_then(|text| text.parse().ok());
    match (number("x-kvdb-age-ms"), number("x-kvdb-expires-at")) {
        (None, None) => Answer::Value { value, version },
        (age_ms, expires_at) => Answer::Dated { value, version, age_ms, expires_at },
    }
}

/// The answer of a transaction.
#[derive(Debug, Deserialize)]
struct TxnBody {
    results: Vec<Value>,
}

/// What each step answered. That of the row `op/ID`, which is none of them, is left out.
fn results(steps: &[Step], body: &[u8]) -> Option<Vec<StepAnswer>> {
    let results = serde_json::from_slice::<TxnBody>(body).ok()?.results;
    let row = usize::from(steps.iter().any(Step::writes));
    if results.len() != steps.len() + row {
        return None;
    }
    steps.iter().zip(&results).map(|(step, result)| result_of(step, result)).collect()
}

fn result_of(step: &Step, result: &Value) -> Option<StepAnswer> {
    let version = || result.get("version").and_then(Value::as_u64);
    match step {
        Step::Check { .. } => (result.get("ok")? == true).then_some(StepAnswer::Holds),
        Step::Get { .. } => {
            let value = match result.get("value")? {
                Value::Null => None,
                value => Some(text(value)?),
            };
            Some(StepAnswer::Value { value, version: version() })
        }
        Step::Set { .. } => Some(StepAnswer::Set { version: version()? }),
        Step::Delete { .. } => result.get("deleted")?.as_bool().map(StepAnswer::Deleted),
        Step::Incr { .. } => {
            let value = text(result.get("value")?)?.parse().ok()?;
            Some(StepAnswer::Number { value, version: version()? })
        }
    }
}

/// A value; in JSON one that is a number has no quotes.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The rows of a list with values.
pub(super) fn rows(body: &[u8]) -> Option<Vec<(String, String)>> {
    let rows: Vec<(String, Value)> = serde_json::from_slice(body).ok()?;
    rows.into_iter().map(|(key, value)| Some((key, text(&value)?))).collect()
}

/// A line for each list that was read: its elements, separated by commas.
fn lists(steps: &[Micro], text: &str) -> Option<Vec<Vec<u64>>> {
    let elements = |line: &str| -> Option<Vec<u64>> {
        line.split(',').filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
    };
    let lists: Vec<_> = text.lines().map(elements).collect::<Option<_>>()?;
    let reads = steps.iter().filter(|step| matches!(step, Micro::Read(_))).count();
    (lists.len() == reads).then_some(lists)
}

fn halves(text: &str) -> Option<Answer> {
    let half = |line: &str| Some(line.to_owned()).filter(|line| !line.is_empty());
    match text.lines().collect::<Vec<_>>()[..] {
        [a, b] => Some(Answer::Halves(half(a), half(b))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderName};

    use super::*;

    fn reply(status: u16, headers: &[(&'static str, &str)], body: &str) -> Reply {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        Reply { status, headers: map, body: body.as_bytes().to_vec(), hops: 0 }
    }

    fn error_reply(status: u16, applied: &str, code: &str, message: &str) -> Reply {
        let body = format!(
            r#"{{"error":{{"code":"{code}","message":"{message}","retryable":false,"applied":"{applied}"}}}}"#
        );
        reply(status, &[("x-kvdb-applied", applied)], &body)
    }

    fn yes(body: &str) -> Reply {
        reply(200, &[("x-kvdb-applied", "yes"), ("x-kvdb-revision", "12")], body)
    }

    fn get() -> Action {
        Action::Get { key: "k".into() }
    }

    fn set() -> Action {
        Action::Set { key: "k".into(), value: "v".into() }
    }

    fn cas() -> Action {
        Action::Cas { key: "k".into(), from: "a".into(), to: "b".into() }
    }

    fn transfer() -> Action {
        Action::Transfer { from: 0, to: 1, amount: 5 }
    }

    fn pair(ending: Ending) -> Action {
        Action::Pair { pair: 1, value: "v".into(), ending }
    }

    fn done_at(action: &Action, reply: &Reply) -> (Answer, Option<u64>) {
        match of_reply(action, reply) {
            Outcome::Done { answer, revision } => (answer, revision),
            other => panic!("{action:?}, {reply}: {other:?}"),
        }
    }

    fn word(action: &Action, reply: &Reply) -> &'static str {
        match of_reply(action, reply) {
            Outcome::Done { .. } => "done",
            Outcome::Refused { .. } => "refused",
            Outcome::Unknown { reason, .. } if reason.starts_with(UNEXPECTED) => "unexpected",
            Outcome::Unknown { .. } => "unknown",
        }
    }

    #[test]
    fn bodies_are_read() {
        let value = reply(200, &[("etag", "\"9\""), ("x-kvdb-revision", "12")], "v1");
        let read = Answer::Value { value: Some("v1".into()), version: Some(9) };
        assert_eq!(done_at(&get(), &value), (read, Some(12)));
        assert_eq!(done_at(&set(), &yes("")), (Answer::Written, Some(12)));
        let add = Action::Add { key: "k".into(), by: 1 };
        assert_eq!(done_at(&add, &yes("7\n")).0, Answer::Number(7));
        assert_eq!(done_at(&add, &yes("7")).0, Answer::Number(7));
        let list = Action::List { prefix: "p".into() };
        let rows = vec![("a".to_owned(), "v1".to_owned()), ("b".to_owned(), "7".to_owned())];
        assert_eq!(done_at(&list, &yes(r#"[["a","v1"],["b",7]]"#)).0, Answer::Rows(rows));
        let steps = vec![Micro::Read(1), Micro::Append(1, 5), Micro::Read(2)];
        let lists = done_at(&Action::Append { steps }, &yes("1,2\n\n")).0;
        assert_eq!(lists, Answer::Lists(vec![vec![1, 2], vec![]]));
        let balances = done_at(&Action::Balances, &yes("1\n2\n3\n4\n5\n6\n7\n8\n")).0;
        assert_eq!(balances, Answer::Balances((1..=8).collect()));
        let halves = done_at(&Action::ReadPair { pair: 1 }, &yes("\nv3\n")).0;
        assert_eq!(halves, Answer::Halves(None, Some("v3".into())));
    }

    #[test]
    fn what_is_said_of_time_is_read() {
        let at = |stale| Action::GetAt { key: "k".into(), stale, min_revision: Some(3) };
        let headers = [("etag", "\"9\""), ("x-kvdb-revision", "12"), ("x-kvdb-age-ms", "40")];
        let (version, age_ms, expires_at) = (Some(9), Some(40), None);
        let read = Answer::Dated { value: Some("v1".into()), version, age_ms, expires_at };
        assert_eq!(done_at(&at(true), &reply(200, &headers, "v1")), (read, Some(12)));
        let dies = [("etag", "\"9\""), ("x-kvdb-expires-at", "1700000000000")];
        let (age_ms, expires_at) = (None, Some(1_700_000_000_000));
        let read = Answer::Dated { value: Some("v1".into()), version, age_ms, expires_at };
        assert_eq!(done_at(&get(), &reply(200, &dies, "v1")).0, read);
        let missing = error_reply(404, "no", "key_not_found", "x");
        let none = Answer::Value { value: None, version: None };
        assert_eq!(done_at(&at(false), &missing).0, none);
        let behind = error_reply(503, "no", "behind", "x");
        assert_eq!(word(&at(true), &behind), "refused");
        let no_bucket = error_reply(404, "no", "bucket_not_found", "x");
        assert_eq!(word(&at(true), &no_bucket), "refused");
        assert_eq!(word(&at(false), &no_bucket), "unexpected");
    }

    #[test]
    fn conditions_are_answered() {
        let revisit = Action::Revisit { key: "k".into(), from: "a".into() };
        let create = Action::Create { key: "k".into(), value: "a".into() };
        let remove = Action::Remove { key: "k".into(), from: "a".into() };
        let same = reply(304, &[("etag", "\"9\""), ("x-kvdb-revision", "12")], "");
        assert_eq!(done_at(&revisit, &same), (Answer::Unchanged, Some(12)));
        let failed = error_reply(412, "no", "precondition_failed", "x");
        for action in [&create, &remove] {
            assert_eq!(done_at(action, &failed).0, Answer::Denied);
            assert_eq!(done_at(action, &yes("")).0, Answer::Written);
        }
        assert_eq!(word(&get(), &same), "unexpected");
    }

    #[test]
    fn repeats_say_whether_they_are() {
        let repeat = Action::Repeat { of: 3, key: "k".into(), by: 1 };
        let again = |replayed| Answer::Again { number: 7, replayed };
        assert_eq!(done_at(&repeat, &yes("7\n")).0, again(false));
        let headers = [("idempotency-replayed", "true"), ("x-kvdb-revision", "12")];
        assert_eq!(done_at(&repeat, &reply(200, &headers, "7")), (again(true), Some(12)));
        let other = error_reply(422, "no", "idempotency_mismatch", "x");
        assert_eq!(word(&repeat, &other), "unexpected");
    }

    #[test]
    fn results_of_transactions_are_read() {
        let key = || "k".to_owned();
        let get = Step::Get { key: key() };
        let check = Step::Check { key: key(), version: Some(3) };
        let steps = vec![check, get.clone(), Step::Incr { key: key(), by: 1 }];
        let txn = Action::Txn { steps };
        let body = r#"{"revision":12,"results":[{"ok":true},{"value":7,"version":3},
            {"value":8,"version":12},{"version":12}]}"#;
        let (value, version) = (Some("7".to_owned()), Some(3));
        let results = vec![
            StepAnswer::Holds,
            StepAnswer::Value { value, version },
            StepAnswer::Number { value: 8, version: 12 },
        ];
        assert_eq!(done_at(&txn, &yes(body)), (Answer::Results(results), Some(12)));
        let steps = vec![get, Step::Delete { key: key() }];
        let body = r#"{"results":[{"value":null},{"deleted":false},{"version":12}]}"#;
        let none = StepAnswer::Value { value: None, version: None };
        let results = vec![none, StepAnswer::Deleted(false)];
        let delete = Action::Txn { steps };
        assert_eq!(done_at(&delete, &yes(body)).0, Answer::Results(results));
        assert_eq!(word(&delete, &yes(r#"{"results":[{"value":null}]}"#)), "unexpected");
        let failed = error_reply(409, "no", "conflict", "x");
        assert_eq!(done_at(&txn, &failed).0, Answer::Denied);
        assert_eq!(word(&txn, &error_reply(409, "unknown", "conflict", "x")), "unexpected");
    }

    #[test]
    fn the_state_may_deny() {
        let missing = error_reply(404, "no", "key_not_found", "x");
        let none = Answer::Value { value: None, version: None };
        assert_eq!(done_at(&get(), &missing).0, none);
        let failed = error_reply(412, "no", "precondition_failed", "x");
        assert_eq!(done_at(&cas(), &failed).0, Answer::Denied);
        let no = |status, body| reply(status, &[("x-kvdb-applied", "no")], body);
        assert_eq!(done_at(&transfer(), &no(409, "")).0, Answer::Denied);
        assert_eq!(done_at(&pair(Ending::Exit), &no(500, "")).0, Answer::Failed);
        assert_eq!(done_at(&pair(Ending::Abort), &no(500, "as meant")).0, Answer::Failed);
        let error = error_reply(500, "no", "script_error", "script `pair` line 5: as meant");
        assert_eq!(done_at(&pair(Ending::Error), &error).0, Answer::Failed);
        let limit = error_reply(500, "no", "script_limit", "fuel");
        assert_eq!(done_at(&pair(Ending::Fuel), &limit).0, Answer::Failed);
        // A script that was to fail and says that it did not is recorded so.
        assert_eq!(done_at(&pair(Ending::Exit), &yes("")).0, Answer::Written);
    }

    #[test]
    fn the_cluster_may_refuse_or_not_know() {
        let refused = error_reply(503, "no", "no_leader", "x");
        let unknown = error_reply(503, "unknown", "outcome_unknown", "x");
        for action in [get(), set(), transfer(), pair(Ending::Exit)] {
            assert_eq!(word(&action, &refused), "refused", "{action:?}");
            assert_eq!(word(&action, &unknown), "unknown", "{action:?}");
        }
        // A read changes nothing, whatever is not said of it.
        assert_eq!(word(&get(), &reply(503, &[], "")), "refused");
        assert_eq!(word(&set(), &reply(503, &[], "")), "unexpected");
        let stood_still = error_reply(500, "no", "script_limit", "the script met a limit: time");
        assert_eq!(word(&transfer(), &stood_still), "refused");
        assert_eq!(word(&pair(Ending::Well), &stood_still), "refused");
        assert_eq!(word(&pair(Ending::Abort), &stood_still), "done");
        let failure = |sent| Err(Failure { sent, reason: "x".into() });
        assert!(matches!(outcome(&set(), failure(false)), Outcome::Refused { .. }));
        assert!(matches!(outcome(&set(), failure(true)), Outcome::Unknown { .. }));
    }

    #[test]
    fn what_fits_nothing_is_unexpected() {
        for (action, reply) in [
            (get(), error_reply(404, "no", "bucket_not_found", "x")),
            (get(), yes("a value without a version")),
            (set(), error_reply(500, "unknown", "internal", "x")),
            (set(), error_reply(400, "no", "invalid", "x")),
            (set(), error_reply(401, "no", "unauthorized", "x")),
            (set(), reply(200, &[("x-kvdb-applied", "no")], "")),
            (cas(), reply(412, &[], "")),
            (transfer(), error_reply(404, "no", "script_not_found", "x")),
            (transfer(), error_reply(409, "no", "conflict", "x")),
            (transfer(), error_reply(500, "no", "script_error", "as meant")),
            (pair(Ending::Exit), error_reply(500, "no", "script_error", "as meant")),
            (pair(Ending::Exit), reply(500, &[("x-kvdb-applied", "unknown")], "")),
            (pair(Ending::Well), error_reply(500, "no", "script_limit", "memory")),
            (Action::Balances, yes("1\n2\n")),
            (Action::Append { steps: vec![Micro::Read(1)] }, yes("")),
        ] {
            assert_eq!(word(&action, &reply), "unexpected", "{action:?}: {reply}");
        }
    }
}
