//! The rows that were read or written of late, kept in memory: searching RocksDB's table in memory for a hot row
//! costs some twenty cache misses, and every write looks for the row that it replaces.
//!
//! A row here is the newest one, and says since which commit it has been so. A view may take it if the view stands
//! on that commit or a later one; a view that stands on an older one must ask RocksDB. So that this is exact while
//! a commit is under way, without locks around I/O:
//!
//! - A commit puts its rows here, under its number, *before* it writes them to RocksDB, and is counted as
//!   done after. No view stands on a commit that is not done, so none takes these rows too early; and the rows
//!   that they replace are gone before RocksDB could answer differently.
//! - A view takes the number of commits done *before* its snapshot is made: the snapshot holds those, and perhaps
//!   more.
//! - A row that a view read from RocksDB may be kept only while no commit has begun since the view's: then the
//!   view is the newest state. A commit that begins meanwhile replaces the row after it, by the same lock.
//!
//! One database has one writer at a time (`raft`'s state machine), which [`Recent::begin`] asserts.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Parts with a lock each, so that readers, executors and the writer seldom meet.
const SHARDS: usize = 16;
/// Bytes of all rows, with what keeping them costs.
const BYTES_MAX: usize = 8 << 20;
/// A row that is larger is not kept: what is saved is the search, which is the same for a small one.
const ROW_BYTES_MAX: usize = 4 << 10;
/// What a row costs beside its bytes.
const ROW_OVERHEAD: usize = 128;

/// A row, absent ones too, and the commit since which it has been this one.
struct Entry {
    key: Box<[u8]>,
    since: u64,
    value: Option<Bytes>,
}

/// Rows by the hash of their keys. Of two keys with the same hash one is kept: nothing is lost but time.
type Rows = HashMap<u64, Entry, BuildHasherDefault<Straight>>;

/// Takes a hash for what it is.
#[derive(Default)]
struct Straight(u64);

impl Hasher for Straight {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Rows in two generations: when the young one is full, the old one is dropped and the young one is old. A
/// row that is asked for again is young again. No hash is in both.
#[derive(Default)]
struct Shard {
    young: Rows,
    old: Rows,
    young_bytes: usize,
}

/// Rows of one database.
pub(super) struct Recent {
    shards: [Mutex<Shard>; SHARDS],
    /// Nobody who chooses keys knows their hashes.
    seed: u64,
    begun: AtomicU64,
    done: AtomicU64,
}

impl Default for Recent {
    fn default() -> Self {
        Recent {
            shards: std::array::from_fn(|_| Mutex::default()),
            seed: RandomState::new().hash_one(0),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
        }
    }
}

impl Recent {
    /// The commits that are done: to be asked before a snapshot is made.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// A row, or that there is none, for a view that stands on so many commits.
    pub(super) fn get(&self, key: &[u8], at: u64) -> Option<Option<Bytes>> {
        let hash = self.hash(key);
        self.shard(hash).get(hash, key, at)
    }

    /// Keeps what a view, which stands on so many commits, read from RocksDB.
    pub(super) fn learn(&self, key: &[u8], value: Option<&Bytes>, at: u64) {
        if !is_kept(key, value) {
            return;
        }
        let hash = self.hash(key);
        let mut shard = self.shard(hash);
        if self.begun.load(Ordering::Acquire) == at {
            shard.put(hash, Entry { key: key.into(), since: at, value: value.cloned() });
        }
    }

    /// Begins a commit: what it writes replaces what is kept. The caller then writes it to RocksDB, and says so
    /// by [`Recent::end`].
    pub(super) fn begin(&self, rows: impl IntoIterator<Item = (Vec<u8>, Option<Bytes>)>) {
        let commit = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        assert_eq!(commit, self.done() + 1, "a database has one writer");
        for (key, value) in rows {
            let hash = self.hash(&key);
            let mut shard = self.shard(hash);
            if is_kept(&key, value.as_ref()) {
                shard.put(hash, Entry { key: key.into(), since: commit, value });
            } else {
                shard.forget(hash);
            }
        }
    }

    /// Ends the commit that was begun: RocksDB has it.
    pub(super) fn end(&self) {
        self.done.store(self.begun.load(Ordering::Acquire), Ordering::Release);
    }

