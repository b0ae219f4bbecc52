//! The only function that changes replicated state: a compare-and-swap on a bucket's head.
//!
//! `apply` is pure and deterministic, and costs O(writes). If the command's `prev` is the bucket's
//! head, its effects are made and it becomes the head; else nothing changes and the outcome is
//! `Conflict`. By induction a command applies only onto exactly the state its script read, phantoms
//! included, under every history of leaders: there is no lock, no lease, and no read set in the log.
//!
//! It reads no configuration: limits and admission are the executor's. An error is never an outcome:
//! it means that this replica's bytes are damaged, and the process stops.

use bytes::{BufMut, Bytes};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::command::{BucketId, Command, DIRECTORY, Effect, Outcome, Write};
use super::keyspace::{self, BucketMeta, Record, Row, Table};
use super::name::BucketName;
use super::store::{self, Store, View};
use crate::encoding;
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};

/// Bytes before a row's name where its digest is made: its table and the name's length.
const DIGEST_HEAD_BYTES: usize = 9;
/// A row of so many bytes is copied together, and hashed at once.
const DIGEST_JOINED_MAX: usize = 512;

/// Applies the command of the log entry at `index` of `term`.
pub fn apply(store: &mut impl Store, term: u64, index: u64, command: &Command) -> Result<Outcome> {
    // A command of another term was proposed by a leader that had lost that term meanwhile.
    if command.id.term != term {
        return Ok(Outcome::Conflict);
    }
    let Some(mut meta) = store.meta(command.bucket)? else {
        return Ok(Outcome::Conflict);
    };
    if meta.head != command.prev && !mutant::is(Mutant::NoHeadCheck) {
        return Ok(Outcome::Conflict);
    }
    meta.head = command.id;
    meta.now = meta.now.max(command.now);
    meta.revision += 1;
    let mut revision = meta.revision;
    match &command.effect {
        Effect::Write(writes) | Effect::Sweep(writes) => {
            make_writes(store, command.bucket, &mut meta, writes)?;
        }
        Effect::CreateBucket { name, rows, directory } => {
            let id = BucketId(index);
            create_bucket(store, id, name, rows, command)?;
            let value = encoding::encode(&id)?.into();
            let write = Write { row: Row::bucket(name), value: Some(value) };
            make_writes(store, command.bucket, &mut meta, &[write])?;
            make_writes(store, command.bucket, &mut meta, directory)?;
            revision = index;
        }
        Effect::DeleteBucket { directory } => {
            delete_bucket(store, command, &meta, directory)?;
            return Ok(Outcome::Applied { revision });
        }
    }
    store.put_meta(command.bucket, meta)?;
    Ok(Outcome::Applied { revision })
}

/// Records the node ids of a membership, so that none is ever given to another data directory.
pub fn record_nodes(
    store: &mut impl Store,
    nodes: impl IntoIterator<Item = (u64, Bytes)>,
) -> Result<()> {
    let mut meta = store.meta(DIRECTORY)?.unwrap_or_default();
    for (id, instance) in nodes {
        let row = Row::node(id);
        if store::row(store, DIRECTORY, &row)?.is_none() {
            make_writes(store, DIRECTORY, &mut meta, &[Write { row, value: Some(instance) }])?;
        }
    }
    store.put_meta(DIRECTORY, meta)
}

fn create_bucket(
    store: &mut impl Store,
    id: BucketId,
    name: &BucketName,
    rows: &[Write],
    command: &Command,
) -> Result<()> {
    let mut meta = BucketMeta {
        name: name.to_string(),
        // Never nil: what was in flight on another life of the name conflicts.
        head: command.id,
        revision: id.0,
        now: command.now,
        ..BucketMeta::default()
    };
    make_writes(store, id, &mut meta, rows)?;
    store.put_meta(id, meta)
}

