//! Proposals in one order, and honest outcomes.

use std::future::IntoFuture;
use std::task::{Context, Waker};

use bytes::Bytes;
use tokio::runtime::Handle;

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
    raft: Raft<StateMachine>,
    runtime: Handle,
}

impl Proposer {
    /// Proposes through openraft; to be made within the runtime.
    #[must_use]
    pub fn new(raft: Raft<StateMachine>) -> Self {
        Proposer { raft, runtime: Handle::current() }
    }

    /// Appends a command; its outcome comes by the proposal's callback. Called on a thread of the
    /// executor, which a full queue of openraft holds up: log order follows the order of one
    /// thread's calls, and a bucket is run by one thread at a time.
    pub fn propose(&self, Proposal { term, payload, done }: Proposal) {
        let callback = Callback::new(move |result| done(verdict(result)));
        let leader = CommittedLeaderId::new(term);
        let write = self.raft.write(Payload(payload)).with_leader(leader).responder(callback);
        let mut sent = write.into_future();
        // Ready at once unless the queue is full. An error drops the callback, which says unknown.
        if sent.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            let _ = self.runtime.block_on(sent);
        }
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
