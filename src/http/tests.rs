//! The edge over a node of its own: requests in, answers out, no socket.

mod fuzz;
mod room;
mod watch;

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::response::Response;
use http::HeaderMap;

use super::Service;
use super::call::Origin;
use crate::config::{Config, CreateBuckets, Options};
use crate::node::Node;

/// What came back.
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and body, as most checks look at them.
    fn brief(&self) -> String {
        format!("{} {}", self.status, self.body)
    }
}

/// A node in a directory of its own, which goes with it.
struct Edge {
    service: Service,
    node: Node,
    _directory: Arc<tempfile::TempDir>,
}

impl Edge {
    async fn start(options: Options) -> Self {
        Edge::start_in(tempfile::tempdir().unwrap(), options).await
    }

    /// Starts on what a directory holds.
    async fn start_in(directory: tempfile::TempDir, options: Options) -> Self {
        let free = |option: Option<String>| option.or(Some("127.0.0.1:0".to_owned()));
        let options = Options {
            data: Some(directory.path().join("data")),
            listen: free(options.listen.clone()),
            peer_listen: free(options.peer_listen.clone()),
            election_ms: Some(100),
            heartbeat_ms: Some(20),
            ..options
        };
        let config = Config::settle(options, Options::default()).unwrap();
        let node = Node::start(&config).await.unwrap();
        for _ in 0..500 {
            if node.is_ready() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let service = Service::new(node.clone(), &config);
        Edge { service, node, _directory: Arc::new(directory) }
    }

    async fn answer(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let (method, uri) = line.split_once(' ').unwrap();
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let origin = Origin { remote_addr: "192.0.2.7".to_owned(), hops: 0 };
        self.service.clone().answer(request, origin).await
    }

    async fn send(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let (parts, body) = self.answer(line, headers, body).await.into_parts();
        let body = to_bytes(body, 64 << 20).await.unwrap();
        let body = String::from_utf8_lossy(&body).into_owned();
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn ask(&self, line: &str) -> Reply {
        self.send(line, &[], "").await
    }

    async fn bucket(&self, form: &str) {
        assert_eq!(self.send("POST /", &[FORM], form).await.status, 201, "{form}");
    }
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("accept", "application/json");

fn bearer(key: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {key}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_from_its_first_to_its_last_value() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    assert_eq!(edge.ask("GET /b/a/b:c").await.brief(), "404 no such key: a/b:c\n");

    let form = [("content-type", "application/x-www-form-urlencoded")];
    let set = edge.send("PUT /b/a/b:c?cache=1", &form, "x=1&y").await;
    assert_eq!((set.brief().as_str(), set.header("x-kvdb-applied")), ("200 ", "yes"));
    let tag = set.header("etag").to_owned();
    assert_eq!(tag, format!("\"{}\"", set.header("x-kvdb-revision")));

    let got = edge.ask("GET /b/a%2Fb:c").await;
    assert_eq!(got.brief(), "200 x=1&y");
    assert_eq!(got.header("content-type"), "text/plain");
    assert_eq!((got.header("etag"), got.header("cache-control")), (tag.as_str(), "no-store"));
    assert_eq!(got.header("access-control-allow-origin"), "*");
    assert_eq!(got.header("x-kvdb-applied"), "", "a read changes nothing");

    let same = edge.send("GET /b/a/b:c", &[("if-none-match", &tag)], "").await;
    assert_eq!((same.brief().as_str(), same.header("etag")), ("304 ", tag.as_str()));
    let head = edge.ask("HEAD /b/a/b:c").await;
    assert_eq!((head.brief().as_str(), head.header("content-length")), ("200 ", "5"));

    let deleted = edge.ask("DELETE /b/a/b:c").await;
    assert_eq!((deleted.status, deleted.header("x-kvdb-applied")), (200, "yes"));
    assert_eq!(edge.ask("DELETE /b/a/b:c").await.status, 200);
    assert_eq!(edge.ask("HEAD /b/a/b:c").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_as_fresh_as_they_are_asked_to_be() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    let set = edge.send("PUT /b/k", &[], "v").await;
    let revision: u64 = set.header("x-kvdb-revision").parse().unwrap();
    for fresh in ["", "consistency=linearizable", &format!("min_revision={revision}")] {
        let got = edge.ask(&format!("GET /b/k?{fresh}")).await;
        assert_eq!((got.brief().as_str(), got.header("x-kvdb-age-ms")), ("200 v", ""), "{fresh}");
    }
    let stale = format!("/b/k?consistency=stale&min_revision={revision}");
    let got = edge.ask(&format!("GET {stale}")).await;
    assert_eq!((got.brief().as_str(), got.header("x-kvdb-age-ms")), ("200 v", "0"));
    let head = edge.ask(&format!("HEAD {stale}")).await;
    assert_eq!((head.status, head.header("x-kvdb-age-ms")), (200, "0"));
    for (missing, brief) in [("b/x", "404 no such key: x\n"), ("c/k", "404 no such bucket: c\n")] {
        let got = edge.ask(&format!("GET /{missing}?consistency=stale")).await;
        assert_eq!((got.brief().as_str(), got.header("x-kvdb-age-ms")), (brief, "0"));
    }
    for path in ["consistency=stale&", "", "consistency=linearizable&"] {
        let behind = edge.send(&format!("GET /b/k?{path}min_revision=99999"), &[JSON], "").await;
        assert_eq!((behind.status, behind.header("retry-after")), (503, "1"), "{path}");
        assert!(behind.body.contains("\"behind\",") && behind.body.contains("\"retryable\":true"));
    }
    for wrong in ["consistency=eventual", "consistency=", "min_revision=x"] {
        assert_eq!(edge.ask(&format!("GET /b/k?{wrong}")).await.status, 400, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn types_conditions_and_counters() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    edge.send("POST /b/page", &[("content-type", "text/html")], "<p>").await;
    let page = edge.ask("GET /b/page").await;
    assert_eq!(page.header("content-type"), "text/html");

    let tag = page.header("etag");
    let taken = edge.send("PUT /b/page", &[("if-none-match", "*")], "2").await;
    assert_eq!((taken.status, taken.header("x-kvdb-applied")), (412, "no"));
    assert_eq!(edge.send("PUT /b/page", &[("if-match", "\"1\"")], "2").await.status, 412);
    assert_eq!(edge.send("PUT /b/page", &[("if-match", tag)], "2").await.status, 200);
    assert_eq!(edge.send("PUT /b/new", &[("if-match", "*")], "2").await.status, 412);

    for (by, sum) in [("+5", "200 5"), ("-2", "200 3"), ("0.5", "200 3.5")] {
        assert_eq!(edge.send("PATCH /b/n", &[], by).await.brief(), sum);
    }
    let refused = edge.send("PATCH /b/n", &[], "many").await;
    assert_eq!((refused.status, refused.header("x-kvdb-applied")), (400, "no"));
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_and_who_may_what() {
    let edge = Edge::start(Options::default()).await;
    let made = edge.ask("POST /").await;
    assert_eq!((made.status, made.body.len()), (201, 22));
    assert_eq!(made.header("x-kvdb-applied"), "yes");
    let chosen = edge.send("POST /", &[FORM, JSON], "id=b&secret_key=s&write_key=w").await;
    assert_eq!(chosen.brief(), r#"201 {"id":"b"}"#);
    assert_eq!(edge.send("POST /", &[FORM], "id=b").await.status, 409);
    assert_eq!(edge.send("POST /", &[FORM], "id=metrics").await.status, 400);

    let status = async |line: &str, key: &str| {
        let (name, value) = bearer(key);
        edge.send(line, &[(name, &value)], "1").await.status
    };
    assert_eq!(edge.send("PUT /b/k", &[], "1").await.status, 403);
    assert_eq!(status("PUT /b/k", "wrong").await, 401);
    assert_eq!(status("PUT /b/k", "w").await, 200);
    assert_eq!(edge.send("PUT /b/k?key=w", &[], "1").await.status, 200);
    assert_eq!(edge.ask("GET /b/k").await.brief(), "200 1");
    assert_eq!(edge.ask("GET /b/").await.status, 403);
    assert_eq!(status("GET /b/", "w").await, 403);
    assert_eq!(edge.ask("GET /b/?access_token=s").await.brief(), "200 k\n");
    assert_eq!(edge.ask("GET /none/k").await.brief(), "404 no such bucket: none\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_admin_creates_buckets_where_it_says_so() {
    let options = Options {
        admin_key: Some("A".parse().unwrap()),
        create_buckets: Some(CreateBuckets::Admin),
        ..Options::default()
    };
    let edge = Edge::start(options).await;
    assert_eq!(edge.send("POST /", &[FORM], "id=b").await.status, 403);
    for (header, status) in [("Bearer B", 401), ("Bearer A", 201)] {
        let made = edge.send("POST /", &[FORM, ("authorization", header)], "id=b").await;
        assert_eq!(made.status, status, "{header}");
    }
    assert_eq!(edge.ask("POST /-/cluster/snapshot").await.status, 403);
    let promoted = edge.send("POST /-/cluster/members/9/promote", &[], "").await;
    assert_eq!((promoted.status, promoted.header("x-kvdb-applied")), (403, "no"));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_became_of_the_call() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    let json = edge.send("GET /b/none", &[JSON], "").await;
    assert_eq!(
        json.brief(),
        r#"404 {"error":{"code":"key_not_found","message":"no such key: none","retryable":false,"applied":"no"}}"#
    );
    assert_ne!(json.header("x-kvdb-revision"), "");
    for (line, status, allow) in [
        ("PUT /b/", 405, "GET, HEAD, DELETE, OPTIONS"),
        ("GET /", 405, "POST, OPTIONS"),
        ("PATCH /b/scripts/s", 405, "GET, HEAD, PUT, POST, DELETE, OPTIONS"),
        ("POST /b", 400, ""),
        ("PUT /b/k?ttl=x", 400, ""),
        ("PUT /b/%zz", 400, ""),
    ] {
        let reply = edge.ask(line).await;
        assert_eq!((reply.status, reply.header("allow")), (status, allow), "{line}");
        let mutates = !line.starts_with("GET");
        assert_eq!(reply.header("x-kvdb-applied") == "no", mutates, "{line}");
        assert_eq!(reply.header("cache-control"), "no-store");
    }
    let large = "x".repeat((1 << 20) + 1);
    let large = edge.send("PUT /b/k", &[], &large).await;
    assert_eq!(large.brief(), "413 a value is limited to 1048576 bytes\n");
    let keyed = edge.send("PUT /b/k", &[("idempotency-key", "a b")], "v").await;
    assert_eq!(keyed.status, 400);
    assert_eq!(edge.ask("GET /b/k").await.status, 404, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_answered_whatever_is_behind() {
    let edge = Edge::start(Options::default()).await;
    let asks = [("origin", "http://a"), ("access-control-request-method", "PATCH")];
    let reply = edge.send("OPTIONS /none/k?kvdb_ticket=n", &asks, "").await;
    assert_eq!(reply.status, 204);
    assert!(reply.header("access-control-allow-methods").contains("PATCH"));
    assert!(reply.header("access-control-allow-headers").contains("Authorization"));
    assert!(reply.header("access-control-expose-headers").contains("X-Kvdb-Applied"));
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_from_upload_to_removal() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    let source = "kvdb.say(kvdb.var.name, ' ', kvdb.var.remote_addr) kvdb.incr('runs', 1)";
    let put = edge.send("PUT /b/scripts/hello", &[], source).await;
    assert_eq!((put.status, put.body.as_str()), (200, put.header("x-kvdb-revision")));
    let bad = edge.send("PUT /b/scripts/hello", &[], "kvdb.say(").await;
    assert_eq!((bad.status, bad.header("x-kvdb-applied")), (400, "no"));

    let run = edge.ask("GET /b/scripts/hello?name=query&remote_addr=x").await;
    assert_eq!(run.brief(), "200 query 192.0.2.7\n");
    assert_eq!(run.header("x-kvdb-applied"), "yes");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let run = edge.send("POST /b/scripts/hello?name=query", &form, "name=form").await;
    assert_eq!(run.brief(), "200 form 192.0.2.7\n");
    assert_eq!(edge.ask("GET /b/runs").await.brief(), "200 2");

    assert_eq!(edge.ask("GET /b/scripts/hello?source").await.body, source);
    assert!(edge.ask("GET /b/scripts/").await.body.starts_with("hello version="));
    assert_eq!(edge.ask("DELETE /b/scripts/hello").await.status, 200);
    let gone = edge.ask("GET /b/scripts/hello").await;
    assert_eq!(gone.brief(), "404 no such script: hello\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_does_not_run_a_script() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    edge.send("PUT /b/scripts/s", &[], "kvdb.incr('runs', 1)").await;
    let head = edge.ask("HEAD /b/scripts/s").await;
    assert_eq!((head.status, head.header("x-kvdb-applied")), (405, "no"));
    assert_eq!(head.header("allow"), "GET, PUT, POST, DELETE, OPTIONS");
    assert_eq!(edge.ask("GET /b/runs").await.status, 404);
    let source = edge.ask("HEAD /b/scripts/s?source").await;
    assert_eq!((source.status, source.header("content-length")), (200, "20"));
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_obeyed_or_refused() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    edge.send("PUT /b/scripts/s", &[], "kvdb.incr('runs', 1)").await;
    for (line, headers) in [
        ("PUT /b/scripts/s", &[("if-none-match", "*")][..]),
        ("DELETE /b/scripts/s", &[("if-match", "\"1\"")]),
        ("POST /b/scripts/s", &[("if-match", "*")]),
        ("GET /b/scripts/s", &[("if-none-match", "\"1\"")]),
        ("POST /", &[("if-none-match", "*")]),
    ] {
        let reply = edge.send(line, headers, "").await;
        assert_eq!((reply.status, reply.header("x-kvdb-applied")), (400, "no"), "{line}");
        assert!(reply.body.contains("is not supported here"), "{line}: {}", reply.body);
    }
    assert_eq!(edge.send("PUT /b/k", &[("if-match", "é")], "v").await.status, 400);
    assert_eq!(edge.send("GET /b/k", &[("if-none-match", "é")], "").await.status, 400);
    assert_eq!(edge.ask("GET /b/runs").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_head_is_refused_and_nothing_runs() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    let long = "x".repeat(13 << 10);
    let reply = edge.send("PUT /b/k", &[("x-long", &long)], "v").await;
    assert_eq!((reply.status, reply.header("x-kvdb-applied")), (431, "no"));
    assert_eq!(edge.ask("GET /b/k").await.status, 404);
    let read = edge.ask(&format!("GET /b/k?x={long}")).await;
    assert_eq!((read.status, read.header("x-kvdb-applied")), (431, ""));
    let json = edge.send("PUT /b/k", &[("x-long", &long), JSON], "v").await;
    assert!(json.status == 431 && json.body.contains(r#""code":"too_large""#), "{}", json.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_says_when_the_default_limit_cut_it() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    let fill = "for i = 1, kvdb.var.n do kvdb.set(string.format('k%05d', i), 'v') end";
    assert_eq!(edge.send("PUT /b/scripts/fill", &[], fill).await.status, 200);
    for (n, truncated) in [(10_000, ""), (10_001, "true")] {
        let filled = edge.ask(&format!("GET /b/scripts/fill?n={n}")).await;
        assert_eq!(filled.status, 200, "{}", filled.body);
        let list = edge.ask("GET /b/").await;
        assert_eq!((list.status, list.header("x-kvdb-truncated")), (200, truncated), "{n}");
        assert_eq!(list.body.lines().count(), 10_000);
    }
    assert_eq!(edge.ask("GET /b/?limit=10").await.header("x-kvdb-truncated"), "");
    assert_eq!(edge.ask("GET /b/?start=k00002").await.header("x-kvdb-truncated"), "");
    assert_eq!(edge.ask("GET /b/?cursor=x").await.status, 400);
    let first = edge.ask("GET /b/").await;
    let last = edge.ask(&format!("GET /b/?cursor={}", first.header("x-kvdb-cursor"))).await;
    assert_eq!(last.brief(), "200 k10001\n");
    assert_eq!((last.header("x-kvdb-cursor"), last.header("x-kvdb-truncated")), ("", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_streams_and_a_head_has_its_headers() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    let value = "v".repeat(300_000);
    for i in 0..10 {
        assert_eq!(edge.send(&format!("PUT /b/k{i}"), &[], &value).await.status, 200);
    }
    for (query, count, length, cut) in
        [("", 10, "", false), ("&limit=9", 9, "", true), ("&limit=2", 2, "600008", true)]
    {
        let query = format!("/b/?values{query}");
        let list = edge.ask(&format!("GET {query}")).await;
        assert_eq!((list.status, list.body.lines().count()), (200, count), "{query}");
        assert!(list.body.lines().all(|line| line.len() == "k0=".len() + value.len()));
        assert_eq!(!list.header("x-kvdb-cursor").is_empty(), cut, "{query}");
        let head = edge.ask(&format!("HEAD {query}")).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        assert_eq!(head.header("content-length"), length, "{query}");
        for name in ["x-kvdb-cursor", "x-kvdb-revision", "content-type"] {
            assert_eq!(head.header(name), list.header(name), "{query}: {name}");
        }
    }
    let old = http::Request::builder().uri("/b/?values").version(http::Version::HTTP_10);
    let old = old.body(Body::empty()).unwrap();
    let old = edge.service.clone().answer(old, Origin::default()).await;
    assert_eq!(old.status(), 400, "it could not see where a list breaks off");
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_are_limited_and_told() {
    let options = Options {
        client_requests_per_second: Some(1000),
        bucket_requests_per_second: Some(1),
        ..Options::default()
    };
    let edge = Edge::start(options).await;
    let made = edge.send("POST /", &[FORM], "id=b").await;
    assert_eq!((made.status, made.header("x-ratelimit-limit")), (201, "1000"));
    let mut replies = Vec::new();
    for _ in 0..20 {
        replies.push(edge.send("PUT /b/k", &[JSON], "v").await);
    }
    let refused = replies.iter().find(|reply| reply.status == 429).unwrap();
    assert_eq!(refused.header("x-kvdb-applied"), "no");
    assert_eq!(refused.header("retry-after"), "1");
    for (name, value) in [("limit", "1"), ("remaining", "0"), ("reset", "1")] {
        assert_eq!(refused.header(&format!("x-ratelimit-{name}")), value);
    }
    assert!(refused.body.contains(r#""code":"rate_limited""#), "{}", refused.body);
    assert!(refused.body.contains(r#""retryable":true,"applied":"no""#), "{}", refused.body);
    let other = edge.ask("GET /c/k").await;
    assert_eq!((other.status, other.header("x-ratelimit-limit")), (404, "1"));
    for line in ["GET /livez", "OPTIONS /b/k"] {
        let free = edge.ask(line).await;
        assert!(free.status < 300 && free.header("x-ratelimit-limit").is_empty(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_good_once_and_for_its_own_call() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b&write_key=w").await;
    let (name, key) = bearer("w");
    let source = "kvdb.print(kvdb.set('k', 'v') or 'stored')";
    edge.send("PUT /b/scripts/s", &[(name, &key)], source).await;

    let ticket = async || {
        let name = crate::kv::BucketName::parse("b").unwrap();
        let credential = crate::kv::Credential::new("w");
        let issued = edge.node.issue_ticket(&name, "GET", "/b/scripts/s?a=1", &credential).await;
        issued.unwrap()
    };
    let nonce = ticket().await;
    let good = edge.ask(&format!("GET /b/scripts/s?a=1&kvdb_ticket={nonce}")).await;
    assert_eq!(good.brief(), "200 stored");
    let again = edge.ask(&format!("GET /b/scripts/s?a=1&kvdb_ticket={nonce}")).await;
    assert_eq!((again.status, again.header("x-kvdb-applied")), (401, "no"));
    let other = edge.ask(&format!("GET /b/scripts/s?a=2&kvdb_ticket={}", ticket().await)).await;
    assert_eq!(other.status, 401);
    let without = edge.ask("GET /b/scripts/s?a=1").await;
    assert!(without.body.contains("write"), "{}", without.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_standing() {
    let edge = Edge::start(Options::default()).await;
    crate::metrics::install().unwrap();
    assert_eq!(edge.ask("GET /livez").await.brief(), "200 ok\n");
    assert_eq!(edge.ask("GET /readyz").await.brief(), "200 ok\n");
    assert!(edge.ask("GET /metrics").await.body.contains("kvdb_raft_is_leader 1"));
    assert!(edge.ask("GET /-/cluster").await.body.contains(r#""state":"leader""#));
    edge.bucket("id=b").await;
    // Names are for the admin.
    assert!(edge.ask("GET /-/digest").await.body.contains(r#""name":"""#));
    edge.node.begin_shutdown();
    assert_eq!(edge.ask("GET /readyz").await.status, 503);
    assert_eq!(edge.ask("GET /livez").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_fails_on_a_stale_view_wrote_nothing() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    edge.send("PUT /b/scripts/s?readonly=true", &[], "error('x')").await;
    let failed = edge.ask("GET /b/scripts/s?consistency=stale").await;
    assert_eq!((failed.status, failed.header("x-kvdb-applied")), (500, "no"), "{}", failed.body);
    assert_ne!(failed.header("x-kvdb-age-ms"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_deletion_spares_the_next_life_of_the_name() {
    let edge = Edge::start(Options::default()).await;
    let delete = [("idempotency-key", "d"), ("authorization", "Bearer s")];
    edge.bucket("id=b&secret_key=s").await;
    let first = edge.send("DELETE /b/", &delete, "").await;
    assert_eq!(first.status, 200);
    for life in 0..2 {
        let again = edge.send("DELETE /b/", &delete, "").await;
        assert_eq!(again.header("idempotency-replayed"), "true", "{life}");
        assert_eq!(again.header("x-kvdb-revision"), first.header("x-kvdb-revision"));
        if life == 0 {
            edge.bucket("id=b&secret_key=s").await;
            edge.send("PUT /b/k", &delete[1..], "precious").await;
        }
    }
    assert_eq!(edge.ask("GET /b/k").await.body, "precious");
    let other = [("idempotency-key", "d"), ("authorization", "Bearer t")];
    assert_eq!(edge.send("DELETE /b/", &other, "").await.status, 401);
    let anew = [("idempotency-key", "e"), delete[1]];
    assert_eq!(edge.send("DELETE /b/", &anew, "").await.header("idempotency-replayed"), "");
    assert_eq!(edge.ask("GET /b/k").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_call_is_answered_alike_when_its_script_only_reads_by_now() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    let key = [("idempotency-key", "k")];
    edge.send("PUT /b/scripts/s", &[], "kvdb.incr('n', 1) kvdb.print('wrote')").await;
    assert_eq!(edge.send("POST /b/scripts/s", &key, "").await.body, "wrote");
    edge.send("PUT /b/scripts/s?readonly=true", &[], "kvdb.print('read')").await;
    let again = edge.send("POST /b/scripts/s", &key, "").await;
    assert_eq!((again.body.as_str(), again.header("idempotency-replayed")), ("wrote", "true"));
    assert_eq!(edge.ask("POST /b/scripts/s").await.body, "read");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_a_transaction_has_a_limit() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    edge.send("PUT /b/large", &[], &"x".repeat(1 << 20)).await;
    let get = |times: usize| vec![r#"{"get":"large"}"#; times].join(",");
    let ask =
        async |times| edge.send("POST /b", &[], &format!(r#"{{"txn":[{}]}}"#, get(times))).await;
    assert_eq!(ask(7).await.status, 200);
    let refused = ask(9).await;
    assert_eq!((refused.status, refused.header("x-kvdb-applied")), (413, "no"), "{}", refused.body);
}
