//! A leader whose process is gone is not waited for.
//!
//! A follower respects a silent leader for an election timeout and stands for election after as much again, because
//! silence may be a slow network. When a process ends, its machine says so at once: the stream of entries breaks
//! off, and where it listened, connections are refused. That is no silence. The follower then forgets the leader's
//! lease, as it would if the leader had handed over, and stands with a pre-vote, one voter after another, so
//! that they do not split the votes.
//!
//! This only decides *when* a node stands. Whether it may lead is for the others to say: those that still hear the
//! leader refuse the pre-vote, and a vote needs a quorum and the newest log, as ever. A firewall that refuses
//! connections in a machine's name costs a refused pre-vote.

use std::io::ErrorKind;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::state_machine::StateMachine;
use super::types::{NodeId, Raft};

/// How long a connection may take to be refused.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
/// A process that ends closes what it has open one after another, the stream perhaps before the listener: so often
/// is it tried whether connections are refused, with this pause.
const LOOKS: u32 = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Before the first voter stands, so that the others have noticed too, and between one and the next.
const STAGGER: Duration = Duration::from_millis(60);
/// How often a voter stands; after that, the election timeout decides.
const TRIES: u32 = 3;

/// Where the end of a leader's stream is told.
#[derive(Clone)]
pub(super) struct Vacancy(mpsc::Sender<NodeId>);

/// Tells it when the stream is dropped, for whatever reason.
pub(super) struct Stream {
    vacancy: Vacancy,
    leader: NodeId,
}

impl Vacancy {
    /// Starts to look after leaders that fall silent; ends with its last clone.
    pub(super) fn watch(raft: Raft<StateMachine>, own: NodeId) -> Self {
        let (sender, mut ended) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(leader) = ended.recv().await {
                stand_for(&raft, own, leader).await;
            }
        });
        Vacancy(sender)
    }

    /// A stream of this leader has begun.
    pub(super) fn stream(&self, leader: NodeId) -> Stream {
        Stream { vacancy: self.clone(), leader }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // One that waits to be looked at is enough.
        let _ = self.vacancy.0.try_send(self.leader);
    }
}

/// Stands for election in the place of a leader whose process is gone; returns if it is not.
async fn stand_for(raft: &Raft<StateMachine>, own: NodeId, leader: NodeId) {
    let metrics = raft.server_metrics().borrow_watched().clone();
    if leader == own || metrics.current_leader != Some(leader) {
        return;
    }
    let membership = metrics.membership_config.membership();
    let Some(peer) = membership.get_node(&leader) else { return };
    if !is_gone(&peer.peer_addr).await {
        return;
    }
    // Addressed to the leader itself: nobody stands by it, and the lease is forgotten.
    let vote = metrics.vote;
    if raft.handle_transfer_leader(TransferLeaderRequest::new(vote, leader, None)).await.is_err() {
        return;
    }
    let mut others = membership.voter_ids().filter(|voter| *voter != leader);
    let Some(rank) = others.position(|voter| voter == own) else { return };
    let voters = u32::try_from(membership.voter_ids().count()).unwrap_or(u32::MAX);
    let turn = STAGGER.saturating_mul(u32::try_from(rank).unwrap_or(u32::MAX).saturating_add(1));
    tracing::info!(leader, "the leader's process is gone");
    tokio::time::sleep(turn).await;
    for _ in 0..TRIES {
        let now = raft.server_metrics().borrow_watched().vote;
        if now != vote || raft.trigger().elect(true).await.is_err() {
            return;
        }
        tokio::time::sleep(STAGGER.saturating_mul(voters)).await;
    }
}

/// Whether nobody listens there any more.
async fn is_gone(addr: &str) -> bool {
    for _ in 0..LOOKS {
        if refuses(addr).await {
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
mod tests {
    use tokio::net::TcpListener;

    use super::*;

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
}
