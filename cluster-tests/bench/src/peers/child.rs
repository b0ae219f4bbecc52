//! A process of one of the peers.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::supervise::{dies_with_us, kill_now};

/// The process, running or not. Dropping it kills it.
pub struct Child {
    program: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    child: Option<std::process::Child>,
}

impl Child {
    /// Starts a program; its output goes behind what is in the log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, args: Vec<String>, log: PathBuf) -> Result<Self, String> {
        let mut child = Child { program: program.to_owned(), args, log, child: None };
        child.restart()?;
        Ok(child)
    }

    /// Starts it again, where it does not run.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self) -> Result<(), String> {
        if self.is_running() {
            return Ok(());
        }
        let failed = |e: std::io::Error| format!("{}: {e}", self.program.display());
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed)?;
        let mut command = under(dies_with_us(), &self.program);
        let child = command
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn();
        self.child = Some(child.map_err(failed)?);
        Ok(())
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its process id; 0 where it was never started.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, std::process::Child::id)
    }

    /// `kill -9`; [`Child::reap`] waits for its end.
    pub fn kill(&self) {
        if let Some(child) = &self.child {
            kill_now(child.id());
        }
    }

    /// Waits until a process that was killed is gone.
    pub fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// The last line of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().last().unwrap_or_default().to_owned()
    }
}

/// A program, started by another one that becomes it.
fn under(words: Vec<String>, program: &Path) -> Command {
    let mut words = words.into_iter();
    let Some(first) = words.next() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(words).arg(program);
    command
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        self.reap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_is_killed_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let program = crate::peers::program("sleep").unwrap();
        let mut child = Child::start(&program, vec!["60".into()], dir.path().join("log")).unwrap();
        let pid = child.pid();
        assert!(child.is_running() && crate::machine::children().contains(&pid));
        child.kill();
        child.reap();
        assert!(!child.is_running());
        child.restart().unwrap();
        let pid = child.pid();
        drop(child);
        assert!(!crate::machine::children().contains(&pid));
    }
}
