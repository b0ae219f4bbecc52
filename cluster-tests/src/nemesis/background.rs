//! What a fault does by itself until it is over or undone.

use std::future::Future;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Resolves when a task is to stop.
pub(super) type Stop = oneshot::Receiver<()>;

/// A task that stops when it is told to, and tells how it went.
pub(super) struct Background {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), String>>,
}

impl Background {
    /// Starts it. It must come to an end by itself as well.
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
