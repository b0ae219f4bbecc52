//! The binary; what it does is in [`kvdb::cli`].

use std::process::ExitCode;

/// A fifth of a loaded leader's time went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    abort_on_panic();
    kvdb::cli::main()
}

/// A panic is a bug: state may be half changed, so the process ends and the log is replayed. A hook
/// and not `panic = "abort"`, because Luau's exceptions must be able to pass through our frames.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
