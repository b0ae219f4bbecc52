//! Proposals in one order, and honest outcomes.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::state_machine::StateMachine;
use super::types::{
    Callback, ClientWriteError, ClientWriteResult, CommittedLeaderId, Payload, Raft, Response,
};
use crate::error::Error;
use crate::kv::Outcome;

/// A command to be appended, encoded once.
pub struct Proposal {
    /// The term that it was executed in; another leader's log never takes it.
    pub term: u64,
    /// The encoded command.
    pub payload: Bytes,
    /// Called once with what became of it; must be short.
    pub done: Box<dyn FnOnce(Verdict) + Send>,
}

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Committed and applied.
    Applied {
        /// The bucket's revision, or a new bucket's first.
        revision: u64,
    },
    /// Committed and applied as nothing: its predecessor was not the head.
    Conflict,
    /// Never appended, here or anywhere.
    Refused(Error),
    /// Appended perhaps. It may be applied later, or never.
    Unknown(String),
}

/// Appends proposals in the order they are given.
#[derive(Clone)]
pub struct Proposer {
    // Unbounded in type only: each chain bounds what it has in flight.
    proposals: mpsc::UnboundedSender<Proposal>,
}

impl Proposer {
    /// Starts the one task that talks to openraft: log order follows the order of its calls.
    #[must_use]
    pub fn start(raft: Raft<StateMachine>) -> Self {
        let (proposals, queue) = mpsc::unbounded_channel();
        tokio::spawn(append_in_order(raft, queue));
        Proposer { proposals }
    }

    /// Appends a command; its outcome comes by the proposal's callback.
    pub fn propose(&self, proposal: Proposal) {
        if let Err(refused) = self.proposals.send(proposal) {
            (refused.0.done)(Verdict::Refused(Error::NoLeader("shutting down".to_owned())));
        }
    }
}

async fn append_in_order(raft: Raft<StateMachine>, mut queue: mpsc::UnboundedReceiver<Proposal>) {
    while let Some(Proposal { term, payload, done }) = queue.recv().await {
        let callback = Callback::new(move |result| done(verdict(result)));
        let leader = CommittedLeaderId::new(term);
        // An error here drops the callback, which then says unknown.
        let _ = raft.write(Payload(payload)).with_leader(leader).responder(callback).await;
    }
}

fn verdict(result: Option<ClientWriteResult>) -> Verdict {
    match result {
        Some(Ok(response)) => match response.data {
            Response(Some(Outcome::Applied { revision })) => Verdict::Applied { revision },
            Response(Some(Outcome::Conflict)) => Verdict::Conflict,
            Response(None) => Verdict::Unknown("the entry held no command".to_owned()),
        },
        // Only this arm says that nothing was appended; a discarded entry carries a ForwardToLeader
        // too and must not be taken for it.
        Some(Err(ClientWriteError::ForwardToLeader(to))) => {
            Verdict::Refused(Error::NotLeader { leader: to.leader_id })
        }
        Some(Err(error)) => Verdict::Unknown(error.to_string()),
        None => Verdict::Unknown("the node stopped before it knew".to_owned()),
    }
}
