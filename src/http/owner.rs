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
    let mut txn = patiently(|| edge.node.read(bucket)).await?;
    let revision = txn.read_revision();
    let fail = |error| Failure::at(revision, error);
    let check = || grant(&mut txn, &credential)?.check_owner();
    tokio::task::block_in_place(check).map_err(fail)?;
    // Sources and tokens can be many: a turn, as lists have. Nobody else waits for one, or has it.
    let _turn = edge.room.list(txn.bucket()).await.map_err(fail)?;
    let mut response = tokio::task::block_in_place(|| read(&mut txn)).map_err(fail)?;
    answer::set_revision(response.headers_mut(), revision);
    Ok(response)
}
