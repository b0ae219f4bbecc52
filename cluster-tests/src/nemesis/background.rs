//! Work that keeps no client waiting: what may take long, and what a fault does by itself until it is over.
//!
//! Invariants:
//! - What may take long runs on a thread that clients do not use.
//! - What goes on by itself comes to an end by itself, too.

use std::future::Future;
use std::process::Command;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Arena;
use crate::lab::{Disk, run};

/// Runs a command to its end.
pub(super) async fn command(mut command: Command) -> Result<String, String> {
    blocking(move || run(&mut command)).await
}

/// Does work that may take long.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| format!("work on a thread of its own: {e}"))?
}

/// Does something to a node's disk that may take long, such as waiting until it is not busy.
pub(super) fn on_disk<T>(
    arena: &mut Arena,
    id: u64,
    work: impl FnOnce(&mut Disk) -> Result<T, String>,
) -> Result<T, String> {
    let disk = arena.lab.disk(id)?;
    tokio::task::block_in_place(|| work(disk))
}

/// Resolves when a task is to stop.
pub(super) type Stop = oneshot::Receiver<()>;

/// A task that stops when it is told to, and tells how it went.
pub(super) struct Background {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), String>>,
}

impl Background {
    /// Starts it.
    pub(super) fn start<F>(work: impl FnOnce(Stop) -> F) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        Background { stop, task: tokio::spawn(work(stopped)) }
    }

    /// Tells it to stop, and waits until it has put right what it must.
    pub(super) async fn end(self) -> Result<(), String> {
        // It has come to its end already where nobody listens.
        let _ = self.stop.send(());
        self.task.await.map_err(|e| e.to_string())?
    }
}
