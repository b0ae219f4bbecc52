//! A piece under callgrind.

use std::io;
use std::path::Path;
use std::process::Command;

use super::counted_runs;
use crate::pieces::Piece;

/// The function that is counted: mangled or not, it has these words in its name.
const MEASURED: &str = "*pieces*measured*";

/// How often a piece may fail that waits for a node: on a machine without a processor to spare, one under
/// callgrind may lose its lead, or not answer in time.
const ATTEMPTS_MAX: usize = 3;

/// What was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Instructions of one call.
    pub per_call: u64,
}

/// Counts a piece: this program again, under callgrind. Its profile goes to a file where one is named.
///
/// # Errors
/// When valgrind is not there, or the piece does not run.
pub fn count(piece: &Piece, profile: Option<&Path>) -> io::Result<Counted> {
    let directory = tempfile::tempdir()?;
    let own = directory.path().join("profile");
    let file = profile.unwrap_or(&own);
    let mut attempts = if piece.waits { ATTEMPTS_MAX } else { 1 };
    loop {
        attempts -= 1;
        match run(piece, file) {
            Ok(()) => break,
            Err(error) if attempts == 0 => return Err(error),
            Err(_) => {}
        }
    }
    let total = total(&std::fs::read_to_string(file)?)
        .ok_or_else(|| io::Error::other(format!("{}: callgrind counted nothing", piece.name)))?;
    Ok(Counted { per_call: total / (counted_runs(piece) * piece.calls) })
}

fn run(piece: &Piece, file: &Path) -> io::Result<()> {
    let mut command = Command::new("valgrind");
    command
        // Threads take turns, or one that spins keeps those out that it waits for.
        .args(["--tool=callgrind", "--fair-sched=try", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe()?)
        .args(["run", piece.name]);
    // The environment lies on the stack: another one would move what comes after it.
    command.env_clear();
    let kept = ["PATH", "TMPDIR"].map(|name| (name, std::env::var_os(name)));
    command.envs(kept.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::other("valgrind is not installed: deploy/setup.sh --valgrind")
        }
        _ => error,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{}: {}\n{said}", piece.name, output.status)))
}

/// All instructions of a profile.
fn total(profile: &str) -> Option<u64> {
    let totals = profile.lines().find_map(|line| line.strip_prefix("totals:"))?;
    totals.trim().parse().ok().filter(|total| *total > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_tells_its_total() {
        let profile = "version: 1\nevents: Ir\nsummary: 12\n\nfn=(1) a\n3 12\n\ntotals: 1234\n";
        assert_eq!(total(profile), Some(1234));
        assert_eq!(total("totals: 0\n"), None);
        assert_eq!(total("events: Ir\n"), None);
    }
}
