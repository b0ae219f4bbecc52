//! This node's part in the cluster: start, read index, leadership and membership.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::raft::ReadPolicy;
use openraft::storage::RaftLogStorage;
use openraft::{ChangeMembers, ServerState, SnapshotPolicy};
use tokio::sync::watch;

use super::auth::PeerIdentity;
use super::compaction::{self, Compaction, Rules};
use super::feed::Feed;
use super::heard::Heard;
use super::log_store::LogStore;
use super::network::Network;
use super::server;
use super::snapshot::Receiver;
use super::state_machine::StateMachine;
use super::traffic::Traffic;
use super::types::{NodeId, Peer, Raft, TypeConfig};
use super::vacancy::Vacancy;
use crate::error::{Error, Missing, Result};
use crate::mutant::{self, Mutant};
use crate::storage::Pace;

/// How long a change of membership or leadership may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(20);
/// Entries that a learner may lack when it becomes a voter.
const CAUGHT_UP_ENTRIES: u64 = 1000;
/// How long a read index may take: an election happens in less.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Timings and sizes; milliseconds and entries.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Between heartbeats.
    pub heartbeat_ms: u64,
    /// How long a silent leader is still respected; then a node waits for half to all of it once
    /// more, drawn at random, before it stands.
    pub election_ms: u64,
    /// Entries applied between two snapshots.
    pub snapshot_entries: u64,
    /// Bytes that the log may take before it is purged to half of them; 0: any number.
    pub log_bytes: u64,
    /// Entries kept in the log behind a snapshot, for followers that were away for a while.
    pub keep_entries: u64,
    /// At which snapshots are sent and checked.
    pub snapshot_pace: Pace,
}

/// How late a heartbeat may be that is not missing.
const HEARTBEAT_LATE_MS: u64 = 30;

/// Says that this node still led after it was asked; the term it leads in.
pub trait Confirm: Send + 'static {
    /// Begins a read index now.
    fn read_index(&self) -> impl Future<Output = Result<u64>> + Send + 'static;
}

/// A handle on consensus.
#[derive(Clone)]
pub struct Cluster {
    raft: Raft<StateMachine>,
    state_machine: StateMachine,
    identity: Arc<PeerIdentity>,
    leadership: Arc<watch::Sender<Leadership>>,
    heard: Arc<Heard>,
    snapshot_pace: Pace,
    vacancy: Vacancy,
    traffic: Arc<Traffic>,
}

/// A member, and whether it votes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Node id.
    pub id: NodeId,
    /// Where it is reached.
    pub peer: Peer,
    /// Whether it counts for a quorum.
    pub voter: bool,
}

/// Who leads, as far as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader.
    pub leader: Option<NodeId>,
    /// The term in which this node itself leads.
    pub own_term: Option<u64>,
}

/// Where this node stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// `leader`, `follower`, `candidate`, `learner` or `shutdown`.
    pub state: &'static str,
    /// The leader, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// The last entry in the log.
    pub last_log_index: u64,
    /// The last entry known to be committed.
    pub committed_index: u64,
    /// The last entry applied.
    pub applied_index: u64,
    /// The last entry in a snapshot.
    pub snapshot_index: u64,
    /// The last entry purged from the log.
    pub purged_index: u64,
}

impl Cluster {
    /// Starts Raft on what the log and the state hold.
    pub async fn start(
        timing: &Timing,
        identity: Arc<PeerIdentity>,
        log: LogStore,
        state_machine: StateMachine,
    ) -> Result<Self> {
        let config = Arc::new(config(timing)?);
        let traffic = Arc::new(Traffic::default());
        let network =
            Network::new(Arc::clone(&identity), timing.snapshot_pace, Arc::clone(&traffic))?;
        if let Some(applied) = state_machine.applied_log_id()? {
            log.drop_overwritten(applied)?;
        }
        let compaction = Arc::clone(state_machine.compaction());
        begin(&compaction, identity.node_id, timing, log.clone()).await?;
        let raft = Raft::new(identity.node_id, config, network, log, state_machine.clone()).await;
        let raft = raft.map_err(|e| Error::Internal(format!("raft: {e}")))?;
        let leadership = Arc::new(watch::Sender::new(Leadership::default()));
        tokio::spawn(follow_leadership(raft.clone(), Arc::clone(&leadership)));
        tokio::spawn(compaction::run(raft.clone(), compaction));
        let heard = Arc::new(Heard::new(Duration::from_millis(timing.election_ms)));
        let vacancy = Vacancy::watch(raft.clone(), Arc::clone(&heard), patience(timing));
        let snapshot_pace = timing.snapshot_pace;
        Ok(Cluster {
            raft,
            state_machine,
            identity,
            leadership,
            heard,
            snapshot_pace,
            vacancy,
            traffic,
        })
    }

