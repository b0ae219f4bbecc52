//! The log's files: segments of one size, whose space is kept and used again.
//!
//! A sync of a file that has grown is two writes for the disk, the second for the file's size; a sync of bytes that were
//! there before is one. So a file grows by steps of zeros, ahead of what is written, and a segment whose
//! entries are purged is kept as a spare, under another name, until a new segment is begun in it.
//!
//! ```text
//! name           20 digits, the position in the log of its first byte, then `.log`
//! beginning      magic, 8 bytes ‖ position u64 ‖ nonce u64 ‖ XXH3-64 of these u64, big endian
//! then frames    the first of them one record, the head: what the log says besides entries
//! ```
//!
//! A segment gets its name when its beginning and its head are on disk. So one that has a name and no head was
//! damaged. The nonce is drawn anew each time: see [`frame`].
//!
//! Invariants:
//! - A segment is begun only when the one before it is synced: where there is a next one, a segment ends where that
//!   one begins.
//! - Spares hold nothing. Losing them costs only time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::WHAT;
use super::codec::{self, Head, Record};
use super::frame::{self, FRAME_HEAD_BYTES};
use crate::error::{Error, Result};

/// Bytes of a segment before its second frame.
pub(super) const BEGINNING_BYTES: u64 =
    (PREAMBLE_BYTES + FRAME_HEAD_BYTES + codec::HEAD_BYTES) as u64;
const PREAMBLE_BYTES: usize = 32;
const MAGIC: [u8; 8] = *b"KVDBLOG\x01";
/// By how much a file grows at a time.
const STEP_BYTES: u64 = 256 << 10;
/// In which pieces: a page of memory, and a block of most file systems.
const PIECE_BYTES: u64 = ZEROS.len() as u64;
const ZEROS: [u8; 4096] = [0; 4096];
/// Spares that are kept.
const SPARES_MAX: usize = 8;
/// How the name of a segment ends, and how that of a spare begins.
const SUFFIX: &str = ".log";
const SPARE: &str = "spare-";

/// One file of the log.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// The position of its first byte in the log.
    pub(super) start: u64,
    /// What the checksums of its frames begin with.
    pub(super) nonce: u64,
    file: Arc<File>,
}

impl Segment {
    /// Bytes at a position of the log.
    pub(super) fn read(&self, position: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, position - self.start)?;
        Ok(bytes)
    }
}

/// The newest segment, to be written.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) segment: Segment,
    /// Bytes of the file, zeros ahead included.
    room: u64,
    /// What the file does not grow beyond, but for a frame that is larger.
    segment_bytes: u64,
}

impl Tail {
    /// Seals a frame and writes it at a position of the log, where the file must grow first.
    pub(super) fn write(&mut self, frame: &mut [u8], position: u64) -> Result<()> {
        frame::seal(frame, self.segment.nonce, position)?;
        let at = position - self.segment.start;
        let end = at + frame.len() as u64;
        if end > self.room {
            self.grow(end.next_multiple_of(STEP_BYTES).min(self.segment_bytes.max(end)))?;
        }
        Ok(self.segment.file.write_all_at(frame, at)?)
    }

    /// Appends zeros up to a length. In small pieces: the kernel keeps a large one as one piece of memory, and counts all
    /// of it as written whenever a part of it is.
    fn grow(&mut self, room: u64) -> io::Result<()> {
        while self.room < room {
            let piece = (PIECE_BYTES - self.room % PIECE_BYTES).min(room - self.room);
            let zeros = ZEROS.get(..usize::try_from(piece).unwrap_or(0)).unwrap_or(&ZEROS);
            self.segment.file.write_all_at(zeros, self.room)?;
            self.room += zeros.len() as u64;
        }
        Ok(())
    }

    /// Writes bytes again that are there, at a position of the log.
    pub(super) fn rewrite(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.segment.file.write_all_at(bytes, position - self.segment.start)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.segment.file.sync_data()
    }
}

/// The directory of the segments.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    segment_bytes: u64,
    spares: Vec<PathBuf>,
    /// Held while a process has the log open.
    _lock: File,
}

