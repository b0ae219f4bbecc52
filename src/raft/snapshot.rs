//! A snapshot on its way: a checkpoint's files as frames, each frame with its own checksum.
//!
//! `Header ‖ (File ‖ Chunk…)… ‖ End`. The receiver writes into a directory of its own, checks names and
//! sizes, syncs, opens the result and compares every row with the digests before openraft hears of it.
//!
//! All of it keeps a [`Pace`], so that clients hardly notice: reading and sending on the leader, and writing
//! and comparing on the receiver, take processors and disks that others need. What is received is
//! synced bit by bit, for a sync of the log that comes behind gigabytes would wait for them.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedMutexGuard, mpsc};

use super::frame::frame;
use super::state_machine::verify_checkpoint;
use super::types::{Snapshot, SnapshotMeta, Vote};
use super::wire;
use crate::error::{Error, Result};
use crate::storage::{Checkpoint, Pace};

const CHUNK_BYTES: usize = 256 << 10;
/// Chunks read ahead of the network.
const READ_AHEAD: usize = 8;
/// Bytes received between two syncs.
const SYNC_BYTES: u64 = 8 << 20;
/// How long a sender may be silent. It rests for less than that at its slowest pace: then it is gone, though
/// its connection may not know that.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Files that one snapshot may have.
const FILES_MAX: usize = 100_000;

/// A part of a snapshot on the wire.
#[derive(Serialize, Deserialize)]
pub(super) enum Part {
    /// First: whose, and what.
    Header { vote: wire::Vote, meta: wire::SnapshotMeta },
    /// The chunks that follow are this file's.
    File { name: String, bytes: u64 },
    /// Bytes of the file.
    Chunk(Bytes),
    /// Last: there are this many files.
    End { files: u64 },
}

/// A body that streams the checkpoint, in constant memory.
pub(super) fn send(
    vote: Vote,
    snapshot: Snapshot<Arc<Checkpoint>>,
    pace: Pace,
) -> Result<reqwest::Body> {
    let files = snapshot.snapshot.files()?;
    let (parts, queue) = mpsc::channel(READ_AHEAD);
    let header = Part::Header { vote: vote.into(), meta: (&snapshot.meta).into() };
    tokio::task::spawn_blocking(move || {
        let sent = send_parts(&parts, header, snapshot.snapshot.path(), &files, pace);
        if let Err(error) = sent {
            // Breaks the body off: the receiver sees no End.
            let _ = parts.blocking_send(Err(error));
        }
    });
    let stream = tokio_stream::wrappers::ReceiverStream::new(queue);
    Ok(reqwest::Body::wrap_stream(stream))
}

fn send_parts(
    parts: &mpsc::Sender<Result<Bytes>>,
    header: Part,
    directory: &Path,
    files: &[(String, u64)],
    pace: Pace,
) -> Result<()> {
    let send = |part: Part| {
        let closed = |_| Error::Io("the receiver has gone".to_owned());
        parts.blocking_send(frame(&part)).map_err(closed)
    };
    send(header)?;
    let mut paced = pace.begin();
    for (name, bytes) in files {
        send(Part::File { name: name.clone(), bytes: *bytes })?;
        let mut file = File::open(directory.join(name))?;
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let read = file.read(&mut chunk)?;
            if read == 0 {
                break;
            }
            chunk.truncate(read);
            send(Part::Chunk(chunk.into()))?;
            std::thread::sleep(paced.rest(read));
        }
    }
    send(Part::End { files: files.len() as u64 })
}

/// Receives snapshots into a directory of scratch directories.
pub(super) struct Receiver {
    incoming: PathBuf,
    count: AtomicU64,
    /// One at a time: another would double the disk that is needed.
    busy: Arc<tokio::sync::Mutex<()>>,
    silence_max: Duration,
    pace: Pace,
}

impl Receiver {
    pub(super) fn new(incoming: PathBuf, pace: Pace) -> Self {
        let (count, busy, silence_max) = (AtomicU64::new(0), Default::default(), SILENCE_MAX);
        Receiver { incoming, count, busy, silence_max, pace }
    }

    /// The next part, unless the sender has gone.
    async fn next(
        &self,
        parts: &mut (impl Stream<Item = Result<Part>> + Unpin),
    ) -> Result<Option<Part>> {
        let silent = |_| Error::Io("the sender of the snapshot is silent".to_owned());
        tokio::time::timeout(self.silence_max, parts.next()).await.map_err(silent)?.transpose()
    }

    /// Receives and verifies one snapshot.
    pub(super) async fn receive(
        &self,
        mut parts: impl Stream<Item = Result<Part>> + Unpin,
    ) -> Result<(Vote, Snapshot<Arc<Checkpoint>>)> {
        let busy = |_| Error::Overloaded("another snapshot is being received".to_owned());
        let busy = Arc::clone(&self.busy).try_lock_owned().map_err(busy)?;
        let Some(Part::Header { vote, meta }) = self.next(&mut parts).await? else {
            return Err(Error::corrupt("snapshot", "no header"));
        };
        let meta = SnapshotMeta::try_from(meta)?;
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let directory = self.incoming.join(number.to_string());
        std::fs::create_dir(&directory)?;
        // Removed again where anything below fails.
        let checkpoint = Checkpoint::adopt(directory);
        let mut files =
            Files { directory: checkpoint.path().to_owned(), current: None, unsynced: 0, count: 0 };
        loop {
            match self.next(&mut parts).await? {
                // A sync of a large file takes seconds, in which other tasks must go on.
                Some(Part::File { name, bytes }) => {
                    tokio::task::block_in_place(|| files.begin(&name, bytes))?;
                }
                Some(Part::Chunk(bytes)) => tokio::task::block_in_place(|| files.write(&bytes))?,
                Some(Part::End { files: count }) => {
                    break tokio::task::block_in_place(|| files.finish(count))?;
                }
                Some(Part::Header { .. }) => return Err(Error::corrupt("snapshot", "two headers")),
                None => return Err(Error::corrupt("snapshot", "broke off")),
            }
        }
        let checkpoint = verify(checkpoint, meta.clone(), self.pace, busy).await?;
        Ok((vote.into(), Snapshot { meta, snapshot: Arc::new(checkpoint) }))
    }
}

