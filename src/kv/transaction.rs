//! A transaction: buffered writes over a state that is partly in the future.
//!
//! The leader runs a bucket's next command before the last one is applied. So what a transaction reads
//! is, in this order: its own writes; the [`Overlay`], which holds the writes of commands proposed
//! and not yet seen applied; the view, a point in time of the store. Dropping a transaction undoes it.

use std::collections::btree_map;
use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;

use bytes::Bytes;

use super::command::{BucketId, CommandId, Write};
use super::keyspace::{self, BucketMeta, Record, Row, Script, Table};
use super::limits::{TRANSACTION_BYTES_MAX, TRANSACTION_READS_MAX, TRANSACTION_WRITES_MAX};
use super::name::{Key, ScriptName};
use super::policy::Policy;
use super::store::{self, SharedView};
use crate::encoding;
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};

/// The writes of a bucket's commands that are proposed and not yet known to be applied, merged.
#[derive(Debug, Default)]
pub struct Overlay {
    /// The head that the oldest of them was executed on.
    base: CommandId,
    /// Oldest first, with the rows that each wrote.
    commands: VecDeque<(CommandId, Vec<Row>)>,
    /// The newest value of each row, and who wrote it.
    rows: BTreeMap<Row, (CommandId, Option<Bytes>)>,
    /// Revision and time after the newest.
    revision: u64,
    now: u64,
}

impl Overlay {
    /// Drops what the view already holds, judged by the bucket's head *in the view*: a
    /// notification could be early or late. If the head is none of ours, all of it is void.
    pub fn trim(&mut self, meta: &BucketMeta) {
        if self.commands.is_empty() || meta.head != self.base {
            if self.commands.iter().any(|(id, _)| *id == meta.head) {
                while self.commands.front().is_some_and(|_| self.base != meta.head) {
                    self.pop_oldest();
                }
            } else {
                *self = Overlay::default();
            }
        }
        self.base = meta.head;
        if self.commands.is_empty() {
            (self.revision, self.now) = (meta.revision, meta.now);
        }
    }

    fn pop_oldest(&mut self) {
        let Some((id, rows)) = self.commands.pop_front() else { return };
        self.base = id;
        for row in rows {
            if self.rows.get(&row).is_some_and(|(writer, _)| *writer == id) {
                self.rows.remove(&row);
            }
        }
    }

    /// Adds a proposed command on top.
    pub fn push(&mut self, id: CommandId, now: u64, writes: &[Write]) {
        self.revision += 1;
        self.now = self.now.max(now);
        for write in writes {
            self.rows.insert(write.row.clone(), (id, write.value.clone()));
        }
        self.commands.push_back((id, writes.iter().map(|write| write.row.clone()).collect()));
    }

    /// The command that the next one names as its predecessor.
    #[must_use]
    pub fn head(&self) -> CommandId {
        self.commands.back().map_or(self.base, |(id, _)| *id)
    }

    /// Revision after the newest command.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The bucket's time after the newest command.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Whether nothing is ahead of the view.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}

/// Which keys to list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListRange {
    /// Only keys that begin with this.
    pub prefix: Bytes,
    /// Only keys from here on (inclusive), in byte order.
    pub start: Option<Bytes>,
    /// Only keys before this (exclusive).
    pub end: Option<Bytes>,
    /// From the last to the first.
    pub reverse: bool,
}

impl ListRange {
    /// The bounds `start <= key < end`; an end of `None` is the end of the table.
    #[must_use]
    pub fn bounds(&self) -> (Bytes, Option<Bytes>) {
        let start = match &self.start {
            Some(start) if *start > self.prefix => start.clone(),
            _ => self.prefix.clone(),
        };
        let prefix_end = keyspace::prefix_end(&self.prefix).map(Bytes::from);
        let end = match (prefix_end, self.end.clone()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        (start, end)
    }
}

/// One bucket, as one command sees and changes it.
pub struct Transaction {
    view: SharedView,
    bucket: BucketId,
    overlay: Overlay,
    writes: BTreeMap<Row, Option<Bytes>>,
    write_bytes: usize,
    reads: usize,
    now: u64,
}

impl Transaction {
    /// Begins a transaction at time `now`; the overlay must have been trimmed by this view.
    #[must_use]
    pub fn new(view: SharedView, bucket: BucketId, overlay: Overlay, now: u64) -> Self {
        let now = now.max(overlay.now());
        let (writes, write_bytes, reads) = (BTreeMap::new(), 0, 0);
        Transaction { view, bucket, overlay, writes, write_bytes, reads, now }
    }

    /// Ends the transaction: the overlay as it was given, and the writes in row order.
    #[must_use]
    pub fn finish(self) -> (Overlay, Vec<Write>) {
        let writes = self.writes.into_iter().map(|(row, value)| Write { row, value }).collect();
        (self.overlay, writes)
    }

