//! Disks that stall, are full, or read-only.

use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};

use crate::lab::shell;
use crate::nemesis::background::{self, Background, Stop};
use crate::nemesis::{Arena, Evidence, Fault, Task, node};

/// A disk that answers nothing for a time.
pub(super) struct Stall {
    id: u64,
    lasts: Duration,
    frozen: Option<Background>,
}

impl Stall {
    pub(super) fn new(id: u64, lasts: Duration) -> Self {
        Stall { id, lasts, frozen: None }
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk of {} stalls for {} ms", self.id, self.lasts.as_millis())
    }
}

impl Fault for Stall {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            let mount = background::on_disk(arena, self.id, |disk| {
                disk.claim()?;
                Ok(disk.path().to_owned())
            })?;
            let frozen = background::command(fsfreeze("-f", &mount)).await;
            // Whatever is seen: a disk that stays frozen could not even be unmounted.
            let (lasts, path) = (self.lasts, mount.clone());
            self.frozen = Some(Background::start(|stop| thaw(path, lasts, stop)));
            frozen?;
            match background::command(fsfreeze("-f", &mount)).await {
                Err(busy) if busy.contains("busy") => Ok("frozen: a second freeze is busy".into()),
                other => Err(format!("a second freeze was not busy: {other:?}")),
            }
        })
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move {
            let Some(frozen) = self.frozen.take() else { return Ok(()) };
            let thawed = frozen.end().await;
            arena.lab.disk(self.id)?.release();
            thawed?;
            node::start(arena, &[self.id]).await
        })
    }
}

fn fsfreeze(option: &str, mount: &Path) -> Command {
    let mut command = shell("fsfreeze");
    command.arg(option).arg(mount);
    command
}

async fn thaw(mount: PathBuf, after: Duration, stop: Stop) -> Result<(), String> {
    // Over, or stopped: both end it.
    let _ = tokio::time::timeout(after, stop).await;
    background::command(fsfreeze("-u", &mount)).await.map(drop)
}

/// A disk without a free block.
pub(super) struct Full {
    id: u64,
    filler: Option<PathBuf>,
}

impl Full {
    /// What is taken at a time, as long as there is so much.
    const CHUNKS: [i64; 4] = [64 << 20, 4 << 20, 128 << 10, 4 << 10];

    pub(super) fn new(id: u64) -> Self {
        Full { id, filler: None }
    }

    /// Takes all there is. Returns how much, and what a write into another file says then.
    fn fill(filler: &Path) -> Result<(i64, std::io::Result<()>), String> {
        let file = File::create(filler).map_err(|e| format!("{}: {e}", filler.display()))?;
        let mut size = 0;
        for chunk in Full::CHUNKS {
            while fallocate(file.as_fd(), FallocateFlags::empty(), size, chunk).is_ok() {
                size += chunk;
            }
        }
        let probe = filler.with_extension("probe");
        let written = File::create(&probe).and_then(|mut file| file.write_all(&[0; 8 << 10]));
        // It could not be made, perhaps.
        let _ = fs::remove_file(probe);
        Ok((size, written))
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk of {} is full", self.id)
    }
}

impl Fault for Full {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            let filler = background::on_disk(arena, self.id, |disk| {
                disk.claim()?;
                Ok(disk.path().join("filler"))
            })?;
            self.filler = Some(filler.clone());
            let (size, written) = background::blocking(move || Full::fill(&filler)).await?;
            match written {
                Err(error) if error.kind() == ErrorKind::StorageFull => {
                    Ok(format!("{} MiB taken, a write: {error}", size >> 20))
                }
                other => Err(format!("{size} bytes taken, and a write said {other:?}")),
            }
        })
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move {
            let Some(filler) = self.filler.take() else { return Ok(()) };
            arena.lab.disk(self.id)?.release();
            let removed = fs::remove_file(&filler);
            removed.map_err(|e| format!("{}: {e}", filler.display()))?;
            node::start(arena, &[self.id]).await
        })
    }
}

/// A file system that the kernel found an error in.
pub(super) struct ReadOnly {
    id: u64,
    broken: bool,
}

impl ReadOnly {
    pub(super) fn new(id: u64) -> Self {
        ReadOnly { id, broken: false }
    }
}

impl fmt::Display for ReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk of {} becomes read-only", self.id)
    }
}

impl Fault for ReadOnly {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            background::on_disk(arena, self.id, |disk| disk.claim())?;
            self.broken = true;
            background::on_disk(arena, self.id, |disk| {
                disk.break_down()?;
                match File::create(disk.path().join("probe")) {
                    Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                        Ok(format!("a write: {error}"))
                    }
                    other => Err(format!("a new file was {other:?}")),
                }
            })
        })
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move {
            if !self.broken {
                return Ok(());
            }
            node::kill(arena, &[self.id]).await?;
            background::on_disk(arena, self.id, |disk| {
                disk.repair()?;
                disk.release();
                Ok(())
            })?;
            self.broken = false;
            node::start(arena, &[self.id]).await
        })
    }
}
