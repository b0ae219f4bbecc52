//! From an action to its request.
//!
//! Where there are several ways to ask the same, the number of the operation decides: who reads a history
//! can tell which was taken.

use serde_json::{Value, json};

use super::Ask;
use crate::history::{Action, Ending, Micro, Step};
use crate::model::ACCOUNTS;
use crate::wire::Request;

/// Whether an operation leaves the row `op/ID` where it is applied: all scripts and transactions that write
/// do, and so half of the additions and of the keys that die; the others are plain `PATCH` and `PUT`.
#[must_use]
pub fn leaves_row(action: &Action, id: u64) -> bool {
    match action {
        Action::Add { .. } | Action::SetFor { .. } => coin(id, 1),
        Action::Append { .. } | Action::Txn { .. } => action.writes(),
        Action::Transfer { .. }
        | Action::Acquire { .. }
        | Action::Release { .. }
        | Action::Use { .. }
        | Action::Pair { .. } => true,
        Action::Get { .. }
        | Action::Set { .. }
        | Action::Cas { .. }
        | Action::Delete { .. }
        | Action::List { .. }
        | Action::Balances
        | Action::ReadPair { .. }
        | Action::Repeat { .. }
        | Action::Create { .. }
        | Action::Remove { .. }
        | Action::Revisit { .. }
        | Action::GetAt { .. } => false,
    }
}

/// A toss that is the same for an operation whenever it is asked; each of its coins falls by itself.
fn coin(id: u64, number: u32) -> bool {
    id.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(number) & 1 == 1
}

/// The request of an operation. Errors are asked for as JSON: they name their code.
pub(super) fn request(bucket: &str, id: u64, ask: &Ask) -> Request {
    if let Action::Repeat { of, key, by } = &ask.action {
        let first = Action::Add { key: key.clone(), by: *by };
        return self::request(bucket, *of, &Ask { once: true, ..first.into() });
    }
    let mut request = match &ask.action {
        Action::Get { key } | Action::Revisit { key, .. } => plain("GET", bucket, key, ""),
        Action::GetAt { key, stale, min_revision } => {
            plain("GET", bucket, &format!("{key}?{}", at(*stale, *min_revision)), "")
        }
        Action::Set { key, value } | Action::Create { key, value } => {
            plain("PUT", bucket, key, value)
        }
        Action::SetFor { key, value, seconds } if !leaves_row(&ask.action, id) => {
            plain("PUT", bucket, &format!("{key}?ttl={seconds}"), value)
        }
        Action::Cas { key, to, .. } => plain("PUT", bucket, key, to),
        Action::Delete { key } | Action::Remove { key, .. } => plain("DELETE", bucket, key, ""),
        Action::Txn { steps } => transaction(bucket, id, steps),
        Action::Add { key, by } if !leaves_row(&ask.action, id) => {
            plain("PATCH", bucket, key, &format!("{by:+}"))
        }
        Action::List { prefix } => {
            plain("GET", bucket, &format!("?values&format=json&prefix={prefix}"), "")
        }
        action => script(bucket, id, action),
    };
    request.headers.push(("accept", "application/json".to_owned()));
    request.headers.extend(condition(ask));
    if ask.once {
        request.headers.push(("idempotency-key", format!("op-{id}")));
    }
    request
}

/// The header that a condition is sent in.
fn condition(ask: &Ask) -> Option<(&'static str, String)> {
    match (&ask.action, ask.version) {
        (Action::Create { .. }, _) => Some(("if-none-match", "*".to_owned())),
        (Action::Revisit { .. }, Some(version)) => {
            Some(("if-none-match", format!("\"{version}\"")))
        }
        (_, Some(version)) => Some(("if-match", format!("\"{version}\""))),
        (_, None) => None,
    }
}

/// The query of a read that says how new it must be.
fn at(stale: bool, min_revision: Option<u64>) -> String {
    let consistency = if stale { "stale" } else { "linearizable" };
    let least = min_revision.map_or(String::new(), |least| format!("&min_revision={least}"));
    format!("consistency={consistency}{least}")
}

/// A transaction; one that writes leaves its row, too, by a last step.
fn transaction(bucket: &str, id: u64, steps: &[Step]) -> Request {
    let mut steps: Vec<Value> = steps.iter().map(step).collect();
    if steps.iter().any(|step| step.get("check").is_none() && step.get("get").is_none()) {
        steps.push(json!({ "set": format!("op/{id}"), "value": "txn" }));
    }
    Request {
        method: "POST",
        path: format!("/{bucket}"),
        headers: vec![("content-type", "application/json".to_owned())],
        body: json!({ "txn": steps }).to_string(),
    }
}

