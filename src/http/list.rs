//! `GET /BUCKET/`: the keys of a bucket in byte order, from one view, however many there are.
//!
//! A list takes the same memory whatever its length. Its beginning is written first, up to
//! [`HEAD_BYTES`]: most lists end there, and leave with their length. A longer one is streamed: a task
//! keeps the view, reads a stretch at a time on a blocking thread, and hands chunks through a channel
//! to the body.
//!
//! - **All or visibly not all.** What fails before the first byte is an error answer. What fails later
//!   breaks the body off: JSON lacks its bracket, and HTTP/1.1 and HTTP/2 tell the client. HTTP/1.0
//!   could not, so it gets only what fits into the beginning.
//! - **The cursor is known before the body**, for it is a header. Where the beginning does not reach the
//!   limit, the keys up to it are stepped over once, and read again while they are sent: twice the
//!   reading, but memory stays constant. Nothing is stepped over where the bucket has no more keys than
//!   the limit: then no list is cut, and a whole bucket streams at once.
//! - **Authority before the turn**: who may not see the list waits for no turn and holds none, nor does
//!   who waits for a revision.
//! - **A slow reader is cut** ([`Pace`]): he may wait for [`PATIENCE`] and earns more by what he takes,
//!   and no list takes longer than [`LIST_TIME`]. Then its view and its turn are free. The socket's own
//!   watch (`stall`) sees neither a reader that trickles, nor a stream of HTTP/2 that stands still.

mod cursor;
mod walk;
mod writer;

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::Stream;
use http::{HeaderValue, Method, StatusCode, Version};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::cursor::Cursor;
use self::walk::{Place, Stop, walk};
use self::writer::Writer;
use super::answer::{self, CURSOR, Format, Outcome, TRUNCATED, respond};
use super::call::Call;
use super::leader::patiently;
use super::room::Turn;
use super::{Edge, consistency};
use crate::error::{Error, Failure, Result};
use crate::kv::limits::LIST_LIMIT_DEFAULT;
use crate::kv::{BucketName, Credential, ListRange, Permission, Transaction, grant};

/// Bytes of a list that are written before its answer begins.
const HEAD_BYTES: usize = 1 << 20;
/// Bytes that are sent at a time after that; an entry is never divided.
const CHUNK_BYTES: usize = 64 << 10;
/// How long a reader may keep a list waiting, from the start and at most.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that earn him another second.
const BYTES_PER_SECOND: u64 = 64 << 10;
/// How long a list may take in all: its view keeps old files and old values from being cleaned up.
const LIST_TIME: Duration = Duration::from_secs(600);

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    range: ListRange,
    /// Where the page before ended.
    cursor: Option<Cursor>,
    skip: usize,
    limit: usize,
    /// Whether the client named the limit: it then knows that there may be more.
    limited: bool,
    values: bool,
    format: Format,
}

impl Wanted {
    fn of(call: &Call) -> Result<Self> {
        let query = &call.query;
        let mut range = ListRange {
            prefix: query.get("prefix").cloned().unwrap_or_default(),
            start: query.get("start").cloned(),
            end: query.get("end").filter(|end| !end.is_empty()).cloned(),
            reverse: query.flag("reverse"),
        };
        let (skip, limit) = (query.count("skip", 0)?, query.count("limit", LIST_LIMIT_DEFAULT)?);
        let cursor = query.get("cursor").map(|text| Cursor::parse(text)).transpose()?;
        if let Some(cursor) = &cursor {
            if skip > 0 {
                return Err(Error::invalid(
                    "a cursor goes on behind what was skipped: leave `skip` out",
                ));
            }
            cursor.narrow(&mut range)?;
        }
        let (limited, values) = (query.get("limit").is_some(), query.flag("values"));
        Ok(Wanted { range, cursor, skip, limit, limited, values, format: Format::of(call)? })
    }
}

/// Lists keys.
pub(super) async fn list(edge: &Edge, call: &Call, bucket: &BucketName) -> Outcome {
    let (wanted, consistency) = (Wanted::of(call)?, consistency::of(&call.query)?);
    let (outcome, age) = match patiently(|| edge.node.read_with(bucket, consistency)).await {
        Ok((txn, age)) => (answer(edge, call, txn, wanted).await, age),
        Err(error) => (Err(error.into()), consistency.stale.then(|| edge.node.state_age())),
    };
    consistency::with_age(edge, call, outcome, age)
}

