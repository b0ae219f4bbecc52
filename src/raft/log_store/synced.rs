//! How far the log is synced, in a file beside it: a second witness.
//!
//! A log cannot tell that its end is missing. Cut off between two records, or put back as it was a while
//! ago, it looks like one that was never written further, and the node would have forgotten entries and
//! votes that it gave its word on. So the position that a sync reached is noted here before anybody
//! hears of the sync.
//!
//! The note itself is not synced, so it costs no time on the disk. It outlives the process; after a
//! power cut it may be an older one. It never names more than what is on disk.
//!
//! Invariants:
//! - The file is there, on disk, before the first record of the log.
//! - It is written in place, thirteen bytes at its start: one sector, of which a disk writes all or nothing.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::WHAT;
use crate::encoding;
use crate::error::{Error, Result};
use crate::storage::write_durably;

/// The file's name.
const NAME: &str = "SYNCED";

/// The file, open for notes.
#[derive(Clone, Debug)]
pub(super) struct Synced {
    file: Arc<File>,
}

impl Synced {
    /// Opens the file of a log's directory and tells what it says. It is made in an empty directory; in
    /// any other it has been lost.
    pub(super) fn open(dir: &Path) -> Result<(Self, u64)> {
        let path = dir.join(NAME);
        if !path.exists() {
            refuse_orphans(dir)?;
            write_durably(&path, &encode(0)?)?;
        }
        let bytes = encoding::decode::<[u8; 8]>(WHAT, &fs::read(&path)?)
            .map_err(|e| Error::corrupt(WHAT, format!("{}: {e}", path.display())))?;
        let file = Arc::new(OpenOptions::new().write(true).open(&path)?);
        Ok((Synced { file }, u64::from_be_bytes(bytes)))
    }

    /// Notes that everything before a position is on disk.
    pub(super) fn note(&self, position: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(position).map_err(io::Error::other)?, 0)
    }
}

/// Of the same length for every position.
fn encode(position: u64) -> Result<Vec<u8>> {
    encoding::encode(&position.to_be_bytes())
}

fn refuse_orphans(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Left where making the file was interrupted.
        if entry.path() != dir.join(NAME).with_extension("tmp") {
            let found = entry.file_name();
            let detail = format!("{NAME} is missing in {}, which holds {found:?}", dir.display());
            return Err(Error::corrupt(WHAT, detail));
        }
    }
    Ok(())
}
