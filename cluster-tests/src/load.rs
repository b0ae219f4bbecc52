//! Many clients at once, and an account of every call: acknowledged, refused or unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::http::Outcome;
use crate::wire::Wire;

/// Refusals of one client before its load is taken for one that cannot succeed.
const REFUSALS_MAX: u64 = 2000;
/// How long a client pauses before it goes to another node, so that it does not spin on a dead one.
const PAUSE: Duration = Duration::from_millis(10);
/// Reasons that the account keeps, for the failure message.
const REASONS_MAX: usize = 10;

/// One request, made from a number that no other request of the load has.
pub struct Request {
    /// The HTTP method.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// The body.
    pub body: String,
}

/// What became of the calls.
#[derive(Debug, Default)]
pub struct Account {
    /// Numbers of the acknowledged requests, each with the answer's body.
    pub acked: Vec<(u64, String)>,
    /// Numbers of the requests whose outcome is unknown.
    pub unknown: Vec<u64>,
    /// Requests that were refused: nothing of them was written.
    pub refused: u64,
    /// A few of the reasons for what was not acknowledged.
    pub reasons: Vec<String>,
    /// From the first call to the last answer.
    pub elapsed: Duration,
}

impl Account {
    fn absorb(&mut self, other: Account) {
        self.acked.extend(other.acked);
        self.unknown.extend(other.unknown);
        self.refused += other.refused;
        self.reasons.extend(other.reasons);
        self.reasons.truncate(REASONS_MAX);
    }

    fn note(&mut self, reason: String) {
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(reason);
        }
    }

    /// Acknowledged calls per second.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        self.acked.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The answers' bodies as numbers, in order.
    ///
    /// # Panics
    /// When one is none.
    #[must_use]
    pub fn values(&self) -> Vec<u64> {
        let parse = |body: &str| {
            let value = body.trim().parse();
            value.unwrap_or_else(|_| panic!("an answer that is no number: {body:?}"))
        };
        let mut values: Vec<u64> = self.acked.iter().map(|(_, body)| parse(body)).collect();
        values.sort_unstable();
        values
    }
}

struct Shared {
    urls: Vec<String>,
    make: Box<dyn Fn(u64) -> Request + Send + Sync>,
    /// Calls that may still be begun; a refused one is given back.
    budget: AtomicI64,
    serial: AtomicU64,
    acked: AtomicU64,
    stopped: AtomicBool,
}

/// A load that runs until it is stopped, or until as many calls as were asked for are acknowledged.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<Account>,
    started: Instant,
}

impl Load {
    /// Starts clients, spread over the nodes. Each has one call in flight and goes to the next node when
    /// its own does not serve.
    #[must_use]
    pub fn start(
        urls: Vec<String>,
        clients: usize,
        calls: i64,
        make: impl Fn(u64) -> Request + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            urls,
            make: Box::new(make),
            budget: AtomicI64::new(calls),
            serial: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            tasks.spawn(Arc::clone(&shared).client(client));
        }
        Load { shared, clients: tasks, started: Instant::now() }
    }

    /// Calls acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Waits until as many more calls are acknowledged.
    ///
    /// # Panics
    /// When that takes longer than the limit.
    pub async fn more_acked(&self, calls: u64, limit: Duration) {
        let goal = self.acked() + calls;
        crate::wait::until(&format!("{calls} more acknowledged calls"), limit, async || {
            let acked = self.acked();
            crate::wait::holds(acked >= goal, || format!("{acked} of {goal}"))
        })
        .await;
    }

    /// Begins no more calls, and waits for the answers to those begun.
    pub async fn stop(self) -> Account {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.finish().await
    }

    /// Waits until all calls are done.
    ///
    /// # Panics
    /// When a client did.
    pub async fn finish(mut self) -> Account {
        let mut account = Account::default();
        while let Some(done) = self.clients.join_next().await {
            account.absorb(done.expect("a client does not panic"));
        }
        account.elapsed = self.started.elapsed();
        account.acked.sort_unstable();
        account
    }
}

impl Shared {
    /// Takes one call from the budget, if there is one.
    fn takes_one(&self) -> bool {
        if self.stopped.load(Ordering::Relaxed) {
            return false;
        }
        let taken = self.budget.fetch_sub(1, Ordering::Relaxed) > 0;
        if !taken {
            self.budget.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    async fn client(self: Arc<Self>, client: usize) -> Account {
        let (mut wire, mut account) = (Wire::default(), Account::default());
        let mut urls = self.urls.iter().cycle().skip(client % self.urls.len());
        let mut url = urls.next().expect("a load has nodes");
        while self.takes_one() {
            let serial = self.serial.fetch_add(1, Ordering::Relaxed);
            let Request { method, path, body } = (self.make)(serial);
            match Outcome::of(wire.call(method, url, &path, &body).await) {
                Outcome::Done(reply) => {
                    self.acked.fetch_add(1, Ordering::Relaxed);
                    account.acked.push((serial, reply.text()));
                    continue;
                }
                Outcome::Refused(reason) => {
                    // What is refused for ever would be sent for ever.
                    assert!(account.refused < REFUSALS_MAX, "refused again and again: {reason}");
                    self.budget.fetch_add(1, Ordering::Relaxed);
                    account.refused += 1;
                    account.note(reason);
                }
                Outcome::Unknown(reason) => {
                    account.unknown.push(serial);
                    account.note(reason);
                }
            }
            url = urls.next().expect("a cycle does not end");
            tokio::time::sleep(PAUSE).await;
        }
        account
    }
}
