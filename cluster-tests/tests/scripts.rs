//! Scripts called on every node of a real cluster: the examples as golden sessions, and who is asking.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets a surprise panics"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use cluster_tests::cluster::Cluster;
use cluster_tests::http::{Http, Reply};
use cluster_tests::launch::Launch;
use cluster_tests::scenario::Scenario;
use cluster_tests::session::{Place, Session};

/// Says who is asking, and whether they may write and read.
const WHO: &str = r#"
local refused = kvdb.set("mark", "by " .. (kvdb.var.name or "nobody"))
if refused then
  kvdb.say("write refused: " .. refused)
else
  kvdb.say("wrote")
end
local value, info, err = kvdb.get("mark")
if err then
  kvdb.say("read refused: " .. err)
else
  kvdb.say("read: " .. tostring(value))
end
kvdb.say("permissions: " .. table.concat(kvdb.scope.permissions, " "))
"#;

/// Shows everything of the request that a script can see.
const SHOW: &str = r#"
kvdb.say("remote_addr=" .. kvdb.var.remote_addr)
kvdb.say("a=" .. tostring(kvdb.var.a))
kvdb.say("kvdb_ticket=" .. tostring(kvdb.var.kvdb_ticket))
for name, value in pairs(kvdb.var) do
  kvdb.say("var " .. name .. "=" .. value)
end
kvdb.say("path=" .. kvdb.req.path)
kvdb.say("method=" .. kvdb.req.method)
for name, value in pairs(kvdb.req.headers) do
  kvdb.say("header " .. name .. "=" .. value)
end
"#;

