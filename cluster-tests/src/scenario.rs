//! One test from start to end: its turn on the machine, its directory, its phases.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

/// A running test. Make it first, so that it is dropped after the cluster.
pub struct Scenario {
    name: &'static str,
    dir: TempDir,
    started: Instant,
    _turn: Flock<File>,
}

impl Scenario {
    /// Waits for this test's turn: clusters share the cores, and a test that measures needs them alone.
    #[must_use]
    pub fn begin(name: &'static str) -> Self {
        let path = std::env::temp_dir().join("kvdb-cluster-tests.lock");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.expect("the lock file can be opened");
        let turn = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error);
        let turn = turn.expect("the lock file can be locked");
        let dir = tempfile::Builder::new().prefix(&format!("kvdb-{name}-")).tempdir();
        let dir = dir.expect("a temporary directory can be made");
        Scenario { name, dir, started: Instant::now(), _turn: turn }
    }

    /// Prints that a phase begins.
    pub fn phase(&self, phase: &str) {
        self.say(&format!("== {phase}"));
    }

    /// Prints a measured figure.
    pub fn figure(&self, what: &str, value: impl std::fmt::Display) {
        self.say(&format!("   {what}: {value}"));
    }

    /// Prints a line. Straight to stderr, which the test runner does not hold back.
    pub fn say(&self, line: &str) {
        let elapsed = self.started.elapsed().as_secs_f64();
        let _ = writeln!(std::io::stderr(), "[{} {elapsed:6.2}s] {line}", self.name);
    }

    /// The directory that the test may fill; kept when the test fails.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The root of the checkout.
    #[must_use]
    pub fn checkout() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            self.say(&format!("FAILED; data and logs are kept in {}", self.dir.path().display()));
        } else {
            self.say("== passed");
        }
    }
}
