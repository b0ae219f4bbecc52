//! Hostile requests: drawn from what the edge knows, with odd values, and then damaged.
//!
//! Whatever is sent, it is answered soon, by no fault of ours, and the answer says the truth about what
//! became of it: `no` left every bucket as it was.

mod ask;
mod raw;

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestCaseResult};
use tokio::runtime::{Builder, Runtime};

use self::ask::{Ask, Names};
use super::*;
use crate::api::BucketDigest;
use crate::testing::fuzz;

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Cases after which buckets are made anew, so that what hostile calls left behind does not pile up.
const CASES_PER_GENERATION: usize = 50;
/// What the body of an error says where the fault is ours.
const OUR_FAULTS: [&str; 2] = ["this node failed", "on this node: ask another"];

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts panics of every thread but those of tests, which fail by them anyway.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            if !thread.name().unwrap_or_default().contains("tests::") {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(panic);
        }));
    });
}

/// A node that is not believed to survive, and two buckets on it: one for all, one with every kind of key.
struct Prey {
    edge: Edge,
    names: Names,
    cases: usize,
    generation: usize,
}

impl Prey {
    async fn start() -> Self {
        count_panics();
        let options = Options {
            admin_key: Some("the-admin's".parse().unwrap()),
            script_time_ms: Some(200),
            script_memory_bytes: Some(8 << 20),
            ..Options::default()
        };
        let edge = Edge::start(options).await;
        let mut prey = Prey { edge, names: Names::default(), cases: 0, generation: 0 };
        prey.renew().await;
        prey
    }

    /// Makes new buckets now and then, and where the old ones are not what they were.
    async fn freshen(&mut self) {
        self.cases += 1;
        let Names { open, keyed, .. } = &self.names;
        let line = format!("GET /{keyed}?policy");
        let owner = self.edge.send(&line, &[("authorization", "Bearer s")], "").await;
        let free = self.edge.ask(&format!("GET /{open}?policy")).await;
        let lost = owner.status != 200 || free.status == 404;
        if lost || self.cases.is_multiple_of(CASES_PER_GENERATION) {
            self.renew().await;
        }
    }

    async fn renew(&mut self) {
        let Names { open, keyed, .. } = &self.names;
        if self.generation > 0 {
            self.edge.ask(&format!("DELETE /{open}/")).await;
            let line = format!("DELETE /{keyed}/");
            self.edge.send(&line, &[("authorization", "Bearer s")], "").await;
        }
        self.generation += 1;
        let (open, keyed) = (format!("o{}", self.generation), format!("k{}", self.generation));
        self.edge.bucket(&format!("id={open}")).await;
        self.edge
            .bucket(&format!(
                "id={keyed}&secret_key=s&write_key=w&read_key=r&signing_key=g&max_keys=40&max_bytes=300000"
            ))
            .await;
        let owner = [("authorization", "Bearer s"), FORM];
        let permissions = "prefix=a&permissions=read,write,enumerate,execute:s";
        let minted = self.edge.send(&format!("POST /{keyed}/tokens/"), &owner, permissions).await;
        assert_eq!(minted.status, 200, "{}", minted.body);
        let token = minted.body.trim_start_matches("access_token=").to_owned();
        for (bucket, headers) in [(&open, &[][..]), (&keyed, &owner[..1])] {
            let scripts = ask::SCRIPTS.map(|(name, source)| (format!("scripts/{name}"), source));
            let keys = [("k", "v"), ("n", "7"), ("a%2F%ff", "x")];
            let keys = keys.map(|(key, value)| (key.to_owned(), value));
            for (name, body) in scripts.into_iter().chain(keys) {
                let put = self.edge.send(&format!("PUT /{bucket}/{name}"), headers, body).await;
                assert_eq!(put.status, 200, "{name}: {}", put.body);
            }
        }
        self.names = Names { open, keyed, token };
    }

    fn buckets(&self) -> Vec<BucketDigest> {
        self.edge.node.digest().unwrap().buckets
    }

    /// Sends one, and judges what comes back; nothing where it is no request at all.
    async fn send(&self, ask: &Ask) -> TestCaseResult {
        let Some(request) = ask.request(&self.names) else { return Ok(()) };
        let method = request.method().clone();
        let script = request.uri().path().contains("scripts");
        let before = self.buckets();
        let origin = Origin { remote_addr: "192.0.2.7".to_owned(), hops: 0 };
        let answer = self.edge.service.clone().answer(request, origin);
        let Ok(answer) = tokio::time::timeout(ANSWER_TIME, answer).await else {
            return Err(TestCaseError::fail("no answer in time"));
        };
        let (parts, body) = answer.into_parts();
        let header = |name: &str| {
            parts.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
        };
        let (status, applied) = (parts.status.as_u16(), header("x-kvdb-applied"));
        // A watch is a stream that does not end.
        let stream = header("content-type").is_some_and(|media| media == "text/event-stream");
        let body = if stream && !script { Ok(Ok(Bytes::new())) } else { whole(body).await };
        let Ok(Ok(body)) = body else {
            return Err(TestCaseError::fail(format!("{status}, and its body: {body:?}")));
        };
        judge(status, script, &String::from_utf8_lossy(&body))?;
        let mutates = ["PUT", "POST", "PATCH", "DELETE"].contains(&method.as_str());
        prop_assert!(!mutates || applied.is_some(), "{status} without X-Kvdb-Applied");
        prop_assert!(
            applied.as_deref() != Some("unknown"),
            "nothing went wrong that could hide it"
        );
        if applied.as_deref() != Some("yes") {
            prop_assert_eq!(before, self.buckets(), "{} {}: {:?}", method, status, applied);
        }
        prop_assert_eq!(PANICS.load(Ordering::Relaxed), 0, "something panicked");
        prop_assert!(self.edge.node.is_ready());
        Ok(())
    }
}

async fn whole(body: Body) -> Result<Result<Bytes, axum::Error>, tokio::time::error::Elapsed> {
    tokio::time::timeout(ANSWER_TIME, to_bytes(body, 64 << 20)).await
}

/// No bad request is a fault of ours, but for scripts, which may fail as they like.
fn judge(status: u16, script: bool, body: &str) -> TestCaseResult {
    let ours = OUR_FAULTS.iter().any(|fault| body.contains(fault));
    let fine = match status {
        500.. => script && !ours && status == 500,
        _ => true,
    };
    prop_assert!(fine, "{status} {body}");
    Ok(())
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn no_request_harms() {
    let runtime = runtime();
    let prey = runtime.block_on(Prey::start());
    let asks = vec(ask::ask(), 1..12);
    let prey = tokio::sync::Mutex::new(prey);
    fuzz(40, asks, |asks| {
        runtime.block_on(async {
            let mut prey = prey.lock().await;
            prey.freshen().await;
            for ask in &asks {
                prey.send(ask).await?;
            }
            Ok(())
        })
    });
}
