//! Ours, over HTTP.

use kvdb::bench::http::{Answer, Connection, HttpClient, Request, Work as Asks};

use super::{Draw, VALUE_BYTES, Work, account, key};

/// Where values are.
pub const VALUES: &str = "bench";
/// Where accounts and counters are, and the scripts.
pub const BANK: &str = "bank";

/// Moves an amount between accounts that exist and hold enough. It is what the other databases run, too.
pub const TRANSFER: &str = r#"
local from, to, amount = kvdb.var.from, kvdb.var.to, tonumber(kvdb.var.amount)
local have, there = tonumber((kvdb.get(from))), tonumber((kvdb.get(to)))
if not have or not there or have < amount then
  kvdb.abort(409, "cannot be moved")
end
local err = kvdb.set(from, have - amount) or kvdb.set(to, there + amount)
if err then
  kvdb.abort(500, err)
end
kvdb.print(1)
"#;

/// Reads a counter and writes the next number.
pub const COUNT: &str = r#"
local key = kvdb.var.counter
local next = tonumber((kvdb.get(key)) or 0) + 1
local err = kvdb.set(key, next)
if err then
  kvdb.abort(500, err)
end
kvdb.print(next)
"#;

/// Keeps a processor busy for so many turns.
pub const SPIN: &str = r#"
local sum = 0
for turn = 1, tonumber(kvdb.var.turns) do
  sum = (sum * 31 + turn) % 1000003
end
kvdb.print(sum)
"#;

/// A client's requests, and what must come of them.
pub struct Asker {
    bucket: &'static str,
    work: Work,
    draw: Draw,
}

impl Asker {
    /// For this work, on the bucket that holds the keys for it.
    #[must_use]
    pub fn new(work: Work, draw: Draw) -> Self {
        let bucket = if matches!(work, Work::Transfer(_) | Work::Count(_)) { BANK } else { VALUES };
        Asker { bucket, work, draw }
    }

    /// The same on another bucket.
    #[must_use]
    pub fn of(self, bucket: &'static str) -> Self {
        Asker { bucket, ..self }
    }
}

impl Asks for Asker {
    fn ask(&mut self, _serial: u64, request: &mut Request) {
        let bucket = self.bucket;
        let path = match self.work {
            Work::Put(keys) => {
                request.method = "PUT";
                request.body.extend_from_slice(self.draw.value().as_bytes());
                format!("/{bucket}/{}", key(self.draw.below(keys)))
            }
            Work::Get(keys) => format!("/{bucket}/{}", key(self.draw.below(keys))),
            Work::Transfer(accounts) => {
                request.method = "POST";
                let (from, to) = self.draw.pair(accounts);
                let (from, to) = (account(from), account(to));
                format!("/{bucket}/scripts/transfer?from={from}&to={to}&amount=1")
            }
            Work::Count(counters) => {
                request.method = "POST";
                let counter = self.draw.below(counters);
                format!("/{bucket}/scripts/count?counter=c{counter:015}")
            }
        };
        request.path.push_str(&path);
    }

    fn check(&mut self, answer: &Answer<'_>) -> Result<(), String> {
        answer.expect(200)?;
        let right = match self.work {
            Work::Put(_) => true,
            Work::Get(_) => answer.body.len() == VALUE_BYTES,
            Work::Transfer(_) => answer.body == b"1",
            Work::Count(_) => {
                std::str::from_utf8(answer.body).is_ok_and(|n| n.parse::<u64>().is_ok())
            }
        };
        let said = || format!("an answer of {} bytes that says something else", answer.body.len());
        if right { Ok(()) } else { Err(said()) }
    }
}

/// Connects one client to the node with its number, modulo how many are given.
///
/// # Errors
/// When none can be reached.
pub async fn connect(
    urls: &[String],
    index: usize,
    asker: Asker,
) -> Result<HttpClient<Asker>, String> {
    Ok(HttpClient::new(Connection::new(urls, index, &[]).await?, asker))
}

/// Begins and ends the body of a transaction that sets some keys.
#[must_use]
pub fn transaction(sets: impl Iterator<Item = (String, String)>) -> String {
    let sets: Vec<String> =
        sets.map(|(key, value)| format!(r#"{{"set":"{key}","value":"{value}"}}"#)).collect();
    format!(r#"{{"txn":[{}]}}"#, sets.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(work: Work) -> Request {
        let mut request = Request::default();
        request.clear();
        Asker::new(work, Draw::new(1, 1)).ask(0, &mut request);
        request
    }

    #[test]
    fn requests_are_what_the_reference_documents() {
        let put = asked(Work::Put(1));
        assert_eq!((put.method, put.path.as_str()), ("PUT", "/bench/k000000000000000"));
        assert_eq!(put.body.len(), VALUE_BYTES);
        assert_eq!(asked(Work::Get(1)).method, "GET");
        let transfer = asked(Work::Transfer(2));
        assert!(transfer.path.starts_with("/bank/scripts/transfer?from=a0000"), "{transfer:?}");
        assert_eq!(asked(Work::Count(1)).path, "/bank/scripts/count?counter=c000000000000000");
    }

    #[test]
    fn transaction_is_json() {
        let sets = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x-_".to_owned())];
        let body: serde_json::Value = serde_json::from_str(&transaction(sets.into_iter())).unwrap();
        assert_eq!(body["txn"][1]["set"], "b");
        assert_eq!(body["txn"].as_array().unwrap().len(), 2);
    }
}
