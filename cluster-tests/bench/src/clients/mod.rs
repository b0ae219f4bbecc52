//! Those who call: the same keys, values and work for each database, in its own protocol.
//!
//! Invariants:
//! - Every answer is checked for what it must say; one that says something else is a failed call, and a
//!   measurement with a failed call counts for nothing.
//! - Values are drawn anew for each call: a database that compresses gains nothing here.

pub mod etcd;
pub mod gateway;
pub mod messages;
pub mod ours;
pub mod redis;
pub mod resp;
pub mod tarantool;
pub mod writers;

use kvdb::bench::Random;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 256;
/// Bytes of a key.
pub const KEY_BYTES: usize = 16;
/// What each account holds at first.
pub const BALANCE: u64 = 1_000_000;

/// What a client asks for, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A value under one of so many keys.
    Put(u64),
    /// The value of one of so many keys, linearizable.
    Get(u64),
    /// One from an account to another, of so many, all or nothing.
    Transfer(u64),
    /// One more for a counter, of so many, by a script.
    Count(u64),
}

/// The key with this number, for values.
#[must_use]
pub fn key(number: u64) -> String {
    format!("k{number:015}")
}

/// The key with this number, for an account.
#[must_use]
pub fn account(number: u64) -> String {
    format!("a{number:015}")
}

/// Draws what one client asks for.
#[derive(Clone, Debug)]
pub struct Draw {
    random: Random,
    value: String,
}

/// What values are made of: six random bits each.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Characters that one random number is good for.
const CHARACTERS: usize = 10;

impl Draw {
    /// For the client of a run with this number; the run's seed differs from run to run.
    #[must_use]
    pub fn new(seed: u64, client: usize) -> Self {
        Draw { random: Random::new(seed, client as u64), value: String::with_capacity(VALUE_BYTES) }
    }

    /// A number below another.
    pub fn below(&mut self, end: u64) -> u64 {
        self.random.below(end)
    }

    /// Two different numbers below another that is 2 or more.
    pub fn pair(&mut self, end: u64) -> (u64, u64) {
        let first = self.random.below(end);
        let second = (first + 1 + self.random.below(end - 1)) % end;
        (first, second)
    }

    /// A value of the usual size.
    pub fn value(&mut self) -> &str {
        self.value_of(VALUE_BYTES)
    }

    /// A value of some bytes.
    pub fn value_of(&mut self, bytes: usize) -> &str {
        self.value.clear();
        while self.value.len() < bytes {
            let mut bits = self.random.next();
            for _ in 0..CHARACTERS.min(bytes - self.value.len()) {
                let index = usize::try_from(bits % 64).unwrap_or_default();
                self.value.push(ALPHABET.get(index).copied().unwrap_or(b'.').into());
                bits /= 64;
            }
        }
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_their_sizes() {
        assert_eq!(key(7).len(), KEY_BYTES);
        assert_eq!(account(9_999).len(), KEY_BYTES);
        let mut draw = Draw::new(1, 2);
        assert_eq!(draw.value().len(), VALUE_BYTES);
        assert_eq!(draw.value_of(1001).len(), 1001);
    }

    #[test]
    fn values_differ_and_do_not_repeat_themselves() {
        let mut draw = Draw::new(1, 2);
        let first = draw.value().to_owned();
        assert_ne!(first, draw.value());
        let kinds: std::collections::BTreeSet<char> = first.chars().collect();
        assert!(kinds.len() > 40, "{first}");
    }

    #[test]
    fn accounts_of_a_transfer_differ() {
        let mut draw = Draw::new(3, 0);
        for _ in 0..1000 {
            let (from, to) = draw.pair(2);
            assert!(from != to && from < 2 && to < 2);
        }
    }
}