/// The answer from a view: its head, and the beginning of its body or all of it.
async fn answer(edge: &Edge, call: &Call, txn: Transaction, wanted: Wanted) -> Outcome {
    let credential = call.credential()?;
    let revision = txn.read_revision();
    let fail = |error| Failure { error, revision: Some(revision) };
    let (txn, wanted) = judged(txn, wanted, credential).await.map_err(fail)?;
    let turn = edge.room.list(txn.bucket()).await.map_err(fail)?;
    let listing = Listing::begin(txn, wanted, turn);
    let (listing, stop) = listing.head().await.map_err(fail)?;
    let (listing, cursor) = listing.cursor(stop).await.map_err(fail)?;
    let (format, limited) = (listing.wanted.format, listing.wanted.limited);
    let mut response = respond(StatusCode::OK, format.content_type(), Bytes::new());
    let headers = response.headers_mut();
    answer::set_revision(headers, revision);
    if let Some(cursor) = cursor {
        let text = HeaderValue::from_str(&cursor.text()?);
        headers.insert(CURSOR, text.map_err(|e| Error::Internal(format!("a cursor: {e}")))?);
        if !limited {
            headers.insert(TRUNCATED, HeaderValue::from_static("true"));
        }
    }
    *response.body_mut() = body(edge, call, listing, stop).map_err(fail)?;
    Ok(response)
}

/// The body: whole where the beginning is the list, else streamed.
fn body(edge: &Edge, call: &Call, mut listing: Listing, stop: Stop) -> Result<Body> {
    if stop != Stop::Pause {
        return Ok(Body::from(listing.writer.take()));
    }
    if call.version < Version::HTTP_11 {
        return Err(Error::invalid(
            "a list of this size needs HTTP/1.1, which tells when it breaks off: use that, or a \
             smaller `limit`",
        ));
    }
    if call.method == Method::HEAD {
        // Nobody reads it; of no known length, as the list is.
        return Ok(Body::from_stream(futures::stream::empty::<Result<Bytes>>()));
    }
    let (sender, receiver) = mpsc::channel(1);
    let node = edge.node.clone();
    let sending = send(listing, sender, Pace::default());
    tokio::spawn(async move {
        if let Err(error) = sending.await {
            node.heed(&error);
            tracing::debug!(%error, "a list broke off");
        }
    });
    Ok(Body::from_stream(chunks(receiver)))
}

/// A view, if who asks may see of it what is wanted.
async fn judged(
    mut txn: Transaction,
    wanted: Wanted,
    credential: Credential,
) -> Result<(Transaction, Wanted)> {
    on_thread(move || {
        let grant = grant(&mut txn, &credential)?;
        grant.check(Permission::Enumerate, &wanted.range.prefix)?;
        if wanted.values {
            grant.check(Permission::Read, &wanted.range.prefix)?;
        }
        Ok((txn, wanted))
    })
    .await
}

/// Works on a thread that may wait for the disk.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let working = tokio::task::spawn_blocking(work);
    working.await.map_err(|e| Error::Internal(format!("a list: {e}")))?
}

/// A list under way. It moves to a blocking thread for each stretch, and back.
struct Listing {
    txn: Transaction,
    wanted: Wanted,
    place: Place,
    writer: Writer,
    /// Free once nothing reads or waits for this list, also where its client is gone.
    _turn: Turn,
}

impl Listing {
    fn begin(txn: Transaction, wanted: Wanted, turn: Turn) -> Self {
        let (range, skip, left) = (wanted.range.clone(), wanted.skip, wanted.limit);
        let place = Place { range, skip, left, last: None };
        let writer = Writer::new(wanted.format);
        Listing { txn, wanted, place, writer, _turn: turn }
    }

