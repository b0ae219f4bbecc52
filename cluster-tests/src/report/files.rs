//! What is on disk: `DIR/index.html`, and for each run `DIR/NAME/` with `index.html`, `run.json` and
//! `history.jsonl`.
//!
//! The history is written first and the page last: a page that is there has its history beside it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::history::{Operation, Run};

use super::{Summary, index, page};

/// An operation a line.
const HISTORY: &str = "history.jsonl";
/// Everything of a run but its operations.
const RUN: &str = "run.json";
/// What a browser opens.
const PAGE: &str = "index.html";
/// Characters of a run's name.
const NAME_MAX: usize = 120;

/// Writes a run into the directory of its name, and returns the path of its page.
///
/// # Errors
/// When the disk does not take it, or the name is none of a directory.
pub fn write_run(dir: &Path, run: &Run) -> io::Result<PathBuf> {
    let dir = dir.join(checked_name(&run.name)?);
    fs::create_dir_all(&dir)?;
    let mut history = BufWriter::new(File::create(dir.join(HISTORY))?);
    for operation in &run.operations {
        serde_json::to_writer(&mut history, operation)?;
        history.write_all(b"\n")?;
    }
    history.into_inner().map_err(io::IntoInnerError::into_error)?;
    let mut rest = serde_json::to_string_pretty(&without_operations(run))?;
    rest.push('\n');
    fs::write(dir.join(RUN), rest)?;
    let page = dir.join(PAGE);
    fs::write(&page, page::html(run))?;
    Ok(page)
}

/// Reads a run back from its own directory.
///
/// # Errors
/// When a file is not there, or is not what [`write_run`] writes: the message names file and line.
pub fn read_run(dir: &Path) -> io::Result<Run> {
    let path = dir.join(RUN);
    let text = fs::read_to_string(&path).map_err(|error| at(&path, &error))?;
    let mut run: Run = serde_json::from_str(&text).map_err(|error| at(&path, &error))?;
    let path = dir.join(HISTORY);
    let history = File::open(&path).map_err(|error| at(&path, &error))?;
    for (index, line) in BufReader::new(history).lines().enumerate() {
        let parse = |line: String| -> io::Result<Operation> { Ok(serde_json::from_str(&line)?) };
        let operation = line.and_then(parse);
        let place = || path.join(format!("line {}", index + 1));
        run.operations.push(operation.map_err(|error| at(&place(), &error))?);
    }
    Ok(run)
}

/// Writes the index of a campaign beside its runs' directories, and returns its path.
///
/// # Errors
/// When the disk does not take it, or a name is none of a directory.
pub fn write_index(dir: &Path, runs: &[Summary]) -> io::Result<PathBuf> {
    for run in runs {
        checked_name(&run.name)?;
    }
    fs::create_dir_all(dir)?;
    let path = dir.join(PAGE);
    fs::write(&path, index::html(runs))?;
    Ok(path)
}

/// The address of a run's page, from the index.
pub(super) fn address(name: &str) -> String {
    format!("{name}/{PAGE}")
}

/// The name, if it is fit for a directory and an address everywhere.
fn checked_name(name: &str) -> io::Result<&str> {
    let fit = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    if name.is_empty() || name.len() > NAME_MAX || name.starts_with('.') || !name.chars().all(fit) {
        let message = format!(
            "a run named {name:?}: use 1 to {NAME_MAX} of a-z A-Z 0-9 - _ . and no dot at the start"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(name)
}

/// An error with the place where it happened.
fn at(path: &Path, error: &dyn std::error::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
}

/// A run with no operations. Field by field, so that a new one is not forgotten and operations are not
/// copied.
fn without_operations(run: &Run) -> Run {
    Run {
        name: run.name.clone(),
        seed: run.seed,
        build: run.build.clone(),
        knobs: run.knobs.clone(),
        nodes: run.nodes,
        isolation: run.isolation.clone(),
        started: run.started,
        took: run.took,
        operations: Vec::new(),
        faults: run.faults.clone(),
        dumps: run.dumps.clone(),
        verdicts: run.verdicts.clone(),
        troubles: run.troubles.clone(),
        replay: run.replay.clone(),
    }
}
