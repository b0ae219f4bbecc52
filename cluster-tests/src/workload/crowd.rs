//! All clients of a run at work at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{Client, Place};
use super::{NAMES, Seat, work};
use crate::history::{Micros, Operation};

/// The longest pause between two calls, in average pauses.
const PAUSES_MAX: f64 = 5.0;

/// A node: its id and client URL.
pub type Node = (u64, String);

/// What clients are to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The workloads, each with clients of its own.
    pub workloads: Vec<String>,
    /// Clients of each workload.
    pub clients: usize,
    /// Operations per second, of all clients together.
    pub rate: f64,
    /// What the clients draw from.
    pub seed: u64,
    /// Most operations, of all clients together.
    pub ops_max: usize,
}

impl Plan {
    /// Whether it can be done.
    pub fn check(&self) -> Result<(), String> {
        if let Some(name) = self.workloads.iter().find(|name| !NAMES.contains(&name.as_str())) {
            return Err(format!("no workload `{name}`: choose from {}", NAMES.join(", ")));
        }
        if self.workloads.is_empty() || self.clients == 0 {
            return Err("a plan has at least one workload and one client".to_owned());
        }
        if !(self.rate.is_finite() && self.rate > 0.0) {
            return Err(format!("{} operations per second cannot be done", self.rate));
        }
        Ok(())
    }
}

/// Clients at work. Dropping it ends them, and what they recorded is lost.
pub struct Crowd {
    shared: Arc<Shared>,
    nodes: watch::Sender<Vec<Node>>,
    stop: watch::Sender<bool>,
    clients: JoinSet<Vec<Operation>>,
}

/// What all clients see.
pub(super) struct Shared {
    /// What times are counted from.
    start: Instant,
    /// A client's pause on average, in seconds.
    pause: f64,
    nodes: watch::Receiver<Vec<Node>>,
    stop: watch::Receiver<bool>,
    ops_max: usize,
    begun: AtomicUsize,
    done: AtomicU64,
}

