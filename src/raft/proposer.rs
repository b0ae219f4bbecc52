//! Proposals in one order, and honest outcomes.

use std::future::Future;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::StreamExt;
use tokio::runtime::Handle;

use super::state_machine::StateMachine;
use super::types::{ClientWriteError, Payload, Raft, Response, WriteResult};
use crate::error::Error;
use crate::kv::Outcome;

/// A command to be appended, encoded once.
pub struct Proposal {
    /// The encoded command.
    pub payload: Bytes,
    /// Called once with what became of it; must be short.
    pub done: Box<dyn FnOnce(Verdict) + Send>,
}

// Takes the outcome of a proposal.
type Done = Box<dyn FnOnce(Verdict) + Send>;

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

    /// Appends commands as one message: one at a time, openraft would take up the first alone, and each half of
    /// them would have a sync and a round of messages of its own. Their outcomes come by their callbacks. Called on a
    /// thread of the executor, which a full queue of openraft holds up: log order follows the order of one
    /// thread's calls, and a bucket is run by one thread at a time.
    ///
    /// Another leader's log may take them, if this node leads again by now: `kv::apply` refuses a command of another
    /// term than its entry's.
    pub fn propose(&self, proposals: Vec<Proposal>) {
        if proposals.is_empty() {
            return;
        }
        let (payloads, pending): (Vec<_>, Vec<_>) = proposals
            .into_iter()
            .map(|Proposal { payload, done }| (Payload(payload), Pending(Some(done))))
            .unzip();
        let mut sent = Box::pin(self.raft.client_write_many(payloads));
        // Ready at once unless the queue is full.
        let sent = match sent.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(sent) => sent,
            Poll::Pending => self.runtime.block_on(sent),
        };
        // An error drops what is pending, which says unknown.
        if let Ok(mut results) = sent {
            self.runtime.spawn(async move {
                for pending in pending {
                    match results.next().await {
                        Some(Ok(result)) => pending.end(verdict(result)),
                        Some(Err(_)) | None => return,
                    }
                }
            });
        }
    }
}

/// A proposal whose outcome is to come. Dropped without one, it says that it is unknown.
struct Pending(Option<Done>);

impl Pending {
    fn end(mut self, verdict: Verdict) {
        if let Some(done) = self.0.take() {
            done(verdict);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Verdict::Unknown("the node stopped before it knew".to_owned()));
        }
    }
}

fn verdict(result: WriteResult) -> Verdict {
    match result {
        Ok(written) => match written.response {
            Response(Some(Outcome::Applied { revision })) => Verdict::Applied { revision },
            Response(Some(Outcome::Conflict)) => Verdict::Conflict,
            Response(None) => Verdict::Unknown("the entry held no command".to_owned()),
        },
        // Only this arm says that nothing was appended; a discarded entry carries a ForwardToLeader
        // too and must not be taken for it.
        Err(ClientWriteError::ForwardToLeader(to)) => {
            Verdict::Refused(Error::NotLeader { leader: to.leader_id })
        }
        Err(error) => Verdict::Unknown(error.to_string()),
    }
}
