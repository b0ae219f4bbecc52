//! Crashes at chosen moments: at the Nth call of a kind to the system, and soon after a start.
//!
//! A node is started under `strace`, which kills it as it enters the call. What it had written stays,
//! as after any `kill -9`; what is new is the moment, between two steps that must belong together.
//! `strace` counts for each thread on its own. Its `--seccomp-bpf`, which would cost less, injects nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Arena, Evidence, Fault, Kind, Needs, Task, node, pick};

/// How long a node may run until it meets its call.
const MEET: Duration = Duration::from_secs(15);
/// Kills of a loop.
const KILLS: u32 = 20;
/// A node of a loop is killed so many milliseconds after its start.
const ALIVE_MS: std::ops::RangeInclusive<u64> = 50..=500;

/// Crashes at chosen moments.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "crash-at-fsync",
        about: "a node dies as it enters its Nth sync",
        needs: Needs::Tracing,
        alone: false,
        draw: |arena| Crash::draw(arena, "fsync,fdatasync,sync_file_range", 120, false),
    },
    Kind {
        name: "crash-at-rename",
        about: "a node dies as it enters its Nth change of a name or of a file's size",
        needs: Needs::Tracing,
        alone: false,
        draw: |arena| Crash::draw(arena, NAMES, 25, false),
    },
    Kind {
        name: "crash-at-write",
        about: "a node dies as it enters its Nth write to any file or connection, or to its log",
        needs: Needs::Tracing,
        alone: false,
        draw: |arena| {
            let to_log = arena.rng.bool();
            Crash::draw(
                arena,
                "write,writev,pwrite64,pwritev",
                if to_log { 80 } else { 800 },
                to_log,
            )
        },
    },
    Kind {
        name: "crash-loop",
        about: "a node is killed again and again, soon after each start",
        needs: Needs::Processes,
        alone: false,
        draw: |arena| pick::one(arena).map(|node| Box::new(Loop { node }) as Box<dyn Fault>),
    },
];

/// Calls that change a directory, or cut a file.
const NAMES: &str = "rename,renameat,renameat2,link,linkat,unlink,unlinkat,ftruncate,fallocate";

struct Crash {
    node: u64,
    calls: &'static str,
    /// At which of them.
    nth: u32,
    /// Only those on files of the log.
    to_log: bool,
}

impl Crash {
    /// Half of them at the first few calls, most of which belong to the start.
    fn draw(
        arena: &mut Arena,
        calls: &'static str,
        most: u32,
        to_log: bool,
    ) -> Option<Box<dyn Fault>> {
        let node = pick::one(arena)?;
        let most = if arena.rng.bool() { 8 } else { most };
        let nth = arena.rng.u32(1..=most);
        Some(Box::new(Crash { node, calls, nth, to_log }))
    }

    fn wrapper(&self, data: &Path, trace: &Path) -> Vec<String> {
        let Crash { calls, nth, .. } = self;
        let mut words: Vec<String> = ["strace", "-D", "-f", "-qq", "-o"]
            .map(str::to_owned)
            .into_iter()
            .chain([trace.display().to_string()])
            .chain(["-e".to_owned(), format!("trace={calls}")])
            .chain(["-e".to_owned(), format!("inject={calls}:signal=KILL:when={nth}")])
            .collect();
        if self.to_log {
            for file in super::damage::files::log_files(data) {
                words.extend(["-P".to_owned(), file.display().to_string()]);
            }
        }
        words
    }

    async fn crash(&self, arena: &mut Arena) -> Result<Evidence, String> {
        let id = self.node;
        let trace = trace_file(arena, id);
        // Of a crash before this one.
        let _ = std::fs::remove_file(&trace);
        node::kill(arena, &[id]).await?;
        let words = self.wrapper(arena.cluster.data(id), &trace);
        arena.cluster.process(id).wrap(words);
        node::launch(arena, id);
        let began = Instant::now();
        let ended = node::ended(arena, id, MEET).await;
        let after = began.elapsed();
        node::kill(arena, &[id]).await?;
        arena.cluster.process(id).wrap(Vec::new());
        let started = node::start(arena, &[id]).await;
        ended.map_err(|_| format!("it made no {} calls of a thread in {MEET:?}", self.nth))?;
        let call = injected(&trace)?;
        started.map_err(|why| format!("after {call}: {why}"))?;
        Ok(format!("died {after:.1?} after its start, entering {call}; listens again"))
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.calls.split(',').next().unwrap_or_default();
        let to_log = if self.to_log { " to its log" } else { "" };
        write!(f, "kill node {} at its {}. {first} or like{to_log}", self.node, self.nth)
    }
}

impl Fault for Crash {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(self.crash(arena))
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        let id = self.node;
        Box::pin(async move {
            if arena.cluster.ids().contains(&id) {
                arena.cluster.process(id).wrap(Vec::new());
            }
            node::start(arena, &[id]).await
        })
    }
}

/// Where `strace` writes.
fn trace_file(arena: &mut Arena, id: u64) -> PathBuf {
    arena.cluster.process(id).log().with_extension("strace")
}

/// The call that the kill was put into. The process is gone before `strace` may have written all.
fn injected(trace: &Path) -> Result<String, String> {
    let text = std::fs::read(trace).map_err(|e| format!("{}: {e}", trace.display()))?;
    let text = String::from_utf8_lossy(&text);
    // `?` is the result of a call that did not return.
    let call = text.lines().rev().find(|line| line.contains("(INJECTED)") || line.contains(" = ?"));
    let call = call.ok_or_else(|| "it died, and not of a call that was traced".to_owned())?;
    // `PID <... fsync resumed>) = ?` where another thread's line came between.
    let words = call.split_whitespace().skip(1).filter(|word| *word != "<...");
    let call = words.collect::<Vec<_>>().join(" ");
    Ok(call.trim_end_matches(" = ?").replace(" resumed>)", "").chars().take(60).collect())
}

struct Loop {
    node: u64,
}

impl Loop {
    async fn run(&self, arena: &mut Arena) -> Result<Evidence, String> {
        let id = self.node;
        let before = super::damage::files::bytes(arena.cluster.data(id));
        for _ in 0..KILLS {
            node::kill(arena, &[id]).await?;
            node::launch(arena, id);
            let alive = Duration::from_millis(arena.rng.u64(ALIVE_MS));
            // Where it ends before that, something is wrong with it.
            if let Ok(exit) = node::ended(arena, id, alive).await {
                node::launch(arena, id);
                return Err(format!("node {id} ended by itself: {exit}"));
            }
        }
        node::kill(arena, &[id]).await?;
        let began = Instant::now();
        node::start(arena, &[id]).await?;
        let (took, after) = (began.elapsed(), super::damage::files::bytes(arena.cluster.data(id)));
        Ok(format!(
            "{KILLS} kills; listens {took:.1?} after the last start; {before} bytes, now {after}"
        ))
    }
}

impl fmt::Display for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kill node {} {KILLS} times soon after its start", self.node)
    }
}

impl Fault for Loop {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(self.run(arena))
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move { node::start(arena, &[self.node]).await })
    }
}
