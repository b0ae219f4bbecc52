//! Starting and stopping a node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::serve::ListenerExt;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::batched::Batched;
use super::clock::{self, Clock, Skew, is_skewed};
use super::link::{Hello, Links, READ_INDEX};
use super::nature::{System, random_name};
use super::ticket::Tickets;
use super::{Inner, Node, join, peer};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::executor::{self, Executor, Nature, Readers, Settings, Stats};
use crate::raft::{
    Cluster, Leadership, LogStore, MemberInfo, PeerIdentity, Proposer, StateMachine, Timing,
    applied_index,
};
use crate::script;
use crate::storage::{DAMAGED, DataDir, Identity, Pace, State, Tuning};

/// Long scripts that may run at a time.
const SLOW_MAX: usize = 8;
/// When a script counts as long.
const SLOW_AFTER: Duration = Duration::from_millis(5);
/// How long one voter may take to take over.
const HANDOVER: Duration = Duration::from_secs(3);
/// Between two tries of something that an election settles.
const RETRY: Duration = Duration::from_millis(50);
/// How long a new leader that knows no majority's clocks waits for them.
const COMPARED: Duration = Duration::from_secs(1);
/// Election timeouts after which a leader that no quorum answers takes no more calls.
const QUORUM_AGE_MAX: u64 = 3;
/// Readers of the history at a time: each keeps a thread and the disk busy, and now and then the log.
const HISTORY_TURNS: usize = 4;
/// Between two looks at whether Raft still runs.
const WATCH: Duration = Duration::from_millis(500);
/// Between two times that a node asks whether it is a member.
const MEMBERSHIP_WATCH: Duration = Duration::from_secs(2);

impl Node {
    /// Opens the data directory and starts everything but the edge. The node enters its cluster in the
    /// background; [`Node::is_ready`] tells when it has caught up.
    pub async fn start(config: &Config) -> Result<Self> {
        Self::start_with(config, Clock::default()).await
    }

    pub(super) async fn start_with(config: &Config, clock: Clock) -> Result<Self> {
        let data = DataDir::open(config.data())?;
        let stored = stored_identity(&data, config.node_id)?;
        let state = Arc::new(State::open(&data, tuning(config))?);
        let log = LogStore::open(&data.log())?;
        refuse_amnesia(&state, &log)?;
        refuse_old_identity(&stored, &log)?;
        let identity = Arc::new(peer_identity(&stored, config));
        let state_machine = StateMachine::new(Arc::clone(&state))?;
        let cluster =
            Cluster::start(&timing(config), Arc::clone(&identity), log.clone(), state_machine)
                .await?;
        let (ready, ready_term) = watch::channel(None);
        let quorum_age_max = Duration::from_millis(config.election_ms * QUORUM_AGE_MAX);
        let (clock, skew) = (Arc::new(clock), watch::Sender::new(None));
        tokio::spawn(keep_ready_term(cluster.clone(), quorum_age_max, skew.subscribe(), ready));
        let nature: Arc<dyn Nature> = Arc::new(System::new(Arc::clone(&clock)));
        let slow = Duration::from_millis(config.script_slow_ms);
        let stats = Arc::new(Stats::new(slow));
        let executor = Executor::start(
            settings(config),
            Arc::clone(&state),
            Proposer::new(cluster.raft().clone()),
            cluster.clone(),
            ready_term.clone(),
            Arc::clone(&nature),
            Arc::clone(&stats),
        )?;
        let Settings { threads, limits, .. } = settings(config);
        let readers = Readers::start(threads, limits, Arc::clone(&stats))?;
        let routes = cluster.routes(data.incoming());
        let node = Node(Arc::new(Inner {
            data,
            log,
            history_turns: Arc::new(Semaphore::new(HISTORY_TURNS)),
            stored_identity: Mutex::new(stored),
            links: Links::new(Arc::clone(&identity))?,
            read_indexes: Batched::default(),
            identity,
            state,
            cluster,
            executor,
            readers,
            stats,
            nature,
            ready_term,
            tickets: Tickets::default(),
            clock,
            skew,
            clock_skew_max_ms: i64::try_from(config.clock_skew_max_ms).unwrap_or(i64::MAX),
            admin_key: config.admin_key.as_ref().map(|key| key.expose().to_owned()),
            peer_addr: config.peer_advertise().to_owned(),
            url: config.advertise(),
            forward_target: OnceLock::new(),
            caught_up: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            shutting_down: watch::Sender::new(false),
            handover: Mutex::new(None),
            failure: watch::Sender::new(None),
        }));
        node.listen_to_peers(&config.peer_listen, routes).await?;
        tokio::spawn(node.clone().watch_raft());
        tokio::spawn(node.clone().watch_membership());
        tokio::spawn(node.clone().sweep());
        tokio::spawn(node.clone().reclaim());
        tokio::spawn(clock::keep_comparing(node.clone()));
        tokio::spawn(node.clone().enter(config.join().to_vec()));
        Ok(node)
    }

