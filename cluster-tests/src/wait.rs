//! Waiting for a condition, never for luck.

use std::time::{Duration, Instant};

/// How often a condition is looked at: well below every time that a test asserts.
const POLL: Duration = Duration::from_millis(20);

/// Waits until the check is `Ok`, and returns what it found.
///
/// # Panics
/// When the limit is over, with what was waited for and why the check last said no.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    check: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    match try_until(limit, check).await {
        Ok(found) => found,
        Err(last) => panic!("waited {limit:?} for {what}; last: {last}"),
    }
}

/// Waits until the check is `Ok`, or returns why it last said no.
pub async fn try_until<T>(
    limit: Duration,
    mut check: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + limit;
    loop {
        match check().await {
            Ok(found) => return Ok(found),
            Err(last) if Instant::now() >= deadline => return Err(last),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// `Ok` where the condition holds, else the reason: for the checks above.
pub fn holds(condition: bool, reason: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(reason()) }
}