    /// Forgets the writes made so far.
    pub fn discard(&mut self) {
        self.writes.clear();
        self.write_bytes = 0;
    }

    /// Milliseconds since 1970, fixed when the transaction began.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The bucket's revision once this transaction has been applied.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.overlay.revision() + 1
    }

    /// The revision of the state that this transaction reads.
    #[must_use]
    pub fn read_revision(&self) -> u64 {
        self.overlay.revision()
    }

    /// A row's value.
    pub fn row(&mut self, row: &Row) -> Result<Option<Bytes>> {
        self.count_read()?;
        if let Some(value) = self.writes.get(row) {
            return Ok(value.clone());
        }
        if let Some((_, value)) = self.overlay.rows.get(row)
            && !mutant::is(Mutant::OverlayNotRead)
        {
            return Ok(value.clone());
        }
        store::row(&*self.view, self.bucket, row)
    }

    /// Sets a row, or removes it.
    pub fn put_row(&mut self, row: Row, value: Option<Bytes>) -> Result<()> {
        let bytes = row.name.len() + value.as_ref().map_or(0, Bytes::len);
        let old = self.writes.insert(row, value);
        // What an overwritten row took is not given back: a script pays for the work it makes.
        self.write_bytes += bytes;
        if self.write_bytes > TRANSACTION_BYTES_MAX {
            let max = TRANSACTION_BYTES_MAX as u64;
            return Err(Error::TooLarge { limit: "the writes of a transaction", max });
        }
        if old.is_none() && self.writes.len() > TRANSACTION_WRITES_MAX {
            let max = format!("{TRANSACTION_WRITES_MAX} rows");
            return Err(Error::ScriptLimit { limit: "the writes of a transaction", max });
        }
        Ok(())
    }

    /// What a key holds.
    pub fn get(&mut self, key: &Key) -> Result<Option<Record>> {
        self.row(&Row::key(key))?.map(|bytes| self.record(&bytes)).transpose()
    }

    /// What a key's row says, as [`Transaction::steps`] hands it out.
    pub fn record(&self, row: &[u8]) -> Result<Record> {
        encoding::decode("record", row)
    }

    /// Sets a key. The record's version is the revision that this transaction will have.
    pub fn set(
        &mut self,
        key: &Key,
        value: Bytes,
        content_type: Option<String>,
        expires_at: Option<u64>,
    ) -> Result<()> {
        let record = Record { version: self.revision(), expires_at, content_type, value };
        let bytes = encoding::encode(&record)?;
        self.put_row(Row::key(key), Some(bytes.into()))
    }

    /// Removes a key; whether it was there.
    pub fn delete(&mut self, key: &Key) -> Result<bool> {
        let row = Row::key(key);
        if self.row(&row)?.is_none() {
            return Ok(false);
        }
        self.put_row(row, None)?;
        Ok(true)
    }

    /// Up to `limit` keys of a range with what they hold, this transaction's own writes included.
    pub fn list(&mut self, range: &ListRange, limit: usize) -> Result<Vec<(Bytes, Record)>> {
        let mut found = Vec::new();
        let mut stepped = 0;
        let mut pairs = self.steps(range);
        while found.len() < limit {
            let Some(pair) = pairs.next() else { break };
            let (name, value) = pair?;
            stepped += 1;
            if self.reads + stepped > TRANSACTION_READS_MAX {
                break;
            }
            if let Some(value) = value {
                found.push((name, self.record(&value)?));
            }
        }
        drop(pairs);
        self.reads += stepped;
        self.count_read()?;
        if !found.is_empty() && mutant::strikes(Mutant::ListStopsEarly, 20) {
            found.pop();
        }
        Ok(found)
    }