    /// Forgets all rows: some changed that were not named, or a commit failed.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            *lock(shard) = Shard::default();
        }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed)
    }

    /// The part of a hash. A table looks at the lowest and the highest bits of it, which must differ within a part.
    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        #[expect(clippy::indexing_slicing, reason = "a remainder")]
        lock(&self.shards[(hash >> 32) as usize % SHARDS])
    }
}

impl Shard {
    fn get(&mut self, hash: u64, key: &[u8], at: u64) -> Option<Option<Bytes>> {
        if let Some(entry) = self.young.get(&hash) {
            return entry.value_at(key, at);
        }
        let entry = self.old.remove(&hash)?;
        let value = entry.value_at(key, at);
        self.put(hash, entry);
        value
    }

    fn put(&mut self, hash: u64, entry: Entry) {
        self.young_bytes += entry.cost();
        if let Some(there) = self.young.get_mut(&hash) {
            // In its place: taking rows out of a table and putting them in again wears it out.
            self.young_bytes -= there.cost();
            *there = entry;
        } else {
            self.old.remove(&hash);
            self.young.insert(hash, entry);
        }
        if self.young_bytes > BYTES_MAX / SHARDS / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }

    /// Forgets the row of a hash, whichever it is.
    fn forget(&mut self, hash: u64) {
        self.old.remove(&hash);
        if let Some(entry) = self.young.remove(&hash) {
            self.young_bytes -= entry.cost();
        }
    }
}

impl Entry {
    /// Its value where it is of this key, for a view that stands on so many commits.
    fn value_at(&self, key: &[u8], at: u64) -> Option<Option<Bytes>> {
        (self.since <= at && *self.key == *key).then(|| self.value.clone())
    }

    fn cost(&self) -> usize {
        cost(&self.key, self.value.as_ref())
    }
}

fn is_kept(key: &[u8], value: Option<&Bytes>) -> bool {
    cost(key, value) <= ROW_BYTES_MAX
}

