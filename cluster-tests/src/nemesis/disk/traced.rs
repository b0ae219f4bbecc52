//! Syncs that are slow or fail, by a tracer that attaches to a running node.
//!
//! A tracer stops the node at every system call, so it is slower in everything while the fault is there.
//! That is welcome: it is what a bad disk looks like.
//!
//! Invariants:
//! - It is confirmed by the tracer's own record of a call that it met. A node that syncs nothing while the
//!   fault is there has not been met, and the fault does not count.

use std::fmt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::NamedTempFile;

use crate::lab::shell;
use crate::nemesis::until::until;
use crate::nemesis::{Arena, Evidence, Fault, Task, node};
use crate::wait::holds;

/// How long attaching may take.
const ATTACHED: Duration = Duration::from_secs(5);
/// How long it may take until the node syncs.
const MET: Duration = Duration::from_secs(10);
/// How long the tracer may take to detach from all threads.
const DETACHED: Duration = Duration::from_secs(5);
/// How long a node that exits of a failed sync may take for it, for the report to say so.
const EXITS: Duration = Duration::from_secs(1);

/// What happens to `fdatasync` and `fsync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Injection {
    /// It begins so much later.
    Slow(Duration),
    /// The first of each thread fails with EIO and syncs nothing; then the tracer leaves.
    FailOnce,
    /// Every one fails with EIO and syncs nothing.
    Fail,
}

impl Injection {
    /// As the tracer is told.
    fn option(self) -> String {
        match self {
            Injection::Slow(delay) => format!("delay_enter={}", delay.as_micros()),
            Injection::FailOnce => "error=EIO:when=1".to_owned(),
            Injection::Fail => "error=EIO".to_owned(),
        }
    }

    /// What the tracer's record says of a call that was met.
    fn mark(self) -> &'static str {
        match self {
            Injection::Slow(_) => "(DELAYED)",
            Injection::FailOnce | Injection::Fail => "(INJECTED)",
        }
    }
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Injection::Slow(delay) => write!(f, "syncs take {} ms longer", delay.as_millis()),
            Injection::FailOnce => f.write_str("a sync fails with EIO"),
            Injection::Fail => f.write_str("syncs fail with EIO"),
        }
    }
}

/// A node whose syncs are met.
pub(super) struct Traced {
    id: u64,
    injection: Injection,
    tracer: Option<Tracer>,
}

impl Traced {
    pub(super) fn new(id: u64, injection: Injection) -> Self {
        Traced { id, injection, tracer: None }
    }
}

impl fmt::Display for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.injection, self.id)
    }
}

impl Fault for Traced {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            let pid = node::pid(arena, self.id)?;
            let tracer = self.tracer.insert(Tracer::attach(pid, self.injection)?);
            until!(ATTACHED, tracer.has(pid))?;
            let met = until!(MET, tracer.met(self.injection.mark()))?;
            if self.injection == Injection::FailOnce {
                tracer.detach().await?;
            }
            let running = match self.injection {
                Injection::Slow(_) => String::new(),
                _ => match node::ended(arena, self.id, EXITS).await {
                    Ok(status) => format!("; the node exited: {status}"),
                    Err(_) => "; the node runs on".to_owned(),
                },
            };
            Ok(format!("{met}{running}"))
        })
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move {
            let Some(mut tracer) = self.tracer.take() else { return Ok(()) };
            tracer.detach().await?;
            node::start(arena, &[self.id]).await
        })
    }
}

/// `strace`, attached to all threads of a process.
struct Tracer {
    child: Child,
    record: NamedTempFile,
}

impl Tracer {
    fn attach(pid: u32, injection: Injection) -> Result<Self, String> {
        let record = NamedTempFile::new().map_err(|e| e.to_string())?;
        let calls = "fdatasync,fsync";
        let option = injection.option();
        let line = format!("strace -f -p {pid} -e trace={calls} -e inject={calls}:{option} -o");
        let mut command = shell(&line);
        command.arg(record.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().map_err(|e| format!("strace: {e}"))?;
        Ok(Tracer { child, record })
    }

    fn path(&self) -> &Path {
        self.record.path()
    }

    /// Whether it traces a process.
    fn has(&mut self, pid: u32) -> Result<(), String> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(format!("strace ended: {status}"));
        }
        let tracer = node::tracer(pid);
        holds(tracer == Some(self.child.id()), || format!("the tracer of {pid} is {tracer:?}"))
    }

    /// A line of the record with a mark.
    fn met(&self, mark: &str) -> Result<String, String> {
        let record = std::fs::read_to_string(self.path()).map_err(|e| e.to_string())?;
        let line = record.lines().find(|line| line.contains(mark));
        line.map(str::to_owned).ok_or_else(|| format!("no sync was met within {MET:?}"))
    }

    /// Detaches from all threads, and ends.
    async fn detach(&mut self) -> Result<(), String> {
        // It has ended with the process that it traced, perhaps: then its status is there.
        if let Ok(Some(_)) = self.child.try_wait() {
            return Ok(());
        }
        let number = i32::try_from(self.child.id()).map_err(|e| e.to_string())?;
        kill(Pid::from_raw(number), Signal::SIGINT).map_err(|e| format!("strace: {e}"))?;
        until!(
            DETACHED,
            match self.child.try_wait() {
                Ok(Some(_)) => Ok(()),
                _ => Err(format!("strace does not detach within {DETACHED:?}")),
            }
        )
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // The kernel detaches where it has not.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
