//! Progress, for whoever waits: on stderr, with the time since the start. Results go to stdout.

use std::io::Write;
use std::sync::OnceLock;
use std::time::Instant;

static STARTED: OnceLock<Instant> = OnceLock::new();

/// Says a line.
pub fn say(line: &str) {
    let elapsed = STARTED.get_or_init(Instant::now).elapsed().as_secs_f64();
    let _ = writeln!(std::io::stderr(), "[{elapsed:7.1}s] {line}");
}