/// Checks what was received. The check ends soon after whoever waits for it has gone, with the request or the node,
/// and only then is another snapshot received.
async fn verify(
    checkpoint: Checkpoint,
    meta: SnapshotMeta,
    pace: Pace,
    busy: OwnedMutexGuard<()>,
) -> Result<Checkpoint> {
    let waited_for = StopOnDrop::default();
    let stop = Arc::clone(&waited_for.0);
    tokio::task::spawn_blocking(move || {
        let _busy = busy;
        verify_checkpoint(&checkpoint, &meta, pace, &stop).map(|()| checkpoint)
    })
    .await
    .map_err(|e| Error::Internal(format!("verifying a snapshot: {e}")))?
}

/// Tells a blocking task that nobody waits for it any more.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The files of a snapshot while they are written.
struct Files {
    directory: PathBuf,
    current: Option<(File, u64)>,
    /// Bytes of it that may not be on disk.
    unsynced: u64,
    count: usize,
}

impl Files {
    fn begin(&mut self, name: &str, bytes: u64) -> Result<()> {
        self.end_current()?;
        let plain = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && !name.starts_with('.');
        if !plain {
            return Err(Error::corrupt("snapshot", format!("a file named {name:?}")));
        }
        self.count += 1;
        if self.count > FILES_MAX {
            return Err(Error::corrupt("snapshot", format!("more than {FILES_MAX} files")));
        }
        self.current = Some((File::create_new(self.directory.join(name))?, bytes));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some((file, left)) = &mut self.current else {
            return Err(Error::corrupt("snapshot", "bytes of no file"));
        };
        *left = left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| Error::corrupt("snapshot", "a file longer than announced"))?;
        file.write_all(bytes)?;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            file.sync_data()?;
        }
        Ok(())
    }

    fn end_current(&mut self) -> Result<()> {
        match self.current.take() {
            Some((file, 0)) => Ok(file.sync_all()?),
            Some((_, left)) => {
                Err(Error::corrupt("snapshot", format!("a file lacks {left} bytes")))
            }
            None => Ok(()),
        }
    }

    fn finish(mut self, count: u64) -> Result<()> {
        self.end_current()?;
        if self.count as u64 != count {
            let detail = format!("{} files of {count}", self.count);
            return Err(Error::corrupt("snapshot", detail));
        }
        Ok(File::open(&self.directory)?.sync_all()?)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, stream};

    use super::*;
    use crate::kv;
    use crate::storage::{DataDir, State, Tuning};

    /// A connection that is cut off ends no body that is read from it. The receiver waited for such a sender
    /// for ever, refused every other snapshot meanwhile, and its node never caught up. Found by a
    /// campaign that resets connections.
    #[tokio::test(flavor = "multi_thread")]
    async fn silent_sender_does_not_keep_others_out() {
        let dir = tempfile::tempdir().unwrap();
        let silence_max = Duration::from_millis(50);
        let receiver =
            Receiver { silence_max, ..Receiver::new(dir.path().to_owned(), Pace::default()) };
        let vote = Vote::new_committed(1, 1);
        let header = || Part::Header { vote: vote.into(), meta: (&SnapshotMeta::default()).into() };
        for _ in 0..2 {
            let parts = stream::iter([Ok(header())]).chain(stream::pending());
            let refused = receiver.receive(Box::pin(parts)).await.map(drop);
            assert!(matches!(&refused, Err(Error::Io(_))), "{refused:?}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "its files are gone");
        }
    }

    /// The check of a large snapshot went on after its sender, and even its node, had gone: another snapshot was
    /// checked beside it, and the process did not end.
    #[tokio::test(flavor = "multi_thread")]
    async fn check_ends_with_its_request_and_keeps_others_out_until_then() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let state = State::open(&data, Tuning::default()).unwrap();
        let mut batch = state.batch();
        let rows = (1..=20).map(|id| (id, vec![7; 1 << 20].into()));
        kv::record_nodes(&mut batch, rows).unwrap();
        batch.commit().unwrap();
        let (busy, meta) = (Arc::new(tokio::sync::Mutex::default()), SnapshotMeta::default());
        let guard = || Arc::clone(&busy).try_lock_owned().unwrap();

        // Twenty seconds, at this pace.
        let (checkpoint, slow) = (state.checkpoint().unwrap(), Pace(1 << 20));
        let path = checkpoint.path().to_owned();
        let mut check = Box::pin(verify(checkpoint, meta.clone(), slow, guard()));
        assert!(check.as_mut().now_or_never().is_none());
        drop(check);
        assert!(busy.try_lock().is_err(), "it is not over at once");
        let over = tokio::time::timeout(Duration::from_secs(8), busy.lock()).await;
        drop(over.expect("the check ends"));
        assert!(!path.exists(), "its files are gone");

        let whole = verify(state.checkpoint().unwrap(), meta, Pace::default(), guard()).await;
        assert!(whole.is_ok(), "{whole:?}");
        assert!(busy.try_lock().is_ok());
    }
}