fn cost(key: &[u8], value: Option<&Bytes>) -> usize {
    key.len() + value.map_or(0, Bytes::len) + ROW_OVERHEAD
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::kv::store::{Get, Store};
    use crate::storage::batch::Batch;
    use crate::storage::db::{Db, Memory, Tuning};
    use crate::storage::view::SnapshotView;

    impl Shard {
        fn bytes(&self) -> usize {
            self.young.values().chain(self.old.values()).map(Entry::cost).sum()
        }
    }

    fn commit(recent: &Recent, rows: &[(&str, Option<&'static str>)]) {
        let row = |(key, value): &(&str, Option<&'static str>)| {
            (key.to_string().into_bytes(), value.map(Bytes::from))
        };
        recent.begin(rows.iter().map(row));
        recent.end();
    }

    #[test]
    fn a_view_takes_no_row_of_a_later_commit() {
        let recent = Recent::default();
        commit(&recent, &[("a", Some("1")), ("b", None)]);
        let at = recent.done();
        assert_eq!(recent.get(b"a", at), Some(Some("1".into())));
        assert_eq!(recent.get(b"b", at), Some(None));
        commit(&recent, &[("a", Some("2"))]);
        assert_eq!(recent.get(b"a", at), None);
        assert_eq!(recent.get(b"b", at), Some(None));
        assert_eq!(recent.get(b"a", recent.done()), Some(Some("2".into())));
    }

    #[test]
    fn what_was_read_before_a_commit_began_is_not_kept() {
        let recent = Recent::default();
        let at = recent.done();
        recent.learn(b"a", None, at);
        assert_eq!(recent.get(b"a", at), Some(None));
        recent.begin([(b"b".to_vec(), None)]);
        recent.learn(b"a", Some(&"late".into()), at);
        recent.end();
        assert_eq!(recent.get(b"a", recent.done()), Some(None));
    }

    #[test]
    fn nothing_of_a_failed_commit_is_left() {
        let recent = Recent::default();
        commit(&recent, &[("a", Some("1"))]);
        recent.begin([(b"a".to_vec(), Some("2".into()))]);
        recent.clear();
        recent.end();
        assert_eq!(recent.get(b"a", recent.done()), None);
    }

    #[test]
    fn rows_of_a_removed_range_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let db = Arc::new(
            Db::create(&dir.path().join("db"), Tuning::default(), &Memory::new(8 << 20)).unwrap(),
        );
        let mut batch = Batch::new(Arc::clone(&db));
        batch.put(b"k".to_vec(), "v".into());
        batch.commit().unwrap();
        assert_eq!(db.newest(b"k").unwrap(), Some("v".into()));
        let mut batch = Batch::new(Arc::clone(&db));
        batch.delete_range(b"a".to_vec(), b"z".to_vec());
        batch.commit().unwrap();
        assert_eq!(db.newest(b"k").unwrap(), None);
        assert_eq!(SnapshotView::new(db).get(b"k").unwrap(), None);
    }

    #[test]
    fn of_two_keys_with_one_hash_neither_is_taken_for_the_other() {
        let (mut shard, hash) = (Shard::default(), 7);
        let entry = |key: &[u8], value: &'static str| Entry {
            key: key.into(),
            since: 1,
            value: Some(value.into()),
        };
        shard.put(hash, entry(b"a", "1"));
        assert_eq!(shard.get(hash, b"b", 1), None);
        shard.put(hash, entry(b"b", "2"));
        assert_eq!(shard.get(hash, b"a", 1), None);
        assert_eq!(shard.get(hash, b"b", 1), Some(Some("2".into())));
        assert_eq!(shard.bytes(), shard.young_bytes);
        // As a row that is too large to be kept does.
        shard.forget(hash);
        assert_eq!((shard.get(hash, b"b", 1), shard.young_bytes), (None, 0));
    }

    #[test]
    fn large_rows_are_forgotten_and_the_rest_is_bounded() {
        let recent = Recent::default();
        commit(&recent, &[("a", Some("1"))]);
        let large = Bytes::from(vec![0; ROW_BYTES_MAX]);
        recent.begin([(b"a".to_vec(), Some(large))]);
        recent.end();
        assert_eq!(recent.get(b"a", recent.done()), None);
        let value = Bytes::from(vec![0; 1000]);
        for number in 0..4 * BYTES_MAX / 1000 {
            recent.learn(&number.to_le_bytes(), Some(&value), recent.done());
        }
        let rows: usize =
            recent.shards.iter().map(lock).map(|shard| shard.young.len() + shard.old.len()).sum();
        assert!((1..BYTES_MAX / 1000).contains(&rows), "{rows} rows");
        // Rows that grow in their place count as well.
        for value in [None, Some(&value)] {
            for number in 0..BYTES_MAX / ROW_OVERHEAD / 4 {
                recent.learn(&number.to_le_bytes(), value, recent.done());
            }
        }
        let bytes = recent.shards.iter().map(lock).map(|shard| shard.bytes()).max().unwrap();
        assert!(bytes <= BYTES_MAX / SHARDS + ROW_BYTES_MAX, "{bytes} bytes in a part");
    }

    /// What a view says is what its RocksDB snapshot says, while another thread commits.
    #[test]
    fn views_agree_with_their_snapshots() {
        const KEYS: u8 = 4;
        let dir = tempfile::tempdir().unwrap();
        let db = Arc::new(
            Db::create(&dir.path().join("db"), Tuning::default(), &Memory::new(8 << 20)).unwrap(),
        );
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let view = SnapshotView::new(Arc::clone(&db));
                        for key in 0..KEYS {
                            let seen = view.get(&[key]).unwrap();
                            let there = view.past_recent(&[key]).unwrap();
                            assert_eq!(seen, there, "key {key}");
                        }
                    }
                });
            }
            for number in 0..20_000_u32 {
                let mut batch = Batch::new(Arc::clone(&db));
                let key = vec![u8::try_from(number % 7).unwrap() % KEYS];
                batch.get(&key).unwrap();
                match number % 5 {
                    0 => batch.delete(key),
                    _ => batch.put(key, Bytes::copy_from_slice(&number.to_le_bytes())),
                }
                batch.commit().unwrap();
                if number % 1000 == 0 {
                    db.recent.clear();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
