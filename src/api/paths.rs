//! Every path, query parameter and header name of ours, once.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// The process lives.
pub const LIVEZ: &str = "/livez";
/// The node may be sent requests.
pub const READYZ: &str = "/readyz";
/// Metrics in Prometheus' text format.
pub const METRICS: &str = "/metrics";
/// Members, leader and indexes.
pub const CLUSTER: &str = "/-/cluster";
/// Digests of the node's state.
pub const DIGEST: &str = "/-/digest";
/// Where members are added.
pub const MEMBERS: &str = "/-/cluster/members";
/// Where leadership is handed over.
pub const LEADER: &str = "/-/cluster/leader";
/// The description of the whole API.
pub const OPENAPI: &str = "/-/openapi.json";
/// Where the node is told to take a snapshot.
pub const SNAPSHOT: &str = "/-/cluster/snapshot";
/// What begins the rest of a path that names a script.
pub const SCRIPTS: &str = "scripts/";
/// What begins the rest of a path that names a token.
pub const TOKENS: &str = "tokens/";

/// The query parameter that carries a ticket to the leader.
pub const TICKET: &str = "kvdb_ticket";
/// The query parameters that carry a credential.
pub const CREDENTIALS: [&str; 2] = ["access_token", "key"];

/// Names a call that is to happen once, however often it is sent.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// When a key dies, in milliseconds since 1970.
pub const EXPIRES_AT: &str = "x-kvdb-expires-at";
/// What became of a mutating call: `yes`, `no` or `unknown`.
pub const APPLIED: &str = "x-kvdb-applied";
/// The bucket's revision that an answer stands on.
pub const REVISION: &str = "x-kvdb-revision";
/// How long ago the node that answered a stale read was last known to be up to date, in milliseconds.
pub const AGE: &str = "x-kvdb-age-ms";
/// `true` on a list that nobody limited and that has more keys than the default limit.
pub const TRUNCATED: &str = "x-kvdb-truncated";

/// Where a list that a limit cut goes on: the value of the query parameter `cursor`.
pub const CURSOR: &str = "x-kvdb-cursor";
/// Requests that the node takes in a second, of this client or for this bucket.
pub const RATE_LIMIT: &str = "x-ratelimit-limit";
/// Requests that it would still take at once.
pub const RATE_REMAINING: &str = "x-ratelimit-remaining";
/// Seconds until it would take as many as it takes in a second.
pub const RATE_RESET: &str = "x-ratelimit-reset";

/// What stays as it is in a key: it reads better, and no client treats it specially.
const KEY: AsciiSet = NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b':')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'@')
    .remove(b',');

/// A member's path.
#[must_use]
pub fn member(id: u64) -> String {
    format!("{MEMBERS}/{id}")
}

/// Where a member is made a voter.
#[must_use]
pub fn promote(id: u64) -> String {
    format!("{MEMBERS}/{id}/promote")
}

/// A bucket's list of keys.
#[must_use]
pub fn keys(bucket: &str) -> String {
    format!("/{}/", encode(bucket.as_bytes()))
}

/// A key's path.
#[must_use]
pub fn key(bucket: &str, key: &[u8]) -> String {
    format!("/{}/{}", encode(bucket.as_bytes()), encode(key))
}

/// A bucket's list of scripts.
#[must_use]
pub fn scripts(bucket: &str) -> String {
    format!("/{}/{SCRIPTS}", encode(bucket.as_bytes()))
}

/// A script's path.
#[must_use]
pub fn script(bucket: &str, name: &str) -> String {
    format!("{}{}", scripts(bucket), encode(name.as_bytes()))
}

/// A name and a value for a query or a form.
#[must_use]
pub fn pair(name: &str, value: &str) -> String {
    format!("{}={}", parameter(name.as_bytes()), parameter(value.as_bytes()))
}

/// Bytes as a name or a value in a query or a form.
#[must_use]
pub fn parameter(bytes: &[u8]) -> String {
    percent_encode(bytes, NON_ALPHANUMERIC).to_string()
}

fn encode(bytes: &[u8]) -> String {
    percent_encode(bytes, &KEY).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_and_slashes_stay() {
        assert_eq!(key("b", b"a/b:c d%?#\xff"), "/b/a/b:c%20d%25%3F%23%FF");
        assert_eq!(script("b", "lib/a.lua"), "/b/scripts/lib/a.lua");
        assert_eq!(promote(3), "/-/cluster/members/3/promote");
        assert_eq!(pair("a b", "1+1=2&"), "a%20b=1%2B1%3D2%26");
    }
}
