//! Tickets: how a credential survives a redirect.
//!
//! Clients drop `Authorization` when a redirect changes host or port. So the follower hands the
//! credential to the leader over the peer link, and the leader keeps it under a random nonce, which
//! rides in `Location`: good once, for ten seconds by this process's monotonic clock, and only for the
//! same method, path and query. Nothing of it is written to disk; another leader knows nothing of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::nature::random_name;
use crate::error::{Error, Result};
use crate::kv::Credential;

/// How long a ticket is good.
const TICKET_TIME: Duration = Duration::from_secs(10);
/// Tickets that may be out at a time.
const TICKETS_MAX: usize = 100_000;
/// Between two sweeps of tickets that nobody came for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

struct Ticket {
    credential: Credential,
    request: Digest,
    issued: Instant,
}

/// What a ticket knows its request by: paths can be long, and hold what is none of our business.
type Digest = [u8; 32];

fn digest(method: &str, path_and_query: &str) -> Digest {
    // No method has a blank, so no two requests are spelled alike.
    Sha256::new()
        .chain_update(method)
        .chain_update(" ")
        .chain_update(path_and_query)
        .finalize()
        .into()
}

/// The tickets that this process has out.
#[derive(Default)]
pub(super) struct Tickets(Mutex<Out>);

#[derive(Default)]
struct Out {
    tickets: HashMap<String, Ticket>,
    swept: Option<Instant>,
}

impl Out {
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.duration_since(swept) < SWEEP_EVERY) {
            return;
        }
        self.swept = Some(now);
        self.tickets.retain(|_, ticket| now.duration_since(ticket.issued) < TICKET_TIME);
    }
}

impl Tickets {
    /// Issues a ticket for one request.
    pub(super) fn issue(
        &self,
        method: &str,
        path_and_query: &str,
        credential: &Credential,
    ) -> Result<String> {
        let issued = Instant::now();
        let request = digest(method, path_and_query);
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.sweep(issued);
        if out.tickets.len() >= TICKETS_MAX {
            return Err(Error::Overloaded(format!("{TICKETS_MAX} redirects are under way")));
        }
        let nonce = random_name();
        let ticket = Ticket { credential: credential.clone(), request, issued };
        out.tickets.insert(nonce.clone(), ticket);
        Ok(nonce)
    }

    /// Takes a ticket: whose it is, unless it is unknown, used, too old or for another request. It is
    /// gone in any case.
    pub(super) fn take(
        &self,
        nonce: &str,
        method: &str,
        path_and_query: &str,
    ) -> Option<Credential> {
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = out.tickets.remove(nonce)?;
        let fits = ticket.request == digest(method, path_and_query)
            && ticket.issued.elapsed() < TICKET_TIME;
        fits.then_some(ticket.credential)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_and_for_one_request() {
        let tickets = Tickets::default();
        let key = Credential::new("k");
        let nonce = tickets.issue("GET", "/b/scripts/s?a=1", &key).unwrap();
        assert_eq!(tickets.take(&nonce, "GET", "/b/scripts/s?a=1"), Some(key.clone()));
        assert_eq!(tickets.take(&nonce, "GET", "/b/scripts/s?a=1"), None);
        for (method, path) in [("POST", "/b/scripts/s"), ("GET", "/b/scripts/t")] {
            let nonce = tickets.issue("GET", "/b/scripts/s", &key).unwrap();
            assert_eq!(tickets.take(&nonce, method, path), None);
            assert_eq!(tickets.take(&nonce, "GET", "/b/scripts/s"), None, "spent by the attempt");
        }
        assert_eq!(tickets.take("unknown", "GET", "/"), None);
    }

    #[test]
    fn what_nobody_came_for_is_swept_now_and_then() {
        let tickets = Tickets::default();
        tickets.issue("GET", "/b/scripts/s", &Credential::new("k")).unwrap();
        let mut out = tickets.0.lock().unwrap();
        let swept = out.swept.unwrap();
        // Not yet: the last sweep was just now.
        out.sweep(swept + SWEEP_EVERY / 2);
        assert_eq!((out.tickets.len(), out.swept), (1, Some(swept)));
        out.sweep(swept + SWEEP_EVERY);
        assert_eq!(out.tickets.len(), 1, "still good");
        out.sweep(swept + TICKET_TIME + SWEEP_EVERY);
        assert_eq!(out.tickets.len(), 0);
    }
}
