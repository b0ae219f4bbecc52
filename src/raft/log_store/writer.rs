//! The thread that writes and syncs what was gathered, one batch at a time.
//!
//! It tells who waits, then looks for what was gathered meanwhile. Where nobody waits it sleeps, and whoever comes
//! wakes it.
//!
//! Invariants:
//! - One write and one sync at a time: a frame is written only when all before it are on disk.
//! - The log's lock is held to take a batch and to count it as done, never while the disk works or somebody is told.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use tracing::error;

use super::Shared;
use super::log::Batch;
use super::segment::{Files, Tail};
use super::synced::Synced;
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};
use crate::raft::types::IOFlushed;

/// What the log did since it was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) fsyncs: AtomicU64,
    pub(super) entries: AtomicU64,
}

/// What the thread does next.
pub(super) enum Step {
    Write(Box<Batch>),
    Wait,
    Stop,
}

/// The files and what is noted of them: only the thread writes.
pub(super) struct Writer {
    pub(super) files: Files,
    /// None before the first segment.
    pub(super) tail: Option<Tail>,
    pub(super) synced: Synced,
    pub(super) counters: Arc<Counters>,
}

/// Starts the thread. It ends when the log is closed or has failed.
pub(super) fn spawn(writer: Writer, shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let work = move || {
        if let Err(error) = run(writer, &shared) {
            error!(%error, "the raft log cannot be written");
            shared.fail(&error);
        }
    };
    thread::Builder::new().name("raft-log".into()).spawn(work)
}

fn run(mut writer: Writer, shared: &Shared) -> Result<()> {
    loop {
        match shared.step() {
            Step::Stop => return Ok(()),
            Step::Wait => thread::park(),
            Step::Write(mut batch) => {
                let waiting = Waiting::from(std::mem::take(&mut batch.waiting));
                writer.write(&mut batch, shared)?;
                waiting.complete();
                for segment in shared.change(|log| log.synced(*batch)) {
                    writer.files.release(&segment)?;
                }
            }
        }
    }
}

impl Writer {
    /// Writes and syncs a batch, and notes how far the log is on disk.
    fn write(&mut self, batch: &mut Batch, shared: &Shared) -> Result<()> {
        if let Some((start, head)) = batch.begin {
            let tail = self.files.begin(start, head)?;
            let segment = tail.segment.clone();
            self.tail = Some(tail);
            shared.change(|log| log.begun(segment));
        }
        let tail = self.tail.as_mut().ok_or_else(|| Error::Internal("no segment".to_owned()))?;
        if batch.end > batch.position {
            tail.write(&mut batch.frame, batch.position)?;
        }
        if batch.wanted || !mutant::is(Mutant::AckBeforeFsync) {
            tail.sync()?;
            self.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
        }
        Ok(self.synced.note(batch.end)?)
    }
}

/// Who waits for a sync. Nobody waits for ever: they hear of a failure where this is dropped.
pub(super) struct Waiting(Vec<IOFlushed>);

impl Waiting {
    pub(super) fn complete(mut self) {
        self.0.drain(..).for_each(|waiting| waiting.io_completed(Ok(())));
    }
}

impl From<Vec<IOFlushed>> for Waiting {
    fn from(waiting: Vec<IOFlushed>) -> Self {
        Waiting(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for waiting in self.0.drain(..) {
            waiting.io_completed(Err(io::Error::other("the log's writer stopped")));
        }
    }
}
