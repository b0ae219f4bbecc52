//! Standing for election before the election timeout, where there is no leader to wait for.
//!
//! A follower respects a silent leader for an election timeout and stands after as much again, because silence may be a
//! slow network. Twice it need not wait. When its own process has just begun, it has heard nobody yet: where the
//! whole cluster was stopped, nobody leads. And when the leader's process ends, the leader's machine says so at
//! once: the stream of entries breaks off, and where it listened, connections are refused. That is no silence. The
//! follower then forgets the leader's lease, as it would if the leader had handed over.
//!
//! Either way it stands with a pre-vote, one voter after another so that they do not split the votes, as long as it
//! hears no leader; some times, and then the election timeout decides.
//!
//! This only decides *when* a node stands. Whether it may lead is for the others to say: those that still hear the
//! leader refuse the pre-vote, and a vote needs a quorum and the newest log, as ever. A leader that is heard again, as
//! where a firewall refused connections in its name, gets its lease back from [`Heard::is_back`]: openraft gives it back
//! with the next vote only, and would pre-vote against a leader that is well.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::heard::Heard;
use super::state_machine::StateMachine;
use super::types::{NodeId, Raft, Vote};

/// How long a connection may take to be refused.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
/// A process that ends closes what it has open one after another, the stream perhaps before the listener: so often
/// is it tried whether connections are refused, with this pause. One refusal may be a packet of the network's.
const LOOKS: u32 = 6;
const LOOK_PAUSE: Duration = Duration::from_millis(15);
const REFUSALS: u32 = 2;
/// Before the first voter stands, so that the others have noticed too, and between one and the next. A round is as
/// many of these as there are voters, and one.
const STAGGER: Duration = Duration::from_millis(60);
/// How often a voter stands; after that, the election timeout decides.
const ROUNDS: u32 = 4;

/// Where the end of a leader's stream is told.
#[derive(Clone)]
pub(super) struct Vacancy {
    /// The stream that ended last: its leader, and how much had been heard by then.
    ended: watch::Sender<Option<(NodeId, u64)>>,
    heard: Arc<Heard>,
}

/// Tells it when the stream is dropped, for whatever reason.
pub(super) struct Stream {
    vacancy: Vacancy,
    leader: NodeId,
}

impl Vacancy {
    /// Stands soon, as a process that has just begun, and then looks after leaders that fall silent; ends with its
    /// last clone.
    pub(super) fn watch(raft: Raft<StateMachine>, heard: Arc<Heard>, patience: Duration) -> Self {
        let (ended, mut ends) = watch::channel(None);
        let vacancy = Vacancy { ended, heard: Arc::clone(&heard) };
        tokio::spawn(async move {
            stand(&raft, Silence::from(&heard, heard.count()), vote(&raft), None).await;
            while ends.changed().await.is_ok() {
                let Some((leader, count)) = *ends.borrow_and_update() else { continue };
                let (silence, vote) = (Silence::from(&heard, count), vote(&raft));
                if forgets(&raft, &silence, patience, vote, leader).await {
                    stand(&raft, silence, vote, Some(leader)).await;
                }
            }
        });
        vacancy
    }

    /// A stream of this leader has begun.
    pub(super) fn stream(&self, leader: NodeId) -> Stream {
        Stream { vacancy: self.clone(), leader }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The newest is looked at.
        self.vacancy.ended.send_replace(Some((self.leader, self.vacancy.heard.count())));
    }
}

/// That no leader was heard: no message has come since so many had.
struct Silence<'a> {
    heard: &'a Heard,
    count: u64,
    began: Instant,
}

impl<'a> Silence<'a> {
    fn from(heard: &'a Heard, count: u64) -> Self {
        Silence { heard, count, began: Instant::now() }
    }

    fn lasts(&self) -> bool {
        self.heard.count() == self.count
    }

    /// Waits until it is so long, or over; whether it is so long.
    async fn reaches(&self, length: Duration) -> bool {
        tokio::time::sleep(length.saturating_sub(self.began.elapsed())).await;
        self.lasts()
    }
}

fn vote(raft: &Raft<StateMachine>) -> Vote {
    raft.server_metrics().borrow_watched().vote
}

/// Whether this is the leader whose lease this vote stands for, and its process is gone; its lease is forgotten then.
async fn forgets(
    raft: &Raft<StateMachine>,
    silence: &Silence<'_>,
    patience: Duration,
    vote: Vote,
    leader: NodeId,
) -> bool {
    let metrics = raft.server_metrics().borrow_watched().clone();
    if leader == metrics.id || metrics.current_leader != Some(leader) {
        return false;
    }
    let membership = metrics.membership_config.membership();
    let Some(peer) = membership.get_node(&leader) else { return false };
    if !is_gone(&peer.peer_addr).await || !silence.reaches(patience).await {
        return false;
    }
    // Refused before, and now that a heartbeat is missing.
    if !refuses(&peer.peer_addr).await {
        return false;
    }
    silence.heard.forget(vote, silence.count);
    tracing::info!(leader, "the leader's process is gone");
    // Addressed to the leader itself: nobody stands by it, and the lease is forgotten.
    raft.handle_transfer_leader(TransferLeaderRequest::new(vote, leader, None)).await.is_ok()
}

/// Stands for election in its turn, some times, while no leader is heard and the vote is unchanged: an election
/// under way is left a round of its own. A leader that is gone has no turn.
async fn stand(
    raft: &Raft<StateMachine>,
    silence: Silence<'_>,
    mut last: Vote,
    gone: Option<NodeId>,
) {
    for _ in 0..ROUNDS {
        let (before, after) = turn(raft, gone);
        tokio::time::sleep(STAGGER.saturating_mul(before)).await;
        let (state, vote) = {
            let metrics = raft.server_metrics();
            let metrics = metrics.borrow_watched();
            (metrics.state, metrics.vote)
        };
        if state == ServerState::Leader || !silence.lasts() {
            return;
        }
        let is_under_way = vote != last || state == ServerState::Candidate;
        last = vote;
        // A node that is no voter does not stand by this. An error: Raft has stopped.
        if !is_under_way && raft.trigger().elect(true).await.is_err() {
            return;
        }
        tokio::time::sleep(STAGGER.saturating_mul(after)).await;
    }
}

/// How many steps of a round come before this node's turn, and how many after it.
fn turn(raft: &Raft<StateMachine>, gone: Option<NodeId>) -> (u32, u32) {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let others = || metrics.membership_config.voter_ids().filter(|voter| Some(*voter) != gone);
    let lower = others().filter(|voter| *voter < metrics.id).count();
    let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
    (count(lower).saturating_add(1), count(others().count().saturating_sub(lower)))
}

/// Whether nobody listens there any more.
async fn is_gone(addr: &str) -> bool {
    let mut refusals = 0;
    for _ in 0..LOOKS {
        refusals = if refuses(addr).await { refusals + 1 } else { 0 };
        if refusals == REFUSALS {
            return true;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    false
}

/// Whether the machine there says that nobody listens.
async fn refuses(addr: &str) -> bool {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(addr)).await {
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
        Ok(Ok(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests;
