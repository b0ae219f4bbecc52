//! The least state machine and network that openraft runs with, for tests of the log and the types.

use std::future::Future;
use std::io;

use futures::{Stream, StreamExt};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2, RaftSnapshotBuilder};

use super::types::{
    Entry, EntryPayload, LogId, NodeId, Peer, Response, Snapshot, SnapshotMeta, StoredMembership,
    TypeConfig, Vote, log_id,
};
use crate::kv::Outcome;

/// What a leader of term 1 sends that has these entries after the one before: none, where that is the last.
pub(super) fn append(prev: u64, last: u64) -> AppendEntriesRequest<TypeConfig> {
    let blank = |index| Entry { log_id: log_id(1, index), payload: EntryPayload::Blank };
    AppendEntriesRequest {
        vote: Vote::new_committed(1, 1),
        prev_log_id: Some(log_id(1, prev)),
        entries: (prev + 1..=last).map(blank).collect(),
        leader_commit: None,
    }
}

/// Applies nothing, and answers a command with its log index as the revision.
#[derive(Default)]
pub(super) struct Machine {
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
}

pub(super) struct Builder(SnapshotMeta);

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<Snapshot<()>> {
        Ok(Snapshot { meta: self.0.clone(), snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            self.applied = Some(entry.log_id);
            let revision = entry.log_id.index;
            if let Some(responder) = responder {
                responder.send(Response(Some(Outcome::Applied { revision })));
            }
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(self.applied, membership);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let last_membership = self.membership.clone();
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership };
        self.snapshot = Some(meta.clone());
        Builder(meta)
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, (): ()) -> io::Result<()> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot<()>>> {
        Ok(self.snapshot.clone().map(|meta| Snapshot { meta, snapshot: () }))
    }
}

/// Reaches nobody.
pub(super) struct NoNetwork;

fn unreachable() -> Unreachable<TypeConfig> {
    Unreachable::new(&io::Error::other("no network"))
}

impl RaftNetworkFactory<TypeConfig> for NoNetwork {
    type Network = NoNetwork;

    async fn new_client(&mut self, _: NodeId, _: &Peer) -> NoNetwork {
        NoNetwork
    }
}

impl RaftNetworkV2<TypeConfig> for NoNetwork {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(unreachable().into())
    }

    async fn vote(
        &mut self,
        _: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: Snapshot<()>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(unreachable().into())
    }
}