    /// The openraft handle, for the proposer.
    #[must_use]
    pub fn raft(&self) -> &Raft<StateMachine> {
        &self.raft
    }

    /// What peers may ask.
    pub fn routes(&self, incoming: PathBuf) -> axum::Router {
        let (identity, heard) = (Arc::clone(&self.identity), Arc::clone(&self.heard));
        let receiver = Receiver::new(incoming, self.snapshot_pace);
        let traffic = Arc::clone(&self.traffic);
        server::routes(self.raft.clone(), identity, heard, self.vacancy.clone(), receiver, traffic)
    }

    /// Messages that this node has sent to peers since the start, and their bytes, but for snapshots.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        self.traffic.so_far()
    }

    /// Where the end of a leader's stream is told.
    #[cfg(test)]
    pub(super) fn vacancy(&self) -> &Vacancy {
        &self.vacancy
    }

    /// Founds the cluster with these voters. Done once in a cluster's life, by one node.
    pub async fn found(&self, voters: BTreeMap<NodeId, Peer>) -> Result<()> {
        let founded = self.raft.initialize(voters).await;
        founded.map_err(|e| Error::Internal(format!("founding the cluster: {e}")))
    }

    /// Whether the log holds a membership.
    pub async fn is_founded(&self) -> Result<bool> {
        self.raft.is_initialized().await.map_err(fatal)
    }

    /// Asks a quorum whether this node leads; the index to read at, and the term. Only on the leader.
    pub async fn read_index(&self) -> Result<(u64, u64)> {
        let asked = self.raft.get_read_log_id(ReadPolicy::ReadIndex);
        match tokio::time::timeout(READ_TIMEOUT, asked).await {
            Ok(Ok((read, _))) => {
                let log_id = read.log_id();
                Ok((log_id.index(), log_id.committed_leader_id().term))
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to)))) => {
                Err(not_leader(&to))
            }
            Ok(Err(RaftError::APIError(other))) => Err(Error::NoLeader(other.to_string())),
            // Nothing is proposed by asking: another node can serve the call.
            Ok(Err(RaftError::Fatal(e))) => Err(Error::NoLeader(format!("this node stopped: {e}"))),
            Err(_) => Err(Error::NoLeader("no quorum answered in time".to_owned())),
        }
    }

    /// Waits until this node has applied an index.
    pub async fn applied(&self, index: u64) -> Result<()> {
        let mut applied = self.state_machine.applied();
        let reached = applied.wait_for(|applied| *applied >= index);
        match tokio::time::timeout(READ_TIMEOUT, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::NoLeader("the node is shutting down".to_owned())),
            Err(_) => Err(Error::NoLeader(format!("this node has not applied {index} yet"))),
        }
    }

    /// Tells what is applied here.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        self.state_machine.feed()
    }

    /// Tells the index that this node has applied, as soon as views hold it.
    #[must_use]
    pub fn applies(&self) -> watch::Receiver<u64> {
        self.state_machine.applied()
    }

    /// Who leads, as far as this node knows, and every change of it.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// How long ago a quorum last said that this node leads; nothing where it does not lead, or is the
    /// only voter. A node that is cut off goes on as leader, and can commit nothing.
    #[must_use]
    pub fn quorum_age(&self) -> Option<Duration> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let alone = metrics.membership_config.voter_ids().count() < 2;
        metrics.last_quorum_acked.filter(|_| !alone).map(|acked| acked.elapsed())
    }

    /// How long ago this node's state was last known not to lag: on a follower since it accepted
    /// the leader's last message, on the leader since a quorum last said that it leads. Since the start, where
    /// there was neither.
    #[must_use]
    pub fn state_age(&self) -> Duration {
        if mutant::is(Mutant::AgeZero) {
            return Duration::ZERO;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return self.heard.age();
        }
        if metrics.membership_config.voter_ids().count() < 2 {
            return Duration::ZERO;
        }
        metrics.last_quorum_acked.map_or_else(|| self.heard.age(), |acked| acked.elapsed())
    }

    /// Why Raft has stopped for good, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let state = metrics.borrow_watched().running_state.clone();
        state.err().map(|error| error.to_string())
    }

    /// Where this node stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let index = |log_id: Option<super::types::LogId>| log_id.map_or(0, |id| id.index());
        Standing {
            state: match metrics.state {
                ServerState::Leader => "leader",
                ServerState::Follower => "follower",
                ServerState::Candidate => "candidate",
                ServerState::Learner => "learner",
                ServerState::Shutdown => "shutdown",
            },
            leader: metrics.current_leader,
            term: metrics.current_term,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed_index: index(metrics.cluster_committed),
            applied_index: *self.state_machine.applied().borrow(),
            snapshot_index: index(metrics.snapshot),
            purged_index: index(metrics.purged),
        }
    }

    /// All members, by id.
    #[must_use]
    pub fn members(&self) -> Vec<MemberInfo> {
        let membership = Arc::clone(&self.raft.metrics().borrow_watched().membership_config);
        let voters: Vec<_> = membership.voter_ids().collect();
        membership
            .nodes()
            .map(|(id, peer)| MemberInfo {
                id: *id,
                peer: peer.clone(),
                voter: voters.contains(id),
            })
            .collect()
    }

    /// Whether a node is a member, as far as this one knows.
    #[must_use]
    pub fn has_member(&self, id: NodeId) -> bool {
        let membership = Arc::clone(&self.raft.metrics().borrow_watched().membership_config);
        membership.nodes().any(|(own, _)| *own == id)
    }

    /// A member by its id.
    pub fn member(&self, id: NodeId) -> Result<MemberInfo> {
        let membership = Arc::clone(&self.raft.metrics().borrow_watched().membership_config);
        let found = membership.nodes().find(|(own, _)| **own == id);
        let (_, peer) = found.ok_or_else(|| Error::not_found(Missing::Member, id.to_string()))?;
        let voter = membership.voter_ids().any(|voter| voter == id);
        Ok(MemberInfo { id, peer: peer.clone(), voter })
    }

    /// Adds a learner; returns once the membership is committed, before it has caught up.
    pub async fn add_learner(&self, id: NodeId, peer: Peer) -> Result<()> {
        let raft = self.raft.clone();
        change(async move { raft.add_learner(id, peer, false).await }).await
    }

    /// Makes a learner a voter, once it has caught up.
    pub async fn promote(&self, id: NodeId) -> Result<()> {
        let member = self.member(id)?;
        if member.voter && self.is_settled() {
            return Ok(());
        }
        // Blocking: a voter that lacks the log would make the quorum wait for it.
        let caught_up = self.raft.add_learner(id, member.peer, true);
        match tokio::time::timeout(CHANGE_TIMEOUT, caught_up).await {
            Ok(caught_up) => caught_up.map(|_| ()).map_err(|error| refused(error, false))?,
            Err(_) => {
                let seconds = CHANGE_TIMEOUT.as_secs();
                return Err(Error::Conflict(format!(
                    "node {id} has not caught up within {seconds} s: nothing was changed"
                )));
            }
        }
        self.change_voters(ChangeMembers::AddVoterIds([id].into()), true).await
    }

    /// Removes a member, voter or learner.
    pub async fn remove(&self, id: NodeId) -> Result<()> {
        let member = self.member(id)?;
        if mutant::is(Mutant::MembershipStale) {
            return Ok(());
        }
        if member.voter {
            if self.members().iter().filter(|member| member.voter).count() == 1 {
                return Err(Error::Conflict("the only voter cannot be removed".to_owned()));
            }
            return self.change_voters(ChangeMembers::RemoveVoters([id].into()), false).await;
        }
        self.change_voters(ChangeMembers::RemoveNodes([id].into()), false).await
    }

    async fn change_voters(
        &self,
        members: ChangeMembers<NodeId, Peer>,
        keep_removed: bool,
    ) -> Result<()> {
        let raft = self.raft.clone();
        change(async move { raft.change_membership(members, keep_removed).await }).await
    }

    /// Whether the membership is one set of voters, and not on its way from one to another.
    fn is_settled(&self) -> bool {
        let metrics = self.raft.metrics();
        let membership = Arc::clone(&metrics.borrow_watched().membership_config);
        membership.membership().get_joint_config().len() == 1
    }

    /// Hands leadership to a voter and waits until it leads.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<()> {
        if !self.member(to)?.voter {
            return Err(Error::Conflict(format!("node {to} is a learner: promote it first")));
        }
        if self.leadership.borrow().own_term.is_none() {
            return Err(Error::NotLeader { leader: self.standing().leader });
        }
        self.raft.trigger().transfer_leader(to).await.map_err(fatal)?;
        let mut leadership = self.leadership.subscribe();
        let moved = leadership.wait_for(|leadership| leadership.leader == Some(to));
        match tokio::time::timeout(CHANGE_TIMEOUT, moved).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::Unknown(format!("node {to} has not become the leader"))),
        }
    }

    /// Takes a snapshot now and purges the log behind it, whatever is usually kept.
    pub async fn snapshot(&self) -> Result<()> {
        let index = *self.state_machine.applied().borrow();
        let upto = compaction::take_snapshot(&self.raft, index).await?;
        self.raft.trigger().purge_log(upto).await.map_err(fatal)
    }

    /// Stops Raft.
    pub async fn shutdown(&self) -> Result<()> {
        self.raft.shutdown().await.map_err(|e| Error::Internal(format!("raft: {e}")))
    }
}

