//! A transaction: buffered writes over a state that is partly in the future.
//!
//! The leader runs a bucket's next command before the last one is applied. So what a transaction reads
//! is, in this order: its own writes; the [`Overlay`], which holds the writes of commands proposed
//! and not yet seen applied; the view, a point in time of the store. Dropping a transaction undoes it.
//!
//! Time is the bucket's, never a clock's: a row is dead once a command with a time at or after its
//! `expires_at` has been applied. A transaction whose own time is later than the bucket's sees dead what
//! will be dead as soon as it is applied; it remembers that ([`Transaction::has_lapsed`]), and then must
//! be applied even where it writes nothing, or another reader could see the row alive again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::command::{BucketId, DIRECTORY, Write};
use super::keyspace::{self, Counts, Record, Row, Script, Table};
use super::limits::{
    TRANSACTION_BYTES_MAX, TRANSACTION_READS_MAX, TRANSACTION_WRITES_MAX, TTL_SECONDS_MAX,
};
use super::merge::{Merge, RowBounds, boxed};
use super::name::{Key, ScriptName};
use super::overlay::Overlay;
use super::policy::Policy;
use super::recorded;
use super::store::{self, SharedView};
use super::token;
use crate::encoding;
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};

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

/// How long a written key lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as the bucket's policy says.
    #[default]
    Default,
    /// For ever.
    Unlimited,
    /// So many seconds.
    Seconds(u64),
    /// Until this time, in milliseconds since 1970.
    Until(u64),
}

impl Lifetime {
    /// Reads a time to live as callers give it: seconds, 0 for ever.
    pub fn of_seconds(seconds: u64) -> Result<Self> {
        match seconds {
            0 => Ok(Lifetime::Unlimited),
            seconds if seconds > TTL_SECONDS_MAX => {
                Err(Error::invalid(format!("a ttl is at most {TTL_SECONDS_MAX} seconds")))
            }
            seconds => Ok(Lifetime::Seconds(seconds)),
        }
    }
}

/// One bucket, as one command sees and changes it.
pub struct Transaction {
    view: SharedView,
    bucket: BucketId,
    overlay: Overlay,
    writes: BTreeMap<Row, Option<Bytes>>,
    write_bytes: usize,
    /// By how much the writes change the bucket's counts.
    delta: Counts,
    reads: usize,
    now: u64,
    lapsed: bool,
    readonly: bool,
    /// The policy, once it was asked for.
    policy: Option<Arc<Policy>>,
    /// Keys and rows read, where somebody wants to know.
    trace: Option<Vec<Bytes>>,
}

impl Transaction {
    /// Begins a transaction at time `now`; the overlay must have been trimmed by this view.
    #[must_use]
    pub fn new(view: SharedView, bucket: BucketId, overlay: Overlay, now: u64) -> Self {
        let now = now.max(overlay.now());
        Transaction {
            view,
            bucket,
            overlay,
            writes: BTreeMap::new(),
            write_bytes: 0,
            delta: Counts::default(),
            reads: 0,
            now,
            lapsed: false,
            readonly: false,
            policy: None,
            trace: None,
        }
    }

    /// Ends the transaction: the overlay as it was given, the writes in row order, and by how much they
    /// change the bucket's counts.
    #[must_use]
    pub fn finish(self) -> (Overlay, Vec<Write>, Counts) {
        let writes = self.writes.into_iter().map(|(row, value)| Write { row, value }).collect();
        (self.overlay, writes, self.delta)
    }

    /// Forgets the writes made so far.
    pub fn discard(&mut self) {
        self.writes.clear();
        self.write_bytes = 0;
        self.delta = Counts::default();
        self.policy = None;
    }

    /// Refuses every write from now on.
    pub fn forbid_writes(&mut self) {
        self.readonly = true;
    }

    /// Fails where every write is refused, also one that would change nothing.
    pub fn check_writable(&self) -> Result<()> {
        if self.readonly {
            return Err(Error::Forbidden("the script is read-only".to_owned()));
        }
        Ok(())
    }

    /// Whether every write is refused.
    #[must_use]
    pub fn is_readonly(&self) -> bool {
        self.readonly
    }

