//! Waiting for a state with a deadline, in a fault.

/// Waits until a block is `Ok`, or is why it last said no: as [`crate::wait::try_until`] does, with a
/// block in the place of the closure. The future of an async closure that borrows cannot be shown to be
/// [`Send`], which a [`super::Task`] is.
macro_rules! until {
    ($limit:expr, $check:expr) => {{
        let deadline = std::time::Instant::now() + $limit;
        loop {
            let checked: Result<_, String> = async { $check }.await;
            match checked {
                Ok(found) => break Ok(found),
                Err(last) if std::time::Instant::now() >= deadline => break Err(last),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    }};
}
pub(super) use until;