impl Confirm for Cluster {
    fn read_index(&self) -> impl Future<Output = Result<u64>> + Send + 'static {
        let cluster = self.clone();
        async move { cluster.read_index().await.map(|(_, term)| term) }
    }
}

/// Tells what the log holds before anything is applied.
async fn begin(
    compaction: &Compaction,
    own: NodeId,
    timing: &Timing,
    mut log: LogStore,
) -> Result<()> {
    let held = log.get_log_state().await.map_err(|e| Error::Io(format!("raft log: {e}")))?;
    let index = |log_id: Option<super::types::LogId>| log_id.map_or(0, |id| id.index());
    let rules = Rules::new(own, timing.snapshot_entries, timing.log_bytes);
    let (purged, last) = (index(held.last_purged_log_id), index(held.last_log_id));
    compaction.begin(rules, purged, last, log.disk_bytes()?);
    Ok(())
}

/// Carries changes over from openraft's own kind of watch.
async fn follow_leadership(raft: Raft<StateMachine>, leadership: Arc<watch::Sender<Leadership>>) {
    let mut metrics = raft.server_metrics();
    loop {
        let now = {
            let metrics = metrics.borrow_watched();
            let leads =
                metrics.state == ServerState::Leader && metrics.current_leader == Some(metrics.id);
            let own_term = leads.then(|| metrics.vote.leader_id().term);
            Leadership { leader: metrics.current_leader, own_term }
        };
        leadership.send_if_modified(|last| std::mem::replace(last, now) != now);
        if metrics.changed().await.is_err() {
            leadership.send_replace(Leadership::default());
            return;
        }
    }
}