impl Shared {
    /// The time of the run.
    pub(super) fn now(&self) -> Micros {
        Micros::try_from(self.start.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }

    /// The nodes that may be asked now.
    pub(super) fn nodes(&self) -> Vec<Node> {
        self.nodes.borrow().clone()
    }

    /// Whether all are to stop.
    pub(super) fn is_over(&self) -> bool {
        *self.stop.borrow()
    }

    /// Whether one more operation may be begun.
    pub(super) fn takes_one(&self) -> bool {
        !self.is_over() && self.begun.fetch_add(1, Ordering::Relaxed) < self.ops_max
    }

    /// An operation was answered.
    pub(super) fn count_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// How long a client pauses before its next call: any time, this long on average.
    pub(super) fn draw_pause(&self, luck: &mut Rng) -> Duration {
        let pauses = -(1.0 - luck.f64()).ln();
        Duration::from_secs_f64(pauses.min(PAUSES_MAX) * self.pause)
    }

    /// Waits until then, or until all are to stop.
    pub(super) async fn rest(&self, until: Instant) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

impl Crowd {
    /// Sets clients to work on these nodes. Times are counted from `start`.
    ///
    /// # Panics
    /// When the plan cannot be done: see [`Plan::check`].
    #[must_use]
    pub fn start(plan: &Plan, nodes: Vec<Node>, start: Instant) -> Self {
        plan.check().unwrap_or_else(|reason| panic!("{reason}"));
        let seats = plan.workloads.len() * plan.clients;
        let (nodes, nodes_seen) = watch::channel(nodes);
        let (stop, stop_seen) = watch::channel(false);
        let shared = Arc::new(Shared {
            start,
            pause: seats as f64 / plan.rate,
            nodes: nodes_seen,
            stop: stop_seen,
            ops_max: plan.ops_max,
            begun: AtomicUsize::new(0),
            done: AtomicU64::new(0),
        });
        let mut clients = JoinSet::new();
        let each = plan.workloads.iter().flat_map(|name| (0..plan.clients).map(move |i| (name, i)));
        for (number, (workload, index)) in each.enumerate() {
            let place = Place { number: number as u64, of: seats as u64 };
            let seed = plan.seed ^ (place.number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let rng = Rng::with_seed(seed);
            let seat = Seat { index: index as u64, count: plan.clients as u64, rng };
            let work = work(workload, seat).expect("the plan was checked");
            let luck = Rng::with_seed(seed.rotate_left(32));
            let client = Client::new(Arc::clone(&shared), place, workload, work, luck);
            clients.spawn(client.live());
        }
        Crowd { shared, nodes, stop, clients }
    }

    /// Replaces the nodes that clients may go to; those of a node that is not among them leave it.
    pub fn set_nodes(&self, nodes: Vec<Node>) {
        self.nodes.send_replace(nodes);
    }

    /// How many operations were answered so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Begins no more operations, waits for those under way, each of which has a limit, and returns
    /// all, in the order in which they began.
    ///
    /// # Panics
    /// When a client did.
    pub async fn stop(self) -> Vec<Operation> {
        self.stop.send_replace(true);
        self.finish().await
    }

    /// Waits until as many operations as the plan has are answered, and returns all.
    ///
    /// # Panics
    /// When a client did.
    pub async fn finish(mut self) -> Vec<Operation> {
        let mut operations = Vec::new();
        while let Some(record) = self.clients.join_next().await {
            operations.extend(record.expect("a client does not panic"));
        }
        operations.sort_by_key(|operation| (operation.began, operation.id));
        operations
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Mutex;

    use super::super::fake::{Fake, answer};
    use super::*;
    use crate::history::{Action, Outcome};
    use crate::wait::{self, holds};

    fn plan(ops_max: usize) -> Plan {
        Plan { workloads: vec!["set".into()], clients: 2, rate: 2000.0, seed: 7, ops_max }
    }

    fn put_or_get(request: &str) -> String {
        match request.starts_with("PUT") {
            true => answer(200, &[("x-kvdb-applied", "yes"), ("x-kvdb-revision", "3")], ""),
            false => answer(200, &[("etag", "\"2\""), ("x-kvdb-revision", "3")], "v"),
        }
    }

    fn actions(operations: &[Operation]) -> Vec<(u64, Action)> {
        let mut all: Vec<_> = operations.iter().map(|o| (o.id, o.action.clone())).collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }

    #[tokio::test]
    async fn all_is_recorded_and_the_seed_decides() {
        let fake = Fake::start(put_or_get).await;
        let run = async || {
            let crowd = Crowd::start(&plan(60), vec![(4, fake.url.clone())], Instant::now());
            crowd.finish().await
        };
        let (first, second) = (run().await, run().await);
        assert_eq!(first.len(), 60);
        let ids: BTreeSet<u64> = first.iter().map(|operation| operation.id).collect();
        assert_eq!(ids.len(), 60, "ids are unique");
        for operation in &first {
            assert!(matches!(operation.outcome, Outcome::Done { revision: Some(3), .. }));
            assert!(operation.began < operation.ended, "{operation:?}");
            assert_eq!((operation.node, operation.workload.as_str()), (4, "set"));
        }
        assert!(first.is_sorted_by_key(|operation| operation.began));
        // Which client is how far is a matter of time; what it asks is not.
        let common = |operations: &[Operation]| -> Vec<_> {
            actions(operations).into_iter().filter(|(id, _)| *id <= 20).collect()
        };
        assert_eq!(common(&first), common(&second));
    }

    #[tokio::test]
    async fn a_client_that_does_not_know_is_not_used_again() {
        let unknown = |_: &str| answer(503, &[("x-kvdb-applied", "unknown")], "");
        let fake = Fake::start(unknown).await;
        let crowd = Crowd::start(&plan(20), vec![(1, fake.url.clone())], Instant::now());
        let operations = crowd.finish().await;
        assert!(operations.iter().all(|o| matches!(o.outcome, Outcome::Unknown { .. })));
        let clients: BTreeSet<u64> = operations.iter().map(|o| o.client).collect();
        assert_eq!(clients.len(), 20, "a client each");
        assert_eq!(fake.connections(), 20, "a connection each");
    }

    /// The outcomes of a few operations, where every request is answered so.
    async fn outcomes(url: String) -> Vec<Outcome> {
        let crowd = Crowd::start(&plan(6), vec![(1, url)], Instant::now());
        let operations = crowd.finish().await;
        assert_eq!(operations.len(), 6);
        operations.into_iter().map(|operation| operation.outcome).collect()
    }

    #[tokio::test]
    async fn what_was_sent_and_not_answered_is_unknown() {
        let fake = Fake::start(|_| String::new()).await;
        let outcomes = outcomes(fake.url.clone()).await;
        assert!(outcomes.iter().all(|o| matches!(o, Outcome::Unknown { .. })), "{outcomes:?}");
        assert_eq!(fake.requests(), 6, "nothing is sent twice");
    }

    #[tokio::test]
    async fn what_was_never_sent_is_refused() {
        let nobody = format!("http://127.0.0.1:{}", crate::launch::free_port());
        let outcomes = outcomes(nobody.clone()).await;
        assert!(outcomes.iter().all(|o| matches!(o, Outcome::Refused { .. })), "{outcomes:?}");
        // A redirect is taken before anything is done.
        let to_nobody = format!("{nobody}/x");
        let fake = Fake::start(move |_| answer(307, &[("location", &to_nobody)], "")).await;
        let outcomes = self::outcomes(fake.url.clone()).await;
        assert!(outcomes.iter().all(|o| matches!(o, Outcome::Refused { .. })), "{outcomes:?}");
    }

    #[tokio::test]
    async fn redirects_are_followed() {
        let leader = Fake::start(put_or_get).await;
        let url = leader.url.clone();
        let follower = Fake::start(move |request| {
            let path = request.split(' ').nth(1).unwrap_or_default();
            answer(307, &[("location", &format!("{url}{path}"))], "")
        })
        .await;
        let outcomes = outcomes(follower.url.clone()).await;
        assert!(outcomes.iter().all(|o| matches!(o, Outcome::Done { .. })), "{outcomes:?}");
        assert_eq!((follower.requests(), leader.requests()), (6, 6));
    }

    /// Attempts so far of each `Idempotency-Key`.
    type Attempts = Arc<Mutex<BTreeMap<String, u32>>>;

    /// Lets a client ask twice in vain: the first time nobody knows, the second time for sure.
    fn third_time(attempts: Attempts) -> impl Fn(&str) -> String + Send + Sync {
        move |request| {
            let key = request.lines().find_map(|line| line.strip_prefix("idempotency-key: "));
            let Some(key) = key else { return answer(200, &[("etag", "\"2\"")], "7") };
            let mut attempts = attempts.lock().unwrap();
            let attempt = attempts.entry(key.to_owned()).or_default();
            *attempt += 1;
            let told = [("x-kvdb-applied", "yes"), ("x-kvdb-revision", "3")];
            let again = [("idempotency-replayed", "true"), ("x-kvdb-applied", "yes")];
            match *attempt {
                1 => String::new(),
                2 => answer(503, &[("x-kvdb-applied", "no")], ""),
                3 => answer(200, &told, "7"),
                _ => answer(200, &again, "7"),
            }
        }
    }

    #[tokio::test]
    async fn what_has_a_key_is_asked_until_it_is_told() {
        let attempts = Attempts::default();
        let fake = Fake::start(third_time(Arc::clone(&attempts))).await;
        let plan = Plan { workloads: vec!["idempotent".into()], ..plan(40) };
        let crowd = Crowd::start(&plan, vec![(1, fake.url.clone())], Instant::now());
        let operations = crowd.finish().await;
        let done = |o: &Operation| matches!(o.outcome, Outcome::Done { .. });
        assert!(operations.iter().all(done), "{operations:#?}");
        let adds = operations.iter().filter(|o| matches!(o.action, Action::Add { .. }));
        let attempts = attempts.lock().unwrap();
        assert_eq!(adds.clone().count(), attempts.len(), "one key for each");
        for add in adds {
            let attempts = attempts.get(&format!("op-{}", add.id)).unwrap();
            assert!(*attempts >= 3, "{add:?}: {attempts}");
        }
        let again = operations.iter().filter(|o| matches!(o.action, Action::Repeat { .. }));
        assert_eq!(attempts.values().sum::<u32>() as usize, 3 * attempts.len() + again.count());
    }

    #[tokio::test]
    async fn clients_leave_nodes_that_are_gone() {
        let (old, new) = (Fake::start(put_or_get).await, Fake::start(put_or_get).await);
        let crowd = Crowd::start(&plan(usize::MAX), vec![(1, old.url.clone())], Instant::now());
        let limit = Duration::from_secs(10);
        wait::until("calls", limit, async || holds(crowd.done() > 10, String::new)).await;
        crowd.set_nodes(vec![(2, new.url.clone())]);
        let swapped = crowd.shared.now();
        wait::until("more calls", limit, async || holds(new.requests() > 10, String::new)).await;
        let operations = crowd.stop().await;
        let late = operations.iter().filter(|o| o.began > swapped && o.node == 1);
        // A call of each client may have been on its way.
        assert!(late.count() <= 2);
    }

    #[test]
    fn plans_that_cannot_be_done() {
        assert_eq!(plan(1).check(), Ok(()));
        assert!(Plan { workloads: vec!["nonsense".into()], ..plan(1) }.check().is_err());
        assert!(Plan { workloads: Vec::new(), ..plan(1) }.check().is_err());
        assert!(Plan { clients: 0, ..plan(1) }.check().is_err());
        assert!(Plan { rate: 0.0, ..plan(1) }.check().is_err());
        assert!(Plan { rate: f64::NAN, ..plan(1) }.check().is_err());
    }
}
