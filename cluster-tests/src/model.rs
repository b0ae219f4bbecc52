//! What a bucket must answer: the model that histories are replayed on. One call at a time, no faults,
//! no HTTP; a few lines for each action, so that a reader can see that it is right.

use std::collections::BTreeMap;

use crate::history::{Action, Answer, Ending, Micro, Step, StepAnswer};

/// Accounts of the bank, each with [`BALANCE`] at the start.
pub const ACCOUNTS: u64 = 8;
/// What an account begins with.
pub const BALANCE: i64 = 100;

/// A bucket: rows, each with the revision of its last write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    rows: BTreeMap<String, (String, u64)>,
}

impl Bucket {
    /// A bucket in which a workload finds what it expects: the bank its accounts.
    #[must_use]
    pub fn of(workload: &str) -> Self {
        let mut bucket = Bucket::default();
        if workload == "bank" {
            for account in 0..ACCOUNTS {
                bucket.put(account_key(account), BALANCE.to_string(), 0);
            }
        }
        bucket
    }

    /// Its rows with a prefix.
    #[must_use]
    pub fn rows(&self, prefix: &str) -> Vec<(String, String)> {
        let from = self.rows.range(prefix.to_owned()..);
        from.take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (value, _))| (key.clone(), value.clone()))
            .collect()
    }

    /// Answers an action, and makes its writes at a revision.
    pub fn step(&mut self, action: &Action, revision: u64) -> Answer {
        match action {
            Action::Get { key } | Action::GetAt { key, .. } => self.get(key),
            Action::Set { key, value } | Action::SetFor { key, value, .. } => {
                self.put(key.clone(), value.clone(), revision)
            }
            Action::Cas { .. }
            | Action::Create { .. }
            | Action::Remove { .. }
            | Action::Revisit { .. } => self.if_it_is(action, revision),
            Action::Delete { key } => self.delete(key),
            Action::Add { key, by } => self.add(key, *by, revision),
            // At its revision, nothing was added since.
            Action::Repeat { key, .. } => {
                Answer::Again { number: self.number(key), replayed: true }
            }
            Action::Txn { steps } => self.transact(steps, revision),
            Action::List { prefix } => Answer::Rows(self.rows(prefix)),
            Action::Append { steps } => self.append(steps, revision),
            Action::Transfer { from, to, amount } => self.transfer(*from, *to, *amount, revision),
            Action::Balances => {
                Answer::Balances((0..ACCOUNTS).map(|n| self.number(&account_key(n))).collect())
            }
            Action::Acquire { owner, steal } => self.acquire(owner, *steal, revision),
            Action::Release { owner } if self.text("lock") == Some(owner) => self.delete("lock"),
            Action::Release { .. } => Answer::Denied,
            Action::Use { token, value } => self.use_resource(*token, value, revision),
            Action::Pair { pair, value, ending: Ending::Well } => {
                self.put(half(*pair, 'a'), value.clone(), revision);
                self.put(half(*pair, 'b'), value.clone(), revision)
            }
            Action::Pair { .. } => Answer::Failed,
            Action::ReadPair { pair } => {
                let read = |name| self.text(&half(*pair, name)).cloned();
                Answer::Halves(read('a'), read('b'))
            }
        }
    }

    /// What depends on the value that a key has.
    fn if_it_is(&mut self, action: &Action, revision: u64) -> Answer {
        match action {
            Action::Cas { key, from, to } if self.text(key) == Some(from) => {
                self.put(key.clone(), to.clone(), revision)
            }
            Action::Create { key, value } if self.text(key).is_none() => {
                self.put(key.clone(), value.clone(), revision)
            }
            Action::Remove { key, from } if self.text(key) == Some(from) => self.delete(key),
            Action::Revisit { key, from } if self.text(key) == Some(from) => Answer::Unchanged,
            Action::Revisit { key, .. } => self.get(key),
            _ => Answer::Denied,
        }
    }

    /// Steps see those before them; a check that does not hold undoes all.
    fn transact(&mut self, steps: &[Step], revision: u64) -> Answer {
        let before = self.rows.clone();
        let answers: Option<Vec<StepAnswer>> =
            steps.iter().map(|step| self.step_of_many(step, revision)).collect();
        let Some(answers) = answers else {
            self.rows = before;
            return Answer::Denied;
        };
        Answer::Results(answers)
    }

    fn step_of_many(&mut self, step: &Step, revision: u64) -> Option<StepAnswer> {
        let row = self.rows.get(step.key()).cloned();
        Some(match step {
            Step::Check { version, .. } if row.as_ref().map(|row| row.1) == *version => {
                StepAnswer::Holds
            }
            Step::Check { .. } => return None,
            Step::Get { .. } => {
                let (value, version) = row.unzip();
                StepAnswer::Value { value, version }
            }
            Step::Set { key, value } => {
                self.put(key.clone(), value.clone(), revision);
                StepAnswer::Set { version: revision }
            }
            Step::Delete { key } => StepAnswer::Deleted(self.rows.remove(key).is_some()),
            Step::Incr { key, by } => {
                self.add(key, *by, revision);
                StepAnswer::Number { value: self.number(key), version: revision }
            }
        })
    }

    fn text(&self, key: &str) -> Option<&String> {
        self.rows.get(key).map(|(value, _)| value)
    }

    fn number(&self, key: &str) -> i64 {
        self.text(key).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    fn put(&mut self, key: String, value: String, revision: u64) -> Answer {
        self.rows.insert(key, (value, revision));
        Answer::Written
    }

    fn delete(&mut self, key: &str) -> Answer {
        self.rows.remove(key);
        Answer::Written
    }

    fn get(&self, key: &str) -> Answer {
        let row = self.rows.get(key);
        Answer::Value {
            value: row.map(|(value, _)| value.clone()),
            version: row.map(|(_, version)| *version),
        }
    }

    fn add(&mut self, key: &str, by: i64, revision: u64) -> Answer {
        let value = self.number(key) + by;
        self.put(key.to_owned(), value.to_string(), revision);
        Answer::Number(value)
    }

    fn append(&mut self, steps: &[Micro], revision: u64) -> Answer {
        let mut lists = Vec::new();
        for step in steps {
            match step {
                Micro::Append(key, element) => {
                    let mut list = self.list(*key);
                    list.push(*element);
                    let text = list.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
                    self.put(list_key(*key), text, revision);
                }
                Micro::Read(key) => lists.push(self.list(*key)),
            }
        }
        Answer::Lists(lists)
    }

    fn list(&self, key: u64) -> Vec<u64> {
        let text = self.text(&list_key(key)).map_or("", String::as_str);
        text.split(',').filter_map(|element| element.parse().ok()).collect()
    }

    fn transfer(&mut self, from: u64, to: u64, amount: u64, revision: u64) -> Answer {
        let amount = i64::try_from(amount).unwrap_or(i64::MAX);
        let left = self.number(&account_key(from)) - amount;
        if left < 0 {
            return Answer::Denied;
        }
        self.put(account_key(from), left.to_string(), revision);
        let more = self.number(&account_key(to)) + amount;
        self.put(account_key(to), more.to_string(), revision)
    }

    fn acquire(&mut self, owner: &str, steal: bool, revision: u64) -> Answer {
        if self.text("lock").is_some() && !steal {
            return Answer::Denied;
        }
        self.put("lock".to_owned(), owner.to_owned(), revision);
        self.add("fence", 1, revision)
    }

    fn use_resource(&mut self, token: i64, value: &str, revision: u64) -> Answer {
        if token < self.number("seen") {
            return Answer::Denied;
        }
        self.put("seen".to_owned(), token.to_string(), revision);
        self.put("resource".to_owned(), value.to_owned(), revision)
    }
}

