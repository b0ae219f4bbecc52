//! Requests: what the edge knows, in every combination, with values that it may not expect.

use std::fmt;

use axum::body::Body;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::testing::{damage, damaged};

/// What stands in a request for a name that is made anew.
const OPEN: &str = "{open}";
const KEYED: &str = "{keyed}";
const TOKEN: &str = "{token}";

/// The scripts that every bucket has.
pub(super) const SCRIPTS: [(&str, &str); 6] = [
    ("s", "kvdb.set(kvdb.var.k or 'a', kvdb.var.v or kvdb.req.body) kvdb.say(kvdb.get('k'))"),
    ("echo", "kvdb.header['x-a'] = kvdb.var.h kvdb.exit(tonumber(kvdb.var.code))"),
    ("fails", "kvdb.set('k', 'lost') error(kvdb.var.e or {})"),
    ("spins", "kvdb.set('k', 'lost') while true do end"),
    ("json", "kvdb.print(kvdb.json.encode((kvdb.json.decode(kvdb.req.body))))"),
    ("keeps", "kvdb.incr('n', 1) kvdb.commit() kvdb.status = 403 kvdb.say(#kvdb.list(''))"),
];

/// The names of the day.
#[derive(Default)]
pub(super) struct Names {
    pub(super) open: String,
    pub(super) keyed: String,
    pub(super) token: String,
}

impl Names {
    fn fill(&self, text: &str) -> String {
        text.replace(OPEN, &self.open).replace(KEYED, &self.keyed).replace(TOKEN, &self.token)
    }

    fn fill_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.fill(text).into_bytes(),
            Err(_) => bytes.to_vec(),
        }
    }
}

/// A request that may be none.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: String,
    pub(super) uri: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{} {}", self.method, self.uri)?;
        for (name, value) in &self.headers {
            write!(f, "\n  {name}: {}", value.escape_ascii())?;
        }
        let shown = &self.body[..self.body.len().min(2000)];
        write!(f, "\n  ({} bytes) {}", self.body.len(), shown.escape_ascii())
    }
}

impl Ask {
    /// As the edge gets it from its HTTP library, which refuses what is none.
    pub(super) fn request(&self, names: &Names) -> Option<Request<Body>> {
        let mut request = Request::new(Body::from(self.body.clone()));
        *request.method_mut() = Method::from_bytes(self.method.as_bytes()).ok()?;
        *request.uri_mut() = Uri::try_from(names.fill(&self.uri)).ok()?;
        for (name, value) in &self.headers {
            let value = names.fill_bytes(value);
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            request.headers_mut().append(name, HeaderValue::from_bytes(&value).ok()?);
        }
        Some(request)
    }