    async fn listen_to_peers(&self, address: &str, raft_routes: axum::Router) -> Result<()> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|e| Error::Io(format!("cannot listen on --peer-listen {address}: {e}")))?;
        // Appends are small and wait for their answers: Nagle would add 40 ms.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
            // A peer that is cut off says no goodbye, and what it began would stay open for ever.
            let _ = SockRef::from(&*stream).set_tcp_keepalive(&keep_alive());
        });
        let routes = raft_routes.merge(peer::routes(self.clone()));
        tokio::spawn(axum::serve(listener, routes).into_future());
        Ok(())
    }

    /// Enters a cluster, then waits until this node has applied what the leader has.
    async fn enter(self, addresses: Vec<String>) {
        if let Err(error) = join::enter_cluster(&self, &addresses).await {
            return self.fail(&error.to_string());
        }
        while self.linearizable_view().await.is_err() {
            tokio::time::sleep(RETRY).await;
        }
        self.0.caught_up.store(true, Ordering::Relaxed);
        tracing::info!(node = self.0.identity.node_id, url = self.0.url, "ready");
    }

    /// Notices when Raft has stopped for good, as it does on a disk error.
    async fn watch_raft(self) {
        while !*self.0.shutting_down.borrow() {
            if let Some(reason) = self.0.cluster.failure() {
                return self.fail(&format!("raft stopped: {reason}"));
            }
            tokio::time::sleep(WATCH).await;
        }
    }

    /// Notices when this node is removed. It asks everybody it knows: who led when it was removed may
    /// lead no more, and only who leads now answers.
    async fn watch_membership(self) {
        while !*self.0.shutting_down.borrow() {
            tokio::time::sleep(MEMBERSHIP_WATCH).await;
            if self.0.cluster.leadership().borrow().own_term.is_some() {
                continue;
            }
            for member in self.0.cluster.members() {
                if member.id != self.0.identity.node_id {
                    let asked = self.0.links.ask_member(&member, READ_INDEX, &()).await;
                    // What it says is kept where it is heeded; no answer says nothing.
                    let _ = self.heed_removal(asked);
                }
            }
        }
    }

    fn fail(&self, reason: &str) {
        if !*self.0.shutting_down.borrow() {
            tracing::error!(reason, "this node cannot go on");
            self.0.failure.send_replace(Some(reason.to_owned()));
        }
    }

    /// Looks at an error that a call met: damage of the disk ends this node, since other nodes have what it
    /// has lost, and a damaged leader would fail the same calls for ever. No other corruption does: a
    /// row that nobody can decode is on every node, and bytes of a peer are not this node's.
    pub fn heed(&self, error: &Error) {
        match error {
            Error::Corrupt { what: DAMAGED, .. } => self.fail(&error.to_string()),
            Error::Corrupt { .. } | Error::Io(_) | Error::Internal(_) => {
                tracing::error!(%error, "a call failed");
            }
            _ => {}
        }
    }

    /// Waits until this node cannot go on, and says why. The process should exit with an error.
    pub async fn failed(&self) -> String {
        let mut failure = self.0.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Turns readiness off and hands leadership to another voter in the background, so that clients
    /// hardly notice. Requests are served on. Doing it twice does no more.
    pub fn begin_shutdown(&self) {
        if !self.0.shutting_down.send_replace(true) {
            let handover = tokio::spawn(self.clone().hand_over());
            *self.0.handover.lock().unwrap_or_else(PoisonError::into_inner) = Some(handover);
        }
    }

    async fn hand_over(self) {
        let own = self.0.identity.node_id;
        for member in self.0.cluster.members() {
            if self.0.cluster.leadership().borrow().own_term.is_none() {
                return;
            }
            if member.id == own || !member.voter || !self.answers(&member).await {
                continue;
            }
            let moved = self.0.cluster.transfer_leader(member.id);
            if matches!(tokio::time::timeout(HANDOVER, moved).await, Ok(Ok(()))) {
                tracing::info!(to = member.id, "handed over leadership");
            }
        }
    }

    /// Whether a member is there: one that is not would be waited for in vain.
    async fn answers(&self, member: &MemberInfo) -> bool {
        self.links().ask_member::<_, Hello>(member, "/peer/hello", &()).await.is_ok()
    }

    /// Waits until leadership is handed over, stops the executor and Raft, and writes the state out so
    /// that the next start is quick. To be called once no request is under way.
    pub async fn shutdown(&self) -> Result<()> {
        self.begin_shutdown();
        let handover = self.0.handover.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handover) = handover {
            // It panicked if it did not end well; shutting down goes on either way.
            let _ = handover.await;
        }
        self.0.executor.stop();
        self.0.readers.stop();
        self.0.cluster.shutdown().await?;
        // openraft's tasks may hold handles on the log a little longer.
        self.0.log.close()?;
        let state = Arc::clone(&self.0.state);
        tokio::task::spawn_blocking(move || state.flush())
            .await
            .map_err(|e| Error::Internal(format!("flushing the state: {e}")))?
    }
}

