//! Wall clocks that can be moved while a node runs: a preloaded shim that adds an offset.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{run, shell};

/// The shim's source.
const SOURCE: &str = include_str!("../../shim/clock.c");

/// The shim, and a file with an offset for each node.
pub struct Clock {
    library: PathBuf,
    dir: PathBuf,
}

impl Clock {
    /// Compiles the shim.
    pub(super) fn build(dir: &Path) -> Result<Self, String> {
        let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
        fs::write(&source, SOURCE).map_err(|e| e.to_string())?;
        run(shell("cc -O1 -shared -fPIC -o").arg(&library).arg(&source))?;
        Ok(Clock { library, dir: dir.to_owned() })
    }

    /// What a node's process needs to see its own clock, which is right at first.
    pub(super) fn environment(&self, id: u64) -> Result<Vec<(String, String)>, String> {
        self.shift(id, Duration::ZERO, true)?;
        Ok(vec![
            ("LD_PRELOAD".to_owned(), self.library.display().to_string()),
            ("KVDB_CLOCK".to_owned(), self.file(id).display().to_string()),
        ])
    }

    fn file(&self, id: u64) -> PathBuf {
        self.dir.join(format!("clock-{id}"))
    }

    /// Moves a node's wall clock away from the machine's, forward or back. Seen at once.
    pub fn shift(&self, id: u64, by: Duration, forward: bool) -> Result<(), String> {
        let offset = i64::try_from(by.as_nanos()).map_err(|e| e.to_string())?;
        let offset = if forward { offset } else { -offset };
        // In place: the file is mapped.
        let written = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.file(id))
            .and_then(|file| {
                std::os::unix::fs::FileExt::write_all_at(&file, &offset.to_le_bytes(), 0)
            });
        written.map_err(|e| e.to_string())
    }
}