/// How long a leader whose process seems gone must be silent: longer than between two heartbeats.
fn patience(timing: &Timing) -> Duration {
    Duration::from_millis(timing.heartbeat_ms.saturating_add(HEARTBEAT_LATE_MS))
}

fn config(timing: &Timing) -> Result<openraft::Config> {
    let config = openraft::Config {
        cluster_name: "kvdb".to_owned(),
        heartbeat_interval: timing.heartbeat_ms,
        // openraft's lease is the upper end, and a node stands when lease and timeout are over.
        election_timeout_min: (timing.election_ms / 2).max(timing.heartbeat_ms + 1),
        election_timeout_max: timing.election_ms,
        // The whole of a snapshot, which may be gigabytes; a dead peer is noticed by keep-alives.
        install_snapshot_timeout: 3_600_000,
        // `compaction.rs` says when.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: timing.keep_entries,
        // How far behind a learner may be and still count as caught up, when it is to be a voter.
        replication_lag_threshold: CAUGHT_UP_ENTRIES,
        purge_batch_size: 1024.min(timing.keep_entries.max(1)),
        max_payload_entries: 1024,
        // Of messages, each of which may be a turn's commands.
        api_batch_capacity: 64,
        enable_pre_vote: Some(true),
        // openraft #2080: an old leader without a quorum must not keep its followers from electing.
        quorum_loss_probe_interval: Some(timing.election_ms * 2),
        // A restarted leader takes a new term: ids count up within a term and a process.
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        ..openraft::Config::default()
    };
    config.validate().map_err(|e| Error::invalid(format!("timings: {e}")))
}

type ChangeError = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

/// Makes a change of membership, to its end: it is two entries, and who asked may not wait for the
/// second. Left between the two, the cluster would need both quorums for everything.
async fn change<T: Send + 'static>(
    change: impl Future<Output = std::result::Result<T, ChangeError>> + Send + 'static,
) -> Result<()> {
    match tokio::time::timeout(CHANGE_TIMEOUT, tokio::spawn(change)).await {
        Ok(Ok(Ok(_))) => Ok(()),
        Ok(Ok(Err(error))) => Err(refused(error, true)),
        Ok(Err(error)) => Err(Error::Unknown(error.to_string())),
        Err(_) => Err(Error::Unknown("the change of membership is not committed yet".to_owned())),
    }
}

/// Why a change was not made. One that may have been proposed in part is unknown.
fn refused(error: ChangeError, in_part: bool) -> Error {
    use openraft::errors::ChangeMembershipError::InProgress;
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) if in_part => {
            Error::Unknown(format!("leadership moved during the change: {to}"))
        }
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => not_leader(&to),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(InProgress(_))) => {
            Error::NoLeader("another change of membership is under way".to_owned())
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            Error::Conflict(format!("membership: {error}"))
        }
        RaftError::APIError(error) => Error::Unknown(error.to_string()),
        RaftError::Fatal(error) => Error::Unknown(format!("this node stopped: {error}")),
    }
}

fn not_leader(to: &ForwardToLeader<TypeConfig>) -> Error {
    Error::NotLeader { leader: to.leader_id }
}

fn fatal(error: impl std::fmt::Display) -> Error {
    Error::Internal(format!("raft: {error}"))
}
