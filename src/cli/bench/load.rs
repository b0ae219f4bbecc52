//! The calls of a client: which key, which value, which answer is right.

use std::fmt::Write;
use std::sync::Arc;

use super::Work;
use crate::api::paths;
use crate::bench::Random;
use crate::bench::http::{self, Answer, Request};

/// What all keys of ours begin with.
pub(super) const PREFIX: &str = "bench:";
/// What `{number}` is at most.
const N_MAX: u64 = 10;
/// How many different places of the pool a value begins at: no two values are likely to be alike, as a
/// disk that compresses would notice.
const PLACES: u64 = 64 * 1024;
/// What values are made of: no encoding has to escape it.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The calls of a run, the same for all clients.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    pub(super) kind: Kind,
    /// The path of the bucket, with a slash at the end.
    pub(super) bucket: String,
    pub(super) keys: u64,
    pub(super) value_size: usize,
    pub(super) seed: u64,
    /// Where values come from.
    pub(super) pool: Arc<[u8]>,
}

/// What calls do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One of the plain works; reads in 100 calls of a mixed one.
    Plain(Work, u64),
    /// A script of this path, with a form made of these parts.
    Script(String, Vec<Part>),
}

/// A part of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Key,
    OtherKey,
    Number,
    Serial,
}

/// One client's calls.
#[derive(Debug)]
pub(super) struct Load {
    calls: Calls,
    random: Random,
    /// How long the body of the answer must be, where that is known.
    length: Option<usize>,
}

/// Letters to cut values of this size from.
pub(super) fn pool(value_size: usize, seed: u64) -> Arc<[u8]> {
    let mut random = Random::new(seed, u64::MAX);
    let letters = value_size as u64 + PLACES;
    let letter = |_| LETTERS.get(random.below(64) as usize % LETTERS.len()).copied();
    (0..letters).filter_map(letter).collect()
}

/// A form of arguments, each `NAME=VALUE`, with what is filled in.
pub(super) fn template(args: &[(String, String)]) -> Vec<Part> {
    let mut parts = Vec::new();
    for (index, (name, value)) in args.iter().enumerate() {
        let and = if index == 0 { "" } else { "&" };
        parts.push(Part::Text(format!("{and}{}=", paths::parameter(name.as_bytes()))));
        let mut rest = value.as_str();
        while let Some((before, part, after)) = next_placeholder(rest) {
            parts.push(Part::Text(paths::parameter(before.as_bytes())));
            parts.push(part);
            rest = after;
        }
        parts.push(Part::Text(paths::parameter(rest.as_bytes())));
    }
    parts
}

/// What is before the first placeholder of a text, which it is, and what is after it.
fn next_placeholder(text: &str) -> Option<(&str, Part, &str)> {
    let known = [
        ("{key}", Part::Key),
        ("{key2}", Part::OtherKey),
        ("{number}", Part::Number),
        ("{serial}", Part::Serial),
    ];
    let found = known.into_iter().filter_map(|(name, part)| {
        let (before, after) = text.split_once(name)?;
        Some((before, part, after))
    });
    found.min_by_key(|(before, ..)| before.len())
}

impl Calls {
    /// A value; which one, chance says.
    pub(super) fn value(&self, random: &mut Random) -> &[u8] {
        let place = usize::try_from(random.below(PLACES)).unwrap_or_default();
        self.pool.get(place..place + self.value_size).unwrap_or_default()
    }
}

/// The key of a number.
pub(super) fn push_key(text: &mut String, number: u64) {
    // Cannot fail: it is memory.
    let _ = write!(text, "{PREFIX}{number:08}");
}

impl Load {
    pub(super) fn new(calls: &Calls, client: usize) -> Self {
        let random = Random::new(calls.seed, client as u64);
        Load { calls: calls.clone(), random, length: None }
    }

    fn ask_plain(&mut self, work: Work, request: &mut Request) {
        request.path.push_str(&self.calls.bucket);
        push_key(&mut request.path, self.random.below(self.calls.keys));
        self.length = None;
        match work {
            Work::Put | Work::Mixed => {
                request.method = "PUT";
                request.body.extend_from_slice(self.calls.value(&mut self.random));
            }
            Work::Get | Work::StaleGet => {
                self.length = Some(self.calls.value_size);
                if work == Work::StaleGet {
                    request.path.push_str("?consistency=stale");
                }
            }
            Work::Incr => {
                request.method = "PATCH";
                request.body.push(b'1');
            }
        }
    }
}

