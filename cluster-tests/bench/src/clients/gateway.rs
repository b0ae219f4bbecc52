//! etcd over its JSON gateway: keys and values in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kvdb::bench::http::{Answer, Request, Work as Asks};

use super::{Draw, key};

/// Puts.
pub struct Puts {
    keys: u64,
    draw: Draw,
}

impl Puts {
    /// Of so many keys.
    #[must_use]
    pub fn new(keys: u64, draw: Draw) -> Self {
        Puts { keys, draw }
    }
}

impl Asks for Puts {
    fn ask(&mut self, _serial: u64, request: &mut Request) {
        request.method = "POST";
        request.path.push_str("/v3/kv/put");
        let key = key(self.draw.below(self.keys));
        request.body.extend_from_slice(put(&key, self.draw.value()).as_bytes());
    }

    fn check(&mut self, answer: &Answer<'_>) -> Result<(), String> {
        check(answer)
    }
}

/// The body of a put.
#[must_use]
pub fn put(key: &str, value: &str) -> String {
    format!(r#"{{"key":"{}","value":"{}"}}"#, STANDARD.encode(key), STANDARD.encode(value))
}

/// Whether a put was done: its answer names the revision.
///
/// # Errors
/// What it says in its place.
pub fn check(answer: &Answer<'_>) -> Result<(), String> {
    answer.expect(200)?;
    let body = String::from_utf8_lossy(answer.body);
    if body.contains(r#""revision""#) { Ok(()) } else { Err(format!("etcd: {body}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn put_is_json_in_base64() {
        assert_eq!(put("k1", "hello"), r#"{"key":"azE=","value":"aGVsbG8="}"#);
        let mut request = Request::default();
        Puts::new(1, Draw::new(1, 1)).ask(0, &mut request);
        assert_eq!((request.method, request.path.as_str()), ("POST", "/v3/kv/put"));
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["key"], STANDARD.encode(key(0)));
    }
}
