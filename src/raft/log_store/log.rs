//! The log in memory: what it says, where its entries are, and the frame that is being gathered.

use xxhash_rust::xxh3::xxh3_64;

use super::codec::{self, Head, Record};
use super::frame::{self, FRAME_HEAD_BYTES};
use super::index::{Held, Index, Slot};
use super::segment::{BEGINNING_BYTES, Segment};
use super::{Options, WHAT};
use crate::error::{Error, Result};
use crate::raft::types::IOFlushed;
use crate::raft::wire::{Entry, LogId};

/// Largest buffer that is kept for the next frame.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// The log under its lock.
pub(super) struct Log {
    pub(super) head: Head,
    index: Index,
    segments: Vec<Written>,
    segment_bytes: u64,
    /// The position after the last frame that was given to the writer.
    end: u64,
    /// The frame that is being gathered, and who waits for it to be synced.
    frame: Vec<u8>,
    waiting: Vec<IOFlushed>,
    /// The newest entry's index of all that were put into it, and the head as it was before it.
    newest: Option<u64>,
    before: Head,
    /// A buffer for the frame after it.
    buffer: Vec<u8>,
}

/// A segment, and the greatest index of an entry that was ever written into it.
#[derive(Debug)]
struct Written {
    segment: Segment,
    newest: Option<u64>,
}

/// A frame to be written and synced.
pub(super) struct Batch {
    pub(super) frame: Vec<u8>,
    pub(super) position: u64,
    /// The position after it.
    pub(super) end: u64,
    /// The segment to be begun for it: where, and with what.
    pub(super) begin: Option<(u64, Head)>,
    pub(super) waiting: Vec<IOFlushed>,
    /// Whether anybody waits.
    pub(super) wanted: bool,
    newest: Option<u64>,
    /// Entries up to here are purged, once this is on disk.
    purged: Option<u64>,
}

impl Log {
    /// An empty log, to replay one into or to begin one.
    pub(super) fn new(options: Options) -> Self {
        Log {
            head: Head::default(),
            index: Index::new(options.cache_bytes as u64),
            segments: Vec::new(),
            segment_bytes: options.segment_bytes,
            end: 0,
            frame: frame::begin(Vec::new()),
            waiting: Vec::new(),
            newest: None,
            before: Head::default(),
            buffer: Vec::new(),
        }
    }

    // Changes

    /// Adds entries behind the last.
    pub(super) fn append(&mut self, entries: impl Iterator<Item = Entry>) -> Result<u64> {
        let mut count = 0;
        for entry in entries {
            self.check_order(entry.log_id)?;
            let at = self.frame.len();
            if let Err(error) = codec::encode_entry(&entry, &mut self.frame) {
                self.frame.truncate(at);
                return Err(error);
            }
            let record = self.frame.get(at..).unwrap_or_default();
            let slot = slot(entry.log_id.term, at as u64, record);
            self.newest = self.newest.max(Some(entry.log_id.index));
            self.push(entry, slot);
            count += 1;
        }
        Ok(count)
    }

    /// Changes the log by a record that is no entry.
    pub(super) fn change(&mut self, record: Record) -> Result<()> {
        codec::encode(&record, &mut self.frame)?;
        self.apply(&record);
        Ok(())
    }

    /// Keeps the entries before an index. Nothing happens past the end.
    pub(super) fn truncate(&mut self, next: u64) -> Result<()> {
        if self.head.last.is_none_or(|last| last.index < next) {
            return Ok(());
        }
        let before = next.checked_sub(1);
        let purged = self.head.purged.filter(|purged| purged.index + 1 >= next);
        let last = before.and_then(|before| self.index.log_id(before)).or(purged);
        self.change(Record::Truncate(last))
    }

    /// Entries follow each other; where there are none, any may be the first.
    fn check_order(&self, id: LogId) -> Result<()> {
        let follows = match self.head.last {
            Some(last) => id.index == last.index + 1 && id.term >= last.term,
            None => true,
        };
        if follows {
            return Ok(());
        }
        let last = self.head.last.map(|last| (last.term, last.index));
        Err(Error::corrupt(WHAT, format!("entry {:?} behind {last:?}", (id.term, id.index))))
    }

    fn push(&mut self, entry: Entry, slot: Slot) {
        self.head.last = Some(entry.log_id);
        self.index.push(entry.log_id.index, slot, entry.body);
    }

    /// What a record other than an entry says, in memory.
    fn apply(&mut self, record: &Record) {
        match record {
            Record::Entry(_) => {}
            Record::Vote(vote) => self.head.vote = Some(*vote),
            Record::Committed(committed) => self.head.committed = Some(*committed),
            Record::Truncate(last) => {
                self.index.truncate(last.map_or(0, |last| last.index + 1));
                self.head.last = *last;
            }
            Record::Purge(upto) => {
                self.index.purge(upto.index);
                self.head.purged = self.head.purged.max(Some(*upto));
                self.head.last = self.head.last.max(Some(*upto));
            }
            Record::Head(head) => self.head = *head,
        }
    }

    // Reading

    /// The log id of an entry that is not purged.
    pub(super) fn log_id(&self, index: u64) -> Option<LogId> {
        self.index.log_id(index)
    }

