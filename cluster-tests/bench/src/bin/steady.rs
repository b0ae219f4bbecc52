//! `steady`: instructions of the road's pieces, under callgrind.
#![expect(clippy::print_stdout, reason = "it is what the program is for")]

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use bench::pieces::{PIECES, Piece};
use bench::steady::{self, Table, Verdict};
use clap::{Parser, Subcommand};

/// Counts the instructions of each piece of a call's road, and compares them to the table in the repository.
///
/// The exit status is 0 where no piece rose by more than a tenth, 1 where one did or the table does not have
/// the same pieces, 2 where nothing could be counted.
#[derive(Parser)]
#[command(verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Counts, and compares to the table; only pieces with one of these words in their name.
    Check {
        /// Words; none is all pieces.
        words: Vec<String>,
    },
    /// Counts, and writes the table.
    Baseline,
    /// Writes what callgrind saw of one piece, for callgrind_annotate or kcachegrind.
    Profile {
        /// The piece.
        piece: String,
        /// The file.
        file: PathBuf,
    },
    /// Runs one piece, for callgrind to count.
    Run {
        /// The piece.
        piece: String,
    },
    /// Lists the pieces.
    List,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("steady: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> io::Result<ExitCode> {
    match command {
        Command::Check { words } => return check(&words),
        Command::Baseline => baseline()?,
        Command::Profile { piece, file } => {
            let counted = steady::count(named(&piece)?, Some(&file))?;
            println!("{piece}: {} instructions a call; {}", counted.per_call, file.display());
        }
        Command::Run { piece } => steady::run(named(&piece)?).map_err(io::Error::other)?,
        Command::List => {
            PIECES.iter().for_each(|piece| println!("{:<24}{}", piece.name, piece.what))
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn named(name: &str) -> io::Result<&'static Piece> {
    let unknown =
        || io::Error::other(format!("there is no piece `{name}`: `steady list` has them"));
    Piece::named(name).ok_or_else(unknown)
}

fn read_baseline() -> io::Result<Table> {
    let path = steady::baseline_path();
    let text = std::fs::read_to_string(&path).map_err(|error| {
        io::Error::other(format!("{}: {error}; `make bench-baseline` makes it", path.display()))
    })?;
    Table::parse(&text).map_err(io::Error::other)
}

fn baseline() -> io::Result<()> {
    let table = steady::measure(&[])?;
    std::fs::write(steady::baseline_path(), table.to_string())?;
    print!("{table}");
    Ok(())
}

fn check(words: &[String]) -> io::Result<ExitCode> {
    let (mut before, now) = (read_baseline()?, steady::measure(words)?);
    if !words.is_empty() {
        before.rows.retain(|(name, _)| words.iter().any(|word| name.contains(word.as_str())));
    }
    println!("{:<24}{:>10}{:>10}{:>10}", "instructions a call", "table", "now", "change");
    let differences = steady::compare(&before, &now);
    differences.iter().for_each(|difference| println!("{difference}"));
    if before.made_by != now.made_by {
        println!("the table was made by {}, these by {}", before.made_by, now.made_by);
    }
    let is = |verdict| differences.iter().any(|difference| difference.verdict() == verdict);
    if is(Verdict::Fell) {
        println!("a piece fell: `make bench-baseline`, so that the next rise is seen");
    }
    if differences.is_empty() {
        return Err(io::Error::other(format!("no piece has {} in its name", words.join(" or "))));
    }
    if !steady::passes(&differences) {
        println!(
            "bench-check: FAILED. Is it worth it? Then `make bench-baseline`, and say why in the commit"
        );
        return Ok(ExitCode::from(1));
    }
    println!("bench-check: ok, {} pieces", now.rows.len());
    Ok(ExitCode::SUCCESS)
}
