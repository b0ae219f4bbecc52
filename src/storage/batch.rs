//! A batch of entries' effects: read back while it grows, written as one.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{WriteBatch, WriteOptions};

use super::db::{Db, storage_error};
use crate::error::Result;
use crate::kv::store::{Get, Store};

/// Changes that are made all or not at all by [`Batch::commit`]. Dropping it undoes them.
pub struct Batch {
    db: Arc<Db>,
    /// What the batch has changed, for entries that read what earlier ones wrote.
    pending: HashMap<Vec<u8>, Option<Bytes>>,
    /// In the order they were asked for, after which the pending changes are made.
    deleted_ranges: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Batch {
    pub(super) fn new(db: Arc<Db>) -> Self {
        Batch { db, pending: HashMap::new(), deleted_ranges: Vec::new() }
    }

    /// Makes all changes at once. They are not on disk yet: the Raft log is.
    pub fn commit(self) -> Result<()> {
        let recent = &self.db.recent;
        recent.begin(self.pending.iter().map(|(key, value)| (key.as_slice(), value.as_ref())));
        if !self.deleted_ranges.is_empty() {
            recent.clear();
        }
        let mut batch = WriteBatch::default();
        for (start, end) in &self.deleted_ranges {
            batch.delete_range(start, end);
        }
        // In order: RocksDB then begins each search where the last one ended.
        let mut rows: Vec<_> = self.pending.into_iter().collect();
        rows.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for (key, value) in rows {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        let written = self.db.rocks().write_opt(batch, &options).map_err(storage_error);
        if written.is_err() {
            recent.clear();
        }
        recent.end();
        written?;
        self.deleted_ranges.into_iter().for_each(|range| self.db.remember_removed(range));
        Ok(())
    }
}

impl Get for Batch {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        if let Some(value) = self.pending.get(key) {
            return Ok(value.clone());
        }
        self.db.newest(key)
    }
}

impl Store for Batch {
    fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.pending.insert(key, Some(value));
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.pending.insert(key, None);
    }

    fn delete_range(&mut self, start: Vec<u8>, end: Vec<u8>) {
        self.pending.retain(|key, _| *key < start || *key >= end);
        self.deleted_ranges.push((start, end));
    }
}
