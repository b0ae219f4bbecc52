//! A batch of entries' effects: read back while it grows, written as one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{WriteBatch, WriteOptions};

use super::db::{Db, storage_error};
use crate::encoding;
use crate::error::Result;
use crate::kv::store::{self, Get, Store};
use crate::kv::{BucketId, BucketMeta, keyspace};

/// What RocksDB writes beside a row's bytes: its kind, and two lengths.
const ROW_OVERHEAD: usize = 12;

/// Changes that are made all or not at all by [`Batch::commit`]. Dropping it undoes them.
pub struct Batch {
    db: Arc<Db>,
    /// What the batch has changed, for entries that read what earlier ones wrote. In order: RocksDB then begins
    /// each search where the last one ended.
    pending: BTreeMap<Vec<u8>, Option<Bytes>>,
    /// Meta rows that the batch has changed and that are not among the pending changes yet: all commands
    /// of a bucket change one, so it is encoded once, when the batch is complete.
    metas: BTreeMap<BucketId, BucketMeta>,
    /// In the order they were asked for, after which the pending changes are made.
    deleted_ranges: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Batch {
    pub(super) fn new(db: Arc<Db>) -> Self {
        let (pending, metas) = (BTreeMap::new(), BTreeMap::new());
        Batch { db, pending, metas, deleted_ranges: Vec::new() }
    }

    /// Makes all changes at once. They are not on disk yet: the Raft log is.
    pub fn commit(mut self) -> Result<()> {
        for (bucket, meta) in self.metas {
            self.pending.insert(keyspace::meta_key(bucket), Some(encoding::encode(&meta)?.into()));
        }
        let mut batch = WriteBatch::with_capacity_bytes(write_bytes(&self.pending));
        for (start, end) in &self.deleted_ranges {
            batch.delete_range(start, end);
        }
        for (key, value) in &self.pending {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        let recent = &self.db.recent;
        recent.begin(self.pending);
        if !self.deleted_ranges.is_empty() {
            recent.clear();
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

    /// A meta row that is kept decoded, by its key.
    fn kept_meta(&self, key: &[u8]) -> Result<Option<&BucketMeta>> {
        if self.metas.is_empty() || !keyspace::is_meta(key) {
            return Ok(None);
        }
        Ok(self.metas.get(&keyspace::meta_bucket(key)?))
    }

    /// Sets or removes a key by its bytes: a meta row that was kept decoded is not the newest any more.
    fn set(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        if keyspace::is_meta(&key)
            && let Ok(bucket) = keyspace::meta_bucket(&key)
        {
            self.metas.remove(&bucket);
        }
        self.pending.insert(key, value);
    }
}

/// What changes take in a batch of RocksDB, more or less: it grows by copying.
fn write_bytes(pending: &BTreeMap<Vec<u8>, Option<Bytes>>) -> usize {
    let row = |(key, value): (&Vec<u8>, &Option<Bytes>)| {
        ROW_OVERHEAD + key.len() + value.as_ref().map_or(0, Bytes::len)
    };
    ROW_OVERHEAD + pending.iter().map(row).sum::<usize>()
}

impl Get for Batch {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        if let Some(meta) = self.kept_meta(key)? {
            return Ok(Some(encoding::encode(meta)?.into()));
        }
        if let Some(value) = self.pending.get(key) {
            return Ok(value.clone());
        }
        self.db.newest(key)
    }
}

impl Store for Batch {
    fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.set(key, Some(value));
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.set(key, None);
    }

    fn delete_range(&mut self, start: Vec<u8>, end: Vec<u8>) {
        let is_outside = |key: &Vec<u8>| *key < start || *key >= end;
        self.pending.retain(|key, _| is_outside(key));
        self.metas.retain(|bucket, _| is_outside(&keyspace::meta_key(*bucket)));
        self.deleted_ranges.push((start, end));
    }

    fn replace(&mut self, key: Vec<u8>, value: Option<Bytes>) -> Result<Option<Bytes>> {
        debug_assert!(!keyspace::is_meta(&key), "a meta row is no row of a bucket");
        match self.pending.entry(key) {
            Entry::Occupied(mut there) => Ok(there.insert(value)),
            Entry::Vacant(free) => {
                let old = self.db.newest(free.key())?;
                free.insert(value);
                Ok(old)
            }
        }
    }

    fn meta(&self, bucket: BucketId) -> Result<Option<BucketMeta>> {
        match self.metas.get(&bucket) {
            Some(meta) => Ok(Some(meta.clone())),
            None => store::meta(self, bucket),
        }
    }

    fn put_meta(&mut self, bucket: BucketId, meta: BucketMeta) -> Result<()> {
        self.metas.insert(bucket, meta);
        Ok(())
    }
}