fn step(step: &Step) -> Value {
    match step {
        Step::Check { key, version } => json!({ "check": key, "version": version }),
        Step::Get { key } => json!({ "get": key }),
        Step::Set { key, value } => json!({ "set": key, "value": value }),
        Step::Delete { key } => json!({ "delete": key }),
        Step::Incr { key, by } => json!({ "incr": key, "by": by }),
    }
}

fn plain(method: &'static str, bucket: &str, rest: &str, body: &str) -> Request {
    let path = format!("/{bucket}/{rest}");
    Request { method, path, headers: Vec::new(), body: body.to_owned() }
}

/// A script call: by GET where it only reads, else by POST with its arguments in the query or in a form.
fn script(bucket: &str, id: u64, action: &Action) -> Request {
    let (name, arguments) = call(action);
    let arguments = format!("id={id}{arguments}");
    let path = format!("scripts/{name}");
    if !action.writes() {
        return plain("GET", bucket, &format!("{path}?{arguments}"), "");
    }
    if coin(id, 2) {
        return plain("POST", bucket, &format!("{path}?{arguments}"), "");
    }
    let mut request = plain("POST", bucket, &path, &arguments);
    request.headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
    request
}

/// A script's name and its arguments. None is called `key` or `access_token`: those are credentials.
fn call(action: &Action) -> (&'static str, String) {
    match action {
        Action::Add { key, by } => ("add", format!("&counter={key}&by={by}")),
        Action::Append { steps } => ("append", format!("&steps={}", steps_text(steps))),
        Action::Transfer { from, to, amount } => {
            ("transfer", format!("&from={from}&to={to}&amount={amount}"))
        }
        Action::Balances => ("balances", format!("&accounts={ACCOUNTS}")),
        Action::Acquire { owner, steal } => {
            ("acquire", format!("&owner={owner}{}", if *steal { "&steal=1" } else { "" }))
        }
        Action::Release { owner } => ("release", format!("&owner={owner}")),
        Action::Use { token, value } => ("use", format!("&token={token}&value={value}")),
        Action::Pair { pair, value, ending } => {
            ("pair", format!("&pair={pair}&value={value}&ending={}", ending_text(*ending)))
        }
        Action::ReadPair { pair } => ("readpair", format!("&pair={pair}")),
        Action::SetFor { key, value, seconds } => {
            ("setfor", format!("&name={key}&value={value}&seconds={seconds}"))
        }
        _ => unreachable!("no script does {action:?}"),
    }
}

fn steps_text(steps: &[Micro]) -> String {
    let steps = steps.iter().map(|step| match step {
        Micro::Append(key, element) => format!("a:{key}:{element}"),
        Micro::Read(key) => format!("r:{key}"),
    });
    steps.collect::<Vec<_>>().join(",")
}