    /// Works on it on a thread that may wait for the disk.
    async fn on_thread<T: Send + 'static>(
        mut self,
        work: impl FnOnce(&mut Self) -> Result<T> + Send + 'static,
    ) -> Result<(Self, T)> {
        let work = move || {
            let done = work(&mut self)?;
            Ok((self, done))
        };
        on_thread(work).await
    }

    /// Writes the beginning.
    async fn head(self) -> Result<(Self, Stop)> {
        self.fill(HEAD_BYTES).await
    }

    /// Writes on until so many bytes are there.
    async fn fill(mut self, bytes: usize) -> Result<(Self, Stop)> {
        loop {
            let (listing, stop) = self.on_thread(move |listing| listing.write(bytes)).await?;
            if stop != Stop::Pause || listing.writer.len() >= bytes {
                return Ok((listing, stop));
            }
            self = listing;
        }
    }

    /// Where the next page begins, if the limit cuts the list: found by stepping over what is not written
    /// yet, and one key more.
    async fn cursor(mut self, stop: Stop) -> Result<(Self, Option<Cursor>)> {
        if stop == Stop::End || self.wanted.limit == 0 || self.holds_all() {
            return Ok((self, None));
        }
        let mut ahead = self.place.clone();
        if ahead.left > 0 {
            let (listing, passed, stop) = self.look(ahead).await?;
            if stop == Stop::End {
                return Ok((listing, None));
            }
            (self, ahead) = (listing, passed);
        }
        let Some(last) = ahead.last.clone() else { return Ok((self, None)) };
        let (listing, _, stop) = self.look(Place { left: 1, ..ahead }).await?;
        let cut = stop != Stop::End;
        let cursor = cut.then(|| listing.behind(&last));
        Ok((listing, cursor))
    }

    /// Steps over what is ahead of the list.
    async fn look(mut self, mut ahead: Place) -> Result<(Self, Place, Stop)> {
        loop {
            let look = move |listing: &mut Self| {
                let stop = walk(&listing.txn, &mut ahead, |_, _| Ok(true))?;
                Ok((ahead, stop))
            };
            let (listing, (passed, stop)) = self.on_thread(look).await?;
            if stop != Stop::Pause {
                return Ok((listing, passed, stop));
            }
            (self, ahead) = (listing, passed);
        }
    }

    /// Writes a stretch, with what closes the list where it ends.
    fn write(&mut self, bytes: usize) -> Result<Stop> {
        let (txn, writer, values) = (&self.txn, &mut self.writer, self.wanted.values);
        let stop = walk(txn, &mut self.place, |key, row| {
            // Only a value needs its row decoded.
            let record = if values { Some(txn.record(row)?) } else { None };
            writer.push(key, record.as_ref().map(|record| &record.value[..]));
            Ok(writer.len() < bytes)
        })?;
        if stop != Stop::Pause {
            self.writer.end();
        }
        Ok(stop)
    }

    /// Whether the limit cannot cut a list, whatever its range: the bucket has no more keys.
    fn holds_all(&self) -> bool {
        let reach = self.wanted.skip.saturating_add(self.wanted.limit);
        self.txn.counts().keys <= reach as u64
    }

    fn behind(&self, key: &[u8]) -> Cursor {
        let cursor = Cursor::behind(key, &self.wanted.range, self.txn.read_revision());
        cursor.since(self.wanted.cursor.as_ref())
    }
}

/// A part of a list; the last one says so, or the list was cut.
struct Chunk {
    text: Bytes,
    is_last: bool,
}

/// Reads a list to its end and sends it, beginning with what is written already.
async fn send(mut listing: Listing, sender: mpsc::Sender<Chunk>, mut pace: Pace) -> Result<()> {
    let mut is_last = false;
    loop {
        let text = listing.writer.take();
        pace.send(&sender, Chunk { text, is_last }).await?;
        if is_last {
            return Ok(());
        }
        let (filled, stop) = listing.fill(CHUNK_BYTES).await?;
        (listing, is_last) = (filled, stop != Stop::Pause);
    }
}

/// What was sent, as a body's chunks: whole, or broken off with an error.
fn chunks(receiver: mpsc::Receiver<Chunk>) -> impl Stream<Item = Result<Bytes>> {
    futures::stream::unfold(Some(receiver), async |receiver| {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Chunk { text, is_last }) => Some((Ok(text), Some(receiver).filter(|_| !is_last))),
            None => Some((Err(Error::Internal("the list was cut".to_owned())), None)),
        }
    })
}

/// How long a reader may still keep a list waiting.
struct Pace {
    most: Duration,
    left: Duration,
    /// When it is cut in any case.
    end: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { most: PATIENCE, left: PATIENCE, end: Instant::now() + LIST_TIME }
    }
}

impl Pace {
    /// Sends a chunk, if it is taken in time.
    async fn send(&mut self, sender: &mpsc::Sender<Chunk>, chunk: Chunk) -> Result<()> {
        let (began, bytes) = (Instant::now(), chunk.text.len() as u64);
        let wait = self.left.min(self.end.saturating_duration_since(began));
        let gone = |_| Error::Overloaded("its reader is gone".to_owned());
        let slow = |_| Error::Overloaded("its reader is too slow".to_owned());
        tokio::time::timeout(wait, sender.send(chunk)).await.map_err(slow)?.map_err(gone)?;
        self.settle(began.elapsed(), bytes);
        Ok(())
    }

    /// Counts how long a chunk took, and what it earns.
    fn settle(&mut self, waited: Duration, bytes: u64) {
        let earned = Duration::from_millis(bytes.saturating_mul(1000) / BYTES_PER_SECOND);
        self.left = (self.left.saturating_sub(waited) + earned).min(self.most);
    }
}

#[cfg(test)]
mod tests;
