//! Clients as people have them, each calling a script on a follower: curl, Python's requests, node's fetch, and
//! a browser on a page of another origin. The follower redirects to the leader, which is another port, and so
//! another origin: every one of these clients drops its credential there. All must arrive authorised.
//!
//! A client that is not installed is left out, loudly; with `KVDB_ALL_CLIENTS` in the environment it fails the
//! test (`make redirect-matrix`).

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise panics")]

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::launch::Launch;
use cluster_tests::scenario::Scenario;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const KEYS: &str = "secret_key=owner&write_key=writer&read_key=reader";
/// What it saw of the call, and whether it could write.
const SEE: &str = r#"
local refused = kvdb.set("seen/" .. kvdb.var.tag, kvdb.req.method)
kvdb.header["content-type"] = "application/json"
kvdb.print(kvdb.json.encode({
  method = kvdb.req.method,
  body = kvdb.req.body or "",
  wrote = refused == nil,
  remote_addr = kvdb.var.remote_addr,
}))
"#;
const BODY: &str = "a body & more=1, as it is";
/// How long one client may take.
const LIMIT: Duration = Duration::from_secs(20);
/// How long a browser may take to start and make all its calls.
const BROWSER_LIMIT: Duration = Duration::from_secs(90);
/// Largest request to the page's own server.
const REQUEST_BYTES_MAX: usize = 256 << 10;

const REQUESTS: &str = r#"
import json, requests, sys
case = json.loads(sys.argv[1])
auth = tuple(case["basic"]) if case["basic"] else None
headers = {"Content-Type": "text/plain"} if case["body"] else {}
if case["bearer"]:
    headers["Authorization"] = "Bearer " + case["bearer"]
reply = requests.request(case["method"], case["url"], auth=auth, headers=headers,
                         data=case["body"], timeout=15)
print(json.dumps({"status": reply.status_code, "redirected": len(reply.history) == 1,
                  "text": reply.text}))
"#;

/// A function of JavaScript, for node and for the browser.
const FETCH: &str = r#"
async function ask(item) {
  const headers = {};
  if (item.body) headers["Content-Type"] = "text/plain";
  if (item.bearer) headers["Authorization"] = "Bearer " + item.bearer;
  if (item.basic) headers["Authorization"] = "Basic " + btoa(item.basic.join(":"));
  const body = item.body || undefined;
  const reply = await fetch(item.url, { method: item.method, headers, body });
  return { status: reply.status, redirected: reply.redirected, text: await reply.text() };
}
"#;

/// What the page does: all calls, then it tells the server that it came from.
const PAGE: &str = r#"
(async () => {
  const told = [];
  for (const item of items) {
    try { told.push(await ask(item)); }
    catch (error) { told.push({ status: 0, redirected: false, text: String(error) }); }
  }
  await fetch("/told", { method: "POST", body: JSON.stringify(told) });
})();
"#;

/// One call.
struct Case {
    name: String,
    authorised: bool,
    method: &'static str,
    body: Option<&'static str>,
    /// All that a client needs to know, for those that read JSON.
    item: Value,
}

/// What a client says of its call.
#[derive(Clone, Debug, Deserialize)]
struct Told {
    status: u16,
    redirected: bool,
    text: String,
}

