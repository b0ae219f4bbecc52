//! Checkpoints: the database at one moment, as a directory of hard links.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::db::Db;
use super::directory::sync_parent;
use super::pace::{Pace, Paced};
use super::view::SnapshotView;
use crate::error::{Error, Result};
use crate::kv::store::{self, Pair};
use crate::kv::{Get, SharedView, View};

/// A directory that holds a whole database which nobody writes. It goes when its last user is gone.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
}

impl Checkpoint {
    /// Takes over a directory.
    #[must_use]
    pub fn adopt(path: PathBuf) -> Self {
        Checkpoint { path }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files with their sizes, in order of name.
    pub fn files(&self) -> Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "LOCK" && !name.starts_with("LOG") {
                files.push((name, entry.metadata()?.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    /// What it holds.
    pub fn view(&self) -> Result<SharedView> {
        Ok(Arc::new(SnapshotView::new(Arc::new(Db::open_read_only(&self.path)?))))
    }

    /// Reads every row and compares it with the digests: the bytes are what `apply` wrote. It blocks, and
    /// keeps a pace; it ends with an error at the next row once it is told to stop.
    pub fn verify(&self, pace: Pace, stop: &AtomicBool) -> Result<()> {
        store::verify(&PacedView { view: self.view()?, paced: Mutex::new(pace.begin()), stop })
    }

    /// Moves the directory to its place as a database.
    pub(super) fn move_to(self, path: &Path) -> Result<()> {
        fs::rename(&self.path, path)?;
        sync_parent(path)
    }
}

/// A view whose reader rests now and then, and may be stopped.
struct PacedView<'a> {
    view: SharedView,
    paced: Mutex<Paced>,
    stop: &'a AtomicBool,
}

impl Get for PacedView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.view.get(key)
    }
}

impl View for PacedView<'_> {
    fn scan(&self, start: &[u8], end: &[u8], reverse: bool) -> Box<dyn Iterator<Item = Pair> + '_> {
        Box::new(self.view.scan(start, end, reverse).map(|pair| {
            let bytes = pair.as_ref().map_or(0, |(key, value)| key.len() + value.len());
            let rest = self.paced.lock().unwrap_or_else(PoisonError::into_inner).rest(bytes);
            std::thread::sleep(rest);
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Io("nobody waits for this check any more".to_owned()));
            }
            pair
        }))
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        // Absent where it was moved, or where the process is being torn down.
        let _ = fs::remove_dir_all(&self.path);
    }
}
