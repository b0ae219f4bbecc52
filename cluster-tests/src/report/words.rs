//! A call in a few words: what was asked, and what came of it.

use crate::history::{Action, Answer, Ending, Micro, Outcome, Resolution};

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
        Answer::Number(number) => number.to_string(),
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