    /// Steps through the keys of a range in order, each with its row as it is stored; a key that is gone is
    /// `None`, so that stepping over it can be paid for. Nothing is counted here: whoever walks far
    /// bounds each stretch.
    pub fn steps<'t>(
        &'t self,
        range: &ListRange,
    ) -> impl Iterator<Item = Result<(Bytes, Option<Bytes>)>> + use<'t> {
        let (start, end) = range.bounds();
        self.merged(Table::Key, &start, end.as_deref(), range.reverse)
    }

    /// How many keys the bucket holds in the view; as many are alive, or fewer.
    pub fn keys(&self) -> Result<u64> {
        Ok(store::meta(&*self.view, self.bucket)?.map_or(0, |meta| meta.keys))
    }

    /// The rows of a table in order: own writes before the overlay before the view. A removed row
    /// is `None`, so that stepping over it can be paid for.
    fn merged<'t>(
        &'t self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
    ) -> impl Iterator<Item = Result<(Bytes, Option<Bytes>)>> + use<'t> {
        let bounds = RowBounds::new(table, start, end);
        let own = bounds.select(&self.writes, reverse, |value| value.clone());
        let proposed = bounds.select(&self.overlay.rows, reverse, |(_, value)| value.clone());
        let stored = store::rows(&*self.view, self.bucket, table, start, end, reverse)
            .map(|pair| pair.map(|(name, value)| (name, Some(value))));
        Merge { sources: [own.peekable(), proposed.peekable(), boxed(stored).peekable()], reverse }
    }

    /// A script of the bucket.
    pub fn script(&mut self, name: &ScriptName) -> Result<Option<Script>> {
        let row = self.row(&Row::script(name))?;
        row.map(|bytes| encoding::decode("script", &bytes)).transpose()
    }

    /// All scripts of the bucket.
    pub fn scripts(&mut self) -> Result<Vec<(Bytes, Script)>> {
        let rows = self.merged(Table::Script, b"", None, false);
        let present = rows.take(TRANSACTION_READS_MAX).filter_map(|pair| match pair {
            Ok((name, Some(value))) => Some(Ok((name, value))),
            Ok((_, None)) => None,
            Err(error) => Some(Err(error)),
        });
        present
            .map(|pair| {
                let (name, value) = pair?;
                Ok((name, encoding::decode("script", &value)?))
            })
            .collect()
    }

    /// The bucket's policy.
    pub fn policy(&mut self) -> Result<Policy> {
        match self.row(&Row::policy())? {
            Some(bytes) => encoding::decode("policy", &bytes),
            None => Ok(Policy::default()),
        }
    }

    fn count_read(&mut self) -> Result<()> {
        self.reads += 1;
        if self.reads > TRANSACTION_READS_MAX {
            let max = format!("{TRANSACTION_READS_MAX} keys");
            return Err(Error::ScriptLimit { limit: "the reads of a transaction", max });
        }
        Ok(())
    }
}

type Source<'t> = Box<dyn Iterator<Item = Result<(Bytes, Option<Bytes>)>> + 't>;

fn boxed<'t>(rows: impl Iterator<Item = Result<(Bytes, Option<Bytes>)>> + 't) -> Source<'t> {
    Box::new(rows)
}

/// A range of one table's rows within a map of rows.
struct RowBounds {
    start: Row,
    end: Option<Row>,
    table: Table,
}

impl RowBounds {
    fn new(table: Table, start: &[u8], end: Option<&[u8]>) -> Self {
        let row = |name: &[u8]| Row { table, name: Bytes::copy_from_slice(name) };
        RowBounds { start: row(start), end: end.map(row), table }
    }

    fn select<'t, V>(
        &self,
        map: &'t BTreeMap<Row, V>,
        reverse: bool,
        value: fn(&V) -> Option<Bytes>,
    ) -> Source<'t> {
        if self.end.as_ref().is_some_and(|end| *end <= self.start) {
            return Box::new(std::iter::empty());
        }
        let range: btree_map::Range<'t, Row, V> = match &self.end {
            Some(end) => map.range(self.start.clone()..end.clone()),
            None => map.range(self.start.clone()..),
        };
        let table = self.table;
        let rows = range
            .filter(move |(row, _)| row.table == table)
            .map(move |(row, v)| Ok((row.name.clone(), value(v))));
        if reverse { Box::new(rows.rev()) } else { Box::new(rows) }
    }
}

/// Merges ordered sources; where several hold a name, the first source wins.
struct Merge<'t> {
    sources: [Peekable<Source<'t>>; 3],
    reverse: bool,
}

impl Iterator for Merge<'_> {
    type Item = Result<(Bytes, Option<Bytes>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut next: Option<Bytes> = None;
        for source in &mut self.sources {
            match source.peek() {
                Some(Err(error)) => return Some(Err(error.clone())),
                Some(Ok((name, _))) => {
                    let nearer = next
                        .as_ref()
                        .is_none_or(|best| if self.reverse { name > best } else { name < best });
                    if nearer {
                        next = Some(name.clone());
                    }
                }
                None => {}
            }
        }
        let next = next?;
        let mut winner = None;
        for source in &mut self.sources {
            let has_it = matches!(source.peek(), Some(Ok((name, _))) if *name == next);
            if has_it {
                winner = winner.or(source.next());
                // A later source's row of the same name is older: step over it.
                if let Some(Ok((name, _))) = source.peek() {
                    debug_assert!(*name != next, "a source yields a name once");
                }
            }
        }
        winner
    }
}

/// Reads one bucket of a view without a transaction: for answers that propose nothing.
pub fn read_only(view: SharedView, bucket: BucketId, now: u64) -> Result<Option<Transaction>> {
    let Some(meta) = store::meta(&*view, bucket)? else { return Ok(None) };
    let mut overlay = Overlay::default();
    overlay.trim(&meta);
    Ok(Some(Transaction::new(view, bucket, overlay, now)))
}
