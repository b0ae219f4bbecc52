//! What only a bucket's owner may read.

use axum::response::Response;

use super::Edge;
use super::answer::{self, Outcome};
use super::call::Call;
use super::leader::patiently;
use crate::error::{Failure, Result};
use crate::kv::{BucketName, Transaction, grant};

/// Reads something that only the bucket's owner may, on any node.
pub(super) async fn owned(
    edge: &Edge,
    call: &Call,
    bucket: &BucketName,
    read: impl FnOnce(&mut Transaction) -> Result<Response>,
) -> Outcome {
    let credential = call.credential()?;
    // Sources and tokens can be many: a turn, as lists have.
    let _turn = edge.room.list().await?;
    let mut txn = patiently(|| edge.node.read(bucket)).await?;
    let revision = txn.read_revision();
    let checked = |txn: &mut Transaction| {
        grant(txn, &credential)?.check_owner()?;
        read(txn)
    };
    let read = || checked(&mut txn);
    let mut response =
        tokio::task::block_in_place(read).map_err(|error| Failure::at(revision, error))?;
    answer::set_revision(response.headers_mut(), revision);
    Ok(response)
}
