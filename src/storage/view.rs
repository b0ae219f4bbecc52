//! A point in time of the database, kept alive by itself.

use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{Direction, IteratorMode, ReadOptions};

use super::db::{Db, storage_error};
use crate::error::Result;
use crate::kv::store::{Get, Pair, View};

type Snapshot<'db> = rocksdb::SnapshotWithThreadMode<'db, rocksdb::DB>;

mod owned {
    use super::{Arc, Db, Snapshot};

    self_cell::self_cell!(
        /// A snapshot together with the database it belongs to.
        pub(super) struct OwnedSnapshot {
            owner: Arc<Db>,
            #[covariant]
            dependent: Snapshot,
        }
    );
}

/// A RocksDB snapshot as a view.
pub(super) struct SnapshotView {
    snapshot: owned::OwnedSnapshot,
    /// The commits that were done before it was made.
    at: u64,
}

impl SnapshotView {
    pub(super) fn new(db: Arc<Db>) -> Self {
        let at = db.recent.done();
        SnapshotView { snapshot: owned::OwnedSnapshot::new(db, |db| db.rocks().snapshot()), at }
    }

    /// A row as the snapshot has it.
    pub(super) fn past_recent(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.snapshot.borrow_dependent().get_pinned(key).map_err(storage_error)?;
        Ok(value.map(|bytes| Bytes::copy_from_slice(&bytes)))
    }
}

/// The database as it is at each look.
pub(super) struct Latest(pub(super) Arc<Db>);

impl Get for Latest {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.newest(key)
    }
}

impl Get for SnapshotView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let recent = &self.snapshot.borrow_owner().recent;
        if let Some(value) = recent.get(key, self.at) {
            return Ok(value);
        }
        let value = self.past_recent(key)?;
        recent.learn(key, value.as_ref(), self.at);
        Ok(value)
    }
}

impl View for SnapshotView {
    fn scan(&self, start: &[u8], end: &[u8], reverse: bool) -> Box<dyn Iterator<Item = Pair> + '_> {
        if start >= end {
            return Box::new(std::iter::empty());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(start);
        options.set_iterate_upper_bound(end);
        let mode =
            if reverse { IteratorMode::End } else { IteratorMode::From(start, Direction::Forward) };
        // The iterator asks for its status when it ends, and yields an error it finds there: a
        // damaged block never looks like the end of the range.
        let pairs = self.snapshot.borrow_dependent().iterator_opt(mode, options);
        Box::new(pairs.map(|pair| {
            let (key, value) = pair.map_err(storage_error)?;
            Ok((Bytes::from(key.into_vec()), Bytes::from(value.into_vec())))
        }))
    }
}
