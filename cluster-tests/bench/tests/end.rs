//! A benchmark that is ended early leaves nothing behind, whatever it was about to do.

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise panics")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Where a run is when it is ended.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// It has made its directory.
    Begun,
    /// The first node was started a moment ago, the others not yet or just now.
    FirstNode,
    /// All nodes are there; they elect a leader, or are being loaded.
    AllNodes,
}

/// A run of one row, in a directory of its own.
struct Run {
    dir: PathBuf,
    program: Child,
}

impl Run {
    fn start(name: &str) -> Self {
        // In the target directory: what is in memory is refused.
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let program = Command::new(env!("CARGO_BIN_EXE_bench"))
            .args(["run", "--quick", "--rows", "costs", "--dir"])
            .arg(&dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Run { dir, program: program.unwrap() }
    }

    /// Waits until it is there, and ends it.
    fn end_at(&mut self, moment: Moment, signal: Signal) -> Option<i32> {
        self.wait_for(&format!("{moment:?}"), |run| match moment {
            Moment::Begun => run.data().is_some(),
            Moment::FirstNode => run.nodes() >= 1,
            Moment::AllNodes => run.nodes() >= 3,
        });
        kill(Pid::from_raw(self.program.id().try_into().unwrap()), signal).unwrap();
        self.program.wait().unwrap().code()
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&Run) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < LIMIT, "waited {LIMIT:?} for {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Its directory of data, while there is one.
    fn data(&self) -> Option<PathBuf> {
        fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path()).next()
    }

    /// Processes that were told this run's directory, but for the benchmark itself.
    fn started(&self) -> Vec<String> {
        let dir = self.dir.to_str().unwrap();
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let commands = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        let commands = commands.map(|words| String::from_utf8_lossy(&words).replace('\0', " "));
        commands.filter(|command| command.contains(dir)).collect()
    }

    /// Nodes that run.
    fn nodes(&self) -> usize {
        self.started().iter().filter(|command| command.contains("--node-id")).count()
    }

    fn left_nothing(&self) {
        assert_eq!(self.started(), Vec::<String>::new());
        assert_eq!(self.data(), None);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn nothing_is_left_of_a_run_that_is_ended_at_any_moment() {
    let ends = [
        (Moment::Begun, Signal::SIGINT),
        (Moment::FirstNode, Signal::SIGTERM),
        (Moment::AllNodes, Signal::SIGINT),
        (Moment::AllNodes, Signal::SIGHUP),
    ];
    for (moment, signal) in ends {
        let mut run = Run::start("ended");
        let code = run.end_at(moment, signal);
        assert_eq!(code, Some(128 + signal as i32), "{moment:?}");
        run.left_nothing();
    }
}

#[test]
fn no_process_outlives_a_supervisor_that_is_killed_and_the_next_run_deletes_its_data() {
    let mut run = Run::start("killed");
    assert_eq!(run.end_at(Moment::AllNodes, Signal::SIGKILL), None);
    run.wait_for("all processes to be gone", |run| run.started().is_empty());
    assert!(run.data().is_some(), "nobody could delete it");
    run.program = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["run", "--rows", "costs", "--dir"])
        .arg(&run.dir)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let left = run.data().unwrap();
    run.wait_for("the next run", |_| !left.exists());
    run.end_at(Moment::Begun, Signal::SIGTERM);
    run.left_nothing();
}
