//! From an action to its request.
//!
//! Where there are several ways to ask the same, the number of the operation decides: who reads a history
//! can tell which was taken.

use super::Ask;
use crate::history::{Action, Ending, Micro};
use crate::model::ACCOUNTS;
use crate::wire::Request;

/// Whether an operation leaves the row `op/ID` where it is applied: all scripts that write do, and so half
/// of the additions; the others are plain `PATCH`.
#[must_use]
pub fn leaves_row(action: &Action, id: u64) -> bool {
    match action {
        Action::Add { .. } => coin(id, 1),
        Action::Append { .. } => action.writes(),
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
        | Action::ReadPair { .. } => false,
    }
}

/// A toss that is the same for an operation whenever it is asked; each of its coins falls by itself.
fn coin(id: u64, number: u32) -> bool {
    id.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(number) & 1 == 1
}

/// The request of an operation. Errors are asked for as JSON: they name their code.
pub(super) fn request(bucket: &str, id: u64, ask: &Ask) -> Request {
    let mut request = match &ask.action {
        Action::Get { key } => plain("GET", bucket, key, ""),
        Action::Set { key, value } => plain("PUT", bucket, key, value),
        Action::Cas { key, to, .. } => plain("PUT", bucket, key, to),
        Action::Delete { key } => plain("DELETE", bucket, key, ""),
        Action::Add { key, by } if !leaves_row(&ask.action, id) => {
            plain("PATCH", bucket, key, &format!("{by:+}"))
        }
        Action::List { prefix } => {
            plain("GET", bucket, &format!("?values&format=json&prefix={prefix}"), "")
        }
        action => script(bucket, id, action),
    };
    request.headers.push(("accept", "application/json".to_owned()));
    if let Some(version) = ask.if_match {
        request.headers.push(("if-match", format!("\"{version}\"")));
    }
    request
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
        Action::Get { .. }
        | Action::Set { .. }
        | Action::Cas { .. }
        | Action::Delete { .. }
        | Action::List { .. } => unreachable!("no script does {action:?}"),
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
        let request = request("b", 1, &Ask { action, if_match: Some(7) });
        assert!(request.headers.contains(&("if-match", "\"7\"".to_owned())), "{request:?}");
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
