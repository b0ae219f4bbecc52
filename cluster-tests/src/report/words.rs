//! A call in a few words: what was asked, and what came of it.

use crate::history::{Action, Answer, Ending, Micro, Outcome, Resolution, Step, StepAnswer};

use super::html::clip;

/// Characters of an answer with many rows or elements.
const LONG: usize = 300;

/// What was asked.
pub(super) fn action(action: &Action) -> String {
    match action {
        Action::Get { key } => format!("get {key}"),
        Action::Set { key, value } => format!("set {key} = {value}"),
        Action::Cas { key, from, to } => format!("set {key} = {to} if {from}"),
        Action::Delete { key } => format!("delete {key}"),
        Action::Add { key, by } => format!("add {by} to {key}"),
        Action::List { prefix } => format!("list {prefix}*"),
        Action::Append { steps } => clip(&joined(steps, step), LONG),
        Action::Transfer { from, to, amount } => format!("move {amount} from {from} to {to}"),
        Action::Balances => "balances".to_owned(),
        Action::Acquire { owner, steal: false } => format!("acquire for {owner}"),
        Action::Acquire { owner, steal: true } => format!("steal for {owner}"),
        Action::Release { owner } => format!("release of {owner}"),
        Action::Use { token, value } => format!("use with {token}: {value}"),
        Action::Pair { pair, value, ending } => {
            format!("pair {pair} = {value}{}", self::ending(*ending))
        }
        Action::ReadPair { pair } => format!("read pair {pair}"),
        Action::Repeat { of, key, by } => format!("add {by} to {key}, as {of} did"),
        Action::Txn { steps } => clip(&joined(steps, txn_step), LONG),
        Action::SetFor { key, value, seconds } => format!("set {key} = {value} for {seconds} s"),
        Action::Create { key, value } => format!("set {key} = {value} if none"),
        Action::Remove { key, from } => format!("delete {key} if {from}"),
        Action::Revisit { key, from } => format!("get {key} unless {from}"),
        Action::GetAt { key, stale, min_revision } => {
            let stale = if *stale { ", stale" } else { "" };
            let least = min_revision.map_or(String::new(), |least| format!(", at least @{least}"));
            format!("get {key}{stale}{least}")
        }
    }
}

fn txn_step(step: &Step) -> String {
    match step {
        Step::Check { key, version: Some(version) } => format!("check {key} is of {version}"),
        Step::Check { key, version: None } => format!("check {key} is none"),
        Step::Get { key } => format!("get {key}"),
        Step::Set { key, value } => format!("set {key} = {value}"),
        Step::Delete { key } => format!("delete {key}"),
        Step::Incr { key, by } => format!("add {by} to {key}"),
    }
}

fn step_answer(answer: &StepAnswer) -> String {
    match answer {
        StepAnswer::Holds => "holds".to_owned(),
        StepAnswer::Value { value: Some(value), version: Some(version) } => {
            format!("{value} of version {version}")
        }
        StepAnswer::Value { value, .. } => value.clone().unwrap_or_else(|| "none".to_owned()),
        StepAnswer::Set { version } => format!("set @{version}"),
        StepAnswer::Deleted(true) => "deleted".to_owned(),
        StepAnswer::Deleted(false) => "nothing deleted".to_owned(),
        StepAnswer::Number { value, version } => format!("{value} @{version}"),
    }
}

fn step(step: &Micro) -> String {
    match step {
        Micro::Append(key, element) => format!("append {element} to {key}"),
        Micro::Read(key) => format!("read {key}"),
    }
}

fn ending(ending: Ending) -> &'static str {
    match ending {
        Ending::Well => "",
        Ending::Error => ", then an error",
        Ending::Abort => ", then an abort",
        Ending::Exit => ", then exit 500",
        Ending::Fuel => ", then an endless loop",
        Ending::Memory => ", then out of memory",
        Ending::Caught => ", then a limit in pcall",
    }
}

