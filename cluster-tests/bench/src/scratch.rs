//! The directory that all data of a run lies in, and the end of a run, however it ends.
//!
//! Invariants:
//! - No process that was started outlives the run: each is killed when its owner is dropped, and Ctrl-C kills all.
//! - The data goes with it: some gigabytes are nothing to leave behind.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::machine;

/// The directory. Dropping it deletes it: make it first, so that it is dropped last.
pub struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    /// A new directory under this one, which is made where it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(under: &Path) -> Result<Self, String> {
        let dir = under.join(format!("data-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let dir = dir.canonicalize().map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(Scratch { dir })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Where one of the peers' data is to lie; what an earlier one of that name left is deleted.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn fresh(&self, name: &str) -> Result<PathBuf, String> {
        let dir = self.dir.join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Ends everything on Ctrl-C and on a request to terminate: the processes by kill -9, the data, this program.
///
/// # Errors
/// When signals cannot be listened to.
pub fn end_on_signals(runtime: &Runtime, scratch: &Scratch) -> Result<(), String> {
    let dir = scratch.path().to_owned();
    let _inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    runtime.spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        for pid in machine::children() {
            kill_now(pid);
        }
        let _ = fs::remove_dir_all(dir);
        std::process::exit(130);
    });
    Ok(())
}

/// `kill -9`, of a process that may be gone.
pub fn kill_now(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}
