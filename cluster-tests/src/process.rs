//! One node: a child process of the built binary, its directory, its log.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::Place;
use crate::wait;

/// Lines of a log that a failure shows.
const TAIL_LINES: usize = 40;

/// The binary under test: `KVDB_BIN`, or `kvdb` beside this test in the target directory, so that a
/// test of a profile runs the binary of that profile.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("KVDB_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "KVDB_BIN names no file: {}", path.display());
        return path;
    }
    let test = std::env::current_exe().expect("a process knows its executable");
    let path = test.ancestors().skip(1).take(2).map(|dir| dir.join("kvdb")).find(|p| p.is_file());
    path.unwrap_or_else(|| {
        panic!("no `kvdb` beside {}: run `make build` first, or set KVDB_BIN", test.display())
    })
}

/// A command of the binary that takes nothing from this process's environment that would configure it.
#[must_use]
pub fn command() -> Command {
    command_under(&[])
}

/// The same, started by another command whose words come first.
fn command_under(words: &[&String]) -> Command {
    let mut command = match words {
        [] => Command::new(binary()),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(binary());
            command
        }
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KVDB_") {
            command.env_remove(name);
        }
    }
    command
}

/// A node's process, running or not.
pub struct Process {
    id: u64,
    args: Vec<String>,
    prefix: Vec<String>,
    wrapper: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// A process that has not been started.
    #[must_use]
    pub fn new(place: &Place, args: Vec<String>, log: PathBuf) -> Self {
        let Place { id, prefix, env, .. } = place.clone();
        Process { id, args, prefix, wrapper: Vec::new(), env, log, child: None }
    }

    /// Has the binary started by a command such as `strace -D …`, from the next start on; by none where
    /// it is empty. The command must become the binary, or be its parent and end with it.
    pub fn wrap(&mut self, wrapper: Vec<String>) {
        self.wrapper = wrapper;
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap_or_else(|| panic!("node {} does not run", self.id)).id()
    }

    /// Starts it; its output goes behind what the log holds already.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start(&mut self) {
        assert!(!self.is_running(), "node {} runs already", self.id);
        let log = File::options().create(true).append(true).open(&self.log);
        let mut log = log.expect("the log can be opened");
        let _ = writeln!(log, "--- kvdb {}", self.args.join(" "));
        let words: Vec<&String> = self.prefix.iter().chain(&self.wrapper).collect();
        let child = command_under(&words)
            .args(&self.args)
            .env("RUST_BACKTRACE", "1")
            .envs(self.env.clone())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("the binary can be started"));
    }

    /// Whether it has been started and has not exited.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its exit status, once it has exited.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&mut self, signal: Signal) {
        let running = self.is_running();
        let child = self.child.as_ref().filter(|_| running);
        let child = child.unwrap_or_else(|| panic!("node {} does not run", self.id));
        let pid = i32::try_from(child.id()).expect("a process id is an i32");
        kill(Pid::from_raw(pid), signal).expect("a child can be signalled");
    }

    /// Waits until a process that was killed is gone.
    pub fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Waits until it exits.
    ///
    /// # Panics
    /// When it has not within the limit.
    pub async fn exited(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("node {} to exit", self.id);
        let status =
            wait::until(&what, limit, async || self.exit_status().ok_or("it runs".into())).await;
        self.child = None;
        status
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let skipped = lines.len().saturating_sub(TAIL_LINES);
        lines.into_iter().skip(skipped).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let mut err = std::io::stderr();
            let _ = writeln!(err, "--- node {}: end of {}", self.id, self.log.display());
            let _ = writeln!(err, "{}", self.log_tail());
        }
    }
}