const KEYS: &str = "secret_key=owner&write_key=writer&read_key=reader";
const AUTHORISED: &str = "wrote\nread: by curl\npermissions: read write enumerate delete\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_answer_alike_on_every_node() {
    let scenario = Scenario::begin("examples");
    scenario.phase("start three nodes");
    let mut cluster = Launch::of(3).start(&scenario).await;
    let leader = cluster.leader().await;
    let examples = texts(&Scenario::checkout().join("deploy/examples"), "lua");
    let sessions = texts(&Scenario::checkout().join("cluster-tests/tests/examples"), "session");
    let (names, covered): (Vec<_>, Vec<_>) = (examples.keys().collect(), sessions.keys().collect());
    assert_eq!(names, covered, "each example has a session and each session an example");

    let mut failures = Vec::new();
    for id in cluster.ids() {
        let role = if id == leader { "the leader" } else { "a follower" };
        scenario.phase(&format!("every example on node {id}, {role}"));
        let shared = format!("examples-{id}");
        prepare(&cluster, id, &shared, "", None, &examples).await;
        for (name, text) in &sessions {
            let session = Session::parse(text).unwrap_or_else(|e| panic!("{name}.session: {e}"));
            let mut bucket = shared.clone();
            if !session.policy.is_empty() {
                bucket = format!("examples-{id}-{name}");
                prepare(&cluster, id, &bucket, &session.policy, session.secret(), &examples).await;
            }
            let place = Place { url: cluster.url(id).to_owned(), bucket, base_revision: 0 };
            let report = session.run(&cluster.http, &place).await;
            let found = report.failures.into_iter();
            failures.extend(found.map(|failure| format!("node {id}, {name}.session {failure}")));
            let hops = report.replies.iter().map(|(_, reply)| reply.hops).max();
            // What cannot write, a follower runs itself.
            let redirected = id != leader && !upload_query(&examples[name]).contains("readonly");
            if hops != Some(redirected.into()) {
                failures.push(format!("{name}.session on {role}: {hops:?} redirects"));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    cluster.agree().await;
}

/// Creates a bucket with every example in it, uploaded as its first lines say.
async fn prepare(
    cluster: &Cluster,
    id: u64,
    bucket: &str,
    policy: &str,
    secret: Option<&str>,
    examples: &BTreeMap<String, String>,
) {
    cluster.create_bucket(id, bucket, policy).await;
    for (name, source) in examples {
        let name = format!("{name}{}", upload_query(source));
        cluster.put_script_as(id, bucket, &name, source, secret).await;
    }
}

/// How an example is to be uploaded: what follows `-- upload: ` in it.
fn upload_query(source: &str) -> &str {
    source.lines().find_map(|line| line.strip_prefix("-- upload: ")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_keep_their_authority_on_every_node() {
    let scenario = Scenario::begin("authority");
    scenario.phase("start three nodes, a bucket with keys");
    let mut cluster = Launch::of(3).start(&scenario).await;
    let leader = cluster.leader().await;
    let follower = cluster.followers().await.into_iter().next().unwrap();
    cluster.create_bucket(leader, "closed", KEYS).await;
    cluster.put_script_as(leader, "closed", "who", WHO, Some("owner")).await;
    cluster.put_script_as(leader, "closed", "show", SHOW, Some("owner")).await;

    for id in cluster.ids() {
        scenario.phase(&format!("curl -L with a bearer's key on node {id}"));
        let url = cluster.at(id, "/closed/scripts/who?name=curl");
        let run = |extra: &[&str]| curl(&[&["-L"], extra, &[&url]].concat());
        assert_eq!(run(&["-H", "Authorization: Bearer owner"]), AUTHORISED);
        assert_eq!(run(&["-X", "POST", "-H", "Authorization: Bearer owner"]), AUTHORISED);
        assert_eq!(run(&["-u", "owner:"]), AUTHORISED);
        check_lesser_keys(&run);
    }
    assert_eq!(
        cluster
            .http
            .get(cluster.at(leader, "/closed/mark"))
            .bearer("reader")
            .expect(200)
            .await
            .text(),
        "by curl"
    );

    scenario.phase("a stranger and a wrong key on each node");
    for id in cluster.ids() {
        let call = cluster.http.get(cluster.at(id, "/closed/scripts/who")).follow();
        check_stranger(&call.clone().expect(200).await.text());
        call.bearer("wrong").expect(401).await;
    }

    scenario.phase("a ticket works once, for one call, and is not seen");
    check_ticket(&cluster, follower).await;

    scenario.phase("a caller's address cannot be faked");
    for id in cluster.ids() {
        check_address(&cluster, id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarding_followers_answer_themselves() {
    let scenario = Scenario::begin("forward");
    scenario.phase("start three nodes that forward");
    let launch = Launch::of(3).flag("--script-routing", "forward");
    let mut cluster = launch.start(&scenario).await;
    let leader = cluster.leader().await;
    cluster.create_bucket(leader, "closed", KEYS).await;
    cluster.put_script_as(leader, "closed", "who", WHO, Some("owner")).await;
    cluster.put_script_as(leader, "closed", "show", SHOW, Some("owner")).await;
    for id in cluster.ids() {
        scenario.phase(&format!("node {id} answers itself"));
        let url = cluster.at(id, "/closed/scripts/who?name=curl");
        let reply = cluster.http.get(&url).bearer("owner").expect(200).await;
        assert_eq!(reply.text(), AUTHORISED);
        check_stranger(&cluster.http.get(&url).expect(200).await.text());
        check_address(&cluster, id).await;
    }
}

/// The write key writes and does not read; the read key reads and does not write.
fn check_lesser_keys(run: &impl Fn(&[&str]) -> String) {
    let writer = run(&["-H", "Authorization: Bearer writer"]);
    assert!(writer.starts_with("wrote\nread refused: "), "{writer}");
    assert!(writer.ends_with("permissions: write delete\n"), "{writer}");
    let reader = run(&["-H", "Authorization: Bearer reader"]);
    assert!(reader.starts_with("write refused: "), "{reader}");
    assert!(reader.ends_with("read: by curl\npermissions: read\n"), "{reader}");
}

/// Inside, somebody without a key is refused both.
fn check_stranger(answer: &str) {
    let lines: Vec<&str> = answer.lines().collect();
    assert!(lines[0].starts_with("write refused: "), "{answer}");
    assert!(lines[1].starts_with("read refused: "), "{answer}");
    assert_eq!(lines[2].trim_end(), "permissions:", "{answer}");
}

async fn ticket(cluster: &Cluster, follower: u64, path: &str) -> Reply {
    let reply = cluster.http.get(cluster.at(follower, path)).bearer("owner").expect(307).await;
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply}");
    reply
}

async fn check_ticket(cluster: &Cluster, follower: u64) {
    let path = "/closed/scripts/who?name=curl";
    let anonymous = cluster.http.get(cluster.at(follower, path)).expect(307).await;
    assert!(!anonymous.location().contains("kvdb_ticket"), "{anonymous}");

    let location = ticket(cluster, follower, path).await.location();
    assert!(location.contains("kvdb_ticket=") && !location.contains("owner"), "{location}");
    assert_eq!(cluster.http.get(&location).expect(200).await.text(), AUTHORISED);
    must_not_authorise(&cluster.http, "GET", &location, "a ticket used twice").await;

    let location = ticket(cluster, follower, path).await.location();
    must_not_authorise(&cluster.http, "POST", &location, "another method").await;
    let location = ticket(cluster, follower, path).await.location();
    let other = location.replace("name=curl", "name=else");
    must_not_authorise(&cluster.http, "GET", &other, "another query").await;

    let shown = ticket(cluster, follower, "/closed/scripts/show?a=1").await.location();
    let shown = cluster.http.get(shown).expect(200).await.text();
    assert!(shown.contains("kvdb_ticket=nil\n") && shown.contains("a=1\n"), "{shown}");
    assert_eq!(shown.matches("ticket").count(), 1, "the ticket shows: {shown}");
}

/// A ticket that does not hold: 401, or a stranger's answer.
async fn must_not_authorise(http: &Http, method: &str, url: &str, why: &str) {
    let reply = http.call(method, url).send().await.unwrap();
    match reply.status {
        200 => check_stranger(&reply.text()),
        401 | 403 => {}
        _ => panic!("{why}: {reply}"),
    }
}

/// The caller's own address arrives, through a redirect or a proxy, whatever it claims.
async fn check_address(cluster: &Cluster, id: u64) {
    let http = Http::from_address("127.0.0.9".parse().unwrap());
    let url = cluster.at(id, "/closed/scripts/show?a=1&remote_addr=6.6.6.6");
    let call = http.get(url).header("x-forwarded-for", "6.6.6.6").bearer("owner").follow();
    let shown = call.expect(200).await.text();
    assert!(shown.starts_with("remote_addr=127.0.0.9\n"), "node {id}: {shown}");
}

/// Runs the real curl, and returns what it printed.
fn curl(args: &[&str]) -> String {
    let output = Command::new("curl").args(["-sS", "--max-time", "10"]).args(args).output();
    let output = output.expect("curl is installed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The files of a directory with an extension, by their names without it.
fn texts(dir: &Path, extension: &str) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}
