//! The end of a run, however it comes: by itself, by Ctrl-C, by a request to terminate, by a crash.
//!
//! A run is this program twice: one that measures, and above it one that waits for it and cleans up. The first is
//! always just about to start a process or a file; what it started a moment ago, only somebody else can
//! end for sure. So the second kills it first, then all that it left, then deletes the data. Orphans come to it
//! instead of the system's first process.
//!
//! Invariants:
//! - Nothing that was started is alive, and no data is there, when the supervisor ends.
//! - The supervisor itself can be killed (SIGKILL): the kernel then kills the worker, and the databases with
//!   that. Their data is deleted by the next run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid};

use crate::machine;

/// Says to the program that it is the worker, and where its data is to be.
const DATA: &str = "KVDB_BENCH_DATA";
/// The names of data directories begin with this; the supervisor's process id is the rest.
const PREFIX: &str = "data-";
/// What ends a run early.
const ENDS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
/// A shell's exit status for a signal is this and its number.
const BY_SIGNAL: i32 = 128;

/// Starts a process that dies with the thread that started it. These words come before the program's name; none
/// where that cannot be.
#[must_use]
pub fn dies_with_us() -> Vec<String> {
    let words = ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned);
    if crate::peers::program("setpriv").is_some() { words.into() } else { Vec::new() }
}

/// Where data is to be, where this is the worker; it dies with its supervisor from now on.
///
/// # Errors
/// When the supervisor is gone.
pub fn as_worker() -> Result<Option<PathBuf>, String> {
    let Some(dir) = std::env::var_os(DATA) else { return Ok(None) };
    // The supervisor's signals are blocked, and that is inherited.
    let unblocked = SigSet::all().thread_unblock();
    let bound = unblocked.and_then(|()| prctl::set_pdeathsig(Signal::SIGKILL));
    bound.map_err(|e| format!("binding to the supervisor: {e}"))?;
    let dir = PathBuf::from(dir);
    // It may have ended just before.
    match owner(&dir) == u32::try_from(getppid().as_raw()).ok() {
        true => Ok(Some(dir)),
        false => Err("the supervisor is gone".to_owned()),
    }
}

/// Runs this program again as the worker, with data under a directory, and cleans up after it; its exit status,
/// or that of a signal.
///
/// # Errors
/// When it cannot be run.
pub fn supervise(under: &Path) -> Result<i32, String> {
    let failed = |what: &str, e: Errno| format!("{what}: {e}");
    sweep(under);
    prctl::set_child_subreaper(true).map_err(|e| failed("taking orphans in", e))?;
    // Before there is anything to clean up.
    let mut signals = ends();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().map_err(|e| failed("signals", e))?;
    let dir = under.join(format!("{PREFIX}{}", std::process::id()));
    let ended = work(&dir, &signals);
    end_children();
    let _ = fs::remove_dir_all(dir);
    ended
}

fn ends() -> SigSet {
    ENDS.into_iter().collect()
}

fn work(dir: &Path, signals: &SigSet) -> Result<i32, String> {
    let itself = std::env::current_exe().map_err(|e| e.to_string())?;
    let worker = Command::new(itself).args(std::env::args_os().skip(1)).env(DATA, dir).spawn();
    let worker = worker.map_err(|e| format!("the worker: {e}"))?.id();
    let worker = i32::try_from(worker).map_err(|e| e.to_string())?;
    loop {
        match signals.wait().map_err(|e| format!("waiting: {e}"))? {
            Signal::SIGCHLD => {
                if let Some(code) = reap(Pid::from_raw(worker)) {
                    return Ok(code);
                }
            }
            signal => return Ok(BY_SIGNAL + signal as i32),
        }
    }
}

/// Takes note of all who have ended; the exit status of the worker, if it is among them.
fn reap(worker: Pid) -> Option<i32> {
    let mut code = None;
    // One signal may stand for several ends.
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == worker => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == worker => {
                code = Some(BY_SIGNAL + signal as i32);
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return code,
            Ok(_) => {}
        }
    }
}

/// Kills every child and waits for it, until there is none. What a killed one had started is a child then.
fn end_children() {
    loop {
        machine::children().into_iter().for_each(kill_now);
        match waitpid(None, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Deletes what runs left whose supervisors were killed.
fn sweep(under: &Path) {
    let Ok(entries) = fs::read_dir(under) else { return };
    for dir in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let gone = |pid: u32| !Path::new(&format!("/proc/{pid}")).exists();
        if owner(&dir).is_some_and(gone) {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

/// The supervisor of a data directory.
fn owner(dir: &Path) -> Option<u32> {
    dir.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse().ok()
}

/// `kill -9`, of a process that may be gone.
pub fn kill_now(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_dead_runs_left_is_swept() {
        let under = tempfile::tempdir().unwrap();
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let left = under.path().join(format!("{PREFIX}{}", dead.id()));
        let own = under.path().join(format!("{PREFIX}{}", std::process::id()));
        let other = under.path().join("results");
        for dir in [&left, &own, &other] {
            fs::create_dir_all(dir.join("n0")).unwrap();
        }
        sweep(under.path());
        assert!(!left.exists() && own.exists() && other.exists());
    }
}
