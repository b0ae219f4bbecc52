//! Filling a database with keys, many in a call.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::clients::{BALANCE, Draw, VALUE_BYTES, account, key};
use crate::say::say;

/// Calls at once.
const CALLS: usize = 8;
/// How often it is told how far it is.
const TELL: Duration = Duration::from_secs(10);

/// What is loaded.
#[derive(Clone, Debug)]
pub struct Load {
    /// The bucket, of ours.
    pub bucket: &'static str,
    /// The numbers of the keys.
    pub keys: Range<u64>,
    /// What they hold.
    pub content: Content,
}

/// What keys hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A value of some bytes.
    Values(usize),
    /// A balance.
    Balances,
}

impl Load {
    /// Values of the usual size, under keys with these numbers.
    #[must_use]
    pub fn values(bucket: &'static str, keys: Range<u64>) -> Self {
        Load { bucket, keys, content: Content::Values(VALUE_BYTES) }
    }

    /// So many accounts.
    #[must_use]
    pub fn accounts(bucket: &'static str, accounts: u64) -> Self {
        Load { bucket, keys: 0..accounts, content: Content::Balances }
    }

    /// Keys and values of a part.
    pub fn pairs(&self, part: Range<u64>) -> impl Iterator<Item = (String, String)> {
        let content = self.content;
        let mut draw = Draw::new(seed(part.start), 0);
        part.map(move |number| match content {
            Content::Values(bytes) => (key(number), draw.value_of(bytes).to_owned()),
            Content::Balances => (account(number), BALANCE.to_string()),
        })
    }
}

/// Differs by part and by run, or a value that is loaded twice would be the same.
fn seed(part: u64) -> u64 {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    part ^ time.map_or(0, |time| u64::try_from(time.as_nanos() % (1 << 60)).unwrap_or_default())
}

/// Calls `send` for parts of a range of keys, some at once, until all are done.
///
/// # Errors
/// The first that fails.
pub async fn in_parts<F, S>(keys: &Range<u64>, size: u64, send: S) -> Result<(), String>
where
    S: Fn(Range<u64>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<(), String>> + Send,
{
    let next = Arc::new(AtomicU64::new(keys.start));
    let end = keys.end;
    let mut tasks = JoinSet::new();
    for _ in 0..CALLS {
        let (next, send) = (next.clone(), send.clone());
        tasks.spawn(async move {
            loop {
                let first = next.fetch_add(size, Ordering::Relaxed);
                if first >= end {
                    return Ok(());
                }
                send(first..end.min(first + size)).await?;
            }
        });
    }
    let begun = Instant::now();
    let mut tick = tokio::time::interval(TELL);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => return Ok(()),
                Some(ended) => ended.map_err(|e| e.to_string()).flatten()?,
            },
            _ = tick.tick() => tell(begun, next.load(Ordering::Relaxed).min(end), keys),
        }
    }
}

fn tell(begun: Instant, reached: u64, keys: &Range<u64>) {
    if begun.elapsed() >= TELL {
        let (done, all) = (reached - keys.start, keys.end - keys.start);
        say(&format!("   loaded {done} keys of {all}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn parts_cover_the_range_once() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let send = {
            let seen = seen.clone();
            move |part: Range<u64>| {
                seen.lock().unwrap().extend(part);
                async { Ok(()) }
            }
        };
        in_parts(&(5..1234), 100, send).await.unwrap();
        let mut seen = seen.lock().unwrap().clone();
        seen.sort_unstable();
        assert_eq!(seen, Vec::from_iter(5..1234));
    }

    #[tokio::test]
    async fn first_failure_ends_a_load() {
        let send = |part: Range<u64>| async move {
            if part.contains(&500) { Err("full".to_owned()) } else { Ok(()) }
        };
        assert_eq!(in_parts(&(0..1000), 10, send).await, Err("full".to_owned()));
    }

    #[test]
    fn pairs_are_keys_with_content() {
        let pairs: Vec<_> = Load::values("b", 0..9).pairs(3..5).collect();
        assert_eq!((pairs.len(), pairs[0].0.as_str()), (2, "k000000000000003"));
        assert_eq!(pairs[1].1.len(), VALUE_BYTES);
        let accounts: Vec<_> = Load::accounts("b", 1).pairs(0..1).collect();
        assert_eq!(accounts, [("a000000000000000".to_owned(), "1000000".to_owned())]);
    }
}