/// What an answer said.
pub(super) fn answer(answer: &Answer) -> String {
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    let text = match answer {
        Answer::Written => "written".to_owned(),
        Answer::Value { value, version: Some(version) } => {
            format!("{} of version {version}", or_none(value))
        }
        Answer::Value { value, version: None } => or_none(value),
        Answer::Dated { age_ms, expires_at, .. } => {
            let (value, version) = answer.shown().unwrap_or_default();
            let of = version.map_or(String::new(), |version| format!(" of version {version}"));
            let age = age_ms.map_or(String::new(), |age| format!(", {age} ms old"));
            let dies = expires_at.map_or(String::new(), |at| format!(", until {at}"));
            format!("{}{of}{age}{dies}", value.unwrap_or("none"))
        }
        Answer::Unchanged => "unchanged".to_owned(),
        Answer::Number(number) => number.to_string(),
        Answer::Again { number, replayed: true } => format!("{number}, replayed"),
        Answer::Again { number, replayed: false } => format!("{number}, not replayed"),
        Answer::Results(answers) => joined(answers, step_answer),
        Answer::Rows(rows) if rows.is_empty() => "no rows".to_owned(),
        Answer::Rows(rows) => joined(rows, |(key, value)| format!("{key} = {value}")),
        Answer::Lists(lists) if lists.is_empty() => "written".to_owned(),
        Answer::Lists(lists) => {
            joined(lists, |list| format!("[{}]", joined_by(list, " ", u64::to_string)))
        }
        Answer::Balances(balances) => {
            let sum: i64 = balances.iter().fold(0, |sum, balance| sum.saturating_add(*balance));
            format!("{}; sum {sum}", joined_by(balances, " ", i64::to_string))
        }
        Answer::Halves(a, b) => format!("a {}, b {}", or_none(a), or_none(b)),
        Answer::Denied => "denied".to_owned(),
        Answer::Failed => "failed as meant".to_owned(),
    };
    clip(&text, LONG)
}

/// What came of a call.
pub(super) fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { answer, revision: Some(revision) } => {
            format!("{} @{revision}", self::answer(answer))
        }
        Outcome::Done { answer, revision: None } => self::answer(answer),
        Outcome::Refused { reason } => format!("refused: {reason}"),
        Outcome::Unknown { reason, resolution } => {
            format!("{}: {reason}", self::resolution(*resolution))
        }
    }
}

fn resolution(resolution: Resolution) -> String {
    match resolution {
        Resolution::None => "unknown".to_owned(),
        Resolution::Applied(revision) => format!("unknown, found applied @{revision}"),
        Resolution::NotApplied => "unknown, found not applied".to_owned(),
    }
}

fn joined<T>(items: &[T], word: impl Fn(&T) -> String) -> String {
    joined_by(items, ", ", word)
}

fn joined_by<T>(items: &[T], between: &str, word: impl Fn(&T) -> String) -> String {
    items.iter().map(word).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_read_as_sentences() {
        let cas = Action::Cas { key: "k".into(), from: "a".into(), to: "b".into() };
        assert_eq!(action(&cas), "set k = b if a");
        let steps = vec![Micro::Append(1, 7), Micro::Read(2)];
        assert_eq!(action(&Action::Append { steps }), "append 7 to 1, read 2");
        let pair = Action::Pair { pair: 3, value: "x".into(), ending: Ending::Fuel };
        assert_eq!(action(&pair), "pair 3 = x, then an endless loop");
    }

    #[test]
    fn what_is_asked_of_another_time_says_so() {
        let at = Action::GetAt { key: "k".into(), stale: true, min_revision: Some(4) };
        assert_eq!(action(&at), "get k, stale, at least @4");
        let dated = Answer::Dated {
            value: Some("a".into()),
            version: Some(3),
            age_ms: Some(20),
            expires_at: None,
        };
        assert_eq!(answer(&dated), "a of version 3, 20 ms old");
        let check = Step::Check { key: "k".into(), version: None };
        let steps = vec![check, Step::Incr { key: "n".into(), by: -2 }];
        assert_eq!(action(&Action::Txn { steps }), "check k is none, add -2 to n");
        let results = vec![StepAnswer::Holds, StepAnswer::Number { value: 5, version: 9 }];
        assert_eq!(answer(&Answer::Results(results)), "holds, 5 @9");
    }

    #[test]
    fn outcomes_tell_the_revision_and_what_is_not_known() {
        let read = Answer::Value { value: Some("b".into()), version: Some(4) };
        let done = Outcome::Done { answer: read, revision: Some(9) };
        assert_eq!(outcome(&done), "b of version 4 @9");
        let lost = |resolution| Outcome::Unknown { reason: "reset".into(), resolution };
        assert_eq!(outcome(&lost(Resolution::None)), "unknown: reset");
        assert_eq!(outcome(&lost(Resolution::Applied(8))), "unknown, found applied @8: reset");
        let lists = Answer::Lists(vec![vec![1, 2], vec![]]);
        assert_eq!(answer(&lists), "[1 2], []");
        assert_eq!(answer(&Answer::Balances(vec![60, 140])), "60 140; sum 200");
    }

    #[test]
    fn a_long_answer_is_cut() {
        let rows = (0..1000).map(|n| (format!("k{n}"), "v".to_owned())).collect();
        assert_eq!(answer(&Answer::Rows(rows)).chars().count(), LONG + 1);
    }
}
