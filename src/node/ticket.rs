//! Tickets: how a credential survives a redirect.
//!
//! Clients drop `Authorization` when a redirect changes host or port. So the follower hands the
//! credential to the leader over the peer link, and the leader keeps it under a random nonce, which
//! rides in `Location`: good once, for ten seconds by this process's monotonic clock, and only for the
//! same method, path and query. Nothing of it is written to disk; another leader knows nothing of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::nature::random_name;
use crate::error::{Error, Result};
use crate::kv::Credential;

/// How long a ticket is good.
const TICKET_TIME: Duration = Duration::from_secs(10);
/// Tickets that may be out at a time.
const TICKETS_MAX: usize = 100_000;
/// Issues between two sweeps of tickets that nobody came for.
const SWEEP_EVERY: usize = 1024;

struct Ticket {
    credential: Credential,
    method: String,
    path_and_query: String,
    issued: Instant,
}

/// The tickets that this process has out.
#[derive(Default)]
pub(super) struct Tickets(Mutex<HashMap<String, Ticket>>);

impl Tickets {
    /// Issues a ticket for one request.
    pub(super) fn issue(
        &self,
        method: &str,
        path_and_query: &str,
        credential: &Credential,
    ) -> Result<String> {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.len() % SWEEP_EVERY == SWEEP_EVERY - 1 || tickets.len() >= TICKETS_MAX {
            tickets.retain(|_, ticket| ticket.issued.elapsed() < TICKET_TIME);
        }
        if tickets.len() >= TICKETS_MAX {
            return Err(Error::Overloaded(format!("{TICKETS_MAX} redirects are under way")));
        }
        let nonce = random_name();
        let ticket = Ticket {
            credential: credential.clone(),
            method: method.to_owned(),
            path_and_query: path_and_query.to_owned(),
            issued: Instant::now(),
        };
        tickets.insert(nonce.clone(), ticket);
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
        let ticket = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(nonce)?;
        let fits = ticket.method == method
            && ticket.path_and_query == path_and_query
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
}