impl Files {
    /// Opens a directory and lists its segments, oldest first.
    pub(super) fn open(dir: &Path, segment_bytes: u64) -> Result<(Files, Vec<u64>)> {
        let lock = lock(dir)?;
        // A name that a process gave just before it died may not be on disk yet, and nothing may rely on it until it is.
        File::open(dir)?.sync_all()?;
        let (mut starts, mut spares) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if !entry.file_type()?.is_file() {
                continue;
            }
            let path = entry.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(start) = name.strip_suffix(SUFFIX) {
                let number = start.parse().map_err(|_| Error::corrupt(WHAT, path.display()))?;
                starts.push(number);
            } else if name.starts_with(SPARE) {
                spares.push(path);
            }
        }
        starts.sort_unstable();
        let dir = dir.to_owned();
        Ok((Files { dir, segment_bytes, spares, _lock: lock }, starts))
    }

    /// Where a segment is.
    pub(super) fn path(&self, start: u64) -> PathBuf {
        self.dir.join(format!("{start:020}{SUFFIX}"))
    }

    /// Opens a segment and reads all of it.
    pub(super) fn read(&self, start: u64) -> Result<(Segment, Vec<u8>)> {
        let path = self.path(start);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        let nonce = nonce(&bytes, start).ok_or_else(|| {
            Error::corrupt(WHAT, format!("{} does not begin as a segment", path.display()))
        })?;
        Ok((Segment { start, nonce, file: Arc::new(file) }, bytes))
    }

    /// A segment to go on with, which is the newest.
    pub(super) fn tail(&self, segment: Segment) -> io::Result<Tail> {
        let room = segment.file.metadata()?.len();
        Ok(Tail { segment, room, segment_bytes: self.segment_bytes })
    }

    /// Begins a segment at a position of the log, in a spare file where there is one. It is on disk when this returns.
    pub(super) fn begin(&mut self, start: u64, head: Head) -> Result<Tail> {
        let scratch = self.spares.pop().unwrap_or_else(|| self.dir.join(format!("{SPARE}new")));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&scratch)?;
        if file.metadata()?.len() > self.segment_bytes {
            file.set_len(self.segment_bytes)?;
        }
        let nonce = draw_nonce()?;
        file.write_all_at(&preamble(start, nonce), 0)?;
        let mut tail = self.tail(Segment { start, nonce, file: Arc::new(file) })?;
        let mut first = frame::begin(Vec::new());
        codec::encode(&Record::Head(head), &mut first)?;
        tail.write(&mut first, start + PREAMBLE_BYTES as u64)?;
        tail.segment.file.sync_all()?;
        fs::rename(&scratch, self.path(start))?;
        self.sync_dir()?;
        Ok(tail)
    }

    /// Keeps the file of a segment that nobody needs as a spare, or deletes it. Synced one by one: were a newer one to
    /// go first, the log would have a hole.
    pub(super) fn release(&mut self, segment: &Segment) -> io::Result<()> {
        let path = self.path(segment.start);
        let is_larger = segment.file.metadata()?.len() > self.segment_bytes;
        if self.spares.len() < SPARES_MAX && !is_larger {
            let spare = self.dir.join(format!("{SPARE}{:020}", segment.start));
            fs::rename(path, &spare)?;
            self.spares.push(spare);
        } else {
            fs::remove_file(path)?;
        }
        self.sync_dir()
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

fn lock(dir: &Path) -> Result<File> {
    let lock = File::create(dir.join("LOCK"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(Error::Io(format!("{WHAT}: {} is locked by another process", dir.display())))
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn preamble(start: u64, nonce: u64) -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    let content = [MAGIC, start.to_be_bytes(), nonce.to_be_bytes()].concat();
    let fields = content.iter().copied().chain(xxh3_64(&content).to_be_bytes());
    bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    bytes
}

/// The nonce of a segment that begins here, by its first bytes.
fn nonce(bytes: &[u8], start: u64) -> Option<u64> {
    let nonce = bytes.get(16..)?.first_chunk::<8>().map(|nonce| u64::from_be_bytes(*nonce))?;
    bytes.starts_with(&preamble(start, nonce)).then_some(nonce)
}

fn draw_nonce() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u64::from_be_bytes(bytes))
}

/// The frames behind a segment's beginning, in its bytes; and where they begin.
pub(super) fn frames(bytes: &[u8], start: u64) -> (&[u8], u64) {
    (bytes.get(PREAMBLE_BYTES..).unwrap_or_default(), start + PREAMBLE_BYTES as u64)
}