/// After this, a peer that does not answer is gone.
fn keep_alive() -> TcpKeepalive {
    let second = Duration::from_secs(1);
    TcpKeepalive::new().with_time(5 * second).with_interval(2 * second).with_retries(3)
}

/// The directory's identity; makes one where the directory is new.
fn stored_identity(data: &DataDir, node_id: u64) -> Result<Identity> {
    match data.identity()? {
        Some(identity) if identity.node_id == node_id => Ok(identity),
        Some(identity) => Err(Error::Conflict(format!(
            "the data directory belongs to node {}, and --node-id says {node_id}",
            identity.node_id
        ))),
        None => {
            let (instance, cluster_id) = (random_name(), None);
            let identity = Identity { node_id, instance, cluster_id, founding: false };
            data.set_identity(&identity)?;
            Ok(identity)
        }
    }
}

/// A log is written only by a member of a cluster: an identity that names none is an older one.
pub(super) fn refuse_old_identity(identity: &Identity, log: &LogStore) -> Result<()> {
    if identity.cluster_id.is_none() && !identity.founding && !log.is_empty()? {
        let detail = "it names no cluster, and the log is that of a member: an old copy?";
        return Err(Error::corrupt("IDENTITY", detail));
    }
    Ok(())
}

/// A state without a log has lost it, and the node's votes with it: they come before all that is applied.
pub(super) fn refuse_amnesia(state: &State, log: &LogStore) -> Result<()> {
    let applied = applied_index(&*state.view())?;
    if applied > 0 && log.is_empty()? {
        let detail = format!("it is empty, and the state is that after entry {applied}");
        return Err(Error::corrupt("raft log", detail));
    }
    Ok(())
}

fn peer_identity(stored: &Identity, config: &Config) -> PeerIdentity {
    // Without a secret there are no peers: one that nobody knows keeps everybody out.
    let secret = config
        .cluster_secret
        .as_ref()
        .map_or_else(random_name, |secret| secret.expose().to_owned());
    let Identity { node_id, instance, cluster_id, .. } = stored.clone();
    PeerIdentity::new(node_id, instance, cluster_id, &secret)
}