    /// Remembers from now on which keys are read; as many as a transaction may read.
    pub fn trace_reads(&mut self) {
        self.trace = Some(Vec::new());
    }

    /// The keys read since [`Transaction::trace_reads`], in the order of the first time.
    #[must_use]
    pub fn traced_reads(&self) -> &[Bytes] {
        self.trace.as_deref().unwrap_or_default()
    }

    /// A row of the directory, as it is in the view: what was deleted before this life of the bucket began.
    pub(super) fn directory_row(&mut self, row: &Row) -> Result<Option<Bytes>> {
        self.count_read()?;
        store::row(&*self.view, DIRECTORY, row)
    }

    /// What is written so far, in row order.
    pub fn writes(&self) -> impl Iterator<Item = (&Row, Option<&Bytes>)> {
        self.writes.iter().map(|(row, value)| (row, value.as_ref()))
    }

    /// The bucket's number.
    #[must_use]
    pub fn bucket(&self) -> BucketId {
        self.bucket
    }

    /// What the bucket holds with this transaction's writes.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.overlay.counts().plus(self.delta)
    }

    /// What the bucket held before them.
    #[must_use]
    pub fn counts_before(&self) -> Counts {
        self.overlay.counts()
    }

    /// Whether this transaction saw something dead that is not yet dead by the bucket's time: then it must
    /// be applied, or be run again on a state whose time is later.
    #[must_use]
    pub fn has_lapsed(&self) -> bool {
        self.lapsed
    }

    /// Whether anything dies between the bucket's time and this transaction's.
    pub fn will_lapse(&self) -> Result<bool> {
        if self.overlay.counts().expiring == 0 || self.overlay.now() >= self.now {
            return Ok(false);
        }
        let after = |ms: u64| ms.saturating_add(1).to_be_bytes();
        let (start, end) = (after(self.overlay.now()), after(self.now));
        let mut rows = self.merged(Table::Expiry, &start, Some(&end), false);
        rows.find_map(|pair| match pair {
            Ok((_, None)) => None,
            Ok((_, Some(_))) => Some(Ok(true)),
            Err(error) => Some(Err(error)),
        })
        .unwrap_or(Ok(false))
    }

    /// Whether something that dies at this time is alive.
    pub fn is_alive(&mut self, expires_at: Option<u64>) -> bool {
        let Some(expires_at) = expires_at else { return true };
        let late = if mutant::is(Mutant::DiesLate) { 1500 } else { 0 };
        let dead = expires_at.saturating_add(late) <= self.now;
        self.lapsed |= dead && expires_at > self.overlay.now();
        !dead
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
        self.current(row)
    }

    fn current(&self, row: &Row) -> Result<Option<Bytes>> {
        match self.writes.get(row) {
            Some(value) => Ok(value.clone()),
            None => self.before(row),
        }
    }

    /// What a row held before this transaction.
    fn before(&self, row: &Row) -> Result<Option<Bytes>> {
        if let Some((_, value)) = self.overlay.rows.get(row)
            && !mutant::is(Mutant::OverlayNotRead)
        {
            return Ok(value.clone());
        }
        store::row(&*self.view, self.bucket, row)
    }

    /// Sets a row, or removes it.
    pub fn put_row(&mut self, row: Row, value: Option<Bytes>) -> Result<()> {
        let old = self.current(&row)?;
        self.replace_row(row, old.as_ref(), value)
    }

    /// The same, where the caller has just read what the row holds.
    fn replace_row(&mut self, row: Row, old: Option<&Bytes>, value: Option<Bytes>) -> Result<()> {
        self.check_writable()?;
        old.into_iter().for_each(|old| self.delta.remove(&row, old.len()));
        value.iter().for_each(|value| self.delta.add(&row, value.len()));
        let bytes = row.name.len() + value.as_ref().map_or(0, Bytes::len);
        if value.is_none() && self.before(&row)?.is_none() {
            // Made and removed by this transaction: nobody is to hear of it.
            self.writes.remove(&row);
            return Ok(());
        }
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

    /// What a key holds, if it is alive.
    pub fn get(&mut self, key: &Key) -> Result<Option<Record>> {
        if let Some(trace) = &mut self.trace
            && !trace.contains(key.bytes())
        {
            trace.push(key.bytes().clone());
        }
        let record = self.row(&Row::key(key))?.map(|bytes| Record::decode(&bytes)).transpose()?;
        Ok(record.filter(|record| self.is_alive(record.expires_at)))
    }

    /// Sets a key. The record's version is the revision that this transaction will have.
    pub fn set(
        &mut self,
        key: &Key,
        value: Bytes,
        content_type: Option<String>,
        lifetime: Lifetime,
    ) -> Result<()> {
        let expires_at = self.expires_at(lifetime)?;
        let record = Record { version: self.revision(), expires_at, content_type, value };
        let bytes = encoding::encode(&record)?;
        let row = Row::key(key);
        let old = self.current(&row)?;
        let old_expires_at = match &old {
            Some(old) => Record::expires_at(old)?,
            None => None,
        };
        self.move_expiry(&row, old_expires_at, expires_at)?;
        self.replace_row(row, old.as_ref(), Some(bytes.into()))
    }

    /// When what is written now dies.
    fn expires_at(&mut self, lifetime: Lifetime) -> Result<Option<u64>> {
        let seconds = match lifetime {
            Lifetime::Default => self.policy()?.default_ttl,
            Lifetime::Unlimited => 0,
            Lifetime::Seconds(seconds) => seconds,
            Lifetime::Until(expires_at) => return Ok(Some(expires_at)),
        };
        let expires_at = self.now.saturating_add(seconds.saturating_mul(1000));
        Ok((seconds > 0).then_some(expires_at))
    }

    /// Keeps the expiry row of a row.
    pub(super) fn move_expiry(
        &mut self,
        of: &Row,
        from: Option<u64>,
        to: Option<u64>,
    ) -> Result<()> {
        if from == to {
            return Ok(());
        }
        if let Some(from) = from {
            self.put_row(Row::expiry(from, of), None)?;
        }
        match to {
            Some(to) => self.put_row(Row::expiry(to, of), Some(Bytes::new())),
            None => Ok(()),
        }
    }

    /// Removes a key; whether it was there and alive.
    pub fn delete(&mut self, key: &Key) -> Result<bool> {
        let row = Row::key(key);
        let Some(old) = self.row(&row)? else { return Ok(false) };
        let expires_at = Record::expires_at(&old)?;
        let alive = self.is_alive(expires_at);
        self.move_expiry(&row, expires_at, None)?;
        self.replace_row(row, Some(&old), None)?;
        Ok(alive)
    }

    /// Removes rows whose time is over, so many at most; whether there are more.
    pub fn sweep(&mut self, limit: usize) -> Result<bool> {
        let end = self.now.saturating_add(1).to_be_bytes();
        let due = self.merged(Table::Expiry, b"", Some(&end), false);
        let due = due.filter(|pair| !matches!(pair, Ok((_, None)))).take(limit + 1);
        let due: Vec<_> = due.map(|pair| pair.map(|(name, _)| name)).collect::<Result<_>>()?;
        for name in due.iter().take(limit) {
            let (expires_at, row) = Row::expiring(name)?;
            // A row that was written anew without its old time being moved lives on.
            let current = self.current(&row)?;
            if dies_at(&row, current.as_deref())? == Some(expires_at) {
                self.replace_row(row, current.as_ref(), None)?;
            }
            self.put_row(Row { table: Table::Expiry, name: name.clone() }, None)?;
        }
        Ok(due.len() > limit)
    }

    /// Up to `limit` keys of a range with what they hold, this transaction's own writes included.
    pub fn list(&mut self, range: &ListRange, limit: usize) -> Result<Vec<(Bytes, Record)>> {
        let (start, end) = range.bounds();
        let (mut found, mut stepped, mut lapsed) = (Vec::new(), 0, false);
        let (now, settled) = (self.now, self.overlay.now());
        let mut pairs = self.merged(Table::Key, &start, end.as_deref(), range.reverse);
        while found.len() < limit {
            let Some(pair) = pairs.next() else { break };
            let (name, value) = pair?;
            stepped += 1;
            if self.reads + stepped > TRANSACTION_READS_MAX {
                break;
            }
            let Some(value) = value else { continue };
            let record = Record::decode(&value)?;
            match record.expires_at {
                Some(at) if at <= now => lapsed |= at > settled,
                _ => found.push((name, record)),
            }
        }
        drop(pairs);
        self.lapsed |= lapsed;
        self.reads += stepped;
        self.count_read()?;
        if !found.is_empty() && mutant::strikes(Mutant::ListStopsEarly, 20) {
            found.pop();
        }
        Ok(found)
    }

    /// Steps through the keys of a range in order, each with its row as it is stored; a key that is gone or
    /// dead is `None`, so that stepping over it can be paid for. Nothing is counted here: whoever
    /// walks far bounds each stretch.
    pub fn steps<'t>(
        &'t self,
        range: &ListRange,
    ) -> impl Iterator<Item = Result<(Bytes, Option<Bytes>)>> + use<'t> {
        let (start, end) = range.bounds();
        // Where nothing expires, no row needs to be decoded to know that it lives.
        let all_live = self.counts().expiring == 0;
        let pairs = self.merged(Table::Key, &start, end.as_deref(), range.reverse);
        pairs.map(move |pair| {
            let (name, row) = pair?;
            let expires_at = match &row {
                Some(row) if !all_live => Record::expires_at(row)?,
                _ => None,
            };
            let lives = expires_at.is_none_or(|at| at > self.now);
            Ok((name, row.filter(|_| lives)))
        })
    }

    /// What a key's row says, as [`Transaction::steps`] hands it out.
    pub fn record(&self, row: &[u8]) -> Result<Record> {
        encoding::decode("record", row)
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
        Merge::new([own, proposed, boxed(stored)], reverse)
    }

    /// A script of the bucket.
    pub fn script(&mut self, name: &ScriptName) -> Result<Option<Arc<Script>>> {
        let row = self.row(&Row::script(name))?;
        row.map(|bytes| self.overlay.scripts.decode("script", bytes)).transpose()
    }

    /// All scripts of the bucket.
    pub fn scripts(&mut self) -> Result<Vec<(Bytes, Script)>> {
        let decode =
            |(name, value): (Bytes, Bytes)| Ok((name, encoding::decode("script", &value)?));
        self.rows(Table::Script, b"")?.into_iter().map(decode).collect()
    }

    /// All rows of a table whose names begin with a prefix, of a table that holds few.
    pub(super) fn rows(&mut self, table: Table, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>> {
        let end = keyspace::prefix_end(prefix);
        let rows = self.merged(table, prefix, end.as_deref(), false);
        let present = rows.take(TRANSACTION_READS_MAX).filter_map(|pair| match pair {
            Ok((name, Some(value))) => Some(Ok((name, value))),
            Ok((_, None)) => None,
            Err(error) => Some(Err(error)),
        });
        present.collect()
    }

    /// The bucket's policy.
    pub fn policy(&mut self) -> Result<Arc<Policy>> {
        if let Some(policy) = &self.policy {
            return Ok(Arc::clone(policy));
        }
        let policy = match self.row(&Row::policy())? {
            Some(bytes) => self.overlay.policies.decode("policy", bytes)?,
            None => Arc::default(),
        };
        Ok(Arc::clone(self.policy.insert(policy)))
    }

    /// Replaces the bucket's policy.
    pub fn set_policy(&mut self, policy: &Policy) -> Result<()> {
        self.policy = None;
        self.put_row(Row::policy(), Some(encoding::encode(policy)?.into()))
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

/// When a row dies by what it says itself.
fn dies_at(row: &Row, value: Option<&[u8]>) -> Result<Option<u64>> {
    let Some(value) = value else { return Ok(None) };
    match row.table {
        Table::Key => Record::expires_at(value),
        Table::Token => token::expires_at(value).map(Some),
        Table::Recorded => recorded::expires_at(value).map(Some),
        _ => Err(Error::corrupt("expiry row", "of a table whose rows do not die")),
    }
}

/// Reads one bucket of a view without a transaction: for answers that propose nothing.
pub fn read_only(view: SharedView, bucket: BucketId, now: u64) -> Result<Option<Transaction>> {
    let Some(meta) = store::meta(&*view, bucket)? else { return Ok(None) };
    let mut overlay = Overlay::default();
    overlay.trim(&meta);
    Ok(Some(Transaction::new(view, bucket, overlay, now)))
}
