//! Wall clocks that can be moved while a node runs: a preloaded shim that adds an offset.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
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

    /// The shim.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// The file with a node's offset, which its process maps.
    #[must_use]
    pub fn file(&self, id: u64) -> PathBuf {
        self.dir.join(format!("clock-{id}"))
    }

    /// Moves a node's wall clock away from the machine's, forward or back. Seen at once.
    pub fn shift(&self, id: u64, by: Duration, forward: bool) -> Result<(), String> {
        let nanos = i64::try_from(by.as_nanos()).map_err(|e| e.to_string())?;
        self.offset(id)?.set(if forward { nanos } else { -nanos })
    }

    /// A node's offset, to be moved again and again.
    pub fn offset(&self, id: u64) -> Result<Offset, String> {
        let path = self.file(id);
        // Kept as it is: the file is mapped.
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        file.map(Offset).map_err(|e| format!("{}: {e}", path.display()))
    }
}

/// How far a node's wall clock is from the machine's, in nanoseconds.
pub struct Offset(File);

impl Offset {
    /// Moves it. Seen at once.
    pub fn set(&self, nanos: i64) -> Result<(), String> {
        self.0.write_all_at(&nanos.to_le_bytes(), 0).map_err(|e| e.to_string())
    }

    /// Where it is.
    pub fn get(&self) -> Result<i64, String> {
        let mut nanos = [0; 8];
        self.0.read_exact_at(&mut nanos, 0).map_err(|e| e.to_string())?;
        Ok(i64::from_le_bytes(nanos))
    }
}