/// Fills in a form. The other key is another one, where there are two.
fn fill_in(parts: &[Part], keys: u64, random: &mut Random, serial: u64, text: &mut String) {
    let key = random.below(keys);
    let other = (key + 1 + random.below(keys.saturating_sub(1))) % keys;
    for part in parts {
        // Cannot fail: it is memory.
        let _ = match part {
            Part::Text(own) => text.write_str(own),
            Part::Number => write!(text, "{}", 1 + random.below(N_MAX)),
            Part::Serial => write!(text, "{serial}"),
            Part::Key => write!(text, "{PREFIX}{key:08}"),
            Part::OtherKey => write!(text, "{PREFIX}{other:08}"),
        };
    }
}

impl http::Work for Load {
    fn ask(&mut self, serial: u64, request: &mut Request) {
        let work = match &self.calls.kind {
            Kind::Plain(Work::Mixed, reads) => {
                if self.random.below(100) < *reads {
                    Work::Get
                } else {
                    Work::Put
                }
            }
            Kind::Plain(work, _) => *work,
            Kind::Script(path, parts) => {
                request.method = "POST";
                request.path.push_str(path);
                // The body is a form, which is text, in the buffer of the request.
                let mut text =
                    String::from_utf8(std::mem::take(&mut request.body)).unwrap_or_default();
                fill_in(parts, self.calls.keys, &mut self.random, serial, &mut text);
                request.body = text.into_bytes();
                return;
            }
        };
        self.ask_plain(work, request);
    }

    fn check(&mut self, answer: &Answer<'_>) -> Result<(), String> {
        // A script may say 201.
        if !(200..300).contains(&answer.status) {
            return answer.expect(200);
        }
        match self.length {
            Some(length) if answer.body.len() != length => {
                Err(format!("a value of {} bytes, not of {length}", answer.body.len()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::http::Work as _;

    fn calls(kind: Kind) -> Calls {
        let bucket = "/b/".to_owned();
        Calls { kind, bucket, keys: 100, value_size: 16, seed: 1, pool: pool(16, 1) }
    }

    fn asked(load: &mut Load, serial: u64) -> Request {
        let mut request = Request::default();
        request.clear();
        load.ask(serial, &mut request);
        request
    }

    #[test]
    fn plain_works() {
        let ask = |work| asked(&mut Load::new(&calls(Kind::Plain(work, 0)), 3), 0);
        let put = ask(Work::Put);
        assert_eq!((put.method, put.body.len()), ("PUT", 16));
        assert!(put.path.starts_with("/b/bench:000000"), "{}", put.path);
        assert_eq!(ask(Work::Get).method, "GET");
        assert!(ask(Work::StaleGet).path.ends_with("?consistency=stale"));
        let incr = ask(Work::Incr);
        assert_eq!((incr.method, incr.body.as_slice()), ("PATCH", &b"1"[..]));
    }

    #[test]
    fn mixed_work_has_its_share_of_reads() {
        let mut load = Load::new(&calls(Kind::Plain(Work::Mixed, 80)), 0);
        let reads = (0..1000).filter(|serial| asked(&mut load, *serial).method == "GET").count();
        assert!((750..850).contains(&reads), "{reads}");
    }

    #[test]
    fn templates_are_filled_in_and_encoded() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let parts = template(&[
            pair("a b", "{key2}/{key}"),
            pair("n", "{number}"),
            pair("s", "<{serial}>"),
        ]);
        let mut load = Load::new(&calls(Kind::Script("/b/scripts/s".to_owned(), parts)), 0);
        for serial in 0..200 {
            let request = asked(&mut load, serial);
            assert_eq!((request.method, request.path.as_str()), ("POST", "/b/scripts/s"));
            let body = String::from_utf8(request.body).unwrap();
            let rest = body.strip_prefix("a%20b=").unwrap();
            let (keys, rest) = rest.split_once("&n=").unwrap();
            let (other, key) = keys.split_once("%2F").unwrap();
            assert_ne!(key, other);
            let (n, rest) = rest.split_once('&').unwrap();
            assert!((1..=10).contains(&n.parse::<u64>().unwrap()));
            assert_eq!(rest, format!("s=%3C{serial}%3E"));
        }
    }
}
