//! What a bucket must answer: the model that histories are replayed on. One call at a time, no faults,
//! no HTTP; a few lines for each action, so that a reader can see that it is right.

use std::collections::BTreeMap;

use crate::history::{Action, Answer, Ending, Micro};

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
            Action::Get { key } => self.get(key),
            Action::Set { key, value } => self.put(key.clone(), value.clone(), revision),
            Action::Cas { key, from, to } if self.text(key) == Some(from) => {
                self.put(key.clone(), to.clone(), revision)
            }
            Action::Cas { .. } => Answer::Denied,
            Action::Delete { key } => self.delete(key),
            Action::Add { key, by } => self.add(key, *by, revision),
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