/// The key of an account.
#[must_use]
pub fn account_key(account: u64) -> String {
    format!("account/{account}")
}

/// The key of a list.
#[must_use]
pub fn list_key(key: u64) -> String {
    format!("list/{key}")
}

/// The key of half a pair, `a` or `b`.
#[must_use]
pub fn half(pair: u64, name: char) -> String {
    format!("pair/{pair}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cas_sees_the_value() {
        let mut bucket = Bucket::default();
        let cas = |from: &str, to: &str| Action::Cas {
            key: "k".into(),
            from: from.into(),
            to: to.into(),
        };
        assert_eq!(bucket.step(&cas("a", "b"), 1), Answer::Denied);
        bucket.step(&Action::Set { key: "k".into(), value: "a".into() }, 1);
        assert_eq!(bucket.step(&cas("a", "b"), 2), Answer::Written);
        let read = bucket.step(&Action::Get { key: "k".into() }, 2);
        assert_eq!(read, Answer::Value { value: Some("b".into()), version: Some(2) });
    }

    #[test]
    fn conditions_see_whether_there_is_a_value() {
        let mut bucket = Bucket::default();
        let create = |value: &str| Action::Create { key: "k".into(), value: value.into() };
        let remove = |from: &str| Action::Remove { key: "k".into(), from: from.into() };
        let revisit = |from: &str| Action::Revisit { key: "k".into(), from: from.into() };
        assert_eq!(bucket.step(&create("a"), 1), Answer::Written);
        assert_eq!(bucket.step(&create("b"), 2), Answer::Denied);
        assert_eq!(bucket.step(&revisit("a"), 2), Answer::Unchanged);
        let other = Answer::Value { value: Some("a".into()), version: Some(1) };
        assert_eq!(bucket.step(&revisit("b"), 2), other);
        assert_eq!(bucket.step(&remove("b"), 2), Answer::Denied);
        assert_eq!(bucket.step(&remove("a"), 2), Answer::Written);
        assert_eq!(bucket.step(&create("b"), 3), Answer::Written);
    }

    #[test]
    fn a_check_that_does_not_hold_undoes_the_steps_before_it() {
        let mut bucket = Bucket::default();
        let set = |value: &str| Step::Set { key: "k".into(), value: value.into() };
        let check = |version| Step::Check { key: "k".into(), version };
        let get = || Step::Get { key: "k".into() };
        let mut txn = |steps: Vec<Step>, at| bucket.step(&Action::Txn { steps }, at);
        let first = vec![StepAnswer::Holds, StepAnswer::Set { version: 4 }];
        assert_eq!(txn(vec![check(None), set("a")], 4), Answer::Results(first));
        assert_eq!(txn(vec![set("b"), check(Some(9))], 5), Answer::Denied);
        assert_eq!(txn(vec![set("b"), check(None)], 5), Answer::Denied);
        let (value, version) = (Some("a".to_owned()), Some(4));
        let read = vec![StepAnswer::Value { value, version }];
        assert_eq!(txn(vec![get()], 4), Answer::Results(read));
        let many = vec![
            Step::Delete { key: "k".into() },
            Step::Incr { key: "k".into(), by: 3 },
            Step::Delete { key: "x".into() },
        ];
        let answers = vec![
            StepAnswer::Deleted(true),
            StepAnswer::Number { value: 3, version: 5 },
            StepAnswer::Deleted(false),
        ];
        assert_eq!(txn(many, 5), Answer::Results(answers));
    }

    #[test]
    fn steps_of_one_call_see_each_other() {
        let mut bucket = Bucket::default();
        let steps = vec![Micro::Append(1, 7), Micro::Read(1), Micro::Append(1, 8), Micro::Read(2)];
        let answer = bucket.step(&Action::Append { steps }, 1);
        assert_eq!(answer, Answer::Lists(vec![vec![7], vec![]]));
        let answer = bucket.step(&Action::Append { steps: vec![Micro::Read(1)] }, 1);
        assert_eq!(answer, Answer::Lists(vec![vec![7, 8]]));
    }

    #[test]
    fn a_transfer_never_overdraws() {
        let mut bucket = Bucket::of("bank");
        let all = i64::try_from(ACCOUNTS).unwrap() * BALANCE;
        let move_ = |amount| Action::Transfer { from: 0, to: 1, amount };
        assert_eq!(bucket.step(&move_(101), 1), Answer::Denied);
        assert_eq!(bucket.step(&move_(100), 1), Answer::Written);
        let Answer::Balances(balances) = bucket.step(&Action::Balances, 1) else { panic!() };
        assert_eq!(balances.get(..2).unwrap(), [0, 200]);
        assert_eq!(balances.iter().sum::<i64>(), all);
    }

    #[test]
    fn an_old_token_is_refused() {
        let mut bucket = Bucket::default();
        let take = |steal| Action::Acquire { owner: "a".into(), steal };
        let use_ = |token| Action::Use { token, value: "x".into() };
        assert_eq!(bucket.step(&take(false), 1), Answer::Number(1));
        assert_eq!(bucket.step(&take(false), 2), Answer::Denied);
        assert_eq!(bucket.step(&take(true), 2), Answer::Number(2));
        assert_eq!(bucket.step(&use_(2), 3), Answer::Written);
        assert_eq!(bucket.step(&use_(1), 4), Answer::Denied);
    }
}
