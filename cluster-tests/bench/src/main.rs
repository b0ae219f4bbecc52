//! `bench`: KVdb beside its peers.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::main() {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("bench: {reason}");
            ExitCode::from(2)
        }
    }
}
