//! The database in use, and how a snapshot takes its place.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::batch::Batch;
use super::checkpoint::Checkpoint;
use super::db::{Db, Memory, Tuning, storage_error};
use super::directory::{DataDir, sync_parent, write_durably};
use super::view::{Latest, SnapshotView};
use crate::error::{Error, Result};
use crate::kv::keyspace::APPLIED;
use crate::kv::{Get, SharedView};

/// Replicated state on disk.
pub struct State {
    dir: PathBuf,
    snapshots: PathBuf,
    /// Locked only to take or replace the handle, never during I/O on the database.
    current: RwLock<Arc<Db>>,
    checkpoints: AtomicU64,
    tuning: Tuning,
    memory: Memory,
}

impl State {
    /// Opens the database that `CURRENT` names, or makes the first one.
    pub fn open(data: &DataDir, tuning: Tuning) -> Result<Self> {
        let dir = data.state();
        let memory = Memory::new(tuning.memory_bytes);
        let path = match read_current(&dir)? {
            Some(name) => dir.join(name),
            None => create_first(&dir, tuning, &memory)?,
        };
        remove_others(&dir, &path)?;
        Ok(State {
            snapshots: data.snapshots(),
            current: RwLock::new(Arc::new(Db::open(&path, tuning, &memory)?)),
            checkpoints: AtomicU64::new(0),
            tuning,
            memory,
            dir,
        })
    }

    /// The state at this moment.
    #[must_use]
    pub fn view(&self) -> SharedView {
        Arc::new(SnapshotView::new(self.db()))
    }

    /// The newest state at each look: for one look, for which a snapshot would be made in vain.
    #[must_use]
    pub fn latest(&self) -> impl Get + use<> {
        Latest(self.db())
    }

    /// A batch of changes on top of the state.
    #[must_use]
    pub fn batch(&self) -> Batch {
        Batch::new(self.db())
    }