fn tuning(config: &Config) -> Tuning {
    Tuning {
        write_buffer_bytes: config.write_buffer_bytes,
        memory_bytes: config.state_memory_bytes,
    }
}

fn timing(config: &Config) -> Timing {
    Timing {
        heartbeat_ms: config.heartbeat_ms,
        election_ms: config.election_ms,
        snapshot_entries: config.snapshot_entries,
        log_bytes: config.log_bytes_max,
        keep_entries: config.keep_entries,
        snapshot_pace: Pace(config.snapshot_bytes_per_second),
    }
}

fn settings(config: &Config) -> executor::Settings {
    executor::Settings {
        threads: config.executor_threads,
        slow_max: SLOW_MAX,
        slow_after: SLOW_AFTER,
        limits: script::Limits {
            fuel: config.script_fuel,
            time_ms: config.script_time_ms,
            memory_bytes: config.script_memory_bytes,
            output_bytes: config.script_output_bytes,
            value_bytes: config.value_bytes_max,
        },
        bucket_keys_max: config.bucket_keys_max,
        bucket_bytes_max: config.bucket_bytes_max,
        recorded_seconds: config.idempotency_seconds,
    }
}

/// Tells the term in which this node leads, once it has applied everything before its own first entry,
/// and as long as a quorum hears it and its clock is good.
async fn keep_ready_term(
    cluster: Cluster,
    quorum_age_max: Duration,
    mut skew: watch::Receiver<Option<Skew>>,
    ready: watch::Sender<Option<u64>>,
) {
    let mut leadership = cluster.leadership();
    loop {
        let own_term = leadership.borrow_and_update().own_term;
        ready.send_replace(None);
        if own_term.is_some() && !is_skewed(*skew.borrow()) {
            let (caught_up, ()) = tokio::join!(catch_up(&cluster), compared(&mut skew));
            let is_skewed = is_skewed(*skew.borrow());
            match caught_up {
                Ok(term) if leadership.borrow().own_term == Some(term) && !is_skewed => {
                    tracing::info!(term, "leading");
                    ready.send_replace(Some(term));
                    if let Some(why) =
                        unfit(&cluster, &mut leadership, &mut skew, quorum_age_max).await
                    {
                        tracing::warn!(term, "{why}: this leader can commit nothing");
                        continue;
                    }
                }
                // Settled by the next change, or by another try.
                _ if leadership.has_changed().unwrap_or(true) => {}
                _ => tokio::time::sleep(RETRY).await,
            }
            continue;
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() {
                ready.send_replace(None);
                return;
            },
            () = becomes(&mut skew, false), if own_term.is_some() => {}
        }
    }
}

/// Waits until leadership changes (nothing), or says why this leader is not fit to lead.
async fn unfit(
    cluster: &Cluster,
    leadership: &mut watch::Receiver<Leadership>,
    skew: &mut watch::Receiver<Option<Skew>>,
    age_max: Duration,
) -> Option<&'static str> {
    loop {
        tokio::select! {
            biased;
            _ = leadership.changed() => return None,
            () = becomes(skew, true) => return Some("its clock is off"),
            () = tokio::time::sleep(WATCH) => {
                if cluster.quorum_age().is_some_and(|age| age > age_max) {
                    return Some("no quorum answers");
                }
            }
        }
    }
}

/// Waits until the clocks of a majority are known, or long enough: a leader whose process has just begun
/// would else stamp commands before it knows.
async fn compared(skew: &mut watch::Receiver<Option<Skew>>) {
    // Either way it goes on.
    let _ = tokio::time::timeout(COMPARED, skew.wait_for(Option::is_some)).await;
}

/// Waits until this node's clock is too far away, or is not any more.
async fn becomes(skew: &mut watch::Receiver<Option<Skew>>, skewed: bool) {
    if skew.wait_for(|skew| is_skewed(*skew) == skewed).await.is_err() {
        // The node is gone, and nobody compares any more.
        std::future::pending::<()>().await;
    }
}

async fn catch_up(cluster: &Cluster) -> Result<u64> {
    let (index, term) = cluster.read_index().await?;
    cluster.applied(index).await?;
    Ok(term)
}
