//! Checkpoints: the database at one moment, as a directory of hard links.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::db::Db;
use super::directory::sync_parent;
use super::view::SnapshotView;
use crate::error::Result;
use crate::kv::SharedView;
use crate::kv::store;

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

    /// Reads every row and compares it with the digests: the bytes are what `apply` wrote.
    pub fn verify(&self) -> Result<()> {
        store::verify(&*self.view()?)
    }

    /// Moves the directory to its place as a database.
    pub(super) fn move_to(self, path: &Path) -> Result<()> {
        fs::rename(&self.path, path)?;
        sync_parent(path)
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        // Absent where it was moved, or where the process is being torn down.
        let _ = fs::remove_dir_all(&self.path);
    }
}