    /// Flushes, then makes a checkpoint: after it, what it holds survives a power cut in the database
    /// too. May take seconds; changes go on meanwhile.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let number = self.checkpoints.fetch_add(1, Ordering::Relaxed);
        let path = self.snapshots.join(format!("checkpoint-{number}"));
        let db = self.db();
        rocksdb::checkpoint::Checkpoint::new(db.rocks())
            .and_then(|checkpoint| checkpoint.create_checkpoint(&path))
            .map_err(storage_error)?;
        sync_parent(&path)?;
        Ok(Checkpoint::adopt(path))
    }

    /// Replaces the whole state by a checkpoint's. Views taken before go on seeing the old one.
    pub fn install(&self, checkpoint: Checkpoint) -> Result<()> {
        let old = self.db();
        let path = self.dir.join(next_name(old.path()));
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        checkpoint.move_to(&path)?;
        let db = Arc::new(Db::open(&path, self.tuning, &self.memory)?);
        write_current(&self.dir, &path)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = db;
        old.doom();
        Ok(())
    }

    /// Writes what is in memory to disk, so that the next start has less to replay.
    pub fn flush(&self) -> Result<()> {
        self.db().rocks().flush().map_err(storage_error)
    }

    /// Gives back the space of one range that was removed; whether there was one. May take seconds;
    /// changes go on meanwhile.
    #[must_use]
    pub fn reclaim(&self) -> bool {
        self.db().reclaim()
    }

    fn db(&self) -> Arc<Db> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read_current(dir: &Path) -> Result<Option<String>> {
    match fs::read_to_string(dir.join("CURRENT")) {
        Ok(name) if dir.join(name.trim()).is_dir() => Ok(Some(name.trim().to_owned())),
        Ok(name) => Err(Error::corrupt("state/CURRENT", format!("no directory {name:?}"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn write_current(dir: &Path, db: &Path) -> Result<()> {
    let name = db.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    write_durably(&dir.join("CURRENT"), name.as_bytes())
}

fn create_first(dir: &Path, tuning: Tuning, memory: &Memory) -> Result<PathBuf> {
    let path = dir.join("db-1");
    for entry in fs::read_dir(dir)? {
        let found = entry?.path();
        // An empty one is left by a first start that ended before CURRENT was written.
        if found.is_dir() && (found != path || holds_state(&found)?) {
            let detail = format!("missing, and {} holds data", found.display());
            return Err(Error::corrupt("state/CURRENT", detail));
        }
    }
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    drop(Db::create(&path, tuning, memory)?);
    sync_parent(&path)?;
    write_current(dir, &path)?;
    Ok(path)
}

/// Whether anything was ever applied to a database and written out.
fn holds_state(path: &Path) -> Result<bool> {
    if !path.join("CURRENT").exists() {
        return Ok(false);
    }
    Ok(Db::open_read_only(path)?.rocks().get(APPLIED).map_err(storage_error)?.is_some())
}

/// Removes databases that an interrupted install left behind.
fn remove_others(dir: &Path, keep: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && path != keep {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

fn next_name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let number: u64 = name.strip_prefix("db-").and_then(|n| n.parse().ok()).unwrap_or(0);
    format!("db-{}", number + 1)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::kv::store::{Get, Store};

    fn put(state: &State, key: &str, value: &'static str) {
        let mut batch = state.batch();
        batch.put(key.into(), Bytes::from_static(value.as_bytes()));
        batch.commit().unwrap();
    }

    fn all(view: &SharedView) -> Vec<(String, String)> {
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        view.scan(b"a", b"z", false)
            .map(|pair| pair.map(|(key, value)| (text(key), text(value))).unwrap())
            .collect()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn a_view_stays_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(&DataDir::open(root.path()).unwrap(), Tuning::default()).unwrap();
        put(&state, "k", "1");
        let view = state.view();
        put(&state, "k", "2");
        put(&state, "l", "3");
        assert_eq!(all(&view), [pair("k", "1")]);
        assert_eq!(all(&state.view()), [pair("k", "2"), pair("l", "3")]);
        let reversed: Vec<_> =
            state.view().scan(b"k", b"l", true).map(|pair| pair.unwrap().0).collect();
        assert_eq!(reversed, ["k"]);
    }

    #[test]
    fn a_batch_reads_its_own_changes_and_vanishes_if_dropped() {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(&DataDir::open(root.path()).unwrap(), Tuning::default()).unwrap();
        put(&state, "k", "1");
        let mut batch = state.batch();
        batch.delete(b"k".to_vec());
        batch.put(b"l".to_vec(), Bytes::from_static(b"2"));
        assert_eq!(batch.get(b"k").unwrap(), None);
        assert_eq!(batch.get(b"l").unwrap().unwrap(), "2");
        batch.delete_range(b"l".to_vec(), b"m".to_vec());
        drop(batch);
        assert_eq!(all(&state.view()), [pair("k", "1")]);
        let mut batch = state.batch();
        batch.delete_range(b"a".to_vec(), b"z".to_vec());
        batch.put(b"n".to_vec(), Bytes::from_static(b"3"));
        batch.commit().unwrap();
        assert_eq!(all(&state.view()), [pair("n", "3")]);
    }

    #[test]
    fn space_of_a_removed_range_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path()).unwrap();
        let state = State::open(&dir, Tuning::default()).unwrap();
        let mut batch = state.batch();
        for number in 0..1000_u32 {
            // What cannot be made smaller: each byte another.
            let value: Vec<u8> =
                (0..1000_u32).map(|i| ((i * (number + 7919)) >> 7) as u8).collect();
            batch.put(format!("a{number:04}").into(), value.into());
        }
        batch.commit().unwrap();
        state.flush().unwrap();
        let size = || {
            let files = fs::read_dir(dir.state().join("db-1")).unwrap().map(|file| file.unwrap());
            let tables = files.filter(|file| file.path().extension().is_some_and(|e| e == "sst"));
            tables.map(|file| file.metadata().unwrap().len()).sum::<u64>()
        };
        let full = size();
        let mut batch = state.batch();
        batch.delete_range(b"a".to_vec(), b"b".to_vec());
        batch.commit().unwrap();
        assert!(state.reclaim() && !state.reclaim());
        assert!(size() < full / 10, "{} of {full}", size());
    }

    #[test]
    fn a_checkpoint_replaces_the_state_and_absent_keys_vanish() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from_dir, to_dir) =
            (DataDir::open(a.path()).unwrap(), DataDir::open(b.path()).unwrap());
        let (from, to) = (
            State::open(&from_dir, Tuning::default()).unwrap(),
            State::open(&to_dir, Tuning::default()).unwrap(),
        );
        put(&from, "k", "1");
        put(&to, "old", "gone");
        let checkpoint = from.checkpoint().unwrap();
        put(&from, "later", "2");
        let before = to.view();
        to.install(checkpoint).unwrap();
        assert_eq!(all(&before), [pair("old", "gone")]);
        assert_eq!(all(&to.view()), [pair("k", "1")]);
        drop(before);
        put(&to, "new", "3");
        to.flush().unwrap();
        drop(to);
        // Reopened: what the pointer names, and nothing else on disk.
        drop(to_dir);
        let to_dir = DataDir::open(b.path()).unwrap();
        let to = State::open(&to_dir, Tuning::default()).unwrap();
        assert_eq!(all(&to.view()), [pair("k", "1"), pair("new", "3")]);
        assert_eq!(fs::read_dir(to_dir.state()).unwrap().count(), 2);
    }

    #[test]
    fn a_lost_pointer_is_named_and_nothing_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path()).unwrap();
        let state = State::open(&dir, Tuning::default()).unwrap();
        drop(state);
        fs::remove_file(dir.state().join("CURRENT")).unwrap();
        let state = State::open(&dir, Tuning::default()).unwrap();
        let mut batch = state.batch();
        batch.put(APPLIED.to_vec(), Bytes::from_static(b"1"));
        batch.commit().unwrap();
        state.flush().unwrap();
        drop(state);
        fs::remove_file(dir.state().join("CURRENT")).unwrap();
        assert!(matches!(
            State::open(&dir, Tuning::default()),
            Err(Error::Corrupt { what: "state/CURRENT", .. })
        ));
        assert!(dir.state().join("db-1/CURRENT").exists());
    }

    #[test]
    fn a_checkpoint_is_flushed_without_a_log() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path()).unwrap();
        let state = State::open(&dir, Tuning::default()).unwrap();
        put(&state, "k", "1");
        let checkpoint = state.checkpoint().unwrap();
        put(&state, "l", "2");
        // What a crash leaves: the files as they are on disk now.
        let copy = root.path().join("crashed");
        copy_dir(&dir.state().join("db-1"), &copy);
        let crashed = Checkpoint::adopt(copy);
        assert_eq!(all(&crashed.view().unwrap()), [pair("k", "1")]);
        assert_eq!(all(&checkpoint.view().unwrap()), [pair("k", "1")]);
    }

    fn copy_dir(from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }

    /// RocksDB makes an empty database where it finds none: a lost one must not come back as a new one.
    #[test]
    fn a_database_without_its_files_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path()).unwrap();
        let state = State::open(&dir, Tuning::default()).unwrap();
        put(&state, "a", "1");
        state.flush().unwrap();
        drop(state);
        for file in std::fs::read_dir(dir.state().join("db-1")).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        let opened = State::open(&dir, Tuning::default());
        assert!(matches!(opened, Err(Error::Corrupt { what: "state", .. })));
    }
}
