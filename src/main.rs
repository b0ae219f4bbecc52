//! The binary; what it does is in [`kvdb::cli`].

use std::process::ExitCode;

/// A fifth of a loaded leader's time went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    no_huge_pages();
    abort_on_panic();
    kvdb::cli::main()
}

/// The allocator's memory grows by pages of what was touched, not by 2 MiB for a page of it: a fresh node
/// takes 27 MiB less, one with a million keys 45 MiB.
fn no_huge_pages() {
    // Where the kernel knows none, nothing is to be done.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
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
