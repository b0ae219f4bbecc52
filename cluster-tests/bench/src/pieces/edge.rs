//! The edge over a node in this process, without a socket: a request as hyper hands it over, to the answer.
//!
//! It is entered where a peer's proxied requests are, which adds a few moves to what a client's cost. Only
//! the thread of the request is counted: what the executor, Raft and the log do meanwhile, on threads of
//! their own, other pieces count.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvdb::config::{Config, Options};
use kvdb::error::{Error, Result};
use kvdb::http::Service;
use kvdb::node::{ForwardTarget, Forwarded, Node};
use tokio::runtime::Runtime;

use super::Running;
use super::fixture;

/// How long a node may take until it leads itself, also where an instruction costs fifty.
const READY_TIME: Duration = Duration::from_secs(60);
/// Between two looks at it.
const READY_LOOK: Duration = Duration::from_millis(10);
const KEY: &str = "/bench/user/000017";

/// A node with the bucket; its directory goes with it.
struct Edge {
    target: ForwardTarget,
    node: Node,
    runtime: Runtime,
    _directory: tempfile::TempDir,
}

impl Edge {
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let any_port = || Some("127.0.0.1:0".to_owned());
        let options = Options {
            data: Some(directory.path().join("data")),
            listen: any_port(),
            peer_listen: any_port(),
            executor_threads: Some(1),
            ..Options::default()
        };
        let config = Config::settle(options, Options::default())?;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build()?;
        let node = runtime.block_on(Node::start(&config))?;
        let target = Service::new(node.clone(), &config).forward_target();
        let edge = Edge { target, node, runtime, _directory: directory };
        edge.wait_until_ready()?;
        edge.ask(&request("POST", "/", "id=bench".into()), 201);
        edge.ask(&request("PUT", KEY, fixture::value()), 200);
        for (name, source) in fixture::SCRIPTS {
            let path = format!("/bench/scripts/{name}");
            edge.ask(&request("PUT", &path, Bytes::from_static(source.as_bytes())), 200);
        }
        for account in ["17", "42"] {
            let path = format!("/bench/account/{account}");
            edge.ask(&request("PUT", &path, Bytes::from_static(b"1000000000")), 200);
        }
        // What reads look for lies in a file from here on, whose index has no chance in it.
        edge.runtime.block_on(edge.node.snapshot())?;
        Ok(edge)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let begun = Instant::now();
        while !self.node.is_ready() {
            if begun.elapsed() > READY_TIME {
                return Err(Error::NoLeader("the node does not get ready".to_owned()));
            }
            std::thread::sleep(READY_LOOK);
        }
        Ok(())
    }

    /// Asks, and holds the answer to a status.
    fn ask(&self, request: &Forwarded, status: u16) {
        let answer = self.runtime.block_on((self.target)(request.clone()));
        let answer = answer.expect("the edge answers everything");
        assert_eq!(answer.status(), status, "{:?}", answer.body());
        black_box(answer);
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // Its directory goes next; nobody is left to care how it ended.
        let _ = self.runtime.block_on(self.node.shutdown());
    }
}

/// A request with the headers that clients send.
fn request(method: &str, path_and_query: &str, body: Bytes) -> Forwarded {
    let mut request = Forwarded {
        method: method.parse().expect("a method"),
        path_and_query: path_and_query.to_owned(),
        headers: Default::default(),
        body,
        remote_addr: "192.0.2.7".to_owned(),
        hops: 0,
    };
    let length = request.body.len().to_string();
    for (name, value) in [
        ("host", "localhost:7400"),
        ("user-agent", "curl/8.5.0"),
        ("accept", "*/*"),
        ("content-length", length.as_str()),
        ("content-type", "application/x-www-form-urlencoded"),
    ] {
        request.headers.insert(name, value.parse().expect("a header's value"));
    }
    request
}

fn asking(method: &str, path_and_query: &str, body: Bytes) -> Result<Running> {
    let (edge, request) = (Edge::start()?, request(method, path_and_query, body));
    Ok(Running::new(move || edge.ask(black_box(&request), 200)))
}

pub(super) fn livez() -> Result<Running> {
    asking("GET", "/livez", Bytes::new())
}

pub(super) fn stale() -> Result<Running> {
    asking("GET", &format!("{KEY}?consistency=stale"), Bytes::new())
}

pub(super) fn get() -> Result<Running> {
    asking("GET", KEY, Bytes::new())
}

pub(super) fn put() -> Result<Running> {
    asking("PUT", KEY, fixture::value())
}

pub(super) fn script() -> Result<Running> {
    asking("POST", "/bench/scripts/transfer?from=17&to=42&amount=5", Bytes::new())
}