fn delete_bucket(
    store: &mut impl Store,
    command: &Command,
    meta: &BucketMeta,
    rows: &[Write],
) -> Result<()> {
    let id = command.bucket;
    let name = BucketName::parse(&meta.name)
        .map_err(|_| Error::corrupt("bucket meta", format!("name {:?}", meta.name)))?;
    store.delete(keyspace::meta_key(id));
    store.delete_range(keyspace::rows_start(id), keyspace::rows_end(id));
    // What was executed on the directory as it was conflicts, and is run again.
    let mut directory = store.meta(DIRECTORY)?.unwrap_or_default();
    directory.head = command.id;
    directory.now = directory.now.max(command.now);
    directory.revision += 1;
    let write = Write { row: Row::bucket(&name), value: None };
    make_writes(store, DIRECTORY, &mut directory, &[write])?;
    make_writes(store, DIRECTORY, &mut directory, rows)?;
    store.put_meta(DIRECTORY, directory)
}

fn make_writes(
    store: &mut impl Store,
    bucket: BucketId,
    meta: &mut BucketMeta,
    writes: &[Write],
) -> Result<()> {
    for Write { row, value } in writes {
        if value.is_none() && mutant::strikes(Mutant::LostDelete, 20) {
            continue;
        }
        let value = match value {
            Some(value) if is_mutated(row) => Some(mutated(value)?),
            other => other.clone(),
        };
        if let Some(value) = &value {
            meta.digest = meta.digest.wrapping_add(row_digest(row, value));
            meta.counts.add(row, value.len());
        }
        if let Some(old) = store.replace(row.encode(bucket), value)? {
            meta.digest = meta.digest.wrapping_sub(row_digest(row, &old));
            meta.counts.remove(row, old.len());
        }
    }
    Ok(())
}

/// Whether this write is one that replicas make differently, by a planted bug.
fn is_mutated(row: &Row) -> bool {
    let mutants = [Mutant::NondeterministicApply, Mutant::LyingDigest];
    row.table == Table::Key && mutants.into_iter().any(|mutant| mutant::strikes(mutant, 200))
}

fn mutated(bytes: &[u8]) -> Result<Bytes> {
    let mut record: Record = encoding::decode("record", bytes)?;
    let mut value = record.value.to_vec();
    value.last_mut().into_iter().for_each(|last| *last = mutant::random_digit());
    record.value = value.into();
    Ok(encoding::encode(&record)?.into())
}

/// What [`Mutant::SnapshotDropsAKey`] does: digests stay true, so that only another replica can tell.
pub(crate) fn drop_keys(store: &mut impl Store, view: &(impl View + ?Sized)) -> Result<()> {
    for (bucket, mut meta) in store::buckets(view)? {
        let keys = store::rows(view, bucket, Table::Key, b"", None, false);
        let dropped = keys.filter(|_| mutant::strikes(Mutant::SnapshotDropsAKey, 20));
        let deletion = |name| Write { row: Row { table: Table::Key, name }, value: None };
        let writes: Result<Vec<_>> = dropped.map(|pair| Ok(deletion(pair?.0))).collect();
        make_writes(store, bucket, &mut meta, &writes?)?;
        store.put_meta(bucket, meta)?;
    }
    Ok(())
}

/// A row's part of its bucket's digest. It guards against bit rot and bugs, not against an
/// adversary, so a fast hash is right; the sum does not depend on the order of writes.
#[must_use]
pub fn row_digest(row: &Row, value: &[u8]) -> u128 {
    let bytes = DIGEST_HEAD_BYTES + row.name.len() + value.len();
    let mut joined = [0; DIGEST_JOINED_MAX];
    let Some(joined) = joined.get_mut(..bytes) else { return large_row_digest(row, value) };
    let mut free = &mut *joined;
    free.put_u8(row.table as u8);
    free.put_u64_le(row.name.len() as u64);
    free.put_slice(&row.name);
    free.put_slice(value);
    xxh3_128(joined)
}

/// The same without copying the bytes together, which costs more than it saves where they are many.
fn large_row_digest(row: &Row, value: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&[row.table as u8]);
    hash.update(&(row.name.len() as u64).to_le_bytes());
    hash.update(&row.name);
    hash.update(value);
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It is in meta rows on disk: how it is computed must not show.
        #[test]
        fn digests_of_small_and_large_rows_are_one(name: Vec<u8>, fill: u8, length in 0..1024_usize) {
            let (row, value) = (Row { table: Table::Key, name: name.into() }, vec![fill; length]);
            prop_assert_eq!(row_digest(&row, &value), large_row_digest(&row, &value));
        }
    }
}
