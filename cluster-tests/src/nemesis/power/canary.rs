//! Two files that tell whether a disk lost its power: one must survive it, one must not.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Bytes of a file.
const BYTES: usize = 16 << 10;
/// What they are.
const BYTE: u8 = 0xa5;

/// The two files, beside a node's data.
pub(super) struct Canary {
    synced: PathBuf,
    unsynced: PathBuf,
}

impl Canary {
    /// Writes both, and syncs one.
    pub(super) fn put(mount: &Path) -> Result<Self, String> {
        let canary = Canary { synced: mount.join("synced"), unsynced: mount.join("unsynced") };
        let put = write(&canary.synced)
            .and_then(|file| file.sync_all())
            .and_then(|()| File::open(mount)?.sync_all())
            // Last: the journal's commit must not take it along.
            .and_then(|()| write(&canary.unsynced));
        put.map_err(|e| format!("{}: {e}", mount.display()))?;
        Ok(canary)
    }

    /// What is left of them; removes them.
    pub(super) fn look(&self) -> Result<String, String> {
        let (synced, unsynced) = (fs::read(&self.synced), fs::read(&self.unsynced));
        // The one that was lost may be gone already.
        let _ = (fs::remove_file(&self.synced), fs::remove_file(&self.unsynced));
        let synced = synced.map_err(|e| format!("the synced file: {e}"))?;
        if !is_whole(&synced) {
            return Err(format!("the synced file has {} bytes, not as written", synced.len()));
        }
        match unsynced {
            Err(_) => Ok("unsynced file gone, synced whole".to_owned()),
            Ok(bytes) if is_whole(&bytes) => Err("the unsynced file survived".to_owned()),
            Ok(bytes) => {
                Ok(format!("unsynced file has {} of {BYTES} bytes, synced whole", bytes.len()))
            }
        }
    }
}

fn write(path: &Path) -> std::io::Result<File> {
    let mut file = File::create(path)?;
    file.write_all(&[BYTE; BYTES])?;
    Ok(file)
}

fn is_whole(bytes: &[u8]) -> bool {
    bytes.len() == BYTES && bytes.iter().all(|byte| *byte == BYTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_cut_the_unsynced_file_survives() {
        let dir = tempfile::tempdir().unwrap();
        let canary = Canary::put(dir.path()).unwrap();
        assert!(canary.look().unwrap_err().contains("survived"));
    }

    #[test]
    fn a_torn_synced_file_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let canary = Canary::put(dir.path()).unwrap();
        fs::write(&canary.synced, b"x").unwrap();
        assert!(canary.look().unwrap_err().contains("synced file has 1 bytes"));
        let canary = Canary::put(dir.path()).unwrap();
        fs::remove_file(&canary.unsynced).unwrap();
        assert!(canary.look().unwrap().contains("gone"));
    }
}