    /// Entries from an index to before another, up to a limit of bytes but at least one.
    pub(super) fn records(&self, from: u64, to: u64, limit: u64) -> Result<Vec<Entry>> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for held in self.index.range(from, to) {
            let entry = match held {
                Held::InMemory(log_id, body) => Entry { log_id, body: body.clone() },
                Held::OnDisk(log_id, slot) => self.read(log_id, slot)?,
            };
            bytes += codec::size(&entry.body);
            if bytes > limit && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// An entry on disk.
    fn read(&self, log_id: LogId, slot: Slot) -> Result<Entry> {
        let damaged = |why: String| {
            Error::corrupt(WHAT, format!("entry {} at {}: {why}", log_id.index, slot.position))
        };
        let behind = self.segments.partition_point(|at| at.segment.start <= slot.position);
        let segment = behind.checked_sub(1).and_then(|at| self.segments.get(at));
        let segment = segment.ok_or_else(|| damaged("its segment is gone".to_owned()))?;
        let bytes = segment.segment.read(slot.position, slot.length as usize)?;
        if half(xxh3_64(&bytes)) != slot.checksum {
            return Err(damaged("its checksum does not match".to_owned()));
        }
        match codec::decode(&mut bytes.as_slice())? {
            Record::Entry(entry) if entry.log_id == log_id => Ok(entry),
            other => Err(damaged(format!("it is {other:?}"))),
        }
    }

    /// Bytes of the log's frames.
    pub(super) fn bytes(&self) -> u64 {
        self.end - self.segments.first().map_or(0, |oldest| oldest.segment.start)
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    // Writing

    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Tells `flushed` when all records so far are synced.
    pub(super) fn wait(&mut self, flushed: IOFlushed) {
        self.waiting.push(flushed);
    }

    /// What is to be written now: all that was gathered, where somebody waits for it.
    pub(super) fn take(&mut self, even_if_nobody_waits: bool) -> Option<Batch> {
        let wanted = even_if_nobody_waits || !self.waiting.is_empty();
        if !wanted || (frame::is_empty(&self.frame) && self.waiting.is_empty()) {
            return None;
        }
        let next = frame::begin(std::mem::take(&mut self.buffer));
        let frame = std::mem::replace(&mut self.frame, next);
        let begin = self.needs_segment(frame.len()).then_some((self.end, self.before));
        let position = if begin.is_some() { self.end + BEGINNING_BYTES } else { self.end };
        self.index.place(position);
        self.before = self.head;
        self.end = position + if frame::is_empty(&frame) { 0 } else { frame.len() as u64 };
        Some(Batch {
            frame,
            position,
            end: self.end,
            begin,
            wanted: !self.waiting.is_empty(),
            waiting: std::mem::take(&mut self.waiting),
            newest: self.newest.take(),
            purged: self.head.purged.map(|purged| purged.index),
        })
    }

    fn needs_segment(&self, frame: usize) -> bool {
        let Some(newest) = self.segments.last() else { return true };
        let used = self.end - newest.segment.start;
        let fits = used + frame as u64 <= self.segment_bytes;
        frame > FRAME_HEAD_BYTES && !fits && used > BEGINNING_BYTES
    }

    /// A segment was begun.
    pub(super) fn begun(&mut self, segment: Segment) {
        self.segments.push(Written { segment, newest: None });
    }

    /// A batch is on disk; the segments that nobody needs from now on.
    pub(super) fn synced(&mut self, batch: Batch) -> Vec<Segment> {
        self.index.synced();
        if let Some(newest) = self.segments.last_mut() {
            newest.newest = newest.newest.max(batch.newest);
        }
        if batch.frame.capacity() <= BUFFER_BYTES_MAX {
            self.buffer = batch.frame;
        }
        let before_last = self.segments.len().saturating_sub(1);
        let all_purged = |at: &Written| at.newest <= batch.purged;
        let free = self.segments.iter().take(before_last).take_while(|at| all_purged(at)).count();
        self.segments.drain(..free).map(|at| at.segment).collect()
    }

    /// Everybody who waits, because the log failed.
    pub(super) fn give_up(&mut self) -> Vec<IOFlushed> {
        std::mem::take(&mut self.waiting)
    }

    // Replaying

    /// A record as it is on disk, at a position of the newest segment.
    pub(super) fn replay(&mut self, record: Record, position: u64, bytes: &[u8]) -> Result<()> {
        let Record::Entry(entry) = record else {
            self.apply(&record);
            return Ok(());
        };
        self.check_order(entry.log_id)?;
        if let Some(newest) = self.segments.last_mut() {
            newest.newest = newest.newest.max(Some(entry.log_id.index));
        }
        let slot = slot(entry.log_id.term, position, bytes);
        self.push(entry, slot);
        self.index.place(0);
        self.index.synced();
        Ok(())
    }

    /// All is replayed, up to a position. Refuses a log that lacks its first entries.
    pub(super) fn replayed(&mut self, end: u64) -> Result<()> {
        let oldest = self.segments.first().map_or(0, |oldest| oldest.segment.start);
        let least = self.head.purged.map(|purged| purged.index + 1).or((oldest > 0).then_some(0));
        let first = self.index.first();
        if first.is_none() && self.head.last != self.head.purged {
            let detail = format!("entries up to {:?} are missing", self.head.last);
            return Err(Error::corrupt(WHAT, detail));
        }
        if let (Some(least), Some(first)) = (least, first)
            && first > least
        {
            let detail = format!("entries {least} to {} are missing", first - 1);
            return Err(Error::corrupt(WHAT, detail));
        }
        (self.end, self.before) = (end, self.head);
        Ok(())
    }
}

fn slot(term: u64, position: u64, record: &[u8]) -> Slot {
    // A record is shorter than its frame, whose length is a `u32`; a longer frame is refused when it is sealed.
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    Slot { term, position, length, checksum: half(xxh3_64(record)) }
}

#[allow(clippy::cast_possible_truncation)]
fn half(checksum: u64) -> u32 {
    checksum as u32
}
