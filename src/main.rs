//! The binary; what it does is in [`kvdb::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    kvdb::cli::main()
}