/// How a client is called, or why it cannot be.
type Client = Result<Box<dyn Fn(&Case) -> Told>, String>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_arrives_authorised() {
    let scenario = Scenario::begin("redirect-matrix");
    scenario.phase("start three nodes, a bucket with keys");
    let mut cluster = Launch::of(3).start(&scenario).await;
    let leader = cluster.leader().await;
    let follower = cluster.followers().await.into_iter().next().unwrap();
    cluster.create_bucket(leader, "matrix", KEYS).await;
    cluster.put_script_as(leader, "matrix", "see", SEE, Some("owner")).await;
    let clients = [("curl", curl()), ("requests", requests()), ("fetch", node())];
    let mut missing = Vec::new();
    for (name, client) in clients {
        match client {
            Ok(client) => {
                scenario.phase(&format!("{name}, by a follower"));
                for case in cases(&cluster, follower, name) {
                    let told = tokio::task::block_in_place(|| client(&case));
                    check(&cluster, leader, &case, &told).await;
                }
            }
            Err(why) => missing.push(format!("{name}: {why}")),
        }
    }
    match browser() {
        Ok(program) => {
            scenario.phase("a browser on a page of another origin, by a follower");
            let cases = cases(&cluster, follower, "browser");
            let told = browse(&scenario, &program, &cases).await;
            assert_eq!(told.len(), cases.len(), "{told:?}");
            for (case, told) in cases.iter().zip(&told) {
                check(&cluster, leader, case, told).await;
            }
        }
        Err(why) => missing.push(format!("browser: {why}")),
    }
    for why in &missing {
        scenario.say(&format!("!! SKIPPED, NOT TESTED: {why} (make setup-clients installs it)"));
    }
    let all = std::env::var_os("KVDB_ALL_CLIENTS").is_some();
    assert!(!all || missing.is_empty(), "clients are missing: {missing:#?}");
}

/// Each way to say who one is, by GET and by POST; and nobody, who must not be taken for somebody.
fn cases(cluster: &Cluster, node: u64, client: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for credential in ["bearer", "basic", "query", "nobody"] {
        for (method, body) in [("GET", None), ("POST", Some(BODY))] {
            let name = format!("{client}-{credential}-{method}");
            let key = if credential == "query" { "&key=owner" } else { "" };
            let path = format!("/matrix/scripts/see?tag={name}&remote_addr=6.6.6.6{key}");
            let item = json!({
                "url": cluster.at(node, &path),
                "method": method,
                "body": body,
                "bearer": (credential == "bearer").then_some("owner"),
                "basic": (credential == "basic").then_some(["owner", ""]),
            });
            cases.push(Case { name, authorised: credential != "nobody", method, body, item });
        }
    }
    cases
}

/// The script saw the call as it was made, with its credential, and what it wrote is there.
async fn check(cluster: &Cluster, leader: u64, case: &Case, told: &Told) {
    let name = &case.name;
    assert_eq!(told.status, 200, "{name}: {told:?}");
    assert!(told.redirected, "{name} was not redirected: {told:?}");
    let saw: Value = serde_json::from_str(&told.text).unwrap();
    let expected = json!({
        "method": case.method,
        "body": case.body.unwrap_or(""),
        "wrote": case.authorised,
        "remote_addr": "127.0.0.1",
    });
    assert_eq!(saw, expected, "{name}");
    let row = cluster.http.get(cluster.at(leader, &format!("/matrix/seen/{name}"))).bearer("owner");
    match case.authorised {
        true => assert_eq!(row.expect(200).await.text(), case.method, "{name}"),
        false => drop(row.expect(404).await),
    }
}

