//! What this node has sent to its peers: how many messages of Raft, and how many bytes.
//!
//! Questions and answers count alike, each where it is sent, so the sum over all nodes is what passed between
//! them. Bytes are those of bodies: HTTP/2 adds its frames and, once for a stream, its headers. Snapshots are not
//! in it, which would hide everything else.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters, since the start.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Traffic {
    /// A message of so many bytes was given to a connection.
    pub(super) fn sent(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Messages and bytes so far.
    pub(super) fn so_far(&self) -> (u64, u64) {
        (self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_their_bytes_are_counted() {
        let traffic = Traffic::default();
        traffic.sent(300);
        traffic.sent(0);
        assert_eq!(traffic.so_far(), (2, 300));
    }
}