fn ending_text(ending: Ending) -> &'static str {
    match ending {
        Ending::Well => "well",
        Ending::Error => "error",
        Ending::Abort => "abort",
        Ending::Exit => "exit",
        Ending::Fuel => "fuel",
        Ending::Memory => "memory",
        Ending::Caught => "caught",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: u64, action: Action) -> String {
        let request = request("b", id, &action.into());
        format!("{} {} {:?}", request.method, request.path, request.body)
    }

    #[test]
    fn requests() {
        let key = || "k".to_owned();
        assert_eq!(line(1, Action::Get { key: key() }), "GET /b/k \"\"");
        assert_eq!(line(1, Action::Set { key: key(), value: "v1".into() }), "PUT /b/k \"v1\"");
        let list = Action::List { prefix: "p1/".into() };
        assert_eq!(line(1, list), "GET /b/?values&format=json&prefix=p1/ \"\"");
        let steps = vec![Micro::Append(3, 17), Micro::Read(4)];
        let reads = vec![Micro::Read(4)];
        let (by_query, by_form) = (id_with(2, true), id_with(2, false));
        assert_eq!(
            line(by_query, Action::Append { steps: steps.clone() }),
            format!("POST /b/scripts/append?id={by_query}&steps=a:3:17,r:4 \"\"")
        );
        assert_eq!(
            line(by_form, Action::Append { steps }),
            format!("POST /b/scripts/append \"id={by_form}&steps=a:3:17,r:4\"")
        );
        assert_eq!(
            line(by_form, Action::Append { steps: reads }),
            format!("GET /b/scripts/append?id={by_form}&steps=r:4 \"\"")
        );
        let add = || Action::Add { key: key(), by: 1 };
        assert_eq!(line(id_with(1, false), add()), "PATCH /b/k \"+1\"");
        assert!(line(id_with(1, true), add()).contains("/b/scripts/add"));
    }

    #[test]
    fn a_cas_sends_the_version() {
        let action = Action::Cas { key: "k".into(), from: "a".into(), to: "b".into() };
        let request = request("b", 1, &Ask { version: Some(7), ..action.into() });
        assert!(request.headers.contains(&("if-match", "\"7\"".to_owned())), "{request:?}");
    }

    #[test]
    fn conditions_are_sent_as_headers() {
        let sent = |action: Action, version| {
            let request = request("b", 1, &Ask { version, ..action.into() });
            let headers = request.headers.into_iter().filter(|(name, _)| *name != "accept");
            (request.method, headers.collect::<Vec<_>>())
        };
        let create = Action::Create { key: "k".into(), value: "v".into() };
        assert_eq!(sent(create, None), ("PUT", vec![("if-none-match", "*".to_owned())]));
        let remove = Action::Remove { key: "k".into(), from: "a".into() };
        assert_eq!(sent(remove, Some(7)), ("DELETE", vec![("if-match", "\"7\"".to_owned())]));
        let revisit = Action::Revisit { key: "k".into(), from: "a".into() };
        assert_eq!(sent(revisit, Some(7)), ("GET", vec![("if-none-match", "\"7\"".to_owned())]));
    }

    #[test]
    fn what_is_asked_once_more_is_the_same_request() {
        for id in [id_with(1, true), id_with(1, false)] {
            let add = Action::Add { key: "k".into(), by: 1 };
            let first = request("b", id, &Ask { once: true, ..add.into() });
            let key = ("idempotency-key", format!("op-{id}"));
            assert!(first.headers.contains(&key), "{first:?}");
            let again = Action::Repeat { of: id, key: "k".into(), by: 1 };
            assert_eq!(request("b", id + 99, &again.into()), first);
        }
    }

    #[test]
    fn transactions_are_json() {
        let check = |version| Step::Check { key: "a".into(), version };
        let set = Step::Set { key: "a".into(), value: "7".into() };
        let incr = Step::Incr { key: "n".into(), by: 2 };
        let delete = Step::Delete { key: "b".into() };
        let steps = vec![check(Some(4)), check(None), set, incr, delete];
        assert_eq!(
            line(9, Action::Txn { steps }),
            "POST /b \"".to_owned()
                + &concat!(
                    r#"{"txn":[{"check":"a","version":4},{"check":"a","version":null},"#,
                    r#"{"set":"a","value":"7"},{"by":2,"incr":"n"},{"delete":"b"},"#,
                    r#"{"set":"op/9","value":"txn"}]}"#
                )
                .replace('"', "\\\"")
                + "\""
        );
        let steps = vec![Step::Get { key: "a".into() }];
        assert!(!line(9, Action::Txn { steps }).contains("op/9"), "it writes nothing");
    }

    #[test]
    fn reads_say_how_new_they_must_be() {
        let at =
            |stale, min_revision| line(1, Action::GetAt { key: "k".into(), stale, min_revision });
        assert_eq!(at(true, None), "GET /b/k?consistency=stale \"\"");
        assert_eq!(at(false, Some(7)), "GET /b/k?consistency=linearizable&min_revision=7 \"\"");
        let set = |id| line(id, Action::SetFor { key: "k".into(), value: "v".into(), seconds: 2 });
        assert_eq!(set(id_with(1, false)), "PUT /b/k?ttl=2 \"v\"");
        assert!(set(id_with(1, true)).contains("name=k&value=v&seconds=2"));
    }

    fn id_with(number: u32, side: bool) -> u64 {
        (1..).find(|id| coin(*id, number) == side).unwrap()
    }

    #[test]
    fn coins_are_fair_and_apart() {
        let count = |toss: &dyn Fn(u64) -> bool| (0..4000).filter(|id| toss(*id)).count();
        for number in [1, 2] {
            // Also where a client's ids are all even.
            let heads = count(&|id| coin(id * 40, number));
            assert!((1600..2400).contains(&heads), "coin {number}: {heads}");
        }
        let both = count(&|id| coin(id, 1) && coin(id, 2));
        assert!((700..1300).contains(&both), "{both}");
    }
}
