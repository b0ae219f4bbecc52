//! Cuts a torn tail and refuses damage, before raft-log opens the files.
//!
//! raft-log judges by the first record that it cannot read: where the file ends inside it or only
//! zeros follow, it cuts, else it refuses. Both go wrong. A flipped bit in a length makes a record
//! reach past the end, and all records after it would be cut though they were synced. And a write
//! that was never synced may leave any bytes after a power loss, also in another order than
//! written, which would refuse a healthy log.
//!
//! So the log says itself what was synced: everything written after a sync begins with a [`Mark`],
//! which names its own position. One batch is written, then synced, before a byte of the next is
//! written. A mark after an unreadable record hence proves that the record was synced: it is damage.
//! Without a mark after it, it belongs to the last batch, which may be torn, and is cut.
//!
//! Marks cannot show that the end is missing: the file was cut, or is an old copy, or is gone. That is
//! what the position is for that was last noted as synced ([`super::synced`]): a log that ends before
//! it is damaged.
//!
//! What that leaves: damage to the last batches is taken for a torn tail where the power was cut before
//! the kernel had written back both the mark behind them and the note.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use raft_log::chunked_wal::{ChunkedWal, Config};
use raft_log::codeq::Decode;
use raft_log::{RaftLogRecord, RaftWalTypes, WALRecord};
use tracing::warn;

use super::WHAT;
use super::codec::{Mark, Records};
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};

type Wal = ChunkedWal<RaftWalTypes<Records>>;
type Record = RaftLogRecord<Records>;

/// How a mark's record begins: the type of a state record, and its version.
const MARK_HEAD: [u8; 5] = [0, 0, 0, 5, 1];

/// Mends the newest file of the log. The older ones were synced before it was begun, and raft-log
/// refuses any damage in them.
///
/// A file without one whole record goes: its first record is written once the file before it is
/// synced, so that one may be torn too. Nothing before the position `synced` may be missing.
pub(super) fn mend(config: &Config, synced: u64) -> Result<()> {
    let lock = Wal::acquire_lock(config)?;
    for id in Wal::load_chunk_ids(config, &lock)?.into_iter().rev() {
        let path = PathBuf::from(config.chunk_path(id));
        if mend_file(&path, id.offset(), synced)? > 0 {
            return Ok(());
        }
        fs::remove_file(&path)?;
        config.sync_dir()?;
    }
    reaches(Path::new(&config.dir), 0, synced)
}

/// Refuses a log that ends before what was synced.
fn reaches(path: &Path, end: u64, synced: u64) -> Result<()> {
    if end < synced && !mutant::is(Mutant::SkipCorrupt) {
        let detail = format!("{} ends at {end}, and was synced up to {synced}", path.display());
        return Err(Error::corrupt(WHAT, detail));
    }
    Ok(())
}

/// Leaves only whole records in a file that starts at a position of the log, all on disk, and says
/// how many bytes they are.
fn mend_file(path: &Path, start: u64, synced: u64) -> Result<u64> {
    let bytes = fs::read(path)?;
    let good = readable(&bytes);
    let (_, rest) = bytes.split_at(good);
    let (good, offset) = (good as u64, start + good as u64);
    if let Some(mark) = find_mark(rest, offset)
        && !mutant::is(Mutant::SkipCorrupt)
    {
        let detail = format!("{} is damaged at {offset}, before {mark}", path.display());
        return Err(Error::corrupt(WHAT, detail));
    }
    reaches(path, offset, synced)?;
    let file = OpenOptions::new().write(true).open(path)?;
    if !rest.is_empty() {
        warn!(path = %path.display(), offset, bytes = rest.len(), "cutting a torn tail off the log");
        file.set_len(good)?;
    }
    // After a crash of the process the last batch may be whole but not synced, and the next mark
    // will say that it is.
    file.sync_all()?;
    Ok(good)
}

/// How many bytes from the start are whole records.
fn readable(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    loop {
        let before = rest.len();
        if before == 0 || Record::decode(&mut rest).is_err() {
            return bytes.len() - before;
        }
    }
}

/// The position of a mark in bytes that begin at a position of the log.
fn find_mark(bytes: &[u8], offset: u64) -> Option<u64> {
    let heads = bytes.windows(MARK_HEAD.len()).enumerate().filter(|(_, head)| *head == MARK_HEAD);
    heads.map(|(at, _)| at).find_map(|at| {
        let position = offset + at as u64;
        let (_, mut record) = bytes.split_at(at);
        match Record::decode(&mut record) {
            Ok(WALRecord::Checkpoint(state)) if state.user_data == Some(Mark(position)) => {
                Some(position)
            }
            _ => None,
        }
    })
}
