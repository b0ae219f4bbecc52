//! When a node stands: the two looks by themselves, and three members in one process, each with a runtime that can
//! end or stall as a process does.

use std::collections::BTreeMap;
use std::net::TcpListener as StdListener;
use std::sync::mpsc;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::*;
use crate::raft::{Cluster, LogStore, Peer, PeerIdentity, StateMachine, Timing};
use crate::storage::{DataDir, Pace, State, Tuning};

/// By the election timeout alone, nobody would lead before this, and up to twice as long.
const ELECTION: Duration = Duration::from_secs(10);
/// Far less than that, and enough on a busy machine.
const SOON: Duration = Duration::from_secs(5);
/// In which all rounds of standing are over.
const ROUNDS_OVER: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn only_a_refusal_says_that_nobody_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    // Not accepted, as by a process that is stopped: it is there all the same.
    assert!(!refuses(&addr).await);
    drop(listener);
    assert!(refuses(&addr).await);
    assert!(!refuses("no such host").await);
}

#[tokio::test]
async fn who_listens_again_is_not_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    assert!(!is_gone(&addr).await);
    drop(listener);
    assert!(is_gone(&addr).await);
}

/// A member with everything but the edge, in a runtime of its own.
struct Member {
    runtime: Runtime,
    cluster: Cluster,
    log: LogStore,
    _data: DataDir,
}

impl Member {
    fn start(dir: &TempDir, id: NodeId, listen: &str, heartbeat_ms: u64) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let data = DataDir::open(&dir.path().join(id.to_string())).unwrap();
        let state = Arc::new(State::open(&data, Tuning::default()).unwrap());
        let log = LogStore::open(&data.log()).unwrap();
        let identity = PeerIdentity::new(id, id.to_string(), Some("c".into()), "secret");
        let election_ms = ELECTION.as_millis() as u64;
        let timing = Timing {
            heartbeat_ms,
            election_ms,
            snapshot_entries: 1_000,
            log_bytes: 0,
            keep_entries: 1_000,
            snapshot_pace: Pace::default(),
        };
        let cluster = runtime.block_on(async {
            let state_machine = StateMachine::new(state).unwrap();
            let started = Cluster::start(&timing, Arc::new(identity), log.clone(), state_machine);
            let cluster = started.await.unwrap();
            let listener = TcpListener::bind(listen).await.unwrap();
            tokio::spawn(axum::serve(listener, cluster.routes(data.incoming())).into_future());
            cluster
        });
        Member { runtime, cluster, log, _data: data }
    }

    fn stop(self) {
        self.runtime.block_on(self.cluster.shutdown()).unwrap();
        self.log.close().unwrap();
        drop(self.cluster);
        self.runtime.shutdown_timeout(SOON);
    }

    /// Its tasks are gone without a word, and what they had open is closed.
    fn kill(self) {
        drop(self.cluster);
        self.runtime.shutdown_background();
    }

    /// Its tasks do nothing until the sender is dropped.
    fn stall(&self) -> mpsc::Sender<()> {
        let (resume, stalled) = mpsc::channel();
        let (began, begins) = mpsc::channel();
        self.runtime.spawn(async move {
            began.send(()).unwrap();
            let _ = stalled.recv();
        });
        begins.recv().unwrap();
        resume
    }

    /// Whom it follows, in which term.
    fn leader(&self) -> Option<(NodeId, u64)> {
        let standing = self.cluster.standing();
        standing.leader.map(|leader| (leader, standing.term))
    }

    /// As where the connection breaks that a leader sends its entries on.
    fn lose_stream(&self, leader: NodeId) {
        drop(self.cluster.vacancy().stream(leader));
    }

    fn read_index(&self) -> crate::error::Result<(u64, u64)> {
        self.runtime.block_on(self.cluster.read_index())
    }
}

/// Addresses nobody listens on, below the ports that outgoing connections are given.
fn free_addresses(count: usize) -> Vec<String> {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let mut free = Vec::new();
    while free.len() < count {
        let step = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = 11_000 + (std::process::id().wrapping_mul(101) + step) % 20_000;
        let address = format!("127.0.0.1:{port}");
        if StdListener::bind(&address).is_ok() {
            free.push(address);
        }
    }
    free
}

fn start(dir: &TempDir, listen: &[String], heartbeat_ms: u64) -> BTreeMap<NodeId, Member> {
    (1..).zip(listen).map(|(id, at)| (id, Member::start(dir, id, at, heartbeat_ms))).collect()
}

/// Members that follow the first, which are reached at these addresses.
fn found(members: &BTreeMap<NodeId, Member>, reached_at: &[String]) {
    let peer = |id: NodeId, peer_addr: &String| {
        let (url, instance) = (String::new(), id.to_string());
        (id, Peer { peer_addr: peer_addr.clone(), url, instance })
    };
    let voters = (1..).zip(reached_at).map(|(id, address)| peer(id, address)).collect();
    members[&1].runtime.block_on(members[&1].cluster.found(voters)).unwrap();
    agree(members);
}

/// Waits until all follow the same leader, which has committed something in its term: who, and in which.
fn agree(members: &BTreeMap<NodeId, Member>) -> (NodeId, u64) {
    until("all follow one leader", || {
        let leaders: Vec<_> = members.values().map(Member::leader).collect();
        let (leader, term) = leaders[0]?;
        let agree = leaders.iter().all(|other| *other == leaders[0]);
        let leads = agree && members[&leader].read_index().is_ok_and(|(_, read)| read == term);
        leads.then_some((leader, term))
    })
}

fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = holds() {
            return found;
        }
        assert!(begun.elapsed() < 3 * ELECTION, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Where the stream ended before its last answer was given, that answer counted as the leader heard again.
#[test]
fn a_leader_whose_process_is_gone_is_not_waited_for() {
    let (dir, addresses) = (tempfile::tempdir().unwrap(), free_addresses(3));
    let mut members = start(&dir, &addresses, 100);
    found(&members, &addresses);
    let (old, term) = agree(&members);
    let begun = Instant::now();
    members.remove(&old).unwrap().kill();
    let (leader, new) = until("another leads", || {
        members.values().find_map(Member::leader).filter(|(leader, _)| *leader != old)
    });
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(leader != old && new > term);
    members.into_values().for_each(Member::stop);
}

#[test]
fn after_a_start_of_all_one_leads_soon() {
    let (dir, addresses) = (tempfile::tempdir().unwrap(), free_addresses(3));
    let members = start(&dir, &addresses, 100);
    found(&members, &addresses);
    let (_, term) = agree(&members);
    members.into_values().for_each(Member::stop);
    let members = start(&dir, &addresses, 100);
    let begun = Instant::now();
    let (_, new) = agree(&members);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(new > term, "a restart leads in a term of its own");
    members.into_values().for_each(Member::stop);
}

#[test]
fn a_leader_that_stalls_is_waited_for() {
    let (dir, addresses) = (tempfile::tempdir().unwrap(), free_addresses(3));
    let members = start(&dir, &addresses, 100);
    found(&members, &addresses);
    let (leader, term) = agree(&members);
    let resume = members[&leader].stall();
    let followers = || members.iter().filter(|(id, _)| **id != leader).map(|(_, member)| member);
    followers().for_each(|follower| follower.lose_stream(leader));
    let begun = Instant::now();
    while begun.elapsed() < ROUNDS_OVER {
        assert!(followers().all(|follower| follower.leader() == Some((leader, term))));
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(resume);
    assert_eq!(agree(&members), (leader, term), "it goes on");
    members.into_values().for_each(Member::stop);
}