/// The first of these programs that can do what it is asked for.
fn able(programs: &[&'static str], probe: &[&str]) -> Result<&'static str, String> {
    let works = |program: &&&str| {
        let command = Command::new(program).args(probe).stdin(Stdio::null()).output();
        command.is_ok_and(|output| output.status.success())
    };
    let found = programs.iter().find(works).copied();
    found.ok_or_else(|| format!("none of {programs:?} is installed and does {probe:?}"))
}

/// Runs a client to its end, and returns what it printed.
fn run(program: &str, args: &[&str], stdin: &str) -> String {
    let mut command = Command::new(program);
    command.args(args).env("NO_PROXY", "*").stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn curl() -> Client {
    let program = able(&["curl"], &["--version"])?;
    Ok(Box::new(move |case| {
        let item = |name: &str| case.item.get(name).unwrap();
        let limit = LIMIT.as_secs().to_string();
        let mut args =
            vec!["-sS", "-L", "--max-time", &limit, "-w", "\n%{http_code} %{num_redirects}"];
        let bearer = item("bearer").as_str().map(|key| format!("Authorization: Bearer {key}"));
        if let Some(bearer) = &bearer {
            args.extend(["-H", bearer]);
        }
        if !item("basic").is_null() {
            args.extend(["-u", "owner:"]);
        }
        if let Some(body) = case.body {
            args.extend(["-H", "Content-Type: text/plain", "--data-binary", body]);
        }
        args.push(item("url").as_str().unwrap());
        let printed = run(program, &args, "");
        let (text, figures) = printed.rsplit_once('\n').unwrap();
        let (status, redirects) = figures.split_once(' ').unwrap();
        Told {
            status: status.parse().unwrap(),
            redirected: redirects == "1",
            text: text.to_owned(),
        }
    }))
}

fn requests() -> Client {
    // A Python of one's own may lack what the system's has, or the other way round.
    let program = able(&["python3", "/usr/bin/python3"], &["-c", "import requests"])?;
    Ok(Box::new(move |case| {
        let printed = run(program, &["-c", REQUESTS, &case.item.to_string()], "");
        serde_json::from_str(&printed).unwrap()
    }))
}

fn node() -> Client {
    let program = able(&["node", "nodejs"], &["-e", "if (!globalThis.fetch) process.exit(1)"])?;
    Ok(Box::new(move |case| {
        let tell =
            "ask(JSON.parse(process.argv[2])).then(told => console.log(JSON.stringify(told)))";
        let script = format!("{FETCH}\n{tell}");
        // From standard input: `-e` counts its arguments otherwise.
        let printed = run(program, &["-", &case.item.to_string()], &script);
        serde_json::from_str(&printed).unwrap()
    }))
}

fn browser() -> Result<String, String> {
    let programs = ["chromium", "chromium-browser", "google-chrome"];
    able(&programs, &["--version"]).map(str::to_owned)
}

/// Opens the page in a browser, and returns what the page tells.
async fn browse(scenario: &Scenario, program: &str, cases: &[Case]) -> Vec<Told> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let items: Vec<&Value> = cases.iter().map(|case| &case.item).collect();
    let items = serde_json::to_string(&items).unwrap();
    let page = format!(
        "<!doctype html><title>matrix</title><script>{FETCH}\nconst items = {items};\n{PAGE}</script>"
    );
    let browser = Browser::start(scenario, program, &url);
    let told = tokio::time::timeout(BROWSER_LIMIT, serve_page(&listener, &page)).await;
    drop(browser);
    let told = told.unwrap_or_else(|_| panic!("the page told nothing within {BROWSER_LIMIT:?}"));
    serde_json::from_str(&told).unwrap()
}

/// A browser, with all its processes.
struct Browser(Child);

impl Browser {
    fn start(scenario: &Scenario, program: &str, url: &str) -> Self {
        let log = std::fs::File::create(scenario.dir().join("browser.log")).unwrap();
        let mut command = Command::new(program);
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--no-proxy-server", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", scenario.dir().join("browser").display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0);
        Browser(command.spawn().unwrap())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its group is its own: the processes that it started are in it.
        let _ = killpg(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// Serves the page until it tells what came of its calls.
async fn serve_page(listener: &TcpListener, page: &str) -> String {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        // A browser opens connections that it may not use.
        let request = tokio::time::timeout(Duration::from_secs(2), read_request(&mut stream)).await;
        let Ok(Ok(request)) = request else { continue };
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let told = head.starts_with("POST /told ").then(|| body.to_owned());
        let answer = if told.is_some() { "" } else { page };
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{answer}",
            answer.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
        if let Some(told) = told {
            return told;
        }
    }
}

/// A whole request, as text.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Ok(text.into_owned());
            }
        }
        if bytes.len() > REQUEST_BYTES_MAX || stream.read_buf(&mut bytes).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}