    /// As bytes on a connection.
    pub(super) fn bytes(&self, names: &Names) -> Vec<u8> {
        let (method, uri, length) = (&self.method, names.fill(&self.uri), self.body.len());
        let head = format!(
            "{method} {uri} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n"
        );
        let mut bytes = head.into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: ").as_bytes());
            bytes.extend_from_slice(&names.fill_bytes(value));
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

pub(super) fn ask() -> impl Strategy<Value = Ask> {
    (method(), uri(), vec(header(), 0..4), body()).prop_map(|(method, uri, headers, body)| Ask {
        method,
        uri,
        headers,
        body,
    })
}

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    select(words).prop_map(str::to_owned)
}

fn method() -> impl Strategy<Value = String> {
    let usual: &[&str] = &["GET", "GET", "PUT", "POST", "POST", "PATCH", "DELETE", "HEAD"];
    let odd: &[&str] = &["OPTIONS", "TRACE", "CONNECT", "get", "BREW", "PROPFIND"];
    prop_oneof![9 => one_of(usual), 1 => one_of(odd)]
}

fn uri() -> impl Strategy<Value = String> {
    let query = vec(pair(), 0..4).prop_map(|pairs| pairs.join("&"));
    (path(), query).prop_map(|(path, query)| match query.as_str() {
        "" => path,
        query => format!("{path}?{query}"),
    })
}

fn path() -> impl Strategy<Value = String> {
    // Members stay as they are: the admin's key is never sent.
    let own: &[&str] = &[
        "/",
        "/livez",
        "/readyz",
        "/metrics",
        "/-/cluster",
        "/-/digest",
        "/-/openapi.json",
        "/-/cluster/members",
        "/-/cluster/members/1",
        "/-/cluster/members/99999999999999999999",
        "/-/cluster/members/1/promote",
        "/-/cluster/leader",
        "/-/cluster/snapshot",
        "/-/",
        "*",
        "//",
        "http://a/{open}/k",
    ];
    let bucket: &[&str] =
        &[OPEN, OPEN, OPEN, KEYED, KEYED, KEYED, "none", "%6eone", "..", "%", "%00", "-", "a%2Fb"];
    let rest: &[&str] = &[
        "/",
        "/k",
        "/n",
        "/a/b:c",
        "/a%2F%ff",
        "/a%",
        "/%zz",
        "//",
        "/scripts",
        "/scripts/",
        "/scripts/s",
        "/scripts/echo",
        "/scripts/fails",
        "/scripts/spins",
        "/scripts/json",
        "/scripts/keeps",
        "/scripts/none",
        "/scripts/%00",
        "/scripts/%ff",
        "/scripts//",
        "/scripts%2Fs",
        "/tokens/",
        "/tokens/1111111111111111111111",
        "/tokens/%ff",
        "/tokens",
        "",
    ];
    let rest = prop_oneof![
        8 => one_of(rest),
        1 => "(/([a-z%.:;,+&=é \"\\[]|%[0-9a-fA-F]{2}){0,6}){1,3}",
        1 => (1000usize..1100).prop_map(|count| format!("/{}", "k".repeat(count))),
    ];
    let in_bucket = (one_of(bucket), rest).prop_map(|(bucket, rest)| format!("/{bucket}{rest}"));
    prop_oneof![1 => one_of(own), 9 => in_bucket, 1 => "/[ -~]{0,20}"]
}

/// A parameter of ours, or of a script.
fn name() -> impl Strategy<Value = String> {
    one_of(&[
        "ttl",
        "consistency",
        "prefix",
        "start",
        "end",
        "limit",
        "skip",
        "reverse",
        "values",
        "format",
        "cursor",
        "watch",
        "policy",
        "source",
        "versions",
        "metrics",
        "rollback",
        "dry_run",
        "readonly",
        "run_as",
        "key",
        "access_token",
        "kvdb_ticket",
        "keep_signing_key",
        "k",
        "v",
        "h",
        "e",
        "code",
        "remote_addr",
        "",
        "%ff",
        "limit%00",
    ])
}

fn value() -> impl Strategy<Value = String> {
    // No time to live is short: what dies by itself would change a bucket between two looks.
    let odd = one_of(&[
        "",
        "0",
        "1000",
        "-1",
        "+7",
        "007",
        "1e3",
        "0.5",
        "NaN",
        "true",
        "no",
        "k",
        "a",
        "s",
        "w",
        "r",
        "%",
        "%zz",
        "%00",
        "%ff%fe",
        "%26%3D",
        "%C3%A9",
        "*",
        "..",
        "json",
        "jsonl",
        "text",
        "xml",
        "stale",
        "linearizable",
        "owner",
        "caller",
        "999999999",
        "315360000",
        "315360001",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "340282366920938463463374607431768211456",
        "abc.999",
        "abc.2",
        "%0d%0ax-injected:%201",
        "{token}",
        "400",
        "204",
        "304",
        "200",
    ]);
    let long = (200usize..2000).prop_map(|count| "9".repeat(count));
    prop_oneof![20 => odd, 1 => long, 2 => "[!-~&&[^#]]{0,30}"]
}

fn pair() -> impl Strategy<Value = String> {
    // A revision that is yet to come is waited for: there is another test for that.
    let revision = (one_of(&["since", "min_revision"]), one_of(&["0", "1", "", "-1", "x", "1e9"]));
    let any = (name(), value());
    let pair = prop_oneof![10 => any.boxed(), 1 => revision.boxed()];
    let joined = pair.prop_map(|(name, value)| format!("{name}={value}"));
    prop_oneof![10 => joined, 1 => name(), 1 => "[!-~&&[^#]]{0,20}"]
}

const CONDITIONS: &[&str] = &[
    "*",
    "\"1\"",
    "\"5\"",
    "1",
    "W/\"1\"",
    "\"\"",
    "\"1\", \"2\"",
    "\"-1\"",
    "\"",
    "\"18446744073709551616\"",
    "\"99999999999999999999\",*",
];

const MEDIA: &[&str] = &[
    "application/json",
    "text/plain",
    "*/*",
    "application/x-ndjson",
    "a/b;q=0",
    "application/json;q=x",
    ";,;,",
    "text/event-stream",
    "",
    "application/json; charset=utf-16",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "image/png\t",
];

fn header() -> impl Strategy<Value = (String, Vec<u8>)> {
    let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
    let authorization = prop_oneof![
        6 => one_of(&["Bearer s", "Bearer w", "Bearer r", "Bearer wrong", "bearer {token}"]),
        2 => one_of(&["Bearer", "Bearer ", "Basic", "Basic ***", "Digest x", "", "Bearer  s s", "s"]),
        2 => select(&["s:", "s", "w:x", ":", "", "\u{e9}:"][..]).prop_map(basic),
        1 => "Bearer [!-~]{0,300}",
    ];
    let named = |name: &'static str, values: &'static [&'static str]| {
        one_of(values).prop_map(move |value| (name.to_owned(), value.into_bytes()))
    };
    let odd_name = one_of(&[
        "authorization",
        "accept",
        "content-type",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "last-event-id",
        "expect",
        "range",
        "origin",
        "x-forwarded-for",
        "cookie",
        "x-kvdb-applied",
        "access-control-request-method",
        "host",
        "content-encoding",
        "te",
        "upgrade",
        "x-a",
    ]);
    let odd_value = vec(prop_oneof![b' '..=b'~', 0x80..=0xff_u8, Just(b'\t')], 0..300);
    prop_oneof![
        8 => authorization.prop_map(|value| ("authorization".to_owned(), value.into_bytes())).boxed(),
        3 => named("idempotency-key", &["i1", "i2", "i3", "", "a b", "\u{e9}", "~"]).boxed(),
        2 => named("if-match", CONDITIONS).boxed(),
        2 => named("if-none-match", CONDITIONS).boxed(),
        3 => named("accept", MEDIA).boxed(),
        5 => named("content-type", MEDIA).boxed(),
        1 => named("last-event-id", &["0", "1", "-1", "x", "18446744073709551616", ""]).boxed(),
        1 => named("expect", &["100-continue", "101-continue"]).boxed(),
        3 => (odd_name, odd_value).boxed(),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let text = |text: String| text.into_bytes();
    let sound = prop_oneof![
        2 => Just(Vec::new()),
        3 => form().prop_map(text),
        3 => json().prop_map(text),
        6 => transaction().prop_map(text),
        2 => one_of(&["1", "-1", "+9223372036854775807", "0.5", "1e308", "nan", "", "0x1", " 1"]).prop_map(text),
        3 => source().prop_map(text),
    ];
    let damaged = (sound.clone(), damage(6)).prop_map(|(bytes, damage)| damaged(bytes, &damage));
    prop_oneof![
        12 => sound,
        4 => damaged,
        2 => vec(any::<u8>(), 0..200),
        1 => (0..4usize).prop_map(|what| ["[", "{\"a\":", "{\"txn\":[", "a=1&"][what].repeat(20_000).into_bytes()),
        1 => Just(vec![b'x'; (1 << 20) + 1]),
    ]
}

/// A field of a policy, a token or a script's form.
fn field() -> impl Strategy<Value = String> {
    one_of(&[
        "id",
        "email",
        "secret_key",
        "write_key",
        "read_key",
        "signing_key",
        "default_ttl",
        "max_keys",
        "max_bytes",
        "keep_signing_key",
        "previous_signing_key",
        "prefix",
        "permissions",
        "ttl",
        "k",
        "v",
        "code",
    ])
}

fn field_value() -> impl Strategy<Value = String> {
    let words =
        one_of(&["read", "read,write", "execute:s", "execute:", "fly", ",", "execute,read"]);
    prop_oneof![3 => value(), 1 => words]
}

fn form() -> impl Strategy<Value = String> {
    let pair = (field(), field_value()).prop_map(|(name, value)| format!("{name}={value}"));
    vec(pair, 0..5).prop_map(|pairs| pairs.join("&"))
}

fn json_value() -> impl Strategy<Value = String> {
    let odd = one_of(&[
        "null",
        "true",
        "0",
        "-0",
        "1",
        "-1",
        "1.5",
        "1e400",
        "9007199254740993",
        "9223372036854775808",
        "-9223372036854775809",
        "\"\"",
        "\"k\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\ud83d\\ude00\"",
        "[]",
        "{}",
        "[[[]]]",
        "{\"\":{}}",
        "\"/+8=\"",
        "\"***\"",
        "01",
        "NaN",
        "'k'",
        "3600",
        "\"3600\"",
    ]);
    prop_oneof![6 => odd, 1 => "\"[ -~&&[^\"\\\\]]{0,20}\""]
}

fn json() -> impl Strategy<Value = String> {
    let pair = (field(), json_value()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
    vec(pair, 0..5).prop_map(|pairs| format!("{{{}}}", pairs.join(",")))
}

fn transaction() -> impl Strategy<Value = String> {
    let verb = one_of(&["set", "set", "delete", "incr", "get", "check", "drop", ""]);
    let key = one_of(&["k", "n", "a/x", "b", "", "\\u0000", "\\u00e9", "scripts/s", "k\\\"", "c"]);
    let other = one_of(&["value", "value", "value_base64", "ttl", "by", "version", "set", "x"]);
    let others = vec((other, json_value()), 0..3);
    let step = (verb, key, others).prop_map(|(verb, key, others)| {
        let others = others.iter().map(|(name, value)| format!(",\"{name}\":{value}"));
        format!("{{\"{verb}\":\"{key}\"{}}}", others.collect::<String>())
    });
    let good = one_of(&[
        "{\"set\":\"k\",\"value\":\"x\"}",
        "{\"incr\":\"n\",\"by\":1}",
        "{\"get\":\"k\"}",
        "{\"delete\":\"b\"}",
        "{\"check\":\"none\",\"version\":null}",
    ]);
    let step = prop_oneof![2 => good, 1 => step, 1 => json_value()];
    let few = vec(step, 0..6).prop_map(|steps| steps.join(","));
    let many = Just(vec!["{\"set\":\"k\",\"value\":1}"; 1001].join(","));
    prop_oneof![30 => few, 1 => many].prop_map(|steps| format!("{{\"txn\":[{steps}]}}"))
}

fn source() -> impl Strategy<Value = String> {
    one_of(&[
        "",
        "kvdb.say(kvdb.var.k)",
        "kvdb.set('k', 'v') kvdb.exit(404)",
        "while true do end",
        "kvdb.say(('x'):rep(1e7))",
        "local t = {} t[1] = t kvdb.say(kvdb.json.encode(t))",
        "kvdb.header['x-kvdb-applied'] = 'yes' kvdb.set('k', 1)",
        "kvdb.header['x-a'] = 'a\\r\\nb: c'",
        "kvdb.redirect('\\0', 307)",
        "kvdb.exit(99)",
        "kvdb.exit(1e9)",
        "error(nil)",
        "error(setmetatable({}, {__tostring = error}))",
        "return require('s')",
        "require('self') kvdb.access_token{prefix='a', permissions='read'}",
        "kvdb.set(kvdb.req.body, kvdb.req.path) kvdb.list(kvdb.var.prefix or '')",
        "kvdb.log(('x'):rep(1e6)) kvdb.abort(500, 'x')",
        "local function",
        "\u{feff}kvdb.say(1)",
        "#!/bin/sh",
        "\x1bLua",
    ])
}
