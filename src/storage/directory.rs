//! The data directory: its layout, its lock, and whose it is.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::encoding;
use crate::error::{Error, Result};

/// Whose directory this is. A node id with another `instance` is another node: its votes and
/// acknowledgements are not on this disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The node id that the directory was made for.
    pub node_id: u64,
    /// Random; made with the directory.
    pub instance: String,
    /// The cluster, once it belongs to one.
    pub cluster_id: Option<String>,
    /// Whether this node is founding the cluster and may have been interrupted.
    pub founding: bool,
}

/// A locked data directory.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    /// Released by the operating system when the process ends, however it ends.
    _lock: File,
}

impl DataDir {
    /// Opens or makes the directory, takes its lock and clears what the last run left half done.
    pub fn open(root: &Path) -> Result<Self> {
        if !root.exists() {
            fs::create_dir_all(root)?;
            sync_parent(root)?;
        }
        let lock = File::create(root.join("LOCK"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = root.display();
                return Err(Error::Io(format!("{path} is in use by another process")));
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let dir = DataDir { root: root.to_owned(), _lock: lock };
        for scratch in [dir.snapshots(), dir.incoming()] {
            if scratch.exists() {
                fs::remove_dir_all(&scratch)?;
            }
            fs::create_dir_all(&scratch)?;
        }
        fs::create_dir_all(dir.log())?;
        fs::create_dir_all(dir.state())?;
        Ok(dir)
    }

    /// Where the Raft log lies.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Where databases lie.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Where checkpoints lie.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Where snapshots are received.
    #[must_use]
    pub fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    /// Whose directory this is; `None` where it is new.
    pub fn identity(&self) -> Result<Option<Identity>> {
        match fs::read(self.root.join("IDENTITY")) {
            Ok(bytes) => encoding::decode("IDENTITY", &bytes).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.refuse_orphans()?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A directory with data and no identity has lost a file: it is damaged, not new.
    fn refuse_orphans(&self) -> Result<()> {
        let holds_log = fs::read_dir(self.log())?.next().is_some();
        if holds_log || self.state().join("CURRENT").exists() {
            let detail = format!("missing in {}, which holds data", self.root.display());
            return Err(Error::corrupt("IDENTITY", detail));
        }
        Ok(())
    }

    /// Records whose directory this is.
    pub fn set_identity(&self, identity: &Identity) -> Result<()> {
        write_durably(&self.root.join("IDENTITY"), &encoding::encode(identity)?)
    }
}

/// Replaces a file so that a crash leaves the old or the new one, whole.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let scratch = path.with_extension("tmp");
    let mut file = File::create(&scratch)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&scratch, path)?;
    sync_parent(path)
}

/// Makes a rename or a new name in the parent directory survive a power cut.
pub(super) fn sync_parent(path: &Path) -> Result<()> {
    if let Some(parent) = path.parent() {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { node_id: 7, instance: "i".into(), cluster_id: None, founding: false }
    }

    #[test]
    fn identity_survives_and_is_checked() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path()).unwrap();
        assert_eq!(dir.identity().unwrap(), None);
        dir.set_identity(&identity()).unwrap();
        drop(dir);
        let dir = DataDir::open(root.path()).unwrap();
        assert_eq!(dir.identity().unwrap(), Some(identity()));

        let path = root.path().join("IDENTITY");
        let mut bytes = fs::read(&path).unwrap();
        bytes[3] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(dir.identity(), Err(Error::Corrupt { what: "IDENTITY", .. })));

        fs::remove_file(&path).unwrap();
        assert_eq!(dir.identity().unwrap(), None, "nothing else is there");
        fs::write(dir.log().join("chunk"), b"x").unwrap();
        assert!(matches!(dir.identity(), Err(Error::Corrupt { what: "IDENTITY", .. })));
    }

    #[test]
    fn one_process_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let _held = DataDir::open(root.path()).unwrap();
        let refused = DataDir::open(root.path()).unwrap_err();
        assert!(refused.to_string().contains("in use by another process"));
    }
}
